"""Candidates become one page that a person grades in a browser; the labels come back as CSV."""

import base64
import hashlib
import io
import json
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import scores, text_tables
from cast_lens.run import write_whole

# What a grade says to `rank` and `adapt`: 1 lens, 0 not, None neither.
GRADES = {"A": 1, "B": 1, "C": None, "X": 0}
STRETCHES = ("linear", "asinh", "sqrt")  # ASSUMED: core, arcs and halo are each seen in one
BUDGET = 60_000_000  # ASSUMED: bytes of a page that a laptop of ten years opens at once

_WAVELENGTHS = ("u", "g", "r", "i", "z", "vis", "y", "j", "h", "k")  # ascending; VIS: r to z
_STEPS = 4  # a noise level, as fpack stores images; Pence, Seaman & White (2010)
_Q = 8.0  # the default of astropy and of Lupton's code
_NOISE_AT = 9.0  # ASSUMED: one noise level is drawn at 1/9, seen but dark
_FAINTEST = 10.0  # ASSUMED: noise levels that may be white; noise itself must not look like light
_BRIGHTEST = 1e7  # ASSUMED: noise levels of no star in a cutout; brighter is a mask value, white
_SAMPLE = 64  # ASSUMED: objects that set the color balance of a page


class GradingError(ValueError):
    """Candidates that cannot be put on a page; says what to do."""


@dataclass(frozen=True)
class GradingPage:
    """What was written: the page, its objects, those of them without an image, bytes, its key."""

    path: Path
    n: int
    n_without_image: int
    size: int
    key: str


def grade(
    candidates, images, output, *, first=1, n=None, stretches=STRETCHES, colors=None, side=None,
    strict=False,
):  # fmt: skip
    """Write one self-contained page to grade candidates with the keyboard.

    The page shows no truth label, loads nothing, and has the same bytes for the same input.

    Args:
        candidates: Table of `candidates.read`, at least object_id and rank.
        images: Images of `images.find`; objects that are no candidates are not read.
        output: HTML file to write.
        first: First rank to show.
        n: Number of candidates to show; None for all from `first` on.
        stretches: Names of one or more of linear, asinh, sqrt, log.
        colors: Bands drawn as red, green and blue; None for the three reddest of one shape.
        side: Show only the central square of so many pixels; None for the whole image.
        strict: Raise if an image cannot be read, instead of saying so on the page.

    Returns:
        GradingPage.

    Raises:
        GradingError: If no candidate is left or has an image, an ID is empty, cannot be seen or
            is there twice, or a stretch or band is unknown.

    Warns:
        UserWarning: If the page is larger than `BUDGET` bytes.
    """
    from tqdm import tqdm

    chosen = _choose(candidates, first, n)
    _check_names(stretches, list(_stretches()), "stretch")
    positions = {object_id: k for k, object_id in enumerate(images.table["object_id"])}
    where = [positions.get(object_id) for object_id in chosen["object_id"]]
    read = _reader(images, side, strict)
    colors, scale = _balance(read, [k for k in where if k is not None][:_SAMPLE], colors)
    rows, blocks, bands = [], [], []
    for row, k in zip(chosen.to_dict("records"), tqdm(where, desc="stamps", leave=False)):
        found, flags, problem = read(k)
        stamps = [_stamp(b, image, size, stretches) for b, (image, size) in found.items()]
        color = _composite(found, colors, scale)
        bands += [band for band in found if band not in bands]
        rows.append({"id": row["object_id"], "facts": _facts(row, flags), "problem": problem})
        blocks.append({"stamps": stamps, "color": color})
    missing = sum(bool(row["problem"]) for row in rows)
    if missing == len(rows):
        raise GradingError(f"{images.source}: {rows[0]['problem']} of {rows[0]['id']}, nor of any "
                           "other candidate; name the images that were scored")  # fmt: skip
    # With the weights: the tracks of a challenge give the same IDs to different objects.
    told = chosen[[name for name in ("object_id", "weights") if name in chosen]]
    key = hashlib.sha256(json.dumps(told.to_numpy().tolist()).encode()).hexdigest()[:16]
    about = {
        "key": key,
        "stretches": stretches,
        "bands": bands,
        "colors": colors,
        "side": side,
        "rows": rows,
    }
    page = _page(about, blocks).encode("ascii")
    if len(page) > BUDGET:
        warnings.warn(f"{output}: {len(page) / 1e6:.0f} MB, more than the {BUDGET / 1e6:.0f} MB a "
                      "browser opens at once; take fewer candidates (first=, n=), fewer pixels "
                      "(side=) or fewer stretches", stacklevel=2)  # fmt: skip
    write_whole(output, page)
    return GradingPage(Path(output), len(rows), missing, len(page), key)


