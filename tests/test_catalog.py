"""Truth tables are read exactly, or refused at the right line and column."""

import csv
import io
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cast_lens import catalog

PLAIN = "ID,is_lens\n00123,1\n1e5,0\n"
FEATURES = "name,f_0,f_1,label\na,0.5,-1,1\nb,1e-3,+2.,0\n"


@pytest.fixture
def write(tmp_path):
    """Function that writes text or bytes to a file and returns its path."""

    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read_features(path):
    return catalog.read_feature_table(
        path, id_column="name", label_column="label", feature_prefix="f_"
    )


def rows_of(table):
    return table.to_dict("list")


def test_euclid_q1_features_are_those_of_the_file(real_data):
    path = real_data / "active_learning/strong_lense_train.csv"
    table = catalog.read_feature_table(
        path, id_column="id_str", label_column="label", feature_prefix="feat_pca_"
    )
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    features = [f"feat_pca_{n}" for n in range(40)]
    assert list(table) == ["object_id", "label", *features]
    assert table.shape == (3329, 42)
    assert table["label"].sum() == 255  # shared/data/README.md
    assert table["object_id"].tolist() == [row["id_str"] for row in rows]
    assert table["object_id"][0] == "102018212_-588199575513249872"
    expected = np.array([[float(row[name]) for name in features] for row in rows])
    assert np.array_equal(table[features].to_numpy(), expected)


def test_space_based_labels_are_those_gabe_counts(real_data):
    path = real_data / "sglc1/space_based/classifications.csv"
    table = catalog.read_sglc1_labels(path)
    assert table["object_id"].tolist() == [str(n) for n in range(100000, 120000)]
    # Gabe (2022): 18,000 objects to train on and 2,000 to validate, in the order of the file.
    assert table["label"][:18000].sum() == 12574
    assert table["label"][18000:].sum() == 1394
    expected = np.loadtxt(path, delimiter=",", skiprows=1)
    assert np.array_equal(table.iloc[:, 1:].to_numpy(), expected[:, 1:])
    assert [(name, str(dtype)) for name, dtype in table.dtypes.items()][1:] == [
        ("label", "int64"),
        ("einstein_area", "float64"),
        ("n_pix_lensed", "int64"),
        ("flux_sigma", "float64"),
    ]


def test_label_says_a_source_was_added_not_that_it_is_seen(real_data):
    table = catalog.read_sglc1_labels(real_data / "sglc1/space_based/classifications.csv")
    unseen = table["n_pix_lensed"] == 0
    assert (unseen & (table["label"] == 1)).sum() == 357
    assert unseen[table["label"] == 0].all()


def test_ground_based_labels_without_truth_columns(real_data):
    table = catalog.read_sglc1_labels(real_data / "sglc1/ground_based/classifications.csv")
    assert rows_of(table) == {
        "object_id": ["100002", "100003", "100004", "100008", "100012", "100023"],
        "label": [1, 1, 0, 0, 0, 1],
    }


def test_hand_written_features(write):
    table = read_features(write(FEATURES))
    assert rows_of(table) == {
        "object_id": ["a", "b"],
        "label": [1, 0],
        "f_0": [0.5, 0.001],
        "f_1": [-1.0, 2.0],
    }
    assert table.dtypes[["label", "f_0", "f_1"]].tolist() == [np.int64, np.float64, np.float64]


def test_hand_written_truth_columns(write):
    text = PLAIN.replace("is_lens", "is_lens,Einstein_area,numb_pix_lensed_image")
    text = text.replace("3,1", "3,1,8.6e-10,1e+05").replace("5,0", "5,0,1.3e-10,0")
    table = catalog.read_sglc1_labels(write(text))
    assert rows_of(table) == {
        "object_id": ["00123", "1e5"],
        "label": [1, 0],
        "einstein_area": [8.6e-10, 1.3e-10],
        "n_pix_lensed": [100000, 0],
    }
    assert table["n_pix_lensed"].dtype == np.int64


