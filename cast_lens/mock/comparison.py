"""Known numbers beside those of a stand-in; the outcome of each is decided here by fixed rules."""

from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import report

RESOLUTION = 0.15  # ASSUMED: half width of an AUROC's interval beyond which 0.5 in it says nothing
KNOWN = [
    "survey", "quantity", "band", "value", "tolerance", "kind", "depends", "status", "source",
    "note",
]  # fmt: skip
TABLE = [
    "quantity", "band", "known", "stand_in", "low", "high", "n", "ratio", "target", "outcome",
    "real", "n_real", "status", "source", "note",
]  # fmt: skip
UNDECIDABLE = "undecidable at this n"
OUTCOMES = ("met", "not met", UNDECIDABLE, "not compared")
_LEGEND = """*met*: all of the interval is within the target; *not met*: none of it; *undecidable at
this n*: it straddles an end. Targets are those of known.csv; the stand-in was adjusted towards
them. A probe named leak_ must be at chance; of all that are, one in forty is called a leak.
"""
READABLE = ["quantity", "band", "known", "stand-in [95 %]", "n", "ratio", "target", "outcome",
            "real (n)"]  # fmt: skip


def read_known():
    """Read known.csv.

    Returns:
        DataFrame of `KNOWN`, all text, one row a number. `kind` says how `tolerance` bounds
        `value`: relative, absolute, every (absolute, for all objects and not a typical one), range
        (`value` is both ends with .. between), maximum (a range for the maximum of as many objects
        as `tolerance` says) or chance (an AUROC that must be 0.5). `depends` names what changes
        it: parameters of a stand-in that must be "challenge", or name=value.
    """
    return pd.read_csv(Path(__file__).with_name("known.csv"), dtype=str, keep_default_na=False)


def target(value, tolerance, kind):
    """Compute the bounds between which a number of the stand-in must lie.

    Args:
        value: Known number as text, or both ends of a range.
        tolerance: Number as text; does not matter for a range or maximum.
        kind: "relative", "absolute", "every", "range" or "maximum".

    Returns:
        (low, high).

    Raises:
        ValueError: If `kind` is none of these, or a number is none.
    """
    if kind in {"range", "maximum"}:
        low, high = map(float, value.split(".."))
        return low, high
    if kind not in {"relative", "absolute", "every"}:
        raise ValueError(f"kind is {kind!r}, expected relative, absolute, every, range or maximum")
    half = float(tolerance) * (abs(float(value)) if kind == "relative" else 1)
    return float(value) - half, float(value) + half


def outcome(value, low, high, bounds):
    """Decide whether a number is within its target, by its 95 % interval.

    Args:
        value: The number; NaN if it could not be measured.
        low: Lower end of its interval; NaN for a count, which has none.
        high: Upper end.
        bounds: Both ends of the target.

    Returns:
        "met" if the whole interval is within the target, "not met" if none of it is, "undecidable
        at this n" if it straddles an end; "not compared" without a number.
    """
    if np.isnan(value):
        return "not compared"
    low, high = (value, value) if np.isnan(low) else (low, high)
    if bounds[0] <= low and high <= bounds[1]:
        return "met"
    return "not met" if high < bounds[0] or low > bounds[1] else UNDECIDABLE


def chance_outcome(value, low, high):
    """Decide whether an AUROC is at chance, by its 95 % interval.

    Args:
        value: The AUROC; NaN if it could not be measured.
        low: Lower end of its interval.
        high: Upper end.

    Returns:
        "not met" if all of the interval is above 0.5; "undecidable at this n" if it is not, but
        reaches more than `RESOLUTION` to a side; else "met"; "not compared" without a number.
        Below 0.5 is no leak: what a regression learned of one half holds for the other, or not.
    """
    if np.isnan(value):
        return "not compared"
    if low > 0.5:
        return "not met"
    return "met" if high - low <= 2 * RESOLUTION else UNDECIDABLE


