"""Monitors during training whether the tokens of a text become similar.

References:
    Dong, Cordonnier, Loukas 2021, arXiv 2103.03404 (attention alone collapses to rank 1).
"""

from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf.data import streams
from undivided_tf.metrics.collapse import relative_residual
from undivided_tf.tokenization import Tokenizer

ALARM = 0.2  # The mean of all tokens then has 96 % of the squared norm.
_ROWS = 8


class CollapseWatch:
    """Measures the relative residual of every tap on a few fixed held-out rows.

    Args:
        encoder: the Encoder in training.
        records_dir: output of `create_records`.
        tokenizer: of the records.
    """

    def __init__(self, encoder: Any, records_dir: str, tokenizer: Tokenizer):
        ids = np.asarray(streams.validation_rows(records_dir, _ROWS)["token_ids"])
        self._encoder, self._mask = encoder, ids != tokenizer.pad_id
        self._inputs = {
            "token_ids": tf.constant(ids),
            "segment_ids": tf.zeros_like(ids),
            "padding_mask": tf.constant(self._mask.astype(np.int32)),
        }
        self._alarmed = False

    def residuals(self, step: int) -> dict[str, float]:
        """The mean relative residual of each tap, by its name; see `metrics.collapse`.

        Warns if a tap falls below `ALARM`. The next warning needs all taps to rise above it first.

        Args:
            step: named in the warning.
        """
        taps = self._encoder(self._inputs, training=False, return_taps=True)["taps"]
        residuals = {}
        for name, tap in taps.items():
            rows = tf.cast(tap, tf.float32).numpy()
            texts = [row[mask] for row, mask in zip(rows, self._mask, strict=True)]
            residuals[name] = float(np.mean([relative_residual(text) for text in texts]))
        low = [name for name, residual in residuals.items() if residual < ALARM]
        if low and not self._alarmed:
            logging.warning(
                "step %d: RANK COLLAPSE begins: at %s the tokens of a text differ by %.3f of their "
                "norm (alarm below %g); try a lower --learning_rate, --norm_first, or a pattern "
                "with more intermediate blocks",
                step,
                low[0],
                residuals[low[0]],
                ALARM,
            )
        self._alarmed = bool(low)
        return residuals
