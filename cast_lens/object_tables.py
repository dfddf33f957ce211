"""A user's own table of objects and their files: CSV, FITS, VOTable or Parquet."""

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pandas as pd

from cast_lens import text_tables
from cast_lens.text_tables import CatalogError, TextTable

_FORMATS = {
    ".csv": "csv",
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SCALARS = (str, bytes, int, float, type(None))


def read_table(
    path, *, id_column="id_str", path_column="file_loc", label_column=None, number_columns=()
):
    """Read a table that names the file of each object, as Zoobot users have them.

    Args:
        path: CSV, FITS (its first table), VOTable or Parquet file, told apart by suffix.
        id_column: Column of the object IDs: text or whole numbers. An ID that was stored as a
            floating-point number has lost digits and is refused.
        path_column: Column of the files; a relative one starts at the folder of the table.
        label_column: Column of the labels, 0 or 1; None if there are none.
        number_columns: Names of further columns of numbers to keep.

    Returns:
        DataFrame of shape (objects, 2 to 3 + numbers) in the order of the file: object_id (str),
        label (int64, if asked for), path (str), then the number columns (float64, NaN where the
        table has none, in the table's unit).

    Raises:
        CatalogError: If the file cannot be read as what its suffix says, a column is missing, an
            ID is empty or there twice, a path is empty, a label is not 0 or 1, a number is none,
            or none of the files exists.
    """
    names = [id_column, path_column, *number_columns]
    table = _read(Path(path), names if label_column is None else [*names, label_column])
    columns = {"object_id": text_tables.object_ids(table, id_column)}
    if label_column is not None:
        columns["label"] = text_tables.labels(table, label_column)
    paths = _paths(table, path_column)
    # As objects: a folder name need not be UTF-8, which the strings of pandas must be.
    columns["path"] = pd.Series(paths, dtype=object)
    for name in number_columns:
        columns[name] = text_tables.numbers(table, name, nan=True)
    return pd.DataFrame(columns)


def column_names(path):
    """Return the column names of a CSV, FITS, VOTable or Parquet table.

    Raises:
        CatalogError: If the file cannot be read as what its suffix says.
    """
    path = Path(path)
    kind = _kind(path)
    if kind in (None, "csv") or not path.is_file():
        return _read(path, ["object_id"]).header
    return [str(name) for name in _read_typed(path, kind).columns]


def read_columns(path, wanted, *, required=()):
    """Read columns of a table that may have one of several names.

    Args:
        path: CSV, FITS (its first table), VOTable or Parquet file, told apart by suffix.
        wanted: {name: names it may have in the file, the preferred first}; the first of `wanted`
            is the ID or name of a row, text or a whole number.
        required: Those of `wanted` that must be there.

    Returns:
        The TextTable, and {name: its name in the file} of those found.

    Raises:
        CatalogError: If the file cannot be read or a required column is missing.
    """
    path = Path(path)
    header = column_names(path)
    found = {}
    for name, names in wanted.items():
        there = [column for column in names if column in header]
        if there:
            found[name] = there[0]
        elif name in required:
            wanted_names = " or ".join(repr(column) for column in names)
            raise CatalogError(
                f"{path}: found no column {wanted_names} among {', '.join(header[:30])}, expected "
                f"one of them for {name}; rename one, or name it by option"
            )
    return _read(path, list(found.values())), found


@contextmanager
def reading(path, what, error):
    """Turn whatever a reader of tables raises into an error that says what to do.

    Args:
        path: File that is read.
        what: What it should hold, such as "FITS table".
        error: Class to raise; one of this class that is raised inside says more, and passes.

    Raises:
        error: If anything is raised inside.
    """
    try:
        yield
    except error:
        raise
    except Exception as cause:  # noqa: BLE001, the readers raise errors of any class
        found = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise error(
            f"{path}: found no {what} that can be read ({found}), expected one; get the file "
            "again, or save it as CSV"
        ) from cause


def _kind(path):
    ending = path.name.lower()
    return next((kind for suffix, kind in _FORMATS.items() if ending.endswith(suffix)), None)


def _paths(table, column):
    folder, found = os.path.dirname(table.path), text_tables.texts(table, column)
    for row, name in enumerate(found):
        if not name.strip() or "\0" in name:
            raise text_tables.cell_error(table, row, column, "the path of a file; give it")
    paths = [os.path.join(folder, name) for name in found]
    if not any(map(os.path.exists, paths)):
        expected = f"a file; there is no {paths[0]}, nor one of any other row; mend the paths"
        raise text_tables.cell_error(table, 0, column, expected)
    return paths


def _read(path, names):
    """Return a TextTable with at least the named columns, the ID's first."""
    kind = _kind(path)
    if kind == "csv":
        return text_tables.read_text_table(path)
    if kind is None:
        expected = f"one of {', '.join(_FORMATS)}; save the table as one of these, or rename it"
        raise CatalogError(f"{path}: found suffix {path.suffix!r}, expected {expected}")
    if not path.is_file():  # opening a FIFO would wait for ever
        raise CatalogError(f"{path}: no such file; expected a table, name its path")
    typed = _read_typed(path, kind)
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in typed.columns:
            raise text_tables.column_error(f"{path}, ", name, [str(n) for n in typed.columns])
    columns = [_values(typed[name]) for name in names]
    if not columns[0]:
        raise CatalogError(f"{path}: found no objects; get the whole file")
    rows = [[_text(value) for value in row] for row in zip(*columns)]
    table = TextTable(path, 1, names, list(range(1, len(rows) + 1)), rows, unit="row")
    for row, values in enumerate(zip(*columns)):
        for name, value in zip(names, values):
            allowed = (str, bytes, int, type(None)) if name == names[0] else _SCALARS
            if not isinstance(value, allowed):
                expected = "text or a whole number, no " + type(value).__name__
                raise text_tables.cell_error(table, row, name, f"{expected}; store it as text")
    return table


def _read_typed(path, kind):
    """Return an astropy Table or a DataFrame."""
    with reading(path, f"{kind} table", CatalogError):
        if kind == "parquet":
            frame = pd.read_parquet(path)
            return frame.reset_index() if any(frame.index.names) else frame
        if kind == "votable":
            return _read_votable(path)
        from astropy.table import Table

        return Table.read(path, format="fits")


def _read_votable(path):
    from astropy.io.votable import exceptions
    from astropy.table import Table

    _refuse_remote_data(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # No number, text cut to its declared length, number out of its type's range: an ID that
        # had become another one would go unnoticed.
        for altered in (exceptions.W30, exceptions.W46, exceptions.W51):
            warnings.simplefilter("error", altered)
        return Table.read(path, format="votable", use_names_over_ids=True, verify="warn")


def _refuse_remote_data(path):
    """Refuse a VOTable whose data are elsewhere: astropy would open any file or address there."""

    def check(name, attributes):
        if name.rpartition(":")[2] == "STREAM" and "href" in attributes:
            raise CatalogError(
                f"{path}, line {parser.CurrentLineNumber}: found data kept in "
                f"{text_tables.shown(attributes['href'])}, expected them in the table itself; "
                "save it as one file"
            )

    parser = expat.ParserCreate()
    parser.StartElementHandler = check
    with open(path, "rb") as stream:
        parser.ParseFile(stream)


def _values(column):
    """Return a column as a list of Python values, None where it is masked."""
    if isinstance(column, pd.Series):
        values, masked = column.tolist(), column.isna().to_numpy()
    else:
        values, masked = np.ma.getdata(column).tolist(), np.ma.getmaskarray(column)
    if masked.ndim > 1:
        return values
    return [None if hidden else value for hidden, value in zip(masked, values)]


def _text(value):
    """Return a value as a CSV file would hold it."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(int(value) if isinstance(value, bool) else value)
