"""Scores become metrics, rows of the table, and figures."""

from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import curves, metrics, report, run, scores
from cast_lens import table as tables
from reproductions.sglc2.limits import detection_limits, meets_others
from reproductions.sglc2.settings import BANDS, CLIPPINGS, DRAWN, HEADLINE, INPUTS, METRICS, OTHERS
from reproductions.sglc2.survey import constants


def finish(folder, survey, scale, name, seed):
    """Turn the scores of all finished folds into metrics, rows, figures and the printed table."""
    part = survey.parts[0]
    about = {
        "paper": "sglc2", "survey": "sglc2", "data": survey.kind, "scale": name,
        "software": run.software(), "n_train": len(part["train"]), "n_test": len(part["test"]),
    }  # fmt: skip
    cross = f"{scale.n_folds}-fold validation, {scale.n_run} run"
    splits = dict.fromkeys(("table1", "backbone", "implementation"), cross)
    splits |= dict.fromkeys(
        ("test80k", "npix", "selection"), f"independent test, {len(survey.test)} objects"
    )
    splits |= dict.fromkeys(("transfer", "scratch"), "test groups of a tenth")
    rows, frames = [], {}
    for path in sorted(folder.glob("*/scores.csv")):
        experiment = path.parent.name
        frame = frames[experiment] = tables.evaluate(path.parent, METRICS)
        kind = experiment.partition(".")[0]
        row = about | {"split": splits[kind]}
        if kind in ("transfer", "scratch"):  # groups share no test object
            row |= {"survey": "sglc1_ground", "n_train": 0, "n_test": 0}
            spread = frame.loc[frame["metric"] == "roc_auc", "value"].std(ddof=1)
            rows.append(tables.summarize(
                {"all": spread}, experiment=experiment, metric="roc_auc_sd", **row
            ))  # fmt: skip
        rows += tables.summarize_experiment(frame, experiment=experiment, **row)
    about |= {"n_train": 0, "n_test": 0}
    for metric, value in describe(survey, folder).items():
        row = {"experiment": "data", "metric": metric, "split": "all"}
        rows.append(tables.summarize({"all": value}, **row, **about))
    if (folder / "look.csv").exists():
        looked = pd.read_csv(folder / "look.csv", dtype={"run": str})
        split = f"{looked['run'].nunique()} highest-scoring lenses of the independent test"
        rows += tables.summarize_experiment(looked, experiment="look", split=split, **about)
    draw(folder, survey, frames)
    report.finish_run(folder, Path(__file__).parents[1], "sglc2", rows)


def write_experiments(found, cell, survey, seed, folder):
    """Write what came of a cell as experiments: Table 1, the independent test, detection limits."""
    losses = found["history"].groupby("run")["val_loss"].min().sort_values()
    name = cell if cell in OTHERS else f"table1.{cell}"
    written = {name: found["table1"]}
    if "test80k" in found and cell not in OTHERS:
        test = found["test80k"].reset_index(drop=True)
        written[f"test80k.{cell}"] = test
        for place, word in ((0, "best_fold"), (4, "fifth_fold")):  # Sec. 4.2, Figure 8
            if place < len(losses):
                written[f"test80k.{cell}.{word}"] = test[test["run"] == str(losses.index[place])]
        if cell == HEADLINE:
            written |= detection_limits(test, survey.pack.catalog, seed)
            best = best_f_beta(found["table1"])  # Sec. 7.4: which network to send in
            for word, key in (("lowest_val_loss", losses.index[0]), ("best_test_f_beta", best)):
                written[f"selection.{word}"] = test[test["run"] == str(key)]
    for name, table in written.items():
        (folder / name).mkdir(exist_ok=True)
        if name in (cell, f"table1.{cell}"):
            for extra in ("extra", "history"):
                text = found[extra].to_csv(index=False, lineterminator="\n")
                run.write_whole(folder / name / f"{extra}.csv", text)
        scores.write_scores(table, folder / name / "scores.csv")


def best_scores(folder):
    """Return the scores of the best fold of the headline cell on the independent test."""
    return scores.read_scores(folder / f"test80k.{HEADLINE}.best_fold" / "scores.csv")


def best_f_beta(table):
    """Return the run of the largest F_beta on what it was validated with."""
    found = {
        key: metrics.max_f_beta(part["label"], part["score"], beta_squared=0.001)[0]
        for key, part in table.groupby("run", sort=False)
        if part["label"].nunique() == 2
    }
    return max(found, key=found.__getitem__, default=table["run"].iloc[0])


def write_adapted(found, folder):
    """Write what came of Sec. 6 as experiments, with the spread of the groups beside it."""
    for name, table in found.items():
        (folder / name).mkdir(exist_ok=True)
        scores.write_scores(table, folder / name / "scores.csv")


