"""Held-out scores of a pre-training run, of its weights and of their moving average."""

import contextlib
from collections.abc import Iterator
from typing import Any

from undivided_tf.training import optimizers
from undivided_tf.training.steps import Steps


def scores(steps: Steps, batches: Any) -> dict[str, float]:
    """Loss (nats) and accuracy over masked tokens, and over the labels of pairs if there are any.

    With a teacher what sets the student apart from it too, see `Distillation.scores`.

    Args:
        steps: compiled steps of the model.
        batches: what `Curriculum.validation_batches` gives.
    """
    totals = dict.fromkeys(steps.sums, 0.0)
    for batch in batches:
        for name, value in steps.evaluate(batch).items():
            totals[name] += float(value)
    found = {
        "loss": totals["loss"] / totals["weight"],
        "accuracy": totals["correct"] / totals["weight"],
        "masked_tokens": int(totals["weight"]),
    }
    if steps.next_sentence_weight:
        pairs = totals["sequences"]
        found["next_sentence_loss"] = totals["next_sentence_loss"] / pairs
        found["next_sentence_accuracy"] = totals["next_sentence_correct"] / pairs
    if steps.distillation:
        found |= steps.distillation.scores(totals)
    return found


def brief(steps: Steps, sums: dict[str, float]) -> str:
    """The loss of a training step in words: the teacher's where masked tokens have no weight."""
    if steps.masked_lm_weight:
        return f"loss {sums['loss'] / sums['weight']:.3f}"
    found = steps.distillation.scores(sums)
    return f"distillation loss {found['distillation_loss']:.4f}"


@contextlib.contextmanager
def averaged_weights(model: Any, optimizer: Any) -> Iterator[None]:
    """The model has the moving average of its weights inside, its own again behind."""
    variables = model.trainable_variables
    own = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, optimizers.averages(optimizer), strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
