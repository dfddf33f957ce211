"""What a pack is asked to be: arguments checked, the survey's files known by size and date.

All of it goes into an identity, which a second run must share to go on.
"""

import hashlib
import importlib.metadata
import math
import os
import platform
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from cast_lens import __version__, array_files, cutouts, half
from cast_lens.pack_files import PackError, encode_catalog
from cast_lens.pack_plan import COUNTS, Plan, read_block

ADDED = (*COUNTS, "pixel_group")  # columns of a pack's catalog
SAMPLE = 32  # objects that tell the usual shape and the typical pixel
_RESERVED = {"checksums"}
_PACKAGES = ("numpy", "pandas", "astropy", "pyarrow")


@dataclass(frozen=True, eq=False)
class Source:
    """A survey ready to be packed.

    Attributes:
        table: DataFrame of all objects; paths are named from `plan.root`.
        paths: Of each object its files in the order of `plan.columns`, None where there is none,
            shape (objects, columns).
        plan: The Plan.
        identity: What decides every byte, flat and JSON-serializable.
    """

    table: pd.DataFrame
    paths: np.ndarray
    plan: Plan
    identity: dict

    @property
    def has_files(self):
        """Whether an object has any file, shape (objects,)."""
        return np.array([any(row) for row in self.paths], bool)


def describe(catalog, inputs, *, shapes, about, **rules):
    """Check what shall be packed, and measure what was not said.

    Args:
        catalog: As for `pack.build`, like all others.
        inputs: {name: bands}.
        shapes: {name: (height, width)} or None, for the most frequent in a sample.
        about: Dict of what the identity shall say, or None.
        rules: The other attributes of a `Plan` but scales and root.

    Returns:
        A Source.

    Raises:
        PackError: If an argument is wrong, an object_id is there twice, no object has a file, or
            no shape is to be found.
    """
    inputs = _checked_inputs(inputs)
    plan = Plan(inputs=inputs, shapes={}, scales={}, root="", **rules)
    _check_rules(plan, shapes or {})
    _check_catalog(catalog, plan)
    paths = _paths(catalog, plan)
    named = sorted(path for path in paths.flat if path)
    if not named:
        raise PackError(
            f"the catalog names no file for any of its {len(catalog)} objects in "
            f"{', '.join(plan.columns)}; name the folder that holds the images"
        )
    plan = replace(plan, root=_root(named))
    table = _relative(catalog, paths, plan)
    sample = _sample(paths)
    plan = replace(plan, shapes=_shapes(plan, sample, shapes or {}))
    if plan.dtype == "float16":
        images = read_block(plan, sample).images  # one that cannot be used is 0, and does not count
        plan = replace(plan, scales={name: half.scales(images[name]) for name in inputs})
    return Source(table, paths, plan, _identity(plan, table, named, about or {}))


def _checked_inputs(inputs):
    for name, bands in inputs.items():
        if not (isinstance(name, str) and name.isidentifier()) or name in _RESERVED:
            raise PackError(f"an input is called {name!r}, expected a plain name; choose another")
        if isinstance(bands, str) or not bands or len(set(bands)) < len(bands):
            raise PackError(
                f"input {name} has bands {bands!r}, expected a tuple of names, each once"
            )
    if not inputs:
        raise PackError("there is no input; name at least one, with its bands")
    return {name: tuple(bands) for name, bands in inputs.items()}


def _check_rules(plan, shapes):
    for key, known in (
        ("dtype", ("float32", "float16")),
        ("channels", (*array_files.CHANNELS, None)),
    ):
        if (value := getattr(plan, key)) not in known:
            raise PackError(f"{key} is {value!r}, expected one of {', '.join(map(str, known))}")
    if plan.mask_value is not None and not math.isfinite(plan.mask_value):
        raise PackError(f"mask_value is {plan.mask_value}, expected a finite number or None")
    for name, shape in shapes.items():
        if name not in plan.inputs or len(shape) != 2 or min(shape) < 1:
            raise PackError(
                f"shapes has {name!r}: {shape}, expected (height, width) in pixels of one of the "
                f"inputs {', '.join(plan.inputs)}"
            )


