"""One image on the pixel grid of a network: its pixel scale, then area overlap, then its side.

Flux is conserved: a new pixel holds the flux of the old pixels, or parts of them, that it covers,
as if every pixel were evenly bright. That is what drizzling with whole pixels does, and no
interpolation that can ring. Images are not turned.
"""

import functools
import math
import re
import warnings

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, Wcsprm
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import sparse
from scipy.interpolate import make_interp_spline

ALIKE = 1e-3  # ASSUMED: scales this near (0.1 pixels at the edge of 200) are one, and kept exact
SQUARE = 1e-2  # ASSUMED: pixels this near to squares are squares
SCALES = (1e-3, 60.0)  # ASSUMED: arcsec; a header that says another scale says nothing
DIGITS = 12  # of a degree, behind the point; what rounding leaves of 0 is no position
_DISTORTION = re.compile(rb"[AB]P?_|CPDIS|CQDIS|D2IM|D[PQW]\d")  # astropy's, not wcslib's
KEYWORDS = ("PIXSCALE", "PIXELSCL", "SECPIX", "PIXSCAL1")  # arcsec a pixel, by custom


def pixel_scale(header):
    """Return the pixel scale that a header tells, from its WCS or else from `KEYWORDS`.

    Args:
        header: astropy.io.fits.Header, or its cards as bytes, each of 80.

    Returns:
        Arcsec a pixel; the geometric mean of both axes. None where the header tells none.

    Raises:
        ValueError: If the pixels are not square.

    Reference:
        Greisen & Calabretta (2002), A&A 395, 1061.
    """
    if isinstance(header, bytes):
        header = fits.Header.fromstring(header.decode("latin-1"))
    pair = _by_wcs(header)
    if pair is not None and max(pair) > (1 + SQUARE) * min(pair):
        raise ValueError(f"pixels of {pair[0]:.4g} by {pair[1]:.4g} arcsec")
    if pair is not None:
        return math.sqrt(math.prod(pair))
    for word in KEYWORDS:
        value = header.get(word)
        if isinstance(value, (int, float)) and SCALES[0] <= value <= SCALES[1]:
            return float(value)
    return None


def middle(header, shape):
    """Return where the middle of an image is on the sky.

    Args:
        header: As for `pixel_scale`.
        shape: Of the image, (height, width).

    Returns:
        Right ascension and declination, deg (ICRS), or None if the header has no usable WCS.
    """
    height, width = shape
    center = (width - 1) / 2, (height - 1) / 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = _by_wcslib(header, center) if isinstance(header, bytes) else None
            pair = pair or _by_astropy(header, center)
    except Exception:  # noqa: BLE001, astropy raises whatever malformed cards lead to
        return None
    if not pair or not np.isfinite(pair).all():
        return None
    return round(pair[0], DIGITS) % 360.0, round(pair[1], DIGITS)


def _by_astropy(header, pixel):
    """Return right ascension and declination of a pixel, or None if the header tells neither."""
    if isinstance(header, bytes):
        header = fits.Header.fromstring(header.decode("latin-1"))
    wcs = WCS(header, naxis=2)
    # Without CRVAL a WCS begins at 0, 0, where the image is not.
    if not wcs.has_celestial or "CRVAL1" not in header or "CRVAL2" not in header:
        return None
    found = wcs.celestial.pixel_to_world(*pixel).icrs
    return float(found.ra.deg), float(found.dec.deg)


def _by_wcslib(cards, pixel):
    """Return right ascension and declination of a pixel, or None for what needs more than wcslib.

    A twentieth of the time of astropy's WCS, which adds distortions and other frames to it.
    """
    words = {cards[k : k + 8].rstrip() for k in range(0, len(cards), 80)}
    if not words >= {b"CRVAL1", b"CRVAL2"} or any(map(_DISTORTION.match, words)):
        return None
    wcs = Wcsprm(header=cards, relax=True)
    wcs.fix()
    is_icrs = wcs.radesys == "ICRS" or not wcs.radesys and np.isnan(wcs.equinox)
    if wcs.naxis != 2 or (wcs.lngtyp, wcs.lattyp) != ("RA", "DEC") or not is_icrs:
        return None
    if any("-SIP" in word for word in wcs.ctype):
        return None
    world = wcs.p2s([pixel], 0)["world"][0]
    longitude, latitude = float(world[wcs.lng]), float(world[wcs.lat])
    return longitude % 360 % 360, latitude  # -1e-30 % 360 is 360


