"""Sec. II, data: the pack, two label rules, the split, and real images of another survey."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import catalog, cutouts, folds, pack, run, survey_folder
from reproductions.epfl.network import interpolation
from reproductions.epfl.settings import LABELS, SAMPLE, SIDES, SPLIT, word

NAME = "sglc2"
# ASSUMED: r takes the place of VIS, and u, g, i those of Y, J, H, by wavelength
GROUND = {"vis": ("R",), "nir": ("I", "G", "U")}
PIXELS = {"vis": 0.1, "nir": 0.3}  # Sec. II, arcsec
GROUND_PIXELS = 0.2  # of the I SGLC, arcsec


@dataclass(frozen=True, eq=False)
class Labeled:
    """The objects of a pack with labels of a rule, a source for `dataset.from_pack`.

    Attributes:
        pack: The Pack.
        catalog: Its catalog, with these labels.
    """

    pack: pack.Pack
    catalog: pd.DataFrame

    def batch(self, name, positions):
        """Return images, as the pack does."""
        return self.pack.batch(name, positions)


@dataclass(frozen=True, eq=False)
class Survey:
    """The objects of a run.

    Attributes:
        pack: The Pack.
        parts: {"train": rows, "test": rows, "whole": those of the test with faint sources too}.
        rows: All that were drawn, ascending, those that a scale leaves out too.
    """

    pack: pack.Pack
    parts: dict[str, np.ndarray]
    rows: np.ndarray

    @property
    def kind(self):
        """As the pack's."""
        return self.pack.kind

    @property
    def title(self):
        """As the pack's."""
        return self.pack.title

    def labeled(self, rule):
        """Return the objects with the labels of a rule, a key of `LABELS`."""
        table = self.pack.catalog
        return Labeled(self.pack, table.assign(label=LABELS[rule](table)))


def load_data(data, *, real, n_objects, seed, output):
    """Return the pack of the survey that is named, or lies where surveys are kept, or a stand-in's.

    Args:
        data: Folder of the survey or of its pack; None or "" for where surveys are kept.
        real: Whether to download the archive (19 GB) rather than to make a stand-in.
        n_objects: Of the stand-in.
        seed: Of the run.
        output: Folder for what is made.

    Returns:
        The Pack.
    """
    found, _ = survey_folder.packed(
        NAME, data, real=real, n_objects=n_objects, seed=seed + 1, output=output
    )
    return found


def divide(found, n_objects, least_n_pix, seed):
    """Draw the objects that are used, and split them 80 to 20 (Sec. IV), at random as the authors.

    Args:
        found: The Pack.
        n_objects: At most.
        least_n_pix: Sources of fewer pixels neither train nor test; 0 for all of the report.
        seed: Of the run.

    Returns:
        Survey.

    Raises:
        RunError: If a part has fewer than two objects of a class by a label rule.
    """
    drawn = np.random.default_rng([seed, SAMPLE]).permutation(len(found.catalog))[:n_objects]
    rows = np.sort(drawn)
    split = folds.by_shares(
        found.catalog.iloc[rows], {"train": 4, "test": 1}, seed=word(seed, SPLIT), stratify=False
    )
    split = {name: rows[part] for name, part in split.items()}
    is_used = _is_bright(found.catalog, least_n_pix)
    parts = {name: part[is_used[part]] for name, part in split.items()}
    survey = Survey(found, parts | {"whole": split["test"]}, rows)
    for rule in LABELS:
        labels = survey.labeled(rule).catalog["label"].to_numpy()
        for name, part in survey.parts.items():
            n_lenses = int(labels[part].sum())
            if min(n_lenses, len(part) - n_lenses) < 2:
                raise run.RunError(
                    f"{found.folder}: found {n_lenses} lenses among {len(part)} objects for {name} "
                    f"(labels: {rule}), expected two or more of each class; name a larger survey"
                )
    return survey


def _is_bright(table, least_n_pix):
    """Return whether each object has no source, or one of so many pixels above the noise."""
    return (LABELS["source-added"](table) == 0) | (table["n_pix_source"] >= least_n_pix)


def ground_images():
    """Read real cutouts of the I SGLC, ground track, in the place of Euclid's, if there are any.

    The fields of view are those of the II SGLC to 1 %: 101 pixels of 0.2 arcsec, 200 of 0.1. Where
    CAST_LENS_DATA holds the few published examples alone, that is what is scored.

    Returns:
        DataFrame of object_id and label, and {"vis": (objects, 200, 200, 1), "nir": (objects, 66,
        66, 3)} in maggies a pixel; None if there are none.
    """
    folder = Path(os.environ.get("CAST_LENS_DATA") or os.devnull).expanduser()
    folder = folder / "sglc1" / "ground_based"
    if not folder.is_dir():
        return None
    table, _ = catalog.read_sglc1(folder, track="ground")
    table = table.dropna(subset=[f"path_{band}" for band in "RIGU"])[:1000]  # fmt: skip
    images = {}
    for name, bands in GROUND.items():
        read = [
            cutouts.read_cutout([row[f"path_{band}"] for band in bands], mask_value=100)[0]
            for _, row in table.iterrows()
        ]
        area = (PIXELS[name] / GROUND_PIXELS) ** 2
        images[name] = resize(np.stack(read), SIDES[name]) * np.float32(area)
    return table[["object_id", "label"]].reset_index(drop=True), images


def resize(images, side):
    """Interpolate images, shape (objects, height, height, band), as `network.interpolation`."""
    matrix = interpolation(images.shape[1], side)
    return np.einsum("ij,bjkc,lk->bilc", matrix, images, matrix, optimize=True)
