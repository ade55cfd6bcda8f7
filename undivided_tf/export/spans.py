"""Windows over long contexts and the best span over all windows, as TensorFlow operations.

Counterparts of `data.tasks.windows.make_windows` and `data.tasks.answers.predict_answers`; tests
check that the answers are equal.
"""

import tensorflow as tf

from undivided_tf.data.tasks.answers import CERTAINLY_NULL
from undivided_tf.tokenization import Tokenizer

_NONE = -1e30  # Below any sum of two logits.


def make_windows(tokenizer: Tokenizer, questions, contexts, windows):
    """Cuts every context into windows `[CLS] question [SEP] context [SEP]`.

    Args:
        tokenizer: Tokenizer.
        questions: string tensor (batch,), UTF-8.
        contexts: string tensor (batch,), UTF-8.
        windows: dict with `max_seq_length`, `doc_stride` and `max_query_length`.

    Returns:
        Dict of tensors (windows, length): the encoder's inputs; `starts` and `ends`, int32 offsets
        in the context, -1 outside it; and bool `has_most_context`, see `data.tasks.windows`. Also
        `row` (windows,), the index of the window's question in the batch. A blank question has a
        window, too, but no piece of it has most context.
    """
    length = windows["max_seq_length"]
    query = tokenizer.tokenize(questions)[:, : windows["max_query_length"]]
    ids, starts, ends = tokenizer.tokenize_with_offsets(contexts)
    offset = _lengths(query) + 2  # Offset of the context in a window.
    room = length - offset - 1
    stride = windows["doc_stride"]
    number = 1 + tf.maximum(-(-(_lengths(ids) - room) // stride), 0)
    row = tf.repeat(tf.range(tf.size(number)), number)
    begin = tf.ragged.range(number).flat_values * stride
    count = tf.minimum(tf.gather(room, row), tf.gather(_lengths(ids), row) - begin)

    column = tf.range(length)[tf.newaxis] - tf.gather(offset, row)[:, tf.newaxis]
    count, begin = count[:, tf.newaxis], begin[:, tf.newaxis]
    inside = (column >= 0) & (column < count)
    first_piece = tf.gather(tf.cast(ids.row_starts(), tf.int32), row)[:, tf.newaxis]
    piece = tf.where(inside, first_piece + begin + column, 0)

    def of_context(ragged, outside):
        # One element more, so that the index is valid even if no context has a piece.
        values = tf.concat([ragged.flat_values, [0]], axis=0)
        return tf.where(inside, tf.gather(values, piece), outside)

    front = tf.concat(
        [
            tf.RaggedTensor.from_tensor(tf.fill([query.nrows(), 1], tokenizer.cls_id)),
            query,
            tf.RaggedTensor.from_tensor(tf.fill([query.nrows(), 1], tokenizer.sep_id)),
        ],
        axis=1,
    ).to_tensor(tokenizer.pad_id, shape=(None, length))
    token_ids = of_context(ids, tokenizer.pad_id)
    token_ids = tf.where(column < 0, tf.gather(front, row), token_ids)
    token_ids = tf.where(tf.equal(column, count), tokenizer.sep_id, token_ids)
    # google-research/bert's score: distance to the nearer edge, plus a little for a longer window.
    context = tf.cast(tf.minimum(column, count - 1 - column), tf.float64)
    context = context + 0.01 * tf.cast(count, tf.float64)
    has_question = tf.gather(_lengths(query) > 0, row)[:, tf.newaxis]
    return {
        "token_ids": token_ids,
        "segment_ids": tf.cast((column >= 0) & (column <= count), tf.int32),
        "padding_mask": tf.cast(column <= count, tf.int32),
        "starts": of_context(starts, -1),
        "ends": of_context(ends, -1),
        "has_most_context": inside & has_question & _is_first_of_largest(context, piece, inside),
    }, row


def best_spans(logits, windows, row, contexts, max_answer_length):
    """The best span of every question, over all of its windows.

    Among equal scores the shorter span is chosen, then the earlier window, then the earlier piece.

    Args:
        logits: float32 tensor (windows, 2, length), of starts and ends.
        windows: dict of tensors (windows, length) from `make_windows`.
        row: int tensor (windows,) from `make_windows`.
        contexts: string tensor (batch,), UTF-8.
        max_answer_length: int. Largest number of pieces.

    Returns:
        Dict of tensors (batch,): `text`, `start` and `end` (int32 offsets in the context), `score`
        (sum of the two logits) and `null_odds` (score of no answer minus `score`). A blank question
        or context has an empty text at 0 and the null odds `CERTAINLY_NULL`.
    """
    batch, (number, _, length) = tf.size(contexts), tf.unstack(tf.shape(logits))
    first = tf.where(windows["has_most_context"], logits[:, 0], _NONE)
    last = tf.where(windows["ends"] >= 0, logits[:, 1], _NONE)
    # Scores by the number of pieces from first to last; those beyond the window's end are `_NONE`.
    padded = tf.pad(last, [[0, 0], [0, max_answer_length - 1]], constant_values=_NONE)
    scores = tf.stack(
        [first + padded[:, more : more + length] for more in range(max_answer_length)], axis=1
    )
    place = tf.argmax(
        tf.reshape(scores, [number, max_answer_length * length]), axis=1, output_type=tf.int32
    )
    score = tf.reduce_max(scores, axis=[1, 2])
    best = tf.math.unsorted_segment_max(score, row, batch)
    order = (place // length) * number + tf.range(number)
    order = tf.where(tf.equal(score, tf.gather(best, row)), order, order.dtype.max)
    window = tf.math.unsorted_segment_min(order, row, batch) % tf.maximum(number, 1)
    place = tf.gather(place, window)
    piece = place % length
    last_piece = tf.minimum(piece + place // length, length - 1)
    has_span = best > _NONE / 2

    def character(edge, pieces):
        values = tf.gather(tf.gather(windows[edge], window), pieces, batch_dims=1)
        return tf.where(has_span, values, 0)

    start, end = character("starts", piece), character("ends", last_piece)
    null = tf.math.unsorted_segment_min(tf.reduce_sum(logits[:, :, 0], axis=1), row, batch)
    return {
        "text": tf.strings.substr(contexts, start, end - start, unit="UTF8_CHAR"),
        "start": start,
        "end": end,
        "score": tf.where(has_span, best, 0.0),
        "null_odds": tf.where(has_span, null - best, CERTAINLY_NULL),
    }


def _lengths(ragged):
    return tf.cast(ragged.row_lengths(), tf.int32)


def _is_first_of_largest(values, groups, is_valid):
    """Whether a value is the first of the largest in its group; all tensors (windows, length)."""
    shape, groups = tf.shape(values), tf.reshape(groups, [-1])
    values = tf.reshape(tf.where(is_valid, values, values.dtype.min), [-1])
    number = tf.maximum(tf.reduce_max(groups), 0) + 1
    largest = tf.math.unsorted_segment_max(values, groups, number)
    is_largest = tf.equal(values, tf.gather(largest, groups))
    place = tf.range(tf.size(values))
    place = tf.where(is_largest, place, place.dtype.max)
    first = tf.math.unsorted_segment_min(place, groups, number)
    return tf.reshape(tf.equal(place, tf.gather(first, groups)), shape)
