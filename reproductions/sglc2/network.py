"""Sec. 3, the network: two branches of EfficientNet, joined by one dense layer."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import ops

from cast_lens import augment, backbones, compiled, layers, optimizers, precision, stretch, weights
from cast_lens.run import RunError
from reproductions.sglc2.settings import BANDS, HEADLINE, INPUTS, RELEASED, config_of, word


def build_model(config, seed):
    """Build the network (Figure 5): stretch, augmentation, a trunk a branch, softmax of two.

    Args:
        config: The Config.
        seed: Of the augmentation.

    Returns:
        keras.Model from {"vis": (batch, 200, 200, 1), "nir": (batch, 66, 66, 3)}, or one of them,
        in maggies, to (batch, 2): no lens, lens.
    """
    branches = INPUTS[config.inputs]
    sizes = {"vis": (200, 200, 1), "nir": (66, 66, 3)}
    inputs = {name: keras.Input(sizes[name], name=name) for name in branches}
    images = {name: stretch.Clip(None, None, name=f"clip_{name}")(x) for name, x in inputs.items()}
    images = augmentation(config, seed)(images)
    sides = {"vis": config.vis_side, "nir": config.nir_side}
    images = {name: center(images[name], sides[name]) for name in branches}
    if config.backbone == "residual":  # of all bands in one
        images, branches = {"vis": backbones.on_one_grid(images)}, {"vis": "all"}
    features = []
    for name, filling in branches.items():
        x = three_bands(images[name], filling)
        features.append(build_trunk(config, f"trunk_{name}", x.shape[1:])(x))
    features = [keras.layers.GlobalAveragePooling2D()(x) for x in features]
    joined = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="lens")(joined))


def center(images, side):
    """Return the middle of images, as keras.layers.CenterCrop does, which needs TensorFlow."""
    before = (images.shape[1] - side) // 2
    edges = (before, images.shape[1] - side - before)
    return keras.layers.Cropping2D((edges, edges))(images) if any(edges) else images


def augmentation(config, seed):
    """Build the layer that turns, mirrors and zooms (Sec. 4.1)."""
    if config.augmentation == "dihedral":
        return augment.RandomDihedral(seed=seed, name="augment")
    return augment.RandomSimilarity(
        rotation=config.rotation, mirror=True, zoom=config.zoom, fill=config.fill, seed=seed,
        name="augment",
    )  # fmt: skip


def build_optimizer(config):
    """Build the optimizer (Sec. 4.1)."""
    rate = config.learning_rate
    if config.decay_steps:
        rate = keras.optimizers.schedules.CosineDecay(rate, config.decay_steps)
    return {"radam": optimizers.RAdam, "adam": keras.optimizers.Adam}[config.optimizer](rate)


def build_trunk(config, name, shape):
    """Build a trunk for three bands, without its last two dense layers (Sec. 3.2)."""
    weights = "imagenet" if config.initial == "imagenet" else None
    if config.backbone == "tf_native":
        return keras.applications.EfficientNetB2(
            include_top=False, weights=weights, input_shape=shape, name=name
        )
    if config.backbone == "residual":
        return backbones.small(name=name, shape=(None, None, shape[-1]))
    # Keras 2 averaged the unbiased variance of a batch, Keras 3 does the biased one.
    normalization = partial(layers.BatchNormalization, unbiased_moving_variance=True)
    trunk = backbones.efficient_net(
        config.backbone, name=name, shape=(None, None, 3), weights=weights,
        batch_normalization=normalization,
    )  # fmt: skip
    if not config.drop_connect:
        for layer in trunk.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    return trunk


def give_released(model, config):
    """Give a network the released weights, or those of the trunks that are in both.

    Args:
        model: The network.
        config: Its Config.

    Raises:
        RunError: If it has other trunks.
    """
    released = config_of(HEADLINE, {"initial": "random"})
    if config.backbone != released.backbone:
        raise RunError(
            f"{RELEASED} has trunks of {released.backbone}, expected {config.backbone}; begin with "
            "other weights: --init imagenet, or random"
        )
    whole = build_model(released, seed=0)
    weights.load_into(whole, RELEASED)
    give_common(model, whole)


def give_common(model, other):
    """Give a network the trunks that it has in common with another, and their parts of the head.

    The features of trunks that the other has not then count for nothing, until they are trained.
    """
    kernel = np.zeros(model.get_layer("lens").kernel.shape, np.float32)
    places, theirs = head_rows(model), head_rows(other)
    head = [keras.ops.convert_to_numpy(x) for x in other.get_layer("lens").get_weights()]
    for name in places.keys() & theirs.keys():
        model.get_layer(name).set_weights(other.get_layer(name).get_weights())
        kernel[places[name]] = head[0][theirs[name]]
    model.get_layer("lens").set_weights([kernel, head[1]])


def head_rows(model):
    """Return {name of a trunk: slice of the rows of the head that its features meet}."""
    here, found, first = {layer.name: layer for layer in model.layers}, {}, 0
    for name in (f"trunk_{branch}" for branch in BANDS):  # as they are joined
        if name in here:
            found[name] = slice(first, first + here[name].output.shape[-1])
            first = found[name].stop
    return found


def set_bounds(model, bounds):
    """Give the stretch of each branch the fluxes that become 0 and 1.

    Args:
        model: The network.
        bounds: {input: (lower, upper)}, maggies, each of shape (bands,).
    """
    for name, (lower, upper) in bounds.items():
        layer = model.get_layer(f"clip_{name}")
        layer.lower.assign(lower)
        layer.upper.assign(upper)


def three_bands(images, filling):
    """Give a branch three bands (Sec. 3.2): as they are, repeated, or with null arrays."""
    if filling == "all":
        return images
    if filling == "repeated":
        return keras.layers.Concatenate()([images] * 3)
    first = images[..., 2:] if filling == "Y, zeros" else images
    zeros = ops.zeros_like(first)
    return keras.layers.Concatenate()([first, zeros, zeros])


class Networks(compiled.Networks):
    """One compiled network of each shape, which all folds and clippings use in turn."""

    def get(self, config, key):
        """Return the network of a Config as it is before training.

        Args:
            config: The Config.
            key: List of integers that all its random numbers come from.
        """
        # What a compiled network depends on; all else is weights, or objects it sees.
        other = {"clipping": "", "epochs": 0, "batch": 0, "initial": "random", "least_n_pix": 0}
        shape = replace(config, **other)
        return self.renew(
            shape, word(*key), build=partial(build_model, config),
            compile_model=partial(compile_model, config=config),
        )  # fmt: skip


def compile_model(model, config):
    """Compile the network (Sec. 4.1): cross-entropy of a softmax of two."""
    on_cpu = keras.backend.backend() == "tensorflow"  # where XLA makes convolutions slow
    if config.precision == "bfloat16":
        precision.use_bfloat16(model)
    model.compile(build_optimizer(config), "sparse_categorical_crossentropy",
                  jit_compile=False if on_cpu else "auto")  # fmt: skip
