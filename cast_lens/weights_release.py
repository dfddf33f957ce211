"""Weights for others: small files of arrays, and what halving their numbers costs; see weights."""

import csv
import dataclasses
import hashlib
import io
import json
import re
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from safetensors.numpy import save

from cast_lens import checkpoints, intervals, metrics, provenance, run
from cast_lens.data import DataError
from cast_lens.run import RunError
from cast_lens.weights_files import COLUMNS, MANIFEST, ORIGINS, WeightsFile, read_manifest

MAX_FILE = 16 << 20  # bytes; each file of a release is smaller
ABOUT = (
    "url", "survey", "data", "network", "paper", "experiment", "scale", "metric", "commit",
    "source", "licence", "card",
)  # fmt: skip

METRICS = "metrics.csv"  # the scores of all cards
# By which networks for the first challenge are measured: the first, and what the challenge ranked.
FIRST_CHALLENGE = {
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "tpr0": partial(metrics.tpr_at_false_positives, n_false=0),
    "tpr10": partial(metrics.tpr_at_false_positives, n_false=10),
}
TOLERANCE = 2e-3  # ASSUMED: what another processor's rounding may change of a metric

_HEADER = 1 << 17  # bytes left for the names of tensors


def release(model, folder, name, about, *, inputs):
    """Write weights for others: kernels in float16, everything else as it is, and the manifest.

    There is a file for each model nested in `model` and one for what is left, the head; more
    where one would have `MAX_FILE` bytes.

    Args:
        model: keras.Model with finite weights.
        folder: Of manifest.csv and of the files.
        name: Of the release: lower-case letters, digits and hyphens. It is given once.
        about: {word: text} of `ABOUT`; the url is that of the folder of files, or "".
        inputs: Images as `model.predict` takes them, to measure what float16 loses.

    Returns:
        The rows, list of WeightsFile, and the largest relative difference of a score.

    Raises:
        RunError: If a name or word is not as it should be, a weight is not finite or beyond
            float16, or the name was given to other weights. Nothing is written then.
    """
    if not re.fullmatch("[a-z0-9-]+", name) or set(about) != set(ABOUT):
        expected = f"lower-case letters, digits and hyphens, and the words {', '.join(ABOUT)}"
        raise RunError(f"release {name!r}: found the words {', '.join(about)}, expected {expected}")
    if about["data"] not in ORIGINS:
        raise RunError(f"release {name}: data is {about['data']!r}, expected one of {ORIGINS}")
    whole = checkpoints.arrays(model.weights)
    half = {key: _halve(key, array) for key, array in whole.items()}
    loss = _loss_of_half(model, whole, half, inputs)
    words = {key: text for key, text in about.items() if key != "url"}
    told = json.dumps({"name": name, "float16_loss": f"{loss:.2g}"} | words, sort_keys=True)
    files = {
        f"{name}-{part}.safetensors": save({key: half[key] for key in keys}, {"about": told})
        for part, keys in _parts(model, half)
    }
    rows = [_row(name, file, content, about) for file, content in files.items()]
    _publish(rows, files, Path(folder))
    return rows, loss


def commit_of(folder):
    """Return the commit that a run was last gone on with, or that of here if no run tells one."""
    path = Path(folder) / run.ORIGIN
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))[-1]["commit"]
    return provenance.here()["commit"]


def write_metrics(rows, folder):
    """Put the scores of a card into metrics.csv, in the place of those of the same release.

    Args:
        rows: Of one release: name, survey, metric, value, low and high.
        folder: Of the file.
    """
    path = folder / METRICS
    told = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(rows[0]))
    kept = told[told["name"] != rows[0]["name"]]
    found = pd.DataFrame(rows) if kept.empty else pd.concat([kept, pd.DataFrame(rows)])
    run.write_whole(path, found.to_csv(index=False, lineterminator="\n"))


def measure(name, survey, labels, values, wanted, *, draws, seed):
    """Measure scores; return rows for `write_metrics`, with 95 % intervals by the bootstrap.

    Args:
        name: Of the release.
        survey: Words for the objects.
        labels: Shape (objects,).
        values: Scores or logits, shape (objects,).
        wanted: {metric: function of labels and scores}.
        draws: Of the bootstrap.
        seed: Likewise.
    """
    bounds = intervals.bootstrap(labels, values, wanted, draws=draws, seed=seed)
    return [
        {"name": name, "survey": survey, "metric": row["metric"], "value": row["value"],
         "low": bounds[row["metric"]].low, "high": bounds[row["metric"]].high}
        for row in metrics.evaluate(labels, values, wanted)
    ]  # fmt: skip


