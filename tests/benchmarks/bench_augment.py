"""Objects a second of stretch and augmentation, pixels a second of percentiles, on this CPU.

A batch is 64 objects of two branches, VIS 200x200x1 and NIR 66x66x3. Each layer is alone in a
compiled model; "pass" is what the call of such a model costs.
"""

import statistics
import time

import keras
import numpy as np
import scipy.ndimage
from keras import ops

from cast_lens import augment, pixel_statistics, stretch

BATCH, TURNS, REPEATED = 64, 7, 4
SHAPES = {"vis": (200, 200, 1), "nir": (66, 66, 3)}
PERCENTS = [0.1, 98, 99]
SIMILARITY = {"rotation": 180, "mirror": True, "zoom": (0.8, 1.2), "fill": "nearest", "seed": 0}


def clip(branches):
    """Clip every branch at constants of its own."""
    return {name: stretch.Clip(-1.0, 2.0)(branch) for name, branch in branches.items()}


def standardize(branches):
    """Standardize every branch by each image's own moments."""
    layer = stretch.StandardizeImage(per_band=True, epsilon=0.0)
    return {name: layer(branch) for name, branch in branches.items()}


LAYERS = {
    "pass": lambda branches: keras.tree.map_structure(keras.layers.Identity(), branches),
    "clip": clip,
    "standardize_image": standardize,
    "gain_offset": augment.RandomGainOffset(gain=(0.8, 1.2), offset=(-0.1, 0.1), seed=0),
    "dihedral": augment.RandomDihedral(seed=0),
    "similarity": augment.RandomSimilarity(**SIMILARITY),
}


class Training(keras.layers.Layer):
    """Apply a layer as in training, which prediction would turn off."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, branches):
        return self.layer(branches, training=True)


def model(layer):
    """Build the model that applies `layer` as in training."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in SHAPES.items()}
    layer = Training(layer) if isinstance(layer, keras.layers.Layer) else layer
    built = keras.Model(inputs, layer(inputs))
    # XLA slows TensorFlow down on a CPU; JAX is nothing without it.
    built.compile(jit_compile=keras.backend.backend() == "jax")
    return built


def by_scipy(images):
    """Rotate every band of every image, as the generator of Keras 2 does."""
    matrix = np.array([[0.8, -0.6], [0.6, 0.8]])
    for image in images.values():
        for band in image.reshape(-1, *image.shape[1:3]):  # the right number, of any pixels
            scipy.ndimage.affine_transform(band, matrix, order=1, mode="nearest")


def per_second(count, functions):
    """Run functions in turn; return `count` a second of every turn of each."""
    rates = {name: [] for name in functions}
    for turn in range(TURNS + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:  # the first pays for tracing
                rates[name].append(count / (time.perf_counter() - start))
    return rates


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return {"name": name, "value": middle, "low": low, "high": high, "unit": unit}


def ratios(above, below):
    """Return the ratio of every turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def rows():
    """Measure everything; return rows with name, value (the median), low, high and unit."""
    rng = np.random.default_rng(0)
    images = {
        name: rng.normal(size=(BATCH, *shape)).astype(np.float32) for name, shape in SHAPES.items()
    }
    tensors = {name: ops.convert_to_tensor(image) for name, image in images.items()}
    models = {name: model(layer) for name, layer in LAYERS.items()}
    functions = {
        name: lambda built=built: built.predict_on_batch(tensors) for name, built in models.items()
    }
    objects = per_second(BATCH, functions | {"scipy": lambda: by_scipy(images)})
    vis = [images["vis"]] * REPEATED
    several = per_second(
        REPEATED * vis[0].size,
        {
            "exact": lambda: pixel_statistics.percentiles(lambda: vis, PERCENTS),
            "numpy": lambda: np.percentile(np.concatenate(vis), PERCENTS),
        },
    )
    faster = ratios(objects["similarity"], objects["scipy"])
    return [
        *(row(f"augment_{name}", rates, "objects a second") for name, rates in objects.items()),
        row("augment_similarity_over_scipy", faster, "ratio of speeds"),
        row("percentiles", [rate / 1e6 for rate in several["exact"]], "million pixels a second"),
        row(
            "percentiles_over_numpy", ratios(several["exact"], several["numpy"]), "ratio of speeds"
        ),
    ]


if __name__ == "__main__":
    for each in rows():
        numbers = "".join(f"{each[key]:>12.4g}" for key in ("low", "value", "high"))
        print(f"{each['name']:<32}{numbers} {each['unit']}")
