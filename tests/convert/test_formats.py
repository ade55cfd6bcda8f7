"""Reads Google's checkpoints and KerasHub's presets; writes every format."""

import json

import keras_hub
import numpy as np
import pytest
import released
from safetensors.numpy import load_file

from undivided_tf import convert
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.convert.converter import fingerprint
from undivided_tf.errors import InputError
from undivided_tf.models.classifier import Classifier
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import classifiers, span_finetuning


def run(source, target, output_format="undivided"):
    config = ConversionConfig(
        input=str(source), output_dir=str(target), output_format=output_format
    )
    return convert.convert(config)


def same_files(first, second):
    first, second = load_file(first), load_file(second)
    assert first.keys() == second.keys()
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_google_and_hugging_face_give_the_same_checkpoint(tmp_path):
    tensors = released.weights(["cls"])
    released.write(tmp_path / "hf", tensors)
    left_over = {"global_step": np.int64(3), "bert/pooler/dense/kernel/adam_m": np.zeros((8, 8))}
    released.write_google(tmp_path / "google", {**released.google_variables(tensors), **left_over})
    first = run(tmp_path / "hf", tmp_path / "a")
    second = run(tmp_path / "google", tmp_path / "b")
    assert same_files(tmp_path / "a/weights.safetensors", tmp_path / "b/weights.safetensors")
    assert (tmp_path / "a/encoder.json").read_text() == (tmp_path / "b/encoder.json").read_text()
    assert first["fingerprint"] == second["fingerprint"]
    assert second["coverage"]["unused"] == sorted(left_over)


def test_google_checkpoints_at_fault_are_refused(tmp_path):
    variables = released.google_variables(released.weights())
    del variables["bert/encoder/layer_1/output/dense/bias"]
    folder = released.write_google(tmp_path / "google", variables)
    with pytest.raises(InputError, match="missing: bert/encoder/layer_1/output/dense/bias"):
        convert.load(folder)
    index = next(folder.glob("*.index"))
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(InputError, match="is not a TensorFlow checkpoint"):
        convert.load(folder)
    index.unlink()
    with pytest.raises(InputError, match="has 0 TensorFlow checkpoints"):
        convert.load(folder)


# === Hugging Face, there and back ===


@pytest.mark.parametrize("heads", [(), ("cls",)])
def test_hugging_face_there_and_back_is_the_identity(tmp_path, heads):
    released.write(tmp_path / "hf", released.weights(heads))
    run(tmp_path / "hf", tmp_path / "ours")
    run(tmp_path / "ours", tmp_path / "again", "huggingface")
    before = load_file(tmp_path / "hf/model.safetensors")
    after = load_file(tmp_path / "again/model.safetensors")
    if heads:
        after = {name.removeprefix("bert."): value for name, value in after.items()}
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert run(tmp_path / "again", tmp_path / "ours2")["coverage"]["unused"] == []
    assert same_files(tmp_path / "ours/weights.safetensors", tmp_path / "ours2/weights.safetensors")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["architectures"] == ["BertForPreTraining" if heads else "BertModel"]


@pytest.mark.parametrize(
    "changes",
    [
        {"block_pattern": "AAIA", "attention_normalization": "relu"},
        {"block_pattern": "I"},
        {"half_layer_norms": True},
        {"share_intermediate": True},
        {"position_type": "rotary", "rotary_base": 100.0},
        {"query_key_norm": True},
        {"position_type": "rotary", "query_key_norm": True, "block_pattern": "AAI"},
    ],
)
def test_an_encoder_that_is_no_bert_keeps_its_own_model_type(tmp_path, changes):
    encoder = released.write_ours(tmp_path / "ours", **changes)
    run(tmp_path / "ours", tmp_path / "hf", "huggingface")
    settings = json.loads((tmp_path / "hf/config.json").read_text())
    assert settings["model_type"] == "undivided_bert"
    assert settings["block_pattern"] == encoder.config.block_pattern
    run(tmp_path / "hf", tmp_path / "again")
    assert same_files(tmp_path / "ours/weights.safetensors", tmp_path / "again/weights.safetensors")
    loaded, _ = convert.load(tmp_path / "again")
    assert loaded.config == encoder.config and fingerprint(loaded) == fingerprint(encoder)
    with pytest.raises(InputError, match="KerasHub's BERT (has only|cannot have)"):
        run(tmp_path / "ours", tmp_path / "preset", "keras_hub")
    assert not (tmp_path / "preset").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_type": "rotary"}, "KerasHub's BERT has only position_type absolute"),
        ({"query_key_norm": True}, "KerasHub's BERT has only query_key_norm False"),
    ],
)
def test_keras_hub_refuses_options_of_attention_by_name(tmp_path, changes, message):
    released.write_ours(tmp_path / "ours", **changes)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "ours", tmp_path / "preset", "keras_hub")


