"""Whether floating-point pixels were written in the wrong order of bytes."""

import numpy as np

# The squares of float32 pixels that look like no flux sum up to 0, to this or more, or to NaN.
MAX_SQUARE = 2.0**100

_OCTAVES = 32  # 9.6 decades; all real images of the I SGLC at hand lie within 3e-18 to 2e-9
_MIN_EXCESS = 16  # pixels; fewer that look better the other way round may do so by chance


def sum_of_squares(pixels):
    """Return the sum of the squares of float32 pixels; infinite or NaN if any of them is.

    In floating point such a sum is never less than any of its terms, however it is rounded. So
    one quick pass over the pixels tells that none is large, infinite or NaN.
    """
    flat = pixels.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return flat.dot(flat)


def is_swapped(pixels, stored):
    """Tell whether pixels make far more sense read in the other order of bytes.

    The magnitudes of an image keep together, whatever its unit. Read in the wrong order, the last
    bits of the fraction are the exponent: noise then spreads evenly over all powers of two, and
    round numbers, as counts or a mask value, become subnormal. So what counts are the normal
    numbers within the fullest 32 powers of two: of the real I SGLC images at hand at least 97 %,
    of the same images swapped at most 14 %. A bound on single values would refuse the real image
    U-100020 of the I SGLC, whose faintest pixel is -1.27e21 and whose median is 2.28e-12.

    Args:
        pixels: float32 in native byte order, any shape; all of common size end the question here.
        stored: The same pixels as they are in the file, float32 or float64, any byte order.

    Returns:
        True if more than twice as many pixels keep together once swapped. False also where bytes
        cannot tell: for a constant image, and below some 16 pixels.
    """
    if 0 < sum_of_squares(pixels) < MAX_SQUARE:
        return False
    swapped = _keeping_together(stored.view(stored.dtype.newbyteorder()))
    return swapped > 2 * _keeping_together(stored) + _MIN_EXCESS


def _keeping_together(pixels):
    """Count the normal numbers in the fullest `_OCTAVES` powers of two."""
    sizes = np.abs(pixels[np.isfinite(pixels)])
    _, exponents = np.frexp(sizes[sizes >= np.finfo(pixels.dtype).tiny])
    if not exponents.size:
        return 0
    octaves = np.bincount(exponents - exponents.min())
    return int(np.convolve(octaves, np.ones(_OCTAVES, int)).max())
