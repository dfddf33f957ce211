"""Released weights of networks: found, verified, and given to a model; arrays and nothing else.

weights/manifest.csv lists every file with its hash. A model file from others is a program, so only
safetensors are read; how the published networks become such files stands in weights/README.md.
"""

import os
from pathlib import Path

import numpy as np

from cast_lens import checkpoints
from cast_lens.data import DataError
from cast_lens.run import RunError
from cast_lens.weights_files import MANIFEST, WeightsFile, locate, read_manifest
from cast_lens.weights_release import release

__all__ = [
    "MANIFEST",
    "WeightsFile",
    "load_into",
    "locate",
    "read_manifest",
    "refuse_program",
    "release",
]

_HEAD = 9  # bytes: the length of the header, and the brace it begins with
_PROGRAMS = {
    b"PK\x03\x04": "a zip archive, as .keras files are",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as .h5 files are",
    b"\x80": "a pickle",
}
_REMEDY = "get the file again, or name that of this network"


def load_into(model, named, *, manifest=MANIFEST):
    """Give a model released weights, or those of a file: all tensors, or none of them.

    Args:
        model: keras.Model, built, of the same layers.
        named: Name of a release, or a safetensors file, or a folder of the files of one network.
        manifest: Path of the list of releases.

    Returns:
        {word: text} of what the files say of themselves.

    Raises:
        DataError: If the name or a file is unknown, or its hash is not that of the release.
        DataUnavailableError: As `locate`.
        RunError: If a file is no safetensors file (nothing of it is executed), or a tensor is
            missing, unknown, there twice, of another shape or type, or holds what is no number;
            names it.
    """
    listed = read_manifest(manifest) if os.path.exists(manifest) else {}
    is_path = os.path.exists(named) and str(named) not in listed
    paths = _files(Path(named)) if is_path else locate(str(named), manifest=manifest)
    found: dict[str, np.ndarray] = {}
    about: dict[str, str] = {}
    for path in paths:
        refuse_program(path)
        tensors, words = checkpoints.read_arrays(path, remedy=_REMEDY)
        if twice := sorted(found.keys() & tensors.keys()):
            raise RunError(f"{path}: tensor {twice[0]} is in another file too; {_REMEDY}")
        found |= tensors
        about |= words
    where = ", ".join(map(str, paths))
    checkpoints.assign(found, model.weights, where=where, half=True, remedy=_REMEDY)
    return about


def refuse_program(path):
    """Refuse what can run code when it is loaded, by its content and not its name.

    Raises:
        RunError: If `path` is a SavedModel, a pickle, a .keras or an HDF5 file; nothing is loaded.
    """
    found = "a SavedModel" if Path(path, "saved_model.pb").exists() else ""
    if Path(path).is_file():
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
        kinds = [kind for magic, kind in _PROGRAMS.items() if head.startswith(magic)]
        found = kinds[0] if kinds and head[8:] != b"{" else ""
    if found:
        raise RunError(
            f"{path}: found {found}, which may run code when loaded, expected safetensors; "
            "weights/README.md says how published networks are converted"
        )


def _files(path):
    """Return the files that a path stands for."""
    refuse_program(path)
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise DataError(f"{path} holds no .safetensors file; name the folder of one network")
    return files
