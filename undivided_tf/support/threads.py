"""Runs many small matrix products in parallel, one thread per product.

BLAS splits even small products among all cores and waits for the slowest core. If the cores are
busy, this takes ten times as long as one thread for 256 x 768 matrices.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

from threadpoolctl import ThreadpoolController


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Applies a function to all items in a thread pool; returns the results in order.

    Args:
        function: spends its time in NumPy, which releases the GIL.
        items: the arguments of the calls.
    """
    items = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with _controller().limit(limits=1, user_api="blas"):
        if min(cores, len(items)) < 2:  # Starting threads would take longer than the work.
            return list(map(function, items))
        with concurrent.futures.ThreadPoolExecutor(cores) as pool:
            return list(pool.map(function, items))
