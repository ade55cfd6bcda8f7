"""Cuts blocks out of a trained encoder, adds blocks, resizes and shares intermediate blocks."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from undivided_tf.accounting import count_parameters
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.weights import named_weights
from undivided_tf.pattern import BlockPattern

_NORM = ("gamma", "beta")
_DENSE = ("intermediate/kernel", "intermediate/bias", "output/kernel", "output/bias")
MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Report:
    """What an operation did with each block; blocks are named by their taps.

    Attributes:
        kept: from each block of the new encoder to the old block whose weights it has.
        new: blocks of the new encoder that start as the identity.
        dropped: blocks of the old encoder that the new one lacks.
        intermediate_size: old and new width of intermediate blocks.
        parameters: number of parameters of the old and of the new encoder.
        shared: the old block whose weights all intermediate blocks now have, or `mean`; "" if the
            operation shared none.
    """

    kept: dict[str, str]
    new: list[str]
    dropped: list[str]
    intermediate_size: tuple[int, int]
    parameters: tuple[int, int]
    shared: str = ""


def operate(
    encoder: Encoder,
    pattern: str | BlockPattern,
    origins: Sequence[str] | None = None,
    intermediate_size: int = 0,
    share_intermediate: str = "",
    fold_layer_norms: bool = True,
) -> tuple[Encoder, Report]:
    """Builds a new encoder with the weights of every block that stays.

    Without `origins`, the n-th attention block of the new pattern has the weights of the n-th
    attention block of the old pattern, and the same holds for the intermediate blocks after them.
    So a shorter pattern loses blocks from the top, and attention blocks beyond the old ones are
    new.

    With post-norm the LayerNorm of a dropped block is folded into that of the block before
    (`folded_layer_norms`).

    A new attention block changes nothing at first: its output projection is zero. With
    post-norm its LayerNorm takes over scale and shift of the block before, which keeps the
    identity, since normalising twice is normalising once.

    A wider intermediate block computes the same as before: its neurons are copied in turn, and the
    output weights of a neuron are divided among its copies. A narrower one keeps the neurons with
    the largest product of the norms of their input and output weights.

    Shared intermediate blocks have one set of dense weights for all places, and a LayerNorm of
    their own at each place. The mean of several blocks averages unrelated neurons, so the result
    needs healing.

    Args:
        encoder: Encoder. The trained encoder, which is not changed.
        pattern: blocks of the new encoder.
        origins: for each block of the new pattern the old block (`block_03/attention`) whose
            weights it gets, or "" for a new attention block; None: see above.
        intermediate_size: width of the new encoder's intermediate blocks; 0: the old width.
        share_intermediate: the old intermediate block whose dense weights all places of the new
            encoder share, or `mean` for the mean of all blocks that stay; "": blocks that share
            weights in the old encoder share them in the new one, and no others.
        fold_layer_norms: whether the LayerNorm before a dropped block takes over scale and shift of
            the dropped block. False suits an encoder that was trained to pass over blocks
            (`intermediate_drop_rate`).

    Returns:
        The new encoder and the report.

    Raises:
        InputError: a block of the new pattern has no counterpart in the old one, there is no
            intermediate block to share, or the encoder has `half_layer_norms`.

    References:
        Chen, Goodfellow, Shlens 2015, arXiv 1511.05641 (widening that keeps the function);
        Sajjad et al. 2020, arXiv 2004.03844 (dropping blocks from the top);
        Pessoa Pires et al. 2023, arXiv 2309.01826 (one feed-forward block for all layers).
    """
    pattern = BlockPattern.parse(pattern) if isinstance(pattern, str) else pattern
    old = encoder.config
    if old.half_layer_norms:
        raise InputError(
            "with half_layer_norms the pattern decides which blocks have a LayerNorm, so after a "
            "cut some blocks would need a LayerNorm that they never had"
        )
    width = intermediate_size or old.intermediate_size
    config = old.replace(
        block_pattern=str(pattern),
        intermediate_size=width,
        share_intermediate=old.share_intermediate or bool(share_intermediate),
    )
    origins = pattern.counterparts(old.pattern) if origins is None else list(origins)
    _check_origins(old.pattern, pattern, origins)
    result = Encoder(config, seed=encoder.seed)
    weights = {name: np.asarray(v) for name, v in named_weights(encoder.weights).items()}
    dropped = [block.name for block in old.pattern if block.name not in origins]
    if fold_layer_norms:
        weights |= folded_layer_norms(old, weights, dropped)
    parts = {block.name: _part(old, weights, block.name) for block in old.pattern}
    if share_intermediate:
        donors = _donors(old.pattern, origins, share_intermediate)
        shared = {name: np.mean([parts[tap][name] for tap in donors], axis=0) for name in _DENSE}
        for tap, part in parts.items():
            if tap.endswith("/intermediate"):
                part.update(shared)
    values = {name: a for name, a in weights.items() if not name.startswith("encoder/block_")}
    previous = "encoder/embeddings"
    for block, origin in zip(pattern, origins, strict=True):
        scope = _scope(block.name)
        if origin:
            part = parts[origin]
            if block.kind == "intermediate" and width != old.intermediate_size:
                part = _resize(part, width)
            values.update({f"{scope}/{name}": array for name, array in part.items()})
        else:
            values.update(_identity(result, scope, previous, values, config))
        previous = scope
    # Of blocks that share weights only the first has dense variables, so some values are unused.
    for name, variable in named_weights(result.weights).items():
        variable.assign(values[name])
    by_block = {block.name: origin for block, origin in zip(pattern, origins, strict=True)}
    return result, Report(
        kept={name: origin for name, origin in by_block.items() if origin},
        new=[name for name, origin in by_block.items() if not origin],
        dropped=dropped,
        intermediate_size=(old.intermediate_size, width),
        parameters=(count_parameters(old), count_parameters(config)),
        shared=share_intermediate,
    )


def cut(
    encoder: Encoder,
    blocks: Sequence[str],
    intermediate_size: int = 0,
    share_intermediate: str = "",
    fold_layer_norms: bool = True,
) -> tuple[Encoder, Report]:
    """Removes the named blocks, of either kind, by `operate`.

    Args:
        encoder: the trained encoder, which is not changed.
        blocks: taps, such as `block_03/intermediate`.
        intermediate_size: see `operate`.
        share_intermediate: see `operate`.
        fold_layer_norms: see `operate`.

    Raises:
        InputError: the encoder has no such block, or none would be left.
    """
    pattern = encoder.config.pattern
    letters = {block.name: letter for letter, block in zip(pattern.letters, pattern, strict=True)}
    unknown = sorted(set(blocks) - set(letters))
    if unknown:
        raise InputError(f"{unknown[0]!r} is no block of {pattern}: {', '.join(letters)}")
    remaining = [name for name in letters if name not in blocks]
    if not remaining:
        raise InputError(f"no block of {pattern} would be left")
    return operate(
        encoder,
        BlockPattern("".join(letters[name] for name in remaining)),
        remaining,
        intermediate_size,
        share_intermediate,
        fold_layer_norms,
    )


def folded_layer_norms(
    config: EncoderConfig, weights: Mapping[str, np.ndarray], dropped: Collection[str]
) -> dict[str, np.ndarray]:
    """Folds the LayerNorm of each dropped block into the LayerNorm before it.

    The first LayerNorm gives `gamma n + beta`, where `n` has mean 0 and variance 1 over the
    features of a token. The second divides by the standard deviation of this over the features,
    after subtracting its mean. Both differ little from token to token, so they are taken as if each
    feature of `n` had mean 0 and variance 1 over tokens: the mean is `mean(beta)` and the variance
    `mean(gamma^2 + beta^2) - mean(beta)^2`. Then one LayerNorm computes what the two did. This is
    exact where all values of `gamma` are equal and all values of `beta` are equal.

    Args:
        config: config of the encoder. With pre-norm or `half_layer_norms` nothing is folded.
        weights: weights of the encoder by name.
        dropped: taps of the blocks to drop.

    Returns:
        The weights that change, by name.
    """
    folded: dict[str, np.ndarray] = {}
    if config.norm_first or config.half_layer_norms:
        return folded
    previous = "encoder/embeddings"
    for block in config.pattern:
        if block.name not in dropped:
            previous = _scope(block.name)
            continue
        names = [f"{previous}/layer_norm/{part}" for part in _NORM]
        first = [np.float64(folded.get(name, weights[name])) for name in names]
        second = [weights[f"{_scope(block.name)}/layer_norm/{part}"] for part in _NORM]
        values = _folded(first, second, config.layer_norm_eps)
        folded |= {name: np.float32(value) for name, value in zip(names, values, strict=True)}
    return folded


def _folded(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gamma and beta of one LayerNorm that replaces two in a row."""
    (gamma, beta), (next_gamma, next_beta) = first, second
    mean = beta.mean()
    scale = next_gamma / np.sqrt(np.mean(gamma**2 + beta**2) - mean**2 + eps)
    return scale * gamma, scale * (beta - mean) + next_beta


