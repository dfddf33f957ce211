"""Many small networks of one shape trained side by side as one stack (batch, networks, features).

Adam and every loss summed over networks act on each network alone, so a network in a stack ends
with the weights it would have by itself, while one traced program and one matrix product serve all.
Initial weights and the order of objects come from a network's own key, never from its neighbours.
"""

import keras
import numpy as np

# Last word of a seed, so that no two uses of a key share a stream. Never 0: NumPy's SeedSequence
# does not tell (a,) from (a, 0).
WEIGHTS, ORDER = 1, 2


def stack(values, rows):
    """Return one column of objects per network.

    Args:
        values: Array of shape (objects, ...).
        rows: Per network the objects it sees, equally many, shape (networks, rows).

    Returns:
        Array of shape (rows, networks, ...).
    """
    return np.stack([np.asarray(values)[each] for each in rows], axis=1)


def initial_weights(n_features, n_hidden, keys):
    """Draw the weights of perceptrons with one hidden layer and one logit as PyTorch's Linear does.

    Kernels and biases are uniform in +-1 / sqrt(fan_in).

    Args:
        n_features: Inputs of a network.
        n_hidden: Hidden units of a network.
        keys: Per network a tuple of non-negative integers; the seed of its draws.

    Returns:
        Kernel (networks, features, hidden), bias (networks, hidden), kernel (networks, hidden)
        and bias (networks,), float64.

    Reference:
        torch.nn.Linear's documentation; He et al. (2015) with a = sqrt(5).
    """
    shapes = [(n_features, n_hidden), (n_hidden,), (n_hidden,), ()]
    fans = [n_features, n_features, n_hidden, n_hidden]
    generators = [np.random.default_rng([*key, WEIGHTS]) for key in keys]
    draws = [
        [generator.uniform(-1, 1, shape) / np.sqrt(fan) for shape, fan in zip(shapes, fans)]
        for generator in generators
    ]
    return [np.stack(arrays) for arrays in zip(*draws)]


def pass_order(n_objects, keys, number):
    """Return the order in which each network sees its objects in one pass over them.

    Args:
        n_objects: Objects of a network.
        keys: Per network a tuple of non-negative integers.
        number: Which pass, from 0.

    Returns:
        Row numbers, shape (objects, networks); every column is a permutation.
    """
    generators = [np.random.default_rng([*key, number, ORDER]) for key in keys]
    return np.stack([generator.permutation(n_objects) for generator in generators], axis=1)


class Batches(keras.utils.PyDataset):
    """Minibatches of a stack; every object once a pass, the last batch of a pass may be short.

    Give it to `fit` with epochs=1 and shuffle=False: batch i is a function of i and the keys, and
    nothing rests on when Keras calls `on_epoch_end` (3.15 does so before the first epoch too).

    Args:
        table: Features, shape (objects, networks, features).
        labels: Truth, shape (objects, networks).
        keys: Per network a tuple of non-negative integers.
        batch: Objects a network sees in one step.
        passes: Numbers of the passes over the objects, e.g. range(0, 10) and then range(10, 20).
    """

    def __init__(self, table, labels, keys, *, batch, passes):
        super().__init__()
        self.table, self.labels = (np.asarray(a, dtype=np.float32) for a in (table, labels))
        self.keys, self.batch, self.passes = keys, batch, passes
        self.steps = -(-len(labels) // batch)
        self._number, self._order = -1, np.empty((0, 0), dtype=int)

    def __len__(self):
        """Return the number of batches in all passes."""
        return self.steps * len(self.passes)

    def __getitem__(self, index):
        """Return batch `index`: features (b, networks, features) and labels (b, networks)."""
        number, step = self.passes[index // self.steps], index % self.steps
        if self._number != number:
            self._number, self._order = number, pass_order(len(self.labels), self.keys, number)
        rows = self._order[step * self.batch : (step + 1) * self.batch]
        return (
            np.take_along_axis(self.table, rows[:, :, None], axis=0),
            np.take_along_axis(self.labels, rows, axis=0),
        )
