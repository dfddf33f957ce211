"""Survey archives downloaded, pinned, unpacked and found again; faults are in tests/faults."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import time

import pytest

from cast_lens import archive, cutouts, data, download, tarball
from tests import loopback, packing
from tests.loopback import publish, reply, status
from tests.packing import FILES, contents, files, member, nested_archive, packed, unpacked

CONTENT = nested_archive()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TABLE = b"# header\n,ID\n0,200000\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Wait for nothing, and stay away from the user's folders and proxies."""
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with loopback.serve() as running:
        yield running


@pytest.fixture
def wanted(server):
    """Name the archive that the server publishes."""
    return archive.Archive("T.tar.gz", (f"{server.url}/T.tar.gz",), nested="Data.*.tar.gz")


@pytest.fixture
def surveys(server, wanted, monkeypatch):
    """Publish a survey of one archive, and one of an archive and a table."""
    table = archive.Archive("table.csv", (f"{server.url}/table.csv",))
    both = packing.survey(wanted, table, members=(*packing.MEMBERS, ("table.csv", 1)))
    monkeypatch.setattr(archive, "SURVEYS", {"one": packing.survey(wanted), "two": both})


def lock(folder):
    return json.loads((folder / archive.LOCK).read_text())


def test_download_pins_size_and_hash_and_leaves_no_part(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    path = archive.fetch(wanted, tmp_path)
    assert path == tmp_path / "T.tar.gz"
    assert path.read_bytes() == CONTENT
    entry = lock(tmp_path)["T.tar.gz"]
    assert (entry["bytes"], entry["sha256"]) == (len(CONTENT), SHA256)
    assert set(contents(tmp_path)) == {".lock", "T.tar.gz", "archives.json"}


def test_second_call_asks_the_server_for_nothing(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    archive.fetch(wanted, tmp_path)
    archive.fetch(wanted, tmp_path)
    assert server.requests == 1


def test_pinned_disk_space_is_that_of_the_files_in_whole_sectors(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    archive.fetch(wanted, tmp_path)
    # README, classifications.csv and 512 bytes take one sector each, 40,000 and 40,001 take ten.
    assert lock(tmp_path)["T.tar.gz"]["unpacked_bytes"] == (3 + 2 * 10) * 4096


@pytest.mark.parametrize("stop", [1, 1000, 66_000, len(CONTENT) - 1])
def test_cut_download_goes_on_where_it_was(server, wanted, tmp_path, stop):
    server.answers[:] = [publish(CONTENT, stop=stop), publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    first, second = server.seen
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == (f"bytes={stop}-", '"1"')


def test_later_call_goes_on_where_an_earlier_gave_up(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT, stop=66_000), status(404)]
    with pytest.raises(data.DataUnavailableError, match="go on from byte 66000"):
        archive.fetch(wanted, tmp_path)
    assert (tmp_path / "T.tar.gz.part").read_bytes() == CONTENT[:66_000]
    server.answers[:] = [publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.seen[-1]["Range"] == "bytes=66000-"
    assert set(contents(tmp_path)) == {".lock", "T.tar.gz", "archives.json"}


def test_server_without_ranges_sends_all_of_it_again(server, wanted, tmp_path):
    def whole(handler):
        reply(handler, CONTENT, length=len(CONTENT), headers={"ETag": '"1"'})

    server.answers[:] = [publish(CONTENT, stop=70_000), whole]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert "Range" in server.seen[1]


@pytest.mark.parametrize("other", [nested_archive(FILES | {"Training/more": bytes(9)}), b""])
def test_file_that_changed_on_the_server_is_taken_from_its_beginning(
    server, wanted, tmp_path, other
):
    other = other or nested_archive(FILES | {"Training/README": b"TWO ARCHIVES INSIDE\n"})
    server.answers[:] = [publish(CONTENT, stop=70_000), publish(other, version='"2"')]
    assert archive.fetch(wanted, tmp_path).read_bytes() == other


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"ETag": '"a"', "Last-Modified": "Mon, 02 Mar 2020 10:00:00 GMT"}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": "Mon, 02 Mar 2020 10:00:00 GMT"}, "Mon, 02 Mar"),
        ({"Last-Modified": "Mon, 02 Mar 2020 10:00:00 GMT"}, "Mon, 02 Mar"),
        ({"ETag": 'W/"a"'}, None),
        ({}, None),
    ],
)
def test_only_what_tells_versions_apart_lets_a_download_go_on(
    server, wanted, tmp_path, headers, asked
):
    def cut(handler):
        reply(handler, CONTENT[:70_000], length=len(CONTENT), headers=headers)

    server.answers[:] = [cut, publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.seen[1].get("If-Range", "None").startswith(str(asked))
    assert ("Range" in server.seen[1]) == bool(asked)


def rest(content, headers=(), *, begin=None, total=None, code=206):
    """Return an answer that sends the rest, however wrongly it describes it."""

    def answer(handler):
        start = int(handler.headers["Range"].removeprefix("bytes=")[:-1])
        told = {"ETag": '"1"'}
        shown = start if begin is None else begin
        end = total or len(content)
        told["Content-Range"] = f"bytes {shown}-{end - 1}/{end}"
        told |= dict(headers)
        told = {name: value for name, value in told.items() if value is not None}
        body = content[start:]
        reply(handler, body, code=code, length=len(body), headers=told)

    return answer


def test_rest_without_repeated_headers_is_taken(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT, stop=70_000), rest(CONTENT, {"ETag": None})]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.requests == 2


@pytest.mark.parametrize(
    "wrong",
    [
        rest(CONTENT, begin=0),
        rest(CONTENT, begin=66_001),
        rest(CONTENT, total=len(CONTENT) + 1),
        rest(CONTENT, total=len(CONTENT) - 1),
        rest(CONTENT, {"ETag": '"2"'}),
        rest(CONTENT, {"Content-Range": None}),
        rest(CONTENT, {"Content-Range": "bytes 66000-/*"}),
        rest(CONTENT, {"Content-Range": "bytes 66000-66004/*"}),
        rest(CONTENT, {"Content-Range": f"bytes 66000-66004/{len(CONTENT)}"}),
        rest(CONTENT, {"Content-Range": f"bytes */{len(CONTENT)}"}, code=416),
    ],
)
def test_wrong_part_of_the_file_is_never_joined(server, wanted, tmp_path, wrong):
    server.answers[:] = [publish(CONTENT, stop=66_000), wrong, publish(CONTENT)]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert "Range" in server.seen[1] and "Range" not in server.seen[2]


def test_part_that_is_complete_needs_no_request(server, wanted, tmp_path):
    server.answers[:] = [publish(CONTENT, stop=66_000), status(404)]
    with pytest.raises(data.DataUnavailableError):
        archive.fetch(wanted, tmp_path)
    (tmp_path / "T.tar.gz.part").write_bytes(CONTENT)  # stopped after the last byte
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.requests == 2


def test_gzip_that_a_server_calls_an_encoding_stays_packed(server, wanted, tmp_path):
    def answer(handler):
        encoding = {"Content-Encoding": "x-gzip", "ETag": '"1"'}
        reply(handler, CONTENT, length=len(CONTENT), headers=encoding)

    server.answers[:] = [answer]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT
    assert server.seen[0]["Accept-Encoding"] == "identity"


def test_chunked_answer_is_taken_whole(server, wanted, tmp_path):
    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for begin in range(0, len(CONTENT), 30_000):
            block = CONTENT[begin : begin + 30_000]
            handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.answers[:] = [answer]
    assert archive.fetch(wanted, tmp_path).read_bytes() == CONTENT


def test_second_address_is_tried_when_the_first_has_nothing(server, wanted, tmp_path):
    two = archive.Archive("T.tar.gz", (f"{server.url}/gone", *wanted.urls), wanted.nested)
    server.answers[:] = [status(404), publish(CONTENT)]
    assert archive.fetch(two, tmp_path).read_bytes() == CONTENT


def test_address_with_a_part_is_asked_first_and_keeps_it(server, wanted, tmp_path):
    two = archive.Archive("T.tar.gz", (f"{server.url}/gone", *wanted.urls), wanted.nested)
    server.answers[:] = [status(404), publish(CONTENT, stop=66_000), status(404)]
    with pytest.raises(data.DataUnavailableError, match="byte 66000"):
        archive.fetch(two, tmp_path)
    server.answers[:] = [publish(CONTENT)]
    assert archive.fetch(two, tmp_path).read_bytes() == CONTENT
    assert server.seen[-1]["Range"] == "bytes=66000-"


def test_other_address_does_not_cost_the_part_of_the_first(server, wanted, tmp_path):
    two = archive.Archive("T.tar.gz", (*wanted.urls, f"{server.url}/other"), wanted.nested)
    server.answers[:] = [publish(CONTENT, stop=66_000), status(404), publish(CONTENT)]
    with pytest.raises(data.DataUnavailableError, match="byte 66000"):
        archive.fetch(two, tmp_path)
    assert server.requests == 2


def test_file_put_there_by_hand_is_pinned(wanted, tmp_path):
    (tmp_path / "T.tar.gz").write_bytes(CONTENT)
    archive.fetch(wanted, tmp_path)
    assert lock(tmp_path)["T.tar.gz"]["sha256"] == SHA256


def test_plain_unpacking_equals_that_of_tar(tmp_path):
    long = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 150
    odd = {"./a/../b".replace("../", ""): b"1", long: b"2", "ä/☃ ı.fits": b"3", "x y/=z": b""}
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        folder = tmp_path / str(form)
        folder.mkdir()
        everything = files(FILES | odd) + [member("empty", kind=tarfile.DIRTYPE)]
        (folder / "a.tar.gz").write_bytes(packed(*everything, form=form))
        (folder / "tar").mkdir()
        subprocess.run(["tar", "xzf", "a.tar.gz", "-C", "tar"], cwd=folder, check=True)
        archive.unpack(folder / "a.tar.gz", folder / "ours")
        assert contents(folder / "ours") == contents(folder / "tar")


def test_nested_archives_are_unpacked_where_they_lie(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    archive.unpack(tmp_path / "a.tar.gz", tmp_path / "ours", nested="Data.*.tar.gz")
    assert unpacked(tmp_path / "ours") == FILES
    (tmp_path / "tar").mkdir()
    subprocess.run(["tar", "xzf", "../a.tar.gz"], cwd=tmp_path / "tar", check=True)
    for inner in ("Data.0.tar.gz", "Data.1.tar.gz"):
        folder = tmp_path / "tar/Training"
        subprocess.run(["tar", "xzf", inner], cwd=folder, check=True)
        (folder / inner).unlink()
    assert contents(tmp_path / "ours") == contents(tmp_path / "tar")


def test_archives_stay_packed_unless_their_name_is_asked_for(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    archive.unpack(tmp_path / "a.tar.gz", tmp_path / "ours")
    assert "Training/Data.0.tar.gz" in contents(tmp_path / "ours")


def test_unpacking_takes_over_no_permission_and_no_time(tmp_path):
    odd = member("a.fits", b"1", mode=0o6777, mtime=10**9, uid=1234, gid=1234)
    (tmp_path / "a.tar.gz").write_bytes(packed(odd, member("d", kind=tarfile.DIRTYPE, mode=0)))
    archive.unpack(tmp_path / "a.tar.gz", tmp_path / "ours")
    (tmp_path / "plain").touch()
    status, plain = (tmp_path / "ours/a.fits").stat(), (tmp_path / "plain").stat()
    assert (status.st_mode, status.st_uid) == (plain.st_mode, plain.st_uid)
    assert time.time() - status.st_mtime < 60
    assert (tmp_path / "ours/d").stat().st_mode & 0o700 == 0o700


def test_memory_does_not_grow_with_the_number_of_members(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(
        tarball, "_next", lambda tar, source, real=tarball._next: (
            held.append(len(tar.members)), real(tar, source))[1],
    )  # fmt: skip
    (tmp_path / "a.tar.gz").write_bytes(packed(*(member(str(n)) for n in range(100))))
    assert tarball.read_through(tmp_path / "a.tar.gz").files == 100
    assert max(held) <= 1


def test_survey_is_downloaded_unpacked_and_found_again(server, surveys, tmp_path):
    server.answers[:] = [publish(CONTENT), publish(TABLE)]
    folder = archive.get("two", tmp_path / "meine Daten ☃")
    assert folder == tmp_path / "meine Daten ☃" / "two"
    assert unpacked(folder) == FILES | {"table.csv": TABLE}
    record = json.loads((folder / archive.RECORD).read_text())
    assert record["archives"] == lock(folder.with_name("two-archives"))
    assert record["archives"]["table.csv"]["sha256"] == hashlib.sha256(TABLE).hexdigest()
    shutil.rmtree(folder.with_name("two-archives"))  # 19 GB that are needed no more
    assert archive.get("two", folder.parent) == folder
    assert server.requests == 2
    assert [path.name for path in folder.parent.iterdir()] == ["two"]


def test_unpacked_survey_has_the_images_that_cutouts_look_for(server, surveys, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    table, _ = cutouts.find_cutouts(archive.get("one", tmp_path))
    assert table["object_id"].tolist() == ["100000", "100001", "100002", "100003"]


def test_folder_that_was_removed_is_unpacked_again_without_the_server(server, surveys, tmp_path):
    server.answers[:] = [publish(CONTENT)]
    folder = archive.get("one", tmp_path)
    shutil.rmtree(folder)
    assert unpacked(archive.get("one", tmp_path)) == FILES
    assert server.requests == 1


@pytest.mark.parametrize("named", ["README", "mine.csv"])
def test_data_may_not_name_another_file_of_the_folder(surveys, tmp_path, named):
    put(tmp_path / "mine", "T.tar.gz", "table.csv", "README")
    (tmp_path / "mine" / named).write_text("hello")
    with pytest.raises(tarball.ArchiveError, match=named):
        archive.get("two", tmp_path / "data", data=tmp_path / "mine" / named)


def test_progress_bars_clear_their_line_and_nothing_else_is_printed(
    server, surveys, tmp_path, capfd
):
    server.answers[:] = [publish(CONTENT)]
    archive.get("one", tmp_path)
    out, err = capfd.readouterr()
    assert out == "" and "\n" not in err and err.rpartition("\r")[2] == ""
    for told in ("T.tar.gz: ", "hashing T.tar.gz", "checking T.tar.gz", "unpacking T.tar.gz"):
        assert told in err
    assert err.rstrip("\r").rpartition("\r")[2].strip() == ""


def test_failed_try_is_told_before_the_next(server, wanted, tmp_path, capfd):
    server.answers[:] = [status(503), publish(CONTENT)]
    archive.fetch(wanted, tmp_path)
    lines = capfd.readouterr().err.splitlines()
    assert f"{wanted.urls[0]}: 503 Service Unavailable; trying again in 0 s" in lines


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(TABLE if name.endswith(".csv") else CONTENT)


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"": ["T.tar.gz", "table.csv"]}, ""),
        ({"two": ["T.tar.gz", "table.csv"]}, ""),
        ({"": ["T.tar.gz", "table.csv"]}, "T.tar.gz"),
        ({"": ["T.tar.gz", "table.csv"]}, "table.csv"),
        ({"": ["T (1).tar.gz", "table.csv"]}, "T (1).tar.gz"),
    ],
)
def test_data_may_name_archives_or_their_folder(server, surveys, tmp_path, places, named):
    for place, names in places.items():
        put(tmp_path / "mine" / place, *names)
    before = contents(tmp_path / "mine")
    folder = archive.get("two", tmp_path / "data", data=str(tmp_path / "mine" / named))
    assert folder == tmp_path / "data/two"
    assert unpacked(folder) == FILES | {"table.csv": TABLE}
    assert contents(tmp_path / "mine") == before
    assert server.requests == 0


@pytest.mark.parametrize("place", ["", "one"])
def test_data_may_name_an_unpacked_survey(server, surveys, tmp_path, place):
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    (tmp_path / "mine").mkdir()
    archive.unpack(tmp_path / "a.tar.gz", tmp_path / "mine" / place, nested="Data.*.tar.gz")
    found = archive.get("one", tmp_path / "data", data=tmp_path / "mine")
    assert found == tmp_path / "mine" / place
    assert not (tmp_path / "data").exists() and server.requests == 0


def test_survey_in_cast_lens_data_is_used_and_data_wins_over_it(
    server, surveys, tmp_path, monkeypatch
):
    put(tmp_path / "surveys/one", "T.tar.gz")
    put(tmp_path / "mine", "T.tar.gz")
    (tmp_path / "mine/T.tar.gz").write_bytes(packed(*files(FILES | {"mine": b""})))
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "surveys"))
    assert unpacked(archive.get("one", tmp_path / "a", data="")) == FILES
    assert "mine" in unpacked(archive.get("one", tmp_path / "b", data=tmp_path / "mine"))
    assert server.requests == 0


