"""Zero-shot syntax: does the grammatical sentence of a pair have the higher likelihood?

The score of a sentence is its pseudo-log-likelihood, the sum over its word pieces. If the sentences
of a pair have different numbers of pieces, the sum favours the shorter one; the number of such
pairs is reported.

References:
    Warstadt et al. 2020, arXiv 1912.00582 (BLiMP).
    Salazar, Liang, Nguyen, Kirchhoff 2020, arXiv 1910.14659 (pseudo-log-likelihood).
"""

from typing import Any

import numpy as np
from absl import logging

from undivided_tf.analysis import masked_lm, subjects
from undivided_tf.analysis.config import BlimpConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.data.tasks import blimp
from undivided_tf.errors import InputError
from undivided_tf.metrics.inference import wilson_interval
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.workdir import results_once


def run_blimp(config: BlimpConfig) -> dict[str, Any]:
    """Scores a checkpoint.

    Args:
        config: names checkpoint and archive; `config.workdir` receives config.json and
            results.json. Existing results are read instead.

    Returns:
        As `score`.

    Raises:
        InputError: no checkpoint, a checkpoint without the head, no archive, or a workdir of
            another config.
    """

    def inputs() -> tuple[Subject, Pretrainer, list[blimp.Paradigm]]:
        subject = subjects.load(config.init_checkpoint)
        model = masked_lm.require_head(config.init_checkpoint, subject)
        return subject, model, blimp.read(config.data)

    return results_once(config, inputs, lambda loaded: score(*loaded, config))


def score(
    subject: Subject, model: Pretrainer, paradigms: list[blimp.Paradigm], config: BlimpConfig
) -> dict[str, Any]:
    """Share of the pairs whose grammatical sentence has the higher pseudo-log-likelihood.

    A tie counts one half. A tie means equal likelihoods, or different sentences with equal word
    pieces, for example sentences that differ only in case with an uncased vocabulary. Pairs of
    equal sentences are left out.

    Args:
        subject: the encoder.
        model: the encoder with its head, see `masked_lm.load_head`.
        paradigms: the pairs to score.
        config: sizes and seed.

    Returns:
        `kind`, `encoder`, `accuracy` (mean over the paradigms; chance is 0.5), `margin` (by how
        many nats the grammatical sentence of a pair is likelier, mean over the paradigms; it varies
        less between encoders than the accuracy), `paradigms` and `phenomena` (by name: `accuracy`,
        its 95 % Wilson interval `low` and `high`, `pairs`; paradigms have a `margin`, too),
        `pairs`, `pairs_of_unequal_length`, `ties`, and the counts `left_out` (pairs with a sentence
        that is too long or has no word piece) and `equal_sentences` (pairs of equal sentences).

    Raises:
        InputError: a likelihood is not finite.
    """
    chosen: dict[str, list[tuple[str, str]]] = {}
    same_pieces: list[bool] = []
    unequal = left_out = equal = 0
    for paradigm in paradigms:
        pairs = [pair for pair in paradigm.pairs if pair[0] != pair[1]]
        equal += len(paradigm.pairs) - len(pairs)
        if 0 < config.max_pairs < len(pairs):
            order = np.random.default_rng(config.seed).permutation(len(pairs))
            pairs = [pairs[i] for i in np.sort(order[: config.max_pairs])]
        texts = [text for pair in pairs for text in pair]
        pieces = subject.tokenizer.tokenize(texts).to_list() if texts else []
        lengths = np.array([len(ids) for ids in pieces], int).reshape(-1, 2)
        fits = (lengths <= config.max_seq_length - 2).all(1) & (lengths > 0).all(1)
        left_out += int((~fits).sum())
        unequal += int((lengths[fits, 0] != lengths[fits, 1]).sum())
        chosen[paradigm.name] = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
        sides = zip(pieces[::2], pieces[1::2], fits, strict=True)
        same_pieces += [good == bad for good, bad, fit in sides if fit]
    if equal:
        logging.warning("%d pairs of equal sentences are left out", equal)
    # All paradigms at once, so that sentences of similar length share a batch.
    values = masked_lm.pseudo_log_likelihoods(
        model,
        subject,
        [text for pairs in chosen.values() for pair in pairs for text in pair],
        batch_size=config.batch_size,
        max_seq_length=config.max_seq_length,
    ).reshape(-1, 2)
    if not np.isfinite(values).all():
        raise InputError(
            f"{int((~np.isfinite(values)).any(1).sum())} of {len(values)} pairs have a "
            "pseudo-log-likelihood that is not finite: the weights of the encoder are damaged"
        )
    # Equal pieces in two batches may have likelihoods that differ in the last bits.
    ties = np.array(same_pieces, bool) | (values[:, 0] == values[:, 1])
    all_wins = np.where(ties, 0.5, values[:, 0] > values[:, 1])
    all_margins = values[:, 0] - values[:, 1]
    results, phenomena = {}, {}
    ends = np.cumsum([len(pairs) for pairs in chosen.values()])[:-1]
    parts = zip(paradigms, np.split(all_wins, ends), np.split(all_margins, ends), strict=True)
    for paradigm, wins, margins in parts:
        won, pairs = float(wins.sum()), len(wins)
        results[paradigm.name] = {
            "phenomenon": paradigm.phenomenon,
            **_share(won, pairs),
            "margin": float(margins.mean()) if pairs else None,
        }
        total = phenomena.setdefault(paradigm.phenomenon, [0, 0])
        total[0] += won
        total[1] += pairs
    scored = [result for result in results.values() if result["pairs"]]
    return {
        "kind": "blimp",
        "encoder": subject.describe(),
        **{
            name: float(np.mean([result[name] for result in scored])) if scored else None
            for name in ("accuracy", "margin")
        },
        "phenomena": {name: _share(*counts) for name, counts in sorted(phenomena.items())},
        "paradigms": results,
        "pairs": len(values),
        "pairs_of_unequal_length": unequal,
        "ties": int(ties.sum()),
        "left_out": left_out,
        "equal_sentences": equal,
    }


def _share(won: float, pairs: int) -> dict[str, Any]:
    if not pairs:
        return {"accuracy": None, "low": None, "high": None, "pairs": 0}
    low, high = wilson_interval(won, pairs)
    return {"accuracy": won / pairs, "low": low, "high": high, "pairs": pairs}
