"""Surgery: an encoder that is cut out of the trained reference, to be healed by pre-training."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from undivided_tf.study.budgets import Arm
from undivided_tf.study.cells import Cell, Kind
from undivided_tf.study.config import StudyConfig
from undivided_tf.support import files
from undivided_tf.surgery.config import SurgeryConfig


class Surgery(Kind):
    """One cell for each encoder of the budget `surgery`."""

    name = "surgery"
    title = "Surgery"
    call = "undivided_tf.study.kinds.surgery:operate_once"
    home = "output_dir"

    def cells(self, config: StudyConfig, encoders: Mapping[Arm, Cell]) -> Iterator[Cell]:
        for encoder in encoders.values():
            yield from (need for need in encoder.places.values() if need.kind.name == self.name)


def operate_once(config: SurgeryConfig) -> dict[str, Any]:
    """Operates once: if a killed study already did, returns the report of that operation."""
    from undivided_tf.surgery.run import REPORT, run_surgery  # Late: brings TensorFlow.

    done = pathlib.Path(config.output_dir) / REPORT
    return files.read_json(done) if done.exists() else run_surgery(config)
