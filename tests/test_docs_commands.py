"""Every `cast-lens` command of the documentation, run as it stands, on files of the names it has.

Three things differ, so that this takes a minute: a small network has the place of the released
ones, few objects that of many, and nothing is downloaded. The tutorial runs in test_docs as it is.
"""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from cast_lens import backbones, networks
from tests.faults.commands import cast_lens, signals, write_network  # noqa: F401
from tests.fits_files import survey_file
from tests.test_docs import ROOT, commands, name_of, subcommands
from tests.test_networks import small_trunk
from tests.test_report_page import make_run

pytestmark = pytest.mark.slow
pytest.importorskip("lenstronomy", reason="make env EXTRAS=mock")

PAGES, STORY = sorted((ROOT / "docs/commands").glob("*.md")), ROOT / "docs/your-survey.md"
N, SIDES = 24, {"u": 32, "g": 32, "r": 32, "i": 64, "z": 32}
BRANCHES = (
    networks.Branch("vis", ("VIS",), 64, 0.1, "repeated"),
    networks.Branch("nir", ("H", "J", "Y"), 32, 0.2, "all"),
)
BOUNDS = {"vis": ([-5.0], [5.0]), "nir": ([-5.0] * 3, [5.0] * 3)}
FIRST = ("mock", "pack", "score")  # what they make, others read


def commands_of(page):
    """Return (page, words) of the commands of a page that are ours."""
    return [(name_of(page), words) for program, words in commands(page) if program == "cast-lens"]


def shortened(words, network):
    """Return the words of a command for the small network, few objects and no download."""
    words = [str(network) if word == "sglc2-stand-in-v0" else word for word in words]
    if words[0] == "completeness":
        words = ["labelled" if word == "candidates" else word for word in words]
    if words[:2] == ["mock", "sglc2"]:
        words[words.index("--n") + 1] = "250"
    more = {
        "data": ["--data", "surveys/SpaceBasedTraining"], "matrix": ["--models", str(network)],
        "adapt": ["--sizes", "8", "--folds", "2", "--epochs", "1"],
    }  # fmt: skip
    return [*words, *more.get(words[0], ())]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that the pages name, and a small network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setattr(backbones, "efficient_net", small_trunk)
    path = tmp_path / "net/small.safetensors"
    path.parent.mkdir()
    write_network(path, BRANCHES, BOUNDS)
    write_tables(tmp_path)
    make_run(tmp_path / "runs")
    for name in ("reproductions", "cast_lens"):  # as in a clone
        (tmp_path / name).symlink_to(ROOT / name)
    return path


def write_tables(folder):
    """Write the cutouts and tables that the pages name."""
    (folder / "cutouts").mkdir()
    ids, rng = [f"n{k:02}" for k in range(N)], np.random.default_rng(3)
    labels = np.arange(N) % 2
    for k, name in enumerate(ids):
        for band, side in SIDES.items():
            image = rng.normal(size=(side, side)).astype(np.float32)
            image[side // 2 - 2 : side // 2 + 2] += labels[k]
            header = f"PIXSCALE= {6.4 / side:20.3f}"
            (folder / "cutouts" / f"{name}_{band}.fits").write_bytes(survey_file(image, header))
    objects = pd.DataFrame({"object_id": ids, "label": labels})
    for name in ("few", "labels"):
        objects.to_csv(folder / f"{name}.csv", index=False)
    places = {"ra": 10 + np.arange(N) / 10, "dec": np.full(N, -5.0)}
    truth = {"theta_e": 0.5 + np.arange(N) / 9, "mag_source": 20 + np.arange(N) / 5}
    objects.assign(**places, **truth).to_csv(folder / "catalog.csv", index=False)
    scores = objects.assign(run="a", n_train=9, score=labels * 0.5 + np.arange(N) / 60)
    scores.to_csv(folder / "scores.csv", index=False)
    pool = pd.DataFrame({"object_id": [*ids, *(f"m{k:03}" for k in range(200))]})
    some = {f"feat_{k}": rng.normal(size=len(pool)) for k in range(3)}
    pool.assign(**some).to_csv(folder / "features.csv", index=False)
    known = {"name": ["lens one", "far"], "RA [deg]": [10.1, 200.0], "DEC [deg]": [-5.0, 40.0]}
    pd.DataFrame(known | {"grading": ["A", "B"]}).to_csv(folder / "lenscat.csv", index=False)
    paths = {"id_str": ids, "file_loc": [f"cutouts/{name}_i.fits" for name in ids]}
    pd.DataFrame(paths | {"is_lens": labels}).to_csv(folder / "kids.csv", index=False)
    bands = {f"path_{band}": [f"cutouts/{name}_{band}.fits" for name in ids] for band in SIDES}
    every = pd.DataFrame({"id_str": ids, "is_lens": labels} | bands)
    every.to_csv(folder / "all.csv", index=False)
    pd.DataFrame(paths | {"lens": labels}).to_csv(folder / "mine.csv", index=False)


def prepare(word, run):
    """Make what a command reads and another command makes."""
    if word == "check-data":
        run("", ["mock", "--n", "12", "--no-check", "sglc1-space", "surveys/SpaceBasedTraining"])
    if word == "cutouts":
        run("", ["mock", "--n", "12", "--no-check", "sglc1-ground", "GroundBasedTraining"])
    if word == "completeness":  # "a folder of candidates with labels"
        words = "score all.csv --path-column path_{band} --label-column is_lens --bands i,u,g,r"
        run("", [*words.split(), "--model", "sglc2-stand-in-v0", "-o", "labelled"])
    if word == "matrix":
        shutil.copytree("data/mock-sglc2-seed0-pack", "packs/sglc2")


@pytest.fixture
def run(place, cast_lens):  # noqa: F811
    """Return a function that runs a command of a page, and tells which if it fails."""

    def call(page, words):
        found = cast_lens(*[os.path.expanduser(w) for w in shortened(words, place)])
        odd = words[0] in ("check-data", "data")  # which end with 1 for so small a survey
        assert found.status in {0, int(odd)}, (page, words, found.lines[-5:], found.out[-2000:])

    return call


def test_the_command_of_every_page_runs(run):
    todo = [one for page in PAGES for one in commands_of(page)]
    assert {words[0] for _, words in todo} == set(subcommands())
    for page, words in sorted(todo, key=lambda one: [*FIRST, one[1][0]].index(one[1][0])):
        prepare(words[0], run)
        run(page, words)


def test_ones_own_survey_goes_as_its_page_says(run):
    todo = commands_of(STORY)
    assert [words[0] for _, words in todo][:2] == ["score", "score"]
    for page, words in todo:
        run(page, words)
