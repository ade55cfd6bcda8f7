"""Healing: initial weights, and distillation of hidden states and predictions.

After surgery the teacher is the encoder before surgery. It is frozen and computes in float32
without dropout.

References:
    Hinton, Vinyals, Dean 2015, arXiv 1503.02531 (soft targets, temperature).
    Jiao et al. 2019, arXiv 1909.10351, equations 8 to 11 (hidden states layer by layer).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from undivided_tf.config import EncoderConfig, differences
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import assign_start, load_weights, read_weights
from undivided_tf.pattern import BlockPattern
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig

SURGERY = "surgery.json"
HEAD = "masked_lm_head"
SUMS = ("hidden_loss", "logits_loss", "tokens")
_MAY_DIFFER = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


def load_start(model: Pretrainer, config: PretrainingConfig) -> None:
    """Assigns the weights of `config.init_checkpoint` to a model for further pre-training.

    Raises:
        InputError: no checkpoint, another architecture, or a weight that is missing and not in
            `config.new_weights`.
    """
    path = checkpoints.resolve(config.init_checkpoint)
    there, here = EncoderConfig.from_json(path / checkpoints.ENCODER), model.encoder.config
    same = {name: getattr(here, name) for name in _MAY_DIFFER}
    changed = differences(there.replace(**same).to_dict(), here.to_dict())
    if changed:
        raise InputError(
            f"the encoder of {path} is not that of the run:\n  " + "\n  ".join(changed) + "\n"
            "leave out the flags of sizes, which init_checkpoint determines"
        )
    assign_start(model.weights, read_weights(path), path, config.new_weights)


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
        kept, self.matches = {}, []
        if not self.hidden_weight:
            return
        if config.init_checkpoint:
            report = checkpoints.resolve(config.init_checkpoint) / SURGERY
            kept = files.read_json(report)["kept"] if report.exists() else {}
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
        theirs = self.teacher(inputs, training=False, return_taps=True)
        weights = batch["masked_weights"]
        real = tf.cast(batch["padding_mask"], tf.float32) * tf.reduce_max(weights, 1)[:, None]
        # float32, because squares of small half-precision differences underflow.
        hidden = tf.zeros([])
        for mine, its in self.matches:
            difference = _float(outputs["taps"][mine]) - _still(theirs["taps"][its])
            hidden += tf.reduce_sum(tf.reduce_mean(tf.square(difference), -1) * real)
        hidden /= max(len(self.matches), 1)
        logits = tf.zeros([])
        if self.logits_weight:
            mine, its = (
                tf.nn.log_softmax(_float(found["masked_lm_logits"]) / self.temperature)
                for found in (outputs, theirs)
            )
            its = tf.stop_gradient(its)
            divergence = tf.reduce_sum(tf.exp(its) * (its - mine), -1)
            logits = self.temperature**2 * tf.reduce_sum(divergence * weights)
        return {"hidden_loss": hidden, "logits_loss": logits, "tokens": tf.reduce_sum(real)}

    def loss(self, sums: Mapping[str, Any], masked: Any, tokens: Any) -> Any:
        """The weighted loss of `sums`, given masked and real tokens of the global batch."""
        hidden = self.hidden_weight * sums["hidden_loss"] / tokens
        return hidden + self.logits_weight * sums["logits_loss"] / masked

    def scores(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Means over held-out batches, from their totals.

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


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _still(value: tf.Tensor) -> tf.Tensor:
    return tf.stop_gradient(_float(value))


def matching_taps(
    student: BlockPattern, teacher: BlockPattern, kept: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The target tap of the teacher for each tap of the student.

    The target is the input of the counterpart of the student's next block in the teacher. If blocks
    after a block were removed, its target is the tap of the last removed one: the block learns to
    replace them, and the next block gets the inputs that it was trained on. So the last taps match.
    New blocks have no counterpart, so a tap before a new block has no target.

    Args:
        student: its pattern.
        teacher: its pattern.
        kept: maps blocks of the student to their counterparts (surgery.json); empty: blocks of the
            same name match.

    Raises:
        InputError: `kept` names blocks that the patterns lack.
    """
    own, theirs = student.tap_names, teacher.tap_names
    kept = dict(kept) or {name: name for name in own if name in theirs}
    unknown = [n for n in kept if n not in own] + [n for n in kept.values() if n not in theirs]
    if unknown:
        raise InputError(
            f"{SURGERY} names {unknown[0]}, but the student is {student}, the teacher {teacher}: "
            "it belongs to other encoders"
        )
    counterparts = [theirs.index(kept[name]) if name in kept else None for name in own[1:]]
    before_next = [None if place is None else place - 1 for place in counterparts]
    pairs = zip(own, [0, *counterparts], [*before_next, len(theirs) - 1], strict=True)
    return [
        (name, theirs[max(place or 0, following)])
        for name, place, following in pairs
        if following is not None
    ]


def _check(
    path: pathlib.Path, teacher: EncoderConfig, student: EncoderConfig, sizes: list[str]
) -> None:
    wrong = [
        f"{name}: {getattr(teacher, name)} in the teacher, {getattr(student, name)} in the student"
        for name in (*sizes, "vocab_size", "vocabulary_hash")
        if getattr(teacher, name) != getattr(student, name)
    ]
    if teacher.max_position_embeddings < student.max_position_embeddings:
        wrong.append("max_position_embeddings: fewer in the teacher than in the student")
    if wrong:
        raise InputError(
            f"{path} cannot teach this encoder:\n  " + "\n  ".join(wrong) + "\n"
            "use the encoder from which the student was cut"
        )
