"""LIME and occlusion of scores whose dependence on the sky is known exactly."""

from types import SimpleNamespace

import numpy as np
import pytest

from cast_lens import explain, superpixels

SCALES = {"vis": 0.1, "nir": 0.3}
SIDE, N = 30, 9  # pixels of vis; 3 x 3 superpixels of one arcsec
WEIGHTS = np.array([0.5, -0.2, 0.0, 0.11, -0.4, 0.3, 0.02, 0.0, -0.07])


def ones():
    return {"vis": np.ones((SIDE, SIDE, 1)), "nir": np.ones((SIDE // 3, SIDE // 3, 3))}


def thirds(display):
    row, column = np.indices(display.shape[:2]) // 10
    return 3 * row + column


def nine(images=None):
    return superpixels.divide(images or ones(), SCALES, stretch=lambda x: x, segment=thirds)


def presence(vis):
    """Which of the nine are there, from the pixels alone; 0 is off, 1 is on."""
    blocks = vis[..., 0].reshape(-1, 3, 10, 3, 10)
    assert (np.ptp(blocks, axis=(2, 4)) == 0).all()
    return blocks[:, :, 0, :, 0].reshape(-1, N).astype(float)


def run(predict, **changes):
    arguments = {
        "images": ones(), "segments": nine(), "seed": 0, "n_samples": 200, "progress": False,
        "fill": {"vis": 0, "nir": 0},
    }  # fmt: skip
    return explain.lime(predict, **(arguments | changes))


def linear(images):
    return 0.25 + presence(images["vis"]) @ WEIGHTS


def curved(images):
    there = presence(images["vis"])
    return 1 / (1 + np.exp(-(there @ WEIGHTS + 2 * there[:, 0] * there[:, 4])))


def test_weights_of_a_score_linear_in_presence_come_back():
    found = run(linear, ridge=0)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=1e-10)
    assert found.intercept == pytest.approx(0.25)
    assert found.r2 == pytest.approx(1)
    assert found.score == pytest.approx(0.25 + WEIGHTS.sum())


@pytest.mark.parametrize(("kernel_width", "ridge"), [(0.25, 1.0), (0.1, 5.0)])
def test_fit_is_the_weighted_ridge_regression_of_the_normal_equations(kernel_width, ridge):
    seen = []

    def spy(images):
        seen.append(presence(images["vis"]))
        return curved(images)

    found = run(spy, kernel_width=kernel_width, ridge=ridge, n_samples=96, batch=32)
    there = np.concatenate(seen)
    scores = curved({"vis": np.kron(there.reshape(-1, 3, 3), np.ones((10, 10)))[..., None]})
    design, weight = np.column_stack([there, np.ones(96)]), []
    for row in there:
        distance = 1 - row.sum() / (np.sqrt(row.sum()) * 3) if row.any() else 1.0  # cosine to ones
        weight.append(np.exp(-(distance**2) / kernel_width**2) ** 0.5)
    weight = np.array(weight)
    penalty = np.diag([ridge] * N + [0])
    solution = np.linalg.solve(
        design.T @ (weight[:, None] * design) + penalty, design.T @ (weight * scores)
    )
    np.testing.assert_allclose(found.weights, solution[:N], atol=1e-10)
    assert found.intercept == pytest.approx(solution[N])
    mean = np.average(scores, weights=weight)
    unexplained = weight @ (scores - design @ solution) ** 2 / (weight @ (scores - mean) ** 2)
    assert found.r2 == pytest.approx(1 - unexplained)
    assert 0 < found.r2 < 0.999


def test_half_of_the_superpixels_are_there_and_all_of_them_in_the_first_sample():
    seen = []

    def spy(images):
        seen.append(presence(images["vis"]))
        return linear(images)

    run(spy, n_samples=2000)
    there = np.concatenate(seen)[:2000]
    assert there[0].all()
    assert not there[1:].all()
    sd = 0.5 / np.sqrt(2000)
    assert (abs(there.mean(axis=0) - 0.5) < 4.5 * sd).all()


def test_superpixel_is_off_at_the_same_place_in_all_branches():
    def check(images):
        assert images["nir"].dtype == images["vis"].dtype == np.float32
        nir = images["nir"].reshape(-1, 10, 10, 3)
        coarse = images["vis"][:, 1::3, 1::3, :]  # centers of the coarse pixels
        assert (nir == coarse).all()
        return nir.mean(axis=(1, 2, 3))

    assert run(check).weights.min() > 0


def test_network_that_looks_at_one_patch_of_the_infrared_rests_on_its_superpixel_alone():
    found = run(lambda images: images["nir"][:, 4:6, 4:6].mean(axis=(1, 2, 3)), ridge=0)
    np.testing.assert_allclose(found.weights, np.eye(N)[4], atol=1e-10)


def test_one_branch_is_enough():
    segments = nine({"vis": ones()["vis"]})
    found = run(linear, images={"vis": ones()["vis"]}, segments=segments, ridge=0)
    np.testing.assert_allclose(found.weights, WEIGHTS, atol=1e-10)


def test_mean_fill_hides_a_superpixel_only_if_it_has_structure():
    """A network of the variance in each superpixel: flat ones do not matter when filled."""
    images = ones()
    images["vis"][:10, :10, 0] += np.indices((10, 10)).sum(axis=0) % 2  # a chessboard in the first

    def variance(batch):
        return batch["vis"].reshape(-1, 3, 10, 3, 10).std(axis=(2, 4)).sum(axis=(1, 2))

    found = run(variance, images=images, fill="mean", ridge=0)
    np.testing.assert_allclose(found.weights, 0.5 * np.eye(N)[0], atol=1e-6)


def test_same_seed_same_explanation_and_another_seed_another():
    a, b, c = (run(curved, seed=seed) for seed in (3, np.random.default_rng(3), 4))
    assert a.weights.tolist() == b.weights.tolist()
    assert a.r2 == b.r2
    assert a.weights.tolist() != c.weights.tolist()


@pytest.mark.parametrize("batch", [1, 7, 200, 1000])
def test_size_of_the_batches_changes_nothing_and_all_are_of_one_size(batch):
    sizes = set()

    def spy(images):
        sizes.add(len(images["nir"]))
        return curved(images)

    assert run(spy, batch=batch).weights.tolist() == run(curved).weights.tolist()
    assert sizes == {min(batch, 200)}


def test_constant_score_has_no_weights_and_no_coefficient_of_determination():
    found = run(lambda images: np.full(len(images["vis"]), 0.7))
    np.testing.assert_allclose(found.weights, 0, atol=1e-12)
    assert np.isnan(found.r2)


@pytest.mark.parametrize(
    ("predict", "changes", "message"),
    [
        (linear, {"n_samples": 9}, "9 samples for 9 superpixels"),
        (linear, {"fill": "zero"}, "expected \"mean\" or constants for \\['nir', 'vis'\\]"),
        (lambda images: linear(images)[:, None], {}, r"returned \(32, 1\)"),
        (lambda images: linear(images) * np.nan, {}, "32 values that are not finite"),
    ],
)
def test_what_cannot_be_explained_is_refused(predict, changes, message):
    with pytest.raises(ValueError, match=message):
        run(predict, **changes)


def occlusion_by_loops(weights, scales, box, starts):
    """Score sum(weights * image), image 1, hidden 0: coordinates in units of 0.05 arcsec."""
    unit = {name: round(2 * scale / 0.1) for name, scale in scales.items()}
    height, width = weights["vis"].shape
    total, count = np.zeros((2, height, width))

    def inside(name, row, column, low):
        rows, columns = weights[name].shape
        y, x = (2 * row - rows + 1) * unit[name], (2 * column - columns + 1) * unit[name]
        return all(2 * a <= b < 2 * a + 2 * box for a, b in zip(low, (y, x)))

    for low in [(y, x) for y in starts[0] for x in starts[1]]:
        drop = 0.0
        for name, values in weights.items():
            for (row, column), value in np.ndenumerate(values):
                drop += value if inside(name, row, column, low) else 0
        for row in range(height):
            for column in range(width):
                if inside("vis", row, column, low):
                    total[row, column] += drop
                    count[row, column] += 1
    return total / count


def test_occlusion_is_the_mean_drop_of_the_boxes_over_a_pixel_by_loops_on_the_sky():
    rng = np.random.default_rng(5)
    weights = {"vis": rng.normal(size=(12, 18)), "nir": rng.normal(size=(4, 6))}

    def predict(images):
        return sum((images[n][..., 0] * w).sum(axis=(1, 2)) for n, w in weights.items())

    images = {name: np.ones((*w.shape, 1)) for name, w in weights.items()}
    found = explain.occlusion(
        predict, images, SCALES, box=0.4, step=0.25, fill={"vis": 0, "nir": 0}, batch=5,
        progress=False,
    )  # fmt: skip
    # Units of 0.05 arcsec: 1.2 arcsec need 5 boxes 0.2 apart, 1.8 need 7 boxes 7/30 apart.
    starts = [np.linspace(-12, 4, 5), np.linspace(-18, 10, 7)]
    expected = occlusion_by_loops(weights, SCALES, 8, starts)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_occlusion_of_boxes_side_by_side_shows_where_one_bright_pixel_is():
    image = np.zeros((30, 30, 1))
    image[12, 25] = 2.0
    found = explain.occlusion(
        lambda images: images["vis"].max(axis=(1, 2, 3)), {"vis": image}, SCALES, box=1.0, step=1.0,
        fill={"vis": 0}, progress=False,
    )  # fmt: skip
    expected = np.zeros((30, 30))
    expected[10:20, 20:30] = 2
    assert found.tolist() == expected.tolist()


def test_occlusion_by_means_keeps_what_is_flat():
    images = ones()
    images["nir"][3, 3, 1] = 5
    found = explain.occlusion(
        lambda x: x["nir"].max(axis=(1, 2, 3)) + x["vis"].sum(axis=(1, 2, 3)), images, SCALES,
        box=0.6, step=0.6, fill="mean", progress=False,
    )  # fmt: skip
    expected = np.zeros((30, 30))
    expected[6:12, 6:12] = 5 - (5 + 3) / 4
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_box_between_the_centers_of_coarse_pixels_changes_only_the_fine_input():
    found = explain.occlusion(
        lambda x: x["nir"].mean(axis=(1, 2, 3)), ones(), SCALES, box=0.1, step=0.1,
        fill="mean", progress=False, batch=256,
    )  # fmt: skip
    assert (found == 0).all()


@pytest.mark.parametrize(("box", "step"), [(3.1, 1), (1, 1.1), (1, 0), (1, -1)])
def test_box_is_not_larger_than_the_field_nor_smaller_than_the_step(box, step):
    with pytest.raises(ValueError, match="expected 0 < step <= box <= 3 arcsec"):
        explain.occlusion(linear, ones(), SCALES, box=box, step=step, fill="mean")


def stand_in(structure, output):
    calls = []

    def predict_on_batch(images):
        calls.append(images)
        return output

    return SimpleNamespace(
        name="net", input=structure, predict_on_batch=predict_on_batch, calls=calls
    )


def test_score_is_the_sigmoid_or_the_second_of_two_classes():
    two, one = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([[0.2], [0.6]])
    assert explain.lens_scores(stand_in({}, two))({}).tolist() == [0.1, 0.7]
    assert explain.lens_scores(stand_in({}, one))({}).tolist() == [0.2, 0.6]
    for output in (np.zeros((2, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"net: output of shape \(2.*expected \(batch, 1\)"):
            explain.lens_scores(stand_in({}, output))({})


def test_images_reach_a_network_in_the_structure_of_its_inputs():
    vis, nir = SimpleNamespace(name="vis"), SimpleNamespace(name="nir")
    images = {"nir": 2, "vis": 1}
    assert explain.arrange(stand_in({"vis": vis, "nir": nir}, None), images) == images
    assert explain.arrange(stand_in([vis, nir], None), images) == [1, 2]
    assert explain.arrange(stand_in(vis, None), {"anything": 3}) == 3
