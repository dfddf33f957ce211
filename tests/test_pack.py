"""A pack is the survey that astropy reads, in catalog order, once, and says what became of it."""

import csv
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from cast_lens import cutouts, folds, pack, pack_blocks, pack_sources, run
from cast_lens.pack import PackError
from tests import packs
from tests.fits_files import survey_file
from tests.folders import contents, stamps
from tests.packs import INPUTS, build, put, survey

N = 23
VIS = {"vis": ("VIS",)}


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Wait for no disk; nothing here needs what a crash of the machine would leave."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def catalog(tmp_path):
    """A survey of `N` objects in four bands."""
    return survey(tmp_path / "survey", N)


@pytest.fixture
def space(tmp_path):
    """A survey of `N` objects in one band."""
    return survey(tmp_path / "survey", N, bands=("VIS",))


@pytest.fixture
def blocks(monkeypatch):
    """Function that sets how many objects a block has."""
    return lambda n: monkeypatch.setattr(pack_blocks, "BLOCK", n)


def truth(catalog, bands):
    """Return what astropy reads, float32, shape (objects, height, width, band)."""
    images = [[fits.getdata(path) for path in catalog[f"path_{band}"]] for band in bands]
    return np.moveaxis(np.array(images, np.float32), 0, -1)


def quarantined(folder):
    """Return the rows of quarantine.csv as dicts."""
    with open(folder / "quarantine.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# The images


@pytest.mark.parametrize("n", [1, N])
def test_records_are_astropys_pixels_in_catalog_order(tmp_path, blocks, n):
    blocks(4)
    catalog = survey(tmp_path / "survey", n)
    inputs = {"nir": ("H", "Y", "J"), "both": ("Y", "H"), "vis": ("VIS",)}
    found = build(tmp_path / "pack", catalog, inputs, workers=2)
    assert found.inputs == inputs
    for name, bands in inputs.items():
        expected = truth(catalog, bands)
        assert found.images(name).dtype == np.dtype("<f4")
        assert found.images(name).tobytes() == expected.tobytes()
        assert np.load(tmp_path / f"pack/{name}.npy").tobytes() == expected.tobytes()
        assert found.scales(name) == (1.0,) * len(bands)
    assert found.catalog["object_id"].tolist() == catalog["object_id"].tolist()
    assert packs.whose(found.images("vis")).tolist() == [
        int(name) - 200_000 for name in found.catalog["object_id"]
    ]
    assert found.verify() == n


def test_real_images_and_their_masked_pixels(real_data, tmp_path):
    catalog, _ = cutouts.find_cutouts(real_data / "sglc1/ground_based")
    found = build(tmp_path / "pack", catalog, {"image": ("R", "I", "G", "U")})
    expected = truth(catalog, "RIGU")
    assert found.images("image").shape == (6, 101, 101, 4)
    assert np.array_equal(found.images("image"), np.where(expected >= 100, 0, expected))
    # datasets.md, section 9: R-100023, U-100003 and U-100008 have masked pixels.
    bands = found.audit["bands"]["image"]
    assert [bands[band]["n_masked_pixels"] for band in "RIGU"] == [15, 0, 0, 49 + 212]
    assert [bands[band]["n_masked_objects"] for band in "RIGU"] == [1, 0, 0, 2]


def test_the_shape_is_what_most_objects_have_or_was_given(tmp_path, space):
    for k in (0, 5, 7):
        put(space["path_VIS"][k], packs.pixels(k, "VIS", (9, 9)))
    for shapes, wanted in ((None, (12, 11)), ({"vis": (9, 9)}, (9, 9))):
        folder = tmp_path / f"pack{wanted[0]}"
        found = build(folder, space, VIS, shapes=shapes)
        odd = [0, 5, 7] if shapes is None else [k for k in range(N) if k not in (0, 5, 7)]
        assert found.images("vis").shape == (N - len(odd), *wanted, 1)
        assert found.audit["n_quarantined"] == {"shape": len(odd)}
        rows = quarantined(folder)
        assert [row["object_id"] for row in rows] == space["object_id"][odd].tolist()
        assert [row["path"] for row in rows] == [
            os.path.basename(path) for path in space["path_VIS"][odd]
        ]
        expected = truth(space.drop(index=odd), ("VIS",))
        assert np.array_equal(found.images("vis"), expected)


def test_float16_is_what_numpy_makes_of_it_and_its_loss_is_told(tmp_path, catalog):
    image = packs.pixels(0, "J")
    image[0, 1], image[0, 2] = 1.0, 1e-25
    put(catalog["path_J"][3], image)
    found = build(tmp_path / "pack", catalog, dtype="float16", workers=2)
    for name, bands in INPUTS.items():
        expected = truth(catalog, bands).astype(np.float64)
        for n in range(len(bands)):
            typical = np.median(np.abs(expected[..., n]))  # no pixel is 0
            factor = 2.0 ** (-8 - np.floor(np.log2(typical)))
            assert found.scales(name)[n] == factor
            scaled = expected[..., n] * factor
            stored = np.clip(scaled, -65504, 65504).astype(np.float16)
            assert np.array_equal(found.images(name)[..., n], stored)
            assert found.images(name).dtype == np.dtype("<f2")
            back = (stored / np.float64(factor)).astype(np.float32)
            assert np.array_equal(found.batch(name, np.arange(N))[..., n], back)
            is_clipped, loss = np.abs(scaled) > 65504, found.audit["loss"][name]
            errors = np.where(is_clipped, 0, back - expected[..., n])
            assert loss["n_clipped"][n] == is_clipped.sum() == (bands[n] == "J")
            assert loss["n_flushed"][n] == ((stored == 0) & (scaled != 0)).sum()
            assert loss["max_error"][n] == np.abs(errors).max()
            assert loss["rms_error"][n] == pytest.approx(np.sqrt(np.square(errors).mean()))
            assert loss["rms_error"][n] < 1e-3 * typical
    assert found.audit["loss"]["nir"]["n_flushed"][1] >= 1
    assert found.verify() == N
    size = os.path.getsize
    assert size(tmp_path / "pack/nir.npy") - 128 == 2 * N * 5 * 7 * 3


def test_float32_has_no_loss_to_tell(tmp_path, space):
    assert build(tmp_path / "pack", space, VIS).audit["loss"] == {}


@pytest.mark.parametrize("channels", ["first", "last"])
def test_npy_files_of_all_bands(tmp_path, channels):
    (tmp_path / "survey").mkdir()
    images = np.random.default_rng(0).random((9, 6, 5, 3))
    table = pd.DataFrame({"object_id": [f"train/no/{k}" for k in range(9)]})
    paths = [tmp_path / f"survey/{k}.npy" for k in range(9)]
    for path, image in zip(paths, images):
        np.save(path, np.moveaxis(image, -1, 0) if channels == "first" else image)
    table["path"] = pd.Series(paths, dtype=object)
    table["path_VIS"] = "another"  # which does not go along
    np.save(paths[4], np.array([[["x"]]], dtype=object))
    found = build(tmp_path / "pack", table, {"image": ("r", "g", "b")}, channels=channels)
    good = [k for k in range(9) if k != 4]
    assert np.array_equal(found.images("image"), images[good].astype(np.float32))
    assert found.catalog["path"].tolist() == [f"{k}.npy" for k in good]
    assert "path_VIS" not in found.catalog
    assert [(row["path"], row["reason"]) for row in quarantined(tmp_path / "pack")] == [
        ("4.npy", "dtype")
    ]


def test_batches_are_the_records_at_any_positions(tmp_path, catalog):
    found = build(tmp_path / "pack", catalog)
    rng = np.random.default_rng(0)
    for name, bands in INPUTS.items():
        expected = truth(catalog, bands)
        for size in (0, 1, 7, 50):
            positions = rng.integers(0, N, size)
            batch = found.batch(name, positions)
            assert batch.dtype == np.float32 and batch.flags.writeable
            assert np.array_equal(batch, expected[positions])


def test_images_cannot_be_written_to(tmp_path, space):
    images = build(tmp_path / "pack", space, VIS).images("vis")
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert type(images) is np.ndarray


# The catalog

ODD = [
    "00123",
    "1e5",
    "99999999999999999999",
    "=cmd",
    "'=cmd",
    "NA",
    "",
    "ü, x",
    'a"b',
    "1\n2",
    "\r",
]


def test_catalog_csv_and_parquet_come_back_as_they_were(tmp_path, space):
    n = len(ODD)
    table = space.iloc[:n].assign(
        object_id=ODD,
        flux=[-1e130, np.nan, np.inf, 5e-324, 0.1, -0.0, 1 / 3, 1e22, 1.0, 2.0, 1e-12],
        area=np.linspace(0, 1, n, dtype=np.float32),
        beyond=pd.Series([2**63 + k for k in range(n)], dtype="uint64").to_numpy(),
        huge=pd.Series([10**30, *range(n - 1)], dtype=object).to_numpy(),
        is_real=np.arange(n) % 2 == 0,
        note=[None, *map(str, range(n - 1))],
    )
    found = build(tmp_path / "pack", table, VIS)
    parquet = pd.read_parquet(tmp_path / "pack/catalog.parquet")
    expected = {name: table[name].tolist() for name in ("object_id", "label", "is_real")}
    expected |= {"beyond": [str(2**63 + k) for k in range(n)]}
    expected |= {"note": [None, *map(str, range(n - 1))]}
    expected |= {"huge": list(map(str, table["huge"])), "pixel_group": ODD}
    for catalog in (found.catalog, parquet):
        assert list(catalog)[: len(table.columns)] == list(table)
        for name, values in expected.items():
            cells = catalog[name].tolist()
            assert [None if cell is None or cell != cell else cell for cell in cells] == values
        assert catalog["flux"].to_numpy().tobytes() == table["flux"].to_numpy().tobytes()
        assert np.array_equal(catalog["area"], table["area"].astype(np.float64))
        assert catalog["path_VIS"].tolist() == [os.path.basename(p) for p in table["path_VIS"]]
    with open(tmp_path / "pack/catalog.csv", encoding="utf-8", newline="") as stream:
        cells = [row["object_id"] for row in csv.DictReader(stream)]
    assert cells == [
        {"=cmd": "'=cmd", "'=cmd": "''=cmd", "\r": "'\r"}.get(name, name) for name in ODD
    ]


def test_paths_are_named_from_the_folder_that_holds_them_all(tmp_path, catalog):
    build(tmp_path / "pack", catalog)
    table = pd.read_parquet(tmp_path / "pack/catalog.parquet")
    for band in ("VIS", "H"):
        expected = [os.path.relpath(p, tmp_path / "survey") for p in catalog[f"path_{band}"]]
        assert table[f"path_{band}"].tolist() == expected
    assert not any(str(tmp_path).encode() in data for data in contents(tmp_path / "pack").values())


def test_hashes_and_checksums_are_those_of_hashlib_and_zlib(tmp_path, catalog):
    build(tmp_path / "pack", catalog)
    manifest, files = packs.manifest_of(tmp_path / "pack"), contents(tmp_path / "pack")
    assert set(files) == {
        "manifest.json", "vis.npy", "nir.npy", "checksums.npy", "catalog.csv", "catalog.parquet",
        "quarantine.csv", "audit.json", ".pack.json",
    }  # fmt: skip
    arrays = {f"{name}.npy": entry for name, entry in manifest["arrays"].items()}
    assert {*arrays, *manifest["files"]} == set(files) - {"manifest.json", ".pack.json"}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == hashlib.sha256(files[name]).hexdigest()
    for name, entry in (manifest["files"] | arrays).items():
        assert entry["bytes"] == len(files[name])
    images = [truth(catalog, INPUTS[name]) for name in ("nir", "vis")]  # by name
    expected = [[zlib.crc32(image[k].tobytes()) for image in images] for k in range(N)]
    sums = np.load(tmp_path / "pack/checksums.npy")
    assert sums.dtype == np.uint32 and sums.tolist() == expected


# The audit


def test_every_object_is_a_record_or_quarantined_or_missing(tmp_path, catalog, blocks):
    blocks(5)
    ids = catalog["object_id"]
    for k, content in {2: b"", 9: b"<html>", 10: b"SIMPLE"}.items():
        with open(catalog["path_Y"][k], "wb") as stream:
            stream.write(content)
    put(catalog["path_H"][9], packs.pixels(9, "VIS"))  # the object has one error, the first
    catalog.loc[[4, 12], "path_J"] = None
    catalog.loc[[0, 7, 22], [c for c in catalog if c.startswith("path_")]] = None
    found = build(
        tmp_path / "pack", catalog, n_extra_files=3, known_missing={ids[7], "none"}, workers=2
    )
    good = [k for k in range(N) if k not in (0, 2, 4, 7, 9, 10, 12, 22)]
    audit = found.audit
    assert audit["n_catalog"] == N and audit["n_ok"] == len(good) == N - 5 - 3
    assert audit["n_quarantined"] == {"empty": 1, "missing_band": 2, "not_fits": 1, "truncated": 1}
    assert (audit["n_missing"], audit["n_missing_published"], audit["n_extra_files"]) == (3, 1, 3)
    assert found.catalog["object_id"].tolist() == ids[good].tolist()
    assert found.catalog["label"].tolist() == [packs.label_of(name) for name in ids[good]]
    for name, bands in INPUTS.items():
        assert np.array_equal(found.images(name), truth(catalog.iloc[good], bands))
    rows = quarantined(tmp_path / "pack")
    assert [row["object_id"] for row in rows] == ids.drop(index=good).tolist()
    assert [row["reason"] for row in rows] == [
        "missing", "empty", "missing_band", "missing", "not_fits", "truncated", "missing_band",
        "missing",
    ]  # fmt: skip
    assert [row["found"] for row in rows if row["reason"] == "missing"] == [
        "no file", "no file, as published", "no file",
    ]  # fmt: skip
    assert rows[1]["path"] == os.path.relpath(catalog["path_Y"][2], tmp_path / "survey")
    assert "band J" in rows[2]["found"]
    assert found.verify() == len(good)


def test_pixels_are_counted_as_a_loop_over_them_counts(tmp_path, catalog, blocks):
    blocks(3)
    rng = np.random.default_rng(0)
    for k, band in ((1, "VIS"), (2, "Y"), (3, "Y"), (4, "H"), (4, "VIS"), (9, "J")):
        image = packs.pixels(k, band)
        for value in (np.nan, np.inf, 100, 1e30, 3e-9, -3e-9, 1e-9):
            image[rng.random(image.shape) < 0.05] = value
        put(catalog[f"path_{band}"][k], image)
    for k, value in ((5, 0), (6, 3e-12), (7, 100), (8, np.nan)):
        put(catalog["path_J"][k], np.full((5, 7), value, np.float32))
    found = build(tmp_path / "pack", catalog, brightest=1e-9)
    whole = np.zeros((N, 4), int)
    for name, bands in INPUTS.items():
        for n, band in enumerate(bands):
            counts = np.zeros((N, 4), int)
            for k, raw in enumerate(truth(catalog, [band])[..., 0]):
                for flux in raw.ravel().tolist():
                    if not np.isfinite(flux):
                        counts[k, 1] += 1
                    elif flux >= 100:
                        counts[k, 0] += 1
                    else:
                        counts[k, 3] += abs(np.float32(flux)) > np.float32(1e-9)
                kept = np.where(np.isfinite(raw) & (raw < 100), raw, 0)
                counts[k, 2] = len(set(kept.ravel().tolist())) == 1
                assert np.array_equal(found.images(name)[k, ..., n], kept)
            told = found.audit["bands"][name][band]
            for m, key in enumerate(("n_masked", "n_nonfinite", "n_constant", "n_extreme")):
                assert told[f"{key}_objects"] == (counts[:, m] > 0).sum()
                assert told.get(f"{key}_pixels") == (None if m == 2 else counts[:, m].sum())
            whole += counts
    assert (whole.sum(0) > 3).all()
    columns = ["n_masked", "n_nonfinite", "n_constant", "n_extreme"]
    assert found.catalog[columns].to_numpy().tolist() == whole.tolist()


def test_a_pixel_just_beyond_the_brightest_is_extreme_and_no_other(tmp_path, space):
    for k, brightest in enumerate((1e-8, 3e-25)):
        edge = np.float32(brightest)
        for row, flux in enumerate((np.nextafter(edge, np.float32(1e30)), edge, -edge, -2 * edge)):
            image = np.zeros((12, 11), np.float32)
            image[3, 4] = flux
            put(space["path_VIS"][row], image)
        found = build(tmp_path / f"pack{k}", space.iloc[:4], VIS, brightest=brightest)
        assert found.catalog["n_extreme"].tolist() == [1, 0, 0, 1]
    assert not build(tmp_path / "none", space.iloc[:4], VIS).catalog["n_extreme"].any()


def test_objects_of_the_same_pixels_are_one_group(tmp_path, catalog):
    def copy(one, two, *bands):
        for band in bands:
            shutil.copy(catalog[f"path_{band}"][one], catalog[f"path_{band}"][two])

    copy(3, 17, "VIS")  # one input of two
    copy(17, 20, "Y", "J", "H")  # a chain: 3, 17, 20
    copy(5, 6, *packs.SHAPES)
    copy(8, 9, "Y", "J")  # two bands of three are not an image
    for k in (10, 11, 12):  # nothing is alike about images of nothing
        for band, shape in packs.SHAPES.items():
            put(catalog[f"path_{band}"][k], np.zeros(shape, np.float32))
    put(catalog["path_H"][13], np.zeros((5, 7), np.float32))
    copy(13, 14, "Y", "J", "H")  # constant in one band only
    found = build(tmp_path / "pack", catalog)
    groups = catalog["object_id"].tolist()
    for first, second in ((3, 17), (3, 20), (5, 6), (13, 14)):
        groups[second] = groups[first]
    assert found.catalog["pixel_group"].tolist() == groups
    assert found.audit["n_pixel_groups"] == 3 and found.audit["n_in_pixel_groups"] == 7
    for split in folds.k_fold(found.catalog, 4, seed=0):
        held = set(split["test"].tolist())
        assert all(len(held & pair) in (0, 2) for pair in ({3, 17}, {17, 20}, {5, 6}, {13, 14}))


def test_pixels_of_the_same_checksum_are_compared_byte_by_byte(tmp_path, space, monkeypatch):
    shutil.copy(space["path_VIS"][1], space["path_VIS"][4])
    monkeypatch.setattr(zlib, "crc32", lambda data: 7)
    found = build(tmp_path / "pack", space, VIS)
    assert set(np.load(tmp_path / "pack/checksums.npy").ravel()) == {7}
    groups = space["object_id"].tolist()
    groups[4] = groups[1]
    assert found.catalog["pixel_group"].tolist() == groups


def test_warnings_of_the_reader_are_kept(tmp_path, space):
    for k in range(12):
        os.truncate(space["path_VIS"][k], os.path.getsize(space["path_VIS"][k]) - 1)
    audit = build(tmp_path / "pack", space, VIS).audit
    assert audit["n_ok"] == N and audit["n_warnings"] == 12 and len(audit["warnings"]) == 10
    names = {os.path.basename(path) for path in space["path_VIS"][:12]}
    assert {warning.partition(": padding is missing")[0] for warning in audit["warnings"]} < names


# Once, and again


def reads(monkeypatch, fail_at=None):
    """Count the blocks that are read, in whatever process; the one with that number fails."""
    count, read = multiprocessing.Value("i"), pack_blocks.read_block

    def read_block(plan, paths):
        with count.get_lock():
            count.value += 1
            if count.value == fail_at:
                raise RuntimeError("stopped here")
        return read(plan, paths)

    monkeypatch.setattr(pack_blocks, "read_block", read_block)
    return count


def test_a_finished_pack_is_returned_at_once(tmp_path, catalog, monkeypatch):
    build(tmp_path / "pack", catalog)
    before, count = stamps(tmp_path / "pack"), reads(monkeypatch)
    found = build(tmp_path / "pack", catalog, workers=2)
    assert found.catalog["object_id"].tolist() == catalog["object_id"].tolist()
    assert stamps(tmp_path / "pack") == before and count.value == 0


@pytest.mark.parametrize("stop", [2, 6])
def test_a_pack_that_was_stopped_goes_on_where_it_was(tmp_path, catalog, blocks, monkeypatch, stop):
    blocks(4)
    with open(catalog["path_Y"][5], "wb"):
        pass
    build(tmp_path / "whole", catalog)
    with monkeypatch.context() as patch:
        reads(patch, fail_at=stop)
        with pytest.raises(RuntimeError, match="stopped here"):
            build(tmp_path / "pack", catalog)
    with pytest.raises(PackError, match="no finished pack.*cast-lens pack"):
        pack.open_pack(tmp_path / "pack")
    count = reads(monkeypatch)
    build(tmp_path / "pack", catalog)
    assert count.value == 6 - (stop - 1)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def test_blocks_whose_images_were_damaged_meanwhile_are_read_again(
    tmp_path, catalog, blocks, monkeypatch
):
    blocks(4)
    build(tmp_path / "whole", catalog)
    with monkeypatch.context() as patch:
        reads(patch, fail_at=6)
        with pytest.raises(RuntimeError):
            build(tmp_path / "pack", catalog)
    with open(tmp_path / "pack/.pack/nir.npy", "r+b") as file:
        file.seek(128 + 5 * 5 * 7 * 3 * 4)  # record 5 is of block 1
        file.write(b"x")
    records = sorted((tmp_path / "pack/.pack/blocks").iterdir())
    records[2].write_bytes(b"")  # as a crash leaves it
    records[3].write_bytes(records[0].read_bytes())  # sound, but of another place
    count = reads(monkeypatch)
    build(tmp_path / "pack", catalog)
    assert count.value == 4
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["manifest.json", "vis.npy", ".pack.json", "all"])
def test_a_finished_pack_that_was_damaged_is_mended_by_the_same_command(tmp_path, catalog, name):
    build(tmp_path / "pack", catalog)
    before = contents(tmp_path / "pack")
    for path in (tmp_path / "pack").iterdir():
        if name in (path.name, "all"):
            path.write_bytes(path.read_bytes()[:-1])
    build(tmp_path / "pack", catalog).verify()
    after = contents(tmp_path / "pack")
    told = [json.loads(files.pop(".pack.json")) for files in (before, after)]
    assert before == after and told[0] == told[1]
    assert not (tmp_path / "pack/.pack").exists()


