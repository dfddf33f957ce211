"""The same tasks through Dask: on this machine, on a scheduler that runs, or in jobs of SLURM."""

import os
import pickle
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from cast_lens import run, task_workers, tasks

_TIMEOUT = 60  # seconds that a scheduler has to answer
_ABSENT = ("Dask is not installed, expected for --dask and --slurm: install the extra cluster "
           "(make env EXTRAS=cluster, or pip install 'cast_lens[cluster]')")  # fmt: skip


@contextmanager
def connect(address, *, slurm, jobs):
    """Connect to Dask; what was started for it ends with it.

    Args:
        address: Of a scheduler, "local" for one of its own, None with `slurm`.
        slurm: Whether to ask SLURM for `jobs` jobs, each as ~/.config/dask/jobqueue.yaml says.
        jobs: Number of workers of a scheduler of its own.

    Yields:
        The distributed.Client.

    Raises:
        RunError: If Dask or dask-jobqueue is not installed, no scheduler answers, or the
            configuration of dask-jobqueue lacks something.
    """
    try:
        import distributed
    except ImportError as error:
        raise run.RunError(_ABSENT) from error
    cluster = _slurm(jobs) if slurm else _local(jobs) if address == "local" else None
    try:
        try:
            client = distributed.Client(cluster or address, timeout=_TIMEOUT)
        except (OSError, ValueError) as error:
            raise run.RunError(f"no Dask scheduler at {address}: {error}; name one that runs, "
                               "such as tcp://host:8786, or local") from error  # fmt: skip
        with client:
            yield client
    finally:
        if cluster:
            cluster.close()


def run_there(todo, begin, client, *, bar):
    """Do tasks on the workers of a Dask scheduler, which does again what one of them loses.

    Args:
        todo: List of Task; all workers see the folders of their artefacts.
        begin: As for `tasks.run_tasks`.
        client: The distributed.Client.
        bar: The tqdm bar.

    Returns:
        {name of each task that was given up: why}.
    """
    from distributed import as_completed

    losses: dict[str, tuple[int, int]] = {}
    data, failed, n_done = pickle.dumps(begin), {}, 0
    futures = {client.submit(_do, task, data, pure=False): task for task in todo}
    answers = as_completed(futures)
    try:
        for future in answers:
            task = futures[future]
            error = None if future.status == "finished" else future.exception()
            refused = "" if error else future.result()
            if not error and not refused:
                _wait_for(task.artefact)
            if task.artefact.exists():
                n_done += 1
                bar.update()
            elif error is None or tasks.lost(losses, task) >= tasks.ATTEMPTS:
                cause = str(error) if isinstance(error, RuntimeError) else error or refused
                cause = cause or f"{task.artefact} is not to be seen from here"
                failed[task.name] = tasks.explain(task, cause, jobs=len(client.nthreads()))
                if not n_done and len(failed) >= tasks.ATTEMPTS:
                    break
            else:
                again = client.submit(_do, task, data, pure=False)
                futures[again] = task
                answers.add(again)
        return failed
    finally:
        client.cancel(list(futures))


def _wait_for(path):
    """Wait for a file that another machine has written; a network's file system can be late."""
    end = time.monotonic() + _TIMEOUT
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)


def _do(task, data):
    """Do a task where Dask wants it; return why it is refused, or "".

    It is done in a process beside Dask's: Dask draws random numbers from the generator that the
    seeds of Keras's initial weights come from.
    """
    from distributed import get_worker

    here = get_worker()
    with here.__dict__.setdefault("cast_lens_lock", threading.Lock()):  # it can have many threads
        worker, begun = here.__dict__.get("cast_lens_worker", (None, None))
        if worker is None or begun != data or worker.process.poll() is not None:
            if worker:
                task_workers.dismiss([worker])
            scratch = Path(here.local_directory)
            (scratch / "begin").write_bytes(data)
            worker = task_workers.start(scratch, 0, {})
            here.__dict__["cast_lens_worker"] = worker, data
            kind, cause = task_workers.answer(worker)
            if kind == "refused":
                return cause
            if kind != "ready":
                raise RuntimeError(cause)
        with suppress(OSError):  # it has died; its answer will tell
            worker.connection.send(task)
        kind, cause = task_workers.answer(worker)
        if kind in ("failed", "died"):  # what is left of it cannot be trusted
            del here.__dict__["cast_lens_worker"]
            task_workers.dismiss([worker])
            raise RuntimeError(cause)
    return cause


def _local(jobs):
    """Start a scheduler and `jobs` workers here, each with its share of the machine."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = task_workers.visible_gpus()
    # No limit of memory: a pack that is mapped into it counts and costs none.
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "host": "127.0.0.1"}
    workers = {}
    for seat in range(jobs):
        known = dict(os.environ) | task_workers.environment(seat, jobs, gpus)
        workers[seat] = {"cls": Nanny, "options": options | {"env": known}}
    known = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": ":0"}
    scheduler = {"cls": Scheduler, "options": known}
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs="ERROR")


def _slurm(jobs):
    """Ask SLURM for `jobs` jobs with a worker each."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise run.RunError(_ABSENT) from error
    try:
        cluster = SLURMCluster()
    except (ValueError, TypeError) as error:
        raise run.RunError(
            f"dask-jobqueue found: {error}; expected in ~/.config/dask/jobqueue.yaml, under "
            "jobqueue.slurm, what a job asks for: queue, cores, memory, walltime, and the GPU as "
            "job-extra-directives"
        ) from error
    cluster.scale(jobs=jobs)
    return cluster
