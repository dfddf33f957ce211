"""Faults 20 to 23 and 25: bad servers, hostile archives, full disks, kills, two runs at a time."""

import functools
import gzip
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from email.utils import formatdate
from pathlib import Path

import pytest
from tqdm import tqdm

from cast_lens import archive, data, download, run, tarball
from tests import loopback, packing
from tests.loopback import publish, reply, silent, status
from tests.packing import FILES, contents, files, member, nested_archive, packed, tar, unpacked

ROOT = Path(archive.__file__).parents[1]
CONTENT = nested_archive()
NESTED = "Data.*.tar.gz"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Wait for nothing, and stay away from the user's folders and proxies."""
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with loopback.serve() as running:
        yield running


@pytest.fixture
def wanted(server):
    return archive.Archive("T.tar.gz", (f"{server.url}/T.tar.gz",), NESTED)


@pytest.fixture
def surveys(wanted, monkeypatch):
    monkeypatch.setattr(archive, "SURVEYS", {"one": packing.survey(wanted)})


# Row 20: downloads.


def body(content, **options):
    return lambda handler: reply(handler, content, **options)


def page(media_type):
    html = b"\n<!DOCTYPE html><html><body>Please sign in to the Wi-Fi</body></html>" + bytes(2000)
    return body(html, length=len(html), media_type=media_type)


def cut_chunks(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + CONTENT[:1024] + b"\r\n400\r\n" + CONTENT[1024:1500])
    handler.close_connection = True


def circle(handler):
    handler.server.answers.append(circle)
    reply(handler, b"", code=302, length=0, headers={"Location": handler.path})


def flipped(at):
    return CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]


CUTS = [0, 1, 1023, 1024, 40_000, 65_536, len(CONTENT) - 1]
BAD = {f"cut at {n}": publish(CONTENT, stop=n) for n in CUTS} | {
    "cut, no length told": body(CONTENT[:40_000]),
    "whole, no length told": body(CONTENT),
    "cut between chunks": cut_chunks,
    "length too small": body(CONTENT, length=len(CONTENT) - 7),
    "length too large": body(CONTENT, length=len(CONTENT) + 7),
    "length is no number": body(CONTENT, length="many"),
    "length is negative": body(CONTENT, length=-5),
    "length 0": body(b"", length=0),
    "404": status(404),
    "403": status(403),
    "410": status(410),
    "429": status(429),
    "500": status(500),
    "503": status(503),
    "304": status(304),
    "206 that nobody asked for": body(CONTENT, code=206, length=len(CONTENT)),
    "416": status(416, {"Content-Range": "bytes */5"}),
    "HTML page": page("text/html; charset=utf-8"),
    "HTML page called gzip": page("application/x-gzip"),
    "text": body(b"gone" * 1000, length=4000),
    "other bytes": body(flipped(50_000), length=len(CONTENT)),
    "packed with another program": body(b"BZh9" + CONTENT[4:], length=len(CONTENT)),
    "gzip of no tar": body(gzip.compress(bytes(range(256)) * 9), length=None),
    "no answer": silent,
    "stalled": publish(CONTENT, stop=40_000, stall=True),
    "redirected in a circle": circle,
    "redirected to nowhere": status(302, {"Location": "http://[::bad"}),
}


def finished(folder):
    """Return the names of finished files and of archives that are pinned."""
    lock = folder / archive.LOCK
    names = [n for n in contents(folder) if not n.startswith(".") and ".part" not in n]
    return names, list(json.loads(lock.read_text())) if lock.exists() else []


def refused(wanted, folder):
    errors = (data.DataUnavailableError, tarball.ArchiveError)
    with pytest.raises(errors) as caught:
        archive.fetch(wanted, folder)
    message = str(caught.value)
    assert "\n" not in message and "T.tar.gz" in message
    return message


