"""Objects of any source as a network wants them: read, scaled, cropped, and what was done said.

`find` lists the objects, `read_native` gives one as it is, `read_for` many on a network's pixels.
An object that cannot be used is 0 throughout and has an error; it changes no other one.
"""

import functools
import warnings

import numpy as np
from astropy.io import fits

from cast_lens import cutouts, fits_image, geometry, image_parts, plain_fits
from cast_lens.byte_order import is_swapped
from cast_lens.fits_image import CutoutError
from cast_lens.image_sources import Images, ImagesError, find, find_again, fingerprint
from cast_lens.pack_files import PackError

__all__ = [
    "FLAGS",
    "Images",
    "ImagesError",
    "find",
    "find_again",
    "fingerprint",
    "in_order",
    "read_for",
    "read_native",
    "sky_position",
]

# What may have been done to an image, in the order in which `flags` tells it.
FLAGS = {
    "nan_filled": "NaN or infinite pixels became 0",
    "masked": "masked pixels became 0",
    "constant": "all pixels of a band are equal",
    "padding_missing": "the file lacks the padding at its end",
    "scale_assumed": "no pixel scale is known; the side is the network's, and so the scale",
    "resampled": "the pixel scale was another; flux is conserved",
    "cropped": "the image was larger",
    "padded": "the image was smaller; its border is 0",
}
# Cards of a header that decide the pixel scale.
_SCALE_CARDS = frozenset(
    [b"WCSAXES", *(word.encode() for word in geometry.KEYWORDS)]
    + [b"%s%d" % (w, k) for w in (b"CTYPE", b"CUNIT", b"CDELT", b"CROTA") for k in (1, 2)]
    + [b"%s%d_%d" % (w, i, j) for w in (b"CD", b"PC") for i in (1, 2) for j in (1, 2)]
)


