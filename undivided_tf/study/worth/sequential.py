"""Studies that add seeds until they have decided: intervals that stay valid over all looks."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from statsmodels.stats.weightstats import DescrStatsW

from undivided_tf.errors import InputError
from undivided_tf.study.worth.multiplier import check_level
from undivided_tf.study.worth.verdicts import UNDECIDED, name_interval, read_margins

POCOCK, OBRIEN_FLEMING = "pocock", "obrien_fleming"
SPENDINGS = (POCOCK, OBRIEN_FLEMING)
LOOKS = (3, 5, 7, 9)
_DRAWS = 400_000
_HIGHEST = 1 - 1e-12  # A level of 1 has no interval.


@dataclasses.dataclass(frozen=True)
class Look:
    """What a look at a growing study says.

    Attributes:
        seeds: seen at this look.
        name: the verdict, as `name_interval`.
        decided: whether the study may stop with this verdict.
        finished: whether it is decided or has all the seeds that it may have.
        mean: of the values.
        low: lower end of the interval, valid under all looks.
        high: upper end.
        level: nominal level of this look, to be given to `compute_multiplier`.
    """

    seeds: int
    name: str
    decided: bool
    finished: bool
    mean: float
    low: float
    high: float
    level: float


def spent_error(
    fraction: float | np.ndarray, level: float = 0.95, spending: str = POCOCK
) -> float | np.ndarray:
    """How much of the error 1 - level may be spent until this share of the seeds is seen.

    Args:
        fraction: seeds seen as a share of the most seeds, from 0 to 1.
        level: of the whole study.
        spending: `pocock` spends evenly, so that early looks can decide; `obrien_fleming` spends
            late, so that the last interval is hardly wider than that of a study without looks.
            With three seeds the latter spends so little that a first look decides nothing.

    Raises:
        InputError: another spending, or a level that is not between 0 and 1.

    References:
        Lan, DeMets 1983, Biometrika 70(3), alpha* of Pocock's and of O'Brien and Fleming's type.
    """
    check_level(level)
    error = 1 - level
    if spending == POCOCK:
        return error * np.log1p((math.e - 1) * np.asarray(fraction))
    if spending == OBRIEN_FLEMING:
        # Half of the error on either side, each spent by the one-sided function.
        return 4 * scipy.stats.norm.sf(scipy.stats.norm.isf(error / 4) / np.sqrt(fraction))
    raise InputError(f"spending must be one of {', '.join(SPENDINGS)}, got {spending!r}")


def look_levels(
    looks: Sequence[int], max_seeds: int = 9, level: float = 0.95, spending: str = POCOCK
) -> tuple[float, ...]:
    """Nominal levels of t intervals at each look, so that all cover the truth together.

    The chance that any of the intervals of the looks misses the truth is 1 - level when the study
    reaches `max_seeds`, whatever rule stops it. The critical values are those of the t statistics
    of growing samples, jointly, found by simulation of normal samples with a fixed seed: normal
    boundaries, as of large trials, would be too narrow with three seeds.

    Args:
        looks: numbers of seeds at the looks taken so far, ascending from 2. When to look next
            may not depend on the values seen.
        max_seeds: the most seeds that the study may have, named in advance.
        level: of all intervals together.
        spending: see `spent_error`.

    Returns:
        A level for each look; the level of a look does not depend on later ones.

    Raises:
        InputError: no look, looks that do not ascend from 2 to at most `max_seeds`, or as
            `spent_error`.

    Examples:
        >>> [f"{nominal:.3f}" for nominal in look_levels((3, 5, 7, 9))]
        ['0.977', '0.986', '0.986', '0.986']

    References:
        Jennison, Turnbull 1989, Journal of the Royal Statistical Society B 51(3) (repeated
        confidence intervals). Jennison, Turnbull 2000, Group Sequential Methods, ch. 7 (spending)
        and 4.4 (t statistics).
    """
    looks = tuple(looks)
    if not looks or looks[0] < 2 or any(b <= a for a, b in zip(looks, looks[1:], strict=False)):
        raise InputError(f"looks must be ascending numbers of seeds from 2, got {looks}")
    if looks[-1] > max_seeds:
        raise InputError(
            f"looks at {looks} seeds go beyond max_seeds={max_seeds}, which was named in advance"
        )
    spent_error(1.0, level, spending)  # Checks both before the cache sees them.
    return _look_levels(looks, max_seeds, level, spending)


@functools.lru_cache
def _look_levels(
    looks: tuple[int, ...], max_seeds: int, level: float, spending: str
) -> tuple[float, ...]:
    spent = spent_error(np.array(looks) / max_seeds, level, spending)
    # A row a seed: looks at more seeds begin with the same draws.
    values = np.random.default_rng(0).standard_normal((looks[-1], _DRAWS), np.float32)
    inside = np.ones(_DRAWS, bool)
    levels = []
    for seeds, total in zip(looks, spent, strict=True):
        sample = values[:seeds]
        t = np.abs(sample.mean(axis=0)) / sample.std(axis=0, ddof=1) * math.sqrt(seeds)
        if not levels:
            critical = scipy.stats.t.isf(total / 2, seeds - 1)  # Exact, without simulation.
        else:
            # So many samples may be outside at this look for the first time.
            allowed = round(total * _DRAWS) - np.count_nonzero(~inside)
            critical = (
                np.partition(t[inside], -allowed - 1)[-allowed - 1] if allowed > 0 else np.inf
            )
        levels.append(min(1 - 2 * float(scipy.stats.t.sf(critical, seeds - 1)), _HIGHEST))
        inside &= t <= critical
    return tuple(levels)


def decide(
    values: Sequence[float],
    looks: Sequence[int],
    margins: tuple[float, float],
    max_seeds: int = 9,
    level: float = 0.95,
    spending: str = POCOCK,
) -> Look:
    """Decided, or go on: the verdict of a growing study at its latest look.

    The interval is a t interval at the nominal level of the look (`look_levels`). A verdict is
    false only if the interval misses the truth, so at most 1 - level of all studies ever stop
    with a false one. Only the order of values matters, that later seeds come behind earlier ones.
    Claims are not corrected for each other.

    Args:
        values: one for each seed: log multipliers, or paired differences of losses, arm minus
            reference.
        looks: numbers of seeds at the looks taken so far; the last is the number of `values`.
        margins: lower and upper, on the scale of `values`: `(math.log(0.9), math.log(1.1))` for
            log multipliers.
        max_seeds: the most seeds that the study may have, named in advance.
        level: of all looks together.
        spending: see `spent_error`.

    Raises:
        InputError: a value that is not finite, a number of values that is not that of the last
            look, margins that are not finite and ascending, or as `look_levels`.

    Examples:
        >>> look = decide([0.31, 0.33, 0.32], [3], (math.log(0.9), math.log(1.1)))
        >>> look.name, look.decided, f"{math.exp(look.low):.2f} to {math.exp(look.high):.2f}"
        ('worth its compute', True, '1.33 to 1.43')

    References:
        As `look_levels`.
    """
    nominal = look_levels(looks, max_seeds, level, spending)[-1]
    sample = np.asarray(values, np.float64)
    if sample.shape != (looks[-1],):
        raise InputError(
            f"the last look is at {looks[-1]} seeds, but values have the shape {sample.shape}"
        )
    if not np.isfinite(sample).all():
        place = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise InputError(f"values[{place}] is {sample[place]}; leave the seed out or repair it")
    read_margins(margins)
    mean = float(sample.mean())
    low = high = mean
    if np.ptp(sample) > 0:
        low, high = map(float, DescrStatsW(sample).tconfint_mean(1 - nominal))
    name = name_interval(low, high, margins)
    decided = name != UNDECIDED
    finished = decided or sample.size == max_seeds
    return Look(sample.size, name, decided, finished, mean, low, high, nominal)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A comparison that more seeds could decide.

    Attributes:
        label: of the comparison, for instance (arm, size).
        mean: of the values seen so far, log multipliers or paired differences of losses.
        deviation: of the values of single seeds.
        looks: numbers of seeds at the looks taken so far.
        core_hours: that the added seeds cost together, the reference's runs included where they
            are missing.
    """

    label: object
    mean: float
    deviation: float
    looks: tuple[int, ...]
    core_hours: float


