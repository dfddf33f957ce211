"""Released weights: written small, found verified, loaded whole or not at all, never executed."""

import csv
import hashlib
import json
import pickle
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from cast_lens import checkpoints, download, stretch, weights, weights_release
from cast_lens.data import DataError, DataUnavailableError
from cast_lens.run import RunError
from tests import loopback
from tests.loopback import publish, reply

ABOUT = {
    "url": "https://example.org/weights/", "survey": "a mock, with a comma", "data": "stand-in",
    "network": "two dense trunks", "paper": "", "experiment": "", "scale": "",
    "metric": "roc_auc", "commit": "0" * 40,
    "source": "this test", "licence": "MIT", "card": "cards/m.md",
}  # fmt: skip
IMAGES = {
    "vis": np.random.default_rng(1).normal(1e-12, 1e-12, (6, 4, 4, 1)).astype(np.float32),
    "nir": np.random.default_rng(2).normal(1e-12, 1e-12, (6, 2, 2, 3)).astype(np.float32),
}


def network(seed=0, width=5):
    """Return a network of two nested trunks, a stretch with constants in maggies, and a head."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input(IMAGES[name].shape[1:], name=name) for name in IMAGES}
    features = []
    for name, x in inputs.items():
        x = stretch.Clip(-1e-12 * (seed + 1), 3e-12, name=f"clip_{name}")(x)
        inner = keras.Input(x.shape[1:])
        y = keras.layers.Conv2D(width, 2, name="stem_conv")(inner)
        y = keras.layers.BatchNormalization(name="stem_bn")(y)
        features.append(keras.Model(inner, y, name=f"trunk_{name}")(x))
    flat = [keras.layers.GlobalAveragePooling2D()(x) for x in features]
    head = keras.layers.Dense(2, "softmax", name="lens")(keras.layers.Concatenate()(flat))
    return keras.Model(inputs, head)


def values(model):
    return [keras.ops.convert_to_numpy(weight.value) for weight in model.weights]


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    model = network()
    before = values(model)
    rows, loss = weights.release(model, folder, "mock-b2", ABOUT, inputs=IMAGES)
    assert same(values(model), before)
    return folder, model, rows, loss


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    """Stay away from the user's folders and proxies."""
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_release_is_a_file_for_each_trunk_and_the_head_and_a_row_for_each(released):
    folder, _, rows, _ = released
    names = [f"mock-b2-{part}.safetensors" for part in ("head", "trunk_nir", "trunk_vis")]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == names
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert sorted(row["file"] for row in table) == names
    for row in table:
        content = (folder / row["file"]).read_bytes()
        assert int(row["bytes"]) == len(content) < 16 * 2**20
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["url"] == f"https://example.org/weights/{row['file']}"
        assert row["survey"] == "a mock, with a comma" and row["data"] == "stand-in"
    assert weights.read_manifest(folder / "manifest.csv") == {"mock-b2": rows}


def test_kernels_are_float16_and_all_else_has_its_own_bits(released):
    folder, model, _, _ = released
    stored = {}
    for path in folder.glob("*.safetensors"):
        stored |= load_file(path)
    for name, array in checkpoints.arrays(model.weights).items():
        if array.ndim == 4 or name.endswith("lens/kernel"):
            assert stored[name].dtype == np.float16
            np.testing.assert_allclose(stored[name], array, rtol=2.0**-11, atol=2.0**-25)
        else:
            assert stored[name].dtype == np.float32 and np.array_equal(stored[name], array)


def test_the_loss_of_float16_is_that_of_the_loaded_network(released):
    folder, model, _, loss = released
    other = network(seed=3)
    about = weights.load_into(other, "mock-b2", manifest=folder / "manifest.csv")
    exact, half = (m.predict(IMAGES, verbose=0).astype(np.float64) for m in (model, other))
    assert loss == pytest.approx(np.max(np.abs(half / exact - 1)), rel=1e-6)
    assert 0 < loss < 1e-2
    told = json.loads(about["about"])
    assert told["name"] == "mock-b2" and told["data"] == "stand-in"
    assert float(told["float16_loss"]) == pytest.approx(loss, rel=0.05)
    assert not same(values(other), values(network(seed=3)))


