"""`make bench-gpu` on a CPU, with a tiny network: rows, floors, reasons and the time it takes."""

import csv
import importlib.util
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks import bench_gpu, gpu_steps

QUICK = ["--smallest", "--seconds", "0.2", "--batches", "4", "--folds", "1", "--ahead", "0"]


@pytest.mark.slow
def test_the_program_measures_a_backend_on_a_cpu(tmp_path, root):
    """Objects a second, peak memory and the share of a floor; and XLA, where there is no kernel."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs tensorflow")
    output = tmp_path / "found.csv"
    command = [sys.executable, "-m", "tests.benchmarks.bench_gpu", *QUICK, "--backends",
               "tensorflow", "--modes", "plain", "--precisions", "bfloat16",
               "--output", str(output)]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(output, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["work"], r["reason"]) for r in rows] == [("predicting", ""), ("training", "")]
    for found in rows:
        low, rate, high = (float(found[key]) for key in ("low", "objects_per_second", "high"))
        assert 0 < low <= rate <= high
        floor = bench_gpu.FLOOR[found["work"]] * float(found["bandwidth"]) / 4.3e12
        # One 3x3 convolution of stride 2 without padding, four features, of 20 and of 12 pixels.
        floor *= 9.2e6 / (4 * (9 * 9 + 5 * 5) + 2)
        assert float(found["floor"]) == pytest.approx(floor)
        assert float(found["of_floor"]) == pytest.approx(rate / floor)
        assert 0.1 < float(found["peak_gib"]) < 8 and float(found["first_step_s"]) > 0
        assert found["device"] == "cpu" and "tensorflow" in found["software"]
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all("objects/s" in line for line in lines)


def options(*arguments):
    return bench_gpu.parse([*QUICK, *arguments])


def fake(monkeypatch, code):
    """Let a few lines of Python take the place of the network."""
    popen = subprocess.Popen

    def start(command, **settings):
        return popen([sys.executable, "-c", code, command[-1]], **settings)

    monkeypatch.setattr(bench_gpu.subprocess, "Popen", start)


SAY = """
import json, sys, time
c = json.loads(sys.argv[1])
def say(stage, **found): print(json.dumps(dict(found, stage=stage)), flush=True)
print("a library that talks")
say("ready", device="card", software="s 1", activations=4_600_000); sys.stdin.readline()
"""
MEASURE = """
say("copied", bandwidth=2.15e12)
for work in ("predicting", "training"):
    say("warm", work=work); sys.stdin.readline()
    say("measured", work=work, rates=[1500.0, 1400.0, 1600.0], first=2.0, peak=2**30)
"""


def test_folds_at_once_are_added_up_and_share_the_floor(monkeypatch, tmp_path):
    fake(monkeypatch, SAY + MEASURE)
    rows = bench_gpu.run(options("--backends", "jax", "--folds", "3", "--modes", "compiled",
                                 "--precisions", "bfloat16",
                                 "--output", str(tmp_path / "a.csv")))  # fmt: skip
    training = next(r for r in rows if r["work"] == "training")
    assert training["objects_per_second"] == 4500 and training["low"] == 4200
    assert training["peak_gib"] == 3 and training["first_step_s"] == 2
    # Half the bandwidth and half the activations of the network the floor was computed for.
    assert training["floor"] == pytest.approx(15_000)
    assert training["of_floor"] == pytest.approx(0.3)


def test_a_full_device_is_a_row_that_names_the_batch_that_fits(monkeypatch, tmp_path, capsys):
    code = """
if c["batch"] > 4:
    say("failed", reason="XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory"); sys.exit(1)
"""
    fake(monkeypatch, SAY + code + MEASURE)
    rows = bench_gpu.run(options("--backends", "jax", "--batches", "4", "8", "--modes", "compiled",
                                 "--precisions", "float32",
                                 "--output", str(tmp_path / "a.csv")))  # fmt: skip
    assert [r["reason"] for r in rows[:2]] == ["", ""]
    reason = "out of memory with batches of 8, a batch of 4 fits"
    assert [(r["batch"], r["reason"]) for r in rows[2:]] == [(8, reason)] * 2
    assert capsys.readouterr().out.count(reason) == 2
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as stream:
        assert [r["reason"] for r in csv.DictReader(stream)] == ["", "", reason, reason]


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_costs_its_row_alone(monkeypatch, tmp_path):
    code = """
