"""What the report and the authors' code fix: network, rows of Table I, experiments, scales."""

from dataclasses import dataclass, replace

import numpy as np

from cast_lens import catalog

SIDES = {"vis": 200, "nir": 66}  # authors' code; Sec. II has 60 for J, Y and H
# authors' code: one over the root mean square of all pixels of VIS, J, Y and H, in maggies
CONSTANTS = (3.5239e10, 1.5327e9, 1.8903e9, 1.2963e9)
LABELS = {
    "source-added": catalog.label_source_added,  # authors' code; Sec. III.D: "about 90%"
    "official": catalog.label_sglc2_official,  # of the challenge
}
BEST_REPORTED = 0.94  # abstract; Table I, row 8
# Counted in the catalog of the challenge: objects with a source, and of these the lenses by the
# official definition (Bom et al. 2022, Sec. 2.1).
WITH_SOURCE, OFFICIAL_LENSES = 89_995, 49_213
TEST_BATCH = 8  # Sec. IV.B; authors' code
LARGEST_BATCH, LEAST_RATE = 128, 1e-9  # Sec. IV.C.1
STEP = 7  # authors' code: StepLR(step_size=7, gamma=0.1)
RELEASED = "sglc1-space-b0-stand-in-v0"  # in weights/, in the place of natural images
SPLIT, SAMPLE, COMPOSITION, REDRAWN = 31, 32, 33, 34  # last words of seeds


@dataclass(frozen=True)
class Config:
    """One network and its training; the defaults are row 7 of Table I."""

    method: int = 1  # Table I: 1 has new batch normalizations, 2 is tested in training mode
    augmented: bool = True  # Table I
    balanced: bool = True  # Table I
    batch: int = 8  # Table I
    epochs: int = 10  # Table I
    l2: float = 1e-4  # Table I; Sec. III.E
    label: str = "source-added"  # authors' code; a key of LABELS
    normalization: str = "batch"  # or "instance" (Sec. IV.C), "nested" (authors' code, see network)
    bands: int = 4  # Sec. III.A; 3 are J, Y and H alone, of 66 pixels (Sec. IV.B.1)
    frozen: bool = False  # Sec. IV.B.1: whether the last layer alone is trained
    optimizer: str = "sgd"  # authors' code; or "adamw", for few steps
    learning_rate: float = 0.01  # Sec. IV.C.1; authors' code
    momentum: float = 0.9  # authors' code
    schedule: str = "step"  # authors' code; or "text" (Sec. IV.C.1)
    stop: float | None = 0.04  # authors' code, where a mistake keeps it from acting; Sec. III.C
    initial: str = "imagenet"  # Sec. III.A; or "released" (RELEASED), or "random"
    side: int = 200  # Sec. II: all of the image; less is its center alone


@dataclass(frozen=True)
class Scale:
    """How much of the report is run."""

    n_objects: int  # of the stand-in, and used at most
    experiments: tuple[str, ...]
    epochs: int  # at most
    changes: dict  # of Config
    sizes: tuple[int, ...]  # of test batches (Sec. IV.B, question 2)
    draws: int  # random compositions of each size
    splits: int = 100  # redrawn at evaluation; they cost nothing
    least_n_pix: int = 0  # Sec. II: all; more leaves fainter sources out, of what tests too


ROW7 = Config()
ROWS = {  # Table I
    1: Config(augmented=False, balanced=False, batch=128, epochs=10, l2=0.0),
    2: Config(augmented=False, batch=128, epochs=10, l2=0.0),
    3: Config(augmented=False, batch=8, epochs=5, l2=0.0),
    4: Config(augmented=False, batch=4, epochs=5, l2=0.0),
    5: Config(augmented=False, batch=128, epochs=4),
    6: Config(augmented=False, balanced=False, batch=8, epochs=1, l2=0.0),
    7: ROW7,
    8: Config(method=2, l2=0.0),
}
FROZEN = replace(ROW7, bands=3, frozen=True, l2=0.0)  # ASSUMED: all else as in row 7, Sec. IV.B.1
INSTANCE = replace(ROW7, normalization="instance")  # ASSUMED: all else as in row 7, Sec. IV.C
# Every network that is trained; row 7 is the best of Method 1, row 8 of Method 2.
NETWORKS: dict[str, Config] = {
    **{f"table1.row{n}": config for n, config in ROWS.items()},
    "frozen": FROZEN,
    "instance_norm": INSTANCE,
    "method1.authors_code": replace(ROW7, normalization="nested", l2=0.0, stop=None),
    "method2.authors_code": replace(ROWS[8], augmented=False, stop=None),
    "schedule.text": replace(ROW7, schedule="text"),
    "official.row7": replace(ROW7, label="official"),
    "official.row8": replace(ROWS[8], label="official"),
}
STUDIED = ("table1.row7", "table1.row8")  # whose scores are looked at in every way
# Every experiment, and the networks that have to be trained for it.
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in NETWORKS},
    "table1.row7.train_mode": ("table1.row7",),
    "table1.row8.eval_mode": ("table1.row8",),
    **dict.fromkeys(("batch_size", "leak", "ceiling", "reality"), STUDIED),
}
# Steps are few at these scales, so sources are bright and the optimizer is not the report's. Tried
# with row 8 in batches of 8, on another stand-in: after 220 steps SGD of 0.01 was at chance and SGD
# of 0.001 at an AUROC of 0.58, after 190 AdamW of 0.001 was at 0.60 and that of 0.0003 at 0.65.
_FEW_STEPS = {
    "initial": "released", "side": 96, "optimizer": "adamw", "learning_rate": 3e-4,
}  # fmt: skip
LEAST_N_PIX = 100  # of 20,000 stand-ins 19 % have a source of so many pixels
SCALES = {
    "quick": Scale(
        3_000, ("table1.row1", "table1.row2", "table1.row7", "table1.row8", "frozen"), 3,
        _FEW_STEPS, (1, 8, 32, 128), 3, least_n_pix=LEAST_N_PIX,
    ),
    # What two CPU cores do in half an hour.
    "hour": Scale(
        5_000, tuple(NETWORKS), 3, _FEW_STEPS, (1, 2, 4, 8, 16, 32, 64, 128), 5,
        least_n_pix=LEAST_N_PIX,
    ),
    "paper": Scale(
        100_000, tuple(NETWORKS), 10, {}, (1, 2, 4, 8, 16, 32, 64, 128), 10,
    ),
}  # fmt: skip


def config_of(name, scale, changes):
    """Return the Config of a network at a Scale.

    Args:
        name: Key of `NETWORKS`.
        scale: The Scale.
        changes: Of Config, beside those of the scale.
    """
    config = replace(NETWORKS[name], **scale.changes | changes)
    return replace(config, epochs=min(config.epochs, scale.epochs))


def word(*key):
    """Hash integers into one seed."""
    return int(np.random.SeedSequence(list(key)).generate_state(1)[0])
