"""Parameters and FLOPs of an encoder in closed form; needs no TensorFlow.

FLOPs are those of matrix products, two per multiply-add. Element-wise operations, about one per
cent, are left out, as usual; Clark et al. 2020, arXiv 2003.10555, count them, too.
H is the hidden size, I the intermediate size, n the sequence length, V the vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.pattern import ATTENTION, INTERMEDIATE

INVESTMENTS = ("attention", "intermediate", "hidden", "shared")


def attention_block_parameters(config: EncoderConfig) -> int:
    """Query, key, value, output projections with biases, and LayerNorm: 4 (H^2 + H) + 2 H.

    `query_key_norm` adds two scales of the head width. A block without LayerNorm
    (`half_layer_norms`) of either kind has 2 H fewer.
    """
    hidden = config.hidden_size
    scales = 2 * config.head_width if config.query_key_norm else 0
    return 4 * (hidden * hidden + hidden) + 2 * hidden + scales


def hidden_kernel_parameters(config: EncoderConfig) -> int:
    """Parameters that Muon updates: the kernels of all blocks and of the head's transform, H^2."""
    hidden, inner = config.hidden_size, config.intermediate_size
    kernels = {"attention": 4 * hidden * hidden, "intermediate": 2 * hidden * inner}
    owned = zip(config.pattern, config.owns_weights, strict=True)
    return sum(owns * kernels[block.kind] for block, owns in owned) + hidden * hidden


def intermediate_block_parameters(config: EncoderConfig) -> int:
    """Two dense layers with biases, and one LayerNorm: 2 H I + I + H + 2 H.

    With `share_intermediate` all intermediate blocks but the first have a LayerNorm only.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    return 2 * hidden * inner + inner + hidden + 2 * hidden


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
    wanted = n if positions is None else positions
    last = config.pattern.letters.rfind(ATTENTION)
    flops = {"attention": 0, "intermediate": 0, "pooler": 2 * hidden**2}
    for number, block in enumerate(config.pattern):
        p = n if number < last else wanted
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
        masked_lm_prob: share of them to predict in the last step of a run.
        max_predictions: upper limit; 0: none.
        initial_masked_lm_prob: share in the first step; 0: `masked_lm_prob`.
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

    From the queries of the last attention block on, only the masked positions are computed, and
    with `next_sentence` the first token and the pooler. `intermediate_drop_rate` does not change
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


def matched_partner(
    config: EncoderConfig, reference: EncoderConfig, investment: str, tolerance: float = 0.01
) -> EncoderConfig:
    """An encoder with the blocks of `config` and about as many parameters as `reference`.

    The parameters of the removed blocks are spent on one of `INVESTMENTS`:

    - `attention`: more attention blocks, spread evenly over the pattern;
    - `intermediate`: a larger `intermediate_size`;
    - `hidden`: a larger `hidden_size` with the same number of heads, which become wider; the
      intermediate size grows in proportion;
    - `shared`: all intermediate blocks share the weights of one, with a larger
      `intermediate_size`. If the pattern has none, it gets one after every attention block.

    Intermediate sizes and head widths are multiples of 64 if the tolerance allows, else of 32, 16
    ... 1, since matrix units compute round sizes fastest.

    Args:
        config: the encoder with fewer parameters.
        reference: the encoder to match; vocabulary and positions should be the same.
        investment: one of `INVESTMENTS`.
        tolerance: largest difference in parameters, relative to the reference.

    Raises:
        InputError: `config` does not have fewer parameters, it has no block that the investment
            needs, or no size is within the tolerance (names the nearest).
    """
    target = count_parameters(reference)
    if investment not in INVESTMENTS:
        raise InputError(f"investment must be one of {', '.join(INVESTMENTS)}, got {investment!r}")
    if count_parameters(config) >= target:
        raise InputError(
            f"{config.block_pattern} has {count_parameters(config):,} parameters, the reference "
            f"{reference.block_pattern} has {target:,}: there is nothing to invest"
        )
    if investment == "attention":
        if not config.pattern.num_attention:
            raise InputError(f"{config.block_pattern} has no attention block to add others to")
        tries = [_nearest(lambda n: _more_attention(config, n), target)]
    elif investment == "intermediate":
        if not config.pattern.num_intermediate:
            raise InputError(f"{config.block_pattern} has no intermediate block that could widen")
        tries = _wider_intermediate(config, target)
    elif investment == "shared":
        if not config.pattern.num_attention:
            raise InputError(f"{config.block_pattern} has no attention block to put others after")
        letters = config.pattern.letters
        if not config.pattern.num_intermediate:
            letters = letters.replace(ATTENTION, ATTENTION + INTERMEDIATE)
        one = config.replace(block_pattern=letters, share_intermediate=True)
        tries = _wider_intermediate(one, target)
    else:
        # Rotary positions rotate pairs of features, so the width of a head must stay even.
        steps = [m for m in _ROUND if config.position_type != "rotary" or m % 2 == 0]
        tries = (
            _nearest(lambda n, m=m: _wider(config, n * m * config.num_attention_heads), target, 1)
            for m in steps
        )
    return _first_within(tries, target, tolerance)


_ROUND = (64, 32, 16, 8, 4, 2, 1)


def _wider_intermediate(config: EncoderConfig, target: int) -> Iterator[EncoderConfig]:
    """Encoders with the intermediate size nearest to `target`, in ever finer steps."""
    for step in _ROUND:
        yield _nearest(lambda n, m=step: config.replace(intermediate_size=n * m), target, first=1)


def _more_attention(config: EncoderConfig, extra: int) -> EncoderConfig:
    """Adds `extra` attention blocks, spread evenly over those of the pattern."""
    blocks, seen, letters = config.pattern.num_attention, 0, ""
    for letter in config.pattern.letters:
        letters += letter
        if letter == ATTENTION:
            letters += letter * ((seen + 1) * extra // blocks - seen * extra // blocks)
            seen += 1
    return config.replace(block_pattern=letters)


def _wider(config: EncoderConfig, hidden_size: int) -> EncoderConfig:
    """Changes the hidden size; the intermediate size keeps its ratio to it."""
    inner = round(config.intermediate_size * hidden_size / config.hidden_size)
    return config.replace(hidden_size=hidden_size, intermediate_size=inner)


def _nearest(make: Callable[[int], EncoderConfig], target: int, first: int = 0) -> EncoderConfig:
    """The one of `make(first)`, `make(first + 1)`, ... whose parameters are nearest to `target`."""
    below, number = make(first), first + 1
    while count_parameters(above := make(number)) < target:
        below, number = above, number + 1
    return min(below, above, key=lambda config: abs(count_parameters(config) - target))


def _first_within(tries: Iterable[EncoderConfig], target: int, tolerance: float) -> EncoderConfig:
    nearest = None
    for config in tries:
        nearest, error = config, abs(count_parameters(config) / target - 1)
        if error <= tolerance:
            return config
    raise InputError(
        f"no such encoder comes within {tolerance:.1%} of {target:,} parameters; the nearest, "
        f"{nearest.block_pattern} with hidden_size {nearest.hidden_size} and intermediate_size "
        f"{nearest.intermediate_size}, has {count_parameters(nearest):,}, {error:.1%} off"
    )
