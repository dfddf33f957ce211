"""Cutouts are what astropy says they are, and a file that is none costs an error, no more."""

import gzip
import io
import os
import pickle
import random
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from cast_lens import cutouts, fits_image
from tests import fits_files
from tests.fits_files import HEADER, PIXELS, by_hand, encode

FOLDERS = {"R": "Band1", "I": "Band2", "G": "Band3", "U": "Band4"}

# shared/facts/datasets.md, section 9: min, median, max, std, masked pixels (>= 99) of every file.
PUBLISHED = """
VIS 100002 -2.72e-12 1.84e-14 1.49e-11 9.09e-13 0
VIS 100008 -2.74e-12 1.47e-13 5.36e-11 3.95e-12 0
VIS 100013 -2.91e-12 4.64e-14 1.23e-11 8.33e-13 0
VIS 100019 -2.52e-12 3.00e-13 1.88e-11 1.37e-12 0
VIS 100004 -2.85e-12 8.15e-14 2.67e-11 1.16e-12 0
VIS 100023 -2.77e-12 5.24e-14 3.74e-10 6.23e-12 0
VIS 100045 -3.11e-12 7.18e-14 1.09e-10 2.28e-12 0
VIS 100053 -2.69e-12 1.35e-13 2.62e-11 1.23e-12 0
R 100002 -6.65e-12 7.01e-14 3.25e-11 1.83e-12 0
R 100003 -5.32e-12 1.08e-13 1.71e-09 7.45e-11 0
R 100023 -6.12e-12 9.02e-13 2.87e-10 1.13e-11 15
R 100004 -6.07e-12 1.35e-13 1.76e-11 1.68e-12 0
R 100008 -5.96e-12 1.21e-13 1.36e-11 1.68e-12 0
R 100012 -6.22e-12 1.07e-13 4.05e-11 2.49e-12 0
I 100002 -1.20e-11 6.28e-14 5.59e-11 3.70e-12 0
I 100003 -1.11e-11 2.00e-13 1.90e-09 8.44e-11 0
I 100023 -1.20e-11 1.69e-12 4.48e-10 2.18e-11 0
I 100004 -1.38e-11 2.58e-13 2.91e-11 3.55e-12 0
I 100008 -1.10e-11 3.41e-13 2.96e-11 3.58e-12 0
I 100012 -1.14e-11 1.89e-13 4.33e-11 3.72e-12 0
G 100002 -5.14e-12 4.42e-14 1.11e-11 1.35e-12 0
G 100003 -4.51e-12 4.20e-14 1.45e-09 6.21e-11 0
G 100023 -4.10e-12 3.29e-13 7.05e-11 3.60e-12 0
G 100004 -4.87e-12 5.24e-14 5.35e-12 1.29e-12 0
G 100008 -5.18e-12 -3.12e-15 1.10e-11 1.29e-12 0
G 100012 -4.80e-12 6.14e-14 4.03e-11 2.35e-12 0
U 100002 -7.78e-12 6.02e-14 8.84e-12 2.05e-12 0
U 100003 -7.07e-12 1.95e-13 5.58e-10 3.44e-11 49
U 100023 -7.53e-12 9.71e-14 1.35e-11 2.19e-12 0
U 100004 -7.81e-12 2.61e-14 8.51e-12 2.05e-12 0
U 100008 -7.69e-12 3.73e-14 9.39e-12 2.06e-12 212
U 100012 -7.57e-12 1.09e-13 2.68e-11 2.58e-12 0
""".splitlines()[1:]


