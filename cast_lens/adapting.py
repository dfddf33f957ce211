"""A network for another survey: a released one, fine-tuned with few labels, and what that gained.

    <folder>/adapted.safetensors, adapted.json   the network, for `cast-lens score --model`
    <folder>/curve.csv, curve.png                AUC against the number of labels, see `measure`
    <folder>/logits.csv                          of all labelled objects, each by a network that
                                                 had not seen it
    <folder>/left_out.csv                        labelled objects that cannot be used, and why
    <folder>/run.json                            what was done, what became of all, the warnings
    <folder>/.adapt/                             the work; a killed run goes on there

Bom et al. (2022), Sec. 6, with these departures: folds take the place of test groups, as labels are
few; the epochs are fixed and none is chosen, so that no label is spent on that and the network that
is delivered, trained on all of them, is made like those that were tested; batch normalization
forgets the old survey sooner; the learning rate falls as a cosine, and random weights have one of
their own.
"""

import json
import math
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from cast_lens import (
    adapting_curve,
    checkpoints,
    compiled,
    data,
    features,
    networks,
    own_clip,
    purity,
    run,
)
from cast_lens.adapting_curve import TRANSFER, column
from cast_lens.adapting_objects import (
    WORK,
    AdaptError,
    hash_labels,
    labelled_images,
    read_objects,
    say_twice,
)
from cast_lens.adapting_training import (
    AUGMENTATIONS,
    CLIPS,
    Bench,
    Settings,
    Trial,
    block,
    curve_sizes,
    epoch_length,
    fold_count,
    lens_logits,
    plan_trials,
    train,
)
from cast_lens.images import fingerprint
from cast_lens.pack_files import csv_text
from cast_lens.score_merge import LEFT_OUT
from cast_lens.scores import escape_cell

__all__ = ["AdaptError", "Settings", "adapt"]

AGREES = 1e-4  # of a logit: what is written must give what was trained
NETWORK, DESCRIPTION = "adapted.safetensors", "adapted.json"
CURVE, FIGURE, LOGITS, ABOUT = "curve.csv", "curve.png", "logits.csv", "run.json"


def adapt(
    images, labels, named, folder, *, survey, settings=None, take=None, strict=False,
    restart=False, progress=True, dry_run=False,
):  # fmt: skip
    """Adapt a network to the images of a survey, or go on doing so, or find it done.

    Args:
        images: Images, or a function of the names of the bands that are wanted. Those without a
            label count for the fluxes of the stretch alone.
        labels: DataFrame of object_id (str, distinct) and label (1 lens, 0 not, <NA> undecided),
            as `ranking.read_labels` returns it; None for the labels of the images.
        named: Name or file of a network, or a networks.Network.
        folder: Where to; new, empty, or begun by this function with the same arguments.
        survey: What the images are of, for the description of the network.
        settings: Settings.
        take: As for `images.in_order`.
        strict: Whether a labelled object that cannot be used is an error.
        restart: Train anew what is in the folder.
        progress: Whether to show a progress bar on standard error.
        dry_run: Whether to write nothing and return what would be done.

    Returns:
        What is in run.json, a dict: of these, `curve` is the table of `adapting_curve.measure`
        as records, and `warnings` says what the labels cannot support.

    Raises:
        AdaptError: If an argument is wrong, a class has fewer than two usable objects, equal
            pixels have different labels, or a logit is not finite; names the objects.
        ImagesError: If the images lack a band of the network.
        RunError: If the loss is not finite (names the objects of the batch), another process
            writes to the folder, or it was begun differently.
        OSError: If a file cannot be written.

    Reference:
        Bom et al. (2022), Sec. 6.
    """
    settings, folder = settings or Settings(), Path(folder)
    _check(settings, survey)
    run.set_seed(settings.seed)
    network = networks.open_network(named) if isinstance(named, (str, os.PathLike)) else named
    images, take = features.with_bands(images, network.branches, take)
    labelled, counts = labelled_images(images, labels)
    about = {
        "images": fingerprint(images), "labels": counts | {"sha256": hash_labels(labelled.table)},
        "network": {"name": network.name, "sha256": network.sha256, "survey": network.survey},
        "options": json.loads(json.dumps(asdict(settings))) | {
            "survey": survey, "bands": take, "pixel_scale": images.pixel_scale,
            "mask_value": images.mask_value},
        "versions": run.versions(),
    }  # fmt: skip
    if dry_run:
        return about | {"plan": _plan(labelled, settings)}
    run.refuse_foreign(folder, WORK, what="an adapted network", error=AdaptError)
    with run.hold(folder):
        _begin(folder, about, restart)
        source, audit = read_objects(labelled, network, take, folder, strict, progress)
        twice = say_twice(source.catalog)
        bounds = _bounds(images, network, take, settings, folder / WORK / "clip.json")
        bench = Bench(network, settings, source, bounds, compiled.Networks(), {})
        trials, fold = plan_trials(source.catalog, settings)
        with tqdm(desc="adapt", unit="epoch", leave=False, disable=not progress,
                  total=settings.epochs * (1 + sum(t.n > 0 for t in trials))) as bar:  # fmt: skip
            logits = _cross_fit(bench, trials, fold, folder, bar)
            losses = _deliver(bench, folder, bar)
        return _finish(bench, folder, about | {"audit": audit, "losses": losses}, logits, twice)


