"""Figures 7, 8 and 9, the like-for-like comparison, and the real cutouts with their scores."""

import numpy as np
import pandas as pd

from cast_lens import curves
from cast_lens.figures import COLORS, figure_with_axes, save
from reproductions.nottingham import data
from reproductions.nottingham.settings import CELLS, INPUT, STATISTICS


def draw(folder, survey, found, compared, real):
    """Draw what was run.

    Args:
        folder: Of the run.
        survey: The Survey.
        found: {experiment: table of scores}.
        compared: Table of `comparison.compare_pairs`.
        real: {cell: table of scores of the real cutouts}.
    """
    tested = {name: table[table["run"] == table["run"].iloc[0]] for name, table in found.items()
              if name in ("efficientnet_b0", "lastro", "lastro.original")}  # fmt: skip
    tested = {name: table for name, table in tested.items() if table["label"].nunique() == 2}
    if tested:
        curves.roc_and_precision_recall(
            tested, folder / "figure_7.png",
            title=f"Figure 7: first training of each, {survey.title}",
        )  # fmt: skip
    for name in CELLS:
        path = folder / name / "history.csv"
        if path.exists() and name in ("efficientnet_b0", "lastro", "lastro.original"):
            suffix = "" if name == "efficientnet_b0" else f"_{name.replace('.', '_')}"
            epochs(pd.read_csv(path, dtype={"run": str}), folder / f"figure_8{suffix}.png",
                   title=f"Figure 8: {name}, {survey.title}")  # fmt: skip
    if "efficientnet_b0" in found:
        rates(found["efficientnet_b0"], folder / "figure_9.png",
              title=f"Figure 9: efficientnet_b0, {survey.title}")  # fmt: skip
    if len(compared):
        like_for_like(compared, folder / "like_for_like.png",
                      title=f"Like for like, {survey.title}")  # fmt: skip
    source = data.real_cutouts(data.real_place())
    if real and source is not None:
        cutouts(source, real, folder / "real_cutouts.png",
                title=f"Real cutouts, networks trained on {survey.title}")  # fmt: skip


def epochs(history, path, *, title):
    """Draw the AUROC of training and test objects after each epoch, a line a training.

    Args:
        history: DataFrame of run, epoch, auc and val_auc.
        path: PNG to write.
        title: Names the figure and the data, real or stand-in.
    """
    figure, axes = figure_with_axes(6.4, 4.4)
    names = {"auc": "training, while it is augmented and learned", "val_auc": "test"}
    for k, (column, label) in enumerate(names.items()):
        for place, (_, part) in enumerate(history.groupby("run", sort=False)):
            axes.plot(part["epoch"], part[column], "-" if k else "--", color=COLORS[k], alpha=0.7,
                      lw=1.2, label=label if place == 0 else None)  # fmt: skip
    axes.set(xlabel="epoch", ylabel="AUROC")
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def rates(table, path, *, title):
    """Draw the share of lenses and of non-lenses that are told right, by the threshold.

    Args:
        table: Table of scores, all trainings.
        path: PNG to write.
        title: Names the figure and the data, real or stand-in.
    """
    figure, axes = figure_with_axes(6.4, 4.4)
    thresholds = np.linspace(0, 1, 201)
    for k, (label, name) in enumerate({1: "lenses", 0: "non-lenses"}.items()):
        for place, (_, part) in enumerate(table[table["label"] == label].groupby("run")):
            called = part["score"].to_numpy()[:, None] >= thresholds
            right = (called if label else ~called).mean(axis=0)
            axes.plot(thresholds, right, "-" if label else "--", color=COLORS[k], alpha=0.7, lw=1.2,
                      label=name if place == 0 else None)  # fmt: skip
    axes.axvline(0.5, color="0.5", ls=":", lw=0.8)
    axes.set(xlabel="threshold t", ylabel="share told right", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def like_for_like(compared, path, *, title):
    """Draw the mean difference of AUROCs of each pair with both its intervals.

    Args:
        compared: Table of `comparison.compare_pairs`.
        path: PNG to write.
        title: Names the data, real or stand-in.
    """
    figure, axes = figure_with_axes(7.6, 1.4 + 0.7 * len(compared))
    kinds = {"objects": "over the test objects", "runs": "over the trainings"}
    for k, (kind, label) in enumerate(kinds.items()):
        low, high = (compared[f"{end}_{kind}"].to_numpy(float) for end in ("low", "high"))
        y = np.arange(len(compared)) + (k - 0.5) * 0.2
        axes.hlines(y, low, high, color=COLORS[k], lw=2, label=f"95 % {label}")
        axes.plot(compared["difference"], y, "o", color=COLORS[k], ms=5)
    axes.axvline(0, color="0.5", ls=":")
    pairs = compared["network"] + "\nminus " + compared["other"]
    axes.set_yticks(range(len(compared)), pairs, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference of AUROC, mean of the trainings")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def cutouts(source, real, path, *, title):
    """Draw the real cutouts with labels and mean scores.

    Args:
        source: Of `data.real_cutouts`.
        real: {cell: table of scores of these}.
        path: PNG to write.
        title: Says what the networks were trained on.
    """
    catalog = source.catalog
    figure, panels = figure_with_axes(2.1 * len(catalog), 2.6 + 0.2 * len(real), len(catalog))
    images = source.batch(INPUT, np.arange(len(catalog)))[..., 0]
    for axes, image, (_, one) in zip(np.atleast_1d(panels), images, catalog.iterrows()):
        axes.imshow(np.arcsinh(image / STATISTICS[1]), cmap="gray", origin="lower")
        axes.set_axis_off()
        lines = [one["object_id"], "lens" if one["label"] else "no lens"]
        for cell, table in real.items():
            score = table.loc[table["object_id"] == one["object_id"], "score"].mean()
            lines.append(f"{cell} {score:.2f}")
        axes.set_title("\n".join(lines), fontsize=7)
    figure.suptitle(title, fontsize=11)
    save(figure, path)
