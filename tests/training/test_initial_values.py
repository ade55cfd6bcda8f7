"""Initial values of pre-training: closed forms, and where heads look at first."""

import json

import numpy as np
import pytest
import toys
from conftest import tiny_config
from safetensors.numpy import load_file

from undivided_tf.data.corpus.counts import read_counts
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.training import initial_values, pretraining
from undivided_tf.training.config import PretrainingConfig


def fresh(encoder, seed=1, **options):
    """A model with the initial values of a run."""
    model = Pretrainer(Encoder(encoder, seed=seed))
    run = PretrainingConfig(encoder=encoder, seed=seed, **options)
    initial_values.set_initial_values(model, run)
    return model


def arrays(model):
    return {weight.path: np.asarray(weight) for weight in model.weights}


def test_defaults_change_nothing():
    config = tiny_config()
    plain = arrays(Pretrainer(Encoder(config, seed=1)))
    for path, value in arrays(fresh(config)).items():
        np.testing.assert_array_equal(value, plain[path], err_msg=path)


def test_sinusoids_have_the_deviation_of_the_table_and_turn_by_the_place():
    config = tiny_config(hidden_size=32, max_position_embeddings=64, initializer_range=0.02)
    table = initial_values.sinusoids(config)
    assert np.sqrt((table**2).mean()) == pytest.approx(0.02)
    pairs = table.reshape(64, 16, 2) / (0.02 * np.sqrt(2))
    np.testing.assert_allclose((pairs**2).sum(-1), 1)
    # The product of two places is a function of their distance alone.
    products = table @ table.T
    for distance in (1, 5):
        assert np.ptp(np.diagonal(products, distance)) < 1e-12
    np.testing.assert_allclose(pairs[:, 0, 1], np.cos(np.pi * np.arange(64)), atol=1e-9)
    slowest = np.pi * 100 ** (-15 / 16)
    np.testing.assert_allclose(pairs[:, 15, 0], np.sin(slowest * np.arange(64)), atol=1e-9)
    np.testing.assert_allclose(
        fresh(config, position_initializer="sinusoid").encoder.embeddings.position_embeddings(
            np.arange(64)
        ),
        table,
        atol=1e-7,
    )


@pytest.mark.parametrize(("hidden_size", "heads"), [(32, 1), (32, 2), (48, 4), (30, 3), (15, 5)])
def test_turned_sinusoids_are_those_of_the_place_looked_for(hidden_size, heads):
    config = tiny_config(
        hidden_size=hidden_size, num_attention_heads=heads, max_position_embeddings=20
    )
    table = initial_values.sinusoids(config)
    query, key = (table @ kernel for kernel in initial_values.neighbour_projections(config))
    offsets = initial_values.neighbour_offsets(heads)
    assert offsets == [-1, 1, -2, 2, -3][:heads]
    for head, offset in enumerate(offsets):
        columns = slice(head * config.head_width, (head + 1) * config.head_width)
        for place in range(max(0, -offset), 20 - max(0, offset)):
            found, expected = query[place, columns], key[place + offset, columns]
            np.testing.assert_allclose(found, expected, atol=1e-12)
        scores = query[:, columns] @ key[:, columns].T / np.sqrt(config.head_width)
        # Of one strength whatever the width: 13.52 times the square of a feature's deviation.
        expected = 13.52 * config.initializer_range**2
        np.testing.assert_allclose(np.diagonal(scores, offset), expected)
        assert np.diagonal(scores, offset).min() >= scores.max() - 1e-12


@pytest.mark.parametrize("norm_first", [False, True])
def test_heads_look_at_the_previous_and_the_next_piece_of_a_random_text(norm_first):
    config = tiny_config(
        vocab_size=2000, hidden_size=128, max_position_embeddings=64, norm_first=norm_first,
        block_pattern="AI",
    )  # fmt: skip
    ids = np.random.default_rng(0).integers(5, 2000, (8, 64), dtype="int32")
    for initializer, least in (("neighbours", 0.85), ("sinusoid", 0.0)):
        encoder = fresh(config, position_initializer=initializer).encoder
        hidden = encoder.embeddings(ids, 0 * ids)
        found = np.asarray(encoder.blocks[0].probabilities(hidden, 0 * ids + 1))
        for head, offset in ((0, -1), (1, 1)):
            inside = np.arange(1, 63)
            peaks = found[:, head, inside].argmax(-1) == inside + offset
            weight = np.diagonal(found[:, head], offset, axis1=1, axis2=2).mean()
            if least:
                assert peaks.mean() > least and weight > 0.45
            else:
                assert peaks.mean() < 0.1 and weight < 0.05


