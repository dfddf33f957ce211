"""From components to noiseless images: lenstronomy's profiles on an oversampled grid.

As in the challenges (Bom et al. 2022, Sec. 2.1) the grid has twice the resolution of the image and
is blurred and rebinned. Galaxy centers and lensed sources are averaged over finer points still.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy import ndimage, special

from cast_lens.mock.profiles import brightness, radius_at

OVERSAMPLING = 2
_CORE, _CORE_SAMPLES = 4, 8  # grid cells to each side of a galaxy's center, points a cell's side
_SOURCE_SAMPLES = 2  # points a grid cell's side in lensed images
_FAINTEST = 0.02  # of the noise a pixel; where a component falls below this, it is cut off
_FWHM = 2 * np.sqrt(2 * np.log(2))  # standard deviations


@dataclass(frozen=True)
class Frame:
    """The grid of one image.

    Attributes:
        n: Pixels a side.
        pixel_scale: Arcsec a pixel.
    """

    n: int
    pixel_scale: float

    @property
    def step(self):
        """Size of a grid cell, arcsec."""
        return self.pixel_scale / OVERSAMPLING

    @property
    def size(self):
        """Grid cells a side."""
        return self.n * OVERSAMPLING

    def cell(self, place):
        """Return the grid coordinate, in cells, of a position in arcsec."""
        return place / self.step + (self.size - 1) / 2

    def place(self, cell):
        """Return the position, in arcsec, of a grid coordinate in cells."""
        return (cell - (self.size - 1) / 2) * self.step


def lens_model(lens):
    """Return lenstronomy's LensModel and its keyword arguments.

    Args:
        lens: A `sky.Lens`, or None for empty space.
    """
    if lens is None:
        return LensModel(["SHEAR"]), [{"gamma1": 0.0, "gamma2": 0.0}]
    e1, e2 = phi_q2_ellipticity(lens.angle, lens.q)
    return LensModel(["SIE", "NFW", "SHEAR"]), [
        {"theta_E": lens.theta_sie, "e1": e1, "e2": e2, "center_x": lens.x, "center_y": lens.y},
        {"Rs": lens.r_s, "alpha_Rs": lens.alpha_rs, "center_x": lens.x_halo,
         "center_y": lens.y_halo},
        {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
    ]  # fmt: skip


def add_light(images, components, frame, sigmas):
    """Add galaxies to oversampled images, not yet blurred.

    Args:
        images: Float32, shape (bands, size, size), flux a grid cell; changed in place.
        components: Iterable of Components.
        frame: The Frame.
        sigmas: Noise of each band for a pixel of the frame's pixel scale; decides how far out a
            component reaches.
    """
    for component in components:
        reach = _reach(component, frame, sigmas)
        box = _box(component.x, component.y, reach, frame)
        if box is None:
            continue
        rows, columns = box
        y, x = frame.place(np.arange(*rows)), frame.place(np.arange(*columns))
        patch = brightness(component, *np.meshgrid(x, y))
        _refine_core(patch, component, rows, columns, frame)
        patch *= frame.step**2
        patch = patch.astype(np.float32)
        for image, flux in zip(images, component.flux):
            image[slice(*rows), slice(*columns)] += np.float32(flux) * patch


def lensed(source, lens, frame, *, faintest):
    """Render a source behind a lens on the oversampled grid, not yet blurred.

    Args:
        source: Components of the source, positions in the source plane, flux relative to the
            whole source in their first entry.
        lens: A `sky.Lens`, or None for the source as it would be without it.
        frame: The Frame.
        faintest: Relative surface brightness, 1/arcsec^2, below which the source is cut off.

    Returns:
        Float32, shape (size, size): fraction of the unlensed source's flux in each grid cell.
    """
    model, arguments = lens_model(lens)
    y, x = _coarse(frame)
    beta_x, beta_y = (b.reshape(x.shape) for b in _shoot(model, arguments, x, y))
    # A source touches a pixel only if it is no further than the ray moves within the pixel.
    step = _steps(beta_x, beta_y)
    near = np.zeros(x.shape, dtype=bool)
    for part in source:
        reach = radius_at(part, faintest / part.flux[0]) / np.sqrt(part.q)
        near |= np.hypot(beta_x - part.x, beta_y - part.y) < reach + step
    near = ndimage.binary_dilation(near)
    rows, columns = np.nonzero(near)
    samples = OVERSAMPLING * _SOURCE_SAMPLES
    shift = ((np.arange(samples) + 0.5) / samples - 0.5) * frame.pixel_scale
    fine_x = x[near][:, None, None] + shift[None, None, :]  # (pixels, samples, samples)
    fine_y = y[near][:, None, None] + shift[None, :, None]
    fine_x, fine_y = np.broadcast_arrays(fine_x, fine_y)
    beta = _shoot(model, arguments, fine_x, fine_y)
    light = np.zeros(beta[0].shape)
    for part in source:
        light += part.flux[0] * brightness(part, *beta)
    cells = light.reshape(-1, OVERSAMPLING, _SOURCE_SAMPLES, OVERSAMPLING, _SOURCE_SAMPLES)
    cells = cells.mean(axis=(2, 4)) * frame.step**2
    image = np.zeros((frame.n, OVERSAMPLING, frame.n, OVERSAMPLING), dtype=np.float32)
    image[rows, :, columns, :] = cells
    return image.reshape(frame.size, frame.size)


def expose(image, frame, band):
    """Blur an oversampled image with a band's PSF and rebin it to the band's pixels.

    Args:
        image: Shape (size, size), flux a grid cell.
        frame: The Frame of the finest band.
        band: A Band whose pixel is a whole multiple of the frame's. Edge pixels that do not fill
            one of the band's are cut off: 200 pixels of 0.1 arcsec give 66 of 0.3.

    Returns:
        Float32, shape (n, n), flux a pixel.
    """
    factor = round(band.pixel_scale / frame.pixel_scale)
    if factor > 1:  # a coarse band is sampled finely enough by the pixels of the finest
        image, step = rebin(image, OVERSAMPLING), frame.pixel_scale
    else:
        image, step, factor = image, frame.step, OVERSAMPLING
    blurred = ndimage.gaussian_filter(image, band.fwhm / _FWHM / step, mode="nearest")
    cut = len(blurred) % factor // 2
    return rebin(blurred[cut : len(blurred) - cut, cut : len(blurred) - cut], factor)


def rebin(image, factor):
    """Sum blocks of `factor` x `factor` pixels; both sides must be whole multiples of it."""
    n = len(image) // factor
    return image.reshape(n, factor, n, factor).sum(axis=(1, 3))


def add_stars(image, stars, band, number):
    """Add stars to an image of one band, in place, exact for a Gaussian PSF.

    Args:
        image: Shape (n, n), flux a pixel.
        stars: Iterable of Stars.
        band: The Band.
        number: Place of the band in the stars' fluxes.
    """
    edges = (np.arange(len(image) + 1) - len(image) / 2) * band.pixel_scale
    for star in stars:
        x, y = (
            np.diff(special.ndtr((edges - place) / (band.fwhm / _FWHM)))
            for place in (star.x, star.y)
        )
        image += (star.flux[number] * np.outer(y, x)).astype(image.dtype)


def _refine_core(patch, component, rows, columns, frame):
    """Replace the cells around the center, where the profile is steep, by averages."""
    row, column = round(frame.cell(component.y)), round(frame.cell(component.x))
    low, high = max(row - _CORE, rows[0]), min(row + _CORE + 1, rows[1])
    left, right = max(column - _CORE, columns[0]), min(column + _CORE + 1, columns[1])
    if low >= high or left >= right:
        return
    shift = (np.arange(_CORE_SAMPLES) + 0.5) / _CORE_SAMPLES - 0.5
    y = frame.place((np.arange(low, high)[:, None] + shift).ravel())
    x = frame.place((np.arange(left, right)[:, None] + shift).ravel())
    fine = brightness(component, *np.meshgrid(x, y))
    fine = fine.reshape(high - low, _CORE_SAMPLES, right - left, _CORE_SAMPLES).mean(axis=(1, 3))
    patch[low - rows[0] : high - rows[0], left - columns[0] : right - columns[0]] = fine


def _reach(component, frame, sigmas):
    """Return the distance, arcsec, at which the component is fainter than the noise allows."""
    faintest = min(
        _FAINTEST * sigma / frame.pixel_scale**2 / flux
        for sigma, flux in zip(sigmas, component.flux)
    )
    return radius_at(component, faintest) / np.sqrt(component.q)


def _box(x, y, reach, frame):
    """Return the rows and columns (first, one past last) of the grid within reach, or None."""
    box = []
    for place in (y, x):
        first = max(int(np.floor(frame.cell(place - reach))), 0)
        last = min(int(np.ceil(frame.cell(place + reach))) + 1, frame.size)
        if first >= last:
            return None
        box.append((first, last))
    return box


@lru_cache(maxsize=8)
def _coarse(frame):
    """Return the pixel centers of a frame, y and x, arcsec, shape (n, n) each."""
    axis = (np.arange(frame.n) - (frame.n - 1) / 2) * frame.pixel_scale
    return np.meshgrid(axis, axis, indexing="ij")


def _shoot(model, arguments, x, y):
    beta = model.ray_shooting(x.ravel(), y.ravel(), arguments)
    return beta[0].reshape(x.shape), beta[1].reshape(x.shape)


def _steps(beta_x, beta_y):
    """Return how far the ray moves in the source plane to the furthest neighbor of each pixel."""
    step = np.zeros(beta_x.shape)
    for axis in (0, 1):
        moved = np.hypot(np.diff(beta_x, axis=axis), np.diff(beta_y, axis=axis))
        first, last = (slice(None, -1), slice(1, None))
        one, two = ((first, slice(None)), (last, slice(None)))
        if axis == 1:
            one, two = ((slice(None), first), (slice(None), last))
        step[one] = np.maximum(step[one], moved)
        step[two] = np.maximum(step[two], moved)
    return step
