"""What a compute multiplier says about intermediate blocks, by margins named in advance."""

import dataclasses
import math

import scipy.stats

from undivided_tf.errors import InputError
from undivided_tf.study.config import WORTH_MARGINS as MARGINS
from undivided_tf.study.worth.multiplier import Multiplier

WORTH, DISPENSABLE, HARMFUL = "worth its compute", "dispensable", "harmful"
UNDECIDED = "undecided"
_MOST_SEEDS = 9999


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict on the intermediate blocks that an arm lacks.

    Attributes:
        name: `WORTH`, `DISPENSABLE`, `HARMFUL` or `UNDECIDED`.
        seeds_needed: where undecided, the number of seeds in all at which the interval would
            decide (`seeds_needed`); None where decided or not known.
        reason: why there is no decision; empty where there is one.
    """

    name: str
    seeds_needed: int | None = None
    reason: str = ""


def name_interval(low: float, high: float, margins: tuple[float, float] = MARGINS) -> str:
    """The verdict by an interval: of a multiplier, or of anything else with its margins.

    *Worth its compute*: the interval lies above the upper margin. *Harmful*: it lies below the
    lower margin. *Dispensable*: it lies between the margins, which belong to this region.
    *Undecided*: all else, and an interval that is not known (NaN).

    Args:
        low: lower end of the interval.
        high: upper end.
        margins: lower and upper, named before the data were seen.

    Raises:
        InputError: margins that are not finite or not ascending.

    Examples:
        >>> [name_interval(*ends) for ends in ((1.11, 1.3), (0.9, 1.1), (0.88, 0.99))]
        ['worth its compute', 'dispensable', 'undecided']
    """
    bottom, top = read_margins(margins)
    if low > top:
        return WORTH
    if high < bottom:
        return HARMFUL
    return DISPENSABLE if bottom <= low and high <= top else UNDECIDED


def judge(multiplier: Multiplier, margins: tuple[float, float] = MARGINS) -> Verdict:
    """The verdict by the interval of a compute multiplier.

    Args:
        multiplier: of `compute_multiplier`, of the arm without (some) intermediate blocks. For
            one of `JointFit` the verdict holds as well, but not `seeds_needed`, which takes the
            interval for a t interval over seeds.
        margins: lower and upper, positive, named before the data were seen.

    Raises:
        InputError: margins that are not positive, finite and ascending.
    """
    bottom, top = read_margins(margins)
    if bottom <= 0:
        raise InputError(f"margins of a multiplier must be positive, got {margins!r}")
    name = name_interval(multiplier.low, multiplier.high, margins)
    if name != UNDECIDED:
        return Verdict(name)
    if math.isnan(multiplier.value) or multiplier.low == 0 or math.isinf(multiplier.high):
        return Verdict(name, reason=multiplier.reason)
    critical = scipy.stats.t.isf((1 - multiplier.level) / 2, multiplier.seeds - 1)
    half = (math.log(multiplier.high) - math.log(multiplier.low)) / 2
    needed = seeds_needed(
        math.log(multiplier.value),
        half * math.sqrt(multiplier.seeds) / critical,
        (math.log(bottom), math.log(top)),
        multiplier.level,
    )
    reason = (
        f"the interval ({multiplier.low:.3g} to {multiplier.high:.3g}) covers a margin "
        f"({bottom:g} or {top:g})"
    )
    return Verdict(name, needed, reason)


def seeds_needed(
    mean: float, deviation: float, margins: tuple[float, float], level: float = 0.95
) -> int | None:
    """The number of seeds in all at which a t interval about the mean would decide.

    This assumes that the mean stays where it is, that the spread of the seeds seen is the true
    one, and that there is one look at the data. The mean moves as well: with so many seeds the
    chance of a decision is about one half.

    Args:
        mean: seen, of log multipliers or of paired differences.
        deviation: of the values of single seeds.
        margins: lower and upper, on the scale of `mean`.
        level: of the interval.

    Returns:
        The fewest seeds, at least two, at which the half-width is below the distance of `mean`
        from the nearest margin; None where it lies on one, or for more than 9,999.

    Raises:
        InputError: margins that are not finite or not ascending.
    """
    distance = min(abs(mean - margin) for margin in read_margins(margins))

    def decides(n: int) -> bool:
        half = scipy.stats.t.isf((1 - level) / 2, n - 1) * deviation / math.sqrt(n)
        return half < distance

    # The half-width falls with n: bisect.
    low, high = 2, _MOST_SEEDS
    if not decides(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle + 1, high)
    return low


def read_margins(margins: tuple[float, float]) -> tuple[float, float]:
    """Lower and upper margin; InputError unless both are finite and ascending."""
    bottom, top = margins
    if not (math.isfinite(bottom) and math.isfinite(top) and bottom < top):
        raise InputError(f"margins must be finite and ascending, got {margins!r}")
    return bottom, top
