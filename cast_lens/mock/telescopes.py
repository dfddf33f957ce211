"""The telescopes of the two challenges and of Euclid in flight: pixel scale, PSF and noise.

Fluxes are 10^(-0.4 m_AB) a pixel, as in the files of both challenges.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_PLANCK = 6.626068e-27  # erg s
# White noise through this has autocorrelations of 0.17 and -0.11 at 1 and 2 pixels, as measured in
# two real ground-based images of the I SGLC (100010 and 100013).
_RESAMPLED = (-0.061, 0.092, 1.0, 0.092, -0.061)
_POISSON_BELOW = 500.0  # electrons; above, the challenge drew from a normal distribution
# (diameter cm, throughput, exposure s, exposures, sky mag/arcsec^2, read noise e-, FWHM arcsec,
# pixel scale arcsec): GLAMER (glenco/SLsimLib, observation.cpp, before November 2016)
_GLAMER = {
    "VIS": (119, 0.30, 1800, 3, 22.8, 5, 0.18, 0.1),
    "Y": (119, 0.0961, 264, 3, 22.57, 5, 0.3, 0.3),
    "J": (119, 0.0814, 270, 3, 22.53, 5, 0.3, 0.3),
    "H": (119, 0.1692, 162, 3, 22.59, 5, 0.3, 0.3),
    "U": (265, 0.032, 1000, 5, 22.93, 5, 1.0, 0.2),
    "G": (265, 0.122, 900, 5, 22.29, 5, 0.8, 0.2),
    "R": (265, 0.089, 1800, 5, 21.40, 5, 0.7, 0.2),
    "I": (265, 0.062, 1200, 5, 20.64, 5, 1.1, 0.2),
}


@dataclass(frozen=True)
class Band:
    """One band of one telescope.

    Attributes:
        name: VIS, Y, J, H, U, G, R or I.
        pixel_scale: Arcsec a pixel.
        fwhm: Full width at half maximum of the Gaussian PSF, arcsec.
        zero_point: AB magnitude of one electron a second.
        exposure_time: Seconds, all exposures together.
        n_exposures: Exposures, each with its read noise.
        read_noise: Electrons a pixel and exposure.
        sky: Sky, AB mag/arcsec^2.
        noise_scale: Factor on the whole noise that the numbers above do not explain.
    """

    name: str
    pixel_scale: float
    fwhm: float
    zero_point: float
    exposure_time: float
    n_exposures: int
    read_noise: float
    sky: float
    noise_scale: float = 1.0

    @property
    def flux_of_electron(self):
        """Flux, 10^(-0.4 m_AB), that gives one electron in the whole exposure."""
        return 10 ** (-0.4 * self.zero_point) / self.exposure_time

    @property
    def sky_electrons(self):
        """Electrons of the sky in one pixel and the whole exposure."""
        return 10 ** (-0.4 * self.sky) * self.pixel_scale**2 / self.flux_of_electron

    @property
    def sigma(self):
        """Noise of an empty pixel, in flux.

        Reference:
            GLAMER: sqrt(n RON^2 + sky t) / t, in units of the flux of one electron a second.
        """
        variance = self.n_exposures * self.read_noise**2 + self.sky_electrons
        return self.noise_scale * np.sqrt(variance) * self.flux_of_electron


def challenge_band(name, *, noise_scale=1.0):
    """Return a band as the organizers of the challenges simulated it.

    Args:
        name: VIS, Y, J, H, U, G, R or I.
        noise_scale: Factor on the noise; the VIS images of the I SGLC carry sqrt(2) times the
            noise that their simulator's table gives (measured on 16 of them).

    Returns:
        A Band.

    Reference:
        GLAMER's zero point: 2.5 log10(D^2 T t pi / (4 h)) - 48.6 for one electron an exposure.
    """
    diameter, throughput, time, n, sky, read_noise, fwhm, pixel_scale = _GLAMER[name]
    # The exposure time cancels in a zero point for one electron a second.
    zero_point = 2.5 * np.log10(diameter**2 * throughput * np.pi / 4 / _PLANCK) - 48.6
    return Band(name, pixel_scale, fwhm, zero_point, time, n, read_noise, sky, noise_scale)


def in_flight_band(name):
    """Return a Euclid band with the in-flight values that lenstronomy carries, challenge pixels.

    Args:
        name: VIS, Y, J or H.

    Returns:
        A Band; 0.1 and 0.3 arcsec a pixel, so that the layout of the files is that of the II SGLC.
    """
    from lenstronomy.SimulationAPI.ObservationConfig.Euclid import Euclid

    values = Euclid(band=name, psf_type="GAUSSIAN").kwargs_single_band()
    n = values["num_exposures"]
    return Band(
        name,
        _GLAMER[name][-1],
        values["seeing"],
        values["magnitude_zero_point"],
        values["exposure_time"] * n,
        n,
        values["read_noise"],
        values["sky_brightness"],
    )


def add_noise(image, band, rng, *, rough=None):
    """Expose a noiseless image: shot noise of objects and sky, read noise, sky subtracted.

    Args:
        image: Flux a pixel, any shape, not negative.
        band: The Band.
        rng: NumPy Generator.
        rough: How many times larger, and correlated as after resampling, the noise is; None for
            the plain noise of the simulator.

    Returns:
        Noisy image, float32, same shape and unit.

    Reference:
        GLAMER: Poisson noise, normal above 500 electrons, and normal read noise, for each pixel.
    """
    expected = np.asarray(image, dtype=np.float64) / band.flux_of_electron + band.sky_electrons
    electrons = expected + np.sqrt(expected) * rng.standard_normal(expected.shape)
    faint = expected < _POISSON_BELOW
    electrons[faint] = rng.poisson(expected[faint])
    electrons += np.sqrt(band.n_exposures) * band.read_noise * rng.standard_normal(expected.shape)
    noise = (electrons - expected) * band.noise_scale * band.flux_of_electron
    if rough is not None:
        kernel = np.array(_RESAMPLED) / np.linalg.norm(_RESAMPLED)
        for axis in (0, 1):
            noise = ndimage.convolve1d(noise, kernel, axis=axis, mode="wrap")
        noise *= rough
    return (image + noise).astype(np.float32)
