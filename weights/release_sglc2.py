"""Release a network of Bom et al. (2022) that was trained on a stand-in survey, with its card.

`python weights/release_sglc2.py RUN PACK` takes the best epoch of the scale "release" from its run
folder, measures it on a stand-in of another seed, and writes files, manifest, metrics and card;
`--describe RUN` writes what `networks.open_network` reads: the network and its calibration.
`--verify PACK` measures what was released once more and compares. `make verify-weights` does that.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import pandas as pd
from scipy.special import logit

from cast_lens import (
    checkpoints,
    networks,
    pack,
    purity,
    run,
    scores,
    weights,
    weights_release,
)
from cast_lens.data import DataError, DataUnavailableError
from reproductions.sglc2 import look, network, training
from reproductions.sglc2.settings import (
    BANDS,
    HEADLINE,
    INPUTS,
    METRICS,
    RELEASED,
    SCALES,
    STAGES,
    config_of,
)

FOLDER = Path(__file__).parent
MEASURED = {name: METRICS[name] for name in ("roc_auc", "pr_auc", "max_f_beta_0.001")}
DRAWS, SEED = 2000, 0  # of the bootstrap
FLUX_UNIT = "maggies"  # a pixel: 10^(-0.4 m_AB), as the challenges' images have it
CARD = """# {name}

Two EfficientNet-B2 trunks (VIS, and H, J, Y), joined by a dense layer and a softmax of two classes:
the network of Bom et al. (2022), MNRAS 515, 5121, Figure 5, with their input "HJY+VIS repeated" and
their alternative pre-processing. **It is ours and not theirs: it was trained on simulated images of
this package, from random weights, for a fraction of their epochs.**

## What it is for

A start for the quick scale of `make reproduce-sglc2`, for tests, demonstrations and fine-tuning. It
must not be used to claim a lens, nor to judge the method of the paper: it has never seen a real
galaxy, and the stand-in survey has fewer kinds of impostors than the sky. Its score rests on VIS:
the infrared trunk began with random weights and no say in the head, and has learned next to nothing
in two epochs (`cast-lens shortcuts` shows it).

## Training

Fold 0 of ten of {survey}: {n_train} objects for training, {n_test} to choose the epoch. Seed 0,
{software}.

| stage | epoch | training loss | validation loss |
| --- | --- | --- | --- |
{history}

{stages} Losses are of these objects; what else each stage changes of the paper's settings stands in
SCALES of reproductions/sglc2/settings.py.

## Scores

Measured on {tested} of another seed, of which {n_lens} are lenses; intervals are
95 %, by {draws} bootstrap draws. A score does not depend on the batch.

| metric | value | low | high |
| --- | --- | --- | --- |
{scores}

Kernels are released in float16, which changes no score by more than {loss:.2g} of itself and the
roc_auc by {area}; loaded, they are float32. The clippings of the training objects are in the file
of the head.
"""


def main(arguments=None):
    """Release a network, or verify the one that was."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("run", nargs="?", help="folder of the run of scale release")
    add("pack", nargs="?", help="pack of a stand-in survey of another seed")
    add("--verify", action="store_true", help="compare instead")
    add("--describe", metavar="RUN", help="write the description of the network instead")
    options = parser.parse_args(arguments)
    if options.describe:
        describe(Path(options.describe))
        return
    if options.verify and not options.pack:  # argparse takes the one path for the first
        options.pack = options.run
    if not options.pack:
        parser.error("name the folder of the run and a pack")
    tested = pack.open_pack(options.pack)
    if options.verify:
        weights_release.hold_metrics(measure(tested), FOLDER)
        return
    folder = Path(options.run)
    model = network.build_model(config_of(HEADLINE, {"initial": "random"}), seed=0)
    best = folder / "folds" / HEADLINE / "fold0" / checkpoints.BEST
    checkpoints.read_weights(model, best)
    about = {
        "url": "", "survey": "sglc2", "data": "stand-in",
        "network": "two-branch EfficientNet-B2, HJY+VIS repeated, alternative pre-processing",
        "paper": "sglc2", "experiment": f"table1.{HEADLINE}", "scale": STAGES[-1],
        "metric": "roc_auc", "commit": weights_release.commit_of(folder), "source": "cast_lens",
        "licence": "MIT", "card": f"cards/{RELEASED}.md",
    }  # fmt: skip
    some = range(min(256, len(tested.catalog)))
    few = {name: tested.batch(name, some) for name in BANDS}
    rows, told = weights_release.release_measured(
        model, FOLDER, RELEASED, about, inputs=few, exact=measure(tested, model),
        measure=partial(measure, tested),
    )  # fmt: skip
    run.write_whole(FOLDER / about["card"], card(folder, tested, rows, told))
    print((FOLDER / about["card"]).read_text(encoding="utf-8"))


