"""The structural probe: a linear view of a tap whose squared distances are tree distances.

The views of all taps are trained together. Adam is elementwise, so this equals separate training.
Each tap is divided by the standard deviation of its values, so that one learning rate suits all.

References:
    Hewitt, Manning 2019, NAACL, "A Structural Probe for Finding Syntax in Word Representations".
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from undivided_tf.analysis import subjects, taps, words
from undivided_tf.analysis.config import StructuralConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks import treebank
from undivided_tf.data.tasks.treebank import Sentence
from undivided_tf.errors import InputError
from undivided_tf.metrics import trees
from undivided_tf.support import progress
from undivided_tf.workdir import results_once


def run_structural(config: StructuralConfig) -> dict[str, Any]:
    """Probes a checkpoint and its untrained twin.

    Args:
        config: names checkpoint and treebank; `config.workdir` receives config.json and
            results.json. Existing results are read instead.

    Returns:
        As `probe_structure`.

    Raises:
        InputError: no checkpoint or treebank, or a workdir of another config.
    """

    def inputs() -> tuple[Subject, dict[str, Sequence[Sentence]]]:
        subject = subjects.load(config.init_checkpoint)
        splits = ("train", "validation", "test")
        return subject, {split: treebank.read(config.treebank, split) for split in splits}

    return results_once(config, inputs, lambda loaded: probe_structure(*loaded, config))


def probe_structure(
    subject: Subject, sentences: dict[str, Sequence[Sentence]], config: StructuralConfig
) -> dict[str, Any]:
    """Trains a view of every tap and scores its trees.

    Args:
        subject: the encoder.
        sentences: by split, `train`, `validation` and `test`.
        config: sizes, rank, training and seed.

    Returns:
        `kind`, `encoder`, `taps`, `uuas` and `spearman` (one per tap, on the test split; see
        `metrics.trees`), `untrained_uuas` and `untrained_spearman`, `chain_uuas` and
        `chain_spearman` (every word joined to the next, without an encoder), `epochs` (the best by
        validation loss, one per tap), `rows` (sentences by split), `left_out` (by split, cut off by
        `max_seq_length`), `duplicates_dropped` (test sentences that are in training too).

    Raises:
        InputError: a split without sentences that fit, or a rank above the hidden size.
    """
    hidden = subject.encoder.config.hidden_size
    if config.probe_rank > hidden:
        raise InputError(f"probe_rank {config.probe_rank} is more than the hidden size {hidden}")
    chosen, left_out, dropped = _choose(subject, sentences, config)
    scores: dict[str, Any] = {}
    for prefix, encoder in (("", subject), ("untrained_", subject.untrained_twin(config.seed))):
        data = {split: _trees(encoder, chosen[split], config) for split in chosen}
        views, epochs = _train(data, config, f"structural probe {subject.pattern}")
        scores |= {prefix + name: values for name, values in _scores(views, data["test"]).items()}
        if not prefix:
            scores["epochs"] = epochs
    test = data["test"]
    chains = [np.abs(np.subtract.outer(r, r)) for r in (np.arange(len(d)) for d in test.distances)]
    return {
        "kind": "structural",
        "encoder": subject.describe(),
        "taps": list(subject.encoder.config.pattern.tap_names),
        **scores,
        "chain_uuas": trees.attachment_score(chains, test.distances, test.counted),
        "chain_spearman": trees.distance_correlation(chains, test.distances),
        "rows": {split: len(chosen[split]) for split in chosen},
        "left_out": left_out,
        "duplicates_dropped": dropped,
    }


def _choose(
    subject: Subject, sentences: dict[str, Sequence[Sentence]], config: StructuralConfig
) -> tuple[dict[str, list[Sentence]], dict[str, int], int]:
    """Draws the sentences of each split; see `probe_structure`.

    Returns:
        The sentences by split, the number that `max_seq_length` cuts off by split, and the number
        of test sentences that are in training too.
    """
    chosen, left_out, dropped = {}, {}, 0
    limits = {"train": config.max_train_sentences}
    for split, candidates in sentences.items():
        limit = limits.get(split, config.max_test_sentences)
        if split == "test":
            training = {sentence.words for sentence in chosen["train"]}
            fresh = [sentence for sentence in candidates if sentence.words not in training]
            dropped, candidates = len(candidates) - len(fresh), fresh
        order = np.random.default_rng(config.seed).permutation(len(candidates))[: limit or None]
        drawn = [candidates[i] for i in np.sort(order)]
        seen = words.seen(subject.tokenizer, [s.words for s in drawn], config.max_seq_length)
        whole = [mask.all() for mask in seen]
        chosen[split] = [s for s, fits in zip(drawn, whole, strict=True) if fits and len(s) > 1]
        left_out[split] = len(whole) - int(sum(whole))
        if not chosen[split]:
            raise InputError(
                f"{split}: no sentence of two words or more fits max_seq_length"
                + (f", {dropped} are in training too" if split == "test" else "")
            )
    return chosen, left_out, dropped


@dataclasses.dataclass(frozen=True, eq=False)
class _Trees:
    """Sentences of a split.

    Attributes:
        activations: `(taps, words of all sentences, hidden)`, float32.
        starts: index of the first word of each sentence, and the end of the last sentence.
        distances: in the tree, `(words, words)` of each sentence.
        counted: indices of the words that are not punctuation.
    """

    activations: np.ndarray
    starts: np.ndarray
    distances: list[np.ndarray]
    counted: list[np.ndarray]

    def batch(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Activations `(taps, sentences, words, hidden)`, distances and mask, padded."""
        lengths = [len(self.distances[i]) for i in places]
        widest = -(-max(lengths) // 8) * 8  # Few shapes, since each is traced.
        shape = (len(places), widest)
        x = np.zeros((len(self.activations), *shape, self.activations.shape[2]), np.float32)
        distances = np.zeros((*shape, widest), np.float32)
        mask = np.zeros((*shape, widest), np.float32)
        for row, (place, n) in enumerate(zip(places, lengths, strict=True)):
            start = self.starts[place]
            x[:, row, :n] = self.activations[:, start : start + n]
            distances[row, :n, :n] = self.distances[place]
            mask[row, :n, :n] = 1
        return x, distances, mask


def _trees(subject: Subject, sentences: Sequence[Sentence], config: StructuralConfig) -> _Trees:
    stream = taps.word_activations(
        subject.encoder,
        subject.tokenizer,
        [s.words for s in sentences],
        [np.arange(len(s)) for s in sentences],
        batch_size=config.batch_size,
        max_seq_length=config.max_seq_length,
    )
    batches = [np.stack(list(batch.values())) for batch in stream]
    counted = [np.flatnonzero(np.array(s.tags) != "PUNCT") for s in sentences]
    return _Trees(
        np.concatenate(batches, 1),
        np.cumsum([0, *map(len, sentences)]),
        [s.distances for s in sentences],
        counted,
    )


def _train(
    data: dict[str, _Trees], config: StructuralConfig, description: str
) -> tuple[np.ndarray, list[int]]:
    """Views `(taps, hidden, rank)` at their best epochs, and these epochs, from 1."""
    train = data["train"]
    count, _, hidden = train.activations.shape
    scale = train.activations.std((1, 2), keepdims=True)[..., None] + 1e-12
    rng = np.random.default_rng(config.seed)
    start = rng.uniform(-0.05, 0.05, (hidden, config.probe_rank))
    views = tf.Variable(np.repeat(start[None], count, 0), dtype=tf.float32)
    optimizer = keras.optimizers.Adam(config.learning_rate)
    optimizer.build([views])

    def losses(x, distances, mask):
        """Mean absolute error per pair of words, averaged over sentences, one per tap."""
        predicted = _squared_distances(x / scale, views)
        errors = tf.reduce_sum(tf.abs(predicted - distances) * mask, (2, 3))
        return tf.reduce_mean(errors / tf.reduce_sum(mask, (1, 2)), 1)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(x, distances, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(x, distances, mask))
        optimizer.apply(tape.gradient(loss, [views]), [views])

    evaluate = tf.function(losses, autograph=False, reduce_retracing=True)
    best, lowest, epochs = views.numpy(), np.full(count, np.inf), np.zeros(count, int)
    with progress.bar(config.num_epochs, description, "epochs") as bar:
        for epoch in range(1, config.num_epochs + 1):
            for batch in _batches(train, config.batch_size, rng):
                step(*batch)
            validation = _batches(data["validation"], config.batch_size)
            sized = [(len(batch[1]), evaluate(*batch).numpy()) for batch in validation]
            mean = sum(n * loss for n, loss in sized) / sum(n for n, _ in sized)
            better = mean < lowest
            best[better], epochs[better] = views.numpy()[better], epoch
            lowest = np.minimum(mean, lowest)
            bar.update()
    return best / scale[:, 0], epochs.tolist()


def _squared_distances(x: tf.Tensor, views: tf.Variable) -> tf.Tensor:
    """Squared distances `(taps, sentences, words, words)` of the words under the views."""
    viewed = tf.einsum("tbwh,thr->tbwr", x, views)
    norms = tf.reduce_sum(tf.square(viewed), -1)
    products = tf.matmul(viewed, viewed, transpose_b=True)
    return tf.maximum(norms[..., :, None] + norms[..., None, :] - 2 * products, 0)


def _batches(
    data: _Trees, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Minibatches of sentences of similar length; in random order if a generator is given."""
    lengths = np.array([len(d) for d in data.distances])
    ties = rng.random(len(lengths)) if rng else np.arange(len(lengths))
    order = np.lexsort((ties, lengths))
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for i in rng.permutation(len(parts)) if rng else range(len(parts)):
        yield data.batch(parts[i])


def _scores(views: np.ndarray, test: _Trees) -> dict[str, list[float | None]]:
    scores: dict[str, list[float | None]] = {"uuas": [], "spearman": []}
    for view, x in zip(views, test.activations, strict=True):
        viewed = x.astype(np.float64) @ view
        predicted = []
        for start, stop in zip(test.starts, test.starts[1:], strict=False):
            differences = viewed[start:stop, None] - viewed[None, start:stop]
            predicted.append(np.square(differences).sum(2))
        score = trees.attachment_score(predicted, test.distances, test.counted)
        scores["uuas"].append(score)
        scores["spearman"].append(trees.distance_correlation(predicted, test.distances))
    return scores
