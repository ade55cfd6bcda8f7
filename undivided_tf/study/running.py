"""Running the cells of a study that are not finished, in one process or dealt to several."""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from undivided_tf import files, progress
from undivided_tf.config import Config
from undivided_tf.errors import InputError
from undivided_tf.study.grid import Cell, resolved
from undivided_tf.study.leases import Leases, machine
from undivided_tf.study.results import FAILED, FINISHED, NOT_RUN
from undivided_tf.study.workers import Workers

POLL_SECONDS = 1.0
# So long nobody must have been at work before a share gives up waiting for another.
GRACE_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several processes does of a study.

    Attributes:
        number: from 1.
        of: processes in all.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Reads `2/3`.

        Raises:
            InputError: it is none.
        """
        number, _, of = text.partition("/")
        if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise InputError(f"cells must be i/n with i from 1 to n, such as 1/2, got {text!r}")

    def own(self, cells: list[Cell]) -> set[str]:
        """Names of the cells that are this share's."""
        return {cell.name for cell in cells[self.number - 1 :: self.of]}


WHOLE = Share()


def run(
    cells: list[Cell], workdir: str | os.PathLike, num_workers: int = 1, share: Share = WHOLE
) -> list[dict[str, Any]]:
    """Runs the cells that are not finished; one that fails does not stop the others.

    Args:
        cells: as `grid.expand` gives, needs before those that need them.
        workdir: the study's directory; several processes may share it.
        num_workers: cells that run at the same time, each on its share of the cores. What is
            timed runs alone, on all cores.
        share: of several processes, each of which claims the cells that it runs. It begins with
            its own, then helps the others; turn by turn, so that all have had one seed before
            any has its second.

    Returns:
        One dict a cell: `name`, `kind`, `label`, `status` (`finished`, `failed`, or `not run`
        where another share has it still to do), `error`, `seconds`, `machine` and `result`.
    """
    root = pathlib.Path(workdir) / "cells"
    with (
        progress.bar(len(cells), "study", "cells") as done,
        Workers(num_workers) as workers,
        Leases(pathlib.Path(workdir) / "claims") as leases,
    ):
        return _Run(cells, root, share, workers, num_workers, leases, done).run()