def release_measured(model, folder, name, about, *, inputs, exact, measure):
    """Release weights as `release`, measure them, and write their rows of metrics.csv.

    Args:
        model: As for `release`.
        folder: Likewise.
        name: Likewise.
        about: Likewise.
        inputs: Likewise.
        exact: Rows as of `measure`, with a roc_auc, of the network before it is released.
        measure: Function without arguments that returns those of the released one.

    Returns:
        The rows, and what float16 changes as a card tells it: {"loss": largest relative difference
        of a score, "area": what is added to the roc_auc}.
    """
    _, loss = release(model, folder, name, about, inputs=inputs)
    rows = measure()
    write_metrics(rows, folder)
    before, after = (next(row["value"] for row in found if row["metric"] == "roc_auc")
                     for found in (exact, rows))  # fmt: skip
    return rows, {"loss": loss, "area": f"{after - before:+.1g}"}


def title(source):
    """Return what a packed stand-in is called: mock-sglc2-seed2, with the number of its objects."""
    return f"{source.folder.name.removesuffix('-pack')}, {len(source.catalog)} objects"


def metrics_lines(rows):
    """Return the scores of a card as lines of a Markdown table; `rows` as for `write_metrics`."""
    return "\n".join(
        f"| {row['metric']} | {row['value']:.4f} | {row['low']:.4f} | {row['high']:.4f} |"
        for row in rows
    )


def hold_metrics(rows, folder):
    """Print scores that were measured again, each beside that on its card.

    Args:
        rows: As for `write_metrics`.
        folder: Of metrics.csv.

    Raises:
        DataError: If they are of other objects.
        RunError: If one is not that of the card, or another is missing there.
    """
    name, differ = rows[0]["name"], 0
    told = pd.read_csv(folder / METRICS)
    told = told[told["name"] == name].set_index("metric")
    for row in rows:
        if row["metric"] not in told.index:
            raise RunError(f"{name}: {row['metric']} is not on its card; release it anew")
        known = told.loc[row["metric"]]
        if known["survey"] != row["survey"]:
            raise DataError(f"found {row['survey']}, expected {known['survey']}, of the card")
        is_equal = np.isclose(row["value"], known["value"], rtol=0, atol=TOLERANCE, equal_nan=True)
        differ += not is_equal
        word = "equal" if is_equal else "DIFFERENT"
        print(f"{name} {row['metric']}: {row['value']:.5f}, on its card {known['value']}: {word}")
    if differ:
        raise RunError(f"{differ} of {len(rows)} metrics of {name} are not those of its card")


def _publish(rows, files, folder):
    """Write the files, then their rows; what has been released keeps its bytes."""
    manifest = folder / MANIFEST.name
    releases = read_manifest(manifest) if manifest.exists() else {}
    name = rows[0].name
    if name in releases and releases[name] != rows:
        raise RunError(f"{manifest}: {name} was released with other weights; choose another name")
    for file, content in files.items():
        run.write_whole(folder / file, content)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for listed in (releases | {name: rows}).values():
        table.writerows(map(dataclasses.astuple, listed))
    run.write_whole(manifest, text.getvalue())


def _row(name, file, content, about):
    if len(content) >= MAX_FILE:
        raise RunError(f"{file} would have {len(content)} bytes, expected less than {MAX_FILE}")
    url = about["url"] and f"{about['url'].rstrip('/')}/{file}"
    digest = hashlib.sha256(content).hexdigest()
    return WeightsFile(**(about | {"url": url}), name=name, file=file, bytes=len(content),
                       sha256=digest)  # fmt: skip


def _halve(name, array):
    """Return a kernel in float16, anything else as it is.

    Only kernels: fluxes of 1e-12, which layers that stretch images hold, would become 0.
    """
    is_kernel = name.endswith("kernel") and array.dtype == np.float32
    with np.errstate(over="ignore"):
        array = array.astype(np.float16) if is_kernel else array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RunError(f"tensor {name} holds what is no number, or is beyond float16")
    return array


def _loss_of_half(model, whole, half, inputs):
    """Return the largest relative difference that float16 makes to a score."""
    exact = np.asarray(model.predict(inputs, verbose=0), np.float64)
    try:
        checkpoints.assign(half, model.weights, where="float16", half=True)
        rounded = np.asarray(model.predict(inputs, verbose=0), np.float64)
    finally:
        checkpoints.assign(whole, model.weights, where="float32")
    loss = np.max(np.abs(rounded - exact) / np.maximum(np.abs(exact), np.finfo(np.float64).tiny))
    if not np.isfinite(loss):
        raise RunError("scores of the given inputs are no numbers; give images of the survey")
    return float(loss)


def _parts(model, half):
    """Yield a word for every file and the names of its tensors."""
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    place = {id(weight): layer.name for layer in nested for weight in layer.weights}
    groups: dict[str, list[list[str]]] = {}
    room: dict[str, int] = {}
    for name, weight in zip(half, model.weights, strict=True):
        part, size = place.get(id(weight), "head"), half[name].nbytes
        if room.get(part, -1) < size:
            groups.setdefault(part, []).append([])
            room[part] = MAX_FILE - _HEADER
        groups[part][-1].append(name)
        room[part] -= size
    for part, pieces in groups.items():
        for k, names in enumerate(pieces, 1):
            yield (part if len(pieces) == 1 else f"{part}-{k}"), names
