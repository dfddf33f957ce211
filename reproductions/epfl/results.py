"""Scores become metrics, rows of the table, the verdict, and figures."""

from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import intervals, metrics, report, run, scores
from cast_lens import table as tables
from reproductions.epfl import drawing, verdict
from reproductions.epfl.evaluation import MODES
from reproductions.epfl.settings import (
    LABELS,
    NETWORKS,
    OFFICIAL_LENSES,
    REDRAWN,
    SIDES,
    STUDIED,
    WITH_SOURCE,
    word,
)

METRICS = {"roc_auc": metrics.roc_auc}


def finish(folder, survey, scale, name, seed, initial):
    """Turn the scores of all finished networks into metrics, rows, a verdict and figures.

    Args:
        folder: Of the run.
        survey: The Survey.
        scale: The Scale.
        name: Its name.
        seed: Of the run.
        initial: What the networks began with, as of a Config.
    """
    about = {
        "paper": "epfl", "survey": "sglc2", "data": survey.kind, "scale": name,
        "software": run.software(), "n_train": len(survey.parts["train"]),
        "n_test": len(survey.parts["test"]),
        "split": f"test, random 20 %, {len(survey.parts['test'])} objects{left_out(scale)}; "
                 f"initial {initial}",
    }  # fmt: skip
    reported = tables.read(Path(__file__).parents[1] / "reported.csv")
    done = [n for n in NETWORKS if (folder / "networks" / n / "history.csv").exists()]
    rows = describe(survey, about) + ceiling(survey, about)
    for network in done:
        rows += network_rows(folder, network, name_of(network, initial), about, reported)
        if network in STUDIED:
            rows += studied_rows(folder, survey, network, scale, seed, about)
    shown = {network: name_of(network, initial) for network in done}
    drawing.draw(folder, shown, scale, survey.title)
    found = {(row["experiment"], row["metric"]): row for row in rows}
    text = verdict.write(
        found, scale=name, kind=survey.kind, initial=initial, least_n_pix=scale.least_n_pix
    )
    run.write_whole(folder / "verdict.md", text)
    report.finish_run(folder, Path(__file__).parents[1], "epfl", rows)
    print(f"\n{text}")
    show_reality(folder, done)


def name_of(network, initial):
    """Return the name of the experiment of a network.

    A frozen network that never saw natural images is another one.
    """
    is_other = NETWORKS[network].frozen and initial != "imagenet"
    return f"{network}.{initial}_features" if is_other else network


def left_out(scale):
    """Return words for the sources that a Scale leaves out, "" for none."""
    return f", sources of {scale.least_n_pix} pixels or more" if scale.least_n_pix else ""


def network_rows(folder, network, experiment, about, reported):
    """Return the rows of one network: the highest AUROC over epochs, as in Table I, and others."""
    here, target = folder / "networks" / network, folder / experiment
    table = scores.read_scores(here / "scores.csv")
    history = pd.read_csv(here / "history.csv")
    areas, n_train = history["roc_auc"], int(table["n_train"].iloc[0])
    extra = {
        "best_epoch": int(areas.argmax()) + 1,
        "n_epochs": len(areas),
        "roc_auc_last_epoch": areas.iloc[-1],
    }
    target.mkdir(exist_ok=True)
    rows = [("0", n_train, metric, value, "") for metric, value in extra.items()]
    frame = pd.DataFrame(rows, columns=["run", "n_train", "metric", "value", "note"])
    for file, content in (("extra", frame), ("history", history)):
        text = content.to_csv(index=False, lineterminator="\n")
        run.write_whole(target / f"{file}.csv", text)
    found = experiment_rows(folder, experiment, table, about)
    # The log in the authors' code has the AUROC of single epochs: runs of that name. The highest,
    # row[value], is no run beside them.
    same = tables.cell(reported, "epfl", network, "roc_auc")
    numbers = [int(key.removeprefix("epoch")) for key in same["run"] if key]
    logged = [f"epoch{n}={areas[n - 1]:.10g}" for n in numbers if n <= len(areas)]
    if logged:
        found[0]["runs"] = " ".join(logged)
    return found


