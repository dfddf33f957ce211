"""A stand-in of a DeepLense task beside what is known of the real one.

Every image was scaled to [0, 1] by its own minimum and maximum. What a network gets, shortcuts
included, is measured on the files as they are. Leaks are looked for in the unit before, counts or
flux, to which Truth/truth.csv leads back: substructure and arcs change an image's maximum, and so
the scaled sky, and that is no fault of the making.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.stats import mad_std
from scipy import ndimage

from cast_lens.mock import comparison, contents, pixels, probes, quantities, sheet
from cast_lens.run import write_whole
from cast_lens.workers import cpus, run_all

SEED = 0  # of the sample: the same survey gives the same table
SECTORS = 36  # ASSUMED: of a ring; each holds some four pixels of the ring's length
SMOOTHING = 1.5  # ASSUMED: pixels, a Gaussian's deviation; a ring is several times as wide
INNERMOST = 10  # ASSUMED: pixels; no ring here is so small, and its sectors have pixels enough
CORNER = 12  # ASSUMED: pixels, 2 arcsec; far from the galaxy, and most without a neighbor

_BORDER = ("border_mean", "border_median", "border_std", "border_zeros")
_FILE = ["bytes", "header", "dtype", "fortran"]
_INTRODUCTION = """# Stand-in for {title}, compared with what is known of the real one

These are simulated images. {n} objects of seed {seed} have files and truth; {missing} have truth
alone. What needs more than sums and extremes is of {sample} of them, of each class as many as of
the others as far as there are so many.

