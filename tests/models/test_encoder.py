import gc
import json

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config

from undivided_tf.layers import intermediate_block
from undivided_tf.models import presets
from undivided_tf.models.encoder import Encoder


def inputs(config, batch=3, length=9, seed=0):
    """Random ids; every row but the first ends in padding."""
    random = np.random.default_rng(seed)
    mask = (np.arange(length)[None] < random.integers(2, length, (batch, 1))).astype("int32")
    mask[0] = 1
    return {
        "token_ids": random.integers(0, config.vocab_size, (batch, length), dtype="int32"),
        "segment_ids": random.integers(0, 2, (batch, length), dtype="int32"),
        "padding_mask": mask,
    }


def test_taps_follow_the_pattern():
    config = tiny_config(block_pattern="AAII")
    outputs = Encoder(config, seed=1)(inputs(config), return_taps=True)
    assert tuple(outputs["taps"]) == config.pattern.tap_names
    assert all(tap.shape == (3, 9, 8) for tap in outputs["taps"].values())
    np.testing.assert_array_equal(
        outputs["taps"]["block_02/intermediate"], outputs["sequence_output"]
    )
    assert "taps" not in Encoder(config, seed=1)(inputs(config))


def test_an_absent_block_has_no_weights():
    names = {w.path.split("/")[1] for w in Encoder(tiny_config(block_pattern="AAI")).weights}
    assert names == {
        "embeddings", "block_00_attention", "block_01_attention", "block_01_intermediate", "pooler",
    }  # fmt: skip


def test_patterns_share_the_initial_values_of_shared_blocks():
    full = Encoder(tiny_config(block_pattern="(AI)*2"), seed=3)
    none = Encoder(tiny_config(block_pattern="A*2"), seed=3)
    other = Encoder(tiny_config(block_pattern="A*2"), seed=4)
    full_weights = {w.path: np.asarray(w) for w in full.weights}
    for weight in none.weights:
        np.testing.assert_array_equal(weight, full_weights[weight.path])
    assert not np.array_equal(other.blocks[0].query.kernel, none.blocks[0].query.kernel)
    assert not np.array_equal(none.blocks[0].query.kernel, none.blocks[0].key.kernel)
    assert not np.array_equal(none.blocks[0].query.kernel, none.blocks[1].query.kernel)


@pytest.mark.parametrize("norm_first", [False, True])
def test_padding_does_not_change_what_real_tokens_give(norm_first):
    config = tiny_config(block_pattern="AAI", norm_first=norm_first)
    encoder = Encoder(config, seed=1)
    short = inputs(config, batch=2, length=5)
    short["padding_mask"] = np.ones_like(short["padding_mask"])
    padded = {k: np.pad(v, ((0, 0), (0, 4)), constant_values=0) for k, v in short.items()}
    padded["token_ids"][:, 5:] = 7
    np.testing.assert_allclose(
        encoder(padded)["sequence_output"][:, :5], encoder(short)["sequence_output"], atol=1e-6
    )


def test_equals_the_bert_of_keras_hub():
    config = tiny_config(hidden_activation="gelu_tanh")
    encoder = Encoder(config, seed=5)
    other = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=12, dropout=0.0,
    )  # fmt: skip
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(random.normal(size=weight.shape, scale=0.3))
    _copy_into_keras_hub(encoder, other)
    given = inputs(config)
    ours, theirs = encoder(given), other(given)
    real = given["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        np.asarray(ours["sequence_output"])[real],
        np.asarray(theirs["sequence_output"])[real],
        atol=1e-5,
    )
    np.testing.assert_allclose(ours["pooled_output"], theirs["pooled_output"], atol=1e-5)


def _copy_into_keras_hub(encoder, other):
    def copy(source, target):
        for ours, theirs in zip(source.weights, target.weights, strict=True):
            theirs.assign(np.reshape(ours, theirs.shape))

    copy(encoder.embeddings.word_embeddings, other.get_layer("token_embedding"))
    copy(encoder.embeddings.position_embeddings, other.get_layer("position_embedding"))
    copy(encoder.embeddings.segment_embeddings, other.get_layer("segment_embedding"))
    copy(encoder.embeddings.layer_norm, other.get_layer("embeddings_layer_norm"))
    copy(encoder.pooler, other.get_layer("pooled_dense"))
    for i in range(2):
        layer = other.get_layer(f"transformer_layer_{i}")
        attention, intermediate = encoder.blocks[2 * i : 2 * i + 2]
        theirs = layer._self_attention_layer
        copy(attention.query, theirs._query_dense)
        copy(attention.key, theirs._key_dense)
        copy(attention.value, theirs._value_dense)
        copy(attention.output_dense, theirs._output_dense)
        copy(attention.layer_norm, layer._self_attention_layer_norm)
        copy(intermediate.intermediate_dense, layer._feedforward_intermediate_dense)
        copy(intermediate.output_dense, layer._feedforward_output_dense)
        copy(intermediate.layer_norm, layer._feedforward_layer_norm)


