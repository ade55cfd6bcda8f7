"""Converts raw strings to the encoder's inputs, with TensorFlow operations."""

import tensorflow as tf

from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

MASK = SPECIAL_TOKENS[-1]


def clean(strings):
    """Replaces bytes that are not valid UTF-8 by U+FFFD, which ends a word.

    Args:
        strings: string tensor (batch,), any bytes. NUL is a character that ends a word, too.
    """
    return tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="replace")


def tokenize_with_masks(tokenizer: Tokenizer, strings):
    """Like `tokenizer.tokenize`, but "[MASK]" in a text becomes the special token.

    Args:
        tokenizer: Tokenizer.
        strings: string tensor (batch,), UTF-8.

    Returns:
        int32 ids, ragged (batch, (pieces)).
    """
    parts = tf.strings.split(strings, MASK)
    masks = tf.fill([tf.size(parts.flat_values), 1], tokenizer.mask_id)
    pieces = tf.concat(
        [tokenizer.tokenize(parts.flat_values), tf.RaggedTensor.from_tensor(masks)], axis=1
    )
    return parts.with_values(pieces).merge_dims(1, 2)[:, :-1]  # No mask after the last part.


def without_padding(inputs, config):
    """Cuts a batch to its longest text, rounded up.

    Args:
        inputs: dict of int tensors (batch, length) from `Tokenizer.encode`.
        config: ExportConfig. `pad_to` or `pad_to_multiple_of` decides the length, if the input is
            long enough.

    Returns:
        The same dict, (batch, shorter length).
    """
    mask = inputs["padding_mask"]
    # At least 1, since a batch may be empty.
    longest = tf.maximum(tf.reduce_max(tf.reduce_sum(mask, axis=1)), 1)
    sizes = config.pad_to or (config.pad_to_multiple_of,)
    length = tf.minimum(next_size(longest, sizes), tf.shape(mask)[1])
    return {name: value[:, :length] for name, value in inputs.items()}


def next_size(number, sizes):
    """The first of `sizes` (ascending ints) not below a number, or a multiple of the last.

    Args:
        number: int32 scalar, at least 1.
    """
    step = sizes[-1]
    multiple = -(-number // step) * step
    candidates = tf.constant(sizes)
    return tf.reduce_min(tf.where(candidates >= number, candidates, multiple))


def mask_positions(token_ids, mask_id):
    """Positions of [MASK].

    Args:
        token_ids: int tensor (batch, length).
        mask_id: int.

    Returns:
        int32 positions (batch, slots), ascending, 0 in unused slots; and the number of used slots,
        int32 (batch,). There is at least one slot.
    """
    is_mask = tf.equal(token_ids, mask_id)
    places = tf.broadcast_to(tf.range(tf.shape(token_ids)[1]), tf.shape(token_ids))
    count = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
    slots = tf.maximum(tf.reduce_max(count), 1)
    dense = tf.ragged.boolean_mask(places, is_mask).to_tensor(0, shape=(None, None))
    return tf.pad(dense, [[0, 0], [0, slots - tf.shape(dense)[1]]]), count
