"""A stand-in survey beside what is known of the real one: table, pictures, and whether it leaks.

known.csv holds what is known, each number with its source and tolerance. What a stand-in
has is measured from its files, as by anyone who got them.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens.mock import (
    check_deeplense,
    comparison,
    contents,
    pixels,
    probes,
    quantities,
    sheet,
)
from cast_lens.mock.survey import read_manifest
from cast_lens.run import write_whole

SEED = 0  # of the sample: the same survey gives the same table
WHOLE_SET = 20_000  # rows of a published truth table; fewer are a choice that someone made
REACH = 0.4  # ASSUMED: of half the field; arcs of smaller Einstein radii stay off the border

_INTRODUCTION = """# Stand-in for the {title}, compared with what is known of the real one

These are simulated images. {n} objects of seed {seed} have truth and images in all bands; {missing}
have truth alone, {unknown} images alone, {dropped} rows of truth were dropped for their ID is there
twice. Noise, border, center and headers are of {sample} of them, the rest of all.

Intervals hold 95 %: of a bootstrap over lens planes, or exact for fractions. An AUROC of
shortcut_auroc is what total flux, maximum, median and noise of the bands tell. Numbers that hang
on a few bright objects (rms, set_mean, set_std, max_over_p99) have wider intervals than shown.
"""


def check(folder, *, real=None, sample=2000):
    """Compare a stand-in survey with what is known of the real one.

    Writes table.csv, table.md and pictures (PNG) into the folder Check inside `folder`.

    Args:
        folder: Folder of a finished stand-in survey, as `cast-lens mock` writes it.
        real: Folder of the real survey or of some of its cutouts, whose numbers then stand beside;
            None for that of CAST_LENS_DATA, if it has one.
        sample: Objects on which noise, border, center and headers are measured, drawn at random
            if there are more. Sums, extremes and percentiles are always of all objects.
            `check_deeplense.check` says which numbers of the DeepLense tasks are of a sample.

    Returns:
        DataFrame of `comparison.TABLE`, one row a number: first those of known.csv in its order,
        then what was measured and is not known. `comparison.readable` formats it.

    Raises:
        CheckError: If nothing is known of the survey, or no object has images and truth.
        RunError: If the folder holds no finished stand-in survey.
        CatalogError: If its truth table is missing or malformed.
        CutoutError: If it has no images, or one is malformed.
        ValueError: If `sample` is less than 1.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}, expected at least 1 object")
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest["survey"] in contents.TASKS:
        return check_deeplense.check(folder, manifest, real=real, sample=sample)
    layout = contents.SURVEYS.get(manifest["survey"])
    if layout is None:
        raise contents.CheckError(
            f"{folder} holds the stand-in survey {manifest['survey']!r}, expected one of "
            f"{', '.join([*contents.SURVEYS, *contents.TASKS])}: nothing is known of others; "
            "look at some by eye"
        )
    survey = contents.read_survey(folder, layout)
    numbers, measured, counts = _numbers(survey, sample)
    facts = comparison.read_known()
    facts = facts[facts["survey"] == manifest["survey"]]
    beside = _real_numbers(real, layout, sample)
    settings = manifest["parameters"] | {"n": manifest["n"]}
    table = comparison.compare(facts, numbers, beside, settings)
    write_whole(folder / "Check/table.csv", table.to_csv(index=False, lineterminator="\n"))
    pictures = sheet.draw(survey.objects, layout, measured, counts, folder / "Check")
    write_whole(folder / "Check/table.md", _page(survey, manifest, table, sample, pictures))
    return table


def _numbers(survey, sample):
    """Return all numbers of a stand-in, and the measurements and histograms they come from."""
    chosen, measured, counts = _measure(survey, sample)
    parts = [
        quantities.catalog_numbers(survey.table),
        quantities.pixel_numbers(measured, counts, survey.layout.bands, survey.objects["plane"]),
        _probe(survey, measured, chosen),
    ]
    return pd.concat(parts, ignore_index=True), measured, counts


def _measure(survey, sample):
    """Return which objects are in the sample, all measurements and the histograms."""
    objects, layout = survey.objects, survey.layout
    chosen = np.zeros(len(objects), bool)
    chosen[np.random.default_rng(SEED).permutation(len(objects))[:sample]] = True
    measured, counts = pixels.measure(
        objects, layout.bands, mask_value=layout.mask_value, sampled=objects["object_id"][chosen]
    )
    return chosen, measured, counts


def _probe(survey, measured, chosen):
    """Return the AUROCs of what may tell lenses, and of what must not."""
    layout, objects, measured = survey.layout, survey.objects[chosen], measured[chosen]
    theta_e = objects.get("theta_e", pd.Series(np.nan, objects.index))
    # Light of an arc at the border, or in the box about the center, would be no fault.
    inside = ~(theta_e > REACH * layout.n_pixels * layout.pixel_scale / 2)
    # The two images lie near theta_e + and - the source's offset, which is drawn for all objects.
    inner = (theta_e - objects.get("source_offset", 0)).abs()
    outside = ~(inner < 2 * pixels.CENTER * layout.pixel_scale)
    header = probes.header_features(objects, layout.bands)
    wanted = [
        ("shortcut_auroc", probes.columns(measured, probes.FLUX, layout.bands), None),
        ("leak_noise_and_border", probes.columns(measured, probes.SKY, layout.bands), inside),
        ("leak_center", probes.columns(measured, probes.CENTER, layout.bands[:1]), outside),
        ("leak_header", header, None),
    ]
    if layout.mask_value is not None:
        wanted.append(("leak_masks", probes.columns(measured, ("bad",), layout.bands), None))
    rows = []
    for name, features, which in wanted:
        which = np.ones(len(objects), bool) if which is None else which.to_numpy()
        found = probes.auroc(
            features[which], objects["label"][which].to_numpy(), objects["plane"][which].to_numpy()
        )
        note = "" if which.all() else f"without {np.sum(~which)} objects whose arcs would show"
        rows.append((name, "", *found, note))
    return pd.DataFrame(rows, columns=quantities.COLUMNS)


def _real_numbers(real, layout, sample):
    """Return the numbers of the real survey; of its truth table only if that is whole."""
    if real is None and layout.real and os.environ.get("CAST_LENS_DATA"):
        folder = Path(os.environ["CAST_LENS_DATA"]).expanduser() / "sglc1" / layout.real
        real = folder if folder.is_dir() else None
    if real is None:
        return pd.DataFrame(columns=quantities.COLUMNS)
    below = Path(real) / (layout.real or ".")
    survey = contents.read_survey(below if below.is_dir() else real, layout)
    _, measured, counts = _measure(survey, sample)
    planes = survey.objects["plane"]
    numbers = [quantities.pixel_numbers(measured, counts, layout.bands, planes)]
    if len(survey.table) >= WHOLE_SET:
        numbers.append(quantities.catalog_numbers(survey.table))
    return pd.concat(numbers, ignore_index=True)


def _page(survey, manifest, table, sample, pictures):
    """Return table.md."""
    introduction = _INTRODUCTION.format(
        title=survey.layout.title, seed=manifest["seed"], n=len(survey.objects),
        missing=len(survey.table) - len(survey.objects), unknown=survey.n_unknown,
        dropped=survey.n_dropped, sample=min(sample, len(survey.objects)),
    )  # fmt: skip
    return comparison.page(introduction, table, pictures)
