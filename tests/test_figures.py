"""Figures that all papers save the same way."""

import pytest

from cast_lens import figures


@pytest.mark.parametrize("name, whole", [("epoch", True), ("threshold", False)])
def test_epochs_are_marked_with_whole_numbers(tmp_path, name, whole):
    figure, axes = figures.figure_with_axes(6, 4)
    axes.plot([1, 2, 3], [0.5, 0.6, 0.7])
    axes.set(xlabel=name)
    figures.save(figure, tmp_path / "f.png")
    assert all(place == int(place) for place in axes.get_xticks()) == whole
