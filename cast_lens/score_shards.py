"""The work of `scoring`: networks opened once a process, objects scored a shard at a time.

A shard is a file with the logits of some objects, or the reason why there is none, written whole.
Whoever computes it, and however often, it has the same bytes: a batch always has the same number of
slots and every object its own, so that no object hangs on what became of another.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cast_lens import run
from cast_lens.images import read_for, sky_position

ELEMENTS = 8  # of the dihedral group of the square
WORK = ".score"  # folder of the shards


class ScoringError(run.RunError):
    """Objects or networks that cannot be scored; says which, what was found and what to do."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """A network that is ready to score.

    Attributes:
        name: Of the network.
        sha256: Over its weights, hexadecimal.
        branches: Each with name, bands, side (pixels) and pixel_scale (arcsec).
        calibration: {"slope", "intercept", ...} of Platt's logistic, or None.
        clip: {branch: (lower, upper)}, the fluxes a band that become 0 and 1; empty if unknown.
        engine: What computes the logits.
        logits: Function of {branch: float32, shape (batch, side, side, band)} that returns the
            logits of a lens, shape (batch,).
    """

    name: str
    sha256: str
    branches: tuple
    calibration: dict | None
    clip: dict
    engine: str
    logits: Callable[[dict], Any]


@dataclass(frozen=True)
class Job:
    """What decides a shard besides its images; travels to other processes.

    Attributes:
        folder: Of the candidates.
        members: Networks, as `open_scorer` takes them.
        engine: As for `networks.lens_logits`, and so are threads.
        batch: Objects in a batch.
        dihedral: Whether to average over the eight dihedral images.
        take: {band of the network: band of the images}, or None.
        clip: {branch: (lower, upper)} that stand for those of the network, or None.
        strict: Whether an object that cannot be used is an error.
    """

    folder: str
    members: tuple[Hashable, ...]
    engine: str
    threads: int | None
    batch: int
    dihedral: bool
    take: dict[str, str] | None
    clip: dict | None
    strict: bool


def open_scorer(member, engine, threads=None):
    """Open a network.

    Args:
        member: Name or file of a network, a `networks.Network`, or a function without arguments
            that returns a Scorer.
        engine: As for `networks.lens_logits`.
        threads: Likewise.

    Returns:
        A Scorer.
    """
    if callable(member):
        return member()
    from cast_lens import fast, networks

    is_name = isinstance(member, (str, os.PathLike))
    network = networks.open_network(member) if is_name else member
    calibration = network.calibration and dataclasses.asdict(network.calibration)
    logits = networks.lens_logits(network, engine, threads=threads)
    engine = getattr(logits, "engine", None) or fast.choose_engine(engine)
    return Scorer(network.name, network.sha256, tuple(network.branches), calibration,
                  _clip_of(network), engine, logits)  # fmt: skip


def check_alike(scorers):
    """Raise ScoringError unless all networks take the same images."""
    shapes = [[(b.name, tuple(b.bands), b.side, b.pixel_scale) for b in s.branches]
              for s in scorers]  # fmt: skip
    for scorer, shape in zip(scorers, shapes):
        if shape != shapes[0]:
            raise ScoringError(
                f"networks {scorers[0].name} and {scorer.name} take other images, {shapes[0]} and "
                f"{shape}; expected members of one ensemble; score with each alone"
            )


def begin(job, scorers=None):
    """Open the networks of a job; what a process does once.

    Args:
        job: The Job.
        scorers: The networks, if they are open.

    Returns:
        Function of (number of a shard, its Images), and what `score_shard` calls report.
    """
    scorers = scorers or [open_scorer(m, job.engine, job.threads) for m in job.members]
    return partial(score_shard, job, scorers)


def score_shard(job, scorers, shard, report=None):
    """Score the objects of a shard and write its file.

    Args:
        job: The Job.
        scorers: Its networks.
        shard: Number of the shard, and Images of its objects alone.
        report: Called with the number of objects after each batch, or None.

    Raises:
        ScoringError: If a logit is not finite, or an object cannot be used and the job is strict.
        OSError: If the shard cannot be written.
    """
    number, images = shard
    object_ids = images.table["object_id"].tolist()
    found: dict[str, Any] = {
        "object_ids": object_ids, "logits": [], "flags": [], "positions": [], "errors": {}
    }  # fmt: skip
    batches = [range(len(images))[k : k + job.batch] for k in range(0, len(images), job.batch)]
    read = partial(_read, job, images, scorers[0].branches)
    for rows, batch in zip(batches, _ahead(read, batches), strict=True):
        _add_batch(found, job, scorers, rows, *batch)
        if report:
            report(len(rows))
    text = json.dumps(found, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    run.write_whole(shard_path(job.folder, number), f"{digest}\n{text}")


def shard_path(folder, number):
    """Return the file of a shard, in a folder of its own, as `tasks` wants it."""
    return Path(folder) / WORK / f"shard-{number:06}" / "logits.json"


def read_shard(folder, number, object_ids):
    """Return the content of a shard as a dict, or None if it is not there, whole and of these."""
    try:
        digest, _, data = shard_path(folder, number).read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    found = json.loads(data)
    return found if found["object_ids"] == object_ids else None


def _ahead(read, batches):
    """Yield what `read` returns of each batch, reading the next while one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        waiting: list = []
        for rows in batches:
            waiting.append(reader.submit(read, rows))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for last in waiting:
            yield last.result()


