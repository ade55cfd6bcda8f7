"""The cells of a study, and their kinds.

A cell is one piece of work. It is a directory `WORKDIR/cells/KIND_NAME_HASH`, with
`finished.json` once it is finished. The hash covers the whole recipe of the cell and the hashes
of the cells that it needs: the same command finds a cell again and never takes it for another.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from undivided_tf.config import Config, EncoderConfig
from undivided_tf.reporting.content import FAILED as FAILED
from undivided_tf.reporting.content import Finding, Section
from undivided_tf.support import files

if TYPE_CHECKING:  # Their modules read the frame that kinds fill.
    from undivided_tf.study.budgets import Arm
    from undivided_tf.study.config import StudyConfig
    from undivided_tf.study.judging import Claim
    from undivided_tf.study.results import StudyResults

FINISHED, NOT_RUN = "finished", "not run"  # And FAILED.
START_SECONDS = 8.0
INSIDE = "Inside the encoders"  # The chapter of the report for analyses.
Row = dict[str, Any]


def compilation_seconds(encoder: EncoderConfig) -> float:
    """Rule of thumb for the first training step: tracing and compiling grow with the blocks.

    Drawn through results/benchmarks/startup.json.
    """
    return 3.0 + 0.3 * len(encoder.pattern)


@dataclasses.dataclass(frozen=True)
class Speed:
    """What estimates of time start from.

    Attributes:
        flops_per_second: of forward passes and training steps.
        slowest_step: seconds of the slowest pre-training step.
        rows: rows of each task by split.
    """

    flops_per_second: float
    slowest_step: float
    rows: Mapping[str, Mapping[str, int]]


class Kind:
    """A kind of cells: its subclass holds all that a study knows of it.

    A study has the kinds of `kinds.KINDS` and those that `StudyConfig.kinds` names. A kind needs
    `name`, `call` and `cells`; without the rest its cells run, but only results.json has their
    results.

    Attributes:
        name: first part of its cells' names, and the `kind` of their results.
        call: the function that runs a cell, as `MODULE:NAME`. It takes the recipe and returns a
            JSON dict. Only the process of a cell imports it.
        home: field of the recipe that takes the directory of the cell.
        title: in the report.
        section: field of the study's config that holds the settings of its recipes.
    """

    name = ""
    call = ""
    home = "workdir"
    title = ""
    section = ""

    def __eq__(self, other: object) -> bool:
        # A worker unpickles a kind of its own.
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def cells(self, config: "StudyConfig", encoders: Mapping["Arm", "Cell"]) -> Iterable["Cell"]:
        """The cells of one size of encoders.

        Args:
            config: the study.
            encoders: the pre-trainings of this size, the reference first.
        """
        raise NotImplementedError

    def included(self, config: "StudyConfig") -> bool:
        """Whether a study has cells of this kind, and the report a place for them."""
        return True

    def seconds(self, cell: "Cell", speed: Speed) -> float:
        """Estimate of the seconds that a cell takes; a rule of thumb, right to a factor of 2."""
        return START_SECONDS

    def starting_seconds(self, cell: "Cell") -> float:
        """The part of `seconds` before the first training step or the first text."""
        return START_SECONDS

    def rows(self, result: dict[str, Any]) -> Iterator[Row]:
        """The numbers of a result: rows of the study's frame.

        Each has a `metric` and a `value`, None where it is not defined; and `tap`, `second_tap`,
        `run` where there are several. The study adds what the cell is; see `numbers.COLUMNS`.
        """
        return iter(())

    def claims(self, config: "StudyConfig") -> Iterable["Claim"]:
        """Claims that its cells decide."""
        return ()

    def findings(self, study: "StudyResults", pattern: str) -> Iterator[Finding]:
        """What its cells show of a pattern."""
        return iter(())

    def methods(self, study: "StudyResults") -> Iterator[Finding]:
        """How its numbers came about."""
        return iter(())

    def report(self, study: "StudyResults") -> Iterator[Section]:
        """Its tables and figures."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class Cell:
    """One piece of work.

    Attributes:
        kind: what it is.
        label: what it is for a reader, such as pattern, seed and task; becomes part of its
            result.
        recipe: its config; fields that hold places are empty.
        places: fields of the recipe that take the directory of another cell.
        alone: whether nothing may run beside it, because it is timed.
        timing: timed steps of the same pattern and of the reference, which decide the number of
            steps of this cell; see `grid.resolved`.
        turn: when its seed comes; cells of a lower turn run first.
    """

    kind: Kind
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
        return files.sha256(self.kind.name, self.recipe.fingerprint(), *needs)[:8]

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
        return "_".join(filter(None, [self.kind.name, readable, self.hash]))

    @property
    def encoder(self) -> EncoderConfig:
        """The encoder of the first pre-training that it needs."""
        return next(iter(self.places.values())).recipe.encoder


def per_encoder(
    kind: Kind,
    encoders: Mapping["Arm", Cell],
    recipes: Iterable[tuple[dict[str, Any], Config]],
) -> Iterator[Cell]:
    """Cells that analyse every encoder of equal steps, by its `init_checkpoint`.

    Args:
        kind: of the cells.
        encoders: as for `Kind.cells`.
        recipes: of the cells of each encoder: the rest of the label, and the recipe.
    """
    recipes = list(recipes)
    for arm, encoder in encoders.items():
        if arm.at_equal_steps:
            for more, recipe in recipes:
                label = {"pattern": arm.pattern, "pretraining_seed": arm.seed, **more, **arm.extra}
                yield Cell(kind, label, recipe, {"init_checkpoint": encoder}, turn=encoder.turn)
