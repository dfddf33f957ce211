"""The tables of verdicts and claims as text: columns and number formats that people read."""

import html
import re
import textwrap

import numpy as np
import pandas as pd

PAPERS = {
    "sglc2": "Bom et al. (2022)",
    "epfl": "Saied, Syvis & Crettenand (2019)",
    "nottingham": "Gabe (2022)",
    "deeplense": "Aryal (2025)",
    "active_learning": "Li, Eadie & Walmsley (2025)",
}
NUMBERS = [
    "experiment", "metric", "data", "reported", "reproduced [95 %]", "runs", "difference",
    "verdict", "source",
]  # fmt: skip
CLAIMS = [
    "claim", "comparison", "data", "left", "right", "difference [95 %]", "p", "verdict", "source",
]  # fmt: skip
# Metrics that lie between 0 and 1, and so does their interval as it is shown.
_FRACTIONS = re.compile(
    r"(roc_auc|pr_auc|average_precision|accuracy|tpr\d+|true_(positive|negative)_rate)(\.\w+)?"
    r"|(precision|recall|f1|max_f_beta)\S*"
)
VERDICTS = ["agrees", "differs", "undecidable at this n", "no verdict", "not run", "undefined"]


def readable(compared):
    """Return the table of `verdicts.compare` with the columns and number formats people read.

    Args:
        compared: Table of `verdicts.compare`.

    Returns:
        DataFrame of text columns.
    """
    rows = []
    for _, row in compared.iterrows():
        uncertainty = f" ± {row['uncertainty']}" if row["uncertainty"] else ""
        rows.append(
            {
                "experiment": row["experiment"] + (f", run {row['run']}" if row["run"] else ""),
                "metric": row["metric"],
                "data": data_label(row),
                "reported": f"{row['value']}{uncertainty}",
                "reproduced [95 %]": with_interval(
                    row, "reproduced", cut=_FRACTIONS.fullmatch(row["metric"]) is not None
                ),
                "runs": str(row.get("n", "")),
                "difference": number(row.get("difference", ""), sign=True),
                "verdict": row["verdict"],
                "source": row["source"],
            }
        )
    return pd.DataFrame(rows, columns=NUMBERS)


def readable_claims(judged):
    """Return the table of `claims.judge_claims` with the columns and formats people read."""
    rows = []
    for _, row in judged.iterrows():
        rows.append(
            {
                "claim": row["statement"],
                "comparison": f"{row['left']} {row['relation']} {row['right']}",
                "data": data_label(row),
                "left": number(row.get("left_value", "")),
                "right": number(row.get("right_value", "")),
                "difference [95 %]": with_interval(row, "difference"),
                "p": number(row.get("p", "")),
                "verdict": row["verdict"],
                "source": row["source"],
            }
        )
    return pd.DataFrame(rows, columns=CLAIMS)


def data_label(row):
    """Return e.g. "real, paper scale", or nothing for a row that was not run."""
    return f"{row['data']}, {row['scale']} scale" if row.get("data") else ""


def with_interval(row, key, *, cut=False):
    """Return a number with its interval in brackets, as far as there are any; `cut` at 0 and 1."""
    value, low, high = (row.get(name, "") for name in (key, "low", "high"))
    text = number(value)
    if not text or not number(low):
        return text
    if cut:
        low, high = np.clip([float(low), float(high)], 0, 1)
    return f"{text} [{number(low)}, {number(high)}]"


def number(value, *, sign=False):
    """Return a number with four significant digits, or nothing where there is none."""
    if value == "" or value is None or np.isnan(float(value)):
        return ""
    value = float(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):+d}" if sign and value else f"{int(value)}"
    return f"{value:+.4g}" if sign else f"{value:.4g}"


def markdown(frame):
    """Return a table of text as GitHub Markdown."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        cells = (html.escape(str(cell), quote=False).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def counts(compared):
    """Return how many reported numbers of each paper got which verdict."""
    first = compared["verdict"].str.extract(f"^({'|'.join(map(re.escape, VERDICTS))})")[0]
    tally = pd.crosstab(compared["paper"], first).reindex(columns=VERDICTS, fill_value=0)
    tally = tally.loc[:, (tally != 0).any()].reindex([p for p in PAPERS if p in tally.index])
    tally.insert(0, "numbers", tally.sum(axis=1))
    tally.insert(0, "paper", [PAPERS[paper] for paper in tally.index])
    return tally


def was_run(rows):
    """Return the rows of a compared or judged table that have a result."""
    return rows[~rows["verdict"].str.startswith("not run")]


def terminal(compared, judged):
    """Return the tables as they are printed at the end of a run; single runs are left out."""
    numbers = readable(compared[compared["run"] == ""]).drop(columns="source")
    claims = readable_claims(judged).drop(columns=["comparison", "source"])
    claims["claim"] = claims["claim"].map(lambda text: textwrap.shorten(text, 60, placeholder="…"))
    return "\n\n".join(tabulate(frame) for frame in (numbers, claims) if len(frame))


def tabulate(frame):
    """Return a table of text in aligned columns with a rule under its header."""
    cells = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    widths = [max(len(row[k]) for row in cells) for k in range(len(frame.columns))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
