"""From raw strings to the encoder's inputs, in the graph."""

import tensorflow as tf

from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

MASK = SPECIAL_TOKENS[-1]


def clean(strings):
    """Strings in valid UTF-8: what is no UTF-8 becomes U+FFFD, which ends a word.

    Args:
        strings: string tensor (batch,), any bytes. A NUL is a character as any other and ends a
            word too.
    """
    return tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="replace")


def tokenize_with_masks(tokenizer: Tokenizer, strings):
    """As `tokenizer.tokenize`, but "[MASK]" written in a text is the special token.

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
    return parts.with_values(pieces).merge_dims(1, 2)[:, :-1]  # No mask behind the last part.


def without_padding(inputs, multiple):
    """A batch cut to its longest text.

    Args:
        inputs: dict of int tensors (batch, length), as `Tokenizer.encode` gives them.
        multiple: int. The length becomes a multiple of this, where there is so much.

    Returns:
        The same dict, (batch, shorter length).
    """
    mask = inputs["padding_mask"]
    # At least one: a batch may have no text at all.
    longest = tf.maximum(tf.reduce_max(tf.reduce_sum(mask, axis=1)), 1)
    length = tf.minimum(-(-longest // multiple) * multiple, tf.shape(mask)[1])
    return {name: value[:, :length] for name, value in inputs.items()}


def mask_positions(token_ids, mask_id):
    """Where [MASK] stands.

    Args:
        token_ids: int tensor (batch, length).
        mask_id: int.

    Returns:
        int32 positions (batch, slots) in their order, 0 in slots that are not used, and int32
        numbers of used slots (batch,). There is one slot at least.
    """
    is_mask = tf.equal(token_ids, mask_id)
    places = tf.broadcast_to(tf.range(tf.shape(token_ids)[1]), tf.shape(token_ids))
    found = tf.ragged.boolean_mask(places, is_mask)
    count = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
    slots = tf.maximum(tf.reduce_max(count), 1)
    dense = found.to_tensor(0, shape=(None, None))
    return tf.pad(dense, [[0, 0], [0, slots - tf.shape(dense)[1]]]), count
