"""A run that dies again and again while it writes, and must end as one that does not."""

import importlib

from cast_lens import run
from tests.folders import results

EVERY = 7  # writes, the last of which is not done


class Killed(BaseException):
    """What no command catches."""


def hold_killed_against_whole(main, folder, monkeypatch, *, last, kept):
    """Run a paper whole and in pieces; both must end alike, and a finished run does nothing.

    Args:
        main: The paper's main.
        folder: For both runs.
        monkeypatch: Of pytest.
        last: Number of the write from which on none dies.
        kept: Pattern of files that a second run must not write.
    """
    main(["--output", str(folder / "whole")])
    whole = results(folder / "whole")
    assert len(whole) > 40
    write, calls = run.write_whole, []

    def write_or_die(path, *arguments, **options):
        calls.append(path)
        if len(calls) % EVERY == 0 and len(calls) < last:
            raise Killed
        write(path, *arguments, **options)

    for module in ("cast_lens.checkpoints", "cast_lens.run", "cast_lens.scores"):
        monkeypatch.setattr(importlib.import_module(module), "write_whole", write_or_die)
    n_kills = 0
    while True:
        try:
            main(["--output", str(folder / "pieces")])
            break
        except Killed:
            n_kills += 1
    assert n_kills == (last - 1) // EVERY and results(folder / "pieces") == whole
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob(kept)}
    main(["--output", str(folder / "whole")])
    for path, stamp in stamps.items():  # nothing is computed twice
        assert path.stat().st_mtime_ns == stamp
