"""The release of the DeepLense networks: files, cards and metrics that verify, or do not."""

import json
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import checkpoints, scores
from cast_lens.run import RunError
from tests.scripts import load_release

pytest.importorskip("lenstronomy", reason="make env EXTRAS=mock")
pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch, tmp_path, request):
    """The script, with small networks and surveys and a folder of its own for what is released."""
    found = load_release(request.config.rootpath, "release_deeplense.py", monkeypatch, tmp_path)
    config_of = found.config_of
    monkeypatch.setattr(found, "config_of",
                        lambda *about: replace(config_of(*about), filters=(4, 4)))  # fmt: skip
    small = {name: replace(one, n_objects=60) for name, one in found.NETWORKS.items()}
    monkeypatch.setattr(found, "NETWORKS", small)
    return found


@pytest.fixture
def run(script, tmp_path):
    """A run folder as the scale "paper" leaves it."""
    for name, known in script.NETWORKS.items():
        keras.utils.set_random_seed(3)
        model, config = script.build(name)
        here = tmp_path / "run" / known.experiment
        here.mkdir(parents=True)
        checkpoints.write_weights(model, here / checkpoints.BEST, {})
        history = {"epoch": [1, 2], "loss": [0.61, 0.52], "val_loss": [0.63, 0.57]}
        pd.DataFrame(history).to_csv(here / "history.csv", index=False)
        last = script.CLASSES[config.task][-1]
        table = scores.score_table(
            [f"o{k}" for k in range(5)], np.arange(5) % 2, np.linspace(0, 1, 5),
            run=f"validation.{last}", n_train=45,
        )  # fmt: skip
        scores.write_scores(table, here / "scores.csv")
    about = {"keras": "3", "backend": "tensorflow", "seed": 0}
    (tmp_path / "run/run.json").write_text(json.dumps(about))
    return tmp_path / "run"


def test_what_is_released_stands_on_its_card_and_verifies(script, run, tmp_path, capsys):
    script.main([str(run)])
    told = pd.read_csv(tmp_path / "weights/metrics.csv")
    assert set(told["name"]) == set(script.NETWORKS)
    known = told.dropna()  # of a network that calls nothing a lens no purity is known
    assert (known["low"] <= known["value"]).all() and (known["value"] <= known["high"]).all()
    for name, known in script.NETWORKS.items():
        card = (tmp_path / f"weights/cards/{name}.md").read_text()
        of_it = told[told["name"] == name].set_index("metric")
        assert list(of_it.index) == list(known.metrics)
        assert f"| roc_auc | {of_it.loc['roc_auc', 'value']:.4f} |" in card
        assert "| 2 | 0.5200 | 0.5700 |" in card and "45 objects of a stand-in" in card
        assert "{" not in card and "5 to choose the epoch" in card
        model, config = script.build(name)
        survey = script.stand_in(name)
        script.weights.load_into(model, name, manifest=tmp_path / "weights/manifest.csv")
        best = script.build(name)[0]
        checkpoints.read_weights(best, run / known.experiment / checkpoints.BEST)
        rows = survey.rows[:8]
        found, wanted = (script.training.logits(m, config, survey, rows) for m in (model, best))
        assert np.allclose(found, wanted, rtol=0, atol=5e-3 * np.abs(wanted).max())
    capsys.readouterr()
    script.main(["--verify"])
    assert capsys.readouterr().out.count(": equal") == len(told)
    told.loc[told["metric"] == "roc_auc", "value"] += 0.01
    told.to_csv(tmp_path / "weights/metrics.csv", index=False)
    with pytest.raises(RunError, match="1 of 5 metrics"):
        script.main(["--verify"])
