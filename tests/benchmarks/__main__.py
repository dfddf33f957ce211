"""`make bench`: every benchmark in turn, as one table; ratios that papers speak of join theirs.

Each figure is the median of several runs with its minimum and maximum. Seconds are of this
machine; only the ratios last. The pools are drawn at random, so the data are stand-ins.
"""

import sys
from pathlib import Path

import pandas as pd

from cast_lens import report, run, table
from tests.benchmarks import (
    bench_acquisition,
    bench_augment,
    bench_cnn,
    bench_dataset,
    bench_fits,
    bench_import,
    bench_metrics,
    bench_mock,
    bench_networks,
    bench_pack,
    bench_papers,
    bench_rank,
    bench_scoring,
    bench_training,
)

BENCHMARKS = {
    "import": bench_import,
    "fits": bench_fits,
    "pack": bench_pack,
    "dataset": bench_dataset,
    "augment": bench_augment,
    "mock": bench_mock,
    "acquisition": bench_acquisition,
    "training": bench_training,
    "networks": bench_networks,
    "cnn": bench_cnn,
    "papers": bench_papers,
    "scoring": bench_scoring,
    "rank": bench_rank,
}
# What Li, Eadie & Walmsley (2025) say of costs; the row of claims.csv is cost/<name>.
COSTS = {"badge_focal_over_cross_entropy", "training_focal_over_cross_entropy"}


def main(names):
    """Measure, print, and write runs/benchmarks-seed0/reproduced.csv once all was measured.

    Args:
        names: Which of `BENCHMARKS`; all if there are none.
    """
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark is called {min(unknown)}; there are: {', '.join(BENCHMARKS)}")
    measured = []
    for name in names or BENCHMARKS:
        rows = BENCHMARKS[name].rows()
        if rows:
            print(shown(rows), flush=True)
        measured += rows
    if names:
        return
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
    main(sys.argv[1:])
