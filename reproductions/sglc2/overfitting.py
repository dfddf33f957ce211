"""Secs. 4.1 and 7.4: from which epoch on does a network overfit?"""

import pandas as pd

from cast_lens import intervals
from reproductions.sglc2.limits import from_on
from reproductions.sglc2.settings import CLIPPINGS, INPUTS


def onset_epoch(history):
    """Find the epoch from which on, to the last, validation loss is above training loss.

    Sec. 4.1: "Overfitting occurs when the difference between training and validation loss starts to
    diverge". The paper reads it off the curves; here, it is where the 95 % interval of the mean
    difference over the folds is above zero. Augmentation and drop-connect, which act in training
    alone, make it negative at first.

    Args:
        history: DataFrame of run, epoch, loss and val_loss.

    Returns:
        The epoch, from 1; None if there is none, or there are less than two folds or epochs.
    """
    gap = (history["val_loss"] - history["loss"]).rename("gap")
    table = pd.concat([history[["epoch", "run"]], gap], axis=1)
    table = table.pivot(index="epoch", columns="run", values="gap").dropna()
    if min(table.shape) < 2:
        return None
    lows = {
        epoch: intervals.mean_interval(values).low
        for epoch, values in zip(table.index, table.to_numpy())
    }
    return from_on({epoch: low > 0 for epoch, low in lows.items()})


def onsets_of_run(folder):
    """Find the onset of every cell of a run, and the lowest and highest of each kind of network.

    Args:
        folder: Of the run; a cell's losses are in history.csv.

    Returns:
        List of (experiment, metric, epoch, number of cells): "overfit_onset_epoch" of each cell,
        and "overfit_onset_epoch_low" and "..._high" of table1.one_branch and table1.two_branch,
        which are of the cells with pre-processing (Sec. 4.1). A cell that does not overfit has no
        onset, and counts in none of these.
    """
    found = {}
    for path in sorted(folder.glob("*/history.csv")):
        epoch = onset_epoch(pd.read_csv(path, dtype={"run": str}))
        if epoch is not None:
            found[path.parent.name] = epoch
    rows = [(name, "overfit_onset_epoch", epoch, 1) for name, epoch in found.items()]
    for word, n_branches in (("one_branch", 1), ("two_branch", 2)):
        kind = [epoch for name, epoch in found.items() if name in _cells(n_branches)]
        if kind:
            for end, epoch in (("low", min(kind)), ("high", max(kind))):
                rows.append((f"table1.{word}", f"overfit_onset_epoch_{end}", epoch, len(kind)))
    return rows


def _cells(n_branches):
    return {
        f"table1.{inputs}.{clipping}"
        for inputs, branches in INPUTS.items()
        for clipping in CLIPPINGS
        if len(branches) == n_branches and clipping != "none"
    }
