"""Other similarity measures of two sets of activations, with the interface of CKA.

All take the whole sample at once, `(examples, features)` per tap, in float64. Needs no TensorFlow.

References:
    Raghu, Gilmer, Yosinski, Sohl-Dickstein 2017, arXiv 1706.05806 (SVCCA).
    Morcos, Raghu, Bengio 2018, arXiv 1806.05759 (projection-weighted CCA, eq. 3 and 4).
    Ding, Denain, Steinhardt 2021, arXiv 2108.01661, section 2 (orthogonal Procrustes distance).
    Kriegeskorte, Mur, Bandettini 2008, Frontiers in Systems Neuroscience 2 (RSA).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.spatial.distance
import scipy.stats

from undivided_tf.analysis.cka import centred_examples
from undivided_tf.analysis.minibatch_cka import pair_reasons
from undivided_tf.errors import InputError
from undivided_tf.support import threads

KEPT_VARIANCE = 0.99  # Variance share that SVCCA keeps, as in the paper.


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of two taps in two steps, so that work per tap is done once.

    Attributes:
        label: name in tables and figures.
        prepare: function from centred examples `(examples, features)` to an argument of `pair`.
        pair: function from two prepared taps to a number.
        is_distance: if true, equal taps have 0, else 1.
    """

    label: str
    prepare: Callable[[np.ndarray], Any]
    pair: Callable[[Any, Any], float]
    is_distance: bool = False

    def __call__(self, x: np.ndarray, y: np.ndarray) -> float:
        """The measure of two sets of activations of the same examples.

        Args:
            x: `(examples, features)`, at least four examples.
            y: `(examples, other features)`.

        Raises:
            InputError: as for `cka.linear_cka`.
        """
        pair = WholeSample(self, ["x"], ["y"])
        pair.update({"x": x}, {"y": y})
        return float(pair.matrix()[0, 0])


