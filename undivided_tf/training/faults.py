"""Handling of SIGTERM and of NaN in a run."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf


class StopRequest:
    """Whether the process got SIGTERM, the signal of pre-emption."""

    def __init__(self):
        self.received = False


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Yields a StopRequest, so that a run that gets SIGTERM can finish its step and save."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Only the main thread may set handlers.
        return

    def receive(number, frame):
        request.received = True

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)


def not_finite_report(
    model: Any, parts: Iterable[dict[str, tf.Tensor]], sums: dict[str, float]
) -> str:
    """Describes where a step has NaN or Inf: in taps, weights and gradient norms of blocks.

    The rows are computed again, with new dropout, up to the first part with such a value.

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
