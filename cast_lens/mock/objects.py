"""One object from beginning to end: lens plane, source, noiseless images, truth, noise."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from cast_lens.mock import planes, populations, render, sky, truth
from cast_lens.mock.telescopes import Band, add_noise

_WIDER = (1.5, 4.0)  # ASSUMED: how much larger the caustic of another halo in the field is
# glenco/SLsimLib does not make them: 2 of 12 real ground-based sample objects have this much more
_ROUGH = (2.3, 3.7)  # times the noise
_CURVE_STEP = 0.8  # ASSUMED: arcsec a point of the critical curve; the II SGLC lists 8 to 39
_SOURCE_FAINTEST = 0.01  # of the noise a pixel; where the source as a whole falls below, it ends


# Columns of Truth/truth.csv: what the official tables lack, in arcsec, km/s and solar masses
TRUTH = (
    "object_id", "n_sources", "plane_id", "source", "theta_e", "z_lens", "z_source", "r_caustic",
    "r_source", "sigma_v", "q", "gamma", "halo_mass", "star_mass", "mag_source", "mag_lens",
    "color_diff", "n_pix_source", "flux_in_sigma", "n_source_im", "mag_eff", "sb_contrast",
    "n_pix_lens", "lens_flux", "n_gal_3", "n_gal_5", "n_gal_10", "sigma",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What a survey observes with.

    Attributes:
        population: A `populations.Population`.
        bands: Bands; the first, which has the finest pixels, defines the arcs.
        n_pixels: Pixels a side of the first band's images.
        stream: Number of the survey, 0 to 7; surveys of equal seed show other objects.
        draw_plane: Function as `planes.draw_plane`.
        rough: Fraction of objects whose noise is higher and correlated, as in resampled images.
    """

    population: populations.Population
    bands: tuple[Band, ...]
    n_pixels: int
    stream: int
    draw_plane: Callable = planes.draw_plane
    rough: float = 0.0

    @property
    def frame(self):
        """The grid of the first band."""
        return render.Frame(self.n_pixels, self.bands[0].pixel_scale)

    @property
    def names(self):
        """Names of the bands."""
        return tuple(band.name for band in self.bands)


@dataclass(frozen=True)
class Simulated:
    """One object.

    Attributes:
        images: {band: noisy image, float32, shape (height, width), 10^(-0.4 m_AB) a pixel}.
        arcs: Where the noiseless lensed source exceeds the noise of the first band, bool.
        truth: Quantities by name; angles in rad or sr where the official catalogs have them so.
        plane: The `planes.Plane`.
    """

    images: dict[str, np.ndarray]
    arcs: np.ndarray
    truth: dict
    plane: planes.Plane


def simulate(setup, seed, k):
    """Simulate object `k` of a seed; nothing else decides what comes out.

    Args:
        setup: A Setup.
        seed: Seed of the survey.
        k: Number of the object, from 0.

    Returns:
        Simulated.
    """
    seed = 8 * seed + setup.stream
    scene = _draw(setup, seed, k)
    light, lens_image = _lens_light(setup, scene.field)
    facts = _facts(setup, scene) | _lens_facts(lens_image, setup.bands[0].sigma)
    arcs = np.zeros((setup.n_pixels, setup.n_pixels), dtype=bool)
    if scene.has_source:
        lensed, arcs, seen = _lensed(setup, scene)
        light += np.array(scene.flux, dtype=np.float32)[:, None, None] * lensed
        facts |= seen
        if arcs.any() and facts["n_pix_lens"]:
            mean = facts["lens_flux"] / facts["n_pix_lens"]
            facts["sb_contrast"] = facts["source_flux"] / facts["n_pix_source"] / mean
    rng = planes.generator(seed, k, 14)
    rough = rng.uniform(*_ROUGH) if rng.random() < setup.rough else None
    images = {}
    for number, band in enumerate(setup.bands):
        image = render.expose(light[number], setup.frame, band)
        render.add_stars(image, scene.field.stars, band, number)
        images[band.name] = add_noise(image, band, rng, rough=rough)
    return Simulated(images, arcs, facts, scene.plane)


def describe(setup):
    """Return everything of a Setup that decides a pixel, JSON-serializable."""
    population = {f"population.{k}": v for k, v in asdict(setup.population).items()}
    bands = {f"band.{band.name}": asdict(band) for band in setup.bands}
    return {"n_pixels": setup.n_pixels, "rough": setup.rough} | population | bands


@dataclass(frozen=True)
class _Scene:
    """What is drawn of an object; the source is drawn whether it is used or not."""

    plane: planes.Plane
    field: sky.Field
    curves: truth.Curves
    source: sky.Source
    flux: tuple[float, ...]
    place: tuple[float, float]
    has_source: bool


