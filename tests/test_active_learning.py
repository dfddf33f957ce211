"""The paper module: exact where the authors were seeded, blind to its test parts everywhere."""

import contextlib
import dataclasses
import io
import os
import signal
import threading
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from cast_lens import catalog, data, metrics, run, scores
from cast_lens.mock import features
from reproductions import active_learning as paper
from tests.folders import MACHINE

# Printed by the last cell of the authors' notebook.
AUTHORS_TEN = [36, 34, 38, 40, 44, 39, 42, 37, 40, 42]

TINY = paper.Config(hidden=4, epochs=10, batch=256)
TINY_ACTIVE = paper.Active(TINY, "badge", rounds=2, per_round=7)
TINY_ONCE = dataclasses.replace(TINY_ACTIVE, rounds=1)
TINY_BEYOND = paper.Beyond(
    (TINY, dataclasses.replace(TINY, hidden=3)), folds=2, bag=2, inner_bag=1, trees=5
)


@pytest.fixture(scope="module")
def objects():
    return features.make_table(0).rename(columns={"id_str": "object_id"})


@pytest.fixture
def two_splits(monkeypatch):
    monkeypatch.setattr(paper, "SPLITS", (42, 43))


def go_offline(monkeypatch):
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)

    def refuse(file):
        raise data.DataUnavailableError(f"get {file.url} {file.sha256} or DATA=")

    monkeypatch.setattr(data, "download", refuse)
    monkeypatch.setattr(data, "cache_folder", lambda: data.Path("does-not-exist"))


@pytest.fixture
def offline(monkeypatch):
    go_offline(monkeypatch)


def tiny(monkeypatch, **experiments):
    monkeypatch.setattr(paper, "EXPERIMENTS", experiments)
    monkeypatch.setattr(paper, "SPLITS", (42, 43))


def two_experiments(monkeypatch):
    tiny(monkeypatch, **{"paper.focal": TINY, "active.badge": TINY_ONCE})


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Where two tiny experiments were run on stand-in data, and what was said on stderr."""
    folder, errors = tmp_path_factory.mktemp("ran"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        go_offline(patch)
        two_experiments(patch)
        paper.main(["--output", str(folder)])
    return folder, errors.getvalue()


def top_100(table):
    return [
        metrics.lenses_in_top(part["label"].to_numpy(), part["score"].to_numpy(), n=100)
        for _, part in table.groupby("run")
    ]


def real_objects(path):
    return catalog.read_feature_table(
        path, id_column="id_str", label_column="label", feature_prefix="feat_pca_"
    )


@pytest.mark.parametrize("n", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_baseline_gives_the_integers_of_the_authors_notebook(feature_table, monkeypatch, n):
    monkeypatch.setattr(paper, "SPLITS", paper.SPLITS[:n])
    table = paper.run_baseline(paper.Baseline(), real_objects(feature_table), seed=0)["scores"]
    assert top_100(table) == AUTHORS_TEN[:n]


def test_committed_rows_hold_the_ten_integers_of_the_authors_notebook(root):
    rows = pd.read_csv(root / "reproductions/reproduced.csv", dtype=str)
    rows = rows[(rows["experiment"] == "authors_code.baseline") & (rows["data"] == "real")]
    runs = rows.loc[rows["metric"] == "lenses_in_top_100", "runs"].item()
    assert [int(item.split("=")[1]) for item in runs.split()] == AUTHORS_TEN


def test_real_table_has_the_shape_the_module_says(feature_table):
    table = real_objects(feature_table)
    assert table.shape == (3329, 42)
    assert table["label"].sum() == 255
    assert table["object_id"].iloc[0] == "102018212_-588199575513249872"
    # Lenses in the ten test parts, counted from the public file in the authors' splits.
    counts = [table["label"].iloc[paper.split(table, state)[1]].sum() for state in paper.SPLITS]
    assert counts == [69, 68, 73, 78, 82, 65, 74, 67, 79, 89]


def test_stand_in_has_the_shape_of_the_real_table(objects):
    assert objects.shape == (3329, 43)
    assert objects["label"].sum() == 255
    assert (objects["label2"] == 1 - objects["label"]).all()
    assert objects["object_id"].is_unique


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        pytest.param(TINY_ACTIVE, marks=pytest.mark.slow),
        pytest.param(TINY_BEYOND, marks=pytest.mark.slow),
        paper.Baseline(4, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.slow
def test_labels_of_test_objects_never_change_a_score(objects, two_splits, config):
    first = paper.reproduce(config, objects, 0)["scores"]
    changed = objects.copy()
    inside = np.intersect1d(*(paper.split(objects, state)[1] for state in paper.SPLITS))
    changed.loc[inside, "label"] = 1 - changed.loc[inside, "label"]
    run.set_seed(0)
    second = paper.reproduce(config, changed, 0)["scores"]
    assert len(inside) > 200
    assert (first["label"] != second["label"]).any()
    np.testing.assert_array_equal(first["score"], second["score"])


@pytest.fixture(scope="module")
def bought(objects):
    """What a tiny experiment in two splits bought."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "SPLITS", (42, 43))
        return paper.run_active(TINY_ACTIVE, objects, 0)


