"""Intervals against explicit resamples, DeLong's double loop, hand values and scipy."""

import math
import tracemalloc
from functools import partial

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from cast_lens import intervals, metrics

STATISTICS = {
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "f": partial(metrics.max_f_beta, beta_squared=0.001),
    "f1": partial(metrics.max_f_beta, beta_squared=1.0),
    "tpr0": partial(metrics.tpr_at_false_positives, n_false=0),
    "tpr3": partial(metrics.tpr_at_false_positives, n_false=3),
    "top_1": partial(metrics.lenses_in_top, n=1),
    "top_7": partial(metrics.lenses_in_top, n=7),
    "top_none": partial(metrics.lenses_in_top, n=0),
}


def random_sample(seed):
    """Draw a sample of at least 8 objects, two of each class; two thirds have many ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 80))
    labels = np.zeros(n, int)
    labels[: rng.integers(2, n - 1)] = 1
    scores = rng.normal(size=n) + labels
    scores = np.round(scores, seed % 3) if seed % 3 < 2 else scores
    order = rng.permutation(n)
    return labels[order], scores[order]


def on_repeated_sample(labels, scores):
    """Compute STATISTICS by scikit-learn, or a loop where it has none."""
    purity, completeness, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    total = purity + completeness

    def f(beta_squared):
        below = np.where(total > 0, beta_squared * purity + completeness, 1)
        return np.max((1 + beta_squared) * purity * completeness / below)

    def tpr(n_false):
        called = [labels[scores >= threshold] for threshold in scores]
        return max([c.sum() for c in called if (c == 0).sum() <= n_false], default=0) / labels.sum()

    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    return {
        "roc_auc": sklearn.metrics.roc_auc_score(labels, scores),
        "average_precision": sklearn.metrics.average_precision_score(labels, scores),
        "f": f(0.001),
        "f1": f(1.0),
        "tpr0": tpr(0),
        "tpr3": tpr(3),
        "top_1": labels[order[:1]].sum(),
        "top_7": labels[order[:7]].sum(),
        "top_none": 0,
    }


samples = pytest.mark.parametrize("sample", [random_sample(seed) for seed in range(15)])


@samples
def test_a_draw_has_the_statistics_of_the_explicitly_repeated_sample(sample, monkeypatch):
    labels, scores = sample
    order = np.array(sorted(range(len(labels)), key=lambda i: -scores[i]))
    resample, drawn = intervals._resample, []
    monkeypatch.setattr(
        intervals, "_resample", lambda *args: drawn.append(resample(*args)) or drawn[-1]
    )
    for seed in range(6):
        drawn.clear()
        found = intervals.bootstrap(labels, scores, STATISTICS, draws=1, seed=seed)
        counts = np.zeros(len(labels), int)
        counts[order] = np.diff(drawn[0], prepend=0) + np.diff(drawn[1], prepend=0)
        repeated = np.repeat(np.arange(len(labels)), counts)
        assert labels[repeated].sum() == labels.sum() and len(repeated) == len(labels)
        for name, value in on_repeated_sample(labels[repeated], scores[repeated]).items():
            assert found[name] == pytest.approx((value, value), abs=1e-12), name


def test_the_interval_is_the_quantiles_of_successive_draws():
    labels, scores = random_sample(5)
    rng = np.random.default_rng(9)
    single = [intervals.bootstrap(labels, scores, STATISTICS, draws=1, seed=rng) for _ in range(99)]
    found = intervals.bootstrap(labels, scores, STATISTICS, draws=99, seed=9, level=0.8)
    for name in STATISTICS:
        expected = np.quantile([draw[name].low for draw in single], [0.1, 0.9])
        assert found[name] == pytest.approx(expected, abs=1e-12)
    assert found["roc_auc"].low < metrics.roc_auc(labels, scores) < found["roc_auc"].high


def test_a_resample_draws_every_position_equally_and_no_other():
    rng, positions = np.random.default_rng(2), np.array([1, 4, 5])
    counts = [np.diff(intervals._resample(positions, 7, rng), prepend=0) for _ in range(3000)]
    assert np.all(np.sum(counts, axis=1) == 3)
    # Each count is binomial (3, 1/3): mean 1, variance 2/3.
    mean, variance = np.mean(counts, axis=0), np.var(counts, axis=0)
    chosen = np.isin(np.arange(7), positions).astype(float)
    assert mean == pytest.approx(chosen, abs=4 * math.sqrt(2 / 3 / 3000))
    assert variance == pytest.approx(chosen * 2 / 3, abs=0.08)


@pytest.mark.slow
def test_bootstrap_covers_the_known_area_of_two_gaussians_at_its_level():
    # Unit normals 1 apart: AUC = Phi(1 / sqrt(2)). 300 samples at 80 % have a deviation of .023.
    truth, rng, hits = scipy.stats.norm.cdf(1 / math.sqrt(2)), np.random.default_rng(0), 0
    labels = np.repeat([1, 0], [60, 80])
    for seed in range(300):
        scores = rng.normal(size=140) + labels
        interval = intervals.bootstrap(
            labels, scores, {"auc": metrics.roc_auc}, draws=150, seed=seed, level=0.8
        )["auc"]
        hits += interval.low <= truth <= interval.high
    assert 0.72 < hits / 300 < 0.87


def test_bootstrap_repeats_with_its_seed():
    labels, scores = random_sample(4)
    first, again, other = (
        intervals.bootstrap(labels, scores, STATISTICS, draws=40, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_statistics_share_their_draws():
    labels, scores = random_sample(4)
    alone = intervals.bootstrap(labels, scores, {"tpr0": STATISTICS["tpr0"]}, draws=40, seed=1)
    together = intervals.bootstrap(labels, scores, STATISTICS, draws=40, seed=1)
    assert alone["tpr0"] == together["tpr0"]


def test_bootstrap_of_perfect_scores_has_no_width():
    names = ("roc_auc", "average_precision", "f", "tpr0")
    found = intervals.bootstrap(
        [1, 1, 0, 0], [4, 3, 2, 1], {name: STATISTICS[name] for name in names}, draws=50, seed=0
    )
    assert all(interval == pytest.approx((1, 1)) for interval in found.values())


def test_bootstrap_memory_does_not_grow_with_the_draws():
    rng = np.random.default_rng(0)
    labels, scores = np.arange(20_000) % 2, rng.normal(size=20_000)

    def peak(draws):
        tracemalloc.start()
        intervals.bootstrap(labels, scores, {"auc": metrics.roc_auc}, draws=draws, seed=0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(200) < 1.1 * peak(2) + 200 * 64


def components(labels, scores):
    """Compute DeLong's structural components by their double loop."""
    lenses, others = scores[labels == 1], scores[labels == 0]
    psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in others] for x in lenses])
    return psi.mean(axis=1), psi.mean(axis=0)


