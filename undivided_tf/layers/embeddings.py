"""Word, position and segment embeddings."""

import keras
from keras import ops

from undivided_tf.errors import InputError
from undivided_tf.layers.dropout import Dropout
from undivided_tf.layers.initializers import derive_seed, truncated_normal


@keras.saving.register_keras_serializable(package="undivided_tf")
class Embeddings(keras.layers.Layer):
    """Sum of word, position and segment embeddings, then LayerNorm and dropout.

    Encoders with relative positions have no position embeddings; the sum is then that of word and
    segment embeddings. `max_position_embeddings` bounds the length in both cases.

    Args:
        vocab_size: int. Number of word pieces.
        hidden_size: int. Width of the output.
        max_position_embeddings: int. Longest sequence.
        type_vocab_size: int. Number of segment ids.
        hidden_dropout_prob: float. Dropout on the output.
        layer_norm_eps: float. Added to the variance in LayerNorm.
        initializer_range: float. Deviation of the truncated normal initialiser.
        use_position_embeddings: bool. Whether to add position embeddings.
        seed: int or None. Decides initial values and dropout.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 3 and figure 2.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        max_position_embeddings=512,
        type_vocab_size=2,
        hidden_dropout_prob=0.1,
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        use_position_embeddings=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.use_position_embeddings = use_position_embeddings
        self.seed = seed

        def table(rows, name):
            return keras.layers.Embedding(
                rows,
                hidden_size,
                embeddings_initializer=truncated_normal(initializer_range, seed, name),
                dtype=self.dtype_policy,
                name=name,
            )

        self.word_embeddings = table(vocab_size, "word_embeddings")
        self.position_embeddings = (
            table(max_position_embeddings, "position_embeddings")
            if use_position_embeddings
            else None
        )
        self.segment_embeddings = table(type_vocab_size, "segment_embeddings")
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_eps, dtype=self.dtype_policy, name="layer_norm"
        )
        self.dropout = Dropout(
            hidden_dropout_prob,
            seed=derive_seed(seed, "dropout"),
            dtype=self.dtype_policy,
            name="dropout",
        )

    def build(self, input_shape):
        """Builds the tables and LayerNorm; `input_shape` is (batch, length)."""
        for table in (self.word_embeddings, self.position_embeddings, self.segment_embeddings):
            if table:
                table.build(input_shape)
        self.layer_norm.build((*input_shape, self.hidden_size))
        self.built = True

    def call(self, token_ids, segment_ids, training=None):
        """Embeds tokens.

        Args:
            token_ids: int tensor (batch, length).
            segment_ids: int tensor (batch, length).
            training: bool. Whether dropout is on.

        Returns:
            Float tensor (batch, length, hidden).

        Raises:
            InputError: the sequence is longer than `max_position_embeddings`. A length that is
                unknown when the graph is built is not checked.
        """
        length = ops.shape(token_ids)[1]
        if isinstance(length, int) and length > self.max_position_embeddings:
            raise InputError(
                f"sequences of {length} tokens, but max_position_embeddings is "
                f"{self.max_position_embeddings}: shorten them, or build an encoder with more"
            )
        embedded = self.word_embeddings(token_ids) + self.segment_embeddings(segment_ids)
        if self.position_embeddings:
            embedded += self.position_embeddings(ops.arange(length))
        return self.dropout(self.layer_norm(embedded), training=training)

    def compute_output_shape(self, token_ids_shape, segment_ids_shape=None):
        """(batch, length) gives (batch, length, hidden)."""
        return (*token_ids_shape, self.hidden_size)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "use_position_embeddings": self.use_position_embeddings,
            "seed": self.seed,
        }
