"""Fake data of both DeepLense tasks, of known rings, skies and leaks: the check must find them."""

import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from astropy.stats import mad_std

from cast_lens.catalog import CatalogError
from cast_lens.mock import check, check_deeplense, comparison, contents, pixels, quantities, sheet
from tests.test_mock_check import finish

ONE, TWO = contents.TASKS["deeplense1"], contents.TASKS["deeplense2"]
CLASSES = ("no", "sphere", "vort")
FULL2 = {"train_lenses": 1730, "train_nonlenses": 28675, "test_lenses": 195,
         "test_nonlenses": 19455}  # fmt: skip


def ring(theta_e, source, *, width=5.0, n_pixels=150):
    """A Gaussian source behind an isothermal sphere, peak 1; all lengths in pixels."""
    y, x = np.mgrid[:n_pixels, :n_pixels] - (n_pixels - 1) / 2
    r = np.hypot(x, y)
    u, v = x * (1 - theta_e / r) - source[0], y * (1 - theta_e / r) - source[1]
    return np.exp(-(u**2 + v**2) / (2 * width**2))


def save(folder, name, image, dtype):
    """Write an image scaled to [0, 1] and return its row of truth."""
    low, high = float(image.min()), float(image.max())
    path = folder / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, ((image - low) / (high - low)).astype(dtype))
    return {"object_id": name, "value_of_0": low, "value_of_1": high}


def end(folder, survey, rows, **parameters):
    (folder / "Truth").mkdir()
    pd.DataFrame(rows).to_csv(folder / "Truth/truth.csv", index=False)
    return finish(folder, survey, len(rows), **parameters)


def task1(folder, n, *, sky=1.0, light=1.0, dtype="<f8", shift=0, correct=False):
    """Write a fake Task 1; sky, light, dtype and file number may differ for class sphere."""
    rng, rows = np.random.default_rng(5), []
    for k in range(n):
        name, j = CLASSES[k % 3], k // 3
        odd = name == "sphere"
        split = "val" if j % 5 == 1 else "train"
        exposure = 10 ** rng.uniform(3, 3.5)
        counts = 0.24 * (light if odd else 1) * ring(1.2816 / 0.05, rng.uniform(-7, 7, 2))
        counts += 0.01 * (sky if odd else 1) * rng.standard_normal(counts.shape)
        counts = rng.poisson(np.clip(exposure * counts, 0, None))
        number = f"{split}/{name}/{j + 1 + (shift if odd else 0)}"
        rows.append(save(folder, number, counts[None], dtype if odd else "<f8"))
    return end(folder, "deeplense1", rows, model={"correct_distances": correct})


def task2(folder, n, *, noise=1.0, light=1.0, dtype="<f4"):
    """Write a fake Task 2, a fourth of it lenses, whose noise, light and dtype may differ."""
    rng, rows = np.random.default_rng(6), []
    y, x = np.mgrid[:64, :64] - 31.5
    for k in range(n):
        lens, split = k % 4 == 0, "test" if k % 3 == 0 else "train"
        flux = rng.uniform(50, 200) * np.exp(-np.hypot(x, y) / rng.uniform(2, 3))
        image = np.array([0.2, 0.5, 1.0])[:, None, None] * flux * (light if lens else 1)
        image += (noise if lens else 1) * rng.standard_normal((3, 64, 64))
        name = f"{split}_{'lenses' if lens else 'nonlenses'}/{k + 1}"
        rows.append(save(folder, name, 1e-12 * image, dtype if lens else "<f4"))
    return end(folder, "deeplense2", rows)


