"""Faults that a person meets at the command line: one line that says what to do, nothing lost.

A network here is a weighted sum over the pixels, without Keras; the commands that need a real one
(explain, features, adapt) are in test_network_commands.py.
"""

# ruff: noqa: F811, fixtures are imported, and arguments of tests

import csv
import errno
import gzip
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from cast_lens import candidates, cli, run, scores
from tests import packs
from tests.faults.commands import (  # noqa: F401
    ODD_IDS,
    SIDE,
    SOUND,
    Killed,
    N,
    at,
    cast_lens,
    csv_of,
    labels,
    left_out,
    made,
    named,
    net,
    pixels,
    put,
    refused,
    scored,
    signals,
    survey,
    weighted,
)
from tests.fits_files import HEADER, by_hand, survey_file, within
from tests.folders import hashes, stamps
from tests.test_report_page import make_run

COMMA = "a,b"


def logits_of(folder):
    return candidates.read(folder).set_index("object_id")["logit"]


# Rows 1 to 9: files that are no images


def card(text):
    return [*HEADER[:2], text, *HEADER[3:]]


BROKEN = {
    "header-cut": (SOUND[:2000], "truncated"),
    "end-cut": (SOUND[:2879], "truncated"),
    "pixels-cut": (SOUND[:-2881], "truncated"),
    "gzip-cut": (gzip.compress(SOUND)[:-9], "truncated"),
    "nothing": (b"", "empty"),
    "one-byte": (b"S", "truncated"),
    "web-page": (b"<!DOCTYPE html><html></html>", "not_fits"),
    "jpeg": (b"\xff\xd8\xff\xe0" * 900, "not_fits"),
    "no-axes": (by_hand(card("NAXIS   =                    0")), "shape"),
    "one-axis": (by_hand(card("NAXIS   =                    1")), "shape"),
    "huge": (by_hand([*HEADER[:3], "NAXIS1  =              9999999", HEADER[4]]), "shape"),
    "negative": (by_hand([*HEADER[:3], "NAXIS1  =                   -3", HEADER[4]]), "shape"),
    "bitpix": (by_hand([HEADER[0], "BITPIX  =                    7", *HEADER[2:]]), "dtype"),
    "swapped": (survey_file(pixels(0, "g").byteswap()), "range"),
    "bomb": (gzip.compress(bytes(1 << 26)), "shape"),
    "twice": (by_hand([*HEADER, "NAXIS1  =                    2"]), "header"),
}


def test_each_broken_file_costs_score_its_object_and_has_its_reason(
    cast_lens, survey, net, made, tmp_path
):
    for name, (data, _) in BROKEN.items():
        put(survey, name, "r", pixels(0, "r"))
        (survey / f"{name}_g.fits").write_bytes(data)
    for name in ("fifo", "loop"):
        put(survey, name, "g", pixels(0, "g"))
    os.mkfifo(survey / "fifo_r.fits")
    (survey / "loop_r.fits").symlink_to("loop_r.fits")
    (survey / "folder_g.fits").mkdir()
    wanted = {name: reason for name, (_, reason) in BROKEN.items()}
    wanted |= {"fifo": "not_fits", "loop": "not_fits"}
    with within(60):
        found = scored(cast_lens, survey, net, tmp_path / "out")
    assert found.status == 0
    told = left_out(tmp_path / "out")
    assert dict(zip(told["object_id"], told["reason"])) == wanted
    assert (told[["path", "found", "expected"]] != "").all(axis=None)
    n = N + len(wanted)
    assert f"n_images {n} = n_scored {N} + n_left_out {len(wanted)} (" in found.out
    # to the last bit, whatever shared a batch with it
    assert logits_of(tmp_path / "out").sort_index().equals(logits_of(made).sort_index())
    strict = scored(cast_lens, survey, net, tmp_path / "strict", "--strict")
    refused(strict, "object_id bitpix, ", "dtype", "--strict")
    assert not (tmp_path / "strict/candidates.csv").exists()


