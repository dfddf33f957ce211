"""Metrics against hand values and loops over pairs and thresholds; faults 18 and 19."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

from cast_lens import metrics

LABELS = [1, 0, 1, 0, 0]
SCORES = [0.9, 0.8, 0.7, 0.3, 0.3]

EVERY_METRIC = {
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "log_loss": metrics.log_loss,
    "max_f_beta": partial(metrics.max_f_beta, beta_squared=0.001),
    "tpr0": partial(metrics.tpr_at_false_positives, n_false=0),
    "precision": partial(metrics.precision, threshold=0.5),
    "recall": partial(metrics.recall, threshold=0.5),
    "top_2": partial(metrics.lenses_in_top, n=2),
}


def random_sample(seed):
    """Draw labels and scores; half of the samples have many ties."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    labels = np.zeros(n, int)
    labels[: rng.integers(1, n)] = 1
    scores = rng.normal(size=n) + labels
    scores = np.round(scores, int(rng.integers(0, 2))) if seed % 2 else scores
    order = rng.permutation(n)
    return labels[order], scores[order]


def counts_at_thresholds(labels, scores):
    """Count (threshold, tp, fp) by a plain loop, highest threshold first."""
    rows = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = [label for label, s in zip(labels, scores, strict=True) if s >= threshold]
        rows.append((threshold, sum(called), len(called) - sum(called)))
    return rows


samples = pytest.mark.parametrize("sample", [random_sample(seed) for seed in range(16)])


@samples
def test_roc_auc_counts_pairs_with_half_for_a_tie(sample):
    labels, scores = sample
    pairs = itertools.product(scores[labels == 1], scores[labels == 0])
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    assert metrics.roc_auc(labels, scores) == pytest.approx(np.mean(wins), abs=1e-12)


@samples
def test_average_precision_sums_purity_over_steps_of_completeness(sample):
    labels, scores = sample
    total, before = 0.0, 0
    for _, tp, fp in counts_at_thresholds(labels, scores):
        total += (tp - before) / labels.sum() * tp / (tp + fp)
        before = tp
    assert metrics.average_precision(labels, scores) == pytest.approx(total, abs=1e-12)


@samples
@pytest.mark.parametrize("beta_squared", [0.0, 0.001, 1.0, 4.0])
def test_max_f_beta_is_the_best_of_all_thresholds(sample, beta_squared):
    labels, scores = sample
    best = (-1.0, math.nan)
    for threshold, tp, fp in counts_at_thresholds(labels, scores):
        purity, completeness = tp / (tp + fp), tp / labels.sum()
        if tp:
            f = (1 + beta_squared) * purity * completeness / (beta_squared * purity + completeness)
            if f > best[0] + 1e-12:
                best = (f, threshold)
    value, threshold = metrics.max_f_beta(labels, scores, beta_squared=beta_squared)
    assert value == pytest.approx(best[0], abs=1e-12)
    if beta_squared:  # with beta = 0 rounding can part equal purities
        assert threshold == best[1]


@samples
@pytest.mark.parametrize("n_false", [0, 1, 3, 1000])
def test_tpr_at_false_positives_is_the_best_of_all_thresholds(sample, n_false):
    labels, scores = sample
    allowed = [tp for _, tp, fp in counts_at_thresholds(labels, scores) if fp <= n_false]
    value = metrics.tpr_at_false_positives(labels, scores, n_false=n_false)
    assert value == max(allowed, default=0) / labels.sum()


@samples
def test_lenses_in_top_follows_a_stable_sort(sample):
    labels, scores = sample
    order = sorted(range(len(labels)), key=lambda i: -scores[i])
    found = [sum(int(labels[i]) for i in order[:n]) for n in range(len(labels) + 1)]
    assert [metrics.lenses_in_top(labels, scores, n=n) for n in range(len(labels) + 1)] == found
    assert metrics.completeness_curve(labels, scores).tolist() == found[1:]


