"""What one process of `make bench-gpu` does: build one network, train and predict, tell the speed.

`python -m tests.benchmarks.gpu_steps JSON`, the JSON being a `Configuration` of bench_gpu. Whatever
is measured waits for a line on standard input, so that several processes begin together; what was
found goes to standard output, one JSON a line. Keras goes the way of a training: images on the
device, batches in their shuffled order, clip, one similarity transform an object, RAdam. timm does
the same work in a loop of PyTorch's own.
"""

import collections
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

WINDOWS = 5  # of which the median is told, with the extremes
WARM = 3  # steps before them: compiling, memory, autotuning
AHEAD = 8  # steps that the host may be ahead of the device
BATCHES_OF_DATA = 4  # on the device, of objects that are different
COPIES = 50  # between two readings of the clock, which cost as much as one
ENDLESS = 10**6  # steps, of which the windows end the last
# {network: (variant, {branch: height, width, bands})}; VIS comes in one band and is repeated.
NETWORKS = {
    "two_branch_b2": ("b2", {"vis": (200, 200, 1), "nir": (66, 66, 3)}),
    "b0": ("b0", {"ground": (101, 101, 3)}),
    "smallest": ("smallest", {"vis": (20, 20, 1), "nir": (12, 12, 3)}),
}
ROTATION, ZOOM = 180.0, (0.8, 1.2)  # Bom et al. (2022), Sec. 4.1
LOWER, UPPER = -2.0, 2.0  # of noise of standard deviation 1
TIMM = {"b2": "efficientnet_b2", "b0": "efficientnet_b0", "smallest": "test_efficientnet"}


def main(configuration):
    """Measure one configuration; what goes wrong is told as a row of its own kind."""
    try:
        measure = timm_steps if configuration["backend"] == "timm" else keras_steps
        measure(configuration)
    except Exception as error:  # every backend has its own for a full device
        tell(stage="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(1)


def tell(**found):
    """Write one line for the process that asked."""
    print(json.dumps(found), flush=True)


def wait():
    """Wait until all processes of a configuration may go on."""
    if not sys.stdin.readline():
        sys.exit("the benchmark was ended")


class Windows:
    """Counts objects in windows of time, after the first steps.

    Args:
        work: "training" or "predicting".
        batch: Objects in a step.
        seconds: Length of all windows.
        settle: Function of what a step returned that waits until the device has done it, and
            returns a number that has to be finite.
        memory: Function that returns the peak memory in bytes.

    Attributes:
        done: Whether all windows are over.
    """

    def __init__(self, work, batch, seconds, settle, memory):
        self.work, self.batch, self.seconds = work, batch, seconds / WINDOWS
        self.settle, self.memory = settle, memory
        self.pending = collections.deque()
        self.rates, self.first, self.is_warm, self.done = [], None, False, False
        self._begin()

    def step(self, result):
        """Take note of a step."""
        self.steps += 1
        self.pending.append(result)
        if self.is_warm and time.perf_counter() - self.begun < self.seconds:
            if len(self.pending) > AHEAD:
                self._wait(self.pending.popleft())
            return
        self._wait(result)
        self.pending.clear()
        if self.is_warm:
            self.rates.append(self.steps * self.batch / (time.perf_counter() - self.begun))
            self._begin()
        elif self.steps == 1:
            self.first = time.perf_counter() - self.begun
        elif self.steps == WARM:
            tell(stage="warm", work=self.work)
            wait()
            self.is_warm = True
            self._begin()
        if len(self.rates) == WINDOWS:
            self.done = True
            tell(stage="measured", work=self.work, rates=self.rates, first=self.first,
                 peak=self.memory())  # fmt: skip

    def _wait(self, result):
        found = self.settle(result)
        if not math.isfinite(found):
            raise ArithmeticError(f"{self.work} gives {found}: the speed of that says nothing")

    def _begin(self):
        self.steps, self.begun = 0, time.perf_counter()


def keras_steps(c):
    """Train and predict under one of Keras's backends, as a paper does."""
    import keras

    from cast_lens import dataset, device_arrays, optimizers, precision

    shapes, batch = NETWORKS[c["network"]][1], c["batch"]
    about = DEVICES[c["backend"]]()
    check_device(about, c)
    model = build(c["network"])
    activations = count(model)
    if c["network"] == "two_branch_b2":  # the paper's own: what it compiles, no training needs to
        model = headline(shapes)
    if c["precision"] == "bfloat16":
        precision.use_bfloat16(model)
    model.compile(optimizers.RAdam(), "sparse_categorical_crossentropy", jit_compile=c["compiled"])
    if model.jit_compile != c["compiled"]:
        raise ValueError("XLA lacks a kernel that this backend's augmentation uses")
    n = batch * BATCHES_OF_DATA
    arrays = device_arrays.put(Noise(n, shapes), np.arange(n), inputs=list(shapes))
    tell(stage="ready", device=about.name, software=about.software, activations=activations)
    wait()
    if c["folds"] == 1:
        x = keras.ops.ones((c["copied"],), "float32")
        tell(stage="copied", bandwidth=bandwidth(lambda: x + 1, lambda y: float(y[0]), c["copied"]))
        del x
    options = {"inputs": list(shapes), "batch_size": batch, "seed": 0, "fold": 0}
    for work in WORKS:
        batches = dataset.from_pack(arrays, np.arange(n), shuffle=work == "training", **options)
        fed = dataset.feed(batches, first_epoch=0, repeat=True)
        windows = Windows(work, batch, c["seconds"], SETTLE[work], about.memory)
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=partial(noted, windows, model),
            on_predict_batch_end=partial(noted, windows, model),
        )
        settings = {"verbose": 0, "callbacks": [callback]}
        if work == "training":
            model.fit(fed, steps_per_epoch=ENDLESS, shuffle=False, **settings)
        else:
            model.predict(fed, steps=ENDLESS, **settings)