def chance_to_decide(
    candidate: Candidate,
    margins: tuple[float, float],
    added: int = 2,
    max_seeds: int = 9,
    level: float = 0.95,
    spending: str = POCOCK,
) -> float:
    """The predictive probability that the next look decides.

    The future mean is distributed about the mean seen as Student's t with n - 1 degrees of
    freedom and the scale deviation * (1/n - 1/(n + added))^(1/2), which allows for what the mean
    seen does not know. The spread is taken to stay.

    Args:
        candidate: with at least two seeds.
        margins: lower and upper, on the scale of the candidate's mean.
        added: seeds until the next look.
        max_seeds: as `decide`.
        level: as `decide`.
        spending: as `decide`.

    Returns:
        From 0 to 1.

    Raises:
        InputError: as `look_levels` for the looks and the next one; margins as `decide`.

    References:
        Spiegelhalter, Freedman, Blackburn 1986, Controlled Clinical Trials 7(1) (predictive
        power).
    """
    bottom, top = read_margins(margins)
    seeds, later = candidate.looks[-1], candidate.looks[-1] + added
    nominal = look_levels((*candidate.looks, later), max_seeds, level, spending)[-1]
    critical = scipy.stats.t.isf((1 - nominal) / 2, later - 1)
    half = critical * candidate.deviation / math.sqrt(later)
    scale = candidate.deviation * math.sqrt(1 / seeds - 1 / later)
    if scale == 0:
        return float(name_interval(candidate.mean, candidate.mean, margins) != UNDECIDED)
    future = scipy.stats.t(seeds - 1, candidate.mean, scale)
    between = future.cdf(top - half) - future.cdf(bottom + half) if 2 * half < top - bottom else 0
    return float(future.sf(top + half) + future.cdf(bottom - half) + between)


def choose_next(
    candidates: Sequence[Candidate],
    margins: tuple[float, float],
    added: int = 2,
    max_seeds: int = 9,
    level: float = 0.95,
    spending: str = POCOCK,
) -> Candidate | None:
    """The comparison whose next seeds decide most per core-hour.

    Args:
        candidates: those that are not decided.
        margins: as `chance_to_decide`, and so the other arguments.
        added: seeds until the next look.
        max_seeds: candidates that would pass it are left out.
        level: of all looks together.
        spending: see `spent_error`.

    Returns:
        The one with the highest `chance_to_decide` over core-hours, the first of equals; None
        where none may have so many more seeds.

    Raises:
        InputError: core-hours that are not positive and finite, or as `chance_to_decide`.
    """

    def rate(candidate: Candidate) -> float:
        chance = chance_to_decide(candidate, margins, added, max_seeds, level, spending)
        return chance / candidate.core_hours

    for candidate in candidates:
        if not (math.isfinite(candidate.core_hours) and candidate.core_hours > 0):
            raise InputError(
                f"{candidate.label}: core_hours is {candidate.core_hours}, expected a positive "
                "finite number"
            )
    open_ones = [c for c in candidates if c.looks[-1] + added <= max_seeds]
    return max(open_ones, key=rate, default=None)
