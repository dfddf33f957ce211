"""Pictures of a stand-in survey as in Bom et al. (2022), Fig. 1 to 4; every title says stand-in."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cast_lens import figures
from cast_lens.cutouts import read_cutout
from cast_lens.mock import contents, pixels
from cast_lens.run import write_whole

N_SHOWN = 5  # objects of either class
DETECTABLE = 20  # source pixels above the noise; Bom et al. (2022), Sec. 2.1
STRETCH = 12.0  # ASSUMED: times the noise where asinh turns from linear; faint arcs still show
BOUNDS = (0.001, 0.99)  # Bom et al. (2022), Sec. 2.2; the lower is minus the 99.9th of minus x


def draw(objects, layout, measured, counts, folder):
    """Draw histograms of all pixels and some objects, before and after clipping.

    Before clipping the images are divided by the maximum of the set, as a network gets them; those
    of Bom et al. (2022), Fig. 1, were normalized individually.

    Args:
        objects: DataFrame with object_id, label, path_<band> and perhaps n_pix_lensed.
        layout: The survey's Layout.
        measured: Table of `pixels.measure`.
        counts: Its histograms, shape (bands, bins).
        folder: Where to write pixels_<when>.png and objects_<when>_<bands>.png, `when` being
            before and after.

    Returns:
        List of the paths.
    """
    clip = {band: clip_bounds(row) for band, row in zip(layout.bands, counts, strict=True)}
    top = {band: (0.0, float(measured[f"max_{band}"].max())) for band in layout.bands}
    paths = []
    for when, bounds, how in (
        ("before", top, "divided by the maximum of the set"),
        ("after", clip, "clipped at the 0.1 and 99 percentiles of the set"),
    ):
        paths.append(Path(folder) / f"pixels_{when}.png")
        _histograms(counts, layout, measured, clip if when == "after" else None, paths[-1])
        for bands in (layout.bands[:1], layout.color):
            if bands:
                paths.append(Path(folder) / f"objects_{when}_{''.join(bands)}.png")
                _contact_sheet(objects, layout, bands, bounds, how, paths[-1])
    return paths


def clip_bounds(counts):
    """Find minus the 99.9th percentile of the negated pixels, and the 99th of the pixels.

    Args:
        counts: Histogram of one band, shape (bins,).

    Returns:
        (lower, upper), in the unit of the files.

    Reference:
        Bom et al. (2022), Sec. 2.2.
    """
    return tuple(pixels.quantile(counts, q) for q in BOUNDS)


def shown(objects):
    """Choose the objects of a contact sheet, by rule and not by eye.

    Args:
        objects: DataFrame with object_id, label and perhaps n_pix_lensed.

    Returns:
        The first `N_SHOWN` lenses by ID of those that are detectable, and as many other objects.
    """
    ordered = objects.sort_values("object_id", key=lambda ids: ids.map(int), kind="stable")
    lenses = ordered["label"] == 1
    if "n_pix_lensed" in ordered:  # the label of the I SGLC says only that a source was added
        lenses &= ordered["n_pix_lensed"] > DETECTABLE
    return ordered[lenses][:N_SHOWN], ordered[ordered["label"] == 0][:N_SHOWN]


def draw_task(objects, task, path):
    """Draw objects of each class of a DeepLense task, the first by number of the training set.

    Args:
        objects: DataFrame with class_name, split, number and path.
        task: Its `contents.Task`.
        path: PNG to write.

    Returns:
        The path.
    """
    training = objects[objects["split"] == "train"].sort_values("number", kind="stable")
    lines = {}
    for name in task.folders["classes"]:
        part = training[training["class_name"] == name][:N_SHOWN]
        images = [contents.read_array(each, len(task.bands))[0] for each in part["path"]]
        lines[name] = dict(zip(part["object_id"].str.rpartition("/")[2], map(_in_color, images)))
    how = "G, R, I as blue, green, red, asinh stretch" if len(task.bands) > 1 else "linear"
    rule = f"the first {N_SHOWN} of each class by number, training set"
    draw_lines(lines, f"Stand-in {task.title}, {how}\n({rule})", path)
    return path


def draw_lines(lines, title, path):
    """Draw a contact sheet, one line a class.

    Args:
        lines: {class: {object_id: picture}}; pictures are gray, shape (height, width), or red,
            green and blue, (height, width, 3), both from 0 to 1. At most `N_SHOWN` a line.
        title: Says that it is a stand-in, and by which rule the objects were chosen.
        path: PNG to write.
    """
    figure = Figure(figsize=(5.6, 0.7 + 1.2 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(lines), N_SHOWN, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, (name, pictures) in zip(panels, lines.items()):
        for axes, (object_id, picture) in zip(line, pictures.items()):
            axes.imshow(picture, "gray", vmin=0, vmax=1, interpolation="nearest", origin="lower")
            axes.set_title(f"{name} {object_id}", fontsize=7, pad=2)
    figure.suptitle(title, fontsize=8)
    _save_small(figure, path)


def _histograms(counts, layout, measured, clip, path):
    n_bands = len(layout.bands)
    figure, panels = figures.figure_with_axes(3.2 * n_bands + 0.8, 3.6, n_bands)
    for axes, band, row in zip(np.atleast_1d(panels), layout.bands, counts, strict=True):
        if clip is None:
            offset = max(-float(measured[f"min_{band}"].min()), pixels.SOFTENING)
            top = float(measured[f"max_{band}"].max()) + offset
            shown_at = np.geomspace(0.02 * offset, top, 121)
            grid = shown_at - offset
            axes.set_xscale("log")
            axes.set_xlabel(f"{band} flux + {offset:.2g}")
        else:
            low, high = clip[band]
            grid = np.linspace(low, high, 81)
            unit = 10.0 ** np.floor(np.log10(max(abs(grid[-1]), 1e-30)))
            shown_at = grid / unit
            axes.set_xlabel(f"{band} flux / {unit:.0e}")
        below = np.interp(grid, pixels.bin_edges(), np.append(0, np.cumsum(row)))
        below[[0, -1]] = 0, row.sum()  # what is beyond the ends is clipped to them
        axes.stairs(np.diff(below), shown_at, color=figures.COLORS[0], fill=True)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)  # less than a pixel is a bin wider than a drawn one
    np.atleast_1d(panels)[0].set_ylabel("pixels a bin")
    how = "before clipping" if clip is None else "clipped at the 0.1 and 99 percentiles"
    title = f"Stand-in {layout.title}, {len(measured)} objects\npixels {how}"
    figure.suptitle(title, fontsize=10)
    figures.save(figure, path)


def _contact_sheet(objects, layout, bands, bounds, how, path):
    lines = {
        name: {
            row["object_id"]: _picture(row, bands, bounds, layout.mask_value)
            for row in part.to_dict("records")
        }
        for name, part in zip(("lens", "no lens"), shown(objects))
    }
    rule = "the first of either class by ID"
    if "n_pix_lensed" in objects:
        rule += f", lenses with more than {DETECTABLE} source pixels"
    title = f"Stand-in {layout.title}, {' '.join(bands)}, {how}\n({rule})"
    draw_lines(lines, title, path)


def _save_small(figure, path):
    """Write a figure with 128 colors: pixels of pure noise do not compress, but fewer bits do."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    write_whole(path, small.getvalue())


def _in_color(image):
    """Return one channel as it is, or three, shape (3, height, width), as red, green and blue."""
    if len(image) == 1:
        return image[0]
    noise = np.median([pixels.noise(plane)[0] for plane in image])
    above = [plane - np.median(plane) for plane in image.astype(np.float64)]
    # Each band by itself: make_lupton_rgb keeps the hue of saturated cores and so darkens them.
    bright = np.arcsinh(
        np.maximum(np.stack(above[::-1], axis=-1), 0) / (STRETCH * max(noise, 1e-300))
    )
    return bright / max(bright.max(), 1e-300)


def _picture(row, bands, bounds, mask_value):
    """Return one band, shape (height, width), or three, (height, width, 3), scaled to [0, 1]."""
    image, _ = read_cutout([row[f"path_{band}"] for band in bands], mask_value=mask_value)
    low, high = np.array([bounds[band] for band in bands]).T
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-300), 0, 1)
    return scaled[..., 0] if len(bands) == 1 else scaled