def noted(windows, model, step, logs):
    """Take note of a step of Keras, and end the training or prediction after the last."""
    windows.step(logs)
    model.stop_training = model.stop_predicting = windows.done


def build(name):
    """Build the network: clip, transform, trunks, softmax of two."""
    import keras

    from cast_lens import augment, stretch

    variant, shapes = NETWORKS[name]
    inputs = {branch: keras.Input(shape, name=branch) for branch, shape in shapes.items()}
    images = {b: stretch.Clip(LOWER, UPPER, name=f"clip_{b}")(x) for b, x in inputs.items()}
    images = augment.RandomSimilarity(
        rotation=ROTATION, mirror=True, zoom=ZOOM, fill="nearest", seed=0
    )(images)
    features = []
    for branch, x in images.items():
        if x.shape[-1] == 1:
            x = keras.layers.Concatenate()([x] * 3)
        features.append(trunk(variant, f"trunk_{branch}", x.shape[1:])(x))
    features = [keras.layers.GlobalAveragePooling2D()(x) for x in features]
    joined = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(joined))


def headline(shapes):
    """Build the network of Bom et al. (2022) that their headline is of."""
    from reproductions.sglc2 import network, settings

    model = network.build_model(settings.config_of(settings.HEADLINE, {"initial": "random"}), 0)
    bands = {branch: shape[-1] for branch, shape in shapes.items()}
    network.set_bounds(model, {b: (np.full(n, LOWER), np.full(n, UPPER)) for b, n in bands.items()})
    return model


def trunk(variant, name, shape):
    """Build a trunk; "smallest" is a convolution that takes no time to compile."""
    import keras

    from cast_lens import backbones, layers

    if variant != "smallest":
        return backbones.efficient_net(variant, name=name, shape=shape, weights=None)
    images = keras.Input(shape)
    x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(images)
    x = keras.layers.Activation(layers.swish)(layers.BatchNormalization()(x))
    return keras.Model(images, x, name=name)


