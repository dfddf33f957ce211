"""What people read: escaped, self-contained, aligned, and only the block of the README touched."""

import html.parser
import re
import signal

import pandas as pd
import pytest

from cast_lens import claims, cli, figures, report, run, table, verdicts
from tests.test_verdicts import reported, reproduced

EVIL = "<script>alert(1)</script>|=cmd"


@pytest.fixture
def judged(tmp_path):
    rows = [reproduced([0.8, 0.81, 0.79]), reproduced([0.7, 0.9], metric="m", data="stand-in")]
    table.write_reproduced(rows, tmp_path / "reproduced.csv")
    told = pd.DataFrame(
        [
            reported(source=EVIL),
            reported(row_id="b", metric="m"),
            reported(row_id="c", paper="epfl"),
        ]
    )
    claim = {
        "claim_id": "c", "paper": "sglc2", "statement": EVIL, "left": "x/roc_auc", "relation": ">",
        "right": "0.5", "survey": "s", "source": "", "note": "",
    }  # fmt: skip
    found = table.read(tmp_path / "reproduced.csv")
    return verdicts.compare(told, found), claims.judge_claims(pd.DataFrame([claim]), found, told)


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_page_escapes_what_it_shows_and_loads_nothing(judged, tmp_path):
    figures.means_with_errors(
        {"x": [1.0, 2.0]}, tmp_path / "f.png", title="t", ylabel="y", reported={"x": ["1", "2"]}
    )
    text = report.page(*judged, [tmp_path / "f.png"], EVIL)
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.tags
    pictures = [link for link in tags.links if not link.startswith("#")]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,")
    assert text.count("&lt;script&gt;") >= 3


def test_markdown_has_one_line_a_row_and_escapes_bars_and_tags(judged):
    compared, claimed = judged
    lines = report.markdown(report.readable(compared)).splitlines()
    assert len(lines) == 2 + len(compared)
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1
    assert "<script>" not in report.markdown(report.readable_claims(claimed))


@pytest.mark.parametrize("metric, shown", [
    ("roc_auc", "0.5 [0, 1]"), ("recall.subhalo", "0.5 [0, 1]"), ("max_f_beta_0.001", "0.5 [0, 1]"),
    ("val_loss", "0.5 [-0.25, 1.5]"), ("roc_auc_gain_after_epoch_10", "0.5 [-0.25, 1.5]"),
])  # fmt: skip
def test_an_interval_of_what_lies_between_0_and_1_is_cut_there(metric, shown):
    row = {"experiment": "x", "run": "", "metric": metric, "value": "0.6", "uncertainty": "",
           "reproduced": 0.5, "low": -0.25, "high": 1.5, "verdict": "", "source": ""}  # fmt: skip
    found = report.readable(pd.DataFrame([row]))
    assert found["reproduced [95 %]"].tolist() == [shown]


def test_rows_not_run_and_stand_in_rows_are_shown_as_such(judged):
    text = report.markdown(report.readable(judged[0]))
    assert "not run: this paper's reproduction is not in this version" in text
    assert "| stand-in, paper scale |" in text
    assert "no verdict: stand-in data" in text


def test_counts_add_up_to_the_rows(judged):
    counts = report.counts(judged[0])
    assert counts["numbers"].sum() == len(judged[0])
    assert (counts.drop(columns=["paper", "numbers"]).sum(axis=1) == counts["numbers"]).all()


def test_readme_keeps_what_is_around_the_block(judged, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    block = report.readme_block(*judged)
    report.write_readme(path, block)
    report.write_readme(path, block)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and text.count(report.BEGIN) == 1


def test_pages_of_runs_are_published_and_linked_by_their_paper_alone(judged, tmp_path):
    for name, text in (("active_learning-real-seed0", "one\n"), ("sglc2-real-seed0", "two\n"),
                       ("sglc2-real-seed1", "another seed\n")):  # fmt: skip
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "page.md").write_text(text)
    pages = report.publish(tmp_path / "runs", tmp_path / "findings")
    assert list(pages) == ["active_learning-real-page.md", "sglc2-real-page.md"]
    assert (tmp_path / "findings/sglc2-real-page.md").read_text() == "two\n"
    block = report.readme_block(*judged, pages)
    ran = set(report.was_run(judged[0])["paper"]) | set(report.was_run(judged[1])["paper"])
    for name in pages:
        link = f"> From [{name[:-3].replace('_', ' ')}](reproductions/findings/{name})"
        assert (link in block) == (name.partition("-")[0] in ran)


