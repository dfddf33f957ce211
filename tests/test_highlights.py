"""Agreement of explanations, and arcs hit, against enumeration by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from cast_lens import highlights
from cast_lens.superpixels import Superpixels


def test_most_important_are_the_largest_positive_weights_only():
    weights = [0.1, -0.9, 0.3, 0.0, 0.3]
    assert highlights.most_important(weights, 2).tolist() == [2, 4]
    assert highlights.most_important(weights, 5).tolist() == [2, 4, 0]
    assert highlights.most_important(np.negative(weights), 2).tolist() == [1]


def test_identical_explanations_are_perfectly_stable():
    found = highlights.stability([[0.3, 0.1, -0.2, 0.0]] * 3)
    assert found.spearman == pytest.approx(1)
    assert found.jaccard == 1


def test_stability_by_hand():
    """Top two: {0, 1}, {0, 2}, {0, 1}; pairs 1/3, 1, 1/3."""
    weights = [[4, 3, 2, 1], [4, 1, 3, 2], [9, 8, -1, -2]]
    found = highlights.stability(weights)
    assert found.jaccard == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    ranks = [stats.rankdata(each) for each in weights]
    pearson = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(ranks, 2)]
    assert found.spearman == pytest.approx(np.mean(pearson))
    pairs = [set(pair) for pair in itertools.combinations(range(4), 2)]
    chance = np.mean([len(a & b) / len(a | b) for a in pairs for b in pairs])
    assert found.jaccard_chance == pytest.approx(chance)


def test_chance_is_of_as_many_superpixels_as_are_highlighted():
    """One positive weight against three: a common one with probability 3/5, 1/3 each."""
    found = highlights.stability([[1, -1, -1, -1, -1], [0, 0, 3, 2, 1]], top=3)
    assert found.jaccard == 0
    assert found.jaccard_chance == pytest.approx(3 / 5 / 3)


def test_explanations_that_highlight_nothing_agree_on_that_and_have_no_rank_correlation():
    found = highlights.stability(np.zeros((2, 4)))
    assert found.jaccard == found.jaccard_chance == 1
    assert np.isnan(found.spearman)


@pytest.mark.parametrize("shape", [(3,), (1, 5), (4, 1)])
def test_stability_needs_two_explanations_of_two_superpixels(shape):
    with pytest.raises(ValueError, match="two or more each"):
        highlights.stability(np.ones(shape))


def sixths():
    """Six superpixels in a field of 8 x 12 pixels, the two in the middle columns central."""
    row, column = np.indices((8, 12))
    labels = (row // 4) + 2 * (column // 4)
    return Superpixels({"vis": labels}, 6, "vis", {"vis": 0.1})


def arc():
    mask = np.zeros((8, 12), bool)
    mask[2:6, 3:5] = True  # 2 pixels in each of the superpixels 0, 1, 2, 3
    mask[0, 0] = mask[0, 1] = True  # two more in 0
    return mask


def test_hit_fraction_by_hand():
    found = highlights.hit_fraction([0.5, -1, 0.2, 0.1, 0, 0], sixths(), arc())
    assert found.fraction == pytest.approx((4 + 2) / 10)
    assert found.n_highlighted == 2
    assert found.central == pytest.approx((2 + 2) / 10)  # superpixels 2 and 3


@pytest.mark.parametrize("top", [1, 2, 3, 6])
def test_chance_is_the_mean_over_all_choices_of_as_many_superpixels(top):
    segments, mask = sixths(), arc()
    fractions = []
    for chosen in itertools.combinations(range(6), top):
        inside = np.isin(segments.labels["vis"], chosen)
        fractions.append((inside & mask).sum() / mask.sum())
    found = highlights.hit_fraction(np.arange(1, 7), segments, mask, top=top)
    assert found.chance == pytest.approx(np.mean(fractions))
    assert found.fraction == pytest.approx(fractions[-1])


def test_map_counts_by_its_mean_over_each_superpixel():
    values = np.zeros((8, 12))
    values[0, 0] = 100  # mean 100 / 16 in superpixel 0
    values[4:, 8:] = 7  # mean 7 in superpixel 5
    values[:4, 8:] = -1
    found = highlights.hit_fraction(values, sixths(), arc(), top=1)
    assert found.fraction == 0
    found = highlights.hit_fraction(values, sixths(), arc(), top=3)
    assert (found.fraction, found.n_highlighted) == (pytest.approx(0.4), 2)
    assert found.chance == pytest.approx(2 / 6)


def test_nothing_highlighted_hits_nothing_and_by_chance_neither():
    found = highlights.hit_fraction(-np.ones(6), sixths(), arc())
    assert found == highlights.Hit(0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("weights", "mask", "message"),
    [
        (np.ones(6), np.zeros((8, 12)), "with 0 pixels"),
        (np.ones(6), np.ones((12, 8)), r"arc mask of shape \(12, 8\)"),
        (np.ones(5), np.ones((8, 12)), r"shape \(5,\), expected \(6,\)"),
    ],
)
def test_what_can_hit_nothing_is_refused(weights, mask, message):
    with pytest.raises(ValueError, match=message):
        highlights.hit_fraction(weights, sixths(), mask)
