"""Streams of rows from a records directory, and errors for damaged records."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.data import examples
from undivided_tf.data.corpus.chunks import SPLITS
from undivided_tf.data.corpus.records import has_pairs, read_metadata
from undivided_tf.errors import InputError


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Disables the autotuner of a dataset.

    The autotuner's thread can delay the end of an iterator, and so of a run, for a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def training_rows(
    records_dir: str | os.PathLike, *, seed: int, start_row: int = 0
) -> tf.data.Dataset:
    """An endless, shuffled stream of training rows that can start at any row.

    Epoch `e` visits the shards in an order drawn from `(seed, e)` and shuffles the rows of each
    shard in memory. Rows were assigned to shards at random, so this mixes the whole corpus. The
    stream from row k is the tail of the stream from row 0, for any `tf.random.set_seed`. One shard
    is in memory at a time, so larger corpora need more shards.

    Returns:
        Dataset of dicts of int32 `token_ids` `(max_seq_length,)`, padded with the id of [PAD],
        and for records of pairs `segment_ids` `(max_seq_length,)` and `next_sentence_label` `()`.

    Raises:
        InputError: as `read_metadata`. While reading, see `reading_errors`.
    """
    metadata = read_metadata(records_dir)
    shards = [file for file in metadata["train"]["files"] if file["rows"]]
    rows = np.array([file["rows"] for file in shards])
    paths = tf.constant([str(pathlib.Path(records_dir) / file["name"]) for file in shards])

    def order(epoch):
        return tf.random.experimental.stateless_shuffle(
            tf.range(len(shards)), tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        )

    @tf.autograph.experimental.do_not_convert
    def shard_rows(visit):
        shard = order(visit // len(shards))[visit % len(shards)]
        # Bit-wise complement: a seed other than the one that orders the shards of an epoch.
        shuffled = _shuffle(
            _read_file(paths[shard], tf.constant(rows)[shard], metadata),
            tf.stack([tf.cast(~seed, tf.int64), visit]),
        )
        return tf.data.Dataset.from_tensor_slices(shuffled)

    epoch, skipped = divmod(start_row, int(rows.sum()))
    first = 0
    for shard in order(epoch).numpy():  # Whole shards are skipped without reading.
        if skipped < rows[shard]:
            break
        skipped -= int(rows[shard])
        first += 1
    visits = tf.data.Dataset.range(epoch * len(shards) + first, tf.int64.max)
    return visits.flat_map(shard_rows).skip(skipped)


def validation_rows(records_dir: str | os.PathLike, max_rows: int = 0) -> dict[str, np.ndarray]:
    """Held-out rows in a fixed random order, so that a part of them is of many documents.

    Args:
        records_dir: output of `create_records`.
        max_rows: largest number of rows; 0: all.

    Returns:
        int32 `token_ids` `(rows, max_seq_length)`, and for records of pairs `segment_ids`
        `(rows, max_seq_length)` and `next_sentence_label` `(rows,)`.
    """
    metadata = read_metadata(records_dir)
    (file,) = metadata["validation"]["files"]
    with reading_errors(records_dir):
        rows = _read_file(str(pathlib.Path(records_dir) / file["name"]), file["rows"], metadata)
    shuffled = _shuffle(rows, (0, 0))
    return {name: value.numpy()[: max_rows or None] for name, value in shuffled.items()}


def _shuffle(rows: dict[str, tf.Tensor], seed: Any) -> dict[str, tf.Tensor]:
    """Shuffles rows in an order that depends only on the seed and their number."""
    count = tf.shape(rows[examples.TOKEN_IDS])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    return {name: tf.gather(value, order) for name, value in rows.items()}


def _read_file(path: Any, rows: Any, metadata: dict[str, Any]) -> dict[str, tf.Tensor]:
    """All rows of a record file, see `examples.parse`; also works in graphs."""
    serialized = tf.data.TFRecordDataset(path).batch(tf.cast(rows, tf.int64)).get_single_element()
    fields = examples.parse(serialized, metadata["max_seq_length"], has_pairs(metadata))
    ids = fields[examples.TOKEN_IDS]
    inside = tf.reduce_all((ids >= 0) & (ids < metadata["vocab_size"]))
    with tf.control_dependencies(
        [tf.debugging.Assert(inside, ["token id outside vocabulary:", path])]
    ):
        return {**fields, examples.TOKEN_IDS: tf.identity(ids)}


@contextlib.contextmanager
def reading_errors(records_dir: str | os.PathLike) -> Iterator[None]:
    """Turns TensorFlow's errors about damaged records into InputError."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        fault = _fault(records_dir)
        if fault is None:
            raise
        raise InputError(f"{fault}; make the records again") from error


def _fault(records_dir: str | os.PathLike) -> str | None:
    """Finds the damaged file, which TensorFlow's errors do not always name."""
    metadata = read_metadata(records_dir)
    for split in SPLITS:
        for file in metadata[split]["files"]:
            path = str(pathlib.Path(records_dir) / file["name"])
            try:
                if file["rows"]:
                    _read_file(path, file["rows"], metadata)
            except tf.errors.DataLossError as error:
                return f"{path}: damaged record ({error.message.splitlines()[0]})"
            except tf.errors.InvalidArgumentError:
                return f"{path}: a token id is outside the vocabulary of {metadata['vocab_size']}"
    return None
