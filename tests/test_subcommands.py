"""Subcommands share options to the letter, and answer as their options ask."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cast_lens import cli, subcommands


def parsed(*arguments, of="a table"):
    parser = argparse.ArgumentParser()
    subcommands.add_shared(parser, "candidates", "--engine", "--batch", "--strict")
    subcommands.add_files(parser, of)
    subcommands.add_output(parser, "runs/x")
    subcommands.add_answers(parser, "a line")
    return parser.parse_args(["here", *arguments])


def test_defaults_are_those_the_help_says():
    assert vars(parsed()) == {
        "candidates": Path("here"), "engine": "auto", "batch": 16, "strict": False,
        "pixel_scale": None, "mask_value": None, "id_column": "id_str", "path_column": "file_loc",
        "label_column": None, "output": Path("runs/x"), "dry_run": False, "json": False,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [("--batch", "0"), ("--engine", "torch"), ("--mask-value", "x")])
def test_values_that_no_subcommand_takes_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parsed(*wrong)
    assert wrong[0] in capsys.readouterr().err


def test_shared_options_are_in_the_help_of_the_subcommands_that_name_them():
    (action,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    texts = {name: one.format_help() for name, one in action.choices.items()}
    having = {name for name, text in texts.items() if "{auto,onnx,keras}" in text}
    assert having == {"score", "explain", "shortcuts", "matrix"}
    assert "of a table (id_str)" in texts["score"] and "of tables (id_str)" in texts["matrix"]
    assert "with {band} one a band" in " ".join(texts["grade"].split())
    assert "list the cells, write nothing" in texts["matrix"]


@pytest.mark.parametrize("options", [("--json",), ("--json", "--dry-run")])
def test_json_is_printed_whatever_else_was_asked_for(options, capsys):
    def never():
        raise AssertionError("a plan was made that nobody reads")

    assert subcommands.answered(parsed(*options), {"n": 3, "of": [1.5, None]}, never)
    assert capsys.readouterr().out == '{\n "n": 3,\n "of": [\n  1.5,\n  null\n ]\n}\n'


def test_a_row_has_none_for_what_is_no_number():
    table = pd.DataFrame({"name": ["a", None], "n": [1, 2], "x": [np.nan, 0.5]})
    assert subcommands.records(table) == [
        {"name": "a", "n": 1, "x": None}, {"name": None, "n": 2, "x": 0.5},
    ]  # fmt: skip


def test_a_dry_run_is_answered_with_its_plan_and_a_run_with_nothing_yet(capsys):
    assert subcommands.answered(parsed("--dry-run"), {}, lambda: "would write 3 files")
    assert capsys.readouterr().out == "would write 3 files\n"
    assert not subcommands.answered(parsed(), {}, lambda: "would write 3 files")
    assert capsys.readouterr().out == ""


def test_numbers_of_numpy_are_printed_if_a_function_makes_them_plain(capsys):
    subcommands.print_json([np.float32(0.25)], default=float)
    assert json.loads(capsys.readouterr().out) == [0.25]
    with pytest.raises(TypeError, match="float32"):
        subcommands.print_json([np.float32(0.25)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text, wanted", [
    ("0.2", 0.2), ("VIS=0.1,H=0.3", {"VIS": 0.1, "H": 0.3}), ("g=.2", {"g": 0.2}),
])  # fmt: skip
def test_a_pixel_scale_is_of_all_bands_or_of_each(text, wanted):
    assert subcommands.pixel_scale(text) == wanted


@pytest.mark.parametrize("text", ["wide", "", "VIS=", "VIS=0.1,H", "VIS=0.1=0.2", "VIS=0.1,"])
def test_a_pixel_scale_that_is_none_is_told(text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["score", "x", "--model", "y", "--pixel-scale", text])
    assert ended.value.code == 2
    assert (
        f"found {text!r}, expected arcsec such as 0.1, or VIS=0.1,H=0.3" in capsys.readouterr().err
    )
