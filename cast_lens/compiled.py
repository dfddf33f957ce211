"""Compiled networks that many trainings use in turn: compiling takes a minute, weights a second."""

import keras

from cast_lens import data


class Networks:
    """One compiled network of each kind.

    Attributes:
        compiled: {kind: (model, arrays its optimizer began with)}.
    """

    def __init__(self):
        self.compiled = {}
        keep_programs()

    def renew(self, kind, seed, *, build, compile_model):
        """Return the network of a kind as it is before training.

        Args:
            kind: Hashable, all that a compiled network depends on.
            seed: Of the initial weights, and of what the network draws.
            build: Function of a seed that returns the keras.Model; its weights come from Keras's
                own seed.
            compile_model: Function of the model that compiles it.

        Raises:
            RuntimeError: If `kind` leaves something out, and shapes differ.
        """
        if kind not in self.compiled:
            model = build(0)
            compile_model(model)
            model.optimizer.build(model.trainable_variables)
            start = [keras.ops.convert_to_numpy(v.value) for v in model.optimizer.variables]
            self.compiled[kind] = model, start
        model, start = self.compiled[kind]
        for variable, value in zip(model.optimizer.variables, start):
            variable.assign(value)
        keras.utils.set_random_seed(seed)
        fresh = build(seed)
        # Compiling adds those of the metrics behind all others.
        for variable, other in zip(model.variables, fresh.variables, strict=False):
            if variable.shape != other.shape:
                raise RuntimeError(f"{variable.path} would become {other.path}")
            variable.assign(other.value)
        return model


def keep_programs():
    """Let JAX keep what it compiles in the user's cache, unless it was told another folder.

    Each process compiles for itself, the network of Bom et al. (2022) one to three minutes long on
    an H200; the second to ask for a program reads it within seconds.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(data.cache_folder() / "jax"))
