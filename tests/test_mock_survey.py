"""A stand-in survey under kills, full disks, races and wrong input; faults 22-26 and 33."""

import csv
import ctypes
import errno
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cast_lens
from cast_lens import cli, run, workers
from cast_lens.mock import makers, survey
from cast_lens.run import flush_folder
from tests.folders import contents, stamps
from tests.processes import children, kill_part

ROOT = Path(survey.__file__).parents[2]


@dataclass(frozen=True)
class Tiny:
    """Random bytes in two bands; object 13 has no files and no row, object 17 has two rows."""

    seed: int = 0
    size: int = 300
    survey: str = "tiny"

    def parameters(self):
        return {"size": self.size, "bands": ("A", "B")}

    def make(self, k):
        rng = np.random.default_rng((self.seed, k))
        files = {f"Public/{b}/image{b}-{k}.bin": rng.bytes(self.size + k) for b in "AB"}
        row = {"ID": 200_000 + k, "flux": rng.normal() * 1e-12, "n_pix": rng.integers(100)}
        row |= {"mag": np.float32(rng.normal()) if k % 3 else np.nan, "lens": rng.random() > 0.5}
        return ({}, []) if k == 13 else (files, [row | {"name": "ü, x"}] * (1 + (k == 17)))

    def catalog(self, rows, n):
        text = rows.to_csv(index=False, lineterminator="\n")
        return {"catalog.csv": text.encode(), "Public/n.txt": f"{n} {list(rows)}\n".encode()}


@dataclass(frozen=True)
class Named(Tiny):
    """Two surveys of one pixel: what a published choice changes is part of the parameters."""

    telescope: str = "challenge"
    quirks_n: int | None = None

    @property
    def depends_on_n(self):
        return self.quirks_n is not None

    def parameters(self):
        return super().parameters() | {"telescope": self.telescope, "quirks": self.depends_on_n}


@dataclass(frozen=True)
class Large(Tiny):
    """Says how many bytes an object takes."""

    bytes_per_object: int = 1 << 60


@dataclass(frozen=True)
class Slow(Tiny):
    """Takes a tenth of a second an object."""

    def make(self, k):
        time.sleep(0.1)
        return super().make(k)


class OddError(Exception):
    """Cannot be sent to another process."""

    def __init__(self, one, two):
        super().__init__(one)


@dataclass(frozen=True)
class Broken(Tiny):
    """Fails at object 40 in one of several ways."""

    how: str = "raise"

    def make(self, k):
        files, rows = super().make(k)
        if k == 40:
            if self.how == "raise":
                raise ZeroDivisionError("no width")
            if self.how == "odd":
                raise OddError("one", "two")
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "row":
                rows = [{"ID": 1j}]
            else:
                files = {self.how: b"x"}
        return files, rows


@dataclass(frozen=True)
class Bare(Tiny):
    """One small file and 27 numbers an object, to make very many of."""

    def make(self, k):
        columns = np.random.default_rng((self.seed, k)).random(27)
        return {f"{k % 100}/{k}": columns.tobytes()}, [{f"c{j}": x for j, x in enumerate(columns)}]

    def catalog(self, rows, n):
        return {"catalog.csv": rows.to_csv(index=False).encode()}