def count(model):
    """Return the numbers that all convolutions and dense layers put out for one object."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    found = [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]
    return sum(math.prod(layer.output.shape[1:]) for layer in found)


class Noise:
    """A pack of noise of standard deviation 1; the speed does not depend on what is seen."""

    def __init__(self, n, shapes):
        import pandas as pd

        self.shapes = shapes
        ids = [str(k) for k in range(n)]
        self.catalog = pd.DataFrame({"object_id": ids, "label": np.arange(n) % 2})

    def batch(self, name, positions):
        """Draw images, shape (batch, height, width, band)."""
        rng = np.random.default_rng(0)
        return rng.standard_normal((len(positions), *self.shapes[name]), np.float32)


def bandwidth(copy, settle, n):
    """Return the bytes a second of a copy of `n` float32, read and written; the best of five."""
    settle(copy())
    found = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(COPIES):
            copied = copy()
        settle(copied)
        found.append(COPIES * 2 * 4 * n / (time.perf_counter() - start))
    return max(found)


def timm_steps(c):
    """Train and predict with timm's network, in PyTorch's own loop."""
    import timm
    import torch

    shapes, batch = NETWORKS[c["network"]][1], c["batch"]
    about = DEVICES["torch"]()
    check_device(about, c)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = batch * BATCHES_OF_DATA
    noise = Noise(n, shapes)
    images = {
        name: torch.from_numpy(noise.batch(name, np.arange(n)).transpose(0, 3, 1, 2))
        .to(device).contiguous(memory_format=torch.channels_last) for name in shapes
    }  # fmt: skip
    labels = torch.arange(n, device=device) % 2
    model = timm_network(c["network"]).to(device, memory_format=torch.channels_last)
    activations = timm_count(model, {name: x[:2] for name, x in images.items()})
    software = f"{about.software}, timm {timm.__version__}"
    tell(stage="ready", device=about.name, software=software, activations=activations)
    wait()
    if c["folds"] == 1:
        x = torch.ones(c["copied"], device=device)
        tell(stage="copied", bandwidth=bandwidth(lambda: x + 1, lambda y: float(y[0]), c["copied"]))
        del x
    network = torch.compile(model) if c["compiled"] else model
    optimizer = torch.optim.RAdam(model.parameters(), lr=1e-3)
    amp = partial(torch.autocast, device, torch.bfloat16, enabled=c["precision"] == "bfloat16")

    def train(chosen):
        with torch.no_grad():
            turned = timm_images(images, chosen, turn=True)
        with amp():
            logits = network(turned)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def predict(chosen):
        with torch.no_grad(), amp():
            return network(timm_images(images, chosen, turn=False)).float().softmax(1)

    for work in WORKS:
        model.train(work == "training")
        windows = Windows(work, batch, c["seconds"], lambda x: x.flatten()[0].item(), about.memory)
        step = train if work == "training" else predict
        while not windows.done:
            for chosen in torch.randperm(n, device=device).split(batch):
                if not windows.done:
                    windows.step(step(chosen))


def timm_network(name):
    """Build timm's network in the same form: trunks, pooled features, one dense layer."""
    import timm
    import torch

    variant, shapes = NETWORKS[name]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunks = torch.nn.ModuleDict(
                {
                    branch: timm.create_model(TIMM[variant], num_classes=0, drop_path_rate=0.2)
                    for branch in shapes
                }
            )
            features = sum(trunk.num_features for trunk in self.trunks.values())
            self.head = torch.nn.Linear(features, 2)

        def forward(self, images):
            found = [trunk(images[branch]) for branch, trunk in self.trunks.items()]
            return self.head(torch.cat(found, 1))

    return Network()


