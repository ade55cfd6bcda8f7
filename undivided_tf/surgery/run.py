"""Operates on a checkpoint as a config says, and writes the result with a report."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis.subjects import Subject
from undivided_tf.convert import converter
from undivided_tf.convert.checkpoint import Checkpoint, LazyTensor
from undivided_tf.data import masking
from undivided_tf.data.tasks.probing_tasks import load_sentence_task
from undivided_tf.data.tasks.rows import Rows, Task
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import named_weights
from undivided_tf.surgery import damage
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.surgery.operations import cut, encoder_blocks, operate
from undivided_tf.surgery.order import Damage, Order, by_place, cut_order
from undivided_tf.workdir import new_directory

REPORT = "surgery.json"
_DEFAULT_LENGTH = 64  # Word pieces.
# Measures that compare with the whole encoder and need texts only.
_AGAINST_WHOLE = {
    "drift": (damage.drift_damage, "1 - cosine to the mean-pooled states of the whole encoder"),
    "error": (damage.error_damage, "squared error of the mean-pooled states over their variance"),
}


def run_surgery(config: SurgeryConfig) -> dict[str, Any]:
    """Operates on a checkpoint of any format and writes a checkpoint of this package.

    Args:
        config: the operation; `config.output_dir` must not exist yet.

    Returns:
        The content of surgery.json: the patterns `from` and `to`, the fields of `Report`, the
        `heads` that were kept and, with `cut=importance`, the `order` (see `Order`) and `damage`, a
        description of the measure.

    Raises:
        InputError: an invalid checkpoint or operation; see `operate` and `importance`.
    """
    output = new_directory(config.output_dir)
    source = converter.open_checkpoint(converter.locate(config.input))
    encoder = converter.build_encoder(source)
    pattern, order, description = source.config.pattern, None, ""
    if config.cut == "importance":
        order, description = importance(config, source, encoder)
        if config.num_cut > len(order.blocks):
            raise InputError(
                f"num_cut {config.num_cut}: {pattern} has {len(order.blocks)} intermediate blocks"
            )
        dropped = order.blocks[: config.num_cut]
    elif config.cut != "none":
        dropped = by_place(pattern, config.cut, config.num_cut)
    else:
        dropped = [*config.drop_blocks, *encoder_blocks(pattern, config.drop_encoder_blocks)]
    options = {
        "intermediate_size": config.intermediate_size,
        "share_intermediate": config.share_intermediate,
        "fold_layer_norms": config.fold_layer_norms,
    }
    if config.block_pattern:
        result, blocks = operate(encoder, config.block_pattern, **options)
    else:
        result, blocks = cut(encoder, dropped, **options)
    report = {
        "kind": "surgery",
        "from": source.config.block_pattern,
        "to": result.config.block_pattern,
        **vars(blocks),
        "order": order and vars(order),
        "damage": description,
    }
    write(output, source, result, report)
    return report


def write(
    output: pathlib.Path, source: Checkpoint, result: Encoder, report: dict[str, Any]
) -> None:
    """Writes an encoder as a checkpoint of this package, with its source's heads and a report."""
    heads = {path: t for path, t in source.tensors.items() if not path.startswith("encoder/")}
    weights = {
        path: LazyTensor(tuple(variable.shape), functools.partial(np.asarray, variable))
        for path, variable in named_weights(result.weights).items()
    }
    operated = dataclasses.replace(source, config=result.config, tensors={**weights, **heads})
    converter.write(output, operated, "undivided", REPORT, report)


def importance(config: SurgeryConfig, source: Checkpoint, encoder: Encoder) -> tuple[Order, str]:
    """The order in which intermediate blocks are cut with least damage.

    Args:
        config: says how damage is measured, and on what.
        source: the checkpoint.
        encoder: encoder of the source.

    Returns:
        The order, and a description of the measure.

    Raises:
        InputError: the measure is `text` and the checkpoint has no masked-language-model head; a
            task or split has no rows; or the task is not that of a fine-tuned model.
    """
    if not source.config.pattern.num_intermediate:
        raise InputError(f"{source.config.pattern} has no intermediate block to cut")
    damage_of, description = measure(config, source, encoder)
    logging.info("damage: %s", description)
    return cut_order(source.config.pattern, damage_of, config.greedy), description


