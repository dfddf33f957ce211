"""Time the bootstrap of ROC AUC, average precision and max F_beta (bar 8 of performance.md).

Run by hand: python tests/benchmarks/bench_metrics.py. Both ways see the same draws of 80,000
scores and must give the same intervals; the naive way repeats the sample and calls scikit-learn.
"""

import functools
import resource
import statistics
import time

import numpy as np
import sklearn.metrics

from cast_lens import intervals, metrics

OBJECTS, DRAWS, SHORT, REPEATS, BETA_SQUARED = 80_000, 2_000, 100, 3, 0.001
STATISTICS = {
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "max_f_beta": functools.partial(metrics.max_f_beta, beta_squared=BETA_SQUARED),
}


def naive(labels, scores, draws, seed):
    """Draw as `intervals.bootstrap` does, but score the explicitly repeated sample."""
    order = np.argsort(-scores, kind="stable")
    lenses, others = order[labels[order] == 1], order[labels[order] == 0]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = np.concatenate([c[rng.integers(len(c), size=len(c))] for c in (lenses, others)])
        y, s = labels[drawn], scores[drawn]
        purity, found, _ = sklearn.metrics.precision_recall_curve(y, s)
        f_beta = (1 + BETA_SQUARED) * purity * found / (BETA_SQUARED * purity + found)
        areas = sklearn.metrics.roc_auc_score(y, s), sklearn.metrics.average_precision_score(y, s)
        values.append((*areas, np.nanmax(f_beta)))
    return np.quantile(values, [0.025, 0.975], axis=0).T


def seconds(function):
    """Return the wall time of one call and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def report(name, values):
    """Print one line of the table."""
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<52}{low:>9.3f}{middle:>9.3f}{high:>9.3f}")


def main():
    """Print the table for scores without and with many ties."""
    rng = np.random.default_rng(0)
    labels = (rng.random(OBJECTS) < 0.49).astype(int)
    distinct = rng.normal(size=OBJECTS) + labels
    print(f"{'':<52}{'min':>9}{'median':>9}{'max':>9}")
    for kind, scores in (("distinct scores", distinct), ("tied scores", np.round(distinct, 2))):
        slow, quick, ratios = [], [], []
        for seed in range(REPEATS):
            fast = functools.partial(intervals.bootstrap, labels, scores, STATISTICS, seed=seed)
            t_fast, found = seconds(functools.partial(fast, draws=SHORT))
            t_naive, expected = seconds(lambda s=scores, i=seed: naive(labels, s, SHORT, i))
            np.testing.assert_allclose(list(found.values()), expected, rtol=0, atol=1e-12)
            quick.append(t_fast), slow.append(t_naive), ratios.append(t_naive / t_fast)
        report(f"{kind}, {SHORT} draws, bootstrap (s)", quick)
        report(f"{kind}, {SHORT} draws, scikit-learn loop (s)", slow)
        report(f"{kind}, {SHORT} draws, ratio loop / bootstrap", ratios)
        full = [seconds(functools.partial(fast, draws=DRAWS))[0] for _ in range(3)]
        report(f"{kind}, {DRAWS:,} draws, bootstrap (s)", full)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the whole process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
