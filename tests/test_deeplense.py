"""Aryal (2025): the straight line on small class folders, and every number by another way."""

import importlib
import json
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support, roc_auc_score

from cast_lens import checkpoints, metrics, run, scores, survey_folder, survey_pack
from tests.folders import results
from tests.jobs import hold_jobs_against_one

SIDE = 64
COUNTS = {
    1: {f"{split}/{name}": n for split, n in (("train", 14), ("val", 8))
        for name in ("no", "sphere", "vort")},
    2: {"train_lenses": 12, "train_nonlenses": 48, "test_lenses": 6, "test_nonlenses": 30},
}  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    """The modules of the paper, by name."""
    names = ("settings", "data", "network", "training", "measures", "diagnosis", "jobs", "results",
             "learning")  # fmt: skip
    found = {name: importlib.import_module(f"reproductions.deeplense.{name}") for name in names}
    return SimpleNamespace(main=importlib.import_module("reproductions.deeplense"), **found)


def write_folders(folder, task, *, last=False, dtype="float64"):
    """Write class folders of noise with a brighter middle in every class but the first."""
    bands, rng = (1, 3)[task - 1], np.random.default_rng(task)
    for place, n in COUNTS[task].items():
        (folder / place).mkdir(parents=True)
        gain = {"sphere": 1, "vort": 2, "test_lenses": 2, "train_lenses": 2}.get(place[6:], 0)
        gain = max(gain, {"val/sphere": 1, "val/vort": 2}.get(place, 0))
        gain = max(gain, 2 * place.endswith("_lenses"))
        for k in range(1, n + 1):
            image = rng.random((bands, SIDE, SIDE))
            image[:, 24:40, 24:40] += gain
            image = np.moveaxis(image, 0, -1) if last else image
            np.save(folder / place / f"{k}.npy", (image / 3).astype(dtype))


@pytest.fixture(scope="module")
def surveys_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surveys")
    for task in (1, 2):
        write_folders(folder / f"deeplense{task}", task)
    return folder