def test_features_come_in_the_order_of_their_numbers(write):
    names = [f"f_{n}" for n in range(12)]
    shuffled = random.Random(0).sample(names, 12)
    row = [name.removeprefix("f_") for name in shuffled]
    table = read_features(write(f"name,{','.join(shuffled)},f_mean,label\na,{','.join(row)},x,1\n"))
    assert list(table)[2:] == names
    assert table.iloc[0, 2:].tolist() == list(range(12))


@pytest.mark.parametrize(
    "object_id",
    [
        "00123", "1e5", "1E400", "-0", "9" * 40, "102018212_-588199575513249872", "nan", "NA",
        "None", "True", "0x10", "1_000", "=cmd()", "@x", "<script>", "#7", "a,b", 'say "x"',
        "Ångström", "重力", "İı", "é", "a b",
    ],
)  # fmt: skip
def test_object_id_is_exact(write, object_id):
    quoted = '"' + object_id.replace('"', '""') + '"'
    table = catalog.read_sglc1_labels(write(f"ID,is_lens\n{quoted},1\n"))
    assert table["object_id"].tolist() == [object_id]


@pytest.mark.parametrize("seed", range(5))
def test_random_ids_and_features_round_trip(write, seed):
    rng = random.Random(seed)
    alphabet = "0123456789-_.eE+,;\"'#= aZ\u00e9\u0131\u91cd\U0001f52d"
    ids = {"".join(rng.choices(alphabet, k=rng.randint(1, 30))) for _ in range(500)}
    ids = [name for name in ids if name == name.strip()]
    values = np.random.default_rng(seed).standard_normal((len(ids), 3)) * 10.0 ** rng.randint(-9, 9)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=rng.choice(["\n", "\r\n", "\r"]))
    writer.writerow(["f_2", "name", "f_0", "label", "f_1"])
    for name, (a, b, c) in zip(ids, values.tolist(), strict=True):
        writer.writerow([c, name, a, len(name) % 2, b])
    table = read_features(write(stream.getvalue()))
    assert table["object_id"].tolist() == ids
    assert table["label"].tolist() == [len(name) % 2 for name in ids]
    assert np.array_equal(table[["f_0", "f_1", "f_2"]].to_numpy(), values)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        PLAIN.rstrip(),
        PLAIN + "\n \r\n\n",
        PLAIN.replace("1\n1e5", "1\n\n1e5"),
        "# 1\n" + PLAIN,
        '# a comment of the catalog with "one quote, and a comma\n' * 28 + PLAIN,
        "\ufeff#\n\n#ID,is_lens\n" + PLAIN,
        PLAIN.replace("ID,is_lens", '"ID","is_lens"').replace("00123,1", '"00123","1"'),
        PLAIN.replace("ID,is_lens", "is_lens,ID").replace("00123,1", "1,00123").replace(
            "1e5,0", "0,1e5"
        ),
        PLAIN.replace("3,1", "3, 1.0").replace("5,0", "5,0.0"),
        PLAIN.replace("ens", "ens,x").replace("3,1", "3,1,").replace("5,0", '5,0,"a\n\n""b"""'),
        PLAIN.replace("ens", "ens,x").replace("3,1", "3,1,nan").replace("5,0", "5,0,-1e130"),
        PLAIN.replace("ens", "ens,x").replace("3,1", "3,1,\xe9").replace("5,0", "5,0,").encode(
            "latin-1"
        ),
        PLAIN.replace("ens", "ens" + ",x" * 5000).replace("3,1", "3,1" + "," * 5000).replace(
            "5,0", "5,0" + ",y" * 5000
        ),
    ],
)  # fmt: skip
def test_form_of_the_file_changes_nothing(write, content):
    table = catalog.read_sglc1_labels(write(content))
    assert rows_of(table) == {"object_id": ["00123", "1e5"], "label": [1, 0]}