def write(folder, maker=None, *, n=70, workers=2):
    return survey.write(folder, maker or Tiny(), n=n, workers=workers, progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the contents of an uninterrupted survey of 70 objects."""
    folder = tmp_path_factory.mktemp("whole") / "survey"
    write(folder)
    return contents(folder)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Do not wait for the disk; what a killed process wrote, the system keeps."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(run, "flush_folder", lambda _: None)


# What is written


def test_every_file_is_what_the_maker_returned(whole):
    expected, rows = {}, []
    for k in range(70):
        made, truth = Tiny().make(k)
        expected |= made
        rows += truth
    expected |= Tiny().catalog(pd.DataFrame(rows), 70)
    ours = {"manifest.json", "sha256sum.txt"}
    found = {name: text for name, text in whole.items() if not name.startswith(".mock/")}
    assert {name: found[name] for name in found.keys() - ours} == expected
    assert ours <= found.keys()


def test_the_catalog_has_the_rows_of_the_maker_exactly(whole):
    rows = list(csv.DictReader(whole["catalog.csv"].decode().splitlines()))
    truth = [row for k in range(70) for row in Tiny().make(k)[1]]
    assert len(rows) == len(truth) == 70  # one is missing, one is twice
    for row, expected in zip(rows, truth, strict=True):
        assert float(row["flux"]) == expected["flux"]
        assert row["mag"] == ("" if np.isnan(expected["mag"]) else str(float(expected["mag"])))
        assert row["n_pix"] == str(expected["n_pix"]) and row["lens"] == str(expected["lens"])
        assert row["ID"] == str(expected["ID"]) and row["name"] == "ü, x"


def test_the_sums_are_those_of_every_file(whole):
    lines = whole["sha256sum.txt"].decode().splitlines()
    found = {line[66:]: line[:66] for line in lines}
    ours = {"manifest.json", "sha256sum.txt"}
    files = {n for n in whole if not n.startswith(".mock/") and n not in ours}
    assert found.keys() == files and len(lines) == len(files)
    for name in files:
        assert found[name] == hashlib.sha256(whole[name]).hexdigest() + "  "


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_sha256sum_accepts_a_survey_and_finds_one_flipped_bit(tmp_path):
    write(tmp_path / "survey")
    check = ["sha256sum", "--strict", "--quiet", "-c", "sha256sum.txt"]
    done = subprocess.run(check, cwd=tmp_path / "survey", capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path = tmp_path / "survey/Public/A/imageA-47.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    done = subprocess.run(check, cwd=tmp_path / "survey", capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "Public/A/imageA-47.bin: FAILED\n"


def test_the_manifest_says_what_was_made_and_with_what(whole):
    manifest = json.loads(whole["manifest.json"])
    files = {n for n in whole if not n.startswith(".mock/")} - {"manifest.json", "sha256sum.txt"}
    versions = {"python": platform.python_version(), "cast_lens": cast_lens.__version__}
    versions |= {name: importlib.metadata.version(name) for name in ("numpy", "astropy")}
    assert manifest.pop("versions").items() >= versions.items()
    assert manifest == {
        "survey": "tiny",
        "seed": 0,
        "parameters": {"size": 300, "bands": ["A", "B"]},
        "n": 70,
        "files": len(files),
        "bytes": sum(len(whole[name]) for name in files),
        "sha256": hashlib.sha256(whole["sha256sum.txt"]).hexdigest(),
    }


def test_the_counts_returned_are_those_of_the_folder(tmp_path):
    found = write(tmp_path / "survey", workers=2)
    manifest = survey.read_manifest(tmp_path / "survey")
    assert (found["n"], found["made"], found["workers"]) == (70, 70, 2)
    assert found["files"] == manifest["files"] == 2 * 69 + 2
    assert found["bytes"] == manifest["bytes"]
    assert found["objects_per_second"] == pytest.approx(70 / found["seconds"])
    assert found["objects_per_second_per_core"] == pytest.approx(35 / found["seconds"])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_byte(tmp_path, whole, workers):
    write(tmp_path / "survey", workers=workers)
    assert contents(tmp_path / "survey") == whole


def test_the_order_of_the_blocks_changes_no_byte(tmp_path, whole, monkeypatch):
    ordered = survey.run_all
    monkeypatch.setattr(
        survey, "run_all", lambda make, todo, **how: ordered(make, todo[::-1], **how)
    )
    write(tmp_path / "survey", workers=1)
    assert contents(tmp_path / "survey") == whole


def test_another_seed_changes_the_pixels(tmp_path, whole):
    write(tmp_path / "survey", Tiny(seed=1))
    other = contents(tmp_path / "survey")
    assert other.keys() == whole.keys()
    assert not [name for name in other if name.endswith(".bin") and other[name] == whole[name]]


@pytest.mark.parametrize("n", [1, 14, 31, 32, 33])
def test_any_number_of_objects_is_made_whole(tmp_path, n):
    assert write(tmp_path / "a b/ü", n=n)["made"] == n
    found = contents(tmp_path / "a b/ü")
    assert sum(name.endswith(".bin") for name in found) == 2 * (n - (n > 13))
    assert len(found["catalog.csv"].splitlines()) == 1 + n - (n > 13) + (n > 17)
    assert found["Public/n.txt"].startswith(f"{n} ".encode())


def test_nothing_temporary_is_left(tmp_path):
    write(tmp_path / "survey")
    side = {path.name for path in (tmp_path / "survey/.mock").iterdir()}
    assert side == {"survey.json", "begun.json", "blocks"}
    hidden = [path.name for path in (tmp_path / "survey").rglob(".*")]
    assert sorted(hidden) == [".lock", ".mock"]


def test_files_are_renamed_before_the_flush_and_recorded_after_it(tmp_path, monkeypatch):
    steps, replace = [], os.replace
    monkeypatch.setattr(run.os, "replace", lambda a, b: (steps.append(Path(b).name), replace(a, b)))
    monkeypatch.setattr(run, "flush_folder", lambda p: steps.append("flush"))
    monkeypatch.setattr(survey, "BLOCK", 2)
    survey._make_block(tmp_path, Tiny(), 2, 4)
    images = [f"image{band}-{k}.bin" for k in (2, 3) for band in "AB"]
    assert steps == [*images, "flush", "000000002.jsonl"]


def test_a_flush_that_fails_is_an_error(tmp_path, monkeypatch):
    flush_folder(tmp_path)
    with pytest.raises(OSError, match="absent"):
        flush_folder(tmp_path / "absent")

    def fail(_):
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(run.ctypes, "CDLL", lambda *_, **__: types.SimpleNamespace(syncfs=fail))
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}'"):
        flush_folder(tmp_path)


# Growing, and calling again


def test_a_finished_survey_is_left_alone(tmp_path, monkeypatch):
    write(tmp_path / "survey")
    before = stamps(tmp_path / "survey")
    monkeypatch.setattr(Tiny, "make", None)
    monkeypatch.setattr(survey.run, "hold", None)
    found = write(tmp_path / "survey")
    assert (found["n"], found["made"], found["objects_per_second"]) == (70, 0, 0)
    assert stamps(tmp_path / "survey") == before


@pytest.mark.parametrize("steps", [(40, 70), (1, 32, 65, 70), (64, 70)])
def test_a_survey_that_grew_is_the_one_made_at_once(tmp_path, whole, steps):
    made = [write(tmp_path / "survey", n=n)["made"] for n in steps]
    assert contents(tmp_path / "survey") == whole
    if steps == (40, 70):
        assert made == [40, 70 - 32]  # the first block was whole


def test_a_smaller_survey_is_refused_with_what_to_do(tmp_path, whole):
    write(tmp_path / "survey")
    with pytest.raises(run.RunError, match="begun for 70 .*n = 69.* n = 70 or more.*folder"):
        write(tmp_path / "survey", n=69)
    assert contents(tmp_path / "survey") == whole


def test_a_smaller_survey_than_was_begun_is_refused(tmp_path):
    with pytest.raises(RuntimeError):
        write(tmp_path / "survey", Broken(how="raise"))
    with pytest.raises(run.RunError, match="begun for 70"):
        write(tmp_path / "survey", Broken(how="raise"), n=60)


def test_catalogs_of_the_smaller_survey_go(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "catalog", lambda self, rows, n: {f"catalog{n}.csv": b"x"})
    write(tmp_path / "survey", n=20)
    write(tmp_path / "survey", n=30)
    assert [path.name for path in (tmp_path / "survey").glob("cat*")] == ["catalog30.csv"]


def test_quirks_spread_over_n_forbid_growing(tmp_path):
    write(tmp_path / "survey", Named(quirks_n=20), n=20)
    before = contents(tmp_path / "survey")
    with pytest.raises(run.RunError, match=r"\(n: 20 then, 30 now\)\. Name another folder"):
        write(tmp_path / "survey", Named(quirks_n=30), n=30)
    assert contents(tmp_path / "survey") == before
    assert write(tmp_path / "survey", Named(quirks_n=20), n=20)["made"] == 0


@pytest.mark.parametrize(
    ("name", "made"),
    [("Public/B/imageB-40.bin", 32), ("catalog.csv", 0), ("sha256sum.txt", 0),
     ("manifest.json", 0), (".mock/blocks/000000032.jsonl", 32)],
)  # fmt: skip
@pytest.mark.parametrize("harm", ["delete", "cut"])
def test_what_was_harmed_is_made_again(tmp_path, whole, name, made, harm):
    for one, data in whole.items():  # a finished survey
        (tmp_path / "survey" / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "survey" / one).write_bytes(data)
    path = tmp_path / "survey" / name
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    if not name.startswith(".mock"):  # the side folder is not what a reader needs
        with pytest.raises(run.RunError, match="cast-lens mock"):
            survey.check_finished(tmp_path / "survey")
    else:
        (tmp_path / "survey/manifest.json").unlink()
    assert write(tmp_path / "survey")["made"] == made
    assert contents(tmp_path / "survey") == whole


def test_other_files_beside_a_finished_survey_stay(tmp_path):
    write(tmp_path / "survey", n=20)
    run.write_whole(tmp_path / "survey/Check/table.csv", "x")
    write(tmp_path / "survey", n=30)
    assert (tmp_path / "survey/Check/table.csv").read_text() == "x"
    assert "Check" not in (tmp_path / "survey/sha256sum.txt").read_text()


def test_a_copy_without_the_side_folder_is_finished_but_does_not_grow(tmp_path):
    write(tmp_path / "survey", n=20)
    shutil.copytree(tmp_path / "survey", tmp_path / "b", ignore=shutil.ignore_patterns(".*"))
    assert write(tmp_path / "b", n=20)["made"] == 0
    before = stamps(tmp_path / "b")
    with pytest.raises(run.RunError, match="expected a new or empty folder"):
        write(tmp_path / "b", n=30)
    assert stamps(tmp_path / "b") == before


def test_read_manifest_wants_a_finished_survey(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(run.RunError, match="holds no finished stand-in survey.*cast-lens mock"):
            survey.read_manifest(folder)
    for text in ("", "[]", "{}", '{"sha256": 3}', "\udcff"):
        (tmp_path / "manifest.json").write_text(text, errors="surrogateescape")
        with pytest.raises(run.RunError, match="holds no finished stand-in survey"):
            survey.read_manifest(tmp_path)


# Refusals


@pytest.mark.parametrize("n", [0, -1, 2.5, 2.0, "7", True, np.True_, None, float("nan")])
def test_a_wrong_number_of_objects_or_workers_is_refused(tmp_path, n):
    with pytest.raises(run.RunError, match="n is .*expected a whole number, 1 or more"):
        write(tmp_path / "survey", n=n)
    if n is not None:
        with pytest.raises(run.RunError, match="workers is .*expected a whole number, 1 or more"):
            write(tmp_path / "survey", workers=n)
    assert not (tmp_path / "survey").exists()


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_a_wrong_seed_is_refused(tmp_path, seed):
    with pytest.raises(run.RunError, match="seed is .*expected a whole number, 0 or more"):
        write(tmp_path / "survey", Tiny(seed=seed))
    assert not (tmp_path / "survey").exists()


def test_numpy_integers_are_numbers(tmp_path):
    found = write(tmp_path / "survey", Tiny(seed=np.int64(0)), n=np.int64(20), workers=np.int8(1))
    assert found["made"] == 20


@pytest.mark.parametrize(
    ("maker", "difference"),
    [(Tiny(seed=1), "seed: 0 then, 1 now"),
     (Tiny(size=301), "parameters.size: 300 then, 301 now"),
     (Tiny(survey="other"), "stand-in survey tiny, not other"),
     (Named(), "parameters.telescope: None then, 'challenge' now")],
)  # fmt: skip
@pytest.mark.parametrize("n", [20, 30])
def test_another_survey_in_the_folder_is_refused_with_the_difference(
    tmp_path, maker, difference, n
):
    write(tmp_path / "survey", n=20)
    before = contents(tmp_path / "survey")
    with pytest.raises(run.RunError) as caught:
        write(tmp_path / "survey", maker, n=n)
    message = str(caught.value)
    assert difference in message and str(tmp_path / "survey") in message
    assert "Name another folder" in message
    assert contents(tmp_path / "survey") == before


def test_growing_with_another_version_is_refused_and_finished_is_finished(tmp_path, monkeypatch):
    write(tmp_path / "survey", n=20)
    monkeypatch.setattr(survey, "_version", lambda name: "99")
    assert write(tmp_path / "survey", n=20)["made"] == 0
    with pytest.raises(run.RunError, match=r"versions\.numpy: '[\d.]+' then, '99' now"):
        write(tmp_path / "survey", n=30)


@pytest.mark.parametrize("name", ["manifest.json", "Public/Band1/imageEUC_VIS-100000.fits", ".x"])
def test_a_folder_of_other_files_is_not_touched(tmp_path, name):
    run.write_whole(tmp_path / "real" / name, '{"sha256": "x"}')
    before = stamps(tmp_path / "real")
    with pytest.raises(run.RunError, match="real holds .*; nothing was written, name another"):
        write(tmp_path / "real")
    assert stamps(tmp_path / "real") == before
    assert not (tmp_path / "real/.lock").exists()


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "survey").mkdir()
    assert write(tmp_path / "survey", n=5)["made"] == 5


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "survey").write_text("x")
    with pytest.raises(OSError, match="survey"):
        write(tmp_path / "survey")
    assert (tmp_path / "survey").read_text() == "x"


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "", ".mock/blocks/1", "manifest.json", "a\nb", "a\\b",
             "sha256sum.txt", "Public/A/imageA-39.bin"],
)  # fmt: skip
def test_a_path_that_a_survey_cannot_have_is_an_error(tmp_path, name):
    with pytest.raises(RuntimeError, match="object 40 of tiny .*: .* (path|another object) "):
        write(tmp_path / "a/b/survey", Broken(how=name))
    assert not list(tmp_path.rglob("x"))


def test_a_path_made_in_two_blocks_or_as_a_catalog_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="imageA-3.bin' was made for another object too"):
        write(tmp_path / "one", Broken(how="Public/A/imageA-3.bin"))
    monkeypatch.setattr(Tiny, "catalog", lambda *_: {"Public/A/imageA-3.bin": b""})
    with pytest.raises(RuntimeError, match="imageA-3.bin' was made for another object too"):
        write(tmp_path / "two", n=20)


def test_rows_of_other_columns_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Tiny, "make", lambda self, k: ({}, [{"ID": k, f"c{k // 50}": k}]))
    with pytest.raises(RuntimeError, match="'c1': 50.* other columns than the first.*'c0'"):
        write(tmp_path / "survey")


@pytest.mark.parametrize(
    ("how", "cause"),
    [("raise", "ZeroDivisionError: no width"), ("odd", "OddError: one"), ("row", "TypeError")],
)
def test_an_error_of_the_maker_names_the_object_and_the_survey(tmp_path, how, cause):
    with pytest.raises(RuntimeError, match=rf"object 40 of tiny \(seed 0\): {cause}"):
        write(tmp_path / "survey", Broken(how=how))
    assert not (tmp_path / "survey/manifest.json").exists()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_said_and_the_survey_goes_on(tmp_path, whole, monkeypatch):
    with pytest.raises(run.RunError, match="worker was killed.*run the same command again"):
        write(tmp_path / "survey", Broken(how="die"))
    assert not multiprocessing.active_children()
    monkeypatch.setattr(Broken, "make", Tiny.make)
    assert write(tmp_path / "survey", Broken(how="die"))["made"] > 0
    assert contents(tmp_path / "survey") == whole


def test_workers_have_one_thread_each(tmp_path, monkeypatch):
    def make(self, k):
        import threadpoolctl

        np.ones((200, 200)) @ np.ones((200, 200))
        most = max([pool["num_threads"] for pool in threadpoolctl.threadpool_info()], default=1)
        return {}, [{"threads": most, "later": os.environ["OMP_NUM_THREADS"]}]

    monkeypatch.setattr(Tiny, "make", make)
    write(tmp_path / "survey", n=2)
    assert contents(tmp_path / "survey")["catalog.csv"] == b"threads,later\n1,1\n1,1\n"


def test_the_default_is_a_worker_for_each_cpu_that_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "BLOCK", 1)
    found = survey.write(tmp_path / "many", Tiny(), n=workers.cpus() + 1, progress=False)
    assert found["workers"] == workers.cpus() == len(os.sched_getaffinity(0))
    assert write(tmp_path / "few", n=3, workers=50)["workers"] == 3


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """Function that mounts a file system of so many kilobytes, or mounts it anew."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options, *more):
        command = ["mount", "-t", "tmpfs", "-o", options, *more, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a file system")
        return place

    yield mount
    while os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_cannot_hold_the_survey_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(run.RunError) as caught:
        write(tmp_path / "a/survey", Large(), n=1000)
    needed, free = str(caught.value).split(" bytes needed")[0].split()[-1], run.free_bytes(tmp_path)
    assert needed == str(1000 << 60)
    assert int(str(caught.value).split(" free;")[0].split()[-1]) == pytest.approx(free, rel=0.1)
    assert not (tmp_path / "a").exists()


def test_objects_that_are_there_need_no_space(tmp_path):
    write(tmp_path / "survey", Large(bytes_per_object=0), n=64)
    free = run.free_bytes(tmp_path)
    assert write(tmp_path / "survey", Large(bytes_per_object=free // 8), n=66)["made"] == 2
    with pytest.raises(run.RunError, match="bytes needed for 17 objects"):
        write(
            tmp_path / "survey", Large(bytes_per_object=free // 16), n=96 + 17
        )  # 96 find room in the blocks there are


def test_a_full_disk_is_said_and_the_survey_goes_on_when_there_is_space(small_disk, whole):
    folder = small_disk("size=300k") / "survey"
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space left on device; \d+ bytes needed, \d+ free"):
            write(folder)
        assert all(whole[name] == text for name, text in contents(folder).items()
                   if name.startswith("Public"))  # fmt: skip
        assert not (folder / ".mock/scratch").exists()
        assert not multiprocessing.active_children()
    small_disk("remount,size=30m")
    assert write(folder)["made"] > 0
    assert contents(folder) == whole


@pytest.mark.parametrize("step", [0, 1, 7, 142, 143, 144, 145, 146, 147])
def test_a_disk_that_is_full_at_any_write_stops_the_survey(tmp_path, whole, monkeypatch, step):
    """Of one worker: 138 images, 3 records; of the parent: 2 writes before, 5 after these."""
    written, replace = multiprocessing.Value("i"), os.replace

    def full(source, target):
        if written.value == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.value += 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(run.os, "replace", full)
        with pytest.raises(OSError, match=r"No space left.*; \d+ bytes needed, \d+ free: '.*'"):
            write(tmp_path / "survey", workers=1)
    found = contents(tmp_path / "survey")
    assert "manifest.json" not in found
    assert not [name for name in found if "scratch" in name]
    assert all(whole[n] == text for n, text in found.items() if n != ".mock/begun.json")
    write(tmp_path / "survey")
    assert contents(tmp_path / "survey") == whole


def test_a_read_only_folder_is_named_and_a_finished_one_needs_no_writing(small_disk):
    folder = small_disk("size=30m") / "survey"
    write(folder, n=20)
    small_disk("remount,ro")
    before = contents(folder)
    assert write(folder, n=20)["made"] == 0
    with pytest.raises(OSError, match=r"Read-only file system: '.*survey/\.lock'"):
        write(folder, n=30)
    with pytest.raises(OSError, match=r"Read-only file system: '.*new'"):
        write(folder.parent / "new", n=30)
    assert contents(folder) == before


# Kills, signals and races, in a Python of their own, which imports this file


def child(function, *arguments):
    script = f"import sys, test_mock_survey as t; t.{function.__name__}(*sys.argv[1:])"
    places = [str(ROOT), str(Path(__file__).parent)]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, timeout=60):
    """Return standard output of a child that must end well."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def fork(action, *args, **named):
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            action(*args, **named)
            os._exit(0)
        except run.RunError:
            os._exit(2)
        finally:
            os._exit(1)
    return process


def kill(process, how):
    """Kill a run, all of it, or one of its workers."""
    kill_part(process, how)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 2), status
    return os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 2


def leave_flushing_out():
    os.fsync = run.flush_folder = lambda _: None


def kill_at_random_moments(path, n):
    path, n, moments, killed, n_torn = Path(path), int(n), random.Random(0), 0, 0
    survey.BLOCK = 4
    leave_flushing_out()
    sizes = (30, 48)  # the second run of three grows the folder
    start = time.perf_counter()
    whole = {}
    for size in sizes:
        write(path / f"whole{size}", n=size)
        whole[size] = contents(path / f"whole{size}")
    took = time.perf_counter() - start
    for k in range(5 * n):  # some had just finished; how many depends on the machine's other load
        if killed == n:
            break
        cut, size = path / f"cut{k // 3}", sizes[k % 3 > 0]  # three kills in each folder
        process = fork(write, cut, n=size)
        time.sleep(moments.uniform(0, 0.5 * took))
        killed += kill(process, ("parent", "all", "worker")[moments.randrange(3)])
        images = {f: b for f, b in contents(cut).items() if f.startswith("Public/") and "bin" in f}
        n_torn += sum(whole[48][name] != image for name, image in images.items())
        if (cut / "manifest.json").exists():
            survey.check_finished(cut)
    for cut in path.glob("cut*"):
        write(cut, n=48)
        assert contents(cut) == whole[48]
    print(json.dumps({"killed": killed, "torn": n_torn, "files": len(whole[48])}))


def stop_at_random_moments(path, n):
    """Send signals to a run, or to its workers as well, like Ctrl-C; count what that ended in."""
    path, moments, ends = Path(path), random.Random(0), []
    survey.BLOCK = 2
    leave_flushing_out()
    write(path / "whole", n=40)
    start = time.perf_counter()
    write(path / "again", n=40)
    took = time.perf_counter() - start

    def stopped(cut):
        os.dup2(os.open(path / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        try:
            run.command(lambda: write(cut, n=40))
        except SystemExit as end:
            os._exit(end.code)

    for k in range(int(n)):
        process = fork(stopped, path / f"cut{k // 2}")
        time.sleep(0.02 + moments.uniform(0, 0.5 * took))  # not before the handlers are there
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]
        (os.killpg if moments.random() < 0.5 else os.kill)(process, number)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    for cut in path.glob("cut*"):
        write(cut, n=40)
        assert contents(cut) == contents(path / "whole")
    print(
        json.dumps({"ends": ends, "said": sorted(set((path / "stderr").read_text().split("\n")))})
    )


def kill_at_every_step(path):
    """Kill worker and parent before and after each rename, one run a step."""
    path, replace = Path(path), os.replace
    survey.BLOCK = 2
    leave_flushing_out()
    calls, deadly, parent = multiprocessing.Value("i"), multiprocessing.Value("i", -1), [0]

    def dying(source, target):
        for moment in (lambda: None, lambda: replace(source, target)):
            moment()
            calls.value += 1
            if calls.value == deadly.value:
                os.kill(parent[0], signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

    def begin():
        parent[0] = os.getpid()
        write(path / "cut", n=3, workers=1)

    os.replace = dying
    write(path / "whole", n=3, workers=1)
    whole, steps, killed = contents(path / "whole"), calls.value, 0
    for step in range(1, steps + 1):
        calls.value, deadly.value = 0, step
        process = fork(begin)
        killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
        deadly.value = -1
        write(path / "cut", n=3, workers=1)
        assert contents(path / "cut") == whole, step
        shutil.rmtree(path / "cut")
    print(json.dumps({"killed": killed, "steps": steps, "files": len(whole)}))


def write_slowly(path, n, size="300"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a background shell hands it on
    survey.BLOCK = 2
    leave_flushing_out()
    run.command(lambda: write(path, Slow(size=int(size)), n=int(n)))


def make_very_many(path, n):
    found = write(path, Bare(), n=int(n))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps(found | {"own": own, "worker": worker}))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_random_kills_end_as_an_uninterrupted_survey(tmp_path):
    found = json.loads(finish(child(kill_at_random_moments, tmp_path, 10)))
    assert found["torn"] == 0
    assert found["killed"] == 10
    assert found["files"] == 2 * 47 + 2 + 2 + 2 + 12


@pytest.mark.slow
def test_many_random_kills_end_as_an_uninterrupted_survey(tmp_path):
    found = json.loads(finish(child(kill_at_random_moments, tmp_path, 100), timeout=600))
    assert found["torn"] == 0
    assert found["killed"] == 100


@pytest.mark.slow
def test_signals_at_random_moments_leave_no_traceback_and_nothing_torn(tmp_path):
    found = json.loads(finish(child(stop_at_random_moments, tmp_path, 80), timeout=600))
    assert set(found["ends"]) <= {0, run.EXIT_RUN_AGAIN}
    assert found["ends"].count(run.EXIT_RUN_AGAIN) >= 20
    line = "stopped; what was finished is kept, run the same command again to go on"
    assert found["said"] == ["", line]


@pytest.mark.slow
def test_a_kill_at_every_step_ends_as_an_uninterrupted_survey(tmp_path):
    found = json.loads(finish(child(kill_at_every_step, tmp_path)))
    images, records, others = 6, 2, 7  # survey, begun twice, two catalogs, sums, manifest
    assert found["steps"] == found["killed"] == 2 * (images + records + others)


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_ends_with_run_me_again_and_no_worker_left(tmp_path, number, group):
    folder = tmp_path / "survey"
    process = child(write_slowly, folder, 200)
    try:
        wait_for(lambda: list(folder.glob(".mock/blocks/*")))
        workers = children(process.pid)
        assert len(workers) == 2
        (os.killpg if group else os.kill)(process.pid, number)
        start = time.monotonic()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == run.EXIT_RUN_AGAIN
    assert time.monotonic() - start < 5  # 200 objects of two workers take ten seconds
    assert out == ""
    assert err == "stopped; what was finished is kept, run the same command again to go on\n"
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert not (folder / ".mock/scratch").exists() and not (folder / "manifest.json").exists()


@pytest.mark.slow
def test_the_workers_of_a_killed_run_end_by_themselves(tmp_path):
    folder = tmp_path / "survey"
    process = child(write_slowly, folder, 200)
    wait_for(lambda: list(folder.glob(".mock/blocks/*")))
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert len(workers) == 2
    wait_for(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()], seconds=2)


def test_a_second_run_on_the_folder_is_refused_naming_the_first(tmp_path, monkeypatch):
    folder = tmp_path / "survey"
    monkeypatch.setattr(survey, "PATIENCE", 0.1)
    process = child(write_slowly, folder, 200)
    try:
        wait_for(lambda: list(folder.glob(".mock/blocks/*")))
        for maker in (Slow(), Tiny(seed=1)):
            with pytest.raises(run.RunError, match=f"in use by .* process ID {process.pid}$"):
                write(folder, maker, n=200)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_memory_is_that_of_the_catalog_at_100_000_objects(tmp_path):
    few, many = (
        json.loads(finish(child(make_very_many, tmp_path / n, n), timeout=600))
        for n in ("1000", "100000")
    )
    assert many["files"] == 100_001 and many["made"] == 100_000
    assert many["worker"] - few["worker"] < 5e7
    assert many["own"] < 1e9
    print(many)


# The command


@pytest.fixture
def command(monkeypatch):
    """Function that runs `cast-lens` with makers of this file and keeps the signal handlers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for name in makers.MAKERS:
        monkeypatch.setitem(makers.MAKERS, name, f"{__name__}:Named")
    monkeypatch.setitem(makers.MAKERS, "deeplense1", f"{__name__}:Tiny")
    installed = types.ModuleType("lenstronomy")
    installed.__spec__ = object()
    monkeypatch.setitem(sys.modules, "lenstronomy", installed)
    checked = []
    check = types.ModuleType("check")
    found = pd.DataFrame({"quantity": ["lenses"], "known": ["0.5"]})
    check.check = lambda folder, **options: checked.append(folder) or found
    monkeypatch.setattr(cast_lens.mock, "check", check, raising=False)
    monkeypatch.setitem(sys.modules, "cast_lens.mock.check", check)
    monkeypatch.setattr("cast_lens.mock.comparison.readable", lambda table: table)

    def command(*arguments):
        checked.clear()
        try:
            cli.main(["mock", *map(str, arguments)])
        except SystemExit as end:
            return end.code, checked
        return 0, checked

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_command_writes_checks_and_says_what_is_there(command, tmp_path, capsys):
    folder = tmp_path / "survey"
    assert command("sglc2", folder, "--n", 20, "--seed", 3, "--workers", 1) == (0, [folder])
    out, err = capsys.readouterr()
    assert f"{folder}: finished, 20 objects in 40 files" in out and "a second and core" in out
    assert "quantity" in out and "lenses" in out and f"{folder}/Check" in out
    assert "0/20 [" in err and "object/s]" in err
    manifest = survey.read_manifest(folder)
    assert (manifest["n"], manifest["seed"]) == (20, 3)
    assert manifest["parameters"]["telescope"] == "challenge"
    assert command("sglc2", folder, "--n", 20, "--seed", 3, "--no-check") == (0, [])
    out = capsys.readouterr().out
    assert "finished, 20 objects" in out and "made now" not in out


def test_the_choices_reach_the_maker(command, tmp_path):
    more = ["--quirks", "--telescope", "in-flight", "--no-check"]
    assert command("sglc2", tmp_path / "survey", "--n", 20, *more)[0] == 0
    parameters = survey.read_manifest(tmp_path / "survey")["parameters"]
    assert parameters["telescope"] == "in-flight" and parameters["quirks"] is True
    assert command("sglc2", tmp_path / "survey", "--n", 30, *more)[0] == run.EXIT_USAGE


def test_the_folder_and_the_number_have_defaults(command, tmp_path, monkeypatch):
    wanted = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        survey, "write", lambda *a, **k: wanted.append((a[0], k["n"], k["workers"])) or sys.exit(9)
    )
    assert command("sglc2")[0] == command("deeplense1", "--seed", 7)[0] == 9
    first, second = Path("data/mock-sglc2-seed0"), Path("data/mock-deeplense1-seed7")
    assert wanted == [(first, 20_000, None), (second, 20_000, None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["sglc2", "--n", "0"], "--n: 0 is too small; expected 1 or more"),
     (["sglc2", "--n", "-3"], "--n: -3 is too small"),
     (["sglc2", "--n", "2.5"], "--n: invalid whole_number value: '2.5'"),
     (["sglc2", "--seed", "-1"], "--seed: -1 is too small; expected 0 or more"),
     (["sglc2", "--workers", "0"], "--workers: 0 is too small"),
     (["sglc3"], "invalid choice: 'sglc3'"),
     (["sglc2", "--telescope", "hubble"], "invalid choice: 'hubble'"),
     (["deeplense1", "--telescope", "in-flight"], "deeplense1 leaves no choice of telescope"),
     (["deeplense1", "--quirks"], "leave --quirks out"),
     (["features", "--n", "5"], "one table of 3329; leave --n out")],
)  # fmt: skip
def test_wrong_usage_is_said_and_writes_nothing(
    command, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == (run.EXIT_USAGE, [])
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_line(command, tmp_path, capsys):
    (tmp_path / "real.fits").write_text("x")
    assert command("sglc2", tmp_path) == (run.EXIT_USAGE, [])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_missing_lenstronomy_is_said_with_what_to_install(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lenstronomy", None)
    assert command("sglc2", tmp_path / "survey") == (run.EXIT_USAGE, [])
    assert "pip install cast-lens[mock]" in capsys.readouterr().err
    assert not (tmp_path / "survey").exists()


def test_the_feature_table_is_a_survey_and_never_overwrites(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lenstronomy", None)  # not needed
    assert command("features", tmp_path, "--seed", 4) == (0, [])
    table = pd.read_csv(tmp_path / "strong_lense_train.csv")
    assert len(table) == 3329 and table["label"].sum() == 255
    before = contents(tmp_path)
    assert command("features", tmp_path, "--seed", 5) == (run.EXIT_USAGE, [])
    assert "may be real" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_help_of_mock_imports_nothing_heavy():
    script = (
        "import sys\nfrom cast_lens.cli import main\ntry:\n    main(['mock', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print({'numpy', 'pandas', 'astropy', 'lenstronomy', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("\nset()\n")
    assert "sglc1-ground" in done.stdout


# The Makefile

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def make(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "N"}
    done = subprocess.run(
        ["make", *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    return done.stdout.splitlines()


@needs_make
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [(["mock-sglc2"], ["mock --seed 0 sglc2"]),
     (["mock-sglc2", "N=5", "SEED=2", "QUIRKS=1", "TELESCOPE=in-flight", "POPULATION=collett",
       "WORKERS=3"],
      ["mock --seed 2 --n 5 --quirks --telescope in-flight --population collett --workers 3 "
       "sglc2"]),
     (["mock-sglc1-space", "N=9"], ["mock --seed 0 --n 9 sglc1-space"]),
     (["mock-sglc1-ground"], ["mock --seed 0 sglc1-ground"]),
     (["mock-deeplense"], ["mock --seed 0 deeplense1", "mock --seed 0 deeplense2"]),
     (["mock-check", "DATA=a b"], ["mock-check 'a b'"])],
)  # fmt: skip
def test_make_calls_the_command(arguments, lines):
    said = [" ".join(line.split()) for line in make("-n", *arguments)]
    assert [line.partition("cast-lens ")[2] for line in said if "/cast-lens " in line] == lines


@needs_make
def test_make_lists_the_surveys():
    listed = {line.split()[0] for line in make("help")}
    assert {"mock-sglc2", "mock-sglc1-space", "mock-deeplense", "mock-check", "test"} <= listed


@needs_make
def test_make_installs_once_and_mock_serves_those_that_need_test(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p "$3/bin"\nfor name in python cast-lens; do\n'
        'printf "#!/bin/sh\\necho ran \\$*\\n" > "$3/bin/$name"; chmod +x "$3/bin/$name"\ndone\n'
    )
    python.chmod(0o755)
    where = [f"PYTHON={python}", f"VENV={tmp_path}/venv"]

    def ran(*arguments):
        return [line for line in make(*arguments, *where) if line.startswith("ran")]

    first = ran("mock-sglc2", "N=3")
    assert len(first) == 2 and first[1] == "ran mock --seed 0 --n 3 sglc2"
    assert first[0].endswith("-c constraints.txt -e .[test,mock]")
    assert ran("mock-sglc2", "N=3") == first[1:]
    assert ran("test") == ["ran -m pytest -n auto --dist worksteal"]
    assert ran("env") == []
    assert ran("env", "EXTRAS=jax,mock")[0].endswith("-e .[test,jax,mock]")
    assert ran("env", "EXTRAS=jax,mock") == ran("mock-sglc2", "N=3")[:0] == []
