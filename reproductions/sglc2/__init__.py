"""Bom et al. (2022): the winner of the second lens-finding challenge, a network of two branches.

"Developing a victorious strategy to the second strong gravitational lensing data challenge", MNRAS
515, 5121; weights: Zenodo 10.5281/zenodo.6344064.

Data: II SGLC, 100,000 objects in VIS (200 x 200) and H, J, Y (66 x 66), of which 20,000 are used
for ten-fold cross-validation and the rest for an independent test.
Command: make reproduce-sglc2 [DATA=...] [SCALE=quick|hour|paper] [EXPERIMENT=table1|test80k|npix]
SCALE=calibration, ours, asks how hard the images are; bright, then release, made the weights.
Hardware: two CPU cores. Paper scale is 180 trainings of 50 epochs of 18,000 objects and needs a
GPU; docs/cluster.md says how folds share several.

Departures:
 1. Keras 3 instead of 2. The network is that of the same package `efficientnet`, the optimizer has
    the numbers of the same tensorflow-addons (tests/parity).
 2. Percentiles are of a fold's training objects; the authors took them over all images.
 3. The authors do not say what lies outside a rotated image: the nearest pixel is repeated.
 4. "PR AUC" is average precision, as in the authors' notebook.
 5. Objects of one lens plane can be in training and validation, as in the paper, whose folds are
    drawn at random. Objects of equal pixels cannot.
 6. Table 1 scores the objects that chose the epoch, as the paper does: optimistic. test80k is not.
 7. Binary cross-entropy of a two-class softmax is computed as sparse categorical cross-entropy,
    which is the same number.
 8. The scales quick and hour begin with released weights, which a stand-in survey of another seed
    trained (weights/cards); they see few objects and few epochs, and their rows say so.
 9. What Secs. 4.1, 5 and 6 read off curves (onset of overfitting, N_pix and images at which scores
    leave chance or reach the full level) is defined by 95 % intervals (overfitting, limits).
10. "Maximum over median" is of flux above the smallest pixel: the median of the sky is noise.
11. transfer.n150.notebook repeats the authors' notebook: extremes of all images, test included.
"""

from pathlib import Path

from cast_lens import data, run, survey_folder, tasks
from reproductions.sglc2 import adapt, calibration, jobs, look, results, training
from reproductions.sglc2.network import Networks
from reproductions.sglc2.settings import (
    CALIBRATION,
    EXPERIMENTS,
    HEADLINE,
    RELEASED,
    SCALES,
    config_of,
)
from reproductions.sglc2.survey import divide, load_data, on_device


def main(arguments=None):
    """Reproduce the paper: load, train, score, and set every number beside the reported one."""
    parser = run.parser("sglc2", EXPERIMENTS, tuple(SCALES))
    parser.add_argument("--init", choices=("imagenet", "random", "released"),
                        help="initial weights (paper: imagenet; quick: released)")  # fmt: skip
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32",
                        help="of the trunks; bfloat16 is for GPUs (float32)")  # fmt: skip
    tasks.add_options(parser)
    options = parser.parse_args(arguments)
    scale, output = SCALES[options.scale], Path(options.output)
    changes = scale.changes | ({"initial": options.init} if options.init else {})
    changes |= {"precision": options.precision}
    where = {"real": options.real, "seed": options.seed, "output": output}
    n_objects = scale.n_sample + (scale.n_test or 0)
    chosen = run.choose(EXPERIMENTS, options.experiment)
    wanted = {EXPERIMENTS[name] for name in chosen}
    cells = [cell for cell in scale.cells if cell in wanted] or sorted(wanted)
    if (CALIBRATION in cells) != (CALIBRATION in scale.cells):
        raise run.RunError("the scale calibration has the experiment calibration, and no other has")
    survey, place = load_data(options.data, n_objects=n_objects, **where)
    if options.data_only:
        return
    survey = divide(survey, scale, options.seed)
    identity = {
        "data": survey.kind,
        "sha256": data.sha256(survey.pack.folder / "manifest.json"), "seed": options.seed,
        "scale": options.scale,
    } | run.versions() | ({"init": options.init} if options.init else {})  # fmt: skip
    if changes.get("initial") == "released":
        identity["released"] = RELEASED
    if options.precision != "float32":
        identity["precision"] = options.precision
    path = output / f"sglc2-{survey.kind}-{options.scale}-seed{options.seed}"
    networks = Networks()
    with run.folder(path, identity, restart=options.restart) as folder:
        survey_folder.note(survey.pack, folder)
        configs = {cell: config_of(cell, changes) for cell in cells}
        if tasks.is_asked(options):
            jobs.run_folds(configs, survey, scale, options.seed, folder, options)
        else:
            survey = on_device(survey, configs.values())
        for cell, config in configs.items():
            found = training.run_cell(cell, config, survey, options.seed, networks, folder)
            if cell == CALIBRATION:
                calibration.write(folder, found, survey, options.seed, Path(__file__).parents[1])
            else:
                results.write_experiments(found, cell, survey, options.seed, folder)
        if scale.n_explained and "look" in chosen:
            look.run_look(
                config_of(HEADLINE, changes), survey, results.best_scores(folder), place,
                scale.n_explained, scale.n_samples, options.seed, networks, folder,
            )  # fmt: skip
        if scale.adapt and {"transfer", "scratch"} & set(chosen):
            ground, _ = load_data(None, n_objects=scale.n_ground, name="sglc1-ground", **where)
            survey_folder.note(ground, folder)
            base = config_of(HEADLINE, changes)
            found = adapt.run_adapt(
                ground, scale.adapt, scale.n_groups, base, options.seed, networks, folder
            )
            results.write_adapted(found, folder)
        if scale.n_test != 0 and CALIBRATION not in cells:  # the others make weights
            results.finish(folder, survey, scale, options.scale, options.seed)
