"""Networks side by side: each is a task of `cast_lens.tasks`, and afterwards found done."""

from functools import partial

from cast_lens import pack, tasks
from reproductions.epfl import training
from reproductions.epfl.survey import divide


def run_networks(configs, survey, scale, seed, folder, options):
    """Train and score all networks that are not done yet.

    Args:
        configs: {name: Config}.
        survey: The Survey.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run.
        options: As parsed after `tasks.add_options`.

    Raises:
        RunError: As `training.train`, if there are no jobs, or `tasks.run_asked`.
    """
    if not tasks.is_asked(options):
        for name, config in configs.items():
            training.train(name, config, survey, scale, seed, folder)
        return
    folder = folder.resolve()
    todo = [
        tasks.Task(name, (name, config), training.place(folder, name) / training.LAST,
                   batch=config.batch)
        for name, config in configs.items()
    ]  # fmt: skip
    tasks.run_asked(
        todo,
        partial(begin, survey.pack.folder.resolve(), scale, seed, folder),
        options,
        title="networks",
    )


def begin(place, scale, seed, folder):
    """Make what a process needs for all its networks; return the function that does one.

    Args:
        place: Folder of the survey's pack.
        scale: The Scale.
        seed: Of the run.
        folder: Of the run.
    """
    survey = divide(pack.open_pack(place), scale.n_objects, scale.least_n_pix, seed)

    def work(argument):
        name, config = argument
        training.train(name, config, survey, scale, seed, folder)

    return work
