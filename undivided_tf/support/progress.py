"""Progress of long work: count, rate and time left, on a terminal or in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def compiling(shown: tqdm.tqdm) -> Iterator[None]:
    """Inside it a bar says that the step is compiled; the time left is projected from later ones.

    Args:
        shown: the bar, which is yet to be moved by the step.
    """
    shown.set_postfix_str("compiling the first step")
    yield
    shown.set_postfix_str("", refresh=False)
    # tqdm divides the steps since `initial` by the time since `start_t`.
    shown.start_t = shown.last_print_t = time.time()
    shown.initial = shown.last_print_n = shown.n + 1


def note(text: str) -> None:
    """Tells the user a line on standard error, above the progress bars that are shown."""
    tqdm.tqdm.write(text, file=sys.stderr)
