"""Superpixels: the same patch of sky in every branch, by loops in integer sky coordinates."""

from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from cast_lens import superpixels

SCALES = {"vis": 0.1, "nir": 0.3, "ground": 0.2}
SHAPES = {"vis": (200, 200, 1), "nir": (66, 66, 3), "ground": (101, 101, 4)}


def images(seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def every_pixel(display):
    return np.arange(display[..., 0].size).reshape(display.shape[:2])


def same(image):
    return image


def in_halves_of_milliarcsec(n, scale):
    """Twice the offset from the center in units of 0.05 arcsec: an integer."""
    return [(2 * k - (n - 1)) * round(scale / 0.05) for k in range(n)]


@pytest.mark.parametrize("name", SHAPES)
def test_coarse_pixel_belongs_to_the_superpixel_at_its_center_on_the_sky(name):
    found = superpixels.divide(images(), SCALES, stretch=same, segment=every_pixel)
    assert found.finest == "vis" and found.n == 40_000
    fine = in_halves_of_milliarcsec(200, 0.1)
    nearest = []
    for at in in_halves_of_milliarcsec(SHAPES[name][0], SCALES[name]):
        distances = [abs(at - f) for f in fine]
        nearest.append(distances.index(min(distances)))  # the first of two
    expected = [[200 * row + column for column in nearest] for row in nearest]
    assert found.labels[name].tolist() == expected


def test_infrared_pixel_is_at_the_middle_of_three_by_three_visible_ones():
    found = superpixels.divide(images(), SCALES, stretch=same, segment=every_pixel)
    assert found.labels["nir"][0, 0] == 200 * 2 + 2
    assert found.labels["nir"][65, 1] == 200 * 197 + 5


def test_oblong_images_keep_rows_and_columns_apart():
    shapes = {"fine": (6, 12, 1), "coarse": (2, 4, 1)}
    found = superpixels.divide(
        images(shapes=shapes), {"fine": 0.1, "coarse": 0.3}, stretch=same, segment=every_pixel
    )
    assert found.labels["coarse"].tolist() == [[13, 16, 19, 22], [49, 52, 55, 58]]


def test_field_is_divided_after_the_stretch_and_labels_have_no_gaps():
    pair = images(shapes={"vis": (4, 4, 1)})
    pair["vis"][...] = np.arange(16).reshape(4, 4, 1)
    found = superpixels.divide(
        pair, SCALES, stretch=lambda x: x // 8, segment=lambda x: 5 + 7 * x[..., 0].astype(int)
    )
    assert found.n == 2
    assert found.labels["vis"].tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]


def blocks(shapes, size):
    def segment(display):
        row, column = np.indices(display.shape[:2]) // size
        return row * 1000 + column

    return superpixels.divide(images(shapes=shapes), SCALES, stretch=same, segment=segment)


def test_turned_off_superpixel_is_its_mean_in_every_band_of_every_input():
    found, given = blocks(SHAPES, 25), images()
    off = superpixels.turned_off(given, found, "mean")
    for name, image in given.items():
        labels = found.labels[name]
        for band in range(image.shape[-1]):
            means = ndimage.mean(image[..., band], labels, np.arange(found.n))
            np.testing.assert_allclose(off[name][..., band], means[labels], rtol=1e-5, atol=1e-7)


def test_turned_off_superpixel_is_the_constant_of_each_band():
    fill = {"vis": -1.0, "nir": [1.0, 2.0, 3.0], "ground": 0}
    off = superpixels.turned_off(images(), blocks(SHAPES, 25), fill)
    assert (off["vis"] == -1).all() and (off["ground"] == 0).all()
    assert [off["nir"][..., band].mean() for band in range(3)] == [1, 2, 3]


def test_superpixel_without_a_center_of_a_coarse_pixel_has_no_pixel_there():
    found = blocks({"vis": (6, 6, 1), "nir": (2, 2, 3)}, 1)
    assert len(np.unique(found.labels["nir"])) == 4 < found.n
    off = superpixels.turned_off(images(shapes={"nir": (2, 2, 3)}), found, "mean")
    assert np.isfinite(off["nir"]).all()


def test_map_on_the_sky_keeps_a_slope_and_repeats_its_border():
    """7 cells of 2.8 arcsec on 200 pixels of 0.1 arcsec, a linear function of both coordinates."""
    cells = (np.arange(7) - 3) * 2.8
    values = 2 * cells[:, None] - 3 * cells[None, :]
    found = superpixels.on_grid(values, (19.6, 19.6), (200, 200), 0.1)
    at = np.clip((np.arange(200) - 99.5) * 0.1, -8.4, 8.4)
    np.testing.assert_allclose(found, 2 * at[:, None] - 3 * at[None, :], atol=1e-9)


@pytest.mark.parametrize(
    "segment",
    [
        superpixels.quickshift,
        partial(superpixels.slic, n_segments=20, compactness=0.1, sigma=0),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_borders_of_superpixels_follow_those_of_a_bright_disk(segment, bands):
    row, column = np.indices((60, 60)) - 29.5
    disk = np.hypot(row, column) < 15
    display = np.repeat(disk[..., None].astype(float), bands, axis=-1)
    found = superpixels.divide({"vis": display}, SCALES, stretch=same, segment=segment)
    bright = superpixels.mean_of_each(disk.astype(float), found.labels["vis"], found.n)
    pixels = np.bincount(found.labels["vis"].ravel())
    assert 2 <= found.n < 200
    assert (np.minimum(bright, 1 - bright) * pixels).sum() < 0.01 * disk.size


def divide_with(**changes):
    arguments = {
        "images": images(), "pixel_scales": SCALES, "stretch": same, "segment": every_pixel
    }  # fmt: skip
    return superpixels.divide(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "no image"),
        ({"images": {"vis": np.zeros((4, 4))}}, r"vis: shape \(4, 4\), expected"),
        ({"pixel_scales": {"vis": 0.1}}, "nir: pixel scale None"),
        ({"pixel_scales": SCALES | {"nir": 0.0}}, "nir: pixel scale 0.0"),
        ({"stretch": lambda x: x[1:]}, r"segments of vis have shape \(199, 200\)"),
    ],
)
def test_what_cannot_be_divided_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        divide_with(**changes)


@pytest.mark.parametrize("fill", ["median", 0.0, {"vis": 0.0}, None])
def test_fill_is_means_or_a_constant_for_every_input(fill):
    with pytest.raises(ValueError, match='expected "mean" or constants for'):
        superpixels.turned_off(images(), divide_with(), fill)


def test_superpixels_of_another_image_are_refused():
    other = images(shapes=SHAPES | {"nir": (64, 64, 3)})
    with pytest.raises(ValueError, match=r"nir: image of \(64, 64, 3\), but superpixels of"):
        superpixels.turned_off(other, divide_with(), "mean")
