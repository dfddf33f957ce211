"""NumPy files that hold one object in all its bands become float32 (height, width, band).

No pickle is ever opened: a file of objects, which would run whatever it says, is an error.
"""

import io
import math

import numpy as np

from cast_lens import cutouts, fits_image
from cast_lens.cutouts import CutoutError

CHANNELS = ("first", "last")  # where the axis of the bands stands in the file
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_array(path, *, channels):
    """Read one object.

    Args:
        path: A .npy file of three axes, of any type of real numbers, in any byte order.
        channels: "first" if the axes are (band, height, width), "last" if they are (height, width,
            band); nothing in a file says so.

    Returns:
        Image, float32, shape (height, width, band), in the unit of the file; beyond float32
        infinite.

    Raises:
        CutoutError: If the file is not one whole array of three axes of real numbers, or is larger
            than a cutout can be.
        ValueError: If `channels` is neither.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels is {channels!r}, expected one of {', '.join(CHANNELS)}")
    data = _read_bytes(path)
    _check_header(path, data)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(array, 0, -1) if channels == "first" else array)


def read_arrays_into(paths, out, *, channels, mask_value=None):
    """Read many objects into an array that is there already.

    No file has an effect on the pixels or counts of another object.

    Args:
        paths: Files, one an object.
        out: Where the images go, float32, shape (objects, height, width, band). An object that
            cannot be used becomes 0 throughout.
        channels: As for `read_array`.
        mask_value: Pixels >= this are masked; None masks nothing.

    Returns:
        Numbers of pixels that were masked, and that were NaN, infinite or beyond float32, and
        became 0, both int64, shape (objects, bands); and CutoutError by index of each object that
        could not be read, or has another shape.

    Raises:
        ValueError: If `channels` is neither, or `mask_value` is not finite.
    """
    n_masked, n_nonfinite = np.zeros((2, len(paths), out.shape[-1]), np.int64)
    errors: dict[int, CutoutError] = {}
    largest = cutouts.largest_square(mask_value)
    for k, path in enumerate(paths):
        try:
            image = read_array(path, channels=channels)
            if image.shape != out.shape[1:]:
                found = f"(height, width, band) {image.shape}"
                expected = f"{out.shape[1:]}, as the others; read it separately"
                raise CutoutError("shape", path, found, expected)
        except CutoutError as error:
            errors[k], out[k] = error, 0
            continue
        for n in range(image.shape[-1]):
            bad = cutouts.blank_bad(image[..., n], mask_value, largest)
            n_masked[k, n], n_nonfinite[k, n] = bad
        out[k] = image
    return n_masked, n_nonfinite, errors


def _read_bytes(path):
    try:
        return fits_image.read_bytes(path)
    except CutoutError as error:
        if error.reason != "not_fits":  # a folder, a FIFO, a loop of links
            raise
        raise CutoutError("not_array", path, error.found, "a .npy file; name it") from error


def _check_header(path, data):
    """Raise unless the bytes are one whole array that is safe to load."""
    if not data:
        raise CutoutError("empty", path, "0 bytes", "a .npy file; get it again")
    stream = io.BytesIO(data)
    try:
        read_header = _HEADERS[np.lib.format.read_magic(stream)]
        shape, _, dtype = read_header(stream)
    except Exception as error:  # NumPy raises whatever a malformed header leads to
        found = f"{data[:10]!r} ({type(error).__name__}: {' '.join(str(error).split())})"
        expected = "a .npy file of numbers; save it with numpy.save"
        raise CutoutError("not_array", path, found, expected) from error
    if dtype.kind not in "fiub":
        expected = "real numbers; save them with numpy.save, without pickle"
        raise CutoutError("dtype", path, f"an array of {dtype}", expected)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > fits_image.MAX_PIXELS:
        expected = f"three axes with 1 to {fits_image.MAX_PIXELS} pixels in all"
        raise CutoutError("shape", path, f"an array of shape {shape}", f"{expected}; save it so")
    n_bytes, n_expected = len(data) - stream.tell(), math.prod(shape) * dtype.itemsize
    if n_bytes < n_expected:
        expected = f"{n_expected} bytes of pixels; get the file again"
        raise CutoutError("truncated", path, f"{n_bytes} bytes of pixels", expected)
