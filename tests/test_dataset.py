"""A batch is a function of its number; each object comes once an epoch, with its own label."""

import importlib.util
import math
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_lens import catalog as catalogs
from cast_lens import dataset
from tests.memory_pack import SHAPES, MemoryPack

INPUTS = ("vis", "nir")


def make(pack, positions, **options):
    options = {"batch_size": 4, "seed": 3, "fold": 0, "shuffle": True} | options
    return dataset.from_pack(pack, positions, inputs=INPUTS, **options)


def flat(batch):
    return [np.asarray(leaf) for leaf in keras.tree.flatten(batch)]


def assert_same(one, two):
    for a, b in zip(flat(one), flat(two), strict=True):
        assert a.dtype == b.dtype == np.float32
        assert np.array_equal(a, b)


class Recorder(keras.Model):
    """A model that trains nothing and keeps every batch it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.built = True

    def train_step(self, data):
        self.seen.append([leaf.numpy() for leaf in keras.tree.flatten(data)])
        return {"loss": 0.0}


def recorded(data, **options):
    model = Recorder()
    model.compile(run_eagerly=True)
    model.fit(data, verbose=0, **options)
    return model.seen


@given(n=st.integers(0, 300), seed=st.integers(0, 2**70), fold=st.integers(0, 9),
       epoch=st.integers(0, 999))  # fmt: skip
def test_order_holds_each_object_once_and_depends_on_its_arguments_alone(n, seed, fold, epoch):
    one = dataset.order(n, seed=seed, fold=fold, epoch=epoch)
    np.random.default_rng(0).random(5)
    assert sorted(one.tolist()) == list(range(n))
    assert np.array_equal(one, dataset.order(n, seed=seed, fold=fold, epoch=epoch))


def test_seed_fold_and_epoch_each_change_the_order():
    keys = [(s, f, e) for s in (0, 1, 2**32, 2**64 + 1) for f in (0, 1) for e in (0, 1)]
    orders = {tuple(dataset.order(40, seed=s, fold=f, epoch=e)) for s, f, e in keys}
    assert len(orders) == len(keys)


@settings(deadline=None)
@given(n=st.integers(1, 50), size=st.integers(1, 60), shuffle=st.booleans(),
       epoch=st.integers(0, 3))  # fmt: skip
def test_each_object_comes_once_an_epoch_in_full_batches_but_the_last(n, size, shuffle, epoch):
    positions = np.arange(n)[::-1] + 2
    batches = make(MemoryPack(n + 5), positions, batch_size=size, shuffle=shuffle)
    numbers = range(epoch * batches.steps, (epoch + 1) * batches.steps)
    rows = [batches.rows(number) for number in numbers]
    assert sorted(np.concatenate(rows).tolist()) == sorted(positions.tolist())
    assert [len(part) for part in rows[:-1]] == [size] * (batches.steps - 1)
    assert batches.steps == math.ceil(n / size) and 1 <= len(rows[-1]) <= size
    if not shuffle:
        assert np.array_equal(np.concatenate(rows), positions)


def test_images_and_labels_are_those_of_their_objects():
    pack = MemoryPack(23)
    positions = np.array([20, 3, 7, 11, 12, 0, 22])
    batches = make(pack, positions)
    for number in range(3 * batches.steps):
        images, labels = batches.read(number)
        rows = batches.rows(number)
        assert list(images) == list(INPUTS)
        for k, row in enumerate(rows):
            assert np.array_equal(images["vis"][k], pack.images["vis"][row])
            assert np.array_equal(images["nir"][k], pack.images["nir"][row])
            assert labels[k] == [pack.catalog["label"][row]]
        assert labels.shape == (len(rows), 1) and labels.dtype == np.float32


def test_epochs_differ_and_repeat_exactly():
    def epochs(batches):
        rows = [batches.rows(number).tolist() for number in range(3 * batches.steps)]
        return [sum(rows[k * batches.steps : (k + 1) * batches.steps], []) for k in range(3)]

    pack = MemoryPack(30)
    one, two = (epochs(make(pack, np.arange(30))) for _ in range(2))
    assert one == two and len({tuple(epoch) for epoch in one}) == 3
    backwards = make(pack, np.arange(30))
    assert [backwards.rows(n).tolist() for n in (20, 9, 1)] == [
        make(pack, np.arange(30)).rows(n).tolist() for n in (20, 9, 1)
    ]
    other = epochs(make(pack, np.arange(30), fold=1))
    assert not {tuple(e) for e in other} & {tuple(e) for e in one}


@pytest.mark.parametrize("n", [1, 8, 10])
def test_tf_data_and_py_dataset_are_the_batches_of_one_epoch(n):
    batches = make(MemoryPack(12), np.arange(n))
    wanted = [batches.read(2 * batches.steps + step) for step in range(batches.steps)]
    tf_data = dataset.as_tf_data(batches, first_epoch=2, repeat=False)
    py_data = dataset.as_py_dataset(batches, first_epoch=2, repeat=False)
    assert int(tf_data.cardinality()) == py_data.num_batches == batches.steps == math.ceil(n / 4)
    for found in (list(tf_data), list(tf_data), list(py_data)):
        for one, two in zip(found, wanted, strict=True):
            assert isinstance(one, tuple) and list(one[0]) == list(INPUTS)
            assert_same(one, two)


def test_tensors_have_the_shape_of_the_images_and_any_batch_size():
    images, labels = dataset.as_tf_data(
        make(MemoryPack(9), np.arange(9)), first_epoch=0, repeat=True
    ).element_spec
    assert {name: (None, *shape) for name, shape in SHAPES.items()} == {
        name: tuple(spec.shape) for name, spec in images.items()
    }
    assert tuple(labels.shape) == (None, 1)


def test_the_tuner_of_tf_data_is_off_for_whoever_drops_an_iterator_waits_until_it_wakes():
    found = dataset.as_tf_data(make(MemoryPack(9), np.arange(9)), first_epoch=0, repeat=True)
    assert found.options().autotune.enabled is False


@pytest.mark.parametrize("kind", [dataset.as_tf_data, dataset.as_py_dataset])
def test_fit_sees_one_epoch_after_the_other_and_goes_on_where_it_stopped(kind):
    batches = make(MemoryPack(11), np.arange(10))
    wanted = [batches.read(number) for number in range(4 * batches.steps)]
    options = {"steps_per_epoch": batches.steps, "epochs": 4, "shuffle": False}
    whole = recorded(kind(batches, first_epoch=0, repeat=True), **options)
    rest = recorded(kind(batches, first_epoch=2, repeat=True), initial_epoch=2, **options)
    for found, first in ((whole, 0), (rest, 2)):
        assert len(found) == (4 - first) * batches.steps
        for one, two in zip(found, wanted[first * batches.steps :], strict=True):
            assert_same(one, two)


@pytest.mark.parametrize("kind", [dataset.as_tf_data, dataset.as_py_dataset])
def test_scores_stand_in_the_order_of_the_positions(kind):
    pack, positions = MemoryPack(12), np.array([9, 2, 3, 11, 0])
    batches = make(pack, positions, shuffle=False, batch_size=2)
    inputs = {name: keras.Input(shape, name=name) for name, shape in SHAPES.items()}
    sums = [keras.layers.GlobalAveragePooling2D()(inputs[name]) for name in INPUTS]
    model = keras.Model(inputs, keras.layers.Concatenate()(sums))
    scores = model.predict(kind(batches, first_epoch=0, repeat=False), verbose=0)
    wanted = [pack.images[name][positions].mean((1, 2), np.float64) for name in INPUTS]
    assert scores == pytest.approx(np.concatenate(wanted, axis=1), abs=1e-6)


BLOCKED = """
import sys, types

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

