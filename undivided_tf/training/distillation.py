"""Distillation of hidden states and predictions, for example to heal an encoder after surgery.

The teacher, such as the encoder before surgery, is frozen and computes in float32 without dropout.

References:
    Hinton, Vinyals, Dean 2015, arXiv 1503.02531 (soft targets, temperature).
    Jiao et al. 2019, arXiv 1909.10351, equations 8 to 11 (hidden states layer by layer).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import load_weights, read_weights
from undivided_tf.pattern import BlockPattern
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig

SURGERY = "surgery.json"
HEAD = "masked_lm_head"
SUMS = ("hidden_loss", "logits_loss", "tokens")


class Distillation:
    """The losses between a student and its teacher.

    Args:
        config: the run, with a `teacher_checkpoint`.
        student: architecture of the student.

    Attributes:
        matches: pairs of a tap of the student and its target tap of the teacher, see
            `matching_taps`; empty if hidden states have no weight.

    Raises:
        InputError: no checkpoint, another vocabulary or hidden size, fewer positions, or a teacher
            without a masked-language-model head if logits have a weight.
    """

    def __init__(self, config: PretrainingConfig, student: EncoderConfig):
        self.hidden_weight = config.distillation_hidden_weight
        self.logits_weight = config.distillation_logits_weight
        self.temperature = config.distillation_temperature
        path = checkpoints.resolve(config.teacher_checkpoint)
        encoder, _ = checkpoints.load_encoder(path)
        _check(path, encoder.config, student, ["hidden_size"] if self.hidden_weight else [])
        self.teacher = Pretrainer(encoder, name="teacher")
        if self.logits_weight:
            if not any(name.startswith(f"{HEAD}/") for name in read_weights(path)):
                raise InputError(
                    f"the teacher {path} has no masked-language-model head: give "
                    "--distillation_logits_weight=0"
                )
            load_weights(self.teacher.masked_lm_head.weights, path, scope=HEAD)
        self.teacher.trainable = False
        self.matches = []
        if self.hidden_weight:
            kept = _kept_blocks(config.init_checkpoint)
            self.matches = matching_taps(student.pattern, encoder.config.pattern, kept)

    def sums(self, batch: dict[str, tf.Tensor], outputs: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Sums over a batch, named `SUMS`.

        Args:
            batch: inputs of the student.
            outputs: of the student, with all taps.

        Returns:
            Dict of float32 scalars: `hidden_loss`, over real tokens, the mean over matched taps and
            features of the squared difference; `logits_loss`, over masked tokens, T^2 times the
            Kullback-Leibler divergence in nats from the teacher's predictions at temperature T;
            `tokens`, the number of real tokens. Rows without a masked token are padding of the
            batch and do not count.
        """
        inputs = {name: value for name, value in batch.items() if name != "intermediate_scales"}
        targets = self.teacher(inputs, training=False, return_taps=True)
        weights = batch["masked_weights"]
        real = tf.cast(batch["padding_mask"], tf.float32) * tf.reduce_max(weights, 1)[:, None]
        # float32, because squares of small half-precision differences underflow.
        hidden = tf.zeros([])
        for tap, target in self.matches:
            difference = _float32(outputs["taps"][tap]) - _fixed(targets["taps"][target])
            hidden += tf.reduce_sum(tf.reduce_mean(tf.square(difference), -1) * real)
        hidden /= max(len(self.matches), 1)
        logits = tf.zeros([])
        if self.logits_weight:
            student = self._log_probabilities(outputs)
            teacher = tf.stop_gradient(self._log_probabilities(targets))
            divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1)
            logits = self.temperature**2 * tf.reduce_sum(divergence * weights)
        return {"hidden_loss": hidden, "logits_loss": logits, "tokens": tf.reduce_sum(real)}

    def _log_probabilities(self, outputs: Mapping[str, Any]) -> tf.Tensor:
        """Log-probabilities of word pieces at the masked positions, at `temperature`."""
        return tf.nn.log_softmax(_float32(outputs["masked_lm_logits"]) / self.temperature)

    def loss(self, sums: Mapping[str, Any], masked: Any, tokens: Any) -> Any:
        """The weighted loss of `sums`, given masked and real tokens of the global batch."""
        hidden = self.hidden_weight * sums["hidden_loss"] / tokens
        return hidden + self.logits_weight * sums["logits_loss"] / masked

    def scores(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Means over held-out batches, from the totals of `sums`.

        Returns:
            `hidden_loss` and `logits_loss`, if they have a weight, and `distillation_loss`, their
            weighted sum.
        """
        masked, tokens = totals["weight"], totals["tokens"]
        scores = {"distillation_loss": self.loss(totals, masked, tokens)}
        if self.hidden_weight:
            scores["hidden_loss"] = totals["hidden_loss"] / tokens
        if self.logits_weight:
            scores["logits_loss"] = totals["logits_loss"] / masked
        return scores


def _float32(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _fixed(value: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(_float32(value))


def _kept_blocks(init_checkpoint: str) -> dict[str, str]:
    """The counterparts of a student's blocks in the teacher; empty if no surgery recorded them."""
    if not init_checkpoint:
        return {}
    report = checkpoints.resolve(init_checkpoint) / SURGERY
    return files.read_json(report)["kept"] if report.exists() else {}


def matching_taps(
    student: BlockPattern, teacher: BlockPattern, kept: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The target tap of the teacher for each tap of the student.

    The next block of the student has a counterpart in the teacher, whose input is the target. If
    surgery has removed blocks in between, the target is the tap of the last removed block: the
    student's block learns to replace them, and its next block gets the inputs that it was trained
    on. The last tap of the student matches the last tap of the teacher. A new block has no
    counterpart, so the tap before it has no target.

    Args:
        student: pattern of the student.
        teacher: pattern of the teacher.
        kept: maps blocks of the student to their counterparts (surgery.json); empty: blocks of the
            same name match.

    Raises:
        InputError: `kept` names blocks that the patterns lack.
    """
    taps, targets = student.tap_names, teacher.tap_names
    kept = dict(kept) or {name: name for name in taps if name in targets}
    unknown = [n for n in kept if n not in taps] + [n for n in kept.values() if n not in targets]
    if unknown:
        raise InputError(
            f"{SURGERY} names {unknown[0]}, but the student is {student}, the teacher {teacher}: "
            "it belongs to other encoders"
        )
    counterparts = [targets.index(kept[name]) if name in kept else None for name in taps[1:]]
    before_next = [None if place is None else place - 1 for place in counterparts]
    places = zip(taps, [0, *counterparts], [*before_next, len(targets) - 1], strict=True)
    return [
        (name, targets[max(place or 0, following)])
        for name, place, following in places
        if following is not None
    ]


def _check(
    path: pathlib.Path, teacher: EncoderConfig, student: EncoderConfig, sizes: list[str]
) -> None:
    problems = [
        f"{name}: {getattr(teacher, name)} in the teacher, {getattr(student, name)} in the student"
        for name in (*sizes, "vocab_size", "vocabulary_hash")
        if getattr(teacher, name) != getattr(student, name)
    ]
    if teacher.max_position_embeddings < student.max_position_embeddings:
        problems.append("max_position_embeddings: fewer in the teacher than in the student")
    if problems:
        raise InputError(
            f"{path} cannot teach this encoder:\n  " + "\n  ".join(problems) + "\n"
            "use the encoder from which the student was cut"
        )
