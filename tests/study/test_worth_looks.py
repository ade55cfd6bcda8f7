"""Growing studies: the error over all looks, by simulated studies, and what is added next."""

import math

import numpy as np
import pytest
import scipy.stats

from undivided_tf.errors import InputError
from undivided_tf.study import worth
from undivided_tf.study.worth.sequential import (
    LOOKS,
    OBRIEN_FLEMING,
    POCOCK,
    SPENDINGS,
    spent_error,
)
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, UNDECIDED, WORTH

MARGINS = (math.log(0.9), math.log(1.1))


def stops(generator, mean, deviation, studies=1000, spending=POCOCK):
    """The last look of each of many simulated studies, which stop when they have decided."""
    values = generator.normal(mean, deviation, (studies, LOOKS[-1]))
    found = []
    for sample in values:
        for i, seeds in enumerate(LOOKS):
            look = worth.decide(sample[:seeds], LOOKS[: i + 1], MARGINS, spending=spending)
            if look.finished:
                break
        found.append(look)
    return found


def misses(levels, studies=1000, seed=1):
    """Share of studies whose interval misses the truth at any look."""
    values = np.random.default_rng(seed).standard_normal((studies, LOOKS[-1]))
    missed = np.zeros(studies, bool)
    for seeds, level in zip(LOOKS, levels, strict=True):
        p = scipy.stats.ttest_1samp(values[:, :seeds], 0.0, axis=1).pvalue
        missed |= p < 1 - level
    return missed.mean()


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_all_looks_together_miss_the_truth_as_often_as_the_level_says(spending, level):
    studies = 200_000
    error = misses(worth.look_levels(LOOKS, 9, level, spending), studies)
    assert error == pytest.approx(1 - level, abs=4 * math.sqrt(level * (1 - level) / studies))


def test_intervals_of_single_looks_would_miss_too_often():
    assert misses([0.95] * len(LOOKS), 200_000) > 0.09


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("deviation", [0.02, 0.06, 0.15])
def test_false_decisions_of_1000_studies_with_no_difference(spending, deviation):
    found = stops(np.random.default_rng(0), 0.0, deviation, spending=spending)
    assert sum(look.name in (WORTH, HARMFUL) for look in found) <= 50
    if deviation == 0.02:
        assert sum(look.name == DISPENSABLE for look in found) > 950


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("deviation", [0.02, 0.06])
def test_false_decisions_of_1000_studies_at_the_margin(spending, deviation, side):
    """At the margin the blocks are dispensable, a hair beyond they are not."""
    found = stops(np.random.default_rng(side), MARGINS[side], deviation, spending=spending)
    beyond = sum(look.name in (WORTH, HARMFUL) for look in found)
    within = sum(look.name == DISPENSABLE for look in found)
    assert beyond <= 50 and within <= 50


def test_studies_with_a_difference_stop_early():
    found = stops(np.random.default_rng(0), math.log(1.3), 0.03)
    assert sum(look.name == WORTH for look in found) > 950
    assert np.mean([look.seeds for look in found]) < 5


def test_the_first_look_is_students_interval_at_the_level_that_was_spent():
    values = [0.10, 0.16, 0.13]
    look = worth.decide(values, [3], MARGINS)
    assert 1 - look.level == pytest.approx(0.05 * math.log(1 + (math.e - 1) / 3))
    expected = scipy.stats.t.interval(look.level, 2, np.mean(values), scipy.stats.sem(values))
    assert (look.low, look.high) == pytest.approx(expected)
    assert (look.name, look.decided, look.finished, look.seeds) == (UNDECIDED, False, False, 3)


def test_a_study_with_all_its_seeds_is_finished_undecided_or_not():
    values = [0.09, 0.10, 0.11] * 3
    look = worth.decide(values, LOOKS, MARGINS)
    assert (look.name, look.decided, look.finished) == (UNDECIDED, False, True)


def test_the_level_of_a_look_does_not_depend_on_later_looks():
    levels = worth.look_levels(LOOKS)
    for i in range(1, len(LOOKS)):
        assert worth.look_levels(LOOKS[:i]) == levels[:i]


def test_normal_boundaries_of_large_samples():
    """Four equal looks, O'Brien-Fleming type, in Lan and DeMets's program ldBounds."""
    levels = worth.look_levels((25, 50, 75, 100), 100, 0.95, OBRIEN_FLEMING)
    z = scipy.stats.norm.isf((1 - np.array(levels)) / 2)
    assert z == pytest.approx([4.333, 2.963, 2.359, 2.014], abs=0.03)


@pytest.mark.parametrize("spending", SPENDINGS)
def test_all_of_the_error_is_spent_at_the_end_and_not_more(spending):
    spent = spent_error(np.linspace(0.01, 1, 100), 0.9, spending)
    assert (np.diff(spent) > 0).all() and spent[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worth.look_levels(()), "ascending"),
        (lambda: worth.look_levels((3, 3)), "ascending"),
        (lambda: worth.look_levels((1, 3)), "from 2"),
        (lambda: worth.look_levels((3, 11), 9), "beyond max_seeds=9"),
        (lambda: worth.look_levels((3,), level=1.0), "level must be between"),
        (lambda: worth.look_levels((3,), spending="late"), "one of pocock, obrien_fleming"),
        (lambda: worth.decide([0.1, 0.2], [3], MARGINS), "last look is at 3 seeds"),
        (lambda: worth.decide([0.1, 0.2, math.nan], [3], MARGINS), r"values\[2\] is nan"),
    ],
)
def test_bad_looks_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def candidate(label="a", mean=0.15, deviation=0.03, looks=(3,), core_hours=1.0):
    return worth.Candidate(label, mean, deviation, looks, core_hours)


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.12, 0.2])
def test_the_chance_to_decide_is_that_of_simulated_futures(mean):
    """Draw true mean and spread given the sample, then the new seeds, then look."""
    one = candidate(mean=mean, deviation=0.02)
    generator = np.random.default_rng(0)
    # The spread is held, as the formula does; the mean has Student's distribution.
    later = one.mean + generator.standard_t(2, 20_000) * one.deviation * math.sqrt(1 / 3 - 1 / 5)
    critical = scipy.stats.t.isf((1 - worth.look_levels((3, 5))[-1]) / 2, 4)
    half = critical * one.deviation / math.sqrt(5)
    decided = [worth.name_interval(m - half, m + half, MARGINS) != UNDECIDED for m in later]
    assert worth.chance_to_decide(one, MARGINS) == pytest.approx(np.mean(decided), abs=0.012)


def test_without_spread_the_next_look_decides_or_never_does():
    assert worth.chance_to_decide(candidate(mean=0.2, deviation=0.0), MARGINS) == 1.0
    assert worth.chance_to_decide(candidate(mean=0.0, deviation=0.0), MARGINS) == 1.0


def test_next_is_what_decides_most_per_core_hour():
    near, far = candidate("near", mean=0.11), candidate("far", mean=0.25)
    cheap = candidate("cheap", mean=0.25, core_hours=0.5)
    full = candidate("full", mean=0.25, core_hours=0.1, looks=(3, 5, 7, 9))
    assert worth.choose_next([near, far], MARGINS).label == "far"
    assert worth.choose_next([near, far, cheap, full], MARGINS).label == "cheap"
    assert worth.choose_next([full], MARGINS) is None
    with pytest.raises(InputError, match="near: core_hours is 0"):
        worth.choose_next([candidate("near", core_hours=0.0)], MARGINS)
