"""WordPiece tokenizer as TensorFlow operations."""

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tft

from undivided_tf.errors import InputError
from undivided_tf.support import files

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
MAX_CHARACTERS = 100  # Of a word; longer words become [UNK], as in the reference tokenizer.
BYTE_ORDER_MARK = "\ufeff"
# Pieces that are not text, such as [unused1], [CLS], <S>.
_MARKER = re.compile(r"\[.*\]|<.*>", re.DOTALL)


class Tokenizer:
    """BERT's WordPiece tokenizer as TensorFlow operations, usable inside `tf.data` and exports.

    It uses tensorflow-text's `FastBertTokenizer`. The reference is the `tokenizers` library, which
    Hugging Face's `BertTokenizerFast` uses. With cased text both agree on every paragraph of the
    sample corpus, with uncased text on all but 64 of 36,066. Known differences:

    - The reference lower-cases uncased text. This tokenizer also applies case folding and
      compatibility decomposition: "½" becomes "1⁄2", "…" becomes "...", "ß" becomes "ss", "ς"
      becomes "σ", the ligature "ﬁ" becomes "fi".
    - The reference drops control, format and private-use characters and U+FFFD. Here a control or
      format character ends a word, and the others are part of their word.
    - Special tokens in the text are split like other text: "[MASK]" masks nothing.

    A word of more than 100 characters becomes one [UNK]. The characters of uncased words are
    counted after case folding and decomposition.

    A vocabulary is read and written byte for byte. Only `\\n` ends a line. A piece may contain any
    other character, even white space such as U+00A0 or U+2028 (it then occurs in no text, but keeps
    its id). There are three exceptions: a byte order mark is dropped, `\\r\\n` becomes `\\n` if the
    first line ends with it, and a last line without `\\n` gets one.

    Attributes:
        vocabulary: tuple of word pieces; the id of a piece is its index.
        vocab_size: number of word pieces.
        do_lower_case: whether text is lower-cased and stripped of accents first.
        vocabulary_hash: SHA-256 of the pieces, each followed by a newline, as in the file that
            `save` writes. It does not depend on `do_lower_case`.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the five special tokens.
        is_special: bool `(vocab_size,)`, true for these five.
        is_continuation: bool `(vocab_size,)`, true for pieces that continue a word (`##ing`).

    Args:
        vocabulary: path of a file with one word piece per line, or the word pieces.
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
                # UTF-8 has up to four bytes per character; `_limited` counts the characters.
                max_bytes_per_word=4 * MAX_CHARACTERS,
                token_out_type=tf.int32,
                lower_case_nfd_strip_accents=do_lower_case,
            )
        except RuntimeError as error:  # For example for a piece of more than 256 bytes.
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
        """Splits strings into word pieces and returns the offsets of each piece.

        Offsets count characters (code points) of the original string, before case folding and
        normalisation. So `text[start:end]` is the original text of the piece, with the accents that
        follow it. Starts never decrease and no piece is empty: pieces of one character ("…" becomes
        three full stops) all have the offsets of this character.

        Args:
            strings: as for `tokenize`.

        Returns:
            int32 ids as from `tokenize`, starts and ends, each ragged `(batch, (pieces))`.
        """
        strings = tf.convert_to_tensor(strings, tf.string)
        ids, starts, ends = self._limited(*self._tokenizer.tokenize_with_offsets(strings))
        _, characters = tf.strings.unicode_decode_with_offsets(strings, "UTF-8")
        # The rows are concatenated, so that one binary search suffices for the whole batch.
        base = tf.cumsum(tf.cast(tf.strings.length(strings), tf.int64), exclusive=True)
        begins = characters.flat_values + tf.gather(base, characters.value_rowids())

        def character(offsets: tf.Tensor) -> tf.Tensor:
            """Index, within its row, of the character that contains a byte of the batch."""
            place = tf.searchsorted(begins, offsets, side="right") - 1
            return place - tf.cast(tf.gather(characters.row_starts(), rows), tf.int32)

        rows = ids.value_rowids()
        first = starts.flat_values + tf.gather(base, rows)
        # The end of a piece that ends within a decomposed character may be before its start.
        last = tf.maximum(first, ends.flat_values + tf.gather(base, rows) - 1)
        return (
            ids,
            ids.with_flat_values(character(first)),
            ids.with_flat_values(character(last) + 1),
        )

    def _limited(
        self, ids: tf.RaggedTensor, *offsets: tf.RaggedTensor
    ) -> tuple[tf.RaggedTensor, ...]:
        """Replaces each word of more than `MAX_CHARACTERS` characters by one [UNK].

        Args:
            ids: word pieces, ragged `(batch, (pieces))`.
            *offsets: starts and ends of the pieces, or nothing.
        """
        flat = [ragged.flat_values for ragged in (ids, *offsets)]
        begins = tf.gather(~self.is_continuation, flat[0])
        word = tf.cumsum(tf.cast(begins, tf.int32))
        is_long = tf.math.segment_sum(tf.gather(self._characters, flat[0]), word) > MAX_CHARACTERS

        def shortened():
            in_long = tf.gather(is_long, word)
            kept = begins | ~in_long
            # The first piece represents the word, up to the end of its last piece.
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

        Pieces that do not fit are cut from the end of the longer text, one by one.

        Args:
            first, second: strings `(batch,)`; `second` may be None.
            max_seq_length: length of the result, special tokens included.

        Returns:
            int32 `token_ids`, `segment_ids` (1 in `second` and its [SEP]) and `padding_mask`
            (1 on tokens, 0 on padding), each `(batch, max_seq_length)`.

        Raises:
            InputError: `max_seq_length` is too short for one word piece of each text.
        """
        texts = [tf.convert_to_tensor(t, tf.string) for t in (first, second) if t is not None]
        return self.pack([self.tokenize(t) for t in texts], max_seq_length, texts[0].shape[0])

    def pack(self, texts: list, max_seq_length: int, batch: int | None = None) -> dict[str, Any]:
        """Like `encode`, for one or two texts that are already split into word pieces.

        Args:
            texts: int32 ids, each ragged `(batch, (pieces))`.
            max_seq_length: as for `encode`.
            batch: size of the batch, if it is static.
        """
        budget = max_seq_length - len(texts) - 1
        if budget < len(texts):
            raise InputError(
                f"max_seq_length {max_seq_length} is too short for {len(texts)} text(s) "
                f"with their special tokens: give at least {2 * len(texts) + 1}"
            )
        counts = _kept([tf.cast(text.row_lengths(), tf.int32) for text in texts], budget)
        # Dense rows, since each operation on ragged rows takes dozens of small operations.
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

        Tokenization loses casing, accents and the spaces around punctuation.

        Args:
            ids: integers `(batch, pieces)`, an array, nested lists or a ragged tensor.

        Returns:
            One string per row.

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
        """Writes the vocabulary atomically, one word piece per line."""
        files.write_text(path, _vocabulary_text(self.vocabulary))


