"""Which code, on which machine: what a number can depend on beside data, seed and versions."""

import os
import platform
import subprocess
from pathlib import Path

import cast_lens


def here():
    """Describe the code and the machine of this process; no name of machine or person is in it.

    Returns:
        Dict of text: cast_lens (version), commit (of the source, "none: ..." where it is not in a
        git repository), processor, cores, memory, system and python.
    """
    return {
        "cast_lens": cast_lens.__version__,
        "commit": commit(Path(cast_lens.__file__).parent),
        "processor": _processor(),
        "cores": _cores(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def commit(folder):
    """Return the git commit a folder is of, and whether its files differ from it.

    Args:
        folder: Of a package. An installed one may lie inside somebody else's repository, so its
            __init__.py must be a file that git knows.

    Returns:
        40 hex digits, with " and changes since" if files differ; or "none: " and why.
    """
    known = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    found = known and _git(folder, "rev-parse", "HEAD")
    if not found:
        return "none: not run from a git repository"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return found + (" and changes since" if changed else "")


def _git(folder, *words):
    """Return what git says, or nothing where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line[:10] == "model name"]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def _cores():
    count = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return f"{count}" if usable == count else f"{count}, of which {usable} may be used"


def _memory():
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError):
        return "unknown"
