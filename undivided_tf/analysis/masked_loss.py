"""Held-out loss by mask rate and by class of the masked piece.

At a low mask rate the visible pieces around a masked piece largely determine it. At a high rate
there is little context, and for a rare piece the context says less than knowledge of the corpus. So
an encoder that stores more facts should have a larger lead at high rates and at rare pieces.

The rows, the places and what they show ([MASK], a random piece or the piece itself) depend on the
records and on the seed of the config alone. So two encoders are compared on the same pieces.

References:
    Geva et al. 2021, arXiv 2012.14913 (intermediate blocks as memories).
    Wettig et al. 2023, arXiv 2202.08005 (the rate of masks).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.analysis import masked_lm, subjects
from undivided_tf.analysis.config import MaskedLossConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data import masking
from undivided_tf.data.corpus import counts, records
from undivided_tf.data.corpus.ngrams import NgramCounts
from undivided_tf.errors import InputError
from undivided_tf.metrics import inference
from undivided_tf.metrics.neighbour_model import NeighbourModel
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.support import progress
from undivided_tf.tokenization import Tokenizer
from undivided_tf.workdir import results_once

FREQUENCIES = ("frequent", "middle", "rare")
CONTINUATION = "continuation"
CLASSES = (*FREQUENCIES, CONTINUATION)


def run_masked_loss(config: MaskedLossConfig) -> dict[str, Any]:
    """Measures a checkpoint.

    Args:
        config: names checkpoint and records; `config.workdir` receives config.json and
            results.json. Existing results are read instead.

    Returns:
        As `measure`.

    Raises:
        InputError: no checkpoint, a checkpoint without the head, no records, records that do not
            fit the encoder, or a workdir of another config.
    """

    def inputs() -> tuple[Subject, Pretrainer, NgramCounts]:
        subject = subjects.load(config.init_checkpoint)
        model = masked_lm.require_head(config.init_checkpoint, subject)
        records.check_records(config.records_dir, subject.encoder.config)
        return subject, model, counts.read_counts(config.records_dir)

    return results_once(config, inputs, lambda loaded: measure(*loaded, config))


def measure(
    subject: Subject, model: Pretrainer, corpus: NgramCounts, config: MaskedLossConfig
) -> dict[str, Any]:
    """Losses at held-out places, by mask rate and class.

    Args:
        subject: the encoder.
        model: the encoder with its head, see `masked_lm.load_head`.
        corpus: counts of the training rows.
        config: records, rates and sizes.

    Returns:
        `kind`, `encoder`; `held_out_rows` (number of different rows), `rows` (with repetitions, at
        each rate), `masked_pieces` (over all rates); `vocabulary` (number of pieces by name of the
        class); `all` (over all rates) and `rates` (a list with `rate`). Both have `pieces`, `loss`
        (nats per masked piece), its 95 % bootstrap interval over held-out rows `low` and `high`
        (None for a single row), `neighbour_model_loss` at the same places, and `classes`: the same
        five values by name of the class. If a class has no masked piece, all but `pieces` are None.

    Raises:
        InputError: no held-out row has a piece to mask, or a loss is not finite.
    """
    tokenizer = subject.tokenizer
    class_of = piece_classes(corpus.unigrams, tokenizer)
    neighbours = NeighbourModel(*corpus, ~tokenizer.is_special)
    losses = _losses_of(model)
    parts: list[list[np.ndarray]] = [[] for _ in config.mask_rates]
    rows, held_out_rows = 0, 0
    with progress.bar(config.masked_pieces, "held-out loss", "masked pieces") as bar:
        for masked in masked_rows(config, tokenizer):
            for part, batch in zip(parts, masked, strict=True):
                row, slot = np.nonzero(batch["masked_weights"])
                loss = losses(batch, config.batch_size)[row, slot]
                if not np.isfinite(loss).all():
                    raise InputError(
                        f"{np.count_nonzero(~np.isfinite(loss))} of {loss.size} losses are not "
                        "finite: the weights of the encoder are damaged"
                    )
                reference = neighbours.masked_losses(batch)[row, slot]
                piece_class = class_of[batch["masked_ids"][row, slot]]
                part.append(np.stack([row, piece_class, loss, reference]))
                bar.update(row.size)
            rows += len(masked[0]["token_ids"])
            held_out_rows = max(held_out_rows, len(masked[0]["token_ids"]))
    places = [np.concatenate(part, axis=1) for part in parts]
    return {
        "kind": "masked_loss",
        "encoder": subject.describe(),
        "rows": rows,
        "held_out_rows": held_out_rows,
        "masked_pieces": sum(part.shape[1] for part in places),
        "vocabulary": {
            name: int(np.count_nonzero(class_of == number)) for number, name in enumerate(CLASSES)
        },
        "all": _by_class(np.concatenate(places, axis=1)),
        "rates": [
            {"rate": rate, **_by_class(part)}
            for rate, part in zip(config.mask_rates, places, strict=True)
        ],
    }


def piece_classes(unigrams: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """The class of each word piece.

    Pieces that continue a word (`##ing`) are a class of their own, since the rest of the word gives
    them away. The others are sorted by their count in the training rows, equal ones by id, and cut
    where a third and two thirds of their occurrences are reached. So each of the classes frequent,
    middle and rare has about a third of the occurrences. Pieces that were never counted are rare.

    Args:
        unigrams: int `(vocab_size,)`, counts of the training rows.
        tokenizer: gives special pieces and continuations.

    Returns:
        int `(vocab_size,)`, places in `CLASSES`; -1 for special pieces.
    """
    classes = np.where(tokenizer.is_special, -1, CLASSES.index(CONTINUATION))
    begins = np.flatnonzero(~tokenizer.is_special & ~tokenizer.is_continuation)
    order = begins[np.argsort(-unigrams[begins], kind="stable")]
    occurrences = unigrams[order]
    # A piece belongs to the third that holds the middle of its occurrences.
    middle = np.cumsum(occurrences) - occurrences / 2
    share = middle / max(occurrences.sum(), 1)
    thirds = np.minimum((3 * share).astype(int), 2)
    classes[order] = np.where(occurrences > 0, thirds, 2)
    return classes


def masked_rows(
    config: MaskedLossConfig, tokenizer: Tokenizer
) -> Iterator[list[dict[str, np.ndarray]]]:
    """Held-out rows with masks, one batch per rate, until there are enough masked pieces.

    Each round has the same rows in the same order; the last one ends with the row that brings the
    pieces of all rates to `config.masked_pieces`. The rates of a round share their random numbers:
    a piece that is masked at one rate is masked in the same way at each higher rate.

    Raises:
        InputError: no row has a piece to mask.
    """
    missing, number = config.masked_pieces, 0
    # Each row with a piece has at least one masked piece per rate.
    most_rows = -(-missing // len(config.mask_rates))
    while missing > 0:
        masked = [
            masking.validation_arrays(
                config.records_dir,
                tokenizer,
                max_rows=most_rows,
                seed=(config.seed, number),
                masked_lm_prob=rate,
            )
            for rate in config.mask_rates
        ]
        pieces = sum(batch["masked_weights"].sum(axis=1).astype(int) for batch in masked)
        if not np.any(pieces):
            raise InputError(f"{config.records_dir}: no held-out row has a word piece to mask")
        needed = 1 + int(np.searchsorted(np.cumsum(pieces), missing))
        yield [{name: value[:needed] for name, value in batch.items()} for batch in masked]
        missing -= int(pieces[:needed].sum())
        number += 1


def _losses_of(model: Pretrainer) -> Callable[[dict[str, np.ndarray], int], np.ndarray]:
    """A function from masked rows and a batch size to their losses `(rows, predictions)`."""

    @tf.function(autograph=False)
    def forward(batch):
        logits = model(batch, training=False)["masked_lm_logits"]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(batch["masked_ids"], logits)

    def losses(rows, batch_size):
        batches = masking.full_batches(rows, batch_size)
        return np.concatenate([forward(batch).numpy() for batch in batches])[
            : len(rows["token_ids"])
        ]

    return losses


def _by_class(places: np.ndarray) -> dict[str, Any]:
    """Means and intervals of masked places.

    Args:
        places: `(4, places)`: row, class, loss, loss of the neighbour model.
    """
    return _mean(places) | {
        "classes": {
            name: _mean(places[:, places[1] == number]) for number, name in enumerate(CLASSES)
        }
    }


def _mean(places: np.ndarray) -> dict[str, Any]:
    row, _, loss, reference = places
    if not row.size:
        empty = dict.fromkeys(("loss", "low", "high", "neighbour_model_loss"))
        return {"pieces": 0, **empty}
    rows, number = np.unique(row, return_inverse=True)
    sums, weights = np.bincount(number, loss, rows.size), np.bincount(number)
    low, high = inference.bootstrap_ratio_interval(sums, weights) or (None, None)
    return {
        "pieces": int(row.size),
        "loss": float(loss.mean()),
        "low": low,
        "high": high,
        "neighbour_model_loss": float(reference.mean()),
    }
