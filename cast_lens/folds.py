"""Which objects train and which test, and whether what one part learns helps it on another.

A split is a dict {part: positions}, a position being the row of an object in the catalog, which is
its record in the pack. Objects that are the same twice over, by object_id or by their pixels
(pixel_group), are never divided; `groups` names further columns whose equal values must stay
together, such as the Einstein area, which tells a lens plane that is in a survey many times.
"""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

ALWAYS = ("object_id", "pixel_group")  # equal values in these mean one and the same object


class FoldError(ValueError):
    """A split that cannot be made, or must not be used; says what was found and what to do."""


def k_fold(catalog, k, *, seed, groups=None, stratify=True):
    """Split a catalog into folds, each of which tests what all the others trained.

    An object's fold does not hang on the order of the rows, but on which objects there are.

    Args:
        catalog: DataFrame with object_id and, if `stratify`, label.
        k: Number of folds, 2 or more.
        seed: Whole number in [0, 2^32).
        groups: Columns of `catalog` whose equal values stay together, NaN and None being no value;
            object_id always does, and pixel_group where there is one. With groups of more than one
            object, a hundred thousand objects take some ten seconds.
        stratify: Whether each fold shall have the labels in about the same proportions.

    Returns:
        List of k dicts {"train": positions, "test": positions}, int64, ascending.

    Raises:
        FoldError: If a column is missing, or a fold would stay empty.

    Warns:
        UserWarning: If a label has fewer than k objects, by scikit-learn.
    """
    fold = _assign(catalog, k, seed, _columns(catalog, groups), stratify)
    parts = [
        {"train": np.flatnonzero(fold != n), "test": np.flatnonzero(fold == n)} for n in range(k)
    ]
    for split in parts:
        audit(catalog, split, groups=groups)
    return parts


def by_shares(catalog, shares, *, seed, groups=None, stratify=True):
    """Split a catalog at random in given proportions.

    Args:
        catalog: As for `k_fold`.
        shares: Whole number of equal shares of each part, {"train": 8, "validation": 1, "test": 1}.
        seed: As for `k_fold`.
        groups: As for `k_fold`.
        stratify: As for `k_fold`.

    Returns:
        Dict of the positions of each part, int64, ascending.

    Raises:
        FoldError: As `k_fold`; also if a share is not 1 or more.
    """
    sizes = list(shares.values())
    if len(sizes) < 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise FoldError(f"shares are {shares}, expected whole numbers above 0 of two or more parts")
    fold = _assign(catalog, sum(sizes), seed, _columns(catalog, groups), stratify)
    place = np.repeat(np.arange(len(sizes)), sizes)[fold]
    parts = {part: np.flatnonzero(place == n) for n, part in enumerate(shares)}
    audit(catalog, parts, groups=groups)
    return parts


def by_id_order(catalog, sizes, *, groups=None):
    """Cut a catalog, ordered by object_id, into parts.

    Args:
        catalog: DataFrame with object_id. IDs that are all whole numbers are ordered as such.
        sizes: Number of objects of each part in turn, {"train": 18_000, "test": None}; None, for
            one of them, is the rest.
        groups: As for `audit`: this split divides what the IDs divide.

    Returns:
        Dict of the positions of each part, int64, ascending.

    Raises:
        FoldError: If the sizes do not fit, or the cut divides what `audit` holds together.

    Reference:
        Gabe (2022), Sec. 3.2: first 18,000 and last 2,000; Schaefer et al. (2018), code: the first
        3,000 validate.
    """
    n, given = len(catalog), [size for size in sizes.values() if size is not None]
    rest = n - sum(given)
    whole = [rest if size is None else size for size in sizes.values()]
    if len(whole) - len(given) > 1 or sum(whole) != n or min(whole, default=0) < 1:
        raise FoldError(
            f"sizes are {sizes}, expected numbers above 0 that add up to the {n} objects of the "
            "catalog, one of them at most None, for the rest"
        )
    cuts = np.split(_id_order(catalog), np.cumsum(whole)[:-1])
    parts = {part: np.sort(cut) for part, cut in zip(sizes, cuts)}
    audit(catalog, parts, groups=groups)
    return parts


def by_split(catalog, *, groups=None):
    """Split a catalog as those who published it did, by its column split.

    Args:
        catalog: DataFrame with object_id and split.
        groups: As for `audit`.

    Returns:
        Dict of the positions of each part, int64, ascending, in the order in which they appear.

    Raises:
        FoldError: If there is no such column, or the parts share what `audit` holds together.
    """
    split = _column(catalog, "split").to_numpy()
    parts = {part: np.flatnonzero(split == part) for part in pd.unique(split)}
    audit(catalog, parts, groups=groups)
    return parts


def audit(catalog, parts, *, groups=None):
    """Make sure that no two parts share an object, its pixels, or what `groups` name.

    Args:
        catalog: DataFrame with object_id and the columns that `groups` name.
        parts: Dict of the positions of each part. Objects in none of them do not matter.
        groups: As for `k_fold`.

    Raises:
        FoldError: If they do, naming two objects, their parts and what they share; also if a part
            is empty, or has a position that is none or is there twice.
    """
    found = leaks(catalog, parts, groups=groups)
    if len(found):
        row = found.iloc[0]
        raise FoldError(
            f"object_id {row['object_id']} in {row['part']} and object_id {row['other_object_id']} "
            f"in {row['other_part']}: found {row['column']} {row['value']} of both, and "
            f"{len(found) - 1} more such pairs, expected no {row['column']} in two parts; split "
            f"with groups=[{row['column']!r}], or drop one of the two"
        )


