"""Percentiles and moments of a stream of images are those of NumPy, without its memory."""

import tracemalloc

import numpy as np
import pytest

from cast_lens import cutouts, pixel_statistics


def batches_of(images, size):
    """Return the function that reads `images` in batches of `size`."""
    return lambda: (images[i : i + size] for i in range(0, len(images), size))


def numpy_percentiles(images, percents):
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    return np.percentile(pixels, percents, axis=0)


def skewed(shape, seed=0):
    """Draw fluxes as skewed as those of the surveys: sky noise, and few very bright pixels."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=5e-13, size=shape)
    return (noise + 1e-13 * rng.pareto(1.0, shape)).astype(np.float32)


@pytest.mark.slow
def test_percentiles_of_ten_million_skewed_pixels_are_exactly_those_of_numpy():
    images = skewed((160, 125, 125, 4))
    images[..., 1] = np.round(images[..., 1] * 1e12)  # ties, and zeros of both signs
    images[..., 2] *= np.float32(1e-26)  # subnormal numbers
    images[..., 3] *= np.float32(-1)
    percents = [0, 0.1, 2, 50, 98, 99, 99.9, 100]
    found = pixel_statistics.percentiles(batches_of(images, 33), percents)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, numpy_percentiles(images, percents))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 1000])
@pytest.mark.parametrize("kind", ["signs", "ties", "neighbors", "extremes"])
def test_percentiles_are_exactly_those_of_numpy_for_any_number_of_pixels(n, kind):
    rng = np.random.default_rng(n)
    pixels = {
        "signs": rng.normal(size=n),
        "ties": rng.integers(-2, 3, n),
        "neighbors": np.float32(1) + np.spacing(np.float32(1)) * rng.integers(0, 4, n),
        "extremes": rng.choice([-3e38, -1e-45, -0.0, 0.0, 1e-45, 3e38], n),
    }[kind].astype(np.float32)
    images = pixels.reshape(n, 1, 1, 1)
    percents = [0, 100 / 3, 50, 98, 100, *rng.uniform(0, 100, 20)]
    found = pixel_statistics.percentiles(batches_of(images, 7), percents)
    np.testing.assert_array_equal(found, numpy_percentiles(images, percents))


def test_lower_bound_of_bom_is_the_percentile_from_the_other_end():
    images = skewed((50, 40, 40, 2))
    found = pixel_statistics.percentiles(batches_of(images, 16), [0.1])
    np.testing.assert_allclose(found, -numpy_percentiles(-images, [99.9]), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "int8", "int16", "uint8", ">f4"])
def test_types_that_float32_holds_exactly_are_read_exactly(dtype):
    images = np.random.default_rng(0).uniform(0, 100, (30, 8, 8, 2)).astype(dtype)
    found = pixel_statistics.percentiles(batches_of(images, 8), [1, 50, 98])
    np.testing.assert_array_equal(found, numpy_percentiles(images, [1, 50, 98]))
    mean, _ = pixel_statistics.moments(batches_of(images, 8), per_band=True)
    np.testing.assert_allclose(mean, images.astype(float).mean(axis=(0, 1, 2)), rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_objects():
    def peak(n):
        images = skewed((16, 66, 66, 1))
        tracemalloc.start()
        pixel_statistics.percentiles(lambda: (images + np.float32(i) for i in range(n)), [1, 98])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(60) < 1.1 * peak(6)


@pytest.mark.parametrize("per_band", [True, False])
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1e-12, 0.0), (1.0, 1e6)])
def test_moments_are_those_of_numpy_in_double_precision(per_band, scale, shift):
    images = np.random.default_rng(0).normal(size=(90, 20, 20, 3)) * [1, 2, 5]
    images = (images * scale + shift).astype(np.float32)
    axes = (0, 1, 2) if per_band else None
    exact = images.astype(np.float64)
    mean, std = pixel_statistics.moments(batches_of(images, 32), per_band=per_band)
    assert mean.shape == std.shape == ((3,) if per_band else (1,))
    np.testing.assert_allclose(mean, exact.mean(axis=axes).reshape(mean.shape), rtol=1e-10)
    np.testing.assert_allclose(std, exact.std(axis=axes).reshape(std.shape), rtol=1e-10)


def test_second_pass_over_other_pixels_is_refused():
    images = iter([skewed((4, 5, 5, 1), seed) for seed in (1, 2)])
    with pytest.raises(ValueError, match="other pixels when called again"):
        pixel_statistics.percentiles(lambda: [next(images)], [50])


BOTH = pytest.mark.parametrize(
    "statistic",
    [
        lambda batches: pixel_statistics.percentiles(batches, [50]),
        lambda batches: pixel_statistics.moments(batches, per_band=True),
    ],
)


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_object_with_a_pixel_that_is_no_number_is_named(statistic, value):
    images = np.ones((20, 4, 4, 2), np.float32)
    images[13, 2, 1, 1] = value
    with pytest.raises(ValueError, match="object 13 of batches, from 0, has NaN or infinity"):
        statistic(batches_of(images, 8))


@BOTH
@pytest.mark.parametrize(
    "batches",
    [
        [np.ones((4, 5, 5), np.float32)],
        [np.ones((4, 5, 5, 1))],
        [np.ones((4, 5, 5, 1), np.int32)],
        [np.ones((4, 5, 5, 2), np.float32), np.ones((4, 5, 5, 3), np.float32)],
    ],
)
def test_other_shapes_and_types_than_images_are_refused(statistic, batches):
    with pytest.raises(ValueError, match="expected float32 of shape"):
        statistic(lambda: batches)


@BOTH
@pytest.mark.parametrize("batches", [[], [np.ones((0, 5, 5, 1), np.float32)]])
def test_no_pixel_is_refused(statistic, batches):
    with pytest.raises(ValueError, match="no pixel"):
        statistic(lambda: batches)


@pytest.mark.parametrize("percents", [[-1], [100.5], [np.nan], 98, [[1, 2]]])
def test_percents_out_of_range_are_refused(percents):
    with pytest.raises(ValueError, match="percents"):
        pixel_statistics.percentiles(lambda: [np.ones((1, 2, 2, 1), np.float32)], percents)


def test_percentiles_of_real_cutouts_are_those_of_numpy(real_data):
    table, _ = cutouts.find_cutouts(real_data / "sglc1/space_based")
    images = np.stack([cutouts.read_cutout([path])[0] for path in table["path_VIS"]])
    found = pixel_statistics.percentiles(batches_of(images, 5), [0.1, 98, 99])
    np.testing.assert_array_equal(found, numpy_percentiles(images, [0.1, 98, 99]))
