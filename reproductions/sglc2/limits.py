"""Sec. 5, detection limits: how bright must an arc be?"""

import numpy as np
import pandas as pd

from reproductions.sglc2.settings import BINS, NEGATIVES


def meets_others(truth):
    """Return whether objects meet the criteria of a lens (Sec. 2.1) but for N_pix, bool."""
    return (truth["n_source_im"] > 0) & (truth["mag_eff"] > 1.6)


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
