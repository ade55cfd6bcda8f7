"""Seeds and initial values that depend on a variable's name, not on the order of building."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from undivided_tf.support import files

_UNSET = contextvars.ContextVar("unset", default=False)


@contextlib.contextmanager
def unset() -> Iterator[None]:
    """Inside it `truncated_normal` leaves memory as it is: for models all of whose weights follow.

    To draw values only to overwrite them takes time, and as much memory again.
    """
    token = _UNSET.set(True)
    try:
        yield
    finally:
        _UNSET.reset(token)


def _as_it_is(shape, dtype=None):
    return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype or "float32"), init=False)


def derive_seed(seed: int | None, name: str) -> int | None:
    """A seed for one part of a model, from the seed of the whole and the part's name.

    Two encoders of one seed then share the initial values of every block that both have,
    whatever their patterns, so that patterns are compared on common random numbers.

    Args:
        seed: the whole's seed; None stays None, which Keras reads as "draw one".
        name: the part's name, unique in the whole.
    """
    return None if seed is None else int(files.sha256(f"{seed}/{name}")[:7], 16)


def truncated_normal(
    initializer_range: float, seed: int | None, name: str
) -> keras.initializers.Initializer | Callable:
    """BERT's initialiser: normal with deviation `initializer_range`, cut at two deviations."""
    if _UNSET.get():
        return _as_it_is
    return keras.initializers.TruncatedNormal(
        stddev=initializer_range, seed=derive_seed(seed, name)
    )