def describe(folder):
    """Write what the network is, and Platt's constants of the objects it was not trained on.

    Their losses chose between the epochs, which is the one thing that they had to do with it.
    """
    model = network.build_model(config_of(HEADLINE, {"initial": "random"}), seed=0)
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    held_out = scores.read_scores(folder / "folds" / HEADLINE / "fold0" / "table1.csv")
    labels = held_out["label"].to_numpy()
    fitted = purity.calibrate(labels, logit(held_out["score"].to_numpy()), method="platt",
                              folds=2, seed=SEED)  # fmt: skip
    branches = INPUTS[HEADLINE.partition(".")[0]]
    fields = {
        "name": RELEASED,
        "backbone": config_of(HEADLINE, {}).backbone,
        "branches": [
            networks.Branch(name, BANDS[name], model.input[name].shape[1], look.SCALES[name],
                            filling) for name, filling in branches.items()
        ],
        "flux_unit": FLUX_UNIT,
        "survey": "sglc2",
        "calibration": networks.Calibration(
            fitted.slope, fitted.intercept, len(labels), int(labels.sum()),
            f"sglc2, {made['data']} of seed {made['seed']}, held out",
        ),
    }  # fmt: skip
    networks.write_description(FOLDER / "networks" / f"{RELEASED}.json", fields)


def measure(tested, model=None):
    """Score a survey with the released network, or another; return rows of metrics.csv."""
    config = config_of(HEADLINE, {"initial": "random"})
    if model is None:
        model = network.build_model(config, seed=0)
        weights.load_into(model, RELEASED, manifest=FOLDER / weights.MANIFEST.name)
    everything = range(len(tested.catalog))
    table = training.score(model, config, tested, everything, run_key=0, n_train=0)
    labels, values = table["label"].to_numpy(), table["score"].to_numpy()
    survey = weights_release.title(tested)
    return weights_release.measure(
        RELEASED, survey, labels, values, MEASURED, draws=DRAWS, seed=SEED
    )


def card(folder, tested, rows, told):
    """Return the model card, all of its numbers from files."""
    trained = []
    for stage in STAGES:
        place = folder.with_name(folder.name.replace("-release-", f"-{stage}-"))
        history = pd.read_csv(place / "folds" / SCALES[stage].cells[0] / "fold0" / "history.csv")
        trained += [f"| {stage} | {epoch.epoch} | {epoch.loss:.4f} | {epoch.val_loss:.4f} |"
                    for epoch in history.itertuples()]  # fmt: skip
    stages = []
    for stage in STAGES:
        scale = SCALES[stage]
        config = config_of(scale.cells[0], scale.changes)
        stages.append(
            f'"{stage}" is the input {config.inputs} with {config.vis_side} pixels of VIS, on '
            f"lenses of {config.least_n_pix} source pixels or more, and as many other objects."
        )
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    held_out = pd.read_csv(folder / "folds" / HEADLINE / "fold0" / "table1.csv")
    labels = tested.catalog["label"]
    return CARD.format(
        name=RELEASED, survey="a stand-in II SGLC of 20,000 objects, seed 0",
        n_train=held_out["n_train"].iloc[0], n_test=len(held_out),
        software=f"Keras {made['keras']}, {made['backend']}",
        history="\n".join(trained), stages="\n".join(stages), tested=weights_release.title(tested),
        n_lens=labels.sum(), draws=DRAWS, scores=weights_release.metrics_lines(rows), **told,
    )  # fmt: skip


if __name__ == "__main__":
    run.command(main, lambda: (DataError, DataUnavailableError))
