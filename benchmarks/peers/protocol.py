"""How the driver talks to a peer: a line of JSON in, a line of JSON out; needs NumPy only.

A peer is a process that holds a model, ready to take steps. It gets requests `{"do": NAME, ...}`
and answers each with a dict. So peers of different interpreters take turns, and changes of the
machine's load affect all of them.
"""

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Shapes: a projection of BERT-Base and one of mini, a square, the vocabulary.
PRODUCTS = ((1024, 768, 3072), (4096, 256, 1024), (2048, 2048, 2048), (160, 768, 30522))
LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON, CLIP = 1e-4, 0.01, (0.9, 0.999), 1e-6, 1.0


def read_job() -> tuple[dict[str, Any], dict[str, np.ndarray], pathlib.Path]:
    """The job of this process, the batch, and the folder of the initial weights."""
    folder = pathlib.Path(sys.argv[1])
    job = json.loads(sys.argv[2])
    with np.load(folder / "batch.npz") as arrays:
        batch = {name: arrays[name] for name in arrays.files}
    return job, batch, folder


def milliseconds(steps: int, take: Callable[[], Any]) -> list[float]:
    """Milliseconds of each of `steps` calls; a call ends when its result is there."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        float(take())
        times.append(1000 * (time.perf_counter() - start))
    return times


def gigaflops(make: Callable[[int, int, int], Callable[[], Any]]) -> list[float]:
    """Best rate of matrix products of `PRODUCTS`; `make(m, k, n)` gives one to call."""
    rates = []
    for m, k, n in PRODUCTS:
        multiply, best = make(m, k, n), float("inf")
        for _ in range(6):
            start = time.perf_counter()
            multiply()
            best = min(best, time.perf_counter() - start)
        rates.append(round(2 * m * k * n / best / 1e9, 1))
    return rates


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers until the driver closes the pipe."""
    # Libraries print to standard output, so answers have a copy of it, and it goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = commands[request.pop("do")](**request)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({**answer, "peak_memory_bytes": peak}), file=answers, flush=True)
