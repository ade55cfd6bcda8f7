"""Packing: turns the word pieces of a chunk of documents into rows of records.

The result depends only on the text of the chunk, the config and the random generator, so chunks may
be packed anywhere and in any order.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from undivided_tf.data.examples import ROW_DTYPE, TOKEN_IDS

if TYPE_CHECKING:
    from undivided_tf.data.corpus.config import RecordsConfig
    from undivided_tf.tokenization import Tokenizer


class Pieces(NamedTuple):
    """The word pieces of some documents.

    Attributes:
        ids: int32 `(pieces,)`, of the documents in sequence.
        paragraph_ends: int `(paragraphs,)`, indices in `ids` after each paragraph.
        document_ends: int `(documents,)`, indices in `ids` after each document.
    """

    ids: np.ndarray
    paragraph_ends: np.ndarray
    document_ends: np.ndarray


class PackedRows(NamedTuple):
    """The rows of a chunk.

    Attributes:
        fields: arguments of `examples.Layout.records`.
        cut: number of word pieces of the chunk that are in no row.
    """

    fields: dict[str, np.ndarray]
    cut: int


def full(
    pieces: Pieces, tokenizer: "Tokenizer", config: "RecordsConfig", rng: np.random.Generator
) -> PackedRows:
    """Rows `[CLS] pieces [SEP]` of all text in order, with [SEP] between documents.

    A document may span rows; only the last row of a chunk is padded.
    """
    ends = np.unique(pieces.document_ends)  # Drops documents without a word piece.
    ends = ends[(ends > 0) & (ends < len(pieces.ids))]
    stream = np.insert(pieces.ids, ends, tokenizer.sep_id)
    starts = np.arange(0, len(stream), config.max_seq_length - 2)
    stops = np.minimum(starts + config.max_seq_length - 2, len(stream))
    return PackedRows(
        {TOKEN_IDS: lay(stream, [(starts, stops)], tokenizer, config.max_seq_length)}, 0
    )


def document(
    pieces: Pieces, tokenizer: "Tokenizer", config: "RecordsConfig", rng: np.random.Generator
) -> PackedRows:
    """Rows `[CLS] pieces [SEP]` of one document each; a long document takes several rows."""
    ends = pieces.document_ends
    begins = np.concatenate([[0], ends])[:-1]
    width = config.max_seq_length - 2
    rows = -(-(ends - begins) // width)
    number = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    starts = np.repeat(begins, rows) + number * width
    stops = np.minimum(starts + width, np.repeat(ends, rows))
    ids = lay(pieces.ids, [(starts, stops)], tokenizer, config.max_seq_length)
    return PackedRows({TOKEN_IDS: ids}, 0)


def lay(
    ids: np.ndarray,
    segments: list[tuple[np.ndarray, np.ndarray]],
    tokenizer: "Tokenizer",
    max_seq_length: int,
) -> np.ndarray:
    """Rows `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, padded.

    Args:
        ids: int32 `(pieces,)`.
        segments: for each segment its starts and stops in `ids`, int `(rows,)` each; they must
            fit.
        tokenizer: gives the ids of the special tokens.
        max_seq_length: length of a row.

    Returns:
        int32 `(rows, max_seq_length)`.
    """
    starts, stops = segments[0]
    rows = np.full((len(starts), max_seq_length), tokenizer.pad_id, ROW_DTYPE)
    rows[:, 0] = tokenizer.cls_id
    column = np.arange(max_seq_length)
    offset = np.ones((len(rows), 1), np.int64)  # Offset of the segment in its row.
    for starts, stops in segments:
        length = (stops - starts)[:, np.newaxis]
        inside = (column >= offset) & (column < offset + length)
        rows[inside] = ids[(starts[:, np.newaxis] + column - offset)[inside]]
        offset += length
        np.put_along_axis(rows, offset, tokenizer.sep_id, axis=1)
        offset += 1
    return rows
