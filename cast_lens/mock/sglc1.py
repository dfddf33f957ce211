"""Stand-ins for the training sets of the first lens-finding challenge (I SGLC), both tracks.

The label of this challenge says that a source was added, not that it can be seen.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cast_lens.mock import collett, layout, objects, planes, populations
from cast_lens.mock.telescopes import challenge_band, in_flight_band

N_PIXELS = 101
FIRST_ID = 100_000
GROUND_BANDS = {"R": 1, "I": 2, "G": 3, "U": 4}  # number of the folder
MASK_VALUE = 100.0  # of masked pixels in the ground track
_MASKED = 1 / 16  # 3 of 48 real ground-based sample images have masked pixels


@dataclass(frozen=True)
class Sglc1Space:
    """Makes the objects of a stand-in I SGLC, space track, see `cast_lens.mock.survey`.

    Attributes:
        seed: Seed of all draws.
        telescope: "challenge", or "in-flight" for the values Euclid has in space.
        population: "challenge", or "collett" for lenses as the whole sky has them.
    """

    survey: ClassVar[str] = "sglc1-space"
    bytes_per_object: ClassVar[int] = 56_000
    seed: int
    telescope: str = "challenge"
    population: str = "challenge"

    @property
    def setup(self):
        """What the survey observes with."""
        if self.telescope == "in-flight":
            band = in_flight_band("VIS")
        else:  # the noise of 16 real images is sqrt(2) times what their simulator's table gives
            band = challenge_band("VIS", noise_scale=np.sqrt(2))
        draw = collett.draw_plane if self.population == "collett" else planes.draw_plane
        return objects.Setup(populations.SGLC1_SPACE, (band,), N_PIXELS, 0, draw)

    def parameters(self):
        """Return what decides a pixel, JSON-serializable."""
        chosen = {"telescope": self.telescope, "population": self.population}
        return chosen | objects.describe(self.setup)

    def make(self, k):
        """Return the files of object `k` and its row of the table."""
        found = objects.simulate(self.setup, self.seed, k)
        object_id = f"{FIRST_ID + k}"
        return _files("SpaceBasedTraining", object_id, found, self.setup, _space_path), [
            {"object_id": object_id} | found.truth
        ]

    def catalog(self, rows, n):
        """Return the official table and the table of further truth as files."""
        return _tables("SpaceBasedTraining", rows)


@dataclass(frozen=True)
class Sglc1Ground:
    """Makes the objects of a stand-in I SGLC, ground track, see `cast_lens.mock.survey`.

    Attributes:
        seed: Seed of all draws.
        population: "challenge", or "collett" for lenses as the whole sky has them.
    """

    survey: ClassVar[str] = "sglc1-ground"
    bytes_per_object: ClassVar[int] = 190_000
    seed: int
    population: str = "challenge"

    @property
    def setup(self):
        """What the survey observes with."""
        draw = collett.draw_plane if self.population == "collett" else planes.draw_plane
        bands = tuple(map(challenge_band, GROUND_BANDS))
        return objects.Setup(populations.SGLC1_GROUND, bands, N_PIXELS, 1, draw, rough=_ROUGH)

    def parameters(self):
        """Return what decides a pixel, JSON-serializable."""
        return {"population": self.population} | objects.describe(self.setup)

    def make(self, k):
        """Return the files of object `k` and its row of the table."""
        found = objects.simulate(self.setup, self.seed, k)
        rng = planes.generator(self.seed, k, 16)
        n_masked = {}
        for name, image in found.images.items():
            masked = _masked_pixels(rng)
            image[masked] = MASK_VALUE
            n_masked[f"n_masked_{name}"] = int(masked.sum())
        object_id = f"{FIRST_ID + k}"
        files = _files("GroundBasedTraining", object_id, found, self.setup, _ground_path)
        return files, [{"object_id": object_id} | found.truth | n_masked]

    def catalog(self, rows, n):
        """Return the official table and the table of further truth as files."""
        return _tables("GroundBasedTraining", rows, *(f"n_masked_{band}" for band in GROUND_BANDS))


_ROUGH = 2 / 12  # of 12 real ground-based sample objects


def _masked_pixels(rng):
    """Draw which pixels of one image are masked: mostly none, else one blob of 10 to 300."""
    masked = np.zeros((N_PIXELS, N_PIXELS), dtype=bool)
    if rng.random() < _MASKED:
        radius = np.sqrt(10 ** rng.uniform(1, 2.5) / np.pi)  # ASSUMED: 15 to 212 pixels in three
        y, x = np.mgrid[:N_PIXELS, :N_PIXELS] - rng.uniform(0, N_PIXELS, 2)[:, None, None]
        masked = np.hypot(x, y) < radius
    return masked


def _space_path(band, object_id):
    return f"Public/Band1/imageEUC_{band}-{object_id}.fits"


def _ground_path(band, object_id):
    return f"Public/Band{GROUND_BANDS[band]}/imageSDSS_{band}-{object_id}.fits"


def _files(folder, object_id, found, setup, path):
    files = {
        f"{folder}/{path(band.name, object_id)}": layout.fits_bytes(
            found.images[band.name], band.pixel_scale, found.plane.ra, found.plane.dec
        )
        for band in setup.bands
    }
    if found.arcs.any():
        files[f"Truth/ArcMask/arcmask-{object_id}.fits.gz"] = layout.mask_bytes(
            found.arcs, setup.bands[0].pixel_scale
        )
    return files


def _tables(folder, rows, *further):
    columns = {
        "ID": "object_id", "is_lens": "n_sources", "Einstein_area": "ein_area",
        "numb_pix_lensed_image": "n_pix_source", "flux_lensed_image_in_sigma": "flux_in_sigma",
    }  # fmt: skip
    return {
        f"{folder}/classifications.csv": layout.table_bytes(rows, columns, quote_names=True),
        "Truth/truth.csv": layout.table_bytes(rows, {n: n for n in (*objects.TRUTH, *further)}),
    }
