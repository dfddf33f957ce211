"""Every object is scored once or left out with a reason, whatever is killed, broken or repeated."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cast_lens import candidates, images, pack, run, score_shards, scoring
from tests import packs
from tests.fits_files import survey_file
from tests.folders import contents, hashes, stamps

Branch = namedtuple("Branch", "name bands side pixel_scale")
BRANCHES = (Branch("vis", ("VIS",), 12, 0.1), Branch("nir", ("H", "J"), 6, 0.3))
CLIP = {"vis": (np.array([-2e-12]), np.array([6e-12])),
        "nir": (np.array([-2e-12, -1e-12]), np.array([5e-12, 7e-12]))}  # fmt: skip


def logits(arrays, seed=0, slow=0.0):
    """A network: clip, then one layer, whose last bits hang on the shape of the batch alone."""
    time.sleep(slow)
    found = 0
    for name, (lower, upper) in CLIP.items():
        x = arrays[name]
        weights = np.random.default_rng([seed, len(name + name[0])]).normal(size=x[0].size)
        clipped = (np.clip(x, lower, upper) - lower) / (upper - lower)
        found = found + clipped.reshape(len(x), -1).astype(np.float32) @ weights.astype(np.float32)
    return found


def network(**changes):
    about = {"name": "fake", "sha256": "0123456789abcdef" * 4, "branches": BRANCHES,
             "calibration": {"slope": 0.5, "intercept": -1.0}, "clip": CLIP, "engine": "numpy",
             "logits": logits}  # fmt: skip
    return score_shards.Scorer(**(about | changes))


def other_network():
    return network(name="other", sha256="f" * 64, logits=lambda arrays: logits(arrays, 1))


def slow_network():
    return network(logits=lambda arrays: logits(arrays, slow=0.5))


def deadly_network():
    """Kill the process once in a while, as another that takes all memory makes the system do."""

    def dying(arrays):
        if random.SystemRandom().random() < 0.15:
            os.kill(os.getpid(), signal.SIGKILL)
        return logits(arrays)

    return network(logits=dying)


def pixels(k, band):
    rng = np.random.default_rng([k, ["VIS", "H", "J"].index(band)])
    side = 12 if band == "VIS" else 6
    return (rng.normal(size=(side, side)) * 2e-12).astype(np.float32)


def survey(folder, n=23):
    """Write images <id>_<band>.fits of n objects."""
    folder.mkdir(exist_ok=True)
    for k in range(n):
        for band in ("VIS", "H", "J"):
            put(folder, k, band, pixels(k, band))
    return folder


def put(folder, k, band, image):
    scale = 0.1 if band == "VIS" else 0.3
    card = f"PIXSCALE= {scale:20}"
    (folder / f"n{k:03}_{band}.fits").write_bytes(survey_file(image, card))


def find(folder, **options):
    return images.find(folder, bands=("VIS", "H", "J"), **options)


def score(source, output, net=network, **options):
    """Score in small shards and batches, without a bar."""
    rules = {"batch": 4, "shard": 8, "progress": False} | options
    found = source if isinstance(source, images.Images) else find(source)
    return scoring.score(found, net, output, **rules)


def by_id(folder, column="logit"):
    return candidates.read(folder).set_index("object_id")[column]


@pytest.fixture
def folder(tmp_path):
    return survey(tmp_path / "survey")


def arrays_of(k):
    vis, h, j = (pixels(k, band) for band in ("VIS", "H", "J"))
    return {"vis": vis[None, ..., None], "nir": np.stack([h, j], axis=-1)[None]}


def test_every_object_has_the_score_of_its_own_pixels(folder, tmp_path):
    about = score(folder, tmp_path / "out")
    table = candidates.read(tmp_path / "out")
    assert sorted(table["object_id"]) == [f"n{k:03}" for k in range(23)]
    truth = {f"n{k:03}": float(logits(arrays_of(k))[0]) for k in range(23)}
    assert table["object_id"].tolist() == sorted(truth, key=lambda name: -truth[name])
    assert table["logit"].to_numpy() == pytest.approx(sorted(truth.values())[::-1], rel=1e-5)
    assert table["score"].to_numpy() == pytest.approx(expit(table["logit"]), rel=1e-12)
    assert table["probability"].to_numpy() == pytest.approx(expit(0.5 * table["logit"] - 1))
    assert table["spread"].isna().all() and (table["flags"] == "").all()
    assert set(table["weights"]) == {"0123456789ab"}
    assert about["audit"]["n_images"] == about["audit"]["n_scored"] == 23
    assert json.loads((tmp_path / "out/run.json").read_text()) == json.loads(json.dumps(about))
    assert (tmp_path / "out/left_out.csv").read_text() == "object_id,path,reason,found,expected\n"


def damage(folder):
    """Break objects 3, 5, 9 and 10, and change the pixels of 6 and 7."""
    (folder / "n003_H.fits").write_bytes(b"<html>")
    (folder / "n005_VIS.fits").write_bytes((folder / "n005_VIS.fits").read_bytes()[:3000])
    (folder / "n009_J.fits").unlink()
    put(folder, 10, "VIS", np.zeros((1, 7), ">f4"))
    (folder / "n010_VIS.fits").write_bytes(b"")
    bad = pixels(6, "H")
    bad[0, :3] = np.nan, np.inf, 1e38
    put(folder, 6, "H", bad)
    put(folder, 7, "VIS", np.zeros((12, 12), np.float32))


def test_object_that_cannot_be_read_is_left_out_and_changes_no_other(folder, tmp_path):
    score(folder, tmp_path / "sound")
    damage(folder)
    about = score(folder, tmp_path / "out")
    audit = about["audit"]
    reasons = {"empty": 1, "missing_band": 1, "not_fits": 1, "truncated": 1}
    assert audit["n_left_out"] == reasons
    assert audit["n_images"] == 23 == audit["n_scored"] + sum(reasons.values())
    assert audit["n_flagged"] == {"nan_filled": 1, "constant": 1}
    left_out = pd.read_csv(tmp_path / "out/left_out.csv", dtype=str, keep_default_na=False)
    assert list(left_out) == ["object_id", "path", "reason", "found", "expected"]
    assert left_out["object_id"].tolist() == ["n003", "n005", "n009", "n010"]
    assert left_out["reason"].tolist() == ["not_fits", "truncated", "missing_band", "empty"]
    assert "n003_H.fits" in left_out["path"][0]
    assert (left_out[["found", "expected"]] != "").all(axis=None)
    sound, found = by_id(tmp_path / "sound"), by_id(tmp_path / "out")
    touched = {"n003", "n005", "n006", "n007", "n009", "n010"}
    assert set(sound.index) - set(found.index) == touched - {"n006", "n007"}
    for object_id in set(sound.index) - touched:
        assert sound[object_id] == found[object_id]  # to the last bit
    flags = by_id(tmp_path / "out", "flags")
    assert (flags["n006"], flags["n007"], flags["n008"]) == ("nan_filled", "constant", "")


def test_order_of_objects_and_size_of_shards_change_no_score(folder, tmp_path):
    score(folder, tmp_path / "a")
    for name, shard in (("b", 23), ("c", 4), ("d", 100)):
        score(folder, tmp_path / name, shard=shard)
        assert by_id(tmp_path / name).equals(by_id(tmp_path / "a"))


def test_strict_makes_an_object_that_cannot_be_read_an_error(folder, tmp_path):
    damage(folder)
    with pytest.raises(scoring.ScoringError, match="object_id n003, .*not_fits.*--strict"):
        score(folder, tmp_path / "out", strict=True)
    assert not (tmp_path / "out/candidates.csv").exists()
    score(folder, tmp_path / "out")
    with pytest.raises(scoring.ScoringError, match="n003.*3 more.*--strict"):
        score(folder, tmp_path / "out", strict=True)


def test_no_usable_object_is_an_error_before_anything_is_written(folder, tmp_path):
    for path in folder.glob("*_VIS.fits"):
        path.write_bytes(b"")
    with pytest.raises(scoring.ScoringError, match="none of 23 objects.*n000.*empty"):
        score(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logit_that_is_no_number_names_its_object(folder, tmp_path, value):
    bright = pixels(9, "VIS").sum()

    def broken(arrays):
        is_nine = np.isclose(arrays["vis"].sum((1, 2, 3)), bright, rtol=1e-4, atol=0)
        return np.where(is_nine, value, logits(arrays))

    with pytest.raises(scoring.ScoringError, match="object_id n009: network fake gives the logit"):
        score(folder, tmp_path / "out", lambda: network(logits=broken))
    assert not (tmp_path / "out/candidates.csv").exists()


def test_dihedral_averages_the_logits_of_eight_images(folder, tmp_path):
    score(folder, tmp_path / "out", dihedral=True)
    found = by_id(tmp_path / "out")
    for k in (0, 7, 22):
        alone = []
        for turns in range(4):
            for mirror in (False, True):
                turned = {
                    name: np.rot90(x[:, ::-1] if mirror else x, turns, (1, 2))
                    for name, x in arrays_of(k).items()
                }
                alone.append(float(logits(turned)[0]))
        assert len({round(a, 6) for a in alone}) == 8
        assert found[f"n{k:03}"] == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.slow
def test_elements_are_those_of_resampling():
    from cast_lens import resampling

    x = np.random.default_rng(0).normal(size=(8, 5, 5, 2)).astype(np.float32)
    expected = np.asarray(resampling.dihedral(x, np.arange(8)))
    for element in range(8):
        assert np.array_equal(score_shards.turned(x, element)[element], expected[element])


def test_ensemble_averages_logits_and_tells_its_spread(folder, tmp_path):
    score(folder, tmp_path / "a")
    score(folder, tmp_path / "b", other_network)
    about = score(folder, tmp_path / "both", [network, other_network])
    a, b, both = (by_id(tmp_path / name).sort_index() for name in ("a", "b", "both"))
    assert both.to_numpy() == pytest.approx((a + b) / 2)
    spread = np.std([expit(a), expit(b)], axis=0, ddof=1)
    assert by_id(tmp_path / "both", "spread").sort_index().to_numpy() == pytest.approx(spread)
    probability = (expit(a / 2 - 1) + expit(b / 2 - 1)) / 2
    found = by_id(tmp_path / "both", "probability").sort_index()
    assert found.to_numpy() == pytest.approx(probability.to_numpy())
    assert [one["name"] for one in about["network"]] == ["fake", "other"]


def test_members_must_take_the_same_images(folder, tmp_path):
    odd = dataclasses.replace(network(), branches=BRANCHES[:1], name="odd")
    with pytest.raises(scoring.ScoringError, match="fake and odd take other images"):
        score(folder, tmp_path / "out", [network, lambda: odd])


def test_probability_is_empty_without_a_calibration(folder, tmp_path):
    score(folder, tmp_path / "out", lambda: network(calibration=None))
    assert by_id(tmp_path / "out", "probability").isna().all()


def test_own_clip_puts_percentiles_of_the_images_where_the_released_fluxes_were(folder, tmp_path):
    about = score(folder, tmp_path / "out", clip="own")
    own = {band: np.percentile(
               np.stack([pixels(k, band) for k in range(23)]).astype(np.float64), (0.1, 99.0))
           for band in ("VIS", "H", "J")}  # fmt: skip
    for branch in BRANCHES:
        for band in branch.bands:
            assert about["clip"][branch.name][band] == pytest.approx(own[band], rel=1e-12)
    found = by_id(tmp_path / "out")
    bounds = {"vis": np.array([own["VIS"]]).T, "nir": np.stack([own["H"], own["J"]], axis=1)}
    for k in (0, 11):
        arrays = {}
        for name, x in arrays_of(k).items():
            lower, upper = bounds[name]
            unit = (np.clip(x, lower, upper) - lower) / (upper - lower)
            arrays[name] = unit * (CLIP[name][1] - CLIP[name][0]) + CLIP[name][0]
        assert found[f"n{k:03}"] == pytest.approx(float(logits(arrays)[0]), rel=1e-4)


def test_own_clip_makes_the_unit_of_the_images_irrelevant(folder, tmp_path):
    score(folder, tmp_path / "a", clip="own")
    other = tmp_path / "other"
    other.mkdir()
    for k in range(23):
        for band in ("VIS", "H", "J"):
            put(other, k, band, pixels(k, band) * np.float32(2.0**40))
    score(other, tmp_path / "b", clip="own")
    a, b = by_id(tmp_path / "a").sort_index(), by_id(tmp_path / "b").sort_index()
    assert a.to_numpy() == pytest.approx(b.to_numpy(), rel=1e-5)


def test_own_clip_does_not_count_a_border_of_zeros(folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    for k in range(9):
        for band in ("VIS", "H", "J"):
            put(small, k, band, 3e-12 + np.abs(pixels(k, band)[2:-2, 2:-2]))
    about = score(small, tmp_path / "out", clip="own")
    assert about["clip"]["vis"]["VIS"][0] > 3e-12 - 1e-18
    assert set(by_id(tmp_path / "out", "flags")) == {"padded"}


@pytest.mark.parametrize("factor", [1e30, 1e-6])
def test_images_in_another_unit_are_warned_of(folder, tmp_path, factor):
    for k in range(23):
        put(folder, k, "VIS", pixels(k, "VIS") * np.float32(factor))
    with pytest.warns(UserWarning, match=r"% in VIS are between .*--clip own") as caught:
        about = score(folder, tmp_path / "out")
    assert "in H" not in str(caught[0].message)
    assert (about["contrast"][0]["VIS"]["inside"] < 0.01) == (factor > 1)
    assert about["contrast"][0]["VIS"]["range"] < 0.01 or factor > 1
    score(folder, tmp_path / "own", clip="own")  # and no warning


@pytest.mark.filterwarnings("error")
def test_images_in_the_unit_of_the_network_are_not_warned_of(folder, tmp_path):
    found = score(folder, tmp_path / "out")["contrast"][0]
    truth = np.concatenate([pixels(k, "J").ravel() for k in range(23)])
    lower, upper = -1e-12, 7e-12
    assert found["J"]["inside"] == pytest.approx(np.mean((truth > lower) & (truth < upper)))


def test_network_that_does_not_clip_has_no_own_clip(folder, tmp_path):
    with pytest.raises(scoring.ScoringError, match="does not clip.*--clip released"):
        score(folder, tmp_path / "out", lambda: network(clip={}), clip="own")


def test_images_and_network_may_name_bands_differently(folder, tmp_path):
    score(folder, tmp_path / "a")
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in folder.iterdir():
        name = path.name.replace("_VIS", "_r").replace("_H", "_i").replace("_J", "_z")
        os.link(path, renamed / name)
    found = images.find(renamed, bands=("r", "i", "z"))
    with pytest.raises(images.ImagesError, match="found the bands r, i, z, .*VIS.*--bands"):
        score(found, tmp_path / "b")
    score(found, tmp_path / "b", take={"VIS": "r", "H": "i", "J": "z"})
    asked = []

    def find_them(bands):
        asked.append(bands)
        return images.find(renamed, bands=bands)

    rules = {"batch": 4, "shard": 8, "progress": False}
    scoring.score(find_them, network, tmp_path / "c", take=["r", "i", "z"], **rules)
    assert asked == [("r", "i", "z")]
    for name in "bc":
        assert by_id(tmp_path / name).equals(by_id(tmp_path / "a"))
    with pytest.raises(scoring.ScoringError, match="found 2 bands, r, i, .*VIS, H, J"):
        score(found, tmp_path / "d", take=("r", "i"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda f: {"net": other_network}, "network"),
        (lambda f: {"dihedral": True}, "options.dihedral: False then, True now"),
        (lambda f: {"clip": "own"}, "options.clip: 'released' then, 'own' now"),
        (lambda f: {"batch": 5}, "options.batch"),
        (lambda f: {"source": find(f, mask_value=100)}, "options.mask_value: None then, 100 now"),
        (lambda f: put(f, 2, "VIS", pixels(3, "VIS")) or {}, "images.sha256"),
        (lambda f: (f / "n004_VIS.fits").rename(f / "x_VIS.fits") and {}, "images.n: 23 then"),
    ],
)
def test_folder_begun_differently_is_refused_with_the_difference(folder, tmp_path, change, word):
    score(folder, tmp_path / "out")
    before = hashes(tmp_path / "out")
    arguments = {"source": folder, "output": tmp_path / "out"} | change(folder)
    with pytest.raises(run.RunError, match="begun differently") as caught:
        score(**arguments)
    assert word in str(caught.value) and "--restart" in str(caught.value)
    assert hashes(tmp_path / "out") == before
    score(**arguments, restart=True)
    arguments["output"] = tmp_path / "new"
    score(**arguments)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "new")


def test_folder_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    before = stamps(tmp_path / "mine")
    for restart in (False, True):
        with pytest.raises(scoring.ScoringError, match="thesis.tex.*nothing was written"):
            score(folder, tmp_path / "mine", restart=restart)
    assert stamps(tmp_path / "mine") == before


def test_finished_run_computes_nothing_again(folder, tmp_path):
    score(folder, tmp_path / "out")
    before = contents(tmp_path / "out")

    def refuse(arrays):
        raise AssertionError("computed again")

    score(folder, tmp_path / "out", lambda: network(logits=refuse))
    assert contents(tmp_path / "out") == before


def test_damaged_shard_is_computed_again(folder, tmp_path):
    score(folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    path = score_shards.shard_path(tmp_path / "out", 1)
    data, calls = bytearray(path.read_bytes()), []

    def counted(arrays):
        calls.append(1)
        return logits(arrays)

    for n, at in enumerate(range(0, len(data), 197), 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        score(folder, tmp_path / "out", lambda: network(logits=counted))
        assert len(calls) == 2 * n  # of 4 objects each
        assert contents(tmp_path / "out") == before


class Killed(BaseException):
    """What no command catches."""


@pytest.mark.parametrize("after", [False, True])
def test_run_that_dies_at_every_write_ends_as_one_that_does_not(
    folder, tmp_path, monkeypatch, after
):
    """The n-th run dies at its n-th write, before or after the file has its name."""
    damage(folder)
    score(folder, tmp_path / "whole", clip="own")
    whole, replace, n_kills = contents(tmp_path / "whole"), os.replace, 0
    calls = []

    def dying(source, target):
        calls.append(target)
        if len(calls) > n_kills:
            if after:
                replace(source, target)
            else:
                os.link(source, f"{source}-left")  # as a kill leaves it
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    while True:
        calls.clear()
        try:
            score(folder, tmp_path / "pieces", clip="own")
            break
        except Killed:
            n_kills += 1
            assert n_kills < 20
    assert n_kills >= 5 and contents(tmp_path / "pieces") == whole


RUN = """
import sys
from pathlib import Path
from tests import test_scoring
test_scoring.score(Path(sys.argv[1]), Path(sys.argv[2]), getattr(test_scoring, sys.argv[3]),
                   workers=int(sys.argv[4]), shard=4)
