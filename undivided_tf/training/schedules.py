"""Learning rates by the step."""

import math

import keras
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
