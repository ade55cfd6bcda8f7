"""What the intermediate blocks of a study are worth in training compute.

A study whose pre-trainings have branches (`pretraining.cooldown_steps`) has a loss-compute curve
for each pattern and seed. This module judges the compute multiplier of each arm and says the
verdict in a sentence; `multiplier_section` lays out the section of the report. Needs no TensorFlow.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from undivided_tf.errors import InputError
from undivided_tf.reporting import formatting
from undivided_tf.study import budgets, judging, worth
from undivided_tf.study.config import PARTNERS, StudyConfig
from undivided_tf.study.results import StudyResults
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, UNDECIDED, WORTH

# What each verdict says of the blocks that an arm lacks: they are ...
BLOCKS_ARE = {WORTH: "worth their compute", DISPENSABLE: "dispensable", HARMFUL: "harmful"}
LEVEL = 0.95  # Of intervals; of a study that adds seeds, of all looks together.
ADDED_SEEDS = 2
_SAME_END = 0.05  # Of the training FLOPs of two curves, as a share.


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An arm against the reference at one budget of the reference.

    Attributes:
        steps: of the reference.
        loss: mean held-out loss of the reference, in nats.
        multiplier: the arm's; NaN with a reason where it is not known.
        verdict: of `worth.judge`, or `judging.NO_VERDICT` or `judging.DID_NOT_LEARN`.
    """

    steps: int
    loss: float
    multiplier: worth.Multiplier
    verdict: worth.Verdict


@dataclasses.dataclass(frozen=True)
class JudgedArm:
    """An arm of a study at one size, judged against the reference.

    Attributes:
        view: the study at the arm's budget and size.
        pattern: of the arm.
        reference_points: the annealed points of the reference at this size; see `annealed`.
        points: those of the arm.
        comparisons: at each budget of the reference, by rising budget.
    """

    view: StudyResults
    pattern: str
    reference_points: pd.DataFrame
    points: pd.DataFrame
    comparisons: tuple[Comparison, ...]

    @property
    def num_seeds(self) -> int:
        """The seeds of the arm or of the reference, whichever has fewer."""
        return _num_seeds(self.reference_points, self.points)

    @property
    def name(self) -> str:
        """The arm in a sentence: pattern in backticks, budget, and size if there are several."""
        config = self.view.config
        size = f" at size {config.size_name(self.view.size)}" if config.sizes else ""
        return _name_without_size(self) + size

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the arm's sentence is about; None where there is none."""
        return headline(self.comparisons)

    def multipliers(self, compute: Sequence[float]) -> list[worth.Multiplier]:
        """The multiplier at each of the reference's training FLOPs."""
        return _multipliers(self.reference_points, self.points, compute, self.view.config)


def has_curves(config: StudyConfig) -> bool:
    """Whether a study has loss-compute curves to compare."""
    return bool(config.pretraining.cooldown_steps) and len(config.patterns) > 1


def views(study: StudyResults) -> list[StudyResults]:
    """The study at each of its sizes that has begun, the first size first.

    For each size, the patterns of equal steps, then their partners of equal parameters.
    """
    partners = [budget for budget in budgets.others(study.config) if budget in PARTNERS]
    planned = [
        study.seen_as(budget, size)
        for size in ("", *study.config.sizes)
        for budget in (budgets.STEPS, *partners)
    ]
    begun = [view for view in planned if not annealed(view, view.reference).empty]
    return begun or planned[:1]


def annealed(study: StudyResults, pattern: str) -> pd.DataFrame:
    """The annealed points of an arm; one of equal steps has those of equal training FLOPs, too.

    Returns:
        A row for each seed and budget, its index `seed` and `run` (steps); columns
        `training_flops`, `loss` and, where they are known, `neighbour_model_loss` and `learnt`.
    """
    sources = [study]
    plain = study.budget == budgets.STEPS and pattern != study.reference
    if plain and budgets.FLOPS in study.config.budgets:
        sources.append(study.seen_as(budgets.FLOPS, study.size))
    rows = pd.concat([source.select("pretraining", pattern=pattern) for source in sources])
    rows = rows[rows["metric"].str.startswith("annealed_")]
    # A run of equal FLOPs may have a branch of as many steps as one of equal steps: their mean.
    wide = rows.pivot_table(index=["seed", "run"], columns="metric", values="value")
    wide = wide.rename(columns=lambda name: name.removeprefix("annealed_"))
    return wide.reindex(columns=["training_flops", "loss", "neighbour_model_loss", "learnt"])


# === Verdicts ===


