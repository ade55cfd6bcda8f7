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
    """Makes `truncated_normal` skip initialisation, for models whose weights will all be loaded.

    Drawing values only to overwrite them takes time and twice the memory.
    """
    token = _UNSET.set(True)
    try:
        yield
    finally:
        _UNSET.reset(token)


def _uninitialized(shape, dtype=None):
    return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype or "float32"), init=False)


def derive_seed(seed: int | None, name: str) -> int | None:
    """Derives the seed of one part of a model from the model's seed and the part's name.

    Two encoders of one seed share the initial values of every block that both have, so patterns are
    compared with common random numbers.

    Args:
        seed: the model's seed; None stays None, which makes Keras draw one.
        name: the part's name, unique in the model.
    """
    return None if seed is None else int(files.sha256(f"{seed}/{name}")[:7], 16)


def truncated_normal(
    initializer_range: float, seed: int | None, name: str
) -> keras.initializers.Initializer | Callable:
    """BERT's initialiser: normal with deviation `initializer_range`, cut at two deviations."""
    if _UNSET.get():
        return _uninitialized
    return keras.initializers.TruncatedNormal(
        stddev=initializer_range, seed=derive_seed(seed, name)
    )
