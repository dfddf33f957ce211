"""One random transform an object, the same on the sky for all its bands and branches.

The layers take one tensor of images, shape (batch, height, width, band), or a dict or list of such
branches, draw once for every object, and act in training only. What they do to flux, and outside
the image, is told in resampling; the images of all branches must be centered on the same point.
"""

import keras
import numpy as np
from keras import ops

from cast_lens import resampling


@keras.saving.register_keras_serializable("cast_lens")
class RandomSimilarity(keras.layers.Layer):
    """Rotate, mirror and zoom every object at random, in one interpolation.

    Args:
        rotation: Largest angle in degrees, in [0, 180]; angles are uniform in +-`rotation`.
        mirror: Whether each of the two axes is mirrored with probability 1/2.
        zoom: Smallest and largest zoom, positive; uniform between; above 1 magnifies.
        fill: What lies outside the image: "nearest", "reflect" or a number, see resampling.
        seed: Non-negative integer.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Bom et al. (2022), Sec. 4.1 (any angle, zoom 0.8 to 1.2); Gabe (2022), Sec. 3.2 (90 degrees,
        zoom 0.6 to 1.4). Neither says how the outside is filled.
    """

    def __init__(self, *, rotation, mirror, zoom, fill, seed, **kwargs):
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation is {rotation}, expected degrees in [0, 180]")
        if len(zoom) != 2 or not 0 < zoom[0] <= zoom[1] < np.inf:
            raise ValueError(f"zoom is {zoom}, expected two positive numbers, the smaller first")
        resampling.check_fill(fill)
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.rotation, self.mirror, self.zoom, self.fill = rotation, mirror, tuple(zoom), fill
        self.seed, self.generator = seed, keras.random.SeedGenerator(seed)
        # XLA lacks the kernel that TensorFlow has for `resample`.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, branches, training=False):
        """Return the branches, transformed if `training`."""
        if not training:
            return branches
        matrices = resampling.similarities(
            _batch_size(branches),
            rotation=self.rotation,
            mirror=self.mirror,
            zoom=self.zoom,
            seed=self.generator,
        )
        return keras.tree.map_structure(
            lambda images: resampling.resample(images, matrices, fill=self.fill), branches
        )

    def get_config(self):
        """Return what makes the layer again; it will draw from the start."""
        settings = {"rotation": self.rotation, "mirror": self.mirror, "zoom": list(self.zoom)}
        return super().get_config() | settings | {"fill": self.fill, "seed": self.seed}


@keras.saving.register_keras_serializable("cast_lens")
class RandomDihedral(keras.layers.Layer):
    """Give every object one of its eight dihedral images at random, pixel for pixel.

    Args:
        seed: Non-negative integer.
        **kwargs: As keras.layers.Layer.

    Reference:
        Schaefer et al. (2018); Saied, Syvis & Crettenand (2019), Sec. III.B.
    """

    def __init__(self, *, seed, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.seed, self.generator = seed, keras.random.SeedGenerator(seed)

    def call(self, branches, training=False):
        """Return the branches, turned if `training`."""
        if not training:
            return branches
        shape = (_batch_size(branches),)
        elements = keras.random.randint(shape, 0, resampling.ELEMENTS, seed=self.generator)
        return keras.tree.map_structure(lambda x: resampling.dihedral(x, elements), branches)

    def get_config(self):
        """Return what makes the layer again; it will draw from the start."""
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable("cast_lens")
class RandomGainOffset(keras.layers.Layer):
    """Multiply every object by a random gain and add a random offset to it, after the stretch.

    Args:
        gain: Smallest and largest factor; uniform between.
        offset: Smallest and largest addend, in the unit of the stretched images; uniform between.
        seed: Non-negative integer.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If a pair is not two numbers, the smaller first.

    Reference:
        Schaefer et al. (2018), code: gain 0.8 to 1.2 and offset -0.1 to 0.1.
    """

    def __init__(self, *, gain, offset, seed, **kwargs):
        for name, pair in (("gain", gain), ("offset", offset)):
            if len(pair) != 2 or not pair[0] <= pair[1]:
                raise ValueError(f"{name} is {pair}, expected two numbers, the smaller first")
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.gain, self.offset, self.seed = tuple(gain), tuple(offset), seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, branches, training=False):
        """Return the branches, changed if `training`."""
        if not training:
            return branches
        shape = (_batch_size(branches), 1, 1, 1)
        gain = keras.random.uniform(shape, *self.gain, seed=self.generator)
        offset = keras.random.uniform(shape, *self.offset, seed=self.generator)
        return keras.tree.map_structure(lambda x: x * gain + offset, branches)

    def get_config(self):
        """Return what makes the layer again; it will draw from the start."""
        settings = {"gain": list(self.gain), "offset": list(self.offset), "seed": self.seed}
        return super().get_config() | settings


def dihedral_mean(model, branches):
    """Score all eight dihedral images of every object and average the scores.

    Args:
        model: keras.Model, or any function from `branches` to scores, that does not train.
        branches: Images, shape (batch, size, size, band), or a dict or list of such branches.

    Returns:
        Mean score, NumPy float64, of the shape of the model's output.
    """
    return np.mean(_dihedral_scores(model, branches), axis=0)


def dihedral_product(model, branches):
    """Score all eight dihedral images of every object and multiply the scores.

    The order of objects can differ from that of the mean, and a threshold t becomes t^8.

    Args:
        model: As for `dihedral_mean`.
        branches: As for `dihedral_mean`.

    Returns:
        Product of the scores, NumPy float64, of the shape of the model's output: eight float32
        probabilities as small as 1e-38 do not multiply to 0.

    Reference:
        Schaefer et al. (2018), code.
    """
    return np.prod(_dihedral_scores(model, branches), axis=0)


def _dihedral_scores(model, branches):
    score = model.predict_on_batch if isinstance(model, keras.Model) else model
    n = len(keras.tree.flatten(branches)[0])
    scores = []
    for element in range(resampling.ELEMENTS):
        elements = np.full(n, element)
        turned = keras.tree.map_structure(
            lambda images, e=elements: resampling.dihedral(images, e), branches
        )
        scores.append(ops.convert_to_numpy(score(turned)))
    return np.array(scores, np.float64)


def _batch_size(branches):
    return ops.shape(keras.tree.flatten(branches)[0])[0]
