"""Sec. 3.2, the networks: EfficientNetB0 under a head of its own, and the challenge's winner."""

from functools import partial

import keras

from cast_lens import augment, backbones, compiled, layers, stretch
from reproductions.nottingham.lastro import lastro, lastro_keras
from reproductions.nottingham.settings import INPUT, SIDE, STATISTICS, word

HIDDEN = 128  # ASSUMED: Sec. 2.5.3 has "e.g. 64 or 128"
LEFT_OUT = 0.5  # ASSUMED: Sec. 2.6.2 explains dropout without a number


def build_model(config, seed):
    """Build a network: stretch, augmentation, network, sigmoid.

    Args:
        config: The Config.
        seed: Of the augmentation and of LASTRO's dropout.

    Returns:
        keras.Model from {"vis": (batch, 101, 101, 1)} in maggies to (batch, 1), in [0, 1].
    """
    inputs = keras.Input((SIDE, SIDE, 1), name=INPUT)
    constants = STATISTICS if config.normalization == "code" else (None, None)
    images = stretch.Standardize(*constants, name="standardize")(inputs)
    if config.augmentation == "dihedral":
        images = augment.RandomDihedral(seed=seed, name="dihedral")(images)
        images = augment.RandomGainOffset(
            gain=(0.8, 1.2), offset=(-0.1, 0.1), seed=seed, name="gain_offset"  # LASTRO's code
        )(images)  # fmt: skip
    else:
        images = augment.RandomSimilarity(
            rotation=config.rotation, mirror=True, zoom=config.zoom, fill=config.fill, seed=seed,
            name="similarity",
        )(images)  # fmt: skip
    if config.network == "lastro":
        return keras.Model({INPUT: inputs}, lastro(images, seed=seed, scaled=config.scaled))
    images = keras.layers.Concatenate(name="three_bands")([images] * 3)  # Sec. 3.2
    network = lastro_keras if config.network == "lastro_keras" else partial(efficient_net, config)
    return keras.Model({INPUT: inputs}, network(images))


def efficient_net(config, images):
    """Apply EfficientNetB0 without its top, and the head of Figure 6."""
    trunk = backbones.efficient_net(
        "b0", name="trunk", shape=(None, None, 3),
        weights="imagenet" if config.initial == "imagenet" else None,
        # Keras 2 averaged the unbiased variance of a batch, Keras 3 does the biased one.
        batch_normalization=partial(layers.BatchNormalization, unbiased_moving_variance=True),
    )  # fmt: skip
    if not config.drop_connect:
        for layer in trunk.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    x = trunk(images)  # (batch, 4, 4, 1280)
    if config.head == "dense":  # Secs. 2.5.3 and 2.6.2: flattening, hidden layer, dropout, output
        x = keras.layers.Dense(HIDDEN, "relu", name="hidden")(keras.layers.Flatten()(x))
        x = keras.layers.Dropout(LEFT_OUT)(x)
    else:
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dropout(0.2 if config.drop_connect else 0.0)(x)  # as EfficientNetB0's top
    return keras.layers.Dense(1, "sigmoid", name="lens")(x)


class Networks(compiled.Networks):
    """One compiled network of each kind, which all its trainings use in turn."""

    def get(self, config, key):
        """Return the network of a Config as it is before training.

        Args:
            config: The Config.
            key: List of integers that all its random numbers come from.
        """
        kind = (
            config.network, config.normalization == "code", config.augmentation, config.rotation,
            config.zoom, config.fill, config.head, config.drop_connect, config.scaled,
            config.learning_rate,
        )  # fmt: skip
        return self.renew(
            kind, word(*key), build=partial(build_model, config),
            compile_model=partial(compile_model, config=config),
        )  # fmt: skip


def compile_model(model, config):
    """Compile the network (Sec. 3.2): binary cross-entropy and Adam."""
    on_cpu = keras.backend.backend() == "tensorflow"  # where XLA makes convolutions slow
    model.compile(keras.optimizers.Adam(config.learning_rate), "binary_crossentropy",
                  metrics=[keras.metrics.AUC(name="auc")],
                  jit_compile=False if on_cpu else "auto")  # fmt: skip


def set_constants(model, mean, std):
    """Give a network the mean and standard deviation of all pixels (Eq. 12), maggies."""
    layer = model.get_layer("standardize")
    layer.mean.assign([mean])
    layer.std.assign([std])
