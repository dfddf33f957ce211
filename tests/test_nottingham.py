"""Gabe (2022): the straight line on a small survey, with a small trunk for EfficientNet."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from cast_lens import augment, checkpoints, intervals, pack, run, scores
from tests.fits_files import survey_file
from tests.jobs import hold_jobs_against_one
from tests.kills import hold_killed_against_whole

N = 80


@pytest.fixture(scope="module")
def paper():
    """The modules of the paper, by name."""
    names = (
        "settings",
        "data",
        "lastro",
        "network",
        "training",
        "comparison",
        "results",
        "drawing",
    )
    found = {name: importlib.import_module(f"reproductions.nottingham.{name}") for name in names}
    return SimpleNamespace(main=importlib.import_module("reproductions.nottingham"), **found)


def write_pack(folder, n, seed):
    """Pack n objects of noise with a source in the middle of lenses; IDs are not in order."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"object_id": [str(100_000 + k) for k in rng.permutation(n)]})
    table["label"] = rng.permutation(np.arange(n) % 10 < 7).astype(int)
    table["plane"] = rng.integers(0, 3 * n // 4, n) * 1e-11
    paths = []
    for k in range(n):
        image = rng.standard_normal((101, 101)).astype(np.float32) * 1e-12
        image[48:53, 48:53] += 3e-11 * table["label"][k]
        paths.append(str(folder / f"VIS-{k}.fits"))
        (folder / f"VIS-{k}.fits").write_bytes(survey_file(image))
    table["path_VIS"] = pd.Series(paths, dtype=object)
    return pack.build(
        folder / "pack", table, {"vis": ("VIS",)}, mask_value=None, dtype="float32", workers=1,
        about={"survey": "small", "data": "stand-in"}, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("space"), N, 0)


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("challenge"), 30, 1)


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    images = keras.Input(shape)
    features = keras.layers.Conv2D(4, 5, strides=4, activation="relu", name="stem")(images)
    return keras.Model(images, features, name=name)


def small_lastro(images, *, seed, scaled):
    x = keras.layers.AveragePooling2D(20)(images)
    return keras.layers.Dense(1, "sigmoid", name="lens")(keras.layers.Flatten()(x))


@pytest.fixture
def small(paper, survey, challenge, tmp_path, monkeypatch):
    """Make every network small and the surveys the two above; return the scale."""
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setattr(paper.network.backbones, "efficient_net", small_trunk)
    monkeypatch.setattr(paper.network, "lastro", small_lastro)
    monkeypatch.setattr(paper.network, "lastro_keras", lambda x: small_lastro(x, seed=0, scaled=0))
    monkeypatch.setattr(paper.training, "EACH", 8)
    runs = {"efficientnet_b0": 2, "lastro.original": 2, "planes.efficientnet_b0": 1,
            "planes.lastro.original": 1}  # fmt: skip
    changes = {"epochs": 4, "patience": 1, "batch": 16}
    scale = paper.settings.Scale(60, 20, 30, runs, changes, {})
    monkeypatch.setitem(paper.settings.SCALES, "quick", scale)
    monkeypatch.setattr(paper.main.data, "load_data", lambda *_, **__: survey)

    def with_challenge(found, *_):
        labels = challenge.catalog["label"].to_numpy()
        return replace(
            found, challenge=challenge, challenge_rows=paper.data.challenge_rows(labels, 0)
        )

    monkeypatch.setattr(paper.main.data, "with_challenge", with_challenge)
    return scale


def test_official_labels_split_by_id_are_those_the_report_counts(paper, real_data):
    place = real_data / paper.data.REAL
    if not (place / "classifications.csv").is_file():
        pytest.skip("needs CAST_LENS_DATA with sglc1/space_based/classifications.csv")
    found = paper.data.official_counts(place, paper.settings.SCALES["paper"])
    assert found["data.train"] == {"n_objects": 18_000, "n_lenses": 12_574, "n_nonlenses": 5_426}
    assert found["data.validation"] == {"n_objects": 2_000, "n_lenses": 1_394, "n_nonlenses": 606}


