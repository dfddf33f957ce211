"""What galaxies look like: colors from rest-frame spectra, Sersic components, stars."""

from dataclasses import dataclass, replace

import numpy as np

# Effective wavelengths, micrometer: u, g, r, i of SDSS; VIS, Y, J, H of Euclid.
WAVELENGTHS = {
    "U": 0.354, "G": 0.477, "R": 0.623, "I": 0.763,
    "VIS": 0.725, "Y": 1.085, "J": 1.375, "H": 1.773,
}  # fmt: skip
# Rest-frame AB magnitudes relative to 0.55 micrometer, at these wavelengths (micrometer).
# fmt: off
_REST = [
    0.091, 0.122, 0.15, 0.20, 0.25, 0.30, 0.36, 0.39, 0.41,
    0.475, 0.55, 0.62, 0.76, 0.91, 1.25, 1.65, 2.2,
]
# ASSUMED: old stars; g-r 0.8, r-i 0.4, u-g 1.8 today, as red SDSS galaxies
_OLD = [
    8.0, 7.0, 6.0, 5.0, 4.2, 3.2, 2.3, 1.9, 1.2,
    0.65, 0.0, -0.15, -0.53, -0.75, -1.05, -1.3, -1.1,
]
# ASSUMED: disc of a spiral; g-r 0.45, u-g 1.0
_DISC = [
    6.0, 2.6, 2.2, 1.9, 1.8, 1.55, 1.25, 1.0, 0.65,
    0.3, 0.0, -0.15, -0.4, -0.6, -0.8, -1.0, -0.8,
]
# ASSUMED: star-forming dwarf, nearly flat in AB, as the faint blue galaxies of the UDF
_BLUE = [
    4.0, 0.9, 0.75, 0.65, 0.6, 0.5, 0.4, 0.3, 0.15,
    0.05, 0.0, -0.05, -0.15, -0.2, -0.25, -0.3, -0.2,
]
# fmt: on
_SPECTRA = {"old": _OLD, "disc": _DISC, "blue": _BLUE}
# ASSUMED: M dwarfs, which are most faint stars at high latitude; VIS-H about 1.6
_STAR = {"U": 3.6, "G": 1.3, "R": 0.2, "I": -0.3, "VIS": 0.0, "Y": -0.9, "J": -1.3, "H": -1.6}


@dataclass(frozen=True)
class Spiral:
    """Spiral arms: the disc's surface brightness times 1 + amplitude * cos(phase of the arms)."""

    amplitude: float
    arms: int
    pitch: float
    phase: float


@dataclass(frozen=True)
class Component:
    """One elliptical Sersic component.

    Attributes:
        x: Right of the image center, arcsec.
        y: Above the image center, arcsec.
        radius: Half-light radius, product average of the axes, arcsec.
        n: Sersic index.
        q: Axis ratio, minor over major.
        angle: Major axis from x towards y, rad.
        flux: Total flux, 10^(-0.4 m_AB), one a band.
        spiral: Arms of a disc, or None.
    """

    x: float
    y: float
    radius: float
    n: float
    q: float
    angle: float
    flux: tuple[float, ...]
    spiral: Spiral | None = None

    def moved(self, x, y, angle):
        """Return the component turned by `angle` (rad) about the origin, then moved by x, y."""
        cos, sin = np.cos(angle), np.sin(angle)
        place = self.x * cos - self.y * sin + x, self.x * sin + self.y * cos + y
        return replace(self, x=place[0], y=place[1], angle=self.angle + angle)


@dataclass(frozen=True)
class Star:
    """One star: position, arcsec from the image center, and flux, 10^(-0.4 m_AB), one a band."""

    x: float
    y: float
    flux: tuple[float, ...]


def band_magnitudes(spectrum, redshift, bands, *, slope=0.0):
    """Return AB magnitudes in `bands`, relative to the rest-frame magnitude at 0.55 micrometer.

    Args:
        spectrum: old, disc or blue.
        redshift: Of the galaxy.
        bands: Names of bands, keys of `WAVELENGTHS`.
        slope: Magnitudes a decade of wavelength added to the spectrum; positive is bluer.

    Returns:
        Magnitudes, shape (bands,), without distance modulus and bandwidth term 2.5 log10(1 + z).
    """
    rest = np.log10([WAVELENGTHS[band] / (1 + redshift) for band in bands])
    shape = np.interp(rest, np.log10(_REST), _SPECTRA[spectrum])
    return shape + slope * (rest - np.log10(0.55))


def fluxes(magnitude, relative):
    """Return one flux a band as a tuple of floats from a magnitude and relative magnitudes."""
    return tuple((10 ** (-0.4 * (magnitude + np.asarray(relative)))).tolist())


def star(x, y, magnitude, bands):
    """Return a star of an AB magnitude in VIS (r where VIS is absent) at x, y (arcsec)."""
    reference = _STAR["VIS" if "VIS" in bands else "R"]
    return Star(x, y, fluxes(magnitude - reference, [_STAR[band] for band in bands]))


def galaxy(rng, magnitudes, *, bulge_fraction, radius, spirals):
    """Draw bulge and disc of one galaxy at the origin.

    Args:
        rng: NumPy Generator.
        magnitudes: AB magnitudes of an old and of a disc population that holds all the light,
            two arrays of shape (bands,).
        bulge_fraction: Fraction of the bulge in the band where the two are equally bright.
        radius: Half-light radius of the bulge, arcsec; the disc's is 1.7 times this.
        spirals: Whether the disc has spiral arms.

    Returns:
        Tuple of Components: bulge, disc or both; the first is the bulge where there is one.

    Reference:
        Bom et al. (2022), Sec. 2.1: Sersic index 4 with 10 % scatter, inclined exponential disc,
        analytic spirals, different colors.
    """
    old, disc = magnitudes
    angle = rng.uniform(0, np.pi)
    q_bulge = 1 - min(rng.rayleigh(0.22), 0.6)  # ASSUMED: axis ratios of SDSS early types
    n = 4 * np.exp(rng.normal(0, 0.1))
    inclination = np.arccos(rng.uniform(0.2, 1))
    arms = Spiral(
        rng.uniform(0.3, 0.8),  # ASSUMED: arm contrast
        2 if rng.random() < 0.8 else 3,  # ASSUMED: most are two-armed
        np.radians(rng.uniform(10, 30)),  # ASSUMED: pitch of Sa to Sc
        rng.uniform(0, 2 * np.pi),
    )
    parts = []
    if bulge_fraction > 0:
        light = fluxes(-2.5 * np.log10(bulge_fraction), old)
        parts.append(Component(0, 0, radius, n, q_bulge, angle, light))
    if bulge_fraction < 1:
        light = fluxes(-2.5 * np.log10(1 - bulge_fraction), disc)
        size = 1.7 * radius  # ASSUMED: ratio of disc to bulge radii
        q_disc = max(np.cos(inclination), 0.2)
        parts.append(Component(0, 0, size, 1.0, q_disc, angle, light, arms if spirals else None))
    return tuple(parts)