def test_a_page_of_the_quick_scale_gives_way_to_the_same_of_another(judged):
    paper = set(report.was_run(judged[0])["paper"]).pop()
    texts = {"stand-in-quick-why": "Q.", "stand-in-hour-why": "H.\n\n| table |",
             "real-quick-why": "R.", "stand-in-quick-other": "O."}  # fmt: skip
    block = report.readme_block(*judged, {f"{paper}-{k}.md": v for k, v in texts.items()})
    told = [line for line in block.splitlines() if line in ("> Q.", "> H.", "> R.", "> O.")]
    assert sorted(told) == ["> H.", "> O.", "> R."] and "> | table" not in block


@pytest.mark.parametrize("text, told", [
    ("# Title\n\nAbout it.\n\n**Verdict: none**; so.\n\n| a |\n",
     "> About it.\n>\n> **Verdict: none**; so."),
    ("The **finding**.\n\n**More.**\n", "> The **finding**."), ("Plain.\n\n| a |\n", "> Plain."),
])  # fmt: skip
def test_of_a_page_the_readme_has_what_leads_to_its_verdict(judged, text, told):
    paper = set(report.was_run(judged[0])["paper"]).pop()
    block = report.readme_block(*judged, {f"{paper}-real-hour-why.md": text})
    assert f"\n{told}\n>\n> From [" in block


@pytest.mark.parametrize("text", ["no markers", f"{report.BEGIN}\n", f"{report.END * 2}"])
def test_readme_without_its_two_markers_is_left_alone(judged, tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(run.RunError, match="expected once"):
        report.write_readme(path, report.readme_block(*judged))
    assert path.read_text() == text


def test_terminal_names_the_data_of_numbers_and_claims(judged):
    numbers, claimed = report.terminal(*judged).split("\n\n")
    assert "stand-in, paper scale" in numbers
    assert "real, paper scale" in claimed


def test_terminal_columns_line_up():
    text = report.tabulate(pd.DataFrame({"a": ["x", "longer"], "b": ["1", "22"]}))
    assert text.splitlines() == ["a       b", "─" * 9, "x       1", "longer  22"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (36.0, "36"), ("", ""), (float("nan"), ""), ("3329", "3329")],
)
def test_numbers_have_four_significant_digits_and_counts_all(value, text):
    assert report.number(value) == text


def test_figures_are_pictures_with_the_data_named(tmp_path):
    frame = pd.DataFrame(
        [
            {"run": run, "n_train": n, "metric": "m", "value": n + run}
            for run in (1, 2)
            for n in (60, 100)
        ]
    )
    figures.learning_curves(
        {"badge": frame},
        tmp_path / "c.png",
        metrics=["m"],
        title="STAND-IN DATA",
        n_train=9,
        n_test=9,
    )
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    sizes, values = figures.curve(frame, "m")
    assert sizes.tolist() == [60, 100]
    assert values.tolist() == [[61, 101], [62, 102]]


@pytest.fixture
def run_cli(root, monkeypatch, capfd):
    """Return a function that runs a command in the repository: status, stdout, stderr."""
    monkeypatch.chdir(root)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments):
        status = 0
        try:
            cli.main(list(map(str, arguments)))
        except SystemExit as stopped:
            status = stopped.code
        return status, *capfd.readouterr()

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_cli_metrics_prints_every_run_with_intervals(run_cli, tmp_path):
    path = tmp_path / "scores.csv"
    lines = ["run,n_train,object_id,label,score"]
    for key in ("a", "b"):
        lines += [f"{key},10,{k},{int(k % 3 == 0)},{(k * 7) % 11}" for k in range(40)]
    path.write_text("\n".join(lines) + "\n")
    status, out, err = run_cli("metrics", path, "--top", "10", "--draws", "50")
    assert status == 0, err
    assert out.count("lenses_in_top_10") == 2
    assert out.count("roc_auc") == 2
    path.write_text(re.sub(r"(,10,\d+),1,", r"\1,0,", path.read_text()))
    status, out, err = run_cli("metrics", path, "--top", "10", "--json")
    assert status == 0, err
    assert "0 lenses" in out


@pytest.mark.parametrize(
    ("name", "content"), [("missing.csv", None), ("empty.csv", ""), ("html.csv", "<html></html>")]
)
def test_cli_says_in_one_line_what_is_wrong(run_cli, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    status, _, err = run_cli("metrics", tmp_path / name)
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    assert name in err


def test_cli_lists_assumptions_and_the_table(run_cli):
    status, out, _ = run_cli("assumptions")
    assert status == 0 and "per_round" in out
    status, out, err = run_cli("table", "--paper", "active_learning")
    assert status == 0, err
    assert "Li, Eadie & Walmsley (2025)" in out
