"""Run in .venv-paper: the arrays of one SavedModel of Bom et al. (2022), after a look at its graph.

A SavedModel is a program, so it is opened here, in a process and an environment of its own, and
only arrays leave. Weights are told by what their layers are in the graph: a layer has the name that
the package `efficientnet` gives it with something added, such as `stem_conv_vis`, and must have the
same inputs and settings as there. `get_sglc2.py` runs this.

    .venv-paper/bin/python -I weights/convert_sglc2.py SAVED_MODEL FOLDER

writes FOLDER/arrays.npz and FOLDER/names.json, {name in arrays.npz: name in the SavedModel}.
"""

import json
import sys
from pathlib import Path

BRANCHES = {"vis": 200, "nir": 66}  # pixels; in the order that the dense layer has them
DECISIVE = (
    "activation", "axis", "depth_multiplier", "dilation_rate", "epsilon", "filters", "groups",
    "kernel_size", "padding", "strides", "target_shape", "use_bias",
)  # fmt: skip
IDLE = ("Dropout", "FixedDropout")  # what does nothing to scores


class Refused(Exception):  # noqa: N818, the message is all that is told
    """A network that is not the one of Figure 5."""


def name_layers(network, reference):
    """Find the place of every layer of a network with weights.

    Args:
        network: What Keras 2 returns as its `get_config()`.
        reference: The same of EfficientNet-B2 of the package, without its top.

    Returns:
        {name of the layer: (branch, name in the package)}, with ("head", "lens") for the last.

    Raises:
        Refused: If the network has anything else, or in another order; says what and where.
    """
    layers = {layer["name"]: _normal(layer) for layer in network["layers"]}
    found, ends = {}, []
    for branch, size in BRANCHES.items():
        names, end = _match_trunk(layers, _input(layers, branch, size), reference)
        found |= {name: (branch, own) for name, own in names.items()}
        ends.append(end)
    passed = {_input(layers, branch, size) for branch, size in BRANCHES.items()} | found.keys()
    head, between = _match_head(layers, ends)
    left = sorted(layers.keys() - passed - between - {head})
    if left:
        kind = layers[left[0]]["class_name"]
        raise Refused(f"found layer {left[0]} ({kind}) besides, expected the two trunks and a head")
    return found | {head: ("head", "lens")}


def _normal(layer):
    """Return a layer as JSON has it, its inputs as a list of names."""
    layer = json.loads(json.dumps(layer, default=str))
    nodes = layer["inbound_nodes"]
    if len(nodes) > 1 or any(not isinstance(node, list) for node in nodes):
        raise Refused(f"layer {layer['name']} is used {len(nodes)} times, expected once")
    if layer["class_name"] in ("Functional", "Sequential", "Model", "Lambda"):
        raise Refused(f"layer {layer['name']} is a {layer['class_name']}, expected a plain layer")
    return layer | {"inputs": [source[0] for source in nodes[0]] if nodes else []}


def _input(layers, branch, size):
    shape, inputs = [None, size, size, 3], {}
    for name, layer in layers.items():
        if layer["class_name"] == "InputLayer":
            inputs[name] = layer["config"].get("batch_input_shape")
    named = [name for name, found in inputs.items() if found == shape]
    if len(named) != 1 or len(inputs) != len(BRANCHES):
        shown = ", ".join(f"{name} of shape {found}" for name, found in inputs.items())
        raise Refused(f"found inputs {shown}; expected two, and one of shape {shape} for {branch}")
    return named[0]


def _match_trunk(layers, start, reference):
    """Return {name: name in the package} of one trunk, and the name of its last layer."""
    stem = next(layer["name"] for layer in reference["layers"][1:])
    firsts = [name for name, layer in layers.items() if layer["inputs"] == [start]]
    if len(firsts) != 1 or stem not in firsts[0]:
        raise Refused(f"found {firsts or 'no layer'} after input {start}, expected a {stem}")
    prefix, _, suffix = firsts[0].partition(stem)
    renamed = {reference["layers"][0]["name"]: start}
    for wanted in map(_normal, reference["layers"][1:]):
        name = renamed[wanted["name"]] = prefix + wanted["name"] + suffix
        if name not in layers:
            raise Refused(f"found no layer {name}, expected all of EfficientNet-B2 after {start}")
        _compare(layers[name], wanted, sorted(map(renamed.get, wanted["inputs"])))
    del renamed[reference["layers"][0]["name"]]
    return {name: own for own, name in renamed.items()}, name


