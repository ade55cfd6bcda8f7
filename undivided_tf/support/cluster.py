"""Connections to a Dask cluster: a new one on this machine, or an existing one.

Each worker process offers one unit of the resource `machine`. A task that needs a whole machine
takes the unit. Other tasks take a share, which limits how many run at the same time.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from undivided_tf.errors import InputError

MACHINE = "machine"
_CONNECT_SECONDS = 10
# Shares of a machine are multiples of this, so that Dask's sums of them are exact.
_GRAIN = 2.0**-20


def share(number: int) -> dict[str, float]:
    """The resources of one task if a machine runs `number` tasks at the same time."""
    return {MACHINE: int(1 / number / _GRAIN) * _GRAIN}


@contextlib.contextmanager
def connect(scheduler: str = "", processes: int = 1, threads: int = 1) -> Iterator[Any]:
    """Yields a `distributed.Client`; closes it, and a cluster that was started, at the end.

    Args:
        scheduler: address of an existing scheduler, such as `tcp://HOST:8786`; empty: start a
            cluster on this machine that listens on the loopback interface alone.
        processes: worker processes of the cluster that is started.
        threads: tasks that each worker process runs at the same time.

    Raises:
        InputError: no scheduler answers at the address.
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
    # Dask logs its own internals. This package reports what concerns the user.
    logging.getLogger("distributed").propagate = False
    finished = False
    try:
        with (
            distributed.LocalCluster(
                n_workers=processes,
                threads_per_worker=threads,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # Any free port; None would be port 8787.
                memory_limit=None,
                resources={MACHINE: 1},
                silence_logs=50,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
            finished = True
    except TimeoutError as error:
        # A busy machine may take longer to end worker processes than Dask waits for them.
        if not finished:
            raise
        logging.warning("the workers were killed, but have not ended yet: %r", error)
