"""EfficientNet B0 to B7 of the package `efficientnet`, under Keras 3 and any of its backends.

The package builds with modules that it is given, and so with those of Keras 3: no line of the
network is written anew. keras.applications has another EfficientNet: it begins with layers that
rescale the images, and its drop-connect rates are lower. Beside it a residual network, for what is
small.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import keras
from efficientnet import model as package

from cast_lens import data, layers

VARIANTS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7")
WEIGHTS = (None, "imagenet", "noisy-student")
SMALL = (16, 32, 64, 128, 256)  # filters of the stages of `small`
FOLDER = "efficientnet"  # of the files of weights, in CAST_LENS_DATA and in the cache
# What the package takes from keras.layers as it is.
LAYERS = (
    "DepthwiseConv2D",
    "GlobalAveragePooling2D",
    "Input",
    "Reshape",
    "add",
    "multiply",
)


def efficient_net(variant, *, name, shape, weights, batch_normalization=layers.BatchNormalization):
    """Build EfficientNet without its top: from images to the last map of features.

    Its layers have the names that the package gives them, so that weights of the package, or of
    networks that were trained with it, find their places: `model.get_layer(name)` for the trunk,
    then that of the layer. The images should be in [0, 1] or standardized: nothing is rescaled.

    Args:
        variant: One of `VARIANTS`.
        name: Of the model, and of its place in a network of several.
        shape: (height, width, band) of the images; height and width of at least 32 pixels, or
            None for any.
        weights: None for random ones, "imagenet", or "noisy-student"; these need three bands, and
            to be downloaded once.
        batch_normalization: Makes a batch normalization of `axis` and `name`.

    Returns:
        keras.Model from (batch, height, width, band) to (batch, height / 32, width / 32, feature),
        rounded up.

    Raises:
        DataError: If the file of weights in the folder CAST_LENS_DATA is not the published one.
        DataUnavailableError: If it is not on this machine and could not be downloaded.
        ValueError: If an argument is none of those that there are.

    Reference:
        Tan & Le (2019), "EfficientNet"; Bom et al. (2022), Secs. 3 and 7.4, on why this one.
    """
    if variant not in VARIANTS or weights not in WEIGHTS:
        raise ValueError(
            f"variant is {variant!r} and weights are {weights!r}, expected one of {VARIANTS} and "
            f"one of {WEIGHTS}"
        )
    if len(shape) != 3 or not shape[2] or (weights and shape[2] != 3):
        expected = "(height, width, 3)" if weights else "(height, width, band)"
        raise ValueError(f"shape is {shape}, expected {expected}; weights are {weights!r}")
    build = getattr(package, f"EfficientNet{variant.upper()}")
    return build(
        include_top=False,
        weights=weights,
        input_shape=tuple(shape),
        backend=SimpleNamespace(
            backend=keras.backend.backend, image_data_format=keras.config.image_data_format
        ),
        layers=_layers(batch_normalization),
        # The package would name every model of a variant alike, and two of them cannot be joined.
        models=SimpleNamespace(
            Model=lambda images, features, **_: keras.Model(images, features, name=name)
        ),
        utils=SimpleNamespace(get_file=_weights_file),
    )


def small(*, name, shape):
    """Build a residual network that two CPU cores can train: five stages, on images of any size.

    Convolutions have no bias, and weights as He et al. (2015) draw them; moving statistics follow
    within twenty batches, for trainings that are short.

    Args:
        name: Of the model.
        shape: (height, width, band), the first two None for any.

    Returns:
        keras.Model from (batch, height, width, band) to (batch, height / 32, width / 32, 256),
        rounded up.
    """

    def convolution(filters, _n_inputs, name, *, size, strides):
        return keras.layers.Conv2D(
            filters, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal",
            name=name,
        )  # fmt: skip

    images = keras.Input(shape)
    features = residual(
        images, SMALL, convolution=convolution,
        batch_normalization=lambda name: layers.BatchNormalization(momentum=0.95, name=name),
    )  # fmt: skip
    return keras.Model(images, features, name=name)


def on_one_grid(images):
    """Bring the images of several pixel scales to the pixels of the first, bilinearly.

    Args:
        images: {branch: symbolic tensor of shape (batch, side, side, band)}, all of one field; the
            first side is a whole multiple of the others.

    Returns:
        Symbolic tensor, shape (batch, side, side, all bands).

    Raises:
        ValueError: If a side is no divisor of the first.
    """
    finest, *others = images.values()
    found = [finest]
    for image in others:
        factor, rest = divmod(finest.shape[1], image.shape[1])
        if rest:
            raise ValueError(f"sides are {finest.shape[1]} and {image.shape[1]}, expected a "
                             "whole multiple")  # fmt: skip
        found.append(keras.layers.UpSampling2D(factor, interpolation="bilinear")(image))
    return keras.layers.Concatenate()(found)


def residual(images, filters, *, convolution, batch_normalization):
    """Build a residual network without its top: from images to the last map of features.

    After a first convolution that halves the image, every number of filters is a stage of two
    blocks of two convolutions; each stage but the first halves the image once more.

    Args:
        images: Symbolic tensor, shape (batch, height, width, band).
        filters: Numbers of filters of the stages.
        convolution: Makes the layer from numbers of filters and of inputs, name, and the keywords
            size and strides; keeps the size of the image, but for the strides.
        batch_normalization: Makes the layer from its name.

    Returns:
        Symbolic tensor, shape (batch, height / 2^stages, width / 2^stages, filters[-1]), rounded
        up.

    Reference:
        He et al. (2016), "Deep residual learning for image recognition".
    """
    relu = keras.layers.ReLU
    x = convolution(filters[0], images.shape[-1], "stem", size=3, strides=2)(images)
    x = relu()(batch_normalization("stem_norm")(x))
    for stage, n in enumerate(filters, 1):
        for part in (1, 2):
            strides = 2 if stage > 1 and part == 1 else 1
            name, before = f"stage{stage}_{part}", x
            y = convolution(n, x.shape[-1], f"{name}_conv1", size=3, strides=strides)(x)
            y = relu()(batch_normalization(f"{name}_norm1")(y))
            y = convolution(n, n, f"{name}_conv2", size=3, strides=1)(y)
            y = batch_normalization(f"{name}_norm2")(y)
            if strides > 1:
                before = convolution(n, x.shape[-1], f"{name}_skip", size=1, strides=strides)(x)
            x = relu()(keras.layers.Add()([before, y]))
    return x


def _layers(batch_normalization):
    """Return the layers that the package builds from, as a namespace.

    Its own function for x sigmoid(x) and class for drop-connect are made anew with every network
    and are known to nobody who loads one.
    """
    return SimpleNamespace(
        **{name: getattr(keras.layers, name) for name in LAYERS},
        Activation=lambda activation, **kwargs: keras.layers.Activation(layers.swish, **kwargs),
        BatchNormalization=batch_normalization,
        Conv2D=_conv_2d,
        Dropout=_Dropout,
    )


def _conv_2d(*args, activation=None, **kwargs):
    activation = layers.swish if callable(activation) else activation
    return keras.layers.Conv2D(*args, activation=activation, **kwargs)


class _Dropout(keras.layers.Dropout):
    """What the package makes a subclass of: it then makes keras.layers.Dropout after all."""

    def __new__(cls, *args, **kwargs):
        return keras.layers.Dropout(*args, **kwargs)


def _weights_file(name, url, *, file_hash, **_):
    """Return the path of a published file of weights, as the package names it."""
    import pooch
    import requests
    from tqdm import tqdm

    algorithm = "sha256" if len(file_hash) == 64 else "md5"
    named = Path(os.environ.get("CAST_LENS_DATA") or os.devnull).expanduser() / FOLDER / name
    if named.is_file():
        found = pooch.file_hash(named, alg=algorithm)
        if found != file_hash:
            raise data.DataError(
                f"{named} is not the published file: {algorithm} {found}, expected {file_hash}. "
                f"Get {url}, or remove it to download it."
            )
        return str(named)
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    try:
        with tqdm(desc=name, total=1, unit="B", unit_scale=True, leave=False) as bar:
            return pooch.retrieve(
                url,
                known_hash=f"{algorithm}:{file_hash}",
                fname=name,
                path=data.cache_folder() / FOLDER,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=data.DOWNLOAD_TIMEOUT),
            )
    except (requests.RequestException, ValueError, OSError) as error:
        cause = " ".join(str(error).split())
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            cause = f"{type(error).__name__}: the server could not be reached"
        raise data.DataUnavailableError(
            f"{name} is not on this machine and was not downloaded ({cause}). Get "
            f"{url} ({algorithm} {file_hash}) and put it at {FOLDER}/{name} in the folder that "
            "CAST_LENS_DATA names, or begin with random weights: --init random."
        ) from error
