"""Loss-compute curves of an arm, one for each seed, and the difference between two arms."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.interpolate
import scipy.optimize
import scipy.stats

from undivided_tf.errors import InputError

Points = Sequence[tuple[float, float]]
_EDGE = 1e-9  # Of log compute: a budget at the end of a curve is inside, whatever its rounding.


class Curves:
    """The loss of one arm as a function of log compute, for each of its seeds.

    The losses of a seed are first replaced by the nearest non-increasing sequence (isotonic
    regression, least squares), since more compute does not raise the expected loss and noise must
    not let a loss be reached twice. Between the points, PCHIP in the logarithm of compute keeps
    the curve monotone. There is no curve outside the points.

    Attributes:
        seeds: of the arm, in the order given.
        low: log of the lowest compute that all seeds reach.
        high: log of the highest compute that all seeds reach.
        knots: logs of all compute values from `low` to `high`, ascending.

    Args:
        points: from each seed to its (training FLOPs, loss) in any order.
        name: of the arm, for messages.

    Raises:
        InputError: fewer than two seeds, fewer than two points of a seed, FLOPs that are not
            positive and finite or that occur twice, a loss that is not finite, or seeds whose
            curves have no compute in common.

    References:
        Barlow, Bartholomew, Bremner, Brunk 1972, Statistical Inference under Order Restrictions
        (isotonic regression). Fritsch, Carlson 1980, SIAM Journal on Numerical Analysis 17(2)
        (PCHIP).
    """

    def __init__(self, points: Mapping[Any, Points], name: str):
        if not isinstance(points, Mapping) or len(points) < 2:
            held = list(points) if isinstance(points, Mapping) else points
            raise InputError(
                f"{name}: expected a mapping with at least two seeds, got {held!r}; one seed "
                "shows no spread, run another"
            )
        self.seeds = list(points)
        read = [_read(points[seed], f"{name}, seed {seed}") for seed in self.seeds]
        self.low = max(flops[0] for flops, _ in read)
        self.high = min(flops[-1] for flops, _ in read)
        if self.low >= self.high:
            raise InputError(
                f"{name}: the curves of its seeds have no compute in common: one begins at "
                f"{math.exp(self.low):.4g} FLOPs, another ends at {math.exp(self.high):.4g}; give "
                "all seeds the same budgets"
            )
        knots = np.unique(np.concatenate([flops for flops, _ in read]))
        self.knots = knots[(knots >= self.low) & (knots <= self.high)]
        # The cubics of all seeds over the pieces between common knots, evaluated at once.
        curves = [
            scipy.interpolate.PchipInterpolator(
                flops, scipy.optimize.isotonic_regression(losses, increasing=False).x
            )
            for flops, losses in read
        ]
        cubics = [
            np.stack([curve(self.knots[:-1], order) for curve in curves], axis=-1)
            / math.factorial(order)
            for order in (3, 2, 1, 0)
        ]
        self._cubics = scipy.interpolate.PPoly(np.stack(cubics), self.knots, extrapolate=False)

    def __call__(self, x: float | np.ndarray) -> np.ndarray:
        """Losses at the logs `x` of compute: an array [seeds, *x.shape]."""
        return np.moveaxis(self._cubics(x), -1, 0)

    def inside(self, x: float) -> float | None:
        """`x`, moved to the end of the curves where it is beyond by rounding; None if outside."""
        if self.low - _EDGE <= x <= self.high + _EDGE:
            return min(max(x, self.low), self.high)
        return None


def _read(points: Points, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Logs of FLOPs, ascending, and losses."""
    try:
        table = np.asarray(points if isinstance(points, np.ndarray) else list(points), np.float64)
    except (TypeError, ValueError):
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] != 2:
        raise InputError(f"{place}: expected pairs (training FLOPs, loss), got {points!r}")
    if len(table) < 2:
        raise InputError(f"{place}: {len(table)} point is no curve; give at least two budgets")
    for i, (flops, loss) in enumerate(table):
        if not (math.isfinite(flops) and flops > 0):
            raise InputError(
                f"{place}, point {i}: training FLOPs are {flops}, expected a positive finite number"
            )
        if not math.isfinite(loss):
            raise InputError(
                f"{place}, point {i}: the loss at {flops:.4g} FLOPs is {loss}; leave out a run "
                "that diverged, or repair the point"
            )
    table = table[np.argsort(table[:, 0])]
    logs = np.log(table[:, 0])
    if (np.diff(logs) <= 0).any():
        twice = table[int(np.flatnonzero(np.diff(logs) <= 0)[0]), 0]
        raise InputError(f"{place}: two points at {twice:.4g} training FLOPs; give their mean")
    return logs, table[:, 1]


