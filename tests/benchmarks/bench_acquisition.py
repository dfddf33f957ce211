"""Time BADGE on pools of up to a million objects (bar 7 of performance.md).

Run by hand: python -m tests.benchmarks.bench_acquisition. Each pool has a process of its own, so
that its peak memory is its own; what is compared runs in turn. Matrix products have one thread:
several, waiting for a busy core, would swamp the ratios.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

from cast_lens import acquisition

POOLS, FEATURES, CHOSEN, REPEATS = (125_000, 250_000, 500_000, 1_000_000), 40, 100, 3
SMALL, OUTPUTS = 20_000, 10  # the pool whose outer products are written out
TURNS = 25  # times that two ways run in turn
FOCAL = {"alpha": 0.75, "gamma": 2.0}


def pool(n, outputs=1):
    """Draw probabilities, (n,) or (n, outputs), and rectified embeddings, both float32."""
    rng = np.random.default_rng(0)
    probabilities = rng.random((n, outputs) if outputs > 1 else n, dtype=np.float32)
    embeddings = rng.standard_normal((n, FEATURES), dtype=np.float32)
    return probabilities, np.maximum(embeddings, 0, out=embeddings)


def seconds(function):
    """Return the wall time of one call and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def in_turn(first, second):
    """Return the seconds of two functions that run in turn, the other one first every time."""
    times = {first: [], second: []}
    first(), second()
    for turn in range(TURNS):
        for function in (first, second) if turn % 2 else (second, first):
            times[function].append(seconds(function)[0])
    return times[first], times[second]


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    return {
        "name": name,
        "value": float(statistics.median(values)),
        "low": float(min(values)),
        "high": float(max(values)),
        "unit": unit,
        "values": list(values),
    }


def ratios(above, below):
    """Return the ratio of every turn."""
    return [a / b for a, b in zip(above, below, strict=True)]


def peak():
    """Return the peak memory in MiB; ru_maxrss would count that of the parent before exec too."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def measure_pool(n):
    """Choose from a pool of `n`; return seconds, and peak memory before and after."""
    probabilities, embeddings = pool(n)
    gradients = probabilities - (probabilities > 0.5)
    before = peak()
    times = [
        seconds(lambda s=s: acquisition.badge(gradients, embeddings, CHOSEN, seed=s))[0]
        for s in range(REPEATS)
    ]
    return {"seconds": times, "before": before, "peak": peak()}


def pool_rows():
    """Measure time, memory and linearity, every pool in a fresh process."""
    measured, smallest = [], None
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for n in POOLS:
        command = [sys.executable, __file__, "--pool", str(n)]
        output = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
        found = json.loads(output)
        per_object = [value / n for value in found["seconds"]]
        smallest = smallest or statistics.median(per_object)
        measured += [
            row(f"badge_{n}_seconds", found["seconds"], "s"),
            row(f"badge_{n}_peak_memory", [found["peak"]], "MiB"),
            row(f"badge_{n}_memory_of_pool_and_python", [found["before"]], "MiB"),
            row(
                f"badge_{n}_per_object_over_smallest_pool",
                [value / smallest for value in per_object],
                "ratio of seconds",
            ),
        ]
    return measured


def focal_rows():
    """Measure BADGE with the focal gradient and with that of cross-entropy, gradient included."""
    from cast_lens import losses

    probabilities, embeddings = pool(POOLS[0])
    probabilities = probabilities.astype(np.float64)  # as reproductions/active_learning.py has them

    def cross_entropy():
        gradients = probabilities - (probabilities > 0.5)
        return acquisition.badge(gradients, embeddings, CHOSEN, seed=0)

    def focal():
        predicted = (probabilities > 0.5).astype(int)
        gradients = losses.focal_gradient(predicted, probabilities, **FOCAL)
        return acquisition.badge(gradients, embeddings, CHOSEN, seed=0)

    with_focal, without = in_turn(focal, cross_entropy)
    return [
        row("badge_cross_entropy_seconds", without, "s"),
        row("badge_focal_seconds", with_focal, "s"),
        row("badge_focal_over_cross_entropy", ratios(with_focal, without), "ratio of seconds"),
    ]


def explicit(gradients, embeddings, n, seed):
    """Choose as BADGE does, from outer products that are written out."""
    rng = np.random.default_rng(seed)
    points = (gradients[:, :, None] * embeddings[:, None, :]).reshape(len(gradients), -1)
    norms = np.einsum("nd,nd->n", points, points)
    chosen, nearest = [int(np.argmax(norms))], np.inf
    while len(chosen) < n:
        center = chosen[-1]
        distance = norms + norms[center] - 2 * (points @ points[center])
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        nearest[chosen] = 0
        cumulative = np.cumsum(nearest)
        draw = rng.random() * cumulative[-1]
        chosen.append(int(np.searchsorted(cumulative, draw, side="right")))
    return np.array(chosen)


def factor_rows():
    """Measure factorised distances and outer products, in float64 so that both choose alike."""
    probabilities, embeddings = (x.astype(np.float64) for x in pool(SMALL, OUTPUTS))
    gradients = probabilities - (probabilities > 0.5)

    def factorised():
        return acquisition.badge(gradients, embeddings, CHOSEN, seed=0)

    def outer():
        return explicit(gradients, embeddings, CHOSEN, 0)

    np.testing.assert_array_equal(factorised(), outer())
    fast, slow = in_turn(factorised, outer)
    return [
        row("badge_factorised_seconds", fast, "s"),
        row("badge_outer_products_seconds", slow, "s"),
        row("badge_outer_products_over_factorised", ratios(slow, fast), "ratio of seconds"),
    ]


def rows():
    """Measure everything; return rows with name, value (the median), low, high and unit."""
    with threadpool_limits(1):
        return pool_rows() + focal_rows() + factor_rows()


def main():
    """Print the table."""
    print(f"{'':<48}{'min':>9}{'median':>9}{'max':>9}")
    for each in rows():
        numbers = "".join(f"{each[key]:>9.3f}" for key in ("low", "value", "high"))
        print(f"{each['name']:<48}{numbers} {each['unit']}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pool"]:
        with threadpool_limits(1):
            print(json.dumps(measure_pool(int(sys.argv[2]))))
    else:
        main()
