"""Surgery: what stays keeps its weights, and what claims to change nothing changes nothing."""

import numpy as np
import pytest
from conftest import tiny_config

from undivided_tf import surgery
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.training.weights import named_weights

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


def test_blocks_that_stay_keep_their_weights():
    encoder = trained()
    result, report = surgery.operate(encoder, "AAIA")
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


@pytest.mark.parametrize("norm_first", [False, True])
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
def test_new_attention_blocks_change_nothing(norm_first, pattern, origins):
    encoder = trained(norm_first=norm_first)
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
    """The damage is the sum of the values of the blocks that are gone; all calls are counted."""
    encoder, calls = trained(), []
    marks = {"block_00": 3.0, "block_01": 1.0, "block_02": 2.0}
    kernels = {np.asarray(b.output_dense.kernel).tobytes(): v for b, v in
               zip(encoder.blocks[1::2], marks.values(), strict=True)}  # fmt: skip

    def damage(other):
        calls.append(other.config.block_pattern)
        blocks = [b for b in other.blocks if hasattr(b, "intermediate_dense")]
        return 6 - sum(kernels[np.asarray(b.output_dense.kernel).tobytes()] for b in blocks)

    curve = surgery.cut_order(encoder, damage, greedy)
    names = ["", *(f"block_0{i}/intermediate" for i in (1, 2, 0))]
    assert curve == list(zip(names, [0, 1, 3, 6], strict=True))
    assert len(calls) == (1 + 3 + 2 + 1 if greedy else 1 + 3 + 2)


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
