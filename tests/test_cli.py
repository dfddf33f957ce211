"""The command line: its examples are commands, and the tools work one after the other."""

import argparse
import json
import shlex
import subprocess
import sys

import pandas as pd
import pytest

import cast_lens
from cast_lens import candidates, cli, grading


def subcommands():
    parser = cli._parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("name", subcommands())
def test_example_of_a_command_is_a_command(name):
    example = subcommands()[name].epilog
    program, *arguments = shlex.split(example.removeprefix("example: "))
    assert program == "cast-lens" and arguments[0] == name
    assert callable(cli._parser().parse_args(arguments).work)


def test_example_of_the_whole_is_a_command():
    arguments = shlex.split(cli._parser().epilog)
    assert callable(cli._parser().parse_args(arguments[2:]).work)


def test_the_package_is_the_command_too():
    command = [sys.executable, "-m", "cast_lens", "--version"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert cast_lens.__version__ in found.stdout


def call(*arguments):
    options = cli._parser().parse_args(list(map(str, arguments)))
    options.work(options)


@pytest.mark.slow
def test_real_cutouts_are_scored_graded_and_explained(real_data, tmp_path, capfd):
    folder, made = real_data / "sglc1/ground_based", tmp_path / "candidates"
    score = ("score", folder, "--model", "sglc2-stand-in-v0", "--bands", "I,U,G,R",
             "--mask-value", "100", "--clip", "own", "-o", made)  # fmt: skip
    call(*score, "--json")
    audit = json.loads(capfd.readouterr().out)["audit"]
    assert audit["n_images"] == audit["n_scored"] == 6
    table = candidates.read(made)
    assert set(table["object_id"]) == set(
        pd.read_csv(folder / "classifications.csv", dtype=str, comment="#").iloc[:, 0]
    )
    call("grade", made)
    assert (made / "grade.html").stat().st_size < grading.BUDGET
    call("explain", made, "--model", "sglc2-stand-in-v0", "-n", "1", "--samples", "100")
    explained = pd.read_csv(made / "explained/explanations.csv", dtype={"object_id": str})
    assert set(explained["object_id"]) == {table["object_id"][0]}
    assert set(explained["method"]) == {"LIME", "occlusion", "Grad-CAM"}
