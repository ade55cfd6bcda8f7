"""Tables of the verdicts on the claims, and of the comparisons behind them."""

from collections.abc import Iterator

from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Table, Value
from undivided_tf.study import claims
from undivided_tf.study.judging import (
    DID_NOT_LEARN,
    NO_VERDICT,
    NOT_WORSE,
    NOT_WORSE_RULE,
    UNDERPOWERED,
    Evidence,
    Verdict,
)
from undivided_tf.study.results import StudyResults

Verdicts = dict[str, dict[str, Verdict]]  # By name of the claim, then by pattern.
_MEANINGS = {
    UNDERPOWERED: "Underpowered: neither the claim nor its contrary was shown.",
    NO_VERDICT: "No verdict: the reference has not learnt from its context.",
    DID_NOT_LEARN: "Did not learn: the reference has learnt from its context, the pattern has not.",
}


def tables(study: StudyResults) -> tuple[Table, Table, Table]:
    """The verdicts; how the claims are judged; and the evidence."""
    verdicts = claims.verdicts(study)
    return _verdicts(study, verdicts), _rules(study), _evidence(study, verdicts)


def _verdicts(study: StudyResults, verdicts: Verdicts) -> Table:
    """One row a claim, one column a pattern."""
    rows = tuple(
        (
            Value(claim.statement),
            *(
                Value(verdict.status, verdict.reason)
                for verdict in (verdicts[claim.name][pattern] for pattern in study.reduced)
            ),
        )
        for claim in claims.declared(study)
    )
    margin = formatting.percent(study.config.accuracy_margin)
    statuses = {
        verdict.status for by_pattern in verdicts.values() for verdict in by_pattern.values()
    }
    meanings = [f" {text}" for status, text in _MEANINGS.items() if status in statuses]
    note = (
        f"Against the reference `{study.reference}`. The margins, {margin} points of accuracy and "
        f"{study.config.loss_margin:g} nats of loss, were set before the run.{''.join(meanings)}"
    )
    return Table("Verdicts on the claims", ("claim", *study.reduced), rows, note)


def _rules(study: StudyResults) -> Table:
    """What is measured for each claim, and what decides."""
    declared = claims.declared(study)
    rows = tuple(
        (
            Value(claim.statement),
            Value(claim.name),
            Value(claim.metric),
            Value(claim.margin),
            Value(claim.test),
        )
        for claim in declared
    )
    columns = ("claim", "named below", "measured", "margin", "supported when")
    note = NOT_WORSE_RULE if any(claim.test == NOT_WORSE for claim in declared) else ""
    return Table("How the claims are judged", columns, rows, note)


def _evidence(study: StudyResults, verdicts: Verdicts) -> Table:
    """Every comparison behind a verdict."""
    rows = tuple(
        (
            Value(claim.name),
            Value(pattern, code=True),
            Value(item.comparison),
            *_numbers(item, claim.unit),
        )
        for claim in claims.declared(study)
        for pattern in study.reduced
        for item in verdicts[claim.name][pattern].evidence
    )
    columns = (
        "claim",
        "pattern",
        "compared",
        "mean difference",
        "95 % bootstrap interval",
        "pairs",
        "p, loses the margin or more",
        "p, loses the margin at most",
        "p, signs permuted",
        "p, TOST",
        "detectable difference",
        "pairs needed",
        "p, reference at its floor",
    )
    note = (
        "Pattern minus reference, paired by pre-training seed, or by round for times: points of "
        "accuracy, parameters, the logarithm of a ratio of times or residuals, or plain CKA and "
        "shares. The first two p-values are one-sided t-tests, adjusted by Holm over the tasks; "
        "TOST tests equivalence within the margin. Detectable: the smallest difference that this "
        "number of pairs shows with 80 % power. Pairs needed: for 80 % power to rule out a loss of "
        "the margin, assuming no true loss. A task with 0.05 or more in the last column decides "
        "nothing."
    )
    return Table("Evidence", columns, rows, note)


def _numbers(evidence: Evidence, unit: str) -> Iterator[Value]:
    accuracy = unit == "points"

    def shown(value: float) -> str:
        if unit == "count":
            return formatting.count(value)
        return formatting.points(value) if accuracy else formatting.decimals(value, 3)

    absent = Value("-")
    yield absent if evidence.mean is None else Value(shown(evidence.mean), number=evidence.mean)
    yield (
        absent if evidence.interval is None else Value(formatting.between(evidence.interval, shown))
    )
    yield Value(str(evidence.n), number=evidence.n)
    tested = evidence.interval is not None
    for p in (evidence.p_within, evidence.p_beyond, evidence.p_permutation):
        yield _p_value(p if tested else None)
    in_points = tested and accuracy
    yield _p_value(evidence.p_equivalent if in_points else None)
    yield (
        Value(formatting.points(evidence.detectable), number=evidence.detectable)
        if in_points
        else absent
    )
    yield (
        absent
        if evidence.needed is None
        else Value(formatting.count(evidence.needed), number=evidence.needed)
    )
    yield _p_value(evidence.p_uninformative)


def _p_value(p: float | None) -> Value:
    if p is None:
        return Value("-")
    return Value("< 0.001" if p < 0.0005 else formatting.decimals(p, 3), number=p)
