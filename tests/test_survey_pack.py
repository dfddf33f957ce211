"""A survey goes through the whole line: files, pack, batches, stretch, augmentation, network."""

import shutil
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from cast_lens import augment, catalog, cli, dataset, pack, pixel_statistics, stretch, survey_pack
from cast_lens.catalog import CatalogError
from cast_lens.run import RunError
from tests import packs
from tests.fits_files import survey_file

GROUND, SPACE = "sglc1/ground_based", "sglc1/space_based"
BATCHES = {"batch_size": 4, "seed": 0, "fold": 0, "shuffle": False}


def run(*arguments):
    """Run the command line; return its exit status."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return exit_.code
    return 0


def pixels_of(path):
    """Read a file with astropy; mask as the I SGLC says."""
    image = fits.getdata(path).astype(np.float32)
    image[image >= 100] = 0
    return image


def test_real_ground_objects_go_from_files_to_scores(real_data, tmp_path):
    folder = real_data / GROUND
    found = survey_pack.pack_survey(folder, tmp_path / "pack", dtype="float32", progress=False)
    table, _ = catalog.read_sglc1(folder, track="ground")
    assert found.catalog["object_id"].tolist() == table["object_id"].tolist()
    assert found.catalog["label"].tolist() == table["label"].tolist()
    images = np.stack(
        [np.stack([pixels_of(row[f"path_{b}"]) for b in "UGRI"], -1) for _, row in table.iterrows()]
    )
    assert np.array_equal(found.batch("ugri", np.arange(6)), images)
    # datasets.md, section 1.3: 15 pixels in r of 100023, 49 in u of 100003, 212 in u of 100008
    masked = dict(zip(found.catalog["object_id"], found.catalog["n_masked"]))
    assert {name: n for name, n in masked.items() if n} == {
        "100023": 15, "100003": 49, "100008": 212,
    }  # fmt: skip
    rows = np.array([3, 0, 5, 1])
    batches = dataset.from_pack(found, rows, inputs=["ugri"], **BATCHES)
    columns = {"ugri": [f"path_{band}" for band in "UGRI"]}
    others = dataset.from_catalog(table, rows, inputs=columns, mask_value=100, **BATCHES)
    for one, two in zip(
        dataset.as_tf_data(batches, first_epoch=0, repeat=False),
        dataset.as_py_dataset(others, first_epoch=0, repeat=False),
        strict=True,
    ):
        assert np.array_equal(one[0]["ugri"], images[rows])
        assert np.array_equal(two[0]["ugri"], images[rows])
        assert np.array_equal(one[1], two[1])
    low, high = pixel_statistics.percentiles(lambda: [found.batch("ugri", rows)], [0.1, 99])
    assert np.allclose(low, np.percentile(images[rows], 0.1, axis=(0, 1, 2)), rtol=1e-6)
    line = keras.Sequential(
        [
            stretch.Clip(low, high),
            augment.RandomDihedral(seed=0),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    wanted = np.clip((images[rows] - low) / (high - low), 0, 1).mean((1, 2))
    data = dataset.as_tf_data(batches, first_epoch=0, repeat=False).map(lambda x, y: x["ugri"])
    assert np.allclose(line.predict(data, verbose=0), wanted, atol=1e-6)


@pytest.mark.slow
def test_real_space_labels_without_their_images_are_missing(real_data, tmp_path, capsys):
    assert run("pack", real_data / SPACE, "--output", tmp_path / "pack") == 0
    text = capsys.readouterr().out
    assert "n_catalog 20000 = n_ok 8 + n_quarantined 0 (none) + n_missing 19992 (0 of them" in text
    quarantine = pd.read_csv(tmp_path / "pack/quarantine.csv", dtype=str)
    assert set(quarantine["reason"]) == {"missing"} and len(quarantine) == 19_992
    assert run("pack", real_data / SPACE, "--output", tmp_path / "strict", "--strict") == 2
    message = capsys.readouterr().err
    assert "--strict" in message and not (tmp_path / "strict/manifest.json").exists()


def test_the_label_of_a_space_object_can_ask_for_pixels(real_data, tmp_path):
    rules = {"dtype": "float32", "progress": False, "workers": 1}
    found = survey_pack.pack_survey(
        real_data / SPACE, tmp_path / "pack", label="n-pix:500", **rules
    )
    truth = pd.read_csv(real_data / SPACE / "classifications.csv", dtype={"ID": str})
    n_pix = truth.set_index("ID")["numb_pix_lensed_image"]
    wanted = [int(n_pix[name] >= 500) for name in found.catalog["object_id"]]
    assert found.catalog["label"].tolist() == wanted and 0 < sum(wanted) < 8
    assert found.manifest["identity"]["about.label"] == "n-pix:500"
    for label in ("source-added", "n-pix:0", "n-pix:", "lens"):
        with pytest.raises(CatalogError, match="label is"):
            survey_pack.pack_survey(real_data / SPACE, tmp_path / "other", label=label, **rules)
    with pytest.raises(RunError, match=r"about\.label.*--restart"):
        survey_pack.pack_survey(real_data / SPACE, tmp_path / "pack", label="n-pix:20", **rules)


@pytest.mark.slow
def test_a_stand_in_with_the_published_oddities_is_packed_by_the_published_policies(tmp_path):
    pytest.importorskip("lenstronomy")
    from cast_lens.mock import makers, survey

    n, folder = 250, tmp_path / "mock"
    survey.write(folder, makers.load_maker("sglc2", seed=0, quirks_n=n), n=n, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = survey_pack.pack_survey(folder, tmp_path / "pack", dtype="float16", progress=False)
    rows = pd.read_csv(folder / "image_catalog2.0train.csv", comment="#", dtype={"ID": str})
    ids = rows["ID"][~rows["ID"].duplicated(keep=False)]
    files = {path.stem.rpartition("-")[2]: path for path in folder.rglob("imageEUC_VIS-*.fits")}
    audit = found.audit
    assert audit["n_catalog"] == len(ids) < len(rows)
    assert audit["n_ok"] == len(set(ids) & set(files)) == len(found.catalog)
    assert audit["n_missing"] == audit["n_missing_published"] == len(set(ids) - set(files)) > 0
    n_used = sum(len(bands) for bands in found.inputs.values()) * audit["n_ok"]
    every = [p for p in folder.rglob("*") if p.is_file() and "/.mock/" not in str(p)]
    assert audit["n_extra_files"] == len(every) - n_used - 1  # the catalog is none
    for name, bands in found.inputs.items():
        images = found.batch(name, np.arange(len(found.catalog)))
        for k, object_id in enumerate(found.catalog["object_id"]):
            for b, band in enumerate(bands):
                path = next(folder.rglob(f"imageEUC_{band}-{object_id}.fits"))
                exact, lost = fits.getdata(path), audit["loss"][name]["max_error"][b]
                errors, sizes = np.abs(images[k, ..., b] - exact), np.abs(exact)
                assert errors.max() <= lost  # as told; and eleven bits are kept
                least = 2.0**-25 / found.scales(name)[b]  # half the step of the smallest float16
                assert (errors <= np.maximum(2.0**-11 * sizes, least)).all()
    assert found.inputs == {"vis": ("VIS",), "nir": ("H", "J", "Y")}


@pytest.fixture
def table(tmp_path):
    """A CSV table of five FITS files, one of which is missing and one cut short."""
    images = np.random.default_rng(0).standard_normal((5, 12, 12)).astype(np.float32)
    for k, image in enumerate(images):
        data = survey_file(image)
        (tmp_path / f"{k}.fits").write_bytes(data[:3000] if k == 3 else data)
    (tmp_path / "1.fits").unlink()
    rows = ["id_str,file_loc,lens", *(f"00{k},{k}.fits,{k % 2}" for k in range(5))]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv", images


def test_a_users_table_is_packed_from_the_command_line(table, tmp_path, capsys):
    path, images = table
    assert run("pack", path, "--label-column", "lens", "--mask-value", "1.5") == 0
    text = capsys.readouterr().out
    assert "n_catalog 5 = n_ok 3 + n_quarantined 1 (truncated 1) + n_missing 1" in text
    found = pack.open_pack(tmp_path / "mine-pack")
    assert found.catalog["object_id"].tolist() == ["000", "002", "004"]
    assert found.catalog["label"].tolist() == [0, 0, 0]
    wanted = np.where(images >= 1.5, 0, images)[[0, 2, 4], ..., None]
    assert np.array_equal(found.batch("image", np.arange(3)), wanted)
    assert found.catalog["n_masked"].tolist() == [(images[k] >= 1.5).sum() for k in (0, 2, 4)]
    assert run("pack", path, "--strict", "--output", tmp_path / "strict") == 2
    assert "object_id 001: found no file" in capsys.readouterr().err
    assert run("pack", path, "--label-column", "label", "--output", tmp_path / "other") == 2
    assert "label" in capsys.readouterr().err


@pytest.mark.parametrize("channels", ["first", "last"])
def test_a_users_arrays_are_packed_with_all_their_bands(channels, tmp_path, capsys):
    images = np.random.default_rng(1).standard_normal((3, 6, 7, 2))
    for k, image in enumerate(images):
        np.save(tmp_path / f"{k}.npy", np.moveaxis(image, -1, 0) if channels == "first" else image)
    frame = pd.DataFrame({"name": ["a", "b", "=c"], "file": [f"{k}.npy" for k in range(3)]})
    frame.to_parquet(tmp_path / "mine.parquet")
    columns = ("--id-column", "name", "--path-column", "file", "--channels", channels)
    assert run("pack", tmp_path / "mine.parquet", *columns) == 0
    found = pack.open_pack(tmp_path / "mine-pack")
    assert np.array_equal(found.batch("image", [0, 1, 2]), images.astype(np.float32))
    assert found.catalog["object_id"].tolist() == ["a", "b", "=c"]
    assert found.inputs == {"image": ("band_0", "band_1")} and "label" not in found.catalog


def test_a_flipped_bit_is_found_from_the_command_line(table, tmp_path, capsys):
    path, _ = table
    run("pack", path)
    assert run("verify", tmp_path / "mine-pack") == 0
    assert "3 records and all tables are as they were written" in capsys.readouterr().out
    images = tmp_path / "mine-pack/image.npy"
    data = bytearray(images.read_bytes())
    data[-5] ^= 4
    images.write_bytes(data)
    assert run("verify", tmp_path / "mine-pack") == 2
    assert "record 2, object_id 004: found CRC-32" in capsys.readouterr().err
    assert run("verify", tmp_path) == 2
    assert "no finished pack" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_user_has_already_is_checked_and_packed_by_the_data_command(
    real_data, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(real_data / GROUND, tmp_path / "mine", copy_function=shutil.copyfile)
    with pytest.warns(UserWarning, match="expected 20000"):
        assert run("data", "sglc1-ground", "--data", folder, "--folder", tmp_path / "data") == 0
    text = capsys.readouterr().out
    assert "Nothing is wrong." in text and "n_catalog 6 = n_ok 6" in text
    assert (tmp_path / "runs/check-data/sglc1-ground/check.md").exists()
    assert pack.open_pack(tmp_path / "data/sglc1-ground-pack").verify() == 6
    (folder / "Public/Band1/imageSDSS_R-100023.fits").write_bytes(b"<html>")
    with pytest.warns(UserWarning, match="expected 20000"):
        assert run("data", "sglc1-ground", "--data", folder, "--folder", tmp_path / "two") == 1
    text = capsys.readouterr().out
    assert "quarantined: not_fits" in text and "n_ok 5 + n_quarantined 1 (not_fits 1)" in text


def test_the_example_of_the_readme_trains_a_network(root, tmp_path):
    text = (root / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    table = packs.survey(tmp_path / "survey", 40).assign(plane=np.arange(40) // 2)
    packs.build(tmp_path / "pack", table)
    inputs = {
        "vis": keras.Input((12, 11, 1), name="vis"), "nir": keras.Input((5, 7, 3), name="nir"),
    }  # fmt: skip
    means = [keras.layers.GlobalAveragePooling2D()(images) for images in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(means)))
    model.compile("sgd", "mse")
    found = {"model": model}
    exec(code.replace("data/mock-sglc2-seed0-pack", str(tmp_path / "pack")), found)
    assert model.optimizer.iterations == found["batches"].steps == 1
    planes = found["survey"].catalog["plane"].to_numpy()
    assert set(planes[found["parts"]["test"]]).isdisjoint(planes[found["parts"]["train"]])
