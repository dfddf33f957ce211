"""Release the networks of both DeepLense tasks that were trained on stand-ins, with their cards.

`python weights/release_deeplense.py RUN` takes the best epochs of `NETWORKS` from the folder of a
run of the scale "paper", measures them on stand-ins of another seed, and writes files, manifest,
metrics and cards. `--verify` measures what was released once more and compares;
`make verify-weights` does that.
"""

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cast_lens import checkpoints, run, scores, survey_folder, weights, weights_release
from cast_lens.data import DataError, DataUnavailableError
from reproductions.deeplense import data, measures, network, training
from reproductions.deeplense.settings import CLASSES, SCALES, config_of

FOLDER = Path(__file__).parent
RUNS = "runs"  # where stand-ins are made
SEED = 2  # of the stand-ins that networks are measured on; they were trained on others


@dataclass(frozen=True)
class Network:
    """A network that is released.

    Attributes:
        experiment: Whose best epoch it is.
        what: A phrase.
        n_objects: Of the stand-in that it is measured on.
        metrics: That stand on the card.
    """

    experiment: str
    what: str
    n_objects: int
    metrics: tuple[str, ...]


_BODY = "residual, of four stages, averaged over the dihedral group"
NETWORKS = {
    "deeplense-task1-stand-in-v0": Network(
        "beyond.residual", f"three kinds of dark-matter substructure, {_BODY}", 1_500,
        ("roc_auc", "accuracy", *(f"recall.{name}" for name in CLASSES[1])),
    ),
    "deeplense-task2-stand-in-v0": Network(
        "beyond.residual_task2", f"lenses among other galaxies, {_BODY}", 6_000,
        ("roc_auc", "average_precision", "tpr_at_fpr_0.01", "recall.lensed", "precision.lensed"),
    ),
}  # fmt: skip
CARD = """# {name}

A network for {what}: the experiment
`{experiment}` of [reproductions/deeplense](../../reproductions/deeplense/settings.py), ours and not
the report's. **It was trained on simulated images of this package, which imitate those of DeepLense
Task {task}.**

## What it is for

Tests, demonstrations and fine-tuning. It must not be used to claim a lens or a substructure, nor to
judge networks that were trained on the public images: it has seen none of them.

## Training

{n_train} objects of {survey}, {n_validation} to choose the epoch. Seed {seed}, {software}.

| epoch | training loss | validation loss |
| --- | --- | --- |
{history}

## Scores

Measured on {tested}:
{counts}. Intervals are 95 %. Logits are means over the eight dihedral images.

| metric | value | low | high |
| --- | --- | --- | --- |
{scores}

Kernels are released in float16, which changes no probability by more than {loss:.2g}
of itself and the roc_auc by {area}; loaded, they are float32.
"""


def main(arguments=None):
    """Release the networks of a run, or verify those that were."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", help="folder of the run of scale paper")
    parser.add_argument("--verify", action="store_true", help="compare instead")
    options = parser.parse_args(arguments)
    if options.verify:
        listed = weights.read_manifest(FOLDER / weights.MANIFEST.name)
        for name in (name for name in NETWORKS if name in listed):
            weights_release.hold_metrics(measure(name, stand_in(name)), FOLDER)
    elif options.run:
        for name in NETWORKS:
            publish(name, Path(options.run))
    else:
        parser.error("name the folder of the run, or --verify")


def publish(name, folder):
    """Release one network of a run: files, rows of the manifest and of metrics.csv, card."""
    known, (model, config) = NETWORKS[name], build(name)
    checkpoints.read_weights(model, folder / known.experiment / checkpoints.BEST)
    tested = stand_in(name)
    few = {"image": data.Resized(tested.pack, config.side).batch("image", tested.rows[:256])}
    about = {
        "url": "", "survey": f"deeplense{config.task}", "data": "stand-in", "network": known.what,
        "paper": "deeplense", "experiment": known.experiment, "scale": "paper",
        "metric": "roc_auc", "commit": weights_release.commit_of(folder), "source": "cast_lens",
        "licence": "MIT", "card": f"cards/{name}.md",
    }  # fmt: skip
    # Of a logit near 0 a relative difference says nothing, so the loss is one of probabilities.
    probable = keras.Model(model.input, keras.layers.Softmax()(model.output))
    rows, told = weights_release.release_measured(
        probable, FOLDER, name, about, inputs=few, exact=measure(name, tested, model),
        measure=partial(measure, name, tested),
    )  # fmt: skip
    text = card(name, config, folder, tested, rows, told)
    run.write_whole(FOLDER / about["card"], text)
    print(text)


def build(name):
    """Return a network with random weights, and its Config."""
    config = config_of(NETWORKS[name].experiment, SCALES["paper"])
    return network.build_model(config, {1: 1, 2: 3}[config.task], 0), config


def stand_in(name):
    """Return the Survey that a network is measured on, all of its objects."""
    known = NETWORKS[name]
    task = config_of(known.experiment, SCALES["paper"]).task
    place = survey_folder.stand_in(f"deeplense{task}", RUNS, known.n_objects, SEED)
    found = survey_folder.opened(place, RUNS, title=f"{place.name}-deeplense{task}")
    return data.Survey(task, found, np.arange(len(found.catalog)))


def measure(name, tested, model=None):
    """Score a Survey with a released network, or another; return rows of metrics.csv."""
    built, config = build(name)
    if model is None:
        model = built
        weights.load_into(model, name, manifest=FOLDER / weights.MANIFEST.name)
    parts = {"validation": tested.rows, "test": tested.rows}
    table = training.score(model, config, tested, {"train": np.arange(0)} | parts)
    one = measures.scored(table, CLASSES[config.task])["test"]
    found = measures.of_scores(one, SEED).set_index("metric")
    return [
        {"name": name, "survey": title(tested), "metric": metric}
        | found.loc[metric, ["value", "low", "high"]].to_dict()
        for metric in NETWORKS[name].metrics
    ]


def card(name, config, folder, tested, rows, told):
    """Return the model card, all of its numbers from files."""
    known = NETWORKS[name]
    here, names = folder / known.experiment, CLASSES[config.task]
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    table = scores.read_scores(here / "scores.csv")
    validated = table[table["run"] == f"validation.{names[-1]}"]
    counts = np.bincount(tested.labels[tested.rows], minlength=len(names))
    count = ", ".join(f"{n} {each.replace('_', ' ')}" for n, each in zip(counts, names))
    return CARD.format(
        name=name, what=known.what, experiment=known.experiment, task=config.task,
        n_train=table["n_train"].iloc[0], n_validation=len(validated), seed=made["seed"],
        survey=f"a stand-in of {SCALES['paper'].n_objects[config.task]:,}",
        software=f"Keras {made['keras']}, {made['backend']}",
        history="\n".join(f"| {one.epoch} | {one.loss:.4f} | {one.val_loss:.4f} |"
                          for one in pd.read_csv(here / "history.csv").itertuples()),
        tested=title(tested), counts=count, **told,
        scores=weights_release.metrics_lines(rows),
    )  # fmt: skip


def title(tested):
    """Return what a packed stand-in is called, with the number of its objects."""
    name = tested.pack.folder.name.removesuffix("-pack").rpartition("-")[0]
    return f"{name}, {len(tested.rows)} objects of another seed"


if __name__ == "__main__":
    run.command(main, lambda: (DataError, DataUnavailableError))
