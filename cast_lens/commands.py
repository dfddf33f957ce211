"""What each subcommand of `cast-lens` does; imports that cost time are in the one they are for."""

import sys
from pathlib import Path

from cast_lens.subcommands import answered, print_json


def show_metrics(options):
    """Print the metrics of a score file, with intervals."""
    from functools import partial

    from cast_lens import intervals, metrics, report

    wanted = {
        "roc_auc": metrics.roc_auc,
        "average_precision": metrics.average_precision,
        f"lenses_in_top_{options.top}": partial(metrics.lenses_in_top, n=options.top),
        "tpr0": partial(metrics.tpr_at_false_positives, n_false=0),
        "tpr10": partial(metrics.tpr_at_false_positives, n_false=10),
        "max_f_beta_0.001": partial(metrics.max_f_beta, beta_squared=0.001),
    }
    rows = []
    table = _scores_of(options.scores)
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


def _scores_of(path):
    """Return the score table of a score file, or of a folder of one or of candidates."""
    from cast_lens import candidates, scores
    from cast_lens.run import RunError

    if path.is_dir() and (path / "scores.csv").is_file():
        path = path / "scores.csv"
    is_candidates = (path / candidates.CSV).is_file() or path.name in candidates.TABLES
    if not is_candidates and path.is_dir():
        below = sorted(path.glob("*/scores.csv"))
        hint = f"; there are {len(below)} below it, such as {below[0]}" if below else ""
        raise RunError(
            f"{path}: found neither scores.csv nor {candidates.CSV}, expected a score file, the "
            f"folder of an experiment, or one that `cast-lens score` wrote{hint}; name one"
        )
    if not is_candidates:
        return scores.read_scores(path)
    table = candidates.read(path)
    if "label" not in table:
        raise RunError(
            f"{path}: found candidates without labels, expected 0 or 1 for each, without which "
            "there are no metrics; score a pack or table with labels (--label-column)"
        )
    # By the logit: scores of 1 - 1e-17 are all 1.
    return table.assign(run=str(path), n_train="", score=table["logit"])[scores.COLUMNS]


def list_cutouts(options):
    """Print what is in a folder of challenge cutouts; a file that cannot be used is a row too."""
    import math

    from cast_lens import cutouts, report
    from cast_lens.run import RunError

    if options.mask_value is not None and not math.isfinite(options.mask_value):
        raise RunError(f"mask_value is {options.mask_value}, expected a finite number, or none")
    rows, errors = [], []
    found, n_extra = cutouts.find_cutouts(options.folder)
    for _, row in found.iterrows():
        for band in [name[5:] for name in found if name.startswith("path_")]:
            about, path = {"object_id": row["object_id"], "band": band}, row[f"path_{band}"]
            if path is None:
                rows.append(about | {"pixels": "missing"})
                continue
            try:
                rows.append(about | _cutout_row(path, options.mask_value))
            except cutouts.CutoutError as error:
                if options.strict:
                    raise
                rows.append(about | {"pixels": error.reason})
                errors.append(error)
    _print(rows, options.json, report)
    for one in errors:
        print(f"left out: {one}", file=sys.stderr)
    print(f"{len(found)} objects, {n_extra} other files, {len(errors)} files that cannot be used",
          file=sys.stderr)  # fmt: skip


def _cutout_row(path, mask_value):
    """Return size, statistics and bad pixels of one file."""
    from cast_lens import cutouts

    image, counts = cutouts.read_cutout([path])
    if mask_value is not None:  # the statistics need the pixels that this makes 0
        _, counts = cutouts.read_cutout([path], mask_value=mask_value)
    statistics = cutouts.pixel_statistics(image, mask_value=mask_value)
    row = {"pixels": "x".join(map(str, image.shape[:2]))}
    row |= {name: float(value[0]) for name, value in statistics.items()}
    return row | {"masked": counts.n_masked[0], "not_finite": counts.n_nonfinite[0]}


def show_table(options):
    """Print what was reported beside what was reproduced."""
    from cast_lens import report

    compared, judged = report.gather(options.reproductions, options.runs, write=options.write)
    if options.paper:
        compared, judged = (t[t["paper"] == options.paper] for t in (compared, judged))
    print(report.tabulate(report.counts(compared)))
    print("\n" + report.terminal(report.was_run(compared), report.was_run(judged)))