def compare(known, numbers, real, settings):
    """Put known numbers, those of a stand-in and those of the real survey side by side.

    Args:
        known: Rows of `read_known` about one survey.
        numbers: DataFrame of `quantities.COLUMNS` of the stand-in.
        real: The same of the real survey, perhaps without rows.
        settings: Parameters of the stand-in, and its n. A known number that depends on one that
            differs is not compared; what is not there has the default, the challenges' own.

    Returns:
        DataFrame of `TABLE`: the known numbers in their order, then those nothing is known of.
    """
    beside = {(row["quantity"], row["band"]): row for row in real.to_dict("records")}
    found = {(row["quantity"], row["band"]): row for row in numbers.to_dict("records")}
    facts = {(row["quantity"], row["band"]): row for row in known.to_dict("records")}
    rows = []
    for key in [*facts, *(key for key in found if key not in facts)]:
        row = {"quantity": key[0], "band": key[1]} | _row(facts.get(key), found.get(key), settings)
        other = beside.get(key, {"value": np.nan, "n": np.nan})
        rows.append(row | {"real": other["value"], "n_real": other["n"]})
    return pd.DataFrame(rows, columns=TABLE).astype({"n": "Int64", "n_real": "Int64"})


def readable(table):
    """Return the table of `compare` with the columns and number formats people read."""
    rows = []
    for row in table.to_dict("records"):
        n_real = f" ({row['n_real']})" if not pd.isna(row["n_real"]) else ""
        rows.append([
            row["quantity"], row["band"], row["known"],
            report.with_interval(row, "stand_in"), "" if pd.isna(row["n"]) else str(row["n"]),
            report.number(row["ratio"]), row["target"], row["outcome"],
            report.number(row["real"]) + n_real,
        ])  # fmt: skip
    return pd.DataFrame(rows, columns=READABLE)


def page(introduction, table, pictures):
    """Return table.md, the page people read.

    Args:
        introduction: Title and what was measured how, Markdown.
        table: Table of `compare`.
        pictures: Paths of the pictures beside the page.
    """
    known = table["known"] != ""
    tally = table.loc[known, "outcome"].value_counts()
    counts = ", ".join(f"{tally.get(name, 0)} {name}" for name in OUTCOMES)
    text = readable(table)
    text["source"] = [f"{r.status}: {r.source}" if r.source else "" for r in table.itertuples()]
    text["note"] = table["note"]
    beyond = text[~known].drop(columns=["known", "ratio", "target", "outcome", "source"])
    return "\n".join([
        introduction, f"{counts}.\n", _LEGEND,
        "## Known numbers\n", report.markdown(text[known]),
        "## Measured, and not known of the real survey\n", report.markdown(beyond),
        "## Pictures\n", *(f"![{path.stem}]({path.name})\n" for path in pictures),
    ])  # fmt: skip


def _row(fact, number, settings):
    number = number or {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0, "note": ""}
    value, low, high = (number[name] for name in ("value", "low", "high"))
    row = {"stand_in": value, "low": low, "high": high, "n": number["n"], "ratio": np.nan}
    if fact is None:
        blank = dict.fromkeys(("known", "target", "status", "source"), "")
        return row | blank | {"outcome": "not compared", "note": number["note"]}
    notes = [fact["note"], number["note"], "" if number["n"] else "not measured"]
    differing = [text for text in map(_differs, fact["depends"].split(), repeat(settings)) if text]
    if fact["kind"] == "chance":
        text, verdict = f"interval not above {fact['value']}", chance_outcome(value, low, high)
    else:
        bounds = target(fact["value"], fact["tolerance"], fact["kind"])
        text = f"{report.number(bounds[0])} to {report.number(bounds[1])}"
        verdict = outcome(value, low, high, bounds)
        if fact["kind"] == "maximum" and high < bounds[0] and number["n"] < int(fact["tolerance"]):
            verdict = UNDECIDABLE  # more objects can only raise it
        if fact["kind"] == "every" and verdict == UNDECIDABLE:
            verdict = "not met"  # the ends are extremes: of some objects it does not hold
        if fact["kind"] in {"relative", "absolute"} and float(fact["value"]):
            row["ratio"] = value / float(fact["value"])
    if differing:
        verdict, notes = "not compared", notes + differing
    known = fact["value"].replace("..", " to ")
    return row | {
        "known": known, "target": text, "outcome": verdict, "status": fact["status"],
        "source": fact["source"], "note": "; ".join(note for note in notes if note),
    }  # fmt: skip


def _differs(condition, settings):
    """Say how a setting differs from that of the known number, or nothing."""
    name, _, wanted = condition.partition("=")
    wanted = wanted or "challenge"
    found = str(settings.get(name, wanted))
    return "" if found == wanted else f"known for {name} {wanted}, here {found}"
