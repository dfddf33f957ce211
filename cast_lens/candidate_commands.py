"""What the subcommands of `cast-lens` about candidates do."""

import sys

from cast_lens.candidate_images import bands_of, find_images, images_of
from cast_lens.subcommands import answered, print_json, records


def score(options):
    """Score images with a network and write a folder of candidates."""
    from functools import partial

    from cast_lens import run

    with run.native_log():
        from cast_lens import images, scoring

        about = scoring.score(
            partial(find_images, options), options.model, options.output, clip=options.clip,
            dihedral=options.dihedral, engine=options.engine, batch=options.batch,
            shard=options.shard, workers=options.workers, dask=options.dask, slurm=options.slurm,
            take=bands_of(options), top=options.top,
            strict=options.strict, restart=options.restart, dry_run=options.dry_run,
        )  # fmt: skip

    def plan():
        n = about["plan"]
        return (f"{n['n_images']} objects in {n['n_shards']} shards, {n['n_shards_there']} of them "
                "there; nothing was written")  # fmt: skip

    if not answered(options, about, plan):
        print(scoring.sentence(about["audit"]))
        for word, n in about["audit"]["n_flagged"].items():
            print(f"{n} {word}: {images.FLAGS[word]}")
        print(f"candidates in {options.output}")


def grade_candidates(options):
    """Write the page on which a person grades candidates."""
    from cast_lens import candidates, grading

    table, found = candidates.read(options.candidates), images_of(options)
    output = options.output or options.candidates / "grade.html"
    if options.dry_run:
        plan = f"would write {output} with up to {options.n} of {len(table)} candidates"
        answered(options, {"page": str(output), "candidates": len(table)}, lambda: plan)
        return
    page = grading.grade(
        table, found, output, first=options.first, n=options.n, stretches=options.stretch,
        colors=options.colors, side=options.side, strict=options.strict,
    )  # fmt: skip
    about = {"page": str(page.path), "candidates": page.n, "without_image": page.n_without_image,
             "bytes": page.size, "key": page.key}  # fmt: skip
    if options.json:
        print_json(about)
    else:
        print(f"{page.path}: {page.n} candidates ({page.n_without_image} without an image), "
              f"{page.size / 1e6:.1f} MB; open it in a browser")  # fmt: skip


def rank_pool(options):
    """Choose the objects of a pool to label next."""
    from cast_lens import pools, ranking

    labels = ranking.read_labels(options.labels) if options.labels else None
    pool = pools.open_pool(
        options.pool, id_column=options.id_column, prefix=options.prefix,
        leave_out=options.leave_out,
    )  # fmt: skip
    weight = "balanced" if options.lens_weight is None else {0: 1.0, 1: options.lens_weight}
    table, counts = ranking.rank(
        pool, labels, strategy=options.strategy, n=options.n, seed=options.seed,
        class_weight=weight,
    )  # fmt: skip
    about = {"pool": str(pool.source.absolute()), "n_left_out": pool.n_left_out,
             "labels": [str(path.absolute()) for path in options.labels or []],
             "strategy": options.strategy, "n": options.n, "seed": options.seed}  # fmt: skip
    if not options.dry_run:
        ranking.write(options.output, table, counts, about, candidates_folder=options.candidates)
    _tell_rank(options, table, counts, about)


def _tell_rank(options, table, counts, about):
    from dataclasses import asdict

    from cast_lens import ranking

    if options.json:
        told = about | asdict(counts) | {"objects": records(table)}
        told["strength"] = counts.strength if counts.classifier else None
        print_json(told)
        return
    print(f"{counts.n_pool} objects in the pool, {about['n_left_out']} left out for a feature that "
          f"is no number; {counts.n_lenses} labelled lenses and {counts.n_others} others, "
          f"{counts.n_undecided} undecided, {counts.n_absent} labelled that are not "
          "in the pool")  # fmt: skip
    if counts.classifier:
        print(f"{counts.classifier} (C = {counts.strength:g})")
    else:
        print("no classifier: it takes labels of both classes")
    where = "nothing was written" if options.dry_run else str(options.output / ranking.TABLE)
    print(f"{len(table)} to label next by {options.strategy}: {where}")


