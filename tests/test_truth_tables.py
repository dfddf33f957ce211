"""The II SGLC catalog is read exactly or refused at its line, and labels follow their rules."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest

from cast_lens import catalog

HEADER = (
    ",ID,x_crit,y_crit,source_ID,z_source,z_lens,mag_source,ein_area,n_crit,r_source,crit_area,"
    "n_pix_source,source_flux,n_pix_lens,lens_flux,n_source_im,mag_eff,sb_contrast,color_diff,"
    "n_gal_3,n_gal_5,n_gal_10,halo_mass,star_mass,mag_lens,n_sources\n"
)  # as the published file has it
NAMES = HEADER.strip().split(",")[2:]
COUNTS = {name for name in NAMES if name.startswith("n_")}
ROW = dict(zip(NAMES, [f"{n}.5e-1" for n in range(25)])) | dict.fromkeys(COUNTS, "3")
ROW |= {"source_ID": "007", "n_sources": "1", "n_crit": "12"}


def line(object_id, number=0, **changes):
    return ",".join([str(number), object_id, *(ROW | changes).values()]) + "\n"


@pytest.fixture
def read(tmp_path):
    """Function that reads lines of a catalog below its comments and header."""

    def read(*lines, header="# c\n" * 28 + HEADER, duplicates="drop", encoding="utf-8"):
        path = tmp_path / "image_catalog2.0train.csv"
        path.write_bytes((header + "".join(lines)).encode(encoding))
        return catalog.read_sglc2_catalog(path, duplicates=duplicates)

    return read


def test_catalog_has_the_columns_of_the_file_with_their_types(read):
    table = read(line("200000"), line("00123", 1, n_crit="1e+02", mag_lens="-21"))
    assert list(table) == ["object_id", *NAMES]
    assert table["object_id"].tolist() == ["200000", "00123"]
    assert table["source_ID"].tolist() == ["007", "007"]
    for name in set(NAMES) - {"source_ID"}:
        assert table[name].dtype == (np.int64 if name in COUNTS else np.float64), name
    assert table["n_crit"].tolist() == [12, 100]
    assert table["mag_lens"].tolist() == [2.35, -21]  # the 24th column of ROW is 23.5e-1
    assert table["x_crit"][0] == 0.05


@pytest.mark.parametrize("text", ["", "nan", "NaN", "-nan", "NA"])
def test_magnification_alone_may_be_nan(read, text):
    assert np.isnan(read(line("1", mag_eff=text))["mag_eff"][0])
    for name in sorted(set(NAMES) - {"mag_eff", "source_ID"}):
        with pytest.raises(catalog.CatalogError, match=f"line 31, column '{name}': found '{text}'"):
            read(line("1"), line("2", **{name: text}))


@pytest.mark.parametrize("text", ["-1e130", "-1.0e+130", "-1E130"])
def test_contrast_alone_may_be_unmeasured_and_becomes_nan(read, text):
    table = read(line("1", sb_contrast=text), line("2"))
    assert np.isnan(table["sb_contrast"][0])
    assert table["sb_contrast"][1] == 1.65
    assert table.drop(columns="sb_contrast").notna().all(axis=None)
    for name in ("mag_eff", "color_diff", "halo_mass", "n_pix_source"):
        with pytest.raises(catalog.CatalogError, match=f"line 30, column '{name}'"):
            read(line("1", **{name: text}))


@pytest.mark.parametrize(
    "changes",
    [
        {"mag_eff": "inf"}, {"mag_eff": "none"}, {"sb_contrast": "nan"}, {"sb_contrast": "-1e400"},
        {"n_sources": "0.5"}, {"n_pix_source": "-1"}, {"n_gal_3": "1e300"}, {"source_ID": ""},
        {"z_lens": "1_0"},
    ],
)  # fmt: skip
def test_other_cells_are_refused_at_their_line_and_column(read, changes):
    ((name, found),) = changes.items()
    with pytest.raises(catalog.CatalogError) as caught:
        read(line("1"), "\n", line("2", **changes))
    assert f"line 32, column {name!r}: found {found!r}" in str(caught.value)


@pytest.mark.parametrize("name", ["ID", *NAMES])
def test_missing_column_is_named_with_the_nearest(read, name):
    header = HEADER.replace(f",{name}", f",{name.title()}x", 1)
    with pytest.raises(catalog.CatalogError) as caught:
        read(line("1"), header="#\n" + header)
    assert f"line 2, column {name!r}: found no such column" in str(caught.value)
    assert repr(name.title() + "x") in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "#\n" * 26 + HEADER,
        "\ufeff# \x22a, ID\n\n#\n" + HEADER,
        HEADER.replace(",ID", "row,ID"),
        '"' + HEADER.strip().replace(",", '","') + '"\n',
    ],
)
def test_comments_and_quotes_change_nothing(read, header):
    pd.testing.assert_frame_equal(read(line("1"), header=header), read(line("1")))


def test_corrected_copy_without_row_index_reads_alike(read):
    lines = line("1").partition(",")[2], line("2").partition(",")[2]
    pd.testing.assert_frame_equal(read(*lines, header=HEADER[1:]), read(line("1"), line("2")))


TWICE = [line("210000", mag_eff="2"), line("5"), line("210000", 2, mag_eff="3"), line("290000")]


@pytest.mark.parametrize(
    ("duplicates", "kept"),
    [
        ("drop", {"5": 1.55, "290000": 1.55}),
        ("first", {"210000": 2, "5": 1.55, "290000": 1.55}),
        ("last", {"5": 1.55, "210000": 3, "290000": 1.55}),
    ],
)
def test_published_duplicates_follow_the_policy_and_are_counted(read, duplicates, kept):
    with pytest.warns(UserWarning) as caught:
        table = read(*TWICE, duplicates=duplicates)
    assert dict(zip(table["object_id"], table["mag_eff"])) == kept
    assert list(table["object_id"]) == list(kept)
    assert table.index.tolist() == list(range(len(kept)))
    (warning,) = caught
    assert f"{4 - len(kept)} of 4 rows dropped" in str(warning.message)
    assert str(warning.message).endswith(": 210000")
    assert warning.filename == __file__


def test_nothing_dropped_says_nothing(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(line("210000"), line("220000"))) == 2


def test_there_are_nine_published_duplicates():
    assert sorted(catalog.SGLC2_TWICE) == [f"2{n}0000" for n in range(1, 10)]


@pytest.mark.parametrize("duplicates", ["drop", "first", "last"])
def test_other_duplicates_are_refused_with_both_lines(read, duplicates):
    with pytest.raises(catalog.CatalogError, match=r"line 32, .*'5', .* on line 30 too"):
        read(line("5"), line("6"), line("5"), duplicates=duplicates)
    with pytest.raises(catalog.CatalogError, match=r"line 33, .*'210000', .* line 30 and 32 too"):
        read(*TWICE[:3], TWICE[0], duplicates=duplicates)


def test_policy_for_duplicates_has_no_default(read, tmp_path):
    with pytest.raises(TypeError):
        catalog.read_sglc2_catalog(tmp_path / "x")
    with pytest.raises(ValueError, match="'mean', expected one of drop, first, last"):
        read(line("1"), duplicates="mean")


def test_latin_1_outside_the_columns_changes_nothing(read):
    table = read(
        line("1"), header=f"# \xe9\n{HEADER.replace(',ID', 'row é,ID')}", encoding="latin-1"
    )
    pd.testing.assert_frame_equal(table, read(line("1")))


TRUTH = pd.DataFrame(
    [
        # n_source_im, mag_eff, n_pix_source, n_sources; official, added, 50 pixels
        (1, 1.7, 21, 1, 1, 1, 0),
        (0, 1.7, 21, 1, 0, 1, 0),
        (1, 1.6, 21, 1, 0, 1, 0),
        (1, 1.7, 20, 1, 0, 1, 0),
        (3, 9.9, 50, 1, 1, 1, 1),
        (1, np.nan, 49, 1, 0, 1, 0),
        (0, np.nan, 0, 0, 0, 0, 0),
        (1, 1.5, 900, 0, 0, 0, 1),
    ],
    columns=["n_source_im", "mag_eff", "n_pix_source", "n_sources", "official", "added", "n50"],
)
TRUTH.insert(0, "object_id", list("abcdefgh"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (catalog.label_sglc2_official, "official"),
        (catalog.label_source_added, "added"),
        (lambda table: catalog.label_n_pix(table, minimum=50), "n50"),
    ],
)
def test_labels_are_those_by_hand(rule, expected):
    labels = rule(TRUTH)
    assert labels.tolist() == TRUTH[expected].tolist()
    assert isinstance(labels, np.ndarray) and labels.dtype == np.int64
    # Row by row, and in any order and index.
    shuffled = TRUTH.sample(frac=1, random_state=0)
    assert rule(shuffled).tolist() == shuffled[expected].tolist()


def test_pixels_of_the_first_challenge_label_too():
    table = pd.DataFrame({"n_pix_lensed": [0, 19, 20]})
    assert catalog.label_n_pix(table, minimum=20, column="n_pix_lensed").tolist() == [0, 0, 1]


@pytest.mark.parametrize("minimum", [0, -1, float("nan")])
def test_minimum_that_every_object_meets_is_refused(minimum):
    with pytest.raises(ValueError, match="expected at least 1 pixel"):
        catalog.label_n_pix(TRUTH, minimum=minimum)


def test_labels_need_their_columns_and_name_the_nearest():
    for rule, column in (
        (catalog.label_sglc2_official, "mag_eff"),
        (catalog.label_source_added, "n_sources"),
        (lambda table: catalog.label_n_pix(table, minimum=1), "n_pix_source"),
    ):
        with pytest.raises(catalog.CatalogError, match=f"{column!r}: .* nearest .*'x_{column}'"):
            rule(TRUTH.rename(columns={column: f"x_{column}"}))


def test_other_number_of_sources_is_no_label():
    table = TRUTH.assign(n_sources=[1, 0, 1, 2, 0, 1, 1, 3])
    with pytest.raises(catalog.CatalogError, match="object_id d: found n_sources 2, expected 0 or"):
        catalog.label_source_added(table)


@pytest.mark.slow
def test_catalog_of_the_published_size_takes_seconds(read):
    ids = [str(n) for n in range(200000, 300000)] + sorted(catalog.SGLC2_TWICE)
    rows = [line(object_id, n) for n, object_id in enumerate(ids)]
    start = time.perf_counter()
    with pytest.warns(UserWarning, match="18 of 100009 rows"):
        table = read(*rows)
    assert time.perf_counter() - start < 15  # 3.4 s on one core of an idle machine
    assert table.shape == (99991, 26)
