"""What the documentation says can be done, and its links lead somewhere."""

import argparse
import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cast_lens import cli
from tests.conftest import ROOT

COMMANDS = ROOT / "docs/commands"
PAPERS = ("active_learning", "deeplense", "epfl", "nottingham", "sglc2")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "weights/README.md", ROOT / "reproductions/README.md"]
    + [*(ROOT / "docs").rglob("*.md"), *(ROOT / "weights/cards").glob("*.md")]
)
OURS = [page for page in PAGES if "mock" not in page.parts]
EVERYWHERE = {"--help", "-h"}
STEPS = {".venv/bin/cast-lens": "cast-lens", "cast-lens": "cast-lens", "make": "make"}
TUTORIAL_LIMIT = 1800  # seconds, on two slow cores


@cache
def subcommands():
    (action,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


@cache
def options_of(command):
    return {
        name
        for action in subcommands()[command]._actions
        for name in action.option_strings
    }  # fmt: skip


def name_of(page):
    return str(Path(page).relative_to(ROOT))


def blocks(text):
    """Yield (language, content) of the fenced blocks of a page."""
    yield from re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def without_blocks(text):
    return re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text):
    """Return the code spans of a page, outside of its fenced blocks, with line breaks as blanks."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", without_blocks(text))]


def commands(page):
    """Yield the words of each command of cast-lens or make in the fenced blocks of a page."""
    for language, content in blocks(page.read_text(encoding="utf-8")):
        if language not in ("", "sh", "bash"):
            continue
        for line in content.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(\s*export)?(\s*[A-Z_]+=\S*)*\s*", "", line)
            if line.partition(" ")[0] in STEPS:
                program, *words = shlex.split(line, comments=True)
                yield STEPS[program], words


@cache
def makefile():
    """Return the targets of the Makefile and the variables that a person can set."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE)
    return set(targets), set(re.findall(r"\((\w+)\)", text))


def check_make(words, where):
    targets, variables = makefile()
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (variables if is_variable else targets), f"{where}: make has no {name}"


def check_refers(span, where):
    """Check a code span that is a command, perhaps with dots and names for what a person types."""
    program, *words = span.replace(".venv/bin/", "").split() or [""]
    if program == "make":
        check_make([w for w in words if re.fullmatch(r"[a-z0-9-]+|\w+=.*", w)], where)
    elif program == "cast-lens" and words:
        if words[0].isupper() or words[0].startswith("-"):
            return  # any command
        assert words[0] in subcommands(), f"{where}: cast-lens has no command {words[0]}"
        for option in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", span):
            assert option in options_of(words[0]), f"{where}: {words[0]} has no {option}"


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_commands_of_a_page_are_commands(page):
    for program, words in commands(page):
        where = f"{name_of(page)}: {program} {shlex.join(words)}"
        if program == "make":
            check_make(words, where)
            continue
        try:
            options = cli._parser().parse_args(words)
        except SystemExit as error:
            raise AssertionError(f"{where}: not as the parser has it") from error
        assert callable(options.work), where
    for span in spans(page.read_text(encoding="utf-8")):
        check_refers(span, f"{name_of(page)}: {span}")


def test_commands_are_found_in_blocks():
    """So that the test above cannot pass for want of any."""
    tutorial = list(commands(ROOT / "docs/tutorial.md"))
    assert ("make", ["env", "EXTRAS=mock"]) in tutorial
    assert [words[0] for _, words in tutorial if "-o" in words][:1] == ["score"]
    assert len(list(commands(ROOT / "README.md"))) >= 8
    with pytest.raises(AssertionError, match="make has no no-such-target"):
        check_make(["no-such-target"], "here")
    with pytest.raises(AssertionError, match="score has no --no-such-option"):
        check_refers("cast-lens score IMAGES --no-such-option", "here")


def test_every_command_has_a_page_and_a_row():
    pages = {page.stem for page in COMMANDS.glob("*.md")} - {"README"}
    assert pages == set(subcommands())
    index = (COMMANDS / "README.md").read_text(encoding="utf-8")
    assert [name for name in pages if f"[{name}]({name}.md)" not in index] == []


@pytest.mark.parametrize("command", subcommands())
def test_options_of_a_page_are_those_of_its_command(command):
    """All of them and no others, but in a code span that is a command of its own."""
    text = (COMMANDS / f"{command}.md").read_text(encoding="utf-8")
    alone = [span for span in spans(text) if not re.match(r"(cast-lens|make|python) ", span)]
    named = {o for span in alone for o in re.findall(r"(?<![\w-])--?[a-z][\w-]*", span)}
    named = {option for option in named if option.startswith("--") or option in alone}
    assert named - options_of(command) == set()
    for action in subcommands()[command]._actions:
        if action.option_strings and not EVERYWHERE & set(action.option_strings):
            assert set(action.option_strings) & named, f"{command}: {action.option_strings}"
    assert text.startswith(f"# cast-lens {command}\n")
    assert "(README.md#exit-status)" in text
    own = [words for program, words in commands(COMMANDS / f"{command}.md") if words[0] == command]
    example = shlex.split(subcommands()[command].epilog.removeprefix("example: cast-lens "))
    assert example in own, f"the example of --help, {example}, is not on the page"


