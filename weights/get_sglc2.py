"""The published networks of Bom et al. (2022) as arrays of ours: download, convert, load.

Their SavedModels (Zenodo 10.5281/zenodo.6344064) are programs. Each is opened once, by
convert_sglc2.py in the papers' environment, and only its arrays come back; these are put into the
network of Figure 5 and written as safetensors. `make weights-sglc2` runs this.

The authors' images were clipped and brought to [0, 1] before (Sec. 2.2), by numbers that are not
published: a converted network has the clippings 0 and 1, for such images. For fluxes, set `lower`
and `upper` of the layers clip_vis and clip_nir to percentiles of the survey.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cast_lens import checkpoints, run, tarball, zenodo, zipped
from cast_lens.data import DataError, DataUnavailableError
from reproductions.sglc2 import network
from reproductions.sglc2.settings import HEADLINE, config_of

RECORD = 6344064
PACKED = {".zip": zipped.unpack, ".tar.gz": tarball.unpack, ".tgz": tarball.unpack}
ABOUT = {
    "network": "Bom et al. (2022), Figure 5, EfficientNet-B2, as published by the authors",
    "source": "Zenodo, 10.5281/zenodo.6344064",
    "images": "VIS three times, and H, J, Y, in [0, 1]",
}
CLIPPING = {"lower": 0.0, "upper": 1.0}


def main(arguments=None):
    """Convert every SavedModel; return how many were refused."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = options.add_argument
    add("--data", metavar="PATH", help="an archive or a folder with SavedModels, instead of Zenodo")
    add("--output", metavar="FOLDER", default="data/weights-sglc2", help="where all of it goes")
    add("--paper-python", metavar="PATH", default=".venv-paper/bin/python", help="of TensorFlow 2")
    chosen = options.parse_args(arguments)
    output = Path(chosen.output)
    refused = 0
    models = find_models(chosen.data, output)
    for name, saved_model in models.items():
        try:
            path = convert(saved_model, output / f"{name}.safetensors", chosen.paper_python)
            print(f"{saved_model} -> {path}")
        except ConversionError as error:
            refused += 1
            print(error, file=sys.stderr)
    if refused == len(models):
        raise ConversionError(f"none of {len(models)} SavedModels is the network of Figure 5")
    return refused


class ConversionError(ValueError):
    """A SavedModel that is not the network that was expected."""


def find_models(named, output):
    """Return {name: folder} of the SavedModels that were named, or of the record.

    Args:
        named: An archive, a folder with SavedModels at any depth, or a folder of archives; None
            for the record.
        output: Folder for the archives and what is in them.

    Raises:
        DataError: If there is no SavedModel.
    """
    archives = []
    if not named:
        patterns = [f"*{suffix}" for suffix in PACKED]
        archives = zenodo.fetch(RECORD, output / "archives", patterns=patterns)
    elif Path(named).is_dir():
        places = [Path(named)]
        if not any(_models_below(place) for place in places):
            archives = [path for path in sorted(Path(named).iterdir()) if _suffix(path)]
    else:
        archives = [Path(named)]
    if archives:
        places = [_unpack(path, output / "saved_models") for path in archives]
    found = [(place, path) for place in places for path in _models_below(place)]
    if not found:
        looked = ", ".join(map(str, places))
        raise DataError(f"found no saved_model.pb below {looked}; name a folder of SavedModels")
    names = [path.name or place.name for place, path in found]
    if len(set(names)) < len(names):
        names = ["-".join(path.relative_to(place.parent).parts) for place, path in found]
    return {name: path for name, (_, path) in zip(names, found)}


def _models_below(place):
    return [path.parent for path in sorted(place.rglob("saved_model.pb"))]


def _suffix(path):
    return next((suffix for suffix in PACKED if path.name.endswith(suffix)), "")


def _unpack(path, folder):
    suffix = _suffix(path)
    if not suffix:
        expected = f"a folder, or one of *{', *'.join(PACKED)}"
        raise DataError(f"{path}: found no archive that is known here, expected {expected}")
    target = folder / path.name.removesuffix(suffix)
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        PACKED[suffix](path, target)
    return target


def convert(saved_model, path, paper_python):
    """Convert one SavedModel in a process of its own, and write it as our network.

    Args:
        saved_model: Its folder.
        path: Of the safetensors file; PATH.json beside it says which layer each tensor is from.
        paper_python: Python of the papers' environment.

    Returns:
        `path`.

    Raises:
        ConversionError: If it is another network; says what was found.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).absolute().with_name("convert_sglc2.py")
        python, source = Path(paper_python).absolute(), Path(saved_model).absolute()
        # Nothing of the user's surroundings: what it opens is a program.
        surroundings = {"HOME": folder, "PATH": os.defpath, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [python, "-I", script, source, folder], cwd=folder, env=surroundings,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            told = done.stderr.strip().splitlines() or ["no message"]
            raise ConversionError(f"{told[-1]} (status {done.returncode})")
        with np.load(Path(folder, "arrays.npz"), allow_pickle=False) as arrays:
            theirs = {name: arrays[name] for name in arrays.files}
        layers = json.loads(Path(folder, "names.json").read_text(encoding="utf-8"))
    model, origin = build()
    keys = {name: origin[id(v)] for name, v in zip(checkpoints.names(model.weights), model.weights)}
    theirs |= {f"clip/{word}": np.float32(value) for word, value in CLIPPING.items()}
    odd = sorted(theirs.keys() ^ set(keys.values()))
    if odd:
        where = "in it" if odd[0] in theirs else "in our network"
        raise ConversionError(f"{saved_model}: found {odd[0]} {where} alone, expected it in both")
    found = {
        name: np.broadcast_to(theirs[key], v.shape) if key.startswith("clip/") else theirs[key]
        for (name, key), v in zip(keys.items(), model.weights)
    }
    checkpoints.assign(found, model.weights, where=saved_model, remedy="get the archive again")
    checkpoints.write_weights(model, path, {"about": json.dumps(ABOUT, sort_keys=True)})
    text = json.dumps({name: layers.get(key, "") for name, key in keys.items()}, indent=1)
    run.write_whole(Path(f"{path}.json"), text + "\n")
    return path


def build():
    """Return our network, and {id of a variable: "branch/layer/weight"} of all its weights."""
    model = network.build_model(config_of(HEADLINE, {"initial": "random"}), seed=0)
    origin: dict[int, str] = {}
    for layer in model.layers:
        kind, _, branch = layer.name.partition("_")
        if kind == "trunk":
            for part in layer.layers:
                origin |= {id(v): f"{branch}/{part.name}/{v.name}" for v in part.weights}
        else:
            place = "clip" if kind == "clip" else f"head/{layer.name}"
            origin |= {id(v): f"{place}/{v.name}" for v in layer.weights}
    return model, origin


if __name__ == "__main__":
    run.command(
        main,
        lambda: (DataError, DataUnavailableError, tarball.ArchiveError, ConversionError),
    )
