"""Catalogs in: truth tables and folders of images become a DataFrame, one row an object.

The columns are object_id (str, exactly as it stands in the file), label (1 for a lens, 0
otherwise), split, path or path_<band>, and the columns of truth. Files and rows are joined by ID,
never by order. Everything unexpected is a CatalogError.
"""

import fnmatch
import os
from dataclasses import dataclass

import pandas as pd

from cast_lens import cutouts
from cast_lens.object_tables import read_table
from cast_lens.text_tables import UNMEASURED, CatalogError
from cast_lens.truth_tables import (
    SGLC2_TWICE,
    label_n_pix,
    label_sglc2_official,
    label_source_added,
    read_feature_table,
    read_sglc1_labels,
    read_sglc2_catalog,
)

__all__ = [
    "SGLC2_MISSING",
    "SGLC2_TWICE",
    "UNMEASURED",
    "CatalogCounts",
    "CatalogError",
    "label_n_pix",
    "label_sglc2_official",
    "label_source_added",
    "read_class_folders",
    "read_feature_table",
    "read_sglc1",
    "read_sglc1_labels",
    "read_sglc2",
    "read_sglc2_catalog",
    "read_table",
]

# In the published catalog, but without an image in any band.
SGLC2_MISSING = frozenset(
    "213913 226305 233597 244071 259871 261145 270458 288731 294173".split()  # noqa: SIM905
)

_TRACKS = {"space": ("VIS",), "ground": ("R", "I", "G", "U")}
_SGLC2_BANDS = ("VIS", "Y", "J", "H")


@dataclass(frozen=True)
class CatalogCounts:
    """What was joined; n_catalog = n_candidates + n_missing."""

    n_catalog: int  # objects in the table
    n_candidates: int  # of these with a file in at least one band; reading decides which are ok
    n_missing: int  # of these without any file
    n_extra_files: int  # files that no object of the table has, but for the truth table itself


def read_sglc1(folder, *, track, truth_path=None, split="train", strict=False):
    """Join images and labels of one track of the I SGLC, however the archives were unpacked.

    Args:
        folder: Folder to search for classifications.csv and, below the folder that holds it, for
            the images.
        track: "space" (band VIS) or "ground" (R, I, G, U). Both number different objects alike.
        truth_path: The table of labels, where it does not lie above its images.
        split: Which of the organizers' sets this is; labels were published with the training set.
        strict: Whether an object without files is an error.

    Returns:
        DataFrame in the order of the table: object_id, label (is_lens), split, path_<band> (None
        where there is no file), then truth as `read_sglc1_labels` returns it. And CatalogCounts.

    Raises:
        CatalogError: As `read_sglc1_labels`; also if not exactly one table of the track is found,
            there are images of the other track, no object has an image, or one lacks them under
            `strict`.
        CutoutError: As `cast_lens.cutouts.find_cutouts`.
        ValueError: If `track` is neither.

    Reference:
        Metcalf et al. (2019), A&A 625, A119.
    """
    if track not in _TRACKS:
        raise ValueError(f"track is {track!r}, expected one of {', '.join(_TRACKS)}")
    if truth_path is None:
        truth_path = _sglc1_truth(folder, _TRACKS[track])
        folder = os.path.dirname(truth_path)
    truth = read_sglc1_labels(truth_path)
    images, n_extra = _images(folder, truth_path, _TRACKS[track])
    return _join(truth.assign(split=split), images, n_extra, folder, strict=strict)


