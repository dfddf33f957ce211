"""A folder of survey data, looked at before anything is trained on it: page, tables, pictures.

What is wrong is a problem: an object missing that no one published as such, a file that cannot be
used, the same pixels twice, a constant image, something that two splits share, a size or number
that is not as published. Numbers that a few bright objects decide count only of a whole set: of a
part of it they can lie anywhere. Everything else is told and is none.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import array_files, catalog, cutouts, folds, report, surveys
from cast_lens.mock import check_deeplense, comparison, pixels, quantities, sheet
from cast_lens.mock.check import WHOLE_SET
from cast_lens.run import write_whole
from cast_lens.scores import escape_cell
from cast_lens.survey_audit import audit

SEED = 0  # of the sample: the same survey gives the same table
EXAMPLES = 3  # of a problem that a person is shown
_OF_THE_BRIGHTEST = ("set_mean", "set_std", "rms", "rms_over_noise", "max_over_p99")

_QUARANTINE = ["object_id", "status", "bad_path", "found", "expected"]
_NOTHING = pd.DataFrame(columns=quantities.COLUMNS)


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        problems: DataFrame of problem, n and example; without rows if nothing is wrong.
        text: What a person wants to see of it all.
    """

    problems: pd.DataFrame
    text: str


def check(folder, output, *, sample=2000):
    """Look at all files of a survey, real or stand-in, and write down what is there.

    Args:
        folder: Folder of one survey, however it was unpacked.
        output: Folder for check.md, statistics.csv, quarantine.csv (objects that are not ok) and
            objects_*.png.
        sample: Objects whose noise is measured, drawn at random if there are more.

    Returns:
        Findings.

    Raises:
        CheckError, CatalogError, CutoutError: As `survey_audit.audit`.
        OSError: If `output` cannot be written.
    """
    found, output = audit(folder), Path(output)
    manifest = surveys.stand_in_manifest(folder)
    title = ("Stand-in " if manifest else "") + found.layout.title
    good = found.objects[found.objects["status"] == "ok"]
    numbers, pictures = _NOTHING, []
    if len(good):
        numbers, clip = _numbers(found, good, sample)
        pictures = _draw(found, good, clip, title, output)
    statistics = _compare(found, numbers, manifest)
    problems = _problems(found, good, statistics)
    parts = _summary(found, good, title, folder, problems)
    table = comparison.readable(statistics).drop(columns="real (n)")
    table = table.rename(columns={"known": "published", "stand-in [95 %]": "here [95 %]"})
    parts += ["Published numbers, and what is here:", table[table["published"] != ""]]
    beyond = table.loc[table["published"] == "", ["quantity", "band", "here [95 %]", "n"]]
    write_whole(output / "statistics.csv", statistics.to_csv(index=False, lineterminator="\n"))
    write_whole(output / "quarantine.csv", _quarantine(found))
    page = [f"# {title}\n", *map(_markdown, parts), "Further numbers:\n", report.markdown(beyond)]
    page += [f"![{path.stem}]({path.name})\n" for path in pictures]
    write_whole(output / "check.md", "\n".join(page))
    return Findings(problems, "\n\n".join(map(_plain, parts)) + f"\n\nwritten to {output}")


def _numbers(found, good, sample):
    """Return numbers of the catalog and the pixels, and where to clip each band for pictures."""
    chosen = np.zeros(len(good), bool)
    chosen[np.random.default_rng(SEED).permutation(len(good))[:sample]] = True
    if found.is_task:
        measured = check_deeplense.measure(good, found.layout, chosen)
        return quantities.task_numbers(good, measured, found.bands), None
    sampled = good["object_id"][chosen]
    measured, counts = pixels.measure(
        good, found.bands, mask_value=found.layout.mask_value, sampled=sampled
    )
    numbers = [quantities.pixel_numbers(measured, counts, found.bands, good["plane"])]
    if "label" in good:
        numbers.insert(0, quantities.catalog_numbers(found.objects))
    clip = {band: sheet.clip_bounds(row) for band, row in zip(found.bands, counts)}
    return pd.concat(numbers, ignore_index=True), clip


def _compare(found, numbers, manifest):
    """Put the numbers beside those of known.csv but for probes of how a stand-in was made."""
    facts = comparison.read_known()
    facts = facts[(facts["survey"] == found.name) & (facts["kind"] != "chance")]
    settings = {"n": len(found.objects)}
    if manifest:
        settings |= manifest["parameters"] | manifest["parameters"].get("model", {})
    return comparison.compare(facts, numbers, _NOTHING, settings)


