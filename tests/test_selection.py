"""The selection function against loops, scipy, scikit-learn, astropy and hand values."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from astropy.table import Table
from matplotlib import image

from cast_lens import candidates, scores, selection, selection_figures, selection_tables
from cast_lens.metrics import UndefinedMetric
from cast_lens.text_tables import CatalogError

LABELS = np.array([1, 0, 1, 1, 0, 0, 1, 0])
SCORES = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1])


def test_threshold_by_score_counts_by_hand():
    called, threshold = selection.choose_threshold(LABELS, SCORES, score=0.7)
    assert called.tolist() == [True] * 4 + [False] * 4
    assert (threshold.n_called, threshold.n_lenses, threshold.n_found) == (4, 4, 3)
    assert (threshold.n_false, threshold.false_positive_rate) == (1, 0.25)
    # Clopper-Pearson by its definition: at the bound, P(1 or fewer of 4) is 5 %.
    bound = threshold.false_positive_rate_below
    assert scipy.stats.binom.cdf(1, 4, bound) == pytest.approx(0.05)


def test_number_inspected_splits_ties_in_catalog_order():
    called, threshold = selection.choose_threshold(LABELS, SCORES, inspected=2)
    assert called.tolist() == [True, True] + [False] * 6
    assert threshold.value == 0.8
    with pytest.raises(UndefinedMetric, match="cannot inspect 9 of 8"):
        selection.choose_threshold(LABELS, SCORES, inspected=9)


@pytest.mark.parametrize("rate", [0, 0.1, 0.25, 0.3, 0.5, 1])
def test_false_positive_rate_is_the_most_complete_threshold_that_keeps_to_it(rate):
    rng = np.random.default_rng(3)
    for _ in range(20):
        labels = np.append([0, 1], rng.integers(0, 2, 30))
        values = np.round(rng.normal(size=32) + labels, 1)
        called, threshold = selection.choose_threshold(labels, values, false_positive_rate=rate)
        best = set()
        for value in [np.inf, *sorted(set(values), reverse=True)]:
            if np.mean(values[labels == 0] >= value) <= rate:
                best = set(np.flatnonzero(values >= value))
        assert set(np.flatnonzero(called)) == best
        assert threshold.false_positive_rate <= rate


def test_rule_of_three_bounds_no_false_positive():
    assert selection.false_positive_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert selection.false_positive_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)


@pytest.mark.parametrize("given", [{}, {"score": 0.5, "inspected": 2}])
def test_exactly_one_way_to_give_the_threshold(given):
    with pytest.raises(ValueError, match="give one of score, inspected, false_positive_rate"):
        selection.choose_threshold(LABELS, SCORES, **given)


@pytest.mark.parametrize(
    "given", [{"score": math.nan}, {"inspected": 0}, {"false_positive_rate": 1.1}]
)
def test_threshold_out_of_range_is_refused(given):
    with pytest.raises(ValueError, match="expected"):
        selection.choose_threshold(LABELS, SCORES, **given)


def test_false_positive_rate_needs_non_lenses():
    with pytest.raises(UndefinedMetric, match="0 non-lenses"):
        selection.choose_threshold([1, 1], [0.1, 0.2], false_positive_rate=0.1)
    _, threshold = selection.choose_threshold([1, 1], [0.1, 0.2], score=0.15)
    assert math.isnan(threshold.false_positive_rate)


def test_bins_of_equal_number_hold_equally_many():
    values = np.append(np.random.default_rng(0).normal(size=100), np.nan)
    edges = selection.equal_number_edges(values, 4)
    table = selection.completeness_in_bins({"x": values}, np.ones(101, bool), {"x": edges})
    assert table["n_lenses"].tolist() == [25, 25, 25, 25]


def test_equal_values_are_one_bin_and_none_has_no_edges():
    edges = selection.equal_number_edges([5.0, 5.0, np.nan], 3)
    table = selection.completeness_in_bins({"x": [5, 5, np.nan]}, [True, False, True], {"x": edges})
    assert table[["n_lenses", "n_found", "completeness"]].values.tolist() == [[2, 1, 0.5]]
    with pytest.raises(UndefinedMetric, match="no lens has this quantity"):
        selection.equal_number_edges([np.nan], 3)


def test_completeness_is_as_counted_by_loop_with_wilsons_interval():
    rng = np.random.default_rng(1)
    values = rng.integers(0, 12, 200).astype(float)  # some on edges, some beyond them
    called = rng.random(200) < values / 12
    edges = [1, 4, 5, 10]
    table = selection.completeness_in_bins({"x": values}, called, {"x": edges})
    for k, row in table.iterrows():
        last = k == 2
        own = [c for v, c in zip(values, called)
               if edges[k] <= v < edges[k + 1] or last and v == edges[-1]]  # fmt: skip
        assert (row["n_lenses"], row["n_found"]) == (len(own), sum(own))
        assert row["completeness"] == sum(own) / len(own)
        ends = scipy.stats.binomtest(sum(own), len(own)).proportion_ci(0.95, "wilson")
        assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))


def test_bin_without_lenses_is_undefined_never_zero():
    table = selection.completeness_in_bins({"x": [0.5]}, [False], {"x": [0, 1, 2]})
    assert table["status"].tolist() == ["measured", "undefined"]
    assert table["completeness"][0] == 0
    assert table.loc[1, ["completeness", "low", "high", "x_median"]].isna().all()
    assert table["n_lenses"][1] == 0


def test_cells_of_two_quantities_are_those_of_numpy():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 4, (2, 300))
    called = rng.random(300) < 0.3
    edges = {"x": [0, 1, 3, 4], "y": [0.5, 2, 3]}
    table = selection.completeness_in_bins({"x": x, "y": y}, called, edges)
    every, _, _ = np.histogram2d(x, y, [edges["x"], edges["y"]])
    found, _, _ = np.histogram2d(x[called], y[called], [edges["x"], edges["y"]])
    assert table["n_lenses"].tolist() == every.ravel().tolist()
    assert table["n_found"].tolist() == found.ravel().tolist()
    assert table[["x_low", "x_high", "y_low", "y_high"]].iloc[3].tolist() == [1, 3, 2, 3]


@pytest.mark.parametrize("edges", [[1], [1, 1], [2, 1], [1, np.nan]])
def test_edges_that_do_not_increase_are_refused(edges):
    with pytest.raises(ValueError, match="expected two or more that increase"):
        selection.completeness_in_bins({"x": [1.0]}, [True], {"x": edges})


def logistic_sample(rng, n=400, slope=3.0, half=1.5):
    x = rng.uniform(0.3, 5, n)
    return x, rng.random(n) < 1 / (1 + np.exp(-slope * (np.log10(x) - np.log10(half)) * 2.3))


def test_logistic_fit_is_the_maximum_of_the_likelihood_and_its_curvature():
    x, called = logistic_sample(np.random.default_rng(0))
    fit = selection.fit_logistic(x, called, is_log=True)
    design = np.log10(x)

    def loss(ab):
        eta = ab[0] + ab[1] * design
        return np.sum(np.logaddexp(0, eta) - called * eta)

    best = scipy.optimize.minimize(loss, [0, 1], method="Nelder-Mead",
                                   options={"xatol": 1e-9, "fatol": 1e-12}).x  # fmt: skip
    assert (fit.intercept, fit.slope) == pytest.approx(best, rel=1e-4)
    step = 1e-3
    hessian = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            e, f = step * np.eye(2)[i], step * np.eye(2)[j]
            hessian[i, j] = (loss(best + e + f) - loss(best + e - f) - loss(best - e + f)
                             + loss(best - e - f)) / (4 * step**2)  # fmt: skip
    assert fit.covariance == pytest.approx(np.linalg.inv(hessian), rel=1e-3)
    middle, low, high = fit.at(np.array([fit.half]))
    assert middle[0] == pytest.approx(0.5) and low[0] < 0.5 < high[0]
    # Fieller's ends are where the pointwise band crosses one half.
    ends = np.array(fit.half_interval)
    assert fit.at(ends)[2][0] == pytest.approx(0.5)
    assert fit.at(ends)[1][1] == pytest.approx(0.5)


def test_interval_of_the_half_covers_the_truth():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        fit = selection.fit_logistic(*logistic_sample(rng, 150), is_log=True)
        covered += fit.half_interval.low <= 1.5 <= fit.half_interval.high
    assert scipy.stats.binomtest(covered, 100, 0.95).pvalue > 1e-3


def test_p_tells_a_curve_that_levels_off_from_a_logistic_one():
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 10, 4000)
    logistic = rng.random(4000) < 1 / (1 + np.exp(5 - x))
    levels_off = rng.random(4000) < 0.4 / (1 + np.exp(-5 * (x - 3)))
    assert selection.fit_logistic(x, logistic, is_log=False).p > 0.01
    assert selection.fit_logistic(x, levels_off, is_log=False).p < 1e-4


def test_half_beyond_the_lenses_is_not_given():
    rng = np.random.default_rng(4)
    x = rng.uniform(1, 2, 300)
    fit = selection.fit_logistic(x, rng.random(300) < 0.1 * x, is_log=False)
    assert math.isnan(fit.half) and math.isnan(fit.half_interval.low)


def test_half_is_not_bounded_where_the_slope_could_be_0():
    x = np.tile(np.arange(1.0, 11), 20)
    called = np.arange(200) // 10 % 2 == 0  # half of the lenses of every value
    called[9] = False
    fit = selection.fit_logistic(x, called, is_log=False)
    assert 1 < fit.half < 10
    assert np.isnan(fit.half_interval).all()


@pytest.mark.parametrize(
    ("values", "called"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1]),
        ([1, 2, 3, 4], [0, 0, 0, 0]),
        ([1, 2, 3, 4], [0, 0, 1, 1]),
        ([1, 2, 3, 4], [1, 1, 0, 0]),
        ([1, 1, 1, 1], [0, 1, 0, 1]),
        ([0, -1, np.nan, 4], [0, 1, 0, 1]),
    ],
)
def test_no_likeliest_curve_is_undefined(values, called):
    with pytest.raises(UndefinedMetric):
        selection.fit_logistic(values, called, is_log=True)


def test_einstein_radius_is_that_of_the_circle_of_the_area(tmp_path):
    path = tmp_path / "t.csv"
    radius = 2.0 * math.pi / 180 / 3600
    path.write_text(f"# any\nID,ein_area,mag_eff,n_pix_source\n007,{math.pi * radius**2},nan,20\n")
    truth, quantities = selection_tables.read_truth(path)
    assert truth["object_id"].tolist() == ["007"]
    assert truth["einstein_radius"][0] == pytest.approx(2.0)
    assert math.isnan(truth["magnification"][0]) and truth["n_pix"][0] == 20
    assert list(quantities) == ["einstein_radius", "n_pix", "magnification"]
    assert quantities["einstein_radius"].unit == "arcsec"


@pytest.mark.parametrize("kind", ["csv", "fits", "parquet"])
def test_columns_of_any_name_and_unit_are_read_from_any_format(tmp_path, kind):
    table = Table({"who": ["a", "b"], "R": [0.05, 0.1], "z": [0.3, 0.5], "mag_source": [25.0, 26]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        table.to_pandas().to_parquet(path)
    else:
        table.write(path)
    columns = {"einstein_radius": ("R", "arcmin"), "redshift": ("z", None)}
    truth, quantities = selection_tables.read_truth(path, columns, id_column="who")
    assert truth["einstein_radius"].tolist() == pytest.approx([3, 6])
    assert truth["magnitude"].tolist() == [25, 26]
    assert truth["redshift"].tolist() == [0.3, 0.5]
    assert quantities["redshift"] == selection_tables.Quantity("redshift", "")


def test_sglc2_rows_of_one_id_are_left_out_and_others_refused(tmp_path):
    head = "ID,ein_area,n_sources,n_pix_source,mag_eff\n"
    path = tmp_path / "t.csv"
    path.write_text(head + "210000,1e-10,1,1,1\n210000,2e-10,1,1,1\n5,3e-10,1,1,-1e130\n")
    with pytest.warns(UserWarning, match="2 rows of IDs there twice"):
        truth, _ = selection_tables.read_truth(path)
    assert truth["object_id"].tolist() == ["5"]
    assert math.isnan(truth["magnification"][0])
    path.write_text(head + "5,1e-10,1,1,1\n5,2e-10,1,1,1\n")
    with pytest.raises(CatalogError, match="line 3"):
        selection_tables.read_truth(path)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("ID,x\n1,2\n", None, "found no Einstein radius"),
        ("x,mag_eff\n1,2\n", None, "found no column 'object_id' or 'ID'"),
        ("ID,x\n1,2\n", {"magnitude": ("y", None)}, "found no column 'y' among ID, x"),
        ("ID,x\n1,2\n", {"einstein_radius": ("x", "kg")}, "column 'x': found unit 'kg'"),
        ("ID,x\n1,abc\n", {"magnitude": ("x", None)}, "line 2, column 'x'"),
    ],
)
def test_truth_that_cannot_be_used_says_where(tmp_path, text, columns, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CatalogError, match=message):
        selection_tables.read_truth(tmp_path / "t.csv", columns)


def test_scores_of_several_runs_need_a_name(tmp_path):
    parts = [scores.score_table(["1", "2"], [0, 1], [0.2, s], run=run, n_train=n)
             for run, n, s in ((0, 10, 0.5), (0, 20, 0.6), (1, 20, 0.7))]  # fmt: skip
    scores.write_scores(pd.concat(parts), tmp_path / "s.csv")
    with pytest.raises(scores.ScoreError, match="found runs 0, 1, expected one"):
        selection_tables.read_scored(tmp_path / "s.csv")
    with pytest.raises(scores.ScoreError, match="not 7"):
        selection_tables.read_scored(tmp_path / "s.csv", run="7")
    table = selection_tables.read_scored(tmp_path / "s.csv", run=0)
    assert table["score"].tolist() == [0.2, 0.6]
    assert table["logit"].tolist() == pytest.approx([math.log(0.25), math.log(1.5)])


def test_folder_of_candidates_is_read_with_its_own_logits(tmp_path):
    empty = {name: np.nan for name in ("ra", "dec", "probability", "spread")}
    table = pd.DataFrame(
        {"object_id": ["b", "a"], "score": [1.0, 1.0], "logit": [50.0, 40.0], "rank": [1, 2],
         "flags": "", "weights": "", "label": [1, 0], **empty}
    )  # fmt: skip
    candidates.write(tmp_path, table, {"network": "n"})
    found = selection_tables.read_scored(tmp_path)
    assert found["logit"].tolist() == [50, 40] and found["label"].tolist() == [1, 0]


def test_log_odds_are_finite_at_0_and_1_and_leave_other_scores():
    assert np.isfinite(selection_tables.log_odds([0.0, 1.0])).all()
    assert selection_tables.log_odds([0.5, 0.8]).tolist() == pytest.approx([0, math.log(4)])
    assert selection_tables.log_odds([-3.0, 0.5]).tolist() == [-3, 0.5]


def test_truth_is_joined_by_id_never_by_order():
    truth = pd.DataFrame({"object_id": ["a", "b"], "x": [1.0, 2.0]})
    beside, is_there = selection_tables.join(pd.DataFrame({"object_id": ["b", "c", "a"]}), truth)
    assert is_there.tolist() == [True, False, True]
    assert beside["x"].tolist()[::2] == [2, 1] and math.isnan(beside["x"][1])
    with pytest.raises(CatalogError, match="no object_id in both, scores with 'z'"):
        selection_tables.join(pd.DataFrame({"object_id": ["z"]}), truth)


@pytest.fixture
def measured():
    rng = np.random.default_rng(6)
    lenses = {"einstein_radius": rng.uniform(1, 5, 200), "magnitude": rng.uniform(22, 27, 200)}
    called = rng.random(200) < lenses["einstein_radius"] / 6
    quantities = {name: selection_tables.QUANTITIES[name] for name in lenses}
    edges = {"einstein_radius": [1, 2, 3, 5, 9], "magnitude": [22, 25, 27]}
    tables = {name: selection.completeness_in_bins(lenses, called, {name: edges[name]})
              for name in lenses}  # fmt: skip
    tables["einstein_radius x magnitude"] = selection.completeness_in_bins(lenses, called, edges)
    radius = selection.fit_logistic(lenses["einstein_radius"], called, is_log=True)
    fits = {"einstein_radius": radius, "magnitude": "no"}
    _, threshold = selection.choose_threshold(np.ones(200), called.astype(float), score=0.5)
    return tables, quantities, fits, threshold


def test_astropy_reads_the_selection_function_with_units_and_header(tmp_path, measured):
    about = {"NETWORK": "b\u00e9", "SCORES": "x" * 100}
    paths = selection_tables.write_completeness(tmp_path, *measured, about)
    table = Table.read(paths[0], hdu="EINSTEIN_RADIUS")
    assert str(table["einstein_radius_low"].unit) == "arcsec"
    assert table["status"].tolist() == ["measured"] * 3 + ["undefined"]
    assert table["completeness"].mask.tolist() == [False] * 3 + [True]  # astropy masks NaN
    assert table["n_lenses"].sum() == 200
    assert table.meta["NETWORK"] == "b\\xe9" and table.meta["SCORES"] == "x" * 100
    assert table.meta["THRESH"] == 0.5 and table.meta["NLENSES"] == 200
    assert table.meta["FPR"] == "nan"  # there was no non-lens
    assert table.meta["FITB"] == measured[2]["einstein_radius"].slope
    plane = Table.read(paths[0], hdu="EINSTEIN_RADIUS_X_MAGNITUDE")
    assert len(plane) == 8 and str(plane["magnitude_high"].unit) == "mag"
    text = pd.read_csv(paths[1], dtype=str, keep_default_na=False)
    assert len(text) == 4 + 2 + 8
    row = text[(text["quantity_2"] == "") & (text["low"] == "5.0")].iloc[0]
    assert row[["completeness", "status", "n_lenses"]].tolist() == ["undefined", "undefined", "0"]
    again = paths[0].read_bytes()
    selection_tables.write_completeness(tmp_path, *measured, about)
    assert paths[0].read_bytes() == again


def test_figure_of_completeness_is_drawn(tmp_path, measured):
    tables, quantities, fits, _ = measured
    path = tmp_path / "c.png"
    selection_figures.completeness(tables, quantities, path, title="stand-in", fits=fits)
    pixels = image.imread(path)
    assert pixels.shape[0] > 300 and pixels[..., :3].std() > 0.05
