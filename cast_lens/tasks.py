"""Many tasks of minutes or hours each, done side by side: here, on a machine's GPUs, on a cluster.

A task's result is a file, its artefact, that is written last, whole or not at all. Who works on a
task holds the artefact's folder (`run.hold`), a lock that dies with its process. So a task can be
lost to a kill, or begun twice by a cluster, and is still done once.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cast_lens import run

ATTEMPTS = 3  # of a task, in a row, that leave nothing new in its folder
SHOWN = 5  # tasks that were given up and are named in the message
# How the backends of Keras, cuDNN and Python itself say that memory ran out, in small letters.
_MEMORY = ("resource_exhausted", "resourceexhausted", "out of memory", "outofmemory",
           "oom when allocating", "alloc_failed", "memoryerror")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Something to do whose result is a file.

    Attributes:
        name: Of the task, for messages.
        argument: What the function that does it is called with; picklable.
        artefact: The file written last. Its folder is of this task alone: a hidden file in it,
            such as a killed process leaves, is removed.
        shape: Name of what a process can use again for other tasks, such as a compiled network.
        batch: Objects in a batch, for the message when memory runs out; None if there are none.
    """

    name: str
    argument: Any
    artefact: Path
    shape: str = ""
    batch: int | None = None


def add_options(parser):
    """Add --jobs, --dask and --slurm to an argparse parser."""
    add = parser.add_argument
    add("--jobs", type=run.at_least(1), default=1, metavar="N",
        help="processes side by side, shared out over the GPUs that are visible")  # fmt: skip
    add("--dask", metavar="ADDRESS", help="of a Dask scheduler, or local for one of its own")
    add("--slurm", action="store_true", help="N jobs of SLURM, as dask-jobqueue is configured")


def is_asked(options):
    """Return whether the options of `add_options` ask for more than this process."""
    return options.jobs > 1 or options.slurm or bool(options.dask)


def run_tasks(tasks, begin, *, jobs, dask=None, slurm=False, title="tasks"):
    """Do all tasks whose artefact is not there yet.

    Args:
        tasks: Sequence of Task, those of one shape preferably together.
        begin: Function without arguments that each process calls once; returns the function that
            does a task, called with its `argument`. Picklable, and small. A ValueError that either
            raises is final for the task, anything else is tried `ATTEMPTS` times.
        jobs: Number of processes; several can share a GPU.
        dask: Address of a Dask scheduler, "local" for one of its own, None for none.
        slurm: Whether Dask asks SLURM for `jobs` jobs.
        title: Before the progress bar.

    Raises:
        RunError: If tasks were given up: says which and why, after all others are finished; or as
            soon as `ATTEMPTS` of them were before any was finished, for the others would fare
            alike. Also if Dask is asked for and not installed.
    """
    todo = [task for task in tasks if not task.artefact.exists()]
    if not todo:
        return
    options = {"total": len(tasks), "initial": len(tasks) - len(todo)}
    with tqdm(desc=title, unit="task", smoothing=0, **options) as bar:
        if dask or slurm:
            from cast_lens import task_cluster

            with task_cluster.connect(dask, slurm=slurm, jobs=min(jobs, len(todo))) as client:
                failed = task_cluster.run_there(todo, begin, client, bar=bar)
        else:
            from cast_lens import task_workers

            failed = task_workers.run_here(todo, begin, jobs=min(jobs, len(todo)), bar=bar)
    if failed:
        left = sum(not task.artefact.exists() for task in tasks)
        shown = "; ".join(list(failed.values())[:SHOWN])
        raise run.RunError(
            f"{len(failed)} of {len(tasks)} tasks were given up, {left} are not finished: {shown}"
            f"{'; ...' if len(failed) > SHOWN else ''}. What was finished is kept; mend the cause "
            "and run the same command again"
        )


def run_asked(tasks, begin, options, *, title):
    """Do all tasks as options ask, in processes with the software of this one.

    Args:
        tasks: As for `run_tasks`.
        begin: Likewise.
        options: As parsed after `add_options`.
        title: As for `run_tasks`.

    Raises:
        RunError: As `run_tasks`; also if a process, on a machine of a cluster, has other software.
    """
    run_tasks(
        tasks, partial(begin_alike, begin, run.versions()),
        jobs=options.jobs, dask=options.dask, slurm=options.slurm, title=title,
    )  # fmt: skip


def begin_alike(begin, versions):
    """Call `begin` in a process that has the software that its run began with.

    Args:
        begin: As for `run_tasks`.
        versions: Of `run.versions`, in the process that began the run.

    Raises:
        RunError: If this process has others.
    """
    here = run.versions()
    if here != versions:
        raise run.RunError(
            f"found {here} in a worker, expected {versions} as the run began with; give all "
            "workers the same environment and KERAS_BACKEND"
        )
    return begin()


def do(task, work):
    """Do a task, unless it is done, with its folder held; waits while another process holds it.

    Args:
        task: The Task.
        work: What `begin` of `run_tasks` returned.

    Raises:
        RunError: If it ends without its artefact.
    """
    with run.hold(task.artefact.parent, patience=math.inf) as folder:
        if task.artefact.exists():
            return
        for left in folder.glob(".?*"):  # by a process that was killed while it wrote
            if left.name != ".lock" and left.is_file():
                left.unlink()
        work(task.argument)
        if not task.artefact.exists():
            raise run.RunError(f"{task.name} ended without its file {task.artefact}")


def explain(task, cause, *, jobs):
    """Return why a task was given up, in one line that says what to do.

    Args:
        task: The Task.
        cause: Exception, or text.
        jobs: Number of processes.
    """
    if isinstance(cause, BaseException):
        cause = f"{type(cause).__name__}: {cause}"
    cause = " ".join(str(cause).split())
    if not any(word in cause.lower() for word in _MEMORY):
        return f"{task.name}: {cause}"
    tried = f" with batches of {task.batch}" if task.batch else ""
    remedy = [f"fewer --jobs than {jobs}"] if jobs > 1 else []
    if task.batch and task.batch > 1:
        remedy.append(f"batches of {task.batch // 2}")
    found = f"{task.name}: out of memory{tried}; try {', or '.join(remedy) or 'a larger machine'}"
    return f"{found} ({cause})"


def lost(losses, task):
    """Count how often in a row a task was lost without getting any further.

    Args:
        losses: {name of a task: (how often, when it had last written something)}; is updated.
        task: The Task.

    Returns:
        How often. A task that writes something that it keeps, such as a checkpoint, begins anew:
        it is not given up, however often it is killed.
    """
    files = task.artefact.parent.glob("[!.]*")
    now = max((path.stat().st_mtime_ns for path in files), default=0)
    count, before = losses.get(task.name, (0, now))
    losses[task.name] = (count + 1 if now == before else 1), now
    return losses[task.name][0]
