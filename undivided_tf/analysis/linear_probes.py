"""Linear probes and their controls. Needs no TensorFlow.

References:
    Alain, Bengio 2017, arXiv 1610.01644 (linear classifier probes).
    Hewitt, Liang 2019, arXiv 1909.03368 (control tasks, selectivity).
    Voita, Titov 2020, arXiv 2003.12298 (online codelength).
    Peters et al. 2018, arXiv 1802.05365, eq. 1; Tenney, Das, Pavlick 2019, arXiv 1905.05950
    (scalar mix and its centre of gravity).
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from undivided_tf.errors import InputError
from undivided_tf.metrics import classification

MAX_ITERATIONS = 2000
# Shares of the training rows at the ends of portions, as in Voita and Titov.
PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def fit(x: np.ndarray, labels: np.ndarray, inverse_l2: float) -> tuple[Pipeline, bool]:
    """Trains a multinomial logistic regression on standardised activations.

    Mean and deviation are those of the training rows.

    Args:
        x: activations `(examples, features)`.
        labels: class ids `(examples,)`.
        inverse_l2: inverse strength of the L2 penalty, scikit-learn's C.

    Returns:
        The probe, and whether the solver converged.

    Raises:
        InputError: the rows have one class only.
    """
    if len(np.unique(labels)) < 2:
        raise InputError("a probe needs two classes in its training rows; take more rows")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_l2, max_iter=MAX_ITERATIONS)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Callers count failures instead.
        model.fit(x.astype(np.float64), labels)
    return model, bool(model[-1].n_iter_.max() < MAX_ITERATIONS)


def fit_best(
    x: np.ndarray,
    labels: np.ndarray,
    validation_x: np.ndarray | None,
    validation_labels: np.ndarray | None,
    choices: Sequence[float],
) -> tuple[float, Pipeline, bool]:
    """Like `fit`, with the penalty of highest validation accuracy; among equals the strongest.

    Args:
        x: training activations `(examples, features)`.
        labels: class ids `(examples,)`.
        validation_x: activations `(others, features)`; not used for a single choice.
        validation_labels: class ids `(others,)`.
        choices: inverse strengths.

    Returns:
        The choice, the probe trained with it, and whether the solver converged.
    """
    best, highest = None, -1.0
    for choice in sorted(choices):
        model, converged = fit(x, labels, choice)
        score = 0.0
        if len(choices) > 1:
            predictions = model.predict(validation_x.astype(np.float64))
            score = float(np.mean(predictions == validation_labels))
        if score > highest:
            best, highest = (choice, model, converged), score
    return best


def linear_probe(
    train_x: np.ndarray,
    train_labels: np.ndarray,
    test_x: np.ndarray,
    test_labels: np.ndarray,
    *,
    num_labels: int,
    inverse_l2: float,
) -> tuple[float, bool]:
    """Trains a linear probe on one split and scores it on another.

    Args:
        train_x: activations `(train_examples, features)`.
        train_labels: class ids `(train_examples,)`.
        test_x: activations `(test_examples, features)`.
        test_labels: class ids `(test_examples,)`.
        num_labels: number of classes.
        inverse_l2: inverse strength of the L2 penalty, scikit-learn's C.

    Returns:
        Accuracy on the test split, and whether the solver converged.

    Raises:
        InputError: the training rows have one class only, or as `classification.score`.
    """
    model, converged = fit(train_x, train_labels, inverse_l2)
    predictions = model.predict(test_x.astype(np.float64))
    return classification.score(predictions, test_labels, num_labels)["accuracy"], converged


@dataclasses.dataclass(frozen=True)
class ControlTask:
    """A control task: a random label for each word type.

    The labels are drawn with the frequencies of the true labels, so that both tasks are equally
    unbalanced. A probe can solve this task only by memorising word types.

    Attributes:
        labels: the label of each word type in training.
    """

    labels: dict[str, int]

    @classmethod
    def draw(cls, types: Sequence[str], labels: np.ndarray, seed: int) -> "ControlTask":
        """Draws the labels of the word types of the training rows, once.

        Args:
            types: the word type of each row.
            labels: labels of the true task `(rows,)`.
            seed: seed of the draw.
        """
        names = sorted(set(types))
        drawn = np.random.default_rng(seed).choice(labels, len(names))
        return cls(dict(zip(names, drawn.tolist(), strict=True)))

    def labels_of(self, types: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Labels of the rows whose type is in training, and the indices of these rows."""
        places = np.array([i for i, name in enumerate(types) if name in self.labels], np.int64)
        return np.array([self.labels[types[i]] for i in places], np.int64), places


