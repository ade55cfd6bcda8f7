"""The attention block."""

import math

import keras
from keras import ops

from undivided_tf.layers.dropout import Dropout
from undivided_tf.layers.initializers import derive_seed, truncated_normal
from undivided_tf.layers.positions import at_positions
from undivided_tf.layers.recompute import recomputed

# Added to the scores of padding; float32 holds it, and exp of it is 0 beside any real score.
_PADDING_BIAS = -1e9


@keras.saving.register_keras_serializable(package="undivided_tf")
class AttentionBlock(keras.layers.Layer):
    """Self-attention, output projection, dropout, residual and LayerNorm.

    Post-norm (BERT): `norm(x + dropout(attention(x)))`.
    Pre-norm: `x + dropout(attention(norm(x)))`.

    Args:
        num_attention_heads: int. Heads; must divide the width of the input.
        hidden_dropout_prob: float. Dropout on the projected context.
        attention_probs_dropout_prob: float. Dropout on the attention probabilities.
        attention_normalization: str. `softmax`, or `relu`: the weight of score s is
            max(0, 1 + s) / n with n real tokens. That is the first-order expansion of exp with its
            sum left at n, which it is for small scores; rows need not add up to 1.
        layer_norm_eps: float. Added to the variance in LayerNorm.
        initializer_range: float. Deviation of the truncated normal initialiser.
        norm_first: bool. Pre-norm instead of post-norm.
        use_layer_norm: bool. Without it `norm` is the identity and has no weights.
        recompute: bool. When training, compute queries, keys, values and probabilities once more
            for the gradient instead of keeping them.
        seed: int or None. Decides initial values and dropout.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.2; Devlin et al. 2018, arXiv 1810.04805.
        Pre-norm: Xiong et al. 2020, arXiv 2002.04745. `relu` and blocks without LayerNorm are our
        reading of TrimBERT (Sridhar, Sarah, Sundaresan 2022, arXiv 2202.12411), of which only the
        abstract is known to us: "a computationally simpler alternative" to softmax, and half of
        the LayerNorms removed. Attention by ReLU over the length: Wortsman et al. 2023,
        arXiv 2309.08586.
    """

    def __init__(
        self,
        num_attention_heads,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        attention_normalization="softmax",
        layer_norm_eps=1e-12,
        initializer_range=0.02,
        norm_first=False,
        use_layer_norm=True,
        recompute=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_attention_heads = num_attention_heads
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.attention_normalization = attention_normalization
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.norm_first = norm_first
        self.use_layer_norm = use_layer_norm
        self.recompute = recompute
        self.seed = seed

    def build(self, input_shape):
        """Builds all sublayers; `input_shape` is (batch, length, hidden)."""
        hidden_size = input_shape[-1]
        if hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden size {hidden_size} is not divisible by {self.num_attention_heads} heads"
            )

        def dense(name):
            layer = keras.layers.Dense(
                hidden_size,
                kernel_initializer=truncated_normal(self.initializer_range, self.seed, name),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build(input_shape)
            return layer

        def dropout(rate, name):
            return Dropout(
                rate, seed=derive_seed(self.seed, name), dtype=self.dtype_policy, name=name
            )

        self.query, self.key, self.value = dense("query"), dense("key"), dense("value")
        self.output_dense = dense("output")
        self.probs_dropout = dropout(self.attention_probs_dropout_prob, "probs_dropout")
        self.output_dropout = dropout(self.hidden_dropout_prob, "output_dropout")
        norm = {"dtype": self.dtype_policy, "name": "layer_norm"}
        self.layer_norm = (
            keras.layers.LayerNormalization(epsilon=self.layer_norm_eps, **norm)
            if self.use_layer_norm
            else keras.layers.Identity(**norm)
        )
        self.layer_norm.build(input_shape)
        self.built = True

    def call(self, hidden, padding_mask, positions=None, training=None):
        """Lets every token, or those at some positions, look at every real token.

        Args:
            hidden: float tensor (batch, length, hidden).
            padding_mask: int or bool tensor (batch, length); 1 for real tokens.
            positions: int tensor (batch, places). What is wanted of the output; None: all.
            training: bool. Whether dropout is on.

        Returns:
            Float tensor (batch, length, hidden), or (batch, places, hidden).
        """
        update = self.contribution(hidden, padding_mask, positions, training)
        hidden = at_positions(hidden, positions)
        return hidden + update if self.norm_first else self.layer_norm(hidden + update)

    def contribution(self, hidden, padding_mask, positions=None, training=None):
        """What the block adds to `hidden`; arguments and result as of `call`."""
        inputs = self.layer_norm(hidden) if self.norm_first else hidden
        asking = at_positions(inputs, positions)

        def look(asking, inputs):
            probabilities = self._probabilities(asking, inputs, padding_mask)
            probabilities = self.probs_dropout(probabilities, training=training)
            value = self._split_heads(self.value(inputs))
            return ops.einsum("bhqk,bkhd->bqhd", probabilities, value)

        if self.recompute and training:
            context = recomputed(look, [self.probs_dropout], asking, inputs)
        else:
            context = look(asking, inputs)
        context = ops.reshape(context, ops.shape(asking))
        return self.output_dropout(self.output_dense(context), training=training)

    def probabilities(self, hidden, padding_mask):
        """Weight of every token (last axis) for every token: (batch, heads, length, length)."""
        inputs = self.layer_norm(hidden) if self.norm_first else hidden
        return self._probabilities(inputs, inputs, padding_mask)

    def _probabilities(self, asking, inputs, padding_mask):
        query, key = self._split_heads(self.query(asking)), self._split_heads(self.key(inputs))
        query = query / math.sqrt(query.shape[-1])
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        return ops.cast(self._normalize(scores, padding_mask), self.compute_dtype)

    def _normalize(self, scores, padding_mask):
        """Weights of the keys, 0 for padding, from scores (batch, heads, queries, keys)."""
        mask = ops.cast(padding_mask, "float32")[:, None, None, :]
        # float32: in half precision the sum over a long row loses its small terms.
        scores = ops.cast(scores, "float32")
        if self.attention_normalization == "relu":
            tokens = ops.maximum(ops.sum(mask, axis=-1, keepdims=True), 1.0)
            return ops.relu(1.0 + scores) * (mask / tokens)
        return ops.softmax(scores + (1.0 - mask) * _PADDING_BIAS)

    def _split_heads(self, projected):
        """(batch, length, hidden) to (batch, length, heads, hidden / heads)."""
        batch, length, hidden = ops.shape(projected)
        heads = self.num_attention_heads
        return ops.reshape(projected, (batch, length, heads, hidden // heads))

    def compute_output_shape(self, hidden_shape, padding_mask_shape=None):
        """The shape of the input."""
        return hidden_shape

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_attention_heads": self.num_attention_heads,
            "hidden_dropout_prob": self.hidden_dropout_prob,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "attention_normalization": self.attention_normalization,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "norm_first": self.norm_first,
            "use_layer_norm": self.use_layer_norm,
            "recompute": self.recompute,
            "seed": self.seed,
        }
