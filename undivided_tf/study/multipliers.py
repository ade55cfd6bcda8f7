"""What the intermediate blocks of a study are worth in training compute.

A study whose pre-trainings have branches (`pretraining.cooldown_steps`) has a loss-compute curve
for each pattern and seed. This module judges the compute multiplier of each pattern and lays out
its part of the report. Needs no TensorFlow.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
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
from undivided_tf.study.config import PARTNERS, StudyConfig
from undivided_tf.study.results import StudyResults
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, UNDECIDED, WORTH

CHAPTER = "What intermediate blocks are worth"
_BLOCKS_ARE = {
    WORTH: "are worth their compute",
    DISPENSABLE: "are dispensable",
    HARMFUL: "are harmful",
}
LEVEL = 0.95  # Of intervals; of a study that adds seeds, of all looks together.
ADDED_SEEDS = 2
_SAME_END = 0.05  # Of the training FLOPs of two curves, as a share.
_BETWEEN = 40  # Budgets between the trained ones at which the figure has a multiplier.


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A pattern against the reference at one budget of the reference.

    Attributes:
        steps: of the reference.
        loss: mean held-out loss of the reference, in nats.
        multiplier: the pattern's; NaN with a reason where it is not known.
        verdict: of `worth.judge`, or `judging.NO_VERDICT` or `judging.DID_NOT_LEARN`.
    """

    steps: int
    loss: float
    multiplier: worth.Multiplier
    verdict: worth.Verdict


def asked(config: StudyConfig) -> bool:
    """Whether a study has loss-compute curves to compare."""
    return bool(config.pretraining.cooldown_steps) and len(config.patterns) > 1


def annealed(study: StudyResults, pattern: str) -> pd.DataFrame:
    """The annealed points of an arm; one of equal steps has those of equal training FLOPs, too.

    Returns:
        A row for each seed and budget, its index `seed` and `run` (steps); columns
        `training_flops`, `loss` and, where they are known, `neighbour_model_loss` and `learnt`.
    """
    views = [study]
    plain = study.budget == budgets.STEPS and pattern != study.reference
    if plain and budgets.FLOPS in study.config.budgets:
        views.append(study.seen_as(budgets.FLOPS, study.size))
    rows = pd.concat([view.select("pretraining", pattern=pattern) for view in views])
    rows = rows[rows["metric"].str.startswith("annealed_")]
    # A run of equal FLOPs may have a branch of as many steps as one of equal steps: their mean.
    wide = rows.pivot_table(index=["seed", "run"], columns="metric", values="value")
    wide = wide.rename(columns=lambda name: name.removeprefix("annealed_"))
    return wide.reindex(columns=["training_flops", "loss", "neighbour_model_loss", "learnt"])


def compare(study: StudyResults, pattern: str) -> list[Comparison]:
    """A pattern against the reference at each budget of the reference, by rising budget.

    There is no verdict at a budget at which an encoder of the reference is not below the
    neighbour model. Where all are, and an encoder of the pattern is not at the end of its run,
    the pattern did not learn.
    """
    full, own = annealed(study, study.reference), annealed(study, pattern)
    means = full.groupby("run")[["training_flops", "loss"]].mean().sort_index()
    known = full["learnt"].dropna().groupby("run").agg(list)
    found = _multipliers(full, own, means["training_flops"].tolist(), study.config)
    compared = []
    for steps, loss, one in zip(means.index, means["loss"], found, strict=True):
        if reason := judging.unlearnt(known.get(steps, [])):
            reason = f"the reference has not learnt at this budget: {reason}"
            verdict = worth.Verdict(judging.NO_VERDICT, reason=reason)
        elif reason := judging.not_learnt(study, pattern):
            reason = f"the reference has learnt, the pattern has not by its end: {reason}"
            verdict = worth.Verdict(judging.DID_NOT_LEARN, reason=reason)
        else:
            verdict = worth.judge(one, study.config.worth_margins)
        compared.append(Comparison(steps, loss, one, verdict))
    return compared


def _multipliers(
    full: pd.DataFrame, own: pd.DataFrame, compute: Sequence[float], config: StudyConfig
) -> list[worth.Multiplier]:
    seeds = min(len(points.index.unique("seed")) for points in (full, own))
    if not compute:
        return []
    level = _level(config, seeds)
    if seeds < judging.MIN_PAIRS:
        reason = f"seeds: {seeds}, an interval takes {judging.MIN_PAIRS}"
        nan = math.nan
        return [worth.Multiplier(c, nan, nan, nan, level, seeds, reason) for c in compute]
    return worth.compute_multiplier(_curves(full), _curves(own), compute, level)


