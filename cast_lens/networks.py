"""Released networks, and those of users: a description in JSON, weights in safetensors, no more.

weights/networks/NAME.json describes a release: backbone, branches with their bands and pixels,
calibration; a release without one is a network that a reproduction alone can build. One's own
network is a file or a folder of safetensors with such a description beside it: X.json beside
X.safetensors, network.json in a folder.
"""

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras

from cast_lens import backbones, data, layers, stretch, weights, weights_files
from cast_lens.data import DataError
from cast_lens.fast import lens_logits
from cast_lens.run import RunError, write_whole

__all__ = [
    "Branch",
    "Calibration",
    "Network",
    "build_model",
    "lens_logits",
    "open_network",
    "read_description",
    "write_description",
]

RESIDUAL = "residual"  # `backbones.small`, of all branches together
BACKBONES = (*backbones.VARIANTS, RESIDUAL)
FILLINGS = ("all", "repeated", "zeros")  # Bom et al. (2022), Sec. 3.2
LEAST_SIDE = 32  # pixels; less leaves EfficientNet nothing


@dataclass(frozen=True)
class Branch:
    """One input of a network.

    Attributes:
        name: Of the input; its layers are clip_<name> and trunk_<name>.
        bands: In the order of the last axis.
        side: Height and width, pixels.
        pixel_scale: Arcsec a pixel.
        filling: "all": the bands as they are; "repeated": the one band three times; "zeros": the
            one band, and two that are 0.
    """

    name: str
    bands: tuple[str, ...]
    side: int
    pixel_scale: float
    filling: str


@dataclass(frozen=True)
class Calibration:
    """Platt's constants: the probability of a lens is 1 / (1 + exp(-(slope logit + intercept))).

    Attributes:
        slope: Of the logit, positive.
        intercept: Added to it.
        n: Objects they were fitted to, none of them of the training.
        n_lens: How many of these are lenses; the probability holds for that fraction.
        survey: Where those objects are from.
    """

    slope: float
    intercept: float
    n: int
    n_lens: int
    survey: str


@dataclass(frozen=True, eq=False)
class Network:
    """A network for inference.

    Attributes:
        name: Of the release, or as its description says.
        backbone: One of `BACKBONES`.
        branches: Tuple of Branch, in the order in which the head joins their features.
        flux_unit: Of a pixel of the images.
        survey: What it was trained on.
        calibration: Calibration, or None if it has none.
        sha256: Of the weights: 64 hexadecimal digits, from the hashes of its files.
        model: keras.Model from {branch: (batch, side, side, band)} to (batch, 2), the softmax of
            "no lens" and "lens".
    """

    name: str
    backbone: str
    branches: tuple[Branch, ...]
    flux_unit: str
    survey: str
    calibration: Calibration | None
    sha256: str
    model: keras.Model

    @property
    def trunks(self):
        """{branch that a trunk belongs to: name of its layer}."""
        branches = self.branches[:1] if self.backbone == RESIDUAL else self.branches
        return {b.name: f"trunk_{b.name}" for b in branches}


def open_network(named, *, manifest=weights.MANIFEST):
    """Open a released network, or one's own.

    Args:
        named: Name of a release; or a safetensors file, or a folder of the files of one network,
            with its description beside it.
        manifest: Path of the list of releases, beside which networks/NAME.json lies.

    Returns:
        Network.

    Raises:
        DataError: If there is no such network or description, or a file is not the released one.
        DataUnavailableError: If a file of the release is nowhere and was not downloaded.
        RunError: If a file may run code, a field of the description is missing or wrong, or the
            weights are not those of the network it describes: names the field or tensor.
    """
    path, manifest = Path(named), Path(manifest)
    listed = weights.read_manifest(manifest) if manifest.exists() else {}
    described = weights_files.described(named, manifest=manifest)
    if path.exists() and str(named) not in listed:
        weights.refuse_program(path)
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    else:
        files = weights.locate(str(named), manifest=manifest)
        if str(named) in listed and not described.exists():
            card = manifest.parent / listed[str(named)][0].card
            raise DataError(
                f"{described} is missing, for {named} is a network that a reproduction alone "
                f"builds; see {card}, or name another release"
            )
    fields = read_description(described)
    if str(named) in listed and fields["name"] != str(named):
        raise RunError(f"{described}: name is {fields['name']!r}, expected {str(named)!r}")
    # Sorted, so that a copy has the same hash whatever its files are called.
    digests = sorted(map(data.sha256, files))
    model = build_model(fields["backbone"], fields["branches"])
    weights.load_into(model, named, manifest=manifest)
    sha256 = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Network(**fields, sha256=sha256, model=model)


