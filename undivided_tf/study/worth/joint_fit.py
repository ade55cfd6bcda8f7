"""One law of loss for all arms, sizes and budgets, and the compute multiplier that it implies."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats

from undivided_tf.errors import InputError
from undivided_tf.study.worth.multiplier import (
    Multiplier,
    check_level,
    compute_multiplier,
    read_budgets,
)

COLUMNS = ("arm", "size", "seed", "parameters", "tokens", "flops", "loss")
_HUBER = 1.345  # In standard deviations: 95 % as efficient as least squares for normal errors.
_EXPONENTS = (0.01, 3.0)


@dataclasses.dataclass(frozen=True)
class JointFit:
    """A fit of L = E + A_arm N^-a + B_arm D^-b to the losses of all arms.

    Attributes:
        arms: names; the first is the reference.
        coefficients: a row an arm, columns `E`, `A`, `a`, `B`, `b`; N in parameters, D in
            tokens, E in nats. With shared exponents `a` and `b` are equal in all rows.
        points: the frame that was fitted, with the columns `fitted` (loss) and `residual` (log
            loss minus log fitted loss).
        shared: whether all arms have the same exponents.
        p_separate: p-value of "all arms have the same exponents"; small where shared exponents do
            not fit, NaN where too few seeds and sizes were run to tell.
        separate: coefficients as above when each arm has exponents of its own.
        samples: coefficients of the bootstrap samples, an array [samples, arms, 5].
        freedom: degrees of freedom of the effects of single cells of seed and size: the number of
            cells less those of sizes and of seeds, plus 1.
    """

    arms: tuple[str, ...]
    coefficients: pd.DataFrame
    points: pd.DataFrame
    shared: bool
    p_separate: float
    separate: pd.DataFrame
    samples: np.ndarray
    freedom: int

    def interval(self, level: float = 0.95) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Lower and upper ends of intervals of the coefficients, shaped as `coefficients`."""
        half = self._half_width(np.log(self.samples), level)
        return self.coefficients * np.exp(-half), self.coefficients * np.exp(half)

    def _half_width(self, samples: np.ndarray, level: float) -> np.ndarray:
        """Student's t times the standard deviation of bootstrap samples (first axis)."""
        check_level(level)
        inflation = _inflation(self.points, self.freedom)
        critical = scipy.stats.t.isf((1 - level) / 2, self.freedom)
        return critical * inflation * np.std(samples, axis=0, ddof=1)

    def multiplier(
        self, arm: str, size: Any, budgets: Iterable[float], level: float = 0.95
    ) -> list[Multiplier]:
        """m(C) of an arm at a size, as the fit implies it.

        The fitted loss of the reference at C is solved for the arm's tokens. The interval is
        that of the log multiplier: Student's t with `freedom` degrees of freedom, times the
        standard deviation of the bootstrap samples (see `fit_jointly`).

        Args:
            arm: not the reference.
            size: one that both have.
            budgets: training FLOPs of the reference.
            level: of the interval.

        Returns:
            One `Multiplier` a budget; NaN with a reason where the budget lies outside the
            reference's points of this size, or the arm's compute outside its own.

        Raises:
            InputError: an unknown arm or size, or as `compute_multiplier` for the others.
        """
        check_level(level)
        rows = [_cell(self.points, name, size) for name in (self.arms[0], arm)]
        k = self.arms.index(arm)
        every = np.concatenate([self.coefficients.to_numpy()[None], self.samples])
        seeds = min(row["seed"].nunique() for row in rows)
        multipliers = []
        for budget in read_budgets(budgets):
            compute = _needed(every[:, 0], every[:, k], *rows, budget)
            value, half = compute[0] / budget, self._half_width(np.log(compute[1:]), level)
            reason = ""
            if not _covers(rows[0]["flops"], budget):
                reason = f"{budget:.4g} FLOPs are outside the reference's points"
            elif np.isnan(value):
                reason = "the arm never reaches the loss by this fit"
            elif not _covers(rows[1]["flops"], compute[0]):
                reason = f"the arm's {compute[0]:.4g} FLOPs are outside its points"
            if reason:
                ends = [math.nan] * 3
            elif np.isnan(half):
                reason = "the arm does not reach the loss in every bootstrap sample"
                ends = [value, 0.0, math.inf]
            else:
                ends = [value, value * math.exp(-half), value * math.exp(half)]
            multipliers.append(Multiplier(budget, *map(float, ends), level, seeds, reason))
        return multipliers

    def compare(
        self, arm: str, size: Any, budgets: Iterable[float], level: float = 0.95
    ) -> pd.DataFrame:
        """The multiplier of the fit beside the interpolated one of `compute_multiplier`.

        Args:
            arm: as `multiplier`, and so the other arguments.
            size: one that both have.
            budgets: training FLOPs of the reference.
            level: of both intervals.

        Returns:
            A row a budget, with `budget`, `interpolated`, `interpolated_low`,
            `interpolated_high`, `fitted`, `fitted_low`, `fitted_high`, and `agree`: whether each
            interval covers the other's value.

        Raises:
            InputError: as `multiplier` and `compute_multiplier`.
        """
        budgets = read_budgets(budgets)
        curves = [_curves(_cell(self.points, name, size)) for name in (self.arms[0], arm)]
        both = {
            "interpolated": compute_multiplier(*curves, budgets, level),
            "fitted": self.multiplier(arm, size, budgets, level),
        }
        table = pd.DataFrame({"budget": budgets})
        for name, multipliers in both.items():
            for end, field in (("", "value"), ("_low", "low"), ("_high", "high")):
                table[name + end] = [getattr(multiplier, field) for multiplier in multipliers]
        table["agree"] = table["fitted"].between(
            table["interpolated_low"], table["interpolated_high"]
        ) & table["interpolated"].between(table["fitted_low"], table["fitted_high"])
        return table