@samples
def test_delong_is_the_covariance_of_the_double_loop(sample):
    labels, scores_a = sample
    noise = np.random.default_rng(3).normal(size=len(labels))
    scores_b = np.round(scores_a + noise, 1)
    lens_a, other_a = components(labels, scores_a)
    lens_b, other_b = components(labels, scores_b)
    covariance = np.cov(lens_a, lens_b) / len(lens_a) + np.cov(other_a, other_b) / len(other_a)
    contrast = np.array([1, -1])
    error = math.sqrt(contrast @ covariance @ contrast)
    found = intervals.delong(labels, scores_a, scores_b)
    assert found.auc_a == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores_a), abs=1e-12)
    assert found.auc_b == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores_b), abs=1e-12)
    assert found.difference == pytest.approx(found.auc_a - found.auc_b, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.z == pytest.approx(found.difference / error, rel=1e-9)
    assert found.p == pytest.approx(math.erfc(abs(found.z) / math.sqrt(2)), rel=1e-9)
    low, high = intervals.delong_interval(labels, scores_a, level=0.9)
    half = 1.6448536269514722 * math.sqrt(covariance[0, 0])  # the normal quantile of 0.95
    assert (low, high) == pytest.approx(
        (max(found.auc_a - half, 0), min(found.auc_a + half, 1)), abs=1e-12
    )


def test_delong_has_its_hand_values():
    # Lenses 3, 1 and others 2, 0: V10 = (1, 1/2), V01 = (1/2, 1), AUC 3/4, each variance 1/8.
    # b ranks perfectly, so the error of the difference is that of a: sqrt(1/16 + 1/16).
    found = intervals.delong([1, 1, 0, 0], [3, 1, 2, 0], [4, 3, 2, 1])
    assert found[:3] == (0.75, 1.0, -0.25)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 8), abs=1e-15)
    assert found.z == pytest.approx(-0.25 * math.sqrt(8), abs=1e-15)
    low, high = intervals.delong_interval([1, 1, 0, 0], [3, 1, 2, 0], level=0.5)
    assert low == pytest.approx(0.75 - 0.6744897501960817 / math.sqrt(8), abs=1e-12)
    assert high == pytest.approx(0.75 + 0.6744897501960817 / math.sqrt(8), abs=1e-12)
    low, high = intervals.delong_interval([1, 1, 0, 0], [0, 2, 1, 3])
    assert (low, high) == (0, pytest.approx(0.25 + 1.959963984540054 / math.sqrt(8), abs=1e-12))