@pytest.mark.parametrize(
    ("content", "line", "parts"),
    [
        ("", 1, ["no column names"]),
        ("# only\n\n", 1, ["no column names"]),
        (FEATURES.splitlines()[0], 2, ["no objects"]),
        (FEATURES.replace("label", "Label"), 1, ["'label'", "'Label'"]),
        (FEATURES.replace("name", "nmae"), 1, ["'name'", "'nmae'"]),
        (FEATURES.replace(",", ";"), 1, ["'name'", "'name;f_0;f_1;label'", "commas"]),
        ("#\n#\n" + FEATURES.replace("f_", "g_"), 3, ["'f_0'", "'g_0'"]),
        (FEATURES.replace("f_1", "f_2"), 1, ["'f_1'", "'f_2'"]),
        (FEATURES.replace("f_0", "f_2"), 1, ["'f_0'", "'f_1'"]),
        (FEATURES.replace("f_1", "f_0"), 1, ["'f_1'", "'f_0'"]),
        (FEATURES.replace("f_1", "f_00"), 1, ["'f_1'", "'f_00'"]),
        (FEATURES.replace("f_1", "name"), 1, ["'name'", "2 of it"]),
        (FEATURES.replace("f_1", "f_" + "1" * 5000).replace("f_0", "x"), 1, ["'f_0'"]),
        (FEATURES.replace("-1,1", "-1"), 2, ["3 fields", "expected 4"]),
        (FEATURES.replace("-1,1", "-1,1,"), 2, ["5 fields", "expected 4"]),
        (FEATURES.replace("2.,0", "2.,2"), 3, ["'label'", "'2'"]),
        (FEATURES.replace("2.,0", "2.,0.3"), 3, ["'label'", "'0.3'"]),
        (FEATURES.replace("2.,0", "2.,"), 3, ["'label'", "''"]),
        (FEATURES.replace("2.,0", "2.,True"), 3, ["'label'", "'True'"]),
        (FEATURES.replace("-1", ""), 2, ["'f_1'", "''"]),
        (FEATURES.replace("-1", "x" * 70), 2, ["found '" + "x" * 57 + "...', expected"]),
        (FEATURES.replace("-1", "NaN"), 2, ["'f_1'", "'NaN'"]),
        (FEATURES.replace("-1", "-inf"), 2, ["'f_1'", "'-inf'"]),
        (FEATURES.replace("-1", "1e400"), 2, ["'f_1'", "'1e400'"]),
        (FEATURES.replace("-1", "-1.0e+130"), 2, ["'f_1'", "'-1.0e+130'", "measured"]),
        (FEATURES.replace("-1", "1_0"), 2, ["'f_1'", "'1_0'"]),
        (FEATURES.replace("-1", "\u0661"), 2, ["'f_1'"]),
        (FEATURES.replace("-1", "1d3"), 2, ["'f_1'", "'1d3'"]),
        (FEATURES.replace("-1", '"-1,5"'), 2, ["'f_1'", "'-1,5'"]),
        (FEATURES.replace("\na,", "\n,"), 2, ["'name'", "''"]),
        (FEATURES.replace("\na,", "\n a,"), 2, ["'name'", "' a'"]),
        (FEATURES.replace("\na,", "\na\u00a0b,"), 2, ["'name'", "'a\\xa0b'"]),
        (FEATURES.replace("\na,", '\n"a\n",'), 2, ["'name'", "'a\\n'"]),
        (FEATURES.replace("\na,", "\n\xe9,").encode("latin-1"), 2, ["'name'", "UTF-8"]),
        (FEATURES.encode("utf-16"), 1, ["zero byte", "UTF-8"]),
        (FEATURES + "\0", 4, ["zero byte"]),
        (FEATURES.replace("-1,1", '"-1,1'), 2, ["quotation mark"]),
        (FEATURES.replace("-1", '"-1"2'), 2, ["quotation mark"]),
        (FEATURES.replace("-1", '"' + "1" * 200_000), 2, ["quotation mark"]),
        (FEATURES + "\r\n# more\n", 5, ["1 fields", "expected 4"]),
        (FEATURES + "c,1,1,1\n\nb,1,1,1\n", 6, ["'name'", "'b'", "line 3 too"]),
        ("<html>\n<body>404</body></html>", 1, ["'name'", "'<html>'"]),
    ],
)  # fmt: skip
def test_faults_are_refused_at_their_line_and_column(write, content, line, parts):
    path = write(content)
    with pytest.raises(catalog.CatalogError) as caught:
        read_features(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_is_the_editors_after_quoted_line_breaks(write, newline):
    lines = ["# x", "note,name,f_0,label", '"two', 'lines",a,1,1', '"three', "", 'lines",b,x,0']
    with pytest.raises(catalog.CatalogError, match=r"line 7, column 'f_0': found 'x'"):
        read_features(write(newline.join(lines)))


@pytest.mark.parametrize(
    ("column", "found"),
    [
        *(("Einstein_area", found) for found in ("", "NaN", "-1e130", "inf")),
        *(("numb_pix_lensed_image", found) for found in ("", "NaN", "2.5", "-1", "1e300")),
        ("flux_lensed_image_in_sigma", "x"),
    ],
)  # fmt: skip
def test_truth_column_must_be_measured_and_pixels_whole(write, column, found):
    path = write(f"ID,is_lens,{column}\n1,1,1\n2,1,{found}\n")
    with pytest.raises(catalog.CatalogError, match=f"line 3, column '{column}': found '{found}'"):
        catalog.read_sglc1_labels(path)


def test_no_file_no_folder_and_no_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "absent", "."):
        with pytest.raises(catalog.CatalogError, match="no such file"):
            catalog.read_sglc1_labels(tmp_path / name)


