"""Faults 1 to 9 and 11 of faults.md: a bad file costs its object and never changes another one.

Each fault is put among good files of one batch, at the first, a middle and the last place.
"""

import errno
import gzip
import io
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from cast_lens import byte_order, cutouts, fits_image
from tests import fits_files
from tests.fits_files import by_hand, survey_file

SHAPE = (40, 44)
OBJECTS = 5
IMAGES = [
    (7.7e-13 * np.random.default_rng(n).standard_normal(SHAPE)).astype(np.float32)
    for n in range(OBJECTS)
]
GOOD = survey_file(IMAGES[0])


@pytest.fixture(autouse=True)
def never_waiting():
    """Fail after twenty seconds instead of waiting for ever."""
    with fits_files.within(seconds=20):
        yield


@pytest.fixture
def paths(tmp_path):
    """Paths of `OBJECTS` good files, whose images are `IMAGES`."""
    found = [tmp_path / f"imageEUC_VIS-{n}.fits" for n in range(OBJECTS)]
    for path, image in zip(found, IMAGES, strict=True):
        path.write_bytes(survey_file(image))
    return found


def put(content, path):
    """Put bytes, or what a function of the path makes, in the place of a file; return its path."""
    if callable(content):
        path.unlink()
        return content(path)
    path.write_bytes(content)
    return path


def cards(*changes, pixels=IMAGES[0]):
    """Bytes of a good file but for the cards of the same keyword, which are replaced."""
    header, at = [], 0
    good = survey_file(pixels)
    while good[at : at + 80] != fits_files.END:
        header.append(good[at : at + 80])
        at += 80
    for change in changes:
        card = change if isinstance(change, bytes) else change.encode()
        header = [card if c[:8] == card[:8] else c for c in header]
        header += [card] * (card not in header)
    return by_hand(header, pixels)


def extension(kind):
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), kind(IMAGES[0])]).writeto(stream)
    return stream.getvalue()


def make_folder(path):
    path.mkdir()
    return path


def make_fifo(path):
    os.mkfifo(path)
    return path


def make_full_fifo(path):
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # stays open with the process, and holds GOOD
    os.write(pipe, GOOD)
    return path


def make_loop(path):
    path.symlink_to(path)
    return path


def make_huge_header(path):
    with open(path, "wb") as stream:
        stream.write(GOOD[:400] + b"COMMENT x".ljust(80) * 5000)
        stream.truncate(100_000_000)
    return path


def make_huge(path):
    path.write_bytes(GOOD)
    os.truncate(path, 80_000_000)
    return path


def make_bomb(path):
    path.write_bytes(gzip.compress(GOOD + bytes(80_000_000), 1))
    return path


def make_none(path):
    return None


QUARANTINED = {
    # 1: cut short
    "cut_in_first_card": (GOOD[:40], "truncated"),
    "cut_before_end": (GOOD[:800], "truncated"),
    "cut_at_block": (GOOD[:2880], "truncated"),
    "cut_in_pixels": (GOOD[:5000], "truncated"),
    "one_pixel_short": (GOOD[: 2880 + 4 * 40 * 44 - 1], "truncated"),
    # 2: no FITS file
    "empty": (b"", "empty"),
    "one_byte": (b"x", "not_fits"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not_fits"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF" + b"\0" * 9000, "not_fits"),
    "folder": (make_folder, "not_fits"),
    "fifo": (make_fifo, "not_fits"),
    "fifo_with_an_image": (make_full_fifo, "not_fits"),
    "loop": (make_loop, "not_fits"),
    "zeros": (lambda path: Path("/dev/zero"), "not_fits"),
    # 3: axes
    **{f"naxis_{n}": (cards(f"NAXIS   = {n:20}"), "shape") for n in (0, 1, 3, 4, 10**6)},
    **{
        f"naxis1_{n}": (cards(f"NAXIS1  = {n:20}"), "shape")
        for n in (0, -1, 2**20, 10**9, 10**18, 10**30, "", "44.0")
    },
    "no_naxis2": (GOOD.replace(b"NAXIS2  =", b"NOXIS2  ="), "shape"),
    "turned": (survey_file(IMAGES[0].T.copy()), "shape"),
    "smaller": (survey_file(IMAGES[0][:-1]), "shape"),
    "larger": (survey_file(np.pad(IMAGES[0], 1)), "shape"),
    # 4: pixel type
    **{f"bitpix_{n}": (cards(f"BITPIX  = {n:20}"), "dtype") for n in (0, 7, -16, "", "T")},
    "bscale_nan": (cards("BSCALE  = NaN"), "header"),
    # 5: little-endian
    "swapped": (survey_file(IMAGES[0].byteswap()), "range"),
    "swapped_doubles": (survey_file(IMAGES[0].astype(np.float64).byteswap()), "range"),
    # 6: compression
    "gzip_cut": (gzip.compress(GOOD)[:3000], "truncated"),
    "gzip_bomb": (make_bomb, "shape"),
    "huge": (make_huge, "shape"),
    "image_extension": (extension(fits.ImageHDU), "shape"),
    "tile_compressed": (extension(fits.CompImageHDU), "shape"),
    # 9: header
    "no_end": (GOOD[:2800].replace(fits_files.END, b" " * 80).ljust(2880) + GOOD[:2880], "header"),
    "twice": (cards().replace(b"NX      =", b"NAXIS1  ="), "header"),
    "lower_case": (cards().replace(b"NX      =", b"naxis1  ="), "header"),
    "hierarch": (cards("HIERARCH NAXIS1 = 44"), "header"),
    "huge_header": (make_huge_header, "shape"),
    # 11, 13: no file
    "absent": (lambda path: path, "io"),
    "null_byte": (lambda path: f"{path}\0", "io"),
    "none": (make_none, "missing_band"),
}


