"""Time BADGE on pools of up to a million objects (bar 7 of performance.md).

Run by hand: python tests/benchmarks/bench_acquisition.py. Each pool has a process of its own, so
that its peak memory is its own; what is compared runs in turn, and must choose the same objects.
"""

import json
import statistics
import subprocess
import sys
import time

import numpy as np

from cast_lens import acquisition

POOLS, FEATURES, CHOSEN, REPEATS = (125_000, 250_000, 500_000, 1_000_000), 40, 100, 3
SMALL, OUTPUTS = 20_000, 10  # the pool whose outer products are written out
PAIRS = 7  # times that two ways run in turn
FOCAL = {"alpha": 0.75, "gamma": 2.0}


def pool(n, outputs=1, seed=0):
    """Draw probabilities, (n,) or (n, outputs), and rectified float32 embeddings."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n, outputs) if outputs > 1 else n, dtype=np.float32)
    embeddings = rng.standard_normal((n, FEATURES), dtype=np.float32)
    return probabilities, np.maximum(embeddings, 0, out=embeddings)


def seconds(function):
    """Return the wall time of one call and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def peak_bytes():
    """Return the peak memory of this process; ru_maxrss would include its parent's before exec."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_pool(n):
    """Choose from a pool of `n`; return seconds, and peak memory before and after."""
    probabilities, embeddings = pool(n)
    gradients = probabilities - (probabilities > 0.5)
    before = peak_bytes()
    times = [
        seconds(lambda s=s: acquisition.badge(gradients, embeddings, CHOSEN, seed=s))[0]
        for s in range(REPEATS)
    ]
    return {"seconds": times, "before": before, "peak": peak_bytes()}


def row(name, values, unit):
    """Return one row of the table: the median of `values` and their extremes."""
    return {
        "name": name,
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "unit": unit,
    }


def pool_rows():
    """Measure time, memory and linearity of every pool in a fresh process."""
    rows, per_object = [], None
    for n in POOLS:
        command = [sys.executable, __file__, "--pool", str(n)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        cost = [value / n for value in found["seconds"]]
        per_object = per_object or statistics.median(cost)
        name = f"BADGE, {n:,} objects x {FEATURES}, {CHOSEN} chosen"
        rows += [
            row(f"{name}: time", found["seconds"], "s"),
            row(f"{name}: peak memory of the process", [found["peak"] / 2**20], "MiB"),
            row(f"{name}: of it the pool and Python", [found["before"] / 2**20], "MiB"),
            row(f"{name}: time per object / smallest pool's", [c / per_object for c in cost], ""),
        ]
    return rows


def focal_rows():
    """Measure BADGE with the focal gradient against that of cross-entropy, gradient included."""
    from cast_lens import losses

    probabilities, embeddings = pool(POOLS[0])
    probabilities = probabilities.astype(np.float64)  # as reproductions/active_learning.py has them

    def cross_entropy():
        gradients = probabilities - (probabilities > 0.5)
        return acquisition.badge(gradients, embeddings, CHOSEN, seed=0)

    def focal():
        labels = (probabilities > 0.5).astype(int)
        gradients = losses.focal_gradient(labels, probabilities, **FOCAL)
        return acquisition.badge(gradients, embeddings, CHOSEN, seed=0)

    cross_entropy(), focal()
    pairs = [(seconds(focal)[0], seconds(cross_entropy)[0]) for _ in range(PAIRS)]
    name = f"BADGE, {POOLS[0]:,} objects"
    return [
        row(f"{name}, cross-entropy gradient: time", [c for _, c in pairs], "s"),
        row(f"{name}, focal gradient: time", [f for f, _ in pairs], "s"),
        row(f"{name}: focal / cross-entropy", [f / c for f, c in pairs], ""),
    ]


def explicit(gradients, embeddings, n, seed):
    """Choose as BADGE does, from outer products that are written out."""
    rng = np.random.default_rng(seed)
    points = (gradients[:, :, None] * embeddings[:, None, :]).reshape(len(gradients), -1)
    norms = np.einsum("nd,nd->n", points, points)
    chosen, nearest = [int(np.argmax(norms))], None
    while len(chosen) < n:
        center = chosen[-1]
        distance = norms + norms[center] - 2 * (points @ points[center])
        nearest = distance if nearest is None else np.minimum(nearest, distance)
        nearest[chosen] = 0
        cumulative = np.cumsum(np.maximum(nearest, 0))
        draw = rng.random() * cumulative[-1]
        chosen.append(int(np.searchsorted(cumulative, draw, side="right")))
    return np.array(chosen)


def factor_rows():
    """Measure the factorised distances against outer products, in float64 for equal choices."""
    probabilities, embeddings = (x.astype(np.float64) for x in pool(SMALL, OUTPUTS))
    gradients = probabilities - (probabilities > 0.5)
    pairs = []
    for seed in range(PAIRS):
        fast, found = seconds(
            lambda s=seed: acquisition.badge(gradients, embeddings, CHOSEN, seed=s)
        )
        slow, expected = seconds(lambda s=seed: explicit(gradients, embeddings, CHOSEN, s))
        np.testing.assert_array_equal(found, expected)
        pairs.append((fast, slow))
    name = f"BADGE, {SMALL:,} objects x {FEATURES}, {OUTPUTS} outputs"
    return [
        row(f"{name}, factorised: time", [f for f, _ in pairs], "s"),
        row(f"{name}, outer products: time", [s for _, s in pairs], "s"),
        row(f"{name}: outer products / factorised", [s / f for f, s in pairs], ""),
    ]


def rows():
    """Measure everything; return rows with name, value (the median), low, high and unit."""
    return pool_rows() + focal_rows() + factor_rows()


def main():
    """Print the table."""
    print(f"{'':<76}{'min':>9}{'median':>9}{'max':>9}")
    for each in rows():
        numbers = "".join(f"{each[key]:>9.3f}" for key in ("low", "value", "high"))
        print(f"{each['name']:<76}{numbers} {each['unit']}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pool"]:
        print(json.dumps(measure_pool(int(sys.argv[2]))))
    else:
        main()
