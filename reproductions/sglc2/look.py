"""Sec. 4.3, interpretation: which parts of the sky decide, by LIME, and is the arc among them?"""

from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from cast_lens import checkpoints, cutouts, explain, explain_figures, highlights, run, superpixels
from reproductions.sglc2.adapt import best_fold
from reproductions.sglc2.settings import CLIPPINGS, EXPLAIN, INPUTS, word
from reproductions.sglc2.survey import constants

SCALES = {"vis": 0.1, "nir": 0.3}  # Sec. 2.1, arcsec
# ASSUMED: the paper names no segmentation and no number of samples
SEGMENT = partial(superpixels.slic, n_segments=80, compactness=0.1, sigma=1.0)
REPEATS = 2  # ASSUMED: ours, for the stability
UNDECIDED = (0.3, 0.7)  # ASSUMED: "close" probabilities, for which both kinds are shown


def run_look(config, survey, scored, place, n_objects, n_samples, seed, networks, folder):
    """Explain the best network of the headline cell, and draw Figure 9.

    Args:
        config: The Config of that cell.
        survey: The Survey.
        scored: Table of scores of that network, one run.
        place: Folder of the survey; a stand-in has the true arcs below it. None if not known.
        n_objects: Of the highest-scoring lenses, explained twice each.
        n_samples: Of LIME.
        seed: Of the run.
        networks: The Networks.
        folder: Of the run; what is found is kept in look.csv.

    Returns:
        DataFrame of run (object_id), n_train, metric and value, as metrics.csv has them.
    """
    if (folder / "look.csv").exists() and (folder / "figure_9.png").exists():
        return pd.read_csv(folder / "look.csv", dtype={"run": str})
    model = networks.get(config, [seed, EXPLAIN])
    checkpoints.read_weights(model, best_fold(folder))
    explained = partial(_explain, explain.lens_scores(model), config, survey, n_samples, folder)
    lenses = scored[scored["label"] == 1].sort_values("score", ascending=False, kind="stable")
    rows = []
    for _, one in tqdm(list(lenses[:n_objects].iterrows()), desc="explaining"):
        found = [explained(one["object_id"], word(seed, k, EXPLAIN)) for k in range(REPEATS)]
        segments, weights = found[0][1], np.stack([each.weights for _, _, each in found])
        numbers = asdict(highlights.stability(weights)) | {"r2": found[0][2].r2}
        arc = arc_mask(place, one["object_id"])
        if arc is not None:
            hit = asdict(highlights.hit_fraction(weights[0], segments, arc))
            numbers |= {f"arc_{key}": value for key, value in hit.items()}
        rows += [(one["object_id"], one["n_train"], k, v, "") for k, v in numbers.items()]
    panels = []
    for _, one in _three(scored).iterrows():
        image, segments, found = explained(one["object_id"], word(seed, 0, EXPLAIN))
        panels.append(explain_figures.Panel(
            one["object_id"], image, segments, found.weights, one["score"], one["label"],
            arc_mask(place, one["object_id"]),
        ))  # fmt: skip
    title = f"Figure 9: LIME, two most important superpixels of each kind, {survey.title}"
    explain_figures.draw(panels, folder / "figure_9.png", title=title, undecided=UNDECIDED)
    frame = pd.DataFrame(rows, columns=["run", "n_train", "metric", "value", "note"])
    run.write_whole(folder / "look.csv", frame.to_csv(index=False, lineterminator="\n"))
    return frame


def arc_mask(place, object_id):
    """Return where the arc of a stand-in's object is, shape (200, 200), or None."""
    path = place and place / "Truth/ArcMask" / f"arcmask-{object_id}.fits.gz"
    if not path or not path.exists():
        return None
    return cutouts.read_cutout([path])[0][..., 0] > 0


def _three(scored):
    """Return the lens scored highest, the object nearest to 1/2, and the other scored lowest."""
    lens, other = (scored[scored["label"] == label] for label in (1, 0))
    between = scored.loc[[(scored["score"] - 0.5).abs().idxmin()]]
    return pd.concat([lens.nlargest(1, "score"), between, other.nsmallest(1, "score")])


def _explain(predict, config, survey, n_samples, folder, object_id, seed):
    """Return the finest image of an object as it is shown, its superpixels, and the Explanation."""
    row = np.flatnonzero(survey.pack.catalog["object_id"] == object_id)
    names = list(INPUTS[config.inputs])
    images = {name: survey.pack.batch(name, row)[0] for name in names}
    bounds = constants(survey, 0, names, folder / "constants")
    finest = names[0]
    lower, upper = bounds[finest].loc[[*CLIPPINGS["alternative"]]].to_numpy()

    def shown(image):
        return np.clip((image - lower) / (upper - lower), 0, 1)

    segments = superpixels.divide(
        images, {name: SCALES[name] for name in names}, stretch=shown, segment=SEGMENT
    )
    fill = {name: bounds[name].loc[50.0].to_numpy() for name in names}  # the sky
    found = explain.lime(
        predict, images, segments, seed=seed, n_samples=n_samples, fill=fill,
        batch=config.batch, progress=False,
    )  # fmt: skip
    return shown(images[finest]).squeeze(), segments, found
