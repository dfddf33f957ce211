"""Numbers that Bom et al. (2022) read off their figures, and their notebook's experiment."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from cast_lens import checkpoints, intervals, scores, table


@pytest.fixture(scope="module")
def paper():
    """The modules of the paper, by name."""
    names = ("adapt", "limits", "network", "overfitting", "results", "settings", "survey")
    return SimpleNamespace(
        **{n: importlib.import_module(f"reproductions.sglc2.{n}") for n in names}
    )


def scored(auc, *, seed, run=0, n=400, first=0):
    """Return a table of scores of objects whose true ROC AUC is given."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    values = rng.standard_normal(n) + labels * np.sqrt(2) * stats.norm.ppf(auc)
    ids = [str(200_000 + first + k) for k in range(n)]
    return scores.score_table(ids, labels, stats.norm.cdf(values), run=run, n_train=900)


def runs(auc, *, n_runs=10, seed=0, n=400, share=True):
    """Return the tables of several runs, on the same objects or not."""
    parts = [
        scored(auc, seed=[seed, k], run=k, n=n, first=0 if share else 10_000 * k)
        for k in range(n_runs)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("holds, wanted", [
    ([], None), ([False], None), ([True], 10), ([True, True, True], 10),
    ([False, True, True], 20), ([True, False, True], 30), ([True, True, False], None),
])  # fmt: skip
def test_an_onset_is_the_least_place_from_which_on_all_hold(paper, holds, wanted):
    places = {10 * (k + 1): value for k, value in enumerate(holds)}
    assert paper.limits.from_on(dict(reversed(places.items()))) == wanted


def test_scores_leave_chance_and_reach_the_full_level_where_their_errors_say_so(paper):
    def one(mean, low, sd=0.03):
        return paper.limits.Level(mean, sd, low)

    full = one(0.83, 0.82, 0.04)
    levels = {
        10: one(0.55, 0.51), 20: one(0.52, 0.49), 30: one(0.6, 0.55), 40: one(0.70, 0.69),
        50: None, 60: one(0.779, 0.7), 70: one(0.781, 0.7), 80: one(0.9, 0.8),
    }  # fmt: skip
    assert paper.limits.onsets(levels, full) == (30, 70)  # 0.83 less hypot(0.03, 0.04)
    assert paper.limits.onsets(levels, None) == (30, None)
    assert paper.limits.onsets(levels, one(0.52, 0.49)) == (30, None)
    assert paper.limits.onsets(levels | {90: one(0.52, 0.49)}, full) == (None, None)
    assert paper.limits.onsets({10: one(0.51, 0.49), 20: one(0.53, 0.505)}, one(0.53, 0.51)) == (
        20, 20,
    )  # fmt: skip
    assert paper.limits.onsets({}, full) == (None, None)


def test_the_error_of_runs_on_the_same_objects_holds_that_of_the_objects(paper):
    for share in (True, False):
        found = runs(0.7, share=share)
        values = [roc_auc_score(p["label"], p["score"]) for _, p in found.groupby("run")]
        half = np.mean(values) - stats.t.interval(0.95, 9, np.mean(values), stats.sem(values))[0]
        error = np.std(values, ddof=1)
        if share:
            objects = [intervals.delong_interval(p["label"], p["score"]).low
                       for _, p in found.groupby("run")]  # fmt: skip
            half = np.hypot(half, np.mean(values) - np.mean(objects))
            error = np.hypot(error, (np.mean(values) - np.mean(objects)) / 1.959964)
        level = paper.limits.level(found)
        assert level.mean == pytest.approx(np.mean(values))
        assert level.sd == pytest.approx(error)
        assert level.low == pytest.approx(np.mean(values) - half)
    wider = paper.limits.level(runs(0.7, share=False), n_train=900, n_test=100)
    assert wider.low < paper.limits.level(runs(0.7, share=False)).low
    alone = scored(0.7, seed=3)
    low, high = intervals.delong_interval(alone["label"], alone["score"])
    level = paper.limits.level(alone)
    assert (level.low, level.sd) == pytest.approx((low, (high - low) / 2 / 1.959964))
    assert paper.limits.level(alone[alone["label"] == 1]) is None
    assert paper.limits.level(alone[:3]) is None  # one lens of three objects has no error


def write(folder, experiment, found):
    (folder / experiment).mkdir()
    scores.write_scores(found, folder / experiment / "scores.csv")


def limit_rows(paper, folder):
    about = {
        "paper": "sglc2", "survey": "sglc2", "data": "stand-in", "scale": "paper", "software": "",
        "n_train": 900, "n_test": 100,
    }  # fmt: skip
    rows = paper.results.limit_rows(folder, about)
    return {(row["experiment"], row["metric"]): row["value"] for row in rows}


@pytest.mark.slow
def test_thresholds_of_a_run_are_those_its_scores_were_made_with(paper, root, tmp_path):
    headline = paper.settings.HEADLINE
    write(tmp_path, f"test80k.{headline}", runs(0.83, n=1_000))
    write(tmp_path, f"table1.{headline}", runs(0.83, n=1_000, seed=1, share=False))
    for low in paper.settings.BINS:
        auc = 0.5 if low < 30 else 0.7 if low < 70 else 0.83
        write(tmp_path, f"npix.bin{low}", runs(auc, seed=low))
    for n in (0, 20, 40, 150, 200, 400):
        auc = 0.5 if n < 40 else 0.7 if n < 200 else 0.83
        write(tmp_path, f"transfer.n{n}", runs(auc, seed=n, share=False))
    write(tmp_path, "transfer.n150.notebook", scored(0.5, seed=0))
    found = limit_rows(paper, tmp_path)
    reported = table.read(root / "reproductions/reported.csv")
    told = reported[reported["metric"].str.contains("_level_|chance_")]
    told = told.set_index(["experiment", "metric"])["value"].astype(float)
    assert found == told.to_dict() == {
        ("npix", "chance_below_n_pix"): 30, ("npix", "full_level_above_n_pix"): 70,
        ("transfer", "above_chance_at_n_images"): 40, ("transfer", "full_level_at_n_images"): 200,
    }  # fmt: skip


@pytest.mark.slow
def test_networks_that_know_nothing_reach_no_threshold(paper, tmp_path):
    write(tmp_path, f"test80k.{paper.settings.HEADLINE}", runs(0.5, n=1_000))
    for low in paper.settings.BINS:
        write(tmp_path, f"npix.bin{low}", runs(0.5, seed=low))
    assert limit_rows(paper, tmp_path) == {}


def history(gaps, *, n_runs=10, noise=0.01, seed=0):
    """Return losses whose difference has a given mean at each epoch."""
    rng = np.random.default_rng(seed)
    rows = [
        (run, epoch + 1, 0.6, 0.6 + gap + noise * rng.standard_normal())
        for run in range(n_runs)
        for epoch, gap in enumerate(gaps)
    ]
    return pd.DataFrame(rows, columns=["run", "epoch", "loss", "val_loss"])


def test_overfitting_begins_where_the_losses_part_for_good(paper):
    onset = paper.overfitting.onset_epoch
    assert onset(history([-0.05, -0.02, 0.1, -0.02, -0.01, 0.05, 0.1, 0.2])) == 6
    assert onset(history([-0.05, 0.1, 0.2])) == 2
    assert onset(history([-0.05, 0.1, 0.2, -0.1])) is None
    assert onset(history([0.0] * 9, noise=0.1)) is None  # no pre-processing: nothing is learned
    assert onset(history([0.1, 0.2], n_runs=1)) is None and onset(history([0.1])) is None


def test_onsets_of_the_branches_are_the_extremes_of_their_cells(paper, root, tmp_path):
    def gaps(onset):
        return np.where(np.arange(1, 31) < onset, -0.1, 0.1)

    for name, onset in {
        "table1.hjy.sglc2": 3, "table1.vis_zeros.alternative": 4, "table1.hjy.none": 1,
        "table1.hjy_vis_zeros.sglc2": 20, "table1.y_vis_zeros.alternative": 15,
        "table1.hjy_vis_repeated.alternative": 99, "implementation.tf_native": 2,
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        history(gaps(onset)).to_csv(tmp_path / name / "history.csv", index=False)
    rows = paper.overfitting.onsets_of_run(tmp_path)
    found = {(experiment, metric): epoch for experiment, metric, epoch, _ in rows}
    reported = table.read(root / "reproductions/reported.csv")
    told = reported[reported["metric"].str.startswith("overfit_onset_epoch")]
    told = told.set_index(["experiment", "metric"])["value"].astype(float).to_dict()
    assert len(told) == 5 and told.items() <= found.items()
    assert ("table1.hjy_vis_repeated.alternative", "overfit_onset_epoch") not in found
    assert {r[0]: r[3] for r in rows}["table1.two_branch"] == 2


def test_one_network_has_the_interval_of_its_objects_and_groups_that_of_their_scatter(
    paper, tmp_path
):
    about = {"paper": "sglc2", "data": "stand-in", "scale": "paper", "software": "", "split": ""}
    ground = about | {"survey": "sglc1_ground", "n_train": 0, "n_test": 0}
    wanted = paper.settings.METRICS | paper.results.NOTEBOOK_METRICS

    def rows(name, found):
        write(tmp_path, name, found)
        path = tmp_path / name / "scores.csv"
        frame = table.evaluate(path.parent, wanted)
        made = paper.results.rows_of(path, frame, wanted, experiment=name, **ground)
        return {row["metric"]: row for row in made}

    alone = scored(0.7, seed=1)
    one = rows("transfer.n150.notebook", alone)
    assert "roc_auc_sd" not in one
    error = np.sqrt(0.7 * 0.3 / 200)  # of the AUC, about
    assert one["roc_auc"]["high"] - one["roc_auc"]["low"] == pytest.approx(3.92 * error, rel=0.35)
    wanted_precision = average_precision_score(alone["label"], alone["score"])
    precision = one["average_precision"]
    assert precision["value"] == pytest.approx(wanted_precision)
    assert precision["low"] < wanted_precision < precision["high"]
    twice = rows("test80k.hjy.none", pd.concat([alone, alone.assign(run="1")]))
    for metric in ("roc_auc", "pr_auc"):  # that two runs are equal says nothing of the objects
        assert twice[metric]["low"] == pytest.approx(one[metric]["low"])
        assert twice[metric]["high"] == pytest.approx(one[metric]["high"])
    assert twice["roc_auc"]["sd"] == pytest.approx(error, rel=0.35)
    few = pd.concat([alone[alone["label"] == 1].head(9), alone[alone["label"] == 0]])
    assert np.isnan(rows("npix.bin10", few)["roc_auc"]["low"])
    many = rows("transfer.n40", runs(0.7, share=False))
    values = [roc_auc_score(p["label"], p["score"])
              for _, p in runs(0.7, share=False).groupby("run")]  # fmt: skip
    spread, sd = many["roc_auc_sd"], np.std(values, ddof=1)
    # Tables of chi squared with 9 degrees of freedom: 2.700 and 19.023
    assert spread["value"] == pytest.approx(sd)
    assert spread["low"] == pytest.approx(sd * np.sqrt(9 / 19.023), rel=1e-4)
    assert spread["high"] == pytest.approx(sd * np.sqrt(9 / 2.700), rel=1e-3)
    assert many["roc_auc"]["low"] == pytest.approx(stats.t.interval(
        0.95, 9, np.mean(values), stats.sem(values))[0])  # fmt: skip


def test_the_range_of_pixels_is_that_above_the_smallest_and_hangs_on_no_offset(paper, monkeypatch):
    def described(offset):
        values = np.array([-4.0, -3, 0.1, 8, 10, 1e5 - 4])[:, None] + offset
        percents = pd.Index(paper.settings.PERCENTS, name="percent")
        found = {name: pd.DataFrame(np.tile(values, len(bands)), percents, bands)
                 for name, bands in paper.settings.BANDS.items()}  # fmt: skip
        monkeypatch.setattr(paper.survey, "constants", lambda *_: found)
        catalog = pd.DataFrame({
            "label": [1, 0], "z_source": [2.0, 3.0], "n_pix_source": [50, 7], "mag_eff": [2.0, 2.0],
            "n_source_im": [1, 0],
        })  # fmt: skip
        arrays = {"vis": {"shape": (200, 200, 1)}, "nir": {"shape": (66, 66, 3)}}
        pack = SimpleNamespace(catalog=catalog, manifest={"arrays": arrays})
        survey = SimpleNamespace(pack=pack, sample=np.arange(5), test=np.arange(7))
        return paper.survey.describe(survey, Path("nowhere"))

    found = described(0.0)
    for end in ("low", "high"):
        assert found["data", f"log10_max_over_median_{end}"] == pytest.approx(np.log10(1e5 / 4.1))
        assert found["data", f"log10_max_over_p99_{end}"] == pytest.approx(np.log10((1e5 - 4) / 10))
        name = "data", f"log10_max_over_median_{end}"
        assert described(3.7)[name] == pytest.approx(found[name])
    for name, value in (("n_objects", 2), ("n_bands", 4), ("n_images", 8), ("n_lenses", 1),
                        ("n_pix_source_median", 50)):  # fmt: skip
        assert found["data", name] == value
    assert found["data.reduced", "n_objects"] == 5 and found["data.test80k", "n_objects"] == 7


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    images = keras.Input(shape)
    features = keras.layers.Conv2D(4, 5, strides=4, activation="relu", name="stem")(images)
    return keras.Model(images, features, name=name)


class Ground:
    """Ground-based images in memory: noise, and a source in the middle of a lens."""

    def __init__(self, n):
        rng = np.random.default_rng(2)
        labels = np.arange(n) % 2
        self.catalog = pd.DataFrame({"object_id": [str(100_000 + k) for k in range(n)],
                                     "label": labels})  # fmt: skip
        self.images = rng.standard_normal((n, 101, 101, 4)).astype(np.float32) * 1e-12
        self.images[labels == 1, 50, 50] += 3e-11

    def batch(self, name, positions):
        """Return images in u, g, r, i."""
        assert name == "ugri"
        return self.images[positions]


def test_the_notebook_s_experiment_is_as_the_notebook_has_it(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(paper.network.backbones, "efficient_net", small_trunk)
    monkeypatch.setattr(paper.adapt, "NOTEBOOK_N", 8)
    headline = paper.settings.config_of(paper.settings.HEADLINE, {"initial": "random"})
    trained = paper.network.build_model(headline, seed=5)
    paper.network.set_bounds(trained, {"vis": [[0], [1]], "nir": [[0] * 3, [1] * 3]})
    fold = tmp_path / "folds" / paper.settings.HEADLINE / "fold0"
    fold.mkdir(parents=True)
    history([0.1]).to_csv(fold / "history.csv", index=False)
    checkpoints.write_weights(trained, fold / checkpoints.BEST, {})
    ground, seen = Ground(40), {}

    def fit(model, config, source, part, **about):
        seen.update(part=part, source=source, config=config)
        weights = zip(model.get_weights()[4:], trained.get_weights()[4:], strict=True)
        seen["same weights"] = [np.array_equal(*pair) for pair in weights]
        images = {name: source.batch(name, [3, 4]) for name in ("vis", "nir")}
        training, inference = (model(images, training=flag) for flag in (True, False))
        seen["augmented"] = not np.allclose(training, inference, atol=1e-6)
        seen["bounds"] = [model.get_layer(f"clip_{name}").upper.numpy() for name in images]

    monkeypatch.setattr(paper.adapt, "fit", fit)
    found = paper.adapt.run_notebook(ground, headline, 0, tmp_path)
    # 8 objects to train on, 8 to choose the epoch by, all others tested, none twice.
    train, chosen = seen["part"]["train"], seen["part"]["test"]
    assert len(train) == len(chosen) == 8 and len(found) == 24
    ids = ground.catalog["object_id"]
    assert sorted([*ids[train], *ids[chosen], *found["object_id"]]) == sorted(ids)
    assert seen["config"].inputs == "hjy_vis_zeros" and seen["config"].epochs == headline.epochs
    # The trunks and the head are those that were trained with VIS repeated.
    assert len(seen["same weights"]) >= 6 and all(seen["same weights"])
    assert not seen["augmented"] and seen["source"].interpolation == cv2.INTER_NEAREST
    # Every band is scaled by the extremes of all images, as they are after resizing.
    everything = np.arange(40)
    for name, bounds in zip(("vis", "nir"), seen["bounds"]):
        assert np.array_equal(bounds, seen["source"].batch(name, everything).max(axis=(0, 1, 2)))
    again = paper.adapt.run_notebook(ground, headline, 0, tmp_path)  # nothing is computed twice
    assert again.equals(found)


def test_the_notebook_s_experiment_is_run_beside_its_number_of_images(paper, tmp_path, monkeypatch):
    asked = []

    def run_trial(trial, source, key, networks, folder):
        asked.append((trial.experiment, trial.group, trial.augmented, source.interpolation))
        return scored(0.5, seed=0, run=trial.group, n=4)

    assert paper.adapt.NOTEBOOK_N == 150
    monkeypatch.setattr(paper.adapt, "NOTEBOOK_N", 15)
    monkeypatch.setattr(paper.adapt, "run_trial", run_trial)
    monkeypatch.setattr(paper.adapt, "best_fold", lambda folder: folder / "best")
    headline = paper.settings.config_of(paper.settings.HEADLINE, {})
    for sizes, wanted in (((0, 8), set()), ((0, 15), {"transfer.n15.notebook"})):
        found = paper.adapt.run_adapt(Ground(40), sizes, 2, headline, 0, None, tmp_path)
        words = {f"transfer.n{n}" for n in sizes} | {f"scratch.n{sizes[1]}"}
        assert set(found) == words | wanted
        assert all(found[name]["run"].nunique() == 2 for name in words)
    assert asked[-1] == ("transfer.n15.notebook", 10, False, cv2.INTER_NEAREST)
    assert all(each[2:] == (True, cv2.INTER_LINEAR) for each in asked[:-1])
