"""The rules the design stands on: direction of imports, light start, generated tables fresh."""

import ast
import csv
import re
import subprocess
import sys

import pandas as pd
import pytest

from cast_lens import claims, report, table, verdicts

PAPERS = {"active_learning", "deeplense", "epfl", "nottingham", "sglc2"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_library_never_imports_a_paper(root):
    for path in (root / "cast_lens").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "reproductions"], path


def test_papers_never_import_one_another(root):
    for path in (root / "reproductions").rglob("[a-z_]*.py"):
        own = path.relative_to(root).with_suffix("").parts[:2]
        others = {".".join(name.split(".")[:2]) for name in imports(path)} - {".".join(own)}
        found = [name for name in others if name.startswith("reproductions.")]
        assert not found, f"{path}: {found}"


def test_tensorflow_is_imported_where_keras_has_no_way_to_it_alone(root):
    """tf.data in dataset.py, the fused batch normalization in layers.py; both when called."""
    for path in [*(root / "cast_lens").rglob("*.py"), *(root / "reproductions").rglob("*.py")]:
        if path.name not in {"dataset.py", "layers.py"}:
            assert not [n for n in imports(path) if n.split(".")[0] == "tensorflow"], path


HELP = "from cast_lens.cli import main\ntry:\n    main({})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize(
    "code", ["import cast_lens", HELP.format(["--help"]), HELP.format(["metrics", "--help"])]
)
def test_start_imports_nothing_heavy(code, root):
    check = "\nimport sys\nprint([m for m in sys.modules if m in HEAVY])"
    heavy = {
        "tensorflow",
        "keras",
        "jax",
        "torch",
        "pandas",
        "numpy",
        "sklearn",
        "scipy",
        "astropy",
    }
    code = f"HEAVY = {heavy!r}\n{code}{check}"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.splitlines()[-1] == "[]"


def read(root, name):
    with open(root / "reproductions" / name, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_reported_numbers_are_whole_and_unique(root):
    rows = read(root, "reported.csv")
    assert len({row["row_id"] for row in rows}) == len(rows) > 400
    assert {row["paper"] for row in rows} == PAPERS
    for row in rows:
        assert None not in row and None not in row.values(), row["row_id"]
        float(row["value"])
        assert float(row["tolerance"]) >= 0, row["row_id"]
        assert row["source"], row["row_id"]
        assert row["kind"] in {"result", "data", "cost"}, row["row_id"]
        assert row["uncertainty_kind"] in {"", "sd", "se", "unstated", "range"}, row["row_id"]
        assert (row["uncertainty"] == "") == (row["uncertainty_kind"] == ""), row["row_id"]


def test_table_1_of_bom_has_18_cells_of_three_metrics_with_errors(root):
    cells = [r for r in read(root, "reported.csv") if r["row_id"].startswith("sglc2.table1.")]
    cells = [r for r in cells if r["kind"] == "result" and r["uncertainty"]]
    assert len(cells) == 54
    assert len({r["experiment"] for r in cells}) == 18


def test_authors_notebook_lists_have_their_printed_means(root):
    rows = [r for r in read(root, "reported.csv") if r["metric"] == "lenses_in_top_100"]
    for experiment, mean in (
        ("authors_code.baseline", 39.2),
        ("authors_code.ranknet", 38.8),
        ("authors_code.focal", 40.6),
        ("paper.focal", 40.8),
    ):
        runs = [float(r["value"]) for r in rows if r["experiment"] == experiment and r["run"]]
        assert len(runs) == 10
        assert sum(runs) / 10 == pytest.approx(mean)


def test_claims_compare_cells_or_numbers(root):
    rows = read(root, "claims.csv")
    assert len({row["claim_id"] for row in rows}) == len(rows) >= 30
    for row in rows:
        assert row["paper"] in PAPERS
        assert row["relation"] in claims.RELATIONS, row["claim_id"]
        for side in ("left", "right"):
            assert re.fullmatch(r"-?[0-9.]+|(reported:)?[\w.+]+/[\w.]+", row[side]), row["claim_id"]


@pytest.fixture(scope="module")
def everything():
    folder = report.Path(report.__file__).parents[1] / "reproductions"
    reported, reproduced = (
        table.read(folder / "reported.csv"),
        table.read(folder / "reproduced.csv"),
    )
    compared = verdicts.compare(reported, reproduced)
    return compared, claims.judge_claims(table.read(folder / "claims.csv"), reproduced, reported)


def test_readme_block_is_fresh(root, everything):
    """Stale? Run `make table`."""
    text = (root / "README.md").read_text(encoding="utf-8")
    pages = report.publish(root / "none", root / report.FINDINGS)
    assert report.readme_block(*everything, pages) in text


def test_full_table_is_fresh(root, everything):
    """Stale? Run `make table`."""
    text = (root / "reproductions/TABLE.md").read_text(encoding="utf-8")
    assert text == report.full_table(*everything)


def test_full_table_holds_every_number_and_claim(root, everything):
    compared, judged = everything
    assert set(compared["row_id"]) == {row["row_id"] for row in read(root, "reported.csv")}
    assert set(judged["claim_id"]) == {row["claim_id"] for row in read(root, "claims.csv")}


def test_committed_results_say_their_data_and_are_from_the_pinned_versions(root):
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (root / "constraints.txt").read_text().splitlines()
        if "==" in line
        and ("python_version" not in line or '>= "3.11"' in line or '= "3.11"' in line)
    )
    rows = pd.read_csv(root / "reproductions/reproduced.csv", dtype=str)
    public = (rows["paper"] == "active_learning") & (rows["experiment"] != "cost")
    assert set(rows.loc[public, "data"]) == {"real"}  # whose data are at hand
    assert set(rows["data"]) <= {"real", "stand-in"}
    for line in rows["software"].unique():
        for package, version in (item.split(" ") for item in line.split(", ")):
            if package != "backend":
                assert pins[package] == version, line


def test_every_make_target_of_the_readme_exists(root):
    targets = set(re.findall(r"^([a-z0-9-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    named = set(
        re.findall(r"(?:^|`)make ([a-z][a-z0-9-]+)", (root / "README.md").read_text(), re.M)
    )
    assert named <= targets
    assert {"reproduce-active-learning", "test"} <= named


def test_assumptions_are_found_with_their_reasons(root):
    rows = report.assumptions([root / "reproductions", root / "cast_lens/mock"])
    assert {"learning_rate", "start", "per_round", "DISPLACEMENT"} <= set(rows["name"])
    assert rows["why"].str.len().min() > 3


def test_no_tracked_text_names_a_registry_or_a_path_of_a_machine(root):
    files = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=root, check=False
    ).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"https?://[^ ]*(pypi|npmjs|debian)\.|(?<![\w.])/(work|root|home)/\w")
    for name in files:
        path = root / name
        if path.suffix in {".py", ".md", ".txt", ".cfg", ".toml", ".yml", ".cff", ".csv", ""}:
            assert not pattern.search(path.read_text(encoding="utf-8")), name