def timm_images(images, chosen, *, turn):
    """Gather, clip and, to train, transform: one similarity an object, by PyTorch's own sampler."""
    import torch

    found = {name: x[chosen].clamp(LOWER, UPPER) for name, x in images.items()}
    found = {name: (x - LOWER) / (UPPER - LOWER) for name, x in found.items()}
    if turn:
        draw = torch.rand(4, len(chosen), device=chosen.device)
        angle = (2 * draw[0] - 1) * math.radians(ROTATION)
        scale = 1 / (ZOOM[0] + (ZOOM[1] - ZOOM[0]) * draw[1])
        signs = torch.where(draw[2:] < 0.5, -1.0, 1.0)
        cosine, sine, none = scale * angle.cos(), scale * angle.sin(), torch.zeros_like(angle)
        rows = [signs[0] * cosine, -signs[0] * sine, none, signs[1] * sine, signs[1] * cosine, none]
        matrices = torch.stack(rows, 1).reshape(-1, 2, 3)
        for name, x in found.items():
            grid = torch.nn.functional.affine_grid(matrices, x.shape, align_corners=False)
            found[name] = torch.nn.functional.grid_sample(
                x, grid, padding_mode="border", align_corners=False
            )
    found = {name: x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x for name, x in found.items()}
    return {name: x.contiguous(memory_format=torch.channels_last) for name, x in found.items()}


def timm_count(model, images):
    """Return what `count` returns, of a network of PyTorch."""
    import torch

    sizes, hooks = [], []
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            hooks.append(module.register_forward_hook(
                lambda _, __, out: sizes.append(out[0].numel())
            ))  # fmt: skip
    with torch.no_grad():
        both = torch.arange(2, device=next(model.parameters()).device)
        model.eval()(timm_images(images, both, turn=False))
    for hook in hooks:
        hook.remove()
    return sum(sizes)


@dataclass(frozen=True)
class Device:
    """What a backend computes on.

    Attributes:
        name: As the backend says.
        is_gpu: Whether it is one.
        software: Versions.
        memory: Function that returns the peak memory in bytes, of the process if there is no GPU.
    """

    name: str
    is_gpu: bool
    software: str
    memory: Callable[[], int]


def jax_device():
    """Return the Device of JAX."""
    import jax
    import keras

    device = jax.devices()[0]
    is_gpu = device.platform != "cpu"

    def memory():
        return device.memory_stats()["peak_bytes_in_use"] if is_gpu else resident()

    software = f"jax {jax.__version__}, keras {keras.__version__}"
    return Device(device.device_kind, is_gpu, software, memory)


def torch_device():
    """Return the Device of PyTorch."""
    import torch

    is_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if is_gpu else "cpu"
    memory = torch.cuda.max_memory_allocated if is_gpu else resident
    with_keras = f", keras {sys.modules['keras'].__version__}" if "keras" in sys.modules else ""
    return Device(name, is_gpu, f"torch {torch.__version__}{with_keras}", memory)


def tensorflow_device():
    """Return the Device of TensorFlow."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"

    def memory():
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else resident()

    software = f"tensorflow {tf.__version__}, keras {keras.__version__}"
    return Device(name, bool(gpus), software, memory)


def resident():
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_device(about, c):
    """Refuse a CPU, which would take hours, unless it was asked for."""
    if not (about.is_gpu or c["network"] == "smallest"):
        raise RuntimeError(f"{about.software} sees no GPU here")


DEVICES = {"jax": jax_device, "torch": torch_device, "tensorflow": tensorflow_device}
# Predicting first: the peak memory of JAX cannot be set back.
WORKS = ("predicting", "training")
SETTLE = {
    "predicting": lambda logs: np.asarray(to_host(logs["outputs"])).ravel()[0],
    "training": lambda logs: float(logs["loss"]),
}


def to_host(tensor):
    """Return a tensor as an array, once the device has it."""
    import keras

    return keras.ops.convert_to_numpy(keras.tree.flatten(tensor)[0])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
