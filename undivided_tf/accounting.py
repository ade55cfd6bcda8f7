"""Parameters and FLOPs of an encoder in closed form; needs no TensorFlow.

Only the FLOPs of matrix products count, two per multiply-add. Element-wise operations, about one
per cent, are left out, as usual; Clark et al. 2020, arXiv 2003.10555, count them, too.
H is the hidden size, I the intermediate size, n the sequence length, V the vocabulary.
"""

from undivided_tf.config import EncoderConfig
from undivided_tf.pattern import ATTENTION


def attention_block_parameters(config: EncoderConfig) -> int:
    """Query, key, value, output projections with biases, and LayerNorm: 4 (H^2 + H) + 2 H.

    `query_key_norm` adds two scales of the head width. A block of either kind without LayerNorm
    (`half_layer_norms`) has 2 H fewer.
    """
    hidden = config.hidden_size
    scales = 2 * config.head_width if config.query_key_norm else 0
    return 4 * (hidden * hidden + hidden) + 2 * hidden + scales


def intermediate_block_parameters(config: EncoderConfig) -> int:
    """Two dense layers with biases, and one LayerNorm: 2 H I + I + H + 2 H.

    With `share_intermediate` all intermediate blocks but the first have a LayerNorm only.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    return 2 * hidden * inner + inner + hidden + 2 * hidden


def hidden_kernel_parameters(config: EncoderConfig) -> int:
    """Parameters that Muon updates: the kernels of all blocks and of the head's transform, H^2."""
    hidden, inner = config.hidden_size, config.intermediate_size
    kernels = {"attention": 4 * hidden * hidden, "intermediate": 2 * hidden * inner}
    blocks = zip(config.pattern, config.owns_weights, strict=True)
    return sum(owns * kernels[block.kind] for block, owns in blocks) + hidden * hidden


def parameter_breakdown(config: EncoderConfig) -> dict[str, int]:
    """Parameters by part.

    Returns:
        `embeddings`, `attention` and `intermediate` (all blocks of the kind), `final_layer_norm`
        (0 without pre-norm) and `pooler`. Their sum is `count_parameters`.
    """
    hidden = config.hidden_size
    rows = config.vocab_size + config.type_vocab_size
    if config.position_type == "absolute":
        rows += config.max_position_embeddings
    blocks = {"attention": 0, "intermediate": 0}
    of_kind = {
        "attention": attention_block_parameters(config) - 2 * hidden,
        "intermediate": intermediate_block_parameters(config) - 2 * hidden,
    }
    for block, has_norm, owns in zip(
        config.pattern, config.layer_norms, config.owns_weights, strict=True
    ):
        blocks[block.kind] += owns * of_kind[block.kind] + has_norm * 2 * hidden
    return {
        "embeddings": rows * hidden + 2 * hidden,
        **blocks,
        "final_layer_norm": 2 * hidden if config.norm_first else 0,
        "pooler": hidden * hidden + hidden,
    }


def count_parameters(config: EncoderConfig) -> int:
    """Trainable parameters of the encoder with its pooler, without heads.

    Examples:
        >>> [count_parameters(EncoderConfig(block_pattern=p)) for p in ("(AI)*12", "(AAI)*6")]
        [109482240, 81138432]
    """
    return sum(parameter_breakdown(config).values())


def masked_lm_head_parameters(config: EncoderConfig) -> int:
    """Parameters of the head: dense, LayerNorm and a bias per word piece; its matrix is tied."""
    hidden = config.hidden_size
    return hidden * hidden + hidden + 2 * hidden + config.vocab_size


def forward_flops_breakdown(
    config: EncoderConfig, sequence_length: int, positions: int | None = None
) -> dict[str, int]:
    """FLOPs of one sequence by part; see `forward_flops`.

    Args:
        config: the encoder.
        sequence_length: n, in word pieces.
        positions: p, the number of output positions to compute; None: all n.

    Returns:
        `attention`: 8 n H^2 + 4 n^2 H per block; `intermediate`: 4 n H I per block; `pooler`:
        2 H^2. With `positions` the last attention block takes 4 (n + p) H^2 + 4 n p H, since it
        needs the keys and values of all tokens, and an intermediate block after it 4 p H I.
    """
    n, hidden = sequence_length, config.hidden_size
    output_positions = n if positions is None else positions
    last = config.pattern.letters.rfind(ATTENTION)
    flops = {"attention": 0, "intermediate": 0, "pooler": 2 * hidden**2}
    for number, block in enumerate(config.pattern):
        p = n if number < last else output_positions
        if block.kind == "attention":
            flops["attention"] += 4 * (n + p) * hidden**2 + 4 * n * p * hidden
        else:
            flops["intermediate"] += 4 * p * hidden * config.intermediate_size
    return flops


def forward_flops(config: EncoderConfig, sequence_length: int) -> int:
    """FLOPs of one forward pass over one sequence, without heads."""
    return sum(forward_flops_breakdown(config, sequence_length).values())


def prediction_slots(
    max_seq_length: int,
    masked_lm_prob: float,
    max_predictions: int = 0,
    initial_masked_lm_prob: float = 0.0,
) -> int:
    """The largest number of predictions per row, which is the width of `masked_positions`.

    Args:
        max_seq_length: word pieces per row.
        masked_lm_prob: share of word pieces to predict in the last step of a run.
        max_predictions: upper limit; 0: none.
        initial_masked_lm_prob: the share in the first step; 0: `masked_lm_prob`.
    """
    slots = max(1, round(max_seq_length * max(masked_lm_prob, initial_masked_lm_prob)))
    return min(slots, max_predictions) if max_predictions else slots


def masked_lm_head_flops(config: EncoderConfig, predictions: int) -> int:
    """Forward FLOPs of the head at `predictions` gathered positions: 2 H^2 + 2 H V each."""
    return predictions * (2 * config.hidden_size**2 + 2 * config.hidden_size * config.vocab_size)


def next_sentence_head_flops(config: EncoderConfig) -> int:
    """Forward FLOPs of the next-sentence head, which has two classes, for one pair: 4 H."""
    return 4 * config.hidden_size


def training_flops(
    config: EncoderConfig,
    sequence_length: int,
    predictions: int,
    sequences: int,
    next_sentence: bool = False,
) -> int:
    """FLOPs of pre-training: the forward pass, and twice as many for the backward pass.

    From the queries of the last attention block on, only the masked positions are computed; with
    `next_sentence` also the first token and the pooler. `intermediate_drop_rate` does not change
    the FLOPs, since dropped blocks are computed and multiplied by 0.

    Args:
        config: the encoder.
        sequence_length: word pieces per sequence.
        predictions: masked positions per sequence.
        sequences: number of training sequences: batch size times steps.
        next_sentence: whether the next-sentence head is trained.
    """
    blocks = forward_flops_breakdown(config, sequence_length, predictions + next_sentence)
    forward = blocks["attention"] + blocks["intermediate"]
    if next_sentence:
        forward += blocks["pooler"] + next_sentence_head_flops(config)
    return 3 * sequences * (forward + masked_lm_head_flops(config, predictions))
