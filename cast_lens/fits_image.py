"""The pixels of one FITS file, as astropy.io.fits defines them, or an error that says why not.

astropy says what a pixel is; this module decides which files are safe to hand to it.
"""

import errno
import gzip
import io
import math
import os
import stat
import time
import warnings
import zlib

import numpy as np
from astropy.io import fits

from cast_lens import byte_order, plain_fits
from cast_lens.plain_fits import BLOCK

# More than any cutout takes, so that a wrong file costs an error and not the memory or a minute.
MAX_BYTES = 1 << 25
MAX_HEADER_BYTES = 100 * BLOCK
MAX_PIXELS = 1 << 20

RETRY_SECONDS = (0.01, 0.05, 0.2)  # ASSUMED: other threads close files soon; a bad disk stays bad
_PASSING = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.EMFILE}


class CutoutError(ValueError):
    """A cutout that cannot be used.

    Attributes:
        reason: Code to count by: truncated, not_fits, empty, shape, dtype, range, io, header,
            duplicate, missing_band.
        path: The file, or the two files that contradict one another.
        found: What was found.
        expected: What was expected, and what to do.
    """

    def __init__(self, reason, path, found, expected):
        """Keep what the message is made of."""
        # All four are args, so that the error survives the way back from a worker process.
        super().__init__(reason, path, found, expected)
        self.reason, self.path, self.found, self.expected = reason, path, found, expected

    def __str__(self):
        """Return path, reason, found and expected as one line."""
        return f"{self.path}: {self.reason}: found {self.found}, expected {self.expected}"


def read_pixels(path):
    """Read the two-dimensional image in the primary HDU of one file.

    Plain files are decoded directly, all others by astropy, to the same bits. Errors of the
    system that may pass (too many open files, a failed transfer) are waited for a moment.

    Args:
        path: A FITS file, plain or gzip.

    Returns:
        Pixels, float32 in native byte order, shape (height, width), in the unit of the file,
        BSCALE, BZERO and BLANK applied; beyond float32 infinite. The array is the caller's.

    Raises:
        CutoutError: If the file is not one whole image of a cutout's size, or is little-endian.

    Warns:
        UserWarning: If only the padding at the end of the file is missing.
    """
    data = read_bytes(path)
    layout = plain_fits.find_layout(data)
    is_whole = layout is not None and len(data) >= layout.size
    if is_whole and layout.height * layout.width <= MAX_PIXELS:
        stored = plain_fits.stored_pixels(data, layout)
        with np.errstate(over="ignore"):
            pixels = stored.astype(np.float32)
    else:
        pixels, stored = _read_with_astropy(path, data)
    if stored.dtype.kind == "f" and byte_order.is_swapped(pixels, stored):
        found = "pixels of wildly different magnitude, but alike if read as little-endian"
        raise CutoutError("range", path, found, "big-endian pixels; swap their bytes")
    return pixels


def read_bytes(path):
    """Return the bytes of a file, unpacked if it is gzip, after waiting for passing I/O errors."""
    if path is None:
        expected = "the path of a file; find it, or leave the object out"
        raise CutoutError("missing_band", path, "no file", expected)
    try:
        for seconds in RETRY_SECONDS:
            try:
                return _read_bytes_once(path)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                time.sleep(seconds)
        return _read_bytes_once(path)
    except OSError as error:
        reason = "not_fits" if error.errno in (errno.EISDIR, errno.ELOOP) else "io"
        raise CutoutError(reason, path, error.strerror, "a readable file; name it") from error


def _open(path):
    try:
        return open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK))
    except ValueError as error:  # a null byte, or no text of the file system
        raise CutoutError("io", ascii(path), error, "a name that a file can have") from error


