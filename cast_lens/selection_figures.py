"""Figures of completeness, purity and crossmatch; every title says which data they show."""

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from cast_lens.figures import COLORS, figure_with_axes, save


def completeness(tables, quantities, path, *, title, fits=None):
    """Draw completeness against each quantity, and in cells of two where a table has two.

    Args:
        tables: {"quantity" or "quantity x quantity": table of `completeness_in_bins`}.
        quantities: {quantity: Quantity}.
        path: PNG to write.
        title: Names the data, real or stand-in, and the threshold.
        fits: {quantity: LogisticFit}; what is none of these is not drawn.
    """
    columns = min(len(tables), 3)
    rows = -(-len(tables) // columns)
    figure, axes = figure_with_axes(4.6 * columns, 3.9 * rows)
    figure.clear()
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, table) in zip(panels, tables.items()):
        if " x " in name:
            _draw_plane(figure, axes, name.split(" x "), table, quantities)
        else:
            _draw_bins(axes, name, table, quantities[name], (fits or {}).get(name))
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def purity(found, bins, path, *, title):
    """Draw lenses found and purity against the number inspected, and the reliability diagram.

    Args:
        found: Table of `purity.lenses_found`.
        bins: Table of `purity.reliability`.
        path: PNG to write.
        title: Names the data, real or stand-in.
    """
    figure, (left, middle, right) = figure_with_axes(14.4, 4.6, 3)
    for k, (prevalence, part) in enumerate(found.groupby("prevalence", sort=False)):
        color, x = COLORS[k % len(COLORS)], part["inspected"] * 1.05**k
        for axes, name, ends in (
            (left, "lenses", ("low", "high")),
            (middle, "purity", ("purity_low", "purity_high")),
        ):
            axes.vlines(x, part[ends[0]], part[ends[1]], color=color, lw=1.6)
            axes.plot(x, part[ends[1]], "_", x, part[ends[0]], "_", color=color, ms=7)
            axes.plot(x, part[name], "o", color=color, ms=5, label=f"prevalence {prevalence:g}")
    left.plot([], [], "_", color="0.3", label="bar alone: interval, no estimate")
    every = np.unique(found["inspected"])
    left.plot(every, every, color="0.5", ls=":", label="only lenses")
    left.set(xlabel="objects inspected, best first", ylabel="lenses found (95 %)")
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8)
    middle.set(xlabel="objects inspected, best first", ylabel="purity (95 %)")
    middle.set_yscale("symlog", linthresh=1e-4)  # purities differ by orders of magnitude
    middle.set_ylim(0, 1.2)
    for axes in (left, middle):
        axes.set_xscale("log")
    error = np.abs(bins[["low", "high"]].to_numpy() - bins[["fraction"]].to_numpy()).T
    right.plot([0, 1], [0, 1], color="0.5", ls=":", label="calibrated")
    right.errorbar(bins["probability"], bins["fraction"], error, fmt="o", color=COLORS[0], ms=5,
                   capsize=3, label="bins of equal number, 95 %")  # fmt: skip
    right.set(xlabel="probability, cross-fitted", ylabel="fraction of lenses in the sample")
    right.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def separations(matched, counts, path, *, title):
    """Draw how far known lenses are from their candidates, and what chance would give.

    Args:
        matched: Table of `crossmatch.match`.
        counts: Its MatchCounts.
        path: PNG to write.
        title: Names the candidates and the known lenses.
    """
    figure, axes = figure_with_axes(6.4, 4.2)
    found = matched["known_separation_arcsec"].dropna()
    edges = np.linspace(0, counts.radius_arcsec, 21)
    heights, _ = np.histogram(found, edges)
    axes.stairs(heights, edges, fill=True, alpha=0.8, color=COLORS[0], label=f"{len(found)} pairs")
    # A uniform sky gives pairs in proportion to the area of each ring.
    chance = counts.expected_by_chance * np.diff(edges**2) / edges[-1] ** 2
    label = f"{counts.expected_by_chance:.2g} expected by chance"
    axes.stairs(chance, edges, color=COLORS[1], lw=1.8, label=label)
    axes.set(xlabel="separation (arcsec)", ylabel="pairs", xlim=(0, counts.radius_arcsec))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(title, fontsize=11)
    save(figure, path)


def _draw_bins(axes, name, table, quantity, fit):
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    is_log = quantity.is_log and bool((high > 0).all())
    first = high.min() / 2  # on a logarithmic axis 0 is nowhere: the bin is drawn from here
    low = low.where(low > 0, np.minimum(first, low + first)) if is_log else low
    center = table[f"{name}_median"]
    center = center.where(center > 0, low) if is_log else center
    known = table["status"] == "measured"
    for k in table.index[~known]:
        axes.axvspan(low[k], high[k], facecolor="0.92", edgecolor="0.6", hatch="//", lw=0)
    if not known.all():
        axes.fill_between([], [], [], facecolor="0.92", edgecolor="0.6", hatch="//",
                          label="no lens: undefined")  # fmt: skip
    if hasattr(fit, "at"):
        space = np.geomspace if fit.is_log else np.linspace
        x = space(low[known].min(), high[known].max(), 200)  # not beyond the lenses
        middle, bottom, top = fit.at(x)
        axes.fill_between(x, bottom, top, color=COLORS[1], alpha=0.25, lw=0)
        axes.plot(x, middle, color=COLORS[1], label=f"logistic curve, p = {fit.p:.2g}")
    part = table[known]
    axes.hlines(part["completeness"], low[known], high[known], color=COLORS[0], lw=1.2)
    axes.vlines(center[known], part["low"], part["high"], color=COLORS[0], lw=1.6)
    axes.plot(center[known], part["completeness"], "o", color=COLORS[0], ms=5, label="bins, 95 %")
    if is_log:
        axes.set_xscale("log")
        ratio = high.max() / low.min()
        steps = (1, 2, 3, 4, 5, 7) if ratio < 12 else (1, 2, 5) if ratio < 100 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    _dress(axes)
    axes.set(xlabel=_words(quantity), ylabel="completeness", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8)


def _draw_plane(figure, axes, names, table, quantities):
    edges = [np.append(np.unique(table[f"{name}_low"]), table[f"{name}_high"].max())
             for name in names]  # fmt: skip
    values = table["completeness"].to_numpy().reshape([len(e) - 1 for e in edges])
    # In equal cells: bins of equal number can be too narrow for their numbers.
    places = [np.arange(len(e)) for e in edges]
    image = axes.pcolormesh(*places, np.ma.masked_invalid(values.T), vmin=0, vmax=1, cmap="viridis")
    axes.patch.set(facecolor="0.92", edgecolor="0.6", hatch="//")
    counts = table["n_lenses"].to_numpy().reshape(values.shape)
    for (i, j), n in np.ndenumerate(counts):
        ink = "white" if values[i, j] < 0.6 else "black"
        axes.text(i + 0.5, j + 0.5, n, ha="center", va="center", fontsize=8, color=ink)
    for axis, place, edge in zip((axes.xaxis, axes.yaxis), places, edges):
        axis.set_ticks(place, [f"{value:.3g}" for value in edge])
    figure.colorbar(image, ax=axes, label="completeness (numbers: lenses)")
    axes.grid(False)
    axes.set(xlabel=_words(quantities[names[0]]), ylabel=_words(quantities[names[1]]))


def _dress(axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


def _words(quantity):
    return quantity.words + (f" ({quantity.unit})" if quantity.unit else "")