def experiment_rows(folder, name, table, about):
    """Write the scores of an experiment; return its rows.

    Of a single run the interval is DeLong's: that of the test objects, not of the training.
    """
    (folder / name).mkdir(exist_ok=True)
    scores.write_scores(table, folder / name / "scores.csv")
    frame = tables.evaluate(folder / name, METRICS)
    rows = tables.summarize_experiment(frame, experiment=name, **about)
    if table["run"].nunique() == 1:
        rows[0] |= delong(table)
    return rows


def delong(table):
    """Return low and high of the AUROC of one run, {} if it has none."""
    try:
        bounds = intervals.delong_interval(table["label"], table["score"])
    except metrics.UndefinedMetric:
        return {}
    return bounds._asdict()


def area(experiment, metric, table, about):
    """Return the row of an AUROC of one run, with DeLong's interval, in a list."""
    rows = values(experiment, {metric: metrics.roc_auc(table["label"], table["score"])}, about)
    return [rows[0] | delong(table)]


def studied_rows(folder, survey, network, scale, seed, about):
    """Return the rows of all that is asked of the best network of each method."""
    here, short = folder / "networks" / network, network.removeprefix("table1.")
    own, other, whole, train, batches = (
        scores.read_scores(here / f"{name}.csv")
        for name in ("scores", "other_mode", "whole", "train", "batch_size")
    )
    mode = MODES[3 - NETWORKS[network].method]
    rows = experiment_rows(folder, f"{network}.{mode}", other, about)
    in_training, in_test = (other, own) if mode == "train_mode" else (own, other)
    compared = intervals.delong(own["label"], in_training["score"], in_test["score"])
    numbers = {"difference": compared.difference, "p": compared.p}
    rows += values(f"modes.{short}", numbers, about)
    for size in scale.sizes:
        part = batches[batches["run"].str.startswith(f"b{size}.")]
        part = part.assign(run=part["run"].str.partition(".")[2])
        rows += experiment_rows(folder, f"batch_size.{short}.b{size}", part, about | _APART)
    rows += leak(pd.concat([train, own]), own, short, scale.splits, seed, about)
    if scale.least_n_pix:
        split = f"test, random 20 %, {len(whole)} objects, all sources"
        rows += area(f"{network}.all_sources", "roc_auc", whole, about | {"split": split})
    return rows + soft_ceiling(whole, survey, short, about)


_APART = {"n_train": 0, "n_test": 0}  # runs that share no training part


def leak(everything, own, short, n_splits, seed, about):
    """Compare the fixed split with splits drawn anew at evaluation, as the published command does.

    Args:
        everything: Scores of training and test objects together, by one network.
        own: Of the latter alone.
        short: Name of the network.
        n_splits: Redrawn, each with as many test objects as the fixed one.
        seed: Of the run.
        about: Columns of the rows.
    """
    labels, logits = (everything[key].to_numpy() for key in ("label", "score"))
    rng, areas = np.random.default_rng(word(seed, REDRAWN)), {}
    for k in range(n_splits):
        drawn = rng.permutation(len(everything))[: len(own)]
        if len(set(labels[drawn])) == 2:
            areas[k] = metrics.roc_auc(labels[drawn], logits[drawn])
    rows = area(f"leak.{short}.fixed", "roc_auc", own, about)
    trained = everything[~everything["object_id"].isin(own["object_id"])]
    rows += area(f"leak.{short}.training_objects", "roc_auc", trained, about)
    redrawn = {"experiment": f"leak.{short}.redrawn", "metric": "roc_auc"}
    rows.append(tables.summarize(areas, **redrawn, **about | _APART))
    return rows


