"""The stand-in surveys by name; their modules are imported when one is wanted."""

import dataclasses
import importlib
import importlib.util

from cast_lens.run import RunError

MAKERS = {
    "sglc2": "cast_lens.mock.sglc2:Sglc2",
    "sglc1-space": "cast_lens.mock.sglc1:Sglc1Space",
    "sglc1-ground": "cast_lens.mock.sglc1:Sglc1Ground",
    "deeplense1": "cast_lens.mock.deeplense:DeepLense1",
    "deeplense2": "cast_lens.mock.deeplense:DeepLense2",
}
_DEFAULTS = {"telescope": "challenge", "population": "challenge", "quirks_n": None}


def load_maker(survey, *, seed, **choices):
    """Return what makes the objects of a survey, for `survey.write`.

    Args:
        survey: One of `MAKERS`.
        seed: Seed of all draws, a whole number, 0 or more.
        choices: Of telescope, population and quirks_n; None stands for the default.

    Returns:
        The maker, a frozen dataclass; the docstring of cast_lens.mock.survey says what it can do.

    Raises:
        RunError: If the survey leaves no such choice, or lenstronomy is not installed.
    """
    if importlib.util.find_spec("lenstronomy") is None:
        raise RunError(
            f"the stand-in survey {survey} needs lenstronomy, which is not installed: "
            "pip install cast-lens[mock], or make env EXTRAS=mock"
        )
    module, _, name = MAKERS[survey].partition(":")
    maker = getattr(importlib.import_module(module), name)
    known = {field.name for field in dataclasses.fields(maker)}
    wanted = {key: value for key, value in choices.items() if value is not None}
    for key in sorted(wanted.keys() - known):
        option = "--" + key.removesuffix("_n")
        raise RunError(f"{survey} leaves no choice of {key}; leave {option} out")
    defaults = {key: value for key, value in _DEFAULTS.items() if key in known}
    return maker(seed=seed, **(defaults | wanted))
