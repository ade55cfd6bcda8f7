"""Results of a study that never ran: invented numbers in the true shape, for tests."""

import math
import random

from undivided_tf.config import EncoderConfig
from undivided_tf.pattern import BlockPattern
from undivided_tf.study.config import StudyConfig
from undivided_tf.training.config import FinetuningConfig, PretrainingConfig

ENTROPY = 6.555
LABELS = ("pattern", "seed", "pretraining_seed", "task", "start", "first", "second")


def results(
    patterns=("(AI)*6", "(AAI)*3", "A*6"),
    tasks=("wiki_topic", "wiki_pair"),
    seeds=1,
    runs=3,
    losses=(6.05, 6.09, 6.12),
    neighbours=None,
) -> dict:
    """A whole study, all cells finished.

    With `neighbours`, the loss of the neighbour model, the results are as of this release: they
    say whether the encoders have learnt, and what these look at. Without, as of an older one.
    """
    config = StudyConfig(
        patterns=patterns,
        tasks=tasks,
        num_pretraining_seeds=seeds,
        seed=1,
        pretraining=PretrainingConfig(
            encoder=EncoderConfig(hidden_size=128, num_attention_heads=4, intermediate_size=512),
            num_train_steps=1800,
            num_warmup_steps=180,
            train_batch_size=16,
        ),
        finetuning=FinetuningConfig(num_runs=runs),
    )
    draw = random.Random(0)
    all_seeds = range(1, seeds + 1)
    cells = []

    def add(name, result):
        cells.append(
            {
                "name": name,
                "kind": result["kind"],
                "label": {key: result[key] for key in LABELS if key in result},
                "status": "finished",
                "error": None,
                "seconds": draw.uniform(5, 90),
                "machine": "0a1b2c3d",
                "result": result,
            }
        )

    spelt = [str(BlockPattern.parse(pattern)) for pattern in patterns]
    for pattern in spelt[1:]:
        add(f"timing/{pattern}", timing(pattern, BlockPattern.parse(pattern).num_intermediate / 6))
    for i, pattern in enumerate(spelt):
        for seed in all_seeds:
            loss = losses[i % len(losses)] + 0.01 * (seed - 1)
            result = pretraining(pattern, seed, loss, draw)
            if neighbours is not None:
                add_learning(result, neighbours)
            add(f"pretraining/{pattern}/{seed}", result)
    for pattern in spelt:
        for seed in all_seeds:
            for task in tasks:
                for start in ("pretrained", "scratch"):
                    name = f"finetuning/{pattern}/{seed}/{task}/{start}"
                    add(name, finetuning(pattern, seed, task, start, runs, draw))
                add(f"probing/{pattern}/{seed}/{task}", probing(pattern, seed, task, draw))
    first = encoder(spelt[0], 1)
    others = [encoder(pattern, 1) for pattern in spelt]
    for second in (*others, encoder(spelt[0], 1, trained=False)):
        add(f"cka/{first}/{second}", cka(first, second, draw))
    return {
        "command": "python -m undivided_tf.bin.run_study --flagfile=flags/made_up.flags",
        "created": "2026-11-23",
        "seconds": 533.4,
        "versions": {"undivided_tf": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1"},
        "hardware": {
            "cpu": "a made-up processor",
            "cores": 2,
            "memory_bytes": 24 * 2**30,
            "device": "CPU",
        },
        "config": config.to_dict(),
        "corpus": {
            "vocabulary_hash": "0" * 64,
            "tokens": 3_512_345,
            "documents": {"train": 9_000, "validation": 180},
        },
        "sources": [
            {
                "name": "wiki leads",
                "licence": "CC BY-SA 4.0",
                "description": "lead paragraphs of English Wikipedia",
            }
        ],
        "cells": cells,
    }


def timing(pattern, share, rounds=30):
    """Rounds in which the machine gets four times as slow; `share` of the reference's blocks."""
    ratio = 0.4 + 0.6 * share
    speeds = [1 + i / 10 for i in range(rounds)]
    return {
        "kind": "timing",
        "pattern": pattern,
        "seed": 1,
        "milliseconds": [ratio * 40 * s * (1 + 0.01 * (-1) ** i) for i, s in enumerate(speeds)],
        "reference_milliseconds": [40 * s for s in speeds],
    }


def pretraining(pattern, seed, loss, draw):
    """A pre-training whose curve decays from 8.2 to `loss`."""
    blocks = BlockPattern.parse(pattern)
    steps = range(0, 1801, 100)
    curve = [{"step": step, "loss": loss + (8.2 - loss) * math.exp(-step / 300)} for step in steps]
    parameters = 600_000 + 66_304 * blocks.num_attention + 131_968 * blocks.num_intermediate
    return {
        "kind": "pretraining",
        "pattern": pattern,
        "seed": seed,
        "parameters": parameters,
        "forward_flops": 64 * 2 * parameters,
        "training_flops": 3 * 64 * 2 * parameters * 16 * 1800,
        "steps": 1800,
        "tokens": 1800 * 16 * 64,
        "step_milliseconds": parameters / 4e4 + draw.random(),
        "tokens_per_second": 16 * 64 / (parameters / 4e7),
        "training_seconds": 1800 * parameters / 4e7,
        "latency_milliseconds": parameters / 1e6,
        "peak_memory_bytes": 700 * 2**20 + 12 * parameters,
        "training_history": [
            {"step": p["step"], "loss": p["loss"] + draw.gauss(0, 0.03)} for p in curve
        ],
        "validation_history": [{**p, "accuracy": 0.3 / p["loss"]} for p in curve],
        "validation": {"loss": loss, "accuracy": 0.1234 + 0.001 * seed, "masked_tokens": 20_000},
        "unigram_entropy": ENTROPY,
        "validation_unigram_cross_entropy": ENTROPY + 0.02,
    }


def add_learning(result, neighbours):
    """What this release adds to a pre-training."""
    loss = result["validation"]["loss"]
    rises = [(1, 1.5), (2, 0.9), (4, 0.4), (8, 0.1), (16, 0.02)]
    result["validation"] |= {
        "neighbour_model_loss": neighbours,
        "loss_at_mask": loss + 0.2,
        "neighbour_model_loss_at_mask": neighbours,
        "excess_bound": loss - neighbours + 0.02,
        "learnt": loss < neighbours - 0.02,
    }
    result["learnt"] = result["validation"]["learnt"]
    result["context_use"] = {
        "places": 512,
        "loss": loss + 0.2,
        "neighbour_model_loss": neighbours,
        "shuffled": {"loss": loss + 2.2, "rise": 2.0, "interval": [1.8, 2.2]},
        "hidden_beyond": [
            {"distance": k, "loss": loss + 0.2 + rise, "rise": rise, "interval": [rise, rise]}
            for k, rise in rises
        ],
    }


def finetuning(pattern, seed, task, start, runs, draw):
    """Fine-tuning runs around an invented accuracy."""

    def scores():
        accuracy = 0.81 + draw.gauss(0, 0.01) - 0.03 * (start == "scratch")
        return {"accuracy": accuracy, "f1_macro": accuracy - 0.02}

    return {
        "kind": "finetuning",
        "pattern": pattern,
        "pretraining_seed": seed,
        "task": task,
        "start": start,
        "split": "test",
        "labels": ["yes", "no"],
        "rows": {"train": 4000, "validation": 500, "test": 1000},
        "majority": {"validation": 0.52, "test": 0.51},
        "runs": [
            {"seed": 1 + i, "seconds": 12.0, "validation": scores(), "test": scores()}
            for i in range(runs)
        ],
    }


def encoder(pattern, seed, trained=True):
    """One side of a CKA matrix."""
    return {"pattern": pattern, "seed": seed, "trained": trained}


def cka(first, second, draw):
    """A matrix that is 1 on the diagonal for an encoder with itself; embeddings have none."""
    taps = [BlockPattern.parse(e["pattern"]).tap_names for e in (first, second)]
    level = 0.9 if second["trained"] else 0.3
    matrix = [
        [
            1.0
            if first == second and i == j
            else level * math.exp(-abs(i / len(taps[0]) - j / len(taps[1]))) + draw.uniform(0, 0.05)
            for j in range(len(taps[1]))
        ]
        for i in range(len(taps[0]))
    ]
    return {
        "kind": "cka",
        "first": first,
        "second": second,
        "first_taps": list(taps[0]),
        "second_taps": list(taps[1]),
        "matrix": matrix,
        "reasons": {},
        "estimator": "debiased linear CKA over minibatches",
        "examples": 512,
        "tokens": 4096,
    }


def probing(pattern, seed, task, draw):
    """Probe accuracies that rise with depth."""
    taps = list(BlockPattern.parse(pattern).tap_names)
    return {
        "kind": "probing",
        "pattern": pattern,
        "pretraining_seed": seed,
        "task": task,
        "taps": taps,
        "accuracy": [0.6 + 0.2 * i / len(taps) + draw.uniform(0, 0.01) for i in range(len(taps))],
        "untrained_accuracy": [0.58 + draw.uniform(0, 0.01) for _ in taps],
        "majority_accuracy": 0.51,
        "rows": {"train": 2000, "test": 1000},
    }


def text_of(section):
    """The sentences of a section of the report."""
    told = []
    for part in section.parts:
        for item in getattr(part, "items", [part]):
            told.append(item if isinstance(item, str) else getattr(item, "text", ""))
    return " ".join(told)


def fail(study, *names, error="ResourceExhausted: out of memory"):
    """Turns the cells whose name starts with one of `names` into failed ones."""
    for cell in study["cells"]:
        if cell["name"].startswith(names):
            cell.update(status="failed", error=error, result=None)
    return study


def without(study, kind):
    """Removes all cells of a kind, as when they were never run."""
    study["cells"] = [cell for cell in study["cells"] if cell["kind"] != kind]
    return study


def shift(study, kind, pattern, change):
    """Changes the results of a kind and pattern in place, but for those from random weights."""
    for cell in study["cells"]:
        result = cell["result"]
        if cell["kind"] == kind and result.get("pattern") == pattern:
            if result.get("start") != "scratch":
                change(result)


def accuracies(value):
    """A change of fine-tunings to about this test accuracy."""

    def change(result):
        for i, run in enumerate(result["runs"]):
            run["test"]["accuracy"] = value + 0.001 * (i + result["pretraining_seed"] % 2)

    return change


def add_branches(study, loss_of, steps=(300, 600, 1200)):
    """Gives pre-trainings annealed points at these steps and at the end of the run.

    Args:
        study: the results, changed in place.
        loss_of: from pattern, seed and training FLOPs to the held-out loss.
        steps: of the branches.
    """
    config = study["config"]["pretraining"]
    config.update(learning_rate_schedule="trapezoid", cooldown_steps=list(steps))
    for cell in study["cells"]:
        if cell["kind"] != "pretraining":
            continue
        result = cell["result"]
        ends = [*steps, result["steps"]]
        result["branches"] = [branch(result, end, loss_of) for end in ends]
        result["validation"] = result["branches"][-1]["validation"]
        result["learnt"] = result["validation"].get("learnt")
    return study


def branch(result, steps, loss_of):
    """One annealed point of a pre-training, as its results.json has it."""
    flops = result["training_flops"] * steps / result["steps"]
    loss = loss_of(result["pattern"], result["seed"], flops)
    validation = {**result["validation"], "loss": loss}
    if "neighbour_model_loss" in validation:
        validation["learnt"] = loss < validation["neighbour_model_loss"]
    return {
        "steps": steps,
        "tokens": result["tokens"] * steps // result["steps"],
        "training_flops": flops,
        "training_seconds": result["training_seconds"] * steps / result["steps"],
        "validation": validation,
    }
