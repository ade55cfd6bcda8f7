"""AdamW, LAMB and Muon for BERT; LayerNorm and biases have no weight decay."""

import math

import keras
import tensorflow as tf
from keras import ops

from undivided_tf.training.schedules import WarmupDecay

_LARGEST_STACK = 2**22  # Elements.


class _SummedGradients:
    """Expects gradients that the caller has summed over the replicas.

    Keras would sum them again, which costs another exchange of all gradients. `Steps` needs the sum
    earlier, for clipping by the norm. On one device there is nothing to sum.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)


class _FusedAdam(_SummedGradients):
    """Adam with decoupled decay in three operations per variable, with a rate per variable.

    Keras traces over fifty operations per variable, including the schedule of the rate. Together
    they were most operations of a fine-tuning step.
    """

    def _find_rates(self, variables):
        """Stores factor and decay of each variable by index, since later calls have no names."""
        self._factors = [self.scales.get(variable.path, 1.0) for variable in variables]
        self._decays = [
            self.weight_decay if self._use_weight_decay(variable) else 0.0 for variable in variables
        ]

    def _apply_weight_decay(self, variables):
        """Leaves it to `update_step`."""

    def _with_powers(self, learning_rate, beta_1, beta_2):
        """The learning rate and the powers of both betas, computed once for all variables."""
        step = ops.cast(self.iterations + 1, "float32")
        return learning_rate, ops.power(beta_1, step), ops.power(beta_2, step)

    def _decayed_rate(self, index, variable, learning_rate):
        """Applies the decay to a weight; returns the weight's own learning rate."""
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        if self._decays[index]:
            variable.assign_sub(variable * (rate * self._decays[index]))
        return rate

    def _adam_step(self, gradient, variable, rate, powers, moments, betas):
        first, second = moments
        beta1_power, beta2_power = (ops.cast(power, variable.dtype) for power in powers)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.value.handle,
            v=second.value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=rate,
            beta1=betas[0],
            beta2=betas[1],
            epsilon=self.epsilon,
            grad=ops.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )


@keras.saving.register_keras_serializable(package="undivided_tf")
class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """Keras's AdamW, without `amsgrad`, with fewer operations.

    Args:
        scales: dict from paths of variables to factors of their learning rate, and so of their
            weight decay; other variables have factor 1.
        **kwargs: those of Keras's AdamW.
    """

    def __init__(self, scales=None, **kwargs):
        super().__init__(**kwargs)
        self.scales = dict(scales or {})

    def build(self, variables):
        """Makes the moments."""
        super().build(variables)
        self._find_rates(variables)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        shared = self._with_powers(learning_rate, self.beta_1, self.beta_2)
        super()._backend_update_step(grads, trainable_variables, shared)

    def update_step(self, gradient, variable, learning_rate):
        """Updates one weight; `learning_rate` has the rate and the powers of both betas."""
        index = self._get_variable_index(variable)
        rate = self._decayed_rate(index, variable, learning_rate[0])
        moments = self._momentums[index], self._velocities[index]
        betas = self.beta_1, self.beta_2
        self._adam_step(gradient, variable, rate, learning_rate[1:], moments, betas)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "scales": self.scales}


