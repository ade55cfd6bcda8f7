import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import toy_glue
import toys

from undivided_tf.errors import InputError
from undivided_tf.export import prediction
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import finetuning
from undivided_tf.training.classifiers import read_head, save_classifier


def model_in(folder, labels, **about):
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *toys.FILLERS))
    config = toys.encoder_for(tokenizer)
    classifier = Classifier(Encoder(config, seed=3), labels, "mean", seed=3)
    save_classifier(folder, classifier, tokenizer, task="toy", max_seq_length=toys.LENGTH, **about)
    return classifier, tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "pairs"
    return str(folder), *model_in(folder, ("no", "yes", "maybe"))


def test_predictions_of_pairs_have_label_names_and_probabilities(model):
    folder, classifier, tokenizer = model
    first, second = ["the cat", "a mat", "one tree"], ["the hill", "sat on", ""]
    lines = [f"{a}\t{b}\r\n" for a, b in zip(first, second, strict=True)]
    found = [json.loads(line) for line in prediction.predict_lines(folder, lines, 2)]
    logits = np.asarray(classifier(tokenizer.encode(first, second, max_seq_length=toys.LENGTH)))
    for row, text, other, values in zip(found, first, second, logits, strict=True):
        assert (row["text"], row["second_text"]) == (text, other)
        assert row["label"] == classifier.labels[int(values.argmax())]
        assert list(row["probabilities"]) == ["no", "yes", "maybe"]
        shares = np.exp(values) / np.exp(values).sum()
        np.testing.assert_allclose(list(row["probabilities"].values()), shares, atol=1e-5)


def test_predictions_come_as_soon_as_a_batch_is_read(model):
    read = []

    def lines():
        for number in range(9):
            read.append(number)
            yield "the cat\n"

    stream = prediction.predict_lines(model[0], lines(), 2)
    next(stream)
    assert read == [0, 1]


def test_lines_of_like_length_are_predicted_together_and_answered_in_order(model, monkeypatch):
    texts = ["the cat sat on a mat", "dog", "a hill", "one", "the cat sat on one tree", "mat"]
    lines = [f"{text}\tthe cat\n" for text in texts]
    alone = list(prediction.predict_lines(model[0], lines, 1))
    batches, made = [], prediction._classifier

    def noted(folder, width):
        classify = made(folder, width)
        return lambda *fields: batches.append(fields[0]) or classify(*fields)

    monkeypatch.setattr(prediction, "_classifier", noted)
    found = list(prediction.predict_lines(model[0], lines, 2, batches_ahead=3))
    assert batches == [["dog", "one"], ["mat", "a hill"], [texts[0], texts[4]]]
    for ours, other in zip(map(json.loads, found), map(json.loads, alone), strict=True):
        assert (ours["text"], ours["label"]) == (other["text"], other["label"])
        assert ours["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_a_regression_gives_a_score(tmp_path):
    model_in(tmp_path / "model", ())
    (line,) = prediction.predict_lines(str(tmp_path / "model"), ["the cat"], 4)
    row = json.loads(line)
    assert set(row) == {"text", "score"} and isinstance(row["score"], float)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a\tb\n", "a\n"], "in:2: 1 field"),
        (["a\n", "a\tb\n"], "in:2: 2 fields"),
        (["a\tb\tc\n"], "in:1: 3 fields"),
        (["a\n", "b\0\n"], "in:2: 1 field and a NUL byte"),
    ],
)
def test_bad_lines_are_named(model, lines, message):
    with pytest.raises(InputError, match=message):
        list(prediction.predict_lines(model[0], lines, 1, "in"))


@pytest.mark.parametrize("bad", [b"\xff\n", b"no\ttab\n", b"a\0\n"])
def test_lines_before_one_that_is_not_utf_8_or_no_text_are_answered(model, bad):
    lines = [b"the cat\n", "caf\u00e9\r\n".encode(), b"dog\n", bad, b"hill\n"]
    stream = prediction.predict_lines(model[0], lines, 2, "standard input")
    answered = [json.loads(next(stream))["text"] for _ in range(3)]
    assert answered == ["the cat", "caf\u00e9", "dog"]
    with pytest.raises(
        InputError, match="standard input:4: (not UTF-8|2 fields|1 field and a NUL)"
    ):
        next(stream)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["C.UTF-8", "C", "POSIX"])
