"""From flux to the range a network learns in, as Keras layers, the first of every model.

They work in float32 under any dtype policy (a flux of 1e-12 is 0 in float16), treat every object
by itself, and give 0 for an image or a band without contrast, never 0/0. Constants of the training
set are weights that are not trained, so that the weights alone are a working network; they come
from pixel_statistics. keras.layers.Normalization will not do for fluxes: it takes a standard
deviation below 1e-7 for 1e-7.
"""

import keras
import numpy as np
from keras import ops


class _SetConstants(keras.layers.Layer):
    """What layers share whose constants are weights, each of shape (bands,)."""

    def __init__(self, constants, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.constants = constants

    def build(self, input_shape):
        """Make the weights."""
        bands = (input_shape[-1],)
        for name, value in self.constants.items():
            value = np.float32(np.nan if value is None else value)
            if value.shape not in ((), (1,), bands):
                found = f"{name} of shape {value.shape} for images of {bands[0]} bands"
                raise ValueError(f"{self.name}: found {found}, expected one number, or one a band")
            initializer = keras.initializers.Constant(np.broadcast_to(value, bands))
            weight = self.add_weight(bands, initializer, trainable=False, name=name)
            setattr(self, name, weight)

    def get_config(self):
        """Return what makes the layer again, with the constants that it has now."""
        config = super().get_config()
        for name, value in self.constants.items():
            value = ops.convert_to_numpy(getattr(self, name).value) if self.built else value
            missing = value is None or np.isnan(value).any()
            config[name] = None if missing else np.asarray(value).tolist()
        return config


@keras.saving.register_keras_serializable("cast_lens")
class Clip(_SetConstants):
    """Clip every band at two fluxes and map these to 0 and 1; a band with equal fluxes becomes 0.

    Args:
        lower: Flux that becomes 0, a number or one a band, in the unit of the images; None if it
            will come with the weights: until then all is NaN.
        upper: Flux that becomes 1, likewise, not below `lower`.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If a lower flux is above the upper one.

    Reference:
        Bom et al. (2022), Sec. 2.2, for the percentiles 0.1 and 98, or 0.1 and 99.
    """

    def __init__(self, lower, upper, **kwargs):
        if lower is not None and upper is not None and np.any(np.greater(lower, upper)):
            raise ValueError(f"lower is {lower}, expected at most upper, which is {upper}")
        super().__init__({"lower": lower, "upper": upper}, **kwargs)

    def call(self, images):
        """Map images, shape (batch, height, width, band), to [0, 1]."""
        span = self.upper - self.lower
        images = ops.minimum(ops.maximum(images, self.lower), self.upper)
        return (images - self.lower) / ops.where(ops.equal(span, 0), 1.0, span)


@keras.saving.register_keras_serializable("cast_lens")
class Standardize(_SetConstants):
    """Subtract a mean and divide by a standard deviation that are the same for every object.

    Args:
        mean: A number or one a band, in the unit of the images; None if it will come with the
            weights: until then all is NaN.
        std: Likewise, at least 0; a band with 0 has the mean subtracted, no more.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If a standard deviation is negative.

    Reference:
        Schaefer et al. (2018) for fixed numbers; Gabe (2022), Eq. 12, for those of all pixels.
    """

    def __init__(self, mean, std, **kwargs):
        if std is not None and np.any(np.less(std, 0)):
            raise ValueError(f"std is {std}, expected no negative number")
        super().__init__({"mean": mean, "std": std}, **kwargs)

    def call(self, images):
        """Standardize images, shape (batch, height, width, band)."""
        std = ops.convert_to_tensor(self.std)
        return (images - self.mean) / ops.where(ops.equal(std, 0), 1.0, std)


@keras.saving.register_keras_serializable("cast_lens")
class Asinh(_SetConstants):
    """Compress by asinh(flux / softening): linear well below the softening, logarithmic above.

    Args:
        softening: Positive flux, a number or one a band, in the unit of the images, such as the
            noise of a pixel; None if it will come with the weights: until then all is NaN.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If a softening is not positive.

    Reference:
        Lupton, Gunn & Szalay (1999), AJ 118, 1406.
    """

    def __init__(self, softening, **kwargs):
        if softening is not None and np.any(np.less_equal(softening, 0)):
            raise ValueError(f"softening is {softening}, expected positive numbers")
        super().__init__({"softening": softening}, **kwargs)

    def call(self, images):
        """Compress images, shape (batch, height, width, band)."""
        return ops.arcsinh(images / self.softening)


class _ImageConstants(keras.layers.Layer):
    """What layers share that take their constants from the image itself."""

    def __init__(self, per_band, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.per_band = per_band

    def unit_range(self, images):
        """Return the images in [0, 1], max - min (1 where that is 0), and the axes of an image."""
        axes = (1, 2) if self.per_band else (1, 2, 3)
        lowest = ops.min(images, axis=axes, keepdims=True)
        span = ops.max(images, axis=axes, keepdims=True) - lowest
        span = ops.where(ops.equal(span, 0), 1.0, span)
        return (images - lowest) / span, span, axes

    def get_config(self):
        """Return what makes the layer again."""
        return super().get_config() | {"per_band": self.per_band}


@keras.saving.register_keras_serializable("cast_lens")
class MinMaxImage(_ImageConstants):
    """Scale every image to [0, 1] by its own extremes; an image without contrast becomes 0.

    Args:
        per_band: Whether every band has its own extremes, or all share one pair, which keeps
            the colors.
        **kwargs: As keras.layers.Layer.
    """

    def __init__(self, *, per_band, **kwargs):
        super().__init__(per_band, **kwargs)

    def call(self, images):
        """Scale images, shape (batch, height, width, band)."""
        return self.unit_range(images)[0]


@keras.saving.register_keras_serializable("cast_lens")
class StandardizeImage(_ImageConstants):
    """Subtract every image's own mean and divide by its own standard deviation + epsilon.

    An image without contrast becomes exactly 0, and no square leaves the range of float32: the
    image is brought to [0, 1] first (the mean of equal float32 numbers need not be that number).

    Args:
        per_band: Whether every band has its own mean and standard deviation (divided by the
            number of pixels), or all share one pair.
        epsilon: Added to the standard deviation, at least 0, in the unit of the images.
        **kwargs: As keras.layers.Layer.

    Raises:
        ValueError: If `epsilon` is negative.

    Reference:
        Aryal (2025), Secs. 2.2.1 and 3.2.1: every band; the code of it: all together, and 1e-8.
    """

    def __init__(self, *, per_band, epsilon, **kwargs):
        if not epsilon >= 0:
            raise ValueError(f"epsilon is {epsilon}, expected a number >= 0")
        super().__init__(per_band, **kwargs)
        self.epsilon = epsilon

    def call(self, images):
        """Standardize images, shape (batch, height, width, band)."""
        images, span, axes = self.unit_range(images)
        images = images - ops.mean(images, axis=axes, keepdims=True)
        std = ops.sqrt(ops.mean(ops.square(images), axis=axes, keepdims=True))
        return images / (ops.where(ops.equal(std, 0), 1.0, std) + self.epsilon / span)

    def get_config(self):
        """Return what makes the layer again."""
        return super().get_config() | {"epsilon": self.epsilon}
