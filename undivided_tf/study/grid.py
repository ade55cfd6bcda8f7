"""The cells of a study: what there is to run, and in which order.

A cell is a directory `WORKDIR/cells/KIND_NAME_HASH` with `finished.json` once it is finished.
The hash covers its whole recipe and the hashes of the cells that it builds upon, so that a
cell is found again by the same command and never mistaken for another.
"""

import dataclasses
import functools
import itertools
import re
import statistics
from collections.abc import Callable
from typing import Any

from undivided_tf.config import Config
from undivided_tf.errors import InputError
from undivided_tf.study import frames, step_times
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.frames import Arm
from undivided_tf.support import files
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.training.config import TimingConfig

STAGES = (
    "records", "timing", "surgery", "pretraining", "finetuning", "cka", "probing", "diagnostics",
    "blimp",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """One piece of work.

    Attributes:
        kind: one of `STAGES`.
        label: what a reader wants to know of it, such as pattern, seed and task; goes into
            its result.
        recipe: its config; fields that hold places are empty.
        places: fields of the recipe that take the directory of another cell.
        alone: run nothing beside it, for it is timed.
        timing: steps of the same pattern and of the reference in turn, whose times decide the
            steps of this one; see `resolved`.
        turn: when its seed comes; cells of a lower turn run first.
    """

    kind: str
    label: dict[str, Any]
    recipe: Config
    places: dict[str, "Cell"] = dataclasses.field(default_factory=dict)
    alone: bool = False
    timing: "Cell | None" = None
    turn: int = 0

    @property
    def needs(self) -> tuple["Cell", ...]:
        """Cells that must be finished before."""
        return (*self.places.values(), *filter(None, [self.timing]))

    @functools.cached_property
    def hash(self) -> str:
        """Eight hexadecimal digits of recipe and needs."""
        needs = [f"{field}={cell.hash}" for field, cell in sorted(self.places.items())]
        needs += [f"timing={self.timing.hash}"] if self.timing else []
        return files.sha256(self.kind, self.recipe.fingerprint(), *needs)[:8]

    @functools.cached_property
    def name(self) -> str:
        """The directory: readable, and unique by its hash."""
        words = [str(v) for v in self.label.values() if isinstance(v, str | int)]
        words += [
            f"{v['pattern']}-{v['seed'] if v['trained'] else 'untrained'}"
            for v in self.label.values()
            if isinstance(v, dict)
        ]
        readable = re.sub(r"[^A-Za-z0-9_-]+", "", "_".join(words).replace("*", "x"))
        return "_".join(filter(None, [self.kind, readable, self.hash]))

    @property
    def order(self) -> tuple[int, bool, int]:
        """Place in the grid: by turn, then equal steps, then by stage.

        The core patterns have had one seed before any of them has its second, so that an
        interrupted study is balanced; so have, behind these, the others and other frames.
        """
        return self.turn, "frame" in self.label, STAGES.index(self.kind)


def expand(config: StudyConfig) -> list[Cell]:
    """All cells of a study, in the order in which they run."""
    records = Cell("records", {}, config.records)
    cells = [records]
    for size in ("", *config.sizes):
        trained = _trained(config, records, size)
        for encoder in trained.values():
            cells += [need for need in encoder.places.values() if need.kind == "surgery"]
            cells.append(encoder)
        for arm, encoder in trained.items():
            cells += _finetuning(config, arm, encoder)
            if arm.frame == frames.STEPS:
                cells += _looks_inside(config, arm, encoder)
        cells += _timings(config, trained)
        cells += _comparisons(
            config, {arm: c for arm, c in trained.items() if arm.frame == frames.STEPS}
        )
    return sorted(cells, key=lambda cell: cell.order)


def _trained(config: StudyConfig, records: Cell, size: str) -> dict[Arm, Cell]:
    """Pre-trained encoders of one size: at equal steps, then in the other frames."""
    patterns = config.canonical_patterns
    cells: dict[Arm, Cell] = {}

    def add(arm: Arm) -> None:
        later = arm.frame != frames.STEPS or arm.pattern not in config.core
        label = {"pattern": arm.pattern, "seed": arm.seed, **arm.extra}
        turn = arm.seed - config.seed + (config.num_pretraining_seeds if later else 0)
        places = {"records_dir": records}
        if arm.frame == frames.SURGERY:
            reference = {"input": cells[Arm(patterns[0], arm.seed, size=size)]}
            operation = SurgeryConfig(block_pattern=arm.pattern)
            places["init_checkpoint"] = Cell("surgery", label, operation, reference, turn=turn)
        timing = None
        if arm.frame == frames.TIME:
            timing = _timing(config, cells[Arm(arm.pattern, config.seed, size=size)])
        cells[arm] = Cell(
            "pretraining", label, frames.pretraining(config, arm), places, timing=timing, turn=turn
        )

    for seed in config.seeds(patterns[0]):
        for pattern in patterns:
            if seed in config.seeds(pattern):
                add(Arm(pattern, seed, size=size))
        for frame in frames.other_frames(config):
            for pattern in frames.compared(config):
                try:
                    if frames.same_as(config, pattern, frame, size):
                        continue
                except InputError:
                    continue  # Named by `frames.obstacles`, which report and dry run show.
                add(Arm(pattern, seed, frame, size))
    return cells


def _timings(config: StudyConfig, trained: dict[Arm, Cell]) -> list[Cell]:
    """One for every encoder that differs from the reference in its pattern, and in that alone."""
    full = next(iter(trained.values())).recipe.encoder
    found = []
    for arm, cell in trained.items():
        own = cell.recipe.encoder
        once = arm.seed == config.seed and arm.frame in (frames.STEPS, *frames.INVESTMENTS)
        if once and own != full == own.replace(block_pattern=full.block_pattern):
            found.append(_timing(config, cell))
    return found


def _timing(config: StudyConfig, encoder: Cell) -> Cell:
    """Steps of an encoder beside those of the reference, in turn."""
    reference = config.canonical_patterns[0]
    recipe = TimingConfig(
        pretraining=encoder.recipe,
        reference_pattern=reference,
        num_rounds=config.num_timing_rounds,
    )
    return Cell("timing", encoder.label, recipe, encoder.places, alone=True, turn=encoder.turn)


def _finetuning(config: StudyConfig, arm: Arm, encoder: Cell) -> list[Cell]:
    """Fine-tunings of an encoder; at equal steps some from random weights too."""
    # Random weights know nothing of pre-training: once a pattern is enough.
    bare = (
        arm.seed == config.seed and arm.frame == frames.STEPS and arm.pattern in config.from_scratch
    )
    cells = []
    for task in config.tasks:
        label = {"pattern": arm.pattern, "pretraining_seed": arm.seed, "task": task}
        for start in ("pretrained", "scratch") if bare else ("pretrained",):
            recipe = config.finetuning.replace(
                task=task, seed=config.seed, from_scratch=start == "scratch"
            )
            cells.append(
                Cell(
                    "finetuning",
                    {**label, "start": start, **arm.extra},
                    recipe,
                    {"init_checkpoint": encoder},
                    turn=encoder.turn,
                )
            )
    return cells


def _looks_inside(config: StudyConfig, arm: Arm, encoder: Cell) -> list[Cell]:
    """Probes, diagnostics and BLiMP of an encoder."""
    label = {"pattern": arm.pattern, "pretraining_seed": arm.seed}
    asked: list[tuple[str, dict[str, Any], Config]] = [
        ("probing", {"task": task}, config.probing.replace(task=task))
        for task in dict.fromkeys((*config.tasks, *config.probing_tasks))
    ]
    if config.diagnose:
        asked.append(("diagnostics", {}, config.diagnostics))
    if config.blimp.data:
        asked.append(("blimp", {}, config.blimp))
    return [
        Cell(
            kind,
            {**label, **more, **arm.extra},
            recipe.replace(seed=config.seed),
            {"init_checkpoint": encoder},
            turn=encoder.turn,
        )
        for kind, more, recipe in asked
    ]


def _comparisons(config: StudyConfig, trained: dict[Arm, Cell]) -> list[Cell]:
    """CKA of the reference with itself, the other patterns and its other seeds, and of these with
    one another; and of every encoder with its untrained twin.
    """
    recipe = config.cka.replace(seed=config.seed)
    reference = next(iter(trained))
    other_seeds = [arm for arm in trained if arm.pattern == reference.pattern][1:]
    cells = []
    for first, second in [
        *((reference, other) for other in trained),
        *itertools.combinations(other_seeds, 2),
        *((encoder, None) for encoder in trained),
    ]:
        label = {"first": _side(first, first.seed, True)}
        places = {"first_checkpoint": trained[first]}
        if second:
            places["second_checkpoint"] = trained[second]
            label["second"] = _side(second, second.seed, True)
        else:
            label["second"] = _side(first, config.seed, False)
        turn = max(cell.turn for cell in places.values())
        cells.append(Cell("cka", {**label, **first.extra}, recipe, places, turn=turn))
    return cells


def _side(arm: Arm, seed: int, trained: bool) -> dict[str, Any]:
    return {"pattern": arm.pattern, "seed": seed, "trained": trained}


def resolved(cell: Cell, outcome_of: Callable[[Cell], dict[str, Any] | None]) -> Cell | None:
    """The cell with the steps that measured times give it, and those it builds upon likewise.

    The steps become part of the recipe, and so of the hash: where the times are measured anew,
    the cell is another one. They are those of equal steps over the median ratio of the rounds.

    Args:
        cell: as `expand` gives.
        outcome_of: the outcome of a cell, None while it has none or has failed.

    Returns:
        The cell itself where no time decides; None while times are not known.
    """
    places = {field: resolved(need, outcome_of) for field, need in cell.places.items()}
    if None in places.values():
        return None
    if cell.timing:
        outcome = outcome_of(cell.timing)
        if outcome is None:
            return None
        ratio = statistics.median(step_times.ratios(outcome["result"]))
        recipe = frames.with_steps(cell.recipe, 1 / ratio)
        return dataclasses.replace(cell, recipe=recipe, places=places)
    changed = any(places[field] is not need for field, need in cell.places.items())
    return dataclasses.replace(cell, places=places) if changed else cell
