"""Reported beside reproduced: the difference, its interval, and an honest verdict."""

import numpy as np
import pandas as pd
from scipy import stats

from cast_lens import intervals
from cast_lens.table import cell


def compare(reported, reproduced):
    """Set every reported number beside the reproduced one.

    Args:
        reported: Table of reported.csv.
        reproduced: Table of reproduced.csv.

    Returns:
        DataFrame of the rows of `reported`, in order, with data, scale, reproduced, low, high
        (95 % of the reproduced value), n, difference and verdict; a row with both real and
        stand-in results occurs once for each.
    """
    rows = []
    for _, row in reported.iterrows():
        found = cell(reproduced, row["paper"], row["experiment"], row["metric"])
        if found.empty:
            rows.append(dict(row) | {"verdict": not_run(row, reproduced)})
        for _, result in found.iterrows():
            rows.append(dict(row) | judge(row, result, reported))
    return pd.DataFrame(rows, dtype=object).fillna("")


def judge(row, result, reported):
    """Return the verdict on one reported number and what it rests on.

    The interval of the difference decides: inside +-tolerance it `agrees`, outside it `differs`,
    otherwise it is `undecidable at this n`. Runs the paper reports one by one are paired with ours,
    and the scatter of these differences is the noise of each: none where both are seeded alike.
    Without an interval (one run on a fixed sample) the difference itself decides.

    Args:
        row: Row of reported.csv.
        result: Row of reproduced.csv for the same cell.
        reported: The whole of reported.csv, for the single runs of the same cell.

    Returns:
        Dict of data, scale, reproduced, low, high, n, difference and verdict.
    """
    values = runs_of(result)
    out = {"data": result["data"], "scale": result["scale"], "n": result["n_runs"]}
    if row["run"]:
        if row["run"] not in values:
            return out | {"verdict": f"not run: no run {row['run']}"}
        number, low, high = values[row["run"]], np.nan, np.nan
        out["n"] = "1"
    elif result["value"] == "":
        return out | {"verdict": "undefined: no run gave a value"}
    else:
        number, low, high = (_number(result[key]) for key in ("value", "low", "high"))
    difference = number - float(row["value"])
    out |= {"reproduced": number, "low": low, "high": high, "difference": difference}
    if result["data"] != "real":
        return out | {"verdict": "no verdict: stand-in data"}
    bounds = _difference_interval(row, difference, low, high, values, reported)
    tolerance = float(row["tolerance"]) + 1e-9 * max(1.0, abs(difference))
    if -tolerance <= bounds[0] and bounds[1] <= tolerance:
        return out | {"verdict": "agrees"}
    if bounds[0] > tolerance or bounds[1] < -tolerance:
        return out | {"verdict": "differs"}
    return out | {"verdict": "undecidable at this n"}


def not_run(row, reproduced):
    """Return why a reported number has no counterpart."""
    if not (reproduced["paper"] == row["paper"]).any():
        return "not run: this paper's reproduction is not in this version"
    if not (reproduced["experiment"] == row["experiment"]).any():
        return "not run: no run has such an experiment"
    return "not run: the experiment does not yield this number"


def runs_of(result):
    """Return {run key: value} of one row of reproduced.csv."""
    return {
        key: float(value) for key, value in (item.split("=") for item in result["runs"].split())
    }


def _difference_interval(row, difference, low, high, values, reported):
    same = cell(reported, row["paper"], row["experiment"], row["metric"])
    same = same[same["run"] != ""]
    pairs = [values[key] - float(x) for key, x in zip(same["run"], same["value"]) if key in values]
    if row["run"]:  # the scatter of all paired differences is the noise of one
        half = 0.0
        if len(pairs) > 1:
            half = float(stats.t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1))
        return difference - half, difference + half
    # Only the noise of the runs counts, without the term for other data sets: the paper's number
    # comes from the same data by the same protocol. Where it gives its runs, they are paired.
    noise = pairs if len(pairs) > 1 else list(values.values())
    if len(noise) > 1:
        spread = intervals.mean_interval(noise)
        half = (spread.high - spread.low) / 2
    else:
        half = 0.0 if np.isnan(low) else (high - low) / 2
    if len(pairs) < 2:
        half = float(np.hypot(half, _reported_half_width(row)))
    return difference - half, difference + half


def _reported_half_width(row):
    """Return 95 % of the paper's own uncertainty of its mean; 0 where it states none."""
    if row["uncertainty"] == "" or row["run"]:
        return 0.0
    if row["uncertainty_kind"] == "sd" and row["n_runs"] not in ("", "1"):
        n = int(row["n_runs"])
        return float(stats.t.ppf(0.975, n - 1)) * float(row["uncertainty"]) / np.sqrt(n)
    return 1.96 * float(row["uncertainty"])


def _number(text):
    return float(text) if text != "" else np.nan
