"""Release LASTRO, the winner of the first challenge, as Gabe (2022) is compared with it; its card.

`python weights/release_nottingham.py RUN` takes the first training of the experiment
`lastro.original` from the folder of a run, measures it on a stand-in of another seed, and writes
files, manifest, metrics and card. `--verify` measures what was released once more and compares;
`make verify-weights` does that.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import (
    checkpoints,
    run,
    scores,
    survey_folder,
    weights,
    weights_release,
)
from cast_lens.data import DataError, DataUnavailableError
from reproductions.nottingham import network, training
from reproductions.nottingham.settings import CELLS, INPUT, Config

FOLDER = Path(__file__).parent
RUNS = Path("runs")  # where stand-ins are made
NAME, SURVEY, EXPERIMENT = "sglc1-space-lastro-stand-in-v0", "sglc1-space", "lastro.original"
# At the scale hour its weights are scaled once, before the training; all else is no part of it.
CONFIG = Config(**CELLS[EXPERIMENT] | {"scaled": "initial"})
TRAINING = Path("runs") / EXPERIMENT / "run0"  # below the folder of the run
N_TEST, TEST_SEED = 2_000, 2  # of the stand-in for the card
DRAWS = 2_000  # of the bootstrap
CARD = """# {name}

The network of Schaefer et al. (2018, LASTRO EPFL), the winner of the space track of the first
lens-finding challenge, as its authors' code has it: the experiment `{experiment}` of
[reproductions/nottingham](../../reproductions/nottingham/settings.py) at the scale {scale}. **It is
ours and not theirs: it was trained on simulated images of this package, for {epochs} epochs.**

## What it is for

Tests, demonstrations and fine-tuning; `reproductions.nottingham.network` builds it. It must not be
used to claim a lens, nor to judge the network that won the challenge: it has seen none of its
images, and a small part of the steps.

## Training

{n_train} objects of a stand-in, {n_test} others beside it; the last epoch is released.
Seed {seed}, {software}.

| epoch | training loss | validation loss | validation AUROC |
| --- | --- | --- | --- |
{history}

## Scores

Measured on {tested} of another seed, of which {n_lens} are lenses;
intervals are 95 %, by {draws} bootstrap draws. A score is the eighth root of the product over the
eight dihedral images, whose order is that of the product of the authors' code.

| metric | value | low | high |
| --- | --- | --- | --- |
{scores}

Kernels are released in float16, which changes no score by more than {loss:.2g} of itself and the
roc_auc by {area}; loaded, they are float32.
"""


def main(arguments=None):
    """Release the network of a run, or verify the one that was."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", help="folder of the run")
    parser.add_argument("--verify", action="store_true", help="compare instead")
    options = parser.parse_args(arguments)
    if not options.run and not options.verify:
        parser.error("name the folder of the run, or --verify")
    place = survey_folder.stand_in(SURVEY, RUNS, N_TEST, TEST_SEED)
    tested = survey_folder.opened(place, RUNS)
    if options.verify:
        weights_release.hold_metrics(measure(tested), FOLDER)
        return
    folder = Path(options.run)
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    model = build()
    checkpoints.read_weights(model, folder / TRAINING / training.FINAL)
    about = {
        "url": "", "survey": SURVEY, "data": made["data"], "network": "LASTRO EPFL, VIS",
        "paper": "nottingham", "experiment": EXPERIMENT, "scale": made["scale"],
        "metric": "roc_auc", "commit": weights_release.commit_of(folder), "source": "cast_lens",
        "licence": "MIT", "card": f"cards/{NAME}.md",
    }  # fmt: skip
    few = {INPUT: tested.batch(INPUT, range(min(256, len(tested.catalog))))}
    rows, told = weights_release.release_measured(
        model, FOLDER, NAME, about, inputs=few, exact=measure(tested, model),
        measure=partial(measure, tested),
    )  # fmt: skip
    text = card(folder, made, tested, rows, told)
    run.write_whole(FOLDER / about["card"], text)
    print(text)


def build():
    """Return the network with random weights."""
    return network.build_model(CONFIG, seed=0)


def measure(tested, model=None):
    """Score a stand-in with the released network, or another; return rows of metrics.csv."""
    if model is None:
        model = build()
        weights.load_into(model, NAME, manifest=FOLDER / weights.MANIFEST.name)
    rows = np.arange(len(tested.catalog))
    table = training.score(model, tested, rows, views=CONFIG.views, run_key=0, n_train=0)
    return weights_release.measure(
        NAME, weights_release.title(tested), table["label"].to_numpy(), table["score"].to_numpy(),
        weights_release.FIRST_CHALLENGE, draws=DRAWS, seed=TEST_SEED,
    )  # fmt: skip


def card(folder, made, tested, rows, told):
    """Return the model card, all of its numbers from files."""
    history = pd.read_csv(folder / TRAINING / "history.csv")
    beside = scores.read_scores(folder / TRAINING / "test.csv")
    return CARD.format(
        name=NAME, experiment=EXPERIMENT, scale=made["scale"], epochs=len(history),
        n_train=beside["n_train"].iloc[0], n_test=len(beside), seed=made["seed"],
        software=f"Keras {made['keras']}, {made['backend']}",
        history="\n".join(
            f"| {one.epoch} | {one.loss:.4f} | {one.val_loss:.4f} | {one.val_auc:.4f} |"
            for one in history.itertuples()
        ),
        tested=weights_release.title(tested), n_lens=tested.catalog["label"].sum(), draws=DRAWS,
        scores=weights_release.metrics_lines(rows), **told,
    )  # fmt: skip


if __name__ == "__main__":
    run.command(main, lambda: (DataError, DataUnavailableError))
