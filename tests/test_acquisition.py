"""Strategies against explicit loops, explicit outer products and the chances they claim."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
import scipy.special
import scipy.stats

from cast_lens import acquisition

UNLIKELY = 1e-3  # smallest p-value that still passes; seeds are fixed, so the outcome is too


def k_center_by_loop(embeddings, labelled, n):
    """Pick greedily with explicit distances; without a center, from the mean of the pool."""
    centers, chosen = list(np.float64(labelled)), []
    mean = np.float64(embeddings).mean(axis=0)
    for _ in range(n):
        best, farthest = None, -np.inf
        for index, point in enumerate(np.float64(embeddings)):
            if index not in chosen:
                others = [np.linalg.norm(point - center) for center in centers]
                distance = min(others) if others else np.linalg.norm(point - mean)
                if distance > farthest:
                    best, farthest = index, distance
        chosen.append(best)
        centers.append(np.float64(embeddings[best]))
    return chosen


def outer_products(gradients, embeddings):
    """Write out a (x) h of every object, shape (pool, outputs * features), in float64."""
    gradients = np.float64(gradients).reshape(len(gradients), -1)
    return np.stack([np.outer(a, h).ravel() for a, h in zip(gradients, embeddings, strict=True)])


def k_means_plus_plus(points, n, seed):
    """Seed with the largest norm, then by D^2, one uniform number for each further center."""
    rng = np.random.default_rng(seed)
    chosen = [int(np.argmax(np.linalg.norm(points, axis=1)))]
    while len(chosen) < n:
        distances = np.linalg.norm(points[:, None] - points[chosen], axis=2)
        cumulative = np.cumsum(distances.min(axis=1) ** 2)
        draw = rng.random() * cumulative[-1]
        chosen.append(int(np.searchsorted(cumulative, draw, side="right")))
    return chosen


def pool_of(n, outputs=1, features=6, seed=0, dtype=np.float64):
    """Draw gradients, (n,) or (n, outputs), and embeddings as rectified units have them."""
    rng = np.random.default_rng(seed)
    gradients = rng.uniform(-0.5, 0.5, (n, outputs) if outputs > 1 else n)
    embeddings = np.maximum(rng.normal(size=(n, features)), 0)
    return gradients.astype(dtype), embeddings.astype(dtype)


def test_random_depends_on_its_seed_alone():
    first = acquisition.random(1000, 50, seed=3)
    np.testing.assert_array_equal(first, acquisition.random(1000, 50, seed=3))
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(first, acquisition.random(1000, 50, seed=generator))
    assert set(first) != set(acquisition.random(1000, 50, seed=generator))
    assert set(first) != set(acquisition.random(1000, 50, seed=4))


def test_random_gives_every_ordered_pair_the_same_chance():
    rng = np.random.default_rng(0)
    counts = np.zeros((5, 5))
    for _ in range(4000):
        counts[tuple(acquisition.random(5, 2, seed=rng))] += 1
    assert not np.diag(counts).any()
    assert scipy.stats.chisquare(counts[~np.eye(5, dtype=bool)]).pvalue > UNLIKELY


def test_top_score_takes_the_highest_and_breaks_ties_by_pool_order():
    scores = np.array([0.5, 2.0, -1.0, 2.0, 0.5, 2.0, 0.5])
    assert acquisition.top_score(scores, 5).tolist() == [1, 3, 5, 0, 4]
    assert acquisition.top_score(np.zeros(100), 100).tolist() == list(range(100))
    assert acquisition.top_score([-np.inf, np.inf, 0.0], 3).tolist() == [1, 2, 0]


def test_margin_takes_the_smallest_difference_and_breaks_ties_by_pool_order():
    # |2 p - 1| = 1/2, 1, 0, 1/4, 1/4, 1, exact in binary
    p = np.array([0.25, 0.0, 0.5, 0.625, 0.375, 1.0])
    assert acquisition.margin(p, 6).tolist() == [2, 3, 4, 0, 1, 5]


def test_entropy_takes_the_order_of_that_of_scipy():
    p = np.random.default_rng(0).random(500)
    expected = np.argsort(-scipy.stats.entropy([p, 1 - p]), kind="stable")
    np.testing.assert_array_equal(acquisition.entropy(p, 500), expected)
    np.testing.assert_array_equal(acquisition.entropy(p, 20), expected[:20])


def test_entropy_is_least_for_the_certain():
    # entropies 0, ln 2, 0 and that of p = 0.9
    assert acquisition.entropy([0.0, 0.5, 1.0, 0.9], 4).tolist() == [1, 3, 0, 2]


# Entropy is flat at 1/2: what differs there by 1e-8 has entropies that are equal to rounding, and
# p and 1 - p share one only where both are exact. Elsewhere the order is the same.
def test_entropy_and_margin_agree_on_two_classes_up_to_rounding():
    p = scipy.special.expit(np.random.default_rng(1).normal(size=2000).astype(np.float32))
    difference = np.abs(2 * np.float64(p) - 1)
    by_entropy, by_margin = acquisition.entropy(p, 2000), acquisition.margin(p, 2000)
    np.testing.assert_array_equal(difference[by_margin], np.sort(difference))
    np.testing.assert_allclose(difference[by_entropy], np.sort(difference), rtol=0, atol=1e-7)
    clear = np.unique(p[(difference > 1e-3) & (p < 0.5)])  # one side of 1/2: no mirror images
    clear = np.random.default_rng(2).permutation(clear)
    np.testing.assert_array_equal(
        acquisition.entropy(clear, len(clear)), acquisition.margin(clear, len(clear))
    )


def test_entropy_and_margin_agree_on_exact_ties():
    p = np.random.default_rng(3).integers(0, 17, 200) / 16
    np.testing.assert_array_equal(acquisition.entropy(p, 200), acquisition.margin(p, 200))


@pytest.mark.parametrize("n_labelled", [0, 1, 7])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_core_set_equals_a_greedy_loop(n_labelled, seed, dtype):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(40, 5)).astype(dtype)
    labelled = rng.normal(size=(n_labelled, 5)).astype(dtype)
    expected = k_center_by_loop(embeddings, labelled, 12)
    assert acquisition.core_set(embeddings, labelled, 12).tolist() == expected


def test_core_set_starts_far_from_what_is_labelled():
    line = np.array([[0.0], [1.0], [4.0], [9.0], [10.0]])
    assert acquisition.core_set(line, [], 5).tolist() == [4, 0, 2, 1, 3]
    assert acquisition.core_set(line, [[10.0]], 3).tolist() == [0, 2, 1]


@pytest.mark.parametrize("value", [0.0, 1.0, 777.7, 12345.678])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_core_set_never_picks_twice_even_when_all_objects_coincide(value, dtype):
    same = np.full((6, 40), value, dtype)
    assert sorted(acquisition.core_set(same, same[:0], 6)) == [0, 1, 2, 3, 4, 5]
    assert sorted(acquisition.core_set(same, same[:1], 6)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [0.0, 1.0, 777.7, 12345.678])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_core_set_takes_coinciding_objects_in_pool_order(value, dtype):
    same = np.full((6, 40), value, dtype)
    assert acquisition.core_set(same, same[:0], 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_core_set_takes_one_copy_of_each_object_first():
    rng = np.random.default_rng(0)
    kinds = rng.permutation(np.repeat(np.arange(5), 20))
    embeddings = rng.normal(size=(5, 40)).astype(np.float32)[kinds]
    chosen = acquisition.core_set(embeddings, embeddings[:0], 5)
    assert sorted(kinds[chosen]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("outputs", [1, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_badge_equals_k_means_plus_plus_on_explicit_outer_products(outputs, seed):
    gradients, embeddings = pool_of(300, outputs, seed=seed)
    expected = k_means_plus_plus(outer_products(gradients, embeddings), 40, seed)
    assert acquisition.badge(gradients, embeddings, 40, seed=seed).tolist() == expected
    generator = np.random.default_rng(seed)
    assert acquisition.badge(gradients, embeddings, 40, seed=generator).tolist() == expected


def test_badge_takes_a_column_of_gradients_like_a_vector():
    gradients, embeddings = pool_of(50)
    np.testing.assert_array_equal(
        acquisition.badge(gradients[:, None], embeddings, 10, seed=0),
        acquisition.badge(gradients, embeddings, 10, seed=0),
    )


def test_badge_starts_with_the_largest_gradient_norm():
    # |a| |h| = 2 * 1, 1 * 3, 0.5 * 5
    found = [acquisition.badge([2.0, -1, 0.5], [[1], [-3], [5]], 1, seed=s) for s in range(10)]
    assert np.unique(found) == [1]


@pytest.mark.parametrize("outputs", [1, 3])
def test_badge_draws_in_proportion_to_squared_distance(outputs):
    gradients, embeddings = pool_of(8, outputs, features=3, seed=5)
    points = outer_products(gradients, embeddings)
    first = int(np.argmax(np.linalg.norm(points, axis=1)))
    chances = np.linalg.norm(points - points[first], axis=1) ** 2
    pairs = np.array([acquisition.badge(gradients, embeddings, 2, seed=s) for s in range(4000)])
    assert (pairs[:, 0] == first).all()
    counts = np.bincount(pairs[:, 1], minlength=8)
    assert counts[first] == 0
    others = np.arange(8) != first
    expected = 4000 * chances[others] / chances.sum()
    assert expected.min() > 5  # what the chi-square approximation needs
    assert scipy.stats.chisquare(counts[others], expected).pvalue > UNLIKELY


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_badge_takes_one_copy_of_each_object_first(outputs, dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        kinds = rng.permutation(np.repeat(np.arange(5), 20))
        gradients, embeddings = pool_of(5, outputs, features=40, seed=seed, dtype=dtype)
        chosen = acquisition.badge(gradients[kinds], embeddings[kinds], 5, seed=seed)
        assert sorted(kinds[chosen]) == [0, 1, 2, 3, 4]


# Copies differ by rounding only, which must not decide; 2,048 features round worst.
@pytest.mark.parametrize("features", [40, 2048])
@pytest.mark.parametrize("outputs", [1, 10])
@pytest.mark.parametrize(
    "dtypes", [("f4", "f4"), ("f8", "f8"), ("f4", "f8"), ("f8", "f4")], ids="-".join
)
def test_badge_draws_uniformly_once_only_copies_are_left(features, outputs, dtypes):
    kinds, statistic = np.repeat(np.arange(3), 4), 0.0
    for seed in range(10):
        gradients, embeddings = pool_of(3, outputs, features, seed=seed)
        factors = gradients.astype(dtypes[0])[kinds], embeddings.astype(dtypes[1])[kinds]
        picks = [kinds[acquisition.badge(*factors, 4, seed=(seed, s))] for s in range(30)]
        assert all(set(first_three) == {0, 1, 2} for *first_three, _ in picks)
        fourth = np.bincount([last for *_, last in picks], minlength=3)
        statistic += scipy.stats.chisquare(fourth).statistic
    assert scipy.stats.chi2(10 * 2).sf(statistic) > UNLIKELY


@pytest.mark.parametrize("dtype, step", [(np.float32, 1e-2), (np.float64, 1e-5)])
def test_badge_tells_a_near_object_from_copies(dtype, step):
    embeddings = np.repeat(pool_of(1, features=40)[1], 21, axis=0).astype(dtype)
    embeddings[13] *= 1 - step
    for seed in range(50):
        chosen = acquisition.badge(np.ones(21, dtype), embeddings, 2, seed=seed)
        assert chosen.tolist() == [0, 13]


class Fixed(np.random.Generator):
    """A generator whose uniform number is always the same."""

    def __init__(self, value):
        super().__init__(np.random.PCG64(0))
        self.value = value

    def random(self):
        return self.value


# Squared distances from object 0 are 0, 0, 4, 1, 0.
@pytest.mark.parametrize("value, expected", [(0.0, [0, 2, 3]), (np.nextafter(1, 0), [0, 3, 2])])
def test_badge_never_draws_what_has_no_chance_at_the_ends_of_the_unit_interval(value, expected):
    embeddings = np.array([[3.0], [3.0], [1.0], [2.0], [3.0]])
    chosen = acquisition.badge(np.ones(5), embeddings, 3, seed=Fixed(value))
    assert chosen.tolist() == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_badge_of_zero_gradients_still_chooses_distinct_objects(dtype):
    embeddings = pool_of(30, dtype=dtype)[1]
    for n in (1, 7, 30):
        assert len(set(acquisition.badge(np.zeros(30, dtype), embeddings, n, seed=0))) == n


def test_badge_leaves_objects_without_gradient_to_the_end():
    # An object with no gradient lies at the origin; one of them covers all the others.
    gradients, embeddings = pool_of(40, seed=2)
    gradients[5:] = 0.0
    for seed in range(20):
        chosen = acquisition.badge(gradients, embeddings, 40, seed=seed)
        assert sum(chosen[:6] >= 5) == 1
        assert sorted(chosen) == list(range(40))


def test_badge_never_forms_the_outer_products():
    gradients, embeddings = pool_of(200_000, 10, 40, dtype=np.float32)
    given = gradients.nbytes + embeddings.nbytes  # the outer products take eight times as much
    tracemalloc.start()
    try:
        acquisition.badge(gradients, embeddings, 10, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < given


def every_strategy(n_pool, seed, dtype=np.float64):
    """Return each strategy by name as a function of n, over a pool half of which are copies."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, n_pool // 2 + 1, n_pool)
    gradients, embeddings = (
        x[rows] for x in pool_of(n_pool // 2 + 1, int(rng.integers(1, 4)), seed=seed, dtype=dtype)
    )
    p = rng.random(n_pool).astype(dtype)[rows]
    labelled = embeddings[: rng.integers(0, 3)]
    return {
        "random": lambda n: acquisition.random(n_pool, n, seed=seed),
        "top_score": partial(acquisition.top_score, scipy.special.logit(p)),
        "entropy": partial(acquisition.entropy, p),
        "margin": partial(acquisition.margin, p),
        "core_set": partial(acquisition.core_set, embeddings, labelled),
        "badge": partial(acquisition.badge, gradients, embeddings, seed=seed),
    }


NAMES = pytest.mark.parametrize("name", every_strategy(2, 0))


@NAMES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_strategy_returns_distinct_indices_into_the_pool(name, dtype):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n_pool = int(rng.integers(1, 60))
        for n in (0, 1, int(rng.integers(0, n_pool + 1)), n_pool):
            chosen = every_strategy(n_pool, seed, dtype)[name](n)
            assert chosen.shape == (n,)
            assert np.issubdtype(chosen.dtype, np.integer)
            assert set(chosen) <= set(range(n_pool))
            assert len(set(chosen)) == n


@NAMES
@pytest.mark.parametrize("n", [-1, 13, 1000])
def test_every_strategy_refuses_a_number_the_pool_cannot_give(name, n):
    with pytest.raises(ValueError, match=f"cannot choose {n} of a pool of 12"):
        every_strategy(12, 0)[name](n)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad):
    gradients, embeddings = pool_of(20, 2)
    broken_gradients, broken = gradients.copy(), embeddings.copy()
    broken_gradients[[7, 9], 1], broken[[11, 12], 3] = bad, bad
    with pytest.raises(ValueError, match="object 7 of the pool"):
        acquisition.badge(broken_gradients, embeddings, 2, seed=0)
    with pytest.raises(ValueError, match="object 11 of the pool"):
        acquisition.badge(gradients, broken, 2, seed=0)
    with pytest.raises(ValueError, match="object 11 of the pool"):
        acquisition.core_set(broken, embeddings, 2)


def test_core_set_refuses_labelled_features_that_are_not_finite():
    embeddings = pool_of(20)[1]
    with pytest.raises(ValueError, match="finite"):
        acquisition.core_set(embeddings, np.full((1, 6), np.nan), 2)


def test_top_score_names_a_score_that_is_nan():
    with pytest.raises(ValueError, match="value 2 of the pool is NaN"):
        acquisition.top_score([1.0, 2.0, np.nan, np.nan], 1)


@pytest.mark.parametrize("strategy", [acquisition.entropy, acquisition.margin])
@pytest.mark.parametrize("bad", [-0.01, 1.01, 7.3, np.nan])
def test_what_is_no_probability_is_refused(strategy, bad):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        strategy([0.5, 0.1, bad, 0.2], 1)


def test_badge_refuses_factors_of_different_lengths():
    gradients, embeddings = pool_of(20)
    with pytest.raises(ValueError, match="19 gradients for 20 embeddings"):
        acquisition.badge(gradients[:19], embeddings, 2, seed=0)
