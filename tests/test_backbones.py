"""EfficientNet: what the package builds under Keras 3, against keras.applications and the paper."""

import hashlib
import importlib.util
import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from efficientnet import model as package
from keras import ops

from cast_lens import backbones, data, layers
from tests import loopback
from tests.loopback import reply, status


def build(variant="b0", *, name="trunk", shape=(None, None, 3), weights=None, **options):
    return backbones.efficient_net(variant, name=name, shape=shape, weights=weights, **options)


@pytest.fixture(scope="module")
def b0():
    return build()


@pytest.fixture(scope="module")
def b2():
    return build("b2")


def drops(model):
    return {x.name: x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)}


def weighted(model):
    return [layer for layer in model.layers if layer.weights]


@pytest.mark.slow
def test_numbers_of_layers_and_weights_are_those_of_the_package(b0, b2):
    assert len(weighted(b0)) == 130 and len(weighted(b2)) == 184
    assert b2.count_params() == 7_768_562
    # Tan & Le (2019), Table 2: 5.3 million with the 1280 x 1000 + 1000 of the top
    assert b0.count_params() + 1_281_000 == pytest.approx(5.3e6, rel=0.01)


@pytest.fixture(scope="module")
def applications():
    """Return the networks of keras.applications, for images whose padding hangs on their size."""
    sizes = {"b0": (66, 66, 3), "b2": (101, 101, 3)}
    return {
        variant: getattr(keras.applications, f"EfficientNet{variant.upper()}")(
            include_top=False, weights=None, input_shape=shape
        )
        for variant, shape in sizes.items()
    }


@pytest.mark.slow
def test_drop_connect_grows_to_more_than_that_of_keras_applications(b2, applications):
    theirs = drops(applications["b2"])
    assert drops(b2).keys() == theirs.keys() and len(theirs) == 16
    assert drops(b2)["block7b_drop"] == pytest.approx(0.275)
    assert theirs["block7b_drop"] == pytest.approx(0.191, abs=5e-4)


def from_stem(theirs):
    """Return keras.applications' network from its stem on, without what rescales the images."""
    return keras.Model(theirs.get_layer("stem_conv_pad").input, theirs.output)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["b0", "b2"])
def test_maps_are_those_of_keras_applications_from_the_stem_on(variant, applications, request):
    ours = request.getfixturevalue(variant)
    size = applications[variant].input_shape[1]
    theirs = from_stem(applications[variant])
    rng = np.random.default_rng(0)
    for layer in weighted(ours):
        arrays = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            low, high = np.array([[0.7, -0.2, -0.05, 0.8], [1.3, 0.2, 0.05, 1.2]])
            arrays = [rng.uniform(*ends, a.shape) for a, ends in zip(arrays, zip(low, high))]
        layer.set_weights(arrays)
        theirs.get_layer(layer.name).set_weights(arrays)
    images = rng.random((2, size, size, 3)).astype(np.float32)
    found, expected = (ops.convert_to_numpy(model(images)) for model in (ours, theirs))
    assert found.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.7e-6 * np.abs(expected).max())


def test_it_begins_with_a_convolution_and_rescales_nothing(b0):
    kinds = [type(layer).__name__ for layer in b0.layers[:3]]
    assert kinds == ["InputLayer", "Conv2D", "BatchNormalization"]


