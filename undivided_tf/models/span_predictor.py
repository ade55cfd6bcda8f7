"""Extractive question answering: predicts the first and last word piece of the answer."""

import keras
from keras import ops

from undivided_tf.layers.initializers import truncated_normal


class SpanPredictor(keras.Model):
    """An encoder and a linear layer with a start and an end score for every word piece.

    For Keras `compile` and `fit` with labels (batch, 2): the positions of the first and the last
    piece. 0 and 0, the position of [CLS], mean no answer.

    Args:
        encoder: Encoder. Trained together with the head, except for its pooler.
        seed: int or None. Decides the head's initial values.

    Examples:
        >>> from undivided_tf.config import EncoderConfig
        >>> from undivided_tf.models.encoder import Encoder
        >>> encoder = Encoder(EncoderConfig(vocab_size=100, hidden_size=8, num_attention_heads=2,
        ...                                 intermediate_size=16, block_pattern="AAI"))
        >>> predictor = SpanPredictor(encoder)
        >>> predictor.compile(
        ...     "adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> ids = ops.array([[2, 5, 6, 3]])
        >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids // ids}
        >>> predictor(batch).shape
        TensorShape([1, 2, 4])

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 4.2.
    """

    def __init__(self, encoder, seed=None, name="span_predictor", **kwargs):
        super().__init__(name=name, **kwargs)
        self.encoder = encoder
        # The pooler is not in the graph, so it has no gradient.
        encoder.pooler.trainable = False
        self.head = keras.layers.Dense(
            2,
            kernel_initializer=truncated_normal(encoder.config.initializer_range, seed, "head"),
            dtype="float32",
            name="span_head",
        )
        self.head.build((None, None, encoder.config.hidden_size))
        self.built = True

    def call(self, inputs, training=None):
        """Scores every piece as the first and as the last piece of the answer.

        Args:
            inputs: dict of int tensors (batch, length), those of the encoder.
            training: bool. Whether dropout is on.

        Returns:
            float32 logits (batch, 2, length), start scores first; -1e9 for padding.
        """
        encoded = self.encoder(inputs, training=training)
        logits = ops.transpose(self.head(encoded["sequence_output"]), (0, 2, 1))
        real = ops.cast(inputs["padding_mask"], "bool")[:, None, :]
        return ops.where(real, logits, -1e9)
