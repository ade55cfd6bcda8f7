"""The training compute that an arm needs for the loss of the reference, and the crossover."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from undivided_tf.errors import InputError
from undivided_tf.study.worth.curves import Curves, Difference, Points, edge, grid, read_arms


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """A compute multiplier at one budget.

    Attributes:
        budget: training FLOPs C of the reference.
        value: m(C), the arm's compute for the same loss as a multiple of C; NaN where it is
            not known.
        low: lower end of the interval; 0.0 where the interval leaves the arm's curve, NaN where
            the budget is outside the reference's curve.
        high: upper end; inf where the interval leaves the arm's curve, NaN as `low`.
        level: of the interval.
        seeds: that the interval rests on, of the arm with fewer.
        reason: why the value or an end is not known; empty where all are known.
    """

    budget: float
    value: float
    low: float
    high: float
    level: float
    seeds: int
    reason: str = ""

    @property
    def is_bounded(self) -> bool:
        """Whether an end of the interval is known."""
        return self.low > 0 or math.isfinite(self.high)


@dataclasses.dataclass(frozen=True)
class Crossover:
    """The training compute at which the better arm changes.

    Attributes:
        value: training FLOPs at which the mean losses of both arms are equal; None where one
            arm leads throughout, or at both ends without a shown lead of the other between.
        low: lower end of the interval, in training FLOPs; 0.0 where no lead is shown below
            `value`. Where `value` is None, the lowest compute that was searched.
        high: upper end; inf where no lead is shown above `value`. Where `value` is None, the
            highest compute that was searched.
        searched: (lowest, highest) training FLOPs that both arms cover.
        arm_leads: where the arm has the lower mean loss: "below" or "above" the crossover, or,
            without one, "throughout" or "nowhere".
        reference_size: the best size of the reference at `value`; None without one.
        arm_size: the best size of the arm at `value`; None without one.
    """

    value: float | None
    low: float
    high: float
    searched: tuple[float, float]
    arm_leads: str
    reference_size: Any = None
    arm_size: Any = None

    @property
    def shown(self) -> bool:
        """Whether a lead of one arm is shown below and a lead of the other above."""
        return self.value is not None and self.low > 0 and math.isfinite(self.high)


def compute_multiplier(
    reference: Mapping[Any, Points],
    arm: Mapping[Any, Points],
    budgets: Iterable[float],
    level: float = 0.95,
) -> list[Multiplier]:
    """The compute that an arm needs for the loss of the reference, as a multiple of its compute.

    m(C) = C_A(loss_F(C)) / C: below 1 the arm is cheaper. `loss_F` is the mean of the
    reference's monotone curves, `C_A` the inverse of the mean of the arm's (see `Curves`).
    Nothing is extrapolated: where the arm's curve ends above that loss, or begins below it, m is
    not known, but the interval's end on the curve is.

    The interval holds every m that a t-test does not reject: at m the mean over seeds of
    `loss_A(m C) - loss_F(C)` is not shown to differ from 0. So spread is measured in losses,
    where it is nearly normal, and the interval keeps its coverage with three seeds, where a
    bootstrap over seeds is too narrow. Seeds that both arms share are pairs: what a seed does to
    both cancels. Where at least three are shared, or all, seeds of one arm alone are left out;
    otherwise all seeds count, as independent ones. Each interval is for its own budget; intervals
    of several budgets are not corrected for their number.

    Args:
        reference: from each seed to its points (training FLOPs, loss), in any order.
        arm: the same of the arm.
        budgets: training FLOPs of the reference.
        level: of the interval.

    Returns:
        One `Multiplier` a budget, in their order.

    Raises:
        InputError: no budget, one that is not positive and finite, a level that is not between 0
            and 1, or as `Curves`.

    Examples:
        >>> def points(cost, shift):
        ...     return [(cost * c, 2 + 3 * c**-0.2 + shift) for c in (1e3, 2e3, 4e3, 8e3)]
        >>> reference = {0: points(1.0, 0.00), 1: points(1.0, 0.02), 2: points(1.0, 0.01)}
        >>> arm = {0: points(0.9, 0.001), 1: points(0.9, 0.021), 2: points(0.9, 0.008)}
        >>> m, = compute_multiplier(reference, arm, [4e3])
        >>> f"{m.value:.2f} times the training compute ({m.low:.2f} to {m.high:.2f})"
        '0.90 times the training compute (0.87 to 0.93)'

    References:
        Fieller 1954, Journal of the Royal Statistical Society B 16(2) (inverting a t-test).
    """
    check_level(level)
    ours, theirs = read_arms(reference, arm)
    return [_multiplier(ours, theirs, c, level) for c in read_budgets(budgets)]


def _multiplier(ours: Curves, theirs: Curves, budget: float, level: float) -> Multiplier:
    seeds = min(len(ours.seeds), len(theirs.seeds))

    def result(value: float, low: float, high: float, reason: str = "") -> Multiplier:
        return Multiplier(budget, value, low, high, level, seeds, reason)

    nan = math.nan
    x = ours.inside(math.log(budget))
    if x is None:
        return result(nan, nan, nan, f"{budget:.4g} FLOPs are outside the reference's curve")
    difference = Difference(ours, theirs, level)

    def mean(y):
        return difference(x, y)[0]

    loss = ours(x).mean()
    begins_below, ends_above = mean(theirs.low) < 0, mean(theirs.high) > 0
    candidates = grid(theirs.low, theirs.high, theirs.knots)
    if begins_below:
        root, reason = nan, f"the arm's curve begins below the loss {loss:.4f}"
    elif ends_above:
        root, reason = nan, f"the arm's curve ends above the loss {loss:.4f}"
    else:
        root, reason = _root(mean, candidates, mean(candidates)), ""
        candidates = grid(theirs.low, theirs.high, theirs.knots, [root])

    def excess(y):
        mean, half = difference(x, y)
        return np.abs(mean) - half

    accepted = excess(candidates) <= 0
    if not reason:
        accepted[np.searchsorted(candidates, root)] = True
    elif not accepted.any():  # All of the arm's curve is rejected: the multiplier lies beyond it.
        accepted[0 if begins_below else -1] = True
    # The set may have gaps where the spread is large far from the estimate: take its hull.
    first, last = np.flatnonzero(accepted)[[0, -1]]
    low, high, reasons = -math.inf, math.inf, [reason] if reason else []
    if not begins_below:
        if first > 0:
            low = edge(excess, candidates[first], candidates[first - 1])
        elif excess(candidates[0]) >= 0:
            low = candidates[0]
        else:
            reasons.append("the interval begins before the arm's curve")
    if not ends_above:
        if last < len(candidates) - 1:
            high = edge(excess, candidates[last], candidates[last + 1])
        elif excess(candidates[-1]) >= 0:
            high = candidates[-1]
        else:
            reasons.append("the interval ends beyond the arm's curve")
    low, value, high = (math.exp(y - x) for y in (low, root, high))
    return result(value, low, high, "; ".join(reasons))


def _root(function, candidates: np.ndarray, values: np.ndarray) -> float:
    """Where a falling function is 0; the middle of the stretch where it is 0 on several."""
    left, right = np.flatnonzero(values >= 0)[-1], np.flatnonzero(values <= 0)[0]
    if right > left:
        return edge(lambda y: -function(y), candidates[left], candidates[right])
    return (candidates[right] + candidates[left]) / 2


def frontier(by_size: Mapping[Any, Mapping[Any, Points]], name: str = "arm") -> dict[Any, Points]:
    """The loss-compute curve of an arm whose size is chosen anew at every compute.

    At each compute where a size has a point, all seeds take the size whose mean loss over seeds
    is lowest there: one choice for all, since the best of each seed would be low by luck.

    Args:
        by_size: from each size to a mapping from each seed to its points (training FLOPs, loss).
            Only seeds that all sizes have are used.
        name: of the arm, for messages.

    Returns:
        From each seed to its points, as `compute_multiplier` takes them.

    Raises:
        InputError: no size, fewer than two seeds that all sizes have, or as `Curves`.
    """
    return _Frontier(by_size, name).points


class _Frontier:
    def __init__(self, by_size: Mapping[Any, Mapping[Any, Points]], name: str):
        if not isinstance(by_size, Mapping) or not by_size:
            raise InputError(f"{name}: expected a mapping from sizes to seeds, got {by_size!r}")
        self.sizes = list(by_size)
        for size in self.sizes:
            Curves(by_size[size], f"{name}, size {size}")
        seeds = [s for s in by_size[self.sizes[0]] if all(s in by_size[k] for k in self.sizes)]
        if len(seeds) < 2:
            raise InputError(
                f"{name}: sizes {self.sizes} have the seeds {seeds} in common, expected at least "
                "two; run the same seeds at every size"
            )
        self._curves = [
            Curves({s: by_size[size][s] for s in seeds}, f"{name}, size {size}")
            for size in self.sizes
        ]
        knots = np.unique(np.concatenate([curves.knots for curves in self._curves]))
        rows = [self._curves[self._best(x)](x) for x in knots]
        self.points = {
            seed: [(math.exp(x), float(row[i])) for x, row in zip(knots, rows, strict=True)]
            for i, seed in enumerate(seeds)
        }

    def _best(self, x: float) -> int:
        """Index of the size with the lowest mean loss at log compute `x`."""
        losses = [
            curves(x).mean() if curves.low <= x <= curves.high else math.inf
            for curves in self._curves
        ]
        return int(np.argmin(losses))

    def size(self, x: float) -> Any:
        """The best size at the log compute nearest to `x` that a size covers."""
        knots = np.concatenate([curves.knots for curves in self._curves])
        covered = any(curves.low <= x <= curves.high for curves in self._curves)
        return self.sizes[self._best(x if covered else knots[np.argmin(np.abs(knots - x))])]


def crossover(
    reference_by_size: Mapping[Any, Mapping[Any, Points]],
    arm_by_size: Mapping[Any, Mapping[Any, Points]],
    level: float = 0.95,
) -> Crossover:
    """The training compute beyond which another arm has the lower loss.

    Both arms use the best size at every compute (`frontier`). A lead is *shown* at a compute
    where the t interval of the difference of losses, as in `compute_multiplier`, does not cover
    0. The interval of the crossover reaches from the last compute with a shown lead of one arm to
    the first with a shown lead of the other. The end is open (0.0 or inf) on a side where no lead
    is shown; a sign change of the means that is open on both sides may be noise. Of several
    changes that are shown, the last is reported.

    Args:
        reference_by_size: from each size to a mapping from each seed to its points (training
            FLOPs, loss). Sizes are any keys, and both arms may have different ones.
        arm_by_size: the same of the arm.
        level: of the interval.

    Returns:
        A `Crossover`. Where there is none, its `value` is None, and `searched`, and `low` and
        `high`, say between which training FLOPs.

    Raises:
        InputError: both arms have no compute in common, a level that is not between 0 and 1, or
            as `frontier`.

    Examples:
        >>> def curve(height, power, shift):
        ...     return [(c, 2 + height * c**-power + shift) for c in (1e3, 1e4, 1e5, 1e6)]
        >>> reference = {"small": {s: curve(3.0, 0.25, s / 100) for s in range(3)}}
        >>> arm = {"small": {s: curve(1.5, 0.18, s / 99) for s in range(3)}}
        >>> crossing = crossover(reference, arm)
        >>> f"{crossing.value:.1e} FLOPs, the arm leads {crossing.arm_leads}"
        '2.0e+04 FLOPs, the arm leads below'
    """
    check_level(level)
    fronts = _Frontier(reference_by_size, "reference"), _Frontier(arm_by_size, "arm")
    ours, theirs = read_arms(fronts[0].points, fronts[1].points)
    low, high = max(ours.low, theirs.low), min(ours.high, theirs.high)
    if low >= high:
        raise InputError(
            f"reference and arm have no compute in common: one begins at {math.exp(low):.4g} "
            f"training FLOPs, the other ends at {math.exp(high):.4g}"
        )
    difference = Difference(ours, theirs, level)
    x = grid(low, high, np.concatenate([ours.knots, theirs.knots]))
    mean, half = difference(x, x)
    searched = (math.exp(low), math.exp(high))
    # Leads that are shown: -1 of the arm, +1 of the reference, 0 none.
    lead = np.where(np.abs(mean) > half, np.sign(mean), 0)
    first, last = _stretch(lead, mean)
    inner = mean[max(first, 0) : min(last, len(x) - 1) + 1]
    changes = max(first, 0) + np.flatnonzero(inner[:-1] * inner[1:] <= 0)
    if not changes.size or mean.min() >= 0 or mean.max() <= 0:
        leads = "throughout" if mean.sum() < 0 else "nowhere"
        return Crossover(None, *searched, searched, leads)
    change = changes[len(changes) // 2]

    def signed(value):
        return difference(value, value)[0] * (-1 if mean[change] > 0 else 1)

    def excess(value):
        mean, half = difference(value, value)
        return half - np.abs(mean)

    root = edge(signed, x[change], x[change + 1])
    begin, end = 0.0, math.inf
    if first >= 0:
        begin = math.exp(edge(excess, x[first], min(x[first + 1], root)))
    if last < len(x):
        end = math.exp(edge(excess, x[last], max(x[last - 1], root)))
    before = mean[: change + 1][mean[: change + 1] != 0]
    return Crossover(
        math.exp(root),
        begin,
        end,
        searched,
        "below" if before.size and before[-1] < 0 else "above",
        fronts[0].size(root),
        fronts[1].size(root),
    )


def _stretch(lead: np.ndarray, mean: np.ndarray) -> tuple[int, int]:
    """Indices of the shown leads on both sides of a crossover; -1 and len(lead) where none is.

    The last change between two shown leads. Without one, the stretch behind the shown leads, or
    before them, in which the means change their order.
    """
    shown = np.flatnonzero(lead)
    changes = np.flatnonzero(np.diff(lead[shown]))
    if changes.size:
        return shown[changes[-1]], shown[changes[-1] + 1]
    if not shown.size:
        return -1, len(lead)
    if lead[shown[-1]] * mean[-1] < 0:
        return shown[-1], len(lead)
    if lead[shown[0]] * mean[0] < 0:
        return -1, shown[0]
    return shown[0], shown[0]


def check_level(level: float) -> None:
    """Raises InputError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, got {level!r}; 0.95 is usual")


def read_budgets(budgets: Iterable[float]) -> list[float]:
    """Budgets as a list; InputError where there is none, or one is not positive and finite."""
    try:
        values = [float(budget) for budget in budgets]
    except (TypeError, ValueError):
        raise InputError(f"budgets: expected a list of training FLOPs, got {budgets!r}") from None
    if not values:
        raise InputError("budgets are empty; give training FLOPs of the reference")
    for i, value in enumerate(values):
        if not (math.isfinite(value) and value > 0):
            raise InputError(
                f"budgets[{i}] is {value}, expected a positive finite number of training FLOPs"
            )
    return values
