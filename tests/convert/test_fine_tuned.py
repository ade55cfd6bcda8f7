"""A fine-tuned model predicts the same after conversion to any format and after surgery."""

import json

import keras_hub
import numpy as np
import pytest
import released
import tensorflow as tf
import toys
from safetensors.numpy import load_file

from undivided_tf import convert
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.errors import InputError
from undivided_tf.export import export, prediction, reference
from undivided_tf.export import parts as checkpoint_parts
from undivided_tf.export.config import ExportConfig
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.surgery import run as surgery_run
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training.classifiers import save_classifier

CLASSIFIER = "BertForSequenceClassification"
LENGTH = 9  # Below the positions of the encoder, so that losing it shows.
TOKENIZER = Tokenizer((*SPECIAL_TOKENS, *toys.FILLERS, "cat", "dog", "o", "##o", "##s"))
TEXTS = ["the cat", "mat hill tree " * 9]
KINDS = {
    "regression": {"labels": (), "input": "pair", "score_range": (0.0, 5.0), "task": "STS-B"},
    "classification": {"labels": ("no", "yes"), "input": "single", "task": "toy"},
    "multi_label": {"labels": ("rude", "loud"), "input": "single", "task": "talk"},
}


def encoder_config(**changes):
    """Large initial values, so that outputs differ."""
    return toys.encoder_config(
        vocab_size=TOKENIZER.vocab_size, vocabulary_hash=TOKENIZER.vocabulary_hash,
        initializer_range=0.5, **changes,
    )  # fmt: skip


def run(source, target, output_format="undivided", **changes):
    values = {"input": str(source), "output_dir": str(target), "output_format": output_format}
    return convert.convert(ConversionConfig(**values, **changes))


def predict(model, lines):
    return [json.loads(line) for line in prediction.predict_lines(str(model), lines, 4)]


def save(folder, kind, pooling="first"):
    """A fine-tuned model of a kind, with random weights that lead out of the range of a score."""
    about = KINDS[kind]
    encoder = Encoder(encoder_config(hidden_activation="gelu_tanh"), seed=3)
    classifier = Classifier(encoder, about["labels"], pooling, seed=3, kind=kind)
    classifier.head.kernel.assign(8.0 * np.asarray(classifier.head.kernel))
    save_classifier(
        folder, classifier, TOKENIZER, max_seq_length=LENGTH, task=about["task"],
        input=about["input"], score_range=about.get("score_range", ()),
    )  # fmt: skip
    return [f"{text}\t{text[::-1]}" for text in TEXTS] if about["input"] == "pair" else TEXTS


def save_spans(folder):
    predictor = SpanPredictor(Encoder(encoder_config(), seed=3), seed=3)
    folder.mkdir()
    checkpoints.save_model(folder, predictor.weights, predictor.encoder.config, TOKENIZER)
    head = SpanHead(
        max_seq_length=LENGTH, doc_stride=2, max_query_length=2, version_2_with_negative=True,
        null_score_diff_threshold=-0.5,
    )  # fmt: skip
    head.write(folder)
    return head


def through(route, source, folder):
    """The model after a conversion, there and back, or after a surgery that cuts nothing."""
    target = folder / "result"
    if route == "surgery":
        config = SurgeryConfig(input=str(source), output_dir=str(target), block_pattern="AI")
        surgery_run.run_surgery(config)
    elif route == "undivided":
        run(source, target)
    else:
        run(source, folder / "there", route)
        run(folder / "there", target)
    return target


