"""Networks whose secret is known are found out; one that reads the lens is not accused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from cast_lens import images, score_shards, shortcuts
from cast_lens.intervals import Interval
from cast_lens.metrics import UndefinedMetric
from cast_lens.networks import Branch
from tests.fits_files import survey_file

SIDE, SCALE = 24, 0.5  # 12 arcsec
BRANCHES = (Branch("all", ("g", "r"), SIDE, SCALE, "all"),)
AT = (np.arange(SIDE) - (SIDE - 1) / 2) * SCALE
DISTANCE = np.hypot(AT[:, None], AT)


def scorer(logits, clip=None):
    return score_shards.Scorer("fake", "a" * 64, BRANCHES, None, clip or {}, "numpy",
                               lambda arrays: logits(arrays["all"]))  # fmt: skip


def center(x):
    """A network that only looks at the center."""
    return x[:, DISTANCE <= 1.5].mean(axis=(1, 2))


def noise(x):
    """A network that only looks at the width of the sky's noise, far from the center."""
    return x[:, DISTANCE > 4].std(axis=(1, 2))


def red(x):
    """A network that reads one band."""
    return x[..., 1].mean(axis=(1, 2))


def sky(n, louder=0.0):
    """Noise; lenses, every second object, have a bump at the center, or a louder sky."""
    rng, labels = np.random.default_rng(0), np.arange(n) % 2
    x = rng.normal(size=(n, SIDE, SIDE, 2)) * (1 + louder * labels[:, None, None, None])
    bump = 8 * np.exp(-(DISTANCE**2) / 2)[..., None] * [1, 0.5]
    return (x + labels[:, None, None, None] * bump).astype(np.float32), labels


@pytest.fixture
def made(tmp_path):
    """Write images and a table of labels; return a function that finds them."""

    def make(n=60, **options):
        x, labels = sky(n, **options)
        for k, object_id in enumerate(f"s{k:03}" for k in range(n)):
            for b, band in enumerate("gr"):
                data = survey_file(x[k, ..., b], f"PIXSCALE= {SCALE:20}")
                (tmp_path / f"{object_id}_{band}.fits").write_bytes(data)
        path = tmp_path / "labels.csv"
        pd.DataFrame(
            {"object_id": [f"s{k:03}" for k in range(n)], "label": labels}
        ).to_csv(path, index=False)  # fmt: skip
        return shortcuts.with_labels(images.find(tmp_path, bands=("g", "r")), path)

    return make


def judged(found, logits, **options):
    logits, tests, _, left_out = shortcuts.measure(
        found, lambda: scorer(logits, **options), batch=16, progress=False
    )
    assert not left_out
    return logits, shortcuts.judge(logits, tests, permutations=300).set_index("test")


def test_network_that_looks_at_the_center_is_at_chance_without_it(made):
    logits, table = judged(made(), center)
    assert table.loc["untouched", "auc"] == 1
    for test in ("center masked", "background only"):
        row = table.loc[test]
        assert row["low"] < 0.5 < row["high"]
        assert row["difference_high"] < 0 and row["p"] < 1e-3
        assert row["verdict"] in ("none seen", "undecided")
        assert row["auc"] == pytest.approx(roc_auc_score(logits["label"], logits[test]))
    assert table.loc["shuffled labels", "verdict"] == "above chance"


def test_network_that_reads_the_noise_is_found_out(made):
    _, table = judged(made(louder=0.5), noise)
    assert set(table.loc[["center masked", "background only"], "verdict"]) == {"shortcut"}
    assert "not the lens" in table.loc["center masked", "sentence"]


def test_network_of_one_band_is_as_good_with_that_band_and_reads_nothing_of_the_other(made):
    _, table = judged(made(), red)
    assert table.loc["r only", "verdict"] == "as good alone"
    assert table.loc["r only", "difference"] == 0
    assert table.loc["g only", "auc"] == 0.5  # all its logits are equal
    assert table.loc["g only", "verdict"] == "nothing alone"


def test_other_bands_are_at_the_lower_flux_of_the_clip_or_0():
    x = np.ones((1, SIDE, SIDE, 2), np.float32)
    clip = {"all": (np.array([-3.0, -5.0]), np.array([9.0, 9.0]))}
    found = shortcuts.one_band({"all": x}, BRANCHES, clip, "g")["all"]
    assert (found[..., 0] == 1).all() and (found[..., 1] == -5).all()
    assert (shortcuts.one_band({"all": x}, BRANCHES, {}, "r")["all"][..., 0] == 0).all()
    how = [test.how for test in shortcuts.alterations(scorer(red, clip)) if test.band == "g"]
    assert "lower flux" in how[0]


def test_hidden_is_the_disc_and_with_sources_all_that_is_bright():
    x = np.zeros((1, SIDE, SIDE, 2), np.float32)
    x[...] = np.random.default_rng(1).normal(10, 1, x.shape)
    x[0, 2, 3, 0] = 100
    masked = shortcuts.hide({"all": x}, BRANCHES, 3.0, sources=False)["all"]
    outside = DISTANCE > 3
    assert (masked[:, outside] == x[:, outside]).all()
    for k in range(2):
        assert np.allclose(masked[0, ~outside, k], np.median(x[0, outside, k]))
    hidden = shortcuts.hide({"all": x}, BRANCHES, 3.0, sources=True)["all"]
    assert hidden[0, 2, 3, 0] == pytest.approx(np.median(x[0, outside, 0]))
    changed = (hidden != x)[:, outside].mean()
    assert 0 < changed < 0.01  # of a Gaussian 0.13 % are 3 sd above


