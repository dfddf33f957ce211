"""Resampling is that of SciPy, dihedral images are those of NumPy, draws are as asked for."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from keras import ops

from cast_lens import resampling

SIZES = [(9, 9), (12, 12), (20, 33), (2, 2)]
FILLS = {"nearest": "nearest", "reflect": "reflect", 0.0: "grid-constant", -0.7: "grid-constant"}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def noise(n, size, bands=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *size, bands)).astype(np.float32)


def similarities(n, seed=0, rotation=180, mirror=True, zoom=(0.6, 1.4)):
    settings = {"rotation": rotation, "mirror": mirror, "zoom": zoom}
    return numpy(resampling.similarities(n, **settings, seed=keras.random.SeedGenerator(seed)))


def by_scipy(images, matrices, mode, value):
    """Transform every band of every image about its center, in double precision."""
    result = np.empty(images.shape)
    center = (np.array(images.shape[1:3]) - 1) / 2
    for n, matrix in enumerate(matrices.astype(float)):
        for band in range(images.shape[-1]):
            result[n, ..., band] = scipy.ndimage.affine_transform(
                images[n, ..., band].astype(float),
                matrix,
                offset=center - matrix @ center,
                order=1,
                mode=mode,
                cval=value,
            )
    return result


# One of them is what `resample` calls, according to the backend; both must do the same.
WAYS = {"kernel": resampling._resample_by_kernel, "gather": resampling._resample_by_gather}


# Coordinates of up to 33 pixels are known to 4e-6, where neighbors differ by up to about 6.
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", FILLS)
def test_resampling_is_that_of_scipy(way, size, fill):
    images, matrices = noise(12, size), similarities(12)
    value = 0.0 if isinstance(fill, str) else fill
    expected = by_scipy(images, matrices, FILLS[fill], value)
    tensors = ops.convert_to_tensor(images), ops.convert_to_tensor(matrices)
    np.testing.assert_allclose(numpy(WAYS[way](*tensors, fill)), expected, rtol=0, atol=1e-4)
    found = resampling.resample(images, matrices, fill=fill)
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fill", FILLS)
def test_pixels_far_outside_follow_the_fill_rule_too(fill):
    images = noise(2, (9, 9))
    matrices = similarities(2, zoom=(0.1, 0.1))  # ten times the field
    value = 0.0 if isinstance(fill, str) else fill
    expected = by_scipy(images, matrices, FILLS[fill], value)
    found = numpy(resampling.resample(images, matrices, fill=fill))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_mirroring_alone_moves_whole_pixels(signs, fill):
    images = noise(3, (20, 33))
    matrices = np.tile(np.diag(np.float32(signs)), (3, 1, 1))
    found = numpy(resampling.resample(images, matrices, fill=fill))
    np.testing.assert_array_equal(found, images[:, :: signs[0], :: signs[1]])


def spots(n, size, width, centers):
    """Render round Gaussians at (row, column) offsets from the array center, in pixels."""
    grid = np.arange(size) - (size - 1) / 2
    rows, columns = np.meshgrid(grid, grid, indexing="ij")
    squared = (rows - centers[:, :1, None]) ** 2 + (columns - centers[:, 1:, None]) ** 2
    assert len(squared) == n
    return np.exp(-squared / (2 * width**2)).astype(np.float32)[..., None]


def test_rotation_keeps_flux_and_zoom_multiplies_it_by_its_square():
    n = 20
    rng = np.random.default_rng(0)
    images = spots(n, 80, 4.0, rng.uniform(-12, 12, (n, 2)))
    before = images.sum(axis=(1, 2, 3), dtype=float)
    for zoom in (0.6, 1.0, 1.4):
        turned = numpy(resampling.resample(images, similarities(n, zoom=(zoom, zoom)), fill=0.0))
        after = turned.sum(axis=(1, 2, 3), dtype=float)
        np.testing.assert_allclose(after / before, zoom**2, rtol=2e-3)
        # The peak may fall between four pixels: exp(-0.5 / (2 * 2.4^2)) at a zoom of 0.6.
        np.testing.assert_allclose(turned.max(axis=(1, 2, 3)), 1, atol=0.05)


@pytest.mark.parametrize("fill", ["nearest", "reflect", 0.25])
def test_a_flat_sky_stays_flat(fill):
    images = np.full((8, 21, 21, 1), 0.25, np.float32)
    found = numpy(resampling.resample(images, similarities(8), fill=fill))
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


@pytest.mark.parametrize("fill", FILLS)
def test_nan_in_one_object_reaches_no_other(fill):
    images, matrices = noise(5, (12, 12)), similarities(5)
    before = numpy(resampling.resample(images, matrices, fill=fill))
    images[2] = np.nan
    after = numpy(resampling.resample(images, matrices, fill=fill))
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(after[others], before[others])
    assert np.isnan(after[2]).any()


def by_numpy(image, element):
    image = image[::-1] if element & 1 else image
    image = image[:, ::-1] if element & 2 else image
    return image.swapaxes(0, 1) if element & 4 else image


@pytest.mark.parametrize("size", [2, 5, 8])
def test_dihedral_images_are_flips_and_transposes_bit_for_bit(size):
    images = noise(8, (size, size))
    images[:, 0, 0, 0], images[:, 1, 0, 1] = -0.0, np.nan
    found = numpy(resampling.dihedral(images, np.arange(8)))
    expected = np.stack([by_numpy(image, e) for e, image in enumerate(images)])
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_dihedral_images_are_all_rotations_by_90_degrees_and_their_mirror_images():
    image = noise(1, (7, 7))[0]
    found = numpy(resampling.dihedral(np.stack([image] * 8), np.arange(8)))
    turned = [np.rot90(image, k) for k in range(4)]
    expected = turned + [each[::-1] for each in turned]
    assert {each.tobytes() for each in found} == {each.tobytes() for each in expected}


def test_dihedral_elements_are_a_group_of_eight():
    image = noise(1, (5, 5))[0]
    images = numpy(resampling.dihedral(np.stack([image] * 8), np.arange(8)))
    number = {each.tobytes(): e for e, each in enumerate(images)}
    assert len(number) == 8 and number[image.tobytes()] == 0
    table = np.array(
        [
            [number[each.tobytes()] for each in numpy(resampling.dihedral(images, np.full(8, e)))]
            for e in range(8)
        ]
    )
    assert all(sorted(line) == list(range(8)) for line in (*table, *table.T))
    assert not np.array_equal(table, table.T)  # the eight elements of an abelian group would


def test_dihedral_images_conserve_flux_exactly():
    images = noise(8, (11, 11))
    found = numpy(resampling.dihedral(images, np.arange(8)))
    for before, after in zip(images, found):
        assert sorted(before.ravel()) == sorted(after.ravel())


@pytest.mark.parametrize("zoom", [(0.8, 1.2), (1.0, 1.0)])
@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize("mirror", [True, False])
def test_draws_are_similarities_within_their_bounds_and_uniform(rotation, mirror, zoom):
    n = 4000
    matrices = similarities(n, 3, rotation, mirror, zoom).astype(float)
    determinant = np.linalg.det(matrices)
    scale = 1 / np.sqrt(np.abs(determinant))
    products = matrices @ matrices.transpose(0, 2, 1) * scale[:, None, None] ** 2
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(2), products.shape), atol=1e-5)
    if zoom[0] == zoom[1]:
        np.testing.assert_allclose(scale, 1, rtol=1e-5)
    else:
        drawn = (scale - zoom[0]) / (zoom[1] - zoom[0])
        assert scipy.stats.kstest(drawn, "uniform").pvalue > 1e-3
    if mirror:
        assert scipy.stats.binomtest(int((determinant < 0).sum()), n).pvalue > 1e-3
    else:
        assert (determinant > 0).all()
        angle = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
        assert np.abs(angle).max() <= rotation + 1e-3
        if rotation:
            drawn = np.clip((angle / rotation + 1) / 2, 0, 1)
            assert scipy.stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_both_axes_are_mirrored_independently():
    matrices = similarities(4000, rotation=0, zoom=(1, 1))
    signs = matrices[:, [0, 1], [0, 1]]
    assert set(np.unique(np.abs(matrices))) == {0, 1}
    _, counts = np.unique(signs, axis=0, return_counts=True)
    assert len(counts) == 4 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_images_that_are_not_square_have_no_dihedral_images():
    with pytest.raises(ValueError, match="height equal to width"):
        resampling.dihedral(noise(1, (20, 33)), [1])


@pytest.mark.parametrize("fill", ["wrap", "constant", None, True, np.nan])
def test_other_fill_rules_are_refused(fill):
    with pytest.raises(ValueError, match="fill is"):
        resampling.resample(noise(1, (9, 9)), similarities(1), fill=fill)