def _read_bytes_once(path):
    """Return a file's bytes, unpacked if gzip, without waiting for a FIFO or filling the memory."""
    try:
        with _open(path) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CutoutError("not_fits", path, "a FIFO or device", "a file; name the image")
            data = stream.read(min(status.st_size, MAX_BYTES) + 1)
        if data[:2] == b"\x1f\x8b":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
    except EOFError as error:
        raise CutoutError("truncated", path, error, "whole gzip data; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CutoutError("not_fits", path, error, "sound gzip data; get it again") from error
    if len(data) > MAX_BYTES:
        expected = f"at most {MAX_BYTES} unpacked; cut the image out first"
        raise CutoutError("shape", path, f"more than {MAX_BYTES} bytes", expected)
    return data


def _read_with_astropy(path, data):
    """Return the pixels, float32, and as stored, big-endian, each of shape (height, width)."""
    header, start = _read_header(path, data)
    height, width, itemsize = _geometry(path, header)
    end = start + height * width * itemsize
    if len(data) < end:
        expected = f"at least {end} for the header and all pixels; get the file again"
        raise CutoutError("truncated", path, f"{len(data)} bytes", expected)
    if len(data) < end + -end % BLOCK:
        warnings.warn(f"{path}: padding is missing at its end, all pixels are there", stacklevel=4)
    # Only the primary HDU, and whole: astropy need not guess at what is missing or what follows.
    primary = io.BytesIO(data[:end] + bytes(-end % BLOCK))
    try:
        # A number beyond float32 becomes infinite, which the caller counts.
        with fits.open(primary, memmap=False) as hdus, np.errstate(over="ignore"):
            pixels = hdus[0].data.astype(np.float32).reshape(height, width)
    except Exception as error:  # astropy raises whatever a malformed card leads to
        raise _unparsed(path, error) from error
    dtype = f">{'f' if header['BITPIX'] < 0 else 'i'}{itemsize}"
    stored = np.frombuffer(data, dtype, height * width, start)
    return pixels, stored.reshape(height, width)


def _read_header(path, data):
    """Return the primary header and the number of bytes it fills."""
    if not data:
        raise CutoutError("empty", path, "0 bytes", "a FITS file; get it again")
    if not b"SIMPLE  =".startswith(data[:9]):
        raise CutoutError("not_fits", path, f"{data[:20]!r}", "SIMPLE  =; get the FITS file")
    stream = io.BytesIO(data[:MAX_HEADER_BYTES])
    try:
        return fits.Header.fromfile(stream), stream.tell()
    except Exception as error:  # astropy raises whatever a malformed card leads to
        if len(data) < MAX_HEADER_BYTES and not data.translate(None, bytes(range(32, 127))):
            expected = "a header up to END; get the file again"
            raise CutoutError("truncated", path, f"{len(data)} bytes", expected) from error
        raise _unparsed(path, error) from error


def _geometry(path, header):
    """Return (height, width, bytes a pixel) of a header that describes one cutout."""
    keys = ("BITPIX", "NAXIS", "NAXIS2", "NAXIS1")
    # A Header shows the first of two equal keywords, but fits.open takes the last for the pixels.
    for key in keys:
        if key in header and header.count(key) > 1:
            raise _unparsed(path, f"{key} more than once")
    try:
        bitpix, naxis, *sizes = (header.get(key) for key in keys)
    except Exception as error:  # a card is parsed when it is asked for
        raise _unparsed(path, error) from error
    if type(bitpix) is not int or bitpix not in (8, 16, 32, 64, -32, -64):
        raise CutoutError("dtype", path, f"BITPIX {bitpix}", "8, 16, 32, 64, -32 or -64; convert")
    whole = naxis == 2 and all(type(size) is int and size > 0 for size in sizes)
    if not whole or math.prod(sizes) > MAX_PIXELS:
        found = f"NAXIS {naxis} and (NAXIS2, NAXIS1) {tuple(sizes)}"
        expected = f"two axes with 1 to {MAX_PIXELS} pixels in the primary HDU; convert"
        raise CutoutError("shape", path, found, expected)
    height, width = sizes
    return height, width, abs(bitpix) // 8


def _unparsed(path, error):
    found = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    expected = "a header that astropy can read; get the file again"
    return CutoutError("header", path, found, expected)
