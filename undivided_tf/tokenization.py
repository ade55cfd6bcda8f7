"""WordPiece in the graph, the training of its vocabulary, and the hash that names it."""

import collections
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tft

from undivided_tf.errors import InputError
from undivided_tf.support import files

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
MAX_CHARACTERS = 100  # Of a word; a longer one is one [UNK], as in the reference tokenizer.
BYTE_ORDER_MARK = "\ufeff"
# Pieces that stand for something else than text, such as [unused1], [CLS], <S>.
_MARKER = re.compile(r"\[.*\]|<.*>", re.DOTALL)
REPEATS = 100_000  # Of a word in one text given to the trainer of the vocabulary.


class Tokenizer:
    """BERT's WordPiece tokenizer as TensorFlow operations, usable inside `tf.data` and exports.

    It runs tensorflow-text's `FastBertTokenizer`. Cased, it agrees with the reference (the
    `tokenizers` library behind Hugging Face's `BertTokenizerFast`) on every paragraph of the
    sample corpus; uncased on all but 64 of 36,066. Known differences:

    - uncased text is case-folded and decomposed by compatibility, the reference only
      lower-cases: "½" becomes "1⁄2", "…" becomes "...", "ß" becomes "ss", "ς" becomes "σ", the
      ligature "ﬁ" becomes "fi";
    - a control or format character ends a word, the reference drops it; a private-use character
      or U+FFFD is part of its word, the reference drops it;
    - special tokens written in the text are split like other text: "[MASK]" masks nothing.

    A word of more than 100 characters (of its case-folded and decomposed form, where uncased) is
    one [UNK], whatever their bytes.

    A vocabulary goes in and out byte for byte: lines end at `\\n` alone, and a piece may be any
    other character, white space such as U+00A0 or U+2028 included (no text has such a piece, but
    it keeps its id). What is written differs from what was read in three cases: a byte order mark
    is left out, `\\r\\n` becomes `\\n` where the first line ends so, and a last line without
    `\\n` gets one.

    Attributes:
        vocabulary: tuple of word pieces; a piece's position is its id.
        vocab_size: number of word pieces.
        do_lower_case: whether text is lower-cased and stripped of accents first.
        vocabulary_hash: SHA-256 of the pieces, each followed by a newline; equal to that of
            the file that `save` writes. Casing is no part of it and is kept beside it.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the five special tokens.
        is_special: bool `(vocab_size,)`, true for these five.
        is_continuation: bool `(vocab_size,)`, true for pieces that continue a word (`##ing`).

    Args:
        vocabulary: path of a file with one word piece a line, or the word pieces.
        do_lower_case: lower-case the text and strip accents (uncased models).

    Raises:
        InputError: the file is absent, not UTF-8 or a Git LFS pointer; a special token is
            missing; a piece is empty or appears twice. Names the file and the line.

    References:
        Wu et al. 2016, arXiv 1609.08144; Song et al. 2021, arXiv 2012.15524 (the algorithm).
    """

    def __init__(self, vocabulary: str | os.PathLike | Sequence[str], do_lower_case: bool = True):
        if isinstance(vocabulary, str | os.PathLike):
            pieces, where = read_vocabulary(vocabulary), str(vocabulary)
        else:
            pieces, where = tuple(vocabulary), "vocabulary"
        ids = _check_vocabulary(pieces, where)
        self.vocabulary = pieces
        self.vocab_size = len(pieces)
        self.do_lower_case = do_lower_case
        self.vocabulary_hash = files.sha256(_vocabulary_text(pieces))
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in SPECIAL_TOKENS
        )
        self.is_special = np.isin(pieces, SPECIAL_TOKENS)
        self.is_continuation = np.array([piece.startswith(CONTINUATION) for piece in pieces])
        self._characters = np.array(
            [len(piece.removeprefix(CONTINUATION)) for piece in pieces], np.int32
        )
        try:
            self._tokenizer = tft.FastBertTokenizer(
                [_matchable(piece, index) for index, piece in enumerate(pieces)],
                # UTF-8 has up to four bytes a character; `_limited` counts the characters.
                max_bytes_per_word=4 * MAX_CHARACTERS,
                token_out_type=tf.int32,
                lower_case_nfd_strip_accents=do_lower_case,
            )
        except RuntimeError as error:  # Such as for a piece of more than 256 bytes.
            raise InputError(f"{where}: tensorflow-text cannot use it: {error}") from error

    def tokenize(self, strings: Any) -> tf.RaggedTensor:
        """Splits strings into word pieces, without special tokens.

        Args:
            strings: strings or bytes in UTF-8, `(batch,)`.

        Returns:
            int32 ids, ragged `(batch, (pieces))`.
        """
        return self._limited(self._tokenizer.tokenize(tf.convert_to_tensor(strings, tf.string)))[0]

    def tokenize_with_offsets(
        self, strings: Any
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Splits strings into word pieces and says where each stands in its string.

        Offsets count characters (code points) of the string as given, before case folding and
        normalisation, so that `text[start:end]` is the piece as it was written, accents that
        follow it included. Starts never fall and no piece is empty: pieces out of one
        character ("…" becomes three full stops) all stand at that character.

        Args:
            strings: as for `tokenize`.

        Returns:
            int32 ids as `tokenize` gives, starts and ends, each ragged `(batch, (pieces))`.
        """
        strings = tf.convert_to_tensor(strings, tf.string)
        ids, starts, ends = self._limited(*self._tokenizer.tokenize_with_offsets(strings))
        _, characters = tf.strings.unicode_decode_with_offsets(strings, "UTF-8")
        # One row after the other, so that one binary search serves the whole batch.
        base = tf.cumsum(tf.cast(tf.strings.length(strings), tf.int64), exclusive=True)
        known = characters.flat_values + tf.gather(base, characters.value_rowids())

        def character(offsets: tf.Tensor) -> tf.Tensor:
            """The place in its row of the character that holds a byte of the batch."""
            place = tf.searchsorted(known, offsets, side="right") - 1
            return place - tf.cast(tf.gather(characters.row_starts(), rows), tf.int32)

        rows = ids.value_rowids()
        first = starts.flat_values + tf.gather(base, rows)
        # A piece that ends inside of what a character became has the end where it starts.
        last = tf.maximum(first, ends.flat_values + tf.gather(base, rows) - 1)
        return (
            ids,
            ids.with_flat_values(character(first)),
            ids.with_flat_values(character(last) + 1),
        )

    def _limited(
        self, ids: tf.RaggedTensor, *offsets: tf.RaggedTensor
    ) -> tuple[tf.RaggedTensor, ...]:
        """Makes one [UNK] of each word of more than `MAX_CHARACTERS` characters.

        Args:
            ids: word pieces, ragged `(batch, (pieces))`. offsets: starts and ends, or nothing.
        """
        flat = [ragged.flat_values for ragged in (ids, *offsets)]
        begins = tf.gather(~self.is_continuation, flat[0])
        word = tf.cumsum(tf.cast(begins, tf.int32))
        is_long = tf.math.segment_sum(tf.gather(self._characters, flat[0]), word) > MAX_CHARACTERS

        def shortened():
            in_long = tf.gather(is_long, word)
            kept = begins | ~in_long
            # The first piece of a word stands for all of it, up to the end of the last piece.
            values = [tf.where(in_long, self.unk_id, flat[0]), *flat[1:]]
            if offsets:
                values[2] = tf.gather(tf.math.segment_max(flat[2], word), word)
                values[2] = tf.where(in_long, values[2], flat[2])
            before = tf.concat([[0], tf.cumsum(tf.cast(kept, tf.int64))], 0)
            splits = tf.gather(before, ids.row_splits)
            return (*(tf.boolean_mask(value, kept) for value in values), splits)

        *values, splits = tf.cond(
            tf.reduce_any(is_long), shortened, lambda: (*flat, tf.identity(ids.row_splits))
        )
        return tuple(tf.RaggedTensor.from_row_splits(v, splits, validate=False) for v in values)

    def encode(
        self, first: Any, second: Any = None, *, max_seq_length: int
    ) -> dict[str, tf.Tensor]:
        """Encodes texts or pairs as `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`.

        What does not fit is cut from the end of the longer text, piece by piece.

        Args:
            first, second: strings `(batch,)`; `second` may be None.
            max_seq_length: length of the result, special tokens included.

        Returns:
            int32 `token_ids`, `segment_ids` (1 in `second` and its [SEP]) and `padding_mask`
            (1 on tokens, 0 on padding), each `(batch, max_seq_length)`.

        Raises:
            InputError: `max_seq_length` leaves no place for a word piece of each text.
        """
        texts = [tf.convert_to_tensor(t, tf.string) for t in (first, second) if t is not None]
        return self.pack([self.tokenize(t) for t in texts], max_seq_length, texts[0].shape[0])

    def pack(self, texts: list, max_seq_length: int, batch: int | None = None) -> dict[str, Any]:
        """`encode` for one or two texts that are word pieces already.

        Args:
            texts: int32 ids, each ragged `(batch, (pieces))`. max_seq_length: as for `encode`.
            batch: their number, where it is static.
        """
        budget = max_seq_length - len(texts) - 1
        if budget < len(texts):
            raise InputError(
                f"max_seq_length {max_seq_length} is too short for {len(texts)} text(s) "
                f"with their special tokens: give at least {2 * len(texts) + 1}"
            )
        counts = _kept([tf.cast(text.row_lengths(), tf.int32) for text in texts], budget)
        # On dense rows, since an operation on ragged ones is dozens of small ones.
        place = tf.range(max_seq_length)[tf.newaxis]
        start = tf.ones_like(counts[0])[:, tf.newaxis]
        ids, segments = tf.where(place == 0, self.cls_id, self.pad_id), tf.zeros_like(place)
        for segment, (text, count) in enumerate(zip(texts, counts, strict=True)):
            inside, count = place - start, count[:, tf.newaxis]
            at = tf.clip_by_value(inside, 0, max_seq_length - 1)
            pieces = tf.gather(text.to_tensor(shape=(None, max_seq_length)), at, batch_dims=1)
            is_of_text = (inside >= 0) & (inside <= count)
            ids = tf.where(is_of_text, tf.where(inside < count, pieces, self.sep_id), ids)
            segments = tf.where(is_of_text, segment, segments)
            start += count + 1
        mask, shape = tf.cast(place < start, tf.int32), (batch, max_seq_length)
        packed = {"token_ids": ids, "segment_ids": segments, "padding_mask": mask}
        return {name: tf.ensure_shape(value, shape) for name, value in packed.items()}

    def decode(self, ids: Any) -> list[str]:
        """Joins word pieces into words; [PAD], [CLS] and [SEP] are left out.

        Casing, accents and the spaces around punctuation are lost in tokenization.

        Args:
            ids: integers `(batch, pieces)`, an array, nested lists or a ragged tensor.

        Returns:
            One string a row.

        Raises:
            InputError: an id outside the vocabulary.
        """
        rows = ids.to_list() if isinstance(ids, tf.RaggedTensor) else ids
        silent = {self.pad_id, self.cls_id, self.sep_id}
        return [
            " ".join(self._piece(int(i)) for i in row if int(i) not in silent).replace(
                f" {CONTINUATION}", ""
            )
            for row in rows
        ]

    def _piece(self, index: int) -> str:
        if not 0 <= index < self.vocab_size:
            raise InputError(f"token id {index} is outside the vocabulary of {self.vocab_size}")
        return self.vocabulary[index]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary, one word piece a line, atomically."""
        files.write_text(path, _vocabulary_text(self.vocabulary))


def _kept(lengths: list[tf.Tensor], budget: int) -> list[tf.Tensor]:
    """Pieces left of one or two texts, as if popped off the longer one until `budget` are.

    In closed form, since tensorflow-text's ShrinkLongestTrimmer loops and cannot be traced in
    `tf.data` (2.21: its loop variable changes shape).
    """
    if len(lengths) == 1:
        return [tf.minimum(lengths[0], budget)]
    half = (budget + 1) // 2  # BERT pops the second text when both are equally long.
    first = tf.minimum(lengths[0], tf.maximum(budget - lengths[1], half))
    return [first, tf.minimum(lengths[1], budget - first)]


def _vocabulary_text(pieces: Sequence[str]) -> str:
    return "".join(f"{piece}\n" for piece in pieces)


def read_vocabulary(path: str | os.PathLike) -> tuple[str, ...]:
    """The word pieces of a file with one a line, whatever characters they have.

    Only `\\n` ends a line. `\\r` before it belongs to the piece, unless the first line ends with
    `\\r\\n`. A byte order mark at the start is no part of a piece.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or is a Git LFS pointer.
    """
    files.check_fetched(path)
    text = files.read_text(path).removeprefix(BYTE_ORDER_MARK)
    lines = text.removesuffix("\n").split("\n")
    if lines[0].endswith("\r"):
        lines = [line.removesuffix("\r") for line in lines]
    return tuple(lines)


def pieces_with_capitals(pieces: Sequence[str]) -> tuple[list[str], int]:
    """Word pieces with a capital letter, and the number of pieces that were looked at.

    Pieces in brackets, `[unused1]` or `<S>`, are markers and do not count.
    """
    words = [piece for piece in pieces if not _MARKER.fullmatch(piece)]
    return [piece for piece in words if piece != piece.lower()], len(words)


def _matchable(piece: str, index: int) -> str:
    """The piece as tensorflow-text gets it, or a stand-in for one that no word can have.

    Left as they are, pieces with white space would match across words: with a piece "a b" the
    text "a b" is one token. NUL and pieces that are too long are refused by tensorflow-text.
    """
    hidden = len(piece.removeprefix(CONTINUATION)) > MAX_CHARACTERS or any(
        character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
        for character in piece
    )
    # No text has U+0001 after normalisation.
    return f"\x01{index}" if hidden else piece


def _check_vocabulary(pieces: tuple[str, ...], where: str) -> dict[str, int]:
    if pieces == ("",):
        raise InputError(f"{where}: the file is empty; expected a word piece a line")
    ids: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if not piece:
            raise InputError(
                f"{where}:{index + 1}: empty line. In a vocabulary of your own, remove it; in one "
                "that came with weights its number is an id, so write a piece there that no text "
                f"has, such as [empty_{index}]"
            )
        if piece in ids:
            raise InputError(
                f"{where}:{index + 1}: word piece {piece!r} is already on line {ids[piece] + 1}; "
                "one piece cannot have two ids. In a vocabulary of your own, remove one. In one "
                "that came with weights every line is an id: transformers uses the later one, so "
                f"write [duplicate_{ids[piece]}] on line {ids[piece] + 1} to do the same"
            )
        if "\n" in piece:
            raise InputError(
                f"{where}:{index + 1}: word piece {piece!r} has a line feed, which ends a line of "
                "a vocabulary file"
            )
        ids[piece] = index
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        likely = [p for p in pieces if any(p.strip("<>[]|").upper() == m[1:-1] for m in missing)]
        raise InputError(
            f"{where}: the vocabulary lacks {', '.join(missing)}"
            + (f" (it has {', '.join(map(repr, likely[:5]))})" if likely else "")
            + ". In a vocabulary of your own, add a line each. One that came with weights must "
            "have BERT's special tokens under these names: a new line would have no trained row"
        )
    if len(ids) == len(SPECIAL_TOKENS):
        raise InputError(f"{where}: the vocabulary has no word piece beside the special tokens")
    return ids


def train_vocabulary(
    lines: Iterable[str], vocab_size: int, do_lower_case: bool = True, limit_alphabet: int = 1000
) -> list[str]:
    """Trains a WordPiece vocabulary; special tokens come first, then single characters.

    Text is normalised as `Tokenizer` does. The same lines give the same vocabulary. Memory
    grows with the number of distinct words, not with the text.

    Args:
        lines: text in any portions that do not cut words.
        vocab_size: most word pieces, special tokens included; a small text may give fewer.
        do_lower_case: lower-case the text and strip accents.
        limit_alphabet: characters beyond so many most frequent ones get no piece, so that rare
            scripts do not eat the vocabulary.

    Raises:
        InputError: the special tokens and single characters alone exceed `vocab_size`.
    """
    # Imported here, since trained vocabularies are used far more often than made.
    from tokenizers import Tokenizer as Learner
    from tokenizers import models, pre_tokenizers, trainers

    counts = _count_words(lines, do_lower_case)
    characters = collections.Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    kept = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = set(kept[:limit_alphabet])
    words = sorted(word for word in counts if alphabet.issuperset(word))
    inner = {CONTINUATION + character for word in words for character in word[1:]}
    # Given as special tokens the single characters get fixed ids; the trainer, left alone,
    # numbers them in the order of a hash table, and these ids decide ties between merges.
    fixed = [*SPECIAL_TOKENS, *sorted(alphabet), *sorted(inner)]
    if len(fixed) > vocab_size:
        raise InputError(
            f"vocab_size {vocab_size} is too small: special tokens and single characters "
            f"alone take {len(fixed)}"
        )
    learner = Learner(models.WordPiece(unk_token="[UNK]"))
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
    """Each word as often as it was counted, in texts of bounded length: the trainer takes text."""
    for word in words:
        for start in range(0, counts[word], REPEATS):
            yield " ".join([word] * min(REPEATS, counts[word] - start))


def _count_words(lines: Iterable[str], do_lower_case: bool) -> collections.Counter[str]:
    """Counts words after the normalisation of `Tokenizer` and splitting at punctuation."""
    from tokenizers import normalizers, pre_tokenizers

    # Between spaces first: each distinct string is then normalised once.
    raw = collections.Counter()
    for line in lines:
        raw.update(line.split())
    texts = tf.constant(list(raw), tf.string)
    if do_lower_case:
        # What FastBertTokenizer does, which is not what BertNormalizer does.
        texts = tft.normalize_utf8(tft.case_fold_utf8(texts), "NFD")
        texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
    cleaner = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = collections.Counter()
    for text, count in zip(texts.numpy(), raw.values(), strict=True):
        for word, _ in splitter.pre_tokenize_str(cleaner.normalize_str(text.decode())):
            counts[word] += count
    return counts
