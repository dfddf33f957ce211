"""Grad-CAM without a gradient, for networks that end in global average pooling and one dense layer.

For these the map of Grad-CAM is that of CAM divided by the number of cells: weights times features,
exact, under any Keras backend. Other networks are refused rather than approximated.
"""

import keras
import numpy as np

from cast_lens.explain import arrange


def class_activation(model, images, layers, *, label=1):
    """Split every object's log odds into what each cell of the last feature maps adds.

    The log odds of a lens are the dense layer's output y for a sigmoid, and y_1 - y_0 for a
    softmax of two. With global average pooling over Z cells they are
    bias + sum over branches, cells and features of w_k A_k / Z, and a map is sum_k w_k A_k / Z.
    The papers map the one output y_c: adding one vector to the weights of both classes would
    change that map and no score, so here it is the difference.

    Args:
        model: keras.Model: a feature map a branch, GlobalAveragePooling2D, Concatenate if there
            are several, Dense of one with sigmoid or two with softmax; Dropout anywhere between.
        images: {input: shape (batch, height, width, band)}.
        layers: {branch: name of the layer that makes its last feature map}.
        label: 1 for the evidence for a lens, 0 for that against, its negative.

    Returns:
        {branch: float64, shape (batch, rows, columns)} and the bias: all cells of all branches of
        an object and the bias add up to its log odds.

    Raises:
        ValueError: If the model ends otherwise, or in other feature maps than `layers`.

    Reference:
        Zhou et al. (2016), Eqs. 1 and 2.
    """
    if label not in (0, 1):
        raise ValueError(f"label is {label!r}, expected 1 for a lens or 0")
    dense, pooled = _head(model)
    names = [_maker(features).name for features in pooled]
    if sorted(names) != sorted(layers.values()) or len(set(names)) < len(names):
        raise ValueError(
            f"{model.name}: layers are {layers}, expected one branch for each of the layers whose "
            f"output is pooled, {names}, all different"
        )
    kernel, bias = _log_odds(dense)
    ends = np.cumsum([features.shape[-1] for features in pooled])
    weights = dict(zip(names, np.split(kernel, ends[:-1])))
    tensors = dict(zip(names, pooled))
    outputs = {branch: tensors[name] for branch, name in layers.items()}
    found = keras.Model(model.input, outputs).predict_on_batch(arrange(model, images))
    sign, maps = 2 * label - 1, {}
    for branch, name in layers.items():
        cells = np.asarray(found[branch], np.float64)  # (batch, rows, columns, features)
        maps[branch] = sign * cells @ weights[name] / np.prod(cells.shape[1:3])
    return maps, sign * bias


def grad_cam(model, images, layers, *, label=1):
    """Map the evidence for a class in each branch's last feature map.

    With global average pooling the derivative of the log odds by every cell of feature k is
    w_k / Z, so that its mean over the cells, the weight of Grad-CAM, is w_k / Z too, and its map
    is the positive part of `class_activation`.

    Args:
        model: As for `class_activation`.
        images: As for `class_activation`.
        layers: As for `class_activation`.
        label: 1 for the evidence for a lens, 0 for that against.

    Returns:
        {branch: float64, shape (batch, rows, columns), at least 0}, log odds a cell.
        superpixels.on_grid takes one object's to the sky; cells of two branches differ in area,
        so divide by it before adding them.

    Raises:
        ValueError: As for `class_activation`.

    Reference:
        Selvaraju et al. (2017), Eqs. 1 and 2, and Sec. 3.1 on CAM as the special case.
    """
    maps, _ = class_activation(model, images, layers, label=label)
    return {branch: np.maximum(values, 0) for branch, values in maps.items()}


def _head(model):
    """Return the last Dense and the maps that are pooled for it, in the order of its weights."""
    last = model.outputs[-1]
    dense, ending = _maker(last), getattr(_maker(last), "activation", None)
    if isinstance(dense, keras.layers.Activation):
        last = _inputs(last)[0]
        dense = _maker(last)
        if getattr(dense, "activation", None) is not keras.activations.linear:
            ending = None
    endings = {1: keras.activations.sigmoid, 2: keras.activations.softmax}
    known = isinstance(dense, keras.layers.Dense) and ending is endings.get(dense.units)
    if len(model.outputs) != 1 or not known:
        raise ValueError(
            f"{model.name}: the last layer is {dense.name}, {type(dense).__name__}, expected one "
            "Dense of one with sigmoid, or of two with softmax; explain this network by lime"
        )
    return dense, _pooled(_inputs(last)[0])


def _pooled(tensor):
    """Return the feature maps that are pooled to a vector, in order."""
    layer = _maker(tensor)
    pools = isinstance(layer, keras.layers.GlobalAveragePooling2D) and not layer.keepdims
    if pools and layer.data_format == "channels_last":
        return _inputs(tensor)
    if isinstance(layer, (keras.layers.Dropout, keras.layers.Concatenate)):
        return [features for each in _inputs(tensor) for features in _pooled(each)]
    raise ValueError(
        f"{layer.name}, {type(layer).__name__}, is between the feature maps and the last Dense, "
        "where only global average pooling of (batch, height, width, feature), Concatenate and "
        "Dropout leave the map exact; explain this network by lime or occlusion"
    )


def _log_odds(dense):
    """Return the weights, shape (features,), and the bias of the log odds of a lens, float64."""
    # One row a feature, and one for the bias if there is one.
    rows = np.vstack(dense.get_weights()).astype(np.float64)
    odds = rows[:, 0] if dense.units == 1 else rows[:, 1] - rows[:, 0]
    return (odds[:-1], float(odds[-1])) if dense.use_bias else (odds, 0.0)


def _maker(tensor):
    """Return the layer that makes a tensor; Keras has no public way from the one to the other."""
    return tensor._keras_history.operation


def _inputs(tensor):
    """Return what its layer makes a tensor of, here and not where else the layer is used."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)