def test_restart_packs_anew_whatever_was_packed_before(tmp_path, catalog, monkeypatch):
    build(tmp_path / "pack", catalog)
    put(catalog["path_Y"][3], packs.pixels(99, "Y"))
    found = build(tmp_path / "pack", catalog, VIS, restart=True, dtype="float16")
    assert found.inputs == VIS and found.images("vis").dtype == np.float16
    assert not (tmp_path / "pack/nir.npy").exists()
    count = reads(monkeypatch)
    build(tmp_path / "pack", catalog, restart=True)
    assert count.value > 0
    assert np.array_equal(
        pack.open_pack(tmp_path / "pack").images("nir"), truth(catalog, INPUTS["nir"])
    )
    build(tmp_path / "new", catalog)
    assert contents(tmp_path / "pack") == contents(tmp_path / "new")


def test_one_that_waited_for_another_finds_its_pack(tmp_path, space, monkeypatch):
    hold, times = run.hold, []

    def wait(path, **options):
        times.append(path)
        if len(times) == 1:  # meanwhile another process makes the pack
            build(path, space, VIS)
        return hold(path, **options)

    monkeypatch.setattr(run, "hold", wait)
    count = reads(monkeypatch)
    build(tmp_path / "pack", space, VIS)
    assert len(times) == 2 and count.value == 1