def _compare(layer, wanted, inputs):
    if sorted(layer["inputs"]) != inputs:
        shown = " and ".join(layer["inputs"]) or "nothing"
        raise Refused(f"layer {layer['name']} follows {shown}, expected {' and '.join(inputs)}")
    if layer["class_name"] != wanted["class_name"] and wanted["class_name"] not in IDLE:
        kind = layer["class_name"]
        raise Refused(f"layer {layer['name']} is a {kind}, expected a {wanted['class_name']}")
    for key in DECISIVE:
        one, two = (part["config"].get(key) for part in (layer, wanted))
        if one != two and key in layer["config"] and key in wanted["config"]:
            raise Refused(f"layer {layer['name']} has {key} {one}, expected {two}")


def _match_head(layers, ends):
    """Return the name of the dense layer, and those of all between it and the trunks' ends."""
    between = set()

    def back(name, kinds):
        while layers[name]["class_name"] in kinds:
            between.add(name)
            name = layers[name]["inputs"][0]
        return name

    used = {source for layer in layers.values() for source in layer["inputs"]}
    lasts = sorted(layers.keys() - used)
    last = layers[lasts[0]]
    config = last["config"]
    if len(lasts) != 1 or last["class_name"] != "Dense" or config["units"] != 2:
        raise Refused(f"the network ends with {', '.join(lasts)}, expected a dense layer of two")
    if config["activation"] != "softmax" or not config["use_bias"]:
        raise Refused(f"layer {lasts[0]} has activation {config['activation']}, expected softmax")
    join = back(last["inputs"][0], IDLE)
    found = [join]
    if layers[join]["class_name"] == "Concatenate":
        between.add(join)
        found = [back(name, (*IDLE, "GlobalAveragePooling2D")) for name in layers[join]["inputs"]]
    kinds = [layers[name]["class_name"] for name in between]
    if found != ends or kinds.count("GlobalAveragePooling2D") != len(ends):
        raise Refused(
            f"the dense layer {lasts[0]} joins {' and '.join(found)}, expected the averages of "
            f"{' and '.join(ends)}, in this order"
        )
    return lasts[0], between


def convert(saved_model):
    """Return arrays by "branch/layer/weight", and "layer/weight" as in the SavedModel.

    Raises:
        Refused: As `name_layers`, and if TensorFlow cannot open it.
    """
    import efficientnet.tfkeras as efn
    import tensorflow as tf

    reference = efn.EfficientNetB2(include_top=False, weights=None, input_shape=(None, None, 3))
    try:
        model = tf.keras.models.load_model(saved_model, compile=False)
        network = model.get_config()
    except Exception as error:  # noqa: BLE001, whatever a strange file leads to in TensorFlow
        found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise Refused(f"no network that Keras 2 can read ({found})") from error
    if "layers" not in network:
        raise Refused(f"found a {type(model).__name__}, expected a network with a graph of layers")
    arrays, names = {}, {}
    for name, (branch, own) in name_layers(network, reference.get_config()).items():
        for weight in model.get_layer(name).weights:
            kind = weight.name.split("/")[-1].partition(":")[0].replace("depthwise_", "")
            arrays[f"{branch}/{own}/{kind}"] = weight.numpy()
            names[f"{branch}/{own}/{kind}"] = f"{name}/{kind}"
    return arrays, names


def main(saved_model, folder):
    """Convert one SavedModel; a refusal is the last line of stderr, and status 3."""
    import numpy as np

    try:
        arrays, names = convert(saved_model)
    except Refused as error:
        print(f"{saved_model}: {error}", file=sys.stderr)
        return 3
    np.savez(Path(folder, "arrays.npz"), **arrays)
    text = json.dumps(names, indent=1)
    Path(folder, "names.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
