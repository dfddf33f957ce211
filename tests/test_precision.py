"""bfloat16 in the trunks: what stays float32, and that scores keep their order."""

import keras
import ml_dtypes
import numpy as np
import pytest

from cast_lens import layers, metrics, precision, stretch


def trunk(name):
    images = keras.Input((None, None, 2))
    x = keras.layers.Conv2D(6, 3, strides=2, use_bias=False, name="conv")(images)
    x = layers.BatchNormalization(name="norm", momentum=0.8, unbiased_moving_variance=True)(x)
    x = keras.layers.Activation(layers.swish, name="swish")(x)
    return keras.Model(images, x, name=name)


def network(seed=0):
    """A network of two branches with a stretch of small fluxes before and a softmax after."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((8, 8, 2), name=name) for name in ("vis", "nir")}
    features = [
        keras.layers.GlobalAveragePooling2D(name=f"pool_{name}")(
            trunk(f"trunk_{name}")(stretch.Clip(-1e-11, 1e-11, name=f"clip_{name}")(x))
        )
        for name, x in inputs.items()
    ]
    scores = keras.layers.Dense(2, "softmax", name="lens")(keras.layers.Concatenate()(features))
    return keras.Model(inputs, scores)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: (3e-12 * rng.standard_normal((n, 8, 8, 2))).astype(np.float32)
        for name in ("vis", "nir")
    }


def pair():
    """One network in float32 and in bfloat16, of equal weights."""
    exact, fast = network(), precision.use_bfloat16(network(seed=1))
    fast.set_weights(exact.get_weights())
    for model in (exact, fast):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy",
                      jit_compile=False)  # fmt: skip
    return exact, fast


def test_trunks_compute_in_bfloat16_and_all_variables_are_float32():
    model = precision.use_bfloat16(network())
    model.compile(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    for name in ("trunk_vis", "trunk_nir"):
        inner = model.get_layer(name)
        for layer in ("conv", "norm", "swish"):
            assert inner.get_layer(layer).compute_dtype == "bfloat16"
        out = inner(np.zeros((1, 8, 8, 2), np.float32))
        assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    for name in ("clip_vis", "pool_vis", "lens"):
        assert model.get_layer(name).compute_dtype == "float32"
    floats = {v.dtype for v in [*model.variables, *model.optimizer.variables]} - {"int32", "int64"}
    assert floats == {"float32"}
    assert precision.is_bfloat16(model) and not precision.is_bfloat16(network())


def test_what_lost_its_numbers_on_a_gpu_stays_exact():
    from cast_lens import backbones

    images = keras.Input((32, 32, 3), name="vis")
    inner = backbones.efficient_net("b0", name="trunk_vis", shape=(32, 32, 3), weights=None)
    pooled = keras.layers.GlobalAveragePooling2D()(inner(images))
    model = precision.use_bfloat16(keras.Model(images, keras.layers.Dense(2)(pooled)))
    of = {name: inner.get_layer(name).compute_dtype for name in (*precision.EXACT, "stem_conv")}
    assert of == {"block1a_project_conv": "float32", "stem_conv": "bfloat16"}
    assert precision.is_bfloat16(model)


def test_scores_are_float32_and_within_the_digits_of_bfloat16():
    exact, fast = pair()
    wanted, found = (model.predict(images(64), verbose=0) for model in (exact, fast))
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)  # which a softmax in bfloat16 is not
    error = np.abs(found - wanted).max()
    assert 0 < error < 2**-6, error


def test_moments_of_a_batch_are_those_of_float32():
    """Means and variances of what the convolution gave in bfloat16, summed in float64."""
    _, model = pair()
    x = images(32)
    norm, conv = (model.get_layer("trunk_vis").get_layer(name) for name in ("norm", "conv"))
    before = [np.array(v) for v in (norm.moving_mean, norm.moving_variance)]
    stretched = model.get_layer("clip_vis")(x["vis"])
    kernel = np.asarray(conv.kernel.value, np.float32).astype(ml_dtypes.bfloat16)
    rounded = np.asarray(stretched, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(rounded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    maps = np.einsum("nhwcij,ijcf->nhwf", windows, kernel.astype(np.float64))
    maps = maps.astype(ml_dtypes.bfloat16).astype(np.float64)
    model.train_on_batch(x, np.arange(32) % 2)
    momentum = norm.momentum
    wanted = [
        before[0] * momentum + maps.mean((0, 1, 2)) * (1 - momentum),
        before[1] * momentum + maps.var((0, 1, 2), ddof=1) * (1 - momentum),
    ]
    found = [np.array(v) for v in (norm.moving_mean, norm.moving_variance)]
    assert np.allclose(found[1], wanted[1], rtol=1e-5)
    assert np.allclose(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    # A mean in bfloat16 would be off by this much in some band.
    assert 2**-9 * (1 - momentum) * np.abs(maps.mean((0, 1, 2))).max() > 1e-6


@pytest.mark.slow
def test_training_in_bfloat16_ranks_as_training_in_float32():
    """The bar of a run: AUCs of held-out objects equal to 0.1 %."""
    labels, half = np.arange(1024) % 2, 512
    shown = images(1024)
    shown["vis"][labels == 1, 3:5, 3:5] += 8e-12  # a source that is found, and sometimes missed
    seen, held_out = ({name: x[part] for name, x in shown.items()}
                      for part in (slice(half), slice(half, None)))  # fmt: skip
    aucs = []
    for model in pair():
        model.compile(keras.optimizers.Adam(0.02), model.loss, jit_compile=False)
        model.fit(seen, labels[:half], batch_size=32, epochs=4, shuffle=False, verbose=0)
        scores = model.predict(held_out, verbose=0)[:, 1]
        aucs.append(metrics.roc_auc(labels[half:], scores))
    assert 0.7 < aucs[0] < 0.9999
    assert aucs[1] == pytest.approx(aucs[0], rel=1e-3)


def test_weights_are_the_same_and_serve_both(tmp_path):
    exact, fast = pair()
    exact.save_weights(tmp_path / "a.weights.h5")
    fast.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(exact.get_weights(), fast.get_weights(), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_a_network_that_was_compiled_or_has_no_trunks_is_refused():
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="2 trunks in a model that is compiled"):
        precision.use_bfloat16(model)
    with pytest.raises(ValueError, match="found 0 trunks"):
        precision.use_bfloat16(trunk("alone"))


def test_scores_must_not_come_from_a_trunk():
    images = keras.Input((8, 8, 2))
    model = keras.Model(images, trunk("last")(images))
    with pytest.raises(ValueError, match="scores coming from the trunk last"):
        precision.use_bfloat16(model)
