"""One object's FITS files become a float32 image of shape (height, width, band).

`read_cutout` reads one object in all its bands, `read_into` many objects in one band.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

from cast_lens import plain_fits
from cast_lens.byte_order import MAX_SQUARE, sum_of_squares
from cast_lens.cutout_files import BANDS, files_below, find_cutouts
from cast_lens.fits_image import MAX_PIXELS, CutoutError, read_pixels

__all__ = [
    "BANDS",
    "BatchCounts",
    "CutoutError",
    "PixelCounts",
    "files_below",
    "find_cutouts",
    "pixel_statistics",
    "read_cutout",
    "read_into",
]


@dataclass(frozen=True)
class PixelCounts:
    """The shape (height, width, band) of a cutout, and how many pixels of each band became 0."""

    shape: tuple[int, int, int]
    n_masked: tuple[int, ...]
    n_nonfinite: tuple[int, ...]


@dataclass(frozen=True)
class BatchCounts:
    """What became of the objects of a batch.

    Attributes:
        n_masked: Pixels that were masked and became 0, shape (objects,).
        n_nonfinite: Pixels that were NaN, infinite or beyond float32 and became 0, likewise.
        is_constant: Whether all pixels are equal then, shape (objects,); False for an error.
        errors: CutoutError by index of each object that could not be read.
    """

    n_masked: np.ndarray
    n_nonfinite: np.ndarray
    is_constant: np.ndarray
    errors: dict[int, CutoutError]


def read_cutout(paths, *, mask_value=None):
    """Read one object's image in one or more bands of equal shape.

    Args:
        paths: List of FITS files, plain or gzip, one a band, in the order the bands shall have.
        mask_value: Pixels >= this are masked. The ground-based images of the I SGLC mark them with
            exactly 100, where the flux is below 1e-8. None masks nothing.

    Returns:
        Image, float32, shape (height, width, band), in the unit of the files, for the SGLC
        10^(-0.4 m_AB) a pixel, BSCALE, BZERO and BLANK applied. Masked, NaN and infinite pixels,
        and those beyond float32, are 0. And the numbers of these, as PixelCounts.

    Raises:
        CutoutError: If a file is not one whole two-dimensional image in its primary HDU, is
            larger than a cutout can be, or little-endian, or the bands differ in shape.
        ValueError: If there is no path, or `mask_value` is not finite.

    Warns:
        UserWarning: If only the padding at the end of a file is missing.
    """
    if isinstance(paths, (str, os.PathLike)) or not len(paths):
        raise ValueError(f"paths is {paths!r}, expected a list of files, one a band")
    largest = largest_square(mask_value)
    bands = [read_pixels(path) for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.shape != bands[0].shape:
            found = f"bands of {bands[0].shape} and {band.shape} pixels"
            expected = "equal shapes; read bands of another pixel scale separately"
            raise CutoutError("shape", f"{paths[0]} and {path}", found, expected)
    counts = [blank_bad(band, mask_value, largest) for band in bands]
    n_masked, n_nonfinite = zip(*counts)
    image = np.stack(bands, axis=-1) if len(bands) > 1 else bands[0][..., None]
    return image, PixelCounts(image.shape, n_masked, n_nonfinite)  # (height, width, band)


def read_into(paths, out, *, mask_value=None, strict=False):
    """Read one band of many objects into an array that is there already.

    Each object is what `read_cutout` makes of its file alone: no file has an effect on the pixels
    or counts of another object, and one that cannot be used costs an entry in `errors`.

    Args:
        paths: Files, one an object; None where there is none.
        out: Where the images go, float32, shape (objects, height, width); `array[..., n]` of an
            array of shape (objects, height, width, band) for its band n. An object that cannot
            be used becomes 0 throughout.
        mask_value: As for `read_cutout`.
        strict: Raise the first error instead; `out` is undefined then.

    Returns:
        BatchCounts.

    Raises:
        CutoutError: If `strict` and a file cannot be used or has another shape than `out`.
        ValueError: If `out` is not such an array, or `mask_value` is not finite.

    Warns:
        UserWarning: If only the padding at the end of a file is missing.
    """
    largest = largest_square(mask_value)
    _check_out(out, len(paths))
    n_masked, n_nonfinite = np.zeros((2, len(paths)), np.int64)
    errors: dict[int, CutoutError] = {}
    for k in _read_plain(paths, out, largest):
        try:
            pixels = _read_shape(paths[k], out.shape[1:])
        except CutoutError as error:
            if strict:
                raise
            errors[k], out[k] = error, 0
            continue
        n_masked[k], n_nonfinite[k] = blank_bad(pixels, mask_value, largest)
        out[k] = pixels
    is_constant = out[:, 0, 0] == out[:, -1, -1]
    for k in np.flatnonzero(is_constant).tolist():
        is_constant[k] = k not in errors and (out[k] == out[k, 0, 0]).all()
    return BatchCounts(n_masked, n_nonfinite, is_constant, errors)


def pixel_statistics(image, *, mask_value=None):
    """Compute minimum, median, maximum and standard deviation of every band.

    Args:
        image: Shape (height, width, band), read without a mask value: once a masked pixel is 0,
            nothing tells it from sky.
        mask_value: Pixels >= this are ignored, and so are NaN and infinite ones.

    Returns:
        Dict of min, median, max and std (divided by the number of pixels), each float64, shape
        (bands,), in the unit of the image; NaN for a band without a pixel left.

    Raises:
        ValueError: If `image` has not three axes.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}, expected (height, width, band)")
    used = np.isfinite(image) & _below(image, mask_value)
    bands = [image[..., n][used[..., n]].astype(np.float64) for n in range(image.shape[2])]
    return {
        name: np.array([getattr(np, name)(band) if band.size else np.nan for band in bands])
        for name in ("min", "median", "max", "std")
    }


