"""Fine-tuning: how well the encoders do on the tasks of a study."""

import dataclasses
import functools
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from undivided_tf import accounting
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Finding, Section, Table, Value, code, number
from undivided_tf.reporting.formatting import Estimate
from undivided_tf.reporting.layout import slug
from undivided_tf.study import budgets
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import (
    FAILED,
    NOT_RUN,
    START_SECONDS,
    Cell,
    Kind,
    Row,
    Speed,
    compilation_seconds,
)
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    ACCURACY_MARGIN,
    NOT_SUPPORTED,
    NOT_WORSE,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Scores,
    Verdict,
    not_worse,
    points,
)
from undivided_tf.study.results import PRETRAINED, SCRATCH, StudyResults

CHAPTER = "Fine-tuning tasks"
NOT_ASKED = "not asked for"  # By the config, though it asks for other patterns.
# Tasks that do not respond to pre-training in encoders below this size (Turc et al. 2019, arXiv
# 1908.08962).
CONTROLS, RESPONDING_PARAMETERS = ("cola", "rte", "mrpc"), 25e6


class Finetuning(Kind):
    """One cell for each encoder and task; at equal steps some from random weights, too."""

    name = section = "finetuning"
    title = "Fine-tuning"
    call = "undivided_tf.training.finetuning:finetune"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        for arm, encoder in encoders.items():
            # Random weights do not depend on the pre-training seed: once a pattern is enough.
            bare = (
                arm.seed == config.seed
                and arm.at_equal_steps
                and arm.pattern in config.from_scratch
            )
            for task in config.tasks:
                label = {"pattern": arm.pattern, "pretraining_seed": arm.seed, "task": task}
                for start in (PRETRAINED, SCRATCH) if bare else (PRETRAINED,):
                    recipe = config.finetuning.replace(
                        task=task, seed=config.seed, from_scratch=start == SCRATCH
                    )
                    label_here = {**label, "start": start, **arm.extra}
                    place = {"init_checkpoint": encoder}
                    yield Cell(self, label_here, recipe, place, turn=encoder.turn)

    def seconds(self, cell: Cell, speed: Speed) -> float:
        recipe, counts = cell.recipe, speed.rows[cell.recipe.task]
        forward = accounting.forward_flops(cell.encoder, recipe.max_seq_length)
        train = min(counts["train"], recipe.max_train_rows or counts["train"])
        scored = sum(count for split, count in counts.items() if split != "train")
        flops = forward * (3 * recipe.num_train_epochs * train + 2 * scored)
        return self.starting_seconds(cell) + recipe.num_runs * flops / speed.flops_per_second

    def starting_seconds(self, cell: Cell) -> float:
        return START_SECONDS + cell.recipe.num_runs * compilation_seconds(cell.encoder)

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        split = result["split"]
        yield {"metric": "majority", "value": result["majority"][split]}
        for run in result["runs"]:
            for metric, value in run[split].items():
                if isinstance(value, int | float):
                    yield {"metric": metric, "run": run["seed"], "value": value}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        metric = "accuracy of the fine-tuned encoder, mean of its runs, paired by pre-training seed"
        yield Claim(
            "accuracy kept",
            "Fine-tuning accuracy falls by little.",
            metric,
            ACCURACY_MARGIN,
            NOT_WORSE,
            accuracy,
            "points",
        )
        for budget in budgets.others(config):
            name = budgets.NAMES[budget]
            yield Claim(
                f"accuracy kept at {name}",
                f"At {name} fine-tuning accuracy falls by little.",
                metric,
                ACCURACY_MARGIN,
                NOT_WORSE,
                functools.partial(_accuracy_at, budget),
                "points",
                budgets=(budget,),
            )
            yield Claim(
                f"same verdict at {name}",
                f"The verdict on accuracy at {name} is that at equal steps.",
                "the verdicts on accuracy in both budgets",
                ACCURACY_MARGIN,
                "both are decided, and alike; not supported when they differ",
                functools.partial(_same_verdict, budget),
                budgets=(budgets.STEPS, budget),
            )

    def findings(self, study: StudyResults, pattern: str) -> Iterator[Finding]:
        return (_finding(study, task, pattern) for task in study.tasks)

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        config, bare = study.config.finetuning, study.config.from_scratch
        everyone = bare == study.config.canonical_patterns
        bare = "the same" if everyone else f"{', '.join(bare)} once"
        yield Finding(
            self.title,
            f"{config.num_train_epochs} epochs, batch {config.train_batch_size}, peak learning "
            f"rate {config.learning_rate:g}, {config.pooling} pooling, "
            f"{formatting.plural(config.num_runs, 'run')} an encoder; {bare} again from random "
            "weights. Scores are of the test split.",
        )

    def report(self, study: StudyResults) -> Iterator[Section]:
        from undivided_tf.reporting import finetuning as drawn  # Late: brings matplotlib.

        for task in study.tasks:
            parts = [table(study, task)]
            if results := study.finished("finetuning", task):
                parts.append(
                    Figure(
                        f"task_scores_{slug(task)}",
                        f"Test score on {task}: pre-trained, random weights, majority class",
                        f"Test scores on {task} by pattern, pre-trained and from random weights, "
                        "with the majority class.",
                        functools.partial(drawn.task_scores, results),
                    )
                )
            yield Section(CHAPTER, task, tuple(parts))


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores of one pattern on one task.

    Attributes:
        by_unit: the score of each independent repetition. With several pre-training seeds a
            repetition is an encoder and its score the mean of its fine-tuning runs, since
            runs of one encoder are not independent; otherwise it is a fine-tuning run.
        unit: what a repetition is: `encoder` or `fine-tuning run`.
        runs: every single run, one list a pre-training seed.
    """

    by_unit: dict[int, float]
    unit: str
    runs: list[list[float]]

    @property
    def estimate(self) -> Estimate | None:
        """Mean and interval over the repetitions."""
        return formatting.estimate(self.by_unit.values())


def score(
    study: StudyResults, task: str, pattern: str, start: str = PRETRAINED, metric: str = ""
) -> Score:
    """Scores of a pattern on a task; of the validation split where test has no labels.

    Args:
        study: the results.
        task: name of the task.
        pattern: canonical pattern.
        start: `PRETRAINED` or `SCRATCH`.
        metric: its name; empty: the one that tables show. Runs without it do not count.
    """
    # Random weights depend on the run's seed only, whatever encoder the cell belongs to.
    everyone = study.select("finetuning", study.metric(task), task=task, start=start)
    by_encoder = start == PRETRAINED and everyone["seed"].nunique() > 1  # For all: they are paired.
    metric = metric or study.metric(task)
    rows = study.select("finetuning", metric, pattern=pattern, task=task, start=start)
    units = rows.groupby("seed" if by_encoder else "run", sort=False)["value"]
    return Score(
        {unit: statistics.fmean(values) for unit, values in units},
        "encoder" if by_encoder else "fine-tuning run",
        [values.tolist() for _, values in rows.groupby("cell", sort=False)["value"]],
    )


def difference(study: StudyResults, task: str, pattern: str) -> tuple[Estimate | None, str]:
    """Test score of a pattern minus the reference's, paired by seed, and what a pair is."""
    arm, reference = (score(study, task, p) for p in (pattern, study.reference))
    return formatting.paired(arm.by_unit, reference.by_unit), arm.unit


