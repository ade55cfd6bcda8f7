"""Studies that add seeds until their compute multipliers are decided, or a budget is spent.

The rule is that of `worth.sequential`. Each decision depends only on the results of the seeds so
far, so an interrupted study makes the same decisions again from its finished cells.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import scipy.stats

from undivided_tf.reporting import formatting
from undivided_tf.study import kinds, multipliers, worth
from undivided_tf.study.cells import FINISHED
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.results import StudyResults
from undivided_tf.study.study import run_study
from undivided_tf.study.worth.verdicts import UNDECIDED
from undivided_tf.support import progress


@dataclasses.dataclass(frozen=True)
class Step:
    """What a study does after a look.

    Attributes:
        config: the study with more seeds; None where it ends.
        reason: why, in a sentence.
    """

    config: StudyConfig | None
    reason: str


def run_until_decided(
    config: StudyConfig,
    command: str,
    scheduler: str = "",
    kept_results: str = "",
    sweeps: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Runs a study, adds seeds while it is undecided, and reports after each look.

    Args:
        config: a study with `until_decided`.
        command: as for `run_study`, and so the others.
        scheduler: address of a standing Dask scheduler; empty: this machine.
        kept_results: a results.json of this study.
        sweeps: as for `run_study`.

    Returns:
        The content of results.json after the last look.

    Raises:
        InputError: as `run_study`.
    """
    while True:
        results = run_study(config, command, scheduler, kept_results=kept_results, sweeps=sweeps)
        step = next_step(kinds.read_results(results))
        progress.note(step.reason)
        if step.config is None:
            return results
        config = step.config


def next_step(study: StudyResults) -> Step:
    """The seeds that decide most per core-hour, or why there are no more.

    Two seeds go to the arm whose next look has the highest chance to decide, divided by what
    they cost. The reference gets them too, as far as it does not have them.
    """
    config = study.config
    if study.failed_cells or study.left_cells:
        number = len(study.failed_cells) + len(study.left_cells)
        return Step(
            None, f"{formatting.plural(number, 'cell')} not finished, so no seeds are added"
        )
    undecided = {}
    for arm in multipliers.judged_arms(study):
        headline = arm.headline
        # An end that leaves a curve is not known with more seeds either.
        if headline and headline.verdict.name == UNDECIDED and not headline.multiplier.reason:
            candidate = _candidate(arm, headline.multiplier)
            undecided[candidate.label] = candidate, arm
    if not undecided:
        return Step(None, "every compute multiplier that can be judged is decided")
    margins = tuple(map(math.log, config.worth_margins))
    chosen = worth.choose_next(
        [candidate for candidate, _ in undecided.values()],
        margins,
        multipliers.ADDED_SEEDS,
        config.max_seeds,
        multipliers.LEVEL,
    )
    names = ", ".join(undecided)
    if chosen is None:
        return Step(None, f"{names}: undecided, and {config.max_seeds} seeds are the most")
    spent = sum(cell["seconds"] or 0 for cell in study.cells) * _cores(study) / 3600
    if config.budget_hours and spent + chosen.core_hours > config.budget_hours:
        return Step(
            None,
            f"{names}: undecided; two more seeds of {chosen.label} would take "
            f"{chosen.core_hours:.1f} core-hours, but {spent:.1f} of {config.budget_hours:g} are "
            "spent",
        )
    _, arm = undecided[chosen.label]
    return Step(
        with_more_seeds(config, arm.pattern, arm.view.size),
        f"{names}: undecided; adding {multipliers.ADDED_SEEDS} seeds of {chosen.label} "
        f"(about {chosen.core_hours:.1f} core-hours)",
    )


def with_more_seeds(config: StudyConfig, pattern: str, size: str) -> StudyConfig:
    """The study with the seeds of an arm's next look; the reference has at least as many."""
    reference = config.canonical_patterns[0]
    number = len(config.seeds(pattern, size))
    more = next(look for look in multipliers.looks(config) if look > number)
    wanted = {
        (pattern, size): more,
        (reference, size): max(more, len(config.seeds(reference, size))),
    }
    counts = {
        (p, at): wanted.get((p, at), len(config.seeds(p, at)))
        for at in ("", *config.sizes)
        for p in config.canonical_patterns
    }
    return config.replace(
        arm_seeds=tuple(f"{p}{f'@{at}' if at else ''}={count}" for (p, at), count in counts.items())
    )


def _candidate(arm: multipliers.JudgedArm, multiplier: worth.Multiplier) -> worth.Candidate:
    view, pattern, config = arm.view, arm.pattern, arm.view.config
    seeds = len(config.seeds(pattern, view.size))
    taken = tuple(look for look in multipliers.looks(config) if look <= seeds)
    critical = scipy.stats.t.isf((1 - multiplier.level) / 2, multiplier.seeds - 1)
    half = (math.log(multiplier.high) - math.log(multiplier.low)) / 2
    hours = _hours(view, pattern)
    if len(config.seeds(view.reference, view.size)) <= seeds:
        hours += _hours(view, view.reference)
    return worth.Candidate(
        arm.name.replace("`", ""),
        math.log(multiplier.value),
        half * math.sqrt(multiplier.seeds) / critical,
        taken,
        hours,
    )


def _hours(view: StudyResults, pattern: str) -> float:
    """Core-hours of the seeds that a look adds to an arm, by what its seeds took so far."""
    cells = view.whole.drop_duplicates("cell")
    is_of_arm = (cells["pattern"] == pattern) & (cells["size"] == view.size)
    seconds = cells[is_of_arm & (cells["status"] == FINISHED)]["seconds"].sum()
    seeds = len(view.config.seeds(pattern, view.size))
    return max(seconds, 1.0) / seeds * multipliers.ADDED_SEEDS * _cores(view) / 3600


def _cores(study: StudyResults) -> float:
    """Cores of a cell."""
    return max(1.0, (study.raw["hardware"]["cores"] or 1) / study.config.num_workers)
