"""How `cast_lens.adapting` trains: which labels, which network, compile() and fit()."""

import math
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from cast_lens import augment, checkpoints, compiled, dataset, features, folds, networks
from cast_lens.adapting_curve import DIRECT, LEAST, SCRATCH, TRANSFER
from cast_lens.adapting_objects import BLOCK, AdaptError, Cutouts

CLIPS = ("own", "released")
AUGMENTATIONS = ("dihedral", "similarity")
SIZES = (20, 40, 100, 200, 400, 1000, 2000, 4000)  # Bom et al. (2022), Fig. 12, some of them
FOLDS = 5  # ASSUMED: labels are too few for the ten groups of Sec. 6
EPOCHS = 10  # authors' notebook TransferLearning_example_challenge1
BATCH = 16  # ASSUMED: 50 in the notebook, which makes four steps an epoch of 200 labels
STEPS = 6  # ASSUMED: least steps of an epoch, or twenty labels would be twenty steps in all
RATE = (
    1e-4  # ASSUMED: of Adam, the first; at 5e-4 one epoch left nothing of what a trunk had learned
)
SCRATCH_RATE = 1e-3  # ASSUMED: of Adam from random weights, the default of Keras
MOMENTUM = 0.9  # ASSUMED: of batch normalization; 0.99 keeps half of the old survey for 70 steps
ROTATION, ZOOM = 180.0, (0.8, 1.2)  # Bom et al. (2022), Sec. 4.1
FILL = "nearest"  # ASSUMED: not in the paper; Keras's own default of that time


@dataclass(frozen=True)
class Settings:
    """What decides the numbers besides network, images and labels.

    Attributes:
        clip: "own" for percentiles of the images, "released" for the fluxes in the weights.
        augmentation: One of `AUGMENTATIONS`.
        sizes: Numbers of labels of the curve; those there are not are left out, and all that a
            fold leaves come last.
        folds: Of the cross-fit; fewer where one would have fewer than two objects of a class.
        epochs: Of each training.
        batch: Objects in a batch.
        scratch: Whether to train from random weights too.
        seed: Non-negative integer of all random numbers.
    """

    clip: str = "own"
    augmentation: str = "dihedral"
    sizes: tuple[int, ...] = SIZES
    folds: int = FOLDS
    epochs: int = EPOCHS
    batch: int = BATCH
    scratch: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """One training, or none, and what it is tested on.

    Attributes:
        start: DIRECT, TRANSFER or SCRATCH.
        n: Labels it is trained on, 0 for none.
        fold: Number of the fold that is tested.
        rows: Positions in the catalog of the objects it is trained on.
        tested: Of those it scores.
    """

    start: str
    n: int
    fold: int
    rows: np.ndarray
    tested: np.ndarray


@dataclass(frozen=True, eq=False)
class Bench:
    """What all trainings share.

    Attributes:
        network: networks.Network that they begin with.
        settings: Settings.
        source: Cutouts.
        bounds: {branch: (lower, upper)} of the stretch.
        shared: The one compiled network.
        cache: {"features": the model of it without its last layer}, once it is there.
    """

    network: networks.Network
    settings: Settings
    source: Cutouts
    bounds: dict
    shared: compiled.Networks
    cache: dict


def training_model(model, settings, seed):
    """Return a network with random weights, and the augmentation where for inference is none.

    Args:
        model: keras.Model, as `networks.build_model` returns it.
        settings: Settings.
        seed: Of the augmentation.

    Returns:
        keras.Model with the same weights in the same order, between them the state of what it
        draws.
    """
    augmentation: keras.layers.Layer = augment.RandomDihedral(seed=seed, name="augment")
    if settings.augmentation == "similarity":
        augmentation = augment.RandomSimilarity(
            rotation=ROTATION, mirror=True, zoom=ZOOM, fill=FILL, seed=seed, name="augment"
        )

    def anew(layer):
        if layer.name == "unaugmented":
            return augmentation
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation, which has no weights
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        changes = {"momentum": MOMENTUM} if is_normalization else {}
        return type(layer).from_config(layer.get_config() | changes)

    return keras.models.clone_model(model, clone_function=anew, recursive=True)


def plan_trials(catalog, settings):
    """Divide the labelled objects into folds, and say what is trained on what.

    Of a fold's training objects the first n of one order are taken, so that fewer labels are part
    of more, the classes in proportion and both among any two; the same for both starts.

    Args:
        catalog: As of Cutouts.
        settings: Settings.

    Returns:
        List of Trial, and the number of the fold of each object, shape (objects,).

    Raises:
        AdaptError: If a class is in fewer than two sets of equal objects, or a fold would leave
            one class alone.
    """
    labels = catalog["label"].to_numpy()
    sets = folds.held_together(catalog, ["pixel_group", "sky_group"])
    least = min(len(np.unique(sets[labels == label])) for label in (0, 1))
    if least < 2:
        raise AdaptError(
            f"found {int(labels.sum())} lenses and {int((1 - labels).sum())} others that can be "
            f"used, {least} of one class different, expected two of each at the least, and "
            f"{LEAST} to say how well it works; label more"
        )
    k = fold_count(settings, least)
    try:
        parts = folds.k_fold(catalog, k, seed=settings.seed, groups=["sky_group"])
    except folds.FoldError as error:
        raise AdaptError(f"{error}; or label more objects") from error
    for part in parts:
        if len(np.unique(labels[part["train"]])) < 2:
            raise AdaptError(f"a fold of {k} leaves one class alone to train on; label more")
    fold = np.empty(len(labels), int)
    whole = np.arange(len(labels))
    trials = [Trial(DIRECT, 0, 0, whole[:0], whole)]
    sizes = curve_sizes(settings, min(len(part["train"]) for part in parts))
    for number, part in enumerate(parts):
        fold[part["test"]] = number
        rng = np.random.default_rng([settings.seed, number])
        order = part["train"][proportional_order(labels[part["train"]], rng)]
        for start in (TRANSFER, SCRATCH) if settings.scratch else (TRANSFER,):
            trials += [Trial(start, n, number, np.sort(order[:n]), part["test"]) for n in sizes]
    return trials, fold


