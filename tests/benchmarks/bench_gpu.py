"""`make bench-gpu`: objects a second on an NVIDIA GPU, for every backend that is installed.

The network of Bom et al. (2022), two EfficientNet-B2 of 200 and 66 pixels, and a B0 of 101, in
training and in prediction: backend x compiled or not (XLA; torch.compile under PyTorch) x batch x
precision x folds at once, each in processes of its own. Beside them timm's EfficientNet in the same
form and with the same work: channels last, automatic mixed precision, torch.compile. Images are
noise, on the device from the start; clip and random similarity are part of every training step.

A line comes as soon as it is known, the likely best configurations first, and all lines so far are
in a CSV file. What fails is a line with its reason. Floors are those of memory traffic: what an
object moves of the maps of features, over the bandwidth of a copy that is measured here. They hold
for 16-bit numbers, float32 moves twice as much.
"""

import argparse
import csv
import importlib.util
import io
import itertools
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cast_lens.run import write_whole

GIB = 2**30
ROOT = Path(__file__).parents[2]
BACKENDS = ("jax", "timm", "torch", "tensorflow")
# Of the two-branch network, by memory traffic alone: an H200 whose copies move 4.3e12 bytes a
# second, 9.2e6 activations (outputs of convolutions) an object.
FLOOR = {"training": 15_000, "predicting": 74_000}  # objects a second
FLOOR_BANDWIDTH, FLOOR_ACTIVATIONS = 4.3e12, 9.2e6
COLUMNS = (
    "network", "backend", "work", "compiled", "precision", "batch", "folds", "objects_per_second",
    "low", "high", "floor", "of_floor", "peak_gib", "first_step_s", "bandwidth", "device",
    "software", "reason",
)  # fmt: skip
SHOWN = (
    "{network:<14}{backend:<11}{work:<11}{mode:<10}{precision:<9} batch {batch:<5} folds {folds}"
)


@dataclass(frozen=True)
class Configuration:
    """What is measured.

    Attributes:
        backend: One of `BACKENDS`.
        network: One of gpu_steps.NETWORKS.
        compiled: Whether by XLA, or torch.compile under PyTorch.
        batch: Objects in a step.
        precision: "bfloat16" or "float32".
        folds: Processes that train at once, each a network of its own.
        seconds: Length of what is measured, once it is warm.
        copied: Numbers in the copy that tells the bandwidth.
    """

    backend: str
    network: str
    compiled: bool
    batch: int
    precision: str
    folds: int
    seconds: float
    copied: int


def configurations(options):
    """Return what is asked for, the likely best and what is held against it first."""
    found = [
        Configuration(*values, options.seconds, options.copied)
        for values in itertools.product(
            options.backends, options.networks, options.compiled, options.batches,
            options.precisions, options.folds,
        )
        # Several folds at once are for the paper's batch: larger ones fill the device alone.
        if values[-1] == 1 or values[3] == min(options.batches)
    ]  # fmt: skip

    def departures(c):
        usual = c.backend != "torch"  # Keras leaves PyTorch uncompiled by default
        return (
            2 * (c.compiled != usual)
            + 2 * (c.network != options.networks[0])
            + options.batches.index(c.batch)
            + options.precisions.index(c.precision)
            + 2 * options.folds.index(c.folds)
        )

    return sorted(found, key=departures)


