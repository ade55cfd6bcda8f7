"""Going on with a study of which results.json was kept, but not the directories of its cells."""

import dataclasses
import os
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.study.cells import FINISHED, NOT_RUN, Cell
from undivided_tf.study.grid import resolved
from undivided_tf.study.outcomes import mark
from undivided_tf.support import files

Outcomes = dict[str, dict[str, Any]]


def read(path: str | os.PathLike, cells: list[Cell]) -> Outcomes:
    """The finished cells of a kept results.json, by name.

    Raises:
        InputError: the file is absent, no results of a study, or of a study with other cells.
    """
    try:
        kept = files.read_json(path)["cells"]
        told = {cell["name"]: cell for cell in kept if cell["status"] == FINISHED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no results.json of a study: {error!r}") from error
    if not told.keys() & {cell.name for cell in cells}:
        raise InputError(
            f"{path} has no finished cell of this study: give the flags that it was made with"
        )
    return told


def take_up(cells: list[Cell], workdir: str | os.PathLike, told: Outcomes) -> list[Cell]:
    """Marks what is told of as finished in the study's directory.

    A cell whose files are gone but needed, such as the weights of an encoder that is still to
    be fine-tuned, runs again; its new result then takes the place of the kept one. Since it
    adds least for its time, it comes a turn later than what needs it would, behind what is new.

    Args:
        cells: as `grid.expand` gives.
        workdir: the study's directory, which receives `finished.json` of the others.
        told: as `read` gives.

    Returns:
        The cells, those that run again right before the first that needs them.
    """
    finished, new = sort_out(cells, workdir, told)
    for cell in finished:
        name = _actual_name(cell, told)
        if not mark(workdir, name).exists():
            files.write_json(mark(workdir, name), told[name])
    placed = {cell.name: cell for cell in finished}
    behind = {cell.name: _trains_again(cell, placed, told) for cell in new}
    for cell in sorted(new, key=lambda c: (c.turn + behind[c.name], behind[c.name])):
        _place(cell, placed, cell.turn + behind[cell.name])
    return list(placed.values())


def sort_out(
    cells: list[Cell], workdir: str | os.PathLike, told: Outcomes
) -> tuple[list[Cell], list[Cell]]:
    """Cells that count as finished, and those that never ran, both in their order.

    In neither are those that are told of, but of which files are needed. Writes nothing.
    """
    needed: set[str] = set()
    finished, new = [], []
    for cell in reversed(cells):  # Those that need others come first.
        name = _actual_name(cell, told)
        if mark(workdir, name).exists() or (name in told and cell.name not in needed):
            finished.append(cell)
        else:
            if name not in told:
                new.append(cell)
            needed.update(need.name for need in cell.places.values())
    return finished[::-1], new[::-1]


def _actual_name(cell: Cell, told: Outcomes) -> str:
    """The name under which the cell ran, where measured times gave it its steps."""
    return (resolved(cell, lambda need: told.get(need.name)) or cell).name


def _trains_again(cell: Cell, placed: dict[str, Cell], told: Outcomes) -> bool:
    """Whether an encoder that is kept by its results alone must be trained for a cell."""
    return cell.name not in placed and (
        (cell.kind.name == "pretraining" and _actual_name(cell, told) in told)
        or any(_trains_again(need, placed, told) for need in cell.needs)
    )


def _place(cell: Cell, placed: dict[str, Cell], turn: int) -> None:
    """Puts a cell behind those that it needs."""
    if cell.name not in placed:
        for need in cell.needs:
            _place(need, placed, turn)
        placed[cell.name] = dataclasses.replace(cell, turn=turn)


def filled(outcomes: list[dict[str, Any]], told: Outcomes) -> list[dict[str, Any]]:
    """The outcomes; where a cell has not run again yet, the kept one."""
    return [
        told.get(outcome["name"], outcome) if outcome["status"] == NOT_RUN else outcome
        for outcome in outcomes
    ]
