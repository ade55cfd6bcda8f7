"""Configs: frozen dataclasses that go to JSON and back, where an unknown key is an error.

Every field carries its help text, from which `undivided_tf.bin` makes the flag of the same
name; so a flag, a key of `config.json` and an attribute are one thing. Needs no TensorFlow.
"""

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import typing
from collections.abc import Callable
from typing import Any, Self

from undivided_tf import files
from undivided_tf.errors import InputError
from undivided_tf.pattern import INTERMEDIATE, BlockPattern


def option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field with its default, its help text and, for a string, its allowed values."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def section(config: "Config", prefix: str = "", without: tuple[str, ...] = ()) -> Any:
    """A field that holds another config.

    Args:
        config: the default.
        prefix: what stands before the flags of its fields, such as `"finetuning."`.
        without: fields that have no flag here, since the caller sets them itself.
    """
    return dataclasses.field(default=config, metadata={"prefix": prefix, "without": without})


class Config:
    """Base of all configs: strict JSON, checked types, a hash."""

    def __post_init__(self):
        for name, kind in typing.get_type_hints(type(self)).items():
            value = _checked(getattr(self, name), kind, f"{type(self).__name__}.{name}")
            choices = type(self).__dataclass_fields__[name].metadata.get("choices")
            if choices and value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
            object.__setattr__(self, name, value)
        self.validate()

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict; tuples become lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "") -> Self:
        """Builds the config; absent keys take their defaults.

        Args:
            values: as `to_dict` gives.
            where: named in errors, such as the path of the file.

        Raises:
            InputError: an unknown key or a wrong type.
        """
        fields = typing.get_type_hints(cls)
        if not isinstance(values, dict):
            raise InputError(f"{where or cls.__name__}: expected a JSON object, got {values!r}")
        values = cls.migrated(values)
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(fields)}"
                raise InputError(f"{where or cls.__name__}: unknown key {key!r}{hint}")
        nested = {
            key: kind.from_dict(values[key], f"{where or cls.__name__}: {key}")
            for key, kind in fields.items()
            if key in values and isinstance(kind, type) and issubclass(kind, Config)
        }
        return cls(**{**values, **nested})

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`values` of an older release in today's names."""
        return values

    def to_json(self, path: str | os.PathLike) -> None:
        """Writes the config atomically; several processes may do so at once."""
        files.write_json(path, self.to_dict(), shared=True)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            InputError: no such file, no JSON, an unknown key or a wrong type; names the file.
        """
        try:
            values = files.read_json(path)
        except FileNotFoundError as error:
            raise InputError(f"there is no config at {path}") from error
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        return cls.from_dict(values, where=str(path))

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change whenever a value changes."""
        return files.sha256(json.dumps(self.to_dict(), sort_keys=True))[:8]


def _checked(value: Any, kind: Any, where: str) -> Any:
    """Returns `value` as `kind` (int passes for float, a list for a tuple) or raises InputError."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list, got {value!r}")
        return tuple(_checked(item, typing.get_args(kind)[0], where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise InputError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def require_positive(config: Config, *names: str) -> None:
    """Raises InputError when one of the named fields is not above zero."""
    for name in names:
        if getattr(config, name) <= 0:
            raise InputError(f"{name} must be above 0, got {getattr(config, name)}")


def require_share(config: Config, *names: str) -> None:
    """Raises InputError when one of the named fields is not in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise InputError(f"{name} must be from 0 to below 1, got {getattr(config, name)}")


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines such as `encoder.hidden_size: 128 there, 256 asked for`."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} there, {after!r} asked for")
    return lines


def claim_workdir(
    workdir: str | os.PathLike,
    config: Config,
    grown: Callable[[Any], bool] = lambda there: False,
) -> pathlib.Path:
    """Makes `workdir` with `config.json`, or checks that the one there is the same.

    Args:
        workdir: the directory of a run.
        config: the run.
        grown: whether `config` goes on with what another config, that of the directory, began;
            it then takes its place.

    Raises:
        InputError: the directory holds the results of another config; shows the difference.
    """
    if not str(workdir):
        raise InputError("a work directory is needed: --workdir=DIR")
    path = pathlib.Path(workdir) / "config.json"
    if path.exists():
        try:
            there = files.read_json(path)
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}; choose another directory") from error
        old = None
        with contextlib.suppress(InputError):
            # A key that came with a newer release has its default in an older run.
            old = type(config).from_dict(there)
            there = old.to_dict()
        # A directory may be moved, so where it lies is no difference.
        changed = differences({**there, "workdir": ""}, {**config.to_dict(), "workdir": ""})
        if not changed:
            return path.parent
        if old is None or not grown(old):
            raise InputError(
                f"{path} holds another config:\n  " + "\n  ".join(changed) + "\n"
                "choose another directory, or give the flags of that config to continue it"
            )
    config.to_json(path)
    return path.parent


