"""RAdam of Bom et al. (2022), and Adam as PyTorch has it, for any Keras 3 backend."""

import functools
import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("cast_lens")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0 and falls linearly to a lowest one.

    Args:
        learning_rate: Where it rises to, a number or a schedule, dimensionless.
        total_steps: Steps until the lowest is reached, at least 1; it then stays.
        warmup_proportion: The part of them that it rises, in [0, 1].
        min_lr: The lowest rate after the rise.

    Raises:
        ValueError: If `total_steps` or `warmup_proportion` is out of range.

    Reference:
        Liu et al. (2020), Sec. 1, on the warm-up that RAdam replaces; as tensorflow-addons has it.
    """

    def __init__(self, learning_rate, *, total_steps, warmup_proportion, min_lr):
        if total_steps < 1 or not 0 <= warmup_proportion <= 1:
            raise ValueError(
                f"total_steps is {total_steps} and warmup_proportion is {warmup_proportion}, "
                "expected 1 or more and a number in [0, 1]"
            )
        self.learning_rate, self.min_lr = learning_rate, min_lr
        self.total_steps, self.warmup_proportion = total_steps, warmup_proportion

    def __call__(self, step):
        """Return the learning rate of a step, the first of which is 0."""
        highest = self.learning_rate
        highest = ops.cast(highest(step) if callable(highest) else highest, "float32")
        step = ops.cast(step, "float32") + 1.0
        rising = self.total_steps * self.warmup_proportion
        falling = max(self.total_steps - rising, 1.0)
        fallen = ops.clip((step - rising) / falling, 0.0, 1.0)
        rate = highest + (self.min_lr - highest) * fallen
        if rising == 0:
            return rate
        return ops.where(step <= rising, highest * step / rising, rate)

    def get_config(self):
        """Return what makes the schedule again."""
        return {
            "learning_rate": keras.saving.serialize_keras_object(self.learning_rate),
            "total_steps": self.total_steps,
            "warmup_proportion": self.warmup_proportion,
            "min_lr": self.min_lr,
        }

    @classmethod
    def from_config(cls, config):
        """Return the schedule that `get_config` tells of."""
        rate = keras.saving.deserialize_keras_object(config["learning_rate"])
        return cls(**config | {"learning_rate": rate})


@keras.saving.register_keras_serializable("cast_lens")
class RAdam(keras.optimizers.Optimizer):
    """Adam whose adaptive step is scaled by what is known of its variance, and left out before.

    With rho_t, the length of the simple average that is as long as the exponential one of t steps,
    the step is r_t m / (sqrt(v) + epsilon) once rho_t >= `sma_threshold` and m before, m and v
    being the moments of the gradient without bias. r_t is 0 for rho_t = 4 and 1 for t without end.
    Defaults and options are those of RectifiedAdam of tensorflow-addons.

    Args:
        learning_rate: A number, a schedule or a function, dimensionless.
        beta_1: Decay of the first moment a step, in [0, 1).
        beta_2: Decay of the second moment a step, in (0.6, 1): rho_t never passes 4 below that.
        epsilon: Added to the square root of the second moment, not in the paper.
        weight_decay: Part of each weight that is taken off in a step, times the learning rate,
            apart from the gradient.
        amsgrad: Use the largest second moment so far.
        sma_threshold: Least rho_t of an adaptive step, above 4; the paper has > 4.
        total_steps: If not 0, the learning rate is a `WarmUp` to it over as many steps, and
            `get_config` returns that.
        warmup_proportion: As for `WarmUp`.
        min_lr: As for `WarmUp`.
        name: Of the optimizer.
        **kwargs: As keras.optimizers.Optimizer.

    Raises:
        ValueError: If a number is out of range.

    Reference:
        Liu et al. (2020), "On the Variance of the Adaptive Learning Rate and Beyond", Algorithm 2.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        weight_decay=0.0,
        amsgrad=False,
        sma_threshold=5.0,
        total_steps=0,
        warmup_proportion=0.1,
        min_lr=0.0,
        name="radam",
        **kwargs,
    ):
        if not (0 <= beta_1 < 1 and 0.6 < beta_2 < 1 and sma_threshold > 4):
            raise ValueError(
                f"beta_1 is {beta_1}, beta_2 {beta_2} and sma_threshold {sma_threshold}, expected "
                "numbers in [0, 1), in (0.6, 1) and above 4"
            )
        if total_steps:
            learning_rate = WarmUp(
                learning_rate,
                total_steps=total_steps,
                warmup_proportion=warmup_proportion,
                min_lr=min_lr,
            )
        # Keras takes weight_decay * learning_rate of a weight off before the step, which is the
        # same; None spares the pass over all weights.
        super().__init__(learning_rate, weight_decay=weight_decay or None, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.amsgrad, self.sma_threshold = amsgrad, sma_threshold
        self._factors = self._rectify

    def build(self, variables):
        """Make the moments of every variable.

        Args:
            variables: List of the Keras variables to train.
        """
        if self.built:
            return
        super().build(variables)
        names = ["momentum", "velocity"]
        self._momentums, self._velocities = self.add_optimizer_variables(variables, names)
        if self.amsgrad:
            self._velocity_maxima = self.add_optimizer_variables(variables, "velocity_maximum")

    def apply(self, grads, trainable_variables=None):
        """Take one step of every variable.

        Args:
            grads: List of tensors, one a variable.
            trainable_variables: The variables; those of `build` if None.
        """
        self._factors = functools.cache(self._rectify)  # once a step, not once a variable
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._factors = self._rectify

    def update_step(self, gradient, variable, learning_rate):
        """Take one step of one variable.

        Args:
            gradient: Tensor of the shape of `variable`.
            variable: Keras variable, assigned to.
            learning_rate: Scalar tensor.
        """
        index, dtype = self._get_variable_index(variable), variable.dtype
        momentum, velocity = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, dtype)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        if self.amsgrad:
            largest = self._velocity_maxima[index]
            self.assign(largest, ops.maximum(largest, velocity))
            velocity = largest
        of_momentum, of_root, added = self._factors(dtype)
        of_momentum = ops.cast(ops.cast(learning_rate, of_momentum.dtype) * of_momentum, dtype)
        below = ops.sqrt(velocity) * ops.cast(of_root, dtype) + ops.cast(added, dtype)
        self.assign_sub(variable, momentum * of_momentum / below)

    def _rectify(self, dtype):
        """Return a, b and c of this step, a m / (b sqrt(v) + c), for the moments with their bias.

        1 - beta^t comes from expm1: in float32 a difference has no digits left after few steps,
        and rho_5 is 4.996, so near the threshold of 5 that the step would hang on its rounding.
        """
        dtype = keras.backend.result_type(dtype, "float32")
        step = ops.cast(self.iterations, dtype) + 1.0
        plain = ops.ones((), dtype)
        if self.beta_1:
            plain = -1.0 / ops.expm1(math.log(self.beta_1) * step)
        decay = -math.log(self.beta_2)
        root = ops.rsqrt(-ops.expm1(-decay * step))
        most = 2.0 / (1.0 - self.beta_2) - 1.0  # rho without end
        # beta^t / (1 - beta^t); after many steps the exponential is infinite and this 0.
        rho = most - 2.0 * step / ops.expm1(decay * step)
        squared = (rho - 4.0) * (rho - 2.0) * most / ((most - 4.0) * (most - 2.0) * rho)
        adaptive = plain * ops.sqrt(ops.maximum(squared, 0.0))
        is_adaptive = rho >= self.sma_threshold
        return (
            ops.where(is_adaptive, adaptive, plain),
            ops.where(is_adaptive, root, ops.zeros_like(root)),
            ops.where(is_adaptive, ops.full_like(root, self.epsilon), ops.ones_like(root)),
        )

    def get_config(self):
        """Return what makes the optimizer again."""
        names = ("beta_1", "beta_2", "epsilon", "amsgrad", "sma_threshold")
        decay = {"weight_decay": self.weight_decay or 0.0}
        return super().get_config() | decay | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("cast_lens")
