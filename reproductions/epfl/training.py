"""Secs. III.C to IV.C, training: every network once, from where it was left."""

import sys
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd

from cast_lens import checkpoints, dataset, metrics, run
from cast_lens.sampling import alternate_classes
from reproductions.epfl import evaluation
from reproductions.epfl.network import BatchMoments, build_model, compile_model
from reproductions.epfl.settings import (
    COMPOSITION,
    LARGEST_BATCH,
    LEAST_RATE,
    NETWORKS,
    STEP,
    STUDIED,
    TEST_BATCH,
    word,
)

PLATEAU = 0.0  # ASSUMED: an AUROC "oscillates" (Sec. IV.C.1) once an epoch has no new highest one
GROWTH = 2  # ASSUMED: of the batch then; the authors turned it by hand
DECAY = 0.1  # ASSUMED: of the learning rate then, likewise
MONITORED = "area_above_roc"  # 1 - AUROC: the lowest is the best
REMEDY = "Use --restart (RESTART=1)."
LAST = "history.csv"  # the file of a network that says that it is done


@dataclass(frozen=True, eq=False)
class Scorer:
    """A network and the two modes it can score in.

    Attributes:
        body: The network without augmentation.
        moments: The same in training mode.
        names: Of its inputs.
    """

    body: keras.Model
    moments: BatchMoments
    names: tuple[str, ...]

    def score(self, source, rows, *, method, key, batch=TEST_BATCH):
        """Score objects.

        Args:
            source: Labeled objects.
            rows: Of them.
            method: 1 for test mode; 2 for training mode, where a score hangs on the batch.
            key: Integers that the order of the objects comes from; of no effect in test mode.
            batch: Objects in a batch; the last can have fewer.

        Returns:
            Logits in the order of `rows`, float64, shape (objects,).
        """
        n = len(rows)
        order = np.random.default_rng(key).permutation(n) if method == 2 else np.arange(n)
        batches = dataset.from_pack(
            source, rows[order], inputs=self.names, batch_size=batch if method == 2 else 64,
            seed=0, fold=0, shuffle=False,
        )  # fmt: skip
        return self.logits(dataset.feed(batches, first_epoch=0, repeat=False), method)[
            np.argsort(order)
        ]

    def logits(self, images, method):
        """Score batches of images in their order; shape (objects,).

        The moving statistics, which training mode would go on averaging, stay as they are.
        """
        model = self.moments if method == 2 else self.body
        kept = [keras.ops.convert_to_numpy(v) for v in self.body.non_trainable_variables]
        found = model.predict(images, verbose=0)[:, 0].astype(np.float64)
        for variable, value in zip(self.body.non_trainable_variables, kept):
            variable.assign(value)
        return found


class AreaCheckpoint(checkpoints.Checkpoint):
    """Keeps the state after each epoch, and the weights of the epoch of the highest AUROC.

    Args:
        folder: Of this training alone.
        area: Function of the epoch that returns the AUROC of the test set.
        more: {name: number} that go into the history of each epoch.
        objects: As `checkpoints.Checkpoint`.
    """

    def __init__(self, folder, *, area, objects):
        super().__init__(folder, monitor=MONITORED, objects=objects)
        self.area, self.more = area, {}

    def on_epoch_end(self, epoch, logs=None):
        """Score the test set, then write the state."""
        area = {MONITORED: 1.0 - self.area(epoch)}
        super().on_epoch_end(epoch, (logs or {}) | area | self.more)

    @property
    def areas(self):
        """AUROC after each epoch so far."""
        return [1.0 - row[MONITORED] for row in self.history]