# === Answers to questions ===


def test_span_predictors_in_and_out(tmp_path):
    tensors = released.weights(["qa_outputs"])
    pooler = {name: tensors.pop(name) for name in list(tensors) if name.startswith("pooler.")}
    about = {"architectures": ["BertForQuestionAnswering"]}
    released.write(tmp_path / "hf", tensors, **about)
    run(tmp_path / "hf", tmp_path / "ours")
    predictor, _ = span_finetuning.load_span_predictor(tmp_path / "ours")
    np.testing.assert_array_equal(predictor.head.kernel, tensors["qa_outputs.weight"].T)
    windows = json.loads((tmp_path / "ours/span_predictor.json").read_text())
    assert (windows["max_seq_length"], windows["doc_stride"]) == (12, 128)
    run(tmp_path / "ours", tmp_path / "again", "huggingface")
    after = load_file(tmp_path / "again/model.safetensors")
    after = {name.removeprefix("bert."): value for name, value in after.items()}
    assert after.keys() == tensors.keys()
    assert all(tensors[name].tobytes() == value.tobytes() for name, value in after.items())
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["architectures"] == about["architectures"]
    released.write_google(tmp_path / "google", released.google_variables({**tensors, **pooler}))
    run(tmp_path / "google", tmp_path / "ours2")
    found, _ = span_finetuning.load_span_predictor(tmp_path / "ours2")
    np.testing.assert_array_equal(found.head.kernel, predictor.head.kernel)


def test_a_classifier_on_the_mean_is_kept_and_refused_by_transformers(tmp_path):
    encoder = released.write_ours(tmp_path / "encoder")
    classifier = Classifier(encoder, ["no", "yes"], "mean")
    classifiers.save_classifier(
        tmp_path / "ours", classifier, Tokenizer(released.PIECES), task="toy", max_seq_length=12
    )
    run(tmp_path / "ours", tmp_path / "hf", "huggingface")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["model_type"] == "undivided_bert" and config["pooling"] == "mean"
    for source in ("ours", "hf"):
        run(tmp_path / source, tmp_path / f"{source} again")
        found, _ = classifiers.load_classifier(tmp_path / f"{source} again")
        assert (found.pooling, found.labels) == ("mean", ("no", "yes"))


# === KerasHub ===


def test_keras_hub_gives_the_same_outputs_and_comes_back(tmp_path):
    encoder = released.write_ours(tmp_path / "ours", hidden_activation="gelu_tanh")
    run(tmp_path / "ours", tmp_path / "preset", "keras_hub")
    backbone = keras_hub.models.BertBackbone.from_preset(str(tmp_path / "preset"))
    tokenizer = keras_hub.models.BertTokenizer.from_preset(str(tmp_path / "preset"))
    assert tokenizer.get_vocabulary() == released.PIECES and tokenizer.lowercase
    ids = np.arange(20, dtype="int32").reshape(2, 10)
    batch = {"token_ids": ids, "segment_ids": ids % 2, "padding_mask": np.int32(ids % 10 < 7)}
    ours, theirs = encoder(batch), backbone(batch)
    real = batch["padding_mask"] == 1
    for name in ("sequence_output", "pooled_output"):
        rows = real if name == "sequence_output" else slice(None)
        first, second = np.asarray(ours[name])[rows], np.asarray(theirs[name])[rows]
        np.testing.assert_allclose(first, second, atol=1e-5)
    run(tmp_path / "preset", tmp_path / "again")
    before = load_file(tmp_path / "ours/weights.safetensors")
    after = load_file(tmp_path / "again/weights.safetensors")
    assert all(before[name].tobytes() == value.tobytes() for name, value in after.items())
    assert set(before) - set(after) == {n for n in before if n.startswith("masked_lm_head/")}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_dim", 10**6, "describes more weights"),
        ("hidden_dim", 16, "does not fit config.json"),
        ("num_layers", "two", "expected a number from 1|expected"),
        ("vocabulary_size", 61, "vocabulary_size is 61"),
    ],
)
def test_presets_at_fault_are_refused(tmp_path, key, value, message):
    released.write_ours(tmp_path / "ours", hidden_activation="gelu_tanh")
    run(tmp_path / "ours", tmp_path / "preset", "keras_hub")
    path = tmp_path / "preset/config.json"
    whole = json.loads(path.read_text())
    whole["config"][key] = value
    path.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=message):
        convert.load(tmp_path / "preset")


def test_unknown_folders_and_packages_are_refused(tmp_path):
    with pytest.raises(InputError, match="not a checkpoint of a known format"):
        convert.load(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        convert.load(tmp_path / "absent")
    with pytest.raises(InputError, match="no package no-such-thing is installed"):
        convert.load("wheel:no-such-thing")