@pytest.mark.parametrize("initializer", ["sinusoid", "neighbours"])
def test_patterns_of_one_seed_share_all_initial_values(initializer):
    options = {"position_initializer": initializer, "zero_residual_outputs": True}
    first, second = (
        arrays(fresh(tiny_config(block_pattern=pattern), seed=3, **options))
        for pattern in ("(AI)*2", "A*2")
    )
    assert set(second) < set(first)
    for path, value in second.items():
        np.testing.assert_array_equal(value, first[path], err_msg=path)
    plain = arrays(Pretrainer(Encoder(tiny_config(block_pattern="A*2"), seed=3)))
    changed = {path for path, value in plain.items() if not np.array_equal(value, second[path])}
    outputs = {f"encoder/block_0{i}_attention/output/kernel" for i in range(2)}
    expected = outputs | {"encoder/embeddings/position_embeddings/embeddings"}
    if initializer == "neighbours":
        expected |= {f"encoder/block_00_attention/{part}/kernel" for part in ("query", "key")}
    assert changed == expected


@pytest.mark.parametrize("share_intermediate", [False, True])
def test_blocks_that_begin_at_zero_pass_their_input_on(share_intermediate):
    config = tiny_config(
        block_pattern="AIAI", norm_first=True, share_intermediate=share_intermediate,
        hidden_dropout_prob=0.0,
    )  # fmt: skip
    encoder = fresh(config, zero_residual_outputs=True).encoder
    ids = np.array([[2, 5, 6, 3]])
    given = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    taps = encoder(given, return_taps=True)["taps"]
    for tap in taps.values():
        np.testing.assert_array_equal(tap, taps["embeddings"])


def test_the_first_loss_with_the_unigram_bias_is_that_of_guessing_by_frequency(toy, tmp_path):
    config = toys.pretraining_config(
        tmp_path / "run", toy, output_bias_initializer="unigram", masked_lm_prob=0.3
    )
    trainer = pretraining.Trainer(config)
    counts = read_counts(toy).unigrams
    bias = np.asarray(trainer.model.masked_lm_head.output_bias)
    assert np.exp(bias).sum() == pytest.approx(1, abs=1e-5)
    special = trainer.tokenizer.is_special
    np.testing.assert_allclose(
        np.exp(bias[~special]), (counts[~special] + 1) / (counts.sum() + len(counts)), rtol=1e-5
    )
    np.testing.assert_allclose(np.exp(bias[special]), 1 / (counts.sum() + len(counts)), rtol=1e-5)
    # The rest of the logits is small at first.
    (scores,) = trainer.curriculum.validation_batches(trainer.strategy).take(1)
    masked = np.asarray(scores["masked_ids"])[np.asarray(scores["masked_weights"]) > 0]
    guess = -bias[masked].mean()
    assert trainer.evaluate()["loss"] == pytest.approx(guess, abs=0.15)
    assert guess < np.log(len(counts)) - 0.3


def test_runs_begin_with_these_values_and_resume_without_them(toy, tmp_path):
    options = {"position_initializer": "neighbours", "zero_residual_outputs": True}
    config = toys.pretraining_config(tmp_path / "run", toy, num_train_steps=6, **options)
    whole = pretraining.pretrain(config)
    other = toys.pretraining_config(tmp_path / "plain", toy, num_train_steps=6)
    assert pretraining.pretrain(other)["validation"] != whole["validation"]
    (*_, last) = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))
    trained = load_file(last / "weights.safetensors")
    trainer = pretraining.Trainer(config)
    trainer.restore()
    for path, value in arrays(trainer.model).items():
        np.testing.assert_array_equal(value, trained[path], err_msg=path)


def test_a_run_with_rotary_positions_and_query_key_norm_ends_and_loads(toy, tmp_path):
    encoder = toys.encoder_config(position_type="rotary", query_key_norm=True)
    config = toys.pretraining_config(tmp_path / "run", toy, encoder, num_train_steps=6)
    results = pretraining.pretrain(config)
    assert np.isfinite(results["validation"]["loss"])
    (*_, last) = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))
    assert json.loads((last / "encoder.json").read_text())["position_type"] == "rotary"
    names = set(load_file(last / "weights.safetensors"))
    assert "encoder/block_00_attention/query_norm/scale" in names
    assert not [name for name in names if "position" in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"position_initializer": "neighbours", "encoder": tiny_config(position_type="rotary")},
            "position_initializer neighbours is for position embeddings, but position_type rotary",
        ),
        (
            {"position_initializer": "neighbours", "encoder": tiny_config(block_pattern="II")},
            r"neighbours is for the first attention block, but I\*2 has none",
        ),
        (
            {"output_bias_initializer": "unigram", "init_checkpoint": "there"},
            "output_bias_initializer unigram is for random weights, but init_checkpoint gives",
        ),
        (
            {"zero_residual_outputs": True, "init_checkpoint": "there"},
            "zero_residual_outputs True is for random weights",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        PretrainingConfig(**changes)


def test_heads_of_one_feature_cannot_look_at_neighbours():
    config = tiny_config(hidden_size=8, num_attention_heads=8)
    with pytest.raises(InputError, match="hidden_size 8 / num_attention_heads 8 is 1"):
        fresh(config, position_initializer="neighbours")
