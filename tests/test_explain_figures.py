"""Figures of explanations: which superpixels are outlined in which color."""

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from cast_lens import explain_figures, figures
from cast_lens.superpixels import Superpixels

LENS, NON_LENS, ARC = explain_figures.LENS, explain_figures.NON_LENS, explain_figures.ARC


def panel(score, weights=(0.5, -0.4, 0.1, -0.2), *, mask=None, shape=(20, 20)):
    row, column = np.indices(shape) // 10
    segments = Superpixels({"vis": 2 * row + column}, 4, "vis", {"vis": 0.1})
    sky = np.random.default_rng(0).random(shape)
    return explain_figures.Panel("200123", sky, segments, np.array(weights), score, 1, mask)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw and return the Figure."""

    def draw(*panels, **settings):
        kept = []
        monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
        settings = {"title": "stand-in data", "undecided": (0.3, 0.7)} | settings
        explain_figures.draw(list(panels), tmp_path / "figure.png", **settings)
        return kept[0]

    return draw


def outlines(axes):
    """{color: corners (x low, x high, y low, y high) of each outline, arcsec}."""
    found = {}
    for contour in axes.collections:
        name = next(
            c for c in (LENS, NON_LENS, ARC) if to_rgb(c) == tuple(contour.get_edgecolor()[0][:3])
        )
        points = np.concatenate([path.vertices for path in contour.get_paths()])
        box = np.column_stack([points.min(axis=0), points.max(axis=0)]).round(6).ravel()
        found.setdefault(name, []).append(box.tolist())
    return found


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.9, {LENS: 2}),
        (0.1, {NON_LENS: 2}),
        (0.5, {LENS: 2, NON_LENS: 2}),
        (0.3, {LENS: 2, NON_LENS: 2}),
    ],
)
def test_what_is_outlined_follows_from_the_score(drawn, score, expected):
    figure = drawn(panel(score))
    assert {color: len(boxes) for color, boxes in outlines(figure.axes[0]).items()} == expected


def test_outline_is_where_the_superpixel_is_on_the_sky(drawn):
    """The first row of an image is at the bottom, as in the FITS files."""
    found = outlines(drawn(panel(0.9), top=1).axes[0])
    assert found == {LENS: [[-1, 0, -1, 0]]}
    found = outlines(drawn(panel(0.1), top=1).axes[0])
    assert found == {NON_LENS: [[0, 1, -1, 0]]}


def test_where_nothing_speaks_for_the_class_the_figure_says_so(drawn):
    axes = drawn(panel(0.9, weights=(-1, -1, -1, -1))).axes[0]
    assert outlines(axes) == {}
    assert [text.get_text() for text in axes.texts] == ["no superpixel speaks for a lens"]


def test_arc_score_truth_and_data_are_named(drawn):
    mask = np.zeros((20, 20), bool)
    mask[5:8, 5:9] = True
    figure = drawn(panel(0.913, mask=mask), panel(0.2))
    assert outlines(figure.axes[0])[ARC] == [[-0.5, -0.1, -0.5, -0.2]]
    assert ARC not in outlines(figure.axes[1])
    assert figure.axes[0].get_title() == "200123\nscore 0.91, truth: lens"
    assert figure.get_suptitle() == "stand-in data"
    assert "true arc" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_png_is_written_with_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        explain_figures.draw([panel(0.9)], tmp_path / name, title="stand-in", undecided=(0.3, 0.7))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert image.imread(tmp_path / "a.png").shape[2] in (3, 4)
