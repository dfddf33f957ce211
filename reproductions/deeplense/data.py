"""Secs. 2.1 and 3.1, data: class folders or their stand-ins, packed; splits; constants."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from cast_lens import (
    dataset,
    folds,
    pack,
    pixel_statistics,
    run,
    survey_folder,
    surveys,
)
from cast_lens.pack_files import is_pack
from reproductions.deeplense.settings import ADDRESSES, CLASSES, DIVIDE, LIMIT, word

VALIDATED = 0.1  # Sec. 3.1: of the training set of Task 2, 3,041 of 30,405


@dataclass(frozen=True, eq=False)
class Survey:
    """The objects of a task.

    Attributes:
        task: 1 or 2.
        pack: The Pack.
        rows: Rows of the objects that are used.
    """

    task: int
    pack: pack.Pack
    rows: np.ndarray

    @property
    def kind(self):
        """As the pack's."""
        return self.pack.kind

    @property
    def title(self):
        """As the pack's."""
        return self.pack.title

    @property
    def labels(self):
        """Place of each object's class in `CLASSES`, of all rows of the pack."""
        return self.pack.catalog["label"].to_numpy()


@dataclass(frozen=True, eq=False)
class Resized:
    """Images of a pack at another size, a source for `dataset.from_pack`.

    Attributes:
        pack: The Pack, whose input is "image".
        side: Pixels of the images that come out; smaller ones are means over area.
        element: Of the dihedral group of the square, as in `resampling.dihedral`.
    """

    pack: pack.Pack
    side: int
    element: int = 0

    @property
    def catalog(self):
        """The pack's catalog."""
        return self.pack.catalog

    def batch(self, name, positions):
        """Return images, float32, shape (batch, side, side, band)."""
        images = self.pack.batch(name, positions)
        size = (self.side, self.side)
        if images.shape[1:3] != size:
            how = cv2.INTER_AREA if images.shape[1] > self.side else cv2.INTER_LINEAR
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)  # images so small cost two threads twice the processor time
            resized = [cv2.resize(image, size, interpolation=how) for image in images]
            cv2.setNumThreads(threads)
            images = np.stack(resized).reshape(len(images), *size, -1)
        images = images[:, ::-1] if self.element & 1 else images
        images = images[:, :, ::-1] if self.element & 2 else images
        images = images.swapaxes(1, 2) if self.element & 4 else images
        return np.ascontiguousarray(images)


def load_data(task, data, *, real, n_objects, seed, output):
    """Return the objects of a task: those named, those kept here, or a stand-in's.

    Args:
        task: 1 or 2.
        data: Folder of the class folders or of their pack, or one that holds it as deeplense1 or
            deeplense2; None or "" for where surveys are kept.
        real: Whether a stand-in will not do.
        n_objects: Of the stand-in; of a larger set so many are drawn.
        seed: Of the run.
        output: Folder for what is made.

    Returns:
        Survey.

    Raises:
        RunError: If the folder that was named does not hold the task, or there are no real data.
    """
    name = f"deeplense{task}"
    place = _named(name, Path(data).expanduser()) if data else survey_folder.kept(name)
    if place is None and (data or real):
        raise run.RunError(
            f"{data or 'the folder of surveys'} holds no class folders of DeepLense Task {task}, "
            f"expected {_expected(task)}; get {ADDRESSES[task]}, unpack it and name its folder "
            "with DATA=, or run the other task with EXPERIMENT="
        )
    if place is None:
        print(f"no {name} here (DATA=): a stand-in of {n_objects} objects is made, once",
              file=sys.stderr)  # fmt: skip
        place = survey_folder.stand_in(name, output, n_objects, seed)
    found = survey_folder.opened(place, output, title=f"{place.resolve().name}-{name}")
    return Survey(task, found, limit(found.catalog, n_objects, seed))


def _named(name, place):
    """Return the folder of a task at or below a place that was named, or None."""
    for folder in (place / name, place):
        if is_pack(folder):
            if pack.open_pack(folder).manifest["identity"]["about.survey"] == name:
                return folder
        elif folder.is_dir() and _holds(folder, name):
            return folder
    return None


