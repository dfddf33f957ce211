"""Packed images that stay on the device that trains: it gathers its batches by itself.

Put there once, the images of the objects of all folds serve every training. `dataset.from_pack`
takes `DeviceArrays` wherever it takes a pack, so the batches are the same functions of seed, fold,
epoch and step, and what trains or scores from a pack does so from these. Under JAX and PyTorch they
never leave the device; TensorFlow takes them through tf.data, and so through the host.
"""

import sys
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from cast_lens import folds

GIB = 2**30
# What JAX, PyTorch and TensorFlow say in their own exceptions, which have nothing else in common.
_FULL = ("RESOURCE_EXHAUSTED", "out of memory", "OOM", "failed to allocate")


class DeviceFullError(ValueError):
    """The device has no room for the images."""


@dataclass(frozen=True, eq=False)
class DeviceArrays:
    """Images of chosen objects of a pack, on the device; `put` makes it.

    Attributes:
        catalog: DataFrame of all objects of the pack, in the order of its records.
        images: {input: tensor as stored, float32 or float16, shape (chosen, height, width, band)}.
        factors: {input: factor of each band that the stored images were multiplied by, float32,
            shape (band,)}, or nothing for float32.
        places: Row of each object of the catalog in `images`, -1 for those that are not there,
            shape (objects,).
    """

    catalog: pd.DataFrame
    images: dict[str, Any]
    factors: dict[str, Any]
    places: np.ndarray

    @property
    def nbytes(self):
        """Bytes on the device."""
        sizes = {name: keras.backend.standardize_dtype(x.dtype) for name, x in self.images.items()}
        return sum(
            int(np.prod(self.images[name].shape)) * np.dtype(dtype).itemsize
            for name, dtype in sizes.items()
        )

    def batch(self, name, positions):
        """Gather images.

        Args:
            name: Of the input.
            positions: Rows of `catalog`, shape (batch,).

        Returns:
            Tensor on the device, float32, in the unit of the survey, shape (batch, height, width,
            band): bit for bit what `Pack.batch` reads.

        Raises:
            ValueError: If an object is not there.
        """
        rows = self.places[positions]
        if (rows < 0).any():
            missing = self.catalog["object_id"].iloc[np.asarray(positions)[rows < 0][0]]
            raise ValueError(
                f"object_id {missing} is not on the device, expected one of the "
                f"{int((self.places >= 0).sum())} that were put there; put all that a run uses"
            )
        images = ops.take(self.images[name], rows.astype(np.int32), axis=0)
        if name not in self.factors:
            return images
        return ops.cast(images, "float32") / self.factors[name]


def put(pack, positions, *, inputs):
    """Put the images of objects on the device.

    Args:
        pack: As `cast_lens.pack.open_pack` returns it, or another that has `catalog` and `batch`
            as it has; its `images` and `scales` are used where there are some, so that float16
            stays float16.
        positions: Rows of `pack.catalog`, each once: all that any fold trains on or scores.
        inputs: Names of the images.

    Returns:
        DeviceArrays. The host needs as much memory for the largest input while it is put there.

    Raises:
        DeviceFullError: If they do not fit; says how many would be needed.
        ValueError: If a position is none, or is there twice.
    """
    folds.audit(pack.catalog, {"positions": positions})
    positions = np.asarray(positions)
    images, factors = {}, {}
    for name in inputs:
        stored = _stored(pack, name, positions)
        try:
            images[name] = ops.convert_to_tensor(stored, dtype=stored.dtype.name)
        except Exception as error:  # each backend has one of its own
            if not is_full(error):
                raise
            raise DeviceFullError(
                f"{name}: the device has no room for {len(stored)} objects, "
                f"{stored.nbytes / GIB:.1f} GiB of {stored.dtype.name}; pack with --dtype float16, "
                "or train from the pack, which reads every batch from the disk"
            ) from error
        if stored.dtype == np.float16:
            scales = np.asarray(pack.scales(name), np.float32)
            factors[name] = ops.convert_to_tensor(scales, dtype="float32")
    places = np.full(len(pack.catalog), -1, np.int64)
    places[positions] = np.arange(len(positions))
    return DeviceArrays(pack.catalog, images, factors, places)


def on_accelerator(pack, positions, *, inputs):
    """Return what batches are best read from: arrays on the GPU, or else the pack.

    Args:
        pack: As for `put`.
        positions: As for `put`.
        inputs: As for `put`.

    Returns:
        DeviceArrays where this backend gathers from a GPU that has room for them; the pack
        elsewhere, and a line on standard error if there was no room.
    """
    if not has_accelerator():
        return pack
    try:
        return put(pack, positions, inputs=inputs)
    except DeviceFullError as error:
        print(error, file=sys.stderr)
        return pack


def has_accelerator():
    """Whether the backend computes on a GPU, and gathers batches there (JAX and PyTorch do)."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def is_full(error):
    """Whether an exception says that the memory of the device is used up, in any backend."""
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(sign in text for sign in _FULL)


def _stored(pack, name, positions):
    """Return the images as they are stored, in the byte order of the machine."""
    if not hasattr(pack, "scales"):
        return pack.batch(name, positions)
    images = pack.images(name)[positions]
    return images.astype(images.dtype.newbyteorder("="), copy=False)
