"""AdamW and LAMB as BERT uses them: warm-up, decay, and LayerNorm and biases left alone."""

import math

import keras
import tensorflow as tf
from keras import ops


def _linear_rise(done):
    return done


def _linear_fall(left):
    return left


def _cosine(share):
    """0 at 0, 1 at 1, level at both ends."""
    return (1.0 - ops.cos(math.pi * share)) / 2.0


# By name: how the rate rises with the share of warm-up done, and falls with the share of the
# steps behind it that is left; and the lowest rate of the rise.
_SCHEDULES = {
    "linear": (_linear_rise, _linear_fall, 0.0),
    "cosine": (_linear_rise, _cosine, 0.0),
    "one_cycle": (_cosine, _cosine, 1 / 25),
}


@keras.saving.register_keras_serializable(package="undivided_tf")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak within the warm-up, then falls to 0 at the last step.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise.
        num_train_steps: int. All steps.
        schedule: str. `linear`: both are lines. `cosine`: a line up, half a cosine down.
            `one_cycle`: half a cosine from a 25th of the peak up, half a cosine down; momentum,
            which the paper lets fall and rise, stays.

    References:
        Linear: Devlin et al. 2018, arXiv 1810.04805, appendix A.2. Cosine: Loshchilov and Hutter
        2016, arXiv 1608.03983, without restarts. One cycle: Smith and Topin 2017,
        arXiv 1708.07120.
    """

    def __init__(self, peak, num_warmup_steps, num_train_steps, schedule="linear"):
        self.peak = peak
        self.num_warmup_steps = num_warmup_steps
        self.num_train_steps = num_train_steps
        self.schedule = schedule
        self._rise, self._fall, self._lowest = _SCHEDULES[schedule]

    def __call__(self, step):
        """The learning rate of a step; the first step is 0 and already has some."""
        step = ops.cast(step, "float32")
        done = (step + 1.0) / max(self.num_warmup_steps, 1)
        left = (self.num_train_steps - step) / max(self.num_train_steps - self.num_warmup_steps, 1)
        rise = self._lowest + (1.0 - self._lowest) * self._rise(ops.clip(done, 0.0, 1.0))
        return self.peak * ops.minimum(rise, self._fall(ops.clip(left, 0.0, 1.0)))

    def get_config(self):
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "num_warmup_steps": self.num_warmup_steps,
            "num_train_steps": self.num_train_steps,
            "schedule": self.schedule,
        }


class _SummedGradients:
    """Takes gradients as they come: the caller has summed them over the replicas.

    Keras sums them once more, which costs another exchange of all of them. `Steps` needs the sum
    earlier, for the norm that it clips to. On one device there is nothing to sum.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)


@keras.saving.register_keras_serializable(package="undivided_tf")
class AdamW(_SummedGradients, keras.optimizers.AdamW):
    """Keras's AdamW, without `amsgrad`, with three operations a variable.

    Keras traces over fifty for each, the schedule of the rate among them, which together were
    most of the operations of a fine-tuning step.

    Args:
        scales: dict from paths of variables to factors of their learning rate, and with it of
            their weight decay; other variables have 1.
        **kwargs: those of Keras's AdamW.
    """

    def __init__(self, scales=None, **kwargs):
        super().__init__(**kwargs)
        self.scales = dict(scales or {})

    def build(self, variables):
        """Makes the moments; finds the factors of each variable, which later comes unnamed."""
        super().build(variables)
        self._factors = [self.scales.get(variable.path, 1.0) for variable in variables]
        self._decays = [
            self.weight_decay if self._use_weight_decay(variable) else 0.0 for variable in variables
        ]

    def _apply_weight_decay(self, variables):
        """Leaves it to `update_step`."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        step = ops.cast(self.iterations + 1, "float32")
        powers = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
        super()._backend_update_step(grads, trainable_variables, (learning_rate, *powers))

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight; beside the learning rate come the powers of both betas."""
        index = self._get_variable_index(variable)
        rate, *powers = (ops.cast(value, variable.dtype) for value in learning_rate)
        rate *= self._factors[index]
        if self._decays[index]:
            variable.assign_sub(variable * (rate * self._decays[index]))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "scales": self.scales}


