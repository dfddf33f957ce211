"""Adapted networks: what is written is what was trained, and nobody is tested on what they saw."""

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from sklearn.metrics import roc_auc_score

from cast_lens import (
    adapting,
    adapting_curve,
    adapting_objects,
    adapting_training,
    backbones,
    checkpoints,
    features,
    images,
    intervals,
    networks,
    ranking,
    run,
    scoring,
)
from cast_lens.score_shards import ScoringError
from tests.fits_files import survey_file
from tests.folders import hashes, stamps

SIDE, STRIDE, WINDOW = 32, 4, 5
BRANCHES = (networks.Branch("all", ("VIS", "H"), SIDE, 0.1, "all"),)
N = 40
QUICK = {"sizes": (8,), "folds": 2, "epochs": 2}


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    pixels = keras.Input(shape)
    x = keras.layers.Conv2D(4, WINDOW, strides=STRIDE, name="stem_conv")(pixels)
    x = batch_normalization(axis=3, name="stem_bn")(x)
    return keras.Model(pixels, keras.layers.Dropout(0.1, name="stem_drop")(x), name=name)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "efficient_net", small_trunk)
        yield


def label_of(k):
    return k % 2


def pixels(k, band):
    """Noise of 12x12 pixels, and a source in the middle of every second object."""
    image = np.random.default_rng([k, ord(band)]).normal(0, 1, (12, 12)).astype(np.float32)
    image[4:8, 4:8] += 3 * label_of(k)
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A survey of N labelled objects and two without a label, a network, and its file."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "survey").mkdir()
    for k in range(N + 2):
        for band in "gr":
            card = f"PIXSCALE= {0.1:20}"
            data = survey_file(pixels(k, band), card)
            (folder / f"survey/n{k:02}_{band}.fits").write_bytes(data)
    keras.utils.set_random_seed(2)
    model = networks.build_model("b0", BRANCHES)
    features.set_bounds(model, {"all": ([-50.0, -50.0], [50.0, 50.0])})
    path = folder / "net/small-v0.safetensors"
    checkpoints.write_weights(model, path, {})
    fields = {"name": "small-v0", "backbone": "b0", "branches": BRANCHES, "flux_unit": "maggies",
              "survey": "old", "calibration": None}  # fmt: skip
    networks.write_description(path.with_suffix(".json"), fields)
    return SimpleNamespace(survey=folder / "survey", network=path, folder=folder)


def labels(n=N):
    return pd.DataFrame({"object_id": [f"n{k:02}" for k in range(n)],
                         "label": pd.array([label_of(k) for k in range(n)], "Int64")})  # fmt: skip


def adapt(made, output, *, table=None, settings=None, **options):
    rules = {"survey": "new", "take": ["g", "r"], "progress": False} | options
    found = images.find(made.survey, bands=("g", "r"))
    table = labels() if table is None else table
    settings = adapting.Settings(**(QUICK | (settings or {})))
    return adapting.adapt(found, table, str(made.network), output, settings=settings, **rules)


@pytest.fixture(scope="module")
def done(made):
    """A finished run, all that was trained in it, and what the last network says in memory."""
    seen = SimpleNamespace(folder=made.folder / "out", trials=[], last=None)
    train = adapting.train

    def watch(bench, trial, here, bar):
        model, losses = train(bench, trial, here, bar)
        seen.trials.append(trial)
        catalog = bench.source.catalog
        score = model.predict_on_batch({"all": bench.source.batch("all", np.arange(len(catalog)))})
        seen.last = dict(zip(catalog["object_id"], np.log(score[:, 1]) - np.log(score[:, 0])))
        return model, losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "train", watch)
        patch.setattr(adapting_training, "RATE", 2e-2)
        patch.setattr(adapting_training, "SCRATCH_RATE", 2e-2)
        seen.about = adapt(made, seen.folder, settings={"epochs": 3})
    seen.logits = pd.read_csv(seen.folder / "logits.csv", dtype={"object_id": str})
    seen.curve = pd.read_csv(seen.folder / "curve.csv")
    return seen