@pytest.fixture
def write(tmp_path):
    """Function that writes bytes to a file and returns its path."""

    def write(content, name="image.fits"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture
def no_waiting():
    """Fail after ten seconds instead of waiting for ever."""
    with fits_files.within(seconds=10):
        yield


def refused(path, *reasons):
    """Message of the error that `path` must raise for one of these reasons."""
    with pytest.raises(cutouts.CutoutError) as caught:
        cutouts.read_cutout([path])
    assert caught.value.reason in reasons
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("track", "bands", "n"), [("space_based", ["VIS"], 8), ("ground_based", list("RIGU"), 6)]
)
def test_real_cutouts_are_astropys_bit_for_bit(real_data, track, bands, n):
    table, n_extra = cutouts.find_cutouts(real_data / "sglc1" / track)
    assert list(table) == ["object_id", *(f"path_{band}" for band in bands)]
    assert (len(table), n_extra) == (n, 1)  # the one extra is classifications.csv
    for row in table.itertuples(index=False):
        image, counts = cutouts.read_cutout(row[1:])
        assert image.shape == counts.shape == (101, 101, len(bands))
        assert image.dtype == np.dtype("=f4")
        for band, path in enumerate(row[1:]):
            assert path.endswith(f"-{row[0]}.fits")
            assert image[..., band].tobytes() == fits.getdata(path).astype("=f4").tobytes()


def test_real_pixel_statistics_are_the_published_ones(real_data):
    found = {}
    for track, bands in (("space_based", ["VIS"]), ("ground_based", "RIGU")):
        table, _ = cutouts.find_cutouts(real_data / "sglc1" / track)
        for row in table.itertuples(index=False):
            image, _ = cutouts.read_cutout(row[1:])
            statistics = cutouts.pixel_statistics(image, mask_value=99)
            masked, counts = cutouts.read_cutout(row[1:], mask_value=99)
            assert masked.max() < 1e-8
            assert np.array_equal(masked, np.where(image == 100, 0, image))
            for n, band in enumerate(bands):
                numbers = [f"{statistics[name][n]:.2e}" for name in ("min", "median", "max", "std")]
                found[band, row[0]] = [*numbers, str(counts.n_masked[n])]
    assert found == {(band, name): rest for band, name, *rest in map(str.split, PUBLISHED)}


def test_real_batches_are_the_real_cutouts(real_data):
    table, _ = cutouts.find_cutouts(real_data / "sglc1/ground_based")
    out = np.full((len(table), 101, 101, 4), 7, np.float32)
    counts = [
        cutouts.read_into(table[f"path_{band}"], out[..., n], mask_value=100)
        for n, band in enumerate("RIGU")
    ]
    for k, row in enumerate(table.itertuples(index=False)):
        image, alone = cutouts.read_cutout(row[1:], mask_value=100)
        assert out[k].tobytes() == image.tobytes()
        assert tuple(c.n_masked[k] for c in counts) == alone.n_masked
    # datasets.md, section 9: R-100023, U-100003 and U-100008 have masked pixels.
    assert [c.n_masked.sum() for c in counts] == [15, 0, 0, 49 + 212]
    assert not any(c.errors or c.n_nonfinite.any() or c.is_constant.any() for c in counts)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"BZERO": 0.5},
        {"BSCALE": 2.5, "BZERO": -3.0},
        {"BSCALE": 0.0},
        {"BSCALE": 1.0, "BZERO": 32768},
        {"BLANK": 7},
        {"BLANK": 0, "BSCALE": 2.0},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid 'BLANK'")
def test_every_pixel_type_and_scaling_is_astropys(write, dtype, cards):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (5, 7)).astype(dtype)
    if dtype[0] == "f":
        pixels = (rng.standard_normal((5, 7)) * 1e-12).astype(dtype)
    pixels[0, :2] = 7, 0
    path = write(encode(pixels, **cards))
    expected = fits.getdata(path).astype(np.float32)
    image, counts = cutouts.read_cutout([path])
    assert image[..., 0].tobytes() == np.nan_to_num(expected).tobytes()
    assert image.dtype.isnative and image.flags.c_contiguous
    assert counts.n_nonfinite == (np.isnan(expected).sum(),)
    # astropy, which defines the pixels, leaves BLANK = 0 without effect.
    assert bool(counts.n_nonfinite[0]) == (dtype[0] in "ui" and cards.get("BLANK") == 7)


