"""Scores of classifiers; needs no TensorFlow."""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import sklearn.metrics

from undivided_tf.errors import InputError


def score(predictions: Sequence[int], labels: Sequence[int], num_labels: int) -> dict[str, float]:
    """Accuracy and macro F1.

    F1 is 0 for a class that is never predicted. A class that is neither among the labels nor among
    the predictions has no F1 and is left out of the mean.

    Args:
        predictions: class ids `(examples,)`.
        labels: class ids `(examples,)`.
        num_labels: number of classes.

    Returns:
        `accuracy` and `f1_macro`, both from 0 to 1.

    Raises:
        InputError: the split has no labels (None or -1), ids outside the classes, unequal
            lengths, or no examples.
    """
    true = _class_ids(labels, "labels", num_labels)
    predicted = _class_ids(predictions, "predictions", num_labels)
    if true.size != predicted.size:
        raise InputError(f"{predicted.size} predictions for {true.size} labels")
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(true, predicted)),
        "f1_macro": float(
            sklearn.metrics.f1_score(
                true, predicted, labels=range(num_labels), average="macro", zero_division=np.nan
            )
        ),
    }


def majority_accuracy(train_labels: Sequence[int], labels: Sequence[int]) -> float:
    """Accuracy of always predicting the most frequent class of the training split.

    Args:
        train_labels: class ids `(train_examples,)`; of equally frequent ids the smallest is used.
        labels: class ids `(examples,)` of the split that is scored.

    Raises:
        InputError: a split has no labels or no examples.
    """
    majority = np.bincount(_class_ids(train_labels, "train_labels")).argmax()
    return float(np.mean(_class_ids(labels, "labels") == majority))


def best_permutation(
    predictions: Sequence[int], labels: Sequence[int], num_labels: int
) -> tuple[float, list[int]]:
    """The highest accuracy over all permutations of the class ids.

    Args:
        predictions: class ids `(examples,)`.
        labels: class ids `(examples,)`.
        num_labels: number of classes.

    Returns:
        The accuracy, and the class that each predicted class stands for.
    """
    confusion = sklearn.metrics.confusion_matrix(predictions, labels, labels=range(num_labels))
    _, meaning = scipy.optimize.linear_sum_assignment(confusion, maximize=True)
    return float(confusion[range(num_labels), meaning].sum() / len(labels)), meaning.tolist()


def _class_ids(
    values: Sequence[int] | None, name: str, num_labels: int | None = None
) -> np.ndarray:
    """The values as an array `(examples,)`; InputError if they are not class ids."""
    if values is None:
        raise InputError(f"{name}: this split has no labels; score one that has")
    ids = np.asarray(values)
    if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"{name}: expected class ids, got shape {ids.shape} of {ids.dtype}")
    if ids.min() < 0:
        place = int(np.flatnonzero(ids < 0)[0])
        raise InputError(
            f"{name}[{place}] is {ids[place]}: the split is not labelled; score one that is"
        )
    if num_labels is not None and ids.max() >= num_labels:
        place = int(np.flatnonzero(ids >= num_labels)[0])
        raise InputError(f"{name}[{place}] is {ids[place]}, but there are {num_labels} classes")
    return ids
