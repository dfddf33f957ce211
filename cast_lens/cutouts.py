"""One object's FITS files become a float32 image of shape (height, width, band).

astropy.io.fits defines what a pixel is; this module decides which files are safe to hand to it.
"""

import errno
import gzip
import io
import math
import os
import re
import stat
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from astropy.io import fits

BANDS = ("VIS", "Y", "J", "H", "R", "I", "G", "U")

# More than any cutout takes, so that a wrong file costs an error and not the memory or a minute.
MAX_BYTES = 1 << 25
MAX_HEADER_BYTES = 100 * 2880
MAX_PIXELS = 1 << 20

_NAME = re.compile(r"image(?:EUC_(VIS|[YJH])|SDSS_([RIGU]))-([0-9]+)\.fits(?:\.gz)?")
_OTHER_IMAGES = {"NoSourceImage", "NoLensImage"}
_BLOCK = 2880  # bytes; FITS pads the header and the data to whole blocks


class CutoutError(ValueError):
    """A cutout that cannot be used.

    Attributes:
        reason: Code to count by: truncated, not_fits, empty, shape, dtype, io, header, duplicate.
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


@dataclass(frozen=True)
class PixelCounts:
    """The shape (height, width, band) of a cutout, and how many pixels of each band became 0."""

    shape: tuple[int, int, int]
    n_masked: tuple[int, ...]
    n_nonfinite: tuple[int, ...]


def find_cutouts(folder):
    """Find the images of the I or II SGLC below a folder, however the archives were unpacked.

    Object and band are read from the file name, image{EUC_VIS,EUC_Y,...,SDSS_U}-<ID>.fits[.gz],
    never from folders or their order. Below NoSourceImage and NoLensImage the I SGLC keeps other
    images of the same objects under the same names; these are ignored and count as extras.

    Args:
        folder: Folder to search; links to folders are followed, each folder is searched once.

    Returns:
        DataFrame of shape (objects, 1 + bands) sorted by object_id (str), with a column
        path_<band> for each band found, in the order of `BANDS`; a missing file is None. And the
        number of extras, which are all other files.

    Raises:
        CutoutError: If there is no image, two are of one object and band, one ID has images of
            both tracks (EUC and SDSS number different objects alike), or a folder is unreadable.

    Reference:
        Metcalf et al. (2019), A&A 625, A119, for the tracks of the I SGLC.
    """
    found: dict[str, dict[str, str]] = {}
    folder, n_extra = os.fspath(folder), 0
    for path in _files(folder):
        match = _NAME.fullmatch(os.path.basename(path))
        if match and _OTHER_IMAGES.isdisjoint(os.path.relpath(path, folder).split(os.sep)):
            _add(found.setdefault(match[3], {}), match[1] or match[2], path, match[3])
        else:
            n_extra += 1
    if not found:
        expected = "image*-<ID>.fits below it; also unpack the archives inside the archive"
        raise CutoutError("empty", folder, f"{n_extra} files, none an image of the SGLC", expected)
    table = pd.DataFrame({"object_id": sorted(found)})
    for band in BANDS:
        paths = [found[object_id].get(band) for object_id in table["object_id"]]
        if any(paths):
            # As objects: a folder name need not be UTF-8, which the strings of pandas must be.
            table[f"path_{band}"] = pd.Series(paths, dtype=object)
    return table, n_extra


def read_cutout(paths, *, mask_value=None):
    """Read one object's image in one or more bands of equal shape.

    Args:
        paths: List of FITS files, plain or gzip, one a band, in the order the bands shall have.
        mask_value: Pixels >= this are masked. The ground-based images of the I SGLC mark them with
            exactly 100, where the flux is below 1e-8. None masks nothing.

    Returns:
        Image, float32, shape (height, width, band), in the unit of the files, for the SGLC
        10^(-0.4 m_AB) a pixel, BSCALE, BZERO and BLANK applied. Masked, NaN and infinite pixels,
        and those beyond float32, are 0. And the numbers of these, as PixelCounts.

    Raises:
        CutoutError: If a file is not one whole two-dimensional image in its primary HDU, is
            larger than a cutout can be, or the bands differ in shape.
        ValueError: If there is no path, or `mask_value` is not finite.

    Warns:
        UserWarning: If only the padding at the end of a file is missing.
    """
    if isinstance(paths, (str, os.PathLike)) or not len(paths):
        raise ValueError(f"paths is {paths!r}, expected a list of files, one a band")
    if mask_value is not None and not math.isfinite(mask_value):
        raise ValueError(f"mask_value is {mask_value}, expected a finite number or None")
    bands = [_read_band(path) for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.shape != bands[0].shape:
            found = f"bands of {bands[0].shape} and {band.shape} pixels"
            expected = "equal shapes; read bands of another pixel scale separately"
            raise CutoutError("shape", f"{paths[0]} and {path}", found, expected)
    image = np.stack(bands, axis=-1)  # (height, width, band)
    nonfinite = ~np.isfinite(image)
    masked = ~nonfinite & ~_below(image, mask_value)
    image[nonfinite | masked] = 0
    n_masked, n_nonfinite = (tuple(bad.sum(axis=(0, 1)).tolist()) for bad in (masked, nonfinite))
    return image, PixelCounts(image.shape, n_masked, n_nonfinite)


def pixel_statistics(image, *, mask_value=None):
    """Compute minimum, median, maximum and standard deviation of every band.

    Args:
        image: Shape (height, width, band), read without a mask value: once a masked pixel is 0,
            nothing tells it from sky.
        mask_value: Pixels >= this are ignored, and so are NaN and infinite ones.

    Returns:
        Dict of min, median, max and std (divided by the number of pixels), each float64, shape
        (bands,), in the unit of the image; NaN for a band without a pixel left.

    Raises:
        ValueError: If `image` has not three axes.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}, expected (height, width, band)")
    used = np.isfinite(image) & _below(image, mask_value)
    bands = [image[..., n][used[..., n]].astype(np.float64) for n in range(image.shape[2])]
    return {
        name: np.array([getattr(np, name)(band) if band.size else np.nan for band in bands])
        for name in ("min", "median", "max", "std")
    }


