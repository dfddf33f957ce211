"""Losses against hand values, loops over pairs, Keras's focal loss and finite differences."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from cast_lens import losses

FOCAL = pytest.mark.parametrize("alpha, gamma", [(0.75, 2.0), (0.25, 1.5), (0.5, 0.0), (1.0, 0.5)])
REDUCTIONS = pytest.mark.parametrize("reduction", ["sum", "mean"])


def labels_and_logits(n=60, scale=3.0, dtype=np.float64, seed=0):
    """Draw labels and logits of `n` objects, both classes among them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3 == 0
    return labels.astype(dtype), (scale * rng.normal(size=n)).astype(dtype)


def focal(labels, logits, **settings):
    return keras.ops.convert_to_numpy(losses.focal(labels, logits, **settings))


def ranknet(labels, logits, reduction):
    return keras.ops.convert_to_numpy(losses.ranknet(labels, logits, reduction=reduction))


def gradient(loss, logits):
    """Differentiate the sum of `loss(logits)` with TensorFlow."""
    point = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(point)
        total = tf.reduce_sum(loss(point))
    return tape.gradient(total, point).numpy()


def central_difference(loss, logits, step=1e-5):
    """Differentiate the sum of `loss(logits)` one logit at a time."""
    result = np.empty_like(logits)
    for index in np.ndindex(logits.shape):
        above, below = logits.copy(), logits.copy()
        above[index] += step
        below[index] -= step
        result[index] = (np.sum(loss(above)) - np.sum(loss(below))) / (2 * step)
    return result


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def pairs_by_loop(labels, scores):
    """Sum the paper's equation over i < j with labels that differ; return it and the pairs."""
    total, count = 0.0, 0
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] != labels[j]:
                y = 1.0 if labels[i] > labels[j] else 0.0
                p = 1.0 / (1.0 + math.exp(-(scores[i] - scores[j])))
                total += -y * math.log(p) - (1.0 - y) * math.log(1.0 - p)
                count += 1
    return total, count


# (1 - p_t)^2 ln(1 / p_t) at p_t = 1/2 is ln 2 / 4; a logit of ln 3 is p = 3/4.
@pytest.mark.parametrize(
    "label, logit, alpha, gamma, expected",
    [
        (1, 0.0, 0.75, 2.0, 0.75 * 0.25 * math.log(2)),
        (0, 0.0, 0.75, 2.0, 0.25 * 0.25 * math.log(2)),
        (1, math.log(3), 0.75, 2.0, 0.75 / 16 * math.log(4 / 3)),
        (0, math.log(3), 0.75, 2.0, 0.25 * 9 / 16 * math.log(4)),
        (0, -math.log(3), 0.25, 1.0, 0.75 / 4 * math.log(4 / 3)),
        (1, 1e4, 0.75, 2.0, 0.0),
        (1, -1e4, 0.75, 2.0, 7500.0),
        (0, 1e4, 0.75, 2.0, 2500.0),
        (0, -1e4, 0.75, 2.0, 0.0),
    ],
)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_focal_has_the_values_worked_out_by_hand(label, logit, alpha, gamma, expected, dtype, rtol):
    loss = focal(np.array([label], dtype), np.array([logit], dtype), alpha=alpha, gamma=gamma)
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss, [expected], rtol=rtol, atol=0)


