"""RAdam against Algorithm 2 of Liu et al. (2020), AdamL2 against PyTorch, in float64."""

import importlib.util
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from cast_lens import checkpoints
from cast_lens.optimizers import AdamL2, RAdam, WarmUp


def gradients(steps=40, n=6):
    rng = np.random.default_rng(3)
    scales = 10.0 ** np.arange(-3, n - 3)
    return scales * (rng.normal(size=(steps, n)) + 0.2)


def algorithm_2(weights, gradients, *, rate, beta_1, beta_2, threshold, epsilon, decay, amsgrad):
    """Follow the paper line by line, with the epsilon, decay and amsgrad that it has not."""
    m, v, largest = np.zeros_like(weights), np.zeros_like(weights), np.zeros_like(weights)
    rho_infinite = 2 / (1 - beta_2) - 1
    path = []
    for t, gradient in enumerate(gradients, 1):
        v = beta_2 * v + (1 - beta_2) * gradient**2
        m = beta_1 * m + (1 - beta_1) * gradient
        m_hat = m / (1 - beta_1**t)
        rho = rho_infinite - 2 * t * beta_2**t / (1 - beta_2**t)
        largest = np.maximum(largest, v)
        used = largest if amsgrad else v
        step = m_hat
        if rho >= threshold:
            r = math.sqrt(
                ((rho - 4) * (rho - 2) * rho_infinite)
                / ((rho_infinite - 4) * (rho_infinite - 2) * rho)
            )
            step = r * m_hat / (np.sqrt(used / (1 - beta_2**t)) + epsilon)
        weights = weights - rate(t) * (step + decay * weights)
        path.append(weights)
    return np.array(path)


def follow(optimizer, weights, gradients, dtype):
    variable = keras.Variable(weights, dtype=dtype)
    path = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, dtype)], [variable])
        path.append(ops.convert_to_numpy(variable.value))
    return np.array(path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.25},
        {"amsgrad": True},
        {"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-3},
        {"beta_1": 0.5, "beta_2": 0.99, "sma_threshold": 12.5, "weight_decay": 0.125},
    ],
)
def test_radam_follows_algorithm_2(settings):
    start = np.linspace(-2, 2, 6)
    expected = algorithm_2(
        start,
        gradients(),
        rate=lambda t: 0.0078125,  # 2^-7, for Keras keeps the rate in float32
        beta_1=settings.get("beta_1", 0.9),
        beta_2=settings.get("beta_2", 0.999),
        threshold=settings.get("sma_threshold", 5.0),
        epsilon=settings.get("epsilon", 1e-7),
        decay=settings.get("weight_decay", 0.0),
        amsgrad=settings.get("amsgrad", False),
    )
    if keras.backend.backend() != "jax":  # which has no float64 unless told
        found = follow(RAdam(0.0078125, **settings), start, gradients(), "float64")
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    # float32: 40 roundings of weights up to 4, and up to 1e-4 in r of the first adaptive steps
    found = follow(RAdam(0.0078125, **settings), start, gradients(), "float32")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_adaptive_steps_begin_with_the_sixth():
    """rho_5 is 4.996 and rho_6 5.994, which float32 must not blur."""
    found = follow(RAdam(1.0), np.zeros(1), np.ones((7, 1)), "float32")[:, 0]
    steps = -np.diff(found, prepend=0)
    np.testing.assert_allclose(steps[:5], 1, rtol=1e-5)
    r = math.sqrt(1.994163752 * 3.994163752 * 1999 / (1995 * 1997 * 5.994163752))
    assert steps[5] == pytest.approx(r, rel=1e-3) and steps[6] < 0.04


@pytest.mark.slow
def test_long_after_the_start_it_is_adam():
    start, many = np.linspace(-1, 1, 4), gradients(150, 4)
    settings = {"beta_1": 0.5, "beta_2": 0.9}
    ours, adam = RAdam(0.01, **settings), keras.optimizers.Adam(0.01, **settings)
    ours = np.diff(follow(ours, start, many, "float32"), axis=0)[120:]
    adam = np.diff(follow(adam, start, many, "float32"), axis=0)[120:]
    np.testing.assert_allclose(ours, adam, rtol=0.02, atol=2e-6)


def test_defaults_are_those_of_tensorflow_addons():
    config = RAdam().get_config()
    expected = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.0,
                "amsgrad": False, "sma_threshold": 5.0}  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert config["learning_rate"] == np.float32(1e-3)


