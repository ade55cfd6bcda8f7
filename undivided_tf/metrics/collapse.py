"""Measures of rank collapse: how similar the tokens of a text are. Needs no TensorFlow.

References:
    Dong, Cordonnier, Loukas 2021, arXiv 2103.03404 (attention alone collapses to rank 1).
    Roy, Vetterli 2007, EUSIPCO (effective rank).
    Ethayarajh 2019, arXiv 1909.00512 (cosine similarity between tokens).
"""

import numpy as np

from undivided_tf.errors import InputError


def relative_residual(tokens: np.ndarray) -> float:
    """Distance to the nearest matrix of equal rows, divided by the norm; 0 for equal rows.

    In the Frobenius norm every row of the nearest matrix is the mean row.

    Args:
        tokens: `(tokens, hidden)` of one text.

    Returns:
        From 0 to 1; also 0 for a matrix of zeros.

    References:
        Dong et al. 2021, section 2, with the norm of `composite_residual`.
    """
    tokens = _tokens(tokens)
    norm = np.linalg.norm(tokens)
    return float(np.linalg.norm(tokens - tokens.mean(0)) / norm) if norm else 0.0


def composite_residual(tokens: np.ndarray) -> float:
    """Like `relative_residual`, in the paper's norm: the root of 1-norm times infinity-norm.

    In this norm the nearest matrix of equal rows has no closed form; the mean row is used.
    """
    tokens = _tokens(tokens)

    def norm(x: np.ndarray) -> float:
        return float(np.sqrt(np.linalg.norm(x, 1) * np.linalg.norm(x, np.inf)))

    total = norm(tokens)
    return norm(tokens - tokens.mean(0)) / total if total else 0.0


def effective_rank(tokens: np.ndarray) -> float:
    """Exponential of the entropy of the normalised singular values: from 1 to the rank."""
    values = np.linalg.svd(_tokens(tokens), compute_uv=False)
    if not values.any():
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(tokens: np.ndarray) -> float:
    """Mean cosine over all pairs of different tokens; 1 for a single token."""
    tokens = _tokens(tokens)
    norms = np.linalg.norm(tokens, axis=1, keepdims=True)
    unit = tokens / np.where(norms, norms, 1)
    n = len(unit)
    # The sum of all products minus those of a token with itself.
    products = np.square(unit.sum(0)).sum() - np.square(unit).sum()
    return float(products / (n * (n - 1))) if n > 1 else 1.0


def _tokens(tokens: np.ndarray) -> np.ndarray:
    tokens = np.asarray(tokens, np.float64)
    if tokens.ndim != 2 or not tokens.size:
        raise InputError(f"expected (tokens, hidden), got shape {tokens.shape}")
    return tokens
