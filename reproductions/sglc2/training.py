"""Sec. 4, training and scores: every fold of every cell of Table 1, each once."""

import sys
from dataclasses import asdict

import numpy as np
import pandas as pd

from cast_lens import checkpoints, dataset, metrics, run, scores
from reproductions.sglc2.network import build_model, give_common, give_released, set_bounds
from reproductions.sglc2.settings import (
    CELLS,
    CLIPPINGS,
    EASIER,
    INITIAL,
    INPUTS,
    SCALES,
    STAGES,
    config_of,
)
from reproductions.sglc2.survey import constants


def train(cell, config, survey, fold, seed, networks, folder):
    """Train one fold of one cell, from where it was left; return its network and history.

    Args:
        cell: Name of the cell.
        config: Its Config.
        survey: The Survey.
        fold: Number of the fold.
        seed: Of the run.
        networks: The Networks.
        folder: Of the run; this training has folds/<cell>/fold<k> for itself.

    Returns:
        The network with the weights of the epoch of lowest validation loss (Sec. 4.1), and its
        history, a DataFrame of epoch, loss and val_loss.
    """
    here, branches = folder / "folds" / cell / f"fold{fold}", list(INPUTS[config.inputs])
    run.claim(here / "config.json", asdict(config), "Use --restart (RESTART=1).")
    model = networks.get(config, [seed, CELLS.index(cell), fold, INITIAL])
    if config.initial in STAGES:
        give_stage(model, config.initial, folder, fold, seed)
    if config.initial == "released":
        give_released(model, config)
    found = constants(survey, fold, branches, folder / "constants")
    percents = CLIPPINGS[config.clipping]
    set_bounds(model, {name: [found[name].loc[p] for p in percents] for name in branches})
    part = survey.parts[fold]
    if config.least_n_pix:
        part = {name: easier(survey, rows, config.least_n_pix) for name, rows in part.items()}
    history = fit(model, config, survey.images, part, seed=seed, fold=fold, here=here)
    return model, history


def give_stage(model, stage, folder, fold, seed):
    """Give a network what was trained at one of STAGES, in the run folder beside this one."""
    (cell,), changes = SCALES[stage].cells, SCALES[stage].changes
    here = STAGES[STAGES.index(stage) + 1]
    earlier = folder.with_name(folder.name.replace(f"-{here}-", f"-{stage}-"))
    other = build_model(config_of(cell, changes), seed)
    checkpoints.read_weights(other, earlier / "folds" / cell / f"fold{fold}" / checkpoints.BEST)
    give_common(model, other)


def easier(survey, rows, least_n_pix):
    """Return the rows of lenses with so many source pixels, and of as many others."""
    catalog = survey.pack.catalog.iloc[rows]
    is_lens = catalog["label"].to_numpy() == 1
    bright = rows[is_lens & (catalog["n_pix_source"].to_numpy() >= least_n_pix)]
    others = np.random.default_rng([EASIER, len(rows)]).permutation(rows[~is_lens])
    return np.sort(np.concatenate([bright, others[: len(bright)]]))


def fit(model, config, source, part, *, seed, fold, here):
    """Train a network from where it was left; it ends with the weights of its best epoch.

    Args:
        model: Compiled, as it is before training.
        config: The Config.
        source: The Pack, or what else `dataset.from_pack` takes.
        part: {"train": rows, "test": rows}; the losses of the latter choose the epoch (Sec. 4.1).
        seed: Of the run.
        fold: Number that the order of the objects depends on.
        here: Folder for the checkpoints of this training alone.

    Returns:
        Its history, a DataFrame of epoch, loss and val_loss.
    """
    options = {"inputs": list(INPUTS[config.inputs]), "batch_size": config.batch}
    options |= {"seed": seed, "fold": fold}
    batches = dataset.from_pack(source, part["train"], shuffle=True, **options)
    held_out = dataset.from_pack(source, part["test"], shuffle=False, **options)
    object_ids = source.catalog["object_id"].to_numpy()
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
            callbacks=[kept], verbose=1 if sys.stderr.isatty() else 2,
        )  # fmt: skip
    checkpoints.read_weights(model, here / checkpoints.BEST)
    history = pd.DataFrame(kept.history)
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history


