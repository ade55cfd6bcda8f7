"""Effects of every block on the tokens of a text: collapse, contribution, linearity.

References:
    Dong, Cordonnier, Loukas 2021, arXiv 2103.03404 (rank collapse).
    Razzhigaev et al. 2024, arXiv 2405.12250 (how linear a transformer's blocks are).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.analysis import extraction
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.metrics import collapse
from undivided_tf.support import threads

MEASURES = {
    "relative_residual": collapse.relative_residual,
    "composite_residual": collapse.composite_residual,
    "effective_rank": collapse.effective_rank,
    "mean_cosine": collapse.mean_cosine,
}
FITTED = ("contribution", "output")  # What affine maps of a block's input are fitted to.
TOO_FEW_TOKENS = "fewer tokens than twice the hidden size: a linear map would fit anything"


def measure_blocks(
    subject: Subject, rows: Rows, *, batch_size: int, max_seq_length: int
) -> dict[str, Any]:
    """Measures every tap and block on the tokens of each text, special tokens included.

    Args:
        subject: the encoder.
        rows: texts.
        batch_size: texts per forward pass.
        max_seq_length: word pieces per text.

    Returns:
        `collapse`: for each name of `MEASURES` its mean over the texts, one per tap;
        `contribution_norm`: by block, the mean over tokens of the norm of the block's contribution,
        divided by the norm of the residual stream before it; `linear_r2`: by intermediate block,
        R² of its `contribution` and of its `output`, see `LinearFit`; they are None if
        `linear_reason` gives a reason; `texts` and `tokens`.

    Raises:
        InputError: no rows, texts longer than the encoder's positions, or an activation that is
            not finite.
    """
    encoder = subject.encoder
    taps = list(encoder.config.pattern.tap_names)
    blocks = taps[1:]
    before = dict(zip(blocks, taps, strict=False))
    intermediate = [block for block in blocks if block.endswith("/intermediate")]

    @tf.function(autograph=False)
    def forward(inputs):
        values = encoder(inputs, training=False, return_taps=True)["taps"]
        added = extraction.block_contributions(encoder, values, inputs["padding_mask"])
        return [
            [tf.cast(tensors[name], tf.float32) for name in names]
            for tensors, names in ((values, taps), (added, blocks))
        ]

    sums = {name: np.zeros(len(taps)) for name in MEASURES}
    shares = dict.fromkeys(blocks, 0.0)
    fits = {(block, kind): LinearFit() for block in intermediate for kind in FITTED}
    texts = tokens = 0
    for inputs, size in extraction.batches(
        encoder, subject.tokenizer, rows, batch_size, max_seq_length
    ):
        inputs = extraction.cut(inputs)
        mask = inputs["padding_mask"].numpy().astype(bool)
        mask[size:] = False
        values, added = forward(inputs)
        values = extraction.named(taps, values, mask)
        added = extraction.named(blocks, added, mask)
        ends = np.cumsum(mask[:size].sum(1))

        def of_tap(tap: str, values=values, ends=ends) -> np.ndarray:
            parts = np.split(values[tap], ends[:-1])
            return np.array([[measure(x) for x in parts] for measure in MEASURES.values()]).sum(1)

        for place, measures in enumerate(threads.each(of_tap, taps)):
            for name, value in zip(MEASURES, measures, strict=True):
                sums[name][place] += value
        for block in blocks:
            norms = [np.linalg.norm(x, axis=1) for x in (added[block], values[before[block]])]
            shares[block] += float((norms[0] / np.maximum(norms[1], 1e-30)).sum())
        # Texts alternate between fitting and scoring, since tokens of one text are too similar.
        scored = np.repeat((texts + np.arange(size)) % 2 == 1, mask[:size].sum(1))
        for block in intermediate:
            for kind, y in zip(FITTED, (added[block], values[block]), strict=True):
                fits[block, kind].update(values[before[block]], y, scored)
        texts, tokens = texts + size, tokens + len(scored)
    enough = bool(fits) and all(
        fit.fitted >= 2 * encoder.config.hidden_size for fit in fits.values()
    )
    return {
        "collapse": {name: (total / texts).tolist() for name, total in sums.items()},
        "contribution_norm": {block: share / tokens for block, share in shares.items()},
        "linear_r2": {
            block: {kind: fits[block, kind].r2() if enough else None for kind in FITTED}
            for block in intermediate
        },
        "linear_reason": None if enough or not fits else TOO_FEW_TOKENS,
        "texts": texts,
        "tokens": tokens,
    }


class LinearFit:
    """R² of the best affine map from x to y, on tokens that it was not fitted on.

    It is 1 if y is an affine map of x, 0 if the map is no better than the mean of the scored
    tokens, and below 0 if it is worse. Only sums of products are kept, not tokens, so memory is
    O(width^2).

    Attributes:
        fitted: number of tokens that the map is fitted on.
    """

    def __init__(self):
        self.fitted = self._scored = 0
        self._fit_xx = self._fit_xy = self._xx = self._xy = self._yy = self._y = 0.0

    def update(self, x: np.ndarray, y: np.ndarray, scored: np.ndarray) -> None:
        """Adds tokens.

        Args:
            x: `(tokens, width)`.
            y: `(tokens, other width)`.
            scored: bool `(tokens,)`; the map is scored on these and fitted on the others.
        """
        x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1).astype(np.float64)
        y = y.astype(np.float64)
        fit_x, fit_y = x[~scored], y[~scored]
        self._fit_xx = self._fit_xx + fit_x.T @ fit_x
        self._fit_xy = self._fit_xy + fit_x.T @ fit_y
        self.fitted += len(fit_x)
        x, y = x[scored], y[scored]
        self._xx, self._xy = self._xx + x.T @ x, self._xy + x.T @ y
        self._yy, self._y = self._yy + np.square(y).sum(), self._y + y.sum(0)
        self._scored += len(x)

    def r2(self) -> float | None:
        """Share of the variance of y, over all its features, that the map explains.

        None if nothing was scored, or y has no variance.
        """
        if not self._scored or not self.fitted:
            return None
        total = self._yy - np.square(self._y).sum() / self._scored
        if total <= 1e-12 * self._yy:
            return None
        best = np.linalg.lstsq(self._fit_xx, self._fit_xy, rcond=1e-12)[0]
        residual = self._yy - 2 * np.sum(best * self._xy) + np.sum(best * (self._xx @ best))
        return float(1 - residual / total)
