"""Packs of the surveys this package knows, and of a user's own table of files."""

import os
from functools import partial
from pathlib import Path

import pandas as pd

from cast_lens import catalog, pack, surveys
from cast_lens.cutouts import CutoutError
from cast_lens.pack_audit import sentence

# Label rules of the II SGLC; the other surveys have one each.
LABELS = {
    "official": catalog.label_sglc2_official,
    "source-added": catalog.label_source_added,
}

# What an audit counts, and how it is told.
_TOLD = {
    "n_masked": "objects masked",
    "n_nonfinite": "not finite",
    "n_constant": "constant",
    "n_extreme": "extreme",
}


def pack_survey(folder, output, *, label="official", duplicates="drop", **options):
    """Pack a survey, real or stand-in, however it was unpacked.

    Args:
        folder: Folder of one survey.
        output: Folder of the pack.
        label: Label rule: a key of `LABELS` for the II SGLC ("official" is the I SGLC's own too),
            or "n-pix:20" for 20 pixels or more of the source above the noise.
        duplicates: What to do with IDs that are twice in the catalog of the II SGLC, as for
            `catalog.read_sglc2`.
        options: As for `pack.build`: dtype, strict, workers, restart, progress.

    Returns:
        The Pack, with a column plane that tells objects of one lens plane.

    Raises:
        CheckError, CatalogError, CutoutError: As `surveys.read`; CatalogError also if there is no
            such label rule, or not for this survey.
        PackError, RunError, OSError: As `pack.build`.
    """
    rule = _rule(label)
    files = surveys.read(folder, label=rule, duplicates=duplicates)
    layout, objects, is_sglc2 = files.layout, files.objects, files.name == "sglc2"
    data = "stand-in" if surveys.stand_in_manifest(folder) else "real"
    about = {"survey": files.name, "title": layout.title, "data": data}
    if is_sglc2:
        about |= {"label": label, "duplicates": duplicates}
    elif label != "official":
        if "n_pix_lensed" not in objects or label in LABELS:
            raise catalog.CatalogError(
                f"label is {label!r}, which {layout.title} in {folder} has no columns for; leave "
                "it out for the labels that were published"
            )
        about |= {"label": label}
        objects["label"] = rule(objects, column="n_pix_lensed")
    return pack.build(
        output, objects, _present(files), mask_value=layout.mask_value,
        channels=_channels(files), brightest=layout.brightest, n_extra_files=files.n_extra,
        known_missing=catalog.SGLC2_MISSING if is_sglc2 else frozenset(), about=about, **options,
    )  # fmt: skip


def pack_table(
    path, output, *, id_column, path_column, label_column, mask_value, channels, **options
):
    """Pack the files that a table names, one an object.

    Args:
        path: CSV, FITS, VOTable or Parquet file, as for `catalog.read_table`.
        output: Folder of the pack, whose one input is called "image".
        id_column: As for `catalog.read_table`.
        path_column: Likewise.
        label_column: Likewise.
        mask_value: Pixels >= this become 0; None masks nothing.
        channels: "first" or "last" for .npy files of all bands, None for FITS files of one band.
        options: As for `pack_survey`.

    Returns:
        The Pack.

    Raises:
        CatalogError: As `catalog.read_table`.
        CutoutError: If no .npy file can be read.
        PackError, RunError, OSError: As `pack.build`.
    """
    objects = catalog.read_table(
        path, id_column=id_column, path_column=path_column, label_column=label_column
    )
    there = [name if os.path.exists(name) else None for name in objects["path"]]
    objects["path"] = pd.Series(there, dtype=object)
    bands: tuple[str, ...] = ("image",)
    if channels:
        bands = tuple(f"band_{n}" for n in range(_n_bands(objects["path"], channels)))
    else:
        objects = objects.rename(columns={"path": "path_image"})
    return pack.build(
        output, objects, {"image": bands}, mask_value=mask_value, channels=channels,
        about={"survey": Path(path).stem}, **options,
    )  # fmt: skip


def summary(found):
    """Return what is in a pack, as texts and tables in turn.

    Args:
        found: The Pack.
    """
    audit, rows = found.audit, []
    for name, bands in audit["bands"].items():
        height, width, _ = found.manifest["arrays"][name]["shape"]
        loss = audit["loss"].get(name, {})
        for n, (band, counts) in enumerate(bands.items()):
            row = {"input": name, "band": band, "pixels": f"{height} x {width}"}
            for key, title in _TOLD.items():
                n_objects, n_pixels = counts[f"{key}_objects"], counts.get(f"{key}_pixels")
                row[title] = f"{n_objects}" + (f" ({n_pixels} pixels)" if n_pixels else "")
            row |= {key.replace("n_", ""): f"{values[n]:.3g}" for key, values in loss.items()}
            rows.append(row)
    table = pd.DataFrame(rows)
    table.columns = [str(column).replace("_", " ") for column in table]
    n_bytes = sum(known["bytes"] for known in found.manifest["arrays"].values())
    lines = [sentence(audit)]
    if audit["n_pixel_groups"]:
        lines.append(
            f"{audit['n_in_pixel_groups']} objects in {audit['n_pixel_groups']} groups have the "
            "pixels of another; pixel_group keeps them in one fold"
        )
    lines += [f"note: {text}" for text in audit["warnings"][:3]]
    stored = f"{found.manifest['n']} records, {n_bytes / 1e6:,.1f} MB, CRC-32 of each; "
    stored += ", ".join(sorted(found.manifest["files"]))
    return ["\n".join(lines), table, stored]


def _present(files):
    """Return the inputs of a survey whose bands are there."""
    if files.layout.channels:
        return files.layout.inputs
    found = {
        name: tuple(band for band in bands if f"path_{band}" in files.objects)
        for name, bands in files.layout.inputs.items()
    }
    return {name: bands for name, bands in found.items() if bands}


def _channels(files):
    """Return where the channels stand in the .npy files of a survey, told by their number."""
    channels = files.layout.channels
    if channels is None:
        return None
    n_bands, paths = len(files.layout.bands), files.objects["path"]
    try:
        first, last = (_n_bands(paths, order) == n_bands for order in ("first", "last"))
    except CutoutError:  # no file can be read, which `pack.build` says better
        return channels
    return "last" if last and not first else channels


def _rule(label):
    if label in LABELS:
        return LABELS[label]
    word, _, number = label.partition(":")
    if word == "n-pix" and number.isdecimal() and int(number):
        return partial(catalog.label_n_pix, minimum=int(number))
    expected = f"{', '.join(LABELS)}, or n-pix:<number> with 1 pixel or more"
    raise catalog.CatalogError(f"label is {label!r}, expected {expected}")


def _n_bands(paths, channels):
    from cast_lens.array_files import read_array

    error = CutoutError("missing_band", "the table", "no file that exists", "some; mend the paths")
    for path in filter(None, paths):
        try:
            return read_array(path, channels=channels).shape[-1]
        except CutoutError as found:
            error = found
    raise error
