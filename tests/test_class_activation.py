"""Class activation against loops over cells, the network's own log odds, and real gradients."""

import keras
import numpy as np
import pytest

from cast_lens import class_activation, explain

LAYERS = {"vis": "last_vis", "nir": "last_nir"}
SHAPES = {"vis": (12, 12, 1), "nir": (8, 8, 3)}


def images(n=4, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=(n, *shape)).astype(np.float32) for k, shape in SHAPES.items()}


def trunk(name, features):
    """A network within the network, as EfficientNet is."""
    inner = keras.Input((None, None, SHAPES[name][-1]))
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu")(inner)
    x = keras.layers.Conv2D(features, 2, activation="relu")(x)
    return keras.Model(inner, x, name=f"last_{name}")


def network(units=2, *, names=("vis", "nir"), use_bias=True, separate=False, dropout=0.3):
    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input(SHAPES[name], name=name) for name in names}
    pooled = []
    for place, (name, x) in enumerate(inputs.items()):
        x = trunk(name, 4 + 3 * place)(x)
        pooled.append(keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(x)))
    x = keras.layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    ending = {1: "sigmoid", 2: "softmax"}[units]
    dense = keras.layers.Dense(
        units, None if separate else ending, use_bias=use_bias, bias_initializer="glorot_normal",
        name="lens",
    )  # fmt: skip
    x = dense(keras.layers.Dropout(dropout)(x))
    return keras.Model(inputs, keras.layers.Activation(ending)(x) if separate else x)


def log_odds(model, batch):
    score = explain.lens_scores(model)(batch).astype(float)
    return np.log(score / (1 - score))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"units": 1},
        {"units": 1, "separate": True},
        {"separate": True, "use_bias": False},
        {"names": ("nir",)},
        {"names": ("nir", "vis"), "dropout": 0},
    ],
)
def test_cells_and_bias_add_up_to_the_log_odds_of_the_score(settings):
    model, batch = network(**settings), images()
    batch = {name: batch[name] for name in model.input}
    layers = {name: LAYERS[name] for name in batch}
    expected = log_odds(model, batch)
    assert np.ptp(expected) > 0.01
    for label, sign in ((1, 1), (0, -1)):
        maps, bias = class_activation.class_activation(model, batch, layers, label=label)
        assert {k: m.shape for k, m in maps.items()} == {
            k: (4, s, s) for k, s in {"vis": 4, "nir": 2}.items() if k in batch
        }
        found = bias + sum(m.sum(axis=(1, 2)) for m in maps.values())
        np.testing.assert_allclose(found, sign * expected, atol=2e-6)


def test_map_is_weights_times_features_by_loops():
    model, batch = network(), images(n=2)
    kernel, _ = model.get_layer("lens").get_weights()
    maps, _ = class_activation.class_activation(model, batch, LAYERS)
    for name, first, n in (("vis", 0, 4), ("nir", 4, 7)):
        features = model.get_layer(LAYERS[name]).predict_on_batch(batch[name])
        cells = features.shape[1] * features.shape[2]
        for place in np.ndindex(features.shape[:3]):
            expected = 0.0
            for k in range(n):
                weight = kernel[first + k, 1] - kernel[first + k, 0]
                expected += float(weight) * float(features[place][k]) / cells
            assert maps[name][place] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("units", "label"), [(1, 1), (1, 0), (2, 1), (2, 0)])
def test_grad_cam_is_that_of_real_gradients(units, label):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes gradients by TensorFlow's tape")
    import tensorflow as tf

    model, batch = network(units), images()
    kernel, bias = (tf.constant(values) for values in model.get_layer("lens").get_weights())
    features = {k: model.get_layer(layer)(batch[k]) for k, layer in LAYERS.items()}
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = tf.concat([tf.reduce_mean(features[k], (1, 2)) for k in ("vis", "nir")], -1)
        logits = pooled @ kernel + bias
        odds = logits[:, 0] if units == 1 else logits[:, 1] - logits[:, 0]
        odds = odds if label else -odds
    gradients = tape.gradient(odds, features)
    found = class_activation.grad_cam(model, batch, LAYERS, label=label)
    assert max(m.max() for m in found.values()) > 0
    for name in LAYERS:
        alpha = gradients[name].numpy().mean(axis=(1, 2), keepdims=True)  # Selvaraju Eq. 1
        expected = np.maximum((alpha * features[name].numpy()).sum(axis=-1), 0)  # Eq. 2
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_network_that_weighs_visible_features_alone_shows_nothing_in_the_infrared():
    model = network()
    kernel, bias = model.get_layer("lens").get_weights()
    kernel[4:] = 0
    model.get_layer("lens").set_weights([kernel, bias])
    maps, _ = class_activation.class_activation(model, images(), LAYERS)
    assert (maps["nir"] == 0).all()
    assert (maps["vis"] != 0).any()


