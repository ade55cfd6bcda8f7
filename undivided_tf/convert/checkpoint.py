"""Checkpoints of other formats: their tensors under our names, and those missing or unused."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from undivided_tf.config import EncoderConfig
from undivided_tf.convert.names import Tensor
from undivided_tf.errors import InputError
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.tokenization import Tokenizer


class Reader(Protocol):
    """Reads the tensors of a checkpoint one at a time, by their names in its format."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor in float32; InputError if a value is not finite."""


class LazyTensor(NamedTuple):
    """One of our tensors: its shape, and a function that reads the array in this shape."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Foreign:
    """How a format stores one of our tensors.

    Attributes:
        name: its name in the format.
        shape: its shape in the format.
        transposed: whether the format stores our matrix transposed; otherwise only its shape may
            differ.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool = False


@dataclasses.dataclass
class Coverage:
    """Which tensors are used; all names except `initial` are those of the format.

    Attributes:
        loaded: tensors that are used.
        tied: equal copies of loaded tensors.
        initial: our names of optional weights that are missing (the pooler); they keep their
            initial values.
        missing, misshaped: required tensors that are missing or have another shape.
        unused: tensors without a counterpart here.
    """

    loaded: list[str] = dataclasses.field(default_factory=list)
    tied: list[str] = dataclasses.field(default_factory=list)
    initial: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    misshaped: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(
            f"{kind}: {len(names)}" + (f" ({', '.join(names)})" if kind != "loaded" else "")
            for kind, names in dataclasses.asdict(self).items()
            if names or kind == "loaded"
        )


@dataclasses.dataclass
class Checkpoint:
    """An open checkpoint; its tensors are read when they are needed.

    Attributes:
        format: name of the format.
        config: architecture of the encoder.
        tokenizer: vocabulary and casing; it may have fewer word pieces than `config.vocab_size`,
            the rows of the word embeddings.
        tensors: the tensors by our names.
        coverage: which tensors of the checkpoint are used.
        classifier: head of the sequence classifier, or None.
        spans: head of the span predictor, or None.
    """

    format: str
    config: EncoderConfig
    tokenizer: Tokenizer
    tensors: dict[str, LazyTensor]
    coverage: Coverage
    classifier: ClassifierHead | None = None
    spans: SpanHead | None = None

    @property
    def heads(self) -> list[str]:
        """Names of the heads that have weights."""
        scopes = dict.fromkeys(path.split("/")[0] for path in self.tensors)
        return [scope for scope in scopes if scope != "encoder"]

    def without_heads(self) -> "Checkpoint":
        """The same checkpoint with the encoder only."""
        kept = {path: t for path, t in self.tensors.items() if path.startswith("encoder/")}
        return dataclasses.replace(self, tensors=kept, classifier=None, spans=None)


def match(
    where: Any,
    tensors: Iterable[Tensor],
    foreign: Callable[[Tensor], Foreign],
    reader: Reader,
    optional: Iterable[Tensor] = (),
    is_encoder: Callable[[str], bool] = lambda name: False,
) -> tuple[dict[str, LazyTensor], Coverage]:
    """Finds our tensors in a checkpoint, without reading them.

    Args:
        where: the checkpoint, for errors.
        tensors: the tensors that the config describes.
        foreign: function from our tensor to the way in which the format stores it.
        reader: the tensors of the checkpoint.
        optional: those of `tensors` that may all be missing together.
        is_encoder: function from a name of the format to whether it belongs to the encoder. An
            unused tensor of the encoder is an error, since it belongs to another architecture.

    Returns:
        The tensors by our names, and the coverage.

    Raises:
        InputError: tensors that are missing, have another shape or are unused; lists them.
    """
    coverage, matched = Coverage(), {}
    optional = list(optional)
    expected = [tensor for tensor in tensors if tensor not in optional]
    if any(foreign(tensor).name in reader.shapes for tensor in optional):
        expected += optional
    else:
        coverage.initial = [tensor.path for tensor in optional]
    for tensor in expected:
        stored = foreign(tensor)
        shape = reader.shapes.get(stored.name)
        if shape is None:
            coverage.missing.append(stored.name)
        elif tuple(shape) != stored.shape:
            coverage.misshaped.append(f"{stored.name}: {tuple(shape)} there, needed {stored.shape}")
        else:
            coverage.loaded.append(stored.name)
            matched[tensor.path] = LazyTensor(
                tensor.shape, functools.partial(_read, reader, stored, tensor.shape)
            )
    coverage.unused = sorted(set(reader.shapes) - {foreign(tensor).name for tensor in expected})
    problems = [
        *(f"missing: {name}" for name in coverage.missing),
        *(f"shape of {name}" for name in coverage.misshaped),
        *(f"not of this architecture: {name}" for name in coverage.unused if is_encoder(name)),
    ]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(
            f"the weights in {where} are not those that its config describes:\n  "
            + "\n  ".join(problems[:10])
            + more
        )
    return matched, coverage


def _read(reader: Reader, stored: Foreign, shape: tuple[int, ...]) -> np.ndarray:
    array = reader.read(stored.name)
    return array.T if stored.transposed else array.reshape(shape)