def looks(config: StudyConfig) -> tuple[int, ...]:
    """Numbers of seeds at which a study that is `until_decided` looks at its intervals."""
    return tuple(range(config.num_pretraining_seeds, config.max_seeds + 1, ADDED_SEEDS))


def _level(config: StudyConfig, seeds: int) -> float:
    """Nominal level of an interval: 95 %, or of the look that so many seeds are at or before."""
    if not config.until_decided:
        return LEVEL
    planned = looks(config)
    taken = next((i for i, look in enumerate(planned, 1) if seeds <= look), len(planned))
    return worth.look_levels(planned[:taken], config.max_seeds, LEVEL)[-1]


def _curves(points: pd.DataFrame) -> dict[int, np.ndarray]:
    """Points (training FLOPs, loss) by seed."""
    return {
        seed: rows[["training_flops", "loss"]].to_numpy()
        for seed, rows in points.groupby(level="seed")
    }


def headline(found: Sequence[Comparison]) -> Comparison | None:
    """The comparison that a pattern's sentence is about; None where there is none.

    The one at the largest budget that has a verdict, or whose interval is undecided although both
    its ends are known. Where there is none, at the largest whose multiplier is known, else at the
    largest. Budgets at which the reference has learnt come before those at which it has not.
    """
    learnt = [one for one in found if one.verdict.name != judging.NO_VERDICT]
    told = [one for one in learnt if one.verdict.name != UNDECIDED or not one.multiplier.reason]
    known = [one for one in learnt if not math.isnan(one.multiplier.value)]
    return (told or known or learnt or [*found] or [None])[-1]


def sentence(study: StudyResults, pattern: str) -> str:
    """The verdict on a pattern, in a sentence with backticks."""
    one = headline(compare(study, pattern))
    arm = name(study, pattern)
    if one is None:
        return f"{arm}: {UNDECIDED}, no encoder of `{study.reference}` is pre-trained."
    verdict, multiplier = one.verdict, one.multiplier
    budget = f"{formatting.large(multiplier.budget)} training FLOPs of `{study.reference}`"
    if math.isnan(multiplier.value) or verdict.name in (judging.NO_VERDICT, judging.DID_NOT_LEARN):
        return f"{arm}: {verdict.name} at {budget}, since {verdict.reason}."
    text = (
        f"{arm} needs {_number(multiplier.value)} times (95 % interval "
        f"{interval(multiplier)}) the training compute of `{study.reference}` for the same "
        f"held-out loss at {budget}: "
    )
    if verdict.name in _BLOCKS_ARE:
        return f"{text}the blocks that it lacks {_BLOCKS_ARE[verdict.name]}."
    needed = f"; {verdict.seeds_needed} seeds in all would decide" if verdict.seeds_needed else ""
    since = f", since {multiplier.reason}" if multiplier.reason else ""
    return f"{text}{UNDECIDED}{since}{needed}."


def interval(multiplier: worth.Multiplier) -> str:
    """The interval of a multiplier that is known; an end that leaves the arm's curve is open."""
    low, high = multiplier.low, multiplier.high
    if low > 0 and math.isfinite(high):
        return f"{_number(low)} to {_number(high)}"
    if low > 0:
        return f"above {_number(low)}"
    return f"below {_number(high)}" if math.isfinite(high) else "not bounded"


def _number(value: float) -> str:
    return formatting.decimals(value, 2)


def views(study: StudyResults) -> list[StudyResults]:
    """The study at each of its sizes that has begun, the first size first.

    For each size, the patterns of equal steps, then their partners of equal parameters.
    """
    partners = [budget for budget in budgets.others(study.config) if budget in PARTNERS]
    found = [
        study.seen_as(budget, size)
        for size in ("", *study.config.sizes)
        for budget in (budgets.STEPS, *partners)
    ]
    return [view for view in found if not annealed(view, view.reference).empty] or found[:1]


def name(view: StudyResults, pattern: str) -> str:
    """An arm in a sentence: its pattern in backticks, its budget, and its size among several."""
    arm = _in_text(view.config, pattern, view.budget, view.size)
    size = f" at size {view.config.size_name(view.size)}" if view.config.sizes else ""
    return arm + size


def _in_text(config: StudyConfig, pattern: str, budget: str, size: str) -> str:
    if budget == budgets.STEPS:
        return f"`{pattern}`"
    same, _, spent = budgets.NAMES[budget].partition(", ")
    if partner := budgets.partner_pattern(config, pattern, budget, size):
        return f"`{partner}` (`{pattern}` grown to {same})"
    return f"`{pattern}` at {same}" + (f" ({spent})" if spent else "")


