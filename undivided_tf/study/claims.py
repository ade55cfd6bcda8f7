"""The abstract's claims as declared objects, and the verdict of a study on each.

A verdict holds at the study's size and data, never for BERT-Base unless BERT-Base was run.
The margins are named in the study's config, before it runs. Needs no TensorFlow.
"""

import dataclasses
import math
import statistics as numbers_of
from collections.abc import Callable, Mapping

import scipy.stats

from undivided_tf.metrics import statistics
from undivided_tf.study import results
from undivided_tf.study.results import PRETRAINED, StudyResults

SUPPORTED, NOT_SUPPORTED, UNDERPOWERED = "supported", "not supported", "underpowered"
LEVEL = 0.05
# With fewer there is no interval (2) or no spread of a band (3).
_MIN_PAIRS, _MIN_BAND = 2, 3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One comparison with the reference, paired by pre-training seed.

    Attributes:
        matter: what is compared, such as the task.
        mean: mean difference, pattern minus reference, in the claim's unit; None without a pair.
        interval: its 95 % bootstrap interval; None for fewer than two pairs.
        n: pairs.
        p_within: that the pattern is worse by the margin or more, adjusted by Holm over matters.
        p_beyond: that it is not worse by more than the margin, adjusted likewise.
        p_permutation: that the signs of the differences are arbitrary; not adjusted.
        p_equivalent: that it differs by the margin or more either way (TOST); not adjusted.
        detectable: smallest difference that so many pairs of this spread would show with
            power 0.8; None for fewer than two pairs.
    """

    matter: str
    mean: float | None
    interval: tuple[float, float] | None
    n: int
    p_within: float = 1.0
    p_beyond: float = 1.0
    p_permutation: float = 1.0
    p_equivalent: float = 1.0
    detectable: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a study says to a claim about one pattern.

    Attributes:
        status: `supported`, `not supported` or `underpowered`.
        reason: the rule that decided, in a sentence.
        evidence: the comparisons behind it.
    """

    status: str
    reason: str
    evidence: tuple[Evidence, ...] = ()


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the abstract, in our words, and how it is judged.

    Attributes:
        name: one or two words.
        statement: what is claimed.
        metric: what is measured, with its unit.
        test: how it is decided.
        judge: the verdict on a pattern.
    """

    name: str
    statement: str
    metric: str
    test: str
    judge: Callable[[StudyResults, str], Verdict]


def not_worse(differences: Mapping[str, list[float]], margin: float, unit: str) -> Verdict:
    """Verdict on "worse by less than `margin`, in every matter".

    Supported when every matter shows a loss below the margin (one-sided t-tests at 5 % after
    Holm's correction); not supported when one of them shows a loss above it; else underpowered.

    Args:
        differences: for each matter one difference a pair, pattern minus reference; more is
            better.
        margin: the largest loss that does not matter, in the unit of the differences.
        unit: its name, for the reason.

    References:
        Holm 1979; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6).
    """
    pairs = min(map(len, differences.values()), default=0)
    if pairs < _MIN_PAIRS:
        evidence = tuple(
            Evidence(matter, numbers_of.fmean(found) if found else None, None, len(found))
            for matter, found in differences.items()
        )
        return Verdict(
            UNDERPOWERED,
            f"pairs of encoders: {pairs}, an interval takes {_MIN_PAIRS}",
            evidence,
        )
    within = statistics.holm([statistics.above_test(d, -margin) for d in differences.values()])
    beyond = statistics.holm(
        [statistics.above_test([-x for x in d], margin) for d in differences.values()]
    )
    evidence = tuple(
        Evidence(
            matter,
            numbers_of.fmean(found),
            statistics.bootstrap_interval(found),
            len(found),
            p_within,
            p_beyond,
            statistics.permutation_test(found),
            statistics.equivalence_test(found, margin),
            statistics.detectable_difference(numbers_of.stdev(found), len(found)),
        )
        for (matter, found), p_within, p_beyond in zip(
            differences.items(), within, beyond, strict=True
        )
    )
    lost = [e.matter for e in evidence if e.p_beyond < LEVEL]
    if lost:
        return Verdict(NOT_SUPPORTED, f"loses more than {unit} on {', '.join(lost)}", evidence)
    open_ = [e.matter for e in evidence if e.p_within >= LEVEL]
    if open_:
        return Verdict(
            UNDERPOWERED, f"a loss of {unit} is not ruled out on {', '.join(open_)}", evidence
        )
    return Verdict(SUPPORTED, f"a loss of {unit} is ruled out", evidence)


def _paired(own: Mapping[int, float], full: Mapping[int, float]) -> list[float]:
    return [own[seed] - full[seed] for seed in own if seed in full]


def _accuracy(study: StudyResults, pattern: str) -> Verdict:
    differences = {}
    for task in study.tasks:
        own, full = (
            study.score_by_encoder(task, p, PRETRAINED) for p in (pattern, study.reference)
        )
        differences[task] = _paired(own, full)
    margin = study.config.accuracy_margin
    return not_worse(differences, margin, f"{100 * margin:g} points of accuracy")


def _probes(study: StudyResults, pattern: str) -> Verdict:
    differences = {}
    for task in study.tasks:
        own, full = (study.attention_probes(task, p) for p in (pattern, study.reference))
        differences[task] = _paired(own, full)
    margin = study.config.accuracy_margin
    return not_worse(differences, margin, f"{100 * margin:g} points of probe accuracy")


def _parameters(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {r["seed"]: r["parameters"] for r in study.pretraining(p)}
        for p in (pattern, study.reference)
    )
    found = _paired(own, full)
    if not found:
        return Verdict(UNDERPOWERED, "no seed is finished for both")
    evidence = (Evidence("parameters", numbers_of.fmean(found), None, len(found)),)
    return Verdict(
        SUPPORTED if max(found) < 0 else NOT_SUPPORTED, "counted, not estimated", evidence
    )


def _time(study: StudyResults, pattern: str) -> Verdict:
    own, full = (
        {r["seed"]: math.log(r["training_seconds"]) for r in study.pretraining(p)}
        for p in (pattern, study.reference)
    )
    saved = [-difference for difference in _paired(own, full)]
    if len(saved) < _MIN_PAIRS:
        mean = -numbers_of.fmean(saved) if saved else None
        return Verdict(
            UNDERPOWERED,
            f"pairs of runs: {len(saved)}, an interval takes {_MIN_PAIRS}",
            (Evidence("log of the time ratio", mean, None, len(saved)),),
        )
    faster = statistics.above_test(saved, 0.0)
    slower = statistics.above_test([-x for x in saved], 0.0)
    ratios = [-x for x in saved]
    evidence = Evidence(
        "log of the time ratio",
        numbers_of.fmean(ratios),
        statistics.bootstrap_interval(ratios),
        len(ratios),
        faster,
        slower,
        statistics.permutation_test(ratios),
    )
    if faster < LEVEL:
        return Verdict(SUPPORTED, "its training took less time", (evidence,))
    status = NOT_SUPPORTED if slower < LEVEL else UNDERPOWERED
    return Verdict(status, "less training time was not shown", (evidence,))


def _cka(study: StudyResults, pattern: str) -> Verdict:
    # Equal seeds begin with equal values in the blocks that both have, which raises CKA; so
    # only pairs of different seeds are set beside the pairs of reference seeds.
    own = [
        value
        for pair in study.cka_with_reference(pattern)
        if pair["first"]["seed"] != pair["second"]["seed"]
        and (value := results.mean_matched_attention([pair])) is not None
    ]
    band = [
        value
        for pair in study.cka("other seed", study.reference)
        if (value := results.mean_matched_attention([pair])) is not None
    ]
    evidence = tuple(
        Evidence(matter, numbers_of.fmean(values), None, len(values))
        for matter, values in (("to the reference", own), ("between reference seeds", band))
        if values
    )
    if len(band) < _MIN_BAND or not own:
        return Verdict(
            UNDERPOWERED,
            f"pairs of reference seeds: {len(band)}, a band takes {_MIN_BAND}, "
            f"pairs with the pattern: {len(own)}",
            evidence,
        )
    reach = scipy.stats.t.ppf(1 - LEVEL, len(band) - 1) * numbers_of.stdev(band)
    bound = numbers_of.fmean(band) - reach * math.sqrt(1 / len(own) + 1 / len(band))
    inside = numbers_of.fmean(own) >= bound
    return Verdict(
        SUPPORTED if inside else NOT_SUPPORTED,
        f"mean CKA {numbers_of.fmean(own):.3f}, lower end of the band {bound:.3f}",
        evidence,
    )


CLAIMS = (
    Claim(
        "accuracy",
        "Fine-tuning accuracy falls by little.",
        "accuracy of the fine-tuned encoder, mean of its runs, paired by pre-training seed",
        "a loss of the margin or more is ruled out on every task (one-sided t-tests, Holm)",
        _accuracy,
    ),
    Claim(
        "size",
        "There are fewer parameters.",
        "parameters of the pre-trained encoder",
        "there are fewer, by count",
        _parameters,
    ),
    Claim(
        "training time",
        "Training takes less time.",
        "seconds of pre-training at equal steps, ratio paired by seed",
        "the ratio is below 1 (t on its logarithm)",
        _time,
    ),
    Claim(
        "similarity",
        "The attention blocks learn what those of the full model learn.",
        "debiased linear CKA, mean over matched attention taps, between different seeds",
        "not below the one-sided 95 % prediction band of pairs of reference seeds",
        _cka,
    ),
    Claim(
        "probes",
        "Linear probes on attention taps lose little.",
        "mean probe accuracy over attention taps, paired by pre-training seed",
        "a loss of the margin or more is ruled out on every task (one-sided t-tests, Holm)",
        _probes,
    ),
)


def verdicts(study: StudyResults) -> dict[str, dict[str, Verdict]]:
    """The verdict on every claim about every pattern but the reference.

    Args:
        study: the results.

    Returns:
        Verdicts by name of the claim, then by pattern.
    """
    return {
        claim.name: {pattern: claim.judge(study, pattern) for pattern in study.reduced}
        for claim in CLAIMS
    }