def build_model(backbone, branches):
    """Build a network for inference: stretch, a trunk a branch, softmax of two.

    Its weights have the order and names of the network of reproductions.sglc2; the fluxes that the
    stretch clips at are among them, NaN until they are loaded.

    Args:
        backbone: One of `BACKBONES`: EfficientNet, a trunk a branch; or `RESIDUAL`, one trunk for
            all, which sees them on the pixels of the first.
        branches: Branches, in the order in which their features, or bands, are joined.

    Returns:
        keras.Model from {branch: (batch, side, side, band)} to (batch, 2).

    Reference:
        Bom et al. (2022), Figure 5.
    """
    inputs = {b.name: keras.Input((b.side, b.side, len(b.bands)), name=b.name) for b in branches}
    images = {name: stretch.Clip(None, None, name=f"clip_{name}")(x) for name, x in inputs.items()}
    # Where training has the augmentation: without it Keras orders the layers otherwise.
    images = keras.layers.Identity(name="unaugmented")(images)
    images = {b.name: _filled(images[b.name], b.filling) for b in branches}
    if backbone == RESIDUAL:
        images = {branches[0].name: backbones.on_one_grid(images)}
    features = []
    for name, x in images.items():
        trunk = _trunk(backbone, f"trunk_{name}", (None, None, x.shape[-1]))
        features.append(keras.layers.GlobalAveragePooling2D()(trunk(x)))
    joined = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="lens")(joined))