def read_sglc2(folder, *, label, duplicates, truth_path=None, split="train", strict=False):
    """Join images and labels of the II SGLC, however the archives were unpacked.

    Args:
        folder: Folder to search for the images, and for image_catalog2.0*.csv.
        label: Label rule, a function of the catalog, e.g. `label_sglc2_official`.
        duplicates: As in `read_sglc2_catalog`. Images of IDs that were dropped are extras.
        truth_path: The catalog, where it is not below `folder` or not the only one.
        split: Which of the organizers' sets this is; labels were published with the training set.
        strict: Whether an object without files that is not in `SGLC2_MISSING` is an error.

    Returns:
        DataFrame in the order of the catalog: object_id, label, split, path_<band> (None where
        there is no file), then truth as `read_sglc2_catalog` returns it. And CatalogCounts.

    Raises:
        CatalogError: As `read_sglc2_catalog` and `label`; also if not exactly one catalog is
            found, there are images of another survey, no object has an image, or one lacks them
            under `strict`.
        CutoutError: As `cast_lens.cutouts.find_cutouts`.
        ValueError: As `read_sglc2_catalog`.

    Warns:
        UserWarning: As `read_sglc2_catalog`.
    """
    if truth_path is None:
        truth_path = _one(folder, _named(folder, "image_catalog2.0*.csv"), "image_catalog2.0*.csv")
    truth = read_sglc2_catalog(truth_path, duplicates=duplicates)
    truth = truth.assign(label=label(truth), split=split)
    images, n_extra = _images(folder, truth_path, _SGLC2_BANDS)
    return _join(truth, images, n_extra, folder, strict=strict, known=SGLC2_MISSING)


def read_class_folders(folder, *, layout, splits, classes):
    """Find images that lie in one folder a class, as .npy files.

    DeepLense Task 1 is layout="{split}/{name}", splits=("train", "val"), classes={"no": 0,
    "sphere": 1, "vort": 2}; Task 2 is layout="{split}_{name}", splits=("train", "test"),
    classes={"nonlenses": 0, "lenses": 1}.

    Args:
        folder: Folder to search; the class folders may lie at any depth.
        layout: Class folder made of {split} and {name}.
        splits: Names of the splits.
        classes: Label of each class name.

    Returns:
        DataFrame sorted by object_id: object_id (str, class folder and file name without suffix,
        e.g. "train/no/1"), label (int64), split, class_name, path. And CatalogCounts, where all
        files are extras that are not .npy or not in a class folder.

    Raises:
        CatalogError: If a class folder holds no .npy file, two files have the same object_id, or
            a name cannot be printed.
        CutoutError: If a folder cannot be read.
        ValueError: If `layout` gives two classes or splits the same folder.
    """
    kinds = {layout.format(split=s, name=name): (s, name) for s in splits for name in classes}
    if len(kinds) != len(splits) * len(classes):
        raise ValueError(f"layout is {layout!r}, expected a folder for each split and class")
    found: dict[str, tuple[str, str, str]] = {}
    n_extra = 0
    for path in cutouts.files_below(folder):
        parts = os.path.relpath(path, folder).split(os.sep)[:-1]
        here = "/".join(parts[-(layout.count("/") + 1) :])
        stem, suffix = os.path.splitext(os.path.basename(path))
        # An archive from a Mac holds a ._<name> beside every file.
        if here in kinds and suffix == ".npy" and not stem.startswith("."):
            _add(found, f"{here}/{stem}", (*kinds[here], path))
        else:
            n_extra += 1
    empty = set(kinds) - {object_id.rpartition("/")[0] for object_id in found}
    if empty:
        raise CatalogError(
            f"{folder}: found no .npy file in a folder {', '.join(sorted(empty))} below it, "
            f"expected some in each of {', '.join(sorted(kinds))}; unpack the whole archive, or "
            "name the folder that holds these"
        )
    object_ids = sorted(found)
    split, name, paths = zip(*map(found.get, object_ids))
    table = pd.DataFrame({"object_id": object_ids, "label": [classes[n] for n in name]})
    table = table.assign(split=split, class_name=name, path=_paths(paths))
    return table, CatalogCounts(len(table), len(table), 0, n_extra)


