"""Faults that a person meets at the commands that need a network of Keras, which is a small one."""

# ruff: noqa: F811, fixtures are imported, and arguments of tests

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cast_lens import candidates, run, scores, scoring
from tests.faults.commands import (  # noqa: F401
    BRANCHES,
    ODD_IDS,
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
    signals,
    survey,
    write_network,
    write_survey,
)


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    import keras

    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(4, 8, strides=4, name="stem_conv")(inputs)
    return keras.Model(inputs, batch_normalization(axis=3, name="stem_bn")(x), name=name)


@pytest.fixture(scope="module")
def keras_net(tmp_path_factory):
    """The file of a small network, and a survey with candidates by it."""
    from cast_lens import backbones, images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "efficient_net", small_trunk)
        folder = tmp_path_factory.mktemp("keras")
        path = folder / "small.safetensors"
        write_network(path, BRANCHES, {"all": ([-5.0, -5.0], [5.0, 5.0])})
        whole = write_survey(folder / "whole")
        found = images.find(whole, bands=("g", "r"))
        scoring.score(found, str(path), folder / "made", engine="keras", progress=False)
        yield SimpleNamespace(path=path, survey=whole, made=folder / "made")


KERAS = {
    "explain": ("--samples", "100", "--engine", "keras", "-n", "2", "--images"),
    "features": ("--batch", "5", "--images"),
}


def with_keras(name, keras_net, survey, out):
    first = (keras_net.made, "--model", keras_net.path, "--bands", "g,r", "-o", out)
    return (name, *first, *KERAS[name], survey)


def adapting_(keras_net, at, out):
    return ("adapt", at.survey, "--labels", at.labels, "--model", keras_net.path, "--survey", "new",
            "--sizes", "4", "--folds", "2", "--epochs", "1", "--no-scratch", "-o", out)  # fmt: skip


@pytest.mark.slow
def test_explain_and_features_leave_a_broken_image_out_and_strict_stops(
    cast_lens, keras_net, survey, tmp_path
):
    first = candidates.read(keras_net.made)["object_id"][0]
    (survey / f"{first}_r.fits").write_bytes(SOUND[:4000])
    for name, table in (("explain", "explanations.csv"), ("features", "left_out.csv")):
        out = tmp_path / name
        strict = cast_lens(*with_keras(name, keras_net, survey, out), "--strict")
        refused(strict, f"object_id {first}", "truncated", f"{first}_r.fits")
        assert not (out / table).exists()
        assert cast_lens(*with_keras(name, keras_net, survey, out)).status == 0
        rows = pd.read_csv(out / table, dtype=str, keep_default_na=False)
        told = rows[rows["object_id"] == first].iloc[0]
        assert "truncated" in told["note" if name == "explain" else "reason"]
    assert len(set(rows["object_id"])) == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "figure.png").write_bytes(b"x")
    for name in KERAS:
        refused(cast_lens(*with_keras(name, keras_net, survey, mine)), "expected a new", "mine")
    (tmp_path / "explain/figure.png").write_bytes(b"x")
    again = cast_lens(*with_keras("explain", keras_net, survey, tmp_path / "explain"), "--restart")
    assert again.status == 0 and (tmp_path / "explain/figure.png").exists()
    asked = with_keras("explain", keras_net, survey, tmp_path / "explain")
    refused(cast_lens(*asked, "--seed", "7"), "settings.seed: 0 then, 7 now", "--restart")
    unknown = (*with_keras("explain", keras_net, survey, out)[:-6], "--objects", "n99")
    refused(cast_lens(*unknown), "object_id n99", "not among 12")


def test_second_run_of_long_commands_is_refused_and_names_the_first(
    cast_lens, keras_net, at, tmp_path
):
    for name, held in (("explain", "explain"), ("features", ".features.features")):
        with run.hold(tmp_path / held):
            found = cast_lens(*with_keras(name, keras_net, keras_net.survey, tmp_path / name))
            refused(found, "in use by the run with process ID", str(os.getpid()))
    with run.hold(tmp_path / "adapt"):
        found = cast_lens(*adapting_(keras_net, at, tmp_path / "adapt"))
        refused(found, "in use by the run with process ID", str(os.getpid()))


