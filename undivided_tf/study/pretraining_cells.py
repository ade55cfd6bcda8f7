"""What a study does with a pre-training: it trains, and times the encoder that came of it."""

import statistics
from typing import Any

from undivided_tf.analysis.latency import forward_milliseconds
from undivided_tf.pretraining_recipes import PretrainingConfig
from undivided_tf.training import checkpoints
from undivided_tf.training.pretraining import pretrain

_ROUNDS = 15


def pretrain_and_time(config: PretrainingConfig) -> dict[str, Any]:
    """Pre-trains; what `pretrain` returns, and `latency_milliseconds`.

    That is the median time of a compiled forward pass of the encoder on one full row.
    """
    results = pretrain(config)
    encoder, _ = checkpoints.load_encoder(config.workdir)
    length = encoder.config.max_position_embeddings
    times = forward_milliseconds({0: encoder}, batch_size=1, length=length, rounds=_ROUNDS)
    return {**results, "latency_milliseconds": statistics.median(times[0])}
