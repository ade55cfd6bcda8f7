import keras
import numpy as np
from conftest import tiny_config

from undivided_tf.models.encoder import Encoder
from undivided_tf.models.span_predictor import SpanPredictor


def batch(rows=4, length=9, seed=0):
    ids = np.random.default_rng(seed).integers(5, 50, (rows, length)).astype("int32")
    mask = np.ones_like(ids)
    mask[0, 6:] = 0
    return {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": mask}


def test_scores_are_linear_in_the_last_states_and_padding_is_out():
    predictor = SpanPredictor(Encoder(tiny_config(), seed=1), seed=2)
    given = batch()
    logits = np.asarray(predictor(given))
    states = np.asarray(predictor.encoder(given)["sequence_output"])
    kernel, bias = (np.asarray(weight) for weight in predictor.head.weights)
    expected = np.stack([states @ kernel[:, k] + bias[k] for k in (0, 1)], axis=1)
    expected[0, :, 6:] = -1e9
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert logits.dtype == np.float32
    shorter = {name: value[:1, :6] for name, value in given.items()}
    np.testing.assert_allclose(np.asarray(predictor(shorter)), logits[:1, :, :6], atol=1e-5)


def test_the_seed_decides_the_head_and_the_pooler_is_not_trained():
    first, again, other = (SpanPredictor(Encoder(tiny_config(), seed=1), seed=s) for s in (2, 2, 3))
    kernels = [np.asarray(model.head.kernel) for model in (first, again, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3
    assert not [v.path for v in first.trainable_variables if "pooler" in v.path]


def test_spans_are_learnt_in_fit():
    config = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    predictor = SpanPredictor(Encoder(config, seed=1), seed=1)
    given = batch(rows=32)
    given["token_ids"][given["token_ids"] == 7] = 8
    places = np.random.default_rng(1).integers(1, 5, 32)
    given["token_ids"][np.arange(32), places] = 7
    labels = np.stack([places, places], axis=1)
    predictor.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    losses = predictor.fit(given, labels, epochs=40, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert (np.asarray(predictor(given)).argmax(-1) == labels).mean() > 0.9
