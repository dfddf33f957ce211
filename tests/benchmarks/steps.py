"""Train and predict one network in a process of its own, with our libraries or the papers'.

`python steps.py ours|papers NETWORK BATCH TURNS` prints JSON: objects a second of every turn in
training and in prediction, and the peak memory in GiB. It imports nothing of this repository but,
for "ours", the library: the papers' environment has neither.
"""

import json
import resource
import sys
import time

import numpy as np

NETWORKS = {
    "b0": ("b0", {"ground": (101, 101, 3)}),
    "two_branch_b2": ("b2", {"vis": (200, 200, 3), "hjy": (66, 66, 3)}),
}


def ours(variant, shapes):
    """Build a network of this package."""
    import keras

    from cast_lens import backbones, layers, optimizers

    def trunk(name, shape):
        return backbones.efficient_net(
            variant, name=name, shape=shape, weights=None,
            batch_normalization=layers.BatchNormalization,
        )  # fmt: skip

    model = joined(keras, trunk, shapes)
    model.compile(optimizers.RAdam(), "categorical_crossentropy", jit_compile=False)
    return model


def papers(variant, shapes):
    """Build the same with tensorflow-addons and efficientnet, on Keras 2."""
    import efficientnet.tfkeras as efn
    import tensorflow as tf
    import tensorflow_addons as tfa

    def trunk(name, shape):
        make = getattr(efn, f"EfficientNet{variant.upper()}")
        model = make(include_top=False, weights=None, input_shape=shape)
        model._name = name
        return model

    model = joined(tf.keras, trunk, shapes)
    model.compile(tfa.optimizers.RectifiedAdam(), "categorical_crossentropy")
    return model


def joined(keras, trunk, shapes):
    """Join trunks by a softmax of two."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    features = [
        keras.layers.GlobalAveragePooling2D()(trunk(f"{name}_trunk", shapes[name])(images))
        for name, images in inputs.items()
    ]
    x = features[0] if len(features) == 1 else keras.layers.Concatenate()(features)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def main(library, network, batch, turns):
    """Measure, and print what was found."""
    variant, shapes = NETWORKS[network]
    model = {"ours": ours, "papers": papers}[library](variant, shapes)
    rng = np.random.default_rng(0)
    images = {name: rng.random((batch, *shape), np.float32) for name, shape in shapes.items()}
    labels = np.eye(2, dtype=np.float32)[rng.integers(0, 2, batch)]
    steps = {
        "predicting": lambda: model.predict_on_batch(images),
        "training": lambda: model.train_on_batch(images, labels),
    }
    found = {}
    for name, step in steps.items():
        found[name] = []
        for turn in range(turns + 2):
            start = time.perf_counter()
            step()
            if turn > 1:  # the first two pay for tracing and for memory
                found[name].append(batch / (time.perf_counter() - start))
    found["peak"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