def test_first_ids_train_last_ids_test_and_planes_can_be_kept_apart(paper, survey):
    scale = SimpleNamespace(n_train=54, n_test=6)
    found = paper.data.divide(survey, scale, seed=3)
    ids = survey.catalog["object_id"].to_numpy()
    wanted = sorted(ids)
    order = found.parts["order"]
    assert sorted(ids[order["train"]]) == wanted[:54] and sorted(ids[order["test"]]) == wanted[-6:]
    planes = found.parts["planes"]
    both = np.concatenate([planes["train"], planes["test"]])
    assert sorted(both) == sorted([*order["train"], *order["test"]])
    plane = survey.catalog["plane"].to_numpy()
    assert not set(plane[planes["train"]]) & set(plane[planes["test"]])
    shared = np.mean([one in set(plane[order["train"]]) for one in plane[order["test"]]])
    assert shared > 0 and paper.data.shared_planes(found, "order") == pytest.approx(shared)
    assert paper.data.shared_planes(found, "planes") == 0
    with pytest.raises(run.RunError, match="holds 80 objects, expected 18000 and 2000"):
        paper.data.divide(survey, paper.settings.SCALES["paper"], seed=3)


def test_images_are_normalized_by_the_training_pixels_alone_or_by_all(paper, survey, tmp_path):
    found = paper.data.divide(survey, SimpleNamespace(n_train=60, n_test=20), seed=0)
    images = survey.batch("vis", np.arange(N)).astype(np.float64)
    train = images[found.parts["order"]["train"]]
    for name, pixels in (("training", train), ("all", images)):
        for _ in range(2):  # computed, then read back
            mean, std = paper.data.constants(found, "order", name, tmp_path / f"{name}.csv")
            assert mean == pytest.approx(pixels.mean(), rel=1e-10)
            assert std == pytest.approx(pixels.std(), rel=1e-10)


def test_the_stand_in_of_the_challenge_test_has_its_share_of_lenses(paper):
    labels = (np.arange(20_000) % 10 < 7).astype(int)
    rows = paper.data.challenge_rows(labels, seed=2)
    assert len(set(rows)) == len(rows) and set(np.flatnonzero(labels == 0)) <= set(rows)
    assert labels[rows].mean() == pytest.approx(40_221 / 100_003, abs=1e-4)


def lastro(paper, bands, scaled="run_time"):
    keras.utils.set_random_seed(1)
    images = keras.Input((101, 101, bands))
    return keras.Model(images, paper.lastro.lastro(images, seed=0, scaled=scaled))


def test_lastros_network_has_the_authors_parameters_and_sizes(paper):
    model = lastro(paper, 1)
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert count == 5_674_145  # the authors' notebook, which builds it for one band
    kernel = 4 * 4 * 16  # of the first convolution, per band
    model = lastro(paper, 4)
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert count == 5_674_145 + 3 * kernel
    sized = (keras.layers.Conv2D, keras.layers.MaxPooling2D)
    sides = [layer.output.shape[1] for layer in model.layers if isinstance(layer, sized)]
    assert sides == [98, 96, 48, 46, 44, 22, 20, 18, 9, 7, 5, 1]


@pytest.mark.parametrize("scaled, deviation", [("run_time", 1.0), ("initial", 1152**-0.5)])
def test_lastros_initial_weights_keep_unit_variance(paper, scaled, deviation):
    model = lastro(paper, 1, scaled)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    kernels = [layer.kernel for layer in convolutions]
    fan_in = int(np.prod(kernels[7].shape[:-1]))  # the second convolution of 128
    assert fan_in == 1152 and np.std(kernels[7]) == pytest.approx(deviation, rel=0.02)
    images = np.random.default_rng(0).standard_normal((8, 101, 101, 1)).astype(np.float32)
    probe = keras.Model(model.input, convolutions[1].output)
    found = probe.predict(images, verbose=0)
    assert abs(found.mean()) < 0.1 and found.std() == pytest.approx(1.0, abs=0.15)


def test_lastros_rectifier_has_mean_0_and_variance_1_for_normal_input(paper):
    # E relu(x) = 1 / sqrt(2 pi), E relu(x)^2 = 1 / 2
    x, mean = np.array([-1.0, 0.0, 2.0], np.float32), 1 / np.sqrt(2 * np.pi)
    wanted = (np.maximum(x, 0) - mean) / np.sqrt(0.5 - mean**2)
    assert np.allclose(paper.lastro.unit_relu(x), wanted, atol=1e-6)


