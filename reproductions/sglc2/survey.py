"""Sec. 2, data: the pack, the sample and its folds, and what each band is clipped at."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from cast_lens import folds, pack, pixel_statistics, run, survey_folder
from reproductions.sglc2.settings import BANDS, FOLDS, PERCENTS, SAMPLE, word


@dataclass(frozen=True, eq=False)
class Survey:
    """The objects of a run.

    Attributes:
        pack: The Pack.
        kind: "real" or "stand-in".
        sample: Rows of the objects of the cross-validation, in the order of the catalog.
        test: Rows of the independent test.
        parts: Of each fold {"train": rows, "test": rows}.
    """

    pack: pack.Pack
    kind: str
    sample: np.ndarray
    test: np.ndarray
    parts: list[dict[str, np.ndarray]]

    @property
    def title(self):
        """What the titles of figures say of the data."""
        return "real data" if self.kind == "real" else "STAND-IN DATA"


def load_data(data, *, real, n_objects, seed, output, name="sglc2"):
    """Return the pack of the survey that is named, or lies where surveys are kept, or a stand-in's.

    Args:
        data: Folder of the survey or of its pack; None or "" for where surveys are kept.
        real: Whether to download the archive (19 GB) rather than to make a stand-in.
        n_objects: Of the stand-in.
        seed: Of the run; released weights were trained on a stand-in of another.
        output: Folder for what is made.
        name: "sglc2", or "sglc1-ground" for Sec. 6.

    Returns:
        The Pack, and the folder of the survey, or None if a pack was named.
    """
    return survey_folder.packed(
        name, data, real=real, n_objects=n_objects, seed=seed + 1, output=output
    )


def divide(survey, scale, seed):
    """Draw the sample and its folds (Sec. 4.1); all others are the independent test."""
    n_objects = len(survey.catalog)
    if n_objects < scale.n_sample + (scale.n_test or 0):
        raise run.RunError(
            f"{survey.folder} holds {n_objects} objects, expected {scale.n_sample} and "
            f"{scale.n_test or 'more'} for the test; name a larger survey"
        )
    order = np.random.default_rng([seed, SAMPLE]).permutation(n_objects)
    sample = np.sort(order[: scale.n_sample])
    last = None if scale.n_test is None else scale.n_sample + scale.n_test
    test = np.sort(order[scale.n_sample : last])
    found = folds.k_fold(
        survey.catalog.iloc[sample], scale.n_folds, seed=word(seed, FOLDS), stratify=False
    )
    parts = [{name: sample[rows] for name, rows in part.items()} for part in found]
    kind = survey.manifest["identity"]["about.data"]
    return Survey(survey, kind, sample, test, parts[: scale.n_run])


def constants(survey, fold, names, path):
    """Return `PERCENTS` of the training objects of a fold, computed once and kept in a file.

    Args:
        survey: The Survey.
        fold: Number of the fold.
        names: Inputs.
        path: CSV file for all folds of a run.

    Returns:
        {input: DataFrame of a column a band, in maggies, by percent}.
    """
    rows, found = survey.parts[fold]["train"], {}
    for name in names:
        file = path / f"fold{fold}_{name}.csv"
        table = pd.read_csv(file) if file.exists() else None
        if table is None or table["percent"].tolist() != list(PERCENTS):
            batches = partial(in_batches, survey.pack, name, rows)
            values = pixel_statistics.percentiles(batches, PERCENTS)
            table = pd.DataFrame(values, columns=BANDS[name])
            table.insert(0, "percent", PERCENTS)
            run.write_whole(file, table.to_csv(index=False, lineterminator="\n"))
        found[name] = table.set_index("percent")
    return found


def in_batches(source, name, rows):
    """Return the images of an input, a few hundred objects at a time."""
    return (source.batch(name, rows[k : k + 256]) for k in range(0, len(rows), 256))
