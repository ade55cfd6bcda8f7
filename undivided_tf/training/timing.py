"""Alternating pre-training steps of two patterns: slowdowns of the machine affect both."""

import functools
from typing import Any

from undivided_tf.support import stopwatch
from undivided_tf.support.progress import bar
from undivided_tf.training.config import TimingConfig
from undivided_tf.training.pretraining import Trainer


def time_in_turn(config: TimingConfig) -> dict[str, Any]:
    """Times steps of a pattern and of the reference in alternation.

    A machine's speed changes from hour to hour with its load and temperature. It changes little
    within one round, so the ratio of the times depends on the patterns alone. The weights are
    initial values, and compilation is not timed. Of a curriculum the last stage is timed.

    Args:
        config: both patterns and the recipe that they share.

    Returns:
        `milliseconds` per step of the pattern and `reference_milliseconds`, each a list with the
        mean of each round.

    Raises:
        InputError: the records do not fit, or a device is missing; see `Trainer`.
    """
    recipe = config.pretraining.replace(workdir=config.workdir, records_dir=config.records_dir)
    reference = recipe.encoder.replace(block_pattern=config.reference_pattern)
    trainers = {
        "milliseconds": Trainer(recipe),
        "reference_milliseconds": Trainer(recipe.replace(encoder=reference)),
    }
    first_step = recipe.stages[-1].first_step
    batches = {name: iter(trainer.batches(first_step)) for name, trainer in trainers.items()}

    def step(name: str) -> None:
        trainers[name].step(next(batches[name]))

    calls = {name: functools.partial(step, name) for name in trainers}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    with bar(config.num_rounds, f"timing {recipe.encoder.block_pattern}", "rounds") as progress:
        for milliseconds in stopwatch.in_turn(calls, config.num_rounds, config.steps_per_round):
            for name in trainers:
                times[name].append(milliseconds[name])
            progress.update()
    return {"kind": "timing", **times}
