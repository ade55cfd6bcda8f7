"""Times of forward passes of several encoders in turn, so that noise affects all alike."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from undivided_tf.models.encoder import Encoder
from undivided_tf.support import stopwatch
from undivided_tf.support.stopwatch import Name

# Rows between two readings of the clock, since one pass is short compared with its resolution.
_ROWS = 32


def forward_milliseconds(
    encoders: Mapping[Name, Encoder], *, batch_size: int, length: int, rounds: int
) -> dict[Name, list[float]]:
    """Times compiled forward passes of full rows of random word pieces.

    Args:
        encoders: encoders of one vocabulary, by name.
        batch_size: rows per pass.
        length: word pieces per row.
        rounds: number of rounds, each with all encoders, after one warm-up.

    Returns:
        By name, the milliseconds of a pass in each round.
    """
    vocabulary = min(encoder.config.vocab_size for encoder in encoders.values())
    ids = np.random.default_rng(0).integers(0, vocabulary, (batch_size, length)).astype("int32")
    batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    batch = {name: tf.constant(value) for name, value in batch.items()}
    calls = {name: _forward(encoder, batch) for name, encoder in encoders.items()}
    taken = list(stopwatch.in_turn(calls, rounds, max(1, _ROWS // batch_size)))
    return {name: [times[name] for times in taken] for name in calls}


def _forward(encoder: Encoder, batch: dict[str, tf.Tensor]) -> Callable[[], object]:
    """A compiled forward pass over a batch; returns when the output is computed."""
    compiled = tf.function(
        lambda batch: encoder(batch, training=False)["sequence_output"],
        jit_compile=True,
        autograph=False,
    )
    return lambda: compiled(batch).numpy()
