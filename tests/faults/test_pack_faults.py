"""Faults 7, 10 to 14, 16, 22, 23, 25, 26, 30, 32 and 33 of faults.md, on the way into a pack."""

import errno
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cast_lens import catalog as catalogs
from cast_lens import cutouts, fits_image, folds, pack, pack_blocks, pack_sources, run
from cast_lens.pack import PackError
from tests import packs
from tests.fits_files import survey_file
from tests.folders import contents, hashes
from tests.packs import build, put, survey
from tests.processes import kill_part

ROOT = Path(pack.__file__).parents[1]
N = 23
VIS = {"vis": ("VIS",)}
BANDS = [f"path_{band}" for band in packs.SHAPES]


@pytest.fixture
def catalog(tmp_path):
    """A survey of `N` objects in four bands."""
    return survey(tmp_path / "survey", N)


@pytest.fixture
def space(tmp_path):
    """A survey of `N` objects in one band."""
    return survey(tmp_path / "survey", N, bands=("VIS",))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a pack have several blocks, and wait for no disk."""
    monkeypatch.setattr(pack_blocks, "BLOCK", 4)
    monkeypatch.setattr(os, "fsync", lambda file: None)


def fork(action, *args, **named):
    """Start a process that does something and ends: 0 well, 2 with an error a user can mend."""
    with warnings.catch_warnings():  # Python 3.12 sees threads
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            action(*args, **named)
            os._exit(0)
        except (run.RunError, OSError):
            os._exit(2)
        finally:
            os._exit(1)
    return process


def ended(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# 7: a corrupt object

SPOILT = {
    "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "1e38": 1e38, "100": 100.0, "0": 0.0,
}  # fmt: skip
BROKEN = {
    "empty": lambda data: b"", "cut": lambda data: data[:3000], "html": lambda data: b"<html>",
    "bits": lambda data: data[:100] + bytes(200) + data[300:], "gone": lambda data: None,
}  # fmt: skip


def records(found):
    """Return {object_id: bytes of all its images, and its row of the catalog}."""
    rows = found.catalog.to_dict("records")
    return {
        row["object_id"]: (b"".join(found.images(n)[k].tobytes() for n in found.inputs), str(row))
        for k, row in enumerate(rows)
    }


@pytest.mark.parametrize(
    ("dtype", "faults"),
    [
        ("float32", ["inf", "-inf", "1e38", "100", "0", "empty", "bits", "gone"]),
        ("float16", ["nan", "1e38", "cut"]),
    ],
)
def test_7_a_corrupt_object_changes_no_other_record(tmp_path, catalog, dtype, faults):
    before = records(build(tmp_path / "pack", catalog, dtype=dtype))
    rng = random.Random(0)
    for m, name in enumerate(faults):
        k = rng.choice([0, N - 1, rng.randrange(N)])
        path = Path(catalog["path_J"][k])
        good = path.read_bytes()
        if name in BROKEN:
            data = BROKEN[name](good)
            path.unlink() if data is None else path.write_bytes(data)
        else:
            image = packs.pixels(int(catalog["object_id"][k]) - 200_000, "J")
            image[{0: (1, 1), 1: (2,), 2: ()}[m % 3]] = SPOILT[name]
            put(path, image)
        found = build(tmp_path / "pack", catalog, dtype=dtype, restart=True)
        after, own = records(found), catalog["object_id"][k]
        assert {other for other in before if after.get(other) != before[other]} == {own}
        assert (own in after) == (name not in BROKEN)
        assert np.isfinite(found.images("nir")).all()
        path.write_bytes(good)


# 10: a flipped bit


def flip_bits(folder, n, seed):
    """Flip n random bits of a pack, one at a time; return how many were not detected."""
    rng, unseen = random.Random(seed), []
    names = sorted(set(contents(folder)) - {".pack.json"})
    assert len(names) == 8
    for _ in range(n):
        path = folder / rng.choice(names)
        at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        with open(path, "r+b", buffering=0) as file:
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit]), at)
            try:
                pack.open_pack(folder).verify()
            except PackError as error:
                assert path.name in str(error) and "\n" not in str(error)
            else:
                unseen.append((path.name, at, bit))
            os.pwrite(file.fileno(), byte, at)
    pack.open_pack(folder).verify()
    return unseen


@pytest.mark.parametrize("n", [250, pytest.param(10_000, marks=pytest.mark.slow)])
def test_10_any_flipped_bit_is_detected(tmp_path, catalog, n):
    with open(catalog["path_Y"][5], "wb"):
        pass  # so that no table is empty
    build(tmp_path / "pack", catalog)
    assert flip_bits(tmp_path / "pack", n, seed=n) == []


def test_10_a_flipped_bit_in_the_header_of_an_array_is_seen_when_it_is_opened(tmp_path, space):
    build(tmp_path / "pack", space, VIS)
    with open(tmp_path / "pack/vis.npy", "r+b", buffering=0) as file:
        for at in range(128):
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << at % 8]), at)
            with pytest.raises(PackError, match="vis.npy: found another header"):
                pack.open_pack(tmp_path / "pack")
            os.pwrite(file.fileno(), byte, at)
    pack.open_pack(tmp_path / "pack")


@pytest.mark.parametrize("change", [b"", b"x"])
def test_10_a_file_that_is_cut_or_grew_is_seen_when_it_is_opened(tmp_path, space, change):
    build(tmp_path / "pack", space, VIS)
    for name, data in contents(tmp_path / "pack").items():
        if name != ".pack.json":
            (tmp_path / "pack" / name).write_bytes(data + change if change else data[:-1])
            with pytest.raises(PackError, match=name):
                pack.open_pack(tmp_path / "pack")
            (tmp_path / "pack" / name).write_bytes(data)


# 11: files that cannot be read, and too few of them at once


def test_11_a_pack_needs_no_more_than_64_open_files(tmp_path, catalog):
    build(tmp_path / "whole", catalog)

    def build_with_few():
        os.closerange(3, 4096)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        build(tmp_path / "pack", catalog, workers=2)

    assert ended(fork(build_with_few)) == 0
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def failing_open(monkeypatch, path, code, times):
    """Let opening one file fail so many times, in each process."""
    attempts, real_open = [], os.open

    def fail(name, *args, **kwargs):
        if name == path and len(attempts) < times:
            attempts.append(name)
            raise OSError(code, os.strerror(code), name)
        return real_open(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)


def test_11_an_error_that_passes_costs_no_object_and_one_that_stays_costs_one(
    tmp_path, space, monkeypatch
):
    monkeypatch.setattr(fits_image, "RETRY_SECONDS", (0, 0, 0))
    build(tmp_path / "whole", space, VIS)
    with monkeypatch.context() as patch:
        failing_open(patch, space["path_VIS"][9], errno.EIO, times=3)
        build(tmp_path / "pack", space, VIS)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")
    for code in (errno.EIO, errno.EMFILE, errno.EACCES):
        with monkeypatch.context() as patch:
            failing_open(patch, space["path_VIS"][9], code, times=10**6)
            found = build(tmp_path / f"pack{code}", space, VIS)
        assert found.audit["n_quarantined"] == {"io": 1} and found.verify() == N - 1
        row = pd.read_csv(tmp_path / f"pack{code}/quarantine.csv", dtype=str).loc[0]
        assert row["object_id"] == space["object_id"][9] and row["found"] == os.strerror(code)


def test_11_an_object_that_is_lost_on_the_way_leaves_no_bytes_behind(tmp_path, space, monkeypatch):
    monkeypatch.setattr(fits_image, "RETRY_SECONDS", ())
    with monkeypatch.context() as patch:
        patch.setattr(pack, "finish", lambda *args, **options: sys.exit(3))
        with pytest.raises(SystemExit):
            build(tmp_path / "pack", space, VIS)
    sorted((tmp_path / "pack/.pack/blocks").iterdir())[-1].unlink()
    failing_open(monkeypatch, space["path_VIS"][N - 1], errno.EIO, times=10**6)
    found = build(tmp_path / "pack", space, VIS)
    assert found.audit["n_quarantined"] == {"io": 1} and found.verify() == N - 1
    assert np.array_equal(
        packs.whose(found.images("vis")), found.catalog["object_id"].astype(int) - 200_000
    )


def test_11_a_file_that_went_after_it_was_listed_costs_one_object(tmp_path, space):
    os.remove(space["path_VIS"][9])
    found = build(tmp_path / "pack", space, VIS)
    assert found.audit["n_quarantined"] == {"io": 1} and found.audit["n_ok"] == N - 1


# 12, 13, 14, 16: what the catalog and the files do not agree on


def test_12_objects_without_files_and_files_without_objects_are_counted(tmp_path, space):
    table = space[["object_id", "label"]].rename(columns={"object_id": "ID", "label": "is_lens"})
    extra = table["ID"][4]
    os.remove(space["path_VIS"][7])
    table.drop(index=4).to_csv(tmp_path / "survey/classifications.csv", index=False)
    found, counts = catalogs.read_sglc1(tmp_path / "survey", track="space")
    assert (counts.n_catalog, counts.n_missing, counts.n_extra_files) == (N - 1, 1, 1)
    made = build(tmp_path / "pack", found, VIS, n_extra_files=counts.n_extra_files)
    assert (made.audit["n_catalog"], made.audit["n_ok"]) == (N - 1, N - 2)
    assert (made.audit["n_missing"], made.audit["n_missing_published"]) == (1, 0)
    assert made.audit["n_extra_files"] == 1 and made.audit["n_quarantined"] == {}
    assert extra not in made.catalog["object_id"].tolist()
    with pytest.raises(PackError, match=f"object_id {table['ID'][7]}: found no file"):
        build(tmp_path / "strict", found, VIS, strict=True)
    assert not (tmp_path / "strict").exists()


def test_13_an_object_without_one_of_four_bands_is_set_aside_and_never_filled(tmp_path, catalog):
    for k, band in ((0, "VIS"), (9, "J"), (22, "H")):
        os.remove(catalog[f"path_{band}"][k])
    table, _ = cutouts.find_cutouts(tmp_path / "survey")
    catalog = catalog[["object_id", "label"]].merge(table, on="object_id", how="left")
    found = build(tmp_path / "pack", catalog)
    assert found.audit["n_quarantined"] == {"missing_band": 3} and found.audit["n_missing"] == 0
    gone = set(catalog["object_id"][[0, 9, 22]])
    assert not gone & set(found.catalog["object_id"])
    assert not (found.images("nir") == 0).all((1, 2)).any()
    assert sorted(pd.read_csv(tmp_path / "pack/quarantine.csv", dtype=str)["object_id"]) == sorted(
        gone
    )
    with pytest.raises(PackError, match="missing_band"):
        build(tmp_path / "strict", catalog, strict=True)


def test_14_an_id_that_is_there_twice_is_refused_naming_both_rows(tmp_path, space):
    for label in (space["label"][3], 1 - space["label"][3]):
        twice = pd.concat([space, space.iloc[[3]].assign(label=label)])
        with pytest.raises(PackError, match=f"row {N} .*{space['object_id'][3]}.* on row 3 too"):
            build(tmp_path / "pack", twice, VIS)
    assert not (tmp_path / "pack").exists()


def test_14_the_same_pixels_under_two_ids_come_into_one_fold(tmp_path, space):
    for k in range(0, 20, 4):
        shutil.copy(space["path_VIS"][k], space["path_VIS"][k + 3])
    found = build(tmp_path / "pack", space, VIS)
    assert found.audit["n_pixel_groups"] == 5
    for seed in range(5):
        for split in folds.k_fold(found.catalog, 5, seed=seed):
            test = set(split["test"].tolist())
            assert all(len(test & {k, k + 3}) in (0, 2) for k in range(0, 20, 4))
    halves = {"train": np.arange(12), "test": np.arange(12, N)}
    with pytest.raises(folds.FoldError, match="pixel_group"):
        folds.audit(found.catalog.iloc[[*range(0, 23, 2), *range(1, 23, 2)]], halves)


def test_16_cells_of_the_catalog_come_through_whatever_they_hold(tmp_path, space):
    notes = ["a\nb", "a\r\nb", '"', "#", "\ufeff", "ł", "-1e130", "=1+1", "NaN", "None", " x "]
    notes = [*notes, *[f"{k}" for k in range(N - len(notes))]]
    table = space.assign(**{"a note, quoted": notes, "=formula": -1e130, "": np.nan})
    found = build(tmp_path / "pack", table, VIS).catalog
    assert found["a note, quoted"].tolist() == notes
    assert (found["=formula"] == -1e130).all() and found[""].isna().all()


# 22: a full disk


def test_22_a_disk_full_at_any_write_keeps_what_was_finished(tmp_path, catalog, monkeypatch):
    monkeypatch.setattr(pack_blocks, "BLOCK", 12)
    build(tmp_path / "whole", catalog)
    steps, full_at = multiprocessing.Value("i"), multiprocessing.Value("i", -1)
    real = {os: os.pwrite, run.tempfile: run.tempfile.mkstemp}

    def full(module):
        def write(*args, **options):
            if module is run.tempfile or len(args[1]) > 8:  # what is there already has its place
                steps.value += 1
                if steps.value == full_at.value:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real[module](*args, **options)

        return write

    monkeypatch.setattr(os, "pwrite", full(os))
    monkeypatch.setattr(run.tempfile, "mkstemp", full(run.tempfile))
    build(tmp_path / "counted", catalog)
    n_steps, failed = steps.value, set()
    assert n_steps == 1 + 1 + 2 * 3 + 5 + 1  # identity, starts, blocks, tables, manifest
    for step in range(1, n_steps + 1):
        steps.value, full_at.value = 0, step
        with pytest.raises(OSError, match=r"No space left.* \d+ bytes needed, \d+ free") as caught:
            build(tmp_path / f"pack{step}", catalog)
        failed.add(Path(caught.value.filename).name)
        assert not (tmp_path / f"pack{step}/manifest.json").exists()
        full_at.value = -1
        if step % 4 == 0:
            build(tmp_path / f"pack{step}", catalog)
            assert contents(tmp_path / f"pack{step}") == contents(tmp_path / "whole")
    assert {"vis.npy", "nir.npy", "catalog.csv", ".pack.json", "manifest.json"} <= failed


def test_22_short_writes_are_gone_on_with(tmp_path, catalog, monkeypatch):
    build(tmp_path / "whole", catalog)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:777], at))
    build(tmp_path / "pack", catalog)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """Function that gives a folder on a disk of that many bytes, or makes the disk larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def size(n_bytes, options=""):
        known = "remount," if os.path.ismount(place) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{known}size={n_bytes}{options}", "tmpfs", place]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs leave to mount a tmpfs")
        return place

    yield size
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", place], check=True)  # some image may still be mapped