def test_bad_pixels_and_missing_padding_are_flagged_and_change_no_other(
    cast_lens, survey, net, made, tmp_path
):
    bad = pixels(3, "g")
    bad[0, :4] = np.nan, np.inf, 1e38, 100
    put(survey, "n03", "g", bad)
    put(survey, "n04", "r", np.zeros((SIDE, SIDE), np.float32))
    put(survey, "n06", "g", np.full((SIDE, SIDE), 100, np.float32))
    put(survey, "n08", "g", np.full((SIDE, SIDE), np.nan, np.float32))
    (survey / "n05_g.fits").write_bytes((survey / "n05_g.fits").read_bytes()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of what is in the table nothing is said between
        found = scored(cast_lens, survey, net, tmp_path / "out", "--mask-value", "100")
    assert found.status == 0 and found.lines == []
    flags = candidates.read(tmp_path / "out").set_index("object_id")["flags"]
    assert flags[flags != ""].to_dict() == {
        "n03": "nan_filled;masked", "n04": "constant", "n06": "masked;constant",
        "n08": "nan_filled;constant", "n05": "padding_missing",
    }  # fmt: skip
    others = logits_of(made).drop(["n03", "n04", "n06", "n08"]).sort_index()
    assert logits_of(tmp_path / "out")[others.index].equals(others)


def test_packed_images_and_images_in_extensions_score_as_plain_ones(
    cast_lens, survey, net, made, tmp_path
):
    (survey / "n01_g.fits").rename(survey / "n01_g.fits.gz")
    data = (survey / "n01_g.fits.gz").read_bytes()
    (survey / "n01_g.fits.gz").write_bytes(gzip.compress(data))
    header = fits.Header({"PIXSCALE": 0.1})
    inside = fits.ImageHDU(pixels(2, "r"), header)
    fits.HDUList([fits.PrimaryHDU(), inside]).writeto(survey / "n02_r.fits", overwrite=True)
    options = {"compression_type": "GZIP_2", "quantize_level": 0.0}  # without loss
    packed = fits.CompImageHDU(pixels(3, "g"), header, **options)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(survey / "n03_g.fits.fz")
    (survey / "n03_g.fits").unlink()
    assert scored(cast_lens, survey, net, tmp_path / "out").status == 0
    assert logits_of(tmp_path / "out").equals(logits_of(made))


@pytest.mark.parametrize("how", ["cut", "one band"])
def test_other_commands_go_on_without_an_image_and_strict_stops(
    cast_lens, survey, labels, net, made, tmp_path, how
):
    path = survey / "n03_g.fits"
    path.write_bytes(path.read_bytes()[:3000])
    if how == "one band":
        path.unlink()
    reason = {"cut": "truncated", "one band": "missing_band"}[how]
    page = tmp_path / "page.html"
    if how == "cut":
        assert cast_lens("grade", made, "-o", page).status == 0
        assert page.read_text().count("the image cannot be read") == 1
        page.unlink()
        refused(cast_lens("grade", made, "-o", page, "--strict"), "n03_g.fits", reason)
    else:  # run.json tells both bands
        assert "(1 without an image)" in cast_lens("grade", made, "-o", page).out
    common = ("--model", net.path, "--labels", labels, "-o", tmp_path / "shortcuts")
    tests = cast_lens("shortcuts", survey, *common, "--radius", "0.5", "--permutations", "9")
    assert tests.status == 0 and f"{N // 2 - 1} lenses and {N // 2} others" in tests.out
    about = json.loads((tmp_path / "shortcuts/shortcuts.json").read_text())
    assert list(about["left_out"]) == ["n03"] and reason in about["left_out"]["n03"]
    cells = ("matrix", "--models", net.path, "--data", f"a={survey}", "--labels", f"a={labels}")
    assert cast_lens(*cells, "-o", tmp_path / "matrix").status == 0
    row = pd.read_csv(tmp_path / "matrix/matrix.csv").iloc[0]
    assert (row["n"], row["n_left_out"]) == (N - 1, 1)


def test_cutouts_goes_on_at_a_file_that_cannot_be_used_and_strict_stops(cast_lens, tmp_path):
    for k in range(3):
        (tmp_path / f"imageEUC_VIS-20000{k}.fits").write_bytes(SOUND[: [None, 4000, -1][k]])
    with pytest.warns(UserWarning, match="padding is missing"):
        found = cast_lens("cutouts", tmp_path)
    assert found.status == 0 and "32x32" in found.out and "truncated" in found.out
    assert found.lines[0].startswith("left out: ") and "imageEUC_VIS-200001.fits" in found.lines[0]
    assert found.lines[1] == "3 objects, 0 other files, 1 files that cannot be used"
    with pytest.warns(UserWarning, match="padding is missing"):
        told = json.loads(cast_lens("cutouts", tmp_path, "--json").out)
    assert [row["pixels"] for row in told] == ["32x32", "truncated", "32x32"]
    refused(cast_lens("cutouts", tmp_path, "--strict"), "200001.fits", "truncated", "get the file")


def table_of(folder, more=""):
    """Write a table of the survey in a folder, with labels, and further rows."""
    rows = (f"n{k:02},survey/n{k:02}_g.fits,survey/n{k:02}_r.fits,{k % 2}\n" for k in range(N))
    return csv_of(folder / "t.csv", "id_str,file_g,file_r,is_lens\n" + "".join(rows) + more)


# Rows 11 to 14: files and objects that are not there, or there twice


def test_files_that_vanish_and_files_of_no_object_are_counted(cast_lens, survey, net, tmp_path):
    table = table_of(tmp_path, "gone,survey/x_g.fits,survey/x_r.fits,0\n")
    of_table = ("--path-column", "file_{band}")
    assert scored(cast_lens, table, net, tmp_path / "a", *of_table).status == 0
    assert left_out(tmp_path / "a")[["object_id", "reason"]].to_numpy().tolist() == [["gone", "io"]]
    strict = scored(cast_lens, table, net, tmp_path / "b", *of_table, "--strict")
    refused(strict, "object_id gone, ", "x_g.fits: io", "--strict")
    (survey / "notes.txt").write_text("x", encoding="utf-8")
    put(survey, "n00", "z", pixels(0, "z"))
    (survey / "n02_r.fits").unlink()
    (survey / "n07_g.fits").unlink()
    found = scored(cast_lens, survey, net, tmp_path / "c")
    assert found.out.startswith(
        f"n_images {N} = n_scored {N - 2} + n_left_out 2 (missing_band 2); n_extra_files 2\n"
    )
    strict = scored(cast_lens, survey, net, tmp_path / "d", "--strict")
    refused(strict, "object_id n02, ", "missing_band", "no image in band r")


def test_disk_that_fails_for_a_moment_costs_nothing_and_a_dead_one_its_object(
    cast_lens, survey, net, made, tmp_path, monkeypatch
):
    failing, often, true_open = "n05_g.fits", [2], os.open

    def opened(path, *arguments, **options):
        if str(path).endswith(failing) and often[0] > 0:
            often[0] -= 1
            raise OSError(errno.EIO, "Input/output error", str(path))
        return true_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)
    assert scored(cast_lens, survey, net, tmp_path / "a").status == 0
    assert logits_of(tmp_path / "a").equals(logits_of(made))
    often[0] = 10**6
    assert scored(cast_lens, survey, net, tmp_path / "b").status == 0
    told = left_out(tmp_path / "b")
    assert told[["object_id", "reason"]].to_numpy().tolist() == [["n05", "io"]]


