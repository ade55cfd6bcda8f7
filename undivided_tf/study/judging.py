"""How a claim is judged: paired differences, their tests, and the verdicts these lead to.

Needs no TensorFlow.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from undivided_tf.metrics import inference
from undivided_tf.study.budgets import STEPS
from undivided_tf.study.results import StudyResults

SUPPORTED, NOT_SUPPORTED, UNDERPOWERED = "supported", "not supported", "underpowered"
NO_VERDICT, DID_NOT_LEARN = "no verdict", "did not learn"
STATUSES = (SUPPORTED, NOT_SUPPORTED, UNDERPOWERED, NO_VERDICT, DID_NOT_LEARN)
LEVEL = 0.05
ACCURACY_MARGIN, LOSS_MARGIN = "accuracy_margin of the study", "loss_margin of the study"
NOT_WORSE = "not worse, by the rule above"
# Stands above a table in which a claim is tested by `NOT_WORSE`.
NOT_WORSE_RULE = (
    "Not worse: a loss of the margin or more is ruled out on every task on which the reference "
    "beats its floor by more than the margin (one-sided t-tests, the former with Holm's "
    "correction). The floor is the score of a constant answer, or of random weights if that is "
    "higher."
)
# With fewer there is no interval (2) or no spread of a band (3).
MIN_PAIRS, MIN_BAND = 2, 3


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One comparison with the reference, paired by pre-training seed (times in turn: by round).

    Attributes:
        comparison: what is compared, such as the task.
        mean: mean difference, pattern minus reference, in the claim's unit; None without a pair.
        interval: its 95 % bootstrap interval; None for fewer than two pairs.
        n: pairs.
        p_within: of the hypothesis that the pattern is worse by the margin or more, adjusted by
            Holm over the comparisons; None for one that is not informative.
        p_beyond: of the hypothesis that it is worse by the margin at most, adjusted likewise.
        p_permutation: of a permutation test on the signs of the differences; not adjusted.
        p_equivalent: of the hypothesis that it differs by the margin or more (TOST); not adjusted.
        detectable: smallest difference that this number of pairs shows with 80 % power; None for
            fewer than two pairs.
        needed: pairs for 80 % power to rule out a loss of the margin, assuming no true loss; None
            for fewer than two pairs, or more than 9,999 needed.
        p_uninformative: of the hypothesis that the reference is above its floor by the margin at
            most; None where there is no floor. Not adjusted.
    """

    comparison: str
    mean: float | None
    interval: tuple[float, float] | None
    n: int
    p_within: float | None = 1.0
    p_beyond: float | None = 1.0
    p_permutation: float = 1.0
    p_equivalent: float = 1.0
    detectable: float | None = None
    needed: int | None = None
    p_uninformative: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a study says to a claim about one pattern.

    Attributes:
        status: `supported`, `not supported` or `underpowered`; `no verdict` where the reference
            has not learnt from its context, `did not learn` where it has and the pattern has not.
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
        needs_learning: whether it is about what encoders have learnt, and not about their size or
            speed.
        budgets: the budgets whose encoders of the pattern it is about; none where it is about the
            reference alone.
    """

    name: str
    statement: str
    metric: str
    margin: str
    test: str
    judge: Callable[[StudyResults, str], Verdict]
    unit: str = "plain"
    needs_learning: bool = True
    budgets: tuple[str, ...] = (STEPS,)

    def verdict(self, study: StudyResults, pattern: str) -> Verdict:
        """The judge's verdict, unless encoders that it rests on have not learnt.

        An encoder cannot lose what it has not learnt. So there is no verdict where an encoder of
        the reference is not below the neighbour model. Where only an encoder of the pattern is
        not, the verdict is that the pattern did not learn. Results of older releases, which have
        no neighbour model, are judged without this check.
        """
        verdict = self.judge(study, pattern)
        if not self.needs_learning:
            return verdict
        if reason := not_learnt(study, study.reference):
            return dataclasses.replace(
                verdict, status=NO_VERDICT, reason=f"the reference has not learnt: {reason}"
            )
        for budget in self.budgets:
            view = study.seen_as(budget, study.size)
            if pattern != study.reference and (reason := not_learnt(view, pattern)):
                return dataclasses.replace(verdict, status=DID_NOT_LEARN, reason=reason)
        return verdict


def not_learnt(study: StudyResults, pattern: str) -> str:
    """How many encoders of a pattern have not learnt from their context; empty if none."""
    return unlearnt(study.values("pretraining", "learnt", pattern=pattern))


def unlearnt(known: Sequence[float]) -> str:
    """How many encoders have not learnt (a value of 0), in words; empty if all have."""
    if all(known):
        return ""
    return (
        f"{known.count(0)} of {len(known)} encoder{'s' * (len(known) != 1)} not below the "
        "neighbour model"
    )


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is scored in one comparison, such as a task; more is better.

    Attributes:
        of_pattern: scores of the pattern, by pre-training seed.
        of_reference: scores of the reference, likewise.
        floor: the score without pre-training: of a constant answer, or of random weights where
            these are scored and do better.
        control: whether the comparison decides nothing, as was said before the run, because
            encoders of this size cannot do the task.
    """

    of_pattern: Mapping[int, float]
    of_reference: Mapping[int, float]
    floor: float
    control: bool = False