def test_survey_that_cast_lens_data_lacks_is_downloaded(server, surveys, tmp_path, monkeypatch):
    server.answers[:] = [publish(CONTENT)]
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path))
    assert unpacked(archive.get("one", tmp_path / "data")) == FILES


@pytest.mark.parametrize("named", ["empty", "absent", "empty/T.tar.gz"])
def test_data_without_the_survey_is_never_replaced_by_a_download(server, surveys, tmp_path, named):
    server.answers[:] = [publish(CONTENT)] * 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError) as caught:
        archive.get("one", tmp_path / "data", data=str(tmp_path / named))
    message = str(caught.value)
    for told in (f"DATA={tmp_path / named}", "T.tar.gz", "classifications.csv", "imageEUC_VIS"):
        assert told in message
    assert "\n" not in message and server.requests == 0


def test_cast_lens_data_with_an_empty_survey_is_named(server, surveys, tmp_path, monkeypatch):
    (tmp_path / "surveys/one").mkdir(parents=True)
    monkeypatch.setenv("CAST_LENS_DATA", str(tmp_path / "surveys"))
    with pytest.raises(data.DataError, match=f"^CAST_LENS_DATA={tmp_path / 'surveys'} holds"):
        archive.get("one", tmp_path / "data")
    assert server.requests == 0


