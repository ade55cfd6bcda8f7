import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.errors import InputError
from undivided_tf.metrics import statistics


def test_interval_of_two_values_has_a_closed_form():
    # With one degree of freedom Student's t is Cauchy's distribution, quantile tan(pi (p - 1/2)).
    summary = statistics.summarize([0.6, 0.8])
    reach = math.tan(math.pi * 0.475) * 0.1
    assert summary["mean"] == pytest.approx(0.7)
    assert summary["deviation"] == pytest.approx(math.sqrt(0.02))
    assert summary["median"] == pytest.approx(0.7)
    assert summary["n"] == 2
    assert summary["low"] == pytest.approx(0.7 - reach)
    assert summary["high"] == pytest.approx(0.7 + reach)


def test_interval_covers_the_true_mean_nineteen_times_in_twenty():
    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    summaries = [statistics.summarize(sample) for sample in samples]
    covered = np.mean([summary["low"] <= 3.0 <= summary["high"] for summary in summaries])
    assert 0.93 < covered < 0.97


def test_one_value_has_no_spread():
    summary = statistics.summarize([0.5])
    assert (summary["mean"], summary["median"], summary["n"]) == (0.5, 0.5, 1)
    assert summary["deviation"] is summary["low"] is summary["high"] is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-1e3, 1e3))
def test_shifting_the_values_shifts_mean_and_interval(values, shift):
    before = statistics.summarize(values)
    after = statistics.summarize([value + shift for value in values])
    for key in ("mean", "median", "low", "high"):
        assert after[key] == pytest.approx(before[key] + shift, abs=1e-6)
    assert after["deviation"] == pytest.approx(before["deviation"], abs=1e-6)


def test_pairing_removes_what_the_pairs_share():
    shared = np.array([0.1, 0.5, 0.9])
    difference = statistics.paired_difference(shared + [0.02, 0.03, 0.01], shared)
    assert difference["mean"] == pytest.approx(0.02)
    assert difference["deviation"] == pytest.approx(0.01)
    assert difference["low"] == pytest.approx(0.02 - 4.30265273 * 0.01 / math.sqrt(3))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(InputError, match="values"):
        statistics.summarize(values)


def test_unequal_pairs_are_refused():
    with pytest.raises(InputError, match="3 and 2"):
        statistics.paired_difference([1, 2, 3], [1, 2])
