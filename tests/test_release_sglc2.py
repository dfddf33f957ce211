"""The release of a network of Bom et al. (2022): files, card and metrics that verify, or do not."""

import importlib
import json

import keras
import numpy as np
import pandas as pd
import pytest

from cast_lens import checkpoints, metrics, weights
from cast_lens.run import RunError
from tests.scripts import load
from tests.test_sglc2 import small_trunk, survey  # noqa: F401 (a fixture)


@pytest.fixture
def paper(monkeypatch, tmp_path, request):
    """The script, with small trunks and a folder of its own for what is released."""
    script = load(request.config.rootpath / "weights/release_sglc2.py")
    monkeypatch.setattr(script.network.backbones, "efficient_net", small_trunk)
    monkeypatch.setattr(script, "FOLDER", tmp_path / "weights")
    load_into = weights.load_into
    monkeypatch.setattr(
        script.network.weights, "load_into",
        lambda model, name, **_: load_into(model, name, manifest=tmp_path / "weights/manifest.csv"),
    )  # fmt: skip
    return script


@pytest.fixture
def trained(paper, tmp_path, survey):  # noqa: F811
    """A run folder as the scale "release" leaves it, and that of "bright" beside it."""
    settings = importlib.import_module("reproductions.sglc2.settings")
    config = settings.config_of(settings.HEADLINE, {"initial": "random"})
    keras.utils.set_random_seed(0)
    model = paper.network.build_model(config, 0)
    paper.network.set_bounds(
        model, {"vis": ([-2e-12], [2e-11]), "nir": ([-2e-12] * 3, [2e-11] * 3)}
    )
    for stage in ("bright", "release"):
        run = tmp_path / f"sglc2-stand-in-{stage}-seed0"
        fold = run / "folds" / settings.SCALES[stage].cells[0] / "fold0"
        fold.mkdir(parents=True)
        history = {"run": [0, 0], "epoch": [1, 2], "loss": [0.61, 0.52], "val_loss": [0.63, 0.57]}
        pd.DataFrame(history).to_csv(fold / "history.csv", index=False)
        pd.DataFrame({"n_train": [45] * 5}).to_csv(fold / "table1.csv", index=False)
        (run / "run.json").write_text(json.dumps({"keras": "3", "backend": "tensorflow"}))
    checkpoints.write_weights(model, fold / checkpoints.BEST, {})
    return run, model


@pytest.mark.slow
def test_what_is_released_scores_as_what_was_trained(paper, trained, survey, tmp_path):  # noqa: F811
    run, model = trained
    paper.main([str(run), str(survey.folder)])
    images = {name: survey.batch(name, range(len(survey.catalog))) for name in ("vis", "nir")}
    wanted = model.predict(images, verbose=0)[:, 1]
    labels = survey.catalog["label"].to_numpy()
    told = pd.read_csv(tmp_path / "weights/metrics.csv").set_index("metric")
    assert told.loc["roc_auc", "value"] == pytest.approx(metrics.roc_auc(labels, wanted), abs=0.01)
    assert (told["low"] <= told["value"]).all() and (told["value"] <= told["high"]).all()
    card = (tmp_path / f"weights/cards/{paper.RELEASED}.md").read_text()
    assert f"| roc_auc | {told.loc['roc_auc', 'value']:.4f} |" in card
    assert card.count("| 0.5200 | 0.5700 |") == 2 and "{" not in card
    paper.main(["--verify", str(survey.folder)])


@pytest.mark.slow
def test_a_card_that_says_too_much_is_found_out(paper, trained, survey, tmp_path):  # noqa: F811
    run, _ = trained
    paper.main([str(run), str(survey.folder)])
    path = tmp_path / "weights/metrics.csv"
    table = pd.read_csv(path)
    table.loc[table["metric"] == "roc_auc", "value"] += 0.01
    table.to_csv(path, index=False)
    with pytest.raises(RunError, match="1 of 3 metrics"):
        paper.main(["--verify", str(survey.folder)])


@pytest.mark.slow
def test_other_cells_get_the_trunks_they_share(paper, trained, survey):  # noqa: F811
    run, model = trained
    paper.main([str(run), str(survey.folder)])
    settings = importlib.import_module("reproductions.sglc2.settings")
    config = settings.config_of("hjy.none", {"initial": "released"})
    other = paper.network.build_model(config, 1)
    paper.network.give_released(other, config)
    for ours, theirs in zip(other.get_layer("trunk_nir").get_weights(),
                            model.get_layer("trunk_nir").get_weights(), strict=True):  # fmt: skip
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-7)
    larger = settings.config_of("backbone.b3", {"initial": "released"})
    with pytest.raises(RunError, match="trunks of b2, expected b3"):
        paper.network.give_released(other, larger)