TWICE = "object_id,label\nn00,0\nn01,1\nn00,0\n"


def test_object_on_two_rows_is_refused_with_both_lines(cast_lens, survey, net, at, tmp_path):
    table = csv_of(tmp_path / "t.csv", "id_str,file_loc\na,survey/n00_g.fits\nb,survey/n01_g.fits\n"
                                       "a,survey/n02_g.fits\n")  # fmt: skip
    wanted = ("'a'", "line 4", "line 2 too")
    refused(scored(cast_lens, table, net, tmp_path / "out"), *wanted)
    twice = csv_of(tmp_path / "twice.csv", TWICE)
    wanted = ("'n00'", "line 4", "line 2 too")
    for arguments in (
        ("rank", at.pool, "--labels", twice), ("adapt", survey, "--labels", twice, "--model", "x"),
        ("shortcuts", survey, "--labels", twice, "--model", net.path),
        ("completeness", at.scores, "--truth",
         csv_of(tmp_path / "u.csv", TWICE.replace("label", "n_pix")), "--top", "3"),
    ):  # fmt: skip
        refused(cast_lens(*arguments, *OUT[arguments[0]](tmp_path / "out")), *wanted)
    features = csv_of(tmp_path / "p.csv", TWICE.replace("label", "feat_0"))
    refused(cast_lens("rank", features, "-o", tmp_path / "out"), "line 4", "'n00'", "line 2 too")
    lines = (at.made / "candidates.csv").read_text().splitlines()
    csv_of(at.made / "candidates.csv", "\n".join([*lines, lines[1]]) + "\n")
    for name in ("grade", "explain", "crossmatch"):
        more = {"crossmatch": ("--known", at.known)}.get(name, ("--model", net.path))
        more = () if name == "grade" else more
        refused(cast_lens(name, at.made, *more), f"line {N + 2}", "line 2 too")
    assert not (tmp_path / "out").exists()


def test_labels_that_contradict_name_both_files(cast_lens, survey, net, at, tmp_path):
    other = csv_of(tmp_path / "other.csv", "object_id,label\nn01,0\n")
    for first in (("rank", at.pool), ("adapt", survey, "--model", net.path)):
        found = cast_lens(*first, "--labels", at.labels, other, "-o", tmp_path / "out")
        refused(found, "object_id n01", str(other), str(at.labels), "mend one")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_object_are_refused_with_both(cast_lens, survey, net, tmp_path):
    (survey / "again").mkdir()
    put(survey / "again", "n00", "g", pixels(0, "g"))
    found = scored(cast_lens, survey, net, tmp_path / "out")
    refused(found, "survey/again/n00_g.fits", "survey/n00_g.fits", "object_id n00")
    assert not (tmp_path / "out").exists()


# Row 16: tables


# {command: function of its output folder that returns the option}
OUT = dict.fromkeys(["score", "rank", "shortcuts", "matrix", "adapt", "explain", "features"],
                    lambda out: ("-o", out))  # fmt: skip
OUT |= dict.fromkeys(["completeness", "purity"], lambda out: ("--output", out))
OUT |= {"grade": lambda out: ("-o", out / "grade.html"),
        "crossmatch": lambda out: ("--output", out / "matched.csv")}  # fmt: skip

COMMANDS = {
    "score": lambda a: (a.survey, "--model", a.net, "--batch", "5", "--shard", "5"),
    "grade": lambda a: (a.made, "-n", "4"),
    "rank": lambda a: (a.pool, "--labels", a.some, "--strategy", "entropy", "-n", "2",
                       "--candidates", a.made),
    "completeness": lambda a: (a.scores, "--truth", a.truth, "--top", "5", "--bins", "2"),
    "purity": lambda a: (a.scores, "--prevalence", "0.1", "--inspect", "5", "--draws", "20",
                         "--folds", "2"),
    "crossmatch": lambda a: (a.positions, "--known", a.known),
    "shortcuts": lambda a: (a.survey, "--labels", a.labels, "--model", a.net, "--radius", "0.5",
                            "--permutations", "9"),
    "matrix": lambda a: ("--data", f"a={a.survey}", "--labels", f"a={a.labels}", "--models", a.net),
}  # fmt: skip


SLOW = ("completeness", "purity", "shortcuts")  # they draw figures, or fit


def command(name, at, out):
    return (name, *COMMANDS[name](at), *OUT[name](out))


