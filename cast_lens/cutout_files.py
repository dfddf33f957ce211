"""Which files below a folder are images of the I or II SGLC, and of which object and band."""

import os
import re

import pandas as pd

from cast_lens.fits_image import CutoutError

BANDS = ("VIS", "Y", "J", "H", "R", "I", "G", "U")

_NAME = re.compile(r"image(?:EUC_(VIS|[YJH])|SDSS_([RIGU]))-([0-9]+)\.fits(?:\.gz)?")
_OTHER_IMAGES = {"NoSourceImage", "NoLensImage"}


def find_cutouts(folder):
    """Find the images of the I or II SGLC below a folder, however the archives were unpacked.

    Object and band are read from the file name, image{EUC_VIS,EUC_Y,...,SDSS_U}-<ID>.fits[.gz],
    never from folders or their order. Below NoSourceImage and NoLensImage the I SGLC keeps other
    images of the same objects under the same names; these are ignored and count as extras.

    Args:
        folder: Folder to search; links to folders are followed, each folder is searched once.

    Returns:
        DataFrame of shape (objects, 1 + bands) sorted by object_id (str), with a column
        path_<band> for each band found, in the order of `BANDS`; a missing file is None. And the
        number of extras, which are all other files.

    Raises:
        CutoutError: If there is no image, two are of one object and band, one ID has images of
            both tracks (EUC and SDSS number different objects alike), or a folder is unreadable.

    Reference:
        Metcalf et al. (2019), A&A 625, A119, for the tracks of the I SGLC.
    """
    found: dict[str, dict[str, str]] = {}
    folder, n_extra = os.fspath(folder), 0
    for path in files_below(folder):
        match = _NAME.fullmatch(os.path.basename(path))
        if match and _OTHER_IMAGES.isdisjoint(path[len(folder) :].split(os.sep)):
            _add(found.setdefault(match[3], {}), match[1] or match[2], path, match[3])
        else:
            n_extra += 1
    if not found:
        expected = "image*-<ID>.fits below it; also unpack the archives inside the archive"
        raise CutoutError("empty", folder, f"{n_extra} files, none an image of the SGLC", expected)
    table = pd.DataFrame({"object_id": sorted(found)})
    for band in BANDS:
        paths = [found[object_id].get(band) for object_id in table["object_id"]]
        if any(paths):
            # As objects: a folder name need not be UTF-8, which the strings of pandas must be.
            table[f"path_{band}"] = pd.Series(paths, dtype=object)
    return table, n_extra


def files_below(folder):
    """List every file below a folder, in an order that no file system decides.

    Args:
        folder: Folder to search; links to folders are followed, each folder is searched once.
            Folders whose names begin with a point are not looked into.

    Yields:
        Paths, str.

    Raises:
        CutoutError: If a folder is unreadable.
    """

    def refuse(error):
        expected = "a folder that can be read; name another, or set its permissions"
        raise CutoutError("io", error.filename, error.strerror, expected) from error

    seen = set()
    for here, folders, files in os.walk(os.fspath(folder), followlinks=True, onerror=refuse):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # a link back up, or a second way down
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(here, name) for name in sorted(files))


def _add(paths, band, path, object_id):
    other = paths.get(band) or next(iter(paths.values()), path)
    if band in paths or _track(other) != _track(path):
        found = f"two images of object_id {object_id}"
        expected = "one a band, all of one track; name the folder of one track, or remove one image"
        raise CutoutError("duplicate", f"{other} and {path}", found, expected)
    paths[band] = path


def _track(path):
    return os.path.basename(path)[:8]  # "imageEUC" or "imageSDS"