def test_hand_written_file_and_its_axes(write):
    image, counts = cutouts.read_cutout([write(by_hand(HEADER))])
    assert image[..., 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert counts == cutouts.PixelCounts(shape=(2, 3, 1), n_masked=(0,), n_nonfinite=(0,))


def test_bands_keep_the_order_of_the_paths(write):
    a, b = write(encode(PIXELS), "a"), write(encode(10 * PIXELS), "b")
    assert cutouts.read_cutout([b, a])[0].tolist() == np.dstack([10 * PIXELS, PIXELS]).tolist()


@pytest.mark.parametrize("name", ["a.fits.gz", "a.fits"])
def test_gzip_is_told_by_content_not_by_name(write, name):
    path = write(gzip.compress(encode()), name)
    assert np.array_equal(cutouts.read_cutout([path])[0][..., 0], PIXELS)


def test_path_may_hold_spaces_unicode_and_bytes_that_are_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"a b \xe9 \xc3\xa9")
    folder.mkdir()
    (folder / "imageEUC_VIS-7.fits").write_bytes(encode())
    table, _ = cutouts.find_cutouts(tmp_path)
    assert np.array_equal(cutouts.read_cutout([table["path_VIS"][0]])[0][..., 0], PIXELS)


@pytest.mark.filterwarnings("error")
def test_what_follows_the_primary_image_is_not_read(write):
    junk = b"SIMPLE  =" + random.Random(0).randbytes(9000)
    assert np.array_equal(cutouts.read_cutout([write(encode() + junk)])[0][..., 0], PIXELS)


def test_image_may_be_followed_by_an_extension(write):
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(PIXELS), fits.ImageHDU(-PIXELS)]).writeto(stream)
    assert np.array_equal(cutouts.read_cutout([write(stream.getvalue())])[0][..., 0], PIXELS)


def test_masked_and_nonfinite_pixels_are_zero_and_counted_per_band(write):
    first, second = PIXELS.astype(np.float64), -PIXELS.astype(np.float64)
    first[0] = 100, 99, np.inf
    second[1] = np.nan, -np.inf, 1e300
    paths = [write(encode(first), "a"), write(encode(second), "b")]
    image, counts = cutouts.read_cutout(paths, mask_value=99)
    assert image[..., 0].tolist() == [[0, 0, 0], [4, 5, 6]]
    assert image[..., 1].tolist() == [[-1, -2, -3], [0, 0, 0]]
    assert counts == cutouts.PixelCounts((2, 3, 2), n_masked=(2, 0), n_nonfinite=(1, 3))
    unmasked, counts = cutouts.read_cutout(paths)
    assert unmasked[0, :, 0].tolist() == [100, 99, 0]
    assert counts.n_masked == (0, 0)


def test_mask_value_is_compared_as_float32(write):
    path = write(encode(np.full((2, 2), 0.7, np.float32)))
    assert cutouts.read_cutout([path], mask_value=np.float64(0.7))[1].n_masked == (4,)


@pytest.mark.parametrize("mask_value", [np.nan, np.inf])
def test_mask_value_must_be_finite(write, mask_value):
    with pytest.raises(ValueError, match="mask_value"):
        cutouts.read_cutout([write(encode())], mask_value=mask_value)
    with pytest.raises(ValueError, match="mask_value"):
        cutouts.read_into([], np.zeros((0, 2, 3), np.float32), mask_value=mask_value)


@pytest.mark.parametrize("paths", [[], "image.fits", Path("image.fits")])
def test_paths_must_be_a_list(paths):
    with pytest.raises(ValueError, match="expected a list"):
        cutouts.read_cutout(paths)


