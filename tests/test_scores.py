"""scores.csv there and back, against the csv module; faults 17, 19 and 31."""

import csv
import re
import struct

import numpy as np
import pandas as pd
import pytest

from cast_lens import scores

HEADER = "run,n_train,object_id,label,score\n"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

NASTY = [
    *(" a", "a ", " ", "", "a,b", 'a"b', '"', '""', "'", "''", "'a", ",", ";", "a\tb"),
    *("a\nb", "a\rb", "a\r\nb", "\n", "\r", "\r\n", "\n=a", "a\n", "\na", "a\u2028b"),
    *("=cmd|' /C calc'!A0", "@x", "+1", "-5", "\t=a", "\r=a", "'=x", "''=x", "'''@", "'\t"),
    *("NA", "nan", "NaN", "null", "None", "<NA>", "inf", "True", "-", "#N/A", "# comment"),
    *("00123", "123", "1e5", "1E5", "0x1f", "1_000", "1.0", "9" * 40, "9223372036854775808"),
    *(
        "J0959+0206",
        "ä",
        "a\u0308",
        "☃",
        "日本",
        "\ufeffbom",
        "I",
        "ı",
        "<script>alert(1)</script>",
    ),
]

TEXTS = {"a", "'", "''", "\n", '"', ",", " ", "0", "\u00e9", "=", "+", "-", "@", "\t", "\r"}


def table(object_ids, values=None, labels=None):
    values = np.linspace(0, 1, len(object_ids)) if values is None else values
    labels = np.arange(len(object_ids)) % 2 if labels is None else labels
    return scores.score_table(object_ids, labels, values, run=0, n_train=100)


def there_and_back(path, frame):
    scores.write_scores(frame, path)
    return scores.read_scores(path)


def written_cells(path):
    """Read the object_id cells as they stand in the file, without cast_lens or pandas."""
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert {len(row) for row in rows} == {5}
    return [row[rows[0].index("object_id")] for row in rows[1:]]


def bits(values):
    return [struct.pack(">d", value) for value in values]


def read(tmp_path, text, *, encoding="utf-8"):
    path = tmp_path / "read.csv"
    path.write_bytes(text.encode(encoding))
    return scores.read_scores(path)


def test_score_table_holds_what_was_given():
    frame = scores.score_table(np.array([7, 12]), [1, 0], [0.25, 0.5], run=3, n_train=40)
    assert list(frame.columns) == ["run", "n_train", "object_id", "label", "score"]
    assert frame.to_dict("records") == [
        {"run": "3", "n_train": 40, "object_id": "7", "label": 1, "score": 0.25},
        {"run": "3", "n_train": 40, "object_id": "12", "label": 0, "score": 0.5},
    ]
    assert frame["label"].dtype == np.int64 and frame["score"].dtype == np.float64


@pytest.mark.parametrize("labels", [[1, 0], [True, False], [1.0, 0.0], np.array([1, 0], np.uint8)])
def test_labels_of_any_number_type_are_integers_in_the_table(labels):
    frame = table(["a", "b"], labels=labels)
    assert frame["label"].dtype == np.int64 and list(frame["label"]) == [1, 0]


