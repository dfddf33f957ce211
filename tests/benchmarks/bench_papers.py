"""Our networks beside the papers' libraries, in turns of a process each, in one run.

EfficientNet-B0 of 101x101x3 and the two-branch B2 of Bom et al. (2022), with RAdam, batches of 64,
float32; the latter takes 11 GB and its first step a minute. The papers' libraries need an
environment of their own: `make .venv-paper/installed`.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

BATCH, TURNS, ROUNDS = 64, 5, 2
NETWORKS = ("b0", "two_branch_b2")
PAPER_PYTHON = Path(".venv-paper/bin/python")
UNITS = {"training": "objects a second", "predicting": "objects a second", "peak": "GiB"}


def measure(library, network, batch, turns):
    """Run steps.py with one library; return what it prints."""
    python = {"ours": sys.executable, "papers": PAPER_PYTHON.absolute()}[library]
    command = [python, Path(__file__).with_name("steps.py"), library, network, str(batch),
               str(turns)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["no message"]
        sys.exit(f"{library}, {network}: {told[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(networks=NETWORKS, batch=BATCH, turns=TURNS, rounds=ROUNDS):
    """Measure networks with both libraries; return rows of name, value (the median), low, high."""
    if not PAPER_PYTHON.exists():
        print("the papers' libraries are not here: make .venv-paper/installed", file=sys.stderr)
        return []
    found = []
    for network in networks:
        each = [
            {library: measure(library, network, batch, turns) for library in ("ours", "papers")}
            for _ in range(rounds)
        ]
        for what, unit in UNITS.items():
            for library in ("ours", "papers"):
                values = [value for turn in each for value in turn[library][what]]
                found.append(row(f"{network}_{what}_{library}", values, unit))
            ratios = [statistics.median(turn["ours"][what]) /
                      statistics.median(turn["papers"][what]) for turn in each]  # fmt: skip
            found.append(row(f"{network}_{what}_ours_over_papers", ratios, "ratio"))
    return found


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return {"name": name, "value": middle, "low": low, "high": high, "unit": unit}
