"""From the results of a study to the rows of its tables: pure functions, no layout."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from undivided_tf.study import numbers
from undivided_tf.study.results import (
    FAILED,
    NOT_RUN,
    PRETRAINED,
    SCRATCH,
    Score,
    StudyResults,
)

NOT_ASKED = "not asked for"  # By the config, where others are.


@dataclasses.dataclass(frozen=True)
class Value:
    """What stands in one place of a table.

    Attributes:
        text: the value as written.
        note: small print below it: ratio, interval, number of repetitions.
        number: the value at full precision, None for words.
        code: the text is a pattern, a tap or another literal.
    """

    text: str
    note: str = ""
    number: float | None = None
    code: bool = False

    @property
    def failed(self) -> bool:
        """Whether the value is absent since its cell failed."""
        return self.text == FAILED


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first value of each row is its heading.

    Attributes:
        title: what the table shows.
        columns: headings, with units.
        rows: as many values a row as there are columns.
        note: how to read it, in a sentence or two; `...` marks code.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A column of measurements of pre-training: where from, how written, how compared."""

    heading: str
    get: Callable[[dict[str, Any]], float | None]
    show: Callable[[float], str]
    compare: Callable[[float, float], str] | None = None


def _key(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: result[name]


def _validation(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda result: result["validation"][name]


def _nats(value: float, reference: float) -> str:
    return numbers.signed(value - reference, 3)


def _points(value: float, reference: float) -> str:
    return f"{numbers.points(value - reference)} points"


COST = (
    _Measure("parameters", _key("parameters"), numbers.count, numbers.ratio),
    _Measure("forward FLOPs a sequence", _key("forward_flops"), numbers.large, numbers.ratio),
    _Measure(
        "step time, ms",
        _key("step_milliseconds"),
        lambda value: numbers.decimals(value, 1),
        numbers.ratio,
    ),
    _Measure("tokens a second", _key("tokens_per_second"), numbers.count, numbers.ratio),
    _Measure("training time", _key("training_seconds"), numbers.duration, numbers.ratio),
    _Measure(
        "forward pass of one text, ms",
        _key("latency_milliseconds"),
        lambda value: numbers.decimals(value, 2),
        numbers.ratio,
    ),
    _Measure("peak memory", _key("peak_memory_bytes"), numbers.memory, numbers.ratio),
)


def _neighbours(*names: str) -> Callable[[dict[str, Any]], float | None]:
    """A loss of the held-out records, or the first less the second; None where it is not known."""

    def get(result: dict[str, Any]) -> float | None:
        values = [result["validation"].get(name) for name in names]
        if None in values:
            return None
        return values[0] - sum(values[1:])

    return get


LANGUAGE_MODEL = (
    _Measure("steps", _key("steps"), numbers.count),
    _Measure("tokens seen", _key("tokens"), numbers.large),
    _Measure("held-out MLM loss, nats", _validation("loss"), numbers.loss, _nats),
    _Measure(
        "below unigram entropy by, nats",
        lambda result: result["unigram_entropy"] - result["validation"]["loss"],
        numbers.loss,
    ),
    _Measure("held-out MLM accuracy, %", _validation("accuracy"), numbers.percent, _points),
    _Measure(
        "perplexity",
        lambda result: math.exp(result["validation"]["loss"]),
        lambda value: numbers.decimals(value, 1),
        numbers.ratio,
    ),
)
NEIGHBOURS = (
    _Measure("neighbour model's loss, nats", _neighbours("neighbour_model_loss"), numbers.loss),
    _Measure(
        "below it by, nats",
        _neighbours("neighbour_model_loss", "loss"),
        lambda value: numbers.signed(value, 3),
    ),
    _Measure(
        "below it where [MASK] shows by, nats",
        _neighbours("neighbour_model_loss_at_mask", "loss_at_mask"),
        lambda value: numbers.signed(value, 3),
    ),
)


def cost(study: StudyResults) -> Table:
    """Size and cost of each pattern."""
    note = (
        f"Small print: ratio to the reference `{study.reference}`; lowest and highest of n seeds. "
        "Step time is the median of rounds in turn with the reference; tokens a second and "
        "training time are as if every step took as long. A forward pass is compiled and of one "
        "full row."
    )
    return _pretraining_table(study, "Size and cost", COST, note)


def language_model(study: StudyResults) -> Table:
    """Held-out loss, accuracy and perplexity of each pattern."""
    note = (
        f"Small print: difference or ratio to the reference `{study.reference}`; lowest and "
        "highest of n seeds. A model that ignores its input and predicts word frequencies has "
        "about the unigram entropy as its loss."
    )
    measures = LANGUAGE_MODEL
    if any(NEIGHBOURS[0].get(result) is not None for result in study.finished("pretraining")):
        measures += NEIGHBOURS
        note += (
            " The neighbour model predicts a masked piece from the counts of the two pieces beside "
            "it in the training rows. What shows at the masked place itself, in one place of ten "
            "the piece asked for, is seen by the encoder alone: the last column leaves such "
            "places out."
        )
    return _pretraining_table(study, "Masked language modelling", measures, note)


def context_use(study: StudyResults) -> Table | None:
    """How the loss rises when context is shuffled or hidden; None where nothing was measured."""
    found = {
        pattern: [used for r in study.pretraining(pattern) if (used := r.get("context_use"))]
        for pattern in study.patterns
    }
    if not any(found.values()):
        return None
    every = [used for several in found.values() for used in several]
    distances = sorted({o["distance"] for used in every for o in used["hidden_beyond"]})
    rows = []
    for pattern, several in found.items():
        if not several:
            absent = study.absence("pretraining", pattern=pattern)
            absent = "not measured" if study.pretraining(pattern) else absent
            rows.append((Value(pattern, code=True), *[Value(absent)] * (2 + len(distances))))
            continue
        whole = statistics.fmean(used["loss"] for used in several)
        rises = [[used["shuffled"] for used in several]]
        rises += [
            [one for used in several for one in used["hidden_beyond"] if one["distance"] == k]
            for k in reversed(distances)
        ]
        rows.append(
            (
                Value(pattern, code=True),
                Value(numbers.loss(whole), number=whole),
                *(_rise(of) for of in rises),
            )
        )
    columns = (
        "pattern", "loss with all context, nats", "rise when it is shuffled",
        *(f"rise when pieces beyond {k} are hidden" for k in reversed(distances)),
    )  # fmt: skip
    note = (
        f"At {numbers.count(every[0]['places'])} held-out places that show [MASK], each predicted "
        "alone; hidden pieces show [MASK] too. Encoders were not trained with so little context, "
        "so a rise is at most what the hidden pieces are worth. Small print: 95 % bootstrap "
        "interval over places, of one encoder."
    )
    return Table("What the encoders look at", columns, tuple(rows), note)


def _rise(found: list[dict[str, Any]]) -> Value:
    mean = statistics.fmean(one["rise"] for one in found)
    interval = found[0]["interval"] if len(found) == 1 else None
    note = numbers.between(interval, lambda x: numbers.signed(x, 3)) if interval else ""
    return Value(numbers.signed(mean, 3), note, mean)


def _pretraining_table(
    study: StudyResults, title: str, measures: tuple[_Measure, ...], note: str
) -> Table:
    rows = tuple(
        (Value(pattern, code=True), *(_measured(study, pattern, m) for m in measures))
        for pattern in study.patterns
    )
    return Table(title, ("pattern", *(m.heading for m in measures)), rows, note)


def _measured(study: StudyResults, pattern: str, measure: _Measure) -> Value:
    found, reference = (
        [v for r in study.pretraining(p) if (v := measure.get(r)) is not None]
        for p in (pattern, study.reference)
    )
    if not found:
        absent = study.absence("pretraining", pattern=pattern)
        return Value("not measured" if study.pretraining(pattern) else absent)
    mean, notes = statistics.fmean(found), []
    if measure.compare and reference and pattern != study.reference:
        notes.append(measure.compare(mean, statistics.fmean(reference)))
    if min(found) < max(found):
        notes.append(f"{measure.show(min(found))} to {measure.show(max(found))}, n = {len(found)}")
    if failures := study.failures("pretraining", pattern=pattern):
        notes.append(f"{failures} failed")
    return Value(measure.show(mean), ", ".join(notes), mean)


def task(study: StudyResults, name: str) -> Table:
    """Scores of each pattern on a task: pre-trained, from random weights, majority."""
    majority, rows = study.majority(name), []
    metric = numbers.metric(study.metric(name))
    for pattern in study.patterns:
        starts = (PRETRAINED, SCRATCH)
        pretrained, scratch = (study.score(name, pattern, start) for start in starts)
        failures = [
            study.failures("finetuning", name, pattern=pattern, start=start) for start in starts
        ]
        absent, scratch_absent = (FAILED if n else NOT_RUN for n in failures)
        is_asked = pattern in study.config.from_scratch
        scratch_absent = scratch_absent if is_asked else NOT_ASKED
        rows.append(
            (
                Value(pattern, code=True),
                _score(pretrained, failures[0]),
                _score(scratch, failures[1]) if is_asked else Value(scratch_absent),
                Value(study.absence("finetuning", name))
                if majority is None
                else Value(numbers.percent(majority), number=majority),
                difference_to_reference(study, name, pattern),
                Value("no classes")
                if study.is_regression(name)
                else _score(study.score(name, pattern, PRETRAINED, "f1_macro"), failures[0]),
                Value(_runs(pretrained) or absent),
                Value(_runs(scratch) or scratch_absent),
            )
        )
    columns = (
        "pattern",
        "pre-trained, %",
        "random weights, %",
        "majority class, %",
        "difference to reference, points",
        "macro F1 pre-trained, %",
        "each run, pre-trained",
        "each run, random weights",
    )
    note = (
        f"{metric[0].upper() + metric[1:]}; small print: 95 % interval (Student's t) and n, the "
        "number of fine-tuning "
        "runs, or of encoders where several were pre-trained, each the mean of its runs."
    )
    for result in study.finetuning(name)[:1]:
        split = result["split"]
        test = result["rows"][split]
        score = study.score(name, result["pattern"], result["start"]).estimate
        note += (
            f" {numbers.count(result['rows']['train'])} training rows, {numbers.count(test)} "
            f"{split} rows, {len(result['labels'])} labels."
        )
        if metric != "accuracy" or score is None:
            continue
        note += (
            f" The drawing of the {split} rows alone "
            f"makes an accuracy of {numbers.percent(score.mean)} % uncertain by "
            f"± {numbers.decimals(100 * numbers.binomial_half_width(score.mean, test), 1)} points, "
            "which those intervals leave out."
        )
    return Table(f"Task {name}", columns, tuple(rows), note)


def _runs(score: Score) -> str:
    """Every run; a semicolon stands between pre-training seeds."""
    return "; ".join(" ".join(map(numbers.percent, runs)) for runs in score.runs)


def _score(score: Score, failures: int) -> Value:
    if score.estimate is None:
        return Value(FAILED if failures else NOT_RUN)
    value = _estimated(score.estimate, numbers.percent, score.unit)
    if failures:
        value = dataclasses.replace(value, note=f"{value.note}, {failures} failed")
    return value


def _estimated(found: numbers.Estimate, show: Callable[[float], str], unit: str) -> Value:
    note = f"n = {found.n} {unit.split()[-1]}{'s' if found.n > 1 else ''}"
    if found.interval:
        note = f"{numbers.between(found.interval, show)}, {note}"
    return Value(show(found.mean), note, found.mean)


def difference_to_reference(study: StudyResults, name: str, pattern: str) -> Value:
    """Difference of the test score to the reference, paired by seed."""
    if pattern == study.reference:
        return Value("reference")
    found, unit = score_difference(study, name, pattern)
    if found is None:
        absences = (
            study.absence("finetuning", name, pattern=p, start=PRETRAINED)
            for p in (pattern, study.reference)
        )
        return Value(FAILED if FAILED in absences else "no common seed")
    return _estimated(found, numbers.points, unit)


def score_difference(
    study: StudyResults, name: str, pattern: str
) -> tuple[numbers.Estimate | None, str]:
    """Test score of a pattern minus the reference's, paired by seed, and what a pair is."""
    first, second = (study.score(name, p, PRETRAINED) for p in (pattern, study.reference))
    return numbers.paired(first.by_unit, second.by_unit), first.unit


def overview(study: StudyResults) -> Table:
    """One row a pattern: what it costs and what it scores."""
    picked = (COST[0], COST[2], LANGUAGE_MODEL[2])
    rows = tuple(
        (
            Value(pattern, code=True),
            *(_measured(study, pattern, measure) for measure in picked),
            *_overview_scores(study, pattern),
        )
        for pattern in study.patterns
    )
    columns = (
        "pattern",
        *(measure.heading for measure in picked),
        *(f"{name} test {numbers.metric(study.metric(name))}, %" for name in study.tasks),
    )
    return Table(
        "At a glance", columns, rows, f"Small print: against the reference `{study.reference}`."
    )


def _overview_scores(study: StudyResults, pattern: str) -> Iterable[Value]:
    for name in study.tasks:
        found = study.score(name, pattern, PRETRAINED).estimate
        if found is None:
            absent = study.absence("finetuning", name, pattern=pattern, start=PRETRAINED)
            yield Value(absent)
            continue
        against = difference_to_reference(study, name, pattern)
        note = "" if against.number is None else f"{against.text} points"
        yield Value(numbers.percent(found.mean), note, found.mean)
