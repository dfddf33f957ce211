"""Fluxes in float16: half the disk and memory, for a loss that is measured and told.

float16 reaches from 2^-24 to 65504, with eleven bits from 2^-14 upwards: a flux of 1e-12 would be
0. So each band is multiplied by a power of two, which itself loses nothing, that puts its typical
pixel at 2^-8. Then all eleven bits are kept up to 2^24 (1.7e7) times the typical pixel and down to
2^-6 of it; what lies below loses 2^-17 of the typical pixel at most.
"""

import numpy as np

MAX = 65504.0  # the largest float16
_TYPICAL = -8  # power of two
_POWERS = (-120, 120)  # what float32 can be multiplied by


def scales(images):
    """Choose the factor of each band.

    Args:
        images: A sample of the objects, float32, shape (objects, height, width, band).

    Returns:
        Powers of two, a tuple of one float a band. What is typical is the median of the absolute
        pixels that are not 0; where there are none the factor is 1.
    """
    return tuple(_scale(images[..., n]) for n in range(images.shape[-1]))


def encode(images, factors):
    """Store images in float16.

    Args:
        images: float32, finite, shape (objects, height, width, band).
        factors: Of each band, as `scales` returns them.

    Returns:
        Images times factors, float16, clipped to its range; and what that lost, a dict of lists of
        one number a band: n_clipped and n_flushed (pixels that were clipped, or became 0), and of
        the differences of all pixels that were not clipped, in the unit of the images, max_error
        (the largest) and sum_squares.
    """
    stored, factors = np.empty(images.shape, np.float16), np.asarray(factors, np.float32)
    lost = np.zeros((4, len(factors)))
    for k, image in enumerate(images):
        with np.errstate(over="ignore"):
            scaled = image * factors
        clipped = np.abs(scaled) > MAX
        stored[k] = np.clip(scaled, -MAX, MAX)
        errors = np.abs(decode(stored[k], factors).astype(np.float64) - image)
        errors[clipped] = 0
        lost[0] += clipped.sum((0, 1))
        lost[1] += ((image != 0) & (stored[k] == 0)).sum((0, 1))
        lost[2] = np.maximum(lost[2], errors.max((0, 1)))
        lost[3] += np.square(errors).sum((0, 1))
    n_clipped, n_flushed = lost[:2].astype(int).tolist()
    return stored, {
        "n_clipped": n_clipped, "n_flushed": n_flushed,
        "max_error": lost[2].tolist(), "sum_squares": lost[3].tolist(),
    }  # fmt: skip


def decode(stored, factors):
    """Return images as float32, in the unit they had before `encode`."""
    return stored.astype(np.float32) / np.asarray(factors, np.float32)


def total(losses, n_pixels):
    """Sum up what `encode` lost.

    Args:
        losses: Its dicts, at least one.
        n_pixels: Pixels of one band in all of them.

    Returns:
        Dict of lists of one number a band: n_clipped, n_flushed, max_error and rms_error.
    """
    columns = {key: np.array([loss[key] for loss in losses]) for key in losses[0]}
    return {
        "n_clipped": columns["n_clipped"].sum(0).tolist(),
        "n_flushed": columns["n_flushed"].sum(0).tolist(),
        "max_error": columns["max_error"].max(0).tolist(),
        "rms_error": np.sqrt(columns["sum_squares"].sum(0) / n_pixels).tolist(),
    }


def _scale(band):
    sizes = np.abs(band[band != 0])
    if not sizes.size:
        return 1.0
    median = np.median(sizes.astype(np.float64))  # the mean of two float32 may be beyond it
    power = _TYPICAL - np.floor(np.log2(median))
    return float(2.0 ** np.clip(power, *_POWERS))
