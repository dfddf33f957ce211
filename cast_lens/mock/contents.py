"""A survey on disk, stand-in or real, becomes one table: truth, lens planes, paths of images."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import catalog, cutouts
from cast_lens.surveys import (
    ARCSEC,
    SURVEYS,
    TASKS,
    CheckError,
    Layout,
    Task,
    add_planes,
    read_task,
)

__all__ = [
    "ARCSEC",
    "SURVEYS",
    "TASKS",
    "CheckError",
    "Layout",
    "Survey",
    "Task",
    "read_array",
    "read_scaling",
    "read_survey",
    "read_task",
]


@dataclass(frozen=True)
class Survey:
    """A survey as it was read.

    Attributes:
        layout: Its Layout.
        table: One row an object of the truth table: object_id, label, plane (the same value for
            objects of one lens plane), theta_e and source_offset (arcsec; of the source from the
            center, whether it was added or not) where known, and the table's own columns.
        objects: Those of them that have images in all bands, with path_<band>.
        n_unknown: Objects with images, but not in the truth table.
        n_dropped: Rows of the truth table that were dropped, for their IDs are there twice.
    """

    layout: Layout
    table: pd.DataFrame
    objects: pd.DataFrame
    n_unknown: int
    n_dropped: int


def read_survey(folder, layout):
    """Read truth and find images.

    Args:
        folder: Folder of the survey; the truth table may also lie in it directly.
        layout: Its Layout.

    Returns:
        A Survey.

    Raises:
        CheckError: If no object has truth and images, or Truth/truth.csv lacks a column.
        CatalogError: If the truth table is missing or malformed.
        CutoutError: If there are no images.
    """
    folder = Path(folder)
    table, n_dropped = _read_labels(folder, layout)
    table = _with_truth(table, folder / "Truth/truth.csv")
    found, _ = cutouts.find_cutouts(folder)
    paths = [f"path_{band}" for band in layout.bands]
    found = found.reindex(columns=["object_id", *paths])
    objects = table.merge(found[found[paths].notna().all(axis=1)], on="object_id")
    if objects.empty:
        raise CheckError(
            f"{folder}: found images in all bands ({', '.join(layout.bands)}) of none of the "
            f"{len(table)} objects of {layout.labels}; name the folder that holds both"
        )
    n_unknown = int((~found["object_id"].isin(table["object_id"])).sum())
    return Survey(layout, table, objects, n_unknown, n_dropped)


def read_scaling(path, objects):
    """Read how the images of a stand-in of a DeepLense task were scaled to [0, 1].

    Args:
        path: Its Truth/truth.csv.
        objects: DataFrame with object_id.

    Returns:
        DataFrame of value_of_0 and value_of_1, in the unit before, by object_id.

    Raises:
        CheckError: If there is no such table, or it lacks a column or an object.
    """
    wanted = ["object_id", "value_of_0", "value_of_1"]
    truth = pd.read_csv(path, dtype={"object_id": str}) if path.is_file() else pd.DataFrame()
    if not set(wanted) <= set(truth):
        found = f"the columns {', '.join(truth)}" if len(truth.columns) else "no such file"
        raise CheckError(
            f"{path}: found {found}, expected {', '.join(wanted)} among its columns; write the "
            "survey again"
        )
    n_rows = objects["object_id"].map(truth["object_id"].value_counts()).fillna(0)
    if (n_rows != 1).any():
        wrong = objects["object_id"][n_rows != 1]
        raise CheckError(
            f"{path}: found {n_rows[wrong.index[0]]:.0f} rows of object_id {wrong.iloc[0]}, and "
            f"{len(wrong) - 1} other objects without exactly one; write the survey again"
        )
    return truth[wanted].set_index("object_id")


def read_array(path, n_channels):
    """Read one object of a DeepLense task as it is.

    Args:
        path: File, .npy.
        n_channels: Number of channels expected.

    Returns:
        Array of shape (channels, height, width), and the size of the file, bytes.

    Raises:
        CheckError: If it is none of finite numbers, or has another number of channels.
    """
    expected = f"one array of shape ({n_channels}, height, width) of finite numbers"
    try:
        array, size = np.load(path, allow_pickle=False), os.path.getsize(path)
    except (OSError, ValueError, EOFError) as error:
        raise CheckError(f"{path}: found {error}, expected {expected}; write it again") from error
    found = f"{getattr(array, 'dtype', type(array))} of shape {getattr(array, 'shape', 'none')}"
    sound = isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.ndim == 3
    if not sound or len(array) != n_channels or not array.size:
        raise CheckError(f"{path}: found {found}, expected {expected}; write it again")
    if not np.isfinite(array).all():
        found += f" with {np.sum(~np.isfinite(array))} values that are NaN or infinite"
        raise CheckError(f"{path}: found {found}, expected {expected}; write it again")
    return array, size


def _read_labels(folder, layout):
    """Return the truth table with label, theta_e and plane, and how many rows it lost."""
    places = [folder / layout.labels, folder / Path(layout.labels).name]
    path = next((place for place in places if place.is_file()), places[0])
    n_dropped = 0
    if layout.labels.endswith("classifications.csv"):
        table = catalog.read_sglc1_labels(path)
    else:
        with warnings.catch_warnings(record=True) as dropped:  # table.md says so too
            warnings.simplefilter("always")
            table = catalog.read_sglc2_catalog(path, duplicates="drop")
            if dropped:  # both rows of an ID
                n_dropped = 2 * len(catalog.read_sglc2_catalog(path, duplicates="first"))
                n_dropped -= 2 * len(table)
        table["label"] = catalog.label_sglc2_official(table)
    return add_planes(table), n_dropped


def _with_truth(table, path):
    """Return the table with what only a stand-in tells: lens planes, and all Einstein radii."""
    if not path.is_file():
        return table
    truth = pd.read_csv(path, dtype={"object_id": str})
    if not {"object_id", "plane_id"} <= set(truth):
        raise CheckError(
            f"{path}: found the columns {', '.join(truth)}, expected object_id and plane_id among "
            "them; write the survey again, or remove the file to tell planes by Einstein area"
        )
    truth = truth.drop_duplicates("object_id").set_index("object_id")
    known = table["object_id"].isin(truth.index)
    if not known.all():
        missing = table["object_id"][~known]
        raise CheckError(
            f"{path}: found no row of object_id {missing.iloc[0]} and {len(missing) - 1} others, "
            "expected one of each object; write the survey again"
        )
    table["plane"] = table["object_id"].map(truth["plane_id"])
    if "theta_e" not in table and "theta_e" in truth:
        table["theta_e"] = table["object_id"].map(truth["theta_e"])
    if "r_source" in truth:
        table["source_offset"] = np.degrees(table["object_id"].map(truth["r_source"])) * 3600
    return table