def measure(
    config: SurgeryConfig,
    source: Checkpoint,
    encoder: Encoder,
    whole: Encoder | None = None,
    states: Callable[[Rows], damage.States] | None = None,
) -> tuple[Damage, str]:
    """The measure of damage, and a description of it.

    Args:
        config: says how damage is measured, and on what.
        source: the checkpoint.
        encoder: encoder of the source.
        whole: the encoder with which drift and error compare, of the same vocabulary; None:
            `encoder` without a cut.
        states: gives the mean-pooled last states of rows, for example by an exported model; None:
            by `encoder`. The loss on text and a model's own head do not use it.

    Raises:
        InputError: see `importance`.
    """
    tokenizer = source.tokenizer

    def states_of(model: Encoder, rows: Rows) -> damage.States:
        sizes = (config.batch_size, _length(config), config.fold_layer_norms)
        return damage.pooled_states(model, tokenizer, rows, *sizes)

    states = states or functools.partial(states_of, encoder)
    if config.importance == "text":
        return _text_damage(config, source, encoder)
    task = load_sentence_task(config.task)
    if config.importance in _AGAINST_WHOLE:
        rows = _rows(task, config.split, config, labelled=False)
        damage_from, words = _AGAINST_WHOLE[config.importance]
        measured_states = states(rows)
        target = (states_of(whole, rows) if whole else measured_states)([])
        return damage_from(measured_states, target), _describe(words, task, rows, config)
    if config.importance == "similarity":
        if not (task.is_regression and task.is_pair):
            raise InputError(
                "importance similarity needs pairs of texts with a score, such as STS-B; task "
                f"{config.task} has " + (", ".join(task.labels) or "single texts")
            )
        rows = _rows(task, config.split, config)
        words = "1 - Spearman's correlation of scores with cosines of mean-pooled states"
        texts = Rows([*rows.first, *rows.second])
        damage_of = damage.similarity_damage(states(texts), rows.labels)
        return damage_of, _describe(words, task, rows, config)
    if source.classifier:
        classifier = converter.build_classifier(source, encoder)
        rows = _rows(task, config.split, config)
        length = config.max_seq_length or source.classifier.max_seq_length
        damage_of = damage.head_damage(
            classifier,
            source.classifier,
            tokenizer,
            task,
            rows,
            config.batch_size,
            length,
            config.fold_layer_norms,
        )
        return damage_of, _describe("1 - score of the model's own head", task, rows, config)
    task = task.graded()
    rows = fitted = _rows(task, "train", config)
    scored = np.arange(len(rows)) % 3 == 2
    if config.split != "train":
        rows = fitted.followed_by(_rows(task, config.split, config))
        scored = np.arange(len(rows)) >= len(fitted)
    words = f"errors of a logistic regression on mean-pooled states, {(~scored).sum()} rows to fit"
    damage_of = damage.probe_damage(states(rows), rows.labels, scored)
    return damage_of, _describe(words, task, rows.pick(np.flatnonzero(scored)), config)


def _length(config: SurgeryConfig) -> int:
    return config.max_seq_length or _DEFAULT_LENGTH


def _describe(words: str, task: Task, rows: Rows, config: SurgeryConfig) -> str:
    return f"{words}, {len(rows)} rows of {task.name}, {config.split}"


def _text_damage(config: SurgeryConfig, source: Checkpoint, encoder: Encoder) -> tuple[Damage, str]:
    model, words = Pretrainer(encoder), "masked-language-model loss in nats"
    for path, variable in named_weights(model.masked_lm_head.weights).items():
        if path not in source.tensors:
            raise InputError(
                f"{config.input} has no masked-language-model head, so its loss on text cannot be "
                "measured: give --importance=task or --importance=drift"
            )
        variable.assign(source.tensors[path].read())
    if config.records_dir:
        batches = masking.validation_batches(
            config.records_dir,
            source.tokenizer,
            batch_size=config.batch_size,
            max_rows=config.max_rows,
        )
        description = f"{words}, {config.records_dir}"
    else:
        task = load_sentence_task(config.task)
        rows = _rows(task, config.split, config, labelled=False)
        subject = Subject(encoder, source.tokenizer, None)
        batches = damage.text_batches(
            subject, rows, config.batch_size, _length(config), config.seed
        )
        description = _describe(words, task, rows, config)
    return damage.masked_lm_damage(model, batches, config.fold_layer_norms), description


def _rows(task: Task, split: str, config: SurgeryConfig, labelled: bool = True) -> Rows:
    rows = task.read(split)
    if rows is None or not len(rows) or (labelled and rows.labels is None):
        need = "labelled rows" if labelled else "rows"
        raise InputError(f"task {config.task} has no {need} in its split {split}: give --split")
    return rows.take(config.max_rows, config.seed)
