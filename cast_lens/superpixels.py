"""Superpixels of one sky field, the same patches in all branches of an object.

All images of an object are centered on the same point, as in augment, so a pixel's offset from its
array center times the pixel scale is where it is on the sky. The sky is divided once, on the input
with the finest pixels, and what is turned off there is turned off in every other input.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import color, segmentation


@dataclass(frozen=True, eq=False)
class Superpixels:
    """One object's field, divided.

    Attributes:
        labels: {input: superpixel of every pixel, integers in [0, n), shape (height, width)}.
        n: Number of superpixels.
        finest: Input with the finest pixels, on which the field was divided.
        pixel_scales: {input: arcsec}.
    """

    labels: dict[str, np.ndarray]
    n: int
    finest: str
    pixel_scales: dict[str, float]


def divide(images, pixel_scales, *, stretch, segment):
    """Divide one object's field into superpixels.

    A pixel of a coarser input belongs to the superpixel at its center. A superpixel that holds no
    such center has no pixel in that input, and turning it off changes nothing there.

    Args:
        images: {input: image, shape (height, width, band)}.
        pixel_scales: {input: arcsec}.
        stretch: Function from the finest image to what is divided, same height and width, for
            instance asinh of the flux over the noise, mapped to [0, 1].
        segment: Function from that to integers of shape (height, width): `quickshift`, or `slic`
            with its keywords set by functools.partial.

    Returns:
        Superpixels.

    Raises:
        ValueError: If an image is not (height, width, band), a pixel scale is missing or not
            positive, or the segments do not have the shape of the image.
    """
    finest = check_images(images, pixel_scales)
    shape = images[finest].shape[:2]
    found = np.asarray(segment(stretch(images[finest])))
    if found.shape != shape:
        raise ValueError(
            f"segments of {finest} have shape {found.shape}, expected {shape}: stretch and segment "
            "must keep height and width"
        )
    values, fine = np.unique(found, return_inverse=True)
    fine, labels = fine.reshape(shape), {}
    for name, image in images.items():
        row, column = (
            _nearest(image.shape[axis], pixel_scales[name], shape[axis], pixel_scales[finest])
            for axis in (0, 1)
        )
        labels[name] = fine[np.ix_(row, column)]
    return Superpixels(labels, len(values), finest, dict(pixel_scales))


def slic(display, *, n_segments, compactness, sigma):
    """Divide an image by k-means in position and brightness.

    Args:
        display: Stretched image, shape (height, width, band), about [0, 1].
        n_segments: Number of superpixels, about.
        compactness: Weight of position against brightness; more makes them squarer.
        sigma: Width of the Gaussian that the image is smoothed by first, pixels, so that the
            borders do not follow the noise of the sky.

    Returns:
        Integers, shape (height, width).

    Reference:
        Achanta et al. (2012), as in scikit-image.
    """
    return segmentation.slic(
        display, n_segments, compactness, sigma=sigma, convert2lab=False, start_label=0
    )


def quickshift(display):
    """Divide an image by mode seeking with the settings of the `lime` package's image explainer.

    Their number follows from the image. Bom et al. (2022) do not say how they divided theirs.

    Args:
        display: Stretched image in [0, 1], shape (height, width, band), of one or three bands.

    Returns:
        Integers, shape (height, width).

    Reference:
        Vedaldi & Soatto (2008), as in scikit-image; code of Ribeiro et al. (2016).
    """
    display = np.asarray(display)
    display = color.gray2rgb(display[..., 0]) if display.shape[-1] == 1 else display
    return segmentation.quickshift(display, ratio=0.2, kernel_size=4, max_dist=200, rng=0)


def turned_off(images, segments, fill):
    """Return what each image is with all superpixels turned off.

    Args:
        images: {input: image, shape (height, width, band)}.
        segments: Superpixels.
        fill: "mean", each superpixel becomes its mean in each band, or {input: a constant, one
            number or one a band, in the unit of the images}, such as the background.

    Returns:
        {input: float32, shape (height, width, band)}.

    Raises:
        ValueError: If `fill` is neither, or an image has another shape than its labels.
    """
    off = {}
    for name, image in images.items():
        labels = segments.labels[name]
        if labels.shape != image.shape[:2]:
            raise ValueError(f"{name}: image of {image.shape}, but superpixels of {labels.shape}")
        if is_mean(fill, images):
            off[name] = mean_of_each(image, labels, segments.n)[labels].astype(np.float32)
        else:
            off[name] = np.broadcast_to(np.asarray(fill[name], np.float32), image.shape)
    return off


def mean_of_each(values, labels, n):
    """Return the mean over every superpixel.

    Args:
        values: Shape (height, width, ...).
        labels: Integers in [0, n), shape (height, width).
        n: Number of superpixels.

    Returns:
        Shape (n, ...), float64; 0 for a superpixel without pixels.
    """
    columns = np.reshape(values, (labels.size, -1)).T
    sums = [np.bincount(labels.ravel(), column, minlength=n) for column in columns]
    means = (
        np.stack(sums, axis=-1) / np.maximum(np.bincount(labels.ravel(), minlength=n), 1)[:, None]
    )
    return means.reshape(n, *np.shape(values)[2:])


def on_grid(values, field, shape, pixel_scale):
    """Interpolate a coarse map bilinearly onto pixels of the sky.

    Args:
        values: Map whose cells tile the field, shape (rows, columns).
        field: Height and width of the field, arcsec.
        shape: Height and width of the new grid, pixels; beyond the outer cells' centers these
            are repeated.
        pixel_scale: Of the new grid, arcsec.

    Returns:
        float64, of `shape`.
    """
    at = [
        offsets(size, pixel_scale) * cells / side + (cells - 1) / 2
        for size, cells, side in zip(shape, np.shape(values), field, strict=True)
    ]
    values = np.asarray(values, np.float64)
    return ndimage.map_coordinates(values, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")


def offsets(n, pixel_scale):
    """Return where the centers of `n` pixels of an axis are, arcsec from the array center."""
    return (np.arange(n) - (n - 1) / 2) * pixel_scale


def check_images(images, pixel_scales):
    """Return the input with the finest pixels.

    Raises:
        ValueError: If there is no image, one is not (height, width, band), or its pixel scale is
            missing or not positive.
    """
    if not images:
        raise ValueError("there is no image, expected {input: image}")
    for name, image in images.items():
        if np.ndim(image) != 3:
            raise ValueError(f"{name}: shape {np.shape(image)}, expected (height, width, band)")
        if not pixel_scales.get(name, 0) > 0:
            raise ValueError(f"{name}: pixel scale {pixel_scales.get(name)}, expected arcsec > 0")
    return min(images, key=lambda name: pixel_scales[name])


def is_mean(fill, images):
    """Return whether to fill with means; raise ValueError unless `fill` is "mean" or constants."""
    if isinstance(fill, dict) and set(images) <= set(fill):
        return False
    if isinstance(fill, str) and fill == "mean":
        return True
    raise ValueError(f'fill is {fill!r}, expected "mean" or constants for {sorted(images)}')


def _nearest(n, pixel_scale, n_fine, fine_scale):
    """Return which of `n_fine` pixels of an axis is nearest to each of `n`; the lower of two."""
    at = offsets(n, pixel_scale) / fine_scale + (n_fine - 1) / 2
    # 0.3 / 0.1 is not 3: the small number makes a tie a tie.
    return np.clip(np.ceil(at - 0.5 - 1e-6), 0, n_fine - 1).astype(int)
