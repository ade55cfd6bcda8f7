"""The damage of cutting intermediate blocks one by one, without training and after it.

WORKDIR/order.json      in which order they are cut, and what it was measured by
WORKDIR/zero_shot       other measures of each single removal and of each number of blocks
WORKDIR/cut_N/model     the encoder without the first N of them
WORKDIR/cut_N/glue      its runs of `training.glue`
WORKDIR/cut_N/before    scores of a classifier on its frozen states
WORKDIR/latency.json    forward passes of all encoders, in turn
"""

import functools
import pathlib
import statistics
import time
from typing import Any

import numpy as np
from absl import logging

from undivided_tf import accounting
from undivided_tf.analysis import linear_probes
from undivided_tf.analysis.latency import forward_milliseconds
from undivided_tf.convert import converter
from undivided_tf.convert.checkpoint import Checkpoint
from undivided_tf.data.tasks.rows import Task
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting.damage import write_damage, zero_shot_table
from undivided_tf.study.study import hardware
from undivided_tf.support import files
from undivided_tf.surgery import cut, damage, run
from undivided_tf.surgery.config import DamageConfig, SurgeryConfig
from undivided_tf.surgery.order import intermediate_blocks
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import glue, scores
from undivided_tf.training.config import FinetuningConfig
from undivided_tf.workdir import once, open_workdir

_INVERSE_L2 = 0.1


def run_damage(config: DamageConfig, command: str = "") -> dict[str, Any]:
    """Cuts, measures, times, fine-tunes; the same call resumes an interrupted one.

    What needs no training comes first, and its table is logged as soon as it is there.

    Args:
        config: the experiment; `config.workdir` receives all that the module names, results.json,
            results.md and figures as PNG and SVG.
        command: what was called, for the results.

    Returns:
        The content of results.json: `order` and `damage` (see `surgery.run`), `zero_shot` (of each
        measure the `measure`, what it is in `words`, the damage of each `single` removal, and of
        0, 1, 2 ... `cuts` in the order), `cells` (of each
        number of blocks its `pattern`, `parameters`, `forward_flops`, `latency` in milliseconds by
        batch size, and of each of its `tasks` the scores `before` and `after`, or an `error`).

    Raises:
        InputError: a checkpoint or a task that cannot be used, more cuts than blocks, a workdir of
            another config.
    """
    source = converter.open_checkpoint(converter.locate(config.input))
    most = source.config.pattern.num_intermediate
    if max(config.num_cut) > most:
        raise InputError(
            f"num_cut {max(config.num_cut)}: {source.config.pattern} has {most} intermediate blocks"
        )
    workdir = open_workdir(config.workdir, config)
    encoder = converter.build_encoder(source)
    measured = once(workdir / "order.json", functools.partial(_order, config, source, encoder))
    blocks = measured["order"]["blocks"]
    measured["zero_shot"] = [
        once(
            workdir / "zero_shot" / f"{number:02d}_{measure.importance}.json",
            functools.partial(_zero_shot, measure, source, encoder, blocks),
        )
        for number, measure in enumerate(config.zero_shot_measures)
    ]
    for number in config.num_cut:
        place = workdir / f"cut_{number}" / "model"
        if not place.exists():
            fold = config.order.fold_layer_norms
            result, report = cut(encoder, blocks[:number], fold_layer_norms=fold)
            run.write(place, source, result, {"kind": "surgery", **vars(report)})
    del encoder
    if measured["zero_shot"]:
        logging.info("%s", zero_shot_table(measured))
    latency = once(workdir / "latency.json", lambda: _latency(config, workdir))
    cells = [_cell(config, workdir, number, blocks) for number in config.num_cut]
    for cell in cells:
        cell["latency"] = latency["cells"][str(cell["num_cut"])]
    results = {
        "kind": "damage",
        "command": command,
        "created": time.strftime("%Y-%m-%d"),
        "hardware": latency["hardware"],
        "config": config.to_dict(),
        "from": source.config.block_pattern,
        **measured,
        "cells": cells,
    }
    files.write_json(workdir / "results.json", results)
    write_damage(results, workdir)
    return results


def _order(config: DamageConfig, source: Checkpoint, encoder: Encoder) -> dict[str, Any]:
    order, words = run.importance(config.order, source, encoder)
    return {"order": vars(order), "damage": words}


def _zero_shot(
    config: SurgeryConfig, source: Checkpoint, encoder: Encoder, blocks: list[str]
) -> dict[str, Any]:
    """The damage of each single removal, and of 0, 1, 2 ... cuts in the order of `blocks`."""
    measured, words = run.measure(config, source, encoder)
    single = {name: measured([name]) for name in intermediate_blocks(source.config.pattern)}
    more = [measured(blocks[:number]) for number in range(2, len(blocks) + 1)]
    cuts = [measured([]), *(single[name] for name in blocks[:1]), *more]
    return {"measure": config.importance, "words": words, "single": single, "cuts": cuts}


