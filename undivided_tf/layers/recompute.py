"""Parts of a block that are computed twice, so that what lies within need not be kept."""

import keras
import tensorflow as tf


def recomputed(part, dropouts, *inputs):
    """`part(*inputs)`, of which only `inputs` are kept for the gradient.

    The seeds of dropout are drawn once, here, and serve both passes; so the masks are the same.

    Args:
        part: function of float tensors that gives one.
        dropouts: list of the `Dropout` layers that it calls.
        inputs: float tensors.

    References:
        Chen et al. 2016, arXiv 1604.06174; of parts of a block: Korthikanti et al. 2022,
        arXiv 2205.05198, section 5.
    """
    generators = [dropout.seed_generator for dropout in dropouts if dropout.rate]
    seeds = [(generator.state, generator.next()) for generator in generators]

    def call(*inputs):
        # A zero that no compiler sees through. Did the seeds not depend on the inputs, the random
        # bits of both passes would be one computation, and be kept from the first to the second.
        zero = tf.stop_gradient(tf.minimum(tf.abs(tf.reshape(inputs[0], [-1])[0]), 0))
        drawn = [(state, seed + tf.cast(zero, seed.dtype)) for state, seed in seeds]
        # The scope hides the states of the generators behind the seeds that were drawn.
        with keras.StatelessScope(state_mapping=drawn):
            return part(*inputs)

    return tf.recompute_grad(call)(*inputs)
