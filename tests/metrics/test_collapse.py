import numpy as np
import pytest

from undivided_tf.errors import InputError
from undivided_tf.metrics import collapse


def test_equal_tokens_have_collapsed():
    tokens = np.tile([1.0, -2.0, 3.0], (5, 1))
    assert collapse.relative_residual(tokens) == pytest.approx(0)
    assert collapse.composite_residual(tokens) == pytest.approx(0)
    assert collapse.effective_rank(tokens) == pytest.approx(1)
    assert collapse.mean_cosine(tokens) == pytest.approx(1)


def test_closed_forms():
    tokens = np.eye(4)  # Residual of each row: one of 3/4, three of -1/4.
    assert collapse.relative_residual(tokens) == pytest.approx(np.sqrt(3) / 2)
    assert collapse.composite_residual(tokens) == pytest.approx(1.5)
    assert collapse.effective_rank(tokens) == pytest.approx(4)
    assert collapse.mean_cosine(tokens) == pytest.approx(0)
    opposite = np.array([[1.0, 1], [-3, -3]])
    assert collapse.mean_cosine(opposite) == pytest.approx(-1)
    assert collapse.effective_rank(opposite) == pytest.approx(1)
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    assert collapse.effective_rank(np.diag([3.0, 1])) == pytest.approx(4 / 3**0.75)


def test_against_loops():
    tokens = np.random.default_rng(0).normal(size=(7, 5)) + 1
    pairs = [
        tokens[i] @ tokens[j] / np.linalg.norm(tokens[i]) / np.linalg.norm(tokens[j])
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert collapse.mean_cosine(tokens) == pytest.approx(np.mean(pairs), rel=1e-12)
    # The mean row is the nearest of all rows.
    found = collapse.relative_residual(tokens)
    for shift in np.random.default_rng(1).normal(size=(20, 5)) / 10:
        other = np.linalg.norm(tokens - tokens.mean(0) - shift) / np.linalg.norm(tokens)
        assert other > found


def test_degenerate_texts():
    assert collapse.mean_cosine(np.ones((1, 3))) == 1
    for measure in (collapse.relative_residual, collapse.composite_residual):
        assert measure(np.zeros((3, 2))) == 0
    assert collapse.effective_rank(np.zeros((3, 2))) == 0
    with pytest.raises(InputError, match=r"expected \(tokens, hidden\), got shape \(3,\)"):
        collapse.effective_rank(np.ones(3))
