"""Tables of what was seen inside the encoders: CKA and probes."""

from collections.abc import Callable
from typing import Any

from undivided_tf.study import numbers
from undivided_tf.study.pairs import (
    cka_relation,
    encoder_name,
    matched_attention,
    mean_matched_attention,
)
from undivided_tf.study.results import FAILED, StudyResults
from undivided_tf.study.tables import Table, Value


def cka(study: StudyResults) -> Table:
    """Every pair of encoders, finished or failed."""
    rows = []
    for cell in (cell for cell in study.cells if cell["kind"] == "cka"):
        label = cell["label"]
        pair = (
            Value(encoder_name(label["first"]), code=True),
            Value(encoder_name(label["second"]), code=True),
            Value(cka_relation(label)),
        )
        rows.append(
            (*pair, *(_similarity(cell["result"]) if cell["result"] else [Value(FAILED)] * 5))
        )
    columns = (
        "first encoder",
        "second encoder",
        "second is",
        "mean over matched attention taps",
        "lowest",
        "highest",
        "largest distance of the diagonal from 1",
        "entries not computable",
    )
    note = (
        "Matched taps: the output of the i-th attention block of the one with that of the i-th of "
        "the other. An encoder with itself must give 1 on the diagonal. The untrained twin is the "
        "floor: similarity that the architecture and the shared inputs give for nothing."
    )
    for result in study.finished("cka")[:1]:
        note += (
            f" Estimator: {result['estimator']}, {numbers.count(result['examples'])} examples, "
            f"{numbers.count(result['tokens'])} tokens."
        )
    return Table("CKA between encoders", columns, tuple(rows), note)


def _similarity(result: dict[str, Any]) -> tuple[Value, ...]:
    known = [value for value in matched_attention(result) if value is not None]
    entries = [value for row in result["matrix"] for value in row]
    nulls = entries.count(None)
    return (
        _word(mean_matched_attention([result]), numbers.loss),
        _word(min(known, default=None), numbers.loss),
        _word(max(known, default=None), numbers.loss),
        _self_check(result),
        Value(numbers.count(nulls), f"of {numbers.count(len(entries))}", nulls),
    )


def _word(value: float | None, show: Callable[[float], str]) -> Value:
    return Value("not computable") if value is None else Value(show(value), number=value)


def _self_check(result: dict[str, Any]) -> Value:
    if cka_relation(result) != "itself":
        return Value("–")
    diagonal = [row[i] for i, row in enumerate(result["matrix"]) if row[i] is not None]
    if not diagonal:
        return Value("not computable")
    distance = max(abs(value - 1) for value in diagonal)
    return Value(f"{distance:.1g}", number=distance)


def cka_gaps(study: StudyResults) -> list[str]:
    """Why entries of the matrices could not be computed, each reason once with its count."""
    counts: dict[tuple[str, str], int] = {}
    for result in study.finished("cka"):
        pair = f"`{encoder_name(result['first'])}` × `{encoder_name(result['second'])}`"
        for reason in result["reasons"].values():
            counts[pair, reason] = counts.get((pair, reason), 0) + 1
    return [f"{pair}: {reason} ({number} entries)" for (pair, reason), number in counts.items()]


def probing(study: StudyResults, name: str) -> Table:
    """The best tap of each pattern on a task, beside its untrained twin and the majority."""
    rows = []
    reference = study.best_probe(name, study.reference, "accuracy")
    for pattern in study.patterns:
        best = study.best_probe(name, pattern, "accuracy")
        untrained = study.best_probe(name, pattern, "untrained_accuracy")
        results = study.probing(name, pattern)
        if best is None or untrained is None:
            rows.append(
                (
                    Value(pattern, code=True),
                    *[Value(study.absence("probing", name, pattern=pattern))] * 7,
                )
            )
            continue
        lost = study.failures("probing", name, pattern=pattern)
        majority = study.probe_majority(name)
        against = (
            Value("reference")
            if pattern == study.reference
            else Value(study.absence("probing", name, pattern=study.reference))
            if reference is None
            else Value(numbers.points(best[1] - reference[1]), number=best[1] - reference[1])
        )
        rows.append(
            (
                Value(pattern, code=True),
                Value(best[0], code=True),
                Value(numbers.percent(best[1]), number=best[1]),
                Value(numbers.percent(untrained[1]), f"at {untrained[0]}", untrained[1]),
                Value(numbers.percent(majority), number=majority),
                Value(numbers.points(best[1] - untrained[1]), number=best[1] - untrained[1]),
                against,
                Value(numbers.count(len(results)), f"{lost} failed" if lost else "", len(results)),
            )
        )
    columns = (
        "pattern",
        "best tap",
        "accuracy, %",
        "untrained twin, its best tap, %",
        "majority class, %",
        "gain over untrained, points",
        "difference to reference, points",
        "encoders",
    )
    note = (
        "Logistic regression on frozen activations; the best tap is chosen on the rows it is "
        "scored on, for trained and untrained encoders alike."
    )
    for result in study.probing(name)[:1]:
        note += (
            f" {numbers.count(result['rows']['train'])} training rows, "
            f"{numbers.count(result['rows']['test'])} test rows."
        )
    return Table(f"Probes on {name}", columns, tuple(rows), note)
