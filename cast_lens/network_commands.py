"""What the subcommands of `cast-lens` about networks do."""

import sys

from cast_lens.candidate_images import about_of, bands_of, find_images, images_of, named_bands
from cast_lens.subcommands import answered, print_json, records


def explain_candidates(options):
    """Show what the ranks of candidates rest on: LIME, occlusion and Grad-CAM."""
    from pathlib import Path

    from cast_lens import run

    with run.native_log():
        from cast_lens import candidates, explaining, networks

        table = candidates.read(options.candidates)
        about = about_of(options)
        output = options.output or Path(options.candidates) / "explained"
        chosen = explaining.choose(table, options.objects, options.first, options.n)
        if options.dry_run:
            plan = f"would explain {len(chosen)} of {len(table)} candidates in {output}"
            answered(options, {"explained": records(chosen[["object_id"]])}, lambda: plan)
            return
        found_images = images_of(options)
        network = networks.open_network(options.model)
        if (table["weights"] != network.sha256[:12]).any():
            print(f"these candidates were scored by other weights than {network.name}: what is "
                  "explained is its logit, not their rank", file=sys.stderr)  # fmt: skip
        take = bands_of(options) or about.get("options", {}).get("bands")
        settings = explaining.Settings(
            options.samples, options.repeats, options.top, options.seed, options.engine
        )
        found = explaining.explain_candidates(
            table, found_images, network, output, object_ids=options.objects,
            first=options.first, n=options.n, settings=settings, take=take,
            clip=about.get("clip"), strict=options.strict, restart=options.restart,
        )  # fmt: skip
    if options.json:
        print_json(records(found))
        return
    columns = ["object_id", "method", "logit", "stability", "jaccard", "highlighted_share"]
    shown = found[found["object_id"].isin(chosen["object_id"])][columns]
    print(shown.to_string(index=False, float_format="%.2f"))
    print(f"pictures and {explaining.CSV} in {output}")


def find_shortcuts(options):
    """Test whether a network reads the lens or something that goes with it."""
    from cast_lens import run

    with run.native_log():
        from cast_lens import shortcuts

        found = find_images(options, _asked_bands(options))
        if options.labels:
            found = shortcuts.with_labels(found, options.labels)
        if options.dry_run:
            plan = f"would test {options.model} on {len(found)} objects; nothing was written"
            answered(options, {"model": options.model, "n_images": len(found)}, lambda: plan)
            return
        table = shortcuts.run_tests(
            found, options.model, options.output, radius=options.radius,
            take=bands_of(options), engine=options.engine,
            batch=options.batch, permutations=options.permutations, seed=options.seed,
        )  # fmt: skip
    if options.json:
        print_json(records(table))
        return
    print("\n".join(table["sentence"]))
    print(f"shortcuts.csv and logits.csv in {options.output}")


def _asked_bands(options):
    """Return the bands to look for: those named, or those of the network."""
    from cast_lens import networks, weights, weights_files

    if options.bands:
        return bands_of(options)
    described = weights_files.described(options.model, manifest=weights.MANIFEST)
    branches = networks.read_description(described)["branches"]
    return tuple(dict.fromkeys(band for branch in branches for band in branch.bands))


def build_matrix(options):
    """Score every network on every data set, with intervals and paired tests."""
    from functools import partial

    from cast_lens import run

    with run.native_log():
        from cast_lens import matrix

        bands, labels = dict(options.bands), dict(options.labels)
        surveys = dict(options.survey)
        sets = [
            matrix.DataSet(
                name, partial(_find_set, options, path), surveys.get(name, ""), labels.get(name),
                named_bands(bands[name]) if name in bands else None,
            )
            for name, path in options.data
        ]  # fmt: skip
        for given in (bands, labels, surveys):
            if unknown := sorted(set(given) - {one.name for one in sets}):
                raise matrix.MatrixError(
                    f"found the data set {unknown[0]}, expected one of "
                    f"{', '.join(one.name for one in sets)}; name it in --data"
                )
        cells, pairs = matrix.build(
            matrix.entrants(options.models), sets, options.output, clip=options.clip,
            dihedral=options.dihedral, engine=options.engine, batch=options.batch,
            workers=options.workers, strict=options.strict, restart=options.restart,
            dry_run=options.dry_run,
        )  # fmt: skip
    if options.json:
        print_json({"cells": records(cells), "pairs": [] if pairs is None else records(pairs)})
    elif options.dry_run:
        print(cells[["network", "data", "trained_on_this", "note"]].to_string(index=False))
    else:
        print(matrix.markdown(cells, pairs), end="")
        print(f"matrix.csv, pairs.csv, matrix.md and matrix.png in {options.output}")
    if not options.dry_run and not cells["n"].any():
        raise matrix.MatrixError(
            f"no network has scored any of the data sets; the notes say why, in {options.output}"
        )


