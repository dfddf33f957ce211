"""What is in the sky of a stand-in challenge: the lens as seen, sources, neighbors, stars.

The recipe is that of Bom et al. (2022), Sec. 2.1. What the organizers took from the Millennium
simulation and from the UDF is drawn here from the distributions below; each says whence it comes.
"""

from dataclasses import dataclass, field

import numpy as np

from cast_lens.mock import galaxies
from cast_lens.mock.galaxies import Component, Star
from cast_lens.mock.planes import generator

SOURCE_CATALOG = 10_000  # ASSUMED: about as many galaxies as the UDF catalog lists


@dataclass(frozen=True)
class Lens:
    """A plane as one object shows it: galaxy, halo and shear, in arcsec and rad."""

    x: float
    y: float
    theta_sie: float
    q: float
    angle: float
    x_halo: float
    y_halo: float
    r_s: float
    alpha_rs: float
    gamma1: float
    gamma2: float


@dataclass(frozen=True)
class Source:
    """A source of the catalog.

    Attributes:
        number: Which source.
        magnitude: Unlensed, AB in VIS or r.
        slope: Magnitudes a decade of wavelength by which its spectrum is bluer than "blue".
        parts: Components about the origin; their one flux is the fraction of the source's.
    """

    number: int
    magnitude: float
    slope: float
    parts: tuple[Component, ...]


@dataclass(frozen=True)
class Field:
    """Everything in one image but the source; fluxes one a band."""

    lens: Lens
    lens_light: tuple[Component, ...]
    neighbors: tuple[Component, ...]
    stars: tuple[Star, ...]
    distances: tuple[float, ...] = field(default=())  # arcsec, of neighbors from the center


def draw_source(population, seed, number):
    """Draw source `number` of the catalog of a seed: a disc with star-forming clumps.

    Args:
        population: The Population.
        seed: Seed of the survey.
        number: Which source.

    Returns:
        A Source.
    """
    rng = generator(seed, number, 12)
    magnitude = _rising(rng, population.source_slope, *population.source_magnitude)
    # ASSUMED: sizes of UDF galaxies, smaller when fainter; scatter 0.2 dex
    radius = population.source_radius * 10 ** (-0.1 * (magnitude - 26) + 0.2 * rng.normal())
    n_clumps = rng.poisson(3.5)  # ASSUMED: clumps of a UDF galaxy
    in_clumps = rng.uniform(0.3, 0.7) if n_clumps else 0.0  # ASSUMED: their part of the light
    q = rng.uniform(0.3, 1)  # ASSUMED: thick discs at random inclination
    parts = [Component(0, 0, radius, 1.0, q, rng.uniform(0, np.pi), (1 - in_clumps,))]
    for share in in_clumps * rng.dirichlet(np.ones(n_clumps)) if n_clumps else ():
        place, azimuth = radius * np.sqrt(rng.random()) * 1.5, rng.uniform(0, 2 * np.pi)
        size = radius * rng.uniform(0.12, 0.35)
        x, y = place * np.cos(azimuth), place * np.sin(azimuth)
        parts.append(Component(x, y, size, 1.0, rng.uniform(0.6, 1), azimuth, (float(share),)))
    return Source(number, magnitude, 0.4 * rng.normal(), tuple(parts))