def _check(settings, survey):
    if settings.clip not in CLIPS or settings.augmentation not in AUGMENTATIONS:
        raise AdaptError(
            f"clip is {settings.clip!r} and augmentation {settings.augmentation!r}, expected one "
            f"of {', '.join(CLIPS)} and one of {', '.join(AUGMENTATIONS)}"
        )
    least = {"folds": 2, "epochs": 1, "batch": 2, "sizes": 2}
    for name, smallest in least.items():
        value = getattr(settings, name)
        if min(value if name == "sizes" else [value], default=smallest) < smallest:
            raise AdaptError(f"{name} is {value}, expected {smallest} or more")
    if not _slug(survey) or ";" in survey:
        raise AdaptError(
            f"survey is {survey!r}, expected a name with letters or digits and without ';', such "
            "as kids; give --survey"
        )


def _plan(labelled, settings):
    """Return what would be done, from the labels alone; images may yet turn out unusable."""
    n, n_lens = len(labelled), int(labelled.table["label"].sum())
    k = fold_count(settings, min(n_lens, n - n_lens))
    sizes = curve_sizes(settings, n - math.ceil(n / k))
    n_starts = 2 if settings.scratch else 1
    seen = k * n_starts * sum(epoch_length(m, settings) for m in sizes) + epoch_length(n, settings)
    return {
        "n_labelled": n, "n_lens": n_lens, "n_folds": k, "sizes": sizes,
        "n_trainings": k * n_starts * len(sizes) + 1, "n_images_seen": seen * settings.epochs,
    }  # fmt: skip


def _begin(folder, about, restart):
    """Make the folder ready: nothing in it that is half written, or of another run."""
    outputs = (NETWORK, DESCRIPTION, CURVE, FIGURE, LOGITS, LEFT_OUT, ABOUT)
    if restart:
        for name in outputs:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    left = [path for name in outputs for path in folder.glob(f".{name}.*")]
    left += [path for path in (folder / WORK).rglob(".*") if path.is_file()]
    for path in left:  # what a kill left
        path.unlink()
    flat = {f"{part}.{key}": value for part, of_part in about.items()
            for key, value in of_part.items()}  # fmt: skip
    run.claim(folder / WORK / "identity.json", flat, "Use --restart, or another folder.")


def _bounds(images, network, take, settings, path):
    """Return {branch: (lower, upper)} that the stretch shall clip at."""
    released = {
        b.name: network.model.get_layer(f"clip_{b.name}").get_weights() for b in network.branches
    }
    known = SimpleNamespace(name=network.name, branches=network.branches, clip=released)
    if settings.clip == "own":
        return own_clip.own_bounds(path, images, [known], take)
    own_clip.contrast(images, known, take)  # which warns
    return released


def _cross_fit(bench, trials, fold, folder, bar):
    """Do all trials; return the table of logits, a column a start and number of labels."""
    catalog = bench.source.catalog
    found = catalog[["object_id", "label"]].assign(fold=fold)
    columns: dict[str, np.ndarray] = {}
    for trial in trials:
        values = columns.setdefault(column(trial.start, trial.n), np.full(len(catalog), np.nan))
        values[trial.tested] = _trial(bench, trial, folder, bar)
    return found.assign(**columns)


