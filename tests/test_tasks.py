"""The queue: nothing is lost to a kill, nothing is done twice, and what failed says why."""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from cast_lens import run, task_workers, tasks
from tests import task_work
from tests.processes import children


def workers_of(process):
    """Return the process IDs of a run's workers."""
    found = []
    for child in children(process):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"cast_lens.task_workers" in command:
            found.append(child)
    return found


def runs(task):
    """Return the process ID of every run of a task."""
    path = task.artefact.parent.with_suffix(".runs")
    return path.read_text().splitlines() if path.exists() else []


def ended(task):
    """Return process ID and GPU of every run that came to the end."""
    path = task.artefact.parent.with_suffix(".ended")
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_tasks_are_done_once(tmp_path, jobs):
    todo = task_work.make(tmp_path, 7)
    tasks.run_tasks(todo, task_work.begin, jobs=jobs)
    assert [len(ended(task)) for task in todo] == [1] * 7
    stamps = [task.artefact.stat().st_mtime_ns for task in todo]
    tasks.run_tasks(todo, task_work.begin, jobs=jobs)
    assert [task.artefact.stat().st_mtime_ns for task in todo] == stamps
    pids = {line.split()[0] for task in todo for line in ended(task)}
    assert len(pids) <= jobs and str(os.getpid()) not in pids


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_40_tasks_survive_kills_every_few_hundred_milliseconds(tmp_path):
    todo, rng, over = task_work.make(tmp_path, 40, seconds=0.1, steps=12), random.Random(1), []
    kills = []

    def kill():
        while not over and len(kills) < 40:
            time.sleep(0.3)
            found = workers_of(os.getpid())
            if len(found) > 3:  # the last are left in peace, or they would never get to a step
                kills.append(rng.choice(found))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        tasks.run_tasks(todo, task_work.begin, jobs=8)
    finally:
        over.append(True)
        killer.join()
    assert len(kills) > 10
    assert all(task.artefact.exists() for task in todo)
    for task in todo:
        assert len(ended(task)) <= 1 and not [line for line in runs(task) if "again" in line]
        # What a killed run had done was not done again: the last one is alone in the artefact.
        assert task.artefact.read_text().splitlines() == runs(task)
    n_runs = sum(len(runs(task)) for task in todo)
    assert 40 < n_runs <= 40 + len(kills)


def test_a_process_stays_with_a_shape(tmp_path):
    todo = task_work.make(tmp_path, 12, shapes=2, seconds=0.05)
    tasks.run_tasks(todo, task_work.begin, jobs=2)
    seen = {(ended(task)[0].split()[0], task.shape) for task in todo}
    assert len(seen) <= 3  # of 4; the one that is done first helps the other


def test_a_task_that_kills_its_process_is_given_up_and_all_others_are_done(tmp_path):
    todo = task_work.make(tmp_path, 5, killed=[0])
    with pytest.raises(run.RunError) as error:
        tasks.run_tasks(todo, task_work.begin, jobs=1)
    assert str(error.value).startswith(
        "1 of 5 tasks were given up, 1 are not finished: task0: its process was ended by SIGKILL, "
        "perhaps because memory ran out (log: "
    )
    assert len(runs(todo[0])) == tasks.ATTEMPTS and not ended(todo[0])
    assert all(len(ended(task)) == len(runs(task)) == 1 for task in todo[1:])


def test_a_task_that_gets_further_is_not_given_up(tmp_path):
    todo = task_work.make(tmp_path, 1, steps=5, **{"killed each step": [0]})
    tasks.run_tasks(todo, task_work.begin, jobs=1)
    assert len(runs(todo[0])) == 6 > tasks.ATTEMPTS and len(ended(todo[0])) == 1


def test_what_the_user_must_mend_is_not_tried_again(tmp_path):
    todo = task_work.make(tmp_path, 3, refused=[1])
    with pytest.raises(run.RunError, match="1 of 3 .* 1 are not finished: task1: the loss is nan"):
        tasks.run_tasks(todo, task_work.begin, jobs=1)
    assert [len(runs(task)) for task in todo] == [1, 1, 1] and not todo[1].artefact.exists()


