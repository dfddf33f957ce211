"""The folder of candidates: what `cast-lens score` writes and every other command reads.

    candidates.csv   one row an object, the most lens-like first; see `COLUMNS`
    candidates.fits  the same as a FITS binary table, with units; its header says where from
    candidates.reg   DS9 regions of the first, as far as their positions are known
    run.json         what the numbers were made from

The CSV file quotes what a spreadsheet would run, as `cast_lens.scores` does; `read` gives back what
`write` took, from either.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import run, text_tables
from cast_lens.pack_files import csv_text
from cast_lens.scores import escape_cell, unescape_cell
from cast_lens.text_tables import TextTable

CSV, FITS, REGIONS, ABOUT = "candidates.csv", "candidates.fits", "candidates.reg", "run.json"
TABLES = (CSV, FITS)
COLUMNS = (
    "object_id", "ra", "dec", "score", "logit", "probability", "spread", "rank", "flags", "weights",
)  # fmt: skip
UNITS = {"ra": "deg", "dec": "deg"}
RADIUS = 5.0  # arcsec, of the circles of the regions; as wide as lenses are
_TEXT = ("object_id", "flags", "weights")
_REQUIRED = ("score", "logit")  # the other numbers may be unknown


class CandidateError(run.RunError):
    """Candidates that cannot be written or read; says where, what was found and what to do."""


def rank(table):
    """Put candidates in order and number them from 1; ties keep the order of the catalog.

    Args:
        table: DataFrame with object_id and logit, in the order of the catalog.

    Returns:
        DataFrame in rank order, with a column rank.

    Raises:
        CandidateError: If a logit is NaN or infinite, naming the object.
    """
    _check_finite(table, "the network")
    # By the logit: scores of 1 - 1e-17 are all 1.
    order = np.argsort(-table["logit"].to_numpy(np.float64), kind="stable")
    return table.iloc[order].reset_index(drop=True).assign(rank=np.arange(1, len(table) + 1))


def write(folder, table, about, top=1000):
    """Write a folder of candidates, each file whole, run.json last.

    Args:
        folder: Where to.
        table: DataFrame with `COLUMNS`, and label (0 or 1) or not, in rank order: ra and dec in
            deg (ICRS), NaN if unknown; score in [0, 1]; logit; probability, calibrated, and
            spread, NaN if unknown; rank from 1; flags, words joined by ";"; weights, a hash.
        about: JSON-serializable dict for run.json; its words network and options also go into the
            header of the FITS table.
        top: How many of the first are in the regions.

    Raises:
        CandidateError: If a column is missing, a score or logit is not finite, a label is not 0 or
            1, an object_id is empty or there twice, or the ranks do not count 1, 2, 3, ...
    """
    folder = Path(folder)
    table = _checked(table.reset_index(drop=True), str(folder))
    safe = {name: table[name].map(escape_cell) for name in _TEXT}
    run.write_whole(folder / CSV, csv_text(table.assign(**safe)))
    run.write_whole(folder / FITS, _fits_bytes(table, about))
    run.write_whole(folder / REGIONS, regions(table, top))
    run.write_whole(folder / ABOUT, json.dumps(about, indent=1, sort_keys=True) + "\n")


def read(path):
    """Read candidates.

    Args:
        path: Folder that `write` wrote, or its CSV or FITS table, wherever it is now.

    Returns:
        DataFrame in rank order with `COLUMNS`, and label where there is one: object_id, flags and
        weights are str, exactly as they were, rank and label int64, all others float64.

    Raises:
        CandidateError: As `write`, or if the file cannot be read.
        CatalogError: If a column is missing or a cell is not as it should be, naming both.
    """
    path = Path(path)
    path = path / CSV if path.is_dir() else path
    if not path.is_file():
        raise CandidateError(
            f"{path}: no such file; expected the folder that `cast-lens score` wrote, or its "
            f"{CSV} or {FITS}; name one"
        )
    is_fits = path.name.lower().endswith((".fits", ".fit", ".fits.gz"))
    cells = _fits_cells(path) if is_fits else text_tables.read_text_table(path)
    if not is_fits:
        names = [k for k, name in enumerate(cells.header) if name in _TEXT]
        for fields in cells.rows:
            for k in names:
                fields[k] = unescape_cell(fields[k])
    columns = {"object_id": text_tables.object_ids(cells, "object_id")}
    for name in COLUMNS[1:]:
        if name in _TEXT:
            columns[name] = text_tables.texts(cells, name)
        elif name == "rank":
            columns[name] = text_tables.counts(cells, name)
        else:
            columns[name] = text_tables.numbers(cells, name, nan=name not in _REQUIRED)
    if "label" in cells.header:
        columns["label"] = text_tables.labels(cells, "label")
    table = pd.DataFrame(columns).sort_values("rank", kind="stable", ignore_index=True)
    return _checked(table, str(path))


def regions(table, top):
    """Return DS9 regions: a circle at each of the first, with its rank and probability.

    Args:
        table: As for `write`.
        top: How many of the first; those without a position are left out.

    Returns:
        Text of a region file, in ICRS.
    """
    lines = ["# Region file format: DS9 version 4.1", "icrs"]
    for row in table.head(top).itertuples(index=False):
        if np.isfinite(row.ra) and np.isfinite(row.dec):
            known = np.isfinite(row.probability)
            number = f"p={row.probability:.3g}" if known else f"score={row.score:.3g}"
            circle = f'circle({row.ra:.7f},{row.dec:.7f},{RADIUS:g}")'
            lines.append(f"{circle} # text={{{row.rank} {number}}}")
    return "\n".join(lines) + "\n"


def _checked(table, where):
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise CandidateError(
            f"{where}: found the columns {', '.join(map(str, table))}, expected also "
            f"{', '.join(absent)}; make the table with `cast-lens score`"
        )
    _check_finite(table, where)
    ids = table["object_id"]
    odd = [
        object_id for object_id in ids if not isinstance(object_id, str) or not object_id.strip()
    ]
    twice = ids[ids.duplicated()].tolist()
    if odd or twice:
        found = f"object_id {odd[0]!r}" if odd else f"object_id {twice[0]} twice"
        raise CandidateError(f"{where}: found {found}, expected text of its own for each object")
    if (table["rank"].to_numpy() != np.arange(1, len(table) + 1)).any():
        row = int((table["rank"].to_numpy() != np.arange(1, len(table) + 1)).argmax())
        raise CandidateError(
            f"{where}: found rank {table['rank'][row]} of object_id {ids[row]} in place {row + 1}, "
            "expected the ranks 1, 2, 3, ..., each once; take the whole table as it was written"
        )
    kept = list(COLUMNS)
    if "label" in table:
        if not table["label"].isin([0, 1]).all():
            row = int(np.argmin(table["label"].isin([0, 1])))
            raise CandidateError(
                f"{where}: object_id {ids[row]} has label {table['label'][row]}, expected 0 or 1"
            )
        kept.append("label")
    whole = {name: np.int64 for name in ("rank", "label") if name in kept}
    numbers = {name: np.float64 for name in kept if name not in (*_TEXT, *whole)}
    return table[kept].astype(whole | numbers)


def _check_finite(table, where):
    for name in _REQUIRED:
        if name in table:
            bad = ~np.isfinite(table[name].to_numpy(np.float64))
            if bad.any():
                row = table.iloc[int(bad.argmax())]
                raise CandidateError(
                    f"{where}: object_id {row['object_id']} has {name} {row[name]}, expected a "
                    "finite number; look at its image and at the weights"
                )


def _fits_bytes(table, about):
    """Return a table as a FITS file; text is UTF-8, which FITS has no word for."""
    from astropy.io import fits

    columns = []
    for name in table:
        values = table[name].to_numpy()
        if name in _TEXT:
            values = np.array([text.encode("utf-8") for text in values], "S")
            kind = f"{max(values.dtype.itemsize, 1)}A"
        else:
            kind = "K" if values.dtype.kind == "i" else "D"
        columns.append(fits.Column(name, kind, unit=UNITS.get(name), array=values))
    hdu = fits.BinTableHDU.from_columns(columns, name="CANDIDATES")
    hdu.header["NETWORK"] = (json.dumps(about.get("network", "")), "JSON, of run.json")
    hdu.header["OPTIONS"] = (json.dumps(about.get("options", {})), "JSON, of run.json")
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return stream.getvalue()


def _fits_cells(path):
    """Return the table of a FITS file as text, which no number loses a digit in."""
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as hdus:
            data = next(hdu.data for hdu in hdus if isinstance(hdu, fits.BinTableHDU))
            header = list(data.names)
            columns = [_as_text(data[name]) for name in header]
    except Exception as error:  # noqa: BLE001, astropy raises errors of any class
        raise CandidateError(
            f"{path}: found no FITS table that can be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())}), expected {FITS} of `cast-lens score`; get it again"
        ) from error
    rows = [list(fields) for fields in zip(*columns)]
    return TextTable(path, 1, header, list(range(1, len(rows) + 1)), rows, unit="row")


def _as_text(column):
    values = np.asarray(column)
    if values.dtype.kind in "SU":
        # astropy gives ASCII as text, and anything else as the bytes that it is.
        return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    return [repr(value) for value in values.tolist()]