def test_warm_up_rises_falls_and_stays():
    schedule = WarmUp(0.5, total_steps=10, warmup_proportion=0.4, min_lr=0.2)
    found = [float(schedule(step)) for step in range(13)]
    rise, fall = [0.125, 0.25, 0.375, 0.5], [0.45, 0.4, 0.35, 0.3, 0.25, 0.2]
    np.testing.assert_allclose(found, [*rise, *fall, 0.2, 0.2, 0.2], rtol=1e-6)
    at_once = WarmUp(0.5, total_steps=2, warmup_proportion=0.0, min_lr=0.0)
    np.testing.assert_allclose([float(at_once(step)) for step in range(3)], [0.25, 0, 0])


def test_warm_up_scales_the_step_and_the_decay():
    settings = {"total_steps": 8, "warmup_proportion": 0.5, "min_lr": 0.125}
    rates = [0.25, 0.5, 0.75, 1.0, 0.78125, 0.5625, 0.34375, 0.125, 0.125, 0.125]
    start, some = np.linspace(-2, 2, 6), gradients(10)
    expected = algorithm_2(start, some, rate=lambda t: rates[t - 1], beta_1=0.9, beta_2=0.999,
                           threshold=5.0, epsilon=1e-7, decay=0.25, amsgrad=False)  # fmt: skip
    found = follow(RAdam(1.0, weight_decay=0.25, **settings), start, some, "float32")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_warm_up_takes_a_schedule():
    halved = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    schedule = WarmUp(halved, total_steps=4, warmup_proportion=0.5, min_lr=0.0)
    expected = [0.5 * 1, 1 * 0.5, 0.5 * 0.25, 0]
    for made in (schedule, WarmUp.from_config(schedule.get_config())):
        np.testing.assert_allclose([float(made(step)) for step in range(4)], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"amsgrad": True, "weight_decay": 0.1, "beta_1": 0.5},
        {"total_steps": 9, "min_lr": 0.5, "clipnorm": 1.0},
    ],
)
def test_config_makes_the_same_optimizer(settings):
    first = RAdam(0.25, epsilon=1e-3, sma_threshold=6.0, **settings)
    config = keras.saving.serialize_keras_object(first)
    assert config["registered_name"] == "cast_lens>RAdam"
    second = keras.saving.deserialize_keras_object(config)
    assert second.get_config() == first.get_config()
    paths = [follow(made, np.ones(6), gradients(12), "float32") for made in (first, second)]
    assert np.array_equal(*paths)


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, name="first"), keras.layers.Dense(1, name="last")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="network")
    settings = {"amsgrad": True, "weight_decay": 0.01, "total_steps": 30}
    model.compile(RAdam(0.05, **settings), "mse", jit_compile=False)
    return model


def examples():
    x = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    return x, x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.25


@pytest.mark.slow
def test_training_goes_on_from_saved_state_as_if_it_had_not_ended(tmp_path):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    whole, first, second = network(), network(), network()
    losses = whole.fit(*examples(), epochs=4, **options).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    keeper = checkpoints.Checkpoint(tmp_path, monitor="loss")
    first.fit(*examples(), epochs=2, callbacks=[keeper], **options)
    assert checkpoints.Checkpoint(tmp_path, monitor="loss").restore(second) == 2
    second.fit(*examples(), epochs=4, initial_epoch=2, **options)
    first.save(tmp_path / "model.keras")
    third = keras.models.load_model(tmp_path / "model.keras")
    third.fit(*examples(), epochs=4, initial_epoch=2, **options)
    variables = [[*m.variables, *m.optimizer.variables] for m in (whole, second, third)]
    assert len(variables[0]) == 4 + 1 + 3 * 4  # three moments a weight, and the step
    for a, b, c in zip(*variables, strict=True):
        assert np.array_equal(ops.convert_to_numpy(a.value), ops.convert_to_numpy(b.value)), a.path
        assert np.array_equal(ops.convert_to_numpy(a.value), ops.convert_to_numpy(c.value)), a.path


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"total_steps": 200}])
def test_it_finds_the_minimum(settings):
    """Of a bowl that is a hundred times steeper in one direction than in the other."""
    minimum, steepness = np.array([1.0, -2.0]), np.array([1.0, 0.01])
    optimizer = RAdam(0.1, beta_2=0.95, **settings)
    weights = keras.Variable([0.0, 0.0], dtype="float32")
    for _ in range(200):
        gradient = steepness * (ops.convert_to_numpy(weights.value) - minimum)
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [weights])
    np.testing.assert_allclose(ops.convert_to_numpy(weights.value), minimum, atol=0.05)


