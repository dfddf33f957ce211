"""Stacks of networks against loops, and their training against NumPy alone; fault 28."""

from dataclasses import dataclass

import numpy as np
import pytest

from cast_lens import side_by_side

FEATURES, HIDDEN, OBJECTS, BATCH, EPOCHS, RATE = 6, 5, 50, 16, 40, 3e-3
KEYS = [(0, 42), (0, 43), (7, 1, 2)]
SETTINGS = {
    "cross-entropy": {},
    "focal with weight decay": {"focal_alpha": 0.75, "focal_gamma": 2.0, "weight_decay": 0.02},
    "ranknet": {"ranknet": "sum"},
}


def test_stack_gives_each_network_a_column_of_its_own_objects():
    rng = np.random.default_rng(0)
    rows = [rng.permutation(12)[:5] for _ in range(3)]
    table, labels = rng.normal(size=(12, 4)), rng.integers(0, 2, 12)
    stacked, truth = side_by_side.stack(table, rows), side_by_side.stack(labels.tolist(), rows)
    assert stacked.shape == (5, 3, 4) and truth.shape == (5, 3)
    for k in range(3):
        for i in range(5):
            assert stacked[i, k].tolist() == table[rows[k][i]].tolist()
            assert truth[i, k] == labels[rows[k][i]]


def test_initial_weights_fill_one_over_root_fan_in():
    weights = side_by_side.initial_weights(25, 64, [(0, k) for k in range(200)])
    assert [w.shape for w in weights] == [(200, 25, 64), (200, 64), (200, 64), (200,)]
    # the extremes of m uniform numbers come within 20 / m of the bound but in e^-10 of cases
    for values, bound in zip(weights, [1 / 5, 1 / 5, 1 / 8, 1 / 8], strict=True):
        assert np.abs(values).max() <= bound
        for extreme in (values.max(), -values.min()):
            assert extreme > bound * (1 - 20 / values.size)
        assert abs(values.mean()) < 4 * bound / np.sqrt(3 * values.size)


def test_initial_weights_depend_on_a_networks_own_key_alone():
    together = side_by_side.initial_weights(FEATURES, HIDDEN, KEYS)
    for k, key in enumerate(KEYS):
        for stacked, alone in zip(
            together, side_by_side.initial_weights(FEATURES, HIDDEN, [key]), strict=True
        ):
            np.testing.assert_array_equal(stacked[k], alone[0])
    for stacked in together:
        assert len(np.unique(stacked, axis=0)) == len(KEYS)


def test_initial_weights_of_one_network_do_not_repeat():
    values = np.concatenate(
        [w[0].ravel() for w in side_by_side.initial_weights(FEATURES, HIDDEN, KEYS)]
    )
    assert len(np.unique(values)) == len(values)


def test_every_column_of_a_pass_is_a_permutation_that_depends_on_its_own_key_alone():
    for number in range(3):
        order = side_by_side.pass_order(40, KEYS, number)
        assert order.shape == (40, 3)
        np.testing.assert_array_equal(np.sort(order, axis=0), np.tile(np.arange(40)[:, None], 3))
        for k, key in enumerate(KEYS):
            alone = side_by_side.pass_order(40, [key], number)
            np.testing.assert_array_equal(order[:, [k]], alone)


def test_every_pass_and_every_network_has_an_order_of_its_own():
    orders = [side_by_side.pass_order(40, KEYS, number).T for number in range(10)]
    assert len(np.unique(np.concatenate(orders), axis=0)) == 10 * len(KEYS)


def numbered(n, networks=3):
    """Return a table and labels that tell, by their values, which object of which network."""
    numbers = np.arange(n)[:, None] + 1000.0 * np.arange(networks)
    return np.stack([numbers, -numbers], axis=2), numbers + 0.5


