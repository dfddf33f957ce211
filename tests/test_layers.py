"""Fused batch normalization against a NumPy one and that of Keras, to the last digits."""

import keras
import numpy as np
import pytest
from keras import ops

from cast_lens.layers import BatchNormalization, swish

IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
SHAPE, BANDS = (5, 7, 6, 4), 4
N = 5 * 7 * 6
GAMMA = np.array([0.5, 1.0, 2.0, -1.0], np.float32)
BETA = np.array([0.0, 1.0, -2.0, 3.0], np.float32)


def images(seed=0, shape=SHAPE):
    spread = np.array([1.0, 1e-3, 30.0, 2.0])
    return (np.random.default_rng(seed).normal(0.7, 1, shape) * spread).astype(np.float32)


def make(kind=BatchNormalization, *, shape=SHAPE, **settings):
    layer = kind(**settings)
    layer.build(shape)
    for variable, value in ((layer.gamma, GAMMA), (layer.beta, BETA)):
        if variable is not None:
            variable.assign(value)
    layer.moving_mean.assign([0.5, 0.0, 10.0, 1.0])
    layer.moving_variance.assign([1.0, 1e-6, 700.0, 4.0])
    return layer


def array(tensor):
    return ops.convert_to_numpy(tensor)


def averages(layer):
    return array(layer.moving_mean.value), array(layer.moving_variance.value)


def is_fused(layer, inputs, **options):
    """Tell whether TensorFlow's kernel is part of what the layer makes of the inputs."""
    import tensorflow as tf

    function = tf.function(lambda x: layer(x, **options))
    graph = function.get_concrete_function(tf.TensorSpec(inputs.shape, inputs.dtype)).graph
    return "FusedBatchNormV3" in {operation.type for operation in graph.get_operations()}


needs_tensorflow = pytest.mark.skipif(not IS_TENSORFLOW, reason="the kernel is TensorFlow's")


def test_swish_is_the_silu_of_keras_bit_for_bit():
    x = images() * 10
    found, expected = array(swish(ops.convert_to_tensor(x))), array(keras.activations.silu(x))
    assert np.array_equal(found, expected) and (found.min(), found.max()) > (-0.279, 1)
    np.testing.assert_allclose(found, x / (1 + np.exp(-x.astype(float))), rtol=1e-5, atol=1e-30)


def by_hand(x, mean, variance, epsilon=1e-3):
    x, mean, variance = (np.asarray(part, np.float64) for part in (x, mean, variance))
    return (x - mean) / np.sqrt(variance + epsilon) * GAMMA + BETA


@pytest.mark.parametrize("unbiased", [False, True])
def test_training_uses_the_moments_of_the_batch_and_averages_them(unbiased):
    layer, x = make(unbiased_moving_variance=unbiased), images()
    mean, variance = x.mean(axis=(0, 1, 2), dtype=float), x.var(axis=(0, 1, 2), dtype=float)
    outputs = array(layer(x, training=True))
    np.testing.assert_allclose(outputs, by_hand(x, mean, variance), rtol=1e-5, atol=3e-6)
    if unbiased:
        variance = variance * N / (N - 1)
    moving_mean, moving_variance = averages(layer)
    expected = 0.99 * np.array([0.5, 0.0, 10.0, 1.0]) + 0.01 * mean
    np.testing.assert_allclose(moving_mean, expected, rtol=1e-6)
    expected = 0.99 * np.array([1.0, 1e-6, 700.0, 4.0]) + 0.01 * variance
    np.testing.assert_allclose(moving_variance, expected, rtol=1e-6)


@pytest.mark.parametrize("trainable, training", [(True, False), (True, None), (False, True)])
def test_frozen_or_predicting_it_uses_the_averages_and_keeps_them(trainable, training):
    layer, x = make(unbiased_moving_variance=True), images()
    layer.trainable = trainable
    before = averages(layer)
    outputs = array(layer(x, training=training))
    np.testing.assert_allclose(outputs, by_hand(x, *before), rtol=1e-5, atol=3e-6)
    assert np.array_equal(averages(layer), before)


@needs_tensorflow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"epsilon": 1e-4, "momentum": 0.5}, {"scale": False},
                                      {"center": False}, {"axis": 3}])  # fmt: skip
def test_gradients_and_averages_are_those_of_keras(settings, training):
    import tensorflow as tf

    x, weights = tf.constant(images()), tf.constant(images(1))
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = make(kind, **settings)
        assert is_fused(layer, x, training=training) == (kind is BatchNormalization)
        layer = make(kind, **settings)
        watched = [x, *(v.value for v in layer.trainable_variables)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.tanh(layer(x, training=training)) * weights)
        found.append([*tape.gradient(value, watched), *averages(layer)])
    assert len(found[0]) == 5 - (settings.keys() <= {"scale", "center"} and bool(settings))
    for ours, theirs in zip(*found, strict=True):
        # float32 sums over 210 pixels, in another order
        scale = np.abs(array(theirs)).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


