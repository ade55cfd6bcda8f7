"""The attention block."""

import math

import keras
from keras import ops

from undivided_tf.layers.positions import at_positions
from undivided_tf.layers.recompute import recomputed
from undivided_tf.layers.residual_block import ResidualBlock
from undivided_tf.layers.rotary import rotary_angles, rotate

# Added to the scores of padding: finite in float32, and exp of the result is 0 beside any real
# score.
_PADDING_BIAS = -1e9


@keras.saving.register_keras_serializable(package="undivided_tf")
class AttentionBlock(ResidualBlock):
    """Self-attention, output projection, dropout, residual and LayerNorm.

    With `recompute`, queries, keys, values and probabilities are computed again for the gradient.

    Args:
        num_attention_heads: int. Number of heads; must divide the width of the input.
        attention_probs_dropout_prob: float. Dropout on the attention probabilities.
        attention_normalization: str. `softmax`, or `relu`: the weight of score s is max(0, 1 + s) /
            n with n real tokens. 1 + s is the first-order expansion of exp(s), and n approximates
            the sum of the exponentials for small scores. The weights of a row need not add up to 1.
        rotary_base: float or None. Base of rotary position embeddings of queries and keys, which
            need an even head width; None: no rotary embeddings.
        query_key_norm: bool. Before the rotation, divide queries and keys of each head by their
            root mean square and multiply them by a learnt scale of the head width, which all heads
            share (sublayers `query_norm` and `key_norm`).
        **kwargs: those of `ResidualBlock`.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.2; Devlin et al. 2018, arXiv 1810.04805.
        `relu` is our reading of TrimBERT (Sridhar, Sarah, Sundaresan 2022, arXiv 2202.12411), whose
        abstract alone is known to us: "a computationally simpler alternative" to softmax.
        Attention by ReLU over the length: Wortsman et al. 2023, arXiv 2309.08586.
        Rotary: Su et al. 2021, arXiv 2104.09864. Query-key norm: Henry et al. 2020, arXiv
        2010.04245; Dehghani et al. 2023, arXiv 2302.05442, section 2.
    """

    def __init__(
        self,
        num_attention_heads,
        attention_probs_dropout_prob=0.1,
        attention_normalization="softmax",
        rotary_base=None,
        query_key_norm=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_attention_heads = num_attention_heads
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.attention_normalization = attention_normalization
        self.rotary_base = rotary_base
        self.query_key_norm = query_key_norm

    def build(self, input_shape):
        """Builds all sublayers; `input_shape` is (batch, length, hidden)."""
        hidden_size = input_shape[-1]
        if hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden size {hidden_size} is not divisible by {self.num_attention_heads} heads"
            )
        self.query, self.key, self.value, self.output_dense = (
            self._dense(hidden_size, input_shape, name)
            for name in ("query", "key", "value", "output")
        )
        self.query_norm, self.key_norm = (
            self._head_norm(hidden_size // self.num_attention_heads, name)
            for name in ("query_norm", "key_norm")
        )
        self.probs_dropout = self._dropout(self.attention_probs_dropout_prob, "probs_dropout")
        super().build(input_shape)

    def _head_norm(self, head_width, name):
        """The built norm of queries or keys; the identity without `query_key_norm`."""
        arguments = {"dtype": self.dtype_policy, "name": name}
        layer = (
            keras.layers.RMSNormalization(epsilon=self.layer_norm_eps, **arguments)
            if self.query_key_norm
            else keras.layers.Identity(**arguments)
        )
        layer.build((None, None, self.num_attention_heads, head_width))
        return layer

    def call(self, hidden, padding_mask, positions=None, training=None):
        """Computes attention from all tokens, or those at `positions`, to all real tokens.

        Args:
            hidden: float tensor (batch, length, hidden).
            padding_mask: int or bool tensor (batch, length); 1 for real tokens.
            positions: int tensor (batch, places). Positions of the output to compute; None: all.
            training: bool. Whether dropout is on.

        Returns:
            Float tensor (batch, length, hidden), or (batch, places, hidden).
        """
        update = self.contribution(hidden, padding_mask, positions, training)
        return self._add(at_positions(hidden, positions), update)

    def contribution(self, hidden, padding_mask, positions=None, training=None):
        """The block's update, before the residual; arguments and result as in `call`."""
        inputs = self._inputs(hidden)
        query_inputs = at_positions(inputs, positions)

        def attend(query_inputs, inputs):
            probabilities = self._probabilities(query_inputs, inputs, padding_mask, positions)
            probabilities = self.probs_dropout(probabilities, training=training)
            value = self._split_heads(self.value(inputs))
            return ops.einsum("bhqk,bkhd->bqhd", probabilities, value)

        if self.recompute and training:
            context = recomputed(attend, [self.probs_dropout], query_inputs, inputs)
        else:
            context = attend(query_inputs, inputs)
        context = ops.reshape(context, ops.shape(query_inputs))
        return self.output_dropout(self.output_dense(context), training=training)

    def probabilities(self, hidden, padding_mask):
        """Attention weights (batch, heads, queries, keys); queries and keys are all tokens."""
        inputs = self._inputs(hidden)
        return self._probabilities(inputs, inputs, padding_mask, None)

    def _probabilities(self, query_inputs, inputs, padding_mask, positions):
        query = self.query_norm(self._split_heads(self.query(query_inputs)))
        key = self.key_norm(self._split_heads(self.key(inputs)))
        if self.rotary_base is not None:
            key_places = ops.arange(ops.shape(inputs)[1])[None]
            query_places = key_places if positions is None else positions
            query = self._rotated(query, query_places)
            key = self._rotated(key, key_places)
        query = query / math.sqrt(query.shape[-1])
        scores = ops.einsum("bqhd,bkhd->bhqk", query, key)
        return ops.cast(self._normalize(scores, padding_mask), self.compute_dtype)

    def _normalize(self, scores, padding_mask):
        """Turns scores (batch, heads, queries, keys) into weights of the keys, 0 for padding."""
        mask = ops.cast(padding_mask, "float32")[:, None, None, :]
        # float32, because a half-precision sum over a long row loses its small terms.
        scores = ops.cast(scores, "float32")
        if self.attention_normalization == "relu":
            tokens = ops.maximum(ops.sum(mask, axis=-1, keepdims=True), 1.0)
            return ops.relu(1.0 + scores) * (mask / tokens)
        return ops.softmax(scores + (1.0 - mask) * _PADDING_BIAS)

    def _rotated(self, vectors, places):
        return rotate(vectors, rotary_angles(places, vectors.shape[-1], self.rotary_base))

    def _split_heads(self, projected):
        """(batch, length, hidden) to (batch, length, heads, hidden / heads)."""
        batch, length, hidden = ops.shape(projected)
        heads = self.num_attention_heads
        return ops.reshape(projected, (batch, length, heads, hidden // heads))

    def compute_output_shape(self, hidden_shape, padding_mask_shape=None, positions_shape=None):
        """(batch, length, hidden), or (batch, places, hidden) with positions."""
        if positions_shape is None:
            return hidden_shape
        return (*positions_shape, hidden_shape[-1])

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_attention_heads": self.num_attention_heads,
            "attention_probs_dropout_prob": self.attention_probs_dropout_prob,
            "attention_normalization": self.attention_normalization,
            "rotary_base": self.rotary_base,
            "query_key_norm": self.query_key_norm,
        }
