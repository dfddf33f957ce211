"""The options of the subcommands of `cast-lens` about candidates."""

import argparse
from pathlib import Path

from cast_lens import candidate_commands as commands
from cast_lens.run import at_least
from cast_lens.subcommands import add_answers, add_images, add_json, add_output, add_shared


def add(subparsers, command):
    """Add the subcommands.

    Args:
        subparsers: Of argparse.
        command: Function that adds one: subparsers, name, work, text, example.
    """
    _score(subparsers, command)
    _grade(subparsers, command)
    _rank(subparsers, command)
    _completeness(subparsers, command)
    _purity(subparsers, command)
    _crossmatch(subparsers, command)


def _score(subparsers, command):
    one = command(
        subparsers,
        "score",
        commands.score,
        "rank images by how lens-like they are",
        "cast-lens score cutouts --model sglc2-stand-in-v0 --bands i,u,g,r -o candidates",
    )
    add = one.add_argument
    add("images", type=Path, help="folder, table, pack, or one FITS file of many images")
    add("--model", nargs="+", required=True, metavar="NAME",
        help="release, or file; of several the mean")  # fmt: skip
    add_output(one, "candidates")
    add_images(one)
    add("--clip", choices=["released", "own"], default="released",
        help="own: percentiles of these images, not the training's fluxes (released)")  # fmt: skip
    add_shared(one, "--dihedral", "--engine", "--batch")
    add("--shard", type=at_least(1), default=2000,
        help="objects lost if a process is killed (2000)")  # fmt: skip
    add_shared(one, "--workers")
    add("--dask", metavar="ADDRESS", help="of a Dask scheduler, or local")
    add("--slurm", action="store_true", help="--workers jobs of SLURM")
    add("--top", type=at_least(0), default=1000, help="candidates in the DS9 regions (1000)")
    add("--strict", action="store_true", help="stop at an object that cannot be used")
    add("--restart", action="store_true", help="score anew what is in the folder")
    add("--dry-run", action="store_true", help="say what would be done, write nothing")
    add("--json", action="store_true", help="print run.json")


def _grade(subparsers, command):
    one = command(
        subparsers,
        "grade",
        commands.grade_candidates,
        "one offline page to grade candidates with the keyboard",
        "cast-lens grade candidates -n 300 -o grade.html",
    )
    add = one.add_argument
    add_shared(one, "candidates", "--images")
    add_images(one)
    add("-o", "--output", type=Path, help="page to write (grade.html in the folder)")
    add("--first", type=at_least(1), default=1, help="first rank to show (1)")
    add("-n", type=at_least(1), default=300, help="candidates to show (300)")
    stretches = ["linear", "asinh", "sqrt", "log"]
    add("--stretch", nargs="+", choices=stretches, default=stretches[:3],
        help="stretches of each band (linear asinh sqrt)")  # fmt: skip
    add("--colors", nargs=3, metavar=("RED", "GREEN", "BLUE"),
        help="bands of the color composite (the three reddest of one shape)")  # fmt: skip
    add("--side", type=at_least(1), help="show only the central square of so many pixels")
    add_shared(one, "--strict")
    add_answers(one, "a line", dry_run="say what would be written")


def _rank(subparsers, command):
    one = command(
        subparsers,
        "rank",
        commands.rank_pool,
        "choose the objects of a pool to label next",
        "cast-lens rank features.csv --labels labels.csv --strategy badge -n 100 -o next",
    )
    add = one.add_argument
    add("pool", type=Path, help="table of features (CSV, FITS, Parquet), or folder of a pool")
    add("--labels", type=Path, nargs="+", metavar="CSV",
        help="exports of the grading page, or tables of object_id,label (none yet)")  # fmt: skip
    strategies = ["badge", "core_set", "entropy", "margin", "top_score", "random"]
    add("--strategy", default="badge", choices=strategies,
        help="without labels of both classes: core_set or random (badge)")  # fmt: skip
    add("-n", type=at_least(1), default=100, help="objects to choose (100)")
    add("--seed", type=at_least(0), default=0, help="of all random numbers (0)")
    add("--lens-weight", type=_positive, metavar="W",
        help="weight of a lens in the loss, another object's is 1 (balanced)")  # fmt: skip
    add("--id-column", help="of a table (object_id, id_str, ID or id)")
    add("--prefix", help="features are columns PREFIX0, PREFIX1, ... (feat_pca_ or feat_)")
    add("--leave-out", action="store_true",
        help="leave out, and count, objects with a feature that is no number")  # fmt: skip
    add("--candidates", type=Path, metavar="FOLDER",
        help="candidates the pool was made of: the chosen ones become "
             "OUTPUT/candidates, for grade")  # fmt: skip
    add_output(one, "next")
    add_answers(one, "sentences", dry_run="choose and say so")


def _positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}; expected a positive number")
    return value