def _find_set(options, path, bands):
    from argparse import Namespace

    return find_images(Namespace(**{**vars(options), "images": path}), bands)


def adapt_network(options):
    """Adapt a network to a survey with few labels, and say what that gained."""
    from functools import partial

    from cast_lens import run

    with run.native_log():
        from cast_lens import adapting, ranking

        settings = adapting.Settings(
            options.clip, options.augmentation, tuple(options.sizes), options.folds,
            options.epochs, options.batch, not options.no_scratch, options.seed,
        )  # fmt: skip
        about = adapting.adapt(
            partial(find_images, options),
            ranking.read_labels(options.labels) if options.labels else None,
            options.model, options.output, survey=options.survey or options.images.stem,
            settings=settings, take=bands_of(options),
            strict=options.strict, restart=options.restart, dry_run=options.dry_run,
        )  # fmt: skip

    def plan():
        n = about["plan"]
        return (f"{n['n_labelled']} labelled objects, {n['n_lens']} of them lenses; "
                f"{n['n_trainings']} trainings in {n['n_folds']} folds with "
                f"{', '.join(map(str, n['sizes']))} labels, {n['n_images_seen']} images "
                "through the network; nothing was written")  # fmt: skip

    if not answered(options, about, plan):
        _tell_adapted(options, about)


def _tell_adapted(options, about):
    import pandas as pd

    from cast_lens.score_merge import reasons

    labels, audit = about["labels"], about["audit"]
    print(f"{labels['n']} labelled objects: {audit['n_written']} used, left out: "
          f"{reasons(audit)}; {labels['n_undecided']} undecided, {labels['n_absent']} labelled "
          "that are not among the images")  # fmt: skip
    columns = ["start", "n_train", "auc", "low", "high", "over_direct", "p_direct",
               "over_scratch", "p_scratch"]  # fmt: skip
    curve = pd.DataFrame(about["curve"])[columns].astype({"start": str})
    print(curve.to_string(index=False, float_format="%.3f", na_rep="-"))
    for line in about["warnings"]:
        print(f"WARNING: {line}", file=sys.stderr)
    print(f"cast-lens score IMAGES --model {options.output / about['adapted']['file']} "
          "ranks with the adapted network")  # fmt: skip


def write_features(options):
    """Write the features of candidates' images as a pool to rank."""
    from cast_lens import run

    with run.native_log():
        from cast_lens import features
        from cast_lens.score_merge import reasons

        told = about_of(options)
        take = bands_of(options) or told.get("options", {}).get("bands")
        about = features.write_features(
            images_of(options), options.model, options.output, clip=told.get("clip"), take=take,
            batch=options.batch, strict=options.strict, dry_run=options.dry_run,
        )  # fmt: skip

    def plan():
        return (f"would write {about['n_features']} features of up to {about['plan']['n_images']} "
                f"objects in {options.output}")  # fmt: skip

    if not answered(options, about, plan):
        audit = about["audit"]
        print(f"n_images {audit['n_images']} = n_written {audit['n_written']} + n_left_out "
              f"{sum(audit['n_left_out'].values())} ({reasons(audit)}); {about['n_features']} "
              f"features of each in {options.output}")  # fmt: skip