def _holds(folder, name):
    try:
        return surveys.recognize(folder) == name
    except ValueError:  # that of no survey
        return False


def _expected(task):
    folders = surveys.TASKS[f"deeplense{task}"].folders
    return ", ".join(
        folders["layout"].format(split=split, name=name)
        for split in folders["splits"] for name in folders["classes"]
    )  # fmt: skip


def limit(catalog, n_objects, seed):
    """Return at most about so many rows: of each class and split the same share, at random."""
    if len(catalog) <= n_objects:
        return np.arange(len(catalog))
    rng, kept = np.random.default_rng([seed, LIMIT]), []
    for _, rows in sorted(catalog.groupby(["split", "label"]).indices.items()):
        size = max(1, round(len(rows) * n_objects / len(catalog)))
        kept.append(rng.permutation(rows)[:size])
    return np.sort(np.concatenate(kept))


def divide(survey, rules, seed):
    """Divide the objects into training, validation and test.

    Args:
        survey: The Survey.
        rules: "report" or "authors_code", see Departures.
        seed: Of the run.

    Returns:
        {"train": rows, "validation": rows, "test": rows}. Of objects with the same pixels the one
        in the last of these stays.

    Raises:
        FoldError: If a part shares pixels with another nevertheless, or is empty.
    """
    catalog, labels, number = survey.pack.catalog, survey.labels, word(seed, DIVIDE)
    published = catalog["split"].to_numpy()[survey.rows] == "train"
    last, pool = survey.rows[~published], survey.rows[published]
    if survey.task == 1 and rules == "report":
        halves = train_test_split(last, test_size=0.5, stratify=labels[last], random_state=number)
        parts = dict(zip(("test", "validation", "train"), (*map(np.sort, halves), pool)))
    elif survey.task == 1:
        parts = {"test": last, "train": pool}
    else:
        n = len(pool) - int((1 - VALIDATED) * len(pool))
        stratify = labels[pool] if rules == "report" else None
        rest, chosen = train_test_split(pool, test_size=n, stratify=stratify, random_state=number)
        parts = {"test": last, "validation": np.sort(chosen), "train": np.sort(rest)}
    whole = catalog.iloc[np.concatenate(list(parts.values()))]
    twice = whole.index[whole["pixel_group"].duplicated()].to_numpy()
    parts = {name: np.setdiff1d(rows, twice) for name, rows in parts.items()}
    folds.audit(catalog, parts)
    return {"validation": parts["test"]} | parts


def class_weights(survey, parts, config):
    """Return the weights of the classes (Eq. 1), or None: the code counts the validation set too.

    Raises:
        RunError: If a class has no object.
    """
    if not config.class_weights:
        return None
    rows = parts["train"]
    if config.rules == "authors_code":
        rows = np.concatenate([rows, parts["validation"]])
    found, names = dataset.class_weights(survey.labels[rows]), CLASSES[survey.task]
    if len(found) < len(names):
        raise run.RunError(f"{survey.pack.folder} has no object of a class, of {', '.join(names)}")
    return tuple(found[label] for label in range(len(names)))


def constants(survey, side, rows, folder):
    """Return mean and standard deviation of every channel, computed once and kept in a file.

    Args:
        survey: The Survey.
        side: Of the images, pixels.
        rows: Rows of the training objects.
        folder: For the file constants.csv.

    Returns:
        DataFrame of mean and std, a row a channel, in the unit of the files.
    """
    path = folder / "constants.csv"
    if not path.exists():
        source = Resized(survey.pack, side)
        mean, std = pixel_statistics.moments(partial(_in_batches, source, rows), per_band=True)
        table = pd.DataFrame({"mean": mean, "std": std})
        run.write_whole(path, table.to_csv(index=False, lineterminator="\n"))
    return pd.read_csv(path)


def _in_batches(source, rows):
    return (source.batch("image", rows[k : k + 256]) for k in range(0, len(rows), 256))