def expected_batch(k, image):
    return np.stack([image if n == k else IMAGES[n] for n in range(OBJECTS)])


@pytest.mark.parametrize("k", [0, 2, 4])
@pytest.mark.parametrize("fault", QUARANTINED)
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_bad_file_costs_its_object_alone(paths, fault, k):
    content, reason = QUARANTINED[fault]
    paths[k] = put(content, paths[k])
    out = np.full((OBJECTS, *SHAPE), 7, np.float32)
    counts = cutouts.read_into(paths, out, mask_value=100)
    assert {n: error.reason for n, error in counts.errors.items()} == {k: reason}
    assert "\n" not in str(counts.errors[k]) and "expected" in str(counts.errors[k])
    assert out.tobytes() == expected_batch(k, np.zeros(SHAPE, np.float32)).tobytes()
    assert not counts.n_masked.any() and not counts.n_nonfinite.any()
    assert not counts.is_constant.any()


def test_bad_file_costs_a_band_of_an_object_and_no_other_band(paths):
    out = np.full((OBJECTS, *SHAPE, 3), 7, np.float32)
    paths[2].write_bytes(b"")
    assert list(cutouts.read_into(paths, out[..., 1]).errors) == [2]
    assert np.array_equal(out[..., 1], expected_batch(2, 0 * IMAGES[2]))
    assert (out[..., [0, 2]] == 7).all()


def test_strict_raises_the_first_error(paths):
    paths[1].write_bytes(b"")
    paths[3].write_bytes(GOOD[:3000])
    with pytest.raises(cutouts.CutoutError, match="empty") as caught:
        cutouts.read_into(paths, np.empty((OBJECTS, *SHAPE), np.float32), strict=True)
    assert caught.value.path == paths[1]


def test_many_faults_at_once_are_each_charged_to_their_own_object(tmp_path):
    drawn, size = random.Random(0), 400
    names = [name for name in QUARANTINED if isinstance(QUARANTINED[name][0], bytes)]
    names = [name for name in names if len(QUARANTINED[name][0]) < 100_000]
    reasons, images, every = {}, np.zeros((size, *SHAPE), np.float32), []
    for n in range(size):
        every.append(tmp_path / f"{n}.fits")
        if drawn.random() < 0.2:
            content, reasons[n] = QUARANTINED[drawn.choice(names)]
        else:
            images[n] = IMAGES[n % OBJECTS] * n
            images[n, 0, 0] = 1e-12
            content = survey_file(images[n])
        every[-1].write_bytes(content)
    out = np.empty_like(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = cutouts.read_into(every, out)
    assert {n: error.reason for n, error in counts.errors.items()} == reasons
    assert out.tobytes() == images.tobytes()


def written_by_astropy(pixels, **kwargs):
    stream = io.BytesIO()
    hdu = fits.PrimaryHDU(pixels)
    hdu.header["LONGS"] = "x" * 150
    hdu.header["HIERARCH range x"] = 4.89661817911e-05
    hdu.writeto(stream, **kwargs)
    return stream.getvalue()


@pytest.mark.parametrize("k", [0, 2, 4])
@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(GOOD),
        GOOD + GOOD,
        GOOD + b"\0" * 5000,
        survey_file(IMAGES[0].astype(np.float64)),
        cards("BSCALE  =                  2.0", "BZERO   =                1E-12"),
        cards("BSCALE  =                  2.0", "BSCALE  =                  3.0"),
        cards(b"NOTE    = '\xe9'"),
        cards(b"COMMENT \0\0"),
        cards("crota2  = 5", " crota2 = 6"),
        cards("CHECKSUM= 'abc'"),
        survey_file(IMAGES[0], *["COMMENT x"] * 3000),
        written_by_astropy(IMAGES[0]),
        written_by_astropy(IMAGES[0], checksum=True),
        written_by_astropy(np.arange(40 * 44, dtype=np.int16).reshape(SHAPE)),
        written_by_astropy(np.arange(40 * 44, dtype=np.uint32).reshape(SHAPE)),
    ],
)
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_unusual_file_is_read_as_astropy_reads_it_and_changes_no_other(paths, content, k):
    paths[k].write_bytes(content)
    out = np.full((OBJECTS, *SHAPE), 7, np.float32)
    start = time.perf_counter()
    assert not cutouts.read_into(paths, out).errors
    assert time.perf_counter() - start < 1  # 50 ms on an idle machine, faults.md row 9
    image = fits.getdata(io.BytesIO(gzip.decompress(content) if content[0] == 31 else content))
    assert out.tobytes() == expected_batch(k, image.astype(np.float32)).tobytes()


