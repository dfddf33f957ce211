"""Train and release an EfficientNet-B0 for VIS images of stand-ins of the I SGLC, with its card.

`python weights/release_sglc1.py` makes the stand-ins, trains from where it was left, measures the
network on a stand-in of another seed, and writes files, manifest, metrics, card and the description
that `networks.open_network` reads. `--verify` measures what was released once more and compares;
`make verify-weights` does that.
"""

import argparse
from functools import partial
from pathlib import Path

import keras
import numpy as np

from cast_lens import (
    adapting_training,
    checkpoints,
    dataset,
    features,
    folds,
    networks,
    own_clip,
    pixel_statistics,
    purity,
    run,
    survey_folder,
    weights,
    weights_release,
)
from cast_lens.data import DataError, DataUnavailableError

FOLDER = Path(__file__).parent
RUNS = Path("runs")  # where stand-ins are made and the training is kept
NAME = "sglc1-space-b0-stand-in-v0"
SURVEY, INPUT, BACKBONE = "sglc1-space", "vis", "b0"
BRANCHES = (networks.Branch(INPUT, ("VIS",), 101, 0.1, "repeated"),)
N_TRAIN, TRAIN_SEED = 6_000, 0  # of the stand-in for training
N_TEST, TEST_SEED = 2_000, 2  # of that for the card
SHARES = {"train": 9, "held out": 1}  # the latter are for the calibration alone
EPOCHS, BATCH, RATE = 8, 32, 2e-3  # the rate falls to nearly 0 as half a cosine
SETTINGS = adapting_training.Settings(augmentation="dihedral")
DRAWS = 2_000  # of the bootstrap
CARD = """# {name}

EfficientNet-B0 for one band, repeated three times, {side} x {side} pixels of {pixel_scale} arcsec;
fluxes are clipped at percentiles {percents} of the training pixels. **It was trained from random
weights on simulated images of this package, which imitate the space track of the first
lens-finding challenge.**

## What it is for

A start for the quick scales of `make reproduce-epfl` and for fine-tuning where weights of natural
images cannot be had, for tests and for demonstrations. It must not be used to claim a lens, nor to
judge networks that were trained on the challenge: it has seen none of its images.

## Training

{n_train} objects of {survey},
{epochs} epochs of Adam, batches of {batch}, a learning rate from {rate} to nearly 0, one of the
eight turns of the square at a time, no drop-connect; the last epoch is released. {n_held} further
objects are for the calibration. {software}.

| epoch | training loss |
| --- | --- |
{history}

## Scores

Measured on {tested},
of which {n_lens} are lenses; intervals are 95 %, by {draws} bootstrap draws.

| metric | value | low | high |
| --- | --- | --- | --- |
{scores}

Kernels are released in float16, which changes no probability, however small, by more than
{loss:.2g} of itself and the
roc_auc by {area}; loaded, they are float32.
"""


