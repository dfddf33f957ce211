"""Trainings one after the other, or side by side: each is then a task of `cast_lens.tasks`."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cast_lens import pack, tasks
from reproductions.deeplense import diagnosis, training
from reproductions.deeplense.data import Survey, limit
from reproductions.deeplense.settings import Config, config_of


@dataclass(frozen=True)
class Training:
    """One network to train and score.

    Attributes:
        name: Of the experiment, from which its random numbers come.
        config: Its Config.
        seed: Of its random numbers.
        folder: For this training alone.
        keep: Whether the weights of the best epoch stay.
    """

    name: str
    config: Config
    seed: int
    folder: Path
    keep: bool


def plan(chosen, scale, seed, folder):
    """Return the trainings of some experiments, those of the diagnosis once with every seed.

    Args:
        chosen: Names of the experiments.
        scale: The Scale.
        seed: Of the run, and the first of the diagnosis.
        folder: Of the run.
    """
    found = []
    for name in chosen:
        if name != "diagnosis":
            found.append(Training(name, config_of(name, scale), seed, folder / name, keep=True))
            continue
        for n in range(seed, seed + scale.n_seeds):
            for change, config in diagnosis.plan(scale).items():
                # One name for all: with a seed, all begin alike and see objects in the same order.
                here = folder / name / change / f"seed{n}"
                found.append(Training(name, config, n, here, keep=False))
    return found


def run_trainings(todo, surveys, scale, seed, options):
    """Train and score all networks that are not done yet.

    Args:
        todo: List of Training.
        surveys: {task: Survey}.
        scale: The Scale.
        seed: Of the run.
        options: As parsed after `tasks.add_options`.

    Raises:
        RunError: As `training.train` or `tasks.run_asked`.
    """
    if not tasks.is_asked(options):
        for one in todo:
            train(one, surveys)
        return
    places = {task: survey.pack.folder.resolve() for task, survey in surveys.items()}
    each = []
    for one in todo:
        name = one.folder.name if one.keep else f"{one.folder.parent.name}, seed {one.seed}"
        one = replace(one, folder=one.folder.resolve())
        # Networks are built anew for every training, so no shape is worth waiting for.
        each.append(tasks.Task(name, one, one.folder / "history.csv", batch=one.config.batch))
    tasks.run_asked(each, partial(begin, places, scale.n_objects, seed), options, title="trainings")


def begin(places, n_objects, seed):
    """Make what a process needs for all its trainings; return the function that does one.

    Args:
        places: {task: folder of its pack}.
        n_objects: {task: objects that are used}.
        seed: Of the run.
    """
    surveys = {}
    for task, place in places.items():
        found = pack.open_pack(place)
        surveys[task] = Survey(task, found, limit(found.catalog, n_objects[task], seed))
    return partial(train, surveys=surveys)


def train(one, surveys):
    """Train and score one network, unless that was done."""
    survey = surveys[one.config.task]
    training.train(one.name, one.config, survey, one.seed, one.folder, keep=one.keep)
