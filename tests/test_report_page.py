"""The page: self-contained, escaped, honest about stand-ins, and what it says is in the folders."""

import base64
import html.parser
import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from cast_lens import (
    figures,
    provenance,
    report,
    report_page,
    report_runs,
    report_sections,
    run_figures,
    score_curves,
    scores,
    table,
)
from cast_lens.run import RunError
from tests.conftest import ROOT
from tests.test_verdicts import reproduced

EVIL = "<img src=http:x onerror=alert(1)> $\\bad$"
NAME = "_a$ <b onclick=x>"  # of an experiment: a folder's name cannot hold a slash
IDENTITY = {"data": "stand-in", "seed": 0, "scale": "quick", "sha256": "ab" * 32,
            "backend": "tensorflow", "keras": "3.15.1", "numpy": "2.4.6"}  # fmt: skip


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.links, self.inputs, self.ids = [], [], [], [], []
        self.images, self.figures, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found[name] for name in ("id",) if name in found]
        self.links += [found[name] for name in ("src", "href") if name in found]
        if tag == "input":
            self.inputs.append(found["id"])
        if tag == "tr":
            self.rows.append(found.get("class", ""))
        if tag == "img":
            self.images.append(found)
        if tag == "figure":
            self.figures.append(found.get("class", ""))

    def handle_data(self, data):
        self.text += data


def some_scores(n=60, runs=2, seed=0, squeeze=True):
    rng = np.random.default_rng(seed)
    parts = []
    for key in range(runs):
        labels = rng.random(n) < 0.3
        values = rng.normal(size=n) + labels
        values = 1 / (1 + np.exp(-values)) if squeeze else values
        ids = np.arange(n) + 1000 * key
        parts.append(scores.score_table(ids, labels, values.round(2), run=key, n_train=9))
    return pd.concat(parts)


def make_run(folder, name="sglc2-stand-in-quick-seed0", experiments=("table1.x",), **changes):
    path = folder / name
    path.mkdir(parents=True)
    identity = {key: value for key, value in (IDENTITY | changes).items() if value is not None}
    (path / "run.json").write_text(json.dumps(identity))
    for k, experiment in enumerate(experiments):
        here = path / experiment
        here.mkdir()
        scores.write_scores(some_scores(seed=k), here / "scores.csv")
    history = pd.DataFrame({"run": ["0", "0"], "epoch": [1, 2], "loss": [1, 0.5], EVIL: [0.1, 0.2]})
    history.to_csv(path / "table1.x" / "history.csv", index=False)
    figure, axes = figures.figure_with_axes(2, 1)
    axes.plot([0, 1])
    figures.save(figure, path / "figure_1.png")
    rows = [reproduced([0.8, 0.7], data=changes.get("data", "stand-in"), experiment="table1.x")]
    table.write_reproduced(rows, path / "reproduced.csv")
    return path


def make_page(papers, runs, named=(), **options):
    target = runs.parent / "report.html"
    said = report.write_page(target, papers, runs, named, **options)
    return Page(target.read_text(encoding="utf-8")), said


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """Return a folder of a few reported numbers and claims: the page of all takes a second."""
    folder = tmp_path_factory.mktemp("reproductions")
    for name in ("reported.csv", "claims.csv"):
        whole = table.read(ROOT / "reproductions" / name)
        whole.groupby("paper").head(2).to_csv(folder / name, index=False)
    return folder


@pytest.fixture(scope="module")
def shown(papers, tmp_path_factory):
    runs = tmp_path_factory.mktemp("report") / "runs"
    experiments = ("table1.x", NAME, "npix.bin10", "npix.bin20", "npix.bin100")
    make_run(runs, experiments=experiments, released=EVIL)
    return make_page(papers, runs)[0]


def test_page_runs_nothing_and_asks_the_network_for_nothing(shown):
    assert not {tag for tag, _ in shown.tags} & {"script", "link", "iframe", "object", "b onclick"}
    assert all(link.startswith(("#", "data:image/")) for link in shown.links)
    policy = next(found["content"] for tag, found in shown.tags if "http-equiv" in found)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not any(name.startswith("on") for _, found in shown.tags for name in found)


