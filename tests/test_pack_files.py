"""The files of a pack give back exactly what was put in, and show any byte that changed."""

import csv
import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cast_lens import pack_files
from cast_lens.pack_files import PackError
from cast_lens.run import RunError

SAID = {
    "format": pack_files.FORMAT,
    "n": 3,
    "scales": [1.0, 2.0**-40],
    "text": "ü → \\",
    "no": None,
}

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
ODD = st.sampled_from(
    ["00123", "1e5", "1E5", "NA", "nan", "None", "", " ", "=cmd", "'=cmd", "''@", "'", "\r", "\n",
     "\r\n", "a,b", '"', "-1", "+", "\t", "True", "#", "99999999999999999999", "é", "\ufeff"]
)  # fmt: skip
COLUMNS = {
    "text": st.one_of(ODD, TEXT),
    "text or nothing": st.one_of(st.none(), st.one_of(ODD, TEXT).filter(bool)),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.one_of(st.floats(allow_nan=True), st.sampled_from([-1e130, -0.0, 5e-324])),
    "bool": st.booleans(),
}


@st.composite
def tables(draw):
    """Draw a table and the types that its columns must be found to have."""
    n = draw(st.integers(1, 5))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    table = {}
    for k, kind in enumerate(kinds):
        cells = draw(st.lists(COLUMNS[kind], min_size=n, max_size=n))
        dtype = object if kind.startswith("text") else kind
        table[f"{draw(ODD)}{k}"] = pd.Series(cells, dtype=dtype)
        if kind == "text or nothing" and None not in cells:
            kinds[k] = "text"
    return pd.DataFrame(table), kinds


@settings(deadline=None)
@given(tables())
def test_a_catalog_comes_back_as_it_was(drawn):
    table, kinds = drawn
    data, columns = pack_files.encode_catalog(table)
    assert list(columns.values()) == kinds
    found = pack_files.decode_catalog(data, columns)
    assert list(found) == list(table)
    for name in table:
        assert found[name].dtype == table[name].dtype
        for one, other in zip(found[name], table[name]):
            assert type(one) is type(other)
            if isinstance(one, float):
                assert np.float64(one).tobytes() == np.float64(other).tobytes() or one != one
            else:
                assert one == other


@settings(max_examples=60, deadline=None)
@given(tables())
def test_any_reader_of_csv_finds_the_cells_and_no_spreadsheet_a_formula(drawn):
    table, _ = drawn
    data, columns = pack_files.encode_catalog(table)
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == list(table) and len(rows) == len(table)
    for name, cells in zip(header, zip(*rows)):
        if columns[name].startswith("text"):
            for cell, text in zip(cells, table[name]):
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
                assert cell in (text or "", "'" + (text or ""))


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        (pd.Series([2**63, 1], dtype="uint64"), "text", [str(2**63), "1"]),
        (pd.Series([10**30, "x"], dtype=object), "text", [str(10**30), "x"]),
        (pd.Series([1, 2], dtype="uint32"), "int64", [1, 2]),
        (pd.Series([0.1, np.nan], dtype="float32"), "float64", [float(np.float32(0.1)), None]),
        (pd.Series([np.nan, "a"], dtype=object), "text or nothing", [None, "a"]),
        (pd.Series([1, None], dtype="Int64"), "text or nothing", ["1", None]),
        (pd.Series([True, None], dtype=object), "text or nothing", ["True", None]),
        (pd.Series(["00123", "1e5"], dtype="str"), "text", ["00123", "1e5"]),
        (pd.Series(["", None], dtype=object), "text or nothing", [None, None]),
    ],
)
def test_other_types_become_numbers_that_hold_them_or_text(values, kind, found):
    data, columns = pack_files.encode_catalog(pd.DataFrame({"a": values, "b": [1, 2]}))
    assert columns == {"a": kind, "b": "int64"}
    cells = pack_files.decode_catalog(data, columns)["a"].tolist()
    assert [None if cell != cell else cell for cell in cells] == found


def test_a_catalog_is_the_bytes_it_is_known_by():
    table = pd.DataFrame({"object_id": ["=cmd", "00123"], "flux": [1e-12, np.nan], "n": [1, 2]})
    data, _ = pack_files.encode_catalog(table)
    assert data == b"object_id,flux,n\n'=cmd,1e-12,1\n00123,,2\n"


def test_the_header_of_an_array_is_numpys_and_as_long_for_any_number_of_records():
    for n in (0, 7, 99_999_999):
        header = pack_files.array_header(n, (20, 10, 3), "float32")
        assert len(header) == len(pack_files.array_header(0, (20, 10, 3), "float32"))
        assert len(header) % 64 == 0  # so that the images are aligned
        stream = io.BytesIO(header)
        assert np.lib.format.read_magic(stream) == (1, 0)
        found = np.lib.format.read_array_header_1_0(stream)
        assert found == ((n, 20, 10, 3), False, np.dtype("<f4"))
    stream = io.BytesIO()
    np.save(stream, np.zeros((7, 20, 10, 3), "<f2"))
    header = pack_files.array_header(7, (20, 10, 3), "float16")
    assert np.load(io.BytesIO(header + bytes(2 * 7 * 600))).shape == (7, 20, 10, 3)


def test_a_manifest_comes_back_as_it_was_and_says_its_own_hash(tmp_path):
    data = pack_files.encode_manifest(SAID)
    (tmp_path / "manifest.json").write_bytes(data)
    assert pack_files.decode_manifest(tmp_path / "manifest.json") == SAID
    plain = json.dumps({k: v for k, v in json.loads(data).items() if k != "sha256"}, indent=1)
    assert json.loads(data)["sha256"] == hashlib.sha256(plain.encode()).hexdigest()


def test_any_changed_bit_of_a_manifest_is_found(tmp_path):
    data, path = pack_files.encode_manifest(SAID), tmp_path / "manifest.json"
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(PackError, match="found other bytes than were written"):
            pack_files.decode_manifest(path)


JSON = st.recursive(
    st.none() | st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["sha256", "format"]), inner),
).map(lambda said: json.dumps(said).encode())
NONE = st.sampled_from([b"", b"[" * 99_999, b"\xff", pack_files.encode_manifest(SAID)[:-1]])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=20) | JSON | NONE)
def test_what_is_no_manifest_is_a_pack_error(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(PackError, match="cast-lens pack"):
        pack_files.decode_manifest(tmp_path / "manifest.json")


def test_another_format_is_refused_and_no_manifest_is_no_pack(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(pack_files.encode_manifest(SAID | {"format": "cast_lens pack 2"}))
    with pytest.raises(PackError, match="format than 'cast_lens pack 1'"):
        pack_files.decode_manifest(path)
    for missing in (tmp_path / "none/manifest.json", path / "manifest.json"):
        with pytest.raises(PackError, match="holds no finished pack"):
            pack_files.decode_manifest(missing)
    assert issubclass(PackError, RunError)