@keras.saving.register_keras_serializable(package="undivided_tf")
class Muon(_FusedAdam, keras.optimizers.Muon):
    """Keras's Muon for the named variables, `AdamW` for all others.

    Kernels of equal shape are stacked for the Newton-Schulz iterations; a wide kernel is transposed
    first. `(AI)*6` then has two stacks instead of 37 kernels, each with 15 products. A stack is at
    most `_LARGEST_STACK`: stacking large kernels saves no time, and the iterations need several
    times its memory.

    Args:
        orthogonalized: paths of the 2-D variables that Muon updates.
        scales: as for `AdamW`; the rate of AdamW's variables has the factor `adam_lr_ratio` too.
        **kwargs: those of Keras's Muon except `exclude_layers`, `exclude_embeddings` and
            `adam_weight_decay`. `weight_decay` applies to all variables.

    References:
        Jordan et al. 2024, kellerjordan.github.io/posts/muon. The update is scaled to AdamW's
        root mean square of `rms_rate` 0.2: Liu et al. 2025, arXiv 2502.16982, section 2.2.
    """

    def __init__(self, orthogonalized=(), scales=None, **kwargs):
        super().__init__(**kwargs)
        self.orthogonalized = tuple(orthogonalized)
        self.scales = dict(scales or {})

    def build(self, variables):
        """Makes the momentum of all variables, and second moments for those of AdamW."""
        super().build(variables)
        self._find_rates(variables)
        self._stacks = []  # A shape, and indices of Muon's variables of this shape.
        by_shape = {}
        for index, variable in enumerate(variables):
            if self._should_use_adamw(variable):
                self._factors[index] *= self.adam_lr_ratio
            else:
                by_shape.setdefault(tuple(sorted(variable.shape)), []).append(index)
        for shape, group in by_shape.items():
            most = max(1, _LARGEST_STACK // math.prod(shape))
            self._stacks += ((shape, group[i : i + most]) for i in range(0, len(group), most))

    def _should_use_adamw(self, variable):
        return variable.path not in self.orthogonalized

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # `grads` may lack variables without a gradient, so its indices are not those of variables.
        places = {self._get_variable_index(v): i for i, v in enumerate(trainable_variables)}
        grads = list(grads)
        for shape, stacked in self._stacks:
            members = [index for index in stacked if index in places]
            if not members:
                continue
            momenta = [self.momentum * self.momentums[i].value + grads[places[i]] for i in members]
            ahead = momenta
            if self.nesterov:
                pairs = zip(momenta, members, strict=True)
                ahead = [self.momentum * m + grads[places[i]] for m, i in pairs]
            turned = [tuple(value.shape) != shape for value in ahead]
            stack = ops.stack([_transposed(*pair) for pair in zip(ahead, turned, strict=True)])
            stack = self.zeropower_via_newtonschulz5(stack, self.ns_steps)
            stack *= self.rms_rate * max(shape) ** 0.5
            for number, index in enumerate(members):
                update = _transposed(stack[number], turned[number])
                grads[places[index]] = momenta[number], update
        shared = self._with_powers(learning_rate, self.adam_beta_1, self.adam_beta_2)
        super()._backend_update_step(grads, trainable_variables, shared)

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight.

        Args:
            gradient: for AdamW's variables; for Muon's the new momentum and the update.
            variable: the weight.
            learning_rate: the rate and the powers of both betas.
        """
        index = self._get_variable_index(variable)
        rate = self._decayed_rate(index, variable, learning_rate[0])
        first, second = self.momentums[index], self.adam_velocities[index]
        if second is None:
            momentum, update = gradient
            self.assign(first, momentum)
            self.assign_sub(variable, rate * update)
        else:
            betas = self.adam_beta_1, self.adam_beta_2
            self._adam_step(gradient, variable, rate, learning_rate[1:], (first, second), betas)

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        return {**config, "orthogonalized": list(self.orthogonalized), "scales": self.scales}


def _transposed(matrix, turned):
    return ops.transpose(matrix) if turned else matrix


@keras.saving.register_keras_serializable(package="undivided_tf")
class Lamb(_SummedGradients, keras.optimizers.Lamb):
    """LAMB with the decay inside the trust ratio; excludes some weights from both.

    Keras applies the decay outside the ratio. It applies the ratio to biases too, whose norm is 0
    at the start, so they would hardly change.

    Args:
        weight_decay_rate: float. Decay times weight is added to the update before its norm is
            computed.
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
    """Whether a variable is a bias, or of LayerNorm or the norm of queries or keys."""
    return "_norm/" in variable.path or variable.name.endswith("bias")


def layerwise_scales(model, decay):
    """Factors of learning rates that fall from the top of an encoder to its embeddings.

    The head and the pooler have the full rate, the blocks of the last encoder layer `decay` times
    this rate, each layer below another factor `decay`, and the embeddings the lowest rate. Weights
    that all intermediate blocks share have the rate of the first block.

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
    """Makes an AdamW with decoupled weight decay, built for its variables.

    Unlike google-research/bert's optimizer it corrects the bias of the moments, as Adam does; the
    difference vanishes after a few hundred steps. With several replicas the gradients must already
    be summed over them.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: each step multiplies each weight by 1 minus decay times learning rate;
            LayerNorm and biases are excluded.
        scales: factors of the learning rate by path of the variable, see `layerwise_scales`.
        **options: see `lamb`.

    References:
        Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    optimizer = AdamW(scales, weight_decay=weight_decay_rate, **_arguments(**options))
    # By list: the patterns of `var_names` match "gamma" and "beta", never the layer's name.
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if _is_spared(v)])
    optimizer.build(variables)
    return optimizer


