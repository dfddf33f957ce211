"""What subcommands of `cast-lens` have in common: options that mean the same, and the answer."""

import argparse
import json
from pathlib import Path
from typing import Any

from cast_lens.run import at_least

SHARED: dict[str, dict[str, Any]] = {
    "candidates": {"type": Path, "help": "folder that `cast-lens score` wrote"},
    "scores": {"type": Path, "help": "score file, or folder of candidates with labels"},
    "--model": {"required": True, "metavar": "NAME",
                "help": "release, or file; one of an ensemble"},
    "--images": {"type": Path, "help": "the images that were scored (as run.json says)"},
    "--dihedral": {"action": "store_true", "help": "average over the eight dihedral images"},
    "--engine": {"choices": ["auto", "onnx", "keras"], "default": "auto", "help": "(auto)"},
    "--batch": {"type": at_least(1), "default": 16, "help": "objects in a batch (16)"},
    "--workers": {"type": at_least(1), "default": 1, "help": "processes (1)"},
    "--run": {"help": "run of a score file with several"},
    "--strict": {"action": "store_true", "help": "stop at an image that cannot be read"},
}  # fmt: skip


def add_shared(parser, *names):
    """Add arguments that mean the same in every subcommand that has them.

    Args:
        parser: Of the subcommand.
        names: Keys of `SHARED`, in the order of the help.
    """
    for name in names:
        parser.add_argument(name, **SHARED[name])


def add_images(parser):
    """Add the options that say how images are read, those of `candidate_images`."""
    parser.add_argument(
        "--bands", metavar="A,B,...", help="bands of the images in the order of the network's"
    )
    add_files(parser, "a table")


def add_files(parser, of):
    """Add the options of `add_images` that do not hang on the network.

    Args:
        parser: Of the subcommand.
        of: What columns are of: "a table" or "tables".
    """
    add = parser.add_argument
    add("--pixel-scale", type=pixel_scale, metavar="S|A=S,B=S,...",
        help="arcsec a pixel, of all or of each (WCS, or PIXSCALE in the header)")  # fmt: skip
    add("--mask-value", type=float, help="pixels >= this become 0 (none)")
    add("--id-column", default="id_str", help=f"of {of} (id_str)")
    add("--path-column", default="file_loc", help=f"of {of}; with {{band}} one a band (file_loc)")
    add("--label-column", help=f"of {of}: labels, 0 or 1 (none)")


def pixel_scale(text):
    """Return what --pixel-scale says: one number, or {band: number}."""
    try:
        if "=" not in text:
            return float(text)
        return {band: float(scale) for band, scale in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected arcsec such as 0.1, or VIS=0.1,H=0.3"
        ) from error


def add_output(parser, folder, what="folder"):
    """Add the option of the folder to write, and its default."""
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(folder), help=f"{what} ({folder})"
    )


def add_answers(parser, instead_of, *, dry_run="say what would be done"):
    """Add the options of `answered`.

    Args:
        parser: Of the subcommand.
        instead_of: What is printed without --json, such as "a table".
        dry_run: What is done with --dry-run.
    """
    parser.add_argument("--dry-run", action="store_true", help=f"{dry_run}, write nothing")
    add_json(parser, instead_of)


def add_json(parser, instead_of):
    """Add the option --json; `instead_of` as in `add_answers`."""
    parser.add_argument("--json", action="store_true", help=f"print JSON instead of {instead_of}")


def answered(options, about, plan):
    """Print JSON if that was asked for, or else what a dry run would have done.

    Args:
        options: Parsed, with json and dry_run.
        about: What the subcommand did or would do, for JSON.
        plan: Function without arguments that returns a sentence; called for a dry run alone.

    Returns:
        Whether anything was printed; if not, what was done is yet to be told.
    """
    if options.json:
        print_json(about)
    elif options.dry_run:
        print(plan())
    return options.json or options.dry_run


def records(table):
    """Return the rows of a DataFrame as JSON has them: NaN is None, and numbers are Python's."""
    return json.loads(table.to_json(orient="records"))


def print_json(value, *, default=None):
    """Print a value as JSON of one item a line; `default` as for `json.dumps`."""
    print(json.dumps(value, indent=1, default=default))
