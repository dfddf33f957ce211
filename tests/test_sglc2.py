"""Bom et al. (2022): the straight line on a small survey, with a small trunk for EfficientNet."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import checkpoints, metrics, pack, precision, run, scores
from tests.fits_files import survey_file
from tests.kills import hold_killed_against_whole

N = 80


@pytest.fixture(scope="module")
def paper():
    """The modules of the paper, by name."""
    names = ("settings", "survey", "network", "training", "limits", "adapt", "look", "results")
    found = {name: importlib.import_module(f"reproductions.sglc2.{name}") for name in names}
    return SimpleNamespace(main=importlib.import_module("reproductions.sglc2"), **found)


def write_pack(folder, n, bands, inputs, **columns):
    """Pack n objects of noise with a source in the middle of those that are lenses."""
    rng = np.random.default_rng(n)
    table = pd.DataFrame({"object_id": [str(200_000 + k) for k in range(n)]} | columns)
    for band, size in bands.items():
        paths = []
        for k in range(n):
            image = rng.standard_normal((size, size)).astype(np.float32) * 1e-12
            image[size // 2, size // 2] += 3e-11 * table["label"][k]
            paths.append(str(folder / f"{band}-{k}.fits"))
            (folder / f"{band}-{k}.fits").write_bytes(survey_file(image))
        table[f"path_{band}"] = pd.Series(paths, dtype=object)
    return pack.build(
        folder / "pack", table, inputs, mask_value=None, dtype="float32", workers=1,
        about={"survey": "small", "data": "stand-in"}, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    rng = np.random.default_rng(0)
    truth = {
        "n_source_im": rng.integers(0, 3, N), "mag_eff": rng.uniform(1, 3, N),
        "n_pix_source": rng.integers(0, 160, N), "z_source": rng.uniform(1, 5, N),
    }  # fmt: skip
    label = (truth["n_source_im"] > 0) & (truth["mag_eff"] > 1.6) & (truth["n_pix_source"] > 20)
    sizes = {"VIS": 200, "H": 66, "J": 66, "Y": 66}
    inputs = {"vis": ("VIS",), "nir": ("H", "J", "Y")}
    folder = tmp_path_factory.mktemp("sglc2")
    return write_pack(folder, N, sizes, inputs, label=label.astype(int), **truth)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    label = np.arange(40) % 2
    bands = dict.fromkeys("UGRI", 101)
    folder = tmp_path_factory.mktemp("ground")
    return write_pack(folder, 40, bands, {"ugri": tuple("UGRI")}, label=label)


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    images = keras.Input(shape)
    features = keras.layers.Conv2D(4, 5, strides=4, activation="relu", name="stem")(images)
    return keras.Model(images, features, name=name)


@pytest.fixture
def small(paper, survey, ground, tmp_path, monkeypatch):
    """Make every network small and every survey one of the two above; return the scale."""
    monkeypatch.setattr(paper.network.backbones, "efficient_net", small_trunk)
    monkeypatch.setattr(paper.adapt, "EPOCHS", 2)
    monkeypatch.setattr(paper.results, "DRAWS", 50)
    scale = paper.settings.Scale(
        50, 30, 5, 2, (paper.settings.HEADLINE, "hjy.none"),
        {"epochs": 3, "batch": 16, "initial": "random"}, adapt=(0, 8), n_ground=40, n_groups=2,
        n_explained=3, n_samples=120,
    )  # fmt: skip
    monkeypatch.setitem(paper.settings.SCALES, "quick", scale)
    packs = {"sglc2": survey, "sglc1-ground": ground}
    monkeypatch.setattr(
        paper.main, "load_data", lambda *_, name="sglc2", **__: (packs[name], tmp_path)
    )
    return scale


def test_sample_folds_and_test_share_nothing_and_leave_nothing_out(paper, survey):
    scale = replace(paper.settings.SCALES["paper"], n_sample=50)
    found = paper.survey.divide(survey, scale, seed=3)
    assert sorted([*found.sample, *found.test]) == list(range(N)) and len(found.sample) == 50
    held_out = np.concatenate([part["test"] for part in found.parts])
    assert sorted(held_out) == found.sample.tolist() and len(found.parts) == 10
    for part in found.parts:
        assert sorted([*part["train"], *part["test"]]) == found.sample.tolist()
    assert found.kind == "stand-in"
    with pytest.raises(run.RunError, match="holds 80 objects, expected 20000"):
        paper.survey.divide(survey, paper.settings.SCALES["paper"], seed=3)


def test_a_gpu_gets_the_images_of_sample_and_test_that_the_cells_use(paper, survey, monkeypatch):
    scale = replace(paper.settings.SCALES["paper"], n_sample=30, n_test=20)
    found = paper.survey.divide(survey, scale, seed=0)
    configs = [paper.settings.config_of("hjy.none", {})]
    assert paper.survey.on_device(found, configs).images is survey  # there is none here
    monkeypatch.setattr(paper.survey.device_arrays, "has_accelerator", lambda: True)
    images = paper.survey.on_device(found, configs).images
    assert set(images.images) == {"nir"} and images.images["nir"].shape[0] == 50
    rows = np.array([found.test[3], found.sample[7]])
    assert np.array_equal(np.asarray(images.batch("nir", rows)), survey.batch("nir", rows))


def test_bfloat16_is_of_the_trunks_and_only_if_asked_for(paper, small):
    for name in ("float32", "bfloat16"):
        config = paper.settings.config_of("hjy.none", {"initial": "random", "precision": name})
        model = paper.network.build_model(config, seed=0)
        paper.network.compile_model(model, config)
        assert precision.is_bfloat16(model) == (name == "bfloat16")
        assert model.output.dtype == "float32"


def test_bounds_are_the_percentiles_of_the_training_objects_alone(paper, survey, tmp_path):
    scale = replace(paper.settings.SCALES["paper"], n_sample=50)
    found = paper.survey.divide(survey, scale, seed=0)
    bounds = paper.survey.constants(found, 1, ["nir"], tmp_path)
    images = survey.batch("nir", found.parts[1]["train"]).astype(np.float64)
    for percent in (0.1, 98.0, 99.0):
        wanted = np.percentile(images, percent, axis=(0, 1, 2))
        assert np.allclose(bounds["nir"].loc[percent], wanted, rtol=1e-12)
        inverted = -np.percentile(-images, 100 - percent, axis=(0, 1, 2))  # as the paper words it
        assert np.allclose(bounds["nir"].loc[percent], inverted, rtol=1e-12)


@pytest.mark.parametrize("filling, wanted", [
    ("all", lambda x: x), ("repeated", lambda x: np.repeat(x[..., :1], 3, -1)),
    ("zeros", lambda x: x[..., :1] * [1, 0, 0]), ("Y, zeros", lambda x: x[..., 2:] * [1, 0, 0]),
])  # fmt: skip
def test_a_branch_gets_three_bands(paper, filling, wanted):
    images = np.random.default_rng(0).random((2, 4, 4, 3)).astype(np.float32)
    given = images[..., :1] if filling in ("repeated", "zeros") else images
    assert np.array_equal(paper.network.three_bands(given, filling), wanted(images))


@pytest.mark.slow
def test_the_network_has_the_papers_two_trunks(paper, monkeypatch):
    model = paper.network.build_model(
        paper.settings.Config("hjy_vis_repeated", "alternative", initial="random"), seed=0
    )
    assert {name: x.shape[1:] for name, x in model.input.items()} == {
        "vis": (200, 200, 1), "nir": (66, 66, 3),
    }  # fmt: skip
    # EfficientNet-B2 without its top: keras.applications has 7,768,569 parameters, 7 of them of the
    # layer that standardizes; 2 x 1,408 features joined to two classes.
    for name in ("trunk_vis", "trunk_nir"):
        assert model.get_layer(name).count_params() == 7_768_569 - 7
    assert model.get_layer("lens").count_params() == (2 * 1408 + 1) * 2
    monkeypatch.setattr(paper.network.backbones, "efficient_net", small_trunk)
    y = paper.settings.Config("y_vis_zeros", "none", initial="random")
    assert set(paper.network.build_model(y, seed=0).input) == {"vis", "nir"}


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_files(paper, small, tmp_path, monkeypatch):
    hold_killed_against_whole(paper.main.main, tmp_path, monkeypatch, last=120, kept="fold*/*")


@pytest.mark.slow
def test_the_table_of_a_run_is_what_its_scores_say(paper, small, tmp_path, survey, monkeypatch):
    second = "hjy_vis_repeated.none"  # of one network with the headline: one compilation
    small = replace(
        small, cells=(paper.settings.HEADLINE, second), changes=small.changes | {"epochs": 2},
        n_groups=1, n_explained=1,
    )  # fmt: skip
    monkeypatch.setitem(paper.settings.SCALES, "quick", small)
    paper.main.main(["--output", str(tmp_path)])
    folder = tmp_path / "sglc2-stand-in-quick-seed0"
    rows = pd.read_csv(folder / "reproduced.csv").set_index(["experiment", "metric"])["value"]
    divided = paper.survey.divide(survey, small, 0)
    labels = dict(zip(survey.catalog["object_id"], survey.catalog["label"]))
    for experiment, parts in {
        f"table1.{second}": [part["test"] for part in divided.parts],
        f"test80k.{paper.settings.HEADLINE}": [divided.test] * 2,
    }.items():
        table = scores.read_scores(folder / experiment / "scores.csv")
        values = []
        for (_, part), expected in zip(table.groupby("run"), parts, strict=True):
            ids = survey.catalog["object_id"].to_numpy()[expected]
            assert part["object_id"].tolist() == ids.tolist()
            assert part["label"].tolist() == [labels[name] for name in ids]
            values.append(metrics.roc_auc(part["label"], part["score"]))
        assert rows[experiment, "roc_auc"] == pytest.approx(np.mean(values), rel=1e-9)
    history = pd.read_csv(folder / f"table1.{second}/history.csv")
    drops = history.groupby("run")["val_loss"].agg(lambda x: x.iloc[0] - x.min())
    found = rows[f"table1.{second}", "val_loss_drop"]
    assert found == pytest.approx(drops.mean(), abs=1e-9)
    assert rows["data", "n_lenses"] == survey.catalog["label"].sum()
    held_out = scores.read_scores(folder / f"table1.{paper.settings.HEADLINE}/scores.csv")
    f_beta = {
        key: metrics.max_f_beta(part["label"], part["score"], beta_squared=0.001)[0]
        for key, part in held_out.groupby("run")
    }
    chosen = scores.read_scores(folder / "selection.best_test_f_beta/scores.csv")
    assert f_beta[chosen["run"].unique().item()] == max(f_beta.values())
    assert {"transfer.n0", "transfer.n8", "scratch.n8"} <= set(rows.index.get_level_values(0))
    assert -1 <= rows["look", "spearman"] <= 1
    for name in (*(f"figure_{n}" for n in range(1, 13) if n != 5), "table_1"):
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_the_curriculum_takes_bright_arcs_and_as_many_objects_without(paper, survey):
    divided = SimpleNamespace(pack=survey)
    rows = np.arange(5, N)
    chosen = paper.training.easier(divided, rows, 60)
    truth = survey.catalog.iloc[chosen]
    lenses = truth[truth["label"] == 1]
    bright = survey.catalog.iloc[rows].query("label == 1 and n_pix_source >= 60")
    assert len(set(chosen)) == len(chosen) == 2 * len(bright) > 10
    assert set(lenses["object_id"]) == set(bright["object_id"])


@pytest.mark.parametrize("inputs", ["vis_repeated", "hjy"])
def test_a_second_trunk_counts_for_nothing_until_it_is_trained(paper, small, survey, inputs):
    config = paper.settings.config_of(f"{inputs}.alternative", {"initial": "random"})
    whole = replace(config, inputs="hjy_vis_repeated")
    keras.utils.set_random_seed(3)
    one, two = paper.network.build_model(config, 0), paper.network.build_model(whole, 0)
    images = {name: survey.batch(name, range(9)) for name in ("vis", "nir")}
    for model in (one, two):
        bounds = {"vis": ([-2e-12], [2e-11]), "nir": ([-2e-12] * 3, [2e-11] * 3)}
        paper.network.set_bounds(model, {name: bounds[name] for name in model.input})
    paper.network.give_common(two, one)
    wanted = one.predict({name: images[name] for name in one.input}, verbose=0)
    assert np.allclose(two.predict(images, verbose=0), wanted, rtol=1e-6, atol=0)
    assert np.ptp(wanted) > 1e-3


@pytest.mark.slow
def test_every_stage_begins_with_the_trunk_of_the_one_before(paper, small, tmp_path, monkeypatch):
    begun, fit = {}, paper.training.fit
    for name in paper.settings.STAGES:
        scale = paper.settings.SCALES[name]
        changes = scale.changes | {"epochs": 1, "batch": 8, "decay_steps": 9}
        small_one = replace(scale, n_sample=50, n_folds=5, changes=changes)
        monkeypatch.setitem(paper.settings.SCALES, name, small_one)

        def watch(model, *arguments, stage=name, **options):
            begun[stage] = model.get_layer("trunk_vis").get_weights()
            return fit(model, *arguments, **options)

        monkeypatch.setattr(paper.training, "fit", watch)
        paper.main.main(["--scale", name, "--output", str(tmp_path)])
    stages = paper.settings.STAGES
    assert stages[-1] == "release" and list(begun) == list(stages)
    for name, before in zip(stages[1:], stages):
        (cell,) = paper.settings.SCALES[before].cells
        fold = tmp_path / f"sglc2-stand-in-{before}-seed0/folds/{cell}/fold0"
        kept, _ = checkpoints.read_arrays(fold / checkpoints.BEST)
        for ours in begun[name]:
            assert any(np.array_equal(ours, theirs) for theirs in kept.values())


def test_detection_limits_pair_each_bin_with_as_many_fainter_objects(paper, survey):
    rng, catalog = np.random.default_rng(1), survey.catalog
    table = pd.concat([
        scores.score_table(catalog["object_id"], catalog["label"], rng.random(N), run=run_,
                           n_train=9)
        for run_ in range(2)
    ], ignore_index=True)  # fmt: skip
    found = paper.limits.detection_limits(table, catalog, seed=0)
    truth = catalog.set_index("object_id")
    assert set(found) <= {f"npix.bin{low}" for low in range(10, 151, 10)} and len(found) > 8
    for name, part in found.items():
        low = int(name.removeprefix("npix.bin"))
        for _, one in part.groupby("run"):
            rows = truth.loc[one["object_id"]]
            lenses, others = rows[one["label"].to_numpy() == 1], rows[one["label"].to_numpy() == 0]
            assert len(lenses) == len(others)
            assert lenses["n_pix_source"].between(low, low + 9).all()
            assert (lenses["n_source_im"] > 0).all() and (lenses["mag_eff"] > 1.6).all()
            assert (others["n_pix_source"] < low).all()


def test_ground_based_images_take_the_places_of_the_branches(paper, ground):
    source = paper.adapt.Resized(ground, cv2.INTER_NEAREST)
    images = ground.batch("ugri", [3, 1])
    vis, nir = source.batch("vis", [3, 1]), source.batch("nir", [3, 1])
    assert vis.shape == (2, 200, 200, 1) and nir.shape == (2, 66, 66, 3)
    for size, found, bands in ((200, vis, "R"), (66, nir, "UGI")):
        nearest = (np.arange(size) * (101 / size)).astype(int)  # OpenCV's rule
        for n, band in enumerate(bands):
            wanted = images[..., "UGRI".index(band)][:, nearest][:, :, nearest]
            assert np.array_equal(found[..., n], wanted)