def read_labels(path):
    """Read the labels a grading page exported, or any table of object_id and label.

    Args:
        path: CSV with the columns object_id, label and, unless every label is 0 or 1, grade;
            further columns are ignored.

    Returns:
        DataFrame in the order of the file: object_id (str), label (Int64; 1 lens, 0 not, <NA> for
        grade C, which says neither), grade ("A", "B", "C", "X"; "" without that column).

    Raises:
        CatalogError: If the file is no such table, an object is there twice, a grade is unknown,
            or a label contradicts its grade; names the line.
    """
    table = text_tables.read_text_table(path)
    at = table.header.index("object_id") if table.header.count("object_id") == 1 else None
    if at is not None:
        for fields in table.rows:
            fields[at] = scores.unescape_cell(fields[at])
    object_ids = text_tables.object_ids(table, "object_id")
    if "grade" not in table.header:
        labels, grades = text_tables.labels(table, "label"), [""] * len(object_ids)
    else:
        grades = [text.strip().upper() for text in text_tables.texts(table, "grade")]
        cells = [text.strip().removesuffix(".0") for text in text_tables.texts(table, "label")]
        for row, (given, cell) in enumerate(zip(grades, cells)):
            if given not in GRADES:
                expected = f"a grade of {', '.join(GRADES)}; mend it, or remove the row"
                raise text_tables.cell_error(table, row, "grade", expected)
            label = "" if GRADES[given] is None else str(GRADES[given])
            if cell != label:
                expected = f"{label or 'no label'} for grade {given}; mend one of the two"
                raise text_tables.cell_error(table, row, "label", expected)
        labels = [GRADES[given] for given in grades]
    return pd.DataFrame(
        {"object_id": object_ids, "label": pd.array(labels, dtype="Int64"), "grade": grades}
    )


def labelled(table, labels):
    """Return the objects of a table that have a label elsewhere, with that; perhaps none.

    Args:
        table: DataFrame with object_id.
        labels: DataFrame of `read_labels`, or of several tables of it.

    Returns:
        Rows of `table`, in its order and numbered anew, with label (int64; 1 lens, 0 not).
    """
    known = table["object_id"].map(labels.dropna(subset=["label"]).set_index("object_id")["label"])
    kept = table[known.notna()].assign(label=known[known.notna()].astype("int64"))
    return kept.reset_index(drop=True)


def _choose(candidates, first, n):
    if first < 1 or (n is not None and n < 1):
        raise GradingError(f"found first = {first} and n = {n}, expected whole numbers from 1")
    chosen = candidates[candidates["rank"] >= first].sort_values("rank", kind="stable")[:n]
    if chosen.empty:
        raise GradingError(f"found {len(candidates)} candidates, none of rank {first} or further "
                           "down; start at a smaller rank")  # fmt: skip
    for name in chosen["object_id"]:
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise GradingError(f"object_id {name!r}: expected visible text; rename the object")
    twice = chosen["object_id"].duplicated()
    if twice.any():
        name = chosen["object_id"][twice].iloc[0]
        raise GradingError(f"object_id {name} is there twice, expected once; remove one row")
    return chosen


def _check_names(given, known, what):
    wrong = [name for name in given if name not in known]
    if wrong or not given or len(set(given)) < len(given):
        found = repr(wrong[0]) if wrong else repr(list(given))
        raise GradingError(f"{what}: found {found}, expected some of {', '.join(known)}, each once")