@samples
@pytest.mark.parametrize("monotone", [np.exp, lambda s: 3 * s - 7, lambda s: s**3])
def test_ranking_metrics_are_unchanged_by_a_monotone_map(sample, monotone):
    labels, scores = sample
    mapped = monotone(scores)
    for name in ("roc_auc", "average_precision", "tpr0", "top_2"):
        assert EVERY_METRIC[name](labels, mapped) == EVERY_METRIC[name](labels, scores)
    value, threshold = EVERY_METRIC["max_f_beta"](labels, scores)
    assert EVERY_METRIC["max_f_beta"](labels, mapped) == (value, mapped[scores == threshold][0])


@samples
def test_metrics_are_unchanged_by_catalog_order(sample):
    labels, scores = sample
    turned = np.random.default_rng(1).permutation(len(labels))
    for name in ("roc_auc", "average_precision", "max_f_beta", "tpr0"):
        moved = EVERY_METRIC[name](labels[turned], scores[turned])
        assert moved == pytest.approx(EVERY_METRIC[name](labels, scores), abs=1e-12)


@samples
def test_roc_auc_of_reversed_scores_is_the_complement(sample):
    labels, scores = sample
    total = metrics.roc_auc(labels, scores) + metrics.roc_auc(labels, -scores)
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("sample", [random_sample(seed) for seed in range(4)])
def test_confusion_precision_and_recall_agree_with_a_loop(sample):
    labels, scores = sample
    for threshold, tp, fp in counts_at_thresholds(labels, scores):
        n_lens, n_nonlens = int(labels.sum()), int((1 - labels).sum())
        counts = {"tp": tp, "fp": fp, "tn": n_nonlens - fp, "fn": n_lens - tp}
        assert metrics.confusion(labels, scores, threshold=threshold) == counts
        assert metrics.precision(labels, scores, threshold=threshold) == tp / (tp + fp)
        assert metrics.recall(labels, scores, threshold=threshold) == tp / n_lens


def test_hand_values():
    assert metrics.roc_auc(LABELS, SCORES) == pytest.approx(5 / 6)
    assert metrics.average_precision(LABELS, SCORES) == pytest.approx((1 + 2 / 3) / 2)
    # beta^2 = 1: called 1 of 2 lenses purely gives 2/3; both with one false positive gives 4/5.
    value, threshold = metrics.max_f_beta(LABELS, SCORES, beta_squared=1)
    assert (value, threshold) == (pytest.approx(0.8), 0.7)
    assert metrics.tpr_at_false_positives(LABELS, SCORES, n_false=0) == 0.5
    assert metrics.tpr_at_false_positives(LABELS, SCORES, n_false=1) == 1.0
    loss = -np.mean(np.log([0.9, 0.2, 0.7, 0.7, 0.7]))
    assert metrics.log_loss(LABELS, SCORES) == pytest.approx(loss, rel=1e-12)


def test_f_beta_of_a_pure_but_incomplete_sample_is_that_of_the_survey_papers():
    # Purity 0.99 and completeness 0.45 give 0.989 (facts/datasets.md 3.5).
    labels = np.repeat([1, 0, 1], [4455, 45, 9900 - 4455])
    scores = np.repeat([1.0, 1.0, 0.0], [4455, 45, 9900 - 4455])
    labels, scores = np.append(labels, [0] * 9900), np.append(scores, [0.0] * 9900)
    value, threshold = metrics.max_f_beta(labels, scores, beta_squared=0.001)
    assert (round(value, 3), threshold) == (0.989, 1.0)


def test_scores_of_zero_and_one_give_a_finite_log_loss():
    assert metrics.log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0, abs=1e-12)
    worst = -math.log(np.finfo(np.float64).eps)
    assert metrics.log_loss([1], [0.0]) == pytest.approx(worst, rel=1e-6)


