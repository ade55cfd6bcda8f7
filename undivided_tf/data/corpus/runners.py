"""Runners: execute the jobs that make records.

A job is called with an item and yields the bytes that it processed since the last yield. It writes
its results to files atomically, so it may run anywhere, in any order and more than once. Jobs and
items must be picklable. Needs no TensorFlow.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import logging

from undivided_tf.data.corpus.config import BEAM_RUNNERS, RecordsConfig
from undivided_tf.support import cluster, progress

Job = Callable[[Any], Iterator[int]]
# Items per worker that run or wait at a time, since all items would need much memory.
_WAITING = 2
# More threads would wait for Python's global lock.
_THREADS = 4


def check(config: RecordsConfig) -> None:
    """Raises InputError if the runner is not installed or does not know its options."""
    if config.runner in BEAM_RUNNERS:
        from undivided_tf.data.corpus import beam_runner

        beam_runner.pipeline_options(config)


def run(
    config: RecordsConfig,
    job: Job,
    items: Sequence[Any],
    description: str,
    total: int | None = None,
    expand: Callable[[Any], Iterable[Any]] | None = None,
) -> None:
    """Runs a job for all items; shows progress, except under Apache Beam, which has its own.

    Args:
        config: gives the runner, see `RecordsConfig`.
        job: function of an item.
        items: the arguments of the job.
        description: description of the work, for the progress bar.
        total: bytes of all work; None if unknown.
        expand: function from one of `items` to several arguments of the job.

    Raises:
        InputError: as the job, as `check` and as `cluster.connect`.
        RuntimeError: workers died repeatedly.
    """
    if config.runner in BEAM_RUNNERS:
        from undivided_tf.data.corpus import beam_runner

        logging.info("%s: %d items for %s", description, len(items), config.runner)
        beam_runner.run(config, job, items, expand)
        return
    with progress.bar(total, description, "bytes") as bar:
        if expand is None and len(items) == 1:  # Workers would take time to start.
            for done in job(items[0]):
                bar.update(done)
        else:
            _run_pool(config, job, items, bar.update, expand)


@contextlib.contextmanager
def _pool(config: RecordsConfig) -> Iterator[tuple[concurrent.futures.Executor, int]]:
    """A pool of threads or of Dask workers, and its size.

    Threads suffice in one process, since TensorFlow and NumPy release Python's global lock.
    """
    if config.runner == "dask":
        processes = config.num_processes or os.cpu_count()
        with cluster.connect(config.scheduler, processes) as client:
            pool = client.get_executor(pure=False)
            try:
                yield pool, max(1, sum(client.nthreads().values()))
            finally:
                pool.shutdown(wait=False)
    else:
        number = min(os.cpu_count(), _THREADS)
        pool = concurrent.futures.ThreadPoolExecutor(number)
        try:
            yield pool, number
        finally:
            pool.shutdown(cancel_futures=True)


def _run_pool(
    config: RecordsConfig,
    job: Job,
    items: Sequence[Any],
    update: Callable[[int], Any],
    expand: Callable[[Any], Iterable[Any]] | None,
) -> None:
    """Submits items to the workers, a few more than they can process at a time."""
    waiting: set[concurrent.futures.Future] = set()
    with _pool(config) as (pool, number):
        for item in items:
            for part in expand(item) if expand else (item,):
                waiting.add(pool.submit(_total, job, part))
                if len(waiting) >= _WAITING * number:
                    waiting = _finish(waiting, update, concurrent.futures.FIRST_COMPLETED)
        _finish(waiting, update, concurrent.futures.ALL_COMPLETED)


def _finish(
    waiting: set[concurrent.futures.Future], update: Callable[[int], Any], until: str
) -> set[concurrent.futures.Future]:
    """Waits; returns the unfinished futures. Raises the error of a failed job."""
    done, waiting = concurrent.futures.wait(waiting, return_when=until)
    for future in done:
        try:
            update(future.result())
        except Exception as error:
            if type(error).__name__ != "KilledWorker":  # By name: Dask may not be imported.
                raise
            raise RuntimeError(
                "workers were killed while they made records, perhaps for lack of memory: use "
                "fewer (--num_processes); the same command resumes the work"
            ) from error
    return waiting


def _total(job: Job, item: Any) -> int:
    return sum(job(item))
