"""Cuts blocks out of a trained encoder, adds some, resizes and shares intermediate blocks."""

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
    """What went where; blocks are named by their taps.

    Attributes:
        kept: from blocks of the new encoder to those of the old whose weights they have.
        new: blocks of the new encoder that begin as the identity.
        dropped: blocks of the old encoder that are gone.
        intermediate_size: old and new width of intermediate blocks.
        parameters: of the old and of the new encoder.
        shared: the old block whose weights all intermediate blocks have now, or `mean`; "" where
            they were not shared anew.
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
    """A new encoder with the weights of every block that stays; the old one is not changed.

    Left alone, the n-th attention block of the new pattern has the weights of the n-th of the
    old one, and an intermediate block behind it those of the one behind that. So a shorter
    pattern loses blocks from the top, and attention blocks beyond the old ones are new.

    With post-norm the LayerNorm of a dropped block is not lost: it is folded into that of the block
    before, see `folded_layer_norms`.

    A new attention block changes nothing at first: its output projection is zero. With
    post-norm its LayerNorm takes over scale and shift of the block before, which keeps the
    identity, since normalising twice is normalising once.

    A wider intermediate block computes what it did: neurons are copied in turn and the output
    weights of a neuron are shared among its copies. A narrower one keeps the neurons with the
    largest product of the norms of their input and output weights.

    Shared intermediate blocks have one set of dense weights for all places, and a LayerNorm of
    their own at each place. The mean of several blocks is that of neurons that have nothing to do
    with each other: what comes out must be healed.

    Args:
        encoder: Encoder. The trained one.
        pattern: blocks of the new encoder.
        origins: for each block of the new pattern the old block (`block_03/attention`) whose
            weights it gets, or "" for a new attention block; None: as said above.
        intermediate_size: width of the new encoder's intermediate blocks; 0: as it is.
        share_intermediate: the old intermediate block whose dense weights all places of the new
            encoder share, or `mean`, that of all blocks that stay; "": as it is, and an encoder
            whose blocks are shared keeps them so.
        fold_layer_norms: whether the LayerNorm of the block before a dropped block takes over that
            of the dropped block. False suits an encoder that was trained to pass blocks by
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
            "with half_layer_norms the pattern decides which blocks have a LayerNorm: after a cut "
            "others would need one that they never had"
        )
    width = intermediate_size or old.intermediate_size
    config = old.replace(
        block_pattern=str(pattern),
        intermediate_size=width,
        share_intermediate=old.share_intermediate or bool(share_intermediate),
    )
    sources = pattern.counterparts(old.pattern) if origins is None else list(origins)
    _check_origins(old.pattern, pattern, sources)
    result = Encoder(config, seed=encoder.seed)
    weights = {name: np.asarray(v) for name, v in named_weights(encoder.weights).items()}
    dropped = [block.name for block in old.pattern if block.name not in sources]
    if fold_layer_norms:
        weights |= folded_layer_norms(old, weights, dropped)
    values = {name: array for name, array in weights.items() if not _is_block(name)}
    parts = {block.name: _part(old, weights, block.name) for block in old.pattern}
    if share_intermediate:
        common = _common(parts, _donors(old.pattern, sources, share_intermediate))
        parts = {
            tap: {**part, **common} if _is_dense(part) else part for tap, part in parts.items()
        }
    before = "encoder/embeddings"
    for block, source in zip(pattern, sources, strict=True):
        scope = _scope(block.name)
        if source:
            part = parts[source]
            if block.kind == "intermediate" and width != old.intermediate_size:
                part = _resize(part, width)
            values.update({f"{scope}/{name}": array for name, array in part.items()})
        else:
            values.update(_identity(result, scope, before, values, config))
        before = scope
    # Of shared blocks the first has the dense weights; the others ask for their norms only.
    for name, variable in named_weights(result.weights).items():
        variable.assign(values[name])
    names = [block.name for block in pattern]
    return result, Report(
        kept={name: source for name, source in zip(names, sources, strict=True) if source},
        new=[name for name, source in zip(names, sources, strict=True) if not source],
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
    """`operate` without the named blocks, of either kind.

    Args:
        encoder: the trained one.
        blocks: taps, such as `block_03/intermediate`.
        intermediate_size: as for `operate`.
        share_intermediate: as for `operate`.
        fold_layer_norms: as for `operate`.

    Raises:
        InputError: the encoder has no such block, or none would be left.
    """
    pattern = encoder.config.pattern
    unknown = sorted(set(blocks) - {block.name for block in pattern})
    if unknown:
        raise InputError(f"{unknown[0]!r} is no block of {pattern}: {', '.join(_names(pattern))}")
    left = [
        (letter, block.name)
        for letter, block in zip(pattern.letters, pattern, strict=True)
        if block.name not in blocks
    ]
    if not left:
        raise InputError(f"no block of {pattern} would be left")
    return operate(
        encoder,
        BlockPattern("".join(letter for letter, _ in left)),
        [name for _, name in left],
        intermediate_size,
        share_intermediate,
        fold_layer_norms,
    )


def folded_layer_norms(
    config: EncoderConfig, weights: Mapping[str, np.ndarray], dropped: Collection[str]
) -> dict[str, np.ndarray]:
    """The LayerNorms of the blocks before dropped blocks, each followed by those of the dropped.

    The first LayerNorm gives `gamma n + beta`, where `n` has mean 0 and variance 1 over the
    features of a token. The second needs mean and variance of that. They differ little from token
    to token, so both are taken as if each feature of `n` had mean 0 and variance 1 over tokens:
    `mean(beta)` and `mean(gamma^2 + beta^2) - mean(beta)^2`. The two LayerNorms are then one. This
    is exact where `gamma` is one number and `beta` is 0.

    Args:
        config: of the encoder. With pre-norm, and with `half_layer_norms`, nothing is folded.
        weights: of the encoder, by name.
        dropped: taps of the blocks to drop.

    Returns:
        The weights that change, by name.
    """
    folded: dict[str, np.ndarray] = {}
    before = "encoder/embeddings"
    has_all = not (config.norm_first or config.half_layer_norms)
    for block in config.pattern if has_all else ():
        if block.name not in dropped:
            before = _scope(block.name)
            continue
        names = [f"{before}/layer_norm/{part}" for part in _NORM]
        first = [np.float64(folded.get(name, weights[name])) for name in names]
        second = [weights[f"{_scope(block.name)}/layer_norm/{part}"] for part in _NORM]
        values = _composed(first, second, config.layer_norm_eps)
        folded |= {name: np.float32(value) for name, value in zip(names, values, strict=True)}
    return folded


def _composed(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gamma and beta of one LayerNorm in place of two in a row."""
    (gamma, beta), (next_gamma, next_beta) = first, second
    mean = beta.mean()
    scale = next_gamma / np.sqrt(np.mean(gamma**2 + beta**2) - mean**2 + eps)
    return scale * gamma, scale * (beta - mean) + next_beta


def encoder_blocks(pattern: BlockPattern, numbers: Sequence[int]) -> list[str]:
    """All blocks, attention and intermediate, of the encoder blocks of these numbers, from 0.

    Raises:
        InputError: there is no encoder block of that number.
    """
    there = {block.index for block in pattern}
    for number in numbers:
        if number not in there:
            raise InputError(f"{pattern} has the encoder blocks 0 to {max(there)}, not {number}")
    return [block.name for block in pattern if block.index in numbers]


def _names(pattern: BlockPattern) -> list[str]:
    return [block.name for block in pattern]


def _scope(tap: str) -> str:
    return f"encoder/{tap.replace('/', '_')}"


def _is_block(path: str) -> bool:
    return path.startswith("encoder/block_")


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
    """All weights that a block computes with, by their names inside it; shared ones too."""
    inside = f"{_scope(tap)}/"
    part = {n.removeprefix(inside): a for n, a in weights.items() if n.startswith(inside)}
    if old.share_intermediate and tap.endswith("/intermediate"):
        owner = next(block.name for block in old.pattern if block.kind == "intermediate")
        part.update({name: weights[f"{_scope(owner)}/{name}"] for name in _DENSE})
    return part


def _is_dense(part: dict[str, np.ndarray]) -> bool:
    return _DENSE[0] in part


def _donors(pattern: BlockPattern, sources: Sequence[str], share: str) -> list[str]:
    """The old blocks whose weights are shared."""
    blocks = [block.name for block in pattern if block.kind == "intermediate"]
    donors = [name for name in blocks if name in sources] if share == MEAN else [share]
    if not donors or donors[0] not in blocks or not any(name in sources for name in blocks):
        raise InputError(
            f"share_intermediate {share!r}: give {MEAN} or an intermediate block of {pattern} "
            f"({', '.join(blocks) or 'it has none'}), and keep one at least"
        )
    return donors


def _common(parts: dict[str, dict[str, np.ndarray]], donors: list[str]) -> dict[str, np.ndarray]:
    """Mean of the dense weights of some blocks."""
    return {name: np.mean([parts[tap][name] for tap in donors], axis=0) for name in _DENSE}


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
    result: Encoder, scope: str, before: str, values: dict[str, np.ndarray], config: EncoderConfig
) -> dict[str, np.ndarray]:
    """A new attention block that passes its input on; moves the affine part of the norm before."""
    own = {
        name: np.asarray(variable)
        for name, variable in named_weights(result.weights).items()
        if name.startswith(f"{scope}/")
    }
    own[f"{scope}/output/kernel"] = np.zeros_like(own[f"{scope}/output/kernel"])
    own[f"{scope}/output/bias"] = np.zeros_like(own[f"{scope}/output/bias"])
    if not config.norm_first:
        for part, neutral in zip(_NORM, (np.ones_like, np.zeros_like), strict=True):
            there = f"{before}/layer_norm/{part}"
            own[f"{scope}/layer_norm/{part}"] = values[there]
            values[there] = neutral(values[there])
    return own
