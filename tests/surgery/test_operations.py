"""Blocks that stay keep their weights, and neutral operations do not change the outputs."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_config

from undivided_tf import surgery
from undivided_tf.accounting import count_parameters
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.weights import named_weights
from undivided_tf.pattern import BlockPattern
from undivided_tf.surgery import order

IDS = np.arange(20, dtype="int32").reshape(2, 10)
BATCH = {"token_ids": IDS, "segment_ids": IDS % 2, "padding_mask": np.int32(IDS % 10 < 8)}


def trained(**changes):
    """An encoder whose weights, LayerNorm included, are all random."""
    encoder = Encoder(tiny_config(block_pattern="(AI)*3", **changes), seed=1)
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(np.asarray(weight) + random.normal(0, 0.3, weight.shape))
    return encoder


def sequence(encoder):
    return np.asarray(encoder(BATCH)["sequence_output"])


def arrays(encoder):
    return {name: np.asarray(v) for name, v in named_weights(encoder.weights).items()}


@pytest.mark.parametrize(
    "options", [{}, {"position_type": "rotary", "query_key_norm": True}], ids=str
)
def test_blocks_that_stay_keep_their_weights(options):
    encoder = trained(**options)
    result, report = surgery.operate(encoder, "AAIA", fold_layer_norms=False)
    before, after = arrays(encoder), arrays(result)
    assert set(after) < set(before)
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert report.kept == {tap: tap for tap in result.config.pattern.tap_names[1:]}
    assert report.dropped == ["block_00/intermediate", "block_02/intermediate"]
    assert not report.new
    # The layers that stay, called by hand, give the same.
    hidden = encoder.embeddings(BATCH["token_ids"], BATCH["segment_ids"])
    for place in (0, 2, 3, 4):
        layer = encoder.blocks[place]
        given = (hidden,) if place == 3 else (hidden, BATCH["padding_mask"])
        hidden = layer(*given)
    np.testing.assert_allclose(sequence(result), hidden, atol=1e-6)


NAMES = ["block_00/intermediate", "block_01/attention", "block_01/intermediate"]


def without_updates(encoder, names):
    """The encoder with blocks that only normalise."""
    for block, layer in zip(encoder.config.pattern, encoder.blocks, strict=True):
        if block.name in names:
            layer.output_dense.set_weights([0 * w for w in layer.output_dense.get_weights()])
    return encoder


def test_layer_norms_of_cut_blocks_are_folded_exactly_if_scales_are_uniform():
    encoder = trained()
    for scope in ("block_00_attention", *(name.replace("/", "_") for name in NAMES[:2])):
        norm = encoder.get_layer(scope).layer_norm
        norm.gamma.assign(0 * norm.gamma + 0.6)
        norm.beta.assign(0 * norm.beta)
    result, _ = surgery.cut(encoder, NAMES)
    expected = sequence(without_updates(encoder, NAMES))
    np.testing.assert_allclose(sequence(result), expected, atol=1e-5)
    plain, _ = surgery.cut(encoder, NAMES, fold_layer_norms=False)
    assert np.abs(sequence(plain) - expected).max() > 0.01


def test_folded_layer_norms_follow_their_definition():
    encoder = trained()
    (gamma, beta), (next_gamma, next_beta) = (
        [np.float64(v) for v in encoder.blocks[place].layer_norm.get_weights()] for place in (2, 3)
    )
    result, _ = surgery.cut(encoder, ["block_01/intermediate"])
    # Mean and variance over features of many tokens whose features are independent.
    drawn = np.random.default_rng(0).normal(size=(200_000, 8)) * gamma + beta
    mean, variance = drawn.mean(), drawn.var()
    found = result.blocks[2].layer_norm.get_weights()
    scale = next_gamma / np.sqrt(variance)
    np.testing.assert_allclose(found[0], scale * gamma, rtol=5e-3)
    np.testing.assert_allclose(found[1], scale * (beta - mean) + next_beta, atol=5e-3)
    pre_norm, _ = surgery.cut(trained(norm_first=True), ["block_01/intermediate"])
    np.testing.assert_array_equal(
        pre_norm.blocks[2].layer_norm.gamma, trained(norm_first=True).blocks[2].layer_norm.gamma
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"norm_first": True}, {"position_type": "rotary", "query_key_norm": True}],
    ids=str,
)
@pytest.mark.parametrize(
    ("pattern", "origins"),
    [
        ("(AI)*3AA", None),
        ("AAIAIAI", ["", *(f"block_0{i // 2}/{k}" for i, k in
                           enumerate(["attention", "intermediate"] * 3))]),
        ("AIAAIAI", ["block_00/attention", "block_00/intermediate", "", "block_01/attention",
                     "block_01/intermediate", "block_02/attention", "block_02/intermediate"]),
    ],
)  # fmt: skip
def test_new_attention_blocks_change_nothing(options, pattern, origins):
    encoder = trained(**options)
    result, report = surgery.operate(encoder, pattern, origins)
    assert len(report.new) == len(result.config.pattern) - 6 and not report.dropped
    np.testing.assert_allclose(sequence(result), sequence(encoder), atol=2e-5)


@pytest.mark.parametrize("width", [17, 32, 50])
def test_widening_changes_nothing(width):
    encoder = trained()
    result, report = surgery.operate(encoder, "(AI)*3", intermediate_size=width)
    assert report.intermediate_size == (16, width)
    assert result.count_params() == report.parameters[1]
    np.testing.assert_allclose(sequence(result), sequence(encoder), atol=2e-5)


def test_narrowing_keeps_the_neurons_that_weigh_most():
    encoder = trained()
    dead = [0, 3, 7]
    for layer in encoder.blocks[1::2]:
        kernel = np.asarray(layer.output_dense.kernel).copy()
        kernel[dead] = 0
        layer.output_dense.kernel.assign(kernel)
    result, _ = surgery.operate(encoder, "(AI)*3", intermediate_size=13)
    np.testing.assert_allclose(sequence(result), sequence(encoder), atol=1e-5)


def test_cutting_names_the_blocks_and_drops_whole_encoder_blocks():
    encoder = trained()
    result, report = surgery.cut(encoder, ["block_01/attention", "block_01/intermediate"])
    assert result.config.block_pattern == "(AI)*2"
    assert report.kept["block_01/attention"] == "block_02/attention"
    np.testing.assert_array_equal(result.blocks[2].query.kernel, encoder.blocks[4].query.kernel)
    assert report.parameters[0] - report.parameters[1] == 2 * 8 + 4 * 72 + 16 * 17 + 8 + 16


@pytest.mark.parametrize("greedy", [True, False])
def test_order_follows_the_damage(greedy):
    """Two blocks that stand in for each other: alone each is cheap, together they are not."""
    calls, marks = [], {"block_00": 3.0, "block_01": 1.0, "block_02": 2.0}

    def damage(gone):
        calls.append(tuple(gone))
        both = {"block_01/intermediate", "block_02/intermediate"} <= set(gone)
        return sum(marks[name.split("/")[0]] for name in gone) + 5 * both

    order = surgery.cut_order(BlockPattern.parse("(AI)*3"), damage, greedy)
    numbers, damages = ((1, 0, 2), [0, 1, 4, 11]) if greedy else ((1, 2, 0), [0, 1, 8, 11])
    assert order.blocks == [f"block_0{i}/intermediate" for i in numbers]
    assert order.damages == damages
    assert order.single == {f"{name}/intermediate": value for name, value in marks.items()}
    assert len(calls) == (1 + 3 + 2 + 1 if greedy else 1 + 3 + 2)


def test_blocks_chosen_by_their_place():
    pattern = BlockPattern.parse("AIAAIAIAI")
    names = order.intermediate_blocks(pattern)
    assert names == [f"block_0{i}/intermediate" for i in (0, 2, 3, 4)]
    assert order.by_place(pattern, "first", 1) == names[:1]
    assert order.by_place(pattern, "last", 3) == names[1:]
    assert order.by_place(pattern, "every", 2) == names[::2]
    with pytest.raises(InputError, match="has 4 intermediate blocks, asked for 5"):
        order.by_place(pattern, "last", 5)


# === Sharing ===


@pytest.mark.parametrize("norm_first", [False, True])
def test_shared_blocks_have_one_set_of_weights_and_norms_of_their_own(norm_first):
    encoder = trained(norm_first=norm_first)
    result, report = surgery.operate(encoder, "(AI)*3", share_intermediate="block_01/intermediate")
    assert result.config.share_intermediate and report.shared == "block_01/intermediate"
    assert result.count_params() == count_parameters(result.config) == report.parameters[1]
    dense = 2 * 8 * 16 + 16 + 8
    assert report.parameters[0] - report.parameters[1] == 2 * dense
    # The same, made by giving every block of the old one the weights of its second.
    donor = encoder.blocks[3]
    for layer in encoder.blocks[1::2]:
        layer.intermediate_dense.set_weights(donor.intermediate_dense.get_weights())
        layer.output_dense.set_weights(donor.output_dense.get_weights())
    np.testing.assert_allclose(sequence(result), sequence(encoder), atol=1e-6)
    # Cutting the block that holds them leaves them with the others.
    names = ["block_00/intermediate"]
    np.testing.assert_allclose(
        sequence(surgery.cut(result, names)[0]), sequence(surgery.cut(encoder, names)[0]), atol=1e-6
    )


def test_sharing_takes_the_mean_of_what_stays_and_may_widen():
    encoder = trained()
    before = arrays(encoder)
    result, _ = surgery.cut(
        encoder, ["block_00/intermediate"], intermediate_size=32, share_intermediate="mean"
    )
    (kernel,) = (v for name, v in arrays(result).items() if name.endswith("output/kernel")
                 and "intermediate" in name)  # fmt: skip
    old = [before[f"encoder/block_0{i}_intermediate/output/kernel"] for i in (1, 2)]
    np.testing.assert_allclose(kernel[:16] + kernel[16:], np.mean(old, axis=0), atol=1e-6)
    with pytest.raises(InputError, match="give mean or an intermediate block of"):
        surgery.operate(encoder, "(AI)*3", share_intermediate="block_01/attention")


def test_shared_weights_get_the_gradients_of_all_places():
    config = tiny_config(block_pattern="(AI)*2", share_intermediate=True)
    for recompute in (False, True):
        encoder = Encoder(config, seed=1, recompute=recompute)
        twin = Encoder(config.replace(share_intermediate=False), seed=1)
        for name, variable in named_weights(twin.weights).items():
            shared = name.replace("block_01_intermediate", "block_00_intermediate")
            named = named_weights(encoder.weights)
            variable.assign(np.asarray(named[name if name in named else shared]))

        def kernel_gradients(model, training=recompute):
            kernels = [w.value for w in model.trainable_weights if "intermediate/kernel" in w.path]
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(BATCH, training=training)["sequence_output"][..., 0])
            return [np.asarray(g) for g in tape.gradient(loss, kernels)]

        if recompute:  # With dropout the twin has other masks: only that all is there.
            assert all(np.isfinite(g).all() and g.any() for g in kernel_gradients(encoder))
            continue
        (mine,), theirs = kernel_gradients(encoder), kernel_gradients(twin)
        assert len(theirs) == 2
        np.testing.assert_allclose(mine, sum(theirs), atol=1e-5)


def test_whole_encoder_blocks_go_by_number():
    pattern = trained().config.pattern
    assert surgery.encoder_blocks(pattern, [1]) == ["block_01/attention", "block_01/intermediate"]
    with pytest.raises(InputError, match="has the encoder blocks 0 to 2, not 3"):
        surgery.encoder_blocks(pattern, [3])


@pytest.mark.parametrize(
    ("pattern", "origins", "message"),
    [
        ("AII", None, "block_01/intermediate of AII? ?.* has no counterpart"),
        ("AI", ["block_00/attention"], "1 origins for the 2 blocks"),
        ("AI", ["block_00/attention", ""], "only attention blocks can be new"),
        ("AI", ["block_00/attention", "block_00/attention"], "cannot have the weights of"),
    ],
)
def test_operations_without_counterpart_are_refused(pattern, origins, message):
    with pytest.raises(InputError, match=message):
        surgery.operate(trained(), pattern, origins)
    with pytest.raises(InputError, match="half_layer_norms"):
        surgery.operate(trained(half_layer_norms=True), pattern)
    with pytest.raises(InputError, match="is no block of"):
        surgery.cut(trained(), ["block_09/attention"])
    with pytest.raises(InputError, match="no block of .* would be left"):
        surgery.cut(trained(), trained().config.pattern.tap_names[1:])
