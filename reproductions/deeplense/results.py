"""Scores become metrics, rows of the table, and figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import report, run, scores
from cast_lens import table as tables
from reproductions.deeplense import data, diagnosis, drawing, learning, measures
from reproductions.deeplense.settings import CLASSES, EXPERIMENTS, SURVEYS

EPOCHS = {"train_loss": "loss", "train_accuracy": "accuracy", "val_loss": "val_loss",
          "val_accuracy": "val_accuracy"}  # fmt: skip


def finish(folder, scale, name, seed, surveys):
    """Turn the scores of all finished experiments into metrics, rows, figures and the table.

    Args:
        folder: Of the run.
        scale: The Scale.
        name: Its name.
        seed: Of the run.
        surveys: {task: Survey} of those that are loaded, for the figures of objects.
    """
    rows, found = [], {}
    about = {"paper": "deeplense", "scale": name, "software": run.software()}
    kinds = {task: known["data"] for task in SURVEYS if (known := _known(folder, task))}
    for experiment, config in EXPERIMENTS.items():
        here = folder / experiment
        if not (here / "history.csv").exists():
            continue
        known = about | {"survey": SURVEYS[config.task], "data": kinds[config.task]}
        found[experiment], new = evaluate(here, CLASSES[config.task], seed)
        rows += [row | known | {"experiment": experiment} for row in new]
    for task, kind in kinds.items():
        for _, row in pd.read_csv(folder / f"task{task}.data.csv").iterrows():
            known = about | {"survey": SURVEYS[task], "data": kind, "split": row["split"]}
            rows.append(tables.summarize(
                {"all": row["value"]}, n_train=0, n_test=0, experiment=f"task{task}.data",
                metric=row["metric"], **known,
            ))  # fmt: skip
    rows += diagnose(folder, scale, seed, about, kinds.get(1))
    if not scale.epochs[1]:  # as many as in the report: when does a network begin to learn?
        networks = {name: one for name, one in found.items() if EXPERIMENTS[name].task == 1}
        _learning(folder, networks, kinds.get(1))
    drawing.draw_results(folder, found, kinds)
    for task, survey in surveys.items():
        if (name_ := f"task{task}.report") in found:
            one = found[name_]["scored"]["test"]
            drawing.draw_predictions(survey, one, folder, name_)
    report.finish_run(folder, Path(__file__).parents[1], "deeplense", rows)


def evaluate(here, names, seed):
    """Compute what an experiment came to; write metrics.csv and the tables of the report.

    Returns:
        {"scored": {part: Scored}, "history": DataFrame, "numbers": table of metrics.csv}, and rows
        without what tells whose they are.
    """
    table, history = scores.read_scores(here / "scores.csv"), pd.read_csv(here / "history.csv")
    scored = measures.scored(table, names)
    weights = tuple(pd.read_csv(here / "weights.csv")["weight"])
    frame = measures.numbers(scored, history, weights, seed)
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")
    run.write_whole(here / "metrics.csv", text)
    counts = measures.confusion(scored["test"]).to_csv(lineterminator="\n", index_label="truth")
    run.write_whole(here / "confusion.csv", counts)
    apart, n_train = "validation" in scored, int(table["n_train"].iloc[0])
    sizes = {part: len(one.truth) for part, one in scored.items()}
    rows = []
    for _, number in frame.iterrows():
        metric = number["metric"]
        values = {f"seed{seed}": number["value"]}
        if metric in EPOCHS:  # every epoch is a run; the value is that of the one that is kept
            column = history[EPOCHS[metric]]
            values = {f"epoch{epoch}": value for epoch, value in zip(history["epoch"], column)}
        kind = metric.partition("_")[0]
        split = {"train": "train", "val": "validation", "best": "validation"}.get(kind, "test")
        if split == "test" and not apart:  # there as in the authors' code
            split = "validation, which also chose the epoch"
        n_test = sizes["validation" if split == "validation" and apart else "test"]
        row = tables.summarize(
            values, n_train=0 if metric in EPOCHS else n_train, n_test=n_test, metric=metric,
            split=f"{split}, {n_train if split == 'train' else n_test} objects",
        )  # fmt: skip
        rows.append(row | {key: number[key] for key in ("value", "sd", "low", "high")})
    return {"scored": scored, "history": history, "numbers": frame}, rows


def diagnose(folder, scale, seed, about, kind):
    """Write the table, the paragraph and the figure of the diagnosis; return its rows."""
    if not (folder / "diagnosis").is_dir():
        return []
    configs = diagnosis.plan(scale)
    base, seeds = configs["base"], range(seed, seed + scale.n_seeds)
    epochs = "1 epoch" if base.epochs == 1 else f"{base.epochs} epochs"
    trained = f"{scale.n_objects[1]} objects of {_told(kind)} and {epochs}"
    runs, table = diagnosis.write(folder, configs, seeds, trained)
    drawing.draw_diagnosis(table, folder / "diagnosis.png", trained)
    rows = []
    known = about | {"survey": SURVEYS[1], "data": kind, "split": "test, half of the published"}
    for name, part in runs.groupby("name", sort=False):
        for metric in ("roc_auc", "val_loss"):
            rows.append(tables.summarize(
                {f"seed{s}": value for s, value in zip(part["seed"], part[metric])}, n_train=0,
                n_test=0, experiment=f"diagnosis.{name}", metric=metric, **known,
            ))  # fmt: skip
    return rows


def describe(survey, seed, folder):
    """Count what the report says of its data, and write it as task<n>.data.csv."""
    parts = {rules: data.divide(survey, rules, seed) for rules in ("report", "authors_code")}
    labels, names, report_ = survey.labels, CLASSES[survey.task], parts["report"]
    height, _, n_bands = survey.pack.manifest["arrays"]["image"]["shape"]
    rows = {("n_classes", "all"): len(names), ("n_channels", "all"): n_bands,
            ("image_side_pixels", "all"): height}  # fmt: skip
    whole = np.concatenate([report_["train"], report_["validation"]])
    for part, used in report_.items():
        counts = np.bincount(labels[used], minlength=len(names))
        rows[f"n_objects.{part}", part] = len(used)
        rows[f"n_objects_per_class.{part}", part] = counts.mean()
        rows[f"fraction_of_objects.{part}", part] = len(used) / (len(whole))
    for name, count in zip(names, np.bincount(labels[report_["test"]], minlength=len(names))):
        rows[f"n_objects.{name}", "test"] = count
    if survey.task == 2:
        for part, used in {"train_and_validation": whole, "test": report_["test"]}.items():
            n_others, n_lenses = np.bincount(labels[used], minlength=2)
            rows[f"n_lenses.{part}", part] = n_lenses
            rows[f"n_nonlenses.{part}", part] = n_others
            rows[f"nonlenses_per_lens.{part}", part] = n_others / max(n_lenses, 1)
        config = EXPERIMENTS["task2.authors_code"]
        weights = data.class_weights(survey, parts["authors_code"], config)
        for name, weight in zip(names, weights):
            rows[f"class_weight.{name}", "train_and_validation"] = weight
    left = len(survey.rows) - len(whole) - len(report_["test"])
    rows["n_left_out_same_pixels", "all"] = left
    table = pd.DataFrame([(*key, value) for key, value in rows.items()],
                         columns=["metric", "split", "value"])  # fmt: skip
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.10g")
    run.write_whole(folder / f"task{survey.task}.data.csv", text)


def _learning(folder, networks, kind):
    if networks:
        counts = pd.read_csv(folder / "task1.data.csv").set_index("metric")["value"]
        about = f"{counts['n_objects.train']:.0f} objects of {_told(kind)}"
        learning.write(folder, networks, about)


def _told(kind):
    return "real data" if kind == "real" else "stand-in data"


def _known(folder, task):
    path = folder / f"task{task}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
