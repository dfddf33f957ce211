"""Why candidates were ranked as they were: three explanations of each, side by side.

    <folder>/<rank>-<id>.png      the image, LIME, occlusion and Grad-CAM on the sky
    <folder>/explanations.csv     a row an object and method, see `COLUMNS`
    <folder>/.explain/            what is finished; a killed run goes on there

All three explain the logit of a lens, log(p / (1 - p)), because a score near 0 or 1 is saturated
and no linear model, and no hidden box, shows much of it.
"""

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from scipy import stats
from tqdm import tqdm

from cast_lens import class_activation, explain, figures, highlights, run, superpixels
from cast_lens.explain_figures import LENS
from cast_lens.fits_image import CutoutError
from cast_lens.images import fingerprint, in_order, read_for, taken
from cast_lens.pack_files import csv_text
from cast_lens.scores import escape_cell

METHODS = ("LIME", "occlusion", "Grad-CAM")
COLUMNS = (
    "object_id", "rank", "method", "logit", "stability", "stability_over", "jaccard",
    "jaccard_chance", "agreement", "highlighted_share", "distance", "r2", "note",
)  # fmt: skip
CSV, WORK = "explanations.csv", ".explain"
# ASSUMED: Bom et al. (2022) name no segmentation
SEGMENT = partial(superpixels.slic, n_segments=80, compactness=0.1, sigma=1.0)
BOXES = 10  # ASSUMED: boxes of occlusion along a side; each is moved by half of itself


class ExplainError(run.RunError):
    """Candidates that cannot be explained; says which, what was found and what to do."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers besides network and images.

    Attributes:
        n_samples: Of LIME.
        repeats: Explanations by LIME with different seeds, at least 2.
        top: Superpixels that are highlighted, two in Bom et al. (2022).
        seed: Of the samples; those of an object hang on it and the object_id alone.
        engine: As for `networks.lens_logits`.
    """

    n_samples: int = 500
    repeats: int = 2
    top: int = 2
    seed: int = 0
    engine: str = "auto"


@dataclass(frozen=True, eq=False)
class Explained:
    """An object, explained.

    Attributes:
        display: Image on the finest grid, in [0, 1], shape (height, width) or (..., 3).
        segments: Superpixels.
        logit: Of the object as it is.
        maps: {method: evidence for a lens, shape (height, width), log odds; of LIME a superpixel,
            of occlusion a box, of Grad-CAM an arcsec^2}.
        rows: List of dict of the numbers of `COLUMNS`, one for each of `METHODS`.
    """

    display: np.ndarray
    segments: superpixels.Superpixels
    logit: float
    maps: dict[str, np.ndarray]
    rows: list[dict]


def explain_object(network, logits, images, object_id, settings):
    """Explain one object in three ways and measure how far to trust each.

    The stability of LIME is over seeds. Occlusion and Grad-CAM have none: theirs is over the
    object and its mirror image, which is as good an image of the same sky.

    Args:
        network: networks.Network.
        logits: Function of {branch: batch of images} that returns logits, shape (batch,).
        images: {branch: float32, shape (side, side, band)} of the object.
        object_id: Its ID.
        settings: Settings.

    Returns:
        Explained.

    Raises:
        ValueError: As `explain.lime` and `explain.occlusion`.
    """
    scales = {b.name: b.pixel_scale for b in network.branches}
    finest = superpixels.check_images(images, scales)
    lower, upper = _range(network, images, finest)
    shown = partial(_shown, lower=lower, upper=upper)
    segments = superpixels.divide(images, scales, stretch=shown, segment=SEGMENT)
    fill = {name: np.median(image, axis=(0, 1)) for name, image in images.items()}  # the sky
    mirrored = {name: np.ascontiguousarray(x[:, ::-1]) for name, x in images.items()}
    word = int(hashlib.sha256(object_id.encode()).hexdigest()[:8], 16)
    limes = [
        explain.lime(logits, images, segments, seed=[settings.seed, word, k], fill=fill,
                     n_samples=max(settings.n_samples, 2 * segments.n), progress=False)
        for k in range(settings.repeats)
    ]  # fmt: skip
    labels = segments.labels[finest]
    weights = {"LIME": np.stack([one.weights for one in limes])}
    maps, notes = {"LIME": weights["LIME"].mean(axis=0)[labels]}, {}
    box = min(b.side * b.pixel_scale for b in network.branches) / BOXES
    hide = partial(explain.occlusion, logits, pixel_scales=scales, box=box, step=box / 2,
                   progress=False)  # fmt: skip
    pairs = {"occlusion": (hide(images, fill=fill), hide(mirrored, fill=fill)[:, ::-1])}
    try:
        pairs["Grad-CAM"] = tuple(_class_maps(network, images, mirrored, segments))
    except ValueError as error:  # which says what the network ends in
        notes["Grad-CAM"] = str(error)
    for method, pair in pairs.items():
        maps[method] = np.mean(pair, axis=0)
        weights[method] = np.stack(
            [superpixels.mean_of_each(each, labels, segments.n) for each in pair]
        )
    rows = [_row(method, weights, segments, settings, notes) for method in METHODS]
    rows[0]["r2"] = float(np.mean([one.r2 for one in limes]))
    return Explained(shown(images[finest]).squeeze(), segments, limes[0].score, maps, rows)


