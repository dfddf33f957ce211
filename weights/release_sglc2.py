"""Release a network for the second challenge that was trained on a stand-in survey, with its card.

`python weights/release_sglc2.py RUN PACK` takes the best epoch from the folder of a run of the
scale "release" (that of Bom et al. 2022) or "calibration" (a small one of ours), measures it on a
stand-in of another seed, and writes files, manifest, metrics and card; `--describe RUN` writes what
`networks.open_network` reads: the network and its calibration. `--verify PACK` measures what was
released once more and compares. `make verify-weights` does that.
"""

import argparse
import json
from dataclasses import dataclass
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
    CALIBRATION,
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
SCORES = """
## Scores

Measured on {tested} of another seed, of which {n_lens} are lenses; intervals are
95 %, by {draws} bootstrap draws. A score does not depend on the batch.

| metric | value | low | high |
| --- | --- | --- | --- |
{scores}

Kernels are released in float16, which changes no score by more than {loss:.2g} of itself and the
roc_auc by {area}; loaded, they are float32. The clippings of the training objects are in the file
of the head.
"""  # ends every card
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
"""

SMALL_CARD = """# {name}

A residual network of ours, not of the paper, for the images of the second challenge: VIS, H, J, Y
on the pixels of VIS, {vis_side} of them a side, then one trunk of five stages and a softmax of two
classes. It is what `make reproduce-sglc2 SCALE=calibration` trains to see how hard the images
are, with the alternative pre-processing of Bom et al. (2022), MNRAS 515, 5121, their images turned
and mirrored by whole pixels alone.

## What it is for

Tests, demonstrations and fine-tuning on images of VIS and the infrared. On stand-ins it finds more
than `{other}`. It must not be used to claim a lens, nor be taken for a network of the
paper: it has never seen a real galaxy, and the stand-in survey has fewer kinds of impostors than
the sky.

## Training

Fold 0 of ten of {survey}:
{n_train} objects for training, {n_test} to choose the epoch. Seed 0, {software}.

| stage | epoch | training loss | validation loss |
| --- | --- | --- | --- |
{history}
"""


@dataclass(frozen=True)
class Release:
    """What is released.

    Attributes:
        name: Of the release.
        cell: That is trained, one of CELLS.
        stages: Scales, one after the other; the last one's folder is that of the run.
        network: What it is, in words.
        experiment: Of the paper's module.
        card: The model card, before SCORES.
    """

    name: str
    cell: str
    stages: tuple[str, ...]
    network: str
    experiment: str
    card: str

    @property
    def config(self):
        """Its Config, without weights to begin with."""
        changes = SCALES[self.stages[-1]].changes
        return config_of(self.cell, changes | {"initial": "random"})


RELEASES = (
    Release(
        RELEASED, HEADLINE, STAGES,
        "two-branch EfficientNet-B2, HJY+VIS repeated, alternative pre-processing",
        f"table1.{HEADLINE}", CARD,
    ),
    Release(
        "sglc2-residual-stand-in-v0", CALIBRATION, ("calibration",),
        "residual, of five stages, HJY and VIS on one grid, alternative pre-processing",
        "calibration", SMALL_CARD,
    ),
)  # fmt: skip


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
        listed = weights.read_manifest(FOLDER / weights.MANIFEST.name)
        for one in RELEASES:
            if one.name in listed:
                weights_release.hold_metrics(measure(one, tested), FOLDER)
        return
    folder = Path(options.run)
    one, made = released_from(folder)
    model = network.build_model(one.config, seed=0)
    checkpoints.read_weights(model, place(one, folder) / checkpoints.BEST)
    about = {
        "url": "", "survey": "sglc2", "data": "stand-in", "network": one.network,
        "paper": "sglc2", "experiment": one.experiment, "scale": one.stages[-1],
        "metric": "roc_auc", "commit": weights_release.commit_of(folder), "source": "cast_lens",
        "licence": "MIT", "card": f"cards/{one.name}.md",
    }  # fmt: skip
    some = range(min(256, len(tested.catalog)))
    few = {name: tested.batch(name, some) for name in BANDS}
    rows, told = weights_release.release_measured(
        model, FOLDER, one.name, about, inputs=few, exact=measure(one, tested, model),
        measure=partial(measure, one, tested),
    )  # fmt: skip
    run.write_whole(FOLDER / about["card"], card(one, made, folder, tested, rows, told))
    print((FOLDER / about["card"]).read_text(encoding="utf-8"))


def released_from(folder):
    """Return the Release that a run is for, and the run's run.json."""
    made = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for one in RELEASES:
        if one.stages[-1] == made["scale"]:
            return one, made
    expected = " or ".join(one.stages[-1] for one in RELEASES)
    raise run.RunError(f"{folder} is of the scale {made['scale']}, expected {expected}")


