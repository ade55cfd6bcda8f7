"""--dtype=auto: the choice, and that a run keeps it."""

import json
import shutil

import pytest
import toys

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.study.config import StudyConfig, SweepConfig
from undivided_tf.training import dry_run, precision, pretraining
from undivided_tf.training.config import PretrainingConfig


def gaining(monkeypatch, gain):
    monkeypatch.setattr(precision, "_gain", lambda *_: gain)


def config_of(hidden_size=256, **changes):
    sizes = {"hidden_size": hidden_size, "num_attention_heads": 4, "intermediate_size": 512}
    return PretrainingConfig(dtype="auto", encoder=EncoderConfig(**sizes), **changes)


@pytest.mark.parametrize(
    ("gain", "hidden_size", "dtype", "jit_compile"),
    [
        (2.0, 256, "bfloat16", False),
        (1.5, 768, "bfloat16", False),
        (1.4, 768, "float32", True),
        (2.0, 128, "float32", True),
    ],
)
def test_wide_encoders_take_what_their_processor_multiplies_faster(
    monkeypatch, gain, hidden_size, dtype, jit_compile
):
    gaining(monkeypatch, gain)
    config, choice = precision.resolve(config_of(hidden_size))
    assert (config.dtype, config.jit_compile) == (dtype, jit_compile)
    assert choice == {"dtype": dtype, "jit_compile": jit_compile, "bfloat16_gain": gain}
    assert f"dtype auto: {dtype} with" in precision.describe(choice)


def test_only_auto_is_resolved(monkeypatch):
    gaining(monkeypatch, 3.0)
    config = config_of().replace(dtype="float16")
    assert precision.resolve(config) == (config, None)
    without = precision.measure(config_of(hidden_size=128, jit_compile=False))
    assert not without["jit_compile"]
    on_tpu = precision.measure(config_of(strategy="tpu"))
    assert on_tpu == {"dtype": "bfloat16", "jit_compile": True, "bfloat16_gain": None}
    assert "TPU" in precision.describe(on_tpu)


def test_the_product_is_timed():
    assert 0.01 < precision._gain(64, 128) < 100


def test_a_run_keeps_its_type_on_another_processor(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "LEAST_WIDTH", 1)
    gaining(monkeypatch, 2.0)
    config = toys.pretraining_config(tmp_path / "run", toy, dtype="auto", num_train_steps=4)
    results = pretraining.pretrain(config)
    assert results["precision"]["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["dtype"] == "auto"
    # Another processor resumes it.
    (tmp_path / "run" / "results.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    gaining(monkeypatch, 1.0)
    again = pretraining.pretrain(config)
    assert again["precision"] == results["precision"]
    assert again["validation"] == results["validation"]
    other = pretraining.pretrain(config.replace(workdir=str(tmp_path / "other")))
    assert other["precision"]["dtype"] == "float32"
    assert other["validation"]["loss"] != results["validation"]["loss"]


def test_a_dry_run_says_what_it_would_take(toy, tmp_path, monkeypatch):
    gaining(monkeypatch, 1.0)
    config = toys.pretraining_config(tmp_path / "run", toy, dtype="auto")
    text = dry_run.describe(dry_run.dry_run(config, timed_steps=1))
    assert "dtype auto: float32" in text and not (tmp_path / "run").exists()


def test_runs_that_must_agree_need_a_named_type():
    with pytest.raises(InputError, match="dtype auto measures one processor"):
        config_of(strategy="multi_worker")
    for study in (StudyConfig, SweepConfig):
        default = study().pretraining
        with pytest.raises(InputError, match=r"pretraining\.dtype auto could differ between"):
            study(pretraining=default.replace(dtype="auto"))