def _completeness(subparsers, command):
    a = command(
        subparsers,
        "completeness",
        commands.measure_completeness,
        "the selection function: which lenses are found",
        "cast-lens completeness candidates --truth catalog.csv --false-positive-rate 0.01",
    )
    add_shared(a, "scores")
    a.add_argument("--truth", type=Path, required=True, help="table of lenses: CSV, FITS, ...")
    where = a.add_mutually_exclusive_group(required=True)
    where.add_argument("--threshold", type=float, help="call lenses what scores at least this")
    where.add_argument("--top", type=at_least(1), help="call so many of the highest scores lenses")
    where.add_argument("--false-positive-rate", type=float, help="allow this of the non-lenses")
    a.add_argument(
        "--column",
        type=_quantity_column,
        action="append",
        default=[],
        metavar="QUANTITY=COLUMN[:UNIT]",
        help="einstein_radius, n_pix, magnification, magnitude or a name of yours (known names)",
    )
    a.add_argument("--id-column", help="column of the IDs (object_id, ID, id_str or id)")
    a.add_argument(
        "--edges",
        type=_quantity_edges,
        action="append",
        default=[],
        metavar="QUANTITY=1,2,3",
        help="edges of its bins (bins of equal number)",
    )
    a.add_argument("--bins", type=at_least(1), default=10, help="bins of a quantity (10)")
    a.add_argument("--cells", type=at_least(1), default=5, help="bins a side of the plane (5)")
    a.add_argument(
        "--lenses",
        choices=["label", "official", "source-added"],
        default="label",
        help="which are lenses: by their label, or a rule of the II SGLC (label)",
    )
    add_shared(a, "--run")
    a.add_argument("--network", default="", help="its name, for the header of the FITS table")
    a.add_argument("--output", type=Path, default=Path("runs/completeness"), help="folder")
    add_json(a, "sentences")


def _purity(subparsers, command):
    b = command(
        subparsers,
        "purity",
        commands.answer_purity,
        "how many lenses are among the best N objects of a survey",
        "cast-lens purity scores.csv --prevalence 1e-4 --objects 1000000 --inspect 100 1000",
    )
    add_shared(b, "scores")
    b.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        metavar="CSV",
        help="exports of the grading page, or tables of object_id,label (those of the scores)",
    )
    b.add_argument(
        "--prevalence",
        type=float,
        nargs="+",
        default=[1e-4, 1e-3, 1e-2],
        help="fractions of lenses in the survey (1e-4 1e-3 1e-2)",
    )
    b.add_argument("--objects", type=at_least(1), help="objects in the survey (as many as scored)")
    b.add_argument(
        "--inspect",
        type=at_least(1),
        nargs="+",
        default=[10, 100, 1000, 10_000],
        help="objects a person inspects (10 100 1000 10000)",
    )
    b.add_argument("--method", choices=["platt", "isotonic"], default="platt", help="(platt)")
    b.add_argument("--folds", type=at_least(2), default=10, help="of the cross-fit (10)")
    b.add_argument("--bins", type=at_least(1), default=15, help="of the reliability diagram (15)")
    b.add_argument("--draws", type=at_least(1), default=2000, help="bootstrap draws (2000)")
    b.add_argument("--seed", type=at_least(0), default=0, help="seed of folds and draws (0)")
    add_shared(b, "--run")
    b.add_argument("--output", type=Path, default=Path("runs/purity"), help="folder")
    add_json(b, "a table")


def _crossmatch(subparsers, command):
    c = command(
        subparsers,
        "crossmatch",
        commands.match_known,
        "mark the candidates that are known lenses",
        "cast-lens crossmatch candidates --known lenscat.csv --radius 3",
    )
    c.add_argument("candidates", type=Path, help="folder of candidates, or table of ID, ra, dec")
    c.add_argument(
        "--known", type=Path, required=True, help="table of lenscat, or of name, RA, Dec"
    )
    c.add_argument("--radius", type=float, default=3.0, help="largest separation, arcsec (3)")
    c.add_argument(
        "--footprint",
        type=float,
        default=300.0,
        help="known lenses this near a candidate were searched, arcsec (300)",
    )
    c.add_argument("--shift", type=float, help="of positions for chance pairs, arcsec (20 radii)")
    c.add_argument(
        "--top", type=at_least(1), default=100, help="how many first ones to count (100)"
    )
    c.add_argument(
        "--output", type=Path, default=Path("crossmatch.csv"), help="CSV or FITS (crossmatch.csv)"
    )
    add_json(c, "sentences")


def _quantity_column(text):
    name, _, column = text.partition("=")
    if not (name and column):
        raise argparse.ArgumentTypeError(f"{text!r}; expected QUANTITY=COLUMN[:UNIT]")
    column, _, unit = column.partition(":")
    return name, (column, unit or None)


def _quantity_edges(text):
    name, _, numbers = text.partition("=")
    try:
        return name, [float(number) for number in numbers.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected QUANTITY=1,2,3") from None