def read_native(images, position, bands=None):
    """Read one object as it is.

    Args:
        images: Images.
        position: Row of `images.table`.
        bands: Which bands; None for all.

    Returns:
        {band: (image, pixel scale)}, the image float32 of shape (height, width), bad pixels 0, the
        scale in arcsec, or None if it is unknown; and the flags, words joined by ";".

    Raises:
        CutoutError: If a band cannot be used.
    """
    found, words = {}, set()
    largest = cutouts.largest_square(images.mask_value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for band in images.bands if bands is None else dict.fromkeys(bands):
            pixels, header = _read_band(images, position, band)
            n_masked, n_nonfinite = cutouts.blank_bad(pixels, images.mask_value, largest)
            words |= {"masked"} if n_masked else set()
            words |= {"nan_filled"} if n_nonfinite else set()
            if pixels[0, 0] == pixels[-1, -1] and (pixels == pixels[0, 0]).all():
                words.add("constant")
            found[band] = (pixels, _scale_of(images, position, band, header))
    if any("padding is missing" in str(warning.message) for warning in caught):
        words.add("padding_missing")
    return found, _joined(words)


def read_for(images, positions, branches, *, take=None):
    """Read objects on the pixels of a network.

    Args:
        images: Images.
        positions: Rows of `images.table`, shape (objects,).
        branches: Of the network, each with name, bands, side (pixels) and pixel_scale (arcsec).
        take: {band of the network: band of the images}; None for those of the same name.

    Returns:
        {branch: float32, shape (objects, side, side, band)}; flags, a list of words joined by ";";
        and {index: CutoutError} of the objects that cannot be used, which are 0 throughout.

    Raises:
        ImagesError: If the images lack a band that the network wants.
    """
    take = taken(images, branches, take)
    arrays = {
        b.name: np.zeros((len(positions), b.side, b.side, len(b.bands)), np.float32)
        for b in branches
    }
    flags, failed = [""] * len(positions), {}
    for k, position in enumerate(positions):
        try:
            grids, flags[k] = read_grids(images, position, branches, take)
        except CutoutError as error:
            failed[k] = error
            continue
        for branch in branches:
            for n, band in enumerate(branch.bands):
                arrays[branch.name][k, ..., n] = grids[branch.name, band]
    return arrays, flags, failed


def read_grids(images, position, branches, take, *, pad=True):
    """Read one object, {(branch, band): image} on the pixels of a network, and its flags.

    Args:
        images: Images.
        position: Row of `images.table`.
        branches: As for `read_for`.
        take: {band of the network: band of the images}, whole.
        pad: As for `geometry.to_grid`.

    Raises:
        CutoutError: If a band cannot be used, or its pixel scale is unknown.
    """
    wanted = [take[band] for branch in branches for band in branch.bands]
    native, flags = read_native(images, position, wanted)
    grids, words = {}, set(flags.split(";"))
    for branch in branches:
        for band in branch.bands:
            pixels, scale = native[take[band]]
            if scale is None:
                scale = _assumed(images, position, take[band], pixels, branch)
                words.add("scale_assumed")
            grid, done = geometry.to_grid(
                pixels, scale, new_scale=branch.pixel_scale, side=branch.side, pad=pad
            )
            grids[branch.name, band] = grid
            words |= set(done)
    return grids, _joined(words)


def sky_position(images, position):
    """Return where the middle of an object's image is, by the WCS of its header.

    Args:
        images: Images.
        position: Row of `images.table`.

    Returns:
        Right ascension and declination, deg (ICRS): those of the table where it has them, of the
        first band with a usable WCS otherwise, NaN where there is none.
    """
    row = images.table.iloc[position]
    known = float(row["ra"]), float(row["dec"])
    if np.isfinite(known).all() or images.pack is not None:
        return known
    for band in images.bands:
        try:
            with warnings.catch_warnings():  # `read_native` has told of the same file
                warnings.simplefilter("ignore")
                pixels, header = _read_band(images, position, band)
        except CutoutError:
            continue
        found = geometry.middle(header, pixels.shape)
        if found is not None:
            return found
    return np.nan, np.nan


def in_order(branches, take, *, error=ImagesError):
    """Return {band of the network: band of the images} of bands in the order of the network's.

    Args:
        branches: Of the network, each with bands.
        take: Names of bands of the images; or such a dict, or None, which are returned.
        error: Class of the exception, of RunError.

    Raises:
        RunError: If there is not one for each.
    """
    if take is None or isinstance(take, dict):
        return take
    wanted = list(dict.fromkeys(band for branch in branches for band in branch.bands))
    if len(take) != len(wanted):
        raise error(
            f"found {len(take)} bands, {', '.join(take)}, expected one for each of the network's, "
            f"{', '.join(wanted)}; name so many with --bands, one may be named again"
        )
    return dict(zip(wanted, take))


def taken(images, branches, take=None):
    """Return {band of the network: band of the images} for all bands of some branches.

    Raises:
        ImagesError: If a band is not there.
    """
    wanted = list(dict.fromkeys(band for branch in branches for band in branch.bands))
    if take is None:
        one_for_one = len(wanted) == len(images.bands) == 1
        take = {wanted[0]: images.bands[0]} if one_for_one else {band: band for band in wanted}
    for band in wanted:
        if take.get(band) not in images.bands:
            raise ImagesError(
                f"{images.source}: found the bands {', '.join(images.bands)}, expected one to "
                f"stand for {band}; name the bands of the images in the order of the network's, "
                f"{', '.join(wanted)}, with --bands"
            )
    return {band: take[band] for band in wanted}


def _read_band(images, position, band):
    """Return pixels, float32, of the caller's; and the header, or its cards, or None."""
    row = images.table.iloc[position]
    if images.pack is not None:
        return _from_pack(images.pack, int(row["record"]), band), None
    path, part = row[f"path_{band}"], row.get(f"part_{band}")
    if path is None:
        others = [row[f"path_{other}"] for other in images.bands if row[f"path_{other}"]]
        found, expected = f"no image in band {band}", "one a band; get all files of the object"
        raise CutoutError("missing_band", (others or [images.source])[0], found, expected)
    if isinstance(part, tuple):
        return image_parts.read_part(path, part)
    data = fits_image.read_bytes(path)
    if isinstance(part, str):
        return image_parts.read_from(path, data, part, images.bands)
    layout = plain_fits.find_layout(data)
    if layout is None or len(data) < layout.size:
        return _read_careful(path, data, band)
    if layout.height * layout.width > fits_image.MAX_PIXELS:
        fits_image.read_pixels(path)  # which refuses it
    stored = plain_fits.stored_pixels(data, layout)
    with np.errstate(over="ignore"):
        pixels = stored.astype(np.float32)
    if is_swapped(pixels, stored):
        fits_image.read_pixels(path)  # which refuses it
    return pixels, data[: layout.end]


def _read_careful(path, data, band):
    """Read what is no plain file: by `fits_image`, or an image that is in an extension."""
    try:
        pixels = fits_image.read_pixels(path)
    except CutoutError as error:
        if error.reason != "shape":
            raise
        try:
            return image_parts.read_from(path, data, band, (band,))
        except CutoutError as other:
            raise (other if other.reason == "shape" else error) from None
    return pixels, fits.Header.fromstring(data[: fits_image.MAX_HEADER_BYTES])


def _from_pack(pack, record, band):
    name = next(name for name, bands in pack.inputs.items() if band in bands)
    try:
        pack.verify([record])
    except PackError as error:
        raise CutoutError("checksum", pack.folder, str(error), "the bytes as written") from error
    images = pack.batch(name, [record])  # (1, height, width, band)
    return np.array(images[0, ..., pack.inputs[name].index(band)], np.float32, order="C")


def _scale_cards(header):
    """Return the cards that decide the pixel scale, which most files of a survey share."""
    cards = (header[k : k + 80] for k in range(0, len(header), 80))
    found = b"".join(card for card in cards if card[:8].rstrip() in _SCALE_CARDS)
    return found.replace(b"-SIP", b"    ")  # distortions, whose numbers are left out


@functools.lru_cache(maxsize=1024)
def _scale_by_cards(cards):
    return geometry.pixel_scale(cards)


def _scale_of(images, position, band, header):
    """Return the pixel scale that was given, or else that of the header; None for neither."""
    option = images.pixel_scale
    option = option.get(band) if isinstance(option, dict) else option
    if option is not None or header is None:
        return option and float(option)
    try:
        is_bytes = isinstance(header, bytes)
        scale = _scale_by_cards if is_bytes else geometry.pixel_scale
        return scale(_scale_cards(header) if is_bytes else header)
    except ValueError as error:
        path = images.table[f"path_{band}"].iloc[position]
        expected = "square pixels; resample the image first, or give --pixel-scale"
        raise CutoutError("scale", path, error, expected) from error


def _assumed(images, position, band, pixels, branch):
    if max(pixels.shape) == min(pixels.shape) == branch.side:
        return branch.pixel_scale
    row = images.table.iloc[position]
    raise CutoutError(
        "scale", row.get(f"path_{band}") or images.source,
        f"no pixel scale, and {pixels.shape} pixels in band {band}",
        f"a WCS or PIXSCALE in the header, or a side of {branch.side}; give --pixel-scale",
    )  # fmt: skip


def _joined(words):
    return ";".join(word for word in FLAGS if word in words)
