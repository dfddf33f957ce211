"""How many lenses a person will find among the first N candidates of a survey.

A labelled sample says how lenses and non-lenses score; the survey's prevalence says how rare lenses
are. Where a survey has fewer lenses than the sample, the answer hangs on non-lenses that the sample
may not hold: every number comes with its interval, and says when the sample cannot support it.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from cast_lens import metrics
from cast_lens.metrics import UndefinedMetric
from cast_lens.run import RunError
from cast_lens.selection import false_positive_bound

FACTOR = 2.0  # ASSUMED: a purity known within a factor of two is an answer
NO_SAMPLE = 1e-3  # ASSUMED: labelled objects that score so otherwise were not drawn at random
ENOUGH = 10  # ASSUMED: false positives of the sample whose rate is known to a third (Poisson)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities of the objects of a labelled sample, at its own prevalence.

    Attributes:
        probabilities: Each by calibrators that have not seen the object, shape (objects,).
        calibrate: Function of logits, shape (n,), to probabilities, by all labelled objects; for
            objects that are not among them.
        prevalence: Fraction of lenses in the sample.
        folds: Parts of the cross-fit.
        slope: Of Platt's function of the logit; None for isotonic calibration.
        intercept: Likewise.
    """

    probabilities: np.ndarray
    calibrate: object
    prevalence: float
    folds: int
    slope: float | None
    intercept: float | None


def calibrate(labels, logits, *, method, folds, seed):
    """Turn scores into probabilities; no object is judged by a function fitted to it.

    Args:
        labels: Truth, shape (objects,); 1 for a lens, 0 otherwise.
        logits: Log-odds of the network's score, or any score, shape (objects,).
        method: "platt", two constants, or "isotonic", any function that does not fall, which
            needs a thousand objects or more.
        folds: Parts of the cross-fit, at least 2; fewer where a class has fewer objects.
        seed: Seed of the parts.

    Returns:
        A Calibration.

    Raises:
        UndefinedMetric: If a class has fewer than two objects.
        RunError: If `method` is neither, or `folds` is less than 2.

    Reference:
        Platt (1999); Zadrozny & Elkan (2002).
    """
    labels, logits = metrics.check(labels, logits)
    metrics.require_classes(labels, each=2)
    fitters = {"platt": _platt, "isotonic": _isotonic}
    if method not in fitters or folds < 2:
        raise RunError(
            f"method is {method!r} and folds {folds}, expected one of {', '.join(fitters)} and at "
            "least 2"
        )
    folds = min(folds, int(np.bincount(labels).min()))
    probabilities = np.empty(len(labels))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for others, own in parts.split(logits, labels):
        probabilities[own] = fitters[method](labels[others], logits[others])[0](logits[own])
    function, slope, intercept = fitters[method](labels, logits)
    return Calibration(probabilities, function, float(labels.mean()), folds, slope, intercept)


def shift_prevalence(probabilities, *, old, new):
    """Move probabilities from one prevalence to another; lenses keep looking like lenses.

    The log-odds shift by log-odds(new) - log-odds(old), as only the prior changes.

    Args:
        probabilities: Shape (objects,), calibrated at the prevalence `old`.
        old: Fraction of lenses where they were calibrated, in (0, 1).
        new: Fraction of lenses in the survey, in (0, 1).

    Returns:
        Probabilities, shape (objects,); 0 and 1 stay as they are.

    Raises:
        RunError: If a prevalence is not between 0 and 1.

    Reference:
        Saerens, Latinne & Decaestecker (2002), Eq. 4 of Neural Comput. 14, 21.
    """
    for name, value in (("old", old), ("new", new)):
        _check_prevalence(name, value)
    shift = scipy.special.logit(new) - scipy.special.logit(old)
    with np.errstate(divide="ignore"):
        return scipy.special.expit(scipy.special.logit(np.asarray(probabilities, float)) + shift)


