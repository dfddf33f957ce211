"""What we wrote ourselves against the papers' own libraries; `make parity` makes the originals."""

import numpy as np
import pytest
from keras import ops
from scipy.special import expit

from cast_lens import losses

pytestmark = pytest.mark.parity


@pytest.fixture
def originals(root):
    path = root / ".venv-paper/originals.npz"
    if not path.exists():
        pytest.skip("no .venv-paper/originals.npz; run `make parity`")
    return np.load(path)


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_focal_loss_matches_tensorflow_addons(originals, alpha):
    ours = losses.focal(originals["labels"], originals["logits"], alpha=alpha, gamma=2.0)
    # float32: their (1 - p)^gamma loses digits where p rounds to 1, ours does not.
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours), originals[f"focal_{alpha}"], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_focal_gradient_matches_tensorflow_addons(originals, alpha):
    ours = losses.focal_gradient(
        originals["labels"], expit(originals["logits"].astype(np.float64)), alpha=alpha, gamma=2.0
    )
    np.testing.assert_allclose(ours, originals[f"focal_gradient_{alpha}"], rtol=1e-4, atol=1e-6)
