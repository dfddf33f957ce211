"""From a pack to scores under JAX and PyTorch, where no TensorFlow can be imported.

What the TensorFlow of this process finds is the truth that the others are held against: the loss,
every weight after one step of training, and the scores. Backends draw other random numbers, so
images are their own mirror images and nothing is turned, zoomed or dropped.
"""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import pack
from tests.fits_files import survey_file

SIDES = {"VIS": 200, "H": 66, "J": 66, "Y": 66}
INPUTS = {"vis": ("VIS",), "nir": ("H", "J", "Y")}
N, BATCH = 14, 8
OTHERS = ("jax", "torch")
CHANGES = {
    "epochs": 1, "batch": BATCH, "initial": "random", "rotation": 0.0, "zoom": (1.0, 1.0),
    "drop_connect": False,
}  # fmt: skip

WORK = """
import sys
sys.modules["tensorflow"] = None  # what would import it, fails
from tests import test_other_backends as work
work.run(*sys.argv[1:])
found = [name for name in sys.modules if name.startswith("tensorflow")]
assert found == ["tensorflow"] and sys.modules["tensorflow"] is None, found
"""


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    """What EfficientNet is made of, once: strides, depthwise, swish, squeeze and excitation."""
    from cast_lens import layers

    images = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(images)
    x = keras.layers.Activation(layers.swish)(batch_normalization(name="stem_bn")(x))
    x = keras.layers.DepthwiseConv2D(5, strides=2, padding="same", use_bias=False, name="dw")(x)
    x = keras.layers.Activation(layers.swish)(batch_normalization(name="dw_bn")(x))
    weight = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    weight = keras.layers.Conv2D(8, 1, activation="sigmoid", name="se")(weight)
    return keras.Model(images, keras.layers.multiply([x, weight]), name=name)


def run(folder, out, backbone):
    """Train one step from a pack on the device, score, and write what was found to `out`."""
    from pathlib import Path

    from cast_lens import device_arrays, pack_reader
    from reproductions.sglc2 import network, settings, training

    inputs, changes = "hjy", CHANGES | {"backbone": backbone}
    if backbone == "small":
        network.backbones.efficient_net = small_trunk
        inputs, changes = "hjy_vis_repeated", CHANGES
    if backbone == "residual":  # of the scale "calibration", with fewer filters
        network.backbones.SMALL = (16, 32)
        inputs, changes = "hjy_vis_repeated", changes | {"vis_side": 144, "nir_side": 48}
    config = settings.config_of(f"{inputs}.alternative", changes)
    branches = list(settings.INPUTS[inputs])
    model = network.build_model(config, seed=0)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if "kernel" in variable.path:
            fan_in = max(1, int(np.prod(variable.shape[:-1])))
            # Scores must differ, and not be 0 or 1, whose logarithms backends cut off otherwise.
            scale = 20 if "lens" in variable.path and backbone != "residual" else 1
            drawn = scale * rng.standard_normal(variable.shape) / np.sqrt(fan_in)
            variable.assign(drawn.astype(np.float32))
    bounds = {name: len(settings.BANDS[name]) for name in branches}
    bounds = {name: [np.full(n, flux) for flux in (-3e-12, 3e-11)] for name, n in bounds.items()}
    network.set_bounds(model, bounds)
    network.compile_model(model, config)
    packed = pack_reader.open_pack(folder)
    source = device_arrays.put(packed, np.arange(N), inputs=branches)
    part = {"train": np.arange(BATCH), "test": np.arange(BATCH, N)}
    history = training.fit(model, config, source, part, seed=0, fold=0, here=Path(out).parent)
    table = training.score(model, config, source, np.arange(N), run_key=0, n_train=BATCH)
    weights = {f"weight {k:03d}": np.asarray(w) for k, w in enumerate(model.get_weights())}
    np.savez(out, loss=history["loss"], val_loss=history["val_loss"], scores=table["score"],
             **weights)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"object_id": [str(200_000 + k) for k in range(N)]})
    table["label"] = np.arange(N) % 2
    for band, side in SIDES.items():
        paths = [folder / f"{band}-{k}.fits" for k in range(N)]
        for k, path in enumerate(paths):
            image = rng.standard_normal((side, side)) * 1e-11
            image[side // 2 - 4 : side // 2 + 4] += 2e-11 * table["label"][k]
            image = (image + image[::-1] + image[:, ::-1] + image[::-1, ::-1]) / 4
            path.write_bytes(survey_file(image.astype(np.float32)))
        table[f"path_{band}"] = pd.Series([str(path) for path in paths], dtype=object)
    pack.build(folder / "pack", table, INPUTS, mask_value=None, dtype="float32", workers=1,
               about={"survey": "small", "data": "stand-in"}, progress=False)  # fmt: skip
    return folder / "pack"


def reference(folder, tmp_path, backbone, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the truth is what TensorFlow finds, and this process has another backend")
    from reproductions.sglc2 import network

    # `run` puts its own in place; this puts it back.
    for name in ("efficient_net", "SMALL"):
        monkeypatch.setattr(network.backbones, name, getattr(network.backbones, name))
    (tmp_path / "tensorflow").mkdir()
    run(str(folder), str(tmp_path / "tensorflow/found.npz"), backbone)
    return np.load(tmp_path / "tensorflow/found.npz")


def under(backend, root, code, *arguments):
    """Run code in a process of another backend."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(
        [str(root), os.environ.get("PYTHONPATH", "")])}  # fmt: skip
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]


def hold(found, wanted):
    assert sorted(found.files) == sorted(wanted.files)
    assert np.std(wanted["scores"]) > 1e-3  # else equal scores would say nothing
    assert np.allclose(found["scores"], wanted["scores"], rtol=0, atol=1e-4)
    for name in wanted.files:
        assert np.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize(
    "size", ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("residual", "b0"))]
)
@pytest.mark.parametrize("backend", OTHERS)
def test_a_training_step_and_scores_are_those_of_tensorflow_without_it(
    backend, size, folder, root, tmp_path, monkeypatch
):
    (tmp_path / backend).mkdir()
    out = tmp_path / backend / "found.npz"
    under(backend, root, WORK, folder, out, size)
    hold(np.load(out), reference(folder, tmp_path, size, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_images_on_the_device_and_bfloat16_hold_under_another_backend(backend, root):
    code = (
        "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', "
        "'tests/test_device_arrays.py', 'tests/test_precision.py']))"
    )
    under(backend, root, code)


def test_jax_keeps_its_programs_where_it_is_told(root, tmp_path, monkeypatch):
    code = (
        "import sys, jax; from cast_lens import compiled; compiled.Networks(); "
        "found = jax.config.jax_compilation_cache_dir; assert found == sys.argv[1], found"
    )
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path))
    under("jax", root, code, tmp_path / "jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "other"))
    under("jax", root, code, tmp_path / "other")
