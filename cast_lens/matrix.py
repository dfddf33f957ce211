"""Every network on every labelled data set: how far each of them carries.

    <folder>/cells/<network>--<data set>/   scored candidates, as `cast-lens score` writes them
    <folder>/matrix.csv                     a row a cell: AUC, its interval, what is known of it
    <folder>/pairs.csv                      a row a pair of networks on a data set: DeLong's test
    <folder>/matrix.md, matrix.png          the same to read

A cell that is there is not scored again. Where a network was trained on the survey of a data set,
the cell and every pair with it say so; where it is not known, they say that.
"""

import itertools
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from tqdm import tqdm

from cast_lens import candidates, figures, intervals, metrics, run, score_shards, scoring, shortcuts
from cast_lens.drawings import plain
from cast_lens.images import ImagesError
from cast_lens.pack_files import csv_text

LEVEL = 0.95  # of all intervals
TRAINED, OTHER, UNKNOWN = "trained on this", "no", "not known"
MARKS = {TRAINED: "†", OTHER: "", UNKNOWN: "?"}
LEGEND = (
    "† the network was trained on images of this survey: no test of how it carries over. "
    "? not known whether it was. AUC with DeLong's 95 % interval."
)
CELL = ("network", "data", "survey", "trained_on_this", "n", "n_lens", "n_left_out", "auc", "low",
        "high", "weights", "note")  # fmt: skip
PAIR = ("data", "network_a", "network_b", "n", "auc_a", "auc_b", "difference", "low", "high", "p",
        "p_holm", "trained_a", "trained_b")  # fmt: skip


class MatrixError(run.RunError):
    """Networks or data sets that make no matrix; says which, what was found and what to do."""


# What one cell can lack while the others are sound.
_NO_CELL = (ImagesError, scoring.ScoringError, metrics.UndefinedMetric, shortcuts.ShortcutError,
            MatrixError)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entrant:
    """A network.

    Attributes:
        name: Of the row.
        network: As `scoring.score` takes it.
        survey: What it was trained on; "" if that is not known.
    """

    name: str
    network: Any
    survey: str


@dataclass(frozen=True, eq=False)
class DataSet:
    """Labelled images.

    Attributes:
        name: Of the column.
        images: Images, or a function of the names of the bands that are wanted.
        survey: Of which these are; "" if that is not known, unless the name tells it.
        labels: Table of object_id and label, or None where the images have labels.
        take: As for `scoring.score`.
    """

    name: str
    images: Any
    survey: str = ""
    labels: Path | None = None
    take: Any = None


def entrants(named=(), *, manifest=None):
    """List networks: those named, or every released one that is described.

    Args:
        named: Names of releases, or files or folders with a description beside them.
        manifest: Path of the list of releases; None for that of this package.

    Returns:
        List of Entrant; what was not trained on real images says so in its name.

    Raises:
        DataError: If a description or the manifest is missing.
        RunError: As `networks.read_description`.
    """
    from cast_lens import networks, weights, weights_files

    manifest = Path(manifest or weights.MANIFEST)
    listed = weights.read_manifest(manifest) if manifest.exists() else {}
    where = partial(weights_files.described, manifest=manifest)
    if not named:  # those without a description a reproduction alone can build
        named = [name for name in listed if where(name).exists()]
    found = []
    for name in named:
        fields = networks.read_description(where(name))
        found.append(Entrant(fields["name"], str(name), fields["survey"]))
    return found


def is_trained_on(network_survey, data_survey):
    """Return whether a network was trained on a survey: `TRAINED`, `OTHER` or `UNKNOWN`.

    Surveys are the same if one's words begin with all of the other's: "sglc2" and "SGLC2, held
    out". A part of a survey that was held out is marked too: it shares what is peculiar to it.

    Args:
        network_survey: What the network was trained on; several, separated by ";".
        data_survey: Of the images.
    """
    wanted = _words(data_survey)
    known = [_words(survey) for survey in network_survey.split(";")]
    for words in known:
        n = min(len(words), len(wanted))
        if n and (words[:n] == wanted[:n] or "".join(words) == "".join(wanted)):
            return TRAINED
    return OTHER if wanted and all(known) else UNKNOWN


