"""Streams an encoder's activations on text, one minibatch at a time, for all analyses.

Token-level activations are drawn from the tokens of each text, without padding. The draw depends
only on the seed, the row and the tokenizer, so that all encoders of one vocabulary have the same
tokens. Word-level activations are means over the pieces of a word, a unit that encoders of
different vocabularies share. Pooled activations are one vector per text. Memory does not grow with
the number of rows.

Attention probabilities have a separate stream.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from undivided_tf.analysis import extraction, words
from undivided_tf.analysis.extraction import Activations
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer


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
) -> Iterator[Activations]:
    """Activations of tokens drawn at random from each text, without replacement.

    [CLS], [SEP] and [UNK] are not drawn, since their large norms can dominate a similarity.

    Args:
        encoder: the encoder.
        tokenizer: tokenizer of the encoder.
        rows: texts; labels are ignored.
        tokens_per_example: tokens to draw; a shorter text gives all its tokens. Use few, since the
            tokens of one text are not independent examples.
        batch_size: texts per minibatch.
        max_seq_length: word pieces per text; longer ones are truncated.
        seed: decides the draw.
        taps: names of the taps; None for all.

    Yields:
        For each minibatch a dict, in the order of `taps`, from names to float32
        `(tokens, hidden)`.

    Raises:
        InputError: an unknown tap, no rows, texts longer than the encoder's positions, or an
            activation that is not finite (names the tap).

    References:
        Davari et al. 2022, arXiv 2210.16156 (few points of high norm can change CKA).
    """

    def gather(activation, inputs, positions):
        del inputs
        return tf.gather(activation, positions, batch_dims=1)

    names = extraction.checked_taps(encoder, taps)
    forward = extraction.forward(encoder, names, gather)
    row = 0
    for inputs, size in extraction.batches(encoder, tokenizer, rows, batch_size, max_seq_length):
        allowed = ~np.asarray(tokenizer.is_special)[inputs["token_ids"].numpy()]
        allowed[size:] = False
        positions, kept = _draw(allowed, tokens_per_example, seed, row)
        row += size
        yield extraction.named(names, forward(extraction.cut(inputs), tf.constant(positions)), kept)


def draw_words(
    allowed: Sequence[np.ndarray], words_per_example: int, seed: int
) -> list[np.ndarray]:
    """Draws allowed words of each sentence, in ascending order.

    Args:
        allowed: for each sentence bool `(words,)`, see `words.seen`; with several encoders, true
            only if all allow the word.
        words_per_example: largest number of words to draw; 0: all allowed words.
        seed: seed of the draw.

    Returns:
        For each sentence the indices of the words.
    """
    drawn = []
    for row, mask in enumerate(allowed):
        places = np.flatnonzero(mask)
        if words_per_example and len(places) > words_per_example:
            ranks = np.random.default_rng((seed, row)).random(len(mask))
            places = np.sort(places[np.argsort(ranks[places])[:words_per_example]])
        drawn.append(places)
    return drawn


def word_activations(
    encoder: Encoder,
    tokenizer: Tokenizer,
    sentences: Sequence[Sequence[str]],
    places: Sequence[np.ndarray],
    *,
    batch_size: int,
    max_seq_length: int,
    taps: Sequence[str] | None = None,
) -> Iterator[Activations]:
    """Activations of chosen words, each the mean over its pieces.

    Args:
        encoder: the encoder.
        tokenizer: tokenizer of the encoder.
        sentences: lists of words.
        places: for each sentence the indices of the words to read, which `words.seen` must allow.
        batch_size: sentences per minibatch.
        max_seq_length: word pieces per sentence; longer ones are truncated.
        taps: names of the taps; None for all.

    Yields:
        For each minibatch a dict, in the order of `taps`, from names to float32 `(words, hidden)`,
        in the order of sentences and words.

    Raises:
        InputError: as `token_activations`.
    """

    def average(activation, inputs, weights):
        del inputs
        return tf.einsum("bwl,blh->bwh", weights, activation)

    names = extraction.checked_taps(encoder, taps)
    forward = extraction.forward(encoder, names, average)
    extraction.check(encoder, len(sentences), max_seq_length)
    widest = max(map(len, places))
    for start in range(0, len(sentences), batch_size):
        batch = list(sentences[start : start + batch_size])
        inputs, word_of = words.encode(
            tokenizer, batch + [[]] * (batch_size - len(batch)), max_seq_length
        )
        chosen = np.full((batch_size, widest), -2)  # Unlike any word, and -1 for no word.
        for row, indices in enumerate(places[start : start + batch_size]):
            chosen[row, : len(indices)] = indices
        inputs = extraction.cut({name: tf.constant(value) for name, value in inputs.items()})
        belongs = chosen[:, :, None] == word_of[:, None, : inputs["token_ids"].shape[1]]
        count = belongs.sum(2)
        weights = (belongs / np.maximum(count, 1)[:, :, None]).astype(np.float32)
        yield extraction.named(names, forward(inputs, tf.constant(weights)), chosen >= 0)


def attention_probabilities(
    encoder: Encoder, tokenizer: Tokenizer, rows: Rows, *, batch_size: int, max_seq_length: int
) -> Iterator[tuple[Activations, np.ndarray]]:
    """Attention probabilities of every attention block.

    Args:
        encoder: the encoder.
        tokenizer: tokenizer of the encoder.
        rows: texts; labels are ignored.
        batch_size: texts per minibatch.
        max_seq_length: word pieces per text; longer ones are truncated.

    Yields:
        For each minibatch a dict from the names of attention blocks to float32 `(texts, heads,
        queries, keys)`, and the ids of the tokens, int32 `(texts, length)`, padding included.

    Raises:
        InputError: no rows, or texts longer than the encoder's positions.
    """
    pattern = encoder.config.pattern
    blocks = [
        pair for pair in zip(pattern, encoder.blocks, strict=True) if pair[0].kind == "attention"
    ]

    @tf.function(autograph=False)
    def forward(inputs):
        before = extraction.before(encoder(inputs, training=False, return_taps=True)["taps"])
        return [
            tf.cast(layer.probabilities(before[block.name], inputs["padding_mask"]), tf.float32)
            for block, layer in blocks
        ]

    for inputs, size in extraction.batches(encoder, tokenizer, rows, batch_size, max_seq_length):
        inputs = extraction.cut(inputs)
        values = [value.numpy()[:size] for value in forward(inputs)]
        named = {block.name: value for (block, _), value in zip(blocks, values, strict=True)}
        yield named, inputs["token_ids"].numpy()[:size]


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
    """One vector per text and tap.

    Args:
        encoder: the encoder.
        tokenizer: tokenizer of the encoder.
        rows: texts; labels are ignored.
        pooling: `first` ([CLS]), or `mean` or `max` over all tokens except padding.
        batch_size: texts per minibatch.
        max_seq_length: word pieces per text; longer ones are truncated.
        taps: names of the taps; None for all.

    Yields:
        For each minibatch a dict, in the order of `taps`, from names to float32
        `(texts, hidden)`.

    Raises:
        InputError: as `token_activations`, or an unknown pooling.
    """
    if pooling not in _POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}")
    names = extraction.checked_taps(encoder, taps)
    forward = extraction.forward(encoder, names, _POOLINGS[pooling])
    for inputs, size in extraction.batches(encoder, tokenizer, rows, batch_size, max_seq_length):
        kept = np.arange(inputs["token_ids"].shape[0]) < size
        yield extraction.named(names, forward(extraction.cut(inputs), None), kept)


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


def _draw(
    allowed: np.ndarray, count: int, seed: int, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws at most `count` allowed positions of each row, in ascending order.

    Args:
        allowed: bool `(batch, length)`.
        count: positions per row.
        seed: seed of the draw.
        first_row: index of the minibatch's first row in the data, so that a row's draw does not
            depend on the batch size.

    Returns:
        int32 positions `(batch, count)` and bool `(batch, count)`, false for unused entries.
    """
    length = allowed.shape[1]
    ranks = np.stack(
        [np.random.default_rng((seed, first_row + i)).random(length) for i in range(len(allowed))]
    )
    order = np.argsort(np.where(allowed, ranks, 2.0), axis=1)[:, : min(count, length)]
    positions = np.sort(np.where(np.take_along_axis(allowed, order, 1), order, length), axis=1)
    kept = positions < length
    return np.where(kept, positions, 0).astype(np.int32), kept