def test_a_folder_or_a_file_of_float32_can_be_loaded_by_path(released, tmp_path):
    folder, model, _, _ = released
    other = network(seed=3)
    weights.load_into(other, folder)
    from_name = network(seed=4)
    weights.load_into(from_name, "mock-b2", manifest=folder / "manifest.csv")
    assert same(values(other), values(from_name))
    checkpoints.write_weights(model, tmp_path / "whole.safetensors", {"epoch": "3"})
    assert weights.load_into(other, tmp_path / "whole.safetensors") == {"epoch": "3"}
    assert same(values(other), values(model))


def test_the_same_weights_give_the_same_bytes_and_a_name_keeps_them(released, tmp_path):
    folder, model, rows, _ = released
    assert weights.release(model, tmp_path, "mock-b2", ABOUT, inputs=IMAGES)[0] == rows
    assert weights.release(model, folder, "mock-b2", ABOUT, inputs=IMAGES)[0] == rows
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="mock-b2 was released with other weights"):
        weights.release(network(seed=9), folder, "mock-b2", ABOUT, inputs=IMAGES)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    weights.release(network(seed=9), tmp_path, "second", ABOUT, inputs=IMAGES)
    assert list(weights.read_manifest(tmp_path / "manifest.csv")) == ["mock-b2", "second"]