def _kept(lengths: list[tf.Tensor], budget: int) -> list[tf.Tensor]:
    """Lengths of one or two texts after removing pieces of the longer one until they fit.

    Computed in closed form. The ShrinkLongestTrimmer of tensorflow-text 2.21 has a loop whose
    variable changes its shape, so `tf.data` cannot trace it.
    """
    if len(lengths) == 1:
        return [tf.minimum(lengths[0], budget)]
    half = (budget + 1) // 2  # BERT shortens the second text if both are equally long.
    first = tf.minimum(lengths[0], tf.maximum(budget - lengths[1], half))
    return [first, tf.minimum(lengths[1], budget - first)]


def _vocabulary_text(pieces: Sequence[str]) -> str:
    return "".join(f"{piece}\n" for piece in pieces)


def read_vocabulary(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a file with one word piece per line.

    Only `\\n` ends a line. `\\r` before it belongs to the piece, unless the first line ends with
    `\\r\\n`. A byte order mark at the start is skipped.

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
    """Word pieces with a capital letter, and the number of pieces without markers.

    Markers are pieces in brackets, such as `[unused1]` or `<S>`.
    """
    words = [piece for piece in pieces if not _MARKER.fullmatch(piece)]
    return [piece for piece in words if piece != piece.lower()], len(words)


def _matchable(piece: str, index: int) -> str:
    """The piece for tensorflow-text, or a placeholder for a piece that can occur in no word.

    tensorflow-text would match a piece with white space across words: with a piece "a b" the text
    "a b" would be one token. It refuses NUL and pieces that are too long.
    """
    hidden = len(piece.removeprefix(CONTINUATION)) > MAX_CHARACTERS or any(
        character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
        for character in piece
    )
    # Normalised text never contains U+0001.
    return f"\x01{index}" if hidden else piece


def _check_vocabulary(pieces: tuple[str, ...], where: str) -> dict[str, int]:
    if pieces == ("",):
        raise InputError(f"{where}: the file is empty; expected one word piece per line")
    ids: dict[str, int] = {}
    for index, piece in enumerate(pieces):
        if not piece:
            raise InputError(
                f"{where}:{index + 1}: empty line. In your own vocabulary, remove it. In one that "
                "belongs to weights every line is an id, so write a piece there that occurs in no "
                f"text, such as [empty_{index}]"
            )
        if piece in ids:
            raise InputError(
                f"{where}:{index + 1}: word piece {piece!r} is already on line {ids[piece] + 1}; "
                "a piece cannot have two ids. In your own vocabulary, remove one line. In one that "
                "belongs to weights every line is an id: transformers uses the later one, so "
                f"write [duplicate_{ids[piece]}] on line {ids[piece] + 1} to do the same"
            )
        if "\n" in piece:
            raise InputError(
                f"{where}:{index + 1}: word piece {piece!r} contains a line feed, which would "
                "end its line in a vocabulary file"
            )
        ids[piece] = index
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        likely = [p for p in pieces if any(p.strip("<>[]|").upper() == m[1:-1] for m in missing)]
        raise InputError(
            f"{where}: the vocabulary lacks {', '.join(missing)}"
            + (f" (it has {', '.join(map(repr, likely[:5]))})" if likely else "")
            + ". In your own vocabulary, add a line for each. A vocabulary that belongs to weights "
            "must contain them: a new line would have no trained embedding"
        )
    if len(ids) == len(SPECIAL_TOKENS):
        raise InputError(f"{where}: the vocabulary has no word pieces except the special tokens")
    return ids
