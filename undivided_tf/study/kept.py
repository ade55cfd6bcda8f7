"""Resuming a study whose results.json was kept, but not the directories of its cells."""

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
        outcomes = files.read_json(path)["cells"]
        kept = {outcome["name"]: outcome for outcome in outcomes if outcome["status"] == FINISHED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no results.json of a study: {error!r}") from error
    if not kept.keys() & {cell.name for cell in cells}:
        raise InputError(
            f"{path} has no finished cell of this study: give the flags that it was made with"
        )
    return kept


def take_up(cells: list[Cell], workdir: str | os.PathLike, kept: Outcomes) -> list[Cell]:
    """Marks the cells with kept outcomes as finished in the study's directory.

    A cell whose files are gone but needed, such as the weights of an encoder that is still to
    be fine-tuned, runs again; its new result then replaces the kept one. The cells that need it
    add least for their time, so they come a turn later, after those that need no such cell.

    Args:
        cells: as `grid.expand` gives.
        workdir: the study's directory, which receives `finished.json` of the others.
        kept: as `read` gives.

    Returns:
        The cells, those that run again right before the first that needs them.
    """
    finished, new = sort_out(cells, workdir, kept)
    for cell in finished:
        name = _actual_name(cell, kept)
        if not mark(workdir, name).exists():
            files.write_json(mark(workdir, name), kept[name])
    placed = {cell.name: cell for cell in finished}
    for cell in cells:
        if cell.name not in placed:  # Else the mark of a kept result would end it at once.
            mark(workdir, _actual_name(cell, kept)).unlink(missing_ok=True)
    behind = {cell.name: _trains_again(cell, placed, kept) for cell in new}
    for cell in sorted(new, key=lambda c: (c.turn + behind[c.name], behind[c.name])):
        _place(cell, placed, cell.turn + behind[cell.name])
    return list(placed.values())


def sort_out(
    cells: list[Cell], workdir: str | os.PathLike, kept: Outcomes
) -> tuple[list[Cell], list[Cell]]:
    """Cells that count as finished, and those that never ran, both in their order.

    In neither list are cells that must run again: their outcomes are kept, but their files are
    needed. Writes nothing.
    """
    needed: set[str] = set()
    finished, new = [], []
    for cell in reversed(cells):  # Those that need others come first.
        name = _actual_name(cell, kept)
        if cell.name in needed:
            is_finished = mark(workdir, name).exists() and _has_files(workdir, name)
        else:
            is_finished = mark(workdir, name).exists() or name in kept
        if is_finished:
            finished.append(cell)
        else:
            if name not in kept:
                new.append(cell)
            needed.update(need.name for need in cell.places.values())
    return finished[::-1], new[::-1]


def _has_files(workdir: str | os.PathLike, name: str) -> bool:
    """Whether a finished cell left more than its result, which may be a kept one."""
    return len(list(mark(workdir, name).parent.iterdir())) > 1


def _actual_name(cell: Cell, kept: Outcomes) -> str:
    """The name under which the cell ran, where measured times gave it its steps."""
    return (resolved(cell, lambda need: kept.get(need.name)) or cell).name


def _trains_again(cell: Cell, placed: dict[str, Cell], kept: Outcomes) -> bool:
    """Whether a cell needs an encoder trained again, of which only the results are kept."""
    return cell.name not in placed and (
        (cell.kind.name == "pretraining" and _actual_name(cell, kept) in kept)
        or any(_trains_again(need, placed, kept) for need in cell.needs)
    )


def _place(cell: Cell, placed: dict[str, Cell], turn: int) -> None:
    """Puts a cell behind those that it needs."""
    if cell.name not in placed:
        for need in cell.needs:
            _place(need, placed, turn)
        placed[cell.name] = dataclasses.replace(cell, turn=turn)


def filled(
    cells: list[Cell], outcomes: list[dict[str, Any]], kept: Outcomes
) -> list[dict[str, Any]]:
    """The outcomes of cells; that of a cell which has not run again yet is the kept one."""
    return [
        kept.get(_actual_name(cell, kept), outcome) if outcome["status"] == NOT_RUN else outcome
        for cell, outcome in zip(cells, outcomes, strict=True)
    ]
