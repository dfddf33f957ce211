"""The four-block network of Aryal (2025): ours beside the papers' libraries, and its input.

Images of 64x64x3 in float32, batches of 32 and 64, training and predicting, in turns of a process
each, in one run; the papers' libraries need an environment of their own: `make
.venv-paper/installed`. Images are noise: the speed does not depend on them. Bars: at least as fast,
batches of 32 within 15 % of those of 64, input under 3 % of the processor time of a step.

This file is also what each process runs: with one library it must not import the other.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCHES, TURNS, ROUNDS = (32, 64), 7, 2
SIDE, FULL_SIDE, OBJECTS = 64, 150, 2048  # enough for the start of an epoch not to count
PAPER_PYTHON = Path(".venv-paper/bin/python")


def papers_network():
    """Build and compile the network with Keras 2, as its own documentation would."""
    import tensorflow as tf

    layers, model = tf.keras.layers, tf.keras.Sequential()
    model.add(layers.InputLayer((SIDE, SIDE, 3)))
    for filters in (32, 64, 128, 256):
        model.add(layers.Conv2D(filters, 3, padding="same"))
        model.add(layers.BatchNormalization(epsilon=1.001e-5, momentum=0.9))
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(0.5))
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(3))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(1e-3), loss)
    return model, tf.constant


def our_network():
    """Build and compile the network as the paper's module does."""
    import keras
    import pandas as pd

    from reproductions.deeplense import network
    from reproductions.deeplense.settings import Config

    config = Config()
    model = network.build_model(config, 3, seed=0)
    network.set_constants(model, pd.DataFrame({"mean": [0.5] * 3, "std": [0.3] * 3}))
    model.compile(network.make_optimizer(config), network.cross_entropy(None), jit_compile=False)
    return model, keras.ops.convert_to_tensor


def measure(library, batch, turns):
    """Return objects a second of every turn, {"training": [...], "predicting": [...]}."""
    model, tensor = {"ours": our_network, "papers": papers_network}[library]()
    rng, found = np.random.default_rng(0), {"training": [], "predicting": []}
    images = tensor(rng.random((batch, SIDE, SIDE, 3), np.float32))
    images = {"image": images} if library == "ours" else images
    labels = tensor(rng.integers(0, 3, (batch, 1)).astype(np.float32))
    steps = {
        "training": lambda: model.train_on_batch(images, labels),
        "predicting": lambda: model.predict_on_batch(images),
    }
    for what, step in steps.items():
        for turn in range(turns + 2):
            start = time.perf_counter()
            for _ in range(4):
                step()
            if turn > 1:  # the first two pay for tracing and for memory
                found[what].append(4 * batch / (time.perf_counter() - start))
    return found


def in_a_process(library, batch, turns):
    """Run this file with one library; return what it prints."""
    python = {"ours": sys.executable, "papers": PAPER_PYTHON.absolute()}[library]
    start = "-m", "tests.benchmarks.bench_cnn"
    command = [python, *(start if library == "ours" else [__file__]), library, str(batch),
               str(turns)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{library}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(turns=TURNS, rounds=ROUNDS):
    """Measure all; return rows of name, value (the median), low, high and unit."""
    libraries = ("ours", "papers") if PAPER_PYTHON.exists() else ("ours",)
    if len(libraries) == 1:
        print("the papers' libraries are not here: make .venv-paper/installed", file=sys.stderr)
    each = [
        {(lib, batch): in_a_process(lib, batch, turns) for batch in BATCHES for lib in libraries}
        for _ in range(rounds)
    ]
    found = []

    def medians(key, what):
        return np.array([statistics.median(turn[key][what]) for turn in each])

    for what in ("training", "predicting"):
        for batch in BATCHES:
            for lib in libraries:
                values = [value for turn in each for value in turn[lib, batch][what]]
                name = f"cnn_{what}_batch_{batch}_{lib}"
                found.append(row(name, values, "objects a second"))
            if len(libraries) > 1:
                ratio = medians(("ours", batch), what) / medians(("papers", batch), what)
                found.append(row(f"cnn_{what}_batch_{batch}_ours_over_papers", ratio, "ratio"))
    ratio = medians(("ours", 32), "training") / medians(("ours", 64), "training")
    return [*found, row("cnn_training_batch_32_over_64", ratio, "ratio"), *input_rows(turns)]


def input_rows(turns):
    """Measure the processor time of a batch's images against that of a training step."""
    import pandas as pd

    from cast_lens import dataset, pack
    from reproductions.deeplense.data import Resized

    found, (model, tensor) = [], our_network()
    noise, labels = np.random.default_rng(0), tensor(np.zeros((32, 1), np.float32))
    images = {"image": tensor(noise.random((32, SIDE, SIDE, 3), np.float32))}
    for side, bands in ((SIDE, 3), (FULL_SIDE, 1)):
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{k}.npy" for k in range(OBJECTS)]
            for path in paths:
                np.save(path, noise.random((bands, side, side), np.float32))
            table = pd.DataFrame({"object_id": [str(k) for k in range(OBJECTS)], "path": paths})
            table["label"] = np.arange(OBJECTS) % 3
            names = {"image": tuple(f"band_{n}" for n in range(bands))}
            packed = pack.build(f"{folder}/pack", table, names, mask_value=None, dtype="float32",
                                channels="first", progress=False)  # fmt: skip
            batches = dataset.from_pack(
                Resized(packed, SIDE), np.arange(OBJECTS), inputs=["image"], batch_size=32,
                seed=0, fold=0, shuffle=True,
            )  # fmt: skip
            shares = []
            for turn in range(turns + 1):
                start = time.process_time()
                for _ in range(8):
                    model.train_on_batch(images, labels)
                trained = (time.process_time() - start) / 8
                start = time.process_time()
                for _ in dataset.as_tf_data(batches, first_epoch=turn, repeat=False):
                    pass
                if turn:
                    shares.append(100 * (time.process_time() - start) / batches.steps / trained)
            unit = "% of processor time"
            found.append(row(f"cnn_input_{side}x{side}x{bands}_in_training", shares, unit))
    return found


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    values = [float(value) for value in values]
    middle, low, high = statistics.median(values), min(values), max(values)
    return {"name": name, "value": middle, "low": low, "high": high, "unit": unit}


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    else:
        from tests.benchmarks.__main__ import shown

        print(shown(rows()))
