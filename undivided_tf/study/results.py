"""The results of a study, as tables, figures and claims select them."""

import statistics
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import pandas as pd

from undivided_tf.reporting import formatting
from undivided_tf.study import budgets, numbers
from undivided_tf.study.cells import FAILED, FINISHED, NOT_RUN, Kind
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.numbers import task_name

PRETRAINED, SCRATCH = "pretrained", "scratch"


class StudyResults:
    """A study, seen at one budget and one size of encoders.

    Args:
        raw: the content of results.json.
        config: its config.
        kinds: the kinds of its cells.
        whole: all its numbers; see `numbers.tidy`.
        budget: one of `budgets.NAMES`. The reference is the same in all of them.
        size: one of the config's `sizes`; empty: that of its flags.

    Attributes:
        numbers: those of this budget and size; see `numbers.view`.
        cells, failed_cells, left_cells: of the whole study; those that failed, and those that
            have not run.
        machines: those that ran the finished cells, as `process.machine` numbers them.
        patterns, reference, reduced: canonical; all, the first, and the others. A pattern of which
            no cell has run is in `left_patterns` alone.
        tasks, probed: names of the tasks that are fine-tuned, and that are probed.
    """

    def __init__(
        self,
        raw: dict[str, Any],
        config: StudyConfig,
        kinds: Iterable[Kind],
        whole: pd.DataFrame,
        budget: str = budgets.STEPS,
        size: str = "",
    ):
        self.raw, self.config, self.kinds, self.whole = raw, config, tuple(kinds), whole
        self.budget, self.size = budget, size
        self.numbers = numbers.view(whole, config, budget, size)
        is_finished = self.numbers["status"] == FINISHED
        self._unfinished, finished = self.numbers[~is_finished], self.numbers[is_finished]
        # Most selections are of one metric and one pattern.
        self._groups = {
            key: rows
            for depth in (1, 2, 3)
            for key, rows in finished.groupby(["kind", "metric", "pattern"][:depth])
        }
        self._selected: dict[Any, pd.DataFrame] = {}
        self._metrics: dict[str, str] = {}
        self._views: dict[tuple[str, str], StudyResults] = {}
        self.cells = raw["cells"]
        self.failed_cells = [cell for cell in self.cells if cell["status"] == FAILED]
        self.left_cells = [cell for cell in self.cells if cell["status"] == NOT_RUN]
        self.machines = {c["machine"] for c in self.cells if c["status"] == FINISHED}
        reference, *other_patterns = config.canonical_patterns
        begun = {c["label"].get("pattern") for c in self.cells if c["status"] != NOT_RUN}
        self.left_patterns = [pattern for pattern in other_patterns if pattern not in begun]
        compared = other_patterns if budget == budgets.STEPS else budgets.compared(config)
        self.reference = reference
        self.reduced = [pattern for pattern in compared if pattern in begun]
        self.patterns = [reference, *self.reduced]
        tasks = () if "finetuning" in config.leave_out else config.tasks
        self.tasks = [task_name(task) for task in tasks]
        self.probed = list(dict.fromkeys((*self.tasks, *map(task_name, config.probing_tasks))))

    def seen_as(self, budget: str = budgets.STEPS, size: str = "") -> Self:
        """The same study in another budget, or with encoders of another size."""
        if (budget, size) not in self._views:
            self._views[budget, size] = (
                self
                if (budget, size) == (self.budget, self.size)
                else type(self)(self.raw, self.config, self.kinds, self.whole, budget, size)
            )
        return self._views[budget, size]

    def select(self, kind: str, metric: str = "", **columns: Any) -> pd.DataFrame:
        """Rows of finished cells.

        Args:
            kind: of the cells.
            metric: its name; empty: all.
            columns: values that other columns must have, such as `pattern`.
        """
        key = (kind, metric, *sorted(columns.items()))
        if key not in self._selected:
            group = (kind, *filter(None, [metric, metric and columns.get("pattern")]))
            rows = self._groups.get(group, self.numbers[:0])
            self._selected[key] = _where(rows, **columns)
        return self._selected[key]

    def by_seed(self, kind: str, metric: str, **columns: Any) -> dict[int, float]:
        """Mean value by pre-training seed, where it is defined."""
        rows = self.select(kind, metric, **columns)
        seeds = rows.dropna(subset="value").groupby("seed", sort=False)["value"]
        return {seed: statistics.fmean(values) for seed, values in seeds}

    def beside_reference(
        self, kind: str, metric: str, pattern: str
    ) -> tuple[dict[int, float], dict[int, float]]:
        """`by_seed` of a pattern, and of the reference."""
        arm = self.by_seed(kind, metric, pattern=pattern)
        return arm, self.by_seed(kind, metric, pattern=self.reference)

    def values(self, kind: str, metric: str, **columns: Any) -> list[float]:
        """The values that are defined."""
        return self.select(kind, metric, **columns)["value"].dropna().tolist()

    def mean(self, kind: str, metric: str, **columns: Any) -> float | None:
        """Mean of the values that are defined; None where there is none."""
        values = self.values(kind, metric, **columns)
        return statistics.fmean(values) if values else None

    def failures(self, kind: str, **columns: Any) -> int:
        """How many cells failed."""
        return len(_where(self._unfinished, kind=kind, status=FAILED, **columns))

    def absence(self, kind: str, **columns: Any) -> str:
        """Why a result is absent: `failed`, or `not run` if no such cell failed."""
        return FAILED if self.failures(kind, **columns) else NOT_RUN

    def finished(self, kind: str, task: str = "", **label: Any) -> list[dict[str, Any]]:
        """Results of the finished cells of equal steps and of this size, in the grid's order.

        Unlike `numbers`, they hold curves and words.
        """
        return [
            cell["result"]
            for cell in self.cells
            if (cell["kind"], cell["status"]) == (kind, FINISHED)
            and cell["label"].get("size", "") == self.size
            and "budget" not in cell["label"]
            and task in ("", task_name(cell["label"].get("task", "")))
            and label.items() <= cell["label"].items()
        ]

    def metric(self, task: str) -> str:
        """The metric of a task that tables show, such as `accuracy`."""
        if task not in self._metrics:
            results = self.finished("finetuning", task)
            self._metrics[task] = formatting.primary(results[0]) if results else "accuracy"
        return self._metrics[task]


def _where(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows whose columns have these values."""
    mask = np.ones(len(rows), bool)
    for name, value in columns.items():
        mask &= (rows[name] == value).to_numpy()
    return rows[mask]
