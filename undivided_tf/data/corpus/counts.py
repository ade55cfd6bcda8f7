"""Counts of unigrams and bigrams of a records directory."""

import os
import pathlib

from absl import logging

from undivided_tf.data.corpus import ngrams, records
from undivided_tf.data.corpus.ngrams import NgramCounts
from undivided_tf.data.examples import Layout
from undivided_tf.errors import InputError


def read_counts(records_dir: str | os.PathLike) -> NgramCounts:
    """Reads `counts.npz` of a records directory.

    Records of older releases have no counts. They are counted once, and the file is added if the
    directory is writable.

    Args:
        records_dir: output of `create_records`.

    Returns:
        The counts of the training rows, see `NgramCounts`.

    Raises:
        InputError: no records there, or a file of them is damaged.
    """
    folder = pathlib.Path(records_dir)
    path = folder / ngrams.FILE
    metadata = records.read_metadata(folder)
    size = metadata["vocab_size"]
    try:
        counts = ngrams.load(path)
    except FileNotFoundError:
        tokenizer = records.read_tokenizer(folder)
        layout = Layout(metadata["max_seq_length"], records.has_pairs(metadata))
        logging.info("%s has no %s: counting its training rows once", folder, ngrams.FILE)
        bigrams = ngrams.total(
            (
                part
                for file in metadata["train"]["files"]
                for part in ngrams.count_file(folder / file["name"], layout, size, tokenizer.pad_id)
            ),
            size,
        )
        counts = ngrams.summarise(bigrams, tokenizer.is_special)
        try:
            ngrams.write(path, counts)
        except OSError as error:
            logging.info("%s: cannot be written (%s), so it is kept in memory", path, error)
    if len(counts.unigrams) != size:
        raise InputError(
            f"{path}: counts of {len(counts.unigrams)} word pieces, but the vocabulary has {size}; "
            "remove the file, and it is counted from the records again"
        )
    return counts
