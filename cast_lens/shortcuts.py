"""Does a network read the lens, or something that only goes with it? Tests on altered images.

Each test takes from labelled images what a lens is, or most of it, and asks how well the network
still tells the classes. `VERDICTS` says how an AUC and its interval become a verdict; the rule is
the same for all networks and was fixed before any was tested.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats
from tqdm import tqdm

from cast_lens import grading, intervals, metrics, run, score_shards
from cast_lens.images import in_order, read_for, taken
from cast_lens.pack_files import csv_text
from cast_lens.scores import escape_cell

UNTOUCHED, MASKED, BACKGROUND, SHUFFLED = (
    "untouched", "center masked", "background only", "shuffled labels",
)  # fmt: skip
RADIUS = 3.0  # ASSUMED: arcsec; the Einstein radii of galaxies are mostly below
SOURCES = 3.0  # ASSUMED: standard deviations of the sky above which a pixel is of a source
MARGIN = 0.05  # ASSUMED: AUC above 1/2 that an interval must exclude for "none seen"
LEVEL = 0.95  # of all intervals

VERDICTS = {
    "shortcut": "lies above 1/2 without the lens",
    "none seen": "is no more than 1/2 within its interval, which ends below 1/2 + MARGIN",
    "undecided": "has too wide an interval, or the untouched images are not told apart either",
    "reversed": "lies below 1/2",
    "as good alone": "does not differ from that of all bands",
    "part": "lies above 1/2, and below that of all bands",
    "nothing alone": "is not above 1/2",
    "better alone": "lies above that of all bands",
    "above chance": "is beaten by at most one of twenty permutations of the labels",
    "chance": "is what permuted labels give too",
}


class ShortcutError(run.RunError):
    """Images or options that allow no test; says what was found and what to do."""


@dataclass(frozen=True)
class Alteration:
    """A test.

    Attributes:
        name: Of the test.
        how: What is done to the images, in words.
        apply: Function of {branch: (batch, side, side, band)} that returns the altered ones.
        band: The band that is left, or "".
    """

    name: str
    how: str
    apply: object
    band: str = ""


def with_labels(images, path):
    """Give images the labels of a table; objects without one are left out.

    Args:
        images: Images.
        path: Table of object_id and label, as `grading.read_labels` reads it.

    Returns:
        Images whose table has a label, 0 or 1.

    Raises:
        ShortcutError: If no object of the images has a label there.
    """
    table = grading.read_labels(path).dropna(subset=["label"])
    kept = grading.labelled(images.table, table)
    if kept.empty:
        raise ShortcutError(
            f"{path}: found a label for none of {len(images)} objects of {images.source} (there "
            f"{table['object_id'].iloc[0] if len(table) else 'none'}, here "
            f"{images.table['object_id'].iloc[0]}), expected the same IDs; name another table"
        )
    return replace(images, table=kept)


def alterations(scorer, *, radius=RADIUS):
    """Return the tests of a network that alter images, the untouched images first.

    Args:
        scorer: Scorer.
        radius: Of the masked disc, arcsec.

    Raises:
        ShortcutError: If the disc leaves less than half of a field's side on either side of it.
    """
    for branch in scorer.branches:
        half = branch.side * branch.pixel_scale / 2
        if not 0 < radius < half:
            raise ShortcutError(
                f"radius is {radius} arcsec, expected > 0 and less than {half:.4g}, half the field "
                f"of branch {branch.name}; give another --radius"
            )
    found = [
        Alteration(UNTOUCHED, "as they are", lambda arrays: arrays),
        Alteration(
            MASKED, f"a disc of {radius:g} arcsec became the sky's median",
            lambda arrays: hide(arrays, scorer.branches, radius, sources=False),
        ),
        Alteration(
            BACKGROUND, f"the disc, and all pixels {SOURCES:g} sd above the sky, became its median",
            lambda arrays: hide(arrays, scorer.branches, radius, sources=True),
        ),
    ]  # fmt: skip
    bands = list(dict.fromkeys(band for b in scorer.branches for band in b.bands))
    dark = "the lower flux of the network's clip" if scorer.clip else "0"
    for band in bands if len(bands) > 1 else ():
        found.append(Alteration(
            f"{band} only", f"all other bands became {dark}",
            lambda arrays, band=band: one_band(arrays, scorer.branches, scorer.clip, band), band,
        ))  # fmt: skip
    return found


def hide(arrays, branches, radius, *, sources):
    """Put the sky where the lens is, or wherever anything is.

    Args:
        arrays: {branch: float32, shape (batch, side, side, band)}.
        branches: Each with name, side and pixel_scale.
        radius: Of the disc around the center that is hidden, arcsec.
        sources: Whether to hide all pixels more than `SOURCES` standard deviations above the sky
            too, in the band in which they are.

    Returns:
        The same structure. The sky is the median, and its standard deviation that of the lower
        half, of the object's own pixels outside the disc, band by band.
    """
    found = {}
    for branch in branches:
        x = np.asarray(arrays[branch.name], np.float32)
        at = (np.arange(branch.side) - (branch.side - 1) / 2) * branch.pixel_scale
        disc = np.hypot(at[:, None], at) <= radius
        outside = x[:, ~disc].astype(np.float64)  # (batch, pixels, band)
        sky = np.median(outside, axis=1)[:, None, None]
        hidden = np.broadcast_to(disc[..., None], x.shape)
        if sources:
            # 15.87 % of a Gaussian are more than one sd below; sources leave this side alone.
            low = np.quantile(outside, scipy.stats.norm.cdf(-1), axis=1)[:, None, None]
            hidden = hidden | (x > sky + SOURCES * (sky - low))
        found[branch.name] = np.where(hidden, sky, x).astype(np.float32)
    return found


def one_band(arrays, branches, clip, band):
    """Make all bands but one dark.

    Args:
        arrays: {branch: float32, shape (batch, side, side, band)}.
        branches: Each with name and bands.
        clip: {branch: (lower, upper)} of the network; the lower flux of a band is what it cannot
            tell from nothing. Empty if unknown: 0 then.
        band: Which band stays, in every branch that has it.
    """
    found = {}
    for branch in branches:
        x = np.array(arrays[branch.name], np.float32)
        lower = clip[branch.name][0] if clip else np.zeros(len(branch.bands))
        for k, name in enumerate(branch.bands):
            if name != band:
                x[..., k] = np.asarray(lower)[k]
        found[branch.name] = x
    return found


def measure(
    images, network, *, radius=RADIUS, take=None, engine="auto", batch=16, progress=True,
):  # fmt: skip
    """Score labelled images untouched and altered; a batch at a time is in memory.

    Args:
        images: Images with labels.
        network: As `score_shards.open_scorer` takes it.
        radius: Of the masked disc, arcsec.
        take: As for `in_order`.
        engine: As for `networks.lens_logits`.
        batch: Objects in a batch.
        progress: Whether to show a progress bar.

    Returns:
        DataFrame of object_id, label and a column of logits for each test; the list of Alteration;
        the Scorer; and {object_id: CutoutError} of those that could not be used.

    Raises:
        ShortcutError: If there are no labels, or a logit is not finite.
        ImagesError: If a band is missing.
    """
    if "label" not in images.table:
        raise ShortcutError(
            f"{images.source}: found no labels, expected 0 or 1 for each object; give --labels, or "
            "--label-column of a table"
        )
    scorer = score_shards.open_scorer(network, engine)
    tests = alterations(scorer, radius=radius)
    take = taken(images, scorer.branches, in_order(scorer.branches, take, error=ShortcutError))
    rows, left_out = [], {}
    bar = tqdm(range(0, len(images), batch), "shortcut tests", leave=False, disable=not progress)
    for first in bar:
        positions = list(range(first, min(first + batch, len(images))))
        arrays, _, failed = read_for(images, positions, scorer.branches, take=take)
        logits = {t.name: _logits(scorer, t.apply(arrays)) for t in tests}
        for k, position in enumerate(positions):
            one = images.table.iloc[position]
            if k in failed:
                left_out[one["object_id"]] = failed[k]
                continue
            found = {name: float(values[k]) for name, values in logits.items()}
            if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
                raise ShortcutError(
                    f"object_id {one['object_id']}: network {scorer.name} gives the logit "
                    f"{found[wrong[0]]} ({wrong[0]}), expected a finite one; look at its image"
                )
            rows.append({"object_id": one["object_id"], "label": int(one["label"])} | found)
    columns = ["object_id", "label", *(test.name for test in tests)]
    return pd.DataFrame(rows, columns=columns), tests, scorer, left_out


def judge(logits, tests, *, permutations=1000, seed=0):
    """Turn logits into AUCs, intervals, differences and verdicts.

    Args:
        logits: DataFrame of label and a column for each test.
        tests: List of Alteration, the untouched images first.
        permutations: Of the labels.
        seed: Seed or NumPy Generator of these.

    Returns:
        DataFrame of test, how, n, n_lens, auc, low, high, difference (from the untouched images,
        of the same objects), difference_low, difference_high, p (two-sided, of no difference; for
        the shuffled labels one-sided, of no information), verdict and sentence.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988), intervals and differences.
    """
    labels, untouched = logits["label"].to_numpy(), logits[UNTOUCHED].to_numpy()
    counts = {"n": len(labels), "n_lens": int(labels.sum())}
    rows, whole = [], intervals.delong_interval(labels, untouched, level=LEVEL)
    half = float(scipy.stats.norm.ppf((1 + LEVEL) / 2))
    for test in tests:
        auc = metrics.roc_auc(labels, logits[test.name])
        interval = intervals.delong_interval(labels, logits[test.name], level=LEVEL)
        row = {"test": test.name, "how": test.how} | counts
        row |= {"auc": auc, "low": interval.low, "high": interval.high}
        if test.name != UNTOUCHED:
            pair = intervals.delong(labels, logits[test.name], untouched)
            error = half * pair.standard_error
            row |= {"difference": pair.difference, "difference_low": pair.difference - error,
                    "difference_high": pair.difference + error, "p": pair.p}  # fmt: skip
        rows.append(row | {"verdict": _verdict(test, interval, whole, row)})
    rows.append(_shuffled(labels, untouched, permutations, seed) | counts)
    columns = ["test", "how", "n", "n_lens", "auc", "low", "high", "difference", "difference_low",
               "difference_high", "p", "verdict"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(sentence=[_sentence(row) for row in table.to_dict("records")])


def permuted_aucs(labels, scores, *, permutations, seed):
    """Return the AUCs of permuted labels, shape (permutations,).

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        permutations: How many, at least 1.
        seed: Seed or NumPy Generator.
    """
    labels, ranks = np.asarray(labels), scipy.stats.rankdata(scores)
    n_lens, rng = int(labels.sum()), np.random.default_rng(seed)
    sums = np.array([rng.permutation(ranks)[:n_lens].sum() for _ in range(permutations)])
    return (sums - n_lens * (n_lens + 1) / 2) / (n_lens * (len(labels) - n_lens))


def run_tests(
    images, network, folder, *, radius=RADIUS, take=None, engine="auto", batch=16,
    permutations=1000, seed=0, progress=True,
):  # fmt: skip
    """Run all tests and write shortcuts.csv, logits.csv and shortcuts.json.

    Args:
        images: As for `measure`, and so are network, radius, take, engine, batch and progress.
        network: See images.
        folder: Where to.
        radius: See images.
        take: See images.
        engine: See images.
        batch: See images.
        permutations: As for `judge`, and so is seed.
        seed: See permutations.
        progress: See images.

    Returns:
        DataFrame of `judge`.
    """
    logits, tests, scorer, left_out = measure(
        images, network, radius=radius, take=take, engine=engine, batch=batch, progress=progress
    )
    table, folder = judge(logits, tests, permutations=permutations, seed=seed), Path(folder)
    about = {
        "network": scorer.name, "sha256": scorer.sha256, "images": images.source,
        "radius": radius, "permutations": permutations, "seed": seed, "level": LEVEL,
        "verdicts": VERDICTS, "margin": MARGIN, "n_scored": len(logits),
        "left_out": {name: str(error) for name, error in left_out.items()},
    }  # fmt: skip
    safe = logits.assign(object_id=logits["object_id"].map(escape_cell))
    run.write_whole(folder / "logits.csv", csv_text(safe))
    run.write_whole(folder / "shortcuts.csv", csv_text(table))
    run.write_whole(folder / "shortcuts.json", json.dumps(about, indent=1) + "\n")
    return table


def _logits(scorer, arrays):
    return np.asarray(scorer.logits(arrays), np.float64)


def _verdict(test, interval, whole, row):
    """Return the word of `VERDICTS`: the rule."""
    if test.name == UNTOUCHED:
        return ""
    if whole.low <= 0.5:
        return "undecided"
    if test.band:
        if row["difference_low"] > 0:
            return "better alone"
        if interval.low <= 0.5:
            return "nothing alone"
        return "as good alone" if row["difference_high"] >= 0 else "part"
    if interval.low > 0.5:
        return "shortcut"
    if interval.high < 0.5:
        return "reversed"
    return "none seen" if interval.high < 0.5 + MARGIN else "undecided"


def _shuffled(labels, untouched, permutations, seed):
    """Return the row of permuted labels: their mean AUC, and where 95 % of them are."""
    null = permuted_aucs(labels, untouched, permutations=permutations, seed=seed)
    found = metrics.roc_auc(labels, untouched)
    # The labels as they are count as one permutation, so that p is never 0.
    p = (1 + int(np.sum(null >= found - 1e-12))) / (permutations + 1)
    low, high = np.quantile(null, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {
        "test": SHUFFLED, "how": f"{permutations} permutations of the labels, images untouched",
        "auc": float(null.mean()), "low": float(low), "high": float(high),
        "difference": float(null.mean()) - found, "difference_low": float(low) - found,
        "difference_high": float(high) - found, "p": p,
        "verdict": "above chance" if p <= 0.05 else "chance",
    }  # fmt: skip


def _sentence(row):
    """Say a row in words that need no table."""
    auc = f"{row['test']}: AUC {row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    if row["test"] == UNTOUCHED:
        return f"{auc}, {row['n_lens']} lenses and {row['n'] - row['n_lens']} others."
    meaning = {
        "shortcut": "the classes are told apart with the lens hidden: this network reads something "
        "that is not the lens, or the lens reaches beyond what was hidden",
        "none seen": "with the lens hidden the classes are not told apart: no shortcut seen",
        "reversed": "with the lens hidden the order is turned: what is left speaks against a lens",
        "as good alone": "this band alone is not told from all of them",
        "part": "this band carries part of what the network reads",
        "nothing alone": "of this band alone the network reads nothing",
        "better alone": "this band alone does better than all: the others mislead",
        "above chance": f"the untouched AUC is beyond chance (p = {row['p']:.2g})",
        "chance": f"the untouched AUC is within chance (p = {row['p']:.2g})",
        "undecided": "too uncertain to say; more labelled images are needed",
    }[row["verdict"]]
    return f"{auc}; {row['difference']:+.3f} from untouched: {meaning}."
