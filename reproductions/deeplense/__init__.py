"""Aryal (2025): lens finding at 1:100, and telling dark-matter substructures apart, which failed.

"Evaluation Test: DeepLense PyTorch Implementations for Gravitational Lensing Findings", 31 March
2025; code and notebooks: github.com/prabeshAryal/gravitational-lensing-problem.

Data: DeepLense Task 1, 37,500 images of three classes, and Task 2, 50,055 of two (addresses in
settings.ADDRESSES; DATA= names the folder of one, or one that holds both as deeplense1 and
deeplense2). Without them stand-ins are made, and every row says so.
Command: make reproduce-deeplense [DATA=...] [SCALE=quick|paper|diagnosis] [EXPERIMENT=name]
Hardware: two CPU cores. Quick, eight minutes; diagnosis, an hour. Paper scale trains on 5.5 million
images of 64 pixels and a million of 150, about eight hours, of which task1.report, beyond.smallest
and every experiment of Task 2 take about half an hour each; JOBS=2 shares them out.

Departures. Task 1, where report and authors' code differ, both being experiments:
 1. Input: 3 x 64 x 64 in the report, 1 x 150 x 150 repeated to three channels in files and code.
    No files have 64 pixels, so `report` takes means over area of those of 150.
 2. The first dense layer follows: 4096 numbers, or 20,736 in the code, whose comment says 4 x 4.
 3. Normalization: channel by channel, with the moments of the training objects; in the code each
    image by its own mean and standard deviation, all channels together.
 4. Dropout of single pixels in the report; in the code of whole feature maps (Dropout2d).
 5. The 7,500 test images of the report do not exist. `report` halves the validation set, one half
    to choose the epoch and the rate, one to test; `authors_code` scores what chose them, as there.
 6. Cross-entropy; the code gives it class weights, all 1.
 7. The batch of 32 is in the code alone.
 8. The code defines a resizing and normalizing transform of ImageNet that it never applies; not
    here.
 9. What is scored is the epoch of lowest validation loss, the 19th there, not the last of Table 1.
    The "weighted" AUC is also the mean of the classes, which are balanced.
10. The authors set no seed and do not augment. Here everything is seeded; only `beyond` augments.
11. Their README says SDSS and (3, 64, 64) of Task 1 too; the images are simulated, of one band.
Task 2, likewise:
 1. Normalization as in 3 above.
 2. Dropout as in 4 above.
 3. The split of 27,364 to 3,041 is stratified in `report`, at random in `authors_code`.
 4. Class weights are those of the training objects in `report`, of training and validation in
    `authors_code`: 0.530 and 8.788 of all.
 5. The epoch of lowest validation loss is scored, the 16th there.
 6. The README's focal loss, ensembles and scales are in no code, and not here.
 7. scripts/inference.py imports a model that does not exist; nothing of it is here.
 8. Table 3 is that of the logs, and is compared epoch by epoch.
 9. Precision 0.08 is at a threshold of 0.5; purity against completeness is added here.
In all: Keras instead of PyTorch, with its initial weights, Adam (weight decay in the gradient, of
all parameters), plateau rule, weighted loss and running variance. Batch normalization adds
1.001e-5 instead of 1e-5, the least of the fused kernel. Rectifying and pooling are exchanged, which
gives the same numbers. Objects whose pixels are also in a later part are left out. Validation and
test are scored with 32 objects a batch, on which the mean of a weighted loss depends.
"""

from pathlib import Path

from cast_lens import data as data_files
from cast_lens import run, survey_folder, tasks
from reproductions.deeplense import drawing, jobs, results
from reproductions.deeplense.data import divide, load_data
from reproductions.deeplense.settings import EXPERIMENTS, SCALES


def main(arguments=None):
    """Reproduce the report: load, train, score, and set every number beside the reported one."""
    parser = run.parser("deeplense", EXPERIMENTS, tuple(SCALES))
    tasks.add_options(parser)
    options = parser.parse_args(arguments)
    scale, output = SCALES[options.scale], Path(options.output)
    chosen = run.choose(EXPERIMENTS, options.experiment)
    if not options.experiment:
        chosen = [name for name in chosen if name in scale.experiments]
    surveys = {}
    for task in sorted({EXPERIMENTS[name].task for name in chosen}):
        surveys[task] = load_data(
            task, options.data, real=options.real, n_objects=scale.n_objects[task],
            seed=options.seed, output=output,
        )  # fmt: skip
    if options.data_only:
        return
    kinds = sorted({survey.kind for survey in surveys.values()})
    path = output / f"deeplense-{'-and-'.join(kinds)}-{options.scale}-seed{options.seed}"
    identity = {"seed": options.seed, "scale": options.scale} | run.versions()
    with run.folder(path, identity, restart=options.restart) as folder:
        for task, survey in surveys.items():
            known = {"data": survey.kind,
                     "sha256": data_files.sha256(survey.pack.folder / "manifest.json")}  # fmt: skip
            run.claim(folder / f"task{task}.json", known, "Use --restart (RESTART=1).")
            survey_folder.note(survey.pack, folder)
            results.describe(survey, options.seed, folder)
            rows = divide(survey, "report", options.seed)["train"]
            drawing.draw_samples(survey, rows, folder)
        todo = jobs.plan(chosen, scale, options.seed, folder)
        jobs.run_trainings(todo, surveys, scale, options.seed, options)
        results.finish(folder, scale, options.scale, options.seed, surveys)