def test_names_and_values_that_look_like_tags_or_formulas_are_shown_as_they_are(shown):
    assert EVIL in shown.text and NAME in shown.text
    drawn = "".join(content(image) for image in shown.images if "svg" in image["src"])
    assert "onerror" in drawn and "<img" not in drawn and "<b " not in drawn


def content(image):
    return base64.b64decode(image["src"].partition(",")[2]).decode("latin-1")


def test_every_anchor_of_the_contents_is_there_once(shown):
    targets = {link[1:] for link in shown.links if link.startswith("#")}
    assert len(targets) > 6 and targets <= set(shown.ids)
    assert len(shown.ids) == len(set(shown.ids))


def test_every_verdict_in_a_row_has_a_box_in_the_filter(shown):
    words = {word for row in shown.rows for word in row.split() if word.startswith("v-")}
    assert "v-not" in words
    assert {f"f-{word[2:]}" for word in words} <= set(shown.inputs)
    assert {f"f-{word.split()[0]}" for word in report.VERDICTS} <= set(shown.inputs)


def test_all_figures_of_a_stand_in_say_so_in_the_figure_and_beside_it(shown):
    assert len(shown.images) > 8
    assert set(shown.figures) == {"fake"}
    assert all(image["alt"].endswith("STAND-IN DATA") for image in shown.images)
    own = [image for image in shown.images if "svg" in image["src"]]
    assert own and all("STAND-IN DATA" in content(image) for image in own)


def test_real_data_get_no_mark_and_unknown_data_do(papers, tmp_path):
    make_run(tmp_path / "real/runs", data="real")
    real, _ = make_page(papers, tmp_path / "real/runs")
    assert set(real.figures) == {""} and "STAND-IN" not in "".join(map(content, real.images))
    make_run(tmp_path / "none/runs", data=None)
    unknown, _ = make_page(papers, tmp_path / "none/runs")
    assert set(unknown.figures) == {"fake"}
    assert all(
        "DATA UNKNOWN" in content(image) for image in unknown.images if "svg" in image["src"]
    )


def test_a_run_that_says_stand_in_is_not_made_real_by_its_table(tmp_path):
    path = make_run(tmp_path)
    row = reproduced([0.8, 0.7], data="real", experiment="table1.x")
    table.write_reproduced([row], path / "reproduced.csv")
    assert report_runs.read_run(path).kind("table1.x") == "stand-in"


def test_provenance_is_what_run_json_says_and_the_rest_is_unknown(tmp_path):
    found = report_runs.read_run(make_run(tmp_path))
    told = report_sections.provenance(found)
    assert (told["seed"], told["scale"], told["data"]) == ("0", "quick", "STAND-IN DATA")
    assert told["SHA-256 of the survey"] == "ab" * 32
    assert told["versions"] == "keras 3.15.1, numpy 2.4.6"
    (origin,) = report_sections.origins(found)
    assert set(origin.values()) == {"unknown: the run did not record it"}
    assert {"commit", "processor", "memory"} <= set(origin)


def test_what_became_of_all_objects_is_told_where_a_run_kept_it(tmp_path):
    path = make_run(tmp_path)
    (path / "audit-sglc2.txt").write_text("n_catalog 3 = n_ok 2 + n_quarantined 1 (<b>)\n")
    told = report_sections.provenance(report_runs.read_run(path))
    assert told["objects of sglc2"] == "n_catalog 3 = n_ok 2 + n_quarantined 1 (<b>)"


def test_code_and_machine_of_every_start_are_shown_where_a_run_kept_them(tmp_path):
    path = make_run(tmp_path)
    (path / "origin.json").write_text(json.dumps([{"commit": "c0", "cores": 2}, {"commit": "c1"}]))
    first, second = report_sections.origins(report_runs.read_run(path))
    assert (first["commit"], first["cores"], second["commit"]) == ("c0", "2", "c1")
    assert second["cores"].startswith("unknown")


def test_page_of_nothing_that_was_run_says_so(papers, tmp_path):
    report.write_page(tmp_path / "report.html", papers, tmp_path / "runs")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "STAND-IN" not in text and "nothing was run" in text