def _below(image, mask_value):
    return image < (np.inf if mask_value is None else float(mask_value))


def _files(folder):
    """Yield the path of every file below `folder`, in an order that no file system decides."""

    def refuse(error):
        expected = "a folder that can be read; name another, or set its permissions"
        raise CutoutError("io", error.filename, error.strerror, expected) from error

    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # a link back up, or a second way down
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (os.path.join(here, name) for name in sorted(files))


def _add(paths, band, path, object_id):
    other = paths.get(band) or next(iter(paths.values()), path)
    if band in paths or _track(other) != _track(path):
        found = f"two images of object_id {object_id}"
        expected = "one a band, all of one track; name the folder of one track, or remove one image"
        raise CutoutError("duplicate", f"{other} and {path}", found, expected)
    paths[band] = path


def _track(path):
    return os.path.basename(path)[:8]  # "imageEUC" or "imageSDS"


def _read_band(path):
    """Return the pixels of one file, float32 in native byte order, shape (height, width)."""
    data = _read_bytes(path)
    header, start = _read_header(path, data)
    height, width, itemsize = _geometry(path, header)
    end = start + height * width * itemsize
    if len(data) < end:
        expected = f"at least {end} for the header and all pixels; get the file again"
        raise CutoutError("truncated", path, f"{len(data)} bytes", expected)
    if len(data) < end + -end % _BLOCK:
        warnings.warn(f"{path}: padding is missing at its end, all pixels are there", stacklevel=2)
    # Only the primary HDU, and whole: astropy need not guess at what is missing or what follows.
    primary = io.BytesIO(data[:end] + bytes(-end % _BLOCK))
    try:
        # A number beyond float32 becomes infinite, which the caller counts.
        with fits.open(primary, memmap=False) as hdus, np.errstate(over="ignore"):
            return hdus[0].data.astype(np.float32).reshape(height, width)
    except Exception as error:  # astropy raises whatever a malformed card leads to
        raise _unparsed(path, error) from error


def _read_bytes(path):
    """Return a file's bytes, unpacked if gzip, without waiting for a FIFO or filling the memory."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as stream:
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
    except OSError as error:
        reason = "not_fits" if error.errno in (errno.EISDIR, errno.ELOOP) else "io"
        raise CutoutError(reason, path, error.strerror, "a readable file; name it") from error
    if len(data) > MAX_BYTES:
        expected = f"at most {MAX_BYTES} unpacked; cut the image out first"
        raise CutoutError("shape", path, f"more than {MAX_BYTES} bytes", expected)
    return data


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
