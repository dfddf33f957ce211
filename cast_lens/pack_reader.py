"""A finished pack, opened: catalog, audit, images mapped into memory, and checksums."""

import hashlib
import io
import json
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cast_lens import half, pack_files
from cast_lens.pack_files import MANIFEST, PackError, array_header, array_name


@dataclass(frozen=True, eq=False)
class Pack:
    """A finished pack; `open_pack` makes it.

    Attributes:
        folder: Where it is.
        manifest: What is in manifest.json.
    """

    folder: Path
    manifest: dict

    def __reduce__(self):
        """Travel to other processes as the folder, and be opened there."""
        return open_pack, (self.folder,)

    @property
    def inputs(self):
        """{name: bands, in their order}."""
        return {name: tuple(known["bands"]) for name, known in self.manifest["arrays"].items()}

    @property
    def kind(self):
        """Whether the images are "real" or a "stand-in"; a survey's pack says, a table's does not.

        Raises:
            KeyError: If the manifest does not say, see `about` of `pack.build`.
        """
        return self.manifest["identity"]["about.data"]

    @property
    def title(self):
        """What titles of figures say of the images: a stand-in is named in capitals.

        Raises:
            KeyError: As `kind`.
        """
        return "real data" if self.kind == "real" else "STAND-IN DATA"

    @cached_property
    def catalog(self):
        """DataFrame of object_id, the survey's columns and the pack's, one row a record."""
        data = self._read("catalog.csv")
        return pack_files.decode_catalog(data, self.manifest["columns"])

    @cached_property
    def audit(self):
        """Dict of what became of all objects and pixels of the survey."""
        return json.loads(self._read("audit.json"))

    def images(self, name):
        """Map an array file into memory, read-only.

        Args:
            name: Of the input.

        Returns:
            Array as stored, float32 in the unit of the survey or float16 multiplied by
            `scales(name)`, shape (records, height, width, band).
        """
        return self._maps[name]

    def scales(self, name):
        """Return the factor of each band in an input's array file, 1 for float32."""
        return tuple(self.manifest["arrays"][name]["scales"])

    def batch(self, name, positions):
        """Read records.

        Args:
            name: Of the input.
            positions: Rows of `catalog`, shape (batch,).

        Returns:
            Images, float32, in the unit of the survey, shape (batch, height, width, band).
        """
        images = self._maps[name][positions]
        if images.dtype.itemsize == 2:
            return half.decode(images, self.scales(name))
        return images.astype(np.float32, copy=False)  # which it is, but on a big-endian machine

    def verify(self, records=None, *, progress=False):
        """Make sure that no bit has changed since the pack was made.

        Args:
            records: Rows of `catalog` whose images are looked at; None for all, and for all other
                files of the pack as well.
            progress: Whether to show a progress bar on standard error.

        Returns:
            Number of records that were looked at.

        Raises:
            PackError: If a record or file is not what was written, naming the first.
        """
        if records is None:
            for name in self.manifest["files"]:
                self._read(name)
        sums = self._checksums
        records = range(len(sums)) if records is None else records
        for record in tqdm(records, "verify", unit="record", leave=False, disable=not progress):
            for n, name in enumerate(sorted(self._maps)):
                found, expected = zlib.crc32(self._maps[name][record]), int(sums[record, n])
                if found != expected:
                    raise PackError(
                        f"{self.folder / array_name(name)}, record {record}, object_id "
                        f"{self.catalog['object_id'][record]}: found CRC-32 {found:08x}, expected "
                        f"{expected:08x}; the file has changed, pack again with --restart"
                    )
        return len(records)

    @cached_property
    def _maps(self):
        paths = {name: self.folder / array_name(name) for name in self.inputs}
        return {
            name: np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
            for name, path in paths.items()
        }

    @cached_property
    def _checksums(self):
        return np.load(io.BytesIO(self._read("checksums.npy")), allow_pickle=False)

    def _read(self, name):
        path, known = self.folder / name, self.manifest["files"][name]
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != known["sha256"]:
            raise PackError(
                f"{path}: found SHA-256 {found}, expected {known['sha256']}; the file has changed, "
                "pack again with --restart"
            )
        return data


def open_pack(folder):
    """Open a finished pack.

    Args:
        folder: Where it is.

    Returns:
        A Pack. Its images are looked at by `Pack.verify` alone.

    Raises:
        PackError: If there is none, its manifest is damaged, or a file is missing, has another size
            or does not begin as it should.
    """
    folder = Path(folder)
    manifest = pack_files.decode_manifest(folder / MANIFEST)
    for name, known in manifest["arrays"].items():
        header = array_header(manifest["n"], known["shape"], known["dtype"])
        _check_file(folder / array_name(name), known["bytes"], header)
    for name, known in manifest["files"].items():
        _check_file(folder / name, known["bytes"], b"")
    return Pack(folder, manifest)


def _check_file(path, size, begin):
    try:
        with open(path, "rb", buffering=0) as file:
            found, start = os.fstat(file.fileno()).st_size, file.read(len(begin))
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}; pack again with --restart") from error
    if found != size or start != begin:
        what = f"{found} bytes, expected {size}" if found != size else "another header"
        raise PackError(f"{path}: found {what}; the file has changed, pack again with --restart")
