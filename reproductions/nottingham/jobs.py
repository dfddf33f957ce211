"""Trainings side by side: each is a task of `cast_lens.tasks`, and afterwards found done."""

from dataclasses import replace
from functools import partial

from cast_lens import pack, tasks
from reproductions.nottingham import data, training
from reproductions.nottingham.network import Networks


def run_trainings(configs, survey, scale, real, seed, folder, options):
    """Train and score all networks of some cells that are not done yet.

    Args:
        configs: {cell: its Config}.
        survey: The Survey, its images in packs.
        scale: The Scale.
        real: Source of the real cutouts, or None.
        seed: Of the run.
        folder: Of the run.
        options: As parsed after `tasks.add_options`.

    Raises:
        RunError: As `tasks.run_asked`.
    """
    folder, todo = folder.resolve(), []
    for cell, config in configs.items():
        for k in range(scale.runs[cell]):
            artefact = training.last_of(config, survey, real, folder, cell, k)
            todo.append(tasks.Task(
                f"{cell}, run {k}", (cell, config, k), artefact, repr(config), config.batch
            ))  # fmt: skip
    challenge = None
    if survey.challenge is not None:
        challenge = survey.challenge.folder.resolve(), survey.challenge_rows
    places = survey.pack.folder.resolve(), challenge
    tasks.run_asked(todo, partial(begin, places, scale, seed, folder), options, title="trainings")


def begin(places, scale, seed, folder):
    """Make what a process needs for all its trainings; return the function that does one.

    Args:
        places: Folder of the survey's pack; folder and rows of the challenge's, or None.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run.
    """
    place, challenge = places
    survey = data.divide(pack.open_pack(place), scale, seed)
    if challenge:
        found = pack.open_pack(challenge[0])
        survey = replace(survey, challenge=found, challenge_rows=challenge[1])
    real, networks = data.real_cutouts(data.real_place()), Networks()

    def work(argument):
        cell, config, k = argument
        training.run_one(cell, config, survey, k, real, seed, networks, folder)

    return work
