"""Labelled tasks: rows, labels and the source of the splits.

Needs no TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from absl import logging

from undivided_tf.config import SPLITS
from undivided_tf.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The examples of a split.

    Attributes:
        first: the texts, or the first text of each pair.
        second: the second text of each pair, or None.
        labels: int32 `(rows,)`, indices in `Task.labels`, or float32 `(rows,)`, the scores of a
            regression task; None if the split is unlabelled.
    """

    first: list[str]
    second: list[str] | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, n: int, seed: int) -> Self:
        """At most `n` randomly chosen rows, in their order; all if `n` is 0.

        With the same seed a smaller choice is a subset of every larger one.
        """
        if n <= 0 or n >= len(self):
            return self
        return self.pick(np.sort(np.random.default_rng(seed).permutation(len(self))[:n]))

    def pick(self, places: np.ndarray) -> Self:
        """The rows at some indices, in the order of the indices."""
        return dataclasses.replace(
            self,
            first=[self.first[i] for i in places],
            second=None if self.second is None else [self.second[i] for i in places],
            labels=None if self.labels is None else self.labels[places],
        )

    def followed_by(self, next_rows: Self) -> Self:
        """These rows, then those of another split of the same task; both or neither have labels."""
        return dataclasses.replace(
            self,
            first=[*self.first, *next_rows.first],
            second=None if self.second is None else [*self.second, *next_rows.second],
            labels=None if self.labels is None else np.concatenate([self.labels, next_rows.labels]),
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification or regression task.

    Attributes:
        name: name of the task in tables and file names.
        labels: label names; a label is its index here. Empty for a regression task.
        is_pair: whether rows have a second text.
        read: function from a split to its rows; None if the task has no such split.
        glue: name of the GLUE task whose metrics score it; empty: accuracy and macro F1, or
            Spearman's and Pearson's correlation of a regression.
        splits: names that `read` takes; `validation...` and `test...` are scored if labelled.
        score_range: lowest and highest score of a regression task; empty: unknown.
        files: files of the rows; empty for the embedded tasks and `tfds:`.
    """

    name: str
    labels: tuple[str, ...]
    is_pair: bool
    read: Callable[[str], Rows | None]
    glue: str = ""
    splits: tuple[str, ...] = SPLITS
    score_range: tuple[float, ...] = ()
    files: tuple[pathlib.Path, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number."""
        return not self.labels

    def graded(self) -> Self:
        """The task itself; for a regression the task of classifying the rounded scores.

        For probes, which are classifiers: scores from 0 to 5 become six classes.

        Raises:
            InputError: a regression whose `score_range` is unknown or contains one whole number.
        """
        if not self.is_regression:
            return self
        low, high = np.rint(self.score_range or (0, 0)).astype(int)
        if low == high:
            raise InputError(
                f"task {self.name} is a regression, and probes classify the rounded scores: "
                "declare a score_range with several whole numbers in task.json"
            )

        def read(split: str) -> Rows | None:
            rows = self.read(split)
            if rows is None or rows.labels is None:
                return rows
            return dataclasses.replace(
                rows, labels=np.rint(rows.labels).astype(np.int32) - np.int32(low)
            )

        grades = tuple(map(str, range(low, high + 1)))
        return dataclasses.replace(self, labels=grades, read=read, glue="", score_range=())


def positions(names: list[str], labels: tuple[str, ...]) -> np.ndarray:
    """Label names as int32 indices `(rows,)` in `labels`."""
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place[name] for name in names], np.int32)


def checked_split(split: str, splits: tuple[str, ...] = SPLITS) -> str:
    """Returns the split; InputError if it is not in `splits`."""
    if split not in splits:
        raise InputError(f"split must be one of {', '.join(splits)}, got {split!r}")
    return split


def labelled_texts(pairs: Sequence[tuple[str, str]], labels: tuple[str, ...]) -> Rows:
    """Rows of single texts from pairs of a text and the name of its label."""
    return Rows([text for text, _ in pairs], None, positions([name for _, name in pairs], labels))


def training_labels(labels: set[str], where: str) -> tuple[str, ...]:
    """The labels of the training split, sorted; InputError if there are fewer than two."""
    if len(labels) < 2:
        shown = ", ".join(labels) or "none"
        raise InputError(f"{where}: a probe needs two labels in the training split, there: {shown}")
    return tuple(sorted(labels))


def learnable(items: list, labels: tuple[str, ...], where: str) -> list:
    """The items whose label, their last element, is in training; logs the number of the others.

    Args:
        items: tuples that end with the name of a label.
        labels: names of the labels of training.
        where: the task and its split, for messages.

    Raises:
        InputError: no item is left.
    """
    kept = [item for item in items if item[-1] in labels]
    unseen = ", ".join(sorted({item[-1] for item in items} - set(labels)))
    if not kept:
        raise InputError(
            f"{where}: none of its {len(items)} items has a label of the training split; there: "
            f"{unseen or 'none'}; in training: {', '.join(labels)}"
        )
    if len(kept) < len(items):
        logging.warning(
            "%s: %d of %d items left out, since training lacks their labels: %s",
            where,
            len(items) - len(kept),
            len(items),
            unseen,
        )
    return kept
