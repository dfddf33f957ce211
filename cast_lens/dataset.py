"""Batches for training and scoring, from packed arrays or straight from FITS files.

A batch is a pure function of its number: of seed, fold and epoch, and of nothing that was drawn or
read before. So tf.data and Keras's own PyDataset deliver the same ones, training can go on at any
epoch, and an object's tensor never hangs on what else is in its batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import pandas as pd

from cast_lens import folds
from cast_lens.cutouts import CutoutError, read_cutout, read_into
from cast_lens.sampling import alternate_classes, class_weights, draw_halves, generator, order

__all__ = [
    "Batches",
    "CutoutFiles",
    "alternate_classes",
    "as_py_dataset",
    "as_tf_data",
    "class_weights",
    "draw_halves",
    "from_catalog",
    "from_pack",
    "order",
]


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a set of objects, epoch after epoch.

    Attributes:
        source: What holds the images: `source.batch(name, positions)` returns them, float32, shape
            (batch, height, width, band).
        positions: Row of each object in the source's catalog, shape (objects,).
        labels: Their labels, shape (objects,), or None.
        inputs: Names of the images, which are those of the network's inputs.
        batch_size: Objects in a batch; the last of an epoch can be shorter.
        draw: Function of the epoch that returns which of `positions` come, in which order.
        length: How many it returns.
    """

    source: Any
    positions: np.ndarray
    labels: np.ndarray | None
    inputs: tuple[str, ...]
    batch_size: int
    draw: Callable[[int], np.ndarray]
    length: int

    @property
    def steps(self):
        """Batches in an epoch."""
        return math.ceil(self.length / self.batch_size)

    def rows(self, number):
        """Return the positions in the catalog of the objects of a batch, shape (batch,).

        Args:
            number: Number of the batch, counted through all epochs: epoch * steps + step.
        """
        return self.positions[self._drawn(number)]

    def read(self, number):
        """Read a batch.

        Args:
            number: As for `rows`.

        Returns:
            ({input: images}, labels), images of shape (batch, height, width, band) and labels of
            shape (batch, 1), all float32; without labels ({input: images},).
        """
        drawn = self._drawn(number)
        rows = self.positions[drawn]
        images = {name: self.source.batch(name, rows) for name in self.inputs}
        if self.labels is None:
            return (images,)
        return images, self.labels[drawn].astype(np.float32)[:, None]

    def _drawn(self, number):
        epoch, step = divmod(number, self.steps)
        drawn = self.draw(epoch)
        if len(drawn) != self.length:
            raise ValueError(
                f"the sampler drew {len(drawn)} objects in epoch {epoch} and {self.length} in "
                "epoch 0, expected as many in every epoch"
            )
        return drawn[step * self.batch_size : (step + 1) * self.batch_size]


@dataclass(frozen=True, eq=False)
class CutoutFiles:
    """FITS files as a source of batches; `from_catalog` makes it.

    Attributes:
        catalog: DataFrame of the objects, with the columns of `inputs`.
        inputs: Columns of paths that are the bands of each input, in their order.
        shapes: Height and width of each input, pixels.
        mask_value: As for `cutouts.read_cutout`.
    """

    catalog: pd.DataFrame
    inputs: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, int]]
    mask_value: float | None

    def batch(self, name, positions):
        """Read the images of an input, float32, shape (batch, height, width, band).

        Raises:
            CutoutError: If a file cannot be used, or is larger or smaller than that of the first
                object.
        """
        columns = self.inputs[name]
        out = np.empty((len(positions), *self.shapes[name], len(columns)), np.float32)
        for n, column in enumerate(columns):
            paths = self.catalog[column].to_numpy()[positions].tolist()
            read_into(paths, out[..., n], mask_value=self.mask_value, strict=True)
        return out


def from_pack(pack, positions, *, inputs, batch_size, seed, fold, shuffle, sampler=None):
    """Make batches of objects of a pack.

    Args:
        pack: As `cast_lens.pack.open_pack` returns it: `pack.catalog`, a DataFrame in the order of
            the records, and `pack.batch(name, positions)`.
        positions: Rows of `pack.catalog`, each once, in the order of the scores to come.
        inputs: Names of the pack's images; the network's inputs have the same.
        batch_size: Objects in a batch; the last of an epoch is shorter where they do not fit.
        seed: Whole number, 0 or more.
        fold: Number of the fold, which draws an order of its own.
        shuffle: Whether each epoch has an order of its own; for scores it must not.
        sampler: None for each object exactly once an epoch, or a function of the objects' labels,
            shape (objects,), and a numpy Generator, that returns the indices that an epoch
            consists of: `alternate_classes`, or `draw_halves` with its arguments.

    Returns:
        Batches. Labels are those of `pack.catalog`; without such a column there are none.

    Raises:
        ValueError: If an argument is out of range, or a position is none or is there twice.
    """
    if isinstance(inputs, str) or not len(inputs) or batch_size < 1:
        raise ValueError(
            f"inputs are {inputs!r} and batch_size is {batch_size}, expected a list of one name or "
            "more, and 1 object or more"
        )
    if sampler is not None and not (shuffle and "label" in pack.catalog):
        raise ValueError("found a sampler, expected shuffle=True and a column label beside it")
    folds.audit(pack.catalog, {"positions": positions})
    positions = np.asarray(positions)
    labels = None
    if "label" in pack.catalog:
        labels = pack.catalog["label"].to_numpy()[positions]

    @lru_cache(maxsize=2)  # the reader can be an epoch ahead of the one that asks for positions
    def draw(epoch):
        if sampler is not None:
            return sampler(labels, generator(seed, fold, epoch))
        n = len(positions)
        return order(n, seed=seed, fold=fold, epoch=epoch) if shuffle else np.arange(n)

    return Batches(pack, positions, labels, tuple(inputs), batch_size, draw, len(draw(0)))


