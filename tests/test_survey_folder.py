"""Where a survey comes from: named, kept, downloaded, or a stand-in made once."""

from types import SimpleNamespace

import pytest

from cast_lens import pack, survey_folder, survey_pack


@pytest.fixture
def packing(monkeypatch):
    """Pack nothing; return a list of what would have been packed, and where to."""
    asked = []

    def pack_survey(place, target, *, dtype):
        asked.append((place, target))
        return fake(target)

    monkeypatch.setattr(survey_pack, "pack_survey", pack_survey)
    return asked


def fake(folder):
    """Return what is known of a pack of three objects, one of them truncated."""
    audit = {"n_catalog": 3, "n_ok": 2, "n_quarantined": {"truncated": 1}, "n_missing": 0,
             "n_missing_published": 0, "n_extra_files": 0}  # fmt: skip
    manifest = {"identity": {"about.survey": "sglc2", "about.data": "stand-in"}}
    return SimpleNamespace(folder=folder, audit=audit, manifest=manifest)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with no folder of surveys named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAST_LENS_DATA", raising=False)
    return tmp_path


def ask(named, output, *, real=False):
    return survey_folder.packed(
        "sglc2", named, real=real, n_objects=3, seed=7, output=output
    )  # fmt: skip


def test_a_folder_that_is_named_comes_first_and_then_the_kept_ones(elsewhere, packing, monkeypatch):
    for place in ("data/sglc2", "surveys/sglc2", "mine"):
        (elsewhere / place).mkdir(parents=True)
    out = elsewhere / "runs"
    ask("mine", out)
    ask(None, out)
    monkeypatch.setenv("CAST_LENS_DATA", str(elsewhere / "surveys"))
    _, place = ask("", out)
    assert [str(place) for place, _ in packing] == [
        "mine", "data/sglc2", str(elsewhere / "surveys/sglc2"),
    ]  # fmt: skip
    assert [target for _, target in packing] == [
        out / "packs/mine-pack", out / "packs/sglc2-pack", out / "packs/sglc2-pack",
    ]  # fmt: skip
    assert place == elsewhere / "surveys/sglc2"


def test_a_pack_that_is_named_is_opened_as_it_is(elsewhere, packing, monkeypatch):
    (elsewhere / "mine-pack").mkdir()
    for name in ("manifest.json", "checksums.npy"):
        (elsewhere / "mine-pack" / name).touch()
    opened = fake(elsewhere / "mine-pack")
    monkeypatch.setattr(pack, "open_pack", lambda place: opened if place.name == "mine-pack" else 0)
    assert ask("mine-pack", elsewhere) == (opened, None)
    assert packing == []
    opened.manifest["identity"]["about.survey"] = "sglc1-space"
    with pytest.raises(pack.PackError, match="-pack: found the survey sglc1-space, expected sg"):
        ask("mine-pack", elsewhere)


def test_the_pack_of_a_table_is_refused(elsewhere, packing, monkeypatch):
    (elsewhere / "mine-pack").mkdir()
    for name in ("manifest.json", "checksums.npy"):
        (elsewhere / "mine-pack" / name).touch()
    opened = fake(elsewhere / "mine-pack")
    del opened.manifest["identity"]["about.data"]
    monkeypatch.setattr(pack, "open_pack", lambda place: opened)
    with pytest.raises(pack.PackError, match="mine-pack: found a pack of a table.*expected"):
        ask("mine-pack", elsewhere)


def test_what_became_of_all_objects_is_said_and_noted(elsewhere, packing, capsys):
    (elsewhere / "mine").mkdir()
    found, _ = ask("mine", elsewhere)
    said = "n_catalog 3 = n_ok 2 + n_quarantined 1 (truncated 1) + n_missing 0"
    assert f"packs/mine-pack: {said}" in (told := capsys.readouterr().err)
    assert "quarantine.csv" in told
    survey_folder.note(found, elsewhere)
    assert (elsewhere / "audit-sglc2.txt").read_text().startswith(said)


def test_real_data_are_downloaded_and_never_replaced_by_a_stand_in(elsewhere, packing, monkeypatch):
    monkeypatch.setattr(survey_folder.archive, "get", lambda name, target: elsewhere / name)
    monkeypatch.setattr(survey_folder, "stand_in", lambda *_: pytest.fail("made a stand-in"))
    ask(None, elsewhere, real=True)
    assert packing == [(elsewhere / "sglc2", elsewhere / "packs/sglc2-pack")]


def test_a_stand_in_is_made_once_and_says_so(elsewhere, packing, capsys):
    pytest.importorskip("lenstronomy")
    _, place = ask(None, elsewhere)
    assert "a stand-in of 3 objects is made, once" in capsys.readouterr().err
    assert place == elsewhere / "stand_in/mock-sglc2-n3-seed7"
    written = {path: path.stat().st_mtime_ns for path in place.rglob("*.fits")}
    assert len(written) == 3 * 4
    ask(None, elsewhere)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*.fits")} == written
