"""Figures of a run, from its metrics and the images of its survey."""

import re

import numpy as np
import pandas as pd

from cast_lens import curves, scores
from reproductions.sglc2 import stamps
from reproductions.sglc2.limits import n_pix_of
from reproductions.sglc2.settings import ALL, BANDS, CLIPPINGS, DRAWN, HEADLINE, INPUTS
from reproductions.sglc2.survey import constants


def draw(folder, survey, frames):
    """Draw all figures but the ninth, as far as what they show was run.

    Args:
        folder: Of the run.
        survey: The Survey.
        frames: {experiment: table of metrics}.
    """
    stamps.draw_stamps(folder, survey)
    draw_pixels(folder, survey)
    draw_cells(folder, survey, frames)
    draw_losses(folder, survey)
    draw_tested(folder, survey, frames)
    draw_limits(folder, survey, frames)
    draw_adapted(folder, survey, frames)


def draw_cells(folder, survey, frames):
    """Draw Table 1, and Figures 6 and 7: numbers of every cell."""
    cells = {name.partition(".")[2]: frame for name, frame in frames.items()
             if name.startswith("table1.")}  # fmt: skip
    series = {"figure_6": {"val_loss_drop": "initial minus lowest validation loss"},
              "figure_7": {"loss_gap_last_epoch": "validation minus training loss, last epoch",
                           "loss_gap_best_epoch": "validation minus training loss, best epoch"},
              "table_1": {"roc_auc": "ROC AUC", "pr_auc": "average precision",
                          "max_f_beta_0.001": "largest F_beta, beta^2 = 0.001"}}  # fmt: skip
    for figure, ylabels in series.items():
        values = {
            metric: {
                clipping: {
                    inputs: values_of(cells[f"{inputs}.{clipping}"], metric)
                    for inputs in INPUTS
                    if f"{inputs}.{clipping}" in cells
                }
                for clipping in CLIPPINGS
            }
            for metric in ylabels
        }
        title = f"{figure.replace('_', ' ').capitalize()}, {survey.title}"
        curves.series_with_errors(
            values, folder / f"{figure}.png", xlabel="input", ylabels=ylabels, order=tuple(INPUTS),
            chance={"roc_auc": 0.5}, title=title,
        )  # fmt: skip


def draw_losses(folder, survey):
    """Draw the losses of every epoch, a figure a pre-processing (Sec. 4.1)."""
    for clipping in CLIPPINGS:
        histories = {
            inputs: pd.read_csv(path)
            for inputs in INPUTS
            if (path := folder / f"table1.{inputs}.{clipping}" / "history.csv").exists()
        }
        values = {
            metric: {
                inputs: {epoch: one[metric] for epoch, one in history.groupby("epoch")}
                for inputs, history in histories.items()
            }
            for metric in ("loss", "val_loss")
        }
        if histories:
            curves.series_with_errors(
                values, folder / f"losses_{clipping}.png", xlabel="epoch",
                ylabels={"loss": "training loss", "val_loss": "validation loss"},
                chance=dict.fromkeys(values, np.log(2)),
                title=f"Losses, pre-processing {clipping}, {survey.title}",
            )  # fmt: skip


def draw_tested(folder, survey, frames):
    """Draw Figure 8: best and fifth best fold on the independent test, a figure a cell."""
    for cell in ALL:
        names = [f"test80k.{cell}.{word}" for word in ("best_fold", "fifth_fold")]
        tested = {
            name.removeprefix("test80k."): scores.read_scores(folder / name / "scores.csv")
            for name in names
            if name in frames
        }
        path = folder / ("figure_8.png" if cell == HEADLINE else f"figure_8_{cell}.png")
        title = f"Figure 8: independent test, {survey.title}"
        if tested:
            curves.roc_and_precision_recall(tested, path, title=title)


def draw_limits(folder, survey, frames):
    """Draw Figure 11: metrics by the N_pix of the lenses."""
    bins = {int(name.removeprefix("npix.bin")): frame for name, frame in frames.items()
            if name.startswith("npix.")}  # fmt: skip
    if bins:
        of_bins = {metric: {HEADLINE: {low: values_of(bins[low], metric) for low in sorted(bins)}}
                   for metric in DRAWN}  # fmt: skip
        curves.series_with_errors(
            of_bins, folder / "figure_11.png", title=f"Figure 11: detection limits, {survey.title}",
            xlabel="least N_pix of the lenses", ylabels=dict(zip(DRAWN, DRAWN)),
            chance={"roc_auc": 0.5, "pr_auc": 0.5},
        )  # fmt: skip


def draw_adapted(folder, survey, frames):
    """Draw Figure 12: metrics on ground-based images by the number of training images."""
    starts = {
        "trained on Euclid-like images": "transfer.n", "from scratch": "scratch.n",
    }  # fmt: skip
    values = {
        metric: {
            title: {n: values_of(frames[f"{word}{n}"], metric) for n in sizes(frames, word)}
            for title, word in starts.items()
        }
        for metric in DRAWN
    }
    if any(values["roc_auc"].values()):
        curves.series_with_errors(
            values, folder / "figure_12.png", title=f"Figure 12: I SGLC, ground, {survey.title}",
            xlabel="training images", ylabels=dict(zip(DRAWN, DRAWN)), chance={"roc_auc": 0.5},
        )  # fmt: skip


def sizes(names, word):
    """Return the numbers of those experiments that are called by a word and a number, in order."""
    return sorted(
        int(k.removeprefix(word)) for k in names if re.fullmatch(re.escape(word) + r"\d+", k)
    )


def values_of(frame, metric):
    """Return the values of a metric in all runs, from a table of metrics."""
    return frame.loc[frame["metric"] == metric, "value"].to_numpy()


def draw_pixels(folder, survey):
    """Draw Figures 2 and 3: pixels of a few hundred objects before and after clipping; and 10."""
    before, after = {}, {}
    bounds = constants(survey, 0, BANDS, folder / "constants")
    for name, bands in BANDS.items():
        images = survey.pack.batch(name, survey.sample[:500])
        for n, band in enumerate(bands):
            pixels, limits = (
                images[..., n].ravel(),
                bounds[name].loc[[*CLIPPINGS["alternative"]], band],
            )
            offset = pixels - pixels.min() + np.ptp(limits) / 1e3  # above 0, as in the paper
            edges = np.geomspace(offset.min(), offset.max(), 80)
            before[band] = np.log10(edges), np.histogram(offset, edges)[0]
            counts, edges = np.histogram(np.clip(pixels, *limits), 80)
            after[band] = edges * 1e12, counts
    n = min(500, len(survey.sample))
    of = f"pixels of {n} objects"
    curves.histograms(
        before, folder / "figure_2.png", xlabel="log10 of flux + offset, maggie",
        title=f"Figure 2: {of}, {survey.title}",
    )  # fmt: skip
    curves.histograms(
        after, folder / "figure_3.png", xlabel="flux, 1e-12 maggie",
        title=f"Figure 3: {of}, clipped, {survey.title}",
    )  # fmt: skip
    counts, edges = np.histogram(n_pix_of(survey.pack.catalog), np.arange(0, 505, 5))
    curves.histograms(
        {"N_pix": (edges, counts)}, folder / "figure_10.png", xlabel="source pixels above 1 sigma",
        ylabel="objects",
        title=f"Figure 10: objects that meet the other criteria, {survey.title}",
    )  # fmt: skip
