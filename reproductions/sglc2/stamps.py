"""Figures 1 and 4: objects before and after pre-processing (Secs. 2.1 and 2.2)."""

import numpy as np
from matplotlib.figure import Figure

from cast_lens import figures
from reproductions.sglc2.look import SCALES
from reproductions.sglc2.settings import BANDS, CLIPPINGS
from reproductions.sglc2.survey import constants

# The paper does not say how it chose its objects; here, lenses by their place in order of N_pix,
# as a fraction of the way from the smallest to the largest.
IN_FIGURE_1 = 0.98  # ASSUMED: an arc that can be seen
IN_FIGURE_4 = (1.0, 0.97, 0.94, 0.9, 0.8)  # ASSUMED: from the brightest arc to one hard to see


def draw_stamps(folder, survey):
    """Draw Figures 1 and 4, as far as the sample has a lens and an object that is none.

    Args:
        folder: Of the run; the percentiles of its first fold are the bounds.
        survey: The Survey.
    """
    lenses, others = by_n_pix(survey, 1), by_n_pix(survey, 0)
    if not len(lenses) or not len(others):
        return
    bounds = {
        name: table.loc[[*CLIPPINGS["alternative"]]].to_numpy()
        for name, table in constants(survey, 0, BANDS, folder / "constants").items()
    }
    draw_figure_1([at(lenses, IN_FIGURE_1), others[0]], survey, bounds, folder / "figure_1.png")
    chosen = [*dict.fromkeys(at(lenses, fraction) for fraction in IN_FIGURE_4)]
    draw_figure_4(chosen, survey, bounds, folder / "figure_4.png")


def by_n_pix(survey, label):
    """Return the rows of the sample's lenses, or others, by growing N_pix."""
    catalog = survey.pack.catalog.iloc[survey.sample]
    order = np.argsort(catalog["n_pix_source"].to_numpy(), kind="stable")
    return survey.sample[order][catalog["label"].to_numpy()[order] == label]


def at(rows, fraction):
    """Return the row at a fraction of the way from the first to the last."""
    return rows[round(fraction * (len(rows) - 1))]


def shown(image, bounds=None):
    """Scale an image for display, "normalized individually" (Figure 1).

    Args:
        image: Of one object, maggies, shape (height, width, band).
        bounds: Fluxes at which each band is clipped first, shape (2, bands); None for none.

    Returns:
        Image whose bands each reach from 0 to 1, of the same shape; a band without contrast is 0.
    """
    image = np.asarray(image, np.float64)
    image = image if bounds is None else np.clip(image, *bounds)
    lowest, span = image.min(axis=(0, 1)), np.ptp(image, axis=(0, 1))
    return (image - lowest) / np.where(span == 0, 1, span)


def draw_figure_1(rows, survey, bounds, path):
    """Draw objects in each band and H, J, Y as red, green, blue, without and with pre-processing.

    Args:
        rows: Of the catalog, each of which becomes two rows of images.
        survey: The Survey.
        bounds: {input: (lower, upper)}, maggies, each of shape (bands,).
        path: PNG to write.
    """
    names = (*BANDS["nir"], *BANDS["vis"], "".join(BANDS["nir"]))
    figure, axes = _grid(2 * len(rows), len(names), 2.1)
    for k, row in enumerate(rows):
        for n, (words, limits) in enumerate((("as it is", {}), ("clipped", bounds))):
            nir, vis = (
                shown(survey.pack.batch(name, [row])[0], limits.get(name))
                for name in ("nir", "vis")
            )
            images = [*np.moveaxis(nir, -1, 0), vis[..., 0], nir]
            inputs = ["nir"] * len(BANDS["nir"]) + ["vis", "nir"]
            for each, image, name in zip(axes[2 * k + n], images, inputs):
                _draw(each, image, SCALES[name])
            axes[2 * k + n, 0].set_ylabel(f"{_title(survey, row)}\n{words}", fontsize=8.5)
    for each, name in zip(axes[0], names):
        each.set_title(name)
    figure.suptitle(f"Figure 1: a lens and an object that is none, {survey.title}")
    figures.save(figure, path)


def draw_figure_4(rows, survey, bounds, path):
    """Draw lenses after pre-processing, in VIS and with H, J, Y as red, green, blue.

    Args:
        rows: Of the catalog.
        survey: The Survey.
        bounds: {input: (lower, upper)}, maggies, each of shape (bands,).
        path: PNG to write.
    """
    figure, axes = _grid(2, len(rows), 2.6)
    for place, row in enumerate(rows):
        for each, name in zip(axes[:, place], ("vis", "nir")):
            image = shown(survey.pack.batch(name, [row])[0], bounds[name])
            _draw(each, image.squeeze(), SCALES[name])
        axes[0, place].set_title(_title(survey, row), fontsize=9)
    for each, name in zip(axes[:, 0], ("VIS", "HJY")):
        each.set_ylabel(name)
    figure.suptitle(f"Figure 4: lenses of large $N_{{pix}}$ after pre-processing, {survey.title}")
    figures.save(figure, path)


def _grid(n_rows, n_columns, side):
    figure = Figure(figsize=(side * n_columns + 0.6, side * n_rows + 0.9), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def _draw(axes, image, pixel_scale):
    """Draw an image in [0, 1], centered, with a bar of 5 arcsec."""
    half = image.shape[0] * pixel_scale / 2
    axes.imshow(
        image, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest",
        extent=(-half, half, -half, half),
    )  # fmt: skip
    left, bottom = 0.08 * half - half, 0.1 * half - half
    axes.plot([left, left + 5], [bottom, bottom], color="#ffd600", lw=2, solid_capstyle="butt")
    axes.text(left, bottom + 0.05 * half, "5″", color="#ffd600", fontsize=8)
    axes.set(xticks=[], yticks=[])


def _title(survey, row):
    one = survey.pack.catalog.iloc[row]
    known = [
        f"{symbol} {one[column]:.{digits}f}"
        for symbol, column, digits in (
            ("$N_{pix}$", "n_pix_source", 0),
            ("$\\mu_{eff}$", "mag_eff", 1),
        )
    ]
    word = "lens" if one["label"] else "not a lens"
    return f"{one['object_id']}, {word}\n{', '.join(known)}"
