"""A fake survey of known noise, counts and leaks: the check must find what was put in."""

import hashlib
import json
import re
import struct

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from astropy.io import fits
from astropy.modeling.models import Sersic2D

from cast_lens import cutouts, figures
from cast_lens.mock import check, comparison, contents, estimates, pixels, probes, sheet
from cast_lens.run import RunError
from tests.test_cutouts import PUBLISHED

SIGMA = {"VIS": 5.48e-13, "Y": 9.27e-12, "J": 1.035e-11, "H": 8.75e-12}
GROUND = {"R": 1.54e-12, "I": 3.21e-12, "G": 1.26e-12, "U": 2.02e-12}
COLUMNS = """
    ID,x_crit,y_crit,source_ID,z_source,z_lens,mag_source,ein_area,n_crit,r_source,crit_area
    n_pix_source,source_flux,n_pix_lens,lens_flux,n_source_im,mag_eff,sb_contrast,color_diff
    n_gal_3,n_gal_5,n_gal_10,halo_mass,star_mass,mag_lens,n_sources
"""
STATISTICS = ("n", "bad", "sum", "sum_squares", "min", "max", "median")


def draw(rng, n_pixels, sigma, magnitude, at=(0.0, 0.0)):
    """Noise, a small background and a galaxy of this magnitude near the center."""
    y, x = np.mgrid[:n_pixels, :n_pixels] - (n_pixels - 1) / 2
    galaxy = np.exp(-np.hypot(x - at[0], y - at[1]) / 2)
    flux = 10 ** (-0.4 * magnitude) * galaxy / galaxy.sum()
    return (flux + rng.normal(1e-14, sigma, flux.shape)).astype(np.float32)


def write_image(folder, name, image, **cards):
    header = fits.Header(list(cards.items()))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(image, header).writeto(folder / name)


def finish(folder, survey, n, **parameters):
    """Write manifest.json as the writer of stand-ins does."""
    (folder / "sha256sum.txt").write_text("")
    digest = hashlib.sha256(b"").hexdigest()
    manifest = {"survey": survey, "seed": 3, "n": n, "parameters": parameters, "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": 0, "bytes": 0}))
    return folder


def truth(folder, ids, planes, **columns):
    (folder / "Truth").mkdir(exist_ok=True)
    table = pd.DataFrame({"object_id": ids, "plane_id": planes} | columns)
    table.to_csv(folder / "Truth/truth.csv", index=False)


