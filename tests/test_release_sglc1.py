"""The release of the EfficientNet-B0 of stand-ins: trained, described, measured, and verified."""

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import networks, weights
from cast_lens.run import RunError
from tests.scripts import load_release
from tests.test_networks import small_trunk

pytest.importorskip("lenstronomy", reason="make env EXTRAS=mock")
pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch, tmp_path, request):
    """The script, with a small trunk and small surveys, and a folder for what is released."""
    found = load_release(request.config.rootpath, "release_sglc1.py", monkeypatch, tmp_path)
    monkeypatch.setattr(networks.backbones, "efficient_net", small_trunk)
    for name, value in {"N_TRAIN": 120, "N_TEST": 60, "EPOCHS": 2, "DRAWS": 50}.items():
        monkeypatch.setattr(found, name, value)
    return found


def test_what_is_released_opens_scores_and_verifies(script, tmp_path, capsys):
    script.main([])
    manifest = tmp_path / "weights/manifest.csv"
    network = networks.open_network(script.NAME, manifest=manifest)
    lower, upper = network.model.get_layer("clip_vis").get_weights()
    source = script.stand_in(120, 0)
    parts = script.folds.by_shares(source.catalog, script.SHARES, seed=0, groups=["plane"])
    assert network.calibration.n == len(parts["held out"])
    pixels = source.batch("vis", parts["train"])
    assert np.allclose([lower[0], upper[0]], np.percentile(pixels, (0.1, 99)), rtol=1e-6)
    tested = script.stand_in(60, 2)
    found = keras.ops.convert_to_numpy(network.model({"vis": tested.batch("vis", range(60))}))
    wanted = np.log(found[:, 1] / found[:, 0])
    assert np.allclose(script.logits(network.model, tested, np.arange(60)), wanted, atol=1e-4)
    card = (tmp_path / f"weights/cards/{script.NAME}.md").read_text()
    told = pd.read_csv(manifest.with_name("metrics.csv"))
    assert all(f"| {row.metric} | {row.value:.4f} |" in card for row in told.itertuples())
    assert len(told) == 4 and len(weights.read_manifest(manifest)[script.NAME]) == 2
    script.main(["--verify"])
    assert "DIFFERENT" not in capsys.readouterr().out
    told["value"] += 0.01
    told.to_csv(manifest.with_name("metrics.csv"), index=False)
    with pytest.raises(RunError, match="are not those of its card"):
        script.main(["--verify"])
