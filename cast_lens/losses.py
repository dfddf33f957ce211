"""Losses that Keras lacks in the form the papers use: focal and RankNet, from logits.

All functions accept either one network's scores, shape (batch,), or those of several networks
trained side by side, shape (batch, networks); nothing ever mixes two networks.
"""

import numpy as np
from keras import ops


def focal(labels, logits, *, alpha, gamma):
    """Return the focal loss of every object, -alpha_t (1 - p_t)^gamma log(p_t).

    Evaluated from logits through softplus, so that it stays finite for any logit.
    keras.losses.BinaryFocalCrossentropy ignores its alpha unless `apply_class_balancing=True`,
    and averages over networks.

    Args:
        labels: Truth, shape (batch,) or (batch, networks); 1 for a lens, 0 otherwise.
        logits: Network output before the sigmoid, the shape of `labels`, dimensionless.
        alpha: Weight of lenses, in [0, 1]; non-lenses weigh 1 - alpha.
        gamma: Focusing exponent, >= 0; 0 gives weighted cross-entropy.

    Returns:
        Loss per object in nats, the shape of `labels`.

    Reference:
        Lin et al. (2017), Eq. 5; Li, Eadie & Walmsley (2025), Sec. 2.1.2.
    """
    labels = ops.cast(labels, logits.dtype)
    signed = (2.0 * labels - 1.0) * logits  # p_t = sigmoid(signed)
    weight = alpha * labels + (1.0 - alpha) * (1.0 - labels)
    return weight * ops.exp(-gamma * ops.softplus(signed)) * ops.softplus(-signed)


def focal_gradient(labels, probabilities, *, alpha, gamma):
    """Return the derivative of `focal` with respect to the logit, in closed form.

    alpha_t (2 y - 1) (1 - p_t)^gamma (gamma p_t ln p_t + p_t - 1); with gamma = 0 and no weights
    it is the p - y of cross-entropy, so it costs the same.

    Args:
        labels: Truth, NumPy array of any shape; 1 for a lens, 0 otherwise.
        probabilities: sigmoid(logit), NumPy array of the shape of `labels`, in [0, 1].
        alpha: Weight of lenses, in [0, 1]; non-lenses weigh 1 - alpha.
        gamma: Focusing exponent, >= 0.

    Returns:
        Derivative per object, the shape of `labels`.

    Reference:
        Derived from Lin et al. (2017), Eq. 5; their Appendix B gives the alpha-free form.
    """
    p_true = np.where(labels == 1, probabilities, 1.0 - probabilities)
    weight = np.where(labels == 1, alpha, 1.0 - alpha)
    # p ln p -> 0 as p -> 0
    p_log_p = p_true * np.log(np.where(p_true > 0, p_true, 1.0))
    sign = np.where(labels == 1, 1.0, -1.0)  # 2 y - 1 would wrap in unsigned integers
    return weight * sign * (1 - p_true) ** gamma * (gamma * p_log_p + p_true - 1)


def ranknet(labels, logits, *, reduction):
    """Return the RankNet loss over all pairs of a batch whose labels differ.

    A pair (i, j) with label_i > label_j costs -log P(i > j) = softplus(-(s_i - s_j)). The pairs
    are formed by broadcasting; a batch with one class has no pair and costs exactly zero, with
    zero gradient.

    Args:
        labels: Truth or graded relevance, shape (batch,) or (batch, networks).
        logits: Ranking scores, the shape of `labels`, dimensionless.
        reduction: "sum" over the pairs (the paper's equation) or "mean" (the authors' code).

    Returns:
        Loss in nats, shape () or (networks,).

    Raises:
        ValueError: If `reduction` is neither "sum" nor "mean".

    Reference:
        Burges et al. (2005), Eq. 3; Li, Eadie & Walmsley (2025), Sec. 2.1.1.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f'reduction is {reduction!r}; expected "sum" or "mean"')
    labels = ops.cast(labels, logits.dtype)
    difference = ops.expand_dims(logits, 1) - ops.expand_dims(logits, 0)  # (i, j[, networks])
    ordered = ops.expand_dims(labels, 1) > ops.expand_dims(labels, 0)
    ordered = ops.cast(ordered, logits.dtype)
    total = ops.sum(ordered * ops.softplus(-difference), axis=(0, 1))
    if reduction == "sum":
        return total
    return total / ops.maximum(ops.sum(ordered, axis=(0, 1)), 1.0)
