"""Cheap tasks for tests of the queue: light to import, for every new process does it."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from cast_lens import run, tasks


def make(folder, n, *, shapes=1, seconds=0.0, steps=1, batch=None, **faults):
    """Return n tasks; `faults` are {how: numbers of the tasks that fail that way}."""
    found = []
    for k in range(n):
        how = [name for name, numbers in faults.items() if k in numbers]
        place = Path(folder) / f"task{k}"
        argument = {"folder": place, "seconds": seconds, "steps": steps, "faults": how}
        found.append(
            tasks.Task(f"task{k}", argument, place / "end.txt", f"shape{k % shapes}", batch)
        )
    return found


def begin():
    return work


def begin_badly(how):
    if how == "refused":
        raise run.RunError("no such survey")
    os.kill(os.getpid(), signal.SIGKILL)


def work(argument):
    """Go from step to step, from where it was left, and record every run of it."""
    here, faults = argument["folder"], argument["faults"]
    record = here.with_suffix(".runs")  # beside the folder: in it, it would count as getting on
    with open(record, "a", encoding="utf-8") as runs:
        runs.write(f"{os.getpid()}{' again' if (here / 'end.txt').exists() else ''}\n")
    if "refused" in faults:
        raise run.RunError("the loss is nan")
    if "memory" in faults:
        raise MemoryError("Unable to allocate 3 GiB")
    if "gone" in faults:
        raise RuntimeError("CUDA_ERROR_NO_DEVICE")
    if "killed" in faults:
        os.kill(os.getpid(), signal.SIGKILL)
    step = here / "step.txt"
    done = int(step.read_text()) if step.exists() else 0
    for number in range(done, argument["steps"]):
        time.sleep(argument["seconds"])
        run.write_whole(step, str(number + 1))
        if "killed each step" in faults:
            os.kill(os.getpid(), signal.SIGKILL)
        if "parent killed each step" in faults:  # the worker of Dask; the process ends with it
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
    run.write_whole(here / "end.txt", record.read_text())
    with open(here.with_suffix(".ended"), "a", encoding="utf-8") as ended:
        ended.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")


def main(folder, jobs):
    """Do some tasks of seconds, as a paper would."""
    run.command(
        partial(tasks.run_tasks, make(folder, 6, seconds=0.1, steps=4), begin, jobs=int(jobs))
    )


if __name__ == "__main__":
    from tests import task_work  # as the processes know it

    task_work.main(*sys.argv[1:])
