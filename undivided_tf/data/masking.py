"""Dynamic masking for the masked language model, and the batches it makes of records."""

import os

import numpy as np
import tensorflow as tf

from undivided_tf.data import streams
from undivided_tf.tokenization import Tokenizer

Batch = dict[str, tf.Tensor]
REPLACED_BY_MASK, REPLACED_AT_RANDOM = 0.8, 0.1  # The rest keeps its word piece.


def prediction_slots(max_seq_length: int, masked_lm_prob: float, max_predictions: int = 0) -> int:
    """The most predictions a row can have, hence the width of `masked_positions`.

    Args:
        max_seq_length: word pieces a row.
        masked_lm_prob: share of them to predict.
        max_predictions: a cap; 0 for none.
    """
    slots = max(1, round(max_seq_length * masked_lm_prob))
    return min(slots, max_predictions) if max_predictions else slots


def mask_tokens(
    token_ids: tf.Tensor,
    *,
    seed: tf.Tensor,
    tokenizer: Tokenizer,
    masked_lm_prob: float = 0.15,
    max_predictions: int = 0,
    whole_word: bool = False,
) -> Batch:
    """Chooses word pieces to predict and hides them, as BERT does; a pure function of its input.

    A row with n tokens, [CLS] and [SEP] counted, gets max(1, round(masked_lm_prob * n))
    predictions, at most `max_predictions`. Of the chosen pieces 80 % become [MASK], 10 % a
    random piece, 10 % stay. Special tokens and padding are never chosen, nor are they the random
    piece; [UNK] counts as special, since nothing is learnt from guessing it.

    With `whole_word` the pieces of a word are chosen together: words come in random order, and
    one that exceeds what is left of the row's predictions is left out, so a row may get fewer.

    Args:
        token_ids: int32 `(batch, sequence)`, padded with [PAD]; `sequence` static.
        seed: two integers; the same seed gives the same masks.
        tokenizer: tells special tokens, word beginnings and the size of the vocabulary.
        masked_lm_prob: share of tokens to predict.
        max_predictions: most predictions a row; 0: no cap but the share of a full row.
        whole_word: choose whole words.

    Returns:
        `token_ids` (with masks), `segment_ids` (0), `padding_mask`, int32 `(batch, sequence)`;
        `masked_positions` (ascending), `masked_ids` (what was there), int32, and
        `masked_weights` (1 for a prediction, 0 for an unused slot), float32
        `(batch, predictions)`. Unused slots have position and id 0.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1.
    """
    length = token_ids.shape[1]
    slots = prediction_slots(length, masked_lm_prob, max_predictions)
    order_seed, action_seed, piece_seed = tf.unstack(
        tf.random.experimental.stateless_split(tf.cast(seed, tf.int64), 3)
    )
    padding_mask = tf.cast(token_ids != tokenizer.pad_id, tf.int32)
    tokens = tf.cast(tf.reduce_sum(padding_mask, axis=1), tf.float32)
    budget = tf.cast(tf.maximum(1.0, tf.round(tokens * masked_lm_prob)), tf.int32)
    chosen = _choose(token_ids, tf.minimum(budget, slots), order_seed, tokenizer, whole_word)

    action = tf.random.stateless_uniform(tf.shape(token_ids), action_seed)
    ordinary = tf.constant(np.flatnonzero(~tokenizer.is_special), tf.int32)
    drawn = tf.random.stateless_uniform(
        tf.shape(token_ids), piece_seed, 0, len(ordinary), dtype=tf.int32
    )
    random_ids = tf.gather(ordinary, drawn)
    replacement = tf.where(
        action < REPLACED_BY_MASK,
        tokenizer.mask_id,
        tf.where(action < REPLACED_BY_MASK + REPLACED_AT_RANDOM, random_ids, token_ids),
    )

    places = tf.where(chosen, tf.range(length), length)
    positions = tf.sort(places, axis=1)[:, :slots]
    used = positions < length
    positions = tf.where(used, positions, 0)
    return {
        "token_ids": tf.where(chosen, replacement, token_ids),
        "segment_ids": tf.zeros_like(token_ids),
        "padding_mask": padding_mask,
        "masked_positions": positions,
        "masked_ids": tf.where(used, tf.gather(token_ids, positions, batch_dims=1), 0),
        "masked_weights": tf.cast(used, tf.float32),
    }