def encoder_blocks(pattern: BlockPattern, numbers: Sequence[int]) -> list[str]:
    """Taps of the attention and intermediate blocks of the encoder blocks with these numbers.

    Raises:
        InputError: the pattern has no encoder block of a number.
    """
    known = {block.index for block in pattern}
    for number in numbers:
        if number not in known:
            raise InputError(f"{pattern} has the encoder blocks 0 to {max(known)}, not {number}")
    return [block.name for block in pattern if block.index in numbers]


def _scope(tap: str) -> str:
    return f"encoder/{tap.replace('/', '_')}"


def _check_origins(old: BlockPattern, new: BlockPattern, origins: Sequence[str]) -> None:
    kinds = {block.name: block.kind for block in old}
    if len(origins) != len(new):
        raise InputError(f"{len(origins)} origins for the {len(new)} blocks of {new}")
    for block, origin in zip(new, origins, strict=True):
        if origin and kinds.get(origin) != block.kind:
            raise InputError(f"{block.name} cannot have the weights of {origin!r} of {old}")
        if not origin and block.kind == "intermediate":
            raise InputError(f"{block.name} has no origin; only attention blocks can be new")


def _part(old: EncoderConfig, weights: dict[str, np.ndarray], tap: str) -> dict[str, np.ndarray]:
    """The weights of a block, those included that it shares, by their names in the block."""
    scope = f"{_scope(tap)}/"
    part = {n.removeprefix(scope): a for n, a in weights.items() if n.startswith(scope)}
    if old.share_intermediate and tap.endswith("/intermediate"):
        owner = next(block.name for block in old.pattern if block.kind == "intermediate")
        part.update({name: weights[f"{_scope(owner)}/{name}"] for name in _DENSE})
    return part