def soft_ceiling(whole, survey, short, about):
    """Return how well sources that meet the official definition, and others, are told from none."""
    truth = survey.pack.catalog.set_index("object_id").loc[whole["object_id"]]
    official = LABELS["official"](truth) == 1
    none, rows = whole["label"].to_numpy() == 0, []
    about = about | {"split": "test, random 20 %, all sources"}
    parts = {"detectable": official, "undetectable": ~official & ~none}
    for name, part in parts.items():
        table = whole[part | none]
        if len(set(table["label"])) == 2:
            rows += area(f"ceiling.{short}", f"roc_auc_{name}", table, about)
    return rows


def ceiling(survey, about):
    """Return what scores could reach that know the truth, all objects of the survey at hand.

    If a source that fails the official definition cannot be told from none, an oracle scores the
    official label: its AUROC on the label "a source was added" is 1 - f/2, f being the share of
    sources that fail. It is higher as far as such sources are seen: by N_pix, the number of their
    pixels above the noise, only those without one cannot be.
    """
    table = survey.pack.catalog.iloc[survey.rows]
    added, official = (LABELS[rule](table) for rule in ("source-added", "official"))
    failing = 1 - official[added == 1].mean()
    n_pix = table["n_pix_source"].fillna(0).to_numpy()
    numbers = {
        "failing_fraction": failing,
        "roc_auc_oracle": metrics.roc_auc(added, official),
        "roc_auc_oracle_n_pix": metrics.roc_auc(added, n_pix),
        "roc_auc_challenge": 1 - (1 - OFFICIAL_LENSES / WITH_SOURCE) / 2,
    }
    return values("ceiling", numbers, about | {"split": "all, by the truth"})


def describe(survey, about):
    """Return what the report says of its data, counted in the survey at hand."""
    audit, table = survey.pack.audit, survey.pack.catalog
    added = LABELS["source-added"](table)
    shapes = {name: known["shape"] for name, known in survey.pack.manifest["arrays"].items()}
    n_used = len(survey.parts["train"]) + len(survey.parts["test"])
    numbers = {
        "n_objects": audit["n_catalog"],
        "n_bands": sum(shapes[name][2] for name in SIDES),
        "image_side_pixels.vis": shapes["vis"][0],
        "image_side_pixels.nisp": shapes["nir"][0],
        "lens_fraction": added.mean(),
        "n_lenses": int(added.sum()),
        "n_nonlenses": int((added == 0).sum()),
        "n_missing_objects": audit["n_missing"],
        "fraction_of_objects.train": len(survey.parts["train"]) / n_used,
        "fraction_of_objects.test": len(survey.parts["test"]) / n_used,
    }
    everywhere = about | {"split": "all"}
    rows = values("data", numbers, everywhere)
    constant = values("always_lens", {"accuracy": added.mean()}, everywhere)
    constant[0] |= intervals.wilson(int(added.sum()), len(added))._asdict()
    return rows + constant


def values(experiment, numbers, about):
    """Return rows of numbers without runs.

    Args:
        experiment: Its name.
        numbers: {metric: value}.
        about: The other columns.
    """
    return [
        tables.summarize({"all": value}, experiment=experiment, metric=metric, **about | _APART)
        for metric, value in numbers.items()
    ]


def show_reality(folder, done):
    """Print the scores of the real cutouts of the I SGLC beside their labels, if there are any."""
    tables_ = []
    for network in done:
        path = folder / "networks" / network / "reality.csv"
        if path.exists():
            table = pd.read_csv(path, dtype=str)
            table["score"] = [f"{float(score):+.3f}" for score in table["score"]]
            tables_.append(table.rename(columns={"score": f"logit of {network}"}))
    if tables_:
        shown = pd.concat(tables_, axis=1)
        print("\nReal cutouts of the I SGLC, ground track: no Euclid images, see survey.py")
        print(report.tabulate(shown.loc[:, ~shown.columns.duplicated()]))
