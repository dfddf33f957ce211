"""`cast-lens check-data` finds what was put wrong in a survey, each once, and nothing else."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cast_lens import cli, survey_audit, survey_report, surveys
from cast_lens.cutouts import CutoutError
from cast_lens.mock import contents
from cast_lens.pack import PackError
from tests import test_truth_tables as truth
from tests.fits_files import survey_file

GROUND = "sglc1/ground_based"


@pytest.fixture
def ground(real_data, tmp_path):
    """A copy of the six real objects of the ground-based track."""
    return shutil.copytree(real_data / GROUND, tmp_path / "ground", copy_function=shutil.copyfile)


def looked_at(folder, tmp_path, *, pictures=False):
    """Return what is found; pictures take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr(survey_report, "_draw", lambda *_: [])
        return survey_report.check(folder, tmp_path / "out")


def problems(folder, tmp_path, **options):
    found = looked_at(folder, tmp_path, **options).problems
    return {row["problem"]: (row["n"], row["example"]) for row in found.to_dict("records")}


def image_of(folder, band, object_id):
    return next(folder.rglob(f"imageSDSS_{band}-{object_id}.fits"))


def sky(*key, size=101):
    return (7.7e-13 * np.random.default_rng(key).standard_normal((size, size))).astype(np.float32)


def space(folder, n, *, truth=True, size=101):
    """Write a space-based survey of n objects of noise."""
    images = folder / "Public/Band1"
    images.mkdir(parents=True)
    ids = [str(100_000 + k) for k in range(n)]
    for k, object_id in enumerate(ids):
        path = images / f"imageEUC_VIS-{object_id}.fits"
        path.write_bytes(survey_file(sky(k, size=size)))
    if truth:
        rows = [f"{object_id},{k % 2}" for k, object_id in enumerate(ids)]
        (folder / "classifications.csv").write_text("\n".join(["ID,is_lens", *rows]) + "\n")
    return folder


