"""The same scores sooner: batch normalization folded away, and ONNX Runtime where it is installed.

`lens_logits` gives a function from images to logits. ONNX Runtime is the extra "fast" of this
package; its graph is made once, kept in the user's cache folder, and held against Keras each time
before it is used. Its ordinary package computes on the CPU; on a GPU Keras is the faster one.
"""

import contextlib
import hashlib
import importlib.util
import json
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

import cast_lens
from cast_lens import checkpoints, data, run

ENGINES = ("auto", "keras", "onnx")
AGREES = 1e-5  # of a logit, or its own size where that is larger: the most engines may differ by

_PACKAGES = ("onnxruntime", "tf2onnx")  # tf2onnx is what Keras exports with
_OPSET = 17  # of the graph; every onnxruntime since 1.12 has it
_WAIT = 600.0  # seconds for another process that makes the same graph
_FOLDED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


class EngineError(run.RunError):
    """An engine that was asked for is not to be had here."""


def lens_logits(network, engine="auto", *, threads=None):
    """Return the function that scores images.

    Args:
        network: Network of `networks.open_network`.
        engine: "onnx", "keras" with batch normalization folded, or "auto" as `choose_engine`.
        threads: Processor threads of ONNX Runtime; None for all. Keras has its own.

    Returns:
        Function of {branch: images of shape (batch, side, side, band)} to the logits of "lens",
        log(p / (1 - p)) from before the softmax, float32, shape (batch,); any batch size. Its
        attribute `engine` says which it is.

    Raises:
        EngineError: As `choose_engine`; or if "onnx" was asked for and does not give what Keras
            does, or its graph cannot be made. "auto" then warns and takes Keras.
        OSError: If "onnx" was asked for and the cache folder cannot be written.
    """
    chosen = choose_engine(engine)
    if chosen == "onnx":
        try:
            return _checked_input(network, _onnx(network, threads), "onnx")
        except (run.RunError, OSError) as error:
            if engine != "auto":
                raise
            warnings.warn(f"{error}; Keras is used instead", stacklevel=2)
    model = logit_model(network.model)
    return _checked_input(network, lambda images: model.predict_on_batch(images)[:, 0], "keras")


def choose_engine(engine):
    """Return "keras" or "onnx", whichever an engine's name stands for on this machine.

    Args:
        engine: One of `ENGINES`; "auto" is ONNX Runtime if it is installed and there is no GPU.

    Raises:
        EngineError: If there is no such engine, or what it needs is not installed.
    """
    if engine not in ENGINES:
        raise EngineError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")
    backend = keras.backend.backend()
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if engine == "onnx" and (missing or backend != "tensorflow"):
        raise EngineError(
            f"the engine onnx needs {' and '.join(missing) or 'the TensorFlow backend'}, found "
            f"{'none' if missing else backend}: pip install 'cast_lens[fast]'"
            f"{'' if missing else ' and set KERAS_BACKEND=tensorflow'}, or choose keras"
        )
    if engine != "auto":
        return engine
    sound = backend == "tensorflow" and not missing and not keras.distribution.list_devices("gpu")
    return "onnx" if sound else "keras"