if c["backend"] == "jax": sys.exit("libcuda vanished")
if c["backend"] == "torch": time.sleep(60)
"""
    fake(monkeypatch, SAY + code + MEASURE)
    start = time.monotonic()
    rows = bench_gpu.run(options("--backends", "jax", "torch", "tensorflow", "--modes", "plain",
                                 "--precisions", "float32", "--limit", "4",
                                 "--output", str(tmp_path / "a.csv")))  # fmt: skip
    assert time.monotonic() - start < 30
    reasons = {r["backend"]: r["reason"] for r in rows}
    assert reasons["jax"] == "exit code 1: libcuda vanished"
    assert reasons["torch"] == "the time for it was over" and reasons["tensorflow"] == ""
    assert len(rows) == 6


@pytest.mark.slow
def test_the_time_that_is_given_is_kept_and_what_is_left_is_told(monkeypatch, tmp_path):
    fake(monkeypatch, SAY + "time.sleep(30)")
    start = time.monotonic()
    rows = bench_gpu.run(options("--backends", "jax", "--budget", "2", "--least", "1",
                                 "--output", str(tmp_path / "a.csv")))  # fmt: skip
    assert time.monotonic() - start < 6
    assert {r["reason"] for r in rows} == {
        "the time for it was over", "the time that was given was over"
    }  # fmt: skip
    assert len(rows) == 2 * len(bench_gpu.configurations(options("--backends", "jax")))


def test_the_likely_best_and_timm_come_first():
    asked = bench_gpu.parse(["--backends", "jax", "timm", "torch"])
    found = bench_gpu.configurations(asked)
    assert len(found) == len(set(found)) == 3 * 2 * 2 * 2 * (3 + 2)
    first = [(c.backend, c.compiled, c.batch, c.precision, c.folds) for c in found[:3]]
    assert first == [("jax", True, 64, "bfloat16", 1), ("timm", True, 64, "bfloat16", 1),
                     ("torch", False, 64, "bfloat16", 1)]  # fmt: skip
    assert {c.network for c in found[:6]} == {"two_branch_b2"}
    assert max(c.folds for c in found if c.batch > 64) == 1


def test_windows_leave_the_first_steps_out_and_wait_for_the_device(monkeypatch):
    """A clock that only steps and the device move: 0.1 s a step, of 8 objects, after 30 s."""
    clock, told, settled = SimpleNamespace(now=0.0), [], []
    monkeypatch.setattr(gpu_steps.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(gpu_steps, "tell", lambda **said: told.append(said))
    monkeypatch.setattr(gpu_steps, "wait", lambda: None)

    def settle(step):
        settled.append(step)
        return float(step)

    windows = gpu_steps.Windows("training", 8, 5.0, settle, lambda: 7)
    for step in range(1000):
        clock.now += 30.0 if step == 0 else 0.1
        windows.step(step)
        if windows.done:
            break
    assert [said["stage"] for said in told] == ["warm", "measured"]
    assert told[1]["rates"] == pytest.approx([80.0] * 5) and told[1]["first"] == 30
    assert told[1]["peak"] == 7
    assert settled == sorted(set(settled)) and settled[-1] == step


def test_a_training_that_loses_its_numbers_is_not_measured(monkeypatch):
    monkeypatch.setattr(gpu_steps, "tell", lambda **said: None)
    monkeypatch.setattr(gpu_steps, "wait", lambda: None)
    windows = gpu_steps.Windows("training", 8, 5.0, float, lambda: 7)
    windows.step(0.7)
    with pytest.raises(ArithmeticError, match="training gives nan"):
        windows.step(np.nan)


@pytest.mark.slow
def test_activations_are_those_of_the_convolutions():
    """B0 of 224 pixels puts out 6.7e6 (Dollar, Singh & Girshick 2021 count them so)."""
    import keras

    images = keras.Input((224, 224, 3))
    model = keras.Model(images, gpu_steps.trunk("b0", "trunk", (224, 224, 3))(images))
    assert gpu_steps.count(model) == pytest.approx(6.7e6, rel=0.02)


def test_without_a_gpu_it_says_how_to_run_on_a_cpu(monkeypatch):
    monkeypatch.setattr(bench_gpu.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="no NVIDIA GPU here.*--smallest"):
        bench_gpu.main([])


def test_the_page_on_clusters_shows_what_was_measured(root):
    """Its lines are those of the files that came from the machine, figure by figure."""
    page = (root / "docs/cluster.md").read_text(encoding="utf-8")
    results = root / "tests/benchmarks/results"
    with open(results / "h200.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    numbers = ("objects_per_second", "low", "high", "of_floor", "peak_gib", "first_step_s")
    for row in rows:
        row |= {key: float(row[key]) if row[key] else None for key in numbers}
        assert bench_gpu.shown(row | {"compiled": row["compiled"] == "True"}) in page
    assert len(rows) == 4
