"""Files a second that `pack.build` takes from a survey in the layout of the II SGLC (bar 2).

Run by hand: python -m tests.benchmarks.bench_pack. Two processes, from the page cache, with
finding the files, checksums, tables and audit, all ways in turn. Bar: 12,000 files a second on two
cores. Beside it a loop over astropy.io.fits.getdata that stacks the same objects, as notebooks do
it, and two processes that read the same bytes and write as many, and do nothing else: memory that
a file needs for the first time can cost more than all the rest, and they pay for it too.
"""

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from cast_lens import cutouts, pack, surveys
from cast_lens.workers import run_all
from tests.benchmarks import bench_fits

OBJECTS, REPEATS, SLOW, WORKERS = 6000, 5, 16, 2
LAYOUT = surveys.SURVEYS["sglc2"]


def write_survey(folder, n=OBJECTS):
    """Write images of noise of n objects in the four bands of the II SGLC."""
    for band in LAYOUT.bands:
        place = Path(folder) / f"Public/EUC_{band}"
        place.mkdir(parents=True)
        bench_fits.write_files(place, 200 if band == "VIS" else 66, band=band, n=n)


def packed(folder, output, dtype="float32"):
    """Find the files below a folder and pack them."""
    shutil.rmtree(output, ignore_errors=True)
    table, n_extra = cutouts.find_cutouts(folder)
    return pack.build(
        output, table, LAYOUT.inputs, mask_value=None, brightest=LAYOUT.brightest, dtype=dtype,
        n_extra_files=n_extra, workers=WORKERS, progress=False,
    )  # fmt: skip


def with_astropy(table):
    """Stack every so many objects as a loop over getdata does, in one process."""
    for bands in LAYOUT.inputs.values():
        paths = table[[f"path_{band}" for band in bands]].to_numpy()[::SLOW]
        images = [[fits.getdata(path).astype(np.float32) for path in row] for row in paths]
        np.stack(images)


def copied(paths, output):
    """Read the bytes of all files in `WORKERS` processes and write them to one file."""
    Path(output).unlink(missing_ok=True)
    Path(output).touch()
    size = Path(paths[0]).stat().st_size  # the largest; where it leaves gaps, nothing is written
    tasks = [(paths[k : k + 256], output, k * size) for k in range(0, len(paths), 256)]
    run_all(_copy, tasks, workers=WORKERS, report=lambda _: None)


def _copy(paths, output, place):
    file = os.open(output, os.O_WRONLY)
    for path in paths:
        with open(path, "rb") as stream:
            place += os.pwrite(file, stream.read(), place)
    os.close(file)


def rows(objects=OBJECTS, repeats=REPEATS):
    """Measure all ways; return rows of numbers.

    Args:
        objects: Of the survey.
        repeats: Times that all ways run in turn, after once without being counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_survey(folder, objects)
        table, _ = cutouts.find_cutouts(folder)
        paths = [p for column in table.columns[1:] for p in table[column]]
        few = len(table.iloc[::SLOW]) * len(LAYOUT.bands)
        made = packed(folder, f"{folder}/warm")
        assert made.audit["n_ok"] == objects
        ways = {
            "pack": (partial(packed, folder, f"{folder}/pack"), len(paths)),
            "pack_float16": (partial(packed, folder, f"{folder}/half", "float16"), len(paths)),
            "bare_copy": (partial(copied, paths, f"{folder}/copy"), len(paths)),
            "astropy": (partial(with_astropy, table), few),
            "verify": (made.verify, objects),
        }
        rates, names = {name: [] for name in ways}, list(ways)
        for repeat in range(-1, repeats):
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                function, n = ways[name]
                start = time.perf_counter()
                function()
                if repeat >= 0:
                    rates[name].append(n / (time.perf_counter() - start))
    found = []
    for name, values in rates.items():
        unit = "objects/s" if name == "verify" else "files/s"
        found.append(bench_fits.row(f"pack_{name}".replace("pack_pack", "pack"), values, unit))
    for other, unit in (("astropy", "times as fast"), ("bare_copy", "of its speed")):
        ratio = np.array(rates["pack"]) / np.array(rates[other])
        found.append(bench_fits.row(f"pack_over_{other}", ratio, unit))
    return found


if __name__ == "__main__":
    from tests.benchmarks.__main__ import shown

    print(shown(rows()))