def _draw(setup, seed, k):
    rng = planes.generator(seed, k, 13)
    plane = setup.draw_plane(setup.population, seed, planes.plane_number(rng))
    half_width = setup.n_pixels * setup.bands[0].pixel_scale / 2
    field = sky.draw_field(setup.population, plane, setup.names, half_width, rng)
    curves = truth.critical_curves(field.lens, plane.theta_e)
    source = sky.draw_source(setup.population, seed, int(rng.integers(sky.SOURCE_CATALOG)))
    radius = _circle(setup.population, curves, rng) * np.sqrt(rng.random())
    azimuth = rng.uniform(0, 2 * np.pi)
    place = float(radius * np.cos(azimuth)), float(radius * np.sin(azimuth))
    has_source = bool(rng.random() < setup.population.source_fraction)
    flux = sky.source_fluxes(source, plane.z_source, setup.names)
    return _Scene(plane, field, curves, source, flux, place, has_source)


def _lens_light(setup, field):
    """Return all light but the source on the grid, and the blurred lens in the first band."""
    sigmas = [b.sigma * (setup.bands[0].pixel_scale / b.pixel_scale) for b in setup.bands]
    light = np.zeros((len(setup.bands), setup.frame.size, setup.frame.size), dtype=np.float32)
    render.add_light(light, field.lens_light, setup.frame, sigmas)
    lens_image = render.expose(light[0], setup.frame, setup.bands[0])
    render.add_light(light, field.neighbors, setup.frame, sigmas)
    return light, lens_image


def _facts(setup, scene):
    """Return the truth of an object that does not depend on what is seen of its source."""
    plane, curves, field = scene.plane, scene.curves, scene.field
    near = [1 + sum(distance < r for distance in field.distances) for r in (3, 5, 10)]
    return {
        "n_sources": int(scene.has_source), "plane_id": plane.number,
        "source": scene.source.number, "theta_e": plane.theta_e,
        "z_lens": plane.z_lens, "z_source": plane.z_source,
        "x_crit": curves.x * planes.ARCSEC, "y_crit": curves.y * planes.ARCSEC,
        "n_crit": max(round(curves.length / _CURVE_STEP), 8),
        "crit_area": curves.area * planes.ARCSEC**2,
        "ein_area": np.pi * (plane.theta_e * planes.ARCSEC) ** 2,
        "r_source": float(np.hypot(*scene.place)) * planes.ARCSEC,
        "r_caustic": curves.r_caustic, "sigma_v": plane.sigma_v, "q": plane.q,
        "gamma": plane.gamma, "halo_mass": plane.halo_mass, "star_mass": plane.star_mass,
        "mag_source": scene.source.magnitude, "mag_lens": _magnitude(field.lens_light, 0),
        "color_diff": _color_difference(field.lens_light, scene.flux),
        "n_gal_3": near[0], "n_gal_5": near[1], "n_gal_10": near[2],
        "n_pix_source": 0, "source_flux": 0.0, "flux_in_sigma": 0.0, "n_source_im": 0,
        "mag_eff": np.nan, "sb_contrast": np.nan, "sigma": setup.bands[0].sigma,
    }  # fmt: skip


def _lens_facts(lens_image, sigma):
    seen = lens_image > sigma
    return {"n_pix_lens": int(seen.sum()), "lens_flux": float(lens_image[seen].sum())}


def _circle(population, curves, rng):
    """Return the radius, arcsec, of the circle in which a source is placed.

    Reference:
        Bom et al. (2022), Sec. 2.1: 1.5 times the circle about the largest tangential caustic in
        the field, which need not be that of the lens in the middle.
    """
    other = rng.random() < population.other_caustic
    wider = rng.uniform(*_WIDER) if other else 1.0
    return min(1.5 * wider * curves.r_caustic, population.circle)


def _lensed(setup, scene):
    """Return the lensed source of unit flux on the grid, its arc mask and what is counted."""
    first, flux, lens = setup.bands[0], scene.flux, scene.field.lens
    x, y = scene.curves.x_caustic + scene.place[0], scene.curves.y_caustic + scene.place[1]
    parts = [part.moved(x, y, 0.0) for part in scene.source.parts]
    faintest = _SOURCE_FAINTEST * min(
        band.sigma / band.pixel_scale**2 / f for band, f in zip(setup.bands, flux)
    )
    lensed, plain = (
        render.lensed(parts, model, setup.frame, faintest=faintest) for model in (lens, None)
    )
    seen = flux[0] * render.expose(lensed, setup.frame, first)
    arcs = truth.arc_mask(seen, first.sigma)
    facts = {
        "n_pix_source": int(arcs.sum()),
        "source_flux": float(seen[arcs].sum()),
        "flux_in_sigma": float(seen[arcs].sum() / first.sigma),
        "n_source_im": truth.count_images(arcs),
    }
    if arcs.any():
        ratios = []
        for band in {(b.fwhm, b.pixel_scale): b for b in setup.bands}.values():
            after, before = (render.expose(i, setup.frame, band).sum() for i in (lensed, plain))
            ratios.append(after / before)
        facts["mag_eff"] = float(min(ratios))
    return lensed, arcs, facts


def _magnitude(components, band):
    return float(-2.5 * np.log10(sum(component.flux[band] for component in components)))


def _color_difference(components, flux):
    """Return how much redder the lens is than the source, mag, between first and last band."""
    lens = _magnitude(components, 0) - _magnitude(components, -1)
    return float(lens + 2.5 * np.log10(flux[0] / flux[-1]))
