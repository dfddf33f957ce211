"""float16 loses what NumPy says it loses, and no more than the module promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cast_lens import half

FLUXES = st.floats(-(2.0**100), 2.0**100, width=32)
IMAGES = arrays.arrays(
    np.float32, st.tuples(*map(st.integers, (1,) * 4, (3,) * 4)), elements=FLUXES
)


def sky(n=4, bands=2, size=1e-12):
    rng = np.random.default_rng(0)
    return (size * rng.standard_normal((n, 9, 8, bands))).astype(np.float32)


def test_the_typical_pixel_lies_at_two_to_the_minus_eight():
    images = np.full((1, 3, 3, 3), 2.0**-40, np.float32)
    images[..., 1] *= 3  # between 2^-39 and 2^-38
    images[0, 0, :, 2] = 0
    assert half.scales(images) == (2.0**32, 2.0**31, 2.0**32)
    assert half.scales(-images) == half.scales(images)


def test_pixels_that_are_0_are_not_typical_and_alone_change_nothing():
    images = np.zeros((2, 4, 4, 2), np.float32)
    images[0, 0, 0, 1] = 1
    assert half.scales(images) == (1.0, 2.0**-8)
    assert half.scales(images[:0]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("size", "factor"), [(2e-36, 2.0**111), (1e-44, 2.0**120), (3e38, 2.0**-120)]
)
def test_factors_stay_where_float32_can_be_multiplied(size, factor):
    images = np.full((1, 2, 2, 1), size, np.float32)
    assert half.scales(images) == (factor,)
    stored, _ = half.encode(images, (factor,))
    assert np.isfinite(stored).all()


def test_numbers_of_eleven_bits_come_back_exactly():
    images = (np.arange(-1023, 1025).reshape(2, 32, 32, 1) * 2.0**-50).astype(np.float32)
    factors = half.scales(images)
    stored, loss = half.encode(images, factors)
    assert stored.dtype == np.float16
    assert np.array_equal(half.decode(stored, factors), images)
    assert loss == {"n_clipped": [0], "n_flushed": [0], "max_error": [0], "sum_squares": [0]}


def test_the_loss_of_noise_is_the_rounding_to_eleven_bits():
    images = sky()
    stored, loss = half.encode(images, half.scales(images))
    found = half.decode(stored, half.scales(images))
    assert found.dtype == np.float32
    typical = np.median(np.abs(images), axis=(0, 1, 2))
    # Half a unit in the last of eleven bits, or of what lies below the smallest normal float16.
    allowed = np.maximum(np.abs(images) * 2.0**-11, typical * 2.0**-16)
    assert (np.abs(found.astype(np.float64) - images) <= allowed).all()
    assert max(loss["max_error"]) > 0


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.integers(-40, 40))
def test_what_was_lost_is_what_a_loop_over_pixels_finds(images, power):
    factors = tuple(2.0 ** (power + n) for n in range(images.shape[-1]))
    stored, loss = half.encode(images, factors)
    for n, factor in enumerate(factors):
        n_clipped, n_flushed, errors = 0, 0, []
        for flux, kept in zip(images[..., n].ravel().tolist(), stored[..., n].ravel().tolist()):
            is_clipped = abs(flux * factor) > 65504
            n_clipped += is_clipped
            n_flushed += kept == 0 and flux != 0
            if is_clipped:
                assert kept == np.copysign(65504, flux)
            else:
                assert kept == np.float16(np.float32(flux * factor))
                errors.append(abs(kept / factor - flux))
        assert (loss["n_clipped"][n], loss["n_flushed"][n]) == (n_clipped, n_flushed)
        assert loss["max_error"][n] == max(errors, default=0)
        assert loss["sum_squares"][n] == pytest.approx(sum(e * e for e in errors), rel=1e-12)


def test_objects_do_not_depend_on_one_another():
    images, factors = sky(n=5), (2.0**30, 2.0**31)
    images[3, 2, 2, 0] = 1.0
    alone = [half.encode(image[None], factors)[0][0] for image in images]
    assert np.array_equal(half.encode(images, factors)[0], alone)


def test_total_is_the_loss_of_all_images_at_once():
    images, factors = sky(n=6), (2.0**56, 2.0**31)
    _, whole = half.encode(images, factors)
    losses = [half.encode(part, factors)[1] for part in (images[:1], images[1:1], images[1:])]
    found = half.total(losses, 6 * 9 * 8)
    assert whole["n_clipped"][0] > 0
    assert found["n_clipped"] == whole["n_clipped"] and found["n_flushed"] == whole["n_flushed"]
    assert found["max_error"] == whole["max_error"]
    rms = np.sqrt(np.array(whole["sum_squares"]) / (6 * 9 * 8))
    np.testing.assert_allclose(found["rms_error"], rms, rtol=1e-12)
