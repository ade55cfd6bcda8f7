"""The section of a report on compute multipliers: its figures, sentences and tables."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import (
    Bullets,
    Figure,
    Section,
    Table,
    Text,
    Value,
    code,
    number,
)
from undivided_tf.study import budgets, judging, worth
from undivided_tf.study.multipliers import (
    BLOCKS_ARE,
    Comparison,
    JudgedArm,
    annealed,
    crossovers,
    interval,
    judged_arms,
    sentence,
    views,
)
from undivided_tf.study.results import StudyResults
from undivided_tf.study.worth.verdicts import UNDECIDED

CHAPTER = "What intermediate blocks are worth"
_HEADLINE = (
    "at the largest budget with a known multiplier that is decided or whose interval has both ends"
)
_BETWEEN = 40  # Budgets between the trained ones at which the figure has a multiplier.


def section(study: StudyResults) -> Section:
    """Loss over compute, the verdict on each arm, the multipliers, and what sizes change."""
    arms = judged_arms(study)
    parts = [
        *_loss_figure(study),
        _together([sentence(arm) for arm in arms], stress=True),
        *_multiplier_figure(study, arms),
    ]
    if changes := crossovers(arms):
        parts.append(_together(changes))
    return Section(CHAPTER, "", (*parts, table(study, arms), *_joint_fit(study, arms)))


def _together(sentences: Sequence[str], stress: bool = False) -> Text | Bullets:
    """One sentence, or a list of several."""
    if len(sentences) == 1:
        return Text(sentences[0], stress)
    return Bullets(tuple(sentences), stress)


# === Figures ===


def _loss_figure(study: StudyResults) -> Iterator[Figure]:
    from undivided_tf.reporting import worth as drawn  # Late: brings matplotlib.

    curves: dict[str, dict[str, Any]] = {}
    for view in views(study):
        curves.setdefault(_panel(view), {}).update(_loss_bands(view))
    if not any(curves.values()):
        return
    lines = {
        name: min(values)
        for name, metric in (
            (drawn.NEIGHBOURS, "annealed_neighbour_model_loss"),
            (drawn.UNIGRAMS, "unigram_entropy"),
        )
        if (values := study.values("pretraining", metric))
    }
    yield Figure(
        "loss_over_compute",
        "Held-out loss over training compute: mean, lowest and highest of the seeds, each "
        "point annealed to the end of its budget",
        f"Curves of held-out MLM loss over training FLOPs for {', '.join(study.patterns)}"
        f"{_panels(curves)}; horizontal lines mark {' and '.join(lines)}.",
        functools.partial(drawn.loss_over_compute, study.patterns, curves, lines),
    )


def _multiplier_figure(study: StudyResults, arms: Sequence[JudgedArm]) -> Iterator[Figure]:
    from undivided_tf.reporting import worth as drawn  # Late: brings matplotlib.

    bands: dict[str, dict[str, Any]] = {}
    marked: dict[str, dict[str, Any]] = {}
    for arm in arms:
        learnt = [c.multiplier for c in arm.comparisons if c.verdict.name != judging.NO_VERDICT]
        panel, label = _panel(arm.view), _label(arm.view, arm.pattern)
        in_panel = bands.setdefault(panel, {})
        if band := _multiplier_band(arm, [multiplier.budget for multiplier in learnt]):
            in_panel[label] = band
            marked.setdefault(panel, {})[label] = [
                (multiplier.budget, multiplier.value)
                for multiplier in learnt
                if not math.isnan(multiplier.value)
            ]
    if any(bands.values()):
        yield Figure(
            "compute_multipliers",
            "Compute multiplier over training compute, with its 95 % interval and the margins; "
            "markers are the budgets of the reference, a dotted line is the only end of the "
            "interval that is known",
            f"Curves of the compute multiplier over the training FLOPs of {study.reference} "
            f"for {', '.join(study.reduced)}{_panels(bands)}, with the two margins.",
            functools.partial(
                drawn.multipliers, study.patterns, bands, marked, study.config.worth_margins
            ),
        )


def _panel(view: StudyResults) -> str:
    """Title of the panel of a size; empty where there is only one."""
    return f"size {view.config.size_name(view.size)}" if view.config.sizes else ""


def _panels(titles: Sequence[str]) -> str:
    return f", a panel each for {', '.join(titles)}" if any(titles) else ""


def _label(view: StudyResults, pattern: str) -> str:
    """An arm in a legend."""
    if view.budget == budgets.STEPS or pattern == view.reference:
        return pattern
    if partner := budgets.partner_pattern(view.config, pattern, view.budget, view.size):
        return f"{pattern}, grown to {partner}"
    return f"{pattern}, {budgets.legend_name(budgets.NAMES[view.budget])}"


def _loss_bands(view: StudyResults) -> dict[str, list[tuple[float, ...]]]:
    """Of each arm, by steps: FLOPs, and mean, lowest and highest loss over seeds."""
    points = {_label(view, pattern): annealed(view, pattern) for pattern in view.patterns}
    return {
        label: [
            (
                rows["training_flops"].mean(),
                rows["loss"].mean(),
                rows["loss"].min(),
                rows["loss"].max(),
            )
            for _, rows in of_arm.groupby(level="run")
        ]
        for label, of_arm in points.items()
        if len(of_arm)
    }


def _multiplier_band(arm: JudgedArm, learnt: Sequence[float]) -> list[tuple[float, ...]]:
    """Multipliers at and between the budgets at which the reference has learnt.

    One that lies beyond the arm's curve is NaN with the end of its interval that is known.
    """
    if not learnt:
        return []
    compute = np.unique([*learnt, *np.geomspace(min(learnt), max(learnt), _BETWEEN)])
    return [
        (multiplier.budget, multiplier.value, multiplier.low, multiplier.high)
        for multiplier in arm.multipliers(compute.tolist())
        if multiplier.is_bounded
    ]


# === Tables ===


def headlines(study: StudyResults) -> Table:
    """The multiplier and the verdict that a sentence is about: a row an arm, a column a size."""
    rows: dict[Any, dict[str, Value]] = {}
    sizes: dict[str, None] = {}
    for arm in judged_arms(study):
        size = study.config.size_name(arm.view.size)
        sizes[size] = None
        values = rows.setdefault((arm.view.budget, arm.pattern), {"": _in_table(arm)})
        values[size] = _headline(arm)
    note = (
        f"Times the training compute of `{study.reference}` for the same held-out loss, with its "
        f"95 % interval, {_HEADLINE}. The verdict is on the blocks that a pattern lacks: harmful "
        "blocks cost more compute than they are worth."
    )
    return Table(
        "Compute multipliers at a glance",
        ("pattern", *(f"size {size}" for size in sizes)),
        tuple(
            (values[""], *(values.get(size, Value("not run")) for size in sizes))
            for values in rows.values()
        ),
        note,
    )


def _headline(arm: JudgedArm) -> Value:
    comparison = arm.headline
    if comparison is None or not comparison.multiplier.is_bounded:
        return Value(comparison.verdict.name if comparison else UNDECIDED)
    multiplier, verdict = comparison.multiplier, comparison.verdict.name
    if verdict in BLOCKS_ARE:
        verdict = f"blocks {BLOCKS_ARE[verdict]}"
    if math.isnan(multiplier.value):
        return Value(f"{interval(multiplier)}: {verdict}")
    text = f"{formatting.multiplier(multiplier.value)} ({interval(multiplier)}): {verdict}"
    return Value(text, number=multiplier.value)


def table(study: StudyResults, arms: Sequence[JudgedArm]) -> Table:
    """One row for each arm and budget of the reference."""
    several = bool(study.config.sizes)
    rows = tuple(
        (
            _in_table(arm),
            *([Value(study.config.size_name(arm.view.size))] if several else []),
            *_row(comparison),
        )
        for arm in arms
        for comparison in arm.comparisons
    )
    columns = (
        "pattern",
        *(["size"] if several else []),
        "training FLOPs",
        "multiplier",
        "95 % interval",
        "verdict",
        "seeds needed",
        "seeds",
        "steps",
        "held-out loss, nats",
    )
    low, high = study.config.worth_margins
    validity = (
        "Intervals hold under all looks that the study may take, while it adds seeds"
        if study.config.until_decided
        else "Each interval is for its budget alone"
    )
    note = (
        f"How many times the training compute of `{study.reference}` a pattern needs for the same "
        "held-out loss; FLOPs, steps and loss are the reference's. Nothing is extrapolated. "
        f"{validity}. The margins {low:g} and {high:g} were set before the run: the blocks that a "
        "pattern lacks are worth their compute if the interval lies above both, harmful below "
        f"both, dispensable between them, else undecided. The sentence above is {_HEADLINE}."
    )
    return Table("Compute multipliers", columns, rows, note)


def _in_table(arm: JudgedArm) -> Value:
    """An arm, its budget in small print."""
    view, pattern = arm.view, arm.pattern
    if view.budget == budgets.STEPS:
        return code(pattern)
    if partner := budgets.partner_pattern(view.config, pattern, view.budget, view.size):
        return dataclasses.replace(code(partner), note=f"equal parameters, grown from {pattern}")
    return dataclasses.replace(code(pattern), note=budgets.NAMES[view.budget])


def _row(comparison: Comparison) -> tuple[Value, ...]:
    multiplier, verdict = comparison.multiplier, comparison.verdict
    needed, known = verdict.seeds_needed, not math.isnan(multiplier.value)
    return (
        number(multiplier.budget, formatting.large),
        number(multiplier.value, formatting.multiplier) if known else Value("not known"),
        Value(interval(multiplier) if multiplier.is_bounded else "-"),
        # The reason that a known interval covers a margin would repeat the column before.
        Value(verdict.name, multiplier.reason if verdict.name == UNDECIDED else verdict.reason),
        Value("-") if needed is None else number(needed, formatting.count),
        number(multiplier.seeds, formatting.count),
        number(comparison.steps, formatting.count),
        number(comparison.loss, formatting.loss),
    )


def _joint_fit(study: StudyResults, arms: Sequence[JudgedArm]) -> Iterator[Table]:
    """The multipliers of one law for all arms and sizes, beside the interpolated ones."""
    rows = pd.concat(
        [
            annealed(view, pattern)
            .reset_index()
            .assign(
                arm=_label(view, pattern),
                size=study.config.size_name(view.size),
                parameters=parameters,
            )
            for view in views(study)
            for pattern in (view.patterns if view.budget == budgets.STEPS else view.reduced)
            if (parameters := view.mean("pretraining", "parameters", pattern=pattern))
        ]
        or [pd.DataFrame()]
    )
    if rows.empty:
        return
    batch = study.config.pretraining.train_batch_size * study.config.records.max_seq_length
    rows = rows.rename(columns={"training_flops": "flops"}).assign(tokens=rows["run"] * batch)
    try:
        fit = worth.fit_jointly(rows, study.reference)
    except InputError:
        return  # Fewer sizes, budgets or seeds than a fit takes.
    columns = ("pattern", "size", "training FLOPs", "fitted", "interpolated", "agree")
    table_rows = []
    for arm in arms:
        size, label = study.config.size_name(arm.view.size), _label(arm.view, arm.pattern)
        compute = arm.reference_points.groupby("run")["training_flops"].mean()
        try:
            compared = fit.compare(label, size, compute)
        except InputError as error:  # An unfinished arm may have too few seeds.
            unknown = Value("not known", str(error))
            table_rows.append((code(label), Value(size), *[Value("-")] * 2, unknown, Value("-")))
            continue
        for row in compared.itertuples():
            multipliers = (
                Value("not known")
                if math.isnan(value)
                else number(
                    value, formatting.multiplier, formatting.between(ends, formatting.multiplier)
                )
                for value, *ends in (
                    (row.fitted, row.fitted_low, row.fitted_high),
                    (row.interpolated, row.interpolated_low, row.interpolated_high),
                )
            )
            known = not math.isnan(row.fitted) and not math.isnan(row.interpolated)
            agree = Value(("yes" if row.agree else "no") if known else "-")
            budget = number(row.budget, formatting.large)
            table_rows.append((code(label), Value(size), budget, *multipliers, agree))
    law = fit.coefficients.iloc[0]
    note = (
        "One law for all arms and sizes, L = E + A N^-a + B D^-b (parameters N, tokens D): "
        f"E = {law['E']:.2f} nats, a = {law['a']:.2f}, b = {law['b']:.2f}; p = "
        f"{fit.p_separate:.3f} of equal exponents; residuals of log losses up to "
        f"{fit.points['residual'].abs().max():.4f}. Small print: 95 % intervals. They agree when "
        "each covers the other's value."
    )
    yield Table("The joint fit beside interpolation", columns, tuple(table_rows), note)