def measure_completeness(options):
    """Measure the selection function of scores at a threshold."""
    from cast_lens import selection, selection_figures, selection_tables
    from cast_lens.metrics import UndefinedMetric

    scored = selection_tables.read_scored(options.scores, run=options.run)
    truth, quantities = selection_tables.read_truth(
        options.truth, dict(options.column), id_column=options.id_column
    )
    scored = _labelled(scored, options)
    beside, is_there = selection_tables.join(scored, truth)
    by = "score" if options.threshold is not None else "logit"  # scores near 1 can be equal
    called, threshold = selection.choose_threshold(
        scored["label"], scored[by], score=options.threshold, inspected=options.top,
        false_positive_rate=options.false_positive_rate,
    )  # fmt: skip
    lenses = (scored["label"] == 1).to_numpy() & is_there
    values, found, given = beside[lenses], called[lenses], dict(options.edges)
    tables, fits = {}, {}
    for name, quantity in quantities.items():
        try:
            edges = given.get(name) or selection.equal_number_edges(values[name], options.bins)
            tables[name] = selection.completeness_in_bins(values, found, {name: edges})
            fits[name] = selection.fit_logistic(values[name], found, is_log=quantity.is_log)
        except UndefinedMetric as reason:
            fits[name] = str(reason)
    if not tables:
        raise UndefinedMetric(
            f"{options.scores} and {options.truth}: found {len(found)} lenses in both, and no "
            f"quantity can be put in bins ({'; '.join(map(str, fits.values()))}); expected lenses "
            "with a label of 1 and a measured quantity"
        )
    pair = ("einstein_radius", "magnitude")
    if set(pair) <= set(tables):
        edges = {
            name: given.get(name) or selection.equal_number_edges(values[name], options.cells)
            for name in pair
        }
        tables[" x ".join(pair)] = selection.completeness_in_bins(values, found, edges)
    about = {"NETWORK": options.network, "SCORES": str(options.scores), "TRUTH": str(options.truth)}
    about["THRESHON"] = by
    folder = options.output
    paths = selection_tables.write_completeness(folder, tables, quantities, fits, threshold, about)
    title = f"{options.scores}, {threshold.chosen_by}: {found.sum()} of {len(found)} lenses found"
    figure = folder / "completeness.png"
    selection_figures.completeness(tables, quantities, figure, title=title, fits=fits)
    _tell_completeness(options, tables, fits, threshold, int((~is_there).sum()))
    print(f"wrote {', '.join(map(str, (*paths, figure)))}", file=sys.stderr)


def _tell_completeness(options, tables, fits, threshold, n_unknown):
    from dataclasses import asdict

    if options.json:
        rows = {name: records(table) for name, table in tables.items()}
        cost = {
            name: value if value == value else None for name, value in asdict(threshold).items()
        }
        print_json({"threshold": cost, "bins": rows})
        return
    print(f"{threshold.chosen_by}: {threshold.n_found} of {threshold.n_lenses} lenses found, "
          f"{threshold.n_false} false positives, false-positive rate below "
          f"{threshold.false_positive_rate_below:.2g} (95 %)")  # fmt: skip
    for name, fit in fits.items():
        if isinstance(fit, str):
            print(f"{name}: no curve: {fit}")
        else:
            low, high = (f"{x:.4g}" if x == x else "unbounded" for x in fit.half_interval)
            half = f"half found at {fit.half:.4g} ({low} to {high})"
            if fit.half != fit.half:
                half = "where half are found lies beyond the lenses measured"
            print(f"{name}: {half}; p of the logistic curve {fit.p:.2g}")
    print(f"{n_unknown} scored objects are not in {options.truth}")


def _labelled(scored, options):
    """Return scores with the labels of the rule that was asked for."""
    from cast_lens import catalog
    from cast_lens.run import RunError
    from cast_lens.survey_pack import LABELS

    if options.lenses == "label":
        if "label" not in scored:
            raise RunError(f"{options.scores} has no labels; say by --lenses which are lenses")
        return scored
    table = catalog.read_sglc2_catalog(options.truth, duplicates="drop")
    rule = dict(zip(table["object_id"], LABELS[options.lenses](table)))
    scored = scored[scored["object_id"].isin(rule)].reset_index(drop=True)
    return scored.assign(label=scored["object_id"].map(rule).astype("int64"))