@pytest.mark.parametrize("cut", [1, 79, 80, len(GOOD) - 2880 - 4 * 40 * 44])
def test_missing_padding_is_a_warning_with_the_path(paths, cut):
    paths[2].write_bytes(survey_file(IMAGES[2])[:-cut])
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    with pytest.warns(UserWarning, match=f"{paths[2]}: padding is missing"):
        assert not cutouts.read_into(paths, out).errors
    assert np.array_equal(out, IMAGES)


def test_batch_cut_short_anywhere_is_charged_to_the_cut_file(paths):
    whole, pixels_end = survey_file(IMAGES[1]), 2880 + 4 * 40 * 44
    blocks = range(0, len(whole) + 1, 2880)
    cuts = {b + edge for b in blocks for edge in (-80, -79, -1, 0, 1, 79, 80)}
    cuts |= set(random.Random(0).sample(range(len(whole)), 50)) | {pixels_end - 1, pixels_end}
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    for cut in sorted(c for c in cuts if 0 <= c <= len(whole)):
        paths[1].write_bytes(whole[:cut])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            errors = cutouts.read_into(paths, out).errors
        is_whole = cut >= pixels_end
        reasons = {} if is_whole else {1: "truncated" if cut else "empty"}
        assert {n: error.reason for n, error in errors.items()} == reasons
        assert len(caught) == (is_whole and cut < len(whole))
        expected = expected_batch(1, IMAGES[1] if is_whole else 0 * IMAGES[1])
        assert np.array_equal(out, expected), cut


@pytest.mark.parametrize("where", ["one", "row", "all"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -1e38, 100.0])
@pytest.mark.parametrize("mask_value", [None, 100, 99])
@pytest.mark.filterwarnings("error")
def test_bad_pixels_follow_the_mask_rule_and_stay_in_their_object(paths, mask_value, value, where):
    image = IMAGES[2].copy()
    image[{"one": (3, 4), "row": 3, "all": ...}[where]] = value
    paths[2].write_bytes(survey_file(image))
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    counts = cutouts.read_into(paths, out, mask_value=mask_value)
    assert not counts.errors
    n_bad = {"one": 1, "row": 44, "all": 40 * 44}[where]
    is_nonfinite = not np.isfinite(value)
    is_masked = not is_nonfinite and mask_value is not None and value >= mask_value
    assert counts.n_nonfinite.tolist() == [0, 0, n_bad * is_nonfinite, 0, 0]
    assert counts.n_masked.tolist() == [0, 0, n_bad * is_masked, 0, 0]
    if is_nonfinite or is_masked:
        image[image == value if value == value else np.isnan(image)] = 0
    assert out.tobytes() == expected_batch(2, image).tobytes()
    assert counts.is_constant.tolist() == [False, False, where == "all", False, False]
    alone, alone_counts = cutouts.read_cutout([paths[2]], mask_value=mask_value)
    assert alone.tobytes() == out[2].tobytes()
    assert alone_counts.n_masked == (n_bad * is_masked,)


