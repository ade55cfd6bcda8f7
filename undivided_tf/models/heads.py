"""Descriptions of the output and the input of fine-tuned heads; needs no TensorFlow.

Every storage format has one of these files beside the weights: classifier.json for a
`ClassifierHead`, span_predictor.json for a `SpanHead`.
"""

import dataclasses
import math
import pathlib
import re
from typing import Any, Self

import numpy as np
import scipy.special

from undivided_tf.config import (
    CLASSIFIER_POOLINGS,
    PAIR_POOLING,
    POOLING_HELP,
    POOLINGS,
    Config,
    option,
)
from undivided_tf.errors import InputError
from undivided_tf.support import files

CLASSIFICATION, REGRESSION, MULTI_LABEL, SPAN = (
    "classification",
    "regression",
    "multi_label",
    "span",
)
SINGLE, PAIR = "single", "pair"
INPUTS = {SINGLE: "single texts", PAIR: "pairs of texts"}


class _Head(Config):
    """A config in the directory of a fine-tuned model."""

    FILE = ""

    @classmethod
    def read(cls, directory: str | pathlib.Path) -> Self | None:
        """Reads the head from its file in a directory; None if there is no such file.

        Raises:
            InputError: the file is not JSON, or has an unknown key or a wrong value; names the
                file.
        """
        path = pathlib.Path(directory) / cls.FILE
        if not path.exists():
            return None
        try:
            return cls.from_json(path)
        except InputError as error:
            if str(path) in str(error):
                raise
            raise InputError(f"{path}: {error}") from error

    def write(self, directory: pathlib.Path) -> None:
        """Writes the file into an unfinished directory."""
        self.to_json(directory / self.FILE)


@dataclasses.dataclass(frozen=True)
class ClassifierHead(_Head):
    """The head of a `Classifier`: one prediction for a text or a pair of texts."""

    FILE = "classifier.json"

    kind: str = option(
        CLASSIFICATION,
        "classification: one of the labels; multi_label: any number of them; regression: a score.",
        one_of=(CLASSIFICATION, REGRESSION, MULTI_LABEL),
    )
    labels: tuple[str, ...] = option(
        (), "Names of the outputs in order; for a regression empty, or the name of the score."
    )
    pooling: str = option("first", POOLING_HELP, one_of=CLASSIFIER_POOLINGS)
    input: str = option(
        "", "Kind of a row: single, pair; empty: unknown.", one_of=("", SINGLE, PAIR)
    )
    max_seq_length: int = option(0, "Word pieces per example; longer ones are cut.", above=0)
    task: str = option("", "Task of the fine-tuning; empty: unknown.")
    score_range: tuple[float, ...] = option(
        (), "Lowest and highest score of a regression task; empty: unknown."
    )

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        repeated = {label for label in self.labels if self.labels.count(label) > 1}
        if repeated:
            raise InputError(
                f"the label {min(repeated)!r} stands for several outputs: give each its own name"
            )
        if self.pooling == PAIR_POOLING and self.input == SINGLE:
            raise InputError(
                f"pooling {self.pooling} compares the two texts of a pair, but a row is a single "
                f"text; for single texts use {', '.join(POOLINGS)}"
            )
        least, most = {CLASSIFICATION: (2, math.inf), REGRESSION: (0, 1)}.get(
            self.kind, (1, math.inf)
        )
        if not least <= len(self.labels) <= most:
            raise InputError(f"a head for {self.kind} cannot have {len(self.labels)} labels")
        if self.score_range:
            is_range = len(self.score_range) == 2 and self.score_range[0] < self.score_range[1]
            if self.kind != REGRESSION or not is_range or not np.isfinite(self.score_range).all():
                raise InputError(
                    "score_range must be the lowest and the highest score of a regression, got "
                    f"{list(self.score_range)} for {self.kind}"
                )

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Completes files of older releases, which lack `kind`, `input` and `score_range`."""
        if "kind" in values:
            return values
        labels = values.get("labels")
        has_classes = isinstance(labels, list) and len(labels) > 1
        values = {**values, "kind": CLASSIFICATION if has_classes else REGRESSION}
        # The only regression task of those releases.
        task = re.sub(r"[^a-z0-9]", "", str(values.get("task")).lower())
        if not has_classes and task == "stsb":
            values["score_range"] = [0.0, 5.0]
        return values

    @property
    def outputs(self) -> int:
        """Number of logits."""
        return num_outputs(self.kind, self.labels)

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Turns logits into probabilities or scores.

        Args:
            logits: float `(rows, outputs)`.

        Returns:
            Probabilities `(rows, outputs)`, which sum to 1 unless several labels may hold at once;
            for a regression scores `(rows,)`, clipped to `score_range`.
        """
        if self.kind == REGRESSION:
            scores = logits[:, 0]
            return np.clip(scores, *self.score_range) if self.score_range else scores
        if self.kind == MULTI_LABEL:
            return scipy.special.expit(logits)
        return scipy.special.softmax(logits, axis=-1)

    def columns_for(self, task: Self) -> list[int]:
        """Index of the output for each label of a task.

        Args:
            task: the head that a model of the task would have.

        Raises:
            InputError: this head has other outputs or another kind of input.
        """
        is_score = self.kind == task.kind == REGRESSION  # Its label's name does not matter.
        ours, theirs = ((head.kind, sorted(head.labels)) for head in (self, task))
        if not is_score and ours != theirs:
            raise InputError(f"the head is {self}, the task {task.task} is {task}")
        if self.input and self.input != task.input:
            raise InputError(
                f"the head was trained on {INPUTS[self.input]}, the task {task.task} has "
                f"{INPUTS[task.input]}"
            )
        if is_score:
            return [0]
        return [self.labels.index(label) for label in task.labels]

    def __str__(self) -> str:
        if self.kind == REGRESSION:
            return "a regression"
        return f"a {self.kind} with the labels {', '.join(self.labels)}"