@needs_tensorflow
def test_gradients_are_those_of_differences_in_float64():
    """The derivative of a weighted sum of the outputs, from NumPy alone."""
    import tensorflow as tf

    layer, weights = make(), images(1).astype(np.float64)
    x = images().astype(np.float64)

    def value(x, gamma=GAMMA, beta=BETA):
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return np.sum(weights * ((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta))

    watched = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        total = tf.reduce_sum(layer(watched, training=True) * weights.astype(np.float32))
    by_x, by_gamma, by_beta = tape.gradient(total, [watched, layer.gamma.value, layer.beta.value])
    scale = np.abs(by_x.numpy()).max(axis=(0, 1, 2)).tolist()
    for place in ((0, 0, 0, 0), (4, 6, 5, 1), (2, 3, 4, 2), (1, 5, 0, 3)):
        step = np.zeros(SHAPE)
        step[place] = 1e-6
        expected = (value(x + step) - value(x - step)) / 2e-6
        assert by_x.numpy()[place] == pytest.approx(expected, abs=2e-5 * scale[place[3]])
    for band, step in enumerate(np.eye(BANDS)):
        expected = (value(x, GAMMA + step) - value(x, GAMMA - step)) / 2
        assert by_gamma.numpy()[band] == pytest.approx(expected, rel=1e-4, abs=1e-3)
        assert by_beta.numpy()[band] == pytest.approx(weights[..., band].sum(), rel=1e-4, abs=1e-3)


@needs_tensorflow
@pytest.mark.parametrize(
    "settings, shape",
    [
        ({"dtype": "mixed_float16"}, SHAPE),
        ({"dtype": "float16"}, SHAPE),
        ({"dtype": "bfloat16"}, SHAPE),
        ({"dtype": "float64"}, SHAPE),
        ({"axis": 1}, (5, 4, 7, 6)),
        ({"epsilon": 1e-6}, SHAPE),
        ({"renorm": True}, SHAPE),
        ({}, (210, 4)),
        ({}, (5, 7, 3, 2, 4)),
    ],
)
def test_what_the_kernel_does_not_take_is_left_to_keras(settings, shape):
    if "renorm" in settings and not hasattr(BatchNormalization(), "renorm"):
        pytest.skip("this Keras has no renorm")
    x = np.moveaxis(images(), -1, 1) if "axis" in settings else images().reshape(shape)
    x = ops.convert_to_tensor(x)
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = make(kind, shape=shape, **settings)
        found.append([array(layer(x, training=True)), *averages(layer)])
        assert not is_fused(layer, x, training=True)
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("settings, shape", [({"axis": 1}, (5, 4, 7, 6)), ({}, (210, 4)),
                                             ({"epsilon": 1e-6}, SHAPE)])  # fmt: skip
def test_without_the_kernel_the_variance_is_unbiased_too(settings, shape):
    x = np.moveaxis(images(), -1, 1) if "axis" in settings else images().reshape(shape)
    layer = make(shape=shape, unbiased_moving_variance=True, **settings)
    layer(x, training=True)
    variance = images().var(axis=(0, 1, 2), dtype=float, ddof=1)
    expected = 0.99 * np.array([1.0, 1e-6, 700.0, 4.0]) + 0.01 * variance
    np.testing.assert_allclose(averages(layer)[1], expected, rtol=1e-6)


def test_a_batch_of_one_pixel_averages_a_variance_of_0():
    for unbiased in (False, True):
        layer = make(unbiased_moving_variance=unbiased)
        x = images(shape=(1, 1, 1, BANDS))
        outputs = array(layer(x, training=True))
        np.testing.assert_allclose(outputs, BETA.reshape(1, 1, 1, -1), atol=1e-6)
        expected = 0.99 * np.array([1.0, 1e-6, 700.0, 4.0])
        np.testing.assert_allclose(averages(layer)[1], expected, rtol=1e-6)


def test_a_mask_is_left_to_keras_and_cannot_have_the_unbiased_variance():
    x, mask = images(), np.random.default_rng(0).random(SHAPE[:3]) < 0.5
    ours, theirs = make(), make(keras.layers.BatchNormalization)
    outputs = [array(layer(x, training=True, mask=mask)) for layer in (ours, theirs)]
    assert np.array_equal(*outputs) and np.array_equal(averages(ours), averages(theirs))
    with pytest.raises(ValueError, match="found a mask"):
        make(unbiased_moving_variance=True)(x, training=True, mask=mask)


def test_variables_and_config_are_those_of_keras_and_one_more():
    ours, theirs = make(name="bn"), make(keras.layers.BatchNormalization, name="bn")
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        assert (a.path, a.shape, a.dtype, a.trainable) == (b.path, b.shape, b.dtype, b.trainable)
    config = ours.get_config()
    assert config.pop("unbiased_moving_variance") is False
    assert config == theirs.get_config()


def test_a_saved_layer_is_the_same_layer(tmp_path):
    layer = BatchNormalization(unbiased_moving_variance=True, momentum=0.5)
    model = keras.Sequential([keras.Input((None, None, BANDS)), layer])
    model(images(), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].unbiased_moving_variance and loaded.layers[0].momentum == 0.5
    assert np.array_equal(array(loaded(images(2))), array(model(images(2))))


def test_images_of_any_size_and_batches_of_any_length_train_in_one_network():
    layer = BatchNormalization(momentum=0.0)
    model = keras.Sequential([keras.Input((None, None, BANDS)), layer])
    model.compile("sgd", "mse", jit_compile=False)
    for shape in ((3, 4, 5, BANDS), (2, 6, 2, BANDS)):
        x = images(3, shape)
        model.train_on_batch(x, x)
        np.testing.assert_allclose(averages(layer)[1], x.var(axis=(0, 1, 2)), rtol=1e-4)