def _reader(images, side, strict):
    """Return a function: position -> ({band: (image, pixel_scale)}, flags, problem)."""
    from cast_lens.images import read_native

    def read(position):
        if position is None and not strict:
            return {}, "", f"there is no image in {images.source}"
        try:
            if position is None:
                raise GradingError(f"{images.source}: found no image of a candidate; name the "
                                   "images that were scored")  # fmt: skip
            found, flags = read_native(images, position)
        except (ValueError, OSError) as error:
            if strict:
                raise
            return {}, "", f"the image cannot be read: {error}"
        return {band: (_center(image, side), s) for band, (image, s) in found.items()}, flags, ""

    return read


def _center(image, side):
    if side is None:
        return image
    top, left = (max(0, (length - side) // 2) for length in image.shape)
    return image[top : top + side, left : left + side]


def _stretches():
    """Return {name: (stretch, lowest and highest percentile of the pixels it shows)}."""
    from astropy import visualization as v

    # ASSUMED: the limits show the sky as dark gray and clip what each stretch cannot show
    return {
        "linear": (v.LinearStretch(), 1.0, 99.0),
        "asinh": (v.AsinhStretch(0.1), 25.0, 99.95),
        "sqrt": (v.SqrtStretch(), 25.0, 99.8),
        "log": (v.LogStretch(300.0), 25.0, 99.95),
    }


def _sky_and_noise(values):
    from astropy.stats import mad_std

    sky, noise = float(np.median(values)), float(mad_std(values))
    return sky, noise or float(values.std()) or 1.0


def _stamp(band, image, pixel_scale, stretches):
    """Return one band as a PNG of at most 255 flux levels, and each stretch as gray of a level.

    The levels are even in asinh(flux / 4 noise), so near the sky they are a fourth of the noise
    apart or, in an image that needs more than 255 of these, as close as 255 allow. Level 0 is a
    pixel without a number. The first row of the array is the lowest of the PNG.
    """
    from astropy.visualization import ManualInterval

    finite = np.isfinite(image)
    values = image[finite].astype(np.float64)
    sky, noise = _sky_and_noise(values) if values.size else (0.0, 1.0)
    values = np.clip(values, sky - _BRIGHTEST * noise, sky + _BRIGHTEST * noise)
    curve = np.arcsinh((values - sky) / (4 * noise))
    low, high = (curve.min(), curve.max()) if values.size else (0.0, 0.0)
    step = max((high - low) / 254, 1 / (4 * _STEPS))
    levels = np.zeros(image.shape, np.uint8)
    levels[finite] = 1 + np.rint((curve - low) / step)
    flux = sky + 4 * noise * np.sinh(low + step * np.arange(-1, 255))
    values = values[values < sky + _BRIGHTEST * noise]
    tables = []
    for name in stretches:
        stretch, *percentiles = _stretches()[name]
        lowest, highest = np.percentile(values, percentiles) if values.size else (0.0, 1.0)
        if name != "linear":
            highest = max(highest, sky + _FAINTEST * noise)
        gray = np.rint(255 * stretch(ManualInterval(lowest, highest)(flux))).astype(np.uint8)
        gray[0] = 0
        tables.append(base64.b64encode(gray.tobytes()).decode())
    height, width = image.shape
    size = f"{width * pixel_scale:.1f}″ wide" if pixel_scale else f"{width} × {height} pixels"
    return {"band": band, "size": size, "png": _png(levels), "tables": tables}


def _png(pixels):
    """Return an image, first row lowest, as a PNG in base64."""
    from PIL import Image

    image, stream = Image.fromarray(np.ascontiguousarray(pixels[::-1])), io.BytesIO()
    if pixels.ndim == 3:  # (height, width, color); 256 colors cost less than half of all
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(stream, "png", compress_type=zlib.Z_FILTERED)
    return base64.b64encode(stream.getvalue()).decode()


def _balance(read, positions, colors):
    """Choose three bands, and the flux of each that is drawn equally bright on this page.

    One balance for all candidates: colors can be compared between them. A source of the median
    color of the first candidates, by the 99.5th percentile of the pixels above the sky, is gray.
    """
    if colors is not None and (len(colors) != 3 or len(set(colors)) != 3):
        raise GradingError(f"colors: found {list(colors)}, expected three bands: red, green, blue")
    fluxes: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for position in positions:
        found, _, _ = read(position)
        names = _colors(found) if colors is None else list(colors)
        if colors is not None and found:
            _check_names(names, list(found), "colors")
        if names:
            for name in names:
                values = found[name][0][np.isfinite(found[name][0])].astype(np.float64)
                sky, noise = _sky_and_noise(values) if values.size else (0.0, 0.0)
                peak = np.percentile(values, 99.5) - sky if values.size else 0.0
                fluxes.setdefault(tuple(names), []).append((name, max(peak, noise)))
    if not fluxes:
        return None, {}
    chosen = max(fluxes, key=lambda key: len(fluxes[key]))
    table = pd.DataFrame(fluxes[chosen], columns=["band", "flux"])
    return list(chosen), table[table["flux"] > 0].groupby("band")["flux"].median().to_dict()


def _colors(found):
    """Return the three reddest bands of one shape, reddest first, or None."""
    known = [band for band in found if band.lower() in _WAVELENGTHS]
    for shape in {image.shape: None for image, _ in found.values()}:
        same = [band for band in known if found[band][0].shape == shape]
        if len(same) >= 3:
            return sorted(same, key=lambda b: -_WAVELENGTHS.index(b.lower()))[:3]
    return None


def _composite(found, colors, scale):
    """Return the color composite after Lupton et al. (2004) as a PNG in base64, or None."""
    from astropy.visualization import make_lupton_rgb

    if not colors or not set(colors) <= set(found) or not set(colors) <= set(scale):
        return None
    if len({found[band][0].shape for band in colors}) > 1:
        return None
    channels = []
    for band in colors:
        image = np.asarray(found[band][0], np.float64)
        finite = np.isfinite(image)
        sky = np.median(image[finite]) if finite.any() else 0.0
        channels.append(np.where(finite, image - sky, 0) / scale[band])
    _, noise = _sky_and_noise(np.mean(channels, axis=0))
    return _png(make_lupton_rgb(*channels, minimum=-noise, stretch=_NOISE_AT * noise, Q=_Q))


def _facts(row, flags):
    """Return what the page tells about one candidate as (name, text) in the order shown."""
    number = {k: v for k, v in row.items() if isinstance(v, (int, float)) and np.isfinite(v)}
    facts = [("rank", f"{number['rank']:.0f}")]
    for name, form in (("probability", ".3f"), ("spread", ".3f"), ("score", ".5f")):
        if name in number:
            facts.append((name, format(number[name], form)))
    if "probability" not in number:
        facts.append(("probability", "not calibrated"))
    if "ra" in number and "dec" in number:
        facts.append(("RA, Dec (deg)", f"{number['ra']:.6f} {number['dec']:+.6f}"))
    words = row.get("flags") if isinstance(row.get("flags"), str) else ""
    words = [word for word in f"{words};{flags}".split(";") if word]
    return [*facts, ("flags", " ".join(dict.fromkeys(words)) or "none")]


def _page(about, blocks):
    """Return the page, ASCII alone; what comes from outside is JSON in which no tag can begin."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    source, _, _ = loader.get_source(environment, "grade.html")
    hashes = {}
    for kind in ("script", "style"):
        (code,) = re.findall(rf"<{kind}>(.*?)</{kind}>", source, re.DOTALL)
        digest = hashlib.sha256(code.encode()).digest()
        hashes[kind] = f"'sha256-{base64.b64encode(digest).decode()}'"
    return environment.get_template("grade.html").render(
        about=_inert(about), blocks=map(_inert, blocks), hashes=hashes
    )


def _inert(value):
    import markupsafe

    text = json.dumps(value, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return markupsafe.Markup(text)
