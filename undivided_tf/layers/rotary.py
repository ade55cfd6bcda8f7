"""Rotary position embeddings: rotations of queries and keys in proportion to their positions."""

import numpy as np
import tensorflow as tf


def rotary_angles(places, head_width, base):
    """Cosines and sines of the rotation angles of some positions.

    Pair i of a head's features is rotated by `place * base ** (-2 i / head_width)` radians.

    Args:
        places: int tensor (rows, places); one row applies to a whole batch.
        head_width: int. Features of a head; even.
        base: float. The slowest pair is rotated by about 1 / base radians per position.

    Returns:
        Two float32 tensors (rows, places, head_width / 2).
    """
    # float32 under every policy: an angle may be as large as the sequence is long, and bfloat16 has
    # only 8 significant bits.
    speeds = (base ** (-np.arange(0, head_width, 2) / head_width)).astype("float32")
    # expand_dims, because LiteRT has no strided slice that adds an axis after an ellipsis.
    angles = tf.expand_dims(tf.cast(places, tf.float32), -1) * speeds
    return tf.cos(angles), tf.sin(angles)


def rotate(vectors, angles):
    """Rotates the pairs of features of every head.

    Feature i is paired with feature i + head_width / 2 (the half-split pairing of GPT-NeoX and
    LLaMA; the paper's interleaved pairing differs by a permutation of the features).

    Args:
        vectors: float tensor (batch, places, heads, head_width).
        angles: result of `rotary_angles` for these positions.

    Returns:
        Tensor like `vectors`; computed in float32.

    References:
        Su et al. 2021, arXiv 2104.09864, equations 15 and 34.
    """
    cosines, sines = (tf.expand_dims(angle, 2) for angle in angles)
    first, second = tf.split(tf.cast(vectors, tf.float32), 2, axis=-1)
    rotated = tf.concat(
        [first * cosines - second * sines, second * cosines + first * sines], axis=-1
    )
    return tf.cast(rotated, vectors.dtype)