def fold(model):
    """Fold batch normalization into the convolutions before it.

    Args:
        model: keras.Model of layers, and models of layers, as `networks` builds. Nothing of it
            is changed.

    Returns:
        keras.Model of the same inputs and outputs for inference. A batch normalization after a
        Conv2D or DepthwiseConv2D whose output only it uses is gone; any other is there still.
    """
    pairs = list(_pairs(model))
    convolutions, gone = {id(conv): bn for conv, bn in pairs}, {id(bn) for _, bn in pairs}
    copies: list[tuple] = []  # (layer, its copy), which keeps every id a layer's own
    skipped = set()

    def anew(layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation, which has no weights
        biased = {"use_bias": True} if id(layer) in convolutions else {}
        copy = type(layer).from_config(layer.get_config() | biased)
        copies.append((layer, copy))
        if id(layer) in gone:
            skipped.add(id(copy))
        return copy

    def call(copy, *args, **kwargs):
        return args[0] if id(copy) in skipped else copy(*args, **kwargs)

    folded = keras.models.clone_model(
        model, clone_function=anew, call_function=call, recursive=True
    )
    for layer, copy in copies:
        if id(layer) in convolutions:
            copy.set_weights(_folded(layer, convolutions[id(layer)]))
        elif id(layer) not in gone:
            copy.set_weights(layer.get_weights())
    return folded


def logit_model(model):
    """Return the model of a network that ends before the softmax, batch normalization folded.

    Args:
        model: keras.Model whose last layer, "lens", is a softmax of "no lens" and "lens".

    Returns:
        keras.Model of the same inputs to (batch, 1), the logit of "lens".
    """
    folded = fold(model)
    kernel, bias = (x.astype(np.float64) for x in folded.get_layer("lens").get_weights())
    layer = keras.layers.Dense(1, name="logit")
    logits = keras.Model(folded.input, layer(folded.get_layer("lens").input))
    layer.set_weights([kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]])
    if keras.backend.backend() == "tensorflow":
        logits.jit_compile = False  # XLA makes convolutions on a CPU ten times slower
    return logits


def _pairs(model):
    """Yield (convolution, the batch normalization after it) where nothing else uses the former."""
    for bn in model.layers:
        if isinstance(bn, keras.Sequential):
            continue  # whose layers Keras clones without asking how to call them
        if isinstance(bn, keras.Model):
            yield from _pairs(bn)
        elif isinstance(bn, keras.layers.BatchNormalization) and len(bn._inbound_nodes) == 1:
            conv = bn.input._keras_history.operation
            if (
                isinstance(conv, _FOLDED)
                and conv.activation is keras.activations.linear
                and len(conv._inbound_nodes) == len(conv._outbound_nodes) == 1
                and conv.data_format == "channels_last"
                and bn.axis in (-1, 3)
            ):
                yield conv, bn


def _folded(conv, bn):
    """Return kernel and bias of a convolution that does what both layers did."""

    def value(variable, otherwise=0.0):
        if variable is None:
            return np.float64(otherwise)
        return keras.ops.convert_to_numpy(variable).astype(np.float64)

    kernel, scale = value(conv.kernel), value(bn.gamma, 1.0)
    scale = scale / np.sqrt(value(bn.moving_variance) + bn.epsilon)
    offset = (value(conv.bias) - value(bn.moving_mean)) * scale + value(bn.beta)
    # A depthwise kernel ends in (band, multiplier), and the bands that come out are in that order.
    is_depthwise = isinstance(conv, keras.layers.DepthwiseConv2D)
    return [kernel * (scale.reshape(kernel.shape[2:]) if is_depthwise else scale), offset]


