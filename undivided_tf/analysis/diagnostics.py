"""Diagnostics of the blocks of one encoder and of its untrained twin."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from undivided_tf.analysis import masked_lm, rank, subjects, taps
from undivided_tf.analysis.attention import HeadDivergence, HeadStatistics, rollout
from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.analysis.extraction import Activations
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks.tasks import Rows, read_split
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.workdir import results_once


def run_diagnostics(config: DiagnosticsConfig) -> dict[str, Any]:
    """Measures the blocks of a checkpoint on the texts of a task.

    Args:
        config: names the checkpoint, the task and the sample; `config.workdir` receives config.json
            and results.json. Existing results are read instead.

    Returns:
        As `diagnose`.

    Raises:
        InputError: no checkpoint or task, different vocabularies, or a workdir of another config.
    """

    def inputs() -> tuple:
        subject = subjects.load(config.init_checkpoint)
        second = config.second_checkpoint and subjects.load(config.second_checkpoint)
        rows = read_split(config.task, config.split)
        head = masked_lm.load_head(config.init_checkpoint, subject)
        return subject, rows, head, second or None

    def run(loaded: tuple) -> dict[str, Any]:
        subject, rows, head, second = loaded
        return diagnose(subject, rows, config, head, second)

    return results_once(config, inputs, run)


def diagnose(
    subject: Subject,
    rows: Rows,
    config: DiagnosticsConfig,
    head: Pretrainer | None = None,
    second: Subject | None = None,
) -> dict[str, Any]:
    """Measures every block of an encoder.

    Args:
        subject: the encoder.
        rows: texts to choose from.
        config: sizes of the sample and seed.
        head: the encoder with its masked-language-model head, for the read-out.
        second: an encoder of the same vocabulary whose heads are matched.

    Returns:
        `kind`, `encoder` (pattern, seed, trained), `taps`, `blocks` and `untrained_blocks` (see
        `rank.measure_blocks`), `attention` and `untrained_attention` (by block: see
        `HeadStatistics.means`, and `rollout_self`, the share of its own input in a token after all
        blocks up to this one), `heads` (matching with `second`, by pair of blocks, or None),
        `read_out` (see `masked_lm.logit_lens`; None without a head).
    """
    rows = rows.take(config.num_examples, config.seed)
    few = rows.take(config.num_attention_examples, config.seed)
    twin = subject.untrained_twin(config.seed)
    sizes = {"batch_size": config.batch_size, "max_seq_length": config.max_seq_length}
    return {
        "kind": "diagnostics",
        "encoder": subject.describe(),
        "taps": list(subject.encoder.config.pattern.tap_names),
        "blocks": rank.measure_blocks(subject, rows, **sizes),
        "untrained_blocks": rank.measure_blocks(twin, rows, **sizes),
        "attention": attention(subject, few, **sizes),
        "untrained_attention": attention(twin, few, **sizes),
        "heads": second and match_heads(subject, second, few, **sizes),
        "read_out": head
        and masked_lm.logit_lens(head, subject, rows, top=config.top, seed=config.seed, **sizes),
        "examples": len(rows),
        "attention_examples": len(few),
    }


def attention(
    subject: Subject, rows: Rows, *, batch_size: int, max_seq_length: int
) -> dict[str, dict[str, Any]]:
    """Statistics of every head, by attention block; see `diagnose`."""
    statistics: dict[str, HeadStatistics] = {}
    rollout_self: dict[str, float] = collections.defaultdict(float)
    tokens = 0
    for blocks, ids, lengths in _attention(subject, rows, batch_size, max_seq_length):
        for name, weights in blocks.items():
            if name not in statistics:
                statistics[name] = HeadStatistics(subject.tokenizer.sep_id)
            statistics[name].update(weights, ids, lengths)
        for text, length in enumerate(lengths):
            reached = rollout([w[text, :, :length, :length] for w in blocks.values()])
            for name, matrix in zip(blocks, reached, strict=True):
                rollout_self[name] += float(np.trace(matrix))
        tokens += int(lengths.sum())
    return {
        name: {**block_statistics.means(), "rollout_self": rollout_self[name] / tokens}
        for name, block_statistics in statistics.items()
    }


def match_heads(
    first: Subject, second: Subject, rows: Rows, *, batch_size: int, max_seq_length: int
) -> list[dict[str, Any]]:
    """Pairs the heads of the i-th attention block of one encoder with those of another.

    Returns:
        For each pair of blocks `first` and `second` (names), `divergence` (Jensen-Shannon, nats,
        heads x heads), `matching` (pairs of heads) and `mean_matched`, their mean divergence.

    Raises:
        InputError: different vocabularies.
    """
    subjects.require_same_vocabulary(first, second)
    streams = [_attention(s, rows, batch_size, max_seq_length) for s in (first, second)]
    divergences: dict[tuple[str, str], HeadDivergence] = {}
    for (blocks, _, lengths), (other_blocks, _, _) in zip(*streams, strict=True):
        for pair in zip(blocks, other_blocks, strict=False):
            divergence = divergences.setdefault(pair, HeadDivergence())
            divergence.update(blocks[pair[0]], other_blocks[pair[1]], lengths)
    matches = []
    for pair, divergence in divergences.items():
        means, matching = divergence.means(), divergence.matching()
        matches.append(
            {
                "first": pair[0],
                "second": pair[1],
                "divergence": means.tolist(),
                "matching": matching,
                "mean_matched": float(np.mean([means[i, j] for i, j in matching])),
            }
        )
    return matches


def _attention(
    subject: Subject, rows: Rows, batch_size: int, max_seq_length: int
) -> Iterator[tuple[Activations, np.ndarray, np.ndarray]]:
    """Minibatches of probabilities by block, token ids, and lengths of the texts."""
    stream = taps.attention_probabilities(
        subject.encoder,
        subject.tokenizer,
        rows,
        batch_size=batch_size,
        max_seq_length=max_seq_length,
    )
    for blocks, ids in stream:
        yield blocks, ids, (ids != subject.tokenizer.pad_id).sum(1)
