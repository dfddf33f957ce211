"""Surface brightness of one component: lenstronomy's elliptical Sersic profile, spiral arms."""

import numpy as np
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity

_SERSIC = LightModel(["SERSIC_ELLIPSE"])


def brightness(component, x, y):
    """Evaluate a component of unit flux.

    Args:
        component: A `galaxies.Component`.
        x: Positions, arcsec, any shape.
        y: Positions, arcsec, the same shape.

    Returns:
        Surface brightness, 1/arcsec^2, that shape.
    """
    e1, e2 = phi_q2_ellipticity(component.angle, component.q)
    arguments = {
        "R_sersic": component.radius, "n_sersic": component.n, "e1": e1, "e2": e2,
        "center_x": component.x, "center_y": component.y,
    }  # fmt: skip
    amp = 1 / _flux_of_amplitude(component.radius, component.n)
    light = _SERSIC.surface_brightness(x.ravel(), y.ravel(), [{"amp": amp, **arguments}])
    light = light.reshape(x.shape)
    if component.spiral:
        light *= _arms(component, x, y)
    return light


def _arms(component, x, y):
    """Return 1 + A cos(m (azimuth in the disc - ln r / tan pitch) + phase); its mean is 1."""
    spiral = component.spiral
    cos, sin = np.cos(component.angle), np.sin(component.angle)
    along = (x - component.x) * cos + (y - component.y) * sin
    across = ((y - component.y) * cos - (x - component.x) * sin) / component.q
    r = np.hypot(along, across) / component.radius + 1e-3
    turn = np.arctan2(across, along) - np.log(r) / np.tan(spiral.pitch)
    inner = r**2 / (r**2 + 0.25)  # ASSUMED: arms begin at half the disc's half-light radius
    return 1 + spiral.amplitude * inner * np.cos(spiral.arms * turn + spiral.phase)


def radius_at(component, brightness):
    """Return the radius, arcsec, product average, where unit flux has a surface brightness."""
    at_half_light = 1 / _flux_of_amplitude(component.radius, component.n)
    ratio = np.log(at_half_light / brightness) / _b(component.n)
    return component.radius * max(1 + ratio, 0) ** component.n


def _flux_of_amplitude(radius, n):
    return _SERSIC.func_list[0].total_flux(amp=1.0, R_sersic=radius, n_sersic=n)


def _b(n):
    return _SERSIC.func_list[0].b_n(n)
