"""Sec. IV.B, scores: each trained network once, in every way that a question asks for."""

import numpy as np
import pandas as pd

from cast_lens import run, scores
from reproductions.epfl.settings import TEST_BATCH
from reproductions.epfl.survey import ground_images

MODES = {1: "eval_mode", 2: "train_mode"}


def write_scores(scorer, config, source, parts, scale, key, here):
    """Score the test set, and for a network that is studied all else that is asked of it.

    Args:
        scorer: The Scorer, with the weights that are to be scored.
        config: The Config of the network.
        source: Labeled objects.
        parts: As of the Survey.
        scale: The Scale of a network that is studied; None for others.
        key: Integers, those of the epoch the weights are from: the scores of the test set are
            those that chose it.
        here: Folder for scores.csv and, if it is studied, other_mode.csv (the test set in the
            mode of the other method), whole.csv (the test set and the faint sources that a scale
            leaves out), train.csv (the training set), batch_size.csv (training mode, a run a size
            and composition) and reality.csv (real images of another survey).
    """
    n_train = len(parts["train"])

    def table(part, run_key, **options):
        rows = parts[part]
        objects = source.catalog.iloc[rows]
        values = scorer.score(source, rows, **{"method": config.method, "key": key} | options)
        return scores.score_table(
            objects["object_id"], objects["label"], values, run=run_key, n_train=n_train
        )

    scores.write_scores(table("test", "0"), here / "scores.csv")
    if scale is None:
        return
    other = table("test", "0", method=3 - config.method)
    scores.write_scores(other, here / "other_mode.csv")
    for name in ("whole", "train"):
        scores.write_scores(table(name, "0"), here / f"{name}.csv")
    found = [
        table("test", f"b{size}.{draw}", method=2, key=[*key, size, draw], batch=size)
        for size in scale.sizes
        for draw in range(scale.draws if size > 1 else 1)  # alone, an object has no neighbors
    ]
    scores.write_scores(pd.concat(found), here / "batch_size.csv")
    score_reality(scorer, config, here / "reality.csv")


def score_reality(scorer, config, path):
    """Score the real cutouts of the I SGLC, ground track, if they are here.

    Args:
        scorer: The Scorer.
        config: The Config of the network.
        path: CSV file of object_id, label and score, the logit.
    """
    found = ground_images()
    if found is None:
        return
    table, images = found
    logits = [
        scorer.logits({name: x[k : k + TEST_BATCH] for name, x in images.items()}, config.method)
        for k in range(0, len(table), TEST_BATCH)
    ]
    table = table.assign(score=np.concatenate(logits))
    table["object_id"] = table["object_id"].map(scores.escape_cell)
    run.write_whole(path, table.to_csv(index=False, lineterminator="\n"))
