"""Sec. 6, adaptability: the network of Euclid-like images on the ground-based images of I SGLC."""

from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import pandas as pd

from cast_lens import checkpoints, folds, pixel_statistics, run, scores
from cast_lens.pack import Pack
from reproductions.sglc2.network import set_bounds
from reproductions.sglc2.settings import ADAPT, CLIPPINGS, HEADLINE, word
from reproductions.sglc2.survey import in_batches
from reproductions.sglc2.training import fit, score

GROUPS = 10  # Sec. 6: test groups of 2,000 each
# Sec. 6: r stands alone, for VIS; u, g and i take the places of H, J and Y.
# ASSUMED: in this order, which the paper leaves open; positions in the pack's u, g, r, i
BRANCHES = {"vis": (200, [2]), "nir": (66, [0, 1, 3])}
EPOCHS, BATCH = 10, 50  # authors' notebook


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


def run_adapt(ground, sizes, n_groups, base, seed, networks, folder):
    """Apply, fine-tune and train from scratch, each group and size once; return the scores.

    Args:
        ground: The Pack of the I SGLC, ground.
        sizes: Numbers of training images, 0 for none; as many more choose the epoch.
        n_groups: Groups that are tested.
        base: The Config of the cell of Table 1 to start from.
        seed: Of the run.
        networks: The Networks.
        folder: Of the run, where that cell was trained.

    Returns:
        {"transfer.n40": scores, "scratch.n40": scores, ...}, one run a group.
    """
    source = Resized(ground)
    found: dict[str, list] = {}
    parts = folds.k_fold(ground.catalog, GROUPS, seed=word(seed, ADAPT), stratify=False)
    best = best_fold(folder)
    for group, part in enumerate(parts[:n_groups]):
        bounds = group_bounds(source, part["train"], folder / "adapt" / f"bounds{group}.csv")
        for start in ("transfer", "scratch"):
            for n in sizes if start == "transfer" else [size for size in sizes if size]:
                here = folder / "adapt" / f"{start}.n{n}" / f"group{group}"
                if not (here / "scores.csv").exists():
                    config = replace(base, epochs=EPOCHS, batch=BATCH, initial="random")
                    model = networks.get(config, [seed, n, group, start == "scratch", ADAPT])
                    if start == "transfer":
                        checkpoints.read_weights(model, best)
                    set_bounds(model, bounds)
                    if n:
                        rng = np.random.default_rng([seed, group, n, ADAPT])
                        rows = rng.permutation(part["train"])[: 2 * n]
                        chosen = {"train": np.sort(rows[:n]), "test": np.sort(rows[n:])}
                        fit(model, config, source, chosen, seed=seed, fold=group, here=here)
                    table = score(model, config, source, part["test"], run_key=group, n_train=n)
                    scores.write_scores(table, here / "scores.csv")
                    for name in (checkpoints.STATE, checkpoints.BEST):
                        (here / name).unlink(missing_ok=True)
                table = scores.read_scores(here / "scores.csv")
                found.setdefault(f"{start}.n{n}", []).append(table)
    return {name: pd.concat(tables) for name, tables in found.items()}


def best_fold(folder):
    """Return the weights of the fold of lowest validation loss of the headline cell."""
    histories = sorted((folder / "folds" / HEADLINE).glob("fold*/history.csv"))
    if not histories:
        raise run.RunError(f"{folder}: {HEADLINE} is not trained yet, and Sec. 6 begins with it")
    lowest = min(histories, key=lambda path: pd.read_csv(path)["val_loss"].min())
    return lowest.with_name(checkpoints.BEST)


def group_bounds(source, rows, path):
    """Return {input: (lower, upper)} by the pixels of all objects that may be trained on."""
    if not path.exists():
        tables = []
        for name in BRANCHES:
            values = pixel_statistics.percentiles(
                partial(in_batches, source, name, rows), CLIPPINGS["alternative"]
            )
            tables.append(pd.DataFrame(values).add_prefix(f"{name}_"))
        text = pd.concat(tables, axis=1).to_csv(index=False, lineterminator="\n")
        run.write_whole(path, text)
    found = pd.read_csv(path)
    return {name: found.filter(regex=f"^{name}_").to_numpy() for name in BRANCHES}
