"""Truth tables in: a file of labels becomes a DataFrame of object_id, label and truth columns.

`object_id` is a string exactly as it stands in the file; `label` is 1 for a lens, 0 otherwise.
A `#` header above the column names, a byte order mark, any line ends, blank lines, further columns
and bytes in them that are not UTF-8 change nothing. Everything else unexpected is a CatalogError.
"""

import csv
import difflib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

UNMEASURED = -1e130  # the II SGLC writes this where a quantity does not exist

# float() alone would also read 1_000, digits of other scripts and the word infinity.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


class CatalogError(ValueError):
    """A truth table that cannot be used; says where, what was found and what to do."""


@dataclass(frozen=True)
class _Table:
    """The text of a table; `lines` are where each of `rows` begins, as an editor counts."""

    path: Path
    header_line: int
    header: list[str]
    lines: list[int]
    rows: list[list[str]]


def read_feature_table(path, *, id_column, label_column, feature_prefix):
    """Read labels and one feature vector an object.

    Args:
        path: Comma-separated file with a header.
        id_column: Column of the object IDs.
        label_column: Column of the labels, 0 or 1.
        feature_prefix: Feature columns are this and a number; they must count 0, 1, 2, ... so
            that no lost feature goes unnoticed, and may stand anywhere in any order.

    Returns:
        DataFrame of shape (objects, 2 + features) in the order of the file: object_id (str), label
        (int64), then the features (float64, the file's units) in the order of their numbers.

    Raises:
        CatalogError: If a column is missing or doubled, a row has too few or too many fields, an
            object_id is empty or there twice, a label is not 0 or 1, or a feature is not a finite
            number. The sentinel -1e130 is no measurement and counts as none.

    Reference:
        Li, Eadie & Walmsley (2025); the authors' strong_lense_train.csv.
    """
    table = _read(path)
    columns = {
        "object_id": _object_ids(table, id_column),
        "label": _labels(table, label_column),
    }
    features = _feature_columns(table, feature_prefix)
    return pd.DataFrame(columns | {name: _numbers(table, name) for name in features})


def read_sglc1_labels(path):
    """Read classifications.csv of the first Strong Gravitational Lens Finding Challenge (I SGLC).

    Its label says that a source was added to the simulation, not that one can see it: 357 of the
    13,968 lenses of the space-based training set have no pixel of the source above the noise.

    Args:
        path: The file, with the columns ID, is_lens and, where the organizers gave them,
            Einstein_area, numb_pix_lensed_image and flux_lensed_image_in_sigma.

    Returns:
        DataFrame of shape (objects, 2 to 5) in the order of the file: object_id (str), label
        (int64), and of those present einstein_area (float64, steradian), n_pix_lensed (int64,
        pixels of the lensed source above the noise) and flux_sigma (float64, flux in those pixels
        in units of the noise).

    Raises:
        CatalogError: As `read_feature_table`; also if a number of pixels is not whole or negative.

    Reference:
        Metcalf et al. (2019), A&A 625, A119; the counts are of the published space-based file.
    """
    table = _read(path)
    columns = {"object_id": _object_ids(table, "ID"), "label": _labels(table, "is_lens")}
    for name, column, parse in (
        ("einstein_area", "Einstein_area", _numbers),
        ("n_pix_lensed", "numb_pix_lensed_image", _counts),
        ("flux_sigma", "flux_lensed_image_in_sigma", _numbers),
    ):
        if column in table.header:
            columns[name] = parse(table, column)
    return pd.DataFrame(columns)


def _read(path):
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
    # Other bytes than UTF-8 become surrogates, which `_object_ids` and `_NUMBER` refuse.
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
    return _Table(path, header_line, header, [r[0] for r in body], [r[1] for r in body])


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


def _column(table, name):
    """Return the position of the one column called `name`."""
    if table.header.count(name) == 1:
        return table.header.index(name)
    where = f"{table.path}, line {table.header_line}, column {name!r}"
    if name in table.header:
        raise CatalogError(
            f"{where}: found {table.header.count(name)} of it, expected one; rename them"
        )
    lower = {column.lower(): column for column in table.header}
    nearest = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0)
    raise CatalogError(
        f"{where}: found no such column, expected it in the header; the nearest of "
        f"{len(table.header)} are {', '.join(_shown(lower[key]) for key in nearest)}; "
        "rename one, or check that commas separate the columns"
    )


def _feature_columns(table, prefix):
    """Return the names of the feature columns in the order of their numbers."""
    # No more than nine digits: int() refuses very long numbers.
    pattern = re.compile(re.escape(prefix) + "([0-9]{1,9})")
    matches = [match for match in map(pattern.fullmatch, table.header) if match]
    if not matches:
        _column(table, f"{prefix}0")
    names = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    for number, name in enumerate(names):
        if int(name[len(prefix) :]) != number:
            raise CatalogError(
                f"{table.path}, line {table.header_line}, column {f'{prefix}{number}'!r}: found "
                f"{name!r} in its place, expected {len(names)} features numbered from 0, each "
                "once; restore the missing or remove the doubled column"
            )
    return names


def _object_ids(table, column):
    position = _column(table, column)
    first: dict[str, int] = {}
    for row, fields in enumerate(table.rows):
        object_id = fields[position]
        if not object_id or not object_id.isprintable() or object_id != object_id.strip():
            raise _cell_error(table, row, column, "an ID of visible UTF-8 text; write it exactly")
        if object_id in first:
            begun = table.lines[first[object_id]]
            expected = f"an ID once, but it is on line {begun} too; remove one of the rows"
            raise _cell_error(table, row, column, expected)
        first[object_id] = row
    return list(first)


def _labels(table, column):
    position = _column(table, column)
    labels = [_LABELS.get(fields[position].strip(), -1) for fields in table.rows]
    if -1 in labels:
        expected = "1 for a lens or 0; choose another column, or mend the label"
        raise _cell_error(table, labels.index(-1), column, expected)
    return np.array(labels, dtype=np.int64)


def _numbers(table, column):
    position = _column(table, column)
    texts = [fields[position].strip() for fields in table.rows]
    values = np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts])
    bad = ~np.isfinite(values) | (values == UNMEASURED)
    if bad.any():
        expected = "a finite number that was measured; remove the object, or give its value"
        raise _cell_error(table, int(bad.argmax()), column, expected)
    return values


def _counts(table, column):
    values = _numbers(table, column)
    bad = (values % 1 != 0) | (values < 0) | (values > 2**53)
    if bad.any():
        raise _cell_error(table, int(bad.argmax()), column, "a number of pixels; mend it")
    return values.astype(np.int64)


def _cell_error(table, row, column, expected):
    position, fields = table.header.index(column), table.rows[row]
    # A quoted line break in an earlier field moves the rest of the row down.
    line = table.lines[row] + sum(text.count("\n") for text in fields[:position])
    return CatalogError(
        f"{table.path}, line {line}, column {column!r}: found {_shown(fields[position])}, "
        f"expected {expected}"
    )


def _shown(text):
    return repr(text if len(text) <= 60 else text[:57] + "...")
