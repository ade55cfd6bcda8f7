"""Progress of long work: count, rate and time left, on a terminal or in a log file."""

import sys
from collections.abc import Callable

import tqdm

_report: Callable[[str], None] | None = None


class _ReportedBar(tqdm.tqdm):
    """A bar that is shown by another process."""

    def display(self, msg=None, pos=None):
        """Sends the line instead of drawing it."""
        _report(str(self) if msg is None else msg)


def report_to(report: Callable[[str], None]) -> None:
    """Has the bars of this process call `report` with their line, instead of drawing it."""
    global _report
    _report = report


def bar(total: int | None, description: str, unit: str, initial: int = 0) -> tqdm.tqdm:
    """A progress bar; call `update(n)` and close it, or use it in a `with` statement.

    On a terminal it is redrawn ten times a second, for another process once a second, in a log
    every ten seconds.

    Args:
        total: units of work in all; None when unknown.
        description: what is being done.
        unit: plural noun of what is counted.
        initial: units already done, as after a resumption.
    """
    options = {
        "total": total,
        "desc": description,
        "unit": f" {unit}",
        "initial": initial,
        "maxinterval": 10.0,
        "unit_scale": unit == "bytes" or bool(total and total > 100_000),
    }
    if _report:
        return _ReportedBar(mininterval=1.0, leave=False, **options)
    terminal = sys.stderr.isatty()
    return tqdm.tqdm(mininterval=0.1 if terminal else 10.0, dynamic_ncols=terminal, **options)
