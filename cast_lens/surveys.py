"""The surveys this package knows: their bands and sizes, how to tell them, what is in a folder."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import catalog, cutouts
from cast_lens.run import RunError

ARCSEC = np.degrees(1) * 3600  # in a radian
_TRUTH = ("classifications.csv", "image_catalog2.0")  # how the names of truth tables begin


class CheckError(ValueError):
    """A folder that cannot be compared; says what was found and what to do."""


@dataclass(frozen=True)
class Layout:
    """What is the same in a survey and its stand-in.

    Attributes:
        title: Name for titles.
        bands: All bands, the one with the finest pixels first.
        color: Bands shown as red, green and blue, or none.
        pixel_scale: Of the first band, arcsec.
        n_pixels: Of the first band, a side.
        mask_value: Pixels >= this are masked, or None.
        labels: Truth table below the folder.
        real: Folder of the real cutouts below CAST_LENS_DATA/sglc1, or none.
        inputs: {name: bands of equal pixels} of a network.
        channels: None, for each band has a file of its own.
        brightest: Flux above which a pixel is told as extreme.
    """

    title: str
    bands: tuple[str, ...]
    color: tuple[str, ...]
    pixel_scale: float
    n_pixels: int
    mask_value: float | None
    labels: str
    real: str
    inputs: dict[str, tuple[str, ...]]
    channels: str | None = None
    brightest: float | None = 1.0  # ASSUMED: maggies; nothing in a cutout outshines magnitude 0


SURVEYS = {
    "sglc2": Layout("II SGLC", ("VIS", "Y", "J", "H"), ("H", "J", "Y"), 0.1, 200, None,
                    "image_catalog2.0train.csv", "",
                    {"vis": ("VIS",), "nir": ("H", "J", "Y")}),
    "sglc1-space": Layout("I SGLC, space", ("VIS",), (), 0.1, 101, None,
                          "SpaceBasedTraining/classifications.csv", "space_based",
                          {"vis": ("VIS",)}),
    "sglc1-ground": Layout("I SGLC, ground", ("R", "I", "G", "U"), ("I", "R", "G"), 0.2, 101, 100,
                           "GroundBasedTraining/classifications.csv", "ground_based",
                           {"ugri": ("U", "G", "R", "I")}),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What is the same in the data of a DeepLense task and in their stand-in.

    Attributes:
        title: Name for titles.
        folders: Arguments of `catalog.read_class_folders`.
        bands: Names of the channels.
        border: Width of the frame with little or no light of what is in the center, pixels.
        pixel_scale: Of the rings, arcsec; None where images show other things than a ring.
        unit: Of pixels before they were scaled.
        trivial: Statistics of a channel, named as in `check_deeplense.measure`, for a shortcut.
        channels: Where the axis of the channels stands in a file, as in `array_files`.
    """

    title: str
    folders: dict
    bands: tuple[str, ...]
    border: int
    pixel_scale: float | None
    unit: str
    trivial: tuple[str, ...]
    channels: str = "first"
    mask_value: float | None = None
    brightest: float | None = None

    @property
    def inputs(self):
        """{name: bands of equal pixels} of a network."""
        return {"image": tuple(band or "only" for band in self.bands)}


TASKS = {
    "deeplense1": Task(
        "DeepLense Task 1",
        {"layout": "{split}/{name}", "splits": ("train", "val"),
         "classes": {"no": 0, "sphere": 1, "vort": 2}},
        ("",), 10, 0.05, "counts", ("mean", "max", "median", "border_mean", "std"),
    ),
    "deeplense2": Task(
        "DeepLense Task 2",
        {"layout": "{split}_{name}", "splits": ("train", "test"),
         "classes": {"lenses": 1, "nonlenses": 0}},
        ("G", "R", "I"), 4, None, "flux", ("mean", "max", "border_median"),
    ),
}  # fmt: skip


def recognize(folder):
    """Tell a survey by the bands and sizes of its images, or the names of its class folders.

    Args:
        folder: Folder of one survey.

    Returns:
        Key of `SURVEYS` or `TASKS`.

    Raises:
        CheckError: If it looks like none, or more than one, of them.
        CutoutError: As `cutouts.find_cutouts`, but not for want of images.
    """
    arrays = [path for path in cutouts.files_below(folder) if path.endswith(".npy")]
    for name, task in TASKS.items():
        kinds = _class_folders(task)
        if any(_ends_in(path, kinds) for path in arrays):
            return name
    try:
        found, _ = cutouts.find_cutouts(folder)
    except cutouts.CutoutError as error:
        if error.reason != "empty":
            raise
        raise CheckError(
            f"{folder}: found {error.found}, expected image*-<ID>.fits of the I or II SGLC, or the "
            "class folders of a DeepLense task; unpack the archive, or name its folder"
        ) from error
    columns = set(found) - {"object_id"}
    fitting = [
        name for name, layout in SURVEYS.items()
        if columns <= {f"path_{band}" for band in layout.bands}
    ]  # fmt: skip
    if len(fitting) > 1:  # VIS alone: the pixels tell
        size = _first_size(found["path_VIS"])
        fitting = [name for name in fitting if SURVEYS[name].n_pixels == size]
    if len(fitting) != 1:
        bands = " ".join(column.removeprefix("path_") for column in found.columns[1:])
        raise CheckError(
            f"{folder}: found images in {bands}, expected those of one survey, "
            f"{', '.join(SURVEYS)}; name the folder of one, or look at its images"
        )
    return fitting[0]


