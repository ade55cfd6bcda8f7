"""The joint fit of losses, on laws whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest

from undivided_tf.errors import InputError
from undivided_tf.study import worth

E, A, a, B, b = 1.8, 30.0, 0.25, 200.0, 0.25
SIZES = {"tiny": 5e5, "small": 1.5e6, "medium": 4e6, "large": 1e7}
TOKENS = (2e6, 4e6, 8e6, 1.6e7, 3.2e7)
LAWS = {"full": (A, a, B, b, 1.0), "without": (31.0, a, 186.0, b, 0.5)}
BUDGET = 6 * SIZES["medium"] * 1.6e7


def losses(seed=0, seeds=3, pair=0.003, noise=0.003, effect=0.01, laws=LAWS):
    """Losses of both arms: effects of the seed, of seed and size, of each training, and noise."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 2 * effect, seeds)
    rows = []
    for size, full in SIZES.items():
        for s in range(seeds):
            own = common[s] + generator.normal(0, effect)
            for arm, (height, power, width, rate, share) in laws.items():
                n, shift = full * share, own + generator.normal(0, pair)
                for d in TOKENS:
                    loss = E + height * n**-power + width * d**-rate + shift
                    loss += generator.normal(0, noise)
                    rows.append((arm, size, s, n, d, 6 * n * d, loss))
    columns = ["arm", "size", "seed", "parameters", "tokens", "flops", "loss"]
    return pd.DataFrame(rows, columns=columns)


def truth():
    """The multiplier at medium size and `BUDGET`, by solving the law for the arm's tokens."""
    n, (height, power, width, rate, share) = SIZES["medium"], LAWS["without"]
    loss = E + A * n**-a + B * 1.6e7**-b
    tokens = ((loss - E - height * (n * share) ** -power) / width) ** (-1 / rate)
    return 6 * n * share * tokens / BUDGET


@pytest.fixture(scope="module")
def fit():
    return worth.fit_jointly(losses(), "full", resamples=59)


def test_a_law_without_noise_is_found():
    clean = losses(pair=0.0, noise=0.0, effect=0.0).sample(frac=1, random_state=0)
    found = worth.fit_jointly(clean, "full", resamples=19)
    assert found.arms == ("full", "without")
    for arm, (height, power, width, rate, _) in LAWS.items():
        expected = [E, height, power, width, rate]
        assert found.coefficients.loc[arm].tolist() == pytest.approx(expected, rel=1e-3)
        assert found.separate.loc[arm].tolist() == pytest.approx(expected, rel=1e-2)
    assert found.points["residual"].abs().max() < 1e-6
    (multiplier,) = found.multiplier("without", "medium", [BUDGET])
    assert multiplier.value == pytest.approx(truth(), rel=1e-4)


def test_the_law_is_fitted_to_noisy_losses(fit):
    (found,) = fit.multiplier("without", "medium", [BUDGET])
    assert found.value == pytest.approx(truth(), rel=0.03)
    assert found.low < found.value < found.high < found.value * 1.2
    low, high = fit.interval()
    assert ((low < fit.coefficients) & (fit.coefficients < high)).all(axis=None)
    assert fit.p_separate > 0.05
    assert (fit.coefficients[["E", "a", "b"]].nunique() == 1).all()
    assert (fit.separate[["a", "b"]].nunique() == 2).all()


def test_residuals_are_those_of_log_losses(fit):
    points = fit.points
    row = fit.coefficients.loc[points["arm"]].reset_index(drop=True)
    expected = (
        row["E"]
        + row["A"] * points["parameters"] ** -row["a"]
        + row["B"] * points["tokens"] ** -row["b"]
    )
    assert points["fitted"].to_numpy() == pytest.approx(expected.to_numpy())
    residual = np.log(points["loss"] / expected)
    assert points["residual"].to_numpy() == pytest.approx(residual.to_numpy())


def test_other_exponents_are_noticed():
    laws = LAWS | {"without": (31.0, a, 270.0, b + 0.02, 0.5)}
    found = worth.fit_jointly(losses(laws=laws), "full", shared=False, resamples=59)
    assert found.p_separate < 0.05 and not found.shared
    pd.testing.assert_frame_equal(found.coefficients, found.separate)
    assert found.separate.loc["without", "b"] > found.separate.loc["full", "b"] + 0.01


def test_interpolated_and_fitted_stand_side_by_side(fit):
    table = fit.compare("without", "medium", [BUDGET, 1e20])
    assert table["budget"].tolist() == [BUDGET, 1e20]
    assert table["agree"].tolist() == [True, False]
    own = fit.multiplier("without", "medium", [BUDGET])[0]
    assert table.loc[0, ["fitted", "fitted_low", "fitted_high"]].tolist() == [
        own.value,
        own.low,
        own.high,
    ]
    assert table.loc[0, "interpolated"] == pytest.approx(truth(), rel=0.05)
    assert math.isnan(table.loc[1, "fitted"]) and math.isnan(table.loc[1, "interpolated"])


def test_the_fit_is_read_within_the_points_alone(fit):
    outside, below = fit.multiplier("without", "medium", [1e20, BUDGET / 7.9])
    assert "outside the reference's points" in outside.reason and math.isnan(outside.value)
    assert "outside its points" in below.reason and math.isnan(below.value)
    with pytest.raises(InputError, match="no point of arm 'full' at size 'huge'"):
        fit.multiplier("without", "huge", [BUDGET])


def test_the_order_of_rows_does_not_matter(fit):
    shuffled = losses().sample(frac=1, random_state=0)
    again = worth.fit_jointly(shuffled, "full", resamples=59)
    np.testing.assert_allclose(again.samples, fit.samples, rtol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="flops"), r"lack the columns \['flops'\]"),
        (
            lambda t: t.assign(loss=t["loss"].where(t.index != 7, math.nan)),
            "loss of arm without, size tiny, seed 0 is nan",
        ),
        (lambda t: t.assign(tokens=-t["tokens"]), "tokens of arm full"),
        (lambda t: t[t["arm"] == "full"], "and another arm"),
        (lambda t: t.assign(arm=t["arm"].replace("full", "whole")), "the reference 'full'"),
        (lambda t: t[t["seed"] == 0], "at least two seeds"),
        (lambda t: t[t["size"].isin(["tiny", "small"])], "2 sizes"),
        (lambda t: t[t["tokens"] < 5e6], "2 budgets"),
        (lambda t: t.assign(flops=t["flops"] ** 1.1), "FLOPs a token"),
        (
            lambda t: t[(t["seed"] == 0) | (t["size"] == "tiny")],
            "run the same seeds at each",
        ),
    ],
)
def test_bad_points_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        worth.fit_jointly(change(losses()), "full")


def test_too_few_resamples_are_refused():
    with pytest.raises(InputError, match="at least 19, got 18"):
        worth.fit_jointly(losses(), "full", resamples=18)


@pytest.mark.slow
@pytest.mark.long
def test_intervals_of_the_fit_cover_the_truth():
    """Few studies, since each is fitted a hundred times: the bounds are what 200 leave open."""
    found = [worth.fit_jointly(losses(s), "full", resamples=49) for s in range(200)]
    multipliers = [one.multiplier("without", "medium", [BUDGET])[0] for one in found]
    covered = np.mean([one.low <= truth() <= one.high for one in multipliers])
    assert 0.90 <= covered <= 0.99, covered
    rejected = np.mean([one.p_separate < 0.05 for one in found])
    assert rejected <= 0.10, rejected