def checked(folder, **options):
    """Check without pictures, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "draw_lines", lambda *_: None)
        return check.check(folder, **options).set_index(["quantity", "band"])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = task1(tmp_path_factory.mktemp("one"), 240)
    return folder, check.check(folder).set_index(["quantity", "band"])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = task2(tmp_path_factory.mktemp("two"), 240)
    return folder, check.check(folder).set_index(["quantity", "band"])


# Measurements


@pytest.mark.parametrize("source", [(0, 0), (3, -5), (7, 7)])
@pytest.mark.parametrize("theta_e", [20.0, 25.632, 33.3])
def test_ring_radius_is_the_einstein_radius_wherever_the_source_is(theta_e, source):
    # A third of the tolerance of known.csv: a sector's brightest pixel is at its brighter end.
    assert check_deeplense.ring_radius(ring(theta_e, source)) == pytest.approx(theta_e, abs=0.33)


def test_ring_radius_of_an_image_too_small_for_a_ring_is_not_a_number():
    assert np.isnan(check_deeplense.ring_radius(np.ones((39, 150))))


def test_signal_to_noise_is_that_of_the_sky_before_it_was_clipped():
    rng = np.random.default_rng(1)
    sky = rng.poisson(np.clip(rng.normal(0, 20.0, (150, 150)), 0, None)).astype(float)
    sky[75, 75] = 500
    found = check_deeplense.signal_to_noise(sky / 500, np.delete(sky / 500, 75, axis=0))
    assert found == pytest.approx(25, rel=0.03)  # 22,350 half-normal values: 1 %


def test_noise_is_found_under_the_outskirts_of_a_galaxy():
    y, x = np.mgrid[:12, :12]
    surface = 0.3 * x**2 - 0.2 * x * y + 5 * y + 100
    assert check_deeplense.noise_without_light(surface) == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(2)
    noise = [rng.normal(0, 2.0, surface.shape) for _ in range(300)]
    found = [check_deeplense.noise_without_light(surface + each) for each in noise]
    assert np.median(found) == pytest.approx(2.0, rel=0.04)
    assert np.median([mad_std(surface + each) for each in noise]) > 10


def test_measurements_are_numpys_of_the_files(tmp_path):
    image = np.random.default_rng(3).random((3, 64, 64)).astype("<f4")
    image[:, 0, :9] = 0
    np.save(tmp_path / "a.npy", image)
    objects = pd.DataFrame({"path": [str(tmp_path / "a.npy")]}, index=[7])
    row = check_deeplense.measure(objects, TWO, [True]).loc[7]
    border = [(y, x) for y in range(64) for x in range(64) if min(y, x) < 4 or max(y, x) > 59]
    for band, plane in zip("GRI", image.astype(np.float64)):
        frame = np.array([plane[place] for place in border])
        for name, value in (
            ("mean", plane.mean()), ("max", plane.max()), ("median", np.median(plane)),
            ("std", plane.std()), ("border_mean", frame.mean()), ("border_std", frame.std()),
            ("border_median", np.median(frame)), ("border_zeros", 9 / len(frame)),
        ):  # fmt: skip
            assert row[f"{name}_{band}"] == pytest.approx(value), name
    assert (row["bytes"], row["header"]) == (128 + image.nbytes, 128)
    assert (row["dtype"], row["bits"], row["fortran"]) == ("<f4", 32, False)
    assert row[["channels", "height", "width"]].tolist() == [3, 64, 64]
    assert (row["image_min"], row["image_max"]) == (0, pytest.approx(image.max()))
    assert not [name for name in row.index if name.startswith(("ring", "snr"))]


def test_corner_noise_is_the_middle_one_of_four(tmp_path):
    rng = np.random.default_rng(4)
    image = rng.normal(0, 1, (3, 64, 64))
    image[:, :12, :12] *= 50  # a neighbor
    np.save(tmp_path / "a.npy", image)
    row = check_deeplense.measure(
        pd.DataFrame({"path": [str(tmp_path / "a.npy")]}), TWO, [True]
    ).loc[0]
    assert row[["corner_noise_G", "corner_noise_R", "corner_noise_I"]].mean() == pytest.approx(
        1, abs=0.25
    )


@pytest.mark.slow
def test_processes_measure_what_one_measures_and_only_the_sample_in_full(one, monkeypatch):
    objects = contents.read_task(one[0], ONE)[:40]
    chosen = np.arange(40) % 3 == 0
    alone = check_deeplense.measure(objects, ONE, chosen)
    assert alone["ring_radius_"].notna().tolist() == chosen.tolist()
    assert alone[["mean_", "image_max", "bytes"]].notna().all().all()
    monkeypatch.setattr(pixels, "ALONE", 0)
    monkeypatch.setattr(pixels, "CHUNK", 7)
    pd.testing.assert_frame_equal(check_deeplense.measure(objects, ONE, chosen), alone)


def test_classes_have_equal_parts_of_the_sample_as_far_as_they_reach():
    labels = pd.Series([1] * 3 + [0] * 100 + [2] * 50)
    for sample, expected in ((9, [3, 3, 3]), (15, [6, 3, 6]), (1000, [100, 3, 50])):
        chosen = check_deeplense._sampled(labels, sample)
        assert labels[chosen].value_counts().sort_index().tolist() == expected
    first = check_deeplense._sampled(labels, 9)
    assert first.tolist() == check_deeplense._sampled(labels, 9).tolist()
    assert np.flatnonzero(first)[3:6].tolist() != [3, 4, 5]  # drawn, not the first


# Known numbers


def test_every_known_number_is_measured(one, two):
    for _, table in (one, two):
        rows = table[table["known"] != ""]
        assert rows["stand_in"].notna().all(), rows.index[rows["stand_in"].isna()]
        assert (rows["source"] != "").all()


def test_what_was_put_into_task_1_comes_out(one):
    folder, table = one
    images = {name: [np.load(path)[0] for path in sorted(folder.glob(f"*/{name}/*.npy"))]
              for name in CLASSES}  # fmt: skip
    every = np.concatenate(list(images.values()))
    found = table["stand_in"]
    assert found["ring_radius", ""] == pytest.approx(1.2816, abs=0.01)
    assert table.loc[("ring_radius", ""), "n"] == len(images["no"]) == 80
    border = np.ones((150, 150), bool)
    border[10:140, 10:140] = False
    sky = every[:, border].mean(axis=1)
    assert found["snr", ""] == pytest.approx((1 / (np.sqrt(2 * np.pi) * sky)).mean())
    clipped = (1 - sky) / every[:, border].std(axis=1)
    assert found["snr_of_clipped_sky", ""] == pytest.approx(clipped.mean())
    assert found["n_objects", "train/no"] == 64 and found["n_objects", "val/vort"] == 16
    assert table.loc[("fraction", "no"), ["stand_in", "low", "high"]].tolist() == pytest.approx(
        [80 / 240, 79 / 240, 81 / 240]
    )
    for key in ("ring_radius", "channels", "height", "width", "bits", "image_min", "image_max"):
        assert table.loc[(key, ""), "outcome"] == "met", key
    assert table.loc[("n_objects", "train/no"), "outcome"] == "not compared"


def test_what_was_put_into_task_2_comes_out(two):
    folder, table = two
    training = np.array([np.load(path) for path in sorted(folder.glob("train_*/*.npy"))])
    lenses = np.array([np.load(path) for path in sorted(folder.glob("*_lenses/*.npy"))])
    for place, band in enumerate("GRI"):
        assert table.loc[("set_mean", band), "stand_in"] == pytest.approx(
            training[:, place].mean(dtype=float)
        )
        assert table.loc[("lens_max", band), "stand_in"] == pytest.approx(
            lenses[:, place].max(axis=(1, 2)).mean(dtype=float)
        )
    assert table.loc[("lens_mean", "all"), "stand_in"] == pytest.approx(lenses.mean(dtype=float))
    assert table.loc[("lens_max", "I"), "outcome"] == "met"
    assert table.loc[("set_mean", "G"), "outcome"] == "not met"
    assert table.loc[("fraction", "train_lenses"), "outcome"] == "not met"  # a sixth, not 1/29


def full_size(counts, **changed):
    """Numbers of a Task 2 of these counts, its files all alike but for one's `changed`."""
    folders = np.repeat(list(counts), list(counts.values()))
    parts = pd.Series(folders).str.split("_", expand=True)
    objects = pd.DataFrame({"folder": folders, "split": parts[0], "class_name": parts[1]})
    objects["label"] = (objects["class_name"] == "lenses").astype(int)
    same = {"channels": 3, "height": 64, "width": 64, "bits": 32, "image_min": 0.0, "image_max": 1}
    same |= dict.fromkeys([f"{name}_{b}" for name in ("mean", "max") for b in "GRI"], 0.5)
    measured = pd.DataFrame(same, index=range(len(objects)), dtype=float)
    for name, value in changed.items():
        measured.loc[3, name] = value
    numbers = quantities.task_numbers(objects, measured, "GRI")
    known = comparison.read_known()
    known = known[known["survey"] == "deeplense2"]
    table = comparison.compare(known, numbers, numbers[:0], {"n": sum(counts.values())})
    return table.set_index(["quantity", "band"])["outcome"]


