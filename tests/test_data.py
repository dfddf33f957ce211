"""Data files named, cached and downloaded, against a server that misbehaves; fault 20."""

import contextlib
import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pooch
import pytest

from cast_lens import data
from tests import loopback
from tests.loopback import reply, silent, status

ROOT = Path(data.__file__).parents[1]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def good(handler):
    reply(handler, CONTENT, length=len(CONTENT))


def cut(n, *, length=300_000):
    return lambda handler: reply(handler, CONTENT[:n], length=length)


def page(handler):
    body = b"<!DOCTYPE html><html><body>Please sign in to the Wi-Fi</body></html>"
    reply(handler, body, length=len(body), media_type="text/html")


def other_bytes(handler):
    reply(handler, bytes([CONTENT[0] ^ 1]) + CONTENT[1:], length=len(CONTENT))


def cut_chunks(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + CONTENT[:1024] + b"\r\n400\r\n" + CONTENT[1024:1500])
    handler.close_connection = True


def stalled(handler):
    reply(handler, CONTENT[:200_000], length=len(CONTENT))
    handler.server.released.wait(20)


def circle(handler):
    handler.server.answers.append(circle)
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


BAD = {
    "cut before the first byte": cut(0),
    "cut after 1 byte": cut(1),
    "cut after 1023 bytes": cut(1023),
    "cut after 1024 bytes": cut(1024),
    "cut in the middle": cut(150_000),
    "cut before the last byte": cut(len(CONTENT) - 1),
    "cut, no length told": cut(150_000, length=None),
    "cut between chunks": cut_chunks,
    "length too small": cut(len(CONTENT), length=len(CONTENT) - 7),
    "length is no number": cut(len(CONTENT), length="many"),
    "404": status(404),
    "403": status(403),
    "429": status(429),
    "500": status(500),
    "HTML page": page,
    "other bytes of the same length": other_bytes,
    "no answer": silent,
    "stalled in the middle": stalled,
    "redirected in a circle": circle,
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Keep the tests away from the user's folders and proxies."""
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "default"))
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with loopback.serve() as running:
        yield running


def test_hash_tells_what_it_has_read(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT * 4)
    blocks = []
    data.sha256(tmp_path / "file", told=blocks.append)
    assert b"".join(blocks) == CONTENT * 4 and len(blocks) > 1


def test_space_is_required_to_the_byte(tmp_path, monkeypatch):
    usage = data.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(data.shutil, "disk_usage", lambda folder: usage)
    data.require_space(tmp_path, 1000)
    with pytest.raises(OSError, match="1001 bytes needed, 1000 free") as caught:
        data.require_space(tmp_path, 1001)
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)


@pytest.fixture
def file(server):
    """Name the file that the server publishes."""
    url = f"http://127.0.0.1:{server.server_address[1]}/record/1/classifications.csv"
    return data.DataFile("sglc1/classifications.csv", url, SHA256, "nobody (2020)")


def cached_files():
    folder = Path(os.environ["CAST_LENS_CACHE"])
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def bytes_in(folder):
    total = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def assert_unavailable(file, **named):
    with pytest.raises(data.DataUnavailableError) as caught:
        data.locate(file, **named)
    message = str(caught.value)
    assert "\n" not in message
    assert file.url in message and file.sha256 in message and "DATA=" in message
    return message


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_answer_leaves_nothing_and_a_later_good_one_succeeds(
    server, file, fault, monkeypatch
):
    server.answers[:] = [BAD[fault]]
    with monkeypatch.context() as patch:
        patch.setattr(data, "DOWNLOAD_TIMEOUT", 0.3)
        assert_unavailable(file)
    assert cached_files() == []
    server.answers[:] = [good]
    assert data.locate(file).read_bytes() == CONTENT
    assert cached_files() == [file.path]


def test_a_length_too_large_gives_the_published_bytes_or_nothing(server, file):
    server.answers[:] = [cut(len(CONTENT), length=len(CONTENT) + 7), good]
    try:
        assert data.locate(file).read_bytes() == CONTENT  # urllib3 before 2.0 ignores the length
    except data.DataUnavailableError:
        assert cached_files() == []
    assert data.locate(file).read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["404", "429", "500"])
