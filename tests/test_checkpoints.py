"""A training that was stopped ends with the same weights as one that was not."""

import math

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cast_lens import augment, checkpoints, dataset
from cast_lens.run import RunError
from tests.memory_pack import MemoryPack

EPOCHS = 3


def network(width=3):
    """Return a compiled network whose training draws random numbers of its own."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    inputs = {
        "vis": keras.Input((6, 5, 1), name="vis"), "nir": keras.Input((2, 3, 3), name="nir"),
    }  # fmt: skip
    images = augment.RandomGainOffset(gain=(0.8, 1.2), offset=(-0.1, 0.1), seed=3)(inputs)
    means = [keras.layers.Flatten()(images[name]) for name in sorted(images)]
    hidden = keras.layers.Dense(width, "tanh")(keras.layers.Concatenate()(means))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5, seed=5)(hidden))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", jit_compile=False)
    return model


def train(folder, until, *, labels=None, model=None, every=1, more=()):
    """Train up to an epoch, going on from what is in the folder."""
    model, pack = model or network(), MemoryPack(20, labels=labels)
    options = {"inputs": ["vis", "nir"], "batch_size": 4, "seed": 0, "fold": 0}
    batches = dataset.from_pack(pack, np.arange(14), shuffle=True, **options)
    others = dataset.from_pack(pack, np.arange(14, 20), shuffle=False, **options)
    ids = pack.catalog["object_id"].to_numpy()
    kept = checkpoints.Checkpoint(
        folder, monitor="val_loss", objects=lambda e, s: ids[batches.rows(e * batches.steps + s)]
    )
    kept.every = every
    done = kept.restore(model)
    model.fit(
        dataset.as_py_dataset(batches, first_epoch=done, repeat=True), epochs=until,
        initial_epoch=done, steps_per_epoch=batches.steps, shuffle=False, verbose=0,
        validation_data=dataset.as_py_dataset(others, first_epoch=0, repeat=False),
        callbacks=[kept, *more],
    )  # fmt: skip
    return model, kept.history


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def values(model):
    return [np.asarray(variable) for variable in variables(model)]


@pytest.fixture(scope="module")
def untrained():
    """Return a function that returns one network, as it was before any training."""
    model = network()
    model.optimizer.build(model.trainable_variables)
    before = values(model)

    def again():
        for variable, value in zip(variables(model), before, strict=True):
            variable.assign(value)
        return model

    return again


@pytest.fixture(scope="module")
def wider():
    return network(4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(folder, EPOCHS)


def test_a_training_in_pieces_ends_with_the_same_bits(whole, tmp_path):
    folder, model, history = whole
    for until in (1, EPOCHS):
        pieces, found = train(tmp_path, until)
    assert found == history and len(history) == EPOCHS
    for one, two in zip(values(model), values(pieces), strict=True):
        assert np.array_equal(one, two)
    for name in (checkpoints.STATE, checkpoints.BEST):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert train(tmp_path, EPOCHS)[1] == history  # nothing is left to do


class Clock(keras.callbacks.Callback):
    """Lets an epoch take so many seconds; looks at what is written, and is killed in one."""

    def __init__(self, path, seconds, killed_in):
        super().__init__()
        self.path, self.seconds, self.killed_in = path, seconds, killed_in
        self.now, self.seen = 0.0, []

    def monotonic(self):
        return self.now

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.now += self.seconds
            self.seen.append(self.path.exists() and self.path.stat().st_mtime_ns)
            if len(self.seen) == self.killed_in:
                raise KeyboardInterrupt


@pytest.mark.parametrize("seconds, written", [(31.0, 3), (16.0, 2), (7.0, 0)])
def test_short_epochs_share_a_state_and_a_kill_costs_no_more_than_them(
    whole, tmp_path, monkeypatch, seconds, written
):
    folder, model, history = whole
    clock = Clock(tmp_path / checkpoints.STATE, seconds, killed_in=4)
    monkeypatch.setattr(checkpoints, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 5, more=[clock])
    assert len({stamp for stamp in clock.seen if stamp}) == {3: 3, 2: 1, 0: 0}[written]
    again = network()
    again.optimizer.build(again.trainable_variables)
    assert checkpoints.Checkpoint(tmp_path, monitor="val_loss").restore(again) == written
    for name in (checkpoints.STATE, checkpoints.BEST):  # neither is ahead of the other
        assert (tmp_path / name).exists() == bool(written)
    pieces, found = train(tmp_path, EPOCHS)
    assert found == history
    for one, two in zip(values(model), values(pieces), strict=True):
        assert np.array_equal(one, two)
    for name in (checkpoints.STATE, checkpoints.BEST):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_best_weights_are_those_of_the_lowest_validation_loss(whole, tmp_path):
    folder, _, history = whole
    best = int(np.argmin([row["val_loss"] for row in history])) + 1
    model, _ = train(tmp_path, best)
    fresh = network()
    assert checkpoints.read_weights(fresh, folder / checkpoints.BEST) == {"epoch": str(best)}
    for one, two in zip(fresh.weights, model.weights, strict=True):
        assert np.array_equal(one, two)


def test_weights_find_their_places_whatever_else_a_process_has_built(whole, tmp_path):
    folder, model, _ = whole
    network()
    keras.utils.set_random_seed(7)
    before = keras.layers.Dropout(0.1, seed=1), keras.layers.Dense(2), keras.layers.Dense(3)
    other = keras.models.clone_model(model)
    other.compile(keras.optimizers.Adam(0.05), "binary_crossentropy", jit_compile=False)
    kept = checkpoints.Checkpoint(folder, monitor="val_loss")
    assert len(before) == 3 and kept.restore(other) == EPOCHS
    for one, two in zip(values(model), values(other), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("every, named", [
    (1, r"after batch \d of \d objects"), (2, "after one of batches 3 to 4 of 6 objects"),
    (3, "after batch 4 of 2 objects"), (16, "after one of batches 1 to 4 of 14 objects"),
])  # fmt: skip
def test_the_loss_is_looked_at_before_anything_is_written(untrained, tmp_path, every, named):
    labels = np.zeros(20)
    labels[3] = np.nan
    with pytest.raises(RunError, match=f"loss is nan in epoch 1, {named}.*200021"):
        train(tmp_path, 1, labels=labels, every=every, model=untrained())
    assert not (tmp_path / checkpoints.STATE).exists()


def test_many_objects_are_named_in_a_file(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "NAMED", 3)
    labels = np.zeros(20)
    labels[3] = np.nan
    with pytest.raises(RunError, match=r"of 14 objects, which .*not-finite.txt names") as error:
        train(tmp_path, 1, labels=labels, every=16, model=untrained())
    named = (tmp_path / checkpoints.OBJECTS).read_text().split()
    assert len(named) == 14 and "200021" in named and "200021" not in str(error.value)


def test_a_loss_that_is_no_number_stops_and_names_the_objects(whole, tmp_path):
    model, _ = train(tmp_path, 1)
    before = (tmp_path / checkpoints.STATE).read_bytes()
    labels = np.zeros(20)
    labels[3] = np.nan
    with pytest.raises(RunError, match=r"loss is nan in epoch 2, after batch \d.*200021"):
        train(tmp_path, 2, labels=labels, model=model)
    assert (tmp_path / checkpoints.STATE).read_bytes() == before
    with pytest.raises(RunError, match="val_loss is nan in epoch 2.*nothing is reported"):
        train(tmp_path, 2, labels=np.where(np.arange(20) == 17, np.nan, 0))
    assert (tmp_path / checkpoints.STATE).read_bytes() == before


@pytest.mark.parametrize("fault", [
    "cut", "empty", "text", "missing", "renamed", "transposed", "nan", "type", "other",
])  # fmt: skip
def test_damaged_weights_are_refused_and_nothing_is_loaded(
    whole, untrained, wider, tmp_path, fault
):
    source, path = whole[0] / checkpoints.BEST, tmp_path / "weights.safetensors"
    arrays = load_file(source)
    name = next(name for name, array in arrays.items() if array.ndim == 2)
    kernel = arrays[name]
    if fault in ("cut", "empty", "text"):
        data = source.read_bytes()
        path.write_bytes({"cut": data[:-7], "empty": b"", "text": b"<html>" * 99}[fault])
    elif fault != "other":
        if fault in ("missing", "renamed"):
            del arrays[name]
        changed = {
            "renamed": kernel, "transposed": np.ascontiguousarray(kernel.T),
            "nan": np.full_like(kernel, math.nan), "type": kernel.astype(np.float64),
        }  # fmt: skip
        if fault != "missing":
            arrays["x" + name if fault == "renamed" else name] = changed[fault]
        save_file(arrays, path)
    else:
        path = source
    model = wider if fault == "other" else untrained()
    before = values(model)
    with pytest.raises(RunError, match="expected|holds what is no number") as caught:
        checkpoints.read_weights(model, path)
    assert str(path) in str(caught.value)
    if fault in ("transposed", "nan", "type"):
        assert name in str(caught.value)
    for one, two in zip(before, values(model), strict=True):
        assert np.array_equal(one, two)
