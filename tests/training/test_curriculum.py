"""Stages, pairs, averages and dropped blocks in whole runs: each resumes bit for bit."""

import json
import pathlib

import numpy as np
import pytest
import toys
from safetensors.numpy import load_file

from undivided_tf import accounting
from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.training import pretraining


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records of length 16, of length 8, and of pairs; one vocabulary."""
    root = tmp_path_factory.mktemp("toy")
    corpus = toys.write_corpus(root / "text", documents=40)
    records.create_records(toys.records_config(root / "long", corpus))
    options = {"vocab_file": str(root / "long" / "vocab.txt")}
    records.create_records(toys.records_config(root / "short", corpus, max_seq_length=8, **options))
    return root


def weights(config, name="weights.safetensors"):
    return load_file(checkpoints.resolve(config.workdir) / name)


@pytest.mark.slow
def test_all_options_at_once_resume_bit_for_bit(toy, tmp_path, monkeypatch):
    whole = toys.pretraining_config(
        tmp_path / "whole", toy / "short", curriculum=("3:6", f"7:4:{toy}/long"),
        masking_unit="span", initial_masked_lm_prob=0.4, optimizer="lamb",
        learning_rate_schedule="one_cycle", ema_momentum=0.8, intermediate_drop_rate=0.5,
        encoder=toys.encoder_config(half_layer_norms=True, attention_normalization="relu"),
    )  # fmt: skip
    results = pretraining.pretrain(whole)
    config = whole.replace(workdir=str(tmp_path / "stopped"))
    step = pretraining.Trainer.step

    def stop(self, *arguments):
        if int(self.optimizer.iterations.numpy()) == 8:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(config)
    again = pretraining.pretrain(config)
    for name in ("weights.safetensors", "training.safetensors", "ema/weights.safetensors"):
        one, other = weights(whole, name), weights(config, name)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    assert again["validation_history"] == results["validation_history"]
    assert {"ema_loss", "ema_accuracy"} <= set(results["validation"])
    assert results["validation"]["ema_loss"] != results["validation"]["loss"]
    rows = [3 * 4 + 4 * 6, 3 * 4]
    assert results["tokens"] == 8 * rows[0] + 16 * rows[1]
    metadata = records.read_metadata(toy / "long")
    encoder = whole.encoder.replace(vocab_size=metadata["vocab_size"])
    assert results["parameters"] == accounting.count_parameters(encoder)
    assert results["training_flops"] == sum(
        accounting.training_flops(encoder, n, round(0.4 * n), count)
        for n, count in zip((8, 16), rows, strict=True)
    )
    own, average = weights(whole), weights(whole, "ema/weights.safetensors")
    assert own.keys() == average.keys()
    assert not np.array_equal(own["encoder/pooler/kernel"], np.zeros(1))
    loaded, _ = checkpoints.load_encoder(checkpoints.resolve(whole.workdir) / "ema")
    for weight in loaded.weights:
        np.testing.assert_array_equal(weight.numpy(), average[weight.path])


def test_a_batch_of_a_later_stage_takes_the_rows_that_follow(toy, tmp_path):
    config = toys.pretraining_config(tmp_path, toy / "short", curriculum=("2:6",))
    batches = pretraining.Trainer(config).batches(0)
    sizes = [next(batches)["token_ids"].shape[0] for _ in range(4)]
    assert sizes == [4, 4, 6, 6]
    assert config.stages[1].first_row == 8


def test_records_of_another_vocabulary_are_refused(toy, tmp_path):
    corpus = toys.write_corpus(tmp_path / "text", documents=40, seed=3)
    records.create_records(toys.records_config(tmp_path / "other", corpus, vocab_size=55))
    config = toys.pretraining_config(
        tmp_path / "run", toy / "short", curriculum=(f"5:4:{tmp_path}/other",)
    )
    with pytest.raises(InputError, match="vocabulary"):
        pretraining.pretrain(config)
    assert not pathlib.Path(config.workdir).exists()
    assert json.loads((toy / "long" / "metadata.json").read_text())["max_seq_length"] == 16