def _choose(
    token_ids: tf.Tensor,
    budget: tf.Tensor,
    seed: tf.Tensor,
    tokenizer: Tokenizer,
    whole_word: bool,
) -> tf.Tensor:
    """Bool `(batch, sequence)`: words in random order, each taken if `budget` still holds it."""
    length = token_ids.shape[1]
    allowed = ~tf.gather(tf.constant(tokenizer.is_special), token_ids)
    if whole_word:
        # A row may begin in the middle of a word: what follows a special token begins a word.
        after_allowed = tf.pad(allowed[:, :-1], [[0, 0], [1, 0]])
        continues = tf.gather(tf.constant(tokenizer.is_continuation), token_ids)
        begins = ~(continues & allowed & after_allowed)
    else:
        begins = tf.ones_like(allowed)
    word = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
    # Sorted by the random number of their word, the pieces of a word stand together.
    score = tf.random.stateless_uniform(tf.shape(token_ids), seed)
    score = tf.gather(score, word, batch_dims=1)
    order = tf.argsort(score, axis=1, stable=True)
    flat = tf.range(tf.shape(word)[0])[:, tf.newaxis] * length + word
    size = tf.math.unsorted_segment_sum(tf.ones_like(word), flat, tf.size(word))
    size = tf.reshape(size, tf.shape(word))
    size = tf.gather(tf.gather(size, word, batch_dims=1), order, batch_dims=1)
    waiting = tf.gather(allowed, order, batch_dims=1)
    first = tf.gather(tf.cast(begins, tf.int32), order, batch_dims=1)

    # Greedy in rounds over all rows at once: each round takes the words before the first that
    # does not fit, then drops all that no longer can. Without whole words it is a single round.
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


def _with_pairs(masked: Batch, rows: Batch) -> Batch:
    """What records of pairs say beside their ids: `segment_ids` and `next_sentence_label`."""
    if "segment_ids" not in rows:
        return masked
    segments = rows["segment_ids"] * masked["padding_mask"]
    return {**masked, "segment_ids": segments, "next_sentence_label": rows["next_sentence_label"]}


def pretraining_batches(
    records_dir: str | os.PathLike,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    masked_lm_prob: float = 0.15,
    max_predictions: int = 0,
    whole_word: bool = False,
) -> tf.data.Dataset:
    """An endless stream of masked batches; batch `n` depends on `(seed, n)` alone.

    So a run that resumes at `start_step` sees what an uninterrupted one sees. Every epoch has
    other masks.

    Args:
        records_dir: what `create_records` wrote.
        tokenizer: that of the records (`read_tokenizer`).
        batch_size: rows a batch; also the last batch of an epoch is full.
        seed: decides order and masks.
        start_step: number of the first batch.
        masked_lm_prob, max_predictions, whole_word: see `mask_tokens`.

    Returns:
        Dataset of the dicts of `mask_tokens`, static shapes; for records of pairs with their
        `segment_ids` and `next_sentence_label` int32 `(batch,)`.
    """
    rows = streams.training_rows(records_dir, seed=seed, start_row=start_step * batch_size)
    steps = tf.data.Dataset.range(start_step, tf.int64.max)

    def mask(step, rows):
        masked = mask_tokens(
            rows["token_ids"],
            seed=tf.stack([tf.constant(seed, tf.int64), step]),
            tokenizer=tokenizer,
            masked_lm_prob=masked_lm_prob,
            max_predictions=max_predictions,
            whole_word=whole_word,
        )
        return _with_pairs(masked, rows)

    batches = tf.data.Dataset.zip(steps, rows.batch(batch_size, drop_remainder=True))
    return streams.without_autotuning(batches.map(mask, num_parallel_calls=2).prefetch(8))


def validation_batches(
    records_dir: str | os.PathLike,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    max_rows: int = 0,
    masked_lm_prob: float = 0.15,
    max_predictions: int = 0,
    whole_word: bool = False,
) -> tf.data.Dataset:
    """Held-out batches whose rows and masks never change, whatever seed or batch size a run has.

    The last batch is filled up with copies of the first row whose `masked_weights` are 0, so
    that shapes are static and sums over weights stay right.

    Args:
        records_dir: what `create_records` wrote.
        tokenizer: that of the records.
        batch_size: rows a batch.
        max_rows: at most so many rows; 0: all. They are held in memory.
        masked_lm_prob, max_predictions, whole_word: see `mask_tokens`.
    """
    found = streams.validation_rows(records_dir, max_rows)
    ids = found["token_ids"]
    batch = mask_tokens(
        tf.constant(ids),
        seed=tf.constant([0, 0], tf.int64),
        tokenizer=tokenizer,
        masked_lm_prob=masked_lm_prob,
        max_predictions=max_predictions,
        whole_word=whole_word,
    )
    batch = _with_pairs(batch, {name: tf.constant(value) for name, value in found.items()})
    rows = np.arange(-(-len(ids) // batch_size) * batch_size)
    real = rows < len(ids)
    filled = {name: value.numpy()[np.where(real, rows, 0)] for name, value in batch.items()}
    filled["masked_weights"] *= real[:, np.newaxis]
    return tf.data.Dataset.from_tensor_slices(filled).batch(batch_size, drop_remainder=True)
