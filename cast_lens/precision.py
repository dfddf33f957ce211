"""Networks that compute in bfloat16 where that is safe: half the memory traffic on a GPU.

bfloat16 has the range of float32 and eight bits of its digits. Variables, the moments of a batch,
stretch, augmentation, pooled features, head, loss and scores stay in float32; what lies between,
the maps of features of the trunks, is nearly all that a GPU moves. On a CPU it is no faster.
"""

import keras

POLICY = "mixed_bfloat16"  # Keras's name: variables in float32, layers in bfloat16
# Stay in float32: under JAX 0.11.2 on an H200 the first steps of the network of Bom et al. (2022)
# in bfloat16 left no number in this kernel of one of its trunks, and in float32 it learned. Why is
# not known; the other kernels kept theirs.
EXACT = ("block1a_project_conv",)


def trunks(model):
    """Return the networks that a network is made of, a list of keras.Model, without their own."""
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def use_bfloat16(model):
    """Let the trunks of a network compute in bfloat16, and all else of it in float32.

    Call it before the network is compiled, trained or asked for scores: what Keras has traced
    already stays as it was. The variables are not touched, so files of weights serve both.

    Args:
        model: keras.Model that is made of others, its trunks, and of float32 layers around them.

    Returns:
        The same model.

    Raises:
        ValueError: If it has no trunks, was compiled already, or its output would not be float32.
    """
    found = trunks(model)
    if not found or model.compiled:
        raise ValueError(
            f"{model.name}: found {len(found)} trunks in a model that is "
            f"{'compiled' if model.compiled else 'not compiled'}, expected a network made of "
            "others (keras.Model) that is not compiled yet; build it anew, or stay with float32"
        )
    last = {layer.name for layer in found} & set(model.output_names)
    if last:
        raise ValueError(
            f"{model.name}: found the scores coming from the trunk {min(last)}, expected a layer "
            "after it, in float32"
        )
    for trunk in found:
        for layer in _inexact(trunk):
            layer.dtype_policy = keras.DTypePolicy(POLICY)
    return model


def is_bfloat16(model):
    """Whether `use_bfloat16` was called on a network."""
    leaves = [layer for trunk in trunks(model) for layer in _inexact(trunk)]
    return bool(leaves) and all(layer.dtype_policy.name == POLICY for layer in leaves)


def _inexact(trunk):
    """Return the layers below a trunk that are no models, compute something, and may round."""
    return [
        layer
        for layer in trunk._flatten_layers(include_self=False)
        if not isinstance(layer, (keras.Model, keras.layers.InputLayer)) and layer.name not in EXACT
    ]
