"""A stand-in for the training set of the second lens-finding challenge (II SGLC).

Files, names and the 27 columns are those of the real set: `Public/EUC_<BAND>/` with 200 x 200
pixels of 0.1 arcsec in VIS and 66 x 66 of 0.3 arcsec in Y, J and H, `image_catalog2.0train.csv`.
Beside them `Truth/` keeps what only a simulation knows. What the published columns mean is in part
unknown; the comment lines above the header say how each is computed here.
"""

from dataclasses import dataclass
from typing import ClassVar

from cast_lens.mock import collett, layout, objects, planes, populations
from cast_lens.mock.telescopes import challenge_band, in_flight_band
from cast_lens.run import RunError

BANDS = ("VIS", "Y", "J", "H")
N_PIXELS = 200
FIRST_ID = 200_000
FULL = 100_000  # objects of the real set
# Objects of the real set without images, and with two rows in the catalog
# (dforero0896/gravitational_lens_ml; Crettenand et al.), counted from the first
_MISSING = (13913, 26305, 33597, 44071, 59871, 61145, 70458, 88731, 94173)
_FEWEST = 250  # objects for which no two of these are the same object
_TWICE = tuple(range(10_000, 100_000, 10_000))

COLUMNS = {
    "ID": "object_id", "x_crit": "x_crit", "y_crit": "y_crit", "source_ID": "source",
    "z_source": "z_source", "z_lens": "z_lens", "mag_source": "mag_source",
    "ein_area": "ein_area", "n_crit": "n_crit", "r_source": "r_source", "crit_area": "crit_area",
    "n_pix_source": "n_pix_source", "source_flux": "source_flux", "n_pix_lens": "n_pix_lens",
    "lens_flux": "lens_flux", "n_source_im": "n_source_im", "mag_eff": "mag_eff",
    "sb_contrast": "sb_contrast", "color_diff": "color_diff", "n_gal_3": "n_gal_3",
    "n_gal_5": "n_gal_5", "n_gal_10": "n_gal_10", "halo_mass": "halo_mass",
    "star_mass": "star_mass", "mag_lens": "mag_lens", "n_sources": "n_sources",
}  # fmt: skip
MEANINGS = """\
# STAND-IN: simulated by cast_lens, not the catalog of the II SGLC
# x_crit, y_crit: mean position of the tangential critical curve from the image center, rad
# source_ID: number in the catalog of sources; sources return
# z_source, z_lens: redshifts
# mag_source: AB magnitude of the unlensed source in VIS
# ein_area: pi times the square of the Einstein radius, sr
# n_crit: points of the critical curve, one each 0.8 arcsec
# r_source: distance of the source from the center of the caustics, rad
# crit_area: area within the tangential critical curve, sr
# n_pix_source: VIS pixels where the noiseless lensed source exceeds the noise of the sky
# source_flux: its flux in these pixels, 10^(-0.4 m_AB)
# n_pix_lens, lens_flux: the same of the light of the central galaxy
# n_source_im: groups of these source pixels; pixels that touch at a corner are one group
# mag_eff: flux of the lensed over that of the unlensed source, the smallest of the bands
# sb_contrast: mean surface brightness of the source over that of the lens, in their pixels
# color_diff: VIS - H of the lens minus that of the source, mag
# n_gal_3, n_gal_5, n_gal_10: galaxies within 3, 5 and 10 arcsec of the center, with the lens
# halo_mass, star_mass: M200 of the halo and mass of the stars of the lens, solar masses
# mag_lens: AB magnitude of the lens in VIS
# n_sources: 1 if a source was added
"""


@dataclass(frozen=True)
class Sglc2:
    """Makes the objects of a stand-in II SGLC, see `cast_lens.mock.survey`.

    Attributes:
        seed: Seed of all draws.
        telescope: "challenge", or "in-flight" for the values Euclid has in space.
        population: "challenge", or "collett" for lenses as the whole sky has them.
        quirks_n: Number of objects, for the oddities of the published set at the published IDs:
            nine objects without images, nine with two rows, NaN and -1e130 where nothing was
            measured. Fewer than 100,000 objects have every so-many-th ID. None for a clean set.
    """

    survey: ClassVar[str] = "sglc2"
    bytes_per_object: ClassVar[int] = 235_000
    seed: int
    telescope: str = "challenge"
    population: str = "challenge"
    quirks_n: int | None = None

    def __post_init__(self):
        """Check that the quirks find room."""
        if self.quirks_n is not None and not _FEWEST <= self.quirks_n <= FULL:
            raise RunError(
                f"n is {self.quirks_n}; the published quirks need {_FEWEST} to {FULL} objects"
            )

    @property
    def depends_on_n(self):
        """Whether a survey of another number of objects is another survey."""
        return self.quirks_n is not None

    @property
    def setup(self):
        """What the survey observes with."""
        band = in_flight_band if self.telescope == "in-flight" else challenge_band
        draw = collett.draw_plane if self.population == "collett" else planes.draw_plane
        return objects.Setup(populations.SGLC2, tuple(map(band, BANDS)), N_PIXELS, 2, draw)

    def parameters(self):
        """Return what decides a pixel, JSON-serializable."""
        quirks = {} if self.quirks_n is None else {"quirks_n": self.quirks_n}
        chosen = {"telescope": self.telescope, "population": self.population} | quirks
        return chosen | objects.describe(self.setup)

    def make(self, k):
        """Return the files of object `k` and its rows of the catalog."""
        setup, object_id = self.setup, self.object_id(k)
        found = objects.simulate(setup, self.seed, k)
        rows = [{"object_id": object_id} | found.truth]
        if self._is_one_of(k, _TWICE):  # the second row tells of another object, as in the real set
            other = objects.simulate(setup, self.seed, k + FULL * FULL)
            rows.append({"object_id": object_id} | other.truth)
        if self._is_one_of(k, _MISSING):
            return {}, rows
        files = {}
        for band in setup.bands:
            path = f"Public/EUC_{band.name}/imageEUC_{band.name}-{object_id}.fits"
            files[path] = layout.fits_bytes(
                found.images[band.name], band.pixel_scale, found.plane.ra, found.plane.dec
            )
        if found.arcs.any():
            path = f"Truth/ArcMask/arcmask-{object_id}.fits.gz"
            files[path] = layout.mask_bytes(found.arcs, setup.bands[0].pixel_scale)
        return files, rows

    def catalog(self, rows, n):
        """Return the catalog and the table of further truth as files."""
        table = rows.copy()
        if self.quirks_n is None:
            table["mag_eff"] = table["mag_eff"].fillna(0.0)
            table["sb_contrast"] = table["sb_contrast"].fillna(0.0)
        else:
            table["sb_contrast"] = table["sb_contrast"].fillna(-1e130)
        return {
            "image_catalog2.0train.csv": layout.table_bytes(
                table, COLUMNS, comment=MEANINGS, index=True
            ),
            "Truth/truth.csv": layout.table_bytes(
                rows.drop_duplicates("object_id"), {name: name for name in objects.TRUTH}
            ),
        }

    def object_id(self, k):
        """Return the ID of object `k`; with quirks, IDs spread over those of the published set."""
        n = self.quirks_n
        if n is None:
            return f"{FIRST_ID + k}"
        published = {place * n // FULL: place for place in (*_TWICE, *_MISSING)}
        return f"{FIRST_ID + published.get(k, -(-k * FULL // n))}"

    def _is_one_of(self, k, published):
        n = self.quirks_n
        return n is not None and k in {place * n // FULL for place in published}
