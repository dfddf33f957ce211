"""Scripts that are in no package, such as those in weights/."""

import importlib.util


def load_release(root, name, monkeypatch, folder):
    """Return the module of a script of weights/, which releases and keeps runs in `folder`."""
    found = load(root / "weights" / name)
    monkeypatch.setattr(found, "FOLDER", folder / "weights")
    monkeypatch.setattr(found, "RUNS", folder / "runs")
    return found


def load(path):
    """Return the module of a script, anew each time."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
