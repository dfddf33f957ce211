"""Draws are one an object and agree on the sky; nothing happens outside training."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.stats
from keras import ops

from cast_lens import augment, resampling

BRANCHES = {"vis": (200, 0.1), "nir": (66, 0.3)}  # pixels, arcsec a pixel: Bom et al., Sec. 2.1
BOM = {"rotation": 180, "mirror": True, "zoom": (0.8, 1.2)}
GABE = {"rotation": 90, "mirror": True, "zoom": (0.6, 1.4)}


def similarity(seed=0, settings=BOM, fill="nearest"):
    return augment.RandomSimilarity(**settings, fill=fill, seed=seed)


LAYERS = {
    "similarity": similarity,
    "dihedral": lambda seed=0: augment.RandomDihedral(seed=seed),
    "gain": lambda seed=0: augment.RandomGainOffset(gain=(0.8, 1.2), offset=(-0.1, 0.1), seed=seed),
}
EVERY = pytest.mark.parametrize("kind", LAYERS)


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def noise(n=5, bands=2, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"vis": 24, "nir": 8}
    return {
        name: rng.normal(size=(n, size, size, bands)).astype(np.float32)
        for name, size in sizes.items()
    }


def spots(positions, size, pixel_scale):
    """Render a Gaussian star of 0.7 arcsec in every band, at (row, column) offsets in arcsec.

    Args:
        positions: Shape (batch, band, 2).
        size: Pixels a side.
        pixel_scale: Arcsec a pixel.
    """
    grid = (np.arange(size) - (size - 1) / 2) * pixel_scale
    row, column = grid[None, :, None, None], grid[None, None, :, None]
    squared = (row - positions[:, None, None, :, 0]) ** 2
    squared = squared + (column - positions[:, None, None, :, 1]) ** 2
    return np.exp(-squared / (2 * 0.7**2)).astype(np.float32)


def centroids(images, pixel_scale):
    """Return the centroids in arcsec from the array center, shape (batch, band, 2)."""
    images = images.astype(float)
    grid = (np.arange(images.shape[1]) - (images.shape[1] - 1) / 2) * pixel_scale
    flux = images.sum(axis=(1, 2))
    rows = np.einsum("bhwc,h->bc", images, grid) / flux
    columns = np.einsum("bhwc,w->bc", images, grid) / flux
    return np.stack([rows, columns], axis=-1)


def sky_matrices(before, after):
    """Find what took two stars from `before` to `after`, both of shape (batch, 2, 2)."""
    return after.swapaxes(1, 2) @ np.linalg.inv(before.swapaxes(1, 2))


@pytest.mark.parametrize("kind, settings", [("bom", BOM), ("gabe", GABE), ("dihedral", None)])
def test_all_branches_are_transformed_alike_on_the_sky(kind, settings):
    n = 12
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, n)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    # Two stars of every object, in two bands; 4.5 arcsec * 1.4 stays inside the image.
    positions = 4.5 * np.stack([direction, direction[:, ::-1] * [1, -1]], axis=1)
    images = {name: spots(positions, *shape) for name, shape in BRANCHES.items()}
    layer = similarity(5, settings, 0.0) if settings else augment.RandomDihedral(seed=5)
    turned = numpy(layer(images, training=True))
    found = {name: centroids(turned[name], BRANCHES[name][1]) for name in BRANCHES}
    # 0.1 of the larger pixels; the next test holds each branch to 0.1 of its own.
    np.testing.assert_allclose(found["nir"], found["vis"], rtol=0, atol=0.03)
    matrices = sky_matrices(positions, found["vis"])
    zoom = np.sqrt(np.abs(np.linalg.det(matrices)))
    low, high = settings["zoom"] if settings else (1, 1)
    assert low - 0.01 < zoom.min() and zoom.max() < high + 0.01
    assert settings is None or np.ptp(zoom) > 0.1
    np.testing.assert_allclose(
        matrices @ matrices.swapaxes(1, 2), zoom[:, None, None] ** 2 * np.eye(2), atol=0.01
    )
    assert len(np.unique(np.round(matrices, 1), axis=0)) > 4  # objects differ


@pytest.mark.parametrize(
    "settings", [BOM, GABE, {"rotation": 30, "mirror": False, "zoom": (0.9, 1.0)}]
)
def test_stars_land_where_the_drawn_matrix_puts_them(settings):
    n = 20
    rng = np.random.default_rng(2)
    positions = rng.uniform(-3.5, 3.5, (n, 3, 2))
    generator = keras.random.SeedGenerator(7)
    matrices = numpy(resampling.similarities(n, **settings, seed=generator)).astype(float)
    expected = positions @ np.linalg.inv(matrices).swapaxes(1, 2)
    for name, (size, pixel_scale) in BRANCHES.items():
        layer, images = similarity(7, settings, 0.0), spots(positions, size, pixel_scale)
        turned = numpy(layer(images, training=True))
        found = centroids(turned, pixel_scale)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 * pixel_scale, err_msg=name)


def test_all_bands_of_an_object_are_transformed_alike():
    images = noise(bands=1)["vis"]
    both = np.concatenate([images, 2 * images], axis=-1)
    for make in (similarity, LAYERS["dihedral"]):
        found = numpy(make()(both, training=True))
        np.testing.assert_allclose(found[..., 1], 2 * found[..., 0], rtol=1e-5, atol=1e-6)


@EVERY
def test_nothing_happens_outside_training(kind):
    images, layer = noise(), LAYERS[kind]()
    inputs = {name: keras.Input(image.shape[1:], name=name) for name, image in images.items()}
    model = keras.Model(inputs, layer(inputs))
    for found in (layer(images), layer(images, training=False), model.predict_on_batch(images)):
        for name, image in images.items():
            np.testing.assert_array_equal(numpy(found)[name], image)
    changed = numpy(model(images, training=True))
    assert all(not np.array_equal(changed[name], image) for name, image in images.items())


@EVERY
def test_draws_repeat_with_the_seed_and_only_then(kind):
    images = noise()
    layer, again, other = (LAYERS[kind](seed) for seed in (3, 3, 4))
    first, second = (numpy(layer(images, training=True))["vis"] for _ in range(2))
    np.testing.assert_array_equal(numpy(again(images, training=True))["vis"], first)
    assert not np.array_equal(second, first)
    assert not np.array_equal(numpy(other(images, training=True))["vis"], first)


@EVERY
def test_every_object_has_a_draw_of_its_own(kind):
    images = np.tile(noise(1)["vis"], (64, 1, 1, 1))
    found = numpy(LAYERS[kind]()(images, training=True))
    assert len({image.tobytes() for image in found}) == (8 if kind == "dihedral" else 64)


@EVERY
def test_branches_may_be_one_tensor_or_a_list(kind):
    images = noise()
    expected = numpy(LAYERS[kind]()(images, training=True))
    alone = numpy(LAYERS[kind]()(images["vis"], training=True))
    listed = numpy(LAYERS[kind]()([images["vis"], images["nir"]], training=True))
    np.testing.assert_array_equal(alone, expected["vis"])
    np.testing.assert_array_equal(listed[1], expected["nir"])


def test_all_eight_dihedral_elements_are_drawn_equally_often():
    image = noise(1)["nir"]
    found = numpy(augment.RandomDihedral(seed=1)(np.tile(image, (4000, 1, 1, 1)), training=True))
    numbers = np.unique([hash(each.tobytes()) for each in found], return_counts=True)[1]
    assert len(numbers) == 8 and scipy.stats.chisquare(numbers).pvalue > 1e-3


def test_gain_and_offset_are_uniform_and_the_same_for_all_pixels_bands_and_branches():
    n = 2000
    zeros, ones = np.zeros((n, 2, 2, 2), np.float32), np.ones((n, 3, 3, 1), np.float32)
    layer = LAYERS["gain"](2)
    found = numpy(layer({"zeros": zeros, "ones": ones}, training=True))
    for branch in found.values():
        np.testing.assert_array_equal(branch, np.broadcast_to(branch[:, :1, :1, :1], branch.shape))
    offset = found["zeros"][:, 0, 0, 0].astype(float)
    gain = found["ones"][:, 0, 0, 0] - offset
    for drawn, low, width in ((gain, 0.8, 0.4), (offset, -0.1, 0.2)):
        assert scipy.stats.kstest((drawn - low) / width, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(gain, offset)[0, 1]) < 0.1


@EVERY
def test_layers_return_from_their_configuration_and_draw_as_the_first(kind):
    layer, images = LAYERS[kind](11), noise()
    again = type(layer).from_config(layer.get_config())
    expected, found = (numpy(each(images, training=True)) for each in (layer, again))
    np.testing.assert_array_equal(found["vis"], expected["vis"])


def two_branch_model(seed=0):
    """Build a model with all three layers and a score in [0, 1]."""
    shapes = {name: image.shape[1:] for name, image in noise().items()}
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    branches = inputs
    for make in LAYERS.values():
        branches = make(seed)(branches)
    pooled = []
    for branch in branches.values():
        branch = keras.layers.Conv2D(4, 3, activation="relu")(branch)
        pooled.append(keras.layers.GlobalAveragePooling2D()(branch))
    merged = keras.layers.Concatenate()(pooled)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(merged))


def test_model_with_augmentation_trains_and_returns_from_its_file(tmp_path):
    keras.utils.set_random_seed(0)
    model, images = two_branch_model(), noise(13)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    history = model.fit(images, np.arange(13.0)[:, None] % 2, batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict_on_batch(images)
    np.testing.assert_array_equal(again.predict_on_batch(images), expected)
    np.testing.assert_allclose(
        model.predict_on_batch(noise(5)), two_branch_scores(model, noise(5)), rtol=1e-5
    )


def two_branch_scores(model, images):
    """Score one object at a time."""
    alone = [{name: image[n : n + 1] for name, image in images.items()} for n in range(5)]
    return np.concatenate([model.predict_on_batch(each) for each in alone])


def skewed_score(images):
    """Score each object by a function that no dihedral element leaves as it is."""
    images = np.asarray(ops.convert_to_numpy(images))
    weight = np.random.default_rng(0).normal(size=images.shape[1:])
    return 1 / (1 + np.exp(-np.einsum("bhwc,hwc->b", images, weight)))[:, None]


def all_eight(images):
    for image in (images, images[:, ::-1]):
        for k in range(4):
            yield np.rot90(image, k, axes=(1, 2))


def test_dihedral_scores_are_those_of_eight_turned_images():
    images = 0.1 * noise(6)["nir"]
    scores = np.stack([skewed_score(each) for each in all_eight(images)])
    assert np.ptp(scores, axis=0).min() > 0.01
    mean = augment.dihedral_mean(skewed_score, images)
    product = augment.dihedral_product(skewed_score, images)
    assert mean.shape == product.shape == (6, 1)
    np.testing.assert_allclose(mean, scores.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(product, scores.prod(axis=0), rtol=1e-12)


def test_dihedral_scores_of_a_network_do_not_depend_on_how_the_object_is_turned():
    keras.utils.set_random_seed(1)
    model, images = two_branch_model(), noise(4)
    plain = model.predict_on_batch(images)
    mean = augment.dihedral_mean(model, images)
    for k in (1, 2):
        turned = {name: np.rot90(image, k, axes=(1, 2)) for name, image in images.items()}
        turned = {name: np.ascontiguousarray(image[:, ::-1]) for name, image in turned.items()}
        np.testing.assert_allclose(augment.dihedral_mean(model, turned), mean, rtol=1e-6)
        assert np.abs(model.predict_on_batch(turned) - plain).max() > 1e-4


def test_product_of_the_smallest_probabilities_is_not_zero():
    def tiny(images):
        return np.full((len(images), 1), 1e-38, np.float32)

    product = augment.dihedral_product(tiny, noise(2)["nir"])
    np.testing.assert_allclose(product, np.float64(np.float32(1e-38)) ** 8, rtol=1e-6)


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: similarity(settings=BOM | {"rotation": 181}), "rotation is 181"),
        (lambda: similarity(settings=BOM | {"zoom": (1.2, 0.8)}), "zoom is"),
        (lambda: similarity(settings=BOM | {"zoom": (0, 1)}), "zoom is"),
        (lambda: similarity(settings=BOM | {"zoom": (1,)}), "zoom is"),
        (lambda: similarity(fill="wrap"), "fill is 'wrap'"),
        (lambda: augment.RandomGainOffset(gain=(1, 0), offset=(0, 0), seed=0), "gain is"),
        (lambda: augment.RandomGainOffset(gain=(1, 1), offset=(0,), seed=0), "offset is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_of_this_holds_under_another_backend(backend, root):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    files = [f"tests/test_{name}.py" for name in ("augment", "resampling", "stretch")]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not under_another_backend", *files]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
