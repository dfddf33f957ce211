"""A pool: objects with features, of which `cast_lens.ranking` chooses the next to label.

From a table of features (CSV, FITS or Parquet), read a few thousand rows at a time into one float32
array, or from a folder, whose features are mapped into memory and so are there at once:

    features.npy   float32, shape (objects, features), no pickle
    objects.csv    object_id, one row an object, in the same order
"""

import csv
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import run, text_tables
from cast_lens.object_tables import reading
from cast_lens.pack_files import array_header, csv_text
from cast_lens.scores import escape_cell, unescape_cell
from cast_lens.tarball import whole_folder
from cast_lens.text_tables import TextTable

FEATURES, OBJECTS = "features.npy", "objects.csv"
ROWS = 2048  # of a table that are in memory as text at a time
ID_COLUMNS = ("object_id", "id_str", "ID", "id")
PREFIXES = ("feat_pca_", "feat_")  # of Zoobot's tables
_LARGEST = float(np.finfo(np.float32).max)
_KINDS = {".csv": "csv", ".fits": "fits", ".fit": "fits", ".fits.gz": "fits", ".parquet": "parquet",
          ".pq": "parquet"}  # fmt: skip


class PoolError(run.RunError):
    """A pool that cannot be used; says where, what was found and what to do."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Objects and their features.

    Attributes:
        source: File or folder they came from.
        object_ids: Of each object, str, shape (objects,).
        features: Finite, float32, shape (objects, features).
        n_left_out: Objects of the file without finite features, which are not in the pool.
    """

    source: Path
    object_ids: pd.Index
    features: np.ndarray
    n_left_out: int = 0


