"""A user's table is read alike from every format, with its IDs exact and its files found."""

import csv
import os

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from cast_lens import catalog, object_tables

FORMATS = ["csv", "fits", "fits.gz", "vot", "xml"]


@pytest.fixture
def write(tmp_path):
    """Function that writes columns as a table of a format, with two images, and returns it."""

    def write(columns, suffix, name="table"):
        (tmp_path / "images").mkdir(exist_ok=True)
        for image in "ab":
            (tmp_path / f"images/{image}.fits").touch()
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "csv":
            with open(path, "w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values()))
        elif suffix.startswith("fits"):
            fits.table_to_hdu(Table(columns)).writeto(path, overwrite=True)
        elif suffix == "parquet":
            pd.DataFrame(columns).to_parquet(path)
        else:
            Table(columns).write(path, format="votable", overwrite=True)
        return path

    return write


def columns(**changes):
    plain = {"id_str": ["00123", "1e5"], "file_loc": ["images/a.fits", "images/b.fits"]}
    return plain | changes


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_reads_alike(write, tmp_path, suffix):
    path = write(columns(ra=[1.5, -2e-300], note=["x", "y"], lens=[1, 0]), suffix)
    table = catalog.read_table(path, label_column="lens", number_columns=["ra"])
    assert table.to_dict("list") == {
        "object_id": ["00123", "1e5"],
        "label": [1, 0],
        "path": [str(tmp_path / "images/a.fits"), str(tmp_path / "images/b.fits")],
        "ra": [1.5, -2e-300],
    }
    assert (table["label"].dtype, table["ra"].dtype) == (np.int64, np.float64)
    assert list(catalog.read_table(str(path))) == ["object_id", "path"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_ids_are_exact_text(write, suffix):
    ids = ["00123", "1e5", "1E400", "-0", "9" * 40, "102018212_-588199575513249872", "nan",
           "None", "True", "1_000", "a b", "=x", "#7", "1.0"]  # fmt: skip
    path = write({"name": ids, "file_loc": ["images/a.fits"] * len(ids)}, suffix)
    assert catalog.read_table(path, id_column="name")["object_id"].tolist() == ids


@pytest.mark.parametrize("suffix", FORMATS)
def test_ids_of_64_bits_are_exact(write, suffix):
    ids = np.array([2**63 - 1, 2**53 + 1, -(2**63) + 1, 0])
    path = write({"id_str": ids, "file_loc": ["images/a.fits"] * 4}, suffix)
    expected = ["9223372036854775807", "9007199254740993", "-9223372036854775807", "0"]
    assert catalog.read_table(path)["object_id"].tolist() == expected


@pytest.mark.parametrize("suffix", ["fits", "vot"])
def test_ids_that_went_through_floating_point_are_refused(write, suffix):
    with pytest.raises(
        catalog.CatalogError, match="row 1, column 'id_str': found '100000.0', .*no float"
    ):
        catalog.read_table(write(columns(id_str=[1e5, 2e5]), suffix))


def test_text_beyond_ascii_is_exact(write):
    ids = ["Ångström", "重力"]
    for suffix in ("csv", "vot"):
        assert catalog.read_table(write(columns(id_str=ids), suffix))["object_id"].tolist() == ids


@pytest.mark.parametrize("suffix", FORMATS)
def test_faults_name_their_row_and_column(write, suffix):
    unit, first = ("line", 2) if suffix == "csv" else ("row", 1)
    for changes, row, parts in (
        ({"id_str": ["a", "a"]}, 1, ["'id_str'", "'a'", f"{unit} {first} too"]),
        ({"id_str": ["a", " b"]}, 1, ["'id_str'", "' b'"]),
        ({"file_loc": ["images/a.fits", ""]}, 1, ["'file_loc'", "''", "path of a file"]),
        ({"file_loc": ["x/a.fits", "x/b.fits"]}, 0, ["'x/a.fits'", "there is no", "/x/a.fits"]),
        ({"lens": [0, 2]}, 1, ["'lens'", "'2'"]),
        ({"lens": ["x", "1"]}, 0, ["'lens'", "'x'"]),
        ({"ra": ["1", "x"]}, 1, ["'ra'", "'x'"]),
        ({"ra": [1.0, -1e130]}, 1, ["'ra'", "'-1e+130'"]),
    ):
        if suffix in ("vot", "xml") and " b" in str(changes):
            continue  # astropy strips blanks there
        path = write(columns(**{"lens": [0, 1], "ra": [1.0, 2.0]} | changes), suffix)
        with pytest.raises(catalog.CatalogError) as caught:
            catalog.read_table(path, label_column="lens", number_columns=["ra"])
        message = str(caught.value)
        assert message.startswith(f"{path}, {unit} {first + row}, column ")
        assert all(part in message for part in parts), message


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_column_is_named_with_the_nearest(write, suffix):
    path = write({"ID_str": ["a"], "file_location": ["images/a.fits"], "x": [0]}, suffix)
    for keywords, name, near in (
        ({}, "id_str", "ID_str"),
        ({"id_column": "ID_str"}, "file_loc", "file_location"),
        ({"id_column": "ID_str", "path_column": "file_location", "label_column": "X"}, "X", "x"),
    ):
        with pytest.raises(catalog.CatalogError) as caught:
            catalog.read_table(path, **keywords)
        assert f"column {name!r}: found no such column" in str(caught.value)
        assert repr(near) in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_masked_and_nan_numbers_are_nan_and_masked_ids_are_refused(write, suffix):
    values = ["1.5", ""] if suffix == "csv" else MaskedColumn([1.5, 2.5], mask=[False, True])
    table = catalog.read_table(write(columns(ra=values), suffix), number_columns=["ra"])
    assert table["ra"][0] == 1.5 and np.isnan(table["ra"][1])
    table = catalog.read_table(write(columns(ra=[1.5, np.nan]), suffix), number_columns=["ra"])
    assert table["ra"][0] == 1.5 and np.isnan(table["ra"][1])
    ids = ["7", ""] if suffix == "csv" else MaskedColumn([7, 8], mask=[False, True])
    with pytest.raises(catalog.CatalogError, match="column 'id_str': found ''"):
        catalog.read_table(write(columns(id_str=ids), suffix))


@pytest.mark.parametrize("suffix", ["fits", "vot"])
def test_true_and_false_are_labels(write, suffix):
    path = write(columns(lens=[True, False]), suffix)
    assert catalog.read_table(path, label_column="lens")["label"].tolist() == [1, 0]


@pytest.mark.parametrize("suffix", ["fits", "vot"])
def test_column_of_arrays_is_refused(write, suffix):
    path = write(columns(ra=np.zeros((2, 3))), suffix)
    with pytest.raises(catalog.CatalogError, match=r"row 1, column 'ra': found '\[0.0, .* no list"):
        catalog.read_table(path, number_columns=["ra"])


def test_relative_paths_start_at_the_table_and_absolute_ones_stay(write, tmp_path, monkeypatch):
    path = write(columns(file_loc=["images/a.fits", str(tmp_path / "images/b.fits")]), "csv")
    monkeypatch.chdir(tmp_path.parent)
    expected = [str(tmp_path / "images/a.fits"), str(tmp_path / "images/b.fits")]
    assert catalog.read_table(path)["path"].tolist() == expected
    relative = os.path.join(tmp_path.name, "table.csv")
    found = catalog.read_table(relative)["path"].tolist()
    assert [os.path.abspath(name) for name in found] == expected


def test_one_file_that_exists_is_enough(write, tmp_path):
    path = write(columns(file_loc=["images/a.fits", "images/gone.fits"]), "csv")
    assert catalog.read_table(path)["path"][1] == str(tmp_path / "images/gone.fits")


def votable(*fields):
    declared = "".join(f"<FIELD {attributes}/>" for attributes, _ in fields)
    cells = "".join(f"<TD>{text}</TD>" for _, text in fields)
    return (
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f"{declared}<DATA><TABLEDATA><TR>{cells}</TR></TABLEDATA></DATA>"
        "</TABLE></RESOURCE></VOTABLE>"
    )


FILE = ('name="file_loc" datatype="char" arraysize="*"', "a")


def test_votable_columns_go_by_their_names(tmp_path):
    (tmp_path / "a").touch()
    text = 'ID="c1" name="id_str" datatype="char" arraysize="*"'
    (tmp_path / "t.xml").write_text(votable((text, "007"), FILE))
    assert catalog.read_table(tmp_path / "t.xml")["object_id"].tolist() == ["007"]


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ('datatype="int"', "99999999999"),
        ('datatype="long"', str(2**63)),
        ('datatype="char" arraysize="3"', "abcd"),
        ('datatype="unicodeChar" arraysize="2*"', "abcd"),
        ('datatype="char"', "abcd"),
        ('datatype="int"', "1.5"),
        ('datatype="int"', "x"),
    ],
)
def test_id_that_the_type_of_its_votable_column_would_change_is_refused(tmp_path, kind, cell):
    (tmp_path / "a").touch()
    (tmp_path / "t.xml").write_text(votable((f'name="id_str" {kind}', cell), FILE))
    with pytest.raises(catalog.CatalogError, match="found no votable table that can be read"):
        catalog.read_table(tmp_path / "t.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("note", ["", ' rights="a>b"'])
def test_votable_never_opens_what_it_names(tmp_path, monkeypatch, encoding, note):
    def refuse(*_):
        raise AssertionError("opened")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (tmp_path / "other").write_bytes(b"\0" * 99)
    (tmp_path / "t.xml").write_bytes(
        (
            f'<?xml version="1.0" encoding="{encoding}"?>\n'
            '<v:VOTABLE version="1.4" xmlns:v="http://www.ivoa.net/xml/VOTable/v1.3"><v:RESOURCE>'
            '<v:TABLE><v:FIELD name="id_str" datatype="int"/>\n<v:DATA><v:BINARY>'
            f'<v:STREAM{note} href="file://{tmp_path}/other"/></v:BINARY></v:DATA>'
            "</v:TABLE></v:RESOURCE></v:VOTABLE>"
        ).encode(encoding)
    )
    with pytest.raises(catalog.CatalogError, match="line 3: found data kept in 'file:"):
        catalog.read_table(tmp_path / "t.xml")


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "vot", "parquet"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [b"", b"x", b"<html>404</html>", b"SIMPLE  = T", b"PAR1"])
def test_what_is_no_table_is_refused_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(catalog.CatalogError) as caught:
        catalog.read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_table_cut_short_is_refused(write):
    ids = [f"{n:0100}" for n in range(40)]
    for suffix, end in (("fits", 2 * 2880 + 40 * (100 + 13)), ("vot", -12)):
        path = write({"id_str": ids, "file_loc": ["images/a.fits"] * 40}, suffix)
        whole = path.read_bytes()
        assert len(catalog.read_table(path)) == 40
        for cut in [*range(0, len(whole[:end]), 97), len(whole[:end]) - 1]:
            path.write_bytes(whole[:cut])
            with pytest.raises(catalog.CatalogError):
                catalog.read_table(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_table_without_rows_is_refused(write, suffix):
    path = write({"id_str": np.array([], "U3"), "file_loc": np.array([], "U3")}, suffix)
    with pytest.raises(catalog.CatalogError, match="found no objects"):
        catalog.read_table(path)


@pytest.mark.parametrize("name", ["t.fits", "t.xml", "t.csv", "t.parquet"])
def test_no_file_no_folder_and_no_fifo(tmp_path, name):
    with pytest.raises(catalog.CatalogError, match="no such file"):
        catalog.read_table(tmp_path / name)
    os.mkfifo(tmp_path / name)
    with pytest.raises(catalog.CatalogError, match="no such file"):
        catalog.read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["t.txt", "t", "t.xlsx", "csv"])
