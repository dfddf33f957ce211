"""Run folders: seeds, whole-file writes, exact resume, one run at a time, the common options."""

import argparse
import ctypes
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from cast_lens.data import sha256

EXIT_USAGE = 2  # something the user can mend
ORIGIN = "origin.json"  # in a run folder: with which code it was run, on which machines
EXIT_RUN_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal, run the same command again


class RunError(ValueError):
    """A run that cannot start or go on, for a reason the user can mend."""


def parser(paper, experiments, scales=("quick", "paper")):
    """Return the command line that all paper modules share.

    Args:
        paper: Module name of the paper, e.g. "active_learning".
        experiments: Names that `--experiment` accepts, whole or up to a dot.
        scales: Names that `--scale` accepts, the default first.

    Returns:
        An argparse.ArgumentParser.
    """
    options = argparse.ArgumentParser(
        prog=f"python -m reproductions {paper}",
        description=f"Reproduce {paper}; a second call resumes, or says that it is done.",
        epilog=f"example: make reproduce-{paper.replace('_', '-')} DATA=~/surveys",
    )
    add = options.add_argument
    add("--data", metavar="PATH", help="the paper's data: the file, or the folder that holds it")
    add("--real", action="store_true", help="stop if the real data are not to be had")
    add("--data-only", action="store_true", help="find or download the data, then stop")
    add("--scale", choices=scales, default=scales[0], help="size of the run")
    add("--experiment", metavar="NAME", help="only these, with commas: " + ", ".join(experiments))
    add(
        "--seed", type=at_least(0), default=0, help="seed of all random numbers but the papers' own"
    )
    add("--output", metavar="FOLDER", default="runs", help="where run folders go")
    add("--restart", action="store_true", help="discard what an earlier run left in the folder")
    return options


def at_least(least):
    """Return an argparse type: a whole number that is not less than `least`."""

    def whole_number(text):
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is too small; expected {least} or more")
        return number

    return whole_number


def choose(experiments, name):
    """Return the experiments whose name is `name` or begins with `name` and a dot.

    Args:
        experiments: Mapping of experiment names to anything.
        name: What the user asked for, or several with commas between them; None or "" for all.

    Returns:
        List of names, in the order of `experiments`.

    Raises:
        RunError: If nothing is called so.
    """
    if not name:
        return list(experiments)
    chosen = set()
    for word in map(str.strip, name.split(",")):
        found = [key for key in experiments if key == word or key.startswith(word + ".")]
        if not found:
            raise RunError(f"no experiment is called {word!r}; there are: {', '.join(experiments)}")
        chosen.update(found)
    return [key for key in experiments if key in chosen]


def set_seed(seed):
    """Seed Python, NumPy and the Keras backend, and ask TensorFlow for deterministic kernels.

    Args:
        seed: Non-negative integer, or several, which are hashed into one.
    """
    import keras

    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    digest = hashlib.sha256(repr(seed).encode()).digest()
    keras.utils.clear_session()  # Keras 3.12 would go on with its old generator; frees old graphs
    keras.utils.set_random_seed(int.from_bytes(digest[:4], "big"))


def versions():
    """Return the versions that decide a number, as {package: version}, with the Keras backend."""
    import keras

    backend = keras.backend.backend()
    names = ["keras", backend, "numpy", "scikit-learn", "scipy"]
    return {"backend": backend} | {name: importlib.metadata.version(name) for name in names}


def software():
    """Return `versions` as one line, for the rows of reproduced.csv."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())


@contextmanager
def folder(path, identity, *, restart=False):
    """Hold a run folder for this process alone, checked to belong to the same run.

    Args:
        path: The folder; made if it does not exist.
        identity: What the numbers depend on (data hash, seed, versions ...), JSON-serializable.
        restart: Discard what an earlier run left instead of failing on a difference.

    Yields:
        The folder as a Path.

    Raises:
        RunError: If another process holds it, or it was begun with a different identity; the
            message shows the difference and names `--restart`.
    """
    with hold(path) as path:
        if restart:
            discard(path)
        claim(path / "run.json", identity, "Use --restart (RESTART=1) or another --output.")
        _record_origin(path / ORIGIN)
        yield path


def _record_origin(path):
    """Add this code and machine to those that a run was begun or gone on with."""
    from cast_lens import provenance

    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    here = provenance.here()
    if here not in known:
        write_whole(path, json.dumps([*known, here], indent=1) + "\n")


@contextmanager
def hold(path, *, patience=0.0):
    """Hold a folder for this process, and the workers it forks, alone.

    Args:
        path: The folder; made if it does not exist.
        patience: How long to wait for another process to leave, in seconds.

    Yields:
        The folder as a Path.

    Raises:
        RunError: If another process holds it.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "a+b", buffering=0) as lock:
        end = time.monotonic() + patience
        while not _locked(lock):
            if time.monotonic() > end:
                lock.seek(0)
                holder = lock.read().decode() or "unknown"
                raise RunError(f"{path} is in use by the run with process ID {holder}")
            time.sleep(0.05)
        lock.truncate(0)
        with suppress(OSError):  # a full disk; what is written next will say so
            lock.write(str(os.getpid()).encode())
        yield path


