"""A paper's trainings in two processes, against those in one."""

import os

from tests.folders import results


def hold_jobs_against_one(module, begin, tmp_path, monkeypatch, *, least):
    """Assert that a run with --jobs 2 leaves the files of one without.

    Args:
        module: Of the paper, with `main` and `jobs`.
        begin: Stands in for `module.jobs.begin`; a function of a module, for it is pickled.
        tmp_path: For both runs.
        monkeypatch: As pytest's.
        least: Trainings that there must be.
    """
    monkeypatch.setattr(module.jobs, "begin", begin)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        # As many as this process has, 0 being all: sums of float32 depend on it.
        monkeypatch.setenv(name, os.environ.get(name, "0"))
    for folder, arguments in (("one", []), ("two", ["--jobs", "2"])):
        module.main(["--output", str(tmp_path / folder), *arguments])
    assert len(list((tmp_path / "two").rglob("history.csv"))) >= least
    assert results(tmp_path / "two") == results(tmp_path / "one")
