"""Linear probes: what a linear classifier reads from every tap of an encoder.

References:
    Alain, Bengio 2017, arXiv 1610.01644 (linear classifier probes).
    Hewitt, Liang 2019, arXiv 1909.03368 (a score means little without its baselines).
"""

import warnings
from typing import Any

import numpy as np
from absl import logging
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from undivided_tf import progress
from undivided_tf.analysis import subjects, taps
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import results_once
from undivided_tf.data.tasks import Rows, Task, load_task
from undivided_tf.errors import InputError
from undivided_tf.metrics import classification
from undivided_tf.recipes import ProbingConfig

MAX_ITERATIONS = 2000


def run_probing(config: ProbingConfig) -> dict[str, Any]:
    """Probes a checkpoint and its untrained twin on a task.

    Args:
        config: names the checkpoint, the task and the sample; `config.workdir` receives
            config.json and results.json, and when it has that already, it is read.

    Returns:
        As `probe`.

    Raises:
        InputError: no checkpoint or task there, no labelled rows to score on, or a workdir of
            another config.
    """

    def inputs() -> tuple[Subject, Task]:
        return subjects.load(config.init_checkpoint), load_task(config.task)

    return results_once(config, inputs, lambda read: probe(*read, config))


def probe(subject: Subject, task: Task, config: ProbingConfig) -> dict[str, Any]:
    """Accuracy of a linear probe on every tap, beside the untrained twin and the majority class.

    A probe is a multinomial logistic regression on the pooled tap, standardised with mean and
    deviation of the training rows. It is scored on the test split, or on the validation split
    when the test split is absent or unlabelled.

    Args:
        subject: the encoder.
        task: whose rows are probed; of a regression the rounded scores are classes.
        config: sample sizes, pooling, penalty and seed.

    Returns:
        `kind`, `pattern`, `pretraining_seed`, `task`, `taps`, `accuracy` and
        `untrained_accuracy` (one a tap), `majority_accuracy`, `rows` (`train`, `test`), `split`
        (the one scored on), `pooling`, `unconverged` (probes whose solver stopped early).

    Raises:
        InputError: a split has no rows or no labels, or an activation is not finite.
    """
    task = task.graded()
    train = task.read("train").take(config.max_train_rows, config.seed)
    split, test = _labelled_rows(task)
    test = test.take(config.max_test_rows, config.seed)
    majority = classification.majority_accuracy(train.labels, test.labels)
    accuracies, unconverged = [], 0
    names = list(subject.encoder.config.pattern.tap_names)
    with progress.bar(2 * len(names), f"probing {subject.pattern}", "probes") as bar:
        for encoder in (subject, subject.untrained_twin(config.seed)):
            inputs, outputs = (_pooled(encoder, rows, config) for rows in (train, test))
            accuracies.append([])
            for name in names:
                accuracy, converged = linear_probe(
                    inputs[name],
                    train.labels,
                    outputs[name],
                    test.labels,
                    num_labels=len(task.labels),
                    inverse_l2=config.inverse_l2,
                )
                accuracies[-1].append(accuracy)
                unconverged += not converged
                bar.update()
    if unconverged:
        logging.warning(
            "%d of %d probes did not converge in %d iterations; scores stand as they were then",
            unconverged,
            2 * len(names),
            MAX_ITERATIONS,
        )
    return {
        "kind": "probing",
        "pattern": subject.pattern,
        "pretraining_seed": subject.seed,
        "task": task.name,
        "taps": names,
        "accuracy": accuracies[0],
        "untrained_accuracy": accuracies[1],
        "majority_accuracy": majority,
        "rows": {"train": len(train.first), "test": len(test.first)},
        "split": split,
        "pooling": config.pooling,
        "unconverged": unconverged,
    }


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
    if len(np.unique(train_labels)) < 2:
        raise InputError("a probe needs two classes in its training rows; take more rows")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_l2, max_iter=MAX_ITERATIONS)
    )
    # Two BLAS threads make the many small products of the solver ten times slower.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Counted by the caller.
        model.fit(train_x.astype(np.float64), train_labels)
    converged = bool(model[-1].n_iter_.max() < MAX_ITERATIONS)
    predictions = model.predict(test_x.astype(np.float64))
    return classification.score(predictions, test_labels, num_labels)["accuracy"], converged


def _labelled_rows(task: Task) -> tuple[str, Rows]:
    """The test split, or the validation split of a task whose test labels are not at hand."""
    rows = task.read("test")
    if rows is not None and rows.labels is not None:
        return "test", rows
    logging.warning("task %s has no labelled test split: validation is scored", task.name)
    return "validation", task.read("validation")


def _pooled(subject: Subject, rows: Rows, config: ProbingConfig) -> dict[str, np.ndarray]:
    """Activations of all rows, `(rows, hidden)` a tap."""
    batches = list(
        taps.pooled_activations(
            subject.encoder,
            subject.tokenizer,
            rows,
            pooling=config.pooling,
            batch_size=config.batch_size,
            max_seq_length=config.max_seq_length,
        )
    )
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
