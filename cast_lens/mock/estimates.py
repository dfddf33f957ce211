"""Numbers with 95 % intervals: a bootstrap over lens planes, and exact ones for fractions.

A lens plane is used for many objects, which are then alike: the independent unit is the plane. A
statistic is a function of columns, shape (columns, objects), sorted by the first, and of weights,
shape (draws, objects), to one number a draw, shape (draws,).
"""

import numpy as np
import pandas as pd
import scipy.stats

DRAWS = 400
AT_ONCE = 1 << 20  # weights in memory at a time
SEED = 0  # of the bootstrap: the same survey gives the same table


def estimate(statistic, columns, planes):
    """Compute a statistic and its percentile interval over resampled lens planes.

    Args:
        statistic: Function of columns and weights, as above.
        columns: List of arrays, each of shape (objects,); objects with a NaN are left out.
        planes: Lens plane of each object, shape (objects,), any hashable values.

    Returns:
        (value, low, high, n); low and high are NaN if there are fewer than two planes, and all
        three if there is no object.

    Reference:
        Efron & Tibshirani (1993), Ch. 13; the resampled unit is the independent one.
    """
    columns = np.array([np.asarray(column, np.float64) for column in columns])
    kept = ~np.isnan(columns).any(axis=0)
    order = np.flatnonzero(kept)[np.argsort(columns[0, kept], kind="stable")]
    columns = columns[:, order]
    if not len(order):
        return np.nan, np.nan, np.nan, 0
    value = float(statistic(columns, np.ones((1, len(order))))[0])
    plane, _ = pd.factorize(np.asarray(planes)[order], use_na_sentinel=False)
    n_planes = plane.max() + 1
    if n_planes < 2:
        return value, np.nan, np.nan, len(order)
    rng = np.random.default_rng(SEED)
    drawn = []
    for size in _parts(DRAWS, max(AT_ONCE // len(order), 1)):
        weights = np.empty((size, len(order)))
        for draw in weights:
            times = np.bincount(rng.integers(n_planes, size=n_planes), minlength=n_planes)
            draw[:] = times[plane]
        drawn.append(statistic(columns, weights))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return value, float(low), float(high), len(order)


def fraction(which):
    """Compute a fraction of objects with its exact (Clopper-Pearson) interval, as `estimate`."""
    which = np.asarray(which, bool)
    if not len(which):
        return np.nan, np.nan, np.nan, 0
    found = scipy.stats.binomtest(int(which.sum()), len(which)).proportion_ci(method="exact")
    return float(which.mean()), float(found.low), float(found.high), len(which)


def quantile(q):
    """Return a statistic: the quantile `q`, between the two objects it falls on."""

    def weighted(columns, weights):
        cumulative = np.cumsum(weights, axis=1)
        ends = np.array([
            [np.searchsorted(row, q * row[-1], side) for side in ("left", "right")]
            for row in cumulative
        ])  # fmt: skip
        return columns[0][np.minimum(ends, weights.shape[1] - 1)].mean(axis=1)

    return weighted


def mean(columns, weights):
    """Compute the mean."""
    return weights @ columns[0] / weights.sum(axis=1)


def std(columns, weights):
    """Compute the standard deviation, divided by the number."""
    from_middle = columns[0] - columns[0].mean()  # lest rounding decide
    first, second = (mean([power], weights) for power in (from_middle, from_middle**2))
    return np.sqrt(np.maximum(second - first**2, 0))


def pixel_mean(columns, weights):
    """Compute the mean over pixels from each object's sum, sum of squares and number of pixels."""
    total, _, n = columns @ weights.T
    return total / n


def pixel_std(columns, weights):
    """Compute the standard deviation over pixels from the columns of `pixel_mean`."""
    total, squares, n = columns @ weights.T
    return np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))


def pixel_rms(columns, weights):
    """Compute the rms about 0 over pixels from sum of squares and number of pixels."""
    squares, n = columns @ weights.T
    return np.sqrt(squares / n)


def maximum(columns, weights):
    """Compute the maximum; its interval only tells how far it hangs on single objects."""
    return np.where(weights > 0, columns[0], -np.inf).max(axis=1)


def _parts(whole, most):
    """Return sizes of at most `most` that sum to `whole`."""
    return [min(most, whole - start) for start in range(0, whole, most)]
