"""Encoders with fewer blocks but as many parameters as a reference; needs no TensorFlow."""

from collections.abc import Callable, Iterable, Iterator

from undivided_tf.accounting import count_parameters
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.pattern import ATTENTION, INTERMEDIATE

# Matrix units compute round sizes fastest, so sizes are multiples of the first step that allows the
# tolerance.
_STEPS = (64, 32, 16, 8, 4, 2, 1)


def matched_partner(
    config: EncoderConfig, reference: EncoderConfig, investment: str, tolerance: float = 0.01
) -> EncoderConfig:
    """An encoder with the blocks of `config` and about as many parameters as `reference`.

    The parameters of the removed blocks are spent on one of `INVESTMENTS`:

    - `attention`: more attention blocks, spread evenly over the pattern;
    - `intermediate`: a larger `intermediate_size`;
    - `hidden`: a larger `hidden_size` with the same number of heads, which become wider; the
      intermediate size grows in proportion;
    - `shared`: all intermediate blocks share the weights of one, with a larger
      `intermediate_size`. If the pattern has none, it gets one after every attention block.

    Intermediate sizes and head widths are multiples of 64 if the tolerance allows, else of 32, 16
    ... 1.

    Args:
        config: the encoder with fewer parameters.
        reference: the encoder to match; vocabulary and positions should be the same.
        investment: one of `INVESTMENTS`.
        tolerance: largest difference in parameters, relative to the reference.

    Raises:
        InputError: `config` does not have fewer parameters, it has no block that the investment
            needs, or no size is within the tolerance (names the nearest).
    """
    target = count_parameters(reference)
    if investment not in INVESTMENTS:
        raise InputError(f"investment must be one of {', '.join(INVESTMENTS)}, got {investment!r}")
    if count_parameters(config) >= target:
        raise InputError(
            f"{config.block_pattern} has {count_parameters(config):,} parameters, the reference "
            f"{reference.block_pattern} has {target:,}: there is nothing to invest"
        )
    return _first_within(INVESTMENTS[investment](config, target), target, tolerance)


def _more_attention(config: EncoderConfig, target: int) -> Iterator[EncoderConfig]:
    blocks = config.pattern.num_attention
    if not blocks:
        raise InputError(f"{config.block_pattern} has no attention block to add others to")

    def with_extra(extra: int) -> EncoderConfig:
        seen, letters = 0, ""
        for letter in config.pattern.letters:
            letters += letter
            if letter == ATTENTION:
                letters += letter * ((seen + 1) * extra // blocks - seen * extra // blocks)
                seen += 1
        return config.replace(block_pattern=letters)

    yield _nearest(with_extra, target, first=0)


def _wider_intermediate(config: EncoderConfig, target: int) -> Iterator[EncoderConfig]:
    if not config.pattern.num_intermediate:
        raise InputError(f"{config.block_pattern} has no intermediate block that could widen")
    for step in _STEPS:
        yield _nearest(lambda n, m=step: config.replace(intermediate_size=n * m), target)


def _wider_hidden(config: EncoderConfig, target: int) -> Iterator[EncoderConfig]:
    def with_head_width(width: int) -> EncoderConfig:
        hidden_size = width * config.num_attention_heads
        inner = round(config.intermediate_size * hidden_size / config.hidden_size)
        return config.replace(hidden_size=hidden_size, intermediate_size=inner)

    for step in _STEPS:
        # Rotary positions rotate pairs of features, so the width of a head must stay even.
        if config.position_type != "rotary" or step % 2 == 0:
            yield _nearest(lambda n, m=step: with_head_width(n * m), target)


def _shared_intermediate(config: EncoderConfig, target: int) -> Iterator[EncoderConfig]:
    if not config.pattern.num_attention:
        raise InputError(f"{config.block_pattern} has no attention block to put others after")
    letters = config.pattern.letters
    if not config.pattern.num_intermediate:
        letters = letters.replace(ATTENTION, ATTENTION + INTERMEDIATE)
    shared = config.replace(block_pattern=letters, share_intermediate=True)
    yield from _wider_intermediate(shared, target)


# Functions that yield encoders with about a target of parameters, the roundest sizes first.
INVESTMENTS = {
    "attention": _more_attention,
    "intermediate": _wider_intermediate,
    "hidden": _wider_hidden,
    "shared": _shared_intermediate,
}


def _nearest(make: Callable[[int], EncoderConfig], target: int, first: int = 1) -> EncoderConfig:
    """Of `make(first)`, `make(first + 1)`, ... the one whose parameters are nearest to `target`."""
    below, number = make(first), first + 1
    while count_parameters(above := make(number)) < target:
        below, number = above, number + 1
    return min(below, above, key=lambda config: abs(count_parameters(config) - target))


def _first_within(
    candidates: Iterable[EncoderConfig], target: int, tolerance: float
) -> EncoderConfig:
    for candidate in candidates:
        error = abs(count_parameters(candidate) / target - 1)
        if error <= tolerance:
            return candidate
    raise InputError(
        f"no such encoder comes within {tolerance:.1%} of {target:,} parameters; the nearest, "
        f"{candidate.block_pattern} with hidden_size {candidate.hidden_size} and intermediate_size "
        f"{candidate.intermediate_size}, has {count_parameters(candidate):,}, {error:.1%} off"
    )