def batch_and_rate(config, areas):
    """Return batch size and learning rate of the next epoch.

    Args:
        config: The Config.
        areas: AUROC of the test set after each epoch so far.
    """
    if config.schedule == "step":  # authors' code: stepped before the epoch, not after it
        return config.batch, config.learning_rate * 0.1 ** ((len(areas) + 1) // STEP)
    stage, best = 0, -np.inf
    for area in areas:
        stage += bool(area <= best + PLATEAU)
        best = max(best, area)
    batch = min(config.batch * GROWTH**stage, LARGEST_BATCH)
    return batch, max(config.learning_rate * DECAY**stage, LEAST_RATE)


def is_over(config, areas):
    """Return whether training ends: after all epochs, or as the AUROC fell (Sec. III.C)."""
    fell = config.stop is not None and areas and areas[-1] < max(areas) - config.stop
    return len(areas) >= config.epochs or bool(fell)


def place(folder, name):
    """Return the folder of a network in that of a run."""
    return folder / "networks" / name


def train(name, config, survey, scale, seed, folder):
    """Train and score one network, unless that was done.

    Args:
        name: Key of `NETWORKS`.
        config: Its Config.
        survey: The Survey.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run; this network has networks/<name> for itself. In the end it holds its
            scores, and history.csv, which says that it is done.

    Raises:
        RunError: If it was begun with another Config, or the loss is not finite.
    """
    here = place(folder, name)
    run.claim(here / "config.json", asdict(config), REMEDY)
    if (here / LAST).exists():
        return
    number = list(NETWORKS).index(name)
    run.set_seed((seed, name))
    source = survey.labeled(config.label)
    model = build_model(config, word(seed, number))
    compile_model(model, config)
    body = model.get_layer("body")
    scorer = Scorer(body, BatchMoments(body), tuple(model.input))
    key = [seed, number, COMPOSITION]
    history = fit(model, config, scorer, source, survey.parts, seed=seed, key=key, here=here)
    best = int(history["roc_auc"].argmax())
    evaluation.write_scores(
        scorer, config, source, survey.parts, scale if name in STUDIED else None, [*key, best], here
    )
    (here / checkpoints.STATE).unlink(missing_ok=True)
    if name not in STUDIED:
        (here / checkpoints.BEST).unlink(missing_ok=True)
    run.write_whole(here / LAST, history.to_csv(index=False, lineterminator="\n"))


def fit(model, config, scorer, source, parts, *, seed, key, here):
    """Train a network, an epoch at a time; it ends with the weights of the highest AUROC.

    Args:
        model: Compiled, as it is before training.
        config: The Config.
        scorer: Its Scorer.
        source: Labeled objects.
        parts: {"train": rows, "test": rows}; the latter choose the epoch, as in Table I.
        seed: Of the order of the objects.
        key: Integers, which with the epoch give the composition of the test batches.
        here: Folder for the checkpoints of this training alone.

    Returns:
        Its history, a DataFrame of epoch, loss (with the penalty of L2), roc_auc, batch and
        learning_rate.
    """
    test = source.catalog["label"].to_numpy()[parts["test"]]
    object_ids = source.catalog["object_id"].to_numpy()
    options = {"inputs": scorer.names, "seed": seed, "fold": key[1], "shuffle": True}
    options["sampler"] = alternate_classes if config.balanced else None

    def area(epoch):
        keyed = [*key, epoch]
        logits = scorer.score(source, parts["test"], method=config.method, key=keyed)
        return metrics.roc_auc(test, logits)

    def named(epoch, step):
        return object_ids[batches.rows(epoch * batches.steps + step)]

    kept = AreaCheckpoint(here, area=area, objects=named)
    done = kept.restore(model)
    while not is_over(config, kept.areas):
        batch, rate = batch_and_rate(config, kept.areas)
        batches = dataset.from_pack(source, parts["train"], batch_size=batch, **options)
        model.optimizer.learning_rate = rate
        kept.more = {"batch": batch, "learning_rate": rate}
        model.fit(
            dataset.feed(batches, first_epoch=done, repeat=False), shuffle=False,
            initial_epoch=done, epochs=done + 1, callbacks=[kept],
            verbose=1 if sys.stderr.isatty() else 2,
        )  # fmt: skip
        done += 1
    checkpoints.read_weights(model, here / checkpoints.BEST)
    history = pd.DataFrame(kept.history).assign(roc_auc=kept.areas).drop(columns=MONITORED)
    history.insert(0, "epoch", range(1, len(history) + 1))
    return history
