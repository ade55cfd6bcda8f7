"""Compression end to end on a tiny encoder, what stops it, and how it goes on."""

import dataclasses
import json

import numpy as np
import pytest
import toys

from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.reporting import compress as reported
from undivided_tf.study import compress
from undivided_tf.study.config import CompressConfig
from undivided_tf.surgery import healing
from undivided_tf.surgery.config import HealingConfig

COSTS = [
    {"pattern": "(AI)*2", "parameters": 100, "flops": 1000, "latency": 2.0},
    {"pattern": "A*2I", "parameters": 80, "flops": 500, "latency": 1.5},
    {"pattern": "A*2", "parameters": 60, "flops": 300, "latency": 1.1},
]


@pytest.fixture(scope="module")
def place(toy, tmp_path_factory):
    """An encoder of the records' vocabulary, and a task."""
    folder = tmp_path_factory.mktemp("compress")
    tokenizer = records.read_tokenizer(toy)
    config = toys.encoder_config(
        vocab_size=tokenizer.vocab_size, vocabulary_hash=tokenizer.vocabulary_hash,
        block_pattern="(AI)*2", initializer_range=0.3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    (folder / "whole").mkdir()
    model = Pretrainer(Encoder(config, seed=5))
    checkpoints.save_model(folder / "whole", model.weights, config, tokenizer)
    toys.write_task(folder / "animals")
    return folder


def config_of(place, toy, workdir, **changes):
    heal = HealingConfig(records_dir=str(toy), train_pieces=400, train_batch_size=8)
    values = {
        "input": str(place / "whole"), "budget": "flops:0.85", "latency_rounds": 2,
        "zero_shot": (f"task:{place / 'animals'}", f"text:{place / 'animals'}"),
        "max_seq_length": toys.LENGTH, "healing": dataclasses.replace(heal, max_eval_rows=8),
    }  # fmt: skip
    return CompressConfig(workdir=str(workdir), **{**values, **changes})


@pytest.mark.parametrize(
    ("budget", "number"),
    [("parameters:0.8", 1), ("parameters:0.79", 2), ("flops:0.3", 2), ("latency:0.9", 1)],
)
def test_as_few_blocks_are_cut_as_the_budget_takes(budget, number):
    assert compress.choose(COSTS, CompressConfig(budget=budget)) == number


def test_a_budget_that_no_cut_meets_says_what_the_last_one_reaches():
    message = "all 2 intermediate blocks cut leave 0.55 of the latency: give a share of at least"
    with pytest.raises(InputError, match=message):
        compress.choose(COSTS, CompressConfig(budget="latency:0.5"))


def test_it_cuts_heals_measures_and_exports_and_goes_on_where_it_stopped(
    place, toy, tmp_path, monkeypatch
):
    config = config_of(place, toy, tmp_path / "small")
    with monkeypatch.context() as patch:
        patch.setattr(healing, "heal", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            compress.run_compress(config)
    order = (tmp_path / "small" / "order.json").stat().st_mtime_ns
    found = compress.run_compress(config, "a command")
    assert (tmp_path / "small" / "order.json").stat().st_mtime_ns == order
    whole, *_, last = (found["costs"][number] for number in (0, found["chosen"]))
    assert last["flops"] <= 0.85 * whole["flops"] and found["chosen"] == 1
    probe, text = found["quality"]
    assert set(probe) == {"measure", "words", "whole", "cut", "healed"}
    encoder, _ = checkpoints.load_encoder(tmp_path / "small" / "healed" / "model")
    assert encoder.config.block_pattern == last["pattern"]
    assert text["whole"] > 0 and text["cut"] != text["whole"] != text["healed"]
    exported = tmp_path / "small" / "export" / "saved_model"
    assert found["exports"]["saved_model"]["difference"] <= compress.TOLERANCE
    assert list(found["exports"]["saved_model"]["measures"]) == [probe["words"]]
    card = (exported / "README.md").read_text()
    assert "## Compression" in card and f"{probe['healed']:.4f}" in card
    table = reported.table(found)
    assert "(AI)*2 -> " in table and "1 of 2 intermediate blocks cut" in table
    reported.quality_over_latency(found, tmp_path / "figure.svg")
    assert "healed" in (tmp_path / "figure.svg").read_text()
    again = compress.run_compress(config, "a command")
    assert again == json.loads((tmp_path / "small" / "results.json").read_text()) == found


def test_nothing_is_exported_that_does_too_much_damage(place, toy, tmp_path, monkeypatch):
    config = config_of(place, toy, tmp_path / "bad", max_damage=0.4, healing=HealingConfig())
    measured = [{"measure": "text", "words": "loss", "whole": 1.0, "cut": 1.5}]
    monkeypatch.setattr(compress, "_quality", lambda *_: measured)
    found = compress.run_compress(config)
    assert "exports" not in found and not (tmp_path / "bad" / "export").exists()
    assert "loss: damage rises by 0.5000, above max_damage 0.4" in compress.excess(found)
    assert "loss: whole 1.0000, cut 1.5000" in reported.table(found)
    for bound in (0.0, 0.6):
        found["config"]["max_damage"] = bound
        assert not compress.excess(found)


def test_an_export_that_differs_from_keras_is_refused(place, toy, tmp_path, monkeypatch):
    config = config_of(place, toy, tmp_path / "other", healing=HealingConfig())

    def noise(directory, source, length):
        return lambda texts: np.random.default_rng(0).normal(size=(len(texts), 8))

    monkeypatch.setitem(compress._READERS, "saved_model", noise)
    with pytest.raises(InputError, match="saved_model: measures through the export differ"):
        compress.run_compress(config)
    assert not (tmp_path / "other" / "export" / "saved_model").exists()