@pytest.mark.parametrize("n", [1, 127, 128, 129, 300])
@pytest.mark.parametrize("passes", [1, 3])
def test_batches_hold_every_object_of_every_network_exactly_once_a_pass(n, passes):
    table, labels = numbered(n)
    batches = side_by_side.Batches(table, labels, KEYS, batch=128, passes=range(passes))
    steps = {1: 1, 127: 1, 128: 1, 129: 2, 300: 3}[n]
    assert len(batches) == batches.num_batches == steps * passes
    for number in range(passes):
        served = [batches[number * steps + step] for step in range(steps)]
        assert [len(y) for _, y in served[:-1]] == [128] * (steps - 1)
        assert 1 <= len(served[-1][1]) <= 128
        for x, y in served:
            assert x.dtype == y.dtype == np.float32
            np.testing.assert_array_equal(x[:, :, 0], y - 0.5)  # a label stays with its object
            np.testing.assert_array_equal(x[:, :, 1], 0.5 - y)
        seen = np.concatenate([y for _, y in served])
        np.testing.assert_array_equal(np.sort(seen, axis=0), labels)
        order = side_by_side.pass_order(n, KEYS, number)
        np.testing.assert_array_equal(seen, np.take_along_axis(labels, order, axis=0))


def test_passes_go_on_where_the_last_ones_ended():
    table, labels = numbered(20)
    seen = []
    for passes in (range(0, 2), range(2, 4), range(4, 5)):
        batches = side_by_side.Batches(table, labels, KEYS, batch=8, passes=passes)
        served = [batches[index][1] for index in range(len(batches))]
        seen += [np.concatenate(served[k : k + 3]) for k in range(0, len(served), 3)]
    assert len(seen) == 5
    for number, values in enumerate(seen):
        order = side_by_side.pass_order(20, KEYS, number)
        np.testing.assert_array_equal(values, np.take_along_axis(labels, order, axis=0))


def test_a_batch_does_not_depend_on_which_were_asked_for_before():
    table, labels = numbered(20)
    batches = side_by_side.Batches(table, labels, KEYS, batch=8, passes=range(4))
    forward = [batches[index][1] for index in range(len(batches))]
    for index in np.random.default_rng(0).permutation(len(batches)):
        np.testing.assert_array_equal(batches[index][1], forward[index])


@dataclass
class Trained:
    """What one call of reproductions.active_learning.train left."""

    settings: dict
    weights: list  # kernels and biases, first axis networks
    first: int  # number of the first pass it trained on
    history: object  # its table of passes and loss

    def compared(self):
        """Return the weights by name, but for a bias that RankNet cannot see.

        Its gradient is zero but for rounding, which Adam blows up to steps of full size.
        """
        names = ["kernel", "bias", "logit kernel", "logit bias"]
        return dict(
            zip(names[: 3 if "ranknet" in self.settings else 4], self.weights, strict=False)
        )


def data():
    """Return a table (objects, networks, features) and labels that features half explain."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(OBJECTS, len(KEYS), FEATURES)).astype(np.float32)
    labels = table[:, :, 0] - table[:, :, 1] + rng.normal(size=(OBJECTS, len(KEYS))) > 1
    return table, labels.astype(int)


def train(settings, networks):
    """Train the chosen columns of `data` as one stack, noting the passes that are asked for."""
    from reproductions import active_learning

    config = active_learning.Config(
        hidden=HIDDEN, batch=BATCH, epochs=EPOCHS, learning_rate=RATE, **settings
    )
    table, labels = data()
    numbers, order = [], side_by_side.pass_order

    def noted(n_objects, keys, number):
        numbers.append(number)
        return order(n_objects, keys, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "pass_order", noted)
        model, history = active_learning.train(
            config, table[:, networks], labels[:, networks], [KEYS[k] for k in networks]
        )
    weights = [w.numpy() for w in model.weights]
    # Keras looks at the first batches once more to learn their shapes.
    return Trained(settings, weights, numbers[-EPOCHS], history)


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request):
    """Return the three networks of one loss, trained as one stack."""
    return train(SETTINGS[request.param], [0, 1, 2])


def slopes_of_loss(logits, labels, settings):
    """Return the loss of one network's batch and its derivative by every logit, by chain rule."""
    p = 1 / (1 + np.exp(-logits))
    if "ranknet" in settings:
        total, slopes = 0.0, np.zeros(len(logits))
        for i in np.flatnonzero(labels == 1):
            for j in np.flatnonzero(labels == 0):
                wrong = 1 / (1 + np.exp(logits[i] - logits[j]))  # 1 - P(i > j)
                total -= np.log(1 - wrong)
                slopes[i] -= wrong
                slopes[j] += wrong
        return total, slopes
    alpha, gamma = settings.get("focal_alpha"), settings.get("focal_gamma")
    if alpha is None:
        losses = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
        return losses.mean(), (p - labels) / len(logits)
    sign = 2 * labels - 1
    p_true = np.where(labels == 1, p, 1 - p)
    weight = np.where(labels == 1, alpha, 1 - alpha)
    by_p = gamma * (1 - p_true) ** (gamma - 1) * np.log(p_true) - (1 - p_true) ** gamma / p_true
    losses = -weight * (1 - p_true) ** gamma * np.log(p_true)
    return losses.mean(), weight * by_p * sign * p_true * (1 - p_true) / len(logits)


