"""Curves and series with errors, and histograms of pixels, as the papers draw them."""

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from cast_lens.figures import COLORS, MARKERS, figure_with_axes, save


def series_with_errors(values, path, *, title, xlabel, ylabels, chance=None, order=()):
    """Draw means and standard deviations over runs, as series along one axis, a panel a metric.

    Args:
        values: {metric: {series: {place: values of the runs}}}; places are numbers, or names,
            which then stand side by side.
        path: PNG to write.
        title: Names the paper's figure and the data, real or stand-in.
        xlabel: What the places are.
        ylabels: {metric: quantity and unit}.
        chance: {metric: value of scores that know nothing}, drawn as a line.
        order: Places in the order in which they stand; others follow.
    """
    figure, panels = figure_with_axes(5.2 * len(values), 4.2, len(values))
    for axes, (metric, of_metric) in zip(np.atleast_1d(panels), values.items()):
        found = dict.fromkeys(place for runs in of_metric.values() for place in runs)
        places = [*(place for place in order if place in found), *found]
        places = list(dict.fromkeys(places))
        named = any(isinstance(place, str) for place in places)
        for k, (name, of_series) in enumerate(of_metric.items()):
            shift = (k - (len(of_metric) - 1) / 2) * 0.16 if named else 0.0
            x = [places.index(p) + shift if named else p for p in of_series]
            runs = [np.asarray(values, float) for values in of_series.values()]
            mean = [each.mean() for each in runs]
            sd = [each.std(ddof=1) if len(each) > 1 else 0.0 for each in runs]
            style = {"color": COLORS[k % len(COLORS)], "marker": MARKERS[k % len(MARKERS)]}
            line = "none" if named else "-"
            axes.errorbar(x, mean, sd, ls=line, capsize=3, markersize=5, label=name, **style)
        if named:
            axes.set_xticks(range(len(places)), [place.replace("_", "\n") for place in places])
        if chance and metric in chance:
            axes.axhline(chance[metric], color="0.5", ls=":", label="knows nothing")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabels[metric])
    np.atleast_1d(panels)[0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"{title}\nmean and sd of the runs", fontsize=11)
    save(figure, path)


def roc_and_precision_recall(tables, path, *, title):
    """Draw the ROC and the precision-recall curve of several score tables.

    Args:
        tables: {name: table of `scores.read_scores` of one run}.
        path: PNG to write.
        title: Names the paper's figure and the data, real or stand-in.
    """
    figure, (left, right) = figure_with_axes(10.4, 4.6, 2)
    for k, (name, table) in enumerate(tables.items()):
        labels, values = table["label"], table["score"]
        style = {"color": COLORS[k % len(COLORS)], "ls": ["-", "--", ":", "-."][k % 4]}
        false, true, _ = roc_curve(labels, values)
        purity, completeness, _ = precision_recall_curve(labels, values)
        left.plot(false, true, label=name, **style)
        right.plot(completeness, purity, **style)
        right.axhline(labels.mean(), color="0.5", ls=":", lw=0.8)
    left.plot([0, 1], [0, 1], color="0.5", ls=":", lw=0.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate (completeness)")
    right.set(xlabel="completeness", ylabel="purity", ylim=(0, 1.02))
    left.legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def histograms(counts, path, *, title, xlabel, ylabel="pixels"):
    """Draw histograms, a panel a band.

    Args:
        counts: {band: (edges of shape (bins + 1,), counts of shape (bins,))}.
        path: PNG to write.
        title: Names the paper's figure and the data, real or stand-in.
        xlabel: Quantity and unit.
        ylabel: What is counted.
    """
    figure, panels = figure_with_axes(max(3.6 * len(counts), 5.4), 3.4, len(counts))
    for k, (axes, (band, (edges, heights))) in enumerate(
        zip(np.atleast_1d(panels), counts.items())
    ):
        axes.stairs(heights, edges, color=COLORS[k % len(COLORS)], fill=True, alpha=0.8)
        axes.set_yscale("log")
        axes.set(title=band, xlabel=xlabel)
    np.atleast_1d(panels)[0].set_ylabel(ylabel)
    figure.suptitle(title, fontsize=11)
    save(figure, path)