def by_hand(made, name, tensors):
    """Return the logit of an object by NumPy, from the files and the tensors alone."""
    end = {"/".join(key.split(" ", 1)[-1].split("/")[-2:]): x.astype(np.float64)
           for key, x in tensors.items()}  # fmt: skip
    x = np.zeros((SIDE, SIDE, 2))
    for n, band in enumerate("gr"):
        x[10:22, 10:22, n] = fits.getdata(made.survey / f"{name}_{band}.fits")
    lower, upper = end["clip_all/lower"], end["clip_all/upper"]
    x = (np.clip(x, lower, upper) - lower) / (upper - lower)
    at = range(0, SIDE - WINDOW + 1, STRIDE)
    kernel, total = end["stem_conv/kernel"], 0.0
    for i in at:
        for j in at:
            total = total + np.einsum("ijb,ijbf->f", x[i : i + WINDOW, j : j + WINDOW], kernel)
    mean = total / len(at) ** 2 + end["stem_conv/bias"]
    scale = end["stem_bn/gamma"] / np.sqrt(end["stem_bn/moving_variance"] + 1e-3)
    both = ((mean - end["stem_bn/moving_mean"]) * scale + end["stem_bn/beta"]) @ end["lens/kernel"]
    both = both + end["lens/bias"]
    return both[1] - both[0]


@pytest.mark.slow
def test_adapted_network_scores_at_once_as_it_did_in_memory(made, done, tmp_path):
    path = done.folder / "adapted.safetensors"
    about = scoring.score(lambda bands: images.find(made.survey, bands=bands), str(path),
                          tmp_path / "out", engine="keras", progress=False)  # fmt: skip
    assert about["audit"]["n_scored"] == N + 2
    table = pd.read_csv(tmp_path / "out/candidates.csv").set_index("object_id")
    tensors, _ = checkpoints.read_arrays(path)
    for name in table.index:
        assert table["logit"][name] == pytest.approx(by_hand(made, name, tensors), abs=2e-4)
    for name, logit in done.last.items():
        assert table["logit"][name] == pytest.approx(logit, abs=2e-3)  # from a float32 softmax
    assert np.ptp(table["logit"]) > 0.1
    fields = networks.read_description(done.folder / "adapted.json")
    assert (fields["name"], fields["survey"]) == ("small-v0-new", "old; new")
    assert fields["branches"] == (networks.Branch("all", ("g", "r"), SIDE, 0.1, "all"),)
    constants = fields["calibration"]
    wanted = 1 / (1 + np.exp(-(constants.slope * table["logit"] + constants.intercept)))
    np.testing.assert_allclose(table["probability"], wanted, rtol=1e-6)
    assert (constants.n, constants.n_lens) == (N, N // 2)


def test_the_last_training_sees_all_labels_and_changes_the_weights(made, done):
    last = done.trials[-1]
    assert (last.start, last.rows.tolist()) == ("transfer", list(range(N)))
    before, _ = checkpoints.read_arrays(made.network)
    after, _ = checkpoints.read_arrays(done.folder / "adapted.safetensors")
    assert before.keys() == after.keys()
    for key in before:
        assert not np.array_equal(before[key], after[key]), key


def test_fluxes_of_the_stretch_are_percentiles_of_all_images(made, done):
    tensors, _ = checkpoints.read_arrays(done.folder / "adapted.safetensors")
    for n, band in enumerate("gr"):
        every = np.stack([pixels(k, band) for k in range(N + 2)]).astype(np.float64)
        for end, percent in (("lower", 0.1), ("upper", 99.0)):
            found = next(x for key, x in tensors.items() if key.endswith(end))
            assert found[n] == pytest.approx(np.percentile(every, percent), rel=1e-6)


def test_aucs_of_the_curve_are_those_of_scikit_learn_on_the_stored_logits(done):
    assert done.logits["object_id"].tolist() == [f"n{k:02}" for k in range(N)]
    assert done.logits["label"].tolist() == [label_of(k) for k in range(N)]
    assert len(done.curve) == 5 and set(done.curve["n_train"]) == {0, 8, 20}
    auc = {}
    for row in done.curve.itertuples():
        name = row.start if row.start == "direct" else f"{row.start}.n{row.n_train}"
        own = [roc_auc_score(p["label"], p[name]) for _, p in done.logits.groupby("fold")]
        pairs = [p["label"].sum() * (1 - p["label"]).sum() for _, p in done.logits.groupby("fold")]
        auc[name] = np.average(own, weights=pairs)
        assert row.auc == pytest.approx(auc[name], abs=1e-12)
        assert row.low <= row.auc <= row.high
        assert row.fold_mean == pytest.approx(np.mean(own), abs=1e-12) and len(own) == 2
        if row.start != "direct":
            assert row.over_direct == pytest.approx(auc[name] - auc["direct"], abs=1e-12)
    best = done.curve[done.curve["start"] == "transfer"].iloc[-1]
    gain = auc["transfer.n20"] - auc["scratch.n20"]
    assert best["over_scratch"] == pytest.approx(gain, abs=1e-12)
    assert auc["transfer.n20"] > 0.8  # a source of 3 sd in 16 pixels is easy to see
    assert (done.folder / "curve.png").stat().st_size > 5000


def test_no_object_is_scored_by_a_network_that_saw_it(done):
    tested, rows = {}, {}
    for trial in done.trials[:-1]:
        assert not set(trial.rows) & set(trial.tested) and len(trial.rows) == trial.n
        tested.setdefault((trial.start, trial.n), []).extend(trial.tested)
        rows[trial.start, trial.n, trial.fold] = set(trial.rows)
    assert len(tested) == 5
    for found in tested.values():
        assert sorted(found) == list(range(N))
    for (start, n, fold), found in rows.items():
        if start == "direct":
            continue
        assert found == rows["transfer", n, fold] and found <= rows["transfer", 20, fold]
        assert Counter(label_of(k) for k in found) == {0: n // 2, 1: n // 2}


def test_direct_is_what_cast_lens_score_says_of_the_released_network(made, done, tmp_path):
    scoring.score(images.find(made.survey, bands=("g", "r")), str(made.network), tmp_path / "out",
                  clip="own", engine="keras", take=["g", "r"], progress=False)  # fmt: skip
    table = pd.read_csv(tmp_path / "out/candidates.csv").set_index("object_id")["logit"]
    found = done.logits.set_index("object_id")["direct"]
    np.testing.assert_allclose(found, table[found.index], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_training_that_changes_nothing_leaves_the_released_network(made, tmp_path, monkeypatch):
    monkeypatch.setattr(adapting_training, "RATE", 0.0)
    monkeypatch.setattr(adapting_training, "MOMENTUM", 1.0)
    adapt(made, tmp_path / "out", settings={"scratch": False, "epochs": 1, "sizes": ()})
    found = pd.read_csv(tmp_path / "out/logits.csv")
    assert list(found.columns[3:]) == ["direct", "transfer.n20"]
    np.testing.assert_allclose(found["transfer.n20"], found["direct"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", adapting.AUGMENTATIONS)
def test_training_network_has_the_weights_of_that_for_inference_anew(kind):
    model = networks.build_model("b0", BRANCHES)
    settings = adapting.Settings(augmentation=kind)
    made = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        made.append(adapting_training.training_model(model, settings, seed))
    assert checkpoints.names(made[0].weights) == checkpoints.names(model.weights)
    kernels = [one.get_layer("lens").get_weights()[0] for one in (*made, model)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    assert not np.array_equal(kernels[0], kernels[3])
    norm = made[0].get_layer("trunk_all").get_layer("stem_bn")
    assert norm.momentum == adapting_training.MOMENTUM
    x = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, 2)).astype(np.float32)
    turned = made[0].get_layer("augment")({"all": x}, training=True)["all"]
    assert not np.allclose(turned, x)


class Killed(BaseException):
    """What no command catches."""


@pytest.mark.slow
@pytest.mark.parametrize("every", [9, 4])
def test_run_that_dies_ends_as_one_that_does_not(every, made, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)  # every epoch is written
    rules = {"settings": {"scratch": False, "sizes": ()}}
    adapt(made, tmp_path / "whole", **rules)
    whole, write, calls = hashes(tmp_path / "whole"), run.write_whole, []
    assert len(whole) > 12

    def write_or_die(path, *arguments, **options):
        calls.append(path)
        if len(calls) % every == 0 and len(calls) < 36:
            raise Killed
        write(path, *arguments, **options)

    for module in (run, checkpoints, networks):
        monkeypatch.setattr(module, "write_whole", write_or_die)
    n_kills = 0
    while True:
        try:
            adapt(made, tmp_path / "pieces", **rules)
            break
        except Killed:
            n_kills += 1
    assert n_kills >= 3 and hashes(tmp_path / "pieces") == whole
    calls.extend([None] * 36)  # no more of it
    monkeypatch.setattr(adapting, "train", None)  # nothing is trained twice
    adapt(made, tmp_path / "whole", **rules)
    assert hashes(tmp_path / "whole") == whole
    with pytest.raises(run.RunError, match="options.seed: 0 then, 1 now.*--restart"):
        adapt(made, tmp_path / "whole", settings=rules["settings"] | {"seed": 1})
    with pytest.raises(run.RunError, match="labels.n: 40 then, 38 now"):
        adapt(made, tmp_path / "whole", table=labels(38), **rules)
    with run.hold(tmp_path / "whole"), pytest.raises(run.RunError, match="in use by the run"):
        adapt(made, tmp_path / "whole", **rules)
    assert hashes(tmp_path / "whole") == whole


def test_loss_that_is_no_number_stops_and_names_the_objects(made, tmp_path, monkeypatch):
    monkeypatch.setattr(adapting_training, "RATE", float("inf"))
    with pytest.raises(run.RunError, match="the loss is nan in epoch 1, after batch .* n[0-9]{2}"):
        adapt(made, tmp_path / "out", settings={"sizes": ()})
    assert not (tmp_path / "out/adapted.safetensors").exists()


def test_labels_that_cannot_be_used_are_refused(made, tmp_path):
    one_class = labels()[labels()["label"] == 1]
    with pytest.raises(adapting.AdaptError, match="found 20 lenses and 0 others.*label more"):
        adapt(made, tmp_path / "out", table=one_class)
    with pytest.raises(adapting.AdaptError, match="found 1 lenses and 1 others"):
        adapt(made, tmp_path / "out", table=labels(2))
    other = labels().assign(object_id=[f"x{k}" for k in range(N)])
    with pytest.raises(adapting.AdaptError, match=r"none of the 40 labelled objects \(x0\)"):
        adapt(made, tmp_path / "out", table=other)
    found = images.find(made.survey, bands=("g", "r"))
    with pytest.raises(adapting.AdaptError, match="--labels"):
        adapting.adapt(found, None, str(made.network), tmp_path / "out", survey="new",
                       take=["g", "r"])  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [{"clip": "mine"}, {"augmentation": "none"}, {"folds": 1}, {"epochs": 0}, {"sizes": (1,)}],
)
def test_wrong_setting_is_refused(made, tmp_path, change):
    with pytest.raises(adapting.AdaptError, match=next(iter(change))):
        adapt(made, tmp_path / "out", settings=change)
    with pytest.raises(adapting.AdaptError, match="--survey"):
        adapt(made, tmp_path / "out", survey="")


def test_dry_run_tells_the_trainings_and_writes_nothing(made, done):
    before = stamps(made.folder)
    about = adapt(made, made.folder / "dry", settings={"epochs": 3}, dry_run=True)
    assert stamps(made.folder) == before
    plan = about["plan"]
    assert plan["n_trainings"] == sum(trial.n > 0 for trial in done.trials)
    assert plan["sizes"] == [8, 20] and (plan["n_labelled"], plan["n_lens"]) == (N, N // 2)
    with pytest.raises(adapting.AdaptError, match="nothing was written"):
        adapt(made, made.folder)


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made.survey, tmp_path / "survey")
    return tmp_path / "survey"


def reading(made, folder, table, output, strict=False):
    """Read labelled objects as `adapt` does, without any training."""
    network = networks.open_network(made.network)
    found = images.find(folder, bands=("g", "r"))
    labelled, _ = adapting_objects.labelled_images(found, table)
    take = {"VIS": "g", "H": "r"}
    (output / adapting.WORK).mkdir(parents=True)
    return adapting_objects.read_objects(labelled, network, take, output, strict, False)


def test_same_pixels_under_two_ids_stay_in_one_fold_and_are_told(made, copy, tmp_path):
    for k, other in ((30, 4), (31, 5), (33, 7)):
        for band in "gr":
            shutil.copy(copy / f"n{other:02}_{band}.fits", copy / f"n{k:02}_{band}.fits")
    source, _ = reading(made, copy, labels(), tmp_path / "out")
    (said,) = adapting.say_twice(source.catalog)
    assert "the same object is there twice, 3 times over (n04 and n30; n05 and n31" in said
    for seed in range(5):
        trials, fold = adapting.plan_trials(source.catalog, adapting.Settings(folds=4, seed=seed))
        assert [fold[30], fold[31], fold[33]] == [fold[4], fold[5], fold[7]]
        assert sorted(np.unique(fold)) == [0, 1, 2, 3] and not set(trials[1].rows) & set(
            trials[1].tested
        )
    for band in "gr":
        shutil.copy(copy / f"n04_{band}.fits", copy / f"n31_{band}.fits")
    source, _ = reading(made, copy, labels(), tmp_path / "other")
    with pytest.raises(adapting.AdaptError, match="n04 has label 0 and object_id n31 label 1"):
        adapting.say_twice(source.catalog)


def test_objects_at_one_place_in_the_sky_are_one():
    arcsec = 1 / 3600
    table = pd.DataFrame({"ra": [10, 10 + 0.8 * arcsec, 20, np.nan, 359.9999999, 1e-7],
                          "dec": [0, 0, 5, np.nan, -0.0, 0.0]})  # fmt: skip
    found = adapting_objects._sky_groups(table)
    assert found[0] == found[1] and found[4] == found[5] != found[0]
    assert np.isnan(found[[2, 3]]).all()


def test_unusable_object_is_left_out_and_told(made, copy, tmp_path):
    (copy / "n06_r.fits").write_bytes(b"no image")
    source, audit = reading(made, copy, labels(), tmp_path / "out")
    assert audit["n_images"] == N and audit["n_written"] == N - 1
    assert sum(audit["n_left_out"].values()) == 1
    left_out = pd.read_csv(tmp_path / "out/left_out.csv")
    assert left_out["object_id"].tolist() == ["n06"]
    assert source.catalog["object_id"].tolist() == [f"n{k:02}" for k in range(N) if k != 6]
    for position, k in ((5, 5), (6, 7), (38, 39)):
        block = source.batch("all", [position])[0, 10:22, 10:22]
        assert np.array_equal(block[..., 1], pixels(k, "r"))
    with pytest.raises(ScoringError, match="n06.*--strict"):
        reading(made, copy, labels(), tmp_path / "strict", strict=True)


def test_labels_of_several_rounds_count_what_is_of_no_use(made, tmp_path):
    (tmp_path / "one.csv").write_text("object_id,label,grade\nn00,0,X\nn01,1,A\nn02,,C\n")
    (tmp_path / "two.csv").write_text("object_id,label\nn03,1\nn04,0\nfar,1\n")
    table = ranking.read_labels([tmp_path / "one.csv", tmp_path / "two.csv"])
    about = adapt(made, tmp_path / "out", table=table, dry_run=True)
    told = {key: about["labels"][key] for key in ("n", "n_lens", "n_undecided", "n_absent")}
    assert told == {"n": 4, "n_lens": 2, "n_undecided": 1, "n_absent": 1}


def test_any_first_few_of_the_order_hold_the_classes_in_proportion():
    truth = np.array([1] * 7 + [0] * 63)
    order = adapting_training.proportional_order(truth, np.random.default_rng(0))
    assert sorted(order) == list(range(70)) and set(truth[order[:2]]) == {0, 1}
    for n in range(2, 71):
        assert abs(truth[order[:n]].sum() - 0.1 * n) <= 1
    other = adapting_training.proportional_order(truth, np.random.default_rng(1))
    assert not np.array_equal(order, other)


def logits_of(n_lens, n_other, **columns):
    """A table of logits: {column: separation in sd of lenses from others, and seed}."""
    truth = np.repeat([1, 0], [n_lens, n_other])
    table = pd.DataFrame({"object_id": [f"o{k}" for k in range(len(truth))], "label": truth,
                          "fold": np.arange(len(truth)) % 3})  # fmt: skip
    for name, (apart, seed) in columns.items():
        noise = np.random.default_rng(seed).normal(size=len(truth))
        table[name.replace("_", ".")] = noise + apart * truth
    return table


def said(*sizes, **columns):
    return adapting_curve.warnings_of(adapting_curve.measure(logits_of(*sizes, **columns)))


def test_networks_of_different_folds_need_not_agree_on_a_scale():
    table = logits_of(30, 50, direct=(0, 1), transfer_n9=(2, 2))
    moved = table.copy()
    moved["transfer.n9"] += 100.0 * table["fold"]
    pd.testing.assert_frame_equal(adapting_curve.measure(table), adapting_curve.measure(moved))
    one = adapting_curve.measure(table.assign(fold=0)).iloc[1]
    pair = intervals.delong(table["label"], table["transfer.n9"], table["direct"])
    assert one["auc"] == pytest.approx(pair.auc_a) and one["p_direct"] == pytest.approx(pair.p)
    whole = intervals.delong_interval(table["label"], table["transfer.n9"])
    assert (one["low"], one["high"]) == pytest.approx(whole)
    folds = [intervals.delong(part["label"], part["transfer.n9"], part["direct"])
             for _, part in table.groupby("fold")]  # fmt: skip
    pairs = [p["label"].sum() * (1 - p["label"]).sum() for _, p in table.groupby("fold")]
    weights, row = np.array(pairs) / sum(pairs), adapting_curve.measure(table).iloc[1]
    error = np.sqrt(sum((w * f.standard_error) ** 2 for w, f in zip(weights, folds)))
    gain = sum(w * f.difference for w, f in zip(weights, folds))
    assert row["over_direct"] == pytest.approx(gain)
    assert row["over_direct_high"] - gain == pytest.approx(1.959964 * error, rel=1e-6)
    few = table.groupby("label").head(4)  # a fold has one of a class: all together
    assert adapting_curve.measure(few).iloc[1]["auc"] == pytest.approx(
        roc_auc_score(few["label"], few["transfer.n9"])
    )


def test_a_sample_that_supports_the_claim_is_not_warned_of():
    assert not said(60, 60, direct=(0, 1), transfer_n20=(0, 2), transfer_n80=(2, 3),
                    scratch_n80=(0, 4))  # fmt: skip


def test_what_the_labels_cannot_support_is_said():
    few = said(9, 200, direct=(0, 1), transfer_n80=(2.5, 3))
    assert len(few) == 1 and "only 9 lenses were labelled, fewer than 10" in few[0]
    few = said(200, 5, direct=(0, 1), transfer_n80=(2.5, 3))
    assert "only 5 objects that are no lens were labelled" in few[0]
    guess = said(40, 40, direct=(0, 1), transfer_n80=(0.05, 3))
    assert "includes 0.5" in guess[0] and "is not shown to be better than the released" in guess[1]
    equal = said(60, 60, direct=(2, 3), transfer_n80=(2, 3), scratch_n80=(2, 5))
    assert len(equal) == 2 and "p = 1" in equal[0] and "random weights" in equal[1]
    worse = said(60, 60, direct=(3, 1), transfer_n80=(1, 3))
    assert len(worse) == 1 and "is worse than the released network as it is" in worse[0]
    turned = said(60, 60, direct=(0, 1), transfer_n80=(-2, 3))
    assert "ranks lenses below others" in turned[0]
    apart = said(60, 60, direct=(0, 1), transfer_n80=(50, 3))
    assert len(apart) == 1 and "without one error" in apart[0] and "says nothing" in apart[0]


def test_the_claim_is_judged_at_the_largest_number_of_labels_alone():
    table = logits_of(60, 60, direct=(0, 1), transfer_n20=(3, 2), transfer_n80=(0, 3))
    curve = adapting_curve.measure(table)
    assert len(adapting_curve.warnings_of(curve)) == 2
    assert len(adapting_curve.warnings_of(curve[curve["n_train"] < 80])) == 0


def test_run_tells_its_warnings_and_its_losses(done):
    about = json.loads((done.folder / "run.json").read_text())
    assert about == json.loads(json.dumps(done.about))
    assert len(about["losses"]) == 3 and np.isfinite(about["losses"]).all()
    assert about["warnings"] == adapting_curve.warnings_of(done.curve)
    assert about["audit"]["n_written"] == about["labels"]["n"] == N
    assert not list(done.folder.rglob(checkpoints.STATE))