def online_codelength(
    x: np.ndarray, labels: np.ndarray, num_labels: int, inverse_l2: float
) -> dict[str, float]:
    """Number of bits that send the labels to a receiver who has the activations.

    The first portion is sent with the uniform code. Each later portion is sent with a probe trained
    on all earlier ones, so a probe that needs much data has a longer code. Its probabilities are
    mixed with 1 / (rows + 1) of the uniform distribution, since a label may be new.

    Args:
        x: activations `(rows, features)`, in the order in which they are sent.
        labels: class ids `(rows,)`.
        num_labels: number of classes.
        inverse_l2: as for `fit`.

    Returns:
        `codelength`, `uniform_codelength` (both in bits) and `compression`, their ratio.

    References:
        Voita, Titov 2020, section 2.2.2.
    """
    rows = len(labels)
    ends = sorted({max(2, round(share * rows)) for share in PORTIONS})
    bits = ends[0] * np.log2(num_labels)
    for start, stop in zip(ends, ends[1:], strict=False):
        if len(np.unique(labels[:start])) < 2:
            bits += (stop - start) * np.log2(num_labels)
            continue
        model, _ = fit(x[:start], labels[:start], inverse_l2)
        predicted = model.predict_proba(x[start:stop].astype(np.float64))
        probabilities = np.full((stop - start, num_labels), 1 / (start + 1) / num_labels)
        probabilities[:, model.classes_] += start / (start + 1) * predicted
        bits -= np.log2(probabilities[np.arange(stop - start), labels[start:stop]]).sum()
    uniform = rows * np.log2(num_labels)
    return {
        "codelength": float(bits),
        "uniform_codelength": float(uniform),
        "compression": float(uniform / bits),
    }


def scalar_mix(
    train_x: Sequence[np.ndarray],
    train_labels: np.ndarray,
    test_x: Sequence[np.ndarray],
    test_labels: np.ndarray,
    *,
    num_labels: int,
    inverse_l2: float,
) -> dict[str, float | list[float]]:
    """A linear probe on a weighted mean of all taps, with learnt weights.

    Args:
        train_x: for each tap `(train_examples, features)`.
        train_labels: class ids `(train_examples,)`.
        test_x: for each tap `(test_examples, features)`.
        test_labels: class ids `(test_examples,)`.
        num_labels: number of classes.
        inverse_l2: as for `fit`.

    Returns:
        `accuracy`, `weights` (one per tap, adding up to 1) and `centre_of_gravity`: the mean index
        of a tap under these weights, from 0.
    """
    scalers = [StandardScaler().fit(x.astype(np.float64)) for x in train_x]
    train, test = (
        np.stack([s.transform(x.astype(np.float64)) for s, x in zip(scalers, xs, strict=True)])
        for xs in (train_x, test_x)
    )
    taps, rows, features = train.shape
    hot = np.eye(num_labels)[train_labels]
    penalty = 1 / (inverse_l2 * rows)

    def unpacked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kernel = values[taps:-num_labels].reshape(features, num_labels)
        return scipy.special.softmax(values[:taps]), kernel, values[-num_labels:]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, kernel, bias = unpacked(values)
        mixed = np.tensordot(weights, train, 1)
        logits = mixed @ kernel + bias
        logs = scipy.special.log_softmax(logits, 1)
        error = (np.exp(logs) - hot) / rows
        to_mixed = error @ kernel.T
        to_weights = np.array([np.vdot(to_mixed, tap) for tap in train])
        gradient = [
            weights * (to_weights - weights @ to_weights),
            (mixed.T @ error + penalty * kernel).ravel(),
            error.sum(0),
        ]
        value = -(logs * hot).sum() / rows + penalty / 2 * np.square(kernel).sum()
        return value, np.concatenate(gradient)

    start = np.zeros(taps + features * num_labels + num_labels)
    # The weights of taps have no gradient where the kernel is 0.
    start[taps:-num_labels] = np.random.default_rng(0).normal(0, 0.01, features * num_labels)
    solution = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}
    )
    weights, kernel, bias = unpacked(solution.x)
    predictions = np.argmax(np.tensordot(weights, test, 1) @ kernel + bias, 1)
    return {
        "accuracy": float(np.mean(predictions == test_labels)),
        "weights": weights.tolist(),
        "centre_of_gravity": float(weights @ np.arange(taps)),
    }