def test_22_a_small_disk_is_said_with_bytes_needed_and_free(
    tmp_path, catalog, small_disk, monkeypatch
):
    build(tmp_path / "whole", catalog)
    build(tmp_path / "earlier", catalog.iloc[:3])
    page = resource.getpagesize()
    disk = small_disk(20 * page)
    shutil.copytree(tmp_path / "earlier", disk / "earlier")
    with pytest.raises(PackError, match=r"pack: about \d+ bytes needed for 23 objects, \d+ free"):
        small_disk(12 * page)
        build(disk / "pack", catalog)
    assert not (disk / "pack").exists()
    monkeypatch.setattr(pack, "_refuse_without_space", lambda folder, source: None)
    full = []
    for n_pages in range(12, 60, 3):
        small_disk(n_pages * page)
        try:
            found = build(disk / "pack", catalog, workers=2)
            break
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert "bytes needed" in str(error) and str(disk) in str(error)
            assert str(error).rstrip("'").split("; ")[1].split(" free")[0].split()[-1].isdigit()
            full.append(Path(error.filename).name)
        assert pack.open_pack(disk / "earlier").verify() == 3
    assert {"vis.npy", "nir.npy"} & set(full) and len(set(full)) > 3, full
    assert found.verify() == N
    assert contents(disk / "pack") == contents(tmp_path / "whole")