def read_arms(reference: Mapping[Any, Points], arm: Mapping[Any, Points]) -> tuple[Curves, Curves]:
    """The curves of both arms, of the seeds that are compared.

    Seeds that both arms have are pairs. Where there are at least three, or one arm has no other
    seeds, only the pairs are compared, since what a seed does to both arms cancels. Otherwise
    all seeds are compared, as independent ones.

    Raises:
        InputError: as `Curves`.
    """
    ours, theirs = Curves(reference, "reference"), Curves(arm, "arm")
    shared = [seed for seed in ours.seeds if seed in theirs.seeds]
    fewest = min(len(ours.seeds), len(theirs.seeds))
    if ours.seeds == theirs.seeds or len(shared) < min(3, fewest):
        return ours, theirs
    return (
        Curves({seed: reference[seed] for seed in shared}, "reference"),
        Curves({seed: arm[seed] for seed in shared}, "arm"),
    )


class Difference:
    """The mean difference of two arms' losses, arm minus reference, with its t interval.

    The paired t interval where both arms have the same seeds, Welch's otherwise.

    Args:
        reference: curves of the reference, of `read_arms`.
        arm: curves of the arm.
        level: of the interval, between 0 and 1.

    References:
        Student 1908, Biometrika 6(1). Welch 1947, Biometrika 34(1/2).
    """

    def __init__(self, reference: Curves, arm: Curves, level: float):
        self._reference, self._arm = reference, arm
        self._paired = reference.seeds == arm.seeds
        self._tail = (1 - level) / 2
        self._critical = scipy.stats.t.isf(self._tail, len(reference.seeds) - 1)

    def __call__(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple[Any, Any]:
        """Mean difference and half-width, the reference at log compute `x`, the arm at `y`."""
        ours, theirs = self._reference(x), self._arm(y)
        if np.ndim(x) < np.ndim(y):
            ours = ours[:, None]
        n, m = len(ours), len(theirs)
        if self._paired:
            paired = theirs - ours
            return paired.mean(axis=0), self._critical * paired.std(axis=0, ddof=1) / math.sqrt(n)
        a, b = ours.var(axis=0, ddof=1) / n, theirs.var(axis=0, ddof=1) / m
        scale = a**2 / (n - 1) + b**2 / (m - 1)
        freedom = np.divide((a + b) ** 2, scale, out=np.ones_like(scale), where=scale > 0)
        half = scipy.stats.t.isf(self._tail, freedom) * np.sqrt(a + b)
        return theirs.mean(axis=0) - ours.mean(axis=0), half


def grid(low: float, high: float, knots: np.ndarray, extra: Sequence[float] = ()) -> np.ndarray:
    """Ascending values from `low` to `high` that include the knots between and `extra`."""
    inner = knots[(knots > low) & (knots < high)]
    return np.unique(np.concatenate([np.linspace(low, high, 257), inner, extra]))


def edge(function: Callable, inside: float, outside: float) -> float:
    """Where `function` passes 0 from below, between a value inside and one outside.

    An end of the bracket where the function does not pass 0 between: without any spread an
    interval is a point, up to rounding.
    """
    if function(inside) >= 0:
        return inside
    if function(outside) <= 0:
        return outside
    return scipy.optimize.brentq(function, inside, outside, xtol=1e-12)