def judged_arms(study: StudyResults) -> list[JudgedArm]:
    """The arms beside the reference, by size; a partner of which no run has ended is left out."""
    return [
        arm
        for view in views(study)
        for arm in (judged(view, pattern) for pattern in view.reduced)
        if view.budget == budgets.STEPS or not arm.points.empty
    ]


def judged(view: StudyResults, pattern: str) -> JudgedArm:
    """A pattern judged at each budget of the reference.

    There is no verdict at a budget at which an encoder of the reference is not below the
    neighbour model. Where all of them are, but an encoder of the pattern is not at the end of its
    run, the pattern did not learn.
    """
    reference_points, points = annealed(view, view.reference), annealed(view, pattern)
    means = reference_points.groupby("run")[["training_flops", "loss"]].mean().sort_index()
    learnt = reference_points["learnt"].dropna().groupby("run").agg(list)
    multipliers = _multipliers(
        reference_points, points, means["training_flops"].tolist(), view.config
    )
    comparisons = []
    for steps, loss, multiplier in zip(means.index, means["loss"], multipliers, strict=True):
        if reason := judging.unlearnt(learnt.get(steps, [])):
            reason = f"the reference has not learnt: {reason}"
            verdict = worth.Verdict(judging.NO_VERDICT, reason=reason)
        elif reason := judging.not_learnt(view, pattern):
            reason = f"the pattern has not learnt by its end: {reason}"
            verdict = worth.Verdict(judging.DID_NOT_LEARN, reason=reason)
        else:
            verdict = worth.judge(multiplier, view.config.worth_margins)
        comparisons.append(Comparison(steps, loss, multiplier, verdict))
    return JudgedArm(view, pattern, reference_points, points, tuple(comparisons))


def _num_seeds(*arms: pd.DataFrame) -> int:
    return min(len(points.index.unique("seed")) for points in arms)


def _multipliers(
    reference_points: pd.DataFrame,
    points: pd.DataFrame,
    compute: Sequence[float],
    config: StudyConfig,
) -> list[worth.Multiplier]:
    if not compute:
        return []
    seeds = _num_seeds(reference_points, points)
    level = _level(config, seeds)
    if seeds < judging.MIN_PAIRS:
        reason = f"seeds: {seeds}, an interval takes {judging.MIN_PAIRS}"
        nan = math.nan
        return [worth.Multiplier(c, nan, nan, nan, level, seeds, reason) for c in compute]
    return worth.compute_multiplier(_curves(reference_points), _curves(points), compute, level)


def _curves(points: pd.DataFrame) -> dict[int, np.ndarray]:
    """Points (training FLOPs, loss) by seed."""
    return {
        seed: rows[["training_flops", "loss"]].to_numpy()
        for seed, rows in points.groupby(level="seed")
    }


def looks(config: StudyConfig) -> tuple[int, ...]:
    """Numbers of seeds at which a study that is `until_decided` looks at its intervals."""
    return tuple(range(config.num_pretraining_seeds, config.max_seeds + 1, ADDED_SEEDS))


def _level(config: StudyConfig, seeds: int) -> float:
    """Nominal level of an interval: 95 %, or that of the first look with at least `seeds` seeds."""
    if not config.until_decided:
        return LEVEL
    planned = looks(config)
    taken = next((i for i, look in enumerate(planned, 1) if seeds <= look), len(planned))
    return worth.look_levels(planned[:taken], config.max_seeds, LEVEL)[-1]