def draw(explained, path, *, title, pixel_scale, top=2):
    """Draw an object and its three maps: red speaks for a lens, blue against.

    Args:
        explained: Explained.
        path: PNG to write.
        title: Names the object.
        pixel_scale: Of the finest grid, arcsec.
        top: Superpixels that are outlined.
    """
    figure, panels = figures.figure_with_axes(16, 4.2, 1 + len(METHODS))
    shape = explained.display.shape[:2]
    half = [n * pixel_scale / 2 for n in shape]
    place = {"origin": "lower", "extent": (-half[1], half[1], -half[0], half[0])}
    labels = explained.segments.labels[explained.segments.finest]
    gray = explained.display if explained.display.ndim == 2 else explained.display.mean(axis=-1)
    for axes in panels:
        axes.grid(False)
        axes.set_xlabel("arcsec")
        axes.locator_params(nbins=5)
    panels[0].imshow(explained.display, cmap="gray", vmin=0, vmax=1, **place)
    panels[0].set_title(f"image, logit {explained.logit:.2f}", fontsize=11)
    units = {"LIME": "a superpixel", "occlusion": "hidden with a box", "Grad-CAM": "an arcsec²"}
    for axes, row in zip(panels[1:], explained.rows):
        method = row["method"]
        axes.imshow(gray, cmap="gray", vmin=0, vmax=1, **place)
        if method not in explained.maps:
            axes.set_title(f"{method}: not for this network", fontsize=11)
            continue
        values = explained.maps[method]
        limit = float(np.abs(values).max()) or 1.0
        colors = ScalarMappable(Normalize(-limit, limit), "coolwarm")
        # As opaque as it is strong, so that the sky is seen where nothing speaks.
        axes.imshow(colors.to_rgba(values), alpha=0.75 * np.abs(values) / limit, **place)
        figure.colorbar(colors, ax=axes, shrink=0.8, label=f"log odds {units[method]}")
        means = superpixels.mean_of_each(values, labels, explained.segments.n)
        for superpixel in highlights.most_important(means, top):
            inside = np.pad((labels == superpixel).astype(float), 1)
            row_at, column_at = (superpixels.offsets(n, pixel_scale) for n in inside.shape)
            axes.contour(column_at, row_at, inside, levels=[0.5], colors=LENS, linewidths=1.6)
        axes.set_title(
            f"{method}, stability {row['stability']:.2f}\n(over {row['stability_over']})",
            fontsize=11,
        )
    figure.suptitle(title.replace("$", r"\$"), fontsize=12)
    figures.save(figure, path)


