"""Attention patterns: statistics of heads, their similarity across encoders, rollout.

Sums run over the tokens of each text without padding, special tokens included. Rows of
probabilities that do not add up to 1, as with ReLU attention, are divided by their sums. Needs no
TensorFlow.

References:
    Clark, Khandelwal, Levy, Manning 2019, arXiv 1906.04341 (what BERT's heads look at).
    Abnar, Zuidema 2020, arXiv 2005.00928 (attention rollout).
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special

STATISTICS = ("entropy", "distance", "first", "separator", "self", "next", "previous")


def row_normalized(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `(..., keys)` in float64; each row adds up to 1 or is all 0."""
    wide = np.asarray(probabilities, np.float64)
    sums = wide.sum(-1, keepdims=True)
    return np.divide(wide, sums, out=np.zeros_like(wide), where=sums > 0)


class HeadStatistics:
    """Means over the tokens of many texts, for each head of one block.

    Args:
        separator_id: id of [SEP].
    """

    def __init__(self, separator_id: int):
        self._separator_id = separator_id
        self._sums: np.ndarray | None = None
        self._tokens = 0

    def update(self, probabilities: np.ndarray, token_ids: np.ndarray, lengths: np.ndarray) -> None:
        """Adds texts.

        Args:
            probabilities: `(texts, heads, length, length)`, queries before keys.
            token_ids: `(texts, length)`.
            lengths: tokens of each text, padding excluded.
        """
        for weights, ids, length in zip(probabilities, token_ids, lengths, strict=True):
            weights = row_normalized(weights[:, :length, :length])
            places = np.arange(length)
            away = np.abs(places[:, None] - places[None, :])
            separator = weights[:, :, ids[:length] == self._separator_id]
            sums = np.stack(
                [
                    scipy.special.entr(weights).sum((1, 2)),
                    (weights * away).sum((1, 2)),
                    weights[:, :, 0].sum(1),
                    separator.sum((1, 2)),
                    np.trace(weights, axis1=1, axis2=2),
                    np.trace(weights, offset=1, axis1=1, axis2=2),
                    np.trace(weights, offset=-1, axis1=1, axis2=2),
                ]
            )
            self._sums = sums if self._sums is None else self._sums + sums
            self._tokens += int(length)

    def means(self) -> dict[str, list[float]]:
        """For each head: entropy (nats), distance in tokens, and shares of the weight.

        `first` is the share on [CLS], `separator` on all [SEP], `self` on the token itself, `next`
        and `previous` on its neighbours.
        """
        means = self._sums / self._tokens
        return {name: row.tolist() for name, row in zip(STATISTICS, means, strict=True)}


class HeadDivergence:
    """Mean Jensen-Shannon divergence (nats, 0 to ln 2) between the heads of two blocks."""

    def __init__(self):
        self._sums: np.ndarray | None = None
        self._tokens = 0

    def update(self, first: np.ndarray, second: np.ndarray, lengths: np.ndarray) -> None:
        """Adds texts.

        Args:
            first: probabilities `(texts, heads, length, length)` of a block.
            second: the same of a block of another encoder, for the same tokens.
            lengths: tokens of each text.
        """
        for *pair, length in zip(first, second, lengths, strict=True):
            heads, other_heads = (row_normalized(x[:, :length, :length]) for x in pair)
            entropies = [scipy.special.entr(x).sum((1, 2)) for x in (heads, other_heads)]
            # One head of the first at a time, since all pairs at once would take much memory.
            mixed = np.stack(
                [scipy.special.entr((head[None] + other_heads) / 2).sum((1, 2)) for head in heads]
            )
            sums = mixed - (entropies[0][:, None] + entropies[1][None, :]) / 2
            self._sums = sums if self._sums is None else self._sums + sums
            self._tokens += int(length)

    def means(self) -> np.ndarray:
        """The divergences `(heads of the first, heads of the second)`."""
        return np.maximum(self._sums / self._tokens, 0)

    def matching(self) -> list[tuple[int, int]]:
        """The pairing of heads with the smallest sum of divergences.

        References:
            Kuhn 1955, Naval Research Logistics Quarterly 2 (the assignment problem).
        """
        rows, columns = scipy.optimize.linear_sum_assignment(self.means())
        return list(zip(rows.tolist(), columns.tolist(), strict=True))


def rollout(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Attention rollout: the share of every input token in every token after each block.

    Heads are averaged, and the residual connection has half the weight: A = (W + 1) / 2.

    Args:
        blocks: probabilities `(heads, length, length)` of one text, from the first block on.

    Returns:
        For each block `(length, length)`, the product of all blocks up to it; rows add up to 1.
    """
    reached, products = None, []
    for weights in blocks:
        mean = row_normalized(row_normalized(weights).mean(0))
        mixed = (mean + np.eye(len(mean))) / 2
        reached = mixed if reached is None else mixed @ reached
        products.append(reached)
    return products
