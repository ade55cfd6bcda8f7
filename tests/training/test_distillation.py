"""Healing: from a cut checkpoint, drawn towards the encoder that it was cut from."""

import numpy as np
import pytest
import tensorflow as tf
import toys
from safetensors.numpy import load_file

from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.pattern import BlockPattern
from undivided_tf.surgery import run
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.training import evaluation, pretraining
from undivided_tf.training.distillation import Distillation, matching_taps


@pytest.fixture(scope="module")
def place(toy, tmp_path_factory):
    """A teacher, one without a head, and what is left of each without its first intermediate."""
    folder = tmp_path_factory.mktemp("healing")
    tokenizer = records.read_tokenizer(toy)
    config = toys.encoder_for(
        tokenizer, block_pattern="(AI)*2", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = Pretrainer(Encoder(config, seed=5))
    for name, weights in (("teacher", model.weights), ("bare", model.encoder.weights)):
        (folder / name).mkdir()
        checkpoints.save_model(folder / name, weights, config, tokenizer)
        cut = SurgeryConfig(
            input=str(folder / name), output_dir=str(folder / f"{name}_cut"), cut="first", num_cut=1
        )
        run.run_surgery(cut)
    return folder


def healing(place, toy, workdir, start="teacher", **changes):
    path = checkpoints.resolve(place / f"{start}_cut")
    encoder = checkpoints.EncoderConfig.from_json(path / checkpoints.ENCODER)
    options = {"init_checkpoint": str(path), "teacher_checkpoint": str(place / start), **changes}
    return toys.pretraining_config(workdir, toy, encoder, **options)


def test_taps_match_what_the_teacher_hands_on():
    full, kept = BlockPattern.parse("(AI)*3"), {}
    names = full.tap_names
    assert matching_taps(full, full, kept) == list(zip(names, names, strict=True))
    # AAIA: the intermediate blocks behind the first and the third attention block are gone.
    cut = BlockPattern.parse("AAIA")
    a, i = "attention", "intermediate"
    assert matching_taps(cut, full, {}) == [
        ("embeddings", "embeddings"), (f"block_00/{a}", f"block_00/{i}"),
        (f"block_01/{a}", f"block_01/{a}"), (f"block_01/{i}", f"block_01/{i}"),
        (f"block_02/{a}", f"block_02/{i}"),
    ]  # fmt: skip
    # Without the whole first encoder block the embeddings do its work; names have moved.
    kept = {"block_00/attention": "block_01/attention", "block_00/intermediate":
            "block_01/intermediate", "block_01/attention": "block_02/attention"}  # fmt: skip
    assert matching_taps(BlockPattern.parse("AIA"), full, kept) == [
        ("embeddings", f"block_00/{i}"), (f"block_00/{a}", f"block_01/{a}"),
        (f"block_00/{i}", f"block_01/{i}"), (f"block_01/{a}", f"block_02/{i}"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"names block_02/attention.* belongs to other encoders"):
        matching_taps(BlockPattern.parse("AI"), full, {"block_02/attention": "block_02/attention"})


def test_a_student_equal_to_its_teacher_has_no_loss_and_only_it_learns(place, toy, tmp_path):
    config = healing(place, toy, tmp_path)
    tensors = Distillation(
        config.replace(init_checkpoint=""),
        checkpoints.load_encoder(place / "teacher")[0].config,
    )
    assert not tensors.teacher.trainable_variables
    trainer = pretraining.Trainer(config)
    batch = next(iter(trainer.batches(0)))
    same = tensors.sums(batch, tensors.teacher(batch, training=False, return_taps=True))
    assert float(same["hidden_loss"]) == 0 and float(same["tokens"]) > 0
    assert abs(float(same["logits_loss"])) < 1e-4
    before = [np.asarray(v) for v in trainer.steps.distillation.teacher.weights]
    sums = trainer.step(batch)
    assert sums["hidden_loss"] > 0 and sums["logits_loss"] > 0
    for old, new in zip(before, trainer.steps.distillation.teacher.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    # The loss by hand, from the taps, of real tokens only.
    mine = trainer.model(batch, training=False, return_taps=True)
    its = trainer.steps.distillation.teacher(batch, training=False, return_taps=True)
    real = np.asarray(batch["padding_mask"], bool)
    by_hand = np.mean([
        np.square(np.asarray(mine["taps"][m]) - np.asarray(its["taps"][t]))[real].mean(-1).sum()
        for m, t in trainer.steps.distillation.matches
    ])  # fmt: skip
    found = trainer.steps.distillation.sums(batch, mine)
    assert float(found["hidden_loss"]) == pytest.approx(by_hand, rel=1e-5)
    student, teacher = (
        tf.nn.log_softmax(x["masked_lm_logits"] / 2.0).numpy().astype("f8") for x in (mine, its)
    )
    weights = np.asarray(batch["masked_weights"])
    by_hand = 4 * ((np.exp(teacher) * (teacher - student)).sum(-1) * weights).sum()
    assert float(found["logits_loss"]) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_run_heals_and_goes_on_where_it_stopped(place, toy, tmp_path, monkeypatch):
    config = healing(
        place, toy, tmp_path / "run", jit_compile=True, num_train_steps=60, learning_rate=3e-3,
        eval_every_steps=20, save_checkpoints_steps=30, gradient_accumulation_steps=2,
        masked_lm_weight=0.0,  # The teacher is random: text would draw elsewhere.
    )  # fmt: skip
    take, taken = pretraining.Trainer.step, []

    def stop(self, batch, stop=False):
        taken.append(batch)
        if len(taken) == 41:
            raise KeyboardInterrupt
        return take(self, batch, stop)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(config)
    results = pretraining.pretrain(config)
    history = results["validation_history"]
    assert [point["step"] for point in history] == [20, 40, 60]
    start = pretraining.Trainer(config.replace(workdir=str(tmp_path / "start"))).evaluate()
    for name in ("hidden_loss", "logits_loss"):
        assert history[-1][name] < history[0][name] < start[name]
    assert history[-1]["hidden_loss"] < start["hidden_loss"] / 2


@pytest.mark.slow
def test_an_encoder_without_a_head_learns_from_states_alone(place, toy, tmp_path):
    with pytest.raises(InputError, match="keep their initial values: --new_weights"):
        pretraining.pretrain(healing(place, toy, tmp_path / "run", "bare",
                                     distillation_logits_weight=0.0))  # fmt: skip
    config = healing(
        place, toy, tmp_path / "run", "bare", new_weights=("masked_lm_head",),
        masked_lm_weight=0.0, distillation_logits_weight=0.0,
    )  # fmt: skip
    trainer = pretraining.Trainer(config)
    first = [np.asarray(v) for v in trainer.model.masked_lm_head.weights]
    sums = {"loss": 70.0, "weight": 10.0, "hidden_loss": 3.0, "logits_loss": 0.0, "tokens": 2.0}
    assert evaluation.loss_text(trainer.steps, sums, 3.9) == "distillation loss 1.5000"
    results = pretraining.pretrain(config)
    assert results["best"]["loss"] == min(p["hidden_loss"] for p in results["validation_history"])
    last = load_file(checkpoints.newest(tmp_path / "run") / "weights.safetensors")
    head = [last[name] for name in last if name.startswith("masked_lm_head/")]
    assert {v.tobytes() for v in head} == {v.tobytes() for v in first}


def test_what_cannot_teach_or_start_is_refused(place, toy, tmp_path):
    with pytest.raises(InputError, match="has no masked-language-model head"):
        pretraining.pretrain(
            healing(place, toy, tmp_path / "a", teacher_checkpoint=str(place / "bare"))
        )
    config = healing(place, toy, tmp_path / "a")
    with pytest.raises(InputError, match=r"block_pattern: 'A\*2I' there, '\(AI\)\*2' asked for"):
        pretraining.pretrain(config.replace(encoder=config.encoder.replace(block_pattern="(AI)*2")))
    with pytest.raises(InputError, match="masked_lm_weight 0 leaves nothing to learn"):
        config.replace(teacher_checkpoint="", masked_lm_weight=0.0)
    assert not (tmp_path / "a").exists()
