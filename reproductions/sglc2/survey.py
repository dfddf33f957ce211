"""Sec. 2, data: the pack, the sample and its folds, and what each band is clipped at."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cast_lens import device_arrays, folds, pack, pixel_statistics, run, scores, survey_folder
from reproductions.sglc2.limits import n_pix_of
from reproductions.sglc2.settings import BANDS, FOLDS, INPUTS, PERCENTS, SAMPLE, word


@dataclass(frozen=True, eq=False)
class Survey:
    """The objects of a run.

    Attributes:
        pack: The Pack.
        sample: Rows of the objects of the cross-validation, in the order of the catalog.
        test: Rows of the independent test.
        parts: Of each fold {"train": rows, "test": rows}.
        images: What trainings and scores read their batches from: the pack, or `on_device`.
    """

    pack: pack.Pack
    sample: np.ndarray
    test: np.ndarray
    parts: list[dict[str, np.ndarray]]
    images: Any

    @property
    def kind(self):
        """As the pack's."""
        return self.pack.kind

    @property
    def title(self):
        """As the pack's."""
        return self.pack.title


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
    return Survey(survey, sample, test, parts[: scale.n_run], survey)


def on_device(survey, configs):
    """Return the Survey with the images of some Configs on the GPU, if there is one with room."""
    inputs = [name for name in BANDS if any(name in INPUTS[c.inputs] for c in configs)]
    rows = np.concatenate([survey.sample, survey.test])
    images = device_arrays.on_accelerator(survey.pack, rows, inputs=inputs)
    return replace(survey, images=images)


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


def describe(survey, folder):
    """Return what the paper says of its data, counted in the survey at hand.

    Args:
        survey: The Survey.
        folder: Of the run, for what its percentiles and the groups of Sec. 6 are.

    Returns:
        {(experiment, metric): number}.
    """
    catalog, images = survey.pack.catalog, survey.pack.manifest["arrays"]
    bounds = pd.concat(constants(survey, 0, BANDS, folder / "constants").values(), axis=1)
    over_p99 = np.log10(bounds.loc[100.0] / bounds.loc[99.0])
    # The median is of the sky, within its noise of 0, so that a ratio to it would say nothing:
    lowest = bounds.loc[0.0]  # ASSUMED: minus the offset that made "all pixel values positive"
    over_median = np.log10((bounds.loc[100.0] - lowest) / (bounds.loc[50.0] - lowest))
    n_bands = sum(len(bands) for bands in BANDS.values())
    all_of_it = {
        "n_objects": len(catalog),
        "n_bands": n_bands,
        "n_images": len(catalog) * n_bands,
        "n_lenses": int(catalog["label"].sum()),
        "image_side_pixels.vis": images["vis"]["shape"][0],
        "image_side_pixels.hjy": images["nir"]["shape"][0],
        "z_source_min": catalog["z_source"].min(),
        "z_source_max": catalog["z_source"].max(),
        "z_source_mean": catalog["z_source"].mean(),
        "n_pix_source_median": n_pix_of(catalog).median(),
        "log10_max_over_median_low": min(over_median),
        "log10_max_over_median_high": max(over_median),
        "log10_max_over_p99_low": min(over_p99),
        "log10_max_over_p99_high": max(over_p99),
    }
    parts = {
        ("data.reduced", "n_objects"): len(survey.sample),
        ("data.test80k", "n_objects"): len(survey.test),
    }
    for path in sorted(folder.glob("transfer.n[0-9]*/scores.csv")):
        if not path.parent.name.endswith(".notebook"):
            groups = scores.read_scores(path).groupby("run").size()
            parts["data.sglc1.transfer", "n_groups"] = len(groups)
            parts["data.sglc1.transfer.test", "n_objects"] = groups.median()
    return {("data", metric): value for metric, value in all_of_it.items()} | parts
