"""Healing from text alone: a cut encoder learns the states and sentence vectors of the whole one.

Neither labels nor a masked-language-model head are needed. Embeddings and pooler are not trained:
surgery does not change the embeddings, and the losses do not depend on the pooler.

References:
    Jiao et al. 2019, arXiv 1909.10351, equation 8 (hidden states layer by layer).
    Reimers, Gurevych 2020, arXiv 2004.09813, equation 1 (sentence vectors of a teacher).
    Tung, Mori 2019, arXiv 1907.09682 (similarities between the rows of a batch).
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from undivided_tf.convert import converter
from undivided_tf.data import streams
from undivided_tf.data.corpus import records
from undivided_tf.data.examples import TOKEN_IDS
from undivided_tf.errors import InputError
from undivided_tf.models.classifier import pool
from undivided_tf.support import files
from undivided_tf.surgery import run
from undivided_tf.surgery.config import HealingConfig
from undivided_tf.training import optimizers, resumable, schedules, strategies
from undivided_tf.training.distillation import matching_taps
from undivided_tf.workdir import results_once

LOSSES = ("hidden_loss", "embedding_loss", "similarity_loss")


def heal(config: HealingConfig) -> dict[str, Any]:
    """Trains a cut encoder towards the encoder that it was cut from; resumes a stopped call.

    Args:
        config: the run; `config.workdir` receives config.json, the healed checkpoint `model` with
            the heads of the cut one and, at the end, results.json.

    Returns:
        The content of results.json: `steps`, `pieces` seen in training (special tokens and
        repetitions included), `seconds`, `training_loss`, and held-out losses `before` and `after`,
        see `Healer.losses`.

    Raises:
        InputError: an invalid checkpoint, a teacher with another vocabulary or hidden size, records
            of another vocabulary, a workdir of another config.
        FloatingPointError: the loss is not finite.
    """
    return results_once(config, lambda: _Run(config), lambda run: run.results())


class Healer(keras.Model):
    """A student with its losses against a frozen teacher.

    Args:
        encoder: Encoder. The student.
        teacher: Encoder of the same hidden size and vocabulary.
        matches: pairs of a tap of the student and its target tap of the teacher.
        weights: dict from the names `LOSSES` to the weight of each loss.
    """

    def __init__(self, encoder, teacher, matches, weights, name="healer", **kwargs):
        super().__init__(name=name, **kwargs)
        self.encoder = encoder
        # A closure, so that Keras neither trains nor saves the teacher.
        self._teach = lambda inputs: teacher(inputs, training=False, return_taps=True)
        self._matches = list(matches)
        self._loss_weights = dict(weights)
        self.encoder.embeddings.trainable = self.encoder.pooler.trainable = False
        self.built = True

    def losses_of(self, inputs, training=False):
        """Means over the tokens or rows of a batch, named `LOSSES`.

        Args:
            inputs: dict of int tensors (batch, length), the inputs of the encoder. A row that is
                all padding does not count.
            training: bool. Whether the student's dropout is on.

        Returns:
            Dict of float32 scalars: `hidden_loss`, the mean over matched taps, real tokens and
            features of the squared difference of states; `embedding_loss`, the mean over rows of
            1 - cosine of the mean-pooled last states; `similarity_loss`, the mean over pairs of
            rows of the squared difference of their cosines.
        """
        teacher = self._teach(inputs)
        student = self.encoder(inputs, training=training, return_taps=True)
        real = tf.cast(inputs["padding_mask"], tf.float32)
        is_row = tf.reduce_max(real, axis=1)
        rows = tf.maximum(tf.reduce_sum(is_row), 1.0)
        hidden = tf.zeros([])
        for name, target in self._matches:
            squares = tf.square(student["taps"][name] - teacher["taps"][target])
            hidden += tf.reduce_sum(tf.reduce_mean(squares, -1) * real)
        hidden /= len(self._matches) * tf.maximum(tf.reduce_sum(real), 1.0)
        vectors, targets = (
            tf.math.l2_normalize(pool(outputs, inputs, "mean"), -1) * is_row[:, None]
            for outputs in (student, teacher)
        )
        cosines = [tf.matmul(v, v, transpose_b=True) for v in (vectors, targets)]
        return {
            "hidden_loss": hidden,
            "embedding_loss": 1 - tf.reduce_sum(vectors * targets) / rows,
            "similarity_loss": tf.reduce_sum(tf.square(cosines[0] - cosines[1])) / rows**2,
        }

    def call(self, inputs, training=None):
        """Adds the weighted loss of a batch; takes the arguments of `losses_of`."""
        losses = self.losses_of(inputs, training)
        self.add_loss(sum(self._loss_weights[name] * losses[name] for name in LOSSES))
        return losses


class _Run:
    """Student, teacher and records of one healing."""

    def __init__(self, config: HealingConfig):
        self.config = config
        strategies.make_repeatable(config.seed, config.deterministic)
        self.source = converter.open_checkpoint(converter.locate(config.init_checkpoint))
        teacher = converter.open_checkpoint(converter.locate(config.teacher_checkpoint))
        self.encoder = converter.build_encoder(self.source)
        _check_teacher(teacher.config.to_dict(), self.source.config.to_dict(), config)
        self.metadata = records.read_metadata(config.records_dir)
        if self.metadata["vocabulary_hash"] != self.source.tokenizer.vocabulary_hash:
            raise InputError(
                f"records_dir {config.records_dir} has another vocabulary than "
                f"{config.init_checkpoint}: make records with --vocab_file of the checkpoint"
            )
        self.source.config.require_length(self.metadata["max_seq_length"])
        report = pathlib.Path(config.init_checkpoint) / run.REPORT
        self.surgery_report = files.read_json(report) if report.exists() else {}
        kept = self.surgery_report.get("kept", {})
        self.healer = Healer(
            self.encoder,
            converter.build_encoder(teacher),
            matching_taps(self.source.config.pattern, teacher.config.pattern, kept),
            {name: getattr(config, name.replace("loss", "weight")) for name in LOSSES},
        )
        train = self.metadata["train"]
        self.pieces_per_row = train["tokens"] / train["rows"]
        pieces_per_step = self.pieces_per_row * config.train_batch_size
        self.steps = max(1, round(config.train_pieces / pieces_per_step))
        optimizer = optimizers.OPTIMIZERS[config.optimizer](
            self.healer.trainable_variables,
            scales=optimizers.layerwise_scales(self.healer, config.layerwise_lr_decay),
            learning_rate=schedules.of_finetuning(config, self.steps),
            weight_decay_rate=config.weight_decay_rate,
            max_gradient_norm=1.0,
        )
        self.healer.compile(optimizer, jit_compile=False)

    def results(self) -> dict[str, Any]:
        """Trains, saves the model, and measures the losses before and after."""
        config, workdir = self.config, pathlib.Path(self.config.workdir)
        before = self._held_out()
        trained = resumable.fit(
            self.healer,
            self._batches,
            epochs=1,
            steps_per_epoch=self.steps,
            save_checkpoints_steps=config.save_checkpoints_steps,
            workdir=workdir,
            tokenizer=self.source.tokenizer,
            description=f"healing {self.source.config.block_pattern}",
        )
        after = self._held_out()
        logging.info("held out: before %s, after %s", before, after)
        files.remove(workdir / "model")
        report = {**self.surgery_report, "kind": "healing"}
        run.write(workdir / "model", self.source, self.encoder, report)
        files.remove(workdir / "checkpoints")
        return {
            "kind": "healing",
            "pattern": self.source.config.block_pattern,
            "steps": self.steps,
            "pieces": round(self.steps * config.train_batch_size * self.pieces_per_row),
            "seconds": trained["seconds"],
            "training_loss": trained["losses"],
            "before": before,
            "after": after,
        }

    def _batches(self, first: int, count: int) -> tf.data.Dataset:
        size = self.config.train_batch_size
        rows = streams.training_rows(
            self.config.records_dir, seed=self.config.seed, start_row=first * size
        )
        batches = rows.batch(size, drop_remainder=True).take(count)
        return streams.without_autotuning(batches.map(self._inputs).prefetch(1))

    def _inputs(self, rows: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids = rows[TOKEN_IDS]
        padding_mask = tf.cast(ids != self.source.tokenizer.pad_id, tf.int32)
        segments = rows.get("segment_ids", tf.zeros_like(ids)) * padding_mask
        return {"token_ids": ids, "segment_ids": segments, "padding_mask": padding_mask}

    def _held_out(self) -> dict[str, float]:
        """Means of `Healer.losses_of` over batches of held-out rows."""
        config = self.config
        rows = streams.validation_rows(config.records_dir, config.max_eval_rows)
        losses = tf.function(functools.partial(self.healer.losses_of), autograph=False)
        size = min(config.train_batch_size, len(rows[TOKEN_IDS]))
        by_loss: dict[str, list[float]] = {name: [] for name in LOSSES}
        for start in range(0, len(rows[TOKEN_IDS]) - size + 1, size):
            batch = {name: tf.constant(v[start : start + size]) for name, v in rows.items()}
            for name, value in losses(self._inputs(batch)).items():
                by_loss[name].append(float(value))
        return {name: float(np.mean(values)) for name, values in by_loss.items()}


def _check_teacher(
    teacher: Mapping[str, Any], student: Mapping[str, Any], config: HealingConfig
) -> None:
    differences = [
        f"{name}: {teacher[name]} in the teacher, {student[name]} in the student"
        for name in ("hidden_size", "vocab_size", "vocabulary_hash")
        if teacher[name] != student[name]
    ]
    if differences:
        raise InputError(
            f"{config.teacher_checkpoint} cannot teach {config.init_checkpoint}:\n  "
            + "\n  ".join(differences)
            + "\ntake the encoder from which it was cut"
        )
