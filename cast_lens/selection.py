"""The selection function: which fraction of the lenses is found, and how it depends on the lens.

Scores say who is called a lens at a threshold, a catalog of truth what each lens is like. A bin
without lenses is undefined, never 0: nothing was there to be missed.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from sklearn.metrics import roc_curve

from cast_lens import intervals, metrics
from cast_lens.metrics import UndefinedMetric
from cast_lens.run import RunError


@dataclass(frozen=True)
class Threshold:
    """Where objects are called lenses, and what that costs.

    Attributes:
        value: Least score of an object called a lens; infinite if none is.
        chosen_by: Words: by a score, a number inspected or a false-positive rate.
        n_objects: Objects scored.
        n_called: Of these called lenses.
        n_lenses: True lenses.
        n_found: Of these called lenses.
        n_false: Non-lenses called lenses.
        false_positive_rate: n_false over the number of non-lenses; NaN without non-lenses.
        false_positive_rate_below: Its one-sided 95 % Clopper-Pearson bound, about 3 over the
            number of non-lenses if none of them was called (the rule of three).
    """

    value: float
    chosen_by: str
    n_objects: int
    n_called: int
    n_lenses: int
    n_found: int
    n_false: int
    false_positive_rate: float
    false_positive_rate_below: float


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """P(called) = 1 / (1 + exp(-(intercept + slope x))), by maximum likelihood.

    Attributes:
        intercept: Log-odds at x = 0.
        slope: Log-odds per unit of x.
        covariance: Of both, inverse of the Fisher information, shape (2, 2).
        is_log: Whether x is log10 of the quantity.
        level: Coverage of the intervals.
        half: Value of the quantity at which half of the lenses are found; NaN if that is beyond
            all lenses fitted.
        half_interval: Its interval (Fieller), which may reach beyond them; NaN if `half` is, or if
            the data do not bound it.
        p: Of the chi-square of ten groups of equal number against the curve; a small one says that
            the lenses do not follow a logistic curve, and that the bins are to be trusted instead.
        n: Lenses fitted.
    """

    intercept: float
    slope: float
    covariance: np.ndarray
    is_log: bool
    level: float
    half: float
    half_interval: intervals.Interval
    p: float
    n: int

    def at(self, values):
        """Return completeness and both ends of its interval at values of the quantity."""
        x = np.log10(values) if self.is_log else np.asarray(values, float)
        center = self.intercept + self.slope * x
        (aa, ab), (_, bb) = self.covariance
        error = np.sqrt(np.maximum(aa + 2 * ab * x + bb * x**2, 0))
        z = _normal(self.level)
        return tuple(scipy.special.expit(center + k * z * error) for k in (0, -1, 1))


def choose_threshold(labels, scores, *, score=None, inspected=None, false_positive_rate=None):
    """Call objects lenses at a threshold that is given in one of three ways.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,); larger is more lens-like.
        score: Least score of an object called a lens.
        inspected: Number of highest-scoring objects, all called; ties keep catalog order.
        false_positive_rate: Largest allowed fraction of non-lenses called; the most complete
            threshold that keeps to it. Tied objects are called together.

    Returns:
        Whether each object is called, bool, shape (objects,), and the Threshold.

    Raises:
        UndefinedMetric: If more are to be inspected than there are, or a false-positive rate is
            asked for without both classes.
        RunError: If not exactly one way is given, or its number is out of range.
    """
    labels, scores = metrics.check(labels, scores)
    ways = {"score": score, "inspected": inspected, "false_positive_rate": false_positive_rate}
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) != 1:
        raise RunError(f"give one of {', '.join(ways)}; found {', '.join(given) or 'none'}")
    if score is not None:
        if math.isnan(score):
            raise RunError("score is NaN, expected a number")
        called, value, words = scores >= score, float(score), f"score >= {score:g}"
    elif inspected is not None:
        if inspected < 1:
            raise RunError(f"inspected is {inspected}, expected at least 1")
        if inspected > len(scores):
            raise UndefinedMetric(f"cannot inspect {inspected} of {len(scores)} objects")
        best = np.argsort(-scores, kind="stable")[:inspected]
        called = np.zeros(len(scores), bool)
        called[best] = True
        value, words = float(scores[best[-1]]), f"the {inspected} highest scores"
    else:
        value = _at_false_positive_rate(labels, scores, false_positive_rate)
        called, words = scores >= value, f"false-positive rate <= {false_positive_rate:g}"
    return called, _threshold(labels, called, value, words)


def false_positive_bound(n_false, n_nonlens, *, level=0.95):
    """Compute the one-sided Clopper-Pearson upper bound of a false-positive rate.

    Args:
        n_false: Non-lenses called lenses.
        n_nonlens: Non-lenses, at least 1.
        level: Coverage.

    Returns:
        The rate that the true one is below; 1 - (1 - level)^(1/n) for none, about 3/n at 95 %.

    Reference:
        Clopper & Pearson (1934).
    """
    test = scipy.stats.binomtest(int(n_false), int(n_nonlens), alternative="less")
    return float(test.proportion_ci(level, method="exact").high)


def equal_number_edges(values, bins):
    """Return edges of bins that hold equally many of the finite values, as far as ties allow.

    Args:
        values: Shape (lenses,), in any unit.
        bins: Bins wanted, at least 1; fewer where many values are equal.

    Returns:
        Edges, increasing, shape (bins + 1,), in the unit of the values.

    Raises:
        UndefinedMetric: If no value is finite.
        RunError: If `bins` is less than 1.
    """
    if bins < 1:
        raise RunError(f"bins is {bins}, expected at least 1")
    finite = np.asarray(values, float)[np.isfinite(values)]
    if not len(finite):
        raise UndefinedMetric("no lens has this quantity")
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], np.nextafter(edges[0], np.inf)])


def completeness_in_bins(values, called, edges, *, level=0.95):
    """Count the lenses found in bins of one quantity, or in cells of several.

    Args:
        values: {quantity: values of the lenses, shape (lenses,)}; NaN where it was not measured.
        called: Whether each lens is called one, bool, shape (lenses,).
        edges: {quantity: increasing edges, shape (bins + 1,)}. A bin holds its lower edge, the
            last one its upper edge too.
        level: Coverage of Wilson's interval.

    Returns:
        DataFrame, a row a bin or cell: <quantity>_low, <quantity>_high (edges), <quantity>_median
        (of its lenses), n_lenses, n_found, completeness, low, high, and status, "measured" or
        "undefined" (no lens; NaN then).

    Raises:
        RunError: If edges do not increase, or shapes differ.
    """
    called = np.asarray(called, bool)
    cells = {name: _cells(values[name], edges[name], name, len(called)) for name in edges}
    rows = []
    for place in np.ndindex(*(len(edges[name]) - 1 for name in edges)):
        inside = np.ones(len(called), bool)
        row: dict = {}
        for name, k in zip(edges, place):
            inside &= cells[name] == k
            row |= {f"{name}_low": edges[name][k], f"{name}_high": edges[name][k + 1]}
        for name in edges:
            own = np.asarray(values[name], float)[inside]
            row[f"{name}_median"] = float(np.median(own)) if len(own) else math.nan
        n, found = int(inside.sum()), int(called[inside].sum())
        low, high = intervals.wilson(found, n, level=level) if n else (math.nan, math.nan)
        row |= {"n_lenses": n, "n_found": found, "completeness": found / n if n else math.nan}
        rows.append(row | {"low": low, "high": high, "status": "measured" if n else "undefined"})
    return pd.DataFrame(rows)


def fit_logistic(values, called, *, is_log, level=0.95):
    """Fit the completeness as a smooth function of one quantity.

    The curve goes from 0 to 1 by its form, so lenses that no brightness makes visible do not fit;
    `LogisticFit.p` tells.

    Args:
        values: Of the lenses, shape (lenses,); NaN ones are left out, and values <= 0 if `is_log`.
        called: Whether each lens is called one, bool, shape (lenses,).
        is_log: Fit log10 of the quantity.
        level: Coverage of the intervals.

    Returns:
        A LogisticFit.

    Raises:
        UndefinedMetric: If all lenses or none are found, a value of the quantity parts the found
            from the missed ones, or all values are equal: no curve is the likeliest then.
    """
    from sklearn.linear_model import LogisticRegression

    values, called = np.asarray(values, float), np.asarray(called, bool)
    used = np.isfinite(values) & ((values > 0) | (not is_log))
    x, y = values[used], called[used]
    x = np.log10(x) if is_log else x
    if len(y) < 3 or y.all() or not y.any() or np.ptp(x) == 0:
        raise UndefinedMetric(f"{y.sum()} of {len(y)} lenses found, at {len(np.unique(x))} values")
    if x[y].min() >= x[~y].max() or x[~y].min() >= x[y].max():
        raise UndefinedMetric("one value parts the lenses found from the missed ones")
    center, spread = x.mean(), x.std()
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(((x - center) / spread)[:, None], y)
    slope = float(model.coef_[0, 0] / spread)
    intercept = float(model.intercept_[0] - slope * center)
    expected = scipy.special.expit(intercept + slope * x)
    design = np.stack([np.ones_like(x), x])
    covariance = np.linalg.inv((design * expected * (1 - expected)) @ design.T)
    half = _half(intercept, slope, covariance, _normal(level))
    if not x.min() <= half[0] <= x.max():
        half = (math.nan,) * 3
    half = [10.0**v if is_log else v for v in half]
    p = _goodness(x, y, expected)
    return LogisticFit(
        intercept, slope, covariance, is_log, level, half[0], intervals.Interval(*half[1:]), p,
        len(y),
    )  # fmt: skip


def _at_false_positive_rate(labels, scores, rate):
    if not 0 <= rate <= 1:
        raise RunError(f"false_positive_rate is {rate}, expected between 0 and 1")
    metrics.require_classes(labels)
    fpr, _, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    allowed = thresholds[fpr <= rate + 1e-12]  # the first is infinite: nothing is called
    return float(allowed[-1])


def _threshold(labels, called, value, words):
    n_lenses, n_found = int(labels.sum()), int((called & (labels == 1)).sum())
    n_false, n_nonlens = int(called.sum()) - n_found, len(labels) - n_lenses
    rate = below = math.nan
    if n_nonlens:
        rate, below = n_false / n_nonlens, false_positive_bound(n_false, n_nonlens)
    return Threshold(
        value, words, len(labels), int(called.sum()), n_lenses, n_found, n_false, rate, below
    )


def _cells(values, edges, name, n):
    """Return the bin of each value, -1 where it is in none."""
    values, edges = np.asarray(values, float), np.asarray(edges, float)
    if values.shape != (n,):
        raise RunError(f"{name} has shape {values.shape}, expected ({n},), one a lens")
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise RunError(f"edges of {name} are {edges}, expected two or more that increase")
    cells = np.searchsorted(edges, values, side="right") - 1
    cells[values == edges[-1]] = len(edges) - 2
    cells[~np.isfinite(values) | (cells >= len(edges) - 1)] = -1
    return cells


def _half(intercept, slope, covariance, z):
    """Return where the curve is 1/2, and both ends of Fieller's interval of that place."""
    (aa, ab), (_, bb) = covariance
    square = slope**2 - z**2 * bb
    if square <= 0:  # the slope could be 0, so the place could be anywhere
        return -intercept / slope if slope else math.nan, math.nan, math.nan
    middle, constant = intercept * slope - z**2 * ab, intercept**2 - z**2 * aa
    root = math.sqrt(max(middle**2 - square * constant, 0.0))
    return -intercept / slope, (-middle - root) / square, (-middle + root) / square


def _goodness(x, y, expected):
    """Return p of the chi-square of groups of equal number; NaN if they are too few."""
    groups = [part for part in np.array_split(np.argsort(x, kind="stable"), 10) if len(part)]
    variance = np.array([np.sum(expected[part] * (1 - expected[part])) for part in groups])
    off = np.array([np.sum(y[part] - expected[part]) for part in groups])
    large = variance > 1  # ASSUMED: a variance of 1 or less is too far from a normal distribution
    if large.sum() < 3:
        return math.nan
    return float(scipy.stats.chi2.sf(np.sum(off[large] ** 2 / variance[large]), large.sum() - 2))


def _normal(level):
    return float(scipy.stats.norm.ppf((1 + level) / 2))
