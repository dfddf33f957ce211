"""What we wrote ourselves against the papers' own libraries; `make parity` makes the originals."""

import json
import re
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import expit

from cast_lens import backbones, checkpoints, layers, losses, optimizers, weights
from tests.parity import cases
from tests.scripts import load

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder():
    path = Path(__file__).parents[2] / ".venv-paper"
    if not (path / "originals.npz").exists():
        pytest.skip("no .venv-paper/originals.npz; run `make parity`")
    return path


@pytest.fixture(scope="module")
def originals(folder):
    return np.load(folder / "originals.npz")


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_focal_loss_matches_tensorflow_addons(originals, alpha):
    ours = losses.focal(originals["labels"], originals["logits"], alpha=alpha, gamma=2.0)
    # float32: their (1 - p)^gamma loses digits where p rounds to 1, ours does not.
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours), originals[f"focal_{alpha}"], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_focal_gradient_matches_tensorflow_addons(originals, alpha):
    ours = losses.focal_gradient(
        originals["labels"], expit(originals["logits"].astype(np.float64)), alpha=alpha, gamma=2.0
    )
    np.testing.assert_allclose(ours, originals[f"focal_gradient_{alpha}"], rtol=1e-4, atol=1e-6)


def float32(value):
    return float(np.float32(value))


def radam(settings, dtype):
    """Return our weights after the steps that the originals show."""
    start, gradients = cases.weights_and_gradients()
    optimizer, weights = optimizers.RAdam(**settings), keras.Variable(start, dtype=dtype)
    after = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, dtype)], [weights])
        after.append(ops.convert_to_numpy(weights.value))
    return np.array([after[step - 1] for step in cases.SHOWN])


@pytest.mark.parametrize("name", cases.RADAM)
def test_radam_matches_tensorflow_addons(originals, name):
    settings = {"beta_1": 0.9, "beta_2": 0.999} | cases.RADAM[name]
    # Weights of one rounding a step, or of two where Keras takes the decay off by itself.
    tolerance = 3e-6 if settings.get("weight_decay") else 1e-6
    theirs = originals[f"radam_{name}_float32"]
    scale = np.abs(theirs).max()
    ours = radam(settings, "float32")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
    # RectifiedAdam keeps beta in float32 beside weights of float64; Keras the learning rate.
    settings |= {key: float32(settings[key]) for key in ("beta_1", "beta_2")}
    tolerance = 5e-9 if "total_steps" in settings else 1e-14
    ours = radam(settings, "float64")
    theirs = originals[f"radam_{name}_float64"]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def trunk(folder, variant, *, name, file, **options):
    model = backbones.efficient_net(
        variant, name=name, shape=(None, None, 3), weights=None, **options
    )
    model.load_weights(folder / f"originals-{file}.h5")
    return model


@pytest.mark.parametrize("variant", cases.VARIANTS)
def test_efficient_net_matches_the_package_under_keras_2(originals, folder, variant):
    ours = trunk(folder, variant, name="trunk", file=variant)
    drops = [x.rate for x in ours.layers if isinstance(x, keras.layers.Dropout)]
    np.testing.assert_allclose(drops, originals[f"{variant}_drops"], rtol=1e-12)
    keras.config.set_dtype_policy("float64")
    try:
        exact = trunk(folder, variant, name="exact", file=variant)
    finally:
        keras.config.set_dtype_policy("float32")
    for size in cases.SIZES:
        images = cases.images(size)
        truth, theirs = (originals[f"{variant}_{size}_float{bits}"] for bits in (64, 32))
        scale = np.abs(truth).max()
        found = ops.convert_to_numpy(exact(images.astype(np.float64)))
        assert truth.dtype == found.dtype == np.float64 and truth.std() > 0.1
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-12 * scale)
        found = ours.predict_on_batch(images)
        # In float32 their own error at 200 pixels is 1.4e-5 of these random networks' scale.
        assert np.abs(found - truth).max() < max(1e-5 * scale, 2 * np.abs(theirs - truth).max())


