import json
import logging
import multiprocessing
import os
import pathlib
import random
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
import toys
from safetensors.numpy import load_file

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.training import device_memory, dry_run, faults, memory, pretraining
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.curriculum import Need


def checkpoint_steps(config):
    folder = pathlib.Path(config.workdir) / "checkpoints"
    return [int(path.name[-8:]) for path in sorted(folder.glob("step_*"))]


def assert_equal_runs(one, other, tolerance=0.0):
    for name in ("weights.safetensors", "training.safetensors"):
        first, second = (
            load_file(max(pathlib.Path(config.workdir).glob("checkpoints/step_*")) / name)
            for config in (one, other)
        )
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_allclose(first[key], second[key], rtol=0, atol=tolerance)


@pytest.fixture
def with_nan(monkeypatch):
    """Lets batches of given numbers, from 0, have a weight that is not a number."""

    def spoil(*numbers):
        whole = pretraining.Trainer.batches

        def batches(self, start_step, *course):
            for number, batch in enumerate(whole(self, start_step, *course), start_step):
                if number in numbers:
                    batch["masked_weights"] += float("nan")
                yield batch

        monkeypatch.setattr(pretraining.Trainer, "batches", batches)

    return spoil


def test_a_step_that_is_not_finite_changes_nothing(toy, tmp_path, with_nan):
    with_nan(0)
    trainer = pretraining.Trainer(toys.pretraining_config(tmp_path / "run", toy))
    kept = [*trainer.model.weights, *trainer.optimizer.variables]
    before = [np.asarray(variable).copy() for variable in kept]
    bad, good, *_ = (batch for batch, _ in zip(trainer.batches(0), range(2), strict=False))
    assert not np.isfinite(trainer.step(bad)["gradient_norm"])
    for one, other in zip(before, kept, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(trainer.step(good)["gradient_norm"])
    assert int(trainer.optimizer.iterations) == 1


def test_steps_are_skipped_up_to_the_bound_and_the_report_says_where(
    toy, tmp_path, with_nan, caplog
):
    with_nan(2, 6)
    config = toys.pretraining_config(tmp_path / "two", toy, max_skipped_steps=2)
    with caplog.at_level(logging.WARNING, logger="absl"):
        results = pretraining.pretrain(config)
    assert results["skipped_steps"] == [3, 7] and results["steps"] == 10
    assert np.isfinite([point["loss"] for point in results["training_history"]]).all()
    assert "skipped: 2 of at most 2" in caplog.text
    config = toys.pretraining_config(tmp_path / "one", toy, max_skipped_steps=1)
    with pytest.raises(FloatingPointError) as caught:
        pretraining.pretrain(config)
    message = str(caught.value)
    assert message.startswith("step 7: loss sum nan, gradient norm nan")
    assert "first tap not finite: loss\n" in message
    assert "step_00000005" in message and "max_skipped_steps is 1" in message


def test_the_report_names_the_first_tap_and_the_weights(toy, tmp_path):
    encoder = toys.encoder_config(block_pattern="AIA")
    trainer = pretraining.Trainer(toys.pretraining_config(tmp_path / "run", toy, encoder))
    batch = next(iter(trainer.batches(0)))
    report = faults.not_finite_report(trainer.model, [batch], {"loss": 1.0, "gradient_norm": 2.0})
    assert "first tap not finite: none" in report and "weights not finite: none" in report
    for block in ("embeddings", "block_00_attention", "block_00_intermediate", "masked_lm_head"):
        assert f"{block} " in report.splitlines()[-1]
    dense = trainer.model.encoder.blocks[1].output_dense.kernel
    dense.assign(np.full(dense.shape, np.inf))
    report = faults.not_finite_report(trainer.model, [batch], {"loss": 1.0, "gradient_norm": 2.0})
    assert "first tap not finite: block_00/intermediate\n" in report
    assert f"weights not finite: {dense.path}\n" in report


def test_the_report_looks_into_every_part_of_the_rows(toy, tmp_path):
    """The rows that went wrong may be another replica's, or of a later part of its share."""
    config = toys.pretraining_config(tmp_path / "run", toy, gradient_accumulation_steps=2)
    trainer = pretraining.Trainer(config)
    batch = next(iter(trainer.batches(0)))
    whole = list(trainer.steps.parts(batch))
    assert [part["token_ids"].shape for part in whole] == [(2, toys.LENGTH)] * 2
    np.testing.assert_array_equal(whole[1]["token_ids"], batch["token_ids"][2:])
    whole[1]["masked_weights"] += float("nan")
    sums = {"loss": float("nan"), "gradient_norm": float("nan")}
    assert "first tap not finite: loss\n" in faults.not_finite_report(trainer.model, whole, sums)


def test_running_out_of_memory_says_what_helps(toy, tmp_path, monkeypatch):
    def exhausted(self, batch, stop=False):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM, tensor with shape[4,2,16,16]")

    monkeypatch.setattr(pretraining.Trainer, "step", exhausted)
    config = toys.pretraining_config(tmp_path / "run", toy)
    # With one block of a kind --recompute saves nothing: its backward pass needs all of it.
    config = config.replace(encoder=config.encoder.replace(block_pattern="(AI)*2"))
    with pytest.raises(InputError) as caught:
        pretraining.pretrain(config)
    message = str(caught.value)
    trainer = pretraining.Trainer(config)
    need = memory.of_run(config, trainer.encoder_config, toys.LENGTH, 2, 4)["total"]
    for part in (
        "shape[4,2,16,16]", "4 rows at a time", "(--train_batch_size 4", "x 16 word pieces",
        "pattern (AI)*2", f"estimated need {need / 2**30:.2f} GiB", "free now ",
        "--recompute: the same training", "--train_batch_size=2", "--max_seq_length=8",
    ):  # fmt: skip
        assert part in message


def test_memory_advice_is_about_the_greatest_stage_and_names_only_what_helps():
    run = PretrainingConfig(
        encoder=EncoderConfig(), train_batch_size=1, curriculum=("5:64",), num_train_steps=9,
        num_warmup_steps=0, recompute=True,
    )  # fmt: skip
    needs = [
        Need(stage, 128, 20, size, memory.of_run(run, run.encoder, 128, 20, size)["total"])
        for stage, size in zip(run.stages, (1, 64), strict=True)
    ]
    with (
        pytest.raises(InputError) as caught,
        device_memory.out_of_memory_advice(run, run.encoder, needs),
    ):
        raise MemoryError
    message = str(caught.value)
    assert "64 rows at a time" in message and "--recompute" not in message
    assert "the batch of --curriculum from step 5=32, " in message
    assert "--gradient_accumulation_steps=2: the same training, " in message
    # One row does not split; another copy of the gradients would only add to the need.
    with (
        pytest.raises(InputError) as caught,
        device_memory.out_of_memory_advice(run, run.encoder, needs[:1]),
    ):
        raise MemoryError
    message = str(caught.value)
    assert "max_seq_length=64" in message
    assert "--gradient_accumulation_steps=" not in message and "_size=" not in message


def test_sigterm_saves_the_step_and_the_same_call_goes_on(toy, tmp_path, monkeypatch):
    whole = toys.pretraining_config(tmp_path / "whole", toy)
    pretraining.pretrain(whole)
    config = whole.replace(workdir=str(tmp_path / "stopped"))
    take = pretraining.Trainer.step

    def step(self, batch, stop=False):
        if int(self.optimizer.iterations) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, batch, stop)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Trainer, "step", step)
        with pytest.raises(SystemExit) as left:
            pretraining.pretrain(config)
    assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert checkpoint_steps(config)[-1] in (7, 8)
    pretraining.pretrain(config)
    assert_equal_runs(whole, config)


