"""Processes of tests that are killed from outside."""

import os
import signal
from pathlib import Path


def children(process):
    """Return the process IDs of a process's children, as far as the system tells."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def kill_part(process, how):
    """Kill all of a run, one of its workers, or the process itself, which is not waited for."""
    if how == "all":
        os.killpg(process, signal.SIGKILL)
    elif how == "worker" and children(process):
        os.kill(children(process)[-1], signal.SIGKILL)
    else:
        os.kill(process, signal.SIGKILL)
