"""Training of a WordPiece vocabulary from text."""

import collections
from collections.abc import Iterable, Iterator

import tensorflow as tf
import tensorflow_text as tft
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from undivided_tf.errors import InputError
from undivided_tf.tokenization import CONTINUATION, SPECIAL_TOKENS

_MAX_REPEATS = 100_000  # Of a word in one text for the trainer.


def train_vocabulary(
    lines: Iterable[str], vocab_size: int, do_lower_case: bool = True, limit_alphabet: int = 1000
) -> list[str]:
    """Trains a WordPiece vocabulary; special tokens come first, then single characters.

    Text is normalised as in `Tokenizer`. The same lines give the same vocabulary. Memory grows with
    the number of distinct words, not with the length of the text.

    Args:
        lines: pieces of text that do not cut words.
        vocab_size: largest number of word pieces, special tokens included; a small text may give
            fewer.
        do_lower_case: lower-case the text and strip accents.
        limit_alphabet: only this many characters, the most frequent ones, become pieces, so that
            rare scripts do not fill the vocabulary.

    Raises:
        InputError: the special tokens and single characters alone exceed `vocab_size`.
    """
    counts = _count_words(lines, do_lower_case)
    characters = collections.Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    by_count = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = set(by_count[:limit_alphabet])
    words = sorted(word for word in counts if alphabet.issuperset(word))
    inner = {CONTINUATION + character for word in words for character in word[1:]}
    # As special tokens the single characters get fixed ids. Otherwise the trainer would number them
    # in the order of a hash table, and these ids decide ties between merges.
    fixed = [*SPECIAL_TOKENS, *sorted(alphabet), *sorted(inner)]
    if len(fixed) > vocab_size:
        raise InputError(
            f"vocab_size {vocab_size} is too small: special tokens and single characters "
            f"alone take {len(fixed)}"
        )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    learner.train_from_iterator(_repeat(counts, words), trainer)
    vocabulary = learner.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def _repeat(counts: collections.Counter[str], words: Iterable[str]) -> Iterator[str]:
    """Repeats each word by its count, since the trainer needs text; texts have a bounded length."""
    for word in words:
        for start in range(0, counts[word], _MAX_REPEATS):
            yield " ".join([word] * min(_MAX_REPEATS, counts[word] - start))


def _count_words(lines: Iterable[str], do_lower_case: bool) -> collections.Counter[str]:
    """Counts words after normalisation as in `Tokenizer` and splitting at punctuation."""
    # Split at spaces first, so that each distinct string is normalised once.
    raw = collections.Counter()
    for line in lines:
        raw.update(line.split())
    texts = tf.constant(list(raw), tf.string)
    if do_lower_case:
        # As in FastBertTokenizer; BertNormalizer differs.
        texts = tft.normalize_utf8(tft.case_fold_utf8(texts), "NFD")
        texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
    cleaner = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = collections.Counter()
    for text, count in zip(texts.numpy(), raw.values(), strict=True):
        for word, _ in splitter.pre_tokenize_str(cleaner.normalize_str(text.decode())):
            counts[word] += count
    return counts