def score(model, config, source, rows, *, run_key, n_train):
    """Score objects of a pack; return the table of scores: the softmax of the class lens."""
    options = {"batch_size": config.batch, "seed": 0, "fold": 0, "shuffle": False}
    batches = dataset.from_pack(source, rows, inputs=list(INPUTS[config.inputs]), **options)
    inputs = dataset.feed(batches, first_epoch=0, repeat=False)
    values = model.predict(inputs, steps=batches.steps, verbose=0)[:, 1]
    objects = source.catalog.iloc[rows]
    return scores.score_table(
        objects["object_id"], objects["label"], values, run=run_key, n_train=n_train
    )


def run_cell(cell, config, survey, seed, networks, folder):
    """Train and score all folds of a cell, each once; return its tables.

    Returns:
        {"table1": scores of the held-out parts, "test80k": of the independent test, "history":
        losses of all folds, "extra": numbers that do not come from scores}.
    """
    found: dict[str, list] = {"table1": [], "test80k": [], "history": []}
    for fold in range(len(survey.parts)):
        here = run_fold(cell, config, survey, fold, seed, networks, folder)
        found["history"].append(pd.read_csv(here / "history.csv", dtype={"run": str}))
        for name in ("table1", "test80k"):
            if (here / f"{name}.csv").exists():
                found[name].append(scores.read_scores(here / f"{name}.csv"))
    tables_ = {name: pd.concat(parts) for name, parts in found.items() if parts}
    return tables_ | {"extra": loss_numbers(tables_["history"], tables_["table1"])}


def run_fold(cell, config, survey, fold, seed, networks, folder):
    """Train and score one fold of a cell, unless that was done; return its folder."""
    here, part = folder / "folds" / cell / f"fold{fold}", survey.parts[fold]
    if not (here / "history.csv").exists():
        model, history = train(cell, config, survey, fold, seed, networks, folder)
        about = {"run_key": fold, "n_train": len(part["train"])}
        held_out = score(model, config, survey.images, part["test"], **about)
        scores.write_scores(held_out, here / "table1.csv")
        if len(survey.test):
            test = score(model, config, survey.images, survey.test, **about)
            scores.write_scores(test, here / "test80k.csv")
        history.insert(0, "run", fold)
        text = history.to_csv(index=False, lineterminator="\n")
        run.write_whole(here / "history.csv", text)  # last: it says that the fold is done
        (here / checkpoints.STATE).unlink(missing_ok=True)
    return here


def loss_numbers(history, held_out):
    """Return what Figures 6 and 7 show of each fold, and chance, as rows of metrics.csv."""
    rows = []
    for (key, part), (_, scored) in zip(history.groupby("run", sort=False),
                                        held_out.groupby("run", sort=False)):  # fmt: skip
        gap = (part["val_loss"] - part["loss"]).to_numpy()
        best, n_lens = int(part["val_loss"].argmin()), int(scored["label"].sum())
        chance, _ = metrics.chance_f_beta(
            n_lens, len(scored) - n_lens, beta_squared=0.001, draws=200, seed=0
        )
        numbers = {
            "val_loss_drop": part["val_loss"].iloc[0] - part["val_loss"].min(),
            "loss_gap_best_epoch": gap[best],
            "loss_gap_last_epoch": gap[-1],
            "best_epoch": best + 1,
            "chance_f_beta_0.001": chance,
        }
        n_train = scored["n_train"].iloc[0]
        rows += [(key, n_train, metric, value, "") for metric, value in numbers.items()]
    return pd.DataFrame(rows, columns=["run", "n_train", "metric", "value", "note"])