def test_dropout_is_on_in_training_only():
    config = tiny_config(hidden_dropout_prob=0.5)
    encoder, given = Encoder(config, seed=1), inputs(config)
    calm = encoder(given)["sequence_output"]
    np.testing.assert_array_equal(calm, encoder(given, training=False)["sequence_output"])
    assert not np.allclose(calm, encoder(given, training=True)["sequence_output"])


def test_full_dropout_leaves_the_norm_of_the_norm():
    """With everything dropped, a post-norm block is its LayerNorm on the residual."""
    config = tiny_config(block_pattern="AI", hidden_dropout_prob=0.999999)
    encoder, given = Encoder(config, seed=1), inputs(config)
    attention, intermediate = encoder.blocks
    hidden = np.random.default_rng(0).normal(size=(3, 9, 8)).astype("float32")
    expected = intermediate.layer_norm(attention.layer_norm(hidden))
    once = attention(hidden, given["padding_mask"], training=True)
    np.testing.assert_allclose(intermediate(once, training=True), expected, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"position_type": "rotary", "query_key_norm": True}])
def test_bfloat16_keeps_float32_weights_and_stays_close(options):
    config = tiny_config(**options)
    given = inputs(config)
    half = Encoder(config, seed=1, dtype="mixed_bfloat16")
    assert {w.dtype for w in half.weights} == {"float32"}
    full = Encoder(config, seed=1)(given)["sequence_output"]
    mixed = half(given)["sequence_output"]
    assert mixed.dtype == "bfloat16"
    np.testing.assert_allclose(keras.ops.cast(mixed, "float32"), full, atol=0.1)


def test_encoder_goes_to_json_and_back():
    encoder = Encoder(tiny_config(block_pattern="AAI"), seed=2)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(encoder)))
    twin = keras.saving.deserialize_keras_object(config)
    assert twin.config == encoder.config
    given = inputs(encoder.config)
    np.testing.assert_array_equal(twin(given)["pooled_output"], encoder(given)["pooled_output"])


def test_presets_have_the_sizes_of_their_names():
    assert presets.preset("bert_base").block_pattern == "(AI)*12"
    assert presets.preset("bert_large").hidden_size == 1024
    for name in presets.NAMES:
        config = presets.preset(name)
        assert config.hidden_size == 64 * config.num_attention_heads
    with pytest.raises(ValueError, match="unknown preset 'bert_huge'; known: bert_tiny"):
        presets.preset("bert_huge")


def test_half_of_the_layer_norms():
    config = tiny_config(block_pattern="AIAI", half_layer_norms=True)
    encoder, given = Encoder(config, seed=1), inputs(config)
    normed = {w.path.split("/")[1] for w in encoder.weights if "layer_norm" in w.path}
    assert normed == {"embeddings", "block_00_intermediate", "block_01_intermediate"}
    # What has no LayerNorm equals a block that has one, before it.
    twin = Encoder(config.replace(half_layer_norms=False), seed=1)
    hidden = np.random.default_rng(0).normal(size=(3, 9, 8)).astype("float32")
    bare = encoder.blocks[0](hidden, given["padding_mask"])
    whole = twin.blocks[0](hidden, given["padding_mask"])
    np.testing.assert_allclose(twin.blocks[0].layer_norm(bare), whole, atol=1e-6)
    assert not np.allclose(bare, whole, atol=0.1)
    np.testing.assert_array_equal(encoder.blocks[1](hidden), twin.blocks[1](hidden))


def test_attention_without_softmax_equals_numpy():
    config = tiny_config(block_pattern="A", attention_normalization="relu")
    block = Encoder(config, seed=1).blocks[0]
    for weight in block.weights:
        weight.assign(np.random.default_rng(len(weight.path)).normal(size=weight.shape))
    hidden = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    query, key, value = (
        np.reshape(np.asarray(dense(hidden)), (2, 5, 2, 4))
        for dense in (block.query, block.key, block.value)
    )
    context = np.zeros((2, 5, 2, 4))
    for b, h in np.ndindex(2, 2):
        scores = query[b, :, h] @ key[b, :, h].T / np.sqrt(4)
        weights = np.maximum(0, 1 + scores) * mask[b] / mask[b].sum()
        context[b, :, h] = weights @ value[b, :, h]
    assert (scores < -1).any()  # The cut is at work.
    update = np.asarray(block.output_dense(context.reshape(2, 5, 8).astype("float32")))
    expected = block.layer_norm(hidden + update)
    np.testing.assert_allclose(block(hidden, mask), expected, atol=1e-4)


