"""What feeds the network, and whether the network notices (bar 3).

Run by hand: python -m tests.benchmarks.bench_dataset. Three questions, each answered by ways that
run in turn, in one process, from the page cache.

Which way reads FITS files quickest into tf.data? One call of Python a batch (ours), the same as
PyDataset, TensorFlow alone with the offset of the pixels known beforehand, a call of Python a file.
TensorFlow alone looks at no header, and so takes any file for good, and at no mask.

How many two-branch objects a second come from a pack? All its objects in a new order each epoch.

What does the tuner of tf.data cost, which `dataset` switches off? Whoever drops an iterator waits
until it wakes, and it sleeps ever longer: most fits of a network took nearly twice their steps.

What does a two-branch EfficientNet-B2 notice? Bar: the pack delivers at least 20 times what it
consumes in training, and input takes less than 3 % of the processor time of training: time of the
processor, for what other programs take must not count.
"""

import gc
import tempfile
import time
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cast_lens import cutouts, dataset, pack, surveys
from tests.benchmarks import bench_fits, bench_pack

BATCH, OBJECTS, REPEATS = 64, 1024, 9
TRAINED, STEPS, TURNS = 16, 3, 5  # objects a step: 64 of them take 11 GB
FIT_STEPS = 60  # of the small network
SHAPES = {"vis": (200, 200, 1), "nir": (66, 66, 3)}
OFFSET = 2880  # bytes of the header of the files that bench_fits writes
ONE_EPOCH = {"first_epoch": 0, "repeat": False}


def packed(folder):
    """Write a survey of noise in the layout of the II SGLC to a folder and pack it."""
    bench_pack.write_survey(folder, OBJECTS)
    table, _ = cutouts.find_cutouts(folder)
    table["label"] = np.arange(OBJECTS) % 2
    return pack.build(
        f"{folder}/pack", table, surveys.SURVEYS["sglc2"].inputs, mask_value=None, dtype="float32",
        progress=False,
    )  # fmt: skip


def batches_of(source, size=BATCH):
    """Return shuffled batches of all objects of a pack or of a table of files."""
    options = {"batch_size": size, "seed": 0, "fold": 0, "shuffle": True}
    positions = np.arange(len(getattr(source, "catalog", source)))
    if isinstance(source, pd.DataFrame):
        inputs = {"vis": ["path"]}
        return dataset.from_catalog(source, positions, inputs=inputs, mask_value=100, **options)
    return dataset.from_pack(source, positions, inputs=list(SHAPES), **options)


def decoded_by_tensorflow(paths, size):
    """Return a tf.data.Dataset that reads and decodes files without Python."""

    def load(path):
        data = tf.strings.substr(tf.io.read_file(path), OFFSET, 4 * size * size)
        return tf.reshape(tf.io.decode_raw(data, tf.float32, little_endian=False), (size, size, 1))

    data = tf.data.Dataset.from_tensor_slices(paths).map(load, tf.data.AUTOTUNE)
    return data.batch(BATCH).prefetch(2)


def one_call_a_file(table, size):
    """Return a tf.data.Dataset that calls Python for every file."""
    alone = batches_of(table, size=1)

    def load(number):
        image = tf.numpy_function(lambda n: alone.read(int(n))[0]["vis"][0], [number], tf.float32)
        return tf.ensure_shape(image, (size, size, 1))

    return tf.data.Dataset.range(len(table)).map(load, tf.data.AUTOTUNE).batch(BATCH).prefetch(2)


