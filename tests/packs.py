"""Small surveys to be packed in tests, whose pixels and labels say whose they are."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import pack
from tests.fits_files import survey_file

INPUTS = {"vis": ("VIS",), "nir": ("Y", "J", "H")}
SHAPES = {"VIS": (12, 11), "Y": (5, 7), "J": (5, 7), "H": (5, 7)}


def pixels(k, band, shape=None):
    """Draw the noise of one object in one band; its first pixel says which object it is."""
    rng = np.random.default_rng([k, list(SHAPES).index(band)])
    image = (7.7e-13 * rng.standard_normal(shape or SHAPES[band])).astype(np.float32)
    image[0, 0] = (k + 1) * 2.0**-60
    return image


def whose(images):
    """Return the k of images that `pixels` drew, from their first pixels."""
    return (images[:, 0, 0, 0].astype(np.float64) * 2.0**60).astype(int) - 1


def label_of(object_id):
    """Return the label of an object, which nothing but its ID decides."""
    return zlib.crc32(object_id.encode()) & 1


def survey(folder, n, *, bands=tuple(SHAPES), shape=None):
    """Write a survey of FITS files and return its catalog, which is not in the order of the IDs."""
    folder = Path(folder)
    order = np.random.default_rng(n).permutation(n)
    table = pd.DataFrame({"object_id": [str(200_000 + k) for k in order]})
    table["label"] = [label_of(object_id) for object_id in table["object_id"]]
    for band in bands:
        (folder / band).mkdir(parents=True, exist_ok=True)
        paths = [folder / band / f"imageEUC_{band}-{name}.fits" for name in table["object_id"]]
        for k, path in zip(order, paths):
            path.write_bytes(survey_file(pixels(k, band, shape)))
        table[f"path_{band}"] = pd.Series([str(path) for path in paths], dtype=object)
    table["flux"] = np.random.default_rng(0).normal(size=n) * 1e-12
    return table


def build(folder, catalog, inputs=None, **options):
    """Build a pack by the rules that most tests want."""
    rules = {"mask_value": 100, "dtype": "float32", "workers": 1, "progress": False} | options
    return pack.build(folder, catalog, INPUTS if inputs is None else inputs, **rules)


def manifest_of(folder):
    return json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))


def put(path, image):
    """Write another image in the place of a file, whose date must differ."""
    before = os.stat(path).st_mtime_ns
    Path(path).write_bytes(survey_file(image))
    if os.stat(path).st_mtime_ns == before:
        os.utime(path, ns=(before + 1, before + 1))
