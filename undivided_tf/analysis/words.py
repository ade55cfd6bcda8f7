"""Words as the common unit of encoders with different word pieces.

A sentence is a list of words. A word's activation is the mean over its pieces. A word that
`max_seq_length` cuts off, completely or in part, is not seen. This is known before any encoder
runs, so that all compared encoders can use the same words.
"""

import re
from collections.abc import Sequence

import numpy as np

from undivided_tf.tokenization import Tokenizer

_WORD = re.compile(r"\w+|[^\w\s]")


def split(text: str) -> list[str]:
    """Splits text into runs of letters and digits, and single other characters except spaces."""
    return _WORD.findall(text)


def pieces(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Word pieces of sentences, without special tokens.

    Args:
        tokenizer: applied to the words, joined by spaces.
        sentences: lists of words; a word may contain spaces.

    Returns:
        For each sentence the ids of its pieces and the index of each piece's word, int32.
    """
    if not len(sentences):
        return []
    ids, starts, _ = tokenizer.tokenize_with_offsets([" ".join(words) for words in sentences])
    split_sentences = []
    for words, row, places in zip(sentences, ids.to_list(), starts.to_list(), strict=True):
        # Offset of each word in the joined sentence.
        begins = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
        word_of = np.searchsorted(begins, np.array(places, np.int64), side="right") - 1
        split_sentences.append((np.array(row, np.int32), word_of.astype(np.int32)))
    return split_sentences


def seen(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_seq_length: int
) -> list[np.ndarray]:
    """Which words an encoder sees completely.

    Args:
        tokenizer: the encoder's.
        sentences: lists of words.
        max_seq_length: word pieces per sentence, [CLS] and [SEP] included.

    Returns:
        For each sentence bool `(words,)`; also false for a word without pieces, such as a control
        character.
    """
    masks = []
    for start in range(0, len(sentences), 1024):
        batch = sentences[start : start + 1024]
        for words, (_, word_of) in zip(batch, pieces(tokenizer, batch), strict=True):
            total = np.bincount(word_of, minlength=len(words))
            kept = np.bincount(word_of[: max_seq_length - 2], minlength=len(words))
            masks.append((total > 0) & (kept == total))
    return masks


def seen_by_all(
    tokenizers: Sequence[Tokenizer], sentences: Sequence[Sequence[str]], max_seq_length: int
) -> list[np.ndarray]:
    """Which words all of several encoders see completely; see `seen`."""
    distinct = {(t.vocabulary_hash, t.do_lower_case): t for t in tokenizers}
    masks = [seen(tokenizer, sentences, max_seq_length) for tokenizer in distinct.values()]
    return [np.logical_and.reduce(sentence_masks) for sentence_masks in zip(*masks, strict=True)]


def encode(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_seq_length: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Encodes sentences like `Tokenizer.encode`, with the index of each piece's word.

    Returns:
        int32 `token_ids`, `segment_ids`, `padding_mask` and the indices of the words, each
        `(sentences, max_seq_length)`; the index is -1 for special tokens and padding.
    """
    shape = (len(sentences), max_seq_length)
    ids, words_of = np.full(shape, tokenizer.pad_id, np.int32), np.full(shape, -1, np.int32)
    mask = np.zeros(shape, np.int32)
    for i, (row, word_of) in enumerate(pieces(tokenizer, sentences)):
        count = min(len(row), max_seq_length - 2)
        ids[i, : count + 2] = [tokenizer.cls_id, *row[:count], tokenizer.sep_id]
        words_of[i, 1 : count + 1] = word_of[:count]
        mask[i, : count + 2] = 1
    inputs = {"token_ids": ids, "segment_ids": np.zeros(shape, np.int32), "padding_mask": mask}
    return inputs, words_of
