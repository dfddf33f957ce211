"""Which objects an epoch consists of, in which order: functions of seed, fold and epoch alone."""

import math

import numpy as np
from sklearn.utils.class_weight import compute_class_weight


def generator(seed, fold, epoch):
    """Return the numpy Generator of an epoch, the same on every call.

    Args:
        seed: Whole number, 0 or more.
        fold: Likewise.
        epoch: Likewise.
    """
    # As spawn_key: in one list with the seed, the words of a large seed could be those of another.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(fold, epoch)))


def order(n, *, seed, fold, epoch):
    """Return the order in which n objects come in an epoch, shape (n,).

    It is a function of its arguments alone.
    """
    return generator(seed, fold, epoch).permutation(n)


def alternate_classes(labels, rng):
    """Sample all classes alike: one object of each in turn, until the largest was seen whole.

    The others are gone through again and again, in a new order each time.

    Args:
        labels: Shape (objects,), of two classes or more.
        rng: numpy Generator.

    Returns:
        Indices of `labels`, shape (classes x size of the largest,).

    Raises:
        ValueError: If there is only one class.

    Reference:
        Saied, Syvis & Crettenand (2019), Sec. II.D and BalancedBatchSampler2 of their code.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(classes) < 2:
        raise ValueError(f"labels are all {labels[:1]}, expected two classes; use no sampler")
    longest = max(map(len, classes))
    columns = [
        np.concatenate([rng.permutation(part) for _ in range(math.ceil(longest / len(part)))])
        for part in classes
    ]
    return np.stack([column[:longest] for column in columns], axis=1).ravel()


def draw_halves(labels, rng, *, each, n_batches):
    """Draw batches of as many lenses as other objects, each batch independent of all others.

    Args:
        labels: Shape (objects,); 1 for a lens, 0 otherwise.
        rng: numpy Generator.
        each: Lenses in a batch, all different, and other objects; half the batch size.
        n_batches: Batches that make an epoch.

    Returns:
        Indices of `labels`, shape (n_batches x 2 x each,), in each batch the lenses first.

    Raises:
        ValueError: If there are fewer than `each` of a class.

    Reference:
        Schaefer et al. (2018), code: 15 and 15.
    """
    classes = [np.flatnonzero(labels == label) for label in (1, 0)]
    if min(map(len, classes)) < each:
        sizes = " and ".join(str(len(part)) for part in classes)
        raise ValueError(f"there are {sizes} lenses and others, expected {each} or more of both")
    halves = [rng.choice(part, each, replace=False) for _ in range(n_batches) for part in classes]
    return np.concatenate(halves)


def class_weights(labels):
    """Compute the weights that make all classes count alike, for `fit(class_weight=...)`.

    Args:
        labels: Shape (objects,).

    Returns:
        {label: objects / (classes * objects of that label)}.
    """
    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=np.asarray(labels))
    return dict(zip(classes.tolist(), weights.tolist()))
