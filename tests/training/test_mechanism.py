"""The two synthetic corpora: what rows hold, bits by their definition, and that encoders learn."""

import math

import numpy as np
import pytest

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.reporting import mechanism as reported
from undivided_tf.training import mechanism, synthetic_corpora
from undivided_tf.training.config import MechanismConfig

MASK, CLS, SEP = synthetic_corpora.MASK, synthetic_corpora.CLS, synthetic_corpora.SEP


def small(workdir="", **changes):
    encoder = EncoderConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=32, position_type="rotary",
        query_key_norm=True, norm_first=True, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    values = {
        "patterns": ("(AI)*2", "A*2"), "num_facts": (8, 16), "num_values": 4, "num_symbols": 8,
        "num_copied": 3, "num_copying_steps": 200, "eval_every_steps": 100, "train_batch_size": 16,
        "learning_rates": (0.01, 0.03), "num_seeds": 2, "exposures": 400,
    }  # fmt: skip
    return MechanismConfig(workdir=str(workdir), encoder=encoder, **{**values, **changes})


def test_each_fact_has_a_key_of_its_own_and_hides_its_value():
    config = small()
    batch = synthetic_corpora.facts(config, 100, seed=3)
    rows = batch["token_ids"]
    assert rows.shape == (100, 6) and len({tuple(row[1:4]) for row in rows}) == 100
    assert (rows[:, 0] == CLS).all() and (rows[:, 4] == MASK).all() and (rows[:, 5] == SEP).all()
    assert (batch["masked_positions"] == 4).all()
    values = batch["masked_ids"] - 5 - config.num_symbols
    assert values.min() == 0 and values.max() == config.num_values - 1
    assert rows[:, 1:4].min() >= 5 and rows[:, 1:4].max() < 5 + config.num_symbols
    for name, value in synthetic_corpora.facts(config, 100, seed=3).items():
        assert np.array_equal(value, batch[name])
    assert not np.array_equal(synthetic_corpora.facts(config, 100, seed=4)["masked_ids"], values)


def test_every_masked_value_stands_as_far_before_it_in_the_context():
    config = small(num_copied=5)
    batch = synthetic_corpora.sequences(config, 50, np.random.default_rng(0))
    rows, places = batch["token_ids"], batch["masked_positions"]
    assert rows.shape == (50, 13) and places.shape == (50, 5)
    assert (rows[:, [0, 6, 12]] == [CLS, SEP, SEP]).all()
    assert (np.take_along_axis(rows, places, 1) == MASK).all()
    assert np.array_equal(np.take_along_axis(rows, places - 6, 1), batch["masked_ids"])
    values = batch["masked_ids"] - 5 - config.num_symbols
    assert values.min() == 0 and values.max() == config.num_values - 1


@pytest.mark.parametrize(
    ("loss", "bits"), [(0.0, 30.0), (math.log(8), 0.0), (9.0, 0.0), (math.log(2), 20.0)]
)
def test_bits_follow_their_definition(loss, bits):
    """Ten facts of eight values hold 30 bits; a loss of log 2 leaves one bit of each unknown."""
    assert mechanism.bits_stored(10, 8, loss) == pytest.approx(bits, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_facts": (600,)}, "num_facts 600 are more than the 512 keys"),
        ({"learning_rates": (0.1, 0.01)}, "learning_rates must list increasing numbers"),
        ({"patterns": ("AA", "A*2")}, "two patterns of AA, A\\*2 spell the same blocks"),
    ],
)
def test_corpora_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)


@pytest.mark.slow
@pytest.mark.long
def test_encoders_learn_both_corpora_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    config, learn_facts, learnt = small(tmp_path / "run"), mechanism.learn_facts, []

    def stop(*arguments):
        learnt.append(learn_facts(*arguments))
        if len(learnt) == 3:
            raise KeyboardInterrupt
        return learnt[-1]

    with monkeypatch.context() as patch:
        patch.setattr(mechanism, "learn_facts", stop)
        with pytest.raises(KeyboardInterrupt):
            mechanism.run_mechanism(config)
    result = mechanism.run_mechanism(config)
    whole, none = result["encoders"]
    assert (whole["pattern"], none["pattern"]) == ("(AI)*2", "A*2")
    assert whole["block_parameters"] > none["block_parameters"]
    assert len(whole["runs"]) == 2 * 2 * 3
    few = whole["facts"][0]
    assert np.mean(few["bits"]) > 0.9 * 8 * result["bits_per_fact"]  # So few fit in anything.
    assert few["seeds"] == [config.seed, config.seed + 1]
    curve = whole["copying"]["curve"]
    assert [point["step"] for point in curve] == [100, 200] and curve[-1]["loss"] < math.log(4)
    assert len(list((tmp_path / "run").rglob("AIAI_*.json"))) == len(whole["runs"])
    again = mechanism.run_mechanism(config.replace(workdir=str(tmp_path / "again")))
    assert again["encoders"][1]["facts"] == none["facts"]
    reported.corpora(result["encoders"], tmp_path / "figure.svg")
    assert "A*2" in (tmp_path / "figure.svg").read_text()
