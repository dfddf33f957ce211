"""Figures 1 and 4 of Bom et al. (2022): which objects they show, and how they are scaled."""

import importlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

N, SAMPLE = 60, np.arange(5, 45)


@pytest.fixture(scope="module")
def stamps():
    return importlib.import_module("reproductions.sglc2.stamps")


@pytest.fixture(scope="module")
def survey():
    """Objects in memory: noise, and a source in the middle of a lens."""
    rng = np.random.default_rng(4)
    catalog = pd.DataFrame({
        "object_id": [str(200_000 + k) for k in range(N)], "label": np.arange(N) % 2,
        "n_pix_source": rng.permutation(N) * 5, "mag_eff": rng.uniform(1, 9, N),
    })  # fmt: skip
    images = {
        "vis": rng.standard_normal((N, 200, 200, 1)).astype(np.float32) * 1e-12,
        "nir": rng.standard_normal((N, 66, 66, 3)).astype(np.float32) * 1e-11,
    }
    for image in images.values():
        middle = image.shape[1] // 2
        image[1::2, middle, middle] += 1e-9
    pack = SimpleNamespace(catalog=catalog, batch=lambda name, rows: images[name][rows])
    return SimpleNamespace(
        pack=pack, sample=SAMPLE, parts=[{"train": SAMPLE[:30]}], title="STAND-IN DATA"
    )


def test_an_image_is_clipped_and_each_band_fills_the_range(stamps):
    image = np.array([[[-5.0, 7], [0, 7]], [[10, 7], [40, 7]]])  # (2, 2, 2), the last band constant
    assert np.array_equal(stamps.shown(image)[..., 0], [[0, 5 / 45], [15 / 45, 1]])
    clipped = stamps.shown(image, [[0, 0], [20, 20]])
    assert np.array_equal(clipped[..., 0], [[0, 0], [0.5, 1]])
    assert not clipped[..., 1].any() and not stamps.shown(image)[..., 1].any()


def test_objects_are_those_of_the_sample_by_growing_n_pix(stamps, survey):
    lenses, others = stamps.by_n_pix(survey, 1), stamps.by_n_pix(survey, 0)
    assert sorted([*lenses, *others]) == SAMPLE.tolist()
    for rows, label in ((lenses, 1), (others, 0)):
        chosen = survey.pack.catalog.iloc[rows]
        assert (chosen["label"] == label).all() and chosen["n_pix_source"].is_monotonic_increasing
    assert [stamps.at(lenses, f) for f in (0, 0.5, 1)] == [lenses[0], lenses[10], lenses[-1]]


def test_both_figures_show_these_objects_scaled_by_the_bounds_of_the_training_part(
    stamps, survey, tmp_path, monkeypatch
):
    drawn = {}
    monkeypatch.setattr(
        stamps.figures, "save", lambda figure, path: drawn.update({path.name: figure})
    )
    stamps.draw_stamps(tmp_path, survey)
    assert set(drawn) == {"figure_1.png", "figure_4.png"}
    catalog = survey.pack.catalog
    first = np.reshape(drawn["figure_1.png"].axes, (4, 5))
    assert [each.get_title() for each in first[0]] == ["H", "J", "Y", "VIS", "HJY"]
    chosen = catalog.iloc[SAMPLE].sort_values("n_pix_source", kind="stable")
    lens = chosen[chosen["label"] == 1].iloc[round(stamps.IN_FIGURE_1 * 19)]
    other = chosen[chosen["label"] == 0].iloc[0]
    for k, one in enumerate((lens, lens, other, other)):
        label = first[k, 0].get_ylabel()
        assert one["object_id"] in label and f"{one['n_pix_source']:.0f}" in label
        assert f"{one['mag_eff']:.1f}" in label
        image = survey.pack.batch("vis", [one.name])[0, ..., 0].astype(np.float64)
        if k % 2:  # after pre-processing
            training = survey.pack.batch("vis", SAMPLE[:30]).astype(np.float64)
            image = np.clip(image, *np.percentile(training, [0.1, 99.0]))
        wanted = (image - image.min()) / (image.max() - image.min())
        assert np.allclose(first[k, 3].images[0].get_array(), wanted, atol=1e-12)
    fourth = np.reshape(drawn["figure_4.png"].axes, (2, 4))
    n_pix = []  # of 20 lenses, two of the five places are the same
    for column in fourth.T:
        object_id = column[0].get_title().split(",")[0]
        one = catalog.set_index("object_id").loc[object_id]
        assert one["label"] == 1
        n_pix.append(one["n_pix_source"])
        assert [each.images[0].get_array().shape for each in column] == [(200, 200), (66, 66, 3)]
    assert n_pix == sorted(n_pix, reverse=True) and len(set(n_pix)) == len(n_pix)
    for figure in drawn.values():
        assert "STAND-IN" in figure.get_suptitle()


def test_a_sample_of_one_class_has_no_such_figures(stamps, survey, tmp_path):
    odd = SimpleNamespace(pack=survey.pack, sample=SAMPLE[SAMPLE % 2 == 1], title="")
    stamps.draw_stamps(tmp_path, odd)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_figures_are_the_same_bytes_each_time(stamps, survey, tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stamps.draw_stamps(tmp_path / name, survey)
        found.append([(tmp_path / name / f"figure_{k}.png").read_bytes() for k in (1, 4)])
    assert found[0] == found[1] and all(data[:4] == b"\x89PNG" for data in found[0])
