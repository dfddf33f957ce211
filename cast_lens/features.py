"""What a network makes of images before its last layer: a pool for `cast_lens.ranking`.

    <folder>/features.npy, objects.csv   the pool, see `pools`
    <folder>/left_out.csv                the objects without features, and why
    <folder>/run.json                    images, network, and what became of all

Images are in memory a batch at a time, and so are their features.
"""

import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from cast_lens import fast, networks, pools, run
from cast_lens.images import FLAGS, fingerprint, in_order, read_for, taken
from cast_lens.pack_files import csv_text
from cast_lens.score_merge import LEFT_OUT
from cast_lens.score_shards import ScoringError, printable
from cast_lens.scores import escape_cell

ABOUT = "run.json"
COLUMNS = ("object_id", "path", "reason", "found", "expected")  # of what was left out


def feature_model(model):
    """Return the model of a network that ends before its last layer, "lens"; it shares its weights.

    Args:
        model: keras.Model, as `networks.build_model` returns it.

    Returns:
        keras.Model of the same inputs to (batch, features).
    """
    found = keras.Model(model.input, model.get_layer("lens").input)
    if keras.backend.backend() == "tensorflow":
        found.jit_compile = False  # XLA makes convolutions on a CPU ten times slower
    return found


def lens_logits(features, model):
    """Compute the logits of a lens from the features, in float64.

    Args:
        features: Shape (objects, features).
        model: keras.Model with the last layer, "lens", a softmax of "no lens" and "lens".

    Returns:
        log(p / (1 - p)) of each object, shape (objects,), from before the softmax.
    """
    kernel, bias = (x.astype(np.float64) for x in model.get_layer("lens").get_weights())
    logits = np.asarray(features, np.float64) @ kernel + bias
    return logits[:, 1] - logits[:, 0]


def set_bounds(model, bounds):
    """Give the stretch of each branch the fluxes that become 0 and 1.

    Args:
        model: keras.Model, as `networks.build_model` returns it.
        bounds: {branch: (lower, upper)}, each of shape (bands,), in the unit of the images.
    """
    for name, ends in bounds.items():
        lower, upper = np.asarray(ends, np.float32)
        model.get_layer(f"clip_{name}").set_weights([lower, upper])


def write_features(
    images, network, folder, *, clip=None, take=None, batch=16, strict=False, progress=True,
    dry_run=False,
):  # fmt: skip
    """Write the features of images as a pool, and tell which objects were left out.

    Args:
        images: Images, or a function of the names of the bands that are wanted.
        network: Name or file of a network, or a networks.Network.
        folder: Where to; new or empty.
        clip: {branch: {band: (lower, upper)}} of run.json, where the images were scored with their
            own fluxes; None for those of the network.
        take: As for `images.in_order`.
        batch: Objects in a batch.
        strict: Whether an object that cannot be used is an error.
        progress: Whether to show a progress bar.
        dry_run: Whether to write nothing and return what would be done.

    Returns:
        What is in run.json: images, network, n_features, and the `audit` of all objects.

    Raises:
        ScoringError: If no object can be used, one was refused by `strict`, or a feature is not
            finite; names the object.
        ImagesError: If the images lack a band.
        PoolError: If the folder is not empty.
        RunError: If another process writes to it.
        OSError: If it cannot be written.
    """
    folder = Path(folder)
    unfinished = _unfinished(folder)
    if isinstance(network, (str, os.PathLike)):
        network = networks.open_network(network)
    images, take = with_bands(images, network.branches, take)
    model = feature_model(fast.fold(network.model))
    if clip:
        set_bounds(
            model,
            {b.name: np.transpose([clip[b.name][band] for band in b.bands])
             for b in network.branches},
        )  # fmt: skip
    about = {
        "images": fingerprint(images), "network": network.name, "sha256": network.sha256,
        "bands": take, "clip": clip, "n_features": int(model.output.shape[-1]),
    }  # fmt: skip
    if dry_run:
        return about | {"plan": {"n_images": len(images)}}
    with _spooled(folder) as path:
        for name in unfinished:
            (folder / name).unlink()
        kept, flags, left_out = _spool(path, images, network, model, take, batch, strict, progress)
        ids = images.table["object_id"].iloc[kept].tolist()
        rows = np.memmap(path, np.float32, "r", shape=(len(ids), about["n_features"]))
        blocks = (rows[k : k + pools.ROWS] for k in range(0, len(ids), pools.ROWS))
        pools.write_pool(folder, ids, blocks)
        write_left_out(folder / LEFT_OUT, left_out)
        about["audit"] = audit(images, kept, flags, left_out)
        run.write_whole(folder / ABOUT, json.dumps(about, indent=1) + "\n")
    return about


