"""The places of a sequence that are asked for."""

import tensorflow as tf


def at_positions(hidden, positions):
    """Vectors at some places of each sequence.

    Args:
        hidden: float tensor (batch, length, hidden).
        positions: int tensor (batch, places), or None for all places.

    Returns:
        Float tensor (batch, places, hidden).
    """
    return hidden if positions is None else tf.gather(hidden, positions, batch_dims=1)
