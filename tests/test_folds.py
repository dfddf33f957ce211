"""Folds hold every object once, are a function of seed and IDs, and divide nothing that belongs."""

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from cast_lens import catalog as catalogs
from cast_lens import folds

SPACE = "sglc1/space_based/classifications.csv"


def make(n, *, lens_fraction=0.4, planes=None, seed=0):
    """A catalog of n objects whose numeric IDs are not in the order of the rows."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"object_id": rng.permutation(np.arange(95, 95 + n)).astype(str)})
    table["label"] = (rng.random(n) < lens_fraction).astype(np.int64)
    if planes:
        table["ein_area"] = rng.integers(planes, size=n) * 1.25e-10
    return table


def ids_of(table, positions):
    return set(table["object_id"].iloc[positions])


@settings(deadline=None, max_examples=60)
@given(n=st.integers(6, 60), k=st.integers(2, 6), seed=st.integers(0, 2**32 - 1),
       stratify=st.booleans(), planes=st.sampled_from([None, 40]))  # fmt: skip
def test_every_object_is_in_one_test_fold_and_trains_all_others(n, k, seed, stratify, planes):
    table = make(n, planes=planes)
    table["label"] = np.arange(n) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer than k of a label
        try:
            found = folds.k_fold(
                table, k, seed=seed, groups=["ein_area"] if planes else None, stratify=stratify
            )
        except folds.FoldError:  # all fewer than k, or bound into fewer sets
            assert n < 2 * k or (planes and table["ein_area"].nunique() < k)
            return
    assert len(found) == k
    tests = np.concatenate([split["test"] for split in found])
    assert sorted(tests.tolist()) == list(range(n))
    for split in found:
        assert len(split["test"])
        assert np.array_equal(split["train"], np.setdiff1d(np.arange(n), split["test"]))


def test_folds_are_those_of_scikit_learn_on_the_objects_in_id_order():
    table = make(57)
    ordered = table.assign(number=table["object_id"].astype(int)).sort_values("number")
    splitter = StratifiedKFold(4, shuffle=True, random_state=11)
    wanted = [
        set(ordered["object_id"].iloc[test])
        for _, test in splitter.split(ordered, ordered["label"])
    ]
    found = folds.k_fold(table, 4, seed=11)
    assert [ids_of(table, split["test"]) for split in found] == wanted


@pytest.mark.parametrize("groups", [None, ["ein_area"]])
def test_order_of_rows_moves_no_object(groups):
    table = make(90, planes=60)
    shuffled = table.sample(frac=1, random_state=5)
    one, two = (
        [ids_of(t, split["test"]) for split in folds.k_fold(t, 3, seed=2, groups=groups)]
        for t in (table, shuffled)
    )
    assert one == two


def test_seed_decides_the_folds():
    table = make(90, planes=60)
    for groups in (None, ["ein_area"]):
        one, two, other = (
            [split["test"].tolist() for split in folds.k_fold(table, 3, seed=seed, groups=groups)]
            for seed in (2, 2, 3)
        )
        assert one == two != other


def test_stratified_folds_have_equal_shares_of_every_label():
    table = make(100).assign(label=[0] * 50 + [1] * 30 + [2] * 20)
    for split in folds.k_fold(table, 10, seed=0):
        counts = table["label"].iloc[split["test"]].value_counts()
        assert counts.to_dict() == {0: 5, 1: 3, 2: 2}


def test_folds_without_strata_are_of_equal_size_and_need_no_labels():
    table = make(101).drop(columns="label")
    sizes = [len(split["test"]) for split in folds.k_fold(table, 10, seed=0, stratify=False)]
    assert sorted(sizes) == [10] * 9 + [11]


def test_grouped_folds_divide_no_plane_and_stay_balanced():
    table = make(600, planes=250)
    area = table["ein_area"].to_numpy()
    for stratify in (True, False):
        found = folds.k_fold(table, 5, seed=0, groups=["ein_area"], stratify=stratify)
        for split in found:
            assert set(area[split["test"]]).isdisjoint(area[split["train"]])
            # A fold is right to within the objects of one plane, which are at most 9.
            assert abs(len(split["test"]) - 120) <= table["ein_area"].value_counts().max()
    lenses = [table["label"].iloc[split["test"]].mean() for split in folds.k_fold(table, 5, seed=0)]
    assert np.ptp(lenses) < 0.05


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([None, 1, 2, 3, 4, 5, 6])] * 2), max_size=12))
def test_sets_are_those_of_a_search_from_object_to_object(rows):
    table = pd.DataFrame(rows, columns=["one", "two"], dtype=object)
    found = folds.held_together(table, ["one", "two"])

    def linked(a, b):
        return any(x is not None and x == y for x, y in zip(rows[a], rows[b]))

    for start in range(len(rows)):
        reached, todo = {start}, [start]
        while todo:
            here = todo.pop()
            new = {other for other in range(len(rows)) if linked(here, other)} - reached
            reached |= new
            todo += new
        assert set(np.flatnonzero(found == found[start])) == reached


def test_objects_bound_through_a_third_stay_in_one_fold():
    """The pixels of 1 and 2 are the same, and 2 and 3 are of one lens plane."""
    table = make(40)
    table["pixel_group"] = range(40)
    table["ein_area"] = np.arange(40) + 0.5
    table.loc[7, "pixel_group"] = table.loc[21, "pixel_group"]
    table.loc[33, "ein_area"] = table.loc[21, "ein_area"]
    for seed in range(20):
        tests = [s["test"] for s in folds.k_fold(table, 4, seed=seed, groups=["ein_area"])]
        assert sorted(len({7, 21, 33} & set(test.tolist())) for test in tests) == [0, 0, 0, 3]


def test_the_same_pixels_are_held_together_without_being_asked():
    table = make(40)
    table["pixel_group"] = np.arange(40) // 2
    for split in folds.k_fold(table, 4, seed=0):
        assert set(split["test"] // 2).isdisjoint(split["train"] // 2)


def test_shares_are_exact_and_stratified():
    table = make(200).assign(label=[0, 0, 0, 1] * 50)
    parts = folds.by_shares(table, {"train": 7, "validation": 1, "test": 2}, seed=3)
    assert {part: len(rows) for part, rows in parts.items()} == {
        "train": 140, "validation": 20, "test": 40,
    }  # fmt: skip
    assert sorted(np.concatenate([*parts.values()]).tolist()) == list(range(200))
    assert {part: table["label"].iloc[rows].sum() for part, rows in parts.items()} == {
        "train": 35, "validation": 5, "test": 10,
    }  # fmt: skip
    assert all((np.diff(rows) > 0).all() for rows in parts.values())


@pytest.mark.parametrize("shares", [{"train": 1}, {"train": 0.8, "test": 0.2}, {"a": 0, "b": 1}])
def test_shares_must_be_whole_numbers_of_several_parts(shares):
    with pytest.raises(folds.FoldError, match="whole numbers"):
        folds.by_shares(make(20), shares, seed=0)


def test_id_order_is_that_of_numbers():
    table = pd.DataFrame({"object_id": ["100", "9", "10", "99999999999999999999", "007"]})
    parts = folds.by_id_order(table, {"train": 2, "validation": 1, "test": None})
    assert {p: [*table["object_id"].iloc[rows]] for p, rows in parts.items()} == {
        "train": ["9", "007"], "validation": ["10"], "test": ["100", "99999999999999999999"],
    }  # fmt: skip


def test_id_order_of_names_is_that_of_their_characters():
    table = pd.DataFrame({"object_id": ["val/no/2", "train/no/10", "train/no/9"]})
    parts = folds.by_id_order(table, {"train": 1, "test": 2})
    assert parts["train"].tolist() == [1]


def test_id_order_counts_are_those_of_gabe(real_data):
    """Gabe (2022), Sec. 3.2: 12,574 lenses and 5,426 others to train, 1,394 and 606 to validate."""
    table = catalogs.read_sglc1_labels(real_data / SPACE)
    parts = folds.by_id_order(table, {"train": 18_000, "test": 2_000})
    counts = {part: np.bincount(table["label"].iloc[rows]).tolist() for part, rows in parts.items()}
    assert counts == {"train": [5426, 12574], "test": [606, 1394]}


@pytest.mark.slow
def test_that_split_leaks_lens_planes_and_grouped_folds_do_not(real_data):
    table = catalogs.read_sglc1_labels(real_data / SPACE)
    parts = folds.by_id_order(table, {"train": 18_000, "test": 2_000})
    found = folds.leaks(table, parts, groups=["einstein_area"])
    area = [set(table["einstein_area"].iloc[rows]) for rows in parts.values()]
    assert set(found["value"]) == area[0] & area[1]
    assert len(found) == len(area[0] & area[1]) > 500
    with pytest.raises(folds.FoldError, match="einstein_area"):
        folds.by_id_order(table, {"train": 18_000, "test": 2_000}, groups=["einstein_area"])
    shares = {"train": 9, "test": 1}
    parts = folds.by_shares(table, shares, seed=0, groups=["einstein_area"])
    assert [len(rows) for rows in parts.values()] == pytest.approx([18_000, 2_000], abs=10)
    assert [table["label"].iloc[r].mean() for r in parts.values()] == pytest.approx(
        [0.6984] * 2, abs=0.003
    )


@pytest.mark.parametrize("sizes", [
    {"train": 3, "test": 3}, {"train": None, "test": None}, {"train": 5, "test": None}, {},
    {"train": 6, "test": -1},
])  # fmt: skip
def test_sizes_must_add_up(sizes):
    with pytest.raises(folds.FoldError, match="add up to the 5 objects"):
        folds.by_id_order(make(5), sizes)


def test_published_split_is_taken_as_it_is():
    table = make(5).assign(split=["val", "train", "train", "val", "train"])
    parts = folds.by_split(table)
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "val": [0, 3], "train": [1, 2, 4],
    }  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc "), st.sampled_from([None, 0.5, 1.5, 2.5, 3.5])),
                min_size=1, max_size=12))  # fmt: skip
def test_leaks_are_the_values_that_a_comparison_of_all_pairs_finds(rows):
    part, value = map(list, zip(*rows))
    table = pd.DataFrame({"object_id": [f"#{k}" for k in range(len(rows))], "area": value})
    parts = {p: np.array([k for k in range(len(rows)) if part[k] == p]) for p in "abc"}
    parts = {p: positions for p, positions in parts.items() if len(positions)}
    if not parts:
        return
    found = folds.leaks(table, parts, groups=["area"])
    wanted = {
        value[a] for a, b in combinations(range(len(rows)), 2)
        if " " not in {part[a], part[b]} and part[a] != part[b]
        and value[a] is not None and value[a] == value[b]
    }  # fmt: skip
    assert set(found["value"]) == wanted
    for row in found.to_dict("records"):
        for name, where in (("object_id", "part"), ("other_object_id", "other_part")):
            place = int(row[name][1:])
            assert value[place] == row["value"] and part[place] == row[where]
        assert row["part"] != row["other_part"]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_what_nobody_measured_binds_nothing(nothing):
    table = make(12)
    table["plane"] = pd.Series([nothing, "p1", "p2"] * 4, dtype=object)
    parts = {"train": np.arange(0, 12, 3), "test": np.arange(1, 12, 3)}
    assert folds.leaks(table, {"one": parts["train"][:2], "two": parts["train"][2:]},
                       groups=["plane"]).empty  # fmt: skip
    folds.audit(table, parts, groups=["plane"])
    assert len(set(folds.held_together(table, ["plane"]))) == 4 + 2


def test_audit_names_both_objects_and_what_they_share():
    table = make(20, planes=5000)
    folds.audit(table, {"train": np.arange(10), "test": np.arange(10, 20)}, groups=["ein_area"])
    table.loc[13, "ein_area"] = table.loc[4, "ein_area"]
    four, thirteen = table["object_id"][[4, 13]]
    with pytest.raises(folds.FoldError) as caught:
        folds.audit(table, {"train": np.arange(10), "test": np.arange(10, 20)}, groups=["ein_area"])
    text = str(caught.value)
    assert f"object_id {four} in train and object_id {thirteen} in test" in text
    assert "ein_area" in text and "groups=['ein_area']" in text
    folds.audit(table, {"train": np.arange(10), "test": np.arange(14, 20)}, groups=["ein_area"])


@pytest.mark.parametrize("positions, message", [
    ([], "expected the positions"), ([0.5], "expected the positions"), ([[1]], "shape"),
    ([True, False], "expected the positions"), ([-1], "position -1, expected 0 to 4"),
    ([5], "position 5, expected 0 to 4"), ([1, 2, 1], "2 times"),
])  # fmt: skip
def test_positions_are_checked(positions, message):
    with pytest.raises(folds.FoldError, match=message) as caught:
        folds.audit(make(5), {"train": positions})
    assert "train" in str(caught.value)


def test_folds_that_would_be_empty_are_refused():
    with pytest.raises(folds.FoldError, match="6 folds of 5 objects"):
        folds.k_fold(make(5), 6, seed=0)
    with pytest.raises(folds.FoldError, match="1 folds of 5 objects"):
        folds.k_fold(make(5), 1, seed=0)
    table = make(50).assign(ein_area=1e-10)
    with pytest.raises(folds.FoldError, match="object_id, ein_area bind into 1 sets"):
        folds.k_fold(table, 3, seed=0, groups=["ein_area"])


def test_a_missing_column_is_named_beside_those_there_are():
    for call in (
        lambda: folds.k_fold(make(9), 3, seed=0, groups=["plane"]),
        lambda: folds.by_id_order(make(9), {"train": 5, "test": 4}, groups=["plane"]),
    ):
        with pytest.raises(folds.FoldError, match="object_id, label, expected plane"):
            call()
    with pytest.raises(folds.FoldError, match="expected label"):
        folds.k_fold(make(9).drop(columns="label"), 3, seed=0)
    with pytest.raises(folds.FoldError, match="a list of columns"):
        folds.k_fold(make(9), 3, seed=0, groups="object_id")
