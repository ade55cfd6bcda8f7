import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from undivided_tf.errors import InputError
from undivided_tf.metrics import inference


def test_interval_of_two_values_has_a_closed_form():
    # With one degree of freedom Student's t is Cauchy's distribution, quantile tan(pi (p - 1/2)).
    summary = inference.summarize([0.6, 0.8])
    reach = math.tan(math.pi * 0.475) * 0.1
    assert summary["mean"] == pytest.approx(0.7)
    assert summary["deviation"] == pytest.approx(math.sqrt(0.02))
    assert summary["median"] == pytest.approx(0.7)
    assert summary["n"] == 2
    assert summary["low"] == pytest.approx(0.7 - reach)
    assert summary["high"] == pytest.approx(0.7 + reach)


def test_interval_covers_the_true_mean_nineteen_times_in_twenty():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    summaries = [inference.summarize(sample) for sample in samples]
    covered = np.mean([summary["low"] <= 3.0 <= summary["high"] for summary in summaries])
    assert 0.93 < covered < 0.97


def test_one_value_has_no_spread():
    summary = inference.summarize([0.5])
    assert (summary["mean"], summary["median"], summary["n"]) == (0.5, 0.5, 1)
    assert summary["deviation"] is summary["low"] is summary["high"] is None


@settings(max_examples=25)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-1e3, 1e3))
def test_shifting_the_values_shifts_mean_and_interval(values, shift):
    before = inference.summarize(values)
    after = inference.summarize([value + shift for value in values])
    for key in ("mean", "median", "low", "high"):
        assert after[key] == pytest.approx(before[key] + shift, abs=1e-6)
    assert after["deviation"] == pytest.approx(before["deviation"], abs=1e-6)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(InputError, match="values"):
        inference.summarize(values)


def test_permutation_test_counts_the_changes_of_sign():
    # All differences positive: only the sample itself and its mirror image are as extreme.
    assert inference.permutation_test([1.0, 2.0, 3.0, 4.0]) == pytest.approx(2 / 2**4)
    assert inference.permutation_test([1.0, -1.0]) == 1.0
    assert inference.permutation_test([7.0]) == 1.0


def test_permutation_test_agrees_with_an_enumeration():
    differences = np.array([0.3, -0.1, 0.4, 0.2, -0.05, 0.6])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    means = np.abs((signs * differences).mean(axis=1))
    expected = np.mean(means >= abs(differences.mean()) - 1e-12)
    assert inference.permutation_test(differences) == pytest.approx(expected)


def test_holm_on_the_textbook_case():
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.9, 0.8]) == [1.0, 1.0]


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_nor_reorders(p_values):
    adjusted = inference.holm(p_values)
    assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_equivalence_agrees_with_the_interval_of_twice_the_level():
    # TOST rejects at 5 % just when the 90 % interval lies inside the margin.
    differences = np.random.default_rng(1).normal(0.2, 1.0, 12)
    mean, error = differences.mean(), differences.std(ddof=1) / 12**0.5
    edge = abs(mean) + scipy.stats.t.ppf(0.95, 11) * error
    assert inference.equivalence_test(differences, edge * 1.0001) < 0.05
    assert inference.equivalence_test(differences, edge * 0.9999) > 0.05
    with pytest.raises(InputError, match="margin must be positive"):
        inference.equivalence_test(differences, 0.0)


def test_above_test_without_spread_or_repetition():
    assert inference.above_test([0.5, 0.5], 0.4) == 0.0
    assert inference.above_test([0.5, 0.5], 0.5) == 1.0
    assert inference.above_test([0.5], 0.0) == 1.0


def test_detectable_difference_by_the_noncentral_t():
    for n in (2, 3, 6, 30, 400):
        critical = scipy.stats.t.ppf(0.975, n - 1)
        effect = inference.detectable_difference(1.0, n)
        power = scipy.stats.nct.sf(critical, n - 1, effect * n**0.5)
        assert power == pytest.approx(0.8, abs=1e-9)


def test_detectable_difference_has_the_power_it_claims():
    effect = inference.detectable_difference(2.0, 6)
    samples = np.random.default_rng(2).normal(effect, 2.0, (4000, 6))
    rejected = np.mean(scipy.stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05)
    assert rejected == pytest.approx(0.8, abs=0.02)
    assert inference.detectable_difference(2.0, 1) is None


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 156), (0.5, 27), (0.8, 12)])
def test_pairs_needed_are_those_of_the_tables(effect, pairs):
    """One sample, one-sided, 5 %, power 0.8: Cohen's small, medium and large effect."""
    assert inference.pairs_needed(2.0, 2.0 * effect) == pairs


def test_pairs_needed_have_the_power_they_claim():
    n = inference.pairs_needed(1.0, 0.7)
    draws = np.random.default_rng(0).normal(0, 1, (4000, n))
    tests = scipy.stats.ttest_1samp(draws, -0.7, axis=1, alternative="greater")
    assert 0.78 < np.mean(tests.pvalue < 0.05) < 0.87


@pytest.mark.parametrize(("deviation", "pairs"), [(0.0, 2), (1e-9, 2), (1e-3, 2), (50.0, None)])
def test_pairs_needed_at_the_ends(deviation, pairs):
    assert inference.pairs_needed(deviation, 0.01) == pairs


def test_bootstrap_interval_brackets_the_mean_and_repeats():
    values = [0.1, 0.4, 0.2, 0.5, 0.3]
    low, high = inference.bootstrap_interval(values)
    assert min(values) <= low < 0.3 < high <= max(values)
    assert inference.bootstrap_interval(values) == (low, high)
    assert inference.bootstrap_interval([1.0]) is None


@pytest.mark.parametrize(("successes", "trials"), [(0, 9), (3, 9), (9, 9), (1, 1), (700, 1000)])
def test_the_interval_of_a_share_is_scipy_s(successes, trials):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    found = inference.wilson_interval(successes, trials)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    if successes < trials:
        low, high = inference.wilson_interval(successes + 0.5, trials)
        assert found[0] < low < (successes + 0.5) / trials < high


def test_bound_of_a_ratio_is_that_of_the_normal_approximation():
    """Of many rows with unequal weights: the delta method, mean + 1.645 deviations."""
    generator = np.random.default_rng(3)
    weights = generator.integers(1, 20, 3000)
    sums = weights * 0.5 + generator.normal(0, 4, 3000)
    ratio = sums.sum() / weights.sum()
    residual = sums - ratio * weights
    error = residual.std() * 3000**0.5 / weights.sum()
    bound = inference.bootstrap_upper_bound(sums, weights)
    assert bound == pytest.approx(ratio + 1.645 * error, abs=0.1 * error)
    assert inference.bootstrap_upper_bound(-sums, weights) < 0
    low, high = inference.bootstrap_ratio_interval(sums, weights)
    assert low == pytest.approx(ratio - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(ratio + 1.96 * error, abs=0.1 * error)
    assert low < bound < high


def test_bound_of_a_ratio_is_unknown_for_one_row_and_exact_without_spread():
    assert inference.bootstrap_upper_bound([1.0], [2.0]) is None
    assert inference.bootstrap_upper_bound([1.0, 3.0], [2.0, 6.0]) == pytest.approx(0.5)
    assert inference.bootstrap_ratio_interval([1.0], [2.0]) is None
    assert inference.bootstrap_ratio_interval([1.0, 3.0], [2.0, 6.0]) == pytest.approx((0.5, 0.5))
    with pytest.raises(InputError, match="rows need two equal lengths, got 2 and 1"):
        inference.bootstrap_upper_bound([1.0, 2.0], [1.0])
