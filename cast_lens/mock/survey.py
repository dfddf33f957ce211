"""A stand-in survey on disk: made in parallel, killed and resumed at will, always the same bytes.

A maker, one frozen dataclass a survey, makes one object at a time and is all that decides a byte:
    survey, seed: its name and the seed of all draws.
    parameters(): everything else that decides a pixel, JSON-serializable; never the number n.
    make(k): ({path below the folder: bytes}, [truth rows as dicts]) of object k = 0, 1, ...
    catalog(rows, n): {path: bytes} of the files that need the DataFrame of all truth rows.
    bytes_per_object: optional; the space an object takes, asked for before anything is written.
    depends_on_n: optional; True where object k also depends on n, so that the folder cannot grow.

Objects are made in blocks. When the files of a block have their final names and are flushed to
disk, its record (hashes, sizes, truth rows) is written below .mock/; a block with a record is not
made again. manifest.json is the last file written, and the first that a growing survey loses.
"""

import hashlib
import importlib.metadata
import itertools
import json
import numbers
import os
import platform
import shutil
import time
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm import tqdm

from cast_lens import __version__, run
from cast_lens.data import sha256
from cast_lens.workers import cpus, run_all

BLOCK = 32  # objects that share a flush and a record; a kill costs at most so many a worker
PATIENCE = 2.0  # seconds; the workers of a killed run hold its folder until they notice


def write(folder, maker, *, n, workers=None, progress=True):
    """Write a stand-in survey, or go on with one, or find it finished.

    Args:
        folder: Where to write; new, empty, or begun by this function with the same maker.
        maker: The survey's maker, see above.
        n: Number of objects, 1 or more; not fewer than the folder holds.
        workers: Number of processes, each with one thread; None for the CPUs that may be used.
        progress: Whether to show a progress bar on standard error.

    Returns:
        Dict of n, made (objects made by this call), files, bytes, workers (processes that found
        work), seconds, objects_per_second and objects_per_second_per_core.

    Raises:
        run.RunError: If the folder holds something else, another process writes to it, the disk
            cannot hold the survey, an argument is wrong, or a worker was killed.
        OSError: If a file cannot be written; says how many bytes are needed and free.
        RuntimeError: If the maker failed; names survey and object.
    """
    folder, start = Path(folder), time.perf_counter()
    n = _whole_number("n", n, 1)
    workers = cpus() if workers is None else _whole_number("workers", workers, 1)
    _whole_number("seed", maker.seed, 0)
    identity, made = _identity(maker), 0
    manifest = _finished(folder, identity, n)
    if manifest is None:
        _refuse_foreign(folder)
        _refuse_without_space(folder, maker, n)
        with run.hold(folder, patience=PATIENCE):
            try:
                todo = _begin(folder, maker, identity, n)
                made = sum(stop - first for first, stop in todo)
                workers = min(workers, len(todo) or 1)
                with tqdm(desc=maker.survey, total=n, initial=n - made, unit="object", leave=False,
                          disable=not progress) as bar:  # fmt: skip
                    make = partial(_make_block, folder, maker)
                    run_all(make, todo, workers=workers, report=bar.update)
                manifest = _finish(folder, maker, identity, n)
            finally:
                shutil.rmtree(_scratch(folder), ignore_errors=True)
    seconds = time.perf_counter() - start
    counts = {"n": n, "made": made, "files": manifest["files"], "bytes": manifest["bytes"]}
    rates = {"objects_per_second": made / seconds}
    rates["objects_per_second_per_core"] = made / seconds / workers
    return counts | {"workers": workers, "seconds": seconds} | rates