def test_22_a_read_only_disk_is_said(tmp_path, space, small_disk):
    disk = small_disk(1 << 20)
    build(disk / "pack", space, VIS)
    small_disk(1 << 20, ",ro")
    with pytest.raises(OSError, match="Read-only file system"):
        build(disk / "new", space, VIS)
    assert build(disk / "pack", space, VIS).verify() == N


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_22_a_read_only_folder_is_said(tmp_path, space):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match="Permission denied"):
        build(tmp_path / "closed/pack", space, VIS)


# 23: kills


def kill(process, how):
    """Kill a run, all of it, or one of its workers; return whether that ended it."""
    try:
        kill_part(process, how)
    except ProcessLookupError:  # not yet a group, or the worker had just gone
        os.kill(process, signal.SIGKILL)
    end = ended(process)
    assert end in (0, 2, -signal.SIGKILL), end
    return end != 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 200])
def test_23_random_kills_end_as_an_uninterrupted_pack(tmp_path, n):
    catalog, moments, killed, stages = (
        survey(tmp_path / "survey", 40),
        random.Random(n),
        0,
        Counter(),
    )
    with open(catalog["path_Y"][11], "wb"):
        pass
    catalog.loc[17, BANDS] = None
    build(tmp_path / "whole", catalog, workers=2)
    start = time.perf_counter()
    assert ended(fork(build, tmp_path / "again", catalog, workers=2)) == 0
    took, whole = time.perf_counter() - start, hashes(tmp_path / "whole")
    for k in range(5 * n):  # some had just finished; how many depends on the machine's other load
        if killed == n:
            break
        cut = tmp_path / f"cut{k // 3}"  # three kills in each folder
        process = fork(build, cut, catalog, workers=2)
        wait_for = moments.uniform(0, took)
        if k % 2:  # at any moment; else in the arrays, which a busy machine may pass by
            time.sleep(wait_for)
        else:
            end = time.perf_counter() + 10 * took
            while not any((cut / ".pack/blocks").glob("*")) and time.perf_counter() < end:
                time.sleep(took / 1000)
        killed += kill(process, ("parent", "all", "worker")[moments.randrange(3)])
        n_blocks = len(list((cut / ".pack/blocks").glob("*"))) if cut.exists() else 0
        stages["arrays" if n_blocks else "before or after"] += 1
        if (cut / "manifest.json").exists():
            pack.open_pack(cut).verify()
    assert killed == n and stages["arrays"] > 0
    folders = list(tmp_path.glob("cut*"))
    for cut in folders:
        build(cut, catalog, workers=2)
        assert hashes(cut) == whole
    assert folders