def fit_jointly(
    points: pd.DataFrame,
    reference: str,
    shared: bool = True,
    resamples: int = 199,
    seed: int = 0,
) -> JointFit:
    """Fits L = E + A_arm N^-a + B_arm D^-b to all losses at once.

    Huber's loss of residuals of log losses, many starts. Hoffmann et al. fix the threshold of the
    loss at 0.001; here it is 1.345 robust standard deviations of the residuals, since the noise
    of small encoders differs from theirs.

    Uncertainty is a bootstrap over cells of seed and size: within each size, seeds are drawn with
    replacement, with all losses of all arms, so that points of one training, and pairs of arms,
    stay together. What a seed does to all its losses alike is taken out first. Both leave too
    little spread with few seeds, so the standard deviation of the samples is multiplied by
    (cells / freedom)^(1/2), and intervals are Student's.

    Whether exponents are shared is tested on the fit with separate ones: the differences of the
    arms' exponents from the reference's against their covariance over the same bootstrap, by
    Hotelling's T^2, whose null distribution is an F distribution. The F test of two sums of
    squares would take all points for independent, which those of one training are not.

    Args:
        points: a row a loss, with the columns `arm`, `size` (any label), `seed`, `parameters`
            (N), `tokens` (D), `flops` (training FLOPs) and `loss` (nats). FLOPs must be
            proportional to tokens within an arm and size.
        reference: name of the reference among the arms.
        shared: whether the result has shared exponents; both are fitted and tested anyway.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: a missing column, fewer than two arms, seeds, or three sizes or budgets of an
            arm, sizes that share too few seeds, an unknown reference, a value that is not
            positive and finite, FLOPs that are not proportional to tokens, or fewer than 19
            resamples.

    References:
        Hoffmann et al. 2022, arXiv 2203.15556, approach 3 (eq. 10, appendix D.3). Huber 1964,
        Annals of Mathematical Statistics 35(1). Hotelling 1931, Annals of Mathematical Statistics
        2(3). Field, Welsh 2007, Journal of the Royal Statistical Society B 69(3) (bootstrap of
        clustered data).
    """
    points = _checked(points, reference, resamples)
    arms = (reference, *(arm for arm in points["arm"].unique() if arm != reference))
    law = {both: _Law(points, arms, both) for both in (True, False)}
    logs = np.log(points["loss"].to_numpy())
    start = law[True].search(logs)
    # Take out what a seed does to all arms and sizes alike: it says nothing about them.
    effects = _group_means(logs - law[True].log_losses(start.theta), points["seed"])
    logs = logs - (effects - effects.mean())
    scale = law[True].refine(logs, start.theta, start.scale).scale
    fits = {True: law[True].refine(logs, start.theta, scale)}
    # Separate exponents begin where shared ones ended, so they never fit worse.
    fits[False] = law[False].refine(logs, law[False].spread(fits[True].theta), scale)
    samples: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for rows in _resampled(points, resamples, np.random.default_rng(seed)):
        for both, drawn in samples.items():
            fit = law[both].take(rows).refine(logs[rows], fits[both].theta, scale)
            drawn.append(law[both].coefficients(fit.theta))
    freedom, separate = _freedom(points), law[False].coefficients(fits[False].theta)

    def frame(both: bool) -> pd.DataFrame:
        index = pd.Index(arms, name="arm")
        return pd.DataFrame(law[both].coefficients(fits[both].theta), index, list("EAaBb"))

    fitted = law[shared].log_losses(fits[shared].theta)
    return JointFit(
        arms,
        frame(shared),
        points.assign(fitted=np.exp(fitted), residual=np.log(points["loss"]) - fitted),
        shared,
        _p_separate(separate, np.array(samples[False]), _inflation(points, freedom), freedom),
        frame(False),
        np.array(samples[shared]),
        freedom,
    )


