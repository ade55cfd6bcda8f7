"""Predictions of the masked-language-model head: from every tap, and of whole sentences.

References:
    nostalgebraist 2020, "interpreting GPT: the logit lens" (the head applied to every layer).
    Salazar, Liang, Nguyen, Kirchhoff 2020, arXiv 1910.14659 (pseudo-log-likelihood).
    Wang, Cho 2019, arXiv 1902.04094.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.analysis import extraction
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import load_weights, read_weights
from undivided_tf.support import progress

HEAD = "masked_lm_head"
MASKED_SHARE = 0.15  # Share of the word pieces, as in Devlin et al.


def load_head(checkpoint: str, subject: Subject) -> Pretrainer | None:
    """The subject's encoder with the head of its checkpoint; None if there is no head.

    Args:
        checkpoint: as for `subjects.load`.
        subject: result of `subjects.load`.
    """
    path = checkpoints.resolve(checkpoint)
    if not any(name.startswith(f"{HEAD}/") for name in read_weights(path)):
        return None
    model = Pretrainer(subject.encoder)
    load_weights(model.masked_lm_head.weights, path, scope=HEAD)
    return model


def require_head(checkpoint: str, subject: Subject) -> Pretrainer:
    """As `load_head`, but InputError if there is no head."""
    model = load_head(checkpoint, subject)
    if model is None:
        raise InputError(
            f"{checkpoint} has no masked-language-model head: give a checkpoint of run_pretraining"
        )
    return model


@dataclasses.dataclass(frozen=True)
class Masked:
    """A minibatch with masked pieces.

    Attributes:
        inputs: inputs of the encoder.
        positions: `(texts, predictions)`, positions of masked pieces.
        ids: `(texts, predictions)`, the original pieces.
        weights: `(texts, predictions)`, 0 for unused slots.
    """

    inputs: dict[str, Any]
    positions: np.ndarray
    ids: np.ndarray
    weights: np.ndarray


def logit_lens(
    model: Pretrainer,
    subject: Subject,
    rows: Rows,
    *,
    batch_size: int,
    max_seq_length: int,
    top: int,
    seed: int,
) -> dict[str, Any]:
    """Loss and top-k accuracy of the head on every tap, at the same masked pieces.

    The head was trained on the last tap only. A high loss at a lower tap does not mean that the
    information is absent, only that the head cannot read it in this form. With pre-norm the final
    LayerNorm is applied to every tap first.

    Args:
        model: see `load_head`.
        subject: the encoder.
        rows: texts.
        batch_size: texts per forward pass.
        max_seq_length: word pieces per text.
        top: k of the accuracy.
        seed: decides which pieces are masked.

    Returns:
        `loss` (nats), `accuracy` and `top_accuracy` (one per tap), `top`, `masked_tokens`.

    Raises:
        InputError: as `rank.measure_blocks`, or no text has a word piece to mask.
    """
    encoder = subject.encoder
    names = list(encoder.config.pattern.tap_names)

    @tf.function(autograph=False)
    def forward(inputs, positions, ids, weights):
        taps = encoder(inputs, training=False, return_taps=True)["taps"]
        return [_scores(model, taps[name], positions, ids, weights, top) for name in names]

    sums, masked_tokens = np.zeros((len(names), 3)), 0
    for batch in masked_batches(subject, rows, batch_size, max_seq_length, seed):
        scores = forward(batch.inputs, batch.positions, batch.ids, batch.weights)
        sums += np.array([[float(value) for value in tap] for tap in scores])
        masked_tokens += int(batch.weights.sum())
    if not masked_tokens:
        raise InputError("no text has a word piece to mask: take more or longer texts")
    loss, accuracy, top_accuracy = (sums / masked_tokens).T.tolist()
    return {
        "loss": loss,
        "accuracy": accuracy,
        "top_accuracy": top_accuracy,
        "top": top,
        "masked_tokens": masked_tokens,
    }


def _scores(
    model: Pretrainer,
    tap: tf.Tensor,
    positions: tf.Tensor,
    ids: tf.Tensor,
    weights: tf.Tensor,
    top: int,
) -> list[tf.Tensor]:
    """Sums over the masked pieces: loss, number of correct ones, number among the top k."""
    if model.encoder.final_layer_norm:
        tap = model.encoder.final_layer_norm(tap)
    logits = model.masked_lm_head(
        tap, positions, model.encoder.embeddings.word_embeddings.embeddings
    )
    true = tf.gather(logits, ids, batch_dims=2)[..., None]
    losses = tf.reduce_logsumexp(logits, -1) - true[..., 0]
    above = tf.reduce_sum(tf.cast(logits > true, tf.float32), -1)
    return [
        tf.reduce_sum(value * weights)
        for value in (losses, tf.cast(above < 1, tf.float32), tf.cast(above < top, tf.float32))
    ]


def masked_batches(
    subject: Subject, rows: Rows, batch_size: int, max_seq_length: int, seed: int
) -> Iterator[Masked]:
    """Replaces the chosen pieces of each text by [MASK]; at least one per text with pieces."""
    tokenizer = subject.tokenizer
    slots = max(1, round(MASKED_SHARE * max_seq_length))
    row = 0
    for inputs, size in extraction.batches(
        subject.encoder, tokenizer, rows, batch_size, max_seq_length
    ):
        inputs = {name: value.numpy() for name, value in extraction.cut(inputs).items()}
        ids = inputs["token_ids"]
        shape = (len(ids), slots)
        positions, true, weights = (np.zeros(shape, dtype) for dtype in (np.int32, np.int32, "f"))
        for i in range(size):
            places = np.flatnonzero(~tokenizer.is_special[ids[i]])
            count = min(len(places), max(1, round(MASKED_SHARE * len(places))))
            chosen = np.sort(np.random.default_rng((seed, row + i)).permutation(places)[:count])
            positions[i, :count], true[i, :count] = chosen, ids[i, chosen]
            weights[i, :count] = 1
            ids[i, chosen] = tokenizer.mask_id
        row += size
        yield Masked(inputs, positions, true, weights)


def pseudo_log_likelihoods(
    model: Pretrainer,
    subject: Subject,
    sentences: Sequence[str],
    *,
    batch_size: int,
    max_seq_length: int,
) -> np.ndarray:
    """For each sentence the sum of the log-probabilities of its pieces, each masked alone.

    Args:
        model: see `load_head`.
        subject: the encoder.
        sentences: texts.
        batch_size: masked copies of sentences per forward pass.
        max_seq_length: word pieces per sentence.

    Returns:
        Nats, float64 `(sentences,)`.

    Raises:
        InputError: a sentence is longer than `max_seq_length`, or has no word piece.

    References:
        Salazar et al. 2020, eq. 1.
    """
    tokenizer = subject.tokenizer
    subject.encoder.config.require_length(max_seq_length)
    pieces = tokenizer.tokenize(list(sentences)).to_list() if sentences else []
    for sentence, ids in zip(sentences, pieces, strict=True):
        if not 0 < len(ids) <= max_seq_length - 2:
            raise InputError(
                f"{sentence!r} has {len(ids)} word pieces; from 1 to max_seq_length - 2 = "
                f"{max_seq_length - 2} can be scored"
            )

    @tf.function(autograph=False)
    def forward(inputs, positions, ids):
        encoded = subject.encoder(inputs, training=False)["sequence_output"]
        logits = model.masked_lm_head(
            encoded, positions, subject.encoder.embeddings.word_embeddings.embeddings
        )
        return tf.gather(tf.nn.log_softmax(logits), ids, batch_dims=2)[:, 0]

    # Sentences of similar length share a batch, so that it has little padding.
    copies = [
        (s, p) for s in np.argsort([len(ids) for ids in pieces]) for p in range(len(pieces[s]))
    ]
    totals = np.zeros(len(pieces))
    with progress.bar(len(copies), "pseudo-log-likelihood", "masked pieces") as bar:
        for start in range(0, len(copies), batch_size):
            batch = copies[start : start + batch_size]
            ids = np.full((batch_size, max_seq_length), tokenizer.pad_id, np.int32)
            mask, true = np.zeros_like(ids), np.zeros((batch_size, 1), np.int32)
            positions = np.ones((batch_size, 1), np.int32)
            mask[len(batch) :, 0] = 1  # Padding rows need a token.
            for i, (sentence, place) in enumerate(batch):
                row = [tokenizer.cls_id, *pieces[sentence], tokenizer.sep_id]
                ids[i, : len(row)], mask[i, : len(row)] = row, 1
                positions[i], true[i] = place + 1, row[place + 1]
                ids[i, place + 1] = tokenizer.mask_id
            inputs = {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}
            inputs = extraction.cut({name: tf.constant(value) for name, value in inputs.items()})
            values = forward(inputs, positions, true).numpy()[: len(batch)]
            np.add.at(totals, [sentence for sentence, _ in batch], values)
            bar.update(len(batch))
    return totals
