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


def train(paper, folder, one):
    """Make run folders as the stages of a Release leave them; return the last, and its network."""
    keras.utils.set_random_seed(0)
    model = paper.network.build_model(one.config, 0)
    paper.network.set_bounds(
        model, {"vis": ([-2e-12], [2e-11]), "nir": ([-2e-12] * 3, [2e-11] * 3)}
    )
    for stage in one.stages:
        run = folder / f"sglc2-stand-in-{stage}-seed0"
        fold = run / "folds" / paper.SCALES[stage].cells[0] / "fold0"
        fold.mkdir(parents=True)
        history = {"run": [0, 0], "epoch": [1, 2], "loss": [0.61, 0.52], "val_loss": [0.63, 0.57]}
        pd.DataFrame(history).to_csv(fold / "history.csv", index=False)
        held_out = {"run": 0, "n_train": 45, "object_id": range(40), "label": np.arange(40) % 2,
                    "score": np.linspace(0.3, 0.7, 40)}  # fmt: skip
        pd.DataFrame(held_out).to_csv(fold / "table1.csv", index=False)
        made = {"keras": "3", "backend": "tensorflow", "scale": stage, "data": "stand-in"}
        (run / "run.json").write_text(json.dumps(made | {"seed": 0}))
    checkpoints.write_weights(model, fold / checkpoints.BEST, {})
    return run, model


@pytest.fixture
def trained(paper, tmp_path):
    return train(paper, tmp_path, paper.RELEASES[0])


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_released_scores_as_what_was_trained(
    paper, survey, tmp_path, monkeypatch, which  # noqa: F811
):  # fmt: skip
    monkeypatch.setattr(paper.network.backbones, "SMALL", (4, 8))
    one = paper.RELEASES[which]
    run, model = train(paper, tmp_path, one)
    paper.main([str(run), str(survey.folder)])
    images = {name: survey.batch(name, range(len(survey.catalog))) for name in ("vis", "nir")}
    wanted = model.predict(images, verbose=0)[:, 1]
    labels = survey.catalog["label"].to_numpy()
    told = pd.read_csv(tmp_path / "weights/metrics.csv").set_index("metric")
    assert told.loc["roc_auc", "value"] == pytest.approx(metrics.roc_auc(labels, wanted), abs=0.01)
    assert (told["low"] <= told["value"]).all() and (told["value"] <= told["high"]).all()
    card = (tmp_path / f"weights/cards/{one.name}.md").read_text()
    assert f"| roc_auc | {told.loc['roc_auc', 'value']:.4f} |" in card
    assert card.count("| 0.5200 | 0.5700 |") == len(one.stages) and "{" not in card
    paper.main(["--verify", str(survey.folder)])
    paper.main(["--describe", str(run)])
    monkeypatch.setattr(paper.networks.backbones, "efficient_net", small_trunk)
    opened = paper.networks.open_network(one.name, manifest=tmp_path / "weights/manifest.csv")
    cropped = {
        b.name: images[b.name][:, k : k + b.side, k : k + b.side]
        for b in opened.branches for k in [(images[b.name].shape[1] - b.side) // 2]
    }  # fmt: skip
    assert [b.side for b in opened.branches] == [[200, 66], [144, 48]][which]
    found = opened.model.predict(cropped, verbose=0)[:, 1]
    assert np.allclose(found, wanted, atol=2e-3) and np.ptp(wanted) > 1e-3


@pytest.mark.slow
def test_a_run_of_another_scale_is_not_released(paper, trained, survey):  # noqa: F811
    run, _ = trained
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": "quick"}))
    with pytest.raises(RunError, match="is of the scale quick, expected release or calibration"):
        paper.main([str(run), str(survey.folder)])


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_card_that_says_too_much_is_found_out(
    paper, survey, tmp_path, monkeypatch, which  # noqa: F811
):  # fmt: skip
    monkeypatch.setattr(paper.network.backbones, "SMALL", (4, 8))
    for one in paper.RELEASES:
        run, _ = train(paper, tmp_path, one)
        paper.main([str(run), str(survey.folder)])
    paper.main(["--verify", str(survey.folder)])
    path = tmp_path / "weights/metrics.csv"
    table = pd.read_csv(path)
    assert len(table) == 6
    changed = (table["metric"] == "roc_auc") & (table["name"] == paper.RELEASES[which].name)
    table.loc[changed, "value"] += 0.01
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