@dataclass(frozen=True)
class Files:
    """What is in the folder of a survey, before any image is read.

    Attributes:
        name: Key of `SURVEYS` or `TASKS`.
        layout: Its Layout or Task.
        objects: DataFrame of the truth table's objects, or of those that have files where there is
            no such table: object_id, label if known, split, columns of paths, truth, plane (the
            same value for objects of one lens plane) and theta_e (arcsec) where known.
        n_extra: Files that are none of these.
        notes: What else was noticed.
    """

    name: str
    layout: Layout | Task
    objects: pd.DataFrame
    n_extra: int
    notes: tuple[str, ...]


def read(folder, *, label=catalog.label_sglc2_official, duplicates="drop"):
    """Recognize a survey and read its catalog.

    Args:
        folder: Folder of one survey, however it was unpacked.
        label: Label rule of the II SGLC, as for `catalog.read_sglc2`; the others have one of their
            own.
        duplicates: What to do with IDs that are in its catalog twice, likewise.

    Returns:
        Files.

    Raises:
        CheckError: If it does not look like any survey.
        CatalogError: If there is a truth table that is malformed, or several.
        CutoutError: If a folder cannot be read, or two files are the same object and band.
    """
    name = recognize(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name in TASKS:
            layout: Layout | Task = TASKS[name]
            objects = read_task(folder, layout).assign(plane=lambda table: table["object_id"])
            n_extra, notes = sum(1 for _ in cutouts.files_below(folder)) - len(objects), []
        else:
            layout = SURVEYS[name]
            objects, n_extra, notes = _read_survey(folder, name, label, duplicates)
    notes += [str(warning.message) for warning in caught]
    return Files(name, layout, objects, n_extra, tuple(notes))


def _read_survey(folder, name, label, duplicates):
    """Return objects of the I or II SGLC with truth, the number of extras, and notes."""
    if not any(os.path.basename(p).startswith(_TRUTH) for p in cutouts.files_below(folder)):
        found, n_extra = cutouts.find_cutouts(folder)
        found = found.assign(split="unknown", plane=found["object_id"])
        return found, n_extra, ["there is no truth table, so no labels"]
    if name == "sglc2":
        table, counts = catalog.read_sglc2(folder, label=label, duplicates=duplicates)
    else:
        table, counts = catalog.read_sglc1(folder, track=name.removeprefix("sglc1-"))
    return add_planes(table), counts.n_extra_files, []


def add_planes(table):
    """Add plane and theta_e (arcsec), as `Files` has them, to a table of truth; return it."""
    area = next((column for column in ("einstein_area", "ein_area") if column in table), None)
    table["plane"] = table["object_id"] if area is None else table[area]
    if area is not None:  # equal to all its digits: the same lens plane
        table["theta_e"] = np.sqrt(table[area] / np.pi) * ARCSEC
    return table


def stand_in_manifest(folder):
    """Return the manifest of the stand-in that a folder is, or is a part of; None if it is real."""
    from cast_lens.mock import survey

    for place in (Path(folder), *Path(folder).resolve().parents[:2]):
        try:
            return survey.read_manifest(place)
        except (RunError, OSError):
            continue
    return None


def read_task(folder, task):
    """Find the files of a DeepLense task.

    Args:
        folder: Folder that holds the class folders.
        task: Its Task.

    Returns:
        DataFrame of `catalog.read_class_folders`, also with folder (of the class and split) and
        number (of the file, NaN where its name is none).

    Raises:
        CatalogError: If a class folder is missing or empty.
    """
    objects, _ = catalog.read_class_folders(folder, **task.folders)
    parts = objects["object_id"].str.rpartition("/")
    is_number = parts[2].str.fullmatch("[0-9]+")
    return objects.assign(folder=parts[0], number=parts[2].where(is_number).astype(np.float64))


def _class_folders(task):
    folders = task.folders
    return {
        folders["layout"].format(split=split, name=name)
        for split in folders["splits"] for name in folders["classes"]
    }  # fmt: skip


def _ends_in(path, kinds):
    parts = path.split(os.sep)[:-1]
    return any("/".join(parts[-1 - kind.count("/") :]) == kind for kind in kinds)


def _first_size(paths):
    """Return the width of the first image that can be read, or None."""
    for path in paths.dropna():
        try:
            return cutouts.read_cutout([path])[1].shape[1]
        except cutouts.CutoutError:
            continue
    return None
