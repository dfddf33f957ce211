"""Each cell is the AUC of its network on its data, no pair hides that it was trained on them."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cast_lens import candidates, drawings, images, intervals, matrix, run, score_shards
from cast_lens.networks import Branch
from tests.fits_files import survey_file

SIDE = 8
OPENED = []


def network(name, offset, bands=("g",)):
    """A network whose logit is one pixel; another pixel is another network."""

    def open_it():
        OPENED.append(name)
        return score_shards.Scorer(
            name, f"{offset:064x}", (Branch("all", bands, SIDE, 0.5, "all"),), None, {}, "numpy",
            lambda arrays: arrays["all"][:, 0, offset, 0],
        )  # fmt: skip

    return open_it


def survey(folder, n=40, seed=0, signal=1.0):
    """Write images, pixel 0 and 1 of which know of the label, and a table of labels."""
    folder.mkdir()
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3 == 0
    x = rng.normal(size=(n, SIDE, SIDE)).astype(np.float32)
    x[labels, 0, :2] += signal
    for k in range(n):
        (folder / f"s{k:03}_g.fits").write_bytes(survey_file(x[k], "PIXSCALE= 0.5"))
    labels = pd.DataFrame({"object_id": [f"s{k:03}" for k in range(n)], "label": labels * 1})
    labels.to_csv(folder.with_suffix(".csv"), index=False)
    return x, labels["label"].to_numpy()


def data_set(folder, name, survey=""):
    return matrix.DataSet(
        name, lambda bands: images.find(folder, bands=bands), survey, folder.with_suffix(".csv")
    )


@pytest.fixture
def nets():
    OPENED.clear()
    return [matrix.Entrant("one", network("one", 0), "sglc2"),
            matrix.Entrant("two", network("two", 1), "kids"),
            matrix.Entrant("blind", network("blind", 5), "")]  # fmt: skip


def build(nets, sets, folder, **options):
    rules = {"shard": 16, "batch": 8, "progress": False} | options
    return matrix.build(nets, sets, folder, **rules)


def test_cells_are_the_aucs_and_pairs_are_paired_and_marked(nets, tmp_path):
    truth = {name: survey(tmp_path / name, seed=k) for k, name in enumerate(("a", "b"))}
    sets = [data_set(tmp_path / "a", "a", "SGLC2, held out"), data_set(tmp_path / "b", "b", "DES")]
    cells, pairs = build(nets, sets, tmp_path / "out")
    assert len(cells) == 6 and len(pairs) == 6
    pixel = {"one": 0, "two": 1, "blind": 5}
    for row in cells.itertuples():
        x, labels = truth[row.data]
        assert row.auc == pytest.approx(roc_auc_score(labels, x[:, 0, pixel[row.network]]))
        assert row.low <= row.auc <= row.high
        assert (row.n, row.n_lens, row.n_left_out, row.note) == (40, labels.sum(), 0, "")
    marks = cells.set_index(["network", "data"])["trained_on_this"]
    assert marks["one", "a"] == "trained on this" and marks["one", "b"] == "no"
    assert marks["two", "a"] == "no" and marks["blind", "a"] == "not known"
    for row in pairs.itertuples():
        x, labels = truth[row.data]
        a, b = (x[:, 0, pixel[name]] for name in (row.network_a, row.network_b))
        found = intervals.delong(labels, a, b)
        assert (row.difference, row.p) == pytest.approx((found.difference, found.p))
        assert row.trained_a == marks[row.network_a, row.data]
        assert row.trained_b == marks[row.network_b, row.data]
    text = (tmp_path / "out/matrix.md").read_text()
    assert "no test of how it carries over" in text
    assert pd.read_csv(tmp_path / "out/matrix.csv")["auc"].to_numpy() == pytest.approx(cells["auc"])
    assert min(drawings.png_size(tmp_path / "out/matrix.png")) > 300


def test_no_pair_with_a_trained_network_is_without_its_mark(nets, tmp_path):
    survey(tmp_path / "a")
    cells, pairs = build(nets, [data_set(tmp_path / "a", "a", "sglc2")], tmp_path / "out")
    lines = matrix.markdown(cells, pairs).splitlines()
    rows = [line for line in lines if line.startswith("| a |")]
    assert len(rows) == 3
    for line in rows:
        assert ("one†" in line) == ("one" in line)
        assert ("blind?" in line) == ("blind" in line)
    assert [line for line in lines if line.startswith("| one |")][0].count("†") == 1


@pytest.mark.parametrize(
    ("network", "data", "word"),
    [("sglc2", "sglc2", "trained on this"), ("sglc2", "SGLC2 held out", "trained on this"),
     ("sglc2, stand-in", "sglc2", "trained on this"), ("SGLC 2", "sglc2", "trained on this"),
     ("des; kids", "KiDS", "trained on this"), ("des;", "des", "trained on this"),
     ("sglc1", "sglc2", "no"), ("des", "desi", "no"), ("", "sglc2", "not known"),
     ("sglc2", "", "not known"), ("des;", "kids", "not known")],
)  # fmt: skip
def test_survey_is_recognized_or_not_known(network, data, word):
    assert matrix.is_trained_on(network, data) == word


def test_name_of_a_data_set_can_accuse_but_not_acquit(nets, tmp_path):
    sets = [data_set(tmp_path / "a", name) for name in ("sglc2", "mine")]
    cells, _ = build(nets[:1], sets, tmp_path / "out", dry_run=True)
    assert cells["trained_on_this"].tolist() == ["trained on this", "not known"]


def test_second_run_scores_nothing_and_opens_each_network_once(nets, tmp_path, monkeypatch):
    survey(tmp_path / "a")
    survey(tmp_path / "b", seed=1)
    sets = [data_set(tmp_path / name, name) for name in "ab"]
    first, _ = build(nets, sets[:1], tmp_path / "out")
    assert OPENED == ["one", "two", "blind"]
    scored = []
    real = score_shards.score_shard
    monkeypatch.setattr(
        score_shards, "score_shard",
        lambda job, *args, **more: scored.append(job.folder) or real(job, *args, **more),
    )  # fmt: skip
    second, _ = build(nets, sets, tmp_path / "out")
    assert OPENED == ["one", "two", "blind"] * 2
    assert scored and all(folder.endswith("--b") for folder in scored)
    pd.testing.assert_frame_equal(second[second["data"] == "a"].reset_index(drop=True), first)


def test_cell_that_cannot_be_says_why_and_the_others_are_there(nets, tmp_path):
    survey(tmp_path / "a")
    survey(tmp_path / "few", n=3)
    (tmp_path / "bare").mkdir()
    unlabelled = matrix.DataSet("bare", lambda bands: images.find(tmp_path / "a", bands=bands))
    red = matrix.Entrant("red", network("red", 0, ("r", "i")), "")
    sets = [data_set(tmp_path / "a", "a"), data_set(tmp_path / "few", "few"), unlabelled]
    cells, pairs = build([nets[0], red], sets, tmp_path / "out")
    notes = cells.set_index(["network", "data"])["note"]
    assert notes["one", "a"] == "" and "needs 2 of each" in notes["one", "few"]
    assert "--labels" in notes["one", "bare"] and notes["red", "a"]
    assert cells["auc"].notna().sum() == 1 and not len(pairs)
    assert (tmp_path / "out/matrix.png").exists()
    with pytest.raises(ValueError, match="needs 2 of each"):
        build(nets[:1], sets[1:2], tmp_path / "strict", strict=True)


def test_pair_is_of_the_objects_that_both_scored():
    rng = np.random.default_rng(0)
    ids, labels = [f"s{k}" for k in range(30)], np.arange(30) % 2
    logits = rng.normal(size=(2, 30))
    tables = [pd.DataFrame({"object_id": ids, "logit": x, "label": labels}) for x in logits]
    scored = {("one", "a"): tables[0][4:], ("two", "a"): tables[1][:-2].sample(frac=1)}
    cells = pd.DataFrame([{"network": n, "data": "a", "trained_on_this": "no"} for n in
                          ("one", "two")])  # fmt: skip
    (row,) = matrix.compare(scored, cells).itertuples()
    found = intervals.delong(labels[4:-2], *logits[:, 4:-2])
    assert row.n == 24
    assert (row.difference, row.p) == pytest.approx((found.difference, found.p))


def test_holm_is_the_step_down_of_its_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    # by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be less than 0.06
    assert matrix.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert matrix.holm(np.array([0.7, 0.9])) == pytest.approx([1, 1])
    assert len(matrix.holm(np.array([]))) == 0


def test_dry_run_writes_nothing_and_knows_what_is_there(nets, tmp_path):
    survey(tmp_path / "a")
    sets = [data_set(tmp_path / "a", "a")]
    cells, _ = build(nets[:1], sets, tmp_path / "out", dry_run=True)
    assert cells["note"].tolist() == ["would be scored"] and not (tmp_path / "out").exists()
    build(nets[:1], sets, tmp_path / "out")
    cells, _ = build(nets[:2], sets, tmp_path / "out", dry_run=True)
    assert cells["note"].tolist() == ["is there", "would be scored"]
    assert len(candidates.read(tmp_path / "out/cells/one--a")) == 40


def test_names_must_differ_and_be_there(nets, tmp_path):
    for networks, sets, text in (
        ([], [data_set(tmp_path, "a")], "no network"),
        (nets, [], "no data set"),
        (nets[:1] * 2, [data_set(tmp_path, "a")], "network one twice"),
    ):
        with pytest.raises(matrix.MatrixError, match=text):
            build(networks, sets, tmp_path / "out")


def test_released_networks_are_those_of_the_manifest(root):
    names = [path.stem for path in (root / "weights/networks").glob("*.json")]
    found = matrix.entrants()
    assert sorted(entrant.name for entrant in found) == sorted(names)
    for entrant in found:
        about = json.loads((root / f"weights/networks/{entrant.name}.json").read_text())
        assert entrant.survey == about["survey"]


def test_only_what_scoring_refuses_becomes_a_note(nets, tmp_path):
    survey(tmp_path / "a")
    build(nets[:1], [data_set(tmp_path / "a", "a")], tmp_path / "out")
    with pytest.raises(run.RunError, match="then"):
        build(nets[:1], [data_set(tmp_path / "a", "a")], tmp_path / "out", dihedral=True)