def test_max_f_beta_of_equal_f_takes_the_highest_threshold():
    # F_1 is 2/3 both for {lens} and for {lens, non-lens, non-lens, lens} of two lenses.
    value, threshold = metrics.max_f_beta([1, 0, 0, 1], [4, 3, 2, 1], beta_squared=1)
    assert (value, threshold) == (pytest.approx(2 / 3), 4.0)


@pytest.mark.parametrize("beta_squared", [0.001, 1.0])
@pytest.mark.parametrize(("n_lens", "n_nonlens"), [(1, 1), (2, 2), (1, 4), (3, 2)])
def test_chance_f_beta_is_the_mean_over_all_rankings(n_lens, n_nonlens, beta_squared):
    rankings = set(itertools.permutations([1] * n_lens + [0] * n_nonlens))
    falling = np.arange(n_lens + n_nonlens, 0, -1.0)
    exact = [metrics.max_f_beta(r, falling, beta_squared=beta_squared)[0] for r in rankings]
    mean, sd = metrics.chance_f_beta(
        n_lens, n_nonlens, beta_squared=beta_squared, draws=4000, seed=3
    )
    assert mean == pytest.approx(np.mean(exact), abs=4 * np.std(exact) / math.sqrt(4000))
    assert sd == pytest.approx(np.std(exact), rel=0.05)


def test_chance_f_beta_of_a_validation_fold_agrees_with_an_independent_simulation():
    # .620 +- .093, of unknown number of draws; Bom et al. (2022) Table 1 has .620 +- .103.
    mean, sd = metrics.chance_f_beta(980, 1020, beta_squared=0.001, draws=4000, seed=0)
    assert mean == pytest.approx(0.620, abs=0.006)
    assert sd == pytest.approx(0.093, abs=0.006)


def test_chance_f_beta_of_the_test_set_agrees_with_an_independent_simulation():
    mean, sd = metrics.chance_f_beta(39_200, 40_800, beta_squared=0.001, draws=300, seed=0)
    assert mean == pytest.approx(0.496, abs=0.0015)
    assert sd < 0.01


def test_chance_f_beta_has_the_deviation_of_a_sample():
    # One lens, one non-lens: F_1 is 1 or 2/3, so two draws deviate by 0 or (1/3) / sqrt(2).
    sds = {metrics.chance_f_beta(1, 1, beta_squared=1, draws=2, seed=seed)[1] for seed in range(20)}
    assert sorted(sds) == pytest.approx([0, 1 / math.sqrt(18)])


def test_chance_f_beta_repeats_with_its_seed():
    def run(seed):
        return metrics.chance_f_beta(20, 30, beta_squared=0.001, draws=50, seed=seed)

    assert run(1) == run(1) != run(2)


def test_tied_objects_are_called_together():
    labels, scores = [1, 1, 0, 1], [0.9, 0.5, 0.5, 0.1]
    assert metrics.tpr_at_false_positives(labels, scores, n_false=0) == pytest.approx(1 / 3)
    assert metrics.tpr_at_false_positives([0, 1], [0.5, 0.5], n_false=0) == 0
    # Three tied pairs lie on one line of the ROC curve; each is a threshold all the same.
    found = metrics.tpr_at_false_positives([1, 0, 1, 0, 1, 0], [3, 3, 2, 2, 1, 1], n_false=2)
    assert found == pytest.approx(2 / 3)


def test_false_positives_are_counted_exactly_in_samples_of_every_size():
    # In float64 7 / 25 * 25 is more than 7, which would lose a lens below seven of 25 non-lenses.
    for n in range(7, 120):
        labels = np.insert(np.zeros(n, int), 7, 1)
        falling = -np.arange(n + 1.0)
        assert metrics.tpr_at_false_positives(labels, falling, n_false=7) == 1
        assert metrics.tpr_at_false_positives(labels, falling, n_false=6) == 0


