"""Where the survey of a paper is: named, kept, downloaded, or a stand-in that is made once."""

import os
import sys
from pathlib import Path

from cast_lens import archive, pack, pack_audit, run, survey_pack
from cast_lens.pack_files import is_pack


def packed(name, named, *, real, n_objects, seed, output):
    """Return the pack of a survey, or of a stand-in where there is none.

    Args:
        name: Of the survey, as in surveys.SURVEYS.
        named: Folder of the survey or of its pack; None or "" for where surveys are kept.
        real: Whether to download the archive rather than to make a stand-in.
        n_objects: Of the stand-in.
        seed: Of the stand-in.
        output: Folder for what is made.

    Returns:
        The Pack, and the folder of the survey, or None if a pack was named.

    Raises:
        PackError: If the folder holds no survey that is known, or another one.
        DataUnavailableError: If the archive is to be had and cannot be.
    """
    place = Path(named).expanduser() if named else kept(name)
    is_packed = bool(place and is_pack(place))
    if place is None and real:
        place = archive.get(name, "data")
    if place is None:
        print(f"no {name} here (make data-{name}, or DATA=): a stand-in of {n_objects} objects is "
              "made, once", file=sys.stderr)  # fmt: skip
        place = stand_in(name, output, n_objects, seed)
    found = opened(place, output)
    survey = found.manifest["identity"]["about.survey"]
    if survey != name:
        raise pack.PackError(f"{place}: found the survey {survey}, expected {name}; name another")
    return found, None if is_packed else place


def opened(place, output, *, title=None):
    """Open a pack, or that of a survey's folder, made once; say what became of all objects.

    Args:
        place: Folder of a pack, or of a survey.
        output: Folder for the pack, in packs/<title>-pack.
        title: Name of the folder of the survey unless given.

    Returns:
        The Pack.

    Raises:
        PackError: If the folder holds no survey that is known, or the pack is not of one.
    """
    place = Path(place)
    if is_pack(place):
        found = pack.open_pack(place)
    else:
        target = Path(output) / "packs" / f"{title or place.resolve().name}-pack"
        found = survey_pack.pack_survey(place, target, dtype="float32")
    if "about.data" not in found.manifest["identity"]:
        raise pack.PackError(
            f"{found.folder}: found a pack of a table, expected that of a survey, which says "
            "whether its images are real; name the folder of the survey, or make its pack with "
            "`cast-lens pack`"
        )
    left_out = "; which and why: quarantine.csv" if found.audit["n_quarantined"] else ""
    print(f"{found.folder}: {pack_audit.sentence(found.audit)}{left_out}", file=sys.stderr)
    return found


def note(found, folder):
    """Write what became of all objects of a pack into a run's folder, for its report.

    Args:
        found: The Pack.
        folder: Of the run; the file is audit-<survey>.txt.
    """
    survey = found.manifest["identity"]["about.survey"]
    run.write_whole(Path(folder) / f"audit-{survey}.txt", pack_audit.sentence(found.audit) + "\n")


def kept(name):
    """Return the folder of a survey below CAST_LENS_DATA or data, in this order, or None."""
    places = [Path(os.environ.get("CAST_LENS_DATA") or "data").expanduser(), Path("data")]
    return next((p / name for p in places if (p / name).is_dir()), None)


def stand_in(name, output, n, seed):
    """Make a stand-in survey of n objects, or find it made; return its folder."""
    from cast_lens.mock import makers, survey

    folder = Path(output) / "stand_in" / f"mock-{name}-n{n}-seed{seed}"
    survey.write(folder, makers.load_maker(name, seed=seed), n=n)
    return folder
