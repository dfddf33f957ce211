"""The `cast-lens` command; imports that cost time happen in the command that needs them."""

import argparse
import json
import sys
from pathlib import Path

from cast_lens import __version__

SURVEYS = ["sglc1-space", "sglc1-ground", "sglc2"]  # those of cast_lens.archive, which costs time


def main(arguments=None):
    """Run the command line."""
    from cast_lens.run import command

    options = _parser().parse_args(arguments)
    command(lambda: options.work(options), _errors)


def _errors():
    from cast_lens import catalog, cutouts, data, scores, tarball
    from cast_lens.mock import contents

    return (
        OSError,
        catalog.CatalogError,
        contents.CheckError,
        cutouts.CutoutError,
        data.DataError,
        data.DataUnavailableError,
        scores.ScoreError,
        tarball.ArchiveError,
    )


def _parser():
    from cast_lens.mock.makers import MAKERS
    from cast_lens.run import at_least

    parser = argparse.ArgumentParser(
        prog="cast-lens",
        description="Find strong lenses, and check how well others did.",
        epilog="example: cast-lens metrics runs/active_learning-real-seed0/beyond/scores.csv",
    )
    parser.add_argument("--version", action="version", version=f"cast-lens {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _command(commands, "metrics", _metrics, "metrics of a score file, with intervals",
                   "cast-lens metrics scores.csv --top 100")  # fmt: skip
    one.add_argument("scores", type=Path, help="CSV: run, n_train, object_id, label, score")
    one.add_argument("--top", type=int, default=100, help="objects a person inspects (100)")
    one.add_argument("--draws", type=int, default=2000, help="bootstrap draws (2000)")
    one.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (0)")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    two = _command(commands, "cutouts", _cutouts, "what is in a folder of challenge cutouts",
                   "cast-lens cutouts GroundBasedTraining --mask-value 100")  # fmt: skip
    two.add_argument("folder", type=Path, help="any unpacking of a challenge archive")
    two.add_argument("--mask-value", type=float, help="pixels with this value or more are masked")
    two.add_argument("--json", action="store_true", help="print JSON instead of a table")

    three = _command(commands, "table", _table, "reported beside reproduced, with verdicts",
                     "cast-lens table --paper active_learning")  # fmt: skip
    three.add_argument("--paper", help="only this paper")
    three.add_argument("--write", action="store_true", help="gather runs, write README, TABLE.md")
    _places(three)

    four = _command(commands, "report", _report, "one HTML page of every number and conclusion",
                    "cast-lens report --output report.html")  # fmt: skip
    four.add_argument("--output", type=Path, default=Path("runs/report.html"), help="page to write")
    _places(four)

    five = _command(commands, "assumptions", _assumptions, "what no paper says and we assumed",
                    "cast-lens assumptions")  # fmt: skip
    five.add_argument("folders", nargs="*", type=Path,
                      default=[Path("reproductions"), Path("cast_lens/mock")])  # fmt: skip

    six = _command(commands, "mock", _mock, "write a stand-in survey in a real one's layout",
                   "cast-lens mock sglc2 --n 1000 --quirks")  # fmt: skip
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

    seven = _command(commands, "mock-check", _mock_check, "compare a stand-in survey with facts",
                     "cast-lens mock-check data/mock-sglc2-seed0")  # fmt: skip
    seven.add_argument("folder", type=Path, help="folder that `cast-lens mock` finished")
    seven.add_argument("--real", type=Path, help="folder of the real survey, to stand beside it")
    seven.add_argument("--sample", type=at_least(1), default=2000,
                       help="objects whose noise, border, center are measured (2000)")  # fmt: skip

    eight = _command(commands, "data", _data, "download, verify and unpack a public survey",
                     "cast-lens data sglc1-space --folder ~/surveys")  # fmt: skip
    eight.add_argument("survey", choices=SURVEYS, metavar="SURVEY", help=", ".join(SURVEYS))
    eight.add_argument("--folder", type=Path, default=Path("data"), help="where it goes (data)")
    eight.add_argument(
        "--data", metavar="PATH", help="the archive, or the unpacked survey, of yours"
    )

    nine = _command(commands, "check-data", _check_data,
                    "look at a survey before training on it; exit status 1 if something is wrong",
                    "cast-lens check-data ~/surveys/SpaceBasedTraining")  # fmt: skip
    nine.add_argument("folder", type=Path, help="one survey or stand-in, however it was unpacked")
    nine.add_argument("--output", type=Path, default=Path("runs/check-data"),
                      help="where page, tables and pictures go (runs/check-data)")  # fmt: skip
    nine.add_argument("--sample", type=at_least(1), default=2000,
                      help="objects whose noise is measured (2000)")  # fmt: skip
    return parser


def _command(commands, name, work, text, example):
    parser = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
    parser.set_defaults(work=work)
    return parser


def _places(parser):
    parser.add_argument("--reproductions", type=Path, default=Path("reproductions"),
                        help="folder of reported.csv, claims.csv, reproduced.csv")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")


