"""How a claim is judged: paired differences, their tests, and the verdicts these lead to.

Needs no TensorFlow.
"""

import dataclasses
import statistics as numbers_of
from collections.abc import Callable, Mapping

from undivided_tf.metrics import statistics
from undivided_tf.study.results import StudyResults

SUPPORTED, NOT_SUPPORTED, UNDERPOWERED = "supported", "not supported", "underpowered"
LEVEL = 0.05
ACCURACY_MARGIN = "accuracy_margin of the study"
# With fewer there is no interval (2) or no spread of a band (3).
MIN_PAIRS, MIN_BAND = 2, 3


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
        margin: the bound that it is set against.
        test: how it is decided.
        judge: the verdict on a pattern.
        unit: of its differences: `points` of a hundred, `count`, or `plain`.
    """

    name: str
    statement: str
    metric: str
    margin: str
    test: str
    judge: Callable[[StudyResults, str], Verdict]
    unit: str = "plain"


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
    if pairs < MIN_PAIRS:
        evidence = tuple(
            Evidence(matter, numbers_of.fmean(found) if found else None, None, len(found))
            for matter, found in differences.items()
        )
        return Verdict(
            UNDERPOWERED,
            f"pairs of encoders: {pairs}, an interval takes {MIN_PAIRS}",
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


def paired(own: Mapping[int, float], full: Mapping[int, float]) -> list[float]:
    """Differences over the seeds that both have."""
    return [own[seed] - full[seed] for seed in own if seed in full]


def beyond(matter: str, values: list[float], bound: float, words: tuple[str, str]) -> Verdict:
    """Verdict on "the mean is above `bound`", by one-sided t-tests at 5 %.

    Args:
        matter: what the values are.
        values: one an encoder, or a pair.
        bound: what the mean is set against.
        words: what is shown when it lies above, and when it lies below.
    """
    mean = numbers_of.fmean(values) if values else None
    if len(values) < MIN_PAIRS:
        return Verdict(
            UNDERPOWERED,
            f"encoders: {len(values)}, an interval takes {MIN_PAIRS}",
            (Evidence(matter, mean, None, len(values)),),
        )
    above = statistics.above_test(values, bound)
    below = statistics.above_test([-x for x in values], -bound)
    evidence = Evidence(
        matter, mean, statistics.bootstrap_interval(values), len(values), above, below,
        statistics.permutation_test([x - bound for x in values]),
    )  # fmt: skip
    if above < LEVEL:
        return Verdict(SUPPORTED, words[0], (evidence,))
    if below < LEVEL:
        return Verdict(NOT_SUPPORTED, words[1], (evidence,))
    return Verdict(UNDERPOWERED, "neither it nor its contrary was shown", (evidence,))