def outcomes(cells: list[Cell], workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """As `run` returns them, but runs nothing: what has no outcome yet is `not run`."""
    found = _Outcomes(cells, pathlib.Path(workdir) / "cells")
    found.settle()
    return found.listed()


class _Outcomes:
    """What is finished or failed, here or elsewhere."""

    def __init__(self, cells: list[Cell], root: pathlib.Path):
        self.cells, self.root, self.failures = cells, root, root.parent / "failures"
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.running: dict[concurrent.futures.Future, tuple[Cell, Cell]] = {}
        self.old_failures: dict[pathlib.Path, int] = {}

    def listed(self) -> list[dict[str, Any]]:
        """One a cell, in their order."""
        rest = {c.name: _outcome(c, status=NOT_RUN) for c in self.cells}
        return [self.outcomes.get(name, left) for name, left in rest.items()]

    def _actual(self, cell: Cell) -> Cell:
        """The cell with its steps, where times have given them."""
        found = resolved(cell, self._finished)
        return cell if found is None else found

    def _finished(self, cell: Cell) -> dict[str, Any] | None:
        outcome = self.outcomes.get(cell.name)
        return outcome if outcome and outcome["status"] == FINISHED else None

    def settle(self) -> None:
        """Takes notice of what is finished or failed, here or elsewhere."""
        here = {cell.name for cell, _ in self.running.values()}
        for cell in self.cells:
            if cell.name in self.outcomes or cell.name in here:
                continue
            failed = [
                need.name
                for need in cell.needs
                if self.outcomes.get(need.name, {}).get("status") == FAILED
            ]
            actual = resolved(cell, self._finished)
            finished = self.root / (actual or cell).name / "finished.json"
            failure = self.failures / f"{(actual or cell).name}.json"
            if actual and finished.exists():
                self._record(cell, files.read_json(finished))
            elif failed:
                self._record(cell, _outcome(cell, error=f"needs {', '.join(failed)}"))
            elif actual and failure.exists():
                if failure.stat().st_mtime_ns != self.old_failures.get(failure):
                    self._record(cell, files.read_json(failure))

    def _record(self, cell: Cell, outcome: dict[str, Any]) -> None:
        self.outcomes[cell.name] = outcome


class _Run(_Outcomes):
    """State of `run`: what has an outcome, what runs here, what is left."""

    def __init__(
        self, cells: list[Cell], root: pathlib.Path, share: Share, workers: Workers,
        num_workers: int, leases: Leases, done: Any,
    ):  # fmt: skip
        super().__init__(cells, root)
        self.workers, self.leases, self.num_workers, self.done = workers, leases, num_workers, done
        own = share.own(cells)
        # Turn by turn: own cells first, then those of the others.
        self.queue = sorted(cells, key=lambda c: (c.turn, c.name not in own))
        # Failures of earlier calls are tried again; those that come now are other processes'.
        self.old_failures = {p: p.stat().st_mtime_ns for p in self.failures.glob("*.json")}

    def run(self) -> list[dict[str, Any]]:
        """See the function of the same name."""
        idle_since = time.monotonic()
        while True:
            self.settle()
            if len(self.outcomes) == len(self.cells) and not self.running:
                break
            if self._start_next():
                idle_since = time.monotonic()
            elif self.running:
                concurrent.futures.wait(
                    self.running, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED"
                )
                self._collect()
                idle_since = time.monotonic()
            else:
                left = [cell for cell in self.cells if cell.name not in self.outcomes]
                if any(self.leases.is_taken(self._actual(cell).name) for cell in left):
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > GRACE_SECONDS:
                    break
                time.sleep(min(POLL_SECONDS, GRACE_SECONDS))
        return self.listed()

    def _record(self, cell: Cell, outcome: dict[str, Any]) -> None:
        super()._record(cell, outcome)
        self.done.update()

    def _start_next(self) -> bool:
        """Starts the first cell that can be started here; False when there is none now."""
        if len(self.running) >= self.num_workers:
            return False
        here = {cell.name for cell, _ in self.running.values()}
        for cell in self.queue:
            if cell.name in self.outcomes or cell.name in here:
                continue
            if any(self._finished(need) is None for need in cell.needs):
                continue
            if cell.alone and self.running:
                return False  # It has all cores: those that run come to their end first.
            actual = self._actual(cell)
            if not self.leases.take(actual.name):
                continue
            if (self.root / actual.name / "finished.json").exists():
                self.leases.release(actual.name)  # Another has finished it a moment ago.
                return True
            call = (_timed_call, actual.kind, placed(actual, self.root))
            if cell.alone:
                with self.workers.alone() as pool:
                    self._end(cell, actual, pool.submit(*call))
            else:
                self.running[self.workers.submit(*call, fresh=cell.isolated)] = cell, actual
            return True
        return False

    def _collect(self) -> None:
        for future in [future for future in self.running if future.done()]:
            self._end(*self.running.pop(future), future)

    def _end(self, cell: Cell, actual: Cell, future: concurrent.futures.Future) -> None:
        """Waits for a cell and writes its outcome down."""
        outcome = _outcome_of(actual, future)
        failure = self.failures / f"{actual.name}.json"
        if not self.leases.keeps(actual.name):
            # This process stood still for so long that another took the cell; its word counts.
            logging.warning("cell %s was taken over by another process", actual.name)
            self.leases.held.pop(actual.name, None)
            return
        if outcome["status"] == FINISHED:
            files.write_json(self.root / actual.name / "finished.json", outcome)
            files.remove(failure)
        else:
            files.write_json(failure, outcome)
        self._record(cell, outcome)
        self.leases.release(actual.name)


def placed(cell: Cell, root: pathlib.Path) -> Config:
    """The recipe with its own directory and those of the cells that it needs."""
    home = "output_dir" if cell.kind in ("records", "surgery") else "workdir"
    places = {field: str(root / need.name) for field, need in cell.places.items()}
    return cell.recipe.replace(**{home: str(root / cell.name)}, **places)


def _outcome(cell: Cell, result=None, seconds=None, error=None, status="") -> dict[str, Any]:
    return {
        "name": cell.name,
        "kind": cell.kind,
        "label": cell.label,
        "status": status or (FAILED if error else FINISHED),
        "error": error,
        "seconds": seconds,
        "machine": machine(),
        "result": result,
    }


def _outcome_of(cell: Cell, future: concurrent.futures.Future) -> dict[str, Any]:
    try:
        result, seconds = future.result()
    except concurrent.futures.process.BrokenProcessPool:
        logging.error("cell %s failed: its process died", cell.name)
        return _outcome(cell, error="its process died: killed, perhaps for want of memory")
    except Exception as error:  # Whatever it is, the other cells still run; it is reported.
        logging.error("cell %s failed", cell.name, exc_info=error)
        return _outcome(cell, error=f"{type(error).__name__}: {error}")
    return _outcome(cell, {**result, **cell.label}, seconds)


def _function(kind: str) -> Callable[[Any], dict[str, Any]]:
    """The library call of a kind; imported late, since each of them brings TensorFlow."""
    if kind == "records":
        from undivided_tf.data.records import create_records as call
    elif kind == "pretraining":
        from undivided_tf.study.calls import pretrain_and_time as call
    elif kind == "timing":
        from undivided_tf.training.timing import time_in_turn as call
    elif kind == "surgery":
        from undivided_tf.study.calls import operate_once as call
    elif kind == "finetuning":
        from undivided_tf.training.finetuning import finetune as call
    elif kind == "cka":
        from undivided_tf.analysis.similarity import run_cka as call
    elif kind == "probing":
        from undivided_tf.analysis.probing import run_probing as call
    elif kind == "diagnostics":
        from undivided_tf.analysis.diagnostics import run_diagnostics as call
    else:
        from undivided_tf.analysis.blimp import run_blimp as call
    return call


def _timed_call(kind: str, config: Config) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    result = _function(kind)(config)
    return result, time.perf_counter() - started
