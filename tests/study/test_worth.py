"""Compute multipliers, crossovers and verdicts, on curves whose truth is known."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf.errors import InputError
from undivided_tf.study import worth
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, MARGINS, UNDECIDED, WORTH

BUDGETS = np.geomspace(1e14, 3.2e15, 6)
WITHIN = (4e14, 8e14, 1.6e15)  # FLOPs of the reference at which multipliers are read.


def law(flops, multiplier=1.0):
    """Loss of an arm that needs `multiplier` times the compute of the reference."""
    return 2 + 60 * (np.asarray(flops) / multiplier) ** -0.12


def exact(multiplier, seeds=3, budgets=BUDGETS):
    return {s: list(zip(budgets, law(budgets, multiplier), strict=True)) for s in range(seeds)}


def made_up_study(generator, seeds, multiplier, pair=0.005, noise=0.003, shared=True):
    """Both arms: an effect of the seed, one of the seed and arm, and noise of each point."""
    arms = []
    effects = generator.normal(0, 0.02, seeds)
    for truth in (1.0, multiplier):
        if not shared:
            effects = generator.normal(0, 0.02, seeds)
        losses = (
            law(BUDGETS, truth)
            + (effects + generator.normal(0, pair, seeds))[:, None]
            + generator.normal(0, noise, (seeds, len(BUDGETS)))
        )
        first = 0 if shared or not arms else 100
        arms.append({first + s: np.stack([BUDGETS, losses[s]], axis=1) for s in range(seeds)})
    return arms


def coverage(studies, seeds, multiplier, level=0.95, budgets=WITHIN, **kwargs):
    """Share of studies whose interval covers the truth, at each budget."""
    generator = np.random.default_rng(0)
    covered = np.array(
        [
            [
                found.low <= multiplier <= found.high
                for found in worth.compute_multiplier(
                    *made_up_study(generator, seeds, multiplier, **kwargs), budgets, level
                )
            ]
            for _ in range(studies)
        ]
    )
    return covered.mean(axis=0)


@pytest.mark.parametrize("truth", [0.4, 0.93, 1.0, 1.3])
def test_the_multiplier_of_exact_curves(truth):
    for found in worth.compute_multiplier(exact(1.0), exact(truth), WITHIN):
        assert found.value == pytest.approx(truth, rel=1e-3)
        assert found.low == found.value == found.high
        assert (found.seeds, found.level, found.reason) == (3, 0.95, "")


def test_equal_curves_have_the_multiplier_one_at_every_budget():
    found = worth.compute_multiplier(exact(1.0), exact(1.0), BUDGETS)
    assert [one.budget for one in found] == list(BUDGETS)
    assert [one.value for one in found] == pytest.approx([1.0] * len(BUDGETS), rel=1e-9)


def test_points_in_any_order_and_form():
    study = made_up_study(np.random.default_rng(1), 3, 0.93)
    expected = worth.compute_multiplier(*study, WITHIN)
    shuffled = [{s: list(map(tuple, rows[::-1])) for s, rows in arm.items()} for arm in study]
    assert worth.compute_multiplier(*shuffled, WITHIN) == expected


@pytest.mark.parametrize("shared", [True, False])
def test_at_both_ends_scipy_gives_the_p_value_of_the_level(shared):
    arms = made_up_study(np.random.default_rng(2), 4, 0.93, shared=shared)
    curves = [
        [
            scipy.interpolate.PchipInterpolator(np.log(rows[:, 0]), rows[:, 1])
            for rows in arm.values()
        ]
        for arm in arms
    ]
    for rows in (rows for arm in arms for rows in arm.values()):
        assert (np.diff(rows[:, 1]) < 0).all()  # Isotonic regression leaves them as they are.
    for found in worth.compute_multiplier(*arms, WITHIN, level=0.9):
        for end in (found.low, found.high):
            ours = [curve(math.log(found.budget)) for curve in curves[0]]
            theirs = [curve(math.log(found.budget * end)) for curve in curves[1]]
            if shared:
                test = scipy.stats.ttest_rel(theirs, ours)
            else:
                test = scipy.stats.ttest_ind(theirs, ours, equal_var=False)
            assert test.pvalue == pytest.approx(0.1, rel=1e-6)
        assert found.low < found.value < found.high


def test_what_a_seed_does_to_both_arms_cancels():
    widths = [
        [math.log(found.high / found.low) for found in worth.compute_multiplier(*study, WITHIN)]
        for study in (
            made_up_study(np.random.default_rng(3), 5, 0.93, shared=shared)
            for shared in (True, False)
        )
    ]
    assert max(widths[0]) < min(widths[1]) / 2


def test_seeds_of_one_arm_are_left_out_beside_three_pairs():
    reference, arm = made_up_study(np.random.default_rng(4), 4, 0.93)
    alone = worth.compute_multiplier(reference, {s: arm[s] for s in (0, 1, 2)}, WITHIN)
    assert alone == worth.compute_multiplier(
        {s: reference[s] for s in (0, 1, 2)}, {s: arm[s] for s in (2, 0, 1)}, WITHIN
    )
    assert [found.seeds for found in alone] == [3, 3, 3]


def test_two_pairs_stay_pairs_when_the_reference_has_more_seeds():
    reference, arm = made_up_study(np.random.default_rng(4), 4, 0.93)
    two = {s: arm[s] for s in (0, 1)}
    assert worth.compute_multiplier(reference, two, WITHIN) == worth.compute_multiplier(
        {s: reference[s] for s in (0, 1)}, two, WITHIN
    )


def test_nothing_is_extrapolated():
    reference = exact(1.0)
    outside, early, late = (
        worth.compute_multiplier(reference, arm, [budget])[0]
        for arm, budget in (
            (exact(1.0), 5e15),
            (exact(0.5), 1.2e14),  # The arm is below this loss from its first point.
            (exact(2.0), 3e15),
        )
    )
    assert "outside the reference's curve" in outside.reason
    assert "begins below the loss" in early.reason
    assert "ends above the loss" in late.reason
    assert all(math.isnan(found.value) for found in (outside, early, late))
    assert math.isnan(outside.low) and math.isnan(outside.high) and not outside.is_bounded
    # The ends of the arm's curve: it has the loss at less, or at more, than these.
    assert (early.low, early.high) == (0.0, pytest.approx(BUDGETS[0] / 1.2e14))
    assert (late.low, late.high) == (pytest.approx(BUDGETS[-1] / 3e15), math.inf)


@pytest.mark.parametrize(
    ("truth", "budget", "name"), [(1.5, 2.8e15, WORTH), (0.6, 1.2e14, HARMFUL)]
)
def test_a_multiplier_beyond_the_curve_is_judged_by_the_end_that_is_known(truth, budget, name):
    arms = made_up_study(np.random.default_rng(6), 3, truth, pair=0.001, noise=0.0005)
    (found,) = worth.compute_multiplier(*arms, [budget])
    assert math.isnan(found.value)
    assert worth.judge(found).name == name


def test_the_end_that_is_known_covers_the_truth():
    """A one-sided statement by one end of a 95 % interval fails in 2.5 % of studies."""
    generator, beyond, covered = np.random.default_rng(7), 0, 0
    for _ in range(600):
        arms = made_up_study(generator, 3, 1.15)
        (found,) = worth.compute_multiplier(*arms, [BUDGETS[-1]])
        beyond += math.isnan(found.value)
        covered += found.low <= 1.15 <= found.high
    assert beyond > 500
    assert covered / 600 > 0.95


def test_an_interval_that_leaves_the_curve_has_an_open_end():
    arms = made_up_study(np.random.default_rng(5), 3, 1.0, noise=0.01)
    (found,) = worth.compute_multiplier(*arms, [3e15], level=0.99)
    assert math.isfinite(found.value) and 0 < found.low < found.value
    assert found.high == math.inf and "beyond the arm's curve" in found.reason


def test_a_rise_by_noise_is_levelled():
    """Else the loss between would be reached three times."""
    reference, arm = exact(1.0), exact(0.8)
    for s in arm:
        flops, loss = zip(*arm[s], strict=True)
        loss = list(loss)
        loss[2], loss[3] = loss[3], loss[2]
        arm[s] = list(zip(flops, loss, strict=True))
    found = worth.compute_multiplier(reference, arm, np.geomspace(3e14, 2e15, 30))
    needed = [one.value * one.budget for one in found]
    assert (np.diff(needed) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-6, 6), st.sampled_from([0.5, 0.9, 1.2]))
def test_the_multiplier_has_no_unit_and_is_inverse_to_that_of_swapped_arms(seed, power, truth):
    reference, arm = made_up_study(np.random.default_rng(seed), 3, truth)
    (found,) = worth.compute_multiplier(reference, arm, [8e14])
    factor = np.array([10**power, 1.0])
    scaled = [{s: rows * factor for s, rows in side.items()} for side in (reference, arm)]
    (again,) = worth.compute_multiplier(*scaled, [8e14 * factor[0]])
    assert [again.value, again.low, again.high] == pytest.approx(
        [found.value, found.low, found.high], rel=1e-6
    )
    (inverse,) = worth.compute_multiplier(arm, reference, [8e14 * found.value])
    assert inverse.value == pytest.approx(1 / found.value, rel=1e-6)


def test_intervals_cover_the_truth_in_few_studies():
    assert 0.91 <= coverage(200, 3, 0.93, budgets=[8e14])[0] <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 9])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"pair": 0.0, "noise": 0.02}, {"noise": 0.0}, {"shared": False}],
    ids=["both", "noise of points", "noise of seeds", "no pairs"],
)
def test_intervals_cover_the_truth_in_500_studies(seeds, kwargs):
    found = coverage(500, seeds, 0.93, **kwargs)
    assert (0.92 <= found).all() and (found <= 0.98).all(), found


GOOD = [(1e14, 3.0), (2e14, 2.8)]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({}, r"arm: .*at least two seeds, got \[\]"),
        ({7: GOOD}, r"arm: .*at least two seeds, got \[7\]"),
        ({7: GOOD, 8: GOOD[:1]}, "arm, seed 8: 1 point is no curve"),
        ({7: GOOD, 8: []}, "arm, seed 8: expected pairs"),
        ({7: GOOD, 8: [1.0, 2.0]}, "arm, seed 8: expected pairs"),
        (
            {7: GOOD, 8: [(1e14, 3.0), (2e14, math.nan)]},
            "seed 8, point 1: the loss at 2e.14 .* nan",
        ),
        ({7: GOOD, 8: [(1e14, math.inf), (2e14, 2.0)]}, "seed 8, point 0: the loss .* inf"),
        ({7: GOOD, 8: [(0.0, 3.0), (2e14, 2.0)]}, "seed 8, point 0: training FLOPs are 0.0"),
        ({7: GOOD, 8: [(-1.0, 3.0), (2e14, 2.0)]}, "seed 8, point 0: training FLOPs are -1.0"),
        ({7: GOOD, 8: [(1e14, 3.0), (1e14, 2.0)]}, "seed 8: two points at 1e.14"),
        ({7: GOOD, 8: [(3e14, 3.0), (4e14, 2.0)]}, "no compute in common"),
    ],
)
def test_bad_curves_are_refused(arm, message):
    with pytest.raises(InputError, match=message):
        worth.compute_multiplier(exact(1.0), arm, [1.5e14])
    with pytest.raises(InputError, match=message.replace("arm", "reference", 1)):
        worth.compute_multiplier(arm, exact(1.0), [1.5e14])
    with pytest.raises(InputError, match=message.replace("arm", "arm, size S", 1)):
        worth.crossover({"S": exact(1.0)}, {"S": arm})


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
def test_a_level_outside_0_and_1_is_refused(level):
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        worth.compute_multiplier(exact(1.0), exact(1.0), [1e15], level)
    with pytest.raises(InputError, match="level must be between 0 and 1"):
        worth.crossover({"S": exact(1.0)}, {"S": exact(1.0)}, level)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([], "empty"),
        (1e15, "expected a list"),
        (["many"], "expected a list"),
        ([1e15, 0.0], r"budgets\[1\] is 0.0"),
        ([math.nan], r"budgets\[0\] is nan"),
    ],
)
def test_bad_budgets_are_refused(budgets, message):
    with pytest.raises(InputError, match=message):
        worth.compute_multiplier(exact(1.0), exact(1.0), budgets)


# Crossover. The arm's law is steeper or flatter by a power of its multiplier in compute.

CROSSING = 5e14


def crossing(generator, seeds=3, power=-0.3, pair=0.002, noise=0.002):
    """Arms by size whose losses at equal compute are equal at `CROSSING`.

    Each size is good in a stretch of compute of its own: it has a penalty that is a parabola of
    log compute and 0 in the middle of its stretch.
    """
    middles = {"small": 3e14, "large": 1.2e15}
    effects = generator.normal(0, 0.02, seeds)
    arms = []
    for arm in range(2):
        by_size = {}
        for size, middle in middles.items():
            budgets = middle * np.geomspace(0.25, 4, 7)
            multiplier = (budgets / CROSSING) ** (power * arm)
            losses = law(budgets, multiplier) + 0.02 * np.log(budgets / middle) ** 2
            own = effects + generator.normal(0, pair, seeds)
            noisy = losses + own[:, None] + generator.normal(0, noise, (seeds, len(budgets)))
            by_size[size] = {s: list(zip(budgets, noisy[s], strict=True)) for s in range(seeds)}
        arms.append(by_size)
    return arms


def test_the_crossover_of_exact_frontiers():
    for power, leads in ((-0.3, "above"), (0.3, "below")):
        arms = crossing(np.random.default_rng(0), power=power, pair=0.0, noise=0.0)
        found = worth.crossover(*arms)
        assert found.value == pytest.approx(CROSSING, rel=1e-3)
        assert found.reference_size == found.arm_size == "small"
        assert found.arm_leads == leads and found.shown
        assert found.searched == pytest.approx((7.5e13, 4.8e15))
        assert found.searched[0] < found.low <= found.value <= found.high < found.searched[1]
        swapped = worth.crossover(*arms[::-1])
        assert swapped.value == pytest.approx(found.value, rel=1e-6)
        assert swapped.arm_leads == {"above": "below", "below": "above"}[leads]


def test_arms_may_have_other_sizes():
    reference, arm = crossing(np.random.default_rng(0))
    found = worth.crossover(reference, {"deep": arm["small"], "deeper": arm["large"]})
    assert dataclasses.replace(found, arm_size="small") == worth.crossover(reference, arm)
    assert found.arm_size == "deep"


@pytest.mark.parametrize(("truth", "leads"), [(0.8, "throughout"), (1.25, "nowhere")])
def test_no_crossover_comes_with_the_range_that_was_searched(truth, leads):
    reference, arm = made_up_study(np.random.default_rng(0), 3, truth)
    arm = {s: rows[1:] for s, rows in arm.items()}
    found = worth.crossover({"S": reference}, {"S": arm})
    assert found.value is None and not found.shown
    assert found.searched == pytest.approx((BUDGETS[1], BUDGETS[-1]))
    assert (found.low, found.high) == found.searched
    assert found.arm_leads == leads


def test_a_change_of_sign_by_noise_is_open_on_both_sides():
    for seed in range(20):
        reference, arm = made_up_study(np.random.default_rng(seed), 3, 1.0, noise=0.02)
        found = worth.crossover({"S": reference}, {"S": arm}, level=0.999)
        if found.value is not None:
            assert (found.low, found.high) == (0.0, math.inf) and not found.shown
            return
    pytest.fail("no study of 20 changed its sign")


def test_the_frontier_takes_the_best_size_of_the_mean_at_each_compute():
    sizes = {"a": exact(1.0, budgets=[1e14, 1e15]), "b": exact(0.8, budgets=[5e14, 2e15])}
    found = worth.frontier(sizes)
    assert list(found) == [0, 1, 2]
    flops, losses = zip(*found[0], strict=True)
    assert flops == pytest.approx([1e14, 5e14, 1e15, 2e15])
    assert losses[0] == pytest.approx(law(1e14)) and losses[1] == pytest.approx(law(5e14, 0.8))
    assert losses[2] < law(1e15) and losses[3] == pytest.approx(law(2e15, 0.8))


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="reference: expected a mapping from sizes"):
        worth.crossover({}, {"S": exact(1.0)})
    apart = {"a": exact(1.0), "b": {s + 2: rows for s, rows in exact(1.0).items()}}
    with pytest.raises(InputError, match=r"arm: sizes \['a', 'b'\] have the seeds \[2\]"):
        worth.crossover(apart | {"b": exact(1.0)}, apart)
    with pytest.raises(InputError, match="no compute in common"):
        worth.crossover({"a": exact(1.0)}, {"a": exact(1.0, budgets=BUDGETS * 100)})


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_crossover_is_covered_in_500_studies(seeds):
    generator = np.random.default_rng(0)
    found = [worth.crossover(*crossing(generator, seeds)) for _ in range(500)]
    covered = np.mean([one.low <= CROSSING <= one.high for one in found if one.value])
    assert sum(one.shown for one in found) > 450
    assert 0.92 <= covered <= 0.98, covered


# Verdicts.


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (np.nextafter(1.10, 2), 1.3, WORTH),
        (1.10, 1.3, UNDECIDED),  # The margin itself does not matter.
        (0.90, 1.10, DISPENSABLE),
        (1.10, 1.10, DISPENSABLE),
        (np.nextafter(0.90, 0), 1.10, UNDECIDED),
        (0.90, np.nextafter(1.10, 2), UNDECIDED),
        (0.5, np.nextafter(0.90, 0), HARMFUL),
        (0.5, 0.90, UNDECIDED),
        (0.5, 1.5, UNDECIDED),
        (1.2, math.inf, WORTH),
        (0.0, 0.8, HARMFUL),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_the_margins_belong_to_dispensable(low, high, name):
    assert worth.name_interval(low, high, MARGINS) == name
    value = low if math.isnan(low) else (low + min(high, 9.0)) / 2
    found = worth.judge(worth.Multiplier(1e15, value, low, high, 0.95, 3))
    assert found.name == name
    if name != UNDECIDED:
        assert found.seeds_needed is None and not found.reason


@pytest.mark.parametrize("margins", [(1.1, 0.9), (0.9, 0.9), (0.9, math.inf), (math.nan, 1.1)])
def test_margins_that_do_not_ascend_are_refused(margins):
    for call in (
        lambda: worth.name_interval(0.9, 1.0, margins),
        lambda: worth.seeds_needed(1.0, 0.1, margins),
        lambda: worth.decide([0.1, 0.2, 0.3], [3], margins),
    ):
        with pytest.raises(InputError, match="margins must be finite and ascending"):
            call()
    with pytest.raises(InputError, match="must be positive"):
        worth.judge(worth.Multiplier(1e15, 1.0, 0.9, 1.1, 0.95, 3), (-0.1, 1.1))


def test_an_undecided_verdict_says_how_many_seeds_would_decide():
    rng = np.random.default_rng(0)
    reference, arm = made_up_study(rng, 3, 0.97, pair=0.004, noise=0.001)
    (found,) = worth.compute_multiplier(reference, arm, [8e14])
    verdict = worth.judge(found)
    assert verdict.name == UNDECIDED and "covers a margin" in verdict.reason
    # By hand: the half-width of the log multiplier shrinks as t / sqrt(n).
    half = math.log(found.high / found.low) / 2

    def half_width(n):
        return half * scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.t.ppf(0.975, 2) * (3 / n) ** 0.5

    distance = min(abs(math.log(found.value / margin)) for margin in MARGINS)
    assert verdict.seeds_needed > 3
    assert half_width(verdict.seeds_needed) < distance <= half_width(verdict.seeds_needed - 1)


def test_seeds_needed_at_the_ends():
    assert worth.seeds_needed(0.5, 0.0, (-0.1, 0.1)) == 2
    assert worth.seeds_needed(0.1, 0.01, (-0.1, 0.1)) is None
    assert worth.seeds_needed(0.1001, 10.0, (-0.1, 0.1)) is None


def test_an_open_interval_asks_for_longer_curves_and_not_for_seeds():
    found = worth.judge(worth.Multiplier(1e15, 1.0, 0.8, math.inf, 0.95, 3, "it ends"))
    assert (found.name, found.seeds_needed, found.reason) == (UNDECIDED, None, "it ends")
