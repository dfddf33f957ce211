"""Secs. II and III.A, the network: EfficientNet-B0 with four bands, or three, and one logit."""

import warnings
from functools import partial

import keras
import numpy as np
from keras import ops

from cast_lens import augment, backbones, layers, networks
from reproductions.epfl.settings import CONSTANTS, RELEASED, SIDES

MOMENTUM = 0.9  # authors' code: PyTorch's default, which counts from the other end: 0.1
INSTANCE_EPSILON = 1e-5  # authors' code: PyTorch's default
OUTERMOST = ("stem_bn", "top_bn")  # authors' code: bn1 and bn2, all others are in blocks


class Bands(keras.layers.Layer):
    """Scale VIS, J, Y and H by constants, and bring all of them to the pixels of VIS.

    Args:
        side: Pixels of the center that is kept, of 200.
    """

    def __init__(self, side, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        first = (SIDES["vis"] - side) // 2
        self.kept = slice(first, first + side)
        self.matrix = interpolation(SIDES["nir"], SIDES["vis"])[self.kept]

    def call(self, images):
        """Return images, shape (batch, side, side, 4), or (batch, 66, 66, 3) without VIS.

        Args:
            images: {"vis": (batch, 200, 200, 1), "nir": (batch, 66, 66, 3)} or the latter alone,
                in maggies, in the order H, J, Y.
        """
        nir = ops.concatenate([images["nir"][..., 1:], images["nir"][..., :1]], axis=-1)
        nir = nir * np.array(CONSTANTS[1:], np.float32)
        if "vis" not in images:
            return nir
        nir = ops.einsum("ij,bjkc->bikc", self.matrix, nir)
        nir = ops.einsum("ij,bkjc->bkic", self.matrix, nir)
        vis = images["vis"][:, self.kept, self.kept] * np.float32(CONSTANTS[0])
        return ops.concatenate([vis, nir], axis=-1)


def interpolation(n_from, n_to):
    """Return the matrix of linear interpolation between the centers of the first and last pixel.

    Args:
        n_from: Pixels that there are.
        n_to: Pixels that are wanted.

    Returns:
        float32, shape (n_to, n_from), rows that add up to 1.

    Reference:
        The authors' code: Upsample(size=(200, 200), mode="bilinear", align_corners=True).
    """
    place = np.linspace(0, n_from - 1, n_to)
    distance = np.abs(place[:, None] - np.arange(n_from))
    return np.maximum(1 - distance, 0).astype(np.float32)


class BatchMoments(keras.Model):
    """A network in training mode, Method 2: its batch normalizations use the moments of the batch.

    Args:
        body: The network.
    """

    def __init__(self, body):
        super().__init__()
        self.body = body

    def call(self, images):
        """Return logits that hang on what else is in the batch, shape (batch, 1)."""
        return self.body(images, training=True)


def build_model(config, seed):
    """Build the network: one of the eight turns of the square in training, then its "body".

    Args:
        config: The Config.
        seed: Of the turns.

    Returns:
        keras.Model from images, as `Bands` takes them, to logits, shape (batch, 1); random
        weights come from Keras's own seed.
    """
    names = ("vis", "nir") if config.bands == 4 else ("nir",)
    shapes = {name: (SIDES[name], SIDES[name], 1 if name == "vis" else 3) for name in names}
    body = build_body(config, shapes)
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    images = augment.RandomDihedral(seed=seed)(inputs) if config.augmented else inputs
    return keras.Model(inputs, body(images))


def build_body(config, shapes):
    """Build the network without the turns, a keras.Model called "body".

    Its batch normalizations are the only layers that differ in training (Sec. IV.B).
    """
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    trunk = build_trunk(config)
    x = keras.layers.GlobalAveragePooling2D()(trunk(Bands(config.side)(inputs)))
    bound = x.shape[-1] ** -0.5  # authors' code: PyTorch's Linear(1280, 1)
    lens = keras.layers.Dense(
        1, kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound), name="lens",
    )  # fmt: skip
    body = keras.Model(inputs, lens(x), name="body")
    if config.frozen:  # authors' code: no gradients; statistics are averaged nevertheless
        for variable in trunk.trainable_variables:
            variable.trainable = False
    for variable in body.trainable_variables if config.l2 and config.optimizer == "sgd" else ():
        # PyTorch adds w times the coefficient to the gradient, for all parameters
        variable.regularizer = keras.regularizers.L2(config.l2 / 2)
    return body


def build_trunk(config):
    """Build EfficientNet-B0 with its initial weights.

    A first convolution of four bands is a new one, as in the authors' code: not one kernel for
    three bands is kept.
    """
    trunk = _efficient_net(config.bands, None, config.normalization)
    known = known_trunk(config.initial)
    for layer in filter(lambda layer: known and layer.weights, trunk.layers):
        theirs = known.get_layer(layer.name).get_weights()
        if [w.shape for w in theirs] == [w.shape for w in layer.get_weights()]:
            layer.set_weights(theirs)
    if config.bands == 4:
        kernel = trunk.get_layer("stem_conv").kernel
        start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # PyTorch's Conv2d
        kernel.assign(start(kernel.shape))
    if config.method == 1 and not config.frozen:
        start_anew(trunk)
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.Dropout):  # drop-connect
            layer.rate = 0.0  # authors' code: the default of their package
    return trunk


def known_trunk(initial):
    """Return EfficientNet-B0 for three bands that has learned something; None for "random"."""
    if initial == "imagenet":
        return _efficient_net(3, "imagenet", "batch")
    if initial == "released":
        return networks.open_network(RELEASED).model.get_layer("trunk_vis")
    return None


def _efficient_net(bands, weights, kind):
    with warnings.catch_warnings():  # one that other numbers of bands than 1 or 3 are unusual
        warnings.simplefilter("ignore", UserWarning)
        return backbones.efficient_net(
            "b0",
            name="trunk",
            shape=(None, None, bands),
            weights=weights,
            batch_normalization=partial(normalization, kind),
        )


def normalization(kind, *, axis, name):
    """Make a normalization layer of a trunk.

    Args:
        kind: "batch", "instance" or "nested": the authors' code for Method 1 makes new batch
            normalizations of the outermost two and instance normalizations of all others.
        axis: Of the bands.
        name: Of the layer.
    """
    if kind == "instance" or (kind == "nested" and name not in OUTERMOST):
        return keras.layers.GroupNormalization(
            groups=-1, axis=axis, epsilon=INSTANCE_EPSILON, center=False, scale=False, name=name
        )
    # PyTorch, too, averages the unbiased variance of a batch.
    return layers.BatchNormalization(
        axis=axis, momentum=MOMENTUM, unbiased_moving_variance=True, name=name
    )


def start_anew(trunk):
    """Forget what the batch normalizations of a trunk have learned (Method 1)."""
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in (layer.gamma, layer.moving_variance):
                variable.assign(ops.ones_like(variable))
            for variable in (layer.beta, layer.moving_mean):
                variable.assign(ops.zeros_like(variable))


def compile_model(model, config):
    """Compile the network: SGD and the cross-entropy of one logit (Appendix).

    AdamW, like SGD with L2, takes the coefficient times the learning rate off every weight.
    """
    optimizer = keras.optimizers.SGD(config.learning_rate, momentum=config.momentum)
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.l2)
    on_cpu = keras.backend.backend() == "tensorflow"  # where XLA makes convolutions slow
    model.compile(
        optimizer,
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False if on_cpu else "auto",
    )