def test_bands_of_different_shape_name_both_files(write):
    a, b = write(encode(PIXELS), "a"), write(encode(PIXELS.T.copy()), "b")
    with pytest.raises(cutouts.CutoutError) as caught:
        cutouts.read_cutout([a, b])
    assert caught.value.reason == "shape"
    assert str(a) in str(caught.value) and str(b) in str(caught.value)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 2, 3)),
        np.zeros((1, 2, 3), ">f4"),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((1, 2, 3, 1), np.float32),
        np.zeros((1, 0, 3), np.float32),
        np.broadcast_to(np.float32(0), (1, 2, 3)),
        [[[0, 0, 0], [0, 0, 0]]],
        np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 2**11, 2**10), (0, 0, 0)),
    ],
)
def test_images_go_only_into_an_array_that_can_take_them(write, out):
    with pytest.raises(ValueError, match="out "):
        cutouts.read_into([write(encode())], out)


def test_array_may_be_of_any_memory_layout(write):
    path = write(encode())
    for out in (
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2, 3, 2), np.float32).transpose(0, 2, 1),
        np.zeros((2, 2, 3), np.float32)[::-1],
        np.zeros((2, 4, 6), np.float32)[:, ::2, ::2],
        np.zeros((2, 2, 3, 5), np.float32)[..., 4],
    ):
        assert not cutouts.read_into([path, path], out).errors
        assert out.tolist() == [PIXELS.tolist()] * 2


def test_empty_batch_is_read():
    counts = cutouts.read_into([], np.zeros((0, 2, 3), np.float32))
    assert counts.n_masked.shape == counts.is_constant.shape == (0,) and counts.errors == {}


def test_missing_file_of_an_object_is_named_so(write):
    out = np.ones((2, 2, 3), np.float32)
    errors = cutouts.read_into([None, write(encode())], out).errors
    assert [error.reason for error in errors.values()] == ["missing_band"]
    assert out.tolist() == [[[0] * 3] * 2, PIXELS.tolist()]


def cuts():
    """Lengths of the 101 x 101 file of the I SGLC, 46,080 bytes of which 43,684 are not padding."""
    edges = [0, 1, 79, 80, -1, -79, -80]
    block = [2880 * n + edge for n in range(17) for edge in edges]
    pixels = 2880 + 101 * 101 * 4
    others = [2, 9, 10, 2320, 2400, pixels - 1, pixels, pixels + 1]
    return sorted({cut for cut in [*block, *others, *range(400, 2880, 97)] if 0 <= cut <= 46080})


def test_file_cut_short_anywhere_is_refused_and_missing_padding_is_not(write):
    pixels = np.random.default_rng(0).standard_normal((101, 101)).astype(np.float32)
    whole = encode(pixels, NOTE="x" * 60, **{f"KEY{n}": n for n in range(20)})
    assert len(whole) == 46080
    rng = random.Random(0)
    for cut in [*cuts(), *(rng.randrange(46080) for _ in range(100))]:
        path = write(whole[:cut])
        if cut < 2880 + 40804:
            refused(path, "truncated" if cut else "empty")
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image, _ = cutouts.read_cutout([path])
        assert np.array_equal(image[..., 0], pixels)
        assert [str(path) in str(w.message) for w in caught] == [True] * (cut < 46080)


def test_gzip_cut_short_anywhere_is_refused(write):
    whole = gzip.compress(encode(), mtime=0)
    for cut in range(len(whole)):
        refused(write(whole[:cut]), "truncated" if cut > 1 else ("empty", "not_fits")[cut])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"x", "not_fits"),
        (b"<!DOCTYPE html><html>404</html>", "not_fits"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF" + b"\0" * 9000, "not_fits"),
        (b"object_id,label\n1,0\n", "not_fits"),
        (b"simple  =                    T".ljust(2880), "not_fits"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(b"hello", mtime=0), "not_fits"),
        (b"\x1f\x8b" + b"\0" * 100, "not_fits"),
        (gzip.compress(encode(), mtime=0)[:-8] + b"\0" * 8, "not_fits"),
        (gzip.compress(encode(), mtime=0)[:10] + b"\x07" * 60, "not_fits"),
    ],
)
def test_what_is_no_fits_file_is_refused(write, content, reason):
    refused(write(content), reason)


