"""CKA of all pairs of taps of two encoders in one pass over the data.

HSIC of every pair is summed over minibatches; the ratio is taken once, at the end. The products of
a minibatch are computed from its Gram matrices (example space) or from its features, whichever is
cheaper. Sums are float64. Needs no TensorFlow.

References:
    Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327, eq. 3 (minibatch CKA).
    Hanley, MacGibbon 2006, Computer Methods and Programs in Biomedicine 83(1) (bootstrap of a
    stream: each part has a Poisson(1) count).
"""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from undivided_tf.analysis.cka import NO_VARIANCE, centred_examples, squared_distances
from undivided_tf.errors import InputError
from undivided_tf.support import threads

CONFIDENCE = 0.95
MIN_MINIBATCHES = 8  # Fewer give no estimate of the variance.


class Minibatch:
    """Activations of an encoder for some examples, centred.

    Attributes:
        centred: for each tap `(examples, features)`, exactly zero if a tap is constant.
        examples: number of examples.
    """

    def __init__(self, centred: Sequence[np.ndarray], squared_scales=None, diagonal=False):
        self.centred, self.examples = list(centred), len(centred[0])
        self.is_linear = squared_scales is None
        self._squared_scales, self._diagonal = squared_scales, diagonal
        self._whole: tuple[Minibatch, np.ndarray] | None = None

    @property
    def features(self) -> int:
        """Total number of features of all taps."""
        return sum(x.shape[1] for x in self.centred)

    @functools.cached_property
    def grams(self) -> np.ndarray:
        """Gram matrices `(taps, examples, examples)`, float64."""
        if self._whole:
            whole, places = self._whole
            return whole.grams[:, places[:, None], places]
        grams = np.empty((len(self.centred), self.examples, self.examples))

        def fill(i: int) -> None:
            x = self.centred[i]
            if self._squared_scales is None:
                grams[i] = x @ x.T
            elif x.any():
                np.exp(squared_distances(x) / (-2 * self._squared_scales[i]), out=grams[i])
            else:
                grams[i] = 0  # A constant kernel is 0 after centring.
            if not self._diagonal:
                np.fill_diagonal(grams[i], 0)

        threads.each(fill, range(len(grams)))
        return grams

    def take(self, places: np.ndarray) -> "Minibatch":
        """The examples at some indices, in the order of the indices.

        They are not centred again, since HSIC is invariant to shifts.
        """
        taken = Minibatch([x[places] for x in self.centred], self._squared_scales, self._diagonal)
        taken._whole = (self, places)
        return taken


class Minibatches:
    """Makes the minibatches of one encoder.

    Args:
        taps: names of the encoder's taps.
        kernel: `linear` or `rbf`.
        threshold: bandwidth of `rbf` as a share of the median distance. The median of the first
            minibatch is used for each tap, so that all minibatches estimate the same quantity.
        diagonal: whether Gram matrices keep their diagonals, for the biased HSIC.
    """

    def __init__(self, taps: Sequence[str], kernel="linear", threshold=0.5, diagonal=False):
        self.taps = tuple(taps)
        self._kernel, self._threshold, self._diagonal = kernel, threshold, diagonal
        self._squared_scales: np.ndarray | None = None

    def __call__(self, activations: Mapping[str, np.ndarray]) -> Minibatch:
        """Centres activations `(examples, features)` by tap.

        Raises:
            InputError: fewer than four examples, unequal numbers, a missing tap, or a value that
                is not finite; names the tap.
        """
        for name in self.taps:
            if name not in activations:
                raise InputError(
                    f"no activations of tap {name!r}; there are: {', '.join(activations)}"
                )
        centred = threads.each(
            lambda name: centred_examples(activations[name], f"tap {name}"), self.taps
        )
        for name, x in zip(self.taps, centred, strict=True):
            if len(x) != len(centred[0]):
                raise InputError(
                    f"tap {name}: {len(x)} examples, the others have {len(centred[0])}"
                )
        if self._kernel == "rbf" and self._squared_scales is None:
            # 0 for a constant tap, which does not use it.
            medians = [np.median(squared_distances(x)) for x in centred]
            for name, x, median in zip(self.taps, centred, medians, strict=True):
                if median == 0 and x.any():
                    raise InputError(
                        f"tap {name}: the median distance between examples is 0: too many equal "
                        "examples"
                    )
            self._squared_scales = self._threshold**2 * np.array(medians)
        return Minibatch(centred, self._squared_scales, self._diagonal)