def test_tied_objects_are_inspected_in_catalog_order():
    assert metrics.lenses_in_top([1, 0, 0, 1], [0.5] * 4, n=2) == 1
    assert metrics.lenses_in_top([0, 0, 1, 1], [0.5] * 4, n=2) == 0
    assert metrics.completeness_curve([0, 1, 1, 0], [0.5] * 4).tolist() == [0, 1, 2, 2]


def test_all_scores_equal_have_the_metrics_of_chance():
    labels, scores = [1, 0, 0, 1, 0], [0.25] * 5
    assert metrics.roc_auc(labels, scores) == 0.5
    assert metrics.average_precision(labels, scores) == pytest.approx(0.4)
    value, threshold = metrics.max_f_beta(labels, scores, beta_squared=1)
    assert (value, threshold) == (pytest.approx(2 * 0.4 / 1.4), 0.25)
    assert metrics.tpr_at_false_positives(labels, scores, n_false=2) == 0


def test_scores_a_rounding_apart_are_not_tied():
    above = np.nextafter(0.5, 1)
    assert metrics.roc_auc([1, 0], [above, 0.5]) == 1
    assert metrics.max_f_beta([1, 0], [above, 0.5], beta_squared=1) == (1, above)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*EVERY_METRIC, "check", "confusion", "curve", "evaluate"])
def test_a_score_that_is_not_finite_is_refused_everywhere(name, bad):
    others = {
        "check": metrics.check,
        "confusion": partial(metrics.confusion, threshold=0.5),
        "curve": metrics.completeness_curve,
        "evaluate": partial(metrics.evaluate, metrics={}),
    }
    function = (EVERY_METRIC | others)[name]
    with pytest.raises(ValueError, match="object_id 3") as caught:
        function(LABELS, [0.9, 0.8, 0.7, bad, 0.3])
    assert not isinstance(caught.value, metrics.UndefinedMetric)


def test_check_names_the_first_offenders_by_object_id():
    ids = ["00123", "J1", "J2", "J3", "J4"]
    with pytest.raises(ValueError, match="4 of 5 scores") as caught:
        metrics.check(LABELS, [math.nan, 1, math.inf, math.nan, math.nan], ids)
    message = str(caught.value)
    assert all(name in message for name in ("'00123'", "'J2'", "'J3'", "nan", "inf"))
    assert "J4" not in message and "J1" not in message


@pytest.mark.parametrize("bad", [2, -1, 0.5, math.nan, "1"])
def test_check_refuses_a_label_that_is_not_0_or_1(bad):
    with pytest.raises(ValueError, match="label.*object_id 'b'"):
        metrics.check(np.array([0, bad, 1], dtype=object), [0.1, 0.2, 0.3], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("labels", "scores", "ids"),
    [
        ([1, 0], [0.1, 0.2, 0.3], None),
        ([1, 0, 1], [0.1, 0.2], None),
        ([1, 0], [[0.1], [0.2]], None),
        ([[1, 0]], [[0.1, 0.2]], None),
        ([[1, 0]], [[0.1, 0.2]], [["a", "b"]]),
        ([1, 0], [0.1, 0.2], ["a"]),
        (1, 0.5, None),
    ],
)
def test_check_refuses_shapes_that_do_not_match(labels, scores, ids):
    with pytest.raises(ValueError, match="shape"):
        metrics.check(labels, scores, ids)


def test_check_returns_integers_and_float64():
    labels, scores = metrics.check([True, False], np.float32([0.1, 0.2]))
    assert (labels.dtype, scores.dtype) == (np.int64, np.float64)
    assert labels.tolist() == [1, 0]


NEEDS_BOTH = {"roc_auc", "average_precision", "max_f_beta", "tpr0"}
UNDEFINED = {
    "empty": set(EVERY_METRIC),
    "only lenses": NEEDS_BOTH,
    "only non-lenses": NEEDS_BOTH | {"recall"},
    "one lens": set(),
    "one object": NEEDS_BOTH | {"top_2"},
}
FOLDS = {
    "empty": ([], []),
    "only lenses": ([1, 1, 1], [0.1, 0.6, 0.9]),
    "only non-lenses": ([0, 0, 0], [0.1, 0.6, 0.9]),
    "one lens": ([0, 1, 0], [0.1, 0.6, 0.9]),
    "one object": ([1], [0.7]),
}