def test_a_trunk_beyond_the_limit_is_split_and_comes_back_whole(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_release, "MAX_FILE", 2600)
    monkeypatch.setattr(weights_release, "_HEADER", 2200)
    model = network(width=20)
    rows, _ = weights.release(model, tmp_path, "wide", ABOUT, inputs=IMAGES)
    assert len(rows) > 3 and max(row.bytes for row in rows) < 2600
    other = network(seed=3, width=20)
    weights.load_into(other, tmp_path)
    for one, two in zip(values(model), values(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=2.0**-11, atol=2.0**-25)


@pytest.mark.slow
def test_the_network_of_bom_et_al_is_released_in_three_files_below_16_mib(tmp_path):
    from reproductions.sglc2 import network as paper
    from reproductions.sglc2.settings import HEADLINE, config_of

    model = paper.build_model(config_of(HEADLINE, {"initial": "random"}), seed=0)
    for name in ("vis", "nir"):
        layer = model.get_layer(f"clip_{name}")
        layer.lower.assign(np.zeros(layer.lower.shape))
        layer.upper.assign(np.ones(layer.upper.shape))
    rng = np.random.default_rng(0)
    images = {"vis": rng.random((2, 200, 200, 1)), "nir": rng.random((2, 66, 66, 3))}
    rows, loss = weights.release(model, tmp_path, "bom-b2", ABOUT, inputs=images)
    assert sorted(row.file for row in rows) == [
        f"bom-b2-{part}.safetensors" for part in ("head", "trunk_nir", "trunk_vis")
    ]
    assert 15e6 < max(row.bytes for row in rows) < 16 * 2**20
    assert 0 <= loss < 0.01
    before = model.predict(images, verbose=0)
    weights.load_into(model, "bom-b2", manifest=tmp_path / "manifest.csv")
    np.testing.assert_allclose(model.predict(images, verbose=0), before, rtol=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_weights_that_float16_cannot_hold_are_not_released(value, tmp_path):
    model = network()
    kernel = model.get_layer("lens").kernel
    kernel.assign(np.full(kernel.shape, value))
    with pytest.raises(RunError, match=r"tensor \d+ lens/kernel holds"):
        weights.release(model, tmp_path, "mock-b2", ABOUT, inputs=IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Mock B2", {}), ("../up", {}), ("mock", {"data": "simulated"}), ("mock", {"licence": None})],
)
def test_a_release_without_a_plain_name_or_all_words_is_refused(name, changes, tmp_path):
    about = {key: text for key, text in (ABOUT | changes).items() if text}
    with pytest.raises(RunError, match="expected"):
        weights.release(network(), tmp_path, name, about, inputs=IMAGES)
    assert not list(tmp_path.iterdir())


def damage(folder, fault):
    """Change one tensor of the files of a release, and tell its name."""
    path = folder / "mock-b2-trunk_vis.safetensors"
    arrays = load_file(path)
    name = next(name for name in arrays if name.endswith("stem_conv/kernel"))
    kernel = arrays.pop(name)
    changed = {
        "renamed": {name.replace("stem", "stern"): kernel}, "missing": {},
        "transposed": {name: np.ascontiguousarray(kernel.T)},
        "nan": {name: np.where(np.arange(kernel.size).reshape(kernel.shape) == 7, np.nan, kernel)},
        "infinite": {name: np.full_like(kernel, np.inf)},
        "float64": {name: kernel.astype(np.float64)},
        "unknown": {name: kernel, "9999 backdoor/kernel": kernel},
    }[fault]  # fmt: skip
    changed = {key: array.astype(kernel.dtype if fault != "float64" else np.float64)
               for key, array in changed.items()}  # fmt: skip
    save_file(arrays | changed, path)
    return "backdoor/kernel" if fault == "unknown" else "stem_conv/kernel"


@pytest.fixture
def copied(released, tmp_path):
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in released[0].glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    "fault", ["renamed", "missing", "transposed", "nan", "infinite", "float64", "unknown"]
)
def test_a_changed_tensor_is_named_and_nothing_is_loaded(copied, fault):
    name, model = damage(copied, fault), network(seed=3)
    before = values(model)
    with pytest.raises(RunError, match="(?s)" + name) as caught:
        weights.load_into(model, copied)
    assert "mock-b2-trunk_vis.safetensors" in str(caught.value)
    assert same(values(model), before)
    with pytest.raises(DataError, match="not the released mock-b2-trunk_vis.*expected.*SHA-256"):
        weights.load_into(model, "mock-b2", manifest=copied / "manifest.csv")
    assert same(values(model), before)


def test_one_flipped_bit_anywhere_is_a_wrong_hash(copied):
    path, model = copied / "mock-b2-head.safetensors", network(seed=3)
    content, before = bytearray(path.read_bytes()), values(model)
    for byte in np.random.default_rng(0).integers(0, len(content), 20):
        content[byte] ^= 4
        path.write_bytes(content)
        with pytest.raises(DataError, match="SHA-256"):
            weights.load_into(model, "mock-b2", manifest=copied / "manifest.csv")
        content[byte] ^= 4
    assert same(values(model), before)


def test_a_missing_file_and_a_tensor_in_two_files_are_refused(copied):
    model = network(seed=3)
    before = values(model)
    head = copied / "mock-b2-head.safetensors"
    save_file(load_file(head), copied / "again.safetensors")
    with pytest.raises(RunError, match=r"mock-b2-head.*tensor .* is in another file too"):
        weights.load_into(model, copied)
    for path in (head, copied / "again.safetensors"):
        path.unlink()
    with pytest.raises(RunError, match=r"found tensor .* in the network alone"):
        weights.load_into(model, copied)
    for named in ("mock-b3", copied / "no.safetensors"):
        with pytest.raises(DataError, match="no weights are called.*mock-b2"):
            weights.load_into(model, named, manifest=copied / "manifest.csv")
    assert same(values(model), before)


class Canary:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):  # noqa: D105
        return Path.touch, (self.path,)


def keras_archive(path, canary):
    code = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Lambda", "config": code}))


