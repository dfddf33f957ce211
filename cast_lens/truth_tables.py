"""Truth tables of the surveys, and the label rules that papers derive from them.

`object_id` is a string exactly as it stands in the file; `label` is 1 for a lens, 0 otherwise.
"""

import warnings

import numpy as np
import pandas as pd

from cast_lens import text_tables
from cast_lens.text_tables import CatalogError

# On two rows each, with different values, of the published 100,009.
SGLC2_TWICE = frozenset(str(number) for number in range(210000, 300000, 10000))

_SGLC2_COLUMNS = {
    "x_crit": text_tables.numbers,
    "y_crit": text_tables.numbers,
    "source_ID": text_tables.ids,
    "z_source": text_tables.numbers,
    "z_lens": text_tables.numbers,
    "mag_source": text_tables.numbers,
    "ein_area": text_tables.numbers,
    "n_crit": text_tables.counts,
    "r_source": text_tables.numbers,
    "crit_area": text_tables.numbers,
    "n_pix_source": text_tables.counts,
    "source_flux": text_tables.numbers,
    "n_pix_lens": text_tables.counts,
    "lens_flux": text_tables.numbers,
    "n_source_im": text_tables.counts,
    "mag_eff": text_tables.numbers,
    "sb_contrast": text_tables.numbers,
    "color_diff": text_tables.numbers,
    "n_gal_3": text_tables.counts,
    "n_gal_5": text_tables.counts,
    "n_gal_10": text_tables.counts,
    "halo_mass": text_tables.numbers,
    "star_mass": text_tables.numbers,
    "mag_lens": text_tables.numbers,
    "n_sources": text_tables.counts,
}
_SGLC2_ABSENT = {"mag_eff": {"nan": True}, "sb_contrast": {"unmeasured": True}}


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
    table = text_tables.read_text_table(path)
    columns = {
        "object_id": text_tables.object_ids(table, id_column),
        "label": text_tables.labels(table, label_column),
    }
    features = text_tables.numbered_columns(table, feature_prefix)
    return pd.DataFrame(columns | {name: text_tables.numbers(table, name) for name in features})


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
    table = text_tables.read_text_table(path)
    columns = {
        "object_id": text_tables.object_ids(table, "ID"),
        "label": text_tables.labels(table, "is_lens"),
    }
    for name, column, parse in (
        ("einstein_area", "Einstein_area", text_tables.numbers),
        ("n_pix_lensed", "numb_pix_lensed_image", text_tables.counts),
        ("flux_sigma", "flux_lensed_image_in_sigma", text_tables.numbers),
    ):
        if column in table.header:
            columns[name] = parse(table, column)
    return pd.DataFrame(columns)


def read_sglc2_catalog(path, *, duplicates):
    """Read image_catalog2.0train.csv of the second challenge (II SGLC).

    Nine published IDs, 210000, 220000, ... 290000, are on two rows with different values, and
    nothing says which row belongs to the images. Any other ID on two rows is an error.

    Args:
        path: The file; its comment header may have any length.
        duplicates: What to do with these nine: "drop" both rows, keep the "first" or the "last".

    Returns:
        DataFrame of shape (objects, 26), one row an object, in the order of the file: object_id
        (str), then the file's columns under their own names without the row index. Counts (n_*)
        are int64, source_ID is str, the others float64 in the file's units (angles in radians,
        areas in steradian, masses in solar masses, magnitudes AB). mag_eff, a magnification, is
        NaN where the file has NaN, and sb_contrast where it has -1e130: no source, no contrast.

    Raises:
        CatalogError: If a column is missing or doubled, a row has too few or too many fields, an
            ID is empty or there too often, a count is not whole or negative, or another cell than
            mag_eff's is NaN. Names line and column.
        ValueError: If `duplicates` is none of the three.

    Warns:
        UserWarning: If rows were dropped, with their number and IDs.

    Reference:
        Bom et al. (2022), Sec. 2.1, for the meaning of the columns.
    """
    keep = {"drop": False, "first": "first", "last": "last"}
    if duplicates not in keep:
        raise ValueError(f"duplicates is {duplicates!r}, expected one of {', '.join(keep)}")
    table = text_tables.read_text_table(path)
    object_ids = text_tables.object_ids(table, "ID", twice=SGLC2_TWICE)
    columns = {
        name: parse(table, name, **_SGLC2_ABSENT.get(name, {}))
        for name, parse in _SGLC2_COLUMNS.items()
    }
    every = pd.DataFrame({"object_id": object_ids} | columns)
    dropped = every["object_id"].duplicated(keep=keep[duplicates])
    if dropped.any():
        named = ", ".join(sorted(set(every["object_id"][dropped])))
        warnings.warn(
            f"{path}: {dropped.sum()} of {len(every)} rows dropped (duplicates={duplicates!r}), "
            f"for these IDs are there twice: {named}",
            stacklevel=2,
        )
    return every[~dropped].reset_index(drop=True)


def label_sglc2_official(table):
    """Label as the II SGLC did: a lens has a source that is seen, magnified and large enough.

    Args:
        table: Table of II SGLC truth, as `read_sglc2_catalog` returns it.

    Returns:
        1 where n_source_im > 0, mag_eff > 1.6 and n_pix_source > 20, otherwise 0, also where
        mag_eff is NaN; int64, shape (objects,).

    Raises:
        CatalogError: If a column is missing.

    Reference:
        Bom et al. (2022), Sec. 2.1; 49,213 of 100,000 there.
    """
    n_source_im, mag_eff, n_pix_source = _columns(table, "n_source_im", "mag_eff", "n_pix_source")
    return ((n_source_im > 0) & (mag_eff > 1.6) & (n_pix_source > 20)).astype(np.int64)


def label_source_added(table):
    """Label as the EPFL team did: a lens is an object to which a source was added, seen or not.

    Args:
        table: Table of II SGLC truth, as `read_sglc2_catalog` returns it.

    Returns:
        1 where n_sources is 1, 0 where it is 0; int64, shape (objects,).

    Raises:
        CatalogError: If the column is missing, or holds anything else.

    Reference:
        Saied et al. (2019), the authors' datasetY.py: 2 n_sources - 1, which is 1 or -1.
    """
    (n_sources,) = _columns(table, "n_sources")
    bad = (n_sources != 0) & (n_sources != 1)
    if bad.any():
        where = int(bad.argmax())
        raise CatalogError(
            f"object_id {table['object_id'].iloc[where]}: found n_sources {n_sources[where]}, "
            "expected 0 or 1; mend the catalog, or use another label rule"
        )
    return (n_sources == 1).astype(np.int64)


def label_n_pix(table, *, minimum, column="n_pix_source"):
    """Label by how many pixels of the source stand out of the noise.

    Args:
        table: Table of truth.
        minimum: Fewest pixels of a lens, at least 1.
        column: n_pix_source of the II SGLC or n_pix_lensed of the I SGLC.

    Returns:
        1 where the column is at least `minimum`, otherwise 0; int64, shape (objects,).

    Raises:
        CatalogError: If the column is missing.
        ValueError: If `minimum` is less than 1, which every object would meet.

    Reference:
        Bom et al. (2022), Sec. 5, bins objects by n_pix_source.
    """
    if not minimum >= 1:
        raise ValueError(f"minimum is {minimum}, expected at least 1 pixel")
    (n_pix,) = _columns(table, column)
    return (n_pix >= minimum).astype(np.int64)


def _columns(table, *names):
    for name in names:
        if name not in table:
            raise text_tables.column_error("table of truth, ", name, list(table))
    return [table[name].to_numpy() for name in names]
