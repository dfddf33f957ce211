"""Sec. 3.2, training and scores: every training of every cell, each once, however often stopped."""

import sys
from dataclasses import asdict
from functools import partial

import keras
import numpy as np
import pandas as pd

from cast_lens import augment, checkpoints, dataset, run, scores
from reproductions.nottingham.data import constants
from reproductions.nottingham.network import set_constants
from reproductions.nottingham.settings import EACH, FAST, INITIAL, INPUT, word

FINAL = "final.safetensors"
RISEN = 0.9  # ASSUMED: the share of what the AUROC gains after which it no longer rises steeply
HISTORY = ["epoch", "loss", "val_loss", "auc", "val_auc"]
# What early stopping may watch, and which way is better: Sec. 2.7 names both.
WATCHED = {"val_loss": 1.0, "val_auc": -1.0}


def stopping_epoch(values, patience):
    """Return the epoch after which early stopping ends a training, from 1; None if it goes on.

    Args:
        values: Of each epoch, lower is better.
        patience: Epochs in a row that may not improve on the best (Sec. 2.7).

    Reference:
        keras.callbacks.EarlyStopping with its defaults.
    """
    best, waited = np.inf, 0
    for epoch, value in enumerate(values, 1):
        best, waited = (value, 0) if value < best or epoch == 1 else (best, waited + 1)
        if waited >= patience and epoch > 1:
            return epoch
    return None


class KeepStopped(keras.callbacks.Callback):
    """Keeps the weights that early stopping would have ended with, and lets the training go on.

    Up to that epoch a training with early stopping is the one without it, so one gives both.

    Args:
        folder: Of the training.
        kept: The Checkpoint, which comes after this in the list of callbacks.
        patience: As for `stopping_epoch`.
    """

    def __init__(self, folder, kept, patience):
        super().__init__()
        self.folder, self.kept, self.patience = folder, kept, patience

    def on_epoch_end(self, epoch, logs=None):
        """Write the weights if this is the epoch."""
        for name, sign in WATCHED.items():
            values = [sign * row[name] for row in (*self.kept.history, logs)]
            if stopping_epoch(values, self.patience) == epoch + 1:
                about = {"epoch": str(epoch + 1)}
                checkpoints.write_weights(self.model, self.folder / _stopped(name), about)


def _stopped(name):
    return f"stopped_{name}.safetensors"


def _place(folder, cell, k):
    return folder / "runs" / cell / f"run{k}"


def prepare(cell, config, survey, seed, k, networks, folder):
    """Return the compiled network of a training as it is before, with its constants."""
    index = word(*cell.encode())
    model = networks.get(config, [seed, index, k, INITIAL])
    if config.normalization != "code":
        name = f"{config.split}_{config.normalization}.csv"
        path = folder / "constants" / name
        set_constants(model, *constants(survey, config.split, config.normalization, path))
    return model


