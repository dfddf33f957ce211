"""SCALE=calibration: how hard the images are, asked of a network that two CPU cores can train.

Paper scale needs a GPU, and a stand-in is worth as much as what can be learned from it. So a
residual network of ours learns from all lenses, and is held against the headline of Table 1 and
against where Sec. 5 sees scores leave chance and reach the full level. What it reaches the images
hold; what it does not reach, a larger network or more epochs may.
"""

import numpy as np
import pandas as pd

from cast_lens import figures, intervals, metrics, report, run
from cast_lens import table as tables
from reproductions.sglc2.limits import detection_limits, level, onsets
from reproductions.sglc2.settings import HEADLINE

REPORTED = {  # {what is asked: experiment and metric of reported.csv}
    "roc_auc": (f"table1.{HEADLINE}", "roc_auc"),
    "above_chance": ("npix", "chance_below_n_pix"),
    "full_level": ("npix", "full_level_above_n_pix"),
}
COLUMNS = ["least N_pix", "lenses", "ROC AUC", "low", "high"]


def write(folder, found, survey, seed, reproductions):
    """Write calibration.md, calibration.csv and calibration.png of a run, and print the page.

    Args:
        folder: Of the run.
        found: Of `training.run_cell`.
        survey: The Survey.
        seed: Of the run.
        reproductions: Folder of reported.csv.
    """
    test, catalog = found["test80k"].reset_index(drop=True), survey.pack.catalog
    bins = {
        int(name.removeprefix("npix.bin")): part
        for name, part in detection_limits(test, catalog, seed).items()
    }
    full = area(test)
    begins, reaches = onsets({low: level(part) for low, part in bins.items()}, level(test))
    numbers = dict(zip(("roc_auc", "low", "high"), full)) | {
        "above_chance": begins, "full_level": reaches, "n_test": len(test),
        "n_train": len(survey.parts[0]["train"]), "epochs": int(found["history"]["epoch"].max()),
    }  # fmt: skip
    rows = [(low, int(part["label"].sum()), *area(part)) for low, part in bins.items()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    run.write_whole(folder / "calibration.csv", table.to_csv(index=False, lineterminator="\n"))
    shown = table.assign(**{name: table[name].map("{:.3f}".format) for name in COLUMNS[2:]})
    told = paragraph(numbers, reported(reproductions), survey.title)
    page = f"{told}\n{report.markdown(shown.astype(str))}"
    draw(table, full, folder / "calibration.png", survey.title)
    run.write_whole(folder / "calibration.md", page)
    print(page)


def area(scored):
    """Return the area under the ROC curve of a table of scores, and its 95 % interval."""
    labels, values = scored["label"].to_numpy(), scored["score"].to_numpy()
    if min(labels.sum(), len(labels) - labels.sum()) < 2:
        return np.nan, np.nan, np.nan
    return metrics.roc_auc(labels, values), *intervals.delong_interval(labels, values)


def reported(reproductions):
    """Return {what is asked: number}, "uncertainty" of the area, "tolerance" of N_pix."""
    table = tables.read(reproductions / "reported.csv")
    rows = {
        key: tables.cell(table, "sglc2", experiment, metric).iloc[0]
        for key, (experiment, metric) in REPORTED.items()
    }
    found = {key: float(row["value"]) for key, row in rows.items()}
    words = {"uncertainty": ("roc_auc", "uncertainty"), "tolerance": ("above_chance", "tolerance")}
    return found | {word: float(rows[key][column]) for word, (key, column) in words.items()}


def paragraph(ours, theirs, about):
    """Return what was found as one paragraph of Markdown.

    Args:
        ours: {"roc_auc", "low", "high", "above_chance", "full_level", "n_train", "n_test",
            "epochs"}; the two places are None where scores never get there.
        theirs: Of `reported`.
        about: What the data were, a phrase.
    """
    lower, upper = (theirs["roc_auc"] + sign * theirs["uncertainty"] for sign in (-1, 1))
    if ours["high"] < lower:
        verdict = "harder than the challenge, or not yet learned: this network does not tell which"
    elif ours["low"] > upper:
        verdict = "easier than the challenge"
    else:
        verdict = "as hard as the challenge, as far as this network tells"
    begins = ours["above_chance"]
    if begins is not None and begins < theirs["above_chance"] - theirs["tolerance"]:
        verdict += "; the faintest arcs are found more easily"
    places = " and ".join(
        f"{does} {'nowhere' if ours[key] is None else f'from N_pix = {ours[key]} on'} "
        f"(paper: {theirs[key]:.0f})"
        for key, does in (("above_chance", "leave chance"), ("full_level", "are at the full level"))
    )
    return (
        f"**The images are {verdict}.** On {about}, a small residual network of ours, after "
        f"{ours['epochs']} epochs of {ours['n_train']:,} objects, has a ROC AUC of "
        f"{ours['roc_auc']:.3f} [{ours['low']:.3f}, {ours['high']:.3f}] on {ours['n_test']:,} "
        f"others; the headline of the paper, two EfficientNet-B2 on the challenge's own images, is "
        f"{theirs['roc_auc']:.4f} with a standard deviation of {theirs['uncertainty']:.4f} over "
        f"ten trainings. Scores {places}.\n"
    )


def draw(table, full, path, about):
    """Draw the areas of the bins of N_pix beside that of all objects, with 95 % intervals."""
    figure, axes = figures.figure_with_axes(6.4, 4.4)
    low, middle, high = (table[name].to_numpy() for name in ("low", "ROC AUC", "high"))
    axes.errorbar(
        table["least N_pix"], middle, [middle - low, high - middle], fmt="o-", capsize=3,
        markersize=5, color=figures.COLORS[0], label="lenses of a bin",
    )  # fmt: skip
    axes.axhline(full[0], color=figures.COLORS[1], label="all lenses")
    axes.axhspan(*full[1:], color=figures.COLORS[1], alpha=0.2, lw=0)
    axes.axhline(0.5, color="0.5", ls=":", label="knows nothing")
    axes.set(xlabel="least N_pix of the lenses", ylabel="ROC AUC")
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle(f"Calibration, {about}\n95 % intervals (DeLong)", fontsize=11)
    figures.save(figure, path)
