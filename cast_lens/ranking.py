"""Which objects of a pool to label next: fit what is labelled, look at the rest, choose.

The classifier is logistic regression on features standardized by the whole pool. What it says of an
object is a probability among objects drawn as the labels were, with `class_weight` "balanced" among
as many lenses as others: it orders the pool, it is no purity.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import acquisition, candidates, grading, run
from cast_lens.pack_files import csv_text
from cast_lens.scores import escape_cell

STRATEGIES = ("badge", "core_set", "entropy", "margin", "top_score", "random")
WITHOUT_CLASSIFIER = ("core_set", "random")  # what works before there are labels of both classes
TABLE, ABOUT = "to_label.csv", "ranking.json"
CHUNK = 65_536  # objects looked at at a time
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 7))  # ASSUMED: C, no to hardly any penalty
STRENGTH = 0.1  # ASSUMED: C while labels are too few to choose it; features outnumber them
FOLDS = 5  # ASSUMED: of the cross-validation that chooses C
ENOUGH = 10  # ASSUMED: labels of the rarer class from which on C is chosen, two in every fold


class RankingError(run.RunError):
    """A choice that cannot be made; says what was found and what to do."""


@dataclass(frozen=True)
class RankingCounts:
    """What a choice was made from.

    Attributes:
        n_pool: Objects of the pool.
        n_lenses: Labels 1 of objects of the pool.
        n_others: Labels 0 of objects of the pool.
        n_undecided: Objects of the pool that were graded without a label; not used, not chosen.
        n_absent: Labelled or graded objects that are not in the pool; not used.
        classifier: What was fit, in words; "" if nothing was.
        strength: Inverse strength C of its penalty; NaN if nothing was fit.
        class_weight: Of the loss, {label: weight}, empty if nothing was fit.
    """

    n_pool: int
    n_lenses: int
    n_others: int
    n_undecided: int
    n_absent: int
    classifier: str
    strength: float
    class_weight: dict[int, float]


def read_labels(paths):
    """Read the labels of one round or several.

    Args:
        paths: Files of `grading.read_labels`. An object may be in several of them with the same
            label, and a label takes the place of a grade C, which says neither.

    Returns:
        DataFrame of object_id (str, distinct) and label (Int64, <NA> for grade C).

    Raises:
        RankingError: If an object is labelled 1 in one file and 0 in another; names both.
        CatalogError: As `grading.read_labels`.
    """
    tables = [grading.read_labels(path).assign(path=str(path)) for path in paths]
    every = pd.concat(tables, ignore_index=True).dropna(subset=["label"])
    first = every.drop_duplicates("object_id").set_index("object_id")
    before = first.loc[every["object_id"]]
    differs = before["label"].to_numpy(int) != every["label"].to_numpy(int)
    if differs.any():
        row = every.iloc[int(differs.argmax())]
        was = first.loc[row["object_id"]]
        raise RankingError(
            f"{row['path']}: found label {row['label']} of object_id {row['object_id']}, which has "
            f"label {was['label']} in {was['path']}; expected the same, mend one of the two"
        )
    undecided = pd.concat(tables, ignore_index=True).drop_duplicates("object_id")
    undecided = undecided[~undecided["object_id"].isin(first.index)]
    table = pd.concat([first.reset_index(), undecided], ignore_index=True)
    return table[["object_id", "label"]]


def rank(pool, labels, *, strategy, n, seed, class_weight="balanced"):
    """Choose the objects to label next.

    Args:
        pool: Pool of `pools.open_pool`.
        labels: DataFrame of object_id (str, distinct) and label (1 lens, 0 not, <NA> looked at
            without an answer), as of `read_labels`; None if there are none yet.
        strategy: One of `STRATEGIES`.
        n: How many; labelled objects are never chosen again.
        seed: Non-negative integer of all random numbers.
        class_weight: Of the classifier's loss: "balanced", or {0: weight, 1: weight}, or None for
            equal weights.

    Returns:
        DataFrame of shape (n, 4), first to label first: object_id (str); rank from 1; probability
        (float64, NaN without a classifier); value (float64), by which the strategy judges:
        top_score the probability, entropy that in nats, margin |2 p - 1|, core_set the distance
        from the nearest object labelled or chosen before (in standard deviations of the features;
        of the very first from the mean of those that can be chosen), badge the length of the
        hypothesised gradient, which is its first choice's and only part of the others', random
        NaN. Ties keep the order of the pool. And RankingCounts.

    Raises:
        RankingError: If the strategy needs labels of both classes and one is absent, no labelled
            object is in the pool, or fewer than `n` objects are left.

    Reference:
        Ash et al. (2020) for badge, Sener & Savarese (2018) for core_set; see `acquisition`.
    """
    from threadpoolctl import threadpool_limits

    if strategy not in STRATEGIES:
        raise RankingError(f"strategy: found {strategy!r}, expected {', '.join(STRATEGIES)}")
    places, truth, n_absent = _known(pool, labels)
    used = ~np.isnan(truth)
    n_lenses, n_others = int((truth == 1).sum()), int((truth == 0).sum())
    if not (n_lenses and n_others) and strategy not in WITHOUT_CLASSIFIER:
        raise RankingError(
            f"found labels of {n_lenses} lenses and {n_others} others in {pool.source}, strategy "
            f"{strategy} needs both; begin with --strategy {' or '.join(WITHOUT_CLASSIFIER)} and "
            "label those, or add known lenses and others to the labels"
        )
    free = np.setdiff1d(np.arange(len(pool.features)), places)  # ascending: the order of the pool
    if not 1 <= n <= len(free):
        raise RankingError(
            f"n: found {n}, expected 1 to {len(free)}: so many of the {len(pool.features)} objects "
            f"of {pool.source} are not labelled; choose another number"
        )
    with threadpool_limits(1):  # the same sums on any number of cores
        scaler = _scaler(pool.features)
        logits = np.full(len(free), np.nan)
        fit: tuple[str, float, dict[int, float]] = ("", np.nan, {})
        if n_lenses and n_others:
            known = scaler.transform(pool.features[places[used]].astype(np.float64))
            model, fit = _fit(known, truth[used].astype(int), class_weight, seed)
            logits = np.concatenate(
                [model.decision_function(part) for _, part in _parts(pool.features, scaler, free)]
            )
        chosen, values = _choose(strategy, pool, scaler, logits, free, places, fit[2], n, seed)
    table = pd.DataFrame(
        {
            "object_id": pool.object_ids[free[chosen]].to_numpy(object),
            "rank": np.arange(1, n + 1),
            "probability": _probability(logits[chosen]),
            "value": values,
        }
    )
    n_undecided = int((~used).sum())
    counts = RankingCounts(len(pool.features), n_lenses, n_others, n_undecided, n_absent, *fit)
    return table, counts


def write(folder, table, counts, about, *, candidates_folder=None):
    """Write the choice: to_label.csv, ranking.json, and a folder that `cast-lens grade` opens.

    Args:
        folder: Where to.
        table: Of `rank`.
        counts: RankingCounts of `rank`.
        about: JSON-serializable dict of what else decides the choice: pool, labels, strategy, seed.
        candidates_folder: Folder of `cast-lens score` whose candidates the pool is made of; its
            rows of the chosen objects, in their new order, become the folder `candidates`. None
            writes none.

    Raises:
        RankingError: If a chosen object is not among the candidates.
        CandidateError: If the candidates cannot be read.
    """
    folder = Path(folder)
    if candidates_folder is not None:
        _write_candidates(folder / "candidates", table, Path(candidates_folder))
    safe = table.assign(object_id=table["object_id"].map(escape_cell))
    run.write_whole(folder / TABLE, csv_text(safe))
    told = about | asdict(counts)
    told = {key: None if value != value else value for key, value in told.items()}
    run.write_whole(folder / ABOUT, json.dumps(told, indent=1, sort_keys=True) + "\n")


def _write_candidates(folder, table, source):
    found = candidates.read(source).set_index("object_id", drop=False)
    absent = table["object_id"][~table["object_id"].isin(found.index)]
    if len(absent):
        raise RankingError(
            f"{source}: found no candidate {absent.iloc[0]}, nor {len(absent) - 1} others that "
            "were chosen, expected all; name the candidates whose features the pool holds"
        )
    path = source / candidates.ABOUT
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RankingError(f"{path}: found no source of images, expected the folder that "
                           "`cast-lens score` wrote; name it") from error  # fmt: skip
    rows = found.loc[table["object_id"]].assign(rank=table["rank"].to_numpy())
    candidates.write(folder, rows.reset_index(drop=True), origin)


def _known(pool, labels):
    """Return places in the pool of labelled objects, their labels, and how many are not in it."""
    if labels is None or not len(labels):
        return np.empty(0, np.int64), np.empty(0), 0
    places = pool.object_ids.get_indexer(labels["object_id"].to_numpy(object))
    truth = labels["label"].to_numpy(np.float64, na_value=np.nan)
    there = places >= 0
    if not there.any():
        raise RankingError(
            f"found none of the {len(labels)} labelled objects (the first is "
            f"{labels['object_id'].iloc[0]!r}) in {pool.source} (the first is "
            f"{pool.object_ids[0]!r}), expected the same IDs, to the letter; name the column that "
            "holds them (--id-column)"
        )
    return places[there], truth[there], int((~there).sum())


def _scaler(features):
    """Return the StandardScaler of the pool, in float64 and a part at a time."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for start in range(0, len(features), CHUNK):
        scaler.partial_fit(features[start : start + CHUNK].astype(np.float64))
    return scaler


def _parts(features, scaler, places):
    """Yield slices of `places` and their standardized features, float64, a part at a time."""
    for start in range(0, len(places), CHUNK):
        here = slice(start, start + CHUNK)
        yield here, scaler.transform(features[places[here]].astype(np.float64))


def _fit(table, truth, class_weight, seed):
    """Return a fitted LogisticRegression; and what it is in words, its C and its class weights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.utils.class_weight import compute_class_weight

    model = LogisticRegression(C=STRENGTH, class_weight=class_weight, max_iter=1000)
    weights = compute_class_weight(class_weight, classes=np.array([0, 1]), y=truth)
    rarer, words = int(np.bincount(truth).min()), "logistic regression on standardized features"
    if rarer < ENOUGH:
        model.fit(table, truth)
        words += f", C = {STRENGTH:g} as {rarer} labels of the rarer class are too few to choose it"
    else:

        def held_out(fitted, rows, answers):  # the loss that is fit, so that p is honest
            p = fitted.predict_proba(rows)
            return -log_loss(answers, p, labels=[0, 1], sample_weight=weights[answers])

        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(model, {"C": STRENGTHS}, scoring=held_out, cv=folds)
        model = search.fit(table, truth).best_estimator_
        words += f", C chosen by {FOLDS}-fold cross-validation of its loss"
    return model, (words, float(model.C), {k: float(w) for k, w in enumerate(weights)})


def _probability(logits):
    from scipy.special import expit

    return expit(logits)


def _choose(strategy, pool, scaler, logits, free, places, weights, n, seed):
    """Return positions in `free`, first to label first, and by what the strategy judged each."""
    p = _probability(logits)
    if strategy == "random":
        return acquisition.random(len(free), n, seed=seed), np.full(n, np.nan)
    if strategy == "top_score":  # by the logit: probabilities near 1 can be equal
        chosen = acquisition.top_score(logits, n)
        return chosen, p[chosen]
    if strategy == "entropy":
        from scipy.stats import entropy

        chosen = acquisition.entropy(p, n)
        return chosen, entropy([p[chosen], 1 - p[chosen]])
    if strategy == "margin":
        chosen = acquisition.margin(p, n)
        return chosen, np.abs(2 * p[chosen] - 1)
    n_features = pool.features.shape[1]
    embeddings = np.ones((len(free), n_features + 1), np.float32)  # the bias is one more weight
    for here, part in _parts(pool.features, scaler, free):
        embeddings[here, :n_features] = part
    if strategy == "core_set":
        embeddings = embeddings[:, :n_features]
        labelled = np.float32(pool.features[places])
        if len(places):
            labelled = np.float32(scaler.transform(labelled.astype(np.float64)))
        chosen = acquisition.core_set(embeddings, labelled, n)
        return chosen, _distances(embeddings, labelled, chosen)
    called = (p > 0.5).astype(int)
    gradients = (p - called) * np.array([weights[0], weights[1]])[called]  # of the loss that is fit
    gradients = gradients.astype(np.float32)
    chosen = acquisition.badge(gradients, embeddings, n, seed=seed)
    return chosen, np.abs(gradients[chosen]) * np.linalg.norm(embeddings[chosen], axis=1)


def _distances(embeddings, labelled, chosen):
    """Return how far each choice was from the nearest object labelled or chosen before it."""
    from scipy.spatial.distance import cdist

    ours = embeddings[chosen].astype(np.float64)
    centers = labelled if len(labelled) else embeddings.mean(axis=0, dtype=np.float64)[None]
    first = cdist(ours, np.asarray(centers, np.float64)).min(axis=1)
    between = cdist(ours, ours)
    before = [between[k, :k].min() if k else np.inf for k in range(len(chosen))]
    if not len(labelled):
        first[1:] = np.inf
    return np.minimum(first, before)
