"""What the cross-fitted logits of `cast_lens.adapting` say, and what they cannot.

Every labelled object was scored once a row by a network that had not seen it. Networks of different
folds need not agree on a scale, so a lens is compared with the other objects of its own fold alone:
the AUC is the mean over folds, weighted by their pairs, its variance DeLong's of each, and so are
the paired tests. Beside it stands the plain mean of the folds' AUCs, with the t interval for folds
that share training objects.
"""

import math

import numpy as np
import pandas as pd
import scipy.stats

from cast_lens import figures, intervals, metrics
from cast_lens.drawings import plain

LEVEL = 0.95  # of all intervals
ALPHA = 0.05  # ASSUMED: p below which a gain is called significant
LEAST = 10  # ASSUMED: objects of a class below which DeLong's normal interval means little
DIRECT, TRANSFER, SCRATCH = "direct", "transfer", "scratch"
COLUMNS = (
    "start", "n_train", "n", "n_lens", "n_folds", "auc", "low", "high",
    "fold_mean", "fold_low", "fold_high",
    "over_direct", "over_direct_low", "over_direct_high", "p_direct",
    "over_scratch", "over_scratch_low", "over_scratch_high", "p_scratch",
)  # fmt: skip


def column(start, n):
    """Return the name of a column of logits: where the network began, labels it was given."""
    return start if start == DIRECT else f"{start}.n{n}"


def measure(logits):
    """Turn logits into the learning curve.

    Args:
        logits: DataFrame of object_id, label, fold, direct, and transfer.n<N> and perhaps
            scratch.n<N> for numbers N of labels trained on.

    Returns:
        DataFrame of `COLUMNS`, a row a column of logits: auc within folds, with DeLong's interval
        (of all objects together, where a fold has fewer than two of a class); fold_mean, the mean
        AUC of the folds that hold both classes, with its corrected t interval (NaN for one fold);
        the gains over the released network as it is, and of transfer over the network that began
        with random weights and had the same labels, with intervals and two-sided p of DeLong's
        paired test, likewise.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988); Nadeau & Bengio (2003).
    """
    labels = logits["label"].to_numpy()
    strata, rows = _strata(logits), []
    for name in logits.columns[3:]:
        start, _, n = name.partition(".n")
        values = logits[name].to_numpy()
        auc, low, high = _auc(labels, values, strata)
        row = {
            "start": start, "n_train": int(n or 0), "n": len(labels), "n_lens": int(labels.sum()),
            "n_folds": logits["fold"].nunique(), "auc": auc, "low": low,
            "high": high,
        }  # fmt: skip
        row |= _over_folds(logits, name, row["n_train"])
        if start != DIRECT:
            row |= _gain(labels, values, logits[DIRECT], strata, DIRECT)
        other = column(SCRATCH, n)
        if start == TRANSFER and other in logits:
            row |= _gain(labels, values, logits[other], strata, SCRATCH)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def warnings_of(curve, twice=()):
    """Say in plain words what the labels cannot support.

    The rules are the same for all networks and surveys: fewer than `LEAST` objects of a class; an
    interval of the AUC that holds 0.5; classes without any overlap, for which that interval has no
    width; no significant gain over the released network as it is, or over random weights; the same
    object twice. All but the last are judged at the largest number of labels alone.

    Args:
        curve: DataFrame of `measure`.
        twice: Sentences that name objects that are there twice.

    Returns:
        List of sentences; empty if there is nothing to say.
    """
    best = curve[curve["start"] == TRANSFER].sort_values("n_train").iloc[-1]
    n_other, found = int(best["n"] - best["n_lens"]), []
    for n, what in ((int(best["n_lens"]), "lenses"), (n_other, "objects that are no lens")):
        if n < LEAST:
            found.append(
                f"only {n} {what} were labelled, fewer than {LEAST}: neither the AUC nor its "
                "interval can be relied on; label more"
            )
    auc = f"AUC {best['auc']:.3f} ({best['low']:.3f} to {best['high']:.3f})"
    if best["low"] <= 0.5 <= best["high"]:
        found.append(
            f"the adapted network may be no better than a guess: {auc}, which includes 0.5; "
            "label more, or look at images and bands"
        )
    elif best["high"] < 0.5:
        found.append(f"the adapted network ranks lenses below others: {auc}; check the labels")
    elif best["low"] == best["high"]:
        found.append(
            f"lenses and others are told apart without one error: {auc}, an interval that says "
            "nothing; look for what else differs between them (cast-lens shortcuts), or label more"
        )
    for key, what in ((DIRECT, "the released network as it is, without any of the labels"),
                      (SCRATCH, "the same network trained from random weights")):  # fmt: skip
        gain, p = best[f"over_{key}"], best[f"p_{key}"]
        if np.isnan(p) or (gain > 0 and p < ALPHA):
            continue
        low, high = best[f"over_{key}_low"], best[f"over_{key}_high"]
        said = "is worse than" if p < ALPHA else "is not shown to be better than"
        found.append(
            f"the adapted network {said} {what}: AUC {gain:+.3f} ({low:+.3f} to {high:+.3f}), "
            f"p = {p:.2g}"
        )
    return [*found, *twice]