def reliability(labels, probabilities, *, bins):
    """Compare probabilities with the fraction of lenses, in bins of equal number.

    Args:
        labels: Truth, shape (objects,).
        probabilities: Of being a lens, cross-fitted, shape (objects,).
        bins: Bins wanted; at most one an object.

    Returns:
        DataFrame: n, probability (mean), n_lenses, fraction, low, high (95 %, Wilson).

    Raises:
        UndefinedMetric: If there is no object.
    """
    from cast_lens import intervals

    labels, probabilities = metrics.check(labels, probabilities)
    if not len(labels):
        raise UndefinedMetric("no objects")
    rows = []
    for part in _parts(probabilities, bins):
        n, lenses = len(part), int(labels[part].sum())
        low, high = intervals.wilson(lenses, n)
        mean = float(probabilities[part].mean())
        rows.append((n, mean, lenses, lenses / n, low, high))
    columns = ["n", "probability", "n_lenses", "fraction", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def calibration_error(labels, probabilities, *, bins, draws, seed):
    """Compute the expected calibration error, and what it would be without any.

    It is the mean over bins of equal number of |fraction of lenses - mean probability|. Chance
    alone makes it positive, the more so the fewer objects a bin holds; how much, is simulated by
    drawing labels from the probabilities themselves.

    Args:
        labels: Truth, shape (objects,).
        probabilities: Of being a lens, cross-fitted, shape (objects,).
        bins: Bins.
        draws: Simulated sets of labels, at least 1.
        seed: Seed or NumPy Generator.

    Returns:
        Dict of ece, ece_if_calibrated (the mean of the simulated ones: its bias) and p, the
        fraction of (draws + 1) that is at least `ece`; a small one says: not calibrated.

    Raises:
        UndefinedMetric: If there is no object.

    Reference:
        Naeini, Cooper & Hauskrecht (2015); Broecker & Smith (2007) for the simulation.
    """
    labels, probabilities = metrics.check(labels, probabilities)
    if not len(labels):
        raise UndefinedMetric("no objects")
    order = np.concatenate(_parts(probabilities, bins))
    starts = np.append(0, np.cumsum([len(part) for part in _parts(probabilities, bins)]))[:-1]
    sorted_ = probabilities[order]
    rng = np.random.default_rng(seed)

    def error(drawn):
        return np.abs(np.add.reduceat(drawn - sorted_, starts)).sum() / len(sorted_)

    found = error(labels[order])
    chance = np.array([error(rng.random(len(sorted_)) < sorted_) for _ in range(draws)])
    p = (1 + np.sum(chance >= found)) / (draws + 1)
    return {"ece": float(found), "ece_if_calibrated": float(chance.mean()), "p": float(p)}


def lenses_found(labels, scores, *, inspected, prevalences, n_survey, draws, seed, level=0.95):
    """Answer how many lenses are among the best N objects of a survey.

    Each lens of the sample stands for prevalence/n_lenses of the survey, each non-lens for
    (1 - prevalence)/n_nonlens; tied objects are inspected in random order. The interval takes in
    the sample, by a Bayesian bootstrap over its lenses and non-lenses, and the sky, by a binomial
    draw of N objects. Its ends allow for one more unseen object in either class where it hurts
    and where it helps, which makes the bounds of both rates those of Clopper & Pearson: they hold
    for zero counts too. It takes for granted that lenses and non-lenses of the survey look like
    those of the sample; none of these numbers can see it if they do not.

    Args:
        labels: Truth of the sample, shape (objects,); 1 for a lens, 0 otherwise.
        scores: Network output, shape (objects,).
        inspected: Numbers N of objects to inspect.
        prevalences: Fractions of lenses in the survey, in (0, 1).
        n_survey: Objects in the survey that are scored, at least every N.
        draws: Of the bootstrap; 2,000 is usual.
        seed: Seed of the draws; the same for every N and prevalence.
        level: Coverage.

    Returns:
        DataFrame, a row a prevalence and N: prevalence, inspected, lenses, low, high (lenses found
        and its interval), purity, purity_low, purity_high (without the binomial of the sky),
        completeness, false_per_lens, false_per_lens_low, false_per_lens_high, n_false_in_sample
        (non-lenses of the sample that score as high; of tied ones their share, rounded down),
        false_positive_rate_below (95 %, one-sided) and status: "measured" where at least `ENOUGH`
        non-lenses of the sample score as high; "few: ..." where fewer do, whose numbers only
        the interval is worth; or "undetermined: ..." where none does and the purity is not known
        within `FACTOR`: lenses, purity, completeness and false_per_lens are NaN then; and
        n_nonlens_needed, as `nonlenses_needed` says.

    Raises:
        UndefinedMetric: If a class is empty.
        RunError: If a prevalence is not in (0, 1), or N not in 1 to `n_survey`.

    Reference:
        Rubin (1981); Clopper & Pearson (1934).
    """
    labels, scores = metrics.check(labels, scores)
    metrics.require_classes(labels)
    for prevalence in prevalences:
        _check_prevalence("prevalence", prevalence)
    if not len(inspected) or min(inspected) < 1 or max(inspected) > n_survey:
        raise RunError(f"inspected is {inspected}, expected numbers from 1 to {n_survey}")
    ranked = _rank(labels, scores)
    fractions = np.asarray(inspected) / n_survey
    curves = _draw_curves(ranked, prevalences, fractions, draws, np.random.default_rng(seed))
    rows = []
    for k, prevalence in enumerate(prevalences):
        true = ranked.lenses / ranked.lenses[-1], ranked.others / ranked.others[-1]
        best = _share(*true, prevalence, fractions)
        for j, n in enumerate(inspected):
            ends = curves[:, :, k, j] * prevalence * n_survey / n  # (draws, end), purities
            row = _row(ranked, prevalence, n, n_survey, best[j], ends, seed, level)
            needed = nonlenses_needed(n, prevalence=prevalence, n_survey=n_survey)
            rows.append(row | {"n_nonlens_needed": needed})
    return pd.DataFrame(rows)


def nonlenses_needed(inspected, *, prevalence, n_survey, level=0.95):
    """Compute how large a sample must be to support what is said of the best N objects.

    Args:
        inspected: Number N of objects to inspect.
        prevalence: Fraction of lenses in the survey, in (0, 1).
        n_survey: Objects in the survey.
        level: Coverage of the bound of the false-positive rate.

    Returns:
        Non-lenses without one false positive that bound the false ones of N so that half of the
        lenses that N objects can hold have room.

    Raises:
        RunError: If `prevalence` is not in (0, 1).
    """
    _check_prevalence("prevalence", prevalence)
    room = inspected - min(inspected, prevalence * n_survey) / 2
    rate = min(room / ((1 - prevalence) * n_survey), 1 - 1e-12)
    return math.ceil(math.log(1 - level) / math.log1p(-rate))


def chance_of_sample(labelled, others):
    """Return how often a random sample would differ as much from the rest as labelled objects do.

    Args:
        labelled: Logits of the objects that have a label, shape (n,).
        others: Of the rest, shape (m,); 1 is returned if there is none.

    Returns:
        p of the two-sided test of Kolmogorov and Smirnov.
    """
    if not len(others):
        return 1.0
    return float(scipy.stats.ks_2samp(labelled, others).pvalue)


def warnings(found, n_nonlens):
    """Say what the sample cannot support.

    Args:
        found: Table of `lenses_found`.
        n_nonlens: Non-lenses of the sample.

    Returns:
        List of sentences, one a prevalence for which a number is undetermined, and one a
        prevalence for which one rests on few false positives.
    """
    lines = []
    for begun, part in _by_prevalence(found, "undetermined"):
        lines.append(
            f"{begun} are undetermined: "
            f"{n_nonlens} non-lenses show no false-positive rate below "
            f"{false_positive_bound(0, n_nonlens):.2g} (95 %); for the first "
            f"{part['inspected'].min()} label {part['n_nonlens_needed'].max()} or more"
        )
    for begun, _ in _by_prevalence(found, "few"):
        lines.append(
            f"{begun} rest on fewer than {ENOUGH} false positives of the sample: go by low and high"
        )
    return lines


def _by_prevalence(found, status):
    """Yield the beginning of a sentence, and the rows it is of, for each prevalence."""
    rows = found[found["status"].str.startswith(status)]
    for prevalence, part in rows.groupby("prevalence", sort=False):
        numbers = ", ".join(map(str, part["inspected"]))
        yield f"at prevalence {prevalence:g} the lenses among the first {numbers}", part


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Lenses and others counted from the highest score down, at the ends of ties, from 0."""

    lenses: np.ndarray  # shape (distinct scores + 1,), int64
    others: np.ndarray


def _rank(labels, scores):
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    found = labels[order].cumsum()[ends], (1 - labels[order]).cumsum()[ends]
    return _Ranked(*(np.append(0, each) for each in found))


def _draw_curves(ranked, prevalences, fractions, draws, rng):
    """Return completeness at the fractions inspected, (draws, 2, prevalences, fractions).

    Of the two, the first has an unseen non-lens at the top and an unseen lens at the bottom.
    """
    out = np.empty((draws, 2, len(prevalences), len(fractions)))
    for row in out:
        lens, other = (np.append(0, rng.exponential(size=n + 1).cumsum())
                       for n in (ranked.lenses[-1], ranked.others[-1]))  # fmt: skip
        lens, other = lens / lens[-1], other / other[-1]
        worst = lens[ranked.lenses], other[ranked.others + 1]
        best = lens[ranked.lenses + 1], other[ranked.others]
        # What is unseen goes on top, before anything that the sample holds, or below all of it.
        curves = [(np.append(np.append(0, x), 1), np.append(np.append(0, y), 1))
                  for x, y in (worst, best)]  # fmt: skip
        for end, (x, y) in enumerate(curves):
            for k, prevalence in enumerate(prevalences):
                row[end, k] = _share(x, y, prevalence, fractions)
    return out


def _share(lenses, others, prevalence, fractions):
    """Return the fraction of the lenses among the best fractions of a survey."""
    called = prevalence * lenses + (1 - prevalence) * others
    return np.interp(fractions, called, lenses)


def _row(ranked, prevalence, n, n_survey, complete, ends, seed, level):
    tails = (1 - level) / 2, (1 + level) / 2
    rng = np.random.default_rng([seed, n])
    ends = np.clip(ends, 0, 1)
    low, high = np.quantile(ends[:, 0], tails[0]), np.quantile(ends[:, 1], tails[1])
    found = rng.binomial(n, ends)
    lenses = [np.quantile(found[:, k], tails[k], method=("lower", "higher")[k]) for k in (0, 1)]
    purity = complete * prevalence * n_survey / n
    # How many non-lenses of the sample score at least as high as the last object inspected.
    total = ranked.others[-1]
    false = n / n_survey - prevalence * complete
    n_false = math.floor(total * false / (1 - prevalence) + 1e-9)
    below = false_positive_bound(n_false, total)
    status = "measured"
    if n_false < ENOUGH:
        status = f"few: {n_false} of the {total} non-lenses score as high; go by low and high"
    if n_false == 0 and high > FACTOR * low:
        status = f"undetermined: the {total} non-lenses tell no false-positive rate so low"
        purity = complete = math.nan
    return {
        "prevalence": prevalence, "inspected": n,
        "lenses": n * purity, "low": float(lenses[0]), "high": float(lenses[1]),
        "purity": purity, "purity_low": float(low), "purity_high": float(high),
        "completeness": float(complete),
        "false_per_lens": _false_per_lens(purity), "false_per_lens_low": _false_per_lens(high),
        "false_per_lens_high": _false_per_lens(low),
        "n_false_in_sample": n_false, "false_positive_rate_below": below, "status": status,
    }  # fmt: skip


def _false_per_lens(purity):
    return math.inf if purity == 0 else float((1 - purity) / purity)


def _platt(labels, logits):
    """Fit 1 / (1 + exp(-(slope x + intercept))) to Platt's targets, which no sample separates."""
    lenses, others = labels.sum(), len(labels) - labels.sum()
    target = np.where(labels == 1, (lenses + 1) / (lenses + 2), 1 / (others + 2))
    center, spread = logits.mean(), logits.std() or 1.0
    x = np.tile((logits - center) / spread, 2)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    # A target between 0 and 1 is a lens of that weight and a non-lens of the rest.
    model.fit(x, np.repeat([1, 0], len(labels)), np.concatenate([target, 1 - target]))
    slope = float(model.coef_[0, 0] / spread)
    intercept = float(model.intercept_[0] - slope * center)
    return lambda new: scipy.special.expit(slope * new + intercept), slope, intercept


def _isotonic(labels, logits):
    model = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    least = 1 / (len(labels) + 2)  # ASSUMED: rule of succession, so that nothing is certain
    return lambda new: np.clip(model.predict(new), least, 1 - least), None, None


def _parts(probabilities, bins):
    order = np.argsort(probabilities, kind="stable")
    return [part for part in np.array_split(order, max(bins, 1)) if len(part)]


def _check_prevalence(name, value):
    if not 0 < value < 1:
        raise RunError(f"{name} is {value}, expected a fraction between 0 and 1")
