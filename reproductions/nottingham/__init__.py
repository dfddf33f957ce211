"""Gabe (2022): does a network of 2019 find lenses better than the winner of the 2017 challenge?

"Classifying Cosmological Data with Machine Learning", University of Nottingham, 11 January 2022.
The winner, LASTRO EPFL: Schaefer, Geiger, Kuntzer & Kneib (2018), A&A 611, A2, and their code,
github.com/mariogeiger/lensfinder-euclid.

Data: I SGLC, space track, 20,000 labelled images in VIS (101 x 101): the first 18,000 by ID train,
the last 2,000 stop and test, as in the report.
Command: make reproduce-nottingham [DATA=...] [SCALE=quick|hour|paper] [EXPERIMENT=name]
Hardware: quick, two CPU cores, eight minutes; hour, an hour on the same. Paper scale is some forty
trainings of 1.8 million images of 101 x 101 pixels; a GPU is needed.

Departures:
 1. Keras 3 instead of 2; EfficientNetB0 is that of the package `efficientnet`: the one of Keras
    begins with layers that rescale the images as if they had 8 bits.
 2. The head is in Figure 6 alone, without a word in the text: that of EfficientNetB0 itself, with
    one output; `efficientnet_b0.dense_head` has the layers that Secs. 2.5.3 and 2.6.2 explain.
 3. Mean and standard deviation are of the training pixels; those of all pixels, test and all, are
    `efficientnet_b0.normalized_by_all`.
 4. A training of 100 epochs and one that early stopping ends are the same until it stops, so both
    come of one training. The report watches the validation loss in one sentence and the AUROC in
    another: both are scored. As in the report, these are the test objects: optimistic.
 5. The report's re-use of LASTRO's network is told by one sentence. `lastro` has its layers as
    Keras has them by default, under the report's own augmentation and optimizer.
    `lastro.original` follows LASTRO's code, for as many images as the other networks see (the
    authors' 50,000 to 700,000 batches of 30 are 1.5 to 21 million). Two versions of the code are
    public: one divides products with weights of unit variance by sqrt(fan_in), one draws the
    weights so much smaller, which learns sooner (`lastro.original.scaled_initially`).
 6. Scores of eight views are the eighth root of LASTRO's product: the same order, and 0.5 is a
    threshold again. TPR0 and TPR10 are those of the challenge; its ROC at 100 thresholds is not.
 7. The 100,000 images of the challenge's test have no stand-in of their own: a second stand-in of
    the training set, from which lenses are left out until their share is the test's 40 %.
 8. The few epochs of the scales quick and hour go with other learning rates, without rotation,
    zoom or drop-connect, and with LASTRO's weights of the later version.
"""

from pathlib import Path

from cast_lens import data as files
from cast_lens import run, survey_folder, tasks
from reproductions.nottingham import data, jobs, results, training
from reproductions.nottingham.network import Networks
from reproductions.nottingham.settings import EXPERIMENTS, SCALES, config_of

PACK_SEED, CHALLENGE_SEED = 1, 101  # stand-ins are of the run's seed and these


def main(arguments=None):
    """Reproduce the paper: load, train, score, and set every number beside the reported one."""
    parser = run.parser("nottingham", EXPERIMENTS, tuple(SCALES))
    parser.add_argument("--init", choices=("random", "imagenet"),
                        help="initial weights of EfficientNetB0 (default: random)")  # fmt: skip
    parser.add_argument("--stack", action="store_true",
                        help="also combine the images into train.fits and test.fits")  # fmt: skip
    tasks.add_options(parser)
    options = parser.parse_args(arguments)
    scale, output = SCALES[options.scale], Path(options.output)
    chosen = run.choose(EXPERIMENTS, options.experiment)
    cells = [cell for cell in scale.runs if cell in {EXPERIMENTS[name] for name in chosen}]
    if not cells:
        raise run.RunError(f"scale {options.scale} does not train {', '.join(chosen)}")
    pack = data.load_data(
        options.data, real=options.real, n_objects=scale.n_train + scale.n_test,
        seed=options.seed + PACK_SEED, output=output,
    )  # fmt: skip
    if options.data_only:
        return
    survey = data.divide(pack, scale, options.seed)
    survey = data.with_challenge(survey, chosen, scale, options.seed + CHALLENGE_SEED, output)
    real = data.real_cutouts(data.real_place())
    changes = {"initial": options.init} if options.init else {}
    identity = {
        "data": survey.kind, "sha256": files.sha256(pack.folder / "manifest.json"),
        "seed": options.seed, "scale": options.scale, **changes,
    } | run.versions()  # fmt: skip
    path = output / f"nottingham-{survey.kind}-{options.scale}-seed{options.seed}"
    networks = Networks()
    with run.folder(path, identity, restart=options.restart) as folder:
        survey_folder.note(pack, folder)
        if options.stack:
            data.write_stacks(survey, folder)
        configs = {cell: config_of(cell, scale, changes) for cell in cells}
        if tasks.is_asked(options):
            jobs.run_trainings(configs, survey, scale, real, options.seed, folder, options)
        for cell, config in configs.items():
            found = training.run_cell(
                cell, config, survey, scale.runs[cell], real, options.seed, networks, folder
            )
            results.write_experiments(found, cell, config, folder)
        results.finish(folder, survey, scale, options.scale, options.seed)
