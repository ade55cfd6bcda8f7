"""How alike two encoders represent the same tokens: CKA of every pair of taps."""

import math
from typing import Any

from absl import logging

from undivided_tf.analysis import subjects, taps
from undivided_tf.analysis.cka import MIN_EXAMPLES, MinibatchCka
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import results_once
from undivided_tf.data.tasks import Rows, load_task
from undivided_tf.errors import InputError
from undivided_tf.recipes import CkaConfig


def run_cka(config: CkaConfig) -> dict[str, Any]:
    """Compares two checkpoints, or one with its untrained twin, on the texts of a task.

    Args:
        config: names the checkpoints, the task and the sample; `config.workdir` receives
            config.json and results.json, and when it has that already, it is read.

    Returns:
        As `compare`.

    Raises:
        InputError: no checkpoint or task there, different vocabularies, too few tokens, or a
            workdir of another config.
    """

    def inputs() -> tuple[Subject, Subject, Rows]:
        first = subjects.load(config.first_checkpoint)
        second = (
            subjects.load(config.second_checkpoint)
            if config.second_checkpoint
            else first.untrained_twin(config.seed)
        )
        rows = load_task(config.task).read(config.split)
        if rows is None:
            raise InputError(f"task {config.task} has no split {config.split}: give --split")
        return first, second, rows

    return results_once(config, inputs, lambda read: compare(*read, config))


def compare(first: Subject, second: Subject, rows: Rows, config: CkaConfig) -> dict[str, Any]:
    """Debiased linear CKA of every tap of one encoder against every tap of another.

    Special tokens and padding are left out; both encoders are seen at the same tokens.

    Args:
        first: an encoder.
        second: another of the same vocabulary, or the same.
        rows: texts to choose from.
        config: sizes of the sample and seed.

    Returns:
        `kind`, `first` and `second` (pattern, seed, trained), `first_taps`, `second_taps`,
        `matrix` (None where `reasons` says why), `reasons`, `estimator`, `examples`, `tokens`,
        `dropped_tokens` (of minibatches too small for an estimate).

    Raises:
        InputError: different vocabularies, no rows, an activation that is not finite, or no
            minibatch with four tokens.
    """
    subjects.require_same_vocabulary(first, second)
    rows = rows.take(config.num_examples, config.seed)
    if len(rows.first) < config.num_examples:
        logging.info(
            "%d examples asked for, the split has %d", config.num_examples, len(rows.first)
        )
    streams = [
        taps.token_activations(
            subject.encoder,
            subject.tokenizer,
            rows,
            tokens_per_example=config.tokens_per_example,
            batch_size=config.batch_size,
            max_seq_length=config.max_seq_length,
            seed=config.seed,
        )
        for subject in (first, second)
    ]
    names = [list(subject.encoder.config.pattern.tap_names) for subject in (first, second)]
    pairs = MinibatchCka(*names)
    dropped = 0
    for one, other in zip(*streams, strict=True):
        tokens = len(one[names[0][0]])
        if tokens < MIN_EXAMPLES:
            dropped += tokens
        else:
            pairs.update(one, other)
    if dropped:
        logging.warning("%d tokens in minibatches of fewer than %d left out", dropped, MIN_EXAMPLES)
    return {
        "kind": "cka",
        "first": first.describe(),
        "second": second.describe(),
        "first_taps": names[0],
        "second_taps": names[1],
        "matrix": [[None if math.isnan(v) else v for v in row] for row in pairs.matrix().tolist()],
        "reasons": pairs.reasons(),
        "estimator": (
            "debiased linear CKA: unbiased HSIC averaged over "
            f"{pairs.minibatches} minibatches, then the ratio; without special tokens"
        ),
        "examples": len(rows.first),
        "tokens": pairs.examples,
        "dropped_tokens": dropped,
    }
