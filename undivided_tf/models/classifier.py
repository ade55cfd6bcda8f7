"""Classification of, and regression on, sentences and sentence pairs."""

from typing import Any, Self

import keras
from keras import ops

from undivided_tf.config import CLASSIFIER_POOLINGS, PAIR_POOLING
from undivided_tf.layers.dropout import Dropout
from undivided_tf.layers.initializers import derive_seed, truncated_normal
from undivided_tf.models.heads import (
    CLASSIFICATION,
    REGRESSION,
    ClassifierHead,
    head_width,
    num_outputs,
)


def pool(encoded, inputs, pooling):
    """Pools the tokens of each sequence into one vector.

    Args:
        encoded: dict that an Encoder returns.
        inputs: dict of int tensors (batch, length): `padding_mask`, and `segment_ids`, which
            `segments` reads.
        pooling: str.
            - `first`: the pooler's output on [CLS].
            - `mean`, `max`: over real tokens.
            - `segments`: for a pair, the concatenation of u, v, |u - v| and u * v, where u and v
              are the means over the tokens of each text. A linear head on u and v alone could
              not compare them.

    Returns:
        Float tensor (batch, hidden), with `segments` (batch, 4 * hidden).

    References:
        Conneau et al. 2017, arXiv 1705.02364, section 3.1 (the features of `segments`).
    """
    if pooling == "first":
        return encoded["pooled_output"]
    sequence, real = encoded["sequence_output"], inputs["padding_mask"]
    if pooling == "max":
        # A separate operation, because LiteRT has no slice that adds an axis to a dynamic shape.
        mask = ops.expand_dims(real, -1)
        lowest = -1e4  # Below any activation; finite in half precision.
        return ops.max(ops.where(mask > 0, sequence, lowest), axis=1)
    if pooling == "mean":
        return _mean(sequence, real)
    if pooling == PAIR_POOLING:
        second = real * inputs["segment_ids"]
        u, v = _mean(sequence, real - second), _mean(sequence, second)
        return ops.concatenate([u, v, ops.abs(u - v), u * v], axis=-1)
    known = ", ".join(CLASSIFIER_POOLINGS)
    raise ValueError(f"pooling must be one of {known}, got {pooling!r}")


def _mean(sequence, mask):
    """Mean over the tokens of a 0-1 mask; zeros for a row without tokens, as in padded batches."""
    mask = ops.expand_dims(ops.cast(mask, sequence.dtype), -1)
    return ops.sum(sequence * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)


class Classifier(keras.Model):
    """An encoder, a pooled vector, dropout and a linear layer; for Keras `compile` and `fit`.

    Args:
        encoder: Encoder. Trained together with the head.
        labels: sequence of str. Names of the classes, in the order of the logits; empty for a
            regression, which has one output.
        pooling: str. See `pool`.
        classifier_dropout: float. Dropout on the pooled vector.
        seed: int or None. Decides the head's initial values and dropout.
        kind: str. `classification`, `regression` or `multi_label` (any number of labels may hold at
            once); None: classification if there are labels, else regression.

    Examples:
        >>> from undivided_tf.config import EncoderConfig
        >>> from undivided_tf.models.encoder import Encoder
        >>> encoder = Encoder(EncoderConfig(vocab_size=100, hidden_size=8, num_attention_heads=2,
        ...                                 intermediate_size=16, block_pattern="AAI"))
        >>> classifier = Classifier(encoder, labels=["negative", "positive"])
        >>> classifier.compile(
        ...     "adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> ids = ops.array([[2, 5, 6, 3]])
        >>> batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids // ids}
        >>> classifier(batch).shape
        TensorShape([1, 2])
    """

    def __init__(
        self,
        encoder,
        labels,
        pooling="first",
        classifier_dropout=0.1,
        seed=None,
        kind=None,
        name="classifier",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.encoder = encoder
        self.labels = tuple(labels)
        self.pooling = pooling
        self.kind = kind or (CLASSIFICATION if self.labels else REGRESSION)
        # Other poolings do not use the pooler, so it has no gradient.
        encoder.pooler.trainable = pooling == "first"
        self.dropout = Dropout(
            classifier_dropout, seed=derive_seed(seed, "dropout"), name="dropout"
        )
        self.head = keras.layers.Dense(
            num_outputs(self.kind, self.labels),
            kernel_initializer=truncated_normal(encoder.config.initializer_range, seed, "head"),
            dtype="float32",
            name="classifier_head",
        )
        self.head.build((None, head_width(encoder.config.hidden_size, pooling)))
        self.built = True

    @classmethod
    def from_head(cls, encoder: Any, head: ClassifierHead) -> Self:
        """The classifier that a head describes; its last layer has initial values.

        Args:
            encoder: Encoder.
            head: of a fine-tuned model.
        """
        return cls(encoder, head.labels, head.pooling, kind=head.kind)

    def call(self, inputs, training=None):
        """Scores the classes.

        Args:
            inputs: dict of int tensors (batch, length), those of the encoder.
            training: bool. Whether dropout is on.

        Returns:
            float32 logits (batch, labels), or (batch, 1) for a regression.
        """
        pooled = pool(self.encoder(inputs, training=training), inputs, self.pooling)
        return self.head(self.dropout(pooled, training=training))
