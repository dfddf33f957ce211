"""`make bench`: every benchmark in turn, as one table; ratios that papers speak of join theirs.

Each figure is the median of several runs with its minimum and maximum. Seconds are of this
machine; only the ratios last. The pools are drawn at random, so the data are stand-ins.
"""

from pathlib import Path

import pandas as pd

from cast_lens import report, run, table
from tests.benchmarks import (
    bench_acquisition,
    bench_augment,
    bench_fits,
    bench_import,
    bench_metrics,
    bench_mock,
    bench_training,
)

# What Li, Eadie & Walmsley (2025) say of costs; the row of claims.csv is cost/<name>.
COSTS = {"badge_focal_over_cross_entropy", "training_focal_over_cross_entropy"}


def main():
    """Measure, print, and write runs/benchmarks-seed0/reproduced.csv."""
    measured = []
    for bench in (
        bench_import, bench_fits, bench_augment, bench_mock, bench_acquisition, bench_training,
    ):  # fmt: skip
        rows = bench.rows()
        print(shown(rows), flush=True)
        measured += rows
    bench_metrics.main()
    rows = [
        table.summarize(
            dict(enumerate(row["values"])), n_train=0, n_test=0, paper="active_learning",
            experiment="cost", survey="euclid_q1_pca40", data="stand-in", scale="quick",
            metric=row["name"], split="timing on one machine", software=run.software(),
        )
        for row in measured
        if row["name"] in COSTS
    ]  # fmt: skip
    assert {row["metric"] for row in rows} == COSTS
    table.write_reproduced(rows, Path("runs/benchmarks-seed0/reproduced.csv"))


def shown(rows):
    """Return measured rows as an aligned table."""
    frame = pd.DataFrame(rows)[["name", "unit", "low", "value", "high"]]
    frame = frame.rename(columns={"low": "min", "value": "median", "high": "max"})
    for column in ("min", "median", "max"):
        frame[column] = frame[column].map(report.number)
    return report.tabulate(frame) + "\n"


if __name__ == "__main__":
    main()