def write_report(options):
    """Write the page of every number, conclusion and run."""
    from functools import partial

    from tqdm import tqdm

    from cast_lens import report

    said = report.write_page(
        options.output, options.reproductions, options.runs, options.named, strict=options.strict,
        write=not options.dry_run, progress=partial(tqdm, desc="runs", disable=None),
    )  # fmt: skip
    for why in said["skipped"].values():
        print(f"skipped: {why}", file=sys.stderr)

    def plan():
        return f"would write {options.output} with the runs: {', '.join(said['runs']) or 'none'}"

    if not answered(options, said, plan):
        print(f"wrote {options.output}: {len(said['runs'])} runs, {said['bytes'] / 1e6:.1f} MB")


def show_assumptions(options):
    """Print what no paper says and we assumed."""
    from cast_lens import report

    rows = report.assumptions(options.folders)
    print(report.tabulate(rows) if len(rows) else "no assumptions found")


def make_mock(options):
    """Write a stand-in survey and compare it with what is known."""
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
        check_mock(options)


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


def check_mock(options):
    """Compare a stand-in survey with what is known of the real one."""
    from cast_lens import report
    from cast_lens.mock import check, comparison

    found = check.check(options.folder, real=options.real, sample=options.sample)
    told = (found["known"] != "") | found["quantity"].str.startswith("shortcut")
    print(report.tabulate(comparison.readable(found[told])))
    print(f"pictures and what the words mean: {options.folder / 'Check'}")


def get_data(options):
    """Get a public survey, check it and pack it."""
    from cast_lens import archive, survey_pack

    if options.dry_run:
        print(archive.plan(options.survey, options.folder, data=options.data))
        return
    folder = archive.get(options.survey, options.folder, data=options.data)
    print(folder)
    is_sound = options.no_pack or _checked(folder, Path("runs/check-data") / options.survey, 2000)
    if not options.no_pack:
        output = options.folder.expanduser() / f"{options.survey}-pack"
        _show_pack(survey_pack.pack_survey(folder, output, dtype="float32"))
    if not is_sound:
        sys.exit(1)


def check_data(options):
    """Look at a survey; exit with status 1 if something is wrong."""
    if not _checked(options.folder, options.output, options.sample):
        sys.exit(1)


def _checked(folder, output, sample):
    from cast_lens import survey_report

    found = survey_report.check(folder, output, sample=sample)
    print(found.text)
    return found.problems.empty


def make_pack(options):
    """Pack a survey or a table of files, and print the audit."""
    import time

    from cast_lens import survey_pack

    name = options.survey.resolve().name.partition(".")[0] or "survey"
    output = options.output or options.survey.resolve().with_name(f"{name}-pack")
    build = {key: getattr(options, key) for key in ("dtype", "strict", "restart", "workers")}
    start = time.perf_counter()
    if options.survey.is_file():
        names = ("id_column", "path_column", "label_column", "mask_value", "channels")
        columns = {key: getattr(options, key) for key in names}
        found = survey_pack.pack_table(options.survey, output, **columns, **build)
    else:
        rules = {"label": options.label, "duplicates": options.duplicates}
        found = survey_pack.pack_survey(options.survey, output, **rules, **build)
    _show_pack(found)
    print(f"in {time.perf_counter() - start:.1f} s")


def _show_pack(found):
    from cast_lens import report, survey_pack

    for part in survey_pack.summary(found):
        print(part if isinstance(part, str) else f"\n{report.tabulate(part)}\n")
    print(f"packed in {found.folder}")


def verify_pack(options):
    """Look at every bit of a pack."""
    from cast_lens import pack

    n_records = pack.open_pack(options.pack).verify(progress=True)
    print(f"{options.pack}: {n_records} records and all tables are as they were written")


def _print(rows, as_json, report):
    import pandas as pd

    if as_json:  # which has no word for NaN
        plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]
        print_json(plain, default=float)
        return
    frame = pd.DataFrame(rows)
    for column in frame.select_dtypes("number"):
        frame[column] = frame[column].map(report.number)
    print(report.tabulate(frame.fillna("")))