@pytest.mark.slow
def test_active_buys_from_the_training_part_alone_and_never_twice(objects, two_splits, bought):
    for state, part in bought["labelled"].groupby("run"):
        fit = objects["object_id"].iloc[paper.split(objects, int(state))[0]]
        assert len(part) == 60 + 2 * 7
        assert part["object_id"].is_unique
        assert part["object_id"].isin(fit).all()
        assert part["label"].iloc[:60].sum() >= 5
    sizes = bought["scores"].groupby(["run", "n_train"]).size()
    assert sizes.index.tolist() == [(s, n) for s in ("42", "43") for n in (60, 67, 74)]
    assert (sizes == 999).all()


def test_lenses_found_are_those_among_the_objects_bought(bought):
    for _, row in bought["extra"].iterrows():
        part = bought["labelled"][bought["labelled"]["run"] == str(row["run"])]
        assert row["value"] == part.loc[part["position"] < row["n_train"], "label"].sum()


@pytest.mark.slow
def test_every_strategy_starts_from_the_same_labels_and_network(objects, two_splits):
    starts = []
    for strategy in paper.STRATEGIES:
        config = dataclasses.replace(TINY_ACTIVE, strategy=strategy, rounds=0)
        out = paper.run_active(config, objects, 0)
        first = out["scores"][out["scores"]["n_train"] == 60]
        starts.append(first["score"].to_numpy())
    for one, other in pairwise(starts):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_entropy_and_margin_buy_the_same_objects_with_two_classes(objects, two_splits):
    one, other = (
        paper.run_active(dataclasses.replace(TINY_ACTIVE, strategy=name, rounds=1), objects, 0)[
            "labelled"
        ]
        for name in ("entropy", "margin")
    )
    for (_, a), (_, b) in zip(one.groupby("run"), other.groupby("run")):
        assert set(a["object_id"]) == set(b["object_id"])


def test_one_class_batches_are_those_a_loop_counts(two_splits):
    labels = np.zeros((300, 2), dtype=int)
    labels[:9, 0], labels[:3, 1] = 1, 1
    config, keys = paper.Config(epochs=4), [(0, 1), (0, 2)]
    rows = paper.one_class_batches(config, labels, keys)
    expected = {"one_class_batch_fraction": [], "one_class_full_batch_fraction": []}
    for network, key in enumerate(keys):
        alone = []
        for number in range(4):
            order = np.random.default_rng([*key, number, 2]).permutation(300)
            batches = [labels[order[k : k + 128], network] for k in (0, 128, 256)]
            alone.append([len(set(batch)) == 1 for batch in batches])
        expected["one_class_batch_fraction"].append(np.mean(alone))
        expected["one_class_full_batch_fraction"].append(np.array(alone)[:, :2].mean())
    for metric, values in expected.items():
        assert rows.loc[rows["metric"] == metric, "value"].tolist() == values


def test_probability_of_a_one_class_batch_is_4e_5_at_batch_128(objects):
    share = 1 - objects["label"].mean()
    assert share**128 == pytest.approx(4e-5, rel=0.1)


def test_hypothesised_gradient_is_p_minus_y_for_cross_entropy():
    p = np.array([0.1, 0.4, 0.6, 0.99])
    np.testing.assert_allclose(
        paper.hypothesised_gradient(TINY, p), [0.1, 0.4, -0.4, -0.01], atol=1e-12
    )


@pytest.mark.slow
def test_two_runs_with_one_seed_are_identical_and_a_finished_run_does_nothing(
    ran, tmp_path, monkeypatch, offline, capsys
):
    two_experiments(monkeypatch)
    paper.main(["--output", str(tmp_path)])
    name = "active_learning-stand-in-seed0"
    files = sorted(p.relative_to(ran[0]) for p in (ran[0] / name).rglob("*.*"))
    assert len(files) > 10
    for file in files:
        if file.suffix in (".csv", ".json", ".png", ".html") and file.name not in MACHINE:
            assert (ran[0] / file).read_bytes() == (tmp_path / file).read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(paper, "reproduce", lambda *_: pytest.fail("the run was finished"))
    paper.main(["--output", str(tmp_path)])
    assert "no verdict: stand-in data" in capsys.readouterr().out


