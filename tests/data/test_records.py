import hashlib
import json
import math
import os
import pathlib
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import documents, records, text_files
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.tokenization import Tokenizer

CORPUS = pathlib.Path(__file__).parent.parent / "data_files" / "corpus.txt"


def toy_config(folder, **changes):
    return RecordsConfig(
        input_files=(str(CORPUS),), output_dir=str(folder), vocab_size=120, max_seq_length=8,
        num_shards=3, validation_fraction=0.1,
    ).replace(**changes)  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "toy"
    return folder, records.create_records(toy_config(folder))


def read_ids(folder, metadata, split):
    """The rows of each file, read without the code under test."""
    found = []
    for file in metadata[split]["files"]:
        rows = []
        for serialized in tf.data.TFRecordDataset(str(folder / file["name"])).as_numpy_iterator():
            example = tf.train.Example.FromString(serialized)
            (value,) = example.features.feature["token_ids"].bytes_list.value
            rows.append(np.frombuffer(value, "<i4"))
        assert len(rows) == file["rows"]
        found += rows
    return np.array(found)


def position(document):
    return documents.position(hashlib.sha256(document.text.encode()).digest())


def test_every_piece_of_the_corpus_is_in_the_records_once(toy):
    folder, metadata = toy
    tokenizer = records.read_tokenizer(folder)
    threshold = max(0.1, min(map(position, text_files.read_file(CORPUS))) + 1e-15)
    for split in ("train", "validation"):
        texts = [
            paragraph
            for document in text_files.read_file(CORPUS)
            if (position(document) < threshold) == (split == "validation")
            for paragraph in document.paragraphs
        ]
        expected = Counter(tokenizer.tokenize(texts).flat_values.numpy().tolist())
        ids = read_ids(folder, metadata, split)
        silent = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id}
        assert Counter(i for i in ids.ravel().tolist() if i not in silent) == expected
        assert metadata[split]["tokens"] == sum(expected.values())
        assert metadata[split]["paragraphs"] == len(texts)
    assert metadata["train"]["documents"] + metadata["validation"]["documents"] == 5
    assert metadata["validation"]["documents"] >= 1


def test_rows_begin_with_cls_end_with_sep_and_only_the_last_is_padded(toy):
    folder, metadata = toy
    tokenizer = records.read_tokenizer(folder)
    for split in ("train", "validation"):
        ids = read_ids(folder, metadata, split)
        padded = (ids == tokenizer.pad_id).any(axis=1)
        assert (ids[:, 0] == tokenizer.cls_id).all() and padded.sum() <= 1
        assert (ids[~padded, -1] == tokenizer.sep_id).all()
        for row in ids[padded]:
            row = row[row != tokenizer.pad_id]
            assert row[-1] == tokenizer.sep_id and len(row) > 2
        assert (ids[:, 1:] != tokenizer.cls_id).all()
    # One [SEP] after each document, in addition to those that end rows.
    validation = read_ids(folder, metadata, "validation")
    assert (validation[:, -1] == tokenizer.sep_id).sum() + metadata["validation"]["documents"] in (
        (validation == tokenizer.sep_id).sum(),
        (validation == tokenizer.sep_id).sum() + 1,  # The last document ends with its row.
    )


def test_entropies_equal_their_definitions(toy):
    folder, metadata = toy
    tokenizer = records.read_tokenizer(folder)
    counts = {}
    for split in ("train", "validation"):
        ids = read_ids(folder, metadata, split).ravel().tolist()
        counts[split] = Counter(i for i in ids if not tokenizer.is_special[i])
    total = sum(counts["train"].values())
    entropy = -sum(n / total * math.log(n / total) for n in counts["train"].values())
    assert metadata["unigram_entropy"] == pytest.approx(entropy, rel=1e-12)
    size = tokenizer.vocab_size - 5
    cross = -sum(
        n * math.log((counts["train"][i] + 1) / (total + size))
        for i, n in counts["validation"].items()
    ) / sum(counts["validation"].values())
    assert metadata["validation_unigram_cross_entropy"] == pytest.approx(cross, rel=1e-12)


def test_metadata_holds_sources_and_hashes(toy):
    folder, metadata = toy
    text = CORPUS.read_text().strip() + "\n\n"
    (source,) = metadata["sources"]
    assert source == {
        "name": str(CORPUS), "documents": 5, "paragraphs": 8,
        "bytes": sum(len(d.text.encode()) for d in text_files.read_file(CORPUS)),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }  # fmt: skip
    vocabulary = (folder / "vocab.txt").read_bytes()
    assert metadata["vocabulary_hash"] == hashlib.sha256(vocabulary).hexdigest()
    assert json.loads((folder / "metadata.json").read_text()) == metadata


