"""The notebook way of README, run as it stands there, and the strictness of a start."""

import ast
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from safetensors.numpy import load_file, save_file

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training.classifiers import load_initial_weights, save_classifier

README = pathlib.Path(__file__).parents[2] / "README.md"


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *toys.FILLERS, "cat", "dog"))
    config = toys.encoder_for(tokenizer, max_position_embeddings=64)
    checkpoints.save_model(tmp_path, Encoder(config, seed=3).weights, config, tokenizer)
    return tmp_path


def test_the_five_lines_of_readme_train_on_a_dataset_of_one_s_own(checkpoint):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "load_encoder(" in block)
    imports = (ast.Import, ast.ImportFrom)
    assert sum(not isinstance(line, imports) for line in ast.parse(code).body) == 5
    texts = ["the cat sat", "a dog ran"] * 64
    names = {"dataset": tf.data.Dataset.from_tensor_slices((texts, [0, 1] * 64))}
    exec(code.replace("runs/half", str(checkpoint)).replace("5e-5", "1e-2"), names)
    classifier, tokenizer = names["classifier"], names["tokenizer"]
    classifier.fit(names["batches"], epochs=4, verbose=0)
    logits = np.asarray(classifier(tokenizer.encode(texts[:2], max_seq_length=8)))
    assert logits.argmax(-1).tolist() == [0, 1]


def classifier_of(checkpoint, labels=("no", "yes")):
    encoder, _ = checkpoints.untrained_encoder(checkpoint, seed=5)
    return Classifier(encoder, labels, seed=5)


TASK = ClassifierHead(labels=("no", "yes"), max_seq_length=8, input="single", task="toy")


def change(checkpoint, function):
    """Rewrites the weights of a checkpoint."""
    arrays = load_file(checkpoint / "weights.safetensors")
    function(arrays)
    save_file(arrays, checkpoint / "weights.safetensors")


def test_what_is_loaded_new_and_unused_is_listed(checkpoint):
    change(checkpoint, lambda arrays: arrays.update({"masked_lm_head/bias": np.zeros(3)}))
    classifier = classifier_of(checkpoint)
    head = np.asarray(classifier.head.kernel)
    new_weights = ("classifier_head", "encoder/pooler/bias")
    report = load_initial_weights(classifier, checkpoint, new_weights, TASK)
    report["unused"].sort()
    assert report == {
        "loaded": len(classifier.weights) - 3,
        "new": ["encoder/pooler/bias", "classifier_head/kernel", "classifier_head/bias"],
        "unused": ["encoder/pooler/bias", "masked_lm_head/bias"],
    }
    np.testing.assert_array_equal(classifier.head.kernel, head)
    stored = load_file(checkpoint / "weights.safetensors")
    np.testing.assert_array_equal(classifier.encoder.pooler.kernel, stored["encoder/pooler/kernel"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda arrays: arrays.pop("encoder/pooler/bias"), "missing: encoder/pooler/bias"),
        (
            lambda arrays: arrays.update({"encoder/pooler/bias": np.zeros(9, "float32")}),
            r"shape of encoder/pooler/bias: \(9,\) there, \(8,\) in the model",
        ),
        (
            lambda arrays: arrays.update({"encoder/block_07_attention/x": np.zeros(1)}),
            "unused: encoder/block_07_attention/x",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(checkpoint, function, message):
    change(checkpoint, function)
    with pytest.raises(InputError, match=message + r"(.|\n)*values: --new_weights"):
        load_initial_weights(classifier_of(checkpoint), checkpoint, ("classifier_head",), TASK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "pair"}, "trained on single texts, the task toy has pairs"),
        ({"pooling": "mean"}, "trained with pooling first, not mean"),
        ({"kind": "multi_label"}, "is a classification .*, the task toy is a multi_label"),
    ],
)
def test_a_head_of_another_kind_or_input_is_refused(checkpoint, changes, message):
    classifier = classifier_of(checkpoint)
    save_classifier(
        checkpoint / "model", classifier, Tokenizer(checkpoint / "vocab.txt"), task="toy",
        max_seq_length=8, input="single",
    )  # fmt: skip
    load_initial_weights(classifier, checkpoint / "model", (), TASK)
    with pytest.raises(InputError, match=f"{message}.*--new_weights=classifier_head"):
        load_initial_weights(classifier, checkpoint / "model", (), TASK.replace(**changes))


def test_a_regression_has_one_output_and_learns_numbers(checkpoint):
    encoder, tokenizer = checkpoints.load_encoder(checkpoint)
    model = Classifier(encoder, (), "mean", classifier_dropout=0.0, seed=1)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.MeanSquaredError())
    texts, scores = ["the cat", "a dog"] * 32, np.float32([0, 5] * 32)
    inputs = tokenizer.encode(texts, max_seq_length=8)
    model.fit(inputs, scores, batch_size=16, epochs=12, verbose=0)
    found = model.predict(inputs, verbose=0)
    assert found.shape == (64, 1) and np.abs(found[:, 0] - scores).max() < 1.5
