"""AdamW as BERT uses it: warm-up, linear decay, and no weight decay on LayerNorm and biases."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="undivided_tf")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to the peak, then falls linearly to 0 at the last step.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise.
        num_train_steps: int. All steps.

    References:
        Devlin et al. 2018, arXiv 1810.04805, appendix A.2.
    """

    def __init__(self, peak, num_warmup_steps, num_train_steps):
        self.peak = peak
        self.num_warmup_steps = num_warmup_steps
        self.num_train_steps = num_train_steps

    def __call__(self, step):
        """The learning rate of a step; the first step is 0 and already has some."""
        step = ops.cast(step, "float32")
        rise = (step + 1.0) / max(self.num_warmup_steps, 1)
        fall = (self.num_train_steps - step) / max(self.num_train_steps - self.num_warmup_steps, 1)
        return self.peak * ops.clip(ops.minimum(rise, fall), 0.0, 1.0)

    def get_config(self):
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "num_warmup_steps": self.num_warmup_steps,
            "num_train_steps": self.num_train_steps,
        }


def adamw(
    variables,
    *,
    learning_rate,
    num_warmup_steps,
    num_train_steps,
    weight_decay_rate,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    max_gradient_norm=None,
):
    """AdamW with decoupled weight decay, built for its variables.

    Unlike google-research/bert's optimizer it corrects the bias of the moments, as Adam does;
    the difference is gone after a few hundred steps.

    Args:
        variables: trainable Keras variables.
        learning_rate: peak of `WarmupLinearDecay`.
        num_warmup_steps: steps of the rise.
        num_train_steps: all steps.
        weight_decay_rate: decay times learning rate is taken off each weight at each step;
            LayerNorm and biases are spared.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: added to the root of the second moment.
        max_gradient_norm: clip gradients to this global norm; None when the caller has done so.

    References:
        Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate=WarmupLinearDecay(learning_rate, num_warmup_steps, num_train_steps),
        weight_decay=weight_decay_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        global_clipnorm=max_gradient_norm,
    )
    # By list: the patterns of `var_names` see "gamma" and "beta", never the layer's name.
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if "layer_norm" in v.path or v.name.endswith("bias")]
    )
    optimizer.build(variables)
    return optimizer
