"""What a pack is made from and by which rules, and objects read by them."""

import os
import warnings
from dataclasses import dataclass

import numpy as np

from cast_lens import array_files, cutouts
from cast_lens.cutouts import CutoutError

COUNTS = ("n_masked", "n_nonfinite", "n_constant", "n_extreme")


@dataclass(frozen=True)
class Plan:
    """What decides the records of a pack, besides the files.

    Attributes:
        inputs: {name: bands of equal shape, in their order}.
        shapes: {name: (height, width)}, pixels.
        dtype: "float32" or "float16".
        scales: {name: factor of each band}, for float16.
        mask_value: Pixels >= this become 0; None masks nothing.
        brightest: Absolute flux above which a pixel is counted as extreme; None counts none.
        channels: None for FITS files, one a band; as in `array_files` for one .npy file an object.
        strict: Whether an object that cannot be used is an error.
        root: Folder below which the files lie.
    """

    inputs: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[int, int]]
    dtype: str
    scales: dict[str, tuple[float, ...]]
    mask_value: float | None
    brightest: float | None
    channels: str | None
    strict: bool
    root: str

    @property
    def columns(self):
        """Columns of the catalog that name the files, each once."""
        if self.channels:
            return ["path"]
        bands = [band for bands in self.inputs.values() for band in bands]
        return [f"path_{band}" for band in dict.fromkeys(bands)]

    def record_shape(self, name):
        """Return (height, width, band) of an input."""
        return (*self.shapes[name], len(self.inputs[name]))

    def record_bytes(self, name):
        """Return how many bytes a record of an input takes."""
        return int(np.prod(self.record_shape(name))) * np.dtype(self.dtype).itemsize

    def relative(self, text):
        """Return a path or message with the files named from `root`, in printable UTF-8."""
        text = str(text)
        if self.root.strip(os.sep):
            text = text.replace(os.path.join(self.root, ""), "")
        return os.fsencode(text).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Block:
    """Objects as they were read.

    Attributes:
        images: {input: float32, shape (objects, height, width, band)}.
        counts: {input: {name of `COUNTS`: int64, shape (objects, bands)}}. Pixels that were
            masked; that were NaN, infinite or beyond float32; 1 where all pixels are equal; and
            pixels that are extreme.
        errors: CutoutError by index of each object that cannot be used.
        warnings: Texts.
    """

    images: dict[str, np.ndarray]
    counts: dict[str, dict[str, np.ndarray]]
    errors: dict[int, CutoutError]
    warnings: list[str]


def read_block(plan, paths):
    """Read objects.

    Args:
        plan: The Plan.
        paths: Of each object a list of its files, in the order of `plan.columns`; None where there
            is none.

    Returns:
        A Block.
    """
    images, counts = {}, {}
    errors: dict[int, CutoutError] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, bands in plan.inputs.items():
            images[name] = np.empty((len(paths), *plan.record_shape(name)), np.float32)
            counts[name], found = _read_input(plan, bands, paths, images[name])
            errors = found | errors
    return Block(images, counts, errors, [plan.relative(w.message) for w in caught])


def _read_input(plan, bands, paths, out):
    if plan.channels:
        n_masked, n_nonfinite, errors = array_files.read_arrays_into(
            [path for (path,) in paths], out, channels=plan.channels, mask_value=plan.mask_value
        )
    else:
        n_masked, n_nonfinite, errors = _read_bands(plan, bands, paths, out)
    first = out[:, 0, 0]
    n_constant = (first == out[:, -1, -1]).astype(np.int64)  # perhaps
    for k, n in np.argwhere(n_constant):
        n_constant[k, n] = (out[k, ..., n] == first[k, n]).all()
    extreme = _count_extremes(out, plan.brightest)
    return dict(zip(COUNTS, (n_masked, n_nonfinite, n_constant, extreme))), errors


def _read_bands(plan, bands, paths, out):
    n_masked, n_nonfinite = np.zeros((2, len(out), len(bands)), np.int64)
    errors: dict[int, CutoutError] = {}
    for n, band in enumerate(bands):
        column = plan.columns.index(f"path_{band}")
        files = [row[column] for row in paths]
        batch = cutouts.read_into(files, out[..., n], mask_value=plan.mask_value)
        n_masked[:, n], n_nonfinite[:, n] = batch.n_masked, batch.n_nonfinite
        for k, error in batch.errors.items():
            if error.reason == "missing_band":
                other = next(filter(None, paths[k]), "")
                found = f"an object without an image in band {band}"
                error = CutoutError("missing_band", other, found, "one a band; get all its files")
            errors.setdefault(k, error)
    return n_masked, n_nonfinite, errors


def _count_extremes(images, brightest):
    counts = np.zeros((len(images), images.shape[-1]), np.int64)
    if brightest is None:
        return counts
    with np.errstate(over="ignore"):
        for k, image in enumerate(images):
            flat = image.ravel()
            # The sum is no less than the square of any pixel, if both are rounded to float32.
            if not flat.dot(flat) < np.float32(brightest) ** 2:
                counts[k] = (np.abs(image) > brightest).sum((0, 1))
    return counts
