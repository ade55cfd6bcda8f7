"""Pre-training steps of two patterns in turn, so that what slows the machine slows both."""

import time
from typing import Any

from undivided_tf.pretraining_recipes import TimingConfig
from undivided_tf.progress import bar
from undivided_tf.training.pretraining import Trainer


def time_in_turn(config: TimingConfig) -> dict[str, Any]:
    """Times steps of a pattern and of the reference, some of the one, then of the other.

    A machine's speed moves from hour to hour, with its load and its temperature: of steps that
    are timed in one round it moves little, so that their ratio is that of the patterns. Who
    begins changes with each round. Weights are those of a fresh run; compilation is left out.

    Args:
        config: both patterns and the recipe that they share.

    Returns:
        `milliseconds` of a step of the pattern and `reference_milliseconds`, each a list of one
        mean a round.

    Raises:
        InputError: the records do not fit, or a device is not there; see `Trainer`.
    """
    recipe = config.pretraining.replace(workdir=config.workdir, records_dir=config.records_dir)
    reference = recipe.encoder.replace(block_pattern=config.reference_pattern)
    trainers = [Trainer(recipe), Trainer(recipe.replace(encoder=reference))]
    streams = [iter(trainer.batches(0)) for trainer in trainers]

    def milliseconds(which: int, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            trainers[which].step(next(streams[which]))
        return 1000 * (time.perf_counter() - start) / steps

    times: tuple[list[float], list[float]] = ([], [])
    for which in (0, 1):
        milliseconds(which, 1)  # Compiles.
    with bar(config.num_rounds, f"timing {recipe.encoder.block_pattern}", "rounds") as progress:
        for number in range(config.num_rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].append(milliseconds(which, config.steps_per_round))
            progress.update()
    return {"kind": "timing", "milliseconds": times[0], "reference_milliseconds": times[1]}