def _unfinished(folder):
    """Return the names of what a kill left, all of which is made anew.

    Raises:
        PoolError: If the folder holds anything else.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    own = (pools.FEATURES, pools.OBJECTS, LEFT_OUT)
    ours = all(name in own or name.startswith(tuple(f".{n}." for n in (*own, ABOUT)))
               for name in names)  # fmt: skip
    if names and not (ours and _hidden(folder).exists()):
        raise pools.PoolError(
            f"{folder} is not empty, expected a new folder; name another, or remove it"
        )
    return names


def _hidden(folder):
    """Return the folder of the work, which is gone once all is written."""
    return folder.parent / f".{folder.name}.features"


def with_bands(images, branches, take):
    """Return the Images, and {band of the network: band of the images}.

    Args:
        images: Images, or a function of the names of the bands that are wanted.
        branches: Of the network.
        take: As for `images.in_order`.

    Raises:
        ImagesError: If the images lack a band.
        ShortcutError: If there is not one for each.
    """
    take = in_order(branches, take)
    if callable(images):
        wanted = take.values() if take else (band for b in branches for band in b.bands)
        images = images(tuple(dict.fromkeys(wanted)))
    return images, taken(images, branches, take)


def refused(object_id, error):
    """Return the ScoringError of an object that cannot be used."""
    return ScoringError(f"object_id {object_id}, {error}; mend it, or run without --strict")


def write_left_out(path, left_out):
    """Write the table of the objects that were left out.

    Args:
        path: CSV to write.
        left_out: {object_id: CutoutError}.
    """
    rows = [
        (object_id, printable(e.path), e.reason, printable(e.found), printable(e.expected))
        for object_id, e in left_out.items()
    ]
    cells = [[escape_cell(text) for text in row] for row in rows]
    run.write_whole(path, csv_text(pd.DataFrame(cells, columns=COLUMNS)))


def audit(images, kept, flags, left_out):
    """Count what became of all objects.

    Args:
        images: Images.
        kept: Positions of those with features.
        flags: Of these, words joined by ";".
        left_out: {object_id: CutoutError} of the others.

    Raises:
        RuntimeError: If an object was lost or is there twice.
    """
    if len(images) != len(kept) + len(left_out):
        raise RuntimeError(f"{len(images)} objects are not {len(kept)} + {len(left_out)}")
    words = Counter(word for text in flags for word in text.split(";") if word)
    reasons = Counter(error.reason for error in left_out.values())
    return {
        "n_images": len(images), "n_written": len(kept),
        "n_left_out": dict(sorted(reasons.items())), "n_extra_files": images.n_extra,
        "n_flagged": {word: words[word] for word in FLAGS if words[word]},
    }  # fmt: skip


@contextmanager
def _spooled(folder):
    """Yield the path of a file beside a folder to be; it is gone afterwards."""
    with run.hold(_hidden(folder)) as hidden:
        run.discard(hidden)  # what a kill left
        try:
            yield hidden / "rows"
        except BaseException:
            run.discard(hidden)
            if not (folder.exists() and any(folder.iterdir())):  # else it says: unfinished
                shutil.rmtree(hidden)
            raise
        shutil.rmtree(hidden)


def _spool(path, images, network, model, take, batch, strict, progress):
    """Append the features of all objects to a file, float32; a pool must know their number first.

    Returns:
        Positions of the objects, their flags, and {object_id: CutoutError} of the others.
    """
    kept: list[int] = []
    flags: list[str] = []
    left_out = {}
    ids = images.table["object_id"].tolist()
    with open(path, "wb") as stream, tqdm(desc="features", total=len(ids), unit="object",
                                          leave=False, disable=not progress) as bar:  # fmt: skip
        for first in range(0, len(ids), batch):
            rows = list(range(first, min(first + batch, len(ids))))
            arrays, words, failed = read_for(images, rows, network.branches, take=take)
            for k, error in failed.items():
                if strict:
                    raise refused(ids[rows[k]], error)
                left_out[ids[rows[k]]] = error
            good = [k for k in range(len(rows)) if k not in failed]
            found = _features(model, arrays, batch)[good]
            odd = ~np.isfinite(found).all(axis=1)
            if odd.any():
                raise ScoringError(
                    f"object_id {ids[rows[good[int(odd.argmax())]]]}: network {network.name} gives "
                    "a feature that is not finite; look at its image, or get the weights again"
                )
            stream.write(np.ascontiguousarray(found, "<f4").tobytes())
            kept += [rows[k] for k in good]
            flags += [words[k] for k in good]
            bar.update(len(rows))
    if not kept:
        object_id, error = next(iter(left_out.items()))
        raise ScoringError(
            f"{images.source}: none of {len(ids)} objects can be used; object_id {object_id}, "
            f"{error}"
        )
    return kept, flags, left_out


def _features(model, arrays, batch):
    """Return features, float32, of a batch that is filled up: none hangs on how many there are."""
    n = len(next(iter(arrays.values())))
    full = {
        name: np.concatenate([x, np.zeros((batch - n, *x.shape[1:]), x.dtype)]) if n < batch else x
        for name, x in arrays.items()
    }
    return np.asarray(model.predict_on_batch(full), np.float32)[:n]
