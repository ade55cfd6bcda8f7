"""The results of a study, read by question: what has a pattern, a task, a pair of encoders?"""

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.study import frames, numbers, step_times
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.numbers import Estimate
from undivided_tf.study.outcomes import FAILED, FINISHED, NOT_RUN
from undivided_tf.study.pairs import cka_relation

PRETRAINED, SCRATCH = "pretrained", "scratch"
MEASURE_NAMES = {
    "cka": "CKA", "svcca": "SVCCA", "pwcca": "PWCCA", "procrustes": "Procrustes distance",
    "rsa": "RSA",
}  # fmt: skip


@functools.cache
def task_name(task: str) -> str:
    """The last part of a task's path: a task may be a name or a folder; `ud:pos` of a treebank."""
    if task.startswith("ud:"):
        return ":".join(task.split(":")[:2])
    return pathlib.PurePath(task.partition(":")[0] if task.endswith(".zip") else task).name


def primary(result: dict[str, Any]) -> str:
    """The metric of a fine-tuning result that tables show."""
    return result.get("primary", "accuracy")


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
        return numbers.estimate(self.by_unit.values())


class StudyResults:
    """The study's results.json, by question, as one frame and one size of encoders answer it.

    Args:
        results: what the study wrote; see `study/grid.py`.
        frame: one of `frames.NAMES`. The reference is the same in all of them.
        size: one of the config's `sizes`; empty: that of its flags.

    Attributes:
        cells, failed_cells, left_cells: of the whole study; those that failed, and those that
            no process has run.
        machines: those that ran the finished cells, as `process.machine` numbers them.
        patterns, left_patterns: the reference and those that a cell was run of; the others, which
            no table has.

    Raises:
        InputError: its config is none of this version.
    """

    def __init__(self, results: dict[str, Any], frame: str = frames.STEPS, size: str = ""):
        self.raw, self.frame, self.size = results, frame, size
        self._frames: dict[str, StudyResults] = {}
        self.config = StudyConfig.from_dict(results["config"], "results.json: config")
        self.cells = results["cells"]
        self.failed_cells = [cell for cell in self.cells if cell["status"] == FAILED]
        self.machines = {c["machine"] for c in self.cells if c["status"] == FINISHED}
        self.left_cells = [cell for cell in self.cells if cell["status"] == NOT_RUN]
        named = self.config.canonical_patterns
        begun = {c["label"].get("pattern") for c in self.cells if c["status"] != NOT_RUN}
        self.left_patterns = [pattern for pattern in named[1:] if pattern not in begun]
        self.patterns = [pattern for pattern in named if pattern not in self.left_patterns]
        self.tasks = [task_name(task) for task in self.config.tasks]
        self.probed = list(dict.fromkeys((*self.tasks, *map(task_name, self.config.probing_tasks))))
        self.reference, *self.reduced = self.patterns
        self.seen = list(self._seen())
        if frame != frames.STEPS:
            compared = frames.compared(self.config)
            self.reduced = [pattern for pattern in compared if pattern not in self.left_patterns]
            self.patterns = [self.reference, *self.reduced]

    def in_frame(self, frame: str) -> "StudyResults":
        """The same study in another frame."""
        if frame not in self._frames:
            self._frames[frame] = StudyResults(self.raw, frame, self.size)
        return self._frames[frame]

    def of_size(self, size: str) -> "StudyResults":
        """The same study with encoders of another size."""
        return StudyResults(self.raw, self.frame, size)

    def _seen(self) -> Iterator[dict[str, Any]]:
        """Cells of this frame and size; where an encoder stands for another, under its name."""
        here = [cell for cell in self.cells if cell["label"].get("size", "") == self.size]
        plain = [cell for cell in here if "frame" not in cell["label"]]
        if self.frame == frames.STEPS:
            yield from plain
            return
        yield from (cell for cell in here if cell["label"].get("frame") == self.frame)
        yield from (cell for cell in plain if cell["label"].get("pattern") == self.reference)
        for pattern in frames.compared(self.config):
            try:
                other = frames.same_as(self.config, pattern, self.frame, self.size)
            except InputError:
                continue
            if other is None and self.frame in frames.INVESTMENTS:
                continue  # A partner has cells of its own, its timing among them.
            for cell in (c for c in plain if c["label"].get("pattern") == (other or pattern)):
                if other is None and cell["kind"] != "timing":
                    continue  # Steps or weights are others; what a step takes is the same.
                named = {"pattern": pattern}
                result = cell["result"] and {**cell["result"], **named}
                yield {**cell, "label": {**cell["label"], **named}, "result": result}

    def finished(self, kind: str) -> list[dict[str, Any]]:
        """Results of the finished cells of one kind, in the order of the grid.

        Pre-trainings have the times of steps in turn; see `step_times.retimed`.
        """
        found = _results(self.seen, kind)
        if kind != "pretraining":
            return found
        here = [cell for cell in self.cells if cell["label"].get("size", "") == self.size]
        return step_times.retimed(
            found, _results(self.seen, "timing"), _results(here, "timing"), self.reference
        )

    def failures(self, kind: str, task: str = "", **label: Any) -> int:
        """How many cells failed.

        Args:
            kind: of the cells.
            task: their task, where they have one.
            label: what else stands in their label, such as the pattern.
        """
        asked = {"kind": kind, "task": task, **label}
        return sum(
            {
                **cell["label"],
                "kind": cell["kind"],
                "task": task_name(cell["label"].get("task", "")),
            }.items()
            >= asked.items()
            for cell in self.seen
            if cell["status"] == FAILED
        )

    def absence(self, kind: str, task: str = "", **label: Any) -> str:
        """Why a result is absent: `failed`, or `not run` when no such cell failed."""
        return FAILED if self.failures(kind, task, **label) else NOT_RUN

    def pretraining(self, pattern: str) -> list[dict[str, Any]]:
        """Finished pre-trainings of a pattern."""
        return [r for r in self.finished("pretraining") if r["pattern"] == pattern]

    def loss_by_seed(self, pattern: str) -> dict[int, float]:
        """Held-out MLM loss (nats) by pre-training seed."""
        return {r["seed"]: r["validation"]["loss"] for r in self.pretraining(pattern)}

    def step_ratios(self, pattern: str) -> list[float]:
        """Time of a step over that of the reference, round by round; empty where not timed."""
        timings = [r for r in self.finished("timing") if r["pattern"] == pattern]
        return [ratio for timing in timings for ratio in step_times.ratios(timing)]

    def finetuning(self, task: str, pattern: str = "", start: str = "") -> list[dict[str, Any]]:
        """Finished fine-tunings on a task, of one pattern and start or of all."""
        return [
            r
            for r in self.finished("finetuning")
            if task_name(r["task"]) == task
            and pattern in ("", r["pattern"])
            and start in ("", r["start"])
        ]

    def metric(self, task: str) -> str:
        """The metric of a task that tables show, such as `accuracy`."""
        return next((primary(result) for result in self.finetuning(task)), "accuracy")

    def is_regression(self, task: str) -> bool:
        """Whether a task asks for numbers; its results then name no labels."""
        return any(not result["labels"] for result in self.finetuning(task))

    def score(self, task: str, pattern: str, start: str, metric: str = "") -> Score:
        """Scores of a pattern on a task; of the validation split where test has no labels.

        Args:
            task: name of the task.
            pattern: canonical pattern.
            start: `PRETRAINED` or `SCRATCH`.
            metric: its name; empty: the one that tables show. Runs without it do not count.
        """
        metric = metric or self.metric(task)
        results = [
            result
            for result in self.finetuning(task, pattern, start)
            if metric in result["runs"][0][result["split"]]
        ]
        runs = [
            (result["pretraining_seed"], run["seed"], run[result["split"]][metric])
            for result in results
            for run in result["runs"]
        ]
        # Random weights depend on the run's seed only, whatever encoder the cell belongs to.
        of_all = {result["pretraining_seed"] for result in self.finetuning(task, start=start)}
        by_encoder = start == PRETRAINED and len(of_all) > 1  # For all patterns: they are paired.
        groups: dict[int, list[float]] = {}
        for encoder, seed, value in runs:
            groups.setdefault(encoder if by_encoder else seed, []).append(value)
        return Score(
            {unit: statistics.fmean(values) for unit, values in groups.items()},
            "encoder" if by_encoder else "fine-tuning run",
            [[run[result["split"]][metric] for run in result["runs"]] for result in results],
        )

    def score_by_encoder(self, task: str, pattern: str, start: str) -> dict[int, float]:
        """Mean primary score of the fine-tuning runs of each encoder, by its pre-training seed."""
        return {
            result["pretraining_seed"]: statistics.fmean(
                run[result["split"]][primary(result)] for run in result["runs"]
            )
            for result in self.finetuning(task, pattern, start)
        }

    def majority(self, task: str) -> float | None:
        """Score of the majority class; None when nothing was fine-tuned on the task."""
        for result in self.finetuning(task):
            return result["majority"][result["split"]]
        return None

    def probing(self, task: str, pattern: str = "") -> list[dict[str, Any]]:
        """Finished probings on a task."""
        return [
            r
            for r in self.finished("probing")
            if task_name(r["task"]) == task and pattern in ("", r["pattern"])
        ]

    def attention_probes(self, task: str, pattern: str) -> dict[int, float]:
        """Mean probe accuracy over the attention taps of each encoder, by pre-training seed."""
        found = {}
        for result in self.probing(task, pattern):
            values = [
                value
                for tap, value in zip(result["taps"], result["accuracy"], strict=True)
                if tap.endswith("/attention") and value is not None
            ]
            if values:
                found[result["pretraining_seed"]] = statistics.fmean(values)
        return found

    def probe_majority(self, task: str) -> float | None:
        """Accuracy of the majority class in the probing of a task; None when nothing was probed."""
        return next((result["majority_accuracy"] for result in self.probing(task)), None)

    def by_seed(self, kind: str, pattern: str) -> dict[int, dict[str, Any]]:
        """Finished `diagnostics` or `blimp` of a pattern, by pre-training seed."""
        return {r["pretraining_seed"]: r for r in self.finished(kind) if r["pattern"] == pattern}

    def mean_score(self, task: str, pattern: str) -> float | None:
        """Mean score of a pattern's pre-trained encoders on a task."""
        found = self.score(task, pattern, PRETRAINED).estimate
        return found and found.mean

    def best_probe(self, task: str, pattern: str, key: str) -> tuple[str, float] | None:
        """The tap with the highest mean accuracy over the encoders, and that accuracy.

        Args:
            task: name of the task.
            pattern: canonical pattern.
            key: `"accuracy"` or `"untrained_accuracy"`.
        """
        by_tap: dict[str, list[float]] = {}
        for result in self.probing(task, pattern):
            for tap, value in zip(result["taps"], result[key], strict=True):
                if value is not None:
                    by_tap.setdefault(tap, []).append(value)
        means = {tap: statistics.fmean(values) for tap, values in by_tap.items()}
        return max(means.items(), key=lambda item: item[1]) if means else None

    def cka(self, relation: str, pattern: str) -> list[dict[str, Any]]:
        """Finished CKA matrices of a pattern in one relation (see `pairs.cka_relation`)."""
        return [
            r
            for r in self.finished("cka")
            if cka_relation(r) == relation
            and pattern in (r["first"]["pattern"], r["second"]["pattern"])
        ]

    def cka_with_reference(self, pattern: str) -> list[dict[str, Any]]:
        """Finished CKA matrices of a trained pattern against the trained reference."""
        pair = {pattern, self.reference}
        return [
            r
            for r in self.cka("other pattern", pattern)
            if {r["first"]["pattern"], r["second"]["pattern"]} == pair
        ]


def _results(cells: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [c["result"] for c in cells if c["kind"] == kind and c["status"] == FINISHED]