def gradients_by_hand(weights, x, y, settings):
    """Go forward and backward through one network; return its loss and four gradients."""
    kernel, bias, out, out_bias = weights
    hidden = np.maximum(x @ kernel + bias, 0)
    loss, slopes = slopes_of_loss(hidden @ out + out_bias, y, settings)
    back = np.outer(slopes, out) * (hidden > 0)
    decay = settings.get("weight_decay", 0.0)
    loss += decay / 2 * ((kernel**2).sum() + (out**2).sum())
    by_weight = [
        x.T @ back + decay * kernel,
        back.sum(axis=0),
        hidden.T @ slopes + decay * out,
        slopes.sum(),
    ]
    return loss, by_weight


def adam_of_keras(step, m, v):
    """Kingma & Ba (2015), end of Sec. 2: epsilon is added to the uncorrected root."""
    rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return rate * m / (np.sqrt(v) + 1e-8)


def adam_of_pytorch(step, m, v):
    """Kingma & Ba (2015), Algorithm 1, as torch.optim.Adam has it."""
    return RATE * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


def train_by_hand(k, first, settings, adam):
    """Train network `k` of `data` alone in float64; return its weights and mean loss an epoch."""
    table, labels = data()
    weights = [
        np.float64(np.float32(w[0]))
        for w in side_by_side.initial_weights(FEATURES, HIDDEN, [KEYS[k]])
    ]
    m, v = [0.0 * w for w in weights], [0.0 * w for w in weights]
    step, losses = 0, []
    for number in range(first, first + EPOCHS):
        order = side_by_side.pass_order(OBJECTS, [KEYS[k]], number)[:, 0]
        for start in range(0, OBJECTS, BATCH):
            rows, step = order[start : start + BATCH], step + 1
            x, y = np.float64(table[rows, k]), labels[rows, k]
            loss, by_weight = gradients_by_hand(weights, x, y, settings)
            losses += [loss] * len(rows)
            for i, g in enumerate(by_weight):
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g**2
                weights[i] = weights[i] - adam(step, m[i], v[i])
    return weights, np.reshape(losses, (-1, 20 * OBJECTS)).mean(axis=1)


# Weights are of order 0.3. float32 leaves 2e-6; PyTorch's epsilon, which differs in the first steps
# and so only where gradients are tiny, another 4e-5.
@pytest.mark.parametrize("adam, atol", [(adam_of_keras, 1e-5), (adam_of_pytorch, 1e-4)])
def test_training_equals_numpy(trained, adam, atol):
    losses = []
    for k in range(len(KEYS)):
        weights, loss = train_by_hand(k, trained.first, trained.settings, adam)
        losses.append(loss)
        for (name, found), expected in zip(trained.compared().items(), weights, strict=False):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=atol, err_msg=name)
    assert trained.history["passes"].tolist() == [20, 40]
    np.testing.assert_allclose(trained.history["loss"], np.mean(losses, axis=0), rtol=1e-4)


# Each loss and each place in the stack once: every training compiles a program.
@pytest.mark.parametrize(
    "trained, k",
    [
        ("cross-entropy", 0),
        pytest.param("focal with weight decay", 1, marks=pytest.mark.slow),
        pytest.param("ranknet", 2, marks=pytest.mark.slow),
    ],
    indirect=["trained"],
)
def test_a_network_in_a_stack_ends_with_the_weights_it_has_alone(trained, k):
    alone = train(trained.settings, [k]).compared()
    for name, found in trained.compared().items():
        np.testing.assert_allclose(found[k], alone[name][0], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("trained", ["cross-entropy"], indirect=True)
def test_training_begins_with_pass_zero(trained):
    assert trained.first == 0