def sentences(study: StudyResults) -> list[str]:
    """The verdicts on all arms, then what changes over compute, each with backticks."""
    return [*verdicts(study), *_leads(study)]


def verdicts(study: StudyResults) -> list[str]:
    """The verdict on each arm at each size at which it has begun, a sentence each."""
    return [sentence(view, pattern) for view in views(study) for pattern in _begun(view)]


def _begun(view: StudyResults) -> list[str]:
    """The arms beside the reference; a partner of which no run has ended is left out."""
    plain = view.budget == budgets.STEPS
    return [one for one in view.reduced if plain or not annealed(view, one).empty]


def _leads(study: StudyResults) -> list[str]:
    """What changes over compute, of all arms."""
    found = views(study)
    arms = dict.fromkeys((view.budget, pattern) for view in found for pattern in view.reduced)
    return [text for budget, pattern in arms for text in over_compute(study, pattern, budget)]


def over_compute(study: StudyResults, pattern: str, budget: str = budgets.STEPS) -> list[str]:
    """At which compute the better arm changes, a sentence each; none where no interval is known.

    Where the curves of both arms end at the same compute, each arm has its best size at every
    compute. Otherwise, where one arm has no run of a size, the other would lead for that alone, and
    so each size is compared by itself.
    """
    full, own = {}, {}
    for view in views(study):
        points = annealed(view, view.reference), annealed(view, pattern)
        seeds = min(len(one.index.unique("seed")) for one in points)
        if view.budget == budget and seeds >= judging.MIN_PAIRS:
            full[view.size], own[view.size] = points
    ends = [full[size]["training_flops"].max() / own[size]["training_flops"].max() for size in full]
    together = len(full) > 1 and all(abs(end - 1) < _SAME_END for end in ends)
    groups = [list(full)] if together else [[size] for size in full]
    return [
        _crossover(
            study, pattern, budget, *({s: _curves(arm[s]) for s in group} for arm in (full, own))
        )
        for group in groups
    ]


def _crossover(
    study: StudyResults, pattern: str, budget: str, full: dict[str, Any], own: dict[str, Any]
) -> str:
    """Who leads at which compute, with the sizes that are given."""
    first, *others = full
    arm, where = _in_text(study.config, pattern, budget, first), ""
    if study.config.sizes:
        one_size = f" at size {study.config.size_name(first)}"
        where = ", each arm at its best size" if others else one_size
    try:
        found = worth.crossover(full, own, LEVEL)
    except InputError:
        return f"{arm} and `{study.reference}`{where} have no training compute in common."
    low, high = map(formatting.large, found.searched)
    compared = f"{arm} against `{study.reference}`{where}, {low} to {high} training FLOPs"
    if found.value is None:
        leads = {"throughout": arm, "nowhere": f"`{study.reference}`"}[found.arm_leads]
        return f"{compared}: {leads} has the lower loss throughout, so there is no crossover."
    leader = arm if found.arm_leads == "below" else f"`{study.reference}`"
    ends = " to ".join(
        formatting.large(end) if 0 < end < math.inf else "open" for end in (found.low, found.high)
    )
    shown = "" if found.shown else "; not shown, the leads may be noise"
    return (
        f"{compared}: {leader} leads below {formatting.large(found.value)} training FLOPs (95 % "
        f"interval {ends}{shown})."
    )


# === The report ===


def section(study: StudyResults) -> Section:
    """Loss over compute, the verdict on each arm, the multipliers, and what sizes change."""
    from undivided_tf.reporting import worth as drawn  # Late: brings matplotlib.

    panels = list(dict.fromkeys(map(_panel, views(study))))
    parts: list[Any] = []
    curves = _merged((_panel(view), _bands(view)) for view in views(study))
    if any(curves.values()):
        lines = {
            name: min(values)
            for name, metric in (
                (drawn.NEIGHBOURS, "annealed_neighbour_model_loss"),
                (drawn.UNIGRAMS, "unigram_entropy"),
            )
            if (values := study.values("pretraining", metric))
        }
        parts.append(
            Figure(
                "loss_over_compute",
                "Held-out loss over training compute: mean, lowest and highest of the seeds, each "
                "point annealed to the end of its budget",
                f"Curves of held-out MLM loss over training FLOPs for {', '.join(study.patterns)}"
                f"{_told(panels)}; horizontal lines mark {' and '.join(lines)}. The reference's "
                "losses stand in the table below.",
                functools.partial(drawn.loss_over_compute, study.patterns, curves, lines),
            )
        )
    parts += [_together(verdicts(study), stress=True)]
    bands, marked = (
        _merged(
            (_panel(view), {_label(view, p): values(view, p) for p in view.reduced})
            for view in views(study)
        )
        for values in (_multiplier_band, _marked)
    )
    bands = {
        panel: {arm: band for arm, band in found.items() if band} for panel, found in bands.items()
    }
    if any(bands.values()):
        parts.append(
            Figure(
                "compute_multipliers",
                "Compute multiplier over training compute, with its 95 % interval and the margins; "
                "markers are the budgets of the reference",
                f"Curves of the compute multiplier over the training FLOPs of {study.reference} "
                f"for {', '.join(study.reduced)}{_told(panels)}, with the two margins. The values "
                "at the budgets stand in the table below.",
                functools.partial(
                    drawn.multipliers, study.patterns, bands, marked, study.config.worth_margins
                ),
            )
        )
    if leads := _leads(study):
        parts.append(_together(leads))
    return Section(CHAPTER, "", (*parts, table(study), *_joint_fit(study)))