def num_outputs(kind: str, labels: tuple[str, ...]) -> int:
    """Number of logits of a head."""
    return 1 if kind == REGRESSION else len(labels)


def head_width(hidden_size: int, pooling: str) -> int:
    """Length of the pooled vector of a row; see `classifier.pool`."""
    return 4 * hidden_size if pooling == PAIR_POOLING else hidden_size


@dataclasses.dataclass(frozen=True)
class SpanHead(_Head):
    """The head of a `SpanPredictor`: finds the answer in windows over the context."""

    FILE = "span_predictor.json"

    kind: str = option(SPAN, "Always span: first and last word piece of an answer.", one_of=(SPAN,))
    max_seq_length: int = option(
        0, "Word pieces per window: question, context and special tokens.", above=0
    )
    doc_stride: int = option(0, "Word pieces from the start of one window to the next.", above=0)
    max_query_length: int = option(0, "Word pieces of a question; longer ones are cut.", above=0)
    version_2_with_negative: bool = option(False, "Questions may have no answer (SQuAD 2.0).")
    null_score_diff_threshold: float = option(
        0.0, "With version_2_with_negative: predict no answer if the null odds exceed this."
    )

    @classmethod
    def read(cls, directory: str | pathlib.Path) -> Self | None:
        """Reads the head; older releases kept the threshold in the run.json beside the model."""
        head, directory = super().read(directory), pathlib.Path(directory)
        run = directory.parent / "run.json"
        if head is None or not run.exists():
            return head
        if "null_score_diff_threshold" in files.read_json(directory / cls.FILE):
            return head
        threshold = files.read_json(run)["null_score_diff_threshold"]
        return head.replace(null_score_diff_threshold=threshold)

    @property
    def windows(self) -> dict[str, int]:
        """Arguments of `data.windows.make_windows`."""
        names = ("max_seq_length", "doc_stride", "max_query_length")
        return {name: getattr(self, name) for name in names}

    def with_length(self, length: int) -> Self:
        """The same head for windows of another length, which must fit question and context.

        Raises:
            InputError: the length is too short for both.
        """
        query = min(self.max_query_length, (length - 3) // 2)
        room = length - query - 3
        if min(query, room) < 1:
            raise InputError(
                f"max_seq_length {length} is too short for a question, a context and three "
                "special tokens: give at least 5"
            )
        return self.replace(
            max_seq_length=length, max_query_length=query, doc_stride=min(self.doc_stride, room)
        )
