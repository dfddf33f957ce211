"""From scores.csv and history.csv to the numbers of Tables 1 to 4, and those they leave out."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.metrics import brier_score_loss, confusion_matrix, precision_recall_fscore_support

from cast_lens import intervals, metrics
from reproductions.deeplense.settings import DRAWS

N_DRAWS = 500  # ASSUMED: ours, of the bootstrap
RATES = (0.01, 0.001)  # ours: shares of false positives at which completeness is told
BINS = 15  # Guo et al. (2017): of equal width, for the calibration error


@dataclass(frozen=True, eq=False)
class Scored:
    """What a network said of the objects of a part.

    Attributes:
        object_ids: Shape (objects,).
        truth: Place of each object's class, shape (objects,).
        probabilities: Softmax, shape (objects, classes).
        names: Of the classes.
    """

    object_ids: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray
    names: tuple[str, ...]

    @property
    def called(self):
        """Place of the class of the highest softmax, shape (objects,)."""
        return self.probabilities.argmax(axis=1)


def scored(table, names):
    """Return {part: Scored} of a table of scores, as training.score made it."""
    parts = table["run"].str.partition(".")
    found = {}
    for part in parts[0].unique():
        of_part = table[parts[0] == part]
        columns = dict(iter(of_part.groupby("run", sort=False)))
        wanted = [f"{part}.{name}" for name in names[-len(columns) :]]
        labels = np.stack([columns[key]["label"] for key in wanted], axis=1)
        values = np.stack([columns[key]["score"] for key in wanted], axis=1)
        if len(wanted) < len(names):  # of two classes the second alone
            labels, values = np.hstack([1 - labels, labels]), np.hstack([1 - values, values])
        object_ids = columns[wanted[0]]["object_id"].to_numpy()
        found[part] = Scored(object_ids, labels.argmax(axis=1), values, names)
    return found


def numbers(found, history, weights, seed):
    """Compute all numbers of an experiment.

    Args:
        found: {part: Scored}, with "test", and "validation" unless it is the same.
        history: Table of history.csv.
        weights: Of the classes in the loss, or None; for the interval of that loss.
        seed: Of the bootstrap.

    Returns:
        DataFrame of metric, value, low, high (95 %), sd (of the value, where it is a share of a
        number of objects) and note.
    """
    test, held_out = found["test"], found.get("validation", found["test"])
    rows = [
        row | {"metric": f"val_{row['metric']}"} for row in _report(held_out)
        if row["metric"].startswith("recall.")
    ]  # fmt: skip
    rows += [_row("ece", calibration_error(test)), _row("brier", brier(test))]
    return pd.concat(
        [of_scores(test, seed), pd.DataFrame(rows + _losses(history, held_out, weights))],
        ignore_index=True,
    )


def of_scores(one, seed):
    """Compute what the scores of one part tell, as `numbers` does of the test."""
    rows = _ranking(one) + _report(one)
    return pd.DataFrame(rows + (_rare(one, seed) if len(one.names) == 2 else []))


def macro_auc(one, weights):
    """Compute a weighted mean of the areas under the ROC curves of each class against the rest.

    Args:
        one: Scored.
        weights: Of the classes, which add up to 1.

    Returns:
        Mean and standard error. The error is that of DeLong et al. (1988), carried over to a sum:
        classes are sampled apart, and an object is a positive in one area and a negative in all
        others, where it weighs n_class / n_rest of the mean over the rest.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.
    """
    truth, n = one.truth, len(one.truth)
    sizes = np.bincount(truth, minlength=len(one.names))
    if sizes.min() < 2:
        raise metrics.UndefinedMetric(f"{sizes.tolist()} objects of the classes; needs 2 of each")
    area, influence = 0.0, np.zeros(n)
    for k, weight in enumerate(weights):
        values, own = one.probabilities[:, k], truth == k
        ranks = rankdata(values)
        below = (ranks[own] - rankdata(values[own])) / (n - sizes[k])
        above = 1 - (ranks[~own] - rankdata(values[~own])) / sizes[k]
        area += weight * below.mean()
        influence[own] += weight * below
        influence[~own] += weight * above * sizes[truth[~own]] / (n - sizes[k])
    variance = sum(
        influence[truth == k].var(ddof=1) / size for k, size in enumerate(sizes)
    )  # fmt: skip
    return float(area), float(np.sqrt(variance))


def calibration_error(one, bins=BINS):
    """Return the mean of |accuracy - confidence| over bins of confidence, weighted by objects."""
    table = reliability(one, bins)
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum()
                 / table["n"].sum())  # fmt: skip


def reliability(one, bins=BINS):
    """Return mean confidence and accuracy by bins of confidence; of two classes, of the second.

    Args:
        one: Scored.
        bins: Of equal width.

    Returns:
        DataFrame of confidence, accuracy and n, a row a bin with objects.

    Reference:
        Guo et al. (2017), Sec. 2.
    """
    if len(one.names) == 2:
        confidence, right = one.probabilities[:, 1], one.truth == 1
    else:
        confidence, right = one.probabilities.max(axis=1), one.called == one.truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    table = pd.DataFrame({"place": place, "confidence": confidence, "accuracy": right, "n": 1.0})
    found = table.groupby("place").agg({"confidence": "mean", "accuracy": "mean", "n": "sum"})
    return found.reset_index(drop=True)


def brier(one):
    """Return the mean square of softmax minus truth: of the second class, or summed over all."""
    if len(one.names) == 2:
        return float(brier_score_loss(one.truth, one.probabilities[:, 1]))
    wanted = np.eye(len(one.names))[one.truth]
    return float(((one.probabilities - wanted) ** 2).sum(axis=1).mean())


def confusion(one):
    """Return counts, a row a true class and a column a called one, as a DataFrame."""
    places = range(len(one.names))
    counts = confusion_matrix(one.truth, one.called, labels=places)
    return pd.DataFrame(counts, index=list(one.names), columns=list(one.names))


def _ranking(one):
    """Return areas under ROC curves: of each class against the rest, and their means."""
    rows, shares = [], np.bincount(one.truth, minlength=len(one.names)) / len(one.truth)
    several = len(one.names) > 2
    plans = {f"roc_auc.{name}": np.eye(len(one.names))[k] for k, name in enumerate(one.names)}
    plans["roc_auc"] = shares  # Sec. 2.3.2: weighted; of two classes both areas are one
    if several:
        plans["roc_auc.macro"] = np.full(len(one.names), 1 / len(one.names))
    for metric, weights in plans.items():
        try:
            area, error = macro_auc(one, weights)
            half = norm.ppf(0.975) * error
            rows.append(_row(metric, area, (max(area - half, 0.0), min(area + half, 1.0))))
        except metrics.UndefinedMetric as reason:
            rows.append(_row(metric, note=str(reason)))
    return rows


def _report(one):
    """Return the cells of Tables 2 and 4; a purity of nothing called is undefined, not 0."""
    right, n = int((one.called == one.truth).sum()), len(one.truth)
    rows = [_row("accuracy", right / n, intervals.wilson(right, n), _error(right, n))]
    places = range(len(one.names))
    options = {"labels": places, "zero_division": np.nan}
    table = confusion(one).to_numpy()
    each = precision_recall_fscore_support(one.truth, one.called, **options)
    for k, name in enumerate(one.names):
        for word, values, total in (
            ("precision", each[0], table[:, k].sum()), ("recall", each[1], table[k].sum()),
        ):  # fmt: skip
            if total:
                bounds = intervals.wilson(int(table[k, k]), int(total))
                error = _error(table[k, k], total)
                rows.append(_row(f"{word}.{name}", values[k], bounds, error))
            else:
                rows.append(_row(f"{word}.{name}", note=f"no object was called or is {name}"))
        rows.append(_row(f"f1.{name}", each[2][k]))
    for average in ("macro", "weighted"):
        found = precision_recall_fscore_support(
            one.truth, one.called, average=average, **options
        )  # fmt: skip
        words = ("precision", "recall", "f1")
        rows += [_row(f"{word}.{average}_avg", value) for word, value in zip(words, found)]
    return rows


def _rare(one, seed):
    """Return what the report leaves out of a rare class: purity, and few false positives."""
    labels, values = (one.truth == 1).astype(int), one.probabilities[:, 1]
    n_others = int((labels == 0).sum())
    wanted = {"average_precision": metrics.average_precision}
    for rate in RATES:
        n_false = int(rate * n_others)
        wanted[f"tpr_at_fpr_{rate:g}"] = partial(metrics.tpr_at_false_positives, n_false=n_false)
    try:
        bounds = intervals.bootstrap(labels, values, wanted, draws=N_DRAWS, seed=[seed, DRAWS])
    except metrics.UndefinedMetric as reason:
        return [_row(name, note=str(reason)) for name in wanted]
    return [_row(name, metric(labels, values), bounds[name]) for name, metric in wanted.items()]


def _losses(history, one, weights):
    """Return what Tables 1 and 3 say, at the epoch that is kept."""
    best = history.loc[history["val_loss"].idxmin()]
    right = round(best["val_accuracy"] * len(one.truth))
    n, half = len(one.truth), norm.ppf(0.975) * loss_error(one, weights)
    last = history["val_loss"].iloc[-1] - history["val_loss"].iloc[0]
    later = history["val_loss"].iloc[len(history) // 2 :]
    # Two epochs differ by sqrt(2) times what the later ones scatter by.
    jump = norm.ppf(0.975) * np.sqrt(2) * later.std(ddof=1) if len(later) > 1 else np.nan
    return [
        _row("val_loss", best["val_loss"], (best["val_loss"] - half, best["val_loss"] + half)),
        _row("val_accuracy", best["val_accuracy"], intervals.wilson(right, n), _error(right, n)),
        _row("train_loss", best["loss"]),
        _row("train_accuracy", best["accuracy"]),
        _row("best_epoch", best["epoch"]),
        _row("val_loss_last_minus_first", last, (last - jump, last + jump)),
    ]


def loss_error(one, weights):
    """Return the standard error of the weighted mean loss of a sample of objects."""
    weight = np.asarray(weights or np.ones(len(one.names)))[one.truth]
    own = one.probabilities[np.arange(len(one.truth)), one.truth]
    each = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    mean = np.average(each, weights=weight)
    return float(np.sqrt(np.sum((weight * (each - mean)) ** 2)) / weight.sum())


def _error(k, n):
    return float(np.sqrt(k / n * (1 - k / n) / n))


def _row(metric, value=np.nan, bounds=(np.nan, np.nan), sd=np.nan, note=""):
    low, high = bounds
    return {"metric": metric, "value": value, "low": low, "high": high, "sd": sd, "note": note}
