"""Tasks in processes of this machine, each with its share of the GPUs and CPUs."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from cast_lens import run, tasks
from cast_lens.workers import cpus

_STOPS = {signal.SIGINT, signal.SIGTERM}
# TensorFlow's own, and those of the libraries behind NumPy and PyTorch
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # fmt: skip
_JAX_SHARE = 0.9  # ASSUMED: of a GPU's memory, for all that share it; JAX takes 0.75 for one
_PATIENCE = 10.0  # seconds that a worker has to leave before it is killed
_LOOK = 0.5  # seconds between looks at what no pipe tells


@dataclass(eq=False)
class Worker:
    """A process that does tasks.

    Attributes:
        process: The subprocess.Popen.
        connection: Gets the tasks, and gives (kind, cause): "ready" once and then, of each task,
            "done", "refused" for a ValueError, or "failed", after which the process ends.
        seat: Its number.
        ready: Whether it waits for a task.
        shape: Of its last task.
        task: What it does now.
    """

    process: subprocess.Popen
    connection: Connection
    seat: int
    ready: bool = False
    shape: str = ""
    task: tasks.Task | None = None


def visible_gpus():
    """Return the NVIDIA GPUs that can be used, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        rows = None  # containers can have GPUs without this program
    else:
        rows = [line.split(", ") for line in answer.stdout.splitlines() if ", " in line]
    if named is None:
        return [uuid for _, uuid in rows or []]
    wanted = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [
        name
        for name in wanted
        if rows is None
        or name.startswith("MIG")
        or any(name == index or uuid.startswith(name) for index, uuid in rows)
    ]