def leaks(catalog, parts, *, groups=None):
    """List what parts of a split share: for a split that was published, and is as it is.

    Args:
        catalog: As for `audit`.
        parts: As for `audit`.
        groups: As for `audit`.

    Returns:
        DataFrame of column, value, object_id, part, other_object_id, other_part. A value that is
        in m parts has m - 1 rows, each with an object of one part and one of the next.

    Raises:
        FoldError: If a part is empty, or has a position that is none or is there twice in it.
    """
    used = pd.concat(
        catalog.iloc[_checked(catalog, name, positions)].assign(_part=name)
        for name, positions in parts.items()
    )
    found = []
    for column in _columns(catalog, groups):
        # Of each value one object a part, in the order of the parts.
        first = used[used[column].notna()].drop_duplicates([column, "_part"])
        first = first.sort_values(column, kind="stable")
        one, two = first[:-1], first[1:]
        meet = one[column].to_numpy() == two[column].to_numpy()
        one, two = one[meet], two[meet]
        found.append(pd.DataFrame({
            "column": column, "value": one[column].to_numpy(object),
            "object_id": one["object_id"].to_numpy(), "part": one["_part"].to_numpy(),
            "other_object_id": two["object_id"].to_numpy(), "other_part": two["_part"].to_numpy(),
        }))  # fmt: skip
    return pd.concat(found, ignore_index=True)


def held_together(catalog, columns):
    """Number the sets of objects that equal values in any of some columns bind together.

    Args:
        catalog: DataFrame with the columns.
        columns: Their names; NaN and None are no values.

    Returns:
        Number of the set of each object, int, shape (objects,). If a and b share one column and
        b and c another, all three are in one set.
    """
    edges, n_nodes = [np.empty((2, 0), np.int64)], len(catalog)
    for column in columns:
        codes, values = pd.factorize(_column(catalog, column))
        known = np.flatnonzero(codes >= 0)
        edges.append(np.stack([known, codes[known] + n_nodes]))
        n_nodes += len(values)
    start, end = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(n_nodes, n_nodes))
    return connected_components(graph, directed=False)[1][: len(catalog)]


def _assign(catalog, k, seed, columns, stratify):
    """Return the number of the fold of each object, shape (objects,)."""
    place = _id_order(catalog)
    ordered = catalog.iloc[place]
    sets = held_together(ordered, columns)
    labels = _column(ordered, "label").to_numpy() if stratify else np.zeros(len(ordered), np.int64)
    options = {"n_splits": k, "shuffle": True, "random_state": seed}
    fold = np.full(len(catalog), -1)
    try:
        if sets.max(initial=-1) + 1 < len(sets):
            found = StratifiedGroupKFold(**options).split(sets, labels, sets)
        elif stratify:
            found = StratifiedKFold(**options).split(sets, labels)
        else:
            found = KFold(**options).split(sets)
        for n, (_, test) in enumerate(found):
            fold[place[test]] = n
        sizes = np.bincount(fold, minlength=k)
        if not sizes.all():
            raise ValueError(f"fold {np.argmin(sizes)} stays empty")
    except ValueError as error:
        raise FoldError(
            f"{k} folds of {len(catalog)} objects, which {', '.join(columns)} bind into "
            f"{sets.max(initial=-1) + 1} sets, cannot be made: {error}; ask for fewer folds, or "
            "hold fewer columns together"
        ) from error
    return fold


def _id_order(catalog):
    """Return the positions of all objects in the order of their IDs."""
    ids = _column(catalog, "object_id").astype(str)
    if ids.str.fullmatch("[0-9]+").all():
        return np.array(sorted(range(len(ids)), key=[(int(t), t) for t in ids].__getitem__), int)
    return np.argsort(ids.to_numpy(object), kind="stable")


def _columns(catalog, groups):
    if isinstance(groups, str):
        raise FoldError(f"groups is {groups!r}, expected a list of columns; write [{groups!r}]")
    wanted = [*(groups or ())]
    for column in wanted:
        _column(catalog, column)
    return [c for c in ALWAYS if c in catalog and c not in wanted] + wanted


def _column(catalog, name):
    if name not in catalog:
        raise FoldError(
            f"the catalog has the columns {', '.join(map(str, catalog))}, expected {name} among "
            "them; read the table that has it, or leave it out"
        )
    return catalog[name]


def _checked(catalog, part, positions):
    positions = np.asarray(positions)
    if positions.ndim != 1 or not len(positions) or positions.dtype.kind not in "iu":
        raise FoldError(
            f"{part}: found {positions.dtype} of shape {positions.shape}, expected the positions "
            "of one object or more, whole numbers"
        )
    inside = (positions >= 0) & (positions < len(catalog))
    if not inside.all():
        raise FoldError(
            f"{part}: found position {positions[~inside][0]}, expected 0 to {len(catalog) - 1}; "
            "make the split again from this catalog"
        )
    values, counts = np.unique(positions, return_counts=True)
    if counts.max() > 1:
        twice = values[np.argmax(counts)]
        raise FoldError(
            f"{part}: found object_id {catalog['object_id'].iloc[twice]} (position {twice}) "
            f"{counts.max()} times, expected each once"
        )
    return positions
