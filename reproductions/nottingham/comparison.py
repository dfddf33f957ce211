"""Sec. 5, like for like: two networks on the same objects, and what may be concluded from it."""

import numpy as np
import pandas as pd

from cast_lens import intervals, metrics
from reproductions.nottingham.settings import DRAWS, PAIRS

BETTER, WORSE, EVEN = "better", "worse", "cannot be told apart"
COLUMNS = [
    "network", "other", "runs", "auc", "auc_sd", "other_auc", "other_auc_sd", "difference",
    "low_objects", "high_objects", "low_runs", "high_runs", "delong_p", "reading",
]  # fmt: skip


def compare_pairs(tables, seed):
    """Compare the networks of `PAIRS` whose scores are there.

    Args:
        tables: {experiment: table of scores}, of the same objects in both of a pair.
        seed: Of the bootstrap.

    Returns:
        DataFrame with the columns of `COLUMNS`, a row a pair.
    """
    rows = [compare(one, tables[one], other, tables[other], seed)
            for one, other in PAIRS if one in tables and other in tables]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def compare(name, table, other, other_table, seed):
    """Compare two networks over the trainings that both have; return a dict of `COLUMNS`.

    The first is better, or worse, if the 95 % intervals of the mean difference say so, that over
    the test objects (paired bootstrap) and that over the trainings (t).
    """
    labels, ours = by_run(table)
    labels_too, theirs = by_run(other_table)
    if labels.index.tolist() != labels_too.index.tolist():
        raise ValueError(f"{name} and {other} were scored on other objects, expected the same")
    common = [key for key in ours if key in theirs]
    a, b = (np.stack([each[key] for key in common]) for each in (ours, theirs))
    truth = labels.to_numpy()
    row = {"network": name, "other": other, "runs": len(common), "reading": EVEN}
    try:
        found = [intervals.delong(truth, x, y) for x, y in zip(a, b)]
        bounds = paired_bootstrap(truth, a, b, draws=DRAWS, seed=seed)
    except metrics.UndefinedMetric as reason:
        return row | {"reading": f"undefined: {reason}"}
    differences = np.array([each.difference for each in found])
    for prefix, values in (("", [each.auc_a for each in found]),
                           ("other_", [each.auc_b for each in found])):  # fmt: skip
        row[f"{prefix}auc"] = np.mean(values)
        row[f"{prefix}auc_sd"] = np.std(values, ddof=1) if len(values) > 1 else np.nan
    row |= {"difference": differences.mean(), "low_objects": bounds.low,
            "high_objects": bounds.high,
            "delong_p": " ".join(f"{each.p:.2g}" for each in found)}  # fmt: skip
    if len(common) < 2:
        return row | {"reading": "undecidable: one training"}
    row["low_runs"], row["high_runs"] = intervals.mean_interval(differences)
    if min(row["low_objects"], row["low_runs"]) > 0:
        row["reading"] = BETTER
    elif max(row["high_objects"], row["high_runs"]) < 0:
        row["reading"] = WORSE
    return row


def by_run(table):
    """Return labels, a Series by object_id, and {run: scores, shape (objects,)}."""
    parts = {key: part.set_index("object_id") for key, part in table.groupby("run", sort=False)}
    labels = next(iter(parts.values()))["label"]
    return labels, {key: part["score"].loc[labels.index].to_numpy() for key, part in parts.items()}


def paired_bootstrap(labels, scores_a, scores_b, *, draws, seed):
    """Compute the 95 % interval of a mean difference of AUCs over the objects tested.

    Lenses and other objects are drawn anew, the same for both networks and all their trainings. An
    AUC is a mean over pairs of a lens and another object, so a draw is two vectors of counts.

    Args:
        labels: Shape (objects,), 1 for a lens, 0 otherwise.
        scores_a: Shape (trainings, objects).
        scores_b: Likewise.
        draws: Number of draws.
        seed: Seed or numpy Generator.

    Returns:
        Interval of AUC a minus AUC b.

    Reference:
        Efron & Tibshirani (1993), Ch. 13.
    """
    for values in (*scores_a, *scores_b):
        metrics.check(labels, values)
    metrics.require_classes(labels, each=2)
    margin = np.mean([_wins(labels, a) - _wins(labels, b) for a, b in zip(scores_a, scores_b)], 0)
    rng = np.random.default_rng(seed)
    lenses, others = (rng.multinomial(n, np.full(n, 1 / n), draws) for n in margin.shape)
    values = np.sum((lenses @ margin) * others, axis=1) / margin.size
    return intervals.Interval(*np.quantile(values, [0.025, 0.975]).tolist())


def _wins(labels, scores):
    """Return 1 where a lens is above another object, 1/2 where it is level, (lenses, others)."""
    lenses, others = scores[labels == 1][:, None], scores[labels == 0]
    return (lenses > others) + 0.5 * (lenses == others)


def verdict(compared):
    """Conclude whether neural networks have improved (Sec. 6), by a rule.

    It is supported if EfficientNetB0 is better than LASTRO's own network in all comparisons, and
    contradicted if it is better in none and worse in one or more.

    Args:
        compared: Table of `compare_pairs`.

    Returns:
        The verdict and its ground, two texts.
    """
    own = compared[compared["other"].str.endswith("lastro.original")]
    if not len(own):
        return "not run", "EfficientNetB0 and LASTRO's own network were not both trained"
    n_better, n_worse = (int((own["reading"] == word).sum()) for word in (BETTER, WORSE))
    ground = (
        f"of {len(own)} comparisons with LASTRO's own network, EfficientNetB0 is better in "
        f"{n_better} and worse in {n_worse}"
    )
    if n_better == len(own):
        return "supported", ground
    if n_better == 0 and n_worse:
        return "contradicted", ground
    return "undecidable at this n", ground
