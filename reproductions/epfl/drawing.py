"""Figure 1 with its logarithmic axis, and figures for the questions the report leaves open."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from cast_lens import figures, scores
from reproductions.epfl.settings import BEST_REPORTED, STUDIED

TITLES = {"table1.row7": "row 7 (Method 1)", "table1.row8": "row 8 (Method 2)"}


def draw(folder, done, scale, data):
    """Draw all figures whose networks were trained.

    Args:
        folder: Of the run.
        done: {name of a network: that of its experiment}.
        scale: The Scale.
        data: Words for the titles, real or stand-in.
    """
    if not done:
        return
    tables = {
        title: scores.read_scores(folder / "networks" / name / "scores.csv")
        for name, title in done.items()
    }
    shown = {name: table for name, table in tables.items() if table["label"].nunique() == 2}
    draw_roc(shown, folder / "figure_1.png", f"Figure 1: ROC of the test set, {data}")
    histories = {
        title: pd.read_csv(folder / "networks" / name / "history.csv")
        for name, title in done.items()
    }
    draw_epochs(histories, folder / "epochs.png", f"AUROC of every epoch, {data}")
    areas = {
        TITLES[name]: areas_by_size(folder / f"batch_size.{name.removeprefix('table1.')}", scale)
        for name in STUDIED
        if name in done
    }
    if areas:
        title = f"Sec. IV.B, question 2: training mode by size of the test batch, {data}"
        draw_sizes(areas, folder / "batch_size.png", title)


def areas_by_size(stem, scale):
    """Return {size: AUROC of every composition} from metrics.csv of the experiments <stem>.b<n>."""
    found = {}
    for size in scale.sizes:
        frame = pd.read_csv(stem.with_name(f"{stem.name}.b{size}") / "metrics.csv")
        found[size] = frame.loc[frame["metric"] == "roc_auc", "value"].to_numpy()
    return found


def draw_roc(tables, path, title):
    """Draw true against false positive rate, the latter logarithmic as in Figure 1.

    Args:
        tables: {name: table of scores}.
        path: PNG to write.
        title: Of the figure.
    """
    figure, axes = figures.figure_with_axes(8.5, 4.8)
    least = 1.0
    for k, (name, table) in enumerate(tables.items()):
        false, true, _ = roc_curve(table["label"], table["score"])
        color, line = figures.COLORS[k % len(figures.COLORS)], ["-", "--", ":"][k // 8 % 3]
        axes.plot(false, true, color=color, ls=line, lw=1.4, label=name, drawstyle="steps-post")
        least = min(least, 1 / (table["label"] == 0).sum())
    rates = np.geomspace(least, 1, 200)
    axes.plot(rates, rates, color="0.5", ls=":", label="knows nothing")
    axes.set_xscale("log")
    axes.set(xlim=(least, 1), ylim=(0, 1.01), xlabel="false positive rate (from one object on)",
             ylabel="true positive rate (completeness)", title=title)  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figures.save(figure, path)


def draw_epochs(histories, path, title):
    """Draw the AUROC of the test set after every epoch of every network.

    Args:
        histories: {name: DataFrame of epoch and roc_auc}.
        path: PNG to write.
        title: Of the figure.
    """
    figure, axes = figures.figure_with_axes(8.5, 4.8)
    for k, (name, history) in enumerate(histories.items()):
        color, marker = figures.COLORS[k % 8], figures.MARKERS[k // 8 % 8]
        axes.plot(history["epoch"], history["roc_auc"], color=color, marker=marker, label=name)
    axes.axhline(0.5, color="0.5", ls=":", label="knows nothing")
    last = max(len(history) for history in histories.values())
    axes.set(xlabel="epoch", ylabel="AUROC of the test set", title=title, xlim=(0.5, last + 0.5))
    axes.set_xticks(range(1, last + 1))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figures.save(figure, path)


def draw_sizes(areas, path, title):
    """Draw the AUROC in training mode against the size of the test batch.

    Args:
        areas: {network: {size: AUROC of every random composition}}.
        path: PNG to write.
        title: Of the figure.
    """
    figure, axes = figures.figure_with_axes(8.5, 4.8)
    for k, (name, of_sizes) in enumerate(areas.items()):
        color, shift = figures.COLORS[k], 1.04 ** (2 * k - 1)  # beside one another
        sizes = np.array(list(of_sizes)) * shift
        mean = [np.mean(each) for each in of_sizes.values()]
        sd = [np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in of_sizes.values()]
        axes.errorbar(sizes, mean, sd, color=color, marker=figures.MARKERS[k], capsize=3,
                      label=name)  # fmt: skip
        for size, each in zip(sizes, of_sizes.values()):
            axes.plot([size] * len(each), each, ".", color=color, alpha=0.4)
    axes.axhline(0.5, color="0.5", ls=":", label="knows nothing")
    axes.axhline(BEST_REPORTED, color="0.3", ls="--", label="reported, Method 2, batches of 8")
    axes.set_xscale("log", base=2)
    labels = sorted({size for of_sizes in areas.values() for size in of_sizes})
    axes.set_xticks(labels, map(str, labels))
    axes.set(xlabel="objects in a test batch (bars: sd of random compositions)",
             ylabel="AUROC of the test set", title=title)  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figures.save(figure, path)
