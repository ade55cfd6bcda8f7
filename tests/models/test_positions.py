"""The encoder at some positions only: the same values and gradients as at all."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config

from undivided_tf import accounting
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer

PATTERNS = ("AI", "(AI)*2", "AAI", "AIA", "AII", "A*2", "I", "IA")


def given(config, rows=3, length=9, places=4):
    random = np.random.default_rng(0)
    mask = (np.arange(length) < np.array([[length], [5], [7]])).astype("int32")
    return {
        "token_ids": random.integers(0, config.vocab_size, (rows, length), dtype="int32"),
        "segment_ids": random.integers(0, 2, (rows, length), dtype="int32"),
        "padding_mask": mask,
        "masked_positions": random.integers(0, 5, (rows, places), dtype="int32"),
        "intermediate_scales": np.array([[0, 0.5], [1, 0], [0.5, 1]], "float32"),
    }


def at_all(encoder, inputs, positions, **options):
    """What is asked for, gathered from the outputs at all positions by NumPy's rules."""
    outputs = encoder(inputs, **options)
    chosen = tf.gather_nd(
        outputs["sequence_output"],
        np.stack(np.broadcast_arrays(np.arange(len(positions))[:, None], positions), axis=-1),
    )
    return {**outputs, "sequence_output": chosen}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"norm_first": True}, {"half_layer_norms": True},
        {"attention_normalization": "relu"}, {"position_type": "rotary", "query_key_norm": True},
    ],
    ids=str,
)  # fmt: skip
def test_some_positions_equal_all_of_them(pattern, options):
    config = tiny_config(
        block_pattern=pattern, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options
    )
    encoder, inputs = Encoder(config, seed=1), given(config)
    random = np.random.default_rng(1)
    for weight in encoder.weights:
        weight.assign(random.normal(size=weight.shape, scale=0.5))
    inputs["intermediate_scales"] = inputs["intermediate_scales"][:, : pattern.count("I") or 1]
    if "I" not in pattern or config.pattern.num_intermediate > 2:
        del inputs["intermediate_scales"]
    positions = np.pad(inputs["masked_positions"], ((0, 0), (1, 0)))
    goal = random.normal(size=(3, 5, 8)).astype("float32")
    values, gradients = [], []
    for way in (at_all, lambda encoder, inputs, positions: encoder(inputs, positions=positions)):
        with tf.GradientTape() as tape:
            outputs = way(encoder, inputs, positions)
            loss = tf.reduce_sum(outputs["sequence_output"] * goal)
            loss += tf.reduce_sum(outputs["pooled_output"] * goal[:, 0])
        weights = [w.value for w in encoder.trainable_weights]
        none = tf.UnconnectedGradients.ZERO
        found = tape.gradient(loss, weights, unconnected_gradients=none)
        gradients.append([tf.convert_to_tensor(gradient) for gradient in found])
        values.append([outputs["sequence_output"], outputs["pooled_output"]])
    for all_places, some in zip(*values, strict=True):
        assert some.shape == all_places.shape
        np.testing.assert_allclose(some, all_places, rtol=1e-5, atol=1e-5)
    for all_places, some in zip(*gradients, strict=True):
        largest = max(1.0, float(tf.reduce_max(tf.abs(all_places))))
        np.testing.assert_allclose(some, all_places, rtol=1e-5, atol=1e-5 * largest)


def test_taps_have_all_positions_before_the_last_attention_block_only():
    config = tiny_config(block_pattern="AIAI")
    encoder, inputs = Encoder(config, seed=1), given(config)
    taps = encoder(inputs, return_taps=True, positions=inputs["masked_positions"])["taps"]
    assert {name: tap.shape[1] for name, tap in taps.items()} == {
        "embeddings": 9, "block_00/attention": 9, "block_00/intermediate": 9,
        "block_01/attention": 4, "block_01/intermediate": 4,
    }  # fmt: skip


@pytest.mark.parametrize("next_sentence", [False, True])
def test_the_pretrainer_scores_the_masked_positions(next_sentence):
    """With the pair's head, too, whose [CLS] is computed beside them."""
    config = tiny_config(block_pattern="AAI")
    model = Pretrainer(Encoder(config, seed=1), next_sentence=next_sentence)
    inputs = given(config)
    del inputs["intermediate_scales"]
    whole = model.encoder(inputs)
    table = model.encoder.embeddings.word_embeddings.embeddings
    outputs = model(inputs)
    expected = model.masked_lm_head(whole["sequence_output"], inputs["masked_positions"], table)
    np.testing.assert_allclose(outputs["masked_lm_logits"], expected, atol=1e-5)
    assert ("next_sentence_logits" in outputs) == next_sentence
    if next_sentence:
        pairs = model.next_sentence_head(whole["pooled_output"])
        np.testing.assert_allclose(outputs["next_sentence_logits"], pairs, atol=1e-5)


@pytest.mark.parametrize("pattern", ["AIAI", "AAI", "AII", "AA"])
@pytest.mark.parametrize("places", [None, 4])
@pytest.mark.parametrize("options", [{}, {"position_type": "rotary", "query_key_norm": True}])
def test_products_in_the_graph_are_those_of_the_accounting(pattern, places, options):
    config = tiny_config(block_pattern=pattern, **options)
    encoder, inputs = Encoder(config, seed=1), given(config)
    inputs = {name: tf.constant(inputs[name]) for name in (*inputs,) if "scales" not in name}
    positions = inputs["masked_positions"] if places else None
    call = tf.function(lambda given: encoder(given, positions=positions)["sequence_output"])
    flops = 0
    for op in call.get_concrete_function(inputs).graph.get_operations():
        if op.type in ("MatMul", "BatchMatMulV2", "Einsum"):
            left, right = (shape.shape.as_list() for shape in op.inputs)
            if op.type == "Einsum":  # Scores bqhd,bkhd and context bhqk,bkhd, with b = 3 rows.
                queries = left[1 if b"bqhd" in op.get_attr("equation") else 2]
                flops += 2 * 3 * config.hidden_size * queries * right[1]
            else:
                flops += 2 * np.prod(left) * right[-1]
    parts = accounting.forward_flops_breakdown(config, 9, places)
    assert flops == 3 * sum(parts.values())
