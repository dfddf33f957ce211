"""Files of a record: listed once, verified by its MD5 and our SHA-256, never in part."""

import hashlib
import json

import pytest

from cast_lens import download, zenodo
from cast_lens.data import DataError, DataUnavailableError
from tests import loopback
from tests.loopback import publish, reply, status

CONTENT = b"PK" + bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.setattr(download, "TRIES", 2)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with loopback.serve() as running:
        yield running


def listing(server, **changes):
    """Return an answer as the API gives it, of an archive and of what is not wanted."""
    wanted = {
        "key": "nets.zip", "size": len(CONTENT), "checksum": f"md5:{MD5}",
        "links": {"self": f"{server.url}/nets.zip/content"},
    }  # fmt: skip
    other = wanted | {"key": "images.npy", "checksum": f"md5:{'0' * 32}"}
    body = json.dumps({"id": 1, "files": [other, wanted | changes]}).encode()
    return lambda handler: reply(handler, body, length=len(body), media_type="application/json")


def fetch(server, folder):
    return zenodo.fetch(1, folder, patterns=["*.zip", "*.tgz"], api=f"{server.url}/api/records")


def test_what_is_wanted_is_listed_downloaded_verified_and_pinned(server, tmp_path):
    server.answers[:] = [listing(server), publish(CONTENT)]
    (path,) = fetch(server, tmp_path)
    assert path == tmp_path / "nets.zip" and path.read_bytes() == CONTENT
    lock = json.loads((tmp_path / zenodo.LOCK).read_text())
    entry = {"url": f"{server.url}/nets.zip/content", "bytes": len(CONTENT)}
    assert lock["nets.zip"] == entry | {"md5": MD5, "sha256": SHA256}
    assert {p.name for p in tmp_path.iterdir()} == {"nets.zip", zenodo.LOCK, ".lock"}
    assert fetch(server, tmp_path) == [path] and server.requests == 2  # no network any more


def test_a_download_that_was_cut_goes_on(server, tmp_path):
    server.answers[:] = [listing(server), publish(CONTENT, stop=1000), publish(CONTENT)]
    assert fetch(server, tmp_path)[0].read_bytes() == CONTENT
    assert server.seen[2]["Range"] == "bytes=1000-"


def test_a_later_call_goes_on_where_the_network_went_away(server, tmp_path):
    server.answers[:] = [listing(server), publish(CONTENT, stop=1000), status(404)]
    with pytest.raises(DataUnavailableError, match="go on from byte 1000.*DATA="):
        fetch(server, tmp_path)
    assert not (tmp_path / "nets.zip").exists()
    server.answers[:] = [publish(CONTENT)]
    assert fetch(server, tmp_path)[0].read_bytes() == CONTENT
    assert server.seen[-1]["Range"] == "bytes=1000-"


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT + b"!"])
def test_other_bytes_than_the_record_lists_are_refused_and_removed(server, tmp_path, content):
    server.answers[:] = [listing(server), publish(content)]
    with pytest.raises(DataError, match=f"not the nets.zip of the record.*expected.*{MD5}"):
        fetch(server, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {zenodo.LOCK, ".lock"}


def test_a_file_that_changed_since_is_refused(server, tmp_path):
    server.answers[:] = [listing(server), publish(CONTENT)]
    (path,) = fetch(server, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DataError, match=f"expected.*SHA-256 {SHA256}"):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../nets.zip"}, {"key": "a/nets.zip"}, {"key": ".nets.zip"}, {"key": zenodo.LOCK},
        {"checksum": "sha1:0"}, {"checksum": "md5:xyz"}, {"size": "many"}, {"links": {}},
        {"links": {"self": "file:///etc/passwd"}}, {"checksum": None},
    ],
)  # fmt: skip
def test_an_odd_entry_of_the_list_is_refused_and_nothing_pinned(server, tmp_path, changes):
    server.answers[:] = [listing(server, **changes), publish(CONTENT)]
    with pytest.raises(DataUnavailableError, match="expected a list of files"):
        fetch(server, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".lock"} and server.requests == 1


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"files": []}', b'{"files": 3}', b"{", b""])
def test_an_answer_that_is_no_list_is_refused(server, tmp_path, body):
    server.answers[:] = [lambda h: reply(h, body, length=len(body), media_type="text/json")] * 2
    with pytest.raises(DataUnavailableError, match="api/records/1"):
        fetch(server, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".lock"}


def test_no_network_and_no_such_file_name_the_way_without(server, tmp_path):
    server.answers[:] = [status(404)]
    with pytest.raises(DataUnavailableError, match="404.*DATA="):
        fetch(server, tmp_path)
    server.answers[:] = [listing(server, key="nets.rar")]
    with pytest.raises(DataUnavailableError, match=r"no file \*.zip or .*nets.rar.*DATA="):
        fetch(server, tmp_path)


def test_a_damaged_lock_is_refused(server, tmp_path):
    for text in ("{", '{"nets.zip": {"md5": 3}}', "[1]"):
        (tmp_path / zenodo.LOCK).write_text(text)
        with pytest.raises(DataError, match="record.json: found"):
            fetch(server, tmp_path)
    assert not server.requests
