"""What the Wide layer of Hyper Suprime-Cam would see of lenses and of what is taken for them.

lenstronomy carries no settings of this camera. Seeing and noise are those of the public simulator
xlens (mr-superonion/xlens); zero points only decide the small shot noise of the galaxies.
"""

from dataclasses import dataclass, replace

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from cast_lens.mock import galaxies, render
from cast_lens.mock.galaxies import Component, Star
from cast_lens.mock.sky import Lens
from cast_lens.mock.telescopes import Band

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
N_PIXELS, PIXEL_SCALE = 64, 0.168  # arcsec; Aihara et al. (2018), PASJ 70, S4
BANDS = ("G", "R", "I")
EXPOSURE_TIME = (600.0, 600.0, 1200.0)  # s; Aihara et al. (2019), PASJ 71, 114
N_EXPOSURES = (4, 4, 6)  # ASSUMED: of 150 s and 200 s
FWHM = (0.798, 0.749, 0.617)  # ASSUMED: arcsec, as in xlens
FWHM_SCATTER = 0.08  # ASSUMED: standard deviation of its logarithm from object to object
VARIANCE = (1.4e-3, 2.9e-3, 4.7e-3)  # ASSUMED: of an empty pixel at zero point 27, as in xlens
ZERO_POINT = (28.5, 28.5, 28.3)  # ASSUMED: AB magnitude of one electron a second, for a dark sky
READ_NOISE = 4.5  # ASSUMED: electrons a pixel, small against the sky

SIGMA_V = (260.0, 35.0, 190.0, 350.0)  # ASSUMED: km/s; mean, deviation and range of early types
Z_LENS = (0.5, 0.13, 0.25, 0.85)  # ASSUMED: where ground-based searches find lenses; as above
MAGNITUDE_SCATTER = 0.3  # ASSUMED: of early types at fixed velocity dispersion
COLOR_SCATTER = 0.08  # ASSUMED: magnitudes, each band
SHEAR = 0.05  # ASSUMED: scale of the half-normal external shear
Z_SOURCE = (1.8, 0.6)  # ASSUMED: mean and deviation; at least 0.4 behind the lens
SOURCE_MAGNITUDE = (22.5, 25.0)  # ASSUMED: unlensed, in g; fainter arcs drown in the noise
SOURCE_RADIUS = 0.25  # ASSUMED: median half-light radius at magnitude 24, arcsec
SOURCE_OFFSET = 0.6  # ASSUMED: of the Einstein radius; sources beyond give no bright arcs
DISC_MAGNITUDE = (19.4, 0.8)  # ASSUMED: mean and deviation in i, about that of the early types
DISC_RADIUS = 1.2  # ASSUMED: median half-light radius of a disc at magnitude 19.4, arcsec
NEIGHBORS = 1.6  # ASSUMED: mean number in a cutout
NEIGHBOR_MAGNITUDE = (19.5, 25.5)  # ASSUMED: in i; beyond, they are lost in the noise
NEIGHBOR_SLOPE = 0.3  # ASSUMED: d log10(number) / d magnitude
CENTERING = 0.05  # ASSUMED: arcsec, each axis
KINDS = ("early_type", "disc", "edge_on", "merger", "ring", "crowded")
SHARES = (0.55, 0.25, 0.08, 0.05, 0.03, 0.04)  # ASSUMED: of these among what is no lens
BRIGHT_STARS = 0.5  # ASSUMED: of the crowded ones; the others have more neighbors


@dataclass(frozen=True)
class Scene:
    """One object's sky; fluxes are 10^(-0.4 m_AB), one a band.

    Attributes:
        components: Galaxies.
        stars: Stars.
        truth: Quantities for the truth table, None where a kind has none.
        lens: What deflects the source, or None.
        source: Components of the source, their flux the fraction of the source's.
        source_flux: Unlensed flux of the source.
    """

    components: tuple[Component, ...]
    stars: tuple[Star, ...]
    truth: dict
    lens: Lens | None = None
    source: tuple[Component, ...] = ()
    source_flux: tuple[float, ...] = ()


def draw_bands(rng):
    """Draw the observing conditions of one object: three Bands with the sky that gives VARIANCE."""
    bands = []
    for name, fwhm, variance, zero_point, time, n in zip(
        BANDS, FWHM, VARIANCE, ZERO_POINT, EXPOSURE_TIME, N_EXPOSURES
    ):
        fwhm *= np.exp(FWHM_SCATTER * rng.normal())
        band = Band(name, PIXEL_SCALE, fwhm, zero_point, time, n, READ_NOISE, sky=np.inf)
        sigma = np.sqrt(variance) * 10 ** (-0.4 * 27)
        sky = (sigma**2 - band.sigma**2) / band.flux_of_electron / PIXEL_SCALE**2
        bands.append(replace(band, sky=-2.5 * np.log10(sky)))
    return bands