@pytest.mark.parametrize("block, workers", [(1, 2), (5, 1), (7, 3)])
def test_workers_and_blocks_change_no_byte(tmp_path, catalog, blocks, block, workers):
    for k in (0, 4, 5, 6, 7, 20):
        with open(catalog["path_J"][k], "wb") as stream:
            stream.write(b"x" * k)
    catalog.loc[11, "path_H"] = None
    shutil.copy(catalog["path_VIS"][2], catalog["path_VIS"][22])
    build(tmp_path / "one", catalog)
    blocks(block)
    build(tmp_path / "pack", catalog, workers=workers)
    assert contents(tmp_path / "pack") == contents(tmp_path / "one")


# Opened elsewhere


def total(found):
    return os.getpid(), found.images("nir").sum(dtype=np.float64), found.catalog["label"].sum()


def test_a_pack_travels_to_other_processes_as_its_folder(tmp_path, catalog):
    found = build(tmp_path / "pack", catalog)
    data = pickle.dumps(found)
    assert len(data) < 500
    assert np.array_equal(pickle.loads(data).images("vis"), found.images("vis"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        there = pool.submit(total, found).result()
    assert there[0] != os.getpid() and there[1:] == total(found)[1:]
    shutil.rmtree(tmp_path / "pack")
    with pytest.raises(PackError, match="no finished pack"):
        pickle.loads(data)


def test_a_moved_pack_opens_and_is_known_to_be_finished(tmp_path, catalog, monkeypatch):
    build(tmp_path / "pack", catalog)
    shutil.copytree(tmp_path / "pack", tmp_path / "a b ü", ignore=shutil.ignore_patterns(".*"))
    assert pack.open_pack(str(tmp_path / "a b ü")).verify() == N
    shutil.copytree(tmp_path / "survey", tmp_path / "other", copy_function=shutil.copyfile)
    paths = [c for c in catalog if c.startswith("path_")]
    there = catalog.assign(
        **{
            c: catalog[c].str.replace(str(tmp_path / "survey"), str(tmp_path / "other"))
            for c in paths
        }
    )
    count = reads(monkeypatch)
    build(tmp_path / "a b ü", there)  # other dates, and no hidden file to tell the first ones
    assert count.value == 0
    with pytest.raises(run.RunError, match="data.modified.*--restart"):
        build(tmp_path / "pack", there)


def test_verify_looks_at_the_records_that_were_named(tmp_path, space):
    found = build(tmp_path / "pack", space, VIS)
    with open(tmp_path / "pack/vis.npy", "r+b") as file:
        file.seek(128 + 7 * 12 * 11 * 4 + 3)
        file.write(b"\x77")
    assert found.verify([0, 6, 8]) == 3
    name = space["object_id"][7]
    with pytest.raises(PackError, match=f"vis.npy, record 7, object_id {name}: .*--restart"):
        found.verify([6, 7])
    with pytest.raises(PackError, match="record 7"):
        found.verify()


# Refused


def test_strict_refuses_an_object_that_cannot_be_used(tmp_path, space):
    with open(space["path_VIS"][9], "wb"):
        pass
    name = space["object_id"][9]
    with pytest.raises(PackError, match=f"object_id {name}: .*empty.*without --strict"):
        build(tmp_path / "pack", space, VIS, strict=True, workers=2)
    assert not (tmp_path / "pack/manifest.json").exists()
    build(tmp_path / "pack", space, VIS)
    with pytest.raises(PackError, match=r"n_quarantined 1 \(empty 1\).*quarantine.csv"):
        build(tmp_path / "pack", space, VIS, strict=True)


def test_strict_goes_on_from_a_pack_that_was_not(tmp_path, space, blocks, monkeypatch):
    blocks(4)
    with open(space["path_VIS"][2], "wb"):
        pass
    with monkeypatch.context() as patch:
        reads(patch, fail_at=4)
        with pytest.raises(RuntimeError):
            build(tmp_path / "pack", space, VIS)
    with pytest.raises(PackError, match=space["object_id"][2]):
        build(tmp_path / "pack", space, VIS, strict=True)
    assert build(tmp_path / "pack", space, VIS).audit["n_quarantined"] == {"empty": 1}


def test_strict_refuses_missing_objects_but_those_that_were_published_so(tmp_path, catalog):
    paths = [c for c in catalog if c.startswith("path_")]
    catalog.loc[[3, 4, 5], paths] = None
    ids = catalog["object_id"]
    with pytest.raises(PackError, match=f"object_id {ids[4]}: found no file, nor of 1 more"):
        build(tmp_path / "pack", catalog, strict=True, known_missing={ids[3]})
    assert not (tmp_path / "pack").exists()
    known = set(ids[3:5]) | {ids[5]}
    found = build(tmp_path / "pack", catalog, strict=True, known_missing=known)
    assert found.audit["n_missing"] == found.audit["n_missing_published"] == 3


def test_a_folder_of_anything_else_is_refused_and_not_touched(tmp_path, space):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    for restart in (False, True):
        with pytest.raises(PackError, match="thesis.tex.*nothing was written"):
            build(folder, space, VIS, restart=restart)
        assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    (folder / "thesis.tex").unlink()
    assert build(folder, space, VIS).verify() == N


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": {}}, "there is no input"),
        ({"inputs": {"checksums": ("VIS",)}}, "'checksums'"),
        ({"inputs": {"../up": ("VIS",)}}, "'../up'.*plain name"),
        ({"inputs": {"vis": "VIS"}}, "bands 'VIS', expected a tuple"),
        ({"inputs": {"vis": ()}}, r"bands \(\)"),
        ({"inputs": {"vis": ("VIS", "VIS")}}, "each once"),
        ({"inputs": {"vis": ("Z",)}}, "columns.*path_VIS.*expected also object_id, path_Z"),
        ({"dtype": "float64"}, "'float64', expected one of float32, float16"),
        ({"channels": "middle"}, "'middle', expected one of first, last, None"),
        ({"mask_value": float("nan")}, "mask_value is nan"),
        ({"shapes": {"nir": (3, 3)}}, "shapes has 'nir'.*inputs vis"),
        ({"shapes": {"vis": (0, 3)}}, r"shapes has 'vis': \(0, 3\), expected \(height, width\)"),
    ],
)
def test_wrong_arguments_are_said_and_nothing_is_written(tmp_path, space, change, said):
    with pytest.raises(PackError, match=said):
        build(tmp_path / "pack", space, **({"inputs": VIS} | change))
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="object_id"), "expected also object_id"),
        (lambda t: t.drop(columns="path_VIS"), "expected also object_id, path_VIS"),
        (lambda t: t.assign(n_masked=0), "none of n_masked, n_nonfinite"),
        (lambda t: t.assign(pixel_group=0), "pixel_group"),
        (lambda t: t.assign(object_id=range(N)), "row 0 .* object_id 0, which is no text"),
        (lambda t: t.assign(object_id=["a", *t["object_id"][1:5], "a", *t["object_id"][6:]]),
         "row 5 .* object_id 'a', on row 0 too"),
        (lambda t: t.assign(path_VIS=None), f"no file for any of its {N} objects"),
        (lambda t: t.iloc[:0], "no file for any of its 0 objects"),
        (lambda t: t.assign(path_VIS="/nowhere/at/all"), "no image of input vis .*No such file"),
    ],
)  # fmt: skip
def test_wrong_catalogs_are_said_and_nothing_is_written(tmp_path, space, change, said):
    with pytest.raises(PackError, match=said):
        build(tmp_path / "pack", change(space), VIS)
    assert not (tmp_path / "pack").exists()


