"""Files of a Zenodo record: listed by its API, verified by its MD5, pinned by our SHA-256.

What the API said when it was first asked, and size and SHA-256 of what came, are kept in
record.json beside the files and hold from then on; files that are there need no network.
"""

import json
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pooch

from cast_lens import data, download, run
from cast_lens.data import DataError, DataUnavailableError
from cast_lens.run import write_whole

API = "https://zenodo.org/api/records"
LOCK = "record.json"
_MAX_ANSWER = 1 << 24  # bytes; more is no list of files


def fetch(record, folder, *, patterns, api=API):
    """Return the files of a record, downloading those that are not in `folder`.

    Args:
        record: Number of the record.
        folder: Folder of the files; made if it does not exist.
        patterns: Patterns of file names, such as "*.zip"; others are left where they are.
        api: Address of the API.

    Returns:
        List of paths of the verified files, sorted by name. Until a file is complete and verified
        it is called NAME.part.

    Raises:
        DataError: If a file is not the one that the record lists, or not the one that came first.
        DataUnavailableError: If the API or a file could not be reached, or the record has no file
            of such a name.
        OSError: If the disk is full; says how many bytes are needed and free.
        RunError: If another process does the same in `folder`.
    """
    with run.hold(folder) as store:
        files = _pinned(store) or _listed(record, store, api)
        chosen = [n for n in sorted(files) if any(fnmatchcase(n, pattern) for pattern in patterns)]
        if not chosen:
            raise DataUnavailableError(
                f"record {record} has no file {' or '.join(patterns)}, only {', '.join(files)}; "
                "get what is wanted by hand and name it with DATA="
            )
        return [_fetch(name, files, store) for name in chosen]


def _listed(record, store, api):
    """Ask the API what files a record has; write and return {name: {url, bytes, md5, sha256}}."""
    url, part = f"{api}/{record}", store / "listing.part"
    download.discard(part)
    try:
        download.download(url, part, check=_wrong_answer)
        if part.stat().st_size > _MAX_ANSWER:
            raise ValueError(f"{part.stat().st_size} bytes")
        files = dict(map(_entry, json.loads(part.read_bytes())["files"]))
        if not files:
            raise ValueError("no files")
    except download.DownloadError as error:
        raise DataUnavailableError(
            f"{url} was not read ({error}). Run the same command again, or get the files of the "
            f"record elsewhere and name their folder with DATA="
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise DataUnavailableError(f"{url}: found {found}, expected a list of files") from error
    finally:
        download.discard(part)
    _pin(store, files)
    return files


def _entry(file):
    """Return what is kept of a file of the answer."""
    name, (kind, _, md5) = file["key"], file["checksum"].partition(":")
    if kind != "md5" or not re.fullmatch("[0-9a-f]{32}", md5):
        raise ValueError(f"checksum {file['checksum']!r} of {name!r}")
    is_plain = os.path.basename(name) == name and name.isprintable() and "\\" not in name
    if not is_plain or name.startswith(".") or name == LOCK or name.endswith(".part"):
        raise ValueError(f"file name {name!r}")
    url = file["links"]["self"]
    if not re.match("https?://", url):
        raise ValueError(f"address {url!r} of {name!r}")
    return name, {"url": url, "bytes": int(file["size"]), "md5": md5, "sha256": None}


def _fetch(name, files, store):
    entry, path, part = files[name], store / name, store / f"{name}.part"
    if not path.exists():
        try:
            download.download(entry["url"], part, check=_wrong_file)
        except download.DownloadError as error:
            kept = download.kept(entry["url"], part)
            raise DataUnavailableError(
                f"{name} is not on this machine and was not downloaded ({entry['url']}: {error}). "
                f"Run the same command again{f' to go on from byte {kept}' if kept else ''}, or "
                "get the file elsewhere and name it with DATA="
            ) from error
        try:
            _verify(name, part, files, store)
        except DataError:
            download.discard(part)
            raise
        os.replace(part, path)
    else:
        _verify(name, path, files, store)
    download.discard(part)
    return path


def _verify(name, path, files, store):
    """Hold a file against the record, and against what came first; pin it if it is that."""
    entry, size = files[name], path.stat().st_size
    md5, sha256 = pooch.file_hash(path, alg="md5"), data.sha256(path)
    if (size, md5) != (entry["bytes"], entry["md5"]) or entry["sha256"] not in (None, sha256):
        first = f", SHA-256 {entry['sha256']}" if entry["sha256"] else ""
        raise DataError(
            f"{path} is not the {name} of the record: found {size} bytes, MD5 {md5}, SHA-256 "
            f"{sha256}, expected {entry['bytes']} bytes, MD5 {entry['md5']}{first}. Remove it and "
            f"run again; if the record has changed and you want the new files, remove "
            f"{store / LOCK} too"
        )
    if not entry["sha256"]:
        entry["sha256"] = sha256
        _pin(store, files)


def _pin(store, files):
    write_whole(store / LOCK, json.dumps(files, indent=1, sort_keys=True) + "\n")


def _pinned(store):
    lock = Path(store, LOCK)
    if not lock.exists():
        return {}
    try:
        files = json.loads(lock.read_text(encoding="utf-8"))
        for entry in files.values():
            bytes.fromhex(entry["md5"]), bytes.fromhex(entry["sha256"] or "")
            int(entry["bytes"]), str(entry["url"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        expected = "what this program wrote; restore it, or remove it to ask the record again"
        found = f"{type(error).__name__}: {error}"
        raise DataError(f"{lock}: found {found}, expected {expected}") from error
    return files


def _wrong_answer(head):
    return "" if head.lstrip().startswith(b"{") else f"no JSON, it begins with {head[:20]!r}"


def _wrong_file(head):
    return "a web page instead of the file" if download.is_web_page(head) else ""