The column band also holds the folder, class or split that a number is of. Intervals hold 95 %, of
a bootstrap over objects, with two exceptions: that of a fraction reaches one object to either
side, for proportions are chosen and not drawn, and those of channels, height, width, bits,
image_min and image_max are the extremes of all files. An AUROC of shortcut_auroc is what trivial
statistics of the files tell ({trivial}). Leaks are looked for in the {unit} before scaling.
How ring_radius and snr are measured stands in cast_lens/mock/check_deeplense.py.
"""


def check(folder, manifest, *, real=None, sample=2000):
    """Compare a stand-in of a DeepLense task with what is known of the real set.

    Writes table.csv, table.md and a picture (PNG) into the folder Check inside `folder`.

    Args:
        folder: Folder of a finished stand-in survey.
        manifest: What `survey.read_manifest` says of it.
        real: Folder of the real set, whose numbers then stand beside, or None.
        sample: Objects on which borders, corners and rings are measured and probes trained, of
            each class as many as of the others as far as there are so many. Sums, extremes,
            shapes and counts are always of all objects.

    Returns:
        DataFrame of `comparison.TABLE`, as `cast_lens.mock.check.check`.

    Raises:
        CheckError: If a file is no array of the task, or Truth/truth.csv lacks a column or object.
        CatalogError: If a class folder is missing or empty.
    """
    folder, task = Path(folder), contents.TASKS[manifest["survey"]]
    objects = contents.read_task(folder, task)
    scaling = contents.read_scaling(folder / "Truth/truth.csv", objects)
    numbers = _numbers(objects, task, sample, scaling)
    beside = numbers[:0]
    if real is not None:
        beside = _numbers(contents.read_task(real, task), task, sample, None)
    facts = comparison.read_known()
    facts = facts[facts["survey"] == manifest["survey"]]
    parameters = manifest["parameters"]
    settings = parameters | parameters.get("model", {}) | {"n": manifest["n"]}
    table = comparison.compare(facts, numbers, beside, settings)
    write_whole(folder / "Check/table.csv", table.to_csv(index=False, lineterminator="\n"))
    picture = sheet.draw_task(objects, task, folder / "Check/objects.png")
    introduction = _INTRODUCTION.format(
        title=task.title, n=len(objects), seed=manifest["seed"], unit=task.unit,
        missing=len(scaling) - len(objects), sample=min(sample, len(objects)),
        trivial=", ".join(task.trivial),
    )  # fmt: skip
    write_whole(folder / "Check/table.md", comparison.page(introduction, table, [picture]))
    return table


def ring_radius(image):
    """Measure the radius of a ring around the center of an image.

    The mean, over `SECTORS` equal sectors, of the distance of each sector's brightest pixel from
    the center, in the image smoothed by a Gaussian of `SMOOTHING`. For an isothermal lens the
    light in a direction is brightest where it comes closest to the source: at the Einstein
    radius, plus the part of the source's offset that points there. Over all directions that part
    averages out, and so do, to first order, ellipticity and shear. The mean radius of the
    brightest pixels of the whole image lacks this property: arcs are brighter on the source's
    side, where they lie farther out.

    Args:
        image: Shape (height, width), of a ring and nothing else.

    Returns:
        The radius, pixels; NaN if the image is too small to hold one.
    """
    y, x = (np.arange(side) - (side - 1) / 2 for side in image.shape)
    if min(image.shape) < 4 * INNERMOST:
        return np.nan
    r = np.hypot(x[None, :], y[:, None])
    turn = np.arctan2(y[:, None], x[None, :]) / (2 * np.pi) + 0.5  # 0 to 1
    sector = np.where(r < INNERMOST, -1, np.minimum(turn * SECTORS, SECTORS - 1).astype(int))
    smooth = ndimage.gaussian_filter(image, SMOOTHING)
    peaks = ndimage.maximum_position(smooth, sector, np.arange(SECTORS))
    return float(np.mean([r[peak] for peak in peaks]))


def signal_to_noise(image, border):
    """Measure the brightest pixel over the standard deviation of the sky.

    Negative values of the simulator's sky, a normal distribution about 0, became 0. Its standard
    deviation before that is sqrt(2 pi) times the mean of what is left. No source says how the
    known number was measured; over its own noise the brightest pixel has about half of this, over
    the deviation of the sky that is left about 1.6 times as much.

    Args:
        image: Shape (height, width), 0 where there were no counts.
        border: Its pixels that show sky alone.

    Returns:
        The ratio, dimensionless.
    """
    return float(image.max() / (np.sqrt(2 * np.pi) * max(border.mean(), 1e-300)))


def noise_without_light(image):
    """Estimate the noise of sky over which the light of a galaxy may run out.

    The spread of pixels about their median grows with a gradient, and early types reach far: by 1
    to 4 % in corners here, which tells them from discs and is no leak. The second difference
    along both axes holds nothing of a surface of second order.

    Args:
        image: Shape (height, width), 3 pixels a side or more.

    Returns:
        Standard deviation of noise without correlation, in the unit of the image.

    Reference:
        Immerkaer (1996), Computer Vision and Image Understanding 64, 300, Eq. 1; the spread is the
        median absolute deviation here.
    """
    return float(mad_std(np.diff(np.diff(image, 2, axis=0), 2, axis=1)) / 6)


def measure(objects, task, sampled):
    """Measure all files, one after the other.

    Args:
        objects: DataFrame with path.
        task: A `contents.Task`.
        sampled: Whether borders, corners and rings are measured, shape (objects,), bool.

    Returns:
        DataFrame of shape (objects, quantities) in the order of `objects`: bytes, header (its
        bytes), dtype, fortran (order), bits, channels, height, width, image_min and image_max of
        a file; mean_<band> and max_<band>; and, NaN where not sampled, <quantity>_<band> of
        median, std, border_mean, border_median, border_std, border_zeros (a fraction) and
        corner_noise, and, where the task has rings, of ring_radius (arcsec), snr and
        snr_of_clipped_sky.

    Raises:
        CheckError: If a file is no array of as many channels as the task has bands.
    """
    work = list(zip(objects["path"].tolist(), np.asarray(sampled).tolist(), strict=True))
    tasks = [(k, work[k : k + pixels.CHUNK], task) for k in range(0, len(work), pixels.CHUNK)]
    found: dict[int, pd.DataFrame] = {}
    if len(work) <= pixels.ALONE:
        found.update(_measure_chunk(*each) for each in tasks)
    else:
        run_all(_measure_chunk, tasks, workers=cpus(), report=lambda part: found.update([part]))
    return pd.concat([found[k] for k in sorted(found)]).set_index(objects.index)


def _measure_chunk(start, chunk, task):
    return start, pd.DataFrame([_measure(path, chosen, task) for path, chosen in chunk])


def _measure(path, chosen, task):
    image, size = contents.read_array(path, len(task.bands))
    channels, height, width = image.shape
    row = {
        "bytes": size, "header": size - image.nbytes, "dtype": image.dtype.str,
        "fortran": image.flags.fnc, "bits": 8 * image.itemsize, "channels": channels,
        "height": height, "width": width,
        "image_min": float(image.min()), "image_max": float(image.max()),
    }  # fmt: skip
    for band, plane in zip(task.bands, image.astype(np.float64)):
        found = {"mean": plane.mean(), "max": plane.max()}
        if chosen:
            found |= _measure_sky(plane, task.border)
            if task.pixel_scale is not None:
                found |= _measure_ring(plane, task)
        row |= {f"{name}_{band}": float(value) for name, value in found.items()}
    return row


def _frame(plane, width):
    inside = np.zeros(plane.shape, bool)
    inside[width:-width, width:-width] = True
    return plane[~inside]


def _measure_sky(plane, width):
    border = _frame(plane, width)
    ends = (slice(None, CORNER), slice(-CORNER, None))
    corners = [plane[rows, columns] for rows in ends for columns in ends]
    # The median of four: a neighbor may lie in one or two of them.
    corner_noise = np.median([noise_without_light(corner) for corner in corners])
    return {
        "median": np.median(plane), "std": plane.std(), "border_mean": border.mean(),
        "border_median": np.median(border), "border_std": border.std(),
        "border_zeros": np.mean(border == 0), "corner_noise": corner_noise,
    }  # fmt: skip


def _measure_ring(plane, task):
    border = _frame(plane, task.border)
    return {
        "ring_radius": ring_radius(plane) * task.pixel_scale,
        "snr": signal_to_noise(plane, border),
        "snr_of_clipped_sky": (plane.max() - border.mean()) / max(border.std(), 1e-300),
    }


def _numbers(objects, task, sample, scaling):
    """Return all numbers of a set; without its scaling, those that need none."""
    chosen = _sampled(objects["label"], sample)
    measured = measure(objects, task, chosen)
    numbers = quantities.task_numbers(objects, measured, task.bands)
    probed = _probe(objects[chosen], measured[chosen], task, scaling)
    return pd.concat([numbers, probed], ignore_index=True)


def _sampled(labels, sample):
    """Return which objects are in the sample: classes take turns, each in random order."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    turn = labels.iloc[order].groupby(labels.iloc[order]).cumcount().to_numpy()
    chosen = np.zeros(len(labels), bool)
    chosen[order[np.argsort(turn, kind="stable")[:sample]]] = True
    return chosen