@pytest.fixture(scope="module")
def surveys(paper, surveys_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    return {
        task: paper.data.load_data(
            task, surveys_folder, real=False, n_objects=1000, seed=0, output=output
        )
        for task in (1, 2)
    }


SMALL = {"side": 16, "filters": (4, 5), "hidden": 6, "batch": 16}


@pytest.fixture
def small(paper, monkeypatch):
    """Make every network small and the quick scale short."""
    small = {name: replace(config, **SMALL) for name, config in paper.settings.EXPERIMENTS.items()}
    for name in ("task1.deeper", "beyond.residual_task2", "task2.no_scheduler"):
        del small[name]
    monkeypatch.setattr(paper.settings, "EXPERIMENTS", small)
    monkeypatch.setattr(paper.main, "EXPERIMENTS", small)
    monkeypatch.setattr(paper.results, "EXPERIMENTS", small)
    drawing = importlib.import_module("reproductions.deeplense.drawing")
    monkeypatch.setattr(drawing, "EXPERIMENTS", small)
    monkeypatch.setattr(paper.settings, "SWITCHES", {
        name: paper.settings.SWITCHES[name] for name in ("no_feature_dropout", "he_initial")
    })  # fmt: skip
    monkeypatch.setattr(paper.diagnosis, "SWITCHES", paper.settings.SWITCHES)
    scale = paper.settings.Scale(
        {1: 1000, 2: 1000}, {1: 2, 2: 2}, tuple(small), {}, 2, (),
    )  # fmt: skip
    monkeypatch.setitem(paper.settings.SCALES, "quick", scale)
    return small


def test_the_networks_are_those_of_report_and_code(paper):
    plans = {
        "task1.report": (1, (64, 64), 4096), "task1.authors_code": (1, (150, 150), 20_736),
        "task2.report": (3, (64, 64), 8192),
    }  # fmt: skip
    for name, (n_bands, size, flat) in plans.items():
        config = paper.settings.EXPERIMENTS[name]
        model = paper.network.build_model(config, n_bands, seed=0)
        assert model.input["image"].shape == (None, *size, n_bands)
        assert model.get_layer("hidden").kernel.shape == (flat, 512)
        kinds = [layer.__class__.__name__ for layer in model.layers]
        assert kinds.count("SpatialDropout2D") == (4 if "code" in name else 0)
        # By hand: 3x3 kernels and biases, two of each normalized map, two dense layers.
        maps = (3, *config.filters)
        wanted = sum(9 * a * b + b + 2 * b for a, b in zip(maps, maps[1:]))
        n = len(paper.settings.CLASSES[config.task])
        wanted += (flat + 1) * 512 + 513 * n
        assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == wanted


def test_initial_weights_are_uniform_as_pytorch_draws_them(paper):
    keras.utils.set_random_seed(0)
    model = paper.network.build_model(paper.settings.Config(), 1, seed=0)
    for name, fan_in in (("conv1", 27), ("conv3", 9 * 64), ("hidden", 4096), ("logits", 512)):
        layer, bound = model.get_layer(name), fan_in**-0.5
        for values in map(np.asarray, (layer.kernel, layer.bias)):
            assert np.abs(values).max() <= bound
            assert values.size < 500 or np.abs(values).max() > 0.99 * bound
            if values.size > 500:
                assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


def test_pooling_before_rectifying_gives_the_numbers_of_the_report(paper):
    config = replace(paper.settings.Config(), filters=(4,), side=10, feature_dropout=0.0)
    model = paper.network.build_model(config, 3, seed=0)
    images = np.random.default_rng(0).normal(size=(5, 10, 10, 3)).astype(np.float32)
    paper.network.set_constants(model, pd.DataFrame({"mean": [0.0] * 3, "std": [1.0] * 3}))
    inner = keras.Model(model.input, model.get_layer("flat").output)
    x = model.get_layer("norm1")(model.get_layer("conv1")(images))
    wanted = np.maximum(np.asarray(x), 0).reshape(5, 5, 2, 5, 2, 4).max((2, 4))
    assert np.array_equal(np.asarray(inner({"image": images})), wanted.reshape(5, -1))


@pytest.mark.parametrize("normalization", ["image", "survey"])
def test_normalization_is_that_of_report_or_code(paper, surveys, tmp_path, normalization):
    config = replace(paper.settings.Config(), normalization=normalization, **SMALL)
    parts, survey = paper.data.divide(surveys[2], "report", 0), surveys[2]
    model = paper.network.build_model(replace(config, task=2, side=SIDE), 3, seed=0)
    found = paper.data.constants(survey, SIDE, parts["train"], tmp_path)
    paper.network.set_constants(model, found)
    images = survey.pack.batch("image", parts["test"]).astype(np.float64)
    if normalization == "image":
        mean, std = (f(images, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
        wanted = (images - mean) / (std + 1e-8)
    else:
        seen = survey.pack.batch("image", parts["train"]).astype(np.float64)
        wanted = (images - seen.mean((0, 1, 2))) / seen.std((0, 1, 2))
    got = np.asarray(model.get_layer("standardize")(images.astype(np.float32)))
    assert np.allclose(got, wanted, atol=2e-5)


def test_weighted_loss_divides_by_the_weights_of_its_objects(paper):
    rng = np.random.default_rng(0)
    labels, logits, weights = rng.integers(0, 2, 9), rng.normal(size=(9, 2)), (0.5, 8.0)
    loss = paper.network.cross_entropy(weights)
    found = float(loss(labels[:, None].astype(np.float32), logits.astype(np.float32)))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = log_loss(labels, probabilities, sample_weight=np.take(weights, labels))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("losses, wanted", [
    ([1.0] * 4, 1e-3), ([1.0] * 5, 5e-4), ([1.0] * 9, 2.5e-4),  # the first is better than none
    ([5, 4, 3, 2, 1, 1, 1, 1], 1e-3), ([1, 2, 2, 2, 0.9, 2, 2, 2], 1e-3),
    ([1, 1 - 5e-5, 1, 1, 1], 5e-4), ([1, 1 - 2e-4, 1, 1, 1], 1e-3), ([], 1e-3),
])  # fmt: skip
def test_the_rate_halves_after_more_than_three_bad_epochs(paper, losses, wanted):
    assert paper.training.rate_after(losses, paper.settings.Config()) == wanted
    constant = replace(paper.settings.Config(), patience=None)
    assert paper.training.rate_after(losses, constant) == 1e-3


@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize("rules", ["report", "authors_code"])
def test_parts_share_nothing_and_leave_nothing_out(paper, surveys, task, rules):
    survey = surveys[task]
    parts = paper.data.divide(survey, rules, 0)
    split = survey.pack.catalog["split"].to_numpy()
    last = np.flatnonzero(split != "train")
    if task == 1 and rules == "authors_code":
        assert np.array_equal(parts["validation"], parts["test"])
        assert np.array_equal(parts["test"], last)
        parts = {name: parts[name] for name in ("train", "test")}
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(len(split)))
    assert (split[parts["train"]] == "train").all()
    if task == 2:
        assert np.array_equal(parts["test"], last) and len(parts["validation"]) == 6
    if rules == "report":
        counts = np.bincount(survey.labels[parts["validation"]])
        assert counts.tolist() == ([4, 4, 4] if task == 1 else [5, 1])


def test_split_of_task_2_has_the_sizes_of_the_report(paper):
    n = 1730 + 28_675
    assert n - int((1 - paper.data.VALIDATED) * n) == 3041


def test_the_same_pixels_are_in_one_part_alone(paper, tmp_path):
    write_folders(tmp_path / "a", 2)
    image = np.load(tmp_path / "a/test_lenses/1.npy")
    np.save(tmp_path / "a/train_nonlenses/1.npy", image)
    survey = paper.data.load_data(
        2, tmp_path / "a", real=False, n_objects=1000, seed=0, output=tmp_path
    )
    parts = paper.data.divide(survey, "report", 0)
    ids = survey.pack.catalog["object_id"]
    assert "train_nonlenses/1" not in set(ids[np.concatenate(list(parts.values()))])
    assert "test_lenses/1" in set(ids[parts["test"]])


def test_class_weights_are_equation_1(paper, surveys):
    survey = surveys[2]
    for rules, wanted in (("report", (54 / 86, 54 / 22)), ("authors_code", (60 / 96, 60 / 24))):
        config = replace(paper.settings.TASK2, rules=rules)
        found = paper.data.class_weights(survey, paper.data.divide(survey, rules, 0), config)
        assert found == pytest.approx(wanted)
    assert paper.data.class_weights(survey, {}, replace(config, class_weights=False)) is None


@pytest.mark.parametrize("dtype", ["float16", "uint8", ">f4"])
def test_either_order_of_channels_and_any_type_gives_the_same_images(paper, tmp_path, dtype):
    found = []
    for last in (False, True):
        folder = tmp_path / f"last-{last}"
        write_folders(folder, 2, last=last, dtype=dtype)
        packed = survey_pack.pack_survey(
            folder, tmp_path / f"pack-{last}", dtype="float32", progress=False
        )
        found.append(packed.batch("image", np.arange(len(packed.catalog))))
    assert found[0].shape == (96, SIDE, SIDE, 3) and np.array_equal(*found)
    one = np.load(tmp_path / "last-False/test_lenses/1.npy").astype(np.float32)
    assert np.array_equal(found[0][0], np.moveaxis(one, 0, -1))


def test_what_cannot_be_used_is_told_and_the_rest_is(paper, tmp_path, capsys):
    write_folders(tmp_path / "deeplense1", 1)
    first, second = sorted((tmp_path / "deeplense1/train/no").glob("*.npy"))[:2]
    first.write_bytes(first.read_bytes()[:-8])
    np.save(second, np.array([{"not": "pixels"}], dtype=object), allow_pickle=True)
    survey = paper.data.load_data(
        1, tmp_path, real=True, n_objects=1000, seed=0, output=tmp_path / "out"
    )
    assert len(survey.rows) == sum(COUNTS[1].values()) - 2
    told = "n_catalog 66 = n_ok 64 + n_quarantined 2 (dtype 1, truncated 1) + n_missing 0"
    said = capsys.readouterr().err
    assert told in said and "quarantine.csv" in said
    survey_folder.note(survey.pack, tmp_path)
    assert told in (tmp_path / "audit-deeplense1.txt").read_text()


def test_a_folder_without_the_task_is_refused_with_the_address(paper, surveys_folder, tmp_path):
    where = {"real": False, "n_objects": 9, "seed": 0, "output": tmp_path}
    with pytest.raises(run.RunError, match="no class folders of DeepLense Task 2.*train_lenses"):
        paper.data.load_data(2, surveys_folder / "deeplense1", **where)


def test_a_larger_survey_gives_of_each_class_the_same_share(paper, surveys):
    catalog = surveys[2].pack.catalog
    rows = paper.data.limit(catalog, 48, seed=0)
    of = catalog.iloc[rows].groupby(["split", "label"]).size()
    assert of.to_dict() == {
        ("test", 0): 15, ("test", 1): 3, ("train", 0): 24, ("train", 1): 6,
    }  # fmt: skip
    assert np.array_equal(rows, np.unique(rows))
    assert np.array_equal(paper.data.limit(catalog, 96, seed=0), np.arange(96))


def test_resized_images_are_means_over_area_and_turn_as_resampling_does(paper, surveys):
    survey = surveys[1]
    images = survey.pack.batch("image", [5, 2])
    found = paper.data.Resized(survey.pack, 16).batch("image", [5, 2])
    assert np.allclose(found, images.reshape(2, 16, 4, 16, 4, 1).mean((2, 4)), atol=1e-6)
    from cast_lens import resampling

    for element in range(8):
        wanted = resampling.dihedral(images, np.full(2, element))
        got = paper.data.Resized(survey.pack, SIDE, element).batch("image", [5, 2])
        assert np.array_equal(got, np.asarray(wanted))


def random_scores(rng, n=300, classes=3):
    truth = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 0.7 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return truth, probabilities


@pytest.fixture
def three(paper):
    truth, p = random_scores(np.random.default_rng(3))
    names = paper.settings.CLASSES[1]
    return paper.measures.Scored(np.arange(len(truth)).astype(str), truth, p, names)


def test_areas_of_three_classes_are_those_of_scikit_learn(paper, three):
    shares = np.bincount(three.truth) / len(three.truth)
    for average, weights in (("macro", np.full(3, 1 / 3)), ("weighted", shares)):
        area, _ = paper.measures.macro_auc(three, weights)
        wanted = roc_auc_score(three.truth, three.probabilities, multi_class="ovr", average=average)
        assert area == pytest.approx(wanted, rel=1e-12)


def test_error_of_the_mean_area_is_that_of_the_bootstrap(paper, three):
    _, error = paper.measures.macro_auc(three, np.full(3, 1 / 3))
    rng, draws = np.random.default_rng(0), []
    for _ in range(200):
        rows = np.concatenate([
            rng.choice(np.flatnonzero(three.truth == k), (three.truth == k).sum())
            for k in range(3)
        ])  # fmt: skip
        draws.append(roc_auc_score(three.truth[rows], three.probabilities[rows],
                                   multi_class="ovr"))  # fmt: skip
    assert error == pytest.approx(np.std(draws), rel=0.2)  # 200 draws: 5 %


def test_cells_of_the_classification_report_are_those_of_scikit_learn(paper, three):
    history = pd.DataFrame({
        "epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "accuracy": [0.1, 0.2, 0.3],
        "val_loss": [1.1, 0.9, 1.0], "val_accuracy": [0.3, 0.5, 0.4],
    })  # fmt: skip
    frame = paper.measures.numbers({"test": three}, history, None, 0).set_index("metric")
    found = frame["value"]
    each = precision_recall_fscore_support(three.truth, three.called)
    for k, name in enumerate(three.names):
        for n, word in enumerate(("precision", "recall", "f1")):
            assert found[f"{word}.{name}"] == pytest.approx(each[n][k])
    assert found["accuracy"] == pytest.approx((three.truth == three.called).mean())
    assert found["val_loss"] == 0.9 and found["best_epoch"] == 2 and found["train_loss"] == 2.0
    assert found["val_loss_last_minus_first"] == pytest.approx(-0.1)
    assert found["brier"] == pytest.approx(
        np.mean([((p - np.eye(3)[t]) ** 2).sum() for p, t in zip(three.probabilities, three.truth)])
    )
    bins = [[] for _ in range(15)]  # a loop over objects, as Guo et al. define it
    for p, t in zip(three.probabilities, three.truth):
        bins[min(int(p.max() * 15), 14)].append((p.max(), p.argmax() == t))
    wanted = sum(abs(sum(a for a, _ in b) - sum(c for _, c in b)) for b in bins) / len(three.truth)
    assert found["ece"] == pytest.approx(wanted)


def test_a_class_never_called_has_an_undefined_precision(paper):
    p = np.tile([0.5, 0.3, 0.2], (6, 1))
    one = paper.measures.Scored(np.arange(6), np.arange(6) % 3, p, paper.settings.CLASSES[1])
    history = pd.DataFrame({"epoch": [1], "loss": [1.0], "accuracy": [0.0], "val_loss": [1.0],
                            "val_accuracy": [0.0]})  # fmt: skip
    frame = paper.measures.numbers({"test": one}, history, None, 0).set_index("metric")
    assert np.isnan(frame.loc["precision.vortex", "value"])
    assert "no object was called" in frame.loc["precision.vortex", "note"]
    assert frame.loc["roc_auc", "value"] == 0.5  # all ties: one half


def test_one_class_alone_leaves_its_metrics_undefined_and_ends_well(paper):
    p = np.random.default_rng(0).random((5, 1))
    one = paper.measures.Scored(
        np.arange(5), np.zeros(5, int), np.hstack([1 - p, p]), paper.settings.CLASSES[2]
    )
    history = pd.DataFrame({"epoch": [1], "loss": [1.0], "accuracy": [0.0], "val_loss": [1.0],
                            "val_accuracy": [0.0]})  # fmt: skip
    frame = paper.measures.numbers({"test": one}, history, None, 0).set_index("metric")
    for metric in ("roc_auc", "average_precision", "tpr_at_fpr_0.01"):
        assert np.isnan(frame.loc[metric, "value"]) and frame.loc[metric, "note"]


def made_up(name, areas):
    return [{"name": name, "seed": k, "roc_auc": a, "val_loss": 1.0} for k, a in enumerate(areas)]


def test_the_cause_is_named_by_the_rule_and_told_by_its_numbers(paper):
    rows = made_up("base", [0.50, 0.51, 0.49]) + made_up("one.a", [0.80, 0.82, 0.81])
    rows += made_up("one.b", [0.70, 0.69, 0.71]) + made_up("one.c", [0.55, 0.54, 0.56])
    rows += made_up("mended", [0.85, 0.86, 0.87]) + made_up("back.a", [0.52, 0.51, 0.50])
    table = paper.diagnosis.tabulate(pd.DataFrame(rows))
    assert paper.diagnosis.cause(table)[:2] == ("a", True)
    text = paper.diagnosis.paragraph(table, "made-up data")
    assert "`a`" in text and "0.810" in text and "confirms it" in text
    kept = table[table["name"] != "back.a"]
    assert paper.diagnosis.cause(kept)[:2] == ("a", False)
    assert paper.diagnosis.cause(table[~table["name"].isin(["one.a", "one.b"])])[0] == ""
    learns = pd.DataFrame(made_up("base", [0.8, 0.81]) + made_up("one.a", [0.9, 0.91]))
    assert paper.diagnosis.cause(paper.diagnosis.tabulate(learns))[0] == ""
    gain = table.set_index("name").loc["one.a", "gain"]
    assert gain == pytest.approx(np.mean([0.30, 0.31, 0.32]))


def test_a_pair_is_named_where_no_single_change_does(paper):
    rows = made_up("base", [0.50, 0.51, 0.49]) + made_up("one.a", [0.52, 0.51, 0.53])
    rows += made_up("two.a+b", [0.80, 0.82, 0.81])
    table = paper.diagnosis.tabulate(pd.DataFrame(rows))
    assert paper.diagnosis.cause(table)[0] == "a+b"
    text = paper.diagnosis.paragraph(table, "made-up data")
    assert "No single change is enough" in text and "not switched on again" in text
    table = table[table["name"] != "one.a"]
    assert "single" not in paper.diagnosis.paragraph(table, "made-up data")


def test_a_change_that_seeds_are_too_few_to_tell_is_named_as_such(paper):
    rows = made_up("base", [0.52, 0.50]) + made_up("two.a+b", [0.71, 0.76])
    table = paper.diagnosis.tabulate(pd.DataFrame(rows))
    assert paper.diagnosis.cause(table)[:2] == ("", False)
    text = paper.diagnosis.paragraph(table, "made-up data")
    assert "With `a+b` it is 0.735 [" in text and "2 seeds cannot surely tell" in text


def test_the_quick_scale_has_the_network_that_failed_and_the_change_that_mends_it(paper):
    plan = paper.diagnosis.plan(paper.settings.SCALES["quick"])
    base, mended = plan.pop("base"), plan.pop("two.no_feature_dropout+no_head_dropout")
    assert not plan and (base.feature_dropout, base.head_dropout) == (0.5, 0.5)
    assert replace(base, feature_dropout=0.0, head_dropout=0.0) == mended


def trained(losses, rates, area=0.5):
    history = pd.DataFrame({"val_loss": losses, "learning_rate": rates})
    numbers = pd.DataFrame({"metric": ["accuracy", "roc_auc"], "value": [0.3, area],
                                  "low": [0.2, area - 0.1], "high": [0.4, area + 0.1]})  # fmt: skip
    return {"history": history, "numbers": numbers}


def test_a_network_begins_to_learn_once_its_loss_is_surely_below_ln_3(paper, tmp_path):
    late = trained([1.0986, 1.0985, 1.0877, 1.0875, 0.9], [1e-3] * 3 + [5e-4, 5e-4], 0.8)
    found = {"task1.report": late, "beyond.smallest": trained([0.7], [1e-3], 0.9)}
    table = paper.learning.tabulate(found).set_index("experiment")
    assert table["first_epoch"].tolist() == [4, 1]  # 0.99 ln 3 = 1.08763
    assert table["learning_rate"].tolist() == [5e-4, 1e-3]
    assert table.loc["task1.report", ["epochs", "val_loss", "roc_auc"]].tolist() == [5, 0.9, 0.8]
    paper.learning.write(tmp_path, found, "12 objects of made-up data")
    text = (tmp_path / "learning.md").read_text()
    assert text.startswith("On 12 objects of made-up data, the validation loss of Task 1 is held "
                           "against 1.0986")  # fmt: skip
    assert "`task1.report` does from epoch 4 of 5 on, at a learning rate of 0.0005" in text
    assert "learns after all" in text


def test_a_network_that_never_learns_is_said_to_fail_as_there(paper):
    table = paper.learning.tabulate({"task1.report": trained([1.0986, 1.0984], [1e-3] * 2)})
    assert table["first_epoch"].isna().all()
    text = paper.learning.paragraph(table, "made-up data")
    assert "`task1.report` never does in its 2 epochs" in text and "fails here" in text
    table = paper.learning.tabulate({"task1.report": trained([1.0, 0.9], [1e-3] * 2)})
    assert "does not fail here" in paper.learning.paragraph(table, "made-up data")


def test_the_plan_changes_one_thing_pairs_and_puts_back(paper):
    plan = paper.diagnosis.plan(paper.settings.SCALES["diagnosis"])
    base = plan["base"]

    def differing(one, other):
        fields = vars(one)
        return {name for name in fields if fields[name] != getattr(other, name)}

    assert base.dropped == "maps" and base.side == 64
    singles = {name for name in plan if name.startswith("one.")}
    assert len(singles) == len(paper.settings.SWITCHES) == 11
    assert all(len(differing(plan[name], base)) == 1 for name in singles)
    assert len({name for name in plan if name.startswith("two.")}) == 6
    assert all(len(differing(plan[n], base)) == 2 for n in plan if n.startswith("two."))
    for name in (n for n in plan if n.startswith("back.")):
        assert len(differing(plan[name], plan["mended"])) == 1
        assert len(differing(plan[name], base)) == 3


def test_every_claim_of_the_paper_has_its_experiment(paper, root):
    claims = pd.read_csv(root / "reproductions/claims.csv", dtype=str, keep_default_na=False)
    claims = claims[claims["paper"] == "deeplense"]
    cells = [c for side in ("left", "right", "control") for c in claims[side] if "/" in c]
    diagnosed = paper.diagnosis.plan(paper.settings.SCALES["diagnosis"])
    known = set(paper.settings.EXPERIMENTS) | {f"diagnosis.{name}" for name in diagnosed}
    assert {cell.split("/")[0] for cell in cells} <= known


def kill_writes(monkeypatch, every, until):
    """Let every so manieth write of a file end the process, as far as it can tell."""
    write, calls = run.write_whole, []

    class Killed(BaseException):
        pass

    def write_or_die(path, *given, **options):
        calls.append(path)
        if len(calls) % every == 0 and len(calls) < until:
            raise Killed
        write(path, *given, **options)

    for module in ("cast_lens.checkpoints", "cast_lens.run", "cast_lens.scores"):
        monkeypatch.setattr(importlib.import_module(module), "write_whole", write_or_die)
    return Killed


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_with_the_same_rate_and_ends_alike(
    paper, surveys, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)  # every epoch is written
    # No patience, so that the rate falls; a rate so high that losses rise.
    config = replace(paper.settings.Config(), **SMALL, epochs=6, patience=0, learning_rate=0.5)
    arguments = ("x", config, surveys[1], 0)
    paper.training.train(*arguments, tmp_path / "whole", keep=True)
    history = pd.read_csv(tmp_path / "whole/history.csv")
    assert history["learning_rate"].nunique() > 1
    for n in range(6):
        wanted = paper.training.rate_after(history["val_loss"][:n], config)
        assert history["learning_rate"][n] == pytest.approx(wanted)
    killed, n_kills = kill_writes(monkeypatch, 9, 10), 0
    while True:
        try:
            paper.training.train(*arguments, tmp_path / "pieces", keep=True)
            break
        except killed:
            n_kills += 1
    assert n_kills == 1 and results(tmp_path / "pieces") == results(tmp_path / "whole")


@pytest.mark.slow
def test_quick_run_can_be_killed_at_any_write_and_ends_with_the_same_files(
    paper, small, surveys_folder, tmp_path, monkeypatch
):
    experiments = ("task1.report", "task2.authors_code", "diagnosis")
    kept = {name: small[name] for name in experiments}
    monkeypatch.setattr(paper.main, "EXPERIMENTS", kept)
    arguments = ["--data", str(surveys_folder), "--output"]
    paper.main.main([*arguments, str(tmp_path / "whole")])
    whole = results(tmp_path / "whole")
    killed, n_kills = kill_writes(monkeypatch, 9, 80), 0
    while True:
        try:
            paper.main.main([*arguments, str(tmp_path / "pieces")])
            break
        except killed:
            n_kills += 1
    assert n_kills > 5 and results(tmp_path / "pieces") == whole
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "whole").rglob("scores.csv")}
    paper.main.main([*arguments, str(tmp_path / "whole")])
    for path, stamp in stamps.items():  # nothing is computed twice
        assert path.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(paper, small, surveys_folder, tmp_path, monkeypatch):
    main = paper.main.main
    monkeypatch.setattr(paper.main, "main", lambda a: main([*a, "--data", str(surveys_folder)]))
    hold_jobs_against_one(paper.main, paper.jobs.begin, tmp_path, monkeypatch, least=13)


