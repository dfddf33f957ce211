"""Comma-separated text becomes columns that were checked cell by cell.

A `#` header above the column names, a byte order mark, any line ends, blank lines, further columns
and bytes in them that are not UTF-8 change nothing. Everything else unexpected is a CatalogError
that names line and column as an editor counts them.
"""

import csv
import difflib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNMEASURED = -1e130  # the II SGLC writes this where a quantity does not exist

# float() alone would also read 1_000, digits of other scripts and the word infinity.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_NAN = {"", "nan", "+nan", "-nan", "na"}  # ASSUMED: C, NumPy, R and pandas write no other


class CatalogError(ValueError):
    """A truth table that cannot be used; says where, what was found and what to do."""


@dataclass(frozen=True)
class TextTable:
    """The text of a table; `lines` are where each of `rows` begins, as an editor counts."""

    path: Path
    header_line: int
    header: list[str]
    lines: list[int]
    rows: list[list[str]]
    unit: str = "line"  # "row" where the file is no text


def read_text_table(path):
    """Read the cells of a comma-separated file.

    Args:
        path: File with a header.

    Returns:
        A TextTable with at least one row, every row as long as the header.

    Raises:
        CatalogError: If the file cannot be read, is not text, has no header or no row, or a row
            has too few or too many fields.
    """
    path = Path(path)
    if not path.is_file():  # opening a FIFO would wait for ever
        raise CatalogError(f"{path}: no such file; expected a comma-separated table, name its path")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror}; make the file readable") from error
    if b"\0" in data:
        line = len(re.findall(rb"\r\n?|\n", data[: data.index(b"\0")])) + 1
        raise CatalogError(f"{path}, line {line}: found a zero byte, expected text; save as UTF-8")
    # Other bytes than UTF-8 become surrogates, which `object_ids` and `_NUMBER` refuse.
    records = list(_records(path, data.decode("utf-8-sig", "surrogateescape")))
    if not records:
        raise CatalogError(f"{path}, line 1: found no column names; expected a header, add one")
    (header_line, header), *body = records
    for line, fields in body:
        if len(fields) != len(header):
            raise CatalogError(
                f"{path}, line {line}: found {len(fields)} fields, expected {len(header)} as in "
                f"the header (line {header_line}); mend the row, or quote fields with commas"
            )
    if not body:
        raise CatalogError(f"{path}, line {header_line + 1}: found no objects; get the whole file")
    return TextTable(path, header_line, header, [r[0] for r in body], [r[1] for r in body])


def texts(table, column):
    """Return the cells of the one column called `column`, as they stand in the file.

    Raises:
        CatalogError: If the column is missing, with the nearest names, or there more than once.
    """
    position = _position(table, column)
    return [fields[position] for fields in table.rows]


def ids(table, column):
    """Return the IDs of a column, exactly as they stand in the file; one may be on many rows.

    Raises:
        CatalogError: If an ID is empty, has blanks around it or cannot be seen.
    """
    found = texts(table, column)
    for row, name in enumerate(found):
        if not name or not name.isprintable() or name != name.strip():
            raise cell_error(table, row, column, "an ID of visible UTF-8 text; write it exactly")
    return found


def object_ids(table, column, *, twice=frozenset()):
    """Return the IDs of a column, one an object.

    Args:
        table: A TextTable.
        column: Name of the column.
        twice: IDs that may be on two rows, not more.

    Returns:
        List of str, one a row.

    Raises:
        CatalogError: As `ids`; also if an ID is on more rows than it may, naming all of them.
    """
    found = ids(table, column)
    seen: dict[str, list[int]] = {}
    for row, object_id in enumerate(found):
        earlier = seen.setdefault(object_id, [])
        if len(earlier) > (object_id in twice):
            lines = " and ".join(str(table.lines[other]) for other in earlier)
            often = "an ID twice" if object_id in twice else "an ID once"
            expected = f"{often}, but it is on {table.unit} {lines} too; remove one of the rows"
            raise cell_error(table, row, column, expected)
        earlier.append(row)
    return found


def labels(table, column):
    """Return a column of 0 and 1 as int64, shape (objects,).

    Raises:
        CatalogError: If a cell is not 0 or 1.
    """
    values = [_LABELS.get(text.strip(), -1) for text in texts(table, column)]
    if -1 in values:
        expected = "1 for a lens or 0; choose another column, or mend the label"
        raise cell_error(table, values.index(-1), column, expected)
    return np.array(values, dtype=np.int64)


