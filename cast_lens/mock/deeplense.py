"""Stand-ins for the two data sets of Aryal (2025), in the folders and arrays of the real ones.

Task 1: the images in the paper look like those of DeepLenseSim, Model I, and stand for them here;
that it made them is ASSUMED, and so is the split. Unlike the simulator, which keeps counts, the
data set is scaled to [0, 1] an image.

Task 2 is real and of unknown origin. ASSUMED: the Wide layer of Hyper Suprime-Cam. Departures:
1. The noise is not correlated, the PSF is Gaussian, stars neither saturate nor have spikes.
2. What is no lens is a mix of types that one might take for a lens, not a survey's selection.
3. Flux is linear, bands are in the order g, r, i. A third party finds float32 in [0, 1] with means
   of 0.270, 0.188 and 0.105 after a joint min-max: more than linear flux gives, and falling where
   those of red galaxies rise. The real arrays may be stretched, or in the order i, r, g. Aryal's
   network standardizes each image and starts from random weights; no order suits it better.
"""

import io
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from cast_lens.mock import hsc
from cast_lens.mock.substructure import CLASSES, ModelI
from cast_lens.mock.telescopes import add_noise

FOLDERS = {
    "train_lenses": 1730, "train_nonlenses": 28675, "test_lenses": 195, "test_nonlenses": 19455,
}  # fmt: skip
VALIDATE_EVERY = 5  # of a class: 2,500 of 12,500
_SCENE, _SUBSTRUCTURE, _NOISE = 1, 2, 3  # last word of a seed
_TRUTH2 = (
    "kind", "n_neighbors", "magnitude_g", "magnitude_r", "magnitude_i", "radius", "q", "angle",
    "redshift", "sigma_v", "z_source", "theta_e", "gamma1", "gamma2", "source_x", "source_y",
    "source_magnitude_g", "source_radius", "magnification",
)  # fmt: skip


@dataclass(frozen=True)
class DeepLense1:
    """Task 1: {train,val}/{no,sphere,vort}/<number>.npy, shape (1, 150, 150).

    Attributes:
        seed: Seed of all draws.
        correct_distances: Whether Einstein radii come from angular diameter distances.
        dtype: Of the arrays.
    """

    seed: int  # whole, not negative
    correct_distances: bool = False
    dtype: str = "float64"  # ASSUMED: no page tells; what NumPy makes of counts scaled to [0, 1]

    survey: ClassVar[str] = "deeplense1"
    bytes_per_object: ClassVar[int] = 181_000  # the array, its header and its truth

    @property
    def model(self):
        """The `substructure.ModelI`."""
        return ModelI(correct_distances=self.correct_distances)

    def parameters(self):
        """Return what decides a pixel besides the seed."""
        return {"dtype": self.dtype, "model": asdict(self.model)}

    def place(self, k):
        """Return split, class and file number of object k.

        Classes take turns; of each class the second object goes to val and then every fifth.
        Any n objects are balanced to one, and 37,500 give 10,000 and 2,500 of each class.
        """
        name, j = CLASSES[k % len(CLASSES)], k // len(CLASSES)
        n_val = (j + VALIDATE_EVERY - 1) // VALIDATE_EVERY  # those before it, or up to it in val
        val = j % VALIDATE_EVERY == 1
        return ("val", name, n_val) if val else ("train", name, j + 1 - n_val)

    def draw(self, k):
        """Return the source (x and y in arcsec), the exposure time and the PointMasses."""
        substructure = np.random.default_rng([self.seed, k, _SUBSTRUCTURE])
        points = self.model.draw_substructure(self.place(k)[1], substructure)
        source = self.model.draw_source(np.random.default_rng([self.seed, k, _SCENE]))
        return *source, points

    def make(self, k):
        """Return the file and the truth row of object k, as `survey.write` wants them."""
        split, name, number = self.place(k)
        x, y, exposure_time, points = self.draw(k)
        noise = np.random.default_rng([self.seed, k, _NOISE])
        counts = self.model.expose(self.model.render(x, y, points), exposure_time, noise)
        row = {"object_id": f"{split}/{name}/{number}", "split": split, "class": name}
        row |= {"theta_e": float(self.model.einstein_radius(self.model.halo_mass))}
        row |= {"source_x": x, "source_y": y, "exposure_time": exposure_time} | points.truth
        return _file(row, counts[None], self.dtype), [row]

    def catalog(self, rows, n):
        """Return the truth table; the real data set has none."""
        return _truth_table(rows)


