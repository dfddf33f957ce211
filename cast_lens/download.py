"""One file over HTTP, resumed where it was cut; until it is complete it is only a part."""

import errno
import itertools
import json
import os
import re
import shutil
import sys
import time
from contextlib import contextmanager

from cast_lens.data import require_space
from cast_lens.run import write_whole

TIMEOUT = 30  # seconds without a byte before a connection counts as dead
TRIES = 5  # failures in a row before giving up
PROGRESS = 1 << 20  # bytes gained that begin the count of failures anew
BACKOFF = 1.0  # seconds before the second try, doubled with every failure in a row
MAX_WAIT = 300  # seconds; a server that asks for more is left to the user's patience

_BLOCK = 1 << 16
_HEAD = 1024  # bytes at the beginning by which a wrong file is known
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # what a server may get over


class DownloadError(RuntimeError):
    """A download that failed; the message is the cause.

    Attributes:
        wait: Seconds after which it is worth trying again, None if it never is.
    """

    def __init__(self, cause, *, wait=None):
        """Keep what the caller decides by."""
        super().__init__(cause)
        self.wait = wait


def download(url, part, *, check):
    """Bring a file, or the rest of it, to `part`.

    Beside it, `part`.json says which version of which file the bytes are of. They are used again
    only if the server confirms that version (If-Range); otherwise the file is begun anew.

    Args:
        url: Public address.
        part: Path to write to; not the final name, for it grows. The caller makes sure that no
            other process writes to it.
        check: Function of the first 1024 bytes that returns what is wrong with them, or "".

    Raises:
        DownloadError: If the server cannot be reached, fails several times in a row, refuses, or
            sends something else. What a later call can go on from is kept.
        OSError: If the disk is full; says how many bytes are needed and free.
    """
    tries, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, check)
            return
        except DownloadError as error:
            failure = error
        tries = 1 if _size(part) >= most + PROGRESS else tries + 1
        most = max(most, _size(part))
        if failure.wait is None:
            raise failure
        if tries >= TRIES:
            raise DownloadError(f"{failure}; {tries} failures in a row") from failure
        wait = max(failure.wait, BACKOFF * 2 ** (tries - 1))
        print(f"{url}: {failure}; trying again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)


def kept(url, part):
    """Return the byte of the file that a call of `download` would go on from."""
    begun, size = _begun(url, part), _size(part)
    return size if begun.get("validator") or size == begun.get("length") else 0


def is_web_page(head):
    """Return whether a file that begins like this is HTML or XML, as servers send for a file."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def discard(part):
    """Remove a part and what is known of it."""
    for path in (part, _record(part)):
        path.unlink(missing_ok=True)


def _attempt(url, part, check):
    import requests
    from urllib3.exceptions import HTTPError

    begun, start = _begun(url, part), kept(url, part)
    if start and start == begun["length"]:
        return  # an earlier call was stopped after the last byte
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": begun["validator"]}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            begun, start = _answer(response, part, begun, start)
            _receive(response, part, begun | {"url": url}, start, check)
    except (requests.ConnectionError, requests.Timeout) as error:
        cause = f"{type(error).__name__}: the server could not be reached"
        raise DownloadError(cause, wait=0) from error
    except HTTPError as error:
        cause = f"{type(error).__name__}: the connection broke after {_size(part)} bytes"
        raise DownloadError(cause, wait=0) from error
    except (requests.RequestException, ValueError) as error:  # ValueError: of a broken address
        raise DownloadError(" ".join(str(error).split())) from error


def _answer(response, part, begun, start):
    """Return what is known of the file, and from which byte on the server sends it."""
    status = response.status_code
    if status == 200:
        return _describe(response), 0
    if status == 206 and start:
        length = _length_if_same(response, begun, start)
        if length:
            return begun | {"length": length}, start
    if status in (206, 416):
        discard(part)
        raise DownloadError("the server answered with another part than asked for", wait=0)
    cause = f"{status} {response.reason}"
    raise DownloadError(cause, wait=_wait(response, cause) if status in _AGAIN else None)


def _describe(response):
    """Return what an answer says about a file that it sends from the first byte on."""
    told = response.headers
    if "html" in told.get("Content-Type", "").lower():
        raise DownloadError(f"a web page ({told['Content-Type']}) instead of the file")
    length = told.get("Content-Length", "")
    if not length.isdecimal() and told.get("Transfer-Encoding", "").lower() != "chunked":
        raise DownloadError("the server does not say how long the file is")
    etag, modified = _validators(response)
    strong = etag if etag and not etag.startswith("W/") else modified
    return {
        "length": int(length) if length.isdecimal() else None,
        "etag": etag,
        "last_modified": modified,
        "validator": strong,
    }


def _receive(response, part, begun, start, check):
    """Write the body of an answer to `part` from byte `start` on."""
    from tqdm import tqdm

    # Undecoded: servers call a .tar.gz "gzip-encoded", but its hash is that of the packed bytes.
    blocks = response.raw.stream(_BLOCK, decode_content=False)
    first = next(blocks, b"")
    if not start and len(first) >= _HEAD:  # a shorter block is checked when all is there
        _refuse(check(first[:_HEAD]))
    require_space(part.parent, (begun["length"] or start) - start)
    if not start:
        part.unlink(missing_ok=True)  # before its record changes, or old bytes would go on as new
        write_whole(_record(part), json.dumps(begun, indent=1) + "\n")
    name = part.name.removesuffix(".part")
    bar = tqdm(desc=name, total=begun["length"], initial=start, unit="B", unit_scale=True,
               leave=False)  # fmt: skip
    with bar, _full_disk(part, begun["length"]), open(part, "ab" if start else "wb") as stream:
        for block in itertools.chain([first], blocks):
            stream.write(block)
            bar.update(len(block))
        stream.flush()
        os.fsync(stream.fileno())
    _complete(part, begun, check)


def _complete(part, begun, check):
    """Refuse a part that is not all of the file, keeping it only if it is the beginning."""
    size = _size(part)
    if begun["length"] is None:
        begun = begun | {"length": size}
        write_whole(_record(part), json.dumps(begun, indent=1) + "\n")
    if size < begun["length"]:
        cause = f"the connection closed after {size} of {begun['length']} bytes"
        raise DownloadError(cause, wait=0)
    with open(part, "rb") as stream:
        wrong = check(stream.read(_HEAD))
    if size > begun["length"] or wrong:
        discard(part)
        _refuse(wrong or f"{size} bytes instead of {begun['length']}")


def _refuse(wrong):
    if wrong:
        raise DownloadError(wrong)


@contextmanager
def _full_disk(part, length):
    """Say how much space is missing where a write fails."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed, free = (length or 0) - _size(part), shutil.disk_usage(part.parent).free
        cause = f"{error.strerror}; {needed} bytes needed, {free} free; run again to go on"
        raise OSError(error.errno, cause, str(part)) from error


def _validators(response):
    return [response.headers.get(name) for name in ("ETag", "Last-Modified")]


def _length_if_same(response, begun, start):
    """Return the length of the whole file if an answer is the rest of the version begun, else 0."""
    told = response.headers.get("Content-Range", "")
    span = re.fullmatch(rf"bytes {start}-(\d+)/(\d+)", told)
    if not span or int(span[1]) != int(span[2]) - 1:
        return 0
    length, was = int(span[2]), [begun["etag"], begun["last_modified"]]
    # A 206 may leave out what the request already said.
    same = all(now in (None, then) for now, then in zip(_validators(response), was, strict=True))
    return length if same and begun["length"] in (None, length) else 0


def _wait(response, cause):
    """Return the seconds that Retry-After asks for, as a number or a date; 0 without it."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        wait = Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except (InvalidHeader, ValueError, OverflowError):
        return 0
    if wait > MAX_WAIT:
        raise DownloadError(f"{cause}; the server asks to come back in {wait:.0f} s")
    return wait


def _begun(url, part):
    """Return what is known of the file that `part` was begun as; {} if that is not `url`."""
    try:
        begun = json.loads(_record(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    wanted = {"url", "length", "etag", "last_modified", "validator"}
    known = isinstance(begun, dict) and set(begun) == wanted and begun["url"] == url
    return begun if known else {}


def _record(part):
    return part.with_name(part.name + ".json")


def _size(part):
    return part.stat().st_size if part.exists() else 0
