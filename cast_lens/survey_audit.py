"""What a folder of survey data holds: which survey it looks like, what became of each object."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cast_lens import pack_plan, pack_sources, surveys
from cast_lens.workers import cpus, run_all

CHUNK = 64  # objects a process reads at a time
ALONE = 500  # objects up to which starting processes costs more than it saves


@dataclass(frozen=True)
class Audit:
    """A survey as it was found.

    Attributes:
        name: Of `surveys.SURVEYS` or `surveys.TASKS`.
        layout: What is known of its layout, a `surveys.Layout` or `surveys.Task`.
        objects: DataFrame of the truth table's objects, or of those that have files where there is
            no such table: object_id, label if known, split, columns of paths, truth, plane (as
            `surveys.Files` has it), and for each object status ("ok", "missing", or the reason
            why it was quarantined), the bad_path, found and expected of that reason, n_masked,
            n_nonfinite and n_extreme pixels, is_constant (of any band), and pixels_<input>, a
            digest of the pixels, None where they were not read or are all equal.
        shapes: {input: (height, width)} of what was read, pixels. An input is a band, or "image"
            where one file holds all bands of an object.
        n_extra: Files that are none of these.
        notes: What else was noticed.
    """

    name: str
    layout: surveys.Layout | surveys.Task
    objects: pd.DataFrame
    shapes: dict[str, tuple[int, int]]
    n_extra: int
    notes: tuple[str, ...]

    @property
    def is_task(self):
        """Whether it is a DeepLense task, all bands of an object in one file."""
        return isinstance(self.layout, surveys.Task)

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
    files = surveys.read(folder)
    objects, layout, notes = files.objects, files.layout, list(files.notes)
    is_task = isinstance(layout, surveys.Task)
    bands = {band: (band,) for band in layout.bands if f"path_{band}" in objects}
    source = pack_sources.describe(
        objects, layout.inputs if is_task else bands, shapes=None, about=None, dtype="float32",
        mask_value=layout.mask_value, brightest=layout.brightest, channels=layout.channels,
        strict=False,
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
    return Audit(files.name, layout, objects, source.plan.shapes, files.n_extra, tuple(notes))


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
    row |= {"n_masked": 0, "n_nonfinite": 0, "n_extreme": 0, "is_constant": False}
    row |= dict.fromkeys((f"pixels_{name}" for name in plan.inputs), None)
    if k is None:
        return row | {"status": "missing"}
    if k in block.errors:
        error = block.errors[k]
        row |= {"status": error.reason, "bad_path": os.fspath(error.path)}
        return row | {"found": error.found, "expected": error.expected}
    for name, counts in block.counts.items():
        for key in ("n_masked", "n_nonfinite", "n_extreme"):
            row[key] += int(counts[key][k].sum())
        if counts["n_constant"][k].any():
            row["is_constant"] = True
        else:
            pixels = block.images[name][k].tobytes()
            row[f"pixels_{name}"] = hashlib.blake2b(pixels, digest_size=16).hexdigest()
    return row
