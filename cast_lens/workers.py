"""Processes that work side by side, one thread each, and do not outlive the one that asked."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

import threadpoolctl

from cast_lens.run import RunError

_STOPS = {signal.SIGINT, signal.SIGTERM}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def cpus():
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def run_all(function, tasks, *, workers, report):
    """Call a function once for each task, in any order, in processes of one thread each.

    Whatever ends this early, an error, a signal or a kill, ends the workers too.

    Args:
        function: Called as function(*task); picklable, like its results.
        tasks: Sequence of tuples.
        workers: Number of processes, 1 or more.
        report: Called here with each result as it comes.

    Raises:
        RunError: If a worker was killed from outside.
        Exception: The first that `function` raised; the tasks not yet done are dropped.
    """
    if not tasks:
        return
    others = set(multiprocessing.active_children())
    # fork needs no importable __main__, starts at once and hands on the lock of a held folder;
    # on macOS the system's BLAS does not survive it.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start)
    try:
        for job in as_completed(_submit(pool, function, tasks)):
            report(job.result())
    except BrokenProcessPool as error:
        raise RunError(
            "a worker was killed, perhaps because memory ran out; what was finished is kept, run "
            f"the same command again, with fewer workers than {workers} if it happens again"
        ) from error
    finally:
        # Not asked to leave: one killed before may have died with the lock they all wait for.
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        pool.shutdown(cancel_futures=True)


def _submit(pool, function, tasks):
    # The workers start here, with the signals blocked: none runs the handlers of its parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        with warnings.catch_warnings():  # Python 3.12 sees the threads of BLAS, which survive this
            warnings.filterwarnings("ignore", "This process .*fork", DeprecationWarning)
            return [pool.submit(function, *task) for task in tasks]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(1)  # what is loaded; the variables rule what is loaded later
    os.environ.update(dict.fromkeys(_THREADS, "1"))


def _end_with_parent():
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
