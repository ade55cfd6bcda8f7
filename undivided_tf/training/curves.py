"""The training curve of a run, in its state and for TensorBoard."""

import pathlib
import time
from typing import Any

import tensorflow as tf

_POINTS = 100  # Number of points of the training curve, for any number of steps.


class TrainingCurves:
    """Writes points of a run's curves into its state and to TensorBoard.

    Args:
        directory: for TensorBoard's event files.
        num_train_steps: steps of the whole run, which decide the density of the points.
        start_step: number of finished steps; later points of an interrupted run are dropped.
    """

    def __init__(self, directory: pathlib.Path, num_train_steps: int, start_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        if start_step:
            _drop_points_after(directory, start_step)
        self._writer = tf.summary.create_file_writer(str(directory))
        self._every = max(1, num_train_steps // _POINTS)

    def add(
        self,
        state: dict[str, Any],
        sums: dict[str, float],
        learning_rate: float,
        last: bool,
    ) -> None:
        """Adds a step to the open interval of the training curve; closes a full interval.

        Args:
            state: state of the run; its `interval` and `training_history` are updated.
            sums: result of the step.
            learning_rate: learning rate of the step.
            last: whether this is the last step, which always gets a point.
        """
        step, interval = state["step"], state["interval"]
        interval["loss"] += sums["loss"]
        interval["weight"] += sums["weight"]
        is_full = step % self._every == 0 or last
        if is_full and interval["weight"]:  # All its steps may have been skipped.
            point = {"step": step, "loss": interval["loss"] / interval["weight"]}
            state["training_history"].append(point)
            state["interval"] = {"loss": 0.0, "weight": 0.0}
            norm = sums["gradient_norm"]
            self.write(
                "training", {**point, "gradient_norm": norm, "learning_rate": learning_rate}, step
            )

    def write(self, prefix: str, values: dict[str, Any], step: int) -> None:
        """Writes the values that are floats to TensorBoard."""
        with self._writer.as_default(step):
            for name, value in values.items():
                if isinstance(value, float):
                    tf.summary.scalar(f"{prefix}/{name}", value)

    def flush(self) -> None:
        """Writes buffered events to the disk."""
        self._writer.flush()


def _drop_points_after(directory: pathlib.Path, step: int) -> None:
    """Makes TensorBoard drop points of earlier files after `step`."""
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    now = time.time()
    path = directory / f"events.out.tfevents.{now:.6f}.resumed"
    # Without the version in the first event TensorBoard does not drop anything.
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in (
            tf.compat.v1.Event(wall_time=now, file_version="brain.Event:2"),
            tf.compat.v1.Event(wall_time=now, step=step + 1, session_log=start),
        ):
            writer.write(event.SerializeToString())