# {command: the table it reads, a column of it, and a number in it}
TABLES = {
    "completeness": ("truth", "ID", "0.6111111111111112"),
    "crossmatch": ("known", "RA [deg]", "10.1"),
    "rank": ("pool", "object_id", "4"),
    "purity": ("scores", "score", "2.05"),
    "metrics": ("scores", "score", "2.05"),
}


@pytest.mark.parametrize("name", TABLES)
def test_table_that_cannot_be_used_is_refused_by_place_and_nearest_column(
    cast_lens, at, tmp_path, name
):
    which, column, number = TABLES[name]
    path, out = getattr(at, which), tmp_path / "out"
    arguments = (name, path) if name == "metrics" else command(name, at, out)
    text = path.read_text(encoding="utf-8")
    assert column in text and number in text
    renamed = column.replace("[deg]", "(deg)").replace("ID", "IDX").replace("c", "cc")
    for bad, words in (
        (text.replace(column, renamed, 1), (column, renamed)),
        (text.replace(number, "abc", 1), ("abc",)),
        ("", (str(path),)),
        (text.splitlines()[0] + "\n", (str(path),)),
        ("<html></html>\n", (str(path),)),
        (text.encode().replace(b"n0", b"n\xe9", 3).replace(b"lens one", b"l\0"), (str(path),)),
        (text.replace("\n", ',"\n', 2), (str(path),)),
    ):
        csv_of(path, bad)
        if name == "metrics" and bad == text.splitlines()[0] + "\n":
            continue  # a score file of no object has no metrics, and that is all
        refused(cast_lens(*arguments), str(path), *words)
    path.unlink()
    refused(cast_lens(*arguments), str(path), "o such file")
    path.mkdir()
    refused(cast_lens(*arguments), str(path))
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    ["rank", "crossmatch", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW[:2])],
)
def test_marks_line_ends_and_further_columns_change_no_result(cast_lens, at, tmp_path, name):
    path = getattr(at, TABLES[name][0])
    assert cast_lens(*command(name, at, tmp_path / "a")).status == 0
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    rows = [f'{row},"Stra\u00dfe, ""x"""' for row in rows]
    text = "\ufeff" + "\r\n".join([f"{head},note", *rows]) + "\r\n"
    if name != "purity":  # of a score file, whose first line says what it is
        text = text.replace("\ufeff", "\ufeff# made by hand\r\n")
    csv_of(path, text)
    assert cast_lens(*command(name, at, tmp_path / "b")).status == 0
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


# Rows 18 and 19: one class, equal scores, scores that are no numbers


def test_score_that_is_no_number_is_refused_with_its_object(
    cast_lens, survey, net, at, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    text = at.scores.read_text(encoding="utf-8")
    for value in ("nan", "inf", "-inf", ""):
        csv_of(at.scores, text.replace("2.05", value, 1))
        for name in ("purity", "completeness"):
            refused(cast_lens(*command(name, at, out)), str(at.scores), "object n01", "finite")
        refused(cast_lens("metrics", at.scores), str(at.scores), "object n01", "finite")
    path = at.made / "candidates.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = lines[2].split(",")
    fields[4] = "nan"
    csv_of(path, "\n".join([*lines[:2], ",".join(fields), *lines[3:]]) + "\n")
    for name in ("grade", "purity", "completeness", "crossmatch"):
        first, *_ = COMMANDS[name](at)
        arguments = [at.made if one == first else one for one in command(name, at, out)]
        refused(cast_lens(*arguments), str(path), "line 3", "'logit'", "'nan'")
    net.logits = lambda arrays: weighted(arrays) + np.array([0, 0, np.nan, 0, 0])
    refused(scored(cast_lens, survey, net, out), "object_id n02", "logit nan", "get the weights")
    assert not (out / "candidates.csv").exists()


def test_equal_scores_have_the_metrics_of_chance_and_keep_the_order_of_the_catalog(
    cast_lens, survey, net, at, tmp_path
):
    net.logits = lambda arrays: np.zeros(5)
    assert scored(cast_lens, survey, net, tmp_path / "equal").status == 0
    assert candidates.read(tmp_path / "equal")["object_id"].tolist() == [
        f"n{k:02}" for k in range(N)
    ]
    rows = at.scores.read_text(encoding="utf-8").splitlines()
    csv_of(at.scores, "\n".join([rows[0], *(r.rpartition(",")[0] + ",0.5" for r in rows[1:])]))
    told = json.loads(cast_lens("metrics", at.scores, "--json", "--draws", "20").out)
    assert next(row["value"] for row in told if row["metric"] == "roc_auc") == 0.5
    found = cast_lens(*command("completeness", at, tmp_path / "out"))
    assert "2 of 6 lenses found, 3 false positives" in found.out  # of the first five
    assert cast_lens(*command("purity", at, tmp_path / "out")).status == 0


def test_one_class_alone_is_said_and_never_a_number(cast_lens, at, tmp_path):
    out = tmp_path / "out"
    text = at.scores.read_text(encoding="utf-8")
    for label in "01":
        csv_of(at.scores, re.sub(r"(?<=n\d\d),[01],", f",{label},", text))
        refused(cast_lens(*command("purity", at, out)), "lenses")
        told = json.loads(cast_lens("metrics", at.scores, "--json").out)
        assert [row["value"] for row in told if row["metric"] == "roc_auc"] == [None]
        csv_of(at.some, f"object_id,label\nn00,{label}\n")
        refused(cast_lens(*command("rank", at, out)), "needs both", "core_set")
        csv_of(at.labels, "object_id,label\n" + "".join(f"n{k:02},{label}\n" for k in range(N)))
        refused(cast_lens(*command("shortcuts", at, out)), "lenses")
        assert not out.exists()
        found = cast_lens(*command("matrix", at, tmp_path / f"matrix{label}"))
        assert found.status == 0 and "- fake on a: " in found.out and "lens" in found.out
    csv_of(at.scores, re.sub(r"(?<=n\d\d),[01],", ",0,", text))
    refused(cast_lens(*command("completeness", at, out)), "lens")
    assert not out.exists()


# Rows 22 to 26: full disks, kills, signals, two at once, other options


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS],
)
def test_killed_then_on_a_full_disk_then_again_ends_as_once(
    cast_lens, at, tmp_path, monkeypatch, name
):
    (tmp_path / "pieces").mkdir()
    os.chdir(tmp_path)  # pytest goes back by itself
    written, fsync = [], os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (written.append(handle), fsync(handle)))
        assert cast_lens(*command(name, at, tmp_path / "whole")).status == 0
    n, whole, out = len(written), named(tmp_path / "whole"), tmp_path / "pieces"

    def at_number(number, fault):
        written.clear()

        def fail(handle):
            written.append(handle)
            if len(written) == number:
                raise fault
            fsync(handle)

        monkeypatch.setattr(os, "fsync", fail)

    at_number((n + 1) // 2, Killed())
    with pytest.raises(Killed):
        cast_lens(*command(name, at, out))
    before = named(out)
    assert before.items() <= whole.items() and len(before) < len(whole)
    n_left = len(written) - 1
    at_number(n - n_left if name in ("score", "matrix") else n,
              OSError(errno.ENOSPC, "No space left on device"))  # fmt: skip
    full = cast_lens(*command(name, at, out))
    refused(full, "No space left on device", "bytes needed", " free", str(out))
    assert before.items() <= named(out).items() <= whole.items()
    assert len(named(out)) < len(whole)
    monkeypatch.setattr(os, "fsync", fsync)
    assert cast_lens(*command(name, at, out)).status == 0
    assert named(out) == whole
    assert [path.name for path in out.rglob(".*") if path.is_file() and path.name != ".lock"] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_place_that_cannot_be_written_to_is_said(cast_lens, at, tmp_path, monkeypatch, name):
    def refuse(*_, **options):
        raise PermissionError(errno.EACCES, "Permission denied", options["dir"])

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr(run, "native_log", nullcontext)
    refused(cast_lens(*command(name, at, tmp_path / "out")), "Permission denied", "out")
    monkeypatch.undo()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["score", "matrix"])
