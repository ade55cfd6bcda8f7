"""Units of masking: single pieces, whole words, spans of words."""

import math

import tensorflow as tf

from undivided_tf.tokenization import Tokenizer

# SpanBERT's lengths in words: a geometric distribution, truncated at the longest; 3.8 on average.
SPAN_STOP, LONGEST_SPAN = 0.2, 10


def units(
    token_ids: tf.Tensor, seed: tf.Tensor, tokenizer: Tokenizer, masking_unit: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the words and spans of each row; see `masking.mask_tokens`.

    Args:
        token_ids: int32 `(batch, sequence)`.
        seed: two integers; decides the starts of spans.
        tokenizer: gives special tokens and word starts.
        masking_unit: `token`, `whole_word` or `span`.

    Returns:
        `begins`, bool `(batch, sequence)`, true at the start of each word (with unit `token`, at
        each piece); and int32 `(batch, sequence)`, the number of each piece's word or span within
        its row.
    """
    if masking_unit == "token":
        begins = tf.ones_like(token_ids, tf.bool)
        return begins, tf.cumsum(tf.ones_like(token_ids), axis=1) - 1
    allowed = ~tf.gather(tf.constant(tokenizer.is_special), token_ids)
    # A row may start in the middle of a word; the piece after a special token starts a word.
    after_allowed = tf.pad(allowed[:, :-1], [[0, 0], [1, 0]])
    continues = tf.gather(tf.constant(tokenizer.is_continuation), token_ids)
    begins = ~(continues & allowed & after_allowed)
    word = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
    if masking_unit == "whole_word":
        return begins, word
    edge = ~(allowed & after_allowed)
    opens = begins & (edge | tf.gather(_span_starts(tf.shape(word), seed), word, batch_dims=1))
    return begins, tf.cumsum(tf.cast(opens, tf.int32), axis=1) - 1


def _span_starts(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Starts of consecutive spans from the first word on, bool `(batch, words)`."""
    draw = tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, 1))
    stay = 1.0 - SPAN_STOP
    sizes = tf.math.log(1.0 - draw * (1.0 - stay**LONGEST_SPAN)) / math.log(stay)
    words = shape[1]
    index = tf.range(words)
    target = tf.minimum(index + 1 + tf.cast(sizes, tf.int32), words - 1)
    # A walk from span to span would take one round per span. Here each round adds the starts that
    # known starts reach, then doubles the reach (pointer doubling).
    starts = tf.broadcast_to(index == 0, shape)
    rows = tf.range(shape[0])[:, tf.newaxis] * words
    for _ in range(10):  # 2^10 spans, more than BERT's 512 positions.
        reached = tf.math.unsorted_segment_max(
            tf.reshape(tf.cast(starts, tf.int32), [-1]),
            tf.reshape(rows + target, [-1]),
            tf.size(starts),
        )
        starts |= tf.reshape(reached, shape) > 0
        target = tf.gather(target, target, batch_dims=1)
    return starts


def choose(
    allowed: tf.Tensor, begins: tf.Tensor, span: tf.Tensor, budget: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Chooses words in random order while they fit in `budget`; bool `(batch, sequence)`.

    Words of one span are consecutive in this order.

    Args:
        allowed: bool `(batch, sequence)`, false for special tokens.
        begins, span: results of `units`.
        budget: int32 `(batch,)`, the largest number of pieces to choose.
        seed: two integers; decides the order.
    """
    length = allowed.shape[1]
    word = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
    # Sorting pieces by the random number of their span keeps each span together and in order.
    score = tf.random.stateless_uniform(tf.shape(allowed), seed)
    score = tf.gather(score, span, batch_dims=1)
    order = tf.argsort(score, axis=1, stable=True)
    flat = tf.range(tf.shape(word)[0])[:, tf.newaxis] * length + word
    size = tf.math.unsorted_segment_sum(tf.ones_like(word), flat, tf.size(word))
    size = tf.reshape(size, tf.shape(word))
    size = tf.gather(tf.gather(size, word, batch_dims=1), order, batch_dims=1)
    waiting = tf.gather(allowed, order, batch_dims=1)
    first = tf.gather(tf.cast(begins, tf.int32), order, batch_dims=1)

    # Greedy, in rounds over all rows at once: each round takes the words before the first one that
    # does not fit, then drops all words that no longer fit. With unit `token` there is one round.
    def take(waiting, taken, left):
        used = tf.cumsum(first * size * tf.cast(waiting, tf.int32), axis=1)
        now = waiting & (used <= left[:, tf.newaxis])
        left -= tf.reduce_sum(tf.cast(now, tf.int32), axis=1)
        return waiting & ~now & (size <= left[:, tf.newaxis]), taken | now, left

    _, taken, _ = tf.while_loop(
        lambda waiting, taken, left: tf.reduce_any(waiting),
        take,
        (waiting, tf.zeros_like(waiting), budget),
    )
    return tf.gather(taken, tf.argsort(order, axis=1), batch_dims=1)
