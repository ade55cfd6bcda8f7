"""Many small matrix products at once: a thread a product, not all threads on each.

BLAS splits even small products among all cores and waits for the slowest. Of 256 x 768 matrices
that takes ten times as long as one thread does, where the cores are not idle.
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
    """Results of a function for each item, in their order; the items share the cores.

    Args:
        function: spends its time in NumPy, which lets other threads run.
        items: its arguments.
    """
    items = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with _controller().limit(limits=1, user_api="blas"):
        if min(cores, len(items)) < 2:  # A thread would take longer to start than to work.
            return list(map(function, items))
        with concurrent.futures.ThreadPoolExecutor(cores) as pool:
            return list(pool.map(function, items))
