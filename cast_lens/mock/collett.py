"""Lens planes as a survey of the whole sky would find them, after Collett (2015).

Isothermal ellipsoids without a group: the option `population=collett` of the stand-in challenges,
whose own lenses are groups with rings of all sizes.
"""

from functools import lru_cache

import numpy as np
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from cast_lens.mock.planes import COSMOLOGY, Plane, distance_modulus, generator

# Velocity dispersions of galaxies, Choi, Park & Vogeley (2007), as LensPop uses them
_ALPHA, _BETA, _SIGMA_STAR = 2.32, 2.67, 161.0
_SIGMA = (100.0, 400.0)  # km/s
_Z_MAX = 2.0
_LARGEST = 3.0  # arcsec; cross-sections are relative to this ring's
# ASSUMED: a ring as wide as the PSF is half found, which LensPop decides by a simulated image
_RESOLVED = 0.18


def draw_plane(population, seed, number):
    """Draw lens plane `number` of a seed; probable in proportion to its lensing cross-section.

    Args:
        population: The `populations.Population`; its Einstein radii and redshifts are not used.
        seed: Seed of the survey.
        number: Which plane.

    Returns:
        A `planes.Plane` without a halo.

    Reference:
        Collett (2015), ApJ 811, 20; LensPop: galaxies by velocity dispersion in comoving volume,
        1 - q from a Rayleigh distribution of width 0.378 - 0.000572 sigma, q > 0.2.
    """
    rng = generator(seed, number, 15)
    while True:
        z_lens = float(np.interp(rng.random(), *_volume()))
        sigma_v = float(np.interp(rng.random(), *_dispersion()))
        z_source = 0.3 + rng.gamma(2.4, 0.5)  # ASSUMED: redshifts of galaxies to magnitude 27
        if z_source <= z_lens + 0.05:
            continue
        cosmo = LensCosmo(z_lens, z_source, COSMOLOGY)
        theta_e = float(cosmo.sis_sigma_v2theta_E(sigma_v))
        chance = (theta_e / _LARGEST) ** 2 * theta_e**4 / (theta_e**4 + _RESOLVED**4)
        if rng.random() < chance:
            break
    # ASSUMED: luminosity and size as in `planes`, one galaxy without its group
    absolute = -21.5 - 8 * np.log10(sigma_v / 200) - 0.7 * z_lens + 0.25 * rng.normal()
    log_sigma = np.log10(sigma_v)
    # Hyde & Bernardi (2009) as LensPop uses them: log10 of the half-light radius, kpc
    log_kpc = 2.46 - 2.79 * log_sigma + 0.84 * log_sigma**2 + 0.11 * rng.normal()
    q = 0.0
    while q < 0.2:
        q = 1 - rng.rayleigh(0.378 - 0.000572 * sigma_v)
    return Plane(
        number=number,
        z_lens=z_lens,
        z_source=float(z_source),
        theta_e=theta_e,
        theta_sie=theta_e,
        sigma_v=sigma_v,
        halo_mass=float("nan"),
        r_s=20.0,
        alpha_rs=0.0,
        q=q,
        gamma=abs(0.05 * rng.normal()),  # ASSUMED: external shear
        star_mass=6e11 * 10 ** (-0.4 * (absolute + 0.7 * z_lens + 23.0)),
        magnitude=absolute + distance_modulus(z_lens),
        radius=float(max(cosmo.phys2arcsec_lens(10**log_kpc / 1000), 0.08)),
        bulge_fraction=1.0,
        ra=rng.uniform(-0.0017, 0.0017),
        dec=rng.uniform(-0.0017, 0.0017),
    )


@lru_cache(maxsize=1)
def _volume():
    """Return the cumulative comoving volume of redshifts up to the largest, and these."""
    z = np.linspace(0.01, _Z_MAX, 200)
    volume = COSMOLOGY.comoving_volume(z).value
    return (volume - volume[0]) / (volume[-1] - volume[0]), z


@lru_cache(maxsize=1)
def _dispersion():
    """Return the cumulative number of galaxies by velocity dispersion, and these, km/s."""
    sigma = np.linspace(*_SIGMA, 400)
    number = sigma ** (_ALPHA - 1) * np.exp(-((sigma / _SIGMA_STAR) ** _BETA))
    total = np.concatenate([[0], np.cumsum((number[1:] + number[:-1]) / 2)])
    return total / total[-1], sigma