def main(arguments=None):
    """Train and release the network, or verify what was released."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--verify", action="store_true", help="compare instead")
    options = parser.parse_args(arguments)
    tested = stand_in(N_TEST, TEST_SEED)
    if options.verify:
        weights_release.hold_metrics(measure(tested), FOLDER)
        return
    source = stand_in(N_TRAIN, TRAIN_SEED)
    parts = folds.by_shares(source.catalog, SHARES, seed=TRAIN_SEED, groups=["plane"])
    model, history = train(source, parts["train"])
    about = {
        "url": "", "survey": SURVEY, "data": "stand-in",
        "network": "EfficientNet-B0, VIS repeated", "paper": "", "experiment": "", "scale": "",
        "metric": "roc_auc", "commit": weights_release.commit_of(RUNS / NAME),
        "source": "cast_lens", "licence": "MIT", "card": f"cards/{NAME}.md",
    }  # fmt: skip
    few = {INPUT: tested.batch(INPUT, range(min(256, len(tested.catalog))))}
    rows, told = weights_release.release_measured(
        model, FOLDER, NAME, about, inputs=few, exact=measure(tested, model),
        measure=partial(measure, tested),
    )  # fmt: skip
    held_out = parts["held out"]
    describe(source.catalog["label"].to_numpy()[held_out], logits(model, source, held_out))
    branch = BRANCHES[0]
    text = CARD.format(
        name=NAME, side=branch.side, pixel_scale=branch.pixel_scale,
        percents=" and ".join(f"{each:g}" for each in own_clip.PERCENTS),
        n_train=len(parts["train"]), n_held=len(held_out), survey=weights_release.title(source),
        epochs=EPOCHS, batch=BATCH, rate=RATE,
        software=f"Keras {keras.version()}, {keras.backend.backend()}",
        history="\n".join(f"| {n} | {value:.4f} |" for n, value in enumerate(history, 1)),
        tested=f"{weights_release.title(tested)} of another seed",
        n_lens=tested.catalog["label"].sum(), draws=DRAWS,
        scores=weights_release.metrics_lines(rows), **told,
    )  # fmt: skip
    run.write_whole(FOLDER / about["card"], text)
    print(text)


def stand_in(n_objects, seed):
    """Return the pack of a stand-in, made once."""
    place = survey_folder.stand_in(SURVEY, RUNS, n_objects, seed)
    return survey_folder.opened(place, RUNS)


def train(source, rows):
    """Train the network from where it was left.

    Args:
        source: The Pack.
        rows: Of its catalog.

    Returns:
        keras.Model of `networks.build_model` with the weights of the last epoch, and the losses of
        all epochs.
    """
    run.set_seed((TRAIN_SEED, NAME))
    inference = networks.build_model(BACKBONE, BRANCHES)
    features.set_bounds(inference, bounds(source, rows))
    model = adapting_training.training_model(inference, SETTINGS, TRAIN_SEED)
    model.set_weights(inference.get_weights())
    for layer in model.get_layer(f"trunk_{INPUT}").layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # few steps are better without drop-connect
    adapting_training.compile_model(model)
    batches = dataset.from_pack(
        source, rows, inputs=[INPUT], batch_size=BATCH, seed=TRAIN_SEED, fold=0, shuffle=True
    )
    ids = source.catalog["object_id"].to_numpy()
    kept = checkpoints.Checkpoint(
        RUNS / NAME, monitor="loss",
        objects=lambda epoch, step: ids[batches.rows(epoch * batches.steps + step)],
    )  # fmt: skip
    done = kept.restore(model)
    if done < EPOCHS:
        model.fit(
            dataset.feed(batches, first_epoch=done, repeat=True), steps_per_epoch=batches.steps,
            initial_epoch=done, epochs=EPOCHS, shuffle=False, verbose=2,
            callbacks=[adapting_training.falling(RATE, EPOCHS), kept],
        )  # fmt: skip
    inference.set_weights(model.get_weights())
    return inference, [row["loss"] for row in kept.history]


def bounds(source, rows):
    """Return the percentiles of the training pixels as `features.set_bounds` takes them."""
    sample = np.asarray(rows)[own_clip.spread(len(rows), own_clip.MEASURED)]
    found = pixel_statistics.percentiles(
        lambda: (source.batch(INPUT, sample[k : k + 256]) for k in range(0, len(sample), 256)),
        own_clip.PERCENTS,
    )
    return {INPUT: found.tolist()}


def logits(model, source, rows):
    """Return the logits of a lens, shape (objects,)."""
    batches = dataset.from_pack(
        source, rows, inputs=[INPUT], batch_size=64, seed=0, fold=0, shuffle=False
    )
    body = features.feature_model(model)
    found = body.predict(dataset.feed(batches, first_epoch=0, repeat=False), verbose=0)
    return features.lens_logits(found, model)


def describe(labels, held_out):
    """Write what the network is, and Platt's constants of the objects held out."""
    fitted = purity.calibrate(labels, held_out, method="platt", folds=2, seed=TRAIN_SEED)
    calibration = networks.Calibration(
        fitted.slope, fitted.intercept, len(labels), int(labels.sum()),
        f"{SURVEY}, stand-in of seed {TRAIN_SEED}, held out",
    )  # fmt: skip
    fields = {
        "name": NAME, "backbone": BACKBONE, "branches": list(BRANCHES), "flux_unit": "maggies",
        "survey": SURVEY, "calibration": calibration,
    }  # fmt: skip
    networks.write_description(FOLDER / "networks" / f"{NAME}.json", fields)


def measure(tested, model=None):
    """Score a stand-in with the released network, or another; return rows of metrics.csv."""
    if model is None:
        model = networks.build_model(BACKBONE, BRANCHES)
        weights.load_into(model, NAME, manifest=FOLDER / weights.MANIFEST.name)
    labels = tested.catalog["label"].to_numpy()
    values = logits(model, tested, np.arange(len(labels)))
    survey = weights_release.title(tested)
    return weights_release.measure(
        NAME, survey, labels, values, weights_release.FIRST_CHALLENGE, draws=DRAWS, seed=TEST_SEED
    )


if __name__ == "__main__":
    run.command(main, lambda: (DataError, DataUnavailableError))
