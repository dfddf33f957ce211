"""Faults 7, 13, 14, 15, 18, 28 and 33 of faults.md, between the catalog and the network."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cast_lens import dataset, folds
from cast_lens.cutouts import CutoutError
from tests.fits_files import survey_file
from tests.memory_pack import MemoryPack
from tests.test_dataset import BLOCKED, STAND_IN_FOR_KERAS

OBJECTS, SHAPE = 7, (12, 12)
INPUTS = {"vis": ["path_VIS"], "nir": ["path_H", "path_Y"]}
BANDS = ("VIS", "H", "Y")


def pixels(k, band):
    rng = np.random.default_rng([k, BANDS.index(band)])
    return (7.7e-13 * rng.standard_normal(SHAPE)).astype(np.float32)


def put(path, image):
    path.write_bytes(survey_file(image))


@pytest.fixture
def catalog(tmp_path):
    """A catalog of `OBJECTS` objects with good files in three bands."""
    table = pd.DataFrame({"object_id": [str(100_000 + k) for k in range(OBJECTS)]})
    table["label"] = np.arange(OBJECTS) % 2
    for band in BANDS:
        paths = [tmp_path / f"imageEUC_{band}-{name}.fits" for name in table["object_id"]]
        for k, path in enumerate(paths):
            put(path, pixels(k, band))
        table[f"path_{band}"] = pd.Series(paths, dtype=object)
    return table


def batches_of(catalog, *, batch_size=3, shuffle=True, positions=None):
    return dataset.from_catalog(
        catalog, np.arange(OBJECTS) if positions is None else positions, inputs=INPUTS,
        mask_value=100, batch_size=batch_size, seed=1, fold=0, shuffle=shuffle,
    )  # fmt: skip


def tensors(batches, epochs=1):
    """Return {(epoch, row of the object): bytes of its images and label}."""
    found = {}
    for number in range(epochs * batches.steps):
        images, labels = batches.read(number)
        for k, row in enumerate(batches.rows(number).tolist()):
            leaves = [images["vis"][k], images["nir"][k], labels[k]]
            found[number // batches.steps, row] = b"".join(leaf.tobytes() for leaf in leaves)
    return found


def spoil(image, value, where):
    image[{"pixel": (4, 5), "row": (4,), "all": ()}[where]] = value
    return image


@pytest.mark.parametrize("where", ["pixel", "row", "all"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 100, 0])
@pytest.mark.parametrize("k", [0, 3, OBJECTS - 1])
def test_7_a_corrupt_object_changes_no_other_tensor(catalog, value, where, k):
    before = tensors(batches_of(catalog), epochs=2)
    put(catalog["path_H"][k], spoil(pixels(k, "H"), value, where))
    after = tensors(batches_of(catalog), epochs=2)
    assert {row for key in before for row in key[1:] if before[key] != after[key]} == {k}
    assert all(np.isfinite(np.frombuffer(leaf, np.float32)).all() for leaf in after.values())


def test_7_a_tensor_does_not_depend_on_the_batch_it_is_in(catalog):
    alone = {k: leaf for (_, k), leaf in tensors(batches_of(catalog, batch_size=1)).items()}
    for batch_size in (2, 3, OBJECTS, 50):
        for shuffle in (True, False):
            found = tensors(batches_of(catalog, batch_size=batch_size, shuffle=shuffle), epochs=3)
            assert len(found) == 3 * OBJECTS
            assert all(leaf == alone[k] for (_, k), leaf in found.items())


def test_7_a_corrupt_record_of_a_pack_changes_no_other_tensor():
    pack = MemoryPack(20)
    options = {"inputs": ["vis", "nir"], "batch_size": 6, "seed": 0, "fold": 0, "shuffle": True}
    before = tensors(dataset.from_pack(pack, np.arange(20), **options), epochs=2)
    for name in options["inputs"]:
        pack.images[name][13] = np.nan
    after = tensors(dataset.from_pack(pack, np.arange(20), **options), epochs=2)
    assert {row for _, row in before if before[0, row] != after[0, row]} == {13}
    assert {row for _, row in before if before[1, row] != after[1, row]} == {13}


def test_an_unusable_file_ends_the_run_and_is_named(catalog):
    path = catalog["path_Y"][4]
    path.write_bytes(path.read_bytes()[:3000])
    batches = batches_of(catalog)
    with pytest.raises(CutoutError, match=path.name) as caught:
        tensors(batches)
    assert caught.value.reason == "truncated"
    import tensorflow as tf

    with pytest.raises(tf.errors.OpError, match=f"{path.name}: truncated"):
        list(dataset.as_tf_data(batches_of(catalog, batch_size=1, shuffle=False),
                                first_epoch=0, repeat=False))  # fmt: skip


def test_an_object_of_another_shape_is_named(catalog):
    put(catalog["path_H"][5], np.ones((12, 11), np.float32))
    with pytest.raises(CutoutError, match=catalog["path_H"][5].name) as caught:
        tensors(batches_of(catalog))
    assert caught.value.reason == "shape"


def test_13_an_object_without_a_band_is_refused_before_anything_is_read(catalog):
    catalog.loc[[2, 5], "path_Y"] = None
    with pytest.raises(CutoutError, match="path_Y.*100002 and 1 others") as caught:
        batches_of(catalog)
    assert caught.value.reason == "missing_band"
    whole = np.array([0, 1, 3, 4, 6])
    assert len(tensors(batches_of(catalog, positions=whole))) == 5


def planted(n=60, **columns):
    table = pd.DataFrame({"object_id": [str(100_000 + k) for k in range(n)]})
    table["label"] = np.arange(n) % 2
    table["pixel_group"] = np.arange(n)
    table["einstein_area"] = 1e-10 * (1 + np.arange(n))
    for column, (one, two) in columns.items():
        table.loc[two, column] = table.loc[one, column]
    return table


HALVES = {"train": np.arange(30), "test": np.arange(30, 60)}


@pytest.mark.parametrize("column", ["object_id", "pixel_group", "einstein_area"])
def test_14_15_a_planted_leak_ends_the_run_with_both_objects(column):
    groups = ["einstein_area"]
    folds.audit(planted(), HALVES, groups=groups)
    for one, two in ((0, 59), (29, 30), (17, 44)):
        table = planted(**{column: (one, two)})
        with pytest.raises(folds.FoldError, match=column) as caught:
            folds.audit(table, HALVES, groups=groups)
        for k in (one, two):
            assert table["object_id"][k] in str(caught.value)
    folds.audit(planted(**{column: (3, 4)}), HALVES, groups=groups)  # both in one part


def test_14_15_the_same_position_in_two_parts_ends_the_run():
    parts = {"train": np.arange(31), "test": np.arange(30, 60)}
    with pytest.raises(folds.FoldError, match="object_id 100030 in train and .* 100030 in test"):
        folds.audit(planted(), parts)


@pytest.mark.parametrize("column", ["object_id", "pixel_group", "einstein_area"])
def test_14_15_folds_never_divide_what_is_the_same(column):
    table = planted(**{column: (5, 50)})
    for seed in range(12):
        for split in folds.k_fold(table, 5, seed=seed, groups=["einstein_area"]):
            assert len({5, 50} & set(split["test"].tolist())) in (0, 2)


def test_15_a_published_split_that_leaks_is_refused():
    table = planted(einstein_area=(2, 58)).assign(split=["train"] * 30 + ["val"] * 30)
    assert list(folds.by_split(table)) == ["train", "val"]
    with pytest.raises(folds.FoldError, match="100002 in train and object_id 100058 in val"):
        folds.by_split(table, groups=["einstein_area"])


def test_18_folds_of_one_class_or_with_one_lens_are_made_and_of_none_are_not():
    table = planted().assign(label=0)
    assert [len(split["test"]) for split in folds.k_fold(table, 3, seed=0)] == [20] * 3
    table.loc[7, "label"] = 1
    with pytest.warns(UserWarning, match="least populated class"):
        found = folds.k_fold(table, 3, seed=0)
    assert sorted(table["label"][split["test"]].sum() for split in found) == [0, 0, 1]
    with pytest.raises(folds.FoldError, match="61 folds of 60 objects"):
        folds.k_fold(table, 61, seed=0)


def test_18_a_sampler_of_one_class_says_so():
    pack = MemoryPack(9, labels=np.ones(9, int))
    with pytest.raises(ValueError, match="two classes"):
        dataset.from_pack(pack, np.arange(9), inputs=["vis"], batch_size=4, seed=0, fold=0,
                          shuffle=True, sampler=dataset.alternate_classes)  # fmt: skip


@pytest.mark.parametrize("kind", [dataset.as_tf_data, dataset.as_py_dataset])
@pytest.mark.parametrize("n, batch_size", [(1, 1), (1, 64), (3, 64), (64, 64), (65, 64), (7, 3)])
def test_28_every_object_comes_once_however_few_there_are(kind, n, batch_size):
    pack = MemoryPack(n)
    pack.images["vis"][:] = np.arange(n)[:, None, None, None]
    batches = dataset.from_pack(
        pack, np.arange(n), inputs=["vis"], batch_size=batch_size, seed=0, fold=0, shuffle=True
    )
    for epoch in range(2):
        data = list(kind(batches, first_epoch=epoch, repeat=False))
        seen = np.concatenate([np.asarray(images["vis"])[:, 0, 0, 0] for images, _ in data])
        assert sorted(seen.tolist()) == list(range(n))
        labels = np.concatenate([np.asarray(labels)[:, 0] for _, labels in data])
        assert np.array_equal(labels, pack.catalog["label"].to_numpy()[seen.astype(int)])


DIGEST = """
import hashlib, numpy as np
from cast_lens import dataset, folds
from tests.memory_pack import MemoryPack
pack = MemoryPack(50)
train = folds.k_fold(pack.catalog, 3, seed=5)[1]["train"]
batches = dataset.from_pack(pack, train, inputs=["vis", "nir"], batch_size=8, seed=5, fold=1,
                            shuffle=True, sampler=dataset.alternate_classes)
digest = hashlib.sha256(train.tobytes())
for images, labels in read(batches):
    for leaf in (images["vis"], images["nir"], labels):
        digest.update(np.asarray(leaf).tobytes())
print(digest.hexdigest())
"""
AS_PY_DATASET = """
def read(batches):
    data = dataset.as_py_dataset(batches, first_epoch=1, repeat=True)
    return [data[number] for number in range(12)]
"""
AS_TF_DATA = """
def read(batches):
    return dataset.as_tf_data(batches, first_epoch=1, repeat=True).take(12)
"""


@pytest.mark.parametrize("begin, read", [
    pytest.param(BLOCKED + STAND_IN_FOR_KERAS, AS_PY_DATASET, id="py"),  # starts in a third
    pytest.param("", AS_TF_DATA, id="tf", marks=pytest.mark.slow),
])  # fmt: skip
def test_33_another_process_with_the_same_seed_reads_the_same_bits(root, capsys, begin, read):
    exec(read + DIGEST, {})
    here = capsys.readouterr().out
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    there = subprocess.run(
        [sys.executable, "-c", begin + read + DIGEST], cwd=root, capture_output=True, text=True,
        check=True, env=environment,
    ).stdout  # fmt: skip
    assert here == there and len(here.strip()) == 64
