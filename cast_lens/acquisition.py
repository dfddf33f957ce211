"""What to label next: random, entropy, margin, top score, core-set and BADGE.

Every function returns indices into the pool, distinct, best first, and breaks ties by pool order.
Memory is proportional to the pool, never to pool times dimension squared.
"""

import numpy as np


def random(n_pool, n, *, seed):
    """Choose `n` objects uniformly at random.

    Args:
        n_pool: Objects in the pool.
        n: Objects to choose.
        seed: Seed or NumPy Generator.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If `n` is negative or exceeds the pool.
    """
    _check(n_pool, n)
    return np.random.default_rng(seed).permutation(n_pool)[:n]


def top_score(scores, n):
    """Choose the `n` objects with the highest scores.

    Args:
        scores: Network output, shape (pool,); larger is more lens-like.
        n: Objects to choose.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If `n` exceeds the pool or a score is NaN.
    """
    return _largest(np.asarray(scores, dtype=np.float64), n)


def entropy(probabilities, n):
    """Choose the `n` objects whose predicted class is most uncertain by Shannon entropy.

    Args:
        probabilities: Predicted probability of being a lens, shape (pool,), in [0, 1].
        n: Objects to choose.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If `n` exceeds the pool or a probability is outside [0, 1].

    Reference:
        Settles (2009), Sec. 3.1. With two classes the order is that of `margin`.
    """
    p = _probabilities(probabilities)
    q = 1.0 - p
    return _largest(-(p * np.log(np.where(p > 0, p, 1)) + q * np.log(np.where(q > 0, q, 1))), n)


def margin(probabilities, n):
    """Choose the `n` objects whose two class probabilities differ least, |2 p - 1|.

    Args:
        probabilities: Predicted probability of being a lens, shape (pool,), in [0, 1].
        n: Objects to choose.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If `n` exceeds the pool or a probability is outside [0, 1].

    Reference:
        Scheffer, Decomain & Wrobel (2001).
    """
    return _largest(-np.abs(2.0 * _probabilities(probabilities) - 1.0), n)


def core_set(embeddings, labelled, n):
    """Choose `n` objects by greedy k-center: each time the one farthest from all centers so far.

    Args:
        embeddings: Pool features, shape (pool, features).
        labelled: Features of objects that have labels already, shape (labelled, features);
            they are the first centers. With none, the first choice is the object farthest from
            the pool's mean.
        n: Objects to choose.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If `n` exceeds the pool or a feature is not finite.

    Reference:
        Sener & Savarese (2018), Algorithm 1.
    """
    embeddings, labelled = _finite(embeddings), _finite(labelled)
    _check(len(embeddings), n)
    if len(embeddings):  # distances do not change, their rounding does where all lie far from 0
        center = embeddings.mean(axis=0)
        embeddings, labelled = embeddings - center, labelled - center if len(labelled) else labelled
    squares = np.einsum("nf,nf->n", embeddings, embeddings)
    nearest = np.full(len(embeddings), np.inf, dtype=embeddings.dtype)
    eps = np.finfo(embeddings.dtype).eps
    for center in labelled.astype(embeddings.dtype):
        distance = _squared_distance(squares, center @ center, embeddings @ center, eps)
        nearest = np.minimum(nearest, distance)
    chosen: list[int] = []
    for _ in range(n):
        candidate = int(np.argmax(squares if np.isinf(nearest).all() else nearest))
        chosen.append(candidate)
        center = embeddings[candidate]
        distance = _squared_distance(squares, squares[candidate], embeddings @ center, eps)
        nearest = np.minimum(nearest, distance)
        nearest[chosen] = -1.0  # below any distance, so never chosen again
    return np.array(chosen, dtype=np.int64)