def test_cumulative_normalization_moves_its_moments_ever_less(paper):
    layer, rng = paper.lastro.CumulativeNormalization(), np.random.default_rng(0)
    mean, variance = np.zeros(3), np.ones(3)
    layer.build((None, 4, 4, 3))
    for step in range(3):
        x = (rng.standard_normal((5, 4, 4, 3)) * [1, 2, 3] + 1).astype(np.float32)
        layer.steps.assign(2000.0 * step)
        share = 0.6 ** (2 * step)
        mean = (1 - share) * mean + share * x.mean((0, 1, 2))
        variance = (1 - share) * variance + share * x.var((0, 1, 2))
        wanted = (x - mean) / np.sqrt(variance + 1e-3)
        assert np.allclose(layer(x, training=True), wanted, atol=1e-5)
        assert layer.steps == 2000.0 * step + 1
        assert np.allclose(layer(x), wanted, atol=1e-5)  # and they are what prediction uses
    assert np.allclose(layer.mean, mean, atol=1e-6)


def test_fading_dropout_keeps_all_at_first_and_half_in_the_end(paper):
    layer, x = paper.lastro.FadingDropout(seed=1), np.ones((100, 400), np.float32)
    layer.build(x.shape)
    assert np.array_equal(layer(x, training=True), x)
    layer.steps.assign(2000.0)
    found = np.asarray(layer(x, training=True))
    assert set(np.unique(found)) == {0, np.float32(1 / 0.75)}
    assert (found > 0).mean() == pytest.approx(0.75, abs=0.01)
    layer.steps.assign(1e6)
    assert (np.asarray(layer(x, training=True)) > 0).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(layer(x), x)


def test_the_network_is_efficientnet_b0_without_its_top(paper):
    model = paper.network.build_model(paper.settings.Config(), seed=0)
    # That of keras.applications has 4,049,571, 7 of them of the layer that standardizes
    assert model.get_layer("trunk").count_params() == 4_049_564
    assert model.get_layer("trunk").output.shape[-1] == 1280
    assert model.get_layer("lens").count_params() == 1281
    assert model.get_layer("three_bands").output.shape[1:] == (101, 101, 3)


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("name, mode", [("val_loss", "min"), ("val_auc", "max")])
def test_the_stopping_epoch_is_that_of_keras(paper, patience, name, mode):
    rng, model = np.random.default_rng(patience), SimpleNamespace(stop_training=False)
    for _ in range(30):
        values = rng.integers(0, 6, 12) / 10
        keras_stops = keras.callbacks.EarlyStopping(name, patience=patience, mode=mode)
        keras_stops.set_model(model)
        keras_stops.on_train_begin()
        wanted = None
        for epoch, value in enumerate(values):
            model.stop_training = False
            keras_stops.on_epoch_end(epoch, {name: value})
            if model.stop_training:
                wanted = epoch + 1
                break
        sign = paper.training.WATCHED[name]
        assert paper.training.stopping_epoch(sign * values, patience) == wanted


def test_the_gains_of_a_training_end_where_it_was_stopped(paper):
    auc = np.r_[0.5, 0.6, 0.7, 0.78, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.88, 0.87, 0.99]
    loss = np.r_[np.arange(12, 0, -1), 2, 0.5]
    history = pd.DataFrame({"run": "0", "val_loss": loss, "val_auc": auc})
    found = paper.training.numbers_of_history(history, 7, patience=1).set_index("metric")["value"]
    assert found["n_epochs"] == 13
    assert found["roc_auc_gain_epochs_1_to_10"] == pytest.approx(0.35)
    assert found["roc_auc_gain_after_epoch_10"] == pytest.approx(0.02)
    assert found["fast_rise_epochs"] == 10  # 0.5 + 0.9 * 0.38 = 0.842
    short = paper.training.numbers_of_history(history[:5], 7, patience=1)
    assert short["value"].isna().all() and (short["note"] == "5 epochs, early stopping never").all()


def noisy_scores(rng, labels, n_runs, skill):
    return [rng.standard_normal(len(labels)) + skill * labels for _ in range(n_runs)]


