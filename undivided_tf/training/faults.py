"""What a run says and does when it is told to stop, computes NaN, or runs out of memory."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from undivided_tf import accounting
from undivided_tf.errors import InputError
from undivided_tf.pretraining_recipes import PretrainingConfig


class StopRequest:
    """Whether SIGTERM, the notice of pre-emption, has come."""

    def __init__(self):
        self.came = False


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Yields a StopRequest that SIGTERM sets; so the run can end its step and save first."""
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


def not_finite_report(model: Any, batch: dict[str, tf.Tensor], sums: dict[str, float]) -> str:
    """Where NaN or Inf begins: the first tap that is not finite, the gradient norm of each block.

    The batch goes through the model once more, with fresh dropout.

    Args:
        model: Pretrainer, with the weights from before the step.
        batch: the rows that this process had in the step.
        sums: what the step returned.
    """
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
    weights = [v.path for v in variables if not np.isfinite(np.asarray(v, np.float32)).all()]
    taps = model.encoder(batch, training=True, return_taps=True)["taps"]
    taps = {**taps, "masked_lm_logits": logits, "loss": loss}
    bad = [name for name, value in taps.items() if not np.isfinite(np.float32(value)).all()]
    norms = ", ".join(f"{block} {square**0.5:.3g}" for block, square in squares.items())
    return (
        f"loss sum {sums['loss']}, gradient norm {sums['gradient_norm']}\n"
        f"first tap not finite: {bad[0] if bad else 'none; the gradient overflowed'}\n"
        f"weights not finite: {', '.join(weights[:3]) or 'none'}\n"
        f"gradient norm by block: {norms}"
    )


@contextlib.contextmanager
def out_of_memory_advice(
    config: PretrainingConfig, encoder: Any, length: int, predictions: int, rows: int
) -> Iterator[None]:
    """Turns TensorFlow's ResourceExhaustedError into a message that helps.

    Args:
        config: the run.
        encoder: its EncoderConfig, with the vocabulary filled in.
        length: word pieces a row.
        predictions: masked positions a row.
        rows: whose activations a device holds at once.

    Raises:
        InputError: batch, length, pattern, estimated need, free memory and what to change.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        need = accounting.training_memory_bytes(encoder, length, predictions, rows)["total"]
        shape = re.search(r"shape\s*\[[\d,]+\]", str(error))
        raise InputError(
            f"out of memory ({shape.group() if shape else 'the allocation is not named'}): "
            f"{rows} rows at a time on a device (train_batch_size {config.train_batch_size}, "
            f"gradient_accumulation_steps {config.gradient_accumulation_steps}) x {length} word "
            f"pieces, pattern {encoder.block_pattern}\n"
            f"estimated need {need / 2**30:.2f} GiB, free now {free_bytes() / 2**30:.2f} GiB; "
            "another program may hold the rest\nany of these helps:\n  "
            + "\n  ".join(_savings(config, encoder, length, predictions, rows))
        ) from error


def _savings(
    config: PretrainingConfig, encoder: Any, length: int, predictions: int, rows: int
) -> Sequence[str]:
    """Three changes of flags, each with the need that would be left."""

    def need(length=length, predictions=predictions, rows=rows):
        memory = accounting.training_memory_bytes(encoder, length, predictions, rows)
        return f"{memory['total'] / 2**30:.2f} GiB"

    parts = 2 * config.gradient_accumulation_steps
    half = -(-rows // 2)
    return (
        f"--gradient_accumulation_steps={parts}: the same training, {need(rows=half)}",
        f"--train_batch_size={max(1, config.train_batch_size // 2)}: {need(rows=half)}",
        f"records made with --max_seq_length={length // 2}: "
        f"{need(length=length // 2, predictions=-(-predictions // 2))}",
    )


def free_bytes() -> int:
    """Memory that is free: of the first GPU when there is one, else of this machine."""
    if tf.config.list_logical_devices("GPU"):
        details = tf.config.experimental.get_memory_info("GPU:0")
        limit = tf.config.get_logical_device_configuration(
            tf.config.list_physical_devices("GPU")[0]
        )
        if limit and limit[0].memory_limit:
            return limit[0].memory_limit * 2**20 - details["current"]
    return psutil.virtual_memory().available