@dataclass(frozen=True)
class DeepLense2:
    """Task 2: {train,test}_{lenses,nonlenses}/<number>.npy, shape (3, 64, 64) in g, r, i.

    Attributes:
        seed: Seed of all draws.
        dtype: Of the arrays.
    """

    seed: int  # whole, not negative
    dtype: str = "float32"  # ASSUMED: a third party's reading, which the archive's size supports

    survey: ClassVar[str] = "deeplense2"
    bytes_per_object: ClassVar[int] = 50_000  # the array, its header and its truth

    def parameters(self):
        """Return what decides a pixel besides the seed."""
        numbers = {name: value for name, value in vars(hsc).items() if name.isupper()}
        return {"dtype": self.dtype, "hsc": numbers | {"COSMOLOGY": str(hsc.COSMOLOGY)}}

    def place(self, k):
        """Return folder and file number of object k.

        The first four objects go to one folder each. Each further one goes where
        (files there + 1/2) / (files there at full size) is least, the method of Sainte-Lague:
        any n objects have the proportions of the real set to about one object, and 50,055 its
        counts. What follows begins anew with higher numbers.
        """
        again, k = divmod(k, sum(FOLDERS.values()))
        folder, number = (int(column[k]) for column in _places())
        name, count = list(FOLDERS.items())[folder]
        return name, number + again * count

    def draw(self, k):
        """Return the `hsc.Scene` and the Bands of object k."""
        rng = np.random.default_rng([self.seed, k, _SCENE])
        label = int(self.place(k)[0].endswith("_lenses"))
        return hsc.draw_scene(rng, label), hsc.draw_bands(rng)

    def make(self, k):
        """Return the file and the truth row of object k, as `survey.write` wants them."""
        folder, number = self.place(k)
        scene, bands = self.draw(k)
        noise = np.random.default_rng([self.seed, k, _NOISE])
        images, magnification = hsc.render_scene(scene, bands)
        noisy = np.array([add_noise(image, band, noise) for image, band in zip(images, bands)])
        row = {"object_id": f"{folder}/{number}", "split": folder.split("_")[0]}
        row |= {"label": int(folder.endswith("_lenses"))} | dict.fromkeys(_TRUTH2)
        row |= scene.truth | {"magnification": magnification}
        row |= {f"fwhm_{band.name.lower()}": float(band.fwhm) for band in bands}
        return _file(row, noisy, self.dtype), [row]

    def catalog(self, rows, n):
        """Return the truth table; the real data set has none."""
        return _truth_table(rows)


@lru_cache(maxsize=1)
def _places():
    """Return folder and file number of each object of a full Task 2, in the order of k."""
    counts = np.array(list(FOLDERS.values()))
    folders = np.repeat(np.arange(len(counts)), counts)
    numbers = np.concatenate([np.arange(1, count + 1) for count in counts])
    due = np.where(numbers == 1, 0, (numbers - 0.5) / counts[folders])
    order = np.argsort(due, kind="stable")
    return folders[order], numbers[order]


def _file(row, image, dtype):
    """Return the one file of an object, scaled to [0, 1], and note in its row how to undo that."""
    low, high = float(image.min()), float(image.max())
    row |= {"value_of_0": low, "value_of_1": high}
    scaled = (image.astype(np.float64) - low) / (high - low)
    stream = io.BytesIO()
    np.save(stream, scaled.astype(dtype), allow_pickle=False)
    return {f"{row['object_id']}.npy": stream.getvalue()}


def _truth_table(rows):
    return {"Truth/truth.csv": rows.to_csv(index=False, lineterminator="\n").encode()}