def test_the_message_tells_the_status(server, file, fault):
    server.answers[:] = [BAD[fault]]
    assert fault in assert_unavailable(file)


def test_a_closed_port_is_an_unreachable_server(file):
    with socket.socket() as bound:  # bound but not listening: the kernel refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/classifications.csv"
        closed = data.DataFile(file.path, url, file.sha256, file.source)
        assert "could not be reached" in assert_unavailable(closed)
    assert cached_files() == []


def test_a_silent_server_is_given_up_after_the_timeout(server, file, monkeypatch):
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT", 0.2)
    server.answers[:] = [silent]
    start = time.perf_counter()
    assert "could not be reached" in assert_unavailable(file)
    assert 0.2 <= time.perf_counter() - start < 10


def test_kill_while_downloading_is_followed_by_a_whole_download(server, file):
    server.answers[:] = [stalled, good]
    script = (
        "import sys; from cast_lens import data;data.locate(data.DataFile(*sys.argv[1:], 'nobody'))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, file.path, file.url, file.sha256],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    folder = Path(os.environ["CAST_LENS_CACHE"]) / "sglc1"
    until = time.monotonic() + 20
    while time.monotonic() < until and not bytes_in(folder):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL
    assert cached_files() not in ([], [file.path])  # a partial file, not under the final name
    assert file.path not in cached_files()
    assert data.locate(file).read_bytes() == CONTENT


def test_an_earlier_download_is_used_without_a_request(server, file):
    server.answers[:] = [good]
    first = data.locate(file)
    assert server.requests == 1
    assert data.locate(file) == first
    assert server.requests == 1


@pytest.mark.parametrize("broken", [b"", CONTENT[:-1], CONTENT + b"\n", b"x" * len(CONTENT)])
def test_a_corrupt_earlier_download_is_fetched_anew(server, file, broken):
    server.answers[:] = [good, status(500), good]
    path = data.locate(file)
    path.write_bytes(broken)
    assert_unavailable(file)
    assert data.locate(file).read_bytes() == CONTENT
    assert server.requests == 3


def test_downloads_at_the_same_time_do_not_disturb_each_other(server, file):
    server.answers[:] = [good] * 4
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(data.locate, [file] * 4))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert cached_files() == [file.path]


@pytest.mark.parametrize("fault", [None, "404", "cut in the middle", "stalled in the middle"])
def test_a_download_clears_its_progress_bar_and_prints_nothing_else(
    server, file, fault, capfd, monkeypatch
):
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", sys.stderr)
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT", 0.3 if fault else 10)
    server.answers[:] = [BAD[fault] if fault else good]
    with pytest.raises(data.DataUnavailableError) if fault else contextlib.nullcontext():
        data.locate(file)
    out, err = capfd.readouterr()
    assert out == "" and "\n" not in err
    shown = err.split("\r")
    assert shown[-1] == "" and shown[-2].strip() == ""
    assert all(text.startswith("classifications.csv") for text in shown if text.strip())


def test_a_cache_below_a_file_is_one_line(server, file, tmp_path, monkeypatch):
    (tmp_path / "regular").write_text("not a folder")
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / "regular" / "cache"))
    assert "Not a directory" in assert_unavailable(file)
    assert server.requests == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_cache_is_one_line(server, file):
    folder = Path(os.environ["CAST_LENS_CACHE"])
    folder.mkdir()
    folder.chmod(0o500)
    assert "denied" in assert_unavailable(file)
    assert server.requests == 0


@pytest.mark.parametrize("where", ["classifications.csv", "sglc1/classifications.csv", "my.csv"])
@pytest.mark.parametrize("folder", ["surveys", "meine Ordner äöü ☃"])
def test_data_may_name_the_file_its_folder_or_the_folder_of_surveys(
    server, file, tmp_path, where, folder
):
    path = tmp_path / folder / where
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert data.locate(file, data=str(path)) == path
    if where != "my.csv":
        assert data.locate(file, data=str(tmp_path / folder)) == path
        assert data.locate(file, data=tmp_path / folder) == path
    assert server.requests == 0 and cached_files() == []


