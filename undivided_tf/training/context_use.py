"""Context use of an encoder: how much its loss rises if parts of the context are hidden.

The loss is measured at a sample of held-out places that show [MASK]. Each place is predicted in
several copies of its row with different visible pieces. Hidden pieces show [MASK]; [CLS], [SEP] and
padding stay, so every piece keeps its position.

An encoder was not trained on rows that are mostly hidden. So the loss at a short distance is an
upper bound of the loss that the pieces within this distance allow. Compare it with the loss of the
neighbour model, which uses the two adjacent pieces.

References:
    Khandelwal et al. 2018, arXiv 1805.04623 (shuffled and dropped context of language models).
"""

from typing import Any

import numpy as np

from undivided_tf.metrics import inference
from undivided_tf.training import evaluation
from undivided_tf.training.curriculum import Curriculum
from undivided_tf.training.evaluation import HeldOut
from undivided_tf.training.steps import Steps

DISTANCES = (1, 2, 4, 8, 16)
PLACES = 512  # Limits the time, since each place is a row of every measurement.


def measure(steps: Steps, curriculum: Curriculum) -> dict[str, Any] | None:
    """Measures the loss at a sample of places with parts of their rows hidden.

    Args:
        steps: compiled steps of the trained model.
        curriculum: of the run; its held-out rows are used.

    Returns:
        None if no held-out place shows [MASK]. Else `places` (their number); `loss` and
        `neighbour_model_loss` (nats) with the whole context; and a dict of `loss`, `rise` and
        `interval` (95 % bootstrap over places of the rise, None for a single place) for `shuffled`,
        where the visible pieces of a row are in random order, and for each entry of
        `hidden_beyond`, a list with `distance` k: pieces more than k places away are hidden.
        Distances that hide no piece are left out.
    """
    held_out = curriculum.held_out
    row, slot = np.nonzero(held_out.shows_mask)
    if not len(row):
        return None
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.permutation(len(row))[:PLACES])
    row, slot = row[chosen], slot[chosen]
    place = held_out.rows["masked_positions"][row, slot]
    ids = held_out.rows["token_ids"][row]
    is_piece = ~held_out.tokenizer.is_special[ids]

    def losses(token_ids: np.ndarray) -> np.ndarray:
        rows = _predicted_alone(held_out, row, slot, token_ids)
        batches = curriculum.validation_batches(steps.strategy, rows)
        _, per_place = evaluation.place_losses(steps, batches)
        return per_place[: len(row), 0].astype(np.float64)

    whole_context = losses(ids)

    def rise(token_ids: np.ndarray) -> dict[str, Any]:
        changed_context = losses(token_ids)
        rises = changed_context - whole_context
        return {
            "loss": float(changed_context.mean()),
            "rise": float(rises.mean()),
            "interval": inference.bootstrap_interval(rises),
        }

    distance = np.abs(np.arange(ids.shape[1]) - place[:, np.newaxis])
    hidden = {k: is_piece & (distance > k) for k in DISTANCES}
    mask_id = held_out.tokenizer.mask_id
    return {
        "places": len(row),
        "loss": float(whole_context.mean()),
        "neighbour_model_loss": float(held_out.neighbour_losses[row, slot].mean(dtype=np.float64)),
        "shuffled": rise(_shuffled(ids, is_piece, generator)),
        "hidden_beyond": [
            {"distance": k, **rise(np.where(hide, mask_id, ids))}
            for k, hide in hidden.items()
            if hide.any()
        ],
    }


def _predicted_alone(
    held_out: HeldOut, row: np.ndarray, slot: np.ndarray, token_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows like the held-out ones, with one place to predict in the first slot."""
    rows = {name: value[row] for name, value in held_out.rows.items()}
    alone = {"token_ids": token_ids.astype(rows["token_ids"].dtype)}
    for name in ("masked_positions", "masked_ids", "masked_weights"):
        alone[name] = np.zeros_like(rows[name])
        alone[name][:, 0] = rows[name][np.arange(len(row)), slot]
    return {**rows, **alone}


def _shuffled(ids: np.ndarray, is_piece: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Permutes the pieces of each row (true in `is_piece`) at random."""
    shuffled = ids.copy()
    for row, pieces in zip(shuffled, is_piece, strict=True):
        row[pieces] = generator.permutation(row[pieces])
    return shuffled


def lines(measured: dict[str, Any]) -> list[str]:
    """The measurements as lines of text."""
    rows = [("all context", measured["loss"], None)]
    rows += [
        (f"pieces within {point['distance']}", point["loss"], point["rise"])
        for point in reversed(measured["hidden_beyond"])
    ]
    rows += [("all, shuffled", measured["shuffled"]["loss"], measured["shuffled"]["rise"])]
    rows += [("neighbour model", measured["neighbour_model_loss"], None)]
    return [f"visible at {measured['places']} masked places: loss in nats, and its rise"] + [
        f"  {name:<16} {loss:7.3f}" + (f" {rise:+7.3f}" if rise is not None else "")
        for name, loss, rise in rows
    ]
