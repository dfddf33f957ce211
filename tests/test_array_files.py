"""An .npy file is the array that NumPy saved, or costs an error, and runs nothing."""

import gzip
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cast_lens import array_files, fits_image
from cast_lens.cutouts import CutoutError
from tests import fits_files

FIRST = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # (band, height, width)
GOOD = io.BytesIO()
np.save(GOOD, FIRST)
GOOD = GOOD.getvalue()


@pytest.fixture(autouse=True)
def never_waiting():
    """Fail after twenty seconds instead of waiting for ever."""
    with fits_files.within(seconds=20):
        yield


def save(path, array, **options):
    np.save(path, array, **options)
    return path


def header(shape, descr="'<f4'", order="False"):
    """Bytes of an .npy file of format 1.0 up to its pixels, as told."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


def refused(path, reason, channels="last"):
    with pytest.raises(CutoutError) as caught:
        array_files.read_array(path, channels=channels)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_hand_written_file_is_read():
    assert header((1, 1, 2))[:10].hex() == "934e554d5059" + "0100" + "7600"
    assert np.load(io.BytesIO(header((1, 1, 2)) + bytes(8))).shape == (1, 1, 2)


def test_axis_of_the_bands_goes_last(tmp_path):
    path = save(tmp_path / "a.npy", FIRST)
    found = array_files.read_array(path, channels="first")
    assert found.shape == (3, 4, 2) and found.dtype == np.dtype("=f4") and found.flags.c_contiguous
    assert all(
        found[y, x, n] == FIRST[n, y, x] for n in range(2) for y in range(3) for x in range(4)
    )
    assert np.array_equal(array_files.read_array(path, channels="last"), FIRST)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", ">i2", "<u4", ">i8", "u8", "<f2", ">f4", "<f8", ">f8", "g"]
)
def test_every_type_of_real_numbers_is_numpys(tmp_path, dtype, order):
    array = np.random.default_rng(0).integers(0, 100, (4, 3, 2)).astype(dtype, order=order)
    path = save(tmp_path / "a.npy", array)
    found = array_files.read_array(path, channels="last")
    assert found.dtype == np.dtype("=f4")
    assert np.array_equal(found, np.load(path).astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_formats_of_numbers_and_gzip_are_read(tmp_path, version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, FIRST, version=version)
    for data in (stream.getvalue(), gzip.compress(stream.getvalue())):
        (tmp_path / "a.npy").write_bytes(data)
        assert np.array_equal(array_files.read_array(tmp_path / "a.npy", channels="last"), FIRST)


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        """Return what unpickling calls."""
        return open, (self.path, "w")


def canaries(path):
    """Files that run something where pickle is allowed: as .npy, as .npz, as nothing but pickle."""
    array, streams = np.array([[[Canary(path)]]], dtype=object), [io.BytesIO() for _ in range(2)]
    np.save(streams[0], array, allow_pickle=True)
    np.savez(streams[1], image=array)
    return [stream.getvalue() for stream in streams] + [pickle.dumps(Canary(path))]


@pytest.mark.parametrize("k, reason", [(0, "dtype"), (1, "not_array"), (2, "not_array")])
def test_pickle_is_refused_and_does_not_run(tmp_path, k, reason):
    canary, path = tmp_path / "canary", tmp_path / "a.npy"
    path.write_bytes(canaries(canary)[k])
    assert "numpy.save" in refused(path, reason)
    assert not canary.exists()
    loaded = np.load(path, allow_pickle=True)  # which would have run it
    assert loaded is not None and (k == 1 and loaded["image"] is not None or canary.exists())
    assert canary.exists()


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"", "empty", "0 bytes"),
        (b"x", "not_array", "b'x'"),
        (b"<!DOCTYPE html><html>404</html>", "not_array", "numpy.save"),
        (GOOD[:7], "not_array", "numpy.save"),
        (GOOD[:60], "not_array", "numpy.save"),
        (GOOD[:128], "truncated", "0 bytes of pixels, expected 96"),
        (GOOD[:-1], "truncated", "95 bytes of pixels, expected 96"),
        (b"\x93NUMPY\x03\x00" + GOOD[8:], "not_array", "numpy.save"),
        (b"\x93NUMPY\x09\x00" + GOOD[8:], "not_array", "numpy.save"),
        (gzip.compress(GOOD, mtime=0)[:-9], "truncated", "gzip"),
        (b"\x1f\x8bno gzip at all", "not_array", ".npy"),
        (header("(1 << 40, 4)") + bytes(9), "not_array", "numpy.save"),
        (header((4, 4)) + bytes(64), "shape", "(4, 4)"),
        (header((1, 4, 4, 1)) + bytes(64), "shape", "(1, 4, 4, 1)"),
        (header((0, 4, 4)), "shape", "(0, 4, 4)"),
        (header((-1, 4, 4)) + bytes(64), "shape", "(-1, 4, 4)"),
        (header(()) + bytes(4), "shape", "()"),
        (header((1 << 40, 4, 4)) + bytes(64), "shape", "1048576 pixels"),
        (header((1, 1, 1 << 62), "'<f8'") + bytes(64), "shape", "1048576 pixels"),
        (header((1, 2, 2), "'<c8'") + bytes(32), "dtype", "complex64"),
        (header((1, 2, 2), "'<U3'") + bytes(48), "dtype", "<U3"),
        (header((1, 2, 2), "'<M8[s]'") + bytes(32), "dtype", "datetime64"),
        (header((1, 2, 2), "[('a', '<f4')]") + bytes(16), "dtype", "('a', '<f4')"),
        (header((1, 2, 2), "('<f4', (2,))") + bytes(32), "dtype", "<f4"),
        (header((1, 2, 2), "__import__('os').abort()"), "not_array", "numpy.save"),
        (header("(" * 60), "not_array", "numpy.save"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(tmp_path, content, reason, said):
    (tmp_path / "a.npy").write_bytes(content)
    assert said in refused(tmp_path / "a.npy", reason)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "loop", "/dev/zero"):
        assert "a .npy file" in refused(path, "not_array")
    assert "No such file" in refused(tmp_path / "none.npy", "io")
    with pytest.raises(CutoutError, match="missing_band"):
        array_files.read_array(None, channels="last")


def test_a_file_larger_than_a_cutout_can_be_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(GOOD)
    with open(tmp_path / "a.npy", "ab") as stream:
        stream.truncate(fits_image.MAX_BYTES + 1)
    assert "33554432" in refused(tmp_path / "a.npy", "shape")
    (tmp_path / "a.npy").write_bytes(gzip.compress(bytes(fits_image.MAX_BYTES + 1), 1))
    assert "33554432" in refused(tmp_path / "a.npy", "shape")


def test_other_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'middle', expected one of first, last"):
        array_files.read_array(save(tmp_path / "a.npy", FIRST), channels="middle")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_are_an_array_or_a_cutout_error(tmp_path, data):
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 130))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.npy"
    path.write_bytes(damaged[: data.draw(st.sampled_from([None, None, 100, 200]))])
    try:
        found = array_files.read_array(path, channels="last")
    except CutoutError as error:
        assert error.reason in {"not_array", "dtype", "shape", "truncated", "not_fits"}
    else:
        expected = np.load(io.BytesIO(bytes(damaged)), allow_pickle=False).astype(np.float32)
        assert np.array_equal(found, expected, equal_nan=True)


def test_many_files_are_what_each_is_alone_and_bad_pixels_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 5, 4, 3))
    images[1, 2, 2, 0] = np.nan
    images[1, 0, :, 1] = 100
    images[2, 0, 0, 2] = -np.inf
    images[3, ..., 1] = 1e300  # beyond float32
    paths = [save(tmp_path / f"{k}.npy", image) for k, image in enumerate(images)]
    paths[4] = save(tmp_path / "other.npy", np.ones((5, 4, 2)))
    (tmp_path / "5.npy").write_bytes(b"")
    out = np.full((6, 5, 4, 3), 7, np.float32)
    n_masked, n_nonfinite, errors = array_files.read_arrays_into(
        paths, out, channels="last", mask_value=99
    )
    with np.errstate(over="ignore"):
        single = images.astype(np.float32)
    bad = ~np.isfinite(single)
    masked = ~bad & (single >= 99)
    assert np.array_equal(out[:4], np.where(bad | masked, 0, single)[:4])
    assert not out[4:].any()
    assert n_masked.tolist() == [*masked[:4].sum((1, 2)).tolist(), [0] * 3, [0] * 3]
    assert n_nonfinite.tolist() == [*bad[:4].sum((1, 2)).tolist(), [0] * 3, [0] * 3]
    assert n_masked.sum() == 4 and n_nonfinite.sum() == 22
    assert {k: error.reason for k, error in errors.items()} == {4: "shape", 5: "empty"}
    assert "(5, 4, 2)" in str(errors[4]) and "(5, 4, 3)" in str(errors[4])


def test_nothing_is_masked_without_a_mask_value_and_nan_is_none(tmp_path):
    path = save(tmp_path / "a.npy", np.full((2, 2, 1), 1e30))
    out = np.empty((1, 2, 2, 1), np.float32)
    n_masked, _, _ = array_files.read_arrays_into([path], out, channels="last")
    assert not n_masked.any() and (out == np.float32(1e30)).all()
    with pytest.raises(ValueError, match="mask_value is nan"):
        array_files.read_arrays_into([path], out, channels="last", mask_value=np.nan)