def _trial(bench, trial, folder, bar):
    """Return the logits of the tested objects; what is done is not done again."""
    here = folder / WORK / column(trial.start, trial.n) / f"fold{trial.fold}"
    path = here / "logits.json"
    if path.exists():
        bar.update(bench.settings.epochs if trial.n else 0)
    else:
        model, _ = train(bench, trial, here, bar)
        run.write_whole(path, json.dumps(lens_logits(bench, model, trial.tested).tolist()) + "\n")
    for name in (checkpoints.STATE, checkpoints.BEST):
        (here / name).unlink(missing_ok=True)
    return np.array(json.loads(path.read_text(encoding="utf-8")))


def _deliver(bench, folder, bar):
    """Train the network on all labels and write its weights; return its losses."""
    here, path = folder / WORK / "final", folder / NETWORK
    record = here / "done.json"
    if record.exists() and path.exists():
        told = json.loads(record.read_text(encoding="utf-8"))
        if told["sha256"] == data.sha256(path):
            bar.update(bench.settings.epochs)
            return told["losses"]
    n = len(bench.source.catalog)
    # A number that no fold has, for random numbers of its own.
    whole = Trial(TRANSFER, n, bench.settings.folds, np.arange(n), np.arange(n))
    model, losses = train(bench, whole, here, bar)
    plain = networks.build_model(bench.network.backbone, bench.network.branches)
    plain.set_weights(model.get_weights())
    some = np.arange(min(n, 4))
    ours = lens_logits(bench, model, some)
    theirs = features.lens_logits(block(bench, features.feature_model(plain), some), plain)
    if not np.allclose(ours, theirs, rtol=AGREES, atol=AGREES):
        raise RuntimeError(f"the network to be written gives {theirs}, that trained {ours}")
    checkpoints.write_weights(plain, path, {"adapted_from": bench.network.name})
    told = {"sha256": data.sha256(path), "losses": losses}
    run.write_whole(record, json.dumps(told) + "\n")
    for name in (checkpoints.STATE, checkpoints.BEST):
        (here / name).unlink(missing_ok=True)
    return losses


def _finish(bench, folder, about, logits, twice):
    """Write description, tables and figure; run.json is written last."""
    survey, settings = about["options"]["survey"], bench.settings
    curve = adapting_curve.measure(logits)
    warnings = adapting_curve.warnings_of(curve, twice)
    best = logits[column(TRANSFER, curve["n_train"].max())]
    made = purity.calibrate(logits["label"], best, method="platt", folds=settings.folds,
                            seed=settings.seed)  # fmt: skip
    calibration = None
    if made.slope is not None and made.slope > 0:
        calibration = networks.Calibration(
            made.slope, made.intercept, len(logits), int(logits["label"].sum()),
            f"{survey}, cross-fitted",
        )  # fmt: skip
    else:
        warnings.append("higher scores do not mean more lenses here, so the network has no "
                        "calibration and its candidates no probabilities")  # fmt: skip
    network = bench.network
    fields = {
        "name": f"{network.name}-{_slug(survey)}", "backbone": network.backbone,
        "branches": _renamed(network.branches, about["options"]["bands"]),
        "flux_unit": f"that of {survey}" if settings.clip == "own" else network.flux_unit,
        "survey": f"{network.survey}; {survey}", "calibration": calibration,
    }  # fmt: skip
    networks.write_description(folder / DESCRIPTION, fields)
    safe = logits.assign(object_id=logits["object_id"].map(escape_cell))
    run.write_whole(folder / LOGITS, csv_text(safe))
    run.write_whole(folder / CURVE, csv_text(curve))
    adapting_curve.draw(curve, folder / FIGURE, title=f"{network.name} on {survey}")
    about |= {
        "adapted": {"name": fields["name"], "file": NETWORK, "n_train": len(logits),
                    "sha256": data.sha256(folder / NETWORK)},
        "curve": json.loads(curve.to_json(orient="records", double_precision=15)),
        "warnings": warnings,
    }  # fmt: skip
    run.write_whole(folder / ABOUT, json.dumps(about, indent=1) + "\n")
    return about


def _renamed(branches, take):
    """Return the branches with the names of the images' bands, so that these are found again."""
    found = [replace(b, bands=tuple(take[band] for band in b.bands)) for b in branches]
    is_plain = all(len(set(b.bands)) == len(b.bands) for b in found)
    return tuple(found if is_plain else branches)


def _slug(survey):
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", survey).strip("-._")
