"""How long a person waits for `import cast_lens` and `cast-lens --help`, beside bare Python."""

import subprocess
import sys
import time

import numpy as np

COMMANDS = {
    "bare_python": "pass",
    "import_cast_lens": "import cast_lens",
    "cast_lens_help": "import sys; sys.argv = ['cast-lens', '--help']\n"
    "from cast_lens.cli import main\nmain()",
}


def rows(repeats=9):
    """Return seconds of each command in fresh processes, in turn, as rows of numbers."""
    seconds = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, code in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    return [
        {
            "name": f"{name}_seconds",
            "value": float(np.median(values)),
            "low": min(values),
            "high": max(values),
            "unit": "s",
        }
        for name, values in seconds.items()
    ]
