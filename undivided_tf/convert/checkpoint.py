"""Foreign weights under our names: what fits, what is missing, what is left over."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from undivided_tf.config import EncoderConfig
from undivided_tf.convert.names import Tensor
from undivided_tf.errors import InputError
from undivided_tf.models.heads import ClassifierHead, SpanHead
from undivided_tf.tokenization import Tokenizer


class Reader(Protocol):
    """Tensors by the names of a format, read one at a time."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """One tensor in float32; InputError when a value is not finite."""


@dataclasses.dataclass(frozen=True)
class Foreign:
    """How a format stores one of our tensors.

    Attributes:
        name: its name there.
        shape: its shape there.
        transposed: whether it is our matrix transposed; else only the shape may differ.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool = False


@dataclasses.dataclass
class Coverage:
    """What became of every tensor; all but `initial` are names of the format.

    Attributes:
        loaded: tensors whose values were taken.
        tied: copies of loaded tensors, found equal to them.
        initial: our names of weights that the checkpoint lacks and may lack: the pooler.
        missing, misshaped: what an encoder or a head needs and the checkpoint lacks.
        unused: tensors that we have no place for.
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
    """A foreign checkpoint, opened but not read.

    Attributes:
        format: name of the format.
        config: architecture of the encoder.
        tokenizer: vocabulary and casing; it may have fewer word pieces than `config.vocab_size`,
            the rows of the word embeddings.
        tensors: from our names to (shape, function that reads the array in our shape).
        coverage: what became of every tensor of the checkpoint.
        classifier: what its sequence classifier answers; None when it has none.
        spans: what its span predictor was fed; None when it has none.
    """

    format: str
    config: EncoderConfig
    tokenizer: Tokenizer
    tensors: dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]]
    coverage: Coverage
    classifier: ClassifierHead | None = None
    spans: SpanHead | None = None

    @property
    def heads(self) -> list[str]:
        """Names of the heads whose weights are there."""
        scopes = dict.fromkeys(path.split("/")[0] for path in self.tensors)
        return [scope for scope in scopes if scope != "encoder"]

    def without_heads(self) -> "Checkpoint":
        """The encoder alone."""
        kept = {path: t for path, t in self.tensors.items() if path.startswith("encoder/")}
        return dataclasses.replace(self, tensors=kept, classifier=None, spans=None)


def match(
    where: Any,
    tensors: Iterable[Tensor],
    foreign: Callable[[Tensor], Foreign],
    reader: Reader,
    optional: Iterable[Tensor] = (),
    is_encoder: Callable[[str], bool] = lambda name: False,
) -> tuple[dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]], Coverage]:
    """Finds every tensor of ours in a foreign checkpoint; reads none.

    Args:
        where: named in errors.
        tensors: what must be there.
        foreign: how the format stores one of ours.
        reader: the foreign tensors.
        optional: what may be absent, all of it at once.
        is_encoder: whether a foreign name belongs to the encoder; such a tensor that is left
            over speaks of another architecture and is an error.

    Returns:
        Our names with shapes and readers, and the coverage.

    Raises:
        InputError: missing, misshaped or left-over tensors of the encoder; lists them.
    """
    coverage, readers = Coverage(), {}
    tensors, optional = list(tensors), list(optional)
    if not any(foreign(tensor).name in reader.shapes for tensor in optional):
        coverage.initial = [tensor.path for tensor in optional]
        optional = []
    for tensor in [*tensors, *optional]:
        there = foreign(tensor)
        shape = reader.shapes.get(there.name)
        if shape is None:
            coverage.missing.append(there.name)
        elif tuple(shape) != there.shape:
            coverage.misshaped.append(f"{there.name}: {tuple(shape)} there, needed {there.shape}")
        else:
            coverage.loaded.append(there.name)
            readers[tensor.path] = (tensor.shape, _reader(reader, there, tensor.shape))
    expected = {foreign(tensor).name for tensor in (*tensors, *optional)}
    coverage.unused = sorted(set(reader.shapes) - expected)
    alien = [f"not of this architecture: {name}" for name in coverage.unused if is_encoder(name)]
    problems = [
        *(f"missing: {name}" for name in coverage.missing),
        *(f"shape of {name}" for name in coverage.misshaped),
        *alien,
    ]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(
            f"the weights in {where} are not those that its config describes:\n  "
            + "\n  ".join(problems[:10])
            + more
        )
    return readers, coverage


def _reader(reader: Reader, there: Foreign, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        array = reader.read(there.name)
        return array.T if there.transposed else array.reshape(shape)

    return read
