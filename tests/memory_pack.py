"""A pack in memory, for tests: what batches ask of one, and images that say whose they are."""

import numpy as np
import pandas as pd

SHAPES = {"vis": (6, 5, 1), "nir": (2, 3, 3)}


class MemoryPack:
    """Images of random numbers, and what was asked for.

    Attributes:
        catalog: DataFrame of object_id and label.
        images: {name: array of shape (objects, height, width, band)}.
        asked: Lists of positions, one a call of `batch`.
    """

    def __init__(self, n, *, seed=0, labels=None):
        self.asked = []
        rng = np.random.default_rng(seed)
        self.catalog = pd.DataFrame({"object_id": [str(200_000 + 7 * k) for k in range(n)]})
        self.catalog["label"] = rng.permutation(n) % 3 // 2 if labels is None else labels
        self.images = {
            name: rng.standard_normal((n, *shape)).astype(np.float32)
            for name, shape in SHAPES.items()
        }

    def batch(self, name, positions):
        """Return images, shape (batch, height, width, band)."""
        self.asked.append(positions.tolist())
        return self.images[name][positions]