def as_table(labels, values):
    ids = [f"{k}" for k in range(len(labels))]
    return pd.concat([
        scores.score_table(ids, labels, v, run=k, n_train=9) for k, v in enumerate(values)
    ])  # fmt: skip


@pytest.mark.slow
def test_the_paired_bootstrap_is_that_of_scikit_learns_areas(paper):
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.arange(60) % 3 // 2)
    a, b = (np.round(noisy_scores(rng, labels, 2, skill), 1) for skill in (1.5, 0.5))
    found = paper.comparison.paired_bootstrap(labels, a, b, draws=4000, seed=1)
    values, lenses, others = [], np.flatnonzero(labels), np.flatnonzero(labels == 0)
    for _ in range(200):
        rows = np.r_[rng.choice(lenses, len(lenses)), rng.choice(others, len(others))]
        values.append(np.mean([roc_auc_score(labels[rows], x[rows]) for x in a])
                      - np.mean([roc_auc_score(labels[rows], x[rows]) for x in b]))  # fmt: skip
    wanted = np.quantile(values, [0.025, 0.975])
    assert np.allclose(found, wanted, atol=0.15 * np.ptp(wanted))
    assert paper.comparison.paired_bootstrap(labels, a, a, draws=9, seed=0) == (0, 0)


@pytest.mark.parametrize("skill, reading, said", [
    (3.0, "better", "supported"), (0.0, "worse", "contradicted"),
    (1.0, "cannot be told apart", "undecidable at this n"),
])  # fmt: skip
def test_the_verdict_follows_from_the_numbers(paper, skill, reading, said):
    rng = np.random.default_rng(1)
    labels = np.arange(300) % 2
    tables = {
        "efficientnet_b0": as_table(labels, noisy_scores(rng, labels, 5, skill)),
        "lastro.original": as_table(labels, noisy_scores(rng, labels, 5, 1.0)),
    }
    found = paper.comparison.compare_pairs(tables, seed=0)
    assert found["reading"].tolist() == [reading] and found["runs"].tolist() == [5]
    assert paper.comparison.verdict(found)[0] == said
    a, b = (tables[name] for name in ("efficientnet_b0", "lastro.original"))
    one, other = (x[x["run"] == "2"]["score"].to_numpy() for x in (a, b))
    p = intervals.delong(labels, one, other).p
    assert found["delong_p"][0].split()[2] == f"{p:.2g}"
    assert paper.comparison.verdict(found[:0])[0] == "not run"


def test_one_training_or_one_class_decides_nothing(paper):
    labels = np.arange(40) % 2
    values = noisy_scores(np.random.default_rng(0), labels, 1, 5.0)
    pair = {"efficientnet_b0": as_table(labels, values),
            "lastro.original": as_table(labels, [-values[0]])}  # fmt: skip
    found = paper.comparison.compare_pairs(pair, seed=0)
    assert found["reading"].tolist() == ["undecidable: one training"]
    assert paper.comparison.verdict(found)[0] == "undecidable at this n"
    one = as_table(np.zeros(40), values)
    pair = {"efficientnet_b0": one, "lastro.original": one}
    assert paper.comparison.compare_pairs(pair, seed=0)["reading"][0].startswith("undefined: 0 len")


