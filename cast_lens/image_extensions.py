"""Which objects are in one FITS file: an image each in a stack or in extensions, or one alone."""

import pandas as pd

from cast_lens import run, stacks
from cast_lens.image_parts import SUFFIXES, planes_and_parts

ONE_BAND = ("image",)  # what the band is called where nobody says


class ImagesError(run.RunError):
    """Images that cannot be used at all; says what was found and what to do."""


def objects_of_file(path, bands):
    """Tell a stack of objects, the bands of one object, and an HDU an object from one another.

    Args:
        path: Path of a FITS file of images.
        bands: Names of the bands, or None.

    Returns:
        Kind, bands and table, as of `image_sources.Images`.

    Raises:
        ImagesError: If objects or bands cannot be told apart.
        CutoutError: As `image_parts.planes_and_parts`.
    """
    n_planes, parts = planes_and_parts(path)
    if n_planes and len(bands or ONE_BAND) == 1:
        bands = bands or ONE_BAND
        table = _stack_catalog(path, n_planes)
        table[f"path_{bands[0]}"] = pd.Series([str(path)] * n_planes, dtype=object)
        places = [("plane", parts[0][1][1], k) for k in range(n_planes)]
        table[f"part_{bands[0]}"] = pd.Series(places, dtype=object)
        return "stack", bands, table
    names = {name.upper() for name, _ in parts}
    if bands and len(bands) > 1 and ({b.upper() for b in bands} <= names or n_planes):
        table = pd.DataFrame({"object_id": [_stem(path)]})
        return "extensions", bands, with_paths(table, bands, [dict.fromkeys(bands, str(path))])
    return "extensions", *_of_extensions(path, bands or ONE_BAND, parts)


def _stem(path):
    return next(path.name[: -len(s)] for s in SUFFIXES if path.name.lower().endswith(s))


def _stack_catalog(path, n_planes):
    try:
        table = stacks.open_stack(path).catalog.reset_index(drop=True)
    except (stacks.StackError, OSError):  # another's
        return pd.DataFrame({"object_id": [str(k) for k in range(n_planes)]})
    return table[[c for c in ("object_id", "label") if c in table]].copy()


def _of_extensions(path, bands, parts):
    found: dict[str, dict[str, tuple]] = {}
    if len(parts) == 1 and not parts[0][0]:
        parts = [(_stem(path), parts[0][1])]
    for number, (name, part) in enumerate(parts):
        named = split_name(name, bands) or split_name(name, [b.upper() for b in bands])
        if named is None and len(bands) > 1:
            raise ImagesError(
                f"{path}: found an image called {name!r}, expected <id>_<band> with a band of "
                f"{', '.join(bands)} in EXTNAME; name the bands with --bands"
            )
        object_id, band = named or (name or str(number), bands[0])
        band = next(b for b in bands if band in (b, b.upper()))
        if band in found.setdefault(object_id, {}):
            raise ImagesError(
                f"{path}: found two images called {name!r}, expected an EXTNAME of its own for "
                "each object; rename one"
            )
        found[object_id][band] = part
    table = pd.DataFrame({"object_id": list(found)})
    for band in bands:
        places = [row.get(band) for row in found.values()]
        paths = [str(path) if place else None for place in places]
        table[f"path_{band}"] = pd.Series(paths, dtype=object)
        table[f"part_{band}"] = pd.Series(places, dtype=object)
    return bands, table


def with_paths(table, bands, rows):
    """Add path_<band>, and part_<band> where several bands are in one file."""
    for band in bands:
        # As objects: a folder name need not be UTF-8, which the strings of pandas must be.
        table[f"path_{band}"] = pd.Series([row.get(band) for row in rows], dtype=object)
        if len(bands) > 1:
            shared = [band if len(set(row.values())) < len(row) else None for row in rows]
            table[f"part_{band}"] = pd.Series(shared, dtype=object)
    return table


def split_name(name, bands):
    """Return (ID, band) of a name <id>_<band>, or None if it is none."""
    object_id, _, band = name.rpartition("_")
    return (object_id, band) if object_id and band in bands else None
