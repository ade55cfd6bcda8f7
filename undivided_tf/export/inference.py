"""The encoder at inference, in few and plain operations of TensorFlow."""

import math

import tensorflow as tf

from undivided_tf.layers.intermediate_block import activation
from undivided_tf.layers.positions import at_positions
from undivided_tf.models.encoder import Encoder
from undivided_tf.pattern import ATTENTION

_PADDING_BIAS = -1e9  # As in `layers.attention_block`.


class InferenceEncoder:
    """What an Encoder computes without training, from the same variables.

    Nothing but matrices and vectors: tokens of all texts stand in one matrix, so that each dense
    layer is one product that TensorFlow fuses with its bias and activation. Of the operations
    that Keras makes some are unknown to LiteRT's and ONNX's converters, these are known.

    Args:
        encoder: Encoder. Gives config and variables.
        gelu: how exact GELU is written; None: by erf.
    """

    def __init__(self, encoder: Encoder, gelu=None):
        self.encoder = encoder
        self.config = encoder.config
        self._activation = _activation(encoder, gelu)

    def __call__(self, inputs, positions=None):
        """Encodes token ids.

        Args:
            inputs: dict of int tensors (batch, length), as for `Encoder.call`.
            positions: int tensor (batch, places), or None, as for `Encoder.call`.

        Returns:
            Dict of `sequence_output` (batch, length or places, hidden) and `pooled_output`.
        """
        config, encoder = self.config, self.encoder
        shape = tf.shape(inputs["token_ids"])
        hidden = self._embed(inputs, shape)
        bias = self._bias(inputs["padding_mask"], shape)
        last_attention = config.pattern.letters.rfind(ATTENTION)
        if last_attention < 0:
            hidden, shape = self._at(hidden, positions, shape)
        for number, (block, layer) in enumerate(zip(config.pattern, encoder.blocks, strict=True)):
            if block.kind == "attention":
                wanted = positions if number == last_attention else None
                hidden, shape = self._attend(layer, hidden, bias, shape, wanted)
            else:
                inner = _norm(layer, hidden) if config.norm_first else hidden
                inner = self._activation(_dense(layer.intermediate_dense, inner))
                hidden = self._add(layer, hidden, _dense(layer.output_dense, inner))
        if encoder.final_layer_norm:
            hidden = _layer_norm(encoder.final_layer_norm, hidden)
        hidden = tf.reshape(hidden, [shape[0], shape[1], config.hidden_size])
        pooled = tf.tanh(_dense(encoder.pooler, hidden[:, 0]))
        return {"sequence_output": hidden, "pooled_output": pooled}

    def _embed(self, inputs, shape):
        tables = self.encoder.embeddings
        ids, segments = (tf.reshape(inputs[name], [-1]) for name in ("token_ids", "segment_ids"))
        words = tf.gather(tables.word_embeddings.embeddings.value, ids)
        places = tf.tile(tables.position_embeddings.embeddings.value[: shape[1]], [shape[0], 1])
        kinds = tf.gather(tables.segment_embeddings.embeddings.value, segments)
        return _layer_norm(tables.layer_norm, words + places + kinds)

    def _bias(self, padding_mask, shape):
        """What is added to, or for `relu` multiplied with, scores of (batch, heads, *, length)."""
        mask = tf.reshape(tf.cast(padding_mask, tf.float32), [shape[0], 1, 1, shape[1]])
        if self.config.attention_normalization == "relu":
            return mask / tf.maximum(tf.reduce_sum(mask, axis=-1, keepdims=True), 1.0)
        return (1.0 - mask) * _PADDING_BIAS

    def _attend(self, layer, hidden, bias, shape, positions):
        """An attention block; returns its output and the (batch, places) that it has."""
        inputs = _norm(layer, hidden) if self.config.norm_first else hidden
        asking, asked = self._at(inputs, positions, shape)
        heads = self.config.num_attention_heads
        width = self.config.hidden_size // heads

        def split(dense, matrix, shape):
            parts = tf.reshape(_dense(dense, matrix), [shape[0], shape[1], heads, width])
            return tf.transpose(parts, [0, 2, 1, 3])

        query = split(layer.query, asking, asked) / math.sqrt(width)
        key, value = (split(dense, inputs, shape) for dense in (layer.key, layer.value))
        # float32, as in training.
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        if self.config.attention_normalization == "relu":
            weights = tf.nn.relu(1.0 + scores) * bias
        else:
            weights = tf.nn.softmax(scores + bias)
        context = tf.matmul(tf.cast(weights, value.dtype), value)
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, self.config.hidden_size])
        hidden, _ = self._at(hidden, positions, shape)
        return self._add(layer, hidden, _dense(layer.output_dense, context)), asked

    def _at(self, hidden, positions, shape):
        """Rows of a matrix of tokens at some places of each text, and their (batch, places)."""
        if positions is None:
            return hidden, shape
        width = self.config.hidden_size
        hidden = at_positions(tf.reshape(hidden, [shape[0], shape[1], width]), positions)
        return tf.reshape(hidden, [-1, width]), tf.shape(positions)

    def _add(self, layer, hidden, update):
        hidden = hidden + update
        return hidden if self.config.norm_first else _norm(layer, hidden)


def masked_lm_logits(masked_lm, masked, gelu=None):
    """What `masked_lm.masked_lm_head` computes without training, from the same variables.

    Args:
        masked_lm: Pretrainer.
        masked: float tensor (batch, places, hidden), `sequence_output` at the masked places.
        gelu: as for `InferenceEncoder`.

    Returns:
        float32 logits (batch, places, vocabulary).
    """
    head, encoder = masked_lm.masked_lm_head, masked_lm.encoder
    shape = tf.shape(masked)
    hidden = tf.reshape(masked, [-1, encoder.config.hidden_size])
    hidden = _activation(encoder, gelu)(_dense(head.transform, hidden))
    hidden = _layer_norm(head.layer_norm, hidden)
    table = encoder.embeddings.word_embeddings.embeddings.value
    bias = tf.cast(head.output_bias.value, hidden.dtype)
    logits = tf.cast(tf.matmul(hidden, table, transpose_b=True) + bias, tf.float32)
    return tf.reshape(logits, [shape[0], shape[1], encoder.config.vocab_size])


def _activation(encoder, gelu):
    name = encoder.config.hidden_activation
    return (gelu or _gelu) if name == "gelu" else activation(name)


def _dense(layer, matrix):
    return tf.nn.bias_add(tf.matmul(matrix, layer.kernel.value), layer.bias.value)


def _gelu(x):
    """Exact GELU by erf; `tf.nn.gelu` is written with erfc, which ONNX has not."""
    return ((tf.math.erf(x * math.sqrt(0.5)) + 1.0) * 0.5) * x


def _norm(block, matrix):
    return _layer_norm(block.layer_norm, matrix) if block.use_layer_norm else matrix


def _layer_norm(layer, matrix):
    # float32: squares of half precision lose what their mean needs.
    exact = tf.cast(matrix, tf.float32)
    centred = exact - tf.reduce_mean(exact, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    scale = tf.math.rsqrt(variance + layer.epsilon)
    gamma, beta = (tf.cast(v.value, tf.float32) for v in (layer.gamma, layer.beta))
    return tf.cast(centred * scale * gamma + beta, matrix.dtype)