def draw_scene(rng, label):
    """Draw what one cutout shows.

    The lens galaxy of a lens and an early type that is no lens are drawn alike, and so are the
    neighbors of all kinds: what makes a lens is the source behind it.

    Args:
        rng: NumPy Generator.
        label: 1 for a lens, 0 for one of `KINDS`.

    Returns:
        A Scene.
    """
    kind = "lens" if label else KINDS[rng.choice(len(KINDS), p=SHARES)]
    n_neighbors, (x, y) = int(rng.poisson(NEIGHBORS)), (CENTERING * rng.normal(size=2)).tolist()
    draw = {"disc": _disc, "edge_on": _edge_on, "merger": _merger, "ring": _ring}
    stars: tuple[Star, ...] = ()
    galaxy: list[Component] = []
    truth: dict = {}
    if kind == "crowded" and rng.random() < BRIGHT_STARS:
        stars = (Star(x, y, _star_flux(rng)),)
    else:
        galaxy, truth = draw.get(kind, _early_type)(rng)
        galaxy = [part.moved(x, y, 0.0) for part in galaxy]
    if kind == "crowded" and not stars:
        n_neighbors += int(rng.integers(6, 13))
    light = [part.flux for part in galaxy] + [star.flux for star in stars]
    total = np.sum(light, axis=0)
    magnitudes = zip(("magnitude_g", "magnitude_r", "magnitude_i"), -2.5 * np.log10(total))
    truth = {"kind": kind, "n_neighbors": n_neighbors} | truth
    truth |= {name: float(magnitude) for name, magnitude in magnitudes}
    scene = Scene((*galaxy, *(_neighbor(rng) for _ in range(n_neighbors))), stars, truth)
    return _add_source(rng, scene) if label else scene


def render_scene(scene, bands):
    """Render a scene without noise.

    Args:
        scene: A Scene.
        bands: Its Bands.

    Returns:
        Flux a pixel, 10^(-0.4 m_AB), shape (bands, height, width). And the magnification of the
        source: its flux in the image over that without a lens; None without a source.
    """
    frame = render.Frame(N_PIXELS, PIXEL_SCALE)
    sigmas, magnification = [band.sigma for band in bands], None
    fine = np.zeros((len(bands), frame.size, frame.size), dtype=np.float32)
    render.add_light(fine, scene.components, frame, sigmas)
    if scene.lens is not None:
        # The source ends where all of its light gives a hundredth of the noise.
        ratio = max(flux / sigma for flux, sigma in zip(scene.source_flux, sigmas))
        faintest = 0.01 / ratio / PIXEL_SCALE**2
        source = render.lensed(scene.source, scene.lens, frame, faintest=faintest)
        fine += np.array(scene.source_flux, dtype=np.float32)[:, None, None] * source
        magnification = float(source.sum())
    images = np.array([render.expose(image, frame, band) for image, band in zip(fine, bands)])
    for number, (image, band) in enumerate(zip(images, bands)):
        render.add_stars(image, scene.stars, band, number)
    return images, magnification


def _early_type(rng):
    """Draw an early type: Hyde & Bernardi (2009) as in LensPop (Collett 2015), axis ratio too."""
    sigma_v, z = (
        float(min(max(rng.normal(mean, deviation), low), high))
        for mean, deviation, low, high in (SIGMA_V, Z_LENS)
    )
    v = np.log10(sigma_v)
    rest_r = (-0.37 + np.sqrt(0.37**2 - 0.024 * (2.97 + v))) / 0.012
    rest_r += MAGNITUDE_SCATTER * rng.normal()
    kpc = 10 ** (2.46 - 2.79 * v + 0.84 * v**2 + 0.11 * rng.normal())
    radius = float(kpc / COSMOLOGY.kpc_proper_per_arcmin(z).value * 60)
    color = galaxies.band_magnitudes("old", z, BANDS) + COLOR_SCATTER * rng.normal(size=3)
    color -= galaxies.band_magnitudes("old", 0.0, ["R"])
    magnitude = rest_r + COSMOLOGY.distmod(z).value - 2.5 * np.log10(1 + z)
    q = float(1 - min(rng.rayleigh(0.378 - 0.000572 * sigma_v), 0.7))
    n = 4 * np.exp(0.1 * rng.normal())  # Bom et al. (2022), Sec. 2.1: 4 with 10 % scatter
    angle = float(rng.uniform(0, np.pi))
    part = Component(0.0, 0.0, radius, n, q, angle, galaxies.fluxes(magnitude, color))
    return [part], {"redshift": z, "sigma_v": sigma_v, "radius": radius, "q": q, "angle": angle}