def _probe(objects, measured, task, scaling):
    """Return the AUROCs of each class against class 0: of shortcuts, and of what must not tell."""
    files = measured[_FILE].assign(dtype=pd.factorize(measured["dtype"], sort=True)[0])
    if task.pixel_scale is not None:  # Task 2 has fewer lenses, so that they have lower numbers
        files["number"] = objects["number"]
    wanted = [("shortcut_auroc", probes.columns(measured, task.trivial, task.bands))]
    if scaling is not None:
        wanted.append(_unscaled_sky(measured, task, scaling.loc[objects["object_id"]]))
    classes = sorted((k, name) for name, k in task.folders["classes"].items() if k)
    rows = []
    for name, features in [*wanted, ("leak_file", files)]:
        for label, other in classes:
            pair = objects["label"].isin([0, label]).to_numpy()
            is_other = (objects["label"][pair] == label).to_numpy().astype(int)
            found = probes.auroc(features[pair], is_other, np.arange(len(is_other)))
            rows.append((name, other if len(classes) > 1 else "", *found, ""))
    return pd.DataFrame(rows, columns=quantities.COLUMNS)


def _unscaled_sky(measured, task, scaling):
    """Return the name of the task's probe, and its features in the unit before scaling."""
    low, high = scaling[["value_of_0", "value_of_1"]].to_numpy().T
    names = ("corner_noise",) if task.pixel_scale is None else _BORDER
    features = probes.columns(measured, names, task.bands).copy()
    for column in features:
        if not column.startswith("border_zeros"):
            features[column] *= high - low
        if column.startswith(("border_mean", "border_median")):
            features[column] += low
    return "leak_corner_noise" if task.pixel_scale is None else "leak_border", features
