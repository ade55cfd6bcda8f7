"""Processes that run the cells of a study."""

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import os
import sys
from typing import Any, Self

from undivided_tf import progress
from undivided_tf.data.runners import leave_with_parent

PRELOADED = ["tensorflow", "keras", "tensorflow_text"]


class Workers:
    """Fresh processes, each in a pool of its own.

    A process that dies breaks its pool, and in a common one that would fail the cells of the
    others as well. On Linux all are forked from a server that has imported TensorFlow and done
    nothing with it, since one that has worked does not survive a fork; elsewhere each imports it.

    Args:
        number: of the workers, which share the cores.
    """

    def __init__(self, number: int):
        if sys.platform == "linux":
            self.context = multiprocessing.get_context("forkserver")
            self.context.set_forkserver_preload(PRELOADED)
        else:
            self.context = multiprocessing.get_context("spawn")
        self.terminal = self.context.RLock()
        self.threads = max(1, (os.cpu_count() or 1) // number)
        self.pools: list[concurrent.futures.ProcessPoolExecutor | None] = [None] * number
        self.last: list[concurrent.futures.Future | None] = [None] * number

    def alone(self) -> concurrent.futures.ProcessPoolExecutor:
        """A worker for one call, which has all cores."""
        return self._pool(1, 0)

    def submit(self, *call: Any, fresh: bool = False) -> concurrent.futures.Future:
        """Gives a call to a worker that has none, or to a fresh one in its place."""
        place = next(i for i, last in enumerate(self.last) if last is None or last.done())
        last, pool = self.last[place], self.pools[place]
        died = last and isinstance(last.exception(), concurrent.futures.process.BrokenProcessPool)
        if pool and (fresh or died):
            pool.shutdown()
            pool = None
        self.pools[place] = pool = pool or self._pool(place + 1, self.threads)
        self.last[place] = last = pool.submit(*call)
        return last

    def _pool(self, line: int, threads: int) -> concurrent.futures.ProcessPoolExecutor:
        """A pool of one process, started with its first call."""
        return concurrent.futures.ProcessPoolExecutor(
            1,
            self.context,
            initializer=_start_worker,
            initargs=(threads, line, self.terminal),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in filter(None, self.pools):
            pool.shutdown()


def _start_worker(threads: int, line: int, terminal: Any) -> None:
    """Ends this process with its parent: a killed study must leave no writer behind.

    Args:
        threads: for TensorFlow's operations; 0 leaves the choice to it.
        line: of the terminal for its progress, below the study's.
        terminal: lock shared by all who write there.
    """
    leave_with_parent()
    progress.share_terminal(line, terminal)
    if threads:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
