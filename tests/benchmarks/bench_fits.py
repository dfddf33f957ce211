"""Files a second: astropy, fitsio where it is installed, a bare read, and ours (bar 1).

Run by hand: python -m tests.benchmarks.bench_fits. Stand-in files of the two sizes of the II SGLC
with the header that the I SGLC has, in one process, from the page cache, all ways in turn; more
files than fit the caches of a processor, as in a survey, where a bare read is quickest. Bar:
`read_into` at least 10 times astropy.io.fits.getdata, at most 1.6 times the time of a bare read.
getdata alone maps the file and looks at no pixel; astropy_float32 makes of it what ours returns.
Seconds are of processor time, kernel included: nothing here waits, so on an idle machine these are
seconds, and on a busy one they leave out what other programs take.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from cast_lens import cutouts

SIZES, FILES, BATCH, REPEATS = (66, 200), 1024, 64, 15
SLOW = 16  # astropy and fitsio read every so many files, to take no longer than the others
HEADER = """
SIMPLE  =                    T / file does conform to FITS standard
BITPIX  =                  -32 / number of bits per data pixel
NAXIS   =                    2 / number of data axes
NAXIS1  = {size:20} / length of data axis 1
NAXIS2  = {size:20} / length of data axis 2
EXTEND  =                    T / FITS dataset may contain extensions
COMMENT   FITS (Flexible Image Transport System) format is defined in 'Astronomy
COMMENT   and Astrophysics', volume 376, page 359; bibcode: 2001A&A...376..359H
WCSAXES =                    2 / number of World Coordinate System axes
CRPIX1  =                  51. / x-coordinate of reference pixel
CRPIX2  =                  51. / y-coordinate of reference pixel
CRVAL1  =                   0. / first axis value at reference pixel
CRVAL2  =                   0. / second axis value at reference pixel
CTYPE1  = 'RA---TAN'           / the coordinate type for the first axis
CTYPE2  = 'DEC--TAN'           / the coordinate type for the second axis
CUNIT1  = 'deg     '           / the coordinate unit for the first axis
CUNIT2  = 'deg     '           / the coordinate unit for the second axis
CDELT1  = -2.7777774714293E-05 / partial of first axis coordinate w.r.t. x
CDELT2  =  2.7777774714293E-05 / partial of second axis coordinate w.r.t. y
CROTA2  =                   0.
CD1_1   = -2.7777774714293E-05 / partial of first axis coordinate w.r.t. x
CD1_2   =                   0. / partial of first axis coordinate w.r.t. y
CD2_1   =                   0. / partial of second axis coordinate w.r.t. x
CD2_2   =  2.7777774714293E-05 / partial of second axis coordinate w.r.t. y
NX      = {size:20}
NY      = {size:20}
HIERARCH range x = {range_x:.12G} / radians
RA      = {ra} / radians
DEC     = {dec} / radians
END"""


def write_files(folder, size, *, band="VIS", n=FILES):
    """Write images of noise, each with an RA, DEC and `range x` of its own.

    Args:
        folder: Folder to write to.
        size: Pixels along each axis.
        band: Which the names shall say, of Euclid.
        n: Number of images; each band and image has noise of its own.

    Returns:
        List of paths.
    """
    rng, paths = np.random.default_rng([*band.encode()]), []
    for k in range(n):
        ra, dec = rng.uniform(-2e-3, 2e-3, 2)
        text = HEADER.format(size=size, range_x=rng.normal(4.9e-5, 1e-12), ra=ra, dec=dec)
        header = "".join(line.ljust(80) for line in text.split("\n")[1:]).encode()
        pixels = (7.7e-13 * rng.standard_normal((size, size))).astype(">f4").tobytes()
        paths.append(f"{folder}/imageEUC_{band}-{200000 + k}.fits")
        data = (part + pad * (-len(part) % 2880) for part, pad in ((header, b" "), (pixels, b"\0")))
        Path(paths[-1]).write_bytes(b"".join(data))
    return paths


def bare_read(paths):
    """Read the bytes of each file and drop them."""
    for path in paths:
        with open(path, "rb") as stream:
            stream.read()


def ways(paths, size):
    """Return {name: (function of no argument, files that it reads)}."""
    few = paths[::SLOW]
    out = np.zeros((BATCH, size, size), np.float32)
    batches = [paths[k : k + BATCH] for k in range(0, len(paths), BATCH)]

    def batched():
        for batch in batches:
            assert not cutouts.read_into(batch, out, mask_value=100).errors

    found = {
        "bare_read": (lambda: bare_read(paths), len(paths)),
        "read_into": (batched, len(paths)),
        "read_cutout": (lambda: [cutouts.read_cutout([p], mask_value=100) for p in paths[::2]],
                        len(paths[::2])),
        "astropy_getdata": (lambda: [fits.getdata(path) for path in few], len(few)),
        "astropy_float32": (lambda: [fits.getdata(p).astype(np.float32) for p in few], len(few)),
    }  # fmt: skip
    try:
        import fitsio
    except ImportError:
        print("fitsio is not installed, so it is not measured", flush=True)
    else:
        found["fitsio"] = (lambda: [fitsio.read(path) for path in few], len(few))
    return found


def measure(size, repeats):
    """Return {name: processor seconds a file, one for each repeat}, all ways in turn."""
    with tempfile.TemporaryDirectory() as folder:
        functions = ways(write_files(folder, size), size)
        seconds = {name: [] for name in functions}
        names = list(functions)
        for repeat in range(-1, repeats):  # the first warms the page cache and everybody's imports
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                function, n_files = functions[name]
                start = time.process_time()
                function()
                if repeat >= 0:
                    seconds[name].append((time.process_time() - start) / n_files)
    return seconds


def row(name, values, unit):
    """Return one row: the median of `values` and their extremes."""
    values = np.asarray(values)
    return {
        "name": name,
        "value": float(np.median(values)),
        "low": float(values.min()),
        "high": float(values.max()),
        "unit": unit,
        "values": values.tolist(),
    }


def rows(repeats=REPEATS):
    """Measure both sizes; return files a second of each way and the ratios of the bar.

    Args:
        repeats: Times that all ways run in turn. A ratio is of two ways in the same turn.

    Returns:
        List of rows.
    """
    found = []
    for size in SIZES:
        seconds = {name: np.array(s) for name, s in measure(size, repeats).items()}
        for name, values in seconds.items():
            found.append(row(f"fits_{size}_{name}", 1 / values, "files/s"))
        for name in ("read_into", "read_cutout"):
            ratio = seconds[name] / seconds["bare_read"]
            found.append(row(f"fits_{size}_{name}_over_bare_read", ratio, "times its time"))
            for other in ("astropy_getdata", "astropy_float32", "fitsio"):
                if other in seconds:
                    ratio = seconds[other] / seconds[name]
                    found.append(row(f"fits_{size}_{name}_over_{other}", ratio, "times as fast"))
    return found


if __name__ == "__main__":
    from tests.benchmarks.__main__ import shown

    print(shown(rows()))
