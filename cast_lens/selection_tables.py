"""Scores and catalogs of truth in, whatever their columns are called; selection functions out."""

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.special

from cast_lens import object_tables, scores, text_tables, truth_tables
from cast_lens.run import write_whole
from cast_lens.text_tables import CatalogError


@dataclass(frozen=True)
class Quantity:
    """A property of a lens on which its discovery may depend.

    Attributes:
        words: For axes and headers.
        unit: As astropy writes it; "" for a number.
        columns: Names it has in known catalogs.
        is_log: Whether ratios matter more than differences.
    """

    words: str
    unit: str
    columns: tuple[str, ...] = ()
    is_log: bool = False


_RADIUS = (
    "einstein_radius", "theta_e", "theta_E", "thetaE", "einstein_area", "ein_area", "Einstein_area",
)  # fmt: skip
_N_PIX = ("n_pix", "n_pix_source", "n_pix_lensed", "numb_pix_lensed_image")
QUANTITIES = {
    "einstein_radius": Quantity("Einstein radius", "arcsec", _RADIUS, True),
    "n_pix": Quantity("pixels of the source above the noise", "pix", _N_PIX, True),
    "magnification": Quantity("magnification", "", ("magnification", "mag_eff", "mu"), True),
    "magnitude": Quantity("magnitude of the unlensed source", "mag", ("mag_source", "magnitude")),
}
# In steradian in both challenges; the radius is that of the circle of this area.
_UNITS = dict.fromkeys(["einstein_area", "ein_area", "Einstein_area"], "sr")
_IDS = ("object_id", "ID", "id_str", "id")
_SGLC2 = {"ID", "ein_area", "n_sources", "n_pix_source", "mag_eff"}


def read_truth(path, columns=None, *, id_column=None):
    """Read what is known of the lenses.

    Args:
        path: Table that `object_tables` reads, the catalog of the I or II SGLC among them. Of the
            nine IDs that the II SGLC has twice, both rows are left out.
        columns: {quantity: (column, unit or None)} of the user, over the known names of
            `QUANTITIES`; a quantity that is not among those gets its own name for words.
        id_column: Column of the IDs; None for object_id, ID, id_str or id.

    Returns:
        DataFrame of object_id (str) and a float64 column a quantity, NaN where the catalog has
        none; and {quantity: Quantity}. Einstein radii are in arcsec, from an area of A steradian
        as the square root of A/pi.

    Raises:
        CatalogError: If the file, its IDs or its numbers cannot be used, a column that the user
            named is missing or none is known, or a unit cannot be converted.
    """
    columns = columns or {}
    quantities = {name: q for name, q in QUANTITIES.items() if name not in columns}
    names: dict[str, tuple[str, ...]] = {"object_id": (id_column,) if id_column else _IDS}
    names |= {name: q.columns for name, q in quantities.items()}
    names |= {name: (column,) for name, (column, _) in columns.items()}
    table, found = object_tables.read_columns(path, names, required=["object_id", *columns])
    if len(found) == 1:
        raise CatalogError(
            f"{path}: found no Einstein radius, N_pix, magnification or magnitude among "
            f"{', '.join(table.header[:30])}; name the columns by option"
        )
    is_sglc2 = set(object_tables.column_names(path)) >= _SGLC2
    twice = truth_tables.SGLC2_TWICE if is_sglc2 else frozenset()
    frame = pd.DataFrame(
        {"object_id": text_tables.object_ids(table, found["object_id"], twice=twice)}
    )
    kinds = {}
    for name in [name for name in (*QUANTITIES, *columns) if name in found]:
        if name in kinds:
            continue
        unit = columns.get(name, (None, None))[1]
        kinds[name] = QUANTITIES.get(name) or Quantity(name, unit or "")
        values = text_tables.numbers(table, found[name], nan=True, unmeasured=True)
        unit = unit or _UNITS.get(found[name], kinds[name].unit)
        frame[name] = _converted(values, unit, kinds[name].unit, f"{path}, column {found[name]!r}")
    doubled = frame["object_id"].duplicated(keep=False)
    if doubled.any():
        warnings.warn(f"{path}: {doubled.sum()} rows of IDs there twice left out", stacklevel=2)
    return frame[~doubled].reset_index(drop=True), kinds


