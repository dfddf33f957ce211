"""What several test files share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: more threads wait for one another
    for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(_name, "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root():
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture
def real_data():
    """Folder of the real public data."""
    if not os.environ.get("CAST_LENS_DATA"):
        pytest.skip("CAST_LENS_DATA does not name the folder of real data (sglc1, active_learning)")
    return Path(os.environ["CAST_LENS_DATA"])


@pytest.fixture
def feature_table(real_data):
    """Return the path of the real feature table, named by CAST_LENS_DATA."""
    path = real_data / "active_learning/strong_lense_train.csv"
    if not path.is_file():
        pytest.skip("needs CAST_LENS_DATA with active_learning/strong_lense_train.csv")
    return path