@pytest.mark.parametrize("fault", BAD)
def test_bad_answer_leaves_no_file_and_a_later_good_one_succeeds(
    server, wanted, tmp_path, fault, monkeypatch
):
    server.answers[:] = [BAD[fault]]
    with monkeypatch.context() as patch:
        patch.setattr(download, "TIMEOUT", 0.3)
        message = refused(wanted, tmp_path)
    assert finished(tmp_path) == ([], [])
    if "sound" not in message:  # the bytes came, and are wrong
        assert "DATA=" in message and server.url in message
    server.answers[:] = [publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert finished(tmp_path) == (["T.tar.gz", "archives.json"], ["T.tar.gz"])


@pytest.mark.parametrize("fault", ["404", "403", "410", "HTML page", "redirected in a circle"])
def test_hopeless_answer_is_not_asked_for_twice(server, wanted, tmp_path, fault):
    server.answers[:] = [BAD[fault]]
    message = refused(wanted, tmp_path)
    if fault.isdecimal():
        assert fault in message
    assert server.requests == 1 or "circle" in fault


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut at 1", "length too large"])
def test_failures_in_a_row_are_given_up_after_five(server, wanted, tmp_path, fault):
    server.answers[:] = [BAD[fault]] * 9
    assert "5 failures in a row" in refused(wanted, tmp_path)
    assert server.requests == 5


def test_progress_begins_the_count_of_failures_anew(server, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PROGRESS", 5000)
    server.answers[:] = [publish(CONTENT, stop=n) for n in range(6000, 80_000, 6000)]
    server.answers.append(publish(CONTENT))
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.requests == 14


def test_bytes_that_come_again_are_no_progress(server, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PROGRESS", 5000)
    server.answers[:] = [body(CONTENT[:60_000], length=len(CONTENT))] * 9  # ranges are ignored
    assert "5 failures" in refused(wanted, tmp_path)
    assert server.requests == 5


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [("7", 7, 7), (lambda: formatdate(time.time() + 30, usegmt=True), 28, 30), ("soon", 0, 1),
     ("-3", 0, 1), ("9" * 5000, 0, 1), (None, 0, 1)],
)  # fmt: skip
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_waited_for(server, wanted, tmp_path, monkeypatch, code, told, least, most):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    told = told() if callable(told) else told
    headers = {"Retry-After": told} if told else {}
    server.answers[:] = [status(code, headers), publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert len(waited) == 1 and least <= waited[0] <= most


def test_cut_is_noticed_where_urllib3_counts_no_bytes(server, wanted, tmp_path, monkeypatch):
    """As before its version 2.0."""
    monkeypatch.setattr("urllib3.response.HTTPResponse._init_length", lambda *_: None)
    server.answers[:] = [publish(CONTENT, stop=66_000), publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.seen[1]["Range"] == "bytes=66000-"


def test_server_that_asks_for_an_hour_is_left_to_the_user(server, wanted, tmp_path):
    server.answers[:] = [status(429, {"Retry-After": "3600"})]
    assert "429" in (message := refused(wanted, tmp_path)) and "3600 s" in message
    assert server.requests == 1


def test_waits_double_with_every_failure(server, wanted, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    monkeypatch.setattr(download, "BACKOFF", 1.0)
    refused(wanted, tmp_path)
    assert waited == [1, 2, 4, 8]


def test_offline_says_so_and_names_the_way_without_network(tmp_path):
    with socket.socket() as bound:  # bound but not listening: the kernel refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/T.tar.gz"
        message = refused(archive.Archive("T.tar.gz", (url,)), tmp_path)
    for told in ("could not be reached", url, "DATA="):
        assert told in message


def test_name_that_no_server_has_is_offline_too(tmp_path):
    message = refused(archive.Archive("T.tar.gz", ("http://no-such-host.invalid/T",)), tmp_path)
    assert "could not be reached" in message and "DATA=" in message


@pytest.mark.parametrize(
    "content",
    [b"<html>sign in</html>", b"", gzip.compress(b"ID\n1\n", mtime=0), b"\xef\xbb\xbf <?xml?>"],
)
def test_table_that_is_no_text_is_refused(server, tmp_path, content):
    table = archive.Archive("T.tar.gz.csv", (f"{server.url}/T.csv",))
    server.answers[:] = [body(content, length=len(content), media_type="text/csv")]
    refused(table, tmp_path)
    assert finished(tmp_path) == ([], [])


@pytest.mark.parametrize("other", [flipped(-9), nested_archive(FILES | {"new": b""}), b"x"])
def test_archive_that_differs_from_the_first_shows_both_hashes(wanted, server, tmp_path, other):
    server.answers[:] = [publish(CONTENT)]
    path = archive.fetch(wanted, tmp_path)
    path.write_bytes(other)
    with pytest.raises(data.DataError) as caught:
        archive.fetch(wanted, tmp_path)
    found, first = (data.hashlib.sha256(content).hexdigest() for content in (other, CONTENT))
    for told in (str(path), found, first, str(len(other)), str(len(CONTENT)), archive.LOCK):
        assert told in str(caught.value)
    assert "\n" not in str(caught.value) and path.read_bytes() == other


def test_new_version_is_refused_until_its_entry_is_removed_and_then_not_downloaded_again(
    server, wanted, tmp_path
):
    new = nested_archive(FILES | {"Training/new": b"1"})
    server.answers[:] = [publish(CONTENT), publish(new, version='"2"')]
    archive.fetch(wanted, tmp_path).unlink()
    for _ in range(2):
        with pytest.raises(data.DataError, match="remove the entry T.tar.gz from"):
            archive.fetch(wanted, tmp_path)
        assert not (tmp_path / "T.tar.gz").exists()
    (tmp_path / archive.LOCK).write_text("{}")
    assert archive.fetch(wanted, tmp_path).read_bytes() == new
    assert server.requests == 2


def test_archive_named_by_the_user_must_be_the_first_too(server, surveys, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    folder = archive.get("one", tmp_path / "data")
    (tmp_path / "T.tar.gz").write_bytes(nested_archive(FILES | {"new": b""}))
    with pytest.raises(data.DataError, match="came first"):
        archive.get("one", tmp_path / "data", data=tmp_path / "T.tar.gz")
    assert unpacked(folder) == FILES


@pytest.mark.parametrize("text", ["", "{", "[]", '{"T.tar.gz": {}}', '{"T.tar.gz": {"bytes": 1}}',
                                  '{"T.tar.gz": {"bytes": 1, "sha256": "x", "unpacked_bytes": 1}}',
                                  '{"T.tar.gz": 5}', "\xff"])  # fmt: skip
def test_broken_lock_file_is_named_and_never_replaced(server, wanted, tmp_path, text):
    server.answers[:] = [publish(CONTENT)]
    (tmp_path / archive.LOCK).write_text(text, encoding="latin-1")
    with pytest.raises(data.DataError, match=r"archives\.json: found .*, expected what this"):
        archive.fetch(wanted, tmp_path)
    assert (tmp_path / archive.LOCK).read_text(encoding="latin-1") == text
    assert not (tmp_path / "T.tar.gz").exists()


@pytest.mark.parametrize("record", ["", "{}", "[]", "null", '{"url": 1}', "\xff"])
def test_broken_record_of_a_part_begins_anew(server, wanted, tmp_path, record):
    (tmp_path / "T.tar.gz.part").write_bytes(b"\x1f\x8b\x08 from who knows where")
    (tmp_path / "T.tar.gz.part.json").write_text(record, encoding="latin-1")
    server.answers[:] = [publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert "Range" not in server.seen[0]


# Row 21: archives.


def link(name, target, kind=tarfile.SYMTYPE):
    return member(name, kind=kind, linkname=target)


def raw(info, size):
    """Return the header of a member that claims a size, without data."""
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def gz(content):
    return gzip.compress(content, 1, mtime=0)


GOOD = member("Training/classifications.csv", b"ID\n")
END = bytes(1024)
PAX_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big",
              "GNU.sparse.realsize": str(1 << 40)}  # fmt: skip
NAMES = {
    "up": "../outside/x", "up inside": "a/../../outside/x", "up after dot": "./../outside/x",
    "up to the top": "../" * 40 + "tmp/cast_lens_x", "only up": "..", "up at the end": "a/..",
    "up after two": "a/b/../../../outside/x", "up after slashes": "..//outside/x",
    "up and back": "a/../b", "absolute": "{outside}/x", "absolute twice": "/{outside}/x",
    "root": "/", "drive": "C:/x", "drive with backslash": "c:\\x", "share": "\\\\server\\x",
    "up with backslash": "..\\outside\\x", "backslash": "a\\x", "empty": "", "line": "a\nb",
    "escape": "\x1b[2Jx", "right to left": "\u202estif.x", "not UTF-8": "a\udcff", "tab": "a\tb",
    "long part": "p" * 256, "long path": "p/" * 500 + "x", "folder itself": ".",
}  # fmt: skip


@functools.cache
def hostile(outside):
    """Return {description: bytes of an archive that must not be unpacked}."""
    nested = functools.partial(member, "Training/Data.0.tar.gz")
    regular = tarfile.TarInfo("x")
    zeros, large = gz(bytes(1 << 25)), b"%011o\0" % (1 << 25)
    bomb = gz(tar(GOOD, end=False) + raw(regular, large)) + zeros + gz(END)  # a .gz in parts
    many = {f"name: {k}": packed(GOOD, member(v.format(outside=outside), b"1"))
            for k, v in NAMES.items()}  # fmt: skip
    many |= {
        "folder up": packed(GOOD, member("../outside/d", kind=tarfile.DIRTYPE)),
        "folder absolute": packed(GOOD, member(f"{outside}/d", kind=tarfile.DIRTYPE)),
        "GNU long name up": packed(
            GOOD, member("../outside/" + "x" * 120), form=tarfile.GNU_FORMAT
        ),
        "pax path up": packed(GOOD, member("x", b"1", pax_headers={"path": "../outside/x"})),
        "pax path with NUL": packed(GOOD, member("x", pax_headers={"path": "a\0b"})),
        "pax path for all": gz(
            tarfile.TarInfo.create_pax_global_header({"path": "x"}) + tar(GOOD, member("a"))
        ),
        "symbolic link absolute": packed(GOOD, link("x", f"{outside}/victim")),
        "symbolic link up": packed(GOOD, link("x", "../outside/victim")),
        "symbolic link inside": packed(GOOD, link("x", "Training")),
        "symbolic link to itself": packed(GOOD, link("x", "x")),
        "symbolic link to a folder, then through it": packed(
            GOOD, link("x", "../outside"), member("x/victim", b"1")
        ),
        "symbolic link, then over it": packed(
            GOOD, link("x", "../outside/victim"), member("x", b"1")
        ),
        "two links that add up": packed(
            GOOD, link("x", "."), link("x/y", ".."), member("y/outside/victim", b"1")
        ),
        "hard link out": packed(GOOD, link("x", "../outside/victim", tarfile.LNKTYPE)),
        "hard link absolute": packed(GOOD, link("x", f"{outside}/victim", tarfile.LNKTYPE)),
        "hard link inside": packed(GOOD, link("x", GOOD[0].name, tarfile.LNKTYPE)),
        "character device": packed(GOOD, member("x", kind=tarfile.CHRTYPE, devmajor=1, devminor=5)),
        "block device": packed(GOOD, member("x", kind=tarfile.BLKTYPE)),
        "FIFO": packed(GOOD, member("x", kind=tarfile.FIFOTYPE)),
        "contiguous file": packed(GOOD, member("x", kind=tarfile.CONTTYPE)),
        "unknown type": packed(GOOD, member("x", kind=b"Q")),
        "sparse file": packed(GOOD, member("x", bytes(512), kind=tarfile.GNUTYPE_SPARSE)),
        "sparse file of pax": packed(
            GOOD, member("x", b"0\n" + bytes(510), pax_headers=PAX_SPARSE)
        ),
        "a file twice": packed(GOOD, member("x", b"1"), member("x", b"2")),
        "a file twice, written differently": packed(GOOD, member("x", b"1"), member("./x", b"2")),
        "a file twice, with two slashes": packed(GOOD, member("a/x"), member("a//x")),
        "a file that is a folder": packed(GOOD, member("x"), member("x/y")),
        "a folder that is a file": packed(GOOD, member("x/y"), member("x")),
        "a folder and a file": packed(GOOD, member("x", kind=tarfile.DIRTYPE), member("x")),
        "a file and a folder": packed(GOOD, member("x"), member("x", kind=tarfile.DIRTYPE)),
        "bomb": bomb,
        "bomb in a nested archive": packed(GOOD, nested(bomb)),
        "bomb after the end": packed(GOOD) + zeros,
        "bomb in a header": gz(tar(GOOD, end=False) + raw(member("x", kind=b"x")[0], large))
        + zeros,
        "size beyond any disk": packed(GOOD, member("x", pax_headers={"size": str(1 << 60)})),
        "negative size": gz(tar(GOOD, end=False) + raw(regular, b"\xff" * 12) + END),
        "negative size of a folder": gz(
            tar(GOOD, end=False) + raw(member("x", kind=tarfile.DIRTYPE)[0], b"\xff" * 12) + END
        ),
        "size that goes back": gz(
            tar(GOOD, end=False) + raw(regular, b"\xff" * 10 + b"\xfc\x00") + END
        ),
        "long header": packed(GOOD, member("x", pax_headers={"comment": "c" * 20_000})),
        "long name": packed(GOOD, member("x" * 20_000), form=tarfile.GNU_FORMAT),
        "header of digits": packed(GOOD, member("x", pax_headers={"comment": "1" * 15_000})),
        "names of names": gz(
            tar(GOOD, end=False) + 99 * tar(member("././@LongLink", b"x", kind=b"L"), end=False)
        ),
        "nested: up": packed(GOOD, nested(packed(member("../../outside/x", b"1")))),
        "nested: absolute": packed(GOOD, nested(packed(member(f"{outside}/x", b"1")))),
        "nested: symbolic link": packed(GOOD, nested(packed(link("x", "../../outside")))),
        "nested: a file that is outside it": packed(
            GOOD, nested(packed(member("classifications.csv", b"other")))
        ),
        "nested: no archive": packed(GOOD, nested(b"hello")),
        "nested: cut": packed(GOOD, nested(packed(member("x", b"1"))[:-9])),
        "more after the end": gz(tar(GOOD) + tar(member("x"))),
        "one archive after another": packed(GOOD) + packed(member("x")),
        "garbage after the end": packed(GOOD) + b"garbage",
        "no end mark": packed(GOOD, end=False),
        "half an end mark": gz(tar(GOOD, end=False) + bytes(100)),
        "data cut": gz(tar(member("x", bytes(5000)))[:2000]),
        "garbage for a header": gz(tar(GOOD, end=False) + b"x" * 512 + END),
        "no members": packed(),
        "only a folder": packed(member("x", kind=tarfile.DIRTYPE)),
        "no tar": gz(b"hello" * 1000),
        "nothing packed": gz(b""),
        "nothing": b"",
        "text": b"hello" * 1000,
        "tar that is not packed": tar(GOOD),
        "zip": zip_archive(),
    }
    return many


def zip_archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../outside/x", "1")
    return stream.getvalue()


@pytest.fixture(scope="module")
def one_place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "place"


@pytest.fixture
def place(one_place):
    """Return an empty folder with a victim in it, which no archive may touch."""
    if one_place.exists():
        shutil.rmtree(one_place)
    (one_place / "outside").mkdir(parents=True)
    (one_place / "outside/victim").write_text("as it was")
    return one_place


HOSTILE = sorted(hostile("nowhere"))


def write(place, name):
    path = place / "a.tar.gz"
    path.write_bytes(hostile(str(place / "outside"))[name])
    return path


def test_there_are_enough_hostile_archives():
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_writes_nothing_at_all(place, name):
    path = write(place, name)
    before = contents(place.parent)
    start = time.perf_counter()
    with pytest.raises(tarball.ArchiveError) as caught:
        archive.unpack(path, place / "target", nested=NESTED)
    assert time.perf_counter() - start < 10
    assert contents(place.parent) == before
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700


@pytest.mark.parametrize("filtered", [True, False])
def test_without_the_first_reading_hostile_archives_stay_inside_too(place, filtered, monkeypatch):
    """Also where Python has no tarfile.data_filter, before 3.10.12 and 3.11.4."""
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    outside = contents(place / "outside")
    for number, name in enumerate(set(HOSTILE) - {"no members", "only a folder"}):
        path, target = write(place, name), place / f"target{number}"
        target.mkdir()
        with pytest.raises(tarball.ArchiveError):
            tarball.extract(path, target, nested=NESTED)
        assert contents(place / "outside") == outside, name
        assert not any(p.is_symlink() for p in target.rglob("*")), name
        assert [p.name for p in place.parent.iterdir()] == ["place"], name
    names = {p.name.rstrip("0123456789") for p in place.iterdir()}
    assert names == {"a.tar.gz", "outside", "target"}


def test_filter_of_tarfile_is_asked_for_every_member(place, monkeypatch):
    asked = []
    monkeypatch.setattr(
        tarfile, "data_filter", lambda one, folder: asked.append((one.name, folder)), raising=False
    )
    (place / "a.tar.gz").write_bytes(CONTENT)
    (place / "target").mkdir()
    tarball.extract(place / "a.tar.gz", place / "target", nested=NESTED)
    plain = [name for name in FILES if "/Data." not in name]
    inner = [name.partition("/")[2] for name in FILES if "/Data." in name]
    packed_inside = ["Training/Data.0.tar.gz", "Training/Data.1.tar.gz"]
    assert sorted(name for name, _ in asked) == sorted(plain + inner + packed_inside)
    assert {Path(folder) for _, folder in asked} == {place / "target", place / "target/Training"}


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python has no such filter")
def test_refusal_of_tarfile_is_a_refusal(place, monkeypatch):
    def refuse(one, folder):
        raise tarfile.SpecialFileError(one)

    monkeypatch.setattr(tarfile, "data_filter", refuse)
    (place / "a.tar.gz").write_bytes(CONTENT)
    with pytest.raises(tarball.ArchiveError, match="special file"):
        archive.unpack(place / "a.tar.gz", place / "target")
    names = sorted(p.name for p in place.iterdir() if not p.name.startswith("."))
    assert names == ["a.tar.gz", "outside"]


@pytest.mark.skipif(not hasattr(tarfile, "fully_trusted_filter"), reason="needs Python 3.10.12")
@pytest.mark.parametrize(
    "name",
    ["name: up", "name: absolute", "pax path up", "GNU long name up",
     "symbolic link to a folder, then through it", "folder up", "hard link out"],
)  # fmt: skip
def test_the_hostile_archives_are_hostile(place, name):
    """Unpacked in good faith they do reach what is outside."""
    path = write(place, name)
    outside = place / "outside"
    before = contents(outside), (outside / "victim").stat().st_nlink
    (place / "target").mkdir()
    with tarfile.open(path) as opened, pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "target")
        opened.extractall(place / "target", filter="fully_trusted")
    assert (contents(outside), (outside / "victim").stat().st_nlink) != before


@pytest.mark.parametrize("name", ["bomb", "bomb in a nested archive", "bomb after the end",
                                  "bomb in a header", "long header"])  # fmt: skip
def test_bomb_costs_little_memory(place, name):
    path = write(place, name)
    tracemalloc.start()
    try:
        with pytest.raises(tarball.ArchiveError):
            archive.unpack(path, place / "target", nested=NESTED)
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 21), ("MAX_BYTES", 19_000)])
def test_archive_within_its_limits_only_is_unpacked(place, monkeypatch, limit, value):
    (place / "a.tar.gz").write_bytes(packed(*(member(f"d/{n}", bytes(1000)) for n in range(19))))
    monkeypatch.setattr(tarball, limit, value)
    assert tarball.read_through(place / "a.tar.gz").files == 19  # and two folders
    monkeypatch.setattr(tarball, limit, value - 1)
    with pytest.raises(tarball.ArchiveError, match=f"at most .*{value - 1}"):
        tarball.read_through(place / "a.tar.gz")


def test_folder_names_count_as_members(place, monkeypatch):
    (place / "a.tar.gz").write_bytes(packed(member("d/" * 400 + "x")))
    monkeypatch.setattr(tarball, "MAX_MEMBERS", 300)
    with pytest.raises(tarball.ArchiveError, match="at most 300"):
        tarball.read_through(place / "a.tar.gz")


def test_archive_cut_anywhere_is_refused(place):
    whole = packed(*files({name: data[:300] for name, data in FILES.items()}))
    for end in range(0, len(whole), 7):
        (place / "a.tar.gz").write_bytes(whole[:end])
        with pytest.raises(tarball.ArchiveError):
            tarball.read_through(place / "a.tar.gz")


def test_flipped_bit_of_an_archive_is_refused_or_changes_nothing(place):
    few = {name: data[:300] for name, data in FILES.items()}
    whole, rng, refusals = packed(*files(few)), random.Random(0), 0
    for number in range(100):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        (place / "a.tar.gz").write_bytes(damaged)
        (place / f"{number}").mkdir()
        try:
            tarball.extract(place / "a.tar.gz", place / f"{number}")
        except tarball.ArchiveError:
            refusals += 1
            continue
        assert unpacked(place / f"{number}") == few
    assert refusals > 80


def test_damaged_header_never_hides_the_members_after_it(place):
    plain, rng = bytearray(tar(*files(FILES))), random.Random(0)
    with tarfile.open(fileobj=io.BytesIO(plain)) as opened:
        offsets = [info.offset for info in opened]
    for offset in offsets:
        for _ in range(20):
            damaged = bytearray(plain)
            damaged[offset + rng.randrange(512)] ^= 1 << rng.randrange(7)
            (place / "a.tar.gz").write_bytes(gz(damaged))
            with pytest.raises(tarball.ArchiveError):
                tarball.read_through(place / "a.tar.gz")


def test_archive_that_is_no_file_is_refused_at_once(place):
    os.mkfifo(place / "fifo")
    for name in ("fifo", "absent", "."):
        with pytest.raises(tarball.ArchiveError, match="no such file"):
            archive.unpack(place / name, place / "target")


@pytest.mark.parametrize("there", ["file", "full folder", "link", "broken link"])
def test_what_is_at_the_target_is_never_touched(place, there):
    (place / "a.tar.gz").write_bytes(CONTENT)
    target = place / "target"
    if there == "file":
        target.write_text("mine")
    elif there == "full folder":
        (target / "mine").mkdir(parents=True)
    else:
        target.symlink_to(place / "outside" if there == "link" else place / "nowhere")
    before = os.lstat(target), sorted(place.rglob("*"))
    with pytest.raises(tarball.ArchiveError, match="is there already"):
        archive.unpack(place / "a.tar.gz", target)
    assert (os.lstat(target), sorted(place.rglob("*"))) == before


def test_target_that_appears_meanwhile_is_never_touched(place, monkeypatch):
    def slowly(path, *, nested="", read_through=tarball.read_through):
        (place / "target/mine").mkdir(parents=True)
        return read_through(path, nested=nested)

    (place / "a.tar.gz").write_bytes(CONTENT)
    monkeypatch.setattr(tarball, "read_through", slowly)
    with pytest.raises(tarball.ArchiveError, match="is there already"):
        archive.unpack(place / "a.tar.gz", place / "target")
    assert contents(place / "target") == {"mine": None}


def test_empty_target_is_filled(place):
    (place / "a.tar.gz").write_bytes(CONTENT)
    (place / "target").mkdir()
    archive.unpack(place / "a.tar.gz", place / "target", nested=NESTED)
    assert unpacked(place / "target") == FILES


def test_hostile_download_is_neither_kept_nor_pinned(server, surveys, tmp_path):
    bad = hostile("nowhere")["name: up"]
    server.answers[:] = [publish(bad), publish(CONTENT)]
    with pytest.raises(tarball.ArchiveError, match="leads upward"):
        archive.get("one", tmp_path)
    assert set(contents(tmp_path)) == {"one-archives", "one-archives/.lock"}
    assert unpacked(archive.get("one", tmp_path)) == FILES


# Row 22: disks.


@pytest.fixture(params=["tmpfs", "injected"])
def small_disk(request, tmp_path, monkeypatch):
    """Return a folder in which little more than 60,000 bytes can be written."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(folder)], check=True))
    else:
        limit_disk(monkeypatch, folder, 65_536)
    return folder


def limit_disk(monkeypatch, folder, size):
    """Make writes to files below `folder` fail as they do on a full disk of that size."""
    import builtins

    class Small(io.FileIO):
        def write(self, block):
            used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            if used + len(block) > size:
                super().write(bytes(block)[: max(0, size - used)])
                raise OSError(28, "No space left on device")
            return super().write(block)

    def small_open(path, mode="r", *args, real=builtins.open, **kwargs):
        if set(mode) & set("wxa") and "b" in mode and str(path).startswith(str(folder)):
            return io.BufferedWriter(Small(path, mode), 1 << 12)
        return real(path, mode, *args, **kwargs)

    for module in (download, tarball):
        monkeypatch.setattr(module, "open", small_open, raising=False)


def assert_full(caught, needed):
    assert caught.value.errno == 28
    assert f"{needed} bytes needed" in str(caught.value) and " free" in str(caught.value)


def no_check(folder, needed):
    """Stand in for `require_space` where another program takes the space after the check."""


def test_download_that_fills_the_disk_goes_on_when_there_is_space(
    server, wanted, tmp_path, small_disk, monkeypatch
):
    server.answers[:] = [publish(CONTENT)]
    with monkeypatch.context() as patch:
        patch.setattr(download, "require_space", no_check)
        with pytest.raises(OSError, match="No space left") as caught:
            archive.fetch(wanted, small_disk)
    part = (small_disk / "T.tar.gz.part").read_bytes()
    assert part and CONTENT.startswith(part) and finished(small_disk) == ([], [])
    assert_full(caught, len(CONTENT) - len(part))
    for name in ("T.tar.gz.part", "T.tar.gz.part.json"):
        (tmp_path / name).write_bytes((small_disk / name).read_bytes())
    server.answers[:] = [publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.seen[-1]["Range"] == f"bytes={len(part)}-"


def test_unpacking_that_fills_the_disk_leaves_it_as_it_was(
    server, surveys, tmp_path, small_disk, monkeypatch
):
    (tmp_path / "T.tar.gz").write_bytes(CONTENT)
    (small_disk / "earlier").write_text("kept")
    monkeypatch.setattr(tarball, "require_space", no_check)
    with pytest.raises(OSError, match="No space left") as caught:
        archive.get("one", small_disk, data=tmp_path / "T.tar.gz")
    assert_full(caught, (3 + 2 * 10) * 4096)
    left = {n for n, content in contents(small_disk).items() if content is not None}
    assert left == {"earlier", ".one.unpacking/.lock", "one-archives/.lock",
                    "one-archives/archives.json"}  # fmt: skip
    assert (small_disk / "earlier").read_text() == "kept"
    assert unpacked(archive.get("one", tmp_path, data=tmp_path / "T.tar.gz")) == FILES


def test_what_the_disk_cannot_hold_is_not_begun(server, surveys, tmp_path, monkeypatch):
    usage = data.shutil.disk_usage("/")
    for free, needed, requests in ((1000, len(CONTENT), 1), (90_000, 23 * 4096, 2)):
        server.answers[:] = [publish(CONTENT)]
        tight = usage._replace(free=free)
        monkeypatch.setattr(data.shutil, "disk_usage", lambda _, tight=tight: tight)
        with pytest.raises(OSError, match="No space left") as caught:
            archive.get("one", tmp_path)
        assert_full(caught, needed)
        assert f"{free} free" in str(caught.value)
        assert not (tmp_path / "one").exists() and server.requests == requests


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_read_only_folder_is_one_line(surveys, tmp_path):
    (tmp_path / "data").mkdir(mode=0o500)
    with pytest.raises(OSError, match="denied"):
        archive.get("one", tmp_path / "data")


# Row 23: kills.

FETCH = """
import json, sys
from cast_lens import archive, download
download.BACKOFF = 0.001
archive.fetch(archive.Archive("T.tar.gz", (sys.argv[1],), "Data.*.tar.gz"), sys.argv[2])
"""


def kill_in_download(server, folder, stop):
    """Kill a child process that has received `stop` bytes and waits for more."""
    server.answers[:] = [publish(CONTENT, stop=stop, stall=True)]
    child = subprocess.Popen(
        [sys.executable, "-c", FETCH, f"{server.url}/T.tar.gz", str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 30
    while time.monotonic() < until and child.poll() is None:
        part = folder / "T.tar.gz.part"
        if part.exists() and part.stat().st_size >= (stop >> 16 << 16) > 0:
            break
        if server.answers == [] and stop < 1 << 16:
            time.sleep(0.1)
            break
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("stops", [(0,), (70_000,), (66_000, 81_000)])
def test_killed_download_ends_as_an_uninterrupted_one(server, wanted, tmp_path, stops):
    server.answers[:] = [publish(CONTENT)]
    archive.fetch(wanted, tmp_path / "whole")
    for stop in stops:
        kill_in_download(server, tmp_path / "cut", stop)
        assert finished(tmp_path / "cut") == ([], [])
    server.answers[:] = [publish(CONTENT)]
    archive.fetch(wanted, tmp_path / "cut")
    ends = [contents(tmp_path / name) for name in ("whole", "cut")]
    assert [end.pop(".lock") for end in ends] and ends[0] == ends[1]
    assert ("Range" in server.seen[-1]) == (stops[-1] > 0)


def in_child(action, *args):
    """Do something in a child process; return whether it was killed."""
    process = os.fork()
    if process == 0:
        try:
            action(*args)
            os._exit(0)
        finally:
            os._exit(1)
    _, state = os.waitpid(process, 0)
    assert os.WIFSIGNALED(state) or os.WEXITSTATUS(state) == 0
    return os.WIFSIGNALED(state)


STEPS = ((os, "replace"), (os, "sync"), (os, "fsync"), (os, "mkdir"), (os, "unlink"),
         (os, "rmdir"), (os, "open"), (tarball, "_next"))  # fmt: skip


def kill_at_steps(tmp_path, action, *, every):
    """Kill `action` before and after every so many steps, and do it again to the end."""
    monitor = tqdm.monitor
    if monitor:  # a thread, which no child process would have
        monitor.exit()
    action(tmp_path / "whole")
    whole, folder = settled(tmp_path / "whole"), tmp_path / "cut"
    for killed, deadly in enumerate(range(1, 10_000, every)):
        if not in_child(die_at, deadly, action, folder):
            return killed
        assert {n: v for n, v in settled(folder).items() if whole.get(n, v) != v} == {}, deadly
        action(folder)
        assert settled(folder) == whole, deadly
        assert not (folder / ".one.unpacking/content").exists(), deadly
        shutil.rmtree(folder)


def settled(folder):
    """Return the contents but for parts, locks and the temporary names of run.write_whole."""
    hidden = (".one.unpacking", "one-archives/.", ".")
    found = contents(folder).items() if folder.exists() else ()
    return {n: v for n, v in found if not n.startswith(hidden) and ".part" not in n}


def die_at(deadly, action, folder):
    """Do `action`, killed before or after the step number `deadly`."""
    count = [0]

    def dying(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            for moment in (lambda: None, lambda: function(*args, **kwargs)):
                result = moment()
                count[0] += 1
                if count[0] == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    for module, name in STEPS:
        setattr(module, name, dying(getattr(module, name)))
    action(folder)


@pytest.fixture
def unpacking(surveys, tmp_path):
    (tmp_path / "T.tar.gz").write_bytes(CONTENT)
    return lambda folder: archive.get("one", folder, data=tmp_path / "T.tar.gz")


@pytest.fixture
def downloading(server, wanted):
    server.answers[:] = [publish(CONTENT)] * 1000
    return lambda folder: archive.fetch(wanted, folder)


@pytest.mark.filterwarnings("ignore:This process")  # the thread of the server stays here
def test_unpacking_killed_at_any_step_ends_as_an_uninterrupted_one(unpacking, tmp_path):
    assert kill_at_steps(tmp_path, unpacking, every=9) > 5


@pytest.mark.filterwarnings("ignore:This process")
def test_download_killed_at_any_step_ends_as_an_uninterrupted_one(downloading, tmp_path):
    assert kill_at_steps(tmp_path, downloading, every=5) > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("action", ["unpacking", "downloading"])
def test_killed_at_every_step_it_ends_as_an_uninterrupted_one(request, action, tmp_path):
    assert kill_at_steps(tmp_path, request.getfixturevalue(action), every=1) > 30


@pytest.mark.slow
def test_download_killed_at_random_moments_ends_as_an_uninterrupted_one(server, wanted, tmp_path):
    rng = random.Random(0)
    for trial in range(20):
        folder = tmp_path / str(trial)
        for stop in sorted(rng.sample(range(len(CONTENT)), 2)):
            kill_in_download(server, folder, stop)
            assert finished(folder) == ([], [])
        server.answers[:] = [publish(CONTENT)]
        assert archive.fetch(wanted, folder).read_bytes() == CONTENT


def test_stop_by_signal_keeps_the_part_and_no_half_unpacked_folder(
    server, surveys, wanted, tmp_path, monkeypatch
):
    def stopping(*_):
        raise run.Stopped

    (tmp_path / "T.tar.gz").write_bytes(CONTENT)
    with monkeypatch.context() as patch, pytest.raises(run.Stopped):
        patch.setattr(os, "sync", stopping)
        archive.get("one", tmp_path / "data", data=tmp_path / "T.tar.gz")
    assert not (tmp_path / "data/one").exists()
    assert not (tmp_path / "data/.one.unpacking/content").exists()
    server.answers[:] = [publish(CONTENT, stop=66_000)]
    with monkeypatch.context() as patch, pytest.raises(run.Stopped):
        patch.setattr(download.time, "sleep", stopping)
        archive.fetch(wanted, tmp_path / "archives")
    assert (tmp_path / "archives/T.tar.gz.part").stat().st_size == 66_000


def test_stop_while_a_new_version_is_begun_joins_nothing(server, wanted, tmp_path, monkeypatch):
    new = nested_archive(FILES | {"Training/new": b"1"})
    server.answers[:] = [publish(CONTENT, stop=66_000), publish(new, version='"2"')]

    def stopping(path, content):
        run.write_whole(path, content)
        if '\\"2\\"' in content:
            raise run.Stopped

    with monkeypatch.context() as patch, pytest.raises(run.Stopped):
        patch.setattr(download, "write_whole", stopping)
        archive.fetch(wanted, tmp_path)
    server.answers[:] = [publish(new, version='"2"')]
    assert archive.fetch(wanted, tmp_path).read_bytes() == new
    assert "Range" not in server.seen[2]


# Row 25: two runs.


def test_second_download_into_a_folder_names_the_first(server, surveys, tmp_path):
    server.answers[:] = [publish(CONTENT, stop=66_000, stall=True), publish(CONTENT)]
    first = threading.Thread(target=archive.get, args=("one", tmp_path))
    first.start()
    until = time.monotonic() + 20
    while not server.requests and time.monotonic() < until:
        time.sleep(0.005)
    with pytest.raises(run.RunError, match=f"in use by the run with process ID {os.getpid()}"):
        archive.get("one", tmp_path)
    server.released.set()
    first.join(20)
    assert unpacked(tmp_path / "one") == FILES
    assert server.requests == 2


def test_second_unpacking_into_a_folder_names_the_first(place):
    (place / "a.tar.gz").write_bytes(CONTENT)
    with tarball.whole_folder(place / "target", needed=1) as content:
        with pytest.raises(run.RunError, match=f"process ID {os.getpid()}"):
            archive.unpack(place / "a.tar.gz", place / "target")
        (content / "mine").touch()
    assert contents(place / "target") == {"mine": b""}
    with pytest.raises(tarball.ArchiveError, match="is there already"):
        archive.unpack(place / "a.tar.gz", place / "target")


def test_surveys_side_by_side_do_not_wait_for_one_another(server, surveys, wanted, tmp_path):
    archive.SURVEYS["other"] = packing.survey(wanted)
    server.answers[:] = [publish(CONTENT)]
    with run.hold(tmp_path / "other-archives"):
        assert unpacked(archive.get("one", tmp_path)) == FILES
