"""Figures of the papers from scores.csv and metrics.csv; every title says which data it shows."""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cast_lens import intervals
from cast_lens import metrics as metrics_
from cast_lens.run import write_whole

# Okabe & Ito (2008): told apart with any color vision.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


def means_with_errors(values, path, *, title, ylabel, reported=None, chance=None):
    """Draw each experiment's mean over runs with its standard deviation, and the runs themselves.

    Args:
        values: {experiment: values of its runs}.
        path: PNG to write.
        title: Names the paper's figure and the data, real or stand-in.
        ylabel: Quantity and unit.
        reported: {experiment: values the paper reports, one or one a run}, drawn beside ours.
        chance: Value of random ranking, drawn as a line.
    """
    figure, axes = figure_with_axes(8.5, 4.8)
    for place, (name, runs) in enumerate(values.items()):
        runs = np.asarray(runs, dtype=float).ravel()
        color = COLORS[place % len(COLORS)]
        spread = np.linspace(-0.28, -0.12, len(runs))
        axes.plot(place + spread, runs, ".", color=color, alpha=0.5, markersize=5)
        axes.errorbar(
            place, runs.mean(), runs.std(ddof=1), fmt="o", color=color, capsize=5, markersize=7
        )
        said = np.asarray((reported or {}).get(name, []), dtype=float)
        if len(said):
            error = said.std(ddof=1) if len(said) > 1 else 0.0
            axes.errorbar(
                place + 0.22, said.mean(), error, fmt="D", color="0.35", mfc="white", capsize=3
            )
    axes.plot([], [], "o", color="0.2", label="here: mean and sd of the runs (small dots)")
    if reported:
        axes.plot([], [], "D", color="0.35", mfc="white", label="the authors' own numbers")
    if chance is not None:
        axes.axhline(chance, color="0.5", ls=":", label="random ranking")
    axes.set_xticks(range(len(values)), [name.replace(".", "\n", 1) for name in values])
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center right", frameon=False, fontsize=9)
    save(figure, path)


def completeness(tables, path, *, title, n_train):
    """Draw completeness against the number of objects inspected, with 95 % intervals over the runs.

    Args:
        tables: {experiment: score table}; every run scores equally many objects.
        path: PNG to write.
        title: Names the data, real or stand-in.
        n_train: Objects trained on in a run, for the overlap of runs in the intervals.
    """
    figure, axes = figure_with_axes(8.5, 5.4)
    for place, (name, table) in enumerate(tables.items()):
        found = [
            metrics_.completeness_curve(part["label"], part["score"])
            for _, part in table.groupby("run")
            if part["label"].any()
        ]
        fraction = np.array([lenses / lenses[-1] for lenses in found])  # (runs, objects)
        inspected = np.arange(1, fraction.shape[1] + 1)
        color, mean = COLORS[place % len(COLORS)], fraction.mean(axis=0)
        axes.plot(inspected, mean, color=color, label=name, lw=1.4)
        shown = np.array([n for n in (3, 10, 30, 100, 300) if n <= len(inspected)]) - 1
        bounds = _bands(fraction[:, shown], n_train, fraction.shape[1])
        beside = inspected[shown] * 1.025 ** (place - len(tables) / 2)  # not on top of one another
        axes.vlines(beside, *bounds, color=color, lw=1.6, alpha=0.8)
    axes.plot(inspected, inspected / inspected[-1], color="0.5", ls=":", label="random ranking")
    axes.axvline(100, color="0.7", lw=0.8)
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axes.set_xlim(1, inspected[-1])
    axes.set_ylim(0, 1)
    axes.set_xlabel("objects inspected, best first (bars: 95 % interval of the mean)")
    axes.set_ylabel("completeness (fraction of all test lenses)")
    axes.set_title(title)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    save(figure, path)


def learning_curves(frames, path, *, metrics, title, n_train, n_test):
    """Draw metrics against the number of labels bought, one panel a metric, one line a strategy.

    Args:
        frames: {strategy: table of `table.evaluate`, its n_train the labels bought}.
        path: PNG to write.
        metrics: Metrics to draw.
        title: Names the data, real or stand-in.
        n_train: Objects of a run's training part, for the overlap of runs in the error bars.
        n_test: Objects scored in a run.
    """
    figure, panels = figure_with_axes(5.2 * len(metrics), 5.0, len(metrics))
    for axes, metric in zip(np.atleast_1d(panels), metrics):
        for place, (name, frame) in enumerate(frames.items()):
            color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
            spent, values = curve(frame, metric)
            style = "--" if place % 2 else "-"  # so that one line under another still shows
            mean = values.mean(axis=0)
            axes.plot(spent, mean, style, color=color, marker=marker, ms=4, label=name)
            low, high = _bands(values[:, -1:], n_train, n_test)
            shift = spent[-1] * (1.03 + 0.012 * place)  # beside one another, not on top
            axes.plot([shift, shift], [low[0], high[0]], color=color, lw=2, alpha=0.7)
        axes.set_xlabel("labels spent (bars: 95 % interval at the end)")
        axes.set_title(metric.replace("_", " "), fontsize=10)
    np.atleast_1d(panels)[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title)
    save(figure, path)


def curve(frame, metric):
    """Return the training sizes, (steps,), and values of one metric, (runs, steps)."""
    part = frame[frame["metric"] == metric].pivot(index="run", columns="n_train", values="value")
    return part.columns.to_numpy(), part.to_numpy()


def figure_with_axes(width, height, panels=1):
    """Return a figure without a display, and its panels beside one another.

    Args:
        width: Inches.
        height: Inches.
        panels: Number of panels.

    Returns:
        The Figure, and its Axes: one, or an array of shape (panels,) of more.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels)
    for each in np.atleast_1d(axes):
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.2)
    return figure, axes


def save(figure, path):
    """Write a figure as PNG, whole or not at all, with the same bytes each time.

    Along an axis called epoch it marks whole numbers alone.

    Args:
        figure: Figure of `figure_with_axes`.
        path: PNG to write; its folder is made if need be.
    """
    for axis in (axes.xaxis for axes in figure.axes if axes.get_xlabel() == "epoch"):
        if isinstance(axis.get_major_locator(), MaxNLocator):
            axis.get_major_locator().set_params(integer=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _bands(values, n_train, n_test):
    """Return 95 % bounds of every column's mean over the runs; NaN, so not drawn, for one run."""
    if len(values) < 2:
        return np.full((2, np.shape(values)[1]), np.nan)
    bounds = [
        intervals.mean_interval(column, n_train=n_train, n_test=n_test)
        for column in np.asarray(values).T
    ]
    return np.array([bound.low for bound in bounds]), np.array([bound.high for bound in bounds])
