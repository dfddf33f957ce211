"""When the networks of Task 1 begin to learn: their validation loss against that of a guess."""

import numpy as np
import pandas as pd

from cast_lens import report, run
from reproductions.deeplense.settings import CLASSES

LEAVES = 0.99  # ASSUMED: ours; of the loss of a constant answer, which learning falls below
COLUMNS = ["experiment", "epochs", "first_epoch", "learning_rate", "val_loss", "roc_auc", "low",
           "high"]  # fmt: skip


def tabulate(found):
    """Tell of every network in which epoch its validation loss leaves that of a constant answer.

    Args:
        found: {experiment: {"history": table, "numbers": table}}, as of `results.evaluate`.

    Returns:
        DataFrame of `COLUMNS`: number of epochs, the first (from 1) whose loss is below `LEAVES`
        of ln(number of classes), NaN if none is, the learning rate of it, the lowest loss, and
        the macro area under the ROC curve with its 95 % interval.
    """
    rows = []
    for name, one in found.items():
        history, area = one["history"], one["numbers"].set_index("metric").loc["roc_auc"]
        low, first, rate = history["val_loss"] < LEAVES * constant_answer(), np.nan, np.nan
        if low.any():
            first = int(np.argmax(low)) + 1
            rate = history["learning_rate"].iloc[first - 1]
        rows.append({
            "experiment": name, "epochs": len(history), "val_loss": history["val_loss"].min(),
            "first_epoch": first, "learning_rate": rate,
            "roc_auc": area["value"], "low": area["low"], "high": area["high"],
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def constant_answer():
    """Return the cross-entropy of equal probabilities for all classes of Task 1, which is ln 3."""
    return float(np.log(len(CLASSES[1])))


def paragraph(table, about):
    """Return the finding as one paragraph of Markdown, of the numbers alone.

    Args:
        table: Of `tabulate`.
        about: What the data were, a phrase.
    """
    parts = [
        f"On {about}, the validation loss of Task 1 is held against {constant_answer():.4f}, that "
        f"of a constant answer; a network learns once it is {1 - LEAVES:.0%} lower."
    ]
    for row in table.itertuples():
        area = f"its area under the ROC curve is {row.roc_auc:.3f} [{row.low:.3f}, {row.high:.3f}]"
        does = f"never does in its {row.epochs} epochs"
        if not np.isnan(row.first_epoch):
            does = (f"does from epoch {row.first_epoch:.0f} of {row.epochs} on, at a learning rate "
                    f"of {row.learning_rate:.2g}")  # fmt: skip
        parts.append(f"`{row.experiment}` {does}; {area}.")
    if "task1.report" in set(table["experiment"]):
        first = table.set_index("experiment").loc["task1.report", "first_epoch"]
        if np.isnan(first):
            parts.append("So the report's network fails here as it did there.")
        elif first > 1:
            parts.append("**So the report's network fails at first, as it did there, and then "
                         "learns after all:** it is slow, not too small.")  # fmt: skip
        else:
            parts.append("So the report's network does not fail here.")
    return " ".join(parts) + "\n"


def write(folder, found, about):
    """Write learning.md of a run: the paragraph and the table.

    Args:
        folder: Of the run.
        found: As for `tabulate`.
        about: As for `paragraph`.
    """
    table = tabulate(found)
    shown = table.assign(**{
        column: table[column].map(report.number) for column in COLUMNS[2:]
    })  # fmt: skip
    run.write_whole(folder / "learning.md", paragraph(table, about) + "\n" + report.markdown(shown))
