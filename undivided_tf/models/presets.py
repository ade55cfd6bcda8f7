"""Sizes and architectures of google-research/bert, by name; pure data."""

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError

# Layers L and hidden size H. There are H / 64 heads and the intermediate size is 4 H.
_SIZES = {
    "bert_tiny": (2, 128),
    "bert_mini": (4, 256),
    "bert_small": (4, 512),
    "bert_medium": (8, 512),
    "bert_base": (12, 768),
    "bert_large": (24, 1024),
}

NAMES = tuple(_SIZES)


def preset(name: str) -> EncoderConfig:
    """The uncased BERT of that name.

    Args:
        name: one of `NAMES`.

    Raises:
        InputError: an unknown name; lists the known names.

    References:
        Turc et al. 2019, arXiv 1908.08962 (tiny to medium); Devlin et al. 2018, arXiv 1810.04805.
    """
    if name not in _SIZES:
        raise InputError(f"unknown preset {name!r}; known: {', '.join(NAMES)}")
    layers, hidden_size = _SIZES[name]
    return EncoderConfig(
        hidden_size=hidden_size,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
        block_pattern=f"(AI)*{layers}",
    )
