"""Times of pre-training steps, from the rounds in which a pattern and the reference had turns.

Runs of hours meet a machine at different speeds and loads; of a round both see the same. So the
reference has one step time, the median of all its rounds, and a pattern the median ratio to it.
"""

import statistics
from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]


def ratios(timing: Result) -> list[float]:
    """Time of a step over that of the reference, round by round."""
    pairs = zip(timing["milliseconds"], timing["reference_milliseconds"], strict=True)
    return [own / full for own, full in pairs]


def retimed(
    pretrainings: Sequence[Result],
    timings: Sequence[Result],
    all_timings: Sequence[Result],
    reference: str,
) -> list[Result]:
    """Pre-trainings with their times as if every step had taken what it took in turn.

    Args:
        pretrainings: results of the runs.
        timings: those of their encoders.
        all_timings: of the whole study; without any, the times of the runs stay.
        reference: its pattern.

    Returns:
        The results with `step_milliseconds`, `tokens_per_second` and `training_seconds` anew,
        None where an encoder was not timed.
    """
    if not all_timings:
        return list(pretrainings)
    full = statistics.median(ms for r in all_timings for ms in r["reference_milliseconds"])
    milliseconds = {r["pattern"]: full * statistics.median(ratios(r)) for r in timings}
    milliseconds[reference] = full
    return [run | _times(run, milliseconds.get(run["pattern"])) for run in pretrainings]


def _times(run: Result, milliseconds: float | None) -> Result:
    if milliseconds is None:
        return dict.fromkeys(("step_milliseconds", "tokens_per_second", "training_seconds"))
    times = {"step_milliseconds": milliseconds}
    if measured := run["step_milliseconds"]:  # None of a run that went on with no step left.
        times["tokens_per_second"] = run["tokens_per_second"] * measured / milliseconds
        times["training_seconds"] = run["training_seconds"] * milliseconds / measured
    return times
