"""What focal loss costs in training: ratio to cross-entropy, alternating in one process."""

import time

import numpy as np

from cast_lens import run, side_by_side
from cast_lens.mock import features
from reproductions import active_learning as paper


def rows(repeats=15):
    """Return the ratio of training times, focal over cross-entropy, as rows of numbers."""
    objects = features.make_table(0).rename(columns={"id_str": "object_id"})
    table, labels = paper.arrays(objects)
    fit = [paper.split(objects, state)[0] for state in paper.SPLITS]
    stacked = side_by_side.stack(table, fit), side_by_side.stack(labels, fit)
    keys = [(0, state) for state in paper.SPLITS]
    run.set_seed(0)
    ratios = []
    for _ in range(repeats + 1):
        seconds = []
        for alpha in (0.75, None):
            config = paper.Config(epochs=20, focal_alpha=alpha)
            start = time.perf_counter()
            paper.train(config, *stacked, keys)
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    ratios = np.array(ratios[1:])  # the first pays for starting TensorFlow
    return [
        {
            "name": "training_focal_over_cross_entropy",
            "value": float(np.median(ratios)),
            "low": float(ratios.min()),
            "high": float(ratios.max()),
            "unit": "ratio of seconds",
            "values": ratios.tolist(),
        }
    ]