def test_signal_keeps_what_is_finished_and_says_run_me_again(
    cast_lens, net, at, tmp_path, name, number
):
    assert cast_lens(*command(name, at, tmp_path / "whole")).status == 0
    calls = []

    def stopping(arrays):
        calls.append(1)
        if len(calls) == (2 if name == "score" else 1):
            os.kill(os.getpid(), number)
        return weighted(arrays)

    net.logits = stopping
    found = cast_lens(*command(name, at, tmp_path / "out"))
    assert found.status == run.EXIT_RUN_AGAIN == 75
    assert found.lines == [
        "stopped; what was finished is kept, run the same command again to go on"
    ]
    net.logits = weighted
    assert cast_lens(*command(name, at, tmp_path / "out")).status == 0
    assert named(tmp_path / "out") == named(tmp_path / "whole")


def test_second_run_on_a_folder_is_refused_and_names_the_first(cast_lens, at, tmp_path):
    for name, place in (("score", ""), ("matrix", "cells/fake--a")):
        with run.hold(tmp_path / name / place):
            found = cast_lens(*command(name, at, tmp_path / name))
            refused(found, "in use by the run with process ID", str(os.getpid()))


def test_other_options_or_images_are_refused_with_the_difference(cast_lens, at, tmp_path):
    assert cast_lens(*command("score", at, tmp_path / "score")).status == 0
    first = hashes(tmp_path / "score")
    for name, change, words in (
        ("score", ("--dihedral",), ("options.dihedral: False then, True now", "--restart")),
        ("score", ("--pixel-scale", "0.2"), ("options.pixel_scale: None then, 0.2 now",)),
        ("matrix", ("--batch", "7"), ("options.batch: 16 then, 7 now", "--restart")),
    ):
        out = tmp_path / name
        assert cast_lens(*command(name, at, out)).status == 0
        before = hashes(out)
        refused(cast_lens(*command(name, at, out), *change), *words)
        assert hashes(out) == before
    out = tmp_path / "score"
    assert cast_lens(*command("score", at, out), "--dihedral", "--restart").status == 0
    assert cast_lens(*command("score", at, out), "--restart").status == 0
    assert hashes(out) == first
    put(at.survey, "n03", "g", pixels(99, "g"))
    os.utime(at.survey / "n03_g.fits", ns=(1, 1))
    refused(cast_lens(*command("score", at, tmp_path / "score")), "images.sha256", "--restart")