def describe(survey, folder):
    """Return what the paper says of its data, counted in the survey at hand."""
    catalog, images = survey.pack.catalog, survey.pack.manifest["arrays"]
    bounds = pd.concat(constants(survey, 0, BANDS, folder / "constants").values(), axis=1)
    over_p99, over_median = (np.log10(bounds.loc[100.0] / bounds.loc[p]) for p in (99.0, 50.0))
    return {
        "n_lenses": int(catalog["label"].sum()),
        "image_side_pixels.vis": images["vis"]["shape"][0],
        "image_side_pixels.hjy": images["nir"]["shape"][0],
        "z_source_min": catalog["z_source"].min(),
        "z_source_max": catalog["z_source"].max(),
        "z_source_mean": catalog["z_source"].mean(),
        "n_pix_source_median": _n_pix(catalog).median(),
        "log10_max_over_median_low": min(over_median),
        "log10_max_over_median_high": max(over_median),
        "log10_max_over_p99_low": min(over_p99),
        "log10_max_over_p99_high": max(over_p99),
    }  # fmt: skip


def _n_pix(catalog):
    """Return N_pix of the objects that Figure 10 shows (Sec. 5), a Series."""
    return catalog["n_pix_source"][meets_others(catalog) & (catalog["n_pix_source"] > 0)]


def draw(folder, survey, frames):
    """Draw Figures 2, 3, 6, 7, 8, 10 and 11, as far as what they show was run."""
    data = survey.title
    _draw_pixels(folder, survey, data)
    _draw_adapted(folder, frames, data)
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
                    inputs: _runs(cells[f"{inputs}.{clipping}"], metric)
                    for inputs in INPUTS
                    if f"{inputs}.{clipping}" in cells
                }
                for clipping in CLIPPINGS
            }
            for metric in ylabels
        }
        curves.series_with_errors(
            values, folder / f"{figure}.png", xlabel="input", ylabels=ylabels, order=tuple(INPUTS),
            chance={"roc_auc": 0.5}, title=f"{figure.replace('_', ' ').capitalize()}, {data}",
        )  # fmt: skip
    tested = {
        name.removeprefix("test80k."): scores.read_scores(folder / name / "scores.csv")
        for name in frames
        if name.endswith(("best_fold", "fifth_fold"))
    }
    if tested:
        curves.roc_and_precision_recall(
            tested, folder / "figure_8.png", title=f"Figure 8: independent test, {data}"
        )
    bins = {int(name.removeprefix("npix.bin")): frame for name, frame in frames.items()
            if name.startswith("npix.")}  # fmt: skip
    if bins:
        of_bins = {metric: {HEADLINE: {low: _runs(bins[low], metric) for low in sorted(bins)}}
                   for metric in DRAWN}  # fmt: skip
        curves.series_with_errors(
            of_bins, folder / "figure_11.png", title=f"Figure 11: detection limits, {data}",
            xlabel="least N_pix of the lenses", ylabels=dict(zip(DRAWN, DRAWN)),
            chance={"roc_auc": 0.5, "pr_auc": 0.5},
        )  # fmt: skip


def _draw_adapted(folder, frames, data):
    """Draw Figure 12: metrics on ground-based images by the number of training images."""
    starts = {
        "trained on Euclid-like images": "transfer.n", "from scratch": "scratch.n",
    }  # fmt: skip
    values = {
        metric: {
            title: {
                n: _runs(frames[f"{word}{n}"], metric)
                for n in sorted(int(k.removeprefix(word)) for k in frames if k.startswith(word))
            }
            for title, word in starts.items()
        }
        for metric in DRAWN
    }
    if any(values["roc_auc"].values()):
        curves.series_with_errors(
            values, folder / "figure_12.png", title=f"Figure 12: I SGLC, ground, {data}",
            xlabel="training images", ylabels=dict(zip(DRAWN, DRAWN)), chance={"roc_auc": 0.5},
        )  # fmt: skip


def _runs(frame, metric):
    return frame.loc[frame["metric"] == metric, "value"].to_numpy()


def _draw_pixels(folder, survey, data):
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
    curves.histograms(before, folder / "figure_2.png", xlabel="log10 of flux + offset, maggie",
                      title=f"Figure 2: pixels of {n} objects, {data}")  # fmt: skip
    curves.histograms(after, folder / "figure_3.png", xlabel="flux, 1e-12 maggie",
                      title=f"Figure 3: pixels of {n} objects, clipped, {data}")  # fmt: skip
    counts, edges = np.histogram(_n_pix(survey.pack.catalog), np.arange(0, 505, 5))
    curves.histograms({"N_pix": (edges, counts)}, folder / "figure_10.png",
                      xlabel="source pixels above 1 sigma",
                      title=f"Figure 10: objects that meet the other criteria, {data}")  # fmt: skip