def place(one, folder):
    """Return where the training of the released network lies in the folder of its run."""
    return folder / "folds" / one.cell / "fold0"


def describe(folder):
    """Write what the network is, and Platt's constants of the objects it was not trained on.

    Their losses chose between the epochs, which is the one thing that they had to do with it.
    """
    one, made = released_from(folder)
    held_out = scores.read_scores(place(one, folder) / "table1.csv")
    labels = held_out["label"].to_numpy()
    fitted = purity.calibrate(labels, logit(held_out["score"].to_numpy()), method="platt",
                              folds=2, seed=SEED)  # fmt: skip
    sides = {"vis": one.config.vis_side, "nir": one.config.nir_side}
    is_small = one.config.backbone == networks.RESIDUAL  # which takes all bands as they are
    fields = {
        "name": one.name,
        "backbone": one.config.backbone,
        "branches": [
            networks.Branch(name, BANDS[name], sides[name], look.SCALES[name],
                            "all" if is_small else filling)
            for name, filling in INPUTS[one.config.inputs].items()
        ],
        "flux_unit": FLUX_UNIT,
        "survey": "sglc2",
        "calibration": networks.Calibration(
            fitted.slope, fitted.intercept, len(labels), int(labels.sum()),
            f"sglc2, {made['data']} of seed {made['seed']}, held out",
        ),
    }  # fmt: skip
    networks.write_description(FOLDER / "networks" / f"{one.name}.json", fields)


def measure(one, tested, model=None):
    """Score a survey with a released network, or another; return rows of metrics.csv."""
    if model is None:
        model = network.build_model(one.config, seed=0)
        weights.load_into(model, one.name, manifest=FOLDER / weights.MANIFEST.name)
    everything = range(len(tested.catalog))
    table = training.score(model, one.config, tested, everything, run_key=0, n_train=0)
    labels, values = table["label"].to_numpy(), table["score"].to_numpy()
    survey = weights_release.title(tested)
    return weights_release.measure(
        one.name, survey, labels, values, MEASURED, draws=DRAWS, seed=SEED
    )


def card(one, made, folder, tested, rows, told):
    """Return the model card, all of its numbers from files."""
    trained = []
    for stage in one.stages:
        earlier = folder.with_name(folder.name.replace(f"-{one.stages[-1]}-", f"-{stage}-"))
        history = pd.read_csv(earlier / "folds" / SCALES[stage].cells[0] / "fold0" / "history.csv")
        trained += [f"| {stage} | {epoch.epoch} | {epoch.loss:.4f} | {epoch.val_loss:.4f} |"
                    for epoch in history.itertuples()]  # fmt: skip
    stages = []
    for stage in one.stages:
        scale = SCALES[stage]
        config = config_of(scale.cells[0], scale.changes)
        stages.append(
            f'"{stage}" is the input {config.inputs} with {config.vis_side} pixels of VIS, on '
            f"lenses of {config.least_n_pix} source pixels or more, and as many other objects."
        )
    held_out = pd.read_csv(place(one, folder) / "table1.csv")
    labels = tested.catalog["label"]
    return (one.card + SCORES).format(
        name=one.name, other=RELEASED, survey="a stand-in II SGLC of 20,000 objects, seed 0",
        n_train=held_out["n_train"].iloc[0], n_test=len(held_out), vis_side=one.config.vis_side,
        software=f"Keras {made['keras']}, {made['backend']}",
        history="\n".join(trained), stages="\n".join(stages), tested=weights_release.title(tested),
        n_lens=labels.sum(), draws=DRAWS, scores=weights_release.metrics_lines(rows), **told,
    )  # fmt: skip


if __name__ == "__main__":
    run.command(main, lambda: (DataError, DataUnavailableError))