# Keras forms 1 - p_t by subtraction, which loses relative, not absolute, precision.
@FOCAL
@pytest.mark.parametrize("dtype, rtol, atol", [("float32", 1e-5, 1e-6), ("float64", 1e-10, 1e-13)])
def test_focal_equals_that_of_keras_with_class_balancing(alpha, gamma, dtype, rtol, atol):
    labels, logits = labels_and_logits(dtype=dtype)
    balanced = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True,
        alpha=alpha,
        gamma=gamma,
        from_logits=True,
        reduction=None,
        dtype=dtype,
    )
    expected = keras.ops.convert_to_numpy(balanced(labels[:, None], logits[:, None]))
    found = focal(labels, logits, alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_focal_without_focus_and_with_equal_weights_is_half_of_cross_entropy():
    labels, logits = labels_and_logits()
    p = sigmoid(logits)
    cross_entropy = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    found = focal(labels, logits, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(found, cross_entropy / 2, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_and_its_gradient_are_finite_at_any_logit(dtype, gamma):
    logits = np.array([-1e4, -1e3, -100, -1, 0, 1, 100, 1e3, 1e4], dtype)
    for label in (0, 1):
        labels = np.full(len(logits), label, dtype)
        settings = {"alpha": 0.75, "gamma": gamma}
        slopes = gradient(lambda x, y=labels, s=settings: losses.focal(y, x, **s), logits)
        assert np.isfinite(focal(labels, logits, **settings)).all()
        assert np.isfinite(slopes).all()
        wrong, right = slopes[[0, -1]] if label else slopes[[-1, 0]]  # far from and at the truth
        assert abs(wrong) == pytest.approx(0.75 if label else 0.25, rel=1e-6)
        assert right == pytest.approx(0.0, abs=1e-12)


@FOCAL
def test_focal_gradient_is_the_derivative_of_focal(alpha, gamma):
    labels, logits = labels_and_logits()
    settings = {"alpha": alpha, "gamma": gamma}
    found = losses.focal_gradient(labels, sigmoid(logits), **settings)
    automatic = gradient(lambda x: losses.focal(labels, x, **settings), logits)
    numerical = central_difference(lambda x: focal(labels, x, **settings), logits)
    np.testing.assert_allclose(found, automatic, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found, numerical, rtol=1e-7, atol=1e-9)


def test_focal_gradient_has_the_values_worked_out_by_hand():
    # -1/4 (ln 2 + 1/2) alpha_t (2 y - 1) at p = 1/2
    slope = (math.log(2) + 0.5) / 4
    found = losses.focal_gradient(np.array([1, 0]), np.array([0.5, 0.5]), alpha=0.75, gamma=2.0)
    np.testing.assert_allclose(found, [-0.75 * slope, 0.25 * slope], rtol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_focal_gradient_is_finite_at_probabilities_zero_and_one(gamma, dtype):
    with np.errstate(all="raise"):
        found = losses.focal_gradient(
            np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1], dtype), alpha=0.75, gamma=gamma
        )
    # the sure and wrong have the slope of weighted cross-entropy, the sure and right none
    np.testing.assert_allclose(found, [-0.75, 0.0, 0.0, 0.25], rtol=1e-15, atol=0)


def test_focal_gradient_without_focus_and_with_equal_weights_is_half_of_p_minus_y():
    labels, logits = labels_and_logits()
    p = sigmoid(logits)
    found = losses.focal_gradient(labels, p, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(found, (p - labels) / 2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("alpha, kept", [(0.0, 0), (1.0, 1)])
def test_focal_at_the_ends_of_alpha_leaves_one_class(alpha, kept):
    labels, logits = labels_and_logits()
    p = sigmoid(logits)
    found = losses.focal_gradient(labels, p, alpha=alpha, gamma=0.0)
    expected = np.where(labels == kept, p - labels, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert ((focal(labels, logits, alpha=alpha, gamma=2.0) > 0) == (labels == kept)).all()


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32])
def test_focal_and_its_gradient_do_not_care_for_the_type_of_labels(dtype):
    labels, logits = labels_and_logits()
    settings = {"alpha": 0.75, "gamma": 2.0}
    np.testing.assert_array_equal(
        focal(labels.astype(dtype), logits, **settings), focal(labels, logits, **settings)
    )
    np.testing.assert_array_equal(
        losses.focal_gradient(labels.astype(dtype), sigmoid(logits), **settings),
        losses.focal_gradient(labels, sigmoid(logits), **settings),
    )


def test_focal_of_a_stack_is_that_of_each_network():
    labels, logits = (x.reshape(20, 3) for x in labels_and_logits())
    stack = focal(labels, logits, alpha=0.75, gamma=2.0)
    slopes = losses.focal_gradient(labels, sigmoid(logits), alpha=0.75, gamma=2.0)
    assert stack.shape == slopes.shape == (20, 3)
    for k in range(3):
        alone = focal(labels[:, k], logits[:, k], alpha=0.75, gamma=2.0)
        slope = losses.focal_gradient(labels[:, k], sigmoid(logits[:, k]), alpha=0.75, gamma=2.0)
        np.testing.assert_allclose(stack[:, k], alone, rtol=1e-14)
        np.testing.assert_allclose(slopes[:, k], slope, rtol=1e-14)


def test_ranknet_of_one_pair_has_the_value_worked_out_by_hand():
    # P(lens over the other) = 3/4 at a difference of ln 3
    scores = np.array([0.0, math.log(3)])
    for reduction in ("sum", "mean"):
        assert ranknet([0, 1], scores, reduction) == pytest.approx(math.log(4 / 3), rel=1e-14)
        assert ranknet([1, 0], scores, reduction) == pytest.approx(math.log(4), rel=1e-14)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.integers(0, 2, 25),
        lambda rng: rng.integers(0, 5, 25),
        lambda rng: np.round(rng.random(25), 1),
        lambda rng: rng.random(25),
    ],
    ids=["two classes", "integer grades", "grades with ties", "grades without ties"],
)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_ranknet_equals_a_loop_over_pairs(draw, dtype, rtol):
    rng = np.random.default_rng(1)
    labels, scores = draw(rng).astype(dtype), (2 * rng.normal(size=25)).astype(dtype)
    total, count = pairs_by_loop(labels, scores.astype(float))
    np.testing.assert_allclose(ranknet(labels, scores, "sum"), total, rtol=rtol)
    np.testing.assert_allclose(ranknet(labels, scores, "mean"), total / count, rtol=rtol)


@REDUCTIONS
def test_the_gradient_of_ranknet_equals_central_differences(reduction):
    labels, scores = labels_and_logits(12)
    found = gradient(lambda x: losses.ranknet(labels, x, reduction=reduction), scores)
    expected = central_difference(lambda x: ranknet(labels, x, reduction), scores)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


@REDUCTIONS
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_ranknet_of_one_class_is_zero_with_zero_gradient(reduction, label, n):
    labels, scores = np.full(n, label, float), labels_and_logits(n, scale=100.0)[1]
    assert ranknet(labels, scores, reduction) == 0.0
    slopes = gradient(lambda x: losses.ranknet(labels, x, reduction=reduction), scores)
    np.testing.assert_array_equal(slopes, np.zeros(n))


@REDUCTIONS
def test_ranknet_and_its_gradient_are_finite_at_any_score(reduction):
    labels, scores = np.float32([1, 0, 1]), np.float32([-1e4, 1e4, 1e4])
    # the pairs cost 20,000 and ln 2
    expected = (2e4 + math.log(2)) / (1 if reduction == "sum" else 2)
    assert ranknet(labels, scores, reduction) == pytest.approx(expected, rel=1e-6)
    slopes = gradient(lambda x: losses.ranknet(labels, x, reduction=reduction), scores)
    pairs = np.array([-1.0, 1.5, -0.5]) / (1 if reduction == "sum" else 2)
    np.testing.assert_allclose(slopes, pairs, rtol=1e-6)


@REDUCTIONS
def test_ranknet_ignores_a_constant_added_to_all_scores(reduction):
    labels, scores = labels_and_logits()
    np.testing.assert_allclose(
        ranknet(labels, scores + 7.5, reduction), ranknet(labels, scores, reduction), rtol=1e-12
    )


@REDUCTIONS
def test_ranknet_ignores_the_order_of_objects(reduction):
    labels, scores = labels_and_logits()
    order = np.random.default_rng(2).permutation(len(labels))
    np.testing.assert_allclose(
        ranknet(labels[order], scores[order], reduction),
        ranknet(labels, scores, reduction),
        rtol=1e-12,
    )


@REDUCTIONS
def test_ranknet_of_a_stack_is_that_of_each_network_even_where_one_has_a_single_class(reduction):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(15, 4))
    labels = rng.integers(0, 2, (15, 4)).astype(float)
    labels[:, 1], labels[:, 2] = 0.0, rng.random(15)
    stack = ranknet(labels, scores, reduction)
    slopes = gradient(lambda x: losses.ranknet(labels, x, reduction=reduction), scores)
    assert stack.shape == (4,)
    assert stack[1] == 0.0 and not slopes[:, 1].any()
    for k in range(4):
        total, count = pairs_by_loop(labels[:, k], scores[:, k])
        expected = total if reduction == "sum" else total / max(count, 1)
        np.testing.assert_allclose(stack[k], expected, rtol=1e-12)
        alone = gradient(
            lambda x, k=k: losses.ranknet(labels[:, k], x, reduction=reduction), scores[:, k]
        )
        np.testing.assert_allclose(slopes[:, k], alone, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["none", "Sum", "", None])
def test_ranknet_names_a_reduction_it_does_not_know(reduction):
    with pytest.raises(ValueError, match=f'reduction is {reduction!r}; expected "sum" or "mean"'):
        losses.ranknet(np.array([0, 1]), np.array([0.0, 1.0]), reduction=reduction)
