"""Initial values of a new pre-training run: those of a checkpoint, or changes to the layers' own.

The changes depend on the config and on the counts of the records. They draw no random numbers, so
encoders of one seed still share the initial values of common blocks.
"""

import math

import numpy as np

from undivided_tf.config import EncoderConfig, differences
from undivided_tf.data.corpus.counts import read_counts
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import assign_initial_weights, read_weights
from undivided_tf.pattern import ATTENTION
from undivided_tf.training.config import PretrainingConfig

# Fields in which the encoder of the checkpoint may differ, since no weight depends on them.
_MAY_DIFFER = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
# Ratio of the fastest to the slowest frequency of sines and cosines; the fastest is pi radians per
# place.
_FREQUENCY_RATIO = 100.0
# Scale of the values added to query and key projections of 64 features. The scores of the target
# tokens are then about 5 higher than those of other tokens.
_STRENGTH, _STRENGTH_WIDTH = 1.3, 64


def set_initial_values(model: Pretrainer, config: PretrainingConfig) -> None:
    """Sets the initial values of a built model for a run.

    Args:
        model: with the initial values of its layers.
        config: the run. With an `init_checkpoint` the weights come from there. Otherwise
            `position_initializer`, `output_bias_initializer` and `zero_residual_outputs` decide.

    Raises:
        InputError: no checkpoint, a checkpoint of another architecture, or one that lacks a weight
            that is not in `new_weights`; no readable counts of word pieces; or heads too narrow for
            `neighbours`.

    References:
        Sines and cosines as positions: Vaswani et al. 2017, arXiv 1706.03762, section 3.5. Residual
        branches that start at zero: Zhang, Dauphin, Ma 2019, arXiv 1901.09321 (Fixup); Bachlechner
        et al. 2020, arXiv 2003.04887 (ReZero). `neighbours` is our own.
    """
    if config.init_checkpoint:
        _load_checkpoint(model, config)
        return
    encoder = model.encoder
    if config.position_initializer != "normal":
        encoder.embeddings.position_embeddings.embeddings.assign(sinusoids(encoder.config))
    if config.position_initializer == "neighbours":
        block = encoder.blocks[encoder.config.pattern.letters.find(ATTENTION)]
        query, key = neighbour_projections(encoder.config)
        block.query.kernel.assign_add(query)
        block.key.kernel.assign_add(key)
    if config.zero_residual_outputs:
        for block in encoder.blocks:
            kernel = block.output_dense.kernel
            kernel.assign(np.zeros(kernel.shape))
    if config.output_bias_initializer == "unigram":
        counts = read_counts(config.records_dir).unigrams
        model.masked_lm_head.output_bias.assign(unigram_log_probabilities(counts))


def _load_checkpoint(model: Pretrainer, config: PretrainingConfig) -> None:
    """Assigns the weights of `config.init_checkpoint`, except `config.new_weights`."""
    path = checkpoints.resolve(config.init_checkpoint)
    encoder = model.encoder.config
    saved = EncoderConfig.from_json(path / checkpoints.ENCODER)
    saved = saved.replace(**{name: getattr(encoder, name) for name in _MAY_DIFFER})
    if changed := differences(saved.to_dict(), encoder.to_dict()):
        raise InputError(
            f"the encoder of {path} is not that of the run:\n  " + "\n  ".join(changed) + "\n"
            "leave out the flags of sizes, which init_checkpoint determines"
        )
    assign_initial_weights(model.weights, read_weights(path), path, config.new_weights)


def unigram_log_probabilities(counts: np.ndarray) -> np.ndarray:
    """Natural logarithms of word-piece probabilities with add-one smoothing.

    Args:
        counts: int (vocab_size,); zero for special tokens, which are never masked.
    """
    return np.log((counts + 1) / (counts + 1).sum())


def sinusoids(config: EncoderConfig) -> np.ndarray:
    """Sines and cosines of places, with standard deviation `initializer_range`.

    Columns 2 k and 2 k + 1 are the sine and the cosine of `place * speed(k)`, with speeds from pi
    (k = 0) down to about pi / 100 radians a place, in a geometric progression.

    Returns:
        (max_position_embeddings, hidden_size); the last column of an odd width is zero.
    """
    places = np.arange(config.max_position_embeddings)
    angles = np.outer(places, _speeds(config.hidden_size))
    table = np.zeros((len(places), config.hidden_size))
    table[:, 0 : 2 * angles.shape[1] : 2] = np.sin(angles)
    table[:, 1 : 2 * angles.shape[1] : 2] = np.cos(angles)
    return config.initializer_range * math.sqrt(2) * table


def neighbour_offsets(num_attention_heads: int) -> list[int]:
    """Relative position of each head's target with `neighbours`: -1, +1, -2, +2 and so on."""
    return [(head // 2 + 1) * (1 if head % 2 else -1) for head in range(num_attention_heads)]


def neighbour_projections(config: EncoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """Values to add to query and key kernels, so that heads attend to their neighbours.

    Both copy some pairs of sine and cosine of `sinusoids` to the features of a head. For the query
    the pairs are rotated to the target place: `sinusoid(p) R(offset) = sinusoid(p + offset)`. The
    pairs are spread evenly over the faster half of all pairs, which distinguishes near places; with
    two heads they are this whole half. The scale gives the target the same score for heads of all
    widths. The attention of narrow heads is less sharp, since word embeddings disturb them more.

    Returns:
        Two arrays (hidden_size, hidden_size): query and key.

    Raises:
        InputError: heads of a single feature.
    """
    hidden, width = config.hidden_size, config.head_width
    if width < 2:
        raise InputError(
            f"position_initializer neighbours needs heads of two features or more, but hidden_size "
            f"{hidden} / num_attention_heads {config.num_attention_heads} is {width}"
        )
    faster_half = max(1, hidden // 4)
    count = min(width // 2, faster_half)
    pairs = np.round(np.linspace(0, faster_half - 1, count)).astype(int)
    signal = 2 * count / math.sqrt(width)
    strength = _STRENGTH * math.sqrt(_STRENGTH_WIDTH / math.sqrt(_STRENGTH_WIDTH) / signal)
    query, key = np.zeros((2, hidden, hidden))
    for head, offset in enumerate(neighbour_offsets(config.num_attention_heads)):
        angles = offset * _speeds(hidden)[pairs]
        sine_out = head * width + 2 * np.arange(count)
        sine_in = 2 * pairs
        key[sine_in, sine_out] = key[sine_in + 1, sine_out + 1] = strength
        query[sine_in, sine_out] = query[sine_in + 1, sine_out + 1] = strength * np.cos(angles)
        query[sine_in + 1, sine_out] = strength * np.sin(angles)
        query[sine_in, sine_out + 1] = -strength * np.sin(angles)
    return query, key


def _speeds(hidden_size: int) -> np.ndarray:
    """Radians per place of all pairs of sine and cosine, the fastest first."""
    pairs = hidden_size // 2
    return math.pi * _FREQUENCY_RATIO ** (-np.arange(pairs) / pairs)
