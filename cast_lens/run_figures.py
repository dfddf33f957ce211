"""Figures of a run for the report, drawn from its CSV files; every one says which data it shows."""

import re

import numpy as np
import pandas as pd

from cast_lens.drawings import SIZE, finish, plain
from cast_lens.figures import COLORS, figure_with_axes

CURVES = 8  # in one figure; more cannot be told apart
LINES = ["-", "--", ":", "-."]
# Experiments called by a word and a number stand for one curve along that number.
SERIES = {
    "bin": ("N_pix curve", "least N_pix of the lenses in a bin (source pixels above 1 sigma)"),
    "n": ("what a training image buys", "training images"),
}
_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<word>" + "|".join(SERIES) + r")(?P<number>\d+)")
_NO_METRIC = {"run", "epoch", "passes", "batch", "learning_rate"}  # columns of history.csv


def draw_run(found):
    """Draw the curves of a run, one figure after the other.

    Args:
        found: A `report_runs.RunFolder`.

    Yields:
        Drawings: for each family of experiments (the word before the first dot) the ROC curve with
        a logarithmic axis, precision-recall and calibration; then curves along a number in the
        experiments' names; then the training curves.
    """
    series = series_of(found.curves)
    in_series = {
        name for of_stem in series.values() for part in of_stem.values() for _, name in part
    }
    for family, names in families(found.curves, in_series).items():
        data = _kind(found.kind(experiment) for experiment, _ in names)
        shown = {" ".join(filter(None, key)): found.curves[key] for key in names}
        yield draw_roc(shown, family, data)
        yield draw_precision_recall(shown, family, data)
        if any(one.calibration is not None for one in shown.values()):
            yield draw_calibration(shown, family, data)
    for word, of_stem in series.items():
        kinds = (found.kind(name) for part in of_stem.values() for _, name in part)
        yield draw_series(found.curves, of_stem, word, _kind(kinds))
    for name, history in found.histories.items():
        yield from draw_history(history, name, found.kind(name))


def families(curves, left_out):
    """Group experiments by the word before the first dot, at most CURVES in a group.

    Args:
        curves: {(experiment, part): ScoreCurves}.
        left_out: Experiments that are not wanted.

    Returns:
        {title: list of the keys}.
    """
    groups: dict = {}
    for key in curves:
        if key[0] not in left_out:
            groups.setdefault(key[0].partition(".")[0], []).append(key)
    found = {}
    for family, keys in groups.items():
        n = -(-len(keys) // CURVES)  # as even as can be
        for k, part in enumerate(np.array_split(np.arange(len(keys)), n)):
            found[f"{family} ({k + 1} of {n})" if n > 1 else family] = [keys[i] for i in part]
    return found


def series_of(curves):
    """Return {word: {stem: [(number, experiment), ...]}} of experiments that make a curve.

    Args:
        curves: {(experiment, part): ScoreCurves}; only those without parts count.

    Returns:
        Words of SERIES for which some stem has three numbers or more, with all its stems.
    """
    found: dict = {}
    for name, part in curves:
        match = _NUMBERED.fullmatch(name)
        if match and not part:
            of_word = found.setdefault(match["word"], {})
            of_word.setdefault(match["stem"], []).append((int(match["number"]), name))
    return {
        word: {stem: sorted(places) for stem, places in of_word.items()}
        for word, of_word in found.items()
        if max(map(len, of_word.values())) > 2
    }


def draw_roc(shown, family, data):
    """Draw completeness against the logarithm of the false positive rate, down to one object.

    Args:
        shown: {name: ScoreCurves}, at most CURVES.
        family: Of the experiments, for the title.
        data: Kind of data.

    Returns:
        A Drawing.
    """
    figure, axes = figure_with_axes(*SIZE)
    n_others = max(one.n_objects - one.n_lenses for one in shown.values())
    for k, (name, one) in enumerate(shown.items()):
        area = np.mean([*one.roc_auc.values()])
        label = f"{_short(name, family)}, area {area:.3f}{_runs(one)}"
        _draw_band(axes, one.roc, k, label, "post")
    rates = np.geomspace(1 / n_others, 1, 100)
    axes.plot(rates, rates, color="0.5", ls=":", lw=0.9)
    axes.set(xscale="log", xlim=(min(1 / n_others, 0.5), 1), ylim=(0, 1.02))
    axes.set(xlabel=f"false positive rate, from 1 of {n_others}", ylabel="completeness")
    about = f"Down to one of {n_others} objects that are no lens."
    return finish(figure, f"ROC: {family}", about, data)


def draw_precision_recall(shown, family, data):
    """Draw purity against completeness; arguments and result as of `draw_roc`."""
    figure, axes = figure_with_axes(*SIZE)
    for k, (name, one) in enumerate(shown.items()):
        _draw_band(axes, one.precision_recall, k, _short(name, family) + _runs(one), "pre")
        axes.axhline(one.n_lenses / one.n_objects, color="0.5", ls=":", lw=0.9)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="completeness", ylabel="purity")
    return finish(figure, f"Precision-recall: {family}", "", data)


