"""A survey as arrays in memory-mapped files: every object read, checked and written once.

`build` makes a pack in parallel. It can be killed at any moment and called again, and ends with
the same bytes. `open_pack` gives the images and the catalog, and `Pack.verify` finds any bit that
is no longer what was written.
"""

import json
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cast_lens import pack_audit, pack_blocks, pack_sources, run
from cast_lens.pack_end import finish
from cast_lens.pack_files import MANIFEST, TABLES, PackError, array_name
from cast_lens.pack_reader import Pack, open_pack
from cast_lens.workers import cpus, run_all

__all__ = ["Pack", "PackError", "build", "open_pack"]

PATIENCE = 2.0  # seconds; the workers of a killed run hold its folder until they notice
_IDENTITY = ".pack.json"
_REMEDY = "Pack again with --restart, or into another folder."


def build(
    folder, catalog, inputs, *, mask_value, dtype, shapes=None, channels=None, brightest=None,
    n_extra_files=0, known_missing=frozenset(), about=None, strict=False, workers=None,
    restart=False, progress=True,
):  # fmt: skip
    """Pack a survey, or go on packing it, or find it packed.

    Args:
        folder: Where to; new, empty, or begun by this function with the same arguments and files.
        catalog: DataFrame with object_id and a column of files for each band, path_<band>; any
            other columns go along.
        inputs: {name: bands}; each becomes an array file, the bands in this order. Bands of an
            input have the same pixels.
        mask_value: As for `cutouts.read_cutout`.
        dtype: "float32", or "float16" at the loss that the audit tells.
        shapes: {name: (height, width)}, pixels; an object of another shape is set aside. An input
            that is not there has the shape that most of a sample have.
        channels: "first" or "last" where the column path names one .npy file an object with all
            bands of the one input; see `array_files.read_array`.
        brightest: Pixels of larger absolute value are counted as extreme, and left as they are.
        n_extra_files: Files of the survey that no object has, for the audit.
        known_missing: IDs of the objects that were published without images.
        about: {word: value} that the manifest shall tell, JSON-serializable.
        strict: Whether an object that cannot be used is an error, or has no files and is not in
            `known_missing`.
        workers: Number of processes; None for the CPUs that may be used.
        restart: Pack anew what is in the folder.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The Pack. Its `audit` says what became of every object; quarantine.csv lists those that
        have no record.

    Raises:
        PackError: If an argument is wrong, no object can be used, the disk cannot hold the pack,
            the folder holds something else, or an object was refused by `strict`.
        RunError: If another process writes to the folder, it was begun differently, or a worker
            was killed.
        OSError: If a file cannot be written; says how many bytes are needed and free.
    """
    folder, about = Path(folder), {"survey": "survey"} | (about or {})
    source = pack_sources.describe(
        catalog, inputs, shapes=shapes, about=about, dtype=dtype, mask_value=mask_value,
        channels=channels, brightest=brightest, strict=strict,
    )  # fmt: skip
    if strict:
        _refuse_missing(source, known_missing)
    found = None if restart else _finished(folder, source)
    if found and (folder / ".pack").exists():  # a kill came between the manifest and this
        with suppress(OSError, run.RunError), run.hold(folder):
            shutil.rmtree(folder / ".pack")
    if found is None:
        _refuse_foreign(folder)
        if not restart:
            _refuse_without_space(folder, source)
        with run.hold(folder, patience=PATIENCE):
            found = None if restart else _finished(folder, source)  # by the one that was waited for
            if found is None:
                _begin(folder, source, restart=restart)
                _write_arrays(folder, source, workers or cpus(), progress)
                finish(folder, source, _blocks(source), n_extra_files=n_extra_files,
                       known_missing=known_missing)  # fmt: skip
                found = open_pack(folder)
    if strict and found.audit["n_quarantined"]:
        raise PackError(
            f"{folder}: {pack_audit.sentence(found.audit)}; see quarantine.csv, mend the files, or "
            "use the pack without --strict"
        )
    return found