@pytest.mark.parametrize("name", ["model{}", "model.safetensors", "weights"])
@pytest.mark.parametrize("kind", [".keras", ".h5", ".pkl", "saved_model", ".npy"])
def test_what_can_run_code_is_refused_whatever_its_name(kind, name, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "here" / name.format(kind)
    path.parent.mkdir()
    if kind == "saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(pickle.dumps(Canary(canary)))
        save_file(checkpoints.arrays(network().weights), path / "whole.safetensors")
    elif kind == ".keras":
        keras_archive(path, canary)
    elif kind == ".npy":
        with open(path, "wb") as stream:
            np.save(stream, np.array([Canary(canary)], object), allow_pickle=True)
    else:
        header = b"\x89HDF\r\n\x1a\n" if kind == ".h5" else b""
        path.write_bytes(header + pickle.dumps(Canary(canary)))
    model = network(seed=3)
    before = values(model)
    with pytest.raises(RunError, match="expected (a )?safetensors") as caught:
        weights.load_into(model, path)
    assert str(path) in str(caught.value)
    assert not canary.exists() and same(values(model), before)


def test_the_canary_sings_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("begins", [2, 3, 4, 5])
def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(begins, tmp_path):
    path, wanted = tmp_path / "odd.safetensors", 0x80 + 256 * begins
    for length in range(2000):
        content = save({"x": np.zeros(1, np.float32)}, {"pad": "p" * length})
        if int.from_bytes(content[:8], "little") == wanted:
            break
    path.write_bytes(content)
    assert content[0] == 0x80
    weights.refuse_program(path)


def downloads(folder, server):
    """Point the manifest of a release to a server; return the contents of its files, in order."""
    manifest = folder / "manifest.csv"
    text = manifest.read_text().replace("https://example.org/weights", server.url)
    manifest.write_text(text)
    contents = []
    for row in weights.read_manifest(manifest)["mock-b2"]:
        contents.append((folder / row.file).read_bytes())
        (folder / row.file).unlink()
    return contents


@pytest.fixture
def server():
    with loopback.serve() as running:
        yield running


def test_files_are_downloaded_once_and_go_on_where_they_were_cut(copied, server, tmp_path):
    contents = downloads(copied, server)
    server.answers[:] = [publish(contents[0], stop=100), *map(publish, contents)]
    manifest = copied / "manifest.csv"
    paths = weights.locate("mock-b2", manifest=manifest)
    assert [path.read_bytes() for path in paths] == contents
    assert server.seen[1]["Range"] == "bytes=100-"
    assert server.requests == 4
    assert {path.parent for path in paths} == {tmp_path / "cache/weights"}
    assert not list((tmp_path / "cache/weights").glob("*.part*"))
    assert weights.locate("mock-b2", manifest=manifest) == paths and server.requests == 4


def test_a_file_in_cast_lens_data_is_used_if_its_hash_is_right(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "data"))
    (tmp_path / "data/weights").mkdir(parents=True)
    path = copied / "mock-b2-head.safetensors"
    moved = path.rename(tmp_path / "data/weights" / path.name)
    assert moved in weights.locate("mock-b2", manifest=copied / "manifest.csv")
    moved.write_bytes(moved.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"(?s){moved}.*bytes, SHA-256"):
        weights.locate("mock-b2", manifest=copied / "manifest.csv")


@pytest.mark.parametrize("fault", ["page", "other", "cut", "missing"])
def test_a_download_that_is_not_the_file_leaves_none(copied, server, tmp_path, fault, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 2)
    content = downloads(copied, server)[0]
    answers = {
        "page": [lambda h: reply(h, b"<html>" * 99, length=594, media_type="text/plain")],
        "other": [publish(content[:-1] + b"!")],
        "cut": [publish(content, stop=50), publish(content, stop=60)],
        "missing": [loopback.status(404)],
    }
    server.answers[:] = answers[fault]
    with pytest.raises(DataUnavailableError, match="SHA-256 .* and put it in") as caught:
        weights.locate("mock-b2", manifest=copied / "manifest.csv")
    assert server.url in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_file_without_an_address_says_where_to_put_it(copied):
    manifest = copied / "manifest.csv"
    text = manifest.read_text().split("\n")
    text[1] = ",".join("" if "example" in part else part for part in text[1].split(","))
    manifest.write_text("\n".join(text))
    first = weights.read_manifest(manifest)["mock-b2"][0]
    (copied / first.file).unlink()
    with pytest.raises(DataUnavailableError, match="no public address.*CAST_LENS_DATA"):
        weights.locate("mock-b2", manifest=manifest)


@pytest.mark.parametrize(
    "change",
    [
        ("sha256", "hash"), ("stand-in", "mock"), (".safetensors", ".h5"),
        ("mock-b2-head.safe", "../head.safe"), (",MIT,", ","), ("file,", "files,"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_as_written_is_refused_by_line(copied, change):
    manifest = copied / "manifest.csv"
    text = manifest.read_text()
    assert change[0] in text
    manifest.write_text(text.replace(*change))
    with pytest.raises(DataError, match=r"manifest.csv: line \d is .*expected"):
        weights.read_manifest(manifest)


def test_the_manifest_of_the_repository_is_sound():
    for rows in weights.read_manifest().values():
        for row in rows:
            assert row.bytes < 16 * 2**20, row.file
            assert (weights.MANIFEST.parent / row.card).is_file(), row.card
