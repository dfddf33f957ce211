"""The `cast-lens` command; imports that cost time happen in the command that needs them."""

import argparse
from pathlib import Path

from cast_lens import __version__, candidate_cli, commands, network_cli

SURVEYS = ["sglc1-space", "sglc1-ground", "sglc2"]  # those of cast_lens.archive, which costs time


def main(arguments=None):
    """Run the command line."""
    from cast_lens.run import command

    options = _parser().parse_args(arguments)
    command(lambda: options.work(options), _errors)


def _errors():
    from cast_lens import catalog, cutouts, data, grading, metrics, scores, surveys, tarball

    return (
        OSError,
        catalog.CatalogError,
        surveys.CheckError,
        cutouts.CutoutError,
        data.DataError,
        data.DataUnavailableError,
        grading.GradingError,
        metrics.UndefinedMetric,
        scores.ScoreError,
        tarball.ArchiveError,
    )


def _parser():
    from cast_lens.mock.makers import MAKERS
    from cast_lens.run import at_least

    parser = argparse.ArgumentParser(
        prog="cast-lens",
        description="Find strong lenses, and check how well others did.",
        epilog="example: cast-lens score cutouts --model sglc2-stand-in-v0 -o candidates",
    )
    parser.add_argument("--version", action="version", version=f"cast-lens {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(
        subparsers,
        "metrics",
        commands.show_metrics,
        "metrics of a score file, with intervals",
        "cast-lens metrics scores.csv --top 100",
    )
    one.add_argument("scores", type=Path, help="score file, its folder, or candidates with labels")
    one.add_argument("--top", type=int, default=100, help="objects a person inspects (100)")
    one.add_argument("--draws", type=int, default=2000, help="bootstrap draws (2000)")
    one.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (0)")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    two = _command(
        subparsers,
        "cutouts",
        commands.list_cutouts,
        "what is in a folder of challenge cutouts",
        "cast-lens cutouts GroundBasedTraining --mask-value 100",
    )
    two.add_argument("folder", type=Path, help="any unpacking of a challenge archive")
    two.add_argument("--mask-value", type=float, help="pixels with this value or more are masked")
    two.add_argument("--strict", action="store_true", help="stop at a file that cannot be used")
    two.add_argument("--json", action="store_true", help="print JSON instead of a table")

    three = _command(
        subparsers,
        "table",
        commands.show_table,
        "reported beside reproduced, with verdicts",
        "cast-lens table --paper active_learning",
    )
    three.add_argument("--paper", help="only this paper")
    three.add_argument("--write", action="store_true", help="gather runs, write README, TABLE.md")
    _places(three)

    four = _command(
        subparsers,
        "report",
        commands.write_report,
        "one HTML page of every number, conclusion and run",
        "cast-lens report runs/sglc2-stand-in-quick-seed0 --output report.html",
    )
    four.add_argument(
        "named",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="run folders to show; their numbers stand in the tables (all runs in --runs)",
    )
    four.add_argument("--output", type=Path, default=Path("runs/report.html"), help="page to write")
    four.add_argument("--strict", action="store_true", help="stop at a damaged run folder")
    four.add_argument("--dry-run", action="store_true", help="say which runs, write nothing")
    four.add_argument("--json", action="store_true", help="print JSON instead of a line")
    _places(four)

    five = _command(
        subparsers,
        "assumptions",
        commands.show_assumptions,
        "what no paper says and we assumed",
        "cast-lens assumptions",
    )
    five.add_argument(
        "folders", nargs="*", type=Path, default=[Path("reproductions"), Path("cast_lens")]
    )

    six = _command(
        subparsers,
        "mock",
        commands.make_mock,
        "write a stand-in survey in a real one's layout",
        "cast-lens mock sglc2 --n 1000 --quirks",
    )
    surveys = [*MAKERS, "features"]
    six.add_argument("survey", choices=surveys, metavar="SURVEY", help=", ".join(surveys))
    six.add_argument("folder", nargs="?", type=Path, help="data/mock-<survey>-seed<seed>")
    six.add_argument("--n", type=at_least(1), help="objects (20000); a folder can grow")
    six.add_argument("--seed", type=at_least(0), default=0, help="seed of all draws (0)")
    six.add_argument("--quirks", action="store_true", help="with the published oddities")
    six.add_argument("--telescope", choices=["challenge", "in-flight"], help="(challenge)")
    six.add_argument("--population", choices=["challenge", "collett"], help="(challenge)")
    six.add_argument("--workers", type=at_least(1), help="processes (as many as CPUs)")
    six.add_argument("--no-check", action="store_true", help="do not compare with published facts")

    seven = _command(
        subparsers,
        "mock-check",
        commands.check_mock,
        "compare a stand-in survey with facts",
        "cast-lens mock-check data/mock-sglc2-seed0",
    )
    seven.add_argument("folder", type=Path, help="folder that `cast-lens mock` finished")
    seven.add_argument("--real", type=Path, help="folder of the real survey, to stand beside it")
    seven.add_argument(
        "--sample",
        type=at_least(1),
        default=2000,
        help="objects whose noise, border, center are measured (2000)",
    )

    eight = _command(
        subparsers,
        "data",
        commands.get_data,
        "a public survey: download, unpack, check, pack",
        "cast-lens data sglc1-space --folder ~/surveys",
    )
    eight.add_argument("survey", choices=SURVEYS, metavar="SURVEY", help=", ".join(SURVEYS))
    eight.add_argument("--folder", type=Path, default=Path("data"), help="where it goes (data)")
    eight.add_argument(
        "--data", metavar="PATH", help="the archive, or the unpacked survey, of yours"
    )
    eight.add_argument("--no-pack", action="store_true", help="neither check nor pack it")
    eight.add_argument("--dry-run", action="store_true", help="say what would be done")

    nine = _command(
        subparsers,
        "check-data",
        commands.check_data,
        "look at a survey before training on it; exit status 1 if something is wrong",
        "cast-lens check-data ~/surveys/SpaceBasedTraining",
    )
    nine.add_argument("folder", type=Path, help="one survey or stand-in, however it was unpacked")
    nine.add_argument(
        "--output",
        type=Path,
        default=Path("runs/check-data"),
        help="where page, tables and pictures go (runs/check-data)",
    )
    nine.add_argument(
        "--sample", type=at_least(1), default=2000, help="objects whose noise is measured (2000)"
    )

    ten = _command(
        subparsers,
        "pack",
        commands.make_pack,
        "a survey, or a table of files, as mapped arrays",
        "cast-lens pack data/mock-sglc2-seed0 --dtype float16",
    )
    ten.add_argument("survey", type=Path, help="folder, or table of files: CSV, FITS, ...")
    ten.add_argument("--output", type=Path, help="folder of the pack (<survey>-pack)")
    ten.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="float16 is half as large and tells its loss (float32)",
    )
    ten.add_argument("--strict", action="store_true", help="stop at an object that cannot be used")
    ten.add_argument("--restart", action="store_true", help="pack anew what is in the folder")
    ten.add_argument("--workers", type=at_least(1), help="processes (as many as CPUs)")
    ten.add_argument(
        "--label",
        default="official",
        metavar="RULE",
        help="official, source-added (II SGLC), n-pix:20 (official)",
    )
    ten.add_argument(
        "--duplicates",
        choices=["drop", "first", "last"],
        default="drop",
        help="rows of an ID that the II SGLC has twice (drop)",
    )
    of_table = ten.add_argument_group("of a table")
    of_table.add_argument("--id-column", default="id_str", help="column of the IDs (id_str)")
    of_table.add_argument("--path-column", default="file_loc", help="column of files (file_loc)")
    of_table.add_argument("--label-column", help="column of labels, 0 or 1 (none)")
    of_table.add_argument("--mask-value", type=float, help="pixels >= this become 0 (none)")
    of_table.add_argument(
        "--channels",
        choices=["first", "last"],
        help="axis of the bands in .npy files (files are FITS)",
    )

    eleven = _command(
        subparsers,
        "verify",
        commands.verify_pack,
        "look for any bit of a pack that has changed",
        "cast-lens verify data/mock-sglc2-seed0-pack",
    )
    eleven.add_argument("pack", type=Path, help="folder of the pack")
    candidate_cli.add(subparsers, _command)
    network_cli.add(subparsers, _command)
    return parser


def _command(subparsers, name, work, text, example):
    parser = subparsers.add_parser(name, help=text, description=text, epilog=f"example: {example}")
    parser.set_defaults(work=work)
    return parser


def _places(parser):
    parser.add_argument(
        "--reproductions",
        type=Path,
        default=Path("reproductions"),
        help="folder of reported.csv, claims.csv, reproduced.csv",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")
