"""Stretches against NumPy in double precision; what they do at the edge; that constants travel."""

import keras
import numpy as np
import pytest
from keras import ops

from cast_lens import pixel_statistics, stretch

# shared/facts/datasets.md, section 2: mean and standard deviation of all pixels, space and ground.
LASTRO = [(4.337e-13, 5.504e-12), (1.685e-12, 5.122e-11)]


def fluxes(n=6, size=12, bands=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(scale=1e-12, size=(n, size, size, bands))
    return (images + 1e-12 * rng.pareto(1.5, images.shape)).astype(np.float32)


def layers():
    """Return one layer of every kind, for three bands of about 1e-12."""
    return {
        "clip": stretch.Clip([-1e-12, 0, -2e-12], [5e-12, 6e-12, 7e-12]),
        "standardize": stretch.Standardize([1e-12, 0, 2e-12], [3e-12, 1e-12, 2e-12]),
        "asinh": stretch.Asinh([1e-12, 2e-12, 3e-12]),
        "min_max": stretch.MinMaxImage(per_band=False),
        "min_max_band": stretch.MinMaxImage(per_band=True),
        "image": stretch.StandardizeImage(per_band=False, epsilon=0.0),
        "band": stretch.StandardizeImage(per_band=True, epsilon=1e-13),
    }


EVERY = pytest.mark.parametrize("kind", layers())


def apply(layer, images):
    result = ops.convert_to_numpy(layer(ops.convert_to_tensor(images)))
    assert result.dtype == np.float32
    assert result.shape == images.shape
    return result


def test_clip_maps_its_bounds_to_zero_and_one_exactly():
    lower, upper = np.float32([-3e-12, 0.1]), np.float32([7e-11, 0.7])
    images = np.stack([lower, upper, lower * 2 - upper, upper * 2 - lower, (lower + upper) / 2])
    found = apply(stretch.Clip(lower, upper), images.reshape(5, 1, 1, 2))
    np.testing.assert_array_equal(found[:4, 0, 0], [[0, 0], [1, 1], [0, 0], [1, 1]])
    np.testing.assert_allclose(found[4, 0, 0], 0.5, rtol=1e-6)


def test_clip_is_the_formula_in_double_precision():
    images = fluxes()
    lower, upper = np.array([-1e-12, 0, -2e-12]), np.array([5e-12, 6e-12, 7e-12])
    expected = (np.clip(images.astype(float), lower, upper) - lower) / (upper - lower)
    np.testing.assert_allclose(apply(layers()["clip"], images), expected, rtol=1e-5, atol=1e-7)


def test_clip_at_percentiles_leaves_the_fractions_of_bom_at_the_ends():
    images = fluxes(n=40, size=50)
    lower, upper = pixel_statistics.percentiles(lambda: [images], [0.1, 98])
    found = apply(stretch.Clip(lower, upper), images)
    np.testing.assert_allclose(np.mean(found == 0, axis=(0, 1, 2)), 0.001, atol=1e-5)
    np.testing.assert_allclose(np.mean(found == 1, axis=(0, 1, 2)), 0.02, atol=1e-5)


@pytest.mark.parametrize("mean, std", LASTRO)
def test_standardize_with_the_constants_of_lastro_is_the_formula_in_double_precision(mean, std):
    images = fluxes()
    expected = (images.astype(float) - mean) / std
    found = apply(stretch.Standardize(mean, std), images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_standardize_with_the_moments_of_the_set_gives_mean_0_and_variance_1():
    images = fluxes(n=30)
    moments = pixel_statistics.moments(lambda: [images], per_band=True)
    found = apply(stretch.Standardize(*moments), images).astype(float)
    np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=(0, 1, 2)), 1, rtol=1e-5)


def test_asinh_is_that_of_numpy_over_the_range_of_float32():
    x = np.concatenate([-np.geomspace(1e-6, 1e12, 50), [0], np.geomspace(1e-6, 1e12, 50)])
    images = (x * 3e-12).astype(np.float32).reshape(1, -1, 1, 1)
    expected = np.arcsinh(images.astype(float) / np.float32(3e-12))
    np.testing.assert_allclose(apply(stretch.Asinh(3e-12), images), expected, rtol=1e-5)


@pytest.mark.parametrize("per_band", [True, False])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e21])
def test_image_stretches_are_those_of_a_loop_over_images_and_bands(per_band, unit):
    images = (fluxes().astype(float) * 1e12 * unit).astype(np.float32)
    epsilon = 0.3 * unit
    unit_range, standard = np.empty(images.shape), np.empty(images.shape)
    for n in range(len(images)):
        for band in range(3):
            own = images[n, ..., band] if per_band else images[n]
            image, own = images[n, ..., band].astype(float), own.astype(float)
            unit_range[n, ..., band] = (image - own.min()) / (own.max() - own.min())
            standard[n, ..., band] = (image - own.mean()) / (own.std() + epsilon)
    found = apply(stretch.MinMaxImage(per_band=per_band), images)
    np.testing.assert_allclose(found, unit_range, rtol=1e-5, atol=1e-6)
    assert found.min() == 0 and found.max() == 1
    found = apply(stretch.StandardizeImage(per_band=per_band, epsilon=epsilon), images)
    np.testing.assert_allclose(found, standard, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-12, 3e-39, -1.27e21, 100.0])
