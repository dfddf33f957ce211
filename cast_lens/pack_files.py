"""The files of a pack, as bytes.

    <input>.npy      images, (records, height, width, band), little-endian, mapped into memory
    checksums.npy    CRC-32 of each record, uint32, (records, inputs in the order of their names)
    catalog.csv      one row a record, in the same order; catalog.parquet says the same
    quarantine.csv   the objects without a record, and why
    audit.json       what became of all objects and pixels
    manifest.json    what the pack was made from, the hash of each table, and its own

The images are covered by their checksums, whose file has its hash in the manifest: SHA-256 of the
arrays themselves would take a quarter of the time of packing and find nothing more.

The CSV files quote what a spreadsheet would run, as `cast_lens.scores` does; `decode_catalog`
gives back what `encode_catalog` took.
"""

import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import run
from cast_lens.scores import escape_cell, unescape_cell

TABLES = ("checksums.npy", "catalog.csv", "catalog.parquet", "quarantine.csv", "audit.json")
MANIFEST = "manifest.json"
FORMAT = "cast_lens pack 1"
# One of the two is left where a single bit has changed; a stand-in survey has a manifest.json too.
_OURS = (b'"format": "cast', b"_lens pack ")


class PackError(run.RunError):
    """A pack that cannot be made or used; says what was found and what to do."""


def array_name(name):
    """Return the file name of the images of an input."""
    return f"{name}.npy"


def array_header(n, record_shape, dtype):
    """Return the first bytes of an array file of n records; their number is the same for all n."""
    stream = io.BytesIO()
    kind = np.dtype(dtype).newbyteorder("<").str
    described = {"descr": kind, "fortran_order": False, "shape": (n, *record_shape)}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def array_bytes(array):
    """Return a small array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def encode_catalog(table):
    """Return a table as the bytes of a CSV file, and the type of each column.

    Args:
        table: DataFrame; whole numbers, floating-point numbers and truth values keep their type,
            everything else is text.

    Returns:
        Bytes; and a dict of "int64", "float64", "bool", "text", or "text or nothing" where a cell
        is None or NaN.
    """
    kinds, columns = {}, {}
    for name, values in table.items():
        kind = _number_kind(values.dtype)
        if kind:
            columns[str(name)] = values.astype(kind)
        else:
            is_none = values.isna()
            kind = "text or nothing" if is_none.any() else "text"
            cells = [None if no else escape_cell(str(v)) for v, no in zip(values, is_none)]
            columns[str(name)] = pd.Series(cells, dtype=object, index=table.index)
        kinds[str(name)] = kind
    return csv_text(pd.DataFrame(columns)).encode("utf-8"), kinds


def csv_text(table):
    """Return a table as CSV text, with a quotation where text holds a bare carriage return."""
    options = {"index": False, "lineterminator": "\n"}
    text = table.to_csv(**options)
    return table.to_csv(quoting=csv.QUOTE_NONNUMERIC, **options) if "\r" in text else text


def decode_catalog(data, kinds):
    """Read back what `encode_catalog` wrote.

    Args:
        data: The bytes.
        kinds: The types of the columns.

    Returns:
        The DataFrame, with text as objects of type str. Empty text comes back as None in a column
        where another cell is None or NaN.
    """
    table = pd.read_csv(
        io.StringIO(data.decode("utf-8"), newline=""), keep_default_na=False,
        header=0, names=list(kinds), skip_blank_lines=False,
        dtype={name: kind if kind in ("int64", "bool") else object for name, kind in kinds.items()},
    )  # fmt: skip
    for name, kind in kinds.items():
        if kind == "float64":  # exact, which read_csv is not in all versions
            table[name] = table[name].replace("", "nan").astype(np.float64)
        elif kind not in ("int64", "bool"):
            cells = [unescape_cell(text) for text in table[name]]
            if kind == "text or nothing":
                cells = [text or None for text in cells]
            table[name] = pd.Series(cells, dtype=object)
    return table


def _number_kind(dtype):
    """Return the type that holds all numbers of a column exactly, or None."""
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        for kind in ("bool", "int64", "float64"):
            if np.can_cast(dtype, kind) and (dtype.kind == "f") == (kind == "float64"):
                return kind
    return None


def encode_manifest(manifest):
    """Return a dict as the bytes of manifest.json, with a hash of all the rest at its end."""
    plain = json.dumps(manifest, indent=1)
    signed = manifest | {"sha256": hashlib.sha256(plain.encode()).hexdigest()}
    return (json.dumps(signed, indent=1) + "\n").encode()


def is_pack(folder):
    """Return whether a folder holds a pack, sound or damaged, rather than a survey or images."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return False
    if (folder / TABLES[0]).exists():
        return True
    data = (folder / MANIFEST).read_bytes()
    return any(words in data for words in _OURS)


def decode_manifest(path):
    """Read a manifest.

    Args:
        path: Path of the file.

    Returns:
        The dict that `encode_manifest` took.

    Raises:
        PackError: If there is none, it is of no pack, or any bit is not as it was written.
    """
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        del manifest["sha256"]
        is_sound = manifest["format"] == FORMAT and encode_manifest(manifest) == data
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PackError(
            f"{path.parent} holds no finished pack: there is no {path.name}; name the folder that "
            "`cast-lens pack` wrote, or make it, or end making it, with that command"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        is_sound = False
    if not is_sound and not is_pack(path.parent):
        raise PackError(
            f"{path.parent} holds no pack: its {path.name} is of something else, such as a "
            f"stand-in survey; make a pack of it with `cast-lens pack {path.parent}`, or name one"
        )
    if not is_sound:
        raise PackError(
            f"{path}: found other bytes than were written, or another format than {FORMAT!r}; make "
            "the pack again with `cast-lens pack`"
        )
    return manifest