def _donors(pattern: BlockPattern, origins: Sequence[str], share: str) -> list[str]:
    """The old blocks whose mean all intermediate blocks of the new encoder share."""
    blocks = [block.name for block in pattern if block.kind == "intermediate"]
    kept = [name for name in blocks if name in origins]
    if not kept or share not in (MEAN, *blocks):
        raise InputError(
            f"share_intermediate {share!r}: give {MEAN} or an intermediate block of {pattern} "
            f"({', '.join(blocks) or 'it has none'}), and keep one at least"
        )
    return kept if share == MEAN else [share]


def _resize(part: dict[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """The weights of an intermediate block with another number of neurons."""
    inputs, outputs = part["intermediate/kernel"], part["output/kernel"]
    old = inputs.shape[1]
    if width >= old:
        chosen = np.arange(width) % old
        outputs = outputs / np.bincount(chosen, minlength=old)[:, np.newaxis]
    else:
        weight = np.linalg.norm(inputs, axis=0) * np.linalg.norm(outputs, axis=1)
        chosen = np.sort(np.argsort(-weight, kind="stable")[:width])
    return {
        **part,
        "intermediate/kernel": inputs[:, chosen],
        "intermediate/bias": part["intermediate/bias"][chosen],
        "output/kernel": outputs[chosen],
    }


def _identity(
    result: Encoder, scope: str, previous: str, values: dict[str, np.ndarray], config: EncoderConfig
) -> dict[str, np.ndarray]:
    """The weights of a new attention block that passes its input on.

    With post-norm this moves scale and shift of the LayerNorm before it out of `values`.
    """
    weights = {
        name: np.asarray(variable)
        for name, variable in named_weights(result.weights).items()
        if name.startswith(f"{scope}/")
    }
    for part in ("kernel", "bias"):
        weights[f"{scope}/output/{part}"] = np.zeros_like(weights[f"{scope}/output/{part}"])
    if not config.norm_first:
        for part, neutral in zip(_NORM, (np.ones_like, np.zeros_like), strict=True):
            norm = f"{previous}/layer_norm/{part}"
            weights[f"{scope}/layer_norm/{part}"] = values[norm]
            values[norm] = neutral(values[norm])
    return weights
