"""Alternating timings: a temporary slowdown of the machine affects all calls alike."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

Name = TypeVar("Name", str, int)


def in_turn(
    calls: Mapping[Name, Callable[[], object]], rounds: int, repeats: int = 1
) -> Iterator[dict[Name, float]]:
    """Times calls in rounds, after one untimed call of each, which may compile.

    Args:
        calls: functions without arguments, by name.
        rounds: number of rounds. Each round times every call; the order is reversed from round to
            round.
        repeats: calls between two readings of the clock; use several if a call is short for the
            clock's resolution.

    Yields:
        For each round, the mean milliseconds of each call, by name.
    """
    for call in calls.values():
        call()
    names = list(calls)
    for number in range(rounds):
        milliseconds = {}
        for name in names if number % 2 else names[::-1]:
            start = time.perf_counter()
            for _ in range(repeats):
                calls[name]()
            milliseconds[name] = 1000 * (time.perf_counter() - start) / repeats
        yield milliseconds