class AdamL2(keras.optimizers.Adam):
    """Adam with an L2 penalty of all variables in the gradient, as torch.optim.Adam applies it.

    The step is learning_rate m' / (sqrt(v') + epsilon), m' and v' being the moments of
    gradient + l2 * variable without bias. Biases and what scales a batch are decayed as well. A
    kernel_regularizer would leave these out, and be part of the loss that is reported; the
    weight_decay of Keras is decoupled, that of torch.optim.AdamW.

    Args:
        learning_rate: A number, a schedule or a function, dimensionless.
        l2: What PyTorch calls weight_decay, at least 0: the penalty is l2 / 2 times the square.
        epsilon: Added to the square root of the second moment after its bias was taken out; Keras
            adds it before, where the first steps are less than with PyTorch.
        name: Of the optimizer.
        **kwargs: As keras.optimizers.Adam.

    Raises:
        ValueError: If `l2` is negative, or amsgrad is asked for.

    Reference:
        Kingma & Ba (2015), Algorithm 1; Loshchilov & Hutter (2019), Algorithm 2, the first of two.
    """

    def __init__(self, learning_rate=0.001, l2=0.0, epsilon=1e-8, name="adam_l2", **kwargs):
        if not l2 >= 0 or kwargs.get("amsgrad"):
            raise ValueError(f"l2 is {l2}, expected a number >= 0, and no amsgrad")
        super().__init__(learning_rate, epsilon=epsilon, name=name, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        """Take one step of one variable.

        Args:
            gradient: Tensor of the shape of `variable`.
            variable: Keras variable, assigned to.
            learning_rate: Scalar tensor.
        """
        index, dtype = self._get_variable_index(variable), variable.dtype
        momentum, velocity = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, dtype)
        if self.l2:
            gradient = gradient + self.l2 * variable
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        # 1 - beta^t from expm1: in float32 the difference of the second has few digits at first.
        step = ops.cast(self.iterations, "float32") + 1.0
        first, second = (-ops.expm1(math.log(b) * step) for b in (self.beta_1, self.beta_2))
        rate = ops.cast(ops.cast(learning_rate, "float32") / first, dtype)
        below = ops.sqrt(velocity) * ops.cast(ops.rsqrt(second), dtype) + self.epsilon
        self.assign_sub(variable, momentum * rate / below)

    def get_config(self):
        """Return what makes the optimizer again."""
        return super().get_config() | {"l2": self.l2}
