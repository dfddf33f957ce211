"""Scores of any number of objects: shard by shard, each finished once, then ranked candidates.

    <folder>/.score/shard-*/       the work, kept so that a killed run goes on where it was
    <folder>/candidates.*          what `cast_lens.candidates` describes
    <folder>/left_out.csv          the objects without a score, and why
    <folder>/run.json              images, networks, options, versions, and what became of all

Images are in memory a batch at a time; of an object only its row stays.
"""

import importlib.metadata
import platform
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from cast_lens import __version__, candidates, run, tasks
from cast_lens.fits_image import CutoutError
from cast_lens.images import fingerprint, in_order, read_grids, taken
from cast_lens.own_clip import LOOKED_AT, contrast, own_bounds, spread
from cast_lens.score_merge import LEFT_OUT, finish, sentence, weights_of
from cast_lens.score_shards import (
    WORK,
    Job,
    Scorer,
    ScoringError,
    begin,
    check_alike,
    open_scorer,
    read_shard,
    shard_path,
)
from cast_lens.workers import cpus

__all__ = ["CLIPS", "LEFT_OUT", "Scorer", "ScoringError", "score", "sentence", "weights_of"]

CLIPS = ("released", "own")
PATIENCE = 2.0  # seconds; the workers of a killed run hold its folder until they notice
_PACKAGES = ("numpy", "scipy", "astropy", "keras", "tensorflow", "onnxruntime")
_REMEDY = "Use --restart, or another folder."


