"""Tables are read exactly, or refused at their line and column; files join them by ID."""

import csv
import io
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cast_lens import catalog, cutouts
from tests import test_truth_tables as truth

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


@pytest.mark.slow
def test_the_time_of_a_table_grows_with_its_rows_and_no_faster(write):
    header = "name," + ",".join(f"f_{n}" for n in range(40)) + ",label,label2\n"
    row, took = ",".join(["-0.123456789"] * 40), {}
    for n_rows in (3329, 4 * 3329):
        path = write(header + "".join(f"{n},{row},0,1\n" for n in range(n_rows)))
        took[n_rows] = []
        for _ in range(3):
            start = time.process_time()
            table = read_features(path)
            took[n_rows].append(time.process_time() - start)
        assert table.shape == (n_rows, 42)
    assert min(took[4 * 3329]) < 10 * min(took[3329])


BANDS = {"R": "Band1", "I": "Band2", "G": "Band3", "U": "Band4"}
SPACE = "Public/Band1/imageEUC_VIS-{}.fits"


def lay(folder, *names, content=b""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def sglc1(folder, ids, layout=SPACE, table="ID,is_lens\n3,1\n1,0\n2,1\n"):
    lay(folder, "classifications.csv", content=table.encode())
    return lay(folder, *(layout.format(n) for n in ids))


def test_real_tracks_lie_side_by_side_and_are_told_apart(real_data):
    table, counts = catalog.read_sglc1(real_data / "sglc1", track="space")
    assert counts == catalog.CatalogCounts(20000, 8, 19992, 0)  # shared/data/README.md
    assert list(table) == [
        "object_id", "label", "split", "path_VIS", "einstein_area", "n_pix_lensed", "flux_sigma",
    ]  # fmt: skip
    found = table.dropna(subset="path_VIS").set_index("object_id")
    # Lenses and others in the sample folders the images came from.
    assert found.index[found["label"] == 1].tolist() == ["100002", "100008", "100013", "100019"]
    assert found.index[found["label"] == 0].tolist() == ["100004", "100023", "100045", "100053"]
    table, counts = catalog.read_sglc1(real_data / "sglc1", track="ground")
    assert counts == catalog.CatalogCounts(6, 6, 0, 0)
    assert list(table)[3:] == [f"path_{band}" for band in BANDS]
    assert table.set_index("object_id")["label"]["100008"] == 0
    for row in table.itertuples():
        assert row.path_U.endswith(f"ground_based/Public/Band4/imageSDSS_U-{row.object_id}.fits")


@pytest.mark.parametrize(
    "layout", [SPACE, "{0}/Data.{0}/Public/Band1/imageEUC_VIS-{0}.fits", "imageEUC_VIS-{}.fits.gz"]
)
def test_labels_join_by_id_in_the_order_of_the_table(tmp_path, layout):
    sglc1(tmp_path / "SpaceBasedTraining", [1, 2, 3], layout)
    table, counts = catalog.read_sglc1(tmp_path, track="space")
    paths = [str(tmp_path / "SpaceBasedTraining" / layout.format(n)) for n in (3, 1, 2)]
    assert rows_of(table) == {
        "object_id": ["3", "1", "2"],
        "label": [1, 0, 1],
        "split": ["train"] * 3,
        "path_VIS": paths,
    }
    assert counts == catalog.CatalogCounts(3, 3, 0, 0)


def test_objects_without_files_and_files_without_rows_are_counted(tmp_path):
    sglc1(tmp_path, [2, 4, 5])
    lay(tmp_path, "README", "Private/Band1/NoSourceImage/imageEUC_VIS-1.fits")
    table, counts = catalog.read_sglc1(str(tmp_path), track="space", split="test")
    assert table["path_VIS"].tolist() == [None, None, str(tmp_path / SPACE.format(2))]
    assert table["split"].tolist() == ["test"] * 3
    assert counts == catalog.CatalogCounts(3, 1, 2, 4)
    with pytest.raises(catalog.CatalogError, match="no image of object_id 3 and 1 more"):
        catalog.read_sglc1(tmp_path, track="space", strict=True)


def test_object_with_one_band_of_four_is_no_missing_object(tmp_path):
    names = [f"Public/{folder}/imageSDSS_{band}-{{}}.fits" for band, folder in BANDS.items()]
    for layout in names[1:]:
        sglc1(tmp_path, [1, 2, 9], layout)
    table, counts = catalog.read_sglc1(tmp_path, track="ground", strict=False)
    assert list(table)[3:] == ["path_I", "path_G", "path_U"]
    sglc1(tmp_path, [2], names[0])
    table, counts = catalog.read_sglc1(tmp_path, track="ground")
    assert table["path_R"].tolist() == [None, None, str(tmp_path / names[0].format(2))]
    assert counts == catalog.CatalogCounts(3, 2, 1, 3)


def test_labels_of_one_track_never_meet_images_of_the_other(tmp_path):
    sglc1(tmp_path / "ground", [1], "imageSDSS_R-{}.fits")
    lay(tmp_path / "space", "imageEUC_VIS-1.fits", "imageEUC_VIS-2.fits")
    with pytest.raises(catalog.CatalogError, match=r"found 0 .* above images in band VIS"):
        catalog.read_sglc1(tmp_path, track="space")
    assert catalog.read_sglc1(tmp_path, track="ground")[1].n_candidates == 1
    with pytest.raises(catalog.CatalogError, match="imageSDSS_R-1.fits: found an image in band R"):
        catalog.read_sglc1(
            tmp_path / "ground", track="space", truth_path=tmp_path / "ground/classifications.csv"
        )
    sglc1(tmp_path / "mixed", [1], "imageSDSS_R-{}.fits")
    sglc1(tmp_path / "mixed", [2], "imageEUC_VIS-{}.fits")
    with pytest.raises(catalog.CatalogError, match="found an image in band R, expected VIS alone"):
        catalog.read_sglc1(tmp_path / "mixed", track="space")
    sglc1(tmp_path / "mixed", [1], "imageEUC_VIS-{}.fits")
    with pytest.raises(cutouts.CutoutError, match="duplicate: found two images of object_id 1"):
        catalog.read_sglc1(tmp_path / "mixed", track="space")
    with pytest.raises(ValueError, match="'moon', expected one of space, ground"):
        catalog.read_sglc1(tmp_path, track="moon")


def test_two_truth_tables_of_a_track_are_named(tmp_path):
    for name in "ab":
        sglc1(tmp_path / name, [1])
    with pytest.raises(catalog.CatalogError) as caught:
        catalog.read_sglc1(tmp_path, track="space")
    for name in "ab":
        assert str(tmp_path / name / "classifications.csv") in str(caught.value)
    truth_path = tmp_path / "a/classifications.csv"
    assert catalog.read_sglc1(tmp_path / "b", track="space", truth_path=truth_path)[1] == (
        catalog.CatalogCounts(3, 1, 2, 1)
    )


def test_images_of_another_set_are_refused(tmp_path):
    sglc1(tmp_path, [7, 8])
    with pytest.raises(catalog.CatalogError, match="found images of 7 and others, of no object"):
        catalog.read_sglc1(tmp_path, track="space")
    with pytest.raises(cutouts.CutoutError, match="No such file"):
        catalog.read_sglc1(tmp_path / "absent", track="space")


SGLC2 = ("VIS", "J", "Y", "H")


def sglc2(folder, rows, ids, name="image_catalog2.0train.csv"):
    header, row = truth.HEADER, [truth.line(n, n_sources=str(s)) for n, s in rows]
    lay(folder, name, content=("# c\n" + header + "".join(row)).encode())
    names = (f"Public/EUC_{band}/imageEUC_{band}-{n}.fits" for band in SGLC2 for n in ids)
    return lay(folder, *names)


def test_second_challenge_joins_all_bands_and_labels_by_the_rule_asked_for(tmp_path):
    sglc2(tmp_path, [("200001", 0), ("200000", 1)], ["200000", "200001"])
    read = partial(catalog.read_sglc2, tmp_path, duplicates="drop")
    table, counts = read(label=catalog.label_source_added)
    bands = [f"path_{band}" for band in ("VIS", "Y", "J", "H")]
    assert list(table) == ["object_id", "label", "split", *bands, *truth.NAMES]
    assert table["label"].tolist() == [0, 1]
    for row in table.itertuples():
        for column in bands:
            band = column.removeprefix("path_")
            name = f"Public/EUC_{band}/imageEUC_{band}-{row.object_id}.fits"
            assert getattr(row, column) == str(tmp_path / name)
    assert counts == catalog.CatalogCounts(2, 2, 0, 0)
    rule = partial(catalog.label_n_pix, minimum=4)
    assert read(label=rule)[0]["label"].tolist() == [0, 0]  # n_pix_source is 3
    with pytest.raises(TypeError):
        read()


MISSING = "213913 226305 233597 244071 259871 261145 270458 288731 294173"


def test_nine_missing_objects_are_published_and_a_tenth_is_refused_if_strict(tmp_path):
    ids = [*MISSING.split(), "200000", "200001"]
    sglc2(tmp_path, [(n, 1) for n in ids], ids[-2:])
    read = partial(
        catalog.read_sglc2, tmp_path, duplicates="drop", label=catalog.label_source_added
    )
    assert read(strict=True)[1] == catalog.CatalogCounts(11, 2, 9, 0)
    for band in SGLC2:
        (tmp_path / f"Public/EUC_{band}/imageEUC_{band}-200001.fits").unlink()
    assert read()[1] == catalog.CatalogCounts(11, 1, 10, 0)
    with pytest.raises(catalog.CatalogError, match="no image of object_id 200001 and 0 more"):
        read(strict=True)


def test_images_of_dropped_duplicates_are_extras(tmp_path):
    rows = [("210000", 1), ("200000", 1), ("210000", 0)]
    sglc2(tmp_path, rows, ["210000", "200000"])
    for duplicates, label, counts in (
        ("drop", [1], (1, 1, 0, 4)),
        ("first", [1, 1], (2, 2, 0, 0)),
        ("last", [1, 0], (2, 2, 0, 0)),
    ):
        with pytest.warns(UserWarning, match="of 3 rows dropped"):
            table, found = catalog.read_sglc2(
                tmp_path, duplicates=duplicates, label=catalog.label_source_added
            )
        assert table["label"].tolist() == label
        assert found == catalog.CatalogCounts(*counts)


def test_corrected_copy_beside_the_catalog_must_be_chosen(tmp_path):
    sglc2(tmp_path / "deep", [("1", 1)], ["1"])
    sglc2(tmp_path / "deep", [("1", 0)], ["1"], name="image_catalog2.0train_corrigido.csv")
    read = partial(catalog.read_sglc2, duplicates="drop", label=catalog.label_source_added)
    with pytest.raises(catalog.CatalogError, match=r"found 2 truth tables \(.*truth_path="):
        read(tmp_path)
    path = tmp_path / "deep/image_catalog2.0train_corrigido.csv"
    table, counts = read(tmp_path, truth_path=path)
    assert table["label"].tolist() == [0]
    assert counts == catalog.CatalogCounts(1, 1, 0, 1)  # the other catalog
    with pytest.raises(catalog.CatalogError, match=r"found 0 truth tables \(none\)"):
        read(tmp_path / "deep/Public")
    sglc2(tmp_path, [("1", 1)], [])  # one in the folder itself comes before those below
    assert read(tmp_path)[0]["label"].tolist() == [1]


TASK_1 = {
    "layout": "{split}/{name}",
    "splits": ("train", "val"),
    "classes": {"no": 0, "sphere": 1, "vort": 2},
}
TASK_2 = {
    "layout": "{split}_{name}",
    "splits": ("train", "test"),
    "classes": {"nonlenses": 0, "lenses": 1},
}


@pytest.mark.parametrize("root", ["", "dataset", "a/b"])
def test_deeplense_task_1_is_labeled_by_its_folders(tmp_path, root):
    names = [f"{s}/{c}/{n}.npy" for s in ("val", "train") for c in ("vort", "no", "sphere")
             for n in (10, 2)]  # fmt: skip
    lay(tmp_path / root, *names)
    table, counts = catalog.read_class_folders(tmp_path, **TASK_1)
    assert table["object_id"].tolist() == sorted(name[:-4] for name in names)
    for row in table.itertuples():
        split, name, _ = row.object_id.split("/")
        assert (row.split, row.class_name) == (split, name)
        assert row.label == {"no": 0, "sphere": 1, "vort": 2}[name]
        assert row.path == str(tmp_path / root / f"{row.object_id}.npy")
    assert list(table) == ["object_id", "label", "split", "class_name", "path"]
    assert table["label"].dtype == np.int64
    assert counts == catalog.CatalogCounts(12, 12, 0, 0)


def test_deeplense_task_2_is_labeled_by_its_folders(tmp_path):
    lay(tmp_path, "train_lenses/1.npy", "train_nonlenses/1.npy", "test_lenses/1.npy",
        "test_nonlenses/1.npy", "test_nonlenses/00123.npy")  # fmt: skip
    table, _ = catalog.read_class_folders(tmp_path, **TASK_2)
    assert rows_of(table[["object_id", "label", "split", "class_name"]]) == {
        "object_id": ["test_lenses/1", "test_nonlenses/00123", "test_nonlenses/1",
                      "train_lenses/1", "train_nonlenses/1"],
        "label": [1, 0, 0, 1, 0],
        "split": ["test", "test", "test", "train", "train"],
        "class_name": ["lenses", "nonlenses", "nonlenses", "lenses", "nonlenses"],
    }  # fmt: skip


def test_other_files_beside_classes_are_extras(tmp_path):
    used = [
        f"{split}_{name}/1.npy" for split in ("train", "test") for name in ("lenses", "nonlenses")
    ]
    extra = ["README.md", "train_lenses/1.npz", "train_lenses/x/1.npy", "val_lenses/1.npy",
             "train_lenses/.npy", "__MACOSX/train_lenses/._1.npy", "1.npy"]  # fmt: skip
    lay(tmp_path, *used, *extra)
    table, counts = catalog.read_class_folders(tmp_path, **TASK_2)
    assert sorted(table["path"]) == sorted(str(tmp_path / name) for name in used)
    assert counts == catalog.CatalogCounts(4, 4, 0, len(extra))


def test_class_without_files_is_named(tmp_path):
    lay(tmp_path, "train/no/1.npy", "train/sphere/1.npy", "val/no/1.npy", "val/vort/1.npy")
    with pytest.raises(catalog.CatalogError, match="folder train/vort, val/sphere below it"):
        catalog.read_class_folders(tmp_path, **TASK_1)


@pytest.mark.parametrize("layout", ["{split}", "{name}", "x"])
def test_layout_that_mixes_classes_or_splits_is_refused(tmp_path, layout):
    with pytest.raises(ValueError, match="expected a folder for each split and class"):
        catalog.read_class_folders(tmp_path, **TASK_1 | {"layout": layout})


def test_class_folders_without_splits_need_one_name_for_it(tmp_path):
    lay(tmp_path, "no/1.npy", "sphere/1.npy", "vort/1.npy")
    one = {"layout": "{name}", "splits": ["all"]}
    table, _ = catalog.read_class_folders(tmp_path, **TASK_1 | one)
    assert table["object_id"].tolist() == ["no/1", "sphere/1", "vort/1"]
    assert table["split"].tolist() == ["all"] * 3


def test_the_same_class_folder_twice_names_both_files(tmp_path):
    lay(tmp_path, *(f"{root}/{s}/{c}/1.npy" for root in "ab" for s in ("train", "val")
                    for c in ("no", "sphere", "vort")))  # fmt: skip
    with pytest.raises(catalog.CatalogError) as caught:
        catalog.read_class_folders(tmp_path, **TASK_1)
    for root in "ab":
        assert str(tmp_path / root / "train/no/1.npy") in str(caught.value)
    assert "object_id train/no/1 twice" in str(caught.value)


@pytest.mark.parametrize("name", [b"a\n", b"\xff", b"a\x1b[0m"])
def test_file_name_that_cannot_be_printed_is_refused(tmp_path, name):
    lay(tmp_path, *(f"train/{c}/1.npy" for c in TASK_1["classes"]))
    path = os.path.join(os.fsencode(tmp_path), b"train/no", name + b".npy")
    with open(path, "wb"):
        pass
    with pytest.raises(catalog.CatalogError, match="cannot be printed") as caught:
        catalog.read_class_folders(tmp_path, **TASK_1 | {"splits": ["train"]})
    assert str(caught.value).isprintable()