def test_a_survey_without_one_good_image_of_that_shape_is_an_error(tmp_path, space):
    name = space["object_id"][0]
    with pytest.raises(PackError, match=f"none of {N} objects .*{name} .*shape.*expected"):
        build(tmp_path / "pack", space, VIS, shapes={"vis": (5, 5)})
    with pytest.raises(PackError, match="no finished pack"):
        pack.open_pack(tmp_path / "pack")


def test_a_disk_that_cannot_hold_the_pack_is_said_before_anything_is_written(
    tmp_path, space, monkeypatch
):
    monkeypatch.setattr(run, "free_bytes", lambda path: 4 * 12 * 11 * N - 1)
    with pytest.raises(
        PackError, match=f"{4 * 12 * 11 * N} bytes needed.*{4 * 12 * 11 * N - 1} free"
    ):
        build(tmp_path / "pack", space, VIS)
    assert not (tmp_path / "pack").exists()
    build(tmp_path / "pack", space, VIS, dtype="float16")


def test_what_is_no_pack_is_refused(tmp_path, space):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(PackError, match="cast-lens pack"):
            pack.open_pack(folder)
    found = build(tmp_path / "pack", space, VIS)
    (tmp_path / "pack/audit.json").unlink()
    with pytest.raises(PackError, match="audit.json.*--restart"):
        pack.open_pack(found.folder)


