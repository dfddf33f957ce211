"""Bom et al. (2022), SCALE=calibration: a page that says how hard the images are, and to whom."""

import importlib
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cast_lens import run, scores
from tests.test_sglc2 import ground, paper, small, survey  # noqa: F401 (fixtures)

PAPER = {
    "roc_auc": 0.83, "uncertainty": 0.01, "above_chance": 30.0, "tolerance": 10.0,
    "full_level": 70.0,
}  # fmt: skip
N = 6000


@pytest.fixture(scope="module")
def calibration():
    return importlib.import_module("reproductions.sglc2.calibration")


def numbers(low, high, **changes):
    return {
        "roc_auc": (low + high) / 2, "low": low, "high": high, "above_chance": 20,
        "full_level": None, "n_train": 14_400, "n_test": 4_000, "epochs": 12,
    } | changes  # fmt: skip


@pytest.mark.parametrize("low, high, verdict", [
    (0.80, 0.819, "harder than the challenge, or not yet learned"),
    (0.80, 0.821, "as hard as"), (0.825, 0.835, "as hard as"), (0.839, 0.85, "as hard as"),
    (0.841, 0.85, "easier than the challenge"),
])  # fmt: skip
def test_the_verdict_is_that_of_the_whole_interval(calibration, low, high, verdict):
    told = calibration.paragraph(numbers(low, high), PAPER, "a stand-in")
    assert told.startswith(f"**The images are {verdict}") and "On a stand-in," in told
    assert f"[{low:.3f}, {high:.3f}]" in told and "14,400 objects" in told
    assert "leave chance from N_pix = 20 on (paper: 30)" in told
    assert "are at the full level nowhere (paper: 70)" in told


@pytest.mark.parametrize("begins, easier", [(None, False), (30, False), (20, False), (10, True)])
def test_faint_arcs_that_are_found_where_the_paper_finds_none_are_told(calibration, begins, easier):
    told = calibration.paragraph(numbers(0.82, 0.84, above_chance=begins), PAPER, "a stand-in")
    assert ("the faintest arcs are found more easily.**" in told) == easier


def test_the_paper_is_what_reported_csv_says(calibration, request):
    folder = request.config.rootpath / "reproductions"
    rows = pd.read_csv(folder / "reported.csv").set_index("row_id")
    found = calibration.reported(folder)
    headline = rows.loc["sglc2.table1.hjy_vis_repeated.alternative.roc_auc"]
    assert (found["roc_auc"], found["uncertainty"]) == (headline["value"], headline["uncertainty"])
    begins = rows.loc["sglc2.sec5.npix.chance_below_n_pix"]
    assert (found["above_chance"], found["tolerance"]) == (begins["value"], begins["tolerance"])
    assert found["full_level"] == rows.loc["sglc2.sec5.npix.full_level_above_n_pix", "value"]


def test_bins_of_the_page_are_pairs_of_lenses_and_fainter_objects(calibration, request, tmp_path):
    rng = np.random.default_rng(0)
    n_pix = rng.integers(0, 160, N)
    ids = [str(200_000 + k) for k in range(N)]
    catalog = pd.DataFrame({
        "object_id": ids, "n_pix_source": n_pix, "mag_eff": 3.0, "n_source_im": 1,
    })  # fmt: skip
    seen = np.where(n_pix >= 40, n_pix / 40, 0.0)
    values = 1 / (1 + np.exp(-seen - rng.standard_normal(N)))
    test = scores.score_table(ids, (n_pix > 20).astype(int), values, run=0, n_train=9)
    found = {"test80k": test, "history": pd.DataFrame({"epoch": [1, 2]})}
    a_survey = SimpleNamespace(
        pack=SimpleNamespace(catalog=catalog), title="made up", parts=[{"train": np.arange(50)}]
    )
    calibration.write(tmp_path, found, a_survey, 0, request.config.rootpath / "reproductions")
    table = pd.read_csv(tmp_path / "calibration.csv").set_index("least N_pix")
    assert table.index.tolist() == list(range(10, 151, 10))
    for low, row in table.iterrows():
        lenses, below = (n_pix >= low) & (n_pix < low + 10), n_pix < low
        assert row["lenses"] <= min(lenses.sum(), below.sum())
        # The fainter ones are a sample: their area is that of all, within its error.
        labels = np.r_[np.ones(lenses.sum()), np.zeros(below.sum())]
        whole = roc_auc_score(labels, np.r_[values[lenses], values[below]])
        assert abs(row["ROC AUC"] - whole) < 0.06
        assert row["low"] <= row["ROC AUC"] <= row["high"]
    page = (tmp_path / "calibration.md").read_text()
    assert f"AUC of {roc_auc_score(test['label'], test['score']):.3f} [" in page
    assert "leave chance from N_pix = 40 on" in page and "made up" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    shown = pd.read_csv(io.StringIO("\n".join(lines[:1] + lines[2:])), sep="|")
    assert len(shown) == len(table) and (tmp_path / "calibration.png").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [
    ["--experiment", "calibration"], ["--scale", "calibration", "--experiment", "table1.hjy.none"],
])  # fmt: skip
def test_no_number_of_another_network_gets_among_those_of_the_paper(paper, tmp_path, arguments):  # noqa: F811
    with pytest.raises(run.RunError, match="calibration has the experiment calibration, and no"):
        paper.main.main([*arguments, "--output", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_scale_trains_its_network_and_writes_no_row_of_the_paper(
    paper, small, tmp_path, monkeypatch, capsys  # noqa: F811
):  # fmt: skip
    scale = paper.settings.SCALES["calibration"]
    less = replace(small, cells=scale.cells, changes=scale.changes | {"epochs": 2, "batch": 16},
                   n_run=1, adapt=(), n_explained=0)  # fmt: skip
    monkeypatch.setitem(paper.settings.SCALES, "calibration", less)
    # Of 4 or 8 filters TensorFlow 2.21 dies in the first step, unless oneDNN is off.
    monkeypatch.setattr(paper.network.backbones, "SMALL", (16, 32))
    paper.main.main(["--scale", "calibration", "--output", str(tmp_path)])
    folder = tmp_path / "sglc2-stand-in-calibration-seed0"
    page = (folder / "calibration.md").read_text()
    assert page in capsys.readouterr().out and "after 2 epochs of 40 objects" in page
    assert not (folder / "reproduced.csv").exists() and not list(folder.glob("table1*"))
    table = scores.read_scores(folder / f"folds/{paper.settings.CALIBRATION}/fold0/test80k.csv")
    assert f"AUC of {roc_auc_score(table['label'], table['score']):.3f} [" in page
