"""What a run will cost, found out in its first steps, without writing anything."""

import statistics
import time
from typing import Any

from undivided_tf import accounting
from undivided_tf.errors import InputError
from undivided_tf.pretraining_recipes import PretrainingConfig
from undivided_tf.training import faults
from undivided_tf.training.pretraining import Trainer, peak_memory_bytes

_TIMED_STEPS = 20


def dry_run(config: PretrainingConfig) -> dict[str, Any]:
    """Builds a run, takes a compiling step and 20 timed ones, and throws all away.

    The steps are left out where the estimate exceeds the free memory, since the system might
    end the process without a word.

    Args:
        config: the run; nothing is written to its workdir.

    Returns:
        `pattern`, `parameters` (encoder), `head_parameters`, `rows` (at a time on a device);
        `estimated_bytes` and `free_bytes` (before the model was built), both beyond what the
        process held; `fits`; and where it fits: `measured_bytes` (peak over the same mark),
        `compile_seconds`, `step_milliseconds`, `tokens_per_second`, `projected_hours` (all
        steps, evaluations and checkpoints left out).

    Raises:
        InputError: as `pretrain`.
    """
    if config.strategy == "multi_worker":
        raise InputError(
            "a dry run looks at one machine: give --strategy=one_device, or mirrored, and the "
            "share of train_batch_size that one worker has"
        )
    free, held = faults.free_bytes(), peak_memory_bytes()
    trainer = Trainer(config)
    encoder = trainer.encoder_config
    rows = trainer.rows_at_a_time
    memory = accounting.training_memory_bytes(encoder, trainer.length, trainer.predictions, rows)
    found = {
        "pattern": encoder.block_pattern,
        "parameters": accounting.count_parameters(encoder),
        "head_parameters": accounting.masked_lm_head_parameters(encoder),
        "rows": rows,
        "estimated_bytes": memory["total"],
        "free_bytes": free,
        "fits": memory["total"] <= free,
    }
    if not found["fits"]:
        return found
    seconds = []
    with trainer.memory_advice():
        batches = iter(trainer.batches(0))
        for _ in range(1 + _TIMED_STEPS):
            start = time.perf_counter()
            trainer.step(next(batches))
            seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[1:])
    return {
        **found,
        "measured_bytes": peak_memory_bytes() - held,
        "compile_seconds": seconds[0],
        "step_milliseconds": 1000 * step,
        "tokens_per_second": config.train_batch_size * trainer.length / step,
        "projected_hours": (seconds[0] + config.num_train_steps * step) / 3600,
    }


def describe(found: dict[str, Any]) -> str:
    """The lines that `--dry_run` prints."""
    gib = {name: found[name] / 2**30 for name in found if name.endswith("_bytes")}
    lines = [
        f"{found['pattern']}: {found['parameters']:,} parameters, "
        f"{found['head_parameters']:,} more in the head",
        f"memory: {gib['estimated_bytes']:.2f} GiB estimated for {found['rows']} rows at a time, "
        f"{gib['free_bytes']:.2f} GiB free",
    ]
    if not found["fits"]:
        return "\n".join([*lines, "it does not fit: raise --gradient_accumulation_steps"])
    return "\n".join(
        [
            *lines,
            f"measured: {gib['measured_bytes']:.2f} GiB, {found['step_milliseconds']:.1f} ms a "
            f"step, {found['tokens_per_second']:,.0f} tokens a second "
            f"(compilation {found['compile_seconds']:.1f} s)",
            f"projected: {found['projected_hours']:.2f} hours",
        ]
    )
