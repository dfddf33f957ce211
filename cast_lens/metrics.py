"""How well scores tell lenses from other objects, one number each.

Every metric takes (labels, scores) and keywords, so that `functools.partial` fits it to `evaluate`
and to `intervals.bootstrap`. An object is called a lens where score >= threshold: objects with
equal scores are called together, except where a person inspects the top n in catalog order.
"""

import math

import numpy as np
import sklearn.metrics


class UndefinedMetric(ValueError):  # noqa: N818, it is no error of the run
    """A metric that does not exist for these data; the message says why."""


def check(labels, scores, object_ids=None):
    """Check truth and scores where they enter.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,), dimensionless; larger is more lens-like.
        object_ids: Names for the error message, shape (objects,); by default positions 0, 1, ...

    Returns:
        Labels as int64 and scores as float64, each of shape (objects,).

    Raises:
        ValueError: If shapes differ or are not (objects,), a label is not 0 or 1, or a score is
            NaN or infinite; names the first three such objects.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    object_ids = np.arange(labels.size) if object_ids is None else np.asarray(object_ids)
    if not labels.shape == scores.shape == object_ids.shape == (labels.size,):
        raise ValueError(
            f"labels {labels.shape}, scores {scores.shape} and object_ids {object_ids.shape} must "
            "all have shape (objects,); take scores[:, 0] of a network's (objects, 1) output"
        )
    _refuse((labels != 0) & (labels != 1), "label", labels, object_ids, "0 or 1; mend the catalog")
    _refuse(~np.isfinite(scores), "score", scores, object_ids, "finite; score them again")
    return labels.astype(np.int64), scores


def require_classes(labels, *, each=1):
    """Require `each` lenses and as many non-lenses.

    Args:
        labels: Checked truth, shape (objects,).
        each: Least number of objects of either class.

    Raises:
        UndefinedMetric: If there are fewer; says how many there are.
    """
    n_lens = int(np.sum(labels))
    if min(n_lens, len(labels) - n_lens) < each:
        raise UndefinedMetric(
            f"{n_lens} lenses and {len(labels) - n_lens} non-lenses; needs {each} of each"
        )


def roc_auc(labels, scores):
    """Compute the area under the ROC curve; a tied lens and non-lens count one half.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,); larger is more lens-like.

    Returns:
        Area in [0, 1]; 0.5 for scores without information.

    Raises:
        UndefinedMetric: If a class is empty.

    Reference:
        Bom et al. (2022), Sec. 4.2.
    """
    labels, scores = check(labels, scores)
    require_classes(labels)
    return float(sklearn.metrics.roc_auc_score(labels, scores))


def average_precision(labels, scores):
    """Compute the area under the precision-recall curve as a step sum, without interpolation.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,); larger is more lens-like.

    Returns:
        Area in (0, 1].

    Raises:
        UndefinedMetric: If a class is empty.

    Reference:
        Bom et al. (2022), Sec. 4.2; the step sum is scikit-learn's average_precision_score.
    """
    labels, scores = check(labels, scores)
    require_classes(labels)
    return float(sklearn.metrics.average_precision_score(labels, scores))


def log_loss(labels, scores):
    """Compute the mean negative log-likelihood of the labels.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Probability of being a lens, shape (objects,); 0 and 1 are moved inward by the
            float64 epsilon.

    Returns:
        Loss per object in nats, at least 0.

    Raises:
        UndefinedMetric: If there is no object, or scores outside [0, 1] are no probabilities.
    """
    labels, scores = check(labels, scores)
    _require_objects(labels)
    if scores.min() < 0 or scores.max() > 1:
        raise UndefinedMetric("scores outside [0, 1] are no probabilities")
    return float(sklearn.metrics.log_loss(labels, scores, labels=[0, 1]))


def max_f_beta(labels, scores, *, beta_squared):
    """Compute F_beta = (1 + beta^2) P R / (beta^2 P + R) at the threshold that maximizes it.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,); larger is more lens-like.
        beta_squared: Weight of completeness R against purity P, at least 0.

    Returns:
        Largest F_beta over all distinct scores, and the highest threshold that reaches it.

    Raises:
        UndefinedMetric: If a class is empty.
        ValueError: If `beta_squared` is negative.

    Reference:
        Bom et al. (2022), Eqs. 6 and 7; the II SGLC ranked by beta^2 = 0.001.
    """
    if not beta_squared >= 0:
        raise ValueError(f"beta_squared is {beta_squared}, expected a number >= 0")
    tp, fp, thresholds = _counts(labels, scores)
    f_beta = _f_beta(tp, fp, beta_squared)
    best = int(np.argmax(f_beta))
    return float(f_beta[best]), float(thresholds[best])


def chance_f_beta(n_lens, n_nonlens, *, beta_squared, draws, seed):
    """Simulate the max F_beta of scores that carry no information, the level to compare with.

    It exceeds the F_beta of calling everything a lens, because the maximum over thresholds picks
    a lucky start of the ranking.

    Args:
        n_lens: Lenses in the sample, at least 1.
        n_nonlens: Other objects in the sample, at least 1.
        beta_squared: As in `max_f_beta`.
        draws: Random rankings, at least 2.
        seed: Seed or NumPy Generator.

    Returns:
        Mean and standard deviation of max F_beta over the draws.

    Raises:
        UndefinedMetric: If a class is empty.
        ValueError: If `draws` is less than 2.
    """
    if draws < 2:
        raise ValueError(f"a standard deviation needs at least 2 draws, found {draws}")
    labels = np.repeat([1, 0], [n_lens, n_nonlens])
    require_classes(labels)
    rng = np.random.default_rng(seed)
    rankings = (rng.permutation(labels) for _ in range(draws))
    values = [_f_beta(r.cumsum(), (1 - r).cumsum(), beta_squared).max() for r in rankings]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def tpr_at_false_positives(labels, scores, *, n_false):
    """Compute the highest completeness reached with at most `n_false` false positives.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,); tied objects are called together.
        n_false: False positives allowed, at least 0; 0 gives TPR0, 10 gives TPR10.

    Returns:
        Completeness in [0, 1].

    Raises:
        UndefinedMetric: If a class is empty.
        ValueError: If `n_false` is negative.

    Reference:
        Metcalf et al. (2019), TPR_0 and TPR_10 of the I SGLC.
    """
    if n_false < 0:
        raise ValueError(f"n_false is {n_false}, expected at least 0")
    tp, fp, _ = _counts(labels, scores)
    return float(np.max(tp[fp <= n_false], initial=0) / tp[-1])


def confusion(labels, scores, *, threshold):
    """Count true and false positives and negatives when score >= threshold is called a lens.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        threshold: Least score of an object called a lens.

    Returns:
        Counts as a dict with the keys tp, fp, tn and fn.

    Raises:
        UndefinedMetric: If there is no object.
        ValueError: If `threshold` is NaN.
    """
    labels, called = _called(labels, scores, threshold)
    tn, fp, fn, tp = sklearn.metrics.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    return {"tp": int(tp), "fp": int(fp), "tn": int(tn), "fn": int(fn)}


def precision(labels, scores, *, threshold):
    """Compute the purity tp / (tp + fp) of the objects with score >= threshold.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        threshold: Least score of an object called a lens.

    Returns:
        Purity in [0, 1].

    Raises:
        UndefinedMetric: If no score reaches `threshold`.

    Reference:
        Bom et al. (2022), Eq. 3.
    """
    labels, called = _called(labels, scores, threshold)
    if not called.any():
        raise UndefinedMetric(f"no score reaches {threshold}, so purity is 0/0")
    return float(sklearn.metrics.precision_score(labels, called))


def recall(labels, scores, *, threshold):
    """Compute the completeness tp / (tp + fn) of the objects with score >= threshold.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        threshold: Least score of an object called a lens.

    Returns:
        Completeness in [0, 1].

    Raises:
        UndefinedMetric: If there is no lens.

    Reference:
        Bom et al. (2022), Eq. 4.
    """
    labels, called = _called(labels, scores, threshold)
    if not labels.any():
        raise UndefinedMetric("no lenses, so completeness is 0/0")
    return float(sklearn.metrics.recall_score(labels, called))


def lenses_in_top(labels, scores, *, n):
    """Count the lenses among the `n` highest-scoring objects.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,), dimensionless; larger is more lens-like.
        n: Number of objects a person will inspect. Ties keep catalog order.

    Returns:
        Number of lenses found, an int in [0, n].

    Raises:
        ValueError: If `labels` and `scores` differ in length, or `n` exceeds that length
            (then an UndefinedMetric, so that a small fold does not end a run).

    Reference:
        Li, Eadie & Walmsley (2025), Sec. 2.2.
    """
    found = completeness_curve(labels, scores)
    if n < 0:
        raise ValueError(f"n is {n}, expected at least 0")
    if n > len(found):
        raise UndefinedMetric(f"cannot inspect {n} of {len(found)} objects")
    return int(found[n - 1]) if n else 0


def completeness_curve(labels, scores):
    """Count the lenses found when inspecting 1, 2, ... objects from the highest score down.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,). Ties keep catalog order.

    Returns:
        Lenses found, shape (objects,), int64; divide by the last for the completeness.

    Raises:
        ValueError: As for `check`.
    """
    labels, scores = check(labels, scores)
    return labels[np.argsort(-scores, kind="stable")].cumsum()


def evaluate(labels, scores, metrics):
    """Compute several metrics; one that does not exist is reported, not raised.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        metrics: Name to function of (labels, scores) that returns a number, or a number and its
            threshold.

    Returns:
        A dict per metric: metric (name), value (float, NaN if undefined), note (the threshold,
        or why the metric is undefined).

    Raises:
        ValueError: As for `check`.
    """
    labels, scores = check(labels, scores)
    rows = []
    for name, metric in metrics.items():
        try:
            value, *threshold = np.atleast_1d(metric(labels, scores)).tolist()
            note = f"at threshold {threshold[0]}" if threshold else ""
        except UndefinedMetric as reason:
            value, note = math.nan, str(reason)
        rows.append({"metric": name, "value": float(value), "note": note})
    return rows


def _counts(labels, scores):
    """Count (tp, fp) at every distinct score, highest first; each of shape (thresholds,)."""
    labels, scores = check(labels, scores)
    require_classes(labels)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    n_lens = labels.sum()
    # The curve starts at an infinite threshold, which calls nothing. Rates times class sizes are
    # whole numbers up to rounding, and F_beta needs no 0/0 when it is computed from those.
    tp, fp = np.rint(tpr * n_lens), np.rint(fpr * (len(labels) - n_lens))
    return tp[1:], fp[1:], thresholds[1:]


def _f_beta(tp, fp, beta_squared):
    """Compute F_beta from the counts at falling thresholds, of which the last calls everything."""
    return (1 + beta_squared) * tp / (beta_squared * tp[-1] + tp + fp)


def _called(labels, scores, threshold):
    labels, scores = check(labels, scores)
    _require_objects(labels)
    if math.isnan(threshold):
        raise ValueError("threshold is NaN, expected a number")
    return labels, scores >= threshold


def _require_objects(labels):
    if not len(labels):
        raise UndefinedMetric("no objects")


def _refuse(bad, what, values, object_ids, expected):
    if bad.any():
        shown = zip(object_ids[bad][:3].tolist(), values[bad][:3].tolist(), strict=True)
        named = ", ".join(f"{value!r} for object_id {name!r}" for name, value in shown)
        raise ValueError(
            f"{bad.sum()} of {len(bad)} {what}s are not as expected ({expected}): {named}"
        )
