"""Held-out scores of a pre-training run, with the losses of the neighbour model."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from undivided_tf.metrics import inference
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import optimizers
from undivided_tf.training.steps import Steps


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out rows with fixed masks.

    Attributes:
        rows: result of `masking.validation_arrays`.
        neighbour_losses: float32 `(rows, predictions)`, losses of the neighbour model at the masked
            places in nats, 0 in unused slots.
        tokenizer: of the records.
    """

    rows: dict[str, np.ndarray]
    neighbour_losses: np.ndarray
    tokenizer: Tokenizer

    @functools.cached_property
    def shows_mask(self) -> np.ndarray:
        """Bool `(rows, predictions)`: the places to predict that show [MASK].

        Other places show the piece itself or a random one, which an encoder sees and the neighbour
        model ignores.
        """
        rows = self.rows
        shown = np.take_along_axis(rows["token_ids"], rows["masked_positions"], axis=1)
        return (rows["masked_weights"] > 0) & (shown == self.tokenizer.mask_id)

    @property
    def neighbour_model_loss(self) -> float:
        """Mean loss of the neighbour model over all masked places, in nats."""
        return float(_sum(self.neighbour_losses) / _sum(self.rows["masked_weights"]))


def _sum(values: np.ndarray) -> np.floating:
    return values.sum(dtype=np.float64)


def place_losses(steps: Steps, batches: Any) -> tuple[dict[str, float], np.ndarray]:
    """Evaluates batches: the totals of `steps.sums`, and the loss of each place in nats.

    Returns:
        The totals; float32 `(rows, predictions)`, including rows that pad the last batch.
    """
    totals = dict.fromkeys(steps.sums, 0.0)
    places = []
    for batch in batches:
        sums, losses = steps.evaluate(batch)
        for name, value in sums.items():
            totals[name] += float(value)
        places.append(losses.numpy())
    return totals, np.concatenate(places)


def scores(steps: Steps, held_out: HeldOut, batches: Any) -> dict[str, float | int | bool | None]:
    """Loss and accuracy over masked tokens, and over labels of pairs, if there are any.

    With a teacher also the distillation losses, see `Distillation.scores`.

    Args:
        steps: compiled steps of the model.
        held_out: the rows.
        batches: the rows as batches of `Curriculum.validation_batches`.

    Returns:
        `loss` and `neighbour_model_loss`: nats per masked token, of the model and of the neighbour
        model with the same masks. `loss_at_mask` and `neighbour_model_loss_at_mask`: the same, over
        only the places that show [MASK]; None if there is no such place. `accuracy` and
        `masked_tokens`. `excess_bound`: the one-sided 95 % upper bound of `loss` minus
        `neighbour_model_loss` (nats, bootstrap over rows; None for a single row). `learnt`: whether
        this bound is below 0; None if the head is not trained, since its loss then says nothing
        about the encoder.
    """
    totals, losses = place_losses(steps, batches)
    losses = losses[: len(held_out.neighbour_losses)]
    weights = held_out.rows["masked_weights"]
    excess = (losses - held_out.neighbour_losses).sum(axis=1, dtype=np.float64)
    bound = inference.bootstrap_upper_bound(excess, weights.sum(axis=1))
    scores = {
        "loss": totals["loss"] / totals["weight"],
        "accuracy": totals["correct"] / totals["weight"],
        "masked_tokens": int(totals["weight"]),
        "neighbour_model_loss": held_out.neighbour_model_loss,
        "loss_at_mask": _mean(losses, held_out.shows_mask),
        "neighbour_model_loss_at_mask": _mean(held_out.neighbour_losses, held_out.shows_mask),
        "excess_bound": bound,
        "learnt": bound is not None and bound < 0,
    }
    if not steps.model.masked_lm_head.trainable:
        scores["learnt"] = None
    if steps.next_sentence_weight:
        pairs = totals["sequences"]
        scores["next_sentence_loss"] = totals["next_sentence_loss"] / pairs
        scores["next_sentence_accuracy"] = totals["next_sentence_correct"] / pairs
    if steps.distillation:
        scores |= steps.distillation.scores(totals)
    return scores


def _mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
    return float(values[chosen].mean(dtype=np.float64)) if chosen.any() else None


def loss_text(steps: Steps, sums: dict[str, float], neighbours: float) -> str:
    """The loss of a step as text: the distillation loss if masked tokens have no weight.

    Args:
        steps: compiled steps.
        sums: result of the step.
        neighbours: loss of the neighbour model on the held-out rows.
    """
    if steps.masked_lm_weight:
        return f"loss {sums['loss'] / sums['weight']:.2f}, neighbours {neighbours:.2f}"
    loss = steps.distillation.scores(sums)["distillation_loss"]
    return f"distillation loss {loss:.4f}"


@contextlib.contextmanager
def averaged_weights(model: Any, optimizer: Any) -> Iterator[None]:
    """Gives the model the moving averages of its weights; restores the weights at the end."""
    variables = model.trainable_variables
    weights = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, optimizers.averages(optimizer), strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
