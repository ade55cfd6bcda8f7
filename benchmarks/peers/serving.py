"""What the peers of `benchmarks/inference.py` share: the job, and the texts; needs NumPy only."""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import protocol

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def vocabulary(size: int) -> list[str]:
    """Words that are one piece each."""
    return [*SPECIAL, *(f"piece{i}" for i in range(size - len(SPECIAL)))]


def texts(length: int, batch: int, size: int) -> list[str]:
    """Texts of exactly `length` word pieces, [CLS] and [SEP] included."""
    random = np.random.default_rng([length, batch])
    chosen = random.integers(0, size - len(SPECIAL), (batch, length - 2))
    return [" ".join(f"piece{i}" for i in row) for row in chosen]


def read_job() -> tuple[dict[str, Any], pathlib.Path]:
    """The job of this process, and the folder of its models."""
    return json.loads(sys.argv[2]), pathlib.Path(sys.argv[1])


def serve(about: dict[str, Any], embed: Callable[[list[str]], np.ndarray], size: int) -> None:
    """Answers the driver.

    Args:
        about: versions.
        embed: function from texts to the means (texts, hidden) of their last tap.
        size: size of the vocabulary.
    """

    def times(length, batch, calls):
        batch_texts = texts(length, batch, size)
        milliseconds = []
        for _ in range(calls):
            start = time.perf_counter()
            embed(batch_texts)
            milliseconds.append(1000 * (time.perf_counter() - start))
        return {"milliseconds": milliseconds}

    def first(length, batch):
        return {"values": embed(texts(length, batch, size))[0, :4].tolist()}

    protocol.serve({"about": lambda: about, "times": times, "first": first})