def explain_candidates(
    table, images, network, folder, *, object_ids=None, first=1, n=8, settings=None, take=None,
    clip=None, strict=False, restart=False, progress=True, dry_run=False,
):  # fmt: skip
    """Explain candidates, one picture each, or go on doing so.

    Args:
        table: Candidates, as `candidates.read` returns them.
        images: Images of these.
        network: networks.Network.
        folder: Where to.
        object_ids: Which; None for `n` from rank `first` on.
        first: See object_ids.
        n: See object_ids.
        settings: Settings.
        take: As for `images.in_order`.
        clip: {branch: {band: (lower, upper)}} of run.json, where the images were scored with
            their own fluxes; None for those of the network.
        strict: Whether an object that cannot be used is an error.
        restart: Explain anew what is in the folder.
        progress: Whether to show a progress bar.
        dry_run: Write nothing and return the rows of the table that would be explained.

    Returns:
        DataFrame of `COLUMNS`, of all that was ever explained in the folder.

    Raises:
        ExplainError: If an object is not among candidates or images, or cannot be used, or the
            folder holds something else.
        ImagesError: If the images lack a band.
        RunError: If the folder was begun with another network, other images or settings.
    """
    settings = settings or Settings()
    chosen = choose(table, object_ids, first, n)
    if dry_run:
        return chosen
    from cast_lens import networks

    take = taken(images, network.branches, in_order(network.branches, take))
    positions = dict(zip(images.table["object_id"], itertools.count()))
    folder = Path(folder)
    run.refuse_foreign(folder, WORK, what="explanations", error=ExplainError)
    with run.hold(folder):
        if restart:
            for path in [*(folder / WORK).glob("*"), *folder.glob(f"{'[0-9]' * 7}-*.png")]:
                path.unlink()
        run.claim(folder / WORK / "identity.json",
                  _identity(table, images, network, settings, take, clip),
                  "Use --restart, or another folder.")  # fmt: skip
        if clip:
            _reclip(network, clip)
        logits = networks.lens_logits(network, settings.engine)
        for row in tqdm(list(chosen.itertuples()), "explain", unit="object", leave=False,
                        disable=not progress):  # fmt: skip
            done = folder / WORK / f"{row.rank:07}.json"
            if done.exists() and _picture(folder, row).exists():
                continue
            found = _explain_row(row, positions, images, network, logits, take, settings, folder)
            if strict and found[0]["note"].startswith("left out"):
                raise ExplainError(f"object_id {row.object_id}: {found[0]['note']}")
            run.write_whole(done, json.dumps(found) + "\n")
        return _write_table(folder)


def choose(table, object_ids=None, first=1, n=8):
    """Return the rows of candidates with some IDs, or from a rank on.

    Raises:
        ExplainError: If an ID is not there, or there is no candidate of such a rank.
    """
    if object_ids is None:
        chosen = table[table["rank"] >= first].head(n)
        if not len(chosen):
            raise ExplainError(f"first is {first}, expected a rank of 1 to {len(table)}")
        return chosen
    absent = [name for name in object_ids if name not in set(table["object_id"])]
    if absent:
        raise ExplainError(
            f"object_id {absent[0]} and {len(absent) - 1} others are not among {len(table)} "
            f"candidates (the first is {table['object_id'].iloc[0]}); write them as there"
        )
    return table[table["object_id"].isin(object_ids)]


def _explain_row(row, positions, images, network, logits, take, settings, folder):
    """Explain a candidate and draw it; return its rows of the table."""
    if row.object_id not in positions:
        raise ExplainError(
            f"object_id {row.object_id}: no such object among {len(images)} of {images.source}, "
            "expected the images that were scored; name them with --images"
        )
    arrays, _, failed = read_for(images, [positions[row.object_id]], network.branches, take=take)
    about = {"object_id": row.object_id, "rank": int(row.rank)}
    if failed:
        error: CutoutError = failed[0]
        return [about | {"method": "", "note": f"left out: {error}"}]
    found = explain_object(network, logits, {k: x[0] for k, x in arrays.items()}, row.object_id,
                           settings)  # fmt: skip
    finest = min(network.branches, key=lambda b: b.pixel_scale)
    title = f"{row.object_id}, rank {row.rank}, network {network.name}"
    draw(found, _picture(folder, row), title=title, pixel_scale=finest.pixel_scale,
         top=settings.top)  # fmt: skip
    return [about | {"logit": found.logit} | one for one in found.rows]


