"""Run in .venv-paper: what the papers' own libraries give on fixed inputs, written as one .npz.

The weights of networks lie beside it, in the files that Keras 2 writes.
"""

import sys
from pathlib import Path

import cases
import efficientnet.tfkeras as efn
import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def focal():
    """Return inputs and outputs of tensorflow-addons' focal loss."""
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(np.float32)
    logits = (4 * rng.standard_normal(500)).astype(np.float32)
    out = {"labels": labels, "logits": logits}
    for alpha in (0.25, 0.75):
        loss = tfa.losses.SigmoidFocalCrossEntropy(
            from_logits=True, alpha=alpha, gamma=2.0, reduction=tf.keras.losses.Reduction.NONE
        )
        watched = tf.constant(logits[:, None])
        with tf.GradientTape() as tape:
            tape.watch(watched)
            value = loss(labels[:, None], watched)
        out[f"focal_{alpha}"] = value.numpy()
        out[f"focal_gradient_{alpha}"] = tape.gradient(value, watched).numpy()[:, 0]
    return out


def radam():
    """Return weights after some steps of tensorflow-addons' RectifiedAdam."""
    start, gradients = cases.weights_and_gradients()
    out = {}
    for dtype in ("float32", "float64"):
        for name, settings in cases.RADAM.items():
            optimizer = tfa.optimizers.RectifiedAdam(**settings)
            weights = tf.Variable(start, dtype=dtype)
            after = []
            for gradient in tf.constant(gradients, dtype):
                optimizer.apply_gradients([(gradient, weights)])
                after.append(weights.numpy())
            out[f"radam_{name}_{dtype}"] = np.array([after[n - 1] for n in cases.SHOWN])
    return out


def build(variant, size=None):
    """Return a network without a top."""
    make = getattr(efn, f"EfficientNet{variant.upper()}")
    return make(include_top=False, weights=None, input_shape=(size, size, 3))


def trunk(variant, seed):
    """Return a network of random weights whose batch statistics keep its maps in range."""
    tf.keras.utils.set_random_seed(seed)
    model = build(variant)
    rng = np.random.default_rng(seed)
    norms = [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.7, 1.3, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.2, norm.beta.shape))
    for momentum, size in zip((0, 1 / 2, 2 / 3), cases.SIZES):  # the mean of the three
        for norm in norms:
            norm.momentum = momentum
        model(cases.images(size, 8), training=True)
    for norm in norms:
        norm.momentum = 0.99
    return model


def networks(folder):
    """Return maps of features of every variant, and write its weights."""
    out = {}
    for variant in cases.VARIANTS:
        model = trunk(variant, 1)
        model.save_weights(folder / f"originals-{variant}.h5")
        tf.keras.backend.set_floatx("float64")
        exact = build(variant)
        exact.load_weights(folder / f"originals-{variant}.h5")
        tf.keras.backend.set_floatx("float32")
        for size in cases.SIZES:
            images = cases.images(size)
            out[f"{variant}_{size}_float32"] = model(images, training=False).numpy()
            out[f"{variant}_{size}_float64"] = exact(images, training=False).numpy()
        drops = [layer.rate for layer in model.layers if "drop" in layer.name]
        out[f"{variant}_drops"] = np.array(drops)
    return out


def two_branches(folder):
    """Return scores of the network of Bom et al. (2022), and what a step of training makes of it.

    Without drop-connect, the draws of which are not those of another library.
    """
    images = {name: cases.images(size, 4) for name, size in cases.BRANCHES.items()}
    inputs, features, trunks = {}, [], {}
    for seed, (name, size) in enumerate(cases.BRANCHES.items()):
        trunks[name] = trunk("b2", seed + 2)
        trunks[name]._name = name
        trunks[name].save_weights(folder / f"originals-{name}.h5")
        inputs[name] = tf.keras.Input((size, size, 3), name=f"{name}_image")
        features.append(tf.keras.layers.GlobalAveragePooling2D()(trunks[name](inputs[name])))
        for layer in trunks[name].layers:
            if "drop" in layer.name:
                layer.rate = 0.0
    head = tf.keras.layers.Dense(2, activation="softmax")
    model = tf.keras.Model(list(inputs.values()), head(tf.keras.layers.Concatenate()(features)))
    out = {"head_kernel": head.kernel.numpy(), "head_bias": head.bias.numpy()}
    images = list(images.values())
    out["scores"] = model(images, training=False).numpy()
    model.compile(tfa.optimizers.RectifiedAdam(cases.RATE), "binary_crossentropy", run_eagerly=True)
    out["loss"] = model.train_on_batch(images, cases.labels(4))
    for name, branch in trunks.items():
        for layer in branch.layers:
            for k, array in enumerate(layer.get_weights()):
                out[f"after_{name}_{layer.name}_{k}"] = array
    out |= {f"after_head__{k}": array for k, array in enumerate(head.get_weights())}
    return out


def published(used):
    """Return networks as the authors published theirs: two branches, other order, one branch.

    Their notebooks load a folder, and TensorFlow's warnings there name layers such as
    block6a_se_reduce_hjy: one flat network, every name with its branch.

    Args:
        used: How many of them.
    """
    inputs, features, models = {}, [], []
    for name, size in cases.BRANCHES.items():
        branch = build("b2", size)
        for layer in branch.layers:
            is_input = isinstance(layer, tf.keras.layers.InputLayer)
            layer._name = name if is_input else f"{layer.name}_{name}"
        inputs[name] = branch.input
        features.append(tf.keras.layers.GlobalAveragePooling2D()(branch.output))
    joined = [tf.keras.layers.Concatenate()(parts) for parts in (features, features[::-1])]
    for name, part in zip(cases.SAVED_MODELS[:used], [*joined, features[0]]):
        small = tf.keras.initializers.RandomNormal(stddev=0.003, seed=1)  # scores not 0 and 1
        head = tf.keras.layers.Dense(2, activation="softmax", kernel_initializer=small)
        ends = list(inputs.values())[: 1 if name == "one_branch" else 2]
        models.append(tf.keras.Model(ends, head(part)))
    return models


def saved_models(folder):
    """Return scores of such a network after a step of training; write it, and the two others."""
    images = list(cases.branch_images().values())
    models = published(3)
    for name in cases.BRANCHES:
        source = build("b2")
        source.load_weights(folder / f"originals-{name}.h5")
        for layer in source.layers[1:]:
            models[0].get_layer(f"{layer.name}_{name}").set_weights(layer.get_weights())
    for name, model in zip(cases.SAVED_MODELS, models):
        optimizer = tfa.optimizers.RectifiedAdam(1e-5)
        model.compile(optimizer, "binary_crossentropy", metrics=["acc"])
        if model is models[0]:
            model.train_on_batch(images, cases.labels(4))
        model.save(folder / "saved_models" / name, save_format="tf")
    tf.keras.backend.set_floatx("float64")
    (exact,) = published(1)
    exact.set_weights(models[0].get_weights())
    tf.keras.backend.set_floatx("float32")
    bits = {32: models[0], 64: exact}
    return {f"saved_model_{n}": m(images, training=False).numpy() for n, m in bits.items()}


def main(path):
    """Write everything."""
    folder = Path(path).parent
    out = {**focal(), **radam(), **networks(folder), **two_branches(folder)}
    out |= saved_models(folder)
    np.savez(path, **out)
    print(f"tensorflow {tf.__version__}, tensorflow-addons {tfa.__version__}: wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1])
