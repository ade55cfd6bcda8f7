"""Dropout with random numbers from a hash of the element's index, cheap to compute twice."""

import keras
import tensorflow as tf

_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: separates seeds, calls and replicas.


@keras.saving.register_keras_serializable(package="undivided_tf")
class Dropout(keras.layers.Layer):
    """Like `keras.layers.Dropout`, with the same state but another random source.

    32 random bits decide whether an element is kept: a hash of its index, keyed by the seed, the
    count of earlier calls and the number of the replica. The hash takes a dozen integer operations.
    XLA fuses them with the operations that use the mask, in the forward and the backward pass, so
    no mask is stored. Keras's Philox generator takes over a hundred operations and stores the mask.
    Seed and count are a variable, as in Keras, so a restored layer continues with the same masks.

    Args:
        rate: float in [0, 1). Probability that an element becomes 0; the others are divided by
            1 - rate.
        seed: int or None. None draws one.

    References:
        Srivastava et al. 2014, JMLR 15. The hash is the finaliser of MurmurHash3 (Appleby 2011),
        applied twice with a key before each. Random numbers as a hash of a counter: Salmon et al.
        2011, doi 10.1145/2063384.2063405.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be from 0 and below 1, got {rate}")
        self.rate = rate
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=None):
        """Drops elements of a float tensor of any shape if `training` is true."""
        if not training or not self.rate:
            return inputs
        seed, calls = tf.unstack(tf.cast(self.seed_generator.next(), tf.uint32))
        bits = random_bits(tf.shape(inputs), _keys(seed, calls, _replica()))
        keep = bits >= tf.constant(round(self.rate * 2**32), tf.uint32)
        return tf.where(keep, inputs / (1.0 - self.rate), tf.zeros([], inputs.dtype))

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def random_bits(shape, keys):
    """Draws 32 random bits for each element of a tensor; equal keys give equal bits.

    Args:
        shape: int32 tensor (rank,), of fewer than 2^31 elements.
        keys: two uint32 scalars.

    Returns:
        uint32 tensor of that shape.
    """
    index = tf.reshape(tf.range(tf.reduce_prod(shape)), shape)
    # With a single key, another key would only shift or permute the same 2^32 values, so that some
    # elements would repeat the bits of others.
    return _hash(_hash(tf.cast(index, tf.uint32) + keys[0]) ^ keys[1])


def _keys(seed, calls, replica):
    """Hashes seed, call count and replica into two uint32 scalars."""
    first = _hash(seed + _constant(_GOLDEN))
    for number in (calls, replica):
        first = _hash(first + number * _constant(_GOLDEN))
    return first, _hash(first ^ seed ^ _constant(_GOLDEN))


def _replica():
    """Number of this replica; replicas must not drop the same elements."""
    context = tf.distribute.get_replica_context()
    return tf.cast(context.replica_id_in_sync_group if context else 0, tf.uint32)


def _hash(bits):
    """MurmurHash3's 32-bit finaliser: a permutation; each input bit flips half of all bits."""
    bits = (bits ^ tf.bitwise.right_shift(bits, _constant(16))) * _constant(0x85EBCA6B)
    bits = (bits ^ tf.bitwise.right_shift(bits, _constant(13))) * _constant(0xC2B2AE35)
    return bits ^ tf.bitwise.right_shift(bits, _constant(16))


def _constant(value):
    return tf.constant(value, tf.uint32)
