"""Generated tables and folders: read as they were generated, or refused at the very cell."""

import csv
import io
import math
import random
import re
import warnings
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cast_lens import catalog
from tests.test_truth_tables import COUNTS, HEADER, NAMES, ROW, line

generated = settings(max_examples=60, deadline=None, derandomize=True, database=None)

NEWLINE = re.compile(r"\r\n|\r|\n")
FLOATS = [name for name in NAMES if name not in COUNTS and name != "source_ID"]
numbers = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x != -1e130)
counts = st.integers(0, 2**53)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ids = st.text(min_size=1, max_size=12).filter(lambda s: s.isprintable() and s == s.strip())
comments = st.lists(text.map(lambda t: "# " + NEWLINE.sub(" ", t)) | st.just(""), max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder in which every example may overwrite the last."""
    return tmp_path_factory.mktemp("generated")


def read(path, content, duplicates="drop"):
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return catalog.read_sglc2_catalog(path, duplicates=duplicates)


@st.composite
def tables(draw):
    """Draw (object IDs, {column: values}) of an II SGLC catalog."""
    names = draw(st.lists(ids.filter(lambda i: i not in catalog.SGLC2_TWICE), min_size=1,
                          max_size=5, unique=True))  # fmt: skip
    cell = {name: counts if name in COUNTS else numbers for name in NAMES}
    cell |= {"source_ID": ids, "mag_eff": numbers | st.just(math.nan)}
    cell["sb_contrast"] = numbers | st.just(-1e130)
    size = len(names)
    return names, {n: draw(st.lists(c, min_size=size, max_size=size)) for n, c in cell.items()}


def written(value, style):
    if isinstance(value, float) and math.isfinite(value):
        return format(value, style)
    return str(value)


@generated
@given(tables(), comments, st.data())
def test_catalog_of_any_form_reads_as_generated(folder, table, above, data):
    names, columns = table
    extra = data.draw(st.lists(text, min_size=len(names), max_size=len(names)))
    every = {"": range(len(names)), "ID": names, "a note": extra} | columns
    order = data.draw(st.permutations(list(every)))
    style = data.draw(st.sampled_from(["", ".17g", ".17e", "+.17E"]))
    newline = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    if NEWLINE.search("".join(extra)):
        quoting = csv.QUOTE_ALL  # before Python 3.13 QUOTE_MINIMAL leaves some line ends bare
    stream = io.StringIO(newline="")
    stream.write(data.draw(st.sampled_from(["", "\ufeff"])))
    stream.writelines(comment + newline for comment in above)
    writer = csv.writer(stream, lineterminator=newline, quoting=quoting)
    writer.writerow(order)
    for row in zip(*(every[name] for name in order)):
        writer.writerow([written(value, style) for value in row])
    found = read(folder / "c.csv", stream.getvalue().encode())
    assert found["object_id"].tolist() == names
    assert found["source_ID"].tolist() == columns["source_ID"]
    for name in {*COUNTS, *FLOATS}:
        expected = np.array(columns[name])
        if name == "sb_contrast":
            expected[expected == -1e130] = np.nan
        assert found[name].dtype == (np.int64 if name in COUNTS else np.float64)
        assert np.array_equal(found[name], expected, equal_nan=name not in COUNTS), name


BAD = {
    "count": ["", "nan", "-1", "0.5", "x", "1e17", "-1e130", "1_0", "\u0661", "inf", "1 2"],
    "float": ["", "nan", "NA", "x", "inf", "-inf", "1e999", "1,5", "1_0", "0x10", "\u0661"],
    "mag_eff": ["inf", "x", "-1e130", "none", "1,5", "1e999", "\u0661"],
    "sb_contrast": ["", "nan", "x", "-inf", "1e999", "1_0"],
    "ID": ["", " 1", "1 ", "a\nb", "\x1b", "a\u00a0b", "\u200b"],
}


@generated
@given(st.data(), comments, st.lists(text, min_size=4, max_size=4))
def test_one_bad_cell_is_refused_at_its_line_and_column(folder, data, above, notes):
    column = data.draw(st.sampled_from(["ID", *COUNTS, *FLOATS]))
    kind = "count" if column in COUNTS else "float"
    bad = data.draw(st.sampled_from(BAD.get(column, BAD[kind])))
    row = data.draw(st.integers(0, 3))
    order = data.draw(st.permutations(["ID", "note", *NAMES]))
    newline = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    content = "".join(comment + newline for comment in above) + ",".join(order) + newline
    for number in range(4):
        cells = ROW | {"ID": str(number), "note": notes[number]}
        before = [cells[name] for name in order[: order.index(column)]]
        if number == row:
            start = content + ",".join(map(quoted, before)) + ","
            cells[column] = bad
        content += ",".join(quoted(cells[name]) for name in order) + newline
    expected_line = len(NEWLINE.findall(start)) + 1
    with pytest.raises(catalog.CatalogError) as caught:
        read(folder / "c.csv", content.encode())
    where = f"{folder / 'c.csv'}, line {expected_line}, column {column!r}: found {bad!r}, "
    assert str(caught.value).startswith(where)


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@generated
@given(
    st.lists(st.sampled_from(["210000", "290000", "5", "6"]), min_size=1, max_size=6),
    st.sampled_from(["drop", "first", "last"]),
)
def test_duplicates_follow_the_policy_or_are_refused_with_every_line(folder, names, duplicates):
    content = HEADER + "".join(line(n, x_crit=str(k)) for k, n in enumerate(names))
    limits = {name: 2 if name in {"210000", "290000"} else 1 for name in names}
    seen = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if seen[name] > limits[name]:
            earlier = [str(k + 2) for k in range(number) if names[k] == name]
            with pytest.raises(catalog.CatalogError) as caught:
                read(folder / "c.csv", content.encode(), duplicates)
            assert f"line {number + 2}, column 'ID': found {name!r}" in str(caught.value)
            assert f"on line {' and '.join(earlier)} too" in str(caught.value)
            return
    keep = [
        k
        for k, name in enumerate(names)
        if names.count(name) == 1
        or (duplicates == "first" and k == names.index(name))
        or (duplicates == "last" and name not in names[k + 1 :])
    ]
    if not keep:
        return
    found = read(folder / "c.csv", content.encode(), duplicates)
    assert found["object_id"].tolist() == [names[k] for k in keep]
    assert found["x_crit"].tolist() == keep


@generated
@given(st.sampled_from(["ID", *NAMES]), st.booleans(), st.integers(0, 30), st.data())
def test_lost_or_doubled_column_is_named(folder, name, doubled, n_comments, data):
    header = HEADER.strip().split(",")
    other = data.draw(st.sampled_from([n for n in header if n != name])) if doubled else "other"
    rows = [header, line("1").strip().split(",")]
    if doubled:
        rows[0] = [name if n == other else n for n in header]
    else:
        rows[0] = [other if n == name else n for n in header]
    content = "#\n" * n_comments + "".join(",".join(row) + "\n" for row in rows)
    with pytest.raises(catalog.CatalogError) as caught:
        read(folder / "c.csv", content.encode())
    assert f"line {n_comments + 1}, column" in str(caught.value)
    # Doubling a column loses another; either is the one to report.
    assert any(f"column {n!r}: found" in str(caught.value) for n in {name, other})


@generated
@given(st.lists(ids, min_size=1, max_size=8, unique=True))
def test_any_printable_id_survives_csv_and_votable(folder, names):
    (folder / "a").touch()
    table = {"id_str": names, "file_loc": ["a"] * len(names)}
    pd.DataFrame(table).to_csv(folder / "t.csv", index=False)
    assert catalog.read_table(folder / "t.csv")["object_id"].tolist() == names
    Table({name: np.array(values, dtype=str) for name, values in table.items()}).write(
        folder / "t.xml", format="votable", overwrite=True
    )
    assert catalog.read_table(folder / "t.xml")["object_id"].tolist() == names


@generated
@given(st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=8, unique=True), st.booleans())
def test_whole_numbers_of_any_length_are_exact_ids(folder, numbers, padded):
    (folder / "a").touch()
    names = [str(n).zfill(40) if padded else str(n) for n in numbers]
    (folder / "t.csv").write_text("id_str,file_loc\n" + "".join(f"{n},a\n" for n in names))
    assert catalog.read_table(folder / "t.csv")["object_id"].tolist() == names
    within = [n for n in numbers if abs(n) < 2**63] or [2**63 - 1]
    columns = {"id_str": np.array(within, np.int64), "file_loc": ["a"] * len(within)}
    for suffix, format_ in (("fits", "fits"), ("vot", "votable")):
        path = folder / f"t.{suffix}"
        Table(columns).write(path, format=format_, overwrite=True)
        assert catalog.read_table(path)["object_id"].tolist() == [str(n) for n in within]


numbered = st.integers(0, 30).map(str)


@settings(generated, max_examples=30)
@given(
    st.lists(numbered, min_size=1, max_size=12, unique=True),
    st.sets(st.tuples(numbered, st.sampled_from(["VIS", "Y", "J", "H"])), max_size=40),
    st.sets(st.sampled_from(["README", "Public/x.txt", "imageEUC_VIS-x.fits"])),
    st.integers(),
)
def test_every_object_and_file_is_counted_once(tmp_path_factory, rows, files, others, seed):
    assume(any(object_id in rows for object_id, _ in files))
    root = tmp_path_factory.mktemp("survey")
    rng = random.Random(seed)
    for object_id, band in files:
        place = root / rng.choice(["", "Public", f"Public/EUC_{band}", "a/b"])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"imageEUC_{band}-{object_id}.fits").touch()
    (root / "Public").mkdir(exist_ok=True)
    for name in others:
        (root / name).touch()
    (root / "image_catalog2.0train.csv").write_text(HEADER + "".join(map(line, rows)))
    join = partial(catalog.read_sglc2, root, duplicates="drop", label=catalog.label_source_added)
    table, found = join()
    with_files = {object_id for object_id, _ in files} & set(rows)
    unused = [object_id for object_id, _ in files if object_id not in rows]
    assert found.n_catalog == len(rows) == found.n_candidates + found.n_missing
    assert found.n_candidates == len(with_files)
    assert found.n_extra_files == len(unused) + len(others)
    assert table["object_id"].tolist() == rows
    for column in [name for name in table if name.startswith("path_")]:
        band = column.removeprefix("path_")
        for object_id, path in zip(table["object_id"], table[column]):
            assert (path is not None) == ((object_id, band) in files)
            assert path is None or path.endswith(f"/imageEUC_{band}-{object_id}.fits")
    if len(with_files) < len(rows):
        with pytest.raises(catalog.CatalogError, match="no image of object_id"):
            join(strict=True)


@generated
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([math.nan, 1.6, 1.6000001, 0.0, -2.0, math.inf]) | st.floats(),
            st.sampled_from([19, 20, 21]) | st.integers(0, 10**9),
            st.integers(0, 1),
        ),
        max_size=20,
    ),
    st.integers(1, 10**6),
)
def test_labels_are_those_of_a_loop(rows, minimum):
    table = pd.DataFrame(rows, columns=["n_source_im", "mag_eff", "n_pix_source", "n_sources"])
    official = [int(im > 0 and mag > 1.6 and pix > 20) for im, mag, pix, _ in rows]
    assert catalog.label_sglc2_official(table).tolist() == official
    assert catalog.label_n_pix(table, minimum=minimum).tolist() == [
        int(row[2] >= minimum) for row in rows
    ]
    assert catalog.label_source_added(table).tolist() == [row[3] for row in rows]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["csv", "fits", "vot"])
def test_damaged_object_table_is_refused_or_read_but_never_anything_else(folder, suffix):
    (folder / "a").touch()
    path, rng = folder / f"damaged.{suffix}", random.Random(0)
    columns = {"id_str": ["a1", "b2", "c3"], "file_loc": ["a"] * 3, "lens": [0, 1, 1]}
    formats = {"csv": "ascii.csv", "fits": "fits", "vot": "votable"}
    Table(columns).write(path, format=formats[suffix], overwrite=True)
    whole = path.read_bytes().rstrip(b"\0")
    outcomes = Counter()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(damaged))
            insert = rng.choice([b"", b'"', b",", b"\n", b"<", b"\xff", b"9", b"\0", b">", b"/"])
            damaged[at : at + (1 if suffix == "fits" else rng.randint(0, 3))] = insert
        path.write_bytes(damaged + b"\0" * (2880 - len(damaged) % 2880) * (suffix == "fits"))
        try:
            table = catalog.read_table(path, label_column="lens")
        except catalog.CatalogError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert table["label"].isin([0, 1]).all()
            assert table["object_id"].is_unique and table["object_id"].map(str.isprintable).all()
            outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 0, outcomes