def _add_source(rng, scene):
    """Put a clumpy blue source behind the galaxy of a scene, whose mass follows its light."""
    light, truth = scene.components[0], scene.truth
    z_source = float(max(rng.normal(*Z_SOURCE), truth["redshift"] + 0.4))
    cosmology = LensCosmo(truth["redshift"], z_source, cosmo=COSMOLOGY)
    theta_e = float(cosmology.sis_sigma_v2theta_E(truth["sigma_v"]))
    gamma, direction = abs(SHEAR * rng.normal()), rng.uniform(0, 2 * np.pi)
    lens = Lens(
        x=light.x, y=light.y, theta_sie=theta_e, q=light.q, angle=light.angle,
        x_halo=light.x, y_halo=light.y, r_s=1.0, alpha_rs=0.0,
        gamma1=gamma * np.cos(direction), gamma2=gamma * np.sin(direction),
    )  # fmt: skip
    offset, azimuth = SOURCE_OFFSET * theta_e * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    x, y = light.x + offset * np.cos(azimuth), light.y + offset * np.sin(azimuth)
    magnitude = rng.uniform(*SOURCE_MAGNITUDE)
    dex = 0.2 * rng.normal() - 0.06 * (magnitude - 24)  # ASSUMED: smaller if fainter, scatter
    radius = SOURCE_RADIUS * 10**dex
    color = galaxies.band_magnitudes("blue", z_source, BANDS) + COLOR_SCATTER * rng.normal(size=3)
    truth |= {"z_source": z_source, "theta_e": theta_e, "gamma1": lens.gamma1}
    truth |= {"gamma2": lens.gamma2, "source_x": x, "source_y": y}
    truth |= {"source_magnitude_g": float(magnitude), "source_radius": float(radius)}
    flux = galaxies.fluxes(magnitude - color[0], color)
    return replace(
        scene, lens=lens, source=tuple(_clumpy(rng, x, y, radius)), source_flux=flux, truth=truth
    )


def _clumpy(rng, x, y, radius):
    """Yield disc and clumps of a source; their flux is the fraction of the source's."""
    n = rng.poisson(1.5)  # ASSUMED: clumps of a blue galaxy
    share = rng.uniform(0.1, 0.4) if n else 0.0  # ASSUMED: of the light in clumps
    q, angle = rng.uniform(0.4, 1), rng.uniform(0, np.pi)
    yield Component(x, y, radius, 1.0, q, angle, (1 - share,))
    for part in rng.dirichlet(np.ones(n)) if n else ():
        dx, dy = radius * rng.normal(size=2)
        size = radius * rng.uniform(0.15, 0.35)  # ASSUMED: clumps are smaller than the disc
        yield Component(x + dx, y + dy, size, 1.0, 1.0, 0.0, (float(share * part),))


def _disc(rng, *, magnitude=None, bulge=0.5):
    """Draw a spiral of an i magnitude, with up to the fraction `bulge` of its light in a bulge."""
    magnitude = rng.normal(*DISC_MAGNITUDE) if magnitude is None else magnitude
    z = float(rng.uniform(0.08, 0.45))  # ASSUMED: of discs so bright
    dex = 0.12 * rng.normal() - 0.12 * (magnitude - 19.4)  # ASSUMED: smaller if fainter, scatter
    radius = float(DISC_RADIUS * 10**dex)
    light = [_at_i(magnitude, spectrum, z) for spectrum in ("old", "disc")]
    share = rng.uniform(0.02, bulge)
    # `galaxy` makes the disc's radius 1.7 times the bulge's.
    parts = galaxies.galaxy(rng, light, bulge_fraction=share, radius=radius / 1.7, spirals=True)
    size = 0.3 * radius  # ASSUMED: bulges of late types are smaller than that
    return [replace(parts[0], radius=size), *parts[1:]], {"redshift": z, "radius": radius}


def _edge_on(rng):
    (bulge, disc), truth = _disc(rng, bulge=0.3)
    q = float(rng.uniform(0.08, 0.22))  # ASSUMED: thickness of discs seen from the side
    return [replace(bulge, angle=disc.angle), replace(disc, q=q, spiral=None)], truth | {"q": q}