@pytest.mark.parametrize("kind", ["min_max", "min_max_band", "image", "band"])
def test_image_without_contrast_becomes_exactly_zero(kind, value):
    images = np.full((2, 150, 150, 3), value, np.float32)
    images[1] = fluxes(1, 150)
    found = apply(layers()[kind], images)
    np.testing.assert_array_equal(found[0], 0)
    assert np.ptp(found[1]) > 0.5


def test_band_without_contrast_becomes_exactly_zero():
    images = fluxes()
    images[..., 1] = np.float32(0.1)
    lower, upper = pixel_statistics.percentiles(lambda: [images], [0.1, 98])
    assert lower[1] == upper[1]
    moments = pixel_statistics.moments(lambda: [images], per_band=True)
    for layer in (stretch.Clip(lower, upper), stretch.Standardize(*moments)):
        found = apply(layer, images)
        np.testing.assert_allclose(found[..., 1], 0, atol=1e-8)
        assert np.isfinite(found).all()


@EVERY
def test_an_object_is_stretched_the_same_whatever_its_batch_holds(kind):
    layer, images = layers()[kind], fluxes()
    together = apply(layer, images)
    for n in range(len(images)):
        np.testing.assert_array_equal(apply(layer, images[n : n + 1])[0], together[n])


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_bad_pixel_changes_no_other_object(kind, value):
    layer, images = layers()[kind], fluxes()
    before = apply(layer, images)
    images[2, 3, 4, 1] = value
    after = apply(layer, images)
    np.testing.assert_array_equal(np.delete(after, 2, axis=0), np.delete(before, 2, axis=0))


@pytest.mark.parametrize(
    "layer", [stretch.Clip(None, None), stretch.Standardize(None, 1.0), stretch.Asinh(None)]
)
def test_constants_that_are_still_to_come_make_every_pixel_nan(layer):
    assert np.isnan(apply(layer, fluxes())).all()


def model_of(layer):
    return keras.Sequential([keras.Input((12, 12, 3)), layer])


@EVERY
def test_constants_return_from_a_keras_file(kind, tmp_path):
    model = model_of(layers()[kind])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = fluxes()
    np.testing.assert_array_equal(apply(again, images), apply(model, images))


@EVERY
def test_constants_return_from_the_configuration(kind):
    layer, images = layers()[kind], fluxes()
    untouched = type(layer).from_config(layer.get_config())
    expected = apply(layer, images)
    built = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(apply(untouched, images), expected)
    np.testing.assert_array_equal(apply(built, images), expected)


LATER = {
    "clip": lambda: stretch.Clip(None, None),
    "standardize": lambda: stretch.Standardize(None, None),
    "asinh": lambda: stretch.Asinh(None),
}


@pytest.mark.parametrize("kind", LATER)
def test_constants_come_with_the_weights(kind, tmp_path):
    model, images = model_of(layers()[kind]), fluxes()
    expected = apply(model, images)
    assert not model.trainable_weights and len(model.weights) in (1, 2)
    model.save_weights(tmp_path / "model.weights.h5")
    from_file, from_arrays = model_of(LATER[kind]()), model_of(LATER[kind]())
    from_file.load_weights(tmp_path / "model.weights.h5")
    arrays = {w.path.split("/")[-1]: ops.convert_to_numpy(w.value) for w in model.weights}
    for weight in from_arrays.weights:
        weight.assign(arrays[weight.path.split("/")[-1]])
    for again in (from_file, from_arrays, keras.models.clone_model(from_file)):
        np.testing.assert_array_equal(apply(again, images), expected)


def test_configuration_tells_the_constants_that_the_layer_has_now():
    layer = stretch.Clip(None, None)
    assert layer.get_config()["lower"] is None
    layer.build((None, 4, 4, 2))
    assert layer.get_config()["lower"] is None
    layer.set_weights([np.float32([1, 2]), np.float32([3, 4])])
    assert (layer.get_config()["lower"], layer.get_config()["upper"]) == ([1, 2], [3, 4])


@EVERY
def test_stretch_is_in_float32_under_a_policy_of_half_precision(kind):
    expected = apply(layers()[kind], fluxes())
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_of(layers()[kind])
        np.testing.assert_allclose(apply(model, fluxes()), expected, rtol=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: stretch.Clip(2, 1), "lower is 2"),
        (lambda: stretch.Clip([0, 3], [1, 2]), "lower is"),
        (lambda: stretch.Standardize(0, [1, -1]), "std is"),
        (lambda: stretch.Asinh(0), "softening is 0"),
        (lambda: stretch.StandardizeImage(per_band=True, epsilon=-1), "epsilon is -1"),
        (lambda: stretch.StandardizeImage(per_band=True, epsilon=np.nan), "epsilon is nan"),
        (lambda: stretch.Clip([0, 0], 1).build((None, 8, 8, 3)), r"lower of shape \(2,\)"),
    ],
)
def test_constants_that_make_no_sense_are_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()