def test_counts_must_be_exact_at_full_size(monkeypatch):
    monkeypatch.setattr("cast_lens.mock.estimates.DRAWS", 4)
    right = full_size(FULL2)
    wrong = full_size(FULL2 | {"train_lenses": 1729, "test_lenses": 196})
    for folder in FULL2:
        assert right["n_objects", folder] == right["fraction", folder] == "met"
        expected = "met" if folder.endswith("nonlenses") else "not met"
        assert wrong["n_objects", folder] == expected


@pytest.mark.parametrize(
    ("name", "value"), [("height", 65), ("channels", 1), ("image_min", 0.01), ("image_max", 0.99)]
)
def test_one_file_that_differs_is_not_met(name, value, monkeypatch):
    monkeypatch.setattr("cast_lens.mock.estimates.DRAWS", 4)
    counts = dict.fromkeys(FULL2, 5)
    assert full_size(counts)[name, ""] == "met"
    assert full_size(counts, **{name: value})[name, ""] == "not met"


def test_ring_of_correct_distances_is_not_compared(tmp_path):
    table = checked(task1(tmp_path, 30, correct=True))
    assert table.loc[("ring_radius", ""), "outcome"] == "not compared"
    assert "known for correct_distances False, here True" in table.loc[("ring_radius", ""), "note"]
    assert table.loc[("height", ""), "outcome"] == "met"


