"""Seeds and initial values that depend on a variable's name, not on the order of building."""

import keras

from undivided_tf import files


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
) -> keras.initializers.Initializer:
    """BERT's initialiser: normal with deviation `initializer_range`, cut at two deviations."""
    return keras.initializers.TruncatedNormal(
        stddev=initializer_range, seed=derive_seed(seed, name)
    )
