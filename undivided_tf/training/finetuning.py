"""Fine-tuning on a labelled task with Keras `compile` and `fit`, several seeds in one call."""

import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from undivided_tf import files
from undivided_tf.config import results_once
from undivided_tf.data import streams
from undivided_tf.data.tasks import Rows, Task, load_task
from undivided_tf.errors import InputError
from undivided_tf.metrics import classification
from undivided_tf.models.classifier import Classifier
from undivided_tf.progress import bar
from undivided_tf.recipes import FinetuningConfig
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import checkpoints, optimizers, strategies

_SCORED_SPLITS = ("validation", "test")
CLASSIFIER = "classifier.json"


def finetune(config: FinetuningConfig) -> dict[str, Any]:
    """Runs all seeds of a fine-tuning, or those that an interrupted call left.

    Args:
        config: the runs; `config.workdir` receives config.json, a file and (with
            `save_models`) a model for every run and, at the end, results.json.

    Returns:
        The content of results.json: the scores of every run on the labelled splits.

    Raises:
        InputError: a task or checkpoint that cannot be used, a workdir of another config.
        FloatingPointError: the loss of a run is not finite.
    """
    return results_once(config, lambda: _Tuner(config, load_task(config.task)), _results)


def _results(tuner: "_Tuner") -> dict[str, Any]:
    """Runs the seeds that are missing; what results.json holds."""
    config = tuner.config
    runs = []
    for seed in range(config.seed, config.seed + config.num_runs):
        run_path = tuner.workdir / f"run_{seed}.json"
        if not run_path.exists():
            files.write_json(run_path, tuner.run(seed))
        runs.append(files.read_json(run_path))
    return {
        "kind": "finetuning",
        "pattern": tuner.pattern,
        "task": tuner.task.name,
        "start": "scratch" if config.from_scratch else "pretrained",
        "split": tuner.scored[-1],  # Test where it is labelled, else validation.
        "labels": list(tuner.task.labels),
        "rows": {name: len(rows) for name, rows in tuner.splits.items()},
        "majority": {
            name: classification.majority_accuracy(
                tuner.splits["train"].labels, tuner.splits[name].labels
            )
            for name in tuner.scored
        },
        "runs": runs,
    }


def encode_batches(
    rows: Rows, tokenizer: Tokenizer, *, max_seq_length: int, batch_size: int, seed: int | None
) -> tf.data.Dataset:
    """Batches for Keras `fit` and `predict`.

    Args:
        rows: texts and, for training, labels.
        tokenizer: turns text into ids.
        max_seq_length: word pieces an example.
        batch_size: examples a batch.
        seed: shuffle with this seed and give (inputs, labels), the last partial batch left
            out; None: keep the order, give inputs only, and repeat the last row to fill the
            last batch (shapes stay static; cut the predictions to `len(rows)`).

    Returns:
        Dataset of the encoder's inputs (batch, length), with labels (batch,) when shuffled.
    """
    # Once and eagerly: traced into the dataset the tokenizer would cost seconds a run.
    encoded = tokenizer.encode(rows.first, rows.second, max_seq_length=max_seq_length)
    if seed is None:
        missing = -len(rows) % batch_size
        order = np.minimum(np.arange(len(rows) + missing), len(rows) - 1)
        encoded = {name: tf.gather(ids, order) for name, ids in encoded.items()}
        dataset = tf.data.Dataset.from_tensor_slices(encoded)
    else:
        dataset = tf.data.Dataset.from_tensor_slices((encoded, rows.labels))
        dataset = dataset.shuffle(len(rows), seed=seed)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(4)
    return streams.without_autotuning(dataset)


