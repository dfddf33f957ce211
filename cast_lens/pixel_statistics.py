"""Percentiles and moments of all pixels of a training set, read once or twice, never kept."""

import functools

import numpy as np
from sklearn.preprocessing import StandardScaler

_NEGATIVE = 1 << 15  # the sign bit of the upper half of a float32


def percentiles(batches, percents):
    """Compute percentiles of all pixels of every band, exactly, without keeping the pixels.

    The order statistics on both sides of a percentile are found from the 32 bits of the numbers:
    the first pass counts their upper halves, the second the lower halves below the upper halves
    that matter. Memory is one batch, and 512 kB a band and order statistic.

    The 0.1 and 98 or 99 percent of the training objects are the bounds of Bom et al.: minus the
    99.9th percentile of the negated pixels is the 0.1st of the pixels. 0 and 100 are the extremes.

    Args:
        batches: Function without arguments that returns an iterator over arrays of shape
            (batch, height, width, band), float32 or exactly convertible to it. It is called
            twice and must give the same pixels.
        percents: Sequence of percents, in [0, 100].

    Returns:
        Array, float64, shape (percents, bands), in the unit of the pixels: what np.percentile with
        its linear interpolation gives for the pixels as float64, without any error.

    Raises:
        ValueError: If a percent is out of range, there is no pixel, a pixel is not finite, an
            array has another shape or type, or the passes differ.

    Reference:
        Bom et al. (2022), Sec. 2.2.
    """
    fractions = np.asarray(percents, np.float64) / 100
    if fractions.ndim != 1 or not np.all((fractions >= 0) & (fractions <= 1)):
        raise ValueError(f"percents is {percents!r}, expected a sequence of numbers in [0, 100]")
    counted = (np.stack([_count(band >> 16) for band in bits]) for bits in _bits(batches))
    upper = functools.reduce(np.add, counted)  # (bands, 65536)
    position = (int(upper[0].sum()) - 1) * fractions
    ranks = np.stack([np.floor(position), np.ceil(position)]).astype(np.int64)  # (2, percents)
    found = [_at_ranks(counts, _upper_halves(), ranks) for counts in upper]
    lower = {(n, half): 0 for n, (halves, _) in enumerate(found) for half in np.unique(halves)}
    for bits in _bits(batches):
        for n, half in lower:
            lower[n, half] += _count(bits[n][bits[n] >> 16 == half] & 0xFFFF)
    for (n, half), counts in lower.items():
        if np.sum(counts) != upper[n, half]:
            message = "gives other pixels when called again; make it read in a fixed manner"
            raise ValueError(f"batches {message} (band {n})")
    result = np.empty((len(fractions), len(found)))
    for n, (halves, rests) in enumerate(found):
        for i, fraction in enumerate(position - ranks[0]):
            pair = [_number(h, lower[n, h], r) for h, r in zip(halves[:, i], rests[:, i])]
            result[i, n] = np.quantile(pair, fraction)
    return result


def moments(batches, *, per_band):
    """Compute mean and standard deviation of all pixels.

    Args:
        batches: As for `percentiles`; called once.
        per_band: Whether every band has its own, or all bands share one.

    Returns:
        Mean and standard deviation (divided by the number of pixels), each float64, shape
        (bands,) or (1,), in the unit of the pixels; accumulated in float64.

    Raises:
        ValueError: If there is no pixel, one is not finite, or an array has another shape or type.

    Reference:
        Gabe (2022), Eq. 12, and Schaefer et al. (2018) share one; Aryal (2025) has one a channel.
    """
    scaler = StandardScaler()
    for batch in _checked(batches):
        scaler.partial_fit(batch.reshape(-1, batch.shape[-1] if per_band else 1))
    return scaler.mean_, np.sqrt(scaler.var_)


def _checked(batches):
    """Yield the batches as float32, or say which object is no image or has what is no number."""
    n_objects, n_pixels, bands = 0, 0, None
    for batch in batches():
        batch = np.asarray(batch)
        bands = batch.shape[-1:] if bands is None else bands
        if batch.ndim != 4 or batch.shape[-1:] != bands or not np.can_cast(batch.dtype, "float32"):
            found = f"batches has {batch.dtype} of shape {batch.shape} after {n_objects} objects"
            expected = (
                f"float32 of shape (batch, height, width, {'band' if not bands else bands[0]})"
            )
            raise ValueError(f"{found}, expected {expected}")
        finite = np.isfinite(batch).all(axis=(1, 2, 3))
        if not finite.all():
            found = (
                f"object {n_objects + np.argmin(finite)} of batches, from 0, has NaN or infinity"
            )
            raise ValueError(f"{found}, expected finite pixels; cutouts.read_cutout masks others")
        n_objects, n_pixels = n_objects + len(batch), n_pixels + batch.size
        if batch.size:
            yield batch.astype(np.float32, copy=False)
    if not n_pixels:
        raise ValueError("batches has no pixel, expected the images of the training objects")


def _bits(batches):
    """Yield the bits of every batch, uint32, shape (band, pixels)."""
    for batch in _checked(batches):
        bands = np.ascontiguousarray(np.moveaxis(batch, -1, 0))
        yield bands.reshape(len(bands), -1).view(np.uint32)


def _count(halves):
    return np.bincount(halves, minlength=1 << 16)


def _upper_halves():
    """Return the upper halves of float32 by growing number: negative ones have falling bits."""
    halves = np.arange(1 << 16)
    return np.concatenate([halves[: _NEGATIVE - 1 : -1], halves[:_NEGATIVE]])


def _at_ranks(counts, order, ranks):
    """Return which entry of `order` holds each rank, and the rank that remains inside it."""
    total = np.cumsum(counts[order])
    index = np.searchsorted(total, ranks, side="right")
    return order[index], ranks - (total - counts[order])[index]


def _number(upper, counts, rank):
    order = np.arange(1 << 16)
    lower, _ = _at_ranks(counts, order[::-1] if upper & _NEGATIVE else order, rank)
    return np.array(upper << 16 | lower, np.uint32).view(np.float32).astype(np.float64)
