"""Figures 1 to 10 of the report, and those of what it leaves out."""

import numpy as np
import pandas as pd
from sklearn.metrics import auc, roc_curve

from cast_lens import curves
from cast_lens.figures import COLORS, figure_with_axes, save
from reproductions.deeplense import measures
from reproductions.deeplense.settings import CLASSES, EXPERIMENTS

# Figures of each task: samples, training, ROC, confusion, predictions.
FIGURES = {1: (1, 2, 3, 4, 5), 2: (6, 7, 8, 9, 10)}
SHOWN = 6  # ASSUMED: images in a row, the report does not count them


def draw_samples(survey, rows, folder):
    """Draw Figure 1 or 6: some objects of each class, a row a class."""
    number, names = FIGURES[survey.task][0], CLASSES[survey.task]
    places, words = [], []
    for label, name in enumerate(names):
        chosen = rows[survey.labels[rows] == label][:SHOWN]
        places.append(chosen)
        words.append([name.replace("_", " ")] * len(chosen))
    title = f"Figure {number}: objects of Task {survey.task}, {survey.title}"
    _grid(survey, places, words, folder / f"figure_{number}.png", title)


def draw_predictions(survey, one, folder, name):
    """Draw Figure 5 or 10: some test objects of each class, with what the network says of them."""
    number = FIGURES[survey.task][4]
    row_of = pd.Series(range(len(survey.pack.catalog)), index=survey.pack.catalog["object_id"])
    places, words = [], []
    for label in range(len(one.names)):
        chosen = np.flatnonzero(one.truth == label)[:SHOWN]
        places.append(row_of[one.object_ids[chosen]].to_numpy())
        words.append([
            f"{one.names[label]}:\n{one.names[one.called[k]]} {one.probabilities[k].max():.2f}"
            for k in chosen
        ])  # fmt: skip
    title = f"Figure {number}: truth, and what {name} calls it, {survey.title}"
    _grid(survey, places, words, folder / f"figure_{number}.png", title)


def draw_results(folder, found, kinds):
    """Draw what comes from scores and histories, as far as it was run.

    Args:
        folder: Of the run.
        found: {experiment: {"scored": {part: Scored}, "history": DataFrame}}.
        kinds: {task: "real" or "stand-in"}.
    """
    for name, one in found.items():
        task = EXPERIMENTS[name].task
        _, training, roc, confused, _ = FIGURES[task]
        word = "" if name == f"task{task}.report" else f"_{name.replace('.', '_')}"
        end = f"{name}, {_data(kinds[task])}"
        draw_training(one["history"], folder / f"figure_{training}{word}.png",
                      f"Figure {training}: training of {end}")  # fmt: skip
        draw_roc(one["scored"]["test"], folder / f"figure_{roc}{word}.png",
                 f"Figure {roc}: {end}")  # fmt: skip
        draw_confusion(one["scored"]["test"], folder / f"figure_{confused}{word}.png",
                       f"Figure {confused}: {end}")  # fmt: skip
    for task, kind in kinds.items():
        tests = {name: one["scored"]["test"] for name, one in found.items()
                 if EXPERIMENTS[name].task == task}  # fmt: skip
        if tests:
            draw_reliability(tests, folder / f"calibration_task{task}.png",
                             f"Calibration, Task {task}, {_data(kind)}")  # fmt: skip
        if tests and task == 2:
            tables = {name: pd.DataFrame({"label": one.truth, "score": one.probabilities[:, 1]})
                      for name, one in tests.items()}  # fmt: skip
            curves.roc_and_precision_recall(
                tables, folder / "purity_task2.png", title=f"Task 2, test, {_data(kind)}"
            )


