"""Data of probes: activations of every tap, labels and word types."""

import dataclasses
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis import taps, words
from undivided_tf.analysis.config import ProbingConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows, Task
from undivided_tf.data.tasks.treebank_tasks import WordRows, WordTask
from undivided_tf.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The chosen examples of a split.

    Attributes:
        name: `train`, `validation` or `test`.
        rows: sentences, or words in their sentences.
        types: the word type of each row; for a sentence that of its first word.
        unseen: number of words left out because `max_seq_length` cuts them off.
    """

    name: str
    rows: Rows | WordRows
    types: list[str]
    unseen: int = 0

    @property
    def labels(self) -> np.ndarray:
        """Class ids `(rows,)`."""
        return self.rows.labels


def read(
    task: Task | WordTask, subject: Subject, config: ProbingConfig, seed: int
) -> tuple[dict[str, Split], int]:
    """The splits `train`, `validation` and `test` that probes use.

    If the test split has no labels, the validation split is scored instead, and a fifth of the
    training rows replaces it for validation. Test rows whose text (for words: whose sentence) is
    also in training are left out, since a probe could memorise them.

    Args:
        task: a task of words or of sentences.
        subject: decides which words are cut off.
        config: sizes.
        seed: decides which rows are chosen.

    Returns:
        The splits, and the number of test rows left out because they are in training.

    Raises:
        InputError: a split has no rows, or no rows that remain.
    """
    if isinstance(task, WordTask):
        words_of, dropped = _words(task, config, seed)
        splits = {
            name: _word_split(name, rows, subject, config.max_seq_length)
            for name, rows in words_of.items()
        }
    else:
        splits, dropped = _sentences(task, config, seed)
    if dropped:
        logging.info("%d test rows are in training too, and are left out", dropped)
    for name, split in splits.items():
        if not len(split.rows) and (name != "validation" or len(config.inverse_l2) > 1):
            raise InputError(
                f"task {task.name}: no row of {split.name} is left: {split.unseen} words are cut "
                f"off by max_seq_length {config.max_seq_length}"
                + (f" and {dropped} rows are in training too" if name == "test" else "")
            )
    return splits, dropped


def _words(task: WordTask, config: ProbingConfig, seed: int) -> tuple[dict[str, WordRows], int]:
    """The chosen words of each split, and the number of test words left out."""
    train, test = task.read("train").take(config.max_train_rows, seed), task.read("test")
    training_sentences = set(train.sentences)
    fresh = np.flatnonzero([test.sentences[s] not in training_sentences for s in test.sentence])
    chosen = {"validation": task.read("validation"), "test": test.pick(fresh)}
    return {
        "train": train,
        **{name: rows.take(config.max_test_rows, seed) for name, rows in chosen.items()},
    }, len(test) - len(fresh)


def _sentences(task: Task, config: ProbingConfig, seed: int) -> tuple[dict[str, Split], int]:
    """The chosen rows of each split, and the number of test rows left out."""
    test = task.read("test")
    train, validation = task.read("train"), task.read("validation")
    scored = "test"
    if test is None or test.labels is None:
        logging.warning("task %s has no labelled test split: validation is scored", task.name)
        scored, test = "validation", validation
        if len(config.inverse_l2) > 1:
            order = np.random.default_rng(0).permutation(len(train))
            fifth = len(train) // 5
            train, validation = (
                train.pick(np.sort(places)) for places in (order[fifth:], order[:fifth])
            )
    train = train.take(config.max_train_rows, seed)
    training_texts = set(_texts(train))
    fresh = [i for i, text in enumerate(_texts(test)) if text not in training_texts]
    dropped = len(test) - len(fresh)
    if dropped:
        test = test.pick(np.array(fresh, np.int64))
    return {
        "train": _sentence_split("train", train),
        "validation": _sentence_split("validation", validation.take(config.max_test_rows, seed)),
        "test": _sentence_split(scored, test.take(config.max_test_rows, seed)),
    }, dropped


def _sentence_split(name: str, rows: Rows) -> Split:
    first_words = [(words.split(text) or [""])[0].lower() for text in rows.first]
    return Split(name, rows, first_words)


def _word_split(name: str, rows: WordRows, subject: Subject, max_seq_length: int) -> Split:
    if not len(rows):
        return Split(name, rows, [])
    seen = words.seen(subject.tokenizer, rows.sentences, max_seq_length)
    whole = np.array(
        [seen[s][list(places)].all() for s, places in zip(rows.sentence, rows.places, strict=True)],
        bool,
    )
    unseen = int((~whole).sum())
    if unseen:
        logging.info("%s: %d words are cut off by max_seq_length and left out", name, unseen)
        rows = rows.pick(np.flatnonzero(whole))
    return Split(name, rows, rows.types, unseen)


def _texts(rows: Rows) -> list[Any]:
    if rows.second is None:
        return list(rows.first)
    return list(zip(rows.first, rows.second, strict=True))


def activations(subject: Subject, split: Split, config: ProbingConfig) -> dict[str, np.ndarray]:
    """Activations `(rows, features)` per tap; those of a pair of words are concatenated."""
    sizes = {"batch_size": config.batch_size, "max_seq_length": config.max_seq_length}
    rows = split.rows
    # Texts of similar length are batched together, so there is little padding.
    if isinstance(rows, Rows):
        order = np.argsort([len("".join(text)) for text in _texts(rows)], kind="stable")
        stream = taps.pooled_activations(
            subject.encoder, subject.tokenizer, rows.pick(order), pooling=config.pooling, **sizes
        )
        return _joined(list(stream), np.argsort(order))
    by_sentence = np.argsort(rows.sentence, kind="stable")
    ends = np.cumsum(np.bincount(rows.sentence, minlength=len(rows.sentences)))
    needed = [np.unique(places) for places in np.split(rows.places[by_sentence], ends[:-1])]
    order = np.argsort([len(" ".join(sentence)) for sentence in rows.sentences], kind="stable")
    stream = taps.word_activations(
        subject.encoder,
        subject.tokenizer,
        [rows.sentences[i] for i in order],
        [needed[i] for i in order],
        **sizes,
    )
    starts = np.zeros(len(order), np.int64)
    starts[order] = np.cumsum([0, *(len(needed[i]) for i in order[:-1])])
    at = np.array(
        [
            starts[s] + np.searchsorted(needed[s], places)
            for s, places in zip(rows.sentence, rows.places, strict=True)
        ]
    )
    return {name: x.reshape(len(at), -1) for name, x in _joined(list(stream), at).items()}


def _joined(batches: list[dict[str, np.ndarray]], places: np.ndarray) -> dict[str, np.ndarray]:
    """Concatenates minibatches and selects some indices."""
    return {name: np.concatenate([batch[name] for batch in batches])[places] for name in batches[0]}
