"""What the pixels of a survey are like, measured without knowing what is in them.

Every file is read once. Sums, extremes and histograms are of all objects, for a few bright ones
decide them; what costs more and varies little between objects is measured on a sample.
"""

import numpy as np
import pandas as pd
from astropy.stats import mad_std
from scipy import ndimage

from cast_lens.cutouts import read_cutout
from cast_lens.workers import cpus, run_all

TILE = 11  # ASSUMED: pixels; small beside a sky gradient, and 36 tiles fit into 66 x 66 pixels
BORDER = 2  # ASSUMED: pixels; the frame looked at for what the making of an image left there
CENTER = 5  # ASSUMED: pixels; half the box in which the lens galaxy's center is looked for
SOFTENING = 1e-13  # ASSUMED: flux where bins turn from linear to logarithmic, below any noise
BINS_PER_UNIT = 250  # ASSUMED: 0.4 % in flux, and 4e-16 around 0
LIMIT = 24  # arcsinh(flux / SOFTENING) of the last bin: a flux of 1.3e-3 a pixel, AB magnitude 7

CHUNK = 100  # objects a process measures at a time
ALONE = 500  # objects up to which starting processes costs more than it saves


def measure(objects, bands, *, mask_value=None, sampled=()):
    """Measure all images of a survey, one object's file after the other.

    Args:
        objects: DataFrame with object_id and path_<band>.
        bands: Bands to measure.
        mask_value: Pixels >= this are left out, as in `cutouts.read_cutout`.
        sampled: The object_ids on which `measure_sky` is done too.

    Returns:
        DataFrame of shape (objects, quantities), in the order of `objects`, with the columns
        <quantity>_<band> of `measure_flux`, and of `measure_sky`, NaN where not sampled. And
        the histograms, int64, shape (bands, bins), the bins being those of `bin_edges`.

    Raises:
        CutoutError: If a file is no cutout.
    """
    paths = objects[[f"path_{band}" for band in bands]].to_numpy().tolist()
    chosen = objects["object_id"].isin(set(sampled)).tolist()
    work = list(zip(paths, chosen, strict=True))
    tasks = [
        (start, work[start : start + CHUNK], bands, mask_value)
        for start in range(0, len(work), CHUNK)
    ]
    rows: dict[int, list[dict]] = {}
    counts = np.zeros((len(bands), 2 * LIMIT * BINS_PER_UNIT), np.int64)

    def gather(result):
        start, part, histograms = result
        rows[start] = part
        counts[...] += histograms

    if len(work) <= ALONE:
        for task in tasks:
            gather(_measure_chunk(*task))
    else:
        run_all(_measure_chunk, tasks, workers=cpus(), report=gather)
    every = [row for start in sorted(rows) for row in rows[start]]
    return pd.DataFrame(every, index=objects.index), counts


def measure_flux(image, used):
    """Measure what the few brightest pixels decide.

    Args:
        image: Shape (height, width), in the unit of the file.
        used: Pixels that are neither masked nor not finite, bool, same shape.

    Returns:
        Dict of n (pixels), bad (pixels not used), sum, sum_squares, min, max.
    """
    pixels = image[used].astype(np.float64)
    if not len(pixels):
        return {"n": 0, "bad": image.size, "sum": 0.0, "sum_squares": 0.0} | dict.fromkeys(
            ("min", "max"), np.nan
        )
    return {
        "n": len(pixels), "bad": image.size - len(pixels), "sum": pixels.sum(),
        "sum_squares": np.square(pixels).sum(), "min": pixels.min(), "max": pixels.max(),
    }  # fmt: skip


