"""Timing: pre-training steps of a pattern and of the reference in turn."""

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf.metrics import inference
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import Finding
from undivided_tf.study import budgets
from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import START_SECONDS, Cell, Kind, Row, Speed, compilation_seconds
from undivided_tf.study.config import PARTNERS, StudyConfig
from undivided_tf.study.judging import (
    LEVEL,
    MIN_PAIRS,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Evidence,
    Verdict,
)
from undivided_tf.study.results import StudyResults
from undivided_tf.training.config import TimingConfig


class Timing(Kind):
    """One cell for each encoder that differs from the reference in its pattern only."""

    name = "timing"
    title = "Timing"
    call = "undivided_tf.training.timing:time_in_turn"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        reference = next(iter(encoders.values())).recipe.encoder
        for arm, cell in encoders.items():
            encoder = cell.recipe.encoder
            once = arm.seed == config.seed and arm.budget in (budgets.STEPS, *PARTNERS)
            if once and encoder != reference == encoder.replace(
                block_pattern=reference.block_pattern
            ):
                yield cell_of(config, cell)

    def seconds(self, cell: Cell, speed: Speed) -> float:
        steps = 2 * cell.recipe.num_rounds * cell.recipe.steps_per_round
        return self.starting_seconds(cell) + steps * speed.slowest_step

    def starting_seconds(self, cell: Cell) -> float:
        encoder = cell.recipe.pretraining.encoder
        reference = encoder.replace(block_pattern=cell.recipe.reference_pattern)
        return START_SECONDS + compilation_seconds(encoder) + compilation_seconds(reference)

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        for run, (milliseconds, reference_milliseconds) in enumerate(
            zip(result["milliseconds"], result["reference_milliseconds"], strict=True)
        ):
            yield {"metric": "milliseconds", "run": run, "value": milliseconds}
            yield {"metric": "reference_milliseconds", "run": run, "value": reference_milliseconds}
            yield {"metric": "ratio", "run": run, "value": milliseconds / reference_milliseconds}

    def claims(self, config: StudyConfig) -> Iterator[Claim]:
        yield Claim(
            "less training time",
            "Training takes less time.",
            "time of a pre-training step, as a ratio paired by rounds in which both have a turn",
            "none: a ratio of 1",
            "the ratio is below 1 (t-test on its logarithm)",
            _time,
            needs_learning=False,
        )

    def findings(self, study: StudyResults, pattern: str) -> Iterator[Finding]:
        if pattern == study.reference:
            return
        rounds = len(study.values("timing", "ratio", pattern=pattern))
        milliseconds, reference_milliseconds = (
            study.mean("pretraining", "step_milliseconds", pattern=p)
            for p in (pattern, study.reference)
        )
        if rounds == 0 or milliseconds is None or reference_milliseconds is None:
            yield Finding("Time", "Its steps were not timed.")
            return
        yield Finding(
            "Time",
            f"A training step took {formatting.decimals(milliseconds, 1)} ms, "
            f"{formatting.ratio(milliseconds, reference_milliseconds)} the reference's "
            f"{formatting.decimals(reference_milliseconds, 1)} ms: "
            f"medians of {rounds} rounds in turn.",
        )

    def methods(self, study: StudyResults) -> Iterator[Finding]:
        if not study.select("timing").empty:
            yield Finding(
                self.title,
                f"{study.config.num_timing_rounds} rounds of {TimingConfig().steps_per_round} "
                f"compiled training steps of a pattern and of `{study.reference}` in turn, in one "
                "process. The order changes with each round.",
            )


def cell_of(config: StudyConfig, encoder: Cell) -> Cell:
    """The timing of an encoder beside the reference."""
    recipe = TimingConfig(
        pretraining=encoder.recipe,
        reference_pattern=config.canonical_patterns[0],
        num_rounds=config.num_timing_rounds,
    )
    return Cell(Timing(), encoder.label, recipe, encoder.places, alone=True, turn=encoder.turn)


def _time(study: StudyResults, pattern: str) -> Verdict:
    ratios = [math.log(ratio) for ratio in study.values("timing", "ratio", pattern=pattern)]
    if len(ratios) < MIN_PAIRS:
        return Verdict(
            UNDERPOWERED, f"rounds of steps in turn: {len(ratios)}, an interval takes {MIN_PAIRS}"
        )
    faster = inference.above_test([-x for x in ratios], 0.0)
    slower = inference.above_test(ratios, 0.0)
    evidence = Evidence(
        "log of the time ratio",
        statistics.fmean(ratios),
        inference.bootstrap_interval(ratios),
        len(ratios),
        faster,
        slower,
        inference.permutation_test(ratios),
    )
    if faster < LEVEL:
        return Verdict(SUPPORTED, "its steps took less time", (evidence,))
    status = NOT_SUPPORTED if slower < LEVEL else UNDERPOWERED
    return Verdict(status, "less time was not shown", (evidence,))