def _write_table(folder):
    rows = []
    for path in sorted((folder / WORK).glob("[0-9]*.json")):
        rows += json.loads(path.read_text(encoding="utf-8"))
    table = pd.DataFrame(rows, columns=COLUMNS)
    run.write_whole(
        folder / CSV, csv_text(table.assign(object_id=table["object_id"].map(escape_cell)))
    )
    return table


def _row(method, weights, segments, settings, notes):
    """Return the numbers of a method."""
    over = "seeds" if method == "LIME" else "a mirror image"
    row = {"method": method, "stability_over": over, "note": notes.get(method, "")}
    if method not in weights:
        return row | {"stability": np.nan}
    found = highlights.stability(weights[method], top=settings.top)
    mean = weights[method].mean(axis=0)
    labels, scale = segments.labels[segments.finest], segments.pixel_scales[segments.finest]
    inside = np.isin(labels, highlights.most_important(mean, settings.top))
    at = [superpixels.offsets(size, scale) for size in labels.shape]
    distance = np.hypot(at[0][:, None], at[1])
    others = [_spearman(mean, weights[m].mean(axis=0)) for m in weights if m != method]
    return row | {
        "stability": found.spearman, "jaccard": found.jaccard,
        "jaccard_chance": found.jaccard_chance,
        "agreement": float(np.mean(others)) if others else np.nan,
        "highlighted_share": float(inside.mean()),
        "distance": float(distance[inside].mean()) if inside.any() else np.nan,
    }  # fmt: skip


def _spearman(a, b):
    return stats.spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else np.nan


def _class_maps(network, images, mirrored, segments):
    """Yield the map of the log odds an arcsec^2 of the object, and of its mirror image, back."""
    shape = segments.labels[segments.finest].shape
    scale = segments.pixel_scales[segments.finest]
    both = {name: np.stack([images[name], mirrored[name]]) for name in images}
    maps, _ = class_activation.class_activation(network.model, both, network.trunks)
    for k, step in enumerate((1, -1)):
        total = np.zeros(shape)
        for branch in (b for b in network.branches if b.name in maps):
            field = [branch.side * branch.pixel_scale] * 2
            cells = maps[branch.name][k] * np.prod(maps[branch.name][k].shape) / np.prod(field)
            total += superpixels.on_grid(cells, field, shape, scale)
        yield total[:, ::step]


def _range(network, images, finest):
    """Return the fluxes that are shown as black and white: those the network clips at, or ours."""
    try:
        lower, upper = network.model.get_layer(f"clip_{finest}").get_weights()
    except ValueError:
        lower, upper = np.percentile(images[finest], (1, 99.5), axis=(0, 1))
    return lower, np.where((upper > lower) & np.isfinite(upper), upper, lower + 1)


def _shown(image, *, lower, upper):
    """Return an image in [0, 1] of one or three bands; of others the mean."""
    unit = np.clip((image - lower) / (upper - lower), 0, 1)
    return unit if unit.shape[-1] in (1, 3) else unit.mean(axis=-1, keepdims=True)


def _reclip(network, clip):
    """Give the network the fluxes that its candidates were scored with."""
    for branch in network.branches:
        ends = np.array([clip[branch.name][band] for band in branch.bands], np.float32)
        lower, upper = ends.T
        upper = np.where(upper > lower, upper, np.inf)  # without contrast all is 0, as in scoring
        network.model.get_layer(f"clip_{branch.name}").set_weights([lower, upper])


def _identity(table, images, network, settings, take, clip):
    """Return what a second run must share to go on, flat, so that a difference is short."""
    ranked = csv_text(table[["object_id", "rank"]])
    return {
        "candidates": hashlib.sha256(ranked.encode()).hexdigest(), "network": network.sha256,
        "bands": take, "clip": clip,
        **{f"images.{name}": value for name, value in fingerprint(images).items()},
        **{f"settings.{name}": value for name, value in asdict(settings).items()},
    }  # fmt: skip


def _picture(folder, row):
    slug = re.sub(r"[^\w.-]+", "_", row.object_id)[:60]
    return folder / f"{row.rank:07}-{slug}.png"
