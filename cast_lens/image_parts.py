"""The images inside one FITS file that is no plain cutout: extensions, compressed ones, cubes.

astropy reads them; this module looks at their sizes before any pixel is.
"""

import gzip
import io
import math
import os
import warnings

import numpy as np
from astropy.io import fits

from cast_lens.fits_image import MAX_PIXELS, CutoutError

SUFFIXES = (".fits.gz", ".fits.fz", ".fits", ".fit")
_IMAGES = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)


def is_image(path):
    """Return whether a file is a FITS file that holds images rather than a table of files."""
    path = os.fspath(path)
    if not os.path.isfile(path) or not path.lower().endswith(SUFFIXES):
        return False
    try:
        return bool(planes_and_parts(path)[1])
    except CutoutError:
        return False


def planes_and_parts(path):
    """List the images of a FITS file without reading their pixels.

    Args:
        path: The file, of any size; gzip is unpacked by astropy.

    Returns:
        The number of planes, if the first image has three axes, otherwise 0; and a list of (EXTNAME
        or "", part), a part being what `read_part` takes.

    Raises:
        CutoutError: If it is no FITS file that astropy can read to its end.
    """
    parts: list[tuple[str, tuple]] = []
    n_planes = 0
    try:
        with warnings.catch_warnings(), fits.open(path, memmap=True) as hdus:
            warnings.simplefilter("ignore")
            for number, hdu in enumerate(hdus):
                if not isinstance(hdu, _IMAGES) or not hdu.shape:
                    continue
                if not parts and len(hdu.shape) == 3:
                    n_planes = hdu.shape[0]
                    parts.append((_name(hdu), ("plane", number, 0)))
                else:
                    at = hdu.fileinfo()
                    end = at["datLoc"] + at["datSpan"]
                    parts.append((_name(hdu), ("bytes", at["hdrLoc"], end)))
                if n_planes:
                    break
    except Exception as error:  # noqa: BLE001, astropy raises whatever a malformed card leads to
        raise _unparsed(path, error) from error
    return n_planes, parts


def read_part(path, part):
    """Read one image of a file.

    Args:
        path: The file.
        part: ("bytes", first, end) of an HDU, or ("plane", HDU, plane).

    Returns:
        Pixels, float32, shape (height, width); and the header.

    Raises:
        CutoutError: If it is not a whole image of a cutout's size.
    """
    kind, first, last = part
    if kind == "plane":
        return _read(path, lambda: fits.open(path, memmap=True), first, last)
    try:
        with _open(path) as stream:
            stream.seek(first)
            data = stream.read(last - first)
    except (OSError, EOFError) as error:
        error = OSError(0, str(error)) if isinstance(error, EOFError) else error
        raise CutoutError("io", path, error.strerror, "a readable file; name it") from error
    if len(data) < last - first:
        expected = f"{last - first} for the HDU; get the file again"
        raise CutoutError("truncated", path, f"{len(data)} bytes", expected)
    if data.startswith(b"SIMPLE"):
        return _read(path, lambda: fits.open(io.BytesIO(data), memmap=False), 0)
    primary = io.BytesIO()
    fits.PrimaryHDU().writeto(primary)
    whole = primary.getvalue() + data
    return _read(path, lambda: fits.open(io.BytesIO(whole), memmap=False), 1)


def read_from(path, data, band, bands):
    """Read the image of one band from a file of one object.

    Args:
        path: The file, for messages.
        data: Its bytes, unpacked.
        band: Name of the band: the EXTNAME, or else its place among `bands`, in as many images.
        bands: Names of all bands in the file; one for the only image.

    Returns:
        As `read_part`.

    Raises:
        CutoutError: As `read_part`; missing_band if the image is not there.
    """
    found: list[tuple[str, int, tuple]] = []
    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(data), memmap=False) as hdus:
            warnings.simplefilter("ignore")
            for number, hdu in enumerate(hdus):
                if isinstance(hdu, _IMAGES) and hdu.shape:
                    found.append((_name(hdu).upper(), number, hdu.shape))
    except Exception as error:  # noqa: BLE001, as above
        raise _unparsed(path, error) from error
    named = [number for name, number, _ in found if name == band.upper()]
    plane = None
    if len(named) == 1:
        number = named[0]
    elif len(found) == len(bands):
        number = found[bands.index(band)][1]
    elif len(found) == 1 and len(found[0][2]) == 3 and found[0][2][0] == len(bands):
        number = found[0][1]
    else:
        shown = ", ".join(f"{name or 'image'} {shape}" for name, _, shape in found) or "no image"
        expected = f"one image for each of {', '.join(bands)}, called so by EXTNAME"
        raise CutoutError("missing_band", path, shown, expected)
    shape = next(shape for _, at, shape in found if at == number)
    if len(shape) == 3 and shape[0] == len(bands):
        plane = bands.index(band)
    return _read(path, lambda: fits.open(io.BytesIO(data), memmap=False), number, plane)


def _read(path, open_file, number, plane=None):
    """Read an HDU, or a plane of it, once its header says that it is small."""
    try:
        with warnings.catch_warnings(), open_file() as hdus:
            warnings.simplefilter("ignore")
            hdu = hdus[number]
            shape = hdu.shape if plane is None else hdu.shape[1:]
            if len(shape) != 2 or not 0 < math.prod(shape) <= MAX_PIXELS:
                expected = f"two axes with 1 to {MAX_PIXELS} pixels; cut the object out"
                raise CutoutError("shape", path, f"an image of {hdu.shape} pixels", expected)
            pixels = hdu.data if plane is None else hdu.section[plane]
            with np.errstate(over="ignore"):
                return np.array(pixels, np.float32, order="C"), hdu.header.copy()
    except CutoutError:
        raise
    except Exception as error:  # noqa: BLE001, as above
        raise _unparsed(path, error) from error


def _open(path):
    with open(path, "rb") as stream:
        is_packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_packed else open(path, "rb")


def _name(hdu):
    return str(hdu.header.get("EXTNAME", "")).strip()


def _unparsed(path, error):
    found = f"{type(error).__name__}: {' '.join(str(error).split())}"
    expected = "a FITS file that astropy can read; get the file again"
    return CutoutError("header", path, found, expected)
