"""The release of LASTRO's network: files, card and metrics that verify, or do not."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import checkpoints, metrics, scores, weights
from cast_lens.run import RunError
from tests.scripts import load_release

pytest.importorskip("lenstronomy", reason="make env EXTRAS=mock")
pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch, tmp_path, request):
    """The script, with a small survey and a folder of its own for what is released."""
    found = load_release(request.config.rootpath, "release_nottingham.py", monkeypatch, tmp_path)
    for name, value in {"N_TEST": 60, "DRAWS": 50}.items():
        monkeypatch.setattr(found, name, value)
    return found


@pytest.fixture
def trained(script, tmp_path):
    """A run folder as the reproduction leaves it, and its network."""
    keras.utils.set_random_seed(1)
    model = script.build()
    here = tmp_path / "run" / script.TRAINING
    here.mkdir(parents=True)
    checkpoints.write_weights(model, here / script.training.FINAL, {})
    history = {"epoch": [1, 2], "loss": [0.61, 0.52], "val_loss": [0.63, 0.57],
               "auc": [0.7, 0.8], "val_auc": [0.6, 0.75]}  # fmt: skip
    pd.DataFrame(history).to_csv(here / "history.csv", index=False)
    table = scores.score_table(
        [f"o{k}" for k in range(5)], np.arange(5) % 2, np.linspace(0, 1, 5), run="0", n_train=45
    )
    scores.write_scores(table, here / "test.csv")
    about = {"keras": "3", "backend": "tensorflow", "seed": 0, "scale": "hour", "data": "stand-in"}
    (tmp_path / "run/run.json").write_text(json.dumps(about))
    (tmp_path / "run/origin.json").write_text(json.dumps([{"commit": "abc"}]))
    return tmp_path / "run", model


def test_what_is_released_stands_on_its_card_and_verifies(script, trained, tmp_path, capsys):
    folder, model = trained
    script.main([str(folder)])
    tested = script.survey_folder.opened(
        script.survey_folder.stand_in(script.SURVEY, script.RUNS, 60, script.TEST_SEED), script.RUNS
    )
    images = tested.batch("vis", range(60))
    views = [np.rot90(x, k, (1, 2)) for x in (images, images[:, ::-1]) for k in range(4)]
    each = [keras.ops.convert_to_numpy(model({"vis": view.copy()}))[:, 0] for view in views]
    wanted = metrics.roc_auc(tested.catalog["label"].to_numpy(), np.log(each).mean(axis=0))
    told = pd.read_csv(tmp_path / "weights/metrics.csv").set_index("metric")
    assert told.loc["roc_auc", "value"] == pytest.approx(wanted, abs=2e-3)
    card = (tmp_path / f"weights/cards/{script.NAME}.md").read_text()
    assert f"| roc_auc | {told.loc['roc_auc', 'value']:.4f} |" in card and "{" not in card
    assert "| 2 | 0.5200 | 0.5700 | 0.7500 |" in card and "45 objects of a stand-in, 5 oth" in card
    (row,) = weights.read_manifest(tmp_path / "weights/manifest.csv")[script.NAME]
    assert (row.paper, row.scale, row.commit) == ("nottingham", "hour", "abc")
    capsys.readouterr()
    script.main(["--verify"])
    assert capsys.readouterr().out.count(": equal") == len(told) == 4
    told.loc["roc_auc", "value"] += 0.01
    told.to_csv(tmp_path / "weights/metrics.csv")
    with pytest.raises(RunError, match="1 of 4 metrics"):
        script.main(["--verify"])