def claim(path, identity, remedy, *, scratch=None):
    """Write an identity file, or check that the one there says the same.

    Args:
        path: The JSON file.
        identity: JSON-serializable dict.
        remedy: What the user can do about a difference; ends the message.
        scratch: As in `write_whole`.

    Raises:
        RunError: If the file exists and differs.
    """
    text = json.dumps(identity, indent=1, sort_keys=True)
    if not path.exists():
        write_whole(path, text + "\n", scratch=scratch)
        return
    found, wanted = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
    differing = [
        f"{key}: {found.get(key)!r} then, {wanted.get(key)!r} now"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differing:
        raise RunError(f"{path.parent} was begun differently ({'; '.join(differing)}). {remedy}")


def refuse_foreign(path, begun, *, what, error=RunError):
    """Refuse a folder that holds something, unless a run of the same kind was begun there.

    Args:
        path: The folder, which need not exist.
        begun: Name of what such a run puts there first.
        what: What the folder may hold, for the message: "candidates".
        error: Class of the exception, of RunError.

    Raises:
        RunError: If it holds anything else; nothing is written.
    """
    if path.is_dir() and not (path / begun).exists():
        foreign = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock")
        if foreign:
            raise error(
                f"{path} holds {foreign[0]} and {len(foreign) - 1} other entries, expected a new "
                f"or empty folder, or one of {what}; nothing was written, name another"
            )


def discard(path):
    """Remove everything in a run folder but its lock."""
    for entry in Path(path).iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def experiment(path, config, work, *, seed):
    """Do one experiment of a run, unless its folder says that it was finished.

    Args:
        path: The experiment's folder.
        config: What it does, JSON-serializable; a finished folder must have been made with it.
        work: Function without arguments that returns {name: DataFrame}; `scores` is written as
            `scores.write_scores` does, the others as plain CSV files.
        seed: As in `set_seed`.

    Returns:
        Whether anything had to be done.

    Raises:
        RunError: If the folder was made with another configuration.
    """
    from cast_lens import scores

    path = Path(path)
    path.mkdir(exist_ok=True)
    claim(path / "config.json", config, "Use --restart (RESTART=1) or another --output.")
    if is_done(path):
        return False
    set_seed(seed)
    for name, table in work().items():
        if name == "scores":
            scores.write_scores(table, path / "scores.csv")
        else:
            if "object_id" in table:
                table = table.assign(object_id=table["object_id"].map(scores.escape_cell))
            write_whole(path / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    mark_done(path)
    return True


def is_done(path):
    """Return whether an experiment's folder was finished and its files are still as written."""
    record = Path(path) / "done.json"
    if not record.exists():
        return False
    files = json.loads(record.read_text(encoding="utf-8"))
    return all(_matches(Path(path) / name, digest) for name, digest in files.items())


def mark_done(path):
    """Record the hashes of an experiment's files, the last thing written to its folder."""
    files = sorted(p for p in Path(path).iterdir() if p.suffix == ".csv")
    hashes = {p.name: sha256(p) for p in files}
    write_whole(Path(path) / "done.json", json.dumps(hashes, indent=1) + "\n")


def write_whole(path, content, *, scratch=None, flush=True):
    """Write a file whole or not at all: temporary name, flush to disk, rename.

    Args:
        path: Final name.
        content: Text (written as UTF-8 with LF line ends) or bytes.
        scratch: Folder of the temporary file, on the same file system; None for that of `path`.
        flush: Whether the content is on disk on return; False leaves that to `flush_folder`.

    Raises:
        OSError: If it cannot be written; says how many bytes are needed and free.
    """
    path = Path(path)
    scratch = path.parent if scratch is None else Path(scratch)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=scratch, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        cause = f"{error.strerror or error}; {len(data)} bytes needed, {free_bytes(path)} free"
        raise OSError(error.errno, cause, str(path)) from error


def flush_folder(path):
    """Flush to disk, in one go, all that was written on the file system of a folder.

    Args:
        path: A folder that exists.

    Raises:
        OSError: If the system could not write something.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # macOS
        os.sync()
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        if syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)


def free_bytes(path):
    """Return the bytes free where `path` is, or will be."""
    path = Path(path).absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


class Stopped(BaseException):  # noqa: N818, like KeyboardInterrupt it is no error
    """SIGINT or SIGTERM; no KeyboardInterrupt, which scikit-learn's fit takes for "enough"."""


def command(main, errors=tuple):
    """Run a command's `main`, turning expected errors into one line and an exit status.

    Args:
        main: Function without arguments.
        errors: Function that returns the exception classes, besides RunError and OSError, that
            are the user's to mend; called only when something was raised.
    """
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):  # an ASCII terminal shows what it can
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()  # a reader that went away shows here, not when Python ends
    except Stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        message = "stopped; what was finished is kept, run the same command again to go on"
        sys.exit(_say(message, EXIT_RUN_AGAIN))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RunError, OSError, *errors()) as error:
        sys.exit(_say(f"error: {error}", EXIT_USAGE))


@contextmanager
def native_log():
    """Send what C++ libraries write to stderr to a file, so that a person sees the progress.

    TensorFlow 2.21 logs a dozen lines that TF_CPP_MIN_LOG_LEVEL does not stop. Python's own
    stderr still reaches the terminal; at an unexpected exception the file is kept and named.
    """
    native, log = tempfile.mkstemp(prefix="cast_lens-", suffix=".log")
    terminal = os.dup(2)
    shown, sys.stderr = sys.stderr, os.fdopen(terminal, "w", buffering=1, closefd=False)
    os.dup2(native, 2)
    keep = False
    try:
        yield
    except Exception as error:
        is_ours = type(error).__module__.startswith("cast_lens")
        keep = not (is_ours or isinstance(error, OSError))  # which `command` tells in one line
        if keep:
            print(f"native log: {log}", file=sys.stderr)
        raise
    finally:
        if not keep:  # also after --help and a signal
            Path(log).unlink(missing_ok=True)
        sys.stderr.flush()
        os.dup2(terminal, 2)
        sys.stderr = shown
        os.close(native)
        os.close(terminal)


def _stop(number, frame):
    raise Stopped


def _say(message, status):
    print(" ".join(message.splitlines()), file=sys.stderr)
    return status


def _locked(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _matches(path, digest):
    return path.is_file() and sha256(path) == digest


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