@pytest.mark.parametrize("route", ["undivided", "huggingface", "keras_hub", "surgery"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tuned_model_predicts_the_same_behind(tmp_path, kind, route):
    lines = save(tmp_path / "model", kind)
    result = through(route, tmp_path / "model", tmp_path)
    assert ClassifierHead.read(result) == ClassifierHead.read(tmp_path / "model")
    before, after = predict(tmp_path / "model", lines), predict(result, lines)
    for first, second in zip(before, after, strict=True):
        assert first.keys() == second.keys()
        for key in ("label", "labels"):
            assert first.get(key) == second.get(key)
        answers = [row.get("probabilities", {"score": row.get("score")}) for row in (first, second)]
        assert answers[0] == pytest.approx(answers[1], abs=1e-5)


@pytest.mark.parametrize("route", ["undivided", "huggingface", "surgery"])
def test_a_head_that_compares_both_texts_predicts_the_same_behind(tmp_path, route):
    lines = save(tmp_path / "model", "regression", "segments")
    result = through(route, tmp_path / "model", tmp_path)
    before, after = predict(tmp_path / "model", lines), predict(result, lines)
    assert ClassifierHead.read(result).pooling == "segments"
    answers = [[row["score"] for row in rows] for rows in (before, after)]
    np.testing.assert_allclose(*answers, atol=1e-5)
    swapped = ["\t".join(reversed(line.split("\t"))) for line in lines]
    assert predict(tmp_path / "model", swapped) != before


@pytest.mark.parametrize("route", ["undivided", "huggingface", "surgery"])
def test_a_span_predictor_answers_the_same_behind(tmp_path, route):
    head = save_spans(tmp_path / "model")
    result = through(route, tmp_path / "model", tmp_path)
    assert SpanHead.read(result) == head
    found = []
    for place in (tmp_path / "model", result):
        parts = checkpoint_parts.load(str(place))
        length = parts.length_of("answer", 0)
        questions, contexts = ["the cat", "sat on"], ["mat hill tree the cat " * 6, "the mat"]
        found.append(reference.answer(parts, questions, contexts, length, 3))
        assert length == LENGTH
    for first, second in zip(*found, strict=True):
        assert first["text"] == second["text"]
        assert first["null_odds"] == pytest.approx(second["null_odds"], abs=1e-5)


# === Models of other origin ===


def hugging_face(folder, outputs, **about):
    tensors = released.weights(["classifier"])
    for part in ("weight", "bias"):
        tensors[f"classifier.{part}"] = tensors[f"classifier.{part}"][:outputs]
    return released.write(folder, tensors, architectures=[CLASSIFIER], **about)


def logits_of(folder, texts):
    """Logits of the head of a Hugging Face folder, computed from its tensors."""
    encoder, tokenizer = convert.load(folder)
    tensors = load_file(folder / "model.safetensors")
    pooled = np.asarray(encoder(tokenizer.encode(texts, max_seq_length=12))["pooled_output"])
    return pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]


@pytest.mark.parametrize("about", [{"id2label": {"0": "LABEL_0"}}, {"problem_type": "regression"}])
def test_a_head_of_one_output_gives_its_score_and_not_1(tmp_path, about):
    folder, texts = hugging_face(tmp_path / "hf", 1, **about), ["cat", "dog bird"]
    run(folder, tmp_path / "ours")
    expected = logits_of(folder, texts)[:, 0]
    scores = [row["score"] for row in predict(tmp_path / "ours", texts)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    parts = checkpoint_parts.load(str(folder))
    found = reference.classify(parts, texts, None, parts.length_of("classify", 0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    run(tmp_path / "ours", tmp_path / "again", "huggingface")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["architectures"] == [CLASSIFIER] and config["problem_type"] == "regression"
    assert config["id2label"] == {"0": "LABEL_0"}
    after = load_file(tmp_path / "again/model.safetensors")
    before = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(after["classifier.weight"], before["classifier.weight"])


def test_several_labels_at_once_are_sigmoids(tmp_path):
    about = {"problem_type": "multi_label_classification", "id2label": {"0": "rude", "1": "loud"}}
    folder, texts = hugging_face(tmp_path / "hf", 2, **about), ["cat", "dog bird"]
    run(folder, tmp_path / "ours")
    expected = 1 / (1 + np.exp(-logits_of(folder, texts)))
    for row, values in zip(predict(tmp_path / "ours", texts), expected, strict=True):
        found = row["probabilities"]
        assert found == pytest.approx(dict(zip(("rude", "loud"), values, strict=True)), abs=1e-5)
        assert row["labels"] == [label for label, value in found.items() if value >= 0.5]
        assert "label" not in row
    run(tmp_path / "ours", tmp_path / "again", "huggingface")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == about["id2label"]


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_exported_signatures_give_what_predict_gives(tmp_path, kind):
    lines = save(tmp_path / "model", kind)
    source = str(tmp_path / "model")
    report = export(tmp_path / "served", ExportConfig(input=source, signatures=()))
    name = "classify_pair" if kind == "regression" else "classify"
    assert tuple(report["signatures"]) == (name, "embed")
    assert report["signatures"][name]["max_seq_length"] == LENGTH
    assert report["signatures"][name]["largest_difference"] < 1e-4
    assert report["classifier"]["kind"] == kind and report["classifier"]["labels"] == list(
        KINDS[kind]["labels"]
    )
    signature = tf.saved_model.load(str(tmp_path / "served/1")).signatures[name]
    texts = list(zip(*(line.split("\t") for line in lines), strict=True))
    keys = ("text", "second_text")[: len(texts)]
    found = signature(**{key: tf.constant(t) for key, t in zip(keys, texts, strict=True)})
    rows = predict(tmp_path / "model", lines)
    if kind == "regression":
        assert set(found) == {"score"}
        np.testing.assert_allclose(found["score"], [row["score"] for row in rows], atol=1e-5)
        assert {0.0, 5.0} & {row["score"] for row in rows}  # A score was out of the range.
    else:
        assert set(found) == {"probabilities", "labels"}
        expected = [list(row["probabilities"].values()) for row in rows]
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "about", "message"),
    [
        (2, {"id2label": {"0": "same", "1": "same"}}, "config.json: .*'same' stands for several"),
        (3, {"problem_type": "regression"}, "problem_type regression does not fit 3 outputs"),
        (1, {"problem_type": "single_label_classification"}, "does not fit 1 outputs"),
        (2, {"problem_type": "ranking"}, "problem_type is 'ranking'; known here: single_label"),
        (2, {"problem_type": ["x"]}, "problem_type is "),
    ],
)
def test_heads_that_cannot_be_kept_are_refused_by_name(tmp_path, outputs, about, message):
    folder = hugging_face(tmp_path / "hf", outputs, **about)
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_the_longest_text_of_a_hugging_face_tokenizer_counts(tmp_path):
    folder = hugging_face(tmp_path / "hf", 2)
    for declared, length in ((7, 7), (10**30, 12), (512, 12), ("7", 12)):
        text = json.dumps({"do_lower_case": True, "model_max_length": declared})
        (folder / "tokenizer_config.json").write_text(text)
        head = convert.converter.open_checkpoint(folder).classifier
        assert head.max_seq_length == length and head.input == ""


def test_a_classifier_json_at_odds_with_the_config_is_named(tmp_path):
    save(tmp_path / "model", "classification")
    run(tmp_path / "model", tmp_path / "hf", "huggingface")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    config["id2label"] = {"0": "yes", "1": "no"}
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"hf/classifier\.json: labels is \('no', 'yes'\)"):
        run(tmp_path / "hf", tmp_path / "ours")


def test_a_google_head_of_one_output_is_a_regression(tmp_path):
    variables = released.google_variables(released.weights())
    variables |= {"output_weights": np.ones((1, 8), "f4"), "output_bias": np.zeros(1, "f4")}
    run(released.write_google(tmp_path / "google", variables), tmp_path / "ours")
    assert ClassifierHead.read(tmp_path / "ours").kind == "regression"
    (row,) = predict(tmp_path / "ours", ["cat"])
    assert set(row) == {"text", "score"}


def test_a_masked_language_model_has_no_pooler_in_transformers(tmp_path):
    released.write_ours(tmp_path / "ours")
    report = run(tmp_path / "ours", tmp_path / "hf", "huggingface")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    tensors = load_file(tmp_path / "hf/model.safetensors")
    assert not [name for name in tensors if "pooler" in name]
    assert report["left_out"] == ["encoder/pooler/kernel", "encoder/pooler/bias"]
    assert run(tmp_path / "hf", tmp_path / "again")["coverage"]["unused"] == []


# === KerasHub ===


def test_keras_hub_answers_what_the_head_answers(tmp_path):
    save(tmp_path / "model", "classification")
    run(tmp_path / "model", tmp_path / "preset", "keras_hub")
    model = keras_hub.models.BertTextClassifier.from_preset(str(tmp_path / "preset"))
    text = "the mat hill"
    (row,) = predict(tmp_path / "model", [text])
    logits = np.asarray(model.predict([text], verbose=0))[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(list(row["probabilities"].values()), shares, atol=1e-5)


def test_a_keras_hub_classifier_of_other_origin_is_kept(tmp_path):
    save(tmp_path / "model", "multi_label")
    run(tmp_path / "model", tmp_path / "preset", "keras_hub")
    (tmp_path / "preset/classifier.json").unlink()
    run(tmp_path / "preset", tmp_path / "again")
    assert ClassifierHead.read(tmp_path / "again") == ClassifierHead(
        "multi_label", ("LABEL_0", "LABEL_1"), max_seq_length=LENGTH
    )
    first, second = (
        [list(row["probabilities"].values()) for row in predict(tmp_path / name, TEXTS)]
        for name in ("model", "again")
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    task = json.loads((tmp_path / "preset/task.json").read_text())
    task["config"]["activation"] = "tanh"
    (tmp_path / "preset/task.json").write_text(json.dumps(task))
    with pytest.raises(InputError, match="activation is 'tanh' for 2 outputs"):
        run(tmp_path / "preset", tmp_path / "other")
    (tmp_path / "preset/task.json").write_text(json.dumps({**task, "class_name": "BertMaskedLM"}))
    with pytest.raises(InputError, match=r"task\.json: a 'BertMaskedLM' of 2 classes"):
        run(tmp_path / "preset", tmp_path / "other")


def test_heads_without_place_in_keras_hub_are_refused_unless_given_up(tmp_path):
    save_spans(tmp_path / "spans")
    save(tmp_path / "mean", "regression", "mean")
    for name, lost in (("spans", "a span predictor"), ("mean", "a classifier with pooling mean")):
        with pytest.raises(InputError, match=f"no counterpart for {lost}; --encoder_only"):
            run(tmp_path / name, tmp_path / "preset", "keras_hub")
        assert not (tmp_path / "preset").exists()
        report = run(tmp_path / name, tmp_path / f"{name} preset", "keras_hub", encoder_only=True)
        assert report["heads"] == [] and len(report["left_out"]) == 1
    report = run(tmp_path / "mean", tmp_path / "bare", encoder_only=True)
    assert report["left_out"] == ["classifier_head"]
    assert ClassifierHead.read(tmp_path / "bare") is None
    checkpoints.load_encoder(tmp_path / "bare")


# === Surgery ===


def test_a_head_without_its_description_is_not_dropped_silently(tmp_path):
    save(tmp_path / "model", "regression")
    (tmp_path / "model/classifier.json").unlink()
    with pytest.raises(InputError, match=r"\(classifier_head/kernel\), but no classifier\.json"):
        run(tmp_path / "model", tmp_path / "out")


def test_damage_is_measured_with_the_head_that_a_foreign_model_has(tmp_path):
    task = toys.write_task(tmp_path / "animals")
    save(tmp_path / "model", "classification")
    run(tmp_path / "model", tmp_path / "hf", "huggingface")
    values = {"cut": "importance", "num_cut": 1, "importance": "task", "task": task}
    found = [
        surgery_run.run_surgery(
            SurgeryConfig(
                input=str(tmp_path / name), output_dir=str(tmp_path / f"{name} cut"), **values
            )
        )
        for name in ("model", "hf")
    ]
    assert "own head" in found[1]["damage"] and found[1]["heads"] == ["classifier_head"]
    assert found[0]["order"] == found[1]["order"]
    rows = [line.split("\t") for line in open(f"{task}/dev.tsv").read().splitlines()[1:]]
    right = [
        row["label"] == label
        for row, (_, label) in zip(
            predict(tmp_path / "model", [text for text, _ in rows]), rows, strict=True
        )
    ]
    assert 1 - found[0]["order"]["damages"][0] == pytest.approx(np.mean(right))


def test_damage_on_another_kind_of_task_is_refused(tmp_path):
    task = toys.write_task(tmp_path / "animals")
    save(tmp_path / "model", "regression")
    config = SurgeryConfig(
        input=str(tmp_path / "model"), output_dir=str(tmp_path / "cut"), cut="importance",
        num_cut=1, importance="task", task=task,
    )  # fmt: skip
    with pytest.raises(InputError, match="the head is a regression, the task animals is a class"):
        surgery_run.run_surgery(config)
