"""Keras `fit` in segments with a checkpoint after each, so that a stopped run can resume."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from undivided_tf.models import checkpoints
from undivided_tf.models.weights import dropout_states
from undivided_tf.support.progress import bar, compiling
from undivided_tf.tokenization import Tokenizer


class _Progress(keras.callbacks.Callback):
    """Updates a progress bar with every batch, and shows that the first batch compiles."""

    def __init__(self, progress):
        super().__init__()
        self.progress = progress
        self.compilation = contextlib.ExitStack()
        self.has_begun = False

    def on_train_begin(self, logs=None):
        if not self.has_begun:
            self.compilation.enter_context(compiling(self.progress))
        self.has_begun = True

    def on_train_batch_end(self, batch, logs=None):
        self.compilation.close()
        self.progress.update()


class EarlyStopping:
    """Ends a run after some epochs without a better score, and keeps the best weights.

    Args:
        model: the Keras model that is trained.
        score: function that returns its present score; higher is better.
        patience: number of epochs without a better score, from 1.
    """

    def __init__(self, model: keras.Model, score: Callable[[], float], patience: int):
        self.model, self.score, self.patience = model, score, patience
        self.best = [keras.Variable(weight, trainable=False) for weight in model.weights]

    def add_epoch(self, scores: list[float]) -> bool:
        """Appends the score of an epoch to `scores`; returns whether to continue."""
        scores.append(self.score())
        if scores[-1] > max(scores[:-1], default=-np.inf):
            _copy(self.model.weights, self.best)
        return len(scores) - 1 - int(np.argmax(scores)) < self.patience

    def take_best(self) -> None:
        """Gives the model the best weights."""
        _copy(self.best, self.model.weights)


def _copy(sources: list[Any], targets: list[Any]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.assign(source)


def fit(
    model: keras.Model,
    batches: Callable[[int, int], tf.data.Dataset],
    *,
    epochs: int,
    steps_per_epoch: int,
    save_checkpoints_steps: int,
    workdir: str | pathlib.Path,
    tokenizer: Tokenizer,
    description: str,
    early_stopping: EarlyStopping | None = None,
) -> dict[str, Any]:
    """Trains a compiled model, from the newest checkpoint of the run if there is one.

    A stopped run repeats the steps since its last checkpoint and ends with the weights of an
    uninterrupted run. A run of fewer steps than `save_checkpoints_steps` writes no checkpoint.

    Args:
        model: compiled, with an `encoder` and the initial values of the run.
        batches: function from a step and a number of steps to the batches of these steps.
        epochs: number of passes over the data.
        steps_per_epoch: batches per epoch.
        save_checkpoints_steps: steps between checkpoints.
        workdir: the run's directory; the caller removes its `checkpoints`.
        tokenizer: the encoder's.
        description: names the run in the progress bar and in errors.
        early_stopping: for this model; None: train all epochs.

    Returns:
        `losses`, the mean loss of each epoch; `scores`, the score of each epoch, if there is early
        stopping; and `seconds`, over all calls of the run.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    variables = [*model.optimizer.variables, *dropout_states(model)]
    variables += early_stopping.best if early_stopping else []
    state = checkpoints.restore_latest(workdir, model, variables)
    state = state or {"step": 0, "losses": [], "scores": [], "seconds": 0.0}
    steps, saved, continues = epochs * steps_per_epoch, state["step"], True
    with bar(steps, description, "steps", initial=saved) as progress:
        callbacks = [_Progress(progress), keras.callbacks.TerminateOnNaN()]
        while state["step"] < steps and continues:
            started = time.perf_counter()
            done = state["step"] % steps_per_epoch
            count = min(steps_per_epoch - done, saved + save_checkpoints_steps - state["step"])
            # Without a known length Keras warns that the data ran out.
            with_length = tf.data.experimental.assert_cardinality(count)
            history = model.fit(
                batches(state["step"], count).apply(with_length),
                callbacks=callbacks,
                shuffle=False,  # The caller shuffles with the run's seed.
                verbose=0,
            )
            (loss,) = history.history["loss"]
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"{description}: the loss is not finite; lower --learning_rate"
                )
            before = state["losses"].pop() if done else 0.0
            state["losses"].append((before * done + loss * count) / (done + count))
            state["step"] += count
            if done + count == steps_per_epoch and early_stopping:
                continues = early_stopping.add_epoch(state["scores"])
            state["seconds"] += time.perf_counter() - started
            progress.set_postfix_str(f"loss {state['losses'][-1]:.3f}")
            if state["step"] - saved == save_checkpoints_steps and continues:
                saved = state["step"]
                checkpoints.save(workdir, state, model, variables, tokenizer, keep=1)
    if early_stopping:
        early_stopping.take_best()
    return {name: state[name] for name in ("losses", "scores", "seconds")}
