"""Predictions and scores from a task's logits: GLUE's metrics, or accuracy and macro F1.

Needs no TensorFlow.
"""

from typing import Any

import numpy as np
from absl import logging

from undivided_tf.data.tasks.rows import Rows, Task
from undivided_tf.metrics import classification, glue, regression
from undivided_tf.models.heads import CLASSIFICATION, PAIR, REGRESSION, SINGLE, ClassifierHead

MUCH_BETTER = 0.1  # A warning names another label order if it gains more accuracy than this.


def primary(task: Task) -> str:
    """The name of the metric that tables show."""
    if task.glue:
        return glue.PRIMARY[task.glue]
    return "spearman" if task.is_regression else "accuracy"


def head_of(task: Task, pooling: str = "first", max_seq_length: int = 128) -> ClassifierHead:
    """The head of a model of a task.

    Args:
        task: gives labels or range of scores, and whether rows are pairs.
        pooling: of the model.
        max_seq_length: word pieces per example in training.
    """
    return ClassifierHead(
        kind=REGRESSION if task.is_regression else CLASSIFICATION,
        labels=task.labels,
        pooling=pooling,
        input=PAIR if task.is_pair else SINGLE,
        max_seq_length=max_seq_length,
        task=task.name,
        score_range=task.score_range,
    )


def predictions(task: Task, logits: np.ndarray) -> np.ndarray:
    """Indices of labels, or scores clipped to the task's range, from logits `(rows, outputs)`."""
    return head_of(task).answers(logits) if task.is_regression else logits.argmax(-1)


def json_value(task: Task, value: Any) -> str | float:
    """The name of a label, or a score, as a value for JSON."""
    return float(value) if task.is_regression else task.labels[int(value)]


def score(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of logits `(rows, outputs)`: accuracy and macro F1 for classes, and GLUE's metrics."""
    return score_predictions(task, predictions(task, logits), labels)


def score_predictions(task: Task, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of answers, which are the result of `predictions`."""
    if not task.is_regression:
        scores = classification.score(answers, labels, len(task.labels))
    elif task.glue:
        scores = {}
    else:
        scores = regression.score(answers, labels)
    return {**scores, **(glue.score(task.glue, answers, labels) if task.glue else {})}


def constant_score(task: Task, train: Rows, rows: Rows) -> float:
    """The primary score of a constant answer: the most frequent class, or the mean, of `train`."""
    if task.is_regression:
        return 0.0  # A constant has no correlation.
    answer = np.bincount(train.labels).argmax()
    return score_predictions(task, np.full(len(rows), answer), rows.labels)[primary(task)]


def warn_of_another_order(task: Task, logits: np.ndarray, labels: np.ndarray) -> None:
    """Warns if another order of the label names would be much more accurate."""
    if task.is_regression:
        return
    answers = predictions(task, logits)
    accuracy = float(np.mean(answers == labels))
    best, meaning = classification.best_permutation(answers, labels, len(task.labels))
    if best > accuracy + MUCH_BETTER:
        order = ", ".join(
            f"{name} for {task.labels[meant]}"
            for name, meant in zip(task.labels, meaning, strict=True)
        )
        logging.warning(
            "%s: accuracy %.3f, but %.3f if the labels were meant in another order (%s): does the "
            "data set name its labels as the model does?",
            task.name,
            accuracy,
            best,
            order,
        )
