"""A .tar.gz from outside becomes a folder, whole or not at all, and touches nothing else.

Only regular files and folders with plain relative names are unpacked, never a link or a device,
so that no member can lead out of the folder; tarfile's own "data" filter is asked besides, where
Python has it (3.10.12, 3.11.4 and later). Owners, permissions and times are not taken over.
"""

import errno
import gzip
import os
import re
import shutil
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cast_lens import run
from cast_lens.data import require_space

# Several times what the largest survey takes (400,000 files, 21 GB, packed to 19 GB), so that an
# archive made to fill the disk, the memory or the evening costs an error.
MAX_MEMBERS = 1_000_000
MAX_BYTES = 1 << 37
MAX_RATIO = 100  # bytes out of one packed byte, judged after MIN_JUDGED bytes
MIN_JUDGED = 1 << 24
MAX_NAME = 255  # bytes in one part of a path, as most file systems allow
MAX_PATH = 1000  # bytes in a whole path
MAX_HEADER = 1 << 14  # bytes of one member's headers; some Pythons take their square in time
MAX_PADDING = 1 << 20  # zero bytes after the end mark

_BLOCK = 1 << 16
SECTOR = 4096  # bytes in which file systems hand out space
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a FIFO",
}  # fmt: skip
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)


class ArchiveError(ValueError):
    """An archive that is damaged, or that holds what is not unpacked."""


@dataclass(frozen=True)
class Contents:
    """How many files an archive holds, and how many bytes of disk they take."""

    files: int
    bytes: int


class _Unpacked:
    """The bytes of a .gz, unpacked, as the file that tarfile reads: forward and within limits."""

    def __init__(self, packed, where):
        self.packed, self.where = packed, where
        self.stream = gzip.GzipFile(fileobj=packed, mode="rb")
        self.position, self.last = 0, b""
        self.allow(MAX_HEADER, "a header")

    def allow(self, size, what):
        """Set how many bytes may be read from here on, and what they are."""
        self.left, self.limit, self.what = size, size, what

    def tell(self):
        return self.position

    def seek(self, position):
        if position < self.position:  # where a header claims a negative size
            raise ArchiveError(f"{self.where}: a header points back to byte {position}")
        self.read(position - self.position)

    def read(self, size):
        if size > self.left:
            raise ArchiveError(f"{self.where}: {self.what} of more than {self.limit} bytes")
        self.last = self.stream.read(size)
        self.left -= len(self.last)
        self.position += len(self.last)
        if self.position > max(MIN_JUDGED, MAX_RATIO * self.packed.tell()):
            found = f"{self.position} bytes out of {self.packed.tell()} packed ones"
            raise ArchiveError(f"{self.where}: {found}, expected at most {MAX_RATIO} from one")
        return self.last


def unpack(path, folder, *, nested=""):
    """Unpack an archive into a new folder.

    The archive is read through once before anything is written.

    Args:
        path: A .tar.gz.
        folder: Folder to make; it must not exist, or be empty.
        nested: Pattern of the names of .tar.gz in the archive, which are unpacked where they lie.

    Raises:
        ArchiveError: If the archive is damaged, unsafe or beyond the limits of this module, or
            `folder` is there already. Nothing was written then.
        OSError: If the disk is full; says how many bytes are needed and free.
        RunError: If another process is unpacking into `folder`.
    """
    _refuse_present(folder)
    contents = read_through(path, nested=nested)
    with whole_folder(folder, needed=contents.bytes) as content:
        extract(path, content, nested=nested)


def read_through(path, *, nested=""):
    """Read a whole archive and write nothing: is it sound and safe, and how large is it?

    Args:
        path: A .tar.gz.
        nested: As in `unpack`.

    Returns:
        Contents, with those of nested archives.

    Raises:
        ArchiveError: As `unpack`.
    """
    files = size = 0
    for _, blocks in _members(path, nested, "checking"):
        if blocks is not None:
            length = sum(map(len, blocks))
            files, size = files + 1, size + length + -length % SECTOR
    if not files:
        raise ArchiveError(f"{path}: no file in it, expected the images of a survey; get it again")
    return Contents(files, size)


@contextmanager
def whole_folder(folder, *, needed):
    """Make a folder that has its name only once everything is in it.

    Args:
        folder: Folder to make; what an earlier, killed attempt left is removed.
        needed: Bytes of disk that it will take.

    Yields:
        Path of a hidden folder on the same file system, renamed to `folder` at the end.

    Raises:
        ArchiveError: If `folder` is there already and not empty.
        OSError: If the disk is full; says how many bytes are needed and free.
        RunError: If another process is making `folder`; names it.
    """
    folder = Path(folder)
    with run.hold(folder.parent / f".{folder.name}.unpacking") as hidden:
        _refuse_present(folder)
        run.discard(hidden)
        require_space(hidden, needed)
        content = hidden / "content"
        content.mkdir()
        try:
            yield content
            os.sync()  # once for all files: a power cut must not leave the name without the bytes
            os.replace(content, folder)
        except BaseException as error:
            run.discard(hidden)
            if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(hidden).free
            cause = f"{error.strerror}; {needed} bytes needed, {free} free"
            raise OSError(error.errno, cause, str(folder)) from error
        shutil.rmtree(hidden)  # while it is held: whoever opens its lock now finds `folder` there