def fit(model, config, survey, seed, k, here):
    """Train a network from where it was left, to its last epoch; return the history.

    Args:
        model: As `prepare` returns it.
        config: The Config.
        survey: The Survey.
        seed: Of the run.
        k: Number of the training, which the order of the objects depends on.
        here: Folder of this training alone.

    Returns:
        DataFrame with the columns of `HISTORY`.
    """
    part = survey.parts[config.split]
    options = {"inputs": [INPUT], "batch_size": config.batch, "seed": seed, "fold": k}
    sampler = None
    if config.balanced:  # as many objects an epoch as without
        n_batches = -(-len(part["train"]) // (2 * EACH))
        sampler = partial(dataset.draw_halves, each=EACH, n_batches=n_batches)
    batches = dataset.from_pack(
        survey.pack, part["train"], shuffle=True, sampler=sampler, **options
    )
    held_out = dataset.from_pack(survey.pack, part["test"], shuffle=False, **options)
    object_ids = survey.pack.catalog["object_id"].to_numpy()
    kept = checkpoints.Checkpoint(
        here, monitor="val_loss",
        objects=lambda epoch, step: object_ids[batches.rows(epoch * batches.steps + step)],
    )  # fmt: skip
    done = kept.restore(model)
    if done < config.epochs:
        model.fit(
            dataset.feed(batches, first_epoch=done, repeat=True), steps_per_epoch=batches.steps,
            initial_epoch=done, epochs=config.epochs, shuffle=False,
            validation_data=dataset.feed(held_out, first_epoch=0, repeat=False),
            validation_steps=held_out.steps,
            callbacks=[KeepStopped(here, kept, config.patience), kept],
            verbose=1 if sys.stderr.isatty() else 2,
        )  # fmt: skip
    history = pd.DataFrame(kept.history)
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history[HISTORY]


def score(model, source, rows, *, views, run_key, n_train):
    """Score objects; return the table of scores.

    Args:
        model: The network.
        source: A Pack, or what else `dataset.from_pack` takes.
        rows: Of the source's catalog.
        views: 1, or 8 for the eighth root of the product over the dihedral images: the order is
            that of the product of LASTRO's code, and 0.5 stays the threshold.
        run_key: Key of the training.
        n_train: Objects that it saw.
    """
    options = {"batch_size": 100, "seed": 0, "fold": 0, "shuffle": False}
    batches = dataset.from_pack(source, rows, inputs=[INPUT], **options)
    found = []
    for number in range(batches.steps):
        images = batches.read(number)[0]
        if views == 1:
            found.append(model.predict_on_batch(images))
        else:
            found.append(augment.dihedral_product(model, images) ** (1 / views))
    objects, values = source.catalog.iloc[rows], np.concatenate(found)[:, 0]
    return scores.score_table(
        objects["object_id"], objects["label"], values, run=run_key, n_train=n_train
    )


def run_cell(cell, config, survey, n_runs, real, seed, networks, folder):
    """Train all networks of a cell and score with them, each once; return its tables.

    Args:
        cell: Name of the cell.
        config: Its Config.
        survey: The Survey.
        n_runs: Trainings, which differ in all random numbers but the split.
        real: Source of the real cutouts, or None.
        seed: Of the run.
        networks: The Networks.
        folder: Of the run; a training has runs/<cell>/run<k> for itself.

    Returns:
        {"test": scores, "other_views": scores, ..., "history": metrics of all epochs}.
    """
    found: dict[str, list] = {}
    for k in range(n_runs):
        run_one(cell, config, survey, k, real, seed, networks, folder)
        here = _place(folder, cell, k)
        for name in _wanted(config, survey, real):
            found.setdefault(name, []).append(scores.read_scores(here / f"{name}.csv"))
        history = pd.read_csv(here / "history.csv")
        history.insert(0, "run", str(k))
        found.setdefault("history", []).append(history)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def run_one(cell, config, survey, k, real, seed, networks, folder):
    """Train and score one network of a cell, number `k`, unless that was done; as `run_cell`."""
    here = _place(folder, cell, k)
    run.claim(here / "config.json", asdict(config), "Use --restart (RESTART=1).")
    wanted = _wanted(config, survey, real)
    if not (here / FINAL).exists() or not all((here / f"{w}.csv").exists() for w in wanted):
        model = prepare(cell, config, survey, seed, k, networks, folder)
        train_and_score(model, config, survey, wanted, seed, k, here)


def last_of(config, survey, real, folder, cell, k):
    """Return the path of the file that `run_one` writes last."""
    return _place(folder, cell, k) / f"{list(_wanted(config, survey, real))[-1]}.csv"


def train_and_score(model, config, survey, wanted, seed, k, here):
    """Do what is left to do of one training: its epochs, then what `_wanted` says."""
    if not (here / FINAL).exists():
        history = fit(model, config, survey, seed, k, here)
        text = history.to_csv(index=False, lineterminator="\n")
        run.write_whole(here / "history.csv", text)
        checkpoints.write_weights(model, here / FINAL, {"epoch": str(len(history))})  # last
    for name in (checkpoints.STATE, checkpoints.BEST):
        (here / name).unlink(missing_ok=True)
    n_train = len(survey.parts[config.split]["train"])
    for name, (source, rows, views) in wanted.items():
        if not (here / f"{name}.csv").exists():
            weights = here / f"{name}.safetensors"
            checkpoints.read_weights(model, weights if weights.exists() else here / FINAL)
            table = score(model, source, rows, views=views, run_key=k, n_train=n_train)
            scores.write_scores(table, here / f"{name}.csv")


def _wanted(config, survey, real):
    """Return what a training scores, {name: (source, rows, views)}.

    "stopped_..." has weights of its own if early stopping ended the training, else the last ones.
    """
    test = survey.pack, survey.parts[config.split]["test"]
    found = {"test": (*test, config.views)}
    if config.split == "order":
        found["other_views"] = (*test, 1 if config.views > 1 else 8)
        found |= {f"stopped_{name}": (*test, config.views) for name in WATCHED}
        if survey.challenge is not None:
            found["challenge"] = (survey.challenge, survey.challenge_rows, config.views)
        if real is not None:
            found["real"] = (real, np.arange(len(real.catalog)), config.views)
    return found


def numbers_of_history(history, n_train, patience):
    """Return what Figure 8 shows of each training, as rows of metrics.csv.

    Args:
        history: Of all trainings of a cell.
        n_train: Objects that they saw.
        patience: Of early stopping.

    Returns:
        DataFrame of run, n_train, metric, value, note. A training that early stopping did not end
        has no n_epochs, one of ten epochs or fewer no gains (Sec. 5, par. 5).
    """
    rows = []
    for key, part in history.groupby("run", sort=False):
        stop = stopping_epoch(part["val_loss"], patience)
        curve = part["val_auc"].to_numpy()[:stop]
        shown = {"n_epochs": np.nan if stop is None else stop}
        gains, late = np.diff(curve), len(curve) > FAST
        shown["roc_auc_gain_epochs_1_to_10"] = gains[: FAST - 1].sum() if late else np.nan
        shown["roc_auc_gain_after_epoch_10"] = gains[FAST - 1 :].sum() if late else np.nan
        reached = curve - curve[0] >= RISEN * (curve.max() - curve[0])
        shown["fast_rise_epochs"] = int(np.argmax(reached)) + 1 if late else np.nan
        note = "" if late and stop else f"{len(curve)} epochs, early stopping {stop or 'never'}"
        rows += [(key, n_train, metric, value, note) for metric, value in shown.items()]
    return pd.DataFrame(rows, columns=["run", "n_train", "metric", "value", "note"])