def test_stand_in_is_named_in_every_row_and_never_judged(ran):
    folder = ran[0] / "active_learning-stand-in-seed0"
    assert "DATA=" in ran[1]
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    assert set(table["data"]) == {"stand-in", ""}
    assert table["verdict"].str.match("no verdict: stand-in|not run").all()
    assert set(pd.read_csv(folder / "reproduced.csv")["data"]) == {"stand-in"}


@pytest.mark.slow
def test_ids_a_spreadsheet_would_run_are_quoted_in_every_file(
    tmp_path, monkeypatch, offline, objects
):
    tiny(monkeypatch, active=TINY_ONCE)
    evil = objects.assign(object_id="=1+" + objects["object_id"])
    monkeypatch.setattr(paper, "load_data", lambda *_, **__: (evil, "stand-in", "0"))
    paper.main(["--output", str(tmp_path)])
    for name in ("scores.csv", "labelled.csv"):
        path = tmp_path / "active_learning-stand-in-seed0/active" / name
        assert pd.read_csv(path)["object_id"].str.startswith("'=1+standin_").all()


def test_real_only_stops_where_the_data_are_not_to_be_had(tmp_path, offline):
    with pytest.raises(data.DataUnavailableError, match="DATA="):
        paper.main(["--real", "--output", str(tmp_path)])


@pytest.mark.slow
def test_another_seed_or_configuration_is_refused_in_the_same_folder(
    tmp_path, monkeypatch, offline
):
    tiny(monkeypatch, paper=TINY)
    paper.main(["--output", str(tmp_path)])
    tiny(monkeypatch, paper=dataclasses.replace(TINY, hidden=5))
    with pytest.raises(run.RunError, match=r"hidden: 4 then, 5 now.*--restart"):
        paper.main(["--output", str(tmp_path)])
    paper.main(["--output", str(tmp_path), "--restart"])


@pytest.mark.parametrize("lenses", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_test_part_with_one_class_or_one_lens_ends_well(
    tmp_path, monkeypatch, offline, objects, lenses
):
    tiny(monkeypatch, paper=TINY)
    bare = objects.copy()
    inside = paper.split(bare, 42)[1]
    bare.loc[inside, "label"] = 0
    bare.loc[inside[:lenses], "label"] = 1
    monkeypatch.setattr(paper, "load_data", lambda *_, **__: (bare, "stand-in", "0"))
    paper.main(["--output", str(tmp_path)])
    table = pd.read_csv(tmp_path / "active_learning-stand-in-seed0/paper/metrics.csv")
    value = table[(table["run"] == 42) & (table["metric"] == "roc_auc")].iloc[0]
    assert np.isnan(value["value"]) == (lenses == 0)
    if lenses == 0:
        assert "0 lenses" in value["note"]


def test_a_loss_that_is_not_finite_stops_the_experiment(objects, two_splits):
    with pytest.raises(run.RunError, match="not finite"):
        paper.run_splits(dataclasses.replace(TINY, learning_rate=float("nan")), objects, 0)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stopped_baseline_is_not_taken_for_a_result(
    tmp_path, monkeypatch, offline, capfd, number
):
    """scikit-learn's fit swallows KeyboardInterrupt and returns a half-trained network."""
    fit, timers = paper.MLPClassifier.fit, []

    def stopped(self, *arguments):
        timers.append(threading.Timer(0.5, os.kill, (os.getpid(), number)))
        timers[-1].start()
        return fit(self.set_params(tol=0.0, n_iter_no_change=10**6, max_iter=10**5), *arguments)

    monkeypatch.setattr(paper.MLPClassifier, "fit", stopped)
    arguments = ["--experiment", "authors_code.baseline", "--output", str(tmp_path)]
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as caught:
            run.command(lambda: paper.main(arguments))
    finally:
        for timer in timers:
            timer.cancel()
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert len(timers) == 1 and caught.value.code == run.EXIT_RUN_AGAIN
    assert "run the same command again" in capfd.readouterr().err
    folder = tmp_path / "active_learning-stand-in-seed0/authors_code.baseline"
    assert not (folder / "done.json").exists()
    assert not (folder / "scores.csv").exists()


def test_scores_are_the_networks_own_logits(objects, two_splits):
    out = paper.run_splits(TINY, objects, 0)["scores"]
    assert list(out.columns) == scores.COLUMNS
    assert out.groupby("run").size().tolist() == [999, 999]
    assert (out["score"] < 0).any()
