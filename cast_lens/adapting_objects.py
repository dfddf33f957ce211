"""The labelled objects that `cast_lens.adapting` has: read once, and none of them twice."""

import hashlib
import json
import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from tqdm import tqdm

from cast_lens import features, folds, run
from cast_lens.adapting_curve import LEAST
from cast_lens.images import read_for
from cast_lens.score_merge import LEFT_OUT

SAME_SKY = 1.0  # ASSUMED: arcsec between two labelled objects that are one
BLOCK = 50  # objects read at a time
WORK = ".adapt"  # folder of what is kept for a run that was killed


class AdaptError(run.RunError):
    """Labels, images or options that a network cannot be adapted with; says what to do."""


@dataclass(frozen=True, eq=False)
class Cutouts:
    """Labelled objects on the pixels of a network, a source for `dataset.from_pack`.

    Attributes:
        catalog: DataFrame of object_id, label, pixel_group (equal for equal pixels), sky_group
            (equal for one place in the sky, else NaN) and row, that of the arrays.
        arrays: {branch: float32, shape (objects, side, side, band)}, mapped into memory.
    """

    catalog: pd.DataFrame
    arrays: dict[str, np.ndarray]

    def batch(self, name, positions):
        """Return images of a branch, float32, shape (batch, side, side, band)."""
        return np.array(self.arrays[name][self.catalog["row"].to_numpy()[positions]])


def labelled_images(images, labels):
    """Take the objects that have a label.

    Args:
        images: Images.
        labels: As for `adapting.adapt`.

    Returns:
        Images whose table has a label, 0 or 1; and how many labels there are, and of no use.

    Raises:
        AdaptError: If there is none, or a class has fewer than two objects.
    """
    table = images.table
    if labels is None:
        if "label" not in table:
            raise AdaptError(
                f"{images.source}: found no labels, expected 0 or 1 of some objects; give --labels,"
                " or --label-column of a table"
            )
        labels = table[["object_id", "label"]]
    used = labels.dropna(subset=["label"])
    known = table["object_id"].map(used.set_index("object_id")["label"])
    if not known.notna().any():
        raise AdaptError(
            f"found none of the {len(used)} labelled objects "
            f"({', '.join(used['object_id'][:1]) or 'none'}) among the {len(table)} of "
            f"{images.source} ({table['object_id'].iloc[0]}), expected the same IDs, to the letter"
        )
    kept = table[known.notna()].assign(label=known[known.notna()].astype(np.int64))
    n_lens = int(kept["label"].sum())
    if min(n_lens, len(kept) - n_lens) < 2:
        raise AdaptError(
            f"found {n_lens} lenses and {len(kept) - n_lens} others among the labelled objects of "
            f"{images.source}, expected two of each at the least, and {LEAST} to "
            "say how well it works; label more, as with `cast-lens grade`"
        )
    counts = {
        "n": len(kept), "n_lens": n_lens, "n_undecided": len(labels) - len(used),
        "n_absent": len(used) - len(kept),
    }  # fmt: skip
    return replace(images, table=kept.reset_index(drop=True)), counts


def hash_labels(table):
    """Return the SHA-256 of objects and labels, in their order."""
    pairs = table[["object_id", "label"]].to_numpy().tolist()
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def read_objects(labelled, network, take, folder, strict, progress):
    """Put all labelled objects on the pixels of a network, once.

    Args:
        labelled: Images with labels.
        network: networks.Network.
        take: {band of the network: band of the images}, whole.
        folder: Of the adapted network; what was read is kept in its `WORK`.
        strict: Whether an object that cannot be used is an error.
        progress: Whether to show a progress bar.

    Returns:
        Cutouts of those that can be used, and the audit of all.

    Raises:
        AdaptError: If none can be used.
        ScoringError: If one was refused by `strict`; names it.
    """
    work = folder / WORK
    paths = {b.name: work / f"pixels-{b.name}.npy" for b in network.branches}
    record = work / "objects.json"
    if not (record.exists() and all(path.exists() for path in paths.values())):
        _write_pixels(labelled, network, take, folder, paths, record, strict, progress)
    told = json.loads(record.read_text(encoding="utf-8"))
    table = labelled.table
    kept = np.array(told["kept"])
    catalog = pd.DataFrame(
        {"object_id": table["object_id"].iloc[kept], "label": table["label"].iloc[kept],
         "pixel_group": told["pixels"], "sky_group": _sky_groups(table.iloc[kept]), "row": kept}
    ).reset_index(drop=True)  # fmt: skip
    return Cutouts(catalog, {n: np.load(p, mmap_mode="r") for n, p in paths.items()}), told["audit"]