def not_worse(scores: Mapping[str, Scores], margin: float, amount: str) -> Verdict:
    """Verdict on "worse by less than `margin`, in every informative comparison".

    A comparison is informative when the reference is shown to beat its floor by more than the
    margin (one-sided t-test at 5 %): a reference that has learnt nothing has nothing to lose.
    Supported when each of these comparisons shows a loss below the margin (likewise, after Holm's
    correction); not supported when one of them shows a loss above it; else underpowered.

    Args:
        scores: those of each comparison.
        margin: the largest loss that does not matter, in the unit of the scores.
        amount: the margin in words, for the reason; see `points`.

    References:
        Holm 1979; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6);
        Temple and Ellenberg 2000, Annals of Internal Medicine 133(6) (assay sensitivity).
    """
    differences = {
        name: paired(score.of_pattern, score.of_reference) for name, score in scores.items()
    }
    pairs = min(map(len, differences.values()), default=0)
    if pairs < MIN_PAIRS:
        evidence = tuple(
            Evidence(name, statistics.fmean(values) if values else None, None, len(values))
            for name, values in differences.items()
        )
        return Verdict(
            UNDERPOWERED,
            f"pairs of encoders: {pairs}, an interval takes {MIN_PAIRS}",
            evidence,
        )
    uninformative = {
        name: inference.above_test([x - score.floor for x in score.of_reference.values()], margin)
        for name, score in scores.items()
    }
    informative = {
        name: difference
        for name, difference in differences.items()
        if uninformative[name] < LEVEL and not scores[name].control
    }
    within = _adjusted({m: inference.above_test(d, -margin) for m, d in informative.items()})
    beyond = _adjusted(
        {m: inference.above_test([-x for x in d], margin) for m, d in informative.items()}
    )
    evidence = tuple(
        Evidence(
            name,
            statistics.fmean(values),
            inference.bootstrap_interval(values),
            len(values),
            within.get(name),
            beyond.get(name),
            inference.permutation_test(values),
            inference.equivalence_test(values, margin),
            inference.detectable_difference(statistics.stdev(values), len(values)),
            inference.pairs_needed(statistics.stdev(values), margin),
            uninformative[name],
        )
        for name, values in differences.items()
    )
    status, reason = _decided(within, beyond, amount)
    if status == UNDERPOWERED:
        reason += _advice(
            comparison
            for comparison in evidence
            if comparison.p_within and comparison.p_within >= LEVEL
        )
    if controls := ", ".join(name for name, score in scores.items() if score.control):
        reason += f"; controls decide nothing: {controls}"
    unable = [name for name, p in uninformative.items() if p >= LEVEL and not scores[name].control]
    if unable:
        reason += (
            f"; the reference is not shown to beat its floor by as much on {', '.join(unable)}"
        )
    return Verdict(status, reason, evidence)


def _adjusted(tests: Mapping[str, float]) -> dict[str, float]:
    """P-values by comparison, after Holm's correction for their number."""
    return dict(zip(tests, inference.holm(list(tests.values())), strict=True)) if tests else {}


def _decided(
    within: Mapping[str, float], beyond: Mapping[str, float], margin: str
) -> tuple[str, str]:
    """Status and reason from the adjusted p-values of the informative comparisons."""
    if lost := ", ".join(name for name, p in beyond.items() if p < LEVEL):
        return NOT_SUPPORTED, f"loses more than {margin} on {lost}"
    if unsettled := ", ".join(name for name, p in within.items() if p >= LEVEL):
        return UNDERPOWERED, f"a loss of {margin} is not ruled out on {unsettled}"
    if not within:
        return UNDERPOWERED, f"no comparison is informative about a loss of {margin}"
    return SUPPORTED, f"a loss of {margin} is ruled out on {', '.join(within)}"


def _advice(unsettled: Iterable[Evidence]) -> str:
    """How many pairs the comparison that needs most would take; empty if all have enough."""
    short = [
        comparison
        for comparison in unsettled
        if comparison.needed is None or comparison.needed > comparison.n
    ]
    if not short:
        return ""
    needed = [comparison.needed for comparison in short]
    pairs = "more than 9,999" if None in needed else f"about {max(needed):,}"
    return f"; {pairs} pairs would have 80 % power"


def points(margin: float, measure: str) -> str:
    """A margin of shares in words, such as `1 point of accuracy`."""
    number = f"{100 * margin:g}"
    return f"{number} point{'s' * (number != '1')} of {measure}"


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """`first - second` for each seed that both have."""
    return [first[seed] - second[seed] for seed in first if seed in second]


def beyond(
    comparison: str,
    values: list[float],
    bound: float,
    words: tuple[str, str],
    below: bool = False,
) -> Verdict:
    """Verdict on "the mean is above (or below) `bound`", by one-sided t-tests at 5 %.

    Args:
        comparison: what the values are.
        values: one an encoder, or a pair.
        bound: what the mean is set against.
        words: what is shown when the statement holds, and when its contrary does.
        below: whether the statement is that the mean is below `bound`.
    """
    mean = statistics.fmean(values) if values else None
    if len(values) < MIN_PAIRS:
        return Verdict(
            UNDERPOWERED,
            f"encoders: {len(values)}, an interval takes {MIN_PAIRS}",
            (Evidence(comparison, mean, None, len(values)),),
        )
    sign = -1 if below else 1
    holds = inference.above_test([sign * x for x in values], sign * bound)
    fails = inference.above_test([-sign * x for x in values], -sign * bound)
    evidence = Evidence(
        comparison,
        mean,
        inference.bootstrap_interval(values),
        len(values),
        holds,
        fails,
        inference.permutation_test([x - bound for x in values]),
    )
    if holds < LEVEL:
        return Verdict(SUPPORTED, words[0], (evidence,))
    if fails < LEVEL:
        return Verdict(NOT_SUPPORTED, words[1], (evidence,))
    return Verdict(UNDERPOWERED, "neither it nor its contrary was shown", (evidence,))
