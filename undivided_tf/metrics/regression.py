"""Scores of predicted numbers; needs no TensorFlow."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from absl import logging

from undivided_tf.errors import InputError


def correlation(measure: Callable, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Applies a measure of correlation; 0, with a warning, if one side is constant."""
    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        logging.warning("labels or predictions are constant, so their correlation counts as 0")
        return 0.0
    return float(measure(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Pearson's correlation, -1 to 1."""
    return correlation(lambda *sides: scipy.stats.pearsonr(*sides)[0], labels, predictions)


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Spearman's rank correlation, -1 to 1."""
    return correlation(lambda *sides: scipy.stats.spearmanr(*sides)[0], labels, predictions)


def checked(
    predictions: Sequence[float], labels: Sequence[float], where: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and predictions as arrays `(examples,)`.

    Args:
        predictions: numbers `(examples,)`.
        labels: numbers `(examples,)`.
        where: prefix of errors.

    Raises:
        InputError: values that are not finite, unequal lengths, or no examples.
    """
    true, predicted = (np.asarray(values, np.float64) for values in (labels, predictions))
    if true.ndim != 1 or true.shape != predicted.shape or not true.size:
        raise InputError(
            f"{where}predictions of shape {predicted.shape} for labels of shape {true.shape}; give "
            "one number per example, at least one"
        )
    for name, values in (("labels", true), ("predictions", predicted)):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"{where}{name}[{place}] is {values[place]}")
    return true, predicted


def score(predictions: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """Correlations of predicted with true numbers.

    Args:
        predictions: numbers `(examples,)`.
        labels: numbers `(examples,)`.

    Returns:
        `spearman` and `pearson`, -1 to 1; 0 if one side is constant.

    Raises:
        InputError: as `checked`.
    """
    true, predicted = checked(predictions, labels)
    return {"spearman": spearman(true, predicted), "pearson": pearson(true, predicted)}
