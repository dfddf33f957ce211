"""`python -m reproductions PAPER [options]`: re-run one paper."""

import importlib
import pkgutil
import sys

import reproductions
from cast_lens import run


def main():
    """Run the paper named first on the command line; TensorFlow's own log goes to a file."""
    papers = [module.name for module in pkgutil.iter_modules(reproductions.__path__)]
    papers.remove("__main__")
    name = (sys.argv[1] if len(sys.argv) > 1 else "").replace("-", "_")
    if name not in papers:
        raise run.RunError(f"name a paper first, one of: {', '.join(papers)}")
    with run.native_log():
        importlib.import_module(f"reproductions.{name}").main(sys.argv[2:])


def errors():
    """Return the exceptions whose message is all that a person needs."""
    from cast_lens import catalog, cutouts, data, folds, pack, scores, stacks

    return (
        OSError,
        data.DataError,
        data.DataUnavailableError,
        catalog.CatalogError,
        cutouts.CutoutError,
        folds.FoldError,
        pack.PackError,
        scores.ScoreError,
        stacks.StackError,
    )


if __name__ == "__main__":
    run.command(main, errors)
