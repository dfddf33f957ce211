"""Purity against simulated surveys, scikit-learn, scipy, Bayes' rule and hand values."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from matplotlib import image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression

from cast_lens import purity, selection_figures
from cast_lens.metrics import UndefinedMetric


def gaussian_sample(rng, n_lens, n_other, distance=2.5):
    """Scores of unit Gaussians, whose log-odds is a line: slope `distance`."""
    labels = np.repeat([1, 0], [n_lens, n_other])
    return labels, rng.normal(size=len(labels)) + distance * labels


def answer(labels, scores, **options):
    given = {"inspected": [10], "prevalences": [0.1], "n_survey": 100, "draws": 200, "seed": 0}
    return purity.lenses_found(labels, scores, **given | options)


def test_platt_constants_are_those_of_scikit_learn():
    labels, logits = gaussian_sample(np.random.default_rng(0), 80, 300)
    found = purity.calibrate(labels, logits, method="platt", folds=5, seed=0)

    frozen = pytest.importorskip("sklearn.frozen", reason="needs scikit-learn 1.6")

    class Given(ClassifierMixin, BaseEstimator):  # scores that are there already
        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x):
            return x[:, 0]

        def predict(self, x):
            return (x[:, 0] > 0).astype(int)

    given = frozen.FrozenEstimator(Given().fit(logits[:, None], labels))
    model = CalibratedClassifierCV(given, method="sigmoid")
    expected = model.fit(logits[:, None], labels).predict_proba(logits[:, None])[:, 1]
    assert found.calibrate(logits) == pytest.approx(expected, abs=2e-4)
    line = scipy.special.expit(found.slope * logits + found.intercept)
    assert found.calibrate(logits) == pytest.approx(line)


def test_platt_finds_the_true_log_odds():
    labels, scores = gaussian_sample(np.random.default_rng(1), 4000, 16000, distance=2)
    found = purity.calibrate(labels, scores, method="platt", folds=5, seed=0)
    assert found.slope == pytest.approx(2, abs=0.1)
    assert found.intercept == pytest.approx(math.log(0.25) - 2, abs=0.1)


def test_platt_of_a_separable_sample_is_finite_and_never_certain():
    labels = np.repeat([0, 1], 10)
    found = purity.calibrate(labels, labels * 10.0, method="platt", folds=5, seed=0)
    assert found.calibrate(np.array([0.0, 10.0])) == pytest.approx([1 / 12, 11 / 12], abs=1e-3)
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()


def test_isotonic_is_scikit_learns_within_the_rule_of_succession():
    labels, logits = gaussian_sample(np.random.default_rng(2), 100, 300)
    found = purity.calibrate(labels, logits, method="isotonic", folds=5, seed=0)
    expected = IsotonicRegression(out_of_bounds="clip").fit(logits, labels).predict(logits)
    assert found.calibrate(logits) == pytest.approx(np.clip(expected, 1 / 402, 401 / 402))
    assert found.slope is None


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_no_object_is_judged_by_a_function_fitted_to_it(method):
    labels, logits = gaussian_sample(np.random.default_rng(3), 30, 60)
    found = purity.calibrate(labels, logits, method=method, folds=5, seed=0)
    # Whoever leaves out the fold of object 0 alone gives its probability.
    from sklearn.model_selection import StratifiedKFold

    parts = StratifiedKFold(5, shuffle=True, random_state=0).split(logits, labels)
    rest = next(others for others, own in parts if 0 in own)
    alone = purity.calibrate(labels[rest], logits[rest], method=method, folds=2, seed=0)
    assert found.probabilities[0] == alone.calibrate(logits[:1])[0]


def test_random_scores_calibrate_to_the_prevalence():
    rng = np.random.default_rng(4)
    labels = np.repeat([1, 0], [100, 300])
    found = purity.calibrate(labels, rng.normal(size=400), method="platt", folds=10, seed=0)
    assert found.probabilities.mean() == pytest.approx(0.25, abs=0.01)
    assert found.probabilities.std() < 0.05


def test_folds_are_fewer_where_a_class_is_small_and_none_without_two():
    labels, logits = np.array([1, 1, 1, 0, 0, 0, 0]), np.arange(7.0)
    assert purity.calibrate(labels, logits, method="platt", folds=10, seed=0).folds == 3
    with pytest.raises(UndefinedMetric, match="1 lenses and 6 non-lenses; needs 2"):
        purity.calibrate([1, 0, 0, 0, 0, 0, 0], logits, method="platt", folds=5, seed=0)
    with pytest.raises(ValueError, match="expected one of platt, isotonic"):
        purity.calibrate(labels, logits, method="beta", folds=5, seed=0)


def test_shift_is_bayes_rule():
    old, new = 0.4, 1e-4
    likelihood = np.array([0.01, 1.0, 30.0, 1e5])  # of a lens over that of a non-lens
    before = old * likelihood / (old * likelihood + 1 - old)
    after = new * likelihood / (new * likelihood + 1 - new)
    assert purity.shift_prevalence(before, old=old, new=new) == pytest.approx(after)
    assert purity.shift_prevalence(before, old=old, new=old) == pytest.approx(before)
    assert purity.shift_prevalence([0.0, 1.0], old=old, new=new).tolist() == [0, 1]


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 2, math.nan])
def test_prevalence_that_is_no_fraction_is_refused(prevalence):
    for function in (
        lambda: purity.shift_prevalence([0.5], old=0.5, new=prevalence),
        lambda: answer([1, 0], [1.0, 0.0], prevalences=[prevalence]),
        lambda: purity.nonlenses_needed(10, prevalence=prevalence, n_survey=100),
    ):
        with pytest.raises(ValueError, match="expected a fraction between 0 and 1"):
            function()


def test_reliability_is_as_counted_by_loop():
    rng = np.random.default_rng(5)
    p = rng.random(103)
    labels = (rng.random(103) < p).astype(int)
    table = purity.reliability(labels, p, bins=5)
    assert table["n"].tolist() == [21, 21, 21, 20, 20]
    order = sorted(range(103), key=lambda k: p[k])
    own = order[21:42]
    assert table["fraction"][1] == sum(labels[own]) / 21
    assert table["probability"][1] == pytest.approx(sum(p[own]) / 21)
    ends = scipy.stats.binomtest(int(labels[own].sum()), 21).proportion_ci(0.95, "wilson")
    assert (table["low"][1], table["high"][1]) == pytest.approx((ends.low, ends.high))


def test_calibration_error_by_hand():
    found = purity.calibration_error([0, 1, 1, 1], [0.2, 0.4, 0.6, 0.8], bins=2, draws=10, seed=0)
    # |1/2 - 0.3| and |1 - 0.7|, each for two of four objects
    assert found["ece"] == pytest.approx(0.5 * 0.2 + 0.5 * 0.3)


def test_bias_of_the_calibration_error_is_that_of_calibrated_labels():
    rng = np.random.default_rng(6)
    p = rng.random(400)
    errors, levels = [], []
    for k in range(60):
        labels = (rng.random(400) < p).astype(int)
        found = purity.calibration_error(labels, p, bins=10, draws=99, seed=k)
        errors.append(found["ece"])
        levels.append(found["p"])
    assert found["ece_if_calibrated"] == pytest.approx(np.mean(errors), rel=0.1)
    assert found["ece_if_calibrated"] > 0.02  # never 0, though nothing is wrong
    assert scipy.stats.kstest(levels, "uniform").pvalue > 1e-3
    wrong = purity.calibration_error(labels, p**3, bins=10, draws=99, seed=0)
    assert wrong["p"] == 0.01 and wrong["ece"] > 2 * wrong["ece_if_calibrated"]


def test_answer_is_that_of_the_sample_copied_into_a_survey():
    labels, scores = gaussian_sample(np.random.default_rng(7), 40, 60)
    # Every lens three times and every non-lens seven times: 120 lenses among 540.
    copies = np.repeat([3, 7], [40, 60])
    survey_labels, survey_scores = np.repeat(labels, copies), np.repeat(scores, copies)
    order = np.argsort(-survey_scores, kind="stable")
    found = answer(labels, scores, prevalences=[120 / 540], n_survey=540, inspected=[90, 240, 540])
    expected = [survey_labels[order][:n].sum() for n in (90, 240, 540)]
    assert found["lenses"].tolist() == pytest.approx(expected)
    assert found["completeness"].tolist() == pytest.approx([n / 120 for n in expected])
    per_lens = [(n - k) / k for n, k in zip((90, 240, 540), expected)]
    assert found["false_per_lens"].tolist() == pytest.approx(per_lens)
    false = [sum(survey_labels[order][:n] == 0) // 7 for n in (90, 240, 540)]
    assert found["n_false_in_sample"].tolist() == false


def test_ties_are_inspected_in_random_order():
    labels = np.tile([1, 0], 50)
    found = answer(labels, np.ones(100), prevalences=[0.2], inspected=[10, 50])
    assert found["lenses"].tolist() == pytest.approx([2, 10])
    assert found["n_false_in_sample"].tolist() == [5, 25]


def test_interval_covers_what_a_survey_holds():
    rng = np.random.default_rng(8)
    prevalence, n_survey, inspected = 0.02, 5000, [20, 100, 500]
    misses = np.zeros(3)
    for k in range(60):
        labels, scores = gaussian_sample(rng, 60, 300)
        found = answer(labels, scores, prevalences=[prevalence], n_survey=n_survey,
                       inspected=inspected, draws=100, seed=k)  # fmt: skip
        lenses = rng.binomial(n_survey, prevalence)
        sky, values = gaussian_sample(rng, lenses, n_survey - lenses)
        best = sky[np.argsort(-values)].cumsum()[np.array(inspected) - 1]
        misses += (best < found["low"]) | (best > found["high"])
    for missed in misses:  # at most 5 %, by a one-sided test at 0.1 %
        test = scipy.stats.binomtest(int(missed), 60, 0.05, alternative="greater")
        assert test.pvalue > 1e-3


def test_zero_false_positives_have_clopper_pearsons_bound_and_no_estimate():
    labels = np.repeat([1, 0], [50, 1000])
    scores = labels * 1.0  # a network without any mistake in the sample
    found = answer(labels, scores, prevalences=[1e-4], n_survey=10**6, inspected=[50, 100],
                   draws=4000)  # fmt: skip
    assert found["status"].str.startswith("undetermined: the 1000 non-lenses").all()
    assert found[["lenses", "purity", "completeness", "false_per_lens"]].isna().all(axis=None)
    assert (found["low"] == 0).all() and (found["high"] <= found["inspected"]).all()
    assert found["false_positive_rate_below"].tolist() == pytest.approx([1 - 0.05**0.001] * 2)
    wide = answer(labels, scores, prevalences=[0.5], n_survey=1000, inspected=[500], draws=4000)
    assert wide["status"][0].startswith("few: 0 of the 1000") and wide["lenses"][0] == 500
    # The list is as impure as the worse of the miss rate (none of 50) and the false-positive rate
    # (none of 1000), which is nearly always that of the fewer.
    assert 1 - wide["purity_low"][0] == pytest.approx(1 - 0.025 ** (1 / 50), rel=0.1)


def test_ends_of_the_false_positive_rate_are_clopper_pearsons():
    # 20 of 200 non-lenses score higher than all lenses. In a survey nearly without lenses the
    # fraction inspected is the false-positive rate, and all lenses are found at one.
    labels, scores = np.repeat([0, 1, 0], [20, 30, 180]), np.repeat([3.0, 2.0, 1.0], [20, 30, 180])
    fractions = np.linspace(0.05, 0.17, 13)
    rng = np.random.default_rng(9)
    curves = purity._draw_curves(purity._rank(labels, scores), [1e-9], fractions, 4000, rng)
    for end, beta in ((0, scipy.stats.beta(21, 180)), (1, scipy.stats.beta(20, 181))):
        found = np.mean(curves[:, end, 0] > 0.5, axis=0)
        assert found == pytest.approx(beta.cdf(fractions), abs=0.03)
    exact = scipy.stats.binomtest(20, 200).proportion_ci(0.95, "exact")
    ends = scipy.stats.beta(20, 181).ppf(0.025), scipy.stats.beta(21, 180).ppf(0.975)
    assert (exact.low, exact.high) == pytest.approx(ends)


def test_ends_of_the_completeness_are_clopper_pearsons():
    # 20 of 30 lenses score higher than all non-lenses, of which half are inspected.
    labels, scores = np.repeat([1, 0, 1], [20, 500, 10]), np.repeat([3.0, 2.0, 1.0], [20, 500, 10])
    found = answer(labels, scores, prevalences=[1e-6], n_survey=10**6, inspected=[500_000],
                   draws=4000).iloc[0]  # fmt: skip
    exact = scipy.stats.binomtest(20, 30).proportion_ci(0.95, "exact")
    ends = [found[name] * 500_000 for name in ("purity_low", "purity_high")]  # of one lens
    assert found["completeness"] == pytest.approx(20 / 30)
    assert ends == pytest.approx([exact.low, exact.high], abs=0.01)


def test_so_many_non_lenses_support_a_half_pure_list():
    n = purity.nonlenses_needed(100, prevalence=1e-3, n_survey=10**6)
    # 1000 lenses, so 50 of 100 may be false; with none of n called, the bound is their rate.
    assert 1 - 0.05 ** (1 / n) == pytest.approx(50 / 999_000, rel=1e-3)
    few = purity.nonlenses_needed(100, prevalence=1e-5, n_survey=10**6)
    assert 1 - 0.05 ** (1 / few) == pytest.approx(
        95 / 999_990, rel=1e-3
    )  # 10 lenses, half have room


def test_warning_names_what_is_undetermined_and_the_sample_it_needs():
    labels, scores = gaussian_sample(np.random.default_rng(12), 100, 1000)
    found = answer(labels, scores, prevalences=[1e-3, 0.5], inspected=[10, 10**5], n_survey=10**6)
    assert found["status"].str.startswith("undetermined").tolist() == [True, False, True, False]
    first, second, third = purity.warnings(found, 1000)
    assert third.startswith(
        "at prevalence 0.5 the lenses among the first 100000 rest on fewer than"
    )
    assert first.startswith("at prevalence 0.001 the lenses among the first 10 are undetermined")
    assert "no false-positive rate below 0.003 (95 %)" in first
    needed = purity.nonlenses_needed(10, prevalence=1e-3, n_survey=10**6)
    assert first.endswith(f"for the first 10 label {needed} or more") and "0.5" in second
    assert purity.warnings(found[found["status"] == "measured"], 1000) == []


@pytest.mark.parametrize("n", [1, 9, 10])
def test_fewer_than_ten_false_positives_are_no_measurement(n):
    # In a survey half of lenses, n of 1000 non-lenses are first and stand for 500 n of 10^6.
    labels = np.repeat([0, 1, 0], [n, 50, 1000 - n])
    scores = np.repeat([3.0, 2.0, 1.0], [n, 50, 1000 - n])
    found = answer(labels, scores, prevalences=[0.5], inspected=[500 * n], n_survey=10**6).iloc[0]
    assert found["n_false_in_sample"] == n and found["purity"] == 0
    words = "measured" if n == 10 else f"few: {n} of the 1000 non-lenses score as high; go by low"
    assert found["status"].startswith(words)


def test_draws_are_the_same_for_the_same_seed():
    labels, scores = gaussian_sample(np.random.default_rng(10), 20, 80)
    first = answer(labels, scores, inspected=[5, 20], seed=3)
    pd.testing.assert_frame_equal(first, answer(labels, scores, inspected=[5, 20], seed=3))
    alone = answer(labels, scores, inspected=[20], seed=3)
    assert alone.iloc[0].to_dict() == first.iloc[1].to_dict()


@pytest.mark.parametrize("inspected", [[], [0], [101]])
def test_numbers_that_cannot_be_inspected_are_refused(inspected):
    with pytest.raises(ValueError, match="expected numbers from 1 to 100"):
        answer([1, 0], [1.0, 0.0], inspected=inspected)


def test_one_class_has_no_purity():
    with pytest.raises(UndefinedMetric, match="0 lenses and 2 non-lenses"):
        answer([0, 0], [1.0, 0.0])


def test_figure_of_purity_is_drawn(tmp_path):
    labels, scores = gaussian_sample(np.random.default_rng(11), 100, 400)
    found = answer(labels, scores, inspected=[1, 10, 100, 1000], prevalences=[0.1, 1e-3],
                   n_survey=10**5)  # fmt: skip
    calibrated = purity.calibrate(labels, scores, method="platt", folds=5, seed=0)
    bins = purity.reliability(labels, calibrated.probabilities, bins=10)
    selection_figures.purity(found, bins, tmp_path / "p.png", title="stand-in")
    pixels = image.imread(tmp_path / "p.png")
    assert pixels.shape[1] > 1000 and pixels[..., :3].std() > 0.05