class _Tuner:
    """One compiled classifier that serves all runs: each run assigns its own initial values."""

    def __init__(self, config: FinetuningConfig, task: Task):
        self.config = config
        self.task = task
        self.workdir = pathlib.Path(config.workdir)
        strategies.make_repeatable(config.seed, config.deterministic)
        self.splits = {"train": task.read("train").take(config.max_train_rows, config.seed)}
        self.scored = []
        for name in _SCORED_SPLITS:
            rows = task.read(name)
            if rows is not None and rows.labels is not None:
                self.splits[name] = rows
                self.scored.append(name)
        self.steps_per_epoch = len(self.splits["train"]) // config.train_batch_size
        if not self.steps_per_epoch:
            raise InputError(
                f"task {config.task} has {len(self.splits['train'])} training rows, fewer than "
                f"one batch of {config.train_batch_size}: lower --train_batch_size"
            )
        self.classifier, self.tokenizer = self._fresh(config.seed)
        self.pattern = self.classifier.encoder.config.block_pattern
        longest = self.classifier.encoder.config.max_position_embeddings
        if config.max_seq_length > longest:
            raise InputError(
                f"max_seq_length {config.max_seq_length} is more than the encoder's "
                f"max_position_embeddings {longest}"
            )
        steps = self.steps_per_epoch * config.num_train_epochs
        self.optimizer = optimizers.adamw(
            self.classifier.trainable_variables,
            learning_rate=config.learning_rate,
            num_warmup_steps=int(config.warmup_proportion * steps),
            num_train_steps=steps,
            weight_decay_rate=config.weight_decay_rate,
            max_gradient_norm=1.0,
        )
        self.optimizer_start = [np.asarray(v) for v in self.optimizer.variables]
        self.classifier.compile(
            self.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )

    def _fresh(self, seed: int) -> tuple[Classifier, Tokenizer]:
        """A classifier with the initial values of a run."""
        config = self.config
        load = checkpoints.untrained_encoder if config.from_scratch else checkpoints.load_encoder
        encoder, tokenizer = load(config.init_checkpoint, seed)
        classifier = Classifier(
            encoder, self.task.labels, config.pooling, config.classifier_dropout, seed
        )
        return classifier, tokenizer

    def run(self, seed: int) -> dict[str, Any]:
        """Fine-tunes with one seed; returns its scores."""
        config = self.config
        fresh, _ = self._fresh(seed)
        for variable, start in zip(self.classifier.variables, fresh.variables, strict=True):
            variable.assign(start)
        for variable, start in zip(self.optimizer.variables, self.optimizer_start, strict=True):
            variable.assign(start)
        started = time.perf_counter()
        start = "random weights" if config.from_scratch else "pre-trained"
        description = f"{self.task.name} {self.pattern} {start}, seed {seed}"
        with bar(self.steps_per_epoch * config.num_train_epochs, description, "steps") as progress:
            history = self.classifier.fit(
                self._batches("train", seed),
                epochs=config.num_train_epochs,
                callbacks=[_Progress(progress), keras.callbacks.TerminateOnNaN()],
                shuffle=False,  # The dataset does it, by the seed of the run.
                verbose=0,
            )
        losses = history.history["loss"]
        if not np.isfinite(losses).all():
            raise FloatingPointError(
                f"{description}: the loss is not finite; lower --learning_rate"
            )
        seconds = time.perf_counter() - started
        if config.save_models:
            self._save(seed)
        scores = {name: self._score(name) for name in self.scored}
        return {"seed": seed, "seconds": seconds, "training_loss": losses, **scores}

    def _batches(self, split: str, seed: int | None = None) -> tf.data.Dataset:
        return encode_batches(
            self.splits[split],
            self.tokenizer,
            max_seq_length=self.config.max_seq_length,
            batch_size=self.config.train_batch_size,
            seed=seed,
        )

    def _score(self, split: str) -> dict[str, float]:
        rows = self.splits[split]
        logits = self.classifier.predict(self._batches(split), verbose=0)[: len(rows)]
        return classification.score(logits.argmax(-1), rows.labels, len(self.task.labels))

    def _save(self, seed: int) -> None:
        with files.atomic_path(self.workdir / f"model_{seed}") as partial:
            partial.mkdir()
            encoder_config = self.classifier.encoder.config
            checkpoints.save_model(partial, self.classifier.weights, encoder_config, self.tokenizer)
            about = {
                "task": self.task.name,
                "labels": list(self.task.labels),
                "pooling": self.config.pooling,
                "max_seq_length": self.config.max_seq_length,
            }
            files.write_json(partial / CLASSIFIER, about)


def load_classifier(directory: str | pathlib.Path) -> tuple[Classifier, Tokenizer]:
    """Loads a fine-tuned model with the names of its labels.

    Args:
        directory: `WORKDIR/model_SEED` of a fine-tuning run.

    Returns:
        The classifier (`classifier.labels` in the order of the logits) and its tokenizer.

    Raises:
        InputError: no fine-tuned model there, or files that do not fit together.
    """
    directory = pathlib.Path(directory)
    if not (directory / CLASSIFIER).exists():
        raise InputError(f"there is no fine-tuned model in {directory}: {CLASSIFIER} is missing")
    about = files.read_json(directory / CLASSIFIER)
    encoder, tokenizer = checkpoints.untrained_encoder(directory, seed=None)
    classifier = Classifier(encoder, about["labels"], about["pooling"])
    checkpoints.load_weights(classifier.weights, directory)
    return classifier, tokenizer


class _Progress(keras.callbacks.Callback):
    """Moves a progress bar with every batch."""

    def __init__(self, progress):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch, logs=None):
        self.progress.update()