def results_once(
    config: Config, prepare: Callable[[], Any], run: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """The content of `workdir/results.json`, made first when it is not there yet.

    Args:
        config: the run; its `workdir` receives config.json and results.json.
        prepare: builds what can fail for a mistake of the user, such as a mistyped path. It is
            called before the workdir is claimed, so that the mistake leaves none behind.
        run: makes the results from what `prepare` returned.

    Raises:
        InputError: the workdir holds another config.
    """
    path = pathlib.Path(config.workdir) / "results.json"
    finished = path.exists()
    prepared = None if finished else prepare()
    claim_workdir(config.workdir, config)
    if not finished:
        files.write_json(path, run(prepared))
    return files.read_json(path)


ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
ATTENTION_NORMALIZATIONS = ("softmax", "relu")
POSITION_TYPES = ("absolute", "rotary")
DEFAULT_ROTARY_BASE = 10000.0
POOLINGS = ("first", "mean", "max")
SPLITS = ("train", "validation", "test")
TASK_HELP = (
    "Sample task, tfds:glue/NAME, a folder in GLUE's official layout such as glue_data/CoLA, or "
    "any folder with train.tsv and dev.tsv."
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig(Config):
    """Architecture of an encoder, in BERT's own names; the defaults are BERT-Base uncased."""

    vocab_size: int = option(30522, "Number of word pieces.")
    hidden_size: int = option(768, "Width of the residual stream.")
    num_attention_heads: int = option(12, "Attention heads; must divide hidden_size.")
    intermediate_size: int = option(3072, "Width inside an intermediate block.")
    block_pattern: str = option(
        "(AI)*12", "Blocks in order: A attention, I intermediate; (AAI)*6 keeps every second I."
    )
    max_position_embeddings: int = option(512, "Longest sequence, in word pieces.")
    type_vocab_size: int = option(2, "Number of segment ids.")
    position_type: str = option(
        "absolute", "How tokens know their places: a learnt embedding of each place (absolute), or "
        "queries and keys turned by angles in proportion to it (rotary; no parameters).",
        POSITION_TYPES,
    )  # fmt: skip
    rotary_base: float = option(
        DEFAULT_ROTARY_BASE, "Base of the rotary angles; short sequences may want a smaller one."
    )
    query_key_norm: bool = option(
        False, "RMS normalisation of the queries and keys of each head, with a learnt scale."
    )
    hidden_dropout_prob: float = option(0.1, "Dropout after embeddings and blocks.")
    attention_probs_dropout_prob: float = option(0.1, "Dropout on attention probabilities.")
    layer_norm_eps: float = option(1e-12, "Added to the variance in LayerNorm.")
    initializer_range: float = option(0.02, "Deviation of the truncated normal initialiser.")
    hidden_activation: str = option("gelu", "Activation of intermediate blocks.", ACTIVATIONS)
    norm_first: bool = option(
        False, "LayerNorm before each block and after the last (pre-norm), instead of behind each."
    )
    attention_normalization: str = option(
        "softmax", "What makes weights of attention scores; relu: max(0, 1 + score) over the "
        "number of real tokens, without exponentials.", ATTENTION_NORMALIZATIONS,
    )  # fmt: skip
    half_layer_norms: bool = option(
        False, "Only every second block has a LayerNorm, the last included; that of the "
        "embeddings stays."
    )  # fmt: skip
    share_intermediate: bool = option(
        False, "All intermediate blocks have one set of dense weights; each keeps a LayerNorm of "
        "its own."
    )  # fmt: skip
    vocabulary_hash: str = option("", "SHA-256 of the vocabulary that the ids belong to.")
    do_lower_case: bool = option(True, "The vocabulary is uncased: lower case, no accents.")

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        require_positive(
            self, "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "initializer_range",
            "rotary_base",
        )  # fmt: skip
        require_share(self, "hidden_dropout_prob", "attention_probs_dropout_prob")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not divisible by "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.position_type == "rotary" and self.head_width % 2:
            raise InputError(
                f"position_type rotary turns pairs of features: hidden_size {self.hidden_size} / "
                f"num_attention_heads {self.num_attention_heads} must be even"
            )
        if self.position_type != "rotary" and self.rotary_base != DEFAULT_ROTARY_BASE:
            raise InputError(
                f"rotary_base {self.rotary_base:g} has no meaning with position_type "
                f"{self.position_type}: give --position_type=rotary"
            )
        object.__setattr__(self, "block_pattern", str(BlockPattern.parse(self.block_pattern)))

    def require_length(self, max_seq_length: int) -> None:
        """Raises InputError when the encoder has no positions for that many word pieces."""
        if max_seq_length > self.max_position_embeddings:
            raise InputError(
                f"max_seq_length {max_seq_length} is more than the encoder's "
                f"max_position_embeddings {self.max_position_embeddings}"
            )

    @property
    def pattern(self) -> BlockPattern:
        """The parsed `block_pattern`."""
        return BlockPattern.parse(self.block_pattern)

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def layer_norms(self) -> tuple[bool, ...]:
        """Whether each block of the pattern has a LayerNorm."""
        blocks = len(self.pattern)
        return tuple(not self.half_layer_norms or (blocks - i) % 2 == 1 for i in range(blocks))

    @property
    def owns_weights(self) -> tuple[bool, ...]:
        """Whether each block of the pattern has dense weights of its own.

        With `share_intermediate` those of all intermediate blocks are the first one's.
        """
        first = self.pattern.letters.find(INTERMEDIATE)
        return tuple(
            not self.share_intermediate or block.kind == "attention" or number == first
            for number, block in enumerate(self.pattern)
        )
