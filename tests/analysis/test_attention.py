import itertools

import numpy as np
import pytest
import scipy.spatial.distance

from undivided_tf.analysis.attention import (
    STATISTICS,
    HeadDivergence,
    HeadStatistics,
    rollout,
    row_normalized,
)

CLS, SEP = 2, 3


def probabilities(texts=2, heads=3, length=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(length), (texts, heads, length))


def of_one_text(weights, ids):
    statistics = HeadStatistics(SEP)
    statistics.update(weights[None, None], np.array([ids]), np.array([len(ids)]))
    return {name: values[0] for name, values in statistics.means().items()}


def test_heads_of_a_known_kind():
    ids = [CLS, 7, 8, SEP]
    to_itself = of_one_text(np.eye(4), ids)
    assert to_itself == dict.fromkeys(STATISTICS, 0) | {
        "self": 1, "first": 0.25, "separator": 0.25,
    }  # fmt: skip
    uniform = of_one_text(np.full((4, 4), 0.25), ids)
    assert uniform["entropy"] == pytest.approx(np.log(4))
    assert uniform["distance"] == pytest.approx(20 / 16)
    assert uniform["next"] == uniform["previous"] == pytest.approx(3 / 16)
    ahead = of_one_text(np.eye(4, k=1) + np.diag([0, 0, 0, 1.0]), ids)
    assert (ahead["next"], ahead["self"], ahead["distance"]) == (0.75, 0.25, 0.75)


def test_statistics_agree_with_loops_and_skip_padding():
    weights, lengths = probabilities(), np.array([3, 5])
    weights[0, :, :, 3:] = 0
    weights /= weights.sum(-1, keepdims=True)
    ids = np.array([[CLS, 7, SEP, 0, 0], [CLS, 7, SEP, 9, SEP]])
    sums, tokens = {name: np.zeros(3) for name in STATISTICS}, 0
    for text, length in enumerate(lengths):
        for query in range(length):
            tokens += 1
            for head, key in itertools.product(range(3), range(length)):
                weight = weights[text, head, query, key]
                sums["entropy"][head] -= weight * np.log(weight)
                sums["distance"][head] += weight * abs(query - key)
                sums["first"][head] += weight * (key == 0)
                sums["separator"][head] += weight * (ids[text, key] == SEP)
                sums["self"][head] += weight * (key == query)
                sums["next"][head] += weight * (key == query + 1)
                sums["previous"][head] += weight * (key == query - 1)
    statistics = HeadStatistics(SEP)
    for text in range(2):  # Minibatches add up.
        statistics.update(weights[[text]], ids[[text]], lengths[[text]])
    for name, values in statistics.means().items():
        np.testing.assert_allclose(values, sums[name] / tokens, rtol=1e-12)


def test_rows_that_do_not_add_up_are_normalized():
    weights = probabilities(1, 1, 4)[0]
    weights[0, 2] = 0  # ReLU may leave nothing.
    found = row_normalized(weights * 0.3)
    np.testing.assert_allclose(found, weights, atol=1e-12)


def test_divergence_agrees_with_scipy():
    first, second = probabilities(2, 3, 4, 0), probabilities(2, 2, 4, 1)
    divergence = HeadDivergence()
    divergence.update(first, second, np.array([4, 4]))
    for i, j in itertools.product(range(3), range(2)):
        expected = np.mean(
            [
                scipy.spatial.distance.jensenshannon(first[t, i, q], second[t, j, q]) ** 2
                for t in range(2)
                for q in range(4)
            ]
        )
        assert divergence.means()[i, j] == pytest.approx(expected, rel=1e-9)


def test_permuted_heads_are_matched():
    weights = probabilities(2, 4, 5)
    order = [2, 0, 3, 1]
    divergence = HeadDivergence()
    divergence.update(weights, weights[:, order], np.array([5, 4]))
    assert divergence.matching() == [(order[j], j) for j in np.argsort(order)]
    assert max(divergence.means()[i, j] for i, j in divergence.matching()) < 1e-12


def test_rollout():
    weights = probabilities(3, 2, 4)
    found = rollout(weights)
    product = np.eye(4)
    for block, reached in zip(weights, found, strict=True):
        product = (block.mean(0) + np.eye(4)) / 2 @ product
        np.testing.assert_allclose(reached, product, rtol=1e-12)
        np.testing.assert_allclose(reached.sum(1), 1)
