"""A .zip from outside becomes a folder, whole or not at all, under the rules of tarball.

Only regular files and folders with plain relative names are unpacked; sizes are judged before the
first byte is, and zipfile gives no more of a member than its size, and checks its sum.
"""

import errno
import os
import shutil
import stat
import zipfile
from contextlib import contextmanager
from pathlib import Path

from cast_lens import tarball
from cast_lens.tarball import SECTOR, ArchiveError, claim, wrong_path

_BLOCK = 1 << 16
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "", stat.S_IFREG: "", 0: ""}
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # bit of the flags of a member


def unpack(path, folder):
    """Unpack a .zip into a new folder.

    Args:
        path: The archive.
        folder: Folder to make; it must not exist, or be empty.

    Raises:
        ArchiveError: If the archive is damaged, unsafe or beyond the limits of tarball, or `folder`
            is there already. Nothing was written then.
        OSError: If the disk is full; says how many bytes are needed and free.
        RunError: If another process is unpacking into `folder`.
    """
    if not Path(path).is_file():  # opening a FIFO would wait for ever
        raise ArchiveError(f"{path}: no such file; expected a .zip, name its path")
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = _checked(archive, path)
        needed = sum(member.file_size + SECTOR for member in members)
        with tarball.whole_folder(folder, needed=needed) as content:
            for member in members:
                _extract(archive, member, content)


@contextmanager
def _reading(path):
    """Turn whatever damaged bytes lead to in zipfile into an ArchiveError."""
    try:
        yield
    except Exception as error:
        of_the_disk = isinstance(error, OSError) and error.errno != errno.EINVAL
        if of_the_disk or type(error).__module__.startswith("cast_lens"):
            raise
        found = f"{type(error).__name__}: {error}"
        raise ArchiveError(f"{path}: no sound .zip ({found}); get it again") from error


def _checked(archive, path):
    """Return the members of an archive if all of them may be unpacked."""
    members, is_file, size = archive.infolist(), {".": False}, 0
    for member in members:
        if wrong := _wrong(member):
            shown = repr(member.filename[:100])
            expected = "only files and folders inside the folder; do not trust this archive"
            raise ArchiveError(f"{path}: {shown} is {wrong}, expected {expected}")
        name = os.path.normpath(member.filename)
        claim(path, is_file, name, not member.is_dir())
        size += member.file_size
    packed = os.path.getsize(path)
    if len(members) > tarball.MAX_MEMBERS or size > tarball.MAX_BYTES:
        limit = f"at most {tarball.MAX_MEMBERS} of {tarball.MAX_BYTES} bytes"
        raise ArchiveError(f"{path}: {len(members)} members of {size} bytes, expected {limit}")
    if size > max(tarball.MIN_JUDGED, tarball.MAX_RATIO * packed):
        limit = f"at most {tarball.MAX_RATIO} from one"
        raise ArchiveError(f"{path}: {size} bytes out of {packed} packed ones, expected {limit}")
    if not any(is_file.values()):
        raise ArchiveError(f"{path}: no file in it; get it again")
    return members


def _wrong(member):
    """Return what is wrong with a member, or ""."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if _KINDS.get(kind, "a special file"):
        return _KINDS.get(kind, "a special file")
    if member.flag_bits & _ENCRYPTED:
        return "encrypted"
    if member.compress_type not in _PACKED:
        return f"packed by method {member.compress_type}"
    if "\0" in member.orig_filename:
        return "a path with an invisible character"
    return wrong_path(member.filename)


def _extract(archive, member, folder):
    target = Path(folder, os.path.normpath(member.filename))
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, open(target, "xb") as stream:  # x replaces nothing
        shutil.copyfileobj(source, stream, _BLOCK)