def read_scored(path, *, run=None):
    """Read a score file or a folder of candidates.

    Args:
        path: CSV of `scores.write_scores`, or what `candidates.read` reads.
        run: Run of a score file with several; at its largest number of training objects.

    Returns:
        DataFrame of object_id, score, logit (of the score if all scores are in [0, 1], else the
        score itself) and, where they are known, label, ra, dec, rank.

    Raises:
        ScoreError: If the file cannot be used, holds no object, or has several runs and `run`
            names none of them.
    """
    if not _is_score_file(Path(path)):
        from cast_lens import candidates

        return candidates.read(path)
    table = scores.read_scores(path)
    if table.empty:
        raise scores.ScoreError(f"{path}: found no objects below the header; get the whole file")
    runs = list(dict.fromkeys(table["run"]))
    if run is None and len(runs) > 1 or run is not None and str(run) not in runs:
        raise scores.ScoreError(
            f"{path}: found runs {', '.join(runs[:20])}, expected one, as scores of two networks "
            f"have no common threshold; name one of them by --run{f', not {run}' if run else ''}"
        )
    table = table[table["run"] == (runs[0] if run is None else str(run))]
    table = table[table["n_train"] == table["n_train"].max()].reset_index(drop=True)
    return table.assign(logit=log_odds(table["score"]))


def join(scored, truth):
    """Put the truth beside the scores, by ID.

    Args:
        scored: DataFrame with object_id.
        truth: Table of `read_truth`.

    Returns:
        DataFrame of the quantities in the order of `scored`, NaN throughout for an object that is
        not in the catalog; and whether each is in it, bool, shape (objects,).

    Raises:
        CatalogError: If none is, with an ID of either.
    """
    beside = truth.set_index("object_id").reindex(scored["object_id"])
    is_there = scored["object_id"].isin(truth["object_id"]).to_numpy()
    if not is_there.any():
        raise CatalogError(
            f"found no object_id in both, scores with {scored['object_id'].iloc[0]!r} and truth "
            f"with {truth['object_id'].iloc[0]!r}; expected the same IDs, name the column of IDs"
        )
    return beside.reset_index(drop=True), is_there


