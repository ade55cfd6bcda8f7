"""Learning-rate schedules."""

import math

import keras
import tensorflow as tf
from keras import ops


def _linear_rise(done):
    return done


def _linear_fall(left):
    return left


def _cosine(share):
    """0 at 0, 1 at 1, with slope 0 at both ends."""
    return (1.0 - ops.cos(math.pi * share)) / 2.0


# By name: the rise as a function of the share of the warm-up that is done, the fall as a function
# of the share of later steps that is left, and the start of the rise.
_SCHEDULES = {
    "linear": (_linear_rise, _linear_fall, 0.0),
    "cosine": (_linear_rise, _cosine, 0.0),
    "one_cycle": (_cosine, _cosine, 1 / 25),
}


@keras.saving.register_keras_serializable(package="undivided_tf")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak in the warm-up, then falls to 0 at the last step.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise.
        num_train_steps: int. All steps.
        schedule: str. `linear`: both are lines. `cosine`: a line up, half a cosine down.
            `one_cycle`: half a cosine up from 1/25 of the peak, half a cosine down; momentum, which
            the paper changes too, is constant.

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


def _inverse_root_fall(left):
    return 1.0 - ops.sqrt(1.0 - left)


_COOLDOWNS = {"linear": _linear_fall, "1-sqrt": _inverse_root_fall}


@keras.saving.register_keras_serializable(package="undivided_tf")
class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to the peak, stays there, and cools down to 0 at the last step.

    The position of the cooldown is in variables, so that one compiled step serves a run and all its
    branches, which have their own cooldowns.

    Args:
        peak: float. Highest learning rate.
        num_warmup_steps: int. Steps of the rise, a line.
        num_train_steps: int. All steps.
        cooldown_start: int. Steps that are done when the fall starts; it ends at the last step.
        cooldown: str. `linear`: a line. `1-sqrt`: one minus the square root of the share that is
            done.

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
