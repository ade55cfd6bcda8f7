"""What the peers of `benchmarks/time_to_loss.py` share: job, held-out rows and clock."""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def read_job() -> tuple[dict[str, Any], pathlib.Path]:
    """The job, and the folder with rows.npy, held_out.npz, vocab.txt and vocabulary.json."""
    folder = pathlib.Path(sys.argv[1])
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    return {**vocabulary, **json.loads(sys.argv[2])}, folder


def held_out(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The held-out rows with their masks."""
    with np.load(folder / "held_out.npz") as arrays:
        return dict(arrays)


class Watch:
    """A clock that stops while the held-out rows are scored.

    Args:
        job: has `budget_seconds` and `eval_every_steps`.
        score: gives the held-out loss in nats.
        pieces_per_step: word pieces of a batch.
        **more: values that are added to every point of the curve.
    """

    def __init__(
        self, job: dict[str, Any], score: Callable[[], float], pieces_per_step: int, **more: float
    ):
        self.job, self.score, self.pieces, self.more = job, score, pieces_per_step, more
        self.seconds, self.since = 0.0, time.perf_counter()

    def step_done(self, step: int) -> bool:
        """Call this after each step; returns False when the budget is spent."""
        if step % self.job["eval_every_steps"] == 0:
            self.seconds += time.perf_counter() - self.since
            point = {"step": step, "pieces": step * self.pieces, "seconds": self.seconds}
            print(json.dumps({**point, "loss": self.score(), **self.more}), flush=True)
            self.since = time.perf_counter()
        return self.seconds < self.job["budget_seconds"]
