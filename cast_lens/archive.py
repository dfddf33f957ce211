"""The public archives of the surveys: downloaded, pinned by their hashes, unpacked, checked.

Nobody publishes hashes of these archives, and their server speaks plain HTTP. So size and SHA-256
of what came first are kept in archives.json beside the download, and hold from then on.
"""

import filecmp
import json
import os
import shutil
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from cast_lens import download, run, tarball
from cast_lens.data import DataError, DataUnavailableError, sha256
from cast_lens.run import write_whole
from cast_lens.tarball import unpack

__all__ = ["LOCK", "SURVEYS", "Archive", "Survey", "fetch", "get", "plan", "unpack"]

LOCK = "archives.json"  # size and SHA-256 of every archive, as it first came
RECORD = "survey.json"  # the same in the unpacked folder, for whoever takes that elsewhere


@dataclass(frozen=True)
class Archive:
    """One published file.

    Attributes:
        name: File name; one that ends with .tar.gz is unpacked, another is text and copied.
        urls: Public addresses, tried in this order.
        nested: Pattern of the names of .tar.gz inside it, which are unpacked where they lie.
    """

    name: str
    urls: tuple[str, ...]
    nested: str = ""


@dataclass(frozen=True)
class Survey:
    """What makes up one survey.

    Attributes:
        archives: Its files as published.
        members: Patterns of file names, each with the number of such files when unpacked. There
            may be more: the I SGLC repeats names below NoSourceImage and NoLensImage.
        source: Who published it, for the credits.
    """

    archives: tuple[Archive, ...]
    members: tuple[tuple[str, int], ...]
    source: str


_HOST = "http://metcalf1.difa.unibo.it"

# The addresses stand in the notebook BLF_GroundBased of CMUDeepLens (ground), the README of
# Umauro/lensgen_pytorch (space) and get_dataset.sh of dforero0896/gravitational_lens_ml (II SGLC).
SURVEYS = {
    "sglc1-space": Survey(
        archives=(
            Archive(
                "SpaceBasedTraining.tar.gz",
                (f"{_HOST}/blf-portal_bk/data/SpaceBasedTraining.tar.gz",),
                nested="Data.*.tar.gz",
            ),
        ),
        members=(("classifications.csv", 1), ("imageEUC_VIS-*.fits", 20_000)),
        source="Metcalf et al. (2019), A&A 625, A119",
    ),
    "sglc1-ground": Survey(
        archives=(
            Archive(
                "GroundBasedTraining.tar.gz",
                (f"{_HOST}/blf-portal/data/GroundBasedTraining.tar.gz",),
                nested="Data.*.tar.gz",
            ),
        ),
        members=(
            ("classifications.csv", 1),
            *((f"imageSDSS_{band}-*.fits", 20_000) for band in "RIGU"),
        ),
        source="Metcalf et al. (2019), A&A 625, A119",
    ),
    "sglc2": Survey(
        archives=(
            Archive("datapack2.0train.tar.gz", (f"{_HOST}/DATA3/datapack2.0train.tar.gz",)),
            Archive("image_catalog2.0train.csv", (f"{_HOST}/DATA3/image_catalog2.0train.csv",)),
        ),
        members=(
            ("image_catalog2.0train.csv", 1),
            # 100,000 objects, of which nine have no image in any band
            *((f"imageEUC_{band}-*.fits", 99_991) for band in ("VIS", "Y", "J", "H")),
        ),
        source="Bologna Lens Factory, Gravitational Lens Finding Challenge 2.0 (2019)",
    ),
}


def get(name, folder, *, data=None):
    """Return the folder of an unpacked survey, making it from the archives if it is not there.

    Tried in order: `data`, CAST_LENS_DATA/`name`, `folder`/`name`, the archives in
    `folder`/`name`-archives, their URLs. It can be stopped and called again at any moment.

    Args:
        name: Key of `SURVEYS`.
        folder: Where surveys are kept; made if it does not exist.
        data: What the user named: the unpacked survey, the .tar.gz, or a folder that holds either,
            itself or in a folder `name`; None or "" if nothing. It is only read.

    Returns:
        Path of the unpacked survey.

    Raises:
        DataError: If the name is unknown, `data` holds neither, an archive is not the one that
            came first, or a survey lacks all files of a kind.
        DataUnavailableError: If an archive could not be downloaded; names `DATA=`.
        ArchiveError: If an archive is damaged or unsafe; nothing of it was written.
        OSError: If the disk is full; says how many bytes are needed and free.
        RunError: If another process does the same in `folder`; names it.

    Warns:
        UserWarning: If a survey has fewer files of a kind than it was published with.
    """
    survey, target, found = _found(name, folder, data)
    if isinstance(found, Path):
        return _checked(survey, found)
    with run.hold(target.with_name(f"{name}-archives")) as store:
        if found:
            entries = {archive: _verify(archive, path, store) for archive, path in found.items()}
        else:
            found = {archive: _fetch(archive, store) for archive in survey.archives}
            entries = {archive: _pinned(store)[archive.name] for archive in survey.archives}
        if _is_filled(target):
            return _checked(survey, target)
        _unpack(survey, found, entries, target)
    return target