def numbers(table, column, *, nan=False, unmeasured=False):
    """Return a column of numbers as float64, shape (objects,), in the file's unit.

    Args:
        table: A TextTable.
        column: Name of the column.
        nan: Whether a cell may be NaN, NA or empty.
        unmeasured: Whether a cell may be the sentinel `UNMEASURED`, which becomes NaN.

    Raises:
        CatalogError: If a cell is anything else than a finite number.
    """
    cells = [text.strip() for text in texts(table, column)]
    values = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in cells])
    absent = values == UNMEASURED
    bad = ~np.isfinite(values) | absent
    if unmeasured:
        bad &= ~absent
    if nan:
        bad &= np.array([text.lower() not in _NAN for text in cells])
    if bad.any():
        expected = "a finite number that was measured; remove the object, or give its value"
        raise cell_error(table, int(bad.argmax()), column, expected)
    return np.where(absent, np.nan, values)


def counts(table, column):
    """Return a column of whole numbers from 0 as int64, shape (objects,).

    Raises:
        CatalogError: If a cell is not whole, negative, or beyond 2^53.
    """
    values = numbers(table, column)
    bad = (values % 1 != 0) | (values < 0) | (values > 2**53)
    if bad.any():
        expected = "a whole number from 0; mend it"
        raise cell_error(table, int(bad.argmax()), column, expected)
    return values.astype(np.int64)


def numbered_columns(table, prefix):
    """Return the names of the columns `prefix`0, `prefix`1, ... in the order of their numbers.

    Raises:
        CatalogError: If there is none, or they do not count 0, 1, 2, ..., each once.
    """
    # No more than nine digits: int() refuses very long numbers.
    pattern = re.compile(re.escape(prefix) + "([0-9]{1,9})")
    matches = [match for match in map(pattern.fullmatch, table.header) if match]
    if not matches:
        _position(table, f"{prefix}0")
    names = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    for number, name in enumerate(names):
        if int(name[len(prefix) :]) != number:
            raise CatalogError(
                f"{table.path}, line {table.header_line}, column {f'{prefix}{number}'!r}: found "
                f"{name!r} in its place, expected {len(names)} features numbered from 0, each "
                "once; restore the missing or remove the doubled column"
            )
    return names


def cell_error(table, row, column, expected):
    """Return the CatalogError of one cell, with its line, its column and what it holds."""
    position, fields = table.header.index(column), table.rows[row]
    line = table.lines[row]
    if table.unit == "line":  # a quoted line break in an earlier field moves the rest down
        line += sum(text.count("\n") for text in fields[:position])
    return CatalogError(
        f"{table.path}, {table.unit} {line}, column {column!r}: found {shown(fields[position])}, "
        f"expected {expected}"
    )


def column_error(where, name, header):
    """Return the CatalogError of a column that is not in the header, with the nearest names."""
    return CatalogError(
        f"{where}column {name!r}: found no such column, expected it in the header; the nearest of "
        f"{len(header)} are {', '.join(map(shown, nearest(name, header)))}; "
        "rename one, or check that commas separate the columns"
    )


def nearest(name, header, n=3):
    """Return the up to `n` names of a header that are most like `name`, the most alike first."""
    lower = {column.lower(): column for column in header}
    return [lower[key] for key in difflib.get_close_matches(name.lower(), lower, n=n, cutoff=0)]


def _records(path, text):
    """Yield (line, fields) of every record that is not blank, the header first."""
    reader = csv.reader(_blank_comments(io.StringIO(text, newline=None)), strict=True)
    line = 1
    try:
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise CatalogError(
            f"{path}, line {line}: found a row that does not end as it should ({error}), expected "
            "every quotation mark closed and followed by a comma; close or double the odd one"
        ) from error


def _blank_comments(lines):
    """Blank the comments above the header, which may hold odd quotes, and keep the line count."""
    above = True
    for line in lines:
        above = above and (line.startswith("#") or not line.strip())
        yield "\n" if above else line


def _position(table, name):
    """Return the position of the one column called `name`."""
    if table.header.count(name) == 1:
        return table.header.index(name)
    where = f"{table.path}, line {table.header_line}, "
    if name in table.header:
        found = f"found {table.header.count(name)} of it, expected one; rename them"
        raise CatalogError(f"{where}column {name!r}: {found}")
    raise column_error(where, name, table.header)


def shown(text):
    """Return a text quoted for a message, no longer than 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
