"""The last step of a pack: headers, tables, hashes, and final names."""

import hashlib
import io
import json
import os
import shutil

from cast_lens import pack_audit, pack_files, run
from cast_lens.pack_blocks import offset
from cast_lens.pack_files import MANIFEST, PackError, array_header, array_name


def finish(folder, source, blocks, *, n_extra_files, known_missing):
    """Give all files of a pack their final names, the manifest last.

    Args:
        folder: Of the pack; its folder .pack holds the arrays and the records of all blocks.
        source: The `pack_sources.Source`.
        blocks: Rows of the catalog in each block.
        n_extra_files: As for `pack.build`.
        known_missing: As for `pack.build`.

    Raises:
        PackError: If there is no record.
        OSError: If a file cannot be written.
    """
    staging = folder / ".pack"
    findings = pack_audit.gather(staging, source.plan, blocks)
    if not len(findings.rows):
        row, reason, path, found, expected = findings.errors[0]
        raise PackError(
            f"none of {len(findings.errors)} objects can be used; of object_id "
            f"{source.table['object_id'][row]} {path}: {reason}: found {found}, expected {expected}"
        )
    arrays = _end_arrays(staging, source.plan, len(findings.rows))
    table = pack_audit.packed_table(source, findings, staging)
    audit = pack_audit.audit(
        source, findings, table, n_extra_files=n_extra_files, known_missing=known_missing
    )
    quarantine = pack_audit.quarantine_text(source, findings, known_missing)
    catalog, columns = pack_files.encode_catalog(table)
    files = {
        "checksums.npy": pack_files.array_bytes(findings.checksums),
        "catalog.csv": catalog,
        "quarantine.csv": quarantine.encode(),
        "audit.json": (json.dumps(audit, indent=1) + "\n").encode(),
    }
    stream = io.BytesIO()
    pack_files.decode_catalog(catalog, columns).to_parquet(stream, index=False)
    files["catalog.parquet"] = stream.getvalue()
    for name, data in files.items():
        run.write_whole(folder / name, data, scratch=staging / "scratch")
    for name in map(array_name, source.plan.inputs):
        os.replace(staging / name, folder / name)
    manifest = {
        "format": pack_files.FORMAT,
        "n": len(findings.rows),
        "arrays": arrays,
        "files": {name: _known(data) for name, data in files.items()},
        "columns": columns,
        # When the files were modified is no part of the pack: another copy gives the same bytes.
        "identity": {k: v for k, v in source.identity.items() if k != "data.modified"},
    }
    encoded = pack_files.encode_manifest(json.loads(json.dumps(manifest)))
    run.write_whole(folder / MANIFEST, encoded, scratch=staging / "scratch")
    shutil.rmtree(staging, ignore_errors=True)


def _end_arrays(staging, plan, n):
    """Write the headers, cut what an earlier run may have left behind, and flush to disk."""
    arrays = {}
    for name, bands in plan.inputs.items():
        shape, path = plan.record_shape(name), staging / array_name(name)
        with open(path, "r+b") as file:
            file.write(array_header(n, shape, plan.dtype))
            file.truncate(offset(plan, name, n))
            file.flush()
            os.fsync(file.fileno())
        arrays[name] = {
            "bands": bands,
            "shape": shape,
            "dtype": plan.dtype,
            "scales": plan.scales.get(name, [1.0] * len(bands)),
            "bytes": offset(plan, name, n),
        }
    return arrays


def _known(data):
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
