"""Sec. 6, adaptability: the network of Euclid-like images on the ground-based images of I SGLC.

Beside the paper's experiment, that of the authors' notebook TransferLearning_example_challenge1: it
resizes without interpolation, has VIS with two null arrays although it begins with a network that
was trained with VIS repeated, scales every band by the extremes of all images, those of the test
among them, augments nothing, and tests one network on all objects that are left.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from cast_lens import checkpoints, folds, pixel_statistics, run, scores
from cast_lens.pack import Pack
from reproductions.sglc2.network import Networks, set_bounds
from reproductions.sglc2.settings import ADAPT, CLIPPINGS, HEADLINE, Config, word
from reproductions.sglc2.survey import in_batches
from reproductions.sglc2.training import fit, score

GROUPS = 10  # Sec. 6: test groups of 2,000 each
# Sec. 6: r stands alone, for VIS; u, g and i take the places of H, J and Y.
# ASSUMED: in this order, which the paper leaves open; positions in the pack's u, g, r, i
BRANCHES = {"vis": (200, [2]), "nir": (66, [0, 1, 3])}
EPOCHS, BATCH = 10, 50  # authors' notebook
NOTEBOOK_N = 150  # authors' notebook: n_img
EXTREMES = (0.0, 100.0)  # authors' notebook: percentiles that become 0 and 1


@dataclass(frozen=True, eq=False)
class Resized:
    """Ground-based images as the two branches want them, a source for `dataset.from_pack`.

    Attributes:
        pack: Of the I SGLC, ground; input "ugri", 101 x 101 pixels.
        interpolation: Of OpenCV: INTER_LINEAR, its default (Sec. 6: "a standard routine"), or
            INTER_NEAREST (authors' notebook).
    """

    pack: Pack
    interpolation: int = cv2.INTER_LINEAR

    @property
    def catalog(self):
        """The pack's catalog."""
        return self.pack.catalog

    def batch(self, name, positions):
        """Return images, float32, maggies, shape (batch, 200, 200, 1) or (batch, 66, 66, 3)."""
        size, bands = BRANCHES[name]
        images = self.pack.batch("ugri", positions)[..., bands]
        resized = [cv2.resize(i, (size, size), interpolation=self.interpolation) for i in images]
        return np.stack(resized).reshape(len(images), size, size, len(bands))


@dataclass(frozen=True, eq=False)
class Trial:
    """A network on ground-based images: where it begins, and what it is shown.

    Attributes:
        experiment: Name; with `group`, that of the folder for what comes of it.
        group: Number that the order of the objects depends on.
        config: Its Config.
        bounds: {input: (lower, upper)} fluxes that become 0 and 1.
        start: File of the weights to begin with, or None for random ones.
        parts: {"train": rows, "test": rows that choose the epoch}; None to apply it as it is.
        tested: Rows that are scored.
        augmented: Whether objects are turned, mirrored and zoomed in training.
    """

    experiment: str
    group: int
    config: Config
    bounds: dict[str, np.ndarray]
    start: Path | None
    parts: dict[str, np.ndarray] | None
    tested: np.ndarray
    augmented: bool = True


def run_adapt(ground, sizes, n_groups, base, seed, networks, folder):
    """Apply, fine-tune and train from scratch, each group and size once; return the scores.

    Args:
        ground: The Pack of the I SGLC, ground.
        sizes: Numbers of training images, 0 for none; as many more choose the epoch. If those of
            the authors' notebook, 150, are among them, its experiment is run too.
        n_groups: Groups that are tested.
        base: The Config of the cell of Table 1 to start from.
        seed: Of the run.
        networks: The Networks.
        folder: Of the run, where that cell was trained.

    Returns:
        {"transfer.n40": scores, "scratch.n40": scores, ...}, one run a group, and
        "transfer.n150.notebook", one run.
    """
    source = Resized(ground)
    config = replace(base, epochs=EPOCHS, batch=BATCH, initial="random")
    found: dict[str, list] = {}
    groups = folds.k_fold(ground.catalog, GROUPS, seed=word(seed, ADAPT), stratify=False)
    best = best_fold(folder)
    for group, part in enumerate(groups[:n_groups]):
        path = folder / "adapt" / f"bounds{group}.csv"
        bounds = bounds_of(source, part["train"], CLIPPINGS["alternative"], path)
        for start in ("transfer", "scratch"):
            for n in sizes if start == "transfer" else [size for size in sizes if size]:
                chosen, _ = draw(part["train"], n, [seed, group, n, ADAPT])
                trial = Trial(
                    f"{start}.n{n}", group, config, bounds, best if start == "transfer" else None,
                    chosen, part["test"],
                )  # fmt: skip
                key = [seed, n, group, start == "scratch", ADAPT]
                table = run_trial(trial, source, key, networks, folder)
                found.setdefault(trial.experiment, []).append(table)
    if NOTEBOOK_N in sizes:
        found[f"transfer.n{NOTEBOOK_N}.notebook"] = [run_notebook(ground, config, seed, folder)]
    return {name: pd.concat(tables) for name, tables in found.items()}


def run_notebook(ground, base, seed, folder):
    """Fine-tune and test as the authors' notebook does (see the module); return the scores."""
    source, key = Resized(ground, cv2.INTER_NEAREST), [seed, NOTEBOOK_N, GROUPS, ADAPT]
    everything = np.arange(len(ground.catalog))
    chosen, rest = draw(everything, NOTEBOOK_N, key)
    path = folder / "adapt" / "bounds_notebook.csv"
    trial = Trial(
        f"transfer.n{NOTEBOOK_N}.notebook", GROUPS, replace(base, inputs="hjy_vis_zeros"),
        bounds_of(source, everything, EXTREMES, path), best_fold(folder), chosen, rest,
        augmented=False,
    )  # fmt: skip
    networks = Networks()  # of its own: what is compiled augments, or it does not
    return run_trial(trial, source, key, networks, folder)


def draw(rows, n, key):
    """Draw rows to train on and as many to choose the epoch by; return both, and those left."""
    order = np.random.default_rng(key).permutation(rows)
    parts = {"train": np.sort(order[:n]), "test": np.sort(order[n : 2 * n])}
    return (parts if n else None), np.sort(order[2 * n :])


def run_trial(trial, source, key, networks, folder):
    """Train a network as the Trial says and score it, unless that was done; return the scores.

    Args:
        trial: The Trial.
        source: The Resized.
        key: List of integers that the network's random numbers come from; the first is the seed of
            the run.
        networks: The Networks.
        folder: Of the run; this trial has adapt/<experiment>/group<k> for itself.
    """
    here = folder / "adapt" / trial.experiment / f"group{trial.group}"
    if not (here / "scores.csv").exists():
        model, n_train = networks.get(trial.config, key), 0
        if not trial.augmented:
            layer = model.get_layer("augment")
            layer.rotation, layer.mirror, layer.zoom = 0.0, False, (1.0, 1.0)
        if trial.start:
            checkpoints.read_weights(model, trial.start)
        set_bounds(model, trial.bounds)
        if trial.parts:
            n_train = len(trial.parts["train"])
            fit(model, trial.config, source, trial.parts, seed=key[0], fold=trial.group, here=here)
        about = {"run_key": trial.group, "n_train": n_train}
        table = score(model, trial.config, source, trial.tested, **about)
        scores.write_scores(table, here / "scores.csv")
        for name in (checkpoints.STATE, checkpoints.BEST):
            (here / name).unlink(missing_ok=True)
    return scores.read_scores(here / "scores.csv")


def best_fold(folder):
    """Return the weights of the fold of lowest validation loss of the headline cell."""
    histories = sorted((folder / "folds" / HEADLINE).glob("fold*/history.csv"))
    if not histories:
        raise run.RunError(f"{folder}: {HEADLINE} is not trained yet, and Sec. 6 begins with it")
    lowest = min(histories, key=lambda path: pd.read_csv(path)["val_loss"].min())
    return lowest.with_name(checkpoints.BEST)


def bounds_of(source, rows, percents, path):
    """Return {input: (lower, upper)}, percentiles of the pixels of some objects, kept in a file."""
    if not path.exists():
        tables = []
        for name in BRANCHES:
            batches = partial(in_batches, source, name, rows)
            values = pixel_statistics.percentiles(batches, percents)
            tables.append(pd.DataFrame(values).add_prefix(f"{name}_"))
        text = pd.concat(tables, axis=1).to_csv(index=False, lineterminator="\n")
        run.write_whole(path, text)
    found = pd.read_csv(path)
    return {name: found.filter(regex=f"^{name}_").to_numpy() for name in BRANCHES}
