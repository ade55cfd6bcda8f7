"""What the removal of intermediate blocks costs, measured on one encoder that is traced once.

A block whose scale is 0 passes its input on, as if it were cut out (`Encoder.call`), so no encoder
is built for a cut that is only tried. LayerNorms are folded as in a cut (`folded_layer_norms`) and
restored after the measurement.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from undivided_tf.analysis import extraction, linear_probes
from undivided_tf.analysis.masked_lm import masked_batches
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.rows import Rows, Task
from undivided_tf.errors import InputError
from undivided_tf.metrics import regression
from undivided_tf.models.classifier import Classifier, pool
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead
from undivided_tf.models.pretrainer import Pretrainer, masked_lm_sums
from undivided_tf.models.weights import named_weights
from undivided_tf.surgery.operations import folded_layer_norms
from undivided_tf.surgery.order import Damage, intermediate_blocks
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import scores

Batch = dict[str, Any]
# From the names of dropped blocks to mean-pooled last states, float32 `(rows, hidden)`.
States = Callable[[Sequence[str]], np.ndarray]
_INVERSE_L2 = 0.1  # Suits a logistic regression on a few hundred standardised states.


def _scales(encoder: Encoder, dropped: Sequence[str], rows: int) -> tf.Tensor:
    """0 for dropped blocks, 1 for the others: float32 `(rows, intermediate blocks)`."""
    names = intermediate_blocks(encoder.config.pattern)
    return tf.tile([[float(name not in dropped) for name in names]], [rows, 1])


def _without(encoder: Encoder, dropped: Sequence[str], batch: Batch) -> Batch:
    return {**batch, "intermediate_scales": _scales(encoder, dropped, len(batch["token_ids"]))}


@contextlib.contextmanager
def _folded(encoder: Encoder, dropped: Sequence[str], fold: bool) -> Iterator[None]:
    """The encoder with the LayerNorms that it has after a cut."""
    norms = {n: v for n, v in named_weights(encoder.weights).items() if "/layer_norm/" in n}
    before = {name: np.asarray(variable) for name, variable in norms.items()}
    changed = folded_layer_norms(encoder.config, before, dropped) if fold else {}
    for name, value in changed.items():
        norms[name].assign(value)
    try:
        yield
    finally:
        for name in changed:
            norms[name].assign(before[name])


# === Held-out text ===


def masked_lm_damage(
    model: Pretrainer, batches: Iterable[Batch], fold_layer_norms: bool = True
) -> Damage:
    """Held-out loss in nats per masked piece.

    Args:
        model: encoder and masked-language-model head.
        batches: masked batches, such as those of `text_batches`; they are kept in memory.
        fold_layer_norms: see `operate`.
    """
    batches = list(batches)

    @tf.function(autograph=False)
    def forward(batch):
        logits = model(batch, training=False)["masked_lm_logits"]
        return masked_lm_sums(logits, batch["masked_ids"], batch["masked_weights"])

    def damage(dropped: Sequence[str]) -> float:
        with _folded(model.encoder, dropped, fold_layer_norms):
            sums = [forward(_without(model.encoder, dropped, batch)) for batch in batches]
        loss, weight = (sum(float(batch[name]) for batch in sums) for name in ("loss", "weight"))
        if not weight:
            raise InputError("no text has a word piece to mask: take more or longer texts")
        return loss / weight

    return damage


def text_batches(
    subject: Subject, rows: Rows, batch_size: int, max_seq_length: int, seed: int
) -> Iterator[Batch]:
    """Masked batches of texts."""
    for batch in masked_batches(subject, rows, batch_size, max_seq_length, seed):
        yield {
            **{name: tf.constant(value) for name, value in batch.inputs.items()},
            "masked_positions": tf.constant(batch.positions),
            "masked_ids": tf.constant(batch.ids),
            "masked_weights": tf.constant(batch.weights),
        }


# === Labelled rows ===


def head_damage(
    classifier: Classifier,
    head: ClassifierHead,
    tokenizer: Tokenizer,
    task: Task,
    rows: Rows,
    batch_size: int,
    max_seq_length: int,
    fold_layer_norms: bool = True,
) -> Damage:
    """1 - score of a fine-tuned model on the task, by its own head.

    Raises:
        InputError: the head predicts or takes something else than the task has.
    """
    try:
        order = head.columns_for(scores.head_of(task))
    except InputError as error:
        raise InputError(f"{error}: give the --task that it was fine-tuned on") from error
    sizes = (batch_size, max_seq_length, fold_layer_norms)
    logits = _outputs(classifier.encoder, tokenizer, rows, *sizes, classifier)

    def damage(dropped: Sequence[str]) -> float:
        return 1 - scores.score(task, logits(dropped)[:, order], rows.labels)[scores.primary(task)]

    return damage


def probe_damage(states: States, labels: np.ndarray, scored: np.ndarray) -> Damage:
    """1 - accuracy of a logistic regression on mean-pooled last states, fitted for each cut.

    Args:
        states: states of the rows, see `pooled_states`.
        labels: int `(rows,)`.
        scored: bool `(rows,)`, the rows on which it is scored; it is fitted on the others.
    """

    def damage(dropped: Sequence[str]) -> float:
        features = states(dropped)
        model, _ = linear_probes.fit(features[~scored], labels[~scored], _INVERSE_L2)
        predictions = model.predict(features[scored].astype(np.float64))
        return float(np.mean(predictions != labels[scored]))

    return damage


def drift_damage(states: States, whole: np.ndarray) -> Damage:
    """Mean of 1 - cosine between mean-pooled last states and those of the whole encoder.

    Args:
        states: states of the rows, see `pooled_states`.
        whole: states of the whole encoder, float `(rows, hidden)`.
    """
    target = _unit(whole)
    return lambda dropped: float(np.mean(1 - (_unit(states(dropped)) * target).sum(1)))


def error_damage(states: States, whole: np.ndarray) -> Damage:
    """Squared error of mean-pooled last states, over their variance in the whole encoder.

    Args:
        states: states of the rows, see `pooled_states`.
        whole: states of the whole encoder, float `(rows, hidden)`.
    """
    variance = np.mean(np.var(whole, axis=0))
    return lambda dropped: float(np.mean(np.square(states(dropped) - whole)) / variance)


def similarity_damage(states: States, similarity: np.ndarray) -> Damage:
    """1 - Spearman's correlation of scores with cosines of mean-pooled last states; no training.

    Args:
        states: states of the first texts of all pairs, then of the second texts, each encoded
            alone.
        similarity: how similar the texts of each pair are, float `(pairs,)`.

    References:
        Reimers, Gurevych 2019, arXiv 1908.10084, section 4.1 (unsupervised STS).
    """

    def damage(dropped: Sequence[str]) -> float:
        first, second = np.split(_unit(states(dropped)), 2)
        return 1 - regression.score((first * second).sum(1), similarity)["spearman"]

    return damage


def _unit(states: np.ndarray) -> np.ndarray:
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def pooled_states(
    encoder: Encoder,
    tokenizer: Tokenizer,
    rows: Rows,
    batch_size: int,
    max_seq_length: int,
    fold_layer_norms: bool = True,
) -> States:
    """A function from the names of dropped blocks to the mean-pooled last states of texts.

    Args:
        encoder: the whole encoder.
        tokenizer: tokenizer of the encoder.
        rows: texts.
        batch_size: texts per forward pass.
        max_seq_length: word pieces per text.
        fold_layer_norms: see `operate`.
    """

    def mean(inputs):
        return pool(encoder(inputs, training=False), inputs, "mean")

    return _outputs(encoder, tokenizer, rows, batch_size, max_seq_length, fold_layer_norms, mean)


def _outputs(
    encoder: Encoder,
    tokenizer: Tokenizer,
    rows: Rows,
    batch_size: int,
    max_seq_length: int,
    fold_layer_norms: bool,
    call: Callable[[Batch], tf.Tensor],
) -> Callable[[Sequence[str]], np.ndarray]:
    """A function from the names of dropped blocks to the outputs of `call` for the rows."""
    # Texts of similar length share a batch, so that little of it is padding.
    lengths = [len(text) for text in rows.first]
    if rows.second is not None:
        lengths = [a + len(text) for a, text in zip(lengths, rows.second, strict=True)]
    order = np.argsort(lengths, kind="stable")
    rows = rows.pick(order)
    batches = [
        (extraction.cut(inputs), size)
        for inputs, size in extraction.batches(encoder, tokenizer, rows, batch_size, max_seq_length)
    ]
    forward = tf.function(call, autograph=False)

    def outputs(dropped: Sequence[str]) -> np.ndarray:
        with _folded(encoder, dropped, fold_layer_norms):
            parts = [
                forward(_without(encoder, dropped, inputs)).numpy()[:n] for inputs, n in batches
            ]
        return np.concatenate(parts)[np.argsort(order)]

    return outputs