def _check_catalog(catalog, plan):
    absent = [c for c in ("object_id", *plan.columns) if c not in catalog]
    taken = [column for column in ADDED if column in catalog]
    if absent or taken or plan.channels and len(plan.inputs) > 1:
        raise PackError(
            f"the catalog has the columns {', '.join(map(str, catalog))}, expected also object_id, "
            f"{', '.join(plan.columns)} and none of {', '.join(ADDED)}; .npy files make one input"
        )
    rows: dict[str, int] = {}
    for row, object_id in enumerate(catalog["object_id"]):
        if not isinstance(object_id, str) or object_id in rows:
            found = f"on row {rows[object_id]} too" if object_id in rows else "which is no text"
            raise PackError(
                f"row {row} of the catalog: found object_id {object_id!r}, {found}, expected text "
                "of its own for each object; drop one of the rows, or store IDs as text"
            )
        rows[object_id] = row


def _paths(catalog, plan):
    paths = np.empty((len(catalog), len(plan.columns)), object)
    for n, column in enumerate(plan.columns):
        named = [p if isinstance(p, (str, os.PathLike)) else None for p in catalog[column]]
        paths[:, n] = [os.fspath(path) if path else None for path in named]
    return paths


def _root(named):
    """Return the folder below which all files are, or "" if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(named[0]), os.path.dirname(named[-1])])
    except ValueError:  # some are absolute, some are not
        return ""


def _relative(catalog, paths, plan):
    """Return the catalog with the paths that are used, from the root, and no others."""
    others = [c for c in catalog if str(c).startswith("path_") or c == "path"]
    table = catalog.drop(columns=[c for c in others if c not in plan.columns])
    for n, column in enumerate(plan.columns):
        shown = [path and plan.relative(path) for path in paths[:, n]]
        table[column] = pd.Series(shown, dtype=object, index=table.index)
    return table.reset_index(drop=True)


def _sample(paths):
    """Return the paths of objects with all files, from all over the catalog."""
    whole = [row for row in paths.tolist() if all(row)] or paths.tolist()
    return whole[:: max(len(whole) // SAMPLE, 1)]


def _shapes(plan, sample, shapes):
    found = {}
    for name, bands in plan.inputs.items():
        shape = shapes.get(name) or _usual_shape(plan, name, bands, sample)
        found[name] = (int(shape[0]), int(shape[1]))
    return found


def _usual_shape(plan, name, bands, sample):
    column = 0 if plan.channels else plan.columns.index(f"path_{bands[0]}")
    seen: Counter[tuple[int, ...]] = Counter()
    for row in sample:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # reading it again will say so
                if plan.channels:
                    image = array_files.read_array(row[column], channels=plan.channels)
                else:
                    image, _ = cutouts.read_cutout([row[column]])
            seen[image.shape[:2]] += 1
        except cutouts.CutoutError as error:
            last = error
    if not seen:
        raise PackError(f"no image of input {name} in a sample can be read; the last is {last}")
    return seen.most_common(1)[0][0]


def _identity(plan, table, named, about):
    sizes, dates = hashlib.sha256(encode_catalog(table)[0]), hashlib.sha256()
    n_bytes = 0
    for path in named:
        try:
            status = os.stat(path)
            size, date = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):  # reading it will say what is wrong
            size = date = 0
        n_bytes += size
        sizes.update(b"%d\n" % size)
        dates.update(b"%d\n" % date)
    rules = asdict(plan) | {"root": None, "strict": None}
    identity = {f"plan.{key}": value for key, value in rules.items() if value is not None}
    identity |= {f"about.{key}": value for key, value in about.items()}
    identity |= {f"versions.{key}": value for key, value in _versions().items()}
    return identity | {
        "data.objects": len(table), "data.files": len(named), "data.bytes": n_bytes,
        "data.sha256": sizes.hexdigest(), "data.modified": dates.hexdigest(),
    }  # fmt: skip


def _versions():
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"cast_lens": __version__, "python": platform.python_version()} | packages
