"""Inference of the encoder with a few basic TensorFlow operations."""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from undivided_tf.layers.intermediate_block import activation
from undivided_tf.layers.positions import at_positions
from undivided_tf.layers.rotary import rotary_angles, rotate
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import MULTI_LABEL, REGRESSION, ClassifierHead
from undivided_tf.pattern import ATTENTION

_PADDING_BIAS = -1e9  # As in `layers.attention_block`.


def _gelu_by_erf(x):
    """Exact GELU. `tf.nn.gelu` uses erfc, which ONNX does not have."""
    return ((tf.math.erf(x * math.sqrt(0.5)) + 1.0) * 0.5) * x


def _layer_norm(x, gamma, beta, epsilon):
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * gamma + beta


def _gelu_for_onnx(x):
    """Exact GELU in the order of operations that onnxruntime replaces by one kernel."""
    return (x * 0.5) * (tf.math.erf(x / math.sqrt(2.0)) + 1.0)


def _layer_norm_for_onnx(x, gamma, beta, epsilon):
    """LayerNorm in the order of operations that onnxruntime replaces by one kernel."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.pow(centred, 2.0), axis=-1, keepdims=True)
    return centred / tf.sqrt(variance + epsilon) * gamma + beta


def _layer_norm_by_batch_norm(x, gamma, beta, epsilon):
    """LayerNorm by batch norm with rows as the channels of one image, as in Keras 2."""
    rows, width = tf.shape(x)[0], x.shape[1]
    normal, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, [1, rows, width, 1]),
        scale=tf.ones([rows]),
        offset=tf.zeros([rows]),
        mean=tf.constant([]),
        variance=tf.constant([]),
        epsilon=epsilon,
        data_format="NCHW",
    )
    return tf.reshape(normal, [rows, width]) * gamma + beta


@dataclasses.dataclass(frozen=True)
class Operations:
    """Expressions of composite operations that a runtime recognises and fuses.

    Attributes:
        layer_norm: function of a float32 matrix, gamma, beta and epsilon.
        gelu: exact GELU.
    """

    layer_norm: Callable
    gelu: Callable


# TensorFlow's graph optimizer fuses this normalisation, and product, bias and this GELU, into one
# oneDNN kernel each.
TENSORFLOW = Operations(_layer_norm_by_batch_norm, _gelu_by_erf)
XLA = Operations(_layer_norm, _gelu_by_erf)
ONNX = Operations(_layer_norm_for_onnx, _gelu_for_onnx)
LITERT = Operations(_layer_norm, tf.nn.gelu)


class InferenceEncoder:
    """Computes the outputs of an Encoder without training, from the same variables.

    The tokens of all texts are in one matrix, so each dense layer is one matrix product, which
    TensorFlow fuses with bias and activation. The converters of LiteRT and ONNX know all operations
    that are used here, but not all operations of Keras.

    Args:
        encoder: Encoder. Gives config and variables.
        operations: operations that suit the runtime.
    """

    def __init__(self, encoder: Encoder, operations: Operations = TENSORFLOW):
        self.encoder = encoder
        self.config = encoder.config
        self._operations = operations

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
                places = positions if number == last_attention else None
                hidden, shape = self._attend(layer, hidden, bias, shape, places)
            else:
                inner = self._norm(layer, hidden) if config.norm_first else hidden
                inner = _activation(encoder, self._operations)(
                    _dense(layer.intermediate_dense, inner)
                )
                hidden = self._add(layer, hidden, _dense(layer.output_dense, inner))
        if encoder.final_layer_norm:
            hidden = _normalise(encoder.final_layer_norm, hidden, self._operations)
        hidden = tf.reshape(hidden, [shape[0], shape[1], config.hidden_size])
        pooled = tf.tanh(_dense(encoder.pooler, hidden[:, 0]))
        return {"sequence_output": hidden, "pooled_output": pooled}

    def _embed(self, inputs, shape):
        tables = self.encoder.embeddings
        ids, segments = (tf.reshape(inputs[name], [-1]) for name in ("token_ids", "segment_ids"))
        words = tf.gather(tables.word_embeddings.embeddings.value, ids)
        embedded = words + tf.gather(tables.segment_embeddings.embeddings.value, segments)
        if tables.position_embeddings:
            table = tables.position_embeddings.embeddings.value
            embedded += tf.tile(table[: shape[1]], [shape[0], 1])
        return _normalise(tables.layer_norm, embedded, self._operations)

    def _bias(self, padding_mask, shape):
        """Term added to scores (batch, heads, *, length); for `relu` the factor of the weights."""
        mask = tf.reshape(tf.cast(padding_mask, tf.float32), [shape[0], 1, 1, shape[1]])
        if self.config.attention_normalization == "relu":
            return mask / tf.maximum(tf.reduce_sum(mask, axis=-1, keepdims=True), 1.0)
        return (1.0 - mask) * _PADDING_BIAS

    def _attend(self, layer, hidden, bias, shape, positions):
        """An attention block; returns its output and the shape (batch, places) of its tokens."""
        inputs = self._norm(layer, hidden) if self.config.norm_first else hidden
        query_inputs, query_shape = self._at(inputs, positions, shape)
        heads, width = self.config.num_attention_heads, self.config.head_width
        rotary = self.config.position_type == "rotary"
        key_places = tf.range(shape[1])[tf.newaxis]
        query_places = key_places if positions is None else positions

        def split(dense, matrix, shape, norm=None, places=None):
            parts = tf.reshape(_dense(dense, matrix), [shape[0], shape[1], heads, width])
            if norm is not None and self.config.query_key_norm:
                parts = _rms_normalise(norm, parts)
            if places is not None and rotary:
                parts = rotate(parts, rotary_angles(places, width, self.config.rotary_base))
            return tf.transpose(parts, [0, 2, 1, 3])

        query = split(layer.query, query_inputs, query_shape, layer.query_norm, query_places)
        key = split(layer.key, inputs, shape, layer.key_norm, key_places)
        value = split(layer.value, inputs, shape)
        # float32, as in training. Scaling after the product lets TensorFlow fuse scale and bias.
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        scores = scores * (1 / math.sqrt(width))
        if self.config.attention_normalization == "relu":
            weights = tf.nn.relu(1.0 + scores) * bias
        else:
            weights = tf.nn.softmax(scores + bias)
        context = tf.matmul(tf.cast(weights, value.dtype), value)
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, self.config.hidden_size])
        hidden, _ = self._at(hidden, positions, shape)
        return self._add(layer, hidden, _dense(layer.output_dense, context)), query_shape

    def _at(self, hidden, positions, shape):
        """The rows of a token matrix at some places of each text, and their (batch, places)."""
        if positions is None:
            return hidden, shape
        width = self.config.hidden_size
        hidden = at_positions(tf.reshape(hidden, [shape[0], shape[1], width]), positions)
        return tf.reshape(hidden, [-1, width]), tf.shape(positions)

    def _add(self, layer, hidden, update):
        hidden = hidden + update
        return hidden if self.config.norm_first else self._norm(layer, hidden)

    def _norm(self, block, matrix):
        if not block.use_layer_norm:
            return matrix
        return _normalise(block.layer_norm, matrix, self._operations)


def masked_lm_logits(masked_lm, masked, operations: Operations = TENSORFLOW):
    """Computes the logits of `masked_lm.masked_lm_head` without training, from its variables.

    Args:
        masked_lm: Pretrainer.
        masked: float tensor (batch, places, hidden), `sequence_output` at the masked places.
        operations: operations that suit the runtime.

    Returns:
        float32 logits (batch, places, vocabulary).
    """
    head, encoder = masked_lm.masked_lm_head, masked_lm.encoder
    shape = tf.shape(masked)
    hidden = tf.reshape(masked, [-1, encoder.config.hidden_size])
    hidden = _activation(encoder, operations)(_dense(head.transform, hidden))
    hidden = _normalise(head.layer_norm, hidden, operations)
    table = encoder.embeddings.word_embeddings.embeddings.value
    bias = tf.cast(head.output_bias.value, hidden.dtype)
    logits = tf.cast(tf.matmul(hidden, table, transpose_b=True) + bias, tf.float32)
    return tf.reshape(logits, [shape[0], shape[1], encoder.config.vocab_size])


def answers(head: ClassifierHead, logits):
    """Does what `ClassifierHead.answers` does, in a graph.

    Args:
        head: gives the kind and the range of scores.
        logits: float32 tensor (batch, outputs).

    Returns:
        Dict of `score` (batch, 1) for a regression, or else of `probabilities` (batch, outputs).
    """
    if head.kind == REGRESSION:
        within = tf.clip_by_value(logits, *head.score_range) if head.score_range else logits
        return {"score": within}
    activation = tf.sigmoid if head.kind == MULTI_LABEL else tf.nn.softmax
    return {"probabilities": activation(logits)}


def _activation(encoder, operations):
    name = encoder.config.hidden_activation
    return operations.gelu if name == "gelu" else activation(name)


def _dense(layer, matrix):
    return tf.nn.bias_add(tf.matmul(matrix, layer.kernel.value), layer.bias.value)


def _rms_normalise(layer, vectors):
    # float32, as in training, since squares in half precision are too inexact for their mean.
    wide = tf.cast(vectors, tf.float32)
    square = tf.reduce_mean(tf.square(wide), axis=-1, keepdims=True)
    normal = wide * tf.math.rsqrt(square + layer.epsilon) * tf.cast(layer.scale.value, tf.float32)
    return tf.cast(normal, vectors.dtype)


def _normalise(layer, matrix, operations):
    # float32, since squares in half precision are too inexact for their mean.
    gamma, beta = (tf.cast(v.value, tf.float32) for v in (layer.gamma, layer.beta))
    normal = operations.layer_norm(tf.cast(matrix, tf.float32), gamma, beta, layer.epsilon)
    return tf.cast(normal, matrix.dtype)
