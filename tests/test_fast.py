"""Folded batch normalization and ONNX Runtime: the same logits, or a reason why there are none."""

import importlib.util
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from cast_lens import backbones, fast, layers, networks

ONNX = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnxruntime", "tf2onnx"))),
    reason="needs the extra fast (onnxruntime, tf2onnx)",
)


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    """Return a trunk with every kind of layer that the folding meets."""
    images = keras.Input(shape)
    x = keras.layers.Conv2D(6, 5, strides=4, padding="same", use_bias=False)(images)
    x = keras.layers.Activation(layers.swish)(batch_normalization(axis=3)(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = batch_normalization(axis=3)(y)
    return keras.Model(images, keras.layers.add([x, y]), name=name)


def shaken(model, seed):
    """Give every weight a random value, as if trained; return the model."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(0, 0.3, weight.shape)
        if weight.path.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.3, 2.0, weight.shape)
        if "clip_" in weight.path:
            value = np.full(weight.shape, {"lower": -1e-12, "upper": 4e-12}[weight.name])
        weight.assign(value)
    return model


@pytest.fixture
def network(monkeypatch, tmp_path):
    """A network of two branches with small trunks, and a cache folder of its own."""
    monkeypatch.setattr(backbones, "efficient_net", small_trunk)
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))
    return opened(seed=1)


def opened(seed):
    branches = (
        networks.Branch("vis", ("VIS",), 48, 0.1, "repeated"),
        networks.Branch("nir", ("H", "J", "Y"), 32, 0.3, "all"),
    )
    model = shaken(networks.build_model("b0", branches), seed)
    return networks.Network("small", "b0", branches, "maggies", "test", None, "0" * 64, model)


def images(n, seed=2):
    rng = np.random.default_rng(seed)
    shapes = {"vis": (n, 48, 48, 1), "nir": (n, 32, 32, 3)}
    return {name: rng.normal(1e-12, 2e-12, x).astype(np.float32) for name, x in shapes.items()}


def log_odds(model, batch):
    """Return the logits of a softmax, whatever came before it."""
    p = keras.ops.convert_to_numpy(model(batch, training=False)).astype(np.float64)
    return np.log(p[:, 1] / p[:, 0])


@pytest.fixture
def float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[1])
    keras.config.set_dtype_policy(before[0])


def normalizations(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from normalizations(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer.name


@pytest.mark.slow
def test_a_folded_b0_is_exact_in_float64_and_has_no_batch_normalization(float64):
    trunk = shaken(backbones.efficient_net("b0", name="b0", shape=(None, None, 3), weights=None), 0)
    assert len(list(normalizations(trunk))) == 49  # Tan & Le (2019): 3 in 15 blocks, 2, stem, top
    batch = np.random.default_rng(1).normal(size=(2, 45, 45, 3))
    wanted = keras.ops.convert_to_numpy(trunk(batch, training=False))
    before = trunk.get_weights()
    folded = fast.fold(trunk)
    found = keras.ops.convert_to_numpy(folded(batch, training=False))
    assert list(normalizations(folded)) == []
    assert found.dtype == np.float64 and wanted.std() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12 * np.abs(wanted).max())
    assert all(map(np.array_equal, trunk.get_weights(), before))


@pytest.mark.parametrize(
    "conv",
    [
        lambda: keras.layers.Conv2D(6, 3, strides=2, padding="same"),
        lambda: keras.layers.Conv2D(6, 3, groups=2, dilation_rate=2, use_bias=False),
        lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=3, padding="same"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_every_kind_of_pair_is_folded_exactly(conv, options, float64):
    start = keras.Input((9, 9, 4))
    end = keras.layers.BatchNormalization(**options)(conv()(start))
    model = shaken(keras.Model(start, end), 3)
    batch = np.random.default_rng(4).normal(size=(3, 9, 9, 4))
    folded = fast.fold(model)
    assert len(folded.layers) == len(model.layers) - 1
    found, wanted = (keras.ops.convert_to_numpy(m(batch, training=False)) for m in (folded, model))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def activated(x):
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(x))


def used_twice(x):
    x = keras.layers.Conv2D(4, 3)(x)
    return keras.layers.add([x, keras.layers.BatchNormalization()(x)])


def after_a_sum(x):
    y = keras.layers.Conv2D(4, 3)(x)
    return keras.layers.BatchNormalization()(keras.layers.add([y, y]))


def of_one_axis(x):
    return keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(4, 3)(x))


def in_a_sequence(x):
    both = keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()
    return keras.Sequential([keras.Input(x.shape[1:]), *both])(x)


@pytest.mark.parametrize("end", [activated, used_twice, after_a_sum, of_one_axis, in_a_sequence])
def test_what_is_no_pair_keeps_its_normalization_and_its_values(end, float64):
    start = keras.Input((9, 9, 4))
    model = shaken(keras.Model(start, end(start)), 5)
    batch = np.random.default_rng(6).normal(size=(3, 9, 9, 4))
    folded = fast.fold(model)
    assert len(list(normalizations(folded))) == 1
    found, wanted = (keras.ops.convert_to_numpy(m(batch, training=False)) for m in (folded, model))
    assert np.array_equal(found, wanted)


def test_logits_are_the_log_odds_of_the_softmax_at_any_batch_size(network):
    logits = fast.lens_logits(network, "keras")
    batch = images(7)
    wanted = log_odds(network.model, batch)
    assert np.ptp(wanted) > 1e-3
    for n in (1, 2, 7):
        found = logits({name: x[:n] for name, x in batch.items()})
        assert found.shape == (n,) and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[:n], rtol=1e-5, atol=1e-5)
    assert logits(images(0)).shape == (0,)
    assert logits.engine == "keras"


def test_a_saturated_score_still_has_a_logit(network):
    head = network.model.get_layer("lens")
    head.bias.assign([-150.0, 150.0])
    score = keras.ops.convert_to_numpy(network.model(images(2)))[:, 1]
    assert (score == 1).all()
    found = fast.lens_logits(network, "keras")(images(2))
    assert np.isfinite(found).all() and (found > 250).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("nir"), "small: found images vis, expected vis, nir"),
        (lambda x: x.update(other=x["vis"]), "expected vis, nir"),
        (lambda x: x.update(vis=x["vis"][:, :-1]), r"vis is \(3, 47, 48, 1\), expected \(3, 48"),
        (lambda x: x.update(nir=x["nir"][:-1]), r"nir is \(2, 32, 32, 3\), expected \(3, 32"),
        (lambda x: x.update(nir=x["nir"][..., 0]), r"nir is \(3, 32, 32\), expected"),
    ],
)
def test_images_that_are_not_those_of_the_network_are_refused(network, change, message):
    batch = images(3)
    change(batch)
    with pytest.raises(ValueError, match=message):
        fast.lens_logits(network, "keras")(batch)


def test_without_onnxruntime_auto_is_keras_and_onnx_names_the_extra(network, monkeypatch):
    monkeypatch.setattr(
        fast.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else "there"
    )
    assert fast.choose_engine("auto") == "keras"
    assert fast.lens_logits(network, "auto").engine == "keras"
    with pytest.raises(fast.EngineError, match=r"needs onnxruntime, .*pip install 'cast_lens\[fa"):
        fast.lens_logits(network, "onnx")
    with pytest.raises(fast.EngineError, match="'tensorrt', expected one of auto, keras, onnx"):
        fast.lens_logits(network, "tensorrt")


def test_auto_stays_with_keras_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(fast.importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: [])
    assert fast.choose_engine("auto") == "onnx"
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["gpu:0"])
    assert fast.choose_engine("auto") == "keras" and fast.choose_engine("onnx") == "onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a cache folder that holds the graph of the network."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "efficient_net", small_trunk)
        patch.setenv("CAST_LENS_CACHE", str(folder))
        fast.lens_logits(opened(seed=1), "onnx")
    return folder


@pytest.fixture
def kept(made, network, tmp_path):
    """Graph and record of the network, as ONNX Runtime left them in the cache."""
    shutil.copytree(made, tmp_path / "cache")
    (graph,), (record,) = (list((tmp_path / "cache/onnx").glob(f"*.{x}")) for x in ("onnx", "json"))
    return graph, record


def exports(monkeypatch):
    """Count what is exported from here on."""
    count, export = [], fast._export
    monkeypatch.setattr(fast, "_export", lambda network: count.append(1) or export(network))
    return count


@ONNX
def test_onnx_runtime_gives_what_keras_gives_at_any_batch_size(network, kept):
    logits = fast.lens_logits(network, "onnx", threads=1)
    assert logits.engine == "onnx"
    batch = images(5)
    wanted = log_odds(network.model, batch)
    for n in (1, 5):
        found = logits({name: x[:n] for name, x in batch.items()})
        assert found.shape == (n,) and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[:n], rtol=1e-5, atol=1e-5)
    assert logits(images(0)).shape == (0,)


@ONNX
def test_a_graph_is_made_once_and_anew_for_other_weights(network, kept, monkeypatch):
    count = exports(monkeypatch)
    fast.lens_logits(network, "onnx")
    assert not count
    network.model.get_layer("lens").bias.assign([0.0, 1.0])
    found = fast.lens_logits(network, "onnx")(images(2))
    assert len(count) == 1 and len(list(kept[0].parent.glob("*.onnx"))) == 2
    np.testing.assert_allclose(found, log_odds(network.model, images(2)), rtol=1e-5, atol=1e-5)


def flip(graph, record):
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def cut(graph, record):
    graph.write_bytes(graph.read_bytes()[:-10])


def lose(graph, record):
    record.unlink()


def spoil(graph, record):
    record.write_text("[")


def exchange(graph, record):
    """Put a graph of other weights there, with a record that vouches for it."""
    content = fast._export(opened(seed=9))
    graph.write_bytes(content)
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"sha256": fast.hashlib.sha256(content).hexdigest()}))


def nonsense(graph, record):
    graph.write_bytes(b"no graph")
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"sha256": fast.hashlib.sha256(b"no graph").hexdigest()}))


@ONNX
@pytest.mark.parametrize(
    "fault",
    [
        flip, lose, exchange,
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in (cut, spoil, nonsense)),
    ],
)  # fmt: skip
def test_a_kept_graph_that_is_not_ours_is_made_anew(fault, network, kept, monkeypatch):
    fault(*kept)
    spoiled = kept[0].read_bytes()
    count = exports(monkeypatch)
    found = fast.lens_logits(network, "onnx")(images(2))
    assert len(count) == 1
    np.testing.assert_allclose(found, log_odds(network.model, images(2)), rtol=1e-5, atol=1e-5)
    fast.lens_logits(network, "onnx")
    assert len(count) == 1 and (fault in (lose, spoil) or kept[0].read_bytes() != spoiled)


@ONNX
def test_a_graph_that_differs_from_keras_is_refused_and_not_kept(network, monkeypatch, tmp_path):
    content = fast._export(opened(seed=9))
    monkeypatch.setattr(fast, "_export", lambda network: content)
    with pytest.raises(fast.EngineError, match="logits that differ by up to .* choose the engine"):
        fast.lens_logits(network, "onnx")
    assert not list((tmp_path / "cache/onnx").glob("*.*n*"))
    monkeypatch.setattr(fast, "choose_engine", lambda engine: "onnx")
    with pytest.warns(UserWarning, match="Keras is used instead"):
        logits = fast.lens_logits(network, "auto")
    assert logits.engine == "keras"


@ONNX
def test_a_cache_that_cannot_be_written_leaves_auto_with_keras(network, monkeypatch, tmp_path):
    Path(tmp_path / "cache").write_text("a file, no folder")
    monkeypatch.setattr(fast, "choose_engine", lambda engine: "onnx")
    with pytest.warns(UserWarning, match=r"cache.*Keras is used instead"):
        assert fast.lens_logits(network, "auto").engine == "keras"
    with pytest.raises(OSError, match="cache"):
        fast.lens_logits(network, "onnx")
