"""Centred kernel alignment: how alike two sets of activations of the same examples are.

Everything is NumPy in float64: HSIC is a small difference of large sums, and the names are
those of google-research's representation_similarity/Demo.ipynb. Needs no TensorFlow.

References:
    Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414 (CKA).
    Song, Smola, Gretton, Bedo, Borgwardt 2012, JMLR 13 (the unbiased HSIC_1, eq. 5).
    Szekely, Rizzo 2014, arXiv 1310.2926 (U-centring).
    Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327 (minibatch CKA, eq. 3).
    Murphy, Zylberberg, Fyshe 2024, arXiv 2405.01012 (biased CKA is high for random features).
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from undivided_tf.errors import InputError

MIN_EXAMPLES = 4  # HSIC_1 divides by n (n - 3).
NO_VARIANCE = "no variance over the examples"


def gram_linear(x: np.ndarray) -> np.ndarray:
    """Gram matrix of the linear kernel.

    Args:
        x: `(examples, features)`.

    Returns:
        `(examples, examples)`, float64.
    """
    x = _examples(x, "x")
    return x @ x.T


def gram_rbf(x: np.ndarray, threshold: float = 1.0) -> np.ndarray:
    """Gram matrix of the Gaussian kernel `exp(-d^2 / (2 threshold^2 median(d^2)))`.

    Args:
        x: `(examples, features)`.
        threshold: bandwidth as a share of the median distance between examples; the median is
            over all entries of the distance matrix, the diagonal included, as in Demo.ipynb.

    Returns:
        `(examples, examples)`, float64.

    Raises:
        InputError: the threshold is not above 0, or the median distance is 0.
    """
    if threshold <= 0:
        raise InputError(f"threshold must be above 0, got {threshold}")
    x = _examples(x, "x")
    x = x - x.mean(0)  # Distances stay; the cancellation below shrinks.
    norms = np.einsum("ij,ij->i", x, x)
    squared = np.maximum(norms[:, None] + norms[None, :] - 2 * x @ x.T, 0)
    median = np.median(squared)
    if median == 0:
        raise InputError("the median distance between examples is 0: too many equal examples")
    return np.exp(-squared / (2 * threshold**2 * median))


def center_gram(gram: np.ndarray, unbiased: bool = False) -> np.ndarray:
    """Centres a Gram matrix, so that HSIC is a plain inner product of two of them.

    Args:
        gram: symmetric `(examples, examples)`; it is not changed.
        unbiased: U-centring: the inner product over n (n - 3) is then the unbiased HSIC_1. The
            diagonal is zero before and after, and need not be meaningful.

    Returns:
        `(examples, examples)`, float64.

    Raises:
        InputError: not a symmetric matrix, or fewer than four examples.
    """
    gram = np.array(gram, np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.allclose(gram, gram.T):
        raise InputError(f"a Gram matrix is finite, square, symmetric; got shape {gram.shape}")
    _require_examples(len(gram))
    return _center(gram, unbiased)


def _center(gram: np.ndarray, unbiased: bool) -> np.ndarray:
    """Centres `gram` in place; see `center_gram`."""
    n = len(gram)
    if unbiased:
        np.fill_diagonal(gram, 0)
        means = gram.sum(0) / (n - 2)
        means -= means.sum() / (2 * (n - 1))
    else:
        means = gram.mean(0)
        means -= means.mean() / 2
    gram -= means[:, None]
    gram -= means[None, :]
    if unbiased:
        np.fill_diagonal(gram, 0)
    return gram


def cka(gram_x: np.ndarray, gram_y: np.ndarray, debiased: bool = False) -> float:
    """CKA of two Gram matrices.

    Args:
        gram_x: `(examples, examples)`.
        gram_y: `(examples, examples)` of the same examples.
        debiased: from the unbiased HSIC_1; may be negative, and is then reported so. The ratio
            of unbiased parts is itself only nearly unbiased.

    Returns:
        At most 1. NaN, with a RuntimeWarning that gives the reason, when a Gram matrix is
        constant up to rounding.

    Raises:
        InputError: as `center_gram`, or the numbers of examples differ.
    """
    if np.shape(gram_x) != np.shape(gram_y):
        raise InputError(f"same examples needed, got {np.shape(gram_x)} and {np.shape(gram_y)}")
    centred = []
    for name, gram in (("gram_x", gram_x), ("gram_y", gram_y)):
        kernel = center_gram(gram, unbiased=debiased)
        if np.abs(kernel).max() <= 8 * np.finfo(np.float64).eps * np.abs(gram).max():
            return _undefined(name)
        centred.append(kernel / np.linalg.norm(kernel))
    return float(np.vdot(*centred))


def linear_cka(x: np.ndarray, y: np.ndarray, debiased: bool = False) -> float:
    """CKA with the linear kernel, in feature or example space, whichever is cheaper.

    Unchanged by a permutation of the examples, by rotation, shift and isotropic scaling of
    either side; changed by other invertible linear maps. The biased form is high even for
    unrelated random features when features outnumber examples: prefer the debiased one then.

    Args:
        x: `(examples, features)`, at least four examples.
        y: `(examples, other features)`, the same examples in the same order.
        debiased: as for `cka`.

    Returns:
        At most 1; from 0 when biased. NaN, with a RuntimeWarning that gives the reason, when all
        examples are equal up to the rounding of their dtype.

    Raises:
        InputError: fewer than four examples, unequal numbers, or a value that is not finite.
    """
    first, second = _centred_examples(x, "x"), _centred_examples(y, "y")
    n, d, e = len(first), first.shape[1], second.shape[1]
    if n != len(second):
        raise InputError(f"same examples needed, got {n} and {len(second)}")
    for name, value in (("x", first), ("y", second)):
        if not value.any():
            return _undefined(name)
    if n * (d + e) < d * e + d * d + e * e:
        return cka(first @ first.T, second @ second.T, debiased)
    product = _debiased_product if debiased else _biased_product
    own_first, own_second = product(first, first), product(second, second)
    # Rounding can leave nothing of an HSIC_1 that is tiny beside the sums that make it up.
    if own_first <= 0 or own_second <= 0:
        return _undefined("x" if own_first <= 0 else "y")
    return product(first, second) / (own_first * own_second) ** 0.5


def _biased_product(x: np.ndarray, y: np.ndarray) -> float:
    """`(n - 1)^2 HSIC` of centred examples in feature space."""
    return float(np.square(x.T @ y).sum())


def _debiased_product(x: np.ndarray, y: np.ndarray) -> float:
    """`n (n - 3) HSIC_1` of centred examples in feature space, as in Demo.ipynb."""
    n = len(x)
    rows_x, rows_y = np.square(x).sum(1), np.square(y).sum(1)
    correction = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return _biased_product(x, y) - n / (n - 2) * float(rows_x @ rows_y) + float(correction)


class MinibatchCka:
    """Debiased linear CKA of every tap of one encoder against every tap of another, streaming.

    The unbiased HSIC_1 of each pair of taps, and of each tap with itself, is averaged over the
    minibatches; the ratio is taken once, at the end. So the three averages estimate without
    bias what the whole data would give, whatever the batch size. A minibatch weighs by its
    number of examples; when all are equal this is the plain mean of the paper. Memory is
    O(taps x batch^2 + taps^2), however many minibatches come.

    Args:
        first_taps: names of the taps of the first encoder.
        second_taps: names of the taps of the second.

    References:
        Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327, eq. 3.
    """

    def __init__(self, first_taps: Sequence[str], second_taps: Sequence[str]):
        self.first_taps, self.second_taps = tuple(first_taps), tuple(second_taps)
        self.examples = self.minibatches = 0
        self._first_own = np.zeros(len(self.first_taps))
        self._second_own = np.zeros(len(self.second_taps))
        self._across = np.zeros((len(self.first_taps), len(self.second_taps)))

    def update(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
        """Adds one minibatch.

        Args:
            first: for each of `first_taps` the activations `(examples, features)`.
            second: for each of `second_taps` those of the same examples.

        Raises:
            InputError: fewer than four examples, unequal numbers, a missing tap, or a value that
                is not finite; names the tap.
        """
        kernels, other = _kernels(first, self.first_taps), _kernels(second, self.second_taps)
        if kernels.shape[1:] != other.shape[1:]:
            raise InputError(f"same examples needed, got {kernels.shape[1]} and {other.shape[1]}")
        n = kernels.shape[1]
        kernels, other = kernels.reshape(len(kernels), -1), other.reshape(len(other), -1)
        weight = n / (n * (n - 3))  # HSIC_1 divides by n (n - 3); the weight n cancels at the end.
        self._across += weight * (kernels @ other.T)
        self._first_own += weight * np.einsum("ij,ij->i", kernels, kernels)
        self._second_own += weight * np.einsum("ij,ij->i", other, other)
        self.examples += n
        self.minibatches += 1

    def matrix(self) -> np.ndarray:
        """CKA `(first taps, second taps)`; NaN where `reasons` says why, negative left as it is.

        Raises:
            InputError: no minibatch has come.
        """
        if not self.minibatches:
            raise InputError("CKA needs at least one minibatch of four examples")
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._across / np.sqrt(np.outer(self._first_own, self._second_own))

    def reasons(self) -> dict[str, str]:
        """Why an entry of `matrix` is NaN, by `"first tap x second tap"`."""
        reasons = {}
        for i, first in enumerate(self.first_taps):
            for j, second in enumerate(self.second_taps):
                flat = [
                    f"{which} {name}: {NO_VARIANCE}"
                    for which, name, own in (
                        ("first", first, self._first_own[i]),
                        ("second", second, self._second_own[j]),
                    )
                    if own == 0
                ]
                if flat:
                    reasons[f"{first} x {second}"] = "; ".join(flat)
        return reasons


def _kernels(taps: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """U-centred Gram matrices `(taps, examples, examples)`."""
    kernels = None
    for i, name in enumerate(names):
        if name not in taps:
            raise InputError(f"no activations of tap {name!r}; there are: {', '.join(taps)}")
        x = _centred_examples(taps[name], f"tap {name}")
        if kernels is None:
            kernels = np.empty((len(names), len(x), len(x)))
        if len(x) != kernels.shape[1]:
            raise InputError(f"tap {name}: {len(x)} examples, the others have {kernels.shape[1]}")
        np.matmul(x, x.T, out=kernels[i])
        _center(kernels[i], unbiased=True)
    return kernels


def _examples(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or not x.shape[1]:
        raise InputError(f"{name}: expected (examples, features), got shape {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise InputError(
            f"{name}: example {row}, feature {column} is {x[row, column]}; "
            "activations must be finite"
        )
    return x.astype(np.float64)


def _centred_examples(x: np.ndarray, name: str) -> np.ndarray:
    """Float64 examples with their mean removed; exactly zero when only rounding is left.

    Shifts leave HSIC as it is, and without them the Gram matrix cancels less.
    """
    wide = _examples(x, name)
    _require_examples(len(wide), name)
    kind = np.asarray(x).dtype
    rounding = np.finfo(kind if np.issubdtype(kind, np.floating) else np.float64).eps
    centred = wide - wide.mean(0)
    if np.abs(centred).max() <= 8 * rounding * np.abs(wide).max():
        centred[:] = 0
    return centred


def _require_examples(n: int, name: str = "CKA") -> None:
    if n < MIN_EXAMPLES:
        raise InputError(f"{name}: at least {MIN_EXAMPLES} examples are needed, got {n}")


def _undefined(name: str) -> float:
    warnings.warn(f"CKA is NaN: {name} has {NO_VARIANCE}", RuntimeWarning, stacklevel=3)
    return float("nan")