@pytest.mark.parametrize("name", ["score", "matrix"])
def test_folder_of_something_else_is_left_alone(cast_lens, at, tmp_path, name):
    place = tmp_path / "mine" / {"score": "", "matrix": "cells/fake--a"}[name]
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("x", encoding="utf-8")
    before = stamps(tmp_path / "mine")
    if name == "score":
        refused(
            cast_lens(*command(name, at, tmp_path / "mine")), "thesis.tex", "nothing was written"
        )
        assert stamps(tmp_path / "mine") == before
    else:  # a cell that cannot be is told in the table
        assert "thesis.tex" in cast_lens(*command(name, at, tmp_path / "mine")).out
        assert (place / "thesis.tex").read_text(encoding="utf-8") == "x"


# Rows 17 and 31: names that are numbers, formulas, tags


def test_odd_ids_go_to_the_letter_through_all_commands_and_run_nowhere(
    cast_lens, survey, net, tmp_path
):
    ids, out = [*ODD_IDS, COMMA], tmp_path / "out"
    names = io.StringIO()
    writer = csv.writer(names, lineterminator="\n")
    writer.writerow(["id_str", "file_g", "file_r", "ra", "dec", "is_lens"])
    for k, name in enumerate(ids):
        writer.writerow([name, f"survey/n{k:02}_g.fits", f"survey/n{k:02}_r.fits", k, -k, k % 2])
    table = csv_of(tmp_path / "t.csv", names.getvalue())
    of_table = ("--path-column", "file_{band}", "--label-column", "is_lens")
    assert scored(cast_lens, table, net, out / "made", *of_table).status == 0
    assert set(candidates.read(out / "made")["object_id"]) == set(ids)
    page = out / "grade.html"
    assert cast_lens("grade", out / "made", "-o", page).status == 0
    assert "<script>alert" not in page.read_text() and "calc" in page.read_text()
    told = [[scores.escape_cell(name), k % 2] for k, name in enumerate(ids)]
    pd.DataFrame(told, columns=["object_id", "label"])[:4].to_csv(tmp_path / "l.csv", index=False)
    pool = pd.DataFrame({"object_id": [row[0] for row in told]})
    pool = pool.assign(feat_0=np.arange(len(ids)) % 2, feat_1=np.arange(len(ids)))
    pool.to_csv(tmp_path / "p.csv", index=False)
    found = cast_lens("rank", tmp_path / "p.csv", "--labels", tmp_path / "l.csv", "-n", "4",
                      "--candidates", out / "made", "-o", out / "next", "--json")  # fmt: skip
    assert {row["object_id"] for row in json.loads(found.out)["objects"]} == set(ids[4:])
    known = csv_of(tmp_path / "k.csv", "name,RA,Dec,type\n=known,0,0,@x\n<b>,1,-1,\n")
    assert cast_lens("crossmatch", out / "made", "--known", known,
                     "--output", out / "matched.csv").status == 0  # fmt: skip
    assert (
        cast_lens("purity", out / "made", "--output", out / "purity", "--draws", "20").status == 0
    )
    files = [path for path in out.rglob("*.csv") if path.name != "reliability.csv"]
    assert len(files) >= 7
    for path in files:
        with open(path, encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        odd = [cell for cell in cells if re.match(r"[=+@\t\r]|-[^0-9]|-2$", cell)]
        assert odd == [], path
    assert cast_lens("metrics", out / "made", "--draws", "20").status == 0


# What is at the wrong place: files that are no pack, candidates, network, pool


def test_survey_is_no_pack_and_is_scored_as_a_folder(cast_lens, survey, net, made, tmp_path):
    csv_of(survey / "manifest.json", json.dumps({"survey": "sglc2", "seed": 0}))
    refused(cast_lens("verify", survey), f"{survey} holds no pack", f"`cast-lens pack {survey}`")
    assert scored(cast_lens, survey, net, tmp_path / "out").status == 0
    assert logits_of(tmp_path / "out").equals(logits_of(made))
    (survey / "manifest.json").unlink()
    refused(cast_lens("verify", survey), f"{survey} holds no finished pack", "`cast-lens pack`")
    refused(cast_lens("verify", tmp_path / "none"), "none holds no finished pack")


def test_pack_with_a_flipped_bit_is_told_by_every_command(cast_lens, net, tmp_path):
    catalog = packs.survey(tmp_path / "files", 7)
    packs.build(tmp_path / "pack", catalog)
    path = tmp_path / "pack/vis.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    line = refused(cast_lens("verify", tmp_path / "pack"), "vis.npy, record 6", "--restart")
    object_id = re.search(r"object_id (\d+)", line)[1]
    found = scored(cast_lens, tmp_path / "pack", net, tmp_path / "out", "--bands", "VIS,VIS",
                   "--pixel-scale", "0.1")  # fmt: skip
    assert found.status == 0
    told = left_out(tmp_path / "out")
    assert told[["object_id", "reason"]].to_numpy().tolist() == [[object_id, "checksum"]]
    (tmp_path / "pack/manifest.json").write_text("{}", encoding="utf-8")
    for name in ("verify", "score"):
        more = () if name == "verify" else ("--model", net.path, "-o", tmp_path / "other")
        refused(cast_lens(name, tmp_path / "pack", *more), "found other bytes", "cast-lens pack")


def test_metrics_of_a_folder(cast_lens, survey, net, at, tmp_path):
    out = tmp_path / "runs/table1"
    out.mkdir(parents=True)
    shutil.copy(at.scores, out / "scores.csv")
    quick = ("--draws", "20", "--top", "3", "--json")
    alone = json.loads(cast_lens("metrics", at.scores, *quick).out)
    assert json.loads(cast_lens("metrics", out, *quick).out) == alone
    refused(cast_lens("metrics", out.parent), "there are 1 below it", "table1/scores.csv")
    refused(cast_lens("metrics", at.made), "candidates without labels", "--label-column")
    table = table_of(tmp_path)
    labelled = ("--path-column", "file_{band}", "--label-column", "is_lens")
    assert scored(cast_lens, table, net, tmp_path / "labelled", *labelled).status == 0
    for path in ("labelled", "labelled/candidates.csv", "labelled/candidates.fits"):
        told = json.loads(cast_lens("metrics", tmp_path / path, *quick).out)
        value = {row["metric"]: row["value"] for row in told}
        assert value["roc_auc"] == value["average_precision"] == 1 and value["lenses_in_top_3"] == 3
    columns = ",".join([*"abcdefghijklmnopqrstuvwxyz", "object", "scorez", "labels"])
    csv_of(at.scores, columns + "\n" + "1," * 28 + "1\n")
    line = refused(cast_lens("metrics", at.scores), "['run', 'n_train', 'object_id', 'label', ")
    assert "'object', 'labels', 'scorez'" in line and "of its 29" in line and len(line) < 500


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in COMMANDS],
)
def test_json_is_one_document_with_a_last_line(cast_lens, at, tmp_path, name):
    found = cast_lens(*command(name, at, tmp_path / "out"), "--json")
    assert found.status == 0 and json.loads(found.out) and found.out.endswith("\n")


