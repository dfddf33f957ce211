"""Bom et al. (2022), many trainings at once: the same files as one after the other."""

import os
import random
import signal
import threading
from functools import partial

import numpy as np
import pytest

from cast_lens import checkpoints, run, tasks
from reproductions.sglc2 import jobs, network
from tests import test_sglc2
from tests.folders import results
from tests.test_sglc2 import ground, paper, small, survey  # noqa: F401
from tests.test_tasks import workers_of

_begin = jobs.begin


def begin_small(*arguments):
    """Make every network of a process small, as the fixture `small` does here.

    Every epoch is written, as one of a real network would be.
    """
    checkpoints.SECONDS = 0.0
    network.backbones.efficient_net = test_sglc2.small_trunk
    return _begin(*arguments)


class Killer(threading.Thread):
    """Kills a worker every so often, once trainings have written something."""

    def __init__(self, folder, *, seconds, most):
        super().__init__()
        self.folder, self.seconds, self.most = folder, seconds, most
        self.n_kills, self.over = 0, threading.Event()

    def run(self):
        rng = random.Random(0)
        while self.n_kills < self.most and not self.over.wait(self.seconds):
            busy = list(self.folder.rglob("state.safetensors"))
            if busy and (found := workers_of(os.getpid())):
                os.kill(rng.choice(found), signal.SIGKILL)
                self.n_kills += 1


@pytest.fixture
def in_workers(monkeypatch):
    """Workers have small networks, and one thread each: sums of float32 hang on how many."""
    monkeypatch.setattr(jobs, "begin", begin_small)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def train(paper, small, survey, folder, arguments):  # noqa: F811
    """Train two folds of two cells in workers."""
    divided = paper.survey.divide(survey, small, 0)
    configs = {cell: paper.settings.config_of(cell, small.changes) for cell in small.cells}
    folder.mkdir(exist_ok=True)
    jobs.run_folds(configs, divided, small, 0, folder, jobs_options(arguments))
    return divided, configs


@pytest.fixture(scope="module")
def of_one_job(tmp_path_factory):
    """Where the files of one worker are kept for all tests that need them."""
    return tmp_path_factory.mktemp("one")


@pytest.mark.slow
@pytest.mark.parametrize("arguments, kills", [
    (["--jobs", "3"], 0), (["--jobs", "3"], 4), (["--jobs", "2", "--dask", "local"], 0),
])  # fmt: skip
def test_many_jobs_leave_the_bytes_of_one(
    paper, small, survey, tmp_path, of_one_job, in_workers, arguments, kills  # noqa: F811
):  # fmt: skip
    if "--dask" in arguments:
        pytest.importorskip("distributed", reason="needs Dask (EXTRAS=cluster)")
    if not any(of_one_job.iterdir()):
        train(paper, small, survey, of_one_job, ["--jobs", "1"])
    killer = Killer(tmp_path, seconds=0.1, most=kills)
    killer.start()
    try:
        divided, configs = train(paper, small, survey, tmp_path, arguments)
    finally:
        killer.over.set()
        killer.join()
    assert killer.n_kills == kills
    assert results(tmp_path) == results(of_one_job) and len(results(tmp_path)) > 20
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("fold*/*.csv")}
    networks, one = paper.network.Networks(), tmp_path / "here"
    for cell, config in configs.items():
        ours = paper.training.run_cell(cell, config, divided, 0, networks, tmp_path)
        if not kills:  # in this process, of as many threads as there are CPUs
            theirs = paper.training.run_cell(cell, config, divided, 0, networks, one)
            for name in ("table1", "test80k"):
                assert ours[name]["object_id"].tolist() == theirs[name]["object_id"].tolist()
                assert np.allclose(ours[name]["score"], theirs[name]["score"], rtol=0, atol=1e-5)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}  # nothing is done twice


@pytest.mark.parametrize("arguments, n_calls", [(["--jobs", "2"], 1), ([], 0)])
def test_the_paper_asks_for_workers_before_it_gathers_what_they_left(
    paper, small, tmp_path, monkeypatch, arguments, n_calls  # noqa: F811
):  # fmt: skip
    calls = []
    monkeypatch.setattr(jobs, "run_folds", lambda configs, *_: calls.append(list(configs)))

    def gather(*_):
        raise run.RunError("gathered")

    monkeypatch.setattr(paper.training, "run_cell", gather)
    with pytest.raises(run.RunError, match="gathered"):
        paper.main.main(["--output", str(tmp_path), *arguments])
    assert calls == [list(small.cells)] * n_calls


@pytest.mark.slow
def test_a_task_is_each_fold_of_each_cell_and_does_what_run_cell_does(
    paper, small, survey, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    monkeypatch.setattr(paper.results, "write_experiments", lambda *_: None)
    divided = paper.survey.divide(survey, small, 0)
    changes = small.changes | {"epochs": 1}
    cells = ("hjy.none", "hjy.alternative")
    configs = {cell: paper.settings.config_of(cell, changes) for cell in cells}
    found = []

    def do_here(todo, begin, **options):
        found.append(options)
        work = begin()
        for task in reversed(todo):
            tasks.do(task, work)
        found.extend(todo)

    monkeypatch.setattr(tasks, "run_tasks", do_here)
    options = jobs_options(["--jobs", "4"])
    jobs.run_folds(configs, divided, small, 0, tmp_path / "many", options)
    assert found[0] == {"jobs": 4, "dask": None, "slurm": False, "title": "folds"}
    assert [task.name for task in found[1:]] == [f"{c}, fold {k}" for c in cells for k in (0, 1)]
    assert len({task.shape for task in found[1:]}) == 1  # clipping is no part of a network
    assert {task.batch for task in found[1:]} == {16}
    networks = paper.network.Networks()
    for cell, config in configs.items():
        paper.training.run_cell(cell, config, divided, 0, networks, tmp_path / "one")
    assert results(tmp_path / "many") == results(tmp_path / "one")
    assert len(list((tmp_path / "many").rglob("history.csv"))) == 4


def jobs_options(arguments):
    parser = run.parser("sglc2", ())
    tasks.add_options(parser)
    return parser.parse_args(arguments)


def test_a_worker_with_other_software_is_refused(paper, small, survey, tmp_path):  # noqa: F811
    other = run.versions() | {"backend": "jax"}
    with pytest.raises(run.RunError, match="expected .*'backend': 'jax'.* as the run began with"):
        tasks.begin_alike(partial(jobs.begin, survey.folder, small, 0, tmp_path), other)
