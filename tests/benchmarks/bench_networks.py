"""Objects a second in training: our batch normalization against that of Keras, in one run.

The networks are EfficientNet-B0 of images of 101x101x3 and the one of Bom et al. (2022), two B2 of
200x200x3 and 66x66x3, with RAdam, in float32 and never by XLA, which slows a CPU down tenfold. The
two kinds of a network take turns. Images are noise: the speed does not depend on them.
"""

import argparse
import statistics
import time

import keras
import numpy as np

from cast_lens import backbones, layers, optimizers

TURNS = 5
BATCHES = {"b0": 64, "two_branch_b2": 16}  # 64 of the latter take 11 GB
NETWORKS = {
    "b0": ("b0", {"ground": (101, 101, 3)}),
    "two_branch_b2": ("b2", {"vis": (200, 200, 3), "hjy": (66, 66, 3)}),
}
KINDS = {"fused": layers.BatchNormalization, "keras": keras.layers.BatchNormalization}


def network(name, batch_normalization):
    """Build and compile a network that ends in a softmax of two."""
    variant, shapes = NETWORKS[name]
    inputs = {branch: keras.Input(shape, name=branch) for branch, shape in shapes.items()}
    features = [
        keras.layers.GlobalAveragePooling2D()(
            backbones.efficient_net(
                variant,
                name=f"{branch}_trunk",
                shape=shapes[branch],
                weights=None,
                batch_normalization=batch_normalization,
            )(images)
        )
        for branch, images in inputs.items()
    ]
    joined = features[0] if len(features) == 1 else keras.layers.Concatenate()(features)
    built = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(joined))
    built.compile(optimizers.RAdam(), "categorical_crossentropy", jit_compile=False)
    return built


def examples(name, batch):
    """Return a batch of noise and labels, as tensors."""
    rng = np.random.default_rng(0)
    shapes = NETWORKS[name][1]
    images = {branch: rng.random((batch, *shape), np.float32) for branch, shape in shapes.items()}
    labels = np.eye(2, dtype=np.float32)[rng.integers(0, 2, batch)]
    return keras.tree.map_structure(keras.ops.convert_to_tensor, (images, labels))


def rates(functions, batch, turns):
    """Run functions in turn; return the objects a second of every turn of each."""
    found = {name: [] for name in functions}
    for turn in range(turns + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn > 1:  # the first two pay for tracing and for memory
                found[name].append(batch / (time.perf_counter() - start))
    return found


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return {"name": name, "value": middle, "low": low, "high": high, "unit": unit}


def rows(batches=None, turns=TURNS):
    """Measure every network of `batches`; return rows with name, value (the median), low, high."""
    found = []
    for name, batch in (batches or BATCHES).items():
        images, labels = examples(name, batch)
        models = {kind: network(name, layer) for kind, layer in KINDS.items()}
        steps = {
            kind: lambda model=model: model.train_on_batch(images, labels)  # noqa: B023
            for kind, model in models.items()
        }
        speeds = rates(steps, batch, turns)
        name = f"{name}_batch_{batch}"
        found += [row(f"{name}_{kind}", speeds[kind], "objects a second") for kind in KINDS]
        ratios = [a / b for a, b in zip(speeds["fused"], speeds["keras"], strict=True)]
        found.append(row(f"{name}_fused_over_keras", ratios, "ratio of speeds"))
    return found


def main():
    """Print the rows of the networks and batches that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, help="objects in a batch, of every network")
    options = parser.parse_args()
    batches = {name: options.batch or BATCHES[name] for name in options.networks}
    for each in rows(batches):
        numbers = "".join(f"{each[key]:>12.4g}" for key in ("low", "value", "high"))
        print(f"{each['name']:<36}{numbers} {each['unit']}")


if __name__ == "__main__":
    main()
