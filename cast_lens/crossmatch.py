"""Which candidates are known lenses, by position on the sky.

A known lens belongs to one candidate at most, and a candidate to one known lens: of all pairs
within the radius the closest is taken first, then the closest of what is left.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import object_tables, text_tables
from cast_lens.run import RunError, write_whole
from cast_lens.scores import escape_cell, unescape_cell
from cast_lens.text_tables import CatalogError

# The table of lenscat (Vujeva et al. 2025) has name, RA [deg], DEC [deg], zlens, type, grading and
# ref; zlens is text there, such as "0.65?" or "measured".
_NAME = ("name", "Name", "NAME", "object_id", "id")
_RA = ("RA [deg]", "RA", "ra", "Ra", "RAJ2000", "ra_deg")
_DEC = ("DEC [deg]", "DEC", "dec", "Dec", "DEJ2000", "DECJ2000", "dec_deg")
_TEXTS = {"grade": ("grading", "grade"), "type": ("type",), "zlens": ("zlens", "z_lens", "zl")}
SHIFTS = 8  # ASSUMED: directions of the shift; the error of the mean over them is given
SHIFT = 20.0  # ASSUMED: radii, beyond what is around one lens and within the survey
LEAST_SHIFT = 60.0  # ASSUMED: arcsec, likewise, beyond the arcs of clusters
FOOTPRINT = 300.0  # ASSUMED: arcsec, to the next candidate where galaxies are preselected


@dataclass(frozen=True)
class MatchCounts:
    """What was matched with what.

    Attributes:
        n_candidates: Candidates.
        n_without_position: Of these without coordinates, never matched.
        n_known: Known lenses in the table.
        n_known_without_position: Of these without coordinates, never matched.
        n_in_footprint: Known lenses with a candidate within the footprint radius, found or not.
        n_matched: Pairs.
        n_ambiguous: Matched candidates with more than one known lens within the radius, or whose
            known lens has more than one candidate within it.
        n_beside: Known lenses within the radius of a candidate that another one was closer to;
            most are one lens on several rows.
        expected_by_chance: Pairs expected if no candidate was a known lens: the mean number with
            the known lenses shifted by `shift_arcsec` in `SHIFTS` directions.
        expected_error: Standard error of that mean.
        shift_arcsec: Shift.
        radius_arcsec: Radius.
        footprint_arcsec: Footprint radius.
    """

    n_candidates: int
    n_without_position: int
    n_known: int
    n_known_without_position: int
    n_in_footprint: int
    n_matched: int
    n_ambiguous: int
    n_beside: int
    expected_by_chance: float
    expected_error: float
    shift_arcsec: float
    radius_arcsec: float
    footprint_arcsec: float


def read_known(path):
    """Read a table of known lenses, such as that of lenscat.

    Args:
        path: CSV, FITS, VOTable or Parquet file with a name, and RA and Dec in deg.

    Returns:
        DataFrame of name (str), ra and dec (float64, deg, NaN where there is none), grade, type
        and zlens (str as they stand, "" where the table has no such column).

    Raises:
        CatalogError: If a column is missing or a position is none.
    """
    wanted = {"name": _NAME, "ra": _RA, "dec": _DEC} | _TEXTS
    table, found = object_tables.read_columns(path, wanted, required=["name", "ra", "dec"])
    frame = pd.DataFrame({"name": _texts(table, found["name"])})
    for name in ("ra", "dec"):
        frame[name] = text_tables.numbers(table, found[name], nan=True)
    for name in _TEXTS:
        frame[name] = _texts(table, found[name]) if name in found else ""
    _check_positions(frame, frame["name"], str(path))
    return frame


def read_candidates(path):
    """Read candidates with their positions.

    Args:
        path: What `candidates.read` reads, or another table with IDs, RA and Dec in deg.

    Returns:
        DataFrame with object_id, ra, dec (NaN where unknown) and, of candidates, all columns.

    Raises:
        CatalogError: If a column is missing or a position is none.
        CandidateError: If a folder of candidates cannot be read.
    """
    from cast_lens import candidates

    path = Path(path)
    wanted = {"object_id": ("object_id", "id_str", "ID", "id"), "ra": _RA, "dec": _DEC}
    if path.is_dir() or {"score", "logit", "rank"} <= set(object_tables.column_names(path)):
        frame = candidates.read(path)
    else:
        table, found = object_tables.read_columns(path, wanted, required=list(wanted))
        ids = [unescape_cell(name) for name in text_tables.object_ids(table, found["object_id"])]
        frame = pd.DataFrame({"object_id": ids})
        for name in ("ra", "dec"):
            frame[name] = text_tables.numbers(table, found[name], nan=True)
    _check_positions(frame, frame["object_id"], str(path))
    return frame


def match(candidates, known, *, radius, footprint=FOOTPRINT, shift=None):
    """Mark the candidates that are known lenses.

    Args:
        candidates: DataFrame with ra and dec, deg (ICRS), NaN where unknown.
        known: Table of `read_known`.
        radius: Largest separation of a pair, arcsec, more than 0.
        footprint: A known lens is in the footprint if a candidate is within this, arcsec; it
            should be about the distance of a candidate from the next.
        shift: Of the positions, for chance pairs, arcsec: more than twice the radius, and less
            than the size of the survey; None for `SHIFT` radii, at least `LEAST_SHIFT`.

    Returns:
        `candidates` with the columns known (0 or 1), known_name, known_separation_arcsec (NaN
        where there is none), known_grade, known_type and known_zlens; and MatchCounts.

    Raises:
        RunError: If `radius` is not more than 0 or `shift` not more than twice that.
    """
    shift = max(SHIFT * radius, LEAST_SHIFT) if shift is None else shift
    if not (0 < radius < math.inf and shift > 2 * radius):
        raise RunError(
            f"radius is {radius} and shift {shift} arcsec, expected more than 0 and more than "
            "twice the radius"
        )
    own, own_rows = _positions(candidates)
    others, other_rows = _positions(known)
    pairs = _pairs(own, others, radius)
    chosen = _one_to_one(*pairs)
    i, j, separation = (each[chosen] for each in pairs)
    out = candidates.reset_index(drop=True).assign(known=0)
    out.loc[own_rows[i], "known"] = 1
    for name in ("name", "grade", "type", "zlens"):
        cells = np.full(len(out), "", dtype=object)
        cells[own_rows[i]] = known[name].to_numpy()[other_rows[j]]
        out[f"known_{name}"] = cells
    out["known_separation_arcsec"] = np.nan
    out.loc[own_rows[i], "known_separation_arcsec"] = separation
    several = (np.bincount(pairs[0], minlength=len(own_rows))[i] > 1) | (
        np.bincount(pairs[1], minlength=len(other_rows))[j] > 1
    )
    by_chance = _by_chance(own, others, radius, shift)
    counts = MatchCounts(
        len(candidates), len(candidates) - len(own_rows), len(known), len(known) - len(other_rows),
        _number_near(own, others, footprint), len(i), int(several.sum()),
        len(np.setdiff1d(pairs[1], j)), float(np.mean(by_chance)),
        float(np.std(by_chance, ddof=1) / math.sqrt(SHIFTS)), shift, radius, footprint,
    )  # fmt: skip
    return out, counts


def summary(matched, counts, *, top=None):
    """Say in sentences what was matched.

    Args:
        matched: Table of `match`.
        counts: Its MatchCounts.
        top: With a column rank: also how many of the known ones are among the first.

    Returns:
        List of lines.
    """
    c = counts
    lines = [
        f"{c.n_matched} of {c.n_candidates} candidates are known lenses within "
        f'{c.radius_arcsec:g}", one to one, the closest pair first',
        f"{c.n_known} known lenses, {c.n_in_footprint} of them in the footprint (a candidate "
        f'within {c.footprint_arcsec:g}")',
        f"{c.expected_by_chance:.2g} +- {c.expected_error:.1g} pairs expected by chance (known "
        f'lenses shifted by {c.shift_arcsec:g}" in {SHIFTS} directions)',
    ]
    if top is not None and "rank" in matched:
        first = int(((matched["rank"] <= top) & (matched["known"] == 1)).sum())
        lines.append(f"{first} of the {c.n_matched} are among the first {top} candidates")
    if c.n_ambiguous or c.n_beside:
        lines.append(
            f"{c.n_ambiguous} pairs had a choice within the radius; {c.n_beside} known lenses are "
            "left beside one that was closer"
        )
    if c.n_without_position or c.n_known_without_position:
        lines.append(
            f"{c.n_without_position} candidates and {c.n_known_without_position} known lenses "
            "have no coordinates and were matched with nothing"
        )
    return lines


def write(matched, path):
    """Write a table of `match` whole.

    Args:
        matched: The table.
        path: File: FITS with units if it ends in .fits, otherwise CSV, in which text that a
            spreadsheet would run is quoted.
    """
    text = {
        name: matched[name].astype(str)
        for name in matched
        if not pd.api.types.is_numeric_dtype(matched[name])
    }
    if not str(path).lower().endswith(".fits"):
        safe = {name: cells.map(escape_cell) for name, cells in text.items()}
        return write_whole(path, matched.assign(**safe).to_csv(index=False, lineterminator="\n"))
    from astropy.io import fits
    from astropy.table import Table

    table = Table({name: _column(text, matched, name) for name in matched})
    for name in ("ra", "dec", "known_separation_arcsec"):
        table[name].unit = "arcsec" if name.endswith("arcsec") else "deg"
    hdu = fits.table_to_hdu(table)
    hdu.name = "CROSSMATCH"
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return write_whole(path, buffer.getvalue())


def _texts(table, column):
    """Return a column as text that can be written as UTF-8."""
    cells = text_tables.texts(table, column)
    return [cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for cell in cells]


def _column(text, matched, name):
    if name not in text:
        return matched[name].to_numpy()
    return np.array([cell.encode("utf-8") for cell in text[name]])  # as in candidates.fits


def _positions(table):
    """Return SkyCoord of the rows with coordinates, and these rows."""
    from astropy.coordinates import SkyCoord

    ra, dec = (table[name].to_numpy(np.float64) for name in ("ra", "dec"))
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    return SkyCoord(ra[rows], dec[rows], unit="deg", frame="icrs"), rows


def _pairs(own, others, radius):
    """Return the indices of all pairs within the radius, and their separations in arcsec."""
    from astropy import units
    from astropy.coordinates import search_around_sky

    if not len(own) or not len(others):
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    # In this order: astropy loops over the first, and known lenses are few.
    j, i, separation, _ = search_around_sky(others, own, radius * units.arcsec)
    return i, j, separation.arcsec


def _number_near(own, others, radius):
    """Return the number of `others` with one of `own` within the radius."""
    from astropy.coordinates import match_coordinates_sky

    if not len(own) or not len(others):
        return 0
    _, separation, _ = match_coordinates_sky(others, own)
    return int((separation.arcsec <= radius).sum())


def _one_to_one(i, j, separation):
    """Return which pairs are taken, the closest first."""
    taken_i, taken_j, chosen = set(), set(), []
    for k in np.lexsort((j, i, separation)).tolist():  # equally close: the better rank
        if i[k] not in taken_i and j[k] not in taken_j:
            taken_i.add(i[k])
            taken_j.add(j[k])
            chosen.append(k)
    return np.array(sorted(chosen), int)


def _by_chance(own, others, radius, shift):
    """Return the number of pairs for each direction of the shift."""
    from astropy import units

    angles = np.arange(SHIFTS) * 360 / SHIFTS * units.deg
    if not len(others):
        return np.zeros(SHIFTS)
    moved = (others.directional_offset_by(angle, shift * units.arcsec) for angle in angles)
    return np.array([len(_one_to_one(*_pairs(own, place, radius))) for place in moved])


def _check_positions(frame, names, where):
    for column, least, largest in (("ra", -180, 360), ("dec", -90, 90)):
        bad = (frame[column] < least) | (frame[column] > largest)
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise CatalogError(
                f"{where}: found {column} {frame[column].iloc[row]} of {names.iloc[row]!r}, "
                f"expected degrees from {least} to {largest}; mend the table"
            )
