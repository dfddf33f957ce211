"""Images on the device: the batches are those of the pack, to the last bit."""

import keras
import numpy as np
import pytest

from cast_lens import dataset, device_arrays
from tests.memory_pack import MemoryPack
from tests.packs import build, pixels, survey

N = 23


@pytest.fixture(scope="module", params=["float32", "float16"])
def packed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return build(folder / "pack", survey(folder / "survey", N), dtype=request.param)


def numbers(batch):
    return keras.tree.map_structure(np.asarray, batch)


def make(source, positions, **options):
    options = {"inputs": ["vis", "nir"], "batch_size": 4, "seed": 5, "fold": 1} | options
    return dataset.from_pack(source, positions, **({"shuffle": True} | options))


def test_batches_are_those_of_the_pack_in_every_epoch(packed):
    chosen = np.random.default_rng(0).permutation(N)[:17]
    arrays = device_arrays.put(packed, chosen, inputs=["vis", "nir"])
    for fold, shuffle in ((0, True), (1, True), (0, False)):
        ours = make(arrays, chosen[3:14], fold=fold, shuffle=shuffle)
        theirs = make(packed, chosen[3:14], fold=fold, shuffle=shuffle)
        for number in range(2 * theirs.steps):
            assert np.array_equal(ours.rows(number), theirs.rows(number))
            found, wanted = numbers(ours.read(number)), theirs.read(number)
            keras.tree.assert_same_structure(found, wanted)
            for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True):
                assert a.dtype == b.dtype == np.float32 and np.array_equal(a, b)


def test_every_image_is_that_of_its_object(packed):
    arrays = device_arrays.put(packed, np.arange(N)[::-1], inputs=["nir"])
    images = np.asarray(arrays.batch("nir", np.arange(N)))
    for image, object_id in zip(images, packed.catalog["object_id"], strict=True):
        drawn = [pixels(int(object_id) - 200_000, band) for band in ("Y", "J", "H")]
        # float16 has eleven bits, and less of what is far below the typical pixel.
        assert np.allclose(image, np.stack(drawn, axis=-1), rtol=2**-11, atol=2**-17 * 7.7e-13)


def test_float16_stays_float16_on_the_device(packed):
    arrays = device_arrays.put(packed, np.arange(10), inputs=["vis", "nir"])
    size = 10 * (12 * 11 + 3 * 5 * 7)
    assert arrays.nbytes == size * packed.images("vis").dtype.itemsize


def test_a_pack_in_memory_will_do_and_keras_takes_the_batches():
    source = MemoryPack(12)
    chosen = np.array([9, 2, 3, 11, 0, 5])
    arrays = device_arrays.put(source, chosen, inputs=["vis"])
    options = {"inputs": ["vis"], "batch_size": 3, "shuffle": False}
    wanted = make(source, chosen, **options)
    fed = dataset.feed(make(arrays, chosen, **options), first_epoch=0, repeat=False)
    images = keras.Input((6, 5, 1), name="vis")
    model = keras.Model({"vis": images}, keras.layers.Flatten()(images))
    found = model.predict(fed, verbose=0)
    read = [wanted.read(number)[0]["vis"] for number in range(2)]
    assert np.array_equal(found, np.concatenate(read).reshape(6, -1))


def test_an_object_that_is_not_there_is_named():
    source = MemoryPack(12)
    arrays = device_arrays.put(source, np.array([3, 5, 7]), inputs=["vis"])
    with pytest.raises(ValueError, match="object_id 200028 is not on the device.* the 3 that"):
        arrays.batch("vis", np.array([3, 4, 5]))


def test_what_is_put_there_is_looked_at_first():
    source = MemoryPack(5)
    for positions in ([0, 0], [5], [-1]):
        with pytest.raises(ValueError, match="positions"):
            device_arrays.put(source, np.array(positions), inputs=["vis"])


def test_a_full_device_says_how_much_was_needed(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    monkeypatch.setattr(device_arrays.ops, "convert_to_tensor", refuse)
    with pytest.raises(device_arrays.DeviceFullError, match="vis: .* 8 objects, 0.0 GiB of float"):
        device_arrays.put(MemoryPack(8), np.arange(8), inputs=["vis"])


def test_batches_come_from_the_device_only_if_there_is_one_with_room(monkeypatch, capsys):
    source, rows = MemoryPack(8), np.arange(1, 7)
    monkeypatch.setattr(device_arrays, "has_accelerator", lambda: False)
    assert device_arrays.on_accelerator(source, rows, inputs=["vis"]) is source
    monkeypatch.setattr(device_arrays, "has_accelerator", lambda: True)
    found = device_arrays.on_accelerator(source, rows, inputs=["vis"])
    assert np.array_equal(numbers(found.batch("vis", rows)), source.batch("vis", rows))

    def full(*_, **__):
        raise device_arrays.DeviceFullError("vis: the device has no room for 6 objects")

    monkeypatch.setattr(device_arrays, "put", full)
    assert device_arrays.on_accelerator(source, rows, inputs=["vis"]) is source
    assert "no room for 6 objects" in capsys.readouterr().err


def test_another_failure_is_not_taken_for_a_full_device(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the device vanished")

    monkeypatch.setattr(device_arrays.ops, "convert_to_tensor", fail)
    with pytest.raises(RuntimeError, match="vanished"):
        device_arrays.put(MemoryPack(8), np.arange(8), inputs=["vis"])
