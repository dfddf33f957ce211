"""Training that can be killed at any moment and goes on as if it had not been.

At the end of an epoch all that the next one depends on is written whole: weights, optimizer, the
state of random layers, and the history. The weights of the best epoch lie beside it. Where epochs
are short, some go by unwritten: a kill costs `SECONDS` and the epoch that it fell into.
"""

import json
import math
import os
import re
import time
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cast_lens.run import RunError, write_whole

STATE, BEST = "state.safetensors", "best.safetensors"
OBJECTS, NAMED = "not-finite.txt", 128  # more objects than that go into the file
SECONDS = 30.0  # between two states: that of two EfficientNet-B2 takes one or two to write
EVERY = 16  # batches between two looks at the loss, for each makes the host wait for a GPU
_REMEDY = "remove it, or train anew with --restart"


class Checkpoint(keras.callbacks.Callback):
    """Keeps the state of a training after its epochs, and the weights of its best one.

    Args:
        folder: Where STATE and BEST go; of this training alone.
        monitor: Name in the logs whose lowest value is best, such as "val_loss".
        objects: Function of epoch and step that returns the object_ids of a batch, for the message
            when the loss is not finite; None if they are not known.

    Attributes:
        history: List of the logs of each epoch, dicts of float, from the first on.
        every: Batches between two looks at the loss: 1 under TensorFlow, which has it at hand.
        seconds: From one state to the next; the last epoch is written whenever it ends.
    """

    def __init__(self, folder, *, monitor, objects=None):
        super().__init__()
        self.folder, self.monitor, self.objects = Path(folder), monitor, objects
        self.history = []
        self.every = 1 if keras.backend.backend() == "tensorflow" else EVERY
        self.seconds = SECONDS
        self._epoch = self._last = 0  # numbers of the epoch and of the batch
        self._written, self._time = 0, time.monotonic()  # epochs in the file, and when it was made
        self._best = None  # weights and number of an epoch that is better than that in the file

    def restore(self, model):
        """Give a compiled model the state after the last epoch that was finished.

        Args:
            model: As it was when the training began, compiled.

        Returns:
            Number of epochs that are done, the `initial_epoch` of `fit`.

        Raises:
            RunError: If the file is damaged, or of another network or optimizer.
        """
        model.optimizer.build(model.trainable_variables)
        path = self.folder / STATE
        if not path.exists():
            self.history = []
        else:
            self.history = json.loads(read_into(path, _variables(model))["history"])
        self._written, self._time, self._best = len(self.history), time.monotonic(), None
        return self._written

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the number of the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Stop before a loss that is no number gets into the state; that of before is kept."""
        self._last = batch
        if (batch + 1) % self.every == 0:
            self._look(batch, logs or {})

    def _look(self, batch, logs):
        # It is the mean of the epoch so far, and stays no number once it is none.
        if math.isfinite(logs.get("loss", 0.0)):
            return
        named, since = "", batch - batch % self.every
        if self.objects:
            steps = range(since, batch + 1)
            named = self._named([str(k) for step in steps for k in self.objects(self._epoch, step)])
        where = (
            f"batch {batch + 1}" if since == batch else f"one of batches {since + 1} to {batch + 1}"
        )
        raise RunError(
            f"{self.folder}: the loss is {logs['loss']} in epoch {self._epoch + 1}, after {where}"
            f"{named}; {self._remains()}"
        )

    def _remains(self):
        return f"the state after epoch {self._written} is kept, nothing is reported"

    def _named(self, ids):
        """Return the objects of some batches as a message has them; many go into a file."""
        if len(ids) <= NAMED:
            return f" of {len(ids)} objects: {', '.join(ids)}"
        write_whole(self.folder / OBJECTS, "".join(f"{k}\n" for k in ids))
        return f" of {len(ids)} objects, which {self.folder / OBJECTS} names"

    def on_epoch_end(self, epoch, logs=None):
        """Take note of the epoch, and write the state if the last one is old."""
        self._look(self._last, logs or {})
        found = {key: float(value) for key, value in (logs or {}).items()}
        earlier = [row[self.monitor] for row in self.history]
        value = found[self.monitor]
        if not math.isfinite(value):
            raise RunError(
                f"{self.folder}: {self.monitor} is {value} in epoch {epoch + 1}; {self._remains()}"
            )
        self.history = [*self.history, found]
        if value < min(earlier, default=math.inf):
            self._best = arrays(self.model.weights), {"epoch": str(epoch + 1)}
        if time.monotonic() - self._time >= self.seconds:
            self._write()

    def on_train_end(self, logs=None):
        """Write the state of the last epoch."""
        if len(self.history) > self._written:
            self._write()

    def _write(self):
        # The best weights first: those of an epoch that the state does not know are written again.
        if self._best:
            write_whole(self.folder / BEST, save(*self._best))
        data = save(arrays(_variables(self.model)), {"history": json.dumps(self.history)})
        write_whole(self.folder / STATE, data)
        self._written, self._time, self._best = len(self.history), time.monotonic(), None


def write_weights(model, path, about):
    """Write the weights of a model, and nothing that runs.

    Args:
        model: The model.
        path: Of the safetensors file; written whole.
        about: {word: text} to go with them.
    """
    write_whole(path, save(arrays(model.weights), about))


def read_weights(model, path):
    """Give a model the weights that `write_weights` kept.

    Args:
        model: Built, of the same layers.
        path: Of the file.

    Returns:
        The {word: text} that went with them.

    Raises:
        RunError: If the file is damaged, or of another network; nothing was changed then.
    """
    return read_into(path, model.weights)


def read_into(path, variables):
    """Assign the arrays of a file to variables, all of them or none.

    Args:
        path: Of a safetensors file whose tensors are called as `names` says.
        variables: Keras variables.

    Returns:
        The {word: text} of the file.

    Raises:
        RunError: If the file is damaged, a tensor is missing, unknown or of another shape or type,
            or holds what is no number; names the first.
    """
    found, about = read_arrays(path)
    assign(found, variables, where=path)
    return about


def read_arrays(path, *, remedy=_REMEDY):
    """Read a safetensors file.

    Args:
        path: Of the file.
        remedy: What the user can do if it is damaged; ends the message.

    Returns:
        {name: array}, and the {word: text} of the file.

    Raises:
        RunError: If it is damaged or no such file.
    """
    try:
        with safe_open(os.fspath(path), "numpy") as file:
            tensors = {_unnumbered(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, TypeError) as error:
        raise RunError(f"{path}: found {error}, expected a safetensors file; {remedy}") from error


def assign(found, variables, *, where, half=False, remedy=_REMEDY):
    """Assign arrays to variables, all of them or none.

    Args:
        found: {name: array}, called as `names` says.
        variables: Keras variables.
        where: What the arrays are from, for messages.
        half: Whether a float32 variable may come as float16.
        remedy: As in `read_arrays`.

    Raises:
        RunError: As `read_into`.
    """
    wanted = dict(zip(names(variables), variables))
    odd = sorted(found.keys() ^ wanted.keys())
    if odd:
        place = "the file" if odd[0] in found else "the network"
        raise RunError(
            f"{where}: found tensor {odd[0]} and {len(odd) - 1} others in {place} alone, expected "
            f"the same {len(wanted)} in both; name the file of this network, or {remedy}"
        )
    for name, variable in wanted.items():
        array, shape = found[name], tuple(variable.shape)
        types = {variable.dtype} | ({"float16"} if half and variable.dtype == "float32" else set())
        if array.shape != shape or array.dtype.name not in types:
            raise RunError(
                f"{where}: found tensor {name}, {array.dtype} of shape {array.shape}, expected "
                f"{variable.dtype} of shape {shape}; name the file of this network, or {remedy}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RunError(f"{where}: tensor {name} holds what is no number; {remedy}")
    for name, variable in wanted.items():
        variable.assign(found[name].astype(variable.dtype, copy=False))


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def arrays(variables):
    """Return {name: array} of variables, called as `names` says."""
    found = {}
    for name, variable in zip(names(variables), variables):
        found[name] = np.array(keras.ops.convert_to_numpy(variable.value), order="C")
    return found


def names(variables):
    """Name variables by their place and path; a path alone need not be unique."""
    return [_unnumbered(f"{k:04d} {variable.path}") for k, variable in enumerate(variables)]


def _unnumbered(name):
    """Leave out the numbers by which Keras tells layers of one name that a process has made."""
    return re.sub(r"_[0-9]+(?=[/_])", "", name)
