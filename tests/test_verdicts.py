"""Verdicts and claims on rows made by hand, whose outcome follows from the rule."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cast_lens import claims, table, verdicts


def reported(**changes):
    row = {
        "row_id": "a", "paper": "sglc2", "experiment": "x", "run": "", "survey": "s",
        "split": "test", "metric": "roc_auc", "value": "0.80", "uncertainty": "",
        "uncertainty_kind": "", "n_runs": "", "tolerance": "0.02", "kind": "result",
        "source": "Table 1", "note": "",
    }  # fmt: skip
    return row | changes


def reproduced(values, **changes):
    row = table.summarize(
        {str(k): v for k, v in enumerate(values)},
        n_train=changes.pop("n_train", 0), n_test=changes.pop("n_test", 0),
        paper="sglc2", experiment="x", survey="s", data="real", scale="paper", metric="roc_auc",
        split="test", software="",
    )  # fmt: skip
    return row | changes


def frames(tmp_path, rows):
    table.write_reproduced(rows, tmp_path / "reproduced.csv")
    return table.read(tmp_path / "reproduced.csv")


def verdict(tmp_path, rows, *told):
    told = pd.DataFrame(list(told) or [reported()])
    return verdicts.compare(told, frames(tmp_path, rows))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.801], "agrees"),
        ([0.8200001], "agrees"),  # the tolerance is inclusive up to rounding of the CSV
        ([0.83], "differs"),
        ([0.800, 0.801, 0.799, 0.800], "agrees"),
        ([0.900, 0.901, 0.899, 0.900], "differs"),
        ([0.70, 0.90, 0.75, 0.85], "undecidable at this n"),
        ([0.819, 0.822, 0.825, 0.818], "undecidable at this n"),
    ],
)
def test_verdict_follows_from_the_interval_of_the_difference(tmp_path, values, expected):
    told = reported(tolerance="0.0200002")
    assert verdict(tmp_path, [reproduced(values)], told)["verdict"].tolist() == [expected]


def test_interval_of_the_mean_is_student_s(tmp_path):
    values = [0.79, 0.80, 0.82, 0.81]
    row = frames(tmp_path, [reproduced(values)]).iloc[0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert float(row["low"]) == pytest.approx(low, abs=1e-9)
    assert float(row["high"]) == pytest.approx(high, abs=1e-9)
    assert float(row["sd"]) == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_stand_in_data_never_get_a_verdict_on_a_number(tmp_path):
    row = reproduced([0.80, 0.80, 0.80], data="stand-in")
    assert verdict(tmp_path, [row])["verdict"].item() == "no verdict: stand-in data"


def test_a_paper_s_wide_error_makes_the_difference_undecidable(tmp_path):
    told = reported(uncertainty="0.05", uncertainty_kind="sd", n_runs="10")
    values = [0.800, 0.801, 0.799, 0.800]
    assert verdict(tmp_path, [reproduced(values)])["verdict"].item() == "agrees"
    assert verdict(tmp_path, [reproduced(values)], told)["verdict"].item() == (
        "undecidable at this n"
    )


def test_rows_that_were_not_run_stay_with_a_reason(tmp_path):
    told = [
        reported(),
        reported(row_id="b", metric="average_precision"),
        reported(row_id="c", experiment="y"),
        reported(row_id="d", paper="epfl"),
        reported(row_id="e", run="7"),
    ]
    out = verdict(tmp_path, [reproduced([0.8])], *told)
    assert out["row_id"].tolist() == list("abcde")
    assert out["verdict"].tolist() == [
        "agrees",
        "not run: the experiment does not yield this number",
        "not run: no run has such an experiment",
        "not run: this paper's reproduction is not in this version",
        "not run: no run 7",
    ]


def runs_told(values, tolerance="0"):
    return [
        reported(row_id=str(k), run=str(k), value=str(v), tolerance=tolerance)
        for k, v in enumerate(values)
    ]


def test_seeded_runs_agree_run_by_run_and_one_that_does_not_shows(tmp_path):
    out = verdict(tmp_path, [reproduced([36, 34, 38])], *runs_told([36, 34, 38]))
    assert out["verdict"].tolist() == ["agrees"] * 3
    out = verdict(tmp_path, [reproduced([36, 35])], *runs_told([36, 34])[1:])
    assert out["verdict"].tolist() == ["differs"]
    assert out["difference"].tolist() == [1]


def test_unseeded_single_runs_are_judged_against_their_own_scatter(tmp_path):
    ours, theirs = [36, 41, 38, 44], [41, 36, 43, 39]
    out = verdict(tmp_path, [reproduced(ours)], *runs_told(theirs, "4.9"))
    assert set(out["verdict"]) == {"undecidable at this n"}
    out = verdict(tmp_path, [reproduced([90, 92, 91, 91])], *runs_told([40, 42, 41, 40], "4.9"))
    assert set(out["verdict"]) == {"differs"}


def test_a_mean_whose_runs_agree_one_by_one_agrees_though_the_runs_scatter(tmp_path):
    values = [36.0, 34, 38, 40, 44]
    runs = [reported(row_id=str(k), run=str(k), value=str(v)) for k, v in enumerate(values)]
    told = [reported(value="38.4", tolerance="0.05"), *runs]
    assert verdict(tmp_path, [reproduced(values)], *told)["verdict"].iloc[0] == "agrees"
    alone = verdict(tmp_path, [reproduced(values)], told[0])
    assert alone["verdict"].item() == "undecidable at this n"


def test_a_metric_undefined_in_every_run_is_said_to_be_undefined(tmp_path):
    out = verdict(tmp_path, [reproduced([np.nan, np.nan])])
    assert out["verdict"].item().startswith("undefined")


def test_merge_replaces_a_cell_and_keeps_the_others(tmp_path):
    target = tmp_path / "reproduced.csv"
    table.write_reproduced([reproduced([0.1]), reproduced([0.2], metric="m")], target)
    table.write_reproduced([reproduced([0.3])], tmp_path / "new.csv")
    table.merge([tmp_path / "new.csv"], target)
    values = table.read(target).set_index("metric")["value"].to_dict()
    assert values == {"m": "0.2", "roc_auc": "0.3"}


def test_merge_leaves_stand_in_rows_out_where_there_are_real_ones(tmp_path):
    target, mine = tmp_path / "reproduced.csv", tmp_path / "mine.csv"
    table.write_reproduced([reproduced([0.1])], target)
    rows = [reproduced([0.2], data="stand-in"), reproduced([0.3], data="stand-in", metric="m")]
    table.write_reproduced(rows, mine)
    table.merge([mine], target)
    found = table.read(target)[["metric", "data", "value"]].to_numpy().tolist()
    assert sorted(found) == [["m", "stand-in", "0.3"], ["roc_auc", "real", "0.1"]]


def judge(tmp_path, relation, left, right="0.5", told=None, data="real", control=None):
    rows = [reproduced(left, experiment="a", n_train=70, n_test=30, data=data)]
    if control is not None:
        rows.append(reproduced(control, experiment="k", n_train=70, n_test=30, data=data))
    if not isinstance(right, str):
        rows.append(reproduced(right, experiment="b", n_train=70, n_test=30))
        right = "b/roc_auc"
    claim = pd.DataFrame(
        [
            {
                "claim_id": "c", "paper": "sglc2", "statement": "", "left": "a/roc_auc",
                "relation": relation, "right": right, "survey": "s", "source": "", "note": "",
                "control": "" if control is None else "k/roc_auc",
            }
        ]
    )  # fmt: skip
    told = pd.DataFrame(told or [reported()])
    return claims.judge_claims(claim, frames(tmp_path, rows), told).iloc[0]


HIGH, LOW, MIXED = [0.90, 0.91, 0.92, 0.90], [0.50, 0.52, 0.51, 0.49], [0.6, 0.4, 0.7, 0.3]


@pytest.mark.parametrize(
    ("relation", "left", "right", "expected"),
    [
        (">", HIGH, LOW, "supported"),
        (">", LOW, HIGH, "contradicted"),
        (">", MIXED, LOW, "undecidable at this n"),
        ("<", LOW, HIGH, "supported"),
        ("<", HIGH, LOW, "contradicted"),
        (">", HIGH, "0.5", "supported"),
        ("<=", HIGH, "0.5", "contradicted"),
        (">=", MIXED, "0.5", "undecidable at this n"),
        ("not_significant", HIGH, LOW, "contradicted"),
        ("not_significant", MIXED, LOW, "supported"),
        ("within_1_sigma", MIXED, LOW, "supported"),
        ("within_1_sigma", HIGH, LOW, "contradicted"),
        ("within_1_sigma", [0.52, 0.56, 0.5, 0.58], [0.5, 0.5, 0.5, 0.5], "undecidable at this n"),
        ("equals_chance", MIXED, "0.5", "supported"),
        ("equals_chance", HIGH, "0.5", "contradicted"),
        ("equals_chance", [0.9], "0.5", "undecidable at this n"),
        (">", [0.9], "0.5", "undecidable at this n"),
    ],
)
def test_claims_are_judged_by_their_relation(tmp_path, relation, left, right, expected):
    assert judge(tmp_path, relation, left, right)["verdict"] == expected


def test_cells_with_common_runs_are_paired_with_nadeau_and_bengio_s_variance(tmp_path):
    left, right = np.array([0.61, 0.72, 0.55, 0.83]), np.array([0.60, 0.70, 0.52, 0.84])
    row = judge(tmp_path, ">", left, right)
    difference = left - right
    error = np.sqrt((1 / 4 + 30 / 70) * difference.var(ddof=1))
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-9)
    assert row["p"] == pytest.approx(2 * stats.t.sf(difference.mean() / error, 3), abs=1e-6)


def test_a_claim_may_be_held_against_the_numbers_a_paper_reports(tmp_path):
    told = [reported(row_id=str(k), run=str(k), value=str(v)) for k, v in enumerate(LOW)]
    assert judge(tmp_path, ">", HIGH, "reported:x/roc_auc", told)["verdict"] == "supported"
    mock = judge(tmp_path, ">", HIGH, "reported:x/roc_auc", told, data="stand-in")
    assert mock["verdict"].startswith("not run")
    assert judge(tmp_path, ">", HIGH, data="stand-in")["verdict"] == "supported"


def test_a_claim_without_results_stays_with_a_reason(tmp_path):
    assert judge(tmp_path, ">", HIGH, "missing/roc_auc")["verdict"].startswith("not run")


KNOWS = [0.80, 0.81, 0.79, 0.80]


@pytest.mark.parametrize(
    ("left", "control", "expected"),
    [
        (LOW, None, "supported"),
        (LOW, KNOWS, "supported"),
        (
            LOW,
            LOW,
            "undecidable: left does not differ from k/roc_auc",
        ),  # a network that knows nothing
        (LOW, [0.48, 0.51, 0.50, 0.52], "undecidable: left does not differ from k/roc_auc"),
        (
            MIXED,
            KNOWS,
            "undecidable: left does not differ from k/roc_auc",
        ),  # too few objects to tell
        (HIGH, KNOWS, "contradicted"),  # whatever the control does
        (HIGH, LOW, "contradicted"),
        (LOW, [], "undecidable: k/roc_auc was not run"),
    ],
)
def test_being_at_chance_says_something_only_where_the_control_differs(
    tmp_path, left, control, expected
):
    assert judge(tmp_path, "equals_chance", left, control=control)["verdict"] == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (LOW, "undecidable: left does not differ from 0.5"),
        (MIXED, "undecidable: left does not differ from 0.5"),
        (KNOWS, "supported"),
    ],
)
def test_being_alike_says_something_only_of_what_differs_from_the_control(tmp_path, left, expected):
    claim = {
        "claim_id": "c", "paper": "sglc2", "left": "a/roc_auc", "relation": "within_1_sigma",
        "right": "b/roc_auc", "control": "0.5",
    }  # fmt: skip
    right = [value + 0.001 for value in left]
    rows = [reproduced(left, experiment="a"), reproduced(right, experiment="b")]
    found = claims.judge_claims(pd.DataFrame([claim]), frames(tmp_path, rows), pd.DataFrame())
    assert found["verdict"].item() == expected


def test_what_bom_et_al_claim_to_be_at_chance_or_alike_has_a_control(root):
    rows = table.read(root / "reproductions/claims.csv")
    alike = rows["relation"].isin(["equals_chance", "within_1_sigma", "not_significant"])
    mine = rows[(rows["paper"] == "sglc2") & alike]
    assert len(mine) == 17 and (mine["control"] != "").all()
    assert not rows.loc[~alike, "control"].any()
