"""Tables that set cost and scores of all kinds side by side: patterns, budgets, sizes."""

import functools
import statistics
from collections.abc import Iterator
from typing import Any

from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Figure, Section, Table, Text, Value, code, number
from undivided_tf.reporting.layout import slug
from undivided_tf.study import budgets
from undivided_tf.study.kinds import finetuning, pretraining
from undivided_tf.study.kinds.pretraining import COST_CHAPTER
from undivided_tf.study.results import StudyResults


def overview(study: StudyResults) -> Table:
    """One row a pattern: what it costs and what it scores."""
    measures = (pretraining.PARAMETERS, pretraining.STEP_TIME, pretraining.LOSS)
    rows = tuple(
        (
            code(pattern),
            *(pretraining.measured(study, pattern, measure) for measure in measures),
            *(finetuning.short_score(study, task, pattern) for task in study.tasks),
        )
        for pattern in study.patterns
    )
    columns = (
        "pattern",
        *(measure.heading for measure in measures),
        *(f"{name} test {formatting.metric(study.metric(name))}, %" for name in study.tasks),
    )
    note = f"Small print: against the reference `{study.reference}`."
    return Table("At a glance", columns, rows, note)


def sections(study: StudyResults) -> Iterator[Section]:
    """Other budgets, other sizes, and quality against cost."""
    from undivided_tf.reporting.pretraining import quality_against_cost  # Late: matplotlib.

    if budgets.others(study.config):
        parts = (other_budgets(study), *map(Text, budgets.infeasible(study.config)))
        yield Section(COST_CHAPTER, "With other budgets", parts)
    for size in study.config.sizes:
        table = overview(study.seen_as(size=size))
        table = Table(f"Size {size}", table.columns, table.rows, table.note)
        yield Section(COST_CHAPTER, f"Size {size}", (table,))
    figures = tuple(
        Figure(
            f"quality_{slug(task)}",
            f"Score on {task} against parameters, training FLOPs, training time and latency",
            f"Scores on {task} over four costs, one point a pattern and budget; dotted lines mark "
            "the full model.",
            functools.partial(quality_against_cost, points),
        )
        for task in study.tasks
        if (points := quality(study, task))
    )
    yield Section(COST_CHAPTER, "Quality against cost", figures)


def other_budgets(study: StudyResults) -> Table:
    """One row for each pattern and budget: what it cost beside the reference, and its scores."""
    names = (budgets.STEPS, *budgets.others(study.config))
    rows = tuple(
        (
            code(pattern),
            Value(budgets.NAMES[budget]),
            *_costs(study.seen_as(budget, study.size), pattern),
        )
        for pattern in budgets.compared(study.config)
        for budget in names
    )
    columns = (
        "pattern",
        "budget",
        "parameters",
        "steps",
        "training FLOPs",
        "training time",
        "held-out MLM loss, nats",
        *(f"{name} {formatting.metric(study.metric(name))}, %" for name in study.tasks),
    )
    note = (
        f"Small print: ratio of each cost to that of the reference `{study.reference}` at equal "
        "steps, and difference of each score, paired by seed."
    )
    return Table("The same patterns with other budgets", columns, rows, note)


def _costs(view: StudyResults, pattern: str) -> Iterator[Value]:
    for metric, show in (
        ("parameters", formatting.count),
        ("steps", formatting.count),
        ("training_flops", formatting.large),
        ("training_seconds", formatting.duration),
        ("validation_loss", formatting.loss),
    ):
        rows = view.select("pretraining", metric, pattern=pattern)
        reference_mean = view.mean("pretraining", metric, pattern=view.reference)
        if rows.empty:
            yield Value(view.absence("pretraining", pattern=pattern))
        elif rows["value"].isna().any():
            yield Value("not timed")
        else:
            mean = statistics.fmean(rows["value"])
            against = "" if reference_mean is None else formatting.ratio(mean, reference_mean)
            yield number(mean, show, "" if metric == "validation_loss" else against)
    for task in view.tasks:
        yield finetuning.short_score(view, task, pattern)


def quality(study: StudyResults, task: str) -> list[dict[str, Any]]:
    """Score and cost of every pattern in every budget, the reference at equal steps first.

    Returns:
        One dict for each that is finished: `pattern`, `budget`, `score` and the metrics of
        `reporting.pretraining.COSTS`, means over encoders. Encoders whose steps were not timed are
        left out. Empty without the reference.
    """
    from undivided_tf.reporting.pretraining import COSTS

    rows = []
    for budget in (budgets.STEPS, *budgets.others(study.config)):
        view = study.seen_as(budget, study.size)
        for pattern in view.patterns if budget == budgets.STEPS else view.reduced:
            score = finetuning.score(view, task, pattern).estimate
            costs = {key: view.mean("pretraining", key, pattern=pattern) for key, _ in COSTS}
            if score is not None and None not in costs.values():
                rows.append({"pattern": pattern, "budget": budget, "score": score.mean, **costs})
    return rows if rows and rows[0]["pattern"] == study.reference else []
