"""LASTRO EPFL's network: as its authors' code has it, and as Keras has its layers by default."""

from functools import partial

import keras
from keras import ops

from cast_lens import layers
from reproductions.nottingham.settings import word

# What LASTRO's network consists of after the first two convolutions: filters, kernel side, and what
# follows: "pool" and normalization, "fade" for dropout, "norm".
CONVOLUTIONS = [
    (16, 4, ()), (16, 3, ("pool", "norm")), (32, 3, ()), (32, 3, ("pool", "norm")),
    (64, 3, ()), (64, 3, ("pool", "norm", "fade")), (128, 3, ("fade",)), (128, 3, ("norm", "fade")),
    (1024, 5, ("fade",)),
]  # fmt: skip
DENSE = [(1024, ("fade",)), (1024, ("norm",))]
LEFT_OUT = (
    0.5  # ASSUMED: dropout of the re-use, which the report does not tell; LASTRO's at its end
)


@keras.saving.register_keras_serializable("nottingham")
def unit_relu(x):
    """Return the rectifier of mean 0 and variance 1 for normal x (LASTRO's code)."""
    return (ops.relu(x) - 0.3989422804014327) * 1.712858550449663


class _Counting(keras.layers.Layer):
    """A layer that counts the training steps it has seen."""

    def build(self, input_shape):
        """Make the counter."""
        self.steps = self.add_weight((), "zeros", trainable=False, name="steps")

    def count(self):
        """Count a step, after all that it depends on was computed."""
        self.steps.assign(self.steps + 1.0)


@keras.saving.register_keras_serializable("nottingham")
class FadingDropout(_Counting):
    """Dropout that keeps 0.5 + 0.5 * 0.5^(t / 2000) of its inputs in step t (LASTRO's code).

    Args:
        seed: Non-negative integer.
        **kwargs: As keras.layers.Layer.
    """

    def __init__(self, *, seed, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.generator = seed, keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        """Return x with inputs left out if `training`."""
        if not training:
            return x
        keep = 0.5 + 0.5 * ops.power(0.5, self.steps / 2000.0)
        self.count()
        kept = keras.random.uniform(ops.shape(x), seed=self.generator) < keep
        return ops.where(kept, x / keep, 0.0)

    def get_config(self):
        """Return what makes the layer again; it will draw and count from the start."""
        return super().get_config() | {"seed": self.seed}


@keras.saving.register_keras_serializable("nottingham")
class CumulativeNormalization(_Counting):
    """Batch normalization by moments that the batch of step t moves by 0.6^(t / 1000).

    The moved moments normalize in training too, and no gradient goes through them: the code has
    them from an assignment, which TensorFlow does not differentiate.

    Reference:
        LASTRO's code, with its epsilon of 1e-3.
    """

    def build(self, input_shape):
        """Make the weights."""
        super().build(input_shape)
        bands = (input_shape[-1],)
        self.gamma = self.add_weight(bands, "ones", name="gamma")
        self.beta = self.add_weight(bands, "zeros", name="beta")
        self.mean = self.add_weight(bands, "zeros", trainable=False, name="mean")
        self.variance = self.add_weight(bands, "ones", trainable=False, name="variance")

    def call(self, x, training=False):
        """Normalize x, shape (..., band)."""
        mean, variance = self.mean, self.variance
        if training:
            share = ops.power(0.6, self.steps / 1000.0)
            self.count()
            of_batch = ops.moments(x, axes=tuple(range(len(x.shape) - 1)))
            mean, variance = (
                ops.stop_gradient((1.0 - share) * old + share * new)
                for old, new in zip((mean, variance), of_batch)
            )
            self.mean.assign(mean)
            self.variance.assign(variance)
        return (x - mean) * (self.gamma * ops.rsqrt(variance + 1e-3)) + self.beta


def lastro(images, *, seed, scaled):
    """Apply LASTRO EPFL's network as its code has it, all convolutions valid.

    Args:
        images: Shape (batch, 101, 101, band).
        seed: Of the dropout.
        scaled: "run_time" if weights have unit variance and their products are divided by
            sqrt(fan_in), or "initial" if the weights are drawn that much smaller.

    Returns:
        Sigmoid, shape (batch, 1).
    """

    def weighted(layer, x, fan_in, *arguments, **options):
        deviation = 1.0 if scaled == "run_time" else fan_in**-0.5
        if scaled == "run_time":
            x = keras.layers.Rescaling(fan_in**-0.5)(x)
        drawn = keras.initializers.RandomNormal(stddev=deviation)
        return layer(*arguments, kernel_initializer=drawn, **options)(x)

    def following(kind, name, number):
        if kind == "norm":
            return CumulativeNormalization(name=name)
        if kind == "fade":
            return FadingDropout(seed=word(seed, number), name=name)
        scale = keras.initializers.Constant(0.83), keras.initializers.Constant(-0.92)
        one_a_band = keras.layers.DepthwiseConv2D(
            1, depthwise_initializer=scale[0], bias_initializer=scale[1], name=name
        )
        return lambda x: one_a_band(keras.layers.MaxPooling2D()(x))

    def convolution(x, filters, side, name):
        fan_in = side * side * x.shape[-1]
        options = {"activation": unit_relu, "name": name}
        return weighted(keras.layers.Conv2D, x, fan_in, filters, side, **options)

    def dense(x, units, activation, name):
        options = {"activation": activation, "name": name}
        return weighted(keras.layers.Dense, x, x.shape[-1], units, **options)

    x = _stacked(images, convolution, partial(dense, activation=unit_relu), following)
    return dense(x, 1, "sigmoid", name="lens")


def _stacked(x, convolution, dense, following):
    """Apply the layers of `CONVOLUTIONS` and `DENSE`, each under a name of its own.

    Keras numbers the layers that have no name through a process, and a training that goes on in
    another would not find the state of its optimizer.
    """
    for number, (filters, side, kinds) in enumerate(CONVOLUTIONS, 1):
        x = convolution(x, filters, side, name=f"convolution_{number}")
        for kind in kinds:
            x = following(kind, f"{kind}_{number}", number)(x)
    x = keras.layers.Flatten()(x)  # (batch, 1024)
    for number, (units, kinds) in enumerate(DENSE, 1 + len(CONVOLUTIONS)):
        x = dense(x, units, name=f"dense_{number}")
        for kind in kinds:
            x = following(kind, f"{kind}_{number}", number)(x)
    return x


def lastro_keras(images):
    """Apply the layers that Metcalf et al. (2019) list, each as Keras has it by default."""
    plain = {
        "pool": keras.layers.MaxPooling2D,
        "norm": layers.BatchNormalization,
        "fade": partial(keras.layers.Dropout, LEFT_OUT),
    }
    x = _stacked(
        images,
        lambda x, *sizes, name: keras.layers.Conv2D(*sizes, activation="relu", name=name)(x),
        lambda x, units, name: keras.layers.Dense(units, "relu", name=name)(x),
        lambda kind, name, _: plain[kind](name=name),
    )
    return keras.layers.Dense(1, "sigmoid", name="lens")(x)
