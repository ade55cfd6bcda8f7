"""Rotary positions and query-key norm, against closed forms and a second implementation."""

import numpy as np
import pytest
from conftest import tiny_config

from undivided_tf.errors import InputError
from undivided_tf.layers.attention_block import AttentionBlock
from undivided_tf.layers.rotary import rotary_angles, rotate
from undivided_tf.models.encoder import Encoder


def by_complex_numbers(vectors, base):
    """Rotation of (places, width): pairs as complex numbers, times e to the i angle."""
    places, width = vectors.shape
    speeds = np.array([base ** (-2 * pair / width) for pair in range(width // 2)])
    turned = vectors[:, : width // 2] + 1j * vectors[:, width // 2 :]
    turned = turned * np.exp(1j * np.outer(np.arange(places), speeds))
    return np.concatenate([turned.real, turned.imag], axis=1)


@pytest.mark.parametrize("base", [100.0, 10000.0])
def test_rotation_equals_complex_multiplication(base):
    vectors = np.random.default_rng(0).normal(size=(2, 7, 3, 6)).astype("float32")
    found = rotate(vectors, rotary_angles(np.arange(7)[None], 6, base))
    for row, head in np.ndindex(2, 3):
        expected = by_complex_numbers(vectors[row, :, head].astype(float), base)
        np.testing.assert_allclose(found[row, :, head], expected, atol=1e-5)


@pytest.mark.parametrize("shift", [1, 40, 400])
def test_rotary_scores_depend_on_the_distance_alone(shift):
    random = np.random.default_rng(1)
    query, key = random.normal(size=(2, 1, 9, 1, 8)).astype("float32")
    scores = []
    for first in (0, shift):
        angles = rotary_angles(first + np.arange(9)[None], 8, 10000.0)
        turned = (np.asarray(rotate(vectors, angles))[0, :, 0] for vectors in (query, key))
        scores.append(np.matmul(*(m if i == 0 else m.T for i, m in enumerate(turned))))
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-4)
    assert not np.allclose(scores[0], query[0, :, 0] @ key[0, :, 0].T, atol=0.1)


def test_angles_are_float32_where_layers_compute_in_bfloat16():
    """In bfloat16 places from 256 on would be rounded to even ones."""
    cosines, sines = rotary_angles(np.array([[300, 301]]), 4, 10000.0)
    assert cosines.dtype == sines.dtype == "float32"
    np.testing.assert_allclose(cosines[0, :, 0], np.cos([300.0, 301.0]), atol=1e-5)


@pytest.mark.parametrize("rotary_base", [None, 100.0])
@pytest.mark.parametrize("query_key_norm", [False, True])
def test_attention_with_options_equals_numpy(rotary_base, query_key_norm):
    block = AttentionBlock(
        2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        rotary_base=rotary_base, query_key_norm=query_key_norm, seed=1,
    )  # fmt: skip
    block.build((None, None, 8))
    random = np.random.default_rng(2)
    for weight in block.weights:
        weight.assign(random.normal(size=weight.shape))
    hidden = random.normal(size=(2, 5, 8)).astype("float32")
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    query, key = (
        np.reshape(np.asarray(dense(hidden), float), (2, 5, 2, 4))
        for dense in (block.query, block.key)
    )
    if query_key_norm:
        query, key = (
            vectors / np.sqrt((vectors**2).mean(-1, keepdims=True)) * np.asarray(norm.scale)
            for vectors, norm in ((query, block.query_norm), (key, block.key_norm))
        )
    found = np.asarray(block.probabilities(hidden, mask))
    for row, head in np.ndindex(2, 2):
        q, k = query[row, :, head], key[row, :, head]
        if rotary_base:
            q, k = by_complex_numbers(q, rotary_base), by_complex_numbers(k, rotary_base)
        weights = np.exp(q @ k.T / np.sqrt(4)) * mask[row]
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(found[row, head], weights, atol=1e-5)


def test_query_key_norm_bounds_the_scores():
    """With scales of one, queries and keys of d features have the norm of the root of d."""
    block = AttentionBlock(2, query_key_norm=True, seed=1)
    block.build((None, None, 8))
    hidden = 1000 * np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    weights = np.asarray(block.probabilities(hidden, np.ones((1, 6))), float)
    scores = np.log(weights)
    assert np.ptp(scores, axis=-1).max() <= 2 * np.sqrt(4) + 1e-5
    assert {w.path for w in block.weights if "_norm/scale" in w.path} == {
        f"{block.name}/query_norm/scale", f"{block.name}/key_norm/scale",
    }  # fmt: skip


def test_a_rotary_encoder_knows_the_order_without_a_table_of_positions():
    """The other encoder, whose table is zero, sees a bag of tokens."""
    ids = np.array([[2, 5, 6, 7, 3], [2, 6, 5, 7, 3]])
    given = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    changes = {}
    for position_type in ("absolute", "rotary"):
        encoder = Encoder(tiny_config(position_type=position_type), seed=1)
        tables = [weight for weight in encoder.weights if "position" in weight.path]
        assert len(tables) == (position_type == "absolute")
        for weight in encoder.weights:
            if weight.name == "kernel":
                weight.assign(50.0 * weight)
        for table in tables:
            table.assign(0.0 * table)
        straight, swapped = np.asarray(encoder(given)["sequence_output"])
        changes[position_type] = np.abs(straight[0] - swapped[0]).max()
    assert changes["absolute"] < 1e-5
    assert changes["rotary"] > 1e-2


def test_the_layer_goes_to_its_config_and_back():
    layer = AttentionBlock(2, rotary_base=100.0, query_key_norm=True, seed=1)
    twin = AttentionBlock.from_config(layer.get_config())
    assert (twin.rotary_base, twin.query_key_norm) == (100.0, True)
    hidden = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    mask, positions = np.ones((2, 5), "int32"), np.array([[0, 3, 3], [4, 1, 2]])
    expected = layer(hidden, mask, positions)
    np.testing.assert_array_equal(twin(hidden, mask, positions), expected)
    assert layer.compute_output_shape((2, 5, 8), (2, 5), (2, 3)) == expected.shape
    assert layer.compute_output_shape((2, 5, 8), (2, 5)) == (2, 5, 8)


@pytest.mark.parametrize("position_type", ["absolute", "rotary"])
def test_too_long_a_sequence_is_refused(position_type):
    config = tiny_config(position_type=position_type)
    ids = np.ones((1, config.max_position_embeddings + 1), "int32")
    with pytest.raises(InputError, match="sequences of 13 tokens.*max_position_embeddings is 12"):
        Encoder(config)({"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids})


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="hidden_size 6 / num_attention_heads 2 must be even"):
        tiny_config(position_type="rotary", hidden_size=6)
    with pytest.raises(InputError, match="rotary_base 100 is not used with position_type abs"):
        tiny_config(rotary_base=100.0)
    with pytest.raises(InputError, match="rotary_base must be above 0"):
        tiny_config(position_type="rotary", rotary_base=0.0)