@pytest.mark.slow
def test_23_a_kill_after_any_rename_ends_as_an_uninterrupted_pack(tmp_path, catalog, monkeypatch):
    monkeypatch.setattr(pack_blocks, "BLOCK", 12)
    build(tmp_path / "whole", catalog)
    whole, replace, parent = contents(tmp_path / "whole"), os.replace, os.getpid()
    steps, deadly = multiprocessing.Value("i"), multiprocessing.Value("i", -1)

    def dying(source, target):
        if "blocks" in str(target) or os.getppid() != parent:
            return replace(source, target)
        replace(source, target)
        steps.value += 1
        if steps.value == deadly.value:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(os, "replace", dying)
    assert ended(fork(build, tmp_path / "counted", catalog)) == 0
    n_steps, killed, killed_again = steps.value, 0, 0
    assert n_steps == 2 + 5 + 2 + 1  # identity and starts, tables, arrays, manifest
    for step in range(1, n_steps + 1):
        steps.value, deadly.value = 0, step
        killed += ended(fork(build, tmp_path / f"pack{step}", catalog)) == -signal.SIGKILL
        if step % 3 == 1:  # again, on the way back
            steps.value, deadly.value = 0, 1 + step % 4
            killed_again += ended(fork(build, tmp_path / f"pack{step}", catalog)) != 0
        build(tmp_path / f"pack{step}", catalog)
        assert contents(tmp_path / f"pack{step}") == whole, step
        assert not (tmp_path / f"pack{step}/.pack").exists()
    assert killed == n_steps and killed_again > 2


