"""The neighbour model: predicts a masked word piece from the counts of its two neighbours.

Its loss is a reference for pre-training. The unigram entropy is the loss of a model that ignores
its input; the neighbour model makes the simplest use of context. An encoder whose loss is not lower
has not learnt to use more than the adjacent pieces. Needs no TensorFlow.

All distributions are over the word pieces that can be masked. Special pieces are never predicted,
so they have no probability, but they are neighbours:

    P(x)     = (c(x) + T / V) / (N + T)
    P(x | l) = (c(l, x) + T(l) P(x)) / (N(l) + T(l))
    P(x | r) = (c(x, r) + T(r) P(x)) / (N(r) + T(r))
    P(x | l, r) = P(x | l) P(x | r) / P(x) / Z(l, r)

c are counts of the training rows, N are their sums, V is the number of pieces that can be masked,
and T are numbers of distinct pieces: T(l) right of l, T(r) left of r. The first three lines are
Witten-Bell smoothing: the lower-order distribution gets a share T / (N + T), the rate of new
pieces; below that of single pieces is the uniform distribution. So no probability is 0. The last
line assumes that the neighbours are independent given the piece.

With a_l(x) = c(l, x) / (N(l) + T(l)), w_l its sum over x, and the same for r,
P(x | l) = a_l(x) + (1 - w_l) P(x), and multiplying out gives

    Z(l, r) = sum_x P(x | l) P(x | r) / P(x) = sum_x a_l(x) a_r(x) / P(x) + 1 - w_l w_r,

a sum over only the pieces that were counted beside both. A neighbour that was never counted
([MASK], padding, a piece that is not in the training rows) has a = 0 and w = 0, so it has no
effect.

References:
    Witten and Bell 1991, IEEE Transactions on Information Theory 37(4), method C.
    Chen and Goodman 1999, Computer Speech and Language 13(4), section 2.5 (interpolated form).
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse


class NeighbourModel:
    """Log-probabilities of masked pieces given both neighbours.

    Args:
        unigrams: int `(vocab_size,)`, counts of word pieces.
        bigrams: sparse int `(vocab_size, vocab_size)`, counts of adjacent pieces; rows are the left
            pieces.
        is_target: bool `(vocab_size,)`, the pieces that can be masked.
    """

    def __init__(
        self, unigrams: np.ndarray, bigrams: scipy.sparse.csr_array, is_target: np.ndarray
    ):
        counts = np.where(is_target, unigrams, 0)
        total, kinds = counts.sum(), np.count_nonzero(counts)
        if total:
            smoothed = (counts + kinds / is_target.sum()) / (total + kinds)
        else:
            smoothed = np.full(len(counts), 1 / is_target.sum())
        self._unigram = np.where(is_target, smoothed, 0.0)
        self._is_target = is_target
        # Rows: a neighbour; columns: the piece beside it.
        self._left = _shares(bigrams, is_target)
        self._right = _shares(scipy.sparse.csr_array(bigrams.T), is_target)

    def log_probabilities(
        self, left: np.ndarray, right: np.ndarray, pieces: np.ndarray
    ) -> np.ndarray:
        """log P(piece | left, right) in nats.

        Args:
            left, right: int `(places,)`, the visible neighbours, [MASK] and padding included.
            pieces: int `(places,)`, pieces that can be masked.

        Returns:
            float64 `(places,)`.
        """
        if not self._is_target[pieces].all():
            wrong = int(pieces[np.flatnonzero(~self._is_target[pieces])[0]])
            raise ValueError(f"piece {wrong} is special and is never predicted")
        unigram = self._unigram[pieces]
        logs = -np.log(unigram) - np.log(self._normalisers(left, right))
        for (shares, sums), neighbours in ((self._left, left), (self._right, right)):
            seen = _elements(shares, neighbours, pieces)
            logs += np.log(seen + (1 - sums[neighbours]) * unigram)
        return logs

    def _normalisers(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Z, float64 `(places,)`."""
        (shares_left, sums_left), (shares_right, sums_right) = self._left, self._right
        size = len(self._unigram)
        pairs, place = np.unique(left.astype(np.int64) * size + right, return_inverse=True)
        lefts, rights = pairs // size, pairs % size
        counted = np.flatnonzero((sums_left[lefts] > 0) & (sums_right[rights] > 0))
        products = np.zeros(len(pairs))
        # The longer row of a pair is made dense once for all its pairs, so the time of a pair is
        # proportional to its shorter row.
        longer_left = np.diff(shares_left.indptr)[lefts] > np.diff(shares_right.indptr)[rights]
        for chosen, longer, shorter, longer_ids, shorter_ids in (
            (counted[longer_left[counted]], shares_left, shares_right, lefts, rights),
            (counted[~longer_left[counted]], shares_right, shares_left, rights, lefts),
        ):
            chosen = chosen[np.argsort(longer_ids[chosen], kind="stable")]
            ids, starts = np.unique(longer_ids[chosen], return_index=True)
            weighted = np.zeros(size)
            for i, start, stop in zip(ids, starts, [*starts[1:], len(chosen)], strict=False):
                row = slice(longer.indptr[i], longer.indptr[i + 1])
                columns = longer.indices[row]
                weighted[columns] = longer.data[row] / self._unigram[columns]
                group = chosen[start:stop]
                products[group] = shorter[shorter_ids[group]] @ weighted
                weighted[columns] = 0.0
        return (products + 1 - sums_left[lefts] * sums_right[rights])[place]

    def masked_losses(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Losses at the masked places of rows, given the neighbours that the encoder sees there.

        The neighbours are the visible pieces: a masked neighbour shows [MASK], a random piece or
        itself. The visible piece at the masked place is not used. At one place in ten it is the
        correct piece, which an encoder can use, so the comparison favours the encoder.

        Args:
            batch: result of `masking.mask_tokens`: `token_ids` `(rows, length)`,
                `masked_positions`, `masked_ids` and `masked_weights` `(rows, predictions)`.

        Returns:
            Nats, float32 `(rows, predictions)`; 0 in unused slots.
        """
        ids, positions = batch["token_ids"], batch["masked_positions"]
        used = batch["masked_weights"] > 0
        row, slot = np.nonzero(used)
        place = positions[row, slot]  # [CLS] is before and [SEP] after each place.
        losses = np.zeros(used.shape, np.float32)
        losses[used] = -self.log_probabilities(
            ids[row, place - 1], ids[row, place + 1], batch["masked_ids"][row, slot]
        )
        return losses


def _shares(
    counts: scipy.sparse.csr_array, is_target: np.ndarray
) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """The shares a of pieces beside each neighbour, and their sums w `(vocab_size,)`."""
    counts = counts.copy()
    counts.data *= is_target[counts.indices]
    counts.eliminate_zeros()
    counts.sort_indices()
    totals, kinds = counts.sum(axis=1), np.diff(counts.indptr)
    scale = 1 / np.maximum(totals + kinds, 1)
    shares = scipy.sparse.csr_array(
        (counts.data * np.repeat(scale, kinds), counts.indices, counts.indptr), counts.shape
    )
    return shares, totals * scale


def _elements(matrix: scipy.sparse.csr_array, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Elements of a sparse matrix at (row, column) pairs; 0 if none is stored."""
    size = matrix.shape[1]
    kinds = np.diff(matrix.indptr)
    # Rows are in order and their columns are sorted, so these numbers ascend.
    stored = np.repeat(np.arange(len(kinds), dtype=np.int64), kinds) * size + matrix.indices
    wanted = rows.astype(np.int64) * size + columns
    if not len(stored):
        return np.zeros(len(wanted))
    place = np.minimum(np.searchsorted(stored, wanted), len(stored) - 1)
    return np.where(stored[place] == wanted, matrix.data[place], 0.0)
