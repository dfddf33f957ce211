"""Any images in: a folder, a table of files, a pack, or one FITS file of many images.

`find` says which objects there are and where each of their bands lies; no pixel is read.
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cast_lens import object_tables
from cast_lens.cutout_files import files_below, find_cutouts
from cast_lens.fits_image import CutoutError
from cast_lens.image_extensions import (
    ONE_BAND,
    ImagesError,
    objects_of_file,
    split_name,
    with_paths,
)  # fmt: skip
from cast_lens.image_parts import SUFFIXES, is_image
from cast_lens.pack_files import MANIFEST, is_pack
from cast_lens.pack_reader import open_pack
from cast_lens.text_tables import CatalogError


@dataclass(frozen=True, eq=False)
class Images:
    """Objects and where their images are; `find` makes it.

    Attributes:
        source: Absolute path of what was given.
        kind: folder, table, pack, extensions or stack.
        bands: Names of the bands.
        table: DataFrame of object_id, ra and dec (deg, NaN if unknown), label (if known) and, of
            each band, path_<band>, None where there is no file, and part_<band>: which image of
            the file, as `image_parts.read_part` takes it, None for its only one; or, of a pack,
            record.
        n_extra: Files that no object has.
        pixel_scale: Arcsec a pixel, one or {band: one}, which decides against the headers; or None.
        mask_value: As for `cutouts.read_cutout`.
        pack: The Pack, or None.
        columns: The columns of a table, as `find` takes them.
    """

    source: str
    kind: str
    bands: tuple[str, ...]
    table: pd.DataFrame
    n_extra: int = 0
    pixel_scale: float | dict[str, float] | None = None
    mask_value: float | None = None
    pack: Any = None
    columns: dict[str, str | None] = field(default_factory=dict)

    def __len__(self):
        """Return the number of objects."""
        return len(self.table)


def find(
    source, *, bands=None, id_column="id_str", path_column="file_loc", label_column=None,
    pixel_scale=None, mask_value=None,
):  # fmt: skip
    """Find the objects of a folder, table, pack or FITS file.

    Args:
        source: A folder of FITS files, one an object and band, named as those of the challenges,
            or <id>_<band>.fits, or <id>.fits with one band or an image of each; a table of such
            files; the folder of a pack; or a FITS file with an image of each object, in HDUs called
            <id> or <id>_<band>, or in one HDU of three axes, or with an HDU of each band of one.
        bands: Names of the bands to use; None for all that the names tell, or one without a name.
        id_column: Of a table, the column of the IDs.
        path_column: Of a table, the column of the files; with {band} in it, one for each band.
        label_column: Of a table, the column of labels, 0 or 1; None if there is none.
        pixel_scale: As of `Images`.
        mask_value: As of `Images`.

    Returns:
        Images; objects of a folder are sorted by their IDs, others are as they come.

    Raises:
        ImagesError: If there is no such path or no object, an ID is there twice or cannot be
            printed, a band has no file at all, or a number makes no sense.
        CutoutError: If a folder cannot be read or two files are of one object and band.
        CatalogError: As `object_tables.read_table`.
        PackError: As `pack.open_pack`.
    """
    path = Path(source).absolute()
    _check_numbers(pixel_scale, mask_value)
    if not path.exists():
        raise ImagesError(
            f"{path}: there is nothing of this name, expected a folder of FITS files, a pack, a "
            "table of files or a FITS file; look for a typing error"
        )
    bands, columns = None if bands is None else tuple(dict.fromkeys(bands)), {}
    if path.is_dir() and is_pack(path):
        kind, (bands, table, n_extra, pack) = "pack", _of_pack(path, bands)
    elif path.is_dir():
        kind, (bands, table, n_extra), pack = "folder", _of_folder(path, bands), None
    elif is_image(path):
        kind, bands, table = objects_of_file(path, bands)
        n_extra, pack = 0, None
    else:
        columns = {"id_column": id_column, "path_column": path_column,
                   "label_column": label_column}  # fmt: skip
        bands, table = _of_table(path, bands, **columns)
        kind, n_extra, pack = "table", 0, None
    _check_ids(path, table["object_id"])
    for name in ("dec", "ra"):
        if name not in table:
            table.insert(1, name, np.nan)
    scale = pixel_scale
    if isinstance(scale, dict) and set(scale) - set(bands):
        raise ImagesError(f"pixel scales of {', '.join(scale)}; the bands are {', '.join(bands)}")
    return Images(str(path), kind, bands, table, n_extra, scale, mask_value, pack, columns)


def fingerprint(images):
    """Return {word: value} by which the same images are known: IDs, files, their sizes and dates.

    Args:
        images: Images.

    Returns:
        Flat dict, JSON-serializable.
    """
    digest, n_bytes, seen = hashlib.sha256(), 0, set()
    digest.update("\n".join(images.table["object_id"]).encode("utf-8"))
    if images.pack is not None:
        digest.update(images.pack.manifest["sha256"].encode() if "sha256" in images.pack.manifest
                      else (images.pack.folder / MANIFEST).read_bytes())  # fmt: skip
    for band in () if images.pack is not None else images.bands:
        for path in images.table[f"path_{band}"]:
            digest.update(os.fsencode(path or "") + b"\0")
            if path and path not in seen:
                seen.add(path)
                size, date = _stamp(path)
                n_bytes += size
                digest.update(b"%d %d\n" % (size, date))
    return {
        "source": images.source, "kind": images.kind, "bands": list(images.bands),
        "n": len(images), "bytes": n_bytes, "sha256": digest.hexdigest(),
        "columns": images.columns,
    }  # fmt: skip


def find_again(about):
    """Find the images that candidates were made of.

    Args:
        about: What run.json of a folder of candidates says.

    Returns:
        Images, with the bands that were scored.

    Raises:
        ImagesError: If `about` does not tell where they are; as `find` otherwise.
    """
    try:
        told, options = about["images"], about["options"]
        source, bands, columns = told["source"], told["bands"], told["columns"]
        same = {name: options[name] for name in ("pixel_scale", "mask_value")}
    except (KeyError, TypeError) as error:
        raise ImagesError(
            f"found no word {error} of the images that were scored, expected what `cast-lens "
            "score` writes into run.json; name the images with --images"
        ) from error
    return find(source, bands=bands, **columns, **same)


def _stamp(path):
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # reading it will say what is wrong
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _of_pack(path, bands):
    pack = open_pack(path)
    known = tuple(dict.fromkeys(band for names in pack.inputs.values() for band in names))
    absent = set(bands or ()) - set(known)
    if absent:
        raise ImagesError(
            f"{path}: found the bands {', '.join(known)}, expected also {', '.join(sorted(absent))}"
            "; say which band stands for which with --bands"
        )
    columns = [c for c in ("object_id", "ra", "dec", "label") if c in pack.catalog]
    table = pack.catalog[columns].copy()
    table["record"] = np.arange(len(table))
    return bands or known, table, 0, pack


def _of_folder(path, bands):
    try:
        table, n_extra = find_cutouts(path)
    except CutoutError as error:
        if error.reason != "empty":
            raise
        return _by_stems(path, bands)
    known = tuple(column.removeprefix("path_") for column in table if column != "object_id")
    if set(bands or ()) - set(known):
        raise ImagesError(
            f"{path}: found images in {', '.join(known)}, expected also {', '.join(bands)}; say "
            "which band stands for which with --bands"
        )
    return bands or known, table, n_extra


def _by_stems(path, bands):
    """Take <id>_<band>.fits where there is any such file, otherwise each file for an object."""
    found: dict[str, dict[str, str]] = {}
    files, n_extra = [], 0
    for file in files_below(path):
        name = os.path.basename(file)
        suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
        if suffix is None or name.startswith("."):
            n_extra += 1
        else:
            files.append((file, name[: -len(suffix)]))
    bands = bands or ONE_BAND
    named = [(*parts, file) for file, stem in files if (parts := split_name(stem, bands))]
    if named:
        n_extra += len(files) - len(named)
    else:
        named = [(stem, band, file) for file, stem in files for band in bands]
    for object_id, band, file in named:
        other = found.setdefault(object_id, {}).setdefault(band, file)
        if other != file:
            raise ImagesError(
                f"{other} and {file}: found two images of object_id {object_id}, expected one a "
                "band; rename one, or name the folder of one survey"
            )
    absent = [band for band in bands if not any(band in one for one in found.values())]
    if found and absent:
        raise ImagesError(
            f"{path}: found no file called <id>_{absent[0]}, expected images in each of "
            f"{', '.join(bands)}; say which bands there are with --bands"
        )
    if not found:
        raise ImagesError(
            f"{path}: found {n_extra} files, none ending in {', '.join(SUFFIXES)}, expected "
            f"<id>.fits or <id>_<band>.fits of {', '.join(bands)}; name the folder of the images"
        )
    table = pd.DataFrame({"object_id": sorted(found)})
    rows = [found[object_id] for object_id in table["object_id"]]
    return bands, with_paths(table, bands, rows), n_extra


def _of_table(path, bands, id_column, path_column, label_column):
    bands = bands or ONE_BAND
    options = {"id_column": id_column, "label_column": label_column}
    columns = {band: path_column.replace("{band}", band) for band in bands}
    first = columns[bands[0]]
    for pair in (("ra", "dec"), ("RA", "DEC"), ()):
        try:
            read = object_tables.read_table(
                path, path_column=first, number_columns=pair, **options
            ).rename(columns=dict(zip(pair, ("ra", "dec"))))
            break
        except CatalogError as error:
            if not any(f"column {name!r}: found no such column" in str(error) for name in pair):
                raise
    paths = {first: read.pop("path").tolist()}
    for column in columns.values():
        if column not in paths:
            other = object_tables.read_table(path, path_column=column, id_column=id_column)
            paths[column] = other["path"].tolist()
    rows = [dict(zip(bands, row)) for row in zip(*(paths[columns[band]] for band in bands))]
    return bands, with_paths(read, bands, rows)


def _check_numbers(pixel_scale, mask_value):
    scales = pixel_scale.values() if isinstance(pixel_scale, dict) else [pixel_scale]
    for scale in scales:
        if scale is not None and not 0 < scale < np.inf:
            raise ImagesError(f"pixel_scale is {scale}, expected arcsec a pixel, more than 0")
    if mask_value is not None and not np.isfinite(mask_value):
        raise ImagesError(f"mask_value is {mask_value}, expected a finite number, or none")


def _check_ids(path, object_ids):
    if not len(object_ids):
        raise ImagesError(f"{path}: found no object; name a folder, table or file with images")
    for object_id in object_ids:
        if not object_id or not object_id.isprintable() or object_id != object_id.strip():
            raise ImagesError(
                f"{path}: found object_id {object_id!r}, expected visible text without blanks "
                "around it; rename the file or the object"
            )