class MinibatchCka:
    """CKA of every tap of one encoder against every tap of another, streaming.

    The unbiased HSIC_1 of each pair of taps, and of each tap with itself, is averaged over the
    minibatches; the ratio is taken once, at the end. So the three averages are unbiased estimates
    of the values of the whole data, for any batch size. A minibatch is weighted by its number of
    examples; with equal sizes this is the paper's mean.

    Memory is O(taps x batch x (batch + features) + replicates x taps^2), for any number of
    minibatches. One minibatch with all examples gives the estimate of the whole sample.

    Args:
        first_taps: names of the taps of the first encoder.
        second_taps: names of the taps of the second.
        kernel: `linear` or `rbf`.
        threshold: as for `Minibatches`.
        debiased: use the unbiased HSIC_1, else the biased HSIC. Averaging does not reduce this
            bias, so use one minibatch for it.
        replicates: number of bootstrap replicates over minibatches; 0: no interval.
        seed: seed of the bootstrap.
    """

    def __init__(
        self,
        first_taps: Sequence[str],
        second_taps: Sequence[str],
        *,
        kernel: str = "linear",
        threshold: float = 0.5,
        debiased: bool = True,
        replicates: int = 0,
        seed: int = 0,
    ):
        self.first_taps, self.second_taps = tuple(first_taps), tuple(second_taps)
        self.examples = self.minibatches = 0
        self._debiased, self._rng = debiased, np.random.default_rng(seed)
        self._first, self._second = (
            Minibatches(taps, kernel, threshold, diagonal=not debiased)
            for taps in (self.first_taps, self.second_taps)
        )
        rows, columns = len(self.first_taps), len(self.second_taps)
        # The first sum counts each minibatch once; the others are bootstrap replicates.
        self._across = np.zeros((1 + replicates, rows, columns))
        self._first_self = np.zeros((1 + replicates, rows))
        self._second_self = np.zeros((1 + replicates, columns))

    def update(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
        """Adds one minibatch.

        Args:
            first: for each of `first_taps` the activations `(examples, features)`.
            second: for each of `second_taps` the activations of the same examples.

        Raises:
            InputError: as `Minibatches`, or the numbers of examples differ.
        """
        self.add(self._first(first), self._second(second))

    def add(self, first: Minibatch, second: Minibatch) -> None:
        """Like `update`, for minibatches that several comparisons share."""
        n = first.examples
        if n != second.examples:
            raise InputError(f"same examples needed, got {n} and {second.examples}")
        counts = np.ones(len(self._across))
        counts[1:] = self._rng.poisson(1, len(counts) - 1)
        # HSIC_1 divides by n (n - 3), HSIC by (n - 1)^2; a minibatch has weight n.
        counts *= n / (n * (n - 3) if self._debiased else (n - 1) ** 2)
        across, first_self, second_self = _hsic_products(first, second, self._debiased)
        self._across += counts[:, None, None] * across
        self._first_self += counts[:, None] * first_self
        self._second_self += counts[:, None] * second_self
        self.examples += n
        self.minibatches += 1

    def matrix(self) -> np.ndarray:
        """CKA `(first taps, second taps)`, not clipped; `reasons` explains NaN entries.

        Raises:
            InputError: there was no minibatch.
        """
        if not self.minibatches:
            raise InputError("CKA needs at least one minibatch of four examples")
        return self._ratios()[0]

    def interval(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Bootstrap interval of each entry of `matrix`: its 2.5 % and 97.5 % quantiles.

        The interval covers the choice of minibatches, and so of texts, but not the weights of the
        encoders. It is None without replicates, or with fewer than eight minibatches.
        """
        if len(self._across) == 1 or self.minibatches < MIN_MINIBATCHES:
            return None
        tail = (1 - CONFIDENCE) / 2
        return tuple(np.quantile(self._ratios()[1:], [tail, 1 - tail], axis=0))

    def _ratios(self) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            products = self._first_self[:, :, None] * self._second_self[:, None, :]
            return self._across / np.sqrt(products)

    def reasons(self) -> dict[str, str]:
        """Why an entry of `matrix` is NaN, by `"first tap x second tap"`."""
        return pair_reasons(
            dict(zip(self.first_taps, self._first_self[0] <= 0, strict=True)),
            dict(zip(self.second_taps, self._second_self[0] <= 0, strict=True)),
        )


def pair_reasons(first_flat: Mapping[str, bool], second_flat: Mapping[str, bool]) -> dict[str, str]:
    """Why entries of a matrix of pairs are NaN; `flat` tells whether a tap has no variance."""
    reasons = {}
    for first, is_first_flat in first_flat.items():
        for second, is_second_flat in second_flat.items():
            flat = ["first " + first] * bool(is_first_flat)
            flat += ["second " + second] * bool(is_second_flat)
            if flat:
                reasons[f"{first} x {second}"] = "; ".join(f"{f}: {NO_VARIANCE}" for f in flat)
    return reasons


def _hsic_products(
    first: Minibatch, second: Minibatch, debiased: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numerators of HSIC: of all pairs of taps, and of each tap with itself.

    Args:
        first: minibatch of one encoder.
        second: minibatch of another, at the same examples.
        debiased: `n (n - 3) HSIC_1`, else `(n - 1)^2 HSIC`.

    Returns:
        `(first taps, second taps)`, `(first taps,)` and `(second taps,)`.
    """
    n, taps = first.examples, len(first.centred) * len(second.centred)
    in_examples = n * n * ((first.features + second.features) / 2 + taps)
    squares = sum(x.shape[1] ** 2 for batch in (first, second) for x in batch.centred)
    in_features = n * (first.features * second.features + squares)
    if first.is_linear and second.is_linear and in_features < in_examples:
        return _products_of_features(first, second, debiased)
    return _products_of_grams(first.grams, second.grams, debiased)


def _products_of_grams(
    first: np.ndarray, second: np.ndarray, debiased: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = first.shape[1]
    # With the sums of rows HSIC needs no centred copy of the matrices.
    rows, sums = zip(*((k.sum(2), k.sum((1, 2))) for k in (first, second)), strict=True)
    flat = [k.reshape(len(k), -1) for k in (first, second)]
    by_rows, by_sums = (-2 / (n - 2), 1 / ((n - 1) * (n - 2))) if debiased else (-2 / n, 1 / n**2)

    def with_itself(i: int) -> np.ndarray:
        inner = np.einsum("ij,ij->i", flat[i], flat[i])
        by_row = np.einsum("ij,ij->i", rows[i], rows[i])
        value = inner + by_rows * by_row + by_sums * sums[i] ** 2
        return np.where(value <= 1e-13 * inner, 0.0, value)  # Removes rounding errors.

    across = np.stack(threads.each(lambda row: flat[1] @ row, flat[0]))
    across += by_rows * (rows[0] @ rows[1].T) + by_sums * np.outer(sums[0], sums[1])
    return across, with_itself(0), with_itself(1)


def _products_of_features(
    first: Minibatch, second: Minibatch, debiased: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In feature space, as in google-research's representation_similarity/Demo.ipynb."""
    n = first.examples
    # HSIC is invariant to shifts, but this form is not, so subsets of examples are centred.
    batches = [[x - x.mean(0) for x in batch.centred] for batch in (first, second)]
    norms = [np.array([np.square(x.astype(np.float64)).sum(1) for x in batch]) for batch in batches]

    def product(pair: tuple[np.ndarray, np.ndarray]) -> float:
        return np.square((pair[0].T @ pair[1]).astype(np.float64)).sum()

    across = np.array(threads.each(product, itertools.product(*batches)))
    across = across.reshape(len(batches[0]), len(batches[1]))
    selves = [np.array(threads.each(product, zip(x, x, strict=True))) for x in batches]
    if not debiased:
        return across, *selves

    def correct(value: np.ndarray, by_row: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return value - n / (n - 2) * by_row + sums / ((n - 1) * (n - 2))

    sums = [x.sum(1) for x in norms]
    across = correct(across, norms[0] @ norms[1].T, np.outer(*sums))
    for i in (0, 1):
        value = correct(selves[i], np.einsum("ij,ij->i", norms[i], norms[i]), sums[i] ** 2)
        selves[i] = np.where(value <= 1e-13 * selves[i], 0.0, value)
    return across, *selves