def read_description(path):
    """Read the description of a network.

    Returns:
        {field: value} of name, backbone, branches (tuple of Branch), flux_unit, survey and
        calibration (Calibration, or None).

    Raises:
        DataError: If there is no such file.
        RunError: If it is not JSON, or a field is missing, unknown or wrong; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} is missing, which says what the network is; weights/README.md says what is "
            "in it, or name a release"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: found {error}, expected JSON; write it anew") from error
    return _checked(found, str(path))


def write_description(path, fields):
    """Write the description of a network whole.

    Args:
        path: NAME.json of a release, X.json beside X.safetensors, network.json in a folder.
        fields: As `read_description` returns them.

    Raises:
        RunError: As `read_description`; nothing is written then.
    """
    plain = dict(fields, branches=[dataclasses.asdict(branch) for branch in fields["branches"]])
    if fields["calibration"] is not None:
        plain["calibration"] = dataclasses.asdict(fields["calibration"])
    text = json.dumps(plain, indent=1)
    _checked(json.loads(text), str(path))
    write_whole(path, text + "\n")


def _trunk(backbone, name, shape):
    """Build a trunk with random weights."""
    if backbone == RESIDUAL:
        return backbones.small(name=name, shape=shape)
    return backbones.efficient_net(
        backbone, name=name, shape=shape, weights=None,
        batch_normalization=partial(layers.BatchNormalization, unbiased_moving_variance=True),
    )  # fmt: skip


def _filled(images, filling):
    """Return the bands of a trunk."""
    if filling == "all":
        return images
    others = [keras.ops.zeros_like(images) if filling == "zeros" else images] * 2
    return keras.layers.Concatenate()([images, *others])


def _is_text(value):
    return isinstance(value, str) and bool(value.strip())


def _is_name(value):
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", value) is not None


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _is_whole(value, least):
    return type(value) is int and value >= least


def _are_bands(value):
    is_list = isinstance(value, list) and all(map(_is_text, value))
    return is_list and 0 < len(value) == len(set(value))


# {field: (whether a value is right, what it should be)}
_FIELDS = {
    "name": (_is_name, "letters, digits, '.', '_' and '-'"),
    "backbone": (lambda x: x in BACKBONES, f"one of {', '.join(BACKBONES)}"),
    "branches": (lambda x: isinstance(x, list) and len(x) > 0, "a list of one branch or more"),
    "flux_unit": (_is_text, "the unit of a pixel, such as 'maggies'"),
    "survey": (_is_text, "what the network was trained on"),
    "calibration": (lambda x: x is None or isinstance(x, dict), "an object, or null for none"),
}
_BRANCH = {
    "name": (_is_name, "letters, digits, '.', '_' and '-'"),
    "bands": (_are_bands, "a list of names of bands, each once"),
    "side": (lambda x: _is_whole(x, LEAST_SIDE), f"a whole number of pixels >= {LEAST_SIDE}"),
    "pixel_scale": (lambda x: _is_number(x) and x > 0, "arcsec a pixel, a number > 0"),
    "filling": (lambda x: x in FILLINGS, f"one of {', '.join(FILLINGS)}"),
}
_CALIBRATION = {
    "slope": (lambda x: _is_number(x) and x > 0, "a number > 0, or the ranking would turn"),
    "intercept": (_is_number, "a number"),
    "n": (lambda x: _is_whole(x, 2), "a whole number >= 2"),
    "n_lens": (lambda x: _is_whole(x, 1), "a whole number >= 1"),
    "survey": (_is_text, "where the objects of the calibration are from"),
}


def _checked(found, where):
    """Return the fields of a description, or raise RunError."""
    fields = _require(found, where, _FIELDS)
    branches = []
    for k, item in enumerate(fields["branches"]):
        branch = _require(item, f"{where}: branches[{k}]", _BRANCH)
        if branch["filling"] != "all" and len(branch["bands"]) != 1:
            raise RunError(
                f"{where}: branches[{k}]: field bands is {branch['bands']}, expected one band "
                f"where filling is {branch['filling']!r}; mend bands or filling"
            )
        branches.append(Branch(**(branch | {"bands": tuple(branch["bands"])})))
    if len({branch.name for branch in branches}) < len(branches):
        raise RunError(f"{where}: field name of two branches is the same; expected it once")
    sides = [branch.side for branch in branches]
    if fields["backbone"] == RESIDUAL and any(sides[0] % side for side in sides):
        raise RunError(
            f"{where}: field side of the branches is {sides}, expected the first to be a whole "
            f"multiple of the others where backbone is {RESIDUAL!r}; mend the sides"
        )
    calibration = fields["calibration"]
    if calibration is not None:
        calibration = Calibration(**_require(calibration, f"{where}: calibration", _CALIBRATION))
    return fields | {"branches": tuple(branches), "calibration": calibration}


def _require(found, where, rules):
    """Return a JSON object if all of its fields are there and right; else raise RunError."""
    if not isinstance(found, dict):
        raise RunError(f"{where} is {found!r}, expected an object of the fields {', '.join(rules)}")
    if missing := [field for field in rules if field not in found]:
        raise RunError(
            f"{where}: field {missing[0]} is missing, expected {rules[missing[0]][1]}; add it"
        )
    if unknown := [field for field in found if field not in rules]:
        raise RunError(
            f"{where}: field {unknown[0]} is unknown, expected {', '.join(rules)}; remove it, or "
            "mend its name"
        )
    for field, (is_right, expected) in rules.items():
        if not is_right(found[field]):
            raise RunError(
                f"{where}: field {field} is {found[field]!r}, expected {expected}; mend it"
            )
    return found
