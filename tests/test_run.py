"""Run folders under kills, races, signals and odd environments; faults 22-26, 32 and 33."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cast_lens import provenance, run, scores

ROOT = Path(run.__file__).parents[1]
IDENTITY = {"data": "real", "sha256": "ab" * 32, "seed": 0, "keras": "3.15.1", "numpy": "2.4.6"}
EXPERIMENTS = {f"paper.{name}": {"n": n, "rate": 0.1} for n, name in enumerate("abcdef", 400)}


# Hold a folder until standard input ends, or say why not.
HOLD = """
import json, sys
from cast_lens import run
try:
    with run.folder(sys.argv[1], json.loads(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.read()
except run.RunError as error:
    print(f"refused: {error}", flush=True)
"""

# Write to standard error past Python, as C++ libraries do, then end as told.
NATIVE = """
import os, sys
from cast_lens import run
with run.native_log():
    os.write(2, b"native line\\n")
    print("python line", file=sys.stderr)
    if sys.argv[1] == "fail":
        raise ValueError("why")
    if sys.argv[1] == "exit":
        sys.exit(0)
os.write(2, b"native again\\n")
print("python again", file=sys.stderr)
"""


# What the other child processes do; they import this file, and no TensorFlow.


ODD = {"paper.i": {"n": 50, "rate": 0.1, "name": "Üı ☃"}}


def seed_numpy(seed):
    """Stand in for `set_seed` where importing Keras would take seconds."""
    digest = hashlib.sha256(repr(seed).encode()).digest()
    np.random.seed(int.from_bytes(digest[:4], "big"))  # noqa: NPY002


def draw(n):
    """Return tables of random numbers, as an experiment's work does."""
    ids = [f"{k:05d} ä, =é" for k in range(n)]
    labels = np.random.randint(0, 2, n)  # noqa: NPY002 (the state that set_seed sets)
    values = np.random.random(n)  # noqa: NPY002
    history = {"step": range(n), "loss": np.random.normal(size=n), "note": "ıİß"}  # noqa: NPY002
    return {
        "history": pd.DataFrame(history),
        "scores": scores.score_table(ids, labels, values, run=0, n_train=n),
    }


def reproduce(path, experiments=EXPERIMENTS):
    with run.folder(path, IDENTITY) as folder:
        for name, config in experiments.items():
            run.experiment(folder / name, config, partial(draw, config["n"]), seed=(0, name))


def contents(folder):
    """Return {name: bytes} of all finished files that hang on no machine; others have a dot."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.startswith(".") and path.name != run.ORIGIN
    }


def fork(action, *args):
    """Start `action` in a child process and return its ID."""
    process = os.fork()
    if process == 0:
        try:
            action(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return process


def was_killed(process):
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def check_and_finish(path, whole):
    """Check that no file is torn, go on to the end and compare with the uninterrupted run."""
    torn = [name for name, content in contents(path).items() if whole[name] != content]
    assert not torn, torn
    reproduce(path)
    assert contents(path) == whole


def kill_at_random_moments(path, n=20):
    run.set_seed = seed_numpy
    start = time.perf_counter()
    assert not was_killed(fork(reproduce, path / "whole"))
    took = time.perf_counter() - start
    whole, moments, killed = contents(path / "whole"), random.Random(0), 0
    for k in range(n):
        process = fork(reproduce, path / f"cut{k // 3}")  # three kills in each folder
        time.sleep(moments.uniform(0, 0.5 * took))
        os.kill(process, signal.SIGKILL)
        killed += was_killed(process)
        found = contents(path / f"cut{k // 3}")
        assert all(whole[name] == content for name, content in found.items())
    for cut in path.glob("cut*"):
        check_and_finish(cut, whole)
    print(json.dumps({"killed": killed, "files": len(whole)}))


def kill_at_every_step(path):
    """Kill before and after each flush to disk and each rename, one child process a step."""
    run.set_seed = seed_numpy
    few = {"paper.a": {"n": 30}}
    calls, deadly = [], [None]

    def dying(function):
        def wrapper(*args):
            for moment in (lambda: None, lambda: function(*args)):
                moment()
                if len(calls) == deadly[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls.append(function.__name__)

        return wrapper

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    reproduce(path / "whole", few)
    whole, steps = contents(path / "whole"), len(calls)
    killed = 0
    for step in range(steps):
        calls.clear()
        deadly[0] = step
        killed += was_killed(fork(reproduce, path / "cut", few))
        deadly[0] = None
        found = contents(path / "cut")
        assert all(whole[name] == content for name, content in found.items())
        reproduce(path / "cut", few)
        assert contents(path / "cut") == whole
        shutil.rmtree(path / "cut")
    print(json.dumps({"killed": killed, "files": len(whole)}))


def exit_in_the_middle(path):
    run.set_seed = seed_numpy
    with run.folder(path, IDENTITY) as folder:
        run.experiment(folder / "paper.a", {"n": 5}, partial(os._exit, 3), seed=(0, "paper.a"))


def work_until_stopped(path):
    """Run two experiments, the second too long for any test, as a command does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a background shell hands it on
    run.set_seed = seed_numpy

    def slow():
        print("working", flush=True)
        time.sleep(60)

    def main():
        with run.folder(path, IDENTITY) as folder:
            config = EXPERIMENTS["paper.a"]
            work = partial(draw, config["n"])
            run.experiment(folder / "paper.a", config, work, seed=(0, "paper.a"))
            run.experiment(folder / "paper.b", EXPERIMENTS["paper.b"], slow, seed=(0, "paper.b"))

    run.command(main)


def fill_the_disk(path):
    """Write more than the system allows for one file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    run.command(lambda: run.write_whole(path / "scores.csv", b"x" * 50_000))


def write_everywhere(path):
    run.set_seed = seed_numpy
    reproduce(path, ODD)
    table = scores.read_scores(path / "paper.i" / "scores.csv")
    print(json.dumps({"ids": list(table["object_id"][:2]), "scores": list(table["score"])}))


def child(function, path, environment=None, **options):
    """Start a function of this file in a Python of its own."""
    script = (
        f"import pathlib, sys, test_run; test_run.{function.__name__}(pathlib.Path(sys.argv[1]))"
    )
    return python(script, path, environment=environment, **options)


def python(script, *arguments, environment=None, **options):
    places = [str(ROOT), str(Path(__file__).parent)]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)} | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def finish(process):
    """Return standard output of a child that must end well, within a minute."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


@pytest.fixture
def quick_seed(monkeypatch):
    monkeypatch.setattr(run, "set_seed", seed_numpy)


@pytest.fixture
def umask():
    """Return os.umask; the mask of the test session is set again afterwards."""
    mask = os.umask(0o022)
    yield os.umask
    os.umask(mask)


@pytest.fixture
def signals():
    """Set the handlers again that `run.command` replaced."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


# Whole-file writes


def test_text_is_written_as_utf_8_with_lf_and_bytes_as_they_are(tmp_path):
    run.write_whole(tmp_path / "text", "ä\n☃\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa4\n\xe2\x98\x83\n"
    run.write_whole(tmp_path / "bytes", b"\x00\r\n\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n\xff"


def test_write_whole_makes_the_folders_above(tmp_path):
    run.write_whole(tmp_path / "a b" / "ü" / "file", "x")
    assert (tmp_path / "a b" / "ü" / "file").read_text() == "x"


@pytest.mark.parametrize("step", ["fdopen", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), run.Stopped()])
@pytest.mark.parametrize("before", [None, b"earlier"])
def test_a_failing_step_leaves_what_was_there(tmp_path, monkeypatch, step, error, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run.os, step, fail)
        with pytest.raises(type(error)):
            run.write_whole(path, b"new content")
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_a_failing_write_tells_the_file_the_bytes_needed_and_free(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device; 9 bytes needed, ") as caught:
        run.write_whole(tmp_path / "file", "123456789")
    assert caught.value.errno == 28 and caught.value.filename == str(tmp_path / "file")
    assert int(str(caught.value).split("needed, ")[1].split(" free")[0]) > 0


def test_a_full_disk_is_one_line_and_leaves_the_earlier_file(tmp_path):
    run.write_whole(tmp_path / "scores.csv", b"earlier")
    process = child(fill_the_disk, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == run.EXIT_USAGE
    assert err.count("\n") == 1 and "50000 bytes needed" in err and "scores.csv" in err
    assert contents(tmp_path) == {"scores.csv": b"earlier"}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_a_file_is_replaced_and_not_written_over(tmp_path):
    run.write_whole(tmp_path / "file", "earlier")
    os.link(tmp_path / "file", tmp_path / "link")
    run.write_whole(tmp_path / "file", "later")
    assert (tmp_path / "file").read_text() == "later"
    assert (tmp_path / "link").read_text() == "earlier"


def test_the_content_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle):
        steps.append(("flushed", os.fstat(handle).st_size, fsync(handle)))

    def renamed(source, target):
        steps.append(("renamed", Path(target).name, replace(source, target)))

    monkeypatch.setattr(run.os, "fsync", flushed)
    monkeypatch.setattr(run.os, "replace", renamed)
    run.write_whole(tmp_path / "file", "ä" * 1000)
    assert steps == [("flushed", 2000, None), ("renamed", "file", None)]


@pytest.mark.parametrize(
    ("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0o002, 0o664)]
)
def test_the_mode_follows_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    run.write_whole(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert umask(0o022) == mask


# Run folders


def test_a_folder_that_is_held_is_refused_with_the_process_id(tmp_path):
    path = tmp_path / "run"
    holder = python(HOLD, path, json.dumps(IDENTITY))
    try:
        assert holder.stdout.readline() == "held\n"
        (path / "paper.a").mkdir()
        (path / "paper.a" / "scores.csv").write_text("finished")
        before = contents(path)
        for restart in (False, True):
            with (
                pytest.raises(run.RunError, match=f"in use by .* process ID {holder.pid}$"),
                run.folder(path, IDENTITY, restart=restart),
            ):
                pytest.fail("two runs on one folder")
        assert contents(path) == before  # --restart discarded nothing
    finally:
        holder.kill()
    assert holder.wait(20) == -signal.SIGKILL
    with run.folder(path, IDENTITY) as folder:  # the lock went with its holder
        assert contents(folder) == before
        assert (path / ".lock").read_text() == str(os.getpid())
    holder.communicate()


def test_of_runs_that_start_together_one_gets_the_folder(tmp_path):
    processes = [python(HOLD, tmp_path / "run", json.dumps(IDENTITY)) for _ in range(3)]
    try:
        said = [process.stdout.readline() for process in processes]
    finally:
        for process in processes:
            process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert said.count("held\n") == 1
    winner = processes[said.index("held\n")].pid
    refused = [line for line in said if line.startswith("refused")]
    assert len(refused) == 2
    assert all(f"process ID {winner}" in line or "unknown" in line for line in refused)


def test_a_folder_may_be_held_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), run.folder(tmp_path / "a" / "b", IDENTITY):
        raise ZeroDivisionError
    with run.folder(tmp_path / "a" / "b", IDENTITY) as folder:
        assert folder == tmp_path / "a" / "b"


@pytest.mark.parametrize("key", IDENTITY)
def test_another_identity_is_refused_with_the_difference(tmp_path, key):
    with run.folder(tmp_path, IDENTITY):
        run.write_whole(tmp_path / "scores.csv", "x")
    before = contents(tmp_path)
    with pytest.raises(run.RunError) as caught, run.folder(tmp_path, IDENTITY | {key: "other"}):
        pytest.fail("begun although it differs")
    message = str(caught.value)
    assert f"{key}: {IDENTITY[key]!r} then, 'other' now" in message
    assert "--restart" in message and str(tmp_path) in message and "\n" not in message
    assert not [other for other in IDENTITY if other != key and f"{other}:" in message]
    assert contents(tmp_path) == before


def test_keys_that_came_or_went_are_differences(tmp_path):
    with run.folder(tmp_path, {"seed": 0, "went": 1}):
        pass
    with pytest.raises(run.RunError) as caught, run.folder(tmp_path, {"seed": 0, "came": 2}):
        pytest.fail("begun although it differs")
    assert "went: 1 then, None now" in str(caught.value)
    assert "came: None then, 2 now" in str(caught.value)
    assert "seed" not in str(caught.value)


def test_the_same_identity_goes_on_and_keeps_the_files(tmp_path):
    with run.folder(tmp_path, IDENTITY | {"sizes": (1, 2)}):
        run.write_whole(tmp_path / "scores.csv", "x")
    with run.folder(tmp_path, {"sizes": [1, 2]} | IDENTITY) as folder:
        assert set(contents(folder)) == {"run.json", "scores.csv"}


def test_a_run_names_every_code_and_machine_it_was_run_with_once(tmp_path, monkeypatch):
    begun, later = {"commit": "a" * 40}, {"commit": "b" * 40}
    for here in (begun, begun, later, begun):
        monkeypatch.setattr(provenance, "here", lambda here=here: here)
        with run.folder(tmp_path, IDENTITY):
            pass
    assert json.loads((tmp_path / run.ORIGIN).read_text()) == [begun, later]


def test_restart_discards_what_was_there(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    path = tmp_path / "run"
    with run.folder(path, IDENTITY):
        run.write_whole(path / "paper.a" / "scores.csv", "x")
        (path / "link").symlink_to(outside)
        (path / "dangling").symlink_to(tmp_path / "absent")
    with run.folder(path, IDENTITY | {"seed": 1}, restart=True):
        assert sorted(p.name for p in path.iterdir()) == [".lock", "origin.json", "run.json"]
        assert json.loads((path / "run.json").read_text())["seed"] == 1
    assert (outside / "kept").exists()


def test_claim_writes_once_and_ends_with_the_remedy(tmp_path):
    run.claim(tmp_path / "config.json", {"b": 1, "a": [0.1, None]}, "Do this.")
    written = (tmp_path / "config.json").read_bytes()
    assert json.loads(written) == {"a": [0.1, None], "b": 1} and written.endswith(b"}\n")
    run.claim(tmp_path / "config.json", {"a": (0.1, None), "b": 1}, "Do this.")
    run.claim(tmp_path / "other.json", {"a": [0.1, None], "b": 1}, "Do this.")
    assert (tmp_path / "other.json").read_bytes() == written
    with pytest.raises(run.RunError, match=r"\(b: 1 then, 2 now\)\. Do this\.$"):
        run.claim(tmp_path / "config.json", {"a": [0.1, None], "b": 2}, "Do this.")
    assert (tmp_path / "config.json").read_bytes() == written


# The command line


NAMES = {"paper.random": 1, "paper.focal": 2, "paper": 3, "papers.x": 4, "beyond": 5}


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("paper.focal", ["paper.focal"]),
        ("paper", ["paper.random", "paper.focal", "paper"]),
        ("beyond", ["beyond"]),
        ("beyond, paper.focal,beyond", ["paper.focal", "beyond"]),
        ("", list(NAMES)),
        (None, list(NAMES)),
    ],
)
def test_choose_takes_whole_names_up_to_a_dot(name, chosen):
    assert run.choose(NAMES, name) == chosen


@pytest.mark.parametrize("name", ["pap", "paper.", "paper.foc", "focal", "PAPER", "paper*", "."])
def test_an_unknown_experiment_lists_those_there_are(name):
    with pytest.raises(run.RunError) as caught:
        run.choose(NAMES, name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in NAMES)


@pytest.mark.parametrize("name", ["beyond,", "beyond,pap"])
def test_one_unknown_name_among_known_ones_is_refused(name):
    with pytest.raises(run.RunError, match=f"called '{name.partition(',')[2]}'"):
        run.choose(NAMES, name)


def test_the_common_options_have_their_defaults():
    options = vars(run.parser("active_learning", NAMES).parse_args([]))
    assert options == {
        "data": None,
        "real": False,
        "data_only": False,
        "scale": "quick",
        "experiment": None,
        "seed": 0,
        "output": "runs",
        "restart": False,
    }


def test_help_names_the_module_the_target_and_the_experiments():
    text = " ".join(run.parser("active_learning", NAMES).format_help().split())
    assert "python -m reproductions active_learning" in text
    assert "make reproduce-active-learning" in text
    assert all(name in text for name in NAMES)


# Experiments


def test_a_finished_experiment_is_not_done_again(tmp_path, quick_seed):
    calls = []

    def work():
        calls.append(1)
        return draw(20)

    assert run.experiment(tmp_path / "a", {"n": 20, "sizes": (1, 2)}, work, seed=(0, "a"))
    before = contents(tmp_path)
    assert not run.experiment(tmp_path / "a", {"n": 20, "sizes": (1, 2)}, work, seed=(0, "a"))
    assert len(calls) == 1 and contents(tmp_path) == before
    assert set(before) == {
        f"a/{n}" for n in ("config.json", "history.csv", "scores.csv", "done.json")
    }
    hashes = json.loads(before["a/done.json"])
    assert hashes == {
        name: hashlib.sha256(before[f"a/{name}"]).hexdigest()
        for name in ("history.csv", "scores.csv")
    }


@pytest.mark.parametrize("name", ["scores.csv", "history.csv", "done.json"])
@pytest.mark.parametrize("harm", ["delete", "tamper", "empty"])
def test_a_harmed_file_is_made_again_as_it_was(tmp_path, quick_seed, name, harm):
    work = partial(draw, 20)
    run.experiment(tmp_path / "a", {}, work, seed=(0, "a"))
    before = contents(tmp_path)
    harmed = tmp_path / "a" / name
    if harm == "delete" or name == "done.json":
        harmed.unlink()
    elif harm == "tamper":
        harmed.write_bytes(before[f"a/{name}"].replace(b"0.", b"1.", 1))
    else:
        harmed.write_bytes(b"")
    assert run.experiment(tmp_path / "a", {}, work, seed=(0, "a"))
    assert contents(tmp_path) == before


def test_another_configuration_is_refused_with_the_field(tmp_path, quick_seed):
    run.experiment(tmp_path / "a", {"n": 5, "rate": 0.1}, partial(draw, 5), seed=0)
    before = contents(tmp_path)
    with pytest.raises(run.RunError, match=r"\(rate: 0\.1 then, 0\.2 now\).*--restart"):
        run.experiment(tmp_path / "a", {"n": 5, "rate": 0.2}, partial(draw, 5), seed=0)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("fault", [np.nan, np.inf, ZeroDivisionError, run.Stopped])
def test_work_that_fails_marks_nothing_done_and_is_done_anew(tmp_path, quick_seed, fault):
    run.experiment(tmp_path / "whole", {}, partial(draw, 20), seed=(0, "a"))

    def work():
        tables = draw(20)
        if isinstance(fault, type):
            raise fault
        tables["scores"].loc[7, "score"] = fault
        return tables

    with pytest.raises(fault if isinstance(fault, type) else scores.ScoreError) as caught:
        run.experiment(tmp_path / "cut", {}, work, seed=(0, "a"))
    assert isinstance(fault, type) or "object 00007" in str(caught.value)
    assert not run.is_done(tmp_path / "cut")
    assert not {"done.json", "scores.csv"} & set(contents(tmp_path / "cut"))
    assert run.experiment(tmp_path / "cut", {}, partial(draw, 20), seed=(0, "a"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_done_is_the_last_file_written(tmp_path, quick_seed, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(
        run.os, "replace", lambda a, b: (written.append(Path(b).name), replace(a, b))
    )
    run.experiment(tmp_path / "a", {}, partial(draw, 5), seed=0)
    assert written == ["config.json", "history.csv", "scores.csv", "done.json"]


def test_an_experiment_depends_on_its_seed_alone(tmp_path, quick_seed):
    """Neither the experiments before it nor the state of the generator matter (fault 33)."""
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        np.random.random(17)  # noqa: NPY002
        run.experiment(tmp_path / folder, {}, partial(draw, 30), seed=(seed, "a"))
    one, two, three = (contents(tmp_path / folder) for folder in ("one", "two", "three"))
    assert one == two
    assert one["scores.csv"] != three["scores.csv"]


# Kills


@pytest.mark.slow
def test_random_kills_end_as_an_uninterrupted_run(tmp_path):
    found = json.loads(finish(child(kill_at_random_moments, tmp_path)))
    assert found["killed"] >= 5  # the others had just finished
    assert found["files"] == 1 + 4 * len(EXPERIMENTS)


def test_a_kill_at_every_step_ends_as_an_uninterrupted_run(tmp_path):
    found = json.loads(finish(child(kill_at_every_step, tmp_path)))
    assert found["files"] == 5
    assert (
        found["killed"] == (5 + 1) * 4
    )  # before and after each flush and each rename; + 1: origin.json


def test_work_that_exits_marks_nothing_done(tmp_path, quick_seed):
    process = child(exit_in_the_middle, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert set(contents(tmp_path)) == {"run.json", "paper.a/config.json"}
    with run.folder(tmp_path, IDENTITY) as folder:
        assert run.experiment(folder / "paper.a", {"n": 5}, partial(draw, 5), seed=(0, "paper.a"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_run_me_again(tmp_path, quick_seed, number):
    process = child(work_until_stopped, tmp_path / "cut")
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == run.EXIT_RUN_AGAIN == 75
    assert err == "stopped; what was finished is kept, run the same command again to go on\n"
    assert run.is_done(tmp_path / "cut" / "paper.a")
    assert not run.is_done(tmp_path / "cut" / "paper.b")
    few = dict(list(EXPERIMENTS.items())[:2])
    reproduce(tmp_path / "whole", few)
    reproduce(tmp_path / "cut", few)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


# Commands


class OtherError(ValueError):
    pass


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (run.RunError("no such thing"), "error: no such thing\n"),
        (OtherError("two\nlines\n"), "error: two lines\n"),
        (
            PermissionError(13, "Permission denied", "f"),
            "error: [Errno 13] Permission denied: 'f'\n",
        ),
        (
            run.Stopped(),
            "stopped; what was finished is kept, run the same command again to go on\n",
        ),
    ],
)
def test_expected_errors_are_one_line_and_a_status(capsys, signals, error, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run.command(main, lambda: (OtherError,))
    assert caught.value.code == (75 if isinstance(error, run.Stopped) else 2)
    assert capsys.readouterr() == ("", line)


def test_unexpected_errors_keep_their_traceback(signals):
    def main():
        raise OtherError("not named")

    with pytest.raises(OtherError, match="not named"):
        run.command(main)


def test_a_command_that_succeeds_returns(capsys, signals):
    assert run.command(lambda: print("done")) is None
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_ends_the_command_quietly(lines):
    process = python(
        "import sys; from cast_lens import run; sys.stdin.read();"
        f"run.command(lambda: [print(k) for k in range({lines})])",
        environment={"PYTHONUNBUFFERED": ""},
    )
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


@pytest.mark.parametrize("end", ["well", "exit", "fail"])
def test_native_lines_go_to_a_log_that_only_an_error_keeps(tmp_path, end):
    process = python(NATIVE, end, environment={"TMPDIR": str(tmp_path)})
    _, err = process.communicate(timeout=60)
    logs = list(tmp_path.iterdir())
    if end == "well":
        assert process.returncode == 0 and logs == []
        assert err == "python line\nnative again\npython again\n"
    elif end == "exit":
        assert (process.returncode, err, logs) == (0, "python line\n", [])
    else:
        assert process.returncode == 1 and [log.read_text() for log in logs] == ["native line\n"]
        assert err.startswith(f"python line\nnative log: {logs[0]}\nTraceback")
        assert "native line" not in err


# Odd environments

ENVIRONMENTS = {
    "turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"},
    "german": {"LC_ALL": "de_DE.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "1"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "UTC"},
}


@pytest.mark.slow
def test_the_environment_changes_no_byte(tmp_path, quick_seed):
    reproduce(tmp_path / "here", ODD)
    folders = {name: tmp_path / f"Ordner für {name} ☃" for name in ENVIRONMENTS}
    processes = [
        child(write_everywhere, folders[name], environment, umask=0o077)
        for name, environment in ENVIRONMENTS.items()
    ]
    said = [finish(process) for process in processes]
    expected = draw_again(50)
    assert all(json.loads(line) == expected for line in said)
    for folder in folders.values():
        assert contents(folder) == contents(tmp_path / "here")
        modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
        assert modes == {0o600}


def draw_again(n):
    seed_numpy((0, "paper.i"))
    table = draw(n)["scores"]
    return {"ids": list(table["object_id"][:2]), "scores": list(table["score"])}


# Seeds and versions, with Keras


def draws(seed):
    import keras

    run.set_seed(seed)
    return (
        random.random(),
        np.random.random(3).tolist(),  # noqa: NPY002
        keras.ops.convert_to_numpy(keras.random.normal((3,))).tolist(),
    )


@pytest.mark.slow
def test_equal_seeds_give_equal_draws_of_python_numpy_and_keras():
    first = draws((0, "paper.a"))
    assert draws((0, "paper.a")) == first
    for other in ((1, "paper.a"), (0, "paper.b"), 0):
        again = draws(other)
        assert not [1 for ours, theirs in zip(first, again, strict=True) if ours == theirs]


@pytest.mark.slow
def test_an_experiment_is_repeated_bit_by_bit_with_the_real_seeds(tmp_path):
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        run.experiment(tmp_path / folder, {}, partial(draw, 30), seed=(seed, "a"))
    one, two, three = (contents(tmp_path / folder) for folder in ("one", "two", "three"))
    assert one == two and one["scores.csv"] != three["scores.csv"]


def test_versions_are_those_of_the_imported_packages():
    import keras
    import scipy
    import sklearn

    found = run.versions()
    assert found["backend"] == keras.config.backend()
    assert found["keras"] == keras.__version__ and found["numpy"] == np.__version__
    assert found["scikit-learn"] == sklearn.__version__ and found["scipy"] == scipy.__version__
    assert found[found["backend"]] == sys.modules[found["backend"]].__version__
    assert all(f"{name} {version}" in run.software() for name, version in found.items())
    assert "\n" not in run.software()
