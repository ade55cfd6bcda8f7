"""The abstract's claims as declared objects, and the verdict of a study on each.

A verdict holds at the study's size and data, never for BERT-Base unless BERT-Base was run.
The margins are named in the study's config, before it runs. Needs no TensorFlow.
"""

import math
import statistics

import scipy.stats

from undivided_tf.metrics import inference
from undivided_tf.study import frame_claims, frames, inner_claims
from undivided_tf.study.judging import (
    ACCURACY_MARGIN,
    DID_NOT_LEARN,
    LEVEL,
    LOSS_MARGIN,
    MIN_BAND,
    MIN_PAIRS,
    NO_VERDICT,
    NOT_SUPPORTED,
    NOT_WORSE,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Evidence,
    Scores,
    Verdict,
    not_worse,
    paired,
    points,
)
from undivided_tf.study.pairs import mean_matched_attention
from undivided_tf.study.results import PRETRAINED, StudyResults


def _language_modelling(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {seed: -loss for seed, loss in study.loss_by_seed(p).items()}
        for p in (pattern, study.reference)
    )
    unigrams = [r["validation_unigram_cross_entropy"] for r in study.pretraining(study.reference)]
    scores = {"held-out text": Scores(own, full, -min(unigrams, default=0.0))}
    margin = study.config.loss_margin
    return not_worse(scores, margin, f"{margin:g} nats of held-out loss")


def accuracy(study: StudyResults, pattern: str) -> Verdict:
    """Verdict on "fine-tuning accuracy falls by little" in the frame of the results."""
    scores = {
        task: Scores(
            study.score_by_encoder(task, pattern, PRETRAINED),
            study.score_by_encoder(task, study.reference, PRETRAINED),
            study.majority(task) or 0.0,
        )
        for task in study.tasks
    }
    margin = study.config.accuracy_margin
    return not_worse(scores, margin, points(margin, "accuracy"))


def _probes(study: StudyResults, pattern: str) -> Verdict:
    scores = {
        task: Scores(
            study.attention_probes(task, pattern),
            study.attention_probes(task, study.reference),
            study.probe_majority(task) or 0.0,
        )
        for task in study.probed
    }
    margin = study.config.accuracy_margin
    return not_worse(scores, margin, points(margin, "probe accuracy"))


def _parameters(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {r["seed"]: r["parameters"] for r in study.pretraining(p)}
        for p in (pattern, study.reference)
    )
    found = paired(own, full)
    if not found:
        return Verdict(UNDERPOWERED, "no seed is finished for both")
    evidence = (Evidence("parameters", statistics.fmean(found), None, len(found)),)
    return Verdict(
        SUPPORTED if max(found) < 0 else NOT_SUPPORTED, "counted, not estimated", evidence
    )


def _time(study: StudyResults, pattern: str) -> Verdict:
    ratios = [math.log(ratio) for ratio in study.step_ratios(pattern)]
    if len(ratios) < MIN_PAIRS:
        return Verdict(
            UNDERPOWERED,
            f"rounds of steps in turn: {len(ratios)}, an interval takes {MIN_PAIRS}",
        )
    faster = inference.above_test([-x for x in ratios], 0.0)
    slower = inference.above_test(ratios, 0.0)
    evidence = Evidence(
        "log of the time ratio",
        statistics.fmean(ratios),
        inference.bootstrap_interval(ratios),
        len(ratios),
        faster,
        slower,
        inference.permutation_test(ratios),
    )
    if faster < LEVEL:
        return Verdict(SUPPORTED, "its steps took less time", (evidence,))
    status = NOT_SUPPORTED if slower < LEVEL else UNDERPOWERED
    return Verdict(status, "less time was not shown", (evidence,))


