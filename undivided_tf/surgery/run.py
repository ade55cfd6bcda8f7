"""Surgery from config to checkpoint."""

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
USUAL_LENGTH = 64  # Word pieces.
# Measures that compare with the whole encoder and need texts only.
_FROM_WHOLE = {
    "drift": (damage.drift_damage, "1 - cosine to the mean-pooled states of the whole encoder"),
    "error": (damage.error_damage, "squared error of the mean-pooled states over their variance"),
}


def run_surgery(config: SurgeryConfig) -> dict[str, Any]:
    """Operates on a checkpoint and writes one of ours.

    Args:
        config: the operation; `config.output_dir` must not exist yet.

    Returns:
        The content of surgery.json: `from` and `to` (patterns), what `Report` says, the `heads`
        that came along and, with `cut=importance`, `order` (see `Order`) and `damage`, what was
        measured.

    Raises:
        InputError: a checkpoint or an operation that cannot be; see `operate` and `importance`.
    """
    output = new_directory(config.output_dir)
    source = converter.open_checkpoint(converter.locate(config.input))
    encoder = converter.build_encoder(source)
    pattern, order, measured = source.config.pattern, None, ""
    if config.cut == "importance":
        order, measured = importance(config, source, encoder)
        if config.num_cut > len(order.blocks):
            raise InputError(
                f"num_cut {config.num_cut}: {pattern} has {len(order.blocks)} intermediate blocks"
            )
        gone = order.blocks[: config.num_cut]
    elif config.cut != "none":
        gone = by_place(pattern, config.cut, config.num_cut)
    else:
        gone = [*config.drop_blocks, *encoder_blocks(pattern, config.drop_encoder_blocks)]
    options = {
        "intermediate_size": config.intermediate_size,
        "share_intermediate": config.share_intermediate,
        "fold_layer_norms": config.fold_layer_norms,
    }
    if config.block_pattern:
        result, report = operate(encoder, config.block_pattern, **options)
    else:
        result, report = cut(encoder, gone, **options)
    about = {
        "kind": "surgery",
        "from": source.config.block_pattern,
        "to": result.config.block_pattern,
        **vars(report),
        "order": order and vars(order),
        "damage": measured,
    }
    write(output, source, result, about)
    return about


def write(output: pathlib.Path, source: Checkpoint, result: Encoder, about: dict[str, Any]) -> None:
    """Writes an encoder as a checkpoint of ours with the heads of its source and surgery.json."""
    heads = {path: t for path, t in source.tensors.items() if not path.startswith("encoder/")}
    weights = {
        path: LazyTensor(tuple(variable.shape), functools.partial(np.asarray, variable))
        for path, variable in named_weights(result.weights).items()
    }
    operated = dataclasses.replace(source, config=result.config, tensors={**weights, **heads})
    converter.write(output, operated, "undivided", REPORT, about)


def importance(config: SurgeryConfig, source: Checkpoint, encoder: Encoder) -> tuple[Order, str]:
    """The order in which intermediate blocks are cut with least damage, and what was measured.

    Args:
        config: says how damage is measured, and on what.
        source: the checkpoint.
        encoder: that of the source.

    Raises:
        InputError: text without a masked-language-model head, a task or split without rows, or
            another task than that of a fine-tuned model.
    """
    if not source.config.pattern.num_intermediate:
        raise InputError(f"{source.config.pattern} has no intermediate block to cut")
    measured, words = measure(config, source, encoder)
    logging.info("damage: %s", words)
    return cut_order(source.config.pattern, measured, config.greedy), words