def draw_field(population, plane, bands, half_width, rng):
    """Draw one object's view of a lens plane: angles, positions, neighbors and stars.

    Args:
        population: The Population.
        plane: The Plane.
        bands: Names of the bands.
        half_width: Half the side of the image, arcsec.
        rng: NumPy Generator.

    Returns:
        A Field.
    """
    angle, shear_angle = rng.uniform(0, np.pi), rng.uniform(0, np.pi)
    x, y, dx, dy = 0.04 * rng.normal(size=4)  # ASSUMED: centers to a few hundredths of an arcsec
    lens = Lens(
        x, y, plane.theta_sie, plane.q, angle, x + dx, y + dy, plane.r_s, plane.alpha_rs,
        plane.gamma * np.cos(2 * shear_angle), plane.gamma * np.sin(2 * shear_angle),
    )  # fmt: skip
    light = [
        part.moved(x, y, angle - part.angle)  # mass and light share their position angle
        for part in _galaxy(rng, plane.magnitude, plane.z_lens, bands, plane.radius,
                            plane.bulge_fraction)
    ]  # fmt: skip
    neighbors, distances = [], []
    side = half_width + 3  # arcsec; light of galaxies just outside reaches in
    for _ in range(rng.poisson(_DENSITY * (2 * side) ** 2)):
        place = rng.uniform(-side, side, 2)
        neighbors += [part.moved(*place, 0.0) for part in _neighbor(rng, plane, bands)]
        distances.append(float(np.hypot(*place)))
    for _ in range(rng.poisson(population.bright * (2 * side) ** 2)):
        place = rng.uniform(-side, side, 2)
        neighbors += [part.moved(*place, 0.0) for part in _bright(rng, population, bands)]
        distances.append(float(np.hypot(*place)))
    stars = [
        galaxies.star(
            rng.uniform(-side, side),
            rng.uniform(-side, side),
            _rising(rng, 0.1, population.brightest_star, 25),
            bands,
        )  # fmt: skip
        for _ in range(rng.poisson(_STARS * (2 * side) ** 2))
    ]
    return Field(lens, tuple(light), tuple(neighbors), tuple(stars), tuple(distances))


def source_fluxes(source, z_source, bands):
    """Return the unlensed flux of a source, 10^(-0.4 m_AB), one a band."""
    relative = galaxies.band_magnitudes("blue", z_source, bands, slope=source.slope)
    return galaxies.fluxes(source.magnitude, relative - relative[_reference(bands)])


_DENSITY = 0.0105  # galaxies an arcsec^2: median 4 to 5 with the lens within 10 arcsec
_STARS = 3e-4  # ASSUMED: an arcsec^2, to magnitude 25, at high galactic latitude


def _neighbor(rng, plane, bands):
    """Draw a neighbor about the origin: of the group, or of the field before or behind it."""
    magnitude = _rising(rng, 0.3, 19, 25.5)  # ASSUMED: counts of field galaxies
    if rng.random() < 0.3:  # ASSUMED: three in ten belong to the group
        z, bulge_fraction = plane.z_lens, rng.uniform(0.3, 1)
    else:
        z = 0.15 + rng.gamma(2.0, 0.35)
        bulge_fraction = 1.0 if rng.random() < 0.2 else rng.uniform(0, 0.5)
    # ASSUMED: half-light radii of field galaxies, 0.4 arcsec at magnitude 23
    radius = 0.4 * 10 ** (-0.08 * (magnitude - 23) + 0.15 * rng.normal())
    return _galaxy(rng, magnitude, z, bands, radius / 1.5, bulge_fraction, at=_reference(bands))


def _bright(rng, population, bands):
    """Draw a bright foreground galaxy about the origin; a few of them make the pixels' skew."""
    magnitude = _rising(rng, 0.5, *population.bright_magnitude)  # ASSUMED: nearly Euclidean counts
    radius = 1.0 * 10 ** (-0.15 * (magnitude - 17) + 0.15 * rng.normal())  # ASSUMED: compact bulges
    z = rng.uniform(0.2, 0.5)  # ASSUMED: red ones, which the rms of Y, J and H asks for
    share = rng.uniform(0.8, 1)
    return _galaxy(rng, magnitude, z, bands, radius, share, at=_reference(bands))


def _galaxy(rng, magnitude, z, bands, radius, bulge_fraction, *, at=None):
    """Return a galaxy whose magnitude is the rest-frame 0.55 micrometer's, or that of band `at`."""
    old, disc = (galaxies.band_magnitudes(kind, z, bands) for kind in ("old", "disc"))
    if at is not None:
        old, disc = old - old[at], disc - disc[at]
    light = magnitude + old, magnitude + disc
    spirals = rng.random() < 0.7  # ASSUMED: part of the discs with visible arms
    return galaxies.galaxy(
        rng, light, bulge_fraction=bulge_fraction, radius=radius, spirals=spirals
    )


def _rising(rng, slope, bright, faint):
    """Draw a magnitude from counts that rise as 10^(slope m) between two magnitudes."""
    span = 10 ** (slope * (faint - bright)) - 1
    return float(bright + np.log10(1 + rng.random() * span) / slope)


def _reference(bands):
    return list(bands).index("VIS" if "VIS" in bands else "R")
