"""What the sections of the report say: paragraphs, tables and provenance, as plain data."""

from dataclasses import dataclass

import pandas as pd

from cast_lens.report_tables import counts, number, readable, readable_claims

KINDS = {
    "real": "real data", "stand-in": "STAND-IN DATA", "unknown": "DATA UNKNOWN",
    "real and stand-in": "PARTLY STAND-IN DATA", "": "nothing was run",
}  # fmt: skip
# First words of verdicts, in the order of the filter
SHOWN = {
    "agrees": "agrees", "supported": "supported", "differs": "differs",
    "contradicted": "contradicted", "undecidable": "undecidable", "no": "no verdict (stand-in)",
    "not": "not run", "undefined": "undefined",
}  # fmt: skip
ORIGIN_WORDS = {
    "cast_lens": "cast_lens", "commit": "commit", "processor": "processor", "cores": "cores",
    "memory": "memory", "system": "system", "python": "Python", "begun": "begun",
}  # fmt: skip
EXPECTED = ("cast_lens", "commit", "processor", "cores", "memory")  # of each start of a run


@dataclass(frozen=True)
class Grid:
    """A table for the page.

    Attributes:
        title: Its caption.
        data: Kind of the data its numbers are of.
        columns: Names of the columns.
        rows: [(classes of the row, cells)].
        name: For the widths of its columns.
    """

    title: str
    data: str
    columns: list
    rows: list
    name: str


def summary(compared, judged):
    """Say in one paragraph what came out of a paper.

    Args:
        compared: Rows of `verdicts.compare` of one paper.
        judged: Rows of `claims.judge_claims` of one paper.

    Returns:
        Text.
    """
    n_numbers, n_claims = compared["row_id"].nunique(), judged["claim_id"].nunique()
    parts = [f"{_many(n_numbers, 'number')} and {_many(n_claims, 'conclusion')} of the paper."]
    for thing, frame in (("number", compared), ("conclusion", judged)):
        not_run = frame["verdict"].str.startswith("not run")
        for kind, words in (("real", "real data"), ("stand-in", "stand-in data")):
            rows = frame[~not_run & (frame["data"] == kind)]
            if len(rows):
                parts.append(f"On {words}, {_tally(rows, thing)}.")
        n = int(not_run.sum())
        if n:
            parts.append(f"{_many(n, thing)} {_was(n)} not run.")
    return " ".join(parts)


def _tally(rows, thing):
    words = rows["verdict"].str.split(":").str[0]
    if set(words) == {"no verdict"}:
        return f"{_many(len(rows), thing)} {_was(len(rows))} computed, without a verdict"
    order = [word for first in SHOWN for word in sorted(set(words)) if word.split()[0] == first]
    found = ", ".join(f"{(words == word).sum()} {word}" for word in order)
    return f"of {_many(len(rows), thing)}: {found}"


def _many(n, thing):
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _was(n):
    return "was" if n == 1 else "were"


def kind_of(kinds):
    """Return the kind of data of a whole from those of its parts, "" if no part was run.

    Args:
        kinds: Words of the parts, as in `KINDS`; what is none of them counts as unknown.
    """
    words = {word for kind in kinds for word in str(kind).split(" and ") if word}
    if words - {"real", "stand-in"}:
        return "unknown"
    return " and ".join(sorted(words))


def counts_grid(compared, data):
    """Return the Grid of verdict counts of all papers."""
    frame = counts(compared)
    rows = [("", [str(cell or "") for cell in row]) for row in frame.itertuples(index=False)]
    return Grid("Reported numbers by verdict", data, [*frame.columns], rows, "counts")


def numbers_grid(compared):
    """Return the Grid of reported beside reproduced numbers of a paper."""
    return _grid("numbers", compared, readable(compared), compared["run"] != "")


def claims_grid(judged):
    """Return the Grid of a paper's conclusions."""
    return _grid("conclusions", judged, readable_claims(judged), [False] * len(judged))


