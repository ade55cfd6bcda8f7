"""Memory of the device that trains: free and peak bytes, and advice when it does not suffice.

`memory` estimates the need of a run.
"""

import contextlib
import pathlib
import re
import resource
import sys
from collections.abc import Iterator, Sequence

import psutil
import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.training import memory
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.curriculum import Need


def free_bytes() -> int:
    """Free memory of the first GPU, or of this machine if there is no GPU."""
    if tf.config.list_logical_devices("GPU"):
        details = tf.config.experimental.get_memory_info("GPU:0")
        limit = tf.config.get_logical_device_configuration(
            tf.config.list_physical_devices("GPU")[0]
        )
        if limit and limit[0].memory_limit:
            return limit[0].memory_limit * 2**20 - details["current"]
    return psutil.virtual_memory().available


def peak_bytes() -> int:
    """Peak resident memory of this process, or memory of its GPU, if there is one."""
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # On Linux, getrusage includes the parent's peak.
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def out_of_memory_advice(
    run: PretrainingConfig, encoder: EncoderConfig, needs: Sequence[Need]
) -> Iterator[None]:
    """Turns TensorFlow's ResourceExhaustedError into an InputError with advice.

    Args:
        run: the run.
        encoder: its encoder, with the vocabulary of the records.
        needs: memory needs of its stages; the message is about the largest.

    Raises:
        InputError: names batch, length, pattern, estimated need, free memory and what to change.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        need = max(needs, key=lambda need: need.bytes)
        shape = re.search(r"shape\s*\[[\d,]+\]", str(error))
        raise InputError(
            f"out of memory ({shape.group() if shape else 'the allocation is not named'}): "
            f"{need.rows} rows at a time on a device ({_batch_flag(need)} {need.stage.batch_size}, "
            f"gradient_accumulation_steps {run.gradient_accumulation_steps}) x {need.length} word "
            f"pieces, pattern {encoder.block_pattern}\n"
            f"estimated need {_gib(need.bytes)}, free now {_gib(free_bytes())}; another program "
            "may hold the rest\nany of these helps:\n  " + "\n  ".join(_savings(run, encoder, need))
        ) from error


def _savings(run: PretrainingConfig, encoder: EncoderConfig, need: Need) -> list[str]:
    """Changes of flags that lower the memory need, each with the resulting need."""
    parts = 2 * run.gradient_accumulation_steps
    sizes = need.length, need.predictions, need.rows
    half_rows = need.length, need.predictions, -(-need.rows // 2)
    half_length = need.length // 2, -(-need.predictions // 2), need.rows
    changes = [
        ("--recompute: the same training", run.replace(recompute=True), sizes),
        (
            f"--gradient_accumulation_steps={parts}: the same training",
            run.replace(gradient_accumulation_steps=parts),
            half_rows,
        ),
        (f"{_batch_flag(need)}={max(1, need.stage.batch_size // 2)}", run, half_rows),
        (f"records made with --max_seq_length={half_length[0]}", run, half_length),
    ]
    totals = [
        (text, memory.of_run(changed, encoder, *sizes)["total"]) for text, changed, sizes in changes
    ]
    return [f"{text}, {_gib(total)}" for text, total in totals if total < need.bytes]


def _batch_flag(need: Need) -> str:
    """The flag that sets the batch size of the stage."""
    first = need.stage.first_step
    return f"the batch of --curriculum from step {first}" if first else "--train_batch_size"


def _gib(number: int) -> str:
    return f"{number / 2**30:.2f} GiB"
