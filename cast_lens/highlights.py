"""What an explanation highlights: is it the same with another seed, and is it the arc?

Highlighted are the superpixels of largest positive weight, at most so many as asked for: where
fewer speak for the class, fewer are shown.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cast_lens import superpixels


@dataclass(frozen=True)
class Stability:
    """How far explanations of one object by different seeds agree.

    Attributes:
        spearman: Mean over all pairs of the rank correlation of the weights of all superpixels;
            1 for the same order, 0 expected for unrelated ones, NaN if weights are constant.
        jaccard: Mean over all pairs of |A and B| / |A or B| of the highlighted superpixels; 1 for
            the same ones (or none in both), 0 for no common one.
        jaccard_chance: Its expectation if equally many had been highlighted at random.
    """

    spearman: float
    jaccard: float
    jaccard_chance: float


@dataclass(frozen=True)
class Hit:
    """How much of the arc is in the highlighted superpixels.

    Attributes:
        fraction: Of the arc's pixels that are highlighted, in [0, 1].
        chance: Expectation of this for equally many superpixels chosen at random.
        central: This for the equally many superpixels nearest to the center, where every lens is:
            what knows the survey but does not look at the image.
        n_highlighted: Number of superpixels highlighted.
    """

    fraction: float
    chance: float
    central: float
    n_highlighted: int


def most_important(weights, top):
    """Return the superpixels of largest positive weight, most important first, at most `top`.

    For the evidence against a lens give the weights with the opposite sign.
    """
    weights = np.asarray(weights, np.float64)
    order = np.argsort(-weights, kind="stable")[:top]
    return order[weights[order] > 0]


def stability(weights, *, top=2):
    """Compare explanations of one object that differ by the seed alone.

    Args:
        weights: Shape (repeats, superpixels), at least two of each.
        top: Number of superpixels that are highlighted, two in the paper.

    Returns:
        Stability, with the definitions.

    Raises:
        ValueError: If there are fewer than two repeats or superpixels.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or min(weights.shape) < 2:
        raise ValueError(
            f"weights have shape {weights.shape}, expected (repeats, superpixels), two or more each"
        )
    constant = np.ptp(weights, axis=1).min() == 0
    chosen = [set(most_important(each, top).tolist()) for each in weights]
    found = []
    for a, b in itertools.combinations(range(len(weights)), 2):
        rank = np.nan if constant else stats.spearmanr(weights[a], weights[b]).statistic
        n_common, n_a, n_b = len(chosen[a] & chosen[b]), len(chosen[a]), len(chosen[b])
        chance = _expected_jaccard(weights.shape[1], n_a, n_b)
        found.append((rank, _jaccard(n_common, n_a, n_b), chance))
    return Stability(*np.mean(found, axis=0).tolist())


def hit_fraction(weights_or_map, segments, arc_mask, *, top=2):
    """Measure how much of a true arc the highlighted superpixels hold, beside two chance levels.

    Each superpixel is as likely as any other to be among k of n chosen at random, so that the
    expected fraction is k / n exactly, whatever their sizes.

    Args:
        weights_or_map: Weight of each superpixel, shape (superpixels,), or a map on the finest
            grid, shape (height, width), of which the mean over each superpixel counts.
        segments: Superpixels.
        arc_mask: Where the arc is, bool, shape (height, width) of the finest input.
        top: Number of superpixels that are highlighted, two in the paper.

    Returns:
        Hit.

    Raises:
        ValueError: If a shape does not fit, or there is no arc.
    """
    labels, n = segments.labels[segments.finest], segments.n
    arc, weights = np.asarray(arc_mask, bool), np.asarray(weights_or_map, np.float64)
    if arc.shape != labels.shape or not arc.any():
        raise ValueError(
            f"arc mask of shape {arc.shape} with {arc.sum()} pixels, expected {labels.shape} and "
            "at least one pixel; an object without an arc has no hit fraction"
        )
    if weights.shape == labels.shape:
        weights = superpixels.mean_of_each(weights, labels, n)
    if weights.shape != (n,):
        raise ValueError(
            f"shape {weights.shape}, expected ({n},), a weight each, or {labels.shape}"
        )
    share = np.bincount(labels[arc], minlength=n) / arc.sum()
    row, column = (superpixels.offsets(size, 1) for size in labels.shape)
    distance = superpixels.mean_of_each(np.hypot(row[:, None], column), labels, n)
    chosen = most_important(weights, top)
    k = len(chosen)
    central = share[np.argsort(distance, kind="stable")[:k]].sum()
    return Hit(float(share[chosen].sum()), k / n, float(central), k)


def _jaccard(n_common, n_a, n_b):
    return n_common / (n_a + n_b - n_common) if n_a + n_b else 1.0


def _expected_jaccard(n, n_a, n_b):
    """Return the expected Jaccard index of sets of these sizes drawn at random from `n`."""
    common = np.arange(max(0, n_a + n_b - n), min(n_a, n_b) + 1)
    index = [_jaccard(k, n_a, n_b) for k in common.tolist()]
    return float(stats.hypergeom(n, n_a, n_b).pmf(common) @ index)