def test_what_changes_no_score_changes_no_map():
    """A vector added to the weights of both classes."""
    model, batch = network(), images()
    maps, _ = class_activation.class_activation(model, batch, LAYERS)
    before = log_odds(model, batch)
    kernel, bias = model.get_layer("lens").get_weights()
    model.get_layer("lens").set_weights([kernel + np.arange(11)[:, None], bias - 3])
    after, _ = class_activation.class_activation(model, batch, LAYERS)
    np.testing.assert_allclose(log_odds(model, batch), before, atol=1e-4)
    for name in LAYERS:
        np.testing.assert_allclose(after[name], maps[name], atol=1e-5)


def test_network_used_a_second_time_is_explained_as_it_is():
    model, batch = network(), images()
    expected, _ = class_activation.class_activation(model, batch, LAYERS)
    again = {name: keras.Input(shape, name=name) for name, shape in SHAPES.items()}
    turned = {name: keras.layers.Rescaling(-1.0)(x) for name, x in again.items()}
    keras.Model(again, model(turned))
    found, _ = class_activation.class_activation(model, batch, LAYERS)
    assert found["vis"].tolist() == expected["vis"].tolist()


def convolved():
    start = keras.Input((8, 8, 3), name="nir")
    return start, keras.layers.Conv2D(4, 3, name="last")(start)


def refused(model, layers, match, **changes):
    with pytest.raises(ValueError, match=match):
        class_activation.grad_cam(model, {"nir": images()["nir"]}, layers, **changes)


def test_network_without_global_average_pooling_is_refused():
    start, x = convolved()
    for pool in (keras.layers.Flatten, keras.layers.GlobalMaxPooling2D):
        layer = pool(name="pool")
        model = keras.Model(start, keras.layers.Dense(1, "sigmoid")(layer(x)))
        refused(model, {"nir": "last"}, f"pool, {pool.__name__}, is between")


def test_hidden_dense_layer_is_refused():
    start, x = convolved()
    hidden = keras.layers.Dense(3, "relu", name="hidden")
    x = hidden(keras.layers.GlobalAveragePooling2D()(x))
    refused(
        keras.Model(start, keras.layers.Dense(1, "sigmoid")(x)), {}, "hidden, Dense, is between"
    )


@pytest.mark.parametrize("ending", [(1, None), (2, "sigmoid"), (3, "softmax"), (1, "softmax")])
def test_other_endings_are_refused(ending):
    start, x = convolved()
    x = keras.layers.Dense(*ending, name="end")(keras.layers.GlobalAveragePooling2D()(x))
    refused(keras.Model(start, x), {}, "the last layer is end, Dense, expected one Dense")


def test_names_of_other_layers_are_refused_with_the_right_ones():
    start, x = convolved()
    x = keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
    for layers in ({}, {"nir": "lost"}, {"nir": "last", "vis": "last"}):
        refused(keras.Model(start, x), layers, r"output is pooled, \['last'\]")
    refused(keras.Model(start, x), {"nir": "last"}, "label is 2", label=2)


def test_one_trunk_for_both_branches_is_refused():
    inputs = {name: keras.Input((8, 8, 3), name=name) for name in ("a", "b")}
    shared = keras.layers.Conv2D(4, 3, name="shared")
    pooled = [keras.layers.GlobalAveragePooling2D()(shared(x)) for x in inputs.values()]
    x = keras.layers.Dense(1, "sigmoid")(keras.layers.Concatenate()(pooled))
    refused(keras.Model(inputs, x), {"a": "shared", "b": "shared"}, "all different")


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["hjy_vis_repeated", "hjy"])
def test_network_of_the_second_challenge_is_explained(inputs):
    from dataclasses import replace

    from reproductions.sglc2.network import build_model
    from reproductions.sglc2.settings import INPUTS, config_of

    cell = f"{inputs}.alternative"
    config = replace(config_of(cell, {}), backbone="b0", initial="random")
    model = build_model(config, seed=0)
    rng = np.random.default_rng(0)
    shapes = {"vis": (200, 200, 1), "nir": (66, 66, 3)}
    batch = {k: rng.random((2, *shapes[k])).astype(np.float32) for k in INPUTS[inputs]}
    for name in batch:
        model.get_layer(f"clip_{name}").lower.assign(np.zeros(shapes[name][-1]))
        model.get_layer(f"clip_{name}").upper.assign(np.ones(shapes[name][-1]))
    layers = {name: f"trunk_{name}" for name in batch}
    maps, bias = class_activation.class_activation(model, batch, layers)
    found = bias + sum(m.sum(axis=(1, 2)) for m in maps.values())
    np.testing.assert_allclose(found, log_odds(model, batch), atol=1e-4)
