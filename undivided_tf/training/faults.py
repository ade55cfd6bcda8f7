"""Handling of SIGTERM, NaN and lack of memory in a run."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.training import memory
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.curriculum import Need


class StopRequest:
    """Whether the process got SIGTERM, the signal of pre-emption."""

    def __init__(self):
        self.came = False


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Yields a StopRequest that SIGTERM sets, so that the run can finish its step and save."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Only the main thread may set handlers.
        return

    def note(number, frame):
        request.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)


def not_finite_report(
    model: Any, parts: Iterable[dict[str, tf.Tensor]], sums: dict[str, float]
) -> str:
    """Locates NaN or Inf: the first tap that is not finite, the gradient norm of each block.

    The rows are computed again, with new dropout, up to the first part with a value that is not
    finite.

    Args:
        model: Pretrainer, with the weights from before the step.
        parts: the rows of this process in the step, in parts that fit into memory.
        sums: result of the step.
    """
    for part in parts:
        taps, squares = _taps_and_squares(model, part)
        bad = [name for name, value in taps.items() if not np.isfinite(np.float32(value)).all()]
        if bad or not np.isfinite(list(squares.values())).all():
            break
    weights = [
        variable.path
        for variable in model.trainable_variables
        if not np.isfinite(np.asarray(variable, np.float32)).all()
    ]
    norms = ", ".join(f"{block} {square**0.5:.3g}" for block, square in squares.items())
    return (
        f"loss sum {sums['loss']}, gradient norm {sums['gradient_norm']}\n"
        f"first tap not finite: {bad[0] if bad else 'none; the gradient overflowed'}\n"
        f"weights not finite: {', '.join(weights[:3]) or 'none'}\n"
        f"gradient norm by block: {norms}"
    )


def _taps_and_squares(
    model: Any, batch: dict[str, tf.Tensor]
) -> tuple[dict[str, tf.Tensor], dict[str, float]]:
    """All taps, logits and loss of some rows, and the squared gradient norm of each block."""
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True)
        logits = outputs["masked_lm_logits"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["masked_ids"], logits)
        weight = tf.maximum(tf.reduce_sum(batch["masked_weights"]), 1.0)
        loss = tf.reduce_sum(losses * batch["masked_weights"]) / weight
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    squares: dict[str, float] = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            first, *rest = variable.path.split("/")
            block = rest[0] if first == model.encoder.name else first
            norm = float(tf.linalg.global_norm([gradient]))
            squares[block] = squares.get(block, 0.0) + norm * norm
    taps = model.encoder(batch, training=True, return_taps=True)["taps"]
    return {**taps, "masked_lm_logits": logits, "loss": loss}, squares


@contextlib.contextmanager
def out_of_memory_advice(
    run: PretrainingConfig, encoder: EncoderConfig, needs: Sequence[Need]
) -> Iterator[None]:
    """Turns TensorFlow's ResourceExhaustedError into an InputError with advice.

    Args:
        run: the run.
        encoder: its encoder, with the vocabulary filled in.
        needs: of its stages; the message is about the largest.

    Raises:
        InputError: batch, length, pattern, estimated need, free memory and what to change.
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
    length, predictions, rows = need.length, need.predictions, need.rows
    parts, half = 2 * run.gradient_accumulation_steps, -(-rows // 2)
    accumulating = run.replace(gradient_accumulation_steps=parts)
    size = max(1, need.stage.batch_size // 2)
    changes = [
        ("--recompute: the same training", run.replace(recompute=True), length, predictions, rows),
        (
            f"--gradient_accumulation_steps={parts}: the same training",
            accumulating,
            length,
            predictions,
            half,
        ),
        (f"{_batch_flag(need)}={size}", run, length, predictions, half),
        (
            f"records made with --max_seq_length={length // 2}",
            run,
            length // 2,
            -(-predictions // 2),
            rows,
        ),
    ]
    left = [(what, memory.of_run(one, encoder, *sizes)["total"]) for what, one, *sizes in changes]
    return [f"{what}, {_gib(total)}" for what, total in left if total < need.bytes]


def _batch_flag(need: Need) -> str:
    """The flag that sets the batch size of the stage."""
    first = need.stage.first_step
    return f"the batch of --curriculum from step {first}" if first else "--train_batch_size"


def _gib(number: int) -> str:
    return f"{number / 2**30:.2f} GiB"


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