def _problems(found, good, statistics):
    """Return the table of what is wrong, most important first."""
    rows = []

    def add(problem, examples, n=None):
        examples = list(examples)
        if examples:
            rows.append((problem, n or len(examples), "; ".join(map(str, examples[:EXAMPLES]))))

    if found.layout is surveys.SURVEYS["sglc2"]:
        missing = found.missing()[~found.missing().isin(catalog.SGLC2_MISSING)]
    else:
        missing = found.missing()
    add("missing: in the catalog, without a file", missing)
    for reason, part in found.quarantined().groupby("status"):
        add(f"quarantined: {reason}", (
            f"{row['object_id']} ({row['bad_path']}: {row['found']})"
            for row in part.to_dict("records")
        ))  # fmt: skip
    if not len(good):
        add("no object is ok", ["nothing to measure"])
        return pd.DataFrame(rows, columns=["problem", "n", "example"])
    add("a band whose pixels are all equal", good["object_id"][good["is_constant"]])
    digests = [f"pixels_{name}" for name in found.shapes]
    same = pd.Series(folds.held_together(good, digests), good.index)
    twice = good["object_id"][same.duplicated(keep=False)].groupby(same)
    add("the same pixels under several IDs", (" = ".join(ids) for _, ids in twice))
    # Bands of an object, of two of which the pixels are the same.
    equal = good[digests].apply(lambda row: row.dropna().duplicated().any(), axis=1)
    add("the same pixels in two bands", good["object_id"][equal])
    if good["split"].nunique() > 1:
        for column, leaks in _leaks(good, digests).groupby("column"):
            what = "pixels" if column in digests else column
            add(f"splits share {what}", leaks["object_id"] + " = " + leaks["other_object_id"])
    if not found.is_task:
        add("band without any file", [b for b in found.layout.bands if b not in found.bands])
        size, wanted = found.shapes.get(found.layout.bands[0]), found.layout.n_pixels
        add(f"size: expected {wanted} pixels a side", [size] * (size not in (None, (wanted,) * 2)))
    failed = statistics[statistics["outcome"] == "not met"]
    if not found.is_task and len(good) < WHOLE_SET:
        failed = failed[~failed["quantity"].isin(_OF_THE_BRIGHTEST)]
    add("numbers not as published", (failed["quantity"] + " " + failed["band"]).str.strip())
    return pd.DataFrame(rows, columns=["problem", "n", "example"])


def _leaks(good, digests):
    parts = {name: np.flatnonzero(good["split"] == name) for name in good["split"].unique()}
    return folds.leaks(good, parts, groups=[*digests, "plane"])


def _summary(found, good, title, folder, problems):
    """Return what is there, as texts and tables in turn."""
    sizes = ", ".join(f"{name} {shape[0]} x {shape[1]}" for name, shape in found.shapes.items())
    n = found.counts()
    lines = [
        f"{folder}: looks like {title}; pixels: {sizes}",
        f"{n['catalog']} objects in the catalog = {n['ok']} ok + {n['quarantined']} quarantined + "
        f"{n['missing']} missing; {found.n_extra} other files",
        f"{int((good['n_masked'] > 0).sum())} objects with masked pixels, "
        f"{int((good['n_nonfinite'] > 0).sum())} with pixels that are not finite; both became 0",
    ]
    extreme = good["object_id"][good["n_extreme"] > 0]
    if len(extreme):
        lines.append(
            f"{len(extreme)} objects with pixels of more than {found.layout.brightest:g} maggie, "
            f"such as {extreme.iloc[0]}, which are left as they are: clip before averaging"
        )
    planes = found.objects["plane"].value_counts()
    if len(planes) < len(found.objects):
        lines.append(
            f"{len(found.objects)} objects in {len(planes)} lens planes, up to {planes.iloc[0]} "
            "in one: a split must hold the objects of a plane together"
        )
    lines += found.notes
    if found.layout is surveys.SURVEYS["sglc2"] and n["missing"]:
        published = int(found.missing().isin(catalog.SGLC2_MISSING).sum())
        lines.append(f"{published} of the missing are among the nine published as such")
    kinds = [name for name in ("split", "class_name", "label") if name in found.objects]
    tally = found.objects.groupby(kinds, sort=False).size().reset_index(name="objects")
    verdict = "Nothing is wrong." if problems.empty else "What is wrong:"
    parts = ["\n".join(lines), tally, verdict]
    return parts if problems.empty else [*parts, problems]


def _draw(found, good, clip, title, output):
    """Draw the first objects by ID of each class, clipped at percentiles; return the paths."""
    shown: list[tuple[str, ...]] = [()]
    if found.is_task:
        training = good[good["split"] == "train"].sort_values("number", kind="stable")
        lines = {name: part[: sheet.N_SHOWN] for name, part in training.groupby("class_name")}
    else:
        lines = {"": good[: sheet.N_SHOWN]}
        if "label" in good:
            lines = dict(zip(("lens", "no lens"), sheet.shown(good)))
        color = found.layout.color
        shown = [found.bands[:1]] + [color] * (bool(color) and set(color) <= set(found.bands))
    paths = []
    for bands in shown:
        paths.append(output / f"objects_{''.join(bands) or 'all'}.png")
        pictures = {
            name: {
                row["object_id"].rpartition("/")[2]: _picture(row, found, bands, clip)
                for row in part.to_dict("records")
            }
            for name, part in lines.items()
        }
        how = f"{' '.join(bands)} clipped at the 0.1 and 99 percentiles, the first of each by ID"
        if "n_pix_lensed" in good:
            how += f",\nlenses with more than {sheet.DETECTABLE} source pixels"
        sheet.draw_lines(pictures, f"{title}\n{how.strip()}", paths[-1])
    return paths


def _picture(row, found, bands, clip):
    """Return one band, shape (height, width), or three, (height, width, 3), scaled to [0, 1]."""
    if found.is_task:
        image = array_files.read_array(row["path"], channels="first")[..., ::-1]  # red first
        low, high = np.quantile(image, sheet.BOUNDS, axis=(0, 1))
    else:
        paths = [row[f"path_{band}"] for band in bands]
        image, _ = cutouts.read_cutout(paths, mask_value=found.layout.mask_value)
        low, high = np.array([clip[band] for band in bands]).T
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-300), 0, 1)
    return scaled[..., 0] if scaled.shape[-1] == 1 else scaled


def _quarantine(found):
    bad = found.objects.loc[found.objects["status"] != "ok", _QUARANTINE]
    bad = bad.rename(columns={"status": "reason", "bad_path": "path"}).astype(str)
    return bad.map(escape_cell).to_csv(index=False, lineterminator="\n")


def _plain(part):
    return part if isinstance(part, str) else report.tabulate(part)


def _markdown(part):
    if not isinstance(part, str):
        return report.markdown(part)
    return "\n".join(f"{line}  " for line in part.split("\n")) + "\n"