def measure_sky(image, used):
    """Measure noise, border and center of one image.

    Args:
        image: Shape (height, width), in the unit of the file; pixels not used are 0.
        used: Pixels that are neither masked nor not finite, bool, same shape.

    Returns:
        Dict of median; noise, lag1 and lag2 of `noise`; border_median, border_noise, border_min
        of a frame of `BORDER` pixels; n_zero, the used pixels that are exactly 0; and the peak's
        and the centroid's place in the central box, peak_x, peak_y, centroid_x, centroid_y, in
        pixels from the image's center.
    """
    sigma, lag1, lag2 = noise(image)
    frame = np.ones(image.shape, bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    border = image[frame & used]
    if not len(border):
        border = np.array([np.nan])
    peak_y, peak_x, centroid_y, centroid_x = _center(image, sigma)
    return {
        "median": np.median(image[used]) if used.any() else np.nan, "noise": sigma, "lag1": lag1,
        "lag2": lag2, "border_median": np.median(border), "border_noise": mad_std(border),
        "border_min": border.min(), "n_zero": int(np.sum(used & (image == 0))),
        "peak_x": peak_x, "peak_y": peak_y, "centroid_x": centroid_x, "centroid_y": centroid_y,
    }  # fmt: skip


def noise(image):
    """Estimate the noise of one image and its correlation between neighboring pixels.

    The image is cut into tiles. A quarter of them, those of the lowest medians, hold the least
    light of galaxies, and the choice by the median does not narrow the spread about it. In these
    the spread is the median absolute deviation, which the few pixels of a faint galaxy hardly
    move; correlations are of pixels within three standard deviations.

    Args:
        image: Shape (height, width), at least `TILE` pixels a side. Tiles with a pixel that is
            exactly 0, as masked ones are, are left out unless nearly all have one.

    Returns:
        Standard deviation in the unit of the image, and the autocorrelation at 1 and 2 pixels,
        the mean of both axes; NaN without noise.
    """
    rows, columns = (side // TILE for side in image.shape)
    tiles = image[: rows * TILE, : columns * TILE].astype(np.float64)
    tiles = tiles.reshape(rows, TILE, columns, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE)
    poorest = max(len(tiles) // 4, 1)
    whole = (tiles != 0).all(axis=(1, 2))
    if whole.sum() >= poorest:
        tiles = tiles[whole]
    medians = np.median(tiles, axis=(1, 2))
    order = np.argsort(medians, kind="stable")[:poorest]
    residual = tiles[order] - medians[order, None, None]
    # Each tile's median pixel, now 0, says nothing of the spread and would narrow it by 1 %.
    spread = residual[residual != 0]
    sigma = float(mad_std(spread)) if len(spread) else 0.0
    if not sigma > 0:
        return sigma, np.nan, np.nan
    kept = np.abs(residual) < 3 * sigma
    residual = np.where(kept, residual, 0)
    variance = np.square(residual).sum() / kept.sum()
    return sigma, *(_correlation(residual, kept, lag) / variance for lag in (1, 2))


def bin_edges():
    """Return the edges of the histograms' bins, shape (bins + 1,): linear to logarithmic."""
    steps = np.arange(2 * LIMIT * BINS_PER_UNIT + 1) / BINS_PER_UNIT - LIMIT
    return SOFTENING * np.sinh(steps)


def histogram(pixels):
    """Count pixels in the bins of `bin_edges`; those beyond the ends go into the end bins."""
    with np.errstate(over="ignore"):  # beyond float32 is beyond the last bin
        place = (np.arcsinh(pixels / np.float32(SOFTENING)) + LIMIT) * BINS_PER_UNIT
    last = 2 * LIMIT * BINS_PER_UNIT - 1
    return np.bincount(np.clip(place, 0, last).astype(np.int64), minlength=last + 1)


def quantile(counts, q):
    """Find the flux below which a fraction `q` of the counted pixels lies, between bin edges."""
    cumulative = np.append(0, np.cumsum(counts)) / np.sum(counts)
    return float(np.interp(q, cumulative, bin_edges()))


def _measure_chunk(start, chunk, bands, mask_value):
    rows, counts = [], np.zeros((len(bands), 2 * LIMIT * BINS_PER_UNIT), np.int64)
    for paths, chosen in chunk:
        row: dict[str, float] = {}
        for place, (band, path) in enumerate(zip(bands, paths, strict=True)):
            image, bad = read_cutout([path])
            image = image[..., 0]  # (height, width)
            used = image < (np.inf if mask_value is None else mask_value)
            if bad.n_nonfinite[0]:  # these became 0
                used &= image != 0
            image = np.where(used, image, 0)
            found = measure_flux(image, used) | (measure_sky(image, used) if chosen else {})
            row |= {f"{name}_{band}": value for name, value in found.items()}
            counts[place] += histogram(image[used])
        rows.append(row)
    return start, rows, counts


def _correlation(residual, kept, lag):
    """Compute the mean product of pixels `lag` apart along either axis, both of them kept."""
    products = pairs = 0
    for axis in (1, 2):
        first, second = (np.roll(each, -lag, axis) for each in (residual, kept))
        inside = [slice(None)] * 3
        inside[axis] = slice(None, -lag)
        products += (first * residual)[tuple(inside)].sum()
        pairs += (second & kept)[tuple(inside)].sum()
    return products / max(pairs, 1)


def _center(image, sigma):
    """Find peak and centroid in the central box: (y, x, y, x) in pixels from the center."""
    middle = (np.array(image.shape) - 1) / 2
    start = np.maximum(np.floor(middle - CENTER).astype(int), 0)
    stop = np.ceil(middle + CENTER).astype(int) + 1
    # Three pixels a side: less than any PSF here, and the peak is no longer one pixel's noise.
    box = ndimage.uniform_filter(image.astype(np.float64), 3, mode="nearest")
    # Above its noise, which is sigma / 3 now: else the centroid is that of the empty box.
    box = np.maximum(box[start[0] : stop[0], start[1] : stop[1]] - sigma, 0)
    if not box.any():
        return (np.nan,) * 4
    peak = np.unravel_index(np.argmax(box), box.shape)
    return *(start + peak - middle), *(start + ndimage.center_of_mass(box) - middle)
