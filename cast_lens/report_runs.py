"""A run folder as the report reads it: identity, curves, histories, pictures."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cast_lens import metrics, run, scores, table
from cast_lens.drawings import png_size
from cast_lens.report_tables import PAPERS
from cast_lens.run import ORIGIN, RunError
from cast_lens.score_curves import score_curves

_NAME = "name a folder that `make reproduce-...` wrote"


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run left, without its scores.

    Attributes:
        path: The folder.
        paper: Key of `report_tables.PAPERS`.
        identity: What run.json says.
        origins: Code and machine of each start, list of dict; empty if the run did not record them.
        data: "real", "stand-in", "real and stand-in" or "unknown".
        data_of: {experiment: the same of one experiment}, where the run's own table says it.
        audits: {survey: what became of its objects, a sentence}.
        hashes: {stem of the file that names a survey, "" for run.json: SHA-256}.
        rows: Its reproduced.csv, text columns; empty if there is none yet.
        curves: {(experiment, part): ScoreCurves}.
        undefined: {experiment: why it has no curves}.
        histories: {experiment: DataFrame of history.csv}.
        pictures: Paths of its PNG files.
        bad_pictures: {path: what is wrong with it}.
    """

    path: Path
    paper: str
    identity: dict
    origins: list
    data: str
    data_of: dict
    audits: dict
    hashes: dict
    rows: pd.DataFrame
    curves: dict
    undefined: dict
    histories: dict
    pictures: list
    bad_pictures: dict

    def kind(self, experiment):
        """Return the kind of data of one experiment; "real" only if nothing says otherwise."""
        if self.data in ("stand-in", "unknown"):
            return self.data
        return self.data_of.get(experiment, self.data)


def find_runs(folder):
    """Return the folders in `folder` that hold a run.json, sorted."""
    return sorted(path.parent for path in Path(folder).glob("*/run.json"))


def read_run(path):
    """Read a run folder; one that still runs, or was stopped, is read as far as it is.

    Args:
        path: The folder.

    Returns:
        A RunFolder.

    Raises:
        RunError: If it is no run of a paper, or a file in it is damaged; names the file.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise RunError(f"{path} holds no run.json: no run; {_NAME}")
    identity = _object(path / "run.json")
    missing = [key for key in ("seed", "backend", "keras") if key not in identity]
    if missing:
        raise RunError(f"{path / 'run.json'} lacks {', '.join(missing)}: no paper's run; {_NAME}")
    rows = pd.DataFrame(columns=table.REPRODUCED)
    if (path / "reproduced.csv").exists():
        rows = _csv(path / "reproduced.csv", table.KEY, dtype=str, keep_default_na=False)
    named = {"": identity} | {
        file.stem: found
        for file in sorted(path.glob("*.json"))
        if file.name not in ("run.json", ORIGIN) and "data" in (found := _object(file))
    }
    kinds = sorted({str(found["data"]) for found in named.values() if "data" in found})
    curves, undefined, histories = _experiments(path)
    pictures, bad = _pictures(path)
    return RunFolder(
        path=path,
        paper=_paper(path, rows),
        identity=identity,
        origins=_origins(path / ORIGIN),
        data=" and ".join(kinds) or "unknown",
        data_of={
            name: " and ".join(sorted(part["data"].unique()))
            for name, part in rows.groupby("experiment")
        },
        audits={
            file.stem.removeprefix("audit-"): file.read_text(encoding="utf-8").strip()
            for file in sorted(path.glob("audit-*.txt"))
        },
        hashes={name: str(found["sha256"]) for name, found in named.items() if "sha256" in found},
        rows=rows,
        curves=curves,
        undefined=undefined,
        histories=histories,
        pictures=pictures,
        bad_pictures=bad,
    )


def read_runs(folder, named=(), *, strict=False):
    """Read all runs in a folder, or those that are named.

    Args:
        folder: Folder of run folders.
        named: Paths of run folders; if there are any, `folder` is not looked into.
        strict: Whether a broken one that was not named is an error too.

    Returns:
        List of RunFolder, and {path: why it was skipped}.

    Raises:
        RunError: As `read_run`, of a folder that was named.
    """
    found, skipped = [], {}
    for path in [*dict.fromkeys(map(Path, named))] or find_runs(folder):
        try:
            found.append(read_run(path))
        except (RunError, scores.ScoreError) as error:
            if named or strict:
                raise RunError(str(error)) from error
            skipped[path] = " ".join(str(error).split())
    return found, skipped


def _experiments(path):
    """Read every experiment's scores, one after the other, and its history."""
    curves: dict = {}
    undefined: dict = {}
    histories: dict = {}
    for here in sorted((entry for entry in path.iterdir() if entry.is_dir()), key=_by_number):
        if (here / "done.json").exists() and not run.is_done(here):
            raise RunError(f"{here}: its files are not those that were finished (done.json); "
                           "run it again")  # fmt: skip
        if (here / "scores.csv").exists():
            try:
                found = score_curves(scores.read_scores(here / "scores.csv"))
                curves |= {(here.name, part): one for part, one in found.items()}
            except metrics.UndefinedMetric as error:
                undefined[here.name] = str(error)
        if (here / "history.csv").exists():
            histories[here.name] = _csv(here / "history.csv", [], dtype={"run": str})
    return curves, undefined, histories


def _pictures(path):
    good, bad = [], {}
    for picture in sorted(path.glob("*.png"), key=_by_number):
        try:
            png_size(picture)
            good.append(picture)
        except (RunError, OSError) as error:
            bad[picture] = str(error)
    return good, bad


def _by_number(path):
    """Put figure_2.png before figure_10.png."""
    return [(int(word or -1), other) for word, other in re.findall(r"(\d+)|(\D+)", path.name)]


def _paper(path, rows):
    """Return the paper of a run, from its rows or else its name."""
    papers = [*dict.fromkeys(rows["paper"])] or [p for p in PAPERS if path.name.startswith(f"{p}-")]
    if len(papers) != 1 or papers[0] not in PAPERS:
        raise RunError(
            f"{path}: a run of {' and '.join(papers) or 'no known paper'}, expected one of "
            f"{', '.join(PAPERS)}; keep the name that the run gave its folder"
        )
    return papers[0]


def _origins(path):
    if not path.exists():
        return []
    found = _json(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RunError(f"{path} is not a list of starts; remove it")
    return found


def _object(path):
    found = _json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path} holds a {type(found).__name__}, expected an object; run it again")
    return found


def _json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON ({error}); {_NAME}") from error


def _csv(path, columns, **options):
    try:
        frame = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:  # pandas's and Unicode's errors are ValueErrors
        raise RunError(f"{path} cannot be read ({error}); run it again") from error
    missing = [column for column in columns if column not in frame]
    if missing:
        raise RunError(f"{path} lacks the columns {missing}; run it again")
    return frame
