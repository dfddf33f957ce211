"""Can lenses be told from other objects without looking at them?

A logistic regression on a handful of numbers of an image is trained on half of the lens planes and
scores the others. What total flux and the like give away is reported; what the noise, the border,
the header or the place of the center give away is a fault of the stand-in.
"""

import numpy as np
import pandas as pd
import scipy.stats
from astropy.io import fits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from cast_lens import intervals, metrics

FLUX = ("sum", "max", "median", "noise")  # trivial statistics of an image
SKY = ("noise", "border_median", "border_noise", "border_min", "n_zero")
CENTER = ("peak_x", "peak_y", "centroid_x", "centroid_y")

FEWEST = 20  # ASSUMED: objects of either class; below, ten a half, an interval says nothing
STRENGTH = 0.1  # ASSUMED: scikit-learn's C; weak enough for more features than objects
SEED = 0  # of the split: the same survey gives the same table


def columns(measured, names, bands):
    """Return some columns of `pixels.measure` of some bands."""
    return measured[[f"{name}_{band}" for name in names for band in bands]]


def auroc(features, labels, planes):
    """Estimate how well features tell lenses from other objects of lens planes not trained on.

    Either half of the planes is scored by a regression on the other. Of more folds the training
    parts overlap, and the usual interval is then too narrow: of features without information,
    five folds called one in five telling. The halves are not independent either, so the interval
    is the mean of theirs; one in forty then lies above 0.5, as it should (simulated surveys).

    Args:
        features: DataFrame of numbers, shape (objects, features). NaN becomes the column's
            median, and a column that says where NaN was is added; constant columns say nothing.
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        planes: Lens plane of each object, shape (objects,); none is in both halves.

    Returns:
        (value, low, high, n), the AUROC and its 95 % interval; all 0.5 if no feature varies, and
        NaN if there are fewer than `FEWEST` of either class, or lens planes for them.
    """
    labels = np.asarray(labels)
    n_lens = int(labels.sum())
    if min(n_lens, len(labels) - n_lens) < FEWEST or len(set(planes)) < 2 * FEWEST:
        return np.nan, np.nan, np.nan, len(labels)
    values = _normal_scores(features)
    model = make_pipeline(
        PolynomialFeatures(2, include_bias=False),  # a leak need not be monotonic
        StandardScaler(),
        LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=500),
    )
    found = []
    halves = StratifiedGroupKFold(2, shuffle=True, random_state=SEED)
    for train, test in halves.split(values, labels, planes):
        scores = np.zeros(len(test))
        if values.shape[1]:
            scores = model.fit(values[train], labels[train]).decision_function(values[test])
        area = metrics.roc_auc(labels[test], scores)
        found.append((area, *intervals.delong_interval(labels[test], scores)))
    value, low, high = np.mean(found, axis=0)
    return float(value), float(low), float(high), len(labels)


def header_features(objects, bands):
    """Read every card of the images' headers as a number.

    Args:
        objects: DataFrame with object_id and path_<band>.
        bands: Bands to read.

    Returns:
        DataFrame of shape (objects, cards + 1): numbers as they are, NaN where the card is
        missing, text as its place in alphabetical order, the number of cards of each band, and
        the number in the object_id.
    """
    rows = []
    for row in objects.to_dict("records"):
        cards: dict[str, float | str] = {"object_id": float(row["object_id"])}
        for band in bands:
            header = fits.getheader(row[f"path_{band}"])
            cards[f"cards_{band}"] = len(header)
            for key in dict.fromkeys(header):
                value = header[key]
                is_number = isinstance(value, (int, float))
                cards[f"{key}_{band}"] = float(value) if is_number else str(value)
        rows.append(cards)
    table = pd.DataFrame(rows, index=objects.index)
    for name in table.columns[table.map(lambda value: isinstance(value, str)).any()]:
        place, _ = pd.factorize(table[name].astype("string"), sort=True)
        table[name] = np.where(place < 0, np.nan, place)
    return table.astype(np.float64)


def _normal_scores(features):
    """Return the normal scores of features that vary, and of where NaN was, (objects, features).

    Fluxes span decades, and ranks, unlike sklearn's QuantileTransformer, do not take differences
    below 1e-7 for none.
    """
    features = features.astype(np.float64)
    missing = features.isna().astype(np.float64).add_suffix("_missing")
    features = features.fillna(features.median()).fillna(0.0)
    every = pd.concat([features, missing], axis=1)
    every = every.loc[:, every.nunique() > 1].rank()
    return scipy.stats.norm.ppf((every.T.drop_duplicates().T.to_numpy() - 0.5) / len(every))
