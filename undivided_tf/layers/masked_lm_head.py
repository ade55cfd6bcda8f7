"""The head that predicts masked word pieces."""

import keras
from keras import ops

from undivided_tf.layers.initializers import truncated_normal
from undivided_tf.layers.intermediate_block import activation
from undivided_tf.layers.positions import at_positions


@keras.saving.register_keras_serializable(package="undivided_tf")
class MaskedLMHead(keras.layers.Layer):
    """Dense, activation and LayerNorm on the masked positions, then the tied word embeddings.

    The masked positions are gathered first, so that the product with the vocabulary, the most
    expensive matrix product, is computed for the masked tokens only.

    Args:
        vocab_size: int. Number of word pieces.
        hidden_activation: str. As in the intermediate blocks.
        layer_norm_eps: float. Added to the variance in LayerNorm.
        initializer_range: float. Deviation of the truncated normal initialiser.
        seed: int or None. Decides initial values.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 3.1; `get_masked_lm_output` of
        google-research/bert.
    """

    def __init__(
        self,
        vocab_size,
        hidden_activation="gelu",
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_activation = hidden_activation
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.seed = seed

    def build(self, input_shape):
        """Builds all sublayers; `input_shape` is (batch, length, hidden)."""
        self.transform = keras.layers.Dense(
            input_shape[-1],
            activation=activation(self.hidden_activation),
            kernel_initializer=truncated_normal(self.initializer_range, self.seed, "transform"),
            dtype=self.dtype_policy,
            name="transform",
        )
        self.transform.build(input_shape)
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_eps, dtype=self.dtype_policy, name="layer_norm"
        )
        self.layer_norm.build(input_shape)
        self.output_bias = self.add_weight(
            shape=(self.vocab_size,), initializer="zeros", name="output_bias"
        )
        self.built = True

    def call(self, sequence_output, masked_positions, word_embeddings):
        """Scores every word piece at every masked position.

        Args:
            sequence_output: float tensor (batch, length, hidden).
            masked_positions: int tensor (batch, predictions); None: `sequence_output` holds the
                masked positions only, as returned by an encoder called with `positions`.
            word_embeddings: float tensor (vocabulary, hidden), shared with the input.

        Returns:
            float32 logits (batch, predictions, vocabulary).
        """
        hidden = at_positions(sequence_output, masked_positions)
        hidden = self.layer_norm(self.transform(hidden))
        table = ops.cast(word_embeddings, hidden.dtype)
        logits = ops.matmul(hidden, ops.transpose(table)) + ops.cast(self.output_bias, hidden.dtype)
        # float32, because the loss exponentiates and sums over the whole vocabulary.
        return ops.cast(logits, "float32")

    def compute_output_shape(
        self, sequence_output_shape, masked_positions_shape=None, word_embeddings_shape=None
    ):
        """(batch, predictions, vocabulary)."""
        return (*(masked_positions_shape or sequence_output_shape)[:2], self.vocab_size)

    def compute_output_spec(self, sequence_output, masked_positions, word_embeddings):
        """The shape with type float32; by default Keras would assume the compute type."""
        shape = None if masked_positions is None else masked_positions.shape
        return keras.KerasTensor(
            self.compute_output_shape(sequence_output.shape, shape), dtype="float32"
        )

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_activation": self.hidden_activation,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "seed": self.seed,
        }
