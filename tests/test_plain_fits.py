"""Files decoded directly have astropy's pixels to the last bit; all others are left to astropy."""

import io
import os
import random
import re
import warnings

import astropy.io.fits.header
import numpy as np
import pytest
from astropy.io import fits

from cast_lens import cutouts, fits_image, plain_fits
from tests import fits_files
from tests.fits_files import PIXELS, SURVEY_CARDS, by_hand, survey_file

rng = np.random.default_rng(0)
NOISE = (7.7e-13 * rng.standard_normal((5, 7))).astype(np.float32)
OTHER = (7.7e-13 * rng.standard_normal((5, 7))).astype(np.float32)


def same_bits(found, expected):
    """Whether two float32 arrays are NaN at the same places and equal to 0 ulp elsewhere."""
    nan = np.isnan(expected)
    return np.array_equal(nan, np.isnan(found)) and np.array_equal(
        found.view(np.int32)[~nan], expected.view(np.int32)[~nan]
    )


def astropys(path):
    """Return what defines the pixels: those of astropy, as native float32."""
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore")
        return fits.getdata(path).astype(np.float32)


def compare_drawn_files(folder, seeds):
    """Compare files drawn at random with astropy, in batches of a shape; return the plain share."""
    n_plain, path = 0, folder / "image.fits"
    for seed in seeds:
        data = fits_files.draw(np.random.default_rng(seed))
        n_plain += plain_fits.find_layout(data) is not None
        path.write_bytes(data)
        expected = astropys(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert same_bits(fits_image.read_pixels(path), expected), seed
            out = np.full((1, *expected.shape), 3, np.float32)
            counts = cutouts.read_into([path], out, mask_value=100)
        assert not counts.errors, seed
        finite = np.isfinite(expected)
        good = finite & ~(expected >= 100)
        assert same_bits(out[0], np.where(good, expected, np.float32(0))), seed
        assert counts.n_nonfinite[0] == (~finite).sum(), seed
        assert counts.n_masked[0] == (finite & ~good).sum(), seed
    return n_plain / len(seeds)


def test_files_of_every_kind_are_astropys_to_the_last_bit(tmp_path):
    # Neither way of reading may be tested alone without anyone noticing.
    assert 0.2 < compare_drawn_files(tmp_path, range(200)) < 0.8


@pytest.mark.slow
def test_ten_thousand_files_are_astropys_to_the_last_bit(tmp_path):
    assert 0.2 < compare_drawn_files(tmp_path, range(200, 10_200)) < 0.8


def test_real_cutouts_are_plain_and_astropys_to_the_last_bit(real_data):
    paths = sorted((real_data / "sglc1").rglob("*.fits"))
    assert len(paths) == 32
    out = np.empty((32, 101, 101), np.float32)
    assert not cutouts.read_into(paths, out).errors
    for path, image in zip(paths, out, strict=True):
        assert plain_fits.find_layout(path.read_bytes()) is not None
        assert same_bits(image, astropys(path))


def test_layout_by_hand():
    layout = plain_fits.find_layout(by_hand(fits_files.HEADER))
    assert layout == plain_fits.Layout(
        height=2, width=3, dtype=">f4", end=400, start=2880, size=5760
    )
    longer = plain_fits.find_layout(survey_file(PIXELS, *["COMMENT x"] * 40))
    assert (longer.end, longer.start) == (80 * (5 + 11 + 40), 5760)
    doubles = plain_fits.find_layout(survey_file(np.zeros((40, 50))))
    assert (doubles.dtype, doubles.size) == (">f8", 2880 + 6 * 2880)


def test_header_padded_with_other_than_blanks_is_left_to_astropy():
    data = survey_file(NOISE)
    assert plain_fits.find_layout(data[:2000] + b"\0" + data[2001:]) is None


def test_pixels_that_look_like_blanks_do_not_lengthen_the_header():
    blanks = np.frombuffer(b" " * 4 * 35, ">f4").reshape(5, 7)
    data = by_hand([*fits_files.HEADER[:3], "NAXIS1  = 7".ljust(80)], blanks)
    assert plain_fits.find_layout(data) is None  # not as the standard fixes these cards
    data = survey_file(blanks.astype(np.float32), *["COMMENT x"] * (36 - 5 - 11 - 1))
    assert data[2880 - 80 : 2880] == fits_files.END
    assert np.array_equal(plain_fits.stored_pixels(data, plain_fits.find_layout(data)), blanks)


# Each may change pixels, or how astropy reads the header; so each is astropy's to read.
ODD_CARDS = [
    "BSCALE  =                  2.0",
    "BZERO   =                  1.0",
    "BLANK   =                    7",
    "GROUPS  =                    T",
    "PCOUNT  =                    0",
    "GCOUNT  =                    1",
    "NAXIS1  =                    7",
    "NAXIS   =                    2",
    "NAXIS3  =                    1",
    "BITPIX  =                  -32",
    "SIMPLE  =                    T",
    "XTENSION= 'IMAGE   '",
    "CONTINUE  'abc'",
    "CHECKSUM= 'abc'",
    "DATASUM = '1'",
    "EXTEND  =                    1",
    "EXTEND  =                    T 1",
    "HIERARCH BSCALE = 2.0",
    "HIERARCH  NAXIS2 = 9",
    "HIERARCH range",
    "HIERARCH=                    1",
    "bscale  =                  2.0",
    " BSCALE =                  2.0",
    "BSCALE= 2.0",
    "A= 5    = 2.0",
    "BSCALE X=                  2.0",
    "COMMENT = 5",
    "        = 5",
    "=       = 5",
    "END     = 5",
    "END     /",
    b"END\0",
    b"NOTE    = '\xe9'",
    b"COMMENT \0",
    b"\0" * 80,
    b"COMMENT " + b"\xff" * 72,
]


@pytest.mark.parametrize("card", ODD_CARDS)
def test_odd_card_is_left_to_astropy(card):
    assert plain_fits.find_layout(survey_file(NOISE)) is not None
    assert plain_fits.find_layout(survey_file(NOISE, card)) is None
    assert plain_fits.find_layout(survey_file(NOISE, card, first=9)) is None


def test_every_keyword_astropy_asks_for_is_left_to_it(monkeypatch):
    basic, asked = astropy.io.fits.header._BasicHeader, set()
    for kind in (basic, fits.Header):
        getitem = kind.__getitem__
        monkeypatch.setattr(
            kind, "__getitem__", lambda self, key, get=getitem: asked.add(key) or get(self, key)
        )
    with fits.open(io.BytesIO(survey_file(NOISE)), memmap=False) as hdus:
        assert same_bits(hdus[0].data.astype(np.float32), NOISE)
    assert {"BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "BSCALE", "BZERO", "BLANK"} <= asked
    for key in asked:
        assert plain_fits.find_layout(survey_file(NOISE, f"{key:8}= 1")) is None, key


@pytest.mark.parametrize(
    "card",
    [
        "BSCALES =                  2.0",
        "ENDING  =                    1",
        "NAXISES =                    1",
        "HIERARCH range NAXIS1 = 9",
        "HIERARCH BSCALE x= 2.0",
        "EXTEND  =                    F",
        "NOTE    = 'NAXIS1  = 9' / BSCALE  = 2",
        "COMMENT BSCALE  = 2",
        "COMMENT   END",
        "COMMENT   = NAXIS1  = 2",
        "HISTORY",
        "",
        "         NAXIS1  = 2",
        "A-_0    =",
    ],
)
def test_other_cards_are_plain_and_change_nothing(tmp_path, card):
    for first in (5, 9):
        data = survey_file(NOISE, card, first=first)
        layout = plain_fits.find_layout(data)
        (tmp_path / "a.fits").write_bytes(data)
        pixels = plain_fits.stored_pixels(data, layout).astype(np.float32)
        assert same_bits(pixels, NOISE) and same_bits(astropys(tmp_path / "a.fits"), NOISE)


@pytest.mark.parametrize(
    ("card", "replacement"),
    [
        *((card, None) for card in fits_files.HEADER),
        ("SIMPLE  =                    T", "SIMPLE  =                    F"),
        ("NAXIS   =                    2", "NAXIS   =                    3"),
        ("BITPIX  =                  -32", "BITPIX  =                   32"),
        ("BITPIX  =                  -32", "BITPIX  =                  -16"),
        ("NAXIS1  =                    3", "NAXIS1  =                    0"),
        ("NAXIS1  =                    3", "NAXIS1  =                  1 3"),
        ("NAXIS1  =                    3", "NAXIS1  =                   -3"),
        ("NAXIS1  =                    3", "NAXIS1  = 3"),
        ("NAXIS1  =                    3", "NAXIS1  =                    3 3"),
        ("NAXIS1  =                    3", "NAXIS1  =                    3."),
        ("NAXIS1  =                    3", "NAXIS1  =                     "),
        ("NAXIS1  =                    3", "NAXIS1  =                   3 "),
    ],
)
def test_first_cards_are_exactly_those_of_the_standard(card, replacement):
    cards = [replacement if c == card else c for c in fits_files.HEADER]
    assert plain_fits.find_layout(by_hand([c for c in cards if c is not None])) is None


def headers_one_thing_apart():
    """Yield files that differ from `survey_file(NOISE)` in one thing, plain or not."""
    for n in range(len(SURVEY_CARDS)):
        for card in [*ODD_CARDS, "HIERARCH range y = 1", "COMMENT another", "QQ      =      1"]:
            cards = [card if k == n else c for k, c in enumerate(SURVEY_CARDS)]
            yield by_hand([*first_cards(7, 5), *cards], OTHER)
        yield by_hand([*first_cards(7, 5), *SURVEY_CARDS[:n]], OTHER)
    yield survey_file(OTHER.T.copy())
    yield survey_file(OTHER[:, :4].copy())
    yield survey_file(OTHER.astype(np.float64))
    yield survey_file(OTHER, *["COMMENT x"] * 40)
    yield survey_file(OTHER) + b"\0" * 2880
    yield survey_file(OTHER)[:-2880]
    yield survey_file(OTHER)[:-2700]
    yield survey_file(OTHER)[:100]


def outcome(path):
    """Return why `path` alone cannot be read as an image of NOISE's shape."""
    try:
        image, _ = cutouts.read_cutout([path])
    except cutouts.CutoutError as error:
        return error.reason
    return "shape" if image.shape != (5, 7, 1) else None


def first_cards(width, height):
    sizes = [f"NAXIS1  = {width:20}", f"NAXIS2  = {height:20}"]
    return [*fits_files.HEADER[:3], *sizes]


@pytest.mark.filterwarnings("ignore")
def test_header_before_has_no_effect_on_how_a_file_is_read(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    paths[0].write_bytes(survey_file(NOISE))
    paths[2].write_bytes(survey_file(NOISE, first=5))
    n_refused = 0
    for data in headers_one_thing_apart():
        paths[1].write_bytes(data)
        out = np.empty((3, 5, 7), np.float32)
        errors = cutouts.read_into(paths, out).errors
        assert out[0].tobytes() == out[2].tobytes() == NOISE.tobytes()
        n_refused += len(errors)
        if errors:
            assert list(errors) == [1] and not out[1].any()
            assert outcome(paths[1]) == errors[1].reason, errors[1]
        else:
            assert same_bits(out[1], astropys(paths[1]))
    assert 0 < n_refused < 300


@pytest.mark.parametrize(
    ("before", "card", "reason"),
    [
        ("HIERARCH Nice x = 9", "HIERARCH NAXIS1 = 9", "header"),
        ("HIERARCH BSCALE x = 2", "HIERARCH BSCALE = x2", None),
        ("NOTE    = 'e'", b"NOTE    = '\xe9'", None),
    ],
)
def test_header_nearly_alike_is_not_taken_for_alike(tmp_path, before, card, reason):
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(survey_file(NOISE, before))
    paths[1].write_bytes(survey_file(OTHER, card))
    warned = []
    for n in (0, 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = np.empty((2 - n, 5, 7), np.float32)
            errors = cutouts.read_into(paths[n:], out).errors
            warned.append([str(warning.message) for warning in caught])
        assert [error.reason for error in errors.values()] == [reason] * (reason is not None)
        assert same_bits(out[-1], OTHER if reason is None else 0 * OTHER + 0)
    assert warned[0] == warned[1]  # whatever came before it
    assert bool(warned[0]) == isinstance(card, bytes)


@pytest.mark.filterwarnings("ignore")
def test_damaged_headers_are_read_alike_with_and_without_the_direct_way(tmp_path, monkeypatch):
    drawn, direct = random.Random(0), plain_fits.find_layout
    path, n_plain = tmp_path / "a.fits", 0
    for _ in range(400):
        data = bytearray(survey_file(NOISE))
        for _ in range(drawn.randint(1, 3)):
            data[drawn.choice([drawn.randrange(400), drawn.randrange(1360)])] = drawn.choice(
                b"0123456789 -.=/'TFENAXISBZ&\0\xff"
            )
        path.write_bytes(data)
        n_plain += direct(data) is not None
        found = []
        for find_layout in (direct, lambda data: None):
            monkeypatch.setattr(plain_fits, "find_layout", find_layout)
            try:
                found.append(fits_image.read_pixels(path).tobytes())
            except cutouts.CutoutError as error:
                found.append(error.reason)
        assert found[0] == found[1], bytes(data[:1440])
    assert 50 < n_plain < 350


def test_astropy_is_not_asked_for_a_plain_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("astropy was asked")

    paths = [tmp_path / "a.fits", tmp_path / "b.fits"]
    for n, path in enumerate(paths):
        path.write_bytes(survey_file(NOISE, f"RA2     = {n:20}"))
    monkeypatch.setattr(fits, "open", refuse)
    monkeypatch.setattr(fits.Header, "fromfile", refuse)
    assert not cutouts.read_into(paths, np.empty((2, 5, 7), np.float32)).errors
    assert same_bits(cutouts.read_cutout([paths[0]])[0][..., 0], NOISE)


def test_header_is_parsed_again_only_where_it_decides(tmp_path, monkeypatch):
    n_parsed, find_layout = [], plain_fits.find_layout
    monkeypatch.setattr(
        plain_fits, "find_layout", lambda data: n_parsed.append(1) or find_layout(data)
    )
    read, image = plain_fits.reader(5, 7), np.empty((5, 7), np.float32)
    for n in range(5):
        cards = [re.sub(r"0\.00\d+|4\.8\d+", f"0.00{n}", card) for card in SURVEY_CARDS]
        (tmp_path / "a.fits").write_bytes(by_hand([*first_cards(7, 5), *cards], NOISE * n))
        assert read(tmp_path / "a.fits", image)
        assert same_bits(image, NOISE * n)
    assert len(n_parsed) == 1


def test_reader_keeps_no_file_open(tmp_path):
    (tmp_path / "a.fits").write_bytes(survey_file(NOISE))
    (tmp_path / "b.fits").write_bytes(b"x")
    read, image = plain_fits.reader(5, 7), np.empty((5, 7), np.float32)
    n_open = len(os.listdir("/dev/fd"))
    for _ in range(3):
        assert read(str(tmp_path / "a.fits"), image)
        for name in ("b.fits", "absent", "", "a\0b"):
            assert not read(os.path.join(tmp_path, name), image)
    assert len(os.listdir("/dev/fd")) == n_open


def test_pixel_count_beyond_memory_is_not_even_tried():
    sizes = [f"NAXIS{n}  = {10**19:20}" for n in (1, 2)]
    layout = plain_fits.find_layout(by_hand([*fits_files.HEADER[:3], *sizes]))
    assert layout.size > 10**38
    stream = io.BytesIO(by_hand([*fits_files.HEADER[:3], *sizes]))
    assert fits.Header.fromfile(stream)["NAXIS1"] == 10**19
