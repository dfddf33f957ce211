"""The options of the subcommands of `cast-lens` about networks."""

import argparse
from pathlib import Path

from cast_lens import network_commands as commands
from cast_lens.run import at_least
from cast_lens.subcommands import add_answers, add_files, add_images, add_output, add_shared


def add(subparsers, command):
    """Add the subcommands.

    Args:
        subparsers: Of argparse.
        command: Function that adds one: subparsers, name, work, text, example.
    """
    _explain(subparsers, command)
    _shortcuts(subparsers, command)
    _matrix(subparsers, command)
    _adapt(subparsers, command)
    _features(subparsers, command)


def _explain(subparsers, command):
    one = command(
        subparsers,
        "explain",
        commands.explain_candidates,
        "what in the sky ranks rest on: LIME, occlusion, Grad-CAM",
        "cast-lens explain candidates --model sglc2-stand-in-v0 --first 1 -n 8",
    )
    add = one.add_argument
    add_shared(one, "candidates", "--model", "--images")
    add_images(one)
    which = one.add_mutually_exclusive_group()
    which.add_argument("--objects", nargs="+", metavar="ID", help="object IDs to explain")
    which.add_argument("--first", type=at_least(1), default=1, help="first rank to explain (1)")
    add("-n", type=at_least(1), default=8, help="candidates from that rank on (8)")
    add("-o", "--output", type=Path, help="folder (explained in that of the candidates)")
    add("--samples", type=at_least(100), default=500, help="of LIME, each a score (500)")
    add("--repeats", type=at_least(2), default=2, help="of LIME, for its stability (2)")
    add("--top", type=at_least(1), default=2, help="superpixels to outline (2)")
    add_shared(one, "--engine")
    add("--seed", type=at_least(0), default=0, help="seed of the samples (0)")
    add_shared(one, "--strict")
    add("--restart", action="store_true", help="explain anew what is in the folder")
    add_answers(one, "a table")


def _shortcuts(subparsers, command):
    one = command(
        subparsers,
        "shortcuts",
        commands.find_shortcuts,
        "does a network read the lens? AUCs with the lens hidden",
        "cast-lens shortcuts cutouts --labels labels.csv --model sglc2-stand-in-v0 --bands i,u,g,r",
    )
    add = one.add_argument
    add("images", type=Path, help="labelled folder, table, pack, or one FITS file")
    add("--labels", type=Path, help="table of object_id, label (those of the images)")
    add("--model", required=True, metavar="NAME", help="release, or file")
    add_images(one)
    add_output(one, "runs/shortcuts")
    add("--radius", type=float, default=3.0, help="of the disc that is hidden, arcsec (3)")
    add("--permutations", type=at_least(1), default=1000, help="of the labels (1000)")
    add_shared(one, "--engine", "--batch")
    add("--seed", type=at_least(0), default=0, help="seed of the permutations (0)")
    add_answers(one, "sentences")


def _matrix(subparsers, command):
    one = command(
        subparsers,
        "matrix",
        commands.build_matrix,
        "every network on every data set: AUCs and paired tests",
        "cast-lens matrix --data sglc2=packs/sglc2 kids=kids.csv --label-column is_lens",
    )
    add = one.add_argument
    add("--data", nargs="+", type=_named, required=True, metavar="NAME=IMAGES",
        help="labelled packs, folders, tables")  # fmt: skip
    add("--models", nargs="+", default=[], metavar="NAME", help="releases, files (all releases)")
    add("--labels", nargs="+", type=_named, default=[], metavar="NAME=TABLE",
        help="labels of a data set: object_id, label (its own)")  # fmt: skip
    add("--survey", nargs="+", type=_named, default=[], metavar="NAME=SURVEY",
        help="survey of a data set, to mark what was trained on it (not known)")  # fmt: skip
    add("--bands", nargs="+", type=_named, default=[], metavar="NAME=A,B,...",
        help="bands of a data set in the order of the networks'")  # fmt: skip
    add_files(one, "tables")
    add_output(one, "runs/matrix")
    add("--clip", choices=["released", "own"], default="released", help="as in score (released)")
    add_shared(one, "--dihedral", "--engine", "--batch", "--workers")
    add("--strict", action="store_true", help="stop at the first cell that cannot be")
    add("--restart", action="store_true", help="score all cells anew")
    add_answers(one, "tables", dry_run="list the cells")


def _adapt(subparsers, command):
    one = command(
        subparsers,
        "adapt",
        commands.adapt_network,
        "fine-tune a network with few labels, and say what it gained",
        "cast-lens adapt cutouts --labels few.csv --model sglc2-stand-in-v0 --survey kids "
        "--bands r,u,g,i -o adapted",
    )
    add = one.add_argument
    add("images", type=Path, help="folder, table, pack, or one FITS file; with and without labels")
    add("--labels", type=Path, nargs="+", metavar="TABLE",
        help="object_id, label, of one or more rounds of grading (of the images)")  # fmt: skip
    add("--model", required=True, metavar="NAME", help="release, or file, to begin with")
    add_images(one)
    add_output(one, "runs/adapted")
    add("--survey", help="what the images are of (the name of IMAGES)")
    add("--clip", choices=["own", "released"], default="own",
        help="fluxes of the stretch: percentiles of these images, or released (own)")  # fmt: skip
    add("--augmentation", choices=["dihedral", "similarity"], default="dihedral",
        help="eight images of each, or any rotation and zoom 0.8 to 1.2 (dihedral)")  # fmt: skip
    add("--sizes", type=at_least(2), nargs="*", metavar="N",
        default=[20, 40, 100, 200, 400, 1000, 2000, 4000],
        help="labels of the curve; all there are come last (20 40 100 200 400 ...)")  # fmt: skip
    add("--folds", type=at_least(2), default=5, help="parts, each tested by the others (5)")
    add("--epochs", type=at_least(1), default=10, help="of each training (10)")
    add("--batch", type=at_least(2), default=16, help="objects in a batch (16)")
    add("--no-scratch", action="store_true", help="no comparison with random weights")
    add("--seed", type=at_least(0), default=0, help="of folds, weights, order, turns (0)")
    add("--strict", action="store_true", help="stop at a labelled image that cannot be read")
    add("--restart", action="store_true", help="train anew what is in the folder")
    add_answers(one, "a table", dry_run="say what would be trained")


def _features(subparsers, command):
    one = command(
        subparsers,
        "features",
        commands.write_features,
        "features of candidates, as a pool for cast-lens rank",
        "cast-lens features candidates --model sglc2-stand-in-v0 -o pool",
    )
    add_shared(one, "candidates", "--model", "--images")
    add_images(one)
    add_output(one, "runs/pool", "new folder")
    add_shared(one, "--batch", "--strict")
    add_answers(one, "a line")


def _named(text):
    name, _, value = text.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE")
    return name, value