def measure(
    config: SurgeryConfig,
    source: Checkpoint,
    encoder: Encoder,
    whole: Encoder | None = None,
    states: Callable[[Rows], damage.States] | None = None,
) -> tuple[Damage, str]:
    """The measure of damage, and what it is in words.

    Args:
        config: says how damage is measured, and on what.
        source: the checkpoint.
        encoder: that of the source.
        whole: the encoder with which drift and error compare, of the same vocabulary; None: the
            one that is measured, without a cut.
        states: what gives mean-pooled last states of rows, such as an exported model; None: the
            encoder. Held-out text and a model's own head do not use it.

    Raises:
        InputError: see `importance`.
    """
    tokenizer = source.tokenizer

    def states_of(model: Encoder, rows: Rows) -> damage.States:
        sizes = (config.batch_size, _length(config), config.fold_layer_norms)
        return damage.pooled_states(model, tokenizer, rows, *sizes)

    states = states or functools.partial(states_of, encoder)
    if config.importance == "text":
        return _on_text(config, source, encoder)
    task = load_sentence_task(config.task)
    if config.importance in _FROM_WHOLE:
        rows = _rows(task, config.split, config, labelled=False)
        measured, words = _FROM_WHOLE[config.importance]
        found = states(rows)
        target = (states_of(whole, rows) if whole else found)([])
        return measured(found, target), _on(words, task, rows, config)
    if config.importance == "similarity":
        if not (task.is_regression and task.is_pair):
            raise InputError(
                "importance similarity needs pairs of texts with a score, such as STS-B; task "
                f"{config.task} has " + (", ".join(task.labels) or "single texts")
            )
        rows = _rows(task, config.split, config)
        words = "1 - Spearman's correlation of scores with cosines of mean-pooled states"
        alone = Rows([*rows.first, *rows.second])
        measured = damage.similarity_damage(states(alone), rows.labels)
        return measured, _on(words, task, rows, config)
    if source.classifier:
        classifier = converter.build_classifier(source, encoder)
        rows = _rows(task, config.split, config)
        length = config.max_seq_length or source.classifier.max_seq_length
        measured = damage.head_damage(
            classifier,
            source.classifier,
            tokenizer,
            task,
            rows,
            config.batch_size,
            length,
            config.fold_layer_norms,
        )
        return measured, _on("1 - score of the model's own head", task, rows, config)
    task = task.graded()
    rows = fitted = _rows(task, "train", config)
    scored = np.arange(len(rows)) % 3 == 2
    if config.split != "train":
        rows = fitted.followed_by(_rows(task, config.split, config))
        scored = np.arange(len(rows)) >= len(fitted)
    words = f"errors of a logistic regression on mean-pooled states, {(~scored).sum()} rows to fit"
    measured = damage.probe_damage(states(rows), rows.labels, scored)
    return measured, _on(words, task, rows.pick(np.flatnonzero(scored)), config)


def _length(config: SurgeryConfig) -> int:
    return config.max_seq_length or USUAL_LENGTH


def _on(words: str, task: Task, rows: Rows, config: SurgeryConfig) -> str:
    return f"{words}, {len(rows)} rows of {task.name}, {config.split}"


def _on_text(config: SurgeryConfig, source: Checkpoint, encoder: Encoder) -> tuple[Damage, str]:
    model, words = Pretrainer(encoder), "masked-language-model loss in nats"
    for path, variable in named_weights(model.masked_lm_head.weights).items():
        if path not in source.tensors:
            raise InputError(
                f"{config.input} has no masked-language-model head, so its loss on text cannot be "
                "measured: give --importance=task or --importance=drift"
            )
        variable.assign(source.tensors[path].read())
    if config.records_dir:
        batches = damage.record_batches(
            config.records_dir, source.tokenizer, config.batch_size, config.max_rows
        )
        measured = damage.masked_lm_damage(model, batches, config.fold_layer_norms)
        return measured, f"{words}, {config.records_dir}"
    task = load_sentence_task(config.task)
    rows = _rows(task, config.split, config, labelled=False)
    subject = Subject(encoder, source.tokenizer, None)
    batches = damage.text_batches(subject, rows, config.batch_size, _length(config), config.seed)
    measured = damage.masked_lm_damage(model, batches, config.fold_layer_norms)
    return measured, _on(words, task, rows, config)


def _rows(task: Task, split: str, config: SurgeryConfig, labelled: bool = True) -> Rows:
    rows = task.read(split)
    if rows is None or not len(rows) or (labelled and rows.labels is None):
        need = "labelled rows" if labelled else "rows"
        raise InputError(f"task {config.task} has no {need} in its split {split}: give --split")
    return rows.take(config.max_rows, config.seed)