def _grid(name, frame, text, single):
    rows = []
    for cells, verdict, kind, one in zip(
        text.itertuples(index=False), frame["verdict"], frame["data"], single
    ):
        classes = [f"v-{verdict.split()[0].strip(':')}"]
        classes += ["stand-in"] * (kind not in ("", "real")) + ["single"] * bool(one)
        rows.append((" ".join(classes), [str(cell) for cell in cells]))
    return Grid(name.capitalize(), kind_of(frame["data"]), [*text.columns], rows, name)


def scored_grid(one):
    """Return the Grid of what a run scored; None if it scored nothing yet."""
    rows = []
    for (experiment, part), found in one.curves.items():
        areas = pd.Series(found.roc_auc, dtype=float)
        spread = f" ± {areas.std():.3f}" if len(areas) > 1 else ""
        kind = kind_of([one.kind(experiment)])
        cells = [" ".join(filter(None, (experiment, part))), KINDS[kind], found.n_runs,
                 found.n_objects, found.n_lenses, f"{areas.mean():.3f}{spread}"]  # fmt: skip
        rows.append(("" if kind == "real" else "stand-in", [str(cell) for cell in cells]))
    columns = ["experiment", "data", "runs", "objects", "lenses", "ROC AUC, mean ± sd"]
    data = kind_of([one.data])
    return Grid("What was scored", data, columns, rows, "scored") if rows else None


def provenance(one):
    """Return {word: text} of what a run's numbers depend on, as its run.json says."""
    apart = {"seed", "scale", "data", "sha256", "backend", "machine", *ORIGIN_WORDS}
    told = {word: str(value) for word, value in one.identity.items() if word not in apart}
    versions = [f"{word} {text}" for word, text in told.items() if text[:1].isdigit()]
    hashes = {
        f"SHA-256 of the survey{', ' * bool(name)}{name}": digest
        for name, digest in one.hashes.items()
    }
    scales = ", ".join(sorted(set(one.rows["scale"]))) or "unknown: not recorded"
    return {
        "seed": str(one.identity["seed"]),
        "scale": str(one.identity.get("scale", scales)),
        "data": KINDS[kind_of([one.data])],
        **(hashes or {"SHA-256 of the survey": "unknown: not recorded"}),
        **{f"objects of {survey}": text for survey, text in one.audits.items()},
        "backend": str(one.identity["backend"]),
        "versions": ", ".join(versions),
        **{word: text for word, text in told.items() if not text[:1].isdigit()},
        "state": "finished" if len(one.rows) else "unfinished: it has not written its table",
    }


def origins(one):
    """Return [{word: text}] of code and machine at each start of a run, "unknown" if not kept."""
    kept = one.origins or [{key: one.identity[key] for key in ORIGIN_WORDS if key in one.identity}]
    unknown = dict.fromkeys(EXPECTED, "unknown: the run did not record it")
    return [
        {word: str(known[key]) for key, word in ORIGIN_WORDS.items() if key in known}
        for known in (unknown | each for each in kept)
    ]


def in_table(one, compared):
    """Say how many of a run's numbers stand beside the reported ones.

    Args:
        one: A RunFolder.
        compared: Table of `verdicts.compare`, of all papers.

    Returns:
        A sentence.
    """
    if not len(one.rows):
        return "None of its numbers is in the tables above: it has not written its table."
    key = ["paper", "experiment", "metric", "data", "scale"]
    shown = compared[(compared["run"] == "") & compared["data"].isin(["real", "stand-in"])]
    above = {tuple(row[k] for k in key): row["reproduced"] for _, row in shown.iterrows()}
    told = [
        (above[at], row["value"])
        for _, row in one.rows.iterrows()
        if (at := tuple(row[k] for k in key)) in above
    ]
    same = sum(number(there) == number(here) for there, here in told)
    text = f"Of its {_many(len(one.rows), 'number')}, {same} {_was(same)} put in the tables above"
    other, without = len(told) - same, len(one.rows) - len(told)
    if other:
        text += f"; for {other} the tables above have the number of another run"
    return f"{text}; {without} have no counterpart there." if without else f"{text}."