def _merger(rng):
    """Draw two galaxies that touch, half of them with a tidal tail."""
    first, _ = _early_type(rng) if rng.random() < 0.5 else _disc(rng)
    brighter = -2.5 * np.log10(sum(part.flux[-1] for part in first))
    fainter = brighter + rng.uniform(0, 1.2)  # ASSUMED: major mergers, 1:1 to 1:3
    separation = rng.uniform(0.6, 2.4)  # ASSUMED: arcsec, told apart at this seeing
    azimuth = rng.uniform(0, 2 * np.pi)
    place = separation * np.cos(azimuth), separation * np.sin(azimuth)
    parts = [*first, *(part.moved(*place, 0.0) for part in _disc(rng, magnitude=fainter)[0])]
    if rng.random() < 0.5:
        tail = brighter + rng.uniform(1.0, 2.5)  # ASSUMED: a tenth to four tenths of the light
        radius = rng.uniform(1.5, 3.5)  # ASSUMED: arcsec, as long as the galaxies are apart
        extent = rng.uniform(0.8, 2.0)  # ASSUMED: rad, a bent tail but no ring
        parts += _knots(rng, radius, rng.uniform(0.5, 1), extent, _at_i(tail, "disc", 0.3))
    return parts, {}


def _ring(rng):
    """Draw a red core in a ring of young stars, about as large as the Einstein rings here."""
    magnitude, z = rng.normal(*DISC_MAGNITUDE), float(rng.uniform(0.08, 0.4))
    light = galaxies.fluxes(0, _at_i(magnitude, "old", z))
    size = rng.uniform(0.3, 0.8)  # ASSUMED: half-light radius of the core, arcsec
    radius = float(rng.uniform(0.9, 2.6))  # ASSUMED: of the ring, arcsec
    q = float(rng.uniform(0.6, 1))  # ASSUMED: not too inclined
    young = magnitude + rng.uniform(0.3, 2.0)  # ASSUMED: light of the ring, fainter than the core
    core = Component(0.0, 0.0, size, 3.0, rng.uniform(0.6, 1), 0.0, light)
    ring = _knots(rng, radius, q, 2 * np.pi, _at_i(young, "blue", z))
    return [core, *ring], {"redshift": z, "radius": radius, "q": q}


def _knots(rng, radius, q, extent, magnitudes):
    """Return star-forming knots along `extent` rad of an ellipse about the origin."""
    n = int(extent * radius / 0.3) + 3  # ASSUMED: a knot each 0.3 arcsec, 0.25 arcsec large
    flux, angle = np.array(galaxies.fluxes(0, magnitudes)), rng.uniform(0, np.pi)
    start = rng.uniform(0, 2 * np.pi)
    phases = start + extent * (np.arange(n) + rng.uniform(-0.5, 0.5, n)) / n
    knots = []
    for phase, share in zip(phases, rng.dirichlet(np.full(n, 4.0))):
        x, y = radius * np.array([np.cos(phase), q * np.sin(phase)]) * (1 + 0.05 * rng.normal())
        knot = Component(float(x), float(y), 0.25, 1.0, 1.0, 0.0, tuple((share * flux).tolist()))
        knots.append(knot.moved(0.0, 0.0, angle))
    return knots


def _star_flux(rng):
    """Draw the flux of a bright star of spectral type F to M."""
    magnitude = rng.uniform(16, 19)  # ASSUMED: in i, not yet saturated
    g_r = rng.uniform(0.3, 1.4)
    r_i = 0.4 * g_r + max(g_r - 1.1, 0) * 2  # ASSUMED: the stellar locus bends at M dwarfs
    return galaxies.fluxes(magnitude, [g_r + r_i, r_i, 0.0])


def _neighbor(rng):
    """Draw a galaxy of the field somewhere in the cutout."""
    bright, faint = NEIGHBOR_MAGNITUDE
    span = 1 - 10 ** (-NEIGHBOR_SLOPE * (faint - bright))
    magnitude = faint + np.log10(1 - rng.random() * span) / NEIGHBOR_SLOPE
    dex = 0.15 * rng.normal() - 0.08 * (magnitude - 23)  # ASSUMED: smaller if fainter, scatter
    radius = 0.4 * 10**dex  # ASSUMED: 0.4 arcsec at i = 23, as field galaxies have
    spectrum = "old" if rng.random() < 0.2 else "disc"  # ASSUMED: one in five is an early type
    z = 0.15 + rng.gamma(2.0, 0.35)  # ASSUMED: redshifts of galaxies so faint
    flux = galaxies.fluxes(0, _at_i(magnitude, spectrum, z))
    x, y = (rng.uniform(-0.5, 0.5, 2) * N_PIXELS * PIXEL_SCALE).tolist()
    n, q = (4.0 if spectrum == "old" else 1.0), rng.uniform(0.3, 1)
    return Component(x, y, radius, n, q, rng.uniform(0, np.pi), flux)


def _at_i(magnitude, spectrum, z):
    """Return magnitudes in `BANDS` of a spectrum with this one in i."""
    color = galaxies.band_magnitudes(spectrum, z, BANDS)
    return magnitude + color - color[-1]
