"""The numbers by which surveys are compared, each with a 95 % interval.

The same functions serve a stand-in and the real survey.
"""

import numpy as np
import pandas as pd

from cast_lens.mock import estimates, pixels
from cast_lens.mock.estimates import estimate, fraction, quantile

NOISY = 1.5  # ASSUMED: times the survey's median noise; real KiDS cutouts have 2.3 to 3.7 times

THETA_BINS = (0, 0.3, 0.6, 1, 2, 3, 4, 6)  # arcsec
COLUMNS = ["quantity", "band", "value", "low", "high", "n", "note"]


def catalog_numbers(table):
    """Compute what the truth table of a survey says.

    Args:
        table: DataFrame with label, plane and any of theta_e (arcsec), the columns of
            `catalog.read_sglc1_labels` and those of `catalog.read_sglc2_catalog`.

    Returns:
        DataFrame of `COLUMNS`, one row a number; what the table does not hold is left out.
    """
    rows = [("lens_fraction", *fraction(table["label"]))]
    if "n_pix_lensed" in table:
        rows += _source_pixels(table[table["label"] == 1]) + _einstein_radii(table)
    if "n_pix_source" in table:
        rows += _sglc2(table)
    return _frame((name, "", *numbers) for name, *numbers in rows)


def pixel_numbers(measured, counts, bands, planes):
    """Compute what the pixels of a survey are like, band by band.

    Args:
        measured: Table of `pixels.measure`.
        counts: Histograms of `pixels.measure`, shape (bands, bins).
        bands: The bands measured.
        planes: Lens plane of each object, shape (objects,).

    Returns:
        DataFrame of `COLUMNS`. Noise, its correlations and image_* are medians over objects;
        set_*, rms and max_* are of all pixels of all objects, those of the band "all" of all
        bands together.
    """
    rows = []
    for band, row in zip(bands, counts, strict=True):
        part = measured.filter(regex=f"_{band}$")
        part.columns = part.columns.str.removesuffix(f"_{band}")
        found = _sky(part, planes) + _flux(part, row, planes)
        rows += [(name, band, *numbers) for name, *numbers in found]
    if len(bands) > 1:
        sums = [
            sum(measured[f"{name}_{band}"] for band in bands)
            for name in ("sum", "sum_squares", "n")
        ]
        rows += [(name, "all", *numbers) for name, *numbers in _moments(sums, planes)]
    return _frame(row for row in rows if row[-1])


def task_numbers(objects, measured, bands):
    """Compute what the files of a DeepLense task are like.

    Args:
        objects: DataFrame with label, split, class_name and folder.
        measured: Table of `check_deeplense.measure`.
        bands: Names of the channels.

    Returns:
        DataFrame of `COLUMNS`. The interval of a fraction reaches one object to either side, for
        proportions are chosen and not drawn; that of a file's shape, bits, image_min and
        image_max are the extremes of all files, the value their median. ring_radius (arcsec) is
        of class "no", set_mean of the training set, lens_mean and lens_max are of label 1.
    """

    def mean(name, band, values):
        return name, band, *estimate(estimates.mean, [values], np.arange(len(values)))

    n, rows = len(objects), []
    for column in ("folder", "class_name", "split"):
        for group, k in objects[column].value_counts().sort_index().items():
            rows.append(("n_objects", group, k, np.nan, np.nan, n))
            rows.append(("fraction", group, k / n, (k - 1) / n, (k + 1) / n, n))
    for name in ("channels", "height", "width", "bits", "image_min", "image_max"):
        values = measured[name]
        rows.append((name, "", values.median(), values.min(), values.max(), n))
    if "ring_radius_" in measured:
        smooth = (objects["class_name"] == "no").to_numpy()
        rows.append(mean("ring_radius", "", measured["ring_radius_"][smooth]))
        rows += [mean(name, "", measured[f"{name}_"]) for name in ("snr", "snr_of_clipped_sky")]
        return _frame(rows)
    training = measured[(objects["split"] == "train").to_numpy()]
    lenses = measured[(objects["label"] == 1).to_numpy()]
    rows += [mean("set_mean", band, training[f"mean_{band}"]) for band in bands]
    rows += [mean("lens_max", band, lenses[f"max_{band}"]) for band in bands]
    every = lenses[[f"mean_{band}" for band in bands]].mean(axis=1)
    return _frame([*rows, mean("lens_mean", "all", every)])


def _frame(rows):
    return pd.DataFrame([(*row, "") for row in rows], columns=COLUMNS)


