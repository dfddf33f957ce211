"""What both sides of the comparison begin with; runs in either environment."""

import numpy as np

STEPS = 500
SHOWN = [1, 2, 4, 5, 6, 7, 10, 30, 100, 250, 500]  # the adaptive steps begin with the sixth
RADAM = {
    "defaults": {},
    "weight_decay": {"weight_decay": 0.05},
    "amsgrad": {"amsgrad": True},
    "warm_up": {"total_steps": 300, "warmup_proportion": 0.1, "min_lr": 1e-5},
    "other_threshold": {"sma_threshold": 7.5, "epsilon": 1e-3, "beta_1": 0.8, "beta_2": 0.99},
    "all": {
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "amsgrad": True,
        "total_steps": 700,
        "warmup_proportion": 0.25,
        "min_lr": 1e-4,
    },
}
VARIANTS = ("b0", "b2")
SIZES = (200, 101, 66)  # pixels
BRANCHES = {"vis": 200, "hjy": 66}
SAVED_MODELS = ("two_branches", "other_order", "one_branch")
RATE = 1.0  # the first step is the gradient times this


def weights_and_gradients():
    """Return weights, shape (60,), and gradients of every step, shape (steps, 60), float64."""
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.uniform(-4, 1, 60)
    return rng.normal(size=60), scales * (rng.normal(size=(STEPS, 60)) + 0.3)


def images(size, n=2):
    """Return images in [0, 1], float32, shape (n, size, size, 3): squares of 11 pixels, and noise.

    Noise alone has maps of features without contrast, which batch normalization blows up.
    """
    rng = np.random.default_rng(size)
    squares = rng.random((n, size // 11 + 1, size // 11 + 1, 3))
    squares = squares.repeat(11, axis=1).repeat(11, axis=2)[:, :size, :size]
    return (0.8 * squares + 0.2 * rng.random((n, size, size, 3))).astype(np.float32)


def branch_images(n=4):
    """Return images of both branches, the first with one band three times, as the authors did."""
    found = {name: images(size, n) for name, size in BRANCHES.items()}
    return found | {"vis": found["vis"][..., :1].repeat(3, axis=-1)}


def labels(n):
    """Return one-hot labels, float32, shape (n, 2)."""
    return np.eye(2, dtype=np.float32)[np.arange(n) % 2]
