"""What a folder of survey data holds: which survey it looks like, what became of each object."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cast_lens import catalog, cutouts, pack_plan, pack_sources
from cast_lens.mock import contents
from cast_lens.workers import cpus, run_all

CHUNK = 64  # objects a process reads at a time
ALONE = 500  # objects up to which starting processes costs more than it saves

_TRUTH = ("classifications.csv", "image_catalog2.0")  # how the names of truth tables begin


@dataclass(frozen=True)
class Audit:
    """A survey as it was found.

    Attributes:
        name: Of `contents.SURVEYS` or `contents.TASKS`.
        layout: What is known of its layout, a `contents.Layout` or `contents.Task`.
        objects: DataFrame of the truth table's objects, or of those that have files where there is
            no such table: object_id, label if known, split, columns of paths, truth, plane (as
            `contents.Survey` has it), and for each object status ("ok", "missing", or the reason
            why it was quarantined), the bad_path, found and expected of that reason, n_masked and
            n_nonfinite pixels, is_constant (of any band), and pixels_<input>, a digest of the
            pixels, None where they were not read or are all equal.
        shapes: {input: (height, width)} of what was read, pixels. An input is a band, or "image"
            where one file holds all bands of an object.
        n_extra: Files that are none of these.
        notes: What else was noticed.
    """

    name: str
    layout: contents.Layout | contents.Task
    objects: pd.DataFrame
    shapes: dict[str, tuple[int, int]]
    n_extra: int
    notes: tuple[str, ...]

    @property
    def is_task(self):
        """Whether it is a DeepLense task, all bands of an object in one file."""
        return isinstance(self.layout, contents.Task)

    @property
    def bands(self):
        """The bands that are there, in the order of the layout."""
        return self.layout.bands if self.is_task else tuple(self.shapes)

    def missing(self):
        """Return the object_ids without any file, a Series."""
        return self.objects["object_id"][self.objects["status"] == "missing"]

    def quarantined(self):
        """Return the rows of objects with a file that cannot be used."""
        return self.objects[~self.objects["status"].isin(["ok", "missing"])]

    def counts(self):
        """Count the objects: {"catalog", "ok", "quarantined", "missing"}."""
        n_ok = int((self.objects["status"] == "ok").sum())
        n_bad, n_missing = len(self.quarantined()), len(self.missing())
        assert len(self.objects) == n_ok + n_bad + n_missing
        return {
            "catalog": len(self.objects), "ok": n_ok, "quarantined": n_bad, "missing": n_missing,
        }  # fmt: skip


def audit(folder):
    """Read every file of a survey; one that cannot be used costs its object, and the audit goes on.

    Args:
        folder: Folder of one survey, however it was unpacked.

    Returns:
        An Audit.

    Raises:
        CheckError: If it does not look like any survey of `contents`.
        CatalogError: If there is a truth table that is malformed, or several.
        CutoutError: If a folder cannot be read, or two files are the same object and band.
        PackError: If not one image of a band can be read.
    """
    name = recognize(folder)
    is_task = name in contents.TASKS
    layout = contents.TASKS[name] if is_task else contents.SURVEYS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        objects, n_extra, notes = (_task if is_task else _survey)(folder, layout)
    notes += [str(warning.message) for warning in caught]
    source = pack_sources.describe(
        objects, _inputs(objects, layout), shapes=None, about=None, dtype="float32",
        mask_value=getattr(layout, "mask_value", None), brightest=None,
        channels="first" if is_task else None, strict=False,
    )  # fmt: skip
    found, texts = _read_all(source)
    if texts:
        notes.append(f"{len(texts)} files are odd, but could be used: {texts[0]}")
    if is_task:  # no survey's rule says what to make of these
        bad = (found["status"] == "ok") & (found["n_nonfinite"] > 0)
        found.loc[bad, "status"] = "range"
        found.loc[bad, "bad_path"] = objects["path"].to_numpy()[bad]
        found.loc[bad, "found"] = found.loc[bad, "n_nonfinite"].map("{} bad values".format)
        found.loc[bad, "expected"] = "finite numbers; get the file again"
    found.index = objects.index
    objects = pd.concat([objects, found], axis=1)
    return Audit(name, layout, objects, source.plan.shapes, n_extra, tuple(notes))


def recognize(folder):
    """Tell a survey by the bands and sizes of its images, or the names of its class folders.

    Args:
        folder: Folder of one survey.

    Returns:
        Key of `contents.SURVEYS` or `contents.TASKS`.

    Raises:
        CheckError: If it looks like none, or more than one, of them.
        CutoutError: As `cutouts.find_cutouts`, but not for want of images.
    """
    for name, task in contents.TASKS.items():
        kinds = _class_folders(task)
        if any(path.endswith(".npy") and _ends_in(path, kinds)
               for path in cutouts.files_below(folder)):  # fmt: skip
            return name
    try:
        found, _ = cutouts.find_cutouts(folder)
    except cutouts.CutoutError as error:
        if error.reason != "empty":
            raise
        raise contents.CheckError(
            f"{folder}: found {error.found}, expected image*-<ID>.fits of the I or II SGLC, or the "
            "class folders of a DeepLense task; unpack the archive, or name its folder"
        ) from error
    columns = set(found) - {"object_id"}
    fitting = [
        name for name, layout in contents.SURVEYS.items()
        if columns <= {f"path_{band}" for band in layout.bands}
    ]  # fmt: skip
    if len(fitting) > 1:  # VIS alone: the pixels tell
        size = _first_size(found["path_VIS"])
        fitting = [name for name in fitting if contents.SURVEYS[name].n_pixels == size]
    if len(fitting) != 1:
        bands = " ".join(column.removeprefix("path_") for column in found.columns[1:])
        raise contents.CheckError(
            f"{folder}: found images in {bands}, expected those of one survey, "
            f"{', '.join(contents.SURVEYS)}; name the folder of one, or look at its images"
        )
    return fitting[0]


def _survey(folder, layout):
    """Return objects of the I or II SGLC with truth, the number of extras, and notes."""
    if not any(os.path.basename(p).startswith(_TRUTH) for p in cutouts.files_below(folder)):
        found, n_extra = cutouts.find_cutouts(folder)
        found = found.assign(split="unknown", plane=found["object_id"])
        return found, n_extra, ["there is no truth table, so no labels"]
    if layout is contents.SURVEYS["sglc2"]:
        rule = catalog.label_sglc2_official
        table, counts = catalog.read_sglc2(folder, label=rule, duplicates="drop")
    else:
        track = "space" if "VIS" in layout.bands else "ground"
        table, counts = catalog.read_sglc1(folder, track=track)
    area = next((name for name in ("einstein_area", "ein_area") if name in table), None)
    table["plane"] = table["object_id"] if area is None else table[area]
    if area is not None:
        table["theta_e"] = np.sqrt(table[area] / np.pi) * contents.ARCSEC
    return table, counts.n_extra_files, []


def _task(folder, task):
    """Return the same of a DeepLense task."""
    table = contents.read_task(folder, task)
    n_files = sum(1 for _ in cutouts.files_below(folder))
    return table.assign(plane=table["object_id"]), n_files - len(table), []


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


def _inputs(objects, layout):
    """Return {input: bands}: each band by itself, or all that are in one file."""
    if isinstance(layout, contents.Task):
        return {"image": tuple(band or "only" for band in layout.bands)}
    return {band: (band,) for band in layout.bands if f"path_{band}" in objects}


def _read_all(source):
    """Read all files of all objects; return a row an object, and warnings."""
    paths = source.paths.tolist()
    tasks = [(k, source.plan, paths[k : k + CHUNK]) for k in range(0, len(paths), CHUNK)]
    found: dict[int, tuple[list, list]] = {}
    if len(paths) <= ALONE:
        found.update(_read_chunk(*task) for task in tasks)
    else:
        run_all(_read_chunk, tasks, workers=cpus(), report=lambda part: found.update([part]))
    rows = [row for k in sorted(found) for row in found[k][0]]
    return pd.DataFrame(rows), [text for k in sorted(found) for text in found[k][1]]


def _read_chunk(start, plan, paths):
    there = [row for row in paths if any(row)]
    block, rows, k = pack_plan.read_block(plan, there), [], 0
    for row in paths:
        rows.append(_describe(plan, block, k if any(row) else None))
        k += any(row)
    return start, (rows, block.warnings)


def _describe(plan, block, k):
    """Return what became of object k of a block, or of one that is missing, as `Audit` says."""
    row: dict[str, Any] = {"status": "ok", "bad_path": "", "found": "", "expected": ""}
    row |= {"n_masked": 0, "n_nonfinite": 0, "is_constant": False}
    row |= dict.fromkeys((f"pixels_{name}" for name in plan.inputs), None)
    if k is None:
        return row | {"status": "missing"}
    if k in block.errors:
        error = block.errors[k]
        row |= {"status": error.reason, "bad_path": os.fspath(error.path)}
        return row | {"found": error.found, "expected": error.expected}
    for name, counts in block.counts.items():
        row["n_masked"] += int(counts["n_masked"][k].sum())
        row["n_nonfinite"] += int(counts["n_nonfinite"][k].sum())
        if counts["n_constant"][k].any():
            row["is_constant"] = True
        else:
            pixels = block.images[name][k].tobytes()
            row[f"pixels_{name}"] = hashlib.blake2b(pixels, digest_size=16).hexdigest()
    return row
