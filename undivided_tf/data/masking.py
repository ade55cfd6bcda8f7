"""Dynamic masking for the masked language model, and masked batches from records."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.accounting import prediction_slots
from undivided_tf.data import masking_units, streams
from undivided_tf.tokenization import Tokenizer

Batch = dict[str, tf.Tensor]
REPLACED_BY_MASK, REPLACED_AT_RANDOM = 0.8, 0.1  # The rest keeps the word piece.


def mask_tokens(
    token_ids: tf.Tensor,
    *,
    seed: tf.Tensor,
    tokenizer: Tokenizer,
    masked_lm_prob: float | tf.Tensor = 0.15,
    max_predictions: int = 0,
    masking_unit: str = "token",
) -> Batch:
    """Masks word pieces as BERT does; a pure function of its arguments.

    A row with n tokens, including [CLS] and [SEP], gets max(1, round(masked_lm_prob * n))
    predictions, at most `max_predictions`. Of the chosen pieces 80 % become [MASK], 10 % become a
    random piece and 10 % stay. Special tokens and padding are never chosen, and never used as the
    random piece. [UNK] counts as special, since predicting it teaches nothing.

    With the unit `whole_word` the pieces of a word are chosen together. Words are tried in random
    order. A word that exceeds the remaining predictions of the row is skipped, so a row may get
    fewer predictions.

    With `span` the row is cut into spans of 1 to 10 words (geometric, 3.8 on average; shorter if a
    special token ends them). Spans are tried in random order. If a span exceeds the remaining
    predictions, its first words are taken. The pieces of a span are treated alike: all become
    [MASK], all become random pieces, or all stay.

    Args:
        token_ids: int32 `(batch, sequence)`, padded with [PAD]; `sequence` static.
        seed: two integers; the same seed gives the same masks.
        tokenizer: gives special tokens, word starts and the size of the vocabulary.
        masked_lm_prob: share of tokens to predict. It is a scalar tensor if it changes from batch
            to batch; the result then has the width `max_predictions`.
        max_predictions: largest number of predictions per row; 0: the share of a full row.
        masking_unit: `token`, `whole_word` or `span`.

    Returns:
        `token_ids` (with masks), `segment_ids` (0), `padding_mask`, int32 `(batch, sequence)`;
        `masked_positions` (ascending), `masked_ids` (the original ids), int32, and `masked_weights`
        (1 for a prediction, 0 for an unused slot), float32 `(batch, predictions)`. Unused slots
        have position and id 0.

    References:
        Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1. Spans: Joshi et al.
        2019, arXiv 1907.10529, section 3.1.
    """
    length = token_ids.shape[1]
    slots = max_predictions
    if not tf.is_tensor(masked_lm_prob):
        slots = prediction_slots(length, masked_lm_prob, max_predictions)
    order_seed, action_seed, piece_seed = tf.unstack(
        tf.random.experimental.stateless_split(tf.cast(seed, tf.int64), 3)
    )
    padding_mask = tf.cast(token_ids != tokenizer.pad_id, tf.int32)
    tokens = tf.cast(tf.reduce_sum(padding_mask, axis=1), tf.float32)
    budget = tf.cast(tf.maximum(1.0, tf.round(tokens * masked_lm_prob)), tf.int32)
    begins, span = masking_units.units(token_ids, order_seed, tokenizer, masking_unit)
    allowed = ~tf.gather(tf.constant(tokenizer.is_special), token_ids)
    chosen = masking_units.choose(allowed, begins, span, tf.minimum(budget, slots), order_seed)

    action = tf.random.stateless_uniform(tf.shape(token_ids), action_seed)
    if masking_unit == "span":
        action = tf.gather(action, span, batch_dims=1)
    ordinary = tf.constant(np.flatnonzero(~tokenizer.is_special), tf.int32)
    drawn = tf.random.stateless_uniform(
        tf.shape(token_ids), piece_seed, 0, ordinary.shape[0], dtype=tf.int32
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


def masked_lm_prob_at(
    step: tf.Tensor,
    masked_lm_prob: float,
    initial_masked_lm_prob: float,
    num_train_steps: int,
    first_step: int = 0,
) -> tf.Tensor:
    """The masking rate of step 0, 1, ...: linear from the initial to the last rate.

    The line starts at `first_step`; before it the rate is the initial one.

    References:
        Yang et al. 2022, arXiv 2208.10806 (a falling masking rate).
    """
    done = tf.cast(step - first_step, tf.float32) / max(num_train_steps - 1 - first_step, 1)
    return initial_masked_lm_prob + tf.clip_by_value(done, 0.0, 1.0) * (
        masked_lm_prob - initial_masked_lm_prob
    )


def intermediate_scales(seed: tf.Tensor, rows: int, blocks: int, rate: float) -> tf.Tensor:
    """Stochastic depth of intermediate blocks: 0 with probability `rate`, else 1 / (1 - rate).

    The encoder multiplies the change of a block, norm included, by the scale. So the mean over
    drops is the output of the whole block for any input, with pre-norm and with post-norm. Dropping
    a block has the same effect as removing it by surgery without `fold_layer_norms`.

    Args:
        seed: two integers, as for `mask_tokens`.
        rows, blocks: rows of a batch and intermediate blocks of the pattern; each pair has its own
            draw.
        rate: probability of dropping a block, below 1.

    Returns:
        float32 `(rows, blocks)`.

    References:
        Huang et al. 2016, arXiv 1603.09382, who drop blocks for whole batches and scale at test
        time.
    """
    seed = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int64), 2)
    kept = tf.random.stateless_uniform((rows, blocks), seed) >= rate
    return tf.cast(kept, tf.float32) / (1.0 - rate)


def _with_pairs(masked: Batch, rows: Batch) -> Batch:
    """Adds `segment_ids` and `next_sentence_label` of records of pairs."""
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
    start_row: int | None = None,
    masked_lm_prob: float = 0.15,
    initial_masked_lm_prob: float = 0.0,
    num_train_steps: int = 0,
    first_changing_step: int = 0,
    max_predictions: int = 0,
    masking_unit: str = "token",
    intermediate_blocks: int = 0,
    intermediate_drop_rate: float = 0.0,
) -> tf.data.Dataset:
    """An endless stream of masked batches; batch `n` depends on `(seed, n)` alone.

    So a run that resumes at `start_step` gets the batches of an uninterrupted run. The masks differ
    from epoch to epoch.

    Args:
        records_dir: output of `create_records`.
        tokenizer: tokenizer of the records (`read_tokenizer`).
        batch_size: rows per batch; a batch may span two epochs, so all batches are full.
        seed: seed of order and masks.
        start_step: number of the first batch.
        start_row: position in the stream of rows; None: `start_step` batches of this size.
        masked_lm_prob, max_predictions, masking_unit: see `mask_tokens`.
        initial_masked_lm_prob: rate of the first step; it changes linearly to `masked_lm_prob` in
            the last step. 0: the same rate in all steps.
        num_train_steps: all steps of the run; used if the rate changes.
        first_changing_step: the step at which the rate starts to change.
        intermediate_blocks, intermediate_drop_rate: see `intermediate_scales`; at rate 0 the
            batches have no scales.

    Returns:
        Dataset of the dicts of `mask_tokens` with static shapes. They also have
        `intermediate_scales` if blocks are dropped, and for records of pairs their `segment_ids`
        and `next_sentence_label`, int32 `(batch,)`.
    """
    start_row = start_step * batch_size if start_row is None else start_row
    rows = streams.training_rows(records_dir, seed=seed, start_row=start_row)
    steps = tf.data.Dataset.range(start_step, tf.int64.max)

    @tf.autograph.experimental.do_not_convert
    def mask(step, rows):
        rate, slots = masked_lm_prob, max_predictions
        if initial_masked_lm_prob:
            length = rows["token_ids"].shape[1]
            slots = prediction_slots(
                length, masked_lm_prob, max_predictions, initial_masked_lm_prob
            )
            rate = masked_lm_prob_at(
                step, masked_lm_prob, initial_masked_lm_prob, num_train_steps, first_changing_step
            )
        step_seed = tf.stack([tf.constant(seed, tf.int64), step])
        batch = mask_tokens(
            rows["token_ids"],
            seed=step_seed,
            tokenizer=tokenizer,
            masked_lm_prob=rate,
            max_predictions=slots,
            masking_unit=masking_unit,
        )
        if intermediate_blocks and intermediate_drop_rate:
            batch["intermediate_scales"] = intermediate_scales(
                step_seed, batch_size, intermediate_blocks, intermediate_drop_rate
            )
        return _with_pairs(batch, rows)

    batches = tf.data.Dataset.zip(steps, rows.batch(batch_size, drop_remainder=True))
    return streams.without_autotuning(batches.map(mask, num_parallel_calls=2).prefetch(8))


def validation_arrays(
    records_dir: str | os.PathLike,
    tokenizer: Tokenizer,
    *,
    max_rows: int = 0,
    seed: tuple[int, int] = (0, 0),
    masked_lm_prob: float = 0.15,
    max_predictions: int = 0,
    masking_unit: str = "token",
) -> dict[str, np.ndarray]:
    """Held-out rows with masks; they do not depend on the seed of a training run.

    Args:
        records_dir: output of `create_records`.
        tokenizer: tokenizer of the records.
        max_rows: largest number of rows; 0: all.
        seed: seed of the masks; the rows do not depend on it.
        masked_lm_prob, max_predictions, masking_unit: see `mask_tokens`.

    Returns:
        The dict of `mask_tokens`; for records of pairs also `segment_ids` and
        `next_sentence_label`.
    """
    rows = streams.validation_rows(records_dir, max_rows)
    masked = mask_tokens(
        tf.constant(rows["token_ids"]),
        seed=tf.constant(seed, tf.int64),
        tokenizer=tokenizer,
        masked_lm_prob=masked_lm_prob,
        max_predictions=max_predictions,
        masking_unit=masking_unit,
    )
    masked = _with_pairs(masked, {name: tf.constant(value) for name, value in rows.items()})
    return {name: value.numpy() for name, value in masked.items()}


def full_batches(rows: dict[str, np.ndarray], batch_size: int) -> tf.data.Dataset:
    """Batches of rows in memory, in their order.

    The last batch is filled with copies of the first row with `masked_weights` 0, so that shapes
    are static and sums over weights are correct.

    Args:
        rows: result of `validation_arrays`.
        batch_size: rows per batch.
    """
    count = len(rows["token_ids"])
    number = np.arange(-(-count // batch_size) * batch_size)
    real = number < count
    filled = {name: value[np.where(real, number, 0)] for name, value in rows.items()}
    filled["masked_weights"] *= real[:, np.newaxis]
    return tf.data.Dataset.from_tensor_slices(filled).batch(batch_size, drop_remainder=True)


def validation_batches(
    records_dir: str | os.PathLike, tokenizer: Tokenizer, *, batch_size: int, **options: Any
) -> tf.data.Dataset:
    """Batches of the held-out rows; the options are those of `validation_arrays`."""
    return full_batches(validation_arrays(records_dir, tokenizer, **options), batch_size)