def anchors(path):
    """Return the anchors that GitHub makes of the headings of a page."""
    found: dict[str, int] = {}
    names = set()
    for title in re.findall(
        r"^#{1,6} +(.+?) *#*$", without_blocks(path.read_text(encoding="utf-8")), re.MULTILINE
    ):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def test_anchors_are_those_of_github(tmp_path):
    """By hand: https://docs.github.com/en/get-started/writing-on-github, section links."""
    page = tmp_path / "page.md"
    page.write_text("# Li, Eadie & Walmsley (2025)\n## A `b` c\n## A `b` c\n```\n# no\n```\n")
    assert anchors(page) == {"li-eadie--walmsley-2025", "a-b-c", "a-b-c-1"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", without_blocks(page.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link}"


def test_pages_hang_together():
    """Every page of docs/ can be reached from its index."""
    seen, todo = set(), [ROOT / "docs/README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link):
                todo.append((page.parent / link).resolve())
    assert {page for page in (ROOT / "docs").rglob("*.md") if page not in seen} == set()


@pytest.mark.parametrize("paper", PAPERS)
def test_departures_of_a_paper_are_those_of_its_module(paper):
    path = ROOT / "reproductions" / f"{paper}.py"
    path = path if path.exists() else ROOT / "reproductions" / paper / "__init__.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    (start,) = re.findall(
        r"^(?:Departures\b|Where paper and code differ).*", docstring, re.DOTALL | re.MULTILINE
    )
    page = (ROOT / f"docs/papers/{paper}.md").read_text(encoding="utf-8")
    assert re.search(r"\b1\. ", start), "no numbered departure"
    assert " ".join(start.split()) in " ".join(page.split())


def test_no_page_holds_a_result_of_a_paper(root):
    """Values of reproduced.csv with four digits or more stand in generated tables alone."""
    import csv

    with open(root / "reproductions/reproduced.csv", encoding="utf-8", newline="") as stream:
        values = {row["value"] for row in csv.DictReader(stream)}
    digits = {value for value in values if len(re.sub(r"\D", "", value)) >= 4 and "." in value}
    assert digits
    shortened = {f"{float(value):.{n}f}" for value in digits for n in (3, 4)}
    # One digit is no result: a p of 0.0014 would forbid the word max_f_beta_0.001.
    shortened = {one for one in shortened if len(one.replace(".", "").lstrip("0")) >= 2}
    for page in (ROOT / "docs").rglob("*.md"):
        if "mock" in page.parts or "papers" in page.parts:  # whose departures hold settings
            continue
        numbers = set(re.findall(r"(?<![\w.])\d+\.\d{3,}(?![\w.])", page.read_text("utf-8")))
        assert numbers & (digits | shortened) == set(), name_of(page)


def copy_of_root(folder):
    """Make a folder that a person would take for the repository, with this environment in it."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("cast_lens", "reproductions", "weights", "docs"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    code = "from cast_lens.cli import main; main()"
    for name, arguments in (("python", ""), ("cast-lens", f" -c {shlex.quote(code)}")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        program.chmod(0o755)
    for name in ("installed-test", "installed-test-mock"):  # newer than what they depend on
        (folder / ".venv" / name).touch()


@pytest.mark.slow
def test_tutorial_runs_as_written(tmp_path):
    pytest.importorskip("lenstronomy")
    copy_of_root(tmp_path)
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    steps = [content for language, content in blocks(text) if language == "sh"]
    assert len(steps) >= 10
    environment = {k: v for k, v in os.environ.items() if k not in ("CAST_LENS_DATA", "MAKEFLAGS")}
    for step in steps:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=TUTORIAL_LIMIT,
        )  # fmt: skip
        assert done.returncode == 0, f"{step}{done.stdout[-3000:]}{done.stderr[-3000:]}"
    promised = [s for s in spans(text) if re.match(r"(data/mock-|runs/tutorial/)", s)]
    assert len(promised) >= 25
    missing = [name for name in promised if not list(tmp_path.glob(name))]
    assert missing == []
    check_answers(tmp_path)


def check_answers(folder):
    """Check what the tutorial says about its own files."""
    import pandas as pd

    made = folder / "runs/tutorial"
    table = pd.read_csv(made / "candidates/candidates.csv", dtype={"object_id": str})
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert set(table["flags"]) == {"scale_assumed"} and table["ra"].isna().all()
    assert table["label"].head(10).mean() > 0.8 > table["label"].head(100).mean()
    assert table["label"].tail(100).mean() > 0.1  # lenses of which the network knows nothing
    better = pd.read_csv(made / "residual/candidates.csv")["label"]
    assert better.head(100).mean() > max(0.8, table["label"].head(100).mean())
    regions = (made / "candidates/candidates.reg").read_text()
    assert "circle" not in regions
    page = (made / "candidates/grade.html").read_text(encoding="utf-8")
    assert "http://" not in page and "https://" not in page  # "loads nothing"
    purity = pd.read_csv(made / "purity/purity.csv")
    assert purity["status"].str.startswith("undetermined").any()
    first = pd.read_csv(made / "first/to_label.csv", dtype=str)
    after = pd.read_csv(made / "next/to_label.csv", dtype=str)
    assert not set(first["object_id"]) & set(after["object_id"])
