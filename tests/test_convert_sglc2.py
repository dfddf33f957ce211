"""Which published networks are taken for that of Bom et al. (2022), and where they may lie."""

import copy
import json
import sys
import tarfile
import zipfile

import pytest

from cast_lens.data import DataError
from tests.scripts import load


def script(root, name):
    return load(root / f"weights/{name}.py")


@pytest.fixture(scope="module")
def convert(request):
    return script(request.config.rootpath, "convert_sglc2")


@pytest.fixture(scope="module")
def get(request):
    return script(request.config.rootpath, "get_sglc2")


def layer(name, kind, inputs=(), **config):
    nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return {"name": name, "class_name": kind, "config": config, "inbound_nodes": nodes}


REFERENCE = {
    "layers": [
        layer("input_1", "InputLayer", batch_input_shape=(None, None, None, 3)),
        layer("stem_conv", "Conv2D", ["input_1"], filters=32, kernel_size=(3, 3), strides=(2, 2)),
        layer("stem_bn", "BatchNormalization", ["stem_conv"], axis=[3], epsilon=0.001),
        layer("block_drop", "FixedDropout", ["stem_bn"], rate=0.1),
        layer("block_add", "Add", ["block_drop", "stem_conv"]),
        layer("top_activation", "Activation", ["block_add"], activation="swish"),
    ]
}


def published(order=("vis", "hjy")):
    """Return a network as the authors' would be, were EfficientNet six layers deep."""
    layers = []
    for branch, size in (("vis", 200), ("hjy", 66)):
        layers.append(layer(branch, "InputLayer", batch_input_shape=(None, size, size, 3)))
        for own in REFERENCE["layers"][1:]:
            own = copy.deepcopy(own)
            own["name"] += f"_{branch}"
            for source in own["inbound_nodes"][0]:
                source[0] = branch if source[0] == "input_1" else f"{source[0]}_{branch}"
            layers.append(own)
        top = f"top_activation_{branch}"
        layers.append(layer(f"pool_{branch}", "GlobalAveragePooling2D", [top]))
    layers.append(layer("join", "Concatenate", [f"pool_{branch}" for branch in order], axis=-1))
    layers.append(layer("drop", "Dropout", ["join"], rate=0.2))
    head = {"units": 2, "activation": "softmax", "use_bias": True}
    layers.append(layer("dense_7", "Dense", ["drop"], **head))
    return {"name": "model_5", "layers": layers}


def test_every_layer_gets_its_branch_and_its_name_in_the_package(convert):
    found = convert.name_layers(published(), REFERENCE)
    own = ["stem_conv", "stem_bn", "block_drop", "block_add", "top_activation"]
    wanted = {f"{name}_vis": ("vis", name) for name in own}
    wanted |= {f"{name}_hjy": ("nir", name) for name in own}
    assert found == wanted | {"dense_7": ("head", "lens")}


def test_the_order_of_the_list_and_the_names_of_the_branches_do_not_matter(convert):
    network = json.loads(json.dumps(published()).replace("hjy", "nisp"))
    network["layers"] = network["layers"][::-1]
    found = convert.name_layers(network, REFERENCE)
    assert found["stem_bn_nisp"] == ("nir", "stem_bn")


def change(name, **changes):
    """Return a function that changes a layer's inputs, class or config."""

    def apply(network):
        found = next(part for part in network["layers"] if part["name"] == name)
        for key, value in changes.items():
            if key == "inputs":
                found["inbound_nodes"] = [[[source, 0, 0, {}] for source in value]]
            elif key in found:
                found[key] = value
            else:
                found["config"][key] = value

    return apply


def remove(name):
    def apply(network):
        network["layers"] = [part for part in network["layers"] if part["name"] != name]

    return apply


def add(*args, **config):
    return lambda network: network["layers"].append(layer(*args, **config))


def rename(old, new):
    def apply(network):
        network["layers"] = json.loads(
            json.dumps(network["layers"]).replace(f'"{old}"', f'"{new}"')
        )

    return apply


