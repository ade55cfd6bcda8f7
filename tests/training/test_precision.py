"""Half precision against float32 on real text, in a run that leaves the unigram plateau."""

import pytest
import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.training import pretraining
from undivided_tf.training.config import PretrainingConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(train):
    """What a run in float32 throughout ends with."""
    return train("float32")


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains in some precision; without XLA, which on a CPU leaves most of the rounding out."""
    root = tmp_path_factory.mktemp("precision")
    records.create_records(
        RecordsConfig(output_dir=str(root / "records"), vocab_size=500, max_seq_length=32)
    )

    def run(dtype):
        config = PretrainingConfig(
            workdir=str(tmp_path_factory.mktemp(dtype)), records_dir=str(root / "records"),
            dtype=dtype,
            encoder=EncoderConfig(
                hidden_size=64, num_attention_heads=2, intermediate_size=256,
                block_pattern="(AI)*2", max_position_embeddings=32, hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0, norm_first=True,
            ),
            train_batch_size=16, num_train_steps=500, num_warmup_steps=50, learning_rate=2e-3,
            adam_beta_2=0.98, masked_lm_prob=0.3, eval_every_steps=500, max_eval_rows=512,
            save_checkpoints_steps=500, jit_compile=False,
        )  # fmt: skip
        return pretraining.pretrain(config)

    return run


def test_half_precision_ends_within_a_hundredth_of_float32(train, whole):
    assert whole["validation"]["loss"] < whole["validation_unigram_cross_entropy"] - 0.2
    for dtype in ("bfloat16", "float16"):
        half = train(dtype)
        assert half["validation"]["loss"] == pytest.approx(whole["validation"]["loss"], rel=0.01)
        assert half["validation"]["loss"] != whole["validation"]["loss"]
        assert half["skipped_steps"] == []


@pytest.mark.long
def test_weights_in_half_precision_would_not(train, whole, monkeypatch):
    """What the bound is for: steps smaller than half a bit of the weight are lost."""
    step = pretraining.Trainer.step

    def rounding(self, *arguments):
        sums = step(self, *arguments)
        for weight in self.model.trainable_variables:
            weight.assign(tf.cast(tf.cast(weight.value, tf.bfloat16), tf.float32))
        return sums

    monkeypatch.setattr(pretraining.Trainer, "step", rounding)
    assert train("float32")["validation"]["loss"] > 1.01 * whole["validation"]["loss"]