def score(
    images, network, folder, *, clip="released", dihedral=False, engine="auto", batch=16,
    shard=2000, workers=1, dask=None, slurm=False, take=None, top=1000, strict=False,
    restart=False, progress=True, dry_run=False,
):  # fmt: skip
    """Score objects and write a folder of candidates, or go on doing so, or find it done.

    Args:
        images: Images, as `images.find` returns them; or a function of the names of the bands that
            are wanted, which returns them.
        network: Name or file of a network, or a list of several: an ensemble, whose logits are
            averaged. Also a `networks.Network`, or a function that returns a Scorer.
        folder: Where to; new, empty, or begun by this function with the same arguments and files.
        clip: "released" for the fluxes in the weights, or "own" for the percentiles
            `own_clip.PERCENTS` of each band of these images, which go where the others were.
        dihedral: Whether to average the logits over the eight dihedral images of each object.
        engine: As for `networks.lens_logits`.
        batch: Objects in a batch.
        shard: Objects in a shard, which is lost if its process is killed.
        workers: Number of processes, each with networks of its own; one that dies is replaced.
        dask: As for `tasks.run_tasks`.
        slurm: Likewise.
        take: {band of the network: band of the images}, or the bands of the images in the order of
            the network's; None for those of the same name.
        top: Candidates in the DS9 regions.
        strict: Whether an object that cannot be used is an error.
        restart: Score anew what is in the folder.
        progress: Whether to show a progress bar on standard error.
        dry_run: Whether to write nothing and return what would be done.

    Returns:
        What is in run.json, a dict: of these, `audit` says what became of every object.

    Warns:
        UserWarning: If the images seem to be in another unit than the network's.

    Raises:
        ScoringError: If an argument is wrong, no object can be used, a logit is not finite, or an
            object was refused by `strict`; nothing is written that looks finished.
        ImagesError: If the images lack a band of the network.
        RunError: If another process writes to the folder, it was begun differently, or workers
            died again and again.
        OSError: If a file cannot be written.
    """
    _check(clip, batch, shard, workers)
    members = tuple(network) if isinstance(network, (list, tuple)) else (network,)
    is_shared = workers > 1 or bool(dask) or slurm
    if is_shared:
        _refuse_bound(members)
    known = [open_scorer(member, engine) for member in members]
    check_alike(known)
    images, take = _with_bands(images, known[0].branches, take)
    _look(images, known[0].branches, take)
    folder = Path(folder)
    run.refuse_foreign(folder, WORK, what="candidates", error=ScoringError)
    options = {"clip": clip, "dihedral": dihedral, "engine": known[0].engine, "batch": batch,
               "shard": shard, "bands": take, "pixel_scale": images.pixel_scale,
               "mask_value": images.mask_value}  # fmt: skip
    about = _about(images, known, options)
    if clip == "released":
        about["contrast"] = [contrast(images, one, take) for one in known]
    if dry_run:
        return about | {"plan": _plan(folder, images, shard)}
    with run.hold(folder, patience=PATIENCE):
        _begin(folder, _identity(about), restart=restart)
        clip_file = folder / WORK / "clip.json"
        bounds = own_bounds(clip_file, images, known, take) if clip == "own" else None
        threads = max(1, cpus() // workers) if workers > 1 else None
        job = Job(str(folder), members, known[0].engine, threads, batch, dihedral, take, bounds,
                  strict)  # fmt: skip
        todo = _tasks(job, images, shard)
        if is_shared:
            tasks.run_tasks(todo, partial(begin, job), jobs=workers, dask=dask, slurm=slurm,
                            title="shards")  # fmt: skip
        else:
            _score_here(todo, begin(job, known), len(images), progress)
        about["clip"] = bounds and {
            b.name: dict(zip(b.bands, zip(*bounds[b.name]))) for b in known[0].branches
        }
        return finish(job, images, shard, about, top)


def _with_bands(images, branches, take):
    """Return the Images, and {band of the network: band of the images}."""
    wanted = list(dict.fromkeys(band for branch in branches for band in branch.bands))
    take = in_order(branches, take, error=ScoringError)
    if callable(images):
        images = images(tuple(dict.fromkeys(take.values() if take else wanted)))
    return images, taken(images, branches, take)


def _about(images, known, options):
    networks = [{"name": one.name, "sha256": one.sha256, "calibration": one.calibration}
                for one in known]  # fmt: skip
    return {"images": fingerprint(images), "network": networks, "options": options,
            "versions": _versions()}  # fmt: skip


def _identity(about):
    """Return what a second run must share to go on, flat, so that a difference is short."""
    parts = ("images", "options", "versions")
    flat = {f"{part}.{key}": value for part in parts for key, value in about[part].items()}
    return flat | {"network": about["network"]}


def _plan(folder, images, shard):
    """Return how many shards there would be, and how many of them are there."""
    numbers = range(0, len(images), shard)
    n_there = sum(shard_path(folder, n).exists() for n in range(len(numbers)))
    return {"n_images": len(images), "n_shards": len(numbers), "n_shards_there": n_there}


def _check(clip, batch, shard, workers):
    if clip not in CLIPS:
        raise ScoringError(f"clip is {clip!r}, expected one of {', '.join(CLIPS)}")
    for name, value in (("batch", batch), ("shard", shard), ("workers", workers)):
        if value < 1:
            raise ScoringError(f"{name} is {value}, expected 1 or more")


def _refuse_bound(members):
    """Refuse a network that cannot travel to other processes."""
    for member in members:
        if not (isinstance(member, (str, Path)) or callable(member)):
            raise ScoringError(
                f"network {member.name} is open in this process, expected its name or file for "
                "several workers; name it"
            )


def _look(images, branches, take):
    """Raise unless one of some objects from all over the catalog can be used."""
    errors = []
    for position in spread(len(images), LOOKED_AT):
        try:
            read_grids(images, position, branches, take)
            return
        except CutoutError as error:
            errors.append((position, error))
    position, first = errors[0]
    raise ScoringError(
        f"{images.source}: none of {len(errors)} objects that were looked at can be used; "
        f"object_id {images.table['object_id'].iloc[position]}, {first}"
    )


def _begin(folder, identity, *, restart):
    """Make the folder ready: nothing in it that is half written, or of another run."""
    work = folder / WORK
    outputs = (candidates.CSV, candidates.FITS, candidates.REGIONS, candidates.ABOUT, LEFT_OUT)
    if restart:
        for name in outputs:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    for path in work.glob(".*"):  # what a kill left, as below
        path.unlink()
    for name in outputs:
        for path in folder.glob(f".{name}.*"):
            path.unlink()
    run.claim(work / "identity.json", identity, _REMEDY)


def _tasks(job, images, shard):
    """Return a task for each shard; files that are not its own are no longer there."""
    todo = []
    for number, first in enumerate(range(0, len(images), shard)):
        part = replace(images, table=images.table.iloc[first : first + shard])
        path = shard_path(job.folder, number)
        if read_shard(job.folder, number, part.table["object_id"].tolist()) is None:
            path.unlink(missing_ok=True)
        todo.append(tasks.Task(f"shard {number}", (number, part), path, batch=job.batch))
    return todo


def _score_here(todo, work, n_images, progress):
    with tqdm(desc="score", total=n_images, unit="object", leave=False,
              disable=not progress) as bar:  # fmt: skip
        for task in todo:
            if task.artefact.exists():
                bar.update(len(task.argument[1]))
            else:
                tasks.do(task, partial(work, report=bar.update))


def _versions():
    found = {"cast_lens": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
