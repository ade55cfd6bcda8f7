"""Centred kernel alignment: similarity of two sets of activations of the same examples.

Everything is NumPy in float64, since HSIC is a small difference of large sums. The names are those
of google-research's representation_similarity/Demo.ipynb. analysis/minibatch_cka.py computes all
pairs of taps in one pass. Needs no TensorFlow.

References:
    Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414 (CKA).
    Song, Smola, Gretton, Bedo, Borgwardt 2012, JMLR 13 (the unbiased HSIC_1, eq. 5).
    Szekely, Rizzo 2014, arXiv 1310.2926 (U-centring).
    Murphy, Zylberberg, Fyshe 2024, arXiv 2405.01012 (biased CKA is high for random features).
"""

import warnings

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
        threshold: bandwidth as a share of the median distance between examples. The median is over
            all entries of the distance matrix, including the diagonal, as in Demo.ipynb.

    Returns:
        `(examples, examples)`, float64.

    Raises:
        InputError: the threshold is not above 0, or the median distance is 0.
    """
    if threshold <= 0:
        raise InputError(f"threshold must be above 0, got {threshold}")
    x = _examples(x, "x")
    squared = squared_distances(x - x.mean(0))
    median = np.median(squared)
    if median == 0:
        raise InputError("the median distance between examples is 0: too many equal examples")
    return np.exp(-squared / (2 * threshold**2 * median))


def squared_distances(x: np.ndarray) -> np.ndarray:
    """Squared distances between all pairs of examples, float64.

    Args:
        x: `(examples, features)`, centred, since this reduces cancellation.
    """
    x = x.astype(np.float64)
    norms = np.einsum("ij,ij->i", x, x)
    return np.maximum(norms[:, None] + norms[None, :] - 2 * x @ x.T, 0)


def center_gram(gram: np.ndarray, unbiased: bool = False) -> np.ndarray:
    """Centres a Gram matrix, so that HSIC is a plain inner product of two of them.

    Args:
        gram: symmetric `(examples, examples)`; not modified.
        unbiased: U-centring: the inner product over n (n - 3) is then the unbiased HSIC_1. The
            diagonal is ignored, and 0 in the result.

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
        debiased: use the unbiased HSIC_1; the result may be negative. The ratio of unbiased parts
            is itself only nearly unbiased.

    Returns:
        At most 1. NaN, with a RuntimeWarning that gives the reason, if a Gram matrix is constant up
        to rounding.

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
    """CKA with the linear kernel, in feature or example space, depending on the cost.

    Invariant to permutation of the examples, and to rotation, shift and isotropic scaling of either
    side, but not to other invertible linear maps. If there are more features than examples, the
    biased form is high even for unrelated random features: then prefer the debiased form.

    Args:
        x: `(examples, features)`, at least four examples.
        y: `(examples, other features)`, the same examples in the same order.
        debiased: as for `cka`.

    Returns:
        At most 1; the biased form is at least 0. NaN, with a RuntimeWarning that gives the reason,
        if all examples are equal up to the rounding of their dtype.

    Raises:
        InputError: fewer than four examples, unequal numbers, or a value that is not finite.

    Examples:
        >>> x, noise = np.random.default_rng(1).normal(size=(2, 100, 50))
        >>> f"{linear_cka(x, 3 * x):.3f}"
        '1.000'
        >>> f"biased {linear_cka(x, noise):.2f}, debiased {linear_cka(x, noise, True):.2f}"
        'biased 0.34, debiased 0.01'
    """
    first, second = (centred_examples(v, name, wide=True) for v, name in ((x, "x"), (y, "y")))
    n, d, e = len(first), first.shape[1], second.shape[1]
    if n != len(second):
        raise InputError(f"same examples needed, got {n} and {len(second)}")
    for name, centred in (("x", first), ("y", second)):
        if not centred.any():
            return _undefined(name)
    if n * (d + e) < d * e + d * d + e * e:
        return cka(first @ first.T, second @ second.T, debiased)
    product = _debiased_product if debiased else _biased_product
    first_self, second_self = product(first, first), product(second, second)
    # Rounding can cancel an HSIC_1 that is tiny compared with its sums.
    if first_self <= 0 or second_self <= 0:
        return _undefined("x" if first_self <= 0 else "y")
    return product(first, second) / (first_self * second_self) ** 0.5


def _biased_product(x: np.ndarray, y: np.ndarray) -> float:
    """`(n - 1)^2 HSIC` of centred examples in feature space."""
    return float(np.square(x.T @ y).sum())


def _debiased_product(x: np.ndarray, y: np.ndarray) -> float:
    """`n (n - 3) HSIC_1` of centred examples in feature space, as in Demo.ipynb."""
    n = len(x)
    rows_x, rows_y = np.square(x).sum(1), np.square(y).sum(1)
    correction = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return _biased_product(x, y) - n / (n - 2) * float(rows_x @ rows_y) + float(correction)


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


def centred_examples(x: np.ndarray, name: str, wide: bool = False) -> np.ndarray:
    """Examples minus their mean; exactly zero if only rounding is left.

    HSIC is invariant to shifts, and the Gram matrix of centred examples has less cancellation.

    Args:
        x: `(examples, features)`.
        name: name of the activations, for messages.
        wide: convert to float64; else float32 is kept, which makes products twice as fast.

    Returns:
        `(examples, features)`.

    Raises:
        InputError: another shape, fewer than four examples, or a value that is not finite.
    """
    x = np.asarray(x)
    rounding = np.finfo(x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64).eps
    narrow = not wide and x.dtype == np.float32 and x.ndim == 2 and x.size
    # Checks the mean first, which is faster: it is finite if all values are.
    if not (narrow and np.isfinite(mean := x.mean(0)).all()):
        x = _examples(x, name)
        mean = x.mean(0)
    _require_examples(len(x), name)
    centred = x - mean
    if np.abs(centred).max() <= 8 * rounding * np.abs(x).max():
        centred[:] = 0
    return centred


def _require_examples(n: int, name: str = "CKA") -> None:
    if n < MIN_EXAMPLES:
        raise InputError(f"{name}: at least {MIN_EXAMPLES} examples are needed, got {n}")


def _undefined(name: str) -> float:
    warnings.warn(f"CKA is NaN: {name} has {NO_VARIANCE}", RuntimeWarning, stacklevel=3)
    return float("nan")
