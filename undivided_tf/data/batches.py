"""Batches of labelled rows, tokenized once; optionally grouped by length."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from undivided_tf.data import streams
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.tokenization import Tokenizer

POOL = 32  # Batches whose rows are sorted by length together: less padding, still random.


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """The word pieces of some rows.

    Attributes:
        inputs: the encoder's inputs, int32 `(rows, max_seq_length)` each.
        lengths: word pieces per row, special tokens included, `(rows,)`.
        labels: labels of the rows, or None.
    """

    inputs: Mapping[str, tf.Tensor]
    lengths: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(
        self, places: np.ndarray, pad_to_multiple_of: int, with_labels: bool
    ) -> tf.data.Dataset:
        """Batches of the rows at some indices.

        Args:
            places: indices of rows, `(batches, batch_size)`.
            pad_to_multiple_of: cut a batch to its longest row, rounded up to a multiple of this;
                0: keep `max_seq_length`, so that all shapes are equal.
            with_labels: yield (inputs, labels (batch,)) instead of inputs (batch, length).
        """
        max_length = self.inputs["token_ids"].shape[1]
        lengths = tf.constant(self.lengths, tf.int32)
        labels = tf.constant(self.labels) if with_labels else None

        @tf.autograph.experimental.do_not_convert
        def batch(chosen):
            inputs = {name: tf.gather(ids, chosen) for name, ids in self.inputs.items()}
            if pad_to_multiple_of:
                longest = tf.reduce_max(tf.gather(lengths, chosen))
                step = pad_to_multiple_of
                width = tf.minimum(max_length, (longest + step - 1) // step * step)
                inputs = {name: ids[:, :width] for name, ids in inputs.items()}
            return (inputs, tf.gather(labels, chosen)) if with_labels else inputs

        dataset = tf.data.Dataset.from_tensor_slices(places.astype(np.int32)).map(batch)
        return streams.without_autotuning(dataset.prefetch(4))


def encode(rows: Rows, tokenizer: Tokenizer, max_seq_length: int) -> Encoded:
    """Tokenizes rows eagerly, since tracing the tokenizer into a dataset takes seconds per run."""
    inputs = tokenizer.encode(rows.first, rows.second, max_seq_length=max_seq_length)
    return Encoded(inputs, inputs["padding_mask"].numpy().sum(1), rows.labels)


def training_batches(
    encoded: Encoded,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    pad_to_multiple_of: int = 0,
    steps: slice = slice(None),
) -> tf.data.Dataset:
    """Shuffled batches of all epochs in sequence, or only of some steps.

    Each epoch has `len(encoded) // batch_size` full batches in its own order, so the rows that are
    left over differ from epoch to epoch.

    Args:
        encoded: labelled rows.
        batch_size: rows per batch.
        epochs: passes over the rows.
        seed: seed of the orders.
        pad_to_multiple_of: see `Encoded.batches`; if not 0, rows of similar length out of 32 random
            batches are batched together.
        steps: slice of the batches to return.

    Returns:
        Dataset of (the encoder's inputs (batch, length), labels (batch,)).
    """
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(encoded)) for _ in range(epochs)]
    used = len(encoded) // batch_size * batch_size
    orders = [order[:used] for order in orders]
    if pad_to_multiple_of:
        lengths = encoded.lengths
        orders = [_group_by_length(order, lengths, batch_size, generator) for order in orders]
    places = np.concatenate(orders).reshape(-1, batch_size)
    return encoded.batches(places[steps], pad_to_multiple_of, with_labels=True)


def _group_by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, generator: np.random.Generator
) -> np.ndarray:
    """Sorts each `POOL` of batches by length, then shuffles the batches."""
    pools = [
        pool[np.argsort(lengths[pool], kind="stable")]
        for pool in np.split(order, range(POOL * batch_size, len(order), POOL * batch_size))
    ]
    return generator.permutation(np.concatenate(pools).reshape(-1, batch_size)).reshape(-1)


def prediction_batches(
    encoded: Encoded, *, batch_size: int, pad_to_multiple_of: int = 0
) -> tuple[tf.data.Dataset, np.ndarray]:
    """Full batches for Keras `predict`.

    Args:
        encoded: the rows to predict.
        batch_size: rows per batch; the last batch is filled with copies of the last row.
        pad_to_multiple_of: see `Encoded.batches`; if not 0, rows are sorted by length.

    Returns:
        Dataset of the encoder's inputs (batch, length), and the index of each row's output:
        `predict(dataset)[where]` is in the order of the rows.
    """
    rows = np.arange(len(encoded))
    order = np.argsort(encoded.lengths, kind="stable") if pad_to_multiple_of else rows
    where = np.empty_like(rows)
    where[order] = rows
    filled = np.pad(order, (0, -len(order) % batch_size), mode="edge")
    places = filled.reshape(-1, batch_size)
    return encoded.batches(places, pad_to_multiple_of, with_labels=False), where
