"""Parameters, FLOPs and memory of an encoder in closed form; needs no TensorFlow.

FLOPs are those of matrix products, two for each multiply-add; element-wise work is left out,
as is usual (Clark et al. 2020, arXiv 2003.10555, count it too; it is about one per cent).
H is the hidden size, I the intermediate size, n the sequence length, V the vocabulary.
"""

from undivided_tf.config import EncoderConfig

_FLOAT32_BYTES = 4


def attention_block_parameters(config: EncoderConfig) -> int:
    """Query, key, value, output projections with biases, and LayerNorm: 4 (H^2 + H) + 2 H."""
    hidden = config.hidden_size
    return 4 * (hidden * hidden + hidden) + 2 * hidden


def intermediate_block_parameters(config: EncoderConfig) -> int:
    """Two dense layers with biases, and one LayerNorm: 2 H I + I + H + 2 H."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return 2 * hidden * inner + inner + hidden + 2 * hidden


def parameter_breakdown(config: EncoderConfig) -> dict[str, int]:
    """Parameters by part.

    Returns:
        `embeddings`, `attention`, `intermediate` (all blocks of the kind), `final_layer_norm`
        (pre-norm only, else 0) and `pooler`; they add up to `count_parameters`.
    """
    hidden = config.hidden_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    return {
        "embeddings": rows * hidden + 2 * hidden,
        "attention": config.pattern.num_attention * attention_block_parameters(config),
        "intermediate": config.pattern.num_intermediate * intermediate_block_parameters(config),
        "final_layer_norm": 2 * hidden if config.norm_first else 0,
        "pooler": hidden * hidden + hidden,
    }


def count_parameters(config: EncoderConfig) -> int:
    """Trainable parameters of the encoder, pooler included, without any head."""
    return sum(parameter_breakdown(config).values())


def masked_lm_head_parameters(config: EncoderConfig) -> int:
    """What the head adds (the output matrix is tied): dense, LayerNorm, a bias per word piece."""
    hidden = config.hidden_size
    return hidden * hidden + hidden + 2 * hidden + config.vocab_size


def forward_flops_breakdown(config: EncoderConfig, sequence_length: int) -> dict[str, int]:
    """FLOPs of one sequence by part; see `forward_flops`.

    Args:
        config: the encoder.
        sequence_length: n, in word pieces.

    Returns:
        `attention` 8 n H^2 + 4 n^2 H a block, `intermediate` 4 n H I a block, `pooler` 2 H^2.
    """
    n, hidden = sequence_length, config.hidden_size
    return {
        "attention": config.pattern.num_attention * (8 * n * hidden**2 + 4 * n**2 * hidden),
        "intermediate": config.pattern.num_intermediate * 4 * n * hidden * config.intermediate_size,
        "pooler": 2 * hidden**2,
    }


def forward_flops(config: EncoderConfig, sequence_length: int) -> int:
    """Matrix-product FLOPs of one forward pass over one sequence, without any head."""
    return sum(forward_flops_breakdown(config, sequence_length).values())


def masked_lm_head_flops(config: EncoderConfig, predictions: int) -> int:
    """Forward FLOPs of the head on `predictions` gathered positions: 2 H^2 + 2 H V each."""
    return predictions * (2 * config.hidden_size**2 + 2 * config.hidden_size * config.vocab_size)


def training_flops(
    config: EncoderConfig, sequence_length: int, predictions: int, sequences: int
) -> int:
    """Matrix-product FLOPs of pre-training: forward plus twice that for the backward pass.

    The pooler takes no part in masked-language-model training and is left out.

    Args:
        config: the encoder.
        sequence_length: word pieces a sequence.
        predictions: masked positions a sequence.
        sequences: sequences seen in all, that is batch size times steps.
    """
    blocks = forward_flops_breakdown(config, sequence_length)
    forward = blocks["attention"] + blocks["intermediate"]
    return 3 * sequences * (forward + masked_lm_head_flops(config, predictions))


def training_memory_bytes(
    config: EncoderConfig, sequence_length: int, predictions: int, batch_size: int
) -> dict[str, int]:
    """Estimated bytes for one pre-training step in float32 on one device.

    Weights, gradients and Adam's two moments take 16 bytes a parameter. Of the activations
    those are counted that the backward pass needs: in an attention block its input, the three
    projections, context, projected context and normalised sum (7 n H) and three heads x n x n
    arrays (scores, probabilities, dropped probabilities); in an intermediate block both inner
    arrays (2 n I) and 3 n H; in the head logits and their gradient.

    Returns:
        `parameters` (with gradients and moments), `activations` and their sum `total`.
    """
    n, hidden, pattern = sequence_length, config.hidden_size, config.pattern
    attention = 7 * n * hidden + 3 * config.num_attention_heads * n * n
    intermediate = 2 * n * config.intermediate_size + 3 * n * hidden
    head = 2 * predictions * config.vocab_size + 3 * predictions * hidden
    elements = (
        3 * n * hidden
        + pattern.num_attention * attention
        + pattern.num_intermediate * intermediate
        + head
    )
    parameters = count_parameters(config) + masked_lm_head_parameters(config)
    sizes = {
        "parameters": 4 * _FLOAT32_BYTES * parameters,
        "activations": _FLOAT32_BYTES * batch_size * elements,
    }
    return {**sizes, "total": sum(sizes.values())}
