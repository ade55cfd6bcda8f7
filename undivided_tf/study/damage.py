"""The damage of cutting intermediate blocks one by one, before and after fine-tuning on GLUE.

WORKDIR/order.json      in which order they are cut, and what it was measured by
WORKDIR/cut_N/model     the encoder without the first N of them
WORKDIR/cut_N/glue      its runs of `training.glue`
WORKDIR/cut_N/before    scores of a classifier on its frozen states
WORKDIR/latency.json    forward passes of all encoders, in turn
"""

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
from undivided_tf.data.tasks.rows import Task
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting.damage import write_damage
from undivided_tf.study.study import hardware
from undivided_tf.support import files
from undivided_tf.surgery import cut, damage, run
from undivided_tf.surgery.config import DamageConfig
from undivided_tf.surgery.order import intermediate_blocks
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import glue, scores
from undivided_tf.training.config import FinetuningConfig
from undivided_tf.workdir import open_workdir

_INVERSE_L2 = 0.1


def run_damage(config: DamageConfig, command: str = "") -> dict[str, Any]:
    """Cuts, scores, fine-tunes and times; the same call goes on where it stopped.

    Args:
        config: the experiment; `config.workdir` receives all that the module names, results.json,
            results.md and figures as PNG and SVG.
        command: what was called, for the results.

    Returns:
        The content of results.json: `order` and `damage` (see `surgery.run`), `cells` (of each
        number of blocks its `pattern`, `parameters`, `forward_flops`, `latency` in milliseconds by
        batch size, and of each of its `tasks` the scores `before` and `after`, or an `error`).

    Raises:
        InputError: a checkpoint or a task that cannot be used, more cuts than blocks, a workdir of
            another config.
    """
    source = converter.open_checkpoint(converter.locate(config.input))
    blocks = intermediate_blocks(source.config.pattern)
    if max(config.num_cut) > len(blocks):
        raise InputError(
            f"num_cut {max(config.num_cut)}: {source.config.pattern} has {len(blocks)} "
            "intermediate blocks"
        )
    workdir = open_workdir(config.workdir, config)
    encoder = converter.build_encoder(source)
    if not (workdir / "order.json").exists():
        order, words = run.importance(config.order, source, encoder)
        files.write_json(workdir / "order.json", {"order": vars(order), "damage": words})
    found = files.read_json(workdir / "order.json")
    for number in config.num_cut:
        place = workdir / f"cut_{number}" / "model"
        if not place.exists():
            result, report = cut(encoder, found["order"]["blocks"][:number])
            run.write(place, source, result, {"kind": "surgery", **vars(report)})
    del encoder
    cells = [_cell(config, workdir, number, found["order"]["blocks"]) for number in config.num_cut]
    timed = workdir / "latency.json"
    if not timed.exists():
        files.write_json(timed, _latency(config, workdir))
    latency = files.read_json(timed)
    for cell in cells:
        cell["latency"] = latency["cells"][str(cell["num_cut"])]
    results = {
        "kind": "damage",
        "command": command,
        "created": time.strftime("%Y-%m-%d"),
        "hardware": latency["hardware"],
        "config": config.to_dict(),
        "from": source.config.block_pattern,
        **found,
        "cells": cells,
    }
    files.write_json(workdir / "results.json", results)
    write_damage(results, workdir)
    return results


def failures(results: dict[str, Any]) -> None:
    """Raises InputError when a task of a cell failed."""
    failed = [
        f"{cell['num_cut']} cut, {task}: {found['error']}"
        for cell in results["cells"]
        for task, found in cell["tasks"].items()
        if "error" in found
    ]
    if failed:
        listed = "\n  ".join(failed)
        raise InputError(f"{len(failed)} failed; the same command tries them again\n  {listed}")


def _cell(
    config: DamageConfig, workdir: pathlib.Path, number: int, blocks: list[str]
) -> dict[str, Any]:
    """Scores before and after fine-tuning of the encoder without so many blocks, and its size."""
    home = workdir / f"cut_{number}"
    encoder = checkpoints.EncoderConfig.from_json(home / "model" / checkpoints.ENCODER)
    logging.info("%d blocks cut: %s", number, encoder.block_pattern)
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
    length = config.glue.finetuning.max_seq_length
    return {
        "num_cut": number,
        "blocks": blocks[:number],
        "pattern": encoder.block_pattern,
        "parameters": accounting.count_parameters(encoder),
        "parameters_by_part": accounting.parameter_breakdown(encoder),
        "forward_flops": accounting.forward_flops(encoder, length),
        "sequence_length": length,
        "tasks": tasks,
    }


def _before(config: DamageConfig, home: pathlib.Path, name: str) -> float:
    """The task's primary score of a logistic regression on frozen, mean-pooled last states."""
    path = home / "before" / f"{name}.json"
    if not path.exists():
        place = glue.source(config.glue, name)
        task, settings = load_task(place), config.glue.of_task(name)
        encoder, tokenizer = checkpoints.load_encoder(home / "model")
        found = _probe(encoder, tokenizer, task, settings, config.max_probe_rows)
        files.write_json(path, found)
    return files.read_json(path)["score"]


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
    found: dict[str, Any] = {str(number): {} for number in encoders}
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
            found[str(number)][str(size)] = {
                "median": statistics.median(taken),
                "speedup": statistics.median(ratios),
            }
    return {"hardware": hardware(), "rounds": config.latency_rounds, "cells": found}