def build(
    networks, datasets, folder, *, clip="released", dihedral=False, engine="auto", batch=16,
    shard=2000, workers=1, strict=False, restart=False, progress=True, dry_run=False,
):  # fmt: skip
    """Score every network on every data set, or go on, and write the matrix.

    Args:
        networks: List of Entrant.
        datasets: List of DataSet.
        folder: Where to.
        clip: As for `scoring.score`, as are all others but `dry_run`.
        dihedral: See clip.
        engine: See clip.
        batch: See clip.
        shard: See clip.
        workers: See clip.
        strict: See clip.
        restart: See clip.
        progress: See clip.
        dry_run: Write nothing, and return the cells with a note of what would be done.

    Returns:
        DataFrame of `CELL`, and one of `PAIR`. A cell that cannot be has no AUC, and a note.

    Raises:
        MatrixError: If names are not different, or there is no network or no data set.
        RunError: If a cell was begun differently, or another process is at it.
    """
    _check_names(networks, datasets)
    folder, cells, scored = Path(folder), [], {}
    options = {"clip": clip, "dihedral": dihedral, "engine": engine, "batch": batch,
               "shard": shard, "workers": workers, "strict": strict, "restart": restart,
               "progress": progress}  # fmt: skip
    places = list(itertools.product(networks, datasets))
    if dry_run:
        return pd.DataFrame([_plan(folder, *place) for place in places], columns=CELL), None
    opened: dict[str, Any] = {}
    for entrant, data in tqdm(places, "matrix", unit="cell", leave=False, disable=not progress):
        row, table = _cell(folder, entrant, data, opened, options)
        cells.append(row)
        if table is not None:
            scored[entrant.name, data.name] = table
    table = pd.DataFrame(cells, columns=CELL)
    pairs = compare(scored, table)
    run.write_whole(folder / "matrix.csv", csv_text(table))
    run.write_whole(folder / "pairs.csv", csv_text(pairs))
    run.write_whole(folder / "matrix.md", markdown(table, pairs))
    draw(table, folder / "matrix.png")
    return table, pairs


def compare(scored, cells):
    """Test every pair of networks on each data set, on the objects that both scored.

    Args:
        scored: {(network, data set): DataFrame of object_id, logit and label}.
        cells: DataFrame of `CELL`.

    Returns:
        DataFrame of `PAIR`: difference of the AUCs, a minus b, with its 95 % interval, p of
        DeLong's paired test, and p_holm, corrected for all pairs of the table.

    Reference:
        DeLong, DeLong & Clarke-Pearson (1988); Holm (1979).
    """
    marks = cells.set_index(["network", "data"])["trained_on_this"]
    half, rows = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)), []
    for data in dict.fromkeys(cells["data"]):
        names = [name for name, other in scored if other == data]
        for a, b in itertools.combinations(names, 2):
            both = scored[a, data].merge(scored[b, data][["object_id", "logit"]], on="object_id")
            try:
                found = intervals.delong(both["label"], both["logit_x"], both["logit_y"])
            except metrics.UndefinedMetric:  # of so few that both scored
                continue
            error = half * found.standard_error
            rows.append((data, a, b, len(both), found.auc_a, found.auc_b, found.difference,
                         found.difference - error, found.difference + error, found.p, np.nan,
                         marks[a, data], marks[b, data]))  # fmt: skip
    pairs = pd.DataFrame(rows, columns=PAIR)
    return pairs.assign(p_holm=holm(pairs["p"].to_numpy(np.float64)))


