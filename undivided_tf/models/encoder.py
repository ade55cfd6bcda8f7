"""BERT with any pattern of attention and intermediate blocks."""

import keras
from keras import ops

from undivided_tf.config import EncoderConfig
from undivided_tf.layers.attention_block import AttentionBlock
from undivided_tf.layers.embeddings import Embeddings
from undivided_tf.layers.initializers import derive_seed, truncated_normal
from undivided_tf.layers.intermediate_block import IntermediateBlock
from undivided_tf.layers.positions import at_positions
from undivided_tf.pattern import ATTENTION


def _scaled(hidden, output, scale):
    """Scales the change from `hidden` to a block's `output` by `scale` (batch,), unless None."""
    if scale is None:
        return output
    return hidden + ops.cast(scale, hidden.dtype)[:, None, None] * (output - hidden)


@keras.saving.register_keras_serializable(package="undivided_tf")
class Encoder(keras.Model):
    """Embeddings, the blocks of a pattern, and a pooler on the first token.

    With the pattern `(AI)*L` it is numerically equal to BERT. All weights exist after construction.
    A block that is absent from the pattern has no weights. With `share_intermediate` the first
    intermediate block owns the dense weights of all; each block has its own LayerNorm and dropout.

    Args:
        config: EncoderConfig, or the dict of one. The architecture.
        seed: int or None. Decides initial values and dropout. Two encoders of one seed share
            the initial values of all blocks of the same name.
        recompute: bool. When training, compute the inner parts of all blocks (queries, keys,
            values, probabilities; first product and activation) again in the backward pass instead
            of keeping them. This needs much less memory and about a fifth more time.

    Examples:
        >>> import numpy as np
        >>> encoder = Encoder(EncoderConfig(vocab_size=100, hidden_size=8, num_attention_heads=2,
        ...     intermediate_size=16, block_pattern="AAI"))
        >>> ids = np.array([[2, 5, 6, 3]])
        >>> outputs = encoder(
        ...     {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1},
        ...     return_taps=True)
        >>> list(outputs["taps"])
        ['embeddings', 'block_00/attention', 'block_01/attention', 'block_01/intermediate']
    """

    def __init__(self, config, seed=None, recompute=False, name="encoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = EncoderConfig.from_dict(config) if isinstance(config, dict) else config
        self.seed = seed
        self.recompute = recompute
        config = self.config
        policy = {"dtype": self.dtype_policy}
        numerics = {
            "layer_norm_eps": config.layer_norm_eps,
            "initializer_range": config.initializer_range,
            **policy,
        }

        # === Layers ===
        self.embeddings = Embeddings(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            hidden_dropout_prob=config.hidden_dropout_prob,
            use_position_embeddings=config.position_type == "absolute",
            seed=derive_seed(seed, "embeddings"),
            name="embeddings",
            **numerics,
        )
        self.blocks = [
            self._block(block, {"use_layer_norm": use_layer_norm, **numerics})
            for block, use_layer_norm in zip(config.pattern, config.layer_norms, strict=True)
        ]
        self.final_layer_norm = (
            keras.layers.LayerNormalization(
                epsilon=config.layer_norm_eps, name="final_layer_norm", **policy
            )
            if config.norm_first
            else None
        )
        self.pooler = keras.layers.Dense(
            config.hidden_size,
            activation="tanh",
            kernel_initializer=truncated_normal(config.initializer_range, seed, "pooler"),
            name="pooler",
            **policy,
        )
        self.build()

    def _block(self, block, numerics):
        """The layer of one block of the pattern."""
        config = self.config
        common = {
            "hidden_dropout_prob": config.hidden_dropout_prob,
            "norm_first": config.norm_first,
            "recompute": self.recompute,
            "seed": derive_seed(self.seed, block.name),
            # A slash would open a new scope in the variables' paths.
            "name": block.name.replace("/", "_"),
            **numerics,
        }
        if block.kind == "attention":
            return AttentionBlock(
                num_attention_heads=config.num_attention_heads,
                attention_probs_dropout_prob=config.attention_probs_dropout_prob,
                attention_normalization=config.attention_normalization,
                rotary_base=config.rotary_base if config.position_type == "rotary" else None,
                query_key_norm=config.query_key_norm,
                **common,
            )
        return IntermediateBlock(
            intermediate_size=config.intermediate_size,
            hidden_activation=config.hidden_activation,
            **common,
        )

    def build(self, input_shape=None):
        """Makes all weights. `input_shape` is unused: the config determines all shapes."""
        hidden_shape = (None, None, self.config.hidden_size)
        self.embeddings.build((None, None))
        first = next((b for b in self.blocks if isinstance(b, IntermediateBlock)), None)
        for layer, owns in zip(self.blocks, self.config.owns_weights, strict=True):
            if not owns:
                layer.share(first)
            layer.build(hidden_shape)
        if self.final_layer_norm:
            self.final_layer_norm.build(hidden_shape)
        self.pooler.build((None, self.config.hidden_size))
        self.built = True

    def call(self, inputs, training=None, return_taps=False, positions=None):
        """Encodes token ids.

        Args:
            inputs: dict of int tensors (batch, length): `token_ids`, `segment_ids` and
                `padding_mask` (1 for real tokens). May hold `intermediate_scales`, float32 (batch,
                intermediate blocks): the change of an intermediate block is then multiplied by its
                scale. At 0 the block passes its input on, as if it were removed.
            training: bool. Whether dropout is on.
            return_taps: bool. Whether to return the activation after every block.
            positions: int tensor (batch, places). Positions of `sequence_output` to compute; None:
                all. The last attention block, and the blocks after it, then compute only these; the
                values are the same. `pooled_output` is computed from the first of them, which must
                therefore be 0 if `pooled_output` is used.

        Returns:
            Dict of float tensors: `sequence_output` (batch, length, hidden) or, with `positions`,
            (batch, places, hidden), as taps from the last attention block on; `pooled_output`
            (batch, hidden); and with `return_taps` also `taps`: a dict in depth order from the
            names `config.pattern.tap_names` to tensors (batch, length, hidden). With pre-norm the
            taps are the residual stream, before the final LayerNorm.
        """
        hidden = self.embeddings(inputs["token_ids"], inputs["segment_ids"], training=training)
        # Only the keys and values of the last attention block need the other positions.
        last_attention = self.config.pattern.letters.rfind(ATTENTION)
        if last_attention < 0:
            hidden = at_positions(hidden, positions)
        taps = {"embeddings": hidden}
        scales = iter(())
        if "intermediate_scales" in inputs:
            scales = iter(ops.unstack(inputs["intermediate_scales"], axis=1))
        for number, (block, layer) in enumerate(zip(self.config.pattern, self.blocks, strict=True)):
            options = {}
            if block.kind == "attention":
                options = {
                    "padding_mask": inputs["padding_mask"],
                    "positions": positions if number == last_attention else None,
                }
            output = layer(hidden, training=training, **options)
            scale = next(scales, None) if block.kind == "intermediate" else None
            hidden = _scaled(hidden, output, scale)
            taps[block.name] = hidden
        if self.final_layer_norm:
            hidden = self.final_layer_norm(hidden)
        outputs = {"sequence_output": hidden, "pooled_output": self.pooler(hidden[:, 0])}
        return {**outputs, "taps": taps} if return_taps else outputs

    def get_config(self):
        """The constructor's arguments."""
        return {
            "config": self.config.to_dict(),
            "seed": self.seed,
            "recompute": self.recompute,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }
