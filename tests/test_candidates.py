"""A folder of candidates says the same in every one of its files, and nothing else."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from cast_lens import candidates, text_tables

ODD_IDS = ["00123", "1e5", "9" * 30, "=cmd|' /C calc'!A0", "@x", "'=y", "<script>", 'a,"b";c', "é"]


def table(n=9, *, label=True):
    """Candidates in rank order, with what can go wrong in their cells."""
    rng = np.random.default_rng(0)
    logit = np.sort(rng.normal(scale=20, size=n))[::-1]
    made = pd.DataFrame({"object_id": (ODD_IDS + [f"n{k}" for k in range(n)])[:n]})
    made["ra"] = np.where(np.arange(n) % 3, rng.uniform(0, 360, n), np.nan)
    made["dec"] = np.where(np.arange(n) % 3, rng.uniform(-90, 90, n), np.nan)
    made["score"] = 1 / (1 + np.exp(-logit))
    made["logit"] = logit
    made["probability"] = np.where(np.arange(n) % 2, made["score"] / 3, np.nan)
    made["spread"] = np.nan
    made["rank"] = np.arange(1, n + 1)
    made["flags"] = (["", "nan_filled;padded", "constant"] * n)[:n]
    made["weights"] = "0123456789ab"
    if label:
        made["label"] = np.arange(n) % 2
    return made


ABOUT = {"network": [{"name": "b2é"}], "options": {"clip": "own", "long": "x" * 200}}


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("name", ["", candidates.CSV, candidates.FITS])
def test_candidates_come_back_exactly(tmp_path, name, label):
    candidates.write(tmp_path, table(label=label), ABOUT, 5)
    found = candidates.read(tmp_path / name)
    pd.testing.assert_frame_equal(found, table(label=label), check_exact=True, check_dtype=False)
    assert found["logit"].dtype == np.float64 and found["rank"].dtype == np.int64
    assert all(type(object_id) is str for object_id in found["object_id"])


def test_spreadsheet_runs_no_cell(tmp_path):
    candidates.write(tmp_path, table(), ABOUT, 5)
    with open(tmp_path / candidates.CSV, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == [*candidates.COLUMNS, "label"]
    assert not [row[0] for row in rows[1:] if re.match(r"[=+\-@\t\r]", row[0])]
    assert rows[4][0] == "'=cmd|' /C calc'!A0"
    assert rows[1][1:3] == ["", ""]  # unknown is empty


def test_astropy_reads_the_table_with_units_and_origin(tmp_path):
    candidates.write(tmp_path, table(), ABOUT, 5)
    found = Table.read(tmp_path / candidates.FITS)
    assert found["ra"].unit == found["dec"].unit == "deg"
    assert np.array_equal(found["logit"], table()["logit"])
    assert json.loads(found.meta["NETWORK"]) == ABOUT["network"]
    assert json.loads(found.meta["OPTIONS"]) == ABOUT["options"]
    assert json.loads((tmp_path / candidates.ABOUT).read_text(encoding="utf-8")) == ABOUT


def test_regions_are_circles_at_the_first_known_positions(tmp_path):
    candidates.write(tmp_path, table(), ABOUT, 5)
    lines = (tmp_path / candidates.REGIONS).read_text().splitlines()
    assert lines[:2] == ["# Region file format: DS9 version 4.1", "icrs"]
    pattern = r'circle\(([-0-9.]+),([-0-9.]+),5"\) # text=\{(\d+) (p|score)=([-0-9.e]+)\}'
    found = [re.fullmatch(pattern, line).groups() for line in lines[2:]]
    rows = table().head(5)
    rows = rows[rows["ra"].notna()]
    assert [int(f[2]) for f in found] == rows["rank"].tolist() == [2, 3, 5]
    assert [float(f[0]) for f in found] == pytest.approx(rows["ra"].tolist(), abs=1e-7)
    assert [float(f[1]) for f in found] == pytest.approx(rows["dec"].tolist(), abs=1e-7)
    assert [f[3] for f in found] == ["p", "score", "score"]


def test_two_writings_have_the_same_bytes(tmp_path):
    for name in "ab":
        candidates.write(tmp_path / name, table(), ABOUT, 5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_candidates_at_all_are_written(tmp_path):
    candidates.write(tmp_path, table(0), ABOUT, 5)
    assert len(Table.read(tmp_path / candidates.FITS)) == 0


def test_ties_keep_the_order_of_the_catalog():
    logit = [1.0, 3.0, 1.0, 3.0, -2.0, 1.0]
    made = pd.DataFrame({"object_id": list("abcdef"), "logit": logit})
    ranked = candidates.rank(made)
    assert ranked["object_id"].tolist() == list("bdacfe")
    assert ranked["rank"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["logit", "score"])
def test_score_that_is_no_number_names_its_object(tmp_path, value, column):
    made = table().assign(**{column: table()[column].where(table()["rank"] != 3, value)})
    with pytest.raises(candidates.CandidateError, match=f"object_id {'9' * 30} has {column}"):
        candidates.write(tmp_path, made, ABOUT, 5)
    assert not any(tmp_path.iterdir())
    with pytest.raises(candidates.CandidateError, match="9" * 30):
        candidates.rank(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="flags"), "expected also flags"),
        (lambda t: t.assign(object_id="a"), "object_id a twice"),
        (lambda t: t.assign(object_id=[""] + ODD_IDS[1:]), "found object_id ''"),
        (lambda t: t.assign(object_id=[7] + ODD_IDS[1:]), "found object_id 7"),
        (lambda t: t.assign(label=2), "object_id 00123 has label 2"),
        (lambda t: t.assign(rank=t["rank"] + 1), "found rank 2 of object_id 00123 in place 1"),
    ],
)
def test_table_that_is_none_is_not_written(tmp_path, change, message):
    with pytest.raises(candidates.CandidateError, match=message):
        candidates.write(tmp_path, change(table()), ABOUT, 5)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("logit,", "logits,", "line 1, column 'logit'.*nearest.*'logits'"),
        ("\n'@x,", "\n00123,", "line 6, column 'object_id'.*line 2 too"),
        (",1,,", ",one,,", "line 2, column 'rank': found 'one'"),
        (",1,,", ",2,,", "found rank 2 of object_id 00123 in place 1"),
        ("object_id,ra", "object_id;ra", "line 1, column|fields"),
    ],
)
def test_damaged_table_names_line_and_column(tmp_path, old, new, message):
    candidates.write(tmp_path, table(), ABOUT, 5)
    text = (tmp_path / candidates.CSV).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / candidates.CSV).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises((candidates.CandidateError, text_tables.CatalogError), match=message):
        candidates.read(tmp_path)


@pytest.mark.parametrize("name", ["absent", "empty", "bad.fits"])
def test_what_holds_no_candidates_says_what_to_name(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE")
    with pytest.raises(candidates.CandidateError, match="cast-lens score"):
        candidates.read(tmp_path / name)