def space(folder, n, *, noisier=1.0, moved=0.0, shifted=0.0, telescope="challenge"):
    """Write a fake space track; the keywords plant leaks in its lenses."""
    rng = np.random.default_rng(5)
    theta = np.exp(rng.uniform(np.log(0.15), np.log(5), n)).round(3)
    labels, n_pix = (rng.random(n) < 0.7).astype(int), rng.integers(0, 400, n)
    rows = []
    for k, label in enumerate(labels):
        sigma = 7.7e-13 * (noisier if label else 1)
        image = draw(rng, 101, sigma, rng.uniform(21, 24), (moved * label, 0))
        ra = rng.normal(shifted * label, 1e-3)
        name = f"SpaceBasedTraining/Public/Band1/imageEUC_VIS-{100000 + k}.fits"
        write_image(folder, name, image, RA=ra, DEC=rng.normal(0, 1e-3), NX=101)
        area = np.pi * (theta[k] / contents.ARCSEC) ** 2
        rows.append((100000 + k, label, area, label * n_pix[k], 3.3 * label * n_pix[k]))
    names = ["ID", "is_lens", "Einstein_area"]
    names += ["numb_pix_lensed_image", "flux_lensed_image_in_sigma"]
    table = pd.DataFrame(rows, columns=names)
    table.to_csv(folder / "SpaceBasedTraining/classifications.csv", index=False)
    truth(folder, table["ID"], np.arange(n) // 2)
    return finish(folder, "sglc1-space", n, telescope=telescope)


def ground(folder, n):
    """Write a fake ground track with a sixth of noisy objects and a few masks."""
    rng = np.random.default_rng(6)
    labels, noisy = (rng.random(n) < 0.4).astype(int), np.arange(n) % 6 == 0
    for k in range(n):
        for place, (band, sigma) in enumerate(GROUND.items(), 1):
            image = draw(rng, 101, sigma * (3 if noisy[k] else 1), 22)
            if k % 20 == place:
                image[3, :7] = 100
            name = f"GroundBasedTraining/Public/Band{place}/imageSDSS_{band}-{100000 + k}.fits"
            write_image(folder, name, image)
    table = pd.DataFrame({"ID": 100000 + np.arange(n), "is_lens": labels})
    table.to_csv(folder / "GroundBasedTraining/classifications.csv", index=False)
    truth(folder, table["ID"], np.arange(n), theta_e=rng.uniform(2.1, 4, n))
    return finish(folder, "sglc1-ground", n)


def euclid(folder, n):
    """Write a fake II SGLC: a tenth without source, of the others every other one detectable."""
    rng = np.random.default_rng(7)
    rows = pd.DataFrame(0.5, index=np.arange(n), columns=re.findall(r"\w+", COLUMNS))
    rows["ID"] = 200000 + np.arange(n)
    for name in ("n_crit", "n_pix_lens", "source_ID", "n_gal_3", "n_gal_5", "n_gal_10"):
        rows[name] = rng.integers(0, 9, n)
    rows["n_sources"] = (np.arange(n) % 10 > 0).astype(int)
    seen = (np.arange(n) % 2 == 1) & (rows["n_sources"] == 1)
    rows["n_source_im"] = rows["n_sources"]
    rows["n_pix_source"] = np.where(seen, 60, 12) * rows["n_sources"]
    rows["mag_eff"] = np.where(rows["n_sources"] == 1, 2.5, np.nan)
    rows["ein_area"] = np.pi * (rng.uniform(1.1, 3.3, n) / contents.ARCSEC) ** 2
    text = "# a comment\n" * 3 + rows.to_csv(na_rep="nan")
    (folder / "image_catalog2.0train.csv").write_text(text)
    for k in range(n):
        for band, sigma in SIGMA.items():
            image = draw(rng, 200 if band == "VIS" else 66, sigma, 21 if band == "VIS" else 20)
            write_image(folder, f"Public/EUC_{band}/imageEUC_{band}-{200000 + k}.fits", image)
    truth(folder, rows["ID"], np.arange(n))
    return finish(folder, "sglc2", n)


def checked(folder, *, pictures=False):
    """Check without real data beside; pictures take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CAST_LENS_DATA", raising=False)
        if not pictures:
            patch.setattr(sheet, "draw", lambda *_: [])
        return check.check(folder).set_index(["quantity", "band"])


@pytest.fixture(scope="module")
def checked_space(tmp_path_factory):
    folder = space(tmp_path_factory.mktemp("space"), 240)
    return folder, checked(folder, pictures=True)


@pytest.fixture(scope="module")
def checked_ground(tmp_path_factory):
    folder = ground(tmp_path_factory.mktemp("ground"), 60)
    return folder, checked(folder)


@pytest.fixture(scope="module")
def checked_euclid(tmp_path_factory):
    folder = euclid(tmp_path_factory.mktemp("euclid"), 40)
    return folder, checked(folder)


@pytest.fixture
def no_pictures(monkeypatch):
    """Check without pictures, which take most of the time, and without real data beside."""
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setattr(sheet, "draw", lambda *_: [])


@pytest.mark.parametrize("n_pixels", [66, 101, 200])
@pytest.mark.parametrize("index", [1, 4])
def test_noise_is_found_under_galaxies(n_pixels, index):
    rng = np.random.default_rng(n_pixels + index)
    y, x = np.mgrid[:n_pixels, :n_pixels]
    found = []
    for _ in range(30):
        image = rng.normal(0.3, 2.0, (n_pixels, n_pixels))
        for _ in range(4):
            place = rng.uniform(0, n_pixels, 2)
            image += Sersic2D(rng.uniform(1, 50), 4.0, index, *place, 0.3, 1.0)(x, y)
        found.append(pixels.noise(image.astype(np.float32)))
    sigma, lag1, lag2 = np.median(found, axis=0)
    assert sigma == pytest.approx(2.0, rel=0.03)
    assert abs(lag1) < 0.02 and abs(lag2) < 0.02


def test_correlated_noise_has_the_autocorrelation_of_its_kernel():
    white = np.random.default_rng(1).standard_normal((402, 402))
    image = white[1:, 1:] + 0.5 * (white[1:, :-1] + white[:-1, 1:]) + 0.25 * white[:-1, :-1]
    sigma, lag1, lag2 = pixels.noise(image)
    assert sigma == pytest.approx(1.25, rel=0.03)  # (1, 0.5) x (1, 0.5) has the norm 1.25
    # Less by what the median of a tile and pixels beyond three deviations take with them.
    assert lag1 == pytest.approx(0.5 / 1.25, abs=0.05)
    assert abs(lag2) < 0.05


def test_masked_pixels_do_not_change_the_noise():
    image = np.random.default_rng(2).normal(0.5, 1, (101, 101))
    whole = pixels.noise(image)[0]
    image[40:60, 5:25] = 0
    assert pixels.noise(image)[0] == pytest.approx(whole, rel=0.05)


def test_empty_image_has_no_noise():
    sigma, lag1, lag2 = pixels.noise(np.zeros((101, 101)))
    assert sigma == 0 and np.isnan([lag1, lag2]).all()


@pytest.mark.parametrize("at", [(0.0, 0.0), (0.6, -0.8)])
@pytest.mark.parametrize("n_pixels", [101, 200])
def test_center_is_where_the_galaxy_is(n_pixels, at):
    image = draw(np.random.default_rng(3), n_pixels, 7.7e-13, 19.5, at)
    found = pixels.measure_sky(image, np.ones(image.shape, bool))
    assert (found["centroid_x"], found["centroid_y"]) == pytest.approx(at, abs=0.25)
    assert (found["peak_x"], found["peak_y"]) == pytest.approx(at, abs=0.51)


def test_border_is_two_pixels_wide():
    image = np.zeros((50, 50))
    image[2:-2, 2:-2] = -9
    image[0, 0] = -1
    found = pixels.measure_sky(image, image != -1)
    assert (found["border_median"], found["border_min"]) == (0, 0)
    assert found["n_zero"] == 50**2 - 46**2 - 1


def test_percentiles_of_histograms_are_numpys():
    rng = np.random.default_rng(4)
    flux = np.concatenate([rng.normal(0, 1e-12, 100_000), rng.pareto(1, 5000) * 1e-12])
    flux = flux.astype(np.float32)
    counts = pixels.histogram(flux)
    assert counts.sum() == len(flux)
    for q in (0.001, 0.3, 0.9, 0.99, 0.999):
        assert pixels.quantile(counts, q) == pytest.approx(np.quantile(flux, q), rel=0.01)
    assert sheet.clip_bounds(counts) == pytest.approx(
        (-np.percentile(-flux, 99.9), np.percentile(flux, 99)), rel=0.01
    )


def test_flux_beyond_the_histogram_is_counted_in_its_end_bins():
    counts = pixels.histogram(np.array([-1e30, 1e30, np.finfo("f4").max], np.float32))
    assert (counts[0], counts[-1]) == (1, 2)


def test_real_images_have_the_published_statistics(real_data):
    found = []
    for track, bands in (("space_based", ("VIS",)), ("ground_based", tuple("RIGU"))):
        objects, _ = cutouts.find_cutouts(real_data / "sglc1" / track)
        measured, counts = pixels.measure(
            objects, bands, mask_value=100, sampled=objects["object_id"]
        )
        for place, band in enumerate(bands):
            part = {
                name: measured[f"{name}_{band}"]
                for name in ("n", "bad", "sum", "sum_squares", "min", "max", "median")
            }
            std = np.sqrt(part["sum_squares"] / part["n"] - (part["sum"] / part["n"]) ** 2)
            numbers = zip(part["min"], part["median"], part["max"], std)
            for object_id, values, bad in zip(objects["object_id"], numbers, part["bad"]):
                found.append(" ".join([band, object_id, *(f"{v:.2e}" for v in values), str(bad)]))
            assert counts[place].sum() == part["n"].sum()
    assert sorted(found) == sorted(PUBLISHED)


def test_processes_measure_what_one_measures(tmp_path, monkeypatch):
    survey = contents.read_survey(space(tmp_path, 30), contents.SURVEYS["sglc1-space"])
    sampled = survey.objects["object_id"][::3]
    alone, counts = pixels.measure(survey.objects, ("VIS",), sampled=sampled)
    assert alone["noise_VIS"].notna().sum() == 10
    monkeypatch.setattr(pixels, "ALONE", 0)
    monkeypatch.setattr(pixels, "CHUNK", 7)
    table, same = pixels.measure(survey.objects, ("VIS",), sampled=sampled)
    pd.testing.assert_frame_equal(table, alone)
    assert np.array_equal(same, counts)


def test_weighted_statistics_are_numpys_of_repeated_objects():
    rng = np.random.default_rng(5)
    values, weights = np.sort(rng.normal(size=50)), rng.integers(0, 4, 50)
    repeated, draws = np.repeat(values, weights), np.array([np.ones(50), weights])
    for q in (0.05, 0.5, 0.75):
        expected = [np.quantile(x, q, method="averaged_inverted_cdf") for x in (values, repeated)]
        assert estimates.quantile(q)([values], draws).tolist() == expected
    squares, one = values**2, np.ones(50)
    for found, expected in (
        (estimates.mean([values], draws)[1], repeated.mean()),
        (estimates.std([values + 1e6], draws)[1], repeated.std()),
        (estimates.pixel_mean(np.array([values, squares, one]), draws)[1], repeated.mean()),
        (estimates.pixel_std(np.array([values, squares, one]), draws)[1], repeated.std()),
        (estimates.pixel_rms(np.array([squares, one]), draws)[1], np.sqrt(np.mean(repeated**2))),
        (estimates.maximum(np.array([values]), draws)[1], repeated.max()),
    ):
        assert found == pytest.approx(expected)


def test_many_objects_give_the_same_interval_in_parts(monkeypatch):
    values = np.random.default_rng(8).normal(size=90)
    whole = estimates.estimate(estimates.quantile(0.5), [values], np.arange(90) // 3)
    monkeypatch.setattr(estimates, "AT_ONCE", 90 * 7)
    assert estimates.estimate(estimates.quantile(0.5), [values], np.arange(90) // 3) == whole


def test_interval_of_a_mean_has_its_textbook_width():
    values = np.random.default_rng(6).normal(size=900)
    value, low, high, n = estimates.estimate(estimates.mean, [values], np.arange(900))
    assert (value, n) == (pytest.approx(values.mean()), 900)
    assert high - low == pytest.approx(2 * 1.96 / 30, rel=0.12)


def test_objects_of_one_plane_count_once():
    values = np.random.default_rng(7).normal(size=40)
    once = estimates.estimate(estimates.quantile(0.5), [values], np.arange(40))
    copies = estimates.estimate(
        estimates.quantile(0.5), [np.repeat(values, 25)], np.repeat(np.arange(40), 25)
    )
    assert copies[:3] == once[:3]


def test_objects_without_a_value_are_left_out():
    found = estimates.estimate(estimates.mean, [[1.0, np.nan, 3.0]], ["a", "a", "a"])
    assert (found[0], found[3]) == (2.0, 2) and np.isnan(found[1:3]).all()
    assert estimates.estimate(estimates.mean, [[np.nan]], [0])[3] == 0


def test_fraction_has_the_interval_of_clopper_and_pearson():
    beta = scipy.stats.beta
    expected = 0.2, beta.ppf(0.025, 4, 17), beta.ppf(0.975, 5, 16), 20
    assert estimates.fraction(np.arange(20) < 4) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_probe_finds_the_auroc_of_two_normal_distributions(shift):
    rng = np.random.default_rng(8)
    labels = np.arange(1200) % 2
    # A unit in which scikit-learn's own quantile transform sees no difference.
    features = pd.DataFrame({"flux": 1e-12 * (rng.normal(size=1200) + shift * labels)})
    value, low, high, n = probes.auroc(features, labels, np.arange(1200))
    truth = scipy.stats.norm.cdf(shift / np.sqrt(2))
    assert low < truth < high and high - low < 0.1 and n == 1200
    assert value == pytest.approx((low + high) / 2, abs=0.01)


def at_chance(n_surveys, n, seed):
    """Count intervals above and below 0.5 for features without information."""
    rng = np.random.default_rng(seed)
    above = below = 0
    for _ in range(n_surveys):
        labels = rng.integers(0, 2, n)
        features = pd.DataFrame(rng.normal(size=(n, 4)))
        _, low, high, _ = probes.auroc(features, labels, np.arange(n))
        above, below = above + (low > 0.5), below + (high < 0.5)
    return above, below


def test_probe_of_nothing_is_at_chance():
    # With a chance of 1/40 each, four of 25 come once in two hundred such tests.
    assert max(at_chance(25, 100, 9)) <= 3


@pytest.mark.slow
def test_probe_of_nothing_is_called_a_leak_once_in_forty():
    above, below = at_chance(400, 200, 12)
    assert 3 <= above + below <= 35  # 20 expected, 3.5 standard deviations


def test_probe_finds_a_leak_without_shift():
    rng = np.random.default_rng(10)
    labels = np.arange(300) % 2
    features = pd.DataFrame({"x": rng.normal(size=300) * (1 + labels)})
    assert probes.auroc(features, labels, np.arange(300))[1] > 0.5


def test_probe_does_not_learn_lens_planes_by_heart():
    rng = np.random.default_rng(11)
    planes = np.repeat(np.arange(60), 10)
    labels = rng.permutation(np.arange(60) % 2)[planes]
    features = pd.DataFrame(rng.normal(size=(60, 8))[planes])  # the same for all of a plane
    value, *_ = probes.auroc(features, labels, planes)
    assert abs(value - 0.5) < 0.2
    assert probes.auroc(features, labels, np.arange(600))[0] > 0.9


def test_probe_without_variation_or_objects():
    labels = np.arange(100) % 2
    assert probes.auroc(pd.DataFrame({"x": np.ones(100)}), labels, np.arange(100))[:3] == (
        0.5, 0.5, 0.5,
    )  # fmt: skip
    few = probes.auroc(pd.DataFrame({"x": np.arange(30)}), labels[:30], np.arange(30))
    assert np.isnan(few[:3]).all() and few[3] == 30


def test_missing_value_is_a_feature():
    labels = np.arange(100) % 2
    features = pd.DataFrame({"x": np.where(labels == 1, np.nan, 1.0)})
    assert probes.auroc(features, labels, np.arange(100))[0] == 1


def test_header_features_are_all_cards(tmp_path):
    image = np.zeros((12, 12), np.float32)
    write_image(tmp_path, "imageEUC_VIS-7.fits", image, RA=0.25, NOTE="b", COMMENT="made by us")
    write_image(tmp_path, "imageEUC_VIS-8.fits", image, RA=-0.5, NOTE="a", FLAG=True)
    objects, _ = cutouts.find_cutouts(tmp_path)
    found = probes.header_features(objects, ("VIS",))
    assert found["object_id"].tolist() == [7, 8]
    assert found["RA_VIS"].tolist() == [0.25, -0.5]
    assert found["NOTE_VIS"].tolist() == [1, 0]
    assert found["FLAG_VIS"].isna().tolist() == [True, False]
    assert found["cards_VIS"].tolist() == [8, 8]
    assert found["NAXIS1_VIS"].tolist() == [12, 12]


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (10, 9.5, 10.5, "met"),
        (10, 9, 11, "met"),
        (10, 8.9, 10.5, "undecidable at this n"),
        (10, 5, 20, "undecidable at this n"),
        (12, 11.1, 13, "not met"),
        (5, 4, 8.99, "not met"),
        (10.9, np.nan, np.nan, "met"),
        (11.1, np.nan, np.nan, "not met"),
        (np.nan, np.nan, np.nan, "not compared"),
    ],
)
def test_outcome_follows_from_interval_and_target(value, low, high, expected):
    assert comparison.outcome(value, low, high, (9, 11)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.45, 0.55, "met"),
        (0.3, 0.49, "met"),
        (0.501, 0.56, "not met"),
        (0.6, 1.0, "not met"),
        (0.3, 0.7, "undecidable at this n"),
    ],
)
def test_outcome_of_a_probe(low, high, expected):
    assert comparison.chance_outcome((low + high) / 2, low, high) == expected


def test_targets_by_hand():
    assert comparison.target("2e-12", "0.1", "relative") == pytest.approx((1.8e-12, 2.2e-12))
    assert comparison.target("-4", "0.5", "relative") == (-6, -2)
    assert comparison.target("0", "0.03", "absolute") == (-0.03, 0.03)
    assert comparison.target("-3e-12..1e3", "", "range") == (-3e-12, 1000)
    assert comparison.target("1e3..1e4", "50", "maximum") == (1000, 10_000)
    with pytest.raises(ValueError, match="'about', expected relative"):
        comparison.target("1", "1", "about")


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        (500, 49, "undecidable at this n"),
        (500, 50, "not met"),
        (5000, 10, "met"),
        (20_000, 10, "not met"),
    ],
)
def test_maximum_of_few_objects_may_be_too_low(value, n, expected):
    fact = {"survey": "s", "quantity": "q", "band": "", "value": "1e3..1e4", "tolerance": "50",
            "kind": "maximum", "depends": ""}  # fmt: skip
    known = pd.DataFrame([fact | dict.fromkeys(("status", "source", "note"), "")])
    numbers = pd.DataFrame([{"quantity": "q", "band": "", "value": value, "low": value - 1,
                             "high": value, "n": n, "note": ""}])  # fmt: skip
    table = comparison.compare(known, numbers, numbers[:0], {})
    assert table["outcome"].tolist() == [expected]


def test_known_numbers_are_whole():
    known = comparison.read_known()
    assert list(known) == comparison.KNOWN
    assert not known.duplicated(["survey", "quantity", "band"]).any()
    assert set(known["survey"]) == {*contents.SURVEYS, *contents.TASKS}
    assert set(known["status"]) <= {"verified", "measured", "assumed"}
    assert (known["source"] != "").all()
    assert not known.map(lambda text: "datasets.md" in text).any().any()
    for row in known[known["kind"] != "chance"].itertuples():
        low, high = comparison.target(row.value, row.tolerance, row.kind)
        assert low < high or row.tolerance == "0"  # counts that must be exact
        assert (row.tolerance == "") == (row.kind == "range")
        assert row.kind != "maximum" or int(row.tolerance) > 1
    fractions = known["quantity"].isin(["lens_fraction", "no_source_fraction", "noise"])
    assert set(known["tolerance"][fractions]) == {"0.1"}


def test_known_labels_are_those_of_the_official_file(real_data):
    path = real_data / "sglc1/space_based/classifications.csv"
    table = pd.read_csv(path)
    known = comparison.read_known()
    known = known[known["survey"] == "sglc1-space"].set_index("quantity")["value"]
    lenses = table[table["is_lens"] == 1]
    n_pix = lenses["numb_pix_lensed_image"]
    theta = np.degrees(np.sqrt(table["Einstein_area"] / np.pi)) * 3600
    expected = {
        "lens_fraction": len(lenses) / len(table),
        "n_pix_zero_fraction": (n_pix == 0).mean(),
    }
    for p in (5, 10, 25, 50, 75, 90, 95, 99):
        expected[f"n_pix_p{p:02}"] = np.percentile(n_pix, p)
    for p in (1, 5, 25, 50, 75, 95):
        expected[f"theta_e_p{p:02}"] = np.percentile(theta, p)
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 1), (1, 2), (2, 3), (3, 4), (4, 6)):
        part = n_pix[(theta[lenses.index] >= low) & (theta[lenses.index] < high)]
        expected[f"n_pix_p50_theta_e_{low}_{high}"] = part.median()
    ratio = lenses["flux_lensed_image_in_sigma"] / n_pix
    expected["flux_sigma_per_pix_p50"] = ratio[n_pix > 0].median()
    expected["unique_area_fraction"] = table["Einstein_area"].nunique() / len(table)
    expected["largest_area_reuse"] = table["Einstein_area"].value_counts().iloc[0]
    for name, value in expected.items():
        assert float(known[name]) == pytest.approx(value, rel=2e-3), name


def test_every_known_number_is_measured(checked_space, checked_ground, checked_euclid):
    for _, table in (checked_space, checked_ground, checked_euclid):
        rows = table[table["known"] != ""]
        assert rows["stand_in"].notna().all(), rows.index[rows["stand_in"].isna()]


def test_what_was_put_in_comes_out(checked_space):
    folder, table = checked_space
    labels = pd.read_csv(folder / "SpaceBasedTraining/classifications.csv")
    lenses = labels[labels["is_lens"] == 1]
    files = sorted(folder.glob("SpaceBasedTraining/Public/Band1/*.fits"))
    images = np.array([fits.getdata(path) for path in files], np.float64)
    expected = {
        ("lens_fraction", ""): labels["is_lens"].mean(),
        ("n_pix_p50", ""): lenses["numb_pix_lensed_image"].median(),
        ("flux_sigma_per_pix_p50", ""): 3.3,
        ("theta_e_p50", ""): np.degrees(np.sqrt(labels["Einstein_area"].median() / np.pi)) * 3600,
        ("set_mean", "VIS"): images.mean(),
        ("set_std", "VIS"): images.std(),
        ("rms", "VIS"): np.sqrt(np.mean(images**2)),
        ("image_max", "VIS"): np.median(images.max(axis=(1, 2))),
        ("image_std", "VIS"): np.median(images.std(axis=(1, 2))),
    }
    for key, value in expected.items():
        assert table.loc[key, "stand_in"] == pytest.approx(value, rel=1e-3), key
        assert table.loc[key, "low"] < value * (1 + 1e-9) and value < table.loc[key, "high"] * 1.001
    assert table.loc[("max_over_p99", "VIS"), "stand_in"] == pytest.approx(
        images.max() / np.percentile(images, 99), rel=0.01
    )
    noise = table.loc[("noise", "VIS")]
    assert noise["stand_in"] == pytest.approx(7.7e-13, rel=0.02)
    assert (noise["outcome"], noise["n"]) == ("met", 240)
    assert noise["ratio"] == pytest.approx(noise["stand_in"] / 7.7e-13)
    assert table.loc[("n_pix_p95", ""), "outcome"] == "not met"
    assert table.loc[("largest_area_reuse", ""), "outcome"] == "not compared"


def test_noisy_objects_and_masks_of_the_ground_track(checked_ground):
    _, table = checked_ground
    for band, sigma in GROUND.items():
        assert table.loc[("noise", band), "stand_in"] == pytest.approx(sigma, rel=0.03)
        assert table.loc[("noisy_fraction", band), "stand_in"] == pytest.approx(1 / 6)
        assert table.loc[("masked_fraction", band), "stand_in"] == pytest.approx(1 / 20)
        assert table.loc[("lag1_of_noisy", band), "outcome"] == "not met"
        assert table.loc[("image_max", band), "stand_in"] < 1e-9  # 100 is no flux
    assert table.loc[("leak_masks", ""), "outcome"] != "not met"
    assert table.loc[("leak_masks", ""), "n"] == 60
    assert ("set_mean", "all") in table.index


def test_labels_of_the_second_challenge_are_official(checked_euclid):
    _, table = checked_euclid
    for name, expected in (("lens_fraction", 0.5), ("no_source_fraction", 0.1),
                           ("undetected_fraction", 0.4), ("mag_eff_absent_fraction", 0.1),
                           ("n_pix_source_p50_of_magnified", 60)):  # fmt: skip
        assert table.loc[(name, ""), "stand_in"] == pytest.approx(expected)
    for band, sigma in SIGMA.items():
        assert table.loc[("noise", band), "stand_in"] == pytest.approx(sigma, rel=0.03)
        assert table.loc[("lag1", band), "outcome"] == "met"


def test_survey_without_leak_passes(checked_space):
    _, table = checked_space
    probed = [key for key in table.index if key[0].startswith("leak_")]
    assert len(probed) == 3
    assert "not met" not in table.loc[probed, "outcome"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leak", "probe"),
    [
        ({"noisier": 1.05}, "leak_noise_and_border"),
        ({"moved": 1.0}, "leak_center"),
        ({"shifted": 2e-3}, "leak_header"),
    ],
)
def test_planted_leak_is_found_by_its_probe(tmp_path, no_pictures, leak, probe):
    table = check.check(space(tmp_path, 240, **leak)).set_index("quantity")
    assert table.loc[probe, "outcome"] == "not met"
    others = {"leak_noise_and_border", "leak_center", "leak_header"} - {probe}
    assert "not met" not in table.loc[list(others), "outcome"].tolist()


def test_another_telescope_is_not_compared(tmp_path, no_pictures):
    table = check.check(space(tmp_path, 40, telescope="in-flight")).set_index("quantity")
    assert table.loc["noise", "outcome"] == "not compared"
    assert "known for telescope challenge, here in-flight" in table.loc["noise", "note"]
    assert table.loc["theta_e_p01", "outcome"] != "not compared"


def test_sample_limits_what_costs_and_nothing_else(tmp_path, no_pictures):
    table = check.check(space(tmp_path, 45), sample=25).set_index("quantity")
    assert table.loc["noise", "n"] == table.loc["leak_header", "n"] == 25
    assert table.loc["rms", "n"] == table.loc["lens_fraction", "n"] == 45
    assert "of 25 of them" in (tmp_path / "Check/table.md").read_text()


def test_real_numbers_stand_beside(tmp_path, real_data, no_pictures, monkeypatch):
    monkeypatch.setenv("CAST_LENS_DATA", str(real_data))
    table = check.check(space(tmp_path, 40)).set_index("quantity")
    assert (table.loc["noise", "n_real"], table.loc["n_pix_p50", "n_real"]) == (8, 13968)
    assert table.loc["noise", "real"] == pytest.approx(7.7e-13, rel=0.1)
    assert abs(table.loc["lag1", "real"]) < 0.03
    assert table.loc["n_pix_p50", "real"] == 232
    assert table.loc["largest_area_reuse", "real"] == 75
    known = comparison.read_known()
    image_rows = known[(known["survey"] == "sglc1-space") & known["quantity"].str.match("image_")]
    for row in image_rows.itertuples():
        low, high = comparison.target(row.value, row.tolerance, row.kind)
        assert low <= table.loc[row.quantity, "real"] <= high


def test_real_ground_numbers_stand_beside(tmp_path, real_data, no_pictures):
    folder = ground(tmp_path, 24)
    table = check.check(folder, real=real_data / "sglc1").set_index(["quantity", "band"])
    for band, sigma in GROUND.items():
        assert table.loc[("noise", band), "real"] == pytest.approx(sigma, rel=0.1)
        assert table.loc[("noise", band), "n_real"] == 6
    assert pd.isna(table.loc[("lens_fraction", ""), "real"])  # six chosen objects have none


def test_table_and_pictures_are_written(checked_space):
    folder, table = checked_space
    written = pd.read_csv(folder / "Check/table.csv", keep_default_na=False)
    assert list(written) == comparison.TABLE and len(written) == len(table)
    text = (folder / "Check/table.md").read_text()
    assert text.startswith("# Stand-in for the I SGLC, space")
    assert "240 objects of seed 3" in text
    pictures = sorted((folder / "Check").glob("*.png"))
    assert [path.stem for path in pictures] == [
        "objects_after_VIS", "objects_before_VIS", "pixels_after", "pixels_before"
    ]  # fmt: skip
    for path in pictures:
        assert path.stat().st_size < 400_000
        assert path.name in text
        signature, width, height = struct.unpack(">8s8xII", path.read_bytes()[:24])
        assert signature == b"\x89PNG\r\n\x1a\n" and min(width, height) > 300


@pytest.mark.parametrize("track", [pytest.param("space", marks=pytest.mark.slow), "ground"])
@pytest.mark.slow
def test_every_picture_says_stand_in_and_by_which_rule(track, request, tmp_path, monkeypatch):
    titles = {}

    def note(figure, path):
        figure.canvas.draw()
        written = figure._suptitle.get_window_extent()
        assert figure.bbox.x0 < written.x0 and written.x1 < figure.bbox.x1
        titles[path.stem] = figure.get_suptitle()

    for module, name in ((figures, "save"), (sheet, "_save_small")):
        monkeypatch.setattr(module, name, note)
    folder, _ = request.getfixturevalue(f"checked_{track}")
    layout = contents.SURVEYS[f"sglc1-{track}"]
    survey = contents.read_survey(folder, layout)
    measured, counts = pixels.measure(survey.objects, layout.bands, mask_value=layout.mask_value)
    paths = sheet.draw(survey.objects, survey.layout, measured, counts, tmp_path)
    assert {path.stem for path in paths} == set(titles)
    assert len(titles) == (6 if layout.color else 4)
    for name, title in titles.items():
        assert title.startswith(f"Stand-in I SGLC, {track}")
        assert "first of either class by ID" in title or name.startswith("pixels")


def test_shown_objects_are_the_first_detectable_ones():
    objects = pd.DataFrame({
        "object_id": [str(k) for k in range(12, 0, -1)], "label": [1] * 8 + [0] * 4,
        "n_pix_lensed": [50, 20, 21, 50, 50, 50, 0, 50, 0, 0, 0, 0],
    })  # fmt: skip
    lenses, others = sheet.shown(objects)
    assert lenses["object_id"].tolist() == ["5", "7", "8", "9", "10"]  # 6 and 11 are too faint
    assert others["object_id"].tolist() == ["1", "2", "3", "4"]


def test_objects_without_images_or_truth_are_counted(tmp_path, no_pictures):
    folder = euclid(tmp_path, 12)
    (folder / "Public/EUC_J/imageEUC_J-200003.fits").unlink()
    path = folder / "image_catalog2.0train.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    survey = contents.read_survey(folder, contents.SURVEYS["sglc2"])
    assert (len(survey.table), len(survey.objects), survey.n_unknown) == (10, 9, 2)
    check.check(folder)
    text = (folder / "Check/table.md").read_text()
    assert "9 objects of seed 3 have truth and images in all bands; 1\nhave truth alone, 2" in text


def test_rows_of_an_object_that_is_there_twice_are_dropped_and_counted(tmp_path):
    folder = euclid(tmp_path, 24)
    path = folder / "image_catalog2.0train.csv"
    *lines, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, last, *[last.replace("200023", "210000")] * 2]))
    survey = contents.read_survey(folder, contents.SURVEYS["sglc2"])
    assert (len(survey.table), survey.n_dropped) == (24, 2)


def test_same_survey_gives_the_same_table(checked_space, no_pictures):
    folder, _ = checked_space
    first = (folder / "Check/table.csv").read_bytes()
    check.check(folder)
    assert (folder / "Check/table.csv").read_bytes() == first


def test_folder_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="cast-lens mock") as caught:
        check.check(tmp_path)
    assert isinstance(caught.value, ValueError) and str(tmp_path) in str(caught.value)


def test_survey_of_which_nothing_is_known_is_refused(tmp_path):
    with pytest.raises(contents.CheckError, match="'features', expected one of sglc2"):
        check.check(finish(tmp_path, "features", 10))


def test_truth_without_a_row_is_refused(tmp_path):
    folder = space(tmp_path, 10)
    path = folder / "Truth/truth.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(contents.CheckError, match="object_id 100007 and 2 others"):
        contents.read_survey(folder, contents.SURVEYS["sglc1-space"])
    path.write_text("ID,plane\n1,2\n")
    with pytest.raises(
        contents.CheckError, match="found the columns ID, plane, expected object_id"
    ):
        contents.read_survey(folder, contents.SURVEYS["sglc1-space"])


def test_images_of_other_objects_than_the_truth_are_refused(tmp_path):
    folder = space(tmp_path, 4)
    for path in folder.glob("SpaceBasedTraining/Public/Band1/*.fits"):
        path.rename(str(path).replace("-100", "-700"))
    with pytest.raises(contents.CheckError, match="of none of the 4 objects"):
        contents.read_survey(folder, contents.SURVEYS["sglc1-space"])


def test_sample_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="sample is 0"):
        check.check(tmp_path, sample=0)