def test_tensorboard_shows_each_step_once(toy, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing import event_accumulator

    config = toys.pretraining_config(tmp_path / "run", toy)
    take, taken = pretraining.Trainer.step, []

    def step(self, batch, stop=False):
        taken.append(batch)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return take(self, batch, stop)

    monkeypatch.setattr(pretraining.Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(config)
    pretraining.pretrain(config)
    shown = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    shown.Reload()
    steps = [event.step for event in shown.Tensors("training/loss")]
    assert steps == list(range(1, 11))
    for name in ("loss", "neighbour_model_loss", "neighbour_model_loss_at_mask"):
        assert [event.step for event in shown.Tensors(f"validation/{name}")] == [4, 8, 10]


def test_a_dry_run_measures_and_writes_nothing(toy, tmp_path, monkeypatch):
    config = toys.pretraining_config(tmp_path / "run", toy)
    found = dry_run.dry_run(config)
    (stage,) = found["stages"]
    assert found["fits"] and stage["rows"] == 4
    assert stage["estimated_bytes"] == found["estimated_bytes"] > 0
    assert stage["tokens_per_second"] == pytest.approx(
        4 * toys.LENGTH * 1000 / stage["step_milliseconds"]
    )
    hours = (stage["compile_seconds"] + 10 * stage["step_milliseconds"] / 1000) / 3600
    assert found["projected_hours"] == pytest.approx(hours)
    assert f"{found['parameters']:,} parameters" in dry_run.describe(found)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(device_memory, "free_bytes", lambda: 10)
    found = dry_run.dry_run(config)
    assert not found["fits"] and "step_milliseconds" not in found["stages"][0]
    assert "it does not fit" in dry_run.describe(found)


def test_a_dry_run_of_a_curriculum_counts_every_stage(toy, tmp_path):
    """The last stage is neither the longest nor the one that needs most."""
    config = toys.pretraining_config(
        tmp_path / "run", toy, train_batch_size=2, curriculum=("3:8", "1003:4"),
        num_train_steps=1008,
    )  # fmt: skip
    found = dry_run.dry_run(config, timed_steps=2)
    first, second, third = found["stages"]
    assert [stage["steps"] for stage in found["stages"]] == [3, 1000, 5]
    assert [stage["rows"] for stage in found["stages"]] == [2, 8, 4]
    assert found["estimated_bytes"] == second["estimated_bytes"]
    assert second["estimated_bytes"] > max(first["estimated_bytes"], third["estimated_bytes"])
    seconds = sum(
        stage["compile_seconds"] + stage["steps"] * stage["step_milliseconds"] / 1000
        for stage in found["stages"]
    )
    assert found["projected_hours"] == pytest.approx(seconds / 3600)
    assert second["compile_seconds"] > second["step_milliseconds"] / 1000
    assert "1,000 steps of 8 x 16 word pieces" in dry_run.describe(found)


def train(config):
    """Runs in a process of its own, which has two devices where the strategy asks for several."""
    if config.strategy == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)
    pretraining.pretrain(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "steps", "tolerance"),
    [
        ("one_device", 1200, 0.0),
        pytest.param("mirrored", 800, 1e-5, marks=pytest.mark.long),
    ],
)
def test_ten_kills_change_nothing(toy, tmp_path, strategy, steps, tolerance):
    """Each process gets through part of the run before SIGKILL, at a moment drawn at random."""
    chooser = random.Random(1)
    whole = toys.pretraining_config(
        tmp_path / "whole", toy, num_train_steps=steps, save_checkpoints_steps=20,
        eval_every_steps=200, strategy=strategy,
    )  # fmt: skip
    config = whole.replace(workdir=str(tmp_path / "killed"))
    # TensorFlow is imported once, in the server that all processes are forked from.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["undivided_tf.training.pretraining"])
    process = context.Process(target=train, args=(whole,))
    process.start()
    process.join()
    assert process.exitcode == 0
    kills, seen = 0, []
    while kills < 10:
        steps = checkpoint_steps(config)
        process = context.Process(target=train, args=(config,))
        process.start()
        until = time.monotonic() + 60
        while checkpoint_steps(config) == steps and process.is_alive():
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(chooser.uniform(0, 0.1))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        seen.append(checkpoint_steps(config)[-1])
    assert kills == 10 and seen == sorted(seen) and seen[-1] > seen[0]
    process = context.Process(target=train, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert_equal_runs(whole, config, tolerance)
    one, other = (
        json.loads((pathlib.Path(c.workdir) / "results.json").read_text()) for c in (whole, config)
    )
    for key in ("training_history", "validation_history"):
        assert [p["step"] for p in one[key]] == [p["step"] for p in other[key]]
        losses = [[point["loss"] for point in found[key]] for found in (one, other)]
        np.testing.assert_allclose(*losses, rtol=0, atol=tolerance)
    assert one["best"]["step"] == other["best"]["step"]