def test_several_variables_have_moments_of_their_own():
    start, some = np.linspace(-2, 2, 6), gradients(20)
    together = RAdam(0.01)
    variables = [keras.Variable(part, dtype="float32") for part in (start[:2], start[2:])]
    for gradient in some.astype(np.float32):
        parts = [ops.convert_to_tensor(part) for part in (gradient[:2], gradient[2:])]
        together.apply(parts, variables)
    joined = np.concatenate([ops.convert_to_numpy(v.value) for v in variables])
    assert np.array_equal(joined, follow(RAdam(0.01), start, some, "float32")[-1])


def test_half_precision_weights_are_stepped_by_factors_of_float32():
    """In bfloat16 the step 600 would be 600 of 512 or 1024, and 1 - beta_2 would be 0."""
    found = follow(RAdam(0.25), np.zeros(2), np.ones((8, 2)), "bfloat16").astype(np.float64)
    expected = follow(RAdam(0.25), np.zeros(2), np.ones((8, 2)), "float32")
    np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"sma_threshold": 4.0}, "sma_threshold 4.0"),
        ({"beta_1": 1.0}, "beta_1 is 1.0"),
        ({"beta_2": 0.6}, "beta_2 0.6"),
        ({"total_steps": -1}, "total_steps is -1"),
        ({"total_steps": 5, "warmup_proportion": 1.5}, "warmup_proportion is 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        RAdam(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_of_this_holds_under_another_backend(backend, root):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    files = [f"tests/test_{name}.py" for name in ("optimizers", "layers")]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not under_another_backend", *files]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def pytorch_adam(start, gradients, *, rate, l2, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Take the steps of torch.optim.Adam in float64, as its documentation writes them."""
    weight, m, v = np.array(start, np.float64), 0.0, 0.0
    for step, gradient in enumerate(np.asarray(gradients, np.float64), 1):
        gradient = gradient + l2 * weight
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        weight -= rate * m / (1 - beta_1**step) / (np.sqrt(v / (1 - beta_2**step)) + epsilon)
    return weight


@pytest.mark.parametrize("l2", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("size", [1e-7, 1e-2, 10.0])  # of gradients; the first is near epsilon
def test_adam_l2_is_the_adam_of_pytorch(l2, size):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3)), size * rng.normal(size=(30, 2, 3))
    variable = keras.Variable(start.astype(np.float32))
    optimizer = AdamL2(1e-2, l2=l2)
    for gradient in gradients.astype(np.float32):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    wanted = pytorch_adam(start, gradients, rate=1e-2, l2=l2)
    assert np.allclose(variable.numpy(), wanted, rtol=0, atol=3e-5)  # of steps that add up to 0.3
    if importlib.util.find_spec("torch"):
        import torch

        parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
        adam = torch.optim.Adam([parameter], lr=1e-2, weight_decay=l2)
        for gradient in gradients:
            parameter.grad = torch.tensor(gradient, dtype=torch.float32)
            adam.step()
        assert np.allclose(variable.numpy(), parameter.detach().numpy(), atol=3e-5)


def test_adam_l2_decays_every_variable_and_is_not_the_decoupled_kind():
    start = np.float32([2.0, -4.0])
    weight, bias = keras.Variable(start), keras.Variable(start)
    optimizer = AdamL2(0.1, l2=0.01)
    zeros = keras.ops.zeros(2)
    optimizer.apply([zeros, zeros], [weight, bias])
    # The penalty alone is a gradient, of which the first step of Adam takes the sign.
    assert np.allclose(weight.numpy(), start - 0.1 * np.sign(start), atol=1e-5)
    assert np.array_equal(weight.numpy(), bias.numpy())
    decoupled = keras.Variable(start)
    keras.optimizers.AdamW(0.1, weight_decay=0.01).apply([zeros], [decoupled])
    assert np.allclose(decoupled.numpy(), start * (1 - 0.1 * 0.01), atol=1e-6)


def test_adam_l2_is_made_again_from_its_config_and_refuses_nonsense():
    config = AdamL2(0.02, l2=0.5, beta_2=0.99).get_config()
    again = AdamL2.from_config(config)
    assert (again.l2, again.beta_2, again.epsilon) == (0.5, 0.99, 1e-8)
    for options in ({"l2": -1.0}, {"l2": float("nan")}, {"amsgrad": True}):
        with pytest.raises(ValueError, match="l2 is"):
            AdamL2(**options)