def deeplense(folder, n=4, size=48):
    """Write a DeepLense Task 1 of n objects a class and split, with values from 0 to 1."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("no", "sphere", "vort"):
            (folder / split / name).mkdir(parents=True)
            for k in range(1, n + 1):
                image = rng.random((1, size, size))
                image.flat[:2] = 0, 1
                np.save(folder / split / name / f"{k}.npy", image)
    return folder


def test_real_objects_with_all_their_files_have_no_problem(real_data, tmp_path, capsys):
    cli.main(["check-data", str(real_data / GROUND), "--output", str(tmp_path / "out")])
    text = capsys.readouterr().out
    assert "looks like I SGLC, ground" in text and "R 101 x 101" in text
    assert "6 objects in the catalog = 6 ok + 0 quarantined + 0 missing; 0 other files" in text
    assert "3 objects with masked pixels" in text  # r of 100023, u of 100003 and of 100008
    assert "Nothing is wrong." in text and "not met" not in text and "Stand-in" not in text
    written = tmp_path / "out"
    assert sorted(p.name for p in written.iterdir()) == [
        "check.md", "objects_IRG.png", "objects_R.png", "quarantine.csv", "statistics.csv",
    ]  # fmt: skip
    page = (written / "check.md").read_text(encoding="utf-8")
    assert page.startswith("# I SGLC, ground\n") and "objects_IRG.png" in page
    with Image.open(written / "objects_IRG.png") as picture:
        assert len(picture.getcolors(256)) > 50
    table = pd.read_csv(written / "statistics.csv").set_index(["quantity", "band"])
    # shared/facts/datasets.md, section 9: medians over the files of these six of their maxima.
    assert table["stand_in"]["image_max", "R"] == pytest.approx(
        np.median([3.25e-11, 1.71e-09, 2.87e-10, 1.76e-11, 1.36e-11, 4.05e-11]), rel=0.005
    )
    assert table["known"]["noise", "U"] == "2.02e-12"


@pytest.mark.slow
def test_the_whole_published_table_is_met_and_lost_images_are_counted(real_data, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["check-data", str(real_data / "sglc1/space_based"), "--output", str(tmp_path)])
    assert exit_.value.code == 1
    text = capsys.readouterr().out
    assert "20000 objects in the catalog = 8 ok + 0 quarantined + 19992 missing" in text
    assert "20000 objects in 10542 lens planes, up to 75 in one" in text
    assert "missing: in the catalog, without a file  19992" in text
    assert text.count("What is wrong") == 1 and "not met" not in text
    assert len(pd.read_csv(tmp_path / "quarantine.csv")) == 19_992


def test_everything_put_wrong_in_a_survey_is_found(ground, tmp_path):
    for name in ("README", "Public/Band1/._imageSDSS_R-100002.fits"):
        (ground / name).write_bytes(b"other")
    cut = image_of(ground, "I", "100002")
    cut.write_bytes(cut.read_bytes()[:20_000])
    image_of(ground, "G", "100003").unlink()
    image_of(ground, "U", "100004").write_bytes(survey_file(sky(0, size=100)))
    shutil.copyfile(image_of(ground, "U", "100008"), image_of(ground, "U", "100012"))
    image_of(ground, "G", "100023").write_bytes(survey_file(np.zeros((101, 101), np.float32)))
    for band in "RIGU":
        shutil.copyfile(image_of(ground, band, "100023"),
                        image_of(ground, band, "100023").with_name("x"))  # fmt: skip
    with open(ground / "classifications.csv", "a", encoding="utf-8") as stream:
        stream.write("100999,0\n")
    found = problems(ground, tmp_path)
    assert {name: n for name, (n, _) in found.items()} == {
        "missing: in the catalog, without a file": 1, "quarantined: truncated": 1,
        "quarantined: missing_band": 1, "quarantined: shape": 1,
        "a band whose pixels are all equal": 1, "the same pixels under several IDs": 1,
    }  # fmt: skip
    assert found["missing: in the catalog, without a file"][1] == "100999"
    assert found["quarantined: truncated"][1].startswith(f"100002 ({cut}")
    assert found["quarantined: missing_band"][1].startswith("100003 (")
    assert "(100, 100)" in found["quarantined: shape"][1]
    assert found["a band whose pixels are all equal"][1] == "100023"
    assert found["the same pixels under several IDs"][1] == "100008 = 100012"
    rows = pd.read_csv(tmp_path / "out/quarantine.csv", dtype=str).set_index("object_id")
    assert rows["reason"].to_dict() == {
        "100002": "truncated", "100003": "missing_band", "100004": "shape", "100999": "missing",
    }  # fmt: skip
    audit = survey_audit.audit(ground)
    assert audit.n_extra == 2 + 4
    assert audit.counts() == {"catalog": 7, "ok": 3, "quarantined": 3, "missing": 1}


def test_the_same_pixels_in_two_bands_of_an_object_are_found(ground, tmp_path):
    """As in a public copy of ground-based 100013, where R and U, and I and G, are the same."""
    shutil.copyfile(image_of(ground, "R", "100004"), image_of(ground, "U", "100004"))
    assert problems(ground, tmp_path)["the same pixels in two bands"] == (1, "100004")


def test_pixels_of_another_unit_are_not_as_published(ground, tmp_path):
    for path in ground.rglob("*.fits"):
        path.write_bytes(survey_file(sky(int(path.stem[-6:]), ord(path.stem[10])) * 1e12))
    n, example = problems(ground, tmp_path)["numbers not as published"]
    assert n > 12 and example.startswith("noise R; noise I; noise G")


def test_images_of_another_size_than_published_are_named(ground, tmp_path):
    for path in ground.rglob("*.fits"):
        path.write_bytes(survey_file(sky(int(path.stem[-6:]), ord(path.stem[10]), size=60)))
    assert problems(ground, tmp_path)["size: expected 101 pixels a side"] == (1, "(60, 60)")


def test_bad_pixels_are_counted_and_are_no_problem(ground, tmp_path):
    path = image_of(ground, "R", "100002")
    pixels = np.frombuffer(path.read_bytes()[2880:][: 4 * 101 * 101], ">f4").reshape(101, 101)
    pixels = pixels.astype(np.float32)
    pixels[5, 5] = np.nan
    path.write_bytes(survey_file(pixels))
    findings = looked_at(ground, tmp_path)
    assert "3 objects with masked pixels, 1 with pixels that are not finite" in findings.text
    assert findings.problems.empty


def test_a_survey_without_truth_table_is_looked_at_without_labels(tmp_path):
    findings = survey_report.check(space(tmp_path / "set", 4, truth=False), tmp_path / "out")
    assert "no truth table, so no labels" in findings.text
    assert "4 objects in the catalog = 4 ok" in findings.text
    assert (tmp_path / "out/objects_VIS.png").stat().st_size > 1000


def test_a_survey_without_one_usable_file_says_so(tmp_path):
    folder = space(tmp_path / "set", 3)
    for path in folder.rglob("*.fits"):
        path.write_bytes(b"")
    with pytest.raises(contents.CheckError, match="look at its images"):
        survey_report.check(folder, tmp_path / "out")
    for path in folder.rglob("*.fits"):
        path.rename(path.with_name(path.name.replace("EUC_VIS", "SDSS_R")))
    with pytest.raises(PackError, match="no image of input R .*100002.fits: empty"):
        survey_report.check(folder, tmp_path / "out")


def test_a_survey_without_one_whole_object_has_a_report_without_statistics(ground, tmp_path):
    for k, path in enumerate(sorted((ground / "Public/Band3").iterdir())):
        (path if k < 3 else image_of(ground, "U", path.stem[-6:])).unlink()
    found = problems(ground, tmp_path)
    assert {name: n for name, (n, _) in found.items()} == {
        "quarantined: missing_band": 6, "no object is ok": 1,
    }  # fmt: skip
    statistics = pd.read_csv(tmp_path / "out/statistics.csv")
    assert set(statistics["outcome"]) == {"not compared"} and len(statistics) > 30


@pytest.mark.slow
def test_bands_that_are_not_there_at_all_are_named_and_the_others_looked_at(ground, tmp_path):
    shutil.rmtree(ground / "Public/Band4")
    assert problems(ground, tmp_path, pictures=True) == {"band without any file": (1, "U")}
    assert (tmp_path / "out/objects_IRG.png").is_file()
    shutil.rmtree(ground / "Public/Band3")
    assert problems(ground, tmp_path / "two", pictures=True) == {
        "band without any file": (2, "G; U")
    }
    assert not (tmp_path / "two/out/objects_IRG.png").exists()


def test_published_gaps_of_the_second_challenge_are_no_problem(tmp_path):
    folder = tmp_path / "set"
    rows = {"200000": True, "200001": True, "213913": False, "200002": False}
    for object_id, has_images in rows.items():
        for band, size in {"VIS": 200, "Y": 66, "J": 66, "H": 66}.items():
            path = folder / f"Public/EUC_{band}/imageEUC_{band}-{object_id}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            if has_images:
                path.write_bytes(survey_file(sky(int(object_id), ord(band[0]), size=size)))
    lines = [truth.line(object_id, k, ein_area=f"{k + 1}e-10") for k, object_id in enumerate(rows)]
    (folder / "image_catalog2.0train.csv").write_text("# c\n" + truth.HEADER + "".join(lines))
    findings = looked_at(folder, tmp_path)
    assert "looks like II SGLC" in findings.text and "VIS 200 x 200, Y 66 x 66" in findings.text
    assert "1 of the missing are among the nine published as such" in findings.text
    missing = findings.problems.set_index("problem").loc["missing: in the catalog, without a file"]
    assert missing["n"] == 1 and missing["example"] == "200002"


def test_deeplense_splits_that_share_pixels_and_bad_arrays_are_found(tmp_path):
    folder = deeplense(tmp_path / "set")
    shutil.copyfile(folder / "train/no/1.npy", folder / "val/vort/3.npy")
    np.save(folder / "train/no/2.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "train/no/3.npy", np.full((1, 48, 48), np.nan))
    np.save(folder / "train/no/4.npy", np.ones((3, 48, 48)))
    np.save(folder / "val/no/4.npy", np.random.default_rng(1).random((1, 40, 48)))
    found = problems(folder, tmp_path, pictures=True)
    found.pop("numbers not as published")
    statistics = pd.read_csv(tmp_path / "out/statistics.csv").set_index("quantity")
    assert statistics["outcome"][["height", "bits"]].tolist() == ["not met", "met"]  # 48, not 150
    assert {name: n for name, (n, _) in found.items()} == {
        "quarantined: dtype": 1, "quarantined: range": 1, "quarantined: shape": 2,
        "the same pixels under several IDs": 1, "splits share pixels": 1,
    }  # fmt: skip
    assert found["splits share pixels"][1] == "train/no/1 = val/vort/3"
    assert found["quarantined: range"][1].startswith("train/no/3 ")
    assert (tmp_path / "out/objects_all.png").is_file()


def test_stand_ins_are_called_stand_ins_also_from_within(tmp_path):
    folder = deeplense(tmp_path / "mock/set", n=1).parent
    (folder / "sha256sum.txt").write_text("")
    digest = hashlib.sha256(b"").hexdigest()
    manifest = {"survey": "deeplense1", "seed": 0, "n": 6, "parameters": {}, "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for place in (folder, folder / "set"):
        findings = survey_report.check(place, tmp_path / "out")
        assert "looks like Stand-in DeepLense Task 1" in findings.text
        page = (tmp_path / "out/check.md").read_text(encoding="utf-8")
        assert page.startswith("# Stand-in DeepLense Task 1\n")


@pytest.mark.parametrize("size, name", [(101, "sglc1-space"), (200, "sglc2")])
def test_vis_images_are_told_apart_by_their_size(tmp_path, size, name):
    assert surveys.recognize(space(tmp_path, 2, size=size)) == name


def test_folders_of_no_survey_or_of_two_end_with_status_2(tmp_path, capsys):
    space(tmp_path / "a", 2)
    other = space(tmp_path / "b", 2)
    for path in other.rglob("*.fits"):
        path.rename(path.with_name(path.name.replace("EUC_VIS", "SDSS_R")))
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path, "duplicate: found two images of object_id 100000"),
        (tmp_path / "empty", "class folders of a DeepLense task"),
        (tmp_path / "absent", "No such file"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["check-data", str(folder), "--output", str(tmp_path / "out")])
        assert exit_.value.code == 2
        assert words in capsys.readouterr().err
    with pytest.raises(CutoutError):
        survey_audit.audit(tmp_path)
    assert not (tmp_path / "out").exists()


def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    folder = space(tmp_path, 7)
    (folder / "Public/Band1/imageEUC_VIS-100004.fits").write_bytes(b"x")
    one = survey_audit.audit(folder).objects
    monkeypatch.setattr(survey_audit, "ALONE", 0)
    monkeypatch.setattr(survey_audit, "CHUNK", 2)
    pd.testing.assert_frame_equal(one, survey_audit.audit(folder).objects)
    assert one["status"].tolist() == ["ok"] * 4 + ["not_fits"] + ["ok"] * 2