class Group:
    """The processes of one configuration.

    Args:
        configuration: The Configuration.
        cache: Folder where JAX keeps compiled programs.
    """

    def __init__(self, configuration, cache):
        self.configuration, self.said = configuration, queue.Queue()
        keras_backend = "torch" if configuration.backend == "timm" else configuration.backend
        environment = os.environ | {
            "KERAS_BACKEND": keras_backend, "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true", "JAX_COMPILATION_CACHE_DIR": str(cache),
            "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.benchmarks.gpu_steps",
                   json.dumps(asdict(configuration))]  # fmt: skip
        self.errors = [tempfile.TemporaryFile() for _ in range(configuration.folds)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
            for errors in self.errors
        ]  # fmt: skip
        self.threads = [
            threading.Thread(target=self._listen, args=(k, process), daemon=True)
            for k, process in enumerate(self.processes)
        ]
        for thread in self.threads:
            thread.start()

    def messages(self, deadline):
        """Yield what each process says, letting all go on together whenever all wait.

        Yields:
            {"stage": ..., what goes with it}; the last has the stage "ended", or "failed" with
            the reason.
        """
        waiting, ended = set(), set()
        while len(ended) < len(self.processes):
            try:
                k, said = self.said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                yield {"stage": "failed", "reason": "the time for it was over"}
                return
            if said is None:
                ended.add(k)
                if self.processes[k].wait():
                    yield {"stage": "failed", "reason": self._reason(k)}
                    return
                continue
            yield said
            if said["stage"] == "failed":
                return
            if said["stage"] in ("ready", "warm"):
                waiting.add(k)
            if len(waiting) == len(self.processes):
                waiting.clear()
                for process in self.processes:
                    with suppress(OSError):  # one that is dead says so itself
                        process.stdin.write("\n")
                        process.stdin.flush()
        yield {"stage": "ended"}

    def end(self):
        """End the processes that are still there."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for thread in self.threads:
            thread.join()
        for stream in (*(s for p in self.processes for s in (p.stdin, p.stdout)), *self.errors):
            with suppress(OSError):
                stream.close()

    def _listen(self, k, process):
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # what a library prints
                continue
            if isinstance(said, dict) and "stage" in said:
                self.said.put((k, said))
        self.said.put((k, None))

    def _reason(self, k):
        errors = self.errors[k]
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        return f"exit code {self.processes[k].returncode}: {lines[-1] if lines else 'no message'}"


def measure(group, deadline, seen):
    """Drive one group; yield a row of each work as soon as it is known.

    Args:
        group: The Group.
        deadline: time.monotonic() at which it is given up.
        seen: What was found so far, changed: {"bandwidth": best copy, "batches": what fitted}.
    """
    c, found, about = group.configuration, {}, {}
    for said in group.messages(deadline):
        if said["stage"] == "ready":
            about = said
        if said["stage"] == "copied":
            seen["bandwidth"] = max(seen["bandwidth"], said["bandwidth"])
        if said["stage"] == "measured":
            parts = found.setdefault(said["work"], [])
            parts.append(said)
            if len(parts) == c.folds:
                seen["batches"].setdefault((c.backend, c.network, said["work"]), set()).add(c.batch)
                yield row(c, said["work"], parts, about, seen["bandwidth"])
        if said["stage"] == "failed":
            for work in FLOOR:
                if len(found.get(work, ())) < c.folds:
                    reason = explained(said["reason"], c, work, seen["batches"])
                    yield blank(c, work, reason, about)


def row(c, work, parts, about, bandwidth):
    """Return the row of what all processes of a configuration measured."""
    rates = [sum(windows) for windows in zip(*(part["rates"] for part in parts), strict=True)]
    floor = None
    if bandwidth:
        floor = FLOOR[work] * bandwidth / FLOOR_BANDWIDTH * FLOOR_ACTIVATIONS / about["activations"]
    rate = statistics.median(rates)
    return blank(c, work, "", about) | {
        "objects_per_second": rate, "low": min(rates), "high": max(rates), "floor": floor,
        "of_floor": rate / floor if floor else None, "bandwidth": bandwidth or None,
        "peak_gib": sum(part["peak"] for part in parts) / GIB,
        "first_step_s": max(part["first"] for part in parts),
    }  # fmt: skip


def blank(c, work, reason, about):
    """Return a row without numbers."""
    known = {key: value for key, value in asdict(c).items() if key in COLUMNS}
    about = {key: about.get(key, "") for key in ("device", "software")}
    return dict.fromkeys(COLUMNS) | known | about | {"work": work, "reason": reason}


def explained(reason, c, work, fitted):
    """Add to a reason, if it is a full device, the largest batch that did fit."""
    signs = ("RESOURCE_EXHAUSTED", "out of memory", "OOM", "OutOfMemory", "MemoryError")
    if not any(sign in reason for sign in signs):
        return reason
    fits = [batch for batch in fitted.get((c.backend, c.network, work), ()) if batch < c.batch]
    advice = f"a batch of {max(fits)} fits" if fits else "no smaller batch was measured yet"
    return f"out of memory with batches of {c.batch}, {advice}"


def shown(found):
    """Return a row as a line."""
    mode = "compiled" if found["compiled"] else "as it is"
    line = SHOWN.format(**found, mode=mode)
    if found["reason"]:
        return f"{line}  not measured: {found['reason']}"
    share = f"{found['of_floor']:7.2%}" if found["of_floor"] else "      ?"
    return (
        f"{line} {found['objects_per_second']:>10,.1f} objects/s "
        f"({found['low']:,.1f} to {found['high']:,.1f}), {share} of the floor, "
        f"{found['peak_gib']:.1f} GiB, first step {found['first_step_s']:.0f} s"
    )


def written(rows):
    """Return rows as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary(rows):
    """Return lines that say how far the bars are: the fraction of a floor, and timm beside us."""
    lines = []
    for network, work in dict.fromkeys((r["network"], r["work"]) for r in rows):
        measured = [r for r in rows if (r["network"], r["work"]) == (network, work)
                    and r["objects_per_second"]]  # fmt: skip
        kinds = {"ours": [r for r in measured if r["backend"] != "timm"],
                 "timm": [r for r in measured if r["backend"] == "timm"]}  # fmt: skip
        best = {kind: max(found, key=lambda r: r["objects_per_second"])
                for kind, found in kinds.items() if found}  # fmt: skip
        for kind, r in best.items():
            lines.append(f"best of {kind}: {shown(r)}")
        if len(best) == 2:
            ratio = best["ours"]["objects_per_second"] / best["timm"]["objects_per_second"]
            lines.append(f"{network} {work}: ours over timm's {ratio:.2f}")
    return lines


