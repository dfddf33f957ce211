"""A pool is read exactly, in bounded memory, from whatever holds it, or not at all."""

import os
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_lens import pools
from cast_lens.scores import escape_cell
from cast_lens.tarball import ArchiveError
from cast_lens.text_tables import CatalogError

IDS = ["00123", "123", "1e5", "9" * 30, "-5", "=cmd|' /C calc'!A0", "@x", 'a,"b";c', "é", "<b>"]
NAMES = [f"feat_{k}" for k in range(12)]  # ten and up: by number, not by letter


def values(n=10):
    return np.random.default_rng(0).normal(size=(n, 12)).astype(np.float32)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Parts of three rows, so that every table has several."""
    monkeypatch.setattr(pools, "ROWS", 3)


def frame(ids=IDS, features=None):
    table = pd.DataFrame(values(len(ids)) if features is None else features, columns=NAMES)
    table = table[sorted(NAMES)]  # feat_0, feat_1, feat_10, ...
    table.insert(3, "id_str", list(ids))
    table["label"] = 1
    return table


def save(table, path):
    if path.suffix == ".csv":
        table.to_csv(path, index=False, float_format="%.9g")
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        columns = []
        for name in table:
            array, kind = table[name].to_numpy(), "D"
            if array.dtype.kind == "i":
                kind = "K"
            elif array.dtype.kind != "f":
                array = np.array([text.encode() for text in array])
                kind = f"{array.dtype.itemsize}A"
            columns.append(fits.Column(name, kind, array=array))
        fits.BinTableHDU.from_columns(columns).writeto(path)
    return path


SUFFIXES = [".csv", ".fits", ".parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_table_gives_ids_and_features_exactly(tmp_path, suffix):
    ids = [name for name in IDS if name.isascii() or suffix != ".fits"]
    pool = pools.open_pool(save(frame(ids), tmp_path / f"pool{suffix}"))
    assert list(pool.object_ids) == ids
    assert pool.features.dtype == np.float32
    assert np.array_equal(pool.features, values(len(ids)))
    assert pool.n_left_out == 0


@pytest.mark.parametrize("suffix", [".fits", ".parquet"])
def test_whole_numbers_are_ids_with_all_digits_and_others_are_not(tmp_path, suffix):
    table = frame([str(k) for k in range(5)]).assign(id_str=2**62 + np.arange(5))
    pool = pools.open_pool(save(table, tmp_path / f"pool{suffix}"))
    assert list(pool.object_ids) == [str(2**62 + k) for k in range(5)]
    odd = save(table.assign(id_str=np.arange(5.0)), tmp_path / f"odd{suffix}")
    with pytest.raises(CatalogError, match="odd.*row 1, column 'id_str': found 0.0, expected an"):
        pools.open_pool(odd)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8, unique=True))
def test_any_visible_id_comes_back_exactly(tmp_path_factory, names):
    names = [name for name in names if name.isprintable() and name == name.strip()] or ["00"]
    path = tmp_path_factory.mktemp("pool") / "pool.csv"
    lines = [f'"{escape_cell(n).replace(chr(34), chr(34) * 2)}",{k}' for k, n in enumerate(names)]
    path.write_text("\n".join(["object_id,feat_0", *lines]) + "\n", encoding="utf-8")
    pool = pools.open_pool(path)
    assert list(pool.object_ids) == names
    assert pool.features[:, 0].tolist() == list(range(len(names)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -1e130])
def test_feature_that_is_no_number_names_object_and_column_or_is_left_out(tmp_path, suffix, bad):
    features = values(7).astype(np.float64)
    features[4, 11], features[6, 0] = bad, bad
    ids = [f"n{k}" for k in range(7)]
    path = save(frame(ids, features), tmp_path / f"pool{suffix}")
    place = "line 6" if suffix == ".csv" else "row 5"
    with pytest.raises(pools.PoolError, match=f"{place}, object_id 'n4', column 'feat_11': found"):
        pools.open_pool(path)
    pool = pools.open_pool(path, leave_out=True)
    assert list(pool.object_ids) == ["n0", "n1", "n2", "n3", "n5"] and pool.n_left_out == 2
    assert np.array_equal(pool.features, values(7)[[0, 1, 2, 3, 5]])


def test_empty_na_and_infinite_cells_are_left_out_alike(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("id,feat_0\na,\nb,NA\nc,inf\nd,-Infinity\ne,nan\nf,5\ng,1e999\nh,6\n")
    pool = pools.open_pool(path, leave_out=True)
    assert list(pool.object_ids) == ["f", "h"] and pool.n_left_out == 6


def test_masked_numbers_are_no_numbers(tmp_path):
    columns = [fits.Column("ID", "K", array=[7, 8], null=-1),
               fits.Column("feat_0", "J", array=[5, -99], null=-99)]  # fmt: skip
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "pool.fits")
    pd.DataFrame({"ID": [7, 8], "feat_0": pd.array([5, None], "Int64")}).to_parquet(
        tmp_path / "pool.parquet"
    )
    for name in ("pool.fits", "pool.parquet"):
        with pytest.raises(pools.PoolError, match="row 2, object_id '8', column 'feat_0': found n"):
            pools.open_pool(tmp_path / name)
        assert pools.open_pool(tmp_path / name, leave_out=True).features.tolist() == [[5.0]]


def test_masked_ids_are_no_ids(tmp_path):
    columns = [fits.Column("ID", "K", array=[7, -1], null=-1),
               fits.Column("feat_0", "E", array=[5, 6])]  # fmt: skip
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "pool.fits")
    pd.DataFrame({"ID": ["7", None], "feat_0": [5.0, 6]}).to_parquet(tmp_path / "pool.parquet")
    for name in ("pool.fits", "pool.parquet"):
        with pytest.raises(CatalogError, match="row 2, column 'ID': found None, expected an ID"):
            pools.open_pool(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("object_id,feat_0\na,1\nb,2\nc,3\nd,1_000\n", "line 5, column 'feat_0': found '1_000'"),
        ("object_id,feat_0\na,\u0661\n", "line 2, column 'feat_0': found '\u0661'"),
        ("object_id,feat_0\na,x\n", "line 2, column 'feat_0': found 'x'"),
        ("object_id,feat_0\na,1\nb\n", "line 3: found 1 fields, expected 2"),
        ("object_id,feat_0\na,1\nb,\n", "line 3, object_id 'b', column 'feat_0': found nan"),
        ('object_id,feat_0\na,1\n"b,2\n', "line 3: found a row that does not end"),
        ("object_id,feat_0,feat_2\na,1,2\n", "column 'feat_1': found 'feat_2' in its place"),
        ("object_id,feat_0,feat_0\na,1,2\n", "column 'feat_1': found 'feat_0' in its place"),
        ("object_id,feat_1\na,1\n", "column 'feat_0': found 'feat_1' in its place"),
        ("object_id,faet_0\na,1\n", "column 'feat_pca_0': found no such column.*'faet_0'"),
        ("objectid,feat_0\na,1\n", "column 'object_id': found no such column.*'objectid'"),
        ("object_id,object_id,feat_0\na,a,1\n", "column 'object_id': found 2 of it"),
        ("object_id,feat_0\na,1\nb,2\nc,3\nd,4\na,5\n", "line 6: found object_id 'a', which is on"
         " line 2 too"),
        ("object_id,feat_0\n a,1\n", "line 2, column 'object_id': found ' a', expected an ID"),
        ("object_id,feat_0\n,1\n", "line 2, column 'object_id': found '', expected an ID"),
        ("object_id,feat_0\n", "found no object with finite features"),
        ("", "line 1: found no column names"),
        ("# only\n\n", "line 1: found no column names"),
    ],
)  # fmt: skip
def test_csv_that_is_no_pool_is_refused_with_its_line(tmp_path, text, found):
    path = tmp_path / "pool.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"pool.csv.*{found}"):
        pools.open_pool(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_comments_mark_line_ends_blank_lines_and_latin_1_elsewhere_change_nothing(
    tmp_path, end, mark
):
    lines = ['# odd " quote', "", "note,id,feat_0", "\xe9,00123,1", "", '"a', 'b",123,2', "c,4,x"]
    path = tmp_path / "pool.csv"
    path.write_bytes(mark.encode() + end.join(lines[:-1]).encode("latin-1"))
    pool = pools.open_pool(path)
    assert list(pool.object_ids) == ["00123", "123"] and pool.features.tolist() == [[1], [2]]
    path.write_bytes(mark.encode() + end.join(lines).encode("latin-1"))
    with pytest.raises(CatalogError, match="line 8, column 'feat_0': found 'x'"):
        pools.open_pool(path)


def test_named_columns_are_taken(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("object_id,name,feat_0,z1,z0\na,b,1,2,3\n")
    pool = pools.open_pool(path, id_column="name", prefix="z")
    assert list(pool.object_ids) == ["b"] and pool.features.tolist() == [[3, 2]]


def test_vector_or_text_columns_are_refused(tmp_path):
    columns = [fits.Column("id", "2A", array=[b"a", b"b"]),
               fits.Column("feat_0", "3E", array=np.ones((2, 3)))]  # fmt: skip
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "pool.fits")
    with pytest.raises(pools.PoolError, match="expected a column a feature"):
        pools.open_pool(tmp_path / "pool.fits")
    pd.DataFrame({"id": ["a"], "feat_0": ["x"]}).to_parquet(tmp_path / "pool.parquet")
    with pytest.raises(pools.PoolError, match="found no Parquet table of numbers"):
        pools.open_pool(tmp_path / "pool.parquet")


@pytest.mark.parametrize("name", ["pool.fits", "pool.parquet", "pool.txt", "absent", "fifo.csv"])
def test_what_is_no_table_is_refused_without_waiting(tmp_path, name):
    if name.startswith("fifo"):
        os.mkfifo(tmp_path / name)
    elif name != "absent":
        (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(pools.PoolError, match=name):
        pools.open_pool(tmp_path / name)


def test_text_of_a_table_is_never_in_memory_at_once(tmp_path, monkeypatch):
    monkeypatch.undo()
    n, path = 20_000, tmp_path / "pool.csv"
    with open(path, "w") as stream:
        stream.write("object_id,feat_0,note\n")
        stream.writelines(f"{k},{k},{'x' * 1500}\n" for k in range(n))
    tracemalloc.start()
    try:
        pool = pools.open_pool(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pool.object_ids) == n and path.stat().st_size > 3e7
    assert peak < 1.2e7  # 2,048 rows of 1.5 kB are 3 MB


@pytest.mark.parametrize("pieces", [False, True])
def test_folder_comes_back_exactly_and_is_mapped(tmp_path, pieces):
    blocks = iter([values()[:7], values()[7:]]) if pieces else values()
    pools.write_pool(tmp_path / "pool", IDS, blocks)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pool"]
    pool = pools.open_pool(tmp_path / "pool")
    assert list(pool.object_ids) == IDS and isinstance(pool.features, np.memmap)
    found = np.load(tmp_path / "pool" / "features.npy", allow_pickle=False)
    assert found.dtype == np.float32 and np.array_equal(found, values())
    assert np.array_equal(pool.features, values())
    assert "\n'=cmd" in (tmp_path / "pool" / "objects.csv").read_text()


@pytest.mark.parametrize(
    ("ids", "features", "found"),
    [
        (["a", "a"], np.ones((2, 3)), "position 1: found object_id 'a', which is on position 0"),
        (["a", 1], np.ones((2, 3)), "found object_id 1, expected visible text"),
        (["a", "b"], np.ones((3, 3)), "found features of 3 objects for 2 IDs"),
        (["a", "b"], np.ones((1, 3)), "found features of 1 objects for 2 IDs"),
        (["a", "b"], [np.ones((1, 3)), np.ones((1, 4))], r"shape \(1, 4\), expected \(objects, 3"),
        (["a", "b"], np.ones(2), r"features of shape \(2,\)"),
        (["a", "b"], np.array([[1.0], [np.nan]]), "object_id 'b', column 'feature 0': found nan"),
        (["a", "b"], np.array([[1.0], [1e39]]), "object_id 'b', column 'feature 0': found 1e"),
        ([], np.ones((0, 3)), "found no object"),
    ],
)
def test_what_is_no_pool_is_not_written(tmp_path, ids, features, found):
    with pytest.raises(pools.PoolError, match=found):
        pools.write_pool(tmp_path / "pool", ids, features)
    assert not (tmp_path / "pool").exists()


def test_folder_that_is_there_is_not_written_over(tmp_path):
    pools.write_pool(tmp_path / "pool", ["a"], np.ones((1, 2)))
    with pytest.raises(ArchiveError, match="pool"):
        pools.write_pool(tmp_path / "pool", ["b"], np.ones((1, 2)))
    assert list(pools.open_pool(tmp_path / "pool").object_ids) == ["a"]


class Canary:
    def __reduce__(self):  # noqa: D105
        return os.mkdir, (os.environ["CANARY"],)


def test_folder_that_was_damaged_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    folder = tmp_path / "pool"
    pools.write_pool(folder, ["a", "b"], values(2))
    path, objects = folder / "features.npy", folder / "objects.csv"
    whole = path.read_bytes()

    def refused(found):
        with pytest.raises(ValueError, match=found):
            pools.open_pool(folder)

    for content in (whole[:-1], whole[:50], b"", b"<html>", pickle.dumps(Canary())):
        path.write_bytes(content)
        refused("features.npy: found no array that can be mapped")
    np.save(path, np.array([[Canary()], [1]]), allow_pickle=True)
    refused("features.npy: found no array that can be mapped")
    for array in (values(2).astype(np.float64), values(2)[0], values(2).astype(">f4")):
        np.save(path, array)
        refused("expected float32 of shape")
    odd = values(2)
    odd[1, 3] = np.nan
    np.save(path, odd)
    refused("object_id 'b', column 'feature 3': found nan")
    path.write_bytes(whole)
    objects.write_text("object_id\na\n")
    refused("found 1 objects in objects.csv and 2 in features.npy")
    objects.write_text("object_id\na\na\n")
    refused("objects.csv, line 3: found object_id 'a', which is on line 2 too")
    objects.unlink()
    refused("objects.csv: no such file")
    assert not (tmp_path / "canary").exists()


def test_real_features_are_those_pandas_reads(feature_table):
    pool = pools.open_pool(feature_table)
    truth = pd.read_csv(feature_table, dtype={"id_str": str})
    assert list(pool.object_ids) == truth["id_str"].tolist()
    columns = [f"feat_pca_{k}" for k in range(40)]
    assert np.array_equal(pool.features, truth[columns].to_numpy().astype(np.float32))
