"""The experiment on damage: its table and figures, and on toy data all of it."""

import json

import pytest
import toy_glue
import toys

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting import damage as damage_figures
from undivided_tf.study import damage
from undivided_tf.surgery.config import DamageConfig, SurgeryConfig
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import glue
from undivided_tf.training.config import FinetuningConfig, GlueConfig


def made_up():
    names = ["block_01/intermediate", "block_00/intermediate"]
    order = {
        "blocks": names, "damages": [0.0, 0.1, 0.4], "greedy": True,
        "single": {names[1]: 0.2, names[0]: 0.1},
    }  # fmt: skip

    def cell(number, pattern, after):
        task = {"before": 0.7 - number / 10, "primary": "accuracy", "constant": 0.5}
        return {
            "num_cut": number, "blocks": names[:number], "pattern": pattern,
            "parameters": 1000 - 100 * number, "forward_flops": 4_000_000 - 10**6 * number,
            "parameters_by_part": {"attention": 100, "intermediate": 200 - 100 * number},
            "sequence_length": 16,
            "latency": {"4": {"median": 2.0 - number / 2, "speedup": 1 / (1 - number / 4)}},
            "tasks": {"sst2": {**task, "after": after} if after else {"before": 0.5, "error": "x"}},
        }  # fmt: skip

    return {
        "kind": "damage", "command": "make it", "from": "(AI)*2", "order": order, "damage": "drift",
        "zero_shot": [
            {"measure": "similarity", "words": "1 - rho", "cuts": [0.1, 0.2, 0.4],
             "single": {names[1]: 0.3, names[0]: 0.2}},
            {"measure": "drift", "words": "1 - cosine", "cuts": [0.0, 0.15, 0.5],
             "single": {names[1]: 0.25, names[0]: 0.15}},
        ],
        "hardware": {"cpu": "a chip", "cores": 2, "device": "CPU"},
        "config": {
            "glue": {"tasks": ["sst2"]}, "latency_batch_sizes": [4], "max_probe_rows": 2000,
        },
        "cells": [cell(0, "(AI)*2", [0.9, 0.8]), cell(1, "AIA", [0.75]), cell(2, "A*2", [])],
    }  # fmt: skip


def test_table_and_figures(tmp_path):
    results = made_up()
    damage_figures.write_damage(results, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| 0 | `(AI)*2` |  | 1,000 (1.00×) | 4.00 M (1.00×) | 2.00 (1.00× as fast) |" in text
    assert "85.0, n 2 |" in text and "| 60.0 | 75.0 |" in text and "| 50.0 | failed |" in text
    assert "| 1 | block_01/intermediate | 0.1000 | 0.1000 |" in text and "`make it`" in text
    assert "| cut | Spearman | 1 - cosine |" in text
    assert "| block_00/intermediate | 0.7000 | 0.2500 |" in text
    assert "| 2, to block_00/intermediate | 0.6000 | 0.5000 |" in text
    for name in ("damage", "order", "zero_shot"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
    with pytest.raises(InputError, match="2 cut, sst2: x"):
        damage.failures(results)


def test_without_fine_tuning_only_costs_are_left(tmp_path):
    results = made_up()
    results["zero_shot"] = []
    for cell in results["cells"]:
        cell["tasks"] = {}
    damage_figures.write_damage(results, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "Spearman" not in text and "dev set" not in text and "Sequences of 16" in text
    assert not (tmp_path / "zero_shot.png").exists() and (tmp_path / "damage.png").exists()


def test_measures_name_a_task():
    config = DamageConfig(zero_shot=("similarity:glue/STS-B", "task:ud:TASK:x"), finetune=False)
    assert [m.task for m in config.zero_shot_measures] == ["glue/STS-B", "ud:TASK:x"]
    assert set(config.inputs()) >= {"zero_shot"} and "glue.data" not in config.inputs()
    for text in ("similarity", "cosine:sst2", "drift:"):
        with pytest.raises(InputError, match="zero_shot must list MEASURE:TASK"):
            DamageConfig(zero_shot=(text,))


def test_numbers_of_cuts_rise_from_none():
    for numbers in ((1, 2), (0, 2, 1), (0, 1, 1), ()):
        with pytest.raises(InputError, match="num_cut must"):
            DamageConfig(num_cut=numbers)


@pytest.mark.slow
def test_the_experiment_on_toy_data(tmp_path, monkeypatch):
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *sorted({*toys.FILLERS, *toy_glue.CLUES})))
    encoder = toys.encoder_for(tokenizer, block_pattern="(AI)*2")
    (tmp_path / "start").mkdir()
    checkpoints.save_model(tmp_path / "start", Encoder(encoder, seed=9).weights, encoder, tokenizer)
    folder = toy_glue.write_glue(tmp_path / "glue", ["sst2"])
    config = DamageConfig(
        workdir=str(tmp_path / "work"), input=str(tmp_path / "start"), num_cut=(0, 1, 2),
        latency_batch_sizes=(1, 4), latency_rounds=2,
        zero_shot=(f"drift:{folder}/SST-2", f"error:{folder}/SST-2"),
        order=SurgeryConfig(cut="importance", num_cut=1, importance="task", split="train",
                            task=f"{folder}/SST-2", max_seq_length=toys.LENGTH),
        glue=GlueConfig(data=folder, tasks=("sst2",), finetuning=FinetuningConfig(
            max_seq_length=toys.LENGTH, train_batch_size=8, num_train_epochs=1, num_runs=1,
            pooling="mean", save_models=False)),
    )  # fmt: skip
    with monkeypatch.context() as patch:  # A run that was interrupted goes on.
        patch.setattr(glue, "run_glue", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            damage.run_damage(config, "made by a test")
    results = damage.run_damage(config, "made by a test")
    damage.failures(results)
    names = {"block_00/intermediate", "block_01/intermediate"}
    for measure in results["zero_shot"]:
        assert set(measure["single"]) == names and len(measure["cuts"]) == 3
        assert measure["cuts"][0] == pytest.approx(0, abs=1e-6)
        assert measure["cuts"][1] == measure["single"][results["order"]["blocks"][0]]
    patterns = [cell["pattern"] for cell in results["cells"]]
    assert (patterns[0], patterns[2]) == ("(AI)*2", "A*2") and len(set(patterns)) == 3
    first, _, last = results["cells"]
    assert first["parameters"] - last["parameters"] == 2 * (2 * 8 * 16 + 16 + 8 + 16)
    for cell in results["cells"]:
        found = cell["tasks"]["sst2"]
        assert 0 <= found["before"] <= 1 and len(found["after"]) == 1
        assert cell["latency"]["4"]["median"] > 0 and len(cell["blocks"]) == cell["num_cut"]
    assert first["latency"]["1"]["speedup"] == 1
    assert json.loads((tmp_path / "work/results.json").read_text()) == results
    monkeypatch.setattr(damage, "_latency", None)  # What is there is not measured again.
    assert damage.run_damage(config, "made by a test") == results
