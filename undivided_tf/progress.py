"""Progress of long work: count, rate and time left, on a terminal or in a log file."""

import sys

import tqdm


def bar(total: int | None, description: str, unit: str, initial: int = 0) -> tqdm.tqdm:
    """A progress bar; call `update(n)` and close it, or use it in a `with` statement.

    On a terminal it is redrawn ten times a second, in a log every ten seconds.

    Args:
        total: units of work in all; None when unknown.
        description: what is being done.
        unit: plural noun of what is counted.
        initial: units already done, as after a resumption.
    """
    terminal = sys.stderr.isatty()
    return tqdm.tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        initial=initial,
        mininterval=0.1 if terminal else 10.0,
        maxinterval=10.0,
        dynamic_ncols=terminal,
        unit_scale=bool(total and total > 100_000),
    )