@pytest.mark.parametrize("name", ["score", "grade", "rank", "shortcuts", "matrix"])
def test_a_dry_run_answers_with_json_too_and_writes_nothing(cast_lens, at, tmp_path, name):
    found = cast_lens(*command(name, at, tmp_path / "out"), "--json", "--dry-run")
    assert found.status == 0 and json.loads(found.out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"images": 3}', '{"options": []}'])
def test_candidates_without_a_sound_run_json_say_what_to_name(cast_lens, at, tmp_path, text):
    path = at.made / "run.json"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    line = refused(cast_lens(*command("grade", at, tmp_path / "out")), "--images")
    assert "run.json" in line
    for name in ("explain", "features"):
        more = ("--model", at.net, "-o", tmp_path / "out")
        refused(cast_lens(name, at.made, *more), "run.json", "--images")
    assert not (tmp_path / "out").exists()
    given = ("--images", at.survey, "--bands", "g,r")
    assert cast_lens(*command("grade", at, tmp_path / "out"), *given).status == 0


@pytest.mark.parametrize(
    "options",
    [("--pixel-scale", "0"), ("--pixel-scale", "-1"), ("--pixel-scale", "nan"),
     ("--pixel-scale", "inf"), ("--mask-value", "nan"), ("--mask-value", "inf"),
     ("--bands", "g"), ("--bands", "g,"), ("--bands", "g,x"), ("--bands", ",")],
)  # fmt: skip
def test_option_that_makes_no_sense_is_refused(cast_lens, at, tmp_path, options):
    found = cast_lens(*command("score", at, tmp_path / "out"), *options)
    refused(found, options[0] if options[0] == "--bands" else options[0][2:].replace("-", "_"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["x.h5", "x.keras", "x.pkl", "x.safetensors", "folder"])
def test_network_that_may_run_code_is_refused(cast_lens, survey, tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01")
    else:
        path.write_bytes({"x.h5": b"\x89HDF\r\n\x1a\n", "x.keras": b"PK\x03\x04"}.get(
            kind, pickle.dumps(Canary(str(tmp_path / "sung")))))  # fmt: skip
    found = cast_lens("score", survey, "--model", path, "-o", tmp_path / "out")
    refused(found, str(path), "safetensors")
    assert not (tmp_path / "out").exists() and not (tmp_path / "sung").exists()


class Canary:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        """Be opened for writing."""
        return (open, (self.path, "w"))


def test_pool_that_may_run_code_is_refused(cast_lens, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    np.save(pool / "features.npy", np.array([[Canary(str(tmp_path / "sung"))]]), allow_pickle=True)
    csv_of(pool / "objects.csv", "object_id\na\n")
    found = cast_lens("rank", pool, "-n", "1", "--strategy", "random", "-o", tmp_path / "out")
    refused(found, "features.npy", "without pickle")
    assert not (tmp_path / "sung").exists() and not (tmp_path / "out").exists()


def test_network_that_is_not_there_names_those_that_are(cast_lens, survey, tmp_path):
    found = cast_lens("score", survey, "--model", "sglc2-stand-in-v99", "-o", tmp_path / "out")
    refused(found, "sglc2-stand-in-v99", "sglc2-stand-in-v0")
    assert not (tmp_path / "out").exists()


# The report


def test_report_leaves_a_damaged_run_out_and_names_it_or_stops(
    cast_lens, root, tmp_path, monkeypatch
):
    papers = tmp_path / "papers"
    papers.mkdir()
    for name in ("reported.csv", "claims.csv"):
        lines = (root / "reproductions" / name).read_text(encoding="utf-8").splitlines()
        csv_of(papers / name, "\n".join(lines[:3]) + "\n")
    runs, page = tmp_path / "runs", tmp_path / "page.html"
    make_run(runs)
    bad = make_run(runs, "sglc2-stand-in-quick-seed1", seed=1)
    places = ("--reproductions", papers, "--runs", runs, "--output", page)
    for name, damage in (
        ("run.json", b"{"), ("run.json", b"[]"), ("reproduced.csv", b"x\n1\n"),
        ("table1.x/scores.csv", b"run,n_train,object_id,label,score\na,1,b,0,nan\n"),
        ("table1.x/scores.csv", b""), ("table1.x/history.csv", b"\xff\xfe"),
    ):  # fmt: skip
        sound = (bad / name).read_bytes()
        (bad / name).write_bytes(damage)
        found = cast_lens("report", *places, "--dry-run")
        assert found.status == 0 and "seed0" in found.out and "seed1" not in found.out
        assert found.lines[0].startswith("skipped: ") and str(bad / name) in found.lines[0]
        refused(cast_lens("report", *places, "--strict"), str(bad / name))
        refused(cast_lens("report", bad, *places), str(bad / name))
        (bad / name).write_bytes(sound)
    refused(cast_lens("report", tmp_path, *places), "holds no run.json", "make reproduce-")
    page.write_bytes(b"earlier")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr("cast_lens.table.write_whole", lambda *_: None)  # that is in /tmp
    refused(
        cast_lens("report", bad, *places), "No space left on device", "bytes needed", "page.html"
    )
    assert page.read_bytes() == b"earlier"


# Row 32: odd environments


def run_all(folder, out):
    """Do in another process what the test below does in its own."""
    names = ("labels", "scores", "truth", "positions", "known", "pool", "some")
    at = SimpleNamespace(**{name: Path(folder) / f"{name}.csv" for name in names})
    at.made = Path(folder) / "made"
    for name in ENVIRONMENT:
        cli.main(list(map(str, command(name, at, Path(out) / name))))


ENVIRONMENT = ("grade", "rank", "completeness", "purity", "crossmatch")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"},
     {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "UTC"}],
)  # fmt: skip
def test_locale_zone_mask_and_odd_folder_change_no_byte(at, root, tmp_path, changes):
    run_all(tmp_path, tmp_path / "here")
    out = tmp_path / "there é ' b"
    code = "import os, sys; os.umask(0o077); from tests.faults import test_commands as here"
    code += "; here.run_all(*sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", code, tmp_path, out], cwd=root, check=False,
                           env=os.environ | changes, capture_output=True)  # fmt: skip
    assert ended.returncode == 0, ended.stderr.decode()[-500:]
    assert named(out) == named(tmp_path / "here")
    assert (out / "grade/grade.html").stat().st_mode & 0o777 == 0o600