def environment(seat, jobs, gpus):
    """Return the environment variables that give a worker its share of the machine.

    Args:
        seat: Number of the worker.
        jobs: How many there are.
        gpus: As of `visible_gpus`.
    """
    # What the user has set already is what he wants each to have.
    found = {name: os.environ.get(name, str(max(1, cpus() // jobs))) for name in _THREADS}
    if gpus:
        share = _JAX_SHARE / -(-jobs // len(gpus))
        found["CUDA_VISIBLE_DEVICES"] = gpus[seat % len(gpus)]
        for name, value in (("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
                            ("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.3f}")):  # fmt: skip
            found[name] = os.environ.get(name, value)
    return found


def run_here(todo, begin, *, jobs, bar):
    """Do tasks in `jobs` processes; one that dies is replaced and its task taken up again.

    Args:
        todo: List of Task.
        begin: As for `tasks.run_tasks`.
        jobs: Number of processes.
        bar: The tqdm bar.

    Returns:
        {name of each task that was given up: why}.

    Raises:
        RunError: If there were GPUs and none is left.
    """
    scratch = Path(tempfile.mkdtemp(prefix="cast_lens-tasks-"))
    (scratch / "begin").write_bytes(pickle.dumps(begin))
    workers: list[Worker] = []
    failed: dict[str, str] = {}
    try:
        _work_off(list(todo), workers, failed, jobs=jobs, scratch=scratch, bar=bar)
        return failed
    finally:
        dismiss(workers)
        if not any("(log: " in why for why in failed.values()):
            shutil.rmtree(scratch, ignore_errors=True)


def _work_off(queue, workers, failed, *, jobs, scratch, bar):
    """Give the workers tasks until none is left, or all that is begun fails."""
    losses: dict[str, tuple[int, int]] = {}
    gpus, n_done, n_early = visible_gpus(), 0, 0
    while queue or any(worker.task for worker in workers):
        _hire(workers, queue, jobs, gpus, scratch)
        for worker, kind, cause in _answers(workers):
            task, worker.task = worker.task, None
            worker.ready = kind in ("ready", "refused", "done")
            if kind in ("failed", "died"):  # what is left of it cannot be trusted
                workers.remove(worker)
                dismiss([worker])
                gpus = still_there(gpus)
                cause = f"{cause} (log: {scratch}/worker{worker.seat}.log)"
            if task is None:
                n_early = 0 if kind == "ready" else n_early + 1
                if kind == "refused" or n_early >= tasks.ATTEMPTS * jobs:
                    failed["the processes"] = f"none could begin: {cause}"
                    return
            elif task.artefact.exists():
                n_done += 1
                bar.update()
            elif kind == "refused" or tasks.lost(losses, task) >= tasks.ATTEMPTS:
                failed[task.name] = tasks.explain(task, cause, jobs=jobs)
                if not n_done and len(failed) >= tasks.ATTEMPTS:
                    return
            else:
                queue.insert(0, task)
        for worker in workers:
            if queue and worker.ready and worker.task is None:
                _give(worker, queue, workers)
        bar.set_postfix(given_up=len(failed), refresh=sys.stderr.isatty())


def _hire(workers, queue, jobs, gpus, scratch):
    """Start as many workers as there are tasks for, on the seats that are free."""
    taken = {worker.seat for worker in workers}
    free = [seat for seat in range(jobs) if seat not in taken]
    n_idle = sum(worker.task is None for worker in workers)
    for seat in free[: max(0, len(queue) - n_idle)]:
        workers.append(start(scratch, seat, environment(seat, jobs, gpus)))


def start(scratch, seat, known):
    """Start a worker: a Python of its own, that shares nothing with this one.

    A fork would have this process's TensorFlow, a thread its random numbers, and the processes of
    multiprocessing are not to be had in a worker of Dask.

    Args:
        scratch: Folder with the pickled `begin`; the worker's output goes to worker<seat>.log.
        seat: Number of the worker.
        known: Environment variables that it needs.
    """
    ours, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-m", "cast_lens.task_workers", str(theirs.fileno()), str(scratch)]
    known = os.environ | known | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # It starts with the signals blocked, until it has handlers of its own.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        with theirs, open(scratch / f"worker{seat}.log", "ab") as log:
            process = subprocess.Popen(
                command, env=known, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        return Worker(process, ours, seat)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def answer(worker):
    """Return the next (kind, cause) of a worker; "died" if there is none."""
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(_PATIENCE)
        return "died", _how_it_ended(worker.process.returncode)


def _give(worker, queue, workers):
    """Give a worker a task of its shape, or else of the shape with the fewest workers."""
    taken = [other.shape for other in workers if other is not worker]
    worker.task = min(queue, key=lambda task: (task.shape != worker.shape, taken.count(task.shape)))
    worker.shape = worker.task.shape
    queue.remove(worker.task)
    with suppress(OSError):  # it has died; the next look will tell
        worker.connection.send(worker.task)


def _answers(workers):
    """Wait a little, and return (worker, kind, cause) of all that have something to tell."""
    ready = wait([worker.connection for worker in workers], timeout=_LOOK)
    # The pipe of a worker that died is closed, unless a process that it started has it too.
    return [
        (worker, *answer(worker))
        for worker in workers
        if worker.connection in ready or worker.process.poll() is not None
    ]


def _how_it_ended(status):
    if status is None or status >= 0:
        return f"its process ended with status {status}"
    name = signal.Signals(-status).name
    perhaps = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{perhaps}"


def still_there(gpus):
    """Return the GPUs that have not vanished.

    Raises:
        RunError: If there were some and none is left: their tasks would go on on the CPU.
    """
    if not gpus:
        return []
    now = visible_gpus()
    if not [gpu for gpu in gpus if gpu in now]:
        raise run.RunError(
            f"none of the {len(gpus)} GPU(s) of this run can be seen any more; what was finished "
            "is kept, run the same command again when nvidia-smi shows them"
        )
    return [gpu for gpu in gpus if gpu in now]


def dismiss(workers):
    """Ask workers to leave, so that none leaves half a file, and end those that do not."""
    for worker in workers:
        if worker.task:
            worker.process.terminate()
        else:
            worker.process.kill()
    end = time.monotonic() + _PATIENCE
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, end - time.monotonic()))
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()


def _serve(connection, scratch):
    """Be a worker: do what comes through the pipe, until something fails or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        work = pickle.loads((scratch / "begin").read_bytes())()
        connection.send(("ready", ""))
        while True:
            task = connection.recv()
            try:
                tasks.do(task, work)
            except ValueError as error:  # of this task alone
                connection.send(("refused", str(error) or type(error).__name__))
            else:
                connection.send(("done", ""))
    except (run.Stopped, EOFError, BrokenPipeError):
        return
    except Exception as error:
        traceback.print_exc()
        kind = "refused" if isinstance(error, ValueError) else "failed"
        connection.send((kind, f"{type(error).__name__}: {error}"))


def _leave(number, frame):
    raise run.Stopped


def _end_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))