def test_data_that_lacks_the_file_is_never_replaced_by_a_download(server, file, tmp_path):
    server.answers[:] = [good] * 3
    (tmp_path / "empty").mkdir()
    for named in ("empty", "absent", "absent/classifications.csv"):
        with pytest.raises(data.DataError, match="classifications.csv") as caught:
            data.locate(file, data=str(tmp_path / named))
        assert f"DATA={tmp_path / named}" in str(caught.value) and "\n" not in str(caught.value)
    assert server.requests == 0 and cached_files() == []


@pytest.mark.parametrize("source", ["data", "CAST_LENS_DATA"])
def test_a_named_file_with_another_hash_is_never_replaced(
    server, file, tmp_path, monkeypatch, source
):
    server.answers[:] = [good, good]
    assert data.locate(file).exists()  # not even by an earlier download
    path = tmp_path / "surveys" / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    if source == "CAST_LENS_DATA":
        monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "surveys"))
    with pytest.raises(data.DataError) as caught:
        data.locate(file, data=str(path) if source == "data" else None)
    for told in (str(path), hashlib.sha256(CONTENT[:-1]).hexdigest(), file.sha256, file.url):
        assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.requests == 1
    assert path.read_bytes() == CONTENT[:-1]


def test_the_folder_in_cast_lens_data_is_used(server, file, tmp_path, monkeypatch):
    path = tmp_path / "surveys" / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "surveys"))
    assert data.locate(file) == path
    assert data.locate(file, data="") == path  # an empty DATA= of the Makefile is not named
    assert server.requests == 0


def test_without_the_file_in_cast_lens_data_it_is_downloaded(server, file, tmp_path, monkeypatch):
    server.answers[:] = [good]
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path))
    assert data.locate(file).read_bytes() == CONTENT
    assert server.requests == 1


def test_a_named_file_wins_over_cast_lens_data(server, file, tmp_path, monkeypatch):
    for place in ("named", "surveys"):
        (tmp_path / place / file.path).parent.mkdir(parents=True)
        (tmp_path / place / file.path).write_bytes(CONTENT)
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "surveys"))
    assert data.locate(file, data=tmp_path / "named") == tmp_path / "named" / file.path
    with pytest.raises(data.DataError):
        data.locate(file, data=tmp_path / "absent")
    assert server.requests == 0


def test_a_tilde_is_the_home_folder(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sglc1").mkdir()
    (tmp_path / file.path).write_bytes(CONTENT)
    assert data.locate(file, data="~") == tmp_path / file.path
    assert data.locate(file, data="~/sglc1") == tmp_path / file.path
    monkeypatch.setenv("CAST_LENS_DATA", "~")
    assert data.locate(file) == tmp_path / file.path
    monkeypatch.setenv("CAST_LENS_CACHE", "~/kept")
    assert data.cache_folder() == tmp_path / "kept"


def test_the_home_of_an_unknown_user_holds_nothing(file):
    with pytest.raises(data.DataError, match="~no_such_user_here/surveys"):
        data.locate(file, data="~no_such_user_here/surveys")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep caches elsewhere")
def test_the_default_cache_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("CAST_LENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.cache_folder() == tmp_path / "cast_lens"


@pytest.mark.parametrize("folder", ["with space", "Ünïcode ☃ 日本"])
def test_a_cache_may_have_spaces_and_unicode(server, file, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("CAST_LENS_CACHE", str(tmp_path / folder))
    server.answers[:] = [good]
    assert data.locate(file) == tmp_path / folder / file.path
    assert data.locate(file).read_bytes() == CONTENT
    assert server.requests == 1


@pytest.mark.parametrize("n", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2_500_000])
def test_sha256_matches_hashlib(tmp_path, n):
    content = np.random.default_rng(n).bytes(n)
    (tmp_path / "file").write_bytes(content)
    assert data.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