def test_23_a_killed_restart_is_ended_by_the_next_one(tmp_path, catalog, monkeypatch):
    build(tmp_path / "new", catalog)
    rmtree = shutil.rmtree

    def die(path, **options):
        rmtree(path, **options)
        if Path(path).name == ".pack":
            os.kill(os.getpid(), signal.SIGKILL)

    build(tmp_path / "pack", catalog, {"vis": ("VIS",), "nir": ("H",)}, dtype="float16")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        process = fork(build, tmp_path / "pack", catalog, restart=True)
        assert ended(process) == -signal.SIGKILL
    assert not (tmp_path / "pack/vis.npy").exists()
    with pytest.raises(run.RunError, match="begun differently.*--restart"):
        build(tmp_path / "pack", catalog)
    build(tmp_path / "pack", catalog, restart=True)
    assert contents(tmp_path / "pack") == contents(tmp_path / "new")


# 25, 26: two runs, and another run


def slow_down(monkeypatch, seconds):
    read = pack_blocks.read_block
    monkeypatch.setattr(pack_blocks, "read_block", lambda *args: time.sleep(seconds) or read(*args))


def test_25_a_second_pack_in_the_same_folder_is_refused_naming_the_first(
    tmp_path, space, monkeypatch
):
    monkeypatch.setattr(pack_blocks, "BLOCK", 64)
    monkeypatch.setattr(pack, "PATIENCE", 0.05)
    with monkeypatch.context() as patch:
        slow_down(patch, 0.6)
        process = fork(build, tmp_path / "pack", space, VIS)
    wait_for(lambda: (tmp_path / "pack/.pack/starts").exists())
    for options in ({}, {"restart": True}, {"dtype": "float16"}):
        with pytest.raises(run.RunError, match=f"in use by .* process ID {process}$"):
            build(tmp_path / "pack", space, VIS, **options)
    assert ended(process) == 0
    assert pack.open_pack(tmp_path / "pack").verify() == N


def test_25_of_two_at_once_one_makes_the_pack(tmp_path, space):
    build(tmp_path / "whole", space, VIS)
    processes = [fork(build, tmp_path / "pack", space, VIS) for _ in range(4)]
    assert [ended(process) for process in processes] == [0] * 4  # the others found it finished
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


CHANGES = {
    "plan.dtype: 'float32' then, 'float16' now": {"dtype": "float16"},
    "plan.inputs: .*VIS.* then": {"inputs": {"vis": ("VIS",), "y": ("Y",)}},
    "plan.shapes": {"shapes": {"vis": (12, 10), "nir": (5, 7)}},
    "plan.mask_value: 100 then, 99 now": {"mask_value": 99},
    "plan.brightest: None then, 1.0 now": {"brightest": 1.0},
    "about.label: None then, 'n-pix:20' now": {"about": {"label": "n-pix:20"}},
}


