"""What a simulation knows of an object: arc mask, counts, magnification, critical curves.

Everything is measured on noiseless images blurred by the PSF, as the challenges' catalogs do.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from cast_lens.mock.render import lens_model

_GRID = 96  # points a side of the grid on which critical curves are found


@dataclass(frozen=True)
class Curves:
    """Critical curves of a lens and what follows from them, in arcsec.

    Attributes:
        x: Mean position of the tangential critical curve.
        y: Mean position of the tangential critical curve.
        area: Area within it, arcsec^2.
        length: Its length.
        x_caustic: Center of the circle about the caustics.
        y_caustic: Center of the circle about the caustics.
        r_caustic: Radius of the circle that circumscribes the larger of caustic and cut.
    """

    x: float
    y: float
    area: float
    length: float
    x_caustic: float
    y_caustic: float
    r_caustic: float


def critical_curves(lens, theta_e):
    """Find the tangential critical curve and the circle about its caustic and the cut.

    Args:
        lens: A `sky.Lens`.
        theta_e: Its Einstein radius, arcsec; the curve is sought within 2.5 of these.

    Returns:
        Curves.
    """
    model, arguments = lens_model(lens)
    axis = np.linspace(-2.5, 2.5, _GRID) * theta_e
    x, y = np.meshgrid(axis + lens.x, axis + lens.y)
    f_xx, f_xy, f_yx, f_yy = model.hessian(x.ravel(), y.ravel(), arguments)
    determinant = ((1 - f_xx) * (1 - f_yy) - f_xy * f_yx).reshape(x.shape)
    # Inside the tangential curve det A < 0, down to the singular center.
    curve = max(find_contours(determinant, 0.0), key=_area)
    step = axis[1] - axis[0]
    curve_x, curve_y = curve[:, 1] * step + x[0, 0], curve[:, 0] * step + y[0, 0]
    pieces = np.hypot(np.diff(curve_x), np.diff(curve_y))
    azimuth = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    cut_x, cut_y = lens.x + 1e-3 * np.cos(azimuth), lens.y + 1e-3 * np.sin(azimuth)
    caustic = np.array(model.ray_shooting(curve_x, curve_y, arguments))
    cut = np.array(model.ray_shooting(cut_x, cut_y, arguments))
    circles = []
    for line in (caustic, cut):
        center = (line.min(axis=1) + line.max(axis=1)) / 2
        circles.append((np.hypot(*(line - center[:, None])).max(), *center))
    radius, x_caustic, y_caustic = max(circles)
    return Curves(
        _mean(curve_x, pieces), _mean(curve_y, pieces), float(_area(curve) * step**2),
        float(pieces.sum()), float(x_caustic), float(y_caustic), float(radius),
    )  # fmt: skip


def arc_mask(source, sigma):
    """Return where a noiseless image of the lensed source exceeds the noise; shape as `source`."""
    return source > sigma


def count_images(mask):
    """Count separate groups of pixels; pixels that touch at a corner belong together."""
    return int(ndimage.label(mask, structure=np.ones((3, 3)))[1])


def _mean(line, pieces):
    """Return the mean of a coordinate along a curve of pieces of these lengths."""
    return float(np.average((line[1:] + line[:-1]) / 2, weights=pieces))


def _area(curve):
    """Return the area within a closed curve of shape (points, 2), by the shoelace formula."""
    x, y = curve[:, 0], curve[:, 1]
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]) + x[-1] * y[0] - x[0] * y[-1]) / 2
