"""Progress bars: count, rate and time left, on a terminal or in a log file."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import tqdm

# By default tqdm shares a semaphore between processes, which a killed process leaks. Here each
# process draws its own bars, so a lock between threads is enough.
tqdm.tqdm.set_lock(threading.RLock())

_report: Callable[[str], None] | None = None
_compiling_seconds = 0.0


class _ReportedBar(tqdm.tqdm):
    """A bar that another process shows."""

    def display(self, msg=None, pos=None):
        """Sends the line instead of drawing it."""
        _report(str(self) if msg is None else msg)


def report_to(report: Callable[[str], None]) -> None:
    """Makes the bars of this process pass their line to `report` instead of drawing it."""
    global _report
    _report = report


def bar(total: int | None, description: str, unit: str, initial: int = 0) -> tqdm.tqdm:
    """A progress bar; call `update(n)` and close it, or use it in a `with` statement.

    It is redrawn ten times a second on a terminal, once a second for another process, and every ten
    seconds in a log.

    Args:
        total: number of all units of work; None if unknown.
        description: what is being done.
        unit: plural noun of the units.
        initial: number of finished units, for example in a resumed run.
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
def compiling(steps_bar: tqdm.tqdm) -> Iterator[None]:
    """Shows that the first step is being compiled, and leaves it out of the projected time left.

    Args:
        steps_bar: the bar, before it is updated for the step.
    """
    global _compiling_seconds
    steps_bar.set_postfix_str("compiling the first step")
    began = time.perf_counter()
    yield
    _compiling_seconds += time.perf_counter() - began
    steps_bar.set_postfix_str("", refresh=False)
    # tqdm divides the steps since `initial` by the time since `start_t`.
    steps_bar.start_t = steps_bar.last_print_t = time.time()
    steps_bar.initial = steps_bar.last_print_n = steps_bar.n + 1


def compiling_seconds() -> float:
    """Seconds that this process has spent in `compiling`, the first steps included."""
    return _compiling_seconds


def note(text: str) -> None:
    """Prints a line on standard error, above the progress bars."""
    tqdm.tqdm.write(text, file=sys.stderr)