def test_out_of_memory_names_the_batch_that_was_tried_and_the_next(tmp_path):
    todo = task_work.make(tmp_path, 4, batch=64, memory=[3])
    with pytest.raises(run.RunError) as error:
        tasks.run_tasks(todo, task_work.begin, jobs=2)
    assert (
        "task3: out of memory with batches of 64; try fewer --jobs than 2, or batches of 32 "
        "(MemoryError: Unable to allocate 3 GiB (log: " in str(error.value)
    )
    assert len(runs(todo[3])) == tasks.ATTEMPTS == len(set(runs(todo[3])))  # each in a new process


@pytest.mark.parametrize("cause, batch, jobs, wanted", [
    ("OOM when allocating tensor", 1, 1, "t: out of memory with batches of 1; try a larger"),
    ("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory", None, 4,
     "t: out of memory; try fewer --jobs than 4"),
    ("OutOfMemoryError: CUDA out of memory", 9, 1,
     "t: out of memory with batches of 9; try batches of 4"),
    ("it does not bloom", 9, 2, "t: it does not bloom"),
])  # fmt: skip
def test_every_backend_has_its_own_words_for_it(cause, batch, jobs, wanted):
    task = tasks.Task("t", None, Path("t/end"), batch=batch)
    assert tasks.explain(task, cause, jobs=jobs).startswith(wanted)


def test_nothing_more_is_begun_if_all_that_is_begun_fails(tmp_path):
    todo = task_work.make(tmp_path, 9, refused=range(9))
    with pytest.raises(run.RunError, match="3 of 9 tasks were given up, 9 are not finished"):
        tasks.run_tasks(todo, task_work.begin, jobs=1)
    assert sum(len(runs(task)) for task in todo) == tasks.ATTEMPTS


@pytest.mark.parametrize("how, message", [
    ("refused", "none could begin: RunError: no such survey"),
    ("killed", "none could begin: its process was ended by SIGKILL"),
])  # fmt: skip
def test_processes_that_cannot_begin_end_the_run(tmp_path, how, message):
    begin = partial(task_work.begin_badly, how)
    with pytest.raises(run.RunError, match=message):
        tasks.run_tasks(task_work.make(tmp_path, 3), begin, jobs=1)


def test_a_task_that_another_process_holds_is_waited_for_and_not_done_again(tmp_path):
    todo = task_work.make(tmp_path, 1)
    working = threading.Thread(target=tasks.run_tasks, args=(todo, task_work.begin),
                               kwargs={"jobs": 1})  # fmt: skip
    with run.hold(todo[0].artefact.parent) as folder:
        working.start()
        time.sleep(1.5)
        assert working.is_alive() and not runs(todo[0])
        run.write_whole(folder / "end.txt", "by another")
    working.join(60)
    assert not working.is_alive() and not runs(todo[0])


