"""Features of images: those of the layer before the last, of every object that can be used."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from cast_lens import backbones, checkpoints, features, images, networks, pools, run, scoring
from cast_lens.score_shards import ScoringError
from tests.fits_files import survey_file
from tests.folders import stamps

SIDE, N = 32, 13
BRANCHES = (networks.Branch("all", ("g", "r"), SIDE, 0.1, "all"),)
BOUNDS = {"all": ([-2.0, -1.0], [3.0, 4.0])}


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    pixels = keras.Input(shape)
    x = keras.layers.Conv2D(5, SIDE, name="stem_conv")(pixels)
    return keras.Model(pixels, batch_normalization(axis=3, name="stem_bn")(x), name=name)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(backbones, "efficient_net", small_trunk)


@pytest.fixture
def network(tmp_path):
    """Return the path of a network whose features are one sum over the pixels each."""
    keras.utils.set_random_seed(4)
    model = networks.build_model("b0", BRANCHES)
    features.set_bounds(model, BOUNDS)
    path = tmp_path / "net/small.safetensors"
    checkpoints.write_weights(model, path, {})
    fields = {"name": "small", "backbone": "b0", "branches": BRANCHES, "flux_unit": "counts",
              "survey": "a test", "calibration": None}  # fmt: skip
    networks.write_description(path.with_suffix(".json"), fields)
    return path


@pytest.fixture
def survey(tmp_path):
    folder, rng = tmp_path / "survey", np.random.default_rng(0)
    folder.mkdir()
    for k in range(N):
        for band in "gr":
            pixels = rng.normal(0.5, 2, (SIDE, SIDE)).astype(np.float32)
            card = f"PIXSCALE= {0.1:20}"
            (folder / f"n{k:02}_{band}.fits").write_bytes(survey_file(pixels, card))
    return folder


def find(folder):
    return images.find(folder, bands=("g", "r"))


def by_hand(folder, name, path, bounds=BOUNDS):
    """Return the features of an object by NumPy, from the file and the tensors alone."""
    tensors, _ = checkpoints.read_arrays(path)
    kernel, bias, gamma, beta, mean, variance = (
        next(x for key, x in tensors.items() if key.endswith(end))
        for end in ("stem_conv/kernel", "stem_conv/bias", "gamma", "beta", "moving_mean",
                    "moving_variance")
    )  # fmt: skip
    stack = np.stack([fits.getdata(folder / f"{name}_{band}.fits") for band in "gr"], axis=-1)
    lower, upper = (np.array(end, np.float64) for end in bounds["all"])
    x = (np.clip(stack.astype(np.float64), lower, upper) - lower) / (upper - lower)
    x = np.einsum("ijb,ijbf->f", x, kernel.astype(np.float64)) + bias
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def write(folder, network, output, **options):
    return features.write_features(find(folder), network, output, batch=5, progress=False,
                                   **options)  # fmt: skip


def test_features_are_what_goes_into_the_last_layer(survey, network, tmp_path):
    about = write(survey, network, tmp_path / "pool")
    pool = pools.open_pool(tmp_path / "pool")
    assert pool.object_ids.tolist() == [f"n{k:02}" for k in range(N)]
    wanted = np.stack([by_hand(survey, name, network) for name in pool.object_ids])
    np.testing.assert_allclose(pool.features, wanted, rtol=1e-4, atol=1e-4)
    assert np.ptp(wanted, axis=0).min() > 0.05 and about["n_features"] == wanted.shape[1] == 5
    assert about["audit"]["n_images"] == about["audit"]["n_written"] == N
    scoring.score(find(survey), str(network), tmp_path / "out", engine="keras", progress=False)
    table = pd.read_csv(tmp_path / "out/candidates.csv").set_index("object_id")["logit"]
    logits = features.lens_logits(pool.features, networks.open_network(network).model)
    np.testing.assert_allclose(logits, table[pool.object_ids], rtol=1e-4, atol=1e-4)


def test_object_that_cannot_be_used_is_left_out_and_changes_no_other(survey, network, tmp_path):
    write(survey, network, tmp_path / "whole")
    (survey / "n03_r.fits").write_bytes(b"no image")
    (survey / "n07_g.fits").unlink()
    about = write(survey, network, tmp_path / "pool")
    whole, pool = pools.open_pool(tmp_path / "whole"), pools.open_pool(tmp_path / "pool")
    kept = ~whole.object_ids.isin(["n03", "n07"])
    assert pool.object_ids.tolist() == whole.object_ids[kept].tolist()
    assert np.array_equal(pool.features, whole.features[kept])
    left_out = pd.read_csv(tmp_path / "pool/left_out.csv")
    assert left_out["object_id"].tolist() == ["n03", "n07"]
    assert left_out["reason"].tolist() == ["not_fits", "missing_band"]
    assert about["audit"]["n_left_out"] == {"missing_band": 1, "not_fits": 1}
    assert json.loads((tmp_path / "pool/run.json").read_text()) == json.loads(json.dumps(about))
    with pytest.raises(ScoringError, match="n03.*--strict"):
        write(survey, network, tmp_path / "strict", strict=True)
    for path in survey.glob("*.fits"):
        path.write_bytes(b"no image")
    with pytest.raises(ScoringError, match=f"none of {N} objects can be used; object_id n00"):
        write(survey, network, tmp_path / "none")
    assert not (tmp_path / "none").exists() and not (tmp_path / ".none.features").exists()


def test_own_fluxes_of_the_candidates_take_the_place_of_the_released(survey, network, tmp_path):
    clip = {"all": {"g": (-1.0, 1.0), "r": (0.0, 2.0)}}
    write(survey, network, tmp_path / "pool", clip=clip)
    pool = pools.open_pool(tmp_path / "pool")
    bounds = {"all": ([-1.0, 0.0], [1.0, 2.0])}
    wanted = np.stack([by_hand(survey, name, network, bounds) for name in pool.object_ids])
    np.testing.assert_allclose(pool.features, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_there_is_left_alone_and_a_dry_run_writes_nothing(survey, network, tmp_path):
    before = stamps(tmp_path)
    about = write(survey, network, tmp_path / "pool", dry_run=True)
    assert about["plan"] == {"n_images": N} and stamps(tmp_path) == before
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/mine.txt").write_text("mine")
    with pytest.raises(pools.PoolError, match="is not empty"):
        write(survey, network, tmp_path / "pool")
    (tmp_path / "other").mkdir()
    with run.hold(tmp_path / ".other.features"), pytest.raises(run.RunError, match="in use"):
        write(survey, network, tmp_path / "other")


def test_feature_that_is_no_number_names_its_object(survey, network, tmp_path):
    opened = networks.open_network(network)
    layer = opened.model.get_layer("trunk_all").get_layer("stem_conv")
    layer.set_weights([np.full_like(x, 3e38) for x in layer.get_weights()])
    with pytest.raises(ScoringError, match="object_id n00: network small gives a feature"):
        write(survey, opened, tmp_path / "pool")
