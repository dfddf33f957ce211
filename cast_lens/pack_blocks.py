"""A block of objects, written to its place in the arrays of a pack.

Processes work on blocks side by side, yet records lie in catalog order without gaps, and each is
written once: where a block begins is known as soon as all blocks before it were read, and one
process tells the next in the file `starts`. A block whose images are written leaves a record with
the checksum of each. When a run was killed, the next one skips the blocks whose images still have
these checksums; so nothing need be flushed to disk on the way.
"""

import json
import os
import struct
import time
import zlib

import numpy as np

from cast_lens import half, run
from cast_lens.pack_files import PackError, array_header, array_name
from cast_lens.pack_plan import read_block

BLOCK = 64  # objects; 14 MB of the II SGLC
_UNKNOWN = struct.pack("<q", -1)
_POLL = 5e-4  # seconds


def begin(staging, n_blocks):
    """Write the file `starts`: where each block begins, which is unknown but for the first.

    Args:
        staging: Folder of the unfinished pack.
        n_blocks: Number of blocks.
    """
    content = struct.pack("<q", 0) + _UNKNOWN * n_blocks
    run.write_whole(staging / "starts", content, scratch=staging / "scratch", flush=False)


def pack_block(staging, plan, number, object_ids, paths):
    """Write the records of one block, unless an earlier run did.

    Args:
        staging: Folder of the unfinished pack.
        plan: The `pack_plan.Plan`.
        number: Of the block, counted from 0. All before it are done, or in work elsewhere.
        object_ids: Of its objects.
        paths: As for `read_block`.

    Returns:
        How many objects there are.

    Raises:
        PackError: If an object cannot be used and `plan.strict`.
        OSError: If something cannot be written; says how many bytes are needed and free.
    """
    record, block = read_record(staging, number, len(paths)), None
    if record is None or plan.strict and record["errors"]:
        record, block = None, read_block(plan, paths)
    start = _wait_for_start(staging, number)
    if record and not (record["start"] == start and _is_sound(staging, plan, record)):
        record, block = None, read_block(plan, paths)
    if block and block.errors and plan.strict:
        k, error = min(block.errors.items())
        remedy = "mend it, or pack without --strict, which sets such objects aside and lists them"
        raise PackError(f"object_id {object_ids[k]}: {error}; {remedy}")
    n_ok = len(paths) - len(block.errors) if block else record["n_ok"]
    _tell_start(staging, number + 1, start + n_ok)
    if block:
        _write(staging, plan, number, start, block)
    return len(paths)


def read_record(staging, number, n_objects):
    """Return what is recorded of a block.

    Args:
        staging: Folder of the unfinished pack.
        number: Of the block.
        n_objects: Objects in it.

    Returns:
        None if there is no sound record, or a dict of start, n_ok, errors (index in the block,
        reason, path, found and expected of each object that cannot be used), warnings, and inputs:
        {name: {"checksums": ..., "loss": ... of float16, each of `pack_plan.COUNTS`: ...}}, one
        entry for each object that has a record.
    """
    try:
        record = json.loads(_record_path(staging, number).read_text(encoding="utf-8"))
        n_found = record["n_ok"] + len(record["errors"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # a crash can leave it empty
        return None
    return record if n_found == n_objects else None


def offset(plan, name, record):
    """Return where a record begins in the array file of an input, in bytes."""
    header = array_header(0, plan.record_shape(name), plan.dtype)
    return len(header) + record * plan.record_bytes(name)


def _record_path(staging, number):
    return staging / f"blocks/{number:06d}.json"


def _write(staging, plan, number, start, block):
    """Write the images that are good, then the record that says so."""
    inputs = {}
    for name, images in block.images.items():
        good = [k for k in range(len(images)) if k not in block.errors]
        images, loss = images[good] if block.errors else images, None
        if plan.dtype == "float16":
            images, loss = half.encode(images, plan.scales[name])
        images = np.ascontiguousarray(images, np.dtype(plan.dtype).newbyteorder("<"))
        _write_at(staging / array_name(name), images, offset(plan, name, start))
        counts = {key: count[good].tolist() for key, count in block.counts[name].items()}
        inputs[name] = counts | {"checksums": [zlib.crc32(i) for i in images], "loss": loss}
    errors = [
        [k, e.reason, *map(plan.relative, (e.path, e.found, e.expected))]
        for k, e in sorted(block.errors.items())
    ]
    record = {"start": start, "n_ok": len(good), "inputs": inputs}
    text = json.dumps(record | {"errors": errors, "warnings": block.warnings})
    path = _record_path(staging, number)
    run.write_whole(path, text, scratch=staging / "scratch", flush=False)


def _write_at(path, array, place):
    left = memoryview(array.reshape(-1).view(np.uint8))
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        while left:
            n_written = os.pwrite(file, left, place)
            left, place = left[n_written:], place + n_written
    except OSError as error:
        cause = f"{error.strerror}; {len(left)} bytes needed, {run.free_bytes(path)} free"
        raise OSError(error.errno, cause, str(path)) from error
    finally:
        os.close(file)


def _is_sound(staging, plan, record):
    """Return whether the images of a block are still what was written."""
    for name, found in record["inputs"].items():
        size = plan.record_bytes(name)
        try:
            with open(staging / array_name(name), "rb", buffering=0) as file:
                file.seek(offset(plan, name, record["start"]))
                sums = [zlib.crc32(file.read(size)) for _ in found["checksums"]]
        except FileNotFoundError:
            return False
        if sums != found["checksums"] or len(sums) != record["n_ok"]:
            return False
    return True


def _wait_for_start(staging, number):
    """Return the first record of a block, once the process that reads the one before tells it."""
    file = os.open(staging / "starts", os.O_RDONLY)
    try:
        while (told := os.pread(file, 8, 8 * number)) == _UNKNOWN:
            time.sleep(_POLL)
    finally:
        os.close(file)
    return struct.unpack("<q", told)[0]


def _tell_start(staging, number, start):
    file = os.open(staging / "starts", os.O_WRONLY)
    try:
        os.pwrite(file, struct.pack("<q", start), 8 * number)
    finally:
        os.close(file)
