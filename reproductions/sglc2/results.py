"""Scores become metrics, and rows of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cast_lens import intervals, metrics, report, run, scores
from cast_lens import table as tables
from reproductions.sglc2 import drawing
from reproductions.sglc2.limits import detection_limits, level, onsets
from reproductions.sglc2.overfitting import onsets_of_run
from reproductions.sglc2.settings import HEADLINE, METRICS, OTHERS
from reproductions.sglc2.survey import describe

NOTEBOOK_METRICS = {"average_precision": metrics.average_precision}  # as it is called there
AT_THRESHOLD = ("precision_at_max_f_beta_0.001", "recall_at_max_f_beta_0.001")
DRAWS = 500  # of the bootstrap of objects
LEAST = 10  # ASSUMED: objects of a class below which their intervals are not to be trusted


def finish(folder, survey, scale, name, seed):
    """Turn the scores of all finished folds into metrics, rows, figures and the printed table."""
    part = survey.parts[0]
    about = {
        "paper": "sglc2", "survey": "sglc2", "data": survey.kind, "scale": name,
        "software": run.software(), "n_train": len(part["train"]), "n_test": len(part["test"]),
    }  # fmt: skip
    rows, frames = [], {}
    for path in sorted(folder.glob("*/scores.csv")):
        experiment = path.parent.name
        wanted = METRICS | (NOTEBOOK_METRICS if experiment.endswith(".notebook") else {})
        frame = frames[experiment] = tables.evaluate(path.parent, wanted)
        row = about | described(experiment, scale, survey)
        rows += rows_of(path, frame, wanted, experiment=experiment, **row)
    rows += limit_rows(folder, about)
    alone = about | {"n_train": 0, "n_test": 0}
    for experiment, metric, epoch, n_cells in onsets_of_run(folder):
        row = {"experiment": experiment, "metric": metric, "split": f"losses of {n_cells} cell(s)"}
        rows.append(tables.summarize({"all": epoch}, **row, **alone))
    for (experiment, metric), value in describe(survey, folder).items():
        row = {"experiment": experiment, "metric": metric, "split": "all"}
        if experiment.startswith("data.sglc1"):
            row["survey"] = "sglc1_ground"
        rows.append(tables.summarize({"all": value}, **alone | row))
    if (folder / "look.csv").exists():
        looked = pd.read_csv(folder / "look.csv", dtype={"run": str})
        split = f"{looked['run'].nunique()} highest-scoring lenses of the independent test"
        rows += tables.summarize_experiment(looked, experiment="look", split=split, **alone)
    drawing.draw(folder, survey, frames)
    report.finish_run(folder, Path(__file__).parents[1], "sglc2", rows)


def described(experiment, scale, survey):
    """Return what a row says of its data: survey, split, and how the runs overlap."""
    kind, *_, last = experiment.split(".")
    ground = {"survey": "sglc1_ground", "n_train": 0, "n_test": 0}  # groups share no test object
    if last == "notebook":
        return ground | {"split": "all objects not used in training or validation"}
    if kind in ("transfer", "scratch"):
        return ground | {"split": "test groups of a tenth"}
    if kind in ("test80k", "npix", "selection"):
        return {"split": f"independent test, {len(survey.test)} objects"}
    return {"split": f"{scale.n_folds}-fold validation, {scale.n_run} run"}


def rows_of(path, frame, wanted, **row):
    """Return the rows of an experiment.

    The scatter of runs that score the same objects says nothing of these, and a single network has
    none: there the error of the objects is added in quadrature, by DeLong or a bootstrap. Of fewer
    objects of a class than `LEAST` there is no interval. The scatter of the groups of Sec. 6 is a
    row of its own.

    Args:
        path: File of its scores.
        frame: Its table of metrics.
        wanted: {name: function}, as for `table.evaluate`.
        row: Columns of the rows.
    """
    table, found = scores.read_scores(path), tables.summarize_experiment(frame, **row)
    if table["object_id"].duplicated().any() or table["run"].nunique() == 1:
        bounds = intervals_of_objects(table, wanted)
        return [one if one["metric"] not in wanted else widened(one, bounds) for one in found]
    if row["survey"] == "sglc1_ground":
        values = frame.loc[frame["metric"] == "roc_auc", "value"].dropna()
        spread = tables.summarize({"all": values.std(ddof=1)}, metric="roc_auc_sd", **row)
        found.append(spread | interval_of_sd(values))
    return found


def widened(one, bounds):
    """Return a row with the errors of runs and objects together.

    Its n_train and n_test are 0: a claim is then judged by these intervals, and not by the pairs of
    the runs alone.

    Args:
        one: Row of `table.summarize`.
        bounds: {metric: (below, above)}, how far a 95 % interval of the objects reaches.
    """
    below, above = bounds.get(one["metric"], (np.nan, np.nan))
    of_runs = (one["high"] - one["low"]) / 2 if one["n_runs"] > 1 else 0.0
    sd = one["sd"] if one["n_runs"] > 1 else 0.0
    return one | {
        "low": one["value"] - np.hypot(of_runs, below),
        "high": one["value"] + np.hypot(of_runs, above),
        "sd": np.hypot(sd, (below + above) / 2 / stats.norm.ppf(0.975)), "n_train": 0, "n_test": 0,
    }  # fmt: skip


def intervals_of_objects(table, wanted):
    """Return {metric: (below, above)}, how far 95 % intervals reach, as a mean over the runs.

    Args:
        table: Table of scores.
        wanted: {name: function}.
    """
    drawn = {k: f for k, f in wanted.items() if k not in ("roc_auc", *AT_THRESHOLD)}
    reach: dict[str, list] = {}
    for _, one in table.groupby("run", sort=False):
        labels, values = one["label"].to_numpy(), one["score"].to_numpy()
        if min(labels.sum(), len(labels) - labels.sum()) < LEAST:
            continue
        found = intervals.bootstrap(labels, values, drawn, draws=DRAWS, seed=0)
        found["roc_auc"] = intervals.delong_interval(labels, values)
        for row in metrics.evaluate(labels, values, {name: wanted[name] for name in found}):
            low, high = found[row["metric"]]
            reach.setdefault(row["metric"], []).append((row["value"] - low, high - row["value"]))
    return {name: np.mean(found, axis=0) for name, found in reach.items()}


def interval_of_sd(values):
    """Return {"low": ..., "high": ...} of a standard deviation of normal numbers, 95 %."""
    n = len(values)
    if n < 2:
        return {}
    bounds = np.sqrt((n - 1) / stats.chi2.ppf([0.975, 0.025], n - 1)) * values.std(ddof=1)
    return dict(zip(("low", "high"), bounds))


def limit_rows(folder, about):
    """Return where scores leave chance and reach the full level, by N_pix and training images."""
    rows, groups = [], {"survey": "sglc1_ground", "n_train": 0, "n_test": 0}
    for word, full, names, changes in (
        ("npix.bin", f"test80k.{HEADLINE}", ("chance_below_n_pix", "full_level_above_n_pix"), {}),
        ("transfer.n", f"table1.{HEADLINE}",
         ("above_chance_at_n_images", "full_level_at_n_images"), groups),
    ):  # fmt: skip
        row = about | changes
        overlap = {key: row[key] for key in ("n_train", "n_test")}
        paths = {
            place: folder / f"{word}{place}/scores.csv"
            for place in drawing.sizes([path.name for path in folder.iterdir()], word)
        }
        levels = {k: level(scores.read_scores(path), **overlap) for k, path in paths.items()}
        path, whole = folder / full / "scores.csv", None
        if path.exists():
            whole = level(
                scores.read_scores(path), n_train=about["n_train"], n_test=about["n_test"]
            )
        for name, place in zip(names, onsets(levels, whole)):
            if place is not None:
                rows.append(tables.summarize(
                    {"all": place}, experiment=word.partition(".")[0], metric=name,
                    split=f"{len(levels)} places", **row | {"n_train": 0, "n_test": 0},
                ))  # fmt: skip
    return rows


def write_experiments(found, cell, survey, seed, folder):
    """Write what came of a cell as experiments: Table 1, the independent test, detection limits."""
    losses = found["history"].groupby("run")["val_loss"].min().sort_values()
    name = cell if cell in OTHERS else f"table1.{cell}"
    written = {name: found["table1"]}
    if cell == HEADLINE:  # beside those of OTHERS
        written["backbone.b2"] = found["table1"]
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