def test_known_einstein_radius_and_fractions_are_those_of_their_sources():
    known = comparison.read_known().set_index(["survey", "quantity", "band"])
    # 4 G M / c^2 of 1e12 suns, m; luminosity distances to z = 0.5 and 1, Mpc, flat, 70, 0.3
    theta = np.sqrt(5.9066e15 * (6607.66 - 2832.94) / (6607.66 * 2832.94 * 3.085678e22))
    radius = known.loc[("deeplense1", "ring_radius", "")]
    assert float(radius["value"]) == pytest.approx(np.degrees(theta) * 3600, abs=2e-4)
    low, high = comparison.target(radius["value"], radius["tolerance"], radius["kind"])
    assert low < 1.2816 < high < 1.665  # correct distances would be told apart
    for folder, count in FULL2.items():
        assert float(known.loc[("deeplense2", "n_objects", folder), "value"]) == count
        fraction = float(known.loc[("deeplense2", "fraction", folder), "value"])
        assert fraction == pytest.approx(count / 50055, abs=1e-6)
    mean = (10 * 0.1333 + 185 * 0.0885) / 195
    assert float(known.loc[("deeplense2", "lens_mean", "all"), "value"]) == pytest.approx(
        mean, abs=1e-4
    )


# Leaks


def leaks(table):
    """Names of the probes that found a leak."""
    return {key for key, row in table.iterrows() if key[0].startswith("leak_")
            and row["outcome"] == "not met"}  # fmt: skip


