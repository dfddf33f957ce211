"""Time `cast_lens.ranking` with BADGE on pools of up to a million objects (bar 7).

Run by hand: python -m tests.benchmarks.bench_rank [LARGEST]. Every pool is read and ranked in a
process of its own, so that its peak memory is its own. The features are drawn at random and the
labels follow one of them: stand-ins.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tests.benchmarks.bench_acquisition import peak, row, seconds

POOLS, FEATURES, CHOSEN, LABELS, PART = (125_000, 1_000_000), 40, 100, 500, 25_000
KINDS = ("folder", "csv", "parquet")


def parts(n):
    """Yield the features of a pool of `n`, float32, a part at a time."""
    for start in range(0, n, PART):
        rng = np.random.default_rng([0, start])
        yield rng.standard_normal((min(PART, n - start), FEATURES), dtype=np.float32)


def make(kind, n, folder):
    """Write a pool of `n` objects; return its path."""
    from pyarrow import Table, parquet

    from cast_lens import pools

    ids = [f"{k:09d}" for k in range(n)]
    if kind == "folder":
        pools.write_pool(folder / "pool", ids, parts(n))
        return folder / "pool"
    path, names, writer = folder / f"pool.{kind}", [f"feat_{k}" for k in range(FEATURES)], None
    for number, part in enumerate(parts(n)):
        table = pd.DataFrame(part, columns=names)
        table.insert(0, "object_id", ids[number * PART : number * PART + len(part)])
        if kind == "csv":
            table.to_csv(path, mode="a", header=not number, index=False, float_format="%.6g")
            continue
        table = Table.from_pandas(table)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    return path


def measure(path):
    """Open a pool and choose from it; return seconds of both and the peak memory in MiB."""
    from cast_lens import pools, ranking

    before = peak()
    opening, pool = seconds(lambda: pools.open_pool(path))
    opened = peak()
    places = np.random.default_rng(1).permutation(len(pool.features))[:LABELS]
    labels = pd.DataFrame({"object_id": pool.object_ids[places]})
    labels["label"] = pd.array(pool.features[places, 0] > 1, "Int64")
    choosing, _ = seconds(lambda: ranking.rank(pool, labels, strategy="badge", n=CHOSEN, seed=0))
    return {"before": before, "opened": opened, "peak": peak(), "open": opening, "rank": choosing}


def rows(largest=POOLS[-1]):
    """Measure everything; return rows with name, value (the median), low, high and unit."""
    measured = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for kind in KINDS:
        for n in (n for n in POOLS if n <= largest):
            with tempfile.TemporaryDirectory() as folder:
                path = make(kind, n, Path(folder))
                command = [sys.executable, __file__, "--pool", str(path)]
                made = subprocess.run(command, check=True, capture_output=True, env=environment)
            found = json.loads(made.stdout)
            measured += [
                row(f"rank_{kind}_{n}_open_seconds", [found["open"]], "s"),
                row(f"rank_{kind}_{n}_badge_seconds", [found["rank"]], "s"),
                row(f"rank_{kind}_{n}_memory_before", [found["before"]], "MiB"),
                row(f"rank_{kind}_{n}_memory_opened", [found["opened"]], "MiB"),
                row(f"rank_{kind}_{n}_peak_memory", [found["peak"]], "MiB"),
            ]
    return measured


def main(largest):
    """Print the table."""
    for each in rows(largest):
        print(f"{each['name']:<48}{each['value']:>9.2f} {each['unit']}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pool"]:
        with threadpool_limits(1):
            print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else POOLS[-1])
