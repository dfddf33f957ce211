"""What became of every object of a survey that was packed, and of its pixels."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cast_lens import half
from cast_lens.pack_blocks import read_record
from cast_lens.pack_files import PackError, array_name, csv_text
from cast_lens.pack_plan import COUNTS
from cast_lens.scores import escape_cell

_TOLD = 10  # warnings that are kept word for word


@dataclass(frozen=True, eq=False)
class Findings:
    """The records of all blocks as one.

    Attributes:
        rows: Row in the catalog of each record, shape (records,).
        checksums: CRC-32 of each record, uint32, shape (records, inputs by name).
        counts: {input: {name of `COUNTS`: int64, shape (records, bands)}}.
        errors: (row, reason, path, found, expected) of each object that could not be used.
        losses: {input: what float16 lost}.
        warnings: Texts.
    """

    rows: np.ndarray
    checksums: np.ndarray
    counts: dict
    errors: list
    losses: dict
    warnings: list


def gather(staging, plan, blocks):
    """Read the records of all blocks.

    Args:
        staging: Folder of the unfinished pack.
        plan: The Plan.
        blocks: Rows of the catalog in each block, a list of arrays.

    Returns:
        Findings.
    """
    rows, errors, texts = [], [], []
    parts: dict[str, dict[str, list]] = {
        name: {key: [] for key in (*COUNTS, "checksums", "loss")} for name in plan.inputs
    }
    for number, block in enumerate(blocks):
        record = read_record(staging, number, len(block))
        if record is None:
            raise PackError(f"{staging}: found no record of block {number}; run the command again")
        bad = [k for k, *_ in record["errors"]]
        rows.append(np.delete(block, bad))
        errors += [(int(block[k]), *rest) for k, *rest in record["errors"]]
        texts += record["warnings"]
        for name, values in parts.items():
            for key, value in values.items():
                found = record["inputs"][name][key]
                dtype = np.uint32 if key == "checksums" else np.int64
                value.append(found if key == "loss" else np.array(found, dtype))
    counts, losses = {}, {}
    for name, values in parts.items():
        shape = (-1, len(plan.inputs[name]))
        counts[name] = {k: np.concatenate([v.reshape(shape) for v in values[k]]) for k in COUNTS}
        n_pixels = len(counts[name][COUNTS[0]]) * int(np.prod(plan.shapes[name]))
        if plan.dtype == "float16" and n_pixels:
            losses[name] = half.total(values["loss"], n_pixels)
    sums = [np.concatenate(parts[name]["checksums"]) for name in sorted(plan.inputs)]
    return Findings(np.concatenate(rows), np.stack(sums, axis=1), counts, errors, losses, texts)


def packed_table(source, findings, staging):
    """Return the catalog of a pack: the rows that have a record, with what was found of each.

    Args:
        source: The Source.
        findings: Findings.
        staging: Folder of the arrays, whole.

    Returns:
        DataFrame with, as new columns, the sums over all bands of `COUNTS`, and pixel_group: the
        object_id of the first object with the same pixels, in any input whose image is not
        constant, which is the object's own where there is no other.
    """
    table = source.table.iloc[findings.rows].reset_index(drop=True)
    for key in COUNTS:
        per_input = [counts[key].sum(1) for counts in findings.counts.values()]
        table[key] = np.sum(per_input, axis=0, dtype=np.int64)
    table["pixel_group"] = _pixel_groups(source.plan, findings, staging, table["object_id"])
    return table


def quarantine_text(source, findings, known_missing):
    """Return quarantine.csv: each object without a record, in catalog order, and why.

    Args:
        source: The Source.
        findings: Findings.
        known_missing: IDs of objects that were published without images.

    Returns:
        Text with the columns object_id, reason, path, found, expected. An object without any file
        has the reason "missing", which the audit counts apart.
    """
    object_ids, rows = source.table["object_id"], list(findings.errors)
    for row in np.flatnonzero(~source.has_files).tolist():
        published = object_ids[row] in known_missing
        found = "no file, as published" if published else "no file"
        rows.append((row, "missing", "", found, f"files in {', '.join(source.plan.columns)}"))
    named = [(object_ids[row], *rest) for row, *rest in sorted(rows)]
    cells = [[escape_cell(str(text)) for text in texts] for texts in named]
    columns = ["object_id", "reason", "path", "found", "expected"]
    return csv_text(pd.DataFrame(cells, columns=columns))


def audit(source, findings, table, *, n_extra_files, known_missing):
    """Count what became of all objects and pixels.

    Args:
        source: The Source.
        findings: Findings.
        table: As `packed_table` returns it.
        n_extra_files: Files of the survey that no object has.
        known_missing: IDs of objects that were published without images.

    Returns:
        Dict, JSON-serializable.

    Raises:
        RuntimeError: If the numbers do not add up: n_catalog = n_ok + n_quarantined + n_missing.
    """
    missing = source.table["object_id"][~source.has_files]
    reasons = Counter(reason for _, reason, *_ in findings.errors)
    n_catalog, n_ok = len(source.table), len(findings.checksums)
    if n_catalog != n_ok + reasons.total() + len(missing) or n_ok != len(table):
        raise RuntimeError(
            f"n_catalog {n_catalog} is not n_ok {n_ok} + n_quarantined {dict(reasons)} + n_missing "
            f"{len(missing)}: an object was lost or is there twice"
        )
    sizes = table["pixel_group"].value_counts()
    found = {
        "n_catalog": n_catalog, "n_ok": n_ok, "n_quarantined": dict(sorted(reasons.items())),
        "n_missing": len(missing), "n_missing_published": int(missing.isin(known_missing).sum()),
        "n_extra_files": n_extra_files,
        "n_pixel_groups": int((sizes > 1).sum()), "n_in_pixel_groups": int(sizes[sizes > 1].sum()),
        "bands": {}, "loss": findings.losses,
        "n_warnings": len(findings.warnings), "warnings": findings.warnings[:_TOLD],
    }  # fmt: skip
    for name, bands in source.plan.inputs.items():
        counts = findings.counts[name]
        found["bands"][name] = {
            band: {
                f"{key}_{what}": int(total)
                for key in COUNTS
                for what, total in (
                    ("objects", (counts[key][:, n] > 0).sum()), ("pixels", counts[key][:, n].sum())
                )
                if (key, what) != ("n_constant", "pixels")
            }
            for n, band in enumerate(bands)
        }  # fmt: skip
    return found


def sentence(found):
    """Return the identity of an audit as one line."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in found["n_quarantined"].items())
    n_quarantined = sum(found["n_quarantined"].values())
    return (
        f"n_catalog {found['n_catalog']} = n_ok {found['n_ok']} + n_quarantined {n_quarantined} "
        f"({reasons or 'none'}) + n_missing {found['n_missing']} ({found['n_missing_published']} "
        f"of them published as missing); n_extra_files {found['n_extra_files']}"
    )


def _pixel_groups(plan, findings, staging, object_ids):
    """Find records of the same pixels: alike in the checksum, then in all bytes."""
    alike = pd.DataFrame(index=object_ids.index)
    for n, name in enumerate(sorted(plan.inputs)):
        sums = pd.Series(findings.checksums[:, n])
        sums = sums[~findings.counts[name]["n_constant"].all(1)]
        suspects = sums.index[sums.duplicated(keep=False)]
        images = np.load(staging / array_name(name), mmap_mode="r", allow_pickle=False)
        digests = {k: hashlib.sha256(images[k]).hexdigest() for k in suspects}
        alike[name] = pd.Series(digests, dtype=object)
    if not alike.notna().any(axis=None):
        return object_ids
    from cast_lens.folds import held_together  # which needs scikit-learn

    return object_ids.groupby(held_together(alike, list(alike))).transform("first")