def _read(job, images, branches, rows):
    """Read a batch, what `read_for` returns; its array has `job.batch` slots, whatever is in them.

    Positions on the sky come last, {index: (ra, dec)} of those objects that can be used.
    """
    arrays, flags, failed = read_for(images, list(rows), branches, take=job.take)
    short = job.batch - len(rows)
    arrays = {
        name: np.concatenate([x, np.zeros((short, *x.shape[1:]), x.dtype)]) if short else x
        for name, x in arrays.items()
    }
    where = {k: sky_position(images, row) for k, row in enumerate(rows) if k not in failed}
    return arrays, flags, failed, where


def _add_batch(found, job, scorers, rows, arrays, flags, failed, where):
    """Score a batch that was read."""
    logits = np.stack([_logits(job, s, arrays) for s in scorers], axis=1)  # (batch, members)
    for k, row in enumerate(rows):
        object_id = found["object_ids"][row]
        if k in failed:
            error = failed[k]
            if job.strict:
                raise ScoringError(
                    f"object_id {object_id}, {error}; mend it, or score without --strict"
                )
            words = (error.reason, error.path, error.found, error.expected)
            found["errors"][str(row)] = [printable(word) for word in words]
        elif not np.isfinite(logits[k]).all():
            member = int(np.argmin(np.isfinite(logits[k])))
            raise ScoringError(
                f"object_id {object_id}: network {scorers[member].name} gives the logit "
                f"{logits[k, member]}, expected a finite number; look at its image, or get the "
                "weights again"
            )
        found["logits"].append(None if k in failed else logits[k].tolist())
        found["flags"].append("" if k in failed else flags[k])
        found["positions"].append([angle for angle in where.get(k, ()) if np.isfinite(angle)])


def printable(text):
    """Return a path or message as text that any file can hold."""
    return os.fsencode(str(text)).decode("utf-8", "backslashreplace")


def _logits(job, scorer, arrays):
    """Return the logits of a batch, float64, shape (batch,)."""
    if job.clip:
        arrays = {name: _reclipped(x, job.clip[name], scorer.clip[name])
                  for name, x in arrays.items()}  # fmt: skip
    found = []
    for element in range(ELEMENTS if job.dihedral else 1):
        logits = np.asarray(scorer.logits({n: turned(x, element) for n, x in arrays.items()}))
        if logits.shape != (job.batch,):
            expected = f"one for each of {job.batch} objects"
            raise ScoringError(
                f"network {scorer.name} gives logits of shape {logits.shape}, expected {expected}"
            )
        found.append(logits.astype(np.float64))
    return np.mean(found, axis=0)


def turned(images, element):
    """Return a dihedral image of each image, numbered as in `resampling.dihedral`.

    Args:
        images: Shape (batch, height, width, band).
        element: Integer in [0, 8).
    """
    if not element:
        return images
    images = images[:, ::-1] if element & 1 else images
    images = images[:, :, ::-1] if element & 2 else images
    return np.ascontiguousarray(images.swapaxes(1, 2) if element & 4 else images)


def _reclipped(images, own, released):
    """Map fluxes so that the network clips at `own` where it would at its `released` fluxes."""
    (lower, upper), (to_lower, to_upper) = np.asarray(own, float), np.asarray(released, float)
    span = np.where(upper > lower, upper - lower, np.inf)  # without contrast all is `to_lower`
    scaled = (images - lower) / span * (to_upper - to_lower) + to_lower
    return scaled.astype(np.float32)


def _clip_of(network):
    """Return the fluxes at which the stretch layers of a network clip; {} if it has none."""
    from keras import ops

    found = {}
    for branch in network.branches:
        try:
            layer = network.model.get_layer(f"clip_{branch.name}")
            found[branch.name] = tuple(map(ops.convert_to_numpy, (layer.lower, layer.upper)))
        except (ValueError, AttributeError):
            return {}
    return found