def _below(image, mask_value):
    return image < (np.inf if mask_value is None else float(mask_value))


def blank_bad(image, mask_value, largest):
    """Set bad pixels to 0 in place; return how many were masked and how many NaN or infinite."""
    if sum_of_squares(image) < largest:
        return 0, 0
    nonfinite = ~np.isfinite(image)
    masked = ~nonfinite & ~_below(image, mask_value)
    image[nonfinite | masked] = 0
    return int(masked.sum()), int(nonfinite.sum())


def largest_square(mask_value):
    """Return a sum of squares below which no pixel is masked, infinite, NaN or swapped.

    Half the square of the mask value leaves room for its rounding to float32.
    """
    if mask_value is None:
        return MAX_SQUARE
    if not math.isfinite(mask_value):
        raise ValueError(f"mask_value is {mask_value}, expected a finite number or None")
    return min(max(float(mask_value), 0.0) ** 2 / 2, MAX_SQUARE)


def _read_plain(paths, out, largest):
    """Read what is plain and without bad pixels into `out`; return the indices of the others."""
    others, is_direct = [], out[:1].flags.c_contiguous
    read, scratch = plain_fits.reader(*out.shape[1:]), np.empty(out.shape[1:], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, (path, place) in enumerate(zip(paths, out)):
            image = place if is_direct else scratch
            if read(path, image):
                flat = image.ravel()
                if 0 < flat.dot(flat) < largest:  # sum_of_squares, but for its costs
                    if not is_direct:
                        place[...] = image
                    continue
            others.append(k)
    return others


def _read_shape(path, shape):
    pixels = read_pixels(path)
    if pixels.shape != shape:
        found = f"{pixels.shape} pixels"
        raise CutoutError("shape", path, found, f"{shape}, as its array; read it separately")
    return pixels


def _check_out(out, n):
    is_array = isinstance(out, np.ndarray)
    sound = is_array and out.dtype == np.dtype("=f4") and out.flags.writeable
    if not sound or out.ndim != 3 or len(out) != n or 0 in out.shape[1:]:
        found = f"{out.dtype} of shape {out.shape}" if is_array else type(out)
        expected = f"native float32 of shape ({n}, height, width), which can be written to"
        raise ValueError(f"out is {found}, expected {expected}")
    if math.prod(out.shape[1:]) > MAX_PIXELS:
        raise ValueError(f"out has images of {out.shape[1:]} pixels, expected at most {MAX_PIXELS}")
