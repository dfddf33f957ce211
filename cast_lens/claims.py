"""What the papers conclude, put to the test one comparison at a time."""

import numpy as np
import pandas as pd
from scipy import stats

from cast_lens import intervals
from cast_lens.table import cell
from cast_lens.verdicts import runs_of


def judge_claims(claims, reproduced, reported):
    """Judge every claim on every kind of data it can be judged on.

    A network that knows nothing agrees with every claim that something is at chance or that two
    things are alike, and so does one that was tested on too few objects to tell. Such a claim can
    therefore name a control, a cell of the same run or a number: it is undecidable unless `left`
    differs from the control, by the 95 % interval of the difference.

    Args:
        claims: Table of claims.csv; a column `control` is optional, and so is a control.
        reproduced: Table of reproduced.csv.
        reported: Table of reported.csv; a cell `reported:experiment/metric` is taken from it.

    Returns:
        DataFrame of the rows of `claims`, in order, with data, scale, left_value, right_value,
        difference, low, high, p and verdict: `supported`, `contradicted`,
        `undecidable at this n`, `undecidable: reason` or `not run: reason`.
    """
    rows = []
    for _, claim in claims.iterrows():
        own = reproduced[reproduced["paper"] == claim["paper"]]
        kinds = own[["data", "scale"]].drop_duplicates().to_records(index=False)
        judged = [
            dict(claim) | {"data": data, "scale": scale} | judgement
            for data, scale in kinds
            if (judgement := _judge(claim, _of(own, data, scale), reported)) is not None
        ]
        if not judged:
            missing = "this paper's reproduction is not in this version"
            if len(own):
                missing = "one of its two experiments has no result yet"
            judged = [dict(claim) | {"data": "", "verdict": f"not run: {missing}"}]
        rows += judged
    return pd.DataFrame(rows, dtype=object).fillna("")


def _of(rows, data, scale):
    return rows[(rows["data"] == data) & (rows["scale"] == scale)]


def _judge(claim, results, reported):
    told = any(claim[side].startswith("reported:") for side in ("left", "right"))
    if told and results["data"].iloc[0] != "real":
        return None  # the paper's own numbers are of the real data
    left, right = (
        _cell(claim[side], claim["paper"], results, reported) for side in ("left", "right")
    )
    if left is None or right is None:
        return None
    difference, low, high, p = _difference(left, right)
    verdict = RELATIONS[claim["relation"]](difference, low, high, p, left, right)
    if verdict == "supported" and claim.get("control"):
        verdict = _controlled(left, claim, results, reported)
    return {
        "left_value": left["value"], "right_value": right["value"], "difference": difference,
        "low": low, "high": high, "p": p, "verdict": verdict,
    }  # fmt: skip


def _controlled(left, claim, results, reported):
    """Return "supported" if the left side differs from the control, else why it is undecidable."""
    control = _cell(claim["control"], claim["paper"], results, reported)
    if control is None:
        return f"undecidable: {claim['control']} was not run"
    _, low, high, _ = _difference(left, control)
    if low > 0 or high < 0:
        return "supported"
    return f"undecidable: left does not differ from {claim['control']}"


def _cell(text, paper, results, reported):
    """Return value, interval, sd and runs of a cell or a plain number; None if it has no result."""
    try:
        number = float(text)
        return {"value": number, "low": number, "high": number, "sd": 0.0, "runs": {}}
    except ValueError:
        pass
    source, _, name = text.rpartition(":")
    experiment, _, metric = name.rpartition("/")
    if source == "reported":
        same = cell(reported, paper, experiment, metric)
        runs = {r: float(v) for r, v in zip(same["run"], same["value"]) if r}
        values = np.array(list(runs.values()))
        low, high = intervals.mean_interval(values)
        return {"value": values.mean(), "low": low, "high": high, "sd": values.std(ddof=1),
                "runs": runs}  # fmt: skip
    found = cell(results, paper, experiment, metric)
    if found.empty or found["value"].iloc[0] == "":
        return None
    row = found.iloc[0]
    numbers = {key: float(row[key] or "nan") for key in ("value", "low", "high", "sd")}
    sizes = {key: int(float(row[key] or 0)) for key in ("n_train", "n_test")}
    return numbers | sizes | {"runs": runs_of(row)}


def _difference(left, right):
    """Return difference, 95 % interval and p: paired over common runs where there are any."""
    difference = left["value"] - right["value"]
    common = [key for key in left["runs"] if key in right["runs"]]
    if len(common) > 1 and left.get("n_train"):
        pairs = [left["runs"][key] - right["runs"][key] for key in common]
        test = intervals.corrected_t_test(pairs, n_train=left["n_train"], n_test=left["n_test"])
        return test.mean, test.low, test.high, test.p
    if np.isnan([left["low"], right["low"]]).any():
        return difference, np.nan, np.nan, np.nan
    half = np.hypot(left["high"] - left["low"], right["high"] - right["low"]) / 2
    p = 2 * stats.norm.sf(abs(difference) / (half / 1.96)) if half > 0 else float(difference == 0)
    return difference, difference - half, difference + half, p


def _greater(difference, low, high, p, left, right):
    if low > 0:
        return "supported"
    return "contradicted" if high < 0 else "undecidable at this n"


def _less(difference, low, high, p, left, right):
    return _greater(-difference, -high, -low, p, right, left)


def _not_significant(difference, low, high, p, left, right):
    if np.isnan(p):
        return "undecidable at this n"
    return "supported" if p > 0.05 else "contradicted"


def _within_1_sigma(difference, low, high, p, left, right):
    if np.isnan([left["sd"], right["sd"], low, high]).any():
        return "undecidable at this n"
    sigma = np.hypot(left["sd"], right["sd"])
    if abs(difference) <= sigma:
        return "supported"
    return "undecidable at this n" if low <= sigma and high >= -sigma else "contradicted"


def _equals_chance(difference, low, high, p, left, right):
    if np.isnan(low):
        return "undecidable at this n"
    return "supported" if low <= 0 <= high else "contradicted"


RELATIONS = {
    ">": _greater,
    ">=": _greater,
    "<": _less,
    "<=": _less,
    "not_significant": _not_significant,
    "within_1_sigma": _within_1_sigma,
    "equals_chance": _equals_chance,
}