@pytest.mark.parametrize("is_finished", [True, False])
def test_26_another_pack_is_refused_with_the_difference(
    tmp_path, catalog, is_finished, monkeypatch
):
    with monkeypatch.context() as patch:
        if not is_finished:
            patch.setattr(pack, "finish", lambda *args, **options: sys.exit(3))
            with pytest.raises(SystemExit):
                build(tmp_path / "pack", catalog)
        else:
            build(tmp_path / "pack", catalog)
    before = contents(tmp_path / "pack")

    def refused(said, table=catalog, **options):
        with pytest.raises(run.RunError, match=f"begun differently.*{said}.*--restart"):
            build(tmp_path / "pack", table, **options)
        assert contents(tmp_path / "pack") == before

    for said, options in CHANGES.items():
        refused(said, **options)
    refused("data.objects: 23 then, 22 now", catalog.iloc[1:])
    refused("data.sha256", catalog.assign(label=0))
    swapped = catalog.iloc[[1, 0, *range(2, N)]]
    refused("data.sha256", swapped)
    path = Path(catalog["path_H"][4])
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    refused("data.modified")
    path.write_bytes(path.read_bytes() + bytes(2880))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    refused(r"data.bytes: \d+ then, \d+ now")
    other = Path(catalog["path_H"][5])
    dates = other.stat().st_atime_ns, other.stat().st_mtime_ns
    whole = other.read_bytes()
    os.truncate(other, len(whole) - 2880)
    os.utime(other, ns=dates)
    refused("data.sha256")  # as many bytes in all, but in other files
    other.write_bytes(whole)
    os.utime(other, ns=dates)
    os.truncate(path, status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    versions = pack_sources._versions() | {"numpy": "1.26.4"}
    monkeypatch.setattr(pack_sources, "_versions", lambda: versions)
    if is_finished:  # a pack is what it is, whatever would make it now
        assert build(tmp_path / "pack", catalog).verify() == N
    else:
        refused("versions.numpy: .* then, '1.26.4' now")
    assert build(tmp_path / "pack", catalog, restart=True).verify() == N


# 30: programs


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        """Return what unpickling calls."""
        return open, (self.path, "w")


def test_30_a_file_of_objects_is_refused_and_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    table = pd.DataFrame(
        {"object_id": ["1", "2", "3"], "path": [tmp_path / f"{k}.npy" for k in range(3)]}
    )
    for k, path in enumerate(table["path"]):
        array = np.array([[[Canary(canary)]]], dtype=object) if k == 1 else np.ones((3, 3, 1))
        np.save(path, array, allow_pickle=True)
    table["path"] = table["path"].astype(object)
    found = build(tmp_path / "pack", table, {"image": ("i",)}, channels="last")
    assert found.audit["n_quarantined"] == {"dtype": 1} and found.audit["n_ok"] == 2
    assert "pickle" in (tmp_path / "pack/quarantine.csv").read_text()
    assert not canary.exists()
    np.load(tmp_path / "1.npy", allow_pickle=True)
    assert canary.exists()  # it would have run


def test_30_a_pack_whose_arrays_hold_objects_does_not_open(tmp_path, space):
    build(tmp_path / "pack", space, VIS)
    stream = io.BytesIO()
    np.save(stream, np.array([Canary(tmp_path / "canary")] * N, dtype=object), allow_pickle=True)
    for name in ("vis.npy", "checksums.npy"):
        path = tmp_path / "pack" / name
        good = path.read_bytes()
        path.write_bytes(stream.getvalue().ljust(len(good), b"\0")[: len(good)])
        with pytest.raises(PackError, match=name):
            pack.open_pack(tmp_path / "pack").verify()
        path.write_bytes(good)
    assert not (tmp_path / "canary").exists()


# 32, 33: the same bytes


BUILD_ELSEWHERE = """
import os, sys
os.umask(0o077)
from cast_lens import cutouts, pack_blocks
from tests.processes import kill_part
from tests.packs import build
pack_blocks.BLOCK = 4
table, _ = cutouts.find_cutouts(sys.argv[1])
build(sys.argv[2], table, workers=2)
"""


def test_32_locale_time_zone_umask_and_odd_paths_change_no_byte(tmp_path):
    survey(tmp_path / "survey/ü x", 9)
    shutil.copytree(tmp_path / "survey/ü x/H", tmp_path / "survey/H")
    shutil.rmtree(tmp_path / "survey/ü x/H")
    table, _ = cutouts.find_cutouts(tmp_path / "survey")
    build(tmp_path / "pack", table)
    processes, places = [], []
    for k, environment in enumerate((
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE", "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"},
    )):  # fmt: skip
        place = tmp_path / f"a b {k} é 'x' ł"
        shutil.copytree(tmp_path / "survey", place / "survey ü")
        command = [sys.executable, "-c", BUILD_ELSEWHERE, place / "survey ü", place / "pack ü"]
        processes.append(subprocess.Popen(
            command, cwd=place, stderr=subprocess.PIPE,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        ))  # fmt: skip
        places.append(place / "pack ü")
    for process, place in zip(processes, places):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert contents(place) == contents(tmp_path / "pack")
        assert (place / "vis.npy").stat().st_mode & 0o777 == 0o600
        assert (place / "manifest.json").stat().st_mode & 0o777 == 0o600
    paths = pack.open_pack(tmp_path / "pack").catalog[["path_VIS", "path_H"]].iloc[0].tolist()
    assert paths == ["ü x/VIS/imageEUC_VIS-200000.fits", "H/imageEUC_H-200000.fits"]


def test_33_the_same_survey_packed_twice_is_the_same_bytes(tmp_path, catalog):
    with open(catalog["path_Y"][5], "wb"):
        pass
    for k, n in enumerate((1, 2, 2)):
        build(tmp_path / f"pack{k}", catalog, dtype="float16", workers=n)
        assert contents(tmp_path / f"pack{k}") == contents(tmp_path / "pack0")


# 100,000 objects, of which one in a hundred is spoilt

SIZE = 8

# What each kind of fault is counted as; those below keep their record, and so do the last ones.
REASONS = {
    "cut": "truncated", "cut_header": "truncated", "empty": "empty", "html": "not_fits",
    "bitpix": "dtype", "axes": "shape", "wide": "shape", "folder": "not_fits", "loop": "not_fits",
    "fifo": "not_fits", "gone": "io",
}  # fmt: skip
KEPT = {"nan": "n_nonfinite", "inf": "n_nonfinite", "masked": "n_masked", "bright": "n_extreme"}
KINDS = [*REASONS, *KEPT, "constant", "copy", "unpadded", "no_file"]
VALUES = {"nan": np.nan, "inf": -np.inf, "masked": 100, "bright": 1e-6}


def cards(data, **changes):
    """Replace the values of cards in the bytes of a file."""
    for key, value in changes.items():
        at = data.index(key.ljust(8).encode() + b"= ")
        data = data[:at] + f"{key:<8}= {value:>20}".encode().ljust(80) + data[at + 80 :]
    return data


def spoil(kind, path, image, other):
    """Put a fault in the place of a good file; `other` is the image of another object."""
    data = survey_file(image)
    path.unlink(missing_ok=True)
    if kind in VALUES:
        image[3, 1:4] = VALUES[kind]
    make = {
        "folder": path.mkdir, "loop": lambda: path.symlink_to(path),
        "fifo": lambda: os.mkfifo(path), "gone": lambda: None, "no_file": lambda: None,
    }.get(kind)  # fmt: skip
    if make:
        make()
        return
    path.write_bytes({
        "cut": data[:2900], "cut_header": data[:500], "empty": b"", "html": b"<html>404</html>",
        "bitpix": cards(data, BITPIX=-16), "axes": cards(data, NAXIS=3), "unpadded": data[:-1],
        "wide": survey_file(np.ones((SIZE, 9), np.float32)), "constant": survey_file(0 * other),
        "copy": survey_file(other),
    }.get(kind, survey_file(image)))  # fmt: skip


def small_image(k):
    image = (7.7e-13 * np.random.default_rng(k).standard_normal((SIZE, SIZE))).astype(np.float32)
    image[0, 0] = (k + 1) * 2.0**-60
    return image


def write_very_many(folder, n):
    """Write n small files, one in a hundred spoilt; return paths, {k: fault}, {k: copied from}."""
    rng = np.random.default_rng(0)
    header = survey_file(np.zeros((SIZE, SIZE), np.float32))[:2880]
    paths = [folder / f"{k // 1000}/imageEUC_VIS-{300_000 + k}.fits" for k in range(n)]
    for k, path in enumerate(paths):
        if k % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(header + small_image(k).astype(">f4").tobytes().ljust(2880, b"\0"))
    chosen, copied = rng.permutation(n)[: n // 50].tolist(), {}
    spoilt = {k: KINDS[m % len(KINDS)] for m, k in enumerate(chosen[::2])}
    for k, other in zip(spoilt, chosen[1::2]):
        spoil(spoilt[k], paths[k], small_image(k), small_image(other))
        if spoilt[k] == "copy":
            copied[k] = other
    return paths, spoilt, copied


def pack_very_many(path, n):
    """Pack a survey of which one object in a hundred is spoilt; say what does not agree."""
    path = Path(path)
    paths, spoilt, copied = write_very_many(path / "survey", n)
    order = np.random.default_rng(1).permutation(n).tolist()
    table = pd.DataFrame({"object_id": [str(300_000 + k) for k in order]})
    table["label"] = [packs.label_of(name) for name in table["object_id"]]
    files = [None if spoilt.get(k) == "no_file" else str(paths[k]) for k in order]
    table["path_VIS"] = pd.Series(files, dtype=object)
    start = time.perf_counter()
    found = build(path / "pack", table, VIS, brightest=1e-7, n_extra_files=5, workers=2)
    took = time.perf_counter() - start
    own = peak_memory()
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    found.verify()
    lines = pd.read_csv(path / "pack/quarantine.csv", dtype=str, keep_default_na=False)
    ids, kinds = found.catalog["object_id"].tolist(), Counter(spoilt.values())
    is_kept = [spoilt.get(k) not in (*REASONS, "no_file") for k in order]
    wrong = {
        "not in catalog order, once each": ids != table["object_id"][is_kept].tolist(),
        "mislabelled": found.catalog["label"].tolist() != [packs.label_of(name) for name in ids],
        "pixels": of_others(found, spoilt, copied),
        "not set aside": lines["object_id"].tolist()
        != table["object_id"][~np.array(is_kept)].tolist(),
        "reasons": set(zip(lines["object_id"], lines["reason"]))
        != {(str(300_000 + k), REASONS.get(kind, "missing")) for k, kind in spoilt.items()
            if kind in REASONS or kind == "no_file"},
        "audit": audit_of(kinds, n) != {k: found.audit[k] for k in audit_of(kinds, n)},
        "groups": found.catalog["pixel_group"].tolist() != groups_of(ids, copied),
    }  # fmt: skip
    found = {"wrong": [key for key, is_so in wrong.items() if is_so], "kinds": len(kinds)}
    return found | {"seconds": round(took, 1), "own": own, "worker": worker}


def peak_memory():
    """Return the peak of this process, bytes; ru_maxrss would be that of whoever started it too."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def of_others(found, spoilt, copied):
    """Return whether any record has the pixels of another object than its ID says."""
    expected = [int(name) - 300_000 for name in found.catalog["object_id"]]
    expected = [-1 if spoilt.get(k) == "constant" else copied.get(k, k) for k in expected]
    return packs.whose(found.images("vis")).tolist() != expected


def audit_of(kinds, n):
    """Return what an audit must say of so many faults of each kind."""
    reasons = Counter()
    for kind, reason in REASONS.items():
        reasons[reason] += kinds[kind]
    counts = Counter({"n_constant_objects": kinds["constant"]})
    for kind, key in KEPT.items():
        counts[f"{key}_objects"] += kinds[kind]
        counts[f"{key}_pixels"] += 3 * kinds[kind]
    return {
        "n_catalog": n, "n_ok": n - reasons.total() - kinds["no_file"],
        "n_quarantined": {reason: count for reason, count in reasons.items() if count},
        "n_missing": kinds["no_file"], "n_missing_published": 0, "n_extra_files": 5,
        "n_pixel_groups": kinds["copy"], "n_in_pixel_groups": 2 * kinds["copy"],
        "bands": {"vis": {"VIS": dict(counts)}}, "n_warnings": kinds["unpadded"], "loss": {},
    }  # fmt: skip


def groups_of(ids, copied):
    """Return the first in catalog order of each pair of the same pixels, else the object's own."""
    groups, rows = list(ids), {name: row for row, name in enumerate(ids)}
    for pair in copied.items():
        first, second = sorted(rows[str(300_000 + k)] for k in pair)
        groups[second] = ids[first]
    return groups


def test_one_spoilt_object_in_a_hundred_loses_doubles_and_mislabels_none(tmp_path):
    found = pack_very_many(tmp_path, 100 * len(KINDS))
    assert found["wrong"] == [] and found["kinds"] == len(KINDS)


@pytest.mark.slow
def test_100_000_objects_do_so_in_less_than_a_gigabyte(tmp_path):
    script = (
        "import json, sys; from tests.faults import test_pack_faults as here\n"
        "print(json.dumps(here.pack_very_many(sys.argv[1], 100_000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["wrong"] == [] and found["kinds"] == len(KINDS)
    assert found["own"] + 2 * found["worker"] < 1e9  # bytes; what they share is counted thrice