def test_permuted_aucs_are_distributed_as_mann_whitney():
    rng = np.random.default_rng(3)
    labels, scores = np.repeat([1, 0], [15, 25]), rng.normal(size=40)
    null = shortcuts.permuted_aucs(labels, scores, permutations=4000, seed=0)
    # mean 1/2 and variance (n + 1) / (12 n_1 n_0)
    sd = np.sqrt(41 / (12 * 15 * 25))
    assert null.mean() == pytest.approx(0.5, abs=4 * sd / np.sqrt(4000))
    assert null.std() == pytest.approx(sd, rel=0.05)
    p = mannwhitneyu(scores[:15], scores[15:], alternative="greater").pvalue
    share = np.mean(null >= roc_auc_score(labels, scores))
    assert share == pytest.approx(p, abs=0.03)


def test_random_network_is_undecided_and_within_chance(made):
    rng = np.random.default_rng(5)
    _, table = judged(made(), lambda x: rng.normal(size=len(x)))
    assert table.loc["center masked", "verdict"] == "undecided"
    assert table.loc["shuffled labels", "verdict"] == "chance"


@pytest.mark.parametrize(
    ("low", "high", "whole_low", "word"),
    [(0.51, 0.6, 0.9, "shortcut"), (0.4, 0.54, 0.9, "none seen"), (0.4, 0.56, 0.9, "undecided"),
     (0.2, 0.4, 0.9, "reversed"), (0.51, 0.6, 0.5, "undecided")],
)  # fmt: skip
def test_verdict_follows_the_rule(low, high, whole_low, word):
    test = shortcuts.alterations(scorer(center))[1]
    interval, whole = Interval(low, high), Interval(whole_low, 1)
    assert shortcuts._verdict(test, interval, whole, {}) == word


def test_run_writes_what_the_numbers_follow_from(made, tmp_path):
    table = shortcuts.run_tests(made(20), lambda: scorer(center), tmp_path / "out", batch=8,
                                permutations=20, progress=False)  # fmt: skip
    written = pd.read_csv(tmp_path / "out/shortcuts.csv")
    assert written["auc"].to_numpy() == pytest.approx(table["auc"].to_numpy())
    logits = pd.read_csv(tmp_path / "out/logits.csv")
    assert len(logits) == 20
    auc = roc_auc_score(logits["label"], logits["r only"])
    assert written.set_index("test").loc["r only", "auc"] == pytest.approx(auc)
    about = json.loads((tmp_path / "out/shortcuts.json").read_text())
    assert about["left_out"] == {} and about["n_scored"] == 20


def test_bands_of_the_images_stand_for_those_of_the_network_in_their_order(made):
    found = made(20)
    swapped, _, _, _ = shortcuts.measure(
        found, lambda: scorer(red), take=["r", "g"], progress=False
    )  # fmt: skip
    plain, _, _, _ = shortcuts.measure(found, lambda: scorer(lambda x: x[..., 0].mean(axis=(1, 2))),
                                       progress=False)  # fmt: skip
    assert swapped["untouched"].to_numpy() == pytest.approx(plain["untouched"].to_numpy())
    with pytest.raises(shortcuts.ShortcutError, match="found 1 bands, r"):
        shortcuts.measure(found, lambda: scorer(red), take=["r"], progress=False)


def test_broken_image_is_left_out_and_named(made, tmp_path):
    found = made(20)
    (tmp_path / "s004_g.fits").write_bytes(b"no image")
    logits, _, _, left_out = shortcuts.measure(found, lambda: scorer(center), progress=False)
    assert list(left_out) == ["s004"] and len(logits) == 19


def test_errors_say_what_is_missing(made, tmp_path):
    found = made(6)
    bare = images.find(tmp_path, bands=("g", "r"))
    with pytest.raises(shortcuts.ShortcutError, match="--labels"):
        shortcuts.measure(bare, lambda: scorer(center), progress=False)
    with pytest.raises(shortcuts.ShortcutError, match="--radius"):
        shortcuts.measure(found, lambda: scorer(center), radius=6.0, progress=False)
    (tmp_path / "other.csv").write_text("object_id,label\nx,1\n")
    with pytest.raises(shortcuts.ShortcutError, match="none of 6 objects"):
        shortcuts.with_labels(bare, tmp_path / "other.csv")
    with pytest.raises(shortcuts.ShortcutError, match="s000.*nan"):
        shortcuts.measure(found, lambda: scorer(lambda x: x[:, 0, 0, 0] * np.nan), progress=False)
    one_class = images.Images(**(vars(found) | {"table": found.table.assign(label=1)}))
    logits, tests, _, _ = shortcuts.measure(one_class, lambda: scorer(center), progress=False)
    with pytest.raises(UndefinedMetric):
        shortcuts.judge(logits, tests)