def test_survey_with_missing_images_is_used_with_a_warning(surveys, tmp_path):
    for name in list(FILES)[1:4]:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(FILES[name])
    with pytest.warns(UserWarning, match=r"found 2 files imageEUC_VIS-\*.fits, expected 4"):
        assert archive.get("one", tmp_path, data=tmp_path / "mine") == tmp_path / "mine"


def test_archive_of_something_else_becomes_no_survey(server, surveys, tmp_path):
    server.answers[:] = [publish(packed(*files({"Training/classifications.csv": b"ID\n"})))]
    with pytest.raises(data.DataError, match=r"found no imageEUC_VIS-\*.fits, expected 4"):
        archive.get("one", tmp_path)
    assert not (tmp_path / "one").exists()


def test_table_that_the_archive_holds_too_must_be_the_same(server, surveys, tmp_path):
    server.answers[:] = [publish(packed(*files(FILES | {"table.csv": TABLE}))), publish(TABLE)]
    assert unpacked(archive.get("two", tmp_path / "same"))["table.csv"] == TABLE
    server.answers[:] = [publish(packed(*files(FILES | {"table.csv": b"x"}))), publish(TABLE)]
    with pytest.raises(data.DataError, match="table.csv differs"):
        archive.get("two", tmp_path / "differs")


