"""Scores of predicted distances between the words of sentences. Needs no TensorFlow.

References:
    Hewitt, Manning 2019, NAACL, section 3.2 (UUAS and distance Spearman).
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse.csgraph
import scipy.stats

LENGTHS = range(5, 51)  # Sentence lengths that the correlation averages over.


def tree_edges(distances: np.ndarray, words: np.ndarray) -> set[tuple[int, int]]:
    """Edges of the minimum spanning tree over some words.

    Args:
        distances: `(words, words)`, from 0.
        words: indices of the words to join.

    Returns:
        Pairs of indices, the smaller one first.
    """
    # SciPy treats 0 as an absent edge; adding a constant to all edges does not change the tree.
    among = distances[np.ix_(words, words)] + 1.0
    tree = scipy.sparse.csgraph.minimum_spanning_tree(among).tocoo()
    pairs = zip(words[tree.row].tolist(), words[tree.col].tolist(), strict=True)
    return {(min(pair), max(pair)) for pair in pairs}


def attachment_score(
    predicted: Sequence[np.ndarray], gold: Sequence[np.ndarray], words: Sequence[np.ndarray]
) -> float | None:
    """UUAS: share of the true trees' edges that the predicted trees have.

    Args:
        predicted: for each sentence distances `(words, words)`.
        gold: true distances; two words have an edge if their distance is 1.
        words: for each sentence the indices that count, usually all words except punctuation.

    Returns:
        The share, from 0 to 1; None if no sentence has an edge.
    """
    correct = total = 0
    for guess, truth, places in zip(predicted, gold, words, strict=True):
        if len(places) < 2:
            continue
        rows, columns = np.nonzero(np.triu(truth[np.ix_(places, places)] == 1))
        edges = set(zip(places[rows].tolist(), places[columns].tolist(), strict=True))
        correct += len(edges & tree_edges(guess, places))
        total += len(edges)
    return correct / total if total else None


def distance_correlation(
    predicted: Sequence[np.ndarray], gold: Sequence[np.ndarray]
) -> float | None:
    """Spearman correlation of each word's distances, averaged by length, then over lengths.

    Args:
        predicted: for each sentence distances `(words, words)`.
        gold: true distances.

    Returns:
        The correlation; None if no sentence has from 5 to 50 words.
    """
    by_length: dict[int, list[float]] = {}
    for guess, truth in zip(predicted, gold, strict=True):
        if len(truth) in LENGTHS:
            ranks = [scipy.stats.rankdata(x, axis=1) for x in (guess, truth)]
            first, second = (x - x.mean(1, keepdims=True) for x in ranks)
            norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            products = (first * second).sum(1)
            # Equal distances have no rank order, so their correlation counts as 0.
            values = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
            by_length.setdefault(len(truth), []).append(float(values.mean()))
    if not by_length:
        return None
    return float(np.mean([np.mean(values) for values in by_length.values()]))