@pytest.mark.parametrize("variant, features", [("b0", 1280), ("b2", 1408)])
def test_images_of_every_size_become_maps_of_a_32nd(variant, features, request):
    model = request.getfixturevalue(variant)
    for size in (200, 101, 66, 32):
        shape = model.compute_output_shape((5, size, size + 32, 3))
        assert tuple(shape) == (5, -(-size // 32), -(-(size + 32) // 32), features)


def test_kernels_begin_with_the_spread_of_the_paper(b0):
    """He et al. (2015) over what a kernel feeds; a depthwise kernel feeds one map."""
    for name, count in (("stem_conv", 9 * 32), ("block2a_expand_conv", 96), ("top_conv", 1280)):
        kernel = b0.get_layer(name).get_weights()[0]
        assert kernel.std() == pytest.approx(np.sqrt(2 / count), rel=0.1)
    kernel = b0.get_layer("block6a_dwconv").get_weights()[0]
    assert kernel.shape[:2] == (5, 5) and kernel.std() == pytest.approx(np.sqrt(2 / 25), rel=0.1)


def test_batch_normalization_is_ours_with_the_numbers_of_the_package(b0):
    norms = [x for x in b0.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 49
    assert {type(norm) for norm in norms} == {layers.BatchNormalization}
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}


@pytest.mark.slow
def test_two_trunks_join_in_one_network_that_is_saved_and_loaded_again(b0, tmp_path):
    inputs = [keras.Input((40, 40, 3)), keras.Input((32, 32, 1))]
    trunks = [b0, build(name="nir", shape=(32, 32, 1))]
    pooled = [
        keras.layers.GlobalAveragePooling2D()(trunk(x))
        for trunk, x in zip(trunks, inputs, strict=True)
    ]
    scores = keras.layers.Dense(2, activation="softmax")(keras.layers.Concatenate()(pooled))
    model = keras.Model(inputs, scores)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = [np.random.default_rng(0).random((2, *x.shape[1:])).astype("f") for x in inputs]
    found = [ops.convert_to_numpy(each(images)) for each in (model, loaded)]
    assert np.array_equal(*found) and np.ptp(found[0]) > 0
    assert loaded.get_layer("nir").get_layer("block2b_drop").rate == pytest.approx(0.025)
    assert model.count_params() == 2 * 4_049_564 - 2 * 288 + 2 * 1280 * 2 + 2


@pytest.mark.slow
def test_a_network_learns_by_fit():
    keras.utils.set_random_seed(0)
    trunk = build(shape=(32, 32, 3))
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)]
    model = keras.Sequential([trunk, *head])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    labels = np.arange(32) % 2
    images = np.random.default_rng(0).random((32, 32, 32, 3)).astype("f")
    images += labels[:, None, None, None] * np.sin(np.arange(32))[:, None]
    losses = model.fit(images, labels[:, None], epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    "options, named",
    [
        ({"variant": "b8"}, "variant is 'b8'"),
        ({"weights": "image-net"}, "weights are 'image-net'"),
        ({"weights": "weights.h5"}, "weights are 'weights.h5'"),
        ({"shape": (66, 66)}, r"shape is \(66, 66\), expected \(height, width, band\)"),
        ({"shape": (66, 66, None)}, r"expected \(height, width, band\)"),
        ({"shape": (66, 66, 1), "weights": "imagenet"}, r"expected \(height, width, 3\)"),
        ({"shape": (31, 66, 3)}, "at least 32"),
    ],
)
def test_what_cannot_be_built_is_refused(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


@pytest.fixture
def no_downloads(monkeypatch, tmp_path):
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def published(b0, monkeypatch, tmp_path, no_downloads):
    """Write a file as Keras 2 does, and make its hashes the published ones.

    Returns:
        {"imagenet" or "noisy-student": (name, content)}, and the value of every weight.
    """
    path = tmp_path / "weights.h5"
    rng = np.random.default_rng(7)
    values = {}
    with h5py.File(path, "w") as file:
        found = weighted(b0)
        file.attrs["layer_names"] = [layer.name.encode() for layer in found]
        for layer in found:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                value = rng.normal(size=variable.shape).astype(np.float32)
                values[layer.name, variable.name] = group[name] = value
    content = path.read_bytes()
    digests = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    for table, digest in zip(("IMAGENET_WEIGHTS_HASHES", "NS_WEIGHTS_HASHES"), digests):
        known = getattr(package, table)
        assert len(known["efficientnet-b0"][1]) == len(digest)
        monkeypatch.setitem(known, "efficientnet-b0", ("", digest))
    name = "efficientnet-b0_weights_tf_dim_ordering_tf_kernels_autoaugment_notop.h5"
    names = {"imagenet": name, "noisy-student": "efficientnet-b0_noisy-student_notop.h5"}
    return {kind: (name, content) for kind, name in names.items()}, values


def assert_weights(model, values):
    for layer in weighted(model):
        for variable in layer.weights:
            expected = values[layer.name, variable.name]
            assert np.array_equal(ops.convert_to_numpy(variable.value), expected), variable.path


@pytest.mark.parametrize(
    "kind", ["imagenet", pytest.param("noisy-student", marks=pytest.mark.slow)]
)
def test_published_weights_are_downloaded_once(published, kind, monkeypatch, tmp_path):
    files, values = published
    name, content = files[kind]
    with loopback.serve() as server:
        for constant in ("IMAGENET_WEIGHTS_PATH", "NS_WEIGHTS_PATH"):
            monkeypatch.setattr(package, constant, f"{server.url}/")
        server.answers = [lambda handler: reply(handler, content, length=len(content))]
        assert_weights(build(weights=kind), values)
        assert server.requests == 1
        assert (tmp_path / "cache/efficientnet" / name).read_bytes() == content
        assert_weights(build(weights=kind, name="again"), values)
        assert server.requests == 1


def test_the_folder_of_data_comes_first_and_must_hold_what_was_published(
    published, monkeypatch, tmp_path
):
    files, values = published
    name, content = files["imagenet"]
    path = tmp_path / "data/efficientnet" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "data"))
    assert_weights(build(weights="imagenet"), values)
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(data.DataError, match=f"{path} is not the published file: sha256 "):
        build(weights="imagenet")


