"""The command line as tests of its faults run it, and what it is given: images, tables, a network.

The network is a weighted sum over the pixels, without Keras. A test file imports the fixtures that
its tests take, and those that these take; no conftest.py has them, as they import Keras.
"""

import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cast_lens import cli, networks, run, score_shards, scoring
from tests.fits_files import survey_file
from tests.folders import hashes

SIDE, N = 32, 12
BRANCHES = (networks.Branch("all", ("g", "r"), SIDE, 0.1, "all"),)
ODD_IDS = ["00123", "1e5", "9" * 30, "=cmd|' /C calc'!A0", "@x", "-2", "<script>alert(1)</script>"]


@pytest.fixture(autouse=True)
def signals():
    """Leave the handlers of signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cast_lens(capfd):
    """Return a function that runs the command line here: its status, output and error lines."""

    def call(*arguments):
        capfd.readouterr()
        status = 0
        try:
            cli.main(list(map(str, arguments)))
        except SystemExit as ended:
            status = ended.code
        out, err = capfd.readouterr()
        lines = [line.rpartition("\r")[2].strip() for line in err.split("\n")]
        lines = [line for line in lines if line and not re.search(r"\d%\|", line)]  # a bar
        return SimpleNamespace(status=status, out=out, lines=lines)

    return call


def refused(found, *words):
    """Check that a command ended with one line that says so, and return that line."""
    assert found.status == run.EXIT_USAGE, found
    assert found.out == "" and len(found.lines) == 1, found
    assert found.lines[0].startswith("error: "), found
    for word in words:
        assert word in found.lines[0], (word, found)
    return found.lines[0]


def pixels(k, band):
    """Noise, and a source in the middle of every second object."""
    image = np.random.default_rng([k, ord(band)]).normal(size=(SIDE, SIDE)).astype(np.float32)
    image[14:18, 14:18] += 3 * (k % 2)
    return image


def encoded(image):
    return survey_file(image, f"PIXSCALE= {0.1:20}")


def put(folder, name, band, image):
    (folder / f"{name}_{band}.fits").write_bytes(encoded(image))


def write_survey(folder):
    folder.mkdir()
    for k in range(N):
        for band in "gr":
            put(folder, f"n{k:02}", band, pixels(k, band))
    return folder


@pytest.fixture
def survey(tmp_path):
    return write_survey(tmp_path / "survey")


@pytest.fixture
def labels(tmp_path):
    """Write a table of labels of the survey."""
    path = tmp_path / "labels.csv"
    rows = [f"n{k:02},{k % 2}" for k in range(N)]
    path.write_text("\n".join(["object_id,label", *rows]) + "\n", encoding="utf-8")
    return path


WEIGHTS = np.random.default_rng(5).normal(size=(SIDE, SIDE, 2)) / 40
WEIGHTS[14:18, 14:18] = 0.1


def weighted(arrays):
    """One object after the other: none hangs on its place in the batch."""
    return np.array([float((x * WEIGHTS).sum()) for x in arrays["all"].astype(np.float64)])


def describe(path, name, branches=BRANCHES):
    """Write the description of a network beside its weights."""
    fields = {"name": name, "backbone": "b0", "branches": branches, "flux_unit": "counts",
              "survey": "a test", "calibration": None}  # fmt: skip
    networks.write_description(path.with_suffix(".json"), fields)


def write_network(path, branches, bounds):
    """Write a network of random weights and its description; the test has made its trunks small."""
    from cast_lens import checkpoints, features

    model = networks.build_model("b0", branches)
    features.set_bounds(model, bounds)
    checkpoints.write_weights(model, path, {})
    describe(path, path.stem, branches)


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The file of a network, whose logits a test may change."""
    known = SimpleNamespace(path=tmp_path / "net/fake.safetensors", logits=weighted)
    known.path.parent.mkdir()
    known.path.write_bytes(b"")
    describe(known.path, "fake")

    def opened(member, engine, threads=None):
        if callable(member):
            return member()
        return score_shards.Scorer(
            "fake", "0123456789abcdef" * 4, BRANCHES, None, {}, "numpy",
            lambda arrays: known.logits(arrays),
        )  # fmt: skip

    monkeypatch.setattr(scoring, "open_scorer", opened)
    monkeypatch.setattr(score_shards, "open_scorer", opened)
    monkeypatch.setattr(scoring, "PATIENCE", 0.0)
    return known


def scored(cast_lens, source, net, output, *more):
    return cast_lens("score", source, "--model", net.path, "-o", output, "--batch", "5", *more)


@pytest.fixture
def made(cast_lens, survey, net, tmp_path):
    """The folder of candidates of the survey."""
    assert scored(cast_lens, survey, net, tmp_path / "made").status == 0
    return tmp_path / "made"


def left_out(folder):
    return pd.read_csv(folder / "left_out.csv", dtype=str, keep_default_na=False)


SOUND = encoded(pixels(1, "g"))


def csv_of(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def at(tmp_path, survey, labels, net, made):
    """Paths of what the commands read."""
    known = SimpleNamespace(survey=survey, labels=labels, net=net.path, made=made)
    rows = {
        "scores": ["run,n_train,object_id,label,score",
                   *(f"a,9,n{k:02},{k % 2},{(k % 2) * 2 + k / 20}" for k in range(N))],
        "truth": ["ID,theta_e,mag_source",
                  *(f"n{k:02},{0.5 + k / 9},{20 + k / 3}" for k in range(1, N, 2))],
        "positions": ["object_id,ra,dec", *(f"n{k:02},{10 + k / 10},-5" for k in range(N))],
        "known": ["name,RA [deg],DEC [deg],grading", "lens one,10.1,-5,A", "far,200,40,B"],
        "pool": ["object_id,feat_0,feat_1",
                 *(f"n{k:02},{k % 2 + k / 30},{k * 7 % 5}" for k in range(N))],
        "some": ["object_id,label", *(f"n{k:02},{k % 2}" for k in range(6))],
    }  # fmt: skip
    for name, lines in rows.items():
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        setattr(known, name, path)
    return known


class Killed(BaseException):
    """What no command catches."""


def named(folder):
    """Return the hashes of all files but those under a temporary name."""
    return {name: one for name, one in hashes(folder).items()
            if not Path(name).name.startswith(".")}  # fmt: skip