def _onnx(network, threads):
    """Return the function of ONNX Runtime, its graph from the cache, or made and kept there."""
    identity = {
        "weights": _weights_hash(network.model), "backbone": network.backbone, "opset": _OPSET,
        "branches": list(map(str, network.branches)), "cast_lens": cast_lens.__version__,
        "keras": keras.__version__, "tf2onnx": version("tf2onnx"),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = data.cache_folder() / "onnx"
    graph, record = (folder / f"{network.name}-{key}.{end}" for end in ("onnx", "json"))
    examples = _examples(network.model)
    with run.hold(folder, patience=_WAIT):
        with contextlib.suppress(EngineError):
            if kept := _kept(graph, record, identity):
                return _session(kept, threads, examples)
        made = _export(network)
        session = _session(made, threads, examples)
        run.write_whole(graph, made)
        told = identity | {"sha256": hashlib.sha256(made).hexdigest()}
        run.write_whole(record, json.dumps(told, indent=1) + "\n")
    return session


def _kept(graph, record, identity):
    """Return the graph that was kept, or None if it is another, or not as it was written."""
    try:
        told, content = json.loads(record.read_text(encoding="utf-8")), graph.read_bytes()
    except (OSError, ValueError):
        return None
    is_ours = told == identity | {"sha256": hashlib.sha256(content).hexdigest()}
    return content if is_ours else None


def _export(network):
    """Return the graph of the logits of a network as bytes."""
    model = logit_model(network.model)
    signature = [
        {name: keras.InputSpec(shape=tensor.shape, dtype="float32", name=name)
         for name, tensor in model.input.items()}
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Keras asks NumPy for np.object, and NumPy warns.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        path = Path(folder, "network.onnx")
        try:
            model.export(path, format="onnx", verbose=False, input_signature=signature,
                         opset_version=_OPSET)  # fmt: skip
        except Exception as error:  # of Keras, TensorFlow, tf2onnx or onnx, without a common class
            raise EngineError(
                f"{network.name} could not be exported for ONNX Runtime ({_said(error)}); "
                "choose the engine keras"
            ) from error
        return path.read_bytes()


def _session(content, threads, examples):
    """Return the function of a graph that gives for examples what Keras gives; else raise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
        # Threads that wait by spinning halve the speed of everyone where processes share cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    images, wanted = examples
    try:
        # From memory, not from the path: what was verified is what runs, and no other file.
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        found = session.run(None, images)[0][:, 0]
    except Exception as error:  # of onnxruntime, without a common class
        raise EngineError(
            f"ONNX Runtime failed ({_said(error)}); choose the engine keras"
        ) from error
    if not np.allclose(found, wanted, rtol=AGREES, atol=AGREES):
        worst = np.max(np.abs(found - wanted))
        raise EngineError(
            f"ONNX Runtime gives logits that differ by up to {worst:.3g} from those of Keras, "
            f"expected at most {AGREES}; choose the engine keras"
        )
    return lambda images: session.run(None, images)[0][:, 0]


def _examples(model):
    """Return images between the bounds of the stretch, and their logits by the unfolded layers."""
    head, rng, images = model.get_layer("lens"), np.random.default_rng(0), {}
    for name, tensor in model.input.items():
        lower, upper = model.get_layer(f"clip_{name}").get_weights()
        # No constant image: its features are rounding errors, which no two engines share.
        noise = rng.random((2, *tensor.shape[1:]), np.float32)
        noise[1] *= 0.1
        images[name] = lower + noise * (upper - lower)
    features = keras.Model(model.input, head.input)(images, training=False)
    kernel, bias = (x.astype(np.float64) for x in head.get_weights())
    logits = keras.ops.convert_to_numpy(features).astype(np.float64) @ kernel + bias
    return images, logits[:, 1] - logits[:, 0]


def _checked_input(network, logits, engine):
    """Return the function of logits that checks its images first."""
    shapes = {b.name: (b.side, b.side, len(b.bands)) for b in network.branches}

    def lens(images):
        if images.keys() != shapes.keys():
            found, expected = ", ".join(images) or "none", ", ".join(shapes)
            raise ValueError(f"{network.name}: found images {found}, expected {expected}")
        arrays = {name: np.ascontiguousarray(images[name], np.float32) for name in shapes}
        n = len(next(iter(arrays.values())))
        for name, shape in shapes.items():
            if arrays[name].shape != (n, *shape):
                raise ValueError(
                    f"{network.name}: {name} is {arrays[name].shape}, expected {(n, *shape)}"
                )
        return logits(arrays) if n else np.zeros(0, np.float32)

    lens.engine = engine  # type: ignore[attr-defined]
    return lens


def _weights_hash(model):
    """Return the SHA-256 of the weights that a model has now, whatever file they came from."""
    digest = hashlib.sha256()
    for name, array in checkpoints.arrays(model.weights).items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _said(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
