"""Milliseconds of forward passes, of several encoders in turn so that noise hits all alike."""

import time
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import tensorflow as tf

from undivided_tf.models.encoder import Encoder

Name = TypeVar("Name", str, int)
# As many rows are worked off between two readings of the clock, whose grain a short pass feels.
_ROWS = 32


def forward_milliseconds(
    encoders: Mapping[Name, Encoder], *, batch_size: int, length: int, rounds: int
) -> dict[Name, list[float]]:
    """Times compiled forward passes of full rows of random word pieces.

    Args:
        encoders: by any name; all of one vocabulary.
        batch_size: rows of a pass.
        length: word pieces of a row.
        rounds: in each of which every encoder has its turn, after one to warm up.

    Returns:
        By name, the milliseconds of a pass in each round.
    """
    calls = {
        name: tf.function(
            lambda batch, encoder=encoder: encoder(batch, training=False)["sequence_output"],
            jit_compile=True,
            autograph=False,
        )
        for name, encoder in encoders.items()
    }
    vocabulary = min(encoder.config.vocab_size for encoder in encoders.values())
    ids = np.random.default_rng(0).integers(0, vocabulary, (batch_size, length)).astype("int32")
    batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    batch = {name: tf.constant(value) for name, value in batch.items()}
    repeats = max(1, _ROWS // batch_size)
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(batch).numpy()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(repeats):
                call(batch).numpy()
            times[name].append(1000 * (time.perf_counter() - started) / repeats)
    return times