def _finished(folder, source):
    """Return the pack if the folder holds one of this survey, made with any versions."""
    try:
        pack = open_pack(folder)
    except PackError:
        return None
    known, now = pack.manifest["identity"], source.identity
    path = folder / _IDENTITY
    if _known(path) is None:  # taken elsewhere without its hidden files, or damaged
        known = known | {"data.modified": now["data.modified"]}
        run.write_whole(path, json.dumps(known) + "\n")
    now = now | {key: value for key, value in known.items() if key.startswith("versions.")}
    run.claim(path, now, _REMEDY)
    return pack


def _known(path):
    """Return what an identity file says, or None if there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _refuse_missing(source, known_missing):
    missing = source.table["object_id"][~source.has_files]
    unknown = missing[~missing.isin(known_missing)]
    if len(unknown):
        raise PackError(
            f"object_id {unknown.iloc[0]}: found no file, nor of {len(unknown) - 1} more, expected "
            "files of every object but those published as missing; get the whole archive, or pack "
            "without --strict"
        )


def _refuse_foreign(folder):
    if not folder.exists() or (folder / _IDENTITY).exists():
        return
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in {".pack", ".lock"})
    if foreign:
        raise PackError(
            f"{folder} holds {foreign[0]} and {len(foreign) - 1} other entries, expected a new or "
            "empty folder or a pack begun in it; nothing was written, name another"
        )


def _refuse_without_space(folder, source):
    each = sum(map(source.plan.record_bytes, source.plan.inputs))
    arrays = [place / array_name(name) for name in source.plan.inputs
              for place in (folder, folder / ".pack")]  # fmt: skip
    there = sum(path.stat().st_blocks * 512 for path in arrays if path.exists())
    needed, free = int(source.has_files.sum()) * each - there, run.free_bytes(folder)
    if needed > free:
        raise PackError(
            f"{folder}: about {needed} bytes needed for {len(source.table)} objects, {free} free; "
            "make space, name another folder, or pack as float16"
        )


def _begin(folder, source, *, restart):
    """Make the folder ready: whatever an earlier run finished goes back to where it is made."""
    staging, identity = folder / ".pack", folder / _IDENTITY
    shutil.rmtree(staging / "scratch", ignore_errors=True)  # what a kill left
    known = _known(identity)
    if identity.exists() and (restart or known is None):
        inputs = (known or source.identity)["plan.inputs"]
        for name in (MANIFEST, *TABLES, *map(array_name, inputs)):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        identity.unlink()
    run.claim(identity, source.identity, _REMEDY, scratch=staging / "scratch")
    staging.mkdir(exist_ok=True)  # not there if a finished pack was damaged
    for name in (MANIFEST, *TABLES):
        (folder / name).unlink(missing_ok=True)
    for name in map(array_name, source.plan.inputs):
        if (folder / name).exists():
            os.replace(folder / name, staging / name)


def _write_arrays(folder, source, workers, progress):
    """Write all records to arrays in .pack."""
    staging, plan = folder / ".pack", source.plan
    tasks = [
        (number, source.table["object_id"].iloc[rows].tolist(), source.paths[rows].tolist())
        for number, rows in enumerate(_blocks(source))
    ]
    pack_blocks.begin(staging, len(tasks))
    with tqdm(desc=source.identity["about.survey"], total=int(source.has_files.sum()),
              unit="object", leave=False, disable=not progress) as bar:  # fmt: skip
        run_all(partial(pack_blocks.pack_block, staging, plan), tasks, workers=workers,
                report=bar.update)  # fmt: skip


def _blocks(source):
    rows = np.flatnonzero(source.has_files)
    return [rows[k : k + pack_blocks.BLOCK] for k in range(0, len(rows), pack_blocks.BLOCK)]
