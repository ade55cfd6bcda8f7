"""Healing from text: losses follow their definitions, and a cut encoder nears its teacher."""

import json

import numpy as np
import pytest
import toys

from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.weights import named_weights
from undivided_tf.surgery import healing, run
from undivided_tf.surgery.config import HealingConfig, SurgeryConfig


@pytest.fixture(scope="module")
def place(toy, tmp_path_factory):
    """A teacher and what is left of it without its first intermediate block."""
    folder = tmp_path_factory.mktemp("healing_from_text")
    tokenizer = records.read_tokenizer(toy)
    config = toys.encoder_for(
        tokenizer, block_pattern="(AI)*2", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    (folder / "whole").mkdir()
    checkpoints.save_model(folder / "whole", Encoder(config, seed=5).weights, config, tokenizer)
    surgery = SurgeryConfig(
        input=str(folder / "whole"), output_dir=str(folder / "cut"), cut="first", num_cut=1
    )
    run.run_surgery(surgery)
    return folder


def config(place, toy, workdir, **changes):
    values = {
        "init_checkpoint": str(place / "cut"), "teacher_checkpoint": str(place / "whole"),
        "records_dir": str(toy), "train_batch_size": 8, "max_eval_rows": 8, **changes,
    }  # fmt: skip
    return HealingConfig(workdir=str(workdir), **values)


def test_muon_and_layerwise_decay_reach_the_blocks(place, toy, tmp_path):
    """Muon moves every kernel by about the rate; the decay halves it from layer to layer."""
    before = named_weights(checkpoints.load_encoder(place / "cut")[0].weights)
    moved = {}
    for decay in (1.0, 0.5):
        asked = config(
            place, toy, tmp_path / str(decay), train_pieces=300, optimizer="muon",
            layerwise_lr_decay=decay, weight_decay_rate=0.0,
        )  # fmt: skip
        assert healing.heal(asked)["after"]["hidden_loss"] > 0
        after = named_weights(checkpoints.load_encoder(tmp_path / str(decay) / "model")[0].weights)
        moved[decay] = {
            name: float(np.abs(np.subtract(after[name], before[name])).mean()) for name in before
        }
    for layer, factor in (("block_00_attention", 0.25), ("block_01_attention", 0.5)):
        (name,) = (n for n in moved[1.0] if layer in n and n.endswith("value/kernel"))
        assert moved[0.5][name] == pytest.approx(factor * moved[1.0][name], rel=0.3)


def test_losses_follow_their_definitions(place):
    (teacher, _), (student, _) = (checkpoints.load_encoder(place / n) for n in ("whole", "cut"))
    matches = [("block_00/attention", "block_00/intermediate"),
               ("block_01/intermediate", "block_01/intermediate")]  # fmt: skip
    weights = {"hidden_loss": 2.0, "embedding_loss": 3.0, "similarity_loss": 5.0}
    healer = healing.Healer(student, teacher, matches, weights)
    ids = np.int32([[2, 7, 8, 3], [2, 9, 3, 0], [2, 10, 11, 3], [0, 0, 0, 0]])
    batch = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": np.int32(ids > 0)}
    found = {name: float(value) for name, value in healer.losses_of(batch).items()}
    real = ids > 0
    mine, its = (model(batch, return_taps=True)["taps"] for model in (student, teacher))
    squares = [np.square(mine[m] - its[t])[real].mean() for m, t in matches]
    assert found["hidden_loss"] == pytest.approx(np.mean(squares), rel=1e-5)
    own, theirs = (
        np.stack([np.asarray(taps["block_01/intermediate"])[i, real[i]].mean(0) for i in range(3)])
        for taps in (mine, its)
    )
    own, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (own, theirs))
    assert found["embedding_loss"] == pytest.approx(np.mean(1 - (own * theirs).sum(1)), abs=1e-6)
    expected = np.mean(np.square(own @ own.T - theirs @ theirs.T))
    assert found["similarity_loss"] == pytest.approx(expected, abs=1e-6)
    healer(batch)
    total = sum(weights[name] * found[name] for name in healing.LOSSES)
    assert float(sum(healer.losses)) == pytest.approx(total, rel=1e-5)
    same = healing.Healer(teacher, teacher, [(t, t) for _, t in matches], weights).losses_of(batch)
    assert all(abs(float(value)) < 1e-6 for value in same.values())


@pytest.mark.slow
def test_a_cut_encoder_heals_and_goes_on_where_it_stopped(place, toy, tmp_path, monkeypatch):
    asked = config(
        place, toy, tmp_path / "run", train_pieces=10_000, learning_rate=3e-3,
        save_checkpoints_steps=10,
    )  # fmt: skip
    save, saved = checkpoints.save, []

    def stop(*arguments, **options):
        saved.append(save(*arguments, **options))
        if len(saved) == 2:
            raise KeyboardInterrupt
        return saved[-1]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            healing.heal(asked)
    results = healing.heal(asked)
    whole = healing.heal(asked.replace(workdir=str(tmp_path / "again")))
    assert results["steps"] > 20 and abs(results["pieces"] - 10_000) < 200
    for name in healing.LOSSES:
        assert results["after"][name] < results["before"][name] / 2
        assert results["after"][name] == pytest.approx(whole["after"][name], rel=1e-3)
    healed, cut = (checkpoints.load_encoder(p)[0] for p in (tmp_path / "run/model", place / "cut"))
    before = named_weights(cut.weights)
    for name, variable in named_weights(healed.weights).items():
        untouched = "/embeddings/" in name or "/pooler/" in name
        assert np.array_equal(variable, before[name]) == untouched, name
    about = json.loads((tmp_path / "run/model/surgery.json").read_text())
    assert about["kind"] == "healing" and about["kept"]
    assert not (tmp_path / "run/checkpoints").exists()


def test_what_cannot_heal_is_refused(place, toy, tmp_path):
    with pytest.raises(InputError, match="which leaves nothing to learn"):
        config(place, toy, tmp_path, hidden_weight=0, embedding_weight=0, similarity_weight=0)
    tokenizer = records.read_tokenizer(toy)
    wide = toys.encoder_config(
        vocab_size=tokenizer.vocab_size, vocabulary_hash=tokenizer.vocabulary_hash, hidden_size=16
    )
    (tmp_path / "wide").mkdir()
    checkpoints.save_model(tmp_path / "wide", Encoder(wide).weights, wide, tokenizer)
    asked = config(place, toy, tmp_path / "run", teacher_checkpoint=str(tmp_path / "wide"))
    with pytest.raises(InputError, match="hidden_size: 16 in the teacher, 8 in the student"):
        healing.heal(asked)
    assert not (tmp_path / "run").exists()