def _metrics(options):
    from functools import partial

    from cast_lens import intervals, metrics, report, scores

    wanted = {
        "roc_auc": metrics.roc_auc,
        "average_precision": metrics.average_precision,
        f"lenses_in_top_{options.top}": partial(metrics.lenses_in_top, n=options.top),
        "tpr0": partial(metrics.tpr_at_false_positives, n_false=0),
        "tpr10": partial(metrics.tpr_at_false_positives, n_false=10),
        "max_f_beta_0.001": partial(metrics.max_f_beta, beta_squared=0.001),
    }
    rows = []
    table = scores.read_scores(options.scores)
    for (run, n_train), part in table.groupby(["run", "n_train"], sort=False):
        labels, values = part["label"].to_numpy(), part["score"].to_numpy()
        found = {row["metric"]: row for row in metrics.evaluate(labels, values, wanted)}
        defined = {k: wanted[k] for k, row in found.items() if row["value"] == row["value"]}
        bounds = {}
        if min(labels.sum(), len(labels) - labels.sum()) > 1:  # of one object there is no spread
            bounds = intervals.bootstrap(
                labels, values, defined, draws=options.draws, seed=options.seed
            )
        for name, row in found.items():
            low, high = bounds.get(name, ("", ""))
            rows.append({"run": run, "n_train": n_train} | row | {"low": low, "high": high})
    _print(rows, options.json, report)


def _cutouts(options):
    from cast_lens import cutouts, report

    rows = []
    found, n_extra = cutouts.find_cutouts(options.folder)
    for _, row in found.iterrows():
        for band in [name[5:] for name in found if name.startswith("path_")]:
            path = row[f"path_{band}"]
            if path is None:
                rows.append({"object_id": row["object_id"], "band": band, "pixels": "missing"})
                continue
            image, counts = cutouts.read_cutout([path])
            if options.mask_value is not None:  # the statistics need the pixels that this makes 0
                _, counts = cutouts.read_cutout([path], mask_value=options.mask_value)
            statistics = cutouts.pixel_statistics(image, mask_value=options.mask_value)
            size = {"object_id": row["object_id"], "band": band}
            size["pixels"] = "x".join(map(str, image.shape[:2]))
            values = {name: float(value[0]) for name, value in statistics.items()}
            bad = {"masked": counts.n_masked[0], "not_finite": counts.n_nonfinite[0]}
            rows.append(size | values | bad)
    _print(rows, options.json, report)
    print(f"{len(found)} objects, {n_extra} other files", file=sys.stderr)


def _table(options):
    from cast_lens import report

    compared, judged = report.gather(options.reproductions, options.runs, write=options.write)
    if options.paper:
        compared, judged = (t[t["paper"] == options.paper] for t in (compared, judged))
    print(report.tabulate(report.counts(compared)))
    print("\n" + report.terminal(report.was_run(compared), report.was_run(judged)))


def _report(options):
    from cast_lens import report
    from cast_lens.run import write_whole

    compared, judged = report.gather(options.reproductions, options.runs, write=False)
    figures = sorted(options.runs.glob("*/*.png"))
    write_whole(options.output, report.page(compared, judged, figures, "Five papers, reproduced"))
    print(f"wrote {options.output}")


def _assumptions(options):
    from cast_lens import report

    rows = report.assumptions(options.folders)
    print(report.tabulate(rows) if len(rows) else "no assumptions found")


def _mock(options):
    from cast_lens.mock.makers import load_maker

    options.folder = options.folder or Path(f"data/mock-{options.survey}-seed{options.seed}")
    if options.survey == "features":
        _mock_features(options)
        return
    n = 20_000 if options.n is None else options.n
    choices = {"telescope": options.telescope, "population": options.population}
    choices["quirks_n"] = n if options.quirks else None
    maker = load_maker(options.survey, seed=options.seed, **choices)
    from cast_lens.mock import survey

    found = survey.write(options.folder, maker, n=n, workers=options.workers)
    print(f"{options.folder}: finished, {n} objects in {found['files']} files, "
          f"{found['bytes'] / 1e9:.2f} GB")  # fmt: skip
    if not found["made"]:
        print("nothing was to be made")
    else:
        print(f"{found['made']} objects made now in {found['seconds']:.0f} s, "
              f"{found['objects_per_second']:.1f} a second, "
              f"{found['objects_per_second_per_core']:.1f} a second and core")  # fmt: skip
    if not options.no_check:
        options.real, options.sample = None, 2000
        _mock_check(options)


def _mock_features(options):
    from cast_lens.mock import features
    from cast_lens.run import RunError

    for name in ("n", "quirks", "telescope", "population", "workers"):
        if getattr(options, name) not in (None, False):
            raise RunError(f"features is one table of {features.N_OBJECTS}; leave --{name} out")
    path = options.folder / "strong_lense_train.csv"
    if path.exists():
        raise RunError(f"{path} exists and may be real; remove it or name another folder")
    print(f"wrote {features.write_table(path, seed=options.seed)}")


def _mock_check(options):
    from cast_lens import report
    from cast_lens.mock import check, comparison

    found = check.check(options.folder, real=options.real, sample=options.sample)
    told = (found["known"] != "") | found["quantity"].str.startswith("shortcut")
    print(report.tabulate(comparison.readable(found[told])))
    print(f"pictures and what the words mean: {options.folder / 'Check'}")


def _data(options):
    from cast_lens import archive

    print(archive.get(options.survey, options.folder, data=options.data))


def _check_data(options):
    from cast_lens import survey_report

    found = survey_report.check(options.folder, options.output, sample=options.sample)
    print(found.text)
    if len(found.problems):
        sys.exit(1)


def _print(rows, as_json, report):
    import pandas as pd

    if as_json:
        json.dump(rows, sys.stdout, indent=1, default=float)
        print()
        return
    frame = pd.DataFrame(rows)
    for column in frame.select_dtypes("number"):
        frame[column] = frame[column].map(report.number)
    print(report.tabulate(frame.fillna("")))