def run(options):
    """Measure all that is asked for; return the rows."""
    todo, rows = configurations(options), []
    began, seen = time.monotonic(), {"bandwidth": 0.0, "batches": {}}
    groups = []

    def left():
        return options.budget - (time.monotonic() - began) if options.budget else float("inf")

    def tell(found):
        rows.append(found)
        print(shown(found), flush=True)
        write_whole(options.output, written(rows))

    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        for k in range(len(todo)):
            if left() < options.least:
                rows += [blank(c, work, "the time that was given was over", {})
                         for c in todo[k:] for work in FLOOR]  # fmt: skip
                write_whole(options.output, written(rows))
                print(f"{len(todo) - k} configurations are left: the time was over", flush=True)
                break
            while len(groups) <= min(options.ahead, len(todo) - 1 - k):
                groups.append(Group(todo[k + len(groups)], options.cache.absolute()))
            group = groups[0]
            for found in measure(group, time.monotonic() + min(options.limit, left()), seen):
                tell(found)
            groups.pop(0).end()
    finally:
        for group in groups:
            group.end()
    return rows


def present():
    """Return the backends that are installed."""
    has = {name: importlib.util.find_spec(name) is not None for name in (*BACKENDS, "keras")}
    return [b for b in BACKENDS if has[b] and has["torch" if b == "timm" else "keras"]]


def parse(arguments=None):
    """Return the options; those of the network `smallest` run on any CPU."""
    parser = argparse.ArgumentParser(prog="make bench-gpu", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--smallest", action="store_true", help="a tiny network, which a CPU can do")
    add("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    add("--networks", nargs="+", choices=("two_branch_b2", "b0"), default=["two_branch_b2", "b0"])
    add("--modes", nargs="+", choices=("compiled", "plain"), default=["compiled", "plain"])
    add("--batches", nargs="+", type=int, default=[64, 256, 1024])
    add("--precisions", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    add("--folds", nargs="+", type=int, default=[1, 2, 4], help="processes that train at once")
    add("--seconds", type=float, default=5.0, help="measured of each work, once it is warm")
    add("--limit", type=float, default=300.0, help="seconds for one configuration")
    add("--budget", type=float, default=0.0, help="seconds for all; 0: as long as it takes")
    add("--least", type=float, default=45.0, help="seconds without which none is begun")
    add("--ahead", type=int, help="configurations that start before it is their turn")
    add("--output", type=Path, default=Path("runs/bench-gpu.csv"), help="the CSV file")
    add("--cache", type=Path, default=Path("runs/bench-gpu.cache"),
        help="folder of the programs that JAX has compiled")  # fmt: skip
    options = parser.parse_args(arguments)
    options.compiled = [mode == "compiled" for mode in options.modes]
    options.backends = options.backends or present()
    options.copied = 2**26
    if options.ahead is None:
        options.ahead = int((os.cpu_count() or 1) >= 8)
    if options.smallest:
        options.networks, options.copied = ["smallest"], 2**20
    return options


def main(arguments=None):
    """Measure, print and write the CSV file."""
    options = parse(arguments)
    if not options.smallest and not shutil.which("nvidia-smi"):
        sys.exit("no NVIDIA GPU here: nvidia-smi is not found; --smallest runs on a CPU")
    if not options.backends:
        sys.exit("no backend is installed; make env EXTRAS=jax, or gpu")
    rows = run(options)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