@samples
def test_delong_of_equal_rankings_has_no_difference_and_p_of_one(sample):
    labels, scores = sample
    for other in (scores, np.exp(scores)):
        found = intervals.delong(labels, scores, other)
        assert (found.difference, found.standard_error, found.z, found.p) == (0, 0, 0, 1)


def test_delong_without_variance_but_with_a_difference_is_certain():
    found = intervals.delong([1, 1, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4])
    assert (found.difference, found.z, found.p) == (1, math.inf, 0)
    assert intervals.delong_interval([1, 1, 0, 0], [4, 3, 2, 1]) == (1, 1)


def test_delong_swaps_sign_with_its_arguments():
    labels, a = random_sample(1)
    b = np.random.default_rng(0).normal(size=len(a))
    one, two = intervals.delong(labels, a, b), intervals.delong(labels, b, a)
    assert (one.difference, one.z, one.p) == (-two.difference, -two.z, two.p)


def test_delong_is_false_at_its_rate_when_both_networks_are_equally_good():
    rng, labels = np.random.default_rng(0), np.arange(120) % 2
    ps = []
    for _ in range(600):
        truth = rng.normal(size=120) + labels
        a, b = truth + rng.normal(size=120), truth + rng.normal(size=120)
        ps.append(intervals.delong(labels, a, b).p)
    # 600 tests at 20 % have a deviation of .016.
    assert 0.14 < np.mean(np.array(ps) < 0.2) < 0.26


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_intervals_refuse_a_score_that_is_not_finite(bad):
    labels, good, scores = [1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0], [0.1, 0.2, bad, 0.4]
    for call in (
        partial(intervals.bootstrap, labels, scores, STATISTICS, draws=1, seed=0),
        partial(intervals.delong, labels, scores, good),
        partial(intervals.delong, labels, good, scores),
        partial(intervals.delong_interval, labels, scores),
    ):
        with pytest.raises(ValueError, match="object_id 2"):
            call()


@pytest.mark.parametrize(
    "labels", [[], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 1, 0]], ids=lambda labels: f"{labels}"
)
def test_intervals_of_a_class_with_fewer_than_two_objects_are_undefined(labels):
    scores = np.arange(len(labels)) / 10
    for call in (
        partial(intervals.bootstrap, labels, scores, {}, draws=1, seed=0),
        partial(intervals.delong, labels, scores, scores),
        partial(intervals.delong_interval, labels, scores),
    ):
        with pytest.raises(metrics.UndefinedMetric, match="needs 2 of each"):
            call()


def test_all_scores_equal_have_an_interval_of_chance():
    labels, scores = np.arange(30) % 2, np.ones(30)
    found = intervals.bootstrap(labels, scores, STATISTICS, draws=60, seed=0)
    assert found["roc_auc"] == (0.5, 0.5) and found["tpr0"] == (0, 0)
    assert found["average_precision"] == pytest.approx((0.5, 0.5))
    assert intervals.delong_interval(labels, scores) == (0.5, 0.5)
    assert found["top_7"].low < 3 < found["top_7"].high  # catalog order, still resampled


def test_bootstrap_refuses_what_it_cannot_do():
    run = partial(intervals.bootstrap, [1, 1, 0, 0], [4, 3, 2, 1], seed=0)
    with pytest.raises(ValueError, match="log_loss.*lenses_in_top"):
        run({"loss": metrics.log_loss}, draws=5)
    with pytest.raises(metrics.UndefinedMetric, match="cannot inspect 5 of 4"):
        run({"top": partial(metrics.lenses_in_top, n=5)}, draws=5)
    with pytest.raises(ValueError, match="n_false"):
        run({"tpr": partial(metrics.tpr_at_false_positives, n_false=-1)}, draws=5)
    with pytest.raises(ValueError, match="draws is 0"):
        run({"auc": metrics.roc_auc}, draws=0)
    with pytest.raises(ValueError, match="level is 95"):
        run({"auc": metrics.roc_auc}, draws=5, level=95)


