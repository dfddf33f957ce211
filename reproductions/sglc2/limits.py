"""Secs. 5 and 6, limits: how bright must an arc be, and how many images does a network need?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from cast_lens import intervals, metrics
from reproductions.sglc2.settings import BINS, NEGATIVES


def meets_others(truth):
    """Return whether objects meet the criteria of a lens (Sec. 2.1) but for N_pix, bool."""
    return (truth["n_source_im"] > 0) & (truth["mag_eff"] > 1.6)


def n_pix_of(catalog):
    """Return N_pix of the objects that Figure 10 shows (Sec. 5), a Series."""
    return catalog["n_pix_source"][meets_others(catalog) & (catalog["n_pix_source"] > 0)]


def detection_limits(scored, catalog, seed):
    """Return scores of the bins of N_pix (Sec. 5) from those of the independent test.

    Args:
        scored: Table of scores of the test, all folds.
        catalog: Of the pack.
        seed: Of the run.

    Returns:
        {"npix.bin10": table of scores, ...}: lenses with 10 <= N_pix < 20 that meet the other two
        criteria, and as many objects of fewer than 10, drawn at random. A bin without objects is
        left out.
    """
    truth = catalog.set_index("object_id").loc[scored["object_id"]]
    n_pix = truth["n_pix_source"].to_numpy()
    others = meets_others(truth).to_numpy()
    found = {}
    for low in BINS:
        parts = []
        for _, part in scored.groupby("run", sort=False):
            n = n_pix[part.index]
            lenses = part[(n >= low) & (n < low + 10) & others[part.index]]
            below = part[n < low]
            size = min(len(lenses), len(below))
            rng = np.random.default_rng([seed, low, NEGATIVES])
            chosen = below.iloc[np.sort(rng.permutation(len(below))[:size])]
            parts += [lenses.assign(label=1), chosen.assign(label=0)] if size else []
        if parts:
            found[f"npix.bin{low}"] = pd.concat(parts)
    return found


@dataclass(frozen=True)
class Level:
    """How well an experiment does.

    Attributes:
        mean: ROC AUC, mean over the runs.
        sd: Standard deviation over runs and objects.
        low: Lower end of a 95 % interval of the mean, over runs and objects.
    """

    mean: float
    sd: float
    low: float


def level(table, *, n_train=0, n_test=0):
    """Measure how well an experiment does; None if no run has two of each class.

    Runs that score different objects scatter by them too. Where they score the same ones, or there
    is but one run, DeLong's error of the AUC is added in quadrature.

    Args:
        table: Table of scores.
        n_train: Objects of a run's training part, whose overlap makes runs alike; 0 for none.
        n_test: Objects of its held-out part.
    """
    counted = ((one, one["label"].sum()) for _, one in table.groupby("run", sort=False))
    both = [one for one, n_lenses in counted if 2 <= n_lenses <= len(one) - 2]
    if not both:
        return None
    values = np.array([metrics.roc_auc(one["label"], one["score"]) for one in both])
    mean, sd, half, objects = values.mean(), 0.0, 0.0, 0.0
    if len(both) > 1:
        overlap = {"n_train": n_train, "n_test": n_test} if n_train else {}
        sd, half = values.std(ddof=1), mean - intervals.mean_interval(values, **overlap).low
    if len(both) == 1 or pd.concat(both)["object_id"].duplicated().any():
        lows = [intervals.delong_interval(one["label"], one["score"]).low for one in both]
        objects = mean - np.mean(lows)
    return Level(
        mean, np.hypot(sd, objects / stats.norm.ppf(0.975)), mean - np.hypot(half, objects)
    )


def onsets(levels, full):
    """Find where scores leave chance, and where they reach those of the full sample (Secs. 5, 6).

    Args:
        levels: {place: Level or None}; places are numbers, such as the least N_pix of a bin.
        full: Level of the full sample, or None.

    Returns:
        The least place from which on, up to the largest, the 95 % interval of the mean AUC is above
        1/2; None if not even at the largest. And the least place, not below the first, from which
        on the mean AUC is at least that of the full sample, less the quadratic sum of both standard
        deviations; None if there is none, or the full sample is itself not above chance. The first
        can be the smallest place of all: then it is an upper limit.
    """
    levels = {place: found for place, found in levels.items() if found is not None}
    above = from_on({place: found.low > 0.5 for place, found in levels.items()})
    if above is None or full is None or not full.low > 0.5:
        return above, None
    return above, from_on({
        place: found.mean >= full.mean - np.hypot(found.sd, full.sd)
        for place, found in levels.items()
        if place >= above
    })  # fmt: skip


def from_on(holds):
    """Return the least place from which on, up to the largest, all hold; None if there is none.

    Args:
        holds: {place: bool}.
    """
    found = None
    for place in sorted(holds, reverse=True):
        if not holds[place]:
            break
        found = place
    return found
