"""scores.csv: one row an object and run, the last place where a network is needed."""

import csv
import io
import re

import numpy as np
import pandas as pd

from cast_lens.run import write_whole
from cast_lens.text_tables import nearest, shown

COLUMNS = ["run", "n_train", "object_id", "label", "score"]

# A spreadsheet runs a cell that begins like this as a formula.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class ScoreError(ValueError):
    """A score file or table that cannot be evaluated."""


def score_table(object_ids, labels, scores, *, run, n_train):
    """Return one run's scores as a table.

    Args:
        object_ids: IDs, shape (objects,); kept as strings.
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,), dimensionless; larger is more lens-like.
        run: Key of the run, e.g. the random state of its split.
        n_train: Objects the network was trained on.

    Returns:
        DataFrame with the columns run, n_train, object_id, label, score.

    Raises:
        ScoreError: If a score is NaN or infinite, a label is not 0 or 1, or an object is there
            twice; names the first such object.
    """
    table = pd.DataFrame(
        {
            "run": str(run),
            "n_train": int(n_train),
            "object_id": [str(object_id) for object_id in object_ids],
            "label": np.asarray(labels, dtype=np.float64),  # 0.5 must not become 0 unseen
            "score": np.asarray(scores, dtype=np.float64),
        }
    )
    check_scores(table, f"run {run}")
    return table.astype({"label": np.int64})


def check_scores(table, where):
    """Raise unless a score table can be evaluated.

    Args:
        table: DataFrame with the columns of a score file.
        where: File or run, for the message.

    Raises:
        ScoreError: If a score is not finite, a label is not 0 or 1, or an object occurs twice in
            one run.
    """
    for column, bad in (
        ("score", ~np.isfinite(table["score"])),
        ("label", ~table["label"].isin([0, 1])),
    ):
        if bad.any():
            first = table[bad].iloc[0]
            raise ScoreError(
                f"{where}: object {first['object_id']} of run {first['run']} has {column} "
                f"{first[column]}; expected {'a finite number' if column == 'score' else '0 or 1'}"
            )
    twice = table.duplicated(["run", "n_train", "object_id"])
    if twice.any():
        first = table[twice].iloc[0]
        raise ScoreError(f"{where}: object {first['object_id']} occurs twice in run {first['run']}")


def write_scores(table, path):
    """Write a score table whole; IDs a spreadsheet would run as formulas are quoted.

    Args:
        table: DataFrame with the columns of a score file.
        path: Final name.

    Raises:
        ScoreError: As `check_scores`.
    """
    check_scores(table, str(path))
    safe = table[COLUMNS].assign(object_id=table["object_id"].map(escape_cell))
    # Minimal quoting leaves a carriage return bare, and a reader takes it for a line end.
    bare = any("\r" in object_id for object_id in safe["object_id"])
    quoting = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    write_whole(path, safe.to_csv(index=False, lineterminator="\n", quoting=quoting))


def read_scores(path):
    """Read a score table back, exactly as it was before `write_scores`.

    Args:
        path: File with the columns run, n_train, object_id, label, score; further columns are
            ignored.

    Returns:
        DataFrame with these columns; object_id and run are strings.

    Raises:
        ScoreError: If a column is missing or a value cannot be evaluated.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            text = stream.read()
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise ScoreError(f"{path}: {str(error).strip()}") from error
    broken = [column for column in table if "\n" in column or "\r" in column]
    if broken:
        raise ScoreError(
            f"{path}: found a line break in the column name {shown(broken[0])}, expected every "
            "quotation mark closed before the line ends; close or double the odd one"
        )
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ScoreError(_lacking(path, missing, list(table.columns)))
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first column for an index
        raise ScoreError(f"{path}: the rows have more fields than the header names columns")
    table = table[COLUMNS]
    for column, kind in (("n_train", np.int64), ("label", np.int64), ("score", np.float64)):
        numbers = np.array([_number(text) for text in table[column]])  # exact, unlike to_numeric
        if not np.isfinite(numbers).all():
            row = int(np.isfinite(numbers).argmin())
            raise ScoreError(
                f"{path}: object {table['object_id'].iloc[row]} has {column} "
                f"{table[column].iloc[row]!r}; expected a finite number"
            )
        if kind is np.int64 and (numbers % 1 != 0).any():
            raise ScoreError(f"{path}: {column} holds numbers that are not whole")
        table = table.assign(**{column: numbers.astype(kind)})
    table = table.assign(object_id=table["object_id"].map(unescape_cell))
    check_scores(table, str(path))
    return table


def escape_cell(text):
    """Return `text` with a quote in front if a spreadsheet would run it as a formula."""
    return "'" + text if _FORMULA.match(text) else text


def unescape_cell(text):
    """Undo `escape_cell`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _lacking(path, missing, header):
    """Return the message of missing columns, with the nearest that are there."""
    near = dict.fromkeys(found for name in missing for found in nearest(name, header, n=1))
    return (
        f"{path} lacks the columns {missing}; the nearest of its {len(header)} are "
        f"{', '.join(map(shown, near)) or 'none'}; expected a score file with "
        f"{', '.join(COLUMNS)}: name one, or rename the columns"
    )


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan
