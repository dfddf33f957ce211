"""Released networks and users' own: opened as they were trained, or refused by field and file."""

import importlib
import importlib.util
import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import expit, logit

from cast_lens import (
    adapting,
    adapting_training,
    backbones,
    catalog,
    class_activation,
    cutouts,
    metrics,
    networks,
    weights,
)
from cast_lens.data import DataError
from cast_lens.run import RunError
from tests.scripts import load
from tests.test_fast import log_odds, shaken

NAME = "small-v0"
ABOUT = {
    "url": "", "survey": "sglc2", "data": "stand-in", "network": "small", "paper": "sglc2",
    "experiment": "", "scale": "", "metric": "", "commit": "",
    "source": "this test", "licence": "MIT", "card": "cards/small.md",
}  # fmt: skip
CALIBRATION = networks.Calibration(1.5, -0.25, 20, 9, "a test")


def small_trunk(variant, *, name, shape, weights, batch_normalization):
    images = keras.Input(shape)
    x = keras.layers.Conv2D(4, 5, strides=4, name="stem_conv")(images)
    return keras.Model(images, batch_normalization(axis=3, name="stem_bn")(x), name=name)


@pytest.fixture(scope="module")
def paper():
    return importlib.import_module("reproductions.sglc2.network")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Make every trunk small, and stay away from the user's folders."""
    monkeypatch.setattr(backbones, "efficient_net", small_trunk)
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)


def images(n=4):
    rng = np.random.default_rng(0)
    shapes = {"vis": (n, 200, 200, 1), "nir": (n, 66, 66, 3)}
    return {name: rng.normal(1e-12, 2e-12, x).astype(np.float32) for name, x in shapes.items()}


def describing(**changes):
    fields = {
        "name": NAME, "backbone": "b2",
        "branches": [
            networks.Branch("vis", ("VIS",), 200, 0.1, "repeated"),
            networks.Branch("nir", ("H", "J", "Y"), 66, 0.3, "all"),
        ],
        "flux_unit": "maggies", "survey": "sglc2", "calibration": CALIBRATION,
    }  # fmt: skip
    return fields | changes


def trained(paper, inputs):
    """Return the paper's network with small trunks and weights of its own."""
    settings = importlib.import_module("reproductions.sglc2.settings")
    keras.utils.set_random_seed(1)
    model = paper.build_model(settings.Config(inputs, "alternative", initial="random"), seed=0)
    bounds = {"vis": ([-2e-12], [4e-12]), "nir": ([-3e-12] * 3, [3e-12, 5e-12, 4e-12])}
    paper.set_bounds(model, {name: bounds[name] for name in settings.INPUTS[inputs]})
    for weight in model.weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(np.random.default_rng(2).normal(size=weight.shape))
    return model


@pytest.fixture
def released(small, paper, tmp_path):
    """A folder of releases with one network in it, and the manifest's path."""
    folder = tmp_path / "weights"
    model = trained(paper, "hjy_vis_repeated")
    weights.release(model, folder, NAME, ABOUT, inputs=images())
    networks.write_description(folder / "networks" / f"{NAME}.json", describing())
    return folder / "manifest.csv"


@pytest.fixture
def own(released, tmp_path):
    """A folder of one's own: the same files, and network.json."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in released.parent.glob("*.safetensors"):
        shutil.copy(path, folder)
    shutil.copy(released.parent / "networks" / f"{NAME}.json", folder / "network.json")
    return folder


FILLINGS = {
    "hjy": {"nir": "all"},
    "vis_repeated": {"vis": "repeated"},
    "hjy_vis_repeated": {"vis": "repeated", "nir": "all"},
    "hjy_vis_zeros": {"vis": "zeros", "nir": "all"},
}


@pytest.mark.parametrize("inputs", FILLINGS)
def test_scores_are_those_of_the_network_that_was_trained(inputs, small, paper, tmp_path):
    model = trained(paper, inputs)
    path = tmp_path / "mine.safetensors"
    importlib.import_module("cast_lens.checkpoints").write_weights(model, path, {})
    all_branches = {branch.name: branch for branch in describing()["branches"]}
    branches = [
        networks.dataclasses.replace(all_branches[name], filling=filling)
        for name, filling in FILLINGS[inputs].items()
    ]
    networks.write_description(path.with_suffix(".json"), describing(branches=branches))
    network = networks.open_network(path)
    batch = {name: images()[name] for name in FILLINGS[inputs]}
    wanted = keras.ops.convert_to_numpy(model(batch, training=False))
    found = keras.ops.convert_to_numpy(network.model(batch, training=False))
    assert found.shape == (4, 2) and np.ptp(wanted[:, 1]) > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert network.branches == tuple(branches) and network.calibration == CALIBRATION


def test_a_release_is_opened_by_name_and_its_copy_has_the_same_hash(released, own):
    network = networks.open_network(NAME, manifest=released)
    copy = networks.open_network(own)
    assert len(network.sha256) == 64 and network.sha256 == copy.sha256
    found, wanted = (m.model(images(), training=False) for m in (network, copy))
    assert np.array_equal(found, wanted)
    for path in own.glob("*.safetensors"):  # whatever the files are called
        path.rename(path.with_name("of-" + path.name))
    assert networks.open_network(own).sha256 == network.sha256
    path = own / f"of-{NAME}-head.safetensors"
    tensors = load_file(path)
    save_file({key: value * np.asarray(1.01, value.dtype) for key, value in tensors.items()}, path)
    assert networks.open_network(own).sha256 != network.sha256


def test_an_unknown_name_and_a_wrong_hash_are_refused(released):
    with pytest.raises(DataError, match=f"no weights are called 'small-v1'.*{NAME}"):
        networks.open_network("small-v1", manifest=released)
    head = released.parent / f"{NAME}-head.safetensors"
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){head}.*SHA-256 .*expected.*get it again"):
        networks.open_network(NAME, manifest=released)


def test_a_release_without_its_description_or_with_that_of_another_is_refused(released):
    path = released.parent / "networks" / f"{NAME}.json"
    text = path.read_text()
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing.*or name another release"):
        networks.open_network(NAME, manifest=released)
    path.write_text(text.replace(NAME, "small-v7"))
    with pytest.raises(RunError, match="name is 'small-v7', expected 'small-v0'"):
        networks.open_network(NAME, manifest=released)
    path.write_text(text[:-10])
    with pytest.raises(RunError, match=f"{path}: found .*expected JSON"):
        networks.open_network(NAME, manifest=released)


def places(found):
    """Yield (object, field) for every field of a description."""
    for item in (found, *found["branches"], found["calibration"]):
        for field in item:
            yield item, field


@pytest.mark.parametrize("number", range(6 + 2 * 5 + 5))
def test_every_field_that_is_missing_or_of_a_wrong_type_is_named(number, tmp_path):
    path = tmp_path / "network.json"
    networks.write_description(path, describing())
    text = path.read_text()
    assert len(list(places(json.loads(text)))) == 21
    found = json.loads(text)
    item, field = list(places(found))[number]
    del item[field]
    path.write_text(json.dumps(found))
    with pytest.raises(RunError, match=f"{path}.* field {field} is missing, expected .*; add it"):
        networks.read_description(path)
    for wrong in (True, "", -1, [], {"a": 1}, float("nan")):
        found = json.loads(text)
        item, field = list(places(found))[number]
        if field == "intercept" and wrong == -1:
            continue  # which is one
        item[field] = wrong
        path.write_text(json.dumps(found))
        with pytest.raises(RunError, match=f"{path}.*(field|calibration: field) .*expected"):
            networks.read_description(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "b9"}, "field backbone is 'b9', expected one of b0, b1"),
        ({"scale": 0.1}, "field scale is unknown, expected name, backbone"),
        ({"name": "../up"}, "field name is '../up'"),
        ({"branches": [networks.Branch("a", ("H", "J"), 66, 0.3, "zeros")]}, "expected one band"),
        ({"branches": [networks.Branch("a", ("H", "H"), 66, 0.3, "all")]}, "field bands is"),
        ({"branches": [networks.Branch("a", ("H",), 31, 0.3, "all")]}, "side is 31, .*>= 32"),
        ({"branches": [networks.Branch("a", ("H",), 66, 0.0, "all")]}, "pixel_scale is 0.0"),
        ({"branches": [networks.Branch("a", ("H",), 66, 0.1, "half")]}, "filling is 'half'"),
        ({"branches": [networks.Branch("a", ("H",), 66, 0.1, "all")] * 2}, "name of two branches"),
        ({"backbone": "residual"}, r"side of the branches is \[200, 66\], .*whole multiple"),
    ],
)
def test_a_description_that_is_not_right_is_never_written(change, message, tmp_path):
    with pytest.raises(RunError, match=message):
        networks.write_description(tmp_path / "network.json", describing(**change))
    assert not list(tmp_path.iterdir())


def test_what_was_written_is_read_back_with_and_without_calibration(tmp_path):
    for calibration in (CALIBRATION, None):
        fields = describing(calibration=calibration)
        networks.write_description(tmp_path / "x.json", fields)
        assert networks.read_description(tmp_path / "x.json") == fields | {
            "branches": tuple(fields["branches"])
        }


def turn(tensors):
    name = next(name for name in tensors if name.endswith("lens/kernel"))
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    return name


def drop(tensors):
    name = next(name for name in tensors if name.endswith("lens/bias"))
    del tensors[name]
    return name


def blank(tensors):
    name = next(name for name in tensors if name.endswith("clip_vis/upper"))
    tensors[name] = tensors[name] * np.float32(np.nan)
    return name


@pytest.mark.parametrize("fault", [turn, drop, blank])
def test_tensors_that_are_not_those_of_the_description_are_named(fault, own):
    path = own / f"{NAME}-head.safetensors"
    tensors = load_file(path)
    name = fault(tensors)
    save_file(tensors, path)
    with pytest.raises(RunError, match=f"{path}.*tensor {name}"):
        networks.open_network(own)


def test_weights_of_another_network_are_refused_by_tensor(own):
    found = json.loads((own / "network.json").read_text())
    found["branches"] = found["branches"][1:]
    (own / "network.json").write_text(json.dumps(found))
    with pytest.raises(RunError, match="tensor .*clip_vis.*expected the same"):
        networks.open_network(own)


@pytest.mark.parametrize("head", [b"PK\x03\x04" + b"x" * 20, b"\x89HDF\r\n\x1a\n", b"\x80\x04abc"])
def test_what_can_run_code_is_refused_before_anything_else(head, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(head)
    with pytest.raises(RunError, match=f"{path}: found .*may run code.*expected safetensors"):
        networks.open_network(path)


def test_every_release_of_the_repository_is_described_or_built_by_its_reproduction(root):
    built = {*load(root / "weights/release_deeplense.py").NETWORKS}
    built.add(load(root / "weights/release_nottingham.py").NAME)
    for name in weights.read_manifest():
        path = root / "weights/networks" / f"{name}.json"
        assert path.exists() != (name in built)
        assert not path.exists() or networks.read_description(path)["name"] == name


def test_a_release_that_only_its_reproduction_builds_names_its_card(root):
    with pytest.raises(DataError, match="reproduction alone.*cards/deeplense-task2-st"):
        networks.open_network("deeplense-task2-stand-in-v0")


def test_the_released_b0_puts_real_lenses_before_real_others(real_data):
    """Eight real cutouts of the first challenge: one order of 70 has all four lenses first."""
    table, _ = catalog.read_sglc1(real_data / "sglc1/space_based", track="space")
    table = table[table["path_VIS"].notna()]
    images = [cutouts.read_cutout([path])[0] for path in table["path_VIS"]]
    network = networks.open_network("sglc1-space-b0-stand-in-v0")
    found = keras.ops.convert_to_numpy(network.model({"vis": np.stack(images)}))[:, 1]
    assert table["label"].value_counts().to_dict() == {0: 4, 1: 4}
    assert metrics.roc_auc(table["label"], found) > 15 / 16  # one pair of 16 the other way is less


@pytest.fixture
def script(root, monkeypatch, tmp_path):
    found = load(root / "weights/release_sglc2.py")
    monkeypatch.setattr(found, "FOLDER", tmp_path)
    return found


def test_the_description_is_written_from_the_settings_and_the_held_out_scores(
    small, script, root, tmp_path
):
    """The constants maximize the likelihood of Platt's targets, found here by another way."""
    rng, n = np.random.default_rng(3), 1500
    scores = rng.uniform(0.02, 0.98, n)
    labels = (rng.random(n) < expit(0.6 * logit(scores) - 0.8)).astype(int)
    fold = tmp_path / "run/folds" / script.HEADLINE / "fold0"
    fold.mkdir(parents=True)
    table = {"run": 0, "n_train": 9, "object_id": range(n), "label": labels, "score": scores}
    pd.DataFrame(table).to_csv(fold / "table1.csv", index=False)
    made = {"data": "stand-in", "seed": 5, "scale": "release"}
    (tmp_path / "run/run.json").write_text(json.dumps(made))
    script.main(["--describe", str(tmp_path / "run")])
    found = networks.read_description(tmp_path / "networks" / f"{script.RELEASED}.json")
    calibration = found.pop("calibration")
    target = np.where(labels == 1, (labels.sum() + 1) / (labels.sum() + 2),
                      1 / (n - labels.sum() + 2))  # fmt: skip

    def loss(constants):
        p = expit(constants[0] * logit(scores) + constants[1])
        return -np.sum(target * np.log(p) + (1 - target) * np.log1p(-p))

    wanted = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert [calibration.slope, calibration.intercept] == pytest.approx(wanted, abs=1e-4)
    assert (calibration.n, calibration.n_lens) == (n, labels.sum())
    assert calibration.survey == "sglc2, stand-in of seed 5, held out"
    ours = networks.read_description(root / "weights/networks" / f"{script.RELEASED}.json")
    ours.pop("calibration")
    assert found == ours  # `python weights/release_sglc2.py --describe RUN` writes it


@pytest.fixture
def residual(monkeypatch, tmp_path):
    """A network whose one trunk sees all branches on one grid, with shaken weights."""
    monkeypatch.setattr(backbones, "SMALL", (4, 8))
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))
    branches = (networks.Branch("vis", ("VIS",), 96, 0.1, "all"),
                networks.Branch("nir", ("H", "J", "Y"), 32, 0.3, "all"))  # fmt: skip
    model = shaken(networks.build_model("residual", branches), 3)
    return networks.Network("mine", "residual", branches, "maggies", "test", None, "0" * 64, model)


def test_a_residual_network_is_scored_explained_and_trained_as_the_others_are(residual):
    batch = {"vis": images(3)["vis"][:, 52:148, 52:148], "nir": images(3)["nir"][:, 17:49, 17:49]}
    wanted = log_odds(residual.model, batch)
    assert np.ptp(wanted) > 1e-2
    for engine in ("keras", "onnx") if importlib.util.find_spec("onnxruntime") else ("keras",):
        found = networks.lens_logits(residual, engine)
        assert found.engine == engine
        np.testing.assert_allclose(found(batch), wanted, rtol=1e-4, atol=1e-4)
    assert residual.trunks == {"vis": "trunk_vis"}
    maps, bias = class_activation.class_activation(residual.model, batch, residual.trunks)
    assert maps["vis"].shape == (3, 24, 24)
    np.testing.assert_allclose(maps["vis"].sum((1, 2)) + bias, wanted, rtol=1e-4, atol=1e-4)
    anew = adapting_training.training_model(residual.model, adapting.Settings(), seed=0)
    kinds = [w for w in anew.weights if "seed" not in w.path]
    assert [w.shape for w in kinds] == [w.shape for w in residual.model.weights]
    for ours, theirs in zip(kinds, residual.model.weights):
        ours.assign(theirs)
    np.testing.assert_allclose(log_odds(anew, batch), wanted, rtol=1e-4, atol=1e-4)


def test_coarser_images_stay_where_they_are_on_one_grid():
    """A gradient is a gradient still, and a point lies where it lay, to a third of its pixel."""
    sides = {"vis": 36, "nir": 12}
    inputs = {name: keras.Input((side, side, 1), name=name) for name, side in sides.items()}
    model = keras.Model(inputs, backbones.on_one_grid(inputs))
    at = {"vis": np.arange(36) - 17.5, "nir": 3 * (np.arange(12) - 5.5)}
    slope = {k: np.broadcast_to(x[None, None, :, None], (1, len(x), len(x), 1)).astype(np.float32)
             for k, x in at.items()}  # fmt: skip
    found = model.predict(slope, verbose=0)[0]
    np.testing.assert_allclose(found[:, 1:-1, 1], found[:, 1:-1, 0], atol=1e-4)
    point = np.zeros((1, 12, 12, 1), np.float32)
    point[0, 3, 8] = 1.0
    spread = model.predict(slope | {"nir": point}, verbose=0)[0, :, :, 1]
    center = [(spread.sum(axis) * at["vis"]).sum() / spread.sum() for axis in (1, 0)]
    assert center == pytest.approx([at["nir"][3], at["nir"][8]], abs=1e-4)
    with pytest.raises(ValueError, match="sides are 36 and 10, expected a whole multiple"):
        backbones.on_one_grid({"vis": inputs["vis"], "nir": keras.Input((10, 10, 1))})


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_released_network_scores_as_that_of_the_reproduction_with_its_weights(paper, root, which):
    one = load(root / "weights/release_sglc2.py").RELEASES[which]
    model = paper.build_model(one.config, seed=0)
    weights.load_into(model, one.name)
    network = networks.open_network(one.name)
    batch = {name: 5 * x for name, x in images(2).items()}
    wanted = keras.ops.convert_to_numpy(model(batch, training=False))
    for branch in network.branches:
        edge = (batch[branch.name].shape[1] - branch.side) // 2
        middle = slice(edge, edge + branch.side)
        batch[branch.name] = batch[branch.name][:, middle, middle]
    found = keras.ops.convert_to_numpy(network.model(batch, training=False))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
