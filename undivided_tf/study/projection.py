"""What a study will cost, before it runs: parameters, FLOPs and time of every cell.

Step times are those of finished cells if there are any, else of a short timing or of an assumed
rate; between patterns they are interpolated linearly in FLOPs. Other times are FLOPs at the speed
of the largest step or, where FLOPs do not determine the time, a rule of thumb. They are right to a
factor of two, not better.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.probing_tasks import load_sentence_task
from undivided_tf.reporting import formatting
from undivided_tf.study import budgets, grid, kept, kinds, multipliers
from undivided_tf.study.cells import FINISHED, Cell, Speed
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.outcomes import listed
from undivided_tf.training.config import PretrainingConfig

MEASURED, SCALED, TIMED = "measured", "scaled from finished cells", "scaled from a short timing"
RULE = "rule of thumb"
_TIMED_STEPS = 10


@dataclasses.dataclass(frozen=True)
class Projection:
    """What is known of a cell beforehand.

    Attributes:
        cell: as `grid.expand` gives, of measured times with the steps that they give.
        finished: whether it is there already; its time is then what it took.
        parameters, flops, steps: of pre-training cells, else None.
        seconds: on all cores, as if it ran alone.
        source: where the time comes from.
        starting: of the seconds, those before the first training step or the first text. Those of
            a finished cell are what it took to compile its training steps.
    """

    cell: Cell
    finished: bool
    parameters: int | None
    flops: int | None
    steps: int | None
    seconds: float
    source: str
    starting: float


class StepTimes:
    """Seconds of a pre-training step by its FLOPs: a line through what was measured.

    Args:
        points: seconds by FLOPs, at least one; through a single one the line is proportional.
        source: where they come from.
    """

    def __init__(self, points: Mapping[int, float], source: str):
        self.points, self.source = dict(sorted(points.items())), source

    def seconds(self, flops: int) -> float:
        """Seconds of a step of so many FLOPs."""
        if flops in self.points:
            return self.points[flops]
        (x, y), (last_x, last_y) = list(self.points.items())[0], list(self.points.items())[-1]
        if last_x == x:
            return y * flops / x
        slope = (last_y - y) / (last_x - x)
        return max(y + slope * (flops - x), 0.1 * y * flops / x)

    @property
    def speed(self) -> float:
        """FLOPs a second of the largest step."""
        flops, seconds = list(self.points.items())[-1]
        return flops / seconds


def project(
    config: StudyConfig, kept_results: str = "", assumed_teraflops: float = 0.0
) -> tuple[list[Projection], str]:
    """Projects every cell of a study; writes nothing to its workdir.

    Args:
        config: the study.
        kept_results: as `study.run_study` takes it: what would not run again is finished.
        assumed_teraflops: 10^12 FLOPs a second at which a machine that is not at hand trains;
            nothing is timed. 0: this machine's finished cells or a short timing.

    Returns:
        Projections in the order of the grid, and where the step times come from.

    Raises:
        InputError: a corpus, a task or a folder is not there; `kept_results` is of another study.
    """
    planned = grid.expand(config)
    kept_outcomes = kept.read(kept_results, planned) if kept_results else {}
    spared = {cell.name for cell in kept.sort_out(planned, config.workdir, kept_outcomes)[0]}
    known_outcomes = kept.filled(planned, listed(planned, config.workdir), kept_outcomes)
    outcomes = {
        cell.name: outcome
        for cell, outcome in zip(planned, known_outcomes, strict=True)
        if outcome["status"] == FINISHED and cell.name in spared
    }
    cells = [grid.resolved(c, lambda need: outcomes.get(need.name)) or c for c in planned]
    pairs = zip(planned, cells, strict=True)
    outcomes |= {cell.name: outcomes[plan.name] for plan, cell in pairs if plan.name in outcomes}
    root = pathlib.Path(config.workdir) / "cells"
    if assumed_teraflops:
        times = _assumed_times(config, cells, assumed_teraflops)
    else:
        times = _finished_times(config, cells, outcomes)
        times = times or _short_timing(config, cells, root, outcomes)
    rows = {task: _rows(task) for task in dict.fromkeys(config.tasks)}
    return [_project(config, cell, outcomes, times, rows) for cell in cells], times.source


def _finished_times(
    config: StudyConfig, cells: list[Cell], outcomes: Mapping[str, Any]
) -> StepTimes | None:
    step_seconds: dict[int, list[float]] = {}
    for cell in cells:
        if cell.kind.name == "pretraining" and cell.name in outcomes:
            flops = budgets.step_flops(config, cell.recipe.encoder)
            step_seconds.setdefault(flops, []).append(_measured(outcomes[cell.name]["result"]))
    if not step_seconds:
        return None
    return StepTimes({flops: sum(x) / len(x) for flops, x in step_seconds.items()}, SCALED)


def _short_timing(
    config: StudyConfig, cells: list[Cell], root: pathlib.Path, outcomes: Mapping[str, Any]
) -> StepTimes:
    """Times the steps with the most and the fewest FLOPs; makes the records if they are missing."""
    recipes = {
        budgets.step_flops(config, cell.recipe.encoder): cell.recipe
        for cell in cells
        if cell.kind.name == "pretraining"
    }
    records = next(cell for cell in cells if cell.kind.name == "records")
    with tempfile.TemporaryDirectory() as folder:
        home = str(root / records.name)
        if records.name not in outcomes:
            from undivided_tf.data.corpus.records import create_records

            home = f"{folder}/records"
            create_records(config.records.replace(output_dir=home))
        points = {
            flops: _step_seconds(recipes[flops].replace(records_dir=home, workdir=folder))
            for flops in {min(recipes), max(recipes)}
        }
    return StepTimes(points, TIMED)


def _measured(result: Mapping[str, Any]) -> float:
    """Seconds of a step of a finished pre-training."""
    if result["step_milliseconds"] is not None:
        return result["step_milliseconds"] / 1000
    return result["training_seconds"] / result["steps"]


def _assumed_times(config: StudyConfig, cells: list[Cell], teraflops: float) -> StepTimes:
    """Times of all steps at one rate."""
    steps = (
        budgets.step_flops(config, cell.recipe.encoder)
        for cell in cells
        if cell.kind.name == "pretraining"
    )
    points = {flops: flops / (teraflops * 1e12) for flops in steps}
    return StepTimes(points, f"{teraflops:g} teraFLOP/s, assumed")


def _step_seconds(recipe: PretrainingConfig) -> float:
    from undivided_tf.training.dry_run import dry_run  # Late: brings TensorFlow.

    (stage, *_) = dry_run(recipe, _TIMED_STEPS)["stages"]
    return stage["step_milliseconds"] / 1000


def _rows(task: str) -> dict[str, int]:
    loaded = load_sentence_task(task)
    read = {split: loaded.read(split) for split in loaded.splits}
    return {split: len(rows) for split, rows in read.items() if rows is not None}


def _project(
    config: StudyConfig,
    cell: Cell,
    outcomes: Mapping[str, Any],
    times: StepTimes,
    rows: dict[str, dict[str, int]],
) -> Projection:
    costs: dict[str, int | None] = {"parameters": None, "flops": None, "steps": None}
    if cell.kind.name == "pretraining":
        recipe = cell.recipe
        encoder = recipe.encoder.replace(vocab_size=budgets.vocab_size(config.records))
        step = budgets.step_flops(config, encoder)
        steps = recipe.num_train_steps
        if cell.timing and cell.timing.name not in outcomes and cell.name not in outcomes:
            reference = encoder.replace(block_pattern=cell.timing.recipe.reference_pattern)
            reference_seconds = times.seconds(budgets.step_flops(config, reference))
            steps = round(steps * reference_seconds / times.seconds(step))
        costs = {
            "parameters": accounting.count_parameters(encoder),
            "flops": steps * step,
            "steps": steps,
        }
    if cell.name in outcomes:
        seconds, compiling = (
            outcomes[cell.name].get(key) for key in ("seconds", "compiling_seconds")
        )
        return Projection(
            cell, True, **costs, seconds=seconds or 0.0, source=MEASURED, starting=compiling or 0.0
        )
    starting = cell.kind.starting_seconds(cell)
    if cell.kind.name == "pretraining":
        all_steps = steps + round(recipe.branch_steps() * steps / recipe.num_train_steps)
        seconds = all_steps * times.seconds(step)
        seconds += starting + _evaluation(config, recipe, encoder, times, all_steps)
        return Projection(
            cell, False, **costs, seconds=seconds, source=times.source, starting=starting
        )
    alike = [
        outcome
        for outcome in outcomes.values()
        if outcome["kind"] == cell.kind.name
        and outcome["label"].get("task") == cell.label.get("task")
    ]
    if alike:
        seconds = sum(outcome["seconds"] for outcome in alike) / len(alike)
        return Projection(
            cell, False, **costs, seconds=seconds, source=SCALED, starting=min(starting, seconds)
        )
    speed = Speed(times.speed, max(times.points.values()), rows)
    seconds = cell.kind.seconds(cell, speed)
    return Projection(cell, False, **costs, seconds=seconds, source=RULE, starting=starting)


def _evaluation(
    config: StudyConfig,
    recipe: PretrainingConfig,
    encoder: EncoderConfig,
    times: StepTimes,
    steps: int,
) -> float:
    flops = accounting.forward_flops(encoder, config.records.max_seq_length)
    often = -(-steps // recipe.eval_every_steps)
    return often * recipe.max_eval_rows * flops / times.speed


def _with_workers(left: list[Projection], work: float, workers: int) -> str:
    """The time that several workers take: they share all cells but those that are timed."""
    if workers < 2:
        return ""
    alone = sum(projection.seconds for projection in left if projection.cell.alone)
    seconds = alone + (work - alone) / workers
    return f", {formatting.duration(seconds)} with {workers} workers"


def _added_seeds(config: StudyConfig, projections: list[Projection]) -> Iterator[str]:
    """What the seeds of a look would add to each arm, and the most that all arms may take."""
    cost = {}
    for projection in projections:
        if projection.cell.kind.name == "pretraining":
            arm = projection.cell.label["pattern"], projection.cell.label.get("size", "")
            seeds = len(config.seeds(*arm))
            cost[arm] = cost.get(arm, 0.0) + projection.seconds / seeds
    for (pattern, size), seconds in cost.items():
        reference = cost[config.canonical_patterns[0], size]
        if pattern != config.canonical_patterns[0]:
            added = formatting.duration(multipliers.ADDED_SEEDS * seconds)
            pairs = formatting.duration(multipliers.ADDED_SEEDS * (seconds + reference))
            yield (
                f"{multipliers.ADDED_SEEDS} more seeds of {pattern} at size "
                f"{config.size_name(size)}: {added}, with the reference {pairs}"
            )
    most = sum(seconds * config.max_seeds for seconds in cost.values())
    yield f"all arms with the most seeds, {config.max_seeds}: {formatting.duration(most)}"


def _totals(projections: list[Projection]) -> tuple[float, float]:
    """Seconds that cells take, and the part of it that they take to start."""
    return sum(projection.seconds for projection in projections), sum(
        projection.starting for projection in projections
    )


def describe(config: StudyConfig, projections: list[Projection], source: str) -> str:
    """The lines that `--dry_run` prints."""
    lines = [f"{'parameters':>12} {'steps':>8} {'FLOPs':>8} {'time':>12}  cell"]
    for projection in projections:
        cost = [
            "-" if value is None else show(value)
            for value, show in (
                (projection.parameters, formatting.count),
                (projection.steps, formatting.count),
                (projection.flops, formatting.large),
            )
        ]
        done = " (finished)" if projection.finished else ""
        lines.append(
            f"{cost[0]:>12} {cost[1]:>8} {cost[2]:>8} "
            f"{formatting.duration(projection.seconds):>12}  {projection.cell.name}{done}"
        )
    columns = f"{'kind':<12} {'cells':>6} {'finished':>9} {'time left':>12} {'of it starting':>14}"
    lines += ["", f"{columns}  time from"]
    for kind in kinds.of(config):
        of_kind = [
            projection for projection in projections if projection.cell.kind.name == kind.name
        ]
        left = [projection for projection in of_kind if not projection.finished]
        if of_kind:
            sources = ", ".join(dict.fromkeys(projection.source for projection in left)) or MEASURED
            seconds, starting = _totals(left)
            lines.append(
                f"{kind.name:<12} {len(of_kind):>6} {len(of_kind) - len(left):>9} "
                f"{formatting.duration(seconds):>12} {formatting.duration(starting):>14}  {sources}"
            )
    lines += [*budgets.infeasible(config)]
    if config.until_decided:
        lines += _added_seeds(config, projections)
    left = [projection for projection in projections if not projection.finished]
    work, starting = _totals(left)
    lines.append(f"step times: {source}; {os.cpu_count()} cores")
    if work:
        lines.append(
            f"starting up (imports, tracing, compiling): {formatting.duration(starting)}, "
            f"{starting / work:.0%} of the time left"
        )
    lines.append(
        f"{len(projections)} cells, projected time left: {formatting.duration(work)}"
        + _with_workers(left, work, config.num_workers)
    )
    return "\n".join(lines)