REFUSED = {
    "batch normalization after the sum": (
        change("block_add_vis", inputs=["stem_bn_vis", "stem_conv_vis"]),
        "block_add_vis follows stem_bn_vis and stem_conv_vis, expected block_drop_vis and",
    ),
    "trunks joined the other way": (
        change("join", inputs=["pool_hjy", "pool_vis"]),
        "joins top_activation_hjy and top_activation_vis, expected .* in this order",
    ),
    "one branch to the end": (change("drop", inputs=["pool_vis"]), "dense_7.*join"),
    "one input": (remove("hjy"), "found inputs vis of shape .*expected two"),
    "three inputs": (
        add("u", "InputLayer", batch_input_shape=(None, 66, 66, 3)), "found inputs vis.*hjy.*u of"
    ),
    "other pixels": (change("vis", batch_input_shape=(None, 101, 101, 3)), "101, 101.*expected"),
    "a layer renamed": (rename("stem_bn_vis", "bn_vis"), "no layer stem_bn_vis"),
    "no EfficientNet": (rename("stem_conv_vis", "conv_vis"), "after input vis, expected a stem"),
    "more filters": (change("stem_conv_hjy", filters=40), "stem_conv_hjy has filters 40, expected"),
    "another activation": (
        change("top_activation_hjy", activation="relu"), "has activation relu, expected swish"
    ),
    "another kind of layer": (change("block_add_vis", class_name="Multiply"), "is a Multiply"),
    "code of the authors": (change("stem_bn_vis", class_name="Lambda"), "stem_bn_vis is a Lambda"),
    "a network inside": (change("stem_bn_vis", class_name="Functional"), "is a Functional"),
    "one output": (change("dense_7", units=1), "ends with dense_7, expected a dense layer of two"),
    "sigmoids": (change("dense_7", activation="sigmoid"), "sigmoid, expected softmax"),
    "a layer before the last": (
        add("more", "Dense", ["dense_7"], units=2, activation="softmax", use_bias=True), "joins"
    ),
    "a second output": (add("aside", "Flatten", ["pool_vis"]), "ends with aside, dense_7"),
    "a layer used twice": (
        change("stem_bn_vis", inbound_nodes=[[["stem_conv_vis", 0, 0, {}]]] * 2), "used 2 times"
    ),
    "no average": (
        change("pool_vis", class_name="GlobalMaxPooling2D"), "joins pool_vis and.*the averages of"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_network_is_refused_and_told_why(convert, case):
    mutate, told = REFUSED[case]
    network = published()
    mutate(network)
    with pytest.raises(convert.Refused, match=told):
        convert.name_layers(network, REFERENCE)


def saved_model(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


def test_saved_models_are_found_in_folders_and_archives(get, tmp_path):
    one, two = saved_model(tmp_path / "here/a/fold1"), saved_model(tmp_path / "here/b/fold2")
    out = tmp_path / "out"
    assert get.find_models(str(tmp_path / "here"), out) == {"fold1": one, "fold2": two}
    assert get.find_models(str(one), out) == {"fold1": one}
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/x.tar.gz", "w:gz") as archive:
        archive.add(one, "fold1")
    with zipfile.ZipFile(tmp_path / "packed/y.zip", "w") as archive:
        archive.write(two / "saved_model.pb", "fold2/saved_model.pb")
    for _ in range(2):  # a second call finds them unpacked
        found = get.find_models(str(tmp_path / "packed"), out)
        assert {name: path.parent.name for name, path in found.items()} == {
            "fold1": "x", "fold2": "y"
        }  # fmt: skip
    found = get.find_models(str(tmp_path / "packed/y.zip"), out)
    assert found == {"fold2": out / "saved_models/y/fold2"}


def test_saved_models_of_one_name_keep_apart(get, tmp_path):
    one, two = saved_model(tmp_path / "here/a/fold1"), saved_model(tmp_path / "here/b/fold1")
    found = get.find_models(str(tmp_path / "here"), tmp_path)
    assert found == {"here-a-fold1": one, "here-b-fold1": two}


def test_data_without_a_saved_model_is_refused(get, tmp_path):
    (tmp_path / "nets.rar").write_bytes(b"Rar!")
    for named in (tmp_path, tmp_path / "nets.rar"):
        with pytest.raises(DataError, match="found no"):
            get.find_models(str(named), tmp_path / "out")


def test_a_converter_that_fails_is_told_and_leaves_nothing(get, tmp_path):
    model, python = saved_model(tmp_path / "here/fold1"), tmp_path / "here/python"
    python.write_text(
        '#!/bin/sh\necho "a library that talks" >&2\n'
        'echo half > "$4/arrays.npz"\necho "$3: no network" >&2\nexit 3\n'
    )
    python.chmod(0o755)
    with pytest.raises(get.ConversionError) as caught:
        get.convert(model, tmp_path / "fold1.safetensors", python)
    assert str(caught.value) == f"{model}: no network (status 3)"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.slow
def test_keras_3_reads_no_saved_model_and_says_so(get, tmp_path):
    model = saved_model(tmp_path / "fold1")
    with pytest.raises(get.ConversionError, match="fold1: no network.*status 3"):
        get.convert(model, tmp_path / "fold1.safetensors", sys.executable)
    assert [path.name for path in tmp_path.iterdir()] == ["fold1"]
