"""The list of released weights, and where their files are on this machine; see weights."""

import csv
import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_lens import data, download, run
from cast_lens.data import DataError, DataUnavailableError

FOLDER = Path(__file__).parents[1] / "weights"  # of the repository
MANIFEST = FOLDER / "manifest.csv"
ORIGINS = ("real", "stand-in")


@dataclass(frozen=True)
class WeightsFile:
    """One row of the manifest: one file of a release.

    Attributes:
        name: Of the release; its rows are all the files of one network.
        file: File name, ends with .safetensors.
        url: Public address; "" for a file of the repository.
        bytes: Size.
        sha256: 64 hexadecimal digits.
        survey: What the network was trained on.
        data: "real", or "stand-in" for simulated images of ours.
        network: What it is, in words.
        paper: Module of reproductions/ that has it, or "" if none has.
        experiment: Of that paper, "" likewise.
        scale: Of that experiment, "" likewise.
        metric: The one of metrics.csv that says most.
        commit: Of this repository, that it was trained with.
        source: Who trained it.
        licence: Of the weights.
        card: Path of the model card below weights/.
    """

    name: str
    file: str
    url: str
    bytes: int
    sha256: str
    survey: str
    data: str
    network: str
    paper: str
    experiment: str
    scale: str
    metric: str
    commit: str
    source: str
    licence: str
    card: str


COLUMNS = tuple(field.name for field in dataclasses.fields(WeightsFile))


def read_manifest(path=MANIFEST):
    """Read the list of released weights.

    Returns:
        {name: list of WeightsFile}, in the order of the file.

    Raises:
        DataError: If it is missing, or a row is not as it should be; names the line.
    """
    releases: dict[str, list[WeightsFile]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: {error}; expected the list of weights of the repository"
        ) from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise DataError(f"{path}: line 1 is {rows[:1]}, expected {','.join(COLUMNS)}")
    for k, row in enumerate(rows[1:], 2):
        entry: dict[str, Any] = dict(zip(COLUMNS, row))
        sound = len(row) == len(COLUMNS) and entry["data"] in ORIGINS and entry["bytes"].isdecimal()
        if not sound or not _is_plain(entry["file"]) or not _is_hash(entry["sha256"]):
            expected = f"{len(COLUMNS)} columns, a plain file name, a size, a hash, {ORIGINS}"
            raise DataError(f"{path}: line {k} is {row}, expected {expected}")
        entry["bytes"] = int(entry["bytes"])
        releases.setdefault(entry["name"], []).append(WeightsFile(**entry))
    return releases


def described(named, *, manifest=MANIFEST):
    """Return where the description of a network lies, which need not be there.

    Args:
        named: Name of a release; or a safetensors file, or a folder of the files of one network.
        manifest: Path of the list, beside which the descriptions of releases lie.
    """
    path, manifest = Path(named), Path(manifest)
    listed = read_manifest(manifest) if manifest.exists() else {}
    if path.exists() and str(named) not in listed:
        return path / "network.json" if path.is_dir() else path.with_suffix(".json")
    return manifest.parent / "networks" / f"{named}.json"


def locate(name, *, manifest=MANIFEST):
    """Return the verified files of a release, downloading them as the last resort.

    Tried in order: the folder of the manifest, CAST_LENS_DATA/weights, an earlier download, the
    URL. A download that was cut goes on where it was.

    Args:
        name: Of the release.
        manifest: Path of the list.

    Returns:
        List of Path.

    Raises:
        DataError: If there is no such release, or a file found is not the released one.
        DataUnavailableError: If a file is nowhere and the download failed.
        OSError: If the disk is full.
    """
    releases = read_manifest(manifest)
    if name not in releases:
        known = ", ".join(releases) or "none yet"
        raise DataError(f"no weights are called {name!r}, and no file; there are: {known}")
    return [_locate(file, Path(manifest).parent) for file in releases[name]]


def _locate(file, folder):
    named = Path(os.environ.get("CAST_LENS_DATA") or os.devnull).expanduser() / "weights"
    for place in (folder, named):
        if (place / file.file).is_file():
            return _verify(place / file.file, file)
    with run.hold(data.cache_folder() / "weights", patience=600) as store:
        path, part = store / file.file, store / f"{file.file}.part"
        if path.is_file() and data.sha256(path) == file.sha256:
            return path
        try:
            if not file.url:
                raise download.DownloadError("it has no public address")
            download.download(file.url, part, check=_wrong_head)
            _verify(part, file)
        except (download.DownloadError, DataError) as error:
            if isinstance(error, DataError):
                download.discard(part)
            raise DataUnavailableError(
                f"{file.file} is not on this machine and was not downloaded ({error}). Get it "
                f"{f'from {file.url} ' if file.url else ''}(SHA-256 {file.sha256}) and put it in "
                f"{folder}, or at weights/{file.file} in the folder that CAST_LENS_DATA names"
            ) from error
        os.replace(part, path)
        download.discard(part)
    return path


def _verify(path, file):
    size, digest = path.stat().st_size, data.sha256(path)
    if (size, digest) != (file.bytes, file.sha256):
        raise DataError(
            f"{path} is not the released {file.file}: found {size} bytes, SHA-256 {digest}, "
            f"expected {file.bytes} bytes, SHA-256 {file.sha256}; remove it, or get it again"
        )
    return path


def _wrong_head(head):
    """Return what is wrong with the first bytes of a download, or ""."""
    return "" if head[8:9] == b"{" else f"no safetensors file, it begins with {head[:20]!r}"


def _is_plain(name):
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", name) is not None


def _is_hash(digest):
    return re.fullmatch("[0-9a-f]{64}", digest) is not None
