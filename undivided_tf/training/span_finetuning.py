"""Fine-tuning and prediction on SQuAD with Keras `compile` and `fit`."""

import dataclasses
import functools
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf.data import streams
from undivided_tf.data.tasks import squad
from undivided_tf.data.tasks.answers import Predictions, predict_answers
from undivided_tf.data.tasks.squad import Question
from undivided_tf.data.tasks.windows import Windows, make_windows
from undivided_tf.errors import InputError
from undivided_tf.metrics.squad import evaluate
from undivided_tf.models import checkpoints
from undivided_tf.models.heads import SpanHead
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.models.weights import load_weights
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import optimizers, resumable, schedules, strategies
from undivided_tf.training.config import SquadConfig
from undivided_tf.workdir import once, results_once


def finetune_spans(config: SquadConfig) -> dict[str, Any]:
    """Trains on SQuAD, tunes the null threshold, predicts and scores; resumes an interrupted call.

    Each run has a directory `workdir/run_SEED`: checkpoints during training, then the model,
    `predictions.json` and `nbest.json` as google-research/bert writes them and, with
    `version_2_with_negative`, `null_odds.json`.

    Args:
        config: the runs; `config.workdir` receives config.json and results.json too. Without
            `train_files` the model in `init_checkpoint` only predicts.

    Returns:
        The content of results.json: counts of the windows, and for every run the official
        scores (`metrics.squad.evaluate`) of `predict_file` and of `validation_file`.

    Raises:
        InputError: a data set or checkpoint that cannot be used, a workdir of another config.
        FloatingPointError: the loss of a run is not finite.
    """
    return results_once(config, lambda: _SpanTuner(config), lambda tuner: tuner.results())


@dataclasses.dataclass(frozen=True, eq=False)
class _DataSet:
    questions: list[Question]
    windows: Windows


