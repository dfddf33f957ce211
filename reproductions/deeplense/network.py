"""Secs. 2.2.2 and 3.2.2, the network: blocks of one convolution each, and a head of two layers."""

from functools import partial

import keras
from keras import ops

from cast_lens import augment, backbones, layers, optimizers, stretch
from reproductions.deeplense.settings import CLASSES

CHANNELS = 3  # Sec. 2.2.2; the one channel of Task 1 is repeated (authors' code)
EPSILON = 1e-8  # authors' code: added to the standard deviation of an image


def build_model(config, n_bands, seed):
    """Build the network, from images in the unit of the survey to logits.

    Args:
        config: The Config.
        n_bands: Channels of the images.
        seed: Of the random turns, where there are some.

    Returns:
        keras.Model from {"image": (batch, side, side, n_bands)} to (batch, classes); initial
        weights come from Keras's own seed.
    """
    images = keras.Input((config.side, config.side, n_bands), name="image")
    x = normalization(config)(images)
    if config.dihedral:
        x = augment.RandomDihedral(seed=seed)(x)
    if n_bands < CHANNELS:
        x = keras.layers.Concatenate(name="repeated")([x] * CHANNELS)
    if config.body == "plain":
        for n, filters in enumerate(config.filters, 1):
            x = block(config, filters, n)(x)
        x = keras.layers.Flatten(name="flat")(
            x
        )  # 4096, 8192 or, in the authors' code, 20736 numbers
        x = dense(config, config.hidden, x.shape[-1], "hidden")(x)
        x = keras.layers.Dropout(config.head_dropout)(keras.layers.ReLU()(x))
    else:
        x = backbones.residual(
            x, config.filters, convolution=partial(convolution, config),
            batch_normalization=partial(batch_normalization, config),
        )  # fmt: skip
        x = keras.layers.GlobalAveragePooling2D()(x)
    logits = dense(config, len(CLASSES[config.task]), x.shape[-1], "logits")(x)
    return keras.Model({"image": images}, logits)


def normalization(config):
    """Return the first layer: one mean a channel of the training set, or those of each image."""
    if config.normalization == "survey":
        return stretch.Standardize(None, None, name="standardize")
    # One channel repeated has the moments of that channel, so the order does not matter.
    return stretch.StandardizeImage(per_band=False, epsilon=EPSILON, name="standardize")


def block(config, filters, number):
    """Return one block: convolution, batch normalization, ReLU, pooling and dropout."""

    def apply(x):
        x = convolution(config, filters, x.shape[-1], f"conv{number}")(x)
        x = batch_normalization(config, f"norm{number}")(x) if config.batch_norm else x
        # The largest of rectified numbers is the rectified largest, from a quarter of the work.
        x = keras.layers.ReLU()(keras.layers.MaxPooling2D(2)(x))
        whole_maps = config.dropped == "maps"
        kind = keras.layers.SpatialDropout2D if whole_maps else keras.layers.Dropout
        return kind(config.feature_dropout)(x)

    return apply


def batch_normalization(config, name):
    """Return PyTorch's batch normalization: its running variance is the unbiased one."""
    return layers.BatchNormalization(
        momentum=config.bn_momentum, epsilon=layers.CUDNN_MIN_EPSILON, name=name,
        unbiased_moving_variance=True,
    )  # fmt: skip


def convolution(config, filters, n_inputs, name, *, size=3, strides=1):
    """Return a convolution with the initial weights of the Config."""
    return keras.layers.Conv2D(
        filters, size, strides, padding="same", name=name, **initial(config, size**2 * n_inputs)
    )


def dense(config, n_outputs, n_inputs, name):
    """Return a fully connected layer with the initial weights of the Config."""
    return keras.layers.Dense(n_outputs, name=name, **initial(config, n_inputs))


def initial(config, fan_in):
    """Return the initializers of a layer whose outputs have `fan_in` inputs each.

    PyTorch's kaiming_uniform_ with a = sqrt(5) is uniform in +-1/sqrt(fan_in), and so are its
    biases; He's own has sqrt(6) times that, and no biases.
    """
    if config.initial == "he":
        return {"kernel_initializer": "he_uniform", "bias_initializer": "zeros"}
    bound = fan_in**-0.5
    return {
        "kernel_initializer": keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
    }


def set_constants(model, constants):
    """Give the first layer the mean and standard deviation of every channel, if it wants them."""
    layer = model.get_layer("standardize")
    if isinstance(layer, stretch.Standardize):
        layer.mean.assign(constants["mean"])
        layer.std.assign(constants["std"])


def make_optimizer(config):
    """Return Adam with the weight decay of the Config (Sec. 2.2.3)."""
    if config.decay == "l2":
        return optimizers.AdamL2(config.learning_rate, l2=config.weight_decay)
    return keras.optimizers.AdamW(
        config.learning_rate, weight_decay=config.weight_decay, epsilon=1e-8
    )


def cross_entropy(weights):
    """Return the loss of a batch: cross-entropy, or its mean with a weight for each class.

    Args:
        weights: Of the classes, in their order, or None. A mean divides by the sum of the weights
            of its objects, as PyTorch's CrossEntropyLoss does.

    Returns:
        A Keras loss of labels, shape (batch, 1), and logits, shape (batch, classes).
    """
    if weights is None:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def weighted_cross_entropy(labels, logits):
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        each = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        weight = ops.take(ops.convert_to_tensor(weights, dtype=logits.dtype), labels)
        return ops.sum(weight * each) / ops.sum(weight)

    return weighted_cross_entropy