def _write_pixels(labelled, network, take, folder, paths, record, strict, progress):
    ids, flags, left_out = labelled.table["object_id"].tolist(), [], {}
    hidden = {name: path.with_name(f".{path.name}") for name, path in paths.items()}
    arrays = {
        b.name: np.lib.format.open_memmap(
            hidden[b.name], "w+", np.float32, (len(ids), b.side, b.side, len(b.bands))
        )
        for b in network.branches
    }
    _allocate(hidden.values())
    pixels, kept = [], []
    for first in tqdm(range(0, len(ids), BLOCK), "read", leave=False, disable=not progress):
        rows = list(range(first, min(first + BLOCK, len(ids))))
        found, words, failed = read_for(labelled, rows, network.branches, take=take)
        for k, row in enumerate(rows):
            if k in failed:
                if strict:
                    raise features.refused(ids[row], failed[k])
                left_out[ids[row]] = failed[k]
                continue
            kept.append(row)
            flags.append(words[k])
            pixels.append(hashlib.sha256(b"".join(x[k].tobytes() for x in found.values()))
                          .hexdigest())  # fmt: skip
        for name, array in arrays.items():
            array[rows] = found[name]
    for name, array in arrays.items():
        array.flush()
        os.replace(hidden[name], paths[name])
    if not kept:
        object_id, error = next(iter(left_out.items()))
        raise AdaptError(
            f"none of {len(ids)} labelled objects can be used; object_id {object_id}, {error}"
        )
    features.write_left_out(folder / LEFT_OUT, left_out)
    audit = features.audit(labelled, kept, flags, left_out)
    run.write_whole(record, json.dumps({"kept": kept, "pixels": pixels, "audit": audit}) + "\n")


def _allocate(paths):
    """Take the disk that mapped files need; a full one would kill whoever writes to the map."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None:  # as on macOS
        return
    for path in paths:
        size = path.stat().st_size
        try:
            with open(path, "r+b") as stream:
                allocate(stream.fileno(), 0, size)
        except OSError as error:
            for other in paths:
                other.unlink()
            cause = f"{error.strerror}; {size} bytes needed, {run.free_bytes(path.parent)} free"
            raise OSError(error.errno, cause, str(path)) from error


def _sky_groups(table):
    """Return a number for objects that the table has at the same place in the sky, else NaN."""
    from astropy import units
    from astropy.coordinates import SkyCoord
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    found = np.full(len(table), np.nan)
    angles = table[["ra", "dec"]].to_numpy(np.float64)
    known = np.flatnonzero(np.isfinite(angles).all(axis=1))
    if len(known) < 2:
        return found
    places = SkyCoord(*angles[known].T, unit="deg")
    one, two, _, _ = places.search_around_sky(places, SAME_SKY * units.arcsec)
    graph = coo_array((np.ones(len(one)), (one, two)), shape=(len(known), len(known)))
    _, sets = connected_components(graph, directed=False)
    is_shared = np.bincount(sets)[sets] > 1
    found[known[is_shared]] = sets[is_shared]
    return found


def say_twice(catalog):
    """Say which objects are there twice: the same pixels, or the same place in the sky.

    Args:
        catalog: As of Cutouts.

    Returns:
        List of one sentence, or none.

    Raises:
        AdaptError: If such objects have different labels.
    """
    sets = folds.held_together(catalog, ["pixel_group", "sky_group"])
    many = [part for _, part in catalog.groupby(sets) if len(part) > 1]
    for part in many:
        if part["label"].nunique() > 1:
            first, other = (part[part["label"] == label].iloc[0] for label in (0, 1))
            raise AdaptError(
                f"object_id {first['object_id']} has label 0 and object_id {other['object_id']} "
                "label 1, and both are the same image, or lie at the same place in the sky; "
                "expected one label, mend or remove one"
            )
    if not many:
        return []
    shown = "; ".join(" and ".join(part["object_id"].iloc[:2]) for part in many[:3])
    return [
        f"the same object is there twice, {len(many)} times over ({shown}): such objects were kept "
        "in one fold, but every interval counts them as different ones; remove all but one"
    ]