def test_data_without_leak_pass(one, two):
    for (_, table), n in ((one, 4), (two, 2)):
        assert len([key for key in table.index if key[0].startswith("leak_")]) == n
        assert leaks(table) == set()
    assert one[1].loc[("shortcut_auroc", "vort"), "low"] < 0.5


@pytest.mark.parametrize(
    ("planted", "n", "found"),
    [
        # Sky and exposure are told apart by nothing in the border, and exposures vary threefold.
        ({"sky": 1.6}, 150, "leak_border"),
        ({"dtype": "<f4"}, 75, "leak_file"),
        pytest.param({"dtype": ">f8"}, 75, "leak_file", marks=pytest.mark.slow),
        ({"shift": 300}, 75, "leak_file"),
    ],
)
def test_leak_of_one_class_is_found_by_its_probe_and_for_no_other(tmp_path, planted, n, found):
    assert leaks(checked(task1(tmp_path, n, **planted))) == {(found, "sphere")}


@pytest.mark.parametrize(
    ("planted", "found"),
    [({"noise": 1.15}, "leak_corner_noise"), ({"dtype": "<f8"}, "leak_file")],
)
def test_leak_of_lenses_is_found_by_its_probe(tmp_path, planted, found):
    assert leaks(checked(task2(tmp_path, 240, **planted))) == {(found, "")}


def test_brighter_class_is_a_shortcut_and_no_leak(tmp_path):
    """Scaling to [0, 1] dims the sky of brighter images; in counts it is the same."""
    table = checked(task1(tmp_path, 120, light=1.3))
    assert table.loc[("shortcut_auroc", "sphere"), "low"] > 0.8
    assert leaks(table) == set()


def test_brighter_lenses_are_a_shortcut_and_no_leak(two, tmp_path):
    table = checked(task2(tmp_path, 240, light=2.5))
    assert table.loc[("shortcut_auroc", ""), "low"] > 0.8
    assert leaks(table) == set()


# The way through


def test_real_numbers_stand_beside(one, tmp_path):
    folder, _ = one
    table = checked(task1(tmp_path, 30), real=folder)
    assert table.loc[("ring_radius", ""), ["n", "n_real"]].tolist() == [10, 80]
    assert table.loc[("ring_radius", ""), "real"] == pytest.approx(1.2816, abs=0.01)
    assert table.loc[("leak_file", "vort"), "n_real"] == 160
    assert pd.isna(table.loc[("leak_border", "vort"), "real"])  # nothing undoes its scaling


def test_sample_limits_what_costs_and_nothing_else(tmp_path):
    table = checked(task1(tmp_path, 66), sample=45)
    assert table.loc[("ring_radius", ""), "n"] == 15 and table.loc[("snr", ""), "n"] == 45
    assert table.loc[("leak_file", "vort"), "n"] == 30
    assert table.loc[("height", ""), "n"] == table.loc[("n_objects", "val/no"), "n"] == 66
    assert "of 45 of them" in (tmp_path / "Check/table.md").read_text()


@pytest.mark.slow
def test_table_and_picture_are_written_and_always_the_same(one, two):
    for name, (folder, table) in (("1", one), ("2", two)):
        written = pd.read_csv(folder / "Check/table.csv", keep_default_na=False)
        assert list(written) == comparison.TABLE and len(written) == len(table)
        text = (folder / "Check/table.md").read_text()
        assert text.startswith(f"# Stand-in for DeepLense Task {name}, compared")
        assert "240 objects of seed 3" in text and "![objects](objects.png)" in text
        picture = (folder / "Check/objects.png").read_bytes()
        signature, width, height = struct.unpack(">8s8xII", picture[:24])
        assert signature == b"\x89PNG\r\n\x1a\n" and min(width, height) > 300
        assert len(picture) < 400_000
        before = (folder / "Check/table.csv").read_bytes()
        checked(folder)
        assert (folder / "Check/table.csv").read_bytes() == before


