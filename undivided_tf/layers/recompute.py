"""Recomputation of parts of a block in the backward pass, to save memory."""

import keras
import tensorflow as tf


def recomputed(part, dropouts, *inputs):
    """Computes `part(*inputs)` and keeps only `inputs` for the gradient.

    The seeds of dropout are drawn once, so that both passes use the same masks.

    Args:
        part: function of float tensors that returns a float tensor.
        dropouts: list of the `Dropout` layers that `part` calls.
        inputs: float tensors.

    References:
        Chen et al. 2016, arXiv 1604.06174; of parts of a block: Korthikanti et al. 2022,
        arXiv 2205.05198, section 5.
    """
    generators = [dropout.seed_generator for dropout in dropouts if dropout.rate]
    seeds = [(generator.state, generator.next()) for generator in generators]

    def call(*inputs):
        # Add an opaque zero that depends on the inputs, so that XLA cannot merge the random bits of
        # both passes by common-subexpression elimination and keep them in between.
        zero = tf.stop_gradient(tf.minimum(tf.abs(tf.reshape(inputs[0], [-1])[0]), 0))
        drawn = [(state, seed + tf.cast(zero, seed.dtype)) for state, seed in seeds]
        # The scope replaces the states of the generators by the seeds that were drawn.
        with keras.StatelessScope(state_mapping=drawn):
            return part(*inputs)

    return tf.recompute_grad(call)(*inputs)