def test_unreadable_file_is_a_catalog_error(write, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    path = write(PLAIN)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(catalog.CatalogError, match="Permission denied"):
        catalog.read_sglc1_labels(path)


def test_damaged_table_is_refused_or_read_but_never_anything_else(write):
    rng = random.Random(0)
    original = ("# x\n" + FEATURES + 'c,"1",2,1\n').encode()
    refused = 0
    for _ in range(500):
        damaged = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            position = rng.randrange(len(damaged))
            damaged[position : position + rng.randint(0, 3)] = rng.choice(
                [b"", b'"', b",", b"\n", b"\r", b"#", b"\xff", b"9", b"e", b"\xef\xbb\xbf"]
            )
        try:
            table = read_features(write(bytes(damaged)))
        except catalog.CatalogError as error:
            assert ", line " in str(error)
            refused += 1
        else:
            assert table["label"].isin([0, 1]).all()
            assert np.isfinite(table.iloc[:, 2:].to_numpy()).all()
            assert table["object_id"].is_unique
    assert 0 < refused < 500


def test_locale_does_not_matter(write):
    path = write("ID,is_lens\n\u0131\u00e9,1\n", name="t \u00e9.csv")
    code = (
        "from cast_lens.catalog import read_sglc1_labels as r; import sys;"
        "print(ascii(r(sys.argv[1])['object_id'][0]))"
    )
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Asia/Tokyo"}
    environment = {**os.environ, **c_locale}
    command = [sys.executable, "-c", code, path]
    output = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert output.stdout.strip() == ascii("\u0131\u00e9")


def test_table_of_the_papers_size_takes_less_than_a_second(write):
    header = "name," + ",".join(f"f_{n}" for n in range(40)) + ",label,label2\n"
    row = ",".join(["-0.123456789"] * 40)
    path = write(header + "".join(f"{n},{row},0,1\n" for n in range(3329)))
    start = time.perf_counter()
    table = read_features(path)
    assert time.perf_counter() - start < 1
    assert table.shape == (3329, 42)
