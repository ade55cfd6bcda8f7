import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config

from undivided_tf.models.classifier import Classifier, pool
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer, masked_lm_sums


def batch(config, rows=4, length=9, predictions=3):
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, (rows, length), dtype="int32")
    return {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": np.ones_like(ids),
        "masked_positions": np.sort(random.integers(0, length, (rows, predictions)), axis=1),
    }


def test_head_equals_that_of_keras_hub():
    config = tiny_config(layer_norm_eps=1e-6)
    model = Pretrainer(Encoder(config, seed=1))
    table = model.encoder.embeddings.word_embeddings
    other = keras_hub.layers.MaskedLMHead(
        vocabulary_size=50,
        token_embedding=keras_hub.layers.ReversibleEmbedding(50, 8),
        intermediate_activation="gelu",
        layer_norm_epsilon=1e-6,
    )
    given = batch(config)
    sequence = model.encoder(given)["sequence_output"]
    other.token_embedding.build()
    other(sequence, given["masked_positions"])
    other.token_embedding.embeddings.assign(table.embeddings)
    head, random = model.masked_lm_head, np.random.default_rng(1)
    for weight in head.weights:
        weight.assign(random.normal(size=weight.shape))
    for ours, theirs in [
        (head.transform, other._intermediate_dense),
        (head.layer_norm, other._intermediate_layer_norm),
    ]:
        theirs.set_weights(ours.get_weights())
    other._bias.assign(head.output_bias)
    np.testing.assert_allclose(
        model(given)["masked_lm_logits"], other(sequence, given["masked_positions"]), atol=1e-5
    )


def test_the_output_matrix_is_the_word_embeddings():
    config = tiny_config()
    model = Pretrainer(Encoder(config, seed=1))
    given = batch(config)
    before = np.asarray(model(given)["masked_lm_logits"])
    unseen = next(i for i in range(50) if i not in given["token_ids"])
    table = model.encoder.embeddings.word_embeddings.embeddings
    table.assign(np.where(np.arange(50)[:, None] == unseen, 5.0, np.asarray(table)))
    after = np.asarray(model(given)["masked_lm_logits"])
    changed = np.abs(after - before).max(axis=(0, 1)) > 1e-6
    assert list(np.flatnonzero(changed)) == [unseen]


def test_sums_leave_out_what_has_no_weight():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 3, 5)).astype("float32")
    ids = np.array([[1, 2, 0], [4, 0, 0]])
    weights = np.array([[1, 1, 0], [1, 0, 0]], "float32")
    sums = masked_lm_sums(logits, ids, weights)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = [log_probs[0, 0, 1], log_probs[0, 1, 2], log_probs[1, 0, 4]]
    assert float(sums["loss"]) == pytest.approx(-sum(chosen), rel=1e-5)
    assert float(sums["weight"]) == 3
    hits = [logits[0, 0].argmax() == 1, logits[0, 1].argmax() == 2, logits[1, 0].argmax() == 4]
    assert float(sums["correct"]) == sum(hits)


def test_cross_entropy_and_its_gradient_against_numpy():
    random = np.random.default_rng(0)
    logits = tf.constant(random.normal(size=(3, 4, 50), scale=3).astype("float32"))
    ids, weights = random.integers(0, 50, (3, 4)), np.ones((3, 4), "float32")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = masked_lm_sums(logits, ids, weights)["loss"]
    exponentials = np.exp(np.float64(logits))
    shares = exponentials / exponentials.sum(-1, keepdims=True)
    truth = np.eye(50)[ids]
    assert float(loss) == pytest.approx(-np.log((shares * truth).sum(-1)).sum(), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits), shares - truth, atol=1e-6)


def test_of_equal_logits_the_first_is_the_guess():
    logits = np.array([[[1, 3, 3, 0], [1, 3, 3, 0], [2, 2, 2, 2], [2, 2, 2, 2]]], "float32")
    ids, weights = np.array([[1, 2, 0, 3]]), np.ones((1, 4), "float32")
    for i, right in enumerate([1, 0, 1, 0]):
        only = weights * (np.arange(4) == i)
        assert float(masked_lm_sums(logits, ids, only)["correct"]) == right


def test_next_sentence_head_is_optional():
    config = tiny_config()
    assert "next_sentence_logits" not in Pretrainer(Encoder(config))(batch(config))
    outputs = Pretrainer(Encoder(config), next_sentence=True)(batch(config))
    assert outputs["next_sentence_logits"].shape == (4, 2)


def test_pooling_against_plain_loops():
    random = np.random.default_rng(0)
    sequence = random.normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    encoded = {"sequence_output": sequence, "pooled_output": sequence[:, 0] * 2}
    segments = np.array([[0, 1, 1, 1], [0, 0, 1, 1]])
    inputs = {"padding_mask": mask, "segment_ids": segments}
    np.testing.assert_allclose(pool(encoded, inputs, "first"), sequence[:, 0] * 2)
    mean, largest = pool(encoded, inputs, "mean"), pool(encoded, inputs, "max")
    compared = pool(encoded, inputs, "segments")
    for row, real in enumerate([2, 4]):
        np.testing.assert_allclose(mean[row], sequence[row, :real].mean(0), rtol=1e-5)
        np.testing.assert_allclose(largest[row], sequence[row, :real].max(0))
        first, second = (
            np.mean([sequence[row, i] for i in range(real) if segments[row, i] == text], axis=0)
            for text in (0, 1)
        )
        expected = [*first, *second, *np.abs(first - second), *first * second]
        np.testing.assert_allclose(compared[row], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="'last'"):
        pool(encoded, inputs, "last")


@pytest.mark.parametrize("pooling", ["first", "mean", "max", "segments"])
def test_classifier_learns_in_fit(pooling):
    config = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    classifier = Classifier(
        Encoder(config, seed=1), ["no", "yes"], pooling, classifier_dropout=0.0, seed=1
    )
    given = batch(config, rows=32)
    del given["masked_positions"]
    labels = (given["token_ids"][:, 0] > 25).astype("int32")
    classifier.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = classifier.fit(given, labels, epochs=30, batch_size=16, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert classifier.labels == ("no", "yes")
