"""Pixel grids of networks: flux is conserved, and what fits stays as it is."""

import numpy as np
import pytest
from astropy.io import fits

from cast_lens import geometry

RNG = np.random.default_rng(0)


def overlap(low, high, other_low, other_high):
    return max(0.0, min(high, other_high) - max(low, other_low))


def by_loop(image, width, side):
    """Sum the flux of old pixels in each new one, pixel by pixel, both about one center."""
    height, across = image.shape
    new = np.zeros((side, side))
    for i in range(side):
        top = (i - side / 2) * width
        for j in range(side):
            left = (j - side / 2) * width
            for k in range(height):
                y = k - height / 2
                dy = overlap(top, top + width, y, y + 1)
                for m in range(across if dy else 0):
                    x = m - across / 2
                    new[i, j] += dy * overlap(left, left + width, x, x + 1) * image[k, m]
    return new


@pytest.mark.parametrize(
    ("shape", "scale", "new_scale", "side"),
    [
        ((12, 12), 0.1, 0.3, 4),
        ((12, 12), 0.1, 0.27, 4),
        ((11, 9), 0.2, 0.1, 20),
        ((7, 8), 0.263, 0.1, 14),
        ((5, 5), 0.1, 0.168, 7),
        ((3, 3), 0.5, 4.0, 1),
    ],
)
def test_new_pixels_hold_the_flux_of_the_old_ones_they_cover(shape, scale, new_scale, side):
    image = RNG.normal(size=shape).astype(np.float32) * np.float32(1e-12)
    found, _ = geometry.to_grid(image, scale, new_scale=new_scale, side=side)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert found == pytest.approx(by_loop(image, new_scale / scale, side), rel=2e-6, abs=1e-18)


@pytest.mark.parametrize("new_scale", [0.05, 0.07, 0.1, 0.168, 0.2, 0.333])
def test_flux_is_conserved_where_nothing_is_cut_off(new_scale):
    image = RNG.exponential(size=(21, 16)).astype(np.float32)
    side = int(np.ceil(21 * 0.1 / new_scale)) + 1
    found, words = geometry.to_grid(image, 0.1, new_scale=new_scale, side=side)
    assert found.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-6)
    assert ("resampled" in words) == (new_scale != 0.1) and "padded" in words


@pytest.mark.parametrize("scale", [0.1, 0.1 + 5e-5, 2.7777774714293e-05 * 3600])
def test_equal_scale_and_side_is_the_identity_to_the_last_bit(scale):
    image = RNG.normal(size=(9, 9)).astype(np.float32)
    image[0, :3] = -0.0, 1e-42, 3e38
    found, words = geometry.to_grid(image, scale, new_scale=0.1, side=9)
    assert found.tobytes() == image.tobytes() and words == ()


@pytest.mark.parametrize(("n", "side"), [(9, 5), (10, 5), (9, 4), (10, 4), (3, 8), (4, 9), (1, 2)])
def test_equal_scale_moves_whole_pixels(n, side):
    image = RNG.normal(size=(n, n)).astype(np.float32)
    found, words = geometry.to_grid(image, 0.2, new_scale=0.2, side=side)
    assert words == (("cropped",) if side < n else ("padded",))
    small, large = sorted([n, side])
    start = (large - small) // 2
    inside = (slice(start, start + small),) * 2
    if side < n:
        assert np.array_equal(found, image[inside])
    else:
        assert np.array_equal(found[inside], image)
        assert np.count_nonzero(found) == n * n


def test_oblong_image_is_cropped_one_way_and_padded_the_other():
    found, words = geometry.to_grid(np.ones((8, 3), np.float32), 1.0, new_scale=1.0, side=5)
    assert words == ("cropped", "padded")
    assert found.sum() == 15 and found[:, 1:4].all()


def test_a_point_at_the_center_stays_at_the_center():
    image = np.zeros((21, 21), np.float32)
    image[10, 10] = 5
    for new_scale, side in ((0.3, 7), (0.05, 41), (0.1, 31)):
        found, _ = geometry.to_grid(image, 0.1, new_scale=new_scale, side=side)
        rows, columns = np.indices(found.shape)
        assert found.sum() == pytest.approx(5)
        assert (found * rows).sum() / 5 == pytest.approx((side - 1) / 2, rel=1e-6)
        assert (found * columns).sum() / 5 == pytest.approx((side - 1) / 2, rel=1e-6)


def test_without_a_border_only_covered_pixels_remain():
    image = np.full((10, 14), 2, np.float32)
    found, words = geometry.to_grid(image, 0.1, new_scale=0.2, side=9, pad=False)
    assert found.shape == (5, 7) and "padded" not in words
    assert found == pytest.approx(np.full((5, 7), 8))
    assert geometry.to_grid(image, 0.1, new_scale=0.1, side=12, pad=False)[0].shape == (10, 12)


def test_neighbors_of_a_huge_pixel_keep_their_flux():
    image = np.ones((20, 20), np.float32)
    image[3, 4] = 1e30
    found, _ = geometry.to_grid(image, 0.1, new_scale=0.2, side=10)
    assert found[1, 2] == pytest.approx(1e30)
    assert np.delete(found.ravel(), 12) == pytest.approx(np.full(99, 4))


@pytest.mark.parametrize("scale", [0, -0.1, np.nan, np.inf])
def test_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match="positive"):
        geometry.to_grid(np.ones((3, 3), np.float32), scale, new_scale=0.1, side=3)