@pytest.mark.parametrize("answer", [status(404), lambda handler: reply(handler, b"<html>")])
def test_without_the_published_file_random_weights_are_named(
    no_downloads, monkeypatch, tmp_path, answer
):
    with loopback.serve() as server:
        monkeypatch.setattr(package, "IMAGENET_WEIGHTS_PATH", f"{server.url}/")
        server.answers = [answer]
        with pytest.raises(data.DataUnavailableError, match="--init random") as caught:
            build(weights="imagenet")
    name = "efficientnet-b0_weights_tf_dim_ordering_tf_kernels_autoaugment_notop.h5"
    digest = package.IMAGENET_WEIGHTS_HASHES["efficientnet-b0"][1]
    for part in (name, f"{server.url}/{name}", digest, f"efficientnet/{name}", "CAST_LENS_DATA"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_without_network_random_weights_are_named(no_downloads, monkeypatch):
    monkeypatch.setattr(package, "NS_WEIGHTS_PATH", "http://127.0.0.1:9/")
    with pytest.raises(data.DataUnavailableError, match="could not be reached.*--init random"):
        build(weights="noisy-student")


@pytest.mark.slow
def test_the_package_needs_neither_skimage_nor_another_keras(root):
    code = (
        "import sys; sys.modules['skimage'] = None; from cast_lens import backbones;"
        "print([m for m in sys.modules if m in "
        "('efficientnet.keras', 'efficientnet.tfkeras', 'tf_keras')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
from cast_lens import backbones, optimizers
trunk = backbones.efficient_net("b0", name="vis", shape=(None, None, 3), weights=None)
head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid")]
model = keras.Sequential([keras.Input((32, 32, 3)), trunk, *head])
model.compile(optimizers.RAdam(), "binary_crossentropy", jit_compile=False)
images = np.random.default_rng(0).random((4, 32, 32, 3)).astype("f")
before = [w.numpy() for w in model.weights]
model.fit(images, np.array([[0.0], [1.0], [0.0], [1.0]]), epochs=1, verbose=0)
assert not any(np.array_equal(a, w.numpy()) for a, w in zip(before, model.weights))
model.save(sys.argv[1])
loaded = keras.models.load_model(sys.argv[1])
assert np.array_equal(model.predict(images, verbose=0), loaded.predict(images, verbose=0))
print(keras.backend.backend(), "tensorflow" in sys.modules and sys.modules["tensorflow"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_builds_trains_and_saves_without_tensorflow(backend, root, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "model.keras")]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.splitlines()[-1] == f"{backend} None"


def by_loops(images, kernel, strides):
    """Convolve without a bias; pad with zeros as is usual, more behind than before."""
    size, n = kernel.shape[0], -(-images.shape[0] // strides)
    missing = max((n - 1) * strides + size - images.shape[0], 0)
    padded = np.pad(images, [(missing // 2, missing - missing // 2)] * 2 + [(0, 0)])
    out = np.zeros((n, n, kernel.shape[3]))
    for i in range(n):
        for j in range(n):
            part = padded[i * strides :, j * strides :][:size, :size]
            out[i, j] = np.tensordot(part, kernel, 3)
    return out


def test_a_residual_network_is_that_of_loops():
    def convolution(filters, n_inputs, name, *, size, strides):
        made.append((name, n_inputs))
        return keras.layers.Conv2D(
            filters, size, strides, padding="same", use_bias=False, name=name
        )

    made, images = [], keras.Input((11, 11, 2))
    features = backbones.residual(
        images, (3, 4), convolution=convolution,
        batch_normalization=lambda name: keras.layers.Rescaling(0.5, name=name),
    )  # fmt: skip
    model = keras.Model(images, features)
    assert features.shape == (None, 3, 3, 4)
    kernels = {layer.name: layer.get_weights()[0] for layer in model.layers if layer.weights}
    assert made == [(name, kernel.shape[2]) for name, kernel in kernels.items()] and len(made) == 10
    values = np.random.default_rng(0).standard_normal((11, 11, 2))

    def step(x, name, strides=1):
        return 0.5 * by_loops(x, kernels[name], strides)

    def relu(x):
        return np.maximum(x, 0)

    x = relu(step(values, "stem", 2))
    for name, strides in (("stage1_1", 1), ("stage1_2", 1), ("stage2_1", 2), ("stage2_2", 1)):
        y = step(relu(step(x, f"{name}_conv1", strides)), f"{name}_conv2")
        x = relu(y + (by_loops(x, kernels[f"{name}_skip"], 2) if strides == 2 else x))
    found = model.predict(values[None].astype(np.float32), verbose=0)[0]
    assert np.allclose(found, x, rtol=1e-4, atol=1e-5) and x.std() > 0.01
