"""Connections to a Dask cluster: one started on this machine, or one that already stands.

Each worker process offers one unit of the resource `machine`. Work that must have a machine to
itself takes all of it; other work takes a share, so that a known number runs side by side.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

from undivided_tf.errors import InputError

MACHINE = "machine"
_CONNECT_SECONDS = 10
# Shares of a machine are multiples of this, so that Dask's sums of them are exact.
_GRAIN = 2.0**-20


def share(number: int) -> dict[str, float]:
    """The resources of one of `number` pieces of work that a machine does at the same time."""
    return {MACHINE: int(1 / number / _GRAIN) * _GRAIN}


@contextlib.contextmanager
def connect(scheduler: str = "", processes: int = 1, threads: int = 1) -> Iterator[Any]:
    """Yields a `distributed.Client`, and closes what it started.

    Args:
        scheduler: address of a standing scheduler, such as `tcp://HOST:8786`; empty: start a
            cluster on this machine that listens on the loopback interface alone.
        processes: worker processes of the cluster that is started.
        threads: pieces of work that each of them does at the same time.

    Raises:
        InputError: nothing answers at the address.
    """
    import distributed

    if scheduler:
        try:
            client = distributed.Client(scheduler, timeout=_CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {scheduler}: {error}; start one with `dask "
                "scheduler`, or leave --scheduler out to use this machine"
            ) from error
        with client:
            yield client
        return
    # Bokeh draws the dashboard; without it Dask would serve an empty page.
    dashboard = "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None
    # Logs of Dask are about its own life; what concerns the user is said by us.
    logging.getLogger("distributed").propagate = False
    with (
        distributed.LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            host="127.0.0.1",
            dashboard_address=dashboard,
            memory_limit=None,
            resources={MACHINE: 1},
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