def extract(path, folder, *, nested=""):
    """Write the files of an archive below a folder that nobody else writes to.

    Args:
        path: A .tar.gz.
        folder: Folder that is there, without what the archive holds.
        nested: As in `unpack`.

    Raises:
        ArchiveError: As `unpack`, but what came before the fault is written; see `whole_folder`.
        OSError: If a file cannot be written.
    """
    for name, blocks in _members(path, nested, "unpacking", folder):
        target = Path(folder, name)
        (target if blocks is None else target.parent).mkdir(parents=True, exist_ok=True)
        if blocks is not None:
            with open(target, "xb") as stream:  # x follows no link and replaces nothing
                stream.writelines(blocks)


def _refuse_present(folder):
    folder = Path(folder)
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if os.path.lexists(folder) and not is_empty:
        raise ArchiveError(f"{folder} is there already; remove it, or name another folder")


def _members(path, nested, doing, folder=None):
    """Yield the relative path of every member and the blocks of a file, or None for a folder.

    The blocks of a file have to be used up before the next member is asked for.
    """
    from tqdm import tqdm

    path, size = Path(path), 0
    is_file = {".": False}  # the folder itself is the first member
    if not path.is_file():  # opening a FIFO would wait for ever
        raise ArchiveError(f"{path}: no such file; expected a .tar.gz, name its path")
    with open(path, "rb") as file:
        title, total = f"{doing} {path.name}", path.stat().st_size
        with tqdm.wrapattr(file, "read", total=total, desc=title, leave=False) as packed:
            for name, length, blocks in _walk(packed, str(path), "", nested, folder):
                claim(path, is_file, name, blocks is not None)
                size += length
                if len(is_file) > MAX_MEMBERS or size > MAX_BYTES:
                    found = f"{len(is_file)} files and folders of {size} bytes so far"
                    limit = f"at most {MAX_MEMBERS} of {MAX_BYTES} bytes"
                    raise ArchiveError(f"{path}: {found}, expected {limit}")
                yield name, blocks


def claim(path, is_file, name, file):
    """Refuse a file that is there twice, or that is a folder too."""
    end = name.find("/")
    while end > 0:
        if is_file.setdefault(name[:end], False):
            raise ArchiveError(f"{path}: {name[:end]!r} is a file and a folder")
        end = name.find("/", end + 1)
    if name in is_file and (file or is_file[name]):
        raise ArchiveError(f"{path}: {name!r} is there twice")
    is_file[name] = file


def _walk(packed, where, base, nested, folder):
    """Yield (path, bytes, blocks) of every member of one .tar.gz and of those nested in it."""
    source: Any = _Unpacked(packed, where)
    with _reading(where), tarfile.open(fileobj=source, mode="r:", encoding="utf-8") as tar:
        while member := _next(tar, source):
            _refuse_unsafe(member, where, folder and os.path.join(folder, base))
            name = os.path.normpath(base + member.name)
            above, _, own = name.rpartition("/")
            if member.isdir():
                yield name, 0, None
                continue
            source.allow(member.size, "a file")
            if nested and fnmatchcase(own, nested):
                inside = tar.extractfile(member)
                yield from _walk(inside, f"{where}, {name}", above and above + "/", "", folder)
            else:
                yield name, member.size, _blocks(tar, member, where)
        _finish(source)


def _next(tar, source):
    source.allow(MAX_HEADER, "a header")
    member = tar.next()
    tar.members.clear()  # tarfile would keep every member in memory
    return member


def _blocks(tar, member, where):
    with _reading(where):
        stream = tar.extractfile(member)
        while block := stream.read(_BLOCK):
            yield block


def _finish(source):
    """Refuse an archive whose end mark is missing, or followed by anything but zeros.

    tarfile takes a damaged header for the end. Reading to the end checks the sum of the .gz too.
    """
    if source.last != bytes(tarfile.BLOCKSIZE):
        found = f"no header and no end mark at byte {source.position - len(source.last)}"
        raise ArchiveError(f"{source.where}: {found}; it is cut short or damaged, get it again")
    source.allow(MAX_PADDING, "padding")
    while block := source.read(min(_BLOCK, source.left + 1)):
        if block.strip(b"\0"):
            raise ArchiveError(f"{source.where}: data after the end mark; get it again")


@contextmanager
def _reading(where):
    """Turn whatever damaged bytes lead to in gzip and tarfile into an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise ArchiveError(f"{where}: no sound .tar.gz ({found}); get it again") from error


def _refuse_unsafe(member, where, folder):
    name = member.name
    wrong = _wrong_kind(member) or wrong_path(name)
    if not wrong and folder and hasattr(tarfile, "data_filter"):
        try:
            tarfile.data_filter(member, folder)
        except tarfile.FilterError as error:
            wrong = str(error)
    if wrong:
        shown = repr(name if len(name) <= 100 else name[:97] + "...")
        expected = "only files and folders inside the folder; do not trust this archive"
        raise ArchiveError(f"{where}: {shown} is {wrong}, expected {expected}")


def _wrong_kind(member):
    if member.type in _KINDS:
        return _KINDS[member.type]
    if member.type not in _PLAIN or member.issparse():
        return f"a special file of type {member.type!r}"
    if member.size < 0:
        return f"a file of {member.size} bytes"
    return ""


def wrong_path(name):
    """Return what is wrong with the path of a member, or ""."""
    parts = name.split("/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads upward"
    if not name or "\\" in name or not name.isprintable():
        return "a path that is empty, or with a backslash or an invisible character"
    if len(os.fsencode(name)) > MAX_PATH or max(len(os.fsencode(p)) for p in parts) > MAX_NAME:
        return f"a path of more than {MAX_PATH} bytes, or with a part of more than {MAX_NAME}"
    return ""
