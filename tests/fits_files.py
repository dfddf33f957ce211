"""FITS files for tests: written by astropy, by hand from cards, or drawn at random."""

import io
import signal
import warnings
from contextlib import contextmanager

import numpy as np
from astropy.io import fits

END = b"END".ljust(80)
HEADER = [
    "SIMPLE  =                    T",
    "BITPIX  =                  -32",
    "NAXIS   =                    2",
    "NAXIS1  =                    3",
    "NAXIS2  =                    2",
]
PIXELS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)

# Most cards of the I SGLC after the first five; all its sample images have the same keywords.
SURVEY_CARDS = [
    "EXTEND  =                    T / FITS dataset may contain extensions",
    "COMMENT   FITS (Flexible Image Transport System) format is defined in 'Astronomy",
    "WCSAXES =                    2 / number of World Coordinate System axes",
    "CRPIX1  =                  51. / x-coordinate of reference pixel",
    "CTYPE1  = 'RA---TAN'           / the coordinate type for the first axis",
    "CDELT1  = -2.7777774714293E-05 / partial of first axis coordinate w.r.t. x",
    "CROTA2  =                   0.",
    "NX      =                  101",
    "HIERARCH range x = 4.89661817911E-05 / radians",
    "RA      = -0.000421521941791019 / radians",
    "DEC     = -0.00128076675538848 / radians",
]


@contextmanager
def within(seconds):
    """Fail after so many seconds instead of waiting for ever."""

    def stop(*_):
        raise TimeoutError(f"waited {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def encode(pixels=PIXELS, **cards):
    """Bytes of a FITS file as astropy writes it, with further cards afterwards."""
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(stream)
    data = stream.getvalue()
    if cards:
        end = b"".join(fits.Card(key, value).image.encode() for key, value in cards.items())
        data = data.replace(END + b" " * len(end), end + END, 1)
    return data


def by_hand(cards, pixels=PIXELS):
    """Bytes of a FITS file written without astropy; cards are text or bytes."""
    cards = [card if isinstance(card, bytes) else card.encode("latin-1") for card in cards]
    header = b"".join(card.ljust(80) for card in [*cards, END])
    data = pixels.astype(">f8" if pixels.dtype == np.float64 else ">f4").tobytes()
    return header + b" " * (-len(header) % 2880) + data + b"\0" * (-len(data) % 2880)


def survey_file(pixels, *cards, first=5):
    """Bytes of a file as the I SGLC has them, by hand, with further cards after the `first`."""
    height, width = pixels.shape
    begin = [*HEADER[:3], f"NAXIS1  = {width:20}", f"NAXIS2  = {height:20}"]
    begin[1] = f"BITPIX  = {-8 * pixels.itemsize:20}"
    begin += SURVEY_CARDS
    return by_hand([*begin[:first], *cards, *begin[first:]], pixels)


def draw(rng):
    """Draw a valid FITS image as astropy writes it: every pixel type, scaling and kind of card.

    Args:
        rng: numpy Generator.

    Returns:
        Bytes of the file.
    """
    dtype = rng.choice(["u1", "i2", "i4", "i8", "f4", "f4", "f4", "f8", "f8"])
    shape = tuple(rng.integers(1, 40, 2))
    if dtype[0] == "f":
        pixels = (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30)).astype(dtype)
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 100, 1e-40, 1e30):
            if rng.random() < 0.1:
                pixels[rng.random(shape) < rng.choice([0.01, 0.3])] = value
    else:
        bounds = np.iinfo(dtype)
        pixels = rng.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)
    header = fits.Header()
    is_odd = rng.random() < 0.3
    for _ in range(int(rng.choice([0, 3, 30, 100]))):
        _add_card(header, rng, is_odd)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu = fits.PrimaryHDU(pixels, header)
        hdu.writeto(stream, output_verify="ignore")
    return _scaled(stream.getvalue(), dtype, rng)


def _add_card(header, rng, is_odd):
    name = "".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"), rng.integers(2, 8)))
    values = [3, -1.5e-12, True, "x" * int(rng.integers(0, 60)), "it's END", "a&", 10**15, None]
    value = values[rng.integers(len(values))]
    kind = rng.integers(20)
    if kind == 0:
        header[f"HIERARCH range {name.lower()}"] = 4.89661817911e-05
    elif kind == 1:
        header.add_comment(f"{name} NAXIS1  = 3 END")
    elif kind == 2:
        header.add_history("BSCALE  = 2")
    elif kind == 3:
        header.add_blank("blank")
    elif kind == 4 and is_odd:
        header["LONG" + name[:4]] = "x" * int(rng.integers(60, 200))  # over several CONTINUE cards
    elif kind == 5 and is_odd:
        header.add_comment("= 5")
    elif kind == 6 and is_odd:
        header[f"HIERARCH one{name.lower()}"] = 4
    else:
        header["Q" + name] = (value, "a comment / = it's")  # Q: none that means anything


def _scaled(data, dtype, rng):
    """Put BSCALE, BZERO or BLANK before END in a third of the files, where there is room."""
    if rng.random() > 0.33:
        return data
    unsigned = 1 << (8 * int(dtype[1]) - 1)
    choices = {"BSCALE": [1.0, 2.5, -1e-12, 0.0], "BZERO": [0.0, 0.5, unsigned]}
    if dtype[0] != "f":
        choices["BLANK"] = [0, 7, 255]
    names = rng.permutation(list(choices))[: rng.integers(1, 4)]
    cards = [fits.Card(str(n), choices[n][rng.integers(len(choices[n]))]).image for n in names]
    end = next(at for at in range(0, len(data), 80) if data[at : at + 80] == END)
    added = "".join(cards).encode() + END
    room = -(end + 80) % 2880 + 80
    return data[:end] + added + data[end + len(added) :] if len(added) <= room else data
