"""A figure ready to be embedded in a page, with the kind of its data written on it."""

import io
import struct
from dataclasses import dataclass

import matplotlib

from cast_lens.run import RunError

SIZE = 5.0, 3.6  # inches, without the legend below: text can be read in a third of a page
SVG_BYTES = 120_000  # ASSUMED: above, a picture is smaller and scrolls better on a phone
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawing:
    """A figure, ready to be embedded.

    Attributes:
        title: What it shows.
        about: What a reader should know beside it.
        data: "real", "stand-in", "real and stand-in" or "unknown".
        media: MIME type.
        content: The bytes of the file.
        size: Width and height in CSS pixels.
    """

    title: str
    about: str
    data: str
    media: str
    content: bytes
    size: tuple[int, int]


def finish(figure, title, about, data):
    """Put title, legend and the kind of data on a figure.

    Args:
        figure: Of `figures.figure_with_axes`, with one panel; changed.
        title: What it shows.
        about: What a reader should know beside it.
        data: As in `Drawing`; all but "real" is written across the panel.

    Returns:
        A Drawing.
    """
    figure.suptitle(plain(title), fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(handles):
        figure.set_size_inches(SIZE[0], SIZE[1] + 0.18 * (len(handles) + 1))
        figure.legend(loc="outside lower left", frameon=False, fontsize=8, ncols=1)
    if data != "real":
        word = {"stand-in": "STAND-IN DATA", "unknown": "DATA UNKNOWN"}.get(data, "PARTLY STAND-IN")
        axes = figure.axes[0]
        axes.set_title(word, fontsize=10, color="#b3261e", fontweight="bold")
        axes.text(0.5, 0.5, word, transform=axes.transAxes, rotation=28, fontsize=34, alpha=0.13,
                  ha="center", va="center", color="#b3261e", fontweight="bold")  # fmt: skip
    media, content = _encode(figure)
    width, height = figure.get_size_inches() * 100
    return Drawing(title, about, data, media, content, (round(width), round(height)))


def plain(text):
    """Return text of which Matplotlib takes nothing for a formula, or for a label to hide."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def png_size(path):
    """Return width and height of a PNG file in pixels.

    Raises:
        RunError: If it is none.
    """
    with open(path, "rb") as stream:
        head = stream.read(24)
    if head[:8] != _PNG or len(head) < 24:
        raise RunError(f"{path} begins with {head[:8]!r}, expected a PNG file; draw it again")
    return struct.unpack(">II", head[16:24])


def _encode(figure):
    """Return a figure as SVG with text as text, or as PNG where that is large and PNG smaller."""
    # The salt makes the names of clip paths, and so the bytes, the same each time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cast_lens"}):
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    vector = stream.getvalue()
    if len(vector) <= SVG_BYTES:
        return "image/svg+xml", vector
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    picture = stream.getvalue()
    return ("image/png", picture) if len(picture) < len(vector) else ("image/svg+xml", vector)