def draw_training(history, path, title):
    """Draw losses and accuracies by epoch."""
    figure, panels = figure_with_axes(9.6, 4.2, 2)
    for axes, (word, ylabel) in zip(panels, (("loss", "cross-entropy, nats"),
                                             ("accuracy", "accuracy"))):  # fmt: skip
        for k, (column, name) in enumerate(((word, "training"), (f"val_{word}", "validation"))):
            axes.plot(history["epoch"], history[column], "o-", ms=3, color=COLORS[k], label=name)
        axes.set(xlabel="epoch", ylabel=ylabel)
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_roc(one, path, title):
    """Draw the ROC curve of each class against the rest; of two classes, of the second."""
    figure, axes = figure_with_axes(5.4, 4.8)
    for k, name in enumerate(one.names):
        labels = one.truth == k
        if (len(one.names) == 2 and k == 0) or labels.all() or not labels.any():
            continue
        false, true, _ = roc_curve(labels, one.probabilities[:, k])
        label = f"{name.replace('_', ' ')}, {auc(false, true):.3f}"
        axes.plot(false, true, color=COLORS[k], label=label)
    axes.plot([0, 1], [0, 1], color="0.5", ls=":", lw=0.8)
    axes.set(xlabel="false positive rate", ylabel="true positive rate (completeness)")
    axes.legend(frameon=False, fontsize=9, title="area")
    axes.set_title(title, fontsize=10)
    save(figure, path)


def draw_confusion(one, path, title):
    """Draw the confusion matrix: counts, shaded by the share of the true class."""
    counts = measures.confusion(one)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    figure, axes = figure_with_axes(5.2, 4.6)
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{counts.iat[row, column]}\n{share:.1%}", ha="center",
                  va="center", color="white" if share > 0.5 else "black", fontsize=9)  # fmt: skip
    words = [name.replace("_", "\n") for name in one.names]
    axes.set_xticks(range(len(words)), words)
    axes.set_yticks(range(len(words)), words)
    axes.set(xlabel="called", ylabel="truth")
    axes.set_title(title, fontsize=10)
    save(figure, path)


def draw_reliability(tests, path, title):
    """Draw accuracy against confidence of several experiments; of two classes, of the second."""
    figure, axes = figure_with_axes(6.0, 5.0)
    for k, (name, one) in enumerate(tests.items()):
        table, error = measures.reliability(one), measures.calibration_error(one)
        axes.plot(table["confidence"], table["accuracy"], "o-", ms=4, lw=1, label=f"{name}, "
                  f"{error:.3f}", color=COLORS[k % len(COLORS)])  # fmt: skip
    axes.plot([0, 1], [0, 1], color="0.5", ls=":", lw=0.8)
    axes.set(xlabel="mean confidence of a bin", ylabel="share that is so")
    axes.legend(frameon=False, fontsize=8, title="calibration error")
    axes.set_title(title, fontsize=11)
    save(figure, path)


def draw_diagnosis(table, path, about):
    """Draw the area under the ROC curve of each configuration of the diagnosis."""
    if not len(table):
        return
    figure, axes = figure_with_axes(8.0, 1.2 + 0.28 * len(table))
    places = np.arange(len(table))[::-1]
    kinds = list(dict.fromkeys(name.partition(".")[0] for name in table["name"]))
    for place, (_, row) in zip(places, table.iterrows()):
        color = COLORS[kinds.index(row["name"].partition(".")[0]) % len(COLORS)]
        axes.plot([row["low"], row["high"]], [place, place], color=color, lw=1.5)
        axes.plot(row["roc_auc"], place, "o", color=color, ms=5)
    axes.axvline(0.5, color="0.5", ls=":")
    axes.set_xlim(0.3, 1.02)
    axes.set_yticks(places, table["name"], fontsize=8)
    axes.set_xlabel("area under the ROC curve, mean of the classes (bars: 95 % over the seeds)")
    axes.set_title(f"One change at a time: {about}", fontsize=10)
    save(figure, path)


def _data(kind):
    return "real data" if kind == "real" else "STAND-IN DATA"


def _grid(survey, places, words, path, title):
    """Draw objects of a pack, a row each list of places."""
    figure, panels = figure_with_axes(1.7 * SHOWN, 2.1 * len(places), SHOWN * len(places))
    figure.clear()
    panels = figure.subplots(len(places), SHOWN)
    for axes in panels.ravel():
        axes.axis("off")
    for of_row, chosen, titles in zip(panels, places, words):
        if not len(chosen):
            continue
        for axes, image, text in zip(of_row, survey.pack.batch("image", chosen), titles):
            low, high = np.percentile(image, [0.5, 99.8])
            shown = np.clip((image - low) / max(high - low, 1e-30), 0, 1)
            shown = shown[..., 0] if shown.shape[-1] == 1 else shown[..., ::-1]  # i, r, g
            axes.imshow(shown, cmap="gray", origin="lower")
            axes.set_title(text, fontsize=7)
    figure.suptitle(title, fontsize=11)
    save(figure, path)