@pytest.mark.slow
def test_the_table_of_a_run_is_what_its_scores_say(paper, small, tmp_path, survey, challenge):
    paper.main.main(["--output", str(tmp_path), "--stack"])
    folder = tmp_path / "nottingham-stand-in-quick-seed0"
    rows = pd.read_csv(folder / "reproduced.csv").set_index(["experiment", "metric"])["value"]
    catalog = survey.catalog.sort_values("object_id")
    table = scores.read_scores(folder / "efficientnet_b0/scores.csv")
    assert set(table["run"]) == {"0", "1"}
    one = table[table["run"] == "1"].set_index("object_id")["score"]
    last = catalog[-20:].set_index("object_id")["label"]
    assert sorted(one.index) == sorted(last.index)
    aucs, counts = [], []
    for _, part in table.groupby("run"):
        assert part["label"].tolist() == last[part["object_id"]].tolist()
        aucs.append(roc_auc_score(part["label"], part["score"]))
        counts.append(confusion_matrix(part["label"], part["score"] >= 0.5).ravel())
    assert rows["efficientnet_b0", "roc_auc"] == pytest.approx(np.mean(aucs))
    names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
    tn, fp, fn, tp = np.mean(counts, axis=0)
    assert [rows["efficientnet_b0", name] for name in names] == pytest.approx([tn, fp, fn, tp])
    assert rows["efficientnet_b0", "true_negative_rate"] == pytest.approx(tn / (tn + fp))
    high = rows["efficientnet_b0.threshold_high", "false_positives"]
    assert high == pytest.approx(
        np.mean([((p["score"] >= 0.9) & (p["label"] == 0)).sum() for _, p in table.groupby("run")])
    )
    wanted = (
        30
        - len(challenge.catalog)
        + len(paper.data.challenge_rows(challenge.catalog["label"].to_numpy(), 0))
    )
    for name in ("lastro_leaderboard", "efficientnet_b0.challenge_test"):
        assert scores.read_scores(folder / name / "scores.csv")["object_id"].nunique() == wanted
    assert {"efficientnet_b0.eight_views", "lastro.original.one_view", "planes.lastro.original",
            "efficientnet_b0.early_stopping"} <= set(rows.index.get_level_values(0))  # fmt: skip
    text = (folder / "like_for_like.md").read_text()
    compared = pd.read_csv(folder / "like_for_like.csv")
    assert paper.comparison.verdict(compared)[0] in text and "0.9325" in text and "0.975" in text
    for name in ("figure_7", "figure_8", "figure_8_lastro_original", "figure_9", "like_for_like"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert paper.data.stacks.open_stack(folder / "test.fits").catalog["object_id"].tolist() == (
        sorted(last.index)
    )


@pytest.mark.slow
def test_eight_views_are_the_root_of_the_product_and_weights_those_of_the_epoch(
    paper, small, tmp_path, survey
):
    small.changes["epochs"], small.runs["lastro.original"] = 2, 1
    arguments = ["--output", str(tmp_path), "--experiment", "lastro.original"]
    paper.main.main(arguments)
    here = tmp_path / "nottingham-stand-in-quick-seed0/runs/lastro.original/run0"
    config = paper.settings.config_of("lastro.original", small, {})
    assert config.views == 8 and config.balanced and config.batch == 16
    model = paper.network.build_model(config, seed=5)
    checkpoints.read_weights(model, here / paper.training.FINAL)
    table = scores.read_scores(here / "test.csv")
    ids = pd.Index(survey.catalog["object_id"])
    images = survey.batch("vis", ids.get_indexer(table["object_id"]))
    turned = [np.rot90(x, k, (1, 2)) for x in (images, images[:, ::-1]) for k in range(4)]
    each = [model.predict_on_batch({"vis": np.ascontiguousarray(x)})[:, 0] for x in turned]
    product = np.prod(np.array(each, np.float64), axis=0)
    assert np.allclose(table["score"], product ** (1 / 8), rtol=1e-5)
    alone = scores.read_scores(here / "other_views.csv")
    assert np.allclose(alone["score"], each[0], rtol=1e-5)
    assert not np.allclose(alone["score"], table["score"], rtol=1e-3)
    assert isinstance(model.get_layer("dihedral"), augment.RandomDihedral)


@pytest.mark.slow
def test_stopped_weights_are_those_of_a_training_that_ends_there(paper, small, tmp_path):
    run0 = "nottingham-stand-in-quick-seed0/runs/efficientnet_b0/run0"
    small.runs["efficientnet_b0"] = 1
    small.changes.update(epochs=8, learning_rate=0.3)  # so that the loss goes up and down
    arguments = ["--experiment", "efficientnet_b0", "--output"]
    paper.main.main([*arguments, str(tmp_path / "long")])
    loss = pd.read_csv(tmp_path / "long" / run0 / "history.csv")["val_loss"]
    epochs = paper.training.stopping_epoch(loss, 1)
    assert epochs < 8
    small.changes["epochs"] = epochs
    paper.main.main([*arguments, str(tmp_path / "short")])
    found, wanted = (
        scores.read_scores(tmp_path / name / run0 / f"{table}.csv")
        for name, table in (("long", "stopped_val_loss"), ("short", "test"))
    )
    pd.testing.assert_frame_equal(found, wanted)


@pytest.mark.slow
def test_real_cutouts_are_scored_and_printed_with_their_labels(
    paper, real_data, small, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CAST_LENS_DATA", str(real_data))
    small.changes["epochs"], small.runs["lastro.original"] = 2, 1
    if paper.data.real_place() is None:
        pytest.skip("needs CAST_LENS_DATA with sglc1/space_based/classifications.csv")
    paper.main.main(["--output", str(tmp_path), "--experiment", "lastro.original"])
    folder = tmp_path / "nottingham-stand-in-quick-seed0"
    table = scores.read_scores(folder / "lastro.original/real_cutouts.csv")
    table = table[table["run"] == "0"].set_index("object_id")
    assert len(table) == 8 and table["label"].sum() == 4 and table["label"]["100002"] == 1
    printed = capsys.readouterr().out
    assert f"| 100002 | 1 | {table['score']['100002']:.2f}" in printed
    rows = pd.read_csv(folder / "reproduced.csv").set_index(["data", "experiment", "metric"])
    assert rows["value"]["real", "data.train", "n_lenses"] == 12_574
    assert (folder / "real_cutouts.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_files(paper, small, tmp_path, monkeypatch):
    hold_killed_against_whole(paper.main.main, tmp_path, monkeypatch, last=120, kept="run*/*")


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lastro.original", "lastro", "efficientnet_b0"])
def test_the_whole_networks_go_on_exactly_where_they_were_stopped(paper, survey, tmp_path, cell):
    config = paper.settings.config_of(cell, paper.settings.SCALES["quick"], {})
    config = replace(config, epochs=2)
    divided = paper.data.divide(survey, SimpleNamespace(n_train=60, n_test=20), seed=0)
    found = {}
    for name, stops in (("whole", (2,)), ("pieces", (1, 2))):
        for epochs in stops:
            model = paper.network.Networks().get(config, [1, 2])  # as in a new process
            if config.normalization != "code":
                paper.network.set_constants(model, 0.0, 5e-12)
            part = replace(config, epochs=epochs)
            paper.training.fit(model, part, divided, 0, 0, tmp_path / name)
        found[name] = [np.array(variable) for variable in model.weights]
    assert all(np.array_equal(*pair) for pair in zip(*found.values(), strict=True))
    steps = [v for v in model.weights if v.path.endswith("steps")]
    assert len(steps) == (5 + 5) * (cell == "lastro.original")
    assert all(v == 2 * 2 for v in steps)  # two batches of 30 an epoch


def test_an_experiment_that_the_scale_leaves_out_is_refused(paper, small, tmp_path):
    with pytest.raises(run.RunError, match="scale quick does not train efficientnet_b0.dense_head"):
        paper.main.main(["--output", str(tmp_path), "--experiment", "efficientnet_b0.dense_head"])


@pytest.mark.parametrize("scale", ["quick", "hour", "paper"])
def test_every_scale_trains_what_the_verdict_needs(paper, scale):
    chosen = paper.settings.SCALES[scale]
    assert set(chosen.runs) <= set(paper.settings.CELLS)
    assert min(chosen.runs[name] for name in ("efficientnet_b0", "lastro.original")) > 1
    if scale == "paper":
        assert set(chosen.runs) == set(paper.settings.CELLS)
        config = paper.settings.config_of("efficientnet_b0", chosen, {})
        assert (config.epochs, config.rotation, config.zoom) == (100, 90, (0.6, 1.4))
        lastro = paper.settings.config_of("lastro.original", chosen, {})
        assert (lastro.learning_rate, lastro.batch, lastro.scaled) == (1e-4, 30, "run_time")


def begin_small(*arguments):
    """Make every network of another process small, as the fixture `small` does here."""
    names = ("jobs", "network", "training")
    jobs, network, training = (
        importlib.import_module(f"reproductions.nottingham.{name}") for name in names
    )
    network.backbones.efficient_net, network.lastro = small_trunk, small_lastro
    network.lastro_keras = lambda x: small_lastro(x, seed=0, scaled=0)
    training.EACH = 8
    return jobs.begin(*arguments)


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(paper, small, tmp_path, monkeypatch):
    least = sum(small.runs.values())
    hold_jobs_against_one(paper.main, begin_small, tmp_path, monkeypatch, least=least)