def test_corrected_t_test_has_its_hand_values():
    # Differences 1, 2, 3: mean 2, sd 1. Variance 1/3 + 1/4 = 7/12.
    found = intervals.corrected_t_test([1, 2, 3], n_train=80, n_test=20)
    error = math.sqrt(7 / 12)
    assert (found.mean, found.sd) == (2, 1)
    assert found.standard_error == pytest.approx(error, abs=1e-15)
    assert found.t == pytest.approx(2 / error, abs=1e-14)
    # With 2 degrees of freedom the two-sided p is 1 - |t| / sqrt(2 + t^2).
    assert found.p == pytest.approx(1 - found.t / math.sqrt(2 + found.t**2), abs=1e-14)
    quantile = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # 4.3027, by the same closed form
    assert (found.low, found.high) == pytest.approx(
        (2 - quantile * error, 2 + quantile * error), abs=1e-8
    )


@pytest.mark.parametrize("seed", range(5))
def test_corrected_t_test_without_test_objects_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    differences = rng.normal(0.3, size=rng.integers(2, 12))
    found = intervals.corrected_t_test(differences, n_train=10, n_test=0)
    expected = scipy.stats.ttest_1samp(differences, 0)
    low, high = expected.confidence_interval(0.95)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert intervals.mean_interval(differences) == pytest.approx((low, high), rel=1e-12)


def test_corrected_t_test_of_no_difference_has_p_of_one():
    found = intervals.corrected_t_test([0.0] * 5, n_train=9, n_test=1)
    assert found == (0, 0, 0, 0, 1, 0, 0)


@pytest.mark.parametrize("value", [0.1, -0.7])
def test_corrected_t_test_of_a_constant_difference_is_certain(value):
    # The mean of three times 0.1 is not 0.1 in floating point.
    found = intervals.corrected_t_test([value] * 3, n_train=9, n_test=1)
    assert found == (value, 0, 0, math.copysign(math.inf, value), 0, value, value)


def test_mean_interval_widens_with_the_overlap_of_splits():
    values, t90 = [1, 2, 3], 2.919985580353725  # Student's quantile of 0.95, 2 degrees of freedom
    # SciPy 1.15 has this quantile to 1e-12.
    low, high = intervals.mean_interval(values, level=0.9)
    assert (low, high) == pytest.approx((2 - t90 / math.sqrt(3), 2 + t90 / math.sqrt(3)), abs=1e-11)
    low, high = intervals.mean_interval(values, n_train=90, n_test=10, level=0.9)
    half = t90 * math.sqrt(1 / 3 + 1 / 9)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-11)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_a_spread_of_fewer_than_two_runs_is_undefined(values):
    with pytest.raises(metrics.UndefinedMetric, match="at least 2"):
        intervals.corrected_t_test(values, n_train=9, n_test=1)
    with pytest.raises(metrics.UndefinedMetric, match="at least 2"):
        intervals.mean_interval(values)


@pytest.mark.parametrize(
    "call",
    [
        partial(intervals.corrected_t_test, [1, 2], n_train=0, n_test=1),
        partial(intervals.corrected_t_test, [1, 2], n_train=5, n_test=-1),
        partial(intervals.corrected_t_test, [1, math.nan], n_train=5, n_test=1),
        partial(intervals.mean_interval, [[1, 2]]),
        partial(intervals.mean_interval, [1, 2], n_train=5),
        partial(intervals.mean_interval, [1, 2], n_test=5),
        partial(intervals.mean_interval, [1, 2], level=1.0),
        partial(intervals.delong_interval, [1, 1, 0, 0], [4, 3, 2, 1], level=0.0),
        partial(intervals.wilson, 3, 2),
        partial(intervals.wilson, 1, 2, level=95),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert not isinstance(caught.value, metrics.UndefinedMetric)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (450, 1000)])
@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959963984540054), (0.5, 0.6744897501960817)])
def test_wilson_solves_its_quadratic(k, n, level, z):
    # The ends are the p for which |k/n - p| = z sqrt(p (1 - p) / n).
    roots = np.roots([1 + z**2 / n, -(2 * k + z**2) / n, (k / n) ** 2])
    assert intervals.wilson(k, n, level=level) == pytest.approx(sorted(roots), abs=1e-9)


def test_wilson_of_no_trials_is_undefined():
    with pytest.raises(metrics.UndefinedMetric, match="0/0"):
        intervals.wilson(0, 0)
