"""What the scores of an experiment come to as curves: a few hundred points, whatever the survey."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binned_statistic
from sklearn.metrics import precision_recall_curve, roc_curve

from cast_lens import intervals, metrics

POINTS = 200  # of a curve, at most; more than a figure can show
BINS = 10  # of a calibration curve, at most
OF_A_BIN = 10  # ASSUMED: with fewer objects a bin's share of lenses says nothing


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """The curves of one experiment, or of one part of it.

    Attributes:
        n_runs: Runs that were scored, at the largest number of training objects.
        n_objects: Objects of a run; of the largest.
        n_lenses: Lenses among these.
        roc_auc: {run: area under the ROC curve}.
        auc_bounds: {run: DeLong 95 % interval}, NaN where there is none.
        roc: DataFrame of false_positive_rate, mean, low, high: completeness at this rate or less,
            the mean of the runs, the lowest and the highest.
        precision_recall: DataFrame of completeness, mean, low, high: purity where this
            completeness is first reached.
        calibration: DataFrame of score (mean of a bin), lenses (share), low, high (Wilson, 95 %;
            NaN where an object was scored by several runs), n; or None.
        why_none: Why there is no calibration, else "".
    """

    n_runs: int
    n_objects: int
    n_lenses: int
    roc_auc: dict
    auc_bounds: dict
    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    calibration: pd.DataFrame | None
    why_none: str


def score_curves(table):
    """Compute the curves of a table of scores.

    Args:
        table: Of `scores.read_scores`. Of several training sizes only the largest counts. A run
            key with a dot, such as "test.vortex", names a part that gets its own curves.

    Returns:
        {name of the part, "" for all: ScoreCurves}.

    Raises:
        UndefinedMetric: If no run of a part has both lenses and others.
    """
    last = table[table["n_train"] == table["n_train"].max()]
    part = last["run"].where(last["run"].str.contains(".", regex=False), "")
    return {name: _curves_of_part(rows) for name, rows in last.groupby(part, sort=False)}


def _curves_of_part(table):
    both = table.groupby("run")["label"].transform("nunique") == 2
    if not both.any():
        kind = "lenses" if table["label"].any() else "objects that are no lenses"
        raise metrics.UndefinedMetric(f"all {len(table)} scores are of {kind}")
    runs = {
        key: (part["label"].to_numpy(), part["score"].to_numpy())
        for key, part in table[both].groupby("run", sort=False)
    }
    n_lenses, n_others = (max(int((lab == k).sum()) for lab, _ in runs.values()) for k in (1, 0))
    rates, shares = _grid(n_others) / n_others, _grid(n_lenses) / n_lenses
    roc = _over_runs(
        "false_positive_rate", rates, [completeness_at(*r, rates) for r in runs.values()]
    )
    purity = _over_runs("completeness", shares, [purity_at(*r, shares) for r in runs.values()])
    calibration, why_none = calibrate(table)
    return ScoreCurves(
        n_runs=table["run"].nunique(),
        n_objects=int(table.groupby("run").size().max()),
        n_lenses=int(table.groupby("run")["label"].sum().max()),
        roc_auc={key: metrics.roc_auc(*pair) for key, pair in runs.items()},
        auc_bounds={key: _delong(*pair) for key, pair in runs.items()},
        roc=roc,
        precision_recall=purity,
        calibration=calibration,
        why_none=why_none,
    )


def completeness_at(labels, scores, rates):
    """Return the completeness with a false positive rate of at most `rates`, shape (rates,).

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise; both occur.
        scores: Network output, shape (objects,); objects with equal scores are called together.
        rates: False positive rates in [0, 1].
    """
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return true[np.searchsorted(false, rates, side="right") - 1]


def purity_at(labels, scores, shares):
    """Return the purity where completeness first reaches `shares`, shape (shares,).

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise; both occur.
        scores: Network output, shape (objects,); objects with equal scores are called together.
        shares: Completeness, in (0, 1].
    """
    purity, completeness, _ = precision_recall_curve(labels, scores)  # from complete to empty
    return purity[::-1][np.searchsorted(completeness[::-1], shares, side="left")]


def calibrate(table):
    """Set the share of lenses beside the mean score in bins that hold equally many objects.

    Args:
        table: Of `scores.read_scores`, one part of an experiment.

    Returns:
        DataFrame as in `ScoreCurves`, or None; and why it is None, else "".
    """
    labels, values = table["label"].to_numpy(), table["score"].to_numpy()
    if values.min() < 0 or values.max() > 1:
        return None, f"scores reach from {values.min():.4g} to {values.max():.4g}, not in [0, 1]"
    n_bins = min(BINS, len(values) // OF_A_BIN)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, max(n_bins, 1) + 1)))
    if len(edges) < 3:
        return None, f"{len(values)} objects with {len(np.unique(values))} scores make no two bins"
    n = binned_statistic(values, labels, "count", edges)[0].astype(int)
    lenses = binned_statistic(values, labels, "sum", edges)[0].astype(int)
    score = binned_statistic(values, values, "mean", edges)[0]
    once = not table["object_id"].duplicated().any()
    bounds = [intervals.wilson(int(k), int(m)) if once and m else (np.nan, np.nan)
              for k, m in zip(lenses, n)]  # fmt: skip
    low, high = np.transpose(bounds)
    share = lenses / np.maximum(n, 1)
    frame = pd.DataFrame({"score": score, "lenses": share, "low": low, "high": high, "n": n})
    return frame[frame["n"] > 0], ""


def _grid(n):
    """Return at most POINTS whole numbers from 1 to n, denser where they are small."""
    return np.unique(np.geomspace(1, n, POINTS).round())


def _over_runs(name, places, values):
    values = np.array(values)  # (runs, places)
    return pd.DataFrame(
        {name: places, "mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    )


def _delong(labels, scores):
    try:
        return intervals.delong_interval(labels, scores)
    except metrics.UndefinedMetric:
        return intervals.Interval(np.nan, np.nan)