@keras.saving.register_keras_serializable(package="undivided_tf")
class Lamb(_SummedGradients, keras.optimizers.Lamb):
    """LAMB with the decay inside the trust ratio, and with weights that are spared both.

    Keras takes the decay off the weight beside the ratio, and applies the ratio to biases too,
    whose norm begins at 0: they would hardly move.

    Args:
        weight_decay_rate: float. Decay times weight is part of the update, before its norm is
            taken.
        **kwargs: those of Keras's Lamb, without `weight_decay`.

    References:
        You et al. 2019, arXiv 1904.00962, algorithm 2; the exclusions are those of
        google-research/albert's lamb_optimizer.py.
    """

    def __init__(self, weight_decay_rate=0.01, name="lamb", **kwargs):
        super().__init__(name=name, **kwargs)
        self.weight_decay_rate = weight_decay_rate

    def build(self, variables):
        """Makes the moments."""
        super().build(variables)
        self._spared = [_is_spared(variable) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight."""
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.assign_add(first, (gradient - first) * (1.0 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1.0 - self.beta_2))
        first_hat = first / (1.0 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        second_hat = second / (1.0 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = first_hat / (ops.sqrt(second_hat) + self.epsilon)
        if not self._spared[index]:
            update = update + self.weight_decay_rate * variable
            weight_norm, update_norm = ops.norm(variable), ops.norm(update)
            both = (weight_norm > 0) & (update_norm > 0)
            update = update * ops.where(both, weight_norm / update_norm, 1.0)
        self.assign_sub(variable, rate * update)

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        del config["weight_decay"]
        return {**config, "weight_decay_rate": self.weight_decay_rate}


def _is_spared(variable):
    """Whether a Keras variable is of LayerNorm or the norm of queries or keys, or a bias."""
    return "_norm/" in variable.path or variable.name.endswith("bias")


def layerwise_scales(model, decay):
    """Learning rates that fall from the top of an encoder to its embeddings.

    The head and the pooler learn at the full rate, the blocks of the last encoder layer at
    `decay` times it, those below at another `decay` each, the embeddings least. Weights that all
    intermediate blocks share learn at the rate of the first of them.

    Args:
        model: Keras model with an `encoder`, whose variables' paths start with `encoder/`.
        decay: float in (0, 1].

    Returns:
        Dict for `adamw(scales=...)`.

    References:
        Clark et al. 2020, arXiv 2003.10555, appendix B (ELECTRA).
    """
    pattern = model.encoder.config.pattern
    depth = {block.name.replace("/", "_"): block.index + 1 for block in pattern}
    top = max(depth.values(), default=0) + 1
    scales = {}
    for variable in model.trainable_variables:
        scope, _, rest = variable.path.partition("/")
        layer = rest.split("/")[0]
        if scope == "encoder" and layer in (*depth, "embeddings"):
            scales[variable.path] = decay ** (top - depth.get(layer, 0))
    return scales


def adamw(variables, *, weight_decay_rate, scales=None, **options):
    """AdamW with decoupled weight decay, built for its variables.

    Unlike google-research/bert's optimizer it corrects the bias of the moments, as Adam does;
    the difference is gone after a few hundred steps. Where there are several replicas, the
    gradients must be summed over them already.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: decay times learning rate is taken off each weight at each step;
            LayerNorm and biases are spared.
        scales: factors of the learning rate by path of the variable, as `layerwise_scales` gives.
        **options: see `lamb`.

    References:
        Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    optimizer = AdamW(scales, weight_decay=weight_decay_rate, **_arguments(**options))
    # By list: the patterns of `var_names` see "gamma" and "beta", never the layer's name.
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if _is_spared(v)])
    optimizer.build(variables)
    return optimizer


def lamb(variables, *, weight_decay_rate, **options):
    """LAMB, for large batches, built for its variables; gradients as for `adamw`.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: see `Lamb`; LayerNorm and biases are spared decay and trust ratio.
        **options: `learning_rate` (the peak), `num_warmup_steps`, `num_train_steps`, `schedule`:
            see `WarmupDecay`. `beta_1` and `beta_2`: decays of the moments. `epsilon`: added to the
            root of the second moment. `max_gradient_norm`: clip gradients to this global norm;
            None when the caller has done so. `ema_momentum`: keep an exponential moving average
            of the weights, after the first step equal to them; 0: none.
    """
    optimizer = Lamb(weight_decay_rate=weight_decay_rate, **_arguments(**options))
    optimizer.build(variables)
    return optimizer


OPTIMIZERS = {"adamw": adamw, "lamb": lamb}


def _arguments(
    *,
    learning_rate,
    num_warmup_steps,
    num_train_steps,
    schedule="linear",
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    max_gradient_norm=None,
    ema_momentum=0.0,
):
    """Keras's names for the options of `lamb`."""
    return {
        "learning_rate": WarmupDecay(learning_rate, num_warmup_steps, num_train_steps, schedule),
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
        "global_clipnorm": max_gradient_norm,
        "use_ema": ema_momentum > 0,
        "ema_momentum": ema_momentum,
    }


def averages(optimizer):
    """The moving average of each variable that the optimizer was built for, in that order.

    Args:
        optimizer: of `adamw` or `lamb`.

    Returns:
        List of Keras variables, empty without `ema_momentum`.
    """
    return list(optimizer._model_variables_moving_average) if optimizer.use_ema else []
