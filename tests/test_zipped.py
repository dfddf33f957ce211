"""A .zip becomes a folder, whole or not at all; what leads out of it is refused."""

import random
import stat
import struct
import zipfile

import pytest

from cast_lens import tarball, zipped
from cast_lens.tarball import ArchiveError


def write(path, members, *, method=zipfile.ZIP_DEFLATED, modes=None):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (modes or {}).get(name, 0o644) << 16
            archive.writestr(info, content)
    return path


GOOD = [("fold5/", b""), ("fold5/saved_model.pb", b"graph" * 99), ("fold5/variables/v", b"\0" * 9)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_and_folders_come_out_as_they_went_in(tmp_path, method):
    zipped.unpack(write(tmp_path / "a.zip", GOOD, method=method), tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*")}
    assert set(found) == {"fold5", "fold5/saved_model.pb", "fold5/variables", "fold5/variables/v"}
    assert found["fold5/saved_model.pb"].read_bytes() == b"graph" * 99
    with pytest.raises(ArchiveError, match="is there already"):
        zipped.unpack(tmp_path / "a.zip", tmp_path / "out")


def refused(tmp_path, path, match):
    outside = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ArchiveError, match=match) as caught:
        zipped.unpack(path, tmp_path / "in" / "out")
    assert str(path) in str(caught.value)
    left = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    assert left == outside and not (tmp_path / "in/out").exists()


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/etc/out", "C:/out", "C:out", "a\\..\\out", "a\nb", "..", "x" * 300],
)
def test_a_path_that_leads_out_or_cannot_be_printed_is_refused(tmp_path, name):
    refused(tmp_path, write(tmp_path / "a.zip", [*GOOD, (name, b"x")]), "expected only files")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = write(tmp_path / "a.zip", [("a", b"/etc")], modes={"a": kind | 0o777})
    refused(tmp_path, path, "symbolic link|special file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/b", "a//b"]])
def test_a_file_that_is_there_twice_or_a_folder_too_is_refused(tmp_path, names):
    path = write(tmp_path / "a.zip", [(name, b"x") for name in names])
    refused(tmp_path, path, "twice|a file and a folder")


def test_a_bomb_is_refused_before_a_byte_is_written(tmp_path):
    path = write(tmp_path / "a.zip", [("a", bytes(1 << 25))])
    refused(tmp_path, path, "bytes out of .* packed")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tarball, "MAX_MEMBERS", 10)
    path = write(tmp_path / "a.zip", [(f"{k}", b"x") for k in range(11)])
    refused(tmp_path, path, "11 members")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(tmp_path, method):
    refused(tmp_path, write(tmp_path / "a.zip", GOOD, method=method), "packed by method")


def test_an_encrypted_member_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", [("a", b"x")])
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    refused(tmp_path, path, "is encrypted")


def test_a_member_gives_no_more_bytes_than_its_size(tmp_path):
    path = write(tmp_path / "a.zip", [("a", b"x" * 5000)])
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 10)
    path.write_bytes(content)
    refused(tmp_path, path, "no sound .zip")


@pytest.mark.parametrize("content", [b"", b"<html>" * 99, b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_or_an_empty_one_is_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path, tmp_path / "a.zip", "get it again")
    refused(tmp_path, tmp_path / "b.zip", "no such file")


def test_damage_anywhere_ends_in_an_archive_error_or_the_whole_content(tmp_path):
    path = write(tmp_path / "a.zip", GOOD)
    good, rng = path.read_bytes(), random.Random(0)
    n_refused = 0
    for k in range(150):
        content = bytearray(good)
        if k % 3:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        target = tmp_path / f"out{k}"
        try:
            zipped.unpack(path, target)
        except ArchiveError:
            n_refused += 1
            assert not target.exists()
        else:
            sizes = sorted(p.stat().st_size for p in target.rglob("*") if p.is_file())
            assert sizes in ([9, 495], [0, 9, 495])
    assert n_refused > 75
