"""The encoder for inference computes what the Keras encoder computes."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config

from undivided_tf.export.inference import LITERT, TENSORFLOW, XLA, InferenceEncoder
from undivided_tf.models.encoder import Encoder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_pattern": "AAI", "norm_first": True},
        {"block_pattern": "IIA", "hidden_activation": "gelu_tanh"},
        {"block_pattern": "II", "norm_first": True},
        {"block_pattern": "A*3", "attention_normalization": "relu", "hidden_activation": "relu"},
        {"block_pattern": "(AI)*3", "half_layer_norms": True, "norm_first": True},
        {"block_pattern": "(AAI)*2", "half_layer_norms": True},
        {"query_key_norm": True},
        {"position_type": "rotary", "rotary_base": 100.0, "norm_first": True},
        {"position_type": "rotary", "query_key_norm": True, "block_pattern": "AIA"},
    ],
    ids=str,
)
def test_outputs_are_those_of_the_encoder(changes):
    encoder = Encoder(tiny_config(initializer_range=0.5, **changes), seed=0)
    ids = np.random.default_rng(0).integers(0, 50, (3, 9), dtype="int32")
    mask = np.ones_like(ids)
    mask[0, 4:], mask[1] = 0, 0
    inputs = {"token_ids": ids, "segment_ids": ids % 2, "padding_mask": mask}
    for positions in (None, np.array([[0, 3], [0, 0], [0, 8]], "int32")):
        expected = encoder(inputs, positions=positions)
        for operations in (TENSORFLOW, XLA, LITERT):
            found = InferenceEncoder(encoder, operations)(inputs, positions)
            for name, values in found.items():
                np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"position_type": "rotary", "query_key_norm": True}], ids=str
)
def test_bfloat16_computes_what_the_encoder_does(options):
    encoder = Encoder(tiny_config(initializer_range=0.5, **options), seed=0, dtype="bfloat16")
    ids = np.random.default_rng(0).integers(0, 50, (3, 9), dtype="int32")
    inputs = {"token_ids": ids, "segment_ids": ids % 2, "padding_mask": np.ones_like(ids)}
    found = InferenceEncoder(encoder)(inputs)["sequence_output"]
    assert found.dtype == tf.bfloat16
    expected = encoder(inputs)["sequence_output"]
    np.testing.assert_allclose(tf.cast(found, tf.float32), tf.cast(expected, tf.float32), atol=0.1)