def headline(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison that the sentence on an arm is about; None where there is none.

    The one at the largest budget with a known multiplier that is decided, or undecided although
    both ends of its interval are known. Where there is none, the one at the largest budget that is
    decided by one end, else with a known multiplier, else at the largest budget. Budgets at which
    the reference has learnt come before all others.
    """
    learnt = [each for each in comparisons if each.verdict.name != judging.NO_VERDICT]
    known = [each for each in learnt if not math.isnan(each.multiplier.value)]
    decided = [each for each in learnt if each.verdict.name != UNDECIDED]
    judged = [each for each in known if each in decided or not each.multiplier.reason]
    return (judged or decided or known or learnt or [*comparisons] or [None])[-1]


# === Sentences ===


def sentences(arms: Sequence[JudgedArm]) -> list[str]:
    """The verdicts on all arms, then what changes over compute, each with backticks."""
    return [*map(sentence, arms), *crossovers(arms)]


def sentence(arm: JudgedArm) -> str:
    """The verdict on an arm, in a sentence with backticks."""
    comparison, reference = arm.headline, arm.view.reference
    if comparison is None:
        return f"{arm.name}: {UNDECIDED}, no encoder of `{reference}` is pre-trained."
    verdict, multiplier = comparison.verdict, comparison.multiplier
    budget = f"{formatting.large(multiplier.budget)} training FLOPs"
    unbounded = math.isnan(multiplier.value) and not multiplier.is_bounded
    if unbounded or verdict.name in (judging.NO_VERDICT, judging.DID_NOT_LEARN):
        return f"{arm.name}: {verdict.name} at {budget} of `{reference}`, since {verdict.reason}."
    if math.isnan(multiplier.value):  # One end of its interval is known.
        than, end = ("more", multiplier.low) if multiplier.low else ("less", multiplier.high)
        times = f"{than} than {formatting.multiplier(end)} times (95 % interval)"
    else:
        value = formatting.multiplier(multiplier.value)
        times = f"{value} times (95 % interval {interval(multiplier)})"
    text = (
        f"{arm.name} needs {times} the compute for the held-out loss that `{reference}` has at "
        f"{budget}: "
    )
    if verdict.name in BLOCKS_ARE:
        return f"{text}the blocks that it lacks are {BLOCKS_ARE[verdict.name]}."
    needed = f"; {verdict.seeds_needed} seeds in all would decide" if verdict.seeds_needed else ""
    since = f", since {multiplier.reason}" if multiplier.reason else ""
    return f"{text}{UNDECIDED}{since}{needed}."


def interval(
    estimate: worth.Multiplier | worth.Crossover,
    show: Callable[[float], str] = formatting.multiplier,
) -> str:
    """The interval of a value in words; an end that lies beyond the curves is open."""
    low, high = estimate.low, estimate.high
    if low > 0 and math.isfinite(high):
        return formatting.between((low, high), show)
    if low > 0:
        return f"above {show(low)}"
    return f"below {show(high)}" if math.isfinite(high) else "not bounded"


def _name_without_size(arm: JudgedArm) -> str:
    view, pattern = arm.view, arm.pattern
    if view.budget == budgets.STEPS:
        return f"`{pattern}`"
    same, _, spent = budgets.NAMES[view.budget].partition(", ")
    if partner := budgets.partner_pattern(view.config, pattern, view.budget, view.size):
        return f"`{partner}` (`{pattern}` grown to {same})"
    return f"`{pattern}` at {same}" + (f" ({spent})" if spent else "")


def crossovers(arms: Iterable[JudgedArm]) -> list[str]:
    """Sentences on the compute at which the lead changes between each arm and the reference.

    An arm with too few seeds for an interval has none. Where the curves of an arm and of the
    reference end at the same compute, both are compared at the best of their sizes. Otherwise one
    of them would lead only because the other has no run there, so each size is compared by itself.
    """
    by_arm: dict[Any, list[JudgedArm]] = {}
    for arm in arms:
        sizes = by_arm.setdefault((arm.view.budget, arm.pattern), [])
        if arm.num_seeds >= judging.MIN_PAIRS:
            sizes.append(arm)
    statements = []
    for sizes in by_arm.values():
        together = len(sizes) > 1 and all(map(_ends_with_reference, sizes))
        statements += map(_crossover, [sizes] if together else [[size] for size in sizes])
    return statements


def _ends_with_reference(arm: JudgedArm) -> bool:
    reference_end, arm_end = (
        points["training_flops"].max() for points in (arm.reference_points, arm.points)
    )
    return abs(reference_end / arm_end - 1) < _SAME_END


def _crossover(sizes: Sequence[JudgedArm]) -> str:
    """Who leads at which compute, with an arm at these sizes."""
    view, name, where = sizes[0].view, _name_without_size(sizes[0]), ""
    reference = f"`{view.reference}`"
    if view.config.sizes:
        one_size = f" at size {view.config.size_name(view.size)}"
        where = ", each arm at its best size" if len(sizes) > 1 else one_size
    try:
        crossover = worth.crossover(
            {arm.view.size: _curves(arm.reference_points) for arm in sizes},
            {arm.view.size: _curves(arm.points) for arm in sizes},
            LEVEL,
        )
    except InputError:
        return f"{name} and {reference}{where} have no training compute in common."
    searched = formatting.between(crossover.searched, formatting.large)
    compared = f"{name} against {reference}{where}, {searched} training FLOPs"
    if crossover.value is None:
        leader = {"throughout": name, "nowhere": reference}[crossover.arm_leads]
        return f"{compared}: {leader} has the lower loss throughout."
    leader = name if crossover.arm_leads == "below" else reference
    noise = "" if crossover.shown else "; the crossover may be noise"
    return (
        f"{compared}: {leader} leads below {formatting.large(crossover.value)} (95 % interval "
        f"{interval(crossover, formatting.large)}{noise})."
    )