def test_picture_shows_the_first_of_each_class_by_number_and_says_so(one, two, monkeypatch):
    drawn = {}
    monkeypatch.setattr(sheet, "draw_lines", lambda *given: drawn.update([given[1::-1]]))
    for (folder, _), task in ((one, ONE), (two, TWO)):
        sheet.draw_task(contents.read_task(folder, task), task, "nowhere")
    (title1, lines1), (title2, lines2) = drawn.items()
    assert title1.startswith("Stand-in DeepLense Task 1")
    assert title2.startswith("Stand-in DeepLense Task 2")
    assert all("the first 5 of each class by number" in title for title in drawn)
    # Training numbers; 2 and every fifth are in val, 10 would come before 3 as text
    assert {name: list(shown) for name, shown in lines1.items()} == dict.fromkeys(
        CLASSES, ["1", "3", "4", "5", "6"]
    )
    assert {name: list(shown) for name, shown in lines2.items()} == {
        "lenses": ["5", "9", "17", "21", "29"], "nonlenses": ["2", "3", "6", "8", "11"]
    }  # fmt: skip
    np.testing.assert_array_equal(lines1["no"]["1"], np.load(one[0] / "train/no/1.npy")[0])


def test_longest_wavelength_is_red():
    image = np.random.default_rng(5).normal(0, 0.001, (3, 64, 64))
    image[2, 30:34, 30:34] += 0.5
    picture = sheet._in_color(image)
    assert picture.shape == (64, 64, 3) and picture.min() >= 0 and picture.max() == 1
    red, green, blue = picture[31, 31]
    assert red > 0.8 and max(green, blue) < 0.1


@pytest.mark.parametrize("text", ["ID,low\n1,2\n", None])
def test_truth_without_the_scaling_is_refused(tmp_path, text):
    folder = task2(tmp_path, 12)
    path = folder / "Truth/truth.csv"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(contents.CheckError, match="expected object_id, value_of_0, value_of_1"):
        check.check(folder)


@pytest.mark.parametrize(("lines", "n"), [(slice(-1), 0), (slice(None), 2)])
def test_truth_without_one_row_an_object_is_refused(tmp_path, lines, n):
    folder = task2(tmp_path, 12)
    path = folder / "Truth/truth.csv"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rows[lines], *[rows[-1]] * (n == 2)]))
    with pytest.raises(contents.CheckError, match=f"{n} rows of object_id train_nonlenses/12"):
        check.check(folder)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: np.save(path, np.zeros((64, 64))), r"shape \(64, 64\)"),
        (lambda path: np.save(path, np.zeros((1, 64, 64))), r"shape \(1, 64, 64\)"),
        (lambda path: np.save(path, np.zeros((3, 0, 64))), r"shape \(3, 0, 64\)"),
        (lambda path: np.save(path, np.full((3, 64, 64), "a")), "<U1"),
        (lambda path: np.save(path, np.full((3, 4, 4), np.nan)), "48 values that are NaN"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "found .*reshape|found"),
        (lambda path: path.write_bytes(b""), "found"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "allow_pickle|pickle"),
        (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), "NpzFile"),
    ],
)
def test_file_that_is_no_array_of_the_task_is_refused(tmp_path, make, found):
    folder = task2(tmp_path, 12)
    path = folder / "train_nonlenses/12.npy"
    make(path)
    with pytest.raises(contents.CheckError, match=found) as caught:
        check.check(folder)
    assert str(path) in str(caught.value) and "expected one array of shape (3," in str(caught.value)


def test_missing_class_folder_is_refused(tmp_path):
    folder = task1(tmp_path, 6)
    for path in (folder / "val/vort").iterdir():
        path.unlink()
    with pytest.raises(CatalogError, match="val/vort"):
        check.check(folder)