@pytest.mark.parametrize("name", ["packs", "nowhere"])
def test_a_folder_without_run_json_is_an_error_that_says_what_to_name(tmp_path, name):
    (tmp_path / "packs").mkdir()
    with pytest.raises(RunError, match=f"{name} holds no run.json.*`make reproduce-"):
        report_runs.read_runs(tmp_path, [tmp_path / name])


BROKEN = {
    "no json": lambda path: (path / "run.json").write_text("{"),
    "a list": lambda path: (path / "run.json").write_text("[]"),
    "foreign": lambda path: (path / "run.json").write_text('{"network": "x"}'),
    "binary": lambda path: (path / "run.json").write_bytes(b"\xff\xfe\x00"),
    "nan": lambda path: (path / "table1.x/scores.csv").write_text(
        "run,n_train,object_id,label,score\n0,1,a,1,nan\n"
    ),
    "cut": lambda path: (path / "table1.x/scores.csv").write_text("run,n_tr"),
    "history": lambda path: (path / "table1.x/history.csv").write_text(""),
    "table": lambda path: (path / "reproduced.csv").write_text("a,b\n1,2\n"),
    "changed": lambda path: (path / "table1.x/done.json").write_text('{"scores.csv": "00"}'),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_run_is_named_in_one_line_and_is_an_error_if_asked_for(tmp_path, how):
    make_run(tmp_path / "runs", "sglc2-good-seed0")
    bad = make_run(tmp_path / "runs", "sglc2-bad-seed0")
    BROKEN[how](bad)
    found, skipped = report_runs.read_runs(tmp_path / "runs")
    assert [one.path.name for one in found] == ["sglc2-good-seed0"]
    assert list(skipped) == [bad]
    assert str(bad) in skipped[bad] and "\n" not in skipped[bad]
    for options in ({"named": [bad]}, {"strict": True}):
        with pytest.raises(RunError, match="sglc2-bad-seed0"):
            report_runs.read_runs(tmp_path / "runs", **options)


def test_a_skipped_run_is_on_the_page_and_other_folders_are_no_runs(papers, tmp_path):
    (make_run(tmp_path / "runs") / "run.json").write_text("{")
    (tmp_path / "runs/packs").mkdir()
    shown, said = make_page(papers, tmp_path / "runs")
    assert "Run folders that were skipped:" in shown.text
    assert len(said["skipped"]) == 1 and said["runs"] == []


def test_a_run_named_as_no_paper_is_refused(tmp_path):
    path = make_run(tmp_path, "mine")
    (path / "reproduced.csv").unlink()
    with pytest.raises(RunError, match="no known paper, expected one of sglc2"):
        report_runs.read_run(path)


def test_an_experiment_without_lenses_has_no_curves_and_says_why(tmp_path):
    path = make_run(tmp_path)
    only = scores.score_table(["a", "b"], [0, 0], [0.1, 0.2], run=0, n_train=1)
    scores.write_scores(only, path / "table1.x/scores.csv")
    found = report_runs.read_run(path)
    assert ("table1.x", "") not in found.curves
    assert found.undefined["table1.x"] == "all 2 scores are of objects that are no lenses"


@pytest.mark.slow
def test_figures_without_room_are_left_out_and_named(papers, tmp_path, monkeypatch):
    path = make_run(tmp_path / "runs")
    n_bytes = (path / "figure_1.png").stat().st_size
    monkeypatch.setattr(report_page, "PICTURE_BYTES", n_bytes - 1)
    (path / "figure_2.png").write_text("no picture")
    shown, _ = make_page(papers, tmp_path / "runs")
    assert "sglc2-stand-in-quick-seed0: figure_1.png: 0.0 MB, more than" in shown.text
    assert "figure_2.png" in shown.text and "expected a PNG file" in shown.text
    assert not any("image/png" in image["src"] for image in shown.images)
    monkeypatch.setattr(report_page, "PICTURE_BYTES", 10**6)
    monkeypatch.setattr(report_page, "PAGE_BYTES", 1)
    shown, _ = make_page(papers, tmp_path / "runs")
    assert shown.images == [] and "no room" in shown.text


@pytest.mark.slow
def test_numbers_of_a_named_run_stand_in_the_tables_and_a_dry_run_writes_nothing(papers, tmp_path):
    path = make_run(tmp_path / "runs", "sglc2-stand-in-quick-seed7", seed=7)
    name = {"experiment": "table1.hjy.none", "metric": "roc_auc"}
    row = reproduced([0.5123, 0.5123], data="stand-in", **name)
    table.write_reproduced([row | {"scale": "quick"}], path / "reproduced.csv")
    said = report.write_page(tmp_path / "report.html", papers, tmp_path / "runs", write=False)
    assert said["runs"] == [path.name]
    assert not (tmp_path / "report.html").exists()
    named, _ = make_page(papers, tmp_path / "runs", [path])
    assert "0.5123" in named.text and "1 was put in the tables above" in named.text
    other, _ = make_page(papers, tmp_path / "runs")  # as `make table`, which gathers seed 0
    assert "0 were put in the tables above" in other.text
    assert not (papers / "reproduced.csv").exists()


def test_figures_are_the_same_bytes_each_time(tmp_path):
    found = report_runs.read_run(make_run(tmp_path))
    first, second = ([one.content for one in run_figures.draw_run(found)] for _ in range(2))
    assert len(first) > 3 and first == second


def test_summary_counts_verdicts_by_kind_of_data():
    compared = pd.DataFrame(
        [("a", "real", "agrees"), ("b", "real", "agrees"), ("c", "real", "differs"),
         ("d", "stand-in", "no verdict: stand-in data"), ("e", "", "not run: no such"),
         ("f", "real", "not run: no run 3")],
        columns=["row_id", "data", "verdict"],
    )  # fmt: skip
    judged = pd.DataFrame({"claim_id": ["x"], "data": ["stand-in"], "verdict": ["supported"]})
    assert report_sections.summary(compared, judged) == (
        "6 numbers and 1 conclusion of the paper. On real data, of 3 numbers: 2 agrees, 1 differs. "
        "On stand-in data, 1 number was computed, without a verdict. 2 numbers were not run. "
        "On stand-in data, of 1 conclusion: 1 supported."
    )


def test_roc_and_purity_are_those_of_a_loop_over_thresholds():
    one = some_scores(n=80, runs=1)
    labels, values = one["label"].to_numpy(), one["score"].to_numpy()
    assert len(np.unique(values)) < len(values)  # ties
    cuts = [(values >= cut) for cut in np.unique(values)]
    points = [(labels[cut].sum(), (1 - labels[cut]).sum()) for cut in cuts]
    n_lens, n_other = labels.sum(), (1 - labels).sum()
    curves = score_curves.score_curves(one)[""]
    for rate, mean in curves.roc[["false_positive_rate", "mean"]].to_numpy():
        allowed = [tp for tp, fp in points if fp <= round(rate * n_other)]
        assert mean == max(allowed, default=0) / n_lens
    assert curves.roc["false_positive_rate"].iloc[0] == 1 / n_other
    for share, mean in curves.precision_recall[["completeness", "mean"]].to_numpy():
        tp, fp = min((p for p in points if p[0] >= round(share * n_lens)), key=sum)
        assert mean == tp / (tp + fp)


def test_bands_are_the_lowest_mean_and_highest_of_the_runs():
    both = some_scores(n=80, runs=2)
    rates = np.array([0.1, 0.5])
    alone = [
        score_curves.completeness_at(part["label"], part["score"], rates)
        for _, part in both.groupby("run")
    ]
    roc = score_curves.score_curves(both)[""].roc
    at = [np.searchsorted(roc["false_positive_rate"], rate, side="right") - 1 for rate in rates]
    assert (roc["low"] <= roc["mean"]).all() and (roc["mean"] <= roc["high"]).all()
    assert (roc["low"].iloc[at] <= np.minimum(*alone)).all()


def test_calibration_is_that_of_scikit_learn_with_bins_of_equally_many_objects():
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.4
    values = rng.beta(2 + labels, 2, 400)  # no two alike, so that none lies on an edge
    one = scores.score_table(range(400), labels, values, run=0, n_train=1)
    found, why = score_curves.calibrate(one)
    share, score = calibration_curve(labels, values, n_bins=10, strategy="quantile")
    assert why == "" and found["n"].tolist() == [40] * 10
    np.testing.assert_allclose(found["score"], score)
    np.testing.assert_allclose(found["lenses"], share)
    assert ((found["low"] < found["lenses"]) & (found["lenses"] < found["high"])).all()


def test_scores_that_are_no_probabilities_get_no_calibration_with_the_reason():
    found, why = score_curves.calibrate(some_scores(squeeze=False))
    assert found is None and "not in [0, 1]" in why
    found, why = score_curves.calibrate(some_scores(n=12, runs=1))
    assert found is None and why.startswith("12 objects")


def test_objects_scored_by_several_runs_get_no_wilson_interval():
    one = some_scores(n=100, runs=1)
    twice = pd.concat([one, one.assign(run="1")])
    assert score_curves.calibrate(twice)[0]["low"].isna().all()


def test_parts_of_a_run_key_and_only_the_last_training_size_make_curves():
    one = some_scores(n=40, runs=1)
    parts = [one.assign(run=key, n_train=n) for key, n in (("test.a", 9), ("test.b", 9), ("0", 3))]
    assert set(score_curves.score_curves(pd.concat(parts))) == {"test.a", "test.b"}


def test_roc_axis_is_logarithmic_and_ends_at_one_object(monkeypatch):
    monkeypatch.setattr(run_figures, "finish", lambda figure, *rest: figure)
    one = score_curves.score_curves(some_scores(n=200, runs=1))[""]
    axes = run_figures.draw_roc({"x": one}, "family", "real").axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == (1 / (one.n_objects - one.n_lenses), 1)


def test_n_pix_curve_stands_in_order_of_numbers_and_replaces_its_bins():
    curves = dict.fromkeys([("npix.bin100", ""), ("npix.bin10", ""), ("npix.bin20", ""),
                            ("scratch.n4", ""), ("scratch.n8", "")])  # fmt: skip
    found = run_figures.series_of(curves)
    numbers = [(10, "npix.bin10"), (20, "npix.bin20"), (100, "npix.bin100")]
    assert found == {"bin": {"npix": numbers}}
    left = run_figures.families(curves, {name for _, name in numbers})
    assert left == {"scratch": [("scratch.n4", ""), ("scratch.n8", "")]}


@pytest.mark.parametrize(("n", "sizes"), [(8, [8]), (9, [5, 4]), (22, [8, 7, 7])])
def test_no_figure_holds_more_curves_than_can_be_told_apart(n, sizes):
    found = run_figures.families(dict.fromkeys((f"t.{k:02}", "") for k in range(n)), set())
    assert [len(keys) for keys in found.values()] == sizes
    assert [key for keys in found.values() for key in keys] == [(f"t.{k:02}", "") for k in range(n)]


def test_a_figure_of_many_points_becomes_a_png_if_that_is_smaller():
    history = pd.DataFrame({"epoch": range(20000), "loss": np.random.default_rng(0).random(20000)})
    (one,) = run_figures.draw_history(history, "x", "stand-in")
    assert one.media == "image/png" and one.content.startswith(b"\x89PNG")
    assert len(one.content) > 1000


def test_commit_is_that_of_a_repository_which_holds_the_package_and_of_no_other(tmp_path):
    def git(*words):
        done = subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    own, foreign = tmp_path / "own", tmp_path / "foreign"
    for package in (own, foreign):
        package.mkdir()
        (package / "__init__.py").write_text("")
    assert provenance.commit(own).startswith("none: ")
    git("init", "-q")
    git("add", "own")
    git("commit", "-q", "-m", "x")
    assert provenance.commit(own) == git("rev-parse", "HEAD")
    assert provenance.commit(foreign).startswith("none: ")  # as an installed package in a checkout
    (own / "__init__.py").write_text("x = 1")
    assert provenance.commit(own) == git("rev-parse", "HEAD") + " and changes since"


def test_machine_of_the_report_is_on_the_page_and_labelled_so(shown):
    here = provenance.here()
    assert "at the time of this report, not of the runs" in shown.text
    assert here["processor"] in shown.text and here["memory"] in shown.text
    assert re.fullmatch(r"[\d.]+ GiB", here["memory"])
