"""The cells of a study: what there is to run, and in which order."""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.study import budgets, kinds
from undivided_tf.study.cells import Cell
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.kinds import pretraining


def expand(config: StudyConfig) -> list[Cell]:
    """All cells of a study, in the order in which they run.

    The core patterns have had one seed before any of them has its second, so that an interrupted
    study is balanced. Behind these come the other patterns and other budgets, in the same way.

    Raises:
        InputError: budget `parameters` without the shape of any partner, or texts longer than
            what the encoders take.
    """
    if budgets.PARAMETERS in config.budgets and not config.shapes:
        raise InputError(
            "budget parameters needs the shapes that pilot seeds found best: give "
            "--learning_rate_sweep of a run_sweep with --partners, or partner_shapes"
        )
    cells: dict[str, Cell] = {}
    rank = {}
    for size in ("", *config.sizes):
        encoders = pretraining.encoders(config, size)
        for place, kind in enumerate(kinds.of(config)):
            rank[kind.name] = place
            if kind.included(config):
                cells |= {cell.name: cell for cell in kind.cells(config, encoders)}
    for cell in cells.values():
        _require_length(cell)
    return sorted(
        cells.values(), key=lambda cell: (cell.turn, "budget" in cell.label, rank[cell.kind.name])
    )


def _require_length(cell: Cell) -> None:
    """Raises InputError when the texts of a cell are longer than what its encoders take."""
    length = getattr(cell.recipe, "max_seq_length", 0)
    read = [n.recipe.encoder for n in cell.places.values() if hasattr(n.recipe, "encoder")]
    try:
        for encoder in read:
            encoder.require_length(length)
    except InputError as error:
        name = cell.kind.section or cell.kind.name
        raise InputError(
            f"{name}.{error}: lower --{name}.max_seq_length, or raise "
            "--pretraining.max_position_embeddings"
        ) from None


def resolved(cell: Cell, outcome_of: Callable[[Cell], dict[str, Any] | None]) -> Cell | None:
    """The cell with the steps that measured times give it; likewise the cells that it needs.

    The steps are those of equal steps over the median ratio of the rounds. They become part of the
    recipe, and so of the hash: after another measurement the cell is another one.

    Args:
        cell: as `expand` gives.
        outcome_of: the outcome of a cell, None while it has none or has failed.

    Returns:
        The cell itself if no time decides its steps; None while times are not known.
    """
    places = {field: resolved(need, outcome_of) for field, need in cell.places.items()}
    if None in places.values():
        return None
    if cell.timing:
        outcome = outcome_of(cell.timing)
        if outcome is None:
            return None
        rows = cell.timing.kind.rows(outcome["result"])
        ratio = statistics.median(row["value"] for row in rows if row["metric"] == "ratio")
        recipe = budgets.with_steps(cell.recipe, 1 / ratio)
        return dataclasses.replace(cell, recipe=recipe, places=places)
    changed = any(places[field] is not need for field, need in cell.places.items())
    return dataclasses.replace(cell, places=places) if changed else cell
