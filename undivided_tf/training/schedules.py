"""Learning-rate schedules."""

import math

import keras
import tensorflow as tf
from keras import ops


def _linear(share):
    """From 0 to 1, like the functions below; a rise has the finished share, a fall the one left."""
    return share


def _cosine(share):
    """Half a cosine, with slope 0 at both ends."""
    return (1.0 - ops.cos(math.pi * share)) / 2.0


def _inverse_root(share):
    return 1.0 - ops.sqrt(1.0 - share)


# By name: the rise, the fall, and the start of the rise as a share of the peak.
_SCHEDULES = {
    "linear": (_linear, _linear, 0.0),
    "cosine": (_linear, _cosine, 0.0),
    "one_cycle": (_cosine, _cosine, 1 / 25),
}
# By name: the fall of a cooldown.
_COOLDOWNS = {"linear": _linear, "1-sqrt": _inverse_root}


@keras.saving.register_keras_serializable(package="undivided_tf")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak in the warm-up, then falls to 0 at the last step.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise.
        num_train_steps: int. All steps.
        schedule: str. `linear`: linear rise and fall. `cosine`: linear rise, fall along half a
            cosine. `one_cycle`: both along half a cosine, and the rise starts at 1/25 of the peak;
            unlike in the paper, the momentum is constant.

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
        """The learning rate of step 0, 1, ...; above 0 from step 0 on."""
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


@keras.saving.register_keras_serializable(package="undivided_tf")
class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak, stays there, and cools down to 0 at the last step.

    Start and end of the cooldown are variables, so that one compiled step serves a run and all its
    branches, which have cooldowns of their own.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise, which is linear.
        num_train_steps: int. All steps.
        cooldown_start: int. Number of steps before the cooldown, which ends at the last step.
        cooldown: str. `linear`: linear fall. `1-sqrt`: one minus the square root of the finished
            share of the cooldown.

    References:
        Haegele et al. 2024, arXiv 2405.18392, equations 1 and 2.
    """

    def __init__(self, peak, num_warmup_steps, num_train_steps, cooldown_start, cooldown="linear"):
        self.peak = peak
        self.num_warmup_steps = num_warmup_steps
        self.cooldown = cooldown
        self._fall = _COOLDOWNS[cooldown]
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._last_step = tf.Variable(0.0, trainable=False, aggregation=first)
        self._cooldown_steps = tf.Variable(1.0, trainable=False, aggregation=first)
        self.cool_down(cooldown_start, num_train_steps)

    def cool_down(self, cooldown_start, num_train_steps):
        """Sets the steps at which the cooldown starts and ends."""
        self.cooldown_start, self.num_train_steps = cooldown_start, num_train_steps
        self._last_step.assign(num_train_steps)
        self._cooldown_steps.assign(num_train_steps - cooldown_start)

    def __call__(self, step):
        """The learning rate of step 0, 1, ...; above 0 from step 0 on."""
        step = ops.cast(step, "float32")
        rise = ops.clip((step + 1.0) / max(self.num_warmup_steps, 1), 0.0, 1.0)
        left = ops.clip((self._last_step - step) / self._cooldown_steps, 0.0, 1.0)
        return self.peak * ops.minimum(rise, self._fall(left))

    def get_config(self):
        """The constructor's arguments."""
        names = "peak", "num_warmup_steps", "num_train_steps", "cooldown_start", "cooldown"
        return {name: getattr(self, name) for name in names}


def of_run(config):
    """The schedule of a pre-training run; call it in the scope of the strategy.

    Args:
        config: PretrainingConfig.
    """
    steps = config.num_warmup_steps, config.num_train_steps
    if config.learning_rate_schedule == "trapezoid":
        cooldown = config.cooldown_start, config.cooldown_shape
        return Trapezoid(config.learning_rate, *steps, *cooldown)
    return WarmupDecay(config.learning_rate, *steps, config.learning_rate_schedule)


def of_finetuning(config, num_train_steps):
    """The schedule of a run whose warm-up is a share of its steps.

    Args:
        config: has `learning_rate` and `warmup_proportion`.
        num_train_steps: int. All steps.
    """
    warmup = int(config.warmup_proportion * num_train_steps)
    return WarmupDecay(config.learning_rate, warmup, num_train_steps)
