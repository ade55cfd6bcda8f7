"""What a Dask worker does for a study: it runs a cell in a process of its own.

On Linux the process is forked from a server that has imported TensorFlow and done nothing with
it: so TensorFlow is imported once a worker, and yet each cell has memory of its own, and dies
alone. The worker itself stays light and answers its scheduler at any time.
"""

import dataclasses
import importlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import Any

from undivided_tf.config import Config
from undivided_tf.errors import InputError
from undivided_tf.study import outcomes
from undivided_tf.study.cells import FAILED, Cell
from undivided_tf.study.outcomes import Outcome
from undivided_tf.support import process, progress

PRELOADED = ["undivided_tf.support.quiet", "tensorflow", "keras", "tensorflow_text"]
TOPIC = "undivided_tf.cells"  # Of the events by which workers tell what they do.
_POLL_SECONDS = 0.5
# A cancelled cell may end its step and save.
_GRACE_SECONDS = 60.0
_children: set[Any] = set()  # Processes of the cells that run here.


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a study's cells are run.

    Attributes:
        workdir: absolute path of the study's directory, which all workers see.
        directory: the one that relative paths of recipes start from.
        threads: of TensorFlow's operations for a cell that shares its machine; 0: all cores.
    """

    workdir: str
    directory: str
    threads: int


def run_cell(cell: Cell, site: Site, *needs: Outcome) -> Outcome:
    """Runs a cell, unless it is finished, and writes down what came of it.

    Args:
        cell: as `grid.expand` gives.
        site: where.
        needs: outcomes of the cells that it needs.

    Returns:
        Its outcome; a failure is one as well.
    """
    failed = [need["name"] for need in needs if need["status"] == FAILED]
    if failed:
        return outcomes.outcome(cell, error=f"needs {', '.join(failed)}")
    if not pathlib.Path(site.workdir).is_dir():
        return outcomes.outcome(
            cell, error=f"worker {process.machine()} does not see the folder {site.workdir}"
        )
    earlier_outcome = outcomes.read(cell, site.workdir)
    if earlier_outcome and earlier_outcome["status"] != FAILED:
        return earlier_outcome
    actual = outcomes.actual(cell, site.workdir)
    recipe = outcomes.placed(actual, pathlib.Path(site.workdir) / "cells")
    outcome = _in_own_process(actual, recipe, site)
    outcomes.write(outcome, site.workdir)
    return outcome


def _in_own_process(cell: Cell, recipe: Config, site: Site) -> Outcome:
    context = _context()
    log = pathlib.Path(site.workdir) / "logs" / f"{cell.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
        target=_child,
        args=(theirs, cell.kind.call, recipe, str(log), site, 0 if cell.alone else site.threads),
    )
    child.start()
    _children.add(child)
    theirs.close()  # So that the end of the process ends the pipe.
    reporter = _Reporter(cell)
    reporter.say("begins")
    try:
        while True:
            if ours.poll(_POLL_SECONDS):
                kind, *content = ours.recv()
                if kind == "progress":
                    reporter.say(*content)
                    continue
                return _outcome(cell, kind, content, log)
            if reporter.cancelled():
                child.terminate()
                child.join(_GRACE_SECONDS)
                raise RuntimeError(f"cell {cell.name} was cancelled")
    except EOFError:
        return outcomes.outcome(
            cell, error=f"its process died: killed, perhaps for want of memory (log: {log})"
        )
    finally:
        child.kill()
        child.join()
        _children.discard(child)
        reporter.say("")


def _outcome(cell: Cell, kind: str, content: list[Any], log: pathlib.Path) -> Outcome:
    if kind == "error":
        return outcomes.outcome(cell, error=content[0])
    result, seconds, compiling_seconds = content
    outcome = outcomes.outcome(cell, {**result, **cell.label}, seconds)
    return {**outcome, "compiling_seconds": compiling_seconds}


def running() -> int:
    """How many cells run on this worker."""
    return len(_children)


class _Reporter:
    """Tells the scheduler what a cell does, and notices when the cell is cancelled."""

    def __init__(self, cell: Cell):
        import distributed

        self.name = cell.name
        try:
            self.worker = distributed.get_worker()
            self.key = self.worker.get_current_task()
        except ValueError:  # There is no cluster.
            self.worker = None

    def say(self, text: str) -> None:
        """Sends what the cell does; an empty text says that it has ended."""
        if self.worker:
            self.worker.log_event(TOPIC, {"cell": self.name, "text": text})

    def cancelled(self) -> bool:
        """Whether the client, and so the scheduler, has cancelled the cell."""
        if not self.worker:
            return False
        task = self.worker.state.tasks.get(self.key)
        return task is None or task.state == "cancelled"


def _context() -> Any:
    # A daemonic process may have no children, and Dask's nanny makes its worker one.
    multiprocessing.current_process().daemon = False
    process.set_up()  # Before the server imports TensorFlow.
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _child(pipe: Any, call: str, recipe: Config, log: str, site: Site, threads: int) -> None:
    """The process of a cell: its output goes to its log, its result through the pipe."""
    process.leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The client gets it, and cancels.
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if threads:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    lock = threading.Lock()  # A bar speaks from a thread of its own.

    def tell(*message: Any) -> None:
        with lock:
            pipe.send(message)

    progress.report_to(lambda text: tell("progress", text))
    try:
        if not os.path.isdir(site.directory):
            raise InputError(f"this worker does not see the folder {site.directory}")
        os.chdir(site.directory)
        started = time.perf_counter()
        module, _, name = call.partition(":")
        result = getattr(importlib.import_module(module), name)(recipe)
        seconds = time.perf_counter() - started
        tell("result", result, seconds, progress.compiling_seconds())
    except Exception as error:  # Whatever it is, the other cells still run; it is reported.
        traceback.print_exc()
        tell("error", f"{type(error).__name__}: {error}")
