"""Activations of an encoder on real text, one minibatch at a time: what every analysis reads.

Token-level activations are drawn from the tokens of each text, padding excluded; the draw
depends on the seed, the row and the tokenizer only, so that all encoders of one vocabulary
are seen at the same tokens. Pooled activations are one vector a text. Memory does not grow
with the number of rows.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from undivided_tf.data.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

Activations = dict[str, np.ndarray]


def token_activations(
    encoder: Encoder,
    tokenizer: Tokenizer,
    rows: Rows,
    *,
    tokens_per_example: int,
    batch_size: int,
    max_seq_length: int,
    seed: int,
    taps: Sequence[str] | None = None,
    special_tokens: bool = False,
) -> Iterator[Activations]:
    """Activations of tokens drawn at random from each text, without replacement.

    Args:
        encoder: the encoder.
        tokenizer: the one of its ids.
        rows: texts; labels are not looked at.
        tokens_per_example: tokens to draw; a shorter text gives all that it has. Few, since
            the tokens of one text are no independent examples.
        batch_size: texts a minibatch.
        max_seq_length: word pieces a text; what is beyond is cut.
        seed: decides the draw.
        taps: names of the taps; None for all.
        special_tokens: whether [CLS], [SEP] and [UNK] may be drawn. Their norms stand out and can
            carry a similarity on their own.

    Yields:
        For each minibatch a dict, in the order of `taps`, from names to float32
        `(tokens, hidden)`.

    Raises:
        InputError: an unknown tap, no rows, texts longer than the encoder's positions, or an
            activation that is not finite (names the tap).

    References:
        Davari et al. 2022, arXiv 2210.16156 (few points of high norm can move CKA).
    """

    def gather(activation, inputs, positions):
        del inputs
        return tf.gather(activation, positions, batch_dims=1)

    names = _known_taps(encoder, taps)
    forward = _forward(encoder, names, gather)
    row = 0
    for inputs, size in _batches(encoder, tokenizer, rows, batch_size, max_seq_length):
        allowed = inputs["padding_mask"].numpy().astype(bool)
        if not special_tokens:
            allowed &= ~np.asarray(tokenizer.is_special)[inputs["token_ids"].numpy()]
        allowed[size:] = False
        positions, kept = _draw(allowed, tokens_per_example, seed, row)
        row += size
        yield _named(names, forward(inputs, tf.constant(positions)), kept)


def pooled_activations(
    encoder: Encoder,
    tokenizer: Tokenizer,
    rows: Rows,
    *,
    pooling: str,
    batch_size: int,
    max_seq_length: int,
    taps: Sequence[str] | None = None,
) -> Iterator[Activations]:
    """One vector a text and tap.

    Args:
        encoder: the encoder.
        tokenizer: the one of its ids.
        rows: texts; labels are not looked at.
        pooling: `first` ([CLS]), `mean` or `max`, the last two over all tokens but padding.
        batch_size: texts a minibatch.
        max_seq_length: word pieces a text; what is beyond is cut.
        taps: names of the taps; None for all.

    Yields:
        For each minibatch a dict, in the order of `taps`, from names to float32
        `(texts, hidden)`.

    Raises:
        InputError: as `token_activations`, or an unknown pooling.
    """
    if pooling not in _POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}")
    names = _known_taps(encoder, taps)
    forward = _forward(encoder, names, _POOLINGS[pooling])
    for inputs, size in _batches(encoder, tokenizer, rows, batch_size, max_seq_length):
        kept = np.arange(inputs["token_ids"].shape[0]) < size
        yield _named(names, forward(inputs, None), kept)


def _first(activation, inputs, _):
    del inputs
    return activation[:, 0]


def _mean(activation, inputs, _):
    mask = tf.cast(inputs["padding_mask"], tf.float32)[:, :, None]
    return tf.reduce_sum(activation * mask, 1) / tf.reduce_sum(mask, 1)


def _max(activation, inputs, _):
    real = tf.cast(inputs["padding_mask"], tf.bool)[:, :, None]
    return tf.reduce_max(tf.where(real, activation, activation.dtype.min), 1)


_POOLINGS = {"first": _first, "mean": _mean, "max": _max}


def _known_taps(encoder: Encoder, taps: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(encoder.config.pattern.tap_names)
    for tap in taps or ():
        if tap not in names:
            raise InputError(
                f"unknown tap {tap!r}; the taps of {encoder.config.block_pattern} are: "
                f"{', '.join(names)}"
            )
    return names if taps is None else tuple(taps)


def _batches(
    encoder: Encoder, tokenizer: Tokenizer, rows: Rows, batch_size: int, max_seq_length: int
) -> Iterator[tuple[dict[str, tf.Tensor], int]]:
    """Encoded texts and how many of them are real; the last minibatch is filled with empty ones.

    So all have one shape, and the encoder is traced once.
    """
    if not rows.first:
        raise InputError("there are no rows to look at: the split is empty")
    if max_seq_length > encoder.config.max_position_embeddings:
        raise InputError(
            f"max_seq_length {max_seq_length} is more than the encoder's "
            f"max_position_embeddings {encoder.config.max_position_embeddings}"
        )
    for start in range(0, len(rows.first), batch_size):
        stop = min(start + batch_size, len(rows.first))
        fill = [""] * (batch_size - (stop - start))
        first = [*rows.first[start:stop], *fill]
        second = None if rows.second is None else [*rows.second[start:stop], *fill]
        yield tokenizer.encode(first, second, max_seq_length=max_seq_length), stop - start


def _forward(encoder: Encoder, names: Sequence[str], reduce: Callable) -> Callable:
    """The encoder, followed in the graph by a reduction, so that little leaves the device."""

    @tf.function
    def forward(inputs, positions):
        taps = encoder(inputs, training=False, return_taps=True)["taps"]
        # A list, since tf.function would sort the keys of a dict.
        return [reduce(tf.cast(taps[name], tf.float32), inputs, positions) for name in names]

    return forward


def _draw(
    allowed: np.ndarray, count: int, seed: int, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws at most `count` allowed positions of each row, in ascending order.

    Args:
        allowed: bool `(batch, length)`.
        count: positions a row.
        seed: of the draw.
        first_row: the place of the minibatch in the data; a row's draw does not depend on the
            batch size.

    Returns:
        int32 positions `(batch, count)` and bool `(batch, count)`, false where a row ran out.
    """
    length = allowed.shape[1]
    lots = np.stack(
        [np.random.default_rng((seed, first_row + i)).random(length) for i in range(len(allowed))]
    )
    order = np.argsort(np.where(allowed, lots, 2.0), axis=1)[:, : min(count, length)]
    positions = np.sort(np.where(np.take_along_axis(allowed, order, 1), order, length), axis=1)
    kept = positions < length
    return np.where(kept, positions, 0).astype(np.int32), kept


def _named(names: Sequence[str], values: Sequence[tf.Tensor], kept: np.ndarray) -> Activations:
    activations = {name: value.numpy()[kept] for name, value in zip(names, values, strict=True)}
    for name, activation in activations.items():
        if not np.isfinite(activation).all():
            raise InputError(
                f"tap {name}: activations are not finite; the encoder has diverged, "
                "take an earlier checkpoint"
            )
    return activations
