"""Packing: documents become full rows of word pieces, rows go to TFRecord shards."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.data.documents import Document
from undivided_tf.data.examples import ROW_DTYPE, TOKEN_IDS, feature_prefix
from undivided_tf.tokenization import Tokenizer


class ShardWriter:
    """Packs documents into rows `[CLS] pieces [SEP]` and spreads the rows over shards.

    The stream of word pieces, with a [SEP] behind each document, is cut every
    `max_seq_length - 2` pieces; so a document may span rows, and only the last row is padded.
    (Where a document ends just where a row does, its [SEP] opens the next row.)

    Attributes:
        counts: int64 `(vocab_size,)`, word pieces seen, special tokens other than [UNK] never.

    Args:
        folder: where the shards are written.
        names: their file names.
        tokenizer: cuts the text.
        max_seq_length: pieces a row, special tokens included.
        seed: decides the shard of each row.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        names: Sequence[str],
        tokenizer: Tokenizer,
        max_seq_length: int,
        seed: int,
    ):
        self.counts = np.zeros(tokenizer.vocab_size, np.int64)
        self._tokenizer = tokenizer
        self._tokenize = tf.function(
            tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)]
        )
        self._length = max_seq_length
        self._prefix = feature_prefix(TOKEN_IDS, max_seq_length)
        self._rng = np.random.default_rng(seed)
        self._paths = [folder / name for name in names]
        self._writers = [tf.io.TFRecordWriter(str(path)) for path in self._paths]
        self._rows = np.zeros(len(names), np.int64)
        self._rest = np.zeros(0, np.int32)
        self._documents = self._paragraphs = self._bytes = 0

    def add(self, documents: Sequence[Document]) -> None:
        """Tokenises, packs and writes; pieces that fill no row wait for the next call."""
        if not documents:
            return
        paragraphs = [paragraph for document in documents for paragraph in document.paragraphs]
        pieces = self._tokenize(tf.constant(paragraphs))
        ids, ends = pieces.flat_values.numpy(), pieces.row_splits.numpy()
        self.counts += np.bincount(ids, minlength=len(self.counts))
        last = np.cumsum([len(document.paragraphs) for document in documents])
        stream = np.insert(ids, ends[last], self._tokenizer.sep_id)
        self._documents += len(documents)
        self._paragraphs += len(paragraphs)
        self._bytes += sum(document.size for document in documents)
        stream = np.concatenate([self._rest, stream])
        whole = len(stream) // (self._length - 2) * (self._length - 2)
        self._rest = stream[whole:]
        self._write(stream[:whole])

    def close(self) -> dict[str, Any]:
        """Writes the padded last row; returns counts, and name, rows and bytes of each file."""
        if len(self._rest) > 1 or (len(self._rest) == 1 and not self._rows.sum()):
            self._write(self._rest)
        for writer in self._writers:
            writer.close()
        return {
            "documents": self._documents,
            "paragraphs": self._paragraphs,
            "bytes": self._bytes,
            "tokens": int(self.counts.sum()),
            "rows": int(self._rows.sum()),
            "files": [
                {"name": path.name, "rows": int(rows), "bytes": path.stat().st_size}
                for path, rows in zip(self._paths, self._rows, strict=True)
            ],
        }

    def _write(self, stream: np.ndarray) -> None:
        width = self._length - 2
        rows = np.full((-(-len(stream) // width), self._length), self._tokenizer.pad_id, ROW_DTYPE)
        rows[:, 0] = self._tokenizer.cls_id
        body = np.full(len(rows) * width, self._tokenizer.pad_id, ROW_DTYPE)
        body[: len(stream)] = stream
        rows[:, 1:-1] = body.reshape(-1, width)
        rows[:, -1] = self._tokenizer.sep_id
        if len(stream) < len(body):  # The padded row ends with the [SEP] of its document.
            rows[-1, -1] = self._tokenizer.pad_id
        for row, shard in zip(
            rows, self._rng.integers(len(self._paths), size=len(rows)), strict=True
        ):
            self._writers[shard].write(self._prefix + row.tobytes())
            self._rows[shard] += 1
