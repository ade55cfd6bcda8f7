"""Computes an encoder's activations in the graph.

The public streams are in analysis/taps.py.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

Activations = dict[str, np.ndarray]

_LENGTHS = 16  # Minibatches are cut to a multiple of this; the encoder is traced once per length.


def checked_taps(encoder: Encoder, taps: Sequence[str] | None) -> tuple[str, ...]:
    """The requested taps, all for None; InputError for a tap that the encoder lacks."""
    names = tuple(encoder.config.pattern.tap_names)
    for tap in taps or ():
        if tap not in names:
            raise InputError(
                f"unknown tap {tap!r}; the taps of {encoder.config.block_pattern} are: "
                f"{', '.join(names)}"
            )
    return names if taps is None else tuple(taps)


def check(encoder: Encoder, rows: int, max_seq_length: int) -> None:
    """Raises InputError for no rows, or texts longer than the encoder's positions."""
    if not rows:
        raise InputError("there are no rows to analyse: the split is empty")
    encoder.config.require_length(max_seq_length)


def batches(
    encoder: Encoder, tokenizer: Tokenizer, rows: Rows, batch_size: int, max_seq_length: int
) -> Iterator[tuple[dict[str, tf.Tensor], int]]:
    """Minibatches of encoded texts, each with its number of texts.

    Empty texts fill the last minibatch, so all have one shape and the encoder is traced once.
    """
    check(encoder, len(rows), max_seq_length)
    if rows.second is not None:
        encoder.config.require_segments(2)
    for start in range(0, len(rows.first), batch_size):
        stop = min(start + batch_size, len(rows.first))
        fill = [""] * (batch_size - (stop - start))
        first = [*rows.first[start:stop], *fill]
        second = None if rows.second is None else [*rows.second[start:stop], *fill]
        yield tokenizer.encode(first, second, max_seq_length=max_seq_length), stop - start


def cut(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Removes most of the padding of a minibatch; the activations are the same."""
    longest = int(tf.reduce_max(tf.reduce_sum(inputs["padding_mask"], 1)))
    length = -(-longest // _LENGTHS) * _LENGTHS
    return {name: value[:, :length] for name, value in inputs.items()}


def before(taps: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The input of every block: the tap before it."""
    names = list(taps)
    return {name: taps[previous] for previous, name in zip(names, names[1:], strict=False)}


def block_contributions(
    encoder: Encoder, taps: dict, padding_mask: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The addition of every block to the residual stream, computed from the taps."""
    inputs, added = before(taps), {}
    for block, layer in zip(encoder.config.pattern, encoder.blocks, strict=True):
        mask = (padding_mask,) if block.kind == "attention" else ()
        added[block.name] = layer.contribution(inputs[block.name], *mask)
    return added


def forward(encoder: Encoder, names: Sequence[str], reduce: Callable) -> Callable:
    """The encoder followed by a reduction in the graph, so that little data leaves the device.

    Args:
        encoder: the encoder.
        names: names of the taps.
        reduce: function from a tap `(batch, length, hidden)`, the encoder's inputs and positions.

    Returns:
        Function from the encoder's inputs and positions to the reduced taps, in order of `names`.
    """

    @tf.function(autograph=False)
    def forward(inputs, positions):
        taps = encoder(inputs, training=False, return_taps=True)["taps"]
        # A list, since tf.function would sort the keys of a dict.
        return [reduce(tf.cast(taps[name], tf.float32), inputs, positions) for name in names]

    return forward


def named(names: Sequence[str], values: Sequence[tf.Tensor], kept: np.ndarray) -> Activations:
    """Values by name, without padding; InputError, with the name, for one that is not finite."""
    activations = {name: value.numpy()[kept] for name, value in zip(names, values, strict=True)}
    for name, activation in activations.items():
        if not np.isfinite(activation).all():
            raise InputError(
                f"tap {name}: activations are not finite; the encoder has diverged, "
                "take an earlier checkpoint"
            )
    return activations