def draw_calibration(shown, family, data):
    """Draw the share of lenses against the mean score of a bin; as `draw_roc`."""
    figure, axes = figure_with_axes(*SIZE)
    axes.plot([0, 1], [0, 1], color="0.5", ls=":", lw=0.9)
    without = {}
    for k, (name, one) in enumerate(shown.items()):
        table = one.calibration
        if table is None:
            without[_short(name, family)] = one.why_none
            continue
        color = COLORS[k % len(COLORS)]
        axes.vlines(table["score"], table["low"], table["high"], color=color, lw=1, alpha=0.6)
        axes.plot(table["score"], table["lenses"], "o", ls=LINES[k % 4], color=color, ms=4, lw=1.2,
                  label=_short(name, family) + _runs(one))  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean score of a bin", ylabel="share of lenses")
    about = ""
    if without:
        about = "Left out: " + "; ".join(f"{name} ({why})" for name, why in without.items()) + "."
    return finish(figure, f"Calibration: {family}", about, data)


def draw_series(curves, of_stem, word, data):
    """Draw the area under the ROC curve along a number in the names of experiments.

    Args:
        curves: {(experiment, part): ScoreCurves}.
        of_stem: {stem: [(number, experiment), ...]}.
        word: Key of SERIES.
        data: Kind of data.

    Returns:
        A Drawing.
    """
    figure, axes = figure_with_axes(*SIZE)
    sizes = []
    for k, (stem, places) in enumerate(of_stem.items()):
        color, found = COLORS[k % len(COLORS)], [curves[name, ""] for _, name in places]
        numbers = np.array([number for number, _ in places])
        sizes += [one.n_objects for one in found]
        for x, one in zip(numbers, found):
            for key, area in one.roc_auc.items():
                axes.plot(x, area, ".", color=color, ms=4, alpha=0.6)
                axes.vlines(x, *one.auc_bounds[key], color=color, lw=1, alpha=0.35)
        means = [np.mean([*one.roc_auc.values()]) for one in found]
        axes.plot(
            numbers, means, "o", ls=LINES[k % 4], color=color, ms=5, lw=1.3, label=plain(stem)
        )
    axes.axhline(0.5, color="0.5", ls=":", lw=0.9)
    title, xlabel = SERIES[word]
    axes.set(xlabel=xlabel, ylabel="area under the ROC curve", ylim=(0, 1.02))
    about = " to ".join(map(str, sorted({min(sizes), max(sizes)}))) + " objects a point."
    stems = ", ".join(of_stem)
    return finish(figure, f"{title[0].upper()}{title[1:]}: {stems}", about, data)


def draw_history(history, name, data):
    """Draw the losses, and then the other metrics, of every epoch and run of an experiment.

    Args:
        history: Table of history.csv: epoch or passes, [run], and metrics.
        name: Of the experiment.
        data: Kind of data.

    Yields:
        At most two Drawings.
    """
    time = next((column for column in ("epoch", "passes") if column in history), None)
    columns = [c for c in history.select_dtypes("number") if c not in _NO_METRIC]
    if time is None:
        return
    losses = [column for column in columns if "loss" in column]
    runs = history["run"] if "run" in history else pd.Series("", index=history.index)
    for group, ylabel in ((losses, "loss"), ([c for c in columns if c not in losses], "metric")):
        if not group:
            continue
        figure, axes = figure_with_axes(*SIZE)
        for k, column in enumerate(group):
            color, mark = COLORS[k % len(COLORS)], "." if len(history) < 60 else ""
            for n, (_, part) in enumerate(history.groupby(runs, sort=False)):
                axes.plot(part[time], part[column], ls=LINES[k % 4], marker=mark, color=color,
                          lw=1.1, alpha=0.8, label="" if n else plain(column))  # fmt: skip
        axes.set(xlabel="epoch" if time == "epoch" else "passes over the data", ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        about = f"{runs.nunique()} runs, a line each." if runs.nunique() > 1 else ""
        yield finish(figure, f"Training, {ylabel}: {name}", about, data)


def _draw_band(axes, table, k, label, step):
    place, mean, low, high = (table.iloc[:, i] for i in range(4))
    color = COLORS[k % len(COLORS)]
    axes.fill_between(place, low, high, step=step, color=color, alpha=0.15, lw=0)
    axes.plot(
        place, mean, ls=LINES[k % 4], color=color, lw=1.4, drawstyle=f"steps-{step}", label=label
    )


def _kind(kinds):
    found = sorted(set(kinds))
    return found[0] if len(found) == 1 else "real and stand-in"


def _short(name, family):
    """Return the name without the family it is shown in."""
    return plain(name.removeprefix(family.partition(" (")[0]).removeprefix(".") or name)


def _runs(one):
    return f" ({one.n_runs} runs)" if one.n_runs > 1 else ""