@pytest.mark.parametrize("fold", FOLDS)
def test_a_run_with_a_poor_fold_ends_well_and_says_why(fold):
    rows = metrics.evaluate(*FOLDS[fold], EVERY_METRIC)
    assert [row["metric"] for row in rows] == list(EVERY_METRIC)
    assert {row["metric"] for row in rows if math.isnan(row["value"])} == UNDEFINED[fold]
    assert all(row["note"] for row in rows if row["metric"] in UNDEFINED[fold])


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("name", EVERY_METRIC)
def test_a_metric_alone_raises_undefined_for_a_poor_fold(name, fold):
    if name in UNDEFINED[fold]:
        with pytest.raises(metrics.UndefinedMetric, match="no |needs|cannot"):
            EVERY_METRIC[name](*FOLDS[fold])
    else:
        assert np.isfinite(EVERY_METRIC[name](*FOLDS[fold])).all()


def test_undefined_says_how_many_of_each_class_there_are():
    with pytest.raises(metrics.UndefinedMetric, match="0 lenses and 3 non-lenses"):
        metrics.roc_auc([0, 0, 0], [1, 2, 3])
    with pytest.raises(metrics.UndefinedMetric, match="1 lenses and 2 non-lenses; needs 2"):
        metrics.require_classes([0, 1, 0], each=2)
    with pytest.raises(metrics.UndefinedMetric):
        metrics.chance_f_beta(0, 5, beta_squared=1, draws=5, seed=0)


def test_precision_is_undefined_where_nothing_is_called():
    with pytest.raises(metrics.UndefinedMetric, match="0/0"):
        metrics.precision(LABELS, SCORES, threshold=0.95)
    assert metrics.recall(LABELS, SCORES, threshold=0.95) == 0


def test_log_loss_of_scores_that_are_no_probabilities_is_undefined():
    for scores in ([1.5, 0.2], [0.5, -0.2]):
        with pytest.raises(metrics.UndefinedMetric, match="probabilities"):
            metrics.log_loss([1, 0], scores)


def test_confusion_of_no_objects_is_undefined():
    with pytest.raises(metrics.UndefinedMetric):
        metrics.confusion([], [], threshold=0.5)


@pytest.mark.parametrize(
    "call",
    [
        partial(metrics.max_f_beta, LABELS, SCORES, beta_squared=-1),
        partial(metrics.max_f_beta, LABELS, SCORES, beta_squared=math.nan),
        partial(metrics.tpr_at_false_positives, LABELS, SCORES, n_false=-1),
        partial(metrics.lenses_in_top, LABELS, SCORES, n=-1),
        partial(metrics.confusion, LABELS, SCORES, threshold=math.nan),
        partial(metrics.chance_f_beta, 2, 2, beta_squared=1, draws=1, seed=0),
    ],
)
def test_a_keyword_out_of_range_is_an_error_and_not_an_undefined_metric(call):
    with pytest.raises(ValueError, match="expected|needs") as caught:
        call()
    assert not isinstance(caught.value, metrics.UndefinedMetric)


def test_evaluate_reports_values_thresholds_and_plain_floats():
    rows = {row["metric"]: row for row in metrics.evaluate(LABELS, SCORES, EVERY_METRIC)}
    assert rows["roc_auc"] == {"metric": "roc_auc", "value": pytest.approx(5 / 6), "note": ""}
    assert rows["max_f_beta"]["note"] == "at threshold 0.9"
    assert rows["top_2"]["value"] == 1
    assert {type(row["value"]) for row in rows.values()} == {float}


def test_evaluate_does_not_hide_other_errors():
    def broken(labels, scores):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        metrics.evaluate(LABELS, SCORES, {"broken": broken})
