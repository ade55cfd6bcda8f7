"""`--dtype=auto`: bfloat16 where the processor is faster with it, float32 elsewhere.

One matrix product of the encoder's widths is timed in both types. On a processor that multiplies
bfloat16 about twice as fast, a pre-training step without XLA took 0.64 to 0.78 of the time of the
default for hidden sizes 256 to 768 (`benchmarks/levers.py`). For hidden size 128 it was no faster,
since a narrow encoder spends its time between the products.
"""

import pathlib
import statistics
from typing import Any

import tensorflow as tf

from undivided_tf.support import files, stopwatch
from undivided_tf.training.config import AUTO, PretrainingConfig

FILE = "precision.json"
LEAST_GAIN, LEAST_WIDTH = 1.5, 256
_TOKENS, _ROUNDS = 1024, 7


def resolve(config: PretrainingConfig) -> tuple[PretrainingConfig, dict[str, Any] | None]:
    """The config with a type in place of `auto`, and the choice of `measure`.

    A run that has begun keeps the choice of its workdir, even on another processor. A config with
    another `dtype` is returned unchanged, with None.
    """
    if config.dtype != AUTO:
        return config, None
    path = pathlib.Path(config.workdir) / FILE
    choice = files.read_json(path) if path.exists() else measure(config)
    return config.replace(dtype=choice["dtype"], jit_compile=choice["jit_compile"]), choice


def measure(config: PretrainingConfig) -> dict[str, Any]:
    """Times a product in float32 and bfloat16, and decides.

    Args:
        config: gives the widths and the strategy.

    Returns:
        `dtype` (`float32` or `bfloat16`), `jit_compile`, and `bfloat16_gain`: the median time in
        float32 over that in bfloat16. It is None on a TPU, whose products are in bfloat16 anyway.
    """
    if config.strategy == "tpu":
        return {"dtype": "bfloat16", "jit_compile": config.jit_compile, "bfloat16_gain": None}
    encoder = config.encoder
    gain = _gain(encoder.hidden_size, encoder.intermediate_size)
    wins = gain >= LEAST_GAIN and encoder.hidden_size >= LEAST_WIDTH
    # On a CPU XLA widens bfloat16 to float32; TensorFlow's own products do not.
    widens = not tf.config.list_logical_devices("GPU")
    return {
        "dtype": "bfloat16" if wins else "float32",
        "jit_compile": config.jit_compile and not (wins and widens),
        "bfloat16_gain": gain,
    }


def _gain(hidden_size: int, intermediate_size: int) -> float:
    def product(dtype):
        left = tf.ones([_TOKENS, hidden_size], dtype)
        right = tf.ones([hidden_size, intermediate_size], dtype)
        multiply = tf.function(tf.matmul, autograph=False)
        return lambda: multiply(left, right)[0, 0].numpy()

    calls = {dtype: product(dtype) for dtype in ("float32", "bfloat16")}
    rounds = list(stopwatch.in_turn(calls, _ROUNDS, repeats=5))
    float32, bfloat16 = (statistics.median(times[name] for times in rounds) for name in calls)
    return float32 / bfloat16


def describe(choice: dict[str, Any]) -> str:
    """The choice as a sentence."""
    xla = "with" if choice["jit_compile"] else "without"
    if choice["bfloat16_gain"] is None:
        return f"dtype auto: {choice['dtype']}, the type of a TPU's products"
    return (
        f"dtype auto: {choice['dtype']} {xla} XLA, since a product takes "
        f"{choice['bfloat16_gain']:.2f} times as long in float32 as in bfloat16 (bfloat16 from "
        f"{LEAST_GAIN:g} times on, and from hidden size {LEAST_WIDTH} on)"
    )
