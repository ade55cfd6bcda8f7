"""GLUE's metrics and its average; needs no TensorFlow.

References:
    Wang et al. 2018, arXiv 1804.07461, section 3 and table 1.
"""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import sklearn.metrics

from undivided_tf.errors import InputError
from undivided_tf.metrics.regression import checked, correlation, pearson, spearman

# Tables show the first metric, as in Devlin et al. 2018, table 1.
METRICS = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("f1", "accuracy"),
    "stsb": ("spearman", "pearson"),
    "qqp": ("f1", "accuracy"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("matthews_correlation",),
}
AVERAGED = tuple(task for task in METRICS if task != "ax")
PRIMARY = {task: metrics[0] for task, metrics in METRICS.items()}

_FUNCTIONS = {
    "accuracy": lambda labels, predictions: float(np.mean(labels == predictions)),
    # F1 of class 1, the positive class; 0 if it is neither predicted nor present.
    "f1": lambda labels, predictions: float(
        sklearn.metrics.f1_score(labels, predictions, zero_division=0.0)
    ),
    "matthews_correlation": lambda labels, predictions: correlation(
        sklearn.metrics.matthews_corrcoef, labels, predictions
    ),
    "pearson": pearson,
    "spearman": spearman,
}


def score(task: str, predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """Computes the metrics of a task as the official scorer does.

    A constant prediction has Matthews correlation, Pearson and Spearman 0, and F1 is 0 when the
    positive class is neither predicted nor present.

    Args:
        task: `cola`, `sst2`, `mrpc`, `stsb`, `qqp`, `mnli`, `qnli`, `rte`, `wnli` or `ax`.
        predictions: class ids `(examples,)`; for `stsb` numbers.
        labels: class ids `(examples,)`; for `stsb` scores from 0 to 5.

    Returns:
        The metrics of the task, see `METRICS`, as fractions.

    Raises:
        InputError: an unknown task, a split without labels (None, or -1 among them), values that
            are not finite, unequal lengths, or no examples.
    """
    if task not in METRICS:
        raise InputError(f"GLUE has no task {task!r}, only {', '.join(METRICS)}")
    if labels is None:
        raise InputError(f"{task}: this split has no labels; score one that has")
    true, predicted = checked(predictions, labels, f"{task}: ")
    if (true < 0).any():
        place = int(np.flatnonzero(true < 0)[0])
        raise InputError(
            f"{task}: labels[{place}] is {true[place]:g}: the split is not labelled; score one "
            "that is"
        )
    return {name: _FUNCTIONS[name](true, predicted) for name in METRICS[task]}


def task_score(
    task: str, scores: Mapping[str, float], mismatched: Mapping[str, float] | None = None
) -> float:
    """The score of a task: the mean of its metrics, times 100.

    Args:
        task: as for `score`.
        scores: result of `score`.
        mismatched: for `mnli`, the result on the mismatched split; both are averaged.
    """
    parts = [scores, mismatched] if mismatched else [scores]
    return 100 * statistics.fmean(part[name] for part in parts for name in METRICS[task])


def average(task_scores: Mapping[str, float]) -> float | None:
    """GLUE's average: the unweighted mean of the nine tasks, without the diagnostic AX.

    Args:
        task_scores: results of `task_score`, by task.

    Returns:
        The average; None unless all nine tasks are present.
    """
    if not all(task in task_scores for task in AVERAGED):
        return None
    return statistics.fmean(task_scores[task] for task in AVERAGED)
