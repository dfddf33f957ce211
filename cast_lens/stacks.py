"""Many cutouts in one FITS file: a cube of images, and a table that says whose they are.

The images are written a few hundred at a time and mapped into memory when they are read, so that
neither way hangs on their number. A stack is a source of batches, as a pack is, but without
checksums, and in the big-endian float32 of FITS.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from cast_lens.run import free_bytes

IMAGES, OBJECTS = "IMAGES", "OBJECTS"  # names of the two HDUs
BATCH = 256  # images in memory at a time


class StackError(ValueError):
    """A stack that cannot be made or read; says which file, what was found and what to do."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack, opened; `open_stack` makes it.

    Attributes:
        path: Of the file.
        catalog: DataFrame of object_id and, where they were known, label; one row an image.
        pixels: All images, mapped into memory, big-endian float32, shape (objects, height, width).
        name: Of the images, for `batch`.
    """

    path: Path
    catalog: pd.DataFrame
    pixels: np.ndarray
    name: str

    def batch(self, name, positions):
        """Read images.

        Args:
            name: As the images were called when the stack was written.
            positions: Rows of `catalog`, shape (batch,).

        Returns:
            Images, float32, in the unit of the survey, shape (batch, height, width, 1).

        Raises:
            StackError: If they are called otherwise.
        """
        if name != self.name:
            raise StackError(f"{self.path}: found images of {self.name}, expected {name}")
        return self.pixels[np.asarray(positions)].astype(np.float32)[..., None]


def write_stack(source, positions, path, *, name):
    """Write the images of some objects into one FITS file, in the order of their IDs.

    Args:
        source: What holds them: a Pack, or `dataset.CutoutFiles` for FITS files.
        positions: Rows of `source.catalog`, each once.
        path: Of the file; written whole or not at all.
        name: Of the source's images, of one band.

    Raises:
        StackError: If there is no object, an object_id is there twice, or the images have several
            bands.
        OSError: If it cannot be written; says how many bytes are needed and free.

    Reference:
        Gabe (2022), Sec. 3.2, which combined 18,000 files into one and 2,000 into another.
    """
    path, objects = Path(path), source.catalog.iloc[np.asarray(positions)]
    ids = objects["object_id"].astype(str)
    if not len(ids) or ids.duplicated().any():
        found = f"object_id {ids[ids.duplicated()].iloc[0]} twice" if len(ids) else "no object"
        raise StackError(f"{path}: found {found}, expected one object or more, each once")
    # IDs of digits stand in the order of the numbers.
    order = np.argsort(ids.str.zfill(ids.str.len().max()).to_numpy(object), kind="stable")
    rows = np.asarray(positions)[order]
    first = source.batch(name, rows[:1])
    if first.shape[-1] != 1:
        raise StackError(f"{path}: found images of shape {first.shape[1:]}, expected one band")
    columns = [column for column in ("object_id", "label") if column in objects]
    table = Table.from_pandas(objects.iloc[order][columns].astype({"object_id": str}))
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = len(rows) * first.nbytes
    if free_bytes(path) < needed:
        raise OSError(28, f"No space left; {needed} bytes needed, {free_bytes(path)} free", path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        _write(source, rows, temporary, name, first.shape[1:3], table)
        os.replace(temporary, path)


def _write(source, rows, path, name, shape, table):
    header = fits.PrimaryHDU(np.zeros((1, *shape), np.float32)).header
    header["NAXIS3"] = len(rows)
    header["EXTNAME"] = IMAGES
    header["INPUT"] = (name, "name of the images")
    with fits.StreamingHDU(path, header) as stream:
        for k in range(0, len(rows), BATCH):
            images = source.batch(name, rows[k : k + BATCH])[..., 0]
            stream.write(np.ascontiguousarray(images, np.float32))
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.table_to_hdu(table))
        hdus[-1].name = OBJECTS
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def open_stack(path):
    """Open a stack.

    Args:
        path: File that `write_stack` wrote.

    Returns:
        A Stack.

    Raises:
        StackError: If it is none, or cut short.
        OSError: If it cannot be read.
    """
    path = Path(path)
    try:
        with fits.open(path) as hdus:
            header, start = hdus[IMAGES].header, hdus[IMAGES].fileinfo()["datLoc"]
            shape = tuple(header[f"NAXIS{axis}"] for axis in (3, 2, 1))
            name, bitpix = header["INPUT"], header["BITPIX"]
            found = {c: np.array(hdus[OBJECTS].data[c]) for c in hdus[OBJECTS].columns.names}
        catalog = pd.DataFrame({
            c: v.astype(str).astype(object) if c == "object_id" else v.astype(np.int64)
            for c, v in found.items()
        })  # fmt: skip
        if bitpix != -32 or len(catalog) != shape[0] or "object_id" not in catalog:
            raise KeyError(f"{len(catalog)} objects, {shape[0]} images, BITPIX {bitpix}")
        pixels = np.memmap(path, ">f4", "r", offset=start, shape=shape).view(np.ndarray)
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, TypeError, OSError) as error:
        expected = f"a cube {IMAGES} and a table {OBJECTS} of as many objects; write it again"
        raise StackError(f"{path}: found {error}, expected {expected}") from error
    return Stack(path, catalog, pixels, name)