@dataclasses.dataclass(frozen=True)
class _Fit:
    theta: np.ndarray
    cost: float
    scale: float


class _Law:
    """The law with shared or separate exponents, as a function of a vector of its logarithms.

    Its elements: log E, the exponents a, the exponents b, log A and log B of each arm, the latter
    at the geometric means of N and D, which leaves them nearly uncorrelated with the exponents.
    """

    def __init__(self, points: pd.DataFrame, arms: tuple[str, ...], shared: bool):
        self._arm = np.array([arms.index(arm) for arm in points["arm"]])
        self._n, self._n0 = _centred(points["parameters"])
        self._d, self._d0 = _centred(points["tokens"])
        self._k, self._exponents = len(arms), 1 if shared else len(arms)
        self._exponent_of = np.zeros_like(self._arm) if shared else self._arm
        self._lowest = points["loss"].min()

    def take(self, rows: np.ndarray) -> "_Law":
        """The law at some of the points, in the same parameters."""
        taken = copy.copy(self)
        taken._arm, taken._exponent_of = self._arm[rows], self._exponent_of[rows]
        taken._n, taken._d = self._n[rows], self._d[rows]
        return taken

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        e, k = self._exponents, self._k
        return np.split(theta, [1, 1 + e, 1 + 2 * e, 1 + 2 * e + k])

    def _terms(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        log_e, a, b, log_a, log_b = self._parts(theta)
        return (
            math.exp(log_e[0]),
            np.exp(log_a[self._arm] - a[self._exponent_of] * self._n),
            np.exp(log_b[self._arm] - b[self._exponent_of] * self._d),
        )

    def log_losses(self, theta: np.ndarray) -> np.ndarray:
        return np.log(sum(self._terms(theta)))

    def _jacobian(self, theta: np.ndarray) -> np.ndarray:
        e, n, d = self._terms(theta)
        exponent = self._exponent_of[:, None] == np.arange(self._exponents)
        arm = self._arm[:, None] == np.arange(self._k)
        columns = [
            np.full((len(n), 1), e),
            exponent * (-n * self._n)[:, None],
            exponent * (-d * self._d)[:, None],
            arm * n[:, None],
            arm * d[:, None],
        ]
        return np.concatenate(columns, axis=1) / (e + n + d)[:, None]

    def refine(self, logs: np.ndarray, start: np.ndarray, scale: float) -> _Fit:
        """The fit from a start, with Huber's threshold at 1.345 `scale`."""
        e = self._exponents
        low, high = np.full(len(start), -30.0), np.full(len(start), 30.0)
        low[1 : 1 + 2 * e], high[1 : 1 + 2 * e] = _EXPONENTS
        solution = scipy.optimize.least_squares(
            lambda theta: self.log_losses(theta) - logs,
            np.clip(start, low + 1e-9, high - 1e-9),
            self._jacobian,
            (low, high),
            loss="huber",
            f_scale=_HUBER * scale,
            x_scale="jac",
        )
        # Of least squares 0.6745 of the deviation is the median of the absolute residuals.
        spread = np.median(np.abs(self.log_losses(solution.x) - logs)) / 0.6745
        return _Fit(solution.x, float(solution.cost), max(float(spread), 1e-9))

    def search(self, logs: np.ndarray) -> _Fit:
        """The best fit with shared exponents of many starts, and the robust scale of residuals."""
        losses, arm = np.exp(logs), self._arm[:, None] == np.arange(self._k)
        fits = []
        for share, a, b in itertools.product((0.2, 0.6, 0.9), (0.1, 0.3, 0.6), (0.1, 0.3, 0.6)):
            # The rest is linear: non-negative least squares.
            terms = [arm * np.exp(-a * self._n)[:, None], arm * np.exp(-b * self._d)[:, None]]
            rest = scipy.optimize.nnls(
                np.concatenate(terms, axis=1), losses - share * self._lowest
            )[0]
            heights = np.log(np.maximum(rest, 1e-3 * self._lowest))
            start = np.array([math.log(share * self._lowest), a, b, *heights])
            fits.append(self.refine(logs, start, 1.0))
        first = min(fits, key=lambda fit: fit.cost)
        second = self.refine(logs, first.theta, first.scale)
        return dataclasses.replace(second, scale=first.scale)

    def spread(self, theta: np.ndarray) -> np.ndarray:
        """Parameters with shared exponents as parameters with separate ones."""
        return np.concatenate([theta[:1], *(np.repeat(x, self._k) for x in theta[1:3]), theta[3:]])

    def coefficients(self, theta: np.ndarray) -> np.ndarray:
        """An array [arms, 5] of E, A, a, B and b, for N and D as they are."""
        log_e, a, b, log_a, log_b = self._parts(theta)
        a, b = (np.broadcast_to(x, self._k) for x in (a, b))
        return np.stack(
            [
                np.full(self._k, math.exp(log_e[0])),
                np.exp(log_a + a * self._n0),
                a,
                np.exp(log_b + b * self._d0),
                b,
            ],
            axis=1,
        )


def _centred(values: pd.Series) -> tuple[np.ndarray, float]:
    logs = np.log(values.to_numpy(np.float64))
    return logs - logs.mean(), float(logs.mean())


def _group_means(values: np.ndarray, groups: Any) -> np.ndarray:
    """Each value replaced by the mean of its group."""
    return pd.Series(values).groupby(groups).transform("mean").to_numpy()


def _freedom(points: pd.DataFrame) -> int:
    """Degrees of freedom of the cells of seed and size, beside effects of seeds and of sizes."""
    cells = len(points[["seed", "size"]].drop_duplicates())
    return cells - points["seed"].nunique() - points["size"].nunique() + 1


def _inflation(points: pd.DataFrame, freedom: int) -> float:
    return math.sqrt(len(points[["seed", "size"]].drop_duplicates()) / freedom)


def _resampled(
    points: pd.DataFrame, resamples: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Rows of bootstrap samples: within each size, seeds drawn with replacement."""
    sizes: dict[Any, list[np.ndarray]] = {}
    for (size, _), rows in points.groupby(["size", "seed"]).indices.items():
        sizes.setdefault(size, []).append(rows)
    for _ in range(resamples):
        yield np.concatenate(
            [
                cells[i]
                for cells in sizes.values()
                for i in generator.integers(len(cells), size=len(cells))
            ]
        )


def _p_separate(
    coefficients: np.ndarray, samples: np.ndarray, inflation: float, freedom: int
) -> float:
    """P-value of equal exponents, of coefficients [arms, 5] and samples [samples, arms, 5]."""

    def differences(values: np.ndarray) -> np.ndarray:
        exponents = values[..., [2, 4]]
        contrasts = exponents[..., 1:, :] - exponents[..., :1, :]
        return contrasts.reshape(*contrasts.shape[:-2], -1)

    seen = differences(coefficients)
    rest = freedom - seen.size + 1
    if rest < 1:
        return math.nan
    covariance = np.cov(differences(samples), rowvar=False) * inflation**2
    squared = float(seen @ np.linalg.pinv(covariance) @ seen)
    return float(scipy.stats.f.sf(squared * rest / (freedom * seen.size), seen.size, rest))


def _cell(points: pd.DataFrame, arm: str, size: Any) -> pd.DataFrame:
    rows = points[(points["arm"] == arm) & (points["size"] == size)]
    if rows.empty:
        raise InputError(
            f"no point of arm {arm!r} at size {size!r}; arms are {list(points['arm'].unique())}, "
            f"sizes {list(points['size'].unique())}"
        )
    return rows


def _curves(rows: pd.DataFrame) -> dict[Any, list[tuple[float, float]]]:
    """Points (training FLOPs, loss) of each seed of a cell."""
    return {
        seed: list(zip(points["flops"], points["loss"], strict=True))
        for seed, points in rows.groupby("seed")
    }


def _needed(
    ours: np.ndarray, theirs: np.ndarray, ref: pd.DataFrame, arm: pd.DataFrame, budget: float
) -> np.ndarray:
    """Training FLOPs of the arm for the loss of the reference at `budget`, for each sample."""
    tokens = budget / (ref["flops"] / ref["tokens"]).mean()
    floor = theirs[:, 0] + theirs[:, 1] * arm["parameters"].iloc[0] ** -theirs[:, 2]
    loss = ours[:, 0] + ours[:, 1] * ref["parameters"].iloc[0] ** -ours[:, 2]
    above = loss + ours[:, 3] * tokens ** -ours[:, 4] - floor
    ratio = np.where(above > 0, theirs[:, 3] / np.where(above > 0, above, 1.0), np.nan)
    return ratio ** (1 / theirs[:, 4]) * (arm["flops"] / arm["tokens"]).mean()


def _covers(flops: pd.Series, value: float) -> bool:
    return flops.min() * (1 - 1e-9) <= value <= flops.max() * (1 + 1e-9)


def _checked(points: pd.DataFrame, reference: str, resamples: int) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in points]
    if missing:
        raise InputError(f"points lack the columns {missing}; expected {list(COLUMNS)}")
    points = points[list(COLUMNS)].reset_index(drop=True)
    for name in COLUMNS[3:]:
        values = points[name].to_numpy(np.float64)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if wrong.size:
            row = points.loc[wrong[0]]
            raise InputError(
                f"{name} of arm {row['arm']}, size {row['size']}, seed {row['seed']} is "
                f"{row[name]}, expected a positive finite number; leave the point out or repair it"
            )
    arms = list(points["arm"].unique())
    if reference not in arms or len(arms) < 2:
        raise InputError(f"expected the reference {reference!r} and another arm, got {arms}")
    if points["seed"].nunique() < 2:
        raise InputError(f"expected at least two seeds, got {list(points['seed'].unique())}")
    if _freedom(points) < 2:
        raise InputError("sizes share too few seeds to show a spread; run the same seeds at each")
    for arm, rows in points.groupby("arm"):
        for name, words in (("parameters", "sizes"), ("tokens", "budgets")):
            if rows[name].nunique() < 3:
                raise InputError(
                    f"arm {arm} has {rows[name].nunique()} {words} ({name}), expected at least "
                    "three: fewer do not determine an exponent"
                )
    rates = (points["flops"] / points["tokens"]).groupby([points["arm"], points["size"]])
    for (arm, size), rate in rates:
        if rate.max() > rate.min() * (1 + 1e-6):
            raise InputError(
                f"arm {arm}, size {size}: FLOPs a token range from {rate.min():.6g} to "
                f"{rate.max():.6g}, expected one number"
            )
    if resamples < 19:
        raise InputError(f"resamples must be at least 19, got {resamples}")
    return points
