"""Plain FITS files decoded directly: the subset whose pixels no card but the first five decides.

A file is plain if it is one floating-point image and its header is what `_HEADER` describes.
Anything else is left to `cast_lens.fits_image`, which asks astropy; both give the same pixels.
"""

import os
import re
from dataclasses import dataclass

import numpy as np

BLOCK = 2880  # bytes; FITS pads the header and the data to whole blocks
_MAX_HEADER = 10 * BLOCK  # a longer one is as right, and left to astropy
_CARD = 80
_FIRST_CARDS = 5 * _CARD  # SIMPLE, BITPIX, NAXIS, NAXIS1, NAXIS2, as the standard orders them
_NAME = 10  # bytes of a card that hold keyword and value indicator

# Behind the value in bytes 11 to 30, which the standard fixes for these cards: blanks, a comment.
_COMMENT = rb"(?: {50}|(?= */)[ -~]{50})"
_DECIDING = (
    # What astropy.io.fits asks a primary header for on the way to its pixels.
    rb"SIMPLE|BITPIX|NAXIS[0-9]*|BSCALE|BZERO|BLANK|GROUPS|PCOUNT|GCOUNT|CHECKSUM|DATASUM|EXTEND"
    # What the standard gives a meaning of its own, or no value where other keywords have theirs.
    rb"|XTENSION|END|CONTINUE|COMMENT|HISTORY|HIERARCH"
)
_HEADER = re.compile(
    rb"SIMPLE  = {20}T" + _COMMENT
    + rb"BITPIX  = {18}-(32|64)" + _COMMENT
    + rb"NAXIS   = {20}2" + _COMMENT
    + rb"NAXIS1  = ([ 0-9]{20})" + _COMMENT
    + rb"NAXIS2  = ([ 0-9]{20})" + _COMMENT
    + rb"(?:"
    # A keyword of capitals, blanks and the indicator, all within its ten bytes.
    + rb"(?!(?:" + _DECIDING + rb") *=)(?=[A-Z0-9_-]+ *=)[A-Z0-9_ -]{8}= [ -~]{70}"
    # It changes nothing, but astropy must find a value.
    + rb"|EXTEND  = {20}[TF]" + _COMMENT
    + rb"|(?:COMMENT|HISTORY| {7}) (?!= )[ -~]{72}"
    # Two words, so that it is none of the above: astropy also finds `HIERARCH NAXIS2`.
    + rb"|HIERARCH (?= *[!-<>-~]+ +[!-<>-~])(?=[ -<>-~]{0,70}=)[ -~]{71}"
    + rb")*(END {77})"
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a plain header says.

    Attributes:
        height: Pixels along NAXIS2.
        width: Pixels along NAXIS1.
        dtype: Of the pixels as stored, ">f4" or ">f8".
        end: Where the END card begins, in bytes.
        start: Where the pixels begin.
        size: Where the file ends.
    """

    height: int
    width: int
    dtype: str
    end: int
    start: int
    size: int


def find_layout(data):
    """Read the header of a plain FITS file.

    Args:
        data: The first bytes of the file, at least its header if that is to be found.

    Returns:
        Its Layout, or None if the file is not plain.

    Reference:
        FITS standard 4.0 (2018), Sec. 4.1.2 and 4.4.1.1.
    """
    match = _HEADER.match(data, 0, _MAX_HEADER)
    if match is None:
        return None
    bits, *sizes = match.groups()[:3]
    end, after = match.span(4)
    start = after + -after % BLOCK
    if data[after:start] != b" " * (start - after) or not all(n.lstrip().isdigit() for n in sizes):
        return None
    width, height = map(int, sizes)
    n_bytes = height * width * int(bits) // 8
    size = start + n_bytes + -n_bytes % BLOCK
    return Layout(height, width, f">f{int(bits) // 8}", end, start, size) if n_bytes else None


def stored_pixels(data, layout):
    """Return the pixels of a plain file as stored, big-endian, shape (height, width), no copy."""
    count = layout.height * layout.width
    pixels = np.frombuffer(data, layout.dtype, count, layout.start)
    return pixels.reshape(layout.height, layout.width)


def reader(height, width):
    """Make a function that decodes plain files of one shape at little more than the cost of I/O.

    The files of a survey differ in a few values. So a header is parsed only where it differs from
    the one before in what decides: the first five cards, all keywords, the END card and what
    follows it, and bytes beyond ASCII.

    Args:
        height: Pixels along NAXIS2.
        width: Pixels along NAXIS1.

    Returns:
        Function of a path and an array, float32, shape (height, width). It fills the array and
        returns True; or it returns False, the array being undefined then, if the file is not
        plain, not whole, longer, of another shape, no regular file or unreadable. It never waits,
        and holds one buffer, so each thread needs a function of its own.
    """
    memory = bytearray(_MAX_HEADER + 8 * height * width + BLOCK)
    buffers, flags = [memory], os.O_RDONLY | os.O_NONBLOCK
    # Of the header parsed last: what decides in it, and what follows from that.
    known: bytes | None = None  # the keywords
    pieces: tuple[tuple[int, bytes], ...] = ()  # all else
    end = size = 0
    keywords = pixels = np.empty(0)  # views of `memory`

    def read(path, image):
        nonlocal end, size, pieces, keywords, known, pixels
        try:
            # Neither stat nor seek: nothing but a file both answers at offset 0 and looks plain.
            file = os.open(path, flags)
            try:
                n_bytes = os.preadv(file, buffers, 0)
            finally:
                os.close(file)
        except (OSError, TypeError, ValueError):  # what it is, the careful reader says
            return False
        is_alike = keywords.tobytes() == known and memory[:end].isascii()
        for begin, piece in pieces:
            is_alike = is_alike and memory.startswith(piece, begin)
        if not is_alike:
            layout = find_layout(memory)
            if layout is None or (layout.height, layout.width) != (height, width):
                known = None
                return False
            end, size, pieces = layout.end, layout.size, _deciding_pieces(memory, layout.end)
            keywords = np.ndarray(end // _CARD, f"V{_NAME}", memory, strides=_CARD)
            known, pixels = keywords.tobytes(), stored_pixels(memory, layout)
        if n_bytes != size:
            return False
        image[...] = pixels
        return True

    return read


def _deciding_pieces(data, end):
    """Return (offset, bytes) of what decides besides the first ten bytes of every card."""
    spans = [(0, _FIRST_CARDS), (end, end + -end % BLOCK)]
    for begin in range(_FIRST_CARDS, end, _CARD):
        if data.startswith(b"HIERARCH", begin):
            spans.append((begin, data.index(b"=", begin) + 1))
        elif data.startswith(b"EXTEND", begin):
            spans.append((begin, begin + _CARD))
    return tuple((begin, bytes(data[begin:stop])) for begin, stop in spans)
