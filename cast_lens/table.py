"""scores.csv -> metrics.csv -> rows of reproduced.csv.

reported.csv and claims.csv are written from the papers before a run, reproduced.csv only here.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import intervals, metrics, scores
from cast_lens.run import RunError, write_whole

KEY = ["paper", "experiment", "survey", "data", "scale", "metric"]
REPRODUCED = [
    *KEY, "split", "value", "sd", "low", "high", "n_runs", "n_train", "n_test", "runs", "software",
]  # fmt: skip


def read(path):
    """Read one of the three files as text columns, empty where nothing is written.

    Raises:
        RunError: If there is no such file.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is not here; run this in the clone of cast_lens, or name its folder "
            "reproductions by --reproductions"
        ) from error


def cell(rows, paper, experiment, metric):
    """Return the rows of reported.csv or reproduced.csv that are about one cell."""
    return rows[
        (rows["paper"] == paper) & (rows["experiment"] == experiment) & (rows["metric"] == metric)
    ]


def evaluate(folder, wanted):
    """Compute metrics from an experiment's scores.csv and write them as metrics.csv beside it.

    Args:
        folder: The experiment's folder; a file extra.csv with the same columns, if there, holds
            numbers that do not come from scores, and is appended.
        wanted: {name: function of labels and scores}.

    Returns:
        DataFrame of run, n_train, metric, value, note; one row per run, training size and metric.
        A metric that does not exist for a run is NaN with the reason as its note.
    """
    folder = Path(folder)
    rows = []
    for (run, n_train), part in scores.read_scores(folder / "scores.csv").groupby(
        ["run", "n_train"], sort=False
    ):
        for row in metrics.evaluate(part["label"].to_numpy(), part["score"].to_numpy(), wanted):
            rows.append({"run": run, "n_train": n_train} | row)
    frame = pd.DataFrame(rows, columns=["run", "n_train", "metric", "value", "note"])
    if (folder / "extra.csv").exists():
        frame = pd.concat([frame, pd.read_csv(folder / "extra.csv", dtype={"run": str})])
    frame = frame.fillna({"note": ""})
    write_whole(folder / "metrics.csv", frame.to_csv(index=False, lineterminator="\n"))
    return frame


def summarize_experiment(frame, *, n_train, n_test, **row):
    """Return rows of reproduced.csv, one a metric, at the largest number of training objects.

    Args:
        frame: Table of `evaluate`.
        n_train: Objects of a run's training part, of which a network may have seen only some:
            it is the parts whose overlap makes runs alike.
        n_test: Objects scored in a run.
        row: The columns paper, experiment, survey, data, scale, split, software.

    Returns:
        List of dicts with the columns of reproduced.csv.
    """
    last = frame[frame["n_train"] == frame["n_train"].max()]
    return [
        summarize(
            dict(zip(part["run"], part["value"])),
            n_train=n_train,
            n_test=n_test,
            metric=metric,
            **row,
        )
        for metric, part in last.groupby("metric", sort=False)
    ]


def summarize(values, *, n_train, n_test, **row):
    """Return one row of reproduced.csv from the values of one metric in several runs.

    Args:
        values: {run key: value}; NaN where a metric is undefined, which leaves that run out.
        n_train: Objects of a run's training part; 0 where runs share no data.
        n_test: Objects scored in a run; with more than one run the interval of the mean allows for
            the overlap of training parts (Nadeau & Bengio 2003).
        row: The other columns: paper, experiment, survey, data, scale, metric, split, software.

    Returns:
        Dict with the columns of reproduced.csv; low and high bound the mean with 95 %.
    """
    finite = {str(key): float(value) for key, value in values.items() if np.isfinite(value)}
    numbers = np.array(list(finite.values()))
    low = high = sd = np.nan
    if len(numbers) > 1:
        sd = numbers.std(ddof=1)
        overlap = {"n_train": n_train, "n_test": n_test} if n_train else {}
        low, high = intervals.mean_interval(numbers, **overlap)
    runs = " ".join(f"{key}={number:.10g}" for key, number in finite.items())
    mean = numbers.mean() if len(numbers) else np.nan
    return row | {
        "value": mean, "sd": sd, "low": low, "high": high, "n_runs": len(numbers),
        "n_train": n_train, "n_test": n_test, "runs": runs,
    }  # fmt: skip


def write_reproduced(rows, path):
    """Write rows of `summarize` as a reproduced.csv, sorted by their key."""
    frame = pd.DataFrame(rows, columns=REPRODUCED).sort_values(KEY, kind="stable")
    write_whole(path, frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))


def merge(paths, target):
    """Put the rows of several reproduced.csv files into `target`; for one key the last one wins.

    A stand-in row is left out where the same cell has been run on real data.

    Args:
        paths: Files of `write_reproduced`.
        target: File to write; its rows are kept unless replaced.
    """
    existing = [read(path) for path in [target, *paths] if Path(path).exists()]
    if not existing:
        return
    frame = pd.concat(existing).drop_duplicates(KEY, keep="last").sort_values(KEY)
    names = frame[["paper", "experiment", "metric"]].agg("/".join, axis=1)
    real = names.isin(names[frame["data"] == "real"])
    frame = frame[(frame["data"] == "real") | ~real]
    write_whole(target, frame.to_csv(index=False, lineterminator="\n"))