@pytest.mark.parametrize("mask_value", [1e-12, 1e-30, 0, -1])
def test_every_pixel_at_or_above_a_small_mask_value_is_masked(paths, mask_value):
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    counts = cutouts.read_into(paths, out, mask_value=mask_value)
    expected = np.where(np.array(IMAGES) >= np.float32(mask_value), 0, IMAGES)
    assert np.array_equal(out, expected)
    assert counts.n_masked.tolist() == [(i >= np.float32(mask_value)).sum() for i in IMAGES]


@pytest.mark.parametrize("value", [0.0, -0.0, 7.7e-13, 1.0])
@pytest.mark.filterwarnings("error")
def test_constant_image_is_kept_and_counted(paths, value):
    image = np.full(SHAPE, value, np.float32)
    paths[3].write_bytes(survey_file(image))
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    counts = cutouts.read_into(paths, out, mask_value=100)
    assert not counts.errors and not counts.n_masked.any()
    assert counts.is_constant.tolist() == [False, False, False, True, False]
    assert out[3].tobytes() == image.tobytes()
    statistics = cutouts.pixel_statistics(out[3][..., None])
    assert statistics["std"] == 0 and statistics["min"] == statistics["max"] == np.float32(value)


def u_100020():
    """Pixels with the statistics that are known of the real image U-100020 of the I SGLC.

    Minimum -1.27e21; 5,520 of 10,201 pixels at 99 or more; of the others the median is 2.28e-12
    and the maximum 56.4. So of the others nearly half may have any magnitude, as here.
    """
    rng = np.random.default_rng(0)
    size = 101 * 101 - 5520
    pixels = rng.normal(2.28e-12, 2e-12, size)
    wild = rng.permutation(size)[: size * 45 // 100]
    pixels[wild] = 10.0 ** rng.uniform(-38, 1.7, wild.size)
    pixels[wild[: wild.size // 2]] = -(10.0 ** rng.uniform(-38, 21, wild.size // 2))
    pixels[wild[:2]] = -1.27e21, 56.4
    return pixels.astype(np.float32)


@pytest.mark.parametrize("masked", [np.full(5520, 100.0), np.geomspace(99, 1e38, 5520)])
@pytest.mark.filterwarnings("error")
def test_real_image_with_absurd_pixels_is_not_taken_for_little_endian(tmp_path, masked):
    image = np.concatenate([u_100020(), masked.astype(np.float32)]).reshape(101, 101)
    (tmp_path / "a.fits").write_bytes(survey_file(image))
    found, counts = cutouts.read_cutout([tmp_path / "a.fits"], mask_value=99)
    assert counts.n_masked == (5520,) and found.min() == np.float32(-1.27e21)


def test_real_images_are_refused_when_swapped_and_only_then(real_data, tmp_path):
    paths = sorted((real_data / "sglc1").rglob("*.fits"))
    out = np.empty((len(paths), 101, 101), np.float32)
    assert not cutouts.read_into(paths, out).errors
    for n, path in enumerate(paths):
        # What the docstring of byte_order says of these images.
        assert byte_order._keeping_together(out[n]) >= 0.97 * out[n].size
        assert byte_order._keeping_together(out[n].byteswap()) <= 0.14 * out[n].size
        (tmp_path / path.name).write_bytes(survey_file(out[n].byteswap()))
    errors = cutouts.read_into([tmp_path / path.name for path in paths], out).errors
    assert {error.reason for error in errors.values()} == {"range"} and len(errors) == len(paths)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "image",
    [
        IMAGES[0],
        IMAGES[0] * 1e-18,  # erg / s / cm2 / Hz
        IMAGES[0] * 1e16 + 300,  # electrons
        np.round(IMAGES[0] * 1e14),  # counts, whose last bits are 0
        np.where(IMAGES[0] > 0, 100, IMAGES[0]),
        np.where(IMAGES[0] > 0, np.nan, IMAGES[0]),
        np.where(IMAGES[0] > 0, 0, IMAGES[0]),
    ],
)
def test_byte_order_is_told_in_every_unit(paths, image, dtype):
    image = image.astype(dtype)
    paths[1].write_bytes(survey_file(image))
    paths[2].write_bytes(survey_file(image.byteswap()))
    errors = cutouts.read_into(paths, np.empty((OBJECTS, *SHAPE), np.float32)).errors
    assert {n: error.reason for n, error in errors.items()} == {2: "range"}


@pytest.mark.parametrize("seed", range(5))
def test_bytes_drawn_at_random_are_not_taken_for_little_endian(seed):
    rng = np.random.default_rng(seed)
    for size in (1, 3, 30, 1000, 40_000):
        stored = np.frombuffer(rng.bytes(4 * size), ">f4")
        with np.errstate(invalid="ignore"):
            assert not byte_order.is_swapped(stored.astype(np.float32), stored)


def failing(monkeypatch, code, times):
    """Let the next `times` attempts to open a file fail; return the list of those attempts."""
    attempts, real_open = [], os.open

    def fail(path, flags, *args, **kwargs):
        attempts.append(path)
        if len(attempts) <= times:
            raise OSError(code, os.strerror(code), path)
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    return attempts


PASSING = [errno.EIO, errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.EMFILE]


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("times", [1, 3])
def test_error_that_passes_is_waited_for(paths, monkeypatch, code, times):
    monkeypatch.setattr(fits_image, "RETRY_SECONDS", (0, 0, 0))
    attempts = failing(monkeypatch, code, times)
    assert np.array_equal(cutouts.read_cutout(paths[:1])[0][..., 0], IMAGES[0])
    assert len(attempts) == times + 1
    attempts.clear()
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    assert not cutouts.read_into(paths, out).errors
    assert np.array_equal(out, IMAGES)


@pytest.mark.parametrize("code", [*PASSING, errno.ENOENT, errno.EACCES])
def test_error_that_stays_is_an_io_error_after_a_bounded_number_of_attempts(
    paths, monkeypatch, code
):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    attempts = failing(monkeypatch, code, 10**9)
    with pytest.raises(cutouts.CutoutError, match=os.strerror(code)) as caught:
        cutouts.read_cutout(paths[:1])
    assert caught.value.reason == "io"
    assert waited == (list(fits_image.RETRY_SECONDS) if code in PASSING else [])
    assert len(attempts) == len(waited) + 1
    errors = cutouts.read_into(paths, np.empty((OBJECTS, *SHAPE), np.float32)).errors
    assert [error.reason for error in errors.values()] == ["io"] * OBJECTS
    assert sum(fits_image.RETRY_SECONDS) < 0.5


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs /proc")
def test_failed_transfer_is_an_io_error(paths):
    paths[2] = "/proc/self/mem"  # reading at 0, where no page is, is an I/O error of the system
    out = np.empty((OBJECTS, *SHAPE), np.float32)
    errors = cutouts.read_into(paths, out).errors
    assert str(errors[2]).startswith("/proc/self/mem: io: found Input/output error")
    assert list(errors) == [2] and np.array_equal(out, expected_batch(2, 0 * IMAGES[2]))


def test_file_that_goes_between_listing_and_reading_is_an_io_error(paths):
    table, _ = cutouts.find_cutouts(paths[0].parent)
    os.remove(paths[3])
    errors = cutouts.read_into(table["path_VIS"], np.empty((OBJECTS, *SHAPE), np.float32)).errors
    assert {n: error.reason for n, error in errors.items()} == {3: "io"}


TOO_MANY = """
import os, sys, threading
import numpy as np
from cast_lens import cutouts
paths = sys.argv[1:]
out = np.empty((len(paths), 40, 44), np.float32)
assert not cutouts.read_into(paths, out).errors
held = []
try:
    while True:
        held.append(os.open(paths[0], os.O_RDONLY))
except OSError:
    pass
found = cutouts.read_into(paths[:2], out[:2]).errors
assert [str(error).split(": ")[1:] for error in found.values()] == [
    ["io", "found Too many open files, expected a readable file; name it"]] * 2, found
threading.Timer(0.03, lambda: [os.close(file) for file in held]).start()
assert not cutouts.read_into(paths, out).errors
print(np.float64(out.sum(dtype=np.float64)).hex())
"""


def test_too_many_open_files_is_waited_for_and_reading_holds_only_one(paths):
    command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-c", TOO_MANY]
    done = subprocess.run(
        [*command, *map(str, paths * 40)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    total = np.tile(IMAGES, (40, 1, 1)).sum(dtype=np.float64)
    assert float.fromhex(done.stdout.strip()) == total


def test_two_threads_reading_at_once_do_not_mix_files(paths):
    found = [np.empty((200, *SHAPE), np.float32) for _ in range(2)]
    orders = [paths * 40, paths[::-1] * 40]
    threads = [
        threading.Thread(target=cutouts.read_into, args=pair)
        for pair in zip(orders, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(found[0], np.tile(IMAGES, (40, 1, 1)))
    assert np.array_equal(found[1], np.tile(IMAGES[::-1], (40, 1, 1)))