def draw(curve, path, *, title):
    """Draw the learning curve: AUC against the number of labels.

    Args:
        curve: DataFrame of `measure`.
        path: PNG to write.
        title: Names network and images.
    """
    figure, axes = figures.figure_with_axes(7.2, 4.8)
    names = {TRANSFER: "adapted: begins with the released weights",
             SCRATCH: "from scratch: the same network, random weights"}  # fmt: skip
    for k, (start, name) in enumerate(names.items()):
        part = curve[curve["start"] == start].sort_values("n_train")
        if not len(part):
            continue
        ends = np.abs(part[["low", "high"]].to_numpy().T - part["auc"].to_numpy())
        x = part["n_train"] * 1.02 ** (2 * k - 1)  # beside one another, not on top
        axes.errorbar(x, part["auc"], ends, label=name, color=figures.COLORS[k],
                      marker=figures.MARKERS[k], ls="-" if k == 0 else "--", capsize=3)  # fmt: skip
    direct = curve[curve["start"] == DIRECT].iloc[0]
    axes.axhline(direct["auc"], color="0.3", lw=1.2, label="released network as it is")
    axes.axhspan(direct["low"], direct["high"], color="0.3", alpha=0.12, lw=0)
    axes.axhline(0.5, color="0.5", ls=":", lw=0.8, label="a guess")
    sizes = sorted(set(curve["n_train"]) - {0})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_ylim(min(0.4, float(curve["low"].min()) - 0.02), 1.02)
    axes.set_xlabel("labels trained on, both classes together")
    axes.set_ylabel("ROC AUC (bars: 95 %, DeLong)")
    axes.set_title(f"{plain(title)}\n{direct['n_lens']} lenses and "
                   f"{direct['n'] - direct['n_lens']} others, each scored by a network that had "
                   "not seen it", fontsize=10)  # fmt: skip
    axes.legend(frameon=False, fontsize=9)
    figures.save(figure, path)


def _over_folds(logits, name, n_train):
    """Return mean and t interval of the AUCs of the folds that hold both classes."""
    parts = [part for _, part in logits.groupby("fold") if part["label"].nunique() == 2]
    values = [metrics.roc_auc(part["label"], part[name]) for part in parts]
    found = {"fold_mean": float(np.mean(values)) if values else np.nan}
    if len(values) > 1:
        overlap = {}
        if n_train:  # the released network is the same in all folds, which then share nothing
            n_test = len(logits) / logits["fold"].nunique()
            overlap = {"n_train": n_train, "n_test": n_test}
        interval = intervals.mean_interval(values, level=LEVEL, **overlap)
        found |= {"fold_low": max(interval.low, 0.0), "fold_high": min(interval.high, 1.0)}
    return found


def _strata(logits):
    """Return the fold of each object; 0 for all where a fold has fewer than two of a class."""
    counts = logits.groupby("fold")["label"].agg(["sum", "size"])
    enough = min(counts["sum"].min(), (counts["size"] - counts["sum"]).min()) >= 2
    return logits["fold"].to_numpy() if enough else np.zeros(len(logits), int)


def _compare(labels, one, other, strata):
    """Compare two AUCs within strata; return the first, their difference and its error."""
    one, other, found, pairs = np.asarray(one), np.asarray(other), [], []
    for stratum in np.unique(strata):
        own = strata == stratum
        pair = intervals.delong(labels[own], one[own], other[own])
        found.append((pair.auc_a, pair.difference, pair.standard_error))
        pairs.append(labels[own].sum() * (1 - labels[own]).sum())
    weights = np.array(pairs) / np.sum(pairs)
    auc, difference, error = np.array(found).T
    return (float(np.sum(weights * auc)), float(np.sum(weights * difference)),
            math.sqrt(np.sum((weights * error) ** 2)))  # fmt: skip


def _auc(labels, values, strata):
    """Return an AUC and its interval, cut at 0 and 1."""
    # Against scores that say nothing, whose AUC is 0.5 without any error.
    auc, _, error = _compare(labels, values, np.zeros(len(labels)), strata)
    half = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)) * error
    return auc, max(auc - half, 0.0), min(auc + half, 1.0)


def _gain(labels, values, others, strata, key):
    _, difference, error = _compare(labels, values, others, strata)
    half = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)) * error
    z = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    return {
        f"over_{key}": difference, f"over_{key}_low": difference - half,
        f"over_{key}_high": difference + half, f"p_{key}": float(2 * scipy.stats.norm.sf(abs(z))),
    }  # fmt: skip