def test_progress_goes_to_standard_error_if_wanted(tmp_path, space, capsys):
    build(tmp_path / "quiet", space, VIS)
    assert capsys.readouterr() == ("", "")
    build(tmp_path / "pack", space, VIS, progress=True, about={"survey": "my survey"})
    out, err = capsys.readouterr()
    assert out == "" and "my survey" in err and f"/{N} [" in err


def test_what_the_manifest_shall_tell_is_told_with_versions_and_rules(tmp_path, space):
    build(tmp_path / "pack", space, VIS, about={"label": "n-pix:20"})
    identity = packs.manifest_of(tmp_path / "pack")["identity"]
    assert identity["about.label"] == "n-pix:20" and identity["plan.mask_value"] == 100
    assert identity["versions.numpy"] == np.__version__
    assert identity["versions.pandas"] == pd.__version__
    assert identity["data.files"] == identity["data.objects"] == N
    assert identity["data.bytes"] == N * len(survey_file(packs.pixels(0, "VIS")))
    assert not any("root" in key or "strict" in key for key in identity)
    assert pack_sources.SAMPLE >= N  # so that the measured shape is that of all objects here


@pytest.mark.parametrize("kind, title", [("real", "real data"), ("stand-in", "STAND-IN DATA")])
def test_a_pack_says_whether_its_images_are_real(tmp_path, space, kind, title):
    build(tmp_path / "pack", space, VIS, about={"data": kind})
    found = pack.open_pack(tmp_path / "pack")
    assert (found.kind, found.title) == (kind, title)


def test_a_pack_of_images_that_nobody_told_about_is_not_called_real(tmp_path, space):
    found = build(tmp_path / "pack", space, VIS)
    for name in ("kind", "title"):
        with pytest.raises(KeyError, match="about.data"):
            getattr(found, name)


def test_paths_that_are_no_text_are_shown_in_utf_8_and_from_the_folder(tmp_path):
    place = tmp_path / os.fsdecode(b"a \xe9")
    table = survey(place / os.fsdecode(b"\xc3\xa9 \xff"), 3, bands=("VIS",))
    extra = survey(place / "b", 3, bands=("VIS",)).assign(object_id=["x", "y", "z"])
    os.truncate(table["path_VIS"][1], 9)
    found = build(tmp_path / "pack", pd.concat([table, extra]), VIS)
    shown = ["é \\xff/VIS/" + os.path.basename(path) for path in table["path_VIS"]]
    assert found.catalog["path_VIS"].tolist()[:2] == [shown[0], shown[2]]
    assert quarantined(tmp_path / "pack")[0]["path"] == shown[1]
    assert np.array_equal(found.images("vis")[1:2], truth(table.iloc[[2]], ["VIS"]))