def two_branches(originals, folder):
    """Build the network of Bom et al. (2022) from the weights of the originals."""
    averaging = partial(layers.BatchNormalization, unbiased_moving_variance=True)
    inputs, trunks, features = [], {}, []
    for name, size in cases.BRANCHES.items():
        trunks[name] = trunk(folder, "b2", name=name, file=name, batch_normalization=averaging)
        inputs.append(keras.Input((size, size, 3), name=f"{name}_image"))
        features.append(keras.layers.GlobalAveragePooling2D()(trunks[name](inputs[-1])))
        for layer in trunks[name].layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    head = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(keras.layers.Concatenate()(features)))
    head.set_weights([originals["head_kernel"], originals["head_bias"]])
    return model, trunks, head


def test_two_branch_network_matches_in_scores_and_in_a_step_of_training(originals, folder):
    model, trunks, head = two_branches(originals, folder)
    images = [cases.images(size, 4) for size in cases.BRANCHES.values()]
    scores = model.predict_on_batch(images)
    np.testing.assert_allclose(scores, originals["scores"], rtol=0, atol=1e-5)
    model.compile(optimizers.RAdam(cases.RATE), "binary_crossentropy", run_eagerly=True)
    before = {(name, x.name): x.get_weights() for name in trunks for x in trunks[name].layers}
    before["head", ""] = [originals["head_kernel"], originals["head_bias"]]
    loss = model.train_on_batch(images, cases.labels(4))
    np.testing.assert_allclose(loss, originals["loss"], rtol=1e-5)
    for (name, layer), old in before.items():
        made = trunks[name].get_layer(layer) if layer else head
        for k, variable in enumerate(made.weights):
            theirs, found = originals[f"after_{name}_{layer}_{k}"], variable.numpy()
            step = np.abs(theirs - old[k]).max()  # gradients are of float32, and so are weights
            tolerance = 2e-4 * step + 1e-6 * np.abs(theirs).max()
            np.testing.assert_allclose(found, theirs, rtol=0, atol=tolerance, err_msg=layer)


@pytest.fixture(scope="module")
def get_sglc2():
    return load(Path(__file__).parents[2] / "weights/get_sglc2.py")


def test_a_saved_model_becomes_arrays_that_give_the_same_scores(
    originals, folder, get_sglc2, tmp_path
):
    source = folder / "saved_models" / cases.SAVED_MODELS[0]
    options = ["--output", str(tmp_path), "--paper-python", str(folder / "bin/python")]
    assert get_sglc2.main(["--data", str(source), *options]) == 0
    model, _ = get_sglc2.build()
    path = tmp_path / f"{source.name}.safetensors"
    weights.load_into(model, path)
    images = cases.branch_images()
    images = {"vis": images["vis"][..., :1], "nir": images["hjy"]}
    truth, theirs = originals["saved_model_64"], originals["saved_model_32"]
    assert truth.min() > 0.01 and np.ptp(truth[:, 1]) > 0.05
    keras.config.set_dtype_policy("float64")
    try:
        exact, _ = get_sglc2.build()
    finally:
        keras.config.set_dtype_policy("float32")
    for variable, other in zip(exact.weights, model.weights, strict=True):
        variable.assign(other)
    np.testing.assert_allclose(exact.predict_on_batch(images), truth, rtol=0, atol=1e-12)
    # In float32 this network of random weights differs by 2e-5 from itself, in batches of 1 and 4.
    found = model.predict_on_batch(images)
    np.testing.assert_allclose(found, truth, rtol=0, atol=5e-5)
    np.testing.assert_allclose(theirs, truth, rtol=0, atol=5e-5)
    layers = json.loads(Path(f"{path}.json").read_text())
    assert list(layers) == checkpoints.names(model.weights)
    assert layers[next(n for n in layers if n.endswith(" lens/kernel"))].endswith("/kernel")
    trunks = [name for name in layers.values() if name.endswith("_hjy/moving_mean")]
    assert "block6a_bn_hjy/moving_mean" in trunks


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("other_order", "joins top_activation_hjy and top_activation_vis, expected .* in this"),
        ("one_branch", r"found inputs vis of shape .*200, 200, 3.*expected two"),
    ],
)
def test_a_saved_model_of_another_network_is_refused(
    folder, get_sglc2, tmp_path, name, told, capsys
):
    options = ["--output", str(tmp_path), "--paper-python", str(folder / "bin/python")]
    with pytest.raises(get_sglc2.ConversionError, match="none of 1 SavedModels"):
        get_sglc2.main(["--data", str(folder / "saved_models" / name), *options])
    assert re.search(told, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