def to_grid(image, scale, *, new_scale, side, pad=True):
    """Put an image on another grid of square pixels, about the same center.

    Equal scales move whole pixels only, so that what has the right scale and side stays as it is,
    to the last bit; the center then moves by half a pixel where one side is odd and one is even.

    Args:
        image: Shape (height, width), flux a pixel.
        scale: Its pixel scale, arcsec.
        new_scale: That of the new image.
        side: Height and width of the new image, pixels.
        pad: Whether an image that covers less is given a border of 0; without, the new image has
            the pixels alone that the old one covers wholly, and at least one.

    Returns:
        Image, float32, shape (side, side) or, without `pad`, less; and a tuple of words of what was
        done: resampled, cropped, padded.

    Raises:
        ValueError: If a scale is not a positive number.
    """
    if not (0 < scale < math.inf and 0 < new_scale < math.inf):
        raise ValueError(f"pixel scales are {scale} and {new_scale} arcsec, expected them positive")
    width = new_scale / scale  # of a new pixel, in old ones
    is_alike = abs(width - 1) <= ALIKE
    width = 1.0 if is_alike else width
    sides = [side if pad else min(side, max(int(n / width + 1e-9), 1)) for n in image.shape]
    words: tuple[str, ...] = () if is_alike else ("resampled",)
    words += ("cropped",) * any(side * width < n * (1 - ALIKE) for n in image.shape)
    words += ("padded",) * any(new * width > n * (1 + ALIKE) for n, new in zip(image.shape, sides))
    if is_alike:
        return _moved(image, sides), words
    rows, columns = (_overlaps(n, width, new) for n, new in zip(image.shape, sides))
    # Sparse and so without BLAS, whose last bits hang on the number of its threads.
    found = columns @ np.ascontiguousarray((rows @ image.astype(np.float64)).T)
    return np.ascontiguousarray(found.T, np.float32), words


@functools.lru_cache(maxsize=256)
def _overlaps(n, width, new):
    """Return how much of each of n old pixels lies in each new one, sparse, shape (new, n)."""
    edges = np.clip(n / 2 + (np.arange(new + 1) - new / 2) * width, 0, n)
    # The sum of all pixels up to a point is linear between the edges of pixels.
    until = make_interp_spline(np.arange(n + 1), np.tri(n + 1, n, -1), k=1)(edges)
    return sparse.csr_matrix(np.diff(until, axis=0))


def _moved(image, sides):
    """Return the middle of an image, or the image in the middle of zeros."""
    image = np.asarray(image, np.float32)
    if image.shape == tuple(sides):
        return image
    found, old, new = np.zeros(sides, np.float32), [], []
    for n, side in zip(image.shape, sides):
        extra, short = max(n - side, 0), max(side - n, 0)
        old.append(slice(extra // 2, extra // 2 + min(n, side)))
        new.append(slice(short // 2, short // 2 + min(n, side)))
    found[tuple(new)] = image[tuple(old)]
    return found


def _by_wcs(header):
    """Return arcsec a pixel along both axes, or None if the header has no usable WCS."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2)
            if not wcs.has_celestial:
                return None
            pair = proj_plane_pixel_scales(wcs.celestial) * 3600  # WCS makes them degrees
    except Exception:  # noqa: BLE001, astropy raises whatever malformed cards lead to
        return None
    is_usable = np.all((pair >= SCALES[0]) & (pair <= SCALES[1]))
    return tuple(map(float, pair)) if is_usable else None
