import numpy as np
import pytest
import scipy.stats

from undivided_tf.metrics import trees

# A path 0 - 1 - 2 with 3 on 1.
PATH = np.array([[0, 1, 2, 2], [1, 0, 1, 1], [2, 1, 0, 2], [2, 1, 2, 0]])


def test_a_spanning_tree_of_true_distances_is_the_tree():
    words = np.arange(4)
    assert trees.tree_edges(PATH, words) == {(0, 1), (1, 2), (1, 3)}
    assert trees.attachment_score([PATH * 0.1], [PATH], [words]) == 1
    assert trees.tree_edges(PATH, np.array([0, 1, 3])) == {(0, 1), (1, 3)}
    assert trees.tree_edges(np.zeros((2, 2)), np.arange(2)) == {(0, 1)}


def test_edges_are_counted_over_all_sentences_and_without_punctuation():
    chain = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    words = [np.arange(4), np.array([0, 1, 2])]
    # The chain has 0-1, 1-2 of three edges; without the last word two of two.
    assert trees.attachment_score([chain, chain], [PATH, PATH], words) == pytest.approx(4 / 5)
    assert trees.attachment_score([chain], [PATH], [np.array([0])]) is None


def test_correlation_agrees_with_scipy_and_counts_lengths_alike():
    rng = np.random.default_rng(0)

    def sentence(n):
        gold = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        noise = rng.random((n, n)) * 4
        return gold + noise + noise.T, gold

    pairs = [sentence(n) for n in (6, 6, 6, 9, 4, 51)]
    by_length = {}
    for guess, gold in pairs[:4]:
        values = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(guess, gold, strict=True)]
        by_length.setdefault(len(gold), []).append(np.mean(values))
    expected = np.mean([np.mean(values) for values in by_length.values()])
    found = trees.distance_correlation(*zip(*pairs, strict=True))
    assert found == pytest.approx(expected, rel=1e-9)
    assert trees.distance_correlation([gold for _, gold in pairs], [g for _, g in pairs]) == 1
    assert trees.distance_correlation([PATH], [PATH]) is None
    assert trees.distance_correlation([np.ones((6, 6))], [pairs[0][1]]) == 0
