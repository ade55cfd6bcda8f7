"""Means with intervals; needs no TensorFlow."""

from collections.abc import Sequence

import numpy as np
import scipy.stats

from undivided_tf.errors import InputError

CONFIDENCE = 0.95


def summarize(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, spread and a 95 % Student-t interval of the mean.

    The interval takes the values for independent draws from a normal population: runs that
    differ in their seed, not repeated readings of one run.

    Args:
        values: at least one finite number.

    Returns:
        `mean`, `deviation` (of the sample, divisor n - 1), `median`, `n`, `low` and `high` (the
        interval). `deviation`, `low` and `high` are None for one value, which tells nothing
        about its spread.

    Raises:
        InputError: no value, or one that is not finite.

    References:
        Student 1908, Biometrika 6(1).
    """
    sample = _finite(values, "values")
    n, mean = sample.size, float(sample.mean())
    deviation = low = high = None
    if n > 1:
        deviation = float(sample.std(ddof=1))
        reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / n**0.5
        low, high = mean - reach, mean + reach
    return {
        "mean": mean,
        "deviation": deviation,
        "median": float(np.median(sample)),
        "n": n,
        "low": low,
        "high": high,
    }


def paired_difference(a: Sequence[float], b: Sequence[float]) -> dict[str, float | int | None]:
    """The mean of `a - b` with its interval; pairs share what else varies, such as the seed.

    Args:
        a: one number a pair.
        b: the other number of each pair, in the same order.

    Returns:
        What `summarize` gives for the differences.

    Raises:
        InputError: the lengths differ, or as `summarize`.
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    if first.size != second.size:
        raise InputError(f"pairs need two equal lengths, got {first.size} and {second.size}")
    return summarize(first - second)


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not sample.size:
        raise InputError(f"{name}: expected a list of numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        place = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise InputError(f"{name}[{place}] is {sample[place]}; every value must be finite")
    return sample
