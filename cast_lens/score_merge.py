"""The last step of `scoring`: shards become ranked candidates and an audit that adds up."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from cast_lens import candidates, run
from cast_lens.images import FLAGS
from cast_lens.pack_files import csv_text
from cast_lens.score_shards import ScoringError, read_shard
from cast_lens.scores import escape_cell

LEFT_OUT = "left_out.csv"


def finish(job, images, shard, about, top):
    """Merge the shards into the folder of candidates; run.json is written last.

    Args:
        job: The Job.
        images: Images of all objects.
        shard: Objects in a shard.
        about: Dict for run.json.
        top: Candidates in the regions.

    Returns:
        The dict of run.json, which has the audit too.

    Raises:
        ScoringError: If a shard is missing, or an object was left out and the job is strict.
        CandidateError: As `candidates.write`.
    """
    logits, flags, places, kept, left_out = [], [], [], [], []
    object_ids = images.table["object_id"].tolist()
    for number, first in enumerate(range(0, len(images), shard)):
        found = read_shard(job.folder, number, object_ids[first : first + shard])
        if found is None:
            raise ScoringError(f"{job.folder}: shard {number} is missing; run the command again")
        for k, row in enumerate(found["logits"]):
            if row is not None:
                kept.append(first + k)
                logits.append(row)
                flags.append(found["flags"][k])
                places.append(found["positions"][k] or (np.nan, np.nan))
        left_out += [(object_ids[first + int(k)], *e) for k, e in found["errors"].items()]
    if job.strict and left_out:
        object_id, reason, path, seen, expected = left_out[0]
        raise ScoringError(
            f"object_id {object_id}, {path}: {reason}: found {seen}, expected {expected}, and "
            f"{len(left_out) - 1} more; mend them, or score without --strict"
        )
    audit = _audit(images, kept, left_out, flags)
    table = candidates.rank(_table(images, kept, places, np.array(logits), flags, about["network"]))
    cells = [[escape_cell(text) for text in row] for row in left_out]
    columns = ["object_id", "path", "reason", "found", "expected"]
    order = ["object_id", "reason", "path", "found", "expected"]
    text = csv_text(pd.DataFrame(cells, columns=order)[columns])
    run.write_whole(Path(job.folder) / LEFT_OUT, text)
    about = about | {"audit": audit}
    candidates.write(job.folder, table, about, top)
    return about


def _table(images, kept, places, logits, flags, networks):
    """Return the candidates in the order of the catalog; logits of shape (objects, members)."""
    source = images.table.iloc[kept].reset_index(drop=True)
    table = source[["object_id"]].copy()
    table["ra"], table["dec"] = np.array(places, np.float64).reshape(-1, 2).T
    logits = logits.reshape(len(kept), len(networks))
    table["logit"] = logits.mean(axis=1)
    table["score"] = expit(table["logit"])
    table["probability"] = np.nan
    if all(one["calibration"] for one in networks):
        constants = [(one["calibration"]["slope"], one["calibration"]["intercept"])
                     for one in networks]  # fmt: skip
        slopes, intercepts = np.array(constants).T
        table["probability"] = expit(logits * slopes + intercepts).mean(axis=1)
    several = len(networks) > 1
    table["spread"] = expit(logits).std(axis=1, ddof=1) if several else np.nan
    table["flags"] = flags
    table["weights"] = weights_of(networks)
    if "label" in source:
        table["label"] = source["label"]
    return table


def weights_of(networks):
    """Return the first 12 hex digits of the hash of a network, or of those of an ensemble."""
    hashes = [one["sha256"] for one in networks]
    if len(hashes) == 1:
        return hashes[0][:12]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]


def _audit(images, kept, left_out, flags):
    """Count what became of all objects.

    Raises:
        RuntimeError: If n_images is not n_scored + n_left_out.
    """
    by_reason = Counter(row[1] for row in left_out)
    if len(images) != len(kept) + by_reason.total():
        raise RuntimeError(
            f"n_images {len(images)} is not n_scored {len(kept)} + n_left_out {dict(by_reason)}: "
            "an object was lost or is there twice"
        )
    words = Counter(word for text in flags for word in text.split(";") if word)
    return {
        "n_images": len(images), "n_scored": len(kept),
        "n_left_out": dict(sorted(by_reason.items())),
        "n_extra_files": images.n_extra, "n_flagged": {w: words[w] for w in FLAGS if words[w]},
    }  # fmt: skip


def sentence(audit):
    """Return the identity of an audit as one line."""
    return (
        f"n_images {audit['n_images']} = n_scored {audit['n_scored']} + n_left_out "
        f"{sum(audit['n_left_out'].values())} ({reasons(audit)}); n_extra_files "
        f"{audit['n_extra_files']}"
    )


def reasons(audit):
    """Return why objects were left out, and how many for each reason, or "none"."""
    return ", ".join(f"{reason} {n}" for reason, n in audit["n_left_out"].items()) or "none"