def _basis(x: np.ndarray, kept: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis of the columns, `(examples, rank)`, and the columns themselves.

    Args:
        x: centred.
        kept: share of the variance in the kept directions; 1: all directions above rounding.
    """
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    count = int((values > values[0] * max(x.shape) * np.finfo(np.float64).eps).sum())
    if kept < 1:
        shares = np.cumsum(values**2) / np.sum(values**2)
        # The direction that reaches the share is kept, too.
        count = min(count, int(np.searchsorted(shares, kept)) + 1)
    if len(x) <= count + 1:
        raise InputError(
            f"CCA of {len(x)} examples with {count} directions finds a perfect correlation in any "
            "data: take more examples"
        )
    return left[:, :count], x


def _svcca(first: tuple, second: tuple) -> float:
    """Mean canonical correlation over the directions of the smaller side."""
    correlations = np.linalg.svd(first[0].T @ second[0], compute_uv=False)
    return float(np.minimum(correlations, 1).mean())


def _pwcca(first: tuple, second: tuple) -> float:
    """Canonical correlations weighted by each variate's share of the first side.

    Not symmetric: the weights are those of the first side.
    """
    left, correlations, _ = np.linalg.svd(first[0].T @ second[0], full_matrices=False)
    variates = first[0] @ left
    weights = np.abs(variates.T @ first[1]).sum(1)
    return float(weights @ np.minimum(correlations, 1) / weights.sum())


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def _procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Squared distance after the best rotation of centred activations of unit norm, 0 to 2."""
    return float(max(0.0, 2 - 2 * np.linalg.norm(x.T @ y, "nuc")))


def _distance_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks of the distances between all pairs of examples, centred, of unit norm."""
    ranks = scipy.stats.rankdata(scipy.spatial.distance.pdist(x))
    ranks -= ranks.mean()
    norm = np.linalg.norm(ranks)
    return ranks / norm if norm else np.full_like(ranks, np.nan)


MEASURES = {
    "svcca": Measure("SVCCA", lambda x: _basis(x, KEPT_VARIANCE), _svcca),
    "pwcca": Measure("PWCCA", lambda x: _basis(x, 1.0), _pwcca),
    "procrustes": Measure("orthogonal Procrustes distance", _unit, _procrustes, is_distance=True),
    "rsa": Measure(
        "RSA, Spearman of Euclidean distances", _distance_ranks, lambda x, y: float(x @ y)
    ),
}


class Examples:
    """Activations of one encoder for some examples, prepared for a measure.

    Args:
        measure: one of `MEASURES`.
        taps: names of the encoder's taps.
        activations: `(examples, features)` by tap.

    Raises:
        InputError: a missing tap.
    """

    def __init__(
        self, measure: Measure, taps: Sequence[str], activations: Mapping[str, np.ndarray]
    ):
        missing = [name for name in taps if name not in activations]
        if missing:
            raise InputError(
                f"no activations of tap {missing[0]!r}; there are: {', '.join(activations)}"
            )
        self.activations = {name: np.asarray(activations[name]) for name in taps}
        self._measure = measure

    def __len__(self) -> int:
        return len(next(iter(self.activations.values())))

    def take(self, places: np.ndarray) -> "Examples":
        """The examples at some indices, in the order of the indices."""
        taken = {name: x[places] for name, x in self.activations.items()}
        return Examples(self._measure, list(taken), taken)

    @functools.cached_property
    def prepared(self) -> dict[str, Any]:
        """Results of `Measure.prepare` by tap; None for a tap without variance."""

        def prepare(name: str) -> Any:
            x = centred_examples(self.activations[name], f"tap {name}", wide=True)
            return self._measure.prepare(x) if x.any() else None

        values = threads.each(prepare, self.activations)
        return dict(zip(self.activations, values, strict=True))


class WholeSample:
    """A measure of every tap of one encoder against every tap of another.

    It has the interface of `MinibatchCka`, but takes all examples at once. Memory is O(examples x
    features of all taps), for RSA O(examples^2 x taps).

    Args:
        measure: one of `MEASURES`.
        first_taps: names of the taps of the first encoder.
        second_taps: names of the taps of the second.
    """

    minibatches = 1

    def __init__(self, measure: Measure, first_taps: Sequence[str], second_taps: Sequence[str]):
        self.first_taps, self.second_taps = tuple(first_taps), tuple(second_taps)
        self.examples = 0
        self._measure = measure
        self._sides: tuple[Examples, Examples] | None = None

    def update(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
        """Takes the examples; arguments as in `MinibatchCka.update`."""
        self.add(
            Examples(self._measure, self.first_taps, first),
            Examples(self._measure, self.second_taps, second),
        )

    def add(self, first: Examples, second: Examples) -> None:
        """Like `update`, for examples that several comparisons share."""
        if self._sides:
            raise InputError("this measure takes the whole sample at once, not in parts")
        if len(first) != len(second):
            raise InputError(f"same examples needed, got {len(first)} and {len(second)}")
        self._sides, self.examples = (first, second), len(first)

    def matrix(self) -> np.ndarray:
        """The measure `(first taps, second taps)`; NaN entries are explained by `reasons`.

        Raises:
            InputError: fewer than four examples, a value that is not finite, or too few examples
                for CCA.
        """
        if not self._sides:
            raise InputError("a measure needs at least four examples")
        first, second = (side.prepared for side in self._sides)

        def row(tap: str) -> list[float]:
            return [
                np.nan
                if first[tap] is None or second[other] is None
                else self._measure.pair(first[tap], second[other])
                for other in self.second_taps
            ]

        return np.array(threads.each(row, self.first_taps))

    def interval(self) -> None:
        """None, since repeated examples in a resample would distort these measures."""

    def reasons(self) -> dict[str, str]:
        """Why an entry of `matrix` is NaN, by `"first tap x second tap"`."""
        return pair_reasons(
            *({n: value is None for n, value in side.prepared.items()} for side in self._sides)
        )