def failures(results: dict[str, Any]) -> None:
    """Raises InputError when a task of a cell failed."""
    failed = [
        f"{cell['num_cut']} cut, {task}: {outcome['error']}"
        for cell in results["cells"]
        for task, outcome in cell["tasks"].items()
        if "error" in outcome
    ]
    if failed:
        listed = "\n  ".join(failed)
        raise InputError(f"{len(failed)} failed; the same command retries them\n  {listed}")


def _cell(
    config: DamageConfig, workdir: pathlib.Path, number: int, blocks: list[str]
) -> dict[str, Any]:
    """Size of the encoder without so many blocks, and its scores before and after fine-tuning."""
    home = workdir / f"cut_{number}"
    encoder = checkpoints.EncoderConfig.from_json(home / "model" / checkpoints.ENCODER)
    logging.info("%d blocks cut: %s", number, encoder.block_pattern)
    length = config.glue.finetuning.max_seq_length
    return {
        "num_cut": number,
        "blocks": blocks[:number],
        "pattern": encoder.block_pattern,
        "parameters": accounting.count_parameters(encoder),
        "parameters_by_part": accounting.parameter_breakdown(encoder),
        "forward_flops": accounting.forward_flops(encoder, length),
        "sequence_length": length,
        "tasks": _tasks(config, home) if config.finetune else {},
    }


def _tasks(config: DamageConfig, home: pathlib.Path) -> dict[str, Any]:
    """Of each task of GLUE the scores before and after fine-tuning, or an error."""
    tasks: dict[str, Any] = {
        name: {"before": _before(config, home, name)} for name in config.glue.tasks
    }
    finetuning = config.glue.finetuning.replace(init_checkpoint=str(home / "model"))
    tuned = glue.run_glue(config.glue.replace(workdir=str(home / "glue"), finetuning=finetuning))
    for name, result in tuned["tasks"].items():
        if result["status"] != "finished":
            tasks[name]["error"] = result["error"]
            continue
        primary = result["primary"]
        tasks[name] |= {
            "primary": primary,
            "after": [run[glue.VALIDATION][primary] for run in result["runs"]],
            "constant": result["constant_answer"][glue.VALIDATION],
            "rows": result["rows"],
            "seconds": result["seconds"],
        }
    return tasks


def _before(config: DamageConfig, home: pathlib.Path, name: str) -> float:
    """The task's primary score of a logistic regression on frozen, mean-pooled last states."""

    def score() -> dict[str, Any]:
        task, settings = load_task(glue.source(config.glue, name)), config.glue.of_task(name)
        encoder, tokenizer = checkpoints.load_encoder(home / "model")
        return _probe(encoder, tokenizer, task, settings, config.max_probe_rows)

    return once(home / "before" / f"{name}.json", score)["score"]


def _probe(
    encoder: Encoder, tokenizer: Tokenizer, task: Task, settings: FinetuningConfig, rows: int
) -> dict[str, Any]:
    """Fits on training rows of the fine-tuning, scores on the dev set."""
    task = task.graded()
    train = task.read("train").take(settings.max_train_rows, settings.seed)
    train = train.take(rows, settings.seed)
    held_out = task.read(next(name for name in task.splits if name.startswith("validation")))
    states = [
        damage.pooled_states(encoder, tokenizer, some, 64, settings.max_seq_length)([])
        for some in (train, held_out)
    ]
    model, _ = linear_probes.fit(states[0], train.labels, _INVERSE_L2)
    answers = model.predict(states[1].astype(np.float64))
    score = scores.score_predictions(task, answers, held_out.labels)[scores.primary(task)]
    return {"score": score, "inverse_l2": _INVERSE_L2, "train_rows": len(train)}


def _latency(config: DamageConfig, workdir: pathlib.Path) -> dict[str, Any]:
    """Milliseconds of forward passes of full rows, all encoders in turn in every round.

    Returns:
        `hardware`, `rounds`, and `cells`: by number of blocks and batch size the `median`, and
        `speedup`, the median over the rounds of how many times the whole encoder takes as long.
    """
    encoders = {
        number: checkpoints.load_encoder(workdir / f"cut_{number}" / "model")[0]
        for number in config.num_cut
    }
    cells: dict[str, Any] = {str(number): {} for number in encoders}
    for size in config.latency_batch_sizes:
        times = forward_milliseconds(
            encoders,
            batch_size=size,
            length=config.glue.finetuning.max_seq_length,
            rounds=config.latency_rounds,
        )
        whole = times[config.num_cut[0]]
        for number, taken in times.items():
            ratios = [a / b for a, b in zip(whole, taken, strict=True)]
            cells[str(number)][str(size)] = {
                "median": statistics.median(taken),
                "speedup": statistics.median(ratios),
            }
    return {"hardware": hardware(), "rounds": config.latency_rounds, "cells": cells}