def _together(sentences: Sequence[str], stress: bool = False) -> Text | Bullets:
    """One sentence, or a list of several."""
    if len(sentences) == 1:
        return Text(sentences[0], stress)
    return Bullets(tuple(sentences), stress)


def _panel(view: StudyResults) -> str:
    """Title of the panel of a size; empty where there is only one."""
    return f"size {view.config.size_name(view.size)}" if view.config.sizes else ""


def _told(panels: Sequence[str]) -> str:
    return f", a panel each for {', '.join(panels)}" if any(panels) else ""


def _label(view: StudyResults, pattern: str) -> str:
    """An arm in a legend."""
    if view.budget == budgets.STEPS:
        return pattern
    if partner := budgets.partner_pattern(view.config, pattern, view.budget, view.size):
        return f"{pattern}, grown to {partner}"
    return f"{pattern}, {budgets.legend_name(budgets.NAMES[view.budget])}"


def _merged(found: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What several views show in one panel."""
    panels: dict[str, dict[str, Any]] = {}
    for panel, arms in found:
        panels.setdefault(panel, {}).update(arms)
    return panels


def _bands(view: StudyResults) -> dict[str, list[tuple[float, ...]]]:
    """Of each arm, by steps: FLOPs, and mean, lowest and highest loss over seeds."""
    points = {
        pattern if pattern == view.reference else _label(view, pattern): annealed(view, pattern)
        for pattern in view.patterns
    }
    return {
        pattern: [
            (
                rows["training_flops"].mean(),
                rows["loss"].mean(),
                rows["loss"].min(),
                rows["loss"].max(),
            )
            for _, rows in found.groupby(level="run")
        ]
        for pattern, found in points.items()
        if len(found)
    }


def _marked(view: StudyResults, pattern: str) -> list[tuple[float, float]]:
    """Budgets of the reference at which it has learnt, with the multiplier."""
    return [
        (one.multiplier.budget, one.multiplier.value)
        for one in compare(view, pattern)
        if one.verdict.name != judging.NO_VERDICT and not math.isnan(one.multiplier.value)
    ]


def _multiplier_band(study: StudyResults, pattern: str) -> list[tuple[float, ...]]:
    """Multipliers at and between the budgets from the first on at which the reference learnt."""
    learnt = [
        one.multiplier.budget
        for one in compare(study, pattern)
        if one.verdict.name != judging.NO_VERDICT
    ]
    if not learnt:
        return []
    full, own = annealed(study, study.reference), annealed(study, pattern)
    compute = np.unique([*learnt, *np.geomspace(min(learnt), max(learnt), _BETWEEN)])
    return [
        (one.budget, one.value, one.low, one.high)
        for one in _multipliers(full, own, compute.tolist(), study.config)
        if not math.isnan(one.value)
    ]


def _in_table(view: StudyResults, pattern: str) -> Value:
    """An arm in a table, its budget in small print."""
    if view.budget == budgets.STEPS:
        return code(pattern)
    if partner := budgets.partner_pattern(view.config, pattern, view.budget, view.size):
        return dataclasses.replace(code(partner), note=f"equal parameters, grown from {pattern}")
    return dataclasses.replace(code(pattern), note=budgets.NAMES[view.budget])


def headlines(study: StudyResults) -> Table:
    """The multiplier and the verdict that a sentence is about: a row an arm, a column a size."""
    arms: dict[Any, dict[str, Value]] = {}
    for view in views(study):
        for pattern in _begun(view):
            cells = arms.setdefault((view.budget, pattern), {"": _in_table(view, pattern)})
            cells[study.config.size_name(view.size)] = _headline(compare(view, pattern))
    sizes = list(dict.fromkeys(study.config.size_name(view.size) for view in views(study)))
    rows = tuple(
        (cells[""], *(cells.get(size, Value("not run")) for size in sizes))
        for cells in arms.values()
    )
    note = (
        f"Times the training compute of `{study.reference}` for the same held-out loss, with its "
        "95 % interval, at the largest budget that has a verdict. The verdict is on the blocks "
        "that a pattern lacks: harmful blocks cost more compute than they are worth."
    )
    columns = ("pattern", *(f"size {size}" for size in sizes))
    return Table("Compute multipliers at a glance", columns, rows, note)


def _headline(found: Sequence[Comparison]) -> Value:
    one = headline(found)
    if one is None or math.isnan(one.multiplier.value):
        return Value(one.verdict.name if one else UNDECIDED)
    shown = f"{_number(one.multiplier.value)} ({interval(one.multiplier)})"
    verdict = one.verdict.name
    if verdict in _BLOCKS_ARE:
        verdict = "blocks " + _BLOCKS_ARE[verdict].removeprefix("are ")
    return Value(f"{shown}: {verdict}", number=one.multiplier.value)


def table(study: StudyResults) -> Table:
    """One row for each size, pattern and budget of the reference."""
    several = bool(study.config.sizes)
    rows = tuple(
        (
            _in_table(view, pattern),
            *([Value(study.config.size_name(view.size))] if several else []),
            *_row(one),
        )
        for view in views(study)
        for pattern in _begun(view)
        for one in compare(view, pattern)
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
    looked = (
        "Intervals hold under all looks that the study may take, while it adds seeds"
        if study.config.until_decided
        else "Each interval is for its budget alone"
    )
    note = (
        f"How many times the training compute of `{study.reference}` a pattern needs for the same "
        "held-out loss; FLOPs, steps and loss are the reference's. Nothing is extrapolated. "
        f"{looked}. The margins {low:g} and {high:g} were set before the "
        "run: the blocks that a pattern lacks are worth their compute when the interval lies "
        "above both, harmful below both, dispensable between them; else it is undecided. The "
        "sentence above is of the largest budget that has a verdict, or whose interval can be read "
        "off both curves. No verdict: "
        "the reference has not learnt from its context at this budget. Did not learn: the "
        "reference has, the pattern has not by the end of its runs."
    )
    return Table("Compute multipliers", columns, rows, note)


def _row(one: Comparison) -> tuple[Value, ...]:
    multiplier, verdict = one.multiplier, one.verdict
    needed, known = verdict.seeds_needed, not math.isnan(multiplier.value)
    return (
        number(multiplier.budget, formatting.large),
        number(multiplier.value, _number) if known else Value("not known"),
        Value(interval(multiplier) if known else "-"),
        # Whether a known interval covers a margin is seen beside it.
        Value(verdict.name, multiplier.reason if verdict.name == UNDECIDED else verdict.reason),
        Value("-") if needed is None else number(needed, formatting.count),
        number(multiplier.seeds, formatting.count),
        number(one.steps, formatting.count),
        number(one.loss, formatting.loss),
    )


def _joint_fit(study: StudyResults) -> Iterator[Table]:
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
    found = []
    for view in views(study):
        size = study.config.size_name(view.size)
        for pattern in view.reduced:
            arm, compute = _label(view, pattern), annealed(view, view.reference)
            compute = compute.groupby("run")["training_flops"].mean()
            for one in fit.compare(arm, size, compute).itertuples():
                ends = [
                    Value("not known")
                    if math.isnan(value)
                    else Value(_number(value), f"{_number(low)} to {_number(high)}", value)
                    for value, low, high in (
                        (one.fitted, one.fitted_low, one.fitted_high),
                        (one.interpolated, one.interpolated_low, one.interpolated_high),
                    )
                ]
                agree = Value("yes" if one.agree else "no")
                budget = number(one.budget, formatting.large)
                found.append((code(arm), Value(size), budget, *ends, agree))
    law = fit.coefficients.iloc[0]
    note = (
        "One law for all arms and sizes, L = E + A N^-a + B D^-b (parameters N, tokens D): "
        f"E = {law['E']:.2f} nats, a = {law['a']:.2f}, b = {law['b']:.2f}; p = "
        f"{fit.p_separate:.3f} of equal exponents; residuals of log losses up to "
        f"{fit.points['residual'].abs().max():.4f}. Small print: 95 % intervals. They agree when "
        "each covers the other's value."
    )
    yield Table("The joint fit beside interpolation", columns, tuple(found), note)
