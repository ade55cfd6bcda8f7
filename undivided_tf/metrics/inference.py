"""Means with intervals, and tests of paired differences; needs no TensorFlow."""

import bisect
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from undivided_tf.errors import InputError

CONFIDENCE = 0.95
POWER = 0.8
_RESAMPLES = 9999
_ROW_RESAMPLES = 1999  # Fewer, since each evaluation resamples thousands of rows.
_MOST_PAIRS = 9999


def summarize(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation and a 95 % Student-t interval of the mean.

    The interval assumes that the values are independent draws from a normal population: runs with
    different seeds, not repeated readings of one run.

    Args:
        values: at least one finite number.

    Returns:
        `mean`, `deviation` (of the sample, divisor n - 1), `median`, `n`, `low` and `high` (the
        interval). `deviation`, `low` and `high` are None for a single value.

    Raises:
        InputError: no value, or a value that is not finite.

    Examples:
        >>> summary = summarize([0.70, 0.72, 0.74])
        >>> f"{summary['mean']:.3f}, from {summary['low']:.3f} to {summary['high']:.3f}"
        '0.720, from 0.670 to 0.770'

    References:
        Student 1908, Biometrika 6(1).
    """
    sample = _finite(values, "values")
    n, mean = sample.size, float(sample.mean())
    deviation = low = high = None
    if n > 1:
        deviation = float(sample.std(ddof=1))
        low, high = map(float, DescrStatsW(sample).tconfint_mean(1 - CONFIDENCE))
    return {
        "mean": mean,
        "deviation": deviation,
        "median": float(np.median(sample)),
        "n": n,
        "low": low,
        "high": high,
    }


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share.

    Args:
        successes: number of successes, up to `trials`; a tie may count one half.
        trials: number of trials, at least one.

    Returns:
        Lower and upper bound, from 0 to 1.

    References:
        Wilson 1927, JASA 22(158).
    """
    low, high = proportion_confint(successes, trials, 1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of the mean; None for fewer than two values.

    Args:
        values: independent repetitions.
        seed: seed of the resampling.

    Raises:
        InputError: as `summarize`.

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    sample = _finite(values, "values")
    if sample.size < 2:
        return None
    generator = np.random.default_rng(seed)
    means = generator.choice(sample, (_RESAMPLES, sample.size)).mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_upper_bound(
    sums: Sequence[float], weights: Sequence[float], seed: int = 0
) -> float | None:
    """One-sided 95 % percentile bootstrap upper bound of a ratio of sums.

    Rows are drawn with replacement. The statistic of a sample is the sum of its `sums` divided by
    the sum of its `weights`. Tokens of a row, which are not independent, stay together.

    Args:
        sums: sum of each row.
        weights: weight of each row, above 0.
        seed: seed of the resampling.

    Returns:
        The 95 % quantile of the ratio; None for fewer than two rows.

    Raises:
        InputError: the lengths differ, or a value is not finite.

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    ratios = _resampled_ratios(sums, weights, seed)
    return None if ratios is None else float(np.quantile(ratios, CONFIDENCE))


def bootstrap_ratio_interval(
    sums: Sequence[float], weights: Sequence[float], seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of a ratio of sums; see `bootstrap_upper_bound`.

    Args:
        sums, weights, seed: as for `bootstrap_upper_bound`.

    Returns:
        Lower and upper bound; None for fewer than two rows.

    Raises:
        InputError: as `bootstrap_upper_bound`.
    """
    ratios = _resampled_ratios(sums, weights, seed)
    if ratios is None:
        return None
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _resampled_ratios(
    sums: Sequence[float], weights: Sequence[float], seed: int
) -> list[float] | None:
    """Ratios of sums over samples of the rows; None for fewer than two rows."""
    totals, counts = _finite(sums, "sums"), _finite(weights, "weights")
    if totals.size != counts.size:
        raise InputError(f"rows need two equal lengths, got {totals.size} and {counts.size}")
    if totals.size < 2:
        return None
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(_ROW_RESAMPLES):
        rows = generator.integers(totals.size, size=totals.size)
        ratios.append(totals[rows].sum() / counts[rows].sum())
    return ratios


def permutation_test(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the hypothesis that the signs of the paired differences are arbitrary.

    All 2^n changes of sign are tried if there are at most 9,999, else 9,999 random ones. With n
    pairs the p-value is at least 2^(1 - n), so five pairs cannot reach 0.05.

    Args:
        differences: one number per pair.
        seed: seed of the random changes of sign.

    Raises:
        InputError: as `summarize`.

    References:
        Fisher 1935, The Design of Experiments, section 21.
    """
    sample = _finite(differences, "differences")
    if sample.size < 2:
        return 1.0
    test = scipy.stats.permutation_test(
        (sample,),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, which control the family-wise error rate.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    p = _finite(p_values, "p_values")
    # Not `multipletests` of statsmodels: it runs the garbage collector at every call, which takes
    # half a second if TensorFlow is loaded.
    order = np.argsort(p, kind="stable")
    stepped = p[order] * (p.size - np.arange(p.size))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def above_test(values: Sequence[float], bound: float) -> float:
    """One-sided p-value of Student's t against the hypothesis that the mean is at most `bound`.

    The p-value is 1.0 for a single value. It is 0 or 1 for several equal values.

    Raises:
        InputError: as `summarize`.
    """
    sample = _finite(values, "values")
    if sample.size < 2:
        return 1.0
    if np.ptp(sample) == 0:
        return float(sample[0] <= bound)
    return float(scipy.stats.ttest_1samp(sample, bound, alternative="greater").pvalue)


def equivalence_test(differences: Sequence[float], margin: float) -> float:
    """P-value of two one-sided t-tests (TOST) against a mean that differs by `margin` or more.

    Args:
        differences: one number per pair.
        margin: the largest difference that does not matter, chosen before the data are seen.

    Raises:
        InputError: the margin is not positive, or as `summarize`.

    References:
        Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6).
    """
    if margin <= 0:
        raise InputError(f"margin must be positive, got {margin}")
    sample = _finite(differences, "differences")
    if sample.size < 2 or np.ptp(sample) == 0:  # statsmodels would divide by 0.
        return max(above_test(sample, -margin), above_test(-sample, -margin))
    return float(DescrStatsW(sample).ttost_mean(-margin, margin)[0])


def detectable_difference(deviation: float, n: int) -> float | None:
    """The smallest mean difference that n pairs detect with power 0.8 at the 5 % level.

    Args:
        deviation: standard deviation of the paired differences.
        n: number of pairs.

    Returns:
        The difference at which a two-sided t-test has power 0.8, in the unit of `deviation`; None
        for fewer than two pairs.

    References:
        Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, ch. 2.
    """
    if n < 2:
        return None
    level = (1 - CONFIDENCE) / 2  # The power of the other tail is negligible.

    def excess(effect: float) -> float:
        return _power(effect, n, level) - POWER

    # statsmodels' own search is exact to six digits only.
    highest = 2 * scipy.stats.t.isf(level, n - 1) + 10
    return deviation * scipy.optimize.brentq(excess, 0.0, highest)


def pairs_needed(deviation: float, margin: float) -> int | None:
    """Number of pairs that reject a loss of `margin` with power 0.8, assuming no true loss.

    Args:
        deviation: standard deviation of the paired differences.
        margin: the loss to reject, above 0, in the same unit.

    Returns:
        The fewest pairs with which a one-sided t-test at 5 % has power 0.8; None for more than
        9,999.

    References:
        Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, ch. 2.
    """
    if deviation == 0:
        return 2

    def enough(n: int) -> bool:
        return _power(margin / deviation, n, 1 - CONFIDENCE) >= POWER

    pairs = 2 + bisect.bisect_left(range(2, _MOST_PAIRS + 1), True, key=enough)
    return pairs if pairs <= _MOST_PAIRS else None


def _power(effect: float, n: int, level: float) -> float:
    """Power of a one-sided t-test of n pairs; `effect` in standard deviations."""
    power = TTestPower().power(effect, n, level, alternative="larger")
    return 1.0 if np.isnan(power) else power  # NaN for a large noncentrality.


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not sample.size:
        raise InputError(f"{name}: expected a list of numbers, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        place = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise InputError(f"{name}[{place}] is {sample[place]}; every value must be finite")
    return sample
