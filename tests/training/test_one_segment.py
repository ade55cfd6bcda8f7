"""An encoder with `type_vocab_size` 1 takes single texts; pairs are refused before any lookup."""

import dataclasses
import json

import pytest
import toys

from undivided_tf.analysis import extraction
from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import records
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.errors import InputError
from undivided_tf.export import prediction
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import classifiers, finetuning, span_finetuning
from undivided_tf.training.config import SquadConfig

MESSAGE = "an input of 2 texts needs type_vocab_size 2, but the encoder was made with 1"


def make():
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *toys.FILLERS, "cat", "dog"))
    config = toys.encoder_config(
        vocab_size=tokenizer.vocab_size,
        vocabulary_hash=tokenizer.vocabulary_hash,
        type_vocab_size=1,
    )
    return Encoder(config, seed=1), tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    encoder, tokenizer = make()
    path = tmp_path_factory.mktemp("start")
    checkpoints.save_model(path, encoder.weights, encoder.config, tokenizer)
    return path


def test_a_task_of_pairs_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name in ("train", "dev"):
        rows = "".join(f"the cat\tthe {pet}\t{pet}\n" for pet in ("cat", "dog") * 8)
        (folder / f"{name}.tsv").write_text("sentence1\tsentence2\tlabel\n" + rows)
    about = {"first": "sentence1", "second": "sentence2", "label": "label"}
    (folder / "task.json").write_text(json.dumps(about))
    config = toys.finetuning_config(tmp_path / "work", checkpoint, str(folder))
    with pytest.raises(InputError, match=MESSAGE):
        finetuning.finetune(config)


def test_a_task_of_single_texts_is_trained(checkpoint, tmp_path):
    task = toys.write_task(tmp_path / "animals", rows=16)
    config = toys.finetuning_config(
        tmp_path / "work", checkpoint, task, num_runs=1, num_train_epochs=1
    )
    assert len(finetuning.finetune(config)["runs"]) == 1


def test_questions_with_contexts_are_refused(checkpoint, tmp_path):
    config = SquadConfig(
        workdir=str(tmp_path / "work"), init_checkpoint=str(checkpoint), predict_file="absent.json",
        train_files=("absent.json",),
        max_seq_length=toys.LENGTH, doc_stride=4, max_query_length=5,
    )  # fmt: skip
    with pytest.raises(InputError, match=MESSAGE):
        span_finetuning.finetune_spans(config)


def test_lines_of_two_texts_are_refused(tmp_path):
    encoder, tokenizer = make()
    classifiers.save_classifier(
        tmp_path / "model", Classifier(encoder, ["no", "yes"]), tokenizer, task="toy",
        max_seq_length=toys.LENGTH,
    )  # fmt: skip
    assert len(list(prediction.predict_lines(str(tmp_path / "model"), ["the cat\n"], 2))) == 1
    with pytest.raises(InputError, match=MESSAGE):
        list(prediction.predict_lines(str(tmp_path / "model"), ["the cat\tthe dog\n"], 2))


def test_activations_of_pairs_are_refused():
    rows = Rows(["the cat"], ["the dog"], None)
    with pytest.raises(InputError, match=MESSAGE):
        next(extraction.batches(*make(), rows, 2, toys.LENGTH))
    single = dataclasses.replace(rows, second=None)
    next(extraction.batches(*make(), single, 2, toys.LENGTH))


def test_records_of_pairs_are_refused(tmp_path):
    corpus = toys.write_corpus(tmp_path / "text")
    config = toys.records_config(tmp_path / "records", corpus, packing="next_sentence")
    metadata = records.create_records(config)
    names = ("vocab_size", "vocabulary_hash", "do_lower_case")
    values = {name: metadata[name] for name in names}
    records.check_records(tmp_path / "records", EncoderConfig(**values))
    with pytest.raises(InputError, match=MESSAGE):
        records.check_records(tmp_path / "records", EncoderConfig(**values, type_vocab_size=1))
