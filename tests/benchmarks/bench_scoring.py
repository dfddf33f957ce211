"""The released two-branch network scoring: its engines beside `model.predict` of the papers.

Objects a second at batches of 1, 16 and 64, in turns of a process each, in one run; images are
noise, 200x200x1 and 66x66x3, for the papers' libraries 200x200x3 and stretched already. These need
an environment of their own, `make .venv-paper/installed`, and ONNX Runtime the extra "fast". Bars:
the fastest engine at least 1.3 times as fast at 16 and 64, 3 times at 1, scores equal to 1e-5; and
all of `cast-lens score`, from FITS files to candidates, at least 0.8 times as fast as its engine.

This file is also what each process runs: with one library it must not import the other.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

NETWORK = "sglc2-stand-in-v0"
BATCHES, OBJECTS, TURNS, ROUNDS = (1, 16, 64), 64, 3, 2  # some ten minutes on two cores
FITS_BATCH, FITS_OBJECTS = 16, 768
PAPER_PYTHON = Path(".venv-paper/bin/python")
BOUNDS = {"vis": (-2e-12, 2e-11), "nir": (-3e-11, 4e-10)}  # maggies, about those of the release


def noise(shapes, n):
    """Return {branch: images of noise}, so faint that no score is 1 and their differences show."""
    rng = np.random.default_rng(0)
    return {name: 0.1 * rng.random((n, *shape), np.float32) for name, shape in shapes.items()}


def papers(n):
    """Return {"papers": function of a batch} that predicts with Keras 2, as its users do."""
    import steps  # beside this file

    variant, shapes = steps.NETWORKS["two_branch_b2"]
    model, images = steps.papers(variant, shapes), noise(shapes, n)
    return {"papers": lambda batch: model.predict(images, batch_size=batch, verbose=0)[:, 1]}


def ours(n):
    """Return {engine: function of a batch}, and "predict", the network without any of them."""
    from scipy.special import expit

    from cast_lens import fast, networks

    network = networks.open_network(NETWORK)
    images = {name: (high - low) * x + low for (name, x), (low, high) in zip(
        noise({"vis": (200, 200, 1), "nir": (66, 66, 3)}, n).items(), BOUNDS.values())}  # fmt: skip
    network.model.jit_compile = False
    engines = ["keras", "onnx"] if importlib.util.find_spec("onnxruntime") else ["keras"]

    def scorer(logits):
        return lambda batch: expit(np.concatenate(
            [logits({name: x[first : first + batch] for name, x in images.items()})
             for first in range(0, n, batch)]
        ))  # fmt: skip

    found = {engine: scorer(fast.lens_logits(network, engine)) for engine in engines}
    found["predict"] = lambda batch: network.model.predict(images, batch, verbose=0)[:, 1]
    return found


def measure(library, batch, turns, n):
    """Return {engine: objects a second of every turn}, and the largest difference of a score."""
    functions = {"ours": ours, "papers": papers}[library](n)
    found = {name: [] for name in functions}
    scores = {name: np.asarray(function(batch)) for name, function in functions.items()}
    for turn in range(turns + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function(batch)
            if turn:  # the first pays for memory, as the scores did for tracing
                found[name].append(n / (time.perf_counter() - start))
    difference = max(float(np.ptp(each)) for each in zip(*scores.values()))
    return found | {"difference": [difference]}


def from_fits(_library, batch, turns, n):
    """Return {"engine", "from_fits"}: objects a second of every turn, of the same stand-ins.

    What a run costs once, to open and to end, is taken out: n objects less half of them.
    """
    from cast_lens import fast, images, networks, scoring, survey_folder

    network, found = networks.open_network(NETWORK), {"engine": [], "from_fits": []}
    with tempfile.TemporaryDirectory() as folder:
        survey = images.find(survey_folder.stand_in("sglc2", folder, n, 0))
        arrays, _, _ = images.read_for(survey, range(n), network.branches)
        logits = fast.lens_logits(network, "auto")

        def engine():
            for first in range(0, n, batch):
                logits({name: x[first : first + batch] for name, x in arrays.items()})

        def whole(of, n_objects):
            part = replace(survey, table=survey.table.iloc[:n_objects].reset_index(drop=True))
            start = time.perf_counter()
            scoring.score(part, network, Path(folder) / of, batch=batch, progress=False)
            return time.perf_counter() - start

        engine()
        for turn in range(turns):
            start = time.perf_counter()
            engine()
            found["engine"].append(n / (time.perf_counter() - start))
            half = whole(f"half{turn}", n // 2)
            found["from_fits"].append((n - n // 2) / (whole(f"all{turn}", n) - half))
    return found


def in_a_process(library, batch, turns, n):
    """Run this file with one library; return what it prints."""
    python = PAPER_PYTHON.absolute() if library == "papers" else sys.executable
    start = (__file__,) if library == "papers" else ("-m", "tests.benchmarks.bench_scoring")
    command = [python, *start, library, *map(str, (batch, turns, n))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{library}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(batches=BATCHES, turns=TURNS, rounds=ROUNDS, n=OBJECTS):
    """Measure all; return rows of name, value (the median), low, high and unit."""
    libraries = ["ours", "papers"] if PAPER_PYTHON.exists() else ["ours"]
    if "papers" not in libraries:
        print("the papers' libraries are not here: make .venv-paper/installed", file=sys.stderr)
    found = []
    for batch in batches:
        each = []
        for number in range(1, rounds + 1):
            print(f"batches of {batch}, round {number} of {rounds}", file=sys.stderr)
            told = [in_a_process(library, batch, turns, n) for library in libraries]
            each.append({k: value for one in reversed(told) for k, value in one.items()})
        for name in [key for key in each[0] if key != "difference"]:
            values = [value for turn in each for value in turn[name]]
            found.append(row(f"scoring_batch_{batch}_{name}", values, "objects a second"))
        for name in ("keras", "onnx"):
            for other in ("predict", "papers"):
                if name in each[0] and other in each[0]:
                    ratios = [statistics.median(turn[name]) / statistics.median(turn[other])
                              for turn in each]  # fmt: skip
                    found.append(row(f"scoring_batch_{batch}_{name}_over_{other}", ratios, "ratio"))
        differences = [turn["difference"][0] for turn in each]
        found.append(row(f"scoring_batch_{batch}_difference", differences, "score"))
    print("from FITS files", file=sys.stderr)
    told = in_a_process("fits", FITS_BATCH, turns, FITS_OBJECTS)
    for name, values in told.items():
        found.append(row(f"scoring_{name}", values, "objects a second"))
    ratios = [one / other for one, other in zip(told["from_fits"], told["engine"])]
    return [*found, row("scoring_from_fits_over_engine", ratios, "ratio")]


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return {"name": name, "value": middle, "low": low, "high": high, "unit": unit}


if __name__ == "__main__":
    if len(sys.argv) == 5:
        measured = from_fits if sys.argv[1] == "fits" else measure
        print(json.dumps(measured(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        from tests.benchmarks.__main__ import shown

        print(shown(rows()))
