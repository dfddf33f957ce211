"""Fluxes to clip at, measured on a user's own images instead of those of the training."""

import json
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np

from cast_lens import pixel_statistics, run
from cast_lens.fits_image import CutoutError
from cast_lens.images import read_grids
from cast_lens.score_shards import ScoringError

# Bom et al. (2022), Sec. 2.2: the alternative clipping of their released network.
PERCENTS = (0.1, 99.0)
LOOKED_AT = 32  # objects, from all over the catalog, that are looked at before anything is begun
INSIDE = 0.5  # ASSUMED: share of pixels between the two fluxes; of the training it is 0.98 or more
RANGE = 0.01  # ASSUMED: of [0, 1]; less has no contrast that a network could see
MEASURED = 2000  # ASSUMED: objects, from all over the catalog, that are enough for its percentiles


def own_bounds(path, images, known, take):
    """Return the percentiles of these images, measured once and kept in a file.

    Args:
        path: The file.
        images: Images.
        known: Scorers, of the same branches.
        take: {band of the network: band of the images}, whole.

    Returns:
        {branch: [lower, upper]}, each a list of one flux a band, in the unit of the images.

    Raises:
        ScoringError: If a network has no clip that these could stand for.
    """
    for one in known:
        if not one.clip:
            raise ScoringError(
                f"network {one.name} does not clip at fluxes, expected some that those of the "
                "images can stand for; use --clip released"
            )
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    found = {}
    for branch in known[0].branches:
        bounds = [
            pixel_statistics.percentiles(
                partial(_covered, images, _one_band(branch, band), take), PERCENTS
            )[:, 0]
            for band in branch.bands
        ]
        found[branch.name] = np.stack(bounds, axis=1).tolist()  # (lower and upper, band)
    run.write_whole(path, json.dumps(found) + "\n")
    return found


def _one_band(branch, band):
    return SimpleNamespace(
        name=branch.name, bands=(band,), side=branch.side, pixel_scale=branch.pixel_scale
    )


def _covered(images, branch, take):
    """Yield the pixels of a sample of objects on a network's grid, without any border."""
    for position in spread(len(images), MEASURED):
        try:
            grids, _ = read_grids(images, position, [branch], take, pad=False)
        except CutoutError:  # which its shard will tell
            continue
        yield grids[branch.name, branch.bands[0]][None, ..., None]


def contrast(images, scorer, take):
    """Measure what the released fluxes of a network make of a sample of images.

    Args:
        images: Images.
        scorer: Scorer.
        take: {band of the network: band of the images}, whole.

    Returns:
        {band of the network: {"inside": share of pixels between the two fluxes, "range": from the
        1st to the 99th percentile of the pixels in [0, 1] that come out}}; empty if it has no clip.

    Warns:
        UserWarning: If there is hardly any contrast, as for images in another unit.
    """
    found, pixels = {}, _sampled(images, scorer.branches, take) if scorer.clip else {}
    for branch in scorer.branches if scorer.clip else ():
        for n, band in enumerate(branch.bands):
            lower, upper = (float(np.asarray(end)[n]) for end in scorer.clip[branch.name])
            flux = np.concatenate(pixels[branch.name, band]).astype(np.float64)
            unit = (np.clip(flux, lower, upper) - lower) / (upper - lower or 1.0)
            low, high = np.percentile(unit, (1, 99))
            inside = float(((flux > lower) & (flux < upper)).mean())
            found[band] = {"inside": inside, "range": float(high - low)}
    poor = [b for b, f in found.items() if f["inside"] < INSIDE or f["range"] < RANGE]
    if poor:
        shown = ", ".join(f"{100 * found[band]['inside']:.3g} % in {band}" for band in poor)
        warnings.warn(
            f"{images.source}: of the pixels of a sample {shown} are between the fluxes that "
            f"network {scorer.name} clips at, or they have no contrast there; the images seem to "
            "be in another unit than those of its training: convert them, or use --clip own",
            stacklevel=3,
        )
    return found


def _sampled(images, branches, take):
    """Return {(branch, band): list of pixels, flat} of some objects that can be read."""
    found: dict[tuple[str, str], list] = {}
    for position in spread(len(images), LOOKED_AT):
        try:
            grids, _ = read_grids(images, position, branches, take, pad=False)
        except CutoutError:  # which its shard will tell
            continue
        for key, grid in grids.items():
            found.setdefault(key, []).append(grid.ravel())
    return found


def spread(n, most):
    """Return at most `most` of n positions, from all over them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()
