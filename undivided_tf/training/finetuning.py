"""Fine-tuning on a labelled task with Keras `compile` and `fit`, several seeds in one call."""

import functools
import json
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from undivided_tf.data import batches
from undivided_tf.data.tasks.probing_tasks import load_sentence_task
from undivided_tf.data.tasks.rows import Rows, Task
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.support import files
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import optimizers, resumable, schedules, scores, strategies
from undivided_tf.training.classifiers import load_initial_weights, save_classifier
from undivided_tf.training.config import FinetuningConfig
from undivided_tf.workdir import once, results_once

VALIDATION = "validation"


def finetune(config: FinetuningConfig) -> dict[str, Any]:
    """Fine-tunes with all seeds; resumes an interrupted call.

    A stopped run resumes from its last checkpoint (`workdir/run_SEED/checkpoints`).

    Args:
        config: the runs; `config.workdir` receives config.json, a file and (with
            `save_models`) a model for every run and, at the end, results.json. With
            `write_predictions` also `predictions_SEED/SPLIT.jsonl`, of all splits but train.

    Returns:
        The content of results.json: the scores of every run on the labelled splits; `primary`, the
        name of the score that tables show; and `majority`, this score of a constant answer.

    Raises:
        InputError: a task or checkpoint that cannot be used, a workdir of another config.
        FloatingPointError: the loss of a run is not finite.
    """
    return results_once(config, lambda: _Tuner(config, load_sentence_task(config.task)), _results)


def _results(tuner: "_Tuner") -> dict[str, Any]:
    """Runs the missing seeds; returns the content of results.json."""
    config = tuner.config
    runs = []
    for seed in range(config.seed, config.seed + config.num_runs):
        path = tuner.workdir / f"run_{seed}.json"
        runs.append(once(path, functools.partial(tuner.run, seed)))
        files.remove(tuner.run_directory(seed))  # Its checkpoints.
    return {
        "kind": "finetuning",
        "pattern": tuner.pattern,
        "task": tuner.task.name,
        "start": "scratch" if config.from_scratch else "pretrained",
        "split": "test" if "test" in tuner.scored else VALIDATION,
        "primary": scores.primary(tuner.task),
        "labels": list(tuner.task.labels),
        "rows": {name: len(rows) for name, rows in tuner.splits.items()},
        "majority": {
            name: scores.constant_score(tuner.task, tuner.splits["train"], tuner.splits[name])
            for name in tuner.scored
        },
        "truncated": tuner.truncated,
        "loading": tuner.loading,
        "runs": runs,
    }