def _add(found, object_id, row):
    if not object_id.isprintable():
        raise CatalogError(f"{row[-1]!r}: found a name that cannot be printed; rename the file")
    if object_id in found:
        raise CatalogError(
            f"{found[object_id][-1]} and {row[-1]}: found object_id {object_id} twice, expected it "
            "once; name the folder of one set, or remove one file"
        )
    found[object_id] = row


def _paths(paths):
    # As objects: a folder name need not be UTF-8, which the strings of pandas must be.
    return pd.Series(list(paths), dtype=object)


def _named(folder, pattern):
    """Return the files of that name below a folder; if some lie directly in it, these alone."""
    every = [p for p in cutouts.files_below(folder) if _is_named(p, pattern)]
    here = os.path.join(folder, "")
    return [path for path in every if path == here + os.path.basename(path)] or every


def _is_named(path, pattern):
    return fnmatch.fnmatchcase(os.path.basename(path), pattern)


def _one(folder, paths, wanted):
    if len(paths) == 1:
        return paths[0]
    raise CatalogError(
        f"{folder}: found {len(paths)} truth tables ({', '.join(paths) or 'none'}), expected one "
        f"{wanted}; name the folder of one set, or name the table with truth_path="
    )


def _sglc1_truth(folder, bands):
    """Return the one classifications.csv above images of these bands."""
    paths = []
    for path in _named(folder, "classifications.csv"):
        try:
            images, _ = cutouts.find_cutouts(os.path.dirname(path))
        except cutouts.CutoutError as error:
            if error.reason != "empty":
                raise
        else:
            paths += [path] * (not set(_path_columns(bands)).isdisjoint(images))
    return _one(folder, paths, f"classifications.csv above images in band {' '.join(bands)}")


def _path_columns(bands):
    return [f"path_{band}" for band in bands]


def _images(folder, truth_path, bands):
    """Return what `find_cutouts` does, but for other bands, and the truth table is no extra."""
    images, n_extra = cutouts.find_cutouts(folder)
    foreign = set(images) - {"object_id", *_path_columns(bands)}
    if foreign:
        column = min(foreign)
        raise CatalogError(
            f"{images[column].dropna().iloc[0]}: found an image in band "
            f"{column.removeprefix('path_')}, expected {' '.join(bands)} alone beside "
            f"{truth_path}; name the folder of one survey and track"
        )
    truth_folder = os.path.realpath(os.path.dirname(truth_path))
    inside = os.path.realpath(folder)
    return images, n_extra - (os.path.commonpath([truth_folder, inside]) == inside)


def _join(truth, images, n_extra, folder, *, strict, known=frozenset()):
    """Give every object of `truth` its files; return the table and CatalogCounts."""
    bands = [column for column in images if column != "object_id"]
    used = images["object_id"].isin(truth["object_id"])
    if not used.any():
        raise CatalogError(
            f"{folder}: found images of {images['object_id'][0]} and others, of no object of the "
            f"truth table ({truth['object_id'][0]} and others); name the folder and table of one "
            "set"
        )
    paths = {}
    for column in bands:
        of_id = dict(zip(images["object_id"], images[column]))
        paths[column] = _paths(of_id.get(object_id) for object_id in truth["object_id"])
    missing = ~truth["object_id"].isin(images["object_id"])
    unknown = truth["object_id"][missing & ~truth["object_id"].isin(known)]
    if strict and len(unknown):
        raise CatalogError(
            f"{folder}: found no image of object_id {unknown.iloc[0]} and {len(unknown) - 1} more, "
            "expected one of every object but those published as missing; get the whole archive"
        )
    first = truth[["object_id", "label", "split"]]
    rest = truth.drop(columns=list(first))
    table = pd.concat([first, pd.DataFrame(paths), rest], axis=1)
    n_extra += int(images.loc[~used, bands].notna().to_numpy().sum())
    counts = CatalogCounts(len(table), int((~missing).sum()), int(missing.sum()), n_extra)
    return table, counts
