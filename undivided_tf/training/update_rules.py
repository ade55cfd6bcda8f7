"""AdamW, Muon and LAMB as Keras optimizers: how a weight changes in a step.

`exclude_from_weight_decay` of Keras names the weights without decay.
"""

import math

import keras
import tensorflow as tf
from keras import ops

_LARGEST_STACK = 2**22  # Elements.


class _SummedGradients:
    """Expects gradients that the caller has already summed over the replicas.

    Keras would sum them again, which costs another exchange of all gradients. `Steps` needs the sum
    earlier, to clip it by its norm. On one device there is nothing to sum.
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
        """Does nothing, since `update_step` applies the decay."""

    def _with_powers(self, learning_rate, beta_1, beta_2):
        """The learning rate and the powers of both betas, computed once for all variables."""
        step = ops.cast(self.iterations + 1, "float32")
        return learning_rate, ops.power(beta_1, step), ops.power(beta_2, step)

    def _decayed_rate(self, index, variable, learning_rate):
        """Applies the decay to a weight; returns the learning rate of this weight."""
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
        """Updates one weight; `learning_rate` is the result of `_with_powers`."""
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

    Kernels of equal shape are stacked for the Newton-Schulz iterations, a kernel and its transpose
    in one stack. `(AI)*6` then has two stacks instead of 37 kernels, each with 15 products. A stack
    has at most `_LARGEST_STACK` elements: stacking large kernels saves no time, and the iterations
    need several times the memory of the stack.

    Args:
        orthogonalized: paths of the 2-D variables that Muon updates.
        scales: as for `AdamW`; the rate of AdamW's variables also has the factor `adam_lr_ratio`.
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
        self._stacks = []  # (shape, indices of Muon's variables of this shape or its transpose).
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
        # Variables without a gradient are absent here, so a position in `grads` is not an index.
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
        """Updates one weight.

        Args:
            gradient: its gradient; for a variable of Muon the new momentum and the update.
            variable: the weight.
            learning_rate: result of `_with_powers`.
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
    """LAMB with the decay inside the trust ratio; weights without decay have no ratio either.

    Keras applies the decay outside the ratio. It also applies the ratio to biases, whose norm is 0
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
        self._decays = [self._use_weight_decay(variable) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one weight."""
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
        if self._decays[index]:
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
