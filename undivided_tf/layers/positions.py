"""Selection of positions of a sequence."""

import tensorflow as tf


def at_positions(hidden, positions):
    """Gathers the vectors at some positions of each sequence.

    Args:
        hidden: float tensor (batch, length, hidden).
        positions: int tensor (batch, places), or None for all positions.

    Returns:
        Float tensor (batch, places, hidden).
    """
    return hidden if positions is None else tf.gather(hidden, positions, batch_dims=1)