# PyDataset is Python alone, but Keras starts with no backend but TensorFlow, JAX or PyTorch.
STAND_IN_FOR_KERAS = """
keras = types.ModuleType("keras")
keras.utils = types.SimpleNamespace(PyDataset=object)
sys.modules["keras"] = keras
"""

READ = """
import numpy as np
from cast_lens import dataset
from tests.memory_pack import MemoryPack, SHAPES

pack, positions = MemoryPack(12), np.array([9, 2, 3, 11, 0])
options = {"inputs": ["vis"], "batch_size": 2, "seed": 3, "fold": 0}
batches = dataset.from_pack(pack, positions, shuffle=True, **options)
data = dataset.as_py_dataset(batches, first_epoch=1, repeat=True)
found = [data[n] for n in range(6)]
print([batches.rows(n).tolist() for n in range(3, 9)])
print([float(images["vis"].sum()) for images, _ in found], [*map(repr, (y for _, y in found))])
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""

TRAIN = """
import keras

inputs = keras.Input(SHAPES["vis"], name="vis")
model = keras.Model({"vis": inputs}, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
model.compile("sgd", "mse")
fit = {"steps_per_epoch": 3, "epochs": 3, "initial_epoch": 1, "verbose": 0, "shuffle": False}
pack.asked.clear()
model.fit(dataset.as_py_dataset(batches, first_epoch=1, repeat=True), **fit)
wanted = [batches.rows(n).tolist() for n in range(3, 9)]
# Keras reads one or two to build the model, and may read ahead of the last.
assert any(pack.asked[k : k + 6] == wanted for k in range(4)), pack.asked
batches = dataset.from_pack(pack, positions, shuffle=False, **options)
scores = model.predict(dataset.as_py_dataset(batches, first_epoch=0, repeat=False), verbose=0)
weights, bias = model.get_weights()
wanted = pack.images["vis"][positions].reshape(5, -1) @ weights + bias
assert np.allclose(scores, wanted, atol=1e-5), (scores, wanted)
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""


def run_without_tensorflow(root, code):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_py_dataset_needs_no_tensorflow(root):
    found = run_without_tensorflow(root, STAND_IN_FOR_KERAS + READ)
    pack = MemoryPack(12)
    batches = make(pack, np.array([9, 2, 3, 11, 0]), batch_size=2)
    read = [batches.read(number) for number in range(3, 9)]
    sums, labels = [float(images["vis"].sum()) for images, _ in read], [repr(y) for _, y in read]
    assert found == [str([batches.rows(number).tolist() for number in range(3, 9)]),
                     f"{sums} {labels}"]  # fmt: skip


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_trains_and_scores_without_tensorflow(root, monkeypatch, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    run_without_tensorflow(root, READ + TRAIN)


def test_without_labels_a_batch_is_its_images_alone():
    pack = MemoryPack(5)
    pack.catalog = pack.catalog.drop(columns="label")
    batches = make(pack, np.arange(5), shuffle=False)
    (images,) = batches.read(1)
    assert np.array_equal(images["vis"], pack.images["vis"][4:])
    for kind in (dataset.as_tf_data, dataset.as_py_dataset):
        found = list(kind(batches, first_epoch=0, repeat=False))
        assert len(found) == 2 and len(found[1]) == 1
        assert_same(found[1], batches.read(1))
    with pytest.raises(ValueError, match="column label"):
        make(pack, np.arange(5), sampler=dataset.alternate_classes)


@pytest.mark.parametrize("sizes", [(3, 10), (10, 3), (1, 7), (5, 5), (2, 4, 9)])
def test_classes_alternate_until_the_largest_was_seen_whole(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    drawn = dataset.alternate_classes(labels, np.random.default_rng(0))
    assert len(drawn) == len(sizes) * max(sizes)
    assert np.array_equal(labels[drawn], np.tile(np.arange(len(sizes)), max(sizes)))
    for label, size in enumerate(sizes):
        counts = np.bincount(drawn[labels[drawn] == label], minlength=len(labels))
        counts = counts[labels == label]
        assert counts.min() == max(sizes) // size and counts.max() <= -(-max(sizes) // size)
        for start in range(0, max(sizes), size):  # each of the class before any comes again
            cycle = drawn[label :: len(sizes)][start : start + size]
            assert len(set(cycle)) == len(cycle)
    with pytest.raises(ValueError, match="two classes"):
        dataset.alternate_classes(labels[labels == 1], np.random.default_rng(0))


def test_balanced_batches_hold_both_classes_and_a_new_draw_every_epoch():
    labels = (np.arange(40) % 10 == 0).astype(int)  # 4 lenses of 40
    pack = MemoryPack(40, labels=labels)
    batches = make(pack, np.arange(40), batch_size=8, sampler=dataset.alternate_classes)
    assert batches.steps == 2 * 36 / 8
    for number in range(2 * batches.steps):
        assert batches.read(number)[1].mean() == 0.5
    epochs = [[*map(tuple, map(batches.rows, range(9 * e, 9 * e + 9)))] for e in range(2)]
    assert epochs[0] != epochs[1]
    again = make(pack, np.arange(40), batch_size=8, sampler=dataset.alternate_classes)
    assert [*map(tuple, map(again.rows, range(9, 18)))] == epochs[1]


def test_a_sampler_must_draw_as_many_objects_in_every_epoch():
    def sampler(labels, rng):
        return np.arange(3 + rng.integers(30))

    batches = make(MemoryPack(40), np.arange(40), sampler=sampler)
    with pytest.raises(ValueError, match="expected as many in every epoch"):
        for number in range(0, 5 * batches.steps, batches.steps):
            batches.read(number)


def test_halves_are_fifteen_different_objects_of_either_class():
    labels = (np.arange(100) % 5 == 0).astype(int)  # 20 lenses
    sampler = partial(dataset.draw_halves, each=15, n_batches=40)
    batches = make(MemoryPack(100, labels=labels), np.arange(100), batch_size=30, sampler=sampler)
    assert batches.steps == 40
    rows = [batches.rows(number) for number in range(80)]
    for part in rows:
        assert len(set(part)) == 30
        assert labels[part].tolist() == [1] * 15 + [0] * 15
    assert len({tuple(part) for part in rows}) == 80
    # Every object is as likely as any other of its class: 60 of 80 batches, 15 of 80.
    counts = np.bincount(np.concatenate(rows))
    for label, p in ((1, 15 / 20), (0, 15 / 80)):
        assert counts[labels == label] == pytest.approx(80 * p, abs=5 * math.sqrt(80 * p * (1 - p)))
    with pytest.raises(ValueError, match="20 and 80 lenses and others, expected 21"):
        dataset.draw_halves(labels, np.random.default_rng(0), each=21, n_batches=1)


def test_class_weights_are_n_over_twice_the_objects_of_a_class():
    """1,730 lenses and 28,675 others: 8.788 and .530 (shared code of Aryal 2025)."""
    labels = np.repeat([0, 1], [28_675, 1_730])
    assert dataset.class_weights(labels) == pytest.approx({0: 0.5302, 1: 8.7876}, abs=1e-4)
    assert dataset.class_weights(labels[:5]) == {0: 1.0}


@pytest.mark.parametrize("options, message", [
    ({"inputs": "vis"}, "a list of one name"), ({"inputs": []}, "a list of one name"),
    ({"batch_size": 0}, "1 object or more"), ({"positions": [3, 4, 3]}, "200021.*2 times"),
    ({"positions": [5]}, "expected 0 to 4"), ({"positions": []}, "expected the positions"),
    ({"sampler": dataset.alternate_classes, "shuffle": False}, "expected shuffle=True"),
])  # fmt: skip
def test_arguments_that_cannot_be_meant_are_refused(options, message):
    default = {"positions": [0], "inputs": INPUTS, "batch_size": 4, "shuffle": True}
    with pytest.raises(ValueError, match=message):
        dataset.from_pack(MemoryPack(5), seed=0, fold=0, **(default | options))


def test_batches_of_real_files_are_what_astropy_reads(real_data):
    folder = real_data / "sglc1/ground_based"
    catalog, _ = catalogs.read_sglc1(folder, track="ground")
    inputs = {"r": ["path_R"], "iu": ["path_I", "path_U"]}
    options = {"batch_size": 4, "seed": 0, "fold": 0, "shuffle": False}
    positions = np.array([4, 0, 5, 1, 2, 3])
    batches = dataset.from_catalog(catalog, positions, inputs=inputs, mask_value=100, **options)
    masked = 0
    for number, batch in enumerate(dataset.as_tf_data(batches, first_epoch=0, repeat=False)):
        for name, columns in inputs.items():
            for n, column in enumerate(columns):
                for k, row in enumerate(batches.rows(number)):
                    wanted = fits.getdata(catalog[column][row]).astype(np.float32)
                    masked += int((wanted >= 100).sum())
                    wanted[wanted >= 100] = 0
                    assert np.array_equal(batch[0][name][k, :, :, n], wanted)
    assert masked == 15 + 49 + 212  # in r of 100023, u of 100003, u of 100008
    assert batches.steps == 2
