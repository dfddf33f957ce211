"""The numbers in which the stand-in challenges differ from one another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Population:
    """The numbers in which the surveys differ.

    Attributes:
        theta_e: Einstein radii, arcsec, at the cumulative fractions `theta_e_at`.
        theta_e_at: Fractions from 0 to 1.
        z_lens: Median and standard deviation of ln z of the lenses.
        absolute_magnitude: Of a galaxy of 200 km/s today, AB at 0.55 micrometer.
        halo_left: Part of the halo's deflection that is left once the galaxies' mass is taken out
            of it (Bom et al. 2022, Sec. 2.1); the smaller, the wider the caustics.
        source_magnitude: Brightest and faintest unlensed source, AB in VIS or r.
        source_slope: d log10(number) / d magnitude of the sources.
        source_radius: Median half-light radius of a source of magnitude 26, arcsec.
        source_fraction: Probability that a source is added.
        other_caustic: Probability that a caustic elsewhere in the field is the largest one.
        circle: Largest circle in which a source is placed, arcsec, so that its images are seen.
        brightest_star: AB magnitude in VIS or r.
        bright: Bright foreground galaxies an arcsec^2.
        bright_magnitude: Brightest and faintest of them, AB in VIS or r.
    """

    theta_e: tuple[float, ...]
    theta_e_at: tuple[float, ...]
    z_lens: tuple[float, float]
    absolute_magnitude: float
    halo_left: float
    source_magnitude: tuple[float, float]
    source_slope: float
    source_radius: float
    source_fraction: float
    other_caustic: float
    circle: float
    brightest_star: float
    bright: float
    bright_magnitude: tuple[float, float]


SGLC2 = Population(
    # ASSUMED: spread about the median 2.2 between 1.1 and 4.9 arcsec, the range of 18 printed rows
    theta_e=(1.1, 1.5, 2.2, 3.1, 4.9),
    theta_e_at=(0, 0.25, 0.5, 0.75, 1),
    z_lens=(1.3, 0.38),  # ASSUMED: gives the median 0.95 of 18 printed rows among what can lens
    absolute_magnitude=-20.7,  # ASSUMED: gives the median 21.6 of 18 printed rows
    halo_left=0.45,  # ASSUMED: gives the published numbers of mag_eff above 1.6 and 2
    source_magnitude=(21.6, 27.55),  # ASSUMED: as 18 printed rows, with a tail of bright ones
    source_slope=0.23,  # ASSUMED: flatter than UDF counts; gives the spread of n_pix_source
    source_radius=0.17,  # ASSUMED: UDF galaxies of magnitude 26; gives the median of n_pix_source
    source_fraction=0.9,  # 89,995 of 100,000 rows have n_sources = 1
    other_caustic=0.5,  # ASSUMED: gives the published numbers of mag_eff above 1.6 and 2
    circle=7.0,  # ASSUMED: sources stay in the image
    brightest_star=16.5,  # ASSUMED: gives a set maximum of 1e3 to 1e4 times the 99th percentile
    bright=3.5e-4,  # ASSUMED: gives the published rms of all pixels
    bright_magnitude=(14.0, 17.5),  # ASSUMED: the same
)
SGLC1_SPACE = Population(
    # Percentiles 0, 1, 5, 25, 50, 75, 95, 99 and 100 of the official labels
    theta_e=(0.151, 0.155, 0.169, 0.302, 0.838, 2.46, 4.546, 4.998, 5.05),
    theta_e_at=(0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1),
    z_lens=(0.9, 0.45),  # ASSUMED: no redshift of the I SGLC is public
    absolute_magnitude=-19.8,  # ASSUMED: gives the mean of all pixels that LASTRO EPFL found
    halo_left=1.0,  # ASSUMED: gives the official numbers of lensed pixels by Einstein radius
    source_magnitude=(22.1, 25.35),  # ASSUMED: gives the official numbers of lensed pixels
    source_slope=0.2,  # ASSUMED: the same
    source_radius=0.34,  # ASSUMED: the same
    source_fraction=0.6984,  # 13,968 of 20,000 official labels
    other_caustic=0.0,  # ASSUMED: no magnification of the I SGLC is public
    circle=1.4,  # ASSUMED: gives the official numbers of lensed pixels of large rings
    brightest_star=19.5,  # ASSUMED: gives the rms of all pixels that LASTRO EPFL found
    bright=2.5e-5,  # ASSUMED: the same
    bright_magnitude=(17.0, 19.0),  # ASSUMED: the same
)
SGLC1_GROUND = Population(
    theta_e=SGLC1_SPACE.theta_e,  # ASSUMED: its Einstein areas are not public
    theta_e_at=SGLC1_SPACE.theta_e_at,
    z_lens=(0.9, 0.45),  # ASSUMED: as in the space track
    absolute_magnitude=-20.3,  # ASSUMED: gives the mean of all pixels that LASTRO EPFL found
    halo_left=1.0,  # ASSUMED: as in the space track
    source_magnitude=(20.5, 25.0),  # ASSUMED: as in the space track, brighter, as the PSF is wider
    source_slope=0.2,  # ASSUMED: the same
    source_radius=0.36,  # ASSUMED: the same
    source_fraction=0.40105,  # 8,021 of 20,000, report of LASTRO EPFL
    other_caustic=0.0,  # ASSUMED: as in the space track
    circle=3.2,  # ASSUMED: as in the space track, whose images are half as wide
    brightest_star=15.5,  # ASSUMED: gives the rms of all pixels that LASTRO EPFL found
    bright=1e-4,  # ASSUMED: the same
    bright_magnitude=(14.5, 17.5),  # ASSUMED: the same
)
