"""What is in a folder, so that tests can compare two of them."""

import hashlib
from pathlib import Path

MACHINE = (".lock", "origin.json")  # a process ID; which commit of the code, on which machine


def contents(folder):
    """Return {path: bytes} of all files but those of `MACHINE`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name not in MACHINE
    }


def hashes(folder):
    """Return {path: SHA-256} of what `contents` returns."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents(folder).items()}


def stamps(folder):
    """Return what any write to the folder would change."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in [Path(folder), *Path(folder).rglob("*")]
        if path.name != ".lock"
    }


def results(folder):
    """Return {path: SHA-256} of what a run ends with; report.html holds its folder's name."""
    return {name: found for name, found in hashes(folder).items() if name != "report.html"}
