"""The numbers of a study as one tidy frame: a row per number.

`cells.csv` is this frame. Tables, figures and claims are selections, group-bys and pivots of it.
"""

import functools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from undivided_tf.errors import InputError
from undivided_tf.study import budgets
from undivided_tf.study.cells import Kind
from undivided_tf.study.config import PARTNERS, StudyConfig

COLUMNS = (
    "cell",
    "kind",
    "status",
    "error",
    "seconds",
    "pattern",
    "seed",
    "budget",
    "size",
    "task",
    "start",
    "second_pattern",
    "second_seed",
    "second_trained",
    "metric",
    "tap",
    "second_tap",
    "run",
    "value",
)
_TEXT_COLUMNS = [
    "error",
    "pattern",
    "size",
    "task",
    "start",
    "second_pattern",
    "metric",
    "tap",
    "second_tap",
]
_TIMES = ("step_milliseconds", "tokens_per_second", "training_seconds")


@functools.cache
def task_name(task: str) -> str:
    """The last part of a task's path: a task may be a name or a folder; `ud:pos` of a treebank."""
    if task.startswith("ud:"):
        return ":".join(task.split(":")[:2])
    return pathlib.PurePath(task.partition(":")[0] if task.endswith(".zip") else task).name


def tidy(cells: Iterable[dict[str, Any]], kinds: Iterable[Kind]) -> pd.DataFrame:
    """The frame of all cells.

    Args:
        cells: as in results.json.
        kinds: those of the cells, which give the rows of a result.

    Returns:
        `COLUMNS`; a row per number. A cell without a number has one row, whose `metric` is empty;
        its `status` and `error` say why. What a cell does not have is empty or NaN.
    """
    kinds = {kind.name: kind for kind in kinds}
    rows = [row for cell in cells for row in _rows(cell, kinds[cell["kind"]])]
    # As objects, columns lie in one block, from which pandas takes rows fast.
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    frame[_TEXT_COLUMNS] = frame[_TEXT_COLUMNS].fillna("")
    return frame.astype({"seconds": float, "value": float})


def _rows(cell: dict[str, Any], kind: Kind) -> Iterator[dict[str, Any]]:
    label = cell["label"]
    first, second = label.get("first", label), label.get("second", {})
    row = {
        "cell": cell["name"],
        **{key: cell[key] for key in ("kind", "status", "error", "seconds")},
        "pattern": first.get("pattern"),
        "seed": first.get("pretraining_seed", first.get("seed")),
        "budget": label.get("budget", budgets.STEPS),
        "size": label.get("size"),
        "task": task_name(label.get("task", "")),
        "start": label.get("start"),
        **{f"second_{key}": second.get(key) for key in ("pattern", "seed", "trained")},
    }
    metric_rows = list(kind.rows(cell["result"])) if cell["result"] else []
    yield from (row | metric_row for metric_row in metric_rows or [{}])


def view(whole: pd.DataFrame, config: StudyConfig, budget: str, size: str) -> pd.DataFrame:
    """The rows that one budget and size of encoders have, with the times of steps in turn.

    The reference is the same in all budgets. Where an encoder of equal steps is also that of this
    budget, its rows are repeated here under the name of the pattern that it stands for.
    """
    of_size = whole[whole["size"] == size]
    plain = of_size[of_size["budget"] == budgets.STEPS]
    reference, *_ = config.canonical_patterns
    if budget == budgets.STEPS:
        return _with_times_in_turn(plain, of_size, reference)
    parts = [of_size[of_size["budget"] == budget], plain[plain["pattern"] == reference]]
    for pattern in budgets.compared(config):
        try:
            other = budgets.same_as(config, pattern, budget, size)
        except InputError:
            continue
        rows = plain[plain["pattern"] == (other or pattern)].assign(pattern=pattern)
        if other is None:
            # Steps or weights differ, but the step time does not, so reuse the timing. A partner
            # of equal parameters has a timing of its own.
            rows = rows[(rows["kind"] == "timing") & (budget not in PARTNERS)]
        parts.append(rows)
    return _with_times_in_turn(pd.concat(parts, ignore_index=True), of_size, reference)


def _with_times_in_turn(seen: pd.DataFrame, of_size: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Gives pre-trainings the step times that were measured with the patterns in turn.

    The speed and load of a machine change over the hours of a run, but hardly within a round of
    the timing. So the step time of the reference is the median of all its rounds, and that of a
    pattern is this median times the median of the pattern's ratios to the reference. A pattern
    without a timing has no step time. Without any timing, the times of the runs stay.
    """
    reference_times = of_size.loc[of_size["metric"] == "reference_milliseconds", "value"]
    if reference_times.empty:
        return seen
    ratios = seen[(seen["kind"] == "timing") & (seen["metric"] == "ratio")]
    milliseconds = reference_times.median() * ratios.groupby("pattern")["value"].median()
    milliseconds[reference] = reference_times.median()
    timed = (seen["kind"] == "pretraining") & seen["metric"].isin(_TIMES)
    rows = seen[timed]
    is_step = rows["metric"] == "step_milliseconds"
    in_turn = rows["pattern"].map(milliseconds)
    runs = rows["value"].where(is_step).groupby([rows["cell"], rows["pattern"]])
    # A run that resumed with no step left has no step time of its own; its totals stay.
    slower = in_turn / runs.transform("first")
    slower = slower.where(slower.notna() | in_turn.isna(), 1.0)
    is_rate = rows["metric"] == "tokens_per_second"
    totals = (rows["value"] * slower).where(~is_rate, rows["value"] / slower)
    return seen.assign(value=seen["value"].mask(timed, totals.where(~is_step, in_turn)))
