"""Lens planes: a galaxy in its halo before a source plane, each used by many objects.

What the organizers took from the Millennium simulation (Bom et al. 2022, Sec. 2.1) is drawn here
from the distributions below; each says whence it comes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from lenstronomy.LensModel.Profiles.nfw import NFW

COSMOLOGY = FlatLambdaCDM(H0=73.0, Om0=0.25)  # Millennium simulation, Springel et al. (2005)
ARCSEC = np.pi / 180 / 3600  # rad
_REUSE = 34.0  # shifted Zipf law, fitted to the official I SGLC labels: how often a plane returns
_N_PLANES = 110_000  # of the same fit; the official 20,000 objects have 10,542 planes


@dataclass(frozen=True)
class Plane:
    """A lens plane, the same for all objects that re-use it.

    Attributes:
        number: Which plane.
        z_lens: Redshift of the lens.
        z_source: Redshift of the sources behind it.
        theta_e: Einstein radius, arcsec: within it the mean convergence is 1.
        theta_sie: The part of it that is the galaxy's, arcsec.
        sigma_v: Velocity dispersion of the galaxy, km/s.
        halo_mass: M200 of the halo, solar masses.
        r_s: NFW scale radius, arcsec.
        alpha_rs: NFW deflection at the scale radius, arcsec.
        q: Axis ratio of the galaxy's mass.
        gamma: External shear.
        star_mass: Solar masses.
        magnitude: Apparent AB magnitude of the galaxy at rest-frame 0.55 micrometer.
        radius: Half-light radius of the bulge, arcsec.
        bulge_fraction: Bulge over total at rest-frame 0.55 micrometer.
        ra: Position in the light cone, rad.
        dec: Position in the light cone, rad.
    """

    number: int
    z_lens: float
    z_source: float
    theta_e: float
    theta_sie: float
    sigma_v: float
    halo_mass: float
    r_s: float
    alpha_rs: float
    q: float
    gamma: float
    star_mass: float
    magnitude: float
    radius: float
    bulge_fraction: float
    ra: float
    dec: float


def generator(*key):
    """Return the NumPy Generator of a key of integers; its last is 1, so that keys stay apart."""
    return np.random.default_rng([*key, 1])


def plane_number(rng):
    """Draw which lens plane an object uses: small numbers return often, by a shifted Zipf law."""
    return int(_REUSE * ((1 + _N_PLANES / _REUSE) ** rng.random() - 1))


def draw_plane(population, seed, number):
    """Draw lens plane `number` of a seed.

    Args:
        population: The Population.
        seed: Seed of the survey.
        number: Which plane.

    Returns:
        A Plane.
    """
    rng = generator(seed, number, 11)
    theta_e = float(np.interp(rng.random(), population.theta_e_at, population.theta_e))
    while True:  # about two draws: not every pair of redshifts can make every ring
        median, width = population.z_lens
        z_lens = float(np.clip(median * np.exp(width * rng.normal()), 0.15, 2.0))
        # Bom et al. (2022), Sec. 2.1: from 1.27 to 11.08, mean 2.76; ASSUMED: the shape between
        z_source = float(np.clip(1.27 + rng.gamma(1.5, 0.7), z_lens + 0.3, 11.08))
        # ASSUMED: masses of the II SGLC, 1e13 to 4e14 for 1 to 5 arcsec, continued to small rings
        halo_mass = 10 ** (13.6 + 1.5 * np.log10(theta_e / 2.2) + 0.3 * rng.normal())
        # Duffy et al. (2008), M200, all halos
        concentration = 5.71 * (halo_mass * COSMOLOGY.h / 2e12) ** -0.084 * (1 + z_lens) ** -0.47
        cosmo = LensCosmo(z_lens, z_source, COSMOLOGY)
        r_s, alpha_rs = cosmo.nfw_physical2angle(halo_mass, concentration)
        alpha_rs *= population.halo_left
        of_halo = float(NFW().derivatives(theta_e, 0.0, r_s, alpha_rs)[0])
        if of_halo < 0.7 * theta_e:
            sigma_v = float(cosmo.sis_theta_E2sigma_v(theta_e - of_halo))
            if sigma_v < 400:  # km/s; hardly a galaxy is heavier (Bernardi et al. 2006)
                break
    # ASSUMED: luminosity as sigma^3.2, 0.7 mag brighter at z = 1 than today
    young = population.absolute_magnitude - 8 * np.log10(sigma_v / 200) + 0.25 * rng.normal()
    star_mass = 6e11 * 10 ** (-0.4 * (young + 22.3))
    # ASSUMED: size of early types, 7 kpc at 5e11 solar masses today (Shen et al. 2003)
    kpc = 7 * (star_mass / 5e11) ** 0.56 / (1 + z_lens) * np.exp(0.3 * rng.normal())
    return Plane(
        number=number,
        z_lens=z_lens,
        z_source=z_source,
        theta_e=theta_e,
        theta_sie=theta_e - of_halo,
        sigma_v=sigma_v,
        halo_mass=float(halo_mass),
        r_s=float(r_s),
        alpha_rs=float(alpha_rs),
        q=1 - min(rng.rayleigh(0.25), 0.7),  # ASSUMED: the mass is as elliptical as the light
        gamma=abs(0.05 * rng.normal()),  # ASSUMED: external shear of groups
        star_mass=star_mass,
        magnitude=young - 0.7 * z_lens + distance_modulus(z_lens),
        radius=float(max(cosmo.phys2arcsec_lens(kpc / 1000), 0.08)),
        bulge_fraction=1.0
        if rng.random() < 0.7
        else rng.uniform(0.3, 1),  # ASSUMED: discs in a third
        ra=rng.uniform(-0.0017, 0.0017),  # rad; range of the I SGLC's headers
        dec=rng.uniform(-0.0017, 0.0017),
    )


def distance_modulus(z):
    """Return the distance modulus with the bandwidth term of AB magnitudes."""
    return float(np.interp(z, *_modulus_table()))


@lru_cache(maxsize=1)
def _modulus_table():
    z = np.linspace(0.1, 2.1, 201)
    return z, COSMOLOGY.distmod(z).value - 2.5 * np.log10(1 + z)