def read_manifest(folder):
    """Return what is in the folder of a finished stand-in survey.

    Args:
        folder: Folder that `write` finished.

    Returns:
        Dict of survey, seed, n, parameters, versions, files (their number), bytes (their sum)
        and sha256 (of sha256sum.txt, which lists the files).

    Raises:
        run.RunError: If the folder holds no finished stand-in survey.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found, expected = sha256(folder / "sha256sum.txt"), manifest["sha256"]
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError) as error:
        raise run.RunError(
            f"{folder} holds no finished stand-in survey ({type(error).__name__}: {error}); "
            "write it, or end writing it, with `cast-lens mock`"
        ) from error
    if found != expected:
        raise run.RunError(
            f"{folder}/sha256sum.txt has SHA-256 {found}, expected {expected}; "
            "write it again with `cast-lens mock`"
        )
    return manifest


def check_finished(folder):
    """Check that all files of a finished survey are there with their sizes, reading none.

    Args:
        folder: Folder that `write` finished.

    Returns:
        The manifest, as `read_manifest`.

    Raises:
        run.RunError: If the survey is not finished, or a file is missing or has another size.
    """
    folder, n_bytes = Path(folder), 0
    manifest = read_manifest(folder)
    with open(folder / "sha256sum.txt", encoding="utf-8") as lines:
        for line in lines:
            try:
                n_bytes += os.stat(folder / line[66:-1]).st_size
            except OSError as error:
                raise run.RunError(f"{error}; make it again with `cast-lens mock`") from error
    if n_bytes != manifest["bytes"]:
        raise run.RunError(
            f"{folder} holds {n_bytes} bytes, expected {manifest['bytes']}; find the file with "
            "`sha256sum -c sha256sum.txt`, make it again with `cast-lens mock`"
        )
    return manifest


def _whole_number(name, value, least):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise run.RunError(f"{name} is {value!r}, expected a whole number, {least} or more")
    return int(value)


def _identity(maker):
    """Return what decides a byte but n; versions too, as another one may round differently."""
    packages = {name: _version(name) for name in ("numpy", "lenstronomy", "astropy")}
    versions = {"cast_lens": __version__, "python": platform.python_version()} | packages
    described = {"survey": maker.survey, "seed": int(maker.seed), "parameters": maker.parameters()}
    return json.loads(json.dumps(described | {"versions": versions}))


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _finished(folder, identity, n):
    """Return the manifest if the folder holds just this survey, made with any versions."""
    try:
        manifest = read_manifest(folder)
        same = ("survey", "seed", "parameters")
        if manifest["n"] == n and all(manifest[key] == identity[key] for key in same):
            return check_finished(folder)
    except run.RunError:
        pass
    return None


def _refuse_foreign(folder):
    if not folder.exists() or (folder / ".mock/survey.json").exists():
        return
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in {".mock", ".lock"})
    if foreign:
        raise run.RunError(
            f"{folder} holds {foreign[0]} and {len(foreign) - 1} other entries, expected a new or "
            "empty folder or a stand-in survey begun in it; nothing was written, name another"
        )


def _refuse_without_space(folder, maker, n):
    each = getattr(maker, "bytes_per_object", 0)
    there = sum(1 for _ in folder.glob(".mock/blocks/*")) * BLOCK
    needed, free = max(n - there, 0) * each, run.free_bytes(folder)
    if needed > free:
        raise run.RunError(
            f"{folder}: about {needed} bytes needed for {max(n - there, 0)} objects of "
            f"{maker.survey}, {free} free; make space, choose a smaller n or another folder"
        )


def _begin(folder, maker, identity, n):
    """Make the folder ready for n objects and return the blocks still to be made."""
    fixed = {key: identity[key] for key in ("survey", "seed")}
    if getattr(maker, "depends_on_n", False):
        fixed["n"] = n
    for group in ("parameters", "versions"):
        fixed |= {f"{group}.{key}": value for key, value in identity[group].items()}
    shutil.rmtree(_scratch(folder), ignore_errors=True)  # what a kill left
    remedy = "Name another folder, or remove this one."
    path = folder / ".mock/survey.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else fixed
    if found["survey"] != fixed["survey"]:  # then all else differs too
        raise run.RunError(
            f"{folder} holds the stand-in survey {found['survey']}, not {fixed['survey']}. {remedy}"
        )
    run.claim(path, fixed, remedy, scratch=_scratch(folder))
    begun = _begun(folder)
    if n < begun["n"]:
        raise run.RunError(
            f"{folder} was begun for {begun['n']} objects, more than n = {n}, and only grows; "
            f"choose n = {begun['n']} or more, or another folder"
        )
    for name in ("manifest.json", "sha256sum.txt", *begun["catalog"]):
        (folder / name).unlink(missing_ok=True)
    _write(folder, ".mock/begun.json", json.dumps(begun | {"n": n}) + "\n")
    return [block for block in _blocks(n) if not _is_made(folder, *block)]


def _begun(folder):
    """Return for how many objects the folder was begun, and the catalogs it was finished with."""
    path = folder / ".mock/begun.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"n": 0, "catalog": []} | known


def _blocks(n):
    return [(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK)]


def _scratch(folder):
    return folder / ".mock/scratch"


def _record(first):
    return f".mock/blocks/{first:09d}.jsonl"


def _write(folder, name, content, *, flush=True):
    run.write_whole(folder / name, content, scratch=_scratch(folder), flush=flush)
    return content


def _read_record(folder, first, stop):
    """Return {path: (SHA-256, size)} and the truth rows of a block, or None if it is not made."""
    try:
        text = (folder / _record(first)).read_text(encoding="utf-8")
        files, *truth = [json.loads(line) for line in text.splitlines()]
    except (FileNotFoundError, ValueError):
        return None
    return (files, truth) if len(truth) == stop - first else None


def _is_made(folder, first, stop):
    found = _read_record(folder, first, stop)
    return found is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, (_, size) in found[0].items()
    )


def _make_block(folder, maker, first, stop):
    files: dict[str, tuple[str, int]] = {}
    truth = []
    for k in range(first, stop):
        try:
            made, rows = maker.make(k)
            truth.append(json.dumps(rows, default=np.generic.item))
            _check_paths(made, files)
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise RuntimeError(f"object {k} of {maker.survey} (seed {maker.seed}): {cause}") from (
                error
            )
        for name, content in made.items():
            files[name] = _sum(_write(folder, name, content, flush=False))
    run.flush_folder(folder)
    _write(folder, _record(first), "\n".join([json.dumps(files), *truth]) + "\n")
    return stop - first


def _check_paths(names, others):
    for name in names:
        if name in others:
            raise RuntimeError(f"{name!r} was made for another object too")
        parts = PurePosixPath(name).parts
        ours = {".mock", ".lock", "manifest.json", "sha256sum.txt"}
        odd = not name.isprintable() or "\\" in name  # sha256sum would write it otherwise
        if not parts or parts[0] in {"/", *ours} or ".." in parts or odd:
            raise RuntimeError(f"{name!r} is not a path that a survey can have")


def _sum(content):
    return hashlib.sha256(content).hexdigest(), len(content)


def _finish(folder, maker, identity, n):
    """Write catalog, sums and manifest; all rows are in memory, no image is."""
    files, columns = _gather(folder, n)
    catalog = maker.catalog(pd.DataFrame(columns), n)
    _check_paths(catalog, files)
    _write(folder, ".mock/begun.json", json.dumps({"n": n, "catalog": list(catalog)}) + "\n")
    for name, content in catalog.items():
        files[name] = _sum(_write(folder, name, content))
    sums = "".join(f"{digest}  {name}\n" for name, (digest, _) in files.items())
    _write(folder, "sha256sum.txt", sums)
    sizes = {"files": len(files), "bytes": sum(size for _, size in files.values())}
    manifest = identity | {"n": n} | sizes | {"sha256": _sum(sums.encode())[0]}
    _write(folder, "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def _gather(folder, n):
    """Return {path: (SHA-256, size)} and {column: values} of all objects, in their order."""
    files: dict[str, tuple[str, int]] = {}
    columns: dict[str, list] = {}  # a list of 100,000 dicts would take five times the memory
    for block in _blocks(n):
        found, truth = _read_record(folder, *block)
        _check_paths(found, files)
        files |= found
        for row in itertools.chain.from_iterable(truth):
            columns = columns or {key: [] for key in row}
            if row.keys() != columns.keys():
                raise RuntimeError(f"{row} has other columns than the first, {list(columns)}")
            for key, value in row.items():
                columns[key].append(value)
    return files, columns
