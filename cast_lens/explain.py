"""Which parts of the sky a network's score rests on: LIME over superpixels, and occlusion.

Both ask the network alone, as a function from {input: batch of images} to scores; both treat one
object, and change all its branches at the same place of the sky. Networks that end in a pooled map
of features need no samples, see class_activation.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from tqdm import tqdm

from cast_lens import superpixels


@dataclass(frozen=True, eq=False)
class Explanation:
    """A linear model of the score near one object.

    Attributes:
        weights: What each superpixel adds to the score if it is there, shape (superpixels,):
            positive speaks for a lens, negative against.
        intercept: Score of the linear model with all superpixels off.
        r2: Weighted coefficient of determination on the samples it was fitted to; NaN if their
            scores are all equal, where there is nothing to explain.
        score: The network's, of the object as it is.
    """

    weights: np.ndarray
    intercept: float
    r2: float
    score: float


def lens_scores(model):
    """Return the function from {input: batch} to scores that the explanations ask.

    Args:
        model: keras.Model that ends in one sigmoid, or in a softmax of two: no lens, lens.

    Returns:
        Function from {input: float32, shape (batch, height, width, band)} to scores of shape
        (batch,). Augmentation is off.

    Raises:
        ValueError: If called, and the model has another output.
    """

    def predict(images):
        found = np.asarray(model.predict_on_batch(arrange(model, images)))
        if found.ndim != 2 or found.shape[1] not in (1, 2):
            raise ValueError(
                f"{model.name}: output of shape {found.shape}, expected (batch, 1), a sigmoid, or "
                "(batch, 2), a softmax"
            )
        return found[:, -1]

    return predict


def arrange(model, images):
    """Return {input: batch} in the structure that a model was built with."""
    if isinstance(model.input, dict):
        return images
    if isinstance(model.input, list):
        return [images[tensor.name] for tensor in model.input]
    (batch,) = images.values()
    return batch


def lime(
    predict, images, segments, *, seed, n_samples, fill, kernel_width=0.25, ridge=1.0, batch=32,
    progress=True,
):  # fmt: skip
    """Explain one score by a linear model of which superpixels are there (LIME).

    Every sample leaves each superpixel with probability 1/2; the first is the object as it is.
    With k of d superpixels left, the cosine distance to that is D = 1 - sqrt(k / d), the sample
    has the weight exp(-D^2 / (2 kernel_width^2)), and the linear model minimizes the weighted sum
    of squares plus `ridge` |weights|^2.

    These are the choices of the authors' package, with its constants as defaults. The paper has
    the same kernel without the 2, names L2 distance for images, and selects features by Lasso.
    Where the score is saturated, near 0 or 1, little of it is linear: look at `r2`.

    Args:
        predict: Function from {input: float32, shape (batch, height, width, band)} to scores of
            shape (batch,), for instance `lens_scores(model)`.
        images: {input: image, shape (height, width, band)} of one object.
        segments: Superpixels of this object.
        seed: Seed or NumPy Generator.
        n_samples: Number of samples, more than superpixels; 1000 in the authors' package.
        fill: What is where a superpixel is off: "mean" or constants, see superpixels.turned_off.
        kernel_width: In units of cosine distance.
        ridge: Strength of the penalty; 0 for none.
        batch: Objects scored at a time.
        progress: Show a progress bar.

    Returns:
        Explanation.

    Raises:
        ValueError: If `n_samples` is too small, `fill` is neither of the two, or `predict` does
            not return a finite score an object.

    Reference:
        Ribeiro, Singh & Guestrin (2016), Eqs. 1 and 2, Algorithm 1; Bom et al. (2022), Sec. 4.3.
    """
    if n_samples <= segments.n:
        raise ValueError(
            f"{n_samples} samples for {segments.n} superpixels determine no linear model; take "
            "more, several for each"
        )
    off = superpixels.turned_off(images, segments, fill)
    present = np.random.default_rng(seed).integers(0, 2, (n_samples, segments.n)).astype(bool)
    present[0] = True

    def sample(rows):
        return {
            name: np.where(present[rows][:, segments.labels[name], None], image, off[name])
            for name, image in images.items()
        }

    scores = _score(predict, sample, n_samples, batch, progress)
    distance = 1 - np.sqrt(present.mean(axis=1))
    weights = np.exp(-(distance**2) / (2 * kernel_width**2))
    linear = Ridge(alpha=ridge).fit(present, scores, sample_weight=weights)
    varies = np.ptp(scores) > 0
    r2 = linear.score(present, scores, sample_weight=weights) if varies else np.nan
    return Explanation(linear.coef_, float(linear.intercept_), float(r2), float(scores[0]))


def occlusion(predict, images, pixel_scales, *, box, step, fill, batch=32, progress=True):
    """Map how far the score drops when a box on the sky is hidden in all branches together.

    Args:
        predict: As for `lime`.
        images: {input: image, shape (height, width, band)} of one object.
        pixel_scales: {input: arcsec}.
        box: Side of the box, arcsec.
        step: Largest distance between neighboring boxes, arcsec, at most `box`; the outermost
            boxes touch the border of the input with the finest pixels.
        fill: What is in the box: "mean", each input's mean over the box in each band, or
            constants {input: one number or one a band}.
        batch: Objects scored at a time.
        progress: Show a progress bar.

    Returns:
        Shape (height, width) of the input with the finest pixels, float64: mean over the boxes
        that cover a pixel of score(object) - score(object with the box hidden); positive where
        the lens score rests on what is there.

    Raises:
        ValueError: If the box is larger than the field or smaller than the step, or as for `lime`.

    Reference:
        Zeiler & Fergus (2014), Sec. 4.2, who map the score at the box's center.
    """
    finest = superpixels.check_images(images, pixel_scales)
    use_mean = superpixels.is_mean(fill, images)
    starts = [_starts(n * pixel_scales[finest], box, step) for n in np.shape(images[finest])[:2]]
    places = list(itertools.product(*starts))
    windows = {
        name: [
            tuple(_window(n, pixel_scales[name], low, box) for n, low in zip(image.shape, place))
            for place in places
        ]
        for name, image in images.items()
    }

    def hidden(rows):
        found = {}
        for name, image in images.items():
            found[name] = np.repeat(np.asarray(image, np.float32)[None], len(rows), axis=0)
            for copy, row in zip(found[name], rows):
                inside = copy[windows[name][row]] if row < len(places) else copy[:0]
                if inside.size:
                    inside[...] = inside.mean(axis=(0, 1)) if use_mean else fill[name]
        return found

    scores = _score(predict, hidden, len(places) + 1, batch, progress)  # the last without a box
    total, boxes = np.zeros((2, *np.shape(images[finest])[:2]))
    for window, score in zip(windows[finest], scores):
        total[window] += scores[-1] - score
        boxes[window] += 1
    return total / boxes


def _score(predict, make, n, batch, progress):
    """Score `n` images made batch by batch, all of one size so that nothing is traced twice."""
    batch, scores = min(batch, n), []
    for start in tqdm(range(0, n, batch), "explain", leave=False, disable=not progress):
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        images = {name: np.asarray(x, np.float32) for name, x in make(rows).items()}
        found = np.asarray(predict(images), np.float64)
        if found.shape != (batch,) or not np.isfinite(found).all():
            raise ValueError(
                f"predict returned {found.shape} with {np.sum(~np.isfinite(found))} values that "
                f"are not finite, expected ({batch},) finite scores"
            )
        scores.append(found)
    return np.concatenate(scores)[:n]


def _starts(side, box, step):
    if not 0 < step <= box <= side:
        raise ValueError(
            f"step {step} and box {box}, expected 0 < step <= box <= {side:.6g} arcsec"
        )
    n = int(np.ceil((side - box) / step - 1e-9)) + 1
    return np.linspace(-side / 2, side / 2 - box, n)


def _window(n, pixel_scale, low, box):
    """Return the pixels of an axis whose centers are in [low, low + box), as a slice."""
    edges = np.array([low, low + box]) - 1e-9  # rounding must not move a center across an edge
    return slice(*np.searchsorted(superpixels.offsets(n, pixel_scale), edges))