def plan(name, folder, *, data=None):
    """Say what `get` would do, in one line; nothing is written or asked for.

    Args:
        name: As for `get`.
        folder: As for `get`.
        data: As for `get`.

    Raises:
        DataError: As `get`, for what is named.
    """
    survey, target, found = _found(name, folder, data)
    if isinstance(found, Path):
        return f"{found} is there{', and would only be read' if data or found != target else ''}"
    if found:
        return f"would unpack {', '.join(map(str, found.values()))} into {target}"
    store = target.with_name(f"{name}-archives")
    here = [a.name for a in survey.archives if (store / a.name).exists()]
    absent = [a.urls[0] for a in survey.archives if a.name not in here]
    told = f"would download {' and '.join(absent)}" if absent else f"{', '.join(here)} is there"
    return f"{told}; would unpack it into {target}"


def fetch(archive, folder):
    """Return an archive's path, downloading it into `folder` if it is not there.

    Args:
        archive: The Archive wanted.
        folder: Folder of archives, with their hashes in archives.json; made if it does not exist.

    Returns:
        Path of the verified file. Until it is complete and verified it is called NAME.part.

    Raises:
        DataError, DataUnavailableError, ArchiveError, OSError, RunError: As `get`.
    """
    with run.hold(folder) as store:
        return _fetch(archive, store)


def _fetch(archive, store):
    path, part = store / archive.name, store / f"{archive.name}.part"
    if path.exists():
        _verify(archive, path, store)
    else:
        _download(archive, part)
        try:
            _verify(archive, part, store)
        except tarball.ArchiveError:
            download.discard(part)
            raise
        os.replace(part, path)
    download.discard(part)
    return path


def _download(archive, part):
    causes = []
    for url in sorted(archive.urls, key=lambda url: not download.kept(url, part)):
        try:
            download.download(url, part, check=partial(_wrong_head, archive.name))
            return
        except download.DownloadError as error:
            causes.append(f"{url}: {error}")
        if download.kept(url, part):
            break  # another address would begin at 0
    kept = max(download.kept(url, part) for url in archive.urls)
    raise DataUnavailableError(
        f"{archive.name} is not on this machine and was not downloaded ({'; '.join(causes)}). Run "
        f"the same command again{f' to go on from byte {kept}' if kept else ''}, or get the file "
        f"elsewhere and name it, or the folder that holds it, with DATA="
    )


def _wrong_head(name, head):
    """Return what is wrong with the first bytes of a file, or ""."""
    if download.is_web_page(head):
        return "a web page instead of the file"
    if name.endswith(".gz") and not head.startswith(b"\x1f\x8b\x08"):
        return f"no gzip data, it begins with {head[:20]!r}"
    if not name.endswith(".gz") and (not head or b"\0" in head):
        return f"no text, it begins with {head[:20]!r}"
    return ""


def _verify(archive, path, store):
    """Hold a file against what came first, or pin it as that; return its entry."""
    from tqdm import tqdm

    size, entries, title = path.stat().st_size, _pinned(store), f"hashing {path.name}"
    with tqdm(desc=title, total=size, unit="B", unit_scale=True, leave=False) as bar:
        digest = sha256(path, told=lambda block: bar.update(len(block)))
    pinned = entries.get(archive.name)
    if not pinned:
        pinned = {"bytes": size, "sha256": digest, "unpacked_bytes": _read_through(archive, path)}
        text = json.dumps(entries | {archive.name: pinned}, indent=1, sort_keys=True)
        write_whole(store / LOCK, text + "\n")
    if (size, digest) != (pinned["bytes"], pinned["sha256"]):
        raise DataError(
            f"{path} is not the {archive.name} that came first: found {size} bytes, SHA-256 "
            f"{digest}, expected {pinned['bytes']} bytes, SHA-256 {pinned['sha256']}. Remove it "
            f"and run again to get it anew; if the published file has changed and you want the "
            f"new one, remove the entry {archive.name} from {store / LOCK} instead"
        )
    return pinned