def test_every_float64_returns_bit_by_bit(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    values = np.r_[values[np.isfinite(values)], rng.random(1000), rng.normal(size=1000)]
    edges = [0.0, -0.0, 1e-308, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
    edges += [0.1, 0.30000000000000004, 0.12345678901234567, 1 / 3, 1.0, 1 - 2**-53, 123456789.0]
    values = np.r_[values, edges, np.random.default_rng(1).random(500).astype(np.float32)]
    back = there_and_back(tmp_path / "scores.csv", table(np.arange(len(values)), values))
    assert bits(back["score"]) == bits(values)


@pytest.mark.parametrize(
    "text",
    [
        *("1e-05", "1E+2", "+0.5", ".5", "5.", "00.5", "2.2250738585072011e-308", "1e4"),
        *("123456789012345678901234567890", "0.1000000000000000055511151231257827", "-0"),
    ],
)
def test_scores_of_other_programs_are_rounded_correctly(tmp_path, text):
    back = read(tmp_path, HEADER + f"0,10,b,1,{text}\n")
    assert bits(back["score"]) == bits([float(text)])


def test_nasty_ids_return_as_they_were(tmp_path):
    back = there_and_back(tmp_path / "scores.csv", table(NASTY))
    assert list(back["object_id"]) == NASTY
    assert list(back["label"]) == [k % 2 for k in range(len(NASTY))]
    assert all(type(object_id) is str for object_id in back["object_id"])


@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_id_alone_returns_with_its_neighbor(tmp_path, nasty):
    back = there_and_back(tmp_path / "scores.csv", table([nasty, "neighbor"]))
    assert list(back["object_id"]) == [nasty, "neighbor"]


def test_the_whole_table_returns_as_it_was(tmp_path):
    frame = pd.concat(
        [
            scores.score_table(NASTY, np.ones(len(NASTY)), np.arange(len(NASTY)), run=r, n_train=n)
            for r in (0, "a seed", "00")
            for n in (1, 4096)
        ],
        ignore_index=True,
    )
    back = there_and_back(tmp_path / "scores.csv", frame)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)


def test_writing_again_gives_the_same_bytes(tmp_path):
    back = there_and_back(tmp_path / "first.csv", table(NASTY))
    scores.write_scores(back, tmp_path / "second.csv")
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_escape_is_undone_exactly_for_random_texts():
    rng = np.random.default_rng(0)
    letters = sorted(TEXTS)
    texts = {"".join(rng.choice(letters, rng.integers(0, 6))) for _ in range(20_000)}
    escaped = {text: scores.escape_cell(text) for text in texts}
    assert all(scores.unescape_cell(cell) == text for text, cell in escaped.items())
    assert len(set(escaped.values())) == len(texts)
    assert not [cell for cell in escaped.values() if cell.startswith(FORMULA_STARTS)]


def test_only_ids_that_look_like_formulas_are_changed():
    for text in ("a", "", "'", "''", "'a", "a=b", " =a", "1-2", "J0959+0206", "NA"):
        assert scores.escape_cell(text) == text
    for text in ("=a", "+1", "-5", "@x", "\ta", "\ra", "'=a", "''-"):
        assert scores.escape_cell(text) == "'" + text


def test_no_written_id_begins_like_a_formula(tmp_path):
    scores.write_scores(table(NASTY), tmp_path / "scores.csv")
    cells = written_cells(tmp_path / "scores.csv")
    assert len(cells) == len(NASTY)
    assert not [cell for cell in cells if cell.startswith(FORMULA_STARTS)]
    assert "'=cmd|' /C calc'!A0" in cells and "'-5" in cells and "00123" in cells


def test_the_file_is_plain_comma_separated_text(tmp_path):
    scores.write_scores(table(["b", "a"], [0.1, 1e-7]), tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (
        b"run,n_train,object_id,label,score\n0,100,b,0,0.1\n0,100,a,1,1e-07\n"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_raises_and_names_the_object(tmp_path, bad):
    values = [0.1, 0.2, bad, bad]
    with pytest.raises(scores.ScoreError, match=r"object third of run 0 has score (nan|-?inf)"):
        table(["first", "second", "third", "fourth"], values)
    frame = table(["first", "third"]).assign(score=[0.1, bad])
    with pytest.raises(scores.ScoreError, match="scores.csv: object third"):
        scores.write_scores(frame, tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [2, -1, 0.5, np.nan, 1e300])
def test_a_label_other_than_0_or_1_raises_and_names_the_object(tmp_path, bad):
    told = re.escape(f"object b of run 0 has label {bad}")
    with pytest.raises(scores.ScoreError, match=told):
        table(["a", "b"], labels=[1, bad])
    with pytest.raises(scores.ScoreError, match=told):
        scores.write_scores(table(["a", "b"]).assign(label=[1, bad]), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_object_twice_in_one_run_raises(tmp_path):
    with pytest.raises(scores.ScoreError, match="object b occurs twice in run 0"):
        table(["a", "b", "c", "b"])
    with pytest.raises(scores.ScoreError, match="read.csv: object b occurs twice in run 0"):
        read(tmp_path, HEADER + "0,10,b,1,0.5\n0,10,b,0,0.6\n")


def test_an_object_may_occur_in_several_runs_and_sizes(tmp_path):
    text = HEADER + "0,10,b,1,0.5\n1,10,b,1,0.5\n0,20,b,1,0.5\n"
    assert len(read(tmp_path, text)) == 3


def test_ids_that_differ_only_by_the_escape_are_not_twice(tmp_path):
    ids = ["=x", "'=x", "''=x"]
    assert list(there_and_back(tmp_path / "s.csv", table(ids))["object_id"]) == ids


@pytest.mark.parametrize("column", ["run", "n_train", "object_id", "label", "score"])
def test_a_missing_column_is_named(tmp_path, column):
    names = HEADER.strip().replace(column, "other", 1)
    with pytest.raises(scores.ScoreError, match=rf"read.csv lacks the columns \['{column}'\]"):
        read(tmp_path, names + "\n0,10,b,1,0.5\n")


@pytest.mark.parametrize("text", ["", "\n", "\ufeff"])
def test_an_empty_file_is_a_score_error_that_names_it(tmp_path, text):
    with pytest.raises(scores.ScoreError, match=r"read\.csv"):
        read(tmp_path, text)


def test_a_table_without_rows_returns_without_rows(tmp_path):
    assert list(read(tmp_path, HEADER).columns) == list(scores.COLUMNS)
    back = there_and_back(tmp_path / "scores.csv", table([]))
    assert len(back) == 0
    assert (back["label"].dtype, back["score"].dtype) == (np.int64, np.float64)
    assert (tmp_path / "scores.csv").read_text() == HEADER


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end", "end end"])
def test_byte_order_mark_and_line_ends_change_nothing(tmp_path, mark, ends, last):
    text = HEADER + '0,10,b,1,0.5\n0,10," c",0,0.25'
    text = mark + (text + last.replace("end", "\n").replace(" ", "")).replace("\n", ends)
    found = read(tmp_path, text).to_dict("list")
    assert found == {
        "run": ["0", "0"],
        "n_train": [10, 10],
        "object_id": ["b", " c"],
        "label": [1, 0],
        "score": [0.5, 0.25],
    }


def test_further_columns_and_another_order_change_nothing(tmp_path):
    text = "note,score,label,object_id,n_train,run\nhello,0.5,1,b,10,0\n"
    pd.testing.assert_frame_equal(read(tmp_path, text), read(tmp_path, HEADER + "0,10,b,1,0.5\n"))


@pytest.mark.parametrize("column", ["n_train", "label", "score"])
@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "-inf", "0,5", "1;2", "NA", "0x10"])
def test_a_value_that_is_no_number_raises_with_object_and_value(tmp_path, column, value):
    row = {"run": "0", "n_train": "10", "object_id": "b", "label": "1", "score": "0.5"}
    cells = [f'"{cell}"' for cell in (row | {column: value}).values()]
    with pytest.raises(scores.ScoreError, match=re.escape(f"object b has {column} {value!r};")):
        read(tmp_path, HEADER + "0,10,a,1,0.5\n" + ",".join(cells) + "\n")


@pytest.mark.parametrize("column", ["n_train", "label"])
def test_a_fraction_where_a_whole_number_belongs_raises(tmp_path, column):
    row = {"run": "0", "n_train": "10", "object_id": "b", "label": "1", "score": "0.5"}
    with pytest.raises(scores.ScoreError, match=f"{column} holds numbers that are not whole"):
        read(tmp_path, HEADER + ",".join((row | {column: "0.5"}).values()) + "\n")


@pytest.mark.parametrize(
    "rows",
    [
        "0,10,b,1\n",
        "0,10,b,1,0.5,7\n",
        "0,10,5,1,0,1\n0,10,6,1,0,1\n",  # pandas would take the first column for an index
        "0,10,b,1,0.5\n0,10,c,1,0.5,7\n",
        '0,10,"b,1,0.5\n',
    ],
)
def test_rows_of_another_length_raise(tmp_path, rows):
    with pytest.raises(scores.ScoreError, match=r"read\.csv: ") as caught:
        read(tmp_path, HEADER + rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_is_a_score_error(tmp_path, encoding):
    with pytest.raises(scores.ScoreError, match=r"read\.csv"):
        read(tmp_path, HEADER + "0,10,\xe4,1,0.5\n", encoding=encoding)


def test_a_web_page_is_a_score_error(tmp_path):
    with pytest.raises(scores.ScoreError, match="lacks the columns"):
        read(tmp_path, "<!DOCTYPE html>\n<html><body>404</body></html>\n")


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    scores.write_scores(table(["a"]), tmp_path / "scores.csv")
    before = (tmp_path / "scores.csv").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        scores.write_scores(table(["a", "b"]), tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_bytes() == before


def test_a_hundred_thousand_rows_return_exactly(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"{k:07d}" for k in range(100_000)]
    frame = table(ids, rng.random(len(ids)))
    back = there_and_back(tmp_path / "scores.csv", frame)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
