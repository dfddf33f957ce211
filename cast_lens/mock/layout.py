"""The files of the challenges: FITS images with their cards, arc masks, tables."""

import gzip
import io

import numpy as np
from astropy.io import fits

_BLOCK = 2880  # bytes
# Degrees, as the published files write 0.1 and 0.2 arcsec; ASSUMED: 0.3 in the same manner
_SCALE = {0.1: "2.7777774714293E-05", 0.2: "5.55555494285861E-05", 0.3: "8.3333324142879E-05"}
_RANGE = 4.89661817911e-05 / (10.1 * np.pi / 180 / 3600)  # the published side over the exact one


def fits_bytes(image, pixel_scale, ra, dec):
    """Return an image as a FITS file of the challenges.

    Args:
        image: Shape (height, width), flux a pixel.
        pixel_scale: 0.1, 0.2 or 0.3 arcsec.
        ra: Right ascension in the light cone, rad.
        dec: Declination in the light cone, rad.

    Returns:
        Bytes: the header of the published I SGLC files, card for card, with this image's size,
        then big-endian float32.
    """
    data = np.ascontiguousarray(image, dtype=">f4").tobytes()
    height, width = image.shape
    header = _header(height, width, pixel_scale, ra, dec)
    return header + data + bytes(-len(data) % _BLOCK)


def mask_bytes(mask, pixel_scale):
    """Return a mask (bool, shape (height, width)) as a gzip FITS file of bytes, 1 where it is True.

    The same mask always gives the same bytes.
    """
    stream = io.BytesIO()
    header = fits.Header([("CDELT1", -pixel_scale / 3600), ("CDELT2", pixel_scale / 3600)])
    fits.PrimaryHDU(mask.astype(np.uint8), header).writeto(stream)
    return gzip.compress(stream.getvalue(), compresslevel=6, mtime=0)


def table_bytes(rows, columns, *, comment="", index=False, quote_names=False):
    """Return a table as the bytes of a CSV file.

    Args:
        rows: DataFrame.
        columns: {name in the file: column of `rows`}, in order.
        comment: Text of `#` lines above the header.
        index: Whether a first column without a name counts the rows.
        quote_names: Whether the names are quoted, as in the I SGLC.

    Returns:
        Bytes; NaN is an empty field, numbers have the six digits that the official files have.
    """
    table = rows[list(columns.values())].set_axis(list(columns), axis=1)
    text = table.reset_index(drop=True).to_csv(
        index=index, header=False, float_format="%.6g", lineterminator="\n"
    )
    names = [f'"{name}"' if quote_names else name for name in columns]
    return (comment + ",".join([""] * index + names) + "\n" + text).encode()


def _header(height, width, pixel_scale, ra, dec):
    scale = _SCALE[round(pixel_scale, 3)]
    side = f"{width * pixel_scale * np.pi / 180 / 3600 * _RANGE:.11E}"
    cards = [
        _card("SIMPLE", "T", "file does conform to FITS standard"),
        _card("BITPIX", "-32", "number of bits per data pixel"),
        _card("NAXIS", "2", "number of data axes"),
        _card("NAXIS1", width, "length of data axis 1"),
        _card("NAXIS2", height, "length of data axis 2"),
        _card("EXTEND", "T", "FITS dataset may contain extensions"),
        "COMMENT   FITS (Flexible Image Transport System) format is defined in 'Astronomy",
        "COMMENT   and Astrophysics', volume 376, page 359; bibcode: 2001A&A...376..359H",
        _card("WCSAXES", "2", "number of World Coordinate System axes"),
        _card("CRPIX1", _point((width + 1) / 2), "x-coordinate of reference pixel"),
        _card("CRPIX2", _point((height + 1) / 2), "y-coordinate of reference pixel"),
        _card("CRVAL1", "0.", "first axis value at reference pixel"),
        _card("CRVAL2", "0.", "second axis value at reference pixel"),
        _text("CTYPE1", "RA---TAN", "the coordinate type for the first axis"),
        _text("CTYPE2", "DEC--TAN", "the coordinate type for the second axis"),
        _text("CUNIT1", "deg", "the coordinate unit for the first axis"),
        _text("CUNIT2", "deg", "the coordinate unit for the second axis"),
        _card("CDELT1", "-" + scale, "partial of first axis coordinate w.r.t. x"),
        _card("CDELT2", scale, "partial of second axis coordinate w.r.t. y"),
        _card("CROTA2", "0."),
        _card("CD1_1", "-" + scale, "partial of first axis coordinate w.r.t. x"),
        _card("CD1_2", "0.", "partial of first axis coordinate w.r.t. y"),
        _card("CD2_1", "0.", "partial of second axis coordinate w.r.t. x"),
        _card("CD2_2", scale, "partial of second axis coordinate w.r.t. y"),
        _card("NX", width),
        _card("NY", height),
        f"HIERARCH range x = {side} / radians",
        _card("RA", f"{ra:.15g}", "radians"),
        _card("DEC", f"{dec:.15g}", "radians"),
        "END",
    ]
    text = "".join(card.ljust(80) for card in cards)
    return (text + " " * (-len(text) % _BLOCK)).encode("ascii")


def _card(keyword, value, comment=None):
    card = f"{keyword:<8}= {value:>20}"
    return f"{card} / {comment}" if comment else card


def _text(keyword, value, comment):
    quoted = f"'{value:<8}'"
    return f"{keyword:<8}= {quoted:<20} / {comment}"


def _point(value):
    return f"{value:.10g}" + ("." if value == int(value) else "")