"""


def start(folder, output, net="slow_network", workers=1):
    arguments = [sys.executable, "-c", RUN, str(folder), str(output), net, str(workers)]
    return subprocess.Popen(arguments, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE,
                            text=True, start_new_session=True)  # fmt: skip


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_process_goes_on_where_it_was_and_a_second_one_is_refused(
    folder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(scoring, "PATIENCE", 0.0)
    process = start(folder, out)
    try:
        wait_for(score_shards.shard_path(out, 1), process)
        with pytest.raises(run.RunError, match=f"in use by.*{process.pid}"):
            score(folder, out, shard=4)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first = {path: path.stat().st_mtime_ns for path in out.rglob("logits.json")}
    assert 2 <= len(first) < 6 and not (out / "candidates.csv").exists()
    monkeypatch.undo()
    score(folder, out, shard=4)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    score(folder, tmp_path / "whole", shard=4)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_workers_that_die_at_random_lose_and_double_nothing(tmp_path):
    folder = survey(tmp_path / "survey", 60)
    score(folder, tmp_path / "whole", shard=4)
    n_runs = 0
    while True:
        process = start(folder, tmp_path / "out", "deadly_network", workers=2)
        said = process.communicate(timeout=300)[1]
        n_runs += 1
        if process.returncode == 0:
            break
        assert "given up" in said and n_runs < 20, said
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def many_network(chance=0.02):
    def dying(arrays):
        if random.SystemRandom().random() < chance:
            os.kill(os.getpid(), signal.SIGKILL)
        return arrays["vis"].sum((1, 2, 3)) * 1e11

    return network(branches=(Branch("vis", ("VIS",), 6, 0.1),), clip={}, logits=dying)


def score_many(folder, output, net=many_network, **options):
    """Score a pack in shards of a thousand, batches of 250."""
    found = images.find(folder, pixel_scale={"VIS": 0.1})
    return score(found, output, net, batch=250, shard=1000, **options)


@pytest.mark.slow
def test_a_hundred_thousand_objects_are_scored_once_though_workers_and_runs_are_killed(tmp_path):
    n, rng = 100_000, np.random.default_rng(0)
    pixels_ = (rng.normal(size=(n, 1, 6, 6)) * 1e-12).astype(np.float32)
    folder = tmp_path / "survey"
    folder.mkdir()
    paths = [f"{folder}/{k}.npy" for k in range(n)]
    for path, image in zip(paths, pixels_):
        np.save(path, image)
    table = pd.DataFrame({"object_id": [f"n{k}" for k in range(n)], "path": paths})
    pack.build(tmp_path / "pack", table, {"vis": ("VIS",)}, mask_value=None, dtype="float32",
               channels="first", progress=False)  # fmt: skip
    code = RUN.replace("test_scoring.score(", "test_scoring.score_many(").replace(", shard=4", "")
    n_runs = n_kills = 0
    while True:
        arguments = [sys.executable, "-c", code, str(tmp_path / "pack"), str(tmp_path / "out"),
                     "many_network", "2"]  # fmt: skip
        process = subprocess.Popen(arguments, cwd=Path(__file__).parents[1], text=True,
                                   stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
        try:
            said = process.communicate(timeout=random.SystemRandom().uniform(5, 15))[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, n_kills = process.communicate()[1], n_kills + 1
        n_runs += 1
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL or "given up" in said, said
        assert n_runs < 60
    found = candidates.read(tmp_path / "out")
    assert n_runs > 1 and len(found) == n and found["object_id"].nunique() == n
    wanted = pixels_.astype(np.float64).sum((1, 2, 3)) * 1e11
    order = found["object_id"].str[1:].astype(int).to_numpy()
    assert np.allclose(found["logit"], wanted[order], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_workers_give_the_bytes_of_one_process(folder, tmp_path):
    score(folder, tmp_path / "one")
    score(folder, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_open_network_cannot_go_to_workers(folder, tmp_path):
    opened = SimpleNamespace(name="mine", branches=BRANCHES)
    with pytest.raises(scoring.ScoringError, match="network mine is open.*name it"):
        score(folder, tmp_path / "out", opened, workers=2)


def test_dry_run_writes_nothing(folder, tmp_path):
    plan = score(folder, tmp_path / "out", dry_run=True)["plan"]
    assert plan == {"n_images": 23, "n_shards": 3, "n_shards_there": 0}
    assert not (tmp_path / "out").exists()
    score(folder, tmp_path / "out")
    score_shards.shard_path(tmp_path / "out", 1).unlink()
    before = stamps(tmp_path / "out")
    assert score(folder, tmp_path / "out", dry_run=True)["plan"]["n_shards_there"] == 2
    assert stamps(tmp_path / "out") == before


@pytest.mark.parametrize("options", [{"clip": "mine"}, {"batch": 0}, {"shard": 0}, {"workers": 0}])
def test_wrong_argument_is_refused(folder, tmp_path, options):
    with pytest.raises(scoring.ScoringError, match=next(iter(options))):
        score(folder, tmp_path / "out", **options)


def test_pack_is_scored_with_labels_and_a_flipped_bit_is_left_out(tmp_path):
    catalog = packs.survey(tmp_path / "survey", 11)
    folder = tmp_path / "pack"
    packs.build(folder, catalog)
    branches = (Branch("vis", ("VIS",), 11, 0.1), Branch("nir", ("H", "Y"), 7, 0.3))

    def first_pixels(arrays):
        return arrays["vis"].sum((1, 2, 3)) * 1e11 + arrays["nir"].sum((1, 2, 3)) * 1e10

    net = network(branches=branches, clip={}, logits=first_pixels)
    found = images.find(folder, pixel_scale={"VIS": 0.1, "H": 0.3, "Y": 0.3, "J": 0.3})
    score(found, tmp_path / "a", lambda: net)
    labels = by_id(tmp_path / "a", "label")
    assert len(labels) == 11
    assert all(label == packs.label_of(object_id) for object_id, label in labels.items())
    path = folder / "vis.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    about = score(found, tmp_path / "b", lambda: net)
    assert about["audit"]["n_left_out"] == {"checksum": 1}
    last = pack.open_pack(folder).catalog["object_id"].iloc[-1]
    assert set(labels.index) - set(by_id(tmp_path / "b").index) == {last}


def test_ids_a_spreadsheet_would_run_stay_exact(tmp_path):
    folder = survey(tmp_path / "survey", 2)
    for band in ("VIS", "H", "J"):
        (folder / f"n000_{band}.fits").rename(folder / f"=cmd_{band}.fits")
        (folder / f"n001_{band}.fits").rename(folder / f"@x é_{band}.fits")
    score(folder, tmp_path / "out")
    assert set(candidates.read(tmp_path / "out")["object_id"]) == {"=cmd", "@x é"}
    assert "'=cmd," in (tmp_path / "out/candidates.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_memory_of_pixels_does_not_grow_with_the_number_of_objects(tmp_path):
    branch, folder, peaks = Branch("vis", ("VIS",), 60, 0.1), tmp_path / "survey", []
    net = network(branches=(branch,), clip={}, logits=lambda x: x["vis"].sum((1, 2, 3)))
    folder.mkdir()
    for k in range(160):
        put(folder, k, "VIS", np.random.default_rng(k).normal(size=(60, 60)).astype(np.float32))
        if k in (39, 159):
            found = images.find(folder, bands=("VIS",))
            score(found, tmp_path / f"warm{k}", lambda: net)
            tracemalloc.start()
            score(found, tmp_path / f"out{k}", lambda: net)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 120 * 60 * 60 * 4 / 4  # a quarter of the pixels that came more


def test_real_cutouts_are_scored(real_data, tmp_path):
    found = images.find(real_data / "sglc1/ground_based", mask_value=100)
    net = network(clip={})
    about = scoring.score(found, lambda: net, tmp_path / "out", take=dict(VIS="R", H="I", J="U"),
                          progress=False)  # fmt: skip
    assert about["audit"]["n_scored"] == 6
    flags = by_id(tmp_path / "out", "flags")
    assert flags["100023"] == "masked;resampled;cropped" and flags["100002"] == "resampled;cropped"