def log_odds(scores):
    """Return log(p / (1 - p)) of scores in [0, 1], within float64's epsilon; others unchanged.

    Args:
        scores: Network output, shape (objects,).

    Returns:
        float64, shape (objects,).
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) and values.min() >= 0 and values.max() <= 1:
        epsilon = np.finfo(np.float64).eps
        return scipy.special.logit(np.clip(values, epsilon, 1 - epsilon))
    return values


def write_completeness(folder, tables, quantities, fits, threshold, about):
    """Write completeness.fits, an extension a quantity, and completeness.csv, all rows.

    Args:
        folder: Folder; made if it does not exist.
        tables: {name: table of `selection.completeness_in_bins`}.
        quantities: {quantity: Quantity}.
        fits: {name: LogisticFit, or the reason why there is none}.
        threshold: The Threshold.
        about: {FITS keyword: value} of what the scores come from, e.g. NETWORK, WEIGHTS, SCORES.

    Returns:
        Paths of both files.
    """
    folder = Path(folder)
    paths = folder / "completeness.fits", folder / "completeness.csv"
    write_whole(paths[0], _fits(tables, quantities, fits, threshold, about))
    every = pd.concat(_rows(name, table, quantities) for name, table in tables.items())
    write_whole(paths[1], every.to_csv(index=False, lineterminator="\n"))
    return paths


def _rows(name, table, quantities):
    """Return a table with the same columns whatever its quantities are, "undefined" for NaN."""
    names, columns = name.split(" x "), {}
    for k in range(2):
        end = "_2" if k else ""
        there = k < len(names)
        columns[f"quantity{end}"] = names[k] if there else ""
        columns[f"unit{end}"] = quantities[names[k]].unit if there else ""
        for column in ("low", "high", "median"):
            own = table[f"{names[k]}_{column}"].map(_number) if there else ""
            columns[f"{column}{end}"] = own
    columns |= {"n_lenses": table["n_lenses"], "n_found": table["n_found"]}
    columns["completeness"] = table["completeness"].map(_number)
    columns["completeness_low"] = table["low"].map(_number)
    columns["completeness_high"] = table["high"].map(_number)
    return pd.DataFrame(columns | {"status": table["status"]})


def _number(value):
    return "undefined" if np.isnan(value) else repr(float(value))


def _fits(tables, quantities, fits, threshold, about):
    from astropy.io import fits as fits_
    from astropy.table import Table

    hdus = [fits_.PrimaryHDU()]
    for name, rows in tables.items():
        table = Table.from_pandas(rows.astype({"status": str}))
        for quantity in name.split(" x "):
            for end in ("low", "high", "median"):
                table[f"{quantity}_{end}"].unit = quantities[quantity].unit or None
        hdu = fits_.table_to_hdu(table)
        hdu.name = name.replace(" ", "_").upper()
        hdu.header.extend(_fit_cards(fits.get(name)))
        hdus.append(hdu)
    cards = _threshold_cards(threshold) + [(key, _ascii(value)) for key, value in about.items()]
    for hdu in hdus:
        hdu.header.extend(cards)
    buffer = io.BytesIO()
    fits_.HDUList(hdus).writeto(buffer, checksum=False)
    return buffer.getvalue()


def _threshold_cards(threshold):
    names = {
        "value": ("THRESH", "least score of an object called a lens"),
        "chosen_by": ("THRESHBY", "how the threshold was chosen"),
        "n_objects": ("NOBJECTS", "objects scored"),
        "n_called": ("NCALLED", "called lenses"),
        "n_lenses": ("NLENSES", "true lenses"),
        "n_found": ("NFOUND", "true lenses called lenses"),
        "n_false": ("NFALSE", "non-lenses called lenses"),
        "false_positive_rate": ("FPR", "false-positive rate"),
        "false_positive_rate_below": ("FPRBELOW", "its one-sided 95 % upper bound"),
    }
    return [(names[k][0], _card(value), names[k][1]) for k, value in asdict(threshold).items()]


def _fit_cards(fit):
    if fit is None or isinstance(fit, str):
        return [("FIT", _ascii(fit or "none"))]  # a reason leaves no room for a comment
    return [
        ("FIT", "logistic in log10" if fit.is_log else "logistic", "completeness"),
        ("FITA", fit.intercept, "log-odds at 0"),
        ("FITB", fit.slope, "log-odds per unit (dex if log10)"),
        ("FITAA", fit.covariance[0, 0], "variance of FITA"),
        ("FITAB", fit.covariance[0, 1], "covariance of FITA and FITB"),
        ("FITBB", fit.covariance[1, 1], "variance of FITB"),
        ("FITHALF", _card(fit.half), "half of the lenses are found here"),
        ("FITHLOW", _card(fit.half_interval.low), "lower end of its interval"),
        ("FITHHIGH", _card(fit.half_interval.high), "upper end"),
        ("FITP", _card(fit.p), "p of the curve; small: trust the bins"),
        ("FITN", fit.n, "lenses fitted"),
    ]


def _card(value):
    """Return a value that a FITS header can hold: it has neither NaN nor infinity."""
    is_finite = isinstance(value, (int, str)) or np.isfinite(value)
    return (value if not isinstance(value, str) else _ascii(value)) if is_finite else str(value)


def _ascii(text):
    return str(text).encode("ascii", "backslashreplace").decode().replace("\n", " ")


def _is_score_file(path):
    if not path.is_file() or path.suffix.lower() != ".csv":
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        return not {"run", "n_train"}.isdisjoint(stream.readline().strip().split(","))


def _converted(values, unit, target, where):
    from astropy import units

    try:
        quantity = values * units.Unit(unit)
        if quantity.unit.physical_type == "solid angle" and target == "arcsec":
            quantity = np.sqrt(quantity / (np.pi * units.sr)) * units.rad
        return quantity.to_value(target)
    except (ValueError, units.UnitConversionError) as error:
        raise CatalogError(
            f"{where}: found unit {unit!r}, expected one that converts to {target or 'a number'}; "
            "give another"
        ) from error
