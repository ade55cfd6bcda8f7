"""Running the cells of a study that are not finished, on a Dask cluster.

Dask decides where and when a cell runs: it knows what each needs, prefers cells that come first
in the grid, runs cells again whose worker died, and moves them to workers that join late. Only the
files of `outcomes` last: when the client, the scheduler or a worker is killed, the same command
resumes from them.
"""

import contextlib
import importlib.util
import itertools
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import tqdm
from absl import logging

from undivided_tf.errors import InputError
from undivided_tf.study import outcomes, worker
from undivided_tf.study.cells import FINISHED, Cell
from undivided_tf.study.outcomes import Outcome
from undivided_tf.study.worker import Site
from undivided_tf.support import cluster, progress

LOCK = ".running"
_POLL_SECONDS = 0.5
_STOP_SECONDS = 90.0
_RETRIES = 1  # Of a cell that one client cancelled and the next one submitted again.


def run(
    cells: list[Cell],
    workdir: str | os.PathLike,
    num_workers: int = 1,
    scheduler: str = "",
) -> list[Outcome]:
    """Runs the cells that are not finished; one that fails does not stop the others.

    Args:
        cells: as `grid.expand` gives, in the order in which they should run.
        workdir: the study's directory.
        num_workers: cells that run at the same time on each machine, each on its share of the
            cores. A cell that is timed has a machine to itself.
        scheduler: address of a standing Dask scheduler whose workers see `workdir`; empty: this
            machine.

    Returns:
        As `outcomes.listed`.

    Raises:
        InputError: no scheduler at that address, no worker of it offers the resource `machine`,
            or another process runs the study.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the cells were stopped first.
    """
    workdir = pathlib.Path(workdir).absolute()
    pairs = zip(cells, outcomes.listed(cells, workdir), strict=True)
    todo = [cell for cell, outcome in pairs if outcome["status"] != FINISHED]
    if todo:
        workdir.mkdir(parents=True, exist_ok=True)
        with _only_one(workdir), _stoppable():
            _run(todo, workdir, num_workers, scheduler, len(cells))
    return outcomes.listed(cells, workdir)


def _run(
    cells: list[Cell],
    workdir: pathlib.Path,
    num_workers: int,
    scheduler: str,
    number: int,
) -> None:
    site = Site(str(workdir), os.getcwd(), threads=max(1, (os.cpu_count() or 1) // num_workers))
    with (
        cluster.connect(scheduler, threads=num_workers) as client,
        progress.bar(number, "study", "cells", initial=number - len(cells)) as bar,
        _running_lines(client),
    ):
        _introduce(client, scheduler)
        futures = _submit(client, cells, site, num_workers)
        try:
            _wait(client, futures, bar, workdir)
        except BaseException:
            _cancel(client, futures)
            raise


def _introduce(client: Any, scheduler: str) -> None:
    """Says where the dashboard is; refuses workers that no cell could run on."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if importlib.util.find_spec("bokeh"):  # It draws the dashboard; without it the page is empty.
        logging.info("Dask's dashboard: %s", client.dashboard_link)
    if not workers:
        logging.warning("%s has no worker yet; waiting for one to join", scheduler)
    elif not any(cluster.MACHINE in (info["resources"] or {}) for info in workers):
        raise InputError(
            f"no worker of {scheduler} offers the resource `{cluster.MACHINE}`: start each with "
            f"`dask worker {scheduler} --resources {cluster.MACHINE}=1 --nthreads N`"
        )


def _submit(client: Any, cells: list[Cell], site: Site, num_workers: int) -> dict[Any, Cell]:
    """Futures of the cells, each behind those that it needs."""
    futures: dict[str, Any] = {}

    def submit(cell: Cell, priority: int) -> Any:
        if cell.name not in futures:
            needs = [submit(need, priority) for need in cell.needs if need.name in names]
            futures[cell.name] = client.submit(
                worker.run_cell,
                cell,
                site,
                *needs,
                key=cell.name,
                priority=priority,
                retries=_RETRIES,
                resources=cluster.share(1 if cell.alone else num_workers),
            )
            by_future[futures[cell.name]] = cell
        return futures[cell.name]

    names = {cell.name for cell in cells}  # The others are finished.
    by_future: dict[Any, Cell] = {}
    for place, cell in enumerate(cells):
        submit(cell, -place)
    return by_future


def _wait(client: Any, futures: dict[Any, Cell], bar: Any, workdir: pathlib.Path) -> None:
    """Waits until every cell has an outcome."""
    import distributed

    completed = distributed.as_completed(list(futures))
    while completed.count():
        batch = completed.next_batch(block=False)
        # A client that loses its scheduler cancels what it waits for, perhaps before it says so.
        cancelled = any(future.status == "cancelled" for future in batch)
        if cancelled or client.status != "running":
            raise InputError(
                "the Dask scheduler has gone away; finished cells are kept, and the same command "
                "resumes the study"
            )
        for future in batch:
            _note(futures[future], future, workdir)
            bar.update()
        if not batch:
            time.sleep(_POLL_SECONDS)


def _note(cell: Cell, future: Any, workdir: pathlib.Path) -> None:
    """Logs a failure, and writes it down if the worker died before it could."""
    error = future.exception() if future.status == "error" else None
    # Cells that need it fail with the same error.
    if getattr(error, "task", None) == cell.name:
        outcomes.write(outcomes.outcome(cell, error=f"its workers died: {error}"), workdir)
    outcome = future.result() if future.status == "finished" else {"error": error}
    if outcome["error"]:
        logging.error("cell %s failed: %s", cell.name, outcome["error"])


def _cancel(client: Any, futures: dict[Any, Cell]) -> None:
    """Stops the cells that run; those that train save first."""
    with contextlib.suppress(Exception):  # The scheduler may be what has gone away.
        client.cancel(list(futures), force=True)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(client.run(worker.running).values()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _only_one(workdir: pathlib.Path) -> Iterator[None]:
    """Locks the study's directory, since two processes would run the same cells."""
    import filelock

    lock = filelock.FileLock(workdir / LOCK)
    try:
        with lock.acquire(timeout=0):
            yield
    except filelock.Timeout as error:
        raise InputError(
            f"another process runs the study in {workdir}; to let several machines work on it, "
            "give that one --scheduler"
        ) from error


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Makes SIGTERM end the work as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _running_lines(client: Any) -> Iterator[None]:
    """On a terminal, shows a line for each running cell below the study's bar."""
    lines: dict[str, tuple[int, tqdm.tqdm]] = {}

    def show(event: tuple[float, dict[str, str]]) -> None:
        name, text = event[1]["cell"], event[1]["text"]
        if name in lines and not text:
            lines.pop(name)[1].close()
        elif text:
            if name not in lines:
                taken = {place for place, _ in lines.values()}
                place = next(i for i in itertools.count(1) if i not in taken)
                line = tqdm.tqdm(bar_format="{desc}", position=place, leave=False)
                lines[name] = place, line
            lines[name][1].set_description_str(f"  {name}  {text}")

    if sys.stderr.isatty():
        client.subscribe_topic(worker.TOPIC, show)
    try:
        yield
    finally:
        for _, line in lines.values():
            line.close()