def from_catalog(catalog, positions, *, inputs, mask_value, **options):
    """Make batches of FITS files, with one call of Python a batch and input.

    Args:
        catalog: DataFrame with object_id, perhaps label, and columns of paths.
        positions: Rows of `catalog`, each once.
        inputs: Columns of paths that become the bands of each input of the network, such as
            {"vis": ["path_VIS"], "nir": ["path_H", "path_J", "path_Y"]}.
        mask_value: As for `cutouts.read_cutout`.
        options: As for `from_pack`.

    Returns:
        Batches. A file that cannot be used ends the run with its path, so pack large surveys.

    Raises:
        CutoutError: If an object has no file in a band, or the first has none that can be used.
        ValueError: As `from_pack`.
    """
    folds.audit(catalog, {"positions": positions})
    columns = {name: tuple(paths) for name, paths in inputs.items()}
    objects = catalog.iloc[np.asarray(positions)]
    shapes = {name: _shape(objects, paths, mask_value) for name, paths in columns.items()}
    source = CutoutFiles(catalog, columns, shapes, mask_value)
    return from_pack(source, positions, inputs=columns, **options)


def feed(batches, *, first_epoch, repeat):
    """Return batches as Keras takes them on the backend at hand: tf.data or a PyDataset.

    Args:
        batches: As for `as_tf_data`.
        first_epoch: As for `as_tf_data`.
        repeat: As for `as_tf_data`.
    """
    if keras.backend.backend() == "tensorflow":
        return as_tf_data(batches, first_epoch=first_epoch, repeat=repeat)
    return as_py_dataset(batches, first_epoch=first_epoch, repeat=repeat)


def as_tf_data(batches, *, first_epoch, repeat):
    """Return batches as a tf.data.Dataset that reads ahead of the network.

    Args:
        batches: The Batches.
        first_epoch: Epoch to begin with, the `initial_epoch` of `fit`.
        repeat: Whether epochs follow one another without end, for
            `fit(..., steps_per_epoch=batches.steps, shuffle=False)`; else there is this one alone.

    Returns:
        Dataset of ({input: images}, labels), as `Batches.read` returns them.
    """
    import tensorflow as tf

    first = first_epoch * batches.steps
    numbers = tf.data.Dataset.counter(first)
    if not repeat:
        numbers = tf.data.Dataset.range(first, first + batches.steps)
    example = batches.read(first)

    def read(number):
        return keras.tree.flatten(batches.read(int(number)))

    def load(number):
        leaves = keras.tree.flatten(example)
        found = tf.numpy_function(read, [number], [tf.float32] * len(leaves), stateful=False)
        for tensor, leaf in zip(found, leaves, strict=True):
            tensor.set_shape((None, *leaf.shape[1:]))
        return keras.tree.pack_sequence_as(example, found)

    options = tf.data.Options()
    # Nothing here is left to tune, and whoever drops an iterator waits for the tuner, which sleeps.
    options.autotune.enabled = False
    found = numbers.map(load, num_parallel_calls=1, deterministic=True).prefetch(2)
    return found.with_options(options)


def as_py_dataset(batches, *, first_epoch, repeat):
    """Return the same batches as a keras.utils.PyDataset, for which no TensorFlow is needed.

    Args:
        batches: As for `as_tf_data`.
        first_epoch: As for `as_tf_data`.
        repeat: As for `as_tf_data`. One that does not repeat is for scores: `fit` would give all
            epochs the same batches, in an order of its own unless told shuffle=False.

    Returns:
        PyDataset of ({input: images}, labels), as `Batches.read` returns them.
    """
    return _PyBatches(batches, first_epoch * batches.steps, None if repeat else batches.steps)


class _PyBatches(keras.utils.PyDataset):
    def __init__(self, batches, first, num_batches):
        # Of one worker: with more, the batch that `fit` takes to build a model is lost.
        super().__init__()
        self.batches, self.first, self._num_batches = batches, first, num_batches

    @property
    def num_batches(self):
        return self._num_batches

    def __getitem__(self, index):
        if self._num_batches is not None and index >= self._num_batches:
            raise IndexError(f"batch {index}: the epoch has {self._num_batches}")
        return self.batches.read(self.first + index)


def _shape(objects, columns, mask_value):
    """Return height and width of the first object's image, once it is sure that all have one."""
    for column in columns:
        missing = objects["object_id"][objects[column].isna()]
        if len(missing):
            found = f"no file of object_id {missing.iloc[0]} and {len(missing) - 1} others"
            expected = "a file of each object in each band; leave these objects out"
            raise CutoutError("missing_band", column, found, expected)
    paths = [objects[column].iloc[0] for column in columns]
    return read_cutout(paths, mask_value=mask_value)[0].shape[:2]
