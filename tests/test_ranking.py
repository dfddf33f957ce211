"""What is chosen is what the strategy says, once, in one order, from labels as they are."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from cast_lens import candidates, grading, images, pools, ranking

N = 400


def make_pool(n=N, n_features=5, seed=0):
    """A pool whose lenses, one in five, differ in two features of very different scales."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.2
    features = rng.normal(size=(n, n_features)) + np.outer(truth, [1.5, 1, 0, 0, 0])
    features = np.float32(features * [1, 100, 1e-3, 1, 1] + [0, 5, 0, -3, 0])
    ids = pd.Index([f"{k:05d}" for k in range(n)], dtype=object)
    return pools.Pool("a pool", ids, features), truth.astype(int)


def labels_of(pool, truth, places):
    ids = pool.object_ids[places].to_numpy(object)
    return pd.DataFrame({"object_id": ids, "label": pd.array(truth[places], "Int64")})


@pytest.fixture
def pool_and_labels():
    pool, truth = make_pool()
    return pool, labels_of(pool, truth, np.random.default_rng(1).permutation(N)[:120])


def free_of(pool, labels):
    return np.flatnonzero(~pool.object_ids.isin(labels["object_id"]))


def standardized(pool):
    return StandardScaler().fit_transform(pool.features.astype(np.float64))


def known(pool, labels):
    return pool.object_ids.get_indexer(labels["object_id"]), labels["label"].to_numpy(int)


@pytest.mark.parametrize("class_weight", ["balanced", None, {0: 1.0, 1: 7.0}])
def test_probabilities_are_those_of_the_plain_scikit_learn_model(pool_and_labels, class_weight):
    pool, labels = pool_and_labels
    free = free_of(pool, labels)
    table, counts = ranking.rank(
        pool, labels, strategy="random", n=len(free), seed=0, class_weight=class_weight
    )
    places, y = known(pool, labels)
    z = standardized(pool)
    model = LogisticRegression(C=counts.strength, class_weight=class_weight, max_iter=1000)
    p = model.fit(z[places], y).predict_proba(z)[:, 1]
    found = table.set_index("object_id")["probability"]
    np.testing.assert_allclose(found[pool.object_ids[free]], p[free], rtol=1e-6)
    assert (counts.n_pool, counts.n_lenses, counts.n_others) == (N, y.sum(), len(y) - y.sum())


def test_strength_is_that_of_the_least_weighted_loss_on_held_out_labels(pool_and_labels):
    pool, labels = pool_and_labels
    places, y = known(pool, labels)
    x, losses = standardized(pool)[places], []
    folds = list(StratifiedKFold(5, shuffle=True, random_state=3).split(x, y))
    weights = compute_sample_weight("balanced", y)
    for strength in ranking.STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        each = [
            log_loss(y[out], model.fit(x[rest], y[rest]).predict_proba(x[out]),
                     sample_weight=weights[out])
            for rest, out in folds
        ]  # fmt: skip
        losses.append(np.mean(each))
    _, counts = ranking.rank(pool, labels, strategy="margin", n=1, seed=3)
    assert counts.strength == ranking.STRENGTHS[int(np.argmin(losses))]
    assert "5-fold cross-validation" in counts.classifier


def test_few_labels_have_the_stated_strength(pool_and_labels):
    pool, labels = pool_and_labels
    few = pd.concat([labels[labels["label"] == 1][:9], labels[labels["label"] == 0][:30]])
    _, counts = ranking.rank(pool, few, strategy="margin", n=1, seed=0)
    assert counts.strength == ranking.STRENGTH
    assert "9 labels of the rarer class are too few" in counts.classifier
    assert counts.class_weight == pytest.approx({0: 39 / 60, 1: 39 / 18})


def all_probabilities(pool, labels):
    free = free_of(pool, labels)
    table, counts = ranking.rank(pool, labels, strategy="random", n=len(free), seed=0)
    found = table.set_index("object_id")["probability"]
    return free, found[pool.object_ids[free]].to_numpy(), counts


