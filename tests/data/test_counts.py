"""Counts of the training rows: by hand, against a plain loop, and for records without counts."""

import collections
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toys

from undivided_tf.data.corpus import counts, ngrams, records
from undivided_tf.errors import InputError


def test_pairs_are_counted_as_the_encoder_sees_them():
    # [CLS] 5 6 [SEP] 5 6 [SEP], and a shorter row that is padded.
    pad, cls, sep = 0, 2, 3
    rows = np.array([[cls, 5, 6, sep, 5, 6, sep], [cls, 6, sep, pad, pad, pad, pad]])
    bigrams = ngrams.count_pairs(rows, 7, pad)
    expected = {(cls, 5): 1, (5, 6): 2, (6, sep): 3, (sep, 5): 1, (cls, 6): 1}
    found = bigrams.tocoo()
    pairs = zip(found.row.tolist(), found.col.tolist(), strict=True)
    assert dict(zip(pairs, found.data.tolist(), strict=True)) == expected
    unigrams = ngrams.summarise(bigrams, np.arange(7) < 5).unigrams
    assert unigrams.tolist() == [0, 0, 0, 0, 0, 2, 3]


def counted_by_hand(folder):
    """Counters of single pieces and of pairs, read without the code under test."""
    metadata = records.read_metadata(folder)
    pieces, pairs = collections.Counter(), collections.Counter()
    for file in metadata["train"]["files"]:
        for serialized in tf.data.TFRecordDataset(str(folder / file["name"])).as_numpy_iterator():
            example = tf.train.Example.FromString(serialized)
            (value,) = example.features.feature["token_ids"].bytes_list.value
            row = [i for i in np.frombuffer(value, "<i4").tolist() if i]
            pieces.update(row)
            pairs.update(zip(row, row[1:], strict=False))
    return pieces, pairs


@pytest.mark.parametrize("packing", ["full", "document", "sentence_order"])
def test_counts_of_records_equal_a_plain_loop(tmp_path, packing, monkeypatch):
    monkeypatch.setattr(ngrams, "_CHUNK", 5 * toys.LENGTH)  # Several parts a shard.
    corpus = toys.write_corpus(tmp_path / "text", 40)
    folder = tmp_path / "records"
    records.create_records(toys.records_config(folder, corpus, packing=packing))
    found = counts.read_counts(folder)
    special = records.read_tokenizer(folder).is_special
    pieces, pairs = counted_by_hand(folder)
    assert found.unigrams.dtype == found.bigrams.dtype == np.int64
    assert found.unigrams.tolist() == [0 if special[i] else pieces[i] for i in range(len(special))]
    dense = np.zeros(found.bigrams.shape, np.int64)
    for pair, number in pairs.items():
        dense[pair] = number
    assert (found.bigrams.toarray() == dense).all()
    assert found.bigrams.has_canonical_format


@pytest.mark.parametrize("packing", ["full", "next_sentence"])
def test_records_without_counts_are_counted_once_to_the_same_bytes(tmp_path, packing):
    corpus = toys.write_corpus(tmp_path / "text")
    folder = tmp_path / "records"
    records.create_records(toys.records_config(folder, corpus, packing=packing))
    before = (folder / "counts.npz").read_bytes()
    (folder / "counts.npz").unlink()
    counts.read_counts(folder)
    assert (folder / "counts.npz").read_bytes() == before


def test_records_that_cannot_be_written_to_are_counted_all_the_same(toy, tmp_path, monkeypatch):
    folder = shutil.copytree(toy, tmp_path / "copy")
    (folder / "counts.npz").unlink()

    def refuse(*_):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(ngrams, "write", refuse)
    found = counts.read_counts(folder)
    assert (found.unigrams == counts.read_counts(toy).unigrams).all()
    assert not (folder / "counts.npz").exists()


def test_damaged_counts_are_named(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "copy")
    path = folder / "counts.npz"
    os.truncate(path, path.stat().st_size - 9)
    with pytest.raises(InputError, match=r"counts\.npz: damaged .*remove it, and it is counted"):
        counts.read_counts(folder)
    other = ngrams.NgramCounts(np.zeros(7, np.int64), ngrams.total([], 7))
    ngrams.write(path, other)
    with pytest.raises(InputError, match=r"counts of 7 word pieces, but the vocabulary has \d+"):
        counts.read_counts(folder)


def test_the_order_of_the_parts_does_not_matter():
    generator = np.random.default_rng(0)
    parts = [ngrams.count_pairs(generator.integers(1, 9, (3, 6)), 9, 0) for _ in range(11)]
    whole = sum(part.toarray() for part in parts)
    for order in (parts, parts[::-1]):
        assert (ngrams.total(order, 9).toarray() == whole).all()