def holm(p):
    """Correct p values for their number so that all wrong rejections are as rare as one.

    Args:
        p: Shape (tests,).

    Returns:
        Adjusted p values, shape (tests,).

    Reference:
        Holm (1979).
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def markdown(cells, pairs):
    """Return the matrix, what its marks mean, and the paired tests, in Markdown."""
    names = list(dict.fromkeys(cells["data"]))
    lines = ["| network | " + " | ".join(map(_cell_text, names)) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for network, part in cells.groupby("network", sort=False):
        rows = part.set_index("data").to_dict("index")
        texts = [_shown(rows[name]) for name in names]
        lines.append(f"| {_cell_text(network)} | " + " | ".join(texts) + " |")
    lines += ["", LEGEND]
    for row in cells[cells["note"] != ""].itertuples():
        lines.append(f"- {row.network} on {row.data}: {row.note}")
    if len(pairs):
        lines += ["", "| data set | a | b | objects | AUC a - b | p | p (Holm) |", "|---" * 7 + "|"]
    for row in pairs.itertuples():
        a, b = (f"{_cell_text(n)}{MARKS[mark]}" for n, mark in
                ((row.network_a, row.trained_a), (row.network_b, row.trained_b)))  # fmt: skip
        lines.append(
            f"| {_cell_text(row.data)} | {a} | {b} | {row.n} | {row.difference:+.4f} "
            f"({row.low:+.4f} to {row.high:+.4f}) | {row.p:.2g} | {row.p_holm:.2g} |"
        )
    return "\n".join(lines) + "\n"


def draw(cells, path):
    """Draw the matrix as a heat map; hatched where a network was trained on the survey.

    Args:
        cells: DataFrame of `CELL`.
        path: PNG to write.
    """
    networks, data = (list(dict.fromkeys(cells[name])) for name in ("network", "data"))
    values = cells["auc"].to_numpy(np.float64).reshape(len(networks), len(data))
    figure, axes = figures.figure_with_axes(3.2 + 1.7 * len(data), 2.2 + 0.8 * len(networks))
    axes.grid(False)
    picture = axes.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0.5, vmax=1,
                          aspect="auto")  # fmt: skip
    axes.set_facecolor("0.9")
    for place, row in enumerate(cells.to_dict("records")):
        y, x = divmod(place, len(data))
        lit = row["auc"] > 0.74  # black on yellow, white on blue
        color = "black" if lit or not np.isfinite(row["auc"]) else "white"
        if row["trained_on_this"] == TRAINED:
            axes.fill([x - 0.5, x + 0.5, x + 0.5, x - 0.5], [y - 0.5, y - 0.5, y + 0.5, y + 0.5],
                      fill=False, hatch="//", edgecolor=color, lw=0, alpha=0.25)  # fmt: skip
        axes.text(x, y, _shown(row).replace(" (", "\n("), color=color, ha="center", va="center",
                  fontsize=9, fontweight="bold")  # fmt: skip
    axes.set_xticks(range(len(data)), [plain(name) for name in data])
    axes.set_yticks(range(len(networks)), [plain(name) for name in networks])
    axes.tick_params(length=0)
    figure.colorbar(picture, label="ROC AUC", extend="min")
    figure.suptitle("networks (rows) on data sets (columns)", fontsize=11)
    figure.supxlabel(
        "† hatched: trained on this survey;  ?: not known whether;  in brackets: 95 % interval",
        fontsize=8,
    )
    figures.save(figure, path)


def _cell(folder, entrant, data, opened, options):
    """Return a row of `CELL`, and the scored objects with their labels, or None."""
    row = _row(entrant, data)
    try:
        images = _labelled_images(data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            about = scoring.score(
                images, _once(entrant, opened, options), _place(folder, entrant, data),
                take=data.take, **options,
            )  # fmt: skip
        table = candidates.read(_place(folder, entrant, data))[["object_id", "logit", "label"]]
        row["note"] = "; ".join(dict.fromkeys(str(w.message) for w in caught if _is_ours(w)))
        row |= {"n": len(table), "n_lens": int(table["label"].sum()),
                "n_left_out": sum(about["audit"]["n_left_out"].values()),
                "weights": scoring.weights_of(about["network"])}  # fmt: skip
        interval = intervals.delong_interval(table["label"], table["logit"], level=LEVEL)
        auc = metrics.roc_auc(table["label"], table["logit"])
        return row | {"auc": auc, "low": interval.low, "high": interval.high}, table
    except _NO_CELL as error:
        if options["strict"]:
            raise
        return row | {"note": str(error)}, None


def _labelled_images(data):
    """Return the Images of a data set with labels, or a function of bands that does."""

    def ready(images):
        if data.labels is not None:
            return shortcuts.with_labels(images, data.labels)
        if "label" not in images.table:  # said before anything is scored
            raise MatrixError(
                f"{images.source}: found no labels, expected 0 or 1 for each object; give --labels "
                "NAME=TABLE, or --label-column"
            )
        return images

    return (
        (lambda bands: ready(data.images(bands))) if callable(data.images) else ready(data.images)
    )


def _once(entrant, opened, options):
    """Return a network as `scoring.score` takes it, opened once for all data sets."""
    if options["workers"] > 1:  # each of which opens its own
        return entrant.network

    def scorer():
        if entrant.name not in opened:
            opened.clear()  # one at a time is in memory
            opened[entrant.name] = score_shards.open_scorer(entrant.network, options["engine"])
        return opened[entrant.name]

    return scorer


def _row(entrant, data):
    mark = is_trained_on(entrant.survey, data.survey or data.name)
    if mark == OTHER and not data.survey:  # a name of one's own tells nothing
        mark = UNKNOWN
    empty: dict[str, Any] = dict.fromkeys(("n", "n_lens", "n_left_out"), 0)
    empty |= dict.fromkeys(("auc", "low", "high"), np.nan) | {"weights": "", "note": ""}
    return {"network": entrant.name, "data": data.name, "survey": data.survey,
            "trained_on_this": mark} | empty  # fmt: skip


def _plan(folder, entrant, data):
    is_there = (_place(folder, entrant, data) / candidates.ABOUT).exists()
    return _row(entrant, data) | {"note": "is there" if is_there else "would be scored"}


def _place(folder, entrant, data):
    return folder / "cells" / f"{_slug(entrant.name)}--{_slug(data.name)}"


def _check_names(networks, datasets):
    for what, items in (("network", networks), ("data set", datasets)):
        names = [_slug(item.name) for item in items]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise MatrixError(
                f"found {'no ' + what if not names else what + ' ' + twice[0] + ' twice'}, "
                f"expected each {what} once, by a name of its own; name it"
            )


def _shown(row):
    if not np.isfinite(row["auc"]):
        return "-" + MARKS[row["trained_on_this"]]
    return (
        f"{row['auc']:.3f}{MARKS[row['trained_on_this']]} ({row['low']:.3f} to {row['high']:.3f})"
    )


def _is_ours(warning):
    return issubclass(warning.category, UserWarning)


def _slug(name):
    return re.sub(r"[^\w.-]+", "_", name)


def _words(survey):
    return re.findall(r"[a-z0-9]+", survey.lower())


def _cell_text(text):
    return str(text).replace("|", r"\|")