def open_pool(path, *, id_column=None, prefix=None, leave_out=False):
    """Open a pool.

    Args:
        path: Folder that `write_pool` wrote, or a table of features: CSV, FITS (its first table)
            or Parquet, told apart by suffix.
        id_column: Column of the IDs, text or whole numbers; None for the first of `ID_COLUMNS`.
        prefix: Features are the columns `prefix`0, `prefix`1, ...; None for the first of
            `PREFIXES` that there is.
        leave_out: Leave out, and count, objects of a table with a feature that is not a finite
            float32 number, instead of raising.

    Returns:
        Pool.

    Raises:
        PoolError: If it cannot be read, holds no object, an object is there twice, or a feature
            is not a finite float32 number; names the object.
        CatalogError: If a column is missing, or a cell holds no ID or no number; names line and
            column.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    ending = path.name.lower()
    kind = next((kind for suffix, kind in _KINDS.items() if ending.endswith(suffix)), None)
    if kind is None or not path.is_file():  # opening a FIFO would wait for ever
        found = "no such file or folder" if not path.exists() else f"suffix {path.suffix!r}"
        raise PoolError(f"{path}: found {found}, expected a folder with {FEATURES} and {OBJECTS}, "
                        f"or a table: {', '.join(_KINDS)}; name one")  # fmt: skip
    read = {"csv": _read_csv, "fits": _read_fits, "parquet": _read_parquet}[kind]
    ids: list[str] = []
    places, features, n_left_out = [], [], 0
    unit = "line" if kind == "csv" else "row"
    for rows, names, columns, values in read(path, id_column, prefix):
        bad = _is_bad(values)
        if bad.any() and not leave_out:
            row, column = np.argwhere(bad)[0]
            raise _not_finite(f"{path}, {unit} {rows[row]}", names[row], columns[column],
                              values[row, column])  # fmt: skip
        good = ~bad.any(axis=1)
        n_left_out += int((~good).sum())
        places.append(np.asarray(rows, np.int64)[good])
        ids.extend(itertools.compress(names, good))
        features.append(values[good].astype(np.float32))
    if not ids:
        raise PoolError(f"{path}: found no object with finite features; get the whole file")
    object_ids = _unique(ids, np.concatenate(places), f"{path}, {unit}")
    return Pool(path, object_ids, np.concatenate(features), n_left_out)


def write_pool(folder, object_ids, features):
    """Write a pool as a folder, which has its name only once everything is in it.

    Args:
        folder: Folder to make.
        object_ids: One an object, str, distinct.
        features: Array of shape (objects, features), or an iterable of such arrays, which are
            written one after the other and never are in memory together.

    Raises:
        PoolError: If an ID is not text or there twice, a feature is not a finite float32 number,
            or there are more or fewer features than IDs.
        ArchiveError: If `folder` is there already and not empty.
        OSError: If it cannot be written; says how many bytes are needed and free.
    """
    odd = [name for name in object_ids if not _is_id(name)]
    if odd or not len(object_ids):
        found = f"object_id {odd[0]!r}" if odd else "no object"
        raise PoolError(f"{folder}: found {found}, expected visible text for each object; mend it")
    ids = _unique(object_ids, np.arange(len(object_ids)), f"{folder}, position")
    blocks = iter([features] if isinstance(features, np.ndarray) else features)
    first = np.asarray(next(blocks, np.empty((0, 0))))
    width, n = first.shape[-1] if first.ndim == 2 else 0, 0
    with whole_folder(folder, needed=len(ids) * (4 * width + 64)) as content:
        with open(content / FEATURES, "wb") as stream:
            stream.write(array_header(len(ids), (width,), np.float32))
            for whole in map(np.asarray, itertools.chain([first], blocks)):
                if whole.ndim != 2 or whole.shape[1] != width or not width:
                    found = f"features of shape {whole.shape}"
                    expected = f"(objects, {width or 'features'}), as the first; give them so"
                    raise PoolError(f"{folder}: found {found}, expected {expected}")
                for block in _pieces(whole):
                    _check_block(block, ids[n:], folder)
                    stream.write(np.ascontiguousarray(block, "<f4").tobytes())
                    n += len(block)
        if n != len(ids):
            raise PoolError(f"{folder}: found features of {n} objects for {len(ids)} IDs, expected "
                            "as many; give one row an ID")  # fmt: skip
        table = pd.DataFrame({"object_id": [escape_cell(name) for name in ids]})
        run.write_whole(content / OBJECTS, csv_text(table))


def _open_folder(folder):
    path = folder / FEATURES
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:  # cut short, pickled, or no array
        raise PoolError(
            f"{path}: found no array that can be mapped ({' '.join(str(error).split())}), expected "
            "float32 of shape (objects, features), saved with numpy.save without pickle"
        ) from error
    if features.dtype != np.dtype("<f4") or features.ndim != 2 or 0 in features.shape:
        raise PoolError(f"{path}: found {features.dtype} of shape {features.shape}, expected "
                        "float32 of shape (objects, features); save it so")  # fmt: skip
    lines, ids = [], []
    for table in _text_chunks(folder / OBJECTS):
        lines += table.lines
        ids += _text_ids(table, "object_id")
    if len(ids) != len(features):
        raise PoolError(f"{folder}: found {len(ids)} objects in {OBJECTS} and {len(features)} in "
                        f"{FEATURES}, expected as many; write both anew")  # fmt: skip
    object_ids = _unique(ids, np.array(lines), f"{folder / OBJECTS}, line")
    n = 0
    for block in _pieces(features):
        _check_block(block, object_ids[n:], path)
        n += len(block)
    return Pool(folder, object_ids, features)


def _pieces(array):
    """Yield an array a few rows at a time."""
    for k in range(0, len(array), ROWS):
        yield array[k : k + ROWS]


def _is_bad(values):
    """Return where a value is NaN, infinite or beyond float32."""
    return ~(np.abs(values) <= _LARGEST)


def _check_block(block, ids, where):
    bad = _is_bad(block)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        name = ids[row] if row < len(ids) else "unknown"
        raise _not_finite(str(where), name, f"feature {column}", block[row, column])


def _not_finite(where, object_id, column, value):
    return PoolError(
        f"{where}, object_id {text_tables.shown(object_id)}, column {column!r}: found {value}, "
        "expected a finite number that float32 holds; mend it, or leave such objects out "
        "(--leave-out)"
    )


def _is_id(name):
    return isinstance(name, str) and name.isprintable() and bool(name) and name == name.strip()


def _unique(ids, places, where):
    index = pd.Index(ids, dtype=object)
    twice = index.duplicated()
    if twice.any():
        second = int(twice.argmax())
        first = int((index == index[second]).argmax())
        raise PoolError(
            f"{where} {places[second]}: found object_id {text_tables.shown(index[second])}, which "
            f"is on {where.rpartition(', ')[2]} {places[first]} too, expected it once; remove one"
        )
    return index


def _columns(path, line, header, id_column, prefix):
    """Return the names of the column of the IDs and of those of the features."""
    names = [name for name in ID_COLUMNS if name in header]
    id_column = id_column or (names or ID_COLUMNS)[0]
    if id_column not in header:
        raise text_tables.column_error(f"{path}, line {line}, ", id_column, header)
    known = [one for one in PREFIXES if any(re.fullmatch(f"{one}[0-9]+", n) for n in header)]
    table = TextTable(path, line, header, [], [])
    return id_column, text_tables.numbered_columns(table, prefix or (known or PREFIXES)[0])


def _text_chunks(path):
    """Yield a CSV file as TextTables of at most `ROWS` rows; rules as in `read_text_table`."""
    if not path.is_file():
        raise PoolError(f"{path}: no such file; expected the table of the objects, name its folder")
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
        records = _records(path, stream)
        header_line, header = next(records, (1, []))
        if not header:
            raise PoolError(f"{path}, line 1: found no column names; expected a header, add one")
        while chunk := list(itertools.islice(records, ROWS)):
            for line, fields in chunk:
                if len(fields) != len(header):
                    raise PoolError(
                        f"{path}, line {line}: found {len(fields)} fields, expected {len(header)} "
                        f"as in the header (line {header_line}); mend the row, or quote fields "
                        "with commas"
                    )
            lines, rows = map(list, zip(*chunk))
            yield TextTable(path, header_line, header, lines, rows)


def _records(path, stream):
    """Yield (line, fields) of every record that is not blank, nor a comment above the header."""
    skipped, position = 0, 0
    while (text := stream.readline()) and (text.startswith("#") or not text.strip()):
        skipped, position = skipped + 1, stream.tell()
    stream.seek(position)
    reader = csv.reader(stream, strict=True)
    line = skipped + 1
    try:
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield line, fields
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        raise PoolError(
            f"{path}, line {line}: found a row that does not end as it should ({error}), expected "
            "every quotation mark closed and followed by a comma; close or double the odd one"
        ) from error


def _text_ids(table, column):
    at = table.header.index(column) if table.header.count(column) == 1 else None
    if at is not None:
        for fields in table.rows:
            fields[at] = unescape_cell(fields[at])
    return text_tables.ids(table, column)


def _read_csv(path, id_column, prefix):
    """Yield (lines, IDs, names of the features, features (rows, features) float64)."""
    column, names = None, []
    for table in _text_chunks(path):
        if column is None:
            column, names = _columns(path, table.header_line, table.header, id_column, prefix)
            places = [table.header.index(name) for name in names]
        yield table.lines, _text_ids(table, column), names, _numbers(table, names, places)


def _numbers(table, names, places):
    cells = [fields[k] for fields in table.rows for k in places]
    text = "".join(cells)
    if text.isascii() and "_" not in text:  # float() alone would read 1_000 and other digits
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells)).reshape(-1, len(places))
        except ValueError:
            pass  # an empty cell, or one that the last line names
    for fields in table.rows:
        for k in places:
            if fields[k].strip().lower().lstrip("+-") in ("inf", "infinity"):
                fields[k] = "nan"  # neither is a number, and both can be left out
    return np.stack([text_tables.numbers(table, name, nan=True) for name in names], axis=1)


def _read_fits(path, id_column, prefix):
    """As `_read_csv`, with rows from 1; a masked number is NaN."""
    from astropy.io import fits

    with _reading(path, "FITS"):
        hdus = fits.open(path)
    with hdus:
        with _reading(path, "FITS"):
            hdu = next(hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU))
            data, header = hdu.data, list(hdu.columns.names)
        column, names = _columns(path, 1, header, id_column, prefix)
        nulls = {name: hdu.columns[name].null for name in (column, *names)}
        for start in range(0, len(data), ROWS):
            part = data[start : start + ROWS]
            with _reading(path, "FITS"):
                values = np.stack([_unmasked(part[n], nulls[n]) for n in names], axis=1)
                ids = part[column].tolist()
            ids = [None if nulls[column] is not None and k == nulls[column] else k for k in ids]
            rows = range(start + 1, start + 1 + len(part))
            yield rows, _typed_ids(path, rows, column, ids), names, values


def _unmasked(column, null):
    """Return a column as float64, NaN where FITS says that there is no number."""
    values = np.asarray(column, np.float64)
    if values.ndim != 1:
        raise ValueError(f"found {values.shape[1:]} numbers in a cell, expected a column a feature")
    return values if null is None else np.where(np.asarray(column) == null, np.nan, values)


def _read_parquet(path, id_column, prefix):
    """As `_read_fits`."""
    from pyarrow import parquet

    with _reading(path, "Parquet"):
        file = parquet.ParquetFile(path)
    with file:
        column, names = _columns(path, 1, list(file.schema_arrow.names), id_column, prefix)
        batches, start = file.iter_batches(ROWS, columns=[column, *names]), 0
        while True:
            with _reading(path, "Parquet"):
                batch = next(batches, None)
                if batch is None:
                    return
                values = np.stack(
                    [batch.column(n).to_numpy(zero_copy_only=False).astype(np.float64)
                     for n in names], axis=1,
                )  # fmt: skip
                ids = batch.column(column).to_pylist()
            rows = range(start + 1, start + 1 + len(ids))
            start += len(ids)
            yield rows, _typed_ids(path, rows, column, ids), names, values


def _typed_ids(path, rows, column, values):
    """Return IDs as text; a floating-point number has lost digits of an ID and is none."""
    ids = []
    for row, value in zip(rows, values):
        name = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        if not isinstance(name, str) or not _is_id(name) or "\ufffd" in name:
            raise text_tables.CatalogError(
                f"{path}, row {row}, column {column!r}: found {value!r}, expected an ID, as "
                "visible text or a whole number; store it so"
            )
        ids.append(name)
    return ids


def _reading(path, kind):
    return reading(path, f"{kind} table of numbers", PoolError)
