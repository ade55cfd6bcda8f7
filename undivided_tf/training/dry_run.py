"""Measures the cost of a run in the first steps of its stages; writes nothing."""

import statistics
import time
from typing import Any

from undivided_tf import accounting
from undivided_tf.errors import InputError
from undivided_tf.training import device_memory, precision
from undivided_tf.training.config import PretrainingConfig, Stage
from undivided_tf.training.pretraining import Trainer


def dry_run(config: PretrainingConfig, timed_steps: int = 20) -> dict[str, Any]:
    """Builds a run, times some steps of each stage, and discards everything.

    No step runs if the estimate exceeds the free memory, since the system might kill the process
    without a message.

    Args:
        config: the run; nothing is written to its workdir.
        timed_steps: number of timed steps of each stage, after one that compiles.

    Returns:
        `pattern`, `parameters` (encoder), `head_parameters`; `estimated_bytes` (of the largest
        stage) and `free_bytes`, both beyond the memory of the process before the model is built;
        `fits`; `precision` (result of `precision.measure`, or None); `stages`, each with `steps`,
        `branch_steps` (additional steps of branches), `batch_size`, `length`, `rows` (at a time on
        a device) and `estimated_bytes`.
        If the run fits, each stage also has `compile_seconds`, `step_milliseconds` and
        `tokens_per_second`, and the result has `measured_bytes` (peak, also beyond that memory) and
        `projected_hours` (all steps, without evaluations and checkpoints).

    Raises:
        InputError: as `pretrain`.
    """
    if config.strategy == "multi_worker":
        raise InputError(
            "a dry run measures one machine: give --strategy=one_device, or mirrored, and the part "
            "of train_batch_size of one worker"
        )
    free, held_before = device_memory.free_bytes(), device_memory.peak_bytes()
    trainer = Trainer(config)
    encoder = trainer.encoder_config
    needs = trainer.curriculum.needs(trainer.replicas)
    most = max(need.bytes for need in needs)
    stages = [
        {
            "steps": need.stage.last_step - need.stage.first_step,
            "branch_steps": config.branch_steps(need.stage.first_step, need.stage.last_step),
            "batch_size": need.stage.batch_size,
            "length": need.length,
            "rows": need.rows,
            "estimated_bytes": need.bytes,
        }
        for need in needs
    ]
    report = {
        "pattern": encoder.block_pattern,
        "parameters": accounting.count_parameters(encoder),
        "head_parameters": accounting.masked_lm_head_parameters(encoder),
        "estimated_bytes": most,
        "free_bytes": free,
        "fits": most <= free,
        "precision": trainer.precision,
        "stages": stages,
    }
    if not report["fits"]:
        return report
    seconds = 0.0
    with trainer.memory_advice():
        for stage, need in zip(stages, needs, strict=True):
            compilation, step = _timed(trainer, need.stage, timed_steps)
            stage["compile_seconds"] = compilation
            stage["step_milliseconds"] = 1000 * step
            stage["tokens_per_second"] = need.stage.batch_size * need.length / step
            seconds += compilation + (stage["steps"] + stage["branch_steps"]) * step
    measured = device_memory.peak_bytes() - held_before
    return {**report, "measured_bytes": measured, "projected_hours": seconds / 3600}


def _timed(trainer: Trainer, stage: Stage, steps: int) -> tuple[float, float]:
    """Seconds of the first step of a stage, and the median of later steps, if there are any."""
    batches, seconds = iter(trainer.batches(stage.first_step)), []
    for _ in range(min(1 + steps, stage.last_step - stage.first_step)):
        start = time.perf_counter()
        trainer.step(next(batches))
        seconds.append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds[1:] or seconds)


def describe(report: dict[str, Any]) -> str:
    """The lines that `--dry_run` prints."""
    gib = {name: report[name] / 2**30 for name in report if name.endswith("_bytes")}
    lines = [
        f"{report['pattern']}: {report['parameters']:,} parameters, "
        f"{report['head_parameters']:,} more in the head",
        *([precision.describe(report["precision"])] if report["precision"] else []),
        f"memory: {gib['estimated_bytes']:.2f} GiB estimated, {gib['free_bytes']:.2f} GiB free",
    ]
    for stage in report["stages"]:
        branches = f" and {stage['branch_steps']:,} in branches" if stage["branch_steps"] else ""
        line = (
            f"{stage['steps']:,} steps{branches} of {stage['batch_size']} x {stage['length']} word "
            f"pieces: {stage['estimated_bytes'] / 2**30:.2f} GiB for {stage['rows']} rows at a time"
        )
        if report["fits"]:
            line += (
                f", {stage['step_milliseconds']:.1f} ms a step, {stage['tokens_per_second']:,.0f} "
                f"tokens a second (compilation {stage['compile_seconds']:.1f} s)"
            )
        lines.append(line)
    if not report["fits"]:
        return "\n".join(
            [*lines, "it does not fit: give --recompute, or raise --gradient_accumulation_steps"]
        )
    measured, hours = gib["measured_bytes"], report["projected_hours"]
    return "\n".join([*lines, f"measured: {measured:.2f} GiB; projected: {hours:.2f} hours"])