@pytest.mark.parametrize("name", KERAS)
@pytest.mark.slow
def test_explain_and_features_killed_then_on_a_full_disk_end_as_once(
    cast_lens, keras_net, tmp_path, monkeypatch, name
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    written, fsync = [], os.fsync
    whole, pieces = tmp_path / "a/out", tmp_path / "b/out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (written.append(handle), fsync(handle)))
        assert cast_lens(*with_keras(name, keras_net, keras_net.survey, whole)).status == 0
    n, wanted = len(written), named(whole)
    for number in range(1, n + 1, 2):
        for fault in (Killed(), OSError(errno.ENOSPC, "No space left on device")):
            written.clear()

            def fail(handle, number=number, fault=fault):
                written.append(handle)
                if len(written) == number:
                    raise fault
                fsync(handle)

            shutil.rmtree(pieces.parent)
            monkeypatch.setattr(os, "fsync", fail)
            if isinstance(fault, Killed):
                with pytest.raises(Killed):
                    cast_lens(*with_keras(name, keras_net, keras_net.survey, pieces))
            else:
                full = cast_lens(*with_keras(name, keras_net, keras_net.survey, pieces))
                refused(full, "No space left on device", "bytes needed")
            monkeypatch.setattr(os, "fsync", fsync)
            assert cast_lens(*with_keras(name, keras_net, keras_net.survey, pieces)).status == 0
            assert named(pieces) == wanted
            assert sorted(path.name for path in pieces.parent.iterdir()) == ["out"]


@pytest.mark.slow
def test_adapt_says_what_is_wrong_before_it_trains(cast_lens, keras_net, at, tmp_path, monkeypatch):
    from cast_lens import adapting

    out, asked = tmp_path / "out", adapting_(keras_net, at, tmp_path / "out")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        refused(cast_lens(*asked), "No space left on device", "bytes needed", " free", "pixels-all")
    assert not [path for path in out.rglob("*.npy")]
    path = at.survey / "n03_g.fits"
    path.write_bytes(path.read_bytes()[:3000])
    refused(cast_lens(*asked, "--strict"), "images.", "--restart")  # of other images than before
    refused(cast_lens(*asked, "--strict", "--restart"), "object_id n03", "truncated", "--strict")

    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(adapting, "train", stopped)
    found = cast_lens(*asked)
    assert found.status == 75 and found.lines[-1].startswith("stopped; what was finished is kept")
    told = left_out(out)
    assert told[["object_id", "reason"]].to_numpy().tolist() == [["n03", "truncated"]]
    refused(cast_lens(*asked, "--seed", "3"), "options.seed: 0 then, 3 now", "--restart")
    labels = at.labels.read_text(encoding="utf-8")
    csv_of(at.labels, labels.replace("n04,0", "n04,1"))
    refused(cast_lens(*asked), "labels.", "--restart")
    put(at.survey, "n04", "g", pixels(5, "g"))
    put(at.survey, "n04", "r", pixels(5, "r"))
    csv_of(at.labels, labels)
    same = refused(cast_lens(*asked, "--restart"), "n04", "n05", "the same image")
    assert "label 0" in same and "label" in same
    for text, word in (("n00,0\n", "two of each"), ("x,1\n", "the same IDs"), ("n00,2\n", "'2'")):
        csv_of(at.labels, "object_id,label\n" + text)
        refused(cast_lens(*asked), word)


@pytest.mark.parametrize("fault", ["missing", "renamed", "transposed", "not a number", "cut"])
def test_weights_that_are_not_those_of_the_network_are_refused(
    cast_lens, keras_net, survey, tmp_path, fault
):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(keras_net.path)
    name = next(key for key in tensors if key.endswith("stem_conv/kernel"))
    if fault == "transposed":
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    elif fault == "not a number":
        tensors[name][0] = np.nan
    elif fault != "cut":
        tensors |= {"other": tensors.pop(name)} if fault == "renamed" else {}
        tensors.pop(name, None)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path)
    shutil.copy(keras_net.path.with_suffix(".json"), path.with_suffix(".json"))
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    found = cast_lens("score", survey, "--model", path, "-o", tmp_path / "out")
    refused(found, str(path), *([] if fault == "cut" else ["stem_conv"]))
    path.with_suffix(".json").unlink()
    refused(cast_lens("score", survey, "--model", path, "-o", tmp_path / "out"), "bad.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_adapt_from_the_command_line_goes_on_after_a_stop_and_ends_as_once(
    cast_lens, keras_net, at, tmp_path, monkeypatch
):
    from cast_lens import adapting

    path = at.survey / "n03_g.fits"
    path.write_bytes(path.read_bytes()[:3000])
    whole = cast_lens(*adapting_(keras_net, at, tmp_path / "whole"))
    assert whole.status == 0 and f"{N} labelled objects: {N - 1} used" in whole.out
    calls, train = [], adapting.train

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return train(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(adapting, "train", stopping)
        assert cast_lens(*adapting_(keras_net, at, tmp_path / "out")).status == 75
    assert cast_lens(*adapting_(keras_net, at, tmp_path / "out")).status == 0
    assert named(tmp_path / "out") == named(tmp_path / "whole")


@pytest.mark.slow
def test_odd_ids_are_explained_and_become_a_pool_to_the_letter(
    cast_lens, keras_net, survey, tmp_path
):
    odd = [*ODD_IDS[:4], ODD_IDS[-1]]
    rows = "".join(
        f'"{name}",survey/n{k:02}_g.fits,survey/n{k:02}_r.fits\n' for k, name in enumerate(odd)
    )
    table = csv_of(tmp_path / "t.csv", "id_str,file_g,file_r\n" + rows)
    made, network = tmp_path / "made", ("--model", keras_net.path)
    source = (table, *network, "--path-column", "file_{band}", "--engine", "keras", "-o", made)
    assert cast_lens("score", *source).status == 0
    explained = cast_lens("explain", made, *network, "--samples", "100", "--engine", "keras")
    assert explained.status == 0
    assert cast_lens("features", made, *network, "-o", tmp_path / "pool").status == 0
    for path in (made / "explained/explanations.csv", tmp_path / "pool/objects.csv"):
        with open(path, encoding="utf-8", newline="") as stream:
            found = {row["object_id"] for row in csv.DictReader(stream)}
        assert found == {scores.escape_cell(name) for name in odd}
    pictures = [path.name for path in (made / "explained").glob("*.png")]
    assert len(pictures) == len(odd) and not re.search("[<>'|=]", "".join(pictures))
    chosen = cast_lens("rank", tmp_path / "pool", "--strategy", "core_set", "-n", str(len(odd)),
                       "-o", tmp_path / "next", "--json")  # fmt: skip
    assert {row["object_id"] for row in json.loads(chosen.out)["objects"]} == set(odd)


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["explain", "nowhere", "--model", "sglc2-stand-in-v0"],
    ["shortcuts", "nowhere", "--model", "sglc2-stand-in-v0"],
    ["matrix", "--data", "a=nowhere", "--strict"],
    ["score", "nowhere", "--model", "sglc2-stand-in-v0"],
])  # fmt: skip
def test_tensorflow_says_nothing_beside_the_one_line(words, root, tmp_path):
    command = [sys.executable, "-m", "cast_lens", *words]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, env=environment)
    assert done.returncode and not done.stdout
    *shown, line = re.split("[\r\n]+", done.stderr.strip())
    assert line.startswith("error: ") and "nowhere" in line
    assert all(re.match(r"\w+: +\d+%|\s*$", bar) for bar in shown)  # progress alone


def test_a_matrix_of_nothing_is_told_and_fails(cast_lens, keras_net, tmp_path):
    found = cast_lens("matrix", "--models", keras_net.path, "--data", f"a={tmp_path / 'nowhere'}",
                      "-o", tmp_path / "m")  # fmt: skip
    assert found.status == 2 and "scored any of the data sets" in " ".join(found.lines)
    assert "nowhere" in (tmp_path / "m/matrix.md").read_text() and "nowhere" in found.out