def test_every_experiment_is_trained_once_and_the_diagnosis_with_every_seed(paper, tmp_path):
    scale = paper.settings.SCALES["diagnosis"]
    todo = paper.jobs.plan(["task1.report", "diagnosis"], scale, 7, tmp_path)
    assert len({one.folder for one in todo}) == len(todo)
    assert len(todo) == 1 + scale.n_seeds * len(paper.diagnosis.plan(scale))
    assert {one.seed for one in todo if one.name == "diagnosis"} == {7, 8, 9}
    assert [one.keep for one in todo] == [True] + [False] * (len(todo) - 1)


@pytest.mark.slow
def test_the_table_of_a_run_is_what_its_scores_say(paper, small, surveys_folder, tmp_path, root):
    paper.main.main(["--data", str(surveys_folder), "--output", str(tmp_path)])
    folder = tmp_path / "deeplense-real-quick-seed0"
    rows = pd.read_csv(folder / "reproduced.csv")
    assert set(rows["data"]) == {"real"}
    value = rows.set_index(["experiment", "metric"])["value"]
    for name in ("task2.report", "task1.authors_code"):
        table = scores.read_scores(folder / name / "scores.csv")
        for key, part in table.groupby("run"):
            split, _, of_class = key.partition(".")
            if split == "test":
                wanted = metrics.roc_auc(part["label"], part["score"])
                assert value[name, f"roc_auc.{of_class}"] == pytest.approx(wanted, rel=1e-9)
    history = pd.read_csv(folder / "task1.report/history.csv")
    losses = rows[(rows["experiment"] == "task1.report") & (rows["metric"] == "val_loss")].iloc[0]
    epochs = dict(item.split("=") for item in losses["runs"].split())
    assert float(epochs["epoch2"]) == pytest.approx(history["val_loss"][1])
    assert losses["value"] == pytest.approx(history["val_loss"].min())
    reported = pd.read_csv(root / "reproductions/reported.csv", dtype=str, keep_default_na=False)
    reported = reported[(reported["paper"] == "deeplense") & (reported["kind"] == "result")]
    for experiment, metric in set(zip(reported["experiment"], reported["metric"])):
        assert (experiment, metric) in value.index
    assert value["task2.data", "n_lenses.test"] == 6
    for n in range(1, 11):
        assert (folder / f"figure_{n}.png").stat().st_size > 5000
    for name in ("calibration_task1", "calibration_task2", "purity_task2", "diagnosis"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert (folder / "diagnosis.md").read_text().startswith("On 1000 objects of real data")


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_objects(
    paper, surveys, tmp_path, monkeypatch
):
    config = replace(paper.settings.Config(), **SMALL, epochs=2)
    monkeypatch.setattr(paper.network, "cross_entropy", lambda weights: (
        lambda labels, logits: keras.ops.sum(logits) * np.float32("nan")))  # fmt: skip
    with pytest.raises(run.RunError, match="loss is nan in epoch 1.*train/"):
        paper.training.train("x", config, surveys[1], 0, tmp_path / "here", keep=True)
    assert not (tmp_path / "here/history.csv").exists()


def test_a_training_of_another_config_is_not_gone_on_with(paper, surveys, tmp_path):
    config = replace(paper.settings.Config(), **SMALL, epochs=1)
    paper.training.train("x", config, surveys[1], 0, tmp_path, keep=True)
    assert (tmp_path / checkpoints.BEST).exists()
    assert not (tmp_path / checkpoints.STATE).exists()
    assert json.loads((tmp_path / "config.json").read_text())["batch"] == 16
    with pytest.raises(run.RunError, match="batch: 16 then, 8 now"):
        changed = replace(config, batch=8)
        paper.training.train("x", changed, surveys[1], 0, tmp_path, keep=True)
