"""Times of calls in turn, so that what slows the machine for a while slows all of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

Name = TypeVar("Name", str, int)


def in_turn(
    calls: Mapping[Name, Callable[[], object]], rounds: int, repeats: int = 1
) -> Iterator[dict[Name, float]]:
    """Times calls round by round, after one of each that warms up and may compile.

    Args:
        calls: by any name.
        rounds: in each of which every call has its turn; they begin with the last or the first
            by turns.
        repeats: calls between two readings of the clock, whose grain a short call feels.

    Yields:
        Of every round, the mean milliseconds of each call, by its name.
    """
    for call in calls.values():
        call()
    names = list(calls)
    for number in range(rounds):
        taken = {}
        for name in names if number % 2 else names[::-1]:
            start = time.perf_counter()
            for _ in range(repeats):
                calls[name]()
            taken[name] = 1000 * (time.perf_counter() - start) / repeats
        yield taken