def test_half_files_of_a_killed_process_are_removed(tmp_path):
    (task,) = task_work.make(tmp_path, 1)
    task.artefact.parent.mkdir()
    (task.artefact.parent / ".state.safetensors.x1").write_bytes(b"half")
    (task.artefact.parent / "step.txt").write_text("1")
    tasks.do(task, task_work.work)
    assert sorted(path.name for path in task.artefact.parent.iterdir()) == [
        ".lock", "end.txt", "step.txt",
    ]  # fmt: skip
    assert len(ended(task)) == 1
    with pytest.raises(run.RunError, match="task0 ended without its file"):
        task.artefact.unlink()
        tasks.do(task, lambda argument: None)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize("number, status", [
    (signal.SIGKILL, -signal.SIGKILL),
    pytest.param(signal.SIGTERM, run.EXIT_RUN_AGAIN, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, run.EXIT_RUN_AGAIN, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_that_is_stopped_leaves_no_process_and_goes_on(tmp_path, root, number, status):
    command = [sys.executable, "-m", "tests.task_work", str(tmp_path), "2"]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob("*/step.txt")):
            time.sleep(0.05)
        found = workers_of(process.pid)
        process.send_signal(number)
        assert process.wait(30) == status
    assert len(found) == 2
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
    if number != signal.SIGKILL:
        assert [path for path in tmp_path.rglob(".*") if path.name != ".lock"] == []
    assert subprocess.run(command, cwd=root, stderr=subprocess.PIPE).returncode == 0
    todo = task_work.make(tmp_path, 6)
    assert [len(ended(task)) for task in todo] == [1] * 6


def machine(folder, monkeypatch, gpus):
    """Make this a machine with NVIDIA GPUs, as far as nvidia-smi tells."""
    program = folder / "nvidia-smi"
    rows = "".join(f"echo '{k}, {gpu}'\n" for k, gpu in gpus.items())
    program.write_text(f"#!/bin/sh\n{rows}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_processes_share_gpus_memory_and_cpus(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, {0: "GPU-aa", 1: "GPU-bb"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(task_workers, "cpus", lambda: 16)
    gpus = task_workers.visible_gpus()
    found = [task_workers.environment(seat, 3, gpus) for seat in range(3)]
    assert [known["CUDA_VISIBLE_DEVICES"] for known in found] == ["GPU-aa", "GPU-bb", "GPU-aa"]
    # Two of three share one, and none may take more than its half.
    assert {known["XLA_PYTHON_CLIENT_MEM_FRACTION"] for known in found} == {"0.450"}
    assert {known["TF_FORCE_GPU_ALLOW_GROWTH"] for known in found} == {"true"}
    assert {known["OMP_NUM_THREADS"] for known in found} == {"5"}
    assert {known["TF_NUM_INTRAOP_THREADS"] for known in found} == {"5"}
    assert "CUDA_VISIBLE_DEVICES" not in task_workers.environment(0, 3, [])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert task_workers.environment(0, 1, [])["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("named, wanted", [
    ("", []), ("-1", []), ("1", ["1"]), ("1,0", ["1", "0"]), ("0,7", ["0"]), ("GPU-b", ["GPU-b"]),
    ("MIG-c", ["MIG-c"]),
])  # fmt: skip
def test_gpus_are_those_that_the_user_left_visible(tmp_path, monkeypatch, named, wanted):
    machine(tmp_path, monkeypatch, {0: "GPU-aa", 1: "GPU-bb"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert task_workers.visible_gpus() == wanted


def test_a_gpu_that_vanishes_gets_no_more_tasks(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, {0: "GPU-aa", 1: "GPU-bb"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    todo = task_work.make(tmp_path, 4, seconds=0.2)
    tasks.run_tasks(todo, task_work.begin, jobs=2)
    assert {ended(task)[0].split()[1] for task in todo} == {"GPU-aa", "GPU-bb"}
    before = task_workers.visible_gpus()
    machine(tmp_path, monkeypatch, {1: "GPU-bb"})
    assert task_workers.still_there(before) == ["GPU-bb"]
    machine(tmp_path, monkeypatch, {})
    with pytest.raises(run.RunError, match=r"none of the 2 GPU\(s\) of this run can be seen"):
        task_workers.still_there(before)


def test_options_ask_for_processes_or_a_cluster():
    parser = argparse.ArgumentParser()
    tasks.add_options(parser)
    for text, wanted in (("", False), ("--jobs 1", False), ("--jobs 2", True), ("--slurm", True),
                         ("--dask local", True)):  # fmt: skip
        assert tasks.is_asked(parser.parse_args(text.split())) is wanted
    with pytest.raises(SystemExit):
        parser.parse_args(["--jobs", "0"])


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for options in ({"dask": "local"}, {"slurm": True}):
        with pytest.raises(run.RunError, match="install the extra cluster"):
            tasks.run_tasks(task_work.make(tmp_path, 1), task_work.begin, jobs=1, **options)


@pytest.fixture
def dask():
    return pytest.importorskip("distributed", reason="needs Dask (EXTRAS=cluster)")


def test_dask_does_the_same_tasks_and_says_what_failed(tmp_path, dask):
    todo = task_work.make(tmp_path, 6, shapes=2, refused=[4], memory=[5], batch=8)
    with pytest.raises(run.RunError) as error:
        tasks.run_tasks(todo, task_work.begin, jobs=2, dask="local")
    assert [len(ended(task)) for task in todo] == [1, 1, 1, 1, 0, 0]
    assert "task4: the loss is nan" in str(error.value)
    assert "task5: out of memory with batches of 8; try fewer --jobs than 2, or batches of 4" in (
        str(error.value)
    )
    assert len(runs(todo[4])) == 1 and len(runs(todo[5])) == tasks.ATTEMPTS
    pids = {line.split()[0] for task in todo for line in ended(task)}
    assert len(pids) <= 2 and str(os.getpid()) not in pids


def test_dask_may_lose_workers(tmp_path, dask):
    todo = task_work.make(
        tmp_path, 4, steps=3, **{"killed each step": [2], "parent killed each step": [3]}
    )
    tasks.run_tasks(todo, task_work.begin, jobs=2, dask="local")
    assert [len(ended(task)) for task in todo] == [1] * 4
    assert len(runs(todo[2])) >= 4 <= len(runs(todo[3]))


def test_dask_on_a_scheduler_that_does_not_answer_says_so(tmp_path, dask, monkeypatch):
    from cast_lens import task_cluster

    monkeypatch.setattr(task_cluster, "_TIMEOUT", 1)
    with pytest.raises(run.RunError, match="no Dask scheduler at tcp://127.0.0.1:9"):
        tasks.run_tasks(task_work.make(tmp_path, 1), task_work.begin, jobs=1,
                        dask="tcp://127.0.0.1:9")  # fmt: skip


def test_slurm_without_its_configuration_says_where_it_belongs(tmp_path, dask):
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (EXTRAS=cluster)")
    with pytest.raises(run.RunError, match="expected in ~/.config/dask/jobqueue.yaml"):
        tasks.run_tasks(task_work.make(tmp_path, 1), task_work.begin, jobs=1, slurm=True)


SBATCH = """#!/bin/sh
# What sbatch does, here and now: keep a copy of the script, start it, say its number.
script="$SLURM_STAND_IN/script-$$"
cp "$1" "$script"
setsid sh "$script" > "$script.log" 2>&1 &
echo "$!"
"""
SCANCEL = """#!/bin/sh
kill -- -"$1" 2> /dev/null
echo "$1" >> "$SLURM_STAND_IN/ended"
"""
JOBQUEUE = """jobqueue:
  slurm:
    queue: gpu
    cores: 1
    memory: 2GB
    walltime: "00:10:00"
    interface: lo
    job-extra-directives: ["--gres=gpu:1"]
"""


def test_slurm_is_asked_for_jobs_that_do_the_tasks(tmp_path, dask, monkeypatch, root):
    """dask-jobqueue itself, against programs that do what sbatch and scancel do."""
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue (EXTRAS=cluster)")
    place = tmp_path / "slurm"
    place.mkdir()
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL}.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "jobqueue.yaml").write_text(JOBQUEUE)
    code = (
        "import sys; from pathlib import Path; from cast_lens import tasks; "
        "from tests import task_work; "
        "todo = task_work.make(Path(sys.argv[1]), 4, shapes=2); "
        "tasks.run_tasks(todo, task_work.begin, jobs=2, slurm=True)"
    )
    environment = os.environ | {
        "PATH": f"{place}:{os.environ['PATH']}", "DASK_CONFIG": str(place),
        "SLURM_STAND_IN": str(place),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=place, text=True,
                          env=environment, capture_output=True, timeout=120)  # fmt: skip
    told = "".join(path.read_text()[-2000:] for path in place.glob("script-*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + told
    todo = task_work.make(tmp_path, 4, shapes=2)
    assert [len(ended(task)) for task in todo] == [1] * 4
    scripts = [path for path in place.glob("script-*") if not path.suffix]
    assert len(scripts) == 2
    for script in scripts:
        assert "#SBATCH -p gpu" in script.read_text() and "--gres=gpu:1" in script.read_text()