def test_softmax_and_its_replacement_agree_on_small_scores():
    config = tiny_config(block_pattern="A")
    given = inputs(config)
    first = Encoder(config, seed=1)(given)["sequence_output"]
    other = Encoder(config.replace(attention_normalization="relu"), seed=1)(given)
    np.testing.assert_allclose(other["sequence_output"], first, atol=1e-3)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_scaled_intermediate_block_is_its_surgery_at_zero_and_itself_at_one(norm_first):
    config = tiny_config(block_pattern="AIAI", norm_first=norm_first)
    encoder, given = Encoder(config, seed=1), inputs(config)
    cut = Encoder(config.replace(block_pattern="AIA"), seed=1)  # The same seed: shared weights.
    scales = np.array([[1, 1], [1, 0], [1, 0]], "float32")
    mixed = np.asarray(encoder({**given, "intermediate_scales": scales})["sequence_output"])
    whole, without = encoder(given)["sequence_output"], cut(given)["sequence_output"]
    np.testing.assert_allclose(mixed[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1:], without[1:], atol=1e-6)
    assert not np.allclose(whole, without, atol=1e-3)


def gradient_step(encoder, batch):
    """Takes the gradients of all weights of an encoder in training."""
    variables = [variable.value for variable in encoder.trainable_variables]

    def step():
        with tf.GradientTape() as tape:
            output = encoder(batch, training=True)["sequence_output"]
            loss = tf.reduce_sum(output * tf.sin(tf.range(float(output.shape[-1]))))
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    return step


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm_first": True}, {"position_type": "rotary", "query_key_norm": True}],
    ids=str,
)
def test_recomputed_gradients_equal_kept_ones(dropout, options, monkeypatch):
    """In the second step too: the states of dropout move on as they do without recomputation."""
    config = tiny_config(
        block_pattern="AIA", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        **options,
    )  # fmt: skip
    batch = {name: tf.constant(value) for name, value in inputs(config).items()}
    batch["intermediate_scales"] = tf.constant([[0.0], [1.0], [2.0]])

    def arrays(recompute):
        encoder = Encoder(config, seed=1, recompute=recompute)
        step = tf.function(gradient_step(encoder, batch))
        tensors = [*step(), *step(), *(v.value for v in encoder.non_trainable_variables)]
        assert bool(encoder.non_trainable_variables) == bool(dropout)
        return [np.asarray(tensor) for tensor in tensors]

    recomputed = arrays(False), arrays(True)  # The activations alone, all inner parts.
    monkeypatch.setattr(intermediate_block, "recomputed", lambda part, _, *given: part(*given))
    for one, other, kept in zip(*recomputed, arrays(False), strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * scale)
        np.testing.assert_allclose(one, kept, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_recomputation_saves_memory(jit_compile, monkeypatch):
    """Were the second pass merged with the first by the compiler, nothing would be saved."""
    config = tiny_config(
        block_pattern="(AI)*4", hidden_size=64, intermediate_size=256, max_position_embeddings=64
    )
    # XLA's memory is counted in powers of two: with 78 rows its step needs some 108 or 152 MiB.
    batch = {name: tf.constant(value) for name, value in inputs(config, 78, 64).items()}

    def added_bytes(recompute):
        encoder = Encoder(config, seed=1, recompute=recompute)
        step = tf.function(gradient_step(encoder, batch), jit_compile=jit_compile)
        step()
        # Tensors of earlier tests in this process count as in use until Python frees them: free
        # them now, since what is freed within the step would hide as much of what it adds.
        gc.collect()
        tf.config.experimental.reset_memory_stats("CPU:0")
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        step()
        return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before

    activations_recomputed, inner_parts_recomputed = added_bytes(False), added_bytes(True)
    monkeypatch.setattr(intermediate_block, "recomputed", lambda part, _, *given: part(*given))
    everything_kept = added_bytes(False)
    assert inner_parts_recomputed < 0.6 * everything_kept
    if jit_compile:  # Without XLA the difference is smaller and depends on the order of operations.
        assert activations_recomputed < 0.8 * everything_kept


def test_the_type_of_its_computation_outlives_the_config_of_keras():
    encoder = Encoder(tiny_config(), dtype="mixed_bfloat16")
    twin = Encoder.from_config(encoder.get_config())
    assert twin.dtype_policy.name == encoder.dtype_policy.name == "mixed_bfloat16"