def test_finished_records_are_found_and_another_config_is_refused(toy):
    folder, metadata = toy
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert records.create_records(toy_config(folder)) == metadata
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(InputError, match="max_seq_length: 8 there, 16 asked for"):
        records.create_records(toy_config(folder, max_seq_length=16))


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="contains other files than records"):
        records.create_records(toy_config(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="--output_dir=DIR"):
        records.create_records(toy_config(""))


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b" \n \n", {}, "the corpus is empty"),
        (b"one\n\ntwo\n\ncaf\xe9\n", {}, r"corpus\.txt:5: not UTF-8"),
        (b"a single document\n", {}, r"1 document\(s\), and validation_fraction 0.1 holds them"),
        (b"one\n\ntwo\n", {"validation_fraction": 0.999999999}, "holds them all out"),
        (b"one\n\n\xc2\xad\n", {"vocab_size": 30}, "no word piece"),
        (b"one\n\ntwo\n\nthree\n", {"packing": "next_sentence"}, "no pair of segments for --pa"),
        (b"one\n\ntwo\n", {"vocab_size": 6}, "vocab_size 6 is too small"),
        (b"one\n\ntwo\n", {"vocab_file": "nowhere.txt"}, "nowhere.txt: cannot be read"),
    ],
)
def test_bad_corpora_are_refused_and_leave_nothing(tmp_path, content, changes, message):
    (tmp_path / "corpus.txt").write_bytes(content)
    config = toy_config(tmp_path / "out", input_files=(str(tmp_path / "corpus.txt"),), **changes)
    with pytest.raises(InputError, match=message):
        records.create_records(config)
    assert os.listdir(tmp_path) == ["corpus.txt"]


def test_given_vocabulary_is_used_as_it_is(toy, tmp_path):
    config = toy_config(tmp_path / "r", vocab_file=str(toy[0] / "vocab.txt"), do_lower_case=False)
    metadata = records.create_records(config)
    assert metadata["vocabulary_hash"] == toy[1]["vocabulary_hash"]
    assert metadata["do_lower_case"] is False
    assert metadata["unknown_share"] > toy[1]["unknown_share"]  # Capitals are not in it.


def test_a_cased_vocabulary_for_uncased_text_gives_a_warning(tmp_path, caplog):
    words = ["Paris", "Rome", *CORPUS.read_text().lower().split()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words)]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    config = toy_config(tmp_path / "records", vocab_file=str(tmp_path / "vocab.txt"))
    with caplog.at_level("WARNING", logger="absl"):
        records.create_records(config.replace(do_lower_case=False, output_dir=f"{tmp_path}/cased"))
        assert "capitals" not in caplog.text
        records.create_records(config)
    assert "word pieces have capitals, such as 'Paris', but --do_lower_case" in caplog.text


def matching_encoder(metadata, **changes):
    return EncoderConfig(
        **{name: metadata[name] for name in ("vocab_size", "vocabulary_hash", "do_lower_case")}
    ).replace(**changes)


def test_records_of_another_vocabulary_casing_or_length_are_refused(toy):
    folder, metadata = toy
    assert records.check_records(folder, matching_encoder(metadata)) == metadata
    assert records.check_records(folder, matching_encoder(metadata, vocabulary_hash=""))
    other = {"vocab_size": 99, "vocabulary_hash": "abc", "do_lower_case": False}
    encoder = matching_encoder(metadata, **other, max_position_embeddings=4)
    with pytest.raises(InputError) as error:
        records.check_records(folder, encoder)
    message = str(error.value)
    assert f"vocab_size: {metadata['vocab_size']} in the records, 99 in the encoder" in message
    assert f"{metadata['vocabulary_hash']} in the records, abc in the encoder" in message
    assert "do_lower_case: True in the records, False in the encoder" in message
    assert "max_seq_length: 8 in the records, but max_position_embeddings is 4" in message


def test_records_fit_an_encoder_with_rows_behind_the_same_vocabulary(toy):
    folder, metadata = toy
    size = metadata["vocab_size"]
    assert records.check_records(folder, matching_encoder(metadata, vocab_size=size + 6))
    for changes in ({"vocab_size": size - 1}, {"vocab_size": size + 6, "vocabulary_hash": ""}):
        with pytest.raises(InputError, match=f"vocab_size: {size} in the records"):
            records.check_records(folder, matching_encoder(metadata, **changes))


def copy_records(toy, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in toy[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_truncated_or_absent_record_file_is_named(toy, tmp_path):
    folder = copy_records(toy, tmp_path)
    path = folder / toy[1]["train"]["files"][1]["name"]
    size = path.stat().st_size
    os.truncate(path, size - 7)
    with pytest.raises(InputError, match=f"{path.name}: {size - 7} bytes instead of {size}"):
        records.read_metadata(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name}: 0 bytes instead of {size}"):
        records.read_metadata(folder)


def test_changed_vocabulary_file_is_refused(toy, tmp_path):
    folder = copy_records(toy, tmp_path)
    pieces = list(Tokenizer(folder / "vocab.txt").vocabulary)
    Tokenizer(pieces[:-2] + pieces[:-3:-1]).save(folder / "vocab.txt")
    with pytest.raises(InputError, match=r"vocab\.txt: vocabulary hash .* but the records were"):
        records.read_tokenizer(folder)


def test_absent_foreign_and_future_metadata_are_refused(toy, tmp_path):
    with pytest.raises(InputError, match="holds no records"):
        records.read_metadata(tmp_path)
    folder = copy_records(toy, tmp_path)
    (folder / "metadata.json").write_text(json.dumps({**toy[1], "format_version": 2}))
    with pytest.raises(InputError, match="format version 2, this program reads 1"):
        records.read_metadata(folder)
    (folder / "metadata.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        records.read_metadata(folder)
