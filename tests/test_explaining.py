"""A network that reads one place of the sky is explained by that place, in all three ways."""

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import backbones, drawings, explaining, images, networks, stretch
from tests.fits_files import survey_file

SIDE, SCALE, AT = 40, 0.25, (slice(6, 14), slice(22, 30))
SETTINGS = explaining.Settings(n_samples=200, engine="keras")


def mean_trunk(variant, *, name, shape, weights, batch_normalization):
    """Features: what is above zero in 4 x 4 pixels, so that the log odds are its mean."""
    pixels = keras.Input(shape)
    layer = keras.layers.AveragePooling2D(4)
    return keras.Model(pixels, layer(pixels), name=name)


@pytest.fixture(scope="module")
def network():
    """Log odds of a lens: 1000 times the mean of the clipped image; so of the only source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "efficient_net", mean_trunk)
        branch = networks.Branch("vis", ("VIS",), SIDE, SCALE, "all")
        model = networks.build_model("b2", (branch,))
    model.get_layer("clip_vis").set_weights([np.zeros(1, np.float32), np.ones(1, np.float32)])
    model.get_layer("lens").set_weights([np.array([[0.0, 1000]]), np.array([0.0, -20])])
    return networks.Network("mean", "b2", (branch,), "any", "none", None, "c" * 64, model)


def source(k):
    """A source off the center on a faint sky."""
    x = np.abs(np.random.default_rng(k).normal(0, 0.005, (SIDE, SIDE))).astype(np.float32)
    x[AT] += 0.8
    return x


@pytest.fixture
def scored(tmp_path):
    """Candidates of four images, and these images."""
    folder = tmp_path / "survey"
    folder.mkdir()
    for k in range(4):
        data = survey_file(source(k), f"PIXSCALE= {SCALE:20}")
        (folder / f"s{k}_VIS.fits").write_bytes(data)
    table = pd.DataFrame({"object_id": [f"s{k}" for k in (2, 0, 3, 1)], "rank": range(1, 5)})
    return table, images.find(folder, bands=("VIS",))


def explained(network, x, **changes):
    logits = networks.lens_logits(network, "keras")
    settings = explaining.Settings(**(vars(SETTINGS) | changes))
    return explaining.explain_object(network, logits, {"vis": x[..., None]}, "s0", settings)


def run(scored, network, folder, **options):
    rules = {"settings": SETTINGS, "progress": False, "n": 2} | options
    return explaining.explain_candidates(*scored, network, folder, **rules)


def test_all_methods_find_the_only_thing_the_network_reads(network):
    found = explained(network, source(0))
    inside = np.zeros((SIDE, SIDE), bool)
    inside[AT] = True
    assert set(found.maps) == set(explaining.METHODS)
    for method, values in found.maps.items():
        assert values.shape == (SIDE, SIDE)
        assert values[inside].mean() > 5 * np.abs(values[~inside]).mean(), method
    # 1000 x the mean of the image, less 20
    assert found.logit == pytest.approx(1000 * source(0).mean() - 20, rel=1e-4)
    rows, columns = np.nonzero(inside)
    wanted = np.hypot(rows - (SIDE - 1) / 2, columns - (SIDE - 1) / 2).mean() * SCALE
    for row in found.rows:
        assert row["distance"] == pytest.approx(wanted, abs=3 * SCALE)
        assert row["highlighted_share"] < 0.12
        assert row["agreement"] > 0


def test_class_map_adds_up_to_the_log_odds(network):
    found = explained(network, source(0))
    total = found.maps["Grad-CAM"].sum() * SCALE**2  # per arcsec^2, times the area of a pixel
    assert total - 20 == pytest.approx(found.logit, rel=0.02)  # interpolation loses little


def test_lime_weights_are_the_sums_of_a_linear_network(network):
    found = explained(network, source(0), n_samples=800)
    x, labels = source(0).astype(float), found.segments.labels["vis"]
    sums = np.bincount(labels.ravel(), (x - np.median(x)).ravel()) * 1000 / x.size
    means = np.array([found.maps["LIME"][labels == k][0] for k in range(found.segments.n)])
    assert means == pytest.approx(sums, abs=0.03 * sums.max())  # the ridge takes about 1 %
    assert found.rows[0]["r2"] > 0.95


def test_stability_of_occlusion_is_over_the_mirror_image_which_a_pooled_network_ignores(network):
    rows = {row["method"]: row for row in explained(network, source(0)).rows}
    assert rows["occlusion"]["stability_over"] == rows["Grad-CAM"]["stability_over"]
    assert rows["occlusion"]["stability_over"] == "a mirror image"
    assert rows["LIME"]["stability_over"] == "seeds"
    for method in ("occlusion", "Grad-CAM"):
        assert rows[method]["stability"] > 0.99 and rows[method]["jaccard"] == 1


def test_network_that_ends_otherwise_has_no_class_map_and_says_why(network, tmp_path):
    pixels = keras.Input((SIDE, SIDE, 1), name="vis")
    clipped = stretch.Clip([0.0], [1.0], name="clip_vis")(pixels)
    flat = keras.layers.Flatten()(clipped)
    model = keras.Model({"vis": pixels}, keras.layers.Dense(2, "softmax", name="lens")(flat))
    other = networks.Network(**(vars(network) | {"model": model}))
    found = explained(other, source(0))
    assert set(found.maps) == {"LIME", "occlusion"}
    assert "explain this network by" in found.rows[2]["note"]
    explaining.draw(found, tmp_path / "x.png", title="$s_0", pixel_scale=SCALE)
    assert min(drawings.png_size(tmp_path / "x.png")) > 300


def test_each_object_has_a_picture_and_three_rows_in_rank_order(scored, network, tmp_path):
    found = run(scored, network, tmp_path / "out")
    assert found["object_id"].tolist() == ["s2"] * 3 + ["s0"] * 3
    assert found["method"].tolist() == list(explaining.METHODS) * 2
    written = pd.read_csv(tmp_path / "out/explanations.csv")
    assert list(written) == list(explaining.COLUMNS)
    assert written["stability"].between(-1, 1).all()
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "0000001-s2.png", "0000002-s0.png"
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_run_goes_on_and_one_with_more_objects_adds_them(
    scored, network, tmp_path, monkeypatch
):
    whole = run(scored, network, tmp_path / "whole", n=3)
    real, seen = explaining.explain_object, []

    def dying(network, logits, x, object_id, settings):
        if object_id == "s0" and "s0" not in seen:
            seen.append(object_id)
            raise KeyboardInterrupt
        seen.append(object_id)
        return real(network, logits, x, object_id, settings)

    monkeypatch.setattr(explaining, "explain_object", dying)
    with pytest.raises(KeyboardInterrupt):
        run(scored, network, tmp_path / "out", n=3)
    run(scored, network, tmp_path / "out", object_ids=["s0"])
    found = run(scored, network, tmp_path / "out", n=3)
    assert seen == ["s2", "s0", "s0", "s3"]
    pd.testing.assert_frame_equal(found, whole)


def test_other_settings_are_refused_in_the_same_folder(scored, network, tmp_path):
    run(scored, network, tmp_path / "out", n=1)
    with pytest.raises(ValueError, match="--restart"):
        run(scored, network, tmp_path / "out", n=1, settings=explaining.Settings(seed=1))


def test_broken_image_is_a_row_with_the_reason_or_an_error(scored, network, tmp_path):
    (tmp_path / "survey/s2_VIS.fits").write_bytes(b"no image")
    found = run(scored, network, tmp_path / "out")
    assert found["note"][0].startswith("left out: ") and len(found) == 4
    with pytest.raises(explaining.ExplainError, match="s2"):
        run(scored, network, tmp_path / "strict", strict=True)


def test_objects_are_those_of_the_ids_or_the_ranks(scored):
    table = scored[0]
    assert explaining.choose(table, ["s1", "s2"])["rank"].tolist() == [1, 4]
    assert explaining.choose(table, first=3, n=5)["object_id"].tolist() == ["s3", "s1"]
    with pytest.raises(explaining.ExplainError, match="object_id x"):
        explaining.choose(table, ["s1", "x"])
    with pytest.raises(explaining.ExplainError, match="rank of 1 to 4"):
        explaining.choose(table, first=5)


def test_own_fluxes_of_the_scores_are_those_that_are_explained(scored, network, tmp_path):
    before = network.model.get_layer("clip_vis").get_weights()
    clip = {"vis": {"VIS": [0.0, 0.4]}}
    try:
        found = run(scored, network, tmp_path / "out", n=1, clip=clip)
    finally:
        network.model.get_layer("clip_vis").set_weights(before)
    wanted = 1000 * (np.clip(source(2), 0, 0.4) / 0.4).mean() - 20
    assert found["logit"][0] == pytest.approx(wanted, rel=1e-4)


def test_dry_run_writes_nothing(scored, network, tmp_path):
    found = run(scored, network, tmp_path / "out", dry_run=True)
    assert found["object_id"].tolist() == ["s2", "s0"] and not (tmp_path / "out").exists()