def difference_to_reference(study: StudyResults, task: str, pattern: str) -> Value:
    """`difference` in a table."""
    if pattern == study.reference:
        return Value("reference")
    gap, unit = difference(study, task, pattern)
    if gap is not None:
        return _estimated(gap, formatting.points, unit)
    absences = (
        study.absence("finetuning", task=task, pattern=p, start=PRETRAINED)
        for p in (pattern, study.reference)
    )
    return Value(FAILED if FAILED in absences else "no common seed")


def short_score(study: StudyResults, task: str, pattern: str) -> Value:
    """The mean score, and its difference to the reference as small print."""
    estimate = score(study, task, pattern).estimate
    if estimate is None:
        return Value(study.absence("finetuning", task=task, pattern=pattern, start=PRETRAINED))
    against = difference_to_reference(study, task, pattern)
    note = "" if against.number is None else f"{against.text} points"
    return number(estimate.mean, formatting.percent, note)


def table(study: StudyResults, task: str) -> Table:
    """Scores of each pattern on a task: pre-trained, from random weights, majority."""
    majority = next(iter(study.values("finetuning", "majority", task=task)), None)
    results = study.finished("finetuning", task)
    no_classes = any(not result["labels"] for result in results)
    rows = []
    for pattern in study.patterns:
        starts = (PRETRAINED, SCRATCH)
        pretrained, scratch = (score(study, task, pattern, start) for start in starts)
        failures = [
            study.failures("finetuning", task=task, pattern=pattern, start=start)
            for start in starts
        ]
        absent, scratch_absent = (FAILED if n else NOT_RUN for n in failures)
        is_included = pattern in study.config.from_scratch
        scratch_absent = scratch_absent if is_included else NOT_ASKED
        rows.append(
            (
                code(pattern),
                _score(pretrained, failures[0]),
                _score(scratch, failures[1]) if is_included else Value(scratch_absent),
                Value(study.absence("finetuning", task=task))
                if majority is None
                else number(majority, formatting.percent),
                difference_to_reference(study, task, pattern),
                Value("no classes")
                if no_classes
                else _score(score(study, task, pattern, metric="f1_macro"), failures[0]),
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
    return Table(f"Task {task}", columns, tuple(rows), _note(study, task, results))


def _note(study: StudyResults, task: str, results: list[dict[str, Any]]) -> str:
    metric = formatting.metric(study.metric(task))
    note = (
        f"{'A control, which decides nothing. ' if is_control(study, task) else ''}"
        f"{metric[0].upper() + metric[1:]}; small print: 95 % t interval over n runs, or over n "
        "encoders, each the mean of its runs."
    )
    for result in results[:1]:
        split = result["split"]
        test = result["rows"][split]
        note += (
            f" {formatting.count(result['rows']['train'])} training rows, "
            f"{formatting.count(test)} {split} rows, {len(result['labels'])} labels."
        )
        estimate = score(study, task, result["pattern"], result["start"]).estimate
        if metric == "accuracy" and estimate is not None:
            half = formatting.binomial_half_width(estimate.mean, test)
            note += (
                f" The sampling of the {split} rows alone makes an accuracy of "
                f"{formatting.percent(estimate.mean)} % uncertain by "
                f"± {formatting.decimals(100 * half, 1)} points; the intervals leave this out."
            )
    return note


def _runs(scores: Score) -> str:
    """Every run; a semicolon stands between pre-training seeds."""
    return "; ".join(" ".join(map(formatting.percent, runs)) for runs in scores.runs)


def _score(scores: Score, failures: int) -> Value:
    if scores.estimate is None:
        return Value(FAILED if failures else NOT_RUN)
    value = _estimated(scores.estimate, formatting.percent, scores.unit)
    if failures:
        value = dataclasses.replace(value, note=f"{value.note}, {failures} failed")
    return value


def _estimated(estimate: Estimate, show: Callable[[float], str], unit: str) -> Value:
    note = f"n = {estimate.n} {unit.split()[-1]}{'s' if estimate.n > 1 else ''}"
    if estimate.interval:
        note = f"{formatting.between(estimate.interval, show)}, {note}"
    return Value(show(estimate.mean), note, estimate.mean)


def accuracy(study: StudyResults, pattern: str) -> Verdict:
    """Verdict on "fine-tuning accuracy falls by little" in the budget of the results."""

    def scores(task: str, of: str):
        return study.by_seed(
            "finetuning", study.metric(task), task=task, pattern=of, start=PRETRAINED
        )

    comparisons = {
        task: Scores(
            scores(task, pattern),
            scores(task, study.reference),
            _floor(study, task),
            is_control(study, task),
        )
        for task in study.tasks
    }
    margin = study.config.accuracy_margin
    return not_worse(comparisons, margin, points(margin, "accuracy"))


def _floor(study: StudyResults, task: str) -> float:
    """The score of a constant answer, or of the reference from random weights if it is higher."""
    majority = study.values("finetuning", "majority", task=task)[:1]
    bare = score(study, task, study.reference, SCRATCH).estimate
    return max([*majority, *([bare.mean] if bare else [])], default=0.0)


def is_control(study: StudyResults, task: str) -> bool:
    """Whether a task is one of `CONTROLS`, and the encoders are too small for it."""
    parameters = study.mean("pretraining", "parameters", pattern=study.reference)
    small = parameters is not None and parameters < RESPONDING_PARAMETERS
    return small and not {*re.split("[^a-z]+", task.lower())}.isdisjoint(CONTROLS)


def _accuracy_at(budget: str, study: StudyResults, pattern: str) -> Verdict:
    if pattern not in budgets.compared(study.config):
        return Verdict(UNDERPOWERED, "not compared in this budget")
    return accuracy(study.seen_as(budget, study.size), pattern)


def _same_verdict(budget: str, study: StudyResults, pattern: str) -> Verdict:
    before, after = accuracy(study, pattern), _accuracy_at(budget, study, pattern)
    reason = f"at equal steps {before.status}; at {budgets.NAMES[budget]} {after.status}"
    if UNDERPOWERED in (before.status, after.status):
        return Verdict(UNDERPOWERED, reason)
    return Verdict(SUPPORTED if before.status == after.status else NOT_SUPPORTED, reason)


def _finding(study: StudyResults, task: str, pattern: str) -> Finding:
    estimate = score(study, task, pattern).estimate
    if estimate is None:
        absent = study.absence("finetuning", task=task, pattern=pattern, start=PRETRAINED)
        return Finding(task, f"No finished fine-tuning ({absent}).")
    text = f"Test {formatting.metric(study.metric(task))} {formatting.percent(estimate.mean)} %"
    if pattern != study.reference:
        gap, unit = difference(study, task, pattern)
        if gap is None:
            text += "; no seed is finished for both it and the reference"
        else:
            moved = formatting.compared(gap.mean, "above", "below", formatting.percent, "points")
            interval = formatting.uncertainty(gap, unit, formatting.points)
            text += f", {moved} the reference ({interval})"
    majority = study.values("finetuning", "majority", task=task)[0]
    is_included = pattern in study.config.from_scratch
    bare = score(study, task, pattern if is_included else study.reference, SCRATCH).estimate
    text += f". The majority class gives {formatting.percent(majority)} %"
    encoder = f"{'the same encoder' if is_included else 'the reference'} from random weights"
    if bare is None:
        return Finding(task, f"{text}; {encoder} has no finished run.")
    return Finding(task, f"{text}, {encoder} {formatting.percent(bare.mean)} %.")