def test_purity_rests_on_the_candidates_that_were_graded(cast_lens, at, tmp_path):
    graded = csv_of(tmp_path / "graded.csv", "object_id,grade,label\n" + "".join(
        f"n{k:02},{'AX'[k % 2 == 0]},{k % 2}\n" for k in range(8)) + "n08,C,\n")  # fmt: skip
    out = tmp_path / "purity"
    words = ("purity", at.made, "--folds", "2", "--draws", "20", "--inspect", "9", "--output", out)
    refused(cast_lens(*words), "has no labels", "--labels")
    found = cast_lens(*words, "--labels", graded)
    assert found.status == 0, found
    table = pd.read_csv(out / "probabilities.csv", dtype={"object_id": str})
    assert sorted(table["object_id"]) == [f"n{k:02}" for k in range(8)]  # C says neither
    assert (table["label"] == table["object_id"].str[1:].astype(int) % 2).all()
    assert set(pd.read_csv(out / "purity.csv")["inspected"]) == {9}  # of the 12 that were scored
    other = csv_of(tmp_path / "other.csv", "object_id,label\nx,1\n")
    refused(
        cast_lens(*words, "--labels", other), "label of none of the 12", "such as n", "same IDs"
    )


def test_labels_of_the_best_alone_are_told_from_a_random_sample(cast_lens, tmp_path):
    """What a person who graded the top of the list would feed it: the page says not to."""
    n, rng = 400, np.random.default_rng(4)
    ids, order = [f"n{k:03}" for k in range(n)], rng.permutation(n)
    lines = [f"a,9,{name},{order[k] % 2},{order[k] / n}" for k, name in enumerate(ids)]
    path = csv_of(tmp_path / "s.csv", "\n".join(["run,n_train,object_id,label,score", *lines]))
    words = ("purity", path, "--folds", "2", "--draws", "20", "--inspect", "9", "--output",
             tmp_path / "out", "--labels")  # fmt: skip
    told = {}
    for name, chosen in {"best": np.argsort(-order)[:60], "random": np.arange(60)}.items():
        rows = [f"{ids[k]},{order[k] % 2}" for k in chosen]
        labels = csv_of(tmp_path / f"{name}.csv", "\n".join(["object_id,label", *rows]))
        found = cast_lens(*words, labels)
        assert found.status == 0, found
        told[name] = [line for line in found.lines if "no random sample" in line]
    assert len(told["best"]) == 1 and "60 labelled objects" in told["best"][0]
    assert told["random"] == []


@pytest.mark.parametrize("words", [("report",), ("table",)])
def test_what_a_clone_has_is_asked_for_where_it_is_not(words, cast_lens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(cast_lens(*words), "reproductions/re", "is not here", "--reproductions")