def _cka(study: StudyResults, pattern: str) -> Verdict:
    # Equal seeds begin with equal values in the blocks that both have, which raises CKA; so
    # only pairs of different seeds are set beside the pairs of reference seeds.
    own = [
        value
        for pair in study.cka_with_reference(pattern)
        if pair["first"]["seed"] != pair["second"]["seed"]
        and (value := mean_matched_attention([pair])) is not None
    ]
    band = [
        value
        for pair in study.cka("other seed", study.reference)
        if (value := mean_matched_attention([pair])) is not None
    ]
    evidence = tuple(
        Evidence(matter, statistics.fmean(values), None, len(values))
        for matter, values in (("to the reference", own), ("between reference seeds", band))
        if values
    )
    if len(band) < MIN_BAND or not own:
        return Verdict(
            UNDERPOWERED,
            f"pairs of reference seeds: {len(band)}, a band takes {MIN_BAND}, "
            f"pairs with the pattern: {len(own)}",
            evidence,
        )
    reach = scipy.stats.t.ppf(1 - LEVEL, len(band) - 1) * statistics.stdev(band)
    bound = statistics.fmean(band) - reach * math.sqrt(1 / len(own) + 1 / len(band))
    inside = statistics.fmean(own) >= bound
    return Verdict(
        SUPPORTED if inside else NOT_SUPPORTED,
        f"mean CKA {statistics.fmean(own):.3f}, lower end of the band {bound:.3f}",
        evidence,
    )


STATUSES = (SUPPORTED, NOT_SUPPORTED, UNDERPOWERED, NO_VERDICT, DID_NOT_LEARN)
CLAIMS = (
    Claim(
        "language modelling kept",
        "The held-out loss rises by little.",
        "mean log-likelihood of a masked piece of the held-out rows (nats; the negative of the "
        "loss), paired by pre-training seed",
        LOSS_MARGIN,
        NOT_WORSE,
        _language_modelling,
    ),
    Claim(
        "accuracy kept",
        "Fine-tuning accuracy falls by little.",
        "accuracy of the fine-tuned encoder, mean of its runs, paired by pre-training seed",
        ACCURACY_MARGIN,
        NOT_WORSE,
        accuracy,
        "points",
    ),
    Claim(
        "fewer parameters",
        "There are fewer parameters.",
        "parameters of the pre-trained encoder",
        "none: 0",
        "there are fewer, by count",
        _parameters,
        "count",
        needs_learning=False,
    ),
    Claim(
        "less training time",
        "Training takes less time.",
        "time of a pre-training step, ratio paired by rounds of some steps of each in turn",
        "none: a ratio of 1",
        "the ratio is below 1 (t on its logarithm)",
        _time,
        needs_learning=False,
    ),
    Claim(
        "similar attention",
        "The attention blocks learn what those of the full model learn.",
        "debiased linear CKA, mean over matched attention taps, between different seeds",
        "the band's lower end",
        "not below the one-sided 95 % prediction band of pairs of reference seeds",
        _cka,
    ),
    Claim(
        "probe accuracy kept",
        "Linear probes on attention taps lose little.",
        "mean probe accuracy over attention taps, paired by pre-training seed",
        ACCURACY_MARGIN,
        NOT_WORSE,
        _probes,
        "points",
    ),
)


def declared(study: StudyResults) -> tuple[Claim, ...]:
    """The claims that a study can be asked, from its config alone."""
    more = []
    for frame in frames.other_frames(study.config):
        more += frame_claims.of_frame(frame, accuracy)
    if study.config.diagnose:
        more += inner_claims.DIAGNOSTICS
    if study.config.blimp.data:
        more.append(inner_claims.GRAMMAR)
    return (*CLAIMS, *more)


def verdicts(study: StudyResults) -> dict[str, dict[str, Verdict]]:
    """The verdict on every claim about every pattern but the reference.

    Args:
        study: the results.

    Returns:
        Verdicts by name of the claim, then by pattern.
    """
    return {
        claim.name: {pattern: claim.verdict(study, pattern) for pattern in study.reduced}
        for claim in declared(study)
    }
