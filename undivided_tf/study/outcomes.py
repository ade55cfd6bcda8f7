"""The outcomes of the cells of a study: one file a cell, and no other state.

A cell that is finished has `WORKDIR/cells/NAME/finished.json`; one that failed has
`WORKDIR/failures/NAME.json`, which the next call that runs it replaces.
"""

import os
import pathlib
from typing import Any

from undivided_tf.config import Config
from undivided_tf.study.cells import FAILED, FINISHED, NOT_RUN, Cell
from undivided_tf.study.grid import resolved
from undivided_tf.support import files, process

Outcome = dict[str, Any]


def outcome(
    cell: Cell,
    result: Any = None,
    seconds: float | None = None,
    error: str | None = None,
    status: str = "",
) -> Outcome:
    """`name`, `kind`, `label`, `status`, `error`, `seconds`, `machine` and `result` of a cell.

    A cell that ran has `compiling_seconds` of its first training steps, too.
    """
    return {
        "name": cell.name,
        "kind": cell.kind.name,
        "label": cell.label,
        "status": status or (FAILED if error else FINISHED),
        "error": error,
        "seconds": seconds,
        "machine": process.machine(),
        "result": result,
    }


def mark(workdir: str | os.PathLike, name: str) -> pathlib.Path:
    """The file that says that a cell is finished."""
    return pathlib.Path(workdir) / "cells" / name / "finished.json"


def _failure(workdir: str | os.PathLike, name: str) -> pathlib.Path:
    return pathlib.Path(workdir) / "failures" / f"{name}.json"


def write(cell_outcome: Outcome, workdir: str | os.PathLike) -> None:
    """Writes an outcome atomically."""
    failure = _failure(workdir, cell_outcome["name"])
    if cell_outcome["status"] == FINISHED:
        files.write_json(mark(workdir, cell_outcome["name"]), cell_outcome)
        files.remove(failure)
    else:
        files.write_json(failure, cell_outcome)


def actual(cell: Cell, workdir: str | os.PathLike) -> Cell | None:
    """The cell with the steps that measured times give it; None while these are not known."""

    def finished(need: Cell) -> Outcome | None:
        cell_outcome = read(need, workdir)
        return cell_outcome if cell_outcome and cell_outcome["status"] == FINISHED else None

    return resolved(cell, finished)


def read(cell: Cell, workdir: str | os.PathLike) -> Outcome | None:
    """The outcome of a cell; None until it has one."""
    with_steps = actual(cell, workdir)
    if with_steps is None:
        return None
    for path in (mark(workdir, with_steps.name), _failure(workdir, with_steps.name)):
        if path.exists():
            return files.read_json(path)
    return None


def listed(cells: list[Cell], workdir: str | os.PathLike) -> list[Outcome]:
    """One outcome a cell, in their order; a cell that needs a failed one has failed as well."""
    by_name: dict[str, Outcome] = {}
    for cell in sorted(cells, key=_depth):
        failed = [
            need.name for need in cell.needs if by_name.get(need.name, {}).get("status") == FAILED
        ]
        written = read(cell, workdir)
        if written is None and failed:
            written = outcome(cell, error=f"needs {', '.join(failed)}")
        by_name[cell.name] = written or outcome(cell, status=NOT_RUN)
    return [by_name[cell.name] for cell in cells]


def _depth(cell: Cell) -> int:
    return 1 + max(map(_depth, cell.needs), default=0)


def placed(cell: Cell, root: pathlib.Path) -> Config:
    """The recipe with its own directory and those of the cells that it needs."""
    places = {field: str(root / need.name) for field, need in cell.places.items()}
    return cell.recipe.replace(**{cell.kind.home: str(root / cell.name)}, **places)