def test_other_suffix_is_refused_with_those_there_are(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(catalog.CatalogError, match=r"expected one of \.csv, \.fits.* \.parquet"):
        catalog.read_table(tmp_path / name)


def test_parquet_reads_like_the_others(write, tmp_path):
    for ids, expected in (
        (["00123", "1e5"], ["00123", "1e5"]),
        ([2**63 - 1, 7], [str(2**63 - 1), "7"]),
    ):
        path = write(columns(id_str=ids, ra=[1.5, None], lens=[True, False]), "parquet")
        table = catalog.read_table(path, label_column="lens", number_columns=["ra"])
        assert table["object_id"].tolist() == expected
        assert table["label"].tolist() == [1, 0]
        assert table["path"].tolist() == [str(tmp_path / f"images/{n}.fits") for n in "ab"]
        assert table["ra"][0] == 1.5 and np.isnan(table["ra"][1])
    frame = pd.DataFrame(columns()).set_index("id_str")
    frame.to_parquet(tmp_path / "t.parquet")
    assert catalog.read_table(tmp_path / "t.parquet")["object_id"].tolist() == ["00123", "1e5"]
    with pytest.raises(catalog.CatalogError, match="row 1, column 'id_str': .* no float"):
        catalog.read_table(write(columns(id_str=[1.0, None]), "parquet"))


def test_ids_that_are_the_index_of_a_data_frame_are_found(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    (tmp_path / "t.parquet").touch()
    frame = pd.DataFrame({"id_str": ["00123"], "file_loc": ["a"]})
    for index in ("id_str", "file_loc"):
        monkeypatch.setattr(pd, "read_parquet", lambda _, index=index: frame.set_index(index))
        table = catalog.read_table(tmp_path / "t.parquet")
        assert table.to_dict("list") == {"object_id": ["00123"], "path": [str(tmp_path / "a")]}


@pytest.mark.parametrize(
    "cause, told",
    [(OSError("cut\n short"), "OSError: cut short"), (KeyError("x"), "KeyError: 'x'"),
     (StopIteration(), "StopIteration: ")],
)  # fmt: skip
def test_whatever_a_reader_raises_becomes_one_line_that_says_what_to_do(cause, told):
    reading = object_tables.reading("t.fits", "FITS table", catalog.CatalogError)
    with pytest.raises(catalog.CatalogError) as caught, reading:
        raise cause
    assert str(caught.value) == (
        f"t.fits: found no FITS table that can be read ({told}), expected one; get the file again, "
        "or save it as CSV"
    )
    assert caught.value.__cause__ is cause


def test_an_error_that_says_more_passes_a_reader_as_it_is():
    said = catalog.CatalogError("line 3: found x, expected y")
    reading = object_tables.reading("t.fits", "FITS table", catalog.CatalogError)
    with pytest.raises(catalog.CatalogError) as caught, reading:
        raise said
    assert caught.value is said
