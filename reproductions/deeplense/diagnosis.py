"""Why the first task failed: one change at a time, in pairs, and back, and a rule for the cause."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from cast_lens import intervals, report, run, scores
from reproductions.deeplense.measures import macro_auc, scored
from reproductions.deeplense.settings import CLASSES, SUSPECTS, SWITCHES, config_of

CHANCE = 0.5
LEARNS = 0.6  # ASSUMED: ours; an area that is surely above this tells the classes apart
COLUMNS = ["name", "roc_auc", "sd", "low", "high", "n_runs", "val_loss", "gain", "gain_low",
           "gain_high", "learns"]  # fmt: skip


def plan(scale):
    """Make the list of configurations of a Scale.

    Returns:
        {name: Config} of those that the Scale names: "base", the authors' network; "one.<switch>"
        with one change; of the pairs of the Scale "two.<switch>+<switch>"; "mended" with all of the
        suspects; and "back.<switch>", mended but for one of them.
    """
    base = replace(config_of("diagnosis", scale), **scale.diagnosis)
    if base.rules != "report":  # tested apart from what chooses the epoch
        base = replace(base, rules="report")
    found = {"base": base}
    for name, change in SWITCHES.items():
        if name == "other_size":
            change = {"side": 150 if base.side == 64 else 64}
        found[f"one.{name}"] = replace(base, **change)
    for one, two in combinations(scale.pairs, 2):
        found[f"two.{one}+{two}"] = replace(base, **SWITCHES[one], **SWITCHES[two])
    if scale.pairs:
        mended = replace(base, **{k: v for name in SUSPECTS for k, v in SWITCHES[name].items()})
        found["mended"] = mended
        for name in SUSPECTS:
            original = {field: getattr(base, field) for field in SWITCHES[name]}
            found[f"back.{name}"] = replace(mended, **original)
    return {name: found[name] for name in scale.diagnosed or found}


def collect(folder, configs, seeds):
    """Read what every training of the plan came to.

    Args:
        folder: Of the trainings, <name>/seed<k>; all of one Config, or none, are there.
        configs: {name: Config}.
        seeds: Of the trainings.

    Returns:
        DataFrame of name, seed, roc_auc (macro, of the test objects) and val_loss (lowest).
    """
    rows = []
    for name, config in configs.items():
        for seed in seeds:
            here = folder / name / f"seed{seed}"
            if not (here / "history.csv").exists():
                continue
            names = CLASSES[config.task]
            test = scored(scores.read_scores(here / "scores.csv"), names)["test"]
            area, _ = macro_auc(test, np.full(len(names), 1 / len(names)))
            loss = pd.read_csv(here / "history.csv")["val_loss"].min()
            rows.append({"name": name, "seed": seed, "roc_auc": area, "val_loss": loss})
    return pd.DataFrame(rows, columns=["name", "seed", "roc_auc", "val_loss"])


def tabulate(runs):
    """Summarize the runs of every configuration, and what it gains over the one it changes.

    Args:
        runs: Table of `collect`.

    Returns:
        DataFrame of `COLUMNS`: means with 95 % intervals over the seeds. The gain is paired by
        seed, over base or, for "back.", over mended; `learns` is whether the interval of the area
        lies above `LEARNS`.
    """
    rows, areas = [], runs.pivot(index="name", columns="seed", values="roc_auc")
    for name, part in runs.groupby("name", sort=False):
        values, over = part["roc_auc"].to_numpy(), "mended" if name.startswith("back.") else "base"
        low, high = np.clip(_interval(values), 0, 1)  # no area lies outside
        row = {"name": name, "roc_auc": values.mean(), "low": low, "high": high}
        row |= {"sd": values.std(ddof=1) if len(values) > 1 else np.nan, "n_runs": len(values)}
        row |= {"val_loss": part["val_loss"].mean(), "learns": bool(low > LEARNS)}
        if over in areas.index and name != over:
            gains = (areas.loc[name] - areas.loc[over]).dropna().to_numpy()
            bounds = _interval(gains)
            row |= {"gain": gains.mean(), "gain_low": bounds[0], "gain_high": bounds[1]}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def cause(table):
    """Name the cause by a rule that was fixed before any run.

    The base must not learn. Of the single changes that make it learn, by themselves and by more
    than their scatter, the one of the largest gain is the cause; if there is none, of the pairs.
    It is confirmed if the mended network does learn, and loses surely by putting it back (of a
    pair: either).

    Args:
        table: Of `tabulate`.

    Returns:
        Name of the cause ("" if there is none), whether it is confirmed, and the reason as a
        sentence.
    """
    rows = table.set_index("name")
    if "base" not in rows.index:
        return "", False, "The network that is diagnosed was not run."
    if rows.loc["base", "learns"]:
        return "", False, "The network that is diagnosed learns here, so there is nothing to name."
    for word in ("one.", "two."):
        mends = rows[rows.index.str.startswith(word) & rows["learns"].astype(bool)]
        mends = mends[mends["gain_low"] > 0]
        if len(mends):
            name = mends["gain"].idxmax().removeprefix(word)
            back = [rows.loc[f"back.{each}", "gain_high"] for each in name.split("+")
                    if f"back.{each}" in rows.index]  # fmt: skip
            learns = "mended" in rows.index and bool(rows.loc["mended", "learns"])
            confirmed = learns and any(high < 0 for high in back)
            how_many = (
                f"of {len(mends)} that make it learn" if len(mends) > 1 else "and the only one"
            )
            single = rows.index.str.startswith("one.").any()
            alone = "No single change is enough. " if word == "two." and single else ""
            return name, confirmed, f"{alone}It is the change of the largest gain, {how_many}."
    tried = rows[rows.index.str.match("one|two")]
    if len(tried) and tried["roc_auc"].max() > LEARNS:
        name = tried["roc_auc"].idxmax()
        reason = (f"With `{name.partition('.')[2]}` it is {_told(tried.loc[name])}, which "
                  f"{tried.loc[name, 'n_runs']:.0f} seeds cannot surely tell from it.")  # fmt: skip
        return "", False, reason
    return "", False, "No single change and no pair makes the network learn at this size."


def paragraph(table, about):
    """Return the finding as one paragraph of Markdown, of the numbers alone.

    Args:
        table: Of `tabulate`.
        about: What the data and the training were, a phrase.
    """
    rows = table.set_index("name")
    name, confirmed, reason = cause(table)
    parts = [f"On {about}, areas under the ROC curve are means over the classes and "
             f"{table['n_runs'].max():.0f} seeds, with 95 % intervals."]  # fmt: skip
    if "base" in rows.index:
        parts.append(f"The authors' network reaches {_told(rows.loc['base'])}, where chance is "
                     f"{CHANCE} and learning is to be surely above {LEARNS}.")  # fmt: skip
    if name:
        change = rows.loc[f"one.{name}" if f"one.{name}" in rows.index else f"two.{name}"]
        parts.append(f"**The cause is what `{name}` switches off:** with it the area is "
                     f"{_told(change)}. {reason}")  # fmt: skip
        for each in name.split("+"):
            if f"back.{each}" in rows.index and "mended" in rows.index:
                parts.append(f"With all suspects off it is {_told(rows.loc['mended'])}, and with "
                             f"what `{each}` switches off put back "
                             f"{_told(rows.loc[f'back.{each}'])}.")  # fmt: skip
        does = "confirms it" if confirmed else "does not confirm it: something else is part of it"
        if "mended" in rows.index:
            parts.append(f"Switching it on again {does}.")
        else:
            parts.append("It was not switched on again at this scale.")
    else:
        parts.append(reason)
    return " ".join(parts) + "\n"


def write(folder, configs, seeds, about):
    """Write diagnosis.csv and diagnosis.md; return the tables of runs and of configurations."""
    runs = collect(folder / "diagnosis", configs, seeds)
    table = tabulate(runs)
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    run.write_whole(folder / "diagnosis.csv", text)
    shown = table.assign(**{
        column: table[column].map(report.number) for column in COLUMNS[1:-1]
    }).assign(learns=table["learns"].map({True: "yes", False: "no"}))  # fmt: skip
    finding = paragraph(table, about) if len(table) else ""
    run.write_whole(folder / "diagnosis.md", finding + "\n" + report.markdown(shown))
    return runs, table


def _interval(values):
    if len(values) < 2:
        return np.nan, np.nan
    return tuple(intervals.mean_interval(values))


def _told(row):
    return f"{row['roc_auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
