"""Rings around a dark lens without substructure, with subhalos or with a vortex.

This is DeepLenseSim, Model I (mwt5345/DeepLenseSim, deeplense/lens.py). Departures from it:
1. The current lenstronomy instead of 1.9.2, and a NumPy Generator an object.
2. Radians are converted exactly; the simulator takes 206,265 arcsec (relative error 9e-7).
Kept, although physics says otherwise: Einstein radii from luminosity distances and their
difference (`correct_distances` mends that), shot noise counted twice, the lower half of the sky
noise clipped, the length of the vortex, in whatever unit, taken for arcsec, and no light of the
lens. Its code also draws a Poisson number of subhalos and then does not use it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.SimulationAPI.sim_api import SimAPI

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
CLASSES = ("no", "sphere", "vort")


@dataclass(frozen=True)
class PointMasses:
    """Substructure of one lens.

    Attributes:
        mass: Solar masses, shape (points,).
        x: Right of the lens, arcsec, shape (points,).
        y: Above the lens, arcsec, shape (points,).
        truth: What the truth table tells of them.
    """

    mass: np.ndarray
    x: np.ndarray
    y: np.ndarray
    truth: dict


@dataclass(frozen=True)
class ModelI:
    """The simulator's numbers; arcsec, solar masses, eV, counts a second.

    Attributes:
        correct_distances: Whether Einstein radii come from angular diameter distances, as they
            must, or from luminosity distances and their difference, as the simulator has it.
    """

    correct_distances: bool = False
    z_lens: float = 0.5
    z_source: float = 1.0
    halo_mass: float = 1e12
    ellipticity: tuple[float, float] = (0.1, 0.0)
    shear: tuple[float, float] = (0.05, 0.0)
    source_amplitude: float = 20.0  # counts a second and arcsec^2 at the half-light radius
    source_radius: float = 0.25
    source_index: float = 1.0
    source_ellipticity: tuple[float, float] = (-0.1, 0.1)
    source_offset: float = 0.35  # largest, in x and in y
    n_pixels: int = 150
    pixel_scale: float = 0.05
    fwhm: float = 0.087
    psf_truncation: float = 3.0  # standard deviations
    background_rms: float = 0.01
    log_exposure: tuple[float, float] = (3.0, 3.5)
    n_subhalos: int = 25
    subhalo_mass: tuple[float, float] = (1e6, 1e10)
    subhalo_slope: float = -0.9
    subhalo_distance: tuple[float, float] = (0.25, 2.0)
    vortex_mass: float = 3e10
    vortex_points: int = 100
    log_axion_mass: tuple[float, float] = (-24.0, -22.0)

    def einstein_radius(self, mass):
        """Return the Einstein radius of a point mass, arcsec.

        Args:
            mass: Solar masses, a number or an array.

        Reference:
            theta^2 = 4 G M / c^2 * D_LS / (D_L D_S).
        """
        return np.sqrt(mass) * _radius_of_sun(self.z_lens, self.z_source, self.correct_distances)

    def draw_source(self, rng):
        """Draw the position of the source, x and y in arcsec, and the exposure time."""
        x, y = rng.uniform(-self.source_offset, self.source_offset, 2).tolist()
        return x, y, float(10 ** rng.uniform(*self.log_exposure))

    def draw_substructure(self, name, rng):
        """Draw PointMasses: none for "no", subhalos for "sphere", a straight line for "vort".

        Subhalos have masses of a power law dN/dm, distances from the lens even within limits and
        any azimuth. A vortex passes through the lens; the lighter the axion, the longer it is.
        """
        if name == "no":
            return _point_masses(*np.empty((3, 0)))
        if name == "sphere":
            power = self.subhalo_slope + 1
            low, high = np.power(self.subhalo_mass, power)
            masses = (low + (high - low) * rng.random(self.n_subhalos)) ** (1 / power)
            r = rng.uniform(*self.subhalo_distance, self.n_subhalos)
            azimuth = rng.uniform(0, 2 * np.pi, self.n_subhalos)
            return _point_masses(masses, r * np.sin(azimuth), r * np.cos(azimuth))
        axion_mass = float(10 ** rng.uniform(*self.log_axion_mass))
        half_length = 0.06 / (2 * axion_mass) * 1e-22
        along = np.linspace(-half_length, half_length, self.vortex_points)
        angle = float(rng.uniform(0, 2 * np.pi))
        masses = np.full(self.vortex_points, self.vortex_mass / self.vortex_points)
        truth = {"axion_mass": axion_mass, "vortex_half_length": half_length}
        truth["vortex_angle"] = angle
        return _point_masses(masses, along * np.cos(angle), along * np.sin(angle), **truth)

    def lens_model(self, points):
        """Return names and keyword arguments of lenstronomy's lens models: SIE, shear, points."""
        (e1, e2), (gamma1, gamma2) = self.ellipticity, self.shear
        halo = {"theta_E": self.einstein_radius(self.halo_mass), "e1": e1, "e2": e2}
        arguments = [
            halo | {"center_x": 0.0, "center_y": 0.0},
            {"gamma1": gamma1, "gamma2": gamma2},
            *(
                {"theta_E": radius, "center_x": x, "center_y": y}
                for radius, x, y in zip(self.einstein_radius(points.mass), points.x, points.y)
            ),
        ]
        return ["SIE", "SHEAR"] + ["POINT_MASS"] * len(points.mass), arguments

    def render(self, x, y, points):
        """Render the lensed source without noise.

        Args:
            x: Position of the source, arcsec.
            y: Position of the source, arcsec.
            points: PointMasses.

        Returns:
            Counts a second and pixel, shape (n_pixels, n_pixels).
        """
        names, arguments = self.lens_model(points)
        (e1, e2), light = self.source_ellipticity, ["SERSIC_ELLIPSE"]
        source = {
            "amp": self.source_amplitude, "R_sersic": self.source_radius,
            "n_sersic": self.source_index, "e1": e1, "e2": e2, "center_x": x, "center_y": y,
        }  # fmt: skip
        band = {
            "pixel_scale": self.pixel_scale, "seeing": self.fwhm, "psf_type": "GAUSSIAN",
            "truncation": self.psf_truncation, "background_noise": self.background_rms,
            "exposure_time": 1.0, "magnitude_zero_point": 25.0,  # asked for, no part in the image
        }  # fmt: skip
        models = {"lens_model_list": names, "source_light_model_list": light}
        sim = SimAPI(num_pix=self.n_pixels, kwargs_single_band=band, kwargs_model=models)
        return sim.image_model_class({"supersampling_factor": 1}).image(arguments, [source])

    def expose(self, light, exposure_time, rng):
        """Return counts, shape as `light`, of a noiseless image in counts a second."""
        noisy = light + np.sqrt(np.abs(light) / exposure_time) * rng.standard_normal(light.shape)
        noisy += self.background_rms * rng.standard_normal(light.shape)
        return rng.poisson(np.clip(exposure_time * noisy, 0, None))


def _point_masses(mass, x, y, **truth):
    shown = dict.fromkeys(("axion_mass", "vortex_half_length", "vortex_angle")) | truth
    counts = {"n_substructure": len(mass), "substructure_mass": float(np.sum(mass))}
    return PointMasses(mass, x, y, counts | shown)


@lru_cache(maxsize=8)
def _radius_of_sun(z_lens, z_source, correct_distances):
    if correct_distances:
        d_l, d_s = COSMOLOGY.angular_diameter_distance([z_lens, z_source])
        d_ls = d_s - d_l * (1 + z_lens) / (1 + z_source)  # as space is flat
    else:
        d_l, d_s = COSMOLOGY.luminosity_distance([z_lens, z_source])
        d_ls = d_s - d_l
    square = 4 * constants.G * constants.M_sun / constants.c**2 * d_ls / (d_l * d_s)
    return np.sqrt(square.to_value("")) * units.rad.to(units.arcsec)
