"""Secs. 2.6.1 and 3.2, data: the pack, the split, what images are normalized by, real cutouts."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cast_lens import (
    catalog,
    cutouts,
    folds,
    pixel_statistics,
    run,
    stacks,
    survey_folder,
)
from cast_lens.pack import Pack
from reproductions.nottingham.settings import (
    CHALLENGE,
    CHALLENGE_LENSES,
    CHALLENGE_SCORED,
    FURTHER,
    INPUT,
    PLANES,
    SURVEY,
    word,
)

REAL = "sglc1/space_based"  # below CAST_LENS_DATA: official labels, and a few cutouts of the set


@dataclass(frozen=True, eq=False)
class Survey:
    """The objects of a run.

    Attributes:
        pack: The Pack.
        parts: {"order" or "planes": {"train": rows, "test": rows}}.
        challenge: Source of the stand-in for the challenge's test set, or None.
        challenge_rows: Its rows.
    """

    pack: Pack
    parts: dict[str, dict[str, np.ndarray]]
    challenge: Pack | None = None
    challenge_rows: np.ndarray | None = None

    @property
    def kind(self):
        """As the pack's."""
        return self.pack.kind

    @property
    def title(self):
        """As the pack's."""
        return self.pack.title


def load_data(named, *, real, n_objects, seed, output):
    """Return the pack of the survey that is named, or lies where surveys are kept, or a stand-in's.

    Args:
        named: Folder of the survey or of its pack; None or "" for where surveys are kept.
        real: Whether to download the archive rather than to make a stand-in.
        n_objects: Of the stand-in.
        seed: Of the stand-in.
        output: Folder for what is made.

    Returns:
        The Pack.
    """
    found, _ = survey_folder.packed(
        SURVEY, named, real=real, n_objects=n_objects, seed=seed, output=output
    )
    return found


def divide(survey, scale, seed):
    """Split the objects (Sec. 3.2): the first IDs train and the last test; and by lens planes.

    Args:
        survey: The Pack.
        scale: The Scale; objects between its first and last are left out.
        seed: Of the run, for the split by planes.

    Returns:
        A Survey, without the challenge's test.

    Raises:
        RunError: If there are too few objects.
        FoldError: If an object, or its pixels, would train and test.
    """
    n, wanted = len(survey.catalog), scale.n_train + scale.n_test
    if n < wanted:
        raise run.RunError(
            f"{survey.folder} holds {n} objects, expected {scale.n_train} and {scale.n_test} for "
            "the test; name a larger survey"
        )
    sizes = {"train": scale.n_train, "left out": n - wanted, "test": scale.n_test}
    sizes = {part: size for part, size in sizes.items() if size}
    order = folds.by_id_order(survey.catalog, sizes)
    order = {part: order[part] for part in ("train", "test")}
    used = np.sort(np.concatenate(list(order.values())))
    shares = {"train": max(round(scale.n_train / scale.n_test), 1), "test": 1}
    planes = folds.by_shares(
        survey.catalog.iloc[used], shares, seed=word(seed, PLANES), groups=["plane"]
    )
    parts = {"order": order, "planes": {part: used[rows] for part, rows in planes.items()}}
    return Survey(survey, parts)


def with_challenge(survey, experiments, scale, seed, output):
    """Return the Survey with a stand-in for the challenge's test, if an experiment wants it.

    Real images of that test have no public labels, and a stand-in says nothing beside real ones.
    """
    wanted = any(FURTHER.get(name, ("", ""))[1] == "challenge" for name in experiments)
    if not wanted or survey.kind == "real" or not scale.n_challenge:
        return survey
    place = survey_folder.stand_in(SURVEY, output, scale.n_challenge, seed)
    found = survey_folder.opened(place, output)
    rows = challenge_rows(found.catalog["label"].to_numpy(), seed)
    return replace(survey, challenge=found, challenge_rows=rows)


def challenge_rows(labels, seed):
    """Leave lenses out at random until their share is that of the challenge's test (40 %).

    Args:
        labels: Of all objects, shape (objects,).
        seed: Whole number, 0 or more.

    Returns:
        Rows that stay, ascending.
    """
    lenses, others = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    n = round(len(others) * CHALLENGE_LENSES / (CHALLENGE_SCORED - CHALLENGE_LENSES))
    kept = np.random.default_rng([seed, CHALLENGE]).permutation(lenses)[:n]
    return np.sort(np.concatenate([kept, others]))


def shared_planes(survey, split):
    """Return the fraction of test objects whose lens plane is among the training objects too."""
    plane, part = survey.pack.catalog["plane"].to_numpy(), survey.parts[split]
    return np.isin(plane[part["test"]], plane[part["train"]]).mean()


def constants(survey, split, normalization, path):
    """Return mean and standard deviation of all pixels (Eq. 12), maggies, computed once.

    Args:
        survey: The Survey.
        split: Key of its `parts`.
        normalization: "training" for the training objects, or "all" for those of the test as well.
        path: CSV file that keeps them.
    """
    if not path.exists():
        part = survey.parts[split]
        rows = part["train"] if normalization == "training" else np.concatenate([*part.values()])
        found = pixel_statistics.moments(partial(_in_batches, survey.pack, rows), per_band=False)
        table = pd.DataFrame({"mean": found[0], "std": found[1]})
        run.write_whole(path, table.to_csv(index=False, lineterminator="\n"))
    return pd.read_csv(path).iloc[0].tolist()


def _in_batches(source, rows):
    return (source.batch(INPUT, rows[k : k + 256]) for k in range(0, len(rows), 256))


def write_stacks(survey, folder):
    """Combine the training images into one FITS file, and those of the test (Sec. 3.2)."""
    for part, rows in survey.parts["order"].items():
        path = folder / f"{part}.fits"
        if not path.exists():
            stacks.write_stack(survey.pack, rows, path, name=INPUT)
        print(f"{path}: {len(stacks.open_stack(path).catalog)} images")


def real_place():
    """Return the folder of the official labels and real cutouts, or None."""
    folder = os.environ.get("CAST_LENS_DATA")
    place = Path(folder).expanduser() / REAL if folder else None
    return place if place and (place / "classifications.csv").is_file() else None


def real_cutouts(place):
    """Return the real cutouts that are there, as a source of batches, or None.

    Args:
        place: Of `real_place`, or None.
    """
    if place is None:
        return None
    # dataset imports Keras, which naming the data alone need not
    from cast_lens import dataset

    table, _ = catalog.read_sglc1(place, track="space")
    table = table[table["path_VIS"].notna()].reset_index(drop=True)
    shape = cutouts.read_cutout([table["path_VIS"][0]])[1].shape[:2]
    return dataset.CutoutFiles(table, {INPUT: ("path_VIS",)}, {INPUT: shape}, None)


def official_counts(place, scale):
    """Return what Sec. 3.2 says of the data, counted in the official labels.

    Args:
        place: Of `real_place`.
        scale: The Scale of the report, whose parts are counted.

    Returns:
        {"data" or "data.<part>": {metric: number}}.
    """
    labels = catalog.read_sglc1_labels(place / "classifications.csv")
    sizes = {"train": scale.n_train, "validation": scale.n_test}
    parts = folds.by_id_order(labels, sizes)
    found = {"data.labelled": {"n_objects": len(labels)}}
    for part, rows in parts.items():
        n_lenses = int(labels["label"].iloc[rows].sum())
        found[f"data.{part}"] = {
            "n_objects": len(rows), "n_lenses": n_lenses, "n_nonlenses": len(rows) - n_lenses,
        }  # fmt: skip
    return found