def test_the_binary_answers_lines_before_one_that_is_not_utf_8(model, language):
    command = [sys.executable, "-m", "undivided_tf.bin.predict", f"--model={model[0]}"]
    environment = {**os.environ, "LANG": language, "LC_ALL": language, "PYTHONUTF8": "0"}
    text = "caf\u00e9\n".encode() + b"\xff\nhill\n"
    done = subprocess.run(command, input=text, capture_output=True, env=environment)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    (line,) = done.stdout.decode().splitlines()
    assert json.loads(line)["text"] == "caf\u00e9"
    assert b"error: standard input:2: not UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("input", "good", "bad", "message"),
    [
        ("pair", "good\tfilm\n", "good film\n", "1 field; .* takes pairs of texts: a line is two"),
        ("single", "good film\n", "good\tfilm\n", "2 fields; .* takes single texts: a line is one"),
    ],
)
def test_a_pair_model_refuses_single_texts_and_the_reverse(tmp_path, input, good, bad, message):
    model_in(tmp_path / "model", ("no", "yes"), input=input)
    stream = prediction.predict_lines(str(tmp_path / "model"), [good, bad], 1, "in")
    assert "label" in json.loads(next(stream))
    with pytest.raises(InputError, match=f"in:2: {message}"):
        next(stream)


def test_a_model_that_does_not_say_what_it_takes_is_named(model, caplog):
    list(prediction.predict_lines(model[0], ["the cat\n"], 4))
    assert "does not say whether it takes single texts or pairs of texts" in caplog.text


def test_a_span_predictor_is_no_classifier(tmp_path):
    SpanHead(max_seq_length=12, doc_stride=4, max_query_length=4).write(tmp_path)
    with pytest.raises(InputError, match=r"classifier\.json is missing\): it is a span predictor"):
        list(prediction.predict_lines(str(tmp_path), ["the cat\n"], 4))


def test_every_door_keeps_a_regression_within_the_range_of_its_task(tmp_path):
    data = toy_glue.write_glue(tmp_path / "glue", ["stsb"])
    train = tmp_path / "glue/STS-B/train.tsv"
    header, *rows = train.read_text().splitlines()
    rows = [row[: row.rindex("\t")] + "\t5.000" for row in rows]  # Its head gives about 5.
    train.write_text("\n".join([header, *rows]) + "\n")
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *sorted({*toys.FILLERS, *toy_glue.CLUES})))
    config = toys.encoder_for(tokenizer)
    (tmp_path / "start").mkdir()
    checkpoints.save_model(tmp_path / "start", Encoder(config, seed=9).weights, config, tokenizer)
    tuned = toys.finetuning_config(
        tmp_path / "work", tmp_path / "start", f"{data}/STS-B", num_runs=1, pooling="mean",
        num_train_epochs=1, write_predictions=True,
    )  # fmt: skip
    finetuning.finetune(tuned)
    model = f"{tuned.workdir}/model_{tuned.seed}"
    assert read_head(model) == ClassifierHead(
        "regression", (), "mean", "pair", toys.LENGTH, "STS-B", (0.0, 5.0)
    )
    text = open(f"{tuned.workdir}/predictions_{tuned.seed}/test.jsonl").read()
    written = [json.loads(line) for line in text.splitlines()]
    logits = [row["logits"][0] for row in written]
    assert max(logits) > 5  # Else this test would show nothing.
    lines = [f"{row['text']}\t{row['second_text']}" for row in written]
    found = [json.loads(line)["score"] for line in prediction.predict_lines(model, lines, 4)]
    assert found == pytest.approx([row["prediction"] for row in written], abs=1e-5)
    assert found == pytest.approx(np.clip(logits, 0, 5), abs=1e-5)


@pytest.mark.slow
def test_the_binary_reads_standard_input_and_files(model, tmp_path):
    command = [sys.executable, "-m", "undivided_tf.bin.predict", f"--model={model[0]}"]
    source, target = tmp_path / "in.tsv", tmp_path / "out.jsonl"
    source.write_text("the cat\tthe hill\na mat\tsat on\n")
    done = subprocess.run(command, input=source.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in io.StringIO(done.stdout))
    assert first["text"] == "the cat" and second["second_text"] == "sat on"
    source.write_bytes(b"\xff\n")
    command += [f"--input={source}", f"--output={target}"]
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode == 1 and "not UTF-8" in bad.stderr and "Traceback" not in bad.stderr
    assert not target.exists()