def _graded(scored, options):
    """Return the scored objects that a table of --labels has a label of."""
    from cast_lens import grading, purity, ranking
    from cast_lens.run import RunError

    kept = grading.labelled(scored, ranking.read_labels(options.labels))
    if kept.empty:
        raise RunError(
            f"{options.labels[0]}: found a label of none of the {len(scored)} objects of "
            f"{options.scores}, such as {scored['object_id'].iloc[0]}; expected the same IDs"
        )
    others = scored[~scored["object_id"].isin(kept["object_id"])]
    p = purity.chance_of_sample(kept["logit"], others["logit"])
    if p < purity.NO_SAMPLE:
        print(f"warning: the {len(kept)} labelled objects score otherwise than the others (p = "
              f"{p:.1g}): they are no random sample, and what follows holds for a survey of "
              "objects like them alone", file=sys.stderr)  # fmt: skip
    return kept


def answer_purity(options):
    """Say how many lenses are among the best N objects of a survey."""
    from cast_lens import purity, selection_figures, selection_tables
    from cast_lens.run import RunError, write_whole
    from cast_lens.scores import escape_cell

    scored = selection_tables.read_scored(options.scores, run=options.run)
    n_survey, draws = options.objects or len(scored), {"draws": options.draws, "seed": options.seed}
    if options.labels:
        scored = _graded(scored, options)
    if "label" not in scored:
        raise RunError(
            f"{options.scores} has no labels; label a random sample of it and name it by --labels"
        )
    labels, logits = scored["label"].to_numpy(), scored["logit"].to_numpy()
    inspected = [n for n in options.inspect if n <= n_survey] or [n_survey]
    made = purity.calibrate(
        labels, logits, method=options.method, folds=options.folds, seed=options.seed
    )
    bins = purity.reliability(labels, made.probabilities, bins=options.bins)
    error = purity.calibration_error(labels, made.probabilities, bins=options.bins, **draws)
    found = purity.lenses_found(
        labels, logits, inspected=inspected, prevalences=options.prevalence, n_survey=n_survey,
        **draws,
    )  # fmt: skip
    every = scored[["object_id", "label"]].assign(probability=made.probabilities)
    every["object_id"] = every["object_id"].map(escape_cell)
    for new in options.prevalence:
        every[f"probability_at_{new:g}"] = purity.shift_prevalence(
            made.probabilities, old=made.prevalence, new=new
        )
    folder, n_lenses = options.output, int(labels.sum())
    for name, table in (("purity", found), ("reliability", bins), ("probabilities", every)):
        write_whole(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    title = (f"{options.scores}: {n_lenses} lenses and {len(labels) - n_lenses} others labelled, "
             f"a survey of {n_survey} objects")  # fmt: skip
    selection_figures.purity(found, bins, folder / "purity.png", title=title)
    for line in purity.warnings(found, len(labels) - n_lenses):
        print(f"warning: {line}", file=sys.stderr)
    _tell_purity(options, found, error)
    names = "purity.csv, reliability.csv, probabilities.csv, purity.png"
    print(f"wrote {folder}/{names}", file=sys.stderr)


def _tell_purity(options, found, error):
    from cast_lens import report

    if options.json:
        print_json({"calibration": error, "lenses": records(found)})
        return
    shown = found.drop(
        columns=[name for name in found if name.startswith(("purity_", "false_per_lens_"))]
    )
    for column in shown.select_dtypes("number"):
        shown[column] = shown[column].map(report.number)
    print(report.tabulate(shown))
    print(f"expected calibration error {error['ece']:.3g}, of which chance alone gives "
          f"{error['ece_if_calibrated']:.3g} with so many objects (p = {error['p']:.2g})\n"
          "taken for granted: lenses and others of the survey look like these")  # fmt: skip


def match_known(options):
    """Mark the candidates that are known lenses."""
    from dataclasses import asdict

    from cast_lens import crossmatch, selection_figures

    candidates = crossmatch.read_candidates(options.candidates)
    known = crossmatch.read_known(options.known)
    matched, counts = crossmatch.match(
        candidates, known, radius=options.radius, footprint=options.footprint, shift=options.shift
    )
    crossmatch.write(matched, options.output)
    if counts.n_matched:
        title = f"{options.candidates} and {options.known}"
        figure = options.output.with_suffix(".png")
        selection_figures.separations(matched, counts, figure, title=title)
    if options.json:
        print_json(asdict(counts))
        return
    print("\n".join(crossmatch.summary(matched, counts, top=options.top)))
    print(f"wrote {options.output}")