def muon(
    variables,
    *,
    weight_decay_rate,
    adam_learning_rate_ratio=1.0,
    momentum=0.95,
    scales=None,
    **options,
):
    """Makes a Muon for the kernels of blocks and head, with AdamW for other variables.

    Args:
        variables: trainable Keras variables, gradients as for `adamw`.
        weight_decay_rate: as for `adamw`.
        adam_learning_rate_ratio: learning rate of AdamW's variables divided by that of Muon's.
        momentum: of Muon's variables.
        scales: as for `adamw`.
        **options: see `lamb`; both betas and `epsilon` are those of AdamW's variables.
    """
    arguments = _arguments(**options)
    betas = {f"adam_{name}": arguments.pop(name) for name in ("beta_1", "beta_2")}
    optimizer = Muon(
        [variable.path for variable in hidden_kernels(variables)],
        scales,
        adam_lr_ratio=adam_learning_rate_ratio,
        momentum=momentum,
        weight_decay=weight_decay_rate,
        **betas,
        **arguments,
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if _is_spared(v)])
    optimizer.build(variables)
    return optimizer


def hidden_kernels(variables):
    """The variables that Muon updates: 2-D kernels of blocks and of the head's transform.

    AdamW updates embedding tables and vectors. It also updates pooler and classifiers, which are
    few weights and may have nothing to learn in pre-training.

    Args:
        variables: Keras variables.
    """
    return [
        variable
        for variable in variables
        if len(variable.shape) == 2
        and variable.name == "kernel"
        and variable.path.startswith(("encoder/block_", "masked_lm_head/transform/"))
    ]


def lamb(variables, *, weight_decay_rate, **options):
    """Makes a LAMB for large batches, built for its variables; gradients as for `adamw`.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: see `Lamb`; LayerNorm and biases have neither decay nor trust ratio.
        **options: `learning_rate` (the peak), `num_warmup_steps`, `num_train_steps`, `schedule`:
            see `WarmupDecay`; or `learning_rate` alone, a Keras schedule. `beta_1` and `beta_2`:
            decays of the moments. `epsilon`: added to the root of the second moment.
            `max_gradient_norm`: clip gradients to this global norm; None if the caller clips.
            `ema_momentum`: keep an exponential moving average of the weights, which equals the
            weights after the first step; 0: none.
    """
    optimizer = Lamb(weight_decay_rate=weight_decay_rate, **_arguments(**options))
    optimizer.build(variables)
    return optimizer


OPTIMIZERS = {"adamw": adamw, "lamb": lamb, "muon": muon}


def of_run(config, variables, schedule):
    """The optimizer of a pre-training run.

    Args:
        config: PretrainingConfig.
        variables: trainable Keras variables.
        schedule: result of `schedules.of_run`.
    """
    own = {}
    if config.optimizer == "muon":
        own = {
            "adam_learning_rate_ratio": config.adam_learning_rate_ratio,
            "momentum": config.muon_momentum,
        }
    return OPTIMIZERS[config.optimizer](
        variables,
        learning_rate=schedule,
        weight_decay_rate=config.weight_decay_rate,
        beta_1=config.adam_beta_1,
        beta_2=config.adam_beta_2,
        epsilon=config.adam_epsilon,
        ema_momentum=config.ema_momentum,
        **own,
    )


def _arguments(
    *,
    learning_rate,
    num_warmup_steps=None,
    num_train_steps=None,
    schedule="linear",
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    max_gradient_norm=None,
    ema_momentum=0.0,
):
    """Keras's names for the options of `lamb`."""
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = WarmupDecay(learning_rate, num_warmup_steps, num_train_steps, schedule)
    return {
        "learning_rate": learning_rate,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
        "global_clipnorm": max_gradient_norm,
        "use_ema": ema_momentum > 0,
        "ema_momentum": ema_momentum,
    }


def averages(optimizer):
    """The moving averages of the optimizer's variables, in their order.

    Args:
        optimizer: made by one of `OPTIMIZERS`.

    Returns:
        List of Keras variables, empty without `ema_momentum`.
    """
    return list(optimizer._model_variables_moving_average) if optimizer.use_ema else []