def wcs(**cards):
    return fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"} | cards)


@pytest.mark.parametrize(
    ("header", "scale"),
    [
        (wcs(CDELT1=-0.263 / 3600, CDELT2=0.263 / 3600), 0.263),
        (wcs(CD1_1=-3e-5, CD1_2=4e-5, CD2_1=4e-5, CD2_2=3e-5), 0.18),  # turned: sqrt(3^2+4^2)
        (wcs(PC1_1=0.6, PC1_2=0.8, PC2_1=-0.8, PC2_2=0.6, CDELT1=-5e-5, CDELT2=5e-5), 0.18),
        (wcs(CDELT1=0.2, CDELT2=0.2, CUNIT1="arcsec", CUNIT2="arcsec"), 0.2),
        (fits.Header({"PIXSCALE": 0.168}), 0.168),
        (fits.Header({"SECPIX": 0.2}), 0.2),
        (wcs(PIXSCALE=0.3), 0.3),  # CDELT is 1 where it is missing: 3600 arcsec tell nothing
        (fits.Header({"PIXSCALE": "0.2"}), None),
        (fits.Header({"PIXSCALE": -0.2}), None),
        (fits.Header({"CDELT1": 1e-5, "CDELT2": 1e-5}), None),
        (wcs(CDELT1=0.0, CDELT2=0.0), None),
        (wcs(CD1_1=np.pi, CTYPE1="?"), None),
        (fits.Header(), None),
    ],
)
def test_header_tells_the_pixel_scale(header, scale):
    expected = None if scale is None else pytest.approx(scale)
    assert geometry.pixel_scale(header) == expected
    assert geometry.pixel_scale(header.tostring(endcard=False, padding=False).encode()) == expected


TAN = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.25, "CRVAL2": -2.5,
       "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600, "CRPIX1": 300.5, "CRPIX2": -20.0}  # fmt: skip


@pytest.mark.parametrize("cards", [
    {}, {"CRVAL1": 0.0, "CRVAL2": 0.0}, {"CRVAL1": -30.0}, {"CRVAL1": 359.999, "CRPIX1": 9000.0},
    {"CRVAL2": 90.0}, {"CRVAL2": 89.999}, {"CRVAL2": -90.0}, {"LONPOLE": 100.0}, {"CROTA2": 30.0},
    {"PC1_2": 0.3, "PC2_1": -0.3}, {"CUNIT1": "deg", "CUNIT2": "deg"},
    {"CUNIT1": "arcsec", "CUNIT2": "arcsec", "CDELT1": 0.2, "CDELT2": 0.2},
    {"RADESYS": "ICRS"}, {"RADESYS": "FK5", "EQUINOX": 2000.0}, {"EQUINOX": 1950.0},
    {"RADECSYS": "FK5"}, {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
    {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": -2.5, "CRVAL2": 150.25},
    {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 40.0},
    {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.001, "PV1_5": 0.4, "PV2_1": 1.0},
    {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5},
    {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": 1e-5}, {"CTYPE1": "LINEAR"},
    {"NAXIS": 3, "CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CDELT3": 1e6}, {"WCSAXES": 3},
    {"CDELT1": 0.0}, {"CRVAL1": "x"}, {"MJD-OBS": 60000.0, "DATE-OBS": "31/12/99"},
])  # fmt: skip
def test_middle_by_the_cards_is_that_of_astropy_by_the_header(cards):
    header = fits.Header(TAN | cards)
    found = geometry.middle(header.tostring().encode(), (41, 60))
    expected = geometry.middle(header, (41, 60))  # by astropy's WCS and SkyCoord
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-11) and 0 <= found[0] < 360


def test_where_the_sky_begins_is_0_and_not_what_rounding_leaves():
    """The real images of the first challenge have their middle at 0, 0; 4.3e-31 came out."""
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 51.0,
                          "CRPIX2": 51.0, "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": -3e-5,
                          "CDELT2": 3e-5})  # fmt: skip
    assert geometry.middle(header, (101, 101)) == (0.0, 0.0)
    header["CRVAL1"] = -1e-13
    assert geometry.middle(header, (101, 101)) == (0.0, 0.0)


def test_units_by_custom_are_read_as_the_standard_ones():
    cards = fits.Header(TAN | {"CUNIT1": "DEG", "CUNIT2": "DEG"}).tostring().encode()
    plain = fits.Header(TAN).tostring().encode()
    assert geometry.middle(cards, (41, 60)) == geometry.middle(plain, (41, 60))


def test_oblong_pixels_are_refused():
    with pytest.raises(ValueError, match="0.72 by 0.36 arcsec"):
        geometry.pixel_scale(wcs(CDELT1=-2e-4, CDELT2=1e-4))


@pytest.mark.parametrize(("track", "scale"), [("space", 0.1), ("ground", 0.2)])
def test_real_cutouts_have_the_published_pixel_scale(real_data, track, scale):
    paths = sorted((real_data / f"sglc1/{track}_based").rglob("image*.fits"))
    for path in paths:
        assert geometry.pixel_scale(fits.getheader(path)) == pytest.approx(scale, rel=1e-6)


def test_real_flux_is_conserved_from_ground_to_space_pixels(real_data):
    path = next((real_data / "sglc1/ground_based").rglob("imageSDSS_R-100002.fits"))
    image = fits.getdata(path).astype(np.float32)
    found, _ = geometry.to_grid(image, 0.2, new_scale=0.3, side=68)
    assert found.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-6)