def fold_count(settings, least):
    """Return the number of folds, where the rarer class has `least` different objects."""
    return max(2, min(settings.folds, least // 2))  # an AUC within a fold has an error from two on


def curve_sizes(settings, most):
    """Return the numbers of labels of the curve, ascending; `most` is the last."""
    return [*sorted({n for n in settings.sizes if n < most}), most]


def proportional_order(labels, rng):
    """Order objects so that any first few hold the classes in proportion, and any two both.

    Args:
        labels: Shape (objects,).
        rng: numpy Generator.

    Returns:
        Indices, shape (objects,).
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = np.arange(len(own)) / len(own)
    return np.argsort(place, kind="stable")


def epoch_length(n, settings):
    """Return how many images an epoch of n labels has: whole batches, at least `STEPS` of them."""
    batch = min(settings.batch, n)
    return batch * max(STEPS, math.ceil(n / batch))


def train(bench, trial, here, bar):
    """Train a network from where it was left.

    Args:
        bench: Bench.
        trial: Trial; one of no labels is not trained.
        here: Folder for the checkpoints of this training alone.
        bar: Progress bar of epochs.

    Returns:
        The network with the weights of the last epoch, and its losses, a number an epoch.

    Raises:
        RunError: If the loss is not finite; names the objects of the batch.
    """
    settings, network = bench.settings, bench.network
    key = [settings.seed, trial.fold, trial.n, trial.start == SCRATCH]
    model = bench.shared.renew(
        "adapted", int(np.random.SeedSequence(key).generate_state(1)[0]),
        build=partial(training_model, network.model, settings), compile_model=compile_model,
    )  # fmt: skip
    if trial.start != SCRATCH:
        model.set_weights(network.model.get_weights())
    features.set_bounds(model, bench.bounds)
    if not trial.n:
        return model, []
    rate = SCRATCH_RATE if trial.start == SCRATCH else RATE
    batches = dataset.from_pack(
        bench.source, trial.rows, inputs=[b.name for b in network.branches],
        batch_size=min(settings.batch, trial.n), seed=settings.seed, fold=trial.fold, shuffle=True,
        sampler=partial(_passes, length=epoch_length(trial.n, settings)),
    )  # fmt: skip
    ids = bench.source.catalog["object_id"].to_numpy()
    kept = checkpoints.Checkpoint(
        here, monitor="loss",
        objects=lambda epoch, step: ids[batches.rows(epoch * batches.steps + step)],
    )  # fmt: skip
    done = kept.restore(model)
    bar.update(done)
    if done < settings.epochs:
        shown = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: bar.update())
        model.fit(
            dataset.feed(batches, first_epoch=done, repeat=True), steps_per_epoch=batches.steps,
            initial_epoch=done, epochs=settings.epochs, shuffle=False, verbose=0,
            callbacks=[falling(rate, settings.epochs), kept, shown],
        )  # fmt: skip
    return model, [row["loss"] for row in kept.history]


def falling(rate, epochs):
    """Return a callback that lets the learning rate fall as half a cosine.

    It ends at nearly 0, so that batch normalization has seen the weights it ends with.

    Args:
        rate: The first.
        epochs: Of the training.
    """
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
    )


def compile_model(model):
    """Compile a network: cross-entropy of a softmax of two, as Bom et al. (2022), Sec. 4.1."""
    on_cpu = keras.backend.backend() == "tensorflow"  # where XLA makes convolutions slow
    model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy",
                  jit_compile=False if on_cpu else "auto")  # fmt: skip


def _passes(labels, rng, *, length):
    """Go through all objects again and again, in a new order each time, until there are enough."""
    orders = [rng.permutation(len(labels)) for _ in range(math.ceil(length / len(labels)))]
    return np.concatenate(orders)[:length]


def lens_logits(bench, model, rows):
    """Score objects.

    Args:
        bench: Bench.
        model: What `train` returned.
        rows: Positions in the catalog.

    Returns:
        Logits of a lens, float64, shape (objects,).

    Raises:
        AdaptError: If one is not finite; names the object.
    """
    if "features" not in bench.cache:
        bench.cache["features"] = features.feature_model(model)
    found = [block(bench, bench.cache["features"], rows[k : k + BLOCK])
             for k in range(0, len(rows), BLOCK)]  # fmt: skip
    logits = features.lens_logits(np.concatenate(found), model)
    odd = ~np.isfinite(logits)
    if odd.any():
        object_id = bench.source.catalog["object_id"].iloc[rows[int(odd.argmax())]]
        raise AdaptError(
            f"object_id {object_id}: the network gives the logit {logits[odd][0]}, expected a "
            "finite number; look at its image, or get the weights again"
        )
    return logits


def block(bench, model, rows):
    """Return the features of some objects, shape (objects, features)."""
    arrays = {b.name: bench.source.batch(b.name, rows) for b in bench.network.branches}
    return np.asarray(model.predict_on_batch(arrays))