@pytest.mark.parametrize(
    ("strategy", "judge", "sign"),
    [
        ("top_score", lambda p: p, -1),
        ("margin", lambda p: abs(p - (1 - p)), 1),
        ("entropy", lambda p: -(p * np.log(p) + (1 - p) * np.log(1 - p)), -1),
    ],
)
def test_scores_and_uncertainties_are_sorted(pool_and_labels, strategy, judge, sign):
    pool, labels = pool_and_labels
    free, p, _ = all_probabilities(pool, labels)
    expected = np.argsort(sign * judge(p), kind="stable")[:25]
    table, _ = ranking.rank(pool, labels, strategy=strategy, n=25, seed=0)
    assert table["object_id"].tolist() == pool.object_ids[free[expected]].tolist()
    np.testing.assert_allclose(table["value"], judge(p)[expected], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(table["probability"], p[expected])
    assert table["rank"].tolist() == list(range(1, 26))


@pytest.mark.parametrize("n_labels", [0, 1, 40])
def test_core_set_takes_the_farthest_each_time(pool_and_labels, n_labels):
    pool, labels = pool_and_labels
    labels = labels[:n_labels]
    z, free = standardized(pool), free_of(pool, labels)
    centers = [z[k] for k in known(pool, labels)[0]]
    chosen, values = [], []
    for _ in range(15):
        here = centers or [z[free].mean(axis=0)]
        distance = cdist(z[free], here).min(axis=1)
        chosen.append(int(distance.argmax()))
        values.append(distance.max())
        centers.append(z[free[chosen[-1]]])
    table, _ = ranking.rank(pool, labels, strategy="core_set", n=15, seed=0)
    assert table["object_id"].tolist() == pool.object_ids[free[chosen]].tolist()
    np.testing.assert_allclose(table["value"], values, rtol=1e-5)


def outer_products(pool, labels):
    """Return what is free, and the gradient of the weighted loss of each, written out."""
    free, p, counts = all_probabilities(pool, labels)
    z = np.hstack([standardized(pool)[free], np.ones((len(free), 1))])
    called = (p > 0.5).astype(int)
    weight = np.array([counts.class_weight[0], counts.class_weight[1]])[called]
    return free, (weight * (p - called))[:, None] * z


def test_badge_seeds_k_means_on_the_gradients_of_the_loss(pool_and_labels):
    pool, labels = pool_and_labels
    free, points = outer_products(pool, labels)
    rng, chosen = np.random.default_rng(4), [int((points**2).sum(axis=1).argmax())]
    for _ in range(11):
        nearest = (cdist(points, points[chosen]) ** 2).min(axis=1)
        chosen.append(int(rng.choice(len(points), p=nearest / nearest.sum())))
    table, _ = ranking.rank(pool, labels, strategy="badge", n=12, seed=4)
    assert table["object_id"].tolist() == pool.object_ids[free[chosen]].tolist()
    np.testing.assert_allclose(table["value"], np.linalg.norm(points[chosen], axis=1), rtol=1e-4)


@pytest.mark.parametrize("strategy", ranking.STRATEGIES)
def test_every_unlabelled_object_is_chosen_once_and_no_other(pool_and_labels, strategy):
    pool, labels = pool_and_labels
    labels.loc[::10, "label"] = pd.NA  # grade C: looked at, no answer
    free = free_of(pool, labels)
    table, counts = ranking.rank(pool, labels, strategy=strategy, n=len(free), seed=0)
    assert sorted(table["object_id"]) == pool.object_ids[free].tolist()
    assert counts.n_undecided == 12 and counts.n_lenses + counts.n_others == 108


@pytest.mark.parametrize("strategy", ranking.STRATEGIES)
def test_choice_depends_on_the_seed_alone(pool_and_labels, strategy, monkeypatch):
    pool, labels = pool_and_labels
    labels = labels[:40]  # too few for a cross-validation, whose folds hang on the seed too
    first, _ = ranking.rank(pool, labels, strategy=strategy, n=30, seed=1)
    again, _ = ranking.rank(pool, labels, strategy=strategy, n=30, seed=1)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    monkeypatch.setattr(ranking, "CHUNK", 7)
    parts, _ = ranking.rank(pool, labels, strategy=strategy, n=30, seed=1)
    assert parts["object_id"].tolist() == first["object_id"].tolist()
    other, _ = ranking.rank(pool, labels, strategy=strategy, n=30, seed=2)
    is_drawn = strategy in ("badge", "random")
    assert is_drawn == (other["object_id"].tolist() != first["object_id"].tolist())


@pytest.mark.parametrize("strategy", ["top_score", "margin", "entropy", "core_set"])
def test_ties_keep_the_order_of_the_pool(strategy):
    pool, truth = make_pool(40)
    same = pools.Pool("a pool", pool.object_ids, np.vstack([pool.features[:20]] + 20 * [
        pool.features[:1]]))  # fmt: skip
    labels = labels_of(pool, truth, np.r_[np.flatnonzero(truth[1:20])[:2] + 1,
                                          np.flatnonzero(truth[1:20] == 0)[:2] + 1])  # fmt: skip
    table, _ = ranking.rank(same, labels, strategy=strategy, n=36, seed=0)
    tied = [k for k in table["object_id"] if k == "00000" or k >= "00020"]
    assert tied == sorted(tied) and len(tied) == 21


def test_saturated_probabilities_are_told_apart_by_their_logits():
    x = np.float32(np.r_[np.linspace(-1, 1, 40), 90, 99, 95])
    pool = pools.Pool("a pool", pd.Index([str(k) for k in range(43)], dtype=object), x[:, None])
    labels = labels_of(pool, (x > 0).astype(int), np.arange(40))
    table, _ = ranking.rank(pool, labels, strategy="top_score", n=3, seed=0)
    assert (table["probability"] == 1).all()
    assert table["object_id"].tolist() == ["41", "42", "40"]


@pytest.mark.parametrize("strategy", ["badge", "top_score", "entropy", "margin"])
@pytest.mark.parametrize("which", ["none", "empty", "one class", "undecided"])
def test_without_both_classes_the_error_says_how_to_begin(pool_and_labels, strategy, which):
    pool, labels = pool_and_labels
    labels = {
        "none": None,
        "empty": labels[:0],
        "one class": labels[labels["label"] == 0],
        "undecided": labels.assign(label=pd.array([pd.NA] * len(labels), "Int64")),
    }[which]
    found = "labels of 0 lenses and .* needs both; begin with --strategy core_set or random"
    with pytest.raises(ranking.RankingError, match=found):
        ranking.rank(pool, labels, strategy=strategy, n=3, seed=0)
    for begin in ranking.WITHOUT_CLASSIFIER:
        table, counts = ranking.rank(pool, labels, strategy=begin, n=3, seed=0)
        assert table["probability"].isna().all() and counts.classifier == ""
        assert labels is None or not table["object_id"].isin(labels["object_id"]).any()


def test_labels_of_other_objects_are_counted_and_change_nothing(pool_and_labels):
    pool, labels = pool_and_labels
    others = pd.DataFrame({"object_id": ["x", "123"], "label": pd.array([1, 0], "Int64")})
    table, counts = ranking.rank(pool, labels, strategy="badge", n=9, seed=0)
    more, with_others = ranking.rank(
        pool, pd.concat([others, labels]), strategy="badge", n=9, seed=0
    )
    pd.testing.assert_frame_equal(table, more)
    assert (counts.n_absent, with_others.n_absent) == (0, 2)


def test_ids_that_lost_their_zeros_are_an_error(pool_and_labels):
    pool, labels = pool_and_labels
    labels["object_id"] = labels["object_id"].str.lstrip("0")
    labels = labels[~labels["object_id"].isin(pool.object_ids)]
    with pytest.raises(ranking.RankingError, match=r"none of the .* \(the first is '00000'\)"):
        ranking.rank(pool, labels, strategy="random", n=3, seed=0)


@pytest.mark.parametrize("n", [0, -1, 281, 10**9])
def test_more_than_is_left_cannot_be_chosen(pool_and_labels, n):
    pool, labels = pool_and_labels
    with pytest.raises(ranking.RankingError, match=f"found {n}, expected 1 to 280: so many of"):
        ranking.rank(pool, labels, strategy="random", n=n, seed=0)


def test_constant_and_huge_features_do_no_harm(pool_and_labels):
    pool, labels = pool_and_labels
    _, p, _ = all_probabilities(pool, labels)
    more = np.hstack([pool.features, np.full((N, 1), 7, np.float32)])
    odd = pools.Pool("a pool", pool.object_ids, more)
    np.testing.assert_allclose(all_probabilities(odd, labels)[1], p, rtol=1e-6)
    odd.features[:, 5] = np.where(np.arange(N) % 2, 3e38, -3e38)
    assert np.isfinite(all_probabilities(odd, labels)[1]).all()


def test_grades_of_the_page_are_the_labels(tmp_path, pool_and_labels):
    pool, labels = pool_and_labels
    grades = np.where(labels["label"] == 1, "A", "X")
    grades[:3] = "C"
    exported = labels.assign(grade=grades)
    exported.loc[:2, "label"] = pd.NA
    exported.to_csv(tmp_path / "labels.csv", index=False)
    read = ranking.read_labels([tmp_path / "labels.csv"])
    table, counts = ranking.rank(pool, read, strategy="badge", n=5, seed=0)
    expected, _ = ranking.rank(pool, exported, strategy="badge", n=5, seed=0)
    pd.testing.assert_frame_equal(table, expected)
    assert counts.n_undecided == 3


def write_rounds(folder, *texts):
    paths = [folder / f"round{k}.csv" for k in range(len(texts))]
    for path, text in zip(paths, texts):
        path.write_text(text)
    return paths


def test_labels_of_several_rounds_are_joined(tmp_path):
    paths = write_rounds(
        tmp_path,
        "object_id,label,grade\n001,1,A\n1,0,X\nc,,C\nd,,C\n",
        "object_id,label\n001,1\nc,0\n'=x,1\n",
        "object_id,label,grade\nd,,C\n1,,C\n",
    )
    table = ranking.read_labels(paths)
    found = dict(zip(table["object_id"], table["label"].astype("float")))
    assert len(table) == 5 and np.isnan(found.pop("d"))
    assert found == {"001": 1, "1": 0, "c": 0, "=x": 1}


def test_labels_that_contradict_name_both_files(tmp_path):
    paths = write_rounds(tmp_path, "object_id,label\na,1\nb,1\n", "object_id,label\nb,0\n")
    with pytest.raises(ranking.RankingError, match="round1.csv.* 0 of object_id b, .* 1 in .*und0"):
        ranking.read_labels(paths)


@pytest.mark.parametrize("kind", ["int64", "float64", "Int64"])
def test_labels_may_be_numbers_of_any_kind(pool_and_labels, kind):
    pool, labels = pool_and_labels
    expected, _ = ranking.rank(pool, labels, strategy="margin", n=5, seed=0)
    found, _ = ranking.rank(pool, labels.astype({"label": kind}), strategy="margin", n=5, seed=0)
    pd.testing.assert_frame_equal(found, expected)


def test_written_choice_runs_in_no_spreadsheet_and_says_what_was_done(tmp_path, pool_and_labels):
    pool, labels = pool_and_labels
    pool = pools.Pool("a pool", "=" + pool.object_ids, pool.features)
    labels["object_id"] = "=" + labels["object_id"]
    table, counts = ranking.rank(pool, labels, strategy="badge", n=5, seed=0)
    ranking.write(tmp_path / "next", table, counts, {"strategy": "badge", "seed": 0})
    with open(tmp_path / "next" / "to_label.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["object_id", "rank", "probability", "value"]
    assert [row[0] for row in rows[1:]] == ["'" + name for name in table["object_id"]]
    assert [float(row[2]) for row in rows[1:]] == table["probability"].tolist()
    told = json.loads((tmp_path / "next" / "ranking.json").read_text())
    assert told["strategy"] == "badge" and told["strength"] == counts.strength
    assert told["n_lenses"] == counts.n_lenses and told["class_weight"].keys() == {"0", "1"}


def test_unknown_is_empty_in_the_table_and_null_in_json(tmp_path):
    pool, _ = make_pool()
    table, counts = ranking.rank(pool, None, strategy="random", n=2, seed=0)
    ranking.write(tmp_path, table, counts, {})
    assert (tmp_path / "to_label.csv").read_text().splitlines()[1].endswith(",1,,")
    assert json.loads((tmp_path / "ranking.json").read_text())["strength"] is None


def scored(folder, pool, about=None):
    """Candidates of a pool, in another order than the pool's, as `cast-lens score` writes them."""
    n = len(pool.object_ids)
    logit = np.linspace(5, -5, n)
    table = pd.DataFrame({"object_id": pool.object_ids[::-1].to_numpy(object), "logit": logit})
    table = table.assign(
        ra=1.0, dec=2.0, score=1 / (1 + np.exp(-logit)), probability=np.nan, spread=np.nan,
        rank=np.arange(1, n + 1), flags="", weights="0123456789ab",
    )  # fmt: skip
    about = about or {
        "images": {"source": "/survey", "bands": ["VIS"]},
        "options": {},
        "network": [],
    }
    candidates.write(folder, table, about)
    return about


def test_chosen_candidates_are_a_folder_of_candidates_in_the_new_order(tmp_path, pool_and_labels):
    pool, labels = pool_and_labels
    about = scored(tmp_path / "candidates", pool)
    table, counts = ranking.rank(pool, labels, strategy="badge", n=7, seed=0)
    ranking.write(tmp_path / "next", table, counts, {}, candidates_folder=tmp_path / "candidates")
    made = candidates.read(tmp_path / "next" / "candidates")
    assert made["object_id"].tolist() == table["object_id"].tolist()
    assert made["rank"].tolist() == list(range(1, 8))
    logit = dict(zip(pool.object_ids[::-1], np.linspace(5, -5, N)))
    assert made["logit"].tolist() == [logit[name] for name in table["object_id"]]
    told = json.loads((tmp_path / "next" / "candidates" / "run.json").read_text())
    assert told == about  # so `cast-lens grade` finds the images


def test_chosen_candidates_go_round_from_images_to_the_page_that_grades_them(tmp_path):
    (tmp_path / "cuts").mkdir()
    pool, truth = make_pool(30)
    for name in pool.object_ids:
        pixels = np.full((8, 8), float(name), np.float32)
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"cuts/{name}.fits")
    about = {
        "images": images.fingerprint(images.find(tmp_path / "cuts")),
        "options": {"pixel_scale": None, "mask_value": None},
    }
    scored(tmp_path / "candidates", pool, about)
    labels = labels_of(pool, truth, np.arange(20))
    table, counts = ranking.rank(pool, labels, strategy="badge", n=4, seed=0)
    ranking.write(tmp_path / "next", table, counts, {}, candidates_folder=tmp_path / "candidates")
    told = json.loads((tmp_path / "next" / "candidates" / "run.json").read_text())
    page = grading.grade(
        candidates.read(tmp_path / "next" / "candidates"), images.find_again(told),
        tmp_path / "grade.html",
    )  # fmt: skip
    assert (page.n, page.n_without_image) == (4, 0)


def test_candidates_of_other_objects_or_without_origin_write_nothing(tmp_path, pool_and_labels):
    pool, labels = pool_and_labels
    scored(tmp_path / "candidates", pool)
    table, counts = ranking.rank(pool, labels, strategy="badge", n=7, seed=0)
    other = table.assign(object_id=["x" + name for name in table["object_id"]])
    for wrong, found in ((other, "no candidate x.*nor 6 others"), (table, "no source of images")):
        with pytest.raises(ranking.RankingError, match=found):
            ranking.write(
                tmp_path / "next", wrong, counts, {}, candidates_folder=tmp_path / "candidates"
            )
        assert not (tmp_path / "next").exists()
        (tmp_path / "candidates" / "run.json").unlink(missing_ok=True)


def test_real_lenses_come_first_after_some_labels(feature_table):
    """Li, Eadie & Walmsley (2025): 255 lenses among 3,329 objects of Euclid Q1."""
    pool = pools.open_pool(feature_table)
    truth = pd.read_csv(feature_table)["label"].to_numpy(int)
    labels = labels_of(pool, truth, np.random.default_rng(0).permutation(len(truth))[:500])
    free = free_of(pool, labels)
    table, _ = ranking.rank(pool, labels, strategy="top_score", n=len(free), seed=0)
    answer = truth[pool.object_ids.get_indexer(table["object_id"])]
    chance = answer.mean()
    assert answer[:100].mean() > 4 * chance
    assert roc_auc_score(answer, -table["rank"]) > 0.8