@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "device", "absent"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, no_waiting, kind):
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "loop":
        path.symlink_to(path)
    refused(path, "io" if kind == "absent" else "not_fits")


def replaced(key, value):
    return [f"{key:8}= {value:>20}" if card.startswith(f"{key:8}") else card for card in HEADER]


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        *((replaced("NAXIS", n), "shape") for n in (0, 1, 3, 4, -1, 999, 30_000_000, "T", "'2'")),
        *(
            (replaced(key, n), "shape")
            for key in ("NAXIS1", "NAXIS2")
            for n in (0, -1, 2**20, 10**9, 10**18, 10**30, "3.0", "T", "'3'", "")
        ),
        (HEADER[:4], "shape"),
        (HEADER[:3] + HEADER[4:], "shape"),
        (HEADER[:2] + HEADER[3:], "shape"),
        *((replaced("BITPIX", n), "dtype") for n in (0, 7, -16, "T", "'x'", "-32.0", "")),
        (HEADER[:1] + HEADER[2:], "dtype"),
        (replaced("SIMPLE", "F"), "header"),
        (replaced("SIMPLE", "'T'"), "header"),
        (replaced("NAXIS1", "3 4"), "header"),
        ([*HEADER, "BSCALE  = NaN"], "header"),
        ([*HEADER, "BSCALE  = 'abc'"], "header"),
        ([*HEADER, "BZERO   = (1.0, 2.0)"], "header"),
        ([*HEADER, "GROUPS  =                    T"], "header"),
        ([*HEADER, HEADER[3]], "header"),
        ([*HEADER, "NAXIS   =             30000000"], "header"),
        ([*HEADER, " naxis1 = 9"], "header"),
        ([*HEADER, "HIERARCH NAXIS2 = 9"], "header"),
        ([*HEADER, "GCOUNT  =                    0"], "header"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_header_of_no_cutout_is_refused_before_any_allocation(write, no_waiting, cards, reason):
    path = write(by_hand(cards))
    tracemalloc.start()
    try:
        refused(path, reason)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "cards",
    [
        ["HIERARCH range x = 4.89661817911E-05 / radians"],
        ["CRPIX1  =                  51.", "range x = 4"],
        ["LONGS   = 'abc&'", "CONTINUE  'def'"],
        [b"COMMENT \xe9\xe9"],
        [b"COMMENT \0\0"],
        ["BSCALE  =                  2.0", "BSCALE  =                  3.0"],
        ["NX      =                  999"],
        ["XTENSION= 'IMAGE   '"],
        [b"\0\xff" * 40],
        ["COMMENT x"] * 3000,
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_header_is_read_as_astropy_reads_it(write, cards):
    path = write(by_hand(HEADER + cards))
    start = time.perf_counter()
    image, _ = cutouts.read_cutout([path])
    assert time.perf_counter() - start < 0.5  # 50 ms on an idle machine, faults.md row 9
    assert np.array_equal(image[..., 0], fits.getdata(path))


@pytest.mark.filterwarnings("ignore:non-ASCII")
def test_header_without_end_is_a_header_error_if_the_file_goes_on(write):
    cards = b"".join(card.encode().ljust(80) for card in HEADER).ljust(2880)
    refused(write(cards + b"\xff" * 2880), "header")
    refused(write(cards), "truncated")
    refused(write(cards + b"COMMENT ".ljust(80) * 5000), "header")


def test_header_longer_than_its_limit_is_refused_even_with_end(write):
    refused(write(by_hand([*HEADER, *["COMMENT x"] * 3600])), "header")


@pytest.mark.parametrize("compress", [bytes, lambda data: gzip.compress(data, 1)])
def test_huge_file_and_gzip_bomb_are_refused_within_bounded_memory(write, no_waiting, compress):
    path = write(compress(bytes(by_hand(HEADER) + b"\0" * 80_000_000)))
    tracemalloc.start()
    try:
        assert "more than 33554432 bytes" in refused(path, "shape")
        assert tracemalloc.get_traced_memory()[1] < 2.2 * fits_image.MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")
def test_damaged_header_gives_astropys_pixels_or_an_error(write, no_waiting):
    rng = random.Random(0)
    whole = by_hand([*HEADER, "BSCALE  =                  2.0", "BZERO   =                  1.0"])
    refusals = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            # The last digit of a number, or any character of the eight cards.
            at = rng.choice([80 * rng.randrange(8) + 29, rng.randrange(640)])
            damaged[at] = rng.choice(b"0123456789 -.=TFEN'/\0\xff")
        path = write(bytes(damaged))
        try:
            image, _ = cutouts.read_cutout([path])
        except cutouts.CutoutError:
            refusals += 1
            continue
        expected = np.nan_to_num(fits.getdata(path).astype(np.float32), posinf=0, neginf=0)
        assert image[..., 0].tobytes() == expected.tobytes()
    assert 0 < refusals < 400


def test_error_survives_the_way_back_from_a_worker_process():
    error = cutouts.CutoutError("shape", Path("a.fits"), "found this", "expected that")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.path, str(copy)) == ("shape", Path("a.fits"), str(error))


def test_unreadable_file_is_an_io_error(write, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    path = write(encode())
    monkeypatch.setattr(os, "open", refuse)
    assert "Permission denied" in refused(path, "io")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    "layout",
    [
        "GroundBasedTraining/Public/{band}/imageSDSS_{letter}-{id}.fits",
        "{id}/Data.{id}/Public/{band}/imageSDSS_{letter}-{id}.fits",
        "Data_KiDS_Big.{id}/Public/{band}/imageSDSS_{letter}-{id}.fits",
        "imageSDSS_{letter}-{id}.fits.gz",
        "lens/{letter}/100000/imageSDSS_{letter}-{id}.fits",
        "EUC_VIS/imageSDSS_{letter}-{id}.fits",
    ],
)
def test_any_unpacking_is_found_by_file_name(tmp_path, layout):
    ids = ["00123", "123", "100000", "9" * 30]
    for object_id in ids:
        for letter, band in FOLDERS.items():
            touch(tmp_path, layout.format(band=band, letter=letter, id=object_id))
    table, n_extra = cutouts.find_cutouts(str(tmp_path))
    assert list(table) == ["object_id", "path_R", "path_I", "path_G", "path_U"]
    assert table["object_id"].tolist() == sorted(ids)
    assert n_extra == 0
    for row in table.itertuples(index=False):
        for (letter, band), path in zip(FOLDERS.items(), row[1:], strict=True):
            expected = layout.format(band=band, letter=letter, id=row[0])
            assert path == str(tmp_path / expected)


def test_second_challenge_and_a_missing_band(tmp_path):
    bands = [f"EUC_{band}" for band in ("H", "J", "VIS", "Y")]
    names = [f"Public/{band}/image{band}-{n}.fits" for band in bands for n in (1, 2)]
    touch(tmp_path, *names[:-1])
    table, _ = cutouts.find_cutouts(tmp_path)
    assert list(table) == ["object_id", "path_VIS", "path_Y", "path_J", "path_H"]
    assert table["path_Y"].tolist() == [str(tmp_path / names[6]), None]
    assert table.iloc[:, :3].notna().sum().tolist() == [2, 2, 1]


def test_other_files_and_images_without_source_are_extras(tmp_path):
    band = "Private/Band1/"
    touch(
        tmp_path, band + "imageEUC_VIS-1.fits", band + "NoSourceImage/imageEUC_VIS-1.fits",
        band + "NoLensImage/deep/imageEUC_VIS-1.fits", "classifications.csv",
        "._imageEUC_VIS-2.fits", "imageEUC_VIS-3.fits.part", "imageEUC_VIS-x.fits",
        "imageEUC_R-4.fits", "imageSDSS_Y-4.fits", "imageEUC_VIS-\u0661.fits",
        "ximageEUC_VIS-5.fits",
    )  # fmt: skip
    table, n_extra = cutouts.find_cutouts(tmp_path)
    assert table.to_dict("list") == {
        "object_id": ["1"],
        "path_VIS": [str(tmp_path / band / "imageEUC_VIS-1.fits")],
    }
    assert n_extra == 10
    named = cutouts.find_cutouts(tmp_path / band / "NoSourceImage")
    assert named[0]["object_id"].tolist() == ["1"]


@pytest.mark.parametrize(
    "names",
    [
        ("a/imageEUC_VIS-1.fits", "b/imageEUC_VIS-1.fits"),
        ("a/imageEUC_VIS-1.fits", "a/imageEUC_VIS-1.fits.gz"),
        ("space_based/imageEUC_VIS-1.fits", "ground_based/imageSDSS_R-1.fits"),
    ],
)
def test_two_images_of_one_object_name_both_files(tmp_path, names):
    touch(tmp_path, *names, "a/imageEUC_J-2.fits")
    with pytest.raises(cutouts.CutoutError) as caught:
        cutouts.find_cutouts(tmp_path)
    assert caught.value.reason == "duplicate"
    for name in names:
        assert str(tmp_path / name) in str(caught.value)


def test_links_are_followed_once(tmp_path, no_waiting):
    touch(tmp_path, "far/imageEUC_VIS-1.fits", "near/imageEUC_VIS-2.fits")
    (tmp_path / "near/linked").symlink_to(tmp_path / "far")
    (tmp_path / "near/again").symlink_to(tmp_path / "far")
    (tmp_path / "far/up").symlink_to(tmp_path / "near")
    table, n_extra = cutouts.find_cutouts(tmp_path / "near")
    assert table["path_VIS"].tolist() == [
        str(tmp_path / "near/again/imageEUC_VIS-1.fits"),  # the first way in alphabetical order
        str(tmp_path / "near/imageEUC_VIS-2.fits"),
    ]
    assert n_extra == 0


@pytest.mark.parametrize(("name", "reason"), [("absent", "io"), ("file", "io"), ("", "empty")])
def test_folder_without_images_is_refused(tmp_path, name, reason):
    touch(tmp_path, "file")
    with pytest.raises(cutouts.CutoutError) as caught:
        cutouts.find_cutouts(tmp_path / name)
    assert caught.value.reason == reason


def test_folder_that_cannot_be_read_hides_no_object(tmp_path, monkeypatch):
    touch(tmp_path, "a/imageEUC_VIS-1.fits", "b/imageEUC_VIS-2.fits")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(cutouts.CutoutError, match="b: io: found Permission denied"):
        cutouts.find_cutouts(tmp_path)


def test_pixel_statistics_by_hand():
    image = np.zeros((2, 3, 3), np.float32)
    image[..., 0] = [[1, 2, 3], [4, 5, 100]]
    image[..., 1] = [[np.nan, -7, -7], [np.inf, -7, -np.inf]]
    image[..., 2] = 100
    statistics = cutouts.pixel_statistics(image, mask_value=100)
    assert list(statistics) == ["min", "median", "max", "std"]
    table = np.array(list(statistics.values()))
    assert table[:, 0].tolist() == [1, 3, 5, np.sqrt(2)]
    assert table[:, 1].tolist() == [-7, -7, -7, 0]
    assert np.isnan(table[:, 2]).all()
    assert cutouts.pixel_statistics(image)["max"].tolist() == [100, -7, 100]


def test_pixel_statistics_do_not_lose_small_flux_in_float32():
    image = np.full((300, 300, 1), 0.1, np.float32)
    assert cutouts.pixel_statistics(image)["std"][0] < 1e-12


def test_pixel_statistics_need_three_axes():
    with pytest.raises(ValueError, match=r"\(2, 3\), expected \(height, width, band\)"):
        cutouts.pixel_statistics(PIXELS)
