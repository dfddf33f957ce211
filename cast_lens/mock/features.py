"""A stand-in for the feature table of Li, Eadie & Walmsley (2025): same shape, no sky in it.

Galaxies fall into a few morphological groups in a feature space whose axes lose variance as
principal components do. A lens is a galaxy of any group displaced along a direction of its
group's own, most of them clearly and some hardly at all, so that no linear cut finds them and some
cannot be found. Every parameter is ASSUMED, chosen so that a small network finds about as many
lenses as in the real table; nothing of the real table is in it.
"""

import numpy as np
import pandas as pd

from cast_lens.run import write_whole

N_OBJECTS, N_LENSES, N_FEATURES = 3329, 255, 40  # as in the real table
GROUPS = 6  # ASSUMED: morphologies; few enough for each to hold some forty lenses
DISPLACEMENT = 1.9  # ASSUMED: in standard deviations per displaced feature
DISPLACED = 12  # ASSUMED: features a displacement touches


def make_table(seed):
    """Draw a stand-in feature table in the layout of the real one.

    Args:
        seed: Seed or NumPy Generator.

    Returns:
        DataFrame of 3,329 rows: id_str, feat_pca_0 to feat_pca_39 (dimensionless), label (1 for
        each of 255 lenses, 0 otherwise) and label2 (1 - label), in random order.

    Reference:
        The layout is that of strong_lense_train.csv of Li, Eadie & Walmsley (2025).
    """
    rng = np.random.default_rng(seed)
    scale = 5.0 * np.arange(1, N_FEATURES + 1) ** -0.55
    centers = rng.normal(0.0, 0.8, (GROUPS, N_FEATURES))
    directions = np.zeros((GROUPS, N_FEATURES))
    for direction in directions:
        touched = rng.permutation(N_FEATURES)[:DISPLACED]
        direction[touched] = rng.choice([-1.0, 1.0], DISPLACED)
    group = rng.integers(GROUPS, size=N_OBJECTS)
    label = rng.permutation(np.arange(N_OBJECTS) < N_LENSES).astype(int)
    strength = DISPLACEMENT * rng.beta(1.2, 1.2, N_OBJECTS) * label
    spread = 0.6 * rng.standard_t(5, (N_OBJECTS, N_FEATURES))
    table = scale * (centers[group] + spread + 0.6 * strength[:, None] * directions[group])
    frame = pd.DataFrame(table, columns=[f"feat_pca_{k}" for k in range(N_FEATURES)])
    frame.insert(0, "id_str", [f"standin_{number:05d}" for number in range(N_OBJECTS)])
    return frame.assign(label=label, label2=1 - label)


def write_table(path, *, seed):
    """Write a stand-in feature table whole.

    Args:
        path: Final name.
        seed: Seed of the draw.

    Returns:
        `path`.
    """
    write_whole(
        path, make_table(seed).to_csv(index=False, float_format="%.9f", lineterminator="\n")
    )
    return path