def _source_pixels(lenses):
    def median(part, values):
        return estimate(quantile(0.5), [values], part["plane"])

    rows = [("n_pix_zero_fraction", *fraction(lenses["n_pix_lensed"] == 0))]
    for p in (5, 10, 25, 50, 75, 90, 95, 99):
        found = estimate(quantile(p / 100), [lenses["n_pix_lensed"]], lenses["plane"])
        rows.append((f"n_pix_p{p:02}", *found))
    seen = lenses[lenses["n_pix_lensed"] > 0]
    rows.append(
        ("flux_sigma_per_pix_p50", *median(seen, seen["flux_sigma"] / seen["n_pix_lensed"]))
    )
    for low, high in zip(THETA_BINS, THETA_BINS[1:]):
        part = lenses[(lenses["theta_e"] >= low) & (lenses["theta_e"] < high)]
        rows.append((f"n_pix_p50_theta_e_{low}_{high}", *median(part, part["n_pix_lensed"])))
    return rows


def _einstein_radii(table):
    rows = []
    for p in (1, 5, 25, 50, 75, 95):
        found = estimate(quantile(p / 100), [table["theta_e"]], table["plane"])
        rows.append((f"theta_e_p{p:02}", *found))
    reuse = table["einstein_area"].value_counts()
    # Both are counted, not estimated, and no resample keeps them: no interval.
    blank = np.nan, np.nan, len(table)
    return rows + [
        ("unique_area_fraction", len(reuse) / len(table), *blank),
        ("largest_area_reuse", int(reuse.max()), *blank),
    ]


def _sglc2(table):
    def of(statistic, column):
        return estimate(statistic, [table[column]], table["plane"])

    # Without a source pixel there is no magnification: NaN, or 0 in a stand-in without quirks.
    table = table.assign(mag_eff=table["mag_eff"].where(table["mag_eff"] != 0))
    empty = table["n_sources"] == 0
    magnified = table[(table["n_source_im"] > 0) & (table["mag_eff"] > 1.6)]
    n_pix = estimate(quantile(0.5), [magnified["n_pix_source"]], magnified["plane"])
    medians = ("theta_e", "color_diff", "n_gal_3", "n_gal_5", "n_gal_10", "z_lens", "mag_source",
               "mag_lens")  # fmt: skip
    return [
        ("no_source_fraction", *fraction(empty)),
        ("undetected_fraction", *fraction(~empty & (table["label"] == 0))),
        ("mag_eff_absent_fraction", *fraction(table["mag_eff"].isna())),
        ("n_pix_source_p50_of_magnified", *n_pix),
        *(
            (f"{name}_std", *of(estimates.std, name))
            for name in ("n_pix_source", "n_source_im", "mag_eff")
        ),
        ("z_source_mean", *of(estimates.mean, "z_source")),
        *((f"{name}_p50", *of(quantile(0.5), name)) for name in medians),
    ]


def _sky(part, planes):
    typical = part["noise"].median()
    noisy = part["noise"] > NOISY * typical
    rows = [
        ("noise", *estimate(quantile(0.5), [part["noise"]], planes)),
        ("noisy_fraction", *fraction(noisy[part["noise"].notna()])),
    ]
    for lag in ("lag1", "lag2"):
        for name, which in ((lag, ~noisy), (f"{lag}_of_noisy", noisy)):
            rows.append((name, *estimate(quantile(0.5), [part[lag].where(which)], planes)))
    return rows


def _flux(part, counts, planes):
    """Return numbers that need every object, for a few bright ones decide most of them."""
    noise, p99 = part["noise"].median(), pixels.quantile(counts, 0.99)
    variance = part["sum_squares"] / part["n"] - (part["sum"] / part["n"]) ** 2
    rms = estimate(estimates.pixel_rms, [part["sum_squares"], part["n"]], planes)
    top = estimate(estimates.maximum, [part["max"]], planes)
    return [
        ("image_min", *estimate(quantile(0.5), [part["min"]], planes)),
        ("image_median", *estimate(quantile(0.5), [part["median"]], planes)),
        ("image_max", *estimate(quantile(0.5), [part["max"]], planes)),
        ("image_std", *estimate(quantile(0.5), [np.sqrt(variance.clip(lower=0))], planes)),
        ("masked_fraction", *fraction(part["bad"] > 0)),
        *_moments([part["sum"], part["sum_squares"], part["n"]], planes),
        ("rms", *rms),
        ("rms_over_noise", *(value / noise for value in rms[:3]), rms[3]),
        ("max_over_p99", *(value / p99 for value in top[:3]), top[3]),
    ]


def _moments(sums, planes):
    return [
        ("set_mean", *estimate(estimates.pixel_mean, sums, planes)),
        ("set_std", *estimate(estimates.pixel_std, sums, planes)),
    ]