def rates(ways, n, repeats=REPEATS):
    """Return {name: units a second, one for each repeat}; a way is a function of no argument.

    Args:
        ways: {name: function that returns what to iterate over}.
        n: Units in one iteration.
        repeats: Times that all ways run in turn, after once without being counted.
    """
    found, names = {name: [] for name in ways}, list(ways)
    for repeat in range(-1, repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            batches = ways[name]()
            start = time.perf_counter()
            for _ in batches:
                pass
            if repeat >= 0:
                found[name].append(n / (time.perf_counter() - start))
    return {name: np.array(values) for name, values in found.items()}


def fits_rows(size):
    """Measure the ways to read FITS files of one size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = bench_fits.write_files(folder, size)
        table = pd.DataFrame({"object_id": map(str, range(len(paths))), "path": paths})
        batches, by_tensorflow = batches_of(table), decoded_by_tensorflow(paths, size)
        images = next(iter(by_tensorflow)).numpy()  # (batch, height, width, band)
        assert np.array_equal(batches.source.batch("vis", np.arange(BATCH)), images)
        ways = {
            "tf_data": lambda: dataset.as_tf_data(batches, **ONE_EPOCH),
            "py_dataset": lambda: dataset.as_py_dataset(batches, **ONE_EPOCH),
            "tensorflow_alone": lambda: by_tensorflow,
            "call_a_file": lambda: one_call_a_file(table, size),
        }
        found = rates(ways, len(paths))
    rows = [bench_fits.row(f"fits_{size}_{name}", v, "files/s") for name, v in found.items()]
    for other in ("tensorflow_alone", "call_a_file"):
        ratio = found["tf_data"] / found[other]
        rows.append(bench_fits.row(f"fits_{size}_tf_data_over_{other}", ratio, "times as fast"))
    return rows


def tuner_rows():
    """Measure fits that begin and end, with the tuner of tf.data and without."""
    images = keras.Input((101, 101, 1), name="vis")
    x = keras.layers.Conv2D(16, 5)(keras.layers.Conv2D(16, 5)(images))
    model = keras.Model({"vis": images}, keras.layers.GlobalAveragePooling2D()(x))
    model.compile("adam", "mse", jit_compile=False)
    batch = {"vis": np.zeros((32, 101, 101, 1), np.float32)}, np.zeros((32, 16), np.float32)
    batches = SimpleNamespace(steps=FIT_STEPS, read=lambda number: batch)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(-1, TURNS):
        for is_tuned in seconds if turn % 2 else (False, True):
            options = tf.data.Options()
            options.autotune.enabled = is_tuned
            data = dataset.as_tf_data(batches, **ONE_EPOCH).with_options(options)
            start = time.perf_counter()
            model.fit(data, shuffle=False, verbose=0)
            if turn >= 0:
                seconds[is_tuned].append(time.perf_counter() - start)
    ratio = np.array(seconds[True]) / np.array(seconds[False])
    return [bench_fits.row("fit_with_tuner_over_without", ratio, "times as long")]


def network():
    """Build and compile a two-branch EfficientNet-B2."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in SHAPES.items()}
    branches = []
    for name, images in inputs.items():
        trunk = keras.applications.EfficientNetB2(
            include_top=False, weights=None, input_shape=(*SHAPES[name][:2], 3), pooling="avg",
            name=f"b2_{name}",
        )  # fmt: skip
        branches.append(trunk(images if images.shape[-1] == 3 else keras.ops.repeat(images, 3, -1)))
    score = keras.layers.Dense(1, "sigmoid")(keras.layers.Concatenate()(branches))
    model = keras.Model(inputs, score)
    model.compile("adam", "binary_crossentropy", jit_compile=False)
    return model


def network_rows(survey, delivered):
    """Measure what the network consumes, and the share of input in it.

    Args:
        survey: The Pack.
        delivered: Objects a second that tf.data delivers, one for each repeat.
    """
    model, batches = network(), batches_of(survey, size=TRAINED)
    fit = {"steps_per_epoch": STEPS, "epochs": 1, "verbose": 0, "shuffle": False}
    consumed, shares = [], []
    for turn in range(-1, TURNS):
        data = dataset.as_tf_data(batches, first_epoch=turn + 1, repeat=True)
        start, processor = time.perf_counter(), time.process_time()
        model.fit(data, **fit)
        seconds, trained = time.perf_counter() - start, time.process_time() - processor
        processor = time.process_time()
        for _ in dataset.as_tf_data(batches, **ONE_EPOCH):
            pass
        read = (time.process_time() - processor) / batches.steps
        if turn >= 0:  # the first traces the network
            consumed.append(STEPS * TRAINED / seconds)
            shares.append(100 * read / (trained / STEPS))
        gc.collect()
    ratio = np.median(delivered) / np.array(consumed)
    return [
        bench_fits.row("two_branch_b2_training", consumed, "objects/s"),
        bench_fits.row("pack_tf_data_over_training", ratio, "times as fast"),
        bench_fits.row("input_in_training", shares, "% of processor time"),
    ]


def rows(with_network=True):
    """Measure all; return rows of numbers.

    Args:
        with_network: Whether to train, which takes some minutes.
    """
    found = [row for size in bench_fits.SIZES for row in fits_rows(size)]
    with tempfile.TemporaryDirectory() as folder:
        survey = packed(folder)
        batches = batches_of(survey)
        ways = {
            "read": lambda: map(batches.read, range(batches.steps)),
            "tf_data": lambda: dataset.as_tf_data(batches, **ONE_EPOCH),
            "py_dataset": lambda: dataset.as_py_dataset(batches, **ONE_EPOCH),
        }
        delivered = rates(ways, OBJECTS)
        found += [bench_fits.row(f"pack_{name}", v, "objects/s") for name, v in delivered.items()]
        if with_network:
            found += network_rows(survey, delivered["tf_data"]) + tuner_rows()
    return found


if __name__ == "__main__":
    from tests.benchmarks.__main__ import shown

    print(shown(rows()))