def test_unknown_survey_names_those_there_are(tmp_path):
    with pytest.raises(data.DataError, match="'sglc3'.*sglc1-space, sglc1-ground, sglc2"):
        archive.get("sglc3", tmp_path)


def test_published_surveys_are_those_of_the_challenges():
    assert list(archive.SURVEYS) == ["sglc1-space", "sglc1-ground", "sglc2"]
    for survey in archive.SURVEYS.values():
        assert sum(name.name.endswith(".tar.gz") for name in survey.archives) == 1
        for one in survey.archives:
            assert all(url.startswith("http") and url.endswith(one.name) for url in one.urls)
        assert {pattern.rpartition(".")[2] for pattern, _ in survey.members} == {"csv", "fits"}
    # 20,000 objects a track (Metcalf et al. 2019); 100,000 less nine in the second challenge
    counts = {name: {n for _, n in survey.members} for name, survey in archive.SURVEYS.items()}
    assert counts == {
        "sglc1-space": {1, 20_000}, "sglc1-ground": {1, 20_000}, "sglc2": {1, 99_991},
    }  # fmt: skip


def test_the_command_line_offers_all_surveys():
    from cast_lens import cli

    assert list(archive.SURVEYS) == cli.SURVEYS


def test_what_would_be_done_is_told_without_doing_it(server, surveys, tmp_path):
    def plan(name, **named):
        return archive.plan(name, tmp_path / "data", **named)

    found = plan("two")
    assert found.startswith(f"would download {server.url}/") and f"{server.url}/table.csv" in found
    assert str(tmp_path / "data/two") in found
    put(tmp_path / "mine", "T.tar.gz", "table.csv")
    assert plan("two", data=tmp_path / "mine").startswith(f"would unpack {tmp_path / 'mine'}")
    assert not (tmp_path / "data").exists() and server.requests == 0
    put(tmp_path / "data/one-archives", "T.tar.gz")
    assert plan("one").startswith("T.tar.gz is there; would unpack")
    server.answers[:] = [publish(CONTENT)]
    archive.get("one", tmp_path / "data")
    assert plan("one") == f"{tmp_path / 'data/one'} is there"
    assert "only be read" in plan("one", data=tmp_path / "data/one")
    with pytest.raises(data.DataError, match="no survey is called 'three'"):
        plan("three")
