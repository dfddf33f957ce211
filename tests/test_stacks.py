"""Many cutouts in one FITS file: astropy says what is in it."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from cast_lens import dataset, stacks
from tests import packs


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    catalog = packs.survey(folder, 40, bands=("VIS",))
    shape = packs.SHAPES["VIS"]
    return dataset.CutoutFiles(catalog, {"vis": ("path_VIS",)}, {"vis": shape}, None)


@pytest.fixture
def stack(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "BATCH", 7)  # so that several batches and a short one are written
    stacks.write_stack(survey, np.arange(5, 38), tmp_path / "train.fits", name="vis")
    return tmp_path / "train.fits"


def test_astropy_finds_the_pixels_of_the_single_files_in_the_order_of_the_ids(survey, stack):
    chosen = survey.catalog.iloc[5:38].sort_values("object_id")
    with fits.open(stack) as hdus:
        hdus.verify("exception")
        table, cube = hdus["OBJECTS"].data, hdus["IMAGES"].data
        assert table["object_id"].tolist() == chosen["object_id"].tolist()
        assert table["label"].tolist() == chosen["label"].tolist()
        for image, path in zip(cube, chosen["path_VIS"], strict=True):
            assert np.array_equal(image, fits.getdata(path))
    assert stack.stat().st_size % 2880 == 0
    assert [p.name for p in stack.parent.iterdir()] == [stack.name]


def test_a_stack_is_a_source_of_the_same_batches_as_the_files(survey, stack):
    found = stacks.open_stack(stack)
    assert found.catalog["object_id"].tolist() == sorted(survey.catalog["object_id"][5:38])
    where = pd.Index(survey.catalog["object_id"]).get_indexer(found.catalog["object_id"])
    options = {"inputs": ["vis"], "batch_size": 8, "seed": 3, "fold": 1, "shuffle": True}
    one = dataset.from_pack(found, np.arange(33), **options)
    other = dataset.from_pack(survey, where, **options)
    for number in (0, 4, 7):
        (images, labels), (wanted, truth) = one.read(number), other.read(number)
        assert images["vis"].dtype == np.float32 and images["vis"].dtype.isnative
        assert np.array_equal(images["vis"], wanted["vis"]) and np.array_equal(labels, truth)
    with pytest.raises(stacks.StackError, match="found images of vis, expected nir"):
        found.batch("nir", [0])


def test_ids_of_digits_are_ordered_as_numbers(survey, tmp_path):
    catalog = survey.catalog[:3].assign(object_id=["100", "20", "3"])
    source = dataset.CutoutFiles(catalog, survey.inputs, survey.shapes, None)
    stacks.write_stack(source, [0, 1, 2], tmp_path / "s.fits", name="vis")
    found = stacks.open_stack(tmp_path / "s.fits")
    assert found.catalog["object_id"].tolist() == ["3", "20", "100"]
    assert np.array_equal(found.batch("vis", [0])[..., 0], survey.batch("vis", [2])[..., 0])


def test_images_are_read_a_batch_at_a_time(survey, tmp_path, monkeypatch):
    asked = []

    class Watched(dataset.CutoutFiles):
        def batch(self, name, positions):
            asked.append(len(positions))
            return super().batch(name, positions)

    monkeypatch.setattr(stacks, "BATCH", 16)
    watched = Watched(survey.catalog, survey.inputs, survey.shapes, None)
    stacks.write_stack(watched, np.arange(40), tmp_path / "s.fits", name="vis")
    assert asked == [1, 16, 16, 8]


def test_what_cannot_be_stacked_is_refused_and_nothing_is_left_behind(survey, tmp_path):
    path = tmp_path / "s.fits"
    with pytest.raises(stacks.StackError, match="found no object, expected one object or more"):
        stacks.write_stack(survey, np.array([], int), path, name="vis")
    with pytest.raises(stacks.StackError, match="object_id .* twice"):
        stacks.write_stack(survey, [1, 2, 1], path, name="vis")
    broken = survey.catalog.assign(path_VIS=[*survey.catalog["path_VIS"][:-1], "nowhere.fits"])
    source = dataset.CutoutFiles(broken, survey.inputs, survey.shapes, None)
    with pytest.raises(ValueError, match="nowhere.fits"):
        stacks.write_stack(source, np.arange(40), path, name="vis")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 100, 2880, 6000])
def test_a_stack_that_was_cut_short_is_refused(stack, size):
    stack.write_bytes(stack.read_bytes()[:size])
    with pytest.raises(stacks.StackError, match=r"train.fits: found .*, expected a cube IMAGES"):
        stacks.open_stack(stack)


def test_a_file_that_is_no_stack_is_refused(survey, tmp_path):
    with pytest.raises(stacks.StackError, match="write it again"):
        stacks.open_stack(survey.catalog["path_VIS"][0])
    with pytest.raises(FileNotFoundError):
        stacks.open_stack(tmp_path / "none.fits")
