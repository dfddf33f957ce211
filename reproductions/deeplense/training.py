"""Secs. 2.2.3 and 3.2.3, training and scores: every network once, from where it was left."""

import math
import sys
from dataclasses import asdict

import keras
import numpy as np
import pandas as pd
from scipy.special import softmax

from cast_lens import checkpoints, dataset, run, scores
from reproductions.deeplense import network
from reproductions.deeplense.data import Resized, class_weights, constants, divide
from reproductions.deeplense.settings import CLASSES

THRESHOLD = 1e-4  # PyTorch's default: the share by which a loss has to be lower to count


def train(name, config, survey, seed, here, *, keep):
    """Train and score one network, unless that was done.

    Args:
        name: Of the experiment, from which its random numbers come.
        config: Its Config.
        survey: The Survey of its task.
        seed: Of all random numbers of this training.
        here: Folder for this training alone. In the end it holds scores.csv, of validation and
            test, and history.csv, which says that it is done.
        keep: Whether the weights of the best epoch stay.

    Raises:
        RunError: If it was begun with another Config, or the loss is not finite.
    """
    run.claim(here / "config.json", asdict(config), "Use --restart (RESTART=1).")
    if (here / "history.csv").exists():
        return
    run.set_seed((seed, name))
    parts = divide(survey, config.rules, seed)
    n_bands = survey.pack.manifest["arrays"]["image"]["shape"][-1]
    model = network.build_model(config, n_bands, seed)
    if config.normalization == "survey":
        network.set_constants(model, constants(survey, config.side, parts["train"], here))
    weights = class_weights(survey, parts, config)
    history = fit(model, config, weights, survey, parts, seed, here)
    table = score(model, config, survey, parts)
    scores.write_scores(table, here / "scores.csv")
    names = CLASSES[config.task]
    known = pd.DataFrame({"name": names, "weight": weights or (1.0,) * len(names)})
    run.write_whole(here / "weights.csv", known.to_csv(index=False, lineterminator="\n"))
    (here / checkpoints.STATE).unlink(missing_ok=True)
    if not keep:
        (here / checkpoints.BEST).unlink(missing_ok=True)
    run.write_whole(here / "history.csv", history.to_csv(index=False, lineterminator="\n"))


def fit(model, config, weights, survey, parts, seed, here):
    """Train a network; it ends with the weights of the epoch of lowest validation loss.

    Args:
        model: The network, as it is before training.
        config: The Config.
        weights: Of the classes in the loss, or None.
        survey: The Survey.
        parts: Of `data.divide`.
        seed: Of the order of the objects.
        here: Folder for the checkpoints.

    Returns:
        Its history, a DataFrame of epoch, loss, accuracy, val_loss, val_accuracy and learning_rate.
    """
    on_cpu = keras.backend.backend() == "tensorflow"  # where XLA makes convolutions slow
    model.compile(
        network.make_optimizer(config),
        network.cross_entropy(weights),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False if on_cpu else "auto",
    )
    source = Resized(survey.pack, config.side)
    options = {"inputs": ["image"], "batch_size": config.batch, "seed": seed, "fold": 0}
    batches = dataset.from_pack(source, parts["train"], shuffle=True, **options)
    held_out = dataset.from_pack(source, parts["validation"], shuffle=False, **options)
    object_ids = source.catalog["object_id"].to_numpy()
    kept = checkpoints.Checkpoint(
        here, monitor="val_loss",
        objects=lambda epoch, step: object_ids[batches.rows(epoch * batches.steps + step)],
    )  # fmt: skip
    done = kept.restore(model)
    # The rate is a function of the losses so far, so that it, too, goes on where it was.
    plateau = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate_after([row["val_loss"] for row in kept.history], config)
    )
    if done < config.epochs:
        model.fit(
            dataset.feed(batches, first_epoch=done, repeat=True), steps_per_epoch=batches.steps,
            initial_epoch=done, epochs=config.epochs, shuffle=False,
            validation_data=dataset.feed(held_out, first_epoch=0, repeat=False),
            validation_steps=held_out.steps,
            callbacks=[plateau, kept], verbose=1 if sys.stderr.isatty() else 2,
        )  # fmt: skip
    checkpoints.read_weights(model, here / checkpoints.BEST)
    history = pd.DataFrame(kept.history)
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history


def rate_after(losses, config):
    """Return the learning rate of the next epoch, as PyTorch's ReduceLROnPlateau sets it.

    It is multiplied by the factor whenever more than `patience` epochs in turn were not better
    than the best. keras.callbacks.ReduceLROnPlateau does so one epoch sooner, by an absolute
    threshold, and forgets all when it is stopped.

    Args:
        losses: Validation losses of the epochs so far.
        config: The Config.
    """
    rate, best, bad = config.learning_rate, math.inf, 0
    if config.patience is None:
        return rate
    for loss in losses:
        if loss < best * (1 - THRESHOLD):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > config.patience:
            rate, bad = rate * config.factor, 0
    return rate


def score(model, config, survey, parts):
    """Score validation and test objects.

    Returns:
        Table of scores: a run for each part and class, such as "test.vortex", whose labels say
        whether an object is of that class and whose scores are its softmax, in float64. Of two
        classes only the second, of which the first is the rest. A validation set that is the test
        set is not there.
    """
    names, tables = CLASSES[survey.task], []
    apart = not np.array_equal(parts["validation"], parts["test"])
    for part in ("validation", "test") if apart else ("test",):
        rows = parts[part]
        probabilities = softmax(logits(model, config, survey, rows), axis=1)
        objects = survey.pack.catalog.iloc[rows]
        for k, name in enumerate(names):
            if len(names) > 2 or k == 1:
                tables.append(scores.score_table(
                    objects["object_id"], objects["label"] == k, probabilities[:, k],
                    run=f"{part}.{name}", n_train=len(parts["train"]),
                ))  # fmt: skip
    return pd.concat(tables)


def logits(model, config, survey, rows):
    """Return logits, float64, shape (objects, classes), of an object or of its eight images."""
    found = []
    for element in range(8) if config.dihedral else (0,):
        source = Resized(survey.pack, config.side, element)
        batches = dataset.from_pack(
            source, rows, inputs=["image"], batch_size=config.batch, seed=0, fold=0, shuffle=False
        )
        images = dataset.feed(batches, first_epoch=0, repeat=False)
        found.append(model.predict(images, steps=batches.steps, verbose=0).astype(np.float64))
    return np.mean(found, axis=0)
