"""Similarity of two encoders on the same tokens: CKA or another measure of all tap pairs.

Each number has an interval and baselines: shuffled examples, another sample, an untrained encoder,
another seed, and the similarity without the tokens of highest norm.
"""

import math
from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis import subjects
from undivided_tf.analysis.comparisons import Sample, TapPairs
from undivided_tf.analysis.config import CkaConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows, read_split
from undivided_tf.workdir import results_once


def run_cka(config: CkaConfig) -> dict[str, Any]:
    """Compares two checkpoints, or one with its untrained twin, on the texts of a task.

    Args:
        config: names the checkpoints, the task and the sample; `config.workdir` receives
            config.json and results.json. Existing results are read instead.

    Returns:
        As `compare`.

    Raises:
        InputError: no checkpoint or task, different vocabularies, too few tokens, or a workdir of
            another config.
    """

    def inputs() -> tuple[Subject, Subject, Rows, Subject | None]:
        first = subjects.load(config.first_checkpoint)
        second = (
            subjects.load(config.second_checkpoint)
            if config.second_checkpoint
            else first.untrained_twin(config.seed)
        )
        other = config.other_seed_checkpoint and subjects.load(config.other_seed_checkpoint)
        rows = read_split(config.task, config.split)
        return first, second, rows, other or None

    def run(loaded: tuple) -> dict[str, Any]:
        first, second, rows, other = loaded
        return compare(first, second, rows, config, other)

    return results_once(config, inputs, run)


def compare(
    first: Subject,
    second: Subject,
    rows: Rows,
    config: CkaConfig,
    other_seed: Subject | None = None,
) -> dict[str, Any]:
    """Similarity of every tap of one encoder and every tap of another, with baselines.

    Special tokens and padding are left out; all encoders are compared at the same tokens or words.

    Args:
        first: an encoder.
        second: another encoder, with the same vocabulary unless words are compared; or the same
            encoder.
        rows: texts to choose from.
        config: measure, sizes of the sample, references and seed.
        other_seed: the pattern of the first, pre-trained with another seed.

    Returns:
        `kind`, `measure`, `is_distance`, `unit`, `first` and `second` (pattern, seed, trained),
        `first_taps`, `second_taps`, `matrix` (None entries are explained by `reasons`), `reasons`,
        `low` and `high` (95 % interval as matrices, or None), `negative` (entries below 0),
        `within_first` and `within_second` (each encoder's taps against its own), `references` (by
        name: `first`, `second`, `second_taps`, `matrix`, `reasons`, `low`, `high`),
        `absent_references` (reasons by name), `without_high_norm` (the same without the tokens of
        highest norm, and their `share`), `estimator`, `examples`, `tokens`, `dropped_tokens` (of
        minibatches too small for an estimate), `unseen_words` (cut off for one of the encoders).

    Raises:
        InputError: different vocabularies, no rows, an activation that is not finite, no minibatch
            with four tokens, or a sample that is too large for memory.
    """
    encoders = {"first": first, "second": second}
    absent = {}
    if "untrained" in config.references:
        if second.trained:
            encoders["untrained"] = second.untrained_twin(config.seed)
        else:
            absent["untrained"] = "the second encoder is untrained itself"
    if other_seed is not None:
        encoders["other_seed"] = other_seed
    else:
        absent["other_seed"] = "no other_seed_checkpoint was given"
    chosen, other_rows = _samples(rows, config)
    sample = Sample(encoders, chosen, config)
    main = sample.compare()
    references = {
        name: _described(first, encoders.get(name, second), main[name])
        for name in ("shuffled", "untrained", "other_seed")
        if name in main
    }
    if "other_sample" in config.references:
        if other_rows is None:
            absent["other_sample"] = "the split has too few rows beside those of the sample"
        else:
            pair = {"first": first, "second": second}
            other = Sample(pair, other_rows, config.replace(references=(), high_norm_share=0.0))
            references["other_sample"] = _described(first, second, other.compare()["second"])
    without = main.get("without_high_norm")
    return {
        "kind": "cka",
        "measure": config.measure,
        "is_distance": bool(sample.measure and sample.measure.is_distance),
        "unit": config.unit,
        **_described(first, second, main["second"]),
        "negative": int((main["second"].matrix() < 0).sum()),
        "within_first": _nullable(main["first"].matrix()),
        "within_second": _nullable(main["within_second"].matrix()),
        "references": references,
        "absent_references": absent,
        "without_high_norm": without
        and {**_values(without), "tokens": without.examples, "share": config.high_norm_share},
        "estimator": sample.estimator(main["second"].minibatches),
        "examples": len(chosen),
        "tokens": main["second"].examples,
        "dropped_tokens": sample.dropped,
        "unseen_words": sample.unseen_words,
    }


def _samples(rows: Rows, config: CkaConfig) -> tuple[Rows, Rows | None]:
    """The rows to compare, and a second sample of other rows, if there are enough."""
    if len(rows) < config.num_examples:
        logging.info("num_examples is %d, but the split has %d", config.num_examples, len(rows))
    if not 0 < config.num_examples < len(rows):
        return rows, None
    order = np.random.default_rng(config.seed).permutation(len(rows))
    other = order[config.num_examples : 2 * config.num_examples]
    # A much smaller sample would differ because of its size.
    other_rows = rows.pick(np.sort(other)) if 2 * len(other) >= config.num_examples else None
    return rows.take(config.num_examples, config.seed), other_rows


def _described(first: Subject, second: Subject, pairs: TapPairs) -> dict[str, Any]:
    return {
        "first": first.describe(),
        "second": second.describe(),
        "first_taps": list(pairs.first_taps),
        "second_taps": list(pairs.second_taps),
        **_values(pairs),
    }


def _values(pairs: TapPairs) -> dict[str, Any]:
    matrix = _nullable(pairs.matrix())
    low, high = pairs.interval() or (None, None)
    return {
        "matrix": matrix,
        "reasons": pairs.reasons(),
        "low": None if low is None else _nullable(low),
        "high": None if high is None else _nullable(high),
    }


def _nullable(matrix: np.ndarray) -> list[list[float | None]]:
    """The matrix with None for NaN, which JSON lacks."""
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]
