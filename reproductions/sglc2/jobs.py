"""Trainings side by side: each fold of each cell is a task of `cast_lens.tasks`.

It leaves what `training.run_fold` leaves in one process, and afterwards all folds are found done.
"""

from dataclasses import replace
from functools import partial

from cast_lens import pack, tasks
from reproductions.sglc2.network import Networks
from reproductions.sglc2.survey import divide, on_device
from reproductions.sglc2.training import run_fold


def run_folds(configs, survey, scale, seed, folder, options):
    """Train and score all folds of all cells that are not done yet.

    Args:
        configs: {cell: its Config}.
        survey: The Survey.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run.
        options: As parsed after `tasks.add_options`.

    Raises:
        RunError: As `tasks.run_asked`.
    """
    folder, todo = folder.resolve(), []
    for cell, config in configs.items():
        shape = repr(replace(config, clipping=""))  # which is weights, see network.Networks
        for fold in range(len(survey.parts)):
            artefact = folder / "folds" / cell / f"fold{fold}" / "history.csv"
            name = f"{cell}, fold {fold}"
            todo.append(tasks.Task(name, (cell, config, fold), artefact, shape, config.batch))
    tasks.run_asked(
        todo,
        partial(begin, survey.pack.folder.resolve(), scale, seed, folder, tuple(configs.values())),
        options,
        title="folds",
    )


def begin(place, scale, seed, folder, configs):
    """Make what a process needs for all its folds; return the function that does one.

    Args:
        place: Folder of the survey's pack.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run.
        configs: All that there is to train.
    """
    survey, networks = on_device(divide(pack.open_pack(place), scale, seed), configs), Networks()

    def work(argument):
        cell, config, fold = argument
        run_fold(cell, config, survey, fold, seed, networks, folder)

    return work