class _SpanTuner:
    """The data sets and runs of a config."""

    def __init__(self, config: SquadConfig):
        self.config = config
        self.workdir = pathlib.Path(config.workdir)
        if not config.predict_file:
            raise InputError("a data set to predict is needed: --predict_file=FILE")
        strategies.make_repeatable(config.seed, config.deterministic)
        model, self.tokenizer = self._initial_model(config.seed)
        self.pattern = model.encoder.config.block_pattern
        model.encoder.config.require_length(config.max_seq_length)
        model.encoder.config.require_segments(2)
        self.data = {"predict": self._data_set((config.predict_file,), "validation")}
        if config.validation_file:
            self.data["validation"] = self._data_set((config.validation_file,), "validation")
        if config.train_files:
            self.data["train"] = self._training_set()
            windows = self.data["train"].windows
            self.steps_per_epoch = len(windows) // config.train_batch_size
            if not self.steps_per_epoch:
                raise InputError(
                    f"{', '.join(config.train_files)}: {len(windows)} windows to train on, fewer "
                    f"than one batch of {config.train_batch_size}: lower --train_batch_size"
                )

    def _initial_model(self, seed: int) -> tuple[SpanPredictor, Tokenizer]:
        """A model with the initial values of a run."""
        if not self.config.train_files:
            return load_span_predictor(self.config.init_checkpoint)
        encoder, tokenizer = checkpoints.load_encoder(self.config.init_checkpoint, seed)
        return SpanPredictor(encoder, seed), tokenizer

    def _data_set(self, sources: tuple[str, ...], split: str, limit: int = 0) -> _DataSet:
        config = self.config
        questions = squad.read_questions(sources, split)
        if 0 < limit < len(questions):
            chosen = np.random.default_rng(config.seed).permutation(len(questions))[:limit]
            questions = [questions[i] for i in np.sort(chosen)]
        impossible = [question.place for question in questions if not question.answers]
        if impossible and not config.version_2_with_negative:
            raise InputError(
                f"{len(impossible)} of {len(questions)} questions have no answer, the first at "
                f"{impossible[0]}: give --version_2_with_negative, without which any answer to "
                "them is wrong"
            )
        windows = make_windows(
            questions,
            self.tokenizer,
            max_seq_length=config.max_seq_length,
            doc_stride=config.doc_stride,
            max_query_length=config.max_query_length,
        )
        logging.info("%s: %s", ", ".join(sources), windows.counts)
        return _DataSet(questions, windows)

    def _training_set(self) -> _DataSet:
        config = self.config
        data = self._data_set(config.train_files, "train", config.max_train_questions)
        return dataclasses.replace(data, windows=data.windows.take(~data.windows.is_lost))

    def results(self) -> dict[str, Any]:
        """Runs the missing seeds; returns the content of results.json."""
        config = self.config
        runs = []
        for seed in range(config.seed, config.seed + config.num_runs):
            path = self.workdir / f"run_{seed}" / "run.json"
            runs.append(once(path, functools.partial(self._run, seed, path.parent)))
            files.remove(path.parent / "checkpoints")
        return {
            "kind": "squad",
            "pattern": self.pattern,
            "sources": {
                "train": list(config.train_files),
                "validation": config.validation_file,
                "predict": config.predict_file,
            },
            "counts": {name: data.windows.counts for name, data in self.data.items()},
            "runs": runs,
        }

    def _run(self, seed: int, directory: pathlib.Path) -> dict[str, Any]:
        """Trains and predicts with one seed; returns its scores."""
        config = self.config
        model, _ = self._initial_model(seed)
        result: dict[str, Any] = {"seed": seed}
        if config.train_files:
            result["training_loss"] = self._train(model, seed, directory)
        threshold = config.null_score_diff_threshold
        if config.validation_file:
            predictions, truths = self._predict(model, "validation")
            tuned = evaluate(truths, predictions.texts, predictions.null_odds)
            threshold = predictions.best_threshold(tuned)
            result["validation"] = self._score(predictions, truths, threshold)
        if config.train_files:
            self._save(model, directory / "model", threshold)
        predictions, truths = self._predict(model, "predict")
        result["null_score_diff_threshold"] = threshold
        result["predict"] = self._score(predictions, truths, threshold)
        files.write_json(directory / "predictions.json", self._texts(predictions, threshold))
        files.write_json(directory / "nbest.json", predictions.nbest)
        if config.version_2_with_negative:
            files.write_json(directory / "null_odds.json", predictions.null_odds)
        return result

    def _texts(self, predictions: Predictions, threshold: float) -> dict[str, str]:
        if self.config.version_2_with_negative:
            return predictions.with_threshold(threshold)
        return predictions.texts

    def _score(
        self, predictions: Predictions, truths: list[dict[str, Any]], threshold: float
    ) -> dict[str, float]:
        """The official scores at a threshold, and the best scores over all thresholds."""
        scores = evaluate(truths, self._texts(predictions, threshold))
        if self.config.version_2_with_negative:
            best = evaluate(truths, predictions.texts, predictions.null_odds)
            scores |= {name: value for name, value in best.items() if name.startswith("best_")}
        return scores

    # === Training ===

    def _train(self, model: SpanPredictor, seed: int, directory: pathlib.Path) -> list[float]:
        """Trains from the newest checkpoint; returns the mean loss of each epoch."""
        config = self.config
        steps = self.steps_per_epoch * config.num_train_epochs
        optimizer = optimizers.adamw(
            model.trainable_variables,
            learning_rate=schedules.of_finetuning(config, steps),
            weight_decay_rate=config.weight_decay_rate,
            max_gradient_norm=1.0,
        )
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        trained = resumable.fit(
            model,
            functools.partial(self._batches, seed),
            epochs=config.num_train_epochs,
            steps_per_epoch=self.steps_per_epoch,
            save_checkpoints_steps=config.save_checkpoints_steps,
            workdir=directory,
            tokenizer=self.tokenizer,
            description=f"SQuAD {self.pattern}, seed {seed}",
        )
        return trained["losses"]

    def _batches(self, seed: int, step: int, count: int) -> tf.data.Dataset:
        """Batches of `count` steps of an epoch from `step` on; each epoch has its own order."""
        size = self.config.train_batch_size
        windows = self.data["train"].windows
        epoch, first = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(windows))
        chosen = windows.take(order[first * size : (first + count) * size])
        dataset = tf.data.Dataset.from_tensor_slices((chosen.inputs(), chosen.positions))
        return streams.without_autotuning(dataset.batch(size, drop_remainder=True).prefetch(4))

    # === Prediction ===

    def _predict(self, model: SpanPredictor, name: str) -> tuple[Predictions, list[dict[str, Any]]]:
        """Predictions of a data set, and its truths."""
        config, data = self.config, self.data[name]
        predictions = predict_answers(
            data.questions,
            data.windows,
            window_logits(model, data.windows, config.predict_batch_size),
            n_best_size=config.n_best_size,
            max_answer_length=config.max_answer_length,
            version_2_with_negative=config.version_2_with_negative,
        )
        return predictions, squad.as_articles(data.questions)

    def _save(self, model: SpanPredictor, path: pathlib.Path, threshold: float) -> None:
        config = self.config
        head = SpanHead(
            max_seq_length=config.max_seq_length,
            doc_stride=config.doc_stride,
            max_query_length=config.max_query_length,
            version_2_with_negative=config.version_2_with_negative,
            null_score_diff_threshold=threshold,
        )
        with files.atomic_path(path) as partial:
            partial.mkdir()
            checkpoints.save_model(partial, model.weights, model.encoder.config, self.tokenizer)
            head.write(partial)


def window_logits(model: SpanPredictor, windows: Windows, batch_size: int) -> np.ndarray:
    """Logits of all windows, in batches of one shape.

    Returns:
        float32 `(windows, 2, length)`.
    """
    missing = -len(windows) % batch_size
    order = np.minimum(np.arange(len(windows) + missing), len(windows) - 1)
    dataset = tf.data.Dataset.from_tensor_slices(windows.take(order).inputs()).batch(batch_size)
    dataset = streams.without_autotuning(dataset)
    return model.predict(dataset, verbose=0)[: len(windows)]


def load_span_predictor(directory: str | pathlib.Path) -> tuple[SpanPredictor, Tokenizer]:
    """Loads a model trained on SQuAD.

    Args:
        directory: `WORKDIR/run_SEED/model` of `finetune_spans`; `SpanHead.read` gives the settings
            of its windows.

    Returns:
        The model and its tokenizer.

    Raises:
        InputError: no such model at `directory`, or files that contradict each other.
    """
    directory = pathlib.Path(directory)
    if SpanHead.read(directory) is None:
        raise InputError(
            f"there is no model for questions in {directory}: {SpanHead.FILE} is missing; give "
            "WORKDIR/run_SEED/model of run_squad, or files to train on"
        )
    encoder, tokenizer = checkpoints.untrained_encoder(directory, seed=None)
    model = SpanPredictor(encoder)
    load_weights(model.weights, directory)
    return model, tokenizer