class _Tuner:
    """One compiled classifier for all runs; each run assigns its own initial values."""

    def __init__(self, config: FinetuningConfig, task: Task):
        self.config = config
        self.task = task
        self.head = scores.head_of(task, config.pooling, config.max_seq_length)
        self.workdir = pathlib.Path(config.workdir)
        strategies.make_repeatable(config.seed, config.deterministic)
        self.splits = {"train": task.read("train").take(config.max_train_rows, config.seed)}
        for name in task.splits:
            rows = None if name == "train" else task.read(name)
            if rows is not None and (rows.labels is not None or config.write_predictions):
                self.splits[name] = rows
        self.scored = [
            name
            for name, rows in self.splits.items()
            if name != "train" and rows.labels is not None
        ]
        self.steps_per_epoch = len(self.splits["train"]) // config.train_batch_size
        if config.num_train_epochs and not self.steps_per_epoch:
            raise InputError(
                f"task {config.task} has {len(self.splits['train'])} training rows, fewer than "
                f"one batch of {config.train_batch_size}: lower --train_batch_size"
            )
        self.classifier, self.tokenizer, self.loading = self._initial_classifier(config.seed)
        self.pattern = self.classifier.encoder.config.block_pattern
        encoder_config = self.classifier.encoder.config
        encoder_config.require_length(config.max_seq_length)
        if any(rows.second is not None for rows in self.splits.values()):
            encoder_config.require_segments(2)
        steps = self.steps_per_epoch * config.num_train_epochs
        decay = config.layerwise_lr_decay
        self.optimizer = optimizers.adamw(
            self.classifier.trainable_variables,
            learning_rate=schedules.of_finetuning(config, steps),
            weight_decay_rate=config.weight_decay_rate,
            max_gradient_norm=1.0,
            scales=optimizers.layerwise_scales(self.classifier, decay) if decay < 1 else None,
        )
        self.optimizer_start = [np.asarray(v) for v in self.optimizer.variables]
        loss = (
            keras.losses.MeanSquaredError()
            if task.is_regression
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        self.classifier.compile(self.optimizer, loss)

    def _initial_classifier(self, seed: int) -> tuple[Classifier, Tokenizer, dict[str, Any]]:
        """A classifier with the initial values of a run, and the record of its loaded weights."""
        config = self.config
        encoder, tokenizer = checkpoints.untrained_encoder(config.init_checkpoint, seed)
        classifier = Classifier(
            encoder, self.task.labels, config.pooling, config.classifier_dropout, seed
        )
        if self.task.is_regression:
            # A mean that starts at 0 would take hundreds of small steps to rise.
            classifier.head.bias.assign([self.splits["train"].labels.mean()])
        loading = {}
        if not config.from_scratch:
            loading = load_initial_weights(
                classifier, config.init_checkpoint, config.new_weights, self.head
            )
        return classifier, tokenizer, loading

    @functools.cached_property
    def encoded(self) -> dict[str, batches.Encoded]:
        """Word pieces of all splits."""
        length = self.config.max_seq_length
        return {
            name: batches.encode(rows, self.tokenizer, length) for name, rows in self.splits.items()
        }

    @property
    def truncated(self) -> dict[str, int]:
        """Rows of each split that fill `max_seq_length`: truncated rows and exact fits."""
        longest = self.config.max_seq_length
        return {name: int((e.lengths == longest).sum()) for name, e in self.encoded.items()}

    def run(self, seed: int) -> dict[str, Any]:
        """Fine-tunes with one seed; returns its scores."""
        config = self.config
        initial, _, _ = self._initial_classifier(seed)
        for variable, value in zip(self.classifier.variables, initial.variables, strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, self.optimizer_start, strict=True):
            variable.assign(value)
        start = "random weights" if config.from_scratch else "pre-trained"
        description = f"{self.task.name} {self.pattern} {start}, seed {seed}"
        trained = self._train(seed, description)
        if config.save_models:
            save_classifier(
                self.workdir / f"model_{seed}",
                self.classifier,
                self.tokenizer,
                task=self.head.task,
                max_seq_length=self.head.max_seq_length,
                input=self.head.input,
                score_range=self.head.score_range,
            )
        logits = {name: self._logits(name) for name in self.splits if name != "train"}
        if config.write_predictions:
            for name, values in logits.items():
                _write_predictions(
                    self.workdir / f"predictions_{seed}" / f"{name}.jsonl",
                    self.task,
                    self.splits[name],
                    values,
                )
        scored = {
            name: scores.score(self.task, logits[name], self.splits[name].labels)
            for name in self.scored
        }
        if VALIDATION in scored:
            scores.warn_of_another_order(
                self.task, logits[VALIDATION], self.splits[VALIDATION].labels
            )
        return {
            "seed": seed,
            "seconds": trained["seconds"],
            "training_loss": trained["losses"],
            "validation_by_epoch": trained["scores"],
            **scored,
        }

    def _train(self, seed: int, description: str) -> dict[str, Any]:
        """Trains from the newest checkpoint of the run; see `resumable.fit`."""
        config = self.config
        early_stopping = None
        if config.early_stopping_epochs:
            early_stopping = resumable.EarlyStopping(
                self.classifier, self._validation_score, config.early_stopping_epochs
            )

        def steps(first: int, count: int) -> tf.data.Dataset:
            return batches.training_batches(
                self.encoded["train"],
                batch_size=config.train_batch_size,
                epochs=config.num_train_epochs,
                seed=seed,
                pad_to_multiple_of=config.pad_to_multiple_of,
                steps=slice(first, first + count),
            )

        return resumable.fit(
            self.classifier,
            steps,
            epochs=config.num_train_epochs,
            steps_per_epoch=self.steps_per_epoch,
            save_checkpoints_steps=config.save_checkpoints_steps,
            workdir=self.run_directory(seed),
            tokenizer=self.tokenizer,
            description=description,
            early_stopping=early_stopping,
        )

    def run_directory(self, seed: int) -> pathlib.Path:
        """Directory of a run's checkpoints during training."""
        return self.workdir / f"run_{seed}"

    def _logits(self, split: str) -> np.ndarray:
        dataset, where = batches.prediction_batches(
            self.encoded[split],
            batch_size=self.config.train_batch_size,
            pad_to_multiple_of=self.config.pad_to_multiple_of,
        )
        return self.classifier.predict(dataset, verbose=0)[where]

    def _validation_score(self) -> float:
        score = scores.score(self.task, self._logits(VALIDATION), self.splits[VALIDATION].labels)
        return score[scores.primary(self.task)]


def _write_predictions(path: pathlib.Path, task: Task, rows: Rows, logits: np.ndarray) -> None:
    """Writes a JSON object per row: texts, label if known, prediction, logits."""
    predictions = scores.predictions(task, logits)
    lines = []
    for i, text in enumerate(rows.first):
        row: dict[str, Any] = {"text": text}
        if rows.second is not None:
            row["second_text"] = rows.second[i]
        if rows.labels is not None:
            row["label"] = scores.json_value(task, rows.labels[i])
        row["prediction"] = scores.json_value(task, predictions[i])
        row["logits"] = [float(value) for value in logits[i]]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    files.write_text(path, "".join(lines))