def _read_through(archive, path):
    """Return how many bytes of disk an archive takes when unpacked."""
    if _is_packed(archive):
        return tarball.read_through(path, nested=archive.nested).bytes
    with open(path, "rb") as stream:
        if wrong := _wrong_head(archive.name, stream.read(1024)):
            raise tarball.ArchiveError(f"{path}: {wrong}; get it again")
    return path.stat().st_size


def _pinned(store):
    """Return the entries of the lock file, as {archive name: {bytes, sha256, unpacked_bytes}}."""
    lock = store / LOCK
    if not lock.exists():
        return {}
    try:
        entries = json.loads(lock.read_text(encoding="utf-8"))
        for entry in entries.values():
            int(entry["bytes"]), int(entry["unpacked_bytes"]), bytes.fromhex(entry["sha256"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        expected = "what this program wrote; restore it, or remove it to accept what is there now"
        raise DataError(
            f"{lock}: found {type(error).__name__}: {error}, expected {expected}"
        ) from error
    return entries


def _unpack(survey, files, entries, target):
    """Make the folder of a survey from its verified archives."""
    needed = sum(entry["unpacked_bytes"] for entry in entries.values())
    with tarball.whole_folder(target, needed=needed) as content:
        for archive, path in files.items():
            if _is_packed(archive):
                tarball.extract(path, content, nested=archive.nested)
            else:
                _copy(path, content / archive.name)
        _checked(survey, content, " and ".join(map(str, files.values())))
        pinned = {archive.name: entry for archive, entry in entries.items()}
        record = {"survey": target.name, "source": survey.source, "archives": pinned}
        with open(content / RECORD, "x", encoding="utf-8") as stream:
            stream.write(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _copy(path, target):
    if target.exists() and not filecmp.cmp(path, target, shallow=False):
        raise DataError(f"{path} differs from the file of that name in the archive; remove one")
    shutil.copyfile(path, target)


def _found(name, folder, data):
    """Return the Survey, where it belongs, and what is there: its Path, {Archive: Path}, None."""
    if name not in SURVEYS:
        raise DataError(f"no survey is called {name!r}; there are: {', '.join(SURVEYS)}")
    survey, target = SURVEYS[name], Path(folder).expanduser() / name
    found = _named(name, survey, data)
    return survey, target, target if found is None and _is_filled(target) else found


def _is_filled(folder):
    return folder.is_dir() and any(folder.iterdir())


def _named(name, survey, data):
    """Return what the user named: the unpacked survey's Path, {Archive: Path}, or None."""
    told = f"DATA={data}"
    if not data:
        told = f"CAST_LENS_DATA={os.environ.get('CAST_LENS_DATA')}"
        data = os.path.join(os.environ.get("CAST_LENS_DATA") or os.devnull, name)
        if not os.path.isdir(os.path.expanduser(data)):
            return None
    named = Path(os.path.expanduser(data))
    folder = named.parent if named.is_file() else named / name if (named / name).is_dir() else named
    files = {archive: folder / archive.name for archive in survey.archives}
    if named.is_file() and named not in files.values():  # renamed by whoever downloaded it
        files[next(filter(_is_packed, survey.archives))] = named
    elif not named.is_file() and all(_counts(survey, folder).values()):
        return folder
    absent = [str(path) for path in files.values() if not path.is_file()]
    if absent:
        lacking = [pattern for pattern, found in _counts(survey, folder).items() if not found]
        raise DataError(
            f"{told} holds neither {name} unpacked (missing: {', '.join(lacking)}) nor its "
            f"archives (missing: {', '.join(absent)}); name a folder that holds either"
        )
    return files


def _checked(survey, folder, shown=None):
    """Return the folder of an unpacked survey if it has files of every kind."""
    for pattern, found in _counts(survey, folder).items():
        expected = dict(survey.members)[pattern]
        if not found:
            raise DataError(
                f"{shown or folder}: found no {pattern}, expected {expected} in the whole survey; "
                "name the folder or the archive of the survey with DATA="
            )
        if found < expected:
            text = f"{shown or folder}: found {found} files {pattern}, expected {expected}"
            warnings.warn(f"{text}; what is missing will count as missing", stacklevel=3)
    return folder


def _counts(survey, folder):
    """Return the number of files below `folder` for every pattern of the survey."""
    counts = dict.fromkeys((pattern for pattern, _ in survey.members), 0)
    for _, _, names in os.walk(folder):
        for pattern in counts:
            counts[pattern] += sum(fnmatchcase(name, pattern) for name in names)
    return counts


def _is_packed(archive):
    return archive.name.endswith(".tar.gz")
