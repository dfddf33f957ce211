"""How far to trust a metric: bootstrap, DeLong, corrected t and Wilson intervals."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

from cast_lens import metrics


class Interval(NamedTuple):
    """Both ends of a confidence interval, in the unit of the estimate."""

    low: float
    high: float


class AucComparison(NamedTuple):
    """Two AUCs on the same objects; `p` is two-sided, for equal AUCs."""

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    z: float
    p: float


class CorrectedTTest(NamedTuple):
    """A mean difference over splits; `p` is two-sided, for zero; low and high are 95 %."""

    mean: float
    sd: float
    standard_error: float
    t: float
    p: float
    low: float
    high: float


class _Draw(NamedTuple):
    """Lenses (tp) and non-lenses (fp) of one resample counted from the highest score down."""

    tp: np.ndarray  # after each distinct score, shape (thresholds,), int64
    fp: np.ndarray
    tp_by_object: np.ndarray  # after each object, ties in catalog order, shape (objects,), int64
    fp_by_object: np.ndarray


def bootstrap(labels, scores, statistics, *, draws, seed, level=0.95):
    """Compute stratified percentile bootstrap intervals, all statistics on the same draws.

    Lenses and non-lenses are resampled separately, so that the base rate is the sample's. The
    scores are sorted once; a draw is then a count per object and two cumulative sums. TPR0 hangs
    on one object, the highest non-lens, for which no bootstrap interval has its nominal coverage.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        statistics: Name to function, as for `metrics.evaluate`: `metrics.roc_auc`,
            `average_precision`, `max_f_beta`, `tpr_at_false_positives` or `lenses_in_top`, their
            keywords given by `functools.partial`.
        draws: Resamples, at least 1; 2,000 is usual.
        seed: Seed or NumPy Generator.
        level: Coverage, between 0 and 1.

    Returns:
        Name to `Interval`.

    Raises:
        UndefinedMetric: If a class has fewer than two objects or a statistic does not exist.
        ValueError: If a statistic is not among those above, or `draws` is less than 1.

    Reference:
        Efron & Tibshirani (1993), Ch. 13.
    """
    labels, scores = metrics.check(labels, scores)
    metrics.require_classes(labels, each=2)
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected at least 1")
    forms = [_form(statistic) for statistic in statistics.values()]
    for statistic in statistics.values():
        statistic(labels, scores)  # what does not exist for the sample is refused before it costs
    order = np.argsort(-scores, kind="stable")
    lenses, others = np.flatnonzero(labels[order] == 1), np.flatnonzero(labels[order] == 0)
    ends = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    rng = np.random.default_rng(seed)
    values = np.empty((draws, len(forms)))
    for row in values:  # one draw at a time fits the processor's cache, and memory
        tp, fp = _resample(lenses, len(order), rng), _resample(others, len(order), rng)
        draw = _Draw(tp[ends], fp[ends], tp, fp)
        row[:] = [form(draw) for form in forms]
    bounds = np.quantile(values, _tails(level), axis=0)
    return {name: Interval(*pair) for name, pair in zip(statistics, bounds.T.tolist(), strict=True)}


def delong(labels, scores_a, scores_b):
    """Compare the ROC AUCs of two networks on the same objects.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores_a: Output of one network, shape (objects,).
        scores_b: Output of the other, shape (objects,), in the same order.

    Returns:
        `AucComparison` of a minus b. Without variance (the same ranking twice, or both AUCs 0 or
        1) z is 0 and p is 1 for equal AUCs, else z is infinite and p is 0.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988); by midranks as in Sun & Xu (2014).
    """
    lens_a, other_a = _placements(labels, scores_a)
    lens_b, other_b = _placements(labels, scores_b)
    difference = float(np.mean(lens_a - lens_b))
    # The variance of the paired differences is that of the 2x2 covariance, and exactly 0 for
    # equal rankings.
    error = _placement_error(lens_a - lens_b, other_a - other_b)
    z = _ratio(difference, error)
    p = float(2 * scipy.stats.norm.sf(abs(z)))
    return AucComparison(float(lens_a.mean()), float(lens_b.mean()), difference, error, z, p)


def delong_interval(labels, scores, *, level=0.95):
    """Compute the normal interval of one ROC AUC with DeLong's variance, cut at 0 and 1.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        level: Coverage, between 0 and 1.

    Returns:
        `Interval`; of zero width when the AUC is 0 or 1.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988).
    """
    lens, other = _placements(labels, scores)
    half = scipy.stats.norm.ppf(_tails(level)[1]) * _placement_error(lens, other)
    return Interval(float(max(lens.mean() - half, 0)), float(min(lens.mean() + half, 1)))


def corrected_t_test(differences, *, n_train, n_test):
    """Test whether the mean difference over k overlapping random splits is zero.

    The variance of the mean is (1/k + n_test/n_train) s^2, with k - 1 degrees of freedom: splits
    share training objects, so their results are correlated and s^2/k is too small.

    Args:
        differences: Metric of one method minus the other, per split, shape (splits,).
        n_train: Training objects of a split, more than 0.
        n_test: Test objects of a split, at least 0.

    Returns:
        `CorrectedTTest`. Without variance the interval has zero width; t is 0 and p is 1 for a
        zero mean, else t is infinite and p is 0.

    Raises:
        UndefinedMetric: If there are fewer than two differences.
        ValueError: If a difference is not finite, or a number of objects is out of range.

    Reference:
        Nadeau & Bengio (2003), the corrected resampled t-test.
    """
    values = _runs(differences)
    mean, sd = _mean_and_sd(values)
    error = sd * math.sqrt(1 / len(values) + _overlap(n_train, n_test))
    t = _ratio(mean, error)
    p = float(2 * scipy.stats.t.sf(abs(t), len(values) - 1))
    interval = mean_interval(values, n_train=n_train, n_test=n_test)
    return CorrectedTTest(mean, sd, error, t, p, interval.low, interval.high)


def mean_interval(values, *, n_train=None, n_test=None, level=0.95):
    """Compute the t interval of a mean over runs.

    Args:
        values: A metric per run, shape (runs,).
        n_train: Training objects of a split; with `n_test`, the variance is that of
            `corrected_t_test`, for runs on overlapping splits.
        n_test: Test objects of a split.
        level: Coverage, between 0 and 1.

    Returns:
        `Interval`; of zero width when all values are equal.

    Raises:
        UndefinedMetric: If there are fewer than two values.
        ValueError: If a value is not finite, only one of `n_train` and `n_test` is given, or one
            is out of range.

    Reference:
        Nadeau & Bengio (2003), for overlapping splits.
    """
    values = _runs(values)
    if (n_train is None) != (n_test is None):
        raise ValueError(f"give both n_train ({n_train}) and n_test ({n_test}), or neither")
    overlap = 0.0 if n_train is None else _overlap(n_train, n_test)
    mean, sd = _mean_and_sd(values)
    t = scipy.stats.t.ppf(_tails(level)[1], len(values) - 1)
    half = float(t) * sd * math.sqrt(1 / len(values) + overlap)
    return Interval(mean - half, mean + half)


def wilson(k, n, *, level=0.95):
    """Compute Wilson's interval of a proportion, such as a purity or a completeness.

    Args:
        k: Successes, in [0, n].
        n: Trials, at least 1.
        level: Coverage, between 0 and 1.

    Returns:
        `Interval` in [0, 1].

    Raises:
        UndefinedMetric: If there is no trial.
        ValueError: If `k` is outside [0, n].

    Reference:
        Wilson (1927); scipy.stats.binomtest.
    """
    if n == 0:
        raise metrics.UndefinedMetric("no trials, so the proportion is 0/0")
    _tails(level)
    found = scipy.stats.binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(found.low), float(found.high))


def _form(statistic):
    """Find the form of a metric that works on the counts of a draw, with its keywords set."""
    forms: dict[Callable, Callable] = {
        metrics.roc_auc: _roc_auc,
        metrics.average_precision: _average_precision,
        metrics.max_f_beta: _max_f_beta,
        metrics.tpr_at_false_positives: _tpr_at_false_positives,
        metrics.lenses_in_top: _lenses_in_top,
    }
    function = getattr(statistic, "func", statistic)
    if function not in forms:
        names = ", ".join(form.__name__ for form in forms)
        raise ValueError(f"no bootstrap form of {function!r}; expected one of metrics.{names}")
    return functools.partial(forms[function], **getattr(statistic, "keywords", {}))


def _resample(positions, n_objects, rng):
    """Draw `positions` with replacement; count the drawn up to each of `n_objects` positions."""
    drawn = positions[rng.integers(len(positions), size=len(positions))]
    return np.bincount(drawn, minlength=n_objects).cumsum()


def _roc_auc(draw):
    # Twice the area in whole numbers: a non-lens counts a lens above it twice, a tied one once.
    lenses_twice = draw.tp + np.append(0, draw.tp[:-1])
    return np.sum(np.diff(draw.fp, prepend=0) * lenses_twice) / (2 * draw.tp[-1] * draw.fp[-1])


def _average_precision(draw):
    # Above the first drawn object nothing is called: tp is 0, and so is the term for any divisor.
    purity = draw.tp / np.maximum(draw.tp + draw.fp, 1)
    # Not a BLAS dot product, whose threads wait for one another on a busy machine.
    return np.sum(np.diff(draw.tp, prepend=0) * purity) / draw.tp[-1]


def _max_f_beta(draw, *, beta_squared):
    called = np.maximum(draw.tp + draw.fp, 1)
    return np.max((1 + beta_squared) * draw.tp / (beta_squared * draw.tp[-1] + called))


def _tpr_at_false_positives(draw, *, n_false):
    allowed = np.searchsorted(draw.fp, n_false, side="right")
    return draw.tp[allowed - 1] / draw.tp[-1] if allowed else 0.0


def _lenses_in_top(draw, *, n):
    inspected = draw.tp_by_object + draw.fp_by_object
    last = np.searchsorted(inspected, n)  # the object whose copies reach n, perhaps beyond it
    found = draw.tp_by_object[last - 1] if last else 0
    before = inspected[last - 1] if last else 0
    return found + min(draw.tp_by_object[last] - found, n - before)


def _placements(labels, scores):
    """Compute the fraction of the other class below each lens and above each non-lens."""
    labels, scores = metrics.check(labels, scores)
    metrics.require_classes(labels, each=2)
    lenses, others = scores[labels == 1], scores[labels == 0]
    ranks = scipy.stats.rankdata(np.concatenate([lenses, others]))  # midranks: a tie counts 1/2
    below = ranks[: len(lenses)] - scipy.stats.rankdata(lenses)
    above = len(lenses) - ranks[len(lenses) :] + scipy.stats.rankdata(others)
    return below / len(others), above / len(lenses)


def _placement_error(lens, other):
    return math.sqrt(np.var(lens, ddof=1) / len(lens) + np.var(other, ddof=1) / len(other))


def _runs(values):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected finite values of shape (runs,), found {values}")
    if len(values) < 2:
        raise metrics.UndefinedMetric(f"a spread needs at least 2 runs, found {len(values)}")
    return values


def _mean_and_sd(values):
    if np.ptp(values) == 0:  # np.std of equal values can differ from 0 by rounding
        return float(values[0]), 0.0
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _overlap(n_train, n_test):
    if not (n_train > 0 and n_test >= 0):
        raise ValueError(f"n_train is {n_train} and n_test {n_test}; expected > 0 and >= 0")
    return n_test / n_train


def _ratio(value, error):
    if error == 0:
        return math.copysign(math.inf, value) if value else 0.0
    return value / error


def _tails(level):
    """Compute the two quantiles that enclose `level` of a distribution."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected between 0 and 1")
    return (1 - level) / 2, (1 + level) / 2