def badge(gradients, embeddings, n, *, seed):
    """Choose `n` objects by k-means++ seeding on hypothesised last-layer gradients (BADGE).

    An object's gradient is the outer product a (x) h of the loss derivative at the predicted
    label, a, and the last hidden layer, h. Its distances need only the two factors,
    |a (x) h - b (x) k|^2 = |a|^2 |h|^2 + |b|^2 |k|^2 - 2 (a.b)(h.k), so one round costs
    pool * (outputs + features) and the outer product is never formed.

    The first center has the largest gradient norm and every further one is drawn with probability
    proportional to its squared distance from the nearest center, as in the authors' BADGE code;
    the paper's Algorithm 1 draws the first at random. When no object is left at a positive
    distance the rest is drawn uniformly.

    Args:
        gradients: Loss derivative with respect to the logits at the predicted label, shape
            (pool, outputs), or (pool,) for a single logit.
        embeddings: Input of the last layer, shape (pool, features); append a column of ones for
            its bias.
        n: Objects to choose.
        seed: Seed or NumPy Generator.

    Returns:
        Indices into the pool, shape (n,), int64.

    Raises:
        ValueError: If lengths differ, `n` exceeds the pool or a value is not finite.

    Reference:
        Ash et al. (2020), Algorithm 1; the factorised distance is Zhang et al. (2023), App. D.
    """
    embeddings = _finite(embeddings)
    gradients = _finite(gradients)
    gradients = gradients[:, None] if gradients.ndim == 1 else gradients
    if len(gradients) != len(embeddings):
        raise ValueError(f"{len(gradients)} gradients for {len(embeddings)} embeddings")
    _check(len(embeddings), n)
    rng = np.random.default_rng(seed)
    norms = (
        np.einsum("nk,nk->n", gradients, gradients)
        * np.einsum("nf,nf->n", embeddings, embeddings)
    ).astype(np.float64)  # fmt: skip
    chosen: list[int] = []
    nearest = norms.copy()
    eps = max(np.finfo(gradients.dtype).eps, np.finfo(embeddings.dtype).eps)
    for _ in range(n):
        candidate = _draw(nearest, rng, chosen) if chosen else int(np.argmax(norms))
        chosen.append(candidate)
        product = (gradients @ gradients[candidate]) * (embeddings @ embeddings[candidate])
        distance = _squared_distance(norms, norms[candidate], product, eps)
        nearest = np.minimum(nearest, distance) if len(chosen) > 1 else distance
        nearest[chosen] = 0.0
    return np.array(chosen, dtype=np.int64)


def _squared_distance(squares, square, product, eps):
    """Return |x|^2 + |y|^2 - 2 x.y, or 0 where rounding alone parts a copy from its center."""
    distance = squares + square - 2.0 * product
    distance[distance <= 8 * eps * (squares + square)] = 0.0
    return distance


def _draw(weights, rng, chosen):
    """Draw an index with probability proportional to `weights`; uniform over the rest if all 0."""
    cumulative = np.cumsum(weights)
    if cumulative[-1] > 0:
        # side="right" lands on a positive weight.
        return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return int(rng.choice(np.setdiff1d(np.arange(len(weights)), chosen)))


def _largest(values, n):
    _check(len(values), n)
    if np.isnan(values).any():
        raise ValueError(f"value {int(np.isnan(values).argmax())} of the pool is NaN")
    return np.argsort(-values, kind="stable")[:n]


def _probabilities(values):
    values = np.asarray(values, dtype=np.float64)
    bad = ~((values >= 0) & (values <= 1))  # NaN too
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"object {first} of the pool has probability {values[first]}, expected one in [0, 1]; "
            "apply a sigmoid to logits first"
        )
    return values


def _finite(values):
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        row = np.argwhere(~np.isfinite(values))[0][0]
        raise ValueError(f"object {row} of the pool has a value that is not finite")
    return values


def _check(n_pool, n):
    if not 0 <= n <= n_pool:
        raise ValueError(f"cannot choose {n} of a pool of {n_pool}")
