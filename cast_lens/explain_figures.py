"""Figures of explanations: images with the superpixels that speak for and against a lens."""

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from cast_lens import figures, superpixels
from cast_lens.highlights import most_important
from cast_lens.superpixels import Superpixels

# Bom et al. (2022), Figure 9: green for lenses, yellow for non-lenses.
LENS, NON_LENS, ARC = "#00e676", "#ffd600", "#40c4ff"


@dataclass(frozen=True, eq=False)
class Panel:
    """One object of the figure.

    Attributes:
        object_id: ID.
        image: Stretched to [0, 1], shape (height, width), or (height, width, 3) for colors, on
            the grid of the finest input.
        segments: Superpixels.
        weights: Of an Explanation, shape (superpixels,).
        score: Network output in [0, 1].
        label: Truth, 1 lens, 0 not.
        arc_mask: True arc, bool, shape (height, width); None where unknown.
    """

    object_id: str
    image: np.ndarray
    segments: Superpixels
    weights: np.ndarray
    score: float
    label: int
    arc_mask: np.ndarray | None = None


def draw(panels, path, *, title, undecided, top=2):
    """Draw images with their most important superpixels outlined, as Figure 9 of Bom et al.

    A score above the range `undecided` shows what speaks for a lens, one below it what speaks
    against, and one within it both.

    Args:
        panels: List of Panel, drawn beside one another.
        path: PNG to write.
        title: Names the data, real or stand-in.
        undecided: Lowest and highest score at which both are shown.
        top: Number of superpixels of each kind.

    Reference:
        Bom et al. (2022), Figure 9.
    """
    figure, axes = figures.figure_with_axes(4.1 * len(panels), 5.1, len(panels))
    for panel, each in zip(panels, np.atleast_1d(axes)):
        _draw_panel(each, panel, undecided, top)
    handles = [
        Line2D([], [], color=LENS, lw=2.5, label="speaks for a lens"),
        Line2D([], [], color=NON_LENS, lw=2.5, ls="--", label="speaks against"),
    ]
    if any(panel.arc_mask is not None for panel in panels):
        handles.append(Line2D([], [], color=ARC, lw=1.2, ls=":", label="true arc"))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)
    # Yellow needs a dark ground.
    legend.get_frame().set(facecolor="0.25", edgecolor="none", alpha=1)
    for text in legend.get_texts():
        text.set_color("white")
    figure.suptitle(title)
    figures.save(figure, path)


def _draw_panel(axes, panel, undecided, top):
    labels = panel.segments.labels[panel.segments.finest]
    scale = panel.segments.pixel_scales[panel.segments.finest]
    half = [n * scale / 2 for n in labels.shape]
    axes.imshow(
        panel.image, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest",
        extent=(-half[1], half[1], -half[0], half[0]),
    )  # fmt: skip
    if panel.arc_mask is not None and np.any(panel.arc_mask):
        _outline(axes, panel.arc_mask, scale, colors=ARC, linewidths=1.2, linestyles=":")
    kinds = []
    if panel.score >= undecided[0]:
        kinds.append(("for a lens", panel.weights, LENS, "-"))
    if panel.score <= undecided[1]:
        kinds.append(("against a lens", -np.asarray(panel.weights), NON_LENS, "--"))
    for place, (word, weights, color, style) in enumerate(kinds):
        chosen = most_important(weights, top)
        for superpixel in chosen:
            inside = labels == superpixel
            tint = np.zeros((*inside.shape, 4))
            tint[inside] = to_rgba(color, alpha=0.14)
            axes.imshow(tint, origin="lower", extent=(-half[1], half[1], -half[0], half[0]))
            _outline(axes, inside, scale, colors=color, linewidths=1.8, linestyles=style)
        if not len(chosen):
            text = f"no superpixel speaks {word}"
            at = (0.03, 0.03 + 0.07 * place)
            axes.text(*at, text, color=color, transform=axes.transAxes, fontsize=9)
    truth = "lens" if panel.label else "not a lens"
    axes.set_title(f"{panel.object_id}\nscore {panel.score:.2f}, truth: {truth}", fontsize=11)
    axes.set_xlabel("arcsec")
    axes.locator_params(nbins=5)
    axes.grid(False)


def _outline(axes, mask, scale, **style):
    """Draw the border of a mask, closed at the edge of the image too."""
    padded = np.pad(np.asarray(mask, float), 1)
    row, column = (superpixels.offsets(n, scale) for n in padded.shape)
    axes.contour(column, row, padded, levels=[0.5], **style)
